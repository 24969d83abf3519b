//! Memory that becomes free in one size and is wanted in another.

use super::{BATCH, set, taken};
use super::{Pattern, Rate, Recovery, Request, Row, Target, Unit, Wire, batches, kind, plain};
use crate::common::Random;
use std::collections::VecDeque;
use std::io::Result;
use std::thread::sleep;
use std::time::Duration;

const SMALL: usize = 200;
const LARGE: usize = 5_000;
/// The share of -m that is filled anew, and of it what must be there again.
const WORKING_SET: f64 = 0.75;
const RECOVERED: f64 = 0.97;
/// Bytes and requests in a second of a refill at the usual -m; for larger ones they grow, so far.
const BYTES: f64 = 100e6;
const REQUESTS: f64 = 100_000.0;
const FASTER: f64 = 2.0;
/// Seconds until a refill has had its time, at the usual -m.
const PATIENCE: f64 = 20.0;

pub const PATTERNS: &[Pattern] = &[
    plain("flush", "200 B, flush_all, then 75 % of -m in 5 KB", |t| {
        emptied(t, SMALL, flush, LARGE)
    }),
    plain("flush-down", "5 KB, flush_all, then 200 B", |t| emptied(t, LARGE, flush, SMALL)),
    plain("delete", "200 B, all deleted, then 5 KB", |t| emptied(t, SMALL, delete, LARGE)),
    plain("expire", "200 B, all expired, then 5 KB", |t| emptied(t, SMALL, expire, LARGE)),
    plain("aborts", "70 values of 1 MB cut off after 900 KB, then 2.5 KB", |t| {
        aborts(t, 0.0, 900_000)
    }),
    plain("aborts-early", "the same, cut off after 10 KB", |t| aborts(t, 0.0, 10_000)),
    plain("aborts-full", "aborts in a cache full of 1 KB", |t| aborts(t, 1.0, 900_000)),
    Pattern {
        name: "nomem-up",
        about: "-M: full of 300 B, half deleted, then 3 KB",
        options: &["-M"],
        own: &[],
        run: |t| without_evictions(t, 300, 3_000),
    },
    Pattern {
        name: "nomem-down",
        about: "-M: full of 1000 B, half deleted, then 100 B",
        options: &["-M"],
        own: &[],
        run: |t| without_evictions(t, 1_000, 100),
    },
];

/// Fills memory with items, has them go by `empties`, and refills it in another size.
fn emptied(
    target: &mut Target<'_>,
    before: usize,
    empties: fn(&mut Target<'_>, usize) -> Result<()>,
    after: usize,
) -> Result<Vec<Row>> {
    let count = target.items(before, 1.0);
    target.fill(kind(1), count, before)?;
    empties(target, before)?;
    refill(target, after)
}

fn flush(target: &mut Target<'_>, _size: usize) -> Result<()> {
    let answer = target.wire.line("flush_all")?;
    assert_eq!(answer, "OK", "flush_all");
    Ok(())
}

fn delete(target: &mut Target<'_>, size: usize) -> Result<()> {
    for keys in batches(kind(1), target.items(size, 1.0)) {
        let deletes: Vec<Request> = keys.map(Request::Delete).collect();
        target.wire.ask(&deletes)?;
    }
    Ok(())
}

/// Stores all anew, for two seconds, and waits until they are over.
fn expire(target: &mut Target<'_>, size: usize) -> Result<()> {
    const LIFE: u32 = 2;
    for keys in batches(kind(1), target.items(size, 1.0)) {
        let one = |key| Request::Set { key, size, exptime: LIFE };
        let sets: Vec<Request> = keys.map(one).collect();
        target.wire.ask(&sets)?;
    }
    sleep(Duration::from_secs(u64::from(LIFE) + 1));
    Ok(())
}

/// Goes over a working set again and again at a fixed rate, and stores what is not there. The row
/// counts a look at each key when all were stored once; recovered is a server with so many hits in
/// as many looks as there are keys.
fn refill(target: &mut Target<'_>, size: usize) -> Result<Vec<Row>> {
    let mut keys: Vec<u64> = (0..target.items(size, WORKING_SET)).collect();
    let larger = target.megabytes as f64 / super::USUAL_MEGABYTES as f64;
    let per_second = larger.clamp(0.5, FASTER) * REQUESTS.min(BYTES / taken(size) as f64);
    let patience = PATIENCE * (larger / FASTER).max(1.0);
    let mut rate = Rate::new(per_second);
    let mut random = Random::new(1);
    let mut window = Window::new(keys.len());
    let mut row = Row::new("", []);
    for round in 0.. {
        for batch in keys.chunks(BATCH) {
            rate.wait(batch.len() as u64);
            let found = if round == 1 {
                let gets: Vec<Request> = batch.iter().copied().map(Request::Get).collect();
                let found = target.wire.ask(&gets)?;
                row.count(found.iter().copied());
                found
            } else {
                let items: Vec<(u64, usize)> = batch.iter().map(|key| (*key, size)).collect();
                target.wire.look_aside(&items)?
            };
            window.add(rate.seconds(), found);
        }
        let last = window.points.last().copied().unwrap_or_default();
        if round > 0 && (last.1 >= RECOVERED || last.0 > patience) {
            break;
        }
        if round > 0 {
            (1..keys.len()).rev().for_each(|at| keys.swap(at, random.below(at + 1)));
        }
    }
    let points = window.points;
    row.recovery = Some(Recovery { unit: Unit::Seconds, goal: Some(RECOVERED), points });
    Ok(vec![row])
}

/// The last looks, as many as there are keys.
struct Window {
    keys: usize,
    last: VecDeque<bool>,
    hits: usize,
    points: Vec<(f64, f64)>,
}

impl Window {
    fn new(keys: usize) -> Window {
        Window { keys, last: VecDeque::new(), hits: 0, points: Vec::new() }
    }

    fn add(&mut self, at: f64, found: Vec<bool>) {
        for hit in found {
            self.last.push_back(hit);
            self.hits += usize::from(hit);
            if self.last.len() > self.keys {
                self.hits -= usize::from(self.last.pop_front().is_some_and(|hit| hit));
            }
        }
        self.points.push((at, self.hits as f64 / self.keys as f64));
    }
}

/// Clients that together announce more than -m in values of 1 MB, send so much of each, and leave.
fn aborts(target: &mut Target<'_>, filled: f64, sent: usize) -> Result<Vec<Row>> {
    const CLIENTS: u64 = 70;
    target.fill(kind(1), target.items(1_000, filled), 1_000)?;
    let part = [b"set unfinished 0 0 1000000\r\n", &vec![b'v'; sent][..]].concat();
    let mut clients = Vec::new();
    for _ in 0..target.scaled(CLIENTS) {
        let mut client = Wire::connect(target.server.port)?;
        client.send(&part)?;
        clients.push(client);
    }
    drop(clients);
    refill(target, 2_500)
}

/// How many of another size fit, of 75 % of what was deleted: at once, and ten seconds later.
fn without_evictions(target: &mut Target<'_>, before: usize, after: usize) -> Result<Vec<Row>> {
    let count = target.items(before, 1.1);
    target.fill(kind(1), count, before)?;
    let half =
        |keys: std::ops::Range<u64>| keys.filter(|key| super::scatter(*key).is_multiple_of(2));
    let mut deleted = 0;
    for keys in batches(kind(1), target.items(before, 1.0)) {
        let deletes: Vec<Request> = half(keys).map(Request::Delete).collect();
        deleted += deletes.len() as u64;
        target.wire.ask(&deletes)?;
    }
    let wanted = (deleted * taken(before)) as f64 * WORKING_SET / taken(after) as f64;
    let mut stored = Vec::new();
    let mut rows = Vec::new();
    for (part, pause) in [("at once", 0), ("after 10 s", 10)] {
        sleep(Duration::from_secs(pause));
        stored.resize(wanted as usize, false);
        let missing: Vec<u64> = (0..wanted as u64).filter(|key| !stored[*key as usize]).collect();
        for keys in missing.chunks(BATCH) {
            let sets: Vec<Request> = keys.iter().map(|key| set(*key, after)).collect();
            for (key, answer) in keys.iter().zip(target.wire.ask(&sets)?) {
                stored[*key as usize] = answer;
            }
        }
        rows.push(Row::new(part, stored.iter().copied()));
    }
    Ok(rows)
}
