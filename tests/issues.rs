//! A test for every bug that was found and fixed, against the store itself.

use rustcached::clock::Clock;
use rustcached::config::Settings;
use rustcached::store::{Arith, Fetch, Get, Key, Local, Set, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

fn store() -> Arc<Store> {
    let clock = Arc::new(Clock::manual(1_700_000_000));
    Store::new(Arc::new(Settings::default()), clock).expect("64 MiB can be had")
}

fn key(bytes: &[u8]) -> Key<'_> {
    Key::new(bytes).expect("it fits")
}

fn get_of(bytes: &[u8]) -> Get<'_> {
    Get::of(key(bytes))
}

fn set(store: &Arc<Store>, l: &Local, bytes: &[u8], value: &[u8]) {
    let set = Set::of(key(bytes), value.len() as u32);
    store.set(l, &set, store.hash(set.key), value).expect("there is room");
}

/// Reads a key; false: not found.
fn get(store: &Arc<Store>, l: &Local, bytes: &[u8]) -> bool {
    let (get, mut value) = (get_of(bytes), Vec::new());
    store.get(l, &get, store.hash(get.key), |hit| {
        value.clear();
        hit.copy_value(&mut value);
    })
}

fn incr(store: &Arc<Store>, l: &Local, bytes: &[u8]) {
    let arith = Arith::of(key(bytes), 1);
    store.arith(l, &arith, store.hash(arith.key));
}

/// Runs `work` on one thread and `checks` on this one.
fn beside(
    store: &Arc<Store>,
    work: impl Fn(&Arc<Store>, &Local) + Sync,
    checks: impl Fn(&Arc<Store>, &Local),
) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let l = store.local();
            while !stop.load(Relaxed) {
                work(store, &l);
            }
        });
        let _end = Stop(&stop);
        checks(store, &store.local());
    });
}

/// Ends the other thread also where a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A reader that took its second before a flush stamped with it what was stored after the flush.
#[test]
fn what_is_stored_after_a_flush_survives_reads_that_began_before() {
    let read = |store: &Arc<Store>, l: &Local| {
        get(store, l, b"k");
    };
    beside(&store(), read, |store, l| {
        for round in 0..20_000 {
            set(store, l, b"k", b"v");
            store.flush_all(l, None);
            assert!(!get(store, l, b"k"), "round {round}: it outlived the flush");
            set(store, l, b"k", b"v");
            assert!(get(store, l, b"k"), "round {round}: it was stored after the flush");
        }
    });
}

/// An incr that found its number before a flush stored the sum as of after it.
#[test]
fn numbers_do_not_outlive_a_flush_by_being_counted_up() {
    let count = |store: &Arc<Store>, l: &Local| incr(store, l, b"n");
    beside(&store(), count, |store, l| {
        for round in 0..20_000 {
            set(store, l, b"n", b"9");
            store.flush_all(l, None);
            assert!(!get(store, l, b"n"), "round {round}");
        }
    });
}

/// An item that had to move to make room for a CAS unique was counted as a new one.
#[test]
fn an_item_that_gets_a_cas_unique_is_no_new_item() {
    let store = store();
    let l = store.local();
    set(&store, &l, b"k", b"0123456789");
    let fetch = Fetch { cas: true, ..Fetch::of(get_of(b"k")) };
    assert!(store.fetch(&l, &fetch, store.hash(fetch.get.key), |_| ()));
    assert_eq!(store.stats().thread_sums().total_items, 1);
}
