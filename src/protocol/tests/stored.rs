//! Answers that carry values of a real store, small ones copied and large ones pinned.

use super::*;
use crate::clock::Clock;
use crate::command::{execute, store_value};
use crate::config::Settings;
use crate::protocol::outbox::Progress;
use crate::store::{Local, Store};
use std::io::{self, IoSlice, Write};
use std::sync::Arc;

struct Server {
    store: Arc<Store>,
    local: Local,
    outbox: Outbox,
}

impl Server {
    fn new() -> Server {
        let clock = Arc::new(Clock::manual(1_700_000_000));
        let store = Store::new(Arc::new(Settings::default()), clock).expect("64 MiB can be had");
        let local = store.local();
        Server { store, local, outbox: Outbox::default() }
    }

    /// Runs all lines of `input`; values follow their lines.
    fn run(&mut self, input: &[u8]) {
        let (arena, mut decoder, mut at) = (Bump::new(), Decoder::default(), 0);
        while at < input.len() {
            let Decoded::Command { used, command, echo } = decoder.decode(&input[at..], &arena)
            else {
                panic!("no command: {}", input[at..].escape_ascii());
            };
            at += used;
            let mut replies = Encoder::new(&mut self.outbox, &echo);
            if let Command::Set(set) = &command {
                let value = &input[at..][..set.len as usize];
                at += value.len() + 2;
                let hash = self.store.hash(set.key);
                store_value(&self.store, &self.local, set, hash, value, &mut replies);
            } else {
                execute(&self.store, &self.local, &command, None, &mut replies);
            }
        }
    }

    /// All that was said since the last call.
    fn said(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert_eq!(self.outbox.write_to(&mut bytes).expect("memory"), Progress::Done);
        bytes
    }
}

/// Takes `at_once` bytes a write, and blocks at every other one.
struct Slow {
    taken: Vec<u8>,
    at_once: usize,
    blocks: bool,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.blocks = !self.blocks;
        if self.blocks {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let before = self.taken.len();
        for slice in slices {
            let room = self.at_once - (self.taken.len() - before);
            self.taken.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        Ok(self.taken.len() - before)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn value(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8 ^ seed).collect()
}

/// Stores one value of each length under `k0`, `k1` and so on.
fn filled(lengths: &[usize]) -> Server {
    let mut server = Server::new();
    for (n, &len) in lengths.iter().enumerate() {
        let line = format!("set k{n} 7 0 {len} noreply\r\n");
        server.run(&[line.as_bytes(), &value(n as u8, len), b"\r\n"].concat());
    }
    assert!(server.outbox.is_empty());
    server
}

const LENGTHS: &[usize] = &[0, 1, 100, 5_000, 70_000, 3, 900_000, 20_000, 1];

/// What a `get` of all of [`LENGTHS`] is answered by.
fn expected() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (n, &len) in LENGTHS.iter().enumerate() {
        bytes.extend_from_slice(format!("VALUE k{n} 7 {len}\r\n").as_bytes());
        bytes.extend_from_slice(&value(n as u8, len));
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"END\r\n");
    bytes
}

#[test]
fn values_of_all_sizes_are_sent_whole() {
    let mut server = filled(LENGTHS);
    server.run(b"get k0 k1 k2 nosuch k3 k4 k5 k6 k7 k8\r\n");
    assert!(server.outbox.pinned() >= 900_000, "large values stay where they are");
    assert_eq!(server.outbox.len(), expected().len());
    assert!(server.said() == expected());
    assert_eq!(server.outbox.pinned(), 0);
}

#[test]
fn a_slow_reader_gets_the_values_as_they_were() {
    for at_once in [10_007, 65_536, 2_000_000] {
        let mut server = filled(LENGTHS);
        server.run(b"get k0 k1 k2 k3 k4 k5 k6 k7 k8\r\n");
        let mut slow = Slow { taken: Vec::new(), at_once, blocks: true };
        let mut left = std::mem::take(&mut server.outbox);
        let mut rounds = 0;
        while left.write_to(&mut slow).expect("it only blocks") == Progress::Blocked {
            left = left.take_rest();
            assert_eq!(left.len() + slow.taken.len(), expected().len());
            rounds += 1;
            if rounds == 1 {
                server.run(b"delete k4\r\nset k6 0 0 2\r\nhi\r\nmg k6 v\r\n");
            }
        }
        assert!(slow.taken == expected(), "{at_once} at once");
        if rounds > 0 {
            assert_eq!(server.said(), b"DELETED\r\nSTORED\r\nVA 2\r\nhi\r\n");
        }
        server.store.validate().expect("pins are given back");
    }
}

#[test]
fn a_rollback_lets_go_of_pins() {
    let mut server = filled(&[900_000]);
    let mark = server.outbox.mark();
    server.run(b"mg k0 v s f k Oq\r\nget k0\r\n");
    assert!(server.outbox.pinned() > 900_000);
    server.outbox.rollback(mark);
    assert!(server.outbox.is_empty());
    assert_eq!(server.outbox.pinned(), 0);
    server.run(b"delete k0\r\n");
    assert_eq!(server.said(), b"DELETED\r\n");
    server.store.validate().expect("nothing is pinned any more");
}

#[test]
fn meta_hits_tell_what_was_asked() {
    let mut server = Server::new();
    for (request, answer) in [
        (
            "set a 5 0 1\r\nx\r\nmg a s v f t h l k Oopq q\r\n",
            "STORED\r\nVA 1 s1 f5 t-1 h0 l0 ka Oopq\r\nx\r\n",
        ),
        ("mg a h\r\nmg a v k\r\n", "HD h1\r\nVA 1 ka\r\nx\r\n"),
        ("ms e 2 E9\r\nhi\r\nmg e c C9 v\r\nmg e C8 v\r\n", "HD\r\nHD c9\r\nVA 2\r\nhi\r\n"),
        (
            "gets e\r\nget e a nosuch\r\n",
            "VALUE e 0 2 9\r\nhi\r\nEND\r\nVALUE e 0 2\r\nhi\r\nVALUE a 5 1\r\nx\r\nEND\r\n",
        ),
        ("ms Zm9v 2 b k s\r\nhi\r\nmg foo k v\r\n", "HD kZm9v b s2\r\nVA 2 kZm9v b\r\nhi\r\n"),
        (
            "mg w N30 s v t\r\nmg w v t T40\r\nmg w T50 t\r\n",
            "VA 0 s0 t30 W\r\n\r\nVA 0 t30 Z\r\n\r\nHD t50 Z\r\n",
        ),
        ("md a I\r\nmg a s k\r\nmg a s k\r\n", "HD\r\nHD s1 ka X W\r\nHD s1 ka Z X\r\n"),
        (
            "ma n N0 J5 v\r\nma n v t k\r\nma n MD D9 v\r\nincr n 2\r\n",
            "VA 1\r\n5\r\nVA 1 t-1 kn\r\n6\r\nVA 1\r\n0\r\n2\r\n",
        ),
        ("incr a 1\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
        (
            "touch e 0\r\ngat 0 e\r\nmd e q\r\nmd e q\r\n",
            "TOUCHED\r\nVALUE e 0 2\r\nhi\r\nEND\r\nNF\r\n",
        ),
    ] {
        server.run(request.as_bytes());
        let said = server.said();
        assert_eq!(said.escape_ascii().to_string(), answer.as_bytes().escape_ascii().to_string());
    }
}
