//! What the process may use (`stats memory`, the README's formula) holds in the worst case of each
//! part, as the kernel counts the memory of a server that is driven from outside.
//!
//! `MEMORY_CONNECTIONS=10000 MEMORY_MIB=1024` drives as many connections against so much memory:
//! `.ci/deep memory`.

mod common;

use common::{Server, temp_dir, wait_until};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rcgen::generate_simple_self_signed;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of the values that are copied to whoever asks, and of those that are sent as they lie.
const SMALL: usize = 3500;
const LARGE: usize = 400_000;
/// Bytes that a client that never reads asks for at once.
const REQUEST_BYTES: usize = 16 << 10;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// A server in its test.
struct Bench {
    server: Server,
    connections: usize,
    /// Bytes of -m, and of that the cache's.
    memory: u64,
    cache: u64,
}

impl Bench {
    /// `-m` covers the whole process, or buffers have a bound of their own.
    fn new(total: bool, args: &[&str]) -> Bench {
        let connections = from_environment("MEMORY_CONNECTIONS", 300) as usize;
        Bench::with(from_environment("MEMORY_MIB", 40), connections, total, args)
    }

    fn with(mib: u64, connections: usize, total: bool, args: &[&str]) -> Bench {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        let files = hard.max(connections as u64 + 1000);
        let raised = setrlimit(Resource::RLIMIT_NOFILE, files, files);
        raised.expect("files for that many connections");
        let (memory, clients) = (mib.to_string(), (connections + 20).to_string());
        let buffers = format!("read_buf_mem_limit={}", (mib / 16).max(1));
        let budget = if total { "memory_budget=total" } else { &buffers };
        let all = [&["-m", &memory, "-c", &clients, "-o", budget], args].concat();
        let mut server = Server::start(&all);
        // Beside TLS there is one without.
        server.port = *server.ports().last().expect("a port");
        let mut bench = Bench { server, connections, memory: mib << 20, cache: 0 };
        bench.cache = bench.figure("cache_max");
        bench
    }

    /// A figure of `stats memory`.
    fn figure(&self, name: &str) -> u64 {
        let mut client = self.server.connect();
        client.send(b"stats memory\r\n");
        let mut found = None;
        loop {
            let line = client.line();
            if line == "END" || line.is_empty() {
                return found.unwrap_or_else(|| panic!("no {name}"));
            }
            let value = line.strip_prefix("STAT ").and_then(|rest| rest.strip_prefix(name));
            found = found.or(value.and_then(|value| value.trim().parse().ok()));
        }
    }

    /// The most memory that the server ever had is within what it may have.
    fn check(&self, what: &str) {
        let (highest, max) = (self.server.memory("VmHWM"), self.figure("process_max"));
        let resident = self.server.memory("VmRSS");
        println!("{what}: VmHWM {} KiB, VmRSS {resident}, of {} KiB", highest >> 10, max >> 10);
        assert!(highest <= max, "{what}: VmHWM {highest} is beyond {max}");
    }

    /// Fills the cache with values of so many bytes, and some more.
    fn fill(&self, len: usize) {
        let mut client = self.server.connect();
        let value = vec![b'v'; len];
        let count = self.cache as usize * 5 / 4 / (len + 35);
        let mut batch = Vec::new();
        for n in 0..count {
            batch.extend_from_slice(format!("set {len}-{n} 0 0 {len} noreply\r\n").as_bytes());
            batch.extend_from_slice(&value);
            batch.extend_from_slice(b"\r\n");
            if batch.len() > 256 << 10 {
                client.send(&batch);
                client.exchange(b"mn\r\n", b"MN\r\n");
                batch.clear();
            }
        }
        client.send(&batch);
        client.exchange(b"mn\r\n", b"MN\r\n");
    }

    /// Connections that each send these bytes, as far as they are taken, and read nothing.
    fn flood(&self, bytes: impl Fn(usize) -> Vec<u8>) -> Vec<TcpStream> {
        (0..self.connections).map(|n| self.pour(&bytes(n))).collect()
    }

    fn pour(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = connect(self.server.port);
        // Whoever is closed for want of room does not take it all.
        let _ = stream.write_all(bytes);
        stream
    }

    /// Waits until the server has worked off what was sent to it.
    fn settle(&self) {
        let read = || self.server.stat("bytes_read").unwrap_or(u64::MAX);
        let mut before = 0;
        wait_until("quiet", || {
            std::thread::sleep(Duration::from_millis(50));
            let now = read();
            // The question itself is read, too.
            let then = std::mem::replace(&mut before, now);
            now != u64::MAX && then.saturating_add(64) > now
        });
    }
}

/// A connection for which the system keeps little of what its client does not read, and that does
/// not wait long until what it sends is taken.
fn connect(port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("a connection");
    let stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(Duration::from_millis(10))).expect("a timeout");
    stream
}

/// Gets of one key that never end, or nearly so.
fn gets(key: &str) -> Vec<u8> {
    format!("get {key}\r\n").repeat(REQUEST_BYTES / (key.len() + 6)).into_bytes()
}

/// All that clients without TLS can do to a server's memory, one after the other.
fn drive(bench: &Bench) {
    bench.fill(40);
    bench.check("small values");
    bench.fill(SMALL);
    bench.fill(LARGE);
    bench.check("large values");
    let idle = bench.flood(|_| b"mn\r\n".to_vec());
    bench.settle();
    bench.check("idle connections");
    drop(idle);
    half_requests(bench);
    deaf_clients(bench);
    answers_for_operators(bench);
    // What comes back is what was there before.
    wait_until("connections to go", || bench.server.stat("curr_connections") < Some(10));
    assert!(bench.figure("buffers") < 1 << 20, "{}", bench.figure("buffers"));
    bench.fill(40);
    bench.check("small values again");
}

fn half_requests(bench: &Bench) {
    for len in [LARGE, 100_000, 1_000_000] {
        let halves = bench.flood(|n| half(n, len));
        bench.settle();
        bench.check("halves of values");
        assert!(bench.figure("pages_arriving") <= bench.cache / 2);
        drop(halves);
    }
    let long = bench.flood(|n| [&b"get"[..], &b" key".repeat(15_000 + n % 7)].concat());
    bench.settle();
    let (held, max) = (bench.figure("buffers"), bench.figure("buffers_max"));
    assert!(held > max / 2, "the lines are held: {held} of {max}");
    bench.check("halves of get lines");
    drop(long);
}

/// A set of which half the value is missing.
fn half(n: usize, len: usize) -> Vec<u8> {
    let mut request = format!("set half{n} 0 0 {len}\r\n").into_bytes();
    request.resize(request.len() + len / 2, b'h');
    request
}

fn deaf_clients(bench: &Bench) {
    bench.fill(SMALL);
    let mut client = bench.server.connect();
    for (key, len) in [("small", SMALL), ("large", LARGE)] {
        let value = vec![b'v'; len];
        client.send(format!("set {key} 0 0 {len}\r\n").as_bytes());
        client.send(&value);
        client.exchange(b"\r\n", b"STORED\r\n");
    }
    let deaf = bench.flood(|_| gets("small"));
    bench.settle();
    let refused = bench.server.stat("response_obj_oom").expect("a figure");
    println!("{refused} of {} clients without room for their answers", bench.connections);
    assert!(refused > 0, "there was room for all of them");
    bench.check("answers that nobody reads");
    drop(deaf);
    let mut deaf = Vec::new();
    for n in 0..bench.connections {
        let key = format!("large{}", n % 50);
        let value = vec![b'v'; LARGE];
        client.send(format!("set {key} 0 0 {LARGE} noreply\r\n").as_bytes());
        client.send(&value);
        client.send(b"\r\n");
        client.exchange(b"mn\r\n", b"MN\r\n");
        deaf.push(bench.pour(&gets(&key)));
    }
    bench.settle();
    bench.check("values that nobody reads");
    drop(deaf);
}

fn answers_for_operators(bench: &Bench) {
    let topics = ["stats conns", "stats cachedump 5 0", "stats sizes", "stats items", "watch"];
    let deaf = bench.flood(|n| format!("{}\r\n", topics[n % topics.len()]).repeat(20).into_bytes());
    bench.settle();
    bench.check("statistics that nobody reads");
    drop(deaf);
}

#[test]
fn the_whole_process_stays_within_m() {
    let bench = Bench::new(true, &[]);
    assert_eq!(bench.figure("process_max"), bench.memory);
    drive(&bench);
}

#[test]
fn the_whole_process_stays_within_m_with_memcacheds_layout() {
    drive(&Bench::new(true, &["-o", "layout=memcached,eviction=sieve"]));
}

#[test]
fn the_formula_holds() {
    let bench = Bench::new(false, &[]);
    assert!(bench.figure("process_max") > bench.memory);
    drive(&bench);
}

/// Values that stay half-way, be they large or not, do not keep pages that are to go.
#[test]
fn a_lowered_limit_holds_beside_halves_of_values() {
    for args in [&[][..], &["-o", "layout=memcached"]] {
        let bench = Bench::with(300, 1000, false, args);
        for len in [1_000_000, 100_000] {
            bench.server.connect().exchange(b"cache_memlimit 300\r\n", b"OK\r\n");
            bench.fill(SMALL);
            let halves = bench.flood(|n| half(n, len));
            bench.settle();
            bench.check("halves beside a high limit");
            let mut client = bench.server.connect();
            client.exchange(b"cache_memlimit 32\r\n", b"OK\r\n");
            let now = || (bench.server.memory("VmRSS"), bench.figure("process_max"));
            let holds = || {
                let (resident, most) = now();
                resident <= most
            };
            // On a busy machine that may take long, but it goes on.
            while !holds() {
                let before = now().0;
                wait_until("less memory", || {
                    std::thread::sleep(Duration::from_millis(300));
                    now().0 < before || holds()
                });
            }
            let (resident, most) = now();
            println!("{len} bytes each: VmRSS {} KiB of {}", resident >> 10, most >> 10);
            assert!(bench.figure("pages_arriving") <= 16 << 20);
            wait_until("room for others", || {
                client.send(b"set a 0 0 1\r\nx\r\n");
                client.line() == "STORED"
            });
            drop(halves);
            let connections = || bench.server.stat("curr_connections");
            wait_until("connections to go", || connections() < Some(10));
        }
    }
}

#[test]
fn the_formula_holds_with_memcacheds_layout() {
    let bench = Bench::new(false, &["-o", "layout=memcached"]);
    for len in [1, 40, SMALL, LARGE, 1] {
        bench.fill(len);
        bench.check("values beside their index");
    }
}

/// The index grows with the smallest items, and gives its memory back for the largest.
#[test]
fn the_index_is_within_m() {
    let bench = Bench::new(true, &[]);
    bench.fill(1);
    let index = bench.figure("index");
    bench.check("the smallest items");
    bench.server.connect().exchange(b"flush_all\r\n", b"OK\r\n");
    wait_until("a smaller index", || {
        // Whoever asks all the time leaves no time for that.
        std::thread::sleep(Duration::from_millis(500));
        bench.figure("index") < index * 2 / 3
    });
    bench.fill(LARGE);
    bench.check("the largest");
}

#[test]
fn connections_with_tls_are_within_m() {
    let dir = temp_dir("memory");
    let signed = generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    let path = |name: &str| dir.join(name);
    fs::write(path("cert"), signed.cert.pem()).expect("a file");
    fs::write(path("key"), signed.signing_key.serialize_pem()).expect("a file");
    let (cert, key) = (path("cert").display().to_string(), path("key").display().to_string());
    let files = format!("ssl_chain_cert={cert},ssl_key={key}");
    let bench = Bench::new(true, &["-Z", "-o", &files, "-l", "notls:127.0.0.1:0"]);
    let mut roots = RootCertStore::empty();
    roots.add(signed.cert.der().clone()).expect("a root");
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let config = Arc::new(config);
    let [port, _] = bench.server.ports()[..] else { panic!("two ports") };
    let greet = |n: usize| {
        let mut stream = connect(port);
        // Every other one stops in the middle of its handshake.
        if n.is_multiple_of(2) {
            let _ = stream.write_all(&[&[22, 3, 1, 0x40, 0][..], &[1; 16_000]].concat());
            return stream;
        }
        speak(stream, &config)
    };
    bench.fill(SMALL);
    let mut client = bench.server.connect();
    client.send(format!("set small 0 0 {SMALL}\r\n{}", "v".repeat(SMALL)).as_bytes());
    client.exchange(b"\r\n", b"STORED\r\n");
    let clients: Vec<TcpStream> = (0..bench.connections).map(greet).collect();
    bench.settle();
    println!("{} bytes of sessions", bench.figure("tls"));
    assert!(bench.figure("tls") > 0);
    bench.check("clients with TLS");
    drop(clients);
    let _ = fs::remove_dir_all(dir);
}

/// A handshake, and then gets whose answers are not read.
fn speak(mut stream: TcpStream, config: &Arc<ClientConfig>) -> TcpStream {
    stream.set_write_timeout(None).expect("no timeout");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(config.clone(), name).expect("a session");
    while session.is_handshaking() {
        if session.complete_io(&mut stream).is_err() {
            return stream;
        }
    }
    session.writer().write_all(&gets("small")).expect("room");
    stream.set_write_timeout(Some(Duration::from_millis(10))).expect("a timeout");
    while session.wants_write() {
        if session.write_tls(&mut stream).is_err() {
            break;
        }
    }
    stream
}
