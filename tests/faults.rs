//! What can go wrong around a server, one thing at a time. tests/soak.rs has all of it at once.

mod common;

use common::faults::{Clocks, Dir, Disk, Limited, open_files};
use common::load::{Memory, value_of};
use common::{
    Client, Random, Server, fails, is_sanitized, server_path, spawn, spawn_by, wait_until,
};
use nix::sys::signal::Signal;
use rustix::process::Resource;
use std::io::Read;
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

/// Silence that tells that no answer is coming.
const SILENCE: Duration = Duration::from_millis(200);
const TOO_MANY: &str = "ERROR Too many open connections\r\n";
const MIB: u64 = 1 << 20;
const DAY: i64 = 24 * 60 * 60;

/// Lets clients that know what they have to be answered work while `trouble` goes on; returns how
/// many steps they took.
fn beside_clients(server: &Server, trouble: impl FnOnce()) -> u64 {
    let over = AtomicBool::new(false);
    let work = |n: usize| {
        let mut memory = Memory::new(n.to_string(), n as u64);
        let mut client = server.connect();
        while !over.load(Relaxed) {
            let goes_on = memory.work(&mut client);
            assert!(memory.wrong.is_empty(), "{:#?}", memory.wrong);
            assert!(goes_on, "a connection ended");
        }
        memory.steps
    };
    scope(|scope| {
        let clients: Vec<_> = (0..2).map(|n| scope.spawn(move || work(n))).collect();
        let end = Over(&over);
        trouble();
        drop(end);
        clients.into_iter().map(|client| client.join().expect("a client")).sum()
    })
}

/// Lets the clients end also where the trouble is a failed assertion.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A large value that says whose it is, and the answer to a get of it.
fn big(n: u64) -> (String, Vec<u8>, Vec<u8>) {
    let key = format!("big{n}");
    let value = value_of(&key, n, 1_000_000);
    let head = format!("VALUE {key} 0 {}\r\n", value.len());
    let answer = [head.as_bytes(), &value, b"\r\n"].concat();
    (key, value, answer)
}

fn set(client: &mut Client, key: &str, exptime: i64, value: &[u8]) {
    let head = format!("set {key} 0 {exptime} {}\r\n", value.len());
    client.exchange(&[head.as_bytes(), value, b"\r\n"].concat(), b"STORED\r\n");
}

// Connections

#[test]
fn a_flood_beyond_c_is_turned_away_and_those_inside_notice_nothing() {
    const INSIDE: u64 = 12;
    const FLOOD: u64 = 2000;
    let server = Server::start(&["-c", &INSIDE.to_string()]);
    // Two more are the clients that work.
    let mut inside: Vec<Client> = (2..INSIDE).map(|_| server.connect()).collect();
    for client in &mut inside {
        client.exchange(b"mn\r\n", b"MN\r\n");
    }
    let steps = beside_clients(&server, || {
        let asker = &mut inside[0];
        wait_until("all to be in", || asker.stat("curr_connections") == Some(INSIDE));
        let files = open_files(&server).len();
        scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..FLOOD / 4 {
                        let mut said = String::new();
                        let stream = TcpStream::connect(("127.0.0.1", server.port));
                        let read = stream.expect("a connection").read_to_string(&mut said);
                        assert_eq!((read.ok(), said.as_str()), (Some(TOO_MANY.len()), TOO_MANY));
                    }
                });
            }
        });
        assert_eq!(asker.stat("rejected_connections"), Some(FLOOD));
        assert_eq!(asker.stat("curr_connections"), Some(INSIDE));
        assert_eq!(open_files(&server).len(), files);
    });
    assert!(steps > 0);
    inside.pop();
    wait_until("room for another", || server.ask("mn") == "MN");
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    const TURN: Duration = Duration::from_secs(1);
    let server = Server::start(&["-c", "4096"]);
    let mut asker = server.connect();
    let settled = |asker: &mut Client| {
        wait_until("the last to be gone", || asker.stat("curr_connections") == Some(1));
        (open_files(&server).len(), server.memory("VmRSS"))
    };
    let come_and_go = || {
        let (began, mut count) = (Instant::now(), 0);
        while began.elapsed() < TURN {
            let mut client = server.connect();
            match count % 4 {
                0 => client.close(),
                1 => client.reset(),
                2 => {
                    client.exchange(b"mn\r\n", b"MN\r\n");
                    client.close();
                }
                _ => {
                    client.send(b"set k 0 0 900000\r\nhalf a value");
                    client.reset();
                }
            }
            count += 1;
        }
        count
    };
    // What the first ones leave is reused by the others.
    let warm = come_and_go();
    let (files, memory) = settled(&mut asker);
    let counts = scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(come_and_go)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).sum::<u64>()
    });
    println!("{counts} connections came and went in {} s", TURN.as_secs());
    let after = settled(&mut asker);
    assert_eq!(after.0, files);
    assert!(after.1 < memory + 4 * MIB, "{memory} bytes became {}", after.1);
    // And the listener, which memcached counts as one.
    assert_eq!(asker.stat("total_connections"), Some(warm + counts + 2));
    assert_eq!(asker.stat("curr_items"), Some(0));
}

#[test]
fn clients_that_dribble_hold_nobody_up_and_little_memory() {
    const SLOW: usize = 300;
    /// Of a part of a request, or of a value on its way with what is known of it.
    const EACH: u64 = 256;
    let server = Server::start(&["-t", "2"]);
    let mut fast = server.connect();
    let idle = fast.stat("read_buf_bytes").expect("a figure");
    let mut slow: Vec<Client> = (0..SLOW).map(|_| server.connect()).collect();
    let request = |n: usize| match n % 3 {
        0 => (format!("set s{n:03} 0 0 18\r\n{n:018}\r\n"), "STORED\r\n".to_owned()),
        1 => (format!("mg none-{n:03} k v O{n:03} t f s c\r\n"), String::new()),
        _ => (format!("get {}\r\n", format!("n{n:03} ").repeat(7)), "END\r\n".to_owned()),
    };
    let longest = (0..SLOW).map(|n| request(n).0.len()).max().expect("a request");
    for at in 0..longest {
        for (n, client) in slow.iter_mut().enumerate() {
            client.send(request(n).0.as_bytes().get(at..at + 1).unwrap_or_default());
        }
        let key = format!("f{at}");
        set(&mut fast, &key, 0, &value_of(&key, at as u64, 2000));
        let held = fast.stat("read_buf_bytes").expect("a figure") - idle;
        assert!(held <= SLOW as u64 * EACH, "{held} bytes for {SLOW} parts of requests");
    }
    for (n, client) in slow.iter_mut().enumerate() {
        match n % 3 {
            1 => assert_eq!(client.line(), format!("EN knone-{n:03} O{n:03}")),
            _ => client.expect(request(n).1.as_bytes()),
        }
        client.exchange(b"mn\r\n", b"MN\r\n");
    }
}

/// Clients that ask for large values and read nothing: what they hold is bounded, and given up
/// where it is needed.
#[test]
fn clients_that_never_read_do_not_stop_the_writers() {
    const BIGS: u64 = 8;
    const LINES: usize = 2;
    const ALLOWED: u64 = (32 + if cfg!(debug_assertions) { 16 } else { 12 }) * MIB;
    let server = Server::start(&["-m", "32", "-t", "2"]);
    let mut writer = server.connect();
    for n in 0..BIGS {
        let (key, value, _) = big(n);
        set(&mut writer, &key, 0, &value);
    }
    let keys: String = (0..BIGS).map(|n| format!(" big{n}")).collect();
    let mut deaf: Vec<Client> = (0..40).map(|_| server.connect()).collect();
    for client in &mut deaf {
        client.send(format!("get{keys}\r\n").repeat(LINES).as_bytes());
    }
    wait_until("answers that nobody reads", || writer.stat("read_buf_bytes") > Some(0));
    // Five times -m: it needs the room of what is being sent.
    for n in BIGS..160 {
        let (key, value, answer) = big(n);
        set(&mut writer, &key, 0, &value);
        writer.exchange(format!("get {key}\r\n").as_bytes(), &[&answer, &b"END\r\n"[..]].concat());
    }
    let highest = server.memory("VmHWM");
    assert!(highest <= ALLOWED, "VmHWM {highest}");
    // Those who begin to read have right answers, of what is left by now, or an end.
    let answers: Vec<Vec<u8>> = (0..BIGS).map(|n| big(n).2).collect();
    for mut client in deaf {
        let mut lines = 0;
        while lines < LINES
            && let Some(byte) = client.peek()
        {
            if byte == b'E' {
                let got = client.take(5);
                assert!(b"END\r\n".starts_with(&got), "{got:?}");
                lines += 1;
                continue;
            }
            let line = client.line() + "\r\n";
            let is_its = |answer: &&Vec<u8>| answer.starts_with(line.as_bytes());
            let answer = answers.iter().find(is_its).expect("the front of a value");
            let got = client.take(answer.len() - line.len());
            assert!(got == answer[line.len()..][..got.len()], "{line:?}, and then another value");
        }
        assert!(!client.timed_out, "neither the rest nor an end");
    }
}

/// Peers that are gone without a word, or say nothing: those that are sent something are found out
/// by that, the others by `idle_timeout`.
#[test]
fn half_open_connections_do_not_stay() {
    let server = Server::start(&["-o", "idle_timeout=2"]);
    let mut client = server.connect();
    for n in 0..4 {
        let (key, value, _) = big(n);
        set(&mut client, &key, 0, &value);
    }
    let is_alone = |client: &mut Client| client.stat("curr_connections") == Some(1);
    for round in 0..20 {
        let mut gone = server.connect();
        match round % 4 {
            0 => gone.send(b"get big0 big1 big2 big3\r\n"),
            1 => gone.send(b"get half a li"),
            2 => gone.exchange(b"mn\r\n", b"MN\r\n"),
            _ => {}
        }
        if !gone.vanish() {
            return println!("skipped: only who may administer the network can vanish");
        }
    }
    assert!(!is_alone(&mut client), "they did not even come");
    wait_until("the peers to be found out", || is_alone(&mut client));
    assert!(client.stat("idle_kicks") > Some(0));
}

#[test]
fn without_files_connections_wait_and_then_are_served() {
    let server = Server::start(&[]);
    let mut inside = server.connect();
    inside.exchange(b"mn\r\n", b"MN\r\n");
    let open = open_files(&server);
    let fifth = (0..).filter(|number| !open.contains(number)).nth(4).expect("a free number");
    let limited = Limited::new(&server, Resource::Nofile, fifth + 1);
    let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(b"mn\r\n");
    }
    for client in &mut clients[..5] {
        client.expect(b"MN\r\n");
    }
    wait_until("the shortage", || inside.stat("accepting_conns") == Some(0));
    assert!(clients[5].rest(SILENCE).is_empty());
    assert_eq!(inside.stat("listen_disabled_num"), Some(1));
    // A reload needs files, too.
    server.signal(Signal::SIGHUP);
    clients.remove(0).close();
    clients[4].expect(b"MN\r\n");
    drop(limited);
    for client in &mut clients[5..] {
        client.expect(b"MN\r\n");
    }
    wait_until("the end of it", || inside.stat("accepting_conns") == Some(1));
    assert!(inside.stat("time_in_listen_disabled_us") >= Some(SILENCE.as_micros() as u64));
    assert_eq!(inside.stat("rejected_connections"), Some(0));
}

#[test]
fn who_takes_a_port_that_is_taken_harms_nobody() {
    let dir = Dir::new("port");
    let server = Server::start(&["-e", &dir.file(), "-U", "-1"]);
    let mut client = server.connect();
    set(&mut client, "k", 0, b"v");
    let (tcp, udp) = (server.port.to_string(), server.udp_ports[0].to_string());
    let here = ["-l", "127.0.0.1", "-e", &dir.file()];
    fails(spawn(&[&here[..], &["-p", &tcp]].concat()), "in use");
    fails(spawn(&[&here[..], &["-p", "-1", "-U", &udp]].concat()), "in use");
    fails(spawn(&[&here[..], &["-p", "-1"]].concat()), "in use by another process");
    client.exchange(b"get k\r\n", b"VALUE k 0 1\r\nv\r\nEND\r\n");
    assert!(server.stop().is_some_and(|status| status.success()));
    let server = Server::start(&["-e", &dir.file()]);
    assert_eq!((server.stat("restart_clean"), server.stat("curr_items")), (Some(1), Some(1)));
}

// Memory

/// A start under a limit that a shell sets.
fn spawn_under(limit: &str, args: &[&str]) -> std::process::Child {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit {limit}; exec \"$0\" \"$@\"")).arg(server_path());
    spawn_by(&mut command, args)
}

#[test]
fn an_arena_that_cannot_be_reserved_ends_the_start_with_one_line() {
    // A sanitizer takes address space all the time.
    if is_sanitized() {
        return;
    }
    let args = ["-l", "127.0.0.1", "-p", "-1", "-m", "1024"];
    fails(spawn_under("-v 400000", &args), "failed to reserve");
    let dir = Dir::new("reserve");
    let file = dir.file();
    fails(spawn_under("-v 400000", &[&args[..], &["-e", &file]].concat()), "failed to reserve");
}

/// What the arena and the index may need was reserved at the start.
#[test]
fn a_server_that_gets_no_more_memory_goes_on() {
    // A sanitizer takes address space all the time.
    if is_sanitized() {
        return;
    }
    let server = Server::start(&["-m", "32"]);
    let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.exchange(b"mn\r\n", b"MN\r\n");
    }
    // The allocator of the system gives some back from time to time, which somebody else may take:
    // a thread that cannot have a few bytes ends the process.
    let limit = server.memory("VmSize") + 4 * MIB;
    let _limited = Limited::new(&server, Resource::As, limit);
    let steps = beside_clients(&server, || {
        let (mut random, mut hits) = (Random::new(1), 0);
        for (n, client) in (0..4_000).zip(0..) {
            let client = &mut clients[client % 20];
            let (key, len) = (format!("k{n}"), random.below(60_000));
            let value = value_of(&key, n, len);
            set(client, &key, 0, &value);
            let head = format!("VALUE {key} 0 {}\r\n", value.len());
            client.send(format!("get {key}\r\n").as_bytes());
            // It may be evicted already.
            if client.peek() == Some(b'V') {
                client.expect(&[head.as_bytes(), &value, b"\r\n"].concat());
                hits += 1;
            }
            client.expect(b"END\r\n");
        }
        assert!(hits > 2_000, "{hits}");
    });
    assert!(steps > 0);
    assert!(server.stat("evictions") > Some(0));
}

// Files

const SKIPPED: &str = "skipped: no file system can be mounted here";

/// A file system that is full: an error or an eviction, and the server lives on.
#[test]
fn a_full_disk_is_out_of_memory() {
    let Some(disk) = Disk::new("disk", 6) else { return println!("{SKIPPED}") };
    for args in [&["-m", "64"][..], &["-m", "64", "-M"]] {
        let file = disk.file();
        let server = Server::start(&[args, &["-e", &file, "-o", "memory_file_discard"]].concat());
        let mut client = server.connect();
        let (mut stored, value) = (0, "v".repeat(4_000));
        for n in 0..4_000 {
            client.send(format!("set key{n} 0 0 {}\r\n{value}\r\n", value.len()).as_bytes());
            stored += u32::from(client.line() == "STORED");
        }
        assert!(server.stat("memory_file_pages_refused").is_some_and(|n| n > 0));
        assert!((500..=4_000).contains(&stored), "{stored}");
        assert_eq!(stored == 4_000, args.len() == 2, "{stored} stored");
        client.exchange(b"get nothing\r\n", b"END\r\n");
        assert!(server.stop().is_some_and(|status| status.success()));
    }
}

/// Pages move and are given back while others take all room that there is at any moment.
#[test]
fn pages_move_on_a_disk_that_others_fill() {
    let Some(disk) = Disk::new("room", 16) else { return println!("{SKIPPED}") };
    let server = Server::start(&["-m", "64", "-e", &disk.file()]);
    let (mut client, mut hog, stop) = (server.connect(), disk.hog(), AtomicBool::new(false));
    let fill = |client: &mut Client, round: usize, len: usize| {
        for n in 0..(4 << 20) / (len + 100) {
            let head = format!("set {round}:{n} 0 0 {len} noreply\r\n");
            client.send(format!("{head}{}\r\n", "v".repeat(len)).as_bytes());
        }
        client.send(b"mn\r\n");
        while client.line() != "MN" {
            assert!(!client.cut_off, "the server is gone");
        }
    };
    (0..8).for_each(|round| fill(&mut client, round, 3_000));
    assert!(client.stat("memory_file_pages_refused") > Some(0), "there is still room");
    let moved = client.stat("slabs_moved");
    scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                hog.take();
            }
        });
        let _end = Over(&stop);
        let steps = beside_clients(&server, || {
            // Whether one moves depends on what the other has just taken.
            for round in 8..100 {
                if round >= 14 && client.stat("slabs_moved") > moved {
                    break;
                }
                fill(&mut client, round, [300, 9_000, 40][round % 3]);
                for n in 0..10 {
                    let class = 1 + (round * 7 + n) % 40;
                    client.send(format!("slabs reassign -1 {class}\r\n").as_bytes());
                    assert!(!client.line().is_empty(), "the server is gone");
                    let moves = || client.stat("slab_reassign_running") == Some(0);
                    wait_until("the page to move", moves);
                }
                let limit = [64, 8][round / 4 % 2];
                client.exchange(format!("cache_memlimit {limit}\r\n").as_bytes(), b"OK\r\n");
            }
        });
        assert!(steps > 0);
    });
    assert!(client.stat("slabs_moved") > moved, "no page moved");
    assert!(server.stop().is_some_and(|status| status.success()));
}

/// A limit of file sizes comes with a signal that ends those who do not know it.
#[test]
fn a_file_that_may_not_get_that_long_ends_the_start_with_one_line() {
    let dir = Dir::new("limit");
    let args = ["-l", "127.0.0.1", "-p", "-1", "-e", &dir.file()];
    fails(spawn_under("-f 1000", &args), "File too large");
}

// Time

/// A server that is stopped for a while answers what came meanwhile, and counts the time.
#[test]
fn a_stopped_server_goes_on_where_it_was() {
    let server = Server::start(&["-t", "2"]);
    let mut client = server.connect();
    let steps = beside_clients(&server, || {
        for n in 0..10 {
            server.pause();
            let mut late = server.connect();
            late.send(b"mn\r\n");
            client.send(format!("set k{n} 0 0 1\r\n").as_bytes());
            assert!(late.rest(Duration::from_millis(30)).is_empty());
            server.signal(Signal::SIGCONT);
            late.expect(b"MN\r\n");
            client.exchange(b"v\r\nmn\r\n", b"STORED\r\nMN\r\n");
        }
    });
    assert!(steps > 0);
    set(&mut client, "short", 1, b"v");
    set(&mut client, "long", 100, b"v");
    server.pause();
    client.send(b"mg short v\r\nmg long v\r\n");
    sleep(Duration::from_millis(1100));
    server.signal(Signal::SIGCONT);
    client.expect(b"EN\r\nVA 1\r\nv\r\n");
}

/// A running server, with clocks that can be set.
fn with_clocks(clocks: &Clocks, args: &[&str]) -> Server {
    Server::start_prepared(&server_path(), args, |command| clocks.give_to(command))
}

/// Seconds that a key has left.
fn ttl(client: &mut Client, key: &str) -> Option<i64> {
    client.send(format!("mg {key} t\r\n").as_bytes());
    client.line().strip_prefix("HD t")?.parse().ok()
}

fn unix_now() -> i64 {
    std::time::UNIX_EPOCH.elapsed().expect("a clock that is set").as_secs() as i64
}

const NO_COMPILER: &str = "skipped: there is no C compiler";

/// As memcached's, deadlines of both kinds are counted by the steady clock from the start on.
#[test]
fn a_wall_clock_that_is_set_changes_nothing() {
    let Some(clocks) = Clocks::new() else { return println!("{NO_COMPILER}") };
    let server = with_clocks(&clocks, &["-o", "idle_timeout=60"]);
    let mut client = server.connect();
    set(&mut client, "relative", 1000, b"v");
    set(&mut client, "absolute", unix_now() + 1000, b"v");
    for wall in [DAY, -DAY, 40 * 365 * DAY, -40 * 365 * DAY, 0] {
        clocks.set(wall, 0);
        // The clock is read anew at least once.
        let before = client.stat("time").expect("a figure");
        wait_until("a second", || client.stat("time") > Some(before));
        for key in ["relative", "absolute"] {
            let left = ttl(&mut client, key);
            assert!(
                left.is_some_and(|left| (900..=1000).contains(&left)),
                "{wall}: {key} {left:?}"
            );
        }
        set(&mut client, "new", 1000, b"v");
        assert!(ttl(&mut client, "new").is_some_and(|left| left >= 999));
        assert!(client.stat("uptime") < Some(100));
    }
}

/// A machine that was asleep has a steady clock that is far ahead at once.
#[test]
fn a_steady_clock_that_leaps_lets_items_expire_and_never_goes_back() {
    let Some(clocks) = Clocks::new() else { return println!("{NO_COMPILER}") };
    let server = with_clocks(&clocks, &[]);
    let mut client = server.connect();
    set(&mut client, "day", DAY, b"v");
    set(&mut client, "hour", DAY / 24, b"v");
    clocks.set(0, DAY / 2);
    wait_until("the leap", || client.stat("uptime") > Some(DAY as u64 / 2));
    client.exchange(b"get hour\r\n", b"END\r\n");
    let left = ttl(&mut client, "day").expect("an item");
    assert!((DAY / 2 - 100..=DAY / 2).contains(&left), "{left}");
    // Some machines have clocks that are not as steady as they say.
    clocks.set(0, -DAY);
    let uptime = client.stat("uptime");
    let steps = beside_clients(&server, || sleep(SILENCE));
    assert!(steps > 0);
    assert!(client.stat("uptime") >= uptime);
    assert!(ttl(&mut client, "day").expect("an item") <= left);
    set(&mut client, "new", 1000, b"v");
    assert_eq!(ttl(&mut client, "new"), Some(1000));
}

/// Between two runs the wall clock is all that there is. Set back, it keeps nothing alive for
/// longer than it had left when the server ended.
#[test]
fn a_restart_goes_by_the_wall_clock_but_not_backwards() {
    let Some(clocks) = Clocks::new() else { return println!("{NO_COMPILER}") };
    let dir = Dir::new("restart");
    let start = |wall: i64| {
        clocks.set(wall, 0);
        with_clocks(&clocks, &["-e", &dir.file()])
    };
    let server = start(0);
    set(&mut server.connect(), "k", 10_000, b"v");
    assert!(server.stop().is_some_and(|status| status.success()));
    let later = 3_000 - DAY;
    for (wall, most) in [(-DAY, 10_000), (-DAY, 10_000), (later, 7_000), (-2 * DAY, 7_000)] {
        let server = start(wall);
        let left = ttl(&mut server.connect(), "k");
        assert!(left.is_some_and(|l| (most - 100..=most).contains(&l)), "{wall}: {left:?}");
        assert!(server.stop().is_some_and(|status| status.success()));
    }
    let server = start(0);
    server.connect().exchange(b"get k\r\n", b"END\r\n");
}
