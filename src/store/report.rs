//! Figures for statistics and dumps.

use super::ghost::Part;
use super::shard::Shard;
use super::types::{ClassInfo, GhostInfo, MemoryInfo, SIZE_STEP, StoreInfo};
use super::{BUCKET_BYTES, Store, Worth, read::seconds_left};
use crate::item::{Shape, State};
use slab::sync::Ordering::Relaxed;
use slab::{ClassId, LongWaits, Waits};

impl Store {
    /// Every class, in the order of their ids, also those without pages. Figures that only a look
    /// at the items gives are 0: see [`Store::class_census`].
    pub fn class_info(&self) -> Vec<ClassInfo> {
        let levels = self.stats.levels();
        let geometry = self.shards[0].slabs.geometry();
        geometry
            .classes()
            .map(|class| {
                let mut info = ClassInfo {
                    id: u32::from(class.0),
                    chunk_size: geometry.whole_size(class),
                    chunks_per_page: geometry.chunks_per_page(class),
                    items: levels[class.index()].0,
                    bytes: levels[class.index()].1,
                    ..ClassInfo::default()
                };
                for shard in &self.shards {
                    self.add_class(shard, class, &mut info);
                }
                info
            })
            .collect()
    }

    fn add_class(&self, shard: &Shard, class: ClassId, info: &mut ClassInfo) {
        let guard = shard.slabs.lock(class);
        info.pages += guard.pages().len() as u64;
        info.total_chunks += guard.total_chunks();
        info.free_chunks += guard.free_chunks();
        info.evicted_time = info.evicted_time.max(shard.victims.last(class).unwrap_or(0));
        if let Some(mean) = shard.victims.mean(class) {
            info.has_evicted = true;
            info.age = info.age.max(mean);
        }
    }

    /// `stats reset`: what is counted starts again from 0, what is there stays.
    pub fn reset_stats(&self) {
        self.stats.reset();
        self.watch.reset();
        for shard in &self.shards {
            shard.victims.forget_last();
            shard.slabs.waits().reset();
            shard.index.waits().reset();
        }
    }

    /// The waits for a lock that were too long: those of requests, and those of the upkeep.
    pub fn long_waits(&self) -> [LongWaits; 2] {
        [Waits::of_requests, Waits::of_background].map(|figures| {
            let waits = self.shards.iter().flat_map(|s| [s.slabs.waits(), s.index.waits()]);
            waits.map(figures).fold(LongWaits::default(), LongWaits::and)
        })
    }

    pub fn info(&self) -> StoreInfo {
        let page = u64::from(self.shards[0].slabs.geometry().page_size());
        let sum = |f: &dyn Fn(&Shard) -> u64| self.shards.iter().map(f).sum::<u64>();
        let (crawler_running, crawler_starts) = self.crawler_figures();
        StoreInfo {
            hash_power_level: self.hash_power_level(),
            hash_bytes: sum(&|s| s.index.bytes()),
            hash_is_expanding: self.shards.iter().any(|s| s.index.is_growing()),
            free_pages: sum(&|s| s.slabs.free_pages()),
            total_malloced: sum(&|s| (s.slabs.pages_in_use() + s.slabs.free_pages()) * page)
                + self.settings.initial_malloc,
            limit_maxbytes: self.limit.load(Relaxed),
            crawler_running,
            crawler_starts,
            oldest_live: self.flush.oldest_live(),
        }
    }

    /// Every class as the page mover's policy sees it, from class 1 on; with several arenas the
    /// mean of theirs. Empty before its first look.
    pub fn class_worths(&self) -> Vec<Worth> {
        let shards = self.worths();
        let classes = shards.iter().map(Vec::len).min().unwrap_or(0);
        let mean = |class: usize| {
            let (count, of_shards) = (shards.len(), shards.iter().map(|shard| shard[class]));
            let mut sum = of_shards.fold(Worth::default(), |sum, worth| Worth {
                pages: sum.pages + worth.pages,
                gain: sum.gain + worth.gain,
                doubt: sum.doubt + worth.doubt,
                probation: sum.probation + worth.probation,
            });
            sum.gain /= count as f64;
            sum.doubt /= count as f64;
            sum.probation /= count as u32;
            sum
        };
        (0..classes).map(mean).collect()
    }

    pub fn memory_info(&self) -> MemoryInfo {
        let limit = self.limit.load(Relaxed);
        let geometry = self.shards[0].slabs.geometry();
        let page = u64::from(geometry.page_size());
        let (classes, cache_limit) =
            (geometry.classes().count() as u64, self.settings.cache_of(limit));
        let mut info = MemoryInfo { limit, cache_limit, page, classes, ..Default::default() };
        for shard in &self.shards {
            info.pages += shard.slabs.pages_in_use() * page;
            info.pinned += shard.pins.unlinked_bytes();
            info.over_limit += shard.slabs.over_limit();
            info.arriving += shard.arrivals.bytes();
            info.index += shard.index.bytes();
            info.ghosts += shard.ghost.bytes();
            let queues = geometry.classes().map(|class| shard.slabs.lock(class).queue_bytes());
            info.queues += queues.sum::<u64>();
        }
        info
    }

    /// Rows that [`Store::sizes`] has at the most.
    pub fn sizes_max(&self) -> u64 {
        let threads = self.sizes.lock();
        let steps = threads.iter().map(|t| u64::from(t.top.load(Relaxed)) + 1).max().unwrap_or(0);
        // A step without an item makes no row.
        steps.min(self.shards.iter().map(|shard| shard.items.load(Relaxed)).sum())
    }

    pub fn ghost_info(&self) -> GhostInfo {
        let mut info = GhostInfo::default();
        for shard in &self.shards {
            info.lines += u64::from(shard.ghost.len());
            info.bytes += shard.ghost.bytes();
            for class in shard.slabs.geometry().classes() {
                for part in [Part::Probation, Part::Main] {
                    let (gains, false_gains) = shard.ghost.gains(class, part);
                    info.gains += u64::from(gains);
                    info.false_gains += u64::from(false_gains);
                }
            }
        }
        info
    }

    /// The level at which memcached's table would be for as many buckets: log2 of the index's
    /// slots, of which a line of 12 stands for 8 buckets of [`BUCKET_BYTES`]. Where ours grows by
    /// half memcached's has doubled, so half of a level is a whole one.
    fn hash_power_level(&self) -> u32 {
        let lines: u64 = self.shards.iter().map(|s| u64::from(s.index.len())).sum();
        (lines * BUCKET_BYTES * 4 / 3).ilog2()
    }

    /// Items per size: (bytes rounded up to 32, count), ascending, no zero counts.
    pub fn sizes(&self) -> Vec<(u32, u64)> {
        let threads = self.sizes.lock();
        let steps = threads.iter().map(|t| t.top.load(Relaxed) + 1).max().unwrap_or(0);
        (0..steps as usize)
            .filter_map(|step| {
                let count = threads
                    .iter()
                    .filter_map(|t| t.cells.get(step))
                    .fold(0u32, |sum, cell| sum.wrapping_add(cell.load(Relaxed)));
                (count > 0).then_some((step as u32 * SIZE_STEP, u64::from(count)))
            })
            .collect()
    }

    /// Calls `visit(key, value length, seconds left)` for at most `limit` live items of a class
    /// (0: all), but those whose key came in base64; false where there is no such class.
    pub fn cachedump(
        &self,
        class: u32,
        limit: u32,
        mut visit: impl FnMut(&[u8], u32, Option<u32>),
    ) -> bool {
        let geometry = self.shards[0].slabs.geometry();
        let Some(class) = geometry.classes().find(|c| u32::from(c.0) == class) else {
            return false;
        };
        let mut left = if limit == 0 { u32::MAX } else { limit };
        for shard in &self.shards {
            let pages = shard.slabs.lock(class).pages().to_vec();
            for page in pages {
                for index in 0..geometry.chunks_per_page(class) {
                    if left == 0 {
                        return true;
                    }
                    let chunk = shard.slabs.chunk_at(page, class, index);
                    left -= u32::from(self.dump_one(shard, chunk, &mut visit));
                }
            }
        }
        true
    }

    /// Shows one item if it is alive; true where it was shown.
    fn dump_one(
        &self,
        shard: &Shard,
        chunk: slab::ChunkRef,
        visit: &mut impl FnMut(&[u8], u32, Option<u32>),
    ) -> bool {
        let item = shard.item(chunk);
        if item.standing().state() != State::Linked {
            return false;
        }
        let mut key = Vec::new();
        item.copy_key(item.shape(), &mut key);
        let line = shard.index.lock(shard.hash_bytes(&key));
        if line.find(|c| c == chunk).is_none() {
            return false;
        }
        let (shape, horizon) = (item.shape(), self.horizon());
        let deadline = item.deadline(shape);
        let dead = horizon.flushed(item.standing()) || horizon.expired(deadline);
        if dead || shape.has(Shape::BINARY_KEY) || !item.key_is(shape, &key) {
            return false;
        }
        visit(&key, item.value_len(shape), seconds_left(deadline, horizon.now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::Settings;
    use crate::store::{Get, Key, Set};
    use std::sync::Arc;

    #[test]
    fn what_pages_are_worth_is_told_with_what_it_rests_on() {
        let settings = Settings { maxbytes: 2 << 20, ..Settings::default() };
        let store = Store::new(Arc::new(settings), Arc::new(Clock::manual(1))).expect("a store");
        let l = store.local();
        store.tick(&l);
        let text = |n: u32| format!("{n:08}");
        let count = 80_000;
        for n in 0..count {
            let (text, value) = (text(n), b"value");
            let key = Key::new(text.as_bytes()).expect("a key");
            store.set(&l, &Set::of(key, 5), store.hash(key), value).expect("room");
            if n % 1000 == 0 {
                store.tick(&l);
            }
        }
        for n in (0..count).rev() {
            let text = text(n);
            let key = Key::new(text.as_bytes()).expect("a key");
            store.get(&l, &Get::of(key), store.hash(key), |_| {});
        }
        store.tick(&l);
        let ghost = store.ghost_info();
        assert!(ghost.lines > 0 && ghost.bytes == 64 * ghost.lines, "{ghost:?}");
        let misses = store.stats().raw_misses();
        assert!((1..misses).contains(&ghost.gains), "{ghost:?}, {misses} misses");
        assert!(ghost.false_gains < ghost.gains, "{ghost:?}");
        let worths = store.class_worths();
        let pages = |class: usize| store.class_info()[class].pages;
        assert!((0..worths.len()).all(|class| worths[class].pages == pages(class)));
        let best = worths.iter().max_by(|a, b| a.gain.total_cmp(&b.gain)).expect("classes");
        assert!(best.gain > 0.0 && best.doubt > 0.0 && best.probation > 0, "{best:?}");
    }
}
