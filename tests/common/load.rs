//! A client that remembers what it was told. It knows what each answer has to be, to the byte, and
//! what must be there, and what may be, when the server has died under it and come back.

use super::{Client, Random};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Keys of a client: few enough that most steps meet an item.
pub const KEYS: usize = 400;
/// Requests that are sent before the first answer is read.
const BATCH_MAX: usize = 8;
/// A deadline is known this well: the server counts whole seconds of its own.
const SLACK: Duration = Duration::from_secs(2);
/// Bytes that fill a value.
const SIZES: [usize; 12] = [0, 1, 5, 17, 40, 100, 300, 900, 4_000, 9_000, 40_000, 150_000];

const NO_NUMBER: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";

/// What a key may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    /// A value of this version, and how often something was appended.
    Value {
        version: u64,
        appended: u32,
    },
    Number(u64),
}

/// When a key dies: the server counted from some moment between a step and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deadline {
    earliest: Instant,
    latest: Instant,
}

impl Deadline {
    /// Of a time to live, which is none where it is 0.
    fn of(ttl: u32) -> Option<Deadline> {
        let at = Instant::now() + Duration::from_secs(u64::from(ttl));
        (ttl != 0).then_some(Deadline { earliest: at, latest: at })
    }
}

/// All that is known of a key.
#[derive(Clone, Debug)]
struct Known {
    state: State,
    /// What the last step would have made of it: nobody said whether it came to that.
    doubt: Option<State>,
    /// When it dies, as it is and if the step in doubt was done.
    deadlines: [Option<Deadline>; 2],
    /// It may be gone all the same: a flush was not answered.
    perhaps_flushed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Set { size: usize, ttl: u32 },
    Append,
    Delete,
    Number(u64),
    Incr(u64),
    Touch(u32),
    Gets,
    Meta,
}

/// What an audit came to.
#[derive(Debug, Default)]
pub struct Audit {
    pub live: u64,
    pub missing: Vec<String>,
    pub wrong: Vec<String>,
}

pub struct Memory {
    name: String,
    random: Random,
    known: HashMap<usize, Known>,
    uniques: HashSet<u64>,
    version: u64,
    pub steps: u64,
    /// Answers that cannot be: a connection out of step, or something that was never stored.
    pub wrong: Vec<String>,
}

impl Memory {
    pub fn new(name: String, seed: u64) -> Memory {
        let random = Random::new(seed);
        Memory {
            name,
            random,
            known: HashMap::new(),
            uniques: HashSet::new(),
            version: 0,
            steps: 0,
            wrong: Vec::new(),
        }
    }

    fn key(&self, n: usize) -> String {
        key_of(&self.name, n)
    }

    fn known(&self, n: usize) -> Known {
        self.known.get(&n).cloned().unwrap_or(Known {
            state: State::Absent,
            doubt: None,
            deadlines: [None; 2],
            perhaps_flushed: false,
        })
    }

    /// Everything is gone, or perhaps it is.
    pub fn flushed(&mut self, surely: bool) {
        match surely {
            true => self.known.clear(),
            false => self.known.values_mut().for_each(|known| known.perhaps_flushed = true),
        }
    }

    /// Sends some steps and reads their answers; false once the server is gone.
    pub fn work(&mut self, client: &mut Client) -> bool {
        let mut batch = Vec::new();
        for _ in 0..1 + self.random.below(BATCH_MAX) {
            let n = self.random.below(KEYS);
            if batch.iter().all(|(other, _)| *other != n) {
                let is_value = matches!(self.known(n).state, State::Value { .. });
                let step = match self.choose() {
                    // A number with something behind it would be neither.
                    Step::Append if !is_value => Step::Gets,
                    step => step,
                };
                batch.push((n, step));
            }
        }
        let mut request = Vec::new();
        let versions = self.version;
        for (at, (n, step)) in batch.iter().enumerate() {
            request.extend(self.request(*n, *step, versions + 1 + at as u64));
            self.doubt(*n, *step, versions + 1 + at as u64);
        }
        self.version += batch.len() as u64;
        let asked = Instant::now();
        let sent = client.try_send(&request).is_ok();
        for (at, (n, step)) in batch.into_iter().enumerate() {
            if !sent || !self.answer(client, (n, step, versions + 1 + at as u64), asked) {
                return false;
            }
            self.steps += 1;
        }
        true
    }

    fn choose(&mut self) -> Step {
        let r = &mut self.random;
        let ttl = if r.once_in(3) { 1 + r.below(30) as u32 } else { 0 };
        match r.below(16) {
            0..=6 => Step::Set { size: *r.pick(&SIZES), ttl },
            7 => Step::Append,
            8..=10 => Step::Delete,
            11 => Step::Number(r.below(1_000) as u64),
            12 | 13 => Step::Incr(r.below(100_000) as u64),
            14 => Step::Touch(ttl),
            _ if r.once_in(2) => Step::Meta,
            _ => Step::Gets,
        }
    }

    fn request(&self, n: usize, step: Step, version: u64) -> Vec<u8> {
        let key = self.key(n);
        let storage = |verb: &str, ttl: u32, value: &[u8]| {
            let head = format!("{verb} {key} {} {ttl} {}\r\n", n % 3, value.len());
            [head.as_bytes(), value, b"\r\n"].concat()
        };
        match step {
            Step::Set { size, ttl } => storage("set", ttl, &value_of(&key, version, size)),
            Step::Append => storage("append", 0, b"+"),
            Step::Delete => format!("delete {key}\r\n").into_bytes(),
            Step::Number(number) => storage("set", 0, number.to_string().as_bytes()),
            Step::Incr(by) => format!("incr {key} {by}\r\n").into_bytes(),
            Step::Touch(ttl) => format!("touch {key} {ttl}\r\n").into_bytes(),
            Step::Gets => format!("gets {key}\r\n").into_bytes(),
            Step::Meta => format!("mg {key} s f c k O{version} v\r\n").into_bytes(),
        }
    }

    /// Notes what a step that is about to be sent may come to.
    fn doubt(&mut self, n: usize, step: Step, version: u64) {
        let mut known = self.known(n);
        known.deadlines[1] = known.deadlines[0];
        known.doubt = match (step, known.state) {
            (Step::Set { ttl, .. }, _) => {
                known.deadlines[1] = Deadline::of(ttl);
                Some(State::Value { version, appended: 0 })
            }
            (Step::Number(number), _) => {
                known.deadlines[1] = None;
                Some(State::Number(number))
            }
            (Step::Delete, _) => Some(State::Absent),
            (Step::Append, State::Value { version, appended }) => {
                Some(State::Value { version, appended: appended + 1 })
            }
            (Step::Incr(by), State::Number(number)) => Some(State::Number(number + by)),
            (Step::Touch(ttl), state) => {
                known.deadlines[1] = Deadline::of(ttl);
                Some(state)
            }
            (_, state) => Some(state),
        };
        self.known.insert(n, known);
    }

    /// Reads an answer and notes that the step was done, or what it found; false where there is
    /// none, or not what can be one.
    fn answer(
        &mut self,
        client: &mut Client,
        (n, step, version): (usize, Step, u64),
        asked: Instant,
    ) -> bool {
        let line = client.line();
        if client.cut_off {
            return false;
        }
        let mut known = self.known(n);
        let found = match step {
            Step::Gets if line != "END" => self.take_value(client, n, &line),
            Step::Meta if line.starts_with("VA ") => self.take_meta(client, n, version, &line),
            _ => Some(None),
        };
        let Some(found) = found else { return false };
        let late = |deadline: Deadline| asked > deadline.latest + SLACK;
        let is_right = match found {
            Some(state) => state == known.state && !known.deadlines[0].is_some_and(late),
            None if step == Step::Meta => line == format!("EN k{} O{version}", self.key(n)),
            None => is_answer(step, known.state, &line),
        };
        if !is_right {
            self.wrong.push(format!(
                "{}: {step:?} of version {version}: answer {line:?}, value {found:?}, \
                 known {known:?}",
                self.key(n)
            ));
            return false;
        }
        let done = match step {
            Step::Set { .. } | Step::Number(_) | Step::Append => line == "STORED",
            Step::Delete => line == "DELETED",
            Step::Incr(_) => line.bytes().all(|b| b.is_ascii_digit()),
            Step::Touch(_) => line == "TOUCHED",
            Step::Gets | Step::Meta => false,
        };
        if done {
            known.state = known.doubt.expect("a step that was sent");
            known.deadlines[0] = known.deadlines[1];
            if let (Step::Set { ttl, .. } | Step::Touch(ttl), Some(deadline)) =
                (step, &mut known.deadlines[0])
            {
                deadline.latest = Instant::now() + Duration::from_secs(u64::from(ttl));
            }
            // What the key was before is no matter any more.
            known.perhaps_flushed = false;
        } else if line == "NOT_FOUND" || matches!((step, found), (Step::Gets | Step::Meta, None)) {
            known.state = State::Absent;
        } else if line == "NOT_STORED" || line.starts_with("SERVER_ERROR") {
            // It was evicted, or there was no memory to change it.
            known.perhaps_flushed = true;
        }
        known.doubt = None;
        self.known.insert(n, known);
        true
    }

    /// The rest of an answer to `gets`, and what the value says it is. The inner `None`: it is not
    /// what can be this key's; the outer: it was cut off.
    fn take_value(&mut self, client: &mut Client, n: usize, line: &str) -> Option<Option<State>> {
        let words: Vec<&str> = line.split(' ').collect();
        let ["VALUE", key, flags, len, unique] = words[..] else { return Some(None) };
        let (Ok(len), Ok(unique)) = (len.parse::<usize>(), unique.parse()) else {
            return Some(None);
        };
        self.uniques.insert(unique);
        let (value, end) = (client.take(len + 2), client.line());
        if client.cut_off {
            return None;
        }
        let ours = key == self.key(n)
            && flags == (n % 3).to_string()
            && value.ends_with(b"\r\n")
            && end == "END";
        Some(ours.then(|| read_value(key, &value[..len])).flatten())
    }

    /// As [`Memory::take_value`], of an answer to `mg`.
    fn take_meta(
        &mut self,
        client: &mut Client,
        n: usize,
        version: u64,
        line: &str,
    ) -> Option<Option<State>> {
        let words: Vec<&str> = line.split(' ').collect();
        let ["VA", len, size, flags, unique, key, opaque] = words[..] else { return Some(None) };
        let Ok(bytes) = len.parse::<usize>() else { return Some(None) };
        if let Some(unique) = unique.strip_prefix('c').and_then(|c| c.parse().ok()) {
            self.uniques.insert(unique);
        }
        let value = client.take(bytes + 2);
        if value.len() < bytes + 2 {
            return None;
        }
        let name = self.key(n);
        let ours = size == format!("s{len}")
            && flags == format!("f{}", n % 3)
            && key == format!("k{name}")
            && opaque == format!("O{version}")
            && value.ends_with(b"\r\n");
        Some(ours.then(|| read_value(&name, &value[..bytes])).flatten())
    }

    /// Uniques that were handed out for this client's items.
    pub fn uniques(&self) -> &HashSet<u64> {
        &self.uniques
    }

    /// Compares what is there with what must be, and learns what came of steps in doubt.
    pub fn audit(&mut self, client: &mut Client, audit: &mut Audit) {
        audit.wrong.append(&mut self.wrong);
        for n in 0..KEYS {
            let (key, known) = (self.key(n), self.known(n));
            let asked = Instant::now();
            let found = fetch(client, &key, n);
            let is = match found {
                Ok(state) => state,
                Err(why) => {
                    // Behind a silence, answers are to what was asked before.
                    assert!(!client.timed_out, "{key}: no answer for too long");
                    audit.wrong.push(format!("{key}: {why}, known {known:?}"));
                    continue;
                }
            };
            self.judge(n, &known, is, asked, audit);
            let deadline = match known.doubt == Some(is) && known.state != is {
                true => known.deadlines[1],
                false => known.deadlines[0],
            };
            // Of a touch in doubt either deadline may be the one.
            let unsure = known.doubt == Some(is) && known.deadlines[0] != known.deadlines[1];
            match is {
                State::Absent => self.known.remove(&n),
                _ if unsure => {
                    client.exchange(format!("touch {key} 0\r\n").as_bytes(), b"TOUCHED\r\n");
                    self.settle(n, is, None)
                }
                _ => self.settle(n, is, deadline),
            };
        }
    }

    fn settle(&mut self, n: usize, state: State, deadline: Option<Deadline>) -> Option<Known> {
        let deadlines = [deadline; 2];
        self.known.insert(n, Known { state, doubt: None, deadlines, perhaps_flushed: false })
    }

    fn judge(&self, n: usize, known: &Known, is: State, asked: Instant, audit: &mut Audit) {
        let states = [Some(known.state), known.doubt];
        let lives = |at: Deadline| is == State::Absent || asked < at.latest + SLACK;
        let may_be =
            |state: State, deadline: Option<Deadline>| is == state && deadline.is_none_or(lives);
        let dies =
            |deadline: Option<Deadline>| deadline.is_some_and(|at| asked + SLACK > at.earliest);
        let possible = states
            .iter()
            .zip(known.deadlines)
            .any(|(state, deadline)| state.is_some_and(|state| may_be(state, deadline)));
        let must_live = known.state != State::Absent
            && known.doubt.is_none_or(|state| state != State::Absent)
            && !known.deadlines.into_iter().any(dies)
            && !known.perhaps_flushed;
        audit.live += u64::from(must_live);
        if is == State::Absent {
            if must_live {
                audit.missing.push(format!("{}: known {known:?}", self.key(n)));
            }
        } else if !possible {
            audit.wrong.push(format!("{}: {is:?}, known {known:?}", self.key(n)));
        }
    }
}

/// What a key holds; an error says that it is nothing that was ever stored there.
fn fetch(client: &mut Client, key: &str, n: usize) -> Result<State, String> {
    client.send(format!("get {key}\r\n").as_bytes());
    let line = client.line();
    if line == "END" {
        return Ok(State::Absent);
    }
    let words: Vec<&str> = line.split(' ').collect();
    let ["VALUE", name, flags, len] = words[..] else { return Err(format!("answer {line:?}")) };
    let value = client.take(len.parse().map_err(|_| format!("answer {line:?}"))?);
    client.expect(b"\r\nEND\r\n");
    if name != key || flags != (n % 3).to_string() {
        return Err(format!("answer {line:?}"));
    }
    read_value(key, &value).ok_or_else(|| {
        format!("{} bytes that begin with {:?}", value.len(), &value[..value.len().min(60)])
    })
}

/// A value says whose it is, its version, its length and its sum, and is filled from those.
pub fn value_of(key: &str, version: u64, size: usize) -> Vec<u8> {
    let mut value = format!("{key} {version} {size} ").into_bytes();
    let mut filler = Random::new(version ^ size as u64);
    // Quickly made, also of a large value, since much of a test is to make them.
    let letters: Vec<u8> = (0..size.min(251)).map(|_| b'a' + filler.below(26) as u8).collect();
    value.extend(letters.iter().cycle().take(size));
    let sum = crc32fast::hash(&value);
    value.extend(format!(" {sum:08x}").bytes());
    value
}

/// True of a value that was stored for the key, at whatever time.
pub fn is_value_of(key: &str, value: &[u8]) -> bool {
    read_value(key, value).is_some()
}

fn read_value(key: &str, value: &[u8]) -> Option<State> {
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.trim_end().parse::<u64>().ok();
    if let Some(number) = number(value) {
        return Some(State::Number(number));
    }
    let appended = value.iter().rev().take_while(|b| **b == b'+').count();
    let value = &value[..value.len() - appended];
    let mut words = value.splitn(4, |b| *b == b' ');
    let (name, version, size) = (words.next()?, words.next()?, words.next()?);
    let (version, size) = (number(version)?, number(size)?);
    let whole = name == key.as_bytes() && value == value_of(key, version, size as usize);
    whole.then_some(State::Value { version, appended: appended as u32 })
}

pub fn key_of(name: &str, n: usize) -> String {
    format!("c{name}:{n}:{}", "k".repeat(n % 60))
}

/// True of a line that can be the answer to a step on a key that is in this state, or that was
/// evicted or has expired.
fn is_answer(step: Step, state: State, line: &str) -> bool {
    let refused = line.starts_with("SERVER_ERROR out of memory");
    let is_there = state != State::Absent;
    match step {
        Step::Set { .. } | Step::Number(_) => line == "STORED" || refused,
        Step::Append => line == "NOT_STORED" || is_there && (line == "STORED" || refused),
        Step::Delete => line == "NOT_FOUND" || is_there && line == "DELETED",
        Step::Touch(_) => line == "NOT_FOUND" || is_there && (line == "TOUCHED" || refused),
        Step::Gets | Step::Meta => line == "END",
        Step::Incr(by) => match state {
            State::Absent => line == "NOT_FOUND",
            State::Number(n) => line == (n + by).to_string() || line == "NOT_FOUND" || refused,
            State::Value { .. } => line == "NOT_FOUND" || line == NO_NUMBER,
        },
    }
}
