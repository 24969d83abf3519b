//! Waits for locks that somebody held for long. They are counted by those who wait, so that a lock
//! which is free costs nothing more.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// No lock is to be held longer.
pub const LONG: Duration = Duration::from_micros(500);

/// Waits that were longer than 500 us.
#[derive(Debug, Default)]
pub struct Waits {
    longest_us: AtomicU64,
    count: AtomicU64,
}

impl Waits {
    #[cold]
    pub fn note(&self, waited: Duration) {
        if waited > LONG {
            self.longest_us.fetch_max(waited.as_micros() as u64, Relaxed);
            self.count.fetch_add(1, Relaxed);
        }
    }

    /// The longest in microseconds, 0 where there was none, and how many there were.
    pub fn figures(&self) -> (u64, u64) {
        (self.longest_us.load(Relaxed), self.count.load(Relaxed))
    }

    pub fn reset(&self) {
        self.longest_us.store(0, Relaxed);
        self.count.store(0, Relaxed);
    }
}
