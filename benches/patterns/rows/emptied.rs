//! Memory that becomes free in one size and is wanted in another.

use super::{Pattern, Rate, Recovery, Request, Row, Target, Unit, Wire, batches, kind, plain};
use super::{set, taken};
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
    plain("aborts", "values of 900 KB cut off, all of -m, then 2.5 KB", |t| aborts(t, 0.0)),
    plain("aborts-full", "the same in a cache full of 1 KB", |t| aborts(t, 1.0)),
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

/// Goes over a working set again and again at a fixed rate. The row counts the first look at each
/// key after it was stored; recovered is what has so many hits in the last round.
fn refill(target: &mut Target<'_>, size: usize) -> Result<Vec<Row>> {
    let keys = target.items(size, WORKING_SET);
    let larger = target.megabytes as f64 / super::USUAL_MEGABYTES as f64;
    let per_second = larger.clamp(0.5, FASTER) * REQUESTS.min(BYTES / taken(size) as f64);
    let patience = PATIENCE * (larger / FASTER).max(1.0);
    let mut rate = Rate::new(per_second);
    let (mut row, mut points) = (Row::new("", []), Vec::new());
    let (mut last, mut hits) = (VecDeque::new(), 0u64);
    for round in 0.. {
        for batch in batches(0, keys) {
            rate.wait(batch.end - batch.start);
            let items: Vec<(u64, usize)> = batch.map(|key| (key, size)).collect();
            let found = target.wire.look_aside(&items)?;
            if round == 1 {
                row.count(found.iter().copied());
            }
            for hit in found {
                last.push_back(hit);
                hits += u64::from(hit);
                if last.len() as u64 > keys {
                    hits -= u64::from(last.pop_front().is_some_and(|hit| hit));
                }
            }
            points.push((rate.seconds(), hits as f64 / keys as f64));
        }
        let recovered = hits as f64 >= RECOVERED * keys as f64;
        if round > 0 && (recovered || rate.seconds() > patience) {
            break;
        }
    }
    row.recovery = Some(Recovery { unit: Unit::Seconds, goal: Some(RECOVERED), points });
    Ok(vec![row])
}

/// Clients that together send a whole -m of values, none to its end, and are gone.
fn aborts(target: &mut Target<'_>, filled: f64) -> Result<Vec<Row>> {
    const SENT: usize = 900_000;
    target.fill(kind(1), target.items(1_000, filled), 1_000)?;
    let part = [b"set unfinished 0 0 1000000\r\n", &vec![b'v'; SENT][..]].concat();
    let mut clients = Vec::new();
    for _ in 0..target.bytes(1.0) / SENT as u64 {
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
    let half = |keys: std::ops::Range<u64>| keys.filter(|key| super::scatter(*key) % 2 == 0);
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
        for keys in missing.chunks(50) {
            let sets: Vec<Request> = keys.iter().map(|key| set(*key, after)).collect();
            for (key, answer) in keys.iter().zip(target.wire.ask(&sets)?) {
                stored[*key as usize] = answer;
            }
        }
        rows.push(Row::new(part, stored.iter().copied()));
    }
    Ok(rows)
}
