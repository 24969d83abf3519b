//! Each policy on a real store.

use super::*;
use crate::config::{Layout, Settings};
use crate::store::testing::Bench;
use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

const POLICIES: [Eviction; 3] = [Eviction::S3, Eviction::Lru, Eviction::Sieve];
const LAYOUTS: [Layout; 2] = [Layout::Compact, Layout::Memcached];

fn bench(eviction: Eviction, layout: Layout) -> Bench {
    Bench::new(settings(eviction, layout))
}

/// Pages stay where they are unless a test moves them.
fn settings(eviction: Eviction, layout: Layout) -> Settings {
    Settings {
        eviction,
        layout,
        maxbytes: 2 << 20,
        slab_automove: 0,
        hashpower_init: 16,
        ..Settings::default()
    }
}

fn all(test: impl Fn(Eviction, Layout)) {
    for eviction in POLICIES {
        LAYOUTS.iter().for_each(|layout| test(eviction, *layout));
    }
}

/// Everything was read, so nothing is left that never earned its place.
#[test]
fn a_class_whose_items_were_all_read_gives_room_at_once() {
    all(|eviction, layout| {
        let b = bench(eviction, layout);
        b.fill("k", 30_000, 60);
        let held = b.present("k", 30_000);
        (0..30_000).for_each(|n| {
            b.get(&format!("k{n:05}"));
        });
        b.fill("j", held / 4, 60);
        b.validate();
    });
}

fn with_temp(eviction: Eviction, layout: Layout) -> Bench {
    Bench::new(Settings { temp_lru: true, ..settings(eviction, layout) })
}

/// Their chunks may be queued from an earlier life.
#[test]
fn what_is_temp_stays_whoever_comes() {
    all(|eviction, layout| {
        let b = with_temp(eviction, layout);
        b.fill("k", 30_000, 60);
        (0..30_000).for_each(|n| {
            b.delete(&format!("k{n:05}"));
        });
        b.fill_for("t", 3_000, 60, 50);
        b.fill("j", 30_000, 60);
        assert_eq!(b.present("t", 3_000), 3_000, "{eviction:?}");
        b.validate();
    });
}

/// What is not TEMP goes, though it be little and all of it in probation, but gets a part of the
/// class to itself.
#[test]
fn a_class_that_is_nearly_all_temp_still_has_victims() {
    all(|eviction, layout| {
        let b = with_temp(eviction, layout);
        // A deadline takes 4 bytes, so all are of one class; in memcached's layout it takes none.
        let temp_len = if layout == Layout::Compact { 56 } else { 60 };
        let set_temp = |n| {
            b.set_for(&format!("t{n}"), temp_len, 50);
            b.tick();
        };
        (100_000..105_000).for_each(set_temp);
        ["k00000", "k11111"].iter().for_each(|name| b.set(name, 60));
        assert_eq!(b.class_of("k00000"), b.class_of("t100000"));
        let mut end = 105_000;
        while b.shard().slabs.lock(b.class_of("k00000")).free_chunks() > 0 {
            set_temp(end);
            end += 1;
        }
        b.shard().slabs.set_limit(0);
        (10_000..10_500).for_each(|n| b.set(&format!("j{n}"), 60));
        let there = (100_000..end).filter(|n| b.held(&format!("t{n}")).is_some()).count();
        assert!(there as f64 > f64::from(end - 100_000) * 0.85, "{eviction:?}: {there}");
        let others = (10_000..10_500).filter(|n| b.held(&format!("j{n}")).is_some()).count();
        assert!(others > 200, "{eviction:?}: {others}");
        b.shard().slabs.set_limit(2 << 20);
        b.validate();
    });
}

/// An item that takes a TEMP item's place is like any other.
#[test]
fn what_replaces_temp_is_evicted_in_its_turn() {
    all(|eviction, layout| {
        let b = with_temp(eviction, layout);
        b.fill_for("t", 3_000, 60, 50);
        (0..3_000).for_each(|n| b.set(&format!("t{n:05}"), 60));
        b.fill("k", 80_000, 60);
        assert_eq!(b.present("t", 3_000), 0, "{eviction:?} {layout:?}");
        b.validate();
    });
}

/// Both ways, again and again, with items of before in place each time.
#[test]
fn a_change_of_mode_keeps_everything_and_everything_goes_in_the_end() {
    LAYOUTS.iter().for_each(|layout| {
        let b = bench(Eviction::S3, *layout);
        b.fill("0k", 8_000, 60);
        (0..8_000).for_each(|n| assert!(b.get(&format!("0k{n:05}"))));
        for round in 1..5 {
            let before = b.items();
            b.store.knobs().segmented.store(round % 2 == 0, Relaxed);
            b.settle();
            // A queue over everything has to have its memory from somewhere.
            let kept =
                if round == 1 || *layout == Layout::Memcached { before } else { before / 8 * 7 };
            assert!(b.items() >= kept, "{} of {before}", b.items());
            b.validate();
            // Several times what fits, all of it popular: else it would not leave probation.
            for n in 0..60_000 {
                let name = format!("{round}k{n:05}");
                b.set(&name, 60);
                assert!(b.get(&name) && b.get(&name));
                b.ticks(usize::from(n % 16 == 0));
            }
            let old = b.present(&format!("{}k", round - 1), 60_000);
            assert_eq!(old, 0, "of the items of round {}", round - 1);
            b.validate();
        }
    });
}

/// A page takes the entries with it that refer to it.
#[test]
fn a_class_has_victims_when_what_was_queued_has_moved() {
    all(|eviction, layout| {
        let b = bench(eviction, layout);
        b.fill("k", 30_000, 30);
        let class = b.class_of("k29999");
        while b.pages(class).len() > 1 {
            b.reassign(class, slab::ClassId(0));
            b.validate();
            // So that what was given up is not had back.
            b.shard().slabs.charge(u64::from(b.shard().slabs.geometry().page_size()));
            b.fill("j", 10, 30);
        }
    });
}

/// Whatever pages leave meanwhile, from before the hand or under it.
#[test]
fn a_hand_passes_over_every_page_that_stays() {
    let b = bench(Eviction::S3, Layout::Compact);
    b.fill("k", 30_000, 30);
    let class = b.class_of("k29999");
    let (mut hand, mut seen) = (Hand::default(), HashSet::new());
    let mut sweep = |chunks: u32| {
        let guard = b.shard().slabs.lock(class);
        (0..chunks).map_while(|_| hand.advance(&guard)).for_each(|chunk| {
            seen.insert(guard.slabs().page_of(chunk).0);
        });
    };
    let per_page = b.shard().slabs.geometry().chunks_per_page(class);
    while b.pages(class).len() > 12 {
        sweep(per_page / 4);
        b.reassign(class, slab::ClassId(0));
        b.shard().slabs.charge(u64::from(b.shard().slabs.geometry().page_size()));
    }
    sweep(u32::MAX);
    assert!(b.pages(class).iter().all(|page| seen.contains(&page.0)), "{seen:?}");
}

/// Bytes of the class's queues, and what is charged for them.
fn memory_of(b: &Bench, class: slab::ClassId) -> (u64, u64) {
    let rule = b.shard().rule();
    let guard = b.shard().slabs.lock(class);
    let entries = guard.ring.capacity() + guard.passed.capacity();
    // Where queues are not charged, there are at most two places for each chunk.
    let share = if rule.roomy { 2_000 } else { guard.probation.max(rule.probation) };
    let charged = Rule { probation: share, ..rule }.overhead_64ths();
    (entries as u64 * 4, guard.total_chunks() * u64::from(charged) / 64)
}

#[test]
fn queues_stay_within_what_is_charged_for_them() {
    all(|eviction, layout| {
        let b = bench(eviction, layout);
        for round in 0..8 {
            b.fill(&format!("{round}k"), 15_000, 30);
            (0..1_000).for_each(|n| {
                b.get(&format!("{round}k{:05}", n * 15));
            });
            for class in b.shard().slabs.geometry().classes() {
                let (bytes, charged) = memory_of(&b, class);
                let most = charged + charged / 8 + 3 * 4 * places::BLOCK as u64;
                assert!(bytes <= most, "{eviction:?} {class:?}: {bytes} of {charged} bytes");
            }
        }
    });
}

/// Of keys that are written one after the other, and each read once when so many were written after
/// it: the share of the reads that hit, per cent.
fn read_once(b: &Bench, writes: usize, later: usize, len: usize) -> usize {
    let mut hits = 0;
    for n in 0..writes {
        b.set(&format!("once{n}"), len);
        hits += usize::from(n >= later && b.get(&format!("once{}", n - later)));
        b.ticks(usize::from(n % 16 == 0));
    }
    hits * 100 / (writes - later)
}

/// A store that is full of items which were read twice, or never; and how many those are.
fn full_of_old(eviction: Eviction, layout: Layout, read: bool) -> (Bench, usize) {
    let b = Bench::new(Settings { maxbytes: 4 << 20, ..settings(eviction, layout) });
    b.fill("k", 15_000, 300);
    let names = (0..15_000).map(|n| format!("k{n:05}"));
    names.filter(|name| read && b.held(name).is_some()).for_each(|name| {
        assert!(b.get(&name) && b.get(&name));
    });
    let held = b.items() as usize;
    (b, held)
}

#[test]
fn what_is_read_once_and_late_is_still_there() {
    for (eviction, layout, read, percent) in [
        (Eviction::S3, Layout::Compact, false, 85),
        (Eviction::S3, Layout::Compact, true, 40),
        (Eviction::S3, Layout::Compact, true, 75),
        (Eviction::S3, Layout::Memcached, true, 75),
        (Eviction::Lru, Layout::Compact, true, 85),
        (Eviction::Lru, Layout::Memcached, true, 40),
    ] {
        let (b, held) = full_of_old(eviction, layout, read);
        let hits = read_once(&b, 2 * held + held / 2, held * percent / 100, 300);
        assert!(hits >= 97, "{eviction:?} {layout:?} {read}: {hits} % at {percent} %");
        b.validate();
    }
}
