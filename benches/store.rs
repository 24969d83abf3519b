//! The store's commands on one thread, without sockets: a hundred-byte value, drawn from few keys
//! that stay in the processor's caches or from many that do not.

mod common;

use common::{Bench, VALUE, key, name, plain_get};
use divan::{Bencher, black_box};
use rustcached::command::{Arith, Fetch};
use rustcached::store::{ArithOutcome, FetchOutcome};

fn main() {
    divan::main();
}

/// Few and many.
const ITEMS: [usize; 2] = [1_000, 400_000];
/// Bytes of memory, in MiB, that hold the many.
const ROOMY: u64 = 128;
const FULL: u64 = 8;

#[divan::bench(args = ITEMS, sample_size = 1_000)]
fn get_hit(bencher: Bencher<'_, '_>, items: usize) {
    let mut bench = Bench::new(ROOMY, items);
    let mut out = Vec::with_capacity(256);
    bencher.bench_local(|| {
        let name = name(bench.turn());
        let key = key(&name);
        let hash = bench.store.hash(key);
        let hit = bench.store.get(&bench.local, &plain_get(key), hash, |hit| {
            out.clear();
            hit.copy_value(&mut out);
        });
        assert!(hit);
        black_box(&out);
    });
}

#[divan::bench(args = ITEMS, sample_size = 1_000)]
fn get_miss(bencher: Bencher<'_, '_>, items: usize) {
    let bench = Bench::new(ROOMY, items);
    let absent = key(b"user:absent");
    let hash = bench.store.hash(absent);
    bencher.bench_local(|| {
        let get = plain_get(black_box(absent));
        assert!(!bench.store.get(&bench.local, &get, hash, |_| ()));
    });
}

/// The first asks for a CAS unique, which each item then has.
#[divan::bench(args = ITEMS, sample_size = 1_000)]
fn gets(bencher: Bencher<'_, '_>, items: usize) {
    let mut bench = Bench::new(ROOMY, items);
    let mut out = Vec::with_capacity(256);
    bencher.bench_local(|| {
        let name = name(bench.turn());
        let key = key(&name);
        let hash = bench.store.hash(key);
        let fetch = Fetch { cas: true, ..Fetch::of(plain_get(key)) };
        let outcome = bench.store.fetch(&bench.local, &fetch, hash, |hit| {
            out.clear();
            hit.copy_value(&mut out);
            black_box(hit.cas());
        });
        assert_eq!(outcome, FetchOutcome::Hit);
    });
}

#[divan::bench(args = ITEMS, sample_size = 1_000)]
fn set_replacing(bencher: Bencher<'_, '_>, items: usize) {
    let mut bench = Bench::new(ROOMY, items);
    bencher.bench_local(|| {
        let n = bench.turn();
        bench.set(n, black_box(&VALUE));
    });
}

/// New keys in a store that has no room left.
#[divan::bench(sample_size = 1_000)]
fn set_evicting(bencher: Bencher<'_, '_>) {
    let bench = Bench::new(FULL, 200_000);
    let evicted = || bench.store.stats().class_sums().iter().map(|c| c.evicted).sum::<u64>();
    assert!(evicted() > 0, "the store is full");
    let mut n = 1_000_000;
    bencher.bench_local(|| {
        n += 1;
        bench.set(n, black_box(&VALUE));
    });
}

#[divan::bench(sample_size = 1_000)]
fn incr(bencher: Bencher<'_, '_>) {
    let bench = Bench::new(ROOMY, 1);
    bench.set(0, b"1000000000");
    bencher.bench_local(|| {
        let name = name(0);
        let key = key(&name);
        let hash = bench.store.hash(key);
        let arith = Arith::of(key, 1);
        let outcome = bench.store.arith(&bench.local, &arith, hash);
        assert!(matches!(black_box(outcome), ArithOutcome::Number { .. }));
    });
}
