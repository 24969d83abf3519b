//! The reclaimer: gives the memory of expired and flushed items back unasked.
//!
//! Each page remembers the earliest deadline on it, each class that of its pages. Once a second, if
//! a class has one that has come, a pass over the pages' records in their order (they lie side by
//! side, and none needs a lock) finds the pages concerned, and each of these is visited: its dead
//! are gathered and their lines of the index asked for ahead of time, then unlinked line by line,
//! then freed under one lock of their class. After a flush every page is visited once.
//!
//! An allocation that finds its class without free chunks does a little of the same at once, and
//! some steps of the reclaimer's before it evicts anything.
//!
//! A page's earliest deadline is never later than what is on it, but for a page that is being
//! visited: whoever empties the cell looks at all chunks, or puts back what it took.

use super::flush::Horizon;
use super::shard::Shard;
use super::types::{Key, Local};
use super::upkeep::Pace;
use super::{Store, evict};
use crate::clock::Seconds;
use crate::config::Layout;
use crate::item::{Shape, State};
use slab::sync::Ordering::Relaxed;
use slab::{ChunkRef, ClassId, PageNo};
use std::mem::replace;
use std::ops::Range;

/// Records that one step of a pass looks at.
const RECORDS_PER_STEP: u32 = 4096;
/// Chunks that one step of a visit looks at.
const CHUNKS_PER_STEP: u32 = 256;
/// So many of them are gathered, unlinked and freed together.
const CHUNKS_AT_ONCE: u32 = 64;
/// Pages that one allocation looks at for something dead.
const PAGES_LOOKED_MAX: usize = 32;
/// The same where nothing may be evicted instead.
const PAGES_LOOKED_MAX_M: usize = 1024;
/// Chunks that one allocation frees.
const FREED_AT_ONCE: usize = 64;
/// Pages' worth of free chunks that a class keeps when its empty pages are given back.
pub(super) const PAGES_KEPT: u64 = 2;
/// Pages that deletes have emptied are looked for so often, seconds.
const EMPTIES_EVERY: Seconds = 10;
/// After `lru_crawler enable` without a maintainer, what is dead is left for so many seconds to the
/// crawl that the operator may be about to command.
const CRAWL_FIRST: Seconds = 2;

/// Where the reclaimer stands in a shard. The maintenance thread works with it, and allocations
/// that need memory lend a hand.
#[derive(Default)]
pub(super) struct Reclaimer {
    pass: Option<Pass>,
    /// Pages that a pass has found, at most all of the arena.
    due: Vec<PageNo>,
    visit: Option<Visit>,
    /// What a step has gathered; kept for its memory.
    dead: Vec<Dead>,
    /// When it was last asked whether anything is due.
    looked: Seconds,
    /// When the last pass began.
    passed: Seconds,
    /// When it was last seen switched off.
    off: Seconds,
    /// The flush for which every page was found.
    flushed: Seconds,
}

/// A walk over the records of all pages.
struct Pass {
    next: u32,
    /// It is for this flush, and so finds every page.
    flush: Option<Seconds>,
}

/// A page whose dead are being freed.
struct Visit {
    page: PageNo,
    class: ClassId,
    /// Chunks from here on are still to be looked at.
    next: u32,
}

/// An item that seems dead.
#[derive(Clone, Copy)]
struct Dead {
    chunk: ChunkRef,
    hash: u64,
}

/// What became of one.
enum Fate {
    /// Out of the index, and the caller's to free.
    Unlinked,
    /// Somebody else has freed it or given it a new life.
    Gone,
    /// To be tried again later: it is pinned, or its line is locked.
    Busy,
}

/// Chunks of a page to look at for the dead.
struct Hunt {
    class: ClassId,
    page: PageNo,
    chunks: Range<u32>,
    /// Stop when so many were found.
    most: usize,
    horizon: Horizon,
}

impl Store {
    /// A step of the reclaimer. It frees nothing where both lru_maintainer and lru_crawler are
    /// off, but still keeps classes' earliest deadlines true.
    pub(super) fn reclaim_step(&self, l: &Local) -> Pace {
        let horizon = self.horizon();
        let flush = self.flush.oldest_live();
        self.step_shards(l, |shard| {
            let Some(mut r) = shard.reclaimer.try_lock() else { return Pace::Rest };
            let on = self.reclaims(&mut r, horizon.now);
            shard.reclaim_step(l, &mut r, horizon, on.then_some(flush), self.returns_pages())
        })
    }

    fn reclaims(&self, r: &mut Reclaimer, now: Seconds) -> bool {
        if self.settings.lru_maintainer {
            return true;
        }
        if !self.knobs.crawler.load(Relaxed) {
            r.off = now;
        }
        now >= r.off + CRAWL_FIRST
    }

    /// memcached gives pages back only where they may move by themselves.
    pub(super) fn returns_pages(&self) -> bool {
        self.settings.layout == Layout::Compact || self.knobs.automove.load(Relaxed) > 0
    }
}

impl Shard {
    /// `flush`: what the last flush declared dead; `None`: the reclaimer is off.
    fn reclaim_step(
        &self,
        l: &Local,
        r: &mut Reclaimer,
        horizon: Horizon,
        flush: Option<Seconds>,
        return_pages: bool,
    ) -> Pace {
        if r.visit.is_some() {
            self.visit_step(l, r, horizon, return_pages);
        } else if let Some(page) = r.due.pop() {
            self.begin_visit(r, page, return_pages);
        } else if r.pass.is_some() || self.begin_pass(r, horizon.now, flush) {
            self.pass_step(r, horizon.now, flush.is_some());
        } else {
            r.due = Vec::new();
            return Pace::Rest;
        }
        Pace::Spare
    }

    /// A step of it for an allocation that needs memory; false where nothing is due, or somebody
    /// else is at it.
    pub fn help_reclaim(&self, l: &Local, horizon: Horizon) -> bool {
        let Some(mut r) = self.reclaimer.try_lock() else { return false };
        let seen = r.pass.as_ref().and_then(|pass| pass.flush).unwrap_or(0).max(r.flushed);
        // What died by a later flush than the caller knows of would be passed by.
        if horizon.flush < seen {
            return false;
        }
        let pace = self.reclaim_step(l, &mut r, horizon, Some(horizon.flush), true);
        if pace == Pace::Rest {
            self.vacant.note_clean(horizon);
        }
        pace != Pace::Rest
    }

    /// True where a pass is due.
    fn begin_pass(&self, r: &mut Reclaimer, now: Seconds, flush: Option<Seconds>) -> bool {
        let flush = flush.filter(|flush| *flush != r.flushed);
        if flush.is_none() {
            if r.looked == now {
                return false;
            }
            r.looked = now;
            let mut classes = self.slabs.geometry().classes();
            let due = classes.any(|class| self.slabs.earliest(class).is_some_and(|e| e <= now));
            if !due && now < r.passed + EMPTIES_EVERY {
                return false;
            }
        }
        for class in self.slabs.geometry().classes() {
            self.slabs.clear_earliest(class);
        }
        r.passed = now;
        r.pass = Some(Pass { next: 0, flush });
        true
    }

    /// Looks at some records. What is due stays noted as such in its class, so that allocations
    /// know of it while it waits for its visit.
    fn pass_step(&self, r: &mut Reclaimer, now: Seconds, on: bool) {
        let Some(pass) = &mut r.pass else { return };
        let pages = self.slabs.pages_touched();
        let end = pages.min(pass.next.saturating_add(RECORDS_PER_STEP));
        for page in (pass.next..end).map(PageNo) {
            let class = self.slabs.owner_of(page);
            if class == ClassId(0) {
                continue;
            }
            let earliest = self.slabs.page_earliest(page);
            if let Some(earliest) = earliest {
                self.slabs.note_class_deadline(class, earliest);
            }
            let dead = earliest.is_some_and(|e| e <= now) || pass.flush.is_some();
            if on && (dead || self.slabs.is_empty(page)) {
                r.due.push(page);
            }
        }
        pass.next = end;
        if end == pages {
            r.flushed = pass.flush.unwrap_or(r.flushed);
            r.pass = None;
        }
    }

    fn begin_visit(&self, r: &mut Reclaimer, page: PageNo, return_pages: bool) {
        let class = self.slabs.owner_of(page);
        if class != ClassId(0) && self.slabs.is_empty(page) {
            self.give_back(class, page, return_pages);
        } else if class != ClassId(0) {
            self.slabs.take_page_earliest(page);
            r.visit = Some(Visit { page, class, next: 0 });
        }
    }

    /// Frees the dead among some chunks of the page that is being visited.
    fn visit_step(&self, l: &Local, r: &mut Reclaimer, horizon: Horizon, return_pages: bool) {
        let Some(visit) = &mut r.visit else { return };
        let (page, class) = (visit.page, visit.class);
        if self.slabs.owner_of(page) != class {
            r.visit = None;
            return;
        }
        let chunks = self.slabs.geometry().chunks_per_page(class);
        let last = chunks.min(visit.next + CHUNKS_PER_STEP);
        while visit.next < last && !l.tick.is_over() {
            let end = last.min(visit.next + CHUNKS_AT_ONCE);
            let chunks = replace(&mut visit.next, end)..end;
            let hunt = Hunt { class, page, chunks, most: usize::MAX, horizon };
            self.reap(l, &hunt, &mut r.dead);
        }
        if visit.next == chunks {
            r.visit = None;
            self.give_back(class, page, return_pages);
        }
    }

    /// Gives a page back if it is empty and its class has chunks to spare without it.
    pub fn give_back(&self, class: ClassId, page: PageNo, return_pages: bool) {
        if !return_pages || !self.slabs.is_empty(page) {
            return;
        }
        let guard = self.slabs.lock(class);
        // Whose page it is, and that it is empty, counts only now.
        if self.slabs.owner_of(page) == class && guard.used_on(page) == 0 {
            self.release_empty(guard, page);
        }
    }

    /// Gives an empty page of a class to the pool, if it has more free chunks than it may need.
    pub fn release_empty(&self, mut class: evict::Class<'_>, page: PageNo) -> bool {
        let id = class.class();
        let kept = u64::from(self.slabs.geometry().chunks_per_page(id)) * PAGES_KEPT;
        if class.free_chunks() <= kept || !class.start_drain(page) {
            return false;
        }
        drop(class);
        self.end_drain(page, id, None)
    }

    /// Frees some expired items of the class, for an allocation that needs a chunk; false where
    /// none were soon found.
    pub fn reclaim_expired(&self, l: &Local, class: ClassId, horizon: Horizon) -> bool {
        let Some(page) = self.page_due(class, horizon) else { return false };
        let Some(earliest) = self.slabs.take_page_earliest(page) else { return false };
        let chunks = self.slabs.geometry().chunks_per_page(class);
        let mut dead = Vec::with_capacity(FREED_AT_ONCE);
        let hunt = Hunt { class, page, chunks: 0..chunks, most: FREED_AT_ONCE, horizon };
        let (freed, end) = self.reap(l, &hunt, &mut dead);
        if end < chunks {
            self.slabs.note_page_deadline(page, class, earliest);
        }
        freed > 0
    }

    /// A page of the class on which something has expired, if it is soon found.
    fn page_due(&self, class: ClassId, horizon: Horizon) -> Option<PageNo> {
        let mut guard = self.slabs.lock(class);
        let pages = guard.pages().len();
        let start = guard.due_from;
        let most = if self.rules.evict { PAGES_LOOKED_MAX } else { PAGES_LOOKED_MAX_M };
        for n in 0..pages.min(most) {
            let at = (start + n) % pages;
            guard.due_from = at + 1;
            let page = guard.pages()[at];
            if self.slabs.page_earliest(page).is_some_and(|e| e <= horizon.now) {
                return Some(page);
            }
        }
        None
    }

    /// Frees the dead that a hunt finds and notes the deadlines of the others; returns how many it
    /// freed, and where it stopped.
    fn reap(&self, l: &Local, hunt: &Hunt, dead: &mut Vec<Dead>) -> (usize, u32) {
        let (mut earliest, end) = self.gather(l, hunt, dead);
        dead.retain(|d| match self.unlink_dead(l, *d, hunt.horizon) {
            Fate::Unlinked => true,
            Fate::Gone => false,
            Fate::Busy => {
                // Also where only a flush has killed it.
                earliest = Some(hunt.horizon.now);
                false
            }
        });
        self.slabs.note_page_deadline(hunt.page, hunt.class, earliest.unwrap_or(0));
        let freed = dead.len();
        self.free_dead(hunt.class, dead);
        (freed, end)
    }

    /// Collects what seems dead and starts loading its lines of the index; returns the earliest
    /// deadline of what is alive, and where it stopped.
    fn gather(&self, l: &Local, hunt: &Hunt, dead: &mut Vec<Dead>) -> (Option<Seconds>, u32) {
        dead.clear();
        let mut key = l.scratch.take();
        key.reserve(Key::MAX + 8);
        let mut earliest: Option<Seconds> = None;
        let mut end = hunt.chunks.end;
        for index in hunt.chunks.clone() {
            if dead.len() == hunt.most {
                end = index;
                break;
            }
            let chunk = self.slabs.chunk_at(hunt.page, hunt.class, index);
            let item = self.item(chunk);
            let (standing, shape) = (item.standing(), item.shape());
            if standing.state() != State::Linked {
                continue;
            }
            let deadline = item.deadline(shape);
            if hunt.horizon.flushed(standing) || hunt.horizon.expired(deadline) {
                key.clear();
                item.copy_key(shape, &mut key);
                let hash = self.hash_bytes(&key);
                self.index.prefetch(hash);
                dead.push(Dead { chunk, hash });
            } else if deadline != 0 {
                earliest = Some(earliest.map_or(deadline, |e| e.min(deadline)));
            }
        }
        l.scratch.set(key);
        (earliest, end)
    }

    /// Takes an item out of the index if it is dead indeed.
    fn unlink_dead(&self, l: &Local, dead: Dead, horizon: Horizon) -> Fate {
        let Dead { chunk, hash } = dead;
        // Only tried: the caller may hold a line.
        let Some(mut line) = self.index.try_lock(hash) else { return Fate::Busy };
        let Some((slot, _)) = line.find(|c| c == chunk) else { return Fate::Gone };
        let item = self.item(chunk);
        let (shape, standing) = (item.shape_after_pins(), item.standing());
        if !horizon.flushed(standing) && !horizon.expired(item.deadline(shape)) {
            return Fate::Gone;
        }
        if shape.has(Shape::PINNED) {
            return Fate::Busy;
        }
        line.remove(slot);
        self.count_victim(l, chunk, item, (shape, standing), horizon);
        self.dies(chunk);
        self.count(l, chunk, -1);
        Fate::Unlinked
    }

    /// Frees items of the class that are out of the index.
    fn free_dead(&self, class: ClassId, dead: &mut Vec<Dead>) {
        if dead.is_empty() {
            return;
        }
        self.items.fetch_sub(dead.len() as u64, Relaxed);
        // Chains have chunks in other classes too.
        dead.retain(|d| {
            let chained = self.item(d.chunk).shape().chained();
            if chained {
                self.free(d.chunk);
            }
            !chained
        });
        let mut guard = self.slabs.lock(class);
        for d in dead.drain(..) {
            self.put_into(&mut guard, d.chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Exptime};
    use crate::config::Settings;
    use crate::store::held::Purpose;
    use crate::store::{Get, Outcome, Pin, Set, Touch, TouchOutcome};
    use std::sync::Arc;

    /// Ticks that anything in these tests is done within.
    const TICKS_MAX: usize = 100_000;
    const VALUE: [u8; 100] = [b'v'; 100];

    struct Bench {
        store: Arc<Store>,
        local: Local,
    }

    fn bench(settings: Settings) -> Bench {
        let clock = Arc::new(Clock::manual(1_700_000_000));
        let store = Store::new(Arc::new(settings), clock).expect("a store");
        Bench { local: store.local(), store }
    }

    impl Bench {
        fn set_value(&self, name: &str, exptime: i64, value: &[u8]) {
            let key = Key::new(name.as_bytes()).expect("a short key");
            let set = Set { exptime: Exptime(exptime), ..Set::of(key, value.len() as u32) };
            let outcome = self.store.set(&self.local, &set, self.store.hash(key), value);
            assert!(matches!(outcome, Ok(Outcome::Stored { .. })), "{name}: {outcome:?}");
        }

        fn set(&self, name: &str, exptime: i64) {
            self.set_value(name, exptime, &VALUE);
        }

        /// Keys `<family>0` and so on.
        fn fill(&self, family: &str, count: usize, exptime: i64) {
            (0..count).for_each(|n| self.set(&format!("{family}{n}"), exptime));
        }

        fn present(&self, family: &str, count: usize) -> usize {
            let names = (0..count).map(|n| format!("{family}{n}"));
            names.filter(|name| self.get(name, |_| ())).count()
        }

        fn get(&self, name: &str, look: impl FnMut(crate::store::Hit<'_>)) -> bool {
            let key = Key::new(name.as_bytes()).expect("a short key");
            self.store.get(&self.local, &Get::of(key), self.store.hash(key), look)
        }

        fn touch(&self, name: &str, exptime: i64) {
            let key = Key::new(name.as_bytes()).expect("a short key");
            let touch = Touch { key, exptime: Exptime(exptime) };
            let touched = self.store.touch(&self.local, &touch, self.store.hash(key));
            assert_eq!(touched, TouchOutcome::Touched);
        }

        fn advance(&self, seconds: u32) {
            self.store.clock().advance(seconds);
        }

        /// Ticks until nothing is left to do; returns how many it took.
        fn settle(&self) -> usize {
            let ticks = (1..TICKS_MAX).find(|_| self.store.tick(&self.local) == Pace::Rest);
            let ticks = ticks.expect("the reclaimer comes to rest");
            self.store.validate().expect("a valid store");
            ticks
        }

        fn items(&self) -> u64 {
            self.store.shards[0].items.load(Relaxed)
        }

        fn reclaimed(&self) -> u64 {
            self.store.stats().class_sums().iter().map(|c| c.reclaimed).sum()
        }

        fn shard(&self) -> &Shard {
            &self.store.shards[0]
        }
    }

    #[test]
    fn what_expires_is_freed_and_nothing_else() {
        for layout in [Layout::Compact, Layout::Memcached] {
            let b = bench(Settings { layout, ..Settings::default() });
            b.fill("mortal", 5_000, 10);
            b.fill("later", 3_000, 20);
            b.fill("immortal", 2_000, 0);
            b.advance(9);
            b.settle();
            assert_eq!(b.items(), 10_000, "not a second early");
            b.advance(1);
            b.settle();
            assert_eq!((b.items(), b.reclaimed()), (5_000, 5_000));
            assert_eq!((b.present("later", 3_000), b.present("immortal", 2_000)), (3_000, 2_000));
            b.advance(10);
            b.settle();
            assert_eq!((b.items(), b.reclaimed()), (2_000, 8_000));
        }
    }

    #[test]
    fn a_flush_frees_all_from_before() {
        let b = bench(Settings::default());
        b.fill("old", 5_000, 0);
        b.fill("mortal", 1_000, 50);
        b.store.flush_all(&b.local, None);
        b.fill("new", 3_000, 0);
        b.settle();
        assert_eq!((b.items(), b.reclaimed()), (3_000, 6_000));
        assert_eq!(b.present("new", 3_000), 3_000);
        b.store.flush_all(&b.local, Some(Exptime(5)));
        b.settle();
        assert_eq!(b.items(), 3_000, "planned for later");
        b.advance(5);
        b.settle();
        assert_eq!(b.items(), 0);
    }

    #[test]
    fn a_flush_in_the_middle_of_another_is_not_lost() {
        let b = bench(Settings::default());
        b.fill("first", 5_000, 0);
        b.store.flush_all(&b.local, None);
        (0..5).for_each(|_| assert_eq!(b.store.tick(&b.local), Pace::Spare));
        b.fill("second", 5_000, 0);
        b.store.flush_all(&b.local, None);
        b.settle();
        assert_eq!(b.items(), 0);
    }

    #[test]
    fn empty_pages_go_back_but_for_some_spare_ones() {
        let b = bench(Settings::default());
        b.fill("mortal", 50_000, 10);
        b.fill("immortal", 10, 0);
        let before = b.shard().slabs.pages_in_use();
        b.advance(10);
        b.settle();
        let after = b.shard().slabs.pages_in_use();
        assert!(before > 80, "{before} pages");
        // The one with the immortal items, and the spare ones.
        assert!((2..=2 + PAGES_KEPT).contains(&after), "{after} of {before} pages");
        assert_eq!(b.shard().slabs.free_pages(), before - after);
        b.fill("mortal", 50_000, 10);
        assert_eq!(b.shard().slabs.pages_in_use(), before, "they are used again");
    }

    #[test]
    fn pages_that_deletes_emptied_go_back_too() {
        let b = bench(Settings::default());
        b.fill("deleted", 20_000, 0);
        b.settle();
        for n in 0..20_000 {
            let name = format!("deleted{n}");
            let key = Key::new(name.as_bytes()).expect("a short key");
            let mut held = b.store.hold(&b.local, b.store.hash(key));
            let found = held.find(key, Purpose::Read).expect("nothing was evicted");
            held.drop_found(found);
        }
        b.advance(EMPTIES_EVERY);
        b.settle();
        assert!(b.shard().slabs.pages_in_use() <= PAGES_KEPT + 1);
    }

    #[test]
    fn a_layout_without_automove_keeps_its_pages() {
        let settings = Settings { layout: Layout::Memcached, ..Settings::default() };
        let b = bench(Settings { slab_automove: 0, ..settings });
        b.fill("mortal", 50_000, 10);
        let before = b.shard().slabs.pages_in_use();
        b.advance(10);
        b.settle();
        assert_eq!((b.items(), b.shard().slabs.pages_in_use()), (0, before));
    }

    #[test]
    fn a_page_whose_items_were_touched_is_looked_at_once() {
        let b = bench(Settings::default());
        b.fill("item", 100, 10);
        (0..100).for_each(|n| b.touch(&format!("item{n}"), 1_000));
        b.advance(10);
        assert!(b.settle() > 1, "its page is visited");
        assert_eq!(b.items(), 100);
        for _ in 0..500 {
            b.advance(1);
            assert!(b.settle() <= 2, "only records are looked at");
        }
        let slabs = &b.shard().slabs;
        let earliest = slabs.geometry().classes().find_map(|class| slabs.earliest(class));
        assert_eq!(earliest, Some(Clock::ORIGIN + 1_000));
        b.advance(490);
        b.settle();
        assert_eq!(b.items(), 0);
    }

    #[test]
    fn what_was_dead_when_stored_is_freed() {
        let b = bench(Settings::default());
        b.settle();
        b.fill("dead", 100, -1);
        b.advance(1);
        b.settle();
        assert_eq!(b.items(), 0);
    }

    #[test]
    fn temp_pinned_and_unfinished_items_are_left_alone() {
        let b = bench(Settings { temp_lru: true, temporary_ttl: 60, ..Settings::default() });
        let large = vec![b'v'; 100_000];
        b.set("temp", 50);
        b.set("dead temp", 10);
        b.set_value("pinned", 10, &large);
        let mut pin: Option<Pin> = None;
        assert!(b.get("pinned", |hit| pin = hit.pin()));
        let key = Key::new(b"unfinished").expect("a short key");
        let set = Set { exptime: Exptime(10), ..Set::of(key, 50) };
        let hash = b.store.hash(key);
        let mut unfinished = b.store.reserve(&b.local, &set, hash).expect("room");
        unfinished.fill(&b.local, b"the first half").expect("room");
        b.advance(10);
        b.settle();
        assert_eq!((b.items(), b.reclaimed()), (2, 1), "the live TEMP item and the pinned one");
        assert!(b.get("temp", |_| ()) && !b.get("dead temp", |_| ()));
        unfinished.fill(&b.local, &[b'x'; 50]).expect("room");
        let outcome = b.store.commit(&b.local, unfinished, &set, hash);
        assert!(matches!(outcome, Ok(Outcome::Stored { .. })));
        let sent: usize = pin.as_ref().expect("a pin").slices().map(<[u8]>::len).sum();
        assert_eq!(sent, large.len());
        drop(pin);
        b.advance(1);
        b.settle();
        assert_eq!(b.items(), 1, "the pinned one, once let go, and the one that came late");
    }

    #[test]
    fn it_runs_while_the_maintainer_or_the_crawler_does() {
        for (lru_maintainer, lru_crawler, left) in
            [(true, true, 0), (true, false, 0), (false, true, 0), (false, false, 100)]
        {
            let b = bench(Settings { lru_maintainer, lru_crawler, ..Settings::default() });
            b.fill("item", 100, 10);
            b.settle();
            b.advance(10);
            b.settle();
            assert_eq!(b.items(), left, "{lru_maintainer} {lru_crawler}");
            b.store.knobs().crawler.store(true, Relaxed);
            b.settle();
            assert_eq!(b.items(), left, "an operator's crawl comes first");
            b.advance(CRAWL_FIRST);
            b.settle();
            assert_eq!(b.items(), 0, "enabled");
        }
    }

    #[test]
    fn without_a_reclaimer_allocations_reclaim() {
        let settings =
            Settings { lru_maintainer: false, lru_crawler: false, ..Settings::default() };
        let b = bench(Settings { maxbytes: 4 << 20, item_size_max: 1 << 16, ..settings });
        b.fill("mortal", 10_000, 10);
        b.advance(10);
        b.fill("newest", 10_000, 1_000);
        assert!(b.reclaimed() > 5_000, "{}", b.reclaimed());
        b.settle();
    }

    #[test]
    fn every_tick_is_bounded() {
        let b = bench(Settings::default());
        b.fill("mortal", 100_000, 10);
        b.advance(10);
        let mut before = b.items();
        while b.store.tick(&b.local) != Pace::Rest {
            assert!(before - b.items() <= u64::from(CHUNKS_PER_STEP));
            before = b.items();
        }
        assert_eq!(b.items(), 0);
    }

    #[test]
    fn several_shards_are_all_served() {
        let b = bench(Settings { maxbytes: 31 << 30, hashpower_init: 12, ..Settings::default() });
        assert!(b.store.shards.len() > 1);
        b.fill("mortal", 20_000, 10);
        b.advance(10);
        b.settle();
        assert!(b.store.shards.iter().all(|s| s.items.load(Relaxed) == 0));
    }
}
