//! Values that are announced and do not come, come in part, or come wrongly: what they cost others,
//! and what their clients are told.

mod common;

use common::packets::request;
use common::{Client, Server, wait_until};
use nix::sys::signal::Signal;

const SET: u8 = 1;
const NO_MEMORY: &[u8] = b"SERVER_ERROR out of memory storing object\r\n";
const NO_MEMORY_FOR_THE_REST: &[u8] = b"SERVER_ERROR Out of memory during read\r\n";

/// Stores so many values of 1 KB.
fn fill(client: &mut Client, family: &str, count: usize) {
    let value = "v".repeat(1000);
    for first in (0..count).step_by(500) {
        let sets = first..count.min(first + 500);
        let batch: String =
            sets.map(|n| format!("set {family}{n} 0 0 1000 noreply\r\n{value}\r\n")).collect();
        client.send(batch.as_bytes());
        client.exchange(b"mn\r\n", b"MN\r\n");
    }
}

fn figure(client: &mut Client, topic: &str, name: &str) -> u64 {
    client.stats(topic)[name].parse().expect("a number")
}

fn items(client: &mut Client) -> u64 {
    client.stat("curr_items").expect("a figure")
}

fn arriving(client: &mut Client) -> u64 {
    figure(client, " memory", "pages_arriving")
}

/// Clients that each send this, and stay.
fn stay(server: &Server, count: usize, bytes: impl Fn(usize) -> Vec<u8>) -> Vec<Client> {
    let start = |n: usize| {
        let mut client = server.connect();
        client.send(&bytes(n));
        client
    };
    (0..count).map(start).collect()
}

/// As many connections wait for a value.
fn await_values(server: &Server, count: usize) {
    wait_until("values that are waited for", || {
        let conns = server.connect().stats(" conns");
        conns.values().filter(|state| *state == "conn_nread").count() >= count
    });
}

#[test]
fn values_that_are_only_announced_take_nothing() {
    for args in [&["-m", "64"][..], &["-m", "64", "-o", "layout=memcached"]] {
        let server = Server::start(args);
        let mut client = server.connect();
        fill(&mut client, "before", 20_000);
        let lines: [fn(usize) -> Vec<u8>; 4] = [
            |n| format!("set x{n} 0 0 1000000\r\n").into_bytes(),
            |n| format!("ms x{n} 1000000\r\n").into_bytes(),
            |n| format!("append x{n} 0 0 100000\r\n").into_bytes(),
            |n| {
                let key = format!("x{n}");
                let mut packet = request(SET, 0, 0, [&[0; 8], key.as_bytes(), &[0; 5000]]);
                packet.truncate(packet.len() - 5000);
                packet
            },
        ];
        let stayed: Vec<Client> = lines.iter().flat_map(|line| stay(&server, 70, line)).collect();
        await_values(&server, 280);
        assert_eq!((items(&mut client), arriving(&mut client)), (20_000, 0));
        fill(&mut client, "after", 2_000);
        assert_eq!(client.stat("evictions"), Some(0));
        drop(stayed);
    }
}

/// Nor do lengths without measure.
#[test]
fn what_is_announced_may_be_as_large_as_one_likes() {
    for (memory, largest) in [("256", "128m"), ("2048", "1g")] {
        let server = Server::start(&["-m", memory, "-I", largest]);
        let mut client = server.connect();
        fill(&mut client, "before", 2_000);
        let length = if largest == "1g" { 1_000_000_000_u64 } else { 128_000_000 };
        let line = format!("set x 0 0 {length}\r\n0123456789");
        let stayed = stay(&server, 3, |_| line.clone().into_bytes());
        await_values(&server, 3);
        wait_until("their first chunks", || arriving(&mut client) >= 3 * 8192);
        assert!(arriving(&mut client) <= 3 * 8192);
        assert_eq!((items(&mut client), client.stat("evictions")), (2_000, Some(0)));
        drop(stayed);
        wait_until("their memory", || arriving(&mut client) == 0);
        for beyond in ["2000000000", "4294967290"] {
            let mut other = server.connect();
            other.send(format!("set y 0 0 {beyond}\r\n").as_bytes());
            let line = other.line();
            assert!(line.contains("ERROR"), "{line}");
        }
    }
}

#[test]
fn halves_of_values_leave_others_alone_and_their_memory_at_once() {
    let server = Server::start(&["-m", "64", "-c", "2000"]);
    let mut client = server.connect();
    fill(&mut client, "before", 20_000);
    let half = |n: usize| {
        let mut bytes = format!("set x{n} 0 0 100000\r\n").into_bytes();
        bytes.resize(bytes.len() + 50_000, b'h');
        bytes
    };
    let stayed = stay(&server, 700, half);
    await_values(&server, 700);
    // What came beyond half of -m had others dropped.
    wait_until("what came", || arriving(&mut client) > 25 << 20);
    assert!(arriving(&mut client) <= 32 << 20);
    assert!(items(&mut client) > 20_000 - 12_000, "{}", items(&mut client));
    let value = "w".repeat(200_000);
    for n in 0..20 {
        let set = format!("set other{n} 0 0 {}\r\n{value}\r\n", value.len());
        client.exchange(set.as_bytes(), b"STORED\r\n");
    }
    fill(&mut client, "beside", 2_000);
    let mut stayed = stayed.into_iter();
    // Each is answered, and in step: the last ones are stored, the first ones not.
    let end = |mut half: Client, answer: &[u8]| {
        let mut rest = vec![b'h'; 50_000];
        rest.extend_from_slice(b"\r\nmn\r\n");
        half.exchange(&rest, &[answer, b"MN\r\n"].concat());
    };
    end(stayed.next().expect("the first"), NO_MEMORY);
    end(stayed.next_back().expect("the last"), b"STORED\r\n");
    drop(stayed);
    wait_until("their memory", || arriving(&mut client) == 0);
    let left = items(&mut client);
    fill(&mut client, "later", 15_000);
    assert!(items(&mut client) >= left + 12_000, "{left}, {}", items(&mut client));
}

#[test]
fn values_come_one_byte_at_a_time_and_end_as_they_should_or_not() {
    let server = Server::start(&["-m", "64"]);
    let mut client = server.connect();
    for (len, ending, answer) in [
        (3_000, "\r\n", &b"STORED\r\n"[..]),
        (20_000, "\r\n", b"STORED\r\n"),
        (20_000, "xx", b"CLIENT_ERROR bad data chunk\r\n"),
    ] {
        let value = "b".repeat(len);
        client.exchange(b"set k 0 0 3\r\nold\r\n", b"STORED\r\n");
        client.send(format!("set k 0 0 {len}\r\n").as_bytes());
        let (bytes, large) = value.as_bytes().split_at(2_000);
        bytes.iter().for_each(|byte| client.send(&[*byte]));
        client.send(large);
        ending.as_bytes().iter().for_each(|byte| client.send(&[*byte]));
        client.expect(answer);
        let now = if ending == "\r\n" { &value } else { "old" };
        client.exchange(
            b"get k\r\n",
            format!("VALUE k 0 {}\r\n{now}\r\nEND\r\n", now.len()).as_bytes(),
        );
        assert_eq!(arriving(&mut server.connect()), 0);
    }
    // A connection that dies.
    for _ in 0..3 {
        let mut half = server.connect();
        half.send(format!("set k 0 0 500000\r\n{}", "d".repeat(400_000)).as_bytes());
        wait_until("what came", || arriving(&mut client) > 390_000);
        half.reset();
        wait_until("its memory", || arriving(&mut client) == 0);
    }
    assert!(client.ask_value("k").starts_with(b"VALUE k 0 3\r\nold"));
}

/// However a large value, its line end, what follows and the end of the connection are cut.
#[test]
fn what_follows_a_large_value_is_in_step() {
    let server = Server::start(&["-m", "64"]);
    let value = "v".repeat(100_000);
    let sets = format!("set a 0 0 100000\r\n{value}\r\nset b 0 0 100000\r\n{value}\r\n");
    let requests = format!("{sets}get none\r\nset c 0 0 3\r\nabc\r\nget c\r\nmn\r\n");
    let answers = b"STORED\r\nSTORED\r\nEND\r\nSTORED\r\nVALUE c 0 3\r\nabc\r\nEND\r\nMN\r\n";
    let end_of_first = "set a 0 0 100000\r\n".len() + value.len();
    let ends = [end_of_first, sets.len() - 2].map(|end| end - 1..end + 4);
    let mut control = server.connect();
    for cut in ends.into_iter().flatten().chain([30_000, sets.len() + 5]) {
        let mut client = server.connect();
        let (front, rest) = requests.as_bytes().split_at(cut);
        let mut read = control.stat("bytes_read").expect("a figure") + front.len() as u64;
        client.send(front);
        wait_until("the front to be read", || {
            read += "stats\r\n".len() as u64;
            control.stat("bytes_read") >= Some(read)
        });
        client.send(rest);
        client.shut_down();
        client.expect(answers);
        assert_eq!((client.next(), client.timed_out), (None, false));
    }
    // The end comes with the last byte of the value's line end.
    let mut client = server.connect();
    client.send(&sets.as_bytes()[..30_000]);
    wait_until("the front to be read", || arriving(&mut control) > 29_000);
    server.pause();
    client.send(&sets.as_bytes()[30_000..end_of_first + 2]);
    client.shut_down();
    server.signal(Signal::SIGCONT);
    client.expect(b"STORED\r\n");
    assert_eq!((client.next(), client.timed_out), (None, false));
}

/// With -M, where memory runs out in the middle of a value.
#[test]
fn a_value_that_memory_runs_out_for_is_swallowed_and_told() {
    let server = Server::start(&["-m", "16", "-M"]);
    let mut client = server.connect();
    let mut n = 0;
    let value = "v".repeat(3_000);
    loop {
        client.send(format!("set s{n} 0 0 3000\r\n{value}\r\n").as_bytes());
        if client.line() != "STORED" {
            break;
        }
        n += 1;
    }
    (0..100).for_each(|n| client.exchange(format!("delete s{n}\r\n").as_bytes(), b"DELETED\r\n"));
    // Their pages go back, and then there are some chunks for large values.
    let room = format!("set room 0 0 20000\r\n{}\r\n", "r".repeat(20_000));
    wait_until("room for a large value", || {
        client.send(room.as_bytes());
        client.line() == "STORED"
    });
    client.exchange(b"delete room\r\n", b"DELETED\r\n");
    for (line, len, answer) in [
        ("set x 0 0 900000", 900_000, NO_MEMORY_FOR_THE_REST),
        ("set x 0 0 400000", 400_000, NO_MEMORY),
        ("ms x 900000", 900_000, NO_MEMORY_FOR_THE_REST),
        ("ms x 400000", 400_000, NO_MEMORY),
        ("append s500 0 0 900000", 900_000, NO_MEMORY_FOR_THE_REST),
    ] {
        let mut request = format!("{line}\r\n").into_bytes();
        request.resize(request.len() + len, b'x');
        request.extend_from_slice(b"\r\nmn\r\n");
        client.exchange(&request, &[answer, b"MN\r\n"].concat());
        assert_eq!(arriving(&mut client), 0, "{line}");
    }
    let mut binary = server.connect();
    binary.send(&request(SET, 0, 0, [&[0; 8], b"x", &vec![b'x'; 900_000]]));
    binary.send(&request(10, 0, 0, [b"", b"", b""]));
    let answer = binary.take(24);
    let len = u32::from_be_bytes(answer[8..12].try_into().expect("four bytes"));
    assert_eq!((answer[1], answer[7]), (SET, 0x82), "no memory");
    assert_eq!(binary.take(len as usize), b"Out of memory during read");
    assert_eq!(binary.take(24)[1], 10);
    assert!(client.ask_value("s500").starts_with(b"VALUE s500 0 3000\r\n"));
}

/// What a get says of a key.
trait Ask {
    fn ask_value(&mut self, key: &str) -> Vec<u8>;
}

impl Ask for Client {
    fn ask_value(&mut self, key: &str) -> Vec<u8> {
        self.send(format!("get {key}\r\n").as_bytes());
        let head = self.line();
        let len = head.rsplit(' ').next().and_then(|len| len.parse().ok()).unwrap_or(0);
        let value = self.take(len);
        assert_eq!((self.line(), self.line()), (String::new(), "END".into()));
        [head.as_bytes(), b"\r\n", &value].concat()
    }
}
