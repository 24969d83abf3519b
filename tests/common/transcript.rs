//! Golden transcripts: their format, and playing one to a server.
//!
//! A file holds cases, each on connections of its own:
//!
//! ```text
//! # a comment
//! !args -o modern        options of the server that plays this file
//! == a name              starts a case
//! !since 1.6.45          skipped with an older server; before the first case: the whole file
//! > get a                sent, with \r\n after it (`>-` sends nothing after it)
//! < END                  expected, with \r\n after it (`<-` expects nothing after it)
//! >b get key=a opaque=1  sent, a packet of the binary protocol
//! <b get cas=$c extras=7 value=xyz opaque=1    expected, such a packet
//! !clock 3               moves the server's clock; skipped where the server has no debugtime
//! !conn b                goes on with another connection, opened at its first mention
//! !closed                the server must have closed this connection
//! ```
//!
//! In `>` and `<` lines `\r \n \0 \t \s \\ \{ \$ \xHH` stand for bytes (`\s` is a blank) and
//! `{ab*3}` for `ababab`. `${name}` in a `<` line takes a number when it is first met and must meet
//! the same one from then on; in a `>` line it sends that number, `${name+1}` and `${name-1}` its
//! neighbours. `${*}` takes any number, `${5..9}` one of 5 to 9, minus signs included.
//! The fields of a packet are `status opaque extras key value number cas key_len extras_len
//! body_len`: extras are numbers of 32 bits joined by commas (of 64 with an `L`), `cas=$name` takes
//! and sends a unique like `${name}`, and lengths are those of the parts where they do not say
//! otherwise.
//! Every case ends with a question of the player's own, so that a reply too many is noticed.

use crate::common::packets::{self, Way};
use crate::common::{Client, Random, Server, printable};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// One file.
#[derive(Debug, Default)]
pub struct Transcript {
    pub args: Vec<String>,
    pub since: [u32; 3],
    pub cases: Vec<Case>,
}

#[derive(Debug, Default)]
pub struct Case {
    pub name: String,
    pub since: [u32; 3],
    /// Line numbers, from 1, and what stands there.
    steps: Vec<(usize, Step)>,
}

#[derive(Debug)]
enum Step {
    Send(Vec<Piece>),
    Expect(Vec<Piece>),
    Clock(u32),
    Connection(String),
    Closed,
}

#[derive(Debug)]
pub enum Piece {
    Bytes(Vec<u8>),
    /// A number by name, and what to add to it.
    Named(String, i64),
    /// The same as 8 bytes.
    Unique(String, i64),
    Between(i64, i64),
}

/// How the bytes of a request reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A request and its value in one write, then its reply is read.
    Whole,
    /// As many requests as possible in one write.
    Pipelined,
    ByteByByte,
    /// Cut at places drawn by the generator.
    Split,
}

/// Above this, bytes go out in cuts rather than one by one.
const BYTE_BY_BYTE_MAX: usize = 5000;

impl Transcript {
    /// Reads a file's text.
    ///
    /// # Panics
    /// At the first line that is none of the above.
    pub fn parse(text: &str) -> Transcript {
        let mut transcript = Transcript::default();
        for (at, line) in text.lines().enumerate() {
            let number = at + 1;
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix("== ") {
                transcript.cases.push(Case { name: name.into(), ..Case::default() });
            } else if let Some(since) = line.strip_prefix("!since ") {
                let release = crate::common::parse_release(since);
                match transcript.cases.last_mut() {
                    Some(case) => case.since = release,
                    None => transcript.since = release,
                }
            } else if let Some(args) = line.strip_prefix("!args ") {
                assert!(transcript.cases.is_empty(), "line {number}: !args after a case");
                transcript.args.extend(args.split_whitespace().map(str::to_owned));
            } else {
                let step = parse_step(line).unwrap_or_else(|| panic!("line {number}: {line}"));
                let case = transcript.cases.last_mut();
                case.unwrap_or_else(|| panic!("line {number}: no case")).steps.push((number, step));
            }
        }
        transcript
    }
}

fn parse_step(line: &str) -> Option<Step> {
    let (mark, text) = line.split_once(' ').unwrap_or((line, ""));
    match mark {
        ">" => Some(Step::Send(parse_pieces(text, "\r\n")?)),
        ">-" => Some(Step::Send(parse_pieces(text, "")?)),
        "<" => Some(Step::Expect(parse_pieces(text, "\r\n")?)),
        "<-" => Some(Step::Expect(parse_pieces(text, "")?)),
        ">b" => Some(Step::Send(packets::parse(text, Way::Request, parse_bytes)?)),
        "<b" => Some(Step::Expect(packets::parse(text, Way::Answer, parse_bytes)?)),
        "!clock" => Some(Step::Clock(text.parse().ok()?)),
        "!conn" => Some(Step::Connection(text.to_owned())),
        "!closed" => Some(Step::Closed),
        _ => None,
    }
}

fn parse_pieces(text: &str, end: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("${") {
            let (inside, after) = after.split_once('}')?;
            pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
            pieces.push(parse_number(inside)?);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let (inside, after) = after.split_once('}')?;
            let (what, times) = inside.rsplit_once('*')?;
            bytes.extend(unescape(what)?.repeat(times.parse().ok()?));
            rest = after;
        } else {
            let len = escape_len(rest).unwrap_or(first.len_utf8());
            bytes.extend(unescape(rest.get(..len)?)?);
            rest = &rest[len..];
        }
    }
    bytes.extend_from_slice(end.as_bytes());
    pieces.push(Piece::Bytes(bytes));
    Some(pieces)
}

/// A text with escapes and repetitions, but without numbers.
fn parse_bytes(text: &str) -> Option<Vec<u8>> {
    match parse_pieces(text, "")?.as_slice() {
        [Piece::Bytes(bytes)] => Some(bytes.clone()),
        _ => None,
    }
}

fn parse_number(inside: &str) -> Option<Piece> {
    if inside == "*" {
        return Some(Piece::Between(i64::MIN, i64::MAX));
    }
    if let Some((low, high)) = inside.split_once("..") {
        return Some(Piece::Between(low.parse().ok()?, high.parse().ok()?));
    }
    let at = inside.find(['+', '-']).unwrap_or(inside.len());
    let (name, shift) = inside.split_at(at);
    let shift = if shift.is_empty() { 0 } else { shift.parse().ok()? };
    Some(Piece::Named(name.to_owned(), shift))
}

/// Length of the escape at the front of `text`, if one is there.
fn escape_len(text: &str) -> Option<usize> {
    text.strip_prefix('\\').map(|after| if after.starts_with('x') { 4 } else { 2 })
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        bytes.push(match chars.next()? {
            'r' => b'\r',
            'n' => b'\n',
            't' => b'\t',
            's' => b' ',
            '0' => 0,
            'x' => (chars.next()?.to_digit(16)? * 16 + chars.next()?.to_digit(16)?) as u8,
            c @ ('\\' | '{' | '}' | '$') => c as u8,
            _ => return None,
        });
    }
    Some(bytes)
}

impl Case {
    /// True if the case moves the server's clock.
    pub fn moves_clock(&self) -> bool {
        self.steps.iter().any(|(_, step)| matches!(step, Step::Clock(_)))
    }

    /// Plays the case; what went wrong, if anything.
    pub fn play(
        &self,
        server: &Server,
        delivery: Delivery,
        random: &mut Random,
    ) -> Result<(), String> {
        let clients = HashMap::from([(String::new(), server.connect())]);
        let player = Player {
            server,
            delivery,
            random,
            clients,
            binary: HashSet::new(),
            current: String::new(),
            numbers: HashMap::new(),
            unsent: Vec::new(),
            expected: Vec::new(),
        };
        player.play(&self.steps)
    }
}

struct Player<'a> {
    server: &'a Server,
    delivery: Delivery,
    random: &'a mut Random,
    /// Connections by name; one that was seen closed is gone.
    clients: HashMap<String, Client>,
    /// Connections that speak the binary protocol.
    binary: HashSet<String>,
    current: String,
    numbers: HashMap<String, u64>,
    unsent: Vec<u8>,
    expected: Vec<(usize, &'a [Piece])>,
}

impl<'a> Player<'a> {
    fn play(mut self, steps: &'a [(usize, Step)]) -> Result<(), String> {
        for (line, step) in steps {
            match step {
                Step::Send(pieces) => self.queue(pieces)?,
                Step::Expect(pieces) => self.expected.push((*line, pieces)),
                Step::Clock(seconds) => {
                    self.flush()?;
                    let answer = self.server.ask(&format!("debugtime {seconds}"));
                    assert_eq!(answer, "OK", "the clock did not move");
                }
                Step::Connection(name) => {
                    self.flush()?;
                    self.current.clone_from(name);
                    let server = self.server;
                    self.clients.entry(name.clone()).or_insert_with(|| server.connect());
                }
                Step::Closed => {
                    self.flush()?;
                    self.expect_closed(*line)?;
                }
            }
        }
        self.flush()?;
        self.expect_silence()
    }

    /// Puts a request among those to send, after the earlier ones where they need their answers.
    fn queue(&mut self, pieces: &[Piece]) -> Result<(), String> {
        let known = resolve(pieces, &self.numbers);
        let waits = self.delivery != Delivery::Pipelined && !self.expected.is_empty();
        if waits || known.is_none() {
            self.flush()?;
        }
        let bytes = known.or_else(|| resolve(pieces, &self.numbers));
        self.unsent.extend(bytes.ok_or("a number is used before it was met")?);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        let Some(client) = self.clients.get_mut(&self.current) else {
            return if self.unsent.is_empty() { Ok(()) } else { Err("it is closed".into()) };
        };
        let bytes = std::mem::take(&mut self.unsent);
        if bytes.first() == Some(&packets::REQUEST) {
            self.binary.insert(self.current.clone());
        }
        for chunk in cut(&bytes, self.delivery, self.random) {
            client.send(chunk);
        }
        for (line, pieces) in self.expected.drain(..) {
            if let Err(wrong) = expect(client, pieces, &mut self.numbers) {
                let rest = printable(&client.rest(Duration::from_millis(100)));
                return Err(format!("line {line}: {wrong}; then {rest:?}"));
            }
        }
        Ok(())
    }

    fn expect_closed(&mut self, line: usize) -> Result<(), String> {
        let mut client = self.clients.remove(&self.current).ok_or("it is closed already")?;
        match client.next() {
            None if client.timed_out => Err(format!("line {line}: not closed")),
            None => Ok(()),
            Some(byte) => Err(format!("line {line}: not closed, but got byte {byte:#x}")),
        }
    }

    /// Nothing may come but the answer to one more question.
    fn expect_silence(mut self) -> Result<(), String> {
        for (name, mut client) in self.clients.drain() {
            let (question, answer) = match self.binary.contains(&name) {
                true => (&packets::NOOP[..], &packets::NOOP_DONE[..]),
                false => (&b"mn\r\n"[..], &b"MN\r\n"[..]),
            };
            client.send(question);
            let got = client.take(answer.len());
            if got != answer {
                let rest = client.rest(Duration::from_millis(100));
                let got = printable(&[got, rest].concat());
                return Err(format!("connection {name:?}: more than expected: {got:?}"));
            }
        }
        Ok(())
    }
}

/// The bytes of a `>` line; `None` if it names a number that was not met yet.
fn resolve(pieces: &[Piece], numbers: &HashMap<String, u64>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(more) => bytes.extend_from_slice(more),
            Piece::Named(name, shift) => {
                let number = numbers.get(name)?.wrapping_add_signed(*shift);
                bytes.extend_from_slice(number.to_string().as_bytes());
            }
            Piece::Unique(name, shift) => {
                let number = numbers.get(name)?.wrapping_add_signed(*shift);
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            Piece::Between(..) => return None,
        }
    }
    Some(bytes)
}

/// Where the bytes of a write end and the next one's begin.
fn cut<'b>(bytes: &'b [u8], delivery: Delivery, random: &mut Random) -> Vec<&'b [u8]> {
    match delivery {
        Delivery::Whole | Delivery::Pipelined => vec![bytes],
        Delivery::ByteByByte if bytes.len() <= BYTE_BY_BYTE_MAX => bytes.chunks(1).collect(),
        Delivery::ByteByByte | Delivery::Split => {
            let longest = (bytes.len() / 3).clamp(1, 4000);
            let mut rest = bytes;
            let mut chunks = Vec::new();
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(rest.len().min(1 + random.below(longest)));
                chunks.push(chunk);
                rest = after;
            }
            chunks
        }
    }
}

fn expect(
    client: &mut Client,
    pieces: &[Piece],
    numbers: &mut HashMap<String, u64>,
) -> Result<(), String> {
    for piece in pieces {
        match piece {
            Piece::Bytes(wanted) => {
                let got = client.take(wanted.len());
                if got != *wanted {
                    let (wanted, got) = (printable(wanted), printable(&got));
                    return Err(format!("wanted {wanted:?}, got {got:?}"));
                }
            }
            Piece::Named(name, shift) => {
                let got = number(client).ok_or("wanted a number")? as u64;
                meet(name, *shift, got, numbers)?;
            }
            Piece::Unique(name, shift) => {
                let got = client.take(8).try_into().map_err(|_| "wanted a unique")?;
                meet(name, *shift, u64::from_be_bytes(got), numbers)?;
            }
            Piece::Between(low, high) => {
                let got = number(client).ok_or("wanted a number")?;
                if !(i128::from(*low)..=i128::from(*high)).contains(&got) {
                    return Err(format!("wanted {low}..{high}, got {got}"));
                }
            }
        }
    }
    Ok(())
}

/// Remembers a number, or compares it with the one remembered.
fn meet(
    name: &str,
    shift: i64,
    got: u64,
    numbers: &mut HashMap<String, u64>,
) -> Result<(), String> {
    let wanted = numbers.get(name).map(|known| known.wrapping_add_signed(shift));
    if wanted.is_some_and(|wanted| wanted != got) {
        return Err(format!("wanted {name} = {wanted:?}, got {got}"));
    }
    numbers.entry(name.to_owned()).or_insert(got);
    Ok(())
}

/// Takes a number, with its minus sign, from the front of what arrives.
fn number(client: &mut Client) -> Option<i128> {
    let mut digits = String::new();
    while let Some(byte) = client.peek() {
        let sign = byte == b'-' && digits.is_empty();
        if !(byte.is_ascii_digit() || sign) {
            break;
        }
        digits.push(byte as char);
        client.next();
    }
    digits.parse().ok()
}
