//! Memory that is brought before it is needed, so that no request and no tick waits until the
//! system has cleared a huge page: that of the next pages of an arena, and of what the index will
//! grow by.
//!
//! A thread does it that has nothing else to do and holds nothing meanwhile. The background thread
//! calls it. Where there is none, memory comes when it is touched. As that thread has only what
//! time all others leave, a second one does it where an index has fallen far behind its items.

use super::Store;
use super::shard::Shard;
use super::types::Local;
use super::upkeep::Pace;

impl Store {
    /// The thread that calls [`Store::prefault`] is the one that calls this first.
    pub fn is_prefaulter(&self) {
        let _ = self.prefaulter.set(std::thread::current());
    }

    /// The thread that calls [`Store::hurry`] and [`Store::gather`] is the one that calls this
    /// first.
    pub fn is_hurrier(&self) {
        let _ = self.hurrier.set(std::thread::current());
    }

    /// True where the memory that a planned growth still lacks is to be waited for.
    pub(super) fn awaits_memory(&self, shard: &Shard) -> bool {
        if !shard.index.lacks_memory() {
            return false;
        }
        if !shard.is_late() {
            return self.prefaulter.get().is_some();
        }
        self.hurrier.get().inspect(|thread| thread.unpark()).is_some()
    }

    /// Brings a little memory, one huge page at the most; false where none is wanted by now.
    pub fn prefault(&self) -> bool {
        // An index wants little and seldom, arenas as long as they fill: first come, all that is
        // left of a busy processor would go to them.
        self.shards.iter().any(|shard| !shard.is_late() && self.prefault_index(shard))
            || self.shards.iter().any(|shard| shard.slabs.populate())
    }

    /// Brings a little memory for an index that is far behind; false where there is none.
    pub fn hurry(&self) -> bool {
        self.shards.iter().any(|shard| shard.is_late() && self.prefault_index(shard))
    }

    fn prefault_index(&self, shard: &Shard) -> bool {
        let populated = shard.index.populate();
        if populated && !shard.index.lacks_memory() {
            self.wake_upkeep();
        }
        populated
    }

    /// Ends the rest of the thread that brings memory, where some is wanted.
    pub(super) fn call_prefaulter(&self, _: &Local) -> Pace {
        if let Some(thread) = self.prefaulter.get() {
            // Each shard is to note what it lacks.
            let lacking = self.shards.iter().filter(|shard| shard.lacks_memory()).count();
            if lacking > 0 {
                thread.unpark();
            }
        }
        Pace::Rest
    }
}

impl Shard {
    fn lacks_memory(&self) -> bool {
        self.slabs.look_ahead() || self.index.lacks_memory()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;
    use crate::store::resize::LOAD_MAX;
    use crate::store::testing::Bench;
    use crate::store::upkeep::Pace;

    /// A store with a thread that brings memory, and so many per cent of the items at which its
    /// index grows.
    fn bench(per_cent: u64) -> Bench {
        let settings = Settings { hashpower_init: 12, ..Settings::default() };
        let bench = Bench::new(settings);
        bench.store.is_prefaulter();
        let items = u64::from(bench.shard().index.len()) * LOAD_MAX * per_cent / 100;
        (0..items).for_each(|n| bench.set(&format!("key{n}"), 1));
        bench
    }

    #[test]
    fn growth_waits_for_its_memory() {
        let bench = bench(101);
        let index = &bench.shard().index;
        let lines = index.len();
        bench.settle();
        assert_eq!((index.len(), index.planned()), (lines, Some(lines * 2)));
        bench.validate();
        while bench.store.prefault() {}
        assert!(index.planned().is_some() && !index.lacks_memory());
        assert_eq!(bench.tick(), Pace::Urgent);
        bench.settle();
        assert_eq!((index.len(), index.planned()), (lines * 2, None));
        bench.validate();
    }

    #[test]
    fn items_do_not_run_away_from_a_growth_that_waits() {
        let bench = bench(151);
        let index = &bench.shard().index;
        let lines = index.len();
        bench.until("it grows", |_| index.len() > lines);
        bench.settle();
        bench.validate();
        // What was brought for a plan that is done with is not taken for another's.
        assert!(!index.lacks_memory());
    }

    #[test]
    fn a_growth_that_is_late_waits_for_those_who_hurry() {
        let bench = bench(151);
        bench.store.is_hurrier();
        let index = &bench.shard().index;
        let lines = index.len();
        bench.settle();
        assert_eq!(index.len(), lines);
        while bench.store.prefault() {}
        assert!(index.lacks_memory(), "it is not for others");
        while bench.store.hurry() {}
        assert!(!index.lacks_memory());
        bench.until("it grows", |_| index.len() > lines);
        bench.validate();
    }
}
