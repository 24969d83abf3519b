//! memcached's semantics over the slab engine.
//!
//! Invariants, walked by [`Store::validate`] (X1 to X3 stand in `index`, C1 to C3 in `slab`):
//!
//! - I1 pages in use and what is charged beside them stay within -m;
//! - I2 each chunk is exactly one of free, reserved, linked, dying; a reserved one has one owner: a
//!   thread or, of a value on its way, whoever has its lock (`arrivals`);
//! - I3 linked ⇔ in the index, under the line of its key's hash, and only once;
//! - I4 who takes a chunk out of the index frees it, unless it is pinned: then the last pin does;
//! - I5 key and value of a linked or pinned item do not change, but for incr, decr and a set of the
//!   same measures in place under the line's lock, which pinned items (they are wide) are too long
//!   for;
//! - I6 counts and bytes per class equal the sum of its items;
//! - I7 automatic CAS uniques strictly increase;
//! - I8 every loop, queue and buffer has a named limit.
//!
//! Lock order: line, then class, then pool; the pin table's lock is taken last and alone.

mod arrivals;
mod automove;
mod census;
mod change;
mod crawl;
#[cfg(feature = "debug-commands")]
mod debug;
mod draft;
mod evacuate;
mod evict;
mod file;
#[cfg(all(test, not(any(loom, miri))))]
mod flooding;
mod flush;
mod ghost;
mod grain;
mod held;
mod idle;
mod index;
mod knobs;
mod least;
mod limit;
mod mover;
mod overwrite;
mod pins;
mod prefault;
mod read;
mod reclaim;
mod report;
mod requests;
mod resize;
mod restart;
mod savings;
#[cfg(all(test, not(any(loom, miri))))]
mod scarcity;
mod seals;
mod shard;
mod spare;
mod steal;
mod tell;
mod tend;
#[cfg(test)]
mod testing;
mod tick;
mod types;
mod upkeep;
mod vacant;
mod validate;
mod victims;
mod write;

pub use automove::{Why, Worth};
pub use crawl::{Classes, Dump, Listed};
#[cfg(feature = "debug-commands")]
pub use debug::DebugItem;
pub use draft::Reservation;
pub use index::Blocked;
pub use knobs::{Knobs, Real};
pub use least::check;
pub use mover::{Moved, Reassign};
pub use pins::Pin;
pub use read::Hit;
pub use requests::{Arith, Delete, Deleter, Fetch, Get, Set, SetMode, Touch};
pub use restart::Restart;
pub use slab::LongWaits;
pub use types::{
    ArithOutcome, ClassInfo, DeleteOutcome, FetchOutcome, GhostInfo, Inspection, Key, KeyHash,
    Local, MemoryInfo, Outcome, Refusal, StoreInfo, TouchOutcome,
};
pub use upkeep::Pace;

use crate::clock::{Clock, Exptime};
use crate::config::{Layout, Settings};
use crate::stats::{Buffers, Prefixes, Stats};
use crate::watch::Watch;
use arrivals::Arrivals;
use crawl::Crawler;
use evict::{Duel, Policy, Rule};
use file::MemoryFile;
use flush::{Flush, Horizon};
use ghost::Ghost;
use index::Index;
use log::warn;
use parking_lot::Mutex;
use pins::Pins;
use rapidhash::v3::RapidSecrets;
use restart::Pages;
use savings::AllSavings;
use seals::Seals;
use shard::{Rules, Shard};
use slab::sync::MODELLED;
use slab::{Geometry, GeometryError, Options, Slabs, Words};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use types::Sizes;
use vacant::Vacant;
use victims::Victims;

/// Bytes of a page in the compact layout.
const COMPACT_PAGE: u32 = 64 << 10;
/// Bytes of a page where -m is so small that 64 KiB would be too coarse.
const SMALL_PAGE: u32 = if MODELLED { 512 } else { 32 << 10 };
/// Growth factor of the compact ladder, where -f does not say otherwise.
const COMPACT_FACTOR: f64 = 1.08;
/// Smallest chunk of the compact ladder, bytes.
const COMPACT_SMALLEST: u32 = 24;
/// Bytes of -m for one arena: its references reach 16 GiB, and pages beyond -m need room too.
const ARENA_MAX: u64 = 15 << 30;
/// Values that are still being sent may take one in so many bytes of -m when nobody else can have
/// them any more.
const UNLINKED_SHARE: u64 = 8;
/// Values that are still on their way may take up one in so many bytes of -m.
const ARRIVING_SHARE: u64 = 2;
/// Bytes of an arena from which on it and its index are worth huge pages, also without -L.
const HUGE_PAGES_FROM: u64 = 32 << 20;
/// One in so many bytes of it stays in small pages: what the index will take of the limit, so that
/// no huge page stays half used.
const SMALL_PAGES_SHARE: u64 = 8;
/// Buckets of 8 bytes that memcached starts with: 2^16.
const HASHPOWER_DEFAULT: u32 = 16;
/// Bytes of memcached's hash table per bucket, by which `hash_power_level` is stated.
const BUCKET_BYTES: u64 = 8;
/// CAS uniques that are reserved at once in a memory file's ledger.
const CAS_BLOCK: u64 = 1 << 20;

/// What a memory file has for a shard: pages with their classes, and how many more it has lost.
type Found = (Pages, u32);

pub struct Store {
    clock: Arc<Clock>,
    settings: Arc<Settings>,
    stats: Arc<Stats>,
    watch: Arc<Watch>,
    shards: Box<[Shard]>,
    flush: Flush,
    /// The CAS unique last given out.
    cas: AtomicU64,
    /// The last that may be: those behind are not in the memory file's ledger yet.
    cas_reserved: AtomicU64,
    /// -C, which every write asks for.
    use_cas: bool,
    knobs: Knobs,
    mover: Mutex<mover::Mover>,
    /// The background thread, once there is one.
    upkeep: OnceLock<Thread>,
    /// The one that brings memory ahead, once there is one.
    prefaulter: OnceLock<Thread>,
    /// The one that does so in haste, and gathers what came small, once there is one.
    hurrier: OnceLock<Thread>,
    intake: grain::Intake,
    /// -m as it is now, bytes.
    limit: AtomicU64,
    crawler: Crawler,
    /// Every thread's count of items per size.
    sizes: Mutex<Vec<Arc<Sizes>>>,
    /// -e
    file: Option<MemoryFile>,
    restarted: OnceLock<Restart>,
    #[cfg(feature = "debug-commands")]
    debug_pins: debug::DebugPins,
}

impl Store {
    /// A store by `settings`. Memory is reserved here and used as items come. With a memory file,
    /// what it holds is back when this returns, and `clock` has gone on where the file's was.
    pub fn new(settings: Arc<Settings>, clock: Arc<Clock>) -> Result<Arc<Store>, String> {
        let ladder = geometry(&settings)?;
        let file = MemoryFile::open(&settings, &ladder, &clock)?;
        let geometry = file.as_ref().map_or(ladder, MemoryFile::geometry);
        let classes = geometry.classes().count() + 1;
        let fds = settings.max_connections as usize + 1024;
        let prefixes = Prefixes::new(settings.prefix_delimiter, settings.detail_enabled)
            .at_most(settings.prefixes_max());
        let least = settings.cache_bytes().div_ceil(ARENA_MAX).max(1);
        let count = file.as_ref().map_or(least, MemoryFile::shards);
        let fresh = || if MODELLED { 1 } else { RandomState::new().build_hasher().finish() };
        let secrets = RapidSecrets::seed(file.as_ref().map_or_else(fresh, MemoryFile::seed));
        let (mut shards, mut found) = (Vec::new(), Vec::new());
        for n in 0..count {
            let place = file.as_ref().map(|file| (file, n));
            let limit = settings.cache_bytes() / count;
            let (shard, there) = make_shard(&settings, &geometry, limit, secrets, place)?;
            shards.push(shard);
            found.push(there);
        }
        let buffers = Buffers::new(settings.buffers_max(), settings.max_connections);
        let ledger = file.as_ref().map(|file| file.ledger.clone());
        let cas = ledger.as_ref().map(|ledger| u64::from(ledger.entry().cas_blocks) * CAS_BLOCK);
        let store = Arc::new(Store {
            clock,
            stats: Arc::new(Stats::new(classes, fds, prefixes, buffers)),
            watch: Watch::new(settings.worker_logbuf_size, settings.watcher_logbuf_size),
            shards: shards.into(),
            flush: ledger.map_or_else(Flush::new, Flush::kept_in),
            cas: AtomicU64::new(cas.unwrap_or(0)),
            cas_reserved: AtomicU64::new(cas.unwrap_or(u64::MAX)),
            use_cas: settings.use_cas,
            knobs: Knobs::new(&settings),
            mover: Mutex::default(),
            upkeep: OnceLock::new(),
            prefaulter: OnceLock::new(),
            hurrier: OnceLock::new(),
            intake: grain::Intake::default(),
            limit: AtomicU64::new(settings.maxbytes),
            crawler: Crawler::default(),
            sizes: Mutex::new(Vec::new()),
            file,
            restarted: OnceLock::new(),
            #[cfg(feature = "debug-commands")]
            debug_pins: Default::default(),
            settings,
        });
        let lost = found.iter().map(|(_, lost)| u64::from(*lost)).sum();
        store.restart(found.into_iter().map(|(pages, _)| pages).collect(), lost);
        Ok(store)
    }

    /// A handle for one more thread.
    pub fn local(&self) -> Local {
        let steps = self.settings.item_size_max / types::SIZE_STEP + 8;
        // Without memory for its histogram a thread counts all sizes as one.
        let cells = Words::reserve(steps as usize).or_else(|_| Words::reserve(1));
        let cells = cells.expect("one page of address space");
        let sizes = Arc::new(Sizes { cells, top: AtomicU32::new(0) });
        self.sizes.lock().push(sizes.clone());
        let counters = self.stats.register();
        let (stats, log) = (self.stats.clone(), self.watch.log(counters.clone()));
        let (scratch, spare, tick) = Default::default();
        Local { counters, stats, log, sizes, scratch, spare, tick }
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn knobs(&self) -> &Knobs {
        &self.knobs
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    #[inline]
    pub fn hash(&self, key: Key<'_>) -> KeyHash {
        self.shards[0].hash(key)
    }

    /// Starts loading the index line; of use some tens of nanoseconds later.
    #[inline]
    pub fn prefetch_line(&self, hash: KeyHash) {
        self.shard_of(hash).index.prefetch(hash.0);
    }

    /// Starts loading the item that a loaded index line points to, and where its CAS unique may be
    /// if that is asked for; where there is none, what is remembered of the key.
    #[inline]
    pub fn prefetch_item(&self, hash: KeyHash, cas: bool) {
        let shard = self.shard_of(hash);
        match shard.index.guess(hash.0) {
            Some(chunk) if chunk.word() < shard.slabs.words().len() => {
                shard.item(chunk).prefetch();
                if cas {
                    shard.item(chunk).prefetch_more();
                }
            }
            _ => shard.ghost.prefetch(hash.0),
        }
    }

    /// Everything stored so far dies at `at`, or now.
    pub fn flush_all(&self, l: &Local, at: Option<Exptime>) {
        l.counters.thread.flush_cmds.bump();
        let now = self.clock.now();
        let at = at.map(|e| self.clock.deadline(e).0).filter(|at| *at > now);
        self.flush.flush(now, at);
    }

    /// Changes whenever pins were revoked, and connections must be looked at for it.
    pub fn revocations(&self) -> u32 {
        self.shards.iter().fold(0, |sum, s| sum.wrapping_add(s.pins.revocations()))
    }

    #[inline]
    fn shard_no(&self, hash: KeyHash) -> usize {
        // Bits that neither the line nor the tag is made of.
        ((hash.0 >> 8 & 0xFFFF) as usize * self.shards.len()) >> 16
    }

    #[inline]
    fn shard_at(&self, shard: usize) -> &Shard {
        &self.shards[shard]
    }

    #[inline]
    fn shard_of(&self, hash: KeyHash) -> &Shard {
        &self.shards[self.shard_no(hash)]
    }

    #[inline]
    fn horizon(&self) -> Horizon {
        self.flush.horizon(self.clock.now())
    }

    fn next_cas(&self) -> u64 {
        let cas = self.cas.fetch_add(1, Relaxed) + 1;
        if cas > self.cas_reserved.load(Relaxed) {
            self.reserve_cas(cas);
        }
        cas
    }

    /// Has the memory file say that uniques up to this one, and some more, may be given out.
    #[cold]
    fn reserve_cas(&self, cas: u64) {
        let Some(file) = &self.file else { return };
        let blocks = (cas / CAS_BLOCK + 1) as u32;
        file.ledger.update(|entry| entry.cas_blocks = entry.cas_blocks.max(blocks));
        self.cas_reserved.fetch_max(u64::from(blocks) * CAS_BLOCK, Relaxed);
    }
}

/// The ladder that the settings ask for.
fn geometry(s: &Settings) -> Result<Geometry, String> {
    let chunk_max = s.slab_chunk_size_max;
    let made = if s.layout == Layout::Memcached && s.slab_sizes.is_empty() {
        Geometry::memcached(s.growth_factor, s.chunk_size, chunk_max)
    } else if !s.slab_sizes.is_empty() {
        Geometry::listed(&s.slab_sizes, chunk_max)
    } else if s.memcached_ladder() {
        Geometry::memcached(s.growth_factor, s.chunk_size, chunk_max)
    } else {
        let page = if s.cache_bytes() < 32 << 20 { SMALL_PAGE } else { COMPACT_PAGE };
        let factor = if s.growth_factor_given { s.growth_factor } else { COMPACT_FACTOR };
        let smallest = if s.chunk_size_given { 8 + s.chunk_size } else { COMPACT_SMALLEST };
        Geometry::compact(page, factor, smallest)
    };
    made.map_err(|e| match e {
        GeometryError::Factor => "-f: must be greater than 1".into(),
        GeometryError::Sizes => "chunk sizes must ascend and fit a page".into(),
    })
}

/// A shard with address space to grow beyond `limit`, where the system lets it have that.
fn make_shard(
    s: &Settings,
    geometry: &Geometry,
    limit: u64,
    secrets: RapidSecrets,
    place: Option<(&MemoryFile, u64)>,
) -> Result<(Shard, Found), String> {
    let reach = limit::reach_of(limit);
    reserve_shard(s, geometry, (limit, reach), secrets, place).or_else(|e| {
        if reach == limit {
            return Err(e);
        }
        let made = reserve_shard(s, geometry, (limit, limit), secrets, place)?;
        warn!("cache_memlimit cannot raise -m: {e}");
        Ok(made)
    })
}

/// An index with as many lines as hold the items that memcached would have put on the buckets that
/// it starts with, if -m can afford them; and for `items` that are there already.
fn reserve_index(
    s: &Settings,
    (limit, reach): (u64, u64),
    items: u64,
    file: Option<&MemoryFile>,
) -> std::io::Result<Index> {
    let power = if s.hashpower_init == 0 { HASHPOWER_DEFAULT } else { s.hashpower_init };
    let lines = ((1u64 << power) / 8).clamp(u64::from(index::LINE_STEP), 1 << 25);
    let affordable = if s.pages_alone() { u64::MAX } else { limit / 32 / index::LINE_BYTES };
    let lines = lines.min(affordable.max(u64::from(index::LINE_STEP))) as u32;
    let ceiling = resize::lines_ceiling(reach);
    let floor = lines.max(file::lines_before(s, file).min(ceiling));
    let lines = restart::lines_for(items, floor, index::LINES_MAX);
    Index::grown(lines, floor, ceiling.max(lines), limit >= HUGE_PAGES_FROM)
}

/// The engine of a shard, by itself or where the memory file has it, and what that holds.
fn reserve_slabs(
    s: &Settings,
    geometry: &Geometry,
    options: Options,
    place: Option<(&MemoryFile, u64)>,
) -> std::io::Result<(Slabs<Policy>, Found)> {
    let make = |huge_pages| {
        let options = Options { huge_pages, ..options };
        let Some((file, n)) = place else {
            return Ok((Slabs::new(geometry.clone(), options)?, Found::default()));
        };
        let pages = file.pages(n);
        let options = Options { ceiling: options.ceiling.max(pages), ..options };
        let place = file.place(n, options.ceiling)?;
        let slabs = Slabs::in_file(geometry.clone(), options, &place)?;
        let restored = slabs.restore_records(pages);
        Ok((slabs, (restored.pages, restored.lost)))
    };
    make(options.huge_pages).or_else(|e| {
        if options.huge_pages == 0 {
            return Err(e);
        }
        if s.large_pages {
            warn!("-L: no huge pages: {e}");
        }
        make(0)
    })
}

fn reserve_shard(
    s: &Settings,
    geometry: &Geometry,
    (limit, reach): (u64, u64),
    secrets: RapidSecrets,
    place: Option<(&MemoryFile, u64)>,
) -> Result<(Shard, Found), String> {
    let alone = s.pages_alone();
    let rule = Rule::of(s.eviction, s.lru_segmented, s.hot_lru_pct, alone);
    let page = u64::from(geometry.page_size());
    let classes = geometry.classes().count() as u64;
    let beyond = if alone { classes } else { 0 };
    let ceiling = (reach / page + beyond) as u32;
    let options = Options {
        limit,
        ceiling,
        chunk_overhead_64ths: if alone { 0 } else { rule.overhead_64ths() },
        first_page_beyond_limit: alone,
        reserve: !alone && !s.evict,
        huge_pages: match limit {
            _ if s.large_pages => ceiling,
            HUGE_PAGES_FROM.. => ((limit - limit / SMALL_PAGES_SHARE) / page) as u32,
            _ => 0,
        },
    };
    let failed = |e: std::io::Error| format!("failed to reserve {reach} bytes: {e}");
    let (slabs, found) = reserve_slabs(s, geometry, options, place).map_err(failed)?;
    if s.initial_malloc > 0 && !slabs.charge(s.initial_malloc) {
        return Err("more is malloced already than -m allows".into());
    }
    let items = restart::count_linked(&slabs, &found.0);
    let index = reserve_index(s, (limit, reach), items, place.map(|(file, _)| file));
    let index = index.map_err(failed)?;
    if !alone && !found.0.is_empty() {
        // What a file holds beyond -m is given up when all of it is there.
        slabs.recharge(0, index.bytes());
    } else if !alone && !slabs.charge(index.bytes()) {
        return Err(format!("-m of {limit} bytes is too small for an index"));
    }
    let ghost = Ghost::new(index.ceiling() / upkeep::LINES_PER_GHOST, classes as usize + 1);
    let ghost = ghost.map_err(failed)?;
    let shard = Shard {
        slabs,
        index,
        pins: Pins::new(limit / UNLINKED_SHARE),
        arrivals: Arrivals::new(limit / ARRIVING_SHARE),
        ghost,
        duel: Duel::new(classes as usize + 1),
        rule: AtomicU32::new(rule.pack()),
        secrets,
        rules: rules(s, place.is_some()),
        items: AtomicU64::new(0),
        victims: Victims::new(classes as usize + 1),
        reach,
        poorest: AtomicU32::new(0),
        vacant: Vacant::default(),
        queue_bytes: AtomicU64::new(0),
        savings: AllSavings::default(),
        reclaimer: Mutex::default(),
        tending: Mutex::default(),
    };
    Ok((shard, found))
}

fn rules(s: &Settings, in_file: bool) -> Rules {
    let as_memcached = s.layout == Layout::Memcached;
    Rules {
        as_memcached,
        pages_alone: s.pages_alone(),
        evict: s.evict,
        use_cas: s.use_cas,
        item_size_max: s.item_size_max,
        steal: !s.pages_alone(),
        seals: if in_file { file::seals_of(s) } else { Seals::NONE },
    }
}
