//! How long the slowest requests wait while the server has other things to do: its index grows,
//! pages move, a crawl runs, everything is flushed.
//!
//! The load is that of `mix1`: 50 connections, one request in flight each, a tenth of them sets.
//! The server has processor 0, the client processor 1. A second client makes the server do those
//! things, which takes of the server's processor by itself; so what the load waits beside it is
//! compared with the waits beside a second client that asks as often for something that sets
//! nothing off. The two take turns of a second, each with a server of its own, so that good and bad
//! moments of the machine come to both alike.

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
use nix::sys::signal::Signal;
use process::{median, pin};
use side::{Script, Side, VALUE};
use std::fmt::Debug;
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
/// Of a phase in one piece; that without a second client has a fourth of it.
const TURN: Duration = Duration::from_secs(1);
/// A request that does nothing.
const NOTHING: &str = "mn\r\n";

#[derive(Parser)]
#[command(about = "The slowest requests, while the server has other things to do")]
struct Args {
    #[arg(long, value_delimiter = ',', default_value = "control,grow,pages,crawl,flush")]
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
    /// Exit with status 1 where a p99.9* is more than so many times the quiet one
    #[arg(long)]
    require: Option<f64>,
    #[command(flatten)]
    harness: Harness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// The loaded phase is as the quiet one: what the machine makes of that by itself.
    Control,
    Grow,
    Pages,
    Crawl,
    Flush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No second client.
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
/// of a request that was too long and how many there were.
const COUNTED: [&str; 4] =
    ["upkeep_longest_us", "upkeep_over_500us", "lock_wait_longest_us", "lock_waits_over_500us"];

/// What one phase of one round came to.
#[derive(Default)]
struct Measured {
    ops: u64,
    took: Duration,
    /// In microseconds, while the phase is under way: of all requests, and of those in which the
    /// client was not held up itself.
    waits: [Vec<f32>; 2],
    /// The wait that so many of all, [`SHARES`], are not above, once it has ended; and that of
    /// [`P999`] of the others.
    shares: [f64; SHARES.len()],
    undisturbed: f64,
    /// How many of a hundred requests were held up.
    held_up: f64,
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
        self.waits[0].extend(figures.tally.waits);
        self.waits[1].extend(figures.tally.undisturbed);
        let [longest_tick, long_ticks, longest_wait, long_waits] = &mut self.counted;
        // What is not a number stays so.
        let longer = |a: f64, b: f64| if a > b { a } else { b };
        *longest_tick = longer(*longest_tick, tick);
        *long_ticks += ticks;
        *longest_wait = longer(*longest_wait, wait);
        *long_waits += waits;
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
    print_head();
    let mut holds = true;
    for &case in &args.cases {
        let round = |_| round(case, &args).expect("answers");
        let rounds: Vec<Vec<Measured>> = (0..args.rounds).map(round).collect();
        let worst = print(case, &rounds);
        holds &= args.require.is_none_or(|most| worst <= most);
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_head() {
    print!("{:<7} {:<6} {:>7}", "case", "phase", "ops/s");
    for column in ["p50 us", "p99", "p99.9", "p99.99", "of quiet", "held %", "p99.9*", "of quiet"] {
        print!(" {column:>8}");
    }
    for column in ["beside/s", "refused", "tick us", ">500", "lock us", ">500"] {
        print!(" {column:>8}");
    }
    println!();
}

/// The ratio of the loaded p99.9 to the quiet one, of requests that were not held up.
fn print(case: Case, rounds: &[Vec<Measured>]) -> f64 {
    // Of a phase, and in times of the quiet one's.
    let of = |at: usize, figure: &dyn Fn(&Measured) -> f64| {
        median(rounds.iter().map(|round| figure(&round[at])))
    };
    let of_quiet = |at: usize, figure: &dyn Fn(&Measured) -> f64| {
        median(rounds.iter().map(|round| figure(&round[at]) / figure(&round[1])))
    };
    for (at, phase) in PHASES.iter().enumerate() {
        let name = |name: &dyn Debug| format!("{name:?}").to_lowercase();
        print!("{:<7} {:<6}", name(&case), name(phase));
        print!(" {:>7.0}", of(at, &|m| m.per_second(m.ops)));
        (0..SHARES.len()).for_each(|share| print!(" {:>8.0}", of(at, &|m| m.shares[share])));
        print!(" {:>8.2}", of_quiet(at, &|m| m.shares[P999]));
        print!(" {:>8.3}", of(at, &|m| m.held_up));
        print!(" {:>8.0} {:>8.2}", of(at, &|m| m.undisturbed), of_quiet(at, &|m| m.undisturbed));
        (0..2).for_each(|which| print!(" {:>8.0}", of(at, &|m| m.per_second(m.beside[which]))));
        for which in 0..COUNTED.len() {
            let most = rounds.iter().map(|round| round[at].counted[which]).fold(f64::NAN, f64::max);
            print!(" {most:>8.0}");
        }
        println!();
    }
    of_quiet(2, &|m| m.undisturbed)
}

/// The phases of a case by turns, each with a fresh server.
fn round(case: Case, args: &Args) -> Result<Vec<Measured>> {
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
    let draws = Draws::new(&load);
    let parts = PHASES.map(|phase| Part::start(phase, case, args, (&load, &draws)));
    let mut parts = parts.into_iter().collect::<Result<Vec<Part>>>()?;
    let length = if args.harness.smoke() { TURN / 20 } else { TURN };
    for turns in 1.. {
        let mut goes_on = true;
        for (part, phase) in parts.iter_mut().zip(PHASES) {
            let length = if phase == Phase::Alone { length / 4 } else { length };
            goes_on = part.turn(length)?;
        }
        let ended = match case {
            Case::Grow => !goes_on,
            _ => turns >= args.seconds,
        };
        if ended {
            break;
        }
    }
    Ok(parts.into_iter().map(Part::end).collect())
}

/// One phase of a round. Its server is stopped while others have their turn, so that it does
/// nothing in their time and no work of its own is done when nobody looks.
struct Part<'a> {
    server: Server,
    clients: Clients<'a>,
    side: Option<Side>,
    measured: Measured,
}

impl<'a> Part<'a> {
    /// Starts a server, and stores what the case needs.
    fn start(
        phase: Phase,
        case: Case,
        args: &Args,
        (load, draws): (&Load, &'a Draws),
    ) -> Result<Part<'a>> {
        let server = Server::start_binary(&server_path(), &["-t", "1", "-m", "2048"]);
        if !args.harness.smoke() {
            pin(server.pid(), 0);
        }
        fill(server.port, load)?;
        let (keys, value) = match case {
            Case::Control | Case::Grow => (PLAIN_KEYS, VALUE),
            Case::Pages => (WIDE_KEYS, WIDE_VALUE),
            Case::Crawl | Case::Flush => (MANY_KEYS, VALUE),
        };
        let keys = keys.min(args.items);
        let all = Script::Sets { keys, value, once: true, flush_every: None };
        Side::new(server.port, all, Duration::ZERO)?.finish()?;
        let side = match phase {
            Phase::Alone => None,
            _ => Some(second_client(&server, phase, case, (keys, args))?),
        };
        let clients = Clients::open(server.port, load, draws)?;
        server.signal(Signal::SIGSTOP);
        Ok(Part { server, clients, side, measured: Measured::default() })
    }

    /// One turn; false where the second client has done all it had to.
    fn turn(&mut self, length: Duration) -> Result<bool> {
        self.server.signal(Signal::SIGCONT);
        let mut teller = self.server.connect();
        teller.send(b"stats reset\r\n");
        assert_eq!(teller.line(), "RESET");
        let mut goes_on = true;
        let beside = || {
            goes_on = self.side.as_mut().map_or(Ok(true), Side::turn)?;
            Ok(goes_on)
        };
        let figures = measure(&mut self.clients, self.server.pid(), length, beside)?;
        self.measured.add(figures, counted(&mut teller));
        self.server.signal(Signal::SIGSTOP);
        Ok(goes_on)
    }

    /// All turns were taken.
    fn end(mut self) -> Measured {
        let [mut all, mut undisturbed] = std::mem::take(&mut self.measured.waits);
        Measured {
            shares: percentiles(&mut all, SHARES),
            undisturbed: percentiles(&mut undisturbed, [SHARES[P999]])[0],
            held_up: 100.0 - undisturbed.len() as f64 * 100.0 / all.len() as f64,
            beside: self.side.map_or([0; 2], |side| [side.done, side.refused]),
            ..self.measured
        }
    }
}

/// `keys`: of those that it sets.
fn second_client(
    server: &Server,
    phase: Phase,
    case: Case,
    (keys, args): (u64, &Args),
) -> Result<Side> {
    let (port, rate) = (server.port, args.rate);
    let loaded = phase == Phase::Loaded;
    let sets = |keys, once, flush_every| {
        let script = Script::Sets { keys, value: VALUE, once, flush_every };
        Side::setter(port, script, rate)
    };
    let lines = |lines: Vec<String>, pause| {
        let lines = if loaded { lines } else { vec![NOTHING.into()] };
        Side::new(port, Script::Lines(lines), pause)
    };
    match case {
        Case::Grow if loaded => sets(args.items, true, None),
        Case::Control | Case::Grow => sets(keys, false, None),
        // Twice a second.
        Case::Flush => sets(keys, false, loaded.then_some(rate / 2)),
        Case::Crawl => lines(vec!["lru_crawler crawl all\r\n".into()], CRAWL_PAUSE),
        Case::Pages => {
            let [a, b] = largest_classes(server);
            let moves = [(a, b), (b, a)];
            let moves = moves.map(|(from, to)| format!("slabs reassign {from} {to}\r\n"));
            lines(moves.into(), MOVE_PAUSE)
        }
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
