//! An arena that comes from a file: whose each page is, and which of its chunks are in use.
//!
//! Whoever wrote the file may have died at any moment, and the file may have been damaged since.
//! Only a record's owner is believed, if it can be one; all the rest is made anew.

use crate::ChunkRef;
use crate::geometry::ClassId;
use crate::page::PageNo;
use crate::slabs::Slabs;
use crate::sync::Ordering::Relaxed;
use std::collections::HashSet;
use std::ops::Range;

/// What the records of a file said.
#[derive(Debug, Default)]
pub struct Restored {
    /// Pages that a class owns, with it.
    pub pages: Vec<(PageNo, ClassId)>,
    /// Pages that were given up: their record is damaged, or the file ends before they do.
    pub lost: u32,
}

impl<P> Slabs<P> {
    /// Reads the owners of all pages, of which the file holds the first `whole`. Those without one
    /// are free and read as zero from now on. Each of the others is for [`Slabs::restore_page`].
    pub fn restore_records(&self, whole: u32) -> Restored {
        let ceiling = (self.arena.len() / self.words_of(PageNo(0)).len()) as u32;
        let mut found = Restored::default();
        let largest = self.geometry().largest();
        for page in (0..ceiling).map(PageNo) {
            let record = self.record(page);
            match record.sound_class() {
                Some(ClassId(0)) => continue,
                // A copy of the file may have holes where there were zeroes.
                Some(class)
                    if class <= largest
                        && page.0 < whole
                        && self.arena.secure(self.words_of(page)).is_ok() =>
                {
                    record.assign(class);
                    found.pages.push((page, class));
                }
                _ => {
                    record.assign(ClassId(0));
                    found.lost += 1;
                }
            }
        }
        let next = found.pages.last().map_or(0, |(page, _)| page.0 + 1);
        let free: Vec<PageNo> =
            (0..next).map(PageNo).filter(|page| self.owner_of(*page) == ClassId(0)).collect();
        free.iter().for_each(|page| self.discard(self.words_of(*page)));
        if next < ceiling {
            self.discard(self.words_of(PageNo(next)).start..self.arena.len());
        }
        let chunks = |class| u64::from(self.geometry().chunks_per_page(class));
        let chunks = found.pages.iter().map(|(_, class)| chunks(*class)).sum();
        let owners: HashSet<ClassId> = found.pages.iter().map(|(_, class)| *class).collect();
        let beyond = if self.first_page_beyond_limit { owners.len() as u32 } else { 0 };
        self.pool.restore(next, free, chunks, beyond);
        found
    }

    /// Makes pages that nobody owns read as zero.
    fn discard(&self, words: Range<usize>) {
        if self.arena.discard(words.clone()).is_err() {
            self.arena.zero(words);
        }
    }

    /// Puts a page in service of the class that its record names. `keep` is asked about each of its
    /// chunks in turn, and may write to it; those that are not kept are free.
    pub fn restore_page(
        &self,
        page: PageNo,
        class: ClassId,
        mut keep: impl FnMut(ChunkRef) -> bool,
    ) {
        let per_page = self.geometry().chunks_per_page(class);
        let chunk_at = |index| self.chunk_at(page, class, index);
        let mut free = Vec::new();
        let mut fresh = 0;
        for index in 0..per_page {
            let chunk = chunk_at(index);
            let words = &self.words()[chunk.word()..chunk.word() + 3];
            let touched = words.iter().any(|word| word.load(Relaxed) != 0);
            let kept = keep(chunk);
            if !kept {
                free.push((index, chunk));
            }
            if kept || touched {
                fresh = index + 1;
            }
        }
        let used = per_page - free.len() as u32;
        // Those with low numbers are handed out first.
        let listed = free.iter().filter(|(index, _)| *index < fresh).rev();
        let head = listed.fold(0, |next, (_, chunk)| {
            self.words()[chunk.word() + 2].store(next, Relaxed);
            chunk.to_u32()
        });
        self.lock(class).restore(page, used, fresh, head);
    }
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::*;
    use crate::sync::AtomicU32;
    use crate::{Geometry, Options, Place};
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;

    const PAGE: u32 = 32 << 10;

    fn slabs(file: &Arc<File>) -> Slabs<()> {
        let geometry = Geometry::compact(PAGE, 1.5, 24).unwrap();
        let options = Options {
            limit: 1 << 20,
            ceiling: 32,
            chunk_overhead_64ths: 0,
            first_page_beyond_limit: false,
            reserve: false,
            huge_pages: 0,
        };
        Slabs::in_file(geometry, options, &Place { file: file.clone(), records: 0, arena: 1 << 16 })
            .unwrap()
    }

    fn file() -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        file.set_len((1 << 16) + 32 * u64::from(PAGE)).unwrap();
        Arc::new(file)
    }

    /// There may be none in exchange by the time that it is written to.
    #[test]
    fn a_page_that_goes_to_another_class_keeps_its_room() {
        let file = file();
        let slabs = slabs(&file);
        let (from, to) = (ClassId(1), ClassId(3));
        let mut class = slabs.lock(from);
        assert!(class.grow());
        let (page, room) = (class.pages()[0], file.metadata().unwrap().blocks());
        slabs.words()[slabs.words_of(page)][7].store(9, Relaxed);
        assert!(class.start_drain(page) && class.let_go(page));
        drop(class);
        slabs.lock(to).adopt(page, from);
        assert_eq!(file.metadata().unwrap().blocks(), room);
        assert_eq!(slabs.words()[slabs.words_of(page)][7].load(Relaxed), 0);
        assert_eq!(slabs.owner_of(page), to);
        // Given back, it leaves its room.
        assert!(slabs.lock(to).start_drain(page) && slabs.lock(to).finish_drain(page));
        assert!(file.metadata().unwrap().blocks() < room);
    }

    /// Restores with every chunk whose first word is not zero; how many those are.
    fn restore(slabs: &Slabs<()>, whole: u32) -> (usize, Restored) {
        let restored = slabs.restore_records(whole);
        let mut kept = 0;
        for (page, class) in &restored.pages {
            slabs.restore_page(*page, *class, |chunk| {
                let keep = slabs.words()[chunk.word()].load(Relaxed) != 0;
                kept += usize::from(keep);
                keep
            });
        }
        slabs.validate().unwrap();
        (kept, restored)
    }

    fn flip(word: &AtomicU32, bits: u32) {
        word.store(word.load(Relaxed) ^ bits, Relaxed);
    }

    /// An arena with some chunks of two classes in use, and others free between them.
    fn filled(file: &Arc<File>) -> usize {
        let slabs = slabs(file);
        let mut kept = 0;
        for class in [ClassId(1), ClassId(5)] {
            let mut guard = slabs.lock(class);
            let chunks: Vec<ChunkRef> = (0..3000)
                .filter_map(|_| {
                    let chunk = guard.take();
                    chunk.or_else(|| guard.grow().then(|| guard.take()).flatten())
                })
                .collect();
            for (n, chunk) in chunks.into_iter().enumerate() {
                if n % 3 == 0 {
                    slabs.words()[chunk.word()].store(0, Relaxed);
                    guard.put(chunk);
                } else {
                    slabs.words()[chunk.word()].store(1, Relaxed);
                    kept += 1;
                }
            }
        }
        kept
    }

    #[test]
    fn what_is_in_use_stays_and_the_rest_can_be_taken() {
        let file = file();
        let kept = filled(&file);
        let slabs = slabs(&file);
        let (found, restored) = restore(&slabs, 32);
        assert_eq!((found, restored.lost), (kept, 0));
        let used: Vec<ChunkRef> = (1..=8).flat_map(|_| slabs.lock(ClassId(1)).take()).collect();
        assert!(used.iter().all(|c| slabs.words()[c.word()].load(Relaxed) == 0));
        slabs.validate().unwrap();
    }

    #[test]
    fn damaged_and_missing_pages_are_given_up() {
        let file = file();
        let kept = filled(&file);
        flip(&slabs(&file).records[8], 1 << 3);
        let (found, restored) = restore(&slabs(&file), 32);
        assert!(found < kept && restored.lost == 1, "{found} of {kept}, {restored:?}");
        let (fewer, restored) = restore(&slabs(&file), 3);
        assert!(fewer < found && restored.lost > 0, "{fewer} of {found}, {restored:?}");
        let (same, restored) = restore(&slabs(&file), 32);
        assert_eq!((same, restored.lost), (fewer, 0));
    }

    #[test]
    fn pages_without_an_owner_read_as_zero() {
        let file = file();
        let slabs = slabs(&file);
        for word in slabs.words() {
            word.store(9, Relaxed);
        }
        assert_eq!(restore(&slabs, 32).0, 0);
        assert!(slabs.words().iter().all(|word| word.load(Relaxed) == 0));
    }
}
