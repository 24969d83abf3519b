//! The server as clients and operators meet it: sockets, limits, signals.

mod common;

use common::{
    Client, PATIENCE, Random, Server, fails, server_path, signal, spawn, temp_dir, wait_for,
};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Silence that tells that no answer is coming.
const SILENCE: Duration = Duration::from_millis(200);
const MIB: u64 = 1 << 20;

fn stream(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Small requests of many kinds and what they are answered, together.
const REQUESTS: &str = "set a 1 0 5\r\nhello\r\nget a\r\nset b 0 0 0 noreply\r\n\r\nget a b c\r\n\
    set c 0 0 3\r\nabcdefghi\r\nset c 0 0 3 noreply\r\nabcdefghi\r\n\
    set c 0 0 x\r\nms d 2\r\nhi\r\nmg d v\r\nmn\r\n\
    incr a 1\r\ndelete a\r\ndelete a\r\nnonsense\r\n";
const ANSWERS: &str = "STORED\r\nVALUE a 1 5\r\nhello\r\nEND\r\n\
    VALUE a 1 5\r\nhello\r\nVALUE b 0 0\r\n\r\nEND\r\n\
    CLIENT_ERROR bad data chunk\r\nERROR\r\nERROR\r\n\
    CLIENT_ERROR bad command line format\r\nHD\r\nVA 2\r\nhi\r\nMN\r\n\
    CLIENT_ERROR cannot increment or decrement non-numeric value\r\n\
    DELETED\r\nNOT_FOUND\r\nERROR\r\n";

/// The above with values around the sizes of buffers and chunks, one too large, and a `quit`.
fn long_script() -> (Vec<u8>, Vec<u8>) {
    let (mut requests, mut answers) = (REQUESTS.to_string(), ANSWERS.to_string());
    for len in [1000, 8_190, 16_384, 65_500, 65_536, 70_000, 300_000, 1_000_000] {
        let value = "0123456789".repeat(len / 10 + 1);
        let value = &value[..len];
        requests += &format!("set l 0 0 {len}\r\n{value}\r\nget l\r\n");
        answers += &format!("STORED\r\nVALUE l 0 {len}\r\n{value}\r\nEND\r\n");
    }
    requests += &format!("set l 0 0 1100000\r\n{}\r\nget l\r\n", "x".repeat(1_100_000));
    answers += "SERVER_ERROR object too large for cache\r\nEND\r\n";
    requests += "mn\r\nquit\r\n";
    answers += "MN\r\n";
    (requests.into_bytes(), answers.into_bytes())
}

#[test]
fn requests_may_come_in_any_pieces() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for byte in REQUESTS.as_bytes() {
        client.send(&[*byte]);
    }
    client.expect(ANSWERS.as_bytes());
    let (requests, answers) = long_script();
    let mut random = Random::new(7);
    for largest in [2_000_000, 100_000, 20_000, 3_000] {
        let mut writer = stream(&server);
        let mut reader = writer.try_clone().expect("a second handle");
        let reading = thread::spawn(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).map(|_| got)
        });
        let mut rest = &requests[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + random.below(largest.min(rest.len())));
            writer.write_all(piece).expect("a piece");
            rest = after;
        }
        let got = reading.join().expect("a reader").expect("answers");
        assert!(got == answers, "{} bytes in pieces up to {largest}", got.len());
    }
}

#[test]
fn a_pipeline_is_answered_in_order() {
    let server = Server::start(&["-t", "1"]);
    let mut client = server.connect();
    let (mut requests, mut answers) = (String::new(), String::new());
    for i in 0..3000 {
        requests += &format!("set k{i} {i} 0 5\r\n{i:05}\r\nget k{i}\r\nmg k{i} v O{i}\r\n");
        answers +=
            &format!("STORED\r\nVALUE k{i} {i} 5\r\n{i:05}\r\nEND\r\nVA 5 O{i}\r\n{i:05}\r\n");
    }
    client.exchange(requests.as_bytes(), answers.as_bytes());
}

#[test]
fn a_line_may_name_ten_thousand_keys() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let keys: Vec<String> = (0..10_000).map(|i| format!("a-rather-long-key-{i}")).collect();
    let sets: String = keys.iter().map(|k| format!("set {k} 0 0 1 noreply\r\nx\r\n")).collect();
    let mut answers: String = keys.iter().map(|k| format!("VALUE {k} 0 1\r\nx\r\n")).collect();
    answers += "END\r\n";
    client.send(sets.as_bytes());
    client.exchange(format!("get {}\r\n", keys.join(" ")).as_bytes(), answers.as_bytes());
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    let server = Server::start(&[]);
    let mut client = stream(&server);
    client.write_all(b"set a 0 0 100000\r\n").expect("a request");
    client.write_all(&[b'v'; 100_000]).expect("a value");
    client.write_all(b"\r\nget a\r\nget half a li").expect("a request");
    client.shutdown(Shutdown::Write).expect("half a close");
    let mut answers = Vec::new();
    client.read_to_end(&mut answers).expect("answers");
    assert_eq!(answers.len(), "STORED\r\nVALUE a 0 100000\r\n\r\nEND\r\n".len() + 100_000);
}

#[test]
fn a_client_gone_amid_a_value_leaves_nothing() {
    let server = Server::start(&[]);
    let clients = server.stat("curr_connections");
    for _ in 0..20 {
        let mut client = stream(&server);
        client.write_all(b"set a 0 0 900000\r\n").expect("a request");
        client.write_all(&[b'v'; 500_000]).expect("half a value");
    }
    wait_for("the clients to be gone", || {
        (server.stat("curr_connections") == clients).then_some(())
    });
    assert_eq!(server.stat("curr_items"), Some(0));
    assert_eq!(server.stat("read_buf_bytes"), Some(0));
    // Their room was given back: -m is 64 MB, and each of these takes as much as they did.
    let mut client = server.connect();
    for i in 0..40 {
        let value = "w".repeat(900_000);
        client.exchange(format!("set k{i} 0 0 900000\r\n{value}\r\n").as_bytes(), b"STORED\r\n");
    }
    assert_eq!(server.stat("evictions"), Some(0));
}

#[test]
fn a_client_that_does_not_read_is_bounded() {
    let server = Server::start(&["-t", "1"]);
    let mut client = server.connect();
    let value = "v".repeat(100_000);
    client.exchange(format!("set k 0 0 100000\r\n{value}\r\n").as_bytes(), b"STORED\r\n");
    let before = server.memory("VmRSS");
    // Five thousand answers of 100 kB to one line, and a thousand to lines of their own.
    let mut greedy = stream(&server);
    greedy.write_all(format!("get {}\r\n", "k ".repeat(5000)).as_bytes()).expect("a request");
    greedy.write_all("get k\r\n".repeat(1000).as_bytes()).expect("requests");
    wait_for("unread answers", || (server.stat("read_buf_bytes")? > 0).then_some(()));
    client.exchange(b"mn\r\n", b"MN\r\n");
    let grown = server.memory("VmRSS").saturating_sub(before);
    assert!(grown < 8 * MIB, "{grown} bytes for a client that does not read");
    let answer = format!("VALUE k 0 100000\r\n{value}\r\n");
    let mut got = vec![0; answer.len()];
    for _ in 0..5000 {
        greedy.read_exact(&mut got).expect("an answer");
        assert!(got == answer.as_bytes());
    }
    let mut end = [0; 5];
    greedy.read_exact(&mut end).expect("the end");
    assert_eq!(&end, b"END\r\n");
    let answer = answer + "END\r\n";
    let mut got = vec![0; answer.len()];
    for _ in 0..1000 {
        greedy.read_exact(&mut got).expect("an answer");
        assert!(got == answer.as_bytes());
    }
    drop(greedy);
    wait_for("the memory to be free", || (server.stat("read_buf_bytes")? == 0).then_some(()));
}

#[test]
fn over_the_limit_connections_are_told_so() {
    let server = Server::start(&["-c", "5"]);
    let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.exchange(b"mn\r\n", b"MN\r\n");
    }
    let mut answer = String::new();
    stream(&server).read_to_string(&mut answer).expect("an answer and an end");
    assert_eq!(answer, "ERROR Too many open connections\r\n");
    clients[0].exchange(b"mn\r\n", b"MN\r\n");
    clients.pop();
    wait_for("room", || server.stat("rejected_connections").filter(|rejected| *rejected > 0));
    wait_for("one more", || (server.ask("mn") == "MN").then_some(()));
}

#[test]
fn without_maxconns_fast_connections_wait() {
    let server = Server::start(&["-c", "2", "-o", "no_maxconns_fast"]);
    let mut clients: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.exchange(b"mn\r\n", b"MN\r\n");
    }
    let mut third = server.connect();
    third.send(b"mn\r\n");
    assert!(third.rest(SILENCE).is_empty());
    clients.pop();
    third.expect(b"MN\r\n");
    drop((third, clients));
    wait_for("a time that was waited", || {
        let micros = server.stat("time_in_listen_disabled_us")?;
        (micros >= SILENCE.as_micros() as u64).then_some(())
    });
    assert!(server.stat("listen_disabled_num") >= Some(1));
}

#[test]
fn a_busy_client_yields() {
    let server = Server::start(&["-R", "1", "-t", "1"]);
    let mut client = server.connect();
    let sets: String = (0..6).map(|i| format!("set k{i} 0 0 1\r\nx\r\n")).collect();
    client.exchange(sets.as_bytes(), "STORED\r\n".repeat(6).as_bytes());
    assert!(server.stat("conn_yields") >= Some(5));
    // While two pipelines are worked off, a third client does not wait for their end.
    let pipeline = "set k 0 0 1000\r\n".to_string() + &"v".repeat(1000) + "\r\n";
    let mut busy: Vec<TcpStream> = (0..2).map(|_| stream(&server)).collect();
    for client in &mut busy {
        client.write_all(pipeline.repeat(200).as_bytes()).expect("requests");
    }
    client.exchange(b"mn\r\n", b"MN\r\n");
    for client in &mut busy {
        let mut answers = vec![0; "STORED\r\n".len() * 200];
        client.read_exact(&mut answers).expect("answers");
    }
}

/// A limit of 1 MB for 32 workers leaves each of them 32 answers a turn.
#[test]
fn answers_beyond_the_memory_for_them_are_refused() {
    let server = Server::start(&["-t", "32", "-R", "500", "-o", "read_buf_mem_limit=1"]);
    let mut client = server.connect();
    // A get line has its error, and the connection is in step.
    let line = format!("get {}\r\n", ["k"; 500].join(" "));
    let error = "SERVER_ERROR out of memory writing get response\r\n";
    client.exchange(line.as_bytes(), error.as_bytes());
    client.exchange(b"get k\r\n", b"END\r\n");
    let mixed = format!("set k 0 0 1\r\nv\r\n{line}mn\r\n");
    client.exchange(mixed.as_bytes(), format!("{error}MN\r\n").as_bytes());
    client.exchange(b"get k\r\n", b"VALUE k 0 1\r\nv\r\nEND\r\n");
    assert_eq!(server.stat("response_obj_oom"), Some(2));
    // Other requests have none, so theirs goes without a word.
    let mut greedy = stream(&server);
    greedy.write_all("mg k v\r\n".repeat(500).as_bytes()).expect("requests");
    let mut answers = Vec::new();
    let _ = greedy.read_to_end(&mut answers);
    assert_eq!(answers, b"");
    assert_eq!(server.stat("response_obj_oom"), Some(3));
    client.exchange(b"mn\r\n", b"MN\r\n");
}

#[test]
fn with_a_limit_pipelines_are_answered_in_slices() {
    let server = Server::start(&["-t", "1", "-o", "read_buf_mem_limit=1"]);
    let mut client = server.connect();
    client.exchange("mg k v\r\n".repeat(5000).as_bytes(), "EN\r\n".repeat(5000).as_bytes());
    assert_eq!(server.stat("response_obj_oom"), Some(0));
}

#[test]
fn what_all_connections_keep_is_limited() {
    let server = Server::start(&["-t", "2", "-o", "read_buf_mem_limit=1"]);
    // Each keeps the front of a get line that has not ended.
    let part = format!("get {}", "k".repeat(100)).repeat(600).replace("kg", "k g");
    let mut clients: Vec<TcpStream> = (0..40).map(|_| stream(&server)).collect();
    for client in &mut clients {
        // The server may have closed it.
        let _ = client.write_all(part.as_bytes());
    }
    wait_for("a refusal", || server.stat("read_buf_oom").filter(|refused| *refused > 0));
    assert!(server.stat("read_buf_bytes") <= Some(MIB));
    let mut client = server.connect();
    client.exchange(b"mn\r\n", b"MN\r\n");
    drop(clients);
    wait_for("the memory to be free", || (server.stat("read_buf_bytes")? == 0).then_some(()));
}

#[test]
fn web_browsers_are_hung_up_on() {
    let server = Server::start(&[]);
    let mut client = stream(&server);
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    // Closed with unread bytes, the connection may be reset.
    let _ = client.read_to_end(&mut answer);
    assert_eq!(answer, b"");
}

#[test]
fn the_unix_socket_has_its_mode_and_goes_with_the_server() {
    let dir = temp_dir("unix");
    let path = dir.join("socket");
    drop(UnixListener::bind(&path).expect("a socket left behind"));
    let mut server = spawn(&["-s", path.to_str().expect("a path"), "-a", "0707"]);
    let mut client = wait_for("the socket", || UnixStream::connect(&path).ok());
    let file = fs::metadata(&path).expect("the socket's file");
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o707);
    client.write_all(b"version\r\nquit\r\n").expect("a request");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("VERSION "), "{answer:?}");
    signal(server.id(), Signal::SIGINT);
    assert!(server.wait().expect("an end").success());
    assert!(!path.exists());
    fs::remove_dir_all(dir).expect("its directory");
}

#[test]
fn a_file_that_is_no_socket_stays() {
    let dir = temp_dir("unix");
    let path = dir.join("precious");
    fs::write(&path, "data").expect("a file");
    fails(spawn(&["-s", path.to_str().expect("a path")]), "failed to listen on UNIX socket");
    assert_eq!(fs::read_to_string(&path).expect("the file"), "data");
    fs::remove_dir_all(dir).expect("its directory");
}

#[test]
fn what_cannot_be_bound_ends_the_start_with_one_line() {
    let server = Server::start(&[]);
    let port = server.port.to_string();
    fails(spawn(&["-l", "127.0.0.1", "-p", &port]), "in use");
    fails(spawn(&["-l", "no-such-host.invalid"]), "no-such-host.invalid");
    fails(spawn(&["-l", "192.0.2.1", "-p", "-1"]), "192.0.2.1");
}

#[test]
fn all_interfaces_are_both_families() {
    let dir = temp_dir("ports");
    let ports = dir.join("ports");
    let user: &[&str] = if nix::unistd::geteuid().is_root() { &["-u", "root"] } else { &[] };
    let mut server = Command::new(server_path())
        .args(user)
        .args(["-p", "-1"])
        .env("MEMCACHED_PORT_FILENAME", &ports)
        .spawn()
        .expect("a server");
    let lines = wait_for("the port file", || fs::read_to_string(&ports).ok());
    for (family, address) in [("TCP INET: ", "127.0.0.1"), ("TCP INET6: ", "::1")] {
        // A machine without IPv6 has one line.
        let Some(port) = lines.lines().find_map(|line| line.strip_prefix(family)) else {
            assert!(family.contains("INET6"), "{lines}");
            continue;
        };
        let port: u16 = port.parse().expect("a port");
        TcpStream::connect((address, port)).expect("a connection");
    }
    assert!(!Path::new(&dir.join("ports.lck")).exists());
    signal(server.id(), Signal::SIGTERM);
    assert!(server.wait().expect("an end").success());
    fs::remove_dir_all(dir).expect("its directory");
}

#[test]
fn a_stopping_server_answers_what_it_was_asked() {
    for ending in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1] {
        let server = Server::start(&[]);
        let mut clients: Vec<TcpStream> = (0..8).map(|_| stream(&server)).collect();
        let mut idle = stream(&server);
        let value = "v".repeat(500);
        let set = format!("set k 0 0 500\r\n{value}\r\n");
        let asked = set.repeat(50) + &"get k\r\n".repeat(50);
        for client in &mut clients {
            client.write_all(asked.as_bytes()).expect("requests");
        }
        server.signal(Signal::SIGHUP);
        server.signal(ending);
        let answers = "STORED\r\n".repeat(50);
        let answers = answers + &format!("VALUE k 0 500\r\n{value}\r\nEND\r\n").repeat(50);
        for client in &mut clients {
            let mut got = String::new();
            client.read_to_string(&mut got).expect("answers");
            assert!(got == answers, "{} of {} bytes after {ending}", got.len(), answers.len());
        }
        assert_eq!(idle.read(&mut [0]).expect("an end"), 0);
        assert!(server.stop().is_none_or(|status| status.success()));
    }
}

#[test]
fn connections_are_counted_as_memcached_does() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.exchange(b"mn\r\n", b"MN\r\n");
    // One listener, this client and the one that asks, but for one.
    assert_eq!(server.stat("curr_connections"), Some(2));
    assert!(server.stat("connection_structures") >= Some(3));
    assert_eq!(server.stat("accepting_conns"), Some(1));
    // The connections that asked above may still be on their way out.
    wait_for("one listener and one that asks", || {
        client.send(b"stats conns\r\n");
        let lines: Vec<String> =
            std::iter::repeat_with(|| client.line()).take_while(|line| line != "END").collect();
        let count = |what: &str| lines.iter().filter(|line| line.ends_with(what)).count();
        let states = (count(":state conn_listening"), count(":state conn_parse_cmd"));
        (states == (1, 1)).then_some(())
    });
}
