//! What only a look at the items tells of a class: how many are HOT, WARM, COLD and TEMP, and for
//! how long they have been idle. Headers are read as they stand, without any lock, so a figure is
//! off by what changes meanwhile. A class of very many chunks is judged by some of them.

use super::Store;
use super::read::WARM_FROM;
use super::shard::Shard;
use super::types::ClassInfo;
use crate::clock::Seconds;
use crate::item::{Shape, State};
use slab::sync::MODELLED;
use slab::{ChunkRef, ClassId, PageNo};

/// Chunks up to which a class is counted to the last; of more, so many are looked at, spread
/// evenly.
const LOOK_MAX: u64 = if MODELLED { 32 } else { 65_536 };
/// Chunks of all classes together, so that no client waits for long: some milliseconds.
const LOOK_ALL_MAX: u64 = 2 * LOOK_MAX;

/// Headers that are loaded at a time.
const BATCH: usize = 16;
/// Bits that a multiplication spreads well: of the golden ratio.
const SCATTER: usize = 0x9E37_79B9_7F4A_7C15;

/// Items that were looked at.
#[derive(Clone, Copy, Default)]
struct Tally {
    items: u64,
    hot: u64,
    warm: u64,
    temp: u64,
    /// Longest idle, seconds.
    age_hot: u32,
    age_warm: u32,
    oldest: u32,
}

impl Store {
    /// As [`Store::class_info`], with the items of each queue and their ages. Exact up to 65,536
    /// chunks a class and 131,072 in all, beyond that an estimate from as many, spread evenly; the
    /// queues always add up to the items. For whoever asks, not for every tick.
    pub fn class_census(&self) -> Vec<ClassInfo> {
        let mut infos = self.class_info();
        let held = infos.iter().filter(|info| info.items > 0);
        let classes = held.clone().count().max(1) as u64;
        let all: u64 = held.map(|info| info.total_chunks.min(LOOK_MAX)).sum();
        let most = if all > LOOK_ALL_MAX { LOOK_ALL_MAX / classes } else { LOOK_MAX };
        for info in infos.iter_mut().filter(|info| info.items > 0) {
            self.tally(ClassId(info.id as u16), most.max(1)).complete(info);
        }
        infos
    }

    /// Looks at no more than `most` chunks of a class.
    fn tally(&self, class: ClassId, most: u64) -> Tally {
        let pages_of = |shard| -> Vec<(&Shard, PageNo)> {
            let pages = Shard::pages_of(shard, class);
            pages.into_iter().map(|page| (shard, page)).collect()
        };
        let pages: Vec<(&Shard, PageNo)> = self.shards.iter().flat_map(pages_of).collect();
        let per_page = self.shards[0].slabs.geometry().chunks_per_page(class) as usize;
        let (chunks, now) = (pages.len() * per_page, self.clock.now());
        let stride = (chunks as u64).div_ceil(most).max(1) as usize;
        let mut tally = Tally::default();
        let mut batch = Vec::with_capacity(BATCH);
        for from in (0..chunks).step_by(stride) {
            // One of each `stride` chunks, and not always the same: what was stored in turn lies
            // in turn.
            let n = from + (from.wrapping_mul(SCATTER) >> 32) % stride.min(chunks - from);
            let (shard, page) = pages[n / per_page];
            let chunk = shard.slabs.chunk_at(page, class, (n % per_page) as u32);
            shard.item(chunk).prefetch();
            batch.push((shard, chunk));
            if batch.len() == BATCH {
                tally.add(&mut batch, class, now);
            }
        }
        tally.add(&mut batch, class, now);
        tally
    }
}

impl Shard {
    fn pages_of(&self, class: ClassId) -> Vec<PageNo> {
        self.slabs.lock(class).pages().to_vec()
    }

    fn tally_chunk(&self, chunk: ChunkRef, class: ClassId, now: Seconds, tally: &mut Tally) {
        let item = self.item(chunk);
        let (standing, shape) = (item.standing(), item.shape());
        // A page that has changed hands meanwhile has no header here.
        if standing.state() != State::Linked || self.slabs.class_of(chunk) != class {
            return;
        }
        let (idle, segmented) = (standing.idle(now), self.is_segmented());
        tally.items += 1;
        tally.oldest = tally.oldest.max(idle);
        if shape.has(Shape::TEMP) {
            tally.temp += 1;
        } else if segmented && shape.has(Shape::QUEUED) {
            tally.hot += 1;
            tally.age_hot = tally.age_hot.max(idle);
        } else if segmented && standing.counter() >= WARM_FROM {
            tally.warm += 1;
            tally.age_warm = tally.age_warm.max(idle);
        }
    }
}

impl Tally {
    fn add(&mut self, batch: &mut Vec<(&Shard, ChunkRef)>, class: ClassId, now: Seconds) {
        for (shard, chunk) in batch.drain(..) {
            shard.tally_chunk(chunk, class, now, self);
        }
    }

    /// Scales what was seen to the items that there are; COLD is the rest.
    fn complete(self, info: &mut ClassInfo) {
        let share = |part: u64| {
            let scaled = u128::from(part) * u128::from(info.items) / u128::from(self.items.max(1));
            scaled as u64
        };
        (info.number_hot, info.number_warm) = (share(self.hot), share(self.warm));
        info.number_temp = share(self.temp);
        info.number_cold = info.items - info.number_hot - info.number_warm - info.number_temp;
        (info.age_hot, info.age_warm) = (self.age_hot, self.age_warm);
        if !info.has_evicted {
            info.age = self.oldest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Exptime};
    use crate::config::Settings;
    use crate::store::{Get, Key, Local, Set};
    use std::sync::Arc;

    /// Seconds to live that are too many for TEMP.
    const LONG: i64 = 10_000;

    fn store(settings: Settings) -> Arc<Store> {
        Store::new(Arc::new(settings), Arc::new(Clock::manual(1))).expect("a store")
    }

    fn set(store: &Arc<Store>, l: &Local, n: u64, exptime: i64) {
        let text = format!("{n:08}");
        let key = Key::new(text.as_bytes()).expect("a key");
        let set = Set { exptime: Exptime(exptime), ..Set::of(key, 5) };
        store.set(l, &set, store.hash(key), b"value").expect("room");
    }

    fn get_twice(store: &Arc<Store>, l: &Local, n: u64) {
        let text = format!("{n:08}");
        let key = Key::new(text.as_bytes()).expect("a key");
        for _ in 0..2 {
            assert!(store.get(l, &Get::of(key), store.hash(key), |_| {}), "{n}");
        }
    }

    fn queues(store: &Store) -> ClassInfo {
        let infos = store.class_census();
        infos.into_iter().find(|info| info.items > 0).expect("a class with items")
    }

    fn sum(info: &ClassInfo) -> u64 {
        info.number_hot + info.number_warm + info.number_cold + info.number_temp
    }

    #[test]
    fn every_item_is_in_the_queue_where_it_stands() {
        let store = store(Settings { temp_lru: true, temporary_ttl: 60, ..Settings::default() });
        let l = store.local();
        (0..1000).for_each(|n| set(&store, &l, n, LONG));
        set(&store, &l, 1000, 30);
        let shard = &store.shards[0];
        let rings = shard.slabs.geometry().classes().map(|c| shard.slabs.lock(c).queued());
        let queued: usize = rings.sum();
        store.clock().advance(3);
        (0..10).for_each(|n| get_twice(&store, &l, n));
        store.clock().advance(4);
        let info = queues(&store);
        assert_eq!((info.items, info.number_temp, info.number_warm), (1001, 1, 10));
        assert_eq!((info.number_hot, sum(&info)), (queued as u64, 1001));
        assert!(queued < 990, "{queued} in probation");
        assert_eq!((info.age_hot, info.age_warm, info.age), (7, 4, 7));
    }

    #[test]
    fn a_flat_lru_has_all_in_cold_but_temp() {
        let store = store(Settings { lru_segmented: false, temp_lru: true, ..Settings::default() });
        let l = store.local();
        (0..100).for_each(|n| set(&store, &l, n, LONG));
        set(&store, &l, 100, 30);
        (0..10).for_each(|n| get_twice(&store, &l, n));
        let info = queues(&store);
        assert_eq!((info.number_hot, info.number_warm), (0, 0));
        assert_eq!((info.number_cold, info.number_temp), (100, 1));
        let hits = store.stats().class_sums()[info.id as usize];
        assert_eq!((hits.hits_to_cold, hits.get_hits, hits.moves_to_warm), (20, 20, 0));
    }

    #[test]
    fn a_large_class_is_estimated_and_still_adds_up() {
        let store = store(Settings::default());
        let (l, count) = (store.local(), 3 * LOOK_MAX);
        (0..count).for_each(|n| set(&store, &l, n, 0));
        let warm = count / 4;
        (0..warm).map(|n| n * 2).for_each(|n| get_twice(&store, &l, n));
        let info = queues(&store);
        assert_eq!((info.items, sum(&info)), (count, count));
        assert!((warm * 9 / 10..=warm * 11 / 10).contains(&info.number_warm), "{info:?}");
    }

    #[test]
    fn ages_are_those_of_victims_once_there_are_any_and_a_reset_forgets_the_last() {
        let store = store(Settings { maxbytes: 2 << 20, ..Settings::default() });
        let l = store.local();
        set(&store, &l, 0, 0);
        store.clock().advance(9);
        assert_eq!((queues(&store).age, queues(&store).evicted_time), (9, 0));
        (1..100_000).for_each(|n| set(&store, &l, n, 0));
        store.clock().advance(50);
        (0..50_000).for_each(|n| set(&store, &l, n, 0));
        store.clock().advance(1000);
        set(&store, &l, 100_000, 0);
        let info = queues(&store);
        // Of the first round or of the second: both are unread.
        assert!([1000, 1050].contains(&info.evicted_time), "{info:?}");
        assert!((60..200).contains(&info.age), "{info:?}");
        store.reset_stats();
        let after = queues(&store);
        assert_eq!((after.evicted_time, after.age), (0, info.age));
    }
}
