//! Random packets of the binary protocol: every opcode, right and wrong.

use crate::common::packets::{self, Answer};
use crate::common::{Client, Random, Server, printable};
use std::collections::HashMap;

const KEYS: usize = 100;
/// Of the requests before a difference, how many to tell.
const STORY_REQUESTS: usize = 20;
/// The opaque of the no-op that ends a batch; requests count from 0.
const LAST: u32 = u32::MAX;
const NOOP: u8 = 0x0a;
const STORES: [u8; 6] = [0x01, 0x02, 0x03, 0x11, 0x12, 0x13];
const JOINS: [u8; 4] = [0x0e, 0x0f, 0x19, 0x1a];
const GETS: [u8; 4] = [0x00, 0x09, 0x0c, 0x0d];
const TOUCHES: [u8; 5] = [0x1c, 0x1d, 0x1e, 0x23, 0x24];
const ARITH: [u8; 4] = [0x05, 0x06, 0x15, 0x16];
const DELETES: [u8; 2] = [0x04, 0x14];

/// The unique that a request names.
#[derive(Clone, Copy, Debug)]
enum Unique {
    None,
    /// The one last seen for the key, and that much more.
    Seen(u64),
}

#[derive(Clone, Debug)]
struct Request {
    opcode: u8,
    extras: Vec<u8>,
    key: String,
    value: Vec<u8>,
    unique: Unique,
    /// Both servers say what is wrong and hang up.
    closes: bool,
    /// Not in a batch: memcached changes a number in place only while no unsent answer holds it.
    alone: bool,
}

impl Request {
    fn words(&self) -> String {
        let value = &self.value[..self.value.len().min(40)];
        let [key, extras, value] = [self.key.as_bytes(), &self.extras, value].map(printable);
        let (opcode, unique, len) = (self.opcode, self.unique, self.value.len());
        format!("{opcode:#x} key {key} extras {extras} unique {unique:?} value of {len} {value}")
    }
}

/// Sends about `requests` requests to both; the first difference, in words. `full` if the real one
/// is no older than the model.
pub fn compare(
    servers: &[Server; 2],
    full: bool,
    random: Random,
    requests: usize,
) -> Result<(), String> {
    let clients = servers.each_ref().map(Server::connect);
    let short = if full { 0 } else { 8 };
    let mut pair = Pair { clients, random, short, uniques: HashMap::new(), sent: Vec::new() };
    let mut left = requests;
    while left > 0 {
        let batch = pair.draw_batch();
        left = left.saturating_sub(batch.len());
        if let Err(why) = pair.ask(&batch) {
            let key = &batch[0].key;
            let story = pair.sent.iter().rev().filter(|(of, _)| of == key).take(STORY_REQUESTS);
            let story: Vec<&str> = story.map(|(_, words)| words.as_str()).collect();
            let batch: Vec<String> = batch.iter().map(Request::words).collect();
            let [batch, story] = [batch.join("\n  "), story.join("\n  ")];
            return Err(format!("{why}\nbatch\n  {batch}\nbefore, the last first\n  {story}"));
        }
        if batch.iter().any(|request| request.closes) {
            pair.clients = servers.each_ref().map(Server::connect);
        }
        pair.sent.extend(batch.iter().map(|request| (request.key.clone(), request.words())));
    }
    Ok(())
}

struct Pair {
    clients: [Client; 2],
    random: Random,
    /// Bits that numbers do without: an older memcached looks for a minus sign from 2^63 on, in
    /// what the chunk held before too.
    short: u32,
    /// The uniques last seen for a key, ours and theirs.
    uniques: HashMap<String, [u64; 2]>,
    /// Requests in words, with their keys, for the story behind a difference.
    sent: Vec<(String, String)>,
}

impl Pair {
    fn draw_batch(&mut self) -> Vec<Request> {
        let first = self.draw();
        if first.closes || first.alone || !self.random.once_in(4) {
            return vec![first];
        }
        let more = self.random.below(60);
        let others: Vec<Request> = (0..more).map(|_| self.draw()).collect();
        let mut batch = vec![first];
        batch.extend(others.into_iter().filter(|request| !(request.closes || request.alone)));
        batch
    }

    fn draw(&mut self) -> Request {
        let random = &mut self.random;
        match random.below(100) {
            0..30 => self.store(),
            30..38 => self.join(),
            38..62 => self.keyed(&GETS, vec![]),
            62..72 => {
                let extras = self.exptime().to_be_bytes().to_vec();
                self.keyed(&TOUCHES, extras)
            }
            72..84 => self.arith(),
            84..90 => {
                let unique = self.unique();
                Request { unique, ..self.keyed(&DELETES, vec![]) }
            }
            90..96 => self.bare(),
            _ => self.wrong(),
        }
    }

    fn keyed(&mut self, opcodes: &[u8], extras: Vec<u8>) -> Request {
        let random = &mut self.random;
        let key = match random.below(30) {
            0 => "k".repeat(250),
            1 => format!("odd {}\r\n\0", random.below(3)),
            _ => format!("key{}", random.below(KEYS)),
        };
        let opcode = *random.pick(opcodes);
        let (value, unique) = (Vec::new(), Unique::None);
        Request { opcode, extras, key, value, unique, closes: false, alone: false }
    }

    fn unique(&mut self) -> Unique {
        match self.random.below(8) {
            0 => Unique::Seen(1),
            1 | 2 => Unique::Seen(0),
            _ => Unique::None,
        }
    }

    /// Never, far off in both notations, long past.
    fn exptime(&mut self) -> u32 {
        const TIMES: [u32; 8] = [0, 0, 0, 0, 100_000, 2_000_000_000, 2_592_001, u32::MAX];
        *self.random.pick(&TIMES)
    }

    fn value(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        match random.below(80) {
            0..32 => random.below(1000).to_string().into_bytes(),
            32..40 => (random.next() >> self.short).to_string().into_bytes(),
            40..78 => vec![b'a' + random.below(26) as u8; random.below(300)],
            78 => vec![b'L'; 3_000 + random.below(200_000)],
            _ => vec![b'X'; (1 << 20) - 200 + random.below(400)],
        }
    }

    fn store(&mut self) -> Request {
        let flags = if self.random.once_in(2) { 0 } else { self.random.next() as u32 };
        let extras = [flags.to_be_bytes(), self.exptime().to_be_bytes()].concat();
        let (value, unique) = (self.value(), self.unique());
        Request { value, unique, ..self.keyed(&STORES, extras) }
    }

    fn join(&mut self) -> Request {
        let (value, unique) = (self.value(), self.unique());
        Request { value, unique, ..self.keyed(&JOINS, vec![]) }
    }

    fn arith(&mut self) -> Request {
        let delta = if self.random.once_in(4) { self.random.next() >> self.short } else { 3 };
        let initial = self.random.next() >> self.short.max(self.random.below(64) as u32);
        let seconds = if self.random.once_in(3) { u32::MAX } else { self.exptime() };
        let extras =
            [&delta.to_be_bytes()[..], &initial.to_be_bytes(), &seconds.to_be_bytes()].concat();
        let unique = self.unique();
        Request { unique, alone: true, ..self.keyed(&ARITH, extras) }
    }

    /// What has no key, and an opcode without a meaning, which may have a value.
    fn bare(&mut self) -> Request {
        let opcode = *self.random.pick(&[0x0a, 0x0b, 0x08, 0x18, 0x1f, 0x30, 0xff, 0x10]);
        let topic = *self.random.pick(&["reset", "nosuch", "detail", "detail off"]);
        let request = self.keyed(&[opcode], vec![]);
        let value = if opcode > 0x1a { vec![b'v'; self.random.below(2000)] } else { vec![] };
        let key = if opcode == 0x10 { topic.to_owned() } else { String::new() };
        Request { key, value, ..request }
    }

    /// Lengths that are not those of the opcode.
    fn wrong(&mut self) -> Request {
        let mut request = match self.random.below(5) {
            0 => Request { value: vec![b'x'; 5], ..self.keyed(&GETS, vec![]) },
            1 => Request { extras: vec![0; 3], ..self.store() },
            2 => Request { key: String::new(), ..self.arith() },
            3 => Request { value: vec![b'x'], ..self.keyed(&DELETES, vec![]) },
            _ => Request { key: "k".repeat(251), ..self.keyed(&GETS, vec![]) },
        };
        (request.closes, request.alone) = (true, true);
        request
    }

    fn ask(&mut self, batch: &[Request]) -> Result<(), String> {
        let closes = batch[0].closes;
        for side in 0..2 {
            let mut bytes = self.render(batch, side);
            if !closes {
                bytes.extend(packets::request(NOOP, LAST, 0, [b"", b"", b""]));
            }
            // What is not read before a hang-up may take the answer with it.
            let whole = closes || self.random.once_in(2);
            let longest = if whole { bytes.len() } else { 1 + self.random.below(5_000) };
            bytes.chunks(longest).for_each(|chunk| self.clients[side].send(chunk));
        }
        loop {
            let [ours, theirs] = self.clients.each_mut().map(packets::take_answer);
            let (Some(ours), Some(theirs)) = (&ours, &theirs) else {
                let silent = self.clients.iter().any(|client| client.timed_out);
                let as_asked = closes && !silent && ours.is_none() && theirs.is_none();
                let why = format!("closed or silent: {:?} and {:?}", ours, theirs);
                return if as_asked { Ok(()) } else { Err(why) };
            };
            self.compare_answers(batch, ours, theirs)?;
            if ours.opaque == LAST {
                return Ok(());
            }
        }
    }

    /// The bytes of a batch as one of the servers must see them.
    fn render(&self, batch: &[Request], side: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (request, opaque) in batch.iter().zip(0..) {
            let seen = self.uniques.get(&request.key).map_or(0, |both| both[side]);
            let cas = match request.unique {
                Unique::Seen(more) if seen != 0 => seen.wrapping_add(more << 32),
                _ => 0,
            };
            let parts = [&request.extras[..], request.key.as_bytes(), &request.value];
            bytes.extend(packets::request(request.opcode, opaque, cas, parts));
        }
        bytes
    }

    fn compare_answers(
        &mut self,
        batch: &[Request],
        ours: &Answer,
        theirs: &Answer,
    ) -> Result<(), String> {
        let text = String::from_utf8_lossy(&theirs.value);
        let mut expected = Answer { cas: ours.cas, ..theirs.clone() };
        if theirs.opcode == 0x0b {
            // An older release says so.
            expected.value.clone_from(&ours.value);
        }
        let words = |a: &Answer| format!("{:x} {:x} {}", a.opcode, a.status, printable(&a.value));
        if *ours != expected {
            return Err(format!("ours {}\ntheirs {} {text}", words(ours), words(theirs)));
        }
        let Some(request) = batch.get(ours.opaque as usize) else { return Ok(()) };
        if ours.cas == 0 || theirs.cas == 0 {
            let both = ours.cas == theirs.cas;
            return if both { Ok(()) } else { Err(format!("uniques: {ours:?}, {theirs:?}")) };
        }
        let now = [ours.cas, theirs.cas];
        let before = self.uniques.insert(request.key.clone(), now).unwrap_or(now);
        let kept = [0, 1].map(|side| before[side] == now[side]);
        let same = before == now || kept[0] == kept[1];
        if same { Ok(()) } else { Err(format!("uniques {before:?} became {now:?}: {request:?}")) }
    }
}
