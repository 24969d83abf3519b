//! UDP as clients meet it: frames, datagrams, and what is not answered.
//!
//! `RUSTCACHED_TEST_SERVER=/path/to/memcached` runs the first of these against memcached.

mod common;

use common::{Server, other_server};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

/// How long an expected datagram may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Silence that tells that no answer is coming.
const SILENCE: Duration = Duration::from_millis(300);
/// Frame, and the longest datagram of an answer.
const FRAME: usize = 8;
const DATAGRAM_MAX: usize = 1400;

struct Udp {
    socket: UdpSocket,
    next: u16,
}

impl Udp {
    fn to(server: &Server) -> Udp {
        Udp::from(Ipv4Addr::LOCALHOST, server.udp_ports[0], PATIENCE)
    }

    /// A client at `address`, where the server has `port`.
    fn from(address: Ipv4Addr, port: u16, patience: Duration) -> Udp {
        let socket = UdpSocket::bind((address, 0)).expect("a socket");
        socket.connect((address, port)).expect("a peer");
        socket.set_read_timeout(Some(patience)).expect("a timeout");
        Udp { socket, next: 0xfff0 }
    }

    fn send(&mut self, payload: &[u8]) -> u16 {
        self.next = self.next.wrapping_add(1);
        self.send_framed(&[&self.next.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0]].concat(), payload);
        self.next
    }

    fn send_framed(&self, frame: &[u8], payload: &[u8]) {
        self.socket.send(&[frame, payload].concat()).expect("a datagram");
    }

    /// The next answer, put together; all its datagrams are to carry `id`.
    fn answer(&self, id: u16) -> Vec<u8> {
        let mut parts = BTreeMap::new();
        let mut buffer = [0; 2 * DATAGRAM_MAX];
        loop {
            let len = self.socket.recv(&mut buffer).expect("an answer");
            assert!((FRAME + 1..=DATAGRAM_MAX).contains(&len), "{len} bytes");
            let number = |at: usize| u16::from_be_bytes([buffer[at], buffer[at + 1]]);
            assert_eq!((number(0), number(6)), (id, 0));
            let (sequence, total) = (number(2), number(4));
            assert!(sequence < total, "{sequence} of {total}");
            assert!(parts.insert(sequence, buffer[FRAME..len].to_vec()).is_none());
            if parts.len() == usize::from(total) {
                return parts.into_values().flatten().collect();
            }
        }
    }

    fn exchange(&mut self, request: &str, answer: &str) {
        let id = self.send(request.as_bytes());
        assert_eq!(String::from_utf8_lossy(&self.answer(id)), answer, "{request:.60}");
    }
}

fn server(args: &[&str]) -> Server {
    Server::start(&[&["-U", "-1"], args].concat())
}

/// As `mn` does over TCP: nothing before it was answered, or its answer would come first.
fn expect_silence(udp: &mut Udp) {
    udp.exchange("mn\r\n", "MN\r\n");
}

#[test]
fn text_and_meta_are_spoken() {
    let server = server(&[]);
    let mut udp = Udp::to(&server);
    for (request, answer) in [
        ("set a 7 0 5\r\nhello\r\n", "STORED\r\n"),
        ("get a\r\n", "VALUE a 7 5\r\nhello\r\nEND\r\n"),
        ("get none\r\n", "END\r\n"),
        ("set n 0 0 2\r\n41\r\n", "STORED\r\n"),
        ("incr n 1\r\n", "42\r\n"),
        ("decr n 2\r\n", "40\r\n"),
        ("delete n\r\n", "DELETED\r\n"),
        ("mg a v f\r\n", "VA 5 f7\r\nhello\r\n"),
        ("ms b 1 c\r\nx\r\n", ""),
        ("version\r\n", ""),
        ("nonsense\r\n", "ERROR\r\n"),
    ] {
        let id = udp.send(request.as_bytes());
        let got = udp.answer(id);
        let got = String::from_utf8_lossy(&got);
        assert!(!got.is_empty() && (answer.is_empty() || got == answer), "{request}: {got}");
    }
    // What one door stores, the other has.
    server.connect().exchange(b"get a\r\n", b"VALUE a 7 5\r\nhello\r\nEND\r\n");
    let value: String = ('a'..='z').cycle().take(20_000).collect();
    server.connect().exchange(format!("set k 0 0 20000\r\n{value}\r\n").as_bytes(), b"STORED\r\n");
    udp.exchange("get k\r\n", &format!("VALUE k 0 20000\r\n{value}\r\nEND\r\n"));
}

#[test]
fn several_commands_have_several_answers() {
    let server = server(&[]);
    let mut udp = Udp::to(&server);
    let id = udp.send(b"set a 0 0 1\r\nx\r\nset b 0 0 1 noreply\r\ny\r\nget a\r\nget b\r\n");
    for answer in ["STORED\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n", "VALUE b 0 1\r\ny\r\nEND\r\n"] {
        assert_eq!(String::from_utf8_lossy(&udp.answer(id)), answer);
    }
    expect_silence(&mut udp);
}

#[test]
fn what_is_no_request_is_dropped() {
    let server = server(&["-t", "1"]);
    let mut udp = Udp::to(&server);
    for frame in [&[][..], &[0], &[0, 1, 0, 0, 0, 1, 0]] {
        udp.send_framed(frame, b"");
    }
    for total in [[0, 0], [0, 2], [1, 1]] {
        udp.send_framed(&[0, 1, 0, 0, total[0], total[1], 0, 0], b"get a\r\n");
    }
    udp.send_framed(&[0, 1, 0, 0, 0, 1, 0, 0], b"");
    udp.send(b"get half a line");
    udp.send(b"quit\r\n");
    if other_server().is_none() {
        udp.send(b"ERROR\r\n");
        udp.send(b"VALUE a 0 1\r\nx\r\nEND\r\n");
        expect_silence(&mut udp);
        assert_eq!(server.stat("udp_requests_dropped"), Some(3 + 3 + 1 + 2));
    }
}

#[test]
fn a_burst_is_answered_in_order_and_another_client_meanwhile() {
    let server = server(&[]);
    let (mut udp, mut other) = (Udp::to(&server), Udp::to(&server));
    // No more answers than fit the buffer of a client that has not begun to read.
    let ids: Vec<u16> = (0..50)
        .map(|i| udp.send(format!("set k{i} 0 0 1\r\nx\r\nget k{i}\r\n").as_bytes()))
        .collect();
    other.exchange("mn\r\n", "MN\r\n");
    for (i, id) in ids.into_iter().enumerate() {
        assert_eq!(udp.answer(id), b"STORED\r\n");
        assert_eq!(udp.answer(id), format!("VALUE k{i} 0 1\r\nx\r\nEND\r\n").as_bytes());
    }
}

#[test]
fn udp_sockets_are_shown() {
    let server = server(&["-t", "2"]);
    let mut udp = Udp::to(&server);
    udp.exchange("mn\r\n", "MN\r\n");
    let mut client = server.connect();
    client.send(b"stats conns\r\n");
    let lines: Vec<String> =
        std::iter::repeat_with(|| client.line()).take_while(|line| line != "END").collect();
    let address = format!("addr udp:127.0.0.1:{}", server.udp_ports[0]);
    for what in [":UDP UDP", &address] {
        assert_eq!(lines.iter().filter(|l| l.ends_with(what)).count(), 2, "{lines:?}");
    }
    // Two of UDP, one listener and this client, but for one.
    client.send(b"stats\r\n");
    let stats: Vec<String> =
        std::iter::repeat_with(|| client.line()).take_while(|line| line != "END").collect();
    assert!(stats.contains(&"STAT curr_connections 3".into()), "{stats:?}");
}

#[test]
fn an_answer_has_its_limit() {
    let server = server(&["-o", "udp_reply_max=4"]);
    let mut udp = Udp::to(&server);
    let value = "v".repeat(4000);
    udp.exchange(&format!("set k 0 0 4000\r\n{value}\r\n"), "STORED\r\n");
    udp.exchange("get k\r\n", &format!("VALUE k 0 4000\r\n{value}\r\nEND\r\n"));
    udp.exchange("get k k\r\n", "SERVER_ERROR answer too long for UDP\r\n");
    udp.exchange("mn\r\n", "MN\r\n");
}

/// Loopback is exempt from the bound, so this machine's other address is asked, where it has one.
#[test]
fn a_network_has_its_rate() {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    let own = probe.connect("192.0.2.1:9").and_then(|()| probe.local_addr());
    let Some(IpAddr::V4(own)) = own.ok().map(|a| a.ip()).filter(|own| !own.is_loopback()) else {
        println!("skipped: this machine has no address but loopback");
        return;
    };
    let listen = format!("127.0.0.1,{own}");
    let server = server(&["-l", &listen, "-o", "udp_reply_rate=10"]);
    let mut udp = Udp::from(own, server.udp_ports[1], SILENCE);
    let value = "v".repeat(4000);
    udp.exchange(&format!("set k 0 0 4000\r\n{value}\r\n"), "STORED\r\n");
    // 20 answers of some 4000 bytes are eight seconds' worth.
    for _ in 0..20 {
        udp.send(b"get k\r\n");
    }
    let mut received = 0;
    let mut buffer = [0; DATAGRAM_MAX];
    loop {
        match udp.socket.recv(&mut buffer) {
            Ok(len) => received += len,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => panic!("{e}"),
        }
    }
    let dropped = server.stat("udp_replies_dropped").expect("a figure");
    assert!((4000..40_000).contains(&received) && dropped >= 10, "{received}, {dropped} dropped");
}
