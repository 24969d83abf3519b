//! memcached's semantics over the slab engine.

use crate::clock::{Clock, Seconds};
use crate::command::{Arith, Delete, Error, Fetch, Get, Set, Touch};
use crate::config::Settings;
use crate::stats::{Counters, Stats};
use std::sync::Arc;

/// A key of 1 to 250 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a>(&'a [u8]);

impl<'a> Key<'a> {
    /// memcached's limit, in bytes.
    pub const MAX: usize = 250;

    pub fn new(bytes: &'a [u8]) -> Option<Key<'a>> {
        (1..=Key::MAX).contains(&bytes.len()).then_some(Key(bytes))
    }
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(pub u64);

/// What one thread needs to use the store: its own counters.
pub struct Local {
    pub counters: Arc<Counters>,
}

/// An item found by a get, readable only while the visitor runs.
#[derive(Debug)]
pub struct Hit<'a> {
    _todo: &'a (),
}

impl Hit<'_> {
    pub fn value_len(&self) -> u32 {
        todo!()
    }
    pub fn client_flags(&self) -> u32 {
        todo!()
    }
    /// The CAS unique, 0 where the item has none.
    pub fn cas(&self) -> u64 {
        todo!()
    }
    /// Seconds left to live; `None`: for ever.
    pub fn ttl(&self) -> Option<u32> {
        todo!()
    }
    /// Seconds since the last access before this one.
    pub fn idle(&self) -> u32 {
        todo!()
    }
    /// True where the item was fetched before this command.
    pub fn fetched(&self) -> bool {
        todo!()
    }
    /// meta `X`
    pub fn stale(&self) -> bool {
        todo!()
    }
    /// meta `Z`: somebody else already won.
    pub fn win_sent(&self) -> bool {
        todo!()
    }
    /// meta `W`: this command won.
    pub fn won(&self) -> bool {
        todo!()
    }
    pub fn binary_key(&self) -> bool {
        todo!()
    }
    /// Appends the value's bytes (without a line end).
    pub fn copy_value(&self, _out: &mut Vec<u8>) {
        todo!()
    }
    /// Large values are sent from their chunks: `Some` pins the item until the [`Pin`] is dropped.
    /// `None` says: copy it.
    pub fn pin(&self) -> Option<Pin> {
        todo!()
    }
}

/// Keeps an item's value as it is until dropped, whatever happens to its key.
pub struct Pin {}

impl Pin {
    /// The value's bytes in order, chunk by chunk.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> + '_ {
        std::iter::empty()
    }
    pub fn len(&self) -> usize {
        todo!()
    }
}

/// What `me` and dumps show.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Seconds left to live; `None`: for ever.
    pub ttl: Option<u32>,
    pub idle: u32,
    pub cas: u64,
    pub fetched: bool,
    pub class: u32,
    /// Bytes of the item as `stats` counts them.
    pub size: u32,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// CAS unique where asked for, final length of the value.
    Stored { cas: Option<u64>, len: u32 },
    NotStored,
    Exists,
    NotFound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArithOutcome {
    /// `ttl`: seconds left, `None` for ever.
    Number { value: u64, cas: Option<u64>, ttl: Option<u32> },
    NotFound,
    Exists,
    NonNumeric,
    NoMemory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteOutcome {
    Deleted,
    NotFound,
    Exists,
    NoMemory,
}

/// Why no room could be had for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    TooLarge,
    NoMemory,
}

/// Room for a value that is still on its way: not visible to anyone, freed when dropped.
pub struct Reservation {}

impl Reservation {
    /// Bytes of the value still to come.
    pub fn missing(&self) -> usize {
        todo!()
    }
    /// Takes bytes that were already read; returns how many fitted.
    pub fn fill(&mut self, _bytes: &[u8]) -> usize {
        todo!()
    }
    /// Reads from `source` straight into the chunks, once.
    pub fn fill_from(&mut self, _source: &mut impl std::io::Read) -> std::io::Result<usize> {
        todo!()
    }
}

pub struct Store {}

/// What `stats slabs` and `stats items` show of a class beside its counters.
#[derive(Clone, Debug, Default)]
pub struct ClassInfo {
    pub id: u32,
    pub chunk_size: u32,
    pub chunks_per_page: u32,
    pub pages: u64,
    pub total_chunks: u64,
    pub free_chunks: u64,
    pub items: u64,
    /// Bytes that the items asked for.
    pub bytes: u64,
    pub number_hot: u64,
    pub number_warm: u64,
    pub number_cold: u64,
    pub number_temp: u64,
    /// Seconds.
    pub age_hot: u32,
    pub age_warm: u32,
    pub age: u32,
    pub evicted_time: u32,
}

/// Gauges of the whole store.
#[derive(Clone, Debug, Default)]
pub struct StoreInfo {
    pub hash_power_level: u32,
    pub hash_bytes: u64,
    pub hash_is_expanding: bool,
    pub free_pages: u64,
    pub total_malloced: u64,
    pub limit_maxbytes: u64,
    /// What `flush_all` last set: older items are dead. 0 before the first.
    pub oldest_live: Seconds,
}

impl Store {
    pub fn new(_settings: Arc<Settings>, _clock: Arc<Clock>) -> Result<Arc<Store>, String> {
        todo!()
    }
    /// A handle for one more thread.
    pub fn local(&self) -> Local {
        todo!()
    }
    pub fn clock(&self) -> &Clock {
        todo!()
    }
    pub fn settings(&self) -> &Settings {
        todo!()
    }
    pub fn stats(&self) -> &Stats {
        todo!()
    }
    pub fn hash(&self, _key: Key<'_>) -> KeyHash {
        todo!()
    }
    /// Starts loading the index line; of use some tens of nanoseconds later.
    pub fn prefetch_line(&self, _hash: KeyHash) {}
    /// Starts loading the item that a loaded index line points to.
    pub fn prefetch_item(&self, _hash: KeyHash) {}

    /// False: not found (counted).
    pub fn get(&self, _l: &Local, _get: &Get<'_>, _h: KeyHash, _visit: impl FnMut(&Hit<'_>)) -> bool {
        todo!()
    }
    pub fn fetch(
        self: &Arc<Self>,
        _l: &Local,
        _fetch: &Fetch<'_>,
        _h: KeyHash,
        _visit: impl FnMut(&Hit<'_>),
    ) -> bool {
        todo!()
    }
    /// Room for a value that is not whole yet. A refusal is counted and, where the command says
    /// so, deletes the old value.
    pub fn reserve(self: &Arc<Self>, _l: &Local, _set: &Set<'_>) -> Result<Reservation, Refusal> {
        todo!()
    }
    /// Links a filled reservation. `set` is the command it was reserved for.
    pub fn commit(&self, _l: &Local, _r: Reservation, _set: &Set<'_>) -> Outcome {
        todo!()
    }
    /// [`Store::reserve`], fill and [`Store::commit`] for a value that is already here.
    pub fn set(&self, _l: &Local, _set: &Set<'_>, _h: KeyHash, _v: &[u8]) -> Result<Outcome, Refusal> {
        todo!()
    }
    pub fn delete(&self, _l: &Local, _delete: &Delete<'_>, _h: KeyHash) -> DeleteOutcome {
        todo!()
    }
    pub fn arith(&self, _l: &Local, _arith: &Arith<'_>, _h: KeyHash) -> ArithOutcome {
        todo!()
    }
    pub fn touch(&self, _l: &Local, _touch: &Touch<'_>, _h: KeyHash) -> bool {
        todo!()
    }
    pub fn inspect(&self, _key: Key<'_>, _h: KeyHash) -> Option<Inspection> {
        todo!()
    }
    /// Everything stored before `at` dies then; `None`: now.
    pub fn flush_all(&self, _l: &Local, _at: Option<Seconds>) {
        todo!()
    }
    /// Calls `visit(key, value length, seconds left)` for at most `limit` items of a class; false
    /// where there is no such class. `limit` 0: all.
    pub fn cachedump(&self, _class: u32, _limit: u32, _visit: impl FnMut(&[u8], u32, Option<u32>)) -> bool {
        todo!()
    }
    /// Items per size: (bytes rounded up to 32, count), ascending, no zero counts.
    pub fn sizes(&self) -> Vec<(u32, u64)> {
        todo!()
    }
    pub fn class_info(&self) -> Vec<ClassInfo> {
        todo!()
    }
    pub fn info(&self) -> StoreInfo {
        todo!()
    }
    /// Bounded background work (index growth); how long until the next is due.
    pub fn tick(&self, _l: &Local) -> std::time::Duration {
        todo!()
    }
    pub fn validate(&self) -> Result<(), String> {
        todo!()
    }
}

impl From<Refusal> for Error {
    fn from(r: Refusal) -> Error {
        match r {
            Refusal::TooLarge => Error::Server("object too large for cache"),
            Refusal::NoMemory => Error::Server("out of memory storing object"),
        }
    }
}
