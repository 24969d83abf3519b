//! Work that waits for nobody's request: the growth of the index. The reclaimer, the page mover
//! and the figures of HOT, WARM and COLD come with the memory engine, as further ticks.

use super::flush::Horizon;
use super::shard::Shard;
use super::types::Local;
use super::{Store, index};
use slab::ClassId;
use slab::sync::MODELLED;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Items per line at which the index grows.
const LOAD_MAX: u64 = if MODELLED { 1 } else { 11 };
/// Lines moved in one tick: some tens of microseconds of work.
const LINES_PER_TICK: u32 = 256;
/// Time between ticks when there is nothing to do.
const IDLE: Duration = Duration::from_millis(20);
/// Smallest item, with its share of the index: what bounds the number of items.
const ITEM_MIN: u64 = if MODELLED { 200 } else { 24 };
/// Pages given up for one growth of the index at the most.
const PAGES_FOR_GROWTH_MAX: u64 = 4096;

/// The lines that an index over `limit` bytes could ever need.
pub(super) fn lines_ceiling(limit: u64) -> u32 {
    let lines = limit / ITEM_MIN / LOAD_MAX;
    lines.clamp(u64::from(index::LINE_STEP), u64::from(index::LINES_MAX)) as u32
}

impl Store {
    /// Bounded background work; how long until the next is due.
    pub fn tick(&self, l: &Local) -> Duration {
        let mut busy = false;
        for shard in &self.shards {
            busy |= self.tick_shard(l, shard);
        }
        if busy { Duration::ZERO } else { IDLE }
    }

    /// True where more is to do at once.
    fn tick_shard(&self, l: &Local, shard: &Shard) -> bool {
        if shard.index.is_growing() {
            for _ in 0..LINES_PER_TICK {
                if !shard.index.grow_step(|chunk| shard.hash_of(chunk)) {
                    return false;
                }
            }
            return true;
        }
        let load = shard.items.load(Relaxed) / u64::from(shard.index.len());
        let due = load >= LOAD_MAX || shard.index.short_of_nodes();
        due && !self.settings.no_hashexpand && shard.start_growth(l, self.horizon())
    }
}

impl Shard {
    /// Starts to grow the index: by half while pages are plentiful, by an eighth when they are
    /// not. False where it cannot grow.
    fn start_growth(&self, l: &Local, horizon: Horizon) -> bool {
        let lines = self.index.len();
        let half = index::bytes_of(lines / 2);
        let page = u64::from(self.slabs.geometry().page_size());
        let plentiful = self.rules.as_memcached || self.slabs.available_pages() * page > half * 4;
        let more = (lines / if plentiful { 2 } else { 8 }).next_multiple_of(index::LINE_STEP);
        let target = lines.saturating_add(more).min(self.index.ceiling());
        let target = target / index::LINE_STEP * index::LINE_STEP;
        if target <= lines || !self.charge_index(l, index::bytes_of(target - lines), horizon) {
            return false;
        }
        self.index.start_growth(target);
        true
    }

    /// Counts `bytes` of the index against -m, for which pages may have to be given up.
    fn charge_index(&self, l: &Local, bytes: u64, horizon: Horizon) -> bool {
        if self.rules.as_memcached {
            return true;
        }
        let page = u64::from(self.slabs.geometry().page_size());
        let mut missing = bytes;
        for _ in 0..PAGES_FOR_GROWTH_MAX {
            if self.slabs.charge(missing) {
                return true;
            }
            if !self.rules.evict || !self.steal_page(l, ClassId(0), horizon) {
                break;
            }
            // What was won is taken at once, before a class takes it for a page again.
            if self.slabs.charge(page.min(missing)) {
                missing -= page.min(missing);
            }
        }
        self.slabs.discharge(bytes - missing);
        false
    }
}
