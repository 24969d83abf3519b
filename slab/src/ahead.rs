//! Pages whose memory is brought before anybody takes them. A huge page is cleared as a whole, and
//! whoever touches it first waits for that: as long as some hundred requests, and much longer on a
//! virtual machine whose host has to find the memory in turn.
//!
//! As long as the limit lets more pages be taken, the next [`BYTES`] of them have their memory.
//! What comes in small pages comes by itself, fast enough.

use crate::page::PageNo;
use crate::slabs::Slabs;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Bytes of pages that have their memory before they are taken.
const BYTES: u32 = 2 << 20;

pub(crate) struct Ahead {
    /// [`BYTES`] in pages; 0 where nothing is brought ahead.
    pages: AtomicU32,
    /// Pages from here on have not been asked for.
    next: AtomicU32,
}

impl Ahead {
    pub(crate) fn new(on: bool, page_size: u32) -> Ahead {
        let pages = if on { (BYTES / page_size).max(1) } else { 0 };
        Ahead { pages: AtomicU32::new(pages), next: AtomicU32::new(0) }
    }
}

impl<P> Slabs<P> {
    /// The page whose memory should be there and is not.
    fn page_lacking(&self) -> Option<PageNo> {
        let (untouched, fresh) = self.pool.untouched();
        let page = self.ahead.next.load(Relaxed).max(untouched);
        let end = untouched + fresh.min(self.ahead.pages.load(Relaxed));
        (page < end).then_some(PageNo(page))
    }

    /// True where [`Slabs::populate`] has something to do.
    pub fn lacks_memory(&self) -> bool {
        self.page_lacking().is_some()
    }

    /// Brings the memory of one page more, if there is one to be brought. No lock is held while the
    /// system works; one thread alone may call it.
    pub fn populate(&self) -> bool {
        let Some(page) = self.page_lacking() else { return false };
        match self.arena.populate(self.words_of(page)) {
            Ok(()) => self.ahead.next.store(page.0 + 1, Relaxed),
            // It will not do so for the next one either.
            Err(_) => self.ahead.pages.store(0, Relaxed),
        }
        true
    }
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::*;
    use crate::{ClassId, Geometry, Options};

    const PAGE: u32 = 64 << 10;

    /// An arena of so many pages within the limit, and of as many more beyond it.
    fn slabs(pages: u32, huge_pages: bool) -> Slabs<()> {
        let geometry = Geometry::compact(PAGE, 1.12, 24).expect("a ladder");
        let options = Options {
            limit: u64::from(pages * PAGE),
            ceiling: 2 * pages,
            chunk_overhead_64ths: 0,
            first_page_beyond_limit: false,
            huge_pages,
        };
        Slabs::new(geometry, options).expect("address space")
    }

    fn populate(slabs: &Slabs<()>) -> usize {
        std::iter::from_fn(|| slabs.populate().then_some(())).count()
    }

    #[test]
    fn memory_is_a_huge_page_ahead_of_what_is_taken() {
        let slabs = slabs(100, true);
        assert!(slabs.lacks_memory());
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
        let slabs = slabs(100, true);
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
    fn small_pages_come_by_themselves() {
        let slabs = slabs(100, false);
        assert!(!slabs.lacks_memory() && !slabs.populate());
    }
}
