//! `watch` over sockets: what each stream shows, who is turned away, who is slow, who leaves.

mod common;

use common::{Client, PATIENCE, Server, server_path, temp_dir, wait_for, wait_until};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

fn watcher(server: &Server, streams: &str) -> Client {
    let mut client = server.connect();
    client.exchange(format!("watch {streams}\r\n").as_bytes(), b"OK\r\n");
    client
}

/// The next line without what no two runs have in common: its time, its number, its client.
fn line(watcher: &mut Client) -> String {
    let line = watcher.line();
    let mut words = line.split(' ');
    let (time, gid) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    assert!(time.starts_with("ts=1") && gid.starts_with("gid="), "{line:?}");
    words.filter(|w| !w.starts_with("cfd=")).collect::<Vec<_>>().join(" ")
}

fn expect(watcher: &mut Client, lines: &[&str]) {
    for wanted in lines {
        assert_eq!(line(watcher), *wanted);
    }
}

fn word<'a>(line: &'a str, name: &str) -> &'a str {
    let found = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

const LAYOUT: [&str; 2] = ["-o", "layout=memcached"];

#[test]
fn fetchers_show_every_look_for_a_key() {
    let server = Server::start(&LAYOUT);
    let (mut client, mut fetchers) = (server.connect(), watcher(&server, ""));
    client.exchange(b"get a\r\n", b"END\r\n");
    client.exchange(b"set a 0 0 3\r\nabc\r\n", b"STORED\r\n");
    client.exchange(b"get a\r\n", b"VALUE a 0 3\r\nabc\r\nEND\r\n");
    client.exchange(b"mg a s\r\nmg a q\r\nme b\r\n", b"HD s3\r\nHD\r\nEN\r\n");
    client.exchange(b"touch a -1\r\nget a\r\n", b"TOUCHED\r\nEND\r\n");
    client.exchange(b"set b 0 0 1\r\nx\r\nflush_all\r\nget b\r\n", b"STORED\r\nOK\r\nEND\r\n");
    let missed = |key: &str| format!("type=item_get key={key} status=not_found clsid=0 size=0");
    let found = "type=item_get key=a status=found clsid=1 size=3";
    let (a, b) = (missed("a"), missed("b"));
    expect(&mut fetchers, &[&a, &a, found, found, found, &b, found]);
    expect(&mut fetchers, &["type=item_get key=a status=expired clsid=0 size=0", &b]);
    expect(&mut fetchers, &["type=item_get key=b status=flushed clsid=0 size=0"]);
}

#[test]
fn mutations_show_how_each_store_ended() {
    let server = Server::start(&LAYOUT);
    let (mut client, mut mutations) = (server.connect(), watcher(&server, "mutations"));
    let value = "v".repeat(100_000);
    client.exchange(b"set a/b 0 100 3\r\nabc\r\n", b"STORED\r\n");
    client.exchange(b"add a/b 0 0 1\r\nx\r\n", b"NOT_STORED\r\n");
    client.exchange(b"cas a/b 0 0 1 9\r\nx\r\n", b"EXISTS\r\n");
    client.exchange(b"cas b 0 0 1 9\r\nx\r\n", b"NOT_FOUND\r\n");
    client.exchange(b"append b 0 0 1\r\nx\r\n", b"NOT_STORED\r\n");
    client.exchange(b"append a/b 0 0 1\r\nx\r\n", b"STORED\r\n");
    client.exchange(format!("set l 0 0 100000\r\n{value}\r\n").as_bytes(), b"STORED\r\n");
    let refused = format!("set h 0 0 2000000\r\n{}\r\n", "x".repeat(2_000_000));
    client.exchange(refused.as_bytes(), b"SERVER_ERROR object too large for cache\r\n");
    client.exchange(b"ma n N0 J41\r\nincr n 1\r\n", b"HD\r\n42\r\n");
    expect(
        &mut mutations,
        &[
            "type=item_store key=a%2Fb status=stored cmd=set ttl=100 clsid=1 size=3",
            "type=item_store key=a%2Fb status=not_stored cmd=add ttl=0 clsid=1 size=1",
            "type=item_store key=a%2Fb status=exists cmd=cas ttl=0 clsid=1 size=1",
            "type=item_store key=b status=not_found cmd=cas ttl=0 clsid=1 size=1",
            "type=item_store key=b status=not_stored cmd=append ttl=0 clsid=1 size=1",
            "type=item_store key=a%2Fb status=stored cmd=append ttl=100 clsid=1 size=4",
            "type=item_store key=l status=stored cmd=set ttl=0 clsid=32 size=100000",
            "type=item_store key=h status=too_large cmd=set ttl=0 clsid=0 size=0",
            "type=item_store key=n status=stored cmd=add ttl=0 clsid=1 size=2",
        ],
    );
}

#[test]
fn deletions_show_what_goes_by_command() {
    let server = Server::start(&LAYOUT);
    let (mut client, mut deletions) = (server.connect(), watcher(&server, "deletions"));
    client.exchange(b"delete a\r\nmd a\r\n", b"NOT_FOUND\r\nNF\r\n");
    client.exchange(b"set a 0 0 4\r\nvbar\r\nmd a I\r\n", b"STORED\r\nHD\r\n");
    client.exchange(b"delete a\r\n", b"DELETED\r\n");
    client.exchange(b"set a 0 0 4\r\nvbar\r\nmd a\r\n", b"STORED\r\nHD\r\n");
    let deleted = |by: &str| format!("type=deleted key=a cmd={by} clsid=1 size=4");
    expect(&mut deletions, &[&deleted("delete"), &deleted("md")]);
}

#[test]
fn evictions_show_what_goes_for_room() {
    for layout in ["layout=memcached", "layout=compact"] {
        let server = Server::start(&["-m", "4", "-o", layout]);
        let (mut client, mut evictions) = (server.connect(), watcher(&server, "evictions"));
        let value = "v".repeat(9000);
        client.exchange(format!("set k0 0 900 9000\r\n{value}\r\n").as_bytes(), b"STORED\r\n");
        client.send(b"get k0\r\n");
        client.take(format!("VALUE k0 0 9000\r\n{value}\r\nEND\r\n").len());
        let sets = (1..1000).map(|n| format!("set k{n} 0 0 9000 noreply\r\n{value}\r\n"));
        client.send(sets.collect::<String>().as_bytes());
        client.exchange(b"mn\r\n", b"MN\r\n");
        let evicted = server.stat("evictions").expect("a count");
        let dropped = server.stat("log_worker_dropped").expect("a count");
        assert!(evicted > 300, "{layout}: {evicted}");
        let mut seen_first = false;
        for _ in 0..evicted - dropped {
            let line = line(&mut evictions);
            assert!(line.starts_with("type=eviction key=k"), "{line}");
            assert_eq!(word(&line, "size"), "9000");
            let first = word(&line, "key") == "k0";
            seen_first |= first;
            assert_eq!(word(&line, "fetch"), if first { "yes" } else { "no" }, "{line}");
            let ttl: i64 = word(&line, "ttl").parse().expect("a number");
            assert!(if first { (800..=900).contains(&ttl) } else { ttl == -1 }, "{line}");
        }
        assert!(seen_first || dropped > 0 || server.ask("mg k0") == "HD", "{layout}");
    }
}

#[test]
fn sysevents_show_pages_that_the_server_moves() {
    let server = Server::start(&["-m", "64", "-o", "layout=memcached"]);
    let (mut client, mut events) = (server.connect(), watcher(&server, "sysevents"));
    let value = "v".repeat(9000);
    let sets = (0..4000).map(|n| format!("set k{n} 0 0 9000 noreply\r\n{value}\r\n"));
    client.send(sets.collect::<String>().as_bytes());
    client.exchange(b"mn\r\ncache_memlimit 16\r\n", b"MN\r\nOK\r\n");
    let class = {
        let mut gets = watcher(&server, "fetchers");
        client.exchange(b"mg k3999 s\r\n", b"HD s9000\r\n");
        word(&gets.line(), "clsid").to_owned()
    };
    let moved = format!("type=slab_move src={class} dst=0 state=ok");
    expect(&mut events, &[moved.as_str(); 10]);
}

#[test]
fn connections_show_when_they_come_and_go_and_why() {
    let server = Server::start(&[]);
    let mut events = watcher(&server, "connevents");
    let mut meet = |request: &[u8], reason: &str| {
        let mut client = server.connect();
        let port = client.port();
        client.send(request);
        let new = events.line();
        assert!(new.contains(" type=conn_new rip=127.0.0.1 "), "{new}");
        assert_eq!((word(&new, "rport"), word(&new, "transport")), (port.as_str(), "tcp"));
        let close = events.line();
        assert!(close.contains(" type=conn_close rip=127.0.0.1 "), "{close}");
        assert_eq!((word(&close, "rport"), word(&close, "transport")), (port.as_str(), "tcp"));
        assert_eq!((word(&close, "reason"), word(&close, "cfd")), (reason, word(&new, "cfd")));
    };
    meet(b"quit\r\n", "normal");
    meet(b"GET / HTTP/1.1\r\n", "error");
    meet(&[b'x'; 5000], "error");
}

#[test]
fn an_idle_connection_is_closed_for_that_and_a_watcher_never() {
    let server = Server::start(&["-o", "idle_timeout=1"]);
    let mut events = watcher(&server, "connevents");
    let mut client = server.connect();
    assert!(events.line().contains("type=conn_new"));
    assert_eq!(word(&events.line(), "reason"), "idle_timeout");
    assert_eq!(client.next(), None);
    client = server.connect();
    assert!(events.line().contains("type=conn_new"), "it still watches");
    client.close();
}

#[test]
fn a_client_that_leaves_closes_normally_and_one_that_resets_does_not() {
    let server = Server::start(&[]);
    let mut old = server.connect();
    old.exchange(b"mn\r\n", b"MN\r\n");
    let mut events = watcher(&server, "connevents");
    old.close();
    let close = events.line();
    assert_eq!((word(&close, "reason"), word(&close, "rip")), ("normal", "127.0.0.1"), "{close}");
    let client = server.connect();
    assert!(events.line().contains("type=conn_new"));
    client.reset();
    let close = events.line();
    assert_eq!((word(&close, "reason"), word(&close, "rip")), ("error", "127.0.0.1"), "{close}");
}

#[test]
fn streams_can_be_stacked_and_cut_short() {
    let server = Server::start(&LAYOUT);
    let mut client = server.connect();
    let mut all = watcher(&server, "m f d proxyreqs proxyevents proxyuser");
    client.exchange(b"set a 0 0 1\r\nx\r\ndelete a\r\n", b"STORED\r\nDELETED\r\n");
    let gids: Vec<u64> =
        (0..4).map(|_| word(&all.line(), "gid").parse().expect("a number")).collect();
    assert!(gids.windows(2).all(|pair| pair[0] < pair[1]), "{gids:?}");
}

#[test]
fn what_came_before_must_have_been_answered() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let refused = "ERROR cannot pipeline other commands before watch\r\n";
    client.exchange(b"get a\r\nwatch\r\n", format!("END\r\n{refused}").as_bytes());
    client.exchange(b"set a 0 0 1 noreply\r\nx\r\nwatch x\r\n", refused.as_bytes());
    client.exchange(b"mn\r\nwatch\r\n", b"MN\r\nOK\r\n");
}

#[test]
fn twenty_watch_and_no_more_until_one_leaves() {
    let server = Server::start(&[]);
    assert_eq!(server.stat("log_watchers"), Some(0));
    let mut watchers: Vec<Client> = (0..20).map(|_| watcher(&server, "fetchers")).collect();
    assert_eq!(server.stat("log_watchers"), Some(20));
    let mut next = server.connect();
    next.exchange(b"watch\r\n", b"WATCHER_TOO_MANY log watcher limit reached\r\n");
    next.exchange(b"mn\r\n", b"MN\r\n");
    watchers.pop().expect("a watcher").close();
    wait_until("one to be gone", || server.stat("log_watchers") == Some(19));
    next.exchange(b"watch\r\n", b"OK\r\n");
    assert_eq!(server.stat("log_watchers"), Some(20));
    drop((watchers, next));
    wait_until("all to be gone", || server.stat("log_watchers") == Some(0));
}

/// One that never reads holds nobody up and loses lines; once it reads it is told how many.
#[test]
fn a_watcher_that_does_not_read_misses_lines() {
    let server = Server::start(&["-t", "2", "-o", "watcher_logbuf_size=8"]);
    let mut client = server.connect();
    let slow = TcpStream::connect(("127.0.0.1", server.port)).expect("a connection");
    setsockopt(&slow, RcvBuf, &(64 << 10)).expect("a small buffer");
    slow.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (&slow).write_all(b"watch\r\n").expect("a request");
    let mut slow = BufReader::new(slow);
    let mut line = String::new();
    slow.read_line(&mut line).expect("an answer");
    assert_eq!(line, "OK\r\n");
    let key = "k".repeat(240);
    let gets = format!("get {key}\r\n").repeat(500);
    wait_until("lines to be skipped", || {
        client.exchange(gets.as_bytes(), "END\r\n".repeat(500).as_bytes());
        server.stat("log_watcher_skipped").is_some_and(|skipped| skipped > 0)
    });
    let (mut lines, mut last_was_skip) = (0, false);
    wait_until("to be told", || {
        client.exchange(b"get k\r\n", b"END\r\n");
        line.clear();
        slow.read_line(&mut line).expect("a line");
        lines += 1;
        let told = last_was_skip;
        last_was_skip = line.starts_with("skipped=");
        assert!(last_was_skip || line.starts_with("ts=") && line.ends_with('\n'), "{line:?}");
        told
    });
    assert!(lines > 10, "what was there before came first");
    assert!(server.stat("log_watcher_sent").is_some_and(|sent| sent >= lines));
}

#[test]
fn watchers_may_leave_at_any_moment() {
    let server = Server::start(&["-t", "2"]);
    let mut client = server.connect();
    let gets = b"get a\r\n".repeat(200);
    for round in 0..30 {
        let mut gone = watcher(&server, "fetchers connevents");
        client.exchange(&gets, &b"END\r\n".repeat(200));
        gone.take(round * 7);
        if round % 2 == 0 { gone.reset() } else { gone.close() }
    }
    wait_until("all to be gone", || server.stat("log_watchers") == Some(0));
    client.exchange(b"mn\r\n", b"MN\r\n");
}

/// What a watcher sends is not looked at, and half a line is no reason to go on or to stop.
#[test]
fn what_a_watcher_sends_is_dropped() {
    let server = Server::start(&LAYOUT);
    let (mut client, mut fetchers) = (server.connect(), server.connect());
    fetchers.exchange(b"watch\r\nget x\r\nget y", b"OK\r\n");
    fetchers.send(b"\r\nset z 0 0 10\r\nquit\r\n");
    fetchers.send(&[b'x'; 200_000]);
    client.exchange(b"get a\r\n", b"END\r\n");
    expect(&mut fetchers, &["type=item_get key=a status=not_found clsid=0 size=0"]);
    fetchers.close();
    wait_until("it to be gone", || server.stat("log_watchers") == Some(0));
}

#[test]
fn a_unix_sockets_clients_watch_and_are_watched() {
    let dir = temp_dir("watch");
    let path = dir.join("socket");
    let user: &[&str] = if nix::unistd::geteuid().is_root() { &["-u", "root"] } else { &[] };
    let mut child = Command::new(server_path())
        .args(user)
        .args(["-s".as_ref(), path.as_os_str()])
        .stdin(Stdio::null())
        .spawn()
        .expect("a server");
    // Stays, and was served before anybody watches: its lines are not in the way.
    let first = wait_for("the socket", || UnixStream::connect(&path).ok());
    let mut first = BufReader::new(first);
    first.get_mut().write_all(b"version\n").expect("a request");
    first.read_line(&mut String::new()).expect("a version");
    let connect = || {
        let stream = UnixStream::connect(&path).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    };
    let mut events = BufReader::new(connect());
    events.get_mut().write_all(b"watch connevents\n").expect("a request");
    let mut next = || {
        let mut line = String::new();
        events.read_line(&mut line).expect("a line");
        line
    };
    assert_eq!(next(), "OK\r\n");
    let client = connect();
    let new = next();
    assert!(new.contains("type=conn_new rip=unix rport=0 transport=local cfd="), "{new}");
    client.shutdown(Shutdown::Both).expect("an end");
    let close = next();
    assert!(close.contains("conn_close rip=unix rport=0 transport=local reason=normal"), "{close}");
    let _ = child.kill();
    let _ = child.wait();
    let _ = std::fs::remove_dir_all(&dir);
}

/// `cfd` is the number by which `stats conns` knows a client.
#[test]
fn lines_name_their_client() {
    let server = Server::start(&[]);
    let (mut client, mut fetchers) = (server.connect(), watcher(&server, "fetchers mutations"));
    client.exchange(b"set a 0 0 1\r\nx\r\n", b"STORED\r\n");
    let (get, store) = (fetchers.line(), fetchers.line());
    let client_file = word(&get, "cfd").to_owned();
    assert_eq!(word(&store, "cfd"), client_file);
    client.send(b"stats conns\r\n");
    let mut states = Vec::new();
    loop {
        let line = client.line();
        if line == "END" {
            break;
        }
        let found = line.strip_prefix("STAT ").and_then(|l| l.split_once(":state "));
        states.extend(found.map(|(file, state)| (file.to_owned(), state.to_owned())));
    }
    let state = |wanted: &str| states.iter().filter(|(_, state)| state == wanted).count();
    assert!(states.contains(&(client_file, "conn_parse_cmd".into())), "{states:?}");
    assert_eq!(state("conn_watch"), 1, "{states:?}");
}
