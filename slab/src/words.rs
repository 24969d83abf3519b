//! A reservation of demand-zero memory, seen as atomic words: the arena, page records, the index.
//!
//! The only file that maps memory. Under Miri and loom it is a zeroed heap block instead.

use crate::sync::AtomicU32;
use std::io;
use std::ops::{Deref, Range};

/// `len` zeroed words, resident only where touched. Sharing them as atomics is what lets a reader
/// look at memory that a writer may be changing.
pub struct Words {
    #[cfg(not(any(loom, miri)))]
    map: memmap2::MmapRaw,
    #[cfg(any(loom, miri))]
    map: Box<[AtomicU32]>,
}

#[cfg(not(any(loom, miri)))]
impl Words {
    /// Reserves address space; no memory is used yet.
    pub fn reserve(len: usize) -> io::Result<Words> {
        let map = memmap2::MmapOptions::new().len(len.max(1) * 4).no_reserve_swap().map_anon()?;
        Ok(Words { map: memmap2::MmapRaw::from(map) })
    }

    /// Gives the memory of `range` back to the system, as far as it is whole system pages; all of
    /// it reads as zero from then on, unless this fails.
    pub fn release(&self, range: Range<usize>) -> io::Result<()> {
        let page = rustix::param::page_size();
        let (from, to) = ((range.start * 4).next_multiple_of(page), range.end * 4 / page * page);
        if from >= to {
            self.zero(range);
            return Ok(());
        }
        self.zero(range.start..from / 4);
        self.zero(to / 4..range.end);
        // SAFETY: the mapping is anonymous and private and `self` owns it; all access is through
        // atomics (see `deref`), to which dropping the pages is a store of zero.
        unsafe {
            self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, from, to - from)
        }
    }

    fn zero(&self, range: Range<usize>) {
        for word in &self[range] {
            word.store(0, crate::sync::Ordering::Relaxed);
        }
    }

    /// Asks for huge pages (`-L`).
    pub fn huge_pages(&self) -> io::Result<()> {
        self.map.advise(memmap2::Advice::HugePage)
    }
}

#[cfg(any(loom, miri))]
impl Words {
    pub fn reserve(len: usize) -> io::Result<Words> {
        Ok(Words { map: (0..len).map(|_| AtomicU32::new(0)).collect() })
    }

    pub fn release(&self, range: Range<usize>) -> io::Result<()> {
        for word in &self.map[range] {
            word.store(0, crate::sync::Ordering::Relaxed);
        }
        Ok(())
    }

    pub fn huge_pages(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Deref for Words {
    type Target = [AtomicU32];

    #[cfg(not(any(loom, miri)))]
    #[inline]
    fn deref(&self) -> &[AtomicU32] {
        // SAFETY: the mapping is readable, writable, page-aligned, `len` bytes long (a multiple of
        // 4) and lives as long as `self`; zeroed bytes are valid atomics; nothing in this process
        // makes a `&mut` to it.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.map.len() / 4) }
    }

    #[cfg(any(loom, miri))]
    fn deref(&self) -> &[AtomicU32] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Ordering::Relaxed;

    #[test]
    fn released_words_read_zero_and_others_stay() {
        let words = Words::reserve(4096).unwrap();
        words[0].store(7, Relaxed);
        words[2048].store(9, Relaxed);
        words.release(1024..3072).unwrap();
        assert_eq!((words[0].load(Relaxed), words[2048].load(Relaxed)), (7, 0));
    }
}
