//! A page of another class for one that is short, or for the index: an empty one before anything is
//! evicted, and one whose items go where the class has none of its own to evict. Unlike the mover,
//! which finds them another place, a request does it at once; the index has it done in steps.

use super::evict;
use super::flush::Horizon;
use super::shard::Shard;
use super::types::Local;
use crate::item::{self, Shape, State};
use slab::{ChunkRef, ClassId, PageNo};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::mem::take;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// A class that has one page for so many of another's has few.
const FEW_SHARE: usize = 8;
/// Pages of other classes that one allocation empties in vain.
const STEALS_MAX: usize = 4;
/// Classes whose pages it looks at.
const DONORS_MAX: usize = 4;
/// Tries of one chunk, after which its page is left alone.
const TRIES_MAX: u32 = 16;
/// Chunks that one step looks at, and whose items it drops: some twenty microseconds of work.
const LOOKED_PER_STEP: u32 = 2048;
const DROPPED_PER_STEP: u32 = 128;
/// A page of small chunks takes more of the limit, for their places in a queue, than one of large
/// chunks gave back: then it takes a second one.
pub(super) const PAGES_FOR_ONE: usize = 2;

/// The pages that may be emptied, the best first, and how far the work on that one has come.
#[derive(Default)]
pub(super) struct Steal {
    pages: VecDeque<(ClassId, PageNo)>,
    stage: Stage,
    /// Its chunk that is next.
    next: u32,
    dropped: bool,
    /// How often that chunk could not be emptied.
    tries: u32,
    /// Pages of which something was dropped in vain.
    in_vain: usize,
    /// TEMP items go as well.
    temp: bool,
}

/// From [`Stage::Look`] on the page is draining: but for the chunk of a victim that is there, it
/// takes nothing new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Begin,
    Look,
    Drop,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stolen {
    NotYet,
    /// The pool has one more.
    Page,
    /// None can be emptied.
    Nothing,
}

impl Steal {
    fn turn_to_next(&mut self) {
        self.pages.pop_front();
        self.in_vain += usize::from(self.dropped);
        if self.in_vain == STEALS_MAX {
            self.pages.clear();
        }
        let Steal { in_vain, temp, .. } = *self;
        *self = Steal { pages: take(&mut self.pages), in_vain, temp, ..Steal::default() };
    }
}

impl Shard {
    /// Empties a page of one of the classes that have the most, for `class`; false where none can
    /// be emptied. One with TEMP items is emptied where there is no other but in classes that have
    /// few.
    pub fn steal_page(&self, l: &Local, class: ClassId, horizon: Horizon) -> bool {
        [false, true].into_iter().any(|temp| self.steal_one(l, class, horizon, temp))
    }

    /// The same, with the classes that have few and TEMP items only if so said.
    pub fn steal_one(&self, l: &Local, class: ClassId, horizon: Horizon, temp: bool) -> bool {
        let pages_of = |class| self.slabs.lock(class).pages().len();
        let mut steal = Steal { temp, ..self.plan_steal(class) };
        if !temp {
            let most = steal.pages.front().map_or(0, |(class, _)| pages_of(*class));
            steal.pages.retain(|(class, _)| pages_of(*class) * FEW_SHARE >= most);
        }
        self.steal_planned(l, steal, horizon)
    }

    /// The same, of one class.
    pub fn steal_from(&self, l: &Local, class: ClassId, giver: ClassId, horizon: Horizon) -> bool {
        let mut steal = self.plan_steal(class);
        steal.pages.retain(|(of, _)| *of == giver);
        self.steal_planned(l, steal, horizon)
    }

    /// Empties a page of those that are planned.
    fn steal_planned(&self, l: &Local, mut steal: Steal, horizon: Horizon) -> bool {
        loop {
            match self.steal_step(l, &mut steal, horizon) {
                Stolen::NotYet => {}
                stolen => return stolen == Stolen::Page,
            }
        }
    }

    /// What may be emptied for `class`, or for the index where that is 0.
    pub fn plan_steal(&self, class: ClassId) -> Steal {
        let pages_of = |c: ClassId| self.slabs.lock(c).pages().len();
        let others = self.slabs.geometry().classes().filter(|c| *c != class);
        let mut donors: Vec<(usize, ClassId)> = others.map(|c| (pages_of(c), c)).collect();
        let poorest = self.poorest.load(Relaxed);
        donors.sort_unstable_by_key(|(pages, donor)| {
            (Reverse(u32::from(donor.0) == poorest && *pages > 1), Reverse(*pages))
        });
        let mut steal = Steal::default();
        for (_, donor) in donors.into_iter().take(DONORS_MAX) {
            let pages = emptiest_first(&self.slabs.lock(donor));
            steal.pages.extend(pages.into_iter().map(|page| (donor, page)));
        }
        steal
    }

    /// A bounded part of the work.
    pub fn steal_step(&self, l: &Local, steal: &mut Steal, horizon: Horizon) -> Stolen {
        let Some(&(class, page)) = steal.pages.front() else { return Stolen::Nothing };
        let is_over = match steal.stage {
            Stage::Begin => {
                if self.slabs.lock(class).start_drain(page) {
                    steal.stage = Stage::Look;
                } else {
                    // It is another's by now, or on its way to be.
                    steal.turn_to_next();
                }
                return Stolen::NotYet;
            }
            Stage::Look => !self.can_go_on(steal, page, class),
            Stage::Drop => self.drop_items(l, steal, page, class, horizon),
        };
        if !is_over {
            return Stolen::NotYet;
        }
        let emptied = self.end_drain(page, class, None);
        steal.turn_to_next();
        if emptied { Stolen::Page } else { Stolen::NotYet }
    }

    /// Leaves it at what was done.
    pub fn abandon(&self, steal: Steal) {
        if let (Some((class, page)), true) = (steal.pages.front(), steal.stage != Stage::Begin) {
            self.end_drain(*page, *class, None);
        }
    }

    /// Looks at some more chunks; false where one cannot be emptied.
    fn can_go_on(&self, steal: &mut Steal, page: PageNo, class: ClassId) -> bool {
        let last = self.slabs.geometry().chunks_per_page(class);
        let end = last.min(steal.next + LOOKED_PER_STEP);
        let stays = Shape::PINNED | if steal.temp { 0 } else { Shape::TEMP };
        let can = self.can_be_emptied(page, class, steal.next..end, stays);
        steal.next = end;
        if end == last {
            (steal.stage, steal.next) = (Stage::Drop, 0);
        }
        can
    }

    /// Evicts the items of some more chunks; true where nothing is left to be done on the page.
    /// What cannot go now, as while somebody is at its line, is tried again next time; but what the
    /// caller's own is to replace never goes.
    fn drop_items(
        &self,
        l: &Local,
        steal: &mut Steal,
        page: PageNo,
        class: ClassId,
        horizon: Horizon,
    ) -> bool {
        let last = self.slabs.geometry().chunks_per_page(class);
        for index in steal.next..last.min(steal.next + DROPPED_PER_STEP) {
            let chunk = self.slabs.chunk_at(page, class, index);
            if !self.empty(l, chunk, class, horizon, &mut steal.dropped) {
                steal.tries += 1;
                return steal.tries == TRIES_MAX;
            }
            (steal.next, steal.tries) = (index + 1, 0);
            if l.tick.is_over() {
                break;
            }
        }
        steal.next == last
    }

    /// Evicts what a chunk holds; false where that cannot go now.
    fn empty(
        &self,
        l: &Local,
        chunk: ChunkRef,
        class: ClassId,
        horizon: Horizon,
        dropped: &mut bool,
    ) -> bool {
        let Some(owner) = self.owner_of(chunk) else {
            return self.item(chunk).standing().state() == State::Free;
        };
        let part = evict::part_of(self.item(owner).shape());
        if !self.unlink_victim(l, owner, horizon, (class, part)) {
            return false;
        }
        self.free(owner);
        *dropped = true;
        true
    }

    /// True where nothing in these chunks of a page has one of the bits `stays` or is a value on
    /// its way, as the caller's own may be: as of now, and without locking anything.
    pub fn can_be_emptied(
        &self,
        page: PageNo,
        class: ClassId,
        mut chunks: Range<u32>,
        stays: u32,
    ) -> bool {
        chunks.all(|index| {
            let chunk = self.slabs.chunk_at(page, class, index);
            match self.owner_of(chunk).map(|owner| self.item(owner)) {
                Some(item) => item.standing().state() == State::Linked && !item.shape().has(stays),
                None => self.item(chunk).standing().state() == State::Free,
            }
        })
    }

    /// The item that a chunk is part of, looked up without any care.
    pub fn owner_of(&self, chunk: ChunkRef) -> Option<ChunkRef> {
        let standing = self.item(chunk).standing();
        if standing.is_body() {
            item::body_head(&self.slabs, chunk)
        } else {
            (standing.state() == State::Linked).then_some(chunk)
        }
    }
}

/// Some pages of the class, those with the fewest chunks in use first.
pub(super) fn emptiest_first(class: &evict::Class<'_>) -> Vec<PageNo> {
    let mut pages: Vec<PageNo> = class.pages().iter().take(evict::LOOK_MAX).copied().collect();
    pages.sort_by_key(|page| class.used_on(*page));
    pages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::store::testing::Bench;

    const SMALL: usize = 3_000;
    const LARGE: usize = 100_000;

    /// A small item and large ones that came and went, in 8 MiB.
    fn emptied(settings: Settings) -> Bench {
        let b = Bench::new(Settings { maxbytes: 8 << 20, ..settings });
        b.set("before", SMALL);
        b.fill("large", 70, LARGE);
        assert_eq!(b.present("large", 70), 70);
        (0..70).for_each(|n| assert!(b.delete(&format!("large{n:05}"))));
        // The mover sees it in two seconds; nothing is due to be given back yet.
        for _ in 0..2 {
            b.tick();
            b.store.clock().advance(1);
        }
        b.tick();
        assert!(b.shard().slabs.available_pages() < 60);
        b
    }

    #[test]
    fn pages_without_items_are_used_before_anything_is_evicted() {
        for evict in [true, false] {
            let b = emptied(Settings { evict, ..Settings::default() });
            // No tick from here on.
            (0..2_000).for_each(|n| b.set(&format!("small{n:05}"), SMALL));
            assert_eq!(b.present("small", 2_000), 2_000);
            assert!(b.get("before"));
            b.store.validate().expect("a valid store");
        }
    }

    /// A full cache of small items, and what may be stolen from it.
    fn full() -> (Bench, Steal) {
        let b = Bench::new(Settings { maxbytes: 4 << 20, ..Settings::default() });
        b.fill("k", 60_000, 10);
        b.settle();
        let steal = b.shard().plan_steal(ClassId(0));
        assert!(steal.pages.len() > 1);
        (b, steal)
    }

    fn step(b: &Bench, steal: &mut Steal) -> Stolen {
        b.shard().steal_step(&b.local, steal, b.store.horizon())
    }

    #[test]
    fn a_page_is_stolen_in_bounded_steps() {
        let (b, mut steal) = full();
        let (items, pages) = (|| b.shard().items.load(Relaxed), b.shard().slabs.free_pages());
        let mut steps = 1;
        loop {
            let before = items();
            let stolen = step(&b, &mut steal);
            assert!(before - items() <= u64::from(DROPPED_PER_STEP));
            b.validate();
            if stolen == Stolen::Page {
                break;
            }
            assert_eq!(stolen, Stolen::NotYet);
            steps += 1;
        }
        assert!(steps > 10, "{steps} steps");
        assert_eq!(b.shard().slabs.free_pages(), pages + 1);
    }

    #[test]
    fn what_is_abandoned_is_in_service_again() {
        let (b, mut steal) = full();
        let free = || b.store.class_info().iter().map(|c| c.free_chunks).sum::<u64>();
        let before = (b.shard().items.load(Relaxed), free());
        while !steal.dropped {
            assert_eq!(step(&b, &mut steal), Stolen::NotYet);
        }
        b.shard().abandon(steal);
        let after = (b.shard().items.load(Relaxed), free());
        assert!(after.0 < before.0);
        assert_eq!(after.0 + after.1, before.0 + before.1);
        b.validate();
    }

    #[test]
    fn a_page_that_is_on_its_way_already_is_left_alone() {
        let (b, mut steal) = full();
        let (class, page) = steal.pages[0];
        assert!(b.shard().slabs.lock(class).start_drain(page));
        assert_eq!(step(&b, &mut steal), Stolen::NotYet);
        assert_ne!(steal.pages[0], (class, page));
        assert!(!b.shard().slabs.lock(class).start_drain(page), "it is draining");
        assert!(!b.shard().end_drain(page, class, None));
        b.validate();
    }

    #[test]
    fn with_nothing_to_be_stolen_it_says_so() {
        let b = Bench::new(Settings::default());
        assert_eq!(step(&b, &mut b.shard().plan_steal(ClassId(0))), Stolen::Nothing);
    }
}
