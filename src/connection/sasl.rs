//! The gate of -S: until a client has proven who it is, it may ask for the mechanisms and the
//! version, and go through an exchange. Anything else is refused and ends the connection.

use super::batch::{Done, Stop, log_request, run_one};
use super::gate::{FAILURES_MAX, INCOMPLETE};
use super::{Connection, Desk, State};
use crate::auth::{Exchange, Step};
use crate::command::{Command, Error, Next, Replies, Reply, Say};
use crate::protocol::login::{Ask, TOKEN_MAX};
use crate::protocol::{Decoded, Echo, Encoder};
use crate::watch::CloseReason;
use bumpalo::Bump;
use log::info;
use std::mem::replace;

/// Longest name of a mechanism. memcached's limit.
const MECHANISM_MAX: usize = 32;
/// What an exchange takes until it is over: messages of a few hundred bytes, and keys.
const EXCHANGE_BYTES: usize = 4 << 10;
const NOT_ALLOWED: Error = Error::NotAllowed("unauthenticated");

/// What becomes of a connection at its gate.
#[derive(Clone, Copy, Debug, Default)]
enum Fate {
    #[default]
    Waits,
    Enters,
    Leaves,
}

/// A connection before its gate, or one that came back to it.
#[derive(Default)]
pub(super) struct Login {
    /// Proven before. As in memcached a new exchange puts that in question again.
    inside: bool,
    failures: u8,
    /// Bytes of a refused message that are still to be dropped.
    swallow: u32,
    exchange: Option<Exchange>,
    fate: Fate,
}

impl Login {
    pub(super) fn inside() -> Login {
        Login { inside: true, ..Login::default() }
    }

    /// Bytes that it takes, with what its exchange keeps from step to step.
    pub(super) fn held(&self) -> usize {
        size_of::<Login>() + if self.exchange.is_some() { EXCHANGE_BYTES } else { 0 }
    }

    /// What the client's message comes to.
    fn step(&mut self, ask: Ask<'_>, message: &[u8], desk: &Desk) -> Step {
        self.inside = false;
        if let (Ask::Start(mechanism), Some(sasl)) = (ask, &desk.auth.sasl) {
            self.exchange = sasl.start(mechanism);
        }
        let step = self.exchange.as_mut().map_or(Step::Failed, |exchange| exchange.step(message));
        let counters = &desk.local.counters.thread;
        if !matches!(step, Step::Challenge(_)) {
            counters.auth_cmds.bump();
            self.exchange = None;
        }
        if step == Step::Failed {
            counters.auth_errors.bump();
            self.failures += 1;
        }
        step
    }

    /// Runs the little that anybody may ask. As in memcached, lengths that disagree with each other
    /// are told before it.
    fn stranger(
        &mut self,
        used: usize,
        command: &Command<'_>,
        echo: Echo<'_>,
        desk: &mut Desk,
    ) -> Done {
        let heard = echo.precedes_login() || matches!(command, Command::HangUp(Error::Unknown));
        let command = if heard { command } else { &Command::HangUp(NOT_ALLOWED) };
        if run_one(command, &echo, None, None, desk) == Next::Close {
            self.fate = Fate::Leaves;
        }
        Done { used, requests: 1, stop: Stop::Limit }
    }
}

impl Connection {
    /// Answers what is at the front of `buf`. Whatever happens, nobody is in who was not let in.
    pub(super) fn wait_at_gate(&mut self, buf: &[u8], desk: &mut Desk) -> Done {
        match replace(&mut self.state, State::Closing(CloseReason::Error)) {
            State::Gate(gate) => {
                self.state = State::Gate(gate);
                self.knock(gate, buf, desk)
            }
            State::Sasl(mut login) => {
                let done = self.log_in(&mut login, buf, desk);
                self.state = match login.fate {
                    Fate::Waits => State::Sasl(login),
                    Fate::Enters => State::Command,
                    Fate::Leaves => State::Closing(CloseReason::Error),
                };
                done
            }
            other => {
                self.state = other;
                INCOMPLETE
            }
        }
    }

    fn log_in(&mut self, login: &mut Login, buf: &[u8], desk: &mut Desk) -> Done {
        if login.swallow > 0 {
            let used = buf.len().min(login.swallow as usize);
            login.swallow -= used as u32;
            return Done { used, requests: 0, stop: Stop::Limit };
        }
        log_request(self.file(), &self.decoder, buf);
        let arena = Bump::new();
        match self.decoder.decode(buf, &arena) {
            Decoded::Login { used, ask, len, echo } => {
                let Some(used) = self.ask(login, buf, (used, ask, len), echo, desk) else {
                    return INCOMPLETE;
                };
                self.last_command = desk.store.clock().now();
                Done { used, requests: 1, stop: Stop::Limit }
            }
            Decoded::Incomplete => INCOMPLETE,
            Decoded::HangUp => {
                login.fate = Fate::Leaves;
                INCOMPLETE
            }
            _ if login.inside => {
                login.fate = Fate::Enters;
                Done { used: 0, requests: 0, stop: Stop::Limit }
            }
            Decoded::Command { used, command, echo } => login.stranger(used, &command, echo, desk),
            Decoded::Refused { used, echo, .. } => {
                login.stranger(used, &Command::HangUp(NOT_ALLOWED), echo, desk)
            }
        }
    }

    /// Answers one request of an exchange; returns its length, `None` where it is not all here.
    fn ask(
        &self,
        login: &mut Login,
        buf: &[u8],
        (used, ask, len): (usize, Ask<'_>, u32),
        echo: Echo<'_>,
        desk: &mut Desk,
    ) -> Option<usize> {
        let refused = match ask {
            Ask::Start(name) if name.len() > MECHANISM_MAX => Some(Error::Client("mechanism")),
            _ if len > TOKEN_MAX => Some(Error::Server("Out of memory")),
            _ => None,
        };
        if let Some(error) = refused {
            login.swallow = len;
            Encoder::new(&mut desk.outbox, &echo).reply(Reply::Say(Say::Error(error)));
            return Some(used);
        }
        let end = used + len as usize;
        let message = buf.get(used..end)?;
        let step = (ask != Ask::Mechanisms).then(|| login.step(ask, message, desk));
        let mut replies = Encoder::new(&mut desk.outbox, &echo);
        match step {
            None => {
                let names = desk.auth.sasl.as_ref().map_or("", |sasl| sasl.mechanisms());
                replies.reply(Reply::Mechanisms(names));
            }
            Some(Step::Challenge(message)) => replies.reply(Reply::Challenge(&message)),
            Some(Step::Proven) => {
                replies.reply(Reply::LoggedIn);
                login.fate = Fate::Enters;
            }
            Some(Step::Failed) => {
                replies.reply(Reply::Say(Say::Error(NOT_ALLOWED)));
                if login.failures >= FAILURES_MAX {
                    info!("<{} closed after {FAILURES_MAX} failed attempts", self.file());
                    login.fate = Fate::Leaves;
                }
            }
        }
        Some(end)
    }
}
