//! Sends the same random requests to our server and to a real memcached: replies must be equal byte
//! for byte, but for CAS uniques (whose numbers each server counts its own way: the same one must
//! come back as long as the other's does) and what `me` says of memory; and so must the counters of
//! `stats` in the end.
//!
//! The real one is `MEMCACHED`, else the first `memcached` on `PATH`; without one the tests say so
//! and pass. An older one than 1.6.45 is asked only what it knows. `DIFFERENTIAL_SEED` repeats a
//! run, `DIFFERENTIAL_REQUESTS` sets its length. There is a run in text, one over UDP, one in the
//! binary protocol, and, where `MEMCACHED` has been built for debugging (`memcached-debug`) and
//! ours with `debug-commands`, one in which both clocks stand still and are moved.
//!
//! The long form: `DIFFERENTIAL_REQUESTS=300000 MEMCACHED=.../memcached-debug cargo test --release
//! --features debug-commands --test differential -- --nocapture`, a million and more in all.

#[path = "differential/binary.rs"]
mod binary;
mod common;
#[path = "differential/counters.rs"]
mod counters;
#[path = "differential/text.rs"]
mod text;
#[path = "differential/wire.rs"]
mod wire;

use common::requests::{Generator, Kind, Request};
use common::{Random, Server};
use std::path::{Path, PathBuf};
use text::Pair;

/// The release whose behaviour ours copies.
const MODEL: [u32; 3] = [1, 6, 45];
/// Background threads of memcached hold items for moments in which it does not write in place.
const QUIET: [&str; 2] = ["-o", "no_lru_maintainer,no_lru_crawler,slab_automove=0"];
/// Until both were stopped in the same second.
const STARTS: usize = 5;
/// Requests between comparisons of the counters.
const COUNT_EVERY: usize = 5_000;

#[test]
fn replies_are_memcacheds() {
    let Some(real) = real_memcached() else { return };
    compare(&real, Pair::start(&real, &QUIET, false), Kind::Text);
}

#[test]
fn replies_over_udp_are_memcacheds() {
    let Some(real) = real_memcached() else { return };
    // Several threads would take the datagrams in any order.
    let args = [&QUIET[..], &["-U", "-1", "-t", "1"]].concat();
    compare(&real, Pair::start(&real, &args, true), Kind::Datagrams);
}

#[test]
fn replies_are_memcacheds_while_time_goes_by() {
    let Some(real) = real_memcached() else { return };
    for _ in 0..STARTS {
        let mut pair = Pair::start(&real, &QUIET, false);
        if !pair.pause() {
            return println!("skipped: it takes servers with commands for debugging");
        }
        if pair.is_in_step() {
            return compare(&real, pair, Kind::Timed);
        }
    }
    panic!("the clocks never stopped in the same second");
}

fn compare(real: &Path, mut pair: Pair, kind: Kind) {
    let (seed, requests) = seed_and_length(real);
    let full = pair.release() >= MODEL;
    let mut generator = Generator::new(Random::new(seed), full, kind);
    let (mut sent, mut counted) = (0, 0);
    while sent < requests {
        let batch = draw_batch(&mut generator);
        sent += batch.len();
        let mut outcome = pair.compare(&batch, &mut generator.random);
        // An older release counts otherwise.
        if full && outcome.is_ok() && sent / COUNT_EVERY > counted {
            counted = sent / COUNT_EVERY;
            outcome = pair.compare_counters();
        }
        if let Err(difference) = outcome {
            panic!("DIFFERENTIAL_SEED={seed} {kind:?}, request {sent}: {difference}");
        }
    }
    println!("{kind:?}: {sent} requests, no difference");
}

#[test]
fn packets_are_memcacheds() {
    let Some(real) = real_memcached() else { return };
    let (seed, requests) = seed_and_length(&real);
    // Room for every key's largest value: what is evicted is each server's own choice.
    let args = [&QUIET[..], &["-m", "1024"]].concat();
    let servers = [Server::start(&args), Server::start_binary(&real, &args)];
    let full = servers[1].release() >= MODEL;
    let difference = binary::compare(&servers, full, Random::new(seed), requests);
    assert_eq!(difference, Ok(()), "DIFFERENTIAL_SEED={seed}");
    println!("packets: {requests} requests, no difference");
}

fn seed_and_length(real: &Path) -> (u64, usize) {
    let seed = Random::seed_from("DIFFERENTIAL_SEED");
    let requests = std::env::var("DIFFERENTIAL_REQUESTS").ok().and_then(|n| n.parse().ok());
    println!("DIFFERENTIAL_SEED={seed}, against {}", real.display());
    (seed, requests.unwrap_or(20_000))
}

fn real_memcached() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MEMCACHED") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|dir| dir.join("memcached"));
    let found = places.find(|file| file.is_file());
    if found.is_none() {
        println!("skipped: no memcached in MEMCACHED or on PATH");
    }
    found
}

/// Mostly one request, at times several in one write.
fn draw_batch(generator: &mut Generator) -> Vec<Request> {
    let many = generator.kind != Kind::Datagrams && generator.random.once_in(4);
    let len = if many { 1 + generator.random.below(30) } else { 1 };
    let mut batch: Vec<Request> = Vec::new();
    while batch.len() < len {
        let request = generator.next();
        // memcached hangs up without the replies before.
        let alone = request.alone || request.closes || request.advance.is_some();
        if alone && !batch.is_empty() {
            generator.put_back(request);
            break;
        }
        batch.push(request);
        if alone {
            break;
        }
    }
    batch
}
