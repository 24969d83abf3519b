//! Items that are read once or never: tokens, queues, logs.

use super::{Pattern, Request, Row, Sizes, Target, batches, flat, kind, plain, set, taken};
use std::io::Result;

/// How often memory is filled in the course of a pattern.
const FILLS: f64 = 4.0;
const VALUE: Sizes = Sizes(300, 300);
const MIXED: Sizes = Sizes(100, 1000);

pub const PATTERNS: &[Pattern] = &[
    plain("once-40", "each key read once, after 40 % of -m was written", |t| once(t, 0.40, VALUE)),
    plain("once-60", "the same after 60 %", |t| once(t, 0.60, VALUE)),
    plain("once-75", "the same after 75 %", |t| once(t, 0.75, VALUE)),
    plain("once-85", "the same after 85 %", |t| once(t, 0.85, VALUE)),
    plain("once-mixed", "after 75 %, values of 100 to 1000 bytes", |t| once(t, 0.75, MIXED)),
    plain("stale-40", "once-40 in a cache of items read twice", |t| stale(t, 0.40)),
    plain("stale-60", "once-60 in such a cache", |t| stale(t, 0.60)),
    plain("stale-75", "once-75 in such a cache", |t| stale(t, 0.75)),
    plain("stale-85", "once-85 in such a cache", |t| stale(t, 0.85)),
    flat("lru-once-40", "once-40, ours with -o eviction=lru", |t| once(t, 0.40, VALUE)),
    flat("lru-once-60", "once-60, ours so", |t| once(t, 0.60, VALUE)),
    flat("lru-once-75", "once-75, ours so", |t| once(t, 0.75, VALUE)),
    flat("lru-once-85", "once-85, ours so", |t| once(t, 0.85, VALUE)),
    flat("lru-stale-75", "stale-75, ours so", |t| stale(t, 0.75)),
    plain("newest", "items written, the newest of 60, 80, 90 % of -m read back", newest),
    plain("newest-mixed", "the same with values of 100 to 1000 bytes", newest_mixed),
    plain("smaller", "11 KB, each read once, then as many of 3 KB, read back", smaller),
    Pattern {
        name: "chunked",
        about: "the same with -o slab_chunk_max=4: in one class of memcached's",
        options: &["-o", "slab_chunk_max=4"],
        own: &[],
        run: smaller,
    },
];

fn once(target: &mut Target<'_>, share: f64, sizes: Sizes) -> Result<Vec<Row>> {
    let distance = target.bytes(share);
    let count = target.items(sizes.mean(), FILLS);
    let (mut written, mut passed, mut next) = (0, 0, 0);
    let mut row = Row::new("", []);
    for keys in batches(0, count) {
        let mut requests: Vec<Request> = keys.clone().map(|key| set(key, sizes.of(key))).collect();
        written += keys.clone().map(|key| taken(sizes.of(key))).sum::<u64>();
        let sets = requests.len();
        while written - passed >= distance {
            requests.push(Request::Get(next));
            passed += taken(sizes.of(next));
            next += 1;
        }
        row.count(target.wire.ask(&requests)?.into_iter().skip(sets));
    }
    Ok(vec![row])
}

/// The cache is full of items that were worth keeping, and are not any more.
fn stale(target: &mut Target<'_>, share: f64) -> Result<Vec<Row>> {
    let count = target.items(VALUE.0, 1.0);
    for keys in batches(kind(1), count) {
        let sets = keys.clone().map(|key| set(key, VALUE.0));
        let reads = keys.clone().chain(keys.clone()).map(Request::Get);
        let requests: Vec<Request> = sets.chain(reads).collect();
        target.wire.ask(&requests)?;
    }
    once(target, share, VALUE)
}

fn newest(target: &mut Target<'_>) -> Result<Vec<Row>> {
    written_only(target, VALUE)
}

fn newest_mixed(target: &mut Target<'_>) -> Result<Vec<Row>> {
    written_only(target, MIXED)
}

/// Items are written and not read, and at last the newest ones are read, from the newest on.
fn written_only(target: &mut Target<'_>, sizes: Sizes) -> Result<Vec<Row>> {
    const SHARES: [u64; 3] = [60, 80, 90];
    let count = target.items(sizes.mean(), FILLS);
    for keys in batches(0, count) {
        let sets: Vec<Request> = keys.map(|key| set(key, sizes.of(key))).collect();
        target.wire.ask(&sets)?;
    }
    let mut found = target.get_all(0, count)?;
    found.reverse();
    let newest = |percent: u64| {
        let wanted = target.items(sizes.mean(), percent as f64 / 100.0) as usize;
        Row::new(format!("{percent} %"), found[..wanted].iter().copied())
    };
    Ok(SHARES.map(newest).into())
}

/// Large items are written, then each is read once; then as many smaller ones are written, and each
/// is read when all are written. With `slab_chunk_max=4` memcached's own test of chunked items does
/// so.
fn smaller(target: &mut Target<'_>) -> Result<Vec<Row>> {
    const ITEMS: u64 = 5440;
    let count = target.scaled(ITEMS);
    target.fill(kind(1), count, 11_000)?;
    let old = target.get_all(kind(1), count)?;
    target.fill(kind(2), count, 3_000)?;
    let newer = target.get_all(kind(2), count)?;
    Ok(vec![Row::new("old", old), Row::new("newer", newer)])
}
