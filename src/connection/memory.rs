//! What the clients' requests and answers in hand may take: all of them together what the README
//! states, or less by `-o read_buf_mem_limit`, and by that a worker's answers their share. As
//! memcached's it ends the connection that is one too many, so that the others can go on.

use super::dump::Dump;
use super::{Connection, Desk, State};
use crate::command::{Error, Replies, Reply, Say};
use crate::config::Settings;
use crate::protocol::{Echo, Encoder};
use crate::stats::Stats;
use crate::watch::CloseReason;
use memchr::memchr;

/// What an answer that waits for its turn's end counts, whatever it holds: about what memcached
/// keeps for each, so that a limit that was chosen for memcached means the same here.
const ANSWER_BYTES: u64 = 1 << 10;
/// memcached's words to a get line with more answers than that.
const NO_ROOM: Error = Error::Server("out of memory writing get response");

/// How many answers a worker may have in hand.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// Answers of the present turn that are not sent.
    pub(super) answers: usize,
    /// As many as there may be: a worker's share, as in memcached.
    answers_max: usize,
}

impl Room {
    pub(super) fn new(settings: &Settings) -> Room {
        let answers_max = match settings.read_buf_mem_limit {
            0 => usize::MAX,
            limit => (limit / u64::from(settings.threads) / ANSWER_BYTES).max(1) as usize,
        };
        Room { answers: 0, answers_max }
    }

    /// True where answers are sent after -R requests even if nobody waits for a turn.
    pub(super) fn is_limited(&self) -> bool {
        self.answers_max < usize::MAX
    }

    /// Takes room for up to `answers`; returns for how many there was some.
    pub(super) fn take(&mut self, answers: usize) -> usize {
        let taken = answers.min(self.answers_max.saturating_sub(self.answers));
        self.answers += taken;
        taken
    }
}

impl Connection {
    /// The answer to a command for which there was no room: one that belongs to a get line with
    /// many keys drops the whole turn's answers for an error, as in memcached, and the keys up to
    /// the line's end; returns where that is. Any other ends the connection without a word.
    pub(super) fn refuse_answer(
        &mut self,
        rest: &[u8],
        multiget: bool,
        echo: Echo<'_>,
        desk: &mut Desk,
    ) -> usize {
        desk.local.counters.thread.response_obj_oom.bump();
        desk.outbox.clear();
        desk.room.answers = 0;
        if !multiget {
            self.state = State::Closing(CloseReason::Error);
            return rest.len();
        }
        self.decoder.leave_line();
        Encoder::new(&mut desk.outbox, &echo).reply(Reply::Say(Say::Error(NO_ROOM)));
        memchr(b'\n', rest).map_or(rest.len(), |end| end + 1)
    }

    /// True between two commands where nothing is kept, and nothing was when that was last counted.
    #[inline]
    pub(super) fn keeps_nothing(&self) -> bool {
        matches!(self.state, State::Command)
            && self.rest.capacity() == 0
            && self.unsent.is_none()
            && !self.transport.is_tls()
            && self.held.is_nothing()
    }

    /// Brings the statistics of what connections keep up to date; true where this one keeps more.
    pub(super) fn count_buffers(&mut self, stats: &Stats) -> bool {
        let state = match &self.state {
            State::Value(value) => value.held(),
            State::Sasl(login) => login.held(),
            State::Dump(_) => size_of::<Dump>(),
            State::Watch(watcher) => watcher.held(),
            _ => 0,
        };
        let unsent = self.unsent.as_ref().map_or(0, |outbox| outbox.capacity());
        let bytes = self.rest.capacity() + unsent + state + self.transport.held();
        stats.buffers.count(&mut self.held, bytes)
    }

    /// True where this connection may keep `more` bytes; else it is to be closed, and is counted.
    pub(super) fn may_keep(&self, more: usize, desk: &Desk) -> bool {
        let has_room = desk.store.stats().buffers.allows(&self.held, more);
        if !has_room {
            let counters = &desk.local.counters.thread;
            let which = if self.unsent.is_some() {
                &counters.response_obj_oom
            } else {
                &counters.read_buf_oom
            };
            which.bump();
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(read_buf_mem_limit: u64, threads: u32) -> Room {
        Room::new(&Settings { read_buf_mem_limit, threads, ..Settings::default() })
    }

    #[test]
    fn a_worker_has_its_share_of_answers() {
        let mut room = room(1 << 20, 32);
        assert_eq!((room.take(30), room.take(30), room.take(30)), (30, 2, 0));
        room.answers = 0;
        assert_eq!(room.take(30), 30);
        let mut least = self::room(1 << 20, 1024);
        assert_eq!((least.take(2), least.take(2)), (1, 0));
        let mut unlimited = self::room(0, 4);
        assert_eq!(unlimited.take(1 << 40), 1 << 40);
    }
}
