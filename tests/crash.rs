//! kill -9 at random moments, with clients at work that remember what they were told; then another
//! start, and a look at everything. The long form:
//!
//! `RUSTCACHED_CRASH_ROUNDS=300 cargo test --release --test crash -- --nocapture`
//!
//! `RUSTCACHED_CRASH_SEED` runs one again, `RUSTCACHED_CRASH_DIR` says where the memory file is
//! (/dev/shm, where there is one).

mod common;

use common::faults::Dir;
use common::load::{self, Audit, Memory};
use common::{Client, FREE_AND_CONFINED, Random, Server};
use nix::sys::signal::Signal;
use std::fs::OpenOptions;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 8;
const CLIENTS: usize = 4;
/// A round lasts so long at the most, milliseconds.
const ROUND_MAX: usize = 600;

fn rounds() -> usize {
    let asked = std::env::var("RUSTCACHED_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(ROUNDS)
}

fn start(file: &str, args: &[&str]) -> Server {
    let all = [&["-e", file], args].concat();
    Server::start(&all)
}

/// What all threads of a round share.
struct Round<'a> {
    server: &'a Server,
    memories: &'a [Mutex<Memory>],
    over: AtomicBool,
    /// Held by everyone for a batch, and alone for a flush.
    flushes: RwLock<()>,
    /// Pages are moved by hand, which may cost items.
    moves: bool,
}

impl Round<'_> {
    /// A connection, while there is somebody to connect to.
    fn connect(&self) -> Option<Client> {
        TcpStream::connect(("127.0.0.1", self.server.port)).ok().map(Client::new)
    }

    fn client(&self, memory: &Mutex<Memory>) {
        let Some(mut client) = self.connect() else { return };
        while !self.over.load(Relaxed) {
            let _shared = self.flushes.read().expect("a lock");
            if !memory.lock().expect("a memory").work(&mut client) {
                return;
            }
        }
    }

    /// Pages move, the index is walked, limits change, now and then everything is flushed.
    fn operator(&self, seed: u64) {
        let Some(mut client) = self.connect() else { return };
        let mut random = Random::new(seed);
        while !self.over.load(Relaxed) {
            thread::sleep(Duration::from_millis(random.below(8) as u64));
            match random.below(40) {
                0 => {
                    let _alone = self.flushes.write().expect("a lock");
                    client.send(b"flush_all\r\n");
                    let surely = client.line() == "OK";
                    self.memories.iter().for_each(|m| m.lock().expect("a memory").flushed(surely));
                    if !surely {
                        return;
                    }
                }
                n if n < 20 || !self.moves => client.send(b"lru_crawler crawl all\r\n"),
                n => client.send(format!("slabs reassign -1 {}\r\n", n * 2).as_bytes()),
            }
            client.send(b"mn\r\n");
            let answer = std::iter::repeat_with(|| client.line());
            let last = answer.into_iter().find(|line| matches!(line.as_str(), "MN" | ""));
            if last.is_none_or(|line| line.is_empty()) {
                return;
            }
        }
    }

    /// Asks for large values and takes its time.
    fn sluggard(&self, seed: u64) {
        let mut random = Random::new(seed);
        while !self.over.load(Relaxed) {
            let Some(mut client) = self.connect() else { return };
            let keys: Vec<String> =
                (0..20).map(|_| load::key_of("0", random.below(load::KEYS))).collect();
            if client.try_send(format!("get {}\r\n", keys.join(" ")).as_bytes()).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sets large values, of which most stop half-way; those that come whole are nobody's else.
    fn dawdler(&self, seed: u64) {
        let mut random = Random::new(seed);
        while !self.over.load(Relaxed) {
            let Some(mut client) = self.connect() else { return };
            for n in 0..4 {
                let len = 1 + random.below(600_000);
                let mut bytes = format!("set dawdled{n} 0 0 {len} noreply\r\n").into_bytes();
                bytes.resize(bytes.len() + len, b'd');
                bytes.extend_from_slice(b"\r\n");
                if n == 3 || random.once_in(3) {
                    bytes.truncate(random.below(bytes.len()));
                }
                for piece in bytes.chunks(1 + random.below(200_000)) {
                    if client.try_send(piece).is_err() {
                        return;
                    }
                    thread::sleep(Duration::from_micros(random.below(500) as u64));
                }
                if !bytes.ends_with(b"\r\n") {
                    break;
                }
            }
            thread::sleep(Duration::from_millis(random.below(10) as u64));
        }
    }
}

/// Lets clients work until the process is killed, or ended as it should be; true for the latter.
fn work_until_the_end(
    server: Server,
    memories: &[Mutex<Memory>],
    random: &mut Random,
    moves: bool,
) -> bool {
    let gently = random.once_in(5);
    let pause = Duration::from_millis(20 + random.below(ROUND_MAX) as u64);
    let seeds = [random.next(), random.next(), random.next()];
    let over = AtomicBool::new(false);
    let round = Round { server: &server, memories, over, flushes: RwLock::new(()), moves };
    let pid = nix::unistd::Pid::from_raw(server.pid().cast_signed());
    thread::scope(|scope| {
        for memory in memories {
            scope.spawn(|| round.client(memory));
        }
        scope.spawn(|| round.operator(seeds[0]));
        scope.spawn(|| round.sluggard(seeds[1]));
        scope.spawn(|| round.dawdler(seeds[2]));
        thread::sleep(pause);
        if gently {
            round.over.store(true, Relaxed);
        } else {
            nix::sys::signal::kill(pid, Signal::SIGKILL).expect("a signal");
            round.over.store(true, Relaxed);
        }
    });
    if gently {
        assert!(server.stop().is_some_and(|status| status.success()), "a clean end");
    }
    gently
}

/// A start that is killed before it comes to anything.
fn false_start(file: &str, args: &[&str], random: &mut Random) {
    let mut command = Command::new(common::server_path());
    command.args(["-u", "root", "-l", "127.0.0.1", "-p", "0", "-e", file]).args(args);
    let mut child = command.spawn().expect("a process");
    thread::sleep(Duration::from_millis(random.below(30) as u64));
    child.kill().expect("a signal");
    child.wait().expect("an end");
}

/// The settings of a start: whatever they are, the file stays warm.
fn arguments(random: &mut Random) -> Vec<&'static str> {
    let mut args = vec!["-t", *random.pick(&["1", "2", "4"]), "-m"];
    args.push(*random.pick(&["256", "300", "512"]));
    if random.once_in(2) {
        args.extend(["-o", "checksum"]);
    }
    if random.once_in(4) {
        args.extend(["-f", "1.2"]);
    }
    args
}

#[test]
fn nothing_is_lost_and_nothing_comes_back_from_the_dead() {
    let seed = Random::seed_from("RUSTCACHED_CRASH_SEED");
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let (dir, began) = (Dir::new("crash"), Instant::now());
    let memory = |n: usize| Mutex::new(Memory::new(n.to_string(), seed ^ n as u64));
    let memories: Vec<_> = (0..CLIENTS).map(memory).collect();
    let mut server = start(&dir.file(), &arguments(&mut random));
    let (mut kept, mut torn, mut longest) = (0, 0, 0);
    let mut audit = Audit::default();
    for round in 0..rounds() {
        let clean = work_until_the_end(server, &memories, &mut random, false);
        // Its file is closed until the next start.
        let again = random.once_in(3);
        if again {
            false_start(&dir.file(), &arguments(&mut random), &mut random);
        }
        server = start(&dir.file(), &arguments(&mut random));
        let stat = |name: &str| server.stat(name).expect("a figure");
        assert_eq!(stat("restart_warm"), 1);
        assert!(again || stat("restart_clean") == u64::from(clean));
        assert_eq!((stat("restart_pages_lost"), stat("evictions")), (0, 0));
        kept += stat("restart_items_kept");
        torn += stat("restart_items_dropped");
        longest = longest.max(stat("restart_time_us"));
        for memory in &memories {
            memory.lock().expect("a memory").audit(&mut server.connect(), &mut audit);
        }
        assert!(audit.wrong.is_empty(), "seed {seed}, round {round}: {:#?}", audit.wrong);
        let (missing, live) = (&audit.missing, audit.live);
        assert!(missing.is_empty(), "seed {seed}, round {round}: of {live}, {missing:#?}");
    }
    let memories: Vec<Memory> =
        memories.into_iter().map(|m| m.into_inner().expect("a memory")).collect();
    let steps: u64 = memories.iter().map(|m| m.steps).sum();
    let uniques: usize = memories.iter().map(|m| m.uniques().len()).sum();
    println!(
        "{} rounds in {} s, {steps} steps, {uniques} uniques; {} live items looked for, none \
         missing; {kept} kept, {torn} torn, longest restart {longest} us",
        rounds(),
        began.elapsed().as_secs(),
        audit.live,
    );
    assert_eq!(torn, 0, "what is linked is whole");
}

/// Whatever ends the server in order leaves the file closed; so does the next start find it.
#[test]
fn every_end_in_order_is_one() {
    for options in FREE_AND_CONFINED {
        let dir = Dir::new("ends");
        let args = [&["-A"], options].concat();
        let ends = [Some(Signal::SIGTERM), Some(Signal::SIGINT), Some(Signal::SIGUSR1), None];
        for (n, end) in ends.into_iter().enumerate() {
            let server = start(&dir.file(), &args);
            let mut client = server.connect();
            for stored in 0..n {
                client.exchange(format!("mg key{stored} v\r\n").as_bytes(), b"VA 5\r\nvalue\r\n");
            }
            client.exchange(format!("set key{n} 0 0 5\r\nvalue\r\n").as_bytes(), b"STORED\r\n");
            let pid = nix::unistd::Pid::from_raw(server.pid().cast_signed());
            match end {
                Some(signal) => nix::sys::signal::kill(pid, signal).expect("a signal"),
                None => client.send(b"shutdown graceful\r\n"),
            }
            assert!(server.ended().is_some_and(|status| status.success()), "{end:?}");
            let server = start(&dir.file(), &args);
            assert_eq!(
                (server.stat("restart_clean"), server.stat("curr_items")),
                (Some(1), Some(n as u64 + 1))
            );
            assert!(server.stop().is_some());
        }
    }
}

/// Evictions, too: what is there is what was stored last.
#[test]
fn a_full_cache_holds_nothing_that_is_old() {
    let seed = Random::seed_from("RUSTCACHED_CRASH_SEED");
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let dir = Dir::new("full");
    let memory = |n: usize| Mutex::new(Memory::new(n.to_string(), seed ^ n as u64));
    let memories: Vec<_> = (0..CLIENTS).map(memory).collect();
    let mut server = start(&dir.file(), &["-m", "8"]);
    let mut audit = Audit::default();
    for round in 0..rounds() {
        work_until_the_end(server, &memories, &mut random, true);
        let sizes = ["6", "8", "10"];
        server = start(&dir.file(), &["-m", *random.pick(&sizes)]);
        assert_eq!(server.stat("restart_warm"), Some(1));
        for memory in &memories {
            memory.lock().expect("a memory").audit(&mut server.connect(), &mut audit);
        }
        assert!(audit.wrong.is_empty(), "seed {seed}, round {round}: {:#?}", audit.wrong);
    }
}

/// Bits that flip and ends that are cut off: the server starts, and what it serves is right.
#[test]
fn a_damaged_file_is_no_danger() {
    let seed = Random::seed_from("RUSTCACHED_CRASH_SEED");
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let dir = Dir::new("damage");
    let memories = [Mutex::new(Memory::new("0".into(), seed))];
    let mut server = start(&dir.file(), &["-m", "64", "-o", "checksum"]);
    for round in 0..rounds() {
        work_until_the_end(server, &memories, &mut random, true);
        damage(&dir.file(), &mut random);
        server = start(&dir.file(), &["-m", "64", "-o", "checksum"]);
        let mut audit = Audit::default();
        for memory in &memories {
            memory.lock().expect("a memory").audit(&mut server.connect(), &mut audit);
        }
        assert!(audit.wrong.is_empty(), "seed {seed}, round {round}: {:#?}", audit.wrong);
    }
}

/// Flips bits of what is stored, and now and then of the head, or cuts the file.
fn damage(path: &str, random: &mut Random) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the file");
    let len = file.metadata().expect("the file").len();
    let mut byte = [0];
    for _ in 0..random.below(2_000) {
        // Most of what is used lies in the first megabytes of the arena.
        let at = match random.below(1_000) {
            0 => random.below(64 << 10),
            n if n < 20 => (64 << 10) + random.below(40_000),
            _ => (8 << 20) + random.below(24 << 20),
        };
        file.read_exact_at(&mut byte, at as u64).expect("a byte");
        if byte[0] == 0 && !random.once_in(20) {
            continue;
        }
        byte[0] ^= 1 << random.below(8);
        file.write_all_at(&byte, at as u64).expect("a byte");
    }
    if random.once_in(6) {
        file.set_len(8 + random.next() % (len / 40)).expect("a length");
    }
}
