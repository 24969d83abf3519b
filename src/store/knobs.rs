//! What operators may change while the server runs: set by commands, read by the engine.

use crate::config::Settings;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// In [`Knobs::temp_ttl`]: short-lived items go to TEMP.
const TEMP: u64 = 1 << 32;

/// A real number that threads share.
#[derive(Debug)]
pub struct Real(AtomicU64);

impl Real {
    fn new(value: f64) -> Real {
        Real(AtomicU64::new(value.to_bits()))
    }

    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }
}

/// Each starts as the command line said; `stats settings` shows what it is now.
#[derive(Debug)]
pub struct Knobs {
    /// `slabs automove`: 0 off, 1 on, 2 a page for every eviction.
    pub automove: AtomicU32,
    /// `slabs automove ratio`, 0 to 1.
    pub automove_ratio: Real,
    /// `slabs automove window`, seconds.
    pub automove_window: AtomicU32,
    /// `lru_crawler enable|disable`
    pub crawler: AtomicBool,
    /// `lru_crawler sleep`, microseconds.
    pub crawler_sleep: AtomicU32,
    /// `lru_crawler tocrawl`, items; 0: all.
    pub crawler_tocrawl: AtomicU32,
    /// `lru mode segmented` (true) or `flat`.
    pub segmented: AtomicBool,
    /// `lru tune`: per cent of a class, and shares of COLD's age.
    pub hot_pct: AtomicU32,
    pub warm_pct: AtomicU32,
    pub hot_factor: Real,
    pub warm_factor: Real,
    /// `lru temp_ttl`, seconds, and from 2^32 on: there is TEMP.
    temp_ttl: AtomicU64,
}

impl Knobs {
    pub fn new(s: &Settings) -> Knobs {
        let temp = if s.temp_lru { TEMP } else { 0 } | u64::from(s.temporary_ttl);
        Knobs {
            automove: AtomicU32::new(s.slab_automove),
            automove_ratio: Real::new(s.slab_automove_ratio),
            automove_window: AtomicU32::new(s.slab_automove_window),
            crawler: AtomicBool::new(s.lru_crawler),
            crawler_sleep: AtomicU32::new(s.lru_crawler_sleep),
            crawler_tocrawl: AtomicU32::new(s.lru_crawler_tocrawl),
            segmented: AtomicBool::new(s.lru_segmented),
            hot_pct: AtomicU32::new(s.hot_lru_pct),
            warm_pct: AtomicU32::new(s.warm_lru_pct),
            hot_factor: Real::new(s.hot_max_factor),
            warm_factor: Real::new(s.warm_max_factor),
            temp_ttl: AtomicU64::new(temp),
        }
    }

    /// Items with at most so many seconds to live go to TEMP; `None`: none does.
    #[inline]
    pub fn temporary_ttl(&self) -> Option<u32> {
        let temp = self.temp_ttl.load(Relaxed);
        (temp >= TEMP).then_some(temp as u32)
    }

    /// As [`Knobs::temporary_ttl`], or what it last was.
    pub fn last_temporary_ttl(&self) -> u32 {
        self.temp_ttl.load(Relaxed) as u32
    }

    pub fn set_temporary_ttl(&self, ttl: Option<u32>) {
        let temp = ttl.map_or(u64::from(self.last_temporary_ttl()), |ttl| TEMP | u64::from(ttl));
        self.temp_ttl.store(temp, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temp_is_turned_on_and_off_and_remembers_its_seconds() {
        let knobs = Knobs::new(&Settings::default());
        assert_eq!((knobs.temporary_ttl(), knobs.last_temporary_ttl()), (None, 61));
        knobs.set_temporary_ttl(Some(0));
        assert_eq!(knobs.temporary_ttl(), Some(0));
        knobs.set_temporary_ttl(Some(u32::MAX));
        knobs.set_temporary_ttl(None);
        assert_eq!((knobs.temporary_ttl(), knobs.last_temporary_ttl()), (None, u32::MAX));
    }
}
