//! What background work costs when half of the items have expired, or all were flushed: items of
//! 20 + 50 bytes, freed tick by tick.

use divan::Bencher;
use divan::counter::ItemsCount;
use rustcached::clock::{Clock, Exptime};
use rustcached::command::Set;
use rustcached::config::Settings;
use rustcached::store::{Key, Local, Pace, Store};
use std::sync::Arc;

fn main() {
    divan::main();
}

const ITEMS: usize = 1_000_000;
/// Seconds that the shorter-lived half has.
const TTL: u32 = 1_000_000;
/// Bytes of memory per item, with room to spare.
const ROOM: u64 = 140;
const VALUE: [u8; 50] = [b'v'; 50];

/// Every other item expires, all of these in the same second.
#[divan::bench(args = [ITEMS, 10 * ITEMS], sample_count = 3, sample_size = 1)]
fn half_expired(bencher: Bencher<'_, '_>, items: usize) {
    bencher.counter(ItemsCount::new(items / 2)).with_inputs(|| filled(items)).bench_local_values(
        |(store, local)| {
            store.clock().advance(TTL);
            settle(&store, &local);
            let left: u64 = store.stats().levels().iter().map(|(items, _)| items).sum();
            assert_eq!(left as usize, items / 2);
            (store, local)
        },
    );
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn all_flushed(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(ITEMS)).with_inputs(|| filled(ITEMS)).bench_local_values(
        |(store, local)| {
            store.flush_all(&local, None);
            settle(&store, &local);
            let left: u64 = store.stats().levels().iter().map(|(items, _)| items).sum();
            assert_eq!(left, 0);
            (store, local)
        },
    );
}

/// A second in which nothing expires: what the reclaimer takes of an idle server.
#[divan::bench]
fn nothing_due(bencher: Bencher<'_, '_>) {
    let (store, local) = filled(ITEMS);
    bencher.bench_local(|| {
        store.clock().advance(1);
        settle(&store, &local);
        store.clock().now()
    });
}

fn filled(items: usize) -> (Arc<Store>, Local) {
    let settings = Settings { maxbytes: items as u64 * ROOM, ..Settings::default() };
    let clock = Arc::new(Clock::manual(1_700_000_000));
    let store = Store::new(Arc::new(settings), clock).expect("a store");
    let local = store.local();
    for n in 0..items {
        let name = format!("{n:020}");
        let exptime = Exptime(if n % 2 == 0 { TTL } else { 2 * TTL } as i64);
        let key = Key::new(name.as_bytes()).expect("a short key");
        let set = Set { exptime, ..Set::of(key, VALUE.len() as u32) };
        let hash = store.hash(set.key);
        store.set(&local, &set, hash, &VALUE).expect("memory");
        if n % 1024 == 0 {
            settle(&store, &local);
        }
    }
    (store, local)
}

fn settle(store: &Store, local: &Local) {
    while store.tick(local) != Pace::Rest {}
}
