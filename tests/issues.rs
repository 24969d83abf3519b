//! A test for every bug that was found and fixed, against the store itself or a whole server.

mod common;

use common::{Client, Server, wait_until};
use rustcached::clock::Clock;
use rustcached::config::Settings;
use rustcached::store::{Arith, Fetch, FetchOutcome, Get, Key, Local, Set, Store};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::Duration;

fn store() -> Arc<Store> {
    let clock = Arc::new(Clock::manual(1_700_000_000));
    Store::new(Arc::new(Settings::default()), clock).expect("64 MiB can be had")
}

fn key(bytes: &[u8]) -> Key<'_> {
    Key::new(bytes).expect("it fits")
}

fn get_of(bytes: &[u8]) -> Get<'_> {
    Get::of(key(bytes))
}

fn set(store: &Arc<Store>, l: &Local, bytes: &[u8], value: &[u8]) {
    let set = Set::of(key(bytes), value.len() as u32);
    store.set(l, &set, store.hash(set.key), value).expect("there is room");
}

/// Reads a key; false: not found.
fn get(store: &Arc<Store>, l: &Local, bytes: &[u8]) -> bool {
    let (get, mut value) = (get_of(bytes), Vec::new());
    store.get(l, &get, store.hash(get.key), |hit| {
        value.clear();
        hit.copy_value(&mut value);
    })
}

fn incr(store: &Arc<Store>, l: &Local, bytes: &[u8]) {
    let arith = Arith::of(key(bytes), 1);
    store.arith(l, &arith, store.hash(arith.key));
}

/// Runs `work` on one thread and `checks` on this one.
fn beside(
    store: &Arc<Store>,
    work: impl Fn(&Arc<Store>, &Local) + Sync,
    checks: impl Fn(&Arc<Store>, &Local),
) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let l = store.local();
            while !stop.load(Relaxed) {
                work(store, &l);
            }
        });
        let _end = Stop(&stop);
        checks(store, &store.local());
    });
}

/// Ends the other thread also where a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A reader that took its second before a flush stamped with it what was stored after the flush.
#[test]
fn what_is_stored_after_a_flush_survives_reads_that_began_before() {
    let read = |store: &Arc<Store>, l: &Local| {
        get(store, l, b"k");
    };
    beside(&store(), read, |store, l| {
        for round in 0..20_000 {
            set(store, l, b"k", b"v");
            store.flush_all(l, None);
            assert!(!get(store, l, b"k"), "round {round}: it outlived the flush");
            set(store, l, b"k", b"v");
            assert!(get(store, l, b"k"), "round {round}: it was stored after the flush");
        }
    });
}

/// An incr that found its number before a flush stored the sum as of after it.
#[test]
fn numbers_do_not_outlive_a_flush_by_being_counted_up() {
    let count = |store: &Arc<Store>, l: &Local| incr(store, l, b"n");
    beside(&store(), count, |store, l| {
        for round in 0..20_000 {
            set(store, l, b"n", b"9");
            store.flush_all(l, None);
            assert!(!get(store, l, b"n"), "round {round}");
        }
    });
}

/// An item that had to move to make room for a CAS unique was counted as a new one.
#[test]
fn an_item_that_gets_a_cas_unique_is_no_new_item() {
    let store = store();
    let l = store.local();
    set(&store, &l, b"k", b"0123456789");
    let fetch = Fetch { cas: true, ..Fetch::of(get_of(b"k")) };
    let fetched = store.fetch(&l, &fetch, store.hash(fetch.get.key), |_| ());
    assert_eq!(fetched, FetchOutcome::Hit);
    assert_eq!(store.stats().thread_sums().total_items, 1);
}

/// A client whose socket takes little: the server soon finds that it does not read.
fn slow_client(server: &Server) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, server.port).into();
    socket.connect(&address.into()).expect("a connection");
    Client::new(socket.into())
}

/// Where a batch of requests ended with the one that found the client not reading, as it does
/// before each bad line, that went unnoticed: answers to all that had come piled up.
#[test]
fn who_does_not_read_has_no_more_run_whatever_the_requests_are() {
    let server = Server::start(&["-t", "1"]);
    let value = "x".repeat(4000);
    let set = format!("set k 0 0 4000\r\n{value}\r\n");
    server.connect().exchange(set.as_bytes(), b"STORED\r\n");
    let mut slow = slow_client(&server);
    let requests = 3000;
    slow.send(b"get k\r\nset k x 0 0\r\n\r\n".repeat(requests).as_slice());
    let kept = (0..2000).find_map(|_| {
        sleep(Duration::from_millis(5));
        server.stat("read_buf_bytes").filter(|bytes| *bytes > 0)
    });
    let kept = kept.expect("it keeps what is not sent");
    assert!(kept < 2 << 20, "{kept} bytes are kept for one client");
    let answer = format!("VALUE k 0 4000\r\n{value}\r\nEND\r\n{BAD_FORMAT}");
    for _ in 0..requests {
        slow.expect(answer.as_bytes());
    }
}

const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format\r\n";

/// The limit on a turn's answers, reached with the very answer that the client did not take whole,
/// dropped the rest of that answer. Over TLS it ended the server.
#[test]
fn an_answer_that_is_sent_in_part_is_not_dropped_for_want_of_room() {
    // A worker's share is 341 answers: ten batches of 32, and 21 of the next.
    let server = Server::start(&["-t", "3", "-I", "10m", "-o", "read_buf_mem_limit=1"]);
    let big = "b".repeat(9_000_000);
    let mut client = server.connect();
    client.exchange(b"set k 0 0 1\r\nx\r\n", b"STORED\r\n");
    client.exchange(format!("set big 0 0 9000000\r\n{big}\r\n").as_bytes(), b"STORED\r\n");
    let mut slow = slow_client(&server);
    slow.send(format!("get {}big {}\r\n", "k ".repeat(340), "k ".repeat(60)).as_bytes());
    let small = b"VALUE k 0 1\r\nx\r\n";
    slow.expect(&small.repeat(340));
    slow.expect(format!("VALUE big 0 9000000\r\n{big}\r\n").as_bytes());
    slow.expect(&small.repeat(60));
    slow.exchange(b"mn\r\n", b"END\r\nMN\r\n");
}

/// A miss of `mg` with `T` was counted as a touch's, and items that a set, add, append or cas found
/// expired were not counted; memcached does the one for `gat` alone, and the other for all.
#[test]
fn misses_and_expired_items_are_counted_as_memcached_counts_them() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.exchange(b"mg none T0 v\r\n", b"EN\r\n");
    client.exchange(b"gat 0 none\r\n", b"END\r\n");
    let figures = ["get_misses", "touch_misses", "cmd_touch"].map(|name| server.stat(name));
    assert_eq!(figures, [Some(1), Some(1), Some(1)]);
    for verb in ["add", "set", "append"] {
        client.exchange(b"set dead 0 -1 1\r\nx\r\n", b"STORED\r\n");
        client
            .send(format!("{verb} dead 0 0 1 noreply\r\ny\r\ndelete dead noreply\r\n").as_bytes());
    }
    client.exchange(b"mn\r\n", b"MN\r\n");
    assert_eq!(server.stat("get_expired"), Some(3));
}

/// A binary value has nothing behind it: where its last bytes and the end of its connection came
/// together, it was not stored.
#[test]
fn a_binary_value_is_stored_though_its_client_leaves_at_once() {
    const VALUE: usize = 600_000;
    const LATE: usize = 20_000;
    let server = Server::start(&["-t", "1"]);
    for round in 0..10 {
        let name = format!("key{round}");
        let body = (8 + name.len() + VALUE) as u32;
        // A set: magic, opcode, length of the key, of the extras; of the whole; opaque and unique.
        let mut request = vec![0x80, 1, 0, name.len() as u8, 8, 0, 0, 0];
        request.extend(body.to_be_bytes());
        request.extend([0; 12 + 8]);
        request.extend(name.bytes());
        request.resize(request.len() + VALUE, b'v');
        let (early, late) = request.split_at(request.len() - LATE);
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).expect("it listens");
        let read = server.stat("bytes_read").expect("a figure") + early.len() as u64;
        (&stream).write_all(early).expect("it reads");
        wait_until("it to be read", || server.stat("bytes_read") >= Some(read));
        (&stream).write_all(late).expect("it reads");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut answer = Vec::new();
        (&stream).read_to_end(&mut answer).expect("it answers, and closes");
        assert_eq!(answer.get(..8), Some(&[0x81, 1, 0, 0, 0, 0, 0, 0][..]), "round {round}");
        assert!(server.ask(&format!("get {name}")).starts_with("VALUE "), "round {round}");
    }
}

/// Where `idle_timeout` closed more connections with work left than take their turns in step, the
/// server ended.
#[test]
fn connections_that_are_closed_with_work_left_end_nothing_else() {
    let server = Server::start(&["-t", "1", "-o", "idle_timeout=1"]);
    let streams: Vec<TcpStream> = (0..400)
        .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).expect("it listens"))
        .collect();
    for stream in &streams {
        stream.set_nonblocking(true).expect("a socket");
    }
    // Two seconds of the server's clock make them idle. Few of those are left for what follows, or
    // lines that have become too long end them all before.
    let connected = server.stat("uptime");
    wait_until("the first of them to pass", || server.stat("uptime") > connected);
    sleep(Duration::from_millis(600));
    for stream in &streams {
        let _ = (&*stream).write_all(b"get ");
    }
    let keys = b"k ".repeat(64 << 10);
    // As long as they are read, they are behind with it.
    wait_until("they are closed, some for asking nothing", || {
        let sent = streams.iter().filter(|stream| {
            !matches!((&**stream).write(&keys), Err(e) if e.kind() != ErrorKind::WouldBlock)
        });
        sent.count() == 0
    });
    assert!(server.stat("idle_kicks") > Some(0));
}
