//! Walks over all items: dumps, which clients ask for and read at their own pace, and the crawl,
//! which the background thread does in steps.
//!
//! Both go by the hashes' upper halves, in order, one locked line at a time. Hashes do not change
//! when the index does, so an item that lives throughout is met, and a dump shows each key once.
//! Between two lines nothing is held.

use super::Store;
use super::flush::Horizon;
use super::index::LineGuard;
use super::shard::Shard;
use super::types::Local;
use crate::item::Shape;
use parking_lot::Mutex;
use slab::{ChunkRef, ClassId};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

/// Class ids that memcached knows, used or not.
const CLASS_IDS: usize = 64;
/// Items that a crawl checks before it sleeps.
const ITEMS_PER_SLEEP: u32 = 1000;
/// Lines that a crawl looks at in one step: some tens of microseconds of work.
const LINES_PER_STEP: u32 = 256;

/// Slab classes to walk: all, or those that are true by their id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes(Option<Box<[bool]>>);

impl Classes {
    pub const ALL: Classes = Classes(None);

    fn has(&self, class: ClassId) -> bool {
        self.0.as_ref().is_none_or(|wanted| wanted.get(class.index()) == Some(&true))
    }
}

/// Where a walk stands: a shard, and the upper half of the hashes to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    shard: usize,
    upper: u64,
}

impl Place {
    /// Where the walk goes on after a span that ends at `end`.
    fn after(self, end: u64) -> Place {
        match end >> 32 {
            0 => Place { upper: end, ..self },
            _ => Place { shard: self.shard + 1, upper: 0 },
        }
    }
}

/// An item as dumps show it. Times are unix times.
#[derive(Clone, Debug)]
pub struct Listed<'k> {
    pub key: &'k [u8],
    /// The second of its death; `None`: never.
    pub expires: Option<u64>,
    pub last_access: u64,
    /// 0 where it has none.
    pub cas: u64,
    pub fetched: bool,
    pub class: u32,
    /// Bytes as `stats` counts them.
    pub size: u32,
    pub client_flags: u32,
    /// The key came in base64.
    pub binary_key: bool,
}

/// A dump on its way. It holds nothing between two steps.
pub struct Dump {
    store: Arc<Store>,
    classes: Classes,
    place: Place,
    /// The references of the line in hand.
    chunks: Vec<ChunkRef>,
}

/// The crawl, of which there is one, and what counts dumps.
#[derive(Default)]
pub(super) struct Crawler {
    /// A crawl is under way: so that a tick without one costs a load.
    running: AtomicBool,
    job: Mutex<Job>,
    /// Dumps under way.
    dumps: AtomicU32,
    /// Crawls and dumps ever started.
    starts: AtomicU64,
}

struct Job {
    classes: Classes,
    /// Where it stands, and stays for the next one: with `tocrawl`, crawls take turns over all.
    place: Place,
    start: Place,
    wrapped: bool,
    /// Items still to check, by class id.
    left: Box<[u32]>,
    /// Items checked since it slept.
    unslept: u32,
    sleeps_until: Option<Instant>,
    /// The references of the line in hand.
    chunks: Vec<ChunkRef>,
}

impl Default for Job {
    fn default() -> Job {
        Job {
            classes: Classes::ALL,
            place: Place::default(),
            start: Place::default(),
            wrapped: false,
            left: Box::default(),
            unslept: 0,
            sleeps_until: None,
            chunks: Vec::new(),
        }
    }
}

impl Store {
    /// The classes of these ids; `None` where one of them cannot be a class.
    pub fn classes(&self, ids: &[u32]) -> Option<Classes> {
        let known = self.shards[0].slabs.geometry().largest().index() + 1;
        let mut wanted = vec![false; known.max(CLASS_IDS)];
        for id in ids {
            *wanted.get_mut(*id as usize).filter(|_| *id > 0)? = true;
        }
        Some(Classes(Some(wanted.into())))
    }

    /// Starts a dump. Any number may be under way.
    pub fn dump(self: &Arc<Self>, classes: Classes) -> Dump {
        self.crawler.dumps.fetch_add(1, Relaxed);
        self.crawler.starts.fetch_add(1, Relaxed);
        let (place, chunks) = (Place::default(), Vec::new());
        Dump { store: self.clone(), classes, place, chunks }
    }

    /// Starts a crawl, which checks at most `lru_crawler_tocrawl` items of each class; false where
    /// one is under way.
    pub fn crawl(&self, classes: Classes) -> bool {
        let mut job = self.crawler.job.lock();
        if self.crawler.running.load(Relaxed) {
            return false;
        }
        let limit = match self.knobs.crawler_tocrawl.load(Relaxed) {
            0 => u32::MAX,
            limit => limit,
        };
        let geometry = self.shards[0].slabs.geometry();
        let mut left = vec![0; geometry.largest().index() + 1];
        for class in geometry.classes().filter(|class| classes.has(*class)) {
            left[class.index()] = limit;
        }
        let place = job.place;
        *job = Job { classes, place, start: place, left: left.into(), ..Job::default() };
        self.crawler.starts.fetch_add(1, Relaxed);
        self.crawler.running.store(true, Release);
        true
    }

    /// True while a crawl or a dump is under way, and how many there ever were.
    pub(super) fn crawler_figures(&self) -> (bool, u64) {
        let crawler = &self.crawler;
        let running = crawler.running.load(Relaxed) || crawler.dumps.load(Relaxed) > 0;
        (running, crawler.starts.load(Relaxed))
    }

    /// A bounded step of the crawl; how long until the next is due, [`Duration::MAX`] where there
    /// is no crawl.
    pub(super) fn crawl_step(&self, l: &Local) -> Duration {
        if !self.crawler.running.load(Acquire) {
            return Duration::MAX;
        }
        let job = &mut *self.crawler.job.lock();
        if let Some(until) = job.sleeps_until {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return left;
            }
            job.sleeps_until = None;
        }
        for _ in 0..LINES_PER_STEP {
            if job.is_done(self.shards.len()) {
                self.crawler.running.store(false, Release);
                return Duration::MAX;
            }
            self.crawl_line(l, job);
            if job.unslept >= ITEMS_PER_SLEEP {
                let sleep = Duration::from_micros(self.knobs.crawler_sleep.load(Relaxed).into());
                job.unslept = 0;
                job.sleeps_until = Some(Instant::now() + sleep);
                return sleep;
            }
        }
        Duration::ZERO
    }

    /// Checks the items of one line, and frees the dead ones.
    fn crawl_line(&self, l: &Local, job: &mut Job) {
        let shard = &self.shards[job.place.shard];
        let (mut line, span) = shard.index.lock_span(job.place.upper as u32);
        let horizon = self.horizon();
        wanted_of(shard, &line, &job.classes, &mut job.chunks);
        for chunk in job.chunks.drain(..) {
            let class = shard.slabs.class_of(chunk);
            let left = &mut job.left[class.index()];
            if *left == 0 {
                continue;
            }
            *left -= 1;
            job.unslept += 1;
            shard.class_counters(l, class).crawler_items_checked.bump();
            shard.free_if_dead(l, &mut line, chunk, horizon);
        }
        job.place = job.place.after(span.end);
    }
}

impl Job {
    /// True where all classes had their share, or the walk is around; moves it to the first shard
    /// after the last.
    fn is_done(&mut self, shards: usize) -> bool {
        if self.place.shard == shards {
            self.place = Place::default();
            self.wrapped = true;
        }
        self.wrapped && self.place >= self.start || self.left.iter().all(|left| *left == 0)
    }
}

impl Shard {
    /// Frees a linked item of the locked line if it has expired or was flushed.
    fn free_if_dead(&self, l: &Local, line: &mut LineGuard<'_>, chunk: ChunkRef, h: Horizon) {
        let item = self.item(chunk);
        let standing = item.standing();
        let flushed = h.flushed(standing);
        if !flushed && !h.expired(item.deadline(item.shape())) {
            return;
        }
        let Some((slot, _)) = line.any_but(|other| other != chunk) else { return };
        let class = self.class_counters(l, self.slabs.class_of(chunk));
        class.crawler_reclaimed.bump();
        if !flushed && !standing.fetched() {
            class.expired_unfetched.bump();
        }
        line.remove(slot);
        self.unlinked(l, chunk);
        self.free(chunk);
    }
}

impl Dump {
    /// Shows the live items of the next line; false where there is no line left. They are shown
    /// under the line's lock: `show` must not wait for anything.
    pub fn step(&mut self, l: &Local, mut show: impl FnMut(&Listed<'_>)) -> bool {
        let store = &self.store;
        let Some(shard) = store.shards.get(self.place.shard) else { return false };
        let (line, span) = shard.index.lock_span(self.place.upper as u32);
        let horizon = store.horizon();
        wanted_of(shard, &line, &self.classes, &mut self.chunks);
        let mut key = l.scratch.take();
        for chunk in self.chunks.drain(..) {
            key.clear();
            let item = shard.item(chunk);
            item.copy_key(item.shape(), &mut key);
            // What lies before the place was shown already.
            let from = self.place.upper;
            let shown = span.start < from && shard.hash_bytes(&key) >> 32 < from;
            if !shown && let Some(listed) = store.listed(shard, chunk, &key, horizon) {
                show(&listed);
            }
        }
        l.scratch.set(key);
        self.place = self.place.after(span.end);
        true
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        self.store.crawler.dumps.fetch_sub(1, Relaxed);
    }
}

impl Store {
    /// A linked item, its line locked; `None` where it is dead.
    fn listed<'k>(
        &self,
        shard: &Shard,
        chunk: ChunkRef,
        key: &'k [u8],
        horizon: Horizon,
    ) -> Option<Listed<'k>> {
        let item = shard.item(chunk);
        let (shape, standing) = (item.shape(), item.standing());
        let deadline = item.deadline(shape);
        if horizon.flushed(standing) || horizon.expired(deadline) {
            return None;
        }
        Some(Listed {
            key,
            expires: (deadline != 0).then(|| self.clock.unix(deadline)),
            last_access: self.clock.unix(horizon.now.saturating_sub(standing.idle(horizon.now))),
            cas: item.cas(shape),
            fetched: standing.fetched(),
            class: u32::from(shard.slabs.class_of(chunk).0),
            size: shard.counted_size(&item.plan(shape)) as u32,
            client_flags: item.client_flags(shape),
            binary_key: shape.has(Shape::BINARY_KEY),
        })
    }
}

/// The references of a line that are of these classes, their items on the way from memory.
fn wanted_of(shard: &Shard, line: &LineGuard<'_>, classes: &Classes, chunks: &mut Vec<ChunkRef>) {
    line.for_each(|_, _, chunk| {
        if classes.has(shard.slabs.class_of(chunk)) {
            shard.item(chunk).prefetch();
            chunks.push(chunk);
        }
    });
}
