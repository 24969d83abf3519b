//! A value that is still on its way, and what becomes of it.

use super::{Connection, Desk, State, Transport};
use crate::command::{Command, Error, Replies, Reply, Say, Set, commit_value, refuse};
use crate::protocol::{Decoded, Decoder, Echo, Encoder};
use crate::store::{Refusal, Reservation};
use crate::watch::CloseReason;
use bumpalo::Bump;
use std::io::{self, ErrorKind, Read};
use std::mem::{replace, take};
use std::os::fd::AsRawFd;

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
    len: usize,
    room: Room,
    /// The two bytes after the value. Where the protocol has none, they count as seen.
    end: [u8; 2],
    end_len: usize,
}

/// Where a value goes.
enum Room {
    /// Nothing of it is here.
    None,
    Some(Reservation),
    /// There is no memory for it; so many bytes of it were still to come then.
    Refused(Refusal, usize),
}

impl Value {
    /// Takes what is the value's, and its line end's, from `bytes`; returns how much. It may be
    /// refused in the middle.
    fn feed(&mut self, bytes: &[u8], desk: &Desk) -> usize {
        if bytes.is_empty() {
            return 0;
        }
        if let Room::None = self.room {
            self.room = with_set(&self.line, &desk.arena, |set, _| {
                let (store, local) = (&desk.store, &desk.local);
                Room::of(store.reserve(local, set, store.hash(set.key)), self.len)
            });
        }
        let Room::Some(reservation) = &mut self.room else { return 0 };
        let mut used = match reservation.fill(&desk.local, bytes) {
            Ok(used) => used,
            Err(_) => {
                self.give_up(desk);
                return 0;
            }
        };
        if reservation.missing() == 0 {
            let end = bytes[used..].iter().take(LINE_END.len() - self.end_len);
            for &byte in end {
                self.end[self.end_len] = byte;
                self.end_len += 1;
                used += 1;
            }
        }
        used
    }

    /// Reads some of it: what has come to a plain socket straight into its chunks, with the line
    /// end, and whatever is little, or encrypted, by way of `input`. 0 is the end of the
    /// connection. The flag says that more may be there.
    fn read(
        &mut self,
        transport: &mut Transport,
        input: &mut [u8],
        desk: &Desk,
    ) -> io::Result<(usize, bool)> {
        if let Room::Some(reservation) = &mut self.room
            && let Some((socket, came)) = transport.has_come().filter(|(_, n)| *n >= DIRECT_MIN)
        {
            let (missing, end) = (reservation.missing(), &mut self.end[self.end_len..]);
            match reservation.fill_from(&desk.local, socket, came, end) {
                Ok(read) => {
                    let n = read?;
                    self.end_len += n.saturating_sub(missing);
                    return Ok((n, n < came));
                }
                Err(_) => self.give_up(desk),
            }
        }
        let most = input.len().min(self.missing());
        let n = transport.read(&mut input[..most])?;
        let used = self.feed(&input[..n], desk);
        if let Room::Refused(_, missing) = &mut self.room {
            *missing -= n - used;
        }
        Ok((n, true))
    }

    /// There is no memory for what else comes.
    fn give_up(&mut self, desk: &Desk) {
        let refusal = with_set(&self.line, &desk.arena, |set, _| {
            desk.store.give_up(&desk.local, set, desk.store.hash(set.key))
        });
        self.room = Room::Refused(refusal, self.missing());
    }

    fn missing(&self) -> usize {
        match &self.room {
            Room::None => self.len,
            Room::Some(reservation) => reservation.missing(),
            Room::Refused(_, missing) => *missing,
        }
    }

    /// True where nothing more of it is to be waited for: it is here with its line end, or refused.
    pub(super) fn is_over(&self) -> bool {
        let is_whole = self.end_len == LINE_END.len() && self.missing() == 0;
        is_whole || matches!(self.room, Room::Refused(..))
    }

    /// Bytes that it takes beside its chunks.
    pub(super) fn held(&self) -> usize {
        size_of::<Value>() + self.line.len()
    }

    /// True where so much is missing that it is read by itself.
    pub(super) fn wants_socket(&self) -> bool {
        self.missing() >= DIRECT_MIN && !self.is_over()
    }
}

impl Room {
    fn of(reserved: Result<Reservation, Refusal>, len: usize) -> Room {
        reserved.map_or_else(|refusal| Room::Refused(refusal, len), Room::Some)
    }
}

/// Lends the command that a value belongs to.
fn with_set<T>(line: &[u8], arena: &Bump, lend: impl FnOnce(&Set<'_>, Echo<'_>) -> T) -> T {
    let Decoded::Command { command: Command::Set(set), echo, .. } =
        Decoder::default().decode(line, arena)
    else {
        unreachable!("a line that was a storage command is one again");
    };
    lend(set, echo)
}

impl Connection {
    /// Gets ready for a value of which not all is here. What is too large is dropped.
    pub(super) fn expect_value(
        &mut self,
        line: &[u8],
        set: &Set<'_>,
        echo: Echo<'_>,
        desk: &mut Desk,
    ) {
        self.state = match desk.store.admit(&desk.local, set, desk.store.hash(set.key)) {
            Ok(()) => State::Value(Box::new(Value {
                line: line.into(),
                len: set.len as usize,
                room: Room::None,
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

    /// Takes what is the value's in hand from `bytes`; returns how much.
    pub(super) fn feed(&mut self, bytes: &[u8], desk: &mut Desk) -> usize {
        let State::Value(value) = &mut self.state else { return 0 };
        let used = value.feed(bytes, desk);
        self.end_value(desk);
        used
    }

    /// Reads the missing bytes of a large value, past those that wait for their turn. It may be
    /// refused; what ends it is for [`Connection::end_value`], when its turn has come.
    pub(super) fn fill(&mut self, desk: &mut Desk) -> io::Result<()> {
        let State::Value(value) = &mut self.state else { return Ok(()) };
        // Until the transport says otherwise. It may be asked without an event, and one that
        // decrypts then holds what came behind the value: no event tells of that again.
        self.readable = true;
        self.after_large = !self.transport.is_tls();
        desk.local.log.attend(self.transport.as_raw_fd());
        let mut input = take(&mut desk.bulk);
        let mut left = FILL_MAX;
        let mut result = Ok(());
        while left > 0 && value.missing() > 0 && !value.is_over() {
            match value.read(&mut self.transport, &mut input, desk) {
                Ok((0, _)) => {
                    self.readable = false;
                    self.state = State::Closing(CloseReason::Normal);
                    break;
                }
                Ok((n, more)) => {
                    desk.local.counters.thread.bytes_read.add(n as u64);
                    // What comes from now on makes an event, but for the end that made one already.
                    self.readable = more || self.closed;
                    left = left.saturating_sub(n);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    break;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    result = Err(e);
                    break;
                }
            }
        }
        desk.bulk = input;
        result
    }

    /// Stores a value that is whole and properly ended, or says why it cannot be.
    pub(super) fn end_value(&mut self, desk: &mut Desk) {
        match &self.state {
            State::Value(value) if value.is_over() => {}
            _ => return,
        }
        let State::Value(value) = replace(&mut self.state, State::Command) else { return };
        let Value { line, room, end, end_len, .. } = *value;
        desk.piped = true;
        let (store, local, outbox) = (&desk.store, &desk.local, &mut *desk.outbox);
        let left = with_set(&line, &desk.arena, |set, echo| {
            let mut replies = Encoder::new(outbox, &echo);
            match room {
                Room::Some(reservation) if end == LINE_END => {
                    commit_value(store, local, set, reservation, &mut replies);
                }
                Room::Refused(refusal, missing) => {
                    refuse(refusal, &mut replies);
                    return missing + LINE_END.len() - end_len;
                }
                _ => replies.reply(Reply::Say(Say::Error(BAD_CHUNK))),
            }
            0
        });
        if left > 0 {
            self.state = State::Swallow(left as u64);
        }
    }
}
