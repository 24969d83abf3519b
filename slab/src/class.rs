//! One slab class: its pages and their free chunks, behind one lock.
//!
//! Free chunks are listed page by page, and the pages that have any are linked through their
//! records, so that emptying a page takes its free chunks out of circulation at once. Pages whose
//! chunks are all free have a list of their own, which is taken from last.

use crate::geometry::ClassId;
use crate::page::{PageNo, Record};
use crate::slabs::Slabs;
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU32, Mutex, MutexGuard};
use crate::{ChunkRef, Words};
use std::iter::successors;
use std::mem::replace;
use std::ops::{Deref, DerefMut};

pub(crate) struct Class<P> {
    pub(crate) state: Mutex<State<P>>,
    /// As in a page's record, for the whole class.
    pub(crate) earliest: AtomicU32,
}

impl<P: Default> Default for Class<P> {
    fn default() -> Class<P> {
        Class { state: Mutex::new(State::default()), earliest: AtomicU32::new(0) }
    }
}

/// Invariants, walked by `validate`:
/// C1 `free` = sum over pages not draining of (chunks per page - used).
/// C2 a page is listed ⇔ it is not draining and has a free chunk; among the empty ⇔ all are free.
/// C3 `pages` are exactly those whose record names the class.
/// C4 `spare` is what `free` comes to in whole pages, and counted in [`Slabs::spare_pages`].
#[derive(Default)]
pub(crate) struct State<P> {
    /// First page with free chunks and others: page number + 1, 0 for none.
    pub(crate) listed: u32,
    /// First page with nothing but free chunks, likewise.
    pub(crate) empty: u32,
    pub(crate) pages: Vec<PageNo>,
    pub(crate) free: u64,
    pub(crate) spare: Spare,
    /// Chunks ever handed out.
    taken: u64,
    pub(crate) payload: P,
}

/// Whole pages' worth of free chunks.
#[derive(Default)]
pub(crate) struct Spare {
    pub(crate) pages: u64,
    /// With so many free chunks or more it is more pages, with fewer than the other it is fewer.
    more_from: u64,
    less_below: u64,
}

/// A class, locked. Dereferences to the payload.
pub struct ClassGuard<'a, P> {
    slabs: &'a Slabs<P>,
    class: ClassId,
    state: MutexGuard<'a, State<P>>,
}

impl<P> Deref for ClassGuard<'_, P> {
    type Target = P;
    fn deref(&self) -> &P {
        &self.state.payload
    }
}

impl<P> DerefMut for ClassGuard<'_, P> {
    fn deref_mut(&mut self) -> &mut P {
        &mut self.state.payload
    }
}

impl<'a, P> ClassGuard<'a, P> {
    pub(crate) fn new(
        slabs: &'a Slabs<P>,
        class: ClassId,
        state: MutexGuard<'a, State<P>>,
    ) -> ClassGuard<'a, P> {
        ClassGuard { slabs, class, state }
    }

    pub fn class(&self) -> ClassId {
        self.class
    }

    pub fn slabs(&self) -> &'a Slabs<P> {
        self.slabs
    }

    /// Hands out a free chunk of the pages that the class has.
    #[inline]
    pub fn take(&mut self) -> Option<ChunkRef> {
        let first = if self.state.listed != 0 { self.state.listed } else { self.state.empty };
        let page = PageNo(first.checked_sub(1)?);
        let record = self.slabs.record(page);
        if record.used() == 0 {
            self.unlist(page);
            self.list_as(page, false);
        }
        let head = record.free_head();
        let chunk = match ChunkRef::from_u32(head) {
            Some(chunk) => {
                record.set_free_head(self.words()[chunk.word() + 2].load(Relaxed));
                chunk
            }
            None => {
                let index = record.fresh();
                record.set_fresh(index + 1);
                self.slabs.chunk_at(page, self.class, index)
            }
        };
        record.set_used(record.used() + 1);
        self.state.taken += 1;
        self.state.free -= 1;
        if self.state.free < self.state.spare.less_below {
            self.count_spare();
        }
        if !self.has_free(record) {
            self.unlist(page);
        }
        Some(chunk)
    }

    /// Takes a chunk back. Its words 0 and 1 are left as they are.
    #[inline]
    pub fn put(&mut self, chunk: ChunkRef) {
        let page = self.slabs.page_of(chunk);
        let record = self.slabs.record(page);
        debug_assert_eq!(record.class(), self.class);
        debug_assert!(record.used() > 0);
        self.words()[chunk.word() + 2].store(record.free_head(), Relaxed);
        record.set_free_head(chunk.to_u32());
        record.set_used(record.used() - 1);
        if record.draining() {
            return;
        }
        self.state.free += 1;
        if self.state.free >= self.state.spare.more_from {
            self.count_spare();
        }
        if !record.listed() {
            self.list(page);
        } else if record.used() == 0 {
            self.unlist(page);
            self.list(page);
        }
    }

    /// Takes one more page from the pool; false when the limit is reached, or those left are in
    /// reserve and the class has some.
    pub fn grow(&mut self) -> bool {
        self.take_page(false)
    }

    /// As [`ClassGuard::grow`], also where the class has pages and those left are in reserve.
    pub fn grow_from_reserve(&mut self) -> bool {
        self.take_page(true)
    }

    fn take_page(&mut self, reserved: bool) -> bool {
        let page = self.slabs.take_page(self.class, &self.state, reserved);
        page.map(|page| self.own(page)).is_some()
    }

    /// Pages of the class, in no order that means anything.
    pub fn pages(&self) -> &[PageNo] {
        &self.state.pages
    }

    /// Chunks that [`ClassGuard::take`] could hand out.
    pub fn free_chunks(&self) -> u64 {
        self.state.free
    }

    pub fn total_chunks(&self) -> u64 {
        self.state.pages.len() as u64 * u64::from(self.per_page())
    }

    /// Chunks that were ever handed out; it may wrap.
    pub fn chunks_taken(&self) -> u64 {
        self.state.taken
    }

    /// A page that has nothing but free chunks, and is not draining.
    pub fn empty_page(&self) -> Option<PageNo> {
        self.state.empty.checked_sub(1).map(PageNo)
    }

    /// The first `look` pages with free chunks and others, those with the fewest in use first.
    pub fn emptiest_pages(&self, look: usize) -> Vec<PageNo> {
        let listed = |next: u32| next.checked_sub(1).map(PageNo);
        let next = |page: &PageNo| listed(self.slabs.record(*page).next());
        let mut pages: Vec<PageNo> =
            successors(listed(self.state.listed), next).take(look).collect();
        pages.sort_by_key(|page| self.used_on(*page));
        pages
    }

    /// Stops handing out a page's chunks, so that it can be emptied. False where it is not the
    /// class's or is draining already.
    pub fn start_drain(&mut self, page: PageNo) -> bool {
        let record = self.slabs.record(page);
        if record.class() != self.class || record.draining() {
            return false;
        }
        if record.listed() {
            self.unlist(page);
        }
        self.state.free -= u64::from(self.per_page() - record.used());
        self.count_spare();
        record.set_draining(true);
        true
    }

    /// True where a page of the class is draining.
    pub fn is_draining(&self, page: PageNo) -> bool {
        self.slabs.record(page).draining()
    }

    /// Chunks of a page that are handed out.
    pub fn used_on(&self, page: PageNo) -> u32 {
        self.slabs.record(page).used()
    }

    /// Gives an empty draining page back to the pool and its memory to the system; false, and the
    /// page is in service again, where it is not empty.
    pub fn finish_drain(&mut self, page: PageNo) -> bool {
        let emptied = self.take_off(page);
        if emptied {
            let words = self.slabs.words_of(page);
            // The next owner counts on zeroes, so memory that the system will not take is cleared.
            if self.words().release(words.clone()).is_err() {
                self.words().zero(words);
            }
            self.slabs.pool.put(page, self.per_page());
        }
        emptied
    }

    /// As [`ClassGuard::finish_drain`], but the page stays in use: it is the caller's to be given
    /// to another class at once, by [`ClassGuard::adopt`]. Its memory stays, as there may be none
    /// in exchange.
    pub fn let_go(&mut self, page: PageNo) -> bool {
        let emptied = self.take_off(page);
        if emptied {
            self.words().zero(self.slabs.words_of(page));
        }
        emptied
    }

    /// The page is nobody's, if it is empty; else it is in service again.
    fn take_off(&mut self, page: PageNo) -> bool {
        let record = self.slabs.record(page);
        debug_assert!(record.draining() && record.class() == self.class);
        if record.used() > 0 {
            record.set_draining(false);
            self.state.free += u64::from(self.per_page() - record.used());
            self.count_spare();
            if self.has_free(record) {
                self.list(page);
            }
            return false;
        }
        self.state.pages.retain(|p| *p != page);
        record.assign(ClassId(0));
        true
    }

    /// Takes over a page that class `from` has let go, whatever the limit.
    pub fn adopt(&mut self, page: PageNo, from: ClassId) {
        let was = self.slabs.geometry().chunks_per_page(from);
        self.slabs.pool.hand_over(was, self.per_page());
        self.own(page);
    }

    fn own(&mut self, page: PageNo) {
        self.slabs.record(page).assign(self.class);
        self.state.pages.push(page);
        self.state.free += u64::from(self.per_page());
        self.count_spare();
        self.list(page);
    }

    /// A page of the class that comes from a file, with `used` of its chunks in use, those behind
    /// `fresh` untouched, and the others listed from `free_head` on.
    pub(crate) fn restore(&mut self, page: PageNo, used: u32, fresh: u32, free_head: u32) {
        let record = self.slabs.record(page);
        record.set_used(used);
        record.set_fresh(fresh);
        record.set_free_head(free_head);
        self.state.pages.push(page);
        self.state.free += u64::from(self.per_page() - used);
        self.count_spare();
        if self.has_free(record) {
            self.list(page);
        }
    }

    fn words(&self) -> &'a Words {
        &self.slabs.arena
    }

    fn per_page(&self) -> u32 {
        self.slabs.geometry().chunks_per_page(self.class)
    }

    #[inline]
    fn has_free(&self, record: Record<'_>) -> bool {
        record.free_head() != 0 || record.fresh() < self.per_page()
    }

    /// Counts again what the free chunks come to in pages.
    fn count_spare(&mut self) {
        let per_page = u64::from(self.per_page());
        let pages = self.state.free / per_page;
        let before = self.state.spare.pages;
        self.state.spare =
            Spare { pages, more_from: (pages + 1) * per_page, less_below: pages * per_page };
        if pages != before {
            self.slabs.count_spare(before, pages);
        }
    }

    fn list(&mut self, page: PageNo) {
        self.list_as(page, self.used_on(page) == 0);
    }

    fn list_as(&mut self, page: PageNo, empty: bool) {
        let record = self.slabs.record(page);
        let first = self.first(empty);
        let next = replace(first, page.0 + 1);
        record.set_prev(0);
        record.set_next(next);
        record.set_listed(true);
        if let Some(next) = next.checked_sub(1) {
            self.slabs.record(PageNo(next)).set_prev(page.0 + 1);
        }
    }

    /// Takes a page off the list that it stands on.
    fn unlist(&mut self, page: PageNo) {
        let record = self.slabs.record(page);
        match record.prev().checked_sub(1) {
            Some(prev) => self.slabs.record(PageNo(prev)).set_next(record.next()),
            None => {
                let empty = self.state.empty == page.0 + 1;
                *self.first(empty) = record.next();
            }
        }
        if let Some(next) = record.next().checked_sub(1) {
            self.slabs.record(PageNo(next)).set_prev(record.prev());
        }
        record.set_listed(false);
    }

    /// The first page of one of the two lists.
    fn first(&mut self, empty: bool) -> &mut u32 {
        if empty { &mut self.state.empty } else { &mut self.state.listed }
    }

    pub(crate) fn state(&self) -> &State<P> {
        &self.state
    }
}
