//! Access patterns: what clients do in each, and what is counted.
//!
//! A pattern sends the same requests to every server that it is run against, whatever the machine's
//! speed; numbers of keys and of requests grow with -m. Where memory changes hands with time, a
//! pattern has a fixed rate, and tells the seconds until the server has recovered.
#![allow(dead_code)]

mod clients;
mod emptied;
mod once;
mod popular;
mod sizes;
mod wire;

use crate::common::Server;
use std::io::Result;
use std::time::{Duration, Instant};
pub use wire::{BATCH, Request, Wire, set};

/// Bytes of a key, and what memcached takes for an item beside key and value, about.
pub const KEY: usize = 16;
pub const BESIDE: usize = 50;
/// Connections of the servers: for the pattern with the most, and some.
pub const CONNECTIONS: usize = 4096;
/// -m that the patterns' fixed figures are for.
pub const USUAL_MEGABYTES: u64 = 64;

pub struct Pattern {
    pub name: &'static str,
    pub about: &'static str,
    /// Options of every server, and of ours alone.
    pub options: &'static [&'static str],
    pub own: &'static [&'static str],
    pub run: fn(&mut Target<'_>) -> Result<Vec<Row>>,
}

/// What a pattern came to.
#[derive(Debug)]
pub struct Row {
    /// Which part of the pattern it is, where there are several.
    pub part: String,
    /// How many were found or stored, of how many.
    pub hits: u64,
    pub asked: u64,
    pub recovery: Option<Recovery>,
    /// A part of the requests of the row before: shown, and not held to a bound.
    pub within: bool,
}

impl Row {
    pub fn new(part: impl Into<String>, answers: impl IntoIterator<Item = bool>) -> Row {
        let part = part.into();
        let mut row = Row { part, hits: 0, asked: 0, recovery: None, within: false };
        row.count(answers);
        row
    }

    pub fn count(&mut self, answers: impl IntoIterator<Item = bool>) {
        for answer in answers {
            self.asked += 1;
            self.hits += u64::from(answer);
        }
    }

    pub fn share(&self) -> f64 {
        self.hits as f64 / self.asked.max(1) as f64
    }
}

/// Shares of hits while a server recovers.
#[derive(Debug)]
pub struct Recovery {
    pub unit: Unit,
    /// The share that counts as recovered; without it, a part of the one that the other server ends
    /// with.
    pub goal: Option<f64>,
    /// When, and the share by then.
    pub points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Requests,
}

impl Recovery {
    pub fn end(&self) -> f64 {
        self.points.last().map_or(0.0, |(_, share)| *share)
    }

    /// When the share was first `goal`; infinite: never.
    pub fn reached(&self, goal: f64) -> f64 {
        let point = self.points.iter().find(|(_, share)| *share >= goal);
        point.map_or(f64::INFINITY, |(at, _)| *at)
    }
}

/// A server with so much memory, and a connection to it.
pub struct Target<'a> {
    pub server: &'a Server,
    pub megabytes: u64,
    pub wire: Wire,
}

impl Target<'_> {
    pub fn new(server: &Server, megabytes: u64) -> Result<Target<'_>> {
        let wire = Wire::connect(server.port)?;
        Ok(Target { server, megabytes, wire })
    }

    /// Bytes of a share of -m.
    pub fn bytes(&self, share: f64) -> u64 {
        ((self.megabytes << 20) as f64 * share) as u64
    }

    /// Items of a size that are a share of -m, as memcached counts them.
    pub fn items(&self, size: usize, share: f64) -> u64 {
        self.bytes(share) / taken(size)
    }

    /// A number that is for [`USUAL_MEGABYTES`], for this -m.
    pub fn scaled(&self, usual: u64) -> u64 {
        (usual * self.megabytes / USUAL_MEGABYTES).max(1)
    }

    /// Items of a size that memcached has room for, if it has no others.
    pub fn holds(&self, size: usize) -> u64 {
        const PAGE: usize = 1 << 20;
        const HEADER: usize = 48 + 8 + "\0\r\n".len();
        let wanted = size + KEY + HEADER;
        let mut chunk = 96;
        while chunk < wanted {
            chunk = (chunk as f64 * 1.25) as usize;
            chunk = chunk.next_multiple_of(8);
        }
        self.megabytes * (PAGE / chunk) as u64
    }

    /// Sets items of one size with keys from `first` on.
    pub fn fill(&mut self, first: u64, count: u64, size: usize) -> Result<u64> {
        let mut stored = 0;
        for keys in batches(first, count) {
            let sets: Vec<Request> = keys.map(|key| set(key, size)).collect();
            stored += self.wire.ask(&sets)?.into_iter().filter(|stored| *stored).count() as u64;
        }
        Ok(stored)
    }

    /// Gets keys from `first` on; true for each that is there.
    pub fn get_all(&mut self, first: u64, count: u64) -> Result<Vec<bool>> {
        let mut found = Vec::new();
        for keys in batches(first, count) {
            let gets: Vec<Request> = keys.map(Request::Get).collect();
            found.extend(self.wire.ask(&gets)?);
        }
        Ok(found)
    }
}

/// Bytes that memcached takes for an item with a value of a size, about.
pub fn taken(size: usize) -> u64 {
    (size + KEY + BESIDE) as u64
}

/// Ranges of at most so many keys as one write is made of.
pub fn batches(first: u64, count: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    let keys = BATCH as u64;
    (0..count.div_ceil(keys)).map(move |batch| {
        let start = batch * keys;
        first + start..first + count.min(start + keys)
    })
}

/// The first key of a kind; kinds have no key in common.
pub fn kind(number: u64) -> u64 {
    number << 40
}

/// A number that looks drawn at random, the same for the same `n`.
pub fn scatter(n: u64) -> u64 {
    let mixed = (n ^ (n >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Sizes of values, from the least to the most.
#[derive(Clone, Copy, Debug)]
pub struct Sizes(pub usize, pub usize);

impl Sizes {
    pub fn of(self, key: u64) -> usize {
        let Sizes(least, most) = self;
        least + (scatter(key) % (most - least + 1) as u64) as usize
    }

    pub fn mean(self) -> usize {
        self.0.midpoint(self.1)
    }
}

/// A fixed rate.
pub struct Rate {
    began: Instant,
    per_second: f64,
    done: u64,
}

impl Rate {
    pub fn new(per_second: f64) -> Rate {
        Rate { began: Instant::now(), per_second, done: 0 }
    }

    /// Waits until so many more are due.
    pub fn wait(&mut self, more: u64) {
        self.done += more;
        let due = Duration::from_secs_f64(self.done as f64 / self.per_second);
        std::thread::sleep(due.saturating_sub(self.began.elapsed()));
    }

    pub fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

/// All patterns, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Pattern> {
    once::PATTERNS
        .iter()
        .chain(popular::PATTERNS)
        .chain(sizes::PATTERNS)
        .chain(emptied::PATTERNS)
        .chain(clients::PATTERNS)
}

/// A pattern without options.
const fn plain(
    name: &'static str,
    about: &'static str,
    run: fn(&mut Target<'_>) -> Result<Vec<Row>>,
) -> Pattern {
    Pattern { name, about, options: &[], own: &[], run }
}

/// A pattern in which our server is a flat LRU, as memcached's documents describe its own.
const fn flat(
    name: &'static str,
    about: &'static str,
    run: fn(&mut Target<'_>) -> Result<Vec<Row>>,
) -> Pattern {
    Pattern { name, about, options: &[], own: &["-o", "eviction=lru"], run }
}
