//! Memory that nothing alive uses, for a class that is short of it, before anything is evicted:
//! what has expired or was flushed is freed, and another class gives a page that it can spare.
//!
//! A class can spare what its free chunks come to in whole pages, less what it took again of late.
//! An empty page goes at once. Else the items of the page that has the fewest are moved to free
//! chunks of their class, a bounded number of them in one request; the next one that is short goes
//! on with it, or the background work does. No allocation waits for another that moves items.
//!
//! Lock order: line, then [`Vacant`], then class. The lines of the items that are moved are only
//! tried: the caller may hold one.

use super::Store;
use super::evacuate::{Evacuated, Evacuation};
use super::evict::Class;
use super::flush::Horizon;
use super::shard::Shard;
use super::types::Local;
use super::upkeep::Pace;
use crate::clock::Seconds;
use crate::item::Shape;
use parking_lot::Mutex;
use slab::{ChunkRef, ClassId};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Steps that one allocation does before it evicts, and where nothing may be evicted.
const STEPS: usize = 6;
const STEPS_M: usize = 4096;
/// Items that one step moves: some fifty microseconds of work.
const MOVED_PER_STEP: u32 = 128;
/// Pages of a class that are looked at for one that is least work, and those of them that are
/// looked through for what is in the way.
const PAGES_LOOKED_MAX: usize = 32;
const PAGES_TRIED_MAX: usize = 4;
/// Tries of one chunk, after which its page is left alone.
const TRIES_MAX: u32 = 16;
/// A class keeps free what it takes in a second, up to one in so many of its pages, or so many.
const KEPT_SHARE: u64 = 32;
const KEPT_PAGES: u64 = 2;

#[derive(Default)]
pub(super) struct Vacant {
    /// A second, and so many spare pages of which none could be had in it.
    refused: AtomicU64,
    /// The flush and the second as of which nothing dead is left.
    clean: AtomicU64,
    /// A page waits for somebody to go on clearing it.
    is_parked: AtomicBool,
    /// The class that an operator gave a page to of late, and that keeps it therefore; 0: none.
    pub favoured: AtomicU32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of each class.
    demands: Vec<Demand>,
    /// Pages that nobody is clearing just now.
    parked: Vec<Clearing>,
}

/// What a class takes of its own free chunks, as far as anybody has asked.
#[derive(Clone, Copy, Default)]
struct Demand {
    asked: Seconds,
    /// Chunks that were ever taken, when that second began.
    taken: u64,
    /// Chunks a second before that.
    before: u64,
}

/// A draining page whose items are being moved.
struct Clearing {
    way: Evacuation,
    /// Its chunk that is next, and how often that could not be emptied.
    next: u32,
    tries: u32,
}

impl Demand {
    /// Chunks that the class takes in a second.
    fn ask(&mut self, taken: u64, now: Seconds) -> u64 {
        let lately = taken.wrapping_sub(self.taken);
        if now == self.asked {
            return self.before.max(lately);
        }
        let seconds = u64::from(now.saturating_sub(self.asked).max(1));
        *self = Demand { asked: now, taken, before: lately / seconds };
        self.before
    }
}

impl Vacant {
    /// True where nobody has found yet, in this second, that so many spare pages are all in use.
    fn is_open(&self, spare: u64, now: Seconds) -> bool {
        let refused = self.refused.load(Relaxed);
        let at_once = if refused >> 32 == u64::from(now) { refused & 0xFFFF_FFFF } else { 0 };
        spare > at_once
    }

    fn refuse(&self, spare: u64, now: Seconds) {
        self.refused.store(u64::from(now) << 32 | spare.min(0xFFFF_FFFF), Relaxed);
    }

    fn park(&self, state: &mut State, clearing: Clearing) {
        state.parked.push(clearing);
        self.is_parked.store(true, Relaxed);
    }

    fn unpark(&self, state: &mut State) -> Option<Clearing> {
        let clearing = state.parked.pop();
        self.is_parked.store(!state.parked.is_empty(), Relaxed);
        clearing
    }

    fn is_clean(&self, horizon: Horizon) -> bool {
        self.clean.load(Relaxed) == clean_as_of(horizon)
    }

    /// Nothing that is dead by this horizon is left.
    pub fn note_clean(&self, horizon: Horizon) {
        self.clean.store(clean_as_of(horizon), Relaxed);
    }
}

fn clean_as_of(horizon: Horizon) -> u64 {
    u64::from(horizon.flush) << 32 | u64::from(horizon.now)
}

impl Store {
    /// Goes on with the page that a request began to clear.
    pub(super) fn clear_step(&self, l: &Local) -> Pace {
        self.step_shards(l, |shard| {
            if !shard.vacant.is_parked.load(Relaxed) {
                return Pace::Rest;
            }
            let parked = shard.vacant.unpark(&mut shard.vacant.state.lock());
            parked.map_or(Pace::Rest, |clearing| {
                shard.go_on_clearing(l, clearing, self.horizon());
                Pace::Soon
            })
        })
    }
}

impl Shard {
    /// A chunk of a class that is short, and that has no more pages to be had, out of memory that
    /// nothing alive uses; or the class again.
    pub fn take_vacant<'a>(
        &'a self,
        l: &Local,
        class: Class<'a>,
        horizon: Horizon,
    ) -> Result<ChunkRef, Class<'a>> {
        if !self.has_vacant(horizon) {
            return Err(class);
        }
        let id = class.class();
        drop(class);
        if let Some(chunk) = self.vacate_for(l, id, horizon) {
            return Ok(chunk);
        }
        let mut class = self.slabs.lock(id);
        // Others may have freed some meanwhile.
        self.take_from(&mut class, true).ok_or(class)
    }

    /// False where an allocation need not ask for what is vacant.
    #[inline]
    fn has_vacant(&self, horizon: Horizon) -> bool {
        let vacant = &self.vacant;
        self.rules.steal
            && (vacant.is_open(self.slabs.spare_pages(), horizon.now)
                || !vacant.is_clean(horizon)
                || vacant.is_parked.load(Relaxed))
    }

    fn vacate_for(&self, l: &Local, short: ClassId, horizon: Horizon) -> Option<ChunkRef> {
        let steps = if self.rules.evict { STEPS } else { STEPS_M };
        for _ in 0..steps {
            if !self.vacate(l, short, horizon) {
                return None;
            }
            if let Some(chunk) = self.take_free(short, true) {
                return Some(chunk);
            }
        }
        None
    }

    /// A bounded step towards a page for the pool; false where there is none to be had.
    fn vacate(&self, l: &Local, short: ClassId, horizon: Horizon) -> bool {
        self.give_empty(short, horizon)
            || (!self.vacant.is_clean(horizon) && self.help_reclaim(l, horizon))
            || self.clear_for(l, short, horizon)
    }

    /// Gives an empty page of a class but `short` to the pool.
    pub fn give_empty(&self, short: ClassId, horizon: Horizon) -> bool {
        if !self.vacant.is_open(self.slabs.spare_pages(), horizon.now) {
            return false;
        }
        let mut state = self.vacant.state.lock();
        let Some(donor) = self.donor(&mut state, short, horizon, true) else { return false };
        let mut class = self.slabs.lock(donor);
        let page = class.empty_page();
        let Some(page) = page.filter(|page| class.start_drain(*page)) else { return false };
        // One lock at a time.
        drop(class);
        self.end_drain(page, donor, None)
    }

    /// Goes on clearing a page, or begins with one of a class but `short`.
    fn clear_for(&self, l: &Local, short: ClassId, horizon: Horizon) -> bool {
        let Some(clearing) = self.next_clearing(short, horizon) else { return false };
        self.go_on_clearing(l, clearing, horizon);
        true
    }

    /// A page that waits to be cleared further, or another one of a class but `short`.
    fn next_clearing(&self, short: ClassId, horizon: Horizon) -> Option<Clearing> {
        let mut state = self.vacant.state.lock();
        if let Some(clearing) = self.vacant.unpark(&mut state) {
            return Some(clearing);
        }
        let spare = self.slabs.spare_pages();
        if !self.vacant.is_open(spare, horizon.now) {
            return None;
        }
        let donor = self.donor(&mut state, short, horizon, false);
        let begun = donor.and_then(|donor| self.begin_clearing(donor));
        if begun.is_none() {
            self.vacant.refuse(spare, horizon.now);
        }
        begun
    }

    /// The class that can spare most, of those but `short`, with an empty page if asked for one.
    fn donor(
        &self,
        state: &mut State,
        short: ClassId,
        horizon: Horizon,
        empty: bool,
    ) -> Option<ClassId> {
        let geometry = self.slabs.geometry();
        state.demands.resize(geometry.classes().count() + 1, Demand::default());
        let spared = |class: ClassId| {
            let guard = self.slabs.lock(class);
            let (free, taken) = (guard.free_chunks(), guard.chunks_taken());
            let per_page = u64::from(geometry.chunks_per_page(class));
            if free < per_page || empty && guard.empty_page().is_none() {
                return (0, class);
            }
            let pages = guard.pages().len() as u64;
            drop(guard);
            let demand = state.demands[class.index()].ask(taken, horizon.now);
            let kept = demand.min(self.kept_at_most(class, pages));
            (free.saturating_sub(kept) / per_page, class)
        };
        let favoured = self.vacant.favoured.load(Relaxed);
        let is_other = |class: &ClassId| *class != short && u32::from(class.0) != favoured;
        let others = geometry.classes().filter(is_other);
        let (pages, donor) = others.map(spared).max()?;
        (pages > 0).then_some(donor)
    }

    /// Free chunks that a class of so many pages keeps for what it may be about to store. Where
    /// nothing is evicted, what is stored first counts more.
    fn kept_at_most(&self, class: ClassId, pages: u64) -> u64 {
        if !self.rules.evict {
            return 0;
        }
        let geometry = self.slabs.geometry();
        let share =
            (pages / KEPT_SHARE).max(KEPT_PAGES) * u64::from(geometry.chunks_per_page(class));
        if class < geometry.largest() {
            return share;
        }
        // A value that is replaced has its next one's chunks taken first.
        share.max((self.rules.item_size_max / geometry.chunk_size(class)).into())
    }

    /// Begins with the page of a class that is least work and has nothing in the way.
    fn begin_clearing(&self, class: ClassId) -> Option<Clearing> {
        let pages = self.slabs.lock(class).emptiest_pages(PAGES_LOOKED_MAX);
        let chunks = 0..self.slabs.geometry().chunks_per_page(class);
        let mut pages = pages.into_iter().take(PAGES_TRIED_MAX);
        let page = pages.find(|page| {
            self.can_be_emptied(*page, class, chunks.clone(), Shape::PINNED)
                && self.slabs.lock(class).start_drain(*page)
        })?;
        Some(Clearing { way: Evacuation::of(page, class, false), next: 0, tries: 0 })
    }

    /// Moves some more items of a page, which is then the pool's or waits.
    fn go_on_clearing(&self, l: &Local, mut clearing: Clearing, horizon: Horizon) {
        let Evacuation { page, class, .. } = clearing.way;
        let last = self.slabs.geometry().chunks_per_page(class);
        let mut moved = 0;
        while clearing.next < last && moved < MOVED_PER_STEP && !l.tick.is_over() {
            let chunk = self.slabs.chunk_at(page, class, clearing.next);
            match self.evacuate(l, &mut clearing.way, chunk, horizon) {
                Evacuated::Free => {}
                Evacuated::Rescued | Evacuated::ChunkRescued => moved += 1,
                _ => {
                    clearing.tries += 1;
                    break;
                }
            }
            (clearing.next, clearing.tries) = (clearing.next + 1, 0);
        }
        if clearing.next < last && clearing.tries < TRIES_MAX {
            return self.vacant.park(&mut self.vacant.state.lock(), clearing);
        }
        self.end_evacuation(&mut clearing.way);
        self.end_drain(page, class, None);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;
    use crate::store::testing::Bench;

    fn full(settings: Settings, count: usize, len: usize) -> Bench {
        let b = Bench::new(Settings { maxbytes: 8 << 20, ..settings });
        b.fill_for("s", count, len, 100);
        assert!(b.shard().slabs.available_pages() < 8);
        b
    }

    /// Stores values of another size without a tick and says how many of them are there then.
    fn stored(b: &Bench, count: usize, len: usize) -> usize {
        let is_stored = |n: &usize| b.try_set(&format!("new{n:05}"), len, 0).is_ok();
        let stored = (0..count).filter(is_stored).count();
        b.validate();
        stored.min(b.present("new", count))
    }

    #[test]
    fn what_was_flushed_is_anothers_without_a_tick() {
        let b = full(Settings::default(), 45_000, 200);
        b.store.flush_all(&b.local, None);
        b.store.clock().advance(1);
        assert!(stored(&b, 1_200, 5_000) >= 1_190);
    }

    #[test]
    fn what_has_expired_is_anothers_without_a_tick() {
        let b = full(Settings::default(), 45_000, 200);
        b.store.clock().advance(100);
        assert!(stored(&b, 1_200, 5_000) >= 1_190);
    }

    #[test]
    fn what_was_deleted_is_anothers_without_a_tick() {
        for evict in [true, false] {
            let b = Bench::new(Settings { maxbytes: 8 << 20, evict, ..Settings::default() });
            let names = |n: usize| format!("s{n:05}");
            let has_room = |_: &usize| b.shard().slabs.available_pages() > 4;
            let count = (0..60_000).take_while(has_room).map(|n| b.set(&names(n), 200)).count();
            let gone = (0..count).filter(|n| n % 20 != 0);
            gone.for_each(|n| assert!(b.delete(&names(n))));
            b.store.clock().advance(1);
            assert_eq!(stored(&b, 1_000, 5_000), 1_000);
            assert_eq!(b.present("s", count), count.div_ceil(20), "none of them had to go");
        }
    }

    /// Where nothing may be evicted, half of each page is worth half the pages.
    #[test]
    fn free_chunks_here_and_there_are_anothers_at_once() {
        let b = Bench::new(Settings { maxbytes: 8 << 20, evict: false, ..Settings::default() });
        let names = |n: usize| format!("s{n:05}");
        let fits = (0..60_000).take_while(|n| b.try_set(&names(*n), 300, 0).is_ok()).count();
        assert!(fits > 15_000, "{fits}");
        (0..fits).filter(|n| n * 7919 % 2 == 0).for_each(|n| assert!(b.delete(&names(n))));
        let room = fits / 2 * 300 / 3_000 * 9 / 10;
        assert_eq!(stored(&b, room, 3_000), room);
        assert_eq!(b.present("s", fits), fits / 2);
    }

    #[test]
    fn a_class_keeps_what_it_takes_again() {
        let b = full(Settings::default(), 90, 100_000);
        let largest = b.shard().slabs.geometry().largest();
        b.set("other", 3_000);
        for n in 0..200 {
            b.store.clock().advance(1);
            b.set("s00089", 100_000 - n);
            b.set(&format!("new{n:05}"), 3_000);
        }
        assert!(b.pages(largest).len() > 100, "{} pages", b.pages(largest).len());
        b.validate();
    }

    #[test]
    fn where_nothing_is_to_be_had_nobody_looks_twice() {
        let b = full(Settings::default(), 45_000, 200);
        b.set("other", 3_000);
        let horizon = b.store.horizon();
        assert!(!b.shard().has_vacant(horizon), "as of this second");
        b.store.clock().advance(1);
        assert!(b.shard().has_vacant(b.store.horizon()), "something may have expired");
    }
}
