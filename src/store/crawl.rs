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
use super::upkeep::Pace;
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
/// Longest rest of a crawl that is waited for.
const NAP_MAX: Duration = Duration::from_millis(1);
/// Lines that a crawl looks at in one step: some tens of microseconds of work.
const LINES_PER_STEP: u32 = 16;

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

    /// A bounded step of the crawl.
    pub(super) fn crawl_step(&self, l: &Local) -> Pace {
        if !self.crawler.running.load(Acquire) {
            return Pace::Rest;
        }
        let job = &mut *self.crawler.job.lock();
        if let Some(until) = job.sleeps_until {
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => job.sleeps_until = None,
                left if left > NAP_MAX => return Pace::Rest,
                _ => {
                    // Too short to be slept through by everybody's background work.
                    std::thread::yield_now();
                    return Pace::Spare;
                }
            }
        }
        for _ in 0..LINES_PER_STEP {
            if job.is_done(self.shards.len()) {
                self.crawler.running.store(false, Release);
                return Pace::Rest;
            }
            self.crawl_line(l, job);
            if job.unslept >= ITEMS_PER_SLEEP {
                let sleep = Duration::from_micros(self.knobs.crawler_sleep.load(Relaxed).into());
                job.unslept = 0;
                job.sleeps_until = Some(Instant::now() + sleep);
                break;
            }
            if l.tick.is_over() {
                break;
            }
        }
        Pace::Spare
    }

    /// Checks the items of one line, and frees the dead ones.
    fn crawl_line(&self, l: &Local, job: &mut Job) {
        let shard = &self.shards[job.place.shard];
        let (mut line, span) = shard.index.lock_span(job.place.upper as u32);
        let horizon = self.horizon();
        wanted_of(shard, &line, &job.classes, &mut job.chunks);
        job.chunks.iter().for_each(|chunk| shard.item(*chunk).prefetch());
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
            // What lies before the span was shown already, and what lies behind it will be.
            let due = span.contains(&(shard.hash_bytes(&key) >> 32));
            if due && let Some(listed) = store.listed(shard, chunk, &key, horizon) {
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
            class: shard.class_id(chunk),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Exptime};
    use crate::config::Settings;
    use crate::store::{Key, Set};
    use std::collections::HashMap;

    fn store() -> (Arc<Store>, Local) {
        let clock = Arc::new(Clock::manual(1_700_000_000));
        let settings = Settings { lru_crawler_sleep: 0, ..Settings::default() };
        let store = Store::new(Arc::new(settings), clock).expect("a store");
        let local = store.local();
        (store, local)
    }

    fn put(store: &Arc<Store>, l: &Local, name: &str, exptime: i64, value: &[u8]) {
        let key = Key::new(name.as_bytes()).expect("a key");
        let exptime = Exptime(exptime);
        let set = Set { exptime, ..Set::of(key, value.len() as u32) };
        store.set(l, &set, store.hash(key), value).expect("room");
    }

    fn fill(
        store: &Arc<Store>,
        l: &Local,
        what: &str,
        numbers: std::ops::Range<u32>,
        exptime: i64,
    ) {
        for n in numbers {
            put(store, l, &format!("{what}{n}"), exptime, b"v");
        }
    }

    /// How often each key is shown by what is left of a dump.
    fn rest_of(dump: &mut Dump, l: &Local, shown: &mut HashMap<String, u32>) {
        while dump.step(l, |item| note(shown, item)) {}
    }

    fn note(shown: &mut HashMap<String, u32>, item: &Listed<'_>) {
        let key = String::from_utf8_lossy(item.key).into_owned();
        *shown.entry(key).or_default() += 1;
    }

    fn crawl_all(store: &Arc<Store>, l: &Local) {
        assert!(store.crawl(Classes::ALL));
        while store.crawl_step(l) != Pace::Rest {}
    }

    fn sums(store: &Arc<Store>) -> (u64, u64) {
        let classes = store.stats.class_sums();
        let reclaimed = classes.iter().map(|class| class.crawler_reclaimed).sum();
        (reclaimed, classes.iter().map(|class| class.crawler_items_checked).sum())
    }

    fn items(store: &Arc<Store>) -> u64 {
        store.stats.levels().iter().map(|(items, _)| items).sum()
    }

    #[test]
    fn a_dump_shows_what_lives_throughout_once_while_the_index_grows() {
        let (store, l) = store();
        fill(&store, &l, "old", 0..40_000, 0);
        let lines = store.shards[0].index.len();
        let (mut dump, mut shown) = (store.dump(Classes::ALL), HashMap::new());
        for _ in 0..lines / 3 {
            assert!(dump.step(&l, |item| note(&mut shown, item)));
        }
        // It grows while the dump goes on, step by step, and past the dump.
        fill(&store, &l, "new", 0..300_000, 0);
        let mut grew = false;
        while dump.step(&l, |item| note(&mut shown, item)) {
            store.tick(&l);
            grew |= store.shards[0].index.is_growing();
        }
        assert!(grew && store.shards[0].index.len() > lines);
        for n in 0..40_000 {
            assert_eq!(shown.get(&format!("old{n}")), Some(&1), "old{n}");
        }
        assert!(shown.values().all(|times| *times == 1), "something was shown twice");
    }

    #[test]
    fn a_dump_keeps_to_its_classes_and_to_the_living() {
        let (store, l) = store();
        put(&store, &l, "small", 0, b"v");
        put(&store, &l, "large", 0, &[b'v'; 2000]);
        put(&store, &l, "short", 5, b"v");
        let class = |name: &str| {
            let key = Key::new(name.as_bytes()).expect("a key");
            store.inspect(&l, key, store.hash(key)).expect("it is there").class
        };
        let classes = store.classes(&[class("large")]).expect("classes");
        store.clock().advance(5);
        for (classes, expected) in
            [(classes, vec!["large"]), (Classes::ALL, vec!["large", "small"])]
        {
            let mut shown = HashMap::new();
            rest_of(&mut store.dump(classes), &l, &mut shown);
            let mut names: Vec<_> = shown.keys().map(String::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, expected);
        }
        store.flush_all(&l, None);
        let mut shown = HashMap::new();
        rest_of(&mut store.dump(Classes::ALL), &l, &mut shown);
        assert!(shown.is_empty());
    }

    #[test]
    fn an_item_is_listed_as_it_is() {
        let (store, l) = store();
        let key = Key::new(b"some key").expect("a key");
        let set = Set {
            exptime: Exptime(100),
            client_flags: 7,
            binary_key: true,
            new_cas: Some(9),
            ..Set::of(key, 1)
        };
        store.set(&l, &set, store.hash(key), b"v").expect("room");
        store.clock().advance(3);
        let mut seen = None;
        let mut dump = store.dump(Classes::ALL);
        while dump.step(&l, |item| {
            seen = Some((item.key.to_vec(), item.expires, item.last_access, item.cas));
            assert_eq!((item.client_flags, item.fetched, item.binary_key), (7, false, true));
            assert!(item.size >= 17 && item.class > 0);
        }) {}
        let expected = (b"some key".to_vec(), Some(1_700_000_100), 1_700_000_000, 9);
        assert_eq!(seen, Some(expected));
    }

    #[test]
    fn class_ids_are_memcacheds_and_the_ladders() {
        let (store, _) = store();
        let largest = u32::from(store.shards[0].slabs.geometry().largest().0);
        for good in [&[1][..], &[63], &[largest], &[]] {
            assert!(store.classes(good).is_some(), "{good:?}");
        }
        for bad in [&[0][..], &[largest.max(63) + 1], &[1, u32::MAX]] {
            assert_eq!(store.classes(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_crawl_frees_the_dead_and_counts() {
        let (store, l) = store();
        fill(&store, &l, "ever", 0..5000, 0);
        fill(&store, &l, "soon", 0..5000, 5);
        crawl_all(&store, &l);
        assert_eq!(sums(&store), (0, 10_000));
        store.clock().advance(5);
        crawl_all(&store, &l);
        assert_eq!((sums(&store), items(&store)), ((5000, 20_000), 5000));
        assert_eq!(store.stats.class_sums().iter().map(|c| c.expired_unfetched).sum::<u64>(), 5000);
        store.flush_all(&l, None);
        crawl_all(&store, &l);
        assert_eq!((sums(&store), items(&store)), ((10_000, 25_000), 0));
        assert_eq!(store.validate(), Ok(()));
    }

    #[test]
    fn one_crawl_at_a_time_and_dumps_beside_it() {
        let (store, l) = store();
        fill(&store, &l, "a", 0..100, 0);
        assert_eq!(store.crawler_figures(), (false, 0));
        assert!(store.crawl(Classes::ALL) && !store.crawl(Classes::ALL));
        let dumps = [store.dump(Classes::ALL), store.dump(Classes::ALL)];
        while store.crawl_step(&l) != Pace::Rest {}
        assert_eq!(store.crawler_figures(), (true, 3), "dumps are under way");
        drop(dumps);
        assert_eq!(store.crawler_figures(), (false, 3));
        crawl_all(&store, &l);
    }

    #[test]
    fn crawls_of_a_few_items_take_turns_over_all() {
        let (store, l) = store();
        fill(&store, &l, "soon", 0..10_000, 5);
        store.clock().advance(5);
        store.knobs.crawler_tocrawl.store(1000, Relaxed);
        for round in 1..=10 {
            crawl_all(&store, &l);
            assert_eq!(sums(&store), (round * 1000, round * 1000));
        }
        assert_eq!(items(&store), 0);
    }

    #[test]
    fn a_crawl_sleeps_after_a_thousand_items() {
        let (store, l) = store();
        fill(&store, &l, "a", 0..3000, 0);
        store.knobs.crawler_sleep.store(1_000_000, Relaxed);
        assert!(store.crawl(Classes::ALL));
        while store.crawl_step(&l) == Pace::Spare {}
        let (_, checked) = sums(&store);
        assert!((1000..1100).contains(&checked), "{checked}");
        assert_eq!((store.crawl_step(&l), sums(&store)), (Pace::Rest, (0, checked)));
        assert!(!store.crawl(Classes::ALL), "it is still under way");
        // A short rest is soon over.
        store.knobs.crawler_sleep.store(200, Relaxed);
        store.crawler.job.lock().sleeps_until = Some(Instant::now() + Duration::from_micros(500));
        while store.crawl_step(&l) != Pace::Rest {}
        assert_eq!(sums(&store), (0, 3000));
    }
}
