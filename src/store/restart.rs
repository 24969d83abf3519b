//! Warm restart: the items that a memory file holds come back.
//!
//! The index, the queues, the counts are made anew from the pages, after a crash as after a stop.
//! All that this leans on is what the file says of each chunk:
//!
//! - an item is marked linked after all else of it is written, and before whoever stored it hears
//!   of it; it loses the mark under its line's lock, before anybody can hear that it is gone, and
//!   before any of its bodies is freed;
//! - so of two linked items with one key (twins) either both are the same, or nobody has heard of
//!   the newer yet: either may stay;
//! - a body that no linked head leads to is free.
//!
//! Pages are shared out among threads. Each page's items are judged, put into the index, and its
//! other chunks listed as free; bodies are kept for the time being, and those of no chain freed in
//! the end, when all heads are known.

use super::Store;
use super::flush::Horizon;
use super::index::{self, BLOCK_BYTES};
use super::resize;
use super::seals::Seals;
use super::shard::Shard;
use super::types::Local;
use super::upkeep::Pace;
use crate::item::{self, Standing, State};
use log::{info, warn};
use slab::sync::Ordering::Relaxed;
use slab::{ChunkRef, ClassId, PageNo, Slabs};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(all(test, not(any(loom, miri))))]
mod tests;

/// Threads that bring items back.
const THREADS_MAX: usize = 16;
/// Times that the mover may find nothing to be done at once; what is over -m after so many is left
/// to the background.
const RESTS_MAX: u32 = 10_000;
/// Pages that one of them takes at a time.
const PAGES_AT_ONCE: usize = 8;
/// Items whose lines of the index are asked for ahead of time.
const BATCH: usize = 32;

/// What a memory file held.
#[derive(Clone, Debug, Default)]
pub struct Restart {
    /// Items that are there again.
    pub kept: u64,
    /// Items that were expired or flushed.
    pub dead: u64,
    /// Items that were torn or damaged.
    pub dropped: u64,
    /// Pages that were damaged or missing.
    pub pages_lost: u64,
    /// There was something to come back.
    pub warm: bool,
    /// The server that had the file had ended as it should.
    pub clean: bool,
    pub took: Duration,
}

/// The pages of a shard that are still to be gone through.
pub(super) type Pages = Vec<(PageNo, ClassId)>;

/// Linked items on these pages, whatever they are worth: what the index is made for.
pub(super) fn count_linked<P: Send>(slabs: &Slabs<P>, pages: &Pages) -> u64 {
    let count = |&(page, class): &(PageNo, ClassId)| {
        let chunks = 0..slabs.geometry().chunks_per_page(class);
        let word = |index| slabs.chunk_at(page, class, index).word();
        let linked = chunks
            .filter(|index| {
                let standing = Standing(slabs.words()[word(*index)].load(Relaxed));
                standing.state() == State::Linked
            })
            .count();
        linked as u64
    };
    let sum = Mutex::new(0);
    share_out(pages, |pages| {
        let counted: u64 = pages.iter().map(count).sum();
        *sum.lock().expect("nobody panics with it") += counted;
    });
    sum.into_inner().expect("nobody panics with it")
}

/// Has several threads call `work` until all pages are done.
fn share_out(pages: &Pages, work: impl Fn(&[(PageNo, ClassId)]) + Sync) {
    let pieces: Vec<_> = pages.chunks(PAGES_AT_ONCE).collect();
    let next = AtomicUsize::new(0);
    let work_on = || {
        while let Some(piece) = pieces.get(next.fetch_add(1, Relaxed)) {
            work(piece);
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 1..cores.min(THREADS_MAX).min(pieces.len()) {
            scope.spawn(work_on);
        }
        work_on();
    });
}

impl Store {
    /// Brings the items of each shard's pages back. Nobody else knows of the store yet.
    pub(super) fn restart(&self, shards: Vec<Pages>, lost: u64) {
        let Some(file) = &self.file else { return };
        let began = Instant::now();
        let before = file.before.unwrap_or_default();
        let mut told = Restart { warm: file.before.is_some(), ..Restart::default() };
        (told.clean, told.pages_lost) = (before.clean, lost);
        let (horizon, seals) = (self.horizon(), Seals(before.seals));
        for (shard, pages) in self.shards.iter().zip(shards) {
            let scans = Mutex::new(Vec::new());
            share_out(&pages, |pages| {
                let local = scans.lock().expect("nobody panics with it").pop();
                let mut scan = local.unwrap_or_else(|| Scan::new(self, shard, horizon, seals));
                pages.iter().for_each(|(page, class)| scan.page(*page, *class));
                scans.lock().expect("nobody panics with it").push(scan);
            });
            let scans = scans.into_inner().expect("nobody panics with it");
            shard.settle(scans, &mut told);
            if !shard.is_segmented() {
                shard.tending.lock().begin();
            }
        }
        self.come_within_limit();
        told.kept = self.shards.iter().map(|shard| shard.items.load(Relaxed)).sum();
        told.took = began.elapsed();
        file.restarted(&self.settings);
        tell(file.path(), &told);
        let _ = self.restarted.set(told);
    }

    /// A file may hold more than -m now allows: the mover gives pages up, as after
    /// `cache_memlimit`, but before anybody asks for memory. With -M these are what no item needs.
    fn come_within_limit(&self) {
        let l = self.local();
        let mut rests = 0;
        while self.over_limit() > 0 && rests < RESTS_MAX {
            let rests_now = self.move_step(&l) == Pace::Rest;
            rests += u32::from(rests_now);
            if rests_now && !self.settings.evict && !self.stats.moves.running.load(Relaxed) {
                break;
            }
        }
        if self.over_limit() > 0 {
            warn!("-m: {}", self.excess());
        }
    }

    /// What a memory file held at the start; `None` without one.
    pub fn restarted(&self) -> Option<&Restart> {
        self.restarted.get()
    }

    /// Pages that could not be had because the memory file's file system is full.
    pub fn pages_refused(&self) -> u64 {
        self.shards.iter().map(|shard| shard.slabs.pages_refused()).sum()
    }

    /// The end: all threads but this one are gone. With a memory file, the next start finds it as
    /// it is now.
    pub fn close(&self) {
        self.note_time();
        self.file.iter().for_each(|file| file.close());
    }

    /// Notes in the ledger what time it is, and how far the index has grown.
    pub(super) fn note_time(&self) {
        let Some(file) = &self.file else { return };
        let lines: u32 = self.shards.iter().map(|shard| shard.index.len()).max().unwrap_or(0);
        file.ledger.update(|entry| {
            entry.last = entry.last.max(self.clock.now());
            entry.lines = entry.lines.max(lines);
        });
    }
}

fn tell(path: &std::path::Path, told: &Restart) {
    if !told.warm {
        return;
    }
    let Restart { kept, dead, dropped, pages_lost, took, .. } = told;
    let line = format!(
        "-e {}: {kept} items are back after {:.2} s; {dead} had died meanwhile, {dropped} were \
         torn or damaged, {pages_lost} pages were damaged or missing",
        path.display(),
        took.as_secs_f64(),
    );
    match (told.clean, dropped + pages_lost) {
        (true, 0) => info!("{line}"),
        (true, _) => warn!("{line}"),
        (false, _) => warn!("{line} (the file was not closed)"),
    }
}

/// What one thread finds.
struct Scan<'a> {
    shard: &'a Shard,
    l: Local,
    horizon: Horizon,
    /// What the seals in the file cover.
    seals: Seals,
    /// Items to be put into the index, with their hashes.
    batch: Vec<(ChunkRef, u64)>,
    /// Heads of chains that are in the index.
    heads: Vec<ChunkRef>,
    /// All bodies, whosever they are.
    bodies: Vec<ChunkRef>,
    /// Items whose twin is in the index, or for which there is no room there.
    losers: Vec<ChunkRef>,
    dead: u64,
    dropped: u64,
}

/// What a chunk of a file is.
enum Is {
    Item {
        deadline: u32,
    },
    Body,
    /// Expired or flushed.
    Dead,
    /// It was linked, but is torn or damaged.
    Torn,
    Free,
}

impl<'a> Scan<'a> {
    fn new(store: &Store, shard: &'a Shard, horizon: Horizon, seals: Seals) -> Scan<'a> {
        Scan {
            shard,
            l: store.local(),
            horizon,
            seals,
            batch: Vec::with_capacity(BATCH),
            heads: Vec::new(),
            bodies: Vec::new(),
            losers: Vec::new(),
            dead: 0,
            dropped: 0,
        }
    }

    fn page(&mut self, page: PageNo, class: ClassId) {
        let shard = self.shard;
        let (mut earliest, mut bodies) = (u32::MAX, 0);
        shard.slabs.restore_page(page, class, |chunk| {
            match self.judge(chunk) {
                Is::Item { deadline } => {
                    if deadline != 0 {
                        earliest = earliest.min(deadline);
                    }
                    self.take_in(chunk);
                    return true;
                }
                Is::Body => {
                    bodies += 1;
                    shard.item(chunk).forget_process();
                    self.bodies.push(chunk);
                    return true;
                }
                Is::Dead => self.dead += 1,
                Is::Torn => self.dropped += 1,
                Is::Free => {}
            }
            let item = shard.item(chunk);
            if item.shape().0 != 0 {
                item.clear_bits(u32::MAX);
            }
            if item.standing() != Standing::FREE {
                item.set_standing(Standing::FREE);
            }
            false
        });
        self.link_batch();
        shard.slabs.lock(class).bodies += bodies;
        if earliest != u32::MAX {
            shard.slabs.note_page_deadline(page, class, earliest);
        }
    }

    fn judge(&self, chunk: ChunkRef) -> Is {
        let item = self.shard.item(chunk);
        let standing = item.standing();
        match standing.state() {
            State::Reserved if standing.is_body() => return Is::Body,
            State::Linked => {}
            _ => return Is::Free,
        }
        let slabs = &self.shard.slabs;
        if self.horizon.flushed(standing) {
            return Is::Dead;
        }
        let (seals, horizon) = (self.seals, self.horizon);
        if !item::is_sound(slabs, chunk) || !self.shard.check_seal(&self.l, chunk, seals, horizon) {
            return Is::Torn;
        }
        let deadline = item.deadline(item.shape());
        if self.horizon.expired(deadline) {
            return Is::Dead;
        }
        Is::Item { deadline }
    }

    /// An item is good; its line of the index is asked for.
    fn take_in(&mut self, chunk: ChunkRef) {
        let item = self.shard.item(chunk);
        item.wake(self.horizon.stamp);
        let hash = self.l.with_key(item, item.shape(), |key| self.shard.hash_bytes(key));
        self.shard.index.prefetch(hash);
        self.batch.push((chunk, hash));
        if self.batch.len() == BATCH {
            self.link_batch();
        }
    }

    fn link_batch(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        batch.iter().for_each(|(chunk, hash)| self.link(*chunk, *hash));
        self.batch = batch;
        self.batch.clear();
    }

    fn link(&mut self, chunk: ChunkRef, hash: u64) {
        let (shard, l) = (self.shard, &self.l);
        let mut line = shard.index.lock(hash);
        let twin = line.find(|other| item::have_same_key(&shard.slabs, chunk, other));
        if let Some((slot, other)) = twin {
            // The one that was looked at last, if that can be told.
            let second = shard.item(chunk).standing();
            let newer = !second.at_or_before(shard.item(other).standing().second());
            if !newer {
                self.losers.push(chunk);
                return;
            }
            line.replace(slot, chunk);
            shard.replaced(l, other, chunk);
            self.losers.push(other);
        } else if line.insert(chunk).is_ok() || (shard.force_nodes() && line.insert(chunk).is_ok())
        {
            shard.linked(l, chunk);
        } else {
            self.dropped += 1;
            self.losers.push(chunk);
            return;
        }
        if shard.item(chunk).shape().chained() {
            self.heads.push(chunk);
        }
    }
}

impl Shard {
    /// Room for more nodes, even past the limit: what is over it is given up when all are back.
    fn force_nodes(&self) -> bool {
        if !self.rules.pages_alone {
            self.slabs.recharge(0, BLOCK_BYTES);
        }
        self.index.add_nodes()
    }

    /// All pages are gone through: frees what came to nothing.
    fn settle(&self, scans: Vec<Scan<'_>>, told: &mut Restart) {
        let losers: HashSet<ChunkRef> =
            scans.iter().flat_map(|scan| scan.losers.iter().copied()).collect();
        let mut claimed = HashSet::new();
        let heads = scans.iter().flat_map(|scan| &scan.heads);
        for head in heads.filter(|head| !losers.contains(head)) {
            let bodies: Vec<ChunkRef> = item::chunks_of(&self.slabs, *head).skip(1).collect();
            if bodies.iter().any(|body| claimed.contains(body)) {
                // Two that are no twins cannot both be right.
                self.unlink_head(&scans[0].l, *head);
                told.dropped += 1;
                continue;
            }
            claimed.extend(bodies);
            item::adopt_bodies(&self.slabs, *head);
        }
        // Their bodies, if they have any, are their twins'.
        losers.iter().for_each(|chunk| self.put(*chunk));
        for scan in &scans {
            let bodies = scan.bodies.iter().filter(|body| !claimed.contains(body));
            bodies.for_each(|body| self.put(*body));
            told.dead += scan.dead;
            told.dropped += scan.dropped;
        }
    }

    fn unlink_head(&self, l: &Local, head: ChunkRef) {
        if let Some((mut line, slot)) = self.line_of(l, head) {
            line.remove(slot);
            self.unlinked(l, head);
            self.put(head);
        }
    }
}

/// Lines for so many items, of which `least` is the fewest: about two thirds full.
pub(super) fn lines_for(items: u64, least: u32, most: u32) -> u32 {
    let lines = items * 3 / (resize::LOAD_MAX * 2);
    let lines = lines.next_multiple_of(index::LINE_STEP.into()).max(least.into());
    lines.min(most.into()) as u32
}
