//! A store whose clock and background work stand still until a test says so.

use super::upkeep::Pace;
use super::{Delete, Fetch, Get, Key, Local, Set, Touch};
use super::{DeleteOutcome, FetchOutcome, Outcome, Pin, Refusal, Store, TouchOutcome};
use crate::clock::{Clock, Exptime};
use crate::config::Settings;
use crate::item::{Shape, Standing};
use slab::{ChunkRef, ClassId, PageNo};
use std::sync::Arc;

/// Ticks that anything in these tests is done within.
const TICKS_MAX: usize = 200_000;

pub(super) struct Bench {
    pub store: Arc<Store>,
    pub local: Local,
}

/// What a key holds, as clients and the engine see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub value: Vec<u8>,
    pub cas: u64,
    pub ttl: Option<u32>,
    pub client_flags: u32,
    /// Bits of the shape that must stay through any move.
    pub bits: u32,
    pub standing: Standing,
}

/// A value of `len` bytes that says whose it is all through.
pub(super) fn value_of(name: &str, len: usize) -> Vec<u8> {
    name.bytes().chain(*b":").cycle().take(len).collect()
}

fn key(name: &str) -> Key<'_> {
    Key::new(name.as_bytes()).expect("a short key")
}

impl Bench {
    pub fn new(settings: Settings) -> Bench {
        let clock = Arc::new(Clock::manual(1_700_000_000));
        let store = Store::new(Arc::new(settings), clock).expect("a store");
        Bench { local: store.local(), store }
    }

    pub fn shard(&self) -> &super::shard::Shard {
        &self.store.shards[0]
    }

    // Requests

    pub fn try_set(&self, name: &str, len: usize, exptime: i64) -> Result<Outcome, Refusal> {
        let set = Set { exptime: Exptime(exptime), ..Set::of(key(name), len as u32) };
        let value = value_of(name, len);
        self.store.set(&self.local, &set, self.store.hash(set.key), &value)
    }

    pub fn set_for(&self, name: &str, len: usize, exptime: i64) {
        let outcome = self.try_set(name, len, exptime);
        assert!(matches!(outcome, Ok(Outcome::Stored { .. })), "{name}: {outcome:?}");
    }

    pub fn set(&self, name: &str, len: usize) {
        self.set_for(name, len, 0);
    }

    /// Keys `<family>0` and so on; with ticks in between, so that the index grows.
    pub fn fill_for(&self, family: &str, count: usize, len: usize, exptime: i64) {
        for n in 0..count {
            self.set_for(&format!("{family}{n:05}"), len, exptime);
            if n % 16 == 0 {
                self.tick();
            }
        }
    }

    pub fn fill(&self, family: &str, count: usize, len: usize) {
        self.fill_for(family, count, len, 0);
    }

    /// Reads a key, which must hold what [`value_of`] says; false: it is not there.
    pub fn get(&self, name: &str) -> bool {
        let get = Get::of(key(name));
        let mut value = Vec::new();
        let hit = self.store.get(&self.local, &get, self.store.hash(get.key), |hit| {
            value.clear();
            hit.copy_value(&mut value);
        });
        assert!(!hit || value == value_of(name, value.len()), "{name} holds another's value");
        hit
    }

    /// How many of the keys of [`Bench::fill`] are there; none is read.
    pub fn present(&self, family: &str, count: usize) -> usize {
        (0..count).filter(|n| self.held(&format!("{family}{n:05}")).is_some()).count()
    }

    /// The same for `k00000` and so on.
    pub fn present_as(&self, count: usize) -> usize {
        (0..count).filter(|n| self.held(&format!("k{n:05}")).is_some()).count()
    }

    pub fn gets(&self, name: &str) -> u64 {
        let fetch = Fetch { cas: true, ..Fetch::of(Get::of(key(name))) };
        let mut cas = 0;
        self.store.fetch(&self.local, &fetch, self.store.hash(key(name)), |hit| cas = hit.cas());
        cas
    }

    pub fn fetch(&self, fetch: &Fetch<'_>) -> bool {
        self.try_fetch(fetch) == FetchOutcome::Hit
    }

    pub fn try_fetch(&self, fetch: &Fetch<'_>) -> FetchOutcome {
        self.store.fetch(&self.local, fetch, self.store.hash(fetch.get.key), |_| ())
    }

    pub fn touch(&self, name: &str, exptime: i64) -> TouchOutcome {
        let touch = Touch { key: key(name), exptime: Exptime(exptime) };
        self.store.touch(&self.local, &touch, self.store.hash(touch.key))
    }

    pub fn delete_as(&self, name: &str, invalidate: bool) -> DeleteOutcome {
        let delete = Delete { invalidate, ..Delete::of(key(name)) };
        self.store.delete(&self.local, &delete, self.store.hash(delete.key))
    }

    pub fn delete(&self, name: &str) -> bool {
        self.delete_as(name, false) == DeleteOutcome::Deleted
    }

    pub fn pin(&self, name: &str) -> Pin {
        let get = Get::of(key(name));
        let mut pin = None;
        self.store.get(&self.local, &get, self.store.hash(get.key), |hit| pin = hit.pin());
        pin.expect("a large value that is there")
    }

    // Looks that change nothing

    pub fn chunk_of(&self, name: &str) -> Option<ChunkRef> {
        let shard = self.shard();
        let line = shard.index.lock(shard.hash_bytes(name.as_bytes()));
        let found = line.find(|c| shard.item(c).key_is(shard.item(c).shape(), name.as_bytes()));
        found.map(|(_, chunk)| chunk)
    }

    pub fn held(&self, name: &str) -> Option<Held> {
        let shard = self.shard();
        let chunk = self.chunk_of(name)?;
        let (item, mut value) = (shard.item(chunk), Vec::new());
        let shape = item.shape();
        shard.append_value(chunk, &mut value);
        let kept = Shape::STALE | Shape::WIN | Shape::BINARY_KEY | Shape::TEMP;
        Some(Held {
            value,
            cas: item.cas(shape),
            ttl: super::read::seconds_left(item.deadline(shape), self.store.clock().now()),
            client_flags: item.client_flags(shape),
            bits: shape.0 & kept,
            standing: item.standing(),
        })
    }

    pub fn class_of(&self, name: &str) -> ClassId {
        self.shard().slabs.class_of(self.chunk_of(name).expect("a key that is there"))
    }

    pub fn pages(&self, class: ClassId) -> Vec<PageNo> {
        self.shard().slabs.lock(class).pages().to_vec()
    }

    pub fn items(&self) -> u64 {
        self.store.class_info().iter().map(|class| class.items).sum()
    }

    pub fn moved(&self) -> u64 {
        self.store.stats().moves.slabs_moved.load(std::sync::atomic::Ordering::Relaxed)
    }

    // Time

    pub fn tick(&self) -> Pace {
        self.store.tick(&self.local)
    }

    pub fn ticks(&self, count: usize) {
        for _ in 0..count {
            self.tick();
        }
    }

    /// Ticks until nothing is left to do.
    pub fn settle(&self) {
        let rests = (0..TICKS_MAX).any(|_| self.tick() == Pace::Rest);
        assert!(rests, "background work has no end");
    }

    /// Ticks until `done`.
    pub fn until(&self, what: &str, done: impl Fn(&Bench) -> bool) {
        let came = (0..TICKS_MAX).any(|_| {
            self.tick();
            done(self)
        });
        assert!(came, "{what}");
    }

    /// Asks for a page to move, and waits until the mover is done with it.
    #[track_caller]
    pub fn reassign(&self, from: ClassId, to: ClassId) {
        let answer = self.store.reassign(i32::from(from.0), i32::from(to.0));
        assert_eq!(answer, super::Reassign::Ok);
        self.until("the page moves", |b| !b.is_moving());
    }

    pub fn is_moving(&self) -> bool {
        self.store.stats().moves.running.load(std::sync::atomic::Ordering::Relaxed)
    }

    #[track_caller]
    pub fn validate(&self) {
        if let Err(fault) = self.store.validate() {
            panic!("{fault}");
        }
    }
}
