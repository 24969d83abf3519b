//! The index, through the calls that do least beside it: an absent key is looked for without the
//! line's lock and no item is read; an inspected one is found under the lock and its key compared.

mod common;

use common::{Bench, key, name, plain_get};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rustcached::store::KeyHash;

fn main() {
    divan::main();
}

const ITEMS: [usize; 3] = [1_000, 50_000, 400_000];
const MEGABYTES: u64 = 128;
/// Keys of one batch, as many as a read brings.
const BATCH: usize = 32;

#[divan::bench(args = ITEMS, sample_size = 1_000)]
fn find_hit(bencher: Bencher<'_, '_>, items: usize) {
    let mut bench = Bench::new(MEGABYTES, items);
    bencher.bench_local(|| {
        let name = name(bench.turn());
        let key = key(&name);
        let hash = bench.store.hash(key);
        assert!(black_box(bench.store.inspect(&bench.local, key, hash)).is_some());
    });
}

/// Hashes of made-up keys, so that every line has its turn.
#[divan::bench(args = ITEMS, sample_size = 1_000)]
fn find_miss(bencher: Bencher<'_, '_>, items: usize) {
    let mut bench = Bench::new(MEGABYTES, items);
    bencher.bench_local(|| {
        let name = name(bench.turn());
        let key = key(&name);
        let hash = bench.store.hash(key);
        let elsewhere = KeyHash(hash.0.rotate_left(17));
        let get = plain_get(key);
        black_box(bench.store.get(&bench.local, &get, elsewhere, |_| ()));
    });
}

/// Hits of a batch whose lines and items were asked for ahead.
#[divan::bench(args = ITEMS, sample_size = 100)]
fn find_prefetched(bencher: Bencher<'_, '_>, items: usize) {
    let mut bench = Bench::new(MEGABYTES, items);
    let mut batch = [(0, KeyHash(0)); BATCH];
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        for place in &mut batch {
            let n = bench.turn();
            *place = (n, bench.store.hash(key(&name(n))));
            bench.store.prefetch_line(place.1);
        }
        batch.iter().for_each(|(_, hash)| bench.store.prefetch_item(*hash, false));
        for (n, hash) in batch {
            let name = name(n);
            let get = plain_get(key(&name));
            assert!(bench.store.get(&bench.local, &get, hash, |hit| {
                black_box(hit.value_len());
            }));
        }
    });
}
