//! Walks every page, list and count and says what disagrees. For tests and fuzzing: it locks one
//! class at a time and expects nobody else to be at work.

use crate::class::State;
use crate::geometry::ClassId;
use crate::page::PageNo;
use crate::slabs::Slabs;
use crate::sync::Ordering::Relaxed;
use crate::{ChunkRef, ClassGuard};
use std::collections::HashSet;

impl<P> Slabs<P> {
    /// Checks I1 (pages free + owned = pages taken, limit kept unless a first page was granted
    /// beyond it) and C1 to C4 of every class.
    pub fn validate(&self) -> Result<(), String> {
        let mut owned = HashSet::new();
        for class in self.geometry().classes() {
            let guard = self.lock(class);
            for page in guard.pages() {
                if !owned.insert(page.0) {
                    return Err(format!("page {} is owned twice", page.0));
                }
            }
            self.check_class(&guard).map_err(|e| format!("class {}: {e}", class.0))?;
        }
        let (in_use, _, used, limit) = self.pool.figures();
        if owned.len() != in_use as usize {
            return Err(format!("{} pages owned, {in_use} in use", owned.len()));
        }
        let spare: u64 = self.geometry().classes().map(|c| self.lock(c).state().spare.pages).sum();
        if spare != self.spare_pages() {
            return Err(format!("{} spare pages counted, {spare} there", self.spare_pages()));
        }
        let classes = self.geometry().classes().count() as u64;
        let slack = classes * u64::from(self.geometry().page_size());
        if used > limit + slack {
            return Err(format!("{used} bytes used, limit {limit}"));
        }
        Ok(())
    }

    fn check_class(&self, guard: &ClassGuard<'_, P>) -> Result<(), String> {
        let state = guard.state();
        let mut listed = self.listed_pages(state, state.listed)?;
        let empty = self.listed_pages(state, state.empty)?;
        let is_empty = |page: &PageNo| self.record(*page).used() == 0;
        if listed.iter().any(is_empty) || !empty.iter().all(is_empty) {
            return Err("a page is on the wrong list".to_string());
        }
        listed.extend(empty);
        let mut free = 0;
        for page in &state.pages {
            let record = self.record(*page);
            if record.class() != guard.class() {
                return Err(format!("page {} names class {:?}", page.0, record.class()));
            }
            let free_here = self.free_on(*page, guard.class())?;
            if !record.draining() {
                free += u64::from(free_here);
            }
            let should_list = free_here > 0 && !record.draining();
            if should_list != listed.contains(page) || should_list != record.listed() {
                return Err(format!("page {} with {free_here} free chunks is misfiled", page.0));
            }
        }
        if free != state.free {
            return Err(format!("counts {} free chunks, has {free}", state.free));
        }
        let spare = free / u64::from(self.geometry().chunks_per_page(guard.class()));
        if spare != state.spare.pages {
            return Err(format!("counts {} spare pages, has {spare}", state.spare.pages));
        }
        Ok(())
    }

    /// The pages of one of the class's lists, which begins `at` a page.
    fn listed_pages(&self, state: &State<P>, mut at: u32) -> Result<Vec<PageNo>, String> {
        let mut listed = Vec::new();
        let mut prev = 0;
        while let Some(page) = at.checked_sub(1).map(PageNo) {
            if listed.len() > state.pages.len() || self.record(page).prev() != prev {
                return Err(format!("page list is broken at {}", page.0));
            }
            listed.push(page);
            (prev, at) = (at, self.record(page).next());
        }
        Ok(listed)
    }

    /// Walks a page's free list; returns its free chunks, listed and fresh.
    fn free_on(&self, page: PageNo, class: ClassId) -> Result<u32, String> {
        let record = self.record(page);
        let per_page = self.geometry().chunks_per_page(class);
        let mut seen = HashSet::new();
        let mut at = record.free_head();
        while let Some(chunk) = ChunkRef::from_u32(at) {
            let fits = self.page_of(chunk) == page && self.is_chunk_of(chunk, class);
            if !fits || !seen.insert(at) {
                return Err(format!("page {}: bad free chunk {at}", page.0));
            }
            at = self.words()[chunk.word() + 2].load(Relaxed);
        }
        let free = seen.len() as u32 + per_page - record.fresh();
        if free + record.used() != per_page {
            return Err(format!("page {}: {free} free, {} used", page.0, record.used()));
        }
        Ok(free)
    }
}
