//! UDP: each datagram is a request that is answered at once, and nothing is kept between them but
//! an answer that the system does not take yet.
//!
//! What is decoded and run is the same as over TCP. Every command of a datagram gets an answer of
//! its own, in as many datagrams as it needs. What the client would have to continue (a value of
//! which not all is here) or the server (a dump) is refused.

use super::batch::{key_of, log_request, run_one};
use super::meter::Meter;
use super::turn::OUTBOX_KEPT;
use super::value::{BAD_CHUNK, LINE_END};
use super::{Desk, Next, Ready, Workspace};
use crate::clock::Seconds;
use crate::command::{self, Command, Error, Replies, Reply, Say};
use crate::protocol::outbox::{Outbox, Progress};
use crate::protocol::udp_frame::{self, PAYLOAD_MAX, Request};
use crate::protocol::{Decoded, Decoder, Echo, Encoder};
use crate::stats::{ConnState, Stats};
use bumpalo::Bump;
use log::{Level, debug, log_enabled};
use std::io::{self, ErrorKind};
use std::mem::take;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes of the headers that carry a datagram, at least: IPv4's and UDP's.
const WIRE_EXTRA: usize = 28;
const TOO_LONG: Error = Error::Server("answer too long for UDP");
const NOT_HERE: Error = Error::Client("not available over UDP");

/// A UDP socket and the clients behind it.
pub struct Datagrams {
    socket: UdpSocket,
    meter: Arc<Meter>,
    /// Bytes of all answers to one datagram, with what carries them.
    answer_max: usize,
    answer: Answer,
    last_command: Seconds,
    readable: bool,
}

/// The answers to one datagram, cut in datagrams.
#[derive(Default)]
struct Answer {
    /// `None` only before the first one.
    peer: Option<SocketAddr>,
    /// Datagrams, each with its frame.
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    /// How many of them are sent.
    sent: usize,
}

/// What became of the front of a datagram.
enum Step<'a> {
    /// So many bytes were a command that was run.
    Ran(usize, Echo<'a>),
    /// Nothing that follows can be understood.
    Stop,
}

impl Datagrams {
    /// The socket must not block.
    pub fn new(socket: UdpSocket, meter: Arc<Meter>, w: &Workspace) -> Datagrams {
        let store = w.store();
        let answer_max = store.settings().udp.reply_max as usize;
        let last_command = store.clock().now();
        let (answer, readable) = (Answer::default(), false);
        let datagrams = Datagrams { socket, meter, answer_max, answer, last_command, readable };
        datagrams.show(store.stats());
        debug!("<{} server listening (udp)", datagrams.file());
        datagrams
    }

    /// One turn: answers as many commands as one connection may have, and the rest of the last
    /// datagram's.
    pub fn drive(&mut self, w: &mut Workspace, ready: Ready) -> Next {
        self.readable |= ready.readable;
        w.desk.local.log.attend(self.file() as i32);
        let next = self.turn(w);
        self.show(w.store().stats());
        next
    }

    /// Takes its leave of the statistics and closes the socket.
    pub fn close(self, stats: &Stats) {
        stats.conns.set(self.file(), ConnState::Closed, self.last_command);
    }

    fn turn(&mut self, w: &mut Workspace) -> Next {
        let mut left = w.desk.requests;
        while left > 0 {
            if self.send(&w.desk) == Progress::Blocked || !self.readable {
                return Next::Wait;
            }
            left -= 1;
            match self.socket.recv_from(&mut w.input) {
                Ok((len, peer)) => {
                    let more = self.receive(&w.input[..len], peer, &mut w.desk);
                    left = left.saturating_sub(more);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    self.readable = false;
                    if e.kind() != ErrorKind::WouldBlock {
                        debug!("<{} {e}", self.file());
                    }
                }
            }
        }
        match self.send(&w.desk) {
            Progress::Blocked => Next::Wait,
            Progress::Done => Next::Again,
        }
    }

    /// Returns how many commands came with the datagram beside the first.
    fn receive(&mut self, datagram: &[u8], peer: SocketAddr, desk: &mut Desk) -> usize {
        desk.local.counters.thread.bytes_read.add(datagram.len() as u64);
        let Some(request) = udp_frame::request(datagram) else {
            desk.store.stats().server.udp_requests_dropped.fetch_add(1, Relaxed);
            return 0;
        };
        self.last_command = desk.store.clock().now();
        self.answer.start(peer);
        let commands = self.run(request, desk);
        let (request, reply) = (WIRE_EXTRA + datagram.len(), self.answer.wire_len());
        if !self.meter.admit(peer.ip(), self.last_command, request, reply) {
            desk.store.stats().server.udp_replies_dropped.fetch_add(1, Relaxed);
            self.answer.clear();
        }
        commands.saturating_sub(1)
    }

    /// Runs the commands of one request in order. Beyond `answer_max` bytes of answers an error
    /// takes the last one's place, and what would follow is not run. Returns how many were run.
    fn run(&mut self, request: Request<'_>, desk: &mut Desk) -> usize {
        let arena = take(&mut desk.arena);
        let mut decoder = Decoder::default();
        let (mut rest, mut commands) = (request.payload, 0);
        while !rest.is_empty() {
            if log_enabled!(Level::Debug) {
                log_request(self.file(), &decoder, rest);
            }
            desk.piped = false;
            commands += 1;
            let step = step(&mut decoder, rest, &arena, desk);
            let (used, full) = match step {
                Step::Ran(used, echo) => (used, self.is_full(&echo, desk)),
                Step::Stop => (rest.len(), false),
            };
            rest = &rest[used.min(rest.len())..];
            if !decoder.in_multiget() || full || rest.is_empty() {
                self.answer.add(request.id, &mut desk.outbox);
            }
            if full {
                break;
            }
        }
        if desk.outbox.capacity() > OUTBOX_KEPT {
            *desk.outbox = Outbox::default();
        }
        desk.arena = arena;
        desk.arena.reset();
        commands
    }

    fn is_full(&self, echo: &Echo<'_>, desk: &mut Desk) -> bool {
        let full = self.answer.wire_len() + desk.outbox.len() > self.answer_max;
        if full {
            desk.outbox.clear();
            refuse(TOO_LONG, *echo, desk);
        }
        full
    }

    /// Sends what the last request is still owed. What cannot be sent at all is dropped: the client
    /// takes it for lost on the way.
    fn send(&mut self, desk: &Desk) -> Progress {
        let mut written = 0;
        let progress = self.answer.send(&self.socket, &mut written).unwrap_or_else(|e| {
            debug!("<{} {e}", self.file());
            self.answer.clear();
            Progress::Done
        });
        if written > 0 {
            desk.local.counters.thread.bytes_written.add(written as u64);
        }
        progress
    }

    fn show(&self, stats: &Stats) {
        stats.conns.set(self.file(), ConnState::Datagram, self.last_command);
    }

    fn file(&self) -> usize {
        self.socket.as_raw_fd() as usize
    }
}

impl Answer {
    fn start(&mut self, peer: SocketAddr) {
        self.clear();
        self.peer = Some(peer);
    }

    fn clear(&mut self) {
        if self.bytes.capacity() > OUTBOX_KEPT {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.ends.clear();
        self.sent = 0;
    }

    /// What its datagrams take on the network: a flood of many small ones is one of headers.
    fn wire_len(&self) -> usize {
        self.bytes.len() + self.ends.len() * WIRE_EXTRA
    }

    /// Moves one command's answer here, in frames; a command without one adds nothing.
    fn add(&mut self, id: u16, outbox: &mut Outbox) {
        let total = udp_frame::datagrams(outbox.len());
        if total == 0 {
            return;
        }
        // The limit on answers leaves no more datagrams than can be numbered.
        let total = u16::try_from(total).unwrap_or(u16::MAX);
        let mut frames = Frames { answer: self, id, total, sequence: 0, room: 0 };
        // A Vec takes everything.
        let _ = outbox.write_to(&mut frames);
        self.ends.push(self.bytes.len());
    }

    fn send(&mut self, socket: &UdpSocket, written: &mut usize) -> io::Result<Progress> {
        let Some(peer) = self.peer else { return Ok(Progress::Done) };
        while let Some(&end) = self.ends.get(self.sent) {
            let start = self.sent.checked_sub(1).map_or(0, |before| self.ends[before]);
            match socket.send_to(&self.bytes[start..end], peer) {
                Ok(_) => {
                    *written += end - start;
                    self.sent += 1;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Progress::Blocked),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.clear();
        Ok(Progress::Done)
    }
}

/// Cuts what is written into datagrams of an answer; the last one is still to be ended.
struct Frames<'a> {
    answer: &'a mut Answer,
    id: u16,
    total: u16,
    sequence: u16,
    /// Bytes that the present datagram still takes.
    room: usize,
}

impl io::Write for Frames<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            if self.sequence > 0 {
                self.answer.ends.push(self.answer.bytes.len());
            }
            let header = udp_frame::header(self.id, self.sequence, self.total);
            self.answer.bytes.extend_from_slice(&header);
            self.sequence = self.sequence.wrapping_add(1);
            self.room = PAYLOAD_MAX;
        }
        let taken = bytes.len().min(self.room);
        self.answer.bytes.extend_from_slice(&bytes[..taken]);
        self.room -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decodes and runs one command.
fn step<'a>(decoder: &mut Decoder, bytes: &'a [u8], arena: &'a Bump, desk: &mut Desk) -> Step<'a> {
    let (used, command, echo) = match decoder.decode(bytes, arena) {
        Decoded::Command { used, command, echo } => (used, command, echo),
        Decoded::Refused { used, swallow, error, echo } => {
            refuse(error, echo, desk);
            let swallow = usize::try_from(swallow).unwrap_or(usize::MAX);
            return Step::Ran(used.saturating_add(swallow), echo);
        }
        Decoded::Login { used, len, echo, .. } => {
            refuse(Error::Unknown, echo, desk);
            return Step::Ran(used.saturating_add(len as usize), echo);
        }
        Decoded::Incomplete | Decoded::HangUp => return Step::Stop,
    };
    let (mut end, mut value) = (used, None);
    match &command {
        Command::Dump(_) | Command::Watch(_) => {
            refuse(NOT_HERE, echo, desk);
            return Step::Ran(used, echo);
        }
        Command::Set(set) => {
            let len = set.len as usize;
            end = used.saturating_add(len).saturating_add(echo.value_end_len());
            let Some(rest) = bytes.get(used..end) else {
                refuse(BAD_CHUNK, echo, desk);
                return Step::Stop;
            };
            let (bytes, line_end) = rest.split_at(len);
            value = (line_end.is_empty() || line_end == LINE_END).then_some(bytes);
        }
        _ => {}
    }
    let hash = key_of(&command).map(|key| desk.store.hash(key));
    match run_one(&command, &echo, value, hash, desk) {
        command::Next::Continue => Step::Ran(end, echo),
        command::Next::Close => Step::Stop,
    }
}

fn refuse(error: Error, echo: Echo<'_>, desk: &mut Desk) {
    Encoder::new(&mut desk.outbox, &echo).reply(Reply::Say(Say::Error(error)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::{Settings, Udp};
    use crate::store::Store;

    const PEER: ([u8; 4], u16) = ([192, 0, 2, 1], 5);

    /// A socket that is never read: datagrams are handed to it by the tests.
    struct Bench {
        w: Workspace,
        datagrams: Datagrams,
    }

    impl Bench {
        fn new(reply_max: u32, reply_rate: u32) -> Bench {
            let udp = Udp { listen: Vec::new(), reply_max, reply_rate };
            let settings = Settings { udp, ..Settings::default() };
            let store = Store::new(Arc::new(settings), Arc::new(Clock::manual(1_700_000_000)));
            let (store, wake) = (store.expect("a store"), Arc::new(|| ()));
            let w = Workspace::new(store, Arc::default(), None, wake);
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let meter = Arc::new(Meter::new(reply_rate));
            let datagrams = Datagrams::new(socket, meter, &w);
            Bench { w, datagrams }
        }

        /// The datagrams that answer one with `payload`, without their frames' request id.
        fn ask_bytes(&mut self, payload: &[u8]) -> Vec<(u16, u16, Vec<u8>)> {
            let datagram = [&udp_frame::header(0x0809, 0, 1)[..], payload].concat();
            self.datagrams.receive(&datagram, PEER.into(), &mut self.w.desk);
            let answer = &self.datagrams.answer;
            assert!(self.w.desk.outbox.is_empty());
            let starts = std::iter::once(&0).chain(&answer.ends);
            let frames = starts.zip(&answer.ends).map(|(from, to)| &answer.bytes[*from..*to]);
            let parted = frames.map(|frame| {
                let (header, payload) = frame.split_at(udp_frame::HEADER_LEN);
                let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
                assert_eq!((number(0), number(6)), (0x0809, 0));
                (number(2), number(4), payload.to_vec())
            });
            parted.collect()
        }

        fn ask(&mut self, payload: &str) -> Vec<(u16, u16, Vec<u8>)> {
            self.ask_bytes(payload.as_bytes())
        }

        /// The same, where every answer is one datagram.
        fn texts(&mut self, payload: &str) -> Vec<String> {
            let answers = self.ask(payload).into_iter();
            let text = |(sequence, total, bytes)| {
                assert_eq!((sequence, total), (0, 1), "{payload}");
                String::from_utf8(bytes).expect("text")
            };
            answers.map(text).collect()
        }

        fn dropped(&self) -> (u64, u64) {
            let server = &self.w.desk.store.stats().server;
            (server.udp_requests_dropped.load(Relaxed), server.udp_replies_dropped.load(Relaxed))
        }
    }

    #[test]
    fn each_command_is_answered_by_itself() {
        let mut bench = Bench::new(1 << 17, 0);
        let answers = bench.texts(
            "set a 0 0 1\r\nx\r\nset b 0 0 1 noreply\r\ny\r\nget a no b\r\nmg a v\r\nmg no v q\r\n\
             get no\r\nset a 0 0 2\r\nabcdefg\r\nset a 0 0 x\r\nmn\r\nincr c 1\r\nget half",
        );
        assert_eq!(
            answers,
            [
                "STORED\r\n",
                "VALUE a 0 1\r\nx\r\nVALUE b 0 1\r\ny\r\nEND\r\n",
                "VA 1\r\nx\r\n",
                "END\r\n",
                "CLIENT_ERROR bad data chunk\r\n",
                "ERROR\r\n",
                "CLIENT_ERROR bad command line format\r\n",
                "MN\r\n",
                "NOT_FOUND\r\n",
            ]
        );
        assert_eq!(bench.dropped(), (0, 0));
    }

    /// A binary request of an opcode, extras, a key and a value.
    fn binary(opcode: u8, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
        let body = (extras.len() + key.len() + value.len()) as u32;
        let lens = [0, key.len() as u8, extras.len() as u8, 0, 0, 0];
        let header = [&[0x80, opcode], &lens[..], &body.to_be_bytes(), &[7; 4], &[0; 8]].concat();
        [&header[..], extras, key, value].concat()
    }

    #[test]
    fn binary_is_spoken_on_the_same_socket() {
        let [get, set, quit, getq, noop, stat] = [0, 1, 7, 9, 10, 16];
        let mut bench = Bench::new(1 << 17, 0);
        let whole = binary(set, &[0; 8], b"a", b"x");
        let requests = [&whole[..], &binary(getq, b"", b"no", b""), &binary(get, b"", b"a", b"")];
        let end = [binary(noop, b"", b"", b""), binary(quit, b"", b"", b""), whole.clone()];
        let answers = bench.ask_bytes(&[requests.concat(), end.concat()].concat());
        let opcodes: Vec<(u8, u8)> =
            answers.iter().map(|(.., bytes)| (bytes[0], bytes[1])).collect();
        assert_eq!(opcodes, [set, get, noop, quit].map(|opcode| (0x81, opcode)));
        assert!(answers[1].2.ends_with(b"x"));
        let stats = bench.ask_bytes(&binary(stat, b"", b"", b""));
        assert!(stats.len() > 1 && stats.iter().all(|(_, of, _)| usize::from(*of) == stats.len()));
        assert_eq!(bench.ask_bytes(&whole[..20]), [], "half a header");
        let cut = bench.ask_bytes(&whole[..whole.len() - 1]);
        assert_eq!(cut[0].2[..2], [0x81, set]);
        assert_ne!(cut[0].2[6..8], [0, 0], "a value that is cut off is refused");
        assert_eq!(bench.texts("get a\r\n"), ["VALUE a 0 1\r\nx\r\nEND\r\n"]);
    }

    #[test]
    fn what_needs_more_than_a_datagram_is_refused() {
        let mut bench = Bench::new(1 << 17, 0);
        let cut = "CLIENT_ERROR bad data chunk\r\n";
        for request in ["set a 0 0 4\r\nabc", "set a 0 0 9000000\r\nabc", "ms a 2\r\nab\n"] {
            assert_eq!(bench.texts(request), [cut], "{request}");
        }
        for dump in ["lru_crawler metadump all\r\n", "lru_crawler mgdump hash\r\n", "watch\r\n"] {
            let answers = ["CLIENT_ERROR not available over UDP\r\n", "MN\r\n"];
            assert_eq!(bench.texts(&format!("{dump}mn\r\n")), answers);
        }
        assert_eq!(bench.texts("mn\r\nquit\r\nmn\r\n"), ["MN\r\n"]);
        assert_eq!(bench.texts("get a"), Vec::<String>::new());
        assert_eq!(bench.texts("get a\r\n"), ["END\r\n"], "nothing is kept between datagrams");
    }

    #[test]
    fn a_long_answer_is_cut_in_full_datagrams() {
        let mut bench = Bench::new(1 << 17, 0);
        for len in [1, 1300, 1392, 2000, 20_000, 60_000] {
            let value: String = ('a'..='z').cycle().take(len).collect();
            assert_eq!(bench.texts(&format!("set k 0 0 {len}\r\n{value}\r\n")), ["STORED\r\n"]);
            let wanted = format!("VALUE k 0 {len}\r\n{value}\r\nEND\r\n");
            let answers = bench.ask("get k\r\n");
            let total = wanted.len().div_ceil(PAYLOAD_MAX);
            assert_eq!(answers.len(), total, "{len}");
            for (at, (sequence, of, payload)) in answers.iter().enumerate() {
                assert_eq!((usize::from(*sequence), usize::from(*of)), (at, total));
                assert!(payload.len() == PAYLOAD_MAX || at + 1 == total, "{len}");
            }
            let all: Vec<u8> = answers.into_iter().flat_map(|(.., payload)| payload).collect();
            assert!(all == wanted.as_bytes(), "{len}");
        }
    }

    #[test]
    fn answers_to_one_datagram_are_bounded() {
        let mut bench = Bench::new(4 << 10, 0);
        let too_long = "SERVER_ERROR answer too long for UDP\r\n";
        let value = "v".repeat(3000);
        bench.texts(&format!("set k 0 0 3000\r\n{value}\r\nset l 0 0 60000\r\n"));
        assert_eq!(bench.ask("get k\r\n").len(), 3);
        assert_eq!(bench.texts("get k k\r\nget no\r\n"), [too_long], "what follows is not run");
        let mut answers = bench.ask("get k\r\nget k\r\nset k 0 0 1\r\nx\r\n");
        assert_eq!(answers.pop(), Some((0, 1, too_long.into())));
        assert_eq!(answers.len(), 3);
        // A value that is sent from its chunks, and thousands of keys.
        let value = "v".repeat(60_000);
        assert_eq!(bench.texts(&format!("set l 0 0 60000\r\n{value}\r\n")), ["STORED\r\n"]);
        assert_eq!(bench.texts("get l\r\n"), [too_long]);
        assert_eq!(bench.texts(&format!("get {}\r\n", "l ".repeat(30_000))), [too_long]);
        assert!(bench.datagrams.answer.bytes.capacity() < 64 << 10);
    }

    #[test]
    fn a_network_is_sent_little_more_than_came_from_it() {
        let mut bench = Bench::new(1 << 17, 10_000);
        bench.texts(&format!("set k 0 0 3000\r\n{}\r\n", "v".repeat(3000)));
        let sent = |bench: &mut Bench| bench.ask("get k\r\n").len();
        assert_eq!([(); 4].map(|()| sent(&mut bench)), [3, 3, 3, 0]);
        assert_eq!(bench.dropped(), (0, 1));
        // A set is longer than its answer, and is answered all the same.
        assert_eq!(bench.texts("set a 0 0 3\r\nabc\r\n"), ["STORED\r\n"]);
        bench.w.desk.store.clock().advance(1);
        bench.w.desk.store.clock().refresh();
        assert_eq!(sent(&mut bench), 3, "a second later");
    }

    #[test]
    fn many_small_answers_are_not_free_by_their_bytes_alone() {
        let mut bench = Bench::new(1 << 20, 1000);
        let padding = format!("set a 0 0 20000 noreply\r\n{}\r\n", "x".repeat(20_000));
        let request = padding + &"mn\r\n".repeat(1000);
        assert_eq!(bench.ask(&request).len(), 0, "12000 bytes, but in a thousand datagrams");
        assert_eq!(bench.dropped(), (0, 1));
        assert_eq!(bench.texts("mn\r\n"), ["MN\r\n"]);
    }

    #[test]
    fn answers_that_went_astray_are_not_answered() {
        let mut bench = Bench::new(1 << 17, 0);
        for answer in ["ERROR\r\n", "END\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n", "5\r\n"] {
            assert!(bench.ask(answer).is_empty(), "{answer}");
        }
        assert_eq!(bench.dropped(), (4, 0));
    }
}
