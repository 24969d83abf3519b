//! What becomes of items when memory runs out: those that are there stay as they are, whoever reads
//! them goes on, and those that go are the ones that should.

use super::testing::Bench;
use super::{
    Arith, ArithOutcome, Delete, DeleteOutcome, Fetch, FetchOutcome, Get, Key, TouchOutcome,
};
use crate::clock::Exptime;
use crate::config::{Eviction, Layout, Settings};
use crate::item::Shape;

const LAYOUTS: [Layout; 2] = [Layout::Compact, Layout::Memcached];
/// Lengths that leave a chunk of the compact layout no room for a field.
const TIGHT: [usize; 4] = [103, 105, 111, 113];

fn key(name: &str) -> Key<'_> {
    Key::new(name.as_bytes()).expect("a short key")
}

/// A store that evicts nothing.
fn keeping(layout: Layout, mib: u64) -> Bench {
    Bench::new(Settings { evict: false, layout, maxbytes: mib << 20, ..Settings::default() })
}

/// Stores values of `len` bytes under `family` until there is no memory; how many.
fn exhaust(b: &Bench, family: &str, len: usize) -> usize {
    let stores = |n: &usize| b.try_set(&format!("{family}{n:05}"), len, 0).is_ok();
    let count = (0..)
        .take_while(stores)
        .inspect(|n| {
            if n % 16 == 0 {
                _ = b.tick()
            }
        })
        .count();
    // What the last one failed for may be freed by it.
    count + (count..count + 20).take_while(stores).count()
}

/// What takes all memory that items of `len` bytes could have, and some of those.
fn full(layout: Layout, len: usize) -> (Bench, usize) {
    let b = keeping(layout, 4);
    (0..100).for_each(|n| b.set(&format!("item{n:05}"), len));
    exhaust(&b, "large", 1_000);
    let count = exhaust(&b, "item1", len);
    (b, count)
}

#[test]
fn fields_that_come_later_have_room_where_nothing_is_evicted() {
    for (layout, len) in LAYOUTS.into_iter().flat_map(|l| TIGHT.map(|len| (l, len))) {
        let (b, _) = full(layout, len);
        for n in 0..100 {
            let name = format!("item{n:05}");
            let touching = Fetch { touch: Some(Exptime(500)), ..Fetch::of(Get::of(key(&name))) };
            match n % 3 {
                0 => assert_eq!(b.touch(&name, 500), TouchOutcome::Touched),
                1 => assert_eq!(b.try_fetch(&touching), FetchOutcome::Hit),
                _ => {
                    let touch = Some(Exptime(500));
                    let delete = Delete { invalidate: true, touch, ..Delete::of(key(&name)) };
                    let outcome = b.store.delete(&b.local, &delete, b.store.hash(delete.key));
                    assert_eq!(outcome, DeleteOutcome::Deleted);
                }
            }
            let cas = b.gets(&name);
            assert!(cas > 0 && b.gets(&name) == cas, "{name} is as it was");
            assert_eq!(b.held(&name).expect("it stays").ttl, Some(500));
        }
        b.validate();
    }
}

#[test]
fn a_number_is_counted_up_where_there_is_no_memory() {
    for layout in LAYOUTS {
        let b = keeping(layout, 4);
        let names: Vec<String> = (0..59).map(|n| format!("{n:0>width$}", width = n + 3)).collect();
        let count = |name: &str, touch| {
            let arith = Arith { return_cas: true, touch, initial: 10, ..Arith::of(key(name), 1) };
            let arith = Arith { vivify: Some(Exptime(0)), ..arith };
            b.store.arith(&b.local, &arith, b.store.hash(arith.key))
        };
        names
            .iter()
            .for_each(|name| assert!(matches!(count(name, None), ArithOutcome::Number { .. })));
        TIGHT.into_iter().chain([1, 10, 20, 40, 60, 80]).for_each(|len| {
            exhaust(&b, &format!("v{len}-"), len);
        });
        for _ in 0..12 {
            for name in &names {
                let outcome = count(name, Some(Exptime(50)));
                assert!(
                    matches!(outcome, ArithOutcome::Number { ttl: Some(50), .. }),
                    "{outcome:?}"
                );
            }
        }
        b.validate();
    }
}

/// They are what is left of a time when items were evicted: here TEMP ones without end, which
/// nothing that is pinned gives a place.
#[test]
fn an_item_stays_as_it_was_where_it_cannot_be_changed() {
    let b = Bench::new(Settings { maxbytes: 2 << 20, ..Settings::default() });
    TIGHT.into_iter().for_each(|len| b.set(&format!("tight{len:05}"), len));
    let before = TIGHT.map(|len| b.held(&format!("tight{len:05}")));
    let shard = b.shard();
    // Nothing is left in any class.
    for class in shard.slabs.geometry().classes() {
        while shard.take_free(class, true).is_some() {}
    }
    let pinned: Vec<_> = TIGHT.iter().map(|len| b.chunk_of(&format!("tight{len:05}"))).collect();
    pinned.iter().flatten().for_each(|chunk| shard.item(*chunk).set_bits(Shape::PINNED));
    for len in TIGHT {
        let name = format!("tight{len:05}");
        let fetch = Fetch { touch: Some(Exptime(9)), ..Fetch::of(Get::of(key(&name))) };
        let mut outcomes = vec![b.try_fetch(&fetch) == FetchOutcome::NoMemory];
        outcomes.push(b.touch(&name, 500) == TouchOutcome::NoMemory);
        let unique = Fetch { cas: true, ..Fetch::of(Get::of(key(&name))) };
        outcomes.push(b.try_fetch(&unique) == FetchOutcome::NoMemory);
        assert!(outcomes.contains(&true) && b.get(&name), "{name}: {outcomes:?}");
    }
    pinned.iter().flatten().for_each(|chunk| shard.item(*chunk).clear_bits(Shape::PINNED));
    for (len, before) in TIGHT.into_iter().zip(before) {
        let after = b.held(&format!("tight{len:05}")).expect("it stays");
        assert_eq!(Some(after.value), before.map(|held| held.value));
    }
}

#[test]
fn small_items_find_room_beside_large_ones_that_fill_all() {
    for layout in LAYOUTS {
        let b = Bench::new(Settings { evict: false, layout, ..Settings::default() });
        let large = exhaust(&b, "large", 500_000);
        let least = if layout == Layout::Compact { 125 } else { 120 };
        assert!(large >= least, "{large} of 500,000 bytes in 64 MiB");
        for len in [1, 100, 1_000, 30, 300, 3_000] {
            let stored = (0..60).filter(|n| b.try_set(&format!("{len}-{n}"), len, 0).is_ok());
            assert!(stored.count() >= 20, "{len} bytes");
        }
        let page = u64::from(b.shard().slabs.geometry().page_size());
        let used = b.shard().slabs.pages_in_use() * page;
        assert!(used <= 64 << 20 || layout == Layout::Memcached, "{used} bytes of pages");
        b.validate();
    }
}

#[test]
fn a_failing_set_cuts_nobody_short_who_reads_what_is_there() {
    let b = keeping(Layout::Compact, 8);
    let count = exhaust(&b, "large", 100_000);
    let mut pins: Vec<_> = (0..count).map(|n| b.pin(&format!("large{n:05}"))).collect();
    assert!(b.delete("large00000") && b.delete("large00001"));
    b.store.clock().advance(1);
    exhaust(&b, "more", 100_000);
    assert!(!pins.iter().any(|pin| pin.is_revoked()), "they have just begun");
    b.store.clock().advance(60);
    exhaust(&b, "still more", 100_000);
    let revoked: Vec<usize> = (0..count).filter(|n| pins[*n].is_revoked()).collect();
    assert_eq!(revoked, [0, 1], "what the others hold is not theirs to give");
    pins.clear();
    b.validate();
}

#[test]
fn a_lowered_limit_gets_what_is_free_and_costs_nothing() {
    for layout in LAYOUTS {
        let b = keeping(layout, 16);
        let count = exhaust(&b, "k", 1_000);
        let slabs = &b.shard().slabs;
        let page = u64::from(slabs.geometry().page_size());
        assert!(b.store.set_limit(8 << 20));
        b.ticks(2_000);
        assert_eq!((b.present_as(count), b.is_moving()), (count, false), "nothing is free");
        assert!(b.store.memory_info().over_limit > 7 << 20);
        // Two of three: their pages hold a third of what they could.
        let goes = |n: &usize| !n.is_multiple_of(3);
        (0..count).filter(goes).for_each(|n| assert!(b.delete(&format!("k{n:05}"))));
        b.until("the limit holds", |b| b.store.memory_info().over_limit == 0);
        assert_eq!(b.present_as(count), count.div_ceil(3));
        assert!(slabs.pages_in_use() * page <= 9 << 20, "{} pages", slabs.pages_in_use());
        b.validate();
    }
}

#[test]
fn temp_items_that_fill_everything_make_room() {
    for (layout, eviction) in LAYOUTS
        .into_iter()
        .flat_map(|l| [Eviction::S3, Eviction::Lru, Eviction::Sieve].map(|eviction| (l, eviction)))
    {
        let settings = Settings {
            temp_lru: true,
            temporary_ttl: 100,
            layout,
            eviction,
            maxbytes: 8 << 20,
            ..Settings::default()
        };
        let b = Bench::new(settings);
        b.set("before", 1_000);
        b.fill_for("temp", 12_000, 1_000, 50);
        let there = b.present("temp", 12_000);
        assert!((6_000..12_000).contains(&there), "{there}");
        // Of their class, of a smaller one, and in several chunks.
        b.fill("k", 1_000, 1_004);
        b.fill("small", 200, 100);
        b.fill("large", 4, 100_000);
        let stay = (b.present("k", 1_000), b.present("small", 200), b.held("large00003").is_some());
        assert!(stay.0 > 300 && stay.1 == 200 && stay.2, "{layout:?}, {eviction:?}: {stay:?}");
        assert!(b.present("temp", 12_000) > there / 2);
        b.validate();
    }
}

#[test]
fn temp_items_are_passed_over_while_there_are_others() {
    let b = Bench::new(Settings {
        temp_lru: true,
        temporary_ttl: 100,
        maxbytes: 8 << 20,
        ..Settings::default()
    });
    b.fill_for("temp", 3_000, 1_000, 50);
    b.fill("k", 20_000, 1_004);
    assert_eq!(b.present("temp", 3_000), 3_000);
    b.validate();
}
