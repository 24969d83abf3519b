//! What is known of each page, in eight words of its own: half a cache line.
//!
//! Word `CLASS` may be read at any time and `EARLIEST` by anyone; the rest is guarded by the lock
//! of the class that owns the page.

use crate::geometry::ClassId;
use crate::sync::AtomicU32;
use crate::sync::Ordering::{Relaxed, SeqCst};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageNo(pub u32);

pub(crate) const RECORD_WORDS: usize = 8;

/// Owning class in the low half, 0 for none; for one, its complement in the high half, by which
/// damage to a record that comes from a file shows.
const CLASS: usize = 0;
/// First chunk of the page's free list ([`crate::ChunkRef`] as u32), 0 for none.
const FREE_HEAD: usize = 1;
/// Chunks handed out now.
const USED: usize = 2;
/// Chunks handed out at least once: those behind are untouched.
const FRESH: usize = 3;
/// Neighbours in the class's list of pages with free chunks: page number + 1, 0 for none.
const PREV: usize = 4;
const NEXT: usize = 5;
/// The earliest deadline that any chunk of the page may have, inverted so that 0 is none.
const EARLIEST: usize = 6;
/// `LISTED` and `DRAINING`.
const FLAGS: usize = 7;

/// In the class's list of pages with free chunks.
const LISTED: u32 = 1;
/// Being emptied: its free chunks are not handed out.
const DRAINING: u32 = 2;

fn class_word(class: ClassId) -> u32 {
    if class.0 == 0 { 0 } else { u32::from(class.0) | u32::from(!class.0) << 16 }
}

/// A view of one record.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a>(&'a [AtomicU32]);

impl<'a> Record<'a> {
    #[inline]
    pub(crate) fn of(records: &'a [AtomicU32], page: PageNo) -> Record<'a> {
        let at = page.0 as usize * RECORD_WORDS;
        Record(&records[at..at + RECORD_WORDS])
    }

    #[inline]
    pub(crate) fn class(self) -> ClassId {
        ClassId(self.0[CLASS].load(Relaxed) as u16)
    }

    pub(crate) fn assign(self, class: ClassId) {
        for word in self.0 {
            word.store(0, Relaxed);
        }
        self.0[CLASS].store(class_word(class), Relaxed);
    }

    /// The owning class of a record from a file; `None` where that cannot be one.
    pub(crate) fn sound_class(self) -> Option<ClassId> {
        let word = self.0[CLASS].load(Relaxed);
        let class = ClassId(word as u16);
        (word == class_word(class)).then_some(class)
    }

    #[inline]
    pub(crate) fn free_head(self) -> u32 {
        self.0[FREE_HEAD].load(Relaxed)
    }

    #[inline]
    pub(crate) fn set_free_head(self, chunk: u32) {
        self.0[FREE_HEAD].store(chunk, Relaxed);
    }

    #[inline]
    pub(crate) fn used(self) -> u32 {
        self.0[USED].load(Relaxed)
    }

    #[inline]
    pub(crate) fn set_used(self, n: u32) {
        self.0[USED].store(n, Relaxed);
    }

    #[inline]
    pub(crate) fn fresh(self) -> u32 {
        self.0[FRESH].load(Relaxed)
    }

    #[inline]
    pub(crate) fn set_fresh(self, n: u32) {
        self.0[FRESH].store(n, Relaxed);
    }

    pub(crate) fn prev(self) -> u32 {
        self.0[PREV].load(Relaxed)
    }

    pub(crate) fn set_prev(self, page: u32) {
        self.0[PREV].store(page, Relaxed);
    }

    pub(crate) fn next(self) -> u32 {
        self.0[NEXT].load(Relaxed)
    }

    pub(crate) fn set_next(self, page: u32) {
        self.0[NEXT].store(page, Relaxed);
    }

    #[inline]
    pub(crate) fn listed(self) -> bool {
        self.0[FLAGS].load(Relaxed) & LISTED != 0
    }

    #[inline]
    pub(crate) fn draining(self) -> bool {
        self.0[FLAGS].load(Relaxed) & DRAINING != 0
    }

    pub(crate) fn set_listed(self, on: bool) {
        self.set_flag(LISTED, on);
    }

    pub(crate) fn set_draining(self, on: bool) {
        self.set_flag(DRAINING, on);
    }

    fn set_flag(self, flag: u32, on: bool) {
        let flags = self.0[FLAGS].load(Relaxed);
        self.0[FLAGS].store(if on { flags | flag } else { flags & !flag }, Relaxed);
    }

    #[inline]
    pub(crate) fn earliest(self) -> &'a AtomicU32 {
        &self.0[EARLIEST]
    }
}

/// Lowers a page's cell, which holds an inverted earliest deadline. Always an exchange: either
/// whoever empties the cell next sees what the caller wrote to its chunk before, or it keeps the
/// deadline.
#[inline]
pub(crate) fn note_deadline(cell: &AtomicU32, deadline: u32) {
    cell.fetch_max(!deadline, SeqCst);
}

/// Lowers a class's cell after that of one of its pages. Whoever empties it then reads the pages'
/// cells, so one that is low enough already can be left alone; the order of these four steps is
/// the one that all agree on.
#[inline]
pub(crate) fn note_class_deadline(cell: &AtomicU32, deadline: u32) {
    if cell.load(SeqCst) < !deadline {
        cell.fetch_max(!deadline, SeqCst);
    }
}

/// The deadline that such a cell holds, `None` for none.
pub fn earliest_of(cell: u32) -> Option<u32> {
    (cell != 0).then_some(!cell)
}
