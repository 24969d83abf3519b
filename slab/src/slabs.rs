//! The engine's face: one arena, its classes, and the way from one to the other.

use crate::ahead::Ahead;
use crate::class::{Class, ClassGuard, State};
use crate::geometry::{ClassId, Geometry};
use crate::grain::Grain;
use crate::page::{PageNo, RECORD_WORDS, Record, earliest_of, note_class_deadline, note_deadline};
use crate::pool::{Claim, Pool};
use crate::sync::Ordering::{Relaxed, SeqCst};
use crate::sync::{self, AtomicU32};
use crate::{ChunkRef, Waits, Words};
use crossbeam::utils::CachePadded;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic;

/// Pages that a class may take though those left are in reserve.
const FIRST_PAGES: usize = 4;

/// How an arena is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes that pages and charges may use together.
    pub limit: u64,
    /// Pages that the reservation has room for.
    pub ceiling: u32,
    /// Bytes that the caller keeps per chunk beside the arena, times 64; charged with each page.
    pub chunk_overhead_64ths: u32,
    /// A class that has no page may take one beyond the limit, as in memcached.
    pub first_page_beyond_limit: bool,
    /// One page in 64, but no more than there are classes, is kept for classes that have next to
    /// none, and for [`ClassGuard::grow_from_reserve`].
    pub reserve: bool,
    /// Pages, from the first on, for which the system is asked for huge ones (`-L`).
    pub huge_pages: u32,
}

/// Where an arena lies that outlives the process, in bytes from the file's start.
#[derive(Clone, Debug)]
pub struct Place {
    pub file: Arc<File>,
    pub records: u64,
    pub arena: u64,
}

/// All slab classes over one arena. `P` is whatever the caller keeps per class under its lock.
pub struct Slabs<P> {
    geometry: Geometry,
    pub(crate) arena: Words,
    pub(crate) records: Words,
    pub(crate) pool: Pool,
    pub(crate) classes: Box<[CachePadded<Class<P>>]>,
    /// log2 of words in a page.
    page_shift: u32,
    pub(crate) first_page_beyond_limit: bool,
    pub(crate) ahead: Ahead,
    pub(crate) grain: Grain,
    waits: Waits,
    /// What each class's free chunks come to in whole pages, all in all.
    spare: CachePadded<atomic::AtomicU64>,
    /// Pages that could not be taken because the file system of the arena's file has no room.
    pub(crate) refused: atomic::AtomicU64,
}

impl<P: Default> Slabs<P> {
    /// Reserves the arena; no page is in use yet.
    pub fn new(geometry: Geometry, options: Options) -> io::Result<Slabs<P>> {
        let page_words = geometry.page_size() as usize / 4;
        let arena = Words::reserve(page_words * options.ceiling as usize)?;
        let records = Words::reserve(RECORD_WORDS * options.ceiling as usize)?;
        Slabs::over(geometry, options, arena, records)
    }

    /// An arena in a file that is long enough for it. No page is in use; what the file says is for
    /// [`Slabs::restore_records`] to read.
    pub fn in_file(geometry: Geometry, options: Options, place: &Place) -> io::Result<Slabs<P>> {
        let (pages, page_words) = (options.ceiling as usize, geometry.page_size() as usize / 4);
        let arena = Words::of_file(&place.file, place.arena, page_words * pages)?;
        let records = Words::of_file(&place.file, place.records, RECORD_WORDS * pages)?;
        records.commit(0..RECORD_WORDS * pages)?;
        Slabs::over(geometry, options, arena, records)
    }

    fn over(
        geometry: Geometry,
        options: Options,
        arena: Words,
        records: Words,
    ) -> io::Result<Slabs<P>> {
        let page_words = geometry.page_size() as usize / 4;
        assert!(page_words.is_power_of_two(), "page sizes are powers of two");
        if options.huge_pages > 0 {
            arena.huge_pages(0..options.huge_pages as usize * page_words)?;
        }
        let Options { chunk_overhead_64ths, .. } = options;
        let record = if chunk_overhead_64ths > 0 { RECORD_WORDS as u64 * 4 } else { 0 };
        let cost = u64::from(geometry.page_size()) + record;
        let reserve = if options.reserve { geometry.classes().count() as u32 } else { 0 };
        let (ceiling, limit) = (options.ceiling, options.limit);
        let pool = Pool::new(cost, ceiling, limit, chunk_overhead_64ths, reserve);
        let classes = geometry.classes().map(|_| CachePadded::new(Class::default())).collect();
        let page_shift = page_words.trailing_zeros();
        let first_page_beyond_limit = options.first_page_beyond_limit;
        let refused = atomic::AtomicU64::new(0);
        let ahead = Ahead::new(options.huge_pages, geometry.page_size());
        let grain = Grain::new(&arena, options.huge_pages as usize * page_words);
        Ok(Slabs {
            geometry,
            arena,
            records,
            pool,
            classes,
            page_shift,
            first_page_beyond_limit,
            ahead,
            grain,
            waits: Waits::default(),
            spare: CachePadded::default(),
            refused,
        })
    }
}

impl<P> Slabs<P> {
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The whole arena; a chunk starts at [`ChunkRef::word`].
    #[inline]
    pub fn words(&self) -> &[AtomicU32] {
        &self.arena
    }

    #[inline]
    pub fn lock(&self, class: ClassId) -> ClassGuard<'_, P> {
        ClassGuard::new(self, class, sync::lock(&self.class(class).state, &self.waits))
    }

    pub(crate) fn class(&self, class: ClassId) -> &Class<P> {
        &self.classes[class.index() - 1]
    }

    #[inline]
    pub fn page_of(&self, chunk: ChunkRef) -> PageNo {
        PageNo((chunk.word() >> self.page_shift) as u32)
    }

    /// The class that owns a chunk's page now; `ClassId(0)` for a free page.
    #[inline]
    pub fn class_of(&self, chunk: ChunkRef) -> ClassId {
        self.record(self.page_of(chunk)).class()
    }

    /// True where `chunk` is the start of a chunk of `class`: for references that may be old.
    pub fn is_chunk_of(&self, chunk: ChunkRef, class: ClassId) -> bool {
        let within = chunk.word() & ((1 << self.page_shift) - 1);
        let size = self.geometry.whole_size(class) as usize / 4;
        self.class_of(chunk) == class
            && within.is_multiple_of(size)
            && within / size < self.geometry.chunks_per_page(class) as usize
    }

    /// True where `chunk` is the start of a chunk at all: for references from a file.
    pub fn is_chunk(&self, chunk: ChunkRef) -> bool {
        chunk.word() < self.arena.len()
            && self.class_of(chunk) != ClassId(0)
            && self.is_chunk_of(chunk, self.class_of(chunk))
    }

    #[inline]
    pub(crate) fn record(&self, page: PageNo) -> Record<'_> {
        Record::of(&self.records, page)
    }

    /// Chunk number `index` of a page of `class`.
    #[inline]
    pub fn chunk_at(&self, page: PageNo, class: ClassId, index: u32) -> ChunkRef {
        let base = (page.0 as usize) << self.page_shift;
        ChunkRef::at_word(base + index as usize * (self.geometry.whole_size(class) as usize / 4))
    }

    /// The words of a page.
    pub(crate) fn words_of(&self, page: PageNo) -> Range<usize> {
        let start = (page.0 as usize) << self.page_shift;
        start..start + (1 << self.page_shift)
    }

    /// A chunk of this class now has this deadline (0: none), written before.
    #[inline]
    pub fn note_deadline(&self, chunk: ChunkRef, class: ClassId, deadline: u32) {
        self.note_page_deadline(self.page_of(chunk), class, deadline);
    }

    /// As [`Slabs::note_deadline`], for any chunk of a page.
    #[inline]
    pub fn note_page_deadline(&self, page: PageNo, class: ClassId, deadline: u32) {
        if deadline != 0 {
            note_deadline(self.record(page).earliest(), deadline);
            note_class_deadline(&self.class(class).earliest, deadline);
        }
    }

    /// The earliest deadline that any chunk of the class may have.
    #[inline]
    pub fn earliest(&self, class: ClassId) -> Option<u32> {
        earliest_of(self.class(class).earliest.load(Relaxed))
    }

    /// The earliest deadline that any chunk of the page may have.
    pub fn page_earliest(&self, page: PageNo) -> Option<u32> {
        earliest_of(self.record(page).earliest().load(SeqCst))
    }

    /// Forgets a page's earliest deadline, before its chunks are looked at again: all of them, or
    /// what this returns must be noted again.
    pub fn take_page_earliest(&self, page: PageNo) -> Option<u32> {
        earliest_of(self.record(page).earliest().swap(0, SeqCst))
    }

    /// Forgets a class's earliest deadline, before all its pages are looked at again.
    pub fn clear_earliest(&self, class: ClassId) {
        self.class(class).earliest.swap(0, SeqCst);
    }

    /// Lowers the class's earliest deadline to that of one of its pages.
    pub fn note_class_deadline(&self, class: ClassId, deadline: u32) {
        note_class_deadline(&self.class(class).earliest, deadline);
    }

    /// The class that owns a page now; `ClassId(0)` for a free one.
    #[inline]
    pub fn owner_of(&self, page: PageNo) -> ClassId {
        self.record(page).class()
    }

    /// True where none of a page's chunks is handed out: as of now, without its class's lock.
    pub fn is_empty(&self, page: PageNo) -> bool {
        self.record(page).used() == 0
    }

    /// Pages that were ever taken, and those that were passed over: those of lower numbers.
    pub fn pages_touched(&self) -> u32 {
        self.pool.touched()
    }

    /// What each class's free chunks come to in whole pages, all in all.
    #[inline]
    pub fn spare_pages(&self) -> u64 {
        self.spare.load(Relaxed)
    }

    pub(crate) fn count_spare(&self, before: u64, now: u64) {
        self.spare.fetch_add(now.wrapping_sub(before), Relaxed);
    }

    /// Counts bytes used outside the arena against the limit; false, and nothing counted, past it.
    pub fn charge(&self, bytes: u64) -> bool {
        self.pool.charge(bytes)
    }

    pub fn discharge(&self, bytes: u64) {
        self.pool.discharge(bytes);
    }

    /// Counts `is` bytes used outside the arena instead of `was`, even past the limit; see
    /// [`Slabs::over_limit`].
    pub fn recharge(&self, was: u64, is: u64) {
        self.pool.recharge(was, is);
    }

    /// Changes the limit in [`Options::limit`]; nothing is taken from anybody.
    pub fn set_limit(&self, bytes: u64) {
        self.pool.set_limit(bytes);
    }

    /// Bytes of pages and charges beyond the limit, because it was lowered or the overhead raised;
    /// first pages that classes took beyond it are not counted.
    pub fn over_limit(&self) -> u64 {
        self.pool.over_limit()
    }

    /// Pages that could still be taken.
    pub fn available_pages(&self) -> u64 {
        self.pool.available()
    }

    /// Pages that classes own.
    pub fn pages_in_use(&self) -> u64 {
        u64::from(self.pool.figures().0)
    }

    /// Pages that were given back, not taken again, and still within the limit.
    pub fn free_pages(&self) -> u64 {
        (self.pool.figures().1 as u64).min(self.pool.available())
    }

    /// Changes what the caller keeps per chunk beside the arena, times 64; see
    /// [`Slabs::over_limit`].
    pub fn set_chunk_overhead(&self, overhead_64ths: u32) {
        self.pool.set_overhead(overhead_64ths);
    }

    /// Pages that could not be had because there was no room for them in the arena's file.
    pub fn pages_refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Long waits for the lock of a class.
    pub fn waits(&self) -> &Waits {
        &self.waits
    }

    /// A page for a class; with `reserved` also one that is in reserve.
    pub(crate) fn take_page(
        &self,
        class: ClassId,
        state: &State<P>,
        reserved: bool,
    ) -> Option<PageNo> {
        let claim = match state.pages.is_empty() {
            true if self.first_page_beyond_limit => Claim::Beyond,
            _ if reserved || state.pages.len() < FIRST_PAGES => Claim::Reserved,
            _ => Claim::More,
        };
        let chunks = self.geometry.chunks_per_page(class);
        let page = self.pool.take(chunks, claim)?;
        if self.arena.commit(self.words_of(page)).is_err() {
            self.refused.fetch_add(1, Relaxed);
            self.pool.put(page, chunks);
            return None;
        }
        Some(page)
    }
}
