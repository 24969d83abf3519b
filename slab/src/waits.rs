//! Waits for locks that somebody held for long. They are counted by those who wait, so that a lock
//! which is free costs nothing more.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// No lock is to be held longer.
pub const LONG: Duration = Duration::from_micros(500);

thread_local! {
    static IN_BACKGROUND: Cell<bool> = const { Cell::new(false) };
}

/// Nobody waits for the calling thread from now on: where it waits for a lock itself, that is
/// counted apart.
pub fn work_in_background() {
    IN_BACKGROUND.set(true);
}

/// Waits that were longer than 500 us.
#[derive(Debug, Default)]
pub struct Waits {
    requests: Tally,
    background: Tally,
}

/// Of some waits the longest in microseconds, 0 where there was none, and how many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongWaits {
    pub longest_us: u64,
    pub count: u64,
}

#[derive(Debug, Default)]
struct Tally {
    longest_us: AtomicU64,
    count: AtomicU64,
}

impl Waits {
    #[cold]
    pub fn note(&self, waited: Duration) {
        if waited > LONG {
            let background = IN_BACKGROUND.get();
            let tally = if background { &self.background } else { &self.requests };
            tally.longest_us.fetch_max(waited.as_micros() as u64, Relaxed);
            tally.count.fetch_add(1, Relaxed);
        }
    }

    /// Those of requests.
    pub fn of_requests(&self) -> LongWaits {
        self.requests.figures()
    }

    /// Those of threads that [work in the background](work_in_background).
    pub fn of_background(&self) -> LongWaits {
        self.background.figures()
    }

    pub fn reset(&self) {
        for tally in [&self.requests, &self.background] {
            tally.longest_us.store(0, Relaxed);
            tally.count.store(0, Relaxed);
        }
    }
}

impl LongWaits {
    /// Of these and others together.
    #[must_use]
    pub fn and(self, others: LongWaits) -> LongWaits {
        LongWaits {
            longest_us: self.longest_us.max(others.longest_us),
            count: self.count + others.count,
        }
    }
}

impl Tally {
    fn figures(&self) -> LongWaits {
        LongWaits { longest_us: self.longest_us.load(Relaxed), count: self.count.load(Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_in_the_background_is_counted_apart() {
        let waits = Waits::default();
        let note = |us| waits.note(Duration::from_micros(us));
        [500, 501, 900, 700].into_iter().for_each(note);
        std::thread::scope(|s| {
            s.spawn(|| {
                work_in_background();
                [500, 3000].into_iter().for_each(note);
            });
        });
        assert_eq!(waits.of_requests(), LongWaits { longest_us: 900, count: 3 });
        assert_eq!(waits.of_background(), LongWaits { longest_us: 3000, count: 1 });
        waits.reset();
        assert_eq!(waits.of_requests().and(waits.of_background()), LongWaits::default());
    }
}
