//! Clients that draw operations at random and record what comes of them.

use crate::common::Random;
use crate::history::{Answer, Bytes, DEAD, Mode, Op, Record, Stopwatch, TERMS, Term};

/// Keys that all clients share.
pub const KEYS: u16 = 48;
/// Of these, from 0, the numbers; after them the small, the middle, the large, the huge values.
const NUMBERS: u16 = 16;
const SMALL: u16 = 30;
const MIDDLE: u16 = 40;
const LARGE: u16 = 46;
/// Operations at a time, on as many keys.
const BATCH: usize = 12;

pub fn key_name(key: u16) -> String {
    // Some are longer than a small chunk.
    let tail = if key.is_multiple_of(5) { "-with-a-name-that-is-long" } else { "" };
    format!("linear{key}{tail}")
}

/// What a client wants done, and whether it is not to be told.
pub struct Wish {
    pub key: u16,
    pub op: Op,
    pub quiet: bool,
}

/// A way to a store.
pub trait Port {
    /// More than one wish at a time is no use where each is done alone.
    const BATCHES: bool;

    /// Carries the wishes out, in order; an answer for each.
    fn run(&mut self, wishes: &[Wish]) -> Vec<Answer>;
}

pub struct Client<P> {
    pub port: P,
    number: u8,
    random: Random,
    /// Uniques last seen.
    uniques: Vec<u64>,
    /// Values stored.
    stored: u64,
    last: u64,
}

impl<P: Port> Client<P> {
    pub fn new(port: P, number: u8, seed: u64) -> Client<P> {
        let random = Random::new(seed ^ u64::from(number) << 56);
        Client { port, number, random, uniques: vec![0; KEYS.into()], stored: 0, last: 0 }
    }

    /// Records at least `count` operations.
    pub fn work(&mut self, count: usize, watch: Stopwatch) -> Vec<Record> {
        let mut records = Vec::with_capacity(count + usize::from(KEYS));
        while records.len() < count {
            let wishes = self.draw();
            let sent = self.moment(watch);
            let answers = self.port.run(&wishes);
            let answered = self.moment(watch);
            assert_eq!(answers.len(), wishes.len());
            for (wish, answer) in wishes.into_iter().zip(answers) {
                self.learn(wish.key, &answer);
                let (client, Wish { key, op, .. }) = (self.number, wish);
                let keys = if op == Op::Flush { 0..KEYS } else { key..key + 1 };
                records.extend(keys.map(|key| Record {
                    client,
                    key,
                    sent,
                    answered,
                    op: op.clone(),
                    answer: answer.clone(),
                }));
            }
        }
        records
    }

    /// Later than the last one of this client.
    fn moment(&mut self, watch: Stopwatch) -> u64 {
        while watch.now() <= self.last {}
        self.last = watch.now();
        self.last
    }

    fn learn(&mut self, key: u16, answer: &Answer) {
        let unique = match answer {
            Answer::Hit(seen) => seen.unique,
            Answer::Stored(unique) => *unique,
            _ => None,
        };
        if let Some(unique) = unique {
            self.uniques[usize::from(key)] = unique;
        }
    }

    fn draw(&mut self) -> Vec<Wish> {
        if self.random.once_in(4_000) {
            return vec![Wish { key: 0, op: Op::Flush, quiet: false }];
        }
        let len = if P::BATCHES { 1 + self.random.below(BATCH) } else { 1 };
        let mut wishes: Vec<Wish> = Vec::with_capacity(len);
        for _ in 0..len {
            let key = self.random.below(KEYS.into()) as u16;
            if wishes.iter().all(|wish| wish.key != key) {
                let op = self.op(key);
                let quiet = P::BATCHES && self.random.once_in(16);
                wishes.push(Wish { key, op, quiet });
            }
        }
        wishes
    }

    fn op(&mut self, key: u16) -> Op {
        let unique = self.uniques[usize::from(key)];
        match self.random.below(100) {
            0..20 => Op::Get,
            20..28 => Op::Gets,
            28..40 => Op::Look,
            40..44 => Op::Gat(self.term()),
            44..60 => self.store(key, Mode::Set),
            60..65 => self.store(key, Mode::Add),
            65..69 => self.store(key, Mode::Replace),
            69..72 => self.store(key, Mode::Append),
            72..74 => self.store(key, Mode::Prepend),
            74..82 if unique != 0 => {
                let (value, flags, term) = (self.value(key), self.flags(), self.term());
                Op::Cas { value, flags, term, compare: unique }
            }
            82..90 if key < NUMBERS => Op::Arith(*self.random.pick(&[1, 1, 7, -1, -9])),
            90..93 => Op::Delete,
            93..95 if unique != 0 => Op::DeleteIf(unique),
            95..100 => Op::Touch(self.term()),
            _ => Op::Look,
        }
    }

    fn store(&mut self, key: u16, mode: Mode) -> Op {
        let value = match mode {
            Mode::Append | Mode::Prepend => self.piece(key),
            _ => self.value(key),
        };
        let (flags, term, unique) = (self.flags(), self.term(), self.random.once_in(3));
        Op::Store { mode, value, flags, term, unique }
    }

    fn term(&mut self) -> Term {
        match self.random.below(40) {
            0 => DEAD,
            1..20 => 0,
            _ => self.random.below(TERMS.into()) as Term,
        }
    }

    fn flags(&mut self) -> u32 {
        if self.random.once_in(2) { 0 } else { self.random.below(1000) as u32 }
    }

    /// A value that no other store has: a number, and behind a blank bytes that follow from it.
    fn value(&mut self, key: u16) -> Bytes {
        self.stored += 1;
        let number = (u64::from(self.number) + 1) * 1_000_000_000_000 + self.stored * 1_000;
        let mut bytes = number.to_string().into_bytes();
        let random = &mut self.random;
        let filler = match key {
            0..NUMBERS => return bytes.into(),
            NUMBERS..SMALL => random.below(60),
            SMALL..MIDDLE => 100 + random.below(800),
            MIDDLE..LARGE => 1_000 + random.below(9_000),
            _ => 10_000 + random.below(50_000),
        };
        bytes.push(b' ');
        bytes.resize(bytes.len() + filler, b'a' + (number / 1_000 % 26) as u8);
        bytes.into()
    }

    fn piece(&mut self, key: u16) -> Bytes {
        let digit = b'0' + self.random.below(10) as u8;
        let len = if key < SMALL { 1 } else { 1 + self.random.below(400) };
        vec![digit; len].into()
    }
}
