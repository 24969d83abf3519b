//! Values that change their sizes.

use super::{Pattern, Rate, Recovery, Request, Row, Sizes, Target, Unit, batches, kind, plain};
use super::{scatter, set, taken};
use crate::common::Random;
use crate::zipf::Zipf;
use std::io::Result;

/// Bytes of the values, phase by phase.
const PHASES: [usize; 4] = [200, 2_000, 20_000, 200];

pub const PATTERNS: &[Pattern] = &[
    plain("shift-read", "popular keys' values: 200 B, 2 KB, 20 KB, 200 B", shift_read),
    plain("shift-written", "the same, written only; the newest of 60, 80 % of -m", |t| {
        shift_written(t, 30e6)
    }),
    plain("shift-burst", "the same as fast as the servers can", |t| {
        shift_written(t, f64::INFINITY)
    }),
    plain("resize-80", "items overwritten with 50 B to 4 KB, 80 % of -m", |t| resize(t, 0.8)),
    plain("resize-150", "the same, 150 % of -m", |t| resize(t, 1.5)),
    plain("append-12", "values that grow by appends in turn, to 12 % of -m in all", |t| {
        grow(t, 0.12, Order::InTurn)
    }),
    plain("append-72", "the same, to 72 %", |t| grow(t, 0.72, Order::InTurn)),
    plain("append-random", "the same in random order", |t| grow(t, 0.72, Order::AtRandom)),
];

/// Each phase has keys of its own. They come at a fixed rate: memory changes hands with time.
fn shift_read(target: &mut Target<'_>) -> Result<Vec<Row>> {
    const SPREAD: f64 = 3.0;
    const WINDOWS: u64 = 40;
    /// Requests and bytes in a second at the usual -m, and requests in times of what -m holds.
    const RATE: f64 = 40_000.0;
    const BYTES: f64 = 60e6;
    const TIMES: [f64; 4] = [2.0, 6.0, 6.0, 2.0];
    let faster = faster(target);
    let mut rows = Vec::new();
    for (phase, size) in PHASES.into_iter().enumerate() {
        let mut zipf = Zipf::new(target.items(size, SPREAD), 0.9, phase as u64 + 1);
        let window = (target.items(size, TIMES[phase]) / WINDOWS).max(1);
        let mut rate = Rate::new(faster * RATE.min(BYTES / size as f64));
        let (mut row, mut points) = (Row::new(format!("{size} B"), []), Vec::new());
        for _ in 0..WINDOWS {
            let mut found = Row::new("", []);
            for batch in batches(0, window) {
                let count = batch.end - batch.start;
                if phase > 0 {
                    rate.wait(count);
                }
                let mut draw = || (kind(phase as u64) + zipf.draw(), size);
                let items: Vec<(u64, usize)> = (0..count).map(|_| draw()).collect();
                found.count(target.wire.look_aside(&items)?);
            }
            row.hits += found.hits;
            row.asked += found.asked;
            points.push((rate.seconds(), found.share()));
        }
        row.recovery = Some(Recovery { unit: Unit::Seconds, goal: None, points });
        rows.push(row);
    }
    // The first is a fresh server's.
    Ok(rows.split_off(1))
}

/// Twice what -m holds of each size, at so many bytes a second, for the usual -m.
fn shift_written(target: &mut Target<'_>, bytes: f64) -> Result<Vec<Row>> {
    const TIMES: f64 = 2.0;
    let faster = faster(target);
    let mut rows = Vec::new();
    for (phase, size) in PHASES.into_iter().enumerate() {
        let (first, count) = (kind(phase as u64), target.items(size, TIMES));
        let mut rate = Rate::new(faster * bytes / taken(size) as f64);
        for keys in batches(first, count) {
            if phase > 0 {
                rate.wait(keys.end - keys.start);
            }
            let sets: Vec<Request> = keys.map(|key| set(key, size)).collect();
            target.wire.ask(&sets)?;
        }
        for percent in [80, 60] {
            let newest = target.items(size, f64::from(percent) / 100.0);
            let found = target.get_all(first + count - newest, newest)?;
            rows.push(Row::new(format!("{size} B, {percent} %"), found));
        }
    }
    Ok(rows.split_off(2))
}

/// How much faster a rate is at this -m than at the usual one.
fn faster(target: &Target<'_>) -> f64 {
    (target.megabytes as f64 / super::USUAL_MEGABYTES as f64).clamp(1.0, 3.0)
}

/// Half of the requests are sets of another size, half are gets, a miss of which is set.
fn resize(target: &mut Target<'_>, share: f64) -> Result<Vec<Row>> {
    const SIZES: Sizes = Sizes(50, 4_000);
    const ROUNDS: u64 = 12;
    let keys = target.items(SIZES.mean(), share);
    let mut random = Random::new(1);
    let mut row = Row::new("", []);
    for round in 0..ROUNDS {
        for batch in batches(0, keys) {
            let half = (batch.end - batch.start).div_ceil(2);
            let mut draw = || {
                let key = random.below(keys as usize) as u64;
                (key, SIZES.of(scatter(key) ^ random.next()))
            };
            let sets: Vec<Request> = (0..half).map(|_| draw()).map(|(k, s)| set(k, s)).collect();
            let reads: Vec<(u64, usize)> = (0..half).map(|_| draw()).collect();
            target.wire.ask(&sets)?;
            let found = target.wire.look_aside(&reads)?;
            if round >= ROUNDS / 3 {
                row.count(found);
            }
        }
    }
    Ok(vec![row])
}

/// Values grow by appends; one that was lost starts anew. Counted are the appends that are stored,
/// and the values that are there at the end and never were lost.
fn grow(target: &mut Target<'_>, share: f64, order: Order) -> Result<Vec<Row>> {
    const PIECE: usize = 100;
    const PIECES: u64 = 60;
    let keys = target.items(PIECE * PIECES as usize, share);
    target.fill(0, keys, PIECE)?;
    let mut random = Random::new(2);
    let mut appended = Row::new("appended", []);
    let mut whole = vec![true; keys as usize];
    for batch in batches(0, keys * (PIECES - 1)) {
        let mut draw = |at: u64| match order {
            Order::InTurn => at % keys,
            Order::AtRandom => random.below(keys as usize) as u64,
        };
        let drawn: Vec<u64> = batch.map(&mut draw).collect();
        let append = |key: &u64| Request::Append { key: *key, size: PIECE };
        let appends: Vec<Request> = drawn.iter().map(append).collect();
        let stored = target.wire.ask(&appends)?;
        let lost = drawn.iter().zip(&stored).filter(|(_, stored)| !**stored);
        let lost: Vec<u64> = lost.map(|(key, _)| *key).collect();
        lost.iter().for_each(|key| whole[*key as usize] = false);
        let anew: Vec<Request> = lost.iter().map(|key| set(*key, PIECE)).collect();
        target.wire.ask(&anew)?;
        appended.count(stored);
    }
    let there = target.get_all(0, keys)?.into_iter().zip(whole);
    Ok(vec![appended, Row::new("whole", there.map(|(there, whole)| there && whole))])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// All values have the same size, which no page had yet.
    InTurn,
    AtRandom,
}
