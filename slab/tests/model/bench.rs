//! The slabs and a plain count of who owns what, run side by side; `fuzz/` has it, too.

use proptest::prelude::*;
use rustcached_slab::sync::Ordering::Relaxed;
use rustcached_slab::{ChunkRef, ClassId, Geometry, Options, PageNo, Slabs};
use std::collections::{HashMap, HashSet};

pub const CLASSES: u16 = 6;

#[derive(Clone, Debug)]
pub enum Op {
    Take(u16),
    Put(usize),
    Grow(u16),
    StartDrain(u16, usize),
    /// Gives a page back if it is empty; otherwise it serves again.
    FinishDrain(usize),
    /// Empties a draining page first.
    Evacuate(usize),
    Charge(u64),
    Discharge(usize),
    Deadline(usize, u32),
}

pub fn op() -> impl Strategy<Value = Op> {
    let (class, which) = (1..=CLASSES, any::<usize>());
    prop_oneof![
        8 => class.clone().prop_map(Op::Take),
        5 => which.prop_map(Op::Put),
        3 => class.clone().prop_map(Op::Grow),
        2 => (class, which).prop_map(|(class, which)| Op::StartDrain(class, which)),
        1 => which.prop_map(Op::FinishDrain),
        1 => which.prop_map(Op::Evacuate),
        1 => (1u64..200_000).prop_map(Op::Charge),
        1 => which.prop_map(Op::Discharge),
        1 => (which, 1u32..100).prop_map(|(which, deadline)| Op::Deadline(which, deadline)),
    ]
}

/// What must be so.
pub struct Model {
    slabs: Slabs<()>,
    limit: u64,
    /// A class without pages may pass the limit.
    first_beyond: bool,
    /// Chunks handed out, with the mark that their owner wrote into them.
    held: Vec<(ChunkRef, ClassId, u32)>,
    pages: HashMap<ClassId, HashSet<u32>>,
    draining: Vec<(ClassId, PageNo)>,
    charges: Vec<u64>,
    marks: u32,
}

impl Model {
    pub fn new(geometry: Geometry, pages: u32, memcached: bool) -> Model {
        let limit = u64::from(pages) * u64::from(geometry.page_size());
        let beyond = if memcached { u32::from(CLASSES) } else { 0 };
        let options = Options {
            limit,
            ceiling: pages + beyond,
            chunk_overhead_64ths: if memcached { 0 } else { 30 },
            first_page_beyond_limit: memcached,
            reserve: false,
            huge_pages: 0,
        };
        Model {
            slabs: Slabs::new(geometry, options).expect("address space"),
            limit,
            first_beyond: memcached,
            held: Vec::new(),
            pages: HashMap::new(),
            draining: Vec::new(),
            charges: Vec::new(),
            marks: 0,
        }
    }

    pub fn run(&mut self, op: &Op) {
        match *op {
            Op::Take(class) => self.take(ClassId(class)),
            Op::Put(which) => {
                if !self.held.is_empty() {
                    let (chunk, class, mark) = self.held.swap_remove(which % self.held.len());
                    self.put(chunk, class, mark);
                }
            }
            Op::Grow(class) => self.grow(ClassId(class)),
            Op::StartDrain(class, which) => self.start_drain(ClassId(class), which),
            Op::FinishDrain(which) => self.finish_drain(which, false),
            Op::Evacuate(which) => self.finish_drain(which, true),
            Op::Charge(bytes) => {
                let fits = self.used() + bytes <= self.limit;
                assert_eq!(self.slabs.charge(bytes), fits);
                self.charges.extend(fits.then_some(bytes));
            }
            Op::Discharge(which) => {
                if !self.charges.is_empty() {
                    let charge = self.charges.swap_remove(which % self.charges.len());
                    self.slabs.discharge(charge);
                }
            }
            Op::Deadline(which, deadline) => self.note_deadline(which, deadline),
        }
    }

    /// Bytes that count against the limit: pages, what comes with them, and charges.
    fn used(&self) -> u64 {
        let pages: u64 = self.pages.iter().map(|(c, p)| p.len() as u64 * self.page_bytes(*c)).sum();
        pages + self.charges.iter().sum::<u64>()
    }

    fn page_bytes(&self, class: ClassId) -> u64 {
        let geometry = self.slabs.geometry();
        let chunks = u64::from(geometry.chunks_per_page(class));
        let extra = if self.first_beyond { 0 } else { (chunks * 30).div_ceil(64) + 32 };
        u64::from(geometry.page_size()) + extra
    }

    fn take(&mut self, class: ClassId) {
        let mut guard = self.slabs.lock(class);
        let free = guard.free_chunks();
        let Some(chunk) = guard.take() else { return assert_eq!(free, 0) };
        assert_eq!(guard.free_chunks(), free - 1);
        drop(guard);
        let page = self.slabs.page_of(chunk);
        assert!(self.pages[&class].contains(&page.0) && !self.draining.contains(&(class, page)));
        assert!(self.slabs.is_chunk_of(chunk, class) && self.slabs.class_of(chunk) == class);
        self.marks += 1;
        for word in self.words(chunk, class) {
            word.store(self.marks, Relaxed);
        }
        self.held.push((chunk, class, self.marks));
    }

    fn words(&self, chunk: ChunkRef, class: ClassId) -> &[rustcached_slab::sync::AtomicU32] {
        let words = self.slabs.geometry().chunk_size(class) as usize / 4;
        &self.slabs.words()[chunk.word()..chunk.word() + words]
    }

    /// Nobody else has written to it meanwhile: no two chunks share a word.
    fn put(&self, chunk: ChunkRef, class: ClassId, mark: u32) {
        assert!(self.words(chunk, class).iter().all(|word| word.load(Relaxed) == mark));
        self.slabs.lock(class).put(chunk);
        assert!(self.words(chunk, class)[..2].iter().all(|word| word.load(Relaxed) == mark));
    }

    fn grow(&mut self, class: ClassId) {
        let owned = self.pages.get(&class).map_or(0, HashSet::len);
        let beyond = self.first_beyond && owned == 0;
        let fits = self.used() + self.page_bytes(class) <= self.limit || beyond;
        let mut guard = self.slabs.lock(class);
        assert_eq!(guard.grow(), fits);
        if fits {
            let fresh: Vec<u32> = guard.pages().iter().map(|page| page.0).collect();
            let pages = self.pages.entry(class).or_default();
            pages.extend(fresh);
            assert_eq!(pages.len(), owned + 1);
        }
    }

    fn start_drain(&mut self, class: ClassId, which: usize) {
        let mut guard = self.slabs.lock(class);
        let pages = guard.pages();
        let Some(page) = (!pages.is_empty()).then(|| pages[which % pages.len()]) else { return };
        let fresh = !self.draining.contains(&(class, page));
        assert_eq!(guard.start_drain(page), fresh);
        if fresh {
            self.draining.push((class, page));
        }
    }

    fn finish_drain(&mut self, which: usize, empty_first: bool) {
        if self.draining.is_empty() {
            return;
        }
        let (class, page) = self.draining.swap_remove(which % self.draining.len());
        let of_page = |slabs: &Slabs<()>, chunk: ChunkRef| slabs.page_of(chunk) == page;
        if empty_first {
            let (gone, kept) = self.held.drain(..).partition(|h| of_page(&self.slabs, h.0));
            self.held = kept;
            let gone: Vec<_> = gone;
            for (chunk, class, mark) in gone {
                self.put(chunk, class, mark);
            }
        }
        let used = self.held.iter().filter(|h| of_page(&self.slabs, h.0)).count();
        let mut guard = self.slabs.lock(class);
        assert_eq!(guard.used_on(page) as usize, used);
        assert_eq!(guard.finish_drain(page), used == 0);
        drop(guard);
        if used == 0 {
            self.pages.get_mut(&class).expect("its class").remove(&page.0);
            let words = self.slabs.geometry().page_size() as usize / 4;
            let start = page.0 as usize * words;
            let cleared = self.slabs.words()[start..start + words].iter();
            assert!(cleared.into_iter().all(|word| word.load(Relaxed) == 0));
        }
    }

    fn note_deadline(&mut self, which: usize, deadline: u32) {
        if self.held.is_empty() {
            return;
        }
        let (chunk, class, _) = self.held[which % self.held.len()];
        self.slabs.note_deadline(chunk, class, deadline);
        assert!(self.slabs.earliest(class).is_some_and(|e| e <= deadline));
        assert!(self.slabs.page_earliest(self.slabs.page_of(chunk)).is_some_and(|e| e <= deadline));
    }

    pub fn check(&self) {
        if let Err(fault) = self.slabs.validate() {
            panic!("{fault}");
        }
        let owned: usize = self.pages.values().map(HashSet::len).sum();
        assert_eq!(self.slabs.pages_in_use(), owned as u64);
        for class in self.slabs.geometry().classes() {
            let guard = self.slabs.lock(class);
            let pages: HashSet<u32> = guard.pages().iter().map(|page| page.0).collect();
            assert_eq!(pages, self.pages.get(&class).cloned().unwrap_or_default());
            let per_page = u64::from(self.slabs.geometry().chunks_per_page(class));
            assert_eq!(guard.total_chunks(), pages.len() as u64 * per_page);
            let held = |draining: bool| {
                let counts = |c: ChunkRef| {
                    self.draining.contains(&(class, self.slabs.page_of(c))) == draining
                };
                self.held.iter().filter(|h| h.1 == class && counts(h.0)).count() as u64
            };
            let out = self.draining.iter().filter(|d| d.0 == class).count() as u64;
            assert_eq!(guard.free_chunks(), (pages.len() as u64 - out) * per_page - held(false));
        }
    }
}
