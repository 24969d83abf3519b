//! `flush_all`, exact within a second.
//!
//! Items carry the second of their last access on a logical clock that usually is the real one. A
//! flush declares everything up to the present second dead and moves the logical clock past it, so
//! that what is stored next, even within the same real second, lives. A flush set for later
//! waits, and is carried out by whoever first looks at the time after it came.
//!
//! With a memory file its ledger is told first, so that what was once seen dead stays so.

use super::file::Ledger;
use crate::clock::Seconds;
use crate::item::{SECONDS_APART, Standing};
use slab::sync::{AtomicU32, AtomicU64, Mutex, Ordering};

use std::sync::Arc;

use Ordering::{Acquire, Relaxed, Release};

pub(super) struct Flush {
    /// Items stamped at or before the low half are dead (0: none yet); the high half is the real
    /// second for which a flush is planned (0: none). One word, so a get loads it once.
    state: AtomicU64,
    /// The logical clock is never behind this.
    floor: AtomicU32,
    /// Who changes them holds it; the memory file's ledger.
    lock: Mutex<Option<Arc<Ledger>>>,
}

/// What is dead, and how an access is stamped, as of one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Horizon {
    pub now: Seconds,
    /// The logical second, for what is found alive or newly linked by this horizon. It is not
    /// later than what the horizon knows of: whatever a flush still to be seen declares dead stays
    /// dead, though it be read, changed or replaced right now.
    pub stamp: Seconds,
    /// The second of the last flush, by which it is told from others; 0 before the first. What is
    /// alive was linked since.
    pub flush: Seconds,
    oldest_live: Seconds,
}

impl Horizon {
    /// Seconds in items wrap, so an item that was not touched for 2 years after a flush counts as
    /// flushed: else newer ones would be taken for older.
    #[inline]
    fn new(now: Seconds, stamp: Seconds, flushed: Seconds) -> Horizon {
        let long_ago = stamp.saturating_sub(SECONDS_APART - 1);
        let oldest_live = if flushed != 0 { flushed.max(long_ago) } else { 0 };
        Horizon { now, stamp, flush: flushed, oldest_live }
    }

    #[inline]
    pub fn flushed(self, standing: Standing) -> bool {
        self.oldest_live != 0 && standing.at_or_before(self.oldest_live)
    }

    #[inline]
    pub fn expired(self, deadline: Seconds) -> bool {
        deadline != 0 && deadline <= self.now
    }
}

impl Flush {
    pub fn new() -> Flush {
        Flush { state: AtomicU64::new(0), floor: AtomicU32::new(0), lock: Mutex::new(None) }
    }

    /// As a memory file's ledger says, and that says from now on.
    pub fn kept_in(ledger: Arc<Ledger>) -> Flush {
        let state = ledger.entry().flush;
        let flushed = state as u32;
        let floor = if flushed == 0 { 0 } else { flushed + 1 };
        let (state, floor) = (AtomicU64::new(state), AtomicU32::new(floor));
        Flush { state, floor, lock: Mutex::new(Some(ledger)) }
    }

    /// What is dead at the real second `now`. Whoever means to link an item takes it under the
    /// item's line lock, lest what it replaces be younger.
    #[inline]
    pub fn horizon(&self, now: Seconds) -> Horizon {
        loop {
            // The stamp first: if it is a flush's, so is what is read next.
            let stamp = self.stamp(now);
            let state = self.state.load(Acquire);
            let planned = (state >> 32) as u32;
            if planned == 0 || planned > now {
                return Horizon::new(now, stamp, state as u32);
            }
            self.carry_out(now);
        }
    }

    /// The logical second.
    #[inline]
    fn stamp(&self, now: Seconds) -> Seconds {
        now.max(self.floor.load(Acquire))
    }

    /// Flushes now, or plans it for the real second `at`.
    pub fn flush(&self, now: Seconds, at: Option<Seconds>) {
        // One whose second has come without anybody looking is not to be replaced by a later one.
        self.carry_out(now);
        let ledger = self.lock.lock();
        match at {
            Some(at) if at > now => {
                let low = self.state.load(Relaxed) & 0xFFFF_FFFF;
                self.set(&ledger, u64::from(at) << 32 | low);
            }
            _ => self.declare_dead(&ledger, self.stamp(now)),
        }
    }

    /// What is dead, for `stats settings`.
    pub fn oldest_live(&self) -> Seconds {
        self.state.load(Acquire) as u32
    }

    fn carry_out(&self, now: Seconds) {
        let ledger = self.lock.lock();
        let planned = (self.state.load(Relaxed) >> 32) as u32;
        if planned == 0 || planned > now {
            return;
        }
        // Nothing was stamped `now` yet: every commit asks for the horizon first. Unless an earlier
        // flush has moved the logical clock that far.
        let ahead = self.floor.load(Relaxed) >= now;
        self.declare_dead(&ledger, if ahead { self.stamp(now) } else { now - 1 });
    }

    /// Everything stamped up to `stamp` is dead, and nothing planned any more.
    fn declare_dead(&self, ledger: &Option<Arc<Ledger>>, stamp: Seconds) {
        self.set(ledger, u64::from(stamp));
        self.floor.fetch_max(stamp + 1, Release);
    }

    fn set(&self, ledger: &Option<Arc<Ledger>>, state: u64) {
        ledger.iter().for_each(|ledger| ledger.update(|entry| entry.flush = state));
        self.state.store(state, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(flush: &Flush, stamp: Seconds, now: Seconds) -> bool {
        flush.horizon(now).flushed(Standing::linked(0, stamp))
    }

    #[test]
    fn a_later_flush_does_not_take_back_one_whose_second_has_come() {
        let flush = Flush::new();
        flush.flush(10, Some(12));
        flush.flush(12, Some(20));
        assert!(dead(&flush, 11, 12) && !dead(&flush, 12, 19) && dead(&flush, 12, 20));
    }

    #[test]
    fn a_flush_splits_a_second() {
        let flush = Flush::new();
        let before = flush.stamp(5);
        flush.flush(5, None);
        let after = flush.stamp(5);
        assert!(dead(&flush, before, 5) && !dead(&flush, after, 5));
        flush.flush(5, None);
        assert!(dead(&flush, after, 5) && !dead(&flush, flush.stamp(5), 5));
        assert_eq!(flush.stamp(100), 100, "real time catches up");
    }

    #[test]
    fn items_live_years_after_a_flush() {
        let flush = Flush::new();
        flush.flush(5, None);
        for now in [6, SECONDS_APART, SECONDS_APART + 9, 2 * SECONDS_APART, 3 * SECONDS_APART] {
            assert!(!dead(&flush, flush.stamp(now), now), "{now}");
        }
    }

    #[test]
    fn a_planned_flush_waits_and_spares_what_comes_after() {
        let flush = Flush::new();
        flush.flush(5, Some(8));
        assert!(!dead(&flush, 5, 7));
        assert!(dead(&flush, 5, 8) && dead(&flush, 7, 8));
        assert!(!dead(&flush, flush.stamp(8), 8));
    }

    #[test]
    fn a_planned_flush_takes_what_was_stamped_ahead_of_it() {
        let flush = Flush::new();
        flush.flush(5, None);
        let ahead = flush.stamp(5);
        flush.flush(5, Some(6));
        assert!(!dead(&flush, ahead, 5) && dead(&flush, ahead, 6));
        assert!(!dead(&flush, flush.stamp(6), 6));
    }

    #[test]
    fn a_later_flush_replaces_a_planned_one() {
        let flush = Flush::new();
        flush.flush(5, Some(8));
        flush.flush(6, None);
        assert!(!dead(&flush, flush.stamp(6), 9));
    }
}
