//! `-o read_buf_mem_limit`: what the clients' requests and answers in hand may take. As
//! memcached's it ends the connection that is one too many, so that the others can go on.

use super::{Connection, Desk, State};
use crate::command::{Error, Replies, Reply, Say};
use crate::config::Settings;
use crate::protocol::{Echo, Encoder};
use crate::stats::Stats;
use crate::watch::CloseReason;
use memchr::memchr;
use std::mem::replace;
use std::sync::atomic::Ordering::Relaxed;

/// What an answer that waits for its turn's end counts, whatever it holds: about what memcached
/// keeps for each, so that a limit that was chosen for memcached means the same here.
const ANSWER_BYTES: u64 = 1 << 10;
/// memcached's words to a get line with more answers than that.
const NO_ROOM: Error = Error::Server("out of memory writing get response");

/// A worker's view of the limit.
#[derive(Clone, Copy)]
pub(super) struct Room {
    /// Answers of the present turn that are not sent.
    pub(super) answers: usize,
    /// As many as there may be: a worker's share, as in memcached.
    answers_max: usize,
    /// Bytes that all connections of the server may keep from turn to turn.
    kept_max: i64,
}

impl Room {
    pub(super) fn new(settings: &Settings) -> Room {
        let (answers_max, kept_max) = match settings.read_buf_mem_limit {
            0 => (usize::MAX, i64::MAX),
            limit => {
                let share = limit / u64::from(settings.threads) / ANSWER_BYTES;
                (share.max(1) as usize, limit as i64)
            }
        };
        Room { answers: 0, answers_max, kept_max }
    }

    /// True where answers are sent after -R requests even if nobody waits for a turn.
    pub(super) fn is_limited(&self) -> bool {
        self.kept_max < i64::MAX
    }

    /// Takes room for up to `answers`; returns for how many there was some.
    pub(super) fn take(&mut self, answers: usize) -> usize {
        let taken = answers.min(self.answers_max.saturating_sub(self.answers));
        self.answers += taken;
        taken
    }

    /// True where a connection may keep so many bytes more.
    pub(super) fn has(&self, bytes: usize, stats: &Stats) -> bool {
        stats.server.buffer_bytes.load(Relaxed).saturating_add(bytes as i64) <= self.kept_max
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
        Encoder::new(&mut desk.outbox, echo).reply(Reply::Say(Say::Error(NO_ROOM)));
        memchr(b'\n', rest).map_or(rest.len(), |end| end + 1)
    }

    /// Brings the statistics of what connections keep up to date; true where this one keeps more.
    pub(super) fn count_buffers(&mut self, stats: &Stats) -> bool {
        let bytes = self.rest.capacity() + self.unsent.as_ref().map_or(0, |o| o.capacity());
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes == self.counted_bytes {
            return false;
        }
        let before = replace(&mut self.counted_bytes, bytes);
        stats.server.buffer_bytes.fetch_add(i64::from(bytes) - i64::from(before), Relaxed);
        let holds = i64::from(bytes > 0) - i64::from(before > 0);
        stats.server.buffer_count.fetch_add(holds, Relaxed);
        bytes > before
    }

    /// True where this connection may keep `more` bytes; else it is to be closed, and is counted.
    pub(super) fn may_keep(&self, more: usize, desk: &Desk) -> bool {
        let has_room = desk.room.has(more, desk.store.stats());
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
    use crate::stats::Prefixes;

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

    #[test]
    fn all_connections_share_what_is_kept() {
        let stats = Stats::new(1, 1, Prefixes::new(b':', false));
        let room = room(1 << 20, 4);
        assert!(room.has(1 << 20, &stats) && !room.has((1 << 20) + 1, &stats));
        stats.server.buffer_bytes.store(1 << 19, Relaxed);
        assert!(room.has(1 << 19, &stats) && !room.has((1 << 19) + 1, &stats));
        assert!(self::room(0, 4).has(usize::MAX >> 1, &stats));
    }
}
