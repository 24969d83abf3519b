//! `-o drop_privileges`: what a server can do no more, and that it serves as before. Tests of
//! users, certificates, restarts and systemd, too, have servers of both kinds.

mod common;

use common::packets::{request, take_answer};
use common::{FREE_AND_CONFINED, Server, temp_dir, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{getppid, getuid, setuid};
use rustcached::privileges::confine;
use std::backtrace::Backtrace;
use std::env::{current_exe, var};
use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::thread::spawn;

/// What a process of this very program is to try, and the directory that it is to try it in.
const ATTEMPT: &str = "RUSTCACHED_TEST_ATTEMPT";
const DIR: &str = "RUSTCACHED_TEST_DIR";

/// How many filters of system calls each thread of a process has.
fn filters(process: &str) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("a process");
    let count = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).expect("a thread");
        let count = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
        count.and_then(|count| count.trim().parse().ok()).expect("a number")
    };
    threads.map(|thread| count(thread.expect("a thread"))).collect()
}

#[test]
fn all_threads_are_confined_or_none() {
    // What runs the tests may have its own.
    let outer = filters("self")[0];
    for (options, inner) in FREE_AND_CONFINED.into_iter().zip([0, 1]) {
        let server = Server::start(&[&["-t", "3", "-U", "-1"], options].concat());
        assert_eq!(server.ask("mn"), "MN");
        let found = filters(&server.pid().to_string());
        assert!(found.len() > 3 && found.iter().all(|n| *n == outer + inner), "{found:?}");
        let shown = server.connect().stats(" settings")["drop_privileges"] == "yes";
        assert_eq!(shown, inner == 1);
        assert!(server.stop().is_some_and(|status| status.success()));
    }
}

#[test]
fn every_door_and_topic_is_served() {
    let server = Server::start(&["-U", "-1", "-A", "-o", "drop_privileges", "-vv"]);
    let mut client = server.connect();
    let large = vec![b'v'; 700_000];
    for key in 0..50 {
        client.send(format!("set {key} 0 0 700000\r\n").as_bytes());
        client.send(&large);
        client.exchange(b"\r\n", b"STORED\r\n");
    }
    client.send(b"get 49\r\n");
    client.expect(&[b"VALUE 49 0 700000\r\n", &large[..], b"\r\nEND\r\n"].concat());
    for topic in ["", " settings", " items", " slabs", " sizes", " conns", " memory", " automover"]
    {
        assert!(!client.stats(topic).is_empty(), "stats{topic}");
    }
    for command in [
        "lru_crawler crawl all",
        "cache_memlimit 128",
        "cache_memlimit 16",
        "slabs automove 0",
        "verbosity 1",
        "flush_all",
    ] {
        client.exchange(format!("{command}\r\n").as_bytes(), b"OK\r\n");
    }
    wait_until("pages that went back", || server.memory("VmRSS") < 30 << 20);
    client.exchange(b"cache_memlimit 64\r\n", b"OK\r\n");
    client.exchange(b"set a 0 0 1\r\nx\r\n", b"STORED\r\n");
    let mut dump = server.connect();
    dump.exchange(b"lru_crawler mgdump all\r\n", b"OK\r\nmg a\r\nEN\r\n");
    server.connect().exchange(b"watch evictions\r\n", b"OK\r\n");
    let mut binary = server.connect();
    binary.send(&request(0, 7, 0, [b"", b"a", b""]));
    assert_eq!(take_answer(&mut binary).map(|answer| answer.value), Some(b"x".to_vec()));
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    udp.connect(("127.0.0.1", server.udp_ports[0])).expect("an address");
    udp.send(b"\0\x01\0\0\0\x01\0\0get a\r\n").expect("a datagram");
    udp.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
    let mut answer = [0; 64];
    let len = udp.recv(&mut answer).expect("an answer");
    assert_eq!(&answer[8..len], b"VALUE a 0 1\r\nx\r\nEND\r\n");
    client.send(b"shutdown\r\n");
    assert!(server.ended().is_some_and(|status| status.success()));
}

/// What each attempt is called, and whether a server has need of it.
const ATTEMPTS: [(&str, bool); 12] = [
    ("read a file", true),
    ("remove a file", true),
    ("trace itself", true),
    ("run a program", false),
    ("start a thread", false),
    ("write a file", false),
    ("make a file", false),
    ("rename a file", false),
    ("open a socket", false),
    ("call out", false),
    ("signal another", false),
    ("change its user", false),
];

fn attempt(name: &str, dir: &Path) {
    let (file, socket) = (dir.join("file"), UnixDatagram::unbound().expect("a socket"));
    confine(false).expect("a filter");
    match name {
        "read a file" => assert_eq!(fs::read(file).expect("a file"), b"text"),
        "remove a file" => fs::remove_file(file).expect("a file"),
        "trace itself" => assert!(!Backtrace::force_capture().to_string().is_empty()),
        "run a program" => drop(Command::new("true").status()),
        "start a thread" => drop(spawn(|| ())),
        "write a file" => drop(File::options().append(true).open(file)),
        "make a file" => drop(File::create(dir.join("new"))),
        "rename a file" => drop(fs::rename(&file, dir.join("new"))),
        "open a socket" => drop(UnixStream::connect(dir.join("none"))),
        "call out" => drop(socket.connect(dir.join("none"))),
        "signal another" => println!("{:?}", kill(getppid(), None)),
        "change its user" => println!("{:?}", setuid(getuid())),
        _ => unreachable!("no such attempt"),
    }
}

/// The end of a process that makes the attempt, by a test that is told of it.
fn end_of(name: &str, dir: &Path) -> ExitStatus {
    let mut command = Command::new(current_exe().expect("a program"));
    command.args(["--exact", "what_serving_does_not_take_ends_the_process", "-q"]);
    command.env(ATTEMPT, name).env(DIR, dir).status().expect("an end")
}

#[test]
fn what_serving_does_not_take_ends_the_process() {
    if let (Ok(name), Ok(dir)) = (var(ATTEMPT), var(DIR)) {
        return attempt(&name, Path::new(&dir));
    }
    let dir = temp_dir("attempts");
    for (name, needed) in ATTEMPTS {
        fs::write(dir.join("file"), "text").expect("a file");
        let end = end_of(name, &dir);
        let signal = (!needed).then_some(Signal::SIGSYS as i32);
        assert_eq!((end.success(), end.signal()), (needed, signal), "{name}");
        assert!(!dir.join("new").exists(), "{name}");
    }
    fs::remove_dir_all(dir).expect("its directory");
}

#[cfg(feature = "debug-commands")]
#[test]
fn a_server_that_misbehaves_ends() {
    assert_eq!(Server::start(&[]).ask("misbehave"), "ERROR");
    let server = Server::start(&["-o", "drop_privileges"]);
    assert_eq!(server.ask("misbehave"), "");
    let end = server.ended().expect("an end");
    assert_eq!(end.signal(), Some(Signal::SIGSYS as i32));
}
