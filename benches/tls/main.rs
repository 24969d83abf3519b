//! TLS under load: gets of 50 connections, handshakes, and what a flood of handshakes does to
//! clients without TLS, of our server and of others beside it.
//!
//! All servers run throughout, on processor 0, and are asked in turn, round by round; the client
//! has processor 1.

mod client;
#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../common/harness.rs"]
mod harness;
#[path = "../live/process.rs"]
mod process;

use clap::{Parser, ValueEnum};
use client::{Link, PATIENCE, client_config, socket};
use common::{Server, server_path, temp_dir};
use harness::Harness;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use process::{median, pin, processor_time};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ClientConfig;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Connections of the rows of gets.
const CONNECTIONS: usize = 50;
/// Bytes of a value.
const VALUE: usize = 100;
/// Requests in one write where many are in flight.
const BATCH: usize = 32;
/// Threads that make handshakes, and plain clients beside them.
const GREETED: usize = 8;
const PLAIN: usize = 10;
/// Bytes of the answers to a get of a 16-byte key and to a set.
const FOUND: usize = "VALUE  0 100\r\n".len() + 16 + VALUE + "\r\nEND\r\n".len();
const STORED: usize = "STORED\r\n".len();

#[derive(Parser)]
#[command(about = "Gets over TLS, handshakes, and what they do to others")]
struct Args {
    /// Another server's binary to measure beside ours; may be repeated
    #[arg(long)]
    server: Vec<PathBuf>,
    #[arg(long, value_delimiter = ',', default_value = "get1,get32,handshake")]
    rows: Vec<Row>,
    /// Latency of 10 clients without TLS, with and without a flood of handshakes, in place of rows
    #[arg(long)]
    flood: bool,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// -t of the servers
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Microseconds that a plain client waits between an answer and its next request
    #[arg(long, default_value_t = 500)]
    pause: u64,
    #[command(flatten)]
    harness: Harness,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Row {
    Get1,
    Get32,
    Handshake,
}

fn main() {
    let mut args = Args::parse();
    if !args.harness.wants("tls") {
        return;
    }
    let smoke = args.harness.smoke();
    if smoke {
        args = Args { rounds: 1, seconds: 0.1, keys: 1000, ..args };
    } else {
        pin(std::process::id(), 1);
    }
    let targets = start_all(&args, !smoke);
    if !args.flood || smoke {
        compare(&args, &targets);
    }
    if args.flood || smoke {
        flood(&args, &targets);
    }
}

/// A server, with TLS on one port and without on another.
struct Target {
    name: String,
    server: Server,
    tls: u16,
    plain: u16,
    config: Arc<ClientConfig>,
    keys: u64,
}

fn start_all(args: &Args, pinned: bool) -> Vec<Target> {
    let dir = temp_dir("tls-bench");
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(dir.join("cert.pem"), cert.pem()).expect("a file");
    fs::write(dir.join("key.pem"), signing_key.serialize_pem()).expect("a file");
    let config = Arc::new(client_config());
    let ours = server_path();
    let binaries = std::iter::once(&ours).chain(&args.server);
    let targets = binaries.map(|binary| Target::start(binary, &dir, args, pinned, config.clone()));
    let targets = targets.collect();
    // The servers have read the files, which are ours alone.
    let _ = fs::remove_dir_all(&dir);
    targets
}

impl Target {
    fn start(
        binary: &Path,
        dir: &Path,
        args: &Args,
        pinned: bool,
        config: Arc<ClientConfig>,
    ) -> Target {
        let dir = dir.display();
        let files = format!("ssl_chain_cert={dir}/cert.pem,ssl_key={dir}/key.pem");
        let threads = args.threads.to_string();
        let flags = [
            "-l",
            "notls:127.0.0.1",
            "-Z",
            "-o",
            &files,
            "-m",
            "1024",
            "-c",
            "4096",
            "-t",
            &threads,
        ];
        let server = Server::start_binary(binary, &flags);
        if pinned {
            pin(server.pid(), 0);
        }
        let [tls, plain] = server.ports()[..] else { panic!("two ports") };
        let keys = args.keys;
        let name = binary.display().to_string();
        let target = Target { name, server, tls, plain, config, keys };
        target.load();
        target
    }

    fn link(&self) -> Link {
        Link::open(self.tls, self.config.clone()).expect("a connection with TLS")
    }

    /// Stores all keys.
    fn load(&self) {
        let mut link = self.link();
        let value = "v".repeat(VALUE);
        let keys: Vec<u64> = (0..self.keys).collect();
        for keys in keys.chunks(BATCH) {
            let sets = keys.iter().map(|&n| format!("set {} 0 0 {VALUE}\r\n{value}\r\n", name(n)));
            link.ask(sets.collect::<String>().as_bytes(), keys.len() * STORED).expect("sets");
            assert!(link.collect(b"STORED\r\n").expect("stored values"), "too slow");
        }
    }

    /// Processor time of the server and the kernel for it, so far.
    fn cpu(&self) -> Duration {
        processor_time(self.server.pid())
    }
}

/// The `n`th key: 16 digits.
fn name(n: u64) -> u64 {
    1_000_000_000_000_000 + n
}

/// Lines of gets, made beforehand, that are sent in turn.
fn requests(keys: u64, in_flight: usize) -> impl Iterator<Item = Arc<[u8]>> {
    let mut at = 0;
    let mut line = || {
        at = (at + 1_000_003) % keys;
        format!("get {}\r\n", name(at))
    };
    let batches: Vec<Arc<[u8]>> = (0..4096)
        .map(|_| (0..in_flight).map(|_| line()).collect::<String>().into_bytes().into())
        .collect();
    batches.into_iter().cycle()
}

/// What a row came to: operations per second, and the server's nanoseconds for one.
#[derive(Clone, Copy)]
struct Figures {
    ops: f64,
    cpu: f64,
}

fn measure(row: Row, target: &Target, length: Duration) -> Figures {
    match row {
        Row::Get1 => gets(target, 1, length),
        Row::Get32 => gets(target, BATCH, length),
        Row::Handshake => {
            let (cpu, start) = (target.cpu(), Instant::now());
            let done = AtomicU64::new(0);
            thread::scope(|scope| {
                for _ in 0..GREETED {
                    scope.spawn(|| greet(target, || start.elapsed() < length, &done));
                }
            });
            figures(done.into_inner(), start.elapsed(), target.cpu() - cpu)
        }
    }
}

/// Each connection has its next request out as soon as its answer is read.
fn gets(target: &Target, in_flight: usize, length: Duration) -> Figures {
    let mut requests = requests(target.keys, in_flight);
    let mut ask = |link: &mut Link| {
        let next = requests.next().expect("endless requests");
        link.ask(&next, in_flight * FOUND).expect("a connection that takes requests");
    };
    let mut poll = Poll::new().expect("a poll");
    let mut links: Vec<Link> = (0..CONNECTIONS).map(|_| target.link()).collect();
    for (at, link) in links.iter_mut().enumerate() {
        link.set_nonblocking().expect("a socket that does not block");
        let file = link.as_raw_fd();
        let registered =
            poll.registry().register(&mut SourceFd(&file), Token(at), Interest::READABLE);
        registered.expect("a socket that can be polled");
        ask(link);
    }
    let mut events = Events::with_capacity(CONNECTIONS);
    let (cpu, start, mut done) = (target.cpu(), Instant::now(), 0);
    while start.elapsed() < length {
        poll.poll(&mut events, Some(PATIENCE)).expect("events");
        assert!(!events.is_empty(), "no answers");
        for event in &events {
            let link = &mut links[event.token().0];
            if link.collect(b"END\r\n").expect("values") {
                done += in_flight as u64;
                ask(link);
            }
        }
    }
    figures(done, start.elapsed(), target.cpu() - cpu)
}

fn figures(done: u64, took: Duration, cpu: Duration) -> Figures {
    Figures {
        ops: done as f64 / took.as_secs_f64(),
        cpu: cpu.as_nanos() as f64 / done.max(1) as f64,
    }
}

/// New connections one after the other, each for one get.
fn greet(target: &Target, go_on: impl Fn() -> bool, done: &AtomicU64) {
    let request = format!("get {}\r\n", name(0));
    while go_on() {
        let mut link = target.link();
        link.ask(request.as_bytes(), FOUND).expect("a connection that takes requests");
        assert!(link.collect(b"END\r\n").expect("a value"), "too slow");
        done.fetch_add(1, Relaxed);
    }
}

fn compare(args: &Args, targets: &[Target]) {
    println!("{:<10} {:>10} {:>12} {:>8}  server", "row", "ops/s", "cpu ns/op", "ours/it");
    let length = Duration::from_secs_f64(args.seconds);
    for &row in &args.rows {
        let round = |_| targets.iter().map(|target| measure(row, target, length)).collect();
        let rounds: Vec<Vec<Figures>> = (0..args.rounds).map(round).collect();
        for (at, target) in targets.iter().enumerate() {
            let ops = median(rounds.iter().map(|round| round[at].ops));
            let cpu = median(rounds.iter().map(|round| round[at].cpu));
            let ratio = median(rounds.iter().map(|round| round[0].ops / round[at].ops));
            let row = format!("{row:?}").to_lowercase();
            println!("{row:<10} {ops:>10.0} {cpu:>12.0} {ratio:>8.2}  {}", target.name);
        }
    }
}

/// Latencies of plain clients in microseconds: the 50th, 99th and 99.9th of a hundred.
type Latencies = [f64; 3];

fn flood(args: &Args, targets: &[Target]) {
    println!("microseconds of a plain get: p50, p99, p99.9; handshakes/s beside it");
    let length = Duration::from_secs_f64(args.seconds);
    let pause = Duration::from_micros(args.pause);
    let both = |target| [false, true].map(|flooded| waits(target, flooded, length, pause));
    let round = |_| targets.iter().map(both).collect();
    let rounds: Vec<Vec<[(Latencies, f64); 2]>> = (0..args.rounds).map(round).collect();
    for (at, target) in targets.iter().enumerate() {
        for (case, what) in ["quiet", "flooded"].into_iter().enumerate() {
            let of = |which: usize| median(rounds.iter().map(|round| round[at][case].0[which]));
            let greeted = median(rounds.iter().map(|round| round[at][case].1));
            let [p50, p99, p999] = [of(0), of(1), of(2)];
            println!("{what:<8} {p50:>8.0} {p99:>8.0} {p999:>8.0} {greeted:>8.0}  {}", target.name);
        }
    }
}

/// Plain clients for a while, and handshakes per second beside them.
fn waits(target: &Target, flooded: bool, length: Duration, pause: Duration) -> (Latencies, f64) {
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut all: Vec<f64> = thread::scope(|scope| {
        for _ in 0..if flooded { GREETED } else { 0 } {
            scope.spawn(|| greet(target, || !over.load(Relaxed), &done));
        }
        let client = || plain_client(target, length, pause).expect("answers without TLS");
        let clients: Vec<_> = (0..PLAIN).map(|_| scope.spawn(client)).collect();
        let all = clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
        over.store(true, Relaxed);
        all
    });
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all[(all.len() as f64 * share) as usize];
    ([at(0.5), at(0.99), at(0.999)], done.into_inner() as f64 / length.as_secs_f64())
}

fn plain_client(target: &Target, length: Duration, pause: Duration) -> io::Result<Vec<f64>> {
    let mut socket = socket(target.plain)?;
    let (mut answer, mut latencies) = ([0; FOUND], Vec::new());
    let request = format!("get {}\r\n", name(1));
    let start = Instant::now();
    while start.elapsed() < length {
        let asked = Instant::now();
        socket.write_all(request.as_bytes())?;
        socket.read_exact(&mut answer)?;
        latencies.push(asked.elapsed().as_secs_f64() * 1e6);
        assert!(answer.ends_with(b"\r\nEND\r\n"), "an answer out of step");
        thread::sleep(pause);
    }
    Ok(latencies)
}
