//! How long the slowest requests wait while the server has other things to do: its index grows,
//! pages move, a crawl runs, everything is flushed.
//!
//! The load is that of `mix1`: 50 connections, one request in flight each, a tenth of them sets.
//! The server has processor 0, the client processor 1. A second client makes the server do those
//! things, which takes of the server's processor by itself; so what the load waits beside it is
//! compared with the waits beside a second client that asks as often for something that sets
//! nothing off. The two take turns of a second, so that good and bad moments of the machine come to
//! both alike.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../common/harness.rs"]
mod harness;
#[path = "../live/mod.rs"]
mod live;
#[path = "../live/process.rs"]
mod process;
mod side;
#[path = "../common/zipf.rs"]
mod zipf;

use clap::{Parser, ValueEnum};
use common::{Client, Server, server_path};
use harness::Harness;
use live::{Clients, Draws, Figures, Load, Protocol, fill, measure, percentiles};
use process::{median, pin};
use side::{Script, Side, VALUE};
use std::io::Result;
use std::process::ExitCode;
use std::time::Duration;

/// Of the load: as few items as the index has room for before it grows.
const KEYS: u64 = 50_000;
/// Keys that the second client sets again and again where it is to change nothing.
const PLAIN_KEYS: u64 = 10_000;
/// Items that are crawled and flushed, and those of the class that pages move to and from.
const MANY_KEYS: u64 = 2_000_000;
const WIDE_KEYS: u64 = 50_000;
const WIDE_VALUE: usize = 1_000;
/// Between two moves of pages, and two crawls.
const MOVE_PAUSE: Duration = Duration::from_millis(5);
const CRAWL_PAUSE: Duration = Duration::from_millis(20);
/// Of a phase in one piece; the first of the three phases is a fourth of the others.
const TURN: Duration = Duration::from_secs(1);
/// A request that does nothing.
const NOTHING: &str = "mn\r\n";

#[derive(Parser)]
#[command(about = "The slowest requests, while the server has other things to do")]
struct Args {
    #[arg(long, value_delimiter = ',', default_value = "grow,pages,crawl,flush")]
    cases: Vec<Case>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of a phase, in whole turns; growing takes as long as it takes
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Items that the index grows to
    #[arg(long, default_value_t = 10_000_000)]
    items: u64,
    /// Sets of the second client in a second, where it sets
    #[arg(long, default_value_t = 200_000)]
    rate: u64,
    /// Exit with status 1 where a p99.9 is more than so many times the quiet one
    #[arg(long)]
    require: Option<f64>,
    #[command(flatten)]
    harness: Harness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    Grow,
    Pages,
    Crawl,
    Flush,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// No second client. What the loaded one before it has left over is done here.
    Alone,
    /// One that sets nothing off.
    Quiet,
    Loaded,
}

const PHASES: [Phase; 3] = [Phase::Alone, Phase::Quiet, Phase::Loaded];
const SHARES: [f64; 4] = [0.5, 0.99, 0.999, 0.9999];
/// Which of them is compared.
const P999: usize = 2;

/// Of `stats automover`: the longest tick and how many were too long, the longest wait for a lock
/// that was too long and how many there were.
const COUNTED: [&str; 4] =
    ["upkeep_longest_us", "upkeep_over_500us", "lock_wait_longest_us", "lock_waits_over_500us"];

/// What one phase of one round came to.
#[derive(Default)]
struct Measured {
    ops: u64,
    took: Duration,
    /// In microseconds, until the phase has ended.
    waits: Vec<f32>,
    /// The wait that so many of all, [`SHARES`], are not above, from then on.
    shares: [f64; SHARES.len()],
    /// What the second client had done, and refused.
    beside: [u64; 2],
    /// What the server counted meanwhile, as [`COUNTED`]; not a number where it counts no such
    /// thing.
    counted: [f64; COUNTED.len()],
}

impl Measured {
    fn add(&mut self, figures: Figures, [tick, ticks, wait, waits]: [f64; COUNTED.len()]) {
        self.ops += figures.tally.done();
        self.took += figures.took;
        self.waits.extend(figures.tally.waits);
        let [longest_tick, long_ticks, longest_wait, long_waits] = &mut self.counted;
        // What is not a number stays so.
        let longer = |a: f64, b: f64| if a > b { a } else { b };
        *longest_tick = longer(*longest_tick, tick);
        *long_ticks += ticks;
        *longest_wait = longer(*longest_wait, wait);
        *long_waits += waits;
    }

    /// All turns were taken.
    fn end(&mut self, side: Option<Side>) {
        self.shares = percentiles(&mut std::mem::take(&mut self.waits), SHARES);
        self.beside = side.map_or([0; 2], |side| [side.done, side.refused]);
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.took.as_secs_f64()
    }
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    if !args.harness.wants("tail") {
        return ExitCode::SUCCESS;
    }
    if args.harness.smoke() {
        live::check();
        args = Args { rounds: 1, seconds: 1, items: 2_000, require: None, ..args };
    } else {
        pin(std::process::id(), 1);
    }
    println!(
        "{:<6} {:<7} {:>9} {:>7} {:>7} {:>7} {:>7} {:>9} {:>9} {:>9} {:>7} {:>7} {:>7} {:>7}",
        "case",
        "phase",
        "ops/s",
        "p50 us",
        "p99",
        "p99.9",
        "p99.99",
        "beside/s",
        "refused/s",
        "of quiet",
        "tick us",
        ">500",
        "lock us",
        ">500"
    );
    let mut holds = true;
    for &case in &args.cases {
        let round = |_| Round::start(case, &args).expect("answers").run().expect("answers");
        let rounds: Vec<[Measured; 3]> = (0..args.rounds).map(round).collect();
        let worst = print(case, &rounds);
        holds &= args.require.is_none_or(|most| worst <= most);
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The ratio of the loaded p99.9 to the quiet one.
fn print(case: Case, rounds: &[[Measured; 3]]) -> f64 {
    let of_quiet = |at: usize| {
        median(rounds.iter().map(|round| round[at].shares[P999] / round[1].shares[P999]))
    };
    for (at, phase) in PHASES.iter().enumerate() {
        let of = |figure: &dyn Fn(&Measured) -> f64| {
            median(rounds.iter().map(|round| figure(&round[at])))
        };
        print!(
            "{:<6} {:<7}",
            format!("{case:?}").to_lowercase(),
            format!("{phase:?}").to_lowercase()
        );
        print!(" {:>9.0}", of(&|m| m.per_second(m.ops)));
        (0..SHARES.len()).for_each(|share| print!(" {:>7.0}", of(&|m| m.shares[share])));
        let [done, refused] = [0, 1].map(|which| of(&|m| m.per_second(m.beside[which])));
        print!(" {done:>9.0} {refused:>9.0} {:>9.2}", of_quiet(at));
        for which in 0..COUNTED.len() {
            let most = rounds.iter().map(|round| round[at].counted[which]).fold(f64::NAN, f64::max);
            print!(" {most:>7.0}");
        }
        println!();
    }
    of_quiet(2)
}

/// A server of one case, with what it needs stored.
struct Round<'a> {
    case: Case,
    args: &'a Args,
    server: Server,
    load: Load,
    /// Keys of the second client.
    keys: u64,
    /// Two slab classes with pages, where pages are to move.
    classes: [u32; 2],
}

impl Round<'_> {
    fn start(case: Case, args: &Args) -> Result<Round<'_>> {
        let server = Server::start_binary(&server_path(), &["-t", "1", "-m", "2048"]);
        if !args.harness.smoke() {
            pin(server.pid(), 0);
        }
        let load = Load {
            protocol: Protocol::Text,
            connections: 50,
            idle: 0,
            in_flight: 1,
            keys_per_get: 1,
            sets: 10,
            keys: KEYS.min(args.items),
            zipf: 0.99,
            value: 100,
        };
        fill(server.port, &load)?;
        let (keys, value) = match case {
            Case::Grow => (PLAIN_KEYS, VALUE),
            Case::Pages => (WIDE_KEYS, WIDE_VALUE),
            Case::Crawl | Case::Flush => (MANY_KEYS, VALUE),
        };
        let keys = keys.min(args.items);
        let all = Script::Sets { keys, value, once: true, flush_every: None };
        Side::new(server.port, all, Duration::ZERO)?.finish()?;
        let classes = if case == Case::Pages { largest_classes(&server) } else { [0; 2] };
        Ok(Round { case, args, server, load, keys, classes })
    }

    fn run(self) -> Result<[Measured; 3]> {
        let draws = Draws::new(&self.load);
        let mut clients = Clients::open(self.server.port, &self.load, &draws)?;
        let [alone, quiet, loaded] = PHASES.map(|phase| self.second_client(phase));
        let mut sides = [alone?, quiet?, loaded?];
        let mut measured: [Measured; 3] = Default::default();
        for turns in 1.. {
            let mut goes_on = true;
            for ((phase, side), measured) in PHASES.iter().zip(&mut sides).zip(&mut measured) {
                goes_on = self.turn(*phase, side, &mut clients, measured)?;
            }
            let ended = match self.case {
                Case::Grow => !goes_on,
                _ => turns >= self.args.seconds,
            };
            if ended {
                break;
            }
        }
        measured.iter_mut().zip(sides).for_each(|(measured, side)| measured.end(side));
        Ok(measured)
    }

    /// One turn of a phase; false where its second client has done all it had to.
    fn turn(
        &self,
        phase: Phase,
        side: &mut Option<Side>,
        clients: &mut Clients<'_>,
        measured: &mut Measured,
    ) -> Result<bool> {
        let length = if self.args.harness.smoke() { TURN / 20 } else { TURN };
        let length = if let Phase::Alone = phase { length / 4 } else { length };
        let mut teller = self.server.connect();
        teller.send(b"stats reset\r\n");
        assert_eq!(teller.line(), "RESET");
        let mut goes_on = true;
        let beside = || {
            goes_on = side.as_mut().map_or(Ok(true), Side::turn)?;
            Ok(goes_on)
        };
        let figures = measure(clients, self.server.pid(), length, beside)?;
        measured.add(figures, counted(&mut teller));
        Ok(goes_on)
    }

    fn second_client(&self, phase: Phase) -> Result<Option<Side>> {
        let loaded = match phase {
            Phase::Alone => return Ok(None),
            Phase::Quiet => false,
            Phase::Loaded => true,
        };
        let (port, rate, keys) = (self.server.port, self.args.rate, self.keys);
        let sets = |keys, once, flush_every| {
            let script = Script::Sets { keys, value: VALUE, once, flush_every };
            Side::setter(port, script, rate)
        };
        let lines = |lines: Vec<String>, pause| {
            let lines = if loaded { lines } else { vec![NOTHING.into()] };
            Side::new(port, Script::Lines(lines), pause)
        };
        let [a, b] = self.classes;
        let side = match self.case {
            Case::Grow if loaded => sets(self.args.items, true, None),
            Case::Grow => sets(keys, false, None),
            // Twice a second.
            Case::Flush => sets(keys, false, loaded.then_some(rate / 2)),
            Case::Crawl => lines(vec!["lru_crawler crawl all\r\n".into()], CRAWL_PAUSE),
            Case::Pages => {
                let moves = [(a, b), (b, a)];
                let moves = moves.map(|(from, to)| format!("slabs reassign {from} {to}\r\n"));
                lines(moves.into(), MOVE_PAUSE)
            }
        };
        side.map(Some)
    }
}

/// What the server says of a topic, as names and values.
fn stats(client: &mut Client, topic: &str) -> Vec<(String, String)> {
    client.send(format!("stats {topic}\r\n").as_bytes());
    let lines = std::iter::from_fn(|| Some(client.line()).filter(|line| line != "END"));
    let pairs = lines.map(|line| {
        let (name, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
        Some((name.to_owned(), value.to_owned()))
    });
    // A server that does not know the topic says so in a line of its own.
    pairs.map_while(|pair| pair).collect()
}

fn counted(client: &mut Client) -> [f64; COUNTED.len()] {
    let stats = stats(client, "automover");
    COUNTED.map(|name| {
        let stat = stats.iter().find(|(known, _)| known == name);
        stat.map_or(f64::NAN, |(_, value)| value.parse().expect("a number"))
    })
}

/// The two slab classes with the most items.
fn largest_classes(server: &Server) -> [u32; 2] {
    let mut classes = Vec::new();
    for (name, value) in stats(&mut server.connect(), "items") {
        let mut parts = name.split(':');
        if let (Some(class), Some("number")) = (parts.nth(1), parts.next()) {
            let number: u64 = value.parse().expect("a number of items");
            classes.push((number, class.parse().expect("a class")));
        }
    }
    classes.sort_unstable();
    let [.., (_, a), (_, b)] = classes[..] else { panic!("less than two classes with items") };
    [a, b]
}
