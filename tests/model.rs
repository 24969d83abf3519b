//! Model-based tests of the store: made-up steps on tiny stores of either layout, evicting or not,
//! each checked against a plain map of what memcached's semantics say.

#[path = "model/bench.rs"]
mod bench;
#[path = "model/ops.rs"]
mod ops;
#[path = "model/reference.rs"]
mod reference;

use bench::Bench;
use ops::{ArithOp, Content, Op, SetOp};
use proptest::prelude::*;
use rustcached::command::SetMode;
use rustcached::config::{Layout, Settings};

/// Steps between walks over everything, in the long runs.
const WALK_EVERY: usize = 16;

/// `PROPTEST_CASES` asks for more than a quick run has.
fn config(quick: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(quick),
        failure_persistence: None,
        max_shrink_iters: 1_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn every_step_leaves_a_valid_store(settings in ops::settings(), ops in ops::ops(40)) {
        let mut bench = Bench::new(settings);
        for op in &ops {
            bench.run(op);
            bench.validate();
        }
        bench.finish();
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn long_runs_agree_with_the_reference(settings in ops::settings(), ops in ops::ops(400)) {
        let mut bench = Bench::new(settings);
        for (n, op) in ops.iter().enumerate() {
            bench.run(op);
            if n % WALK_EVERY == 0 {
                bench.validate();
            }
        }
        bench.finish();
    }
}

/// A value's tail may need the first page of its class while the value itself holds chunks of the
/// class that has the most pages.
#[test]
fn a_large_value_finds_room_for_its_tail() {
    let settings = Settings { maxbytes: 4 << 20, ..Settings::default() };
    let mut bench = Bench::new(settings);
    bench.run(&Op::Bulk { family: 0, count: 4_000, len: 472 });
    bench.run(&Op::Bulk { family: 1, count: 300, len: 11_789 });
    for len in (9_000..40_000).step_by(333) {
        bench.run(&Op::Bulk { family: 2, count: 12, len });
    }
    bench.validate();
}

/// A page of large items is a little less than one of small items needs: whatever is left of the
/// limit beside whole pages, those find room.
#[test]
fn small_items_find_room_among_large_ones() {
    for rest in 0..96 {
        let settings = Settings { maxbytes: (2 << 20) + rest * 700, ..Settings::default() };
        let mut bench = Bench::new(settings);
        bench.run(&Op::Bulk { family: 0, count: 1_000, len: 2_164 });
        bench.run(&Op::Bulk { family: 1, count: 10, len: 3 });
    }
}

/// In either layout, with the items that are there found after each step.
#[test]
fn the_index_follows_its_items_up_and_down() {
    for layout in [Layout::Compact, Layout::Memcached] {
        let settings =
            Settings { maxbytes: 8 << 20, hashpower_init: 11, layout, ..Settings::default() };
        let mut bench = Bench::new(settings);
        let start = bench.follow_index().remove(0);
        for family in 0..3 {
            bench.run(&Op::Bulk { family, count: 4_000, len: 3 });
        }
        let grown = bench.follow_index();
        assert!(grown.iter().any(|info| info.hash_is_expanding));
        let last = grown.last().unwrap();
        assert!(!last.hash_is_expanding && last.hash_power_level > start.hash_power_level);
        // Between 11 and 5.5 items a line of 64 bytes, and nodes.
        assert!(last.hash_bytes > 12_000 / 11 * 64 && last.hash_bytes < 12_000 * 13);
        for family in 0..3 {
            bench.run(&Op::Drop { family, count: 4_000 - 50 });
        }
        let shrunk = bench.follow_index();
        assert!(!shrunk.iter().any(|info| info.hash_is_expanding));
        assert!(shrunk.windows(2).all(|pair| pair[0].hash_bytes >= pair[1].hash_bytes));
        let last = shrunk.last().unwrap();
        assert_eq!(last.hash_power_level, start.hash_power_level);
        assert_eq!(last.hash_bytes, start.hash_bytes);
        bench.finish();
    }
}

/// `-o no_hashexpand`
#[test]
fn an_index_that_may_not_change_holds_everything_all_the_same() {
    let settings = Settings {
        maxbytes: 8 << 20,
        hashpower_init: 11,
        no_hashexpand: true,
        ..Settings::default()
    };
    let mut bench = Bench::new(settings);
    for family in 0..6 {
        bench.run(&Op::Bulk { family, count: 4_000, len: 3 });
        let power: Vec<u32> =
            bench.follow_index().iter().map(|info| info.hash_power_level).collect();
        assert!(power.iter().all(|power| *power == 11), "{power:?}");
    }
    bench.validate();
    bench.finish();
}

/// With a unique, which a number's item gets with the change, its value may no longer fit a chunk.
#[test]
fn a_number_is_written_whatever_its_value_lies_in() {
    let mut bench = Bench::new(Settings { maxbytes: 16 << 20, ..Settings::default() });
    let narrow = (3_950..4_110).chain(8_040..8_200).chain(16_220..16_400);
    for len in narrow.chain([30_000, 300_000]) {
        let append = SetOp { mode: SetMode::Append, ..SetOp::of(0, Content::Blanks(len)) };
        for op in [
            Op::Set(SetOp::of(0, Content::Number(10))),
            Op::Set(append),
            Op::Arith(ArithOp::decr(0, 1)),
            Op::Arith(ArithOp { return_cas: true, ..ArithOp::decr(0, 1) }),
            Op::Get { key: 0, bump: true, meta: false, pin: false, unless: None },
        ] {
            bench.run(&op);
        }
    }
    bench.finish();
}

/// What an append replaces stays until it is done, however many of the first pages that is on.
#[test]
fn a_long_value_finds_room_for_more() {
    let mut bench = Bench::new(Settings { maxbytes: 4 << 20, ..Settings::default() });
    for len in (200..4_200).step_by(97) {
        let append = SetOp { mode: SetMode::Append, ..SetOp::of(0, Content::Blanks(len)) };
        for op in [
            Op::Flush(None),
            Op::Set(SetOp::of(0, Content::Blanks(600_000))),
            Op::Bulk { family: 0, count: 900, len: 4_040 },
            Op::Set(append),
        ] {
            bench.run(&op);
        }
        bench.validate();
    }
}
