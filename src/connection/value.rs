//! A value that is still on its way, and what becomes of it.

use super::{Connection, Desk, State};
use crate::command::{Command, Error, Replies, Reply, Say, Set, commit_value, refuse};
use crate::protocol::{Decoded, Decoder, Echo, Encoder};
use crate::store::Reservation;
use crate::watch::CloseReason;
use std::io::{ErrorKind, Result};
use std::mem::replace;

/// What follows every value of a text protocol.
pub(super) const LINE_END: [u8; 2] = *b"\r\n";
/// memcached's words for a value that is not followed by [`LINE_END`]. As there, exactly the
/// announced length and two more bytes are dropped: what comes next is taken for a command.
pub(super) const BAD_CHUNK: Error = Error::Client("bad data chunk");
/// Fewer missing bytes than this are read into the shared buffer, with what follows them.
const DIRECT_MIN: usize = 16 << 10;
/// Bytes of one value read in one turn.
const FILL_MAX: usize = 1 << 20;

/// A value that arrived in part. Dropped with its connection, it frees its room.
pub(super) struct Value {
    /// The line, or header, extras and key: decoded again when the value is whole.
    line: Box<[u8]>,
    reservation: Reservation,
    /// The two bytes after the value. Where the protocol has none, they count as seen.
    end: [u8; 2],
    end_len: usize,
}

impl Value {
    /// Takes what is the value's, and its line end's, from `bytes`; returns how much.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut used = self.reservation.fill(bytes);
        if self.reservation.missing() == 0 {
            let end = bytes[used..].iter().take(LINE_END.len() - self.end_len);
            for &byte in end {
                self.end[self.end_len] = byte;
                self.end_len += 1;
                used += 1;
            }
        }
        used
    }

    pub(super) fn is_whole(&self) -> bool {
        self.end_len == LINE_END.len() && self.is_filled()
    }

    /// Bytes that it takes beside its chunks.
    pub(super) fn held(&self) -> usize {
        size_of::<Value>() + self.line.len()
    }

    /// True where only the line end may be missing.
    pub(super) fn is_filled(&self) -> bool {
        self.reservation.missing() == 0
    }

    /// True where so much is missing that it is read straight into its chunks.
    pub(super) fn wants_socket(&self) -> bool {
        self.reservation.missing() >= DIRECT_MIN
    }
}

impl Connection {
    /// Makes room for a value of which not all is here; without room says so, and drops it.
    pub(super) fn expect_value(
        &mut self,
        line: &[u8],
        set: &Set<'_>,
        echo: Echo<'_>,
        desk: &mut Desk,
    ) {
        self.state = match desk.store.reserve(&desk.local, set, desk.store.hash(set.key)) {
            Ok(reservation) => State::Value(Box::new(Value {
                line: line.into(),
                reservation,
                end: LINE_END,
                end_len: LINE_END.len() - echo.value_end_len(),
            })),
            Err(refusal) => {
                desk.piped = true;
                refuse(refusal, &mut Encoder::new(&mut desk.outbox, &echo));
                State::Swallow(u64::from(set.len) + echo.value_end_len() as u64)
            }
        };
    }

    /// Reads the missing bytes of a large value straight into its chunks.
    pub(super) fn fill(&mut self, desk: &Desk) -> Result<()> {
        let State::Value(value) = &mut self.state else { return Ok(()) };
        // Until the transport says otherwise. It may be asked without an event, and one that
        // decrypts then holds what came behind the value: no event tells of that again.
        self.readable = true;
        let mut left = FILL_MAX;
        while left > 0 && value.reservation.missing() > 0 {
            match value.reservation.fill_from(&mut self.transport) {
                Ok(0) => {
                    self.readable = false;
                    self.state = State::Closing(CloseReason::Normal);
                    return Ok(());
                }
                Ok(n) => {
                    desk.local.counters.thread.bytes_read.add(n as u64);
                    left = left.saturating_sub(n);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(());
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Stores a value that is whole and properly ended.
    pub(super) fn commit(&mut self, desk: &mut Desk) {
        let State::Value(value) = replace(&mut self.state, State::Command) else { return };
        let Value { line, reservation, end, .. } = *value;
        let Decoded::Command { command: Command::Set(set), echo, .. } =
            Decoder::default().decode(&line, &desk.arena)
        else {
            unreachable!("a line that was a storage command is one again");
        };
        desk.piped = true;
        let mut replies = Encoder::new(&mut desk.outbox, &echo);
        if end == LINE_END {
            commit_value(&desk.store, &desk.local, set, reservation, &mut replies);
        } else {
            replies.reply(Reply::Say(Say::Error(BAD_CHUNK)));
        }
    }
}
