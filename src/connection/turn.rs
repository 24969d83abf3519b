//! A connection's turn in three parts, so that a worker can give several connections theirs in
//! step: all are read, then all are worked for, then all are sent their answers. The code and data
//! of each part, the kernel's for reading and writing above all, then stay in the processor's
//! caches from one connection to the next.

use super::value::Value;
use super::{
    Connection, Desk, INPUT_AFTER_LARGE, Next, Outbox, READ_MIN, Ready, State, Workspace, write,
};
use crate::protocol::outbox::Progress;
use crate::protocol::{GET_LINE_MAX, guess};
use crate::stats::{ConnState, Held};
use crate::store::{Key, KeyHash};
use crate::tls;
use crate::watch::CloseReason;
use log::{Level, debug, log_enabled};
use std::io::{Error, ErrorKind, Read, Result};
use std::mem::{swap, take};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// Turns that are taken in step.
pub const TURNS_MAX: usize = 16;
/// The last of them have at least this much of the shared input for what they read.
const SHARE_MIN: usize = 16 << 10;
/// An outbox that one large answer made larger than this is given back.
pub(super) const OUTBOX_KEPT: usize = 64 << 10;

/// What one turn keeps between its parts.
#[derive(Default)]
pub(super) struct Turn {
    taken: Taken,
    /// Of the first request's key, where it is known before that is run.
    first: Option<KeyHash>,
    outbox: Box<Outbox>,
    /// What an answer takes that is larger than those that an outbox is kept for.
    held: Held,
}

/// Some of a worker's input: start and end in one word. Two that are written one by one and read
/// at once would wait for each other.
#[derive(Clone, Copy)]
struct Span(u64);

impl Span {
    fn of(range: Range<usize>) -> Span {
        Span((range.start as u64) << 32 | range.end as u64)
    }

    #[inline]
    fn range(self) -> Range<usize> {
        (self.0 >> 32) as usize..self.0 as u32 as usize
    }
}

/// What there is to work on.
#[derive(Clone, Copy, Default)]
enum Taken {
    /// No bytes.
    #[default]
    Nothing,
    /// Any part of any requests.
    Shared(Span),
    /// One get and nothing else, as most reads bring of clients that wait for each answer: its key.
    Get(Span),
    /// The connection's own.
    Own,
    /// No bytes, nor anything else: the client does not take what it was sent before.
    Refused,
}

impl Workspace {
    /// Before the first of some turns that are taken in step; `several`: there is more than one.
    pub fn begin_turns(&mut self, several: bool) {
        (self.taken, self.several) = (0, several);
    }

    /// Starts loading the item for the first request of a turn, whose index line may be here by
    /// now. A batch has what it needs on its way from memory before it is run; a single request has
    /// only the time in which others are read.
    pub fn fetch_ahead(&self, turn: usize) {
        if self.several
            && let Some(hash) = self.turns[turn].first
        {
            self.desk.store.prefetch_item(hash, false);
        }
    }

    /// The hash of the first key of what was read. Starts loading its index line, if there are
    /// several turns.
    #[inline]
    fn look_ahead(&self, taken: Taken) -> Option<KeyHash> {
        let store = &self.desk.store;
        let hash = match taken {
            Taken::Get(key) => store.hash(Key::new(&self.input[key.range()])?),
            Taken::Shared(span) if self.several => {
                store.hash(guess::key(&self.input[span.range()])?)
            }
            _ => return None,
        };
        if self.several {
            store.prefetch_line(hash);
        }
        Some(hash)
    }

    /// True where a connection can be read beside those that were since [`Workspace::begin_turns`].
    /// Where answers in hand are bounded, turns are taken one by one.
    pub fn has_room_for(&self, connection: &Connection) -> bool {
        let left = self.input.len() - self.taken;
        left >= SHARE_MIN.max(connection.held() + READ_MIN) && !self.desk.room.is_limited()
    }
}

impl Connection {
    /// What the system said of its socket.
    pub fn notice(&mut self, ready: Ready) {
        self.readable |= ready.readable | ready.closed;
        self.closed |= ready.closed;
    }

    /// The first part of a turn, which gets this number among those in step: reads once.
    #[inline(always)]
    pub fn take_in(&mut self, w: &mut Workspace, turn: usize) {
        let taken = self.take(w).unwrap_or_else(|e| {
            self.fail(&e, &mut w.desk);
            Taken::Nothing
        });
        let first = w.look_ahead(taken);
        let turn = &mut w.turns[turn];
        (turn.taken, turn.first) = (taken, first);
    }

    /// The second: runs what came. `alone` says that no other connection of this worker waits, so
    /// that there is nobody to yield to.
    pub fn work(&mut self, w: &mut Workspace, turn: usize, alone: bool) {
        let Workspace { input, desk, turns, .. } = w;
        let turn = &mut turns[turn];
        desk.local.log.attend(self.file() as i32);
        if let (Taken::Get(key), Some(hash)) = (turn.taken, turn.first) {
            self.answer_get(&input[key.range()], hash, &mut turn.outbox, desk);
        } else {
            swap(&mut desk.outbox, &mut turn.outbox);
            (desk.piped, desk.room.answers) = (false, 0);
            if let Err(e) = self.work_on(turn.taken, input, desk, alone) {
                self.fail(&e, desk);
            }
            swap(&mut desk.outbox, &mut turn.outbox);
        }
        if turn.outbox.capacity() > OUTBOX_KEPT {
            self.hold_large(turn, desk);
        }
    }

    /// Counts what an answer takes that is large; where there is no room, it is not sent.
    #[cold]
    fn hold_large(&mut self, turn: &mut Turn, desk: &Desk) {
        let buffers = &desk.store.stats().buffers;
        if buffers.count(&mut turn.held, turn.outbox.capacity()) && !buffers.has(0) {
            desk.local.counters.thread.response_obj_oom.bump();
            *turn.outbox = Outbox::default();
            self.state = State::Closing(CloseReason::Error);
        }
    }

    /// The third: sends the answers.
    #[inline(always)]
    pub fn give_out(&mut self, w: &mut Workspace, turn: usize) -> Next {
        let Workspace { desk, turns, .. } = w;
        let Turn { taken, outbox, held, .. } = &mut turns[turn];
        let next = self.give(*taken, outbox, desk).unwrap_or_else(|e| {
            outbox.clear();
            self.fail(&e, desk);
            Next::Close
        });
        desk.store.stats().buffers.count(held, 0);
        if self.keeps_nothing() {
            self.show(ConnState::Read, desk.store.stats());
            return next;
        }
        self.account(next, desk)
    }

    /// Counts what it keeps from this turn on, and shows what it waits for.
    #[inline(never)]
    fn account(&mut self, next: Next, desk: &Desk) -> Next {
        let grown = self.count_buffers(desk.store.stats());
        self.show(self.shown_state(), desk.store.stats());
        if grown && !self.may_keep(0, desk) { Next::Close } else { next }
    }

    /// Its transport failed, and so it ends. Nothing of this client may go to the next one.
    fn fail(&mut self, error: &Error, desk: &mut Desk) {
        debug!("<{} {error}", self.file());
        desk.outbox.clear();
        if self.transport.is_tls() {
            desk.local.log.attend(self.file() as i32);
            desk.local.log.tls_failed(self.file() as i32, error);
        }
        if tls::is_protocol_error(error) {
            desk.store.stats().server.tls.ssl_proto_errors.fetch_add(1, Relaxed);
        }
        self.state = State::Closing(CloseReason::Error);
    }

    // Reading

    #[inline(always)]
    fn take(&mut self, w: &mut Workspace) -> Result<Taken> {
        if !self.send_unsent(&w.desk)? {
            return Ok(Taken::Refused);
        }
        if matches!(self.state, State::Dump(_) | State::Closing(_)) {
            return Ok(Taken::Nothing);
        }
        if self.yielded {
            return Ok(Taken::Own);
        }
        if self.wants_socket() {
            self.fill(&mut w.desk)?;
        }
        // What follows a value that was read by itself comes with its end; one that is whole is
        // stored first, for what follows may be the connection's end.
        if !self.readable || self.wants_socket() || self.value().is_some_and(Value::is_over) {
            return Ok(Taken::Nothing);
        }
        let held = self.held();
        if held + READ_MIN > w.input.len() {
            return self.take_long(&w.desk);
        }
        let into = &mut w.input[w.taken..];
        let most = if self.is_after_large() { held + INPUT_AFTER_LARGE } else { into.len() };
        let got = self.read(&mut into[held..most], &w.desk)?;
        if got == 0 {
            return Ok(Taken::Nothing);
        }
        into[..held].copy_from_slice(&self.rest[self.rest_at as usize..]);
        (self.rest, self.rest_at) = (Vec::new(), 0);
        let from = w.taken;
        w.taken += held + got;
        Ok(self.recognise(from..w.taken, w))
    }

    /// True where a value that was read by itself is done with, and nothing was read since.
    #[inline]
    fn is_after_large(&mut self) -> bool {
        self.after_large && matches!(self.state, State::Command) && take(&mut self.after_large)
    }

    /// What was read: a get that came alone needs no batch.
    fn recognise(&self, range: Range<usize>, w: &Workspace) -> Taken {
        let get = match self.state {
            State::Command if !w.desk.room.is_limited() && !log_enabled!(Level::Debug) => {
                self.decoder.lone_get(&w.input[range.clone()])
            }
            _ => None,
        };
        let Some((at, key)) = get else { return Taken::Shared(Span::of(range)) };
        let from = range.start + at;
        Taken::Get(Span::of(from..from + key.bytes().len()))
    }

    /// Reads behind the part of a request that is too long for the shared buffer: a long get line.
    #[cold]
    fn take_long(&mut self, desk: &Desk) -> Result<Taken> {
        self.rest.drain(..take(&mut self.rest_at) as usize);
        let held = self.rest.len();
        if held >= GET_LINE_MAX || !self.may_keep(held, desk) {
            self.state = State::Closing(CloseReason::Error);
            return Ok(Taken::Nothing);
        }
        let mut rest = take(&mut self.rest);
        rest.resize((held * 2).min(GET_LINE_MAX), 0);
        let got = self.read(&mut rest[held..], desk);
        rest.truncate(held + *got.as_ref().unwrap_or(&0));
        self.rest = rest;
        Ok(if got? > 0 { Taken::Own } else { Taken::Nothing })
    }

    /// Reads into `into`; 0 where there is nothing, or the end was reached.
    #[inline(always)]
    fn read(&mut self, into: &mut [u8], desk: &Desk) -> Result<usize> {
        loop {
            match self.transport.read(into) {
                Ok(0) => {
                    self.readable = false;
                    self.state = State::Closing(CloseReason::Normal);
                    return Ok(0);
                }
                Ok(n) => {
                    desk.local.counters.thread.bytes_read.add(n as u64);
                    // A short read means that no more was there: the next bytes make an event.
                    self.readable = n == into.len() || self.closed || self.transport.has_more();
                    return Ok(n);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(0);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Bytes of the front of a request that wait for what follows.
    fn held(&self) -> usize {
        self.rest.len() - self.rest_at as usize
    }

    /// True where a value is to be read by itself.
    fn wants_socket(&self) -> bool {
        self.value().is_some_and(Value::wants_socket)
    }

    fn value(&self) -> Option<&Value> {
        if let State::Value(value) = &self.state { Some(value) } else { None }
    }

    // Working

    fn work_on(&mut self, taken: Taken, input: &[u8], desk: &mut Desk, alone: bool) -> Result<()> {
        debug_assert!(!matches!(taken, Taken::Get(_)), "answered without all this");
        match taken {
            Taken::Refused | Taken::Get(_) => return Ok(()),
            Taken::Nothing => self.go_on_with_dump(desk),
            Taken::Own => self.resume(desk, alone)?,
            Taken::Shared(span) => {
                let input = &input[span.range()];
                let used = self.process(input, desk, alone)?;
                if used < input.len() {
                    self.rest = input[used..].to_vec();
                }
                if self.readable && self.wants_socket() {
                    self.fill(desk)?;
                }
            }
        }
        self.end_value(desk);
        self.take_lines(desk);
        Ok(())
    }

    /// Works on the connection's own bytes.
    fn resume(&mut self, desk: &mut Desk, alone: bool) -> Result<()> {
        let rest = take(&mut self.rest);
        let from = self.rest_at as usize;
        let used = from + self.process(&rest[from..], desk, alone)?;
        (self.rest, self.rest_at) = match &rest[used..] {
            [] => (Vec::new(), 0),
            // A part of one request takes as much memory as it needs, unless it is still growing.
            part if !self.yielded && used > 0 => (part.to_vec(), 0),
            // It is no longer than a get line.
            _ => (rest, used as u32),
        };
        Ok(())
    }

    // Sending

    #[inline(always)]
    fn give(&mut self, taken: Taken, outbox: &mut Outbox, desk: &Desk) -> Result<Next> {
        if matches!(taken, Taken::Refused) {
            return Ok(Next::Wait);
        }
        if !self.send(outbox, desk)? {
            self.block_lines();
            return Ok(Next::Wait);
        }
        Ok(match self.state {
            State::Closing(_) => Next::Close,
            State::Dump(_) => Next::Again,
            _ if self.yielded || self.readable => Next::Again,
            State::Watch(_) => Next::Watch,
            _ => Next::Wait,
        })
    }

    /// Sends what an outbox holds; false where the client does not take it all, which is then this
    /// connection's to keep.
    #[inline(always)]
    fn send(&mut self, outbox: &mut Outbox, desk: &Desk) -> Result<bool> {
        if outbox.is_empty() {
            return Ok(true);
        }
        let sent = write(&mut self.transport, outbox, &desk.local)?;
        if sent == Progress::Blocked {
            self.unsent = Some(Box::new(outbox.take_rest()));
        }
        if outbox.capacity() > OUTBOX_KEPT {
            *outbox = Outbox::default();
        }
        Ok(sent == Progress::Done)
    }

    /// Sends what the client did not take before; false where it still does not.
    #[inline]
    fn send_unsent(&mut self, desk: &Desk) -> Result<bool> {
        if self.unsent.is_some() { self.try_unsent(desk) } else { Ok(true) }
    }

    #[cold]
    fn try_unsent(&mut self, desk: &Desk) -> Result<bool> {
        let Some(unsent) = &mut self.unsent else { return Ok(true) };
        if write(&mut self.transport, unsent, &desk.local)? == Progress::Blocked {
            return Ok(false);
        }
        self.unsent = None;
        Ok(true)
    }
}
