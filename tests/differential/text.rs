//! Two servers side by side: the same requests in text, and how answers are compared.

use crate::common::requests::{Part, Request};
use crate::common::{Random, Server, printable};
use crate::counters;
use crate::wire::Wire;
use std::collections::HashMap;
use std::path::Path;

/// Our server, the real one, and what was seen of both.
pub struct Pair {
    servers: [Server; 2],
    wires: [Wire; 2],
    /// By datagrams, which tell no errors of framing.
    udp: bool,
    /// Unix times of the servers' clocks, where both stand still until they are moved.
    clocks: Option<[u64; 2]>,
    /// What the real one's clock last went forward by: its next step is that and what is asked for.
    last_step: i64,
    /// The CAS uniques last seen for a key.
    uniques: HashMap<String, [u64; 2]>,
    /// Every line sent to ours, for the story behind a difference.
    sent: Vec<u8>,
}

/// Of the requests before a difference, how many to tell.
const STORY_LINES: usize = 20;
/// Seconds by which both may tell otherwise how long an item was idle.
const IDLE_APART: i64 = 63;

impl Pair {
    pub fn start(real: &Path, args: &[&str], udp: bool) -> Pair {
        let servers = [Server::start(args), Server::start_binary(real, args)];
        // One less than the first unique would be 0, which is compared with nothing.
        for server in &servers {
            assert_eq!(server.ask("ma first N0 c").split(' ').next(), Some("HD"));
            assert_eq!(server.ask("md first"), "HD");
        }
        let wires = connect(&servers, udp);
        let (uniques, sent) = (HashMap::new(), Vec::new());
        Pair { servers, wires, udp, clocks: None, last_step: 0, uniques, sent }
    }

    /// Of the real one.
    pub fn release(&self) -> [u32; 3] {
        self.servers[1].release()
    }

    /// Both servers' clocks stand still from now on; false where one has no command for that.
    pub fn pause(&mut self) -> bool {
        if !self.servers.iter().all(|server| server.ask("debugtime p") == "OK") {
            return false;
        }
        // Whoever was about to move them has done so.
        std::thread::sleep(std::time::Duration::from_millis(1200));
        let times = self.servers.each_ref().map(|server| server.stat("time"));
        self.clocks = times[0].zip(times[1]).map(<[u64; 2]>::from);
        self.clocks.is_some()
    }

    /// True where clocks that stand still show the same second.
    pub fn is_in_step(&self) -> bool {
        self.clocks.is_some_and(|[ours, theirs]| ours == theirs)
    }

    fn advance(&mut self, seconds: u64) -> Result<(), String> {
        // memcached adds up what it was told, and adds the sum each time.
        let theirs = seconds as i64 - self.last_step;
        self.last_step = seconds as i64;
        self.sent.extend_from_slice(format!("debugtime {seconds}\n").as_bytes());
        for (server, step) in self.servers.iter().zip([seconds as i64, theirs]) {
            let answer = server.ask(&format!("debugtime {step}"));
            if answer != "OK" {
                return Err(format!("debugtime {step}: {answer}"));
            }
        }
        let clocks = self.clocks.as_mut().ok_or("clocks that run")?;
        clocks.iter_mut().for_each(|time| *time += seconds);
        let times = self.servers.each_ref().map(|server| server.stat("time"));
        if times == clocks.map(Some) {
            Ok(())
        } else {
            Err(format!("it is {times:?} and should be {clocks:?}"))
        }
    }

    /// The figures of `stats` that are to be the same.
    pub fn compare_counters(&self) -> Result<(), String> {
        let figures = self.servers.each_ref().map(counters::of);
        counters::compare(&figures).map_err(|why| format!("stats differ: {why}"))
    }

    pub fn compare(&mut self, batch: &[Request], random: &mut Random) -> Result<(), String> {
        if let Some(seconds) = batch.iter().find_map(|request| request.advance) {
            return self.advance(seconds);
        }
        let closes = batch.last().is_some_and(|request| request.closes);
        let ours = self.ask(0, batch, random, closes)?;
        let theirs = self.ask(1, batch, random, closes)?;
        if closes {
            self.wires = connect(&self.servers, self.udp);
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
        let (reply, closed) = self.wires[side].ask(&mut bytes, random)?;
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
                Part::Moment(after) => {
                    let now = self.clocks.map_or(0, |clocks| clocks[side]);
                    bytes.extend_from_slice(
                        now.saturating_add_signed(*after).to_string().as_bytes(),
                    );
                }
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
                "ME" => self.same_debug_word(pair),
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
            _ => pair.0 == pair.1 || self.is_close(pair, "t") || self.is_idle_alike(pair),
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

    /// Seconds, which may have turned between the two answers where clocks run.
    fn is_close(&self, pair: (&str, &str), flag: &str) -> bool {
        let number = |word: &str| word.strip_prefix(flag)?.parse().ok();
        let (ours, theirs): (Option<i64>, Option<i64>) = (number(pair.0), number(pair.1));
        let apart = if self.clocks.is_some() { 0 } else { 3 };
        ours.zip(theirs).is_some_and(|(ours, theirs)| (ours - theirs).abs() <= apart)
    }

    /// memcached notes an access to the minute, ours as of the next second after a flush.
    fn is_idle_alike(&self, pair: (&str, &str)) -> bool {
        let number = |word: &str| word.strip_prefix('l')?.parse().ok();
        let (ours, theirs): (Option<i64>, Option<i64>) = (number(pair.0), number(pair.1));
        ours.zip(theirs).is_some_and(|(ours, theirs)| (ours - theirs).abs() <= IDLE_APART)
    }

    /// A word of `me`: layouts and uniques are each server's own.
    fn same_debug_word(&self, pair: (&str, &str)) -> bool {
        let names = [pair.0, pair.1].map(|word| word.split('=').next());
        let own = matches!(names[0], Some("la" | "cas" | "cls" | "size"));
        names[0] == names[1] && (own || pair.0 == pair.1 || self.is_close(pair, "exp="))
    }
}

fn connect(servers: &[Server; 2], udp: bool) -> [Wire; 2] {
    servers.each_ref().map(|server| Wire::to(server, udp))
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
