//! Handing out chunks and taking them back.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rustcached_slab::{ClassId, Geometry, Options, Slabs};

fn main() {
    divan::main();
}

const CHUNKS: [u32; 3] = [64, 128, 4096];
const PAGE: u32 = 64 << 10;
const PAGES: u32 = 256;
/// Chunks held at once.
const HELD: usize = 4096;

fn slabs() -> Slabs<()> {
    let geometry = Geometry::compact(PAGE, 1.12, 24).expect("a ladder");
    let options = Options {
        limit: u64::from(PAGES) * u64::from(PAGE) * 2,
        ceiling: PAGES,
        chunk_overhead_64ths: 0,
        first_page_beyond_limit: false,
        reserve: false,
        huge_pages: 0,
    };
    Slabs::new(geometry, options).expect("address space")
}

fn class_of(slabs: &Slabs<()>, size: u32) -> ClassId {
    slabs.geometry().class_for(size as usize).expect("a class")
}

/// The chunk freed last is the next to be had: all in the processor's caches.
#[divan::bench(args = CHUNKS)]
fn take_and_put(bencher: Bencher<'_, '_>, size: u32) {
    let slabs = slabs();
    let class = class_of(&slabs, size);
    assert!(slabs.lock(class).grow());
    bencher.bench_local(|| {
        let chunk = slabs.lock(black_box(class)).take().expect("a free chunk");
        slabs.lock(slabs.class_of(chunk)).put(chunk);
    });
}

/// Many taken, then all put back in the order in which they came.
#[divan::bench(args = CHUNKS)]
fn take_many_put_many(bencher: Bencher<'_, '_>, size: u32) {
    let slabs = slabs();
    let class = class_of(&slabs, size);
    let mut held = Vec::with_capacity(HELD);
    bencher.counter(ItemsCount::new(HELD)).bench_local(|| {
        for _ in 0..HELD {
            let mut guard = slabs.lock(class);
            if guard.free_chunks() == 0 {
                assert!(guard.grow());
            }
            held.push(guard.take().expect("a free chunk"));
        }
        for chunk in held.drain(..) {
            slabs.lock(slabs.class_of(chunk)).put(chunk);
        }
    });
}

/// A page to a class and back to the pool, its memory with it.
#[divan::bench]
fn page_to_class_and_back(bencher: Bencher<'_, '_>) {
    let slabs = slabs();
    let class = class_of(&slabs, 128);
    bencher.bench_local(|| {
        let mut guard = slabs.lock(class);
        assert!(guard.grow());
        let page = guard.pages()[0];
        assert!(guard.start_drain(page) && guard.finish_drain(page));
    });
}
