//! A store with something in it, for the benches.
#![allow(dead_code)]

use rustcached::clock::Clock;
use rustcached::command::{Get, Set};
use rustcached::config::Settings;
use rustcached::store::{Key, KeyHash, Local, Outcome, Pace, Store};
use std::sync::Arc;

/// Bytes of the values that most benches store.
pub const VALUE: [u8; 100] = [b'v'; 100];

pub struct Bench {
    pub store: Arc<Store>,
    pub local: Local,
    items: usize,
    /// Position in a walk over the keys that visits all of them, in no order.
    at: usize,
}

/// Coprime to every number of keys that is used.
const STRIDE: usize = 1_000_003;

impl Bench {
    /// A store of `megabytes`, with `items` items of [`VALUE`] unless they are too many.
    pub fn new(megabytes: u64, items: usize) -> Bench {
        let settings = Settings { maxbytes: megabytes << 20, ..Settings::default() };
        let clock = Arc::new(Clock::manual(1_700_000_000));
        let store = Store::new(Arc::new(settings), clock).expect("a store");
        let bench = Bench { local: store.local(), store, items, at: 0 };
        for n in 0..items {
            bench.set(n, &VALUE);
            if n % 1024 == 0 {
                while bench.store.tick(&bench.local) != Pace::Rest {}
            }
        }
        bench
    }

    /// The next key's number.
    pub fn turn(&mut self) -> usize {
        self.at = (self.at + STRIDE) % self.items;
        self.at
    }

    pub fn set(&self, n: usize, value: &[u8]) {
        let name = name(n);
        set(&self.store, &self.local, key(&name), self.store.hash(key(&name)), value);
    }
}

/// The `n`th key: 16 digits, made without touching memory that would count.
pub fn name(n: usize) -> [u8; 16] {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(n as u64 + 1_000_000_000_000_000).as_bytes();
    digits.try_into().expect("16 digits")
}

pub fn key(name: &[u8]) -> Key<'_> {
    Key::new(name).expect("a short key")
}

pub fn plain_get(key: Key<'_>) -> Get<'_> {
    Get::of(key)
}

/// Stores a value, whatever is there.
pub fn set(store: &Arc<Store>, local: &Local, key: Key<'_>, hash: KeyHash, value: &[u8]) {
    let set = Set::of(key, value.len() as u32);
    let outcome = store.set(local, &set, hash, value);
    assert!(matches!(outcome, Ok(Outcome::Stored { .. })));
}
