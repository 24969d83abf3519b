//! Pages whose memory is brought before anybody takes them. A huge page is cleared as a whole, and
//! whoever touches it first waits for that: as long as some hundred requests, and much longer on a
//! virtual machine whose host has to find the memory in turn.
//!
//! As long as the limit lets more pages be taken, the next [`BYTES`] of them have their memory.
//! What comes in small pages comes by itself, fast enough.

use crate::ClassId;
use crate::page::PageNo;
use crate::slabs::Slabs;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Bytes of pages that have their memory before they are taken.
const BYTES: u32 = 2 << 20;

pub(crate) struct Ahead {
    /// [`BYTES`] in pages; 0 where nothing is brought ahead.
    pages: AtomicU32,
    /// Pages that lie in huge ones, from the first on.
    huge: u32,
    /// Pages from here on have not been asked for.
    next: AtomicU32,
    /// Pages up to here are to have their memory.
    end: AtomicU32,
}

impl Ahead {
    /// For an arena of which so many pages, from the first on, lie in huge ones.
    pub(crate) fn new(huge: u32, page_size: u32) -> Ahead {
        let pages = if huge > 0 { (BYTES / page_size).max(1) } else { 0 };
        let [next, end] = [0, 0].map(AtomicU32::new);
        Ahead { pages: AtomicU32::new(pages), huge, next, end }
    }

    fn lacking(&self) -> Option<PageNo> {
        let (page, end) = (self.next.load(Relaxed), self.end.load(Relaxed));
        (page < end).then_some(PageNo(page))
    }
}

impl<P> Slabs<P> {
    /// Notes which pages are to have their memory by now; true where [`Slabs::populate`] has
    /// something to do.
    pub fn look_ahead(&self) -> bool {
        let pages = self.ahead.pages.load(Relaxed);
        if pages == 0 || self.grain.is_small() {
            return false;
        }
        let (untouched, fresh) = self.pool.untouched();
        self.ahead.next.fetch_max(untouched, Relaxed);
        let end = (untouched + fresh.min(pages)).min(self.ahead.huge);
        self.ahead.end.store(end, Relaxed);
        self.ahead.lacking().is_some()
    }

    /// Brings the memory of one page more, if there is one that was noted. One thread alone may
    /// call it. No lock is taken: others would wait for one that has no haste.
    pub fn populate(&self) -> bool {
        let Some(page) = self.ahead.lacking() else { return false };
        match self.pool.touch.run(page, || self.arena.populate(self.words_of(page))) {
            None | Some(Ok(())) => _ = self.ahead.next.fetch_max(page.0 + 1, Relaxed),
            // It will not do so for the next one either.
            Some(Err(_)) => {
                self.ahead.pages.store(0, Relaxed);
                self.ahead.end.store(0, Relaxed);
            }
        }
        true
    }
}

impl<P> Slabs<P> {
    /// Bytes of pages that were ever taken.
    pub fn bytes_touched(&self) -> u64 {
        u64::from(self.pages_touched()) * u64::from(self.geometry().page_size())
    }

    /// Has the memory of pages that are taken from now on come in small pages of the system's, or
    /// in huge ones again.
    pub fn come_small(&self, small: bool) {
        let touched = || self.words_of(PageNo(self.pages_touched())).start;
        self.grain.come_small(small, &self.arena, touched);
    }

    /// Notes what came in small pages and is all in use, a huge page of it; true where there is
    /// some that was not noted before.
    pub fn note_small(&self) -> bool {
        // The last page that was taken may not be anybody's yet.
        let touched = self.words_of(PageNo(self.pages_touched().saturating_sub(1))).start;
        self.grain.note_due(touched, |words| self.are_owned(words))
    }

    /// Makes a huge page of what was noted, if it still is in use: the memory of a page that was
    /// given back would be brought again. False where nothing is. One thread alone may call it, and
    /// takes no lock.
    pub fn gather(&self) -> bool {
        self.grain.gather(&self.arena, |words| self.are_owned(words))
    }

    /// True where classes own all the pages that these words are of.
    pub(crate) fn are_owned(&self, words: Range<usize>) -> bool {
        let page_words = self.words_of(PageNo(0)).len();
        let mut pages = words.start / page_words..words.end.div_ceil(page_words);
        pages.all(|page| self.owner_of(PageNo(page as u32)) != ClassId(0))
    }
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::*;
    use crate::{Geometry, Options};

    const PAGE: u32 = 64 << 10;

    /// An arena of so many pages within the limit, and of as many more beyond it.
    fn slabs(pages: u32, huge_pages: u32) -> Slabs<()> {
        let geometry = Geometry::compact(PAGE, 1.12, 24).expect("a ladder");
        let options = Options {
            limit: u64::from(pages * PAGE),
            ceiling: 2 * pages,
            chunk_overhead_64ths: 0,
            first_page_beyond_limit: false,
            reserve: false,
            huge_pages,
        };
        Slabs::new(geometry, options).expect("address space")
    }

    fn populate(slabs: &Slabs<()>) -> usize {
        slabs.look_ahead();
        std::iter::from_fn(|| slabs.populate().then_some(())).count()
    }

    #[test]
    fn memory_is_a_huge_page_ahead_of_what_is_taken() {
        let slabs = slabs(100, 200);
        assert!(!slabs.populate() && slabs.look_ahead());
        assert_eq!((populate(&slabs), populate(&slabs)), (32, 0));
        let mut class = slabs.lock(ClassId(1));
        assert!((0..10).all(|_| class.grow()));
        let page = class.pages()[9];
        drop(class);
        assert_eq!(populate(&slabs), 10);
        // Those that are given back are taken first, and count.
        let mut class = slabs.lock(ClassId(1));
        assert!(class.start_drain(page) && class.finish_drain(page));
        drop(class);
        assert_eq!(populate(&slabs), 0);
    }

    #[test]
    fn no_memory_is_brought_beyond_the_limit() {
        let slabs = slabs(100, 200);
        let mut taken = 0;
        while slabs.lock(ClassId(1)).grow() {
            taken += 1;
            populate(&slabs);
        }
        assert_eq!((taken, slabs.ahead.next.load(Relaxed)), (100, 100));
        slabs.set_limit(u64::from(110 * PAGE));
        assert_eq!(populate(&slabs), 10);
    }

    #[test]
    fn a_page_that_is_being_touched_has_its_turn_later() {
        let slabs = slabs(100, 200);
        let grow = || {
            let mut class = slabs.lock(ClassId(1));
            assert!(class.grow());
            class.pages().last().copied()
        };
        let touch = &slabs.pool.touch;
        let first = touch.run(PageNo(0), || [grow(), grow()]);
        assert_eq!(first, Some([Some(PageNo(1)), Some(PageNo(2))]));
        assert_eq!(slabs.pages_touched(), 3, "page 2 is one of them");
        // The thread that touches has moved on.
        let second = touch.run(PageNo(3), || [grow(), grow()]);
        assert_eq!(second, Some([Some(PageNo(0)), Some(PageNo(4))]));
        assert_eq!(slabs.pages_touched(), 5, "page 3 was passed over");
        assert_eq!((grow(), grow()), (Some(PageNo(3)), Some(PageNo(5))));
        assert_eq!(touch.run(PageNo(5), || ()), None);
        slabs.validate().expect("a valid arena");
    }

    #[test]
    fn small_pages_come_by_themselves() {
        let none = slabs(100, 0);
        assert!(!none.look_ahead() && !none.populate());
        let some = slabs(100, 10);
        assert_eq!(populate(&some), 10);
    }
}
