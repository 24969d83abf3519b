//! What the fuzz targets share: a store small enough to be made anew for every input, connections
//! over socket pairs, and what must be true of all of them.

pub mod restart;

use bumpalo::Bump;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rustcached::auth::Auth;
use rustcached::clock::Clock;
use rustcached::command::Command;
use rustcached::config::{ListenTraits, Protocol, Settings, Udp};
use rustcached::connection::{
    Arrival, Connection, Datagrams, Meter, Next, Ready, Transport, Workspace,
};
use rustcached::protocol::{Decoded, Decoder, LINE_MAX, udp_frame};
use rustcached::store::{Key, Set, Store};
use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

/// Turns that any input is done within: a dump or a large answer takes many.
const TURNS_MAX: usize = 100_000;
/// Ticks of the upkeep after each input.
const TICKS: usize = 16;
/// Bytes of all answers to one datagram.
const UDP_ANSWER_MAX: u32 = 16 << 10;
/// What clients must know to see [`SECRET`].
const PASSWORD: &[u8] = b"pa55word";
const SECRET: &[u8] = b"the treasure";
/// Words after which two servers may answer differently: what they say depends on the time, the
/// process, a seed of their own, or on what is sent in one piece.
const OWN_WORDS: [&[u8]; 6] = [b"stat", b"crawl", b"dump", b"slabs", b"watch", b"\x80\x10"];

/// Bytes of an input that one step is drawn from.
const STEP: usize = 4;

/// What a strategy of the model tests makes up with these bytes for a seed. They are too few for
/// its dice: drawn from directly, they would end in zeros, of which some draws are never content.
pub fn draw<S: Strategy>(strategy: &S, bytes: &[u8]) -> S::Value {
    let mut seed = [0; 32];
    seed.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let dice = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), dice);
    strategy.new_tree(&mut runner).expect("nothing is rejected").current()
}

/// A step for every [`STEP`] bytes of an input: what changes in one of them changes one step.
pub fn steps<S: Strategy>(strategy: S, input: &[u8]) -> impl Iterator<Item = S::Value> {
    input.chunks(STEP).map(move |bytes| draw(&strategy, bytes))
}

/// A store that nobody else uses.
fn store() -> Arc<Store> {
    let udp = Udp { reply_max: UDP_ANSWER_MAX, ..Settings::default().udp };
    let settings = Settings {
        maxbytes: 1 << 20,
        item_size_max: 64 << 10,
        max_connections: 16,
        threads: 1,
        udp,
        ..Settings::default()
    };
    let clock = Arc::new(Clock::manual(1_700_000_000));
    Store::new(Arc::new(settings), clock).expect("a store")
}

/// A worker of a server.
fn workspace(store: Arc<Store>, auth: Arc<Auth>) -> Workspace {
    Workspace::new(store, auth, None, Arc::new(|| ()))
}

/// Lets the upkeep run and checks the store's invariants.
fn settle(w: &Workspace) {
    for _ in 0..TICKS {
        w.store().tick(w.local());
    }
    if let Err(broken) = w.store().validate() {
        panic!("{broken}");
    }
}

/// Decodes `bytes` alone: what is used is there, and decoding gets on.
fn decode(protocol: Protocol, bytes: &[u8]) {
    let arena = Bump::new();
    let mut decoder = Decoder::new(protocol);
    let mut rest = bytes;
    loop {
        let single = decoder.single_get(rest).map(|(get, _, used)| (get.key, used));
        let used = match decoder.decode(rest, &arena) {
            Decoded::Command { used, command, .. } => {
                let same = |key| matches!(&command, Command::Get(get) if get.key == key);
                assert!(single.is_none_or(|(key, line)| line == used && same(key)));
                used
            }
            _ if single.is_some() => panic!("a get was taken for something else"),
            Decoded::Refused { used, swallow, .. } => {
                let swallow = usize::try_from(swallow).unwrap_or(usize::MAX);
                used + swallow.min(rest.len() - used)
            }
            Decoded::Login { used, len, .. } => used + (len as usize).min(rest.len() - used),
            Decoded::Incomplete | Decoded::HangUp => return,
        };
        assert!(used <= rest.len(), "{used} of {} bytes used", rest.len());
        assert!(used > 0 || decoder.in_multiget(), "nothing used");
        rest = &rest[used..];
    }
}

/// The whole of a stream target: the input's first byte says how it is cut in pieces.
pub fn stream(protocol: Protocol, input: &[u8]) {
    let Some((&cut, bytes)) = input.split_first() else { return };
    decode(protocol, bytes);
    let whole = answers(protocol, bytes, bytes.len());
    let pieces = answers(protocol, bytes, 1 + usize::from(cut));
    let own = OWN_WORDS.iter().any(|word| contains(bytes, word));
    // As memcached, a longer line is taken if it comes with its end, and else hung up on.
    let long = bytes.split(|byte| *byte == b'\n').any(|line| line.len() >= LINE_MAX);
    assert!(own || long || whole == pieces, "cut by {cut}:\n{}\n{}", text(&whole), text(&pieces));
}

/// A whole target of authentication: who does not name the password changes and sees nothing.
pub fn gated(protocol: Protocol, auth: Arc<Auth>, input: &[u8]) {
    let Some((&cut, bytes)) = input.split_first() else { return };
    let store = store();
    let mut w = workspace(store.clone(), auth);
    let set = Set::of(Key::new(b"k").expect("a key"), SECRET.len() as u32);
    let hash = store.hash(set.key);
    store.set(w.local(), &set, hash, SECRET).expect("room");
    let answers = converse(&mut w, protocol, bytes.chunks(1 + usize::from(cut)));
    if !contains(bytes, PASSWORD) {
        assert!(!contains(&answers, SECRET), "{}", text(&answers));
        let items: u64 = store.stats().levels().iter().map(|(items, _)| items).sum();
        assert!(items == 1 && store.inspect(w.local(), set.key, hash).is_some());
    }
    settle(&w);
}

/// The users that [`gated`] knows: one, with [`PASSWORD`], in the file that `option` names.
pub fn users(option: impl FnOnce(&mut Settings, PathBuf)) -> Arc<Auth> {
    // It stays there: with -S it is looked at for every attempt.
    let path = std::env::temp_dir().join("rustcached-fuzz-users");
    std::fs::write(&path, [b"user:", PASSWORD, b"\n"].concat()).expect("a file of users");
    let mut settings = Settings::default();
    option(&mut settings, path);
    Arc::new(Auth::open(&settings).expect("users"))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// What a fresh server answers to `bytes` that arrive in pieces of `piece` bytes.
fn answers(protocol: Protocol, bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut w = workspace(store(), Arc::default());
    let answers = converse(&mut w, protocol, bytes.chunks(piece.max(1)));
    settle(&w);
    answers
}

fn converse<'a>(
    w: &mut Workspace,
    protocol: Protocol,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
    client.set_nonblocking(true).expect("no blocking");
    server.set_nonblocking(true).expect("no blocking");
    let traits = ListenTraits { protocol, ..ListenTraits::default() };
    let transport = Transport::Plain(OwnedFd::from(server).into());
    let arrival = Arrival { transport, peer: None, traits };
    let mut connection = Connection::new(arrival, w);
    let mut answers = Vec::new();
    let mut open = true;
    for piece in pieces {
        let mut rest = piece;
        while open && !rest.is_empty() {
            match client.write(rest) {
                Ok(taken) => rest = &rest[taken..],
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
            let sent = Ready { readable: true, closed: false };
            open = serve(&mut connection, w, sent, &mut client, &mut answers);
        }
    }
    if open {
        client.shutdown(Shutdown::Write).expect("half a close");
        let ended = Ready { readable: true, closed: true };
        let open = serve(&mut connection, w, ended, &mut client, &mut answers);
        assert!(!open, "a connection outlived its client");
    }
    connection.close(w, None);
    answers
}

/// Turns until the connection waits for its client; false where it is to be closed.
fn serve(
    connection: &mut Connection,
    w: &mut Workspace,
    ready: Ready,
    client: &mut UnixStream,
    answers: &mut Vec<u8>,
) -> bool {
    connection.notice(ready);
    for _ in 0..TURNS_MAX {
        w.begin_turns(false);
        connection.take_in(w, 0);
        connection.work(w, 0, true);
        let next = connection.give_out(w, 0);
        receive(client, answers);
        match next {
            Next::Close => return false,
            Next::Wait | Next::Watch if !connection.has_unsent() => return true,
            Next::Wait | Next::Watch | Next::Again => {}
        }
    }
    panic!("a connection does not come to an end");
}

fn receive(client: &mut UnixStream, answers: &mut Vec<u8>) {
    let mut buffer = [0; 64 << 10];
    while let Ok(len @ 1..) = client.read(&mut buffer) {
        answers.extend_from_slice(&buffer[..len]);
    }
}

/// Sends the input's datagrams, each behind its length in two bytes, low byte first, and checks
/// every frame of the answers.
pub fn datagrams(input: &[u8]) {
    thread_local!(static SOCKETS: RefCell<(UdpSocket, UdpSocket)> = RefCell::new(sockets()));
    SOCKETS.with_borrow(|(client, server)| {
        let mut w = workspace(store(), Arc::default());
        let server = server.try_clone().expect("a second handle");
        let mut door = Datagrams::new(server, Arc::new(Meter::new(0)), &w);
        let mut rest = input;
        while let Some((len, after)) = rest.split_first_chunk::<2>() {
            let len = usize::from(u16::from_le_bytes(*len)).min(after.len());
            let datagram = &after[..len];
            rest = &after[len..];
            exchange(client, &mut door, &mut w, datagram);
        }
        let question = [&udp_frame::header(0xfeed, 0, 1)[..], b"mn\r\n"].concat();
        let answer = [&udp_frame::header(0xfeed, 0, 1)[..], b"MN\r\n"].concat();
        assert_eq!(exchange(client, &mut door, &mut w, &question), [answer]);
        door.close(w.store().stats());
        settle(&w);
    });
}

fn sockets() -> (UdpSocket, UdpSocket) {
    let socket = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let (client, server) = (socket(), socket());
    client.connect(server.local_addr().expect("an address")).expect("a peer");
    for socket in [&client, &server] {
        socket.set_nonblocking(true).expect("no blocking");
    }
    (client, server)
}

fn exchange(
    client: &UdpSocket,
    door: &mut Datagrams,
    w: &mut Workspace,
    datagram: &[u8],
) -> Vec<Vec<u8>> {
    client.send(datagram).expect("a datagram");
    while door.drive(w, Ready { readable: true, closed: false }) == Next::Again {}
    let mut answers = Vec::new();
    let mut buffer = [0; 64 << 10];
    while let Ok(len) = client.recv(&mut buffer) {
        answers.push(buffer[..len].to_vec());
    }
    check_frames(datagram, &answers);
    answers
}

fn check_frames(datagram: &[u8], answers: &[Vec<u8>]) {
    let (mut next, mut bytes, mut totals) = (0, 0, HashSet::new());
    for answer in answers {
        let (header, payload) = answer.split_at(udp_frame::HEADER_LEN);
        let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let (sequence, total) = (number(2), number(4));
        assert!(header[..2] == datagram[..2] && number(6) == 0);
        assert!((1..=udp_frame::PAYLOAD_MAX).contains(&payload.len()));
        assert!(sequence == next && sequence < total, "{sequence} of {total}, {next} is due");
        totals.insert(total);
        if sequence > 0 {
            assert_eq!(totals.len(), 1, "a total that changes");
        }
        next = if sequence + 1 == total { 0 } else { sequence + 1 };
        if next == 0 {
            totals.clear();
        }
        bytes += payload.len();
    }
    assert_eq!(next, 0, "the last datagrams of an answer are missing");
    // The error in the place of what was too much comes on top.
    assert!(bytes <= UDP_ANSWER_MAX as usize + 100, "{bytes} bytes of answers");
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
