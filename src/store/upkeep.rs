//! Background work: an ordered list of jobs, each of which does a bounded step of its work in a
//! tick; and the growth of the index.

use super::evict::Rule;
use super::flush::Horizon;
use super::ghost::LINE_BYTES;
use super::shard::Shard;
use super::types::Local;
use super::{Store, index};
use slab::ClassId;
use slab::sync::MODELLED;
use std::sync::atomic::Ordering::Relaxed;

/// Items per line at which the index grows.
const LOAD_MAX: u64 = if MODELLED { 1 } else { 11 };
/// Lines moved in one tick: some tens of microseconds of work.
const LINES_PER_TICK: u32 = 256;
/// Smallest item, with its share of the index: what bounds the number of items.
const ITEM_MIN: u64 = if MODELLED { 200 } else { 24 };
/// Pages given up for one growth of the index at the most.
const PAGES_FOR_GROWTH_MAX: u64 = 4096;

/// The lines that an index over `limit` bytes could ever need.
pub(super) fn lines_ceiling(limit: u64) -> u32 {
    let lines = limit / ITEM_MIN / LOAD_MAX;
    lines.clamp(u64::from(index::LINE_STEP), u64::from(index::LINES_MAX)) as u32
}

/// What is left to do after a tick, from nothing to what somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Nothing: look again in a while.
    Rest,
    /// Something that can wait: as much as goes while the server is idle, little while it is busy.
    Spare,
    /// Something that somebody waits for.
    Urgent,
}

/// Does some tens of microseconds of work at the most, and says what is left of it.
type Job = fn(&Store, &Local) -> Pace;

/// In their order. Each gets its turn in every tick, so that none can starve another.
const JOBS: [Job; 7] = [
    Store::apply_knobs,
    Store::tend_step,
    Store::grow_step,
    Store::fit_ghosts,
    Store::move_step,
    Store::crawl_step,
    Store::reclaim_step,
];

/// Lines of the index for one line of ghosts.
pub(super) const LINES_PER_GHOST: u32 = 4;

impl Store {
    /// The thread that calls [`Store::tick`] is the one that calls this first.
    pub fn is_upkeep(&self) {
        let _ = self.upkeep.set(std::thread::current());
    }

    /// Ends the rest that the background thread may be having.
    pub(super) fn wake_upkeep(&self) {
        if let Some(thread) = self.upkeep.get() {
            thread.unpark();
        }
    }

    /// A bounded amount of background work.
    pub fn tick(&self, l: &Local) -> Pace {
        l.counters.thread.lru_maintainer_juggles.bump();
        JOBS.iter().map(|job| job(self, l)).max().unwrap_or(Pace::Rest)
    }

    /// Lets the first shard that has work do a step of it, each being the first in its turn.
    pub(super) fn step_shards(&self, l: &Local, step: impl Fn(&Shard) -> Pace) -> Pace {
        let turn = l.counters.thread.lru_maintainer_juggles.load() as usize;
        let (before, from) = self.shards.split_at(turn % self.shards.len());
        let mut paces = from.iter().chain(before).map(step);
        paces.find(|pace| *pace != Pace::Rest).unwrap_or(Pace::Rest)
    }

    fn grow_step(&self, l: &Local) -> Pace {
        self.step_shards(l, |shard| self.grow_shard(l, shard))
    }

    fn grow_shard(&self, l: &Local, shard: &Shard) -> Pace {
        if shard.index.is_growing() {
            for _ in 0..LINES_PER_TICK {
                if !shard.index.grow_step(|chunk| shard.hash_of(chunk)) {
                    return Pace::Rest;
                }
            }
            return Pace::Urgent;
        }
        let load = shard.items.load(Relaxed) / u64::from(shard.index.len());
        let due = load >= LOAD_MAX || shard.index.short_of_nodes();
        if due && !self.settings.no_hashexpand && shard.start_growth(l, self.horizon()) {
            Pace::Urgent
        } else {
            Pace::Rest
        }
    }
}

impl Store {
    /// Brings the engine in line with what an operator set.
    fn apply_knobs(&self, _: &Local) -> Pace {
        let segmented = self.knobs.segmented.load(Relaxed);
        let hot = self.knobs.hot_pct.load(Relaxed);
        let rule = Rule::of(self.settings.eviction, segmented, hot);
        for shard in &self.shards {
            if shard.rule() != rule {
                shard.rule.store(rule.pack(), Relaxed);
                shard.tending.lock().begin();
                if !shard.rules.as_memcached {
                    shard.slabs.set_chunk_overhead(rule.overhead_64ths());
                }
            }
        }
        Pace::Rest
    }

    fn fit_ghosts(&self, l: &Local) -> Pace {
        self.step_shards(l, |shard| shard.fit_ghost(l, self.horizon()))
    }
}

impl Shard {
    /// Keeps the ghost table in proportion to the index.
    fn fit_ghost(&self, l: &Local, horizon: Horizon) -> Pace {
        let (has, wanted) = (self.ghost.len(), self.index.len() / LINES_PER_GHOST);
        let bytes = |lines: u32| u64::from(lines) * LINE_BYTES;
        if has == wanted || !self.rules.evict {
            return Pace::Rest;
        }
        if self.rules.as_memcached {
            self.ghost.resize(wanted);
        } else if wanted < has {
            self.ghost.resize(wanted);
            self.slabs.discharge(bytes(has - wanted));
        } else if self.slabs.charge(bytes(wanted - has)) {
            self.ghost.resize(wanted);
        } else if !self.steal_page(l, ClassId(0), horizon) {
            return Pace::Rest;
        }
        Pace::Spare
    }

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
