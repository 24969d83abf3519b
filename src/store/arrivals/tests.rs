//! Values that come bit by bit, stay half-way, or are dropped, beside items that are there.

use crate::config::{Layout, Settings};
use crate::store::testing::{Bench, value_of};
use crate::store::{Key, Outcome, Refusal, Reservation, Set};

const LEN: u32 = 900_000;

fn bench(layout: Layout, megabytes: u64, evict: bool) -> Bench {
    Bench::new(Settings { layout, maxbytes: megabytes << 20, evict, ..Settings::default() })
}

fn set_of(name: &str, len: u32) -> Set<'_> {
    Set { drop_old_on_refusal: true, ..Set::of(Key::new(name.as_bytes()).expect("a key"), len) }
}

/// A value that some of is here.
fn begin(b: &Bench, name: &str, len: u32, came: usize) -> Result<Reservation, Refusal> {
    let set = set_of(name, len);
    let mut arriving = b.store.reserve(&b.local, &set, b.store.hash(set.key))?;
    arriving.fill(&b.local, &value_of(name, len as usize)[..came])?;
    Ok(arriving)
}

/// The rest of it comes, and it is stored.
fn end(b: &Bench, name: &str, len: u32, mut arriving: Reservation) -> Result<Outcome, Refusal> {
    let (set, at) = (set_of(name, len), len as usize - arriving.missing());
    arriving.fill(&b.local, &value_of(name, len as usize)[at..])?;
    b.store.commit(&b.local, arriving, &set, b.store.hash(set.key))
}

fn arriving(b: &Bench) -> u64 {
    b.store.memory_info().arriving
}

#[test]
fn a_value_evicts_no_more_than_came_of_it() {
    let b = bench(Layout::Compact, 8, true);
    b.fill("small", 8_000, 1_000);
    let before = b.items();
    let mut slow = begin(&b, "slow", LEN, 1).expect("room");
    for came in (50_000..=LEN as usize).step_by(50_000) {
        let value = value_of("slow", LEN as usize);
        let at = LEN as usize - slow.missing();
        slow.fill(&b.local, &value[at..came]).expect("room");
        let lost = (before - b.items()) as usize * 1_000;
        // At any time the last page may be the only one of the tail's class.
        assert!(lost <= came + (256 << 10), "{lost} bytes for {came}");
        assert!(arriving(&b) as usize <= came + (8 << 10), "{} bytes for {came}", arriving(&b));
        b.validate();
    }
    end(&b, "slow", LEN, slow).expect("it is stored");
    assert!(b.get("slow") && arriving(&b) == 0);
    b.validate();
}

#[test]
fn the_value_that_came_to_rest_first_gives_way() {
    let b = bench(Layout::Compact, 8, true);
    let name = |n: usize| format!("half{n}");
    let mut halves: Vec<Option<Reservation>> = Vec::new();
    for n in 0..20 {
        halves.push(Some(begin(&b, &name(n), LEN, 500_000).expect("room")));
        // This one goes on coming.
        let first = halves[0].as_mut().expect("the first");
        let (at, value) = (LEN as usize - first.missing(), value_of(&name(0), LEN as usize));
        first.fill(&b.local, &value[at..at + 10_000]).expect("what is not at rest stays");
        assert!(arriving(&b) <= 4 << 20, "{}", arriving(&b));
    }
    b.validate();
    let mut stored = Vec::new();
    for (n, half) in halves.iter_mut().enumerate() {
        let half = half.take().expect("a half");
        match end(&b, &name(n), LEN, half) {
            Ok(_) => stored.push(n),
            Err(refusal) => assert_eq!(refusal, Refusal::NoMemory),
        }
    }
    assert!(stored[0] == 0 && stored.len() >= 6, "{stored:?}");
    assert!(stored[1..].iter().eq(&(20 - stored.len() + 1..20).collect::<Vec<_>>()), "{stored:?}");
    assert_eq!(arriving(&b), 0);
    b.validate();
}

#[test]
fn a_value_that_is_alone_may_be_as_large_as_any() {
    let settings = Settings { maxbytes: 8 << 20, item_size_max: 6 << 20, ..Settings::default() };
    let b = Bench::new(settings);
    b.fill("small", 8_000, 1_000);
    let large = begin(&b, "large", 6_000_000, 5_900_000).expect("room");
    b.validate();
    end(&b, "large", 6_000_000, large).expect("it is stored");
    assert!(b.get("large"));
}

#[test]
fn what_is_given_up_is_anybodys_at_once() {
    for evict in [true, false] {
        let b = bench(Layout::Compact, 8, evict);
        let mut halves: Vec<Reservation> =
            (0..7).map(|n| begin(&b, &format!("half{n}"), LEN, 500_000).expect("room")).collect();
        halves.truncate(0);
        // No tick from here on.
        (0..6_000).for_each(|n| b.set(&format!("small{n:05}"), 1_000));
        assert_eq!(b.present("small", 6_000), 6_000);
        b.validate();
    }
}

#[test]
fn a_lowered_limit_holds_beside_values_on_their_way() {
    for layout in [Layout::Compact, Layout::Memcached] {
        let b = bench(layout, 64, true);
        let mut halves = Vec::new();
        for n in 0..50 {
            b.fill(&format!("a{n}-"), 30, 5_000);
            halves.push(begin(&b, &format!("half{n}"), LEN, 400_000).expect("room"));
        }
        assert!(b.store.set_limit(16 << 20));
        assert!(arriving(&b) <= 8 << 20);
        b.until("the limit holds", |b| b.shard().slabs.over_limit() == 0);
        b.validate();
        let ends = halves.into_iter().enumerate();
        let stored = ends.filter_map(|(n, half)| end(&b, &format!("half{n}"), LEN, half).ok());
        assert!(stored.count() > 0, "the last ones are not dropped");
        b.settle();
        assert_eq!((b.shard().slabs.over_limit(), arriving(&b)), (0, 0));
        b.validate();
    }
}

/// As in memcached, which has room for the whole of the smaller one before any of it comes.
#[test]
fn the_old_value_outlives_only_a_large_one() {
    for (len, stays) in [(400_000, false), (LEN, true)] {
        let b = bench(Layout::Compact, 8, false);
        b.set("key", 10);
        let full = (0..10_000).find(|n| b.try_set(&format!("s{n}"), 3_000, 0).is_err());
        assert!(full.is_some() && b.get("key"));
        (0..100).for_each(|n| assert!(b.delete(&format!("s{n}"))));
        // Their pages go back.
        b.store.clock().advance(10);
        b.settle();
        let set = set_of("key", len);
        let mut value = begin(&b, "key", len, 1).expect("its first chunk has room");
        let bytes = value_of("key", len as usize);
        assert_eq!(value.fill(&b.local, &bytes[1..]), Err(Refusal::NoMemory));
        let refused = || b.store.stats().thread_sums().store_no_memory;
        let (before, items) = (refused(), b.items());
        b.store.give_up(&b.local, &set, b.store.hash(set.key));
        assert_eq!((b.get("key"), refused() - before), (stays, u64::from(!stays)), "{len} bytes");
        assert_eq!((arriving(&b), b.items()), (0, items - u64::from(!stays)));
        b.validate();
    }
}
