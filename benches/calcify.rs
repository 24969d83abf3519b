//! Slab calcification: how long a cache whose values change their size takes until it hits as often
//! as a fresh one that is asked the same.
//!
//! Phases of look-aside traffic (a get, and a set where it misses) follow each other, each with
//! keys of its own drawn by Zipf's law from more than the cache holds, and values of its own size.
//! By default the cache is a store in this process with a clock set by hand, whose upkeep runs as
//! its thread would call for it; a minute then takes some seconds. `--server` takes live servers.

#[path = "common/harness.rs"]
mod harness;
#[path = "common/zipf.rs"]
mod zipf;

use clap::Parser;
use harness::Harness;
use rustcached::clock::Clock;
use rustcached::command::{Get, Set};
use rustcached::config::{Layout, Settings};
use rustcached::store::{Key, Local, Outcome, Pace, Store};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zipf::Zipf;

/// The share of the fresh cache's hit ratio that counts as recovered.
const RECOVERED: f64 = 0.95;
/// Requests that a live server gets in one write.
const BATCH: u32 = 50;
/// Nanoseconds that a tick is taken to last, and from its start to the next one's beside busy
/// clients: where there is nothing to do, and where somebody waits for what is left.
const TICK: u64 = 50_000;
const TICK_REST: u64 = 20_000_000;
const TICK_SOON: u64 = 250_000;
const TICK_URGENT: u64 = 100_000;
/// What an item takes beside its value, for the number of keys: a key, a header, the index.
const BESIDE_VALUE: u64 = 36;
/// Unix time at which clocks set by hand start.
const START: u64 = 1_700_000_000;

type Name = [u8; 20];

#[derive(Parser)]
#[command(about = "How long a cache takes to recover from a shift of its values' sizes")]
struct Args {
    /// -m of the caches; with --server it only sets the number of keys
    #[arg(long, default_value_t = 256)]
    megabytes: u64,
    /// Gets per second
    #[arg(long, default_value_t = 100_000)]
    rate: u32,
    /// Seconds of a phase
    #[arg(long, default_value_t = 60)]
    phase: u32,
    /// Bytes of the values, phase by phase
    #[arg(long, value_delimiter = ',', default_value = "200,2000,20000,200")]
    values: Vec<usize>,
    /// Exponent of the keys' popularity
    #[arg(long, default_value_t = 0.9)]
    zipf: f64,
    /// Keys of a phase, in times of what the cache can hold
    #[arg(long, default_value_t = 3.0)]
    spread: f64,
    /// The layout of the stores: compact or memcached
    #[arg(long, default_value = "compact", value_parser = ["compact", "memcached"])]
    layout: String,
    /// HOST:PORT of a live server that goes through all phases, then of a fresh one for each phase
    /// after the first
    #[arg(long, value_delimiter = ',')]
    server: Vec<String>,
    /// Exit with status 1 where a phase takes longer than so many seconds to recover
    #[arg(long)]
    require: Option<usize>,
    /// Print every second
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    harness: Harness,
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    if !args.harness.wants("calcify") {
        return ExitCode::SUCCESS;
    }
    let smoke = args.harness.smoke();
    if smoke {
        args = Args { megabytes: 8, rate: 20_000, phase: 3, server: Vec::new(), ..args };
    }
    if !args.server.is_empty() && args.server.len() < args.values.len() {
        eprintln!("--server wants {} addresses: one a phase", args.values.len());
        return ExitCode::FAILURE;
    }
    let slowest = run(&args, smoke);
    match args.require {
        Some(seconds) if slowest.is_none_or(|slowest| slowest > seconds) => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// All phases, reported. The most seconds that one took to recover, `None` if one did not.
fn run(args: &Args, smoke: bool) -> Option<usize> {
    println!(
        "{} MiB, {} gets a second, phases of {} s, keys by Zipf {} from {} times the memory",
        args.megabytes, args.rate, args.phase, args.zipf, args.spread
    );
    println!("{:>6} {:>8}  hit ratio, shifted / fresh", "", "");
    let (quarter, half) = (args.phase.div_ceil(4), args.phase.div_ceil(2));
    println!(
        "{:>6} {:>8} {:>13} {:>11} s {:>11} s {:>13}  back at 95 % of the fresh one",
        "values", "keys", "second 1", quarter, half, "last"
    );
    let mut shifted = open(args, 0);
    let mut slowest = Some(0);
    for phase in 0..args.values.len() {
        let mut fresh = (phase > 0).then(|| open(args, phase));
        let played = play(args, phase, &mut *shifted, fresh.as_mut());
        played.print(args, phase);
        if smoke {
            played.check(phase);
        }
        slowest = slowest.max(played.recovery()).filter(|_| played.recovery().is_some());
    }
    slowest
}

/// The shifted cache (0), or the fresh one of a phase.
fn open(args: &Args, phase: usize) -> Box<dyn Cache> {
    match args.server.get(phase) {
        Some(address) => Box::new(Live::connect(address)),
        None => Box::new(InProcess::new(args)),
    }
}

/// Hit ratios, second by second.
#[derive(Default)]
struct Played {
    shifted: Vec<f64>,
    /// Empty in the first phase, where the shifted one is fresh itself.
    fresh: Vec<f64>,
    keys: u64,
    /// Seconds by the wall that a live phase took.
    took: f64,
    /// Sets that the shifted cache refused.
    refused: u32,
}

fn keys_of(args: &Args, phase: usize) -> u64 {
    let item = args.values[phase] as u64 + BESIDE_VALUE;
    ((args.megabytes << 20) as f64 / item as f64 * args.spread) as u64
}

/// One phase, both caches asked for the same keys in the same order.
fn play(
    args: &Args,
    phase: usize,
    shifted: &mut dyn Cache,
    mut fresh: Option<&mut Box<dyn Cache>>,
) -> Played {
    let keys = keys_of(args, phase);
    let mut zipf = Zipf::new(keys, args.zipf, phase as u64 + 1);
    let value = vec![b'v'; args.values[phase]];
    let mut played = Played { keys, ..Played::default() };
    let began = Instant::now();
    for second in 0..args.phase {
        let (mut left, mut hits, mut fresh_hits) = (args.rate, 0, 0);
        while left > 0 {
            let batch: Vec<Name> = (0..left.min(BATCH)).map(|_| name(phase, zipf.draw())).collect();
            left -= batch.len() as u32;
            hits += shifted.look_aside(&batch, &value);
            if let Some(fresh) = &mut fresh {
                fresh_hits += fresh.look_aside(&batch, &value);
            }
        }
        played.shifted.push(f64::from(hits) / f64::from(args.rate));
        if fresh.is_some() {
            played.fresh.push(f64::from(fresh_hits) / f64::from(args.rate));
        }
        if !args.server.is_empty() {
            let due = Duration::from_secs(u64::from(second) + 1);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
    played.took = began.elapsed().as_secs_f64();
    played.refused = shifted.refused();
    played
}

impl Played {
    /// Seconds until the shifted cache is at [`RECOVERED`] of the fresh one and stays there;
    /// `None`: not in this phase.
    fn recovery(&self) -> Option<usize> {
        let below = |(shifted, fresh): (&f64, &f64)| *shifted < RECOVERED * fresh;
        let last = self.shifted.iter().zip(&self.fresh).rposition(below);
        let seconds = last.map_or(0, |last| last + 1);
        (seconds < self.shifted.len()).then_some(seconds)
    }

    /// Seconds until `ratios` are at [`RECOVERED`] of where the fresh cache ends.
    fn settled(&self, ratios: &[f64]) -> String {
        let goal = RECOVERED * self.fresh.last().copied().unwrap_or_default();
        match ratios.iter().position(|ratio| *ratio >= goal) {
            Some(second) => format!("{second} s"),
            None => "never".into(),
        }
    }

    fn print(&self, args: &Args, phase: usize) {
        let at = |second: usize| match self.fresh.get(second) {
            Some(fresh) => format!("{:.3} / {fresh:.3}", self.shifted[second]),
            None => format!("{:.3}        ", self.shifted[second]),
        };
        let last = self.shifted.len() - 1;
        print!("{:>6} {:>8}", args.values[phase], self.keys);
        for second in [0, args.phase.div_ceil(4) as usize - 1, last / 2, last] {
            print!(" {}", at(second));
        }
        match self.recovery() {
            _ if self.fresh.is_empty() => println!("  (fresh itself)"),
            Some(seconds) => print!("  {seconds} s"),
            None => print!("  never"),
        }
        if !self.fresh.is_empty() {
            let (shifted, fresh) = (self.settled(&self.shifted), self.settled(&self.fresh));
            println!(" (of where it ends: {shifted}, itself {fresh})");
        }
        if !args.server.is_empty() && self.took > f64::from(args.phase) * 1.02 {
            println!("       the rate was not held: the phase took {:.0} s", self.took);
        }
        if self.refused > 0 {
            println!("       the shifted one refused {} sets", self.refused);
        }
        if args.verbose {
            (0..=last).for_each(|second| println!("{:>6} {}", second + 1, at(second)));
        }
    }

    /// # Panics
    /// Where the figures cannot be those of a cache.
    fn check(&self, phase: usize) {
        for ratios in [&self.shifted, &self.fresh] {
            assert!(ratios.iter().all(|r| (0.0..1.0).contains(r)), "phase {phase}: {ratios:?}");
        }
        assert!(self.shifted.iter().any(|r| *r > 0.0), "phase {phase}: nothing ever hit");
        let fresh = if self.fresh.is_empty() { &self.shifted } else { &self.fresh };
        assert!(fresh.last().is_some_and(|r| *r > 0.4), "phase {phase}: {fresh:?}");
    }
}

/// What is asked.
trait Cache {
    /// A get of each key, and where it misses a set; how many hit.
    fn look_aside(&mut self, keys: &[Name], value: &[u8]) -> u32;

    /// Sets that it had no memory for, since this was last asked.
    fn refused(&mut self) -> u32;
}

/// A store with a clock that its requests move.
struct InProcess {
    store: Arc<Store>,
    local: Local,
    /// Time of one request, and since the start, nanoseconds.
    step: u64,
    now: u64,
    /// When upkeep wants its next tick.
    tick_at: u64,
    refused: u32,
}

impl InProcess {
    fn new(args: &Args) -> InProcess {
        let layout = if args.layout == "memcached" { Layout::Memcached } else { Layout::Compact };
        let maxbytes = args.megabytes << 20;
        let settings = Settings { maxbytes, layout, ..Settings::default() };
        let store = Store::new(Arc::new(settings), Arc::new(Clock::manual(START)));
        let store = store.expect("a store");
        let step = 1_000_000_000 / u64::from(args.rate);
        InProcess { local: store.local(), store, step, now: 0, tick_at: 0, refused: 0 }
    }

    /// Lets the time of one request go by.
    fn pass(&mut self) {
        let second = |nanos: u64| nanos / 1_000_000_000;
        let before = second(self.now);
        self.now += self.step;
        if second(self.now) > before {
            self.store.clock().advance(1);
        }
        while self.tick_at <= self.now {
            self.tick_at += match self.store.tick(&self.local) {
                Pace::Rest => TICK_REST,
                Pace::Spare => TICK * 100 / u64::from(self.store.settings().bg_cpu_pct),
                Pace::Soon => TICK_SOON,
                Pace::Urgent => TICK_URGENT,
            };
        }
    }
}

impl Cache for InProcess {
    fn look_aside(&mut self, keys: &[Name], value: &[u8]) -> u32 {
        let mut hits = 0;
        for name in keys {
            let key = Key::new(name).expect("20 bytes");
            let hash = self.store.hash(key);
            if self.store.get(&self.local, &Get::of(key), hash, |_| ()) {
                hits += 1;
            } else {
                let set = Set::of(key, value.len() as u32);
                let stored = self.store.set(&self.local, &set, hash, value);
                self.refused += u32::from(!matches!(stored, Ok(Outcome::Stored { .. })));
            }
            self.pass();
        }
        hits
    }

    fn refused(&mut self) -> u32 {
        std::mem::take(&mut self.refused)
    }
}

/// A connection to a server that speaks memcached's text protocol.
struct Live {
    input: BufReader<TcpStream>,
    output: TcpStream,
    line: Vec<u8>,
    skipped: Vec<u8>,
    requests: Vec<u8>,
    refused: u32,
}

impl Live {
    fn connect(address: &str) -> Live {
        let output = TcpStream::connect(address).expect("a server");
        output.set_nodelay(true).expect("a socket");
        let input = BufReader::with_capacity(1 << 20, output.try_clone().expect("a socket"));
        let (line, skipped, requests) = Default::default();
        Live { input, output, line, skipped, requests, refused: 0 }
    }

    fn send(&mut self) {
        self.output.write_all(&self.requests).expect("a server that reads");
        self.requests.clear();
    }

    fn read_line(&mut self) {
        self.line.clear();
        self.input.read_until(b'\n', &mut self.line).expect("an answer");
    }

    /// The answer to a get of a value of `len` bytes: true for a hit.
    fn read_get(&mut self, len: usize) -> bool {
        self.read_line();
        let hit = self.line.starts_with(b"VALUE ");
        if hit {
            self.skipped.resize(len + 2, 0);
            self.input.read_exact(&mut self.skipped).expect("a value");
            self.read_line();
        }
        assert!(self.line == b"END\r\n", "{:?}", String::from_utf8_lossy(&self.line));
        hit
    }
}

impl Cache for Live {
    fn look_aside(&mut self, keys: &[Name], value: &[u8]) -> u32 {
        for key in keys {
            self.requests.extend_from_slice(&[b"get ", &key[..], b"\r\n"].concat());
        }
        self.send();
        let hits: Vec<bool> = keys.iter().map(|_| self.read_get(value.len())).collect();
        let head = format!(" 0 0 {}\r\n", value.len());
        let missed = || keys.iter().zip(&hits).filter(|(_, hit)| !**hit).map(|(key, _)| key);
        for key in missed() {
            let set = [b"set ", &key[..], head.as_bytes(), value, b"\r\n"].concat();
            self.requests.extend_from_slice(&set);
        }
        self.send();
        for _ in missed() {
            self.read_line();
            self.refused += u32::from(self.line != b"STORED\r\n");
        }
        hits.iter().filter(|hit| **hit).count() as u32
    }

    fn refused(&mut self) -> u32 {
        std::mem::take(&mut self.refused)
    }
}

/// Key number `rank` of a phase: 20 digits.
fn name(phase: usize, rank: u64) -> Name {
    let number = 10_000_000_000_000_000_000 + phase as u64 * 1_000_000_000_000_000 + rank;
    let mut digits = itoa::Buffer::new();
    digits.format(number).as_bytes().try_into().expect("20 digits")
}
