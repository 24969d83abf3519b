//! Two threads on one hot key beside the same two threads on a key each, in process: what they
//! take from each other by wanting the same. Gets only, and gets with some sets.
//!
//! Each thread has a processor of its own where there are two. The two cases are measured in turn.
//! How far those processors are from each other, which a virtual machine's host may change at any
//! time, decides what sets cost: it is measured before and after each mix.

#[path = "common/harness.rs"]
mod harness;
#[path = "common/mod.rs"]
mod items;
#[path = "live/process.rs"]
mod process;

use clap::Parser;
use divan::black_box;
use harness::Harness;
use items::{Bench, VALUE, key, name, plain_get, set};
use process::{median, pin_thread};
use rustcached::store::Store;
use std::hint::spin_loop;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

const THREADS: u32 = 2;
const ITEMS: usize = 100_000;
const MEGABYTES: u64 = 64;
/// Between the numbers of two keys: their items lie far apart, too.
const APART: usize = 10_007;
/// Requests between two looks at whether to go on.
const TURN: u32 = 100;
/// How long a cache line goes there and back.
const TRIPS: Duration = Duration::from_millis(20);

#[derive(Parser)]
#[command(about = "Two threads on one key beside two threads on two")]
struct Args {
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// Exit with status 1 where one key has less than so many times the operations of two: of gets
    /// only, and of gets with sets
    #[arg(long, value_delimiter = ',', num_args = 2)]
    require: Vec<f64>,
    #[command(flatten)]
    harness: Harness,
}

/// How many of a hundred requests are sets.
const MIXES: [(&str, u32); 2] = [("gets", 0), ("95/5", 5)];

fn main() -> ExitCode {
    let mut args = Args::parse();
    if !args.harness.wants("contention") {
        return ExitCode::SUCCESS;
    }
    let smoke = args.harness.smoke();
    if smoke {
        args = Args { rounds: 1, seconds: 0.01, require: Vec::new(), ..args };
    }
    println!(
        "{:<6} {:>14} {:>14} {:>8}  line there and back, ns",
        "mix", "one key, ops/s", "two keys", "one/two"
    );
    let length = Duration::from_secs_f64(args.seconds);
    let mut holds = true;
    for (at, (mix, sets)) in MIXES.into_iter().enumerate() {
        let before = round_trip();
        let rounds: Vec<[f64; 2]> = (0..args.rounds)
            .map(|round| [0, APART].map(|apart| measure(round, apart, sets, length)))
            .collect();
        let [one, two] = [0, 1].map(|case| median(rounds.iter().map(|round| round[case])));
        let ratio = median(rounds.iter().map(|[one, two]| one / two));
        let after = round_trip();
        println!("{mix:<6} {one:>14.0} {two:>14.0} {ratio:>8.2}  {before:.0}, {after:.0}");
        holds &= args.require.get(at).is_none_or(|required| ratio >= *required);
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Nanoseconds that a cache line takes to the other processor and back.
fn round_trip() -> f64 {
    let (line, over) = (Line::default(), AtomicBool::new(false));
    let together = Barrier::new(THREADS as usize + 1);
    let pass_on = |thread: u32| {
        pin(thread);
        together.wait();
        for mine in (thread..).step_by(THREADS as usize) {
            while line.0.load(Relaxed) != mine {
                if over.load(Relaxed) {
                    return;
                }
                spin_loop();
            }
            line.0.store(mine + 1, Relaxed);
        }
    };
    let took = thread::scope(|scope| {
        (0..THREADS).for_each(|n| _ = scope.spawn(move || pass_on(n)));
        together.wait();
        let start = Instant::now();
        thread::sleep(TRIPS);
        over.store(true, Relaxed);
        start.elapsed()
    });
    took.as_nanos() as f64 * f64::from(THREADS) / f64::from(line.0.into_inner().max(1))
}

/// What shares no cache line with anything else, nor a pair of them.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU32);

/// Gives this thread the processor of its number.
fn pin(thread: u32) {
    pin_thread(nix::unistd::gettid().as_raw().cast_unsigned(), thread);
}

/// Operations per second of all threads, whose keys are so far `apart`. Each round has a store, a
/// seed of its hash and keys of its own.
fn measure(round: usize, apart: usize, sets: u32, length: Duration) -> f64 {
    let bench = Bench::new(MEGABYTES, ITEMS);
    let (over, together) = (AtomicBool::new(false), Barrier::new(THREADS as usize + 1));
    thread::scope(|scope| {
        let run = |thread: u32| {
            let key = (round + 1) * 17 + thread as usize * apart;
            let (store, over, together) = (&bench.store, &over, &together);
            scope.spawn(move || {
                pin(thread);
                together.wait();
                ask(store, key, sets, over)
            })
        };
        let threads: Vec<_> = (0..THREADS).map(run).collect();
        together.wait();
        let start = Instant::now();
        thread::sleep(length);
        over.store(true, Relaxed);
        let took = start.elapsed().as_secs_f64();
        let done = threads.into_iter().map(|thread| thread.join().expect("a thread"));
        done.sum::<u64>() as f64 / took
    })
}

/// How many requests were answered until it was over.
fn ask(store: &Arc<Store>, n: usize, sets: u32, over: &AtomicBool) -> u64 {
    let local = store.local();
    let name = name(n);
    let key = key(&name);
    let mut out = Vec::with_capacity(256);
    let mut done = 0;
    while !over.load(Relaxed) {
        for turn in 0..TURN {
            // As in a server, the hash is part of a request.
            let hash = store.hash(black_box(key));
            if turn * sets % TURN < sets {
                set(store, &local, key, hash, &VALUE);
                continue;
            }
            let hit = store.get(&local, &plain_get(key), hash, |hit| {
                out.clear();
                hit.copy_value(&mut out);
            });
            assert!(hit, "a key that is not there");
            black_box(&out);
        }
        done += u64::from(TURN);
    }
    done
}
