//! Access patterns in which memcached keeps what clients want: our server keeps as much. This is a
//! short form of `cargo bench --bench patterns`, whose patterns these are, with little memory.
//!
//! A bound is 97 % of what memcached 1.6.45 has at the same -m, or of what an earlier version of
//! ours has where that is more.

mod common;
#[path = "../benches/live/mod.rs"]
mod live;
#[path = "../benches/live/process.rs"]
mod process;
#[path = "../benches/patterns/rows/mod.rs"]
mod rows;
#[path = "../benches/common/zipf.rs"]
mod zipf;

use common::{Server, other_server};
use rows::Target;

/// -m of most, and of those with many small items.
const USUAL: u64 = 16;
const SMALL: u64 = 8;

/// Plays a pattern at an -m, and asserts that each part has so many hits in a hundred.
fn keeps(pattern: &str, megabytes: u64, least: &[(&str, f64)]) {
    live::check();
    let pattern = rows::all().find(|known| known.name == pattern).expect("a pattern");
    let (memory, connections) = (megabytes.to_string(), rows::CONNECTIONS.to_string());
    let mut options = vec!["-m", &memory, "-c", &connections];
    options.extend(pattern.options);
    if other_server().is_none() {
        options.extend(pattern.own);
    }
    let server = Server::start(&options);
    let mut target = Target::new(&server, megabytes).expect("a connection");
    let rows = (pattern.run)(&mut target).expect("answers");
    assert_eq!(rows.len(), least.len(), "{rows:?}");
    let mut below = Vec::new();
    for (row, (part, least)) in rows.iter().zip(least) {
        assert_eq!(row.part, *part, "{}", pattern.name);
        let share = row.share() * 100.0;
        println!("{} {part}: {share:.2} %, at least {least}", pattern.name);
        if share < *least {
            below.push(format!("{part} {share:.2} % instead of {least}"));
        }
    }
    assert!(below.is_empty(), "{}: {}", pattern.name, below.join(", "));
}

#[test]
fn what_is_read_once_later_is_still_there() {
    keeps("once-75", SMALL, &[("", 97.0)]);
}

#[test]
fn it_is_beside_items_that_nobody_wants_any_more() {
    keeps("stale-40", SMALL, &[("", 97.0)]);
}

#[test]
fn a_flat_lru_keeps_what_is_read_once_later() {
    keeps("lru-once-85", SMALL, &[("", 97.0)]);
}

#[test]
fn the_newest_items_are_there_whatever_their_sizes() {
    keeps("newest-mixed", SMALL, &[("60 %", 97.0), ("80 %", 97.0), ("90 %", 96.0)]);
}

#[test]
fn newer_items_are_kept_beside_old_ones_that_were_read() {
    keeps("chunked", USUAL, &[("old", 91.0), ("newer", 97.0)]);
}

#[test]
fn a_loop_over_what_fits_hits() {
    keeps("loop-95", SMALL, &[("", 97.0)]);
}

#[test]
fn a_scan_leaves_the_hot_set() {
    keeps("scan", SMALL, &[("", 93.0)]);
}

#[test]
fn chains_are_kept() {
    keeps("chains", USUAL, &[("", 69.0)]);
}

#[test]
fn few_growing_values_grow() {
    keeps("append-12", USUAL, &[("appended", 97.0), ("whole", 97.0)]);
}

#[test]
fn many_growing_values_grow() {
    keeps("append-72", USUAL, &[("appended", 97.0), ("whole", 97.0)]);
}

#[test]
fn values_cut_off_early_leave_all_memory() {
    keeps("aborts-early", USUAL, &[("", 97.0)]);
}

#[test]
fn announced_values_take_nothing_of_others() {
    keeps("announced", USUAL, &[("left", 97.0), ("stored", 97.0)]);
}

#[test]
fn many_announced_values_take_nothing_of_others() {
    keeps("announced-100k", USUAL, &[("left", 97.0), ("stored", 97.0)]);
}
