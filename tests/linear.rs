//! Linearizability of every key: clients that share keys record what they asked, what they were
//! answered and when, and a checker looks for an order that explains it all, while pages move,
//! items are evicted, and the index grows and shrinks.
//!
//! `LINEAR_OPS` sets how many operations each test records (by default a quick run's),
//! `LINEAR_SEED` repeats a run's requests; what the threads make of them is never the same twice.
//! The long form: `LINEAR_OPS=2000000 cargo test --release --test linear -- --nocapture`,
//! which is 12 million in all.

#[path = "linear/broken.rs"]
mod broken;
#[path = "linear/check.rs"]
mod check;
#[path = "linear/clients.rs"]
mod clients;
mod common;
#[path = "linear/direct.rs"]
mod direct;
#[path = "linear/history.rs"]
mod history;
#[path = "linear/sockets.rs"]
mod sockets;
#[path = "linear/spec.rs"]
mod spec;
#[path = "linear/trouble.rs"]
mod trouble;

use check::{Checker, Violation};
use clients::{Client, KEYS, Port};
use common::{Random, Server};
use direct::Thread;
use history::{Record, Stopwatch};
use rustcached::clock::Clock;
use rustcached::config::{Layout, Settings};
use rustcached::store::Store;
use sockets::Socket;
use spec::Rules;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::scope;
use trouble::Sizes;

/// Clients at once.
const CLIENTS: u8 = 6;
/// Operations that each records before they are checked.
const EPISODE: usize = 5_000;
const QUICK_OPS: usize = 30_000;
/// Times as many are recorded at the most, where no page will move.
const LONGEST: usize = 10;

/// One test: how many operations of which run.
struct Run {
    name: &'static str,
    seed: u64,
    ops: usize,
    rules: Rules,
}

impl Run {
    fn of(name: &'static str, rules: Rules) -> Run {
        let seed = Random::seed_from("LINEAR_SEED");
        let ops = std::env::var("LINEAR_OPS").ok().and_then(|n| n.parse().ok());
        Run { name, seed, ops: ops.unwrap_or(QUICK_OPS), rules }
    }

    /// Records and checks until there is enough, and until a page has moved.
    fn go<P: Port + Send>(&self, ports: Vec<P>, moved: impl Fn() -> u64) {
        let watch = Stopwatch::start();
        let mut checkers: Vec<Checker> = (0..KEYS).map(|_| Checker::new(self.rules)).collect();
        let mut clients: Vec<Client<P>> =
            (0..).zip(ports).map(|(n, port)| Client::new(port, n, self.seed)).collect();
        let mut recorded = 0;
        while recorded < self.ops || (moved() == 0 && recorded < LONGEST * self.ops) {
            let records = scope(|threads| {
                let work = |client| threads.spawn(move || Client::work(client, EPISODE, watch));
                let workers: Vec<_> = clients.iter_mut().map(work).collect();
                let join = |worker: std::thread::ScopedJoinHandle<'_, Vec<Record>>| {
                    worker.join().expect("a client got through")
                };
                workers.into_iter().flat_map(join).collect::<Vec<Record>>()
            });
            recorded += records.len();
            if let Err(Violation(why)) = check_all(&mut checkers, records) {
                panic!("{}, LINEAR_SEED={}: {why}", self.name, self.seed);
            }
        }
        println!("{}: {recorded} operations, no violation", self.name);
    }

    /// Says what went on beside it, which is not to be nothing.
    fn tell(&self, moved: u64, evicted: u64, sizes: &Sizes) {
        let Sizes { grown, shrunk, .. } = sizes;
        println!(
            "{}: {moved} pages moved, {evicted} items evicted, the index {grown} times larger, \
             {shrunk} times smaller",
            self.name
        );
        assert!(moved > 0 && *grown > 0, "nothing went on");
        assert_eq!(evicted > 0, self.rules.evicts);
    }
}

fn check_all(checkers: &mut [Checker], records: Vec<Record>) -> Result<(), Violation> {
    let mut by_key: Vec<Vec<Record>> = (0..KEYS).map(|_| Vec::new()).collect();
    for record in records {
        by_key[usize::from(record.key)].push(record);
    }
    checkers.iter_mut().zip(by_key).try_for_each(|(checker, records)| checker.check(&records))
}

/// What goes on until it is told to stop.
type Trouble<'a> = Box<dyn FnOnce(&AtomicBool) + Send + 'a>;

/// Runs beside the others until told to stop; the others are told so also where a check fails.
fn beside<T: Send>(
    troubles: Vec<Trouble<'_>>,
    measure: impl FnOnce(&AtomicBool) -> T + Send,
    go: impl FnOnce(),
) -> T {
    let stop = &AtomicBool::new(false);
    scope(|threads| {
        let end = Stop(stop);
        for trouble in troubles {
            threads.spawn(move || trouble(stop));
        }
        let measured = threads.spawn(move || measure(stop));
        go();
        drop(end);
        measured.join().expect("figures")
    })
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Over sockets to a server that `args` make, with the limits that it is given in MB.
fn over_sockets(run: &Run, args: &[&str], limits: &[u32]) {
    let server = Server::start(&[args, &["-t", "3", "-o", "hashpower=12"]].concat());
    let ports = (0..CLIENTS).map(|_| Socket(server.connect())).collect();
    let random = Random::new(run.seed);
    let figure = |name| server.stat(name).expect("a figure");
    let sizes = beside(
        vec![
            Box::new(|stop| trouble::fill(&server, stop)),
            Box::new(|stop| trouble::operate(&server, limits, stop, random)),
        ],
        |stop| trouble::measure(&server, stop),
        || run.go(ports, || figure("slabs_moved")),
    );
    run.tell(figure("slabs_moved"), figure("evictions"), &sizes);
}

#[test]
fn clients_of_a_server_that_evicts() {
    let run = Run::of("sockets, evicting", Rules { evicts: true });
    over_sockets(&run, &["-m", "8"], &[8, 10, 24]);
}

#[test]
fn clients_of_a_server_that_keeps_all() {
    let run = Run::of("sockets, keeping", Rules { evicts: false });
    over_sockets(&run, &["-m", "256", "-M"], &[]);
}

#[test]
fn clients_of_a_server_with_memcacheds_layout() {
    let run = Run::of("sockets, memcached's layout", Rules { evicts: true });
    over_sockets(&run, &["-m", "16", "-o", "layout=memcached"], &[16, 20, 40]);
}

/// Threads of this process on one store.
fn in_process(run: &Run, settings: Settings) {
    let settings = Settings { hashpower_init: 11, ..settings };
    let clock = Arc::new(Clock::manual(1_700_000_000));
    let store = Store::new(Arc::new(settings), clock).expect("a store");
    let ports = (0..CLIENTS).map(|_| Thread::of(&store)).collect();
    let counters = store.stats();
    let (mut filler, mut keeper) = (Thread::of(&store), Thread::of(&store));
    let random = Random::new(run.seed);
    let sizes = beside(
        vec![Box::new(|stop| trouble::fill_store(&mut filler, stop))],
        |stop| trouble::keep(&mut keeper, stop, random),
        || run.go(ports, || counters.moves.slabs_moved.load(Relaxed)),
    );
    store.validate().expect("a sound store");
    let evicted = counters.raw_evictions().iter().sum();
    run.tell(counters.moves.slabs_moved.load(Relaxed), evicted, &sizes);
}

#[test]
fn threads_on_a_store_that_evicts() {
    let run = Run::of("threads, evicting", Rules { evicts: true });
    in_process(&run, Settings { maxbytes: 8 << 20, ..Settings::default() });
}

#[test]
fn threads_on_a_store_that_keeps_all() {
    let run = Run::of("threads, keeping", Rules { evicts: false });
    in_process(&run, Settings { maxbytes: 256 << 20, evict: false, ..Settings::default() });
}

#[test]
fn threads_on_a_store_with_memcacheds_layout() {
    let run = Run::of("threads, memcached's layout", Rules { evicts: true });
    let layout = Layout::Memcached;
    in_process(&run, Settings { maxbytes: 32 << 20, layout, ..Settings::default() });
}
