//! What callers of the store name: keys, outcomes, figures.

use super::spare::Spare;
use super::tick::Tick;
use crate::clock::Seconds;
use crate::item::{Item, Shape};
use crate::stats::{Counters, Stats};
use crate::watch::{Log, Stored};
use slab::Words;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// A key of 1 to 250 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a>(&'a [u8]);

impl<'a> Key<'a> {
    /// memcached's limit, in bytes.
    pub const MAX: usize = 250;

    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Key<'a>> {
        (1..=Key::MAX).contains(&bytes.len()).then_some(Key(bytes))
    }

    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// A key's seeded hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(pub u64);

/// What one thread needs to use the store: its own counters, and scratch space.
pub struct Local {
    pub counters: Arc<Counters>,
    /// Of all threads.
    pub(super) stats: Arc<Stats>,
    /// What watchers are told by.
    pub log: Log,
    pub(super) sizes: Arc<Sizes>,
    pub(super) scratch: Cell<Vec<u8>>,
    pub(super) spare: Spare,
    /// Of the thread that does the background work.
    pub(super) tick: Tick,
}

impl Local {
    /// Lends a copy of an item's key; `shape` is the item's as it was read.
    #[inline]
    pub(super) fn with_key<T>(
        &self,
        item: Item<'_>,
        shape: Shape,
        borrow: impl FnOnce(&[u8]) -> T,
    ) -> T {
        let mut key = self.scratch.take();
        key.clear();
        item.copy_key(shape, &mut key);
        let lent = borrow(&key);
        self.scratch.set(key);
        lent
    }
}

/// Items per size in steps of [`SIZE_STEP`], as wrapping changes made by one thread.
pub(super) struct Sizes {
    pub cells: Words,
    /// The highest step ever used.
    pub top: AtomicU32,
}

/// Bytes; memcached's step of `stats sizes`.
pub(super) const SIZE_STEP: u32 = 32;

/// What `me` and dumps show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Seconds left to live; `None`: for ever.
    pub ttl: Option<u32>,
    pub idle: u32,
    pub cas: u64,
    pub fetched: bool,
    pub class: u32,
    /// Bytes of the item as `stats` counts them.
    pub size: u32,
    /// The key came in base64.
    pub binary_key: bool,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// CAS unique where asked for, final length of the value.
    Stored {
        cas: Option<u64>,
        len: u32,
    },
    NotStored,
    Exists,
    NotFound,
    /// The index had no room, and nothing may be evicted.
    NoMemory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArithOutcome {
    /// `ttl`: seconds left, `None` for ever; `ttl_before`: before a `touch`.
    Number {
        value: u64,
        cas: Option<u64>,
        ttl: Option<u32>,
        ttl_before: Option<u32>,
    },
    NotFound,
    Exists,
    NonNumeric,
    NoMemory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TouchOutcome {
    Touched,
    NotFound,
    /// The item is as it was.
    NoMemory,
}

/// How a read ended that may also change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchOutcome {
    Hit,
    Miss,
    /// There is no room for the fields that it asks for; the item is as it was.
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
    /// The same where some of the value had room.
    NoMemoryOnTheWay,
}

impl From<Outcome> for Stored {
    fn from(outcome: Outcome) -> Stored {
        match outcome {
            Outcome::Stored { .. } => Stored::Stored,
            Outcome::NotStored => Stored::NotStored,
            Outcome::Exists => Stored::Exists,
            Outcome::NotFound => Stored::NotFound,
            Outcome::NoMemory => Stored::NoMemory,
        }
    }
}

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
    /// Seconds that the longest idle item of HOT, of WARM has been so.
    pub age_hot: u32,
    pub age_warm: u32,
    /// Seconds that victims were idle for, as a mean in which old ones fade; before the first,
    /// those of the longest idle item.
    pub age: u32,
    /// Something was ever evicted.
    pub has_evicted: bool,
    /// Idle seconds of the last victim since `stats reset`.
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
    /// -m as it is now, bytes.
    pub limit_maxbytes: u64,
    /// A crawl or a dump is under way.
    pub crawler_running: bool,
    /// Crawls and dumps ever started.
    pub crawler_starts: u64,
    /// What `flush_all` last set: older items are dead. 0 before the first.
    pub oldest_live: Seconds,
}

/// What the cache's memory is used for, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryInfo {
    /// -m as it is now, and what of it is the cache's.
    pub limit: u64,
    pub cache_limit: u64,
    /// Of one page.
    pub page: u64,
    /// Slab classes.
    pub classes: u64,
    /// Pages in use, and values among them that are only there because they are being sent.
    pub pages: u64,
    pub pinned: u64,
    /// What pages and the rest take beyond the limit, as it was lowered.
    pub over_limit: u64,
    /// Values among them that are on their way.
    pub arriving: u64,
    pub index: u64,
    pub ghosts: u64,
    pub queues: u64,
}

/// What is remembered of evicted keys, and what came of it since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct GhostInfo {
    pub lines: u64,
    pub bytes: u64,
    /// Misses that a little more memory for their class would have saved, as far as they can be
    /// told: so many of them are another key's.
    pub gains: u64,
    pub false_gains: u64,
}
