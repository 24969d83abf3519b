//! Dumps and crawls of a running server: several at once while others write, readers that take
//! their time, and what comes before and behind them on a connection.

mod common;

use common::{Client, Random, Server, printable};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Requests in one write.
const BATCH: u32 = 500;

fn fill(server: &Server, what: &str, numbers: std::ops::Range<u32>) {
    let mut client = server.connect();
    let numbers: Vec<u32> = numbers.collect();
    for batch in numbers.chunks(BATCH as usize) {
        let lines = batch.iter().map(|n| format!("set {what}{n} 0 0 1 noreply\r\nv\r\n"));
        client.send(lines.collect::<String>().as_bytes());
        client.exchange(b"mn\r\n", b"MN\r\n");
    }
}

/// How often each key comes in the dump that a client has asked for.
fn read_mgdump(client: &mut Client) -> HashMap<String, u32> {
    assert_eq!(client.line(), "OK");
    let mut keys = HashMap::new();
    loop {
        let line = client.line();
        if line == "EN" {
            return keys;
        }
        let key = line.strip_prefix("mg ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        *keys.entry(key).or_default() += 1;
    }
}

fn assert_holds_all(keys: &HashMap<String, u32>, what: &str, numbers: std::ops::Range<u32>) {
    for n in numbers {
        assert_eq!(keys.get(&format!("{what}{n}")), Some(&1), "{what}{n}");
    }
    assert!(keys.values().all(|times| *times == 1), "a key came twice");
}

/// Until stopped: new keys that make the index grow, old ones written over, some deleted.
fn write_on(server: &Server, seed: u64, stop: &AtomicBool) {
    let mut random = Random::new(seed);
    let mut client = server.connect();
    let mut number = 0;
    while !stop.load(Relaxed) {
        let mut lines = String::new();
        for _ in 0..BATCH {
            number += 1;
            let lived = random.below(20_000);
            let value = "x".repeat(random.below(200));
            lines += &format!("set new{seed}.{number} 0 0 1 noreply\r\nn\r\n");
            lines += &format!("set lives{lived} 0 0 {} noreply\r\n{value}\r\n", value.len());
            lines += &format!("delete new{seed}.{} noreply\r\n", random.below(number));
        }
        client.send(lines.as_bytes());
        client.exchange(b"mn\r\n", b"MN\r\n");
    }
}

#[test]
fn dumps_at_once_miss_nothing_that_lives_while_writers_write() {
    let server = Server::start(&["-m", "256", "-t", "2"]);
    fill(&server, "lives", 0..20_000);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (server, stop) = (&server, &stop);
        let writers = [1, 2].map(|seed| scope.spawn(move || write_on(server, seed, stop)));
        let dumps = ["all", "hash", "all", "hash"].map(|what| {
            scope.spawn(move || {
                for _ in 0..3 {
                    let mut client = server.connect();
                    client.send(format!("lru_crawler mgdump {what}\r\n").as_bytes());
                    assert_holds_all(&read_mgdump(&mut client), "lives", 0..20_000);
                }
            })
        });
        let results = dumps.map(|dump| dump.join());
        stop.store(true, Relaxed);
        results.into_iter().for_each(|result| result.expect("a dump"));
        writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
    });
    assert_eq!(server.stat("evictions"), Some(0), "the test was to lose nothing");
    assert_eq!(server.stat("lru_crawler_running"), Some(0));
    assert_eq!(server.stat("lru_crawler_starts"), Some(12));
}

/// A connection that takes in next to nothing by itself.
fn narrow(server: &Server) -> std::net::TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], server.port)).into()).expect("a connection");
    let stream: std::net::TcpStream = socket.into();
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

#[test]
fn a_dump_can_be_read_byte_by_byte() {
    let server = Server::start(&["-t", "1"]);
    fill(&server, "a", 0..10_000);
    let mut stream = narrow(&server);
    std::io::Write::write_all(&mut stream, b"lru_crawler mgdump all\r\n").expect("it is sent");
    let mut got = Vec::new();
    while !got.ends_with(b"\nEN\r\n") {
        let mut byte = [0];
        let read = stream.read(&mut byte).expect("a byte in time");
        assert_eq!(read, 1, "it was closed after {}", printable(&got[got.len() - 20..]));
        got.push(byte[0]);
    }
    let lines = String::from_utf8(got).expect("text");
    let mut keys = HashMap::new();
    for key in lines.lines().filter_map(|line| line.strip_prefix("mg ")) {
        *keys.entry(key.to_owned()).or_default() += 1;
    }
    assert_holds_all(&keys, "a", 0..10_000);
}

#[test]
fn a_client_that_does_not_read_its_dump_holds_up_nobody() {
    const ITEMS: u32 = 300_000;
    /// What a reader may cost that does not read, and the noise of the measure.
    const ALLOWED: u64 = 4 << 20;
    let server = Server::start(&["-m", "128", "-t", "1"]);
    fill(&server, "a", 0..ITEMS);
    let before = server.memory("VmRSS");
    let mut streams: Vec<_> = (0..4).map(|_| narrow(&server)).collect();
    for stream in &mut streams {
        std::io::Write::write_all(stream, b"lru_crawler metadump all\r\n").expect("it is sent");
    }
    // Everybody else is served, on every line of the index, by the same worker.
    let mut client = server.connect();
    let started = Instant::now();
    for n in (0..ITEMS).step_by(100) {
        client.exchange(format!("set a{n} 0 0 1\r\nw\r\n").as_bytes(), b"STORED\r\n");
    }
    println!("3000 sets beside 4 dumps took {:?}", started.elapsed());
    assert_eq!(server.stat("lru_crawler_running"), Some(1), "the dumps are still there");
    let after = server.memory("VmRSS");
    assert!(after <= before + ALLOWED, "{before} bytes before, {after} with the dumps");
    let mut last = streams.pop().expect("a client");
    drop(streams);
    let (mut items, mut tail) = (0, Vec::new());
    let mut chunk = vec![0; 64 << 10];
    while !tail.ends_with(b"\nEND\r\n") {
        let read = last.read(&mut chunk).expect("bytes in time");
        assert!(read > 0, "it was closed");
        items += chunk[..read].iter().filter(|byte| **byte == b'=').count();
        tail.extend_from_slice(&chunk[..read]);
        tail.drain(..tail.len().saturating_sub(6));
    }
    assert_eq!(items, ITEMS as usize * 8, "8 fields an item");
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.stat("lru_crawler_running") != Some(0) {
        assert!(Instant::now() < deadline, "dumps whose clients left are still there");
    }
}

#[test]
fn dumps_do_not_come_behind_others_but_others_behind_them() {
    let server = Server::start(&[]);
    fill(&server, "a", 0..1);
    for (before, says) in [
        ("version", "VERSION 1.6.45\r\n"),
        ("mg b v", "EN\r\n"),
        ("mg b q v", ""),
        ("get b", "END\r\n"),
        ("set b 0 0 1\r\nb", "STORED\r\n"),
        ("set b 0 0 1 noreply\r\nb", ""),
        ("delete b noreply", ""),
        ("set b x 0 1\r\nb", "CLIENT_ERROR bad command line format\r\n"),
        ("mn\r\ntouch b 0", "MN\r\nNOT_FOUND\r\n"),
        ("nosuch", "ERROR\r\n"),
        ("lru_crawler mgdump x", "BADCLASS invalid class id\r\n"),
    ] {
        let request = format!("{before}\r\nlru_crawler metadump all\r\nmn\r\n");
        let refused = "ERROR cannot pipeline other commands before metadump\r\nMN\r\n";
        server.connect().exchange(request.as_bytes(), [says, refused].concat().as_bytes());
    }
    let version = "VERSION 1.6.45\r\n";
    let dump = "OK\r\nmg a0\r\nEN\r\n";
    let many = "version\r\n".repeat(31);
    for (request, answer) in [
        ("mn\r\nlru_crawler mgdump all", format!("MN\r\n{dump}")),
        ("lru_crawler mgdump all\r\nversion", format!("{dump}{version}")),
        (&format!("{many}mn\r\nlru_crawler mgdump all"), version.repeat(31) + "MN\r\n" + dump),
    ] {
        server.connect().exchange(format!("{request}\r\n").as_bytes(), answer.as_bytes());
    }
    let mut client = server.connect();
    client.send(b"lru_crawler mgdump all\r\nset b 0 0 10\r\n12345");
    client.expect(dump.as_bytes());
    client.exchange(b"67890\r\nlru_crawler mgdump 1,63\r\nversion\r\n", b"STORED\r\n");
}

#[test]
fn a_crawl_runs_in_the_background() {
    let server = Server::start(&[]);
    fill(&server, "a", 0..5000);
    assert_eq!(server.ask("lru_crawler crawl all"), "OK");
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.stat("lru_crawler_running") != Some(0) {
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.stat("crawler_items_checked"), Some(5000));
    assert_eq!(server.stat("crawler_reclaimed"), Some(0));
    assert_eq!(server.stat("curr_items"), Some(5000));
    // One that sleeps a second after its first thousand keeps others out, and nobody waiting.
    assert_eq!(server.ask("lru_crawler sleep 1000000"), "OK");
    assert_eq!(server.ask("lru_crawler crawl all"), "OK");
    assert_eq!(server.ask("lru_crawler crawl 1"), "BUSY currently processing crawler request");
    assert_eq!(server.ask("lru_crawler mgdump 63"), "OK");
}

#[test]
fn statistics_follow_the_operator() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.exchange(b"cache_memlimit 100\r\n", b"OK\r\n");
    client.exchange(b"lru tune 10 20 0.5 1.5\r\nlru temp_ttl 7\r\n", b"OK\r\nOK\r\n");
    client.exchange(b"slabs automove 0\r\nslabs automove window 9\r\n", b"OK\r\nOK\r\n");
    client.exchange(b"lru_crawler tocrawl 5\r\nlru_crawler disable\r\n", b"OK\r\nOK\r\n");
    assert_eq!(server.stat("limit_maxbytes"), Some(100 << 20));
    assert_eq!(server.stat("lru_crawler_running"), None, "the crawler is off");
    client.send(b"stats settings\r\n");
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "END") {
        lines.push(client.line());
    }
    for line in [
        "STAT maxbytes 104857600",
        "STAT slab_automove 0",
        "STAT slab_automove_window 9",
        "STAT lru_crawler no",
        "STAT lru_crawler_tocrawl 5",
        "STAT hot_lru_pct 10",
        "STAT warm_max_factor 1.50",
        "STAT temp_lru yes",
        "STAT temporary_ttl 7",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line} is not in {lines:?}");
    }
    client.exchange(
        b"cache_memlimit 1025\r\n",
        b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n",
    );
    assert_eq!(server.stat("limit_maxbytes"), Some(100 << 20));
}
