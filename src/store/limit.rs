//! `cache_memlimit`: -m as it is now.

use super::{ARENA_MAX, ARRIVING_SHARE, Store, UNLINKED_SHARE};
use std::sync::atomic::Ordering::Relaxed;

/// How often -m the limit may become at run time: address space for it is reserved at the start.
/// The checkers of memory and of threads have real memory for it, so they stay with -m.
const REACH_TIMES: u64 = if cfg!(any(loom, miri)) { 1 } else { 16 };

/// With `memory_budget=total`, what -m has to leave to the cache.
const CACHE_MIN: u64 = 1 << 20;

/// Bytes that a shard which starts with `limit` bytes can ever be given: 16 times as many, as far
/// as one arena reaches.
pub(super) fn reach_of(limit: u64) -> u64 {
    limit.saturating_mul(REACH_TIMES).min(ARENA_MAX).max(limit)
}

impl Store {
    /// Changes -m to so many bytes, of whose part for the cache every shard gets its even share.
    /// False, and nothing changed, where that is beyond what address space was reserved for, or
    /// hardly anything beside the rest of the process. With less than is in use now nothing is
    /// dropped here but values on their way beyond their share: the background work gives pages up
    /// until the limit holds.
    pub fn set_limit(&self, bytes: u64) -> bool {
        let cache = self.settings.cache_of(bytes);
        let share = cache / self.shards.len() as u64;
        let little = self.settings.memory_total && cache < CACHE_MIN;
        if little || self.shards.iter().any(|shard| share > shard.reach) {
            return false;
        }
        for shard in &self.shards {
            shard.slabs.set_limit(share);
            shard.pins.set_unlinked_max(share / UNLINKED_SHARE);
            shard.arrivals.set_most(share / ARRIVING_SHARE);
            shard.drop_arrivals(0);
        }
        self.limit.store(bytes, Relaxed);
        true
    }
}

impl Store {
    /// Bytes in use beyond the limit.
    pub fn over_limit(&self) -> u64 {
        self.shards.iter().map(|shard| shard.slabs.over_limit()).sum()
    }

    /// What an operator is told of them.
    pub fn excess(&self) -> String {
        let more = self.over_limit().div_ceil(1 << 20);
        let until = match self.settings.evict {
            true => "given up",
            false => "kept by -M until items are deleted or expire, but for what no item needs",
        };
        format!("{more} MiB more than the limit are in use, and {until}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::{Footprint, Layout, Settings};
    use crate::store::{Key, Set};
    use std::sync::Arc;

    fn store(layout: Layout) -> Arc<Store> {
        let settings = Settings { layout, maxbytes: 8 << 20, ..Settings::default() };
        Store::new(Arc::new(settings), Arc::new(Clock::manual(1))).expect("a store")
    }

    /// Stores more than fits; the bytes of pages then in use.
    fn overfill(store: &Arc<Store>, mib: u32) -> u64 {
        let (l, value) = (store.local(), vec![b'v'; 4000]);
        for n in 0..mib * 300 {
            let text = format!("key{n}");
            let key = Key::new(text.as_bytes()).expect("a key");
            store.set(&l, &Set::of(key, 4000), store.hash(key), &value).expect("room");
        }
        store.info().total_malloced
    }

    #[test]
    fn the_limit_moves_up_to_what_was_reserved() {
        for layout in [Layout::Compact, Layout::Memcached] {
            let store = store(layout);
            let full = overfill(&store, 8);
            assert!((7 << 20..=8 << 20).contains(&full), "{full}");
            assert!(store.set_limit(24 << 20));
            assert_eq!(store.info().limit_maxbytes, 24 << 20);
            let more = overfill(&store, 24);
            assert!((22 << 20..=24 << 20).contains(&more), "{more}");
            assert!(!store.set_limit((128 << 20) + 1), "16 times -m and no more");
            assert_eq!(store.info().limit_maxbytes, 24 << 20);
            assert!(store.set_limit(128 << 20));
        }
    }

    #[test]
    fn what_the_rest_of_the_process_needs_stays_out_of_the_cache() {
        let settings = Settings { memory_total: true, ..Settings::default() };
        let beside = Footprint::of(&settings).total();
        let store = Store::new(Arc::new(settings), Arc::new(Clock::manual(1))).expect("a store");
        let cache = |store: &Store| store.memory_info().cache_limit;
        assert_eq!(cache(&store), (64 << 20) - beside);
        assert!(store.set_limit(80 << 20));
        assert_eq!((store.info().limit_maxbytes, cache(&store)), (80 << 20, (80 << 20) - beside));
        overfill(&store, 80);
        let info = store.memory_info();
        let used = info.pages + info.index + info.ghosts;
        assert!(used <= info.cache_limit && used > info.cache_limit / 10 * 9, "{info:?}");
        assert!(!store.set_limit(beside + 1000), "nothing would be left");
    }

    #[test]
    fn what_is_beyond_a_lowered_limit_is_told() {
        let store = store(Layout::Compact);
        overfill(&store, 8);
        let slabs = &store.shards[0].slabs;
        assert_eq!(slabs.over_limit(), 0);
        assert!(store.set_limit(4 << 20));
        assert!((3 << 20..=4 << 20).contains(&slabs.over_limit()), "{}", slabs.over_limit());
        assert_eq!(slabs.available_pages(), 0);
        assert!(store.set_limit(8 << 20));
        assert_eq!((slabs.over_limit(), store.validate()), (0, Ok(())));
    }

    #[test]
    fn a_large_m_reaches_as_far_as_an_arena() {
        assert_eq!(reach_of(64 << 20), 1 << 30);
        assert_eq!(reach_of(1 << 30), ARENA_MAX);
        assert_eq!(reach_of(ARENA_MAX), ARENA_MAX);
    }
}
