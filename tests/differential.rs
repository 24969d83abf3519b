//! Sends the same random requests to our server and to a real memcached: replies must be equal byte
//! for byte, but for CAS uniques (whose numbers each server counts its own way: the same one must
//! come back as long as the other's does) and what `me` says of memory.
//!
//! The real one is `MEMCACHED`, else the first `memcached` on `PATH`; without one the test says so
//! and passes. An older one than 1.6.45 is asked only what it knows. `DIFFERENTIAL_SEED` repeats a
//! run, `DIFFERENTIAL_REQUESTS` sets its length. The binary protocol has a run of its own.

#[path = "differential/binary.rs"]
mod binary;
mod common;

use common::requests::{Generator, Part, Request};
use common::{Client, Random, Server, printable};
use std::collections::HashMap;
use std::path::PathBuf;

/// The release whose behaviour ours copies.
const MODEL: [u32; 3] = [1, 6, 45];
/// Background threads of memcached hold items for moments in which it does not write in place.
const QUIET: [&str; 2] = ["-o", "no_lru_maintainer,no_lru_crawler,slab_automove=0"];
/// Ends every batch, so that the reply's end shows; no reply to anything else looks like it.
const SENTINEL: &[u8] = b"mg no_such_key_at_all k\r\n";
const SENTINEL_REPLY: &[u8] = b"EN kno_such_key_at_all\r\n";

#[test]
fn replies_are_memcacheds() {
    let Some(real) = real_memcached() else {
        println!("skipped: no memcached in MEMCACHED or on PATH");
        return;
    };
    let (seed, mut left) = seed_and_length(&real);
    let mut pair = Pair::start(&real);
    let full = pair.servers[1].release() >= MODEL;
    let mut generator = Generator { random: Random::new(seed), full };
    while left > 0 {
        let batch = draw_batch(&mut generator);
        left = left.saturating_sub(batch.len());
        if let Err(difference) = pair.compare(&batch, &mut generator.random) {
            panic!("DIFFERENTIAL_SEED={seed}: {difference}");
        }
    }
}

#[test]
fn packets_are_memcacheds() {
    let Some(real) = real_memcached() else {
        println!("skipped: no memcached in MEMCACHED or on PATH");
        return;
    };
    let (seed, requests) = seed_and_length(&real);
    // Room for every key's largest value: what is evicted is each server's own choice.
    let args = [&QUIET[..], &["-m", "1024"]].concat();
    let servers = [Server::start(&args), Server::start_binary(&real, &args)];
    let difference = binary::compare(&servers, Random::new(seed), requests);
    assert_eq!(difference, Ok(()), "DIFFERENTIAL_SEED={seed}");
}

fn seed_and_length(real: &std::path::Path) -> (u64, usize) {
    let seed = Random::seed_from("DIFFERENTIAL_SEED");
    let requests = std::env::var("DIFFERENTIAL_REQUESTS").ok().and_then(|n| n.parse().ok());
    println!("DIFFERENTIAL_SEED={seed}, against {}", real.display());
    (seed, requests.unwrap_or(20_000))
}

fn real_memcached() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MEMCACHED") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("memcached")).find(|file| file.is_file())
}

/// Mostly one request, at times several in one write.
fn draw_batch(generator: &mut Generator) -> Vec<Request> {
    let len = if generator.random.once_in(4) { 1 + generator.random.below(30) } else { 1 };
    let mut batch: Vec<Request> = Vec::new();
    for _ in 0..len {
        let request = generator.next();
        // In a batch of several a number would be changed while a reply still holds it, and
        // memcached hangs up without the replies before.
        if len == 1 || !(request.arithmetic || request.closes) {
            batch.push(request);
        }
    }
    batch
}

/// Our server, the real one, and what was seen of both.
struct Pair {
    servers: [Server; 2],
    clients: [Client; 2],
    /// The CAS uniques last seen for a key.
    uniques: HashMap<String, [u64; 2]>,
    /// Every line sent to ours, for the story behind a difference.
    sent: Vec<u8>,
}

/// Of the requests before a difference, how many to tell.
const STORY_LINES: usize = 20;

impl Pair {
    fn start(real: &std::path::Path) -> Pair {
        let servers = [Server::start(&QUIET), Server::start_binary(real, &QUIET)];
        let clients = connect(&servers);
        Pair { servers, clients, uniques: HashMap::new(), sent: Vec::new() }
    }

    fn compare(&mut self, batch: &[Request], random: &mut Random) -> Result<(), String> {
        let closes = batch.last().is_some_and(|request| request.closes);
        let ours = self.ask(0, batch, random, closes)?;
        let theirs = self.ask(1, batch, random, closes)?;
        if closes {
            self.clients = connect(&self.servers);
        }
        let key = if let [one] = batch { one.key.as_str() } else { "" };
        let replies = [ours, theirs];
        self.compare_replies(&replies, key).map_err(|why| {
            let request = printable(&self.render(batch, 0));
            let [ours, theirs] = replies.each_ref().map(|reply| printable(reply));
            let story = self.story(&[key, &why].join(" "));
            format!("{why}\n  asked  {request}\n  ours   {ours}\n  theirs {theirs}\n{story}")
        })
    }

    /// Sends the batch to one of the servers; its reply.
    fn ask(
        &mut self,
        side: usize,
        batch: &[Request],
        random: &mut Random,
        closes: bool,
    ) -> Result<Vec<u8>, String> {
        let mut bytes = self.render(batch, side);
        if side == 0 {
            self.sent.extend_from_slice(&bytes);
        }
        bytes.extend_from_slice(SENTINEL);
        send_in_pieces(&mut self.clients[side], &bytes, random);
        let (reply, closed) = read_to_sentinel(&mut self.clients[side]);
        if closed != closes {
            let (request, reply) = (printable(&bytes), printable(&reply));
            return Err(format!("side {side} closed: {closed}, after {request}\n  said {reply}"));
        }
        Ok(reply)
    }

    /// The last lines that named a key of `difference`.
    fn story(&self, difference: &str) -> String {
        let words = difference.split(|c: char| !c.is_ascii_alphanumeric());
        let keys: Vec<&[u8]> = words.filter(|w| w.starts_with("key")).map(str::as_bytes).collect();
        let names_one =
            |line: &&[u8]| line.split(u8::is_ascii_whitespace).any(|word| keys.contains(&word));
        let lines: Vec<&[u8]> = self.sent.split(|byte| *byte == b'\n').filter(names_one).collect();
        let last = &lines[lines.len().saturating_sub(STORY_LINES)..];
        last.iter().map(|line| format!("  before {}\n", printable(line))).collect()
    }

    /// The bytes of a batch as one of the servers must see them.
    fn render(&self, batch: &[Request], side: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in batch.iter().flat_map(|request| &request.parts) {
            match part {
                Part::Bytes(more) => bytes.extend_from_slice(more),
                Part::Cas { key, less } => {
                    let seen = self.uniques.get(key).map_or(0, |both| both[side]);
                    bytes.extend_from_slice(seen.saturating_sub(*less).to_string().as_bytes());
                }
            }
        }
        bytes
    }

    fn compare_replies(&mut self, replies: &[Vec<u8>; 2], key: &str) -> Result<(), String> {
        let [mut ours, mut theirs] = replies.each_ref().map(Vec::as_slice);
        while !ours.is_empty() || !theirs.is_empty() {
            let lines = [take_line(&mut ours), take_line(&mut theirs)];
            let value_len = self.compare_lines(lines.each_ref().map(|l| l.as_str()), key)?;
            if let Some(len) = value_len {
                let values = [take(&mut ours, len + 2), take(&mut theirs, len + 2)];
                if values[0] != values[1] {
                    return Err("other values".into());
                }
            }
        }
        Ok(())
    }

    /// Compares a line of each; the length of the value that follows, if one does.
    fn compare_lines(&mut self, lines: [&str; 2], key: &str) -> Result<Option<usize>, String> {
        let words = lines.map(|line| line.split(' ').collect::<Vec<_>>());
        let differ = || format!("{:?} is not {:?}", lines[0], lines[1]);
        if words[0].len() != words[1].len() || words[0][0] != words[1][0] {
            return Err(differ());
        }
        let verb = words[0][0];
        for (at, pair) in words[0].iter().copied().zip(words[1].iter().copied()).enumerate() {
            let equal = match verb {
                "VALUE" if at == 4 => self.same_unique(words[0][1], pair.0, pair.1),
                "HD" | "VA" | "EX" | "NS" | "NF" if at > 0 => self.same_flag(key, pair),
                "ME" => same_debug_word(pair),
                _ => pair.0 == pair.1,
            };
            if !equal {
                return Err(differ());
            }
        }
        let len = match verb {
            "VALUE" => words[0].get(3),
            "VA" => words[0].get(1),
            _ => None,
        };
        Ok(len.and_then(|len| len.parse().ok()))
    }

    fn same_flag(&mut self, key: &str, pair: (&str, &str)) -> bool {
        match (pair.0.strip_prefix('c'), pair.1.strip_prefix('c')) {
            (Some(ours), Some(theirs)) => self.same_unique(key, ours, theirs),
            _ => pair.0 == pair.1 || is_close(pair, "t") || is_close(pair, "l"),
        }
    }

    /// A unique is the one seen before on both sides or on neither; 0 is said by both.
    fn same_unique(&mut self, key: &str, ours: &str, theirs: &str) -> bool {
        let (Ok(ours), Ok(theirs)) = (ours.parse::<u64>(), theirs.parse::<u64>()) else {
            return ours == theirs;
        };
        if ours == 0 || theirs == 0 || key.is_empty() {
            return (ours == 0) == (theirs == 0);
        }
        let before = self.uniques.insert(key.to_owned(), [ours, theirs]);
        before.is_none_or(|before| (before[0] == ours) == (before[1] == theirs))
    }
}

fn connect(servers: &[Server; 2]) -> [Client; 2] {
    servers.each_ref().map(|server| {
        // The first byte chooses the protocol, so it must not be drawn.
        let mut client = server.connect();
        client.exchange(SENTINEL, SENTINEL_REPLY);
        client
    })
}

fn send_in_pieces(client: &mut Client, bytes: &[u8], random: &mut Random) {
    let longest = if random.once_in(4) { 1 + random.below(200) } else { bytes.len() };
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(1 + random.below(longest)));
        let piece = if longest == bytes.len() { rest } else { piece };
        client.send(piece);
        rest = if longest == bytes.len() { &[] } else { after };
    }
}

/// The reply without the sentinel, and whether the server closed.
fn read_to_sentinel(client: &mut Client) -> (Vec<u8>, bool) {
    let mut reply = Vec::new();
    while let Some(byte) = client.next() {
        reply.push(byte);
        if reply.ends_with(SENTINEL_REPLY) {
            reply.truncate(reply.len() - SENTINEL_REPLY.len());
            return (reply, false);
        }
    }
    (reply, !client.timed_out)
}

fn take<'a>(from: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = from.split_at(len.min(from.len()));
    *from = rest;
    taken
}

fn take_line(from: &mut &[u8]) -> String {
    let len = from.iter().position(|byte| *byte == b'\n').map_or(from.len(), |at| at + 1);
    let line = take(from, len);
    // A line end that is not as it should be stays in its last word.
    line.strip_suffix(b"\r\n").unwrap_or(line).escape_ascii().to_string()
}

/// Seconds, which may have turned between the two answers.
fn is_close(pair: (&str, &str), flag: &str) -> bool {
    let number = |word: &str| word.strip_prefix(flag)?.parse().ok();
    let (ours, theirs): (Option<i64>, Option<i64>) = (number(pair.0), number(pair.1));
    ours.zip(theirs).is_some_and(|(ours, theirs)| (ours - theirs).abs() <= 3)
}

/// A word of `me`: layouts and uniques are each server's own.
fn same_debug_word(pair: (&str, &str)) -> bool {
    let names = [pair.0, pair.1].map(|word| word.split('=').next());
    let own = matches!(names[0], Some("la" | "cas" | "cls" | "size"));
    names[0] == names[1] && (own || pair.0 == pair.1 || is_close(pair, "exp="))
}
