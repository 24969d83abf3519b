//! The gate of -Y: until a client has said who it is, nothing else of it is heard.

use super::batch::{Done, Stop};
use super::value::LINE_END;
use super::{Connection, Desk, State};
use crate::command::Error;
use crate::protocol::login::{self, Login};
use crate::watch::CloseReason;
use log::{debug, info};

/// Attempts of a connection that may fail; with the last it is closed, so that guessing costs a
/// connection for each so many guesses.
pub(super) const FAILURES_MAX: u8 = 16;

/// A connection before its gate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gate {
    /// The token that its last line announced, bytes without its line end.
    token: Option<u32>,
    failures: u8,
}

impl Connection {
    /// Answers the line or the token at the front of `buf`.
    pub(super) fn knock(&mut self, mut gate: Gate, buf: &[u8], desk: &mut Desk) -> Done {
        let (used, answer) = match gate.token.take() {
            Some(len) => {
                let Some(token) = buf.get(..len as usize + LINE_END.len()) else {
                    return INCOMPLETE;
                };
                (token.len(), gate.check(token, desk))
            }
            None => {
                // What comes behind a refused announcement may be a password: it is not shown.
                debug!("<{} a line from who has not said who it is", self.file());
                match login::line(buf) {
                    Login::Refused { used, error } => (used, Err(error)),
                    Login::Token { used, len } => {
                        self.state = State::Gate(Gate { token: Some(len), ..gate });
                        return Done { used, requests: 0, stop: Stop::Limit };
                    }
                    Login::Incomplete => return INCOMPLETE,
                    Login::HangUp => {
                        self.state = State::Closing(CloseReason::Error);
                        return INCOMPLETE;
                    }
                }
            }
        };
        self.last_command = desk.store.clock().now();
        self.state = match answer {
            Ok(()) => State::Command,
            Err(_) if gate.failures < FAILURES_MAX => State::Gate(gate),
            Err(_) => {
                info!("<{} closed after {FAILURES_MAX} wrong tokens", self.file());
                State::Closing(CloseReason::Error)
            }
        };
        login::encode(desk.outbox.bytes(), answer);
        Done { used, requests: 1, stop: Stop::Limit }
    }
}

/// The part of a line or a token: it stays where it is.
pub(super) const INCOMPLETE: Done = Done { used: 0, requests: 0, stop: Stop::Incomplete };

impl Gate {
    /// A token that cannot be read is not an attempt, as memcached counts.
    fn check(&mut self, token: &[u8], desk: &Desk) -> Result<(), Error> {
        let (user, password) = login::token(token)?;
        let counters = &desk.local.counters.thread;
        counters.auth_cmds.bump();
        if desk.auth.file.as_ref().is_some_and(|file| file.check(user, password)) {
            return Ok(());
        }
        counters.auth_errors.bump();
        self.failures += 1;
        Err(Error::Client("authentication failure"))
    }
}
