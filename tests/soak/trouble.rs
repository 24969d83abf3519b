//! What is done to the server of the soak: limits, signals, clocks, a disk that is full; and what
//! an operator asks of it all the while.

use crate::common::faults::{Clocks, Disk, Hog, Limited, open_files};
use crate::common::{Client, Random, fails, is_sanitized, spawn};
use crate::world::World;
use nix::sys::signal::Signal;
use rustix::process::Resource;

/// Seconds that the wall clock is set ahead or back at the most.
const WALL_MAX: usize = 3 * 24 * 60 * 60;

pub struct Trouble<'a> {
    world: &'a World,
    random: Random,
    /// Where there is a compiler for them.
    clocks: Option<&'a Clocks>,
    /// On the disk of the memory file, where one could be mounted.
    hog: Option<Hog>,
    file: &'a str,
    wall: i64,
    steady: i64,
}

impl<'a> Trouble<'a> {
    pub fn new(
        world: &'a World,
        seed: u64,
        clocks: Option<&'a Clocks>,
        disk: Option<&Disk>,
        file: &'a str,
    ) -> Trouble<'a> {
        let (random, hog) = (Random::new(seed), disk.map(Disk::hog));
        Trouble { world, random, clocks, hog, file, wall: 0, steady: 0 }
    }

    pub fn make(&mut self) {
        while !self.world.is_over() {
            self.world.rest(50 + self.random.below(200));
            let server = &self.world.server;
            let what = match self.random.below(9) {
                0 => {
                    server.pause();
                    self.hold();
                    server.signal(Signal::SIGCONT);
                    "stopped"
                }
                1 => {
                    let highest = open_files(server).into_iter().max().expect("files");
                    let few = (highest + 2).saturating_sub(self.random.below(20) as u64);
                    self.limit(Resource::Nofile, few);
                    "out of files"
                }
                2 if !is_sanitized() => {
                    self.limit(Resource::As, server.memory("VmSize"));
                    "out of memory"
                }
                3 => {
                    self.limit(Resource::Fsize, 1 << 20);
                    "files limited"
                }
                4 => self.fill_disk(),
                5 => {
                    self.wall = self.random.below(2 * WALL_MAX) as i64 - WALL_MAX as i64;
                    "wall clock set"
                }
                6 => {
                    self.steady += 1 + self.random.below(3) as i64;
                    "steady clock leapt"
                }
                7 => {
                    self.start_another();
                    "port in use"
                }
                _ => {
                    server.signal(Signal::SIGHUP);
                    "reloads"
                }
            };
            if let Some(clocks) = self.clocks {
                clocks.set(self.wall, self.steady);
            } else if what.contains("clock") {
                continue;
            }
            self.world.count(what, 1);
        }
    }

    fn hold(&mut self) {
        self.world.rest(20 + self.random.below(200));
    }

    fn limit(&mut self, what: Resource, to: u64) {
        let _limited = Limited::new(&self.world.server, what, to);
        self.hold();
    }

    fn fill_disk(&mut self) -> &'static str {
        let Some(mut hog) = self.hog.take() else { return "no disk of its own" };
        // What pages give up meanwhile is taken, too.
        for _ in 0..1 + self.random.below(20) {
            hog.take();
            self.world.rest(10);
        }
        hog.give_back();
        self.hog = Some(hog);
        "disk full"
    }

    fn start_another(&self) {
        let port = self.world.server.port.to_string();
        fails(spawn(&["-l", "127.0.0.1", "-p", &port, "-e", self.file]), "in use");
    }
}

/// Moves pages, changes -m, walks the index, looks at everything.
pub fn operate(world: &World, seed: u64) {
    const TOPICS: [&str; 6] = [" items", " slabs", " conns", " automover", " sizes", " settings"];
    let mut random = Random::new(seed);
    let Some(mut client) = world.enter() else { return };
    while !world.is_over() {
        world.rest(20);
        let request = match random.below(20) {
            0 => format!("cache_memlimit {}\r\n", random.pick(&[64, 32])),
            1 => "lru_crawler metadump all\r\n".into(),
            2..6 => "lru_crawler crawl all\r\n".into(),
            6..10 => format!("stats{}\r\n", random.pick(&TOPICS)),
            10 => "lru mode flat\r\n".into(),
            11 => "lru mode segmented\r\n".into(),
            _ => format!("slabs reassign -1 {}\r\n", 1 + random.below(80)),
        };
        client.send(format!("{request}mn\r\n").as_bytes());
        if !is_through(&mut client) {
            let Some(next) = world.enter() else { return };
            world.count("connections lost", 1);
            client = next;
            continue;
        }
        world.count("operators' commands", 1);
    }
}

/// Reads up to the answer to `mn`.
fn is_through(client: &mut Client) -> bool {
    loop {
        let line = client.line();
        if client.cut_off || line == "MN" {
            return !client.cut_off;
        }
    }
}
