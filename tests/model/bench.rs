//! A store and a reference, run side by side.

use crate::ops::{ArithOp, Compare, Content, DeleteOp, FetchOp, KEYS, Op, SetOp, UNIX};
use crate::reference::{Entry, Reference};
use restarts::Files;
use rustcached::clock::{Clock, Exptime};
use rustcached::command::{Arith, Delete, Fetch, Get, Set, SetMode, Touch};
use rustcached::config::{Layout, Settings};
use rustcached::store::{
    ArithOutcome, DeleteOutcome, FetchOutcome, Hit, Key, KeyHash, Local, Outcome, Pace, Pin,
    Refusal, Reservation, Store, StoreInfo, TouchOutcome,
};
use std::sync::Arc;

mod reads;
mod restarts;

/// Ticks that any background work here is done within.
const TICKS_MAX: usize = 1_000_000;
/// Reservations and pins that are open at once.
const OPEN_MAX: usize = 4;

pub struct Bench {
    store: Arc<Store>,
    /// Two threads' worth, used in turn: what one links the other frees.
    locals: [Local; 2],
    turn: usize,
    reference: Reference,
    use_cas: bool,
    /// Nothing but what a step itself drops may go missing.
    keeps_all: bool,
    /// A refusal for want of memory would be a fault.
    has_room: bool,
    /// Highest automatic CAS unique seen.
    newest: u64,
    /// With the bytes filled in and the deadline, which counts from the reservation.
    open: Vec<(SetOp, Reservation, usize, u32)>,
    pins: Vec<(Pin, Vec<u8>)>,
    files: Files,
}

/// What a visitor saw of a hit.
#[derive(Default)]
struct Seen {
    entry: Entry,
    unchanged: bool,
    won: bool,
    ttl: Option<u32>,
    ttl_before: Option<u32>,
    pin: Option<Pin>,
}

/// What a step does to the unique of the item that it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unique {
    Is(Option<u64>),
    /// A new automatic one, as answered or, where the answer has none, unseen.
    Fresh(Option<u64>),
}

pub fn key_of(n: u8) -> Vec<u8> {
    let len = [1, 2, 5, 12, 30, 61, 120, 250][usize::from(n % 8)];
    let mut key = vec![b'a' + n];
    key.resize(len, b'.');
    key
}

fn bulk_key(family: u8, n: u32) -> Vec<u8> {
    format!("bulk{family}:{n}").into_bytes()
}

fn key(bytes: &[u8]) -> Key<'_> {
    Key::new(bytes).expect("keys of the test are valid")
}

impl Bench {
    /// A memory file is one of the bench's own, whatever its name in the settings.
    pub fn new(mut settings: Settings) -> Bench {
        let mut files = Files::new();
        settings.memory_file = settings.memory_file.map(|_| files.next());
        let has_room = settings.evict && settings.layout == Layout::Compact && !settings.temp_lru;
        let (use_cas, keeps_all) = (settings.use_cas, !settings.evict);
        let clock = Arc::new(Clock::manual(UNIX));
        let store = Store::new(Arc::new(settings), clock).expect("a store");
        let locals = [store.local(), store.local()];
        let mut reference = Reference::default();
        reference.advance(store.clock().now());
        Bench {
            store,
            locals,
            turn: 0,
            reference,
            use_cas,
            keeps_all,
            has_room,
            newest: 0,
            open: Vec::new(),
            pins: Vec::new(),
            files,
        }
    }

    pub fn run(&mut self, op: &Op) {
        self.turn += 1;
        match op {
            Op::Set(op) => self.set(op),
            Op::Get { key, bump, meta, pin, unless } => {
                self.get(&key_of(*key), [*bump, *meta, *pin], *unless);
            }
            Op::Fetch(op) => self.fetch(op),
            Op::Delete(op) => self.delete(op),
            Op::Arith(op) => self.arith(op),
            Op::Touch { key, exptime } => self.touch(&key_of(*key), *exptime),
            Op::Reserve(op) => self.reserve(op),
            Op::Feed { which, len } => self.feed(*which, *len as usize),
            Op::Commit { which } => self.commit(*which),
            Op::Abandon { which } => {
                pick(&mut self.open, *which);
            }
            Op::DropPin { which } => {
                pick(&mut self.pins, *which).iter().for_each(check_pin);
            }
            Op::Flush(at) => {
                self.store.flush_all(self.local(), at.map(Exptime));
                let at = at.map(|at| self.deadline(at));
                self.reference.flush(at);
            }
            Op::Advance(seconds) => {
                self.store.clock().advance(*seconds);
                self.reference.advance(self.store.clock().now());
            }
            Op::Tick(times) => (0..*times).for_each(|_| {
                self.store.tick(self.local());
            }),
            Op::Bulk { family, count, len } => self.bulk(*family, *count, *len),
            Op::Drop { family, count } => self.drop_bulk(*family, *count),
            Op::Limit(megabytes) => {
                assert!(self.store.set_limit(*megabytes << 20));
                // Until that holds, there may be no room for anything.
                self.has_room = false;
            }
            Op::Reassign { from, to } => {
                // Where a page is asked for, whatever is on it goes somewhere else or is evicted.
                let classes = self.store.class_info().len() as i32 + 1;
                self.store.reassign(i32::from(*from) % classes, i32::from(*to) % classes);
            }
            Op::Restart(op) => self.restart(op),
        }
    }

    pub fn validate(&self) {
        if let Err(fault) = self.store.validate() {
            panic!("{fault}");
        }
        self.pins.iter().for_each(check_pin);
    }

    /// Ticks until nothing is left to do.
    fn settle(&self) {
        let rests = (0..TICKS_MAX).any(|_| self.store.tick(self.local()) == Pace::Rest);
        assert!(rests, "background work has no end");
    }

    /// What expires is freed unasked, and nothing that is alive.
    fn expire(&mut self) {
        self.store.clock().advance(100_000);
        self.reference.advance(self.store.clock().now());
        self.settle();
        let levels = self.store.stats().levels();
        let left: u64 = levels.iter().map(|(items, _)| items).sum();
        let keys: Vec<Vec<u8>> = self.reference.entries.keys().cloned().collect();
        let alive = keys.iter().filter(|key| self.known(key).is_some()).count();
        assert!(left as usize <= alive + self.pins.len(), "{left} left, {alive} alive");
    }

    /// Ticks until nothing is left to do, with a look at everything after each; what `info` says of
    /// the index at first, in between, and in the end.
    pub fn follow_index(&mut self) -> Vec<StoreInfo> {
        let mut seen = vec![self.store.info()];
        while self.store.tick(self.local()) != Pace::Rest {
            seen.push(self.store.info());
            self.validate();
            assert!(seen.len() < TICKS_MAX, "it never rests");
        }
        seen.push(self.store.info());
        seen
    }

    /// Reads everything, then empties the store: whatever was handed out must have come back.
    pub fn finish(mut self) {
        let mut keys: Vec<Vec<u8>> = self.reference.entries.keys().cloned().collect();
        keys.extend((0..KEYS).map(key_of));
        for key in &keys {
            self.get(key, [false; 3], None);
        }
        self.expire();
        self.open.clear();
        self.pins.drain(..).for_each(|pin| check_pin(&pin));
        // Those that the reference has lost sight of: evicted, or flushed.
        self.store.flush_all(self.local(), None);
        // A second later than what was busy then is tried again.
        self.store.clock().advance(1);
        self.settle();
        let levels = self.store.stats().levels();
        assert!(levels.iter().all(|level| *level == (0, 0)), "the reclaimer left something");
        let bulk = (0..6).flat_map(|family| (0..4_000).map(move |n| bulk_key(family, n)));
        for bytes in keys.into_iter().chain(bulk) {
            let delete = Delete::of(key(&bytes));
            let outcome = self.store.delete(self.local(), &delete, self.hash(&bytes));
            assert_eq!(outcome, DeleteOutcome::NotFound);
        }
        self.validate();
        for class in self.store.class_info() {
            assert_eq!((class.items, class.bytes), (0, 0), "class {}", class.id);
            assert_eq!(class.free_chunks, class.total_chunks, "class {} leaks", class.id);
        }
    }

    fn local(&self) -> &Local {
        &self.locals[self.turn % 2]
    }

    fn hash(&self, bytes: &[u8]) -> KeyHash {
        self.store.hash(key(bytes))
    }

    fn deadline(&self, exptime: i64) -> u32 {
        self.store.clock().deadline(Exptime(exptime)).0
    }

    /// What the reference has of a key, once it agrees with the store on its being there.
    fn known(&mut self, bytes: &[u8]) -> Option<Entry> {
        let held = self.store.inspect(self.local(), key(bytes), self.hash(bytes));
        let keeps_all = self.keeps_all;
        let (entry, held) = match (self.reference.live(bytes), held) {
            (Some(entry), Some(held)) => (entry.clone(), held),
            (Some(_), None) => {
                assert!(!keeps_all, "lost without eviction: {}", bytes.escape_ascii());
                self.reference.entries.remove(bytes);
                return None;
            }
            (None, Some(held)) => panic!("back from the dead: {held:?}"),
            (None, None) => return None,
        };
        assert_eq!(held.ttl, self.reference.ttl(entry.deadline));
        assert_eq!(held.cas, entry.cas.unwrap_or(0));
        Some(entry)
    }

    /// Notes what a step has left under a key.
    fn learn(&mut self, bytes: &[u8], mut entry: Entry, unique: Unique) {
        self.reference.entries.insert(bytes.to_vec(), entry.clone());
        let Some(held) = self.store.inspect(self.local(), key(bytes), self.hash(bytes)) else {
            let dead = self.reference.live(bytes).is_none();
            assert!(dead, "gone at once: {}", bytes.escape_ascii());
            self.reference.entries.remove(bytes);
            if let Unique::Fresh(Some(cas)) = unique {
                self.newest = self.newest.max(cas);
            }
            return;
        };
        match unique {
            Unique::Is(cas) => assert_eq!(held.cas, cas.unwrap_or(0)),
            Unique::Fresh(said) => {
                assert!(held.cas > self.newest, "{} after {}", held.cas, self.newest);
                assert!(said.is_none_or(|cas| cas == held.cas));
                self.newest = held.cas;
            }
        }
        entry.cas = (held.cas != 0).then_some(held.cas);
        self.reference.entries.insert(bytes.to_vec(), entry);
        self.known(bytes);
    }

    fn resolve(&self, compare: Option<Compare>, known: Option<&Entry>) -> Option<u64> {
        let cas = known.and_then(|e| e.cas).unwrap_or(self.newest + 1);
        compare.map(|c| match c {
            Compare::Same => cas,
            Compare::Older => cas - 1,
            Compare::Newer => cas + 1,
        })
    }

    /// The unique of an item that a step writes anew.
    fn unique_of(&self, new_cas: Option<u64>, wanted: bool, said: Option<u64>) -> Unique {
        match new_cas.filter(|_| self.use_cas) {
            Some(cas) => Unique::Is(Some(cas)),
            None if wanted && self.use_cas => Unique::Fresh(said),
            None => Unique::Is(None),
        }
    }

    /// Panics where a step that was refused for want of memory could have been done.
    fn excuse(&self) {
        let busy = !self.open.is_empty() || !self.pins.is_empty();
        assert!(!self.has_room || busy, "out of memory in an evicting store");
    }

    // Writes

    fn set(&mut self, op: &SetOp) {
        let (bytes, value) = (key_of(op.key), op.content.bytes());
        let known = self.known(&bytes);
        let compare = self.resolve(op.compare, known.as_ref());
        let set = set_of(op, &bytes, compare);
        let outcome = self.store.set(self.local(), &set, self.hash(&bytes), &value);
        self.judge_set(&set, value, known, outcome, None);
    }

    /// `reserved`: memory was had before, so the key was there as `known` says, and this is the
    /// deadline.
    fn judge_set(
        &mut self,
        set: &Set<'_>,
        value: Vec<u8>,
        known: Option<Entry>,
        outcome: Result<Outcome, Refusal>,
        reserved: Option<u32>,
    ) {
        let bytes = set.key.bytes();
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => {
                self.excuse();
                return self.judge_refusal(set, refusal);
            }
        };
        let joins = matches!(set.mode, SetMode::Append | SetMode::Prepend);
        let told = match outcome {
            Outcome::Stored { .. } => Verdict::Stored,
            Outcome::NotStored => Verdict::NotStored,
            Outcome::Exists => Verdict::Exists,
            Outcome::NotFound => Verdict::NotFound,
            Outcome::NoMemory => return assert!(self.keeps_all, "the index is full"),
        };
        let mut known = known;
        if told != verdict(set, known.as_ref()) {
            if joins && told == Verdict::NotStored {
                let len = known.map_or(0, |e| e.value.len()) + value.len();
                return if len < 1 << 20 {
                    self.excuse()
                };
            }
            let evicted = !self.keeps_all && reserved.is_none() && !joins;
            assert!(evicted && told == verdict(set, None), "{told:?} for {set:?} on {known:?}");
            known = None;
        }
        let Outcome::Stored { cas, len } = outcome else { return };
        let entry = self.stored_entry(set, value, known, reserved);
        assert_eq!(len as usize, if joins { entry.value.len() } else { set.len as usize });
        assert_eq!(cas.is_some(), set.return_cas && self.use_cas);
        let unique = self.unique_of(set.new_cas, set.return_cas, cas);
        self.learn(bytes, entry, unique);
    }

    fn judge_refusal(&mut self, set: &Set<'_>, refusal: Refusal) {
        assert_ne!(refusal, Refusal::TooLarge, "no value is too large on its own");
        let large = set.len as usize > 512 << 10;
        assert!(refusal == Refusal::NoMemory || large, "{refusal:?} of {} bytes", set.len);
        if set.drop_old_on_refusal && refusal == Refusal::NoMemory {
            self.reference.entries.remove(set.key.bytes());
            assert!(self.known(set.key.bytes()).is_none());
        }
    }

    fn stored_entry(
        &self,
        set: &Set<'_>,
        value: Vec<u8>,
        known: Option<Entry>,
        reserved: Option<u32>,
    ) -> Entry {
        let joins = matches!(set.mode, SetMode::Append | SetMode::Prepend);
        if let (true, Some(mut old)) = (joins, known.clone()) {
            old.join(set.mode, &value);
            return old;
        }
        let clock = self.store.clock();
        let deadline = match set.vivify.filter(|_| joins) {
            Some(exptime) => clock.deadline(exptime).0,
            None => reserved.unwrap_or(clock.deadline(set.exptime).0),
        };
        let mut entry = Entry { value, flags: set.client_flags, deadline, ..Entry::default() };
        let compare = set.compare_cas.unwrap_or(0);
        if let (SetMode::Cas, Some(old)) = (set.mode, known)
            && !old.matches(compare)
        {
            (entry.stale, entry.win, entry.deadline) = (true, old.win, old.deadline);
        }
        entry
    }

    fn bulk(&mut self, family: u8, count: u32, len: u32) {
        for n in 0..count {
            let bytes = bulk_key(family, n);
            let content = Content::Bytes { len, seed: n as u8 };
            let value = content.bytes();
            let set = Set {
                client_flags: n % 3,
                exptime: Exptime((n % 2) as i64 * 5),
                binary_key: n % 5 == 0,
                ..Set::of(key(&bytes), len)
            };
            match self.store.set(self.local(), &set, self.hash(&bytes), &value) {
                Ok(Outcome::Stored { .. }) => {
                    let entry = self.stored_entry(&set, value, None, None);
                    self.reference.entries.insert(bytes, entry);
                }
                Err(refusal) => self.judge_refusal(&set, refusal),
                Ok(Outcome::NoMemory) => assert!(self.keeps_all, "the index is full"),
                Ok(other) => panic!("{other:?} for a set"),
            }
        }
    }

    fn drop_bulk(&mut self, family: u8, count: u32) {
        for n in 0..count {
            let bytes = bulk_key(family, n);
            let live = self.reference.live(&bytes).is_some();
            let delete = Delete::of(key(&bytes));
            let outcome = self.store.delete(self.local(), &delete, self.hash(&bytes));
            let deleted = outcome == DeleteOutcome::Deleted;
            assert!(!deleted || live, "back from the dead: {}", bytes.escape_ascii());
            assert!(deleted || !live || !self.keeps_all, "lost: {}", bytes.escape_ascii());
            self.reference.entries.remove(&bytes);
        }
    }

    // Reservations

    fn reserve(&mut self, op: &SetOp) {
        if self.open.len() == OPEN_MAX {
            return;
        }
        let bytes = key_of(op.key);
        self.known(&bytes);
        let set = set_of(op, &bytes, None);
        match self.store.reserve(self.local(), &set, self.hash(&bytes)) {
            Ok(room) => self.open.push((op.clone(), room, 0, self.deadline(op.exptime))),
            Err(refusal) => {
                self.excuse();
                self.judge_refusal(&set, refusal);
            }
        }
    }

    fn feed(&mut self, which: u8, len: usize) {
        let at = usize::from(which) % self.open.len().max(1);
        let Some((op, room, filled, _)) = self.open.get_mut(at) else { return };
        let value = op.content.bytes();
        let piece = &value[*filled..value.len().min(*filled + len)];
        let local = &self.locals[self.turn % 2];
        let Ok(taken) = room.fill(local, piece) else {
            let (op, ..) = self.open.swap_remove(at);
            return self.judge_loss(&op);
        };
        assert!(taken <= piece.len() && (taken > 0 || piece.is_empty()));
        *filled += taken;
        assert_eq!(room.missing(), value.len() - *filled);
    }

    fn commit(&mut self, which: u8) {
        let Some((op, mut room, filled, deadline)) = pick(&mut self.open, which) else { return };
        let (bytes, value) = (key_of(op.key), op.content.bytes());
        match room.fill(self.local(), &value[filled..]) {
            Ok(taken) => assert_eq!(taken, value.len() - filled),
            Err(_) => return self.judge_loss(&op),
        }
        let known = self.known(&bytes);
        let compare = self.resolve(op.compare, known.as_ref());
        let set = set_of(&op, &bytes, compare);
        let outcome = self.store.commit(self.local(), room, &set, self.hash(&bytes));
        self.judge_set(&set, value, known, outcome, Some(deadline));
    }

    /// There is no memory for all of a value that came in part.
    fn judge_loss(&mut self, op: &SetOp) {
        let bytes = key_of(op.key);
        let set = set_of(op, &bytes, None);
        let alone = self.open.is_empty() && self.pins.is_empty();
        assert!(!self.has_room || !alone, "out of memory in an evicting store");
        let refusal = self.store.give_up(self.local(), &set, self.hash(&bytes));
        self.judge_refusal(&set, refusal);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Stored,
    NotStored,
    Exists,
    NotFound,
}

/// How a storage command must end on what is there.
fn verdict(set: &Set<'_>, known: Option<&Entry>) -> Verdict {
    let compare = set.compare_cas.unwrap_or(0);
    match (set.mode, known) {
        (SetMode::Set, _) | (SetMode::Add, None) | (SetMode::Replace, Some(_)) => Verdict::Stored,
        (SetMode::Cas, None) => Verdict::NotFound,
        (SetMode::Cas, Some(old)) => {
            let stored = old.matches(compare) || set.invalidate && old.is_newer_than(compare);
            if stored { Verdict::Stored } else { Verdict::Exists }
        }
        (SetMode::Append | SetMode::Prepend, Some(old)) => {
            let differs = compare != 0 && !old.matches(compare);
            if differs { Verdict::Exists } else { Verdict::Stored }
        }
        (SetMode::Append | SetMode::Prepend, None) if set.vivify.is_some() => Verdict::Stored,
        _ => Verdict::NotStored,
    }
}

fn see(hit: &Hit<'_>, pin: bool) -> Seen {
    let mut value = Vec::new();
    hit.copy_value(&mut value);
    assert_eq!(value.len(), hit.value_len() as usize);
    Seen {
        entry: Entry {
            value,
            flags: hit.client_flags(),
            deadline: 0,
            cas: Some(hit.cas()).filter(|cas| *cas != 0),
            stale: hit.stale(),
            win: hit.win_sent(),
        },
        unchanged: hit.unchanged(),
        won: hit.won(),
        ttl: hit.ttl(),
        ttl_before: hit.ttl_before(),
        pin: hit.pin().filter(|_| pin),
    }
}

fn check_pin((pin, expected): &(Pin, Vec<u8>)) {
    let held: Vec<u8> = pin.slices().flatten().copied().collect();
    assert!(held == *expected, "a pinned value of {} bytes changed", expected.len());
}

fn pick<T>(list: &mut Vec<T>, which: u8) -> Option<T> {
    (!list.is_empty()).then(|| list.swap_remove(usize::from(which) % list.len()))
}

fn set_of<'a>(op: &SetOp, bytes: &'a [u8], compare_cas: Option<u64>) -> Set<'a> {
    Set {
        mode: op.mode,
        client_flags: op.flags,
        exptime: Exptime(op.exptime),
        compare_cas,
        invalidate: op.invalidate,
        vivify: op.vivify.map(Exptime),
        new_cas: op.new_cas,
        return_cas: op.return_cas,
        drop_old_on_refusal: op.drop_old,
        ..Set::of(key(bytes), op.content.bytes().len() as u32)
    }
}
