//! `-m` holds: a small cache is overfilled with values whose sizes shift, and what the kernel
//! counts as the server's memory stays within `-m` and a stated allowance.

mod common;

use common::{Client, Random, Server};
use std::time::{Duration, Instant};

const MEMORY_MIB: u64 = 32;
/// Beyond `-m`: code, stacks, connections, statistics. Code that is not optimized is larger.
const ALLOWANCE_MIB: u64 = if cfg!(debug_assertions) { 14 } else { 10 };
const ALLOWED: u64 = (MEMORY_MIB + ALLOWANCE_MIB) << 20;
/// Each phase stores this many times `-m` in values of its own sizes.
const OVERFILL: u64 = 2;
/// Sizes of the phases' values in bytes: from the smallest to those of many chunks, and back.
const PHASES: [(usize, usize); 6] =
    [(10, 100), (500, 1500), (3000, 9000), (50_000, 400_000), (20, 60), (1, 20_000)];
/// Requests in one write.
const BATCH_BYTES: usize = 256 << 10;

#[test]
fn resident_memory_stays_within_m() {
    let seed = Random::seed_from("MEMORY_SEED");
    println!("MEMORY_SEED={seed}");
    let mut random = Random::new(seed);
    let server = Server::start(&["-m", "32"]);
    let mut client = server.connect();
    let mut number = 0;
    for sizes in PHASES {
        fill(&mut client, sizes, &mut number, &mut random);
        let resident = server.memory("VmRSS");
        println!("values of {sizes:?}: {number} stored, VmRSS {} KiB", resident >> 10);
        assert!(resident <= ALLOWED, "VmRSS {resident} after values of {sizes:?}");
    }
    let highest = server.memory("VmHWM");
    assert!(highest <= ALLOWED, "VmHWM {highest}");
    // Without evictions on the way: the misses of this very count could let pages move.
    client.exchange(b"slabs automove 0\r\n", b"OK\r\n");
    let counted = settled_items(&server);
    let present = count_present(&mut client, number);
    println!("{present} of {number} items present, curr_items {counted}");
    assert_eq!(present, counted, "curr_items is not what can be read");
    assert!(present > 1000, "next to nothing was kept");
    assert!(server.stat("evictions").expect("evictions") > 0, "it was not overfilled");
}

/// Items, once the page that may be on its way has moved.
fn settled_items(server: &Server) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.stat("slab_reassign_running") != Some(0) {
        assert!(Instant::now() < deadline, "the page mover does not rest");
    }
    server.stat("curr_items").expect("curr_items")
}

/// Small items fill `-m` well: what an item costs beside its key and value is bounded.
#[test]
fn small_items_are_packed() {
    const KEY_AND_VALUE: u64 = 20 + 50;
    /// Header, slack of the class, the index, and what eviction remembers.
    const COST_MAX: u64 = 30;
    let server = Server::start(&["-m", "32"]);
    let mut client = server.connect();
    let wanted = (MEMORY_MIB << 20) / (KEY_AND_VALUE + COST_MAX);
    let mut batch = Vec::new();
    for number in 0..(MEMORY_MIB << 20) / KEY_AND_VALUE {
        let line = format!("set {number:020} 0 0 50 noreply\r\n{number:050}\r\n");
        batch.extend_from_slice(line.as_bytes());
        send_full(&mut client, &mut batch, BATCH_BYTES);
    }
    send_full(&mut client, &mut batch, 0);
    client.exchange(b"mn\r\n", b"MN\r\n");
    let items = server.stat("curr_items").expect("curr_items");
    println!("{items} items of {KEY_AND_VALUE} bytes, {wanted} wanted");
    assert!(items >= wanted, "{items} items are fewer than {wanted}");
}

/// Stores values of `sizes` until they are [`OVERFILL`] times the memory, under fresh keys.
fn fill(client: &mut Client, sizes: (usize, usize), number: &mut u64, random: &mut Random) {
    let mut left = ((OVERFILL * MEMORY_MIB) << 20) as usize;
    // Small values are many: half as much of them is overfill enough.
    if sizes.1 <= 100 {
        left /= 4;
    }
    let mut batch = Vec::new();
    while left > 0 {
        let len = sizes.0 + random.below(sizes.1 - sizes.0);
        let line = format!("set {} 0 0 {len} noreply\r\n", key(*number));
        batch.extend_from_slice(line.as_bytes());
        batch.resize(batch.len() + len, b'v');
        batch.extend_from_slice(b"\r\n");
        *number += 1;
        left = left.saturating_sub(len);
        send_full(client, &mut batch, BATCH_BYTES);
    }
    send_full(client, &mut batch, 0);
    client.exchange(b"mn\r\n", b"MN\r\n");
}

fn key(number: u64) -> String {
    format!("key-{number:08}")
}

/// Sends the batch if it is longer than `limit`.
fn send_full(client: &mut Client, batch: &mut Vec<u8>, limit: usize) {
    if batch.len() > limit {
        client.send(batch);
        batch.clear();
    }
}

/// How many of the keys below `number` a quiet meta get finds.
fn count_present(client: &mut Client, number: u64) -> u64 {
    const KEYS: u64 = 500;
    let mut present = 0;
    for first in (0..number).step_by(KEYS as usize) {
        let keys = first..number.min(first + KEYS);
        let gets: String = keys.map(|n| format!("mg {} q\r\n", key(n))).collect();
        client.send(gets.as_bytes());
        client.send(b"mn\r\n");
        loop {
            match client.line().as_str() {
                "HD" => present += 1,
                "MN" => break,
                other => panic!("{other:?} is no answer to a quiet mg"),
            }
        }
    }
    present
}
