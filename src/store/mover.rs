//! The page mover: one page at a time, in bounded steps, for whoever asked: an operator, the
//! policy in `automove`, or a limit that was lowered.

use super::Store;
use super::automove::{Automove, Decision, Load, Memory, Sample, Terms, Why, Worth};
use super::evacuate::{Evacuated, Evacuation};
use super::evict::{Capacity, Class, LOOK_MAX, PLACE_BYTES};
use super::flush::Horizon;
use super::ghost::Part;
use super::shard::Shard;
use super::steal::emptiest_first;
use super::types::Local;
use super::upkeep::Pace;
use crate::clock::Seconds;
use crate::config::Eviction;
use crate::item::Shape;
use crate::stats::{BusyStatus, MoveStats};
use slab::{ClassId, PageNo};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

#[cfg(test)]
mod tests;

/// Pages that are looked through for what is in a move's way.
const PAGES_LOOKED_MAX: usize = 4;
/// Chunks looked at in one step: some forty microseconds of work where each has an item to move.
const CHUNKS_PER_STEP: u32 = 32;
/// Rounds over a page with something busy on it, after which a page that the policy chose is left
/// alone, and one that an operator asked for loses what is pinned.
const ROUNDS_MAX: u32 = 200;
const ROUNDS_BY_HAND_MAX: u32 = 5000;
/// Moves that are remembered.
const HISTORY: usize = 16;

/// How `slabs reassign` is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reassign {
    Ok,
    Running,
    BadClass,
    NoSpare,
    Same,
}

/// A move that was made, for `stats automover`.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    pub at: Seconds,
    pub from: u32,
    /// 0: the pool.
    pub to: u32,
    /// `None`: an operator's.
    pub why: Option<Why>,
    pub rescues: u32,
    pub done: bool,
}

/// A page on its way.
struct Move {
    shard: usize,
    way: Evacuation,
    to: Option<ClassId>,
    why: Option<Why>,
    /// The chunk that is next, and the busy ones of this round.
    next: u32,
    busy: u32,
    status: BusyStatus,
    rounds: u32,
    rescues: u32,
}

#[derive(Default)]
pub(super) struct Mover {
    now: Option<Move>,
    policies: Vec<Automove>,
    history: VecDeque<Moved>,
}

/// What a step came to.
enum Step {
    /// More to do at once.
    Going,
    /// Something is in the way: later.
    Resting,
    Over {
        moved: bool,
    },
}

impl Store {
    /// Asks for a page of class `from` (-1: any) to move to class `to` (0: the pool).
    pub fn reassign(&self, from: i32, to: i32) -> Reassign {
        let classes = self.shards[0].slabs.geometry().classes().count() as i32;
        let mut mover = self.mover.lock();
        if mover.now.is_some() {
            return Reassign::Running;
        }
        if from == to {
            return Reassign::Same;
        }
        if !(-1..=classes).contains(&from) || !(0..=classes).contains(&to) {
            return Reassign::BadClass;
        }
        let to = Some(ClassId(to as u16)).filter(|class| class.0 != 0);
        if from == 0 {
            return self.take_from_pool(to);
        }
        let from = if from == -1 { self.largest_but(to) } else { Some(ClassId(from as u16)) };
        let Some(from) = from else { return Reassign::BadClass };
        let Some((n, page)) = self.page_of_richest(from) else { return Reassign::NoSpare };
        mover.now = Some(Move::of(n, page, from, to, None));
        self.stats.moves.running.store(true, Relaxed);
        self.wake_upkeep();
        Reassign::Ok
    }

    /// A page, already draining, of the shard where a class has most, unless that is its last.
    fn page_of_richest(&self, class: ClassId) -> Option<(usize, PageNo)> {
        let pages = |shard: &Shard| shard.slabs.lock(class).pages().len();
        let n = (0..self.shards.len()).max_by_key(|n| pages(&self.shards[*n]))?;
        let shard = &self.shards[n];
        let page = shard.page_to_move(class, shard.rules.pages_alone, 2)?;
        Some((n, page))
    }

    /// A page that lies in the pool is a class's for the asking.
    fn take_from_pool(&self, to: Option<ClassId>) -> Reassign {
        let shard = self.shards.iter().find(|s| s.slabs.free_pages() >= 2);
        match (shard, to) {
            (Some(shard), Some(to)) if shard.slabs.lock(to).grow() => Reassign::Ok,
            _ => Reassign::NoSpare,
        }
    }

    /// The class with the most pages, of those with more than one.
    fn largest_but(&self, but: Option<ClassId>) -> Option<ClassId> {
        let slabs = &self.shards[0].slabs;
        let classes = slabs.geometry().classes().filter(|class| Some(*class) != but);
        let pages = |class: &ClassId| slabs.lock(*class).pages().len();
        classes.filter(|class| pages(class) > 1).max_by_key(pages)
    }

    /// A bounded step of the move that is on, or the choice of the next.
    pub fn move_step(&self, l: &Local) -> Pace {
        let mut mover = self.mover.lock();
        if mover.now.is_none() {
            let asked = self.heed_operator(&mover);
            mover.now = self.next_move(&mut mover.policies, !asked);
            mover.now.iter().for_each(|chosen| l.tell_moving(chosen.way.class, chosen.to));
        }
        let Some(mut now) = mover.now.take() else { return Pace::Rest };
        let pace = if now.is_urgent() { Pace::Urgent } else { Pace::Spare };
        let shard = &self.shards[now.shard];
        let going = shard.step(l, &mut now, self.horizon(), &self.stats.moves);
        if !matches!(going, Step::Over { .. }) {
            mover.now = Some(now);
            return if matches!(going, Step::Going) { pace } else { Pace::Rest };
        }
        mover.remember(&now, matches!(going, Step::Over { moved: true }), self.clock.now());
        self.heed_operator(&mover);
        self.stats.moves.running.store(false, Relaxed);
        pace
    }

    /// Whether an operator's move is less than a window old: until then the policy lets it stand,
    /// and so do classes that are short.
    fn heed_operator(&self, mover: &Mover) -> bool {
        let asked = mover.asked_lately(self.clock.now(), self.window());
        let favoured = asked.map_or(0, |made| made.to);
        self.shards.iter().for_each(|shard| shard.vacant.favoured.store(favoured, Relaxed));
        asked.is_some()
    }

    /// Asks the limit, then the policy where it may decide, whether a page should move.
    fn next_move(&self, policies: &mut Vec<Automove>, freely: bool) -> Option<Move> {
        policies.resize_with(self.shards.len(), Automove::default);
        let evicted: Vec<u64> = self.stats.raw_evictions();
        let levels = self.stats.levels();
        self.shards.iter().zip(policies).enumerate().find_map(|(n, (shard, policy))| {
            let samples = shard.samples(&evicted);
            shard.charge_queues(&samples);
            shard.fit_duel(&samples, &levels);
            policy.observe(&samples, self.clock.now());
            let class = |n: usize| ClassId(n as u16 + 1);
            for (class, share) in policy.shares() {
                shard.slabs.lock(ClassId(class as u16 + 1)).probation = share;
            }
            let poorest = policy.poorest(None);
            shard.poorest.store(poorest.map_or(0, |n| u32::from(class(n).0)), Relaxed);
            let Decision { from, to, why } = self.decide(shard, policy, freely)?;
            let least = if why == Why::OverLimit { shard.pages_to_give() } else { 2 };
            let page = shard.page_to_move(class(from), false, least as usize)?;
            self.stats.moves.running.store(true, Relaxed);
            Some(Move::of(n, page, class(from), to.map(class), Some(why)))
        })
    }

    fn decide(&self, shard: &Shard, policy: &mut Automove, freely: bool) -> Option<Decision> {
        if shard.slabs.over_limit() > 0 {
            // Where nothing is evicted, what is in use can only move together.
            let from = match shard.rules.evict {
                true => policy.fullest(shard.pages_to_give())?,
                false => policy.freest(shard.pages_to_give())?,
            };
            return Some(Decision { from, to: None, why: Why::OverLimit });
        }
        let mode = self.knobs.automove.load(Relaxed);
        if mode == 0 || !freely || !self.settings.slab_reassign {
            return None;
        }
        let terms = Terms {
            ratio: self.knobs.automove_ratio.get(),
            window: self.window(),
            eager: mode == 2,
        };
        let available = shard.slabs.available_pages();
        let memory = match available.saturating_sub(shard.slabs.free_pages()) {
            0 if available == 0 => Memory::Full,
            0 => Memory::Touched,
            _ => Memory::Fresh,
        };
        let (gets, sets) = self.stats.requests();
        policy.decide(Load { gets, sets }, memory, self.clock.now(), terms)
    }

    /// Seconds, as `slab_automove_window` says.
    fn window(&self) -> Seconds {
        self.knobs.automove_window.load(Relaxed)
    }

    /// The last moves, oldest first.
    pub fn moves(&self) -> Vec<Moved> {
        self.mover.lock().history.iter().copied().collect()
    }

    /// What the policy last saw of each class, by shard.
    pub(super) fn worths(&self) -> Vec<Vec<Worth>> {
        self.mover.lock().policies.iter().map(|policy| policy.worths().collect()).collect()
    }
}

impl Mover {
    /// An operator's move that is less than a window old.
    fn asked_lately(&self, now: Seconds, window: Seconds) -> Option<&Moved> {
        let asked = self.history.iter().rev().find(|made| made.why.is_none());
        asked.filter(|made| now.saturating_sub(made.at) < window)
    }

    fn remember(&mut self, made: &Move, done: bool, at: Seconds) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(Moved {
            at,
            from: u32::from(made.way.class.0),
            to: made.to.map_or(0, |class| u32::from(class.0)),
            why: made.why,
            rescues: made.rescues,
            done,
        });
    }
}

impl Move {
    fn of(
        shard: usize,
        page: PageNo,
        from: ClassId,
        to: Option<ClassId>,
        why: Option<Why>,
    ) -> Move {
        Move {
            shard,
            way: Evacuation::of(page, from, why.is_some()),
            to,
            why,
            next: 0,
            busy: 0,
            status: BusyStatus::None,
            rounds: 0,
            rescues: 0,
        }
    }

    /// Counts what became of a chunk.
    fn note(&mut self, became: Evacuated, stats: &MoveStats) {
        let status = match became {
            Evacuated::Free => return,
            Evacuated::Rescued => {
                self.rescues += 1;
                stats.rescues.fetch_add(1, Relaxed);
                return;
            }
            Evacuated::ChunkRescued => {
                self.rescues += 1;
                stats.chunk_rescues.fetch_add(1, Relaxed);
                return;
            }
            Evacuated::Locked => BusyStatus::Locked,
            Evacuated::Uploading => BusyStatus::BusyUploading,
            Evacuated::Floating => BusyStatus::BusyFloating,
            Evacuated::NoMemory => BusyStatus::Busy,
        };
        self.busy += 1;
        self.status = status;
    }

    fn is_overdue(&self) -> bool {
        self.rounds >= if self.why.is_none() { ROUNDS_BY_HAND_MAX } else { ROUNDS_MAX }
    }

    /// True where somebody waits for it.
    fn is_urgent(&self) -> bool {
        matches!(self.why, None | Some(Why::OverLimit))
    }
}

impl Shard {
    /// Pages of a class from which on a limit that was lowered may take one: its last, too, but not
    /// where each class has one whatever the limit, as in memcached.
    fn pages_to_give(&self) -> u64 {
        if self.rules.pages_alone { 2 } else { 1 }
    }

    /// Charges what probation takes where it has grown beyond the share that comes with each page.
    fn charge_queues(&self, samples: &[Sample]) {
        let rule = self.rule();
        if self.rules.pages_alone || rule.eviction != Eviction::S3 {
            return;
        }
        let beyond = |s: &Sample| {
            let share = u64::from(s.probation.saturating_sub(rule.probation));
            s.pages * s.chunks_per_page * share * PLACE_BYTES / 1000
        };
        let bytes: u64 = samples.iter().map(beyond).sum();
        let was = self.queue_bytes.swap(bytes, Relaxed);
        self.slabs.recharge(was, bytes);
    }

    /// Says to the duel of policies what it is about: how many items each class can hold, those of
    /// all shards being `levels`.
    fn fit_duel(&self, samples: &[Sample], levels: &[(u64, u64)]) {
        if self.rule().eviction != Eviction::S3 || !self.rules.evict {
            return self.duel.end();
        }
        let geometry = self.slabs.geometry();
        let total: u64 = levels.iter().map(|(items, _)| items).sum();
        let here = self.items.load(Relaxed);
        let capacities: Vec<Capacity> = geometry
            .classes()
            .zip(samples)
            .map(|(class, sample)| {
                let chunks = sample.pages * sample.chunks_per_page;
                let used = chunks.saturating_sub(sample.free_chunks).max(1);
                let items = levels[class.index()].0 * here / total.max(1);
                let items = (items * chunks / used).min(chunks);
                Capacity { items, probation: sample.probation }
            })
            .collect();
        let pages: u64 = samples.iter().map(|sample| sample.pages).sum();
        let left = self.slabs.available_pages();
        self.duel.fit(&capacities, here * (pages + left) / pages.max(1), left == 0);
    }

    /// Every class as the policy wants to see it; `evicted` by class id, over all shards.
    fn samples(&self, evicted: &[u64]) -> Vec<Sample> {
        let geometry = self.slabs.geometry();
        let sample = |class: ClassId| {
            let guard = self.slabs.lock(class);
            let (pages, free_chunks) = (guard.pages().len() as u64, guard.free_chunks());
            let (chunks, probation) = (guard.total_chunks(), guard.probation);
            let whole = guard.whole;
            drop(guard);
            self.ghost.note_chunks(class, chunks);
            let probation = if probation == 0 { self.rule().probation } else { probation };
            let gains = [Part::Probation, Part::Main].map(|part| self.ghost.gains(class, part));
            let chunks_per_page = u64::from(geometry.chunks_per_page(class));
            let evicted = evicted[class.index()];
            Sample { pages, free_chunks, chunks_per_page, gains, probation, whole, evicted }
        };
        geometry.classes().map(sample).collect()
    }

    /// The page of a class that is least work to empty, if it can be one where nothing is in the
    /// way, or with `first` the one that it has had longest, as memcached would; already draining.
    /// `None` where it has less than `least` that are not on their way to somebody else.
    fn page_to_move(&self, class: ClassId, first: bool, least: usize) -> Option<PageNo> {
        let has = |guard: &Class<'_>| {
            let pages = guard.pages().iter();
            pages.filter(|page| !guard.is_draining(**page)).take(least).count() == least
        };
        let guard = self.slabs.lock(class);
        if !has(&guard) {
            return None;
        }
        let longest = || guard.pages().iter().copied().take(LOOK_MAX).collect();
        let pages: Vec<PageNo> = if first { longest() } else { emptiest_first(&guard) };
        drop(guard);
        let chunks = 0..self.slabs.geometry().chunks_per_page(class);
        let stays = Shape::PINNED | Shape::TEMP;
        let is_free = |page: &&PageNo| self.can_be_emptied(**page, class, chunks.clone(), stays);
        let freely = pages.iter().take(PAGES_LOOKED_MAX).find(|page| !first && is_free(page));
        let mut pages = freely.into_iter().chain(&pages).copied();
        pages.find(|page| {
            let mut guard = self.slabs.lock(class);
            has(&guard) && guard.start_drain(*page)
        })
    }

    /// Looks at some more chunks of the page.
    fn step(&self, l: &Local, m: &mut Move, horizon: Horizon, stats: &MoveStats) -> Step {
        let (page, class) = (m.way.page, m.way.class);
        let per_page = self.slabs.geometry().chunks_per_page(class);
        let until = per_page.min(m.next + CHUNKS_PER_STEP);
        while m.next < until {
            let chunk = self.slabs.chunk_at(page, class, m.next);
            let mut became = self.evacuate(l, &mut m.way, chunk, horizon);
            if became == Evacuated::NoMemory {
                stats.busy_nomem.fetch_add(1, Relaxed);
                if self.prepare(l, &mut m.way, horizon) {
                    became = self.evacuate(l, &mut m.way, chunk, horizon);
                } else if m.why == Some(Why::OverLimit) && self.drop_arrival_of(chunk) {
                    became = Evacuated::Free;
                }
            }
            if became == Evacuated::Floating && m.is_overdue() && m.why.is_none() {
                stats
                    .busy_deletes
                    .fetch_add(u64::from(self.drop_pinned(l, chunk, horizon)), Relaxed);
            }
            m.note(became, stats);
            m.next += 1;
            if l.tick.is_over() {
                break;
            }
        }
        if m.next < per_page { Step::Going } else { self.end_round(m, stats) }
    }

    /// The page was gone through: it is empty, or has to be gone through again.
    fn end_round(&self, m: &mut Move, stats: &MoveStats) -> Step {
        if m.busy > 0 {
            stats.busy_items.fetch_add(u64::from(m.busy), Relaxed);
            stats.note_busy(m.status);
            (m.busy, m.next) = (0, 0);
            m.rounds += 1;
            // An operator's waits for ever, but not while more than -m is in use.
            let given_up = m.why.is_some() || self.slabs.over_limit() > 0;
            if !(m.is_overdue() && given_up) {
                return Step::Resting;
            }
        }
        self.end_evacuation(&mut m.way);
        let moved = self.end_drain(m.way.page, m.way.class, m.to);
        stats.slabs_moved.fetch_add(u64::from(moved), Relaxed);
        Step::Over { moved }
    }
}
