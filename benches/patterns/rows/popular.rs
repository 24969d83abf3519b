//! Look-aside traffic: a get, and a set where it misses.

use super::{Pattern, Rate, Recovery, Row, Sizes, Target, Unit, batches, flat, kind, plain};
use crate::zipf::Zipf;
use std::io::Result;

const VALUE: usize = 300;
pub const PATTERNS: &[Pattern] = &[
    plain("loop-95", "keys in turn, 95 % of what memcached holds", |t| cycle(t, 0.95)),
    plain("loop-105", "the same, 105 %", |t| cycle(t, 1.05)),
    plain("loop-120", "the same, 120 %", |t| cycle(t, 1.20)),
    plain("loop-150", "the same, 150 %", |t| cycle(t, 1.50)),
    plain("loop-200", "the same, 200 %", |t| cycle(t, 2.00)),
    flat("lru-loop-95", "loop-95, ours with -o eviction=lru", |t| cycle(t, 0.95)),
    plain("scan", "a hot set of 30 % of -m; beside each get one of a new key", |t| scan(t, 1)),
    plain("scan-4", "the same, four of new keys", |t| scan(t, 4)),
    flat("lru-scan", "scan, ours with -o eviction=lru", |t| scan(t, 1)),
    plain("zipf", "one set of popular keys, twice what -m holds", zipf),
    plain("popularity", "popular keys give way to others", popularity),
    plain("ttl", "a hot set of 60 % of -m beside items that live 2 s", short_lives),
    plain("huge", "values of 100 to 900 KB beside small ones", huge),
    plain("chains", "values of 10 to 60 KB, thrice what -m holds", chains),
];

fn cycle(target: &mut Target<'_>, share: f64) -> Result<Vec<Row>> {
    const ROUNDS: u64 = 5;
    let keys = (target.holds(VALUE) as f64 * share) as u64;
    let mut row = Row::new("", []);
    for round in 0..ROUNDS {
        for batch in batches(0, keys) {
            let items: Vec<(u64, usize)> = batch.map(|key| (key, VALUE)).collect();
            let found = target.wire.look_aside(&items)?;
            if round > 0 {
                row.count(found);
            }
        }
    }
    Ok(vec![row])
}

/// Popular keys of a kind.
struct Crowd {
    zipf: Zipf,
    first: u64,
    sizes: Sizes,
}

impl Crowd {
    fn new(number: u64, keys: u64, exponent: f64, sizes: Sizes) -> Crowd {
        Crowd { zipf: Zipf::new(keys, exponent, number + 1), first: kind(number), sizes }
    }

    fn draw(&mut self, count: u64) -> Vec<(u64, usize)> {
        let mut one = || {
            let key = self.first + self.zipf.draw();
            (key, self.sizes.of(key))
        };
        (0..count).map(|_| one()).collect()
    }

    /// So many requests; true for each hit.
    fn play(&mut self, target: &mut Target<'_>, requests: u64) -> Result<Vec<bool>> {
        let mut found = Vec::new();
        for batch in batches(0, requests) {
            found.extend(target.wire.look_aside(&self.draw(batch.end - batch.start))?);
        }
        Ok(found)
    }
}

fn scan(target: &mut Target<'_>, beside: u64) -> Result<Vec<Row>> {
    const LENGTH: f64 = 5.0;
    let keys = target.items(VALUE, 0.3);
    let mut hot = Crowd::new(1, keys, 0.9, Sizes(VALUE, VALUE));
    hot.play(target, keys * 4)?;
    let mut row = Row::new("", []);
    for batch in batches(0, target.items(VALUE, LENGTH)) {
        let asked = (batch.end - batch.start).div_ceil(beside);
        row.count(target.wire.look_aside(&hot.draw(asked))?);
        let once: Vec<(u64, usize)> = batch.map(|key| (key, VALUE)).collect();
        target.wire.look_aside(&once)?;
    }
    Ok(vec![row])
}

fn zipf(target: &mut Target<'_>) -> Result<Vec<Row>> {
    let keys = target.items(VALUE, 2.0);
    let mut crowd = Crowd::new(0, keys, 0.9, Sizes(VALUE, VALUE));
    crowd.play(target, keys * 2)?;
    Ok(vec![Row::new("", crowd.play(target, keys * 2)?)])
}

fn popularity(target: &mut Target<'_>) -> Result<Vec<Row>> {
    const WINDOWS: u64 = 60;
    let keys = target.items(VALUE, 2.0);
    let value = Sizes(VALUE, VALUE);
    Crowd::new(0, keys, 0.9, value).play(target, keys * 2)?;
    let mut others = Crowd::new(1, keys, 0.9, value);
    let mut row = Row::new("", []);
    let mut points = Vec::new();
    let window = keys * 2 / WINDOWS;
    for _ in 0..WINDOWS {
        let found = Row::new("", others.play(target, window)?);
        row.hits += found.hits;
        row.asked += found.asked;
        points.push((row.asked as f64, found.share()));
    }
    row.recovery = Some(Recovery { unit: Unit::Requests, goal: None, points });
    Ok(vec![row])
}

fn short_lives(target: &mut Target<'_>) -> Result<Vec<Row>> {
    const SECONDS: u64 = 10;
    const LIFE: u32 = 2;
    const SHORT_VALUE: usize = 2_000;
    const RATE: u64 = 6_000;
    let keys = target.items(VALUE, 0.6);
    let mut hot = Crowd::new(0, keys, 0.9, Sizes(VALUE, VALUE));
    hot.play(target, keys * 4)?;
    let per_second = target.scaled(RATE);
    let mut rate = Rate::new(per_second as f64);
    let mut row = Row::new("", []);
    for batch in batches(kind(1), per_second * SECONDS) {
        rate.wait(batch.end - batch.start);
        row.count(target.wire.look_aside(&hot.draw(batch.end - batch.start))?);
        let short: Vec<(u64, usize)> = batch.map(|key| (key, SHORT_VALUE)).collect();
        target.wire.look_aside_until(&short, LIFE)?;
    }
    Ok(vec![row])
}

/// Two crowds, each with more than -m holds.
fn huge(target: &mut Target<'_>) -> Result<Vec<Row>> {
    const SMALL_PER_HUGE: u64 = 500;
    const HUGE: Sizes = Sizes(100_000, 900_000);
    let small_keys = target.items(VALUE, 1.0);
    let mut small = Crowd::new(0, small_keys, 0.9, Sizes(VALUE, VALUE));
    let mut large = Crowd::new(1, target.items(HUGE.mean(), 1.5), 0.9, HUGE);
    let [mut all, mut small_row, mut large_row] = ["", "small", "large"].map(|p| Row::new(p, []));
    (small_row.within, large_row.within) = (true, true);
    let turns = small_keys * 8 / SMALL_PER_HUGE;
    for turn in 0..turns {
        let found = small.play(target, SMALL_PER_HUGE)?;
        let found_large = target.wire.look_aside(&large.draw(1))?;
        if turn >= turns / 4 {
            all.count(found.iter().chain(&found_large).copied());
            small_row.count(found);
            large_row.count(found_large);
        }
    }
    Ok(vec![all, small_row, large_row])
}

fn chains(target: &mut Target<'_>) -> Result<Vec<Row>> {
    const CHAINS: Sizes = Sizes(10_000, 60_000);
    let keys = target.items(CHAINS.mean(), 3.0);
    let mut crowd = Crowd::new(0, keys, 0.9, CHAINS);
    crowd.play(target, keys * 2)?;
    Ok(vec![Row::new("", crowd.play(target, keys * 4)?)])
}
