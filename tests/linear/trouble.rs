//! What goes on beside the clients: pages move, items are evicted, the index grows and shrinks.

use crate::common::{Client, Random, Server};
use crate::direct::Thread;
use rustcached::store::{Delete, Key, Set};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{sleep, yield_now};
use std::time::Duration;

/// Items of a wave of tiny ones, for the index, and of one of larger ones, for the pages.
const TINY: usize = 30_000;
const WIDE_BYTES: usize = 3 << 20;
/// Waves that are there at once, before the oldest is deleted.
const WAVES: u64 = 2;

/// Keys and value lengths of the wave with this number.
fn wave(number: u64) -> impl Iterator<Item = (String, usize)> {
    let mut random = Random::new(number);
    let (count, len) = match number % 2 {
        0 => (TINY, 2),
        _ => {
            let len = 60 + random.below(20_000);
            (WIDE_BYTES / len, len)
        }
    };
    (0..count).map(move |n| (format!("wave{number}:{n}"), len))
}

/// Stores waves of items by a connection, and deletes each some waves later.
pub fn fill(server: &Server, stop: &AtomicBool) {
    let mut client = server.connect();
    for number in 0.. {
        for (n, (key, len)) in wave(number).enumerate() {
            client
                .send(format!("set {key} 0 0 {len} noreply\r\n{}\r\n", "w".repeat(len)).as_bytes());
            if n % 500 == 0 && !is_going(&mut client, stop) {
                return;
            }
        }
        let old = number.checked_sub(WAVES).into_iter().flat_map(wave);
        for (n, (key, _)) in old.enumerate() {
            client.send(format!("delete {key} noreply\r\n").as_bytes());
            if n % 500 == 0 && !is_going(&mut client, stop) {
                return;
            }
        }
    }
}

/// True after all that was sent is done, unless it is time to end. Refusals for want of memory
/// are passed over.
fn is_going(client: &mut Client, stop: &AtomicBool) -> bool {
    client.send(b"mn\r\n");
    while client.line() != "MN" {
        assert!(!client.timed_out, "the server is silent");
    }
    !stop.load(Relaxed)
}

/// Moves pages by hand, and lets the server move them.
pub fn operate(server: &Server, limits: &[u32], stop: &AtomicBool, mut random: Random) {
    let mut client = server.connect();
    client.exchange(b"slabs automove 2\r\n", b"OK\r\n");
    while !stop.load(Relaxed) {
        let line = match random.below(40) {
            0 if !limits.is_empty() => format!("cache_memlimit {}", random.pick(limits)),
            1 => "lru_crawler crawl all".into(),
            2 => "lru mode flat".into(),
            3 | 4 => "lru mode segmented".into(),
            n if n % 2 == 0 => format!("slabs reassign -1 {}", random.below(80)),
            _ => format!("slabs reassign {} {}", 1 + random.below(80), random.below(80)),
        };
        client.send(line.as_bytes());
        client.send(b"\r\n");
        let answer = client.line();
        let known = ["OK", "BUSY", "BADCLASS", "NOSPARE", "SAME"];
        assert!(known.iter().any(|word| answer.starts_with(word)), "{answer:?} to {line:?}");
        sleep(Duration::from_micros(300));
    }
}

/// As [`fill`], in the store's process.
pub fn fill_store(thread: &mut Thread, stop: &AtomicBool) {
    let (store, local) = (&thread.store, &thread.local);
    for number in 0.. {
        for (name, len) in wave(number) {
            let set = Set::of(Key::new(name.as_bytes()).expect("a key"), len as u32);
            // Refused where there is no memory, which is all right.
            let _ = store.set(local, &set, store.hash(set.key), &vec![b'w'; len]);
            if stop.load(Relaxed) {
                return;
            }
        }
        for (name, _) in number.checked_sub(WAVES).into_iter().flat_map(wave) {
            let delete = Delete::of(Key::new(name.as_bytes()).expect("a key"));
            store.delete(local, &delete, store.hash(delete.key));
        }
    }
}

/// How often the index became larger, and smaller.
#[derive(Debug, Default)]
pub struct Sizes {
    last: Option<u64>,
    pub grown: u32,
    pub shrunk: u32,
}

impl Sizes {
    pub fn note(&mut self, bytes: u64) {
        let last = self.last.replace(bytes).unwrap_or(bytes);
        self.grown += u32::from(bytes > last);
        self.shrunk += u32::from(bytes < last);
    }
}

/// Looks at a server's index from time to time.
pub fn measure(server: &Server, stop: &AtomicBool) -> Sizes {
    let mut sizes = Sizes::default();
    while !stop.load(Relaxed) {
        sizes.note(server.stat("hash_bytes").expect("a figure"));
        sleep(Duration::from_millis(10));
    }
    sizes
}

/// The background thread's work, and pages that are asked to move.
pub fn keep(thread: &mut Thread, stop: &AtomicBool, mut random: Random) -> Sizes {
    let (store, local) = (&thread.store, &thread.local);
    let mut sizes = Sizes::default();
    while !stop.load(Relaxed) {
        store.tick(local);
        sizes.note(store.info().hash_bytes);
        if random.once_in(8) {
            let from = if random.once_in(2) { -1 } else { 1 + random.below(60) as i32 };
            store.reassign(from, random.below(40) as i32);
        }
        yield_now();
    }
    sizes
}
