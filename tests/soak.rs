//! All faults at once, for as long as is wanted: every answer is right, memory stays within its
//! bound, and what only counts up never goes down. The long form is `.ci/deep soak`.
//!
//! `SOAK_SECONDS` says how long, `SOAK_SEED` runs one again. Nothing depends on how fast the
//! machine is, nor on how much of it there is: the whole may be stopped for a while.

mod common;
#[path = "soak/crowd.rs"]
mod crowd;
#[path = "soak/trouble.rs"]
mod trouble;
#[path = "soak/world.rs"]
mod world;

use common::faults::{Clocks, Dir, Disk};
use common::load::Memory;
use common::{Client, Random, Server, server_path};
use std::collections::HashMap;
use std::fs::{self, File};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};
use trouble::Trouble;
use world::World;

/// Without `SOAK_SECONDS`.
const SECONDS: u64 = 12;
/// MiB that the cache may have, and those of the disk that its file is on: it gets full first.
const MEMORY_MIB: u64 = 64;
const DISK_MIB: u32 = 56;
/// MiB beside the cache: the program, threads and their buffers, statistics, and what connections
/// hold. Code that is not optimized is larger.
const ALLOWANCE_MIB: u64 = if cfg!(debug_assertions) { 20 } else { 14 };
const ARGUMENTS: [&str; 8] = ["-m", "64", "-t", "2", "-c", "400", "-o", "idle_timeout=60"];
/// Figures of `stats` that go up and down.
const GAUGES: [&str; 20] = [
    "curr_connections",
    "read_buf_count",
    "read_buf_bytes",
    "limit_maxbytes",
    "accepting_conns",
    "hash_power_level",
    "hash_bytes",
    "hash_is_expanding",
    "slab_reassign_running",
    "lru_crawler_running",
    "log_watchers",
    "bytes",
    "curr_items",
    "slab_global_page_pool",
    "active_slabs",
    "total_malloced",
    "total_pages",
    "total_chunks",
    "used_chunks",
    "free_chunks",
];
/// Of those of `stats slabs` and `stats items` that are counters, the names behind the class.
const CLASS_COUNTERS: [&str; 14] = [
    "get_hits",
    "cmd_set",
    "delete_hits",
    "incr_hits",
    "cas_hits",
    "touch_hits",
    "evicted",
    "evicted_nonzero",
    "evicted_unfetched",
    "outofmemory",
    "reclaimed",
    "expired_unfetched",
    "crawler_reclaimed",
    "direct_reclaims",
];

/// Watches the figures of `stats`, and the memory.
struct Monitor {
    /// Bytes that may be resident.
    bound: u64,
    seen: HashMap<String, f64>,
    largest: u64,
    looks: u64,
    compared: u64,
}

impl Monitor {
    /// The cache's memory ends with `-m`, or with the disk that its file is on.
    fn new(disk: Option<&Disk>) -> Monitor {
        let cache = disk.map_or(MEMORY_MIB, |_| DISK_MIB.into());
        let bound = (cache + ALLOWANCE_MIB) << 20;
        Monitor { bound, seen: HashMap::new(), largest: 0, looks: 0, compared: 0 }
    }

    fn watch(&mut self, world: &World, client: &mut Client) {
        while !world.is_over() {
            self.look(world, client);
            world.rest(100);
            // It was idle while all of this was stopped.
            if client.cut_off {
                let Some(next) = world.enter() else { return };
                world.count("connections lost", 1);
                *client = next;
            }
        }
    }

    fn look(&mut self, world: &World, client: &mut Client) {
        for topic in ["", " slabs", " items"] {
            for (name, value) in client.stats(topic) {
                let is_gauge = match name.rsplit_once(':') {
                    Some((_, figure)) => !CLASS_COUNTERS.contains(&figure),
                    None => GAUGES.contains(&name.as_str()),
                };
                if let (false, Ok(value)) = (is_gauge, value.parse::<f64>()) {
                    self.compare(world, format!("{topic} {name}"), value);
                }
            }
        }
        let memory = world.server.memory("VmRSS");
        self.largest = self.largest.max(memory);
        self.looks += 1;
        if memory > self.bound {
            world.report(format!("{memory} bytes are resident, {} are the bound", self.bound));
        }
    }

    fn compare(&mut self, world: &World, name: String, value: f64) {
        let before = self.seen.get(&name).copied().unwrap_or(0.0);
        if value < before {
            world.report(format!("{name} went from {before} to {value}"));
        }
        self.compared += 1;
        self.seen.insert(name, value);
    }
}

fn run(world: &World, seed: u64, trouble: &mut Trouble<'_>, monitor: &mut Monitor) {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|n| n.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let mut asker = world.enter().expect("nobody else is there");
    scope(|scope| {
        for n in 0..3 {
            scope.spawn(move || crowd::remember(world, n, seed + n as u64));
        }
        let others: [fn(&World, u64); 7] = [
            crowd::store_bigs,
            crowd::read_slowly,
            crowd::dribble,
            crowd::come_and_go,
            crowd::come_and_go,
            crowd::flood,
            trouble::operate,
        ];
        for (other, n) in others.into_iter().zip(10..) {
            scope.spawn(move || other(world, seed + n));
        }
        scope.spawn(|| trouble.make());
        scope.spawn(|| monitor.watch(world, &mut asker));
        while Instant::now() < until && !world.is_over() {
            sleep(Duration::from_millis(50));
        }
        world.end();
    });
    monitor.look(world, &mut asker);
}

fn print(world: &World, monitor: &Monitor, took: Duration) {
    println!("{} s", took.as_secs());
    for (what, count) in world.counts() {
        println!("{count:>12} {what}");
    }
    println!(
        "{:>12} figures, looked at {} times, none went down",
        monitor.seen.len(),
        monitor.looks
    );
    println!("{:>12} comparisons of figures", monitor.compared);
    println!("{:>12} bytes resident at the most, of {}", monitor.largest, monitor.bound);
    println!("{:>12} answers out of step", world.wrong().len());
}

#[test]
fn all_faults_at_once() {
    let seed = Random::seed_from("SOAK_SEED") >> 8;
    println!("SOAK_SEED={}", seed << 8);
    let (disk, dir, clocks) = (Disk::new("soak", DISK_MIB), Dir::new("soak-dir"), Clocks::new());
    let file = disk.as_ref().map_or_else(|| dir.file(), Disk::file);
    let args = [&ARGUMENTS[..], &["-e", &file]].concat();
    let log = dir.0.join("log");
    let server = Server::start_prepared(&server_path(), &args, |command| {
        clocks.iter().for_each(|clocks| clocks.give_to(command));
        command.stderr(File::create(&log).expect("a file"));
    });
    let mut monitor = Monitor::new(disk.as_ref());
    let (world, began) = (World::new(server), Instant::now());
    let mut trouble = Trouble::new(&world, seed + 99, clocks.as_ref(), disk.as_ref(), &file);
    run(&world, seed, &mut trouble, &mut monitor);
    print(&world, &monitor, began.elapsed());
    let said = fs::read_to_string(&log).expect("the server's log");
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    assert!(world.wrong().is_empty(), "{:#?}, log: {last:#?}", world.wrong());
    let mut client = world.server.connect();
    let lost = world.counted("connections lost");
    assert!(client.stat("idle_kicks") >= Some(lost), "{lost} connections were lost");
    let counts = world.counts();
    for what in ["steps checked", "connections refused", "stopped", "out of files", "reloads"] {
        assert!(counts.contains_key(what), "there was nothing of: {what}");
    }
    let mut memory = Memory::new("last".into(), seed);
    assert!((0..200).all(|_| memory.work(&mut client)), "{:#?}", memory.wrong);
    let highest = world.server.memory("VmHWM");
    assert!(highest <= monitor.bound, "{highest} bytes at the most");
    let World { server, .. } = world;
    assert!(server.stop().is_some_and(|status| status.success()), "a clean end");
}
