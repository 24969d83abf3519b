//! Runs the requests of one read in batches: all are decoded first, so that the index lines and
//! items that they need are on their way from memory when the first is run.

use super::sasl::Login;
use super::value::{BAD_CHUNK, LINE_END};
use super::{Connection, Desk, OUTBOX_HIGH, Outbox, State, write};
use crate::command::{
    self, Admin, Command, Error, Get, Replies, Reply, Say, Set, execute, execute_get, store_value,
};
use crate::protocol::outbox::Progress;
use crate::protocol::{Decoded, Decoder, Echo, Encoder};
use crate::stats::ConnState;
use crate::store::{Key, KeyHash, Store};
use crate::tls::Tls;
use crate::watch::CloseReason;
use arrayvec::ArrayVec;
use bumpalo::Bump;
use log::{Level, debug, log_enabled, warn};
use std::io::Result;

/// Commands decoded ahead.
const BATCH_MAX: usize = 32;

/// -R in requests. From half a batch on it is rounded up to whole batches, so that the default of
/// 20 does not cut the answers to 32 requests in two writes.
pub(super) fn requests_per_turn(requests_per_event: u32) -> usize {
    let requests = (requests_per_event as usize).max(1);
    if requests < BATCH_MAX / 2 { requests } else { requests.next_multiple_of(BATCH_MAX) }
}

/// What a batch came to.
pub(super) struct Done {
    /// Bytes of input.
    pub(super) used: usize,
    /// Requests; the keys of a get line are one.
    pub(super) requests: usize,
    pub(super) stop: Stop,
}

/// Why a batch stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It was full, or the state of the connection changed.
    Limit,
    /// What is left is a part of a request.
    Incomplete,
    /// The client does not take its answers.
    Blocked,
}

/// A decoded command with all that it needs.
struct Entry<'a> {
    command: Command<'a>,
    echo: Echo<'a>,
    /// A set's value; `None` where its line end is wrong.
    value: Option<&'a [u8]>,
    hash: Option<KeyHash>,
    /// More keys of the same get line follow.
    multiget: bool,
    /// Where the next request starts.
    end: usize,
}

impl<'a> Entry<'a> {
    #[inline]
    fn of(command: Command<'a>, echo: Echo<'a>, end: usize) -> Entry<'a> {
        Entry { command, echo, value: None, hash: None, multiget: false, end }
    }
}

/// What follows the last entry of a batch.
enum Tail<'a> {
    /// Nothing special.
    Limit,
    Incomplete,
    /// A storage command of which not all is here.
    Value {
        line: &'a [u8],
        set: &'a Set<'a>,
        echo: Echo<'a>,
    },
    /// A refused one, and the bytes of its value.
    Refused {
        swallow: u64,
        error: Error,
        echo: Echo<'a>,
    },
    /// A request to be let in, of a server that asks for it.
    Login,
    HangUp,
}

/// Commands in order. It is large, so it is filled where it lies.
type Entries<'a> = ArrayVec<Entry<'a>, BATCH_MAX>;

/// What was decoded beside the entries.
struct Batch<'a> {
    used: usize,
    requests: usize,
    tail: Tail<'a>,
}

impl Connection {
    /// Decodes and runs at most `requests` requests, at most [`BATCH_MAX`] commands.
    pub(super) fn batch(&mut self, buf: &[u8], requests: usize, desk: &mut Desk) -> Result<Done> {
        let before = self.decoder.clone();
        let arena = std::mem::take(&mut desk.arena);
        let mut entries = Entries::new();
        let batch = self.decode(buf, requests, desk.auth.sasl.is_some(), &arena, &mut entries);
        let Batch { used, requests, tail } = batch;
        let room = desk.room.take(entries.len());
        desk.store.begin_batch(&desk.local);
        let ran = self.run(&mut entries[..room], desk);
        desk.store.end_batch(&desk.local);
        let (ran, blocked) = ran?;
        let done = if ran < room || blocked && ran < entries.len() {
            // Decoding has no effect but on the decoder, which is brought to where it stopped.
            self.decoder = before;
            let mut at = 0;
            for entry in &entries[..ran] {
                self.decoder.decode(&buf[at..], &arena);
                at = entry.end;
            }
            Done { used: at, requests: ran.min(requests), stop: Stop::Blocked }
        } else if let Some(next) = entries.get(ran)
            && !matches!(self.state, State::Closing(_))
        {
            let last = ran.checked_sub(1).map(|last| &entries[last]);
            let (at, multiget) =
                last.map_or((0, before.in_multiget()), |last| (last.end, last.multiget));
            let used = at + self.refuse_answer(&buf[at..], multiget, next.echo, desk);
            Done { used, requests: ran.min(requests), stop: Stop::Limit }
        } else {
            let stop = self.finish(tail, desk);
            Done { used, requests, stop: if blocked { Stop::Blocked } else { stop } }
        };
        drop(entries);
        desk.arena = arena;
        desk.arena.reset();
        Ok(done)
    }

    /// Runs a get that came alone, without the ceremony of a batch.
    #[inline]
    pub(super) fn answer_get(&mut self, key: &[u8], hash: KeyHash, out: &mut Outbox, desk: &Desk) {
        let Some(key) = Key::new(key) else { return };
        self.yielded = false;
        self.last_command = desk.store.clock().now();
        let mut replies = Encoder::new(out, &Echo::LAST_GET);
        execute_get(&desk.store, &desk.local, &Get::of(key), hash, &mut replies);
    }

    fn decode<'a>(
        &mut self,
        buf: &'a [u8],
        requests: usize,
        login: bool,
        arena: &'a Bump,
        entries: &mut Entries<'a>,
    ) -> Batch<'a> {
        let mut batch = Batch { used: 0, requests: 0, tail: Tail::Limit };
        let verbose = log_enabled!(Level::Debug);
        while !entries.is_full() && batch.requests < requests && batch.used < buf.len() {
            let bytes = &buf[batch.used..];
            if verbose {
                log_request(self.file(), &self.decoder, bytes);
            }
            if let Some(entry) = self.single_get(bytes, &mut batch) {
                entries.push(entry);
                continue;
            }
            let decoded = self.decoder.decode(bytes, arena);
            batch.requests += usize::from(!self.decoder.in_multiget());
            batch.tail = match decoded {
                Decoded::Command { used, command: Command::Set(set), echo } => {
                    let (line, rest) = bytes.split_at(used);
                    let len = set.len as usize;
                    batch.used += used;
                    if let Some(end) = rest.get(len..len + echo.value_end_len()) {
                        batch.used += len + end.len();
                        let value = (end == LINE_END || end.is_empty()).then_some(&rest[..len]);
                        let entry = Entry::of(Command::Set(set), echo, batch.used);
                        entries.push(Entry { value, ..entry });
                        continue;
                    }
                    Tail::Value { line, set, echo }
                }
                Decoded::Command { used, command, echo } => {
                    batch.used += used;
                    let last = matches!(command, Command::Dump(_) | Command::Watch(_));
                    let multiget = self.decoder.in_multiget();
                    entries.push(Entry { multiget, ..Entry::of(command, echo, batch.used) });
                    if !last {
                        continue;
                    }
                    Tail::Limit
                }
                Decoded::Refused { used, swallow, error, echo } => {
                    batch.used += used;
                    Tail::Refused { swallow, error, echo }
                }
                // One who is in may ask again: the gate takes the same bytes.
                Decoded::Login { .. } if login => Tail::Login,
                Decoded::Login { used, len, echo, .. } => {
                    batch.used += used;
                    Tail::Refused { swallow: len.into(), error: Error::Unknown, echo }
                }
                Decoded::Incomplete => Tail::Incomplete,
                Decoded::HangUp => Tail::HangUp,
            };
            break;
        }
        batch
    }

    /// The get of one key that comes next, if it does: in a path of its own, for so the entry is
    /// written to where it stays at once.
    #[inline(always)]
    fn single_get<'a>(&self, bytes: &'a [u8], batch: &mut Batch<'a>) -> Option<Entry<'a>> {
        let (get, echo, used) = self.decoder.single_get(bytes)?;
        batch.used += used;
        batch.requests += 1;
        Some(Entry::of(Command::Get(get), echo, batch.used))
    }

    /// Runs a batch in order; returns how many commands, fewer than all where the client does not
    /// take its answers or leaves, and whether it does not take them.
    fn run(&mut self, entries: &mut [Entry<'_>], desk: &mut Desk) -> Result<(usize, bool)> {
        if !entries.is_empty() {
            self.last_command = desk.store.clock().now();
        }
        prefetch(entries, desk);
        for (i, entry) in entries.iter().enumerate() {
            if matches!(entry.command, Command::Admin(_)) {
                self.show(ConnState::ParseCmd, desk.store.stats());
            }
            if let Command::Dump(_) | Command::Watch(_) = entry.command {
                let before = i.checked_sub(1).map(|before| &entries[before]);
                let piped = before.map_or(desk.piped, is_piped);
                self.start_stream(entry, piped, desk);
            } else if let (Command::Get(get), Some(hash)) = (&entry.command, entry.hash) {
                let mut replies = Encoder::new(&mut desk.outbox, &entry.echo);
                execute_get(&desk.store, &desk.local, get, hash, &mut replies);
            } else if run_one(&entry.command, &entry.echo, entry.value, entry.hash, desk)
                == command::Next::Close
            {
                self.state = State::Closing(reason_of(&entry.command));
                return Ok((i + 1, false));
            }
            if desk.outbox.len() > OUTBOX_HIGH
                && write(&mut self.transport, &mut desk.outbox, &desk.local)? == Progress::Blocked
            {
                return Ok((i + 1, true));
            }
        }
        desk.piped = entries.last().map_or(desk.piped, is_piped);
        Ok((entries.len(), false))
    }

    /// Starts what the connection itself goes on with. `piped`: a command came before it whose
    /// answer is still to be sent.
    fn start_stream(&mut self, entry: &Entry<'_>, piped: bool, desk: &mut Desk) {
        match entry.command {
            Command::Dump(dump) => self.start_dump(dump, piped, entry.echo, desk),
            Command::Watch(streams) => self.start_watch(streams, piped, entry.echo, desk),
            _ => {}
        }
    }

    fn finish(&mut self, tail: Tail<'_>, desk: &mut Desk) -> Stop {
        if matches!(self.state, State::Closing(_)) {
            return Stop::Limit;
        }
        match tail {
            Tail::Limit => {}
            Tail::Incomplete => return Stop::Incomplete,
            Tail::Value { line, set, echo } => self.expect_value(line, set, echo, desk),
            Tail::Refused { swallow, error, echo } => {
                desk.piped = true;
                let mut replies = Encoder::new(&mut desk.outbox, &echo);
                replies.reply(Reply::Say(Say::Error(error)));
                if swallow > 0 {
                    self.state = State::Swallow(swallow);
                }
            }
            Tail::Login => self.state = State::Sasl(Box::new(Login::inside())),
            Tail::HangUp => self.state = State::Closing(CloseReason::Error),
        }
        Stop::Limit
    }
}

/// -vv: the request as it came.
pub(super) fn log_request(file: usize, decoder: &Decoder, bytes: &[u8]) {
    let Some(text) = decoder.describe(bytes) else { return };
    for line in text.lines() {
        debug!("<{file} {line}");
    }
}

/// Why a command that closes its connection does so, as watchers are told.
fn reason_of(command: &Command<'_>) -> CloseReason {
    match command {
        Command::Quit => CloseReason::Normal,
        Command::Admin(Admin::Shutdown(_)) => CloseReason::Shutdown,
        _ => CloseReason::Error,
    }
}

/// True where a command's answer waits with those to come; a no-op asks for all to be sent.
fn is_piped(entry: &Entry<'_>) -> bool {
    !matches!(entry.command, Command::Say(Say::Noop))
}

fn prefetch(entries: &mut [Entry<'_>], desk: &Desk) {
    let several = entries.len() > 1;
    for entry in entries.iter_mut() {
        entry.hash = key_of(&entry.command).map(|key| desk.store.hash(key));
        if let (true, Some(hash)) = (several, entry.hash) {
            desk.store.prefetch_line(hash);
        }
    }
    if several {
        for entry in entries.iter() {
            if let Some(hash) = entry.hash {
                let cas = matches!(&entry.command, Command::Fetch(fetch) if fetch.cas);
                desk.store.prefetch_item(hash, cas);
            }
        }
    }
}

/// Runs a command. Of a set, `value` is `None` where its line end was wrong.
#[inline]
pub(super) fn run_one(
    command: &Command<'_>,
    echo: &Echo<'_>,
    value: Option<&[u8]>,
    hash: Option<KeyHash>,
    desk: &mut Desk,
) -> command::Next {
    let mut replies = Encoder::new(&mut desk.outbox, echo);
    match (command, value, hash) {
        (Command::Set(set), Some(value), Some(hash)) => {
            store_value(&desk.store, &desk.local, set, hash, value, &mut replies);
            command::Next::Continue
        }
        (Command::Set(_), ..) => {
            replies.reply(Reply::Say(Say::Error(BAD_CHUNK)));
            command::Next::Continue
        }
        (Command::RefreshCerts, ..) => {
            refresh_certs(&desk.store, desk.tls.as_deref(), &mut replies);
            command::Next::Continue
        }
        (command, _, hash) => execute(&desk.store, &desk.local, command, hash, &mut replies),
    }
}

fn refresh_certs(store: &Store, tls: Option<&Tls>, replies: &mut impl Replies) {
    let Some(tls) = tls else { return replies.reply(Reply::Failed("TLS is not enabled (-Z)")) };
    match tls.reload(store.clock().now()) {
        Ok(()) => replies.reply(Reply::Ok),
        Err(reason) => {
            warn!("refresh_certs: {reason}; the certificates in use stay");
            replies.reply(Reply::Failed(&reason));
        }
    }
}

pub(super) fn key_of<'a>(command: &Command<'a>) -> Option<Key<'a>> {
    match command {
        Command::Get(get) => Some(get.key),
        Command::Fetch(fetch) => Some(fetch.get.key),
        Command::Set(set) => Some(set.key),
        Command::Delete(delete) => Some(delete.key),
        Command::Arith(arith) => Some(arith.key),
        Command::Touch(touch) => Some(touch.key),
        Command::Inspect(key) => Some(*key),
        Command::Say(_) | Command::Admin(_) | Command::Dump(_) => None,
        Command::Watch(_) | Command::RefreshCerts | Command::Quit | Command::HangUp(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_per_event_come_in_whole_batches() {
        for (given, turn) in [(0, 1), (1, 1), (15, 15), (16, 32), (20, 32), (32, 32), (33, 64)] {
            assert_eq!(requests_per_turn(given), turn, "-R {given}");
        }
    }
}
