//! Background work: an ordered list of jobs, each of which does a bounded step of its work in a
//! tick.

use super::Store;
use super::evict::Rule;
use super::flush::Horizon;
use super::ghost::LINE_BYTES;
use super::savings::Payment;
use super::shard::Shard;
use super::types::Local;
use std::sync::atomic::Ordering::Relaxed;

/// What is left to do after a tick, from nothing to what somebody waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Nothing: look again in a while.
    #[default]
    Rest,
    /// Something that can wait: as much as goes while the server is idle, little while it is busy.
    Spare,
    /// Something that somebody would wait for if it went on for long.
    Soon,
    /// Something that somebody waits for.
    Urgent,
}

/// Does some tens of microseconds of work at the most, and says what is left of it.
type Job = fn(&Store, &Local) -> Pace;

/// In their order. Each gets its turn, so that none can starve another.
pub(super) const JOBS: [Job; 11] = [
    Store::keep_time,
    Store::apply_knobs,
    Store::tend_step,
    Store::resize_step,
    Store::fit_ghosts,
    Store::clear_step,
    Store::move_step,
    Store::crawl_step,
    Store::reclaim_step,
    Store::choose_grain,
    Store::call_prefaulter,
];

/// Where a file number stands, what background work is done for.
const NO_CLIENT: i32 = -1;
/// Lines of the index for one line of ghosts.
pub(super) const LINES_PER_GHOST: u32 = 4;

impl Store {
    /// The thread that calls [`Store::tick`] is the one that calls this first. From then on a tick
    /// is also bounded by time.
    pub fn is_upkeep(&self, l: &Local) {
        slab::work_in_background();
        l.tick.bound_by_time();
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
        l.log.attend(NO_CLIENT);
        l.tick.run(|job| JOBS[job](self, l))
    }

    /// Lets the first shard that has work do a step of it, each being the first in its turn.
    pub(super) fn step_shards(&self, l: &Local, step: impl Fn(&Shard) -> Pace) -> Pace {
        let turn = l.counters.thread.lru_maintainer_juggles.load() as usize;
        let (before, from) = self.shards.split_at(turn % self.shards.len());
        let mut paces = from.iter().chain(before).map(step);
        paces.find(|pace| *pace != Pace::Rest).unwrap_or(Pace::Rest)
    }

    /// What a memory file is told now and then.
    fn keep_time(&self, _: &Local) -> Pace {
        self.note_time();
        Pace::Rest
    }

    /// Brings the engine in line with what an operator set.
    fn apply_knobs(&self, _: &Local) -> Pace {
        let segmented = self.knobs.segmented.load(Relaxed);
        let hot = self.knobs.hot_pct.load(Relaxed);
        let roomy = self.settings.pages_alone();
        let rule = Rule::of(self.settings.eviction, segmented, hot, roomy);
        for shard in &self.shards {
            if shard.rule() != rule {
                shard.rule.store(rule.pack(), Relaxed);
                shard.tending.lock().begin();
                if !shard.rules.pages_alone {
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
        let wanted = self.index.len() / LINES_PER_GHOST;
        if !self.rules.evict {
            return Pace::Rest;
        }
        if self.ghost.len() == wanted {
            self.let_go(&self.savings.ghosts);
            let trimmed = self.ghost.trim();
            if !self.rules.pages_alone {
                self.slabs.discharge(trimmed);
            }
            return if trimmed > 0 { Pace::Spare } else { Pace::Rest };
        }
        let more = (u64::from(wanted) * LINE_BYTES).saturating_sub(self.ghost.bytes());
        match self.pay(l, &self.savings.ghosts, more, horizon) {
            Payment::Whole => {
                self.savings.ghosts.spend();
                self.ghost.resize(wanted);
                Pace::Spare
            }
            Payment::Part => Pace::Spare,
            Payment::Nothing => Pace::Rest,
        }
    }
}
