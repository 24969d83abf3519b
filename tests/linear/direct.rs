//! Threads in the store's own process: no socket smooths what they do to each other.

use crate::clients::{Port, Wish, key_name};
use crate::history::{Answer, Mode, Op, Seen, TERMS, exptime_of, term_of};
use rustcached::clock::Exptime;
use rustcached::store::{
    Arith, ArithOutcome, Delete, DeleteOutcome, Fetch, FetchOutcome, Get, Hit, Key, KeyHash, Local,
    Outcome, Pin, Refusal, Set, SetMode, Store, Touch, TouchOutcome,
};
use std::sync::Arc;

pub struct Thread {
    pub store: Arc<Store>,
    pub local: Local,
    /// Turns in which values are written: at once, or reserved, filled in pieces, and committed.
    turn: u32,
}

impl Port for Thread {
    const BATCHES: bool = false;

    fn run(&mut self, wishes: &[Wish]) -> Vec<Answer> {
        wishes.iter().map(|wish| self.answer(wish)).collect()
    }
}

impl Thread {
    pub fn of(store: &Arc<Store>) -> Thread {
        Thread { store: store.clone(), local: store.local(), turn: 0 }
    }

    fn answer(&mut self, wish: &Wish) -> Answer {
        self.turn += 1;
        let name = key_name(wish.key);
        let key = Key::new(name.as_bytes()).expect("a key");
        let hash = self.store.hash(key);
        let get = Get::of(key);
        match &wish.op {
            Op::Get => self.get(&get, hash),
            Op::Gets => self.fetch(&Fetch { cas: true, ..Fetch::of(get) }, hash, false),
            Op::Look => {
                let get = Get { meta: true, ..get };
                self.fetch(&Fetch { cas: true, ..Fetch::of(get) }, hash, true)
            }
            Op::Gat(term) => {
                let touch = Some(Exptime(exptime_of(*term)));
                self.fetch(&Fetch { touch, ..Fetch::of(get) }, hash, false)
            }
            Op::Store { mode, value, flags, term, unique } => {
                let set = Set {
                    mode: set_mode(*mode),
                    client_flags: *flags,
                    exptime: Exptime(exptime_of(*term)),
                    return_cas: *unique,
                    ..Set::of(key, value.len() as u32)
                };
                self.set(&set, hash, value)
            }
            Op::Cas { value, flags, term, compare } => {
                let set = Set {
                    mode: SetMode::Cas,
                    client_flags: *flags,
                    exptime: Exptime(exptime_of(*term)),
                    compare_cas: Some(*compare),
                    ..Set::of(key, value.len() as u32)
                };
                self.set(&set, hash, value)
            }
            Op::Arith(delta) => {
                let arith =
                    Arith { increment: *delta >= 0, ..Arith::of(key, delta.unsigned_abs()) };
                match self.store.arith(&self.local, &arith, hash) {
                    ArithOutcome::Number { value, .. } => Answer::Number(value),
                    ArithOutcome::NotFound => Answer::Miss,
                    ArithOutcome::Exists => Answer::Exists,
                    ArithOutcome::NonNumeric => Answer::NotNumeric,
                    ArithOutcome::NoMemory => Answer::Refused,
                }
            }
            Op::Delete => self.delete(&Delete::of(key), hash),
            Op::DeleteIf(compare) => {
                self.delete(&Delete { compare_cas: Some(*compare), ..Delete::of(key) }, hash)
            }
            Op::Touch(term) => {
                let touch = Touch { key, exptime: Exptime(exptime_of(*term)) };
                match self.store.touch(&self.local, &touch, hash) {
                    TouchOutcome::Touched => Answer::Done,
                    TouchOutcome::NotFound => Answer::Miss,
                    TouchOutcome::NoMemory => panic!("there is memory enough"),
                }
            }
            Op::Flush => {
                self.store.flush_all(&self.local, None);
                Answer::Done
            }
        }
    }

    fn get(&self, get: &Get<'_>, hash: KeyHash) -> Answer {
        let mut glimpse = None;
        let show = |hit: Hit<'_>| glimpse = Some(glance(&hit, false, false));
        let found = self.store.get(&self.local, get, hash, show);
        if found { Answer::Hit(look(glimpse)) } else { Answer::Miss }
    }

    fn fetch(&self, fetch: &Fetch<'_>, hash: KeyHash, term: bool) -> Answer {
        let mut glimpse = None;
        let show = |hit: Hit<'_>| glimpse = Some(glance(&hit, fetch.cas, term));
        match self.store.fetch(&self.local, fetch, hash, show) {
            FetchOutcome::Hit => Answer::Hit(look(glimpse)),
            FetchOutcome::Miss => Answer::Miss,
            FetchOutcome::NoMemory => panic!("there is memory enough"),
        }
    }

    fn set(&self, set: &Set<'_>, hash: KeyHash, value: &[u8]) -> Answer {
        let outcome = if self.turn.is_multiple_of(2) {
            self.store.set(&self.local, set, hash, value)
        } else {
            self.store.reserve(&self.local, set, hash).and_then(|mut room| {
                let mut rest = value;
                while room.missing() > 0 {
                    let piece = &rest[..rest.len().min(700)];
                    rest = &rest[room.fill(&self.local, piece)?..];
                }
                self.store.commit(&self.local, room, set, hash)
            })
        };
        match outcome {
            Ok(Outcome::Stored { cas, .. }) => Answer::Stored(cas),
            Ok(Outcome::NotStored) => Answer::NotStored,
            Ok(Outcome::Exists) => Answer::Exists,
            Ok(Outcome::NotFound) => Answer::Miss,
            Ok(Outcome::NoMemory) | Err(Refusal::NoMemory | Refusal::NoMemoryOnTheWay) => {
                Answer::Refused
            }
            Err(Refusal::TooLarge) => panic!("a value of {} is too large", value.len()),
        }
    }

    fn delete(&self, delete: &Delete<'_>, hash: KeyHash) -> Answer {
        match self.store.delete(&self.local, delete, hash) {
            DeleteOutcome::Deleted => Answer::Done,
            DeleteOutcome::NotFound => Answer::Miss,
            DeleteOutcome::Exists => Answer::Exists,
            DeleteOutcome::NoMemory => Answer::Refused,
        }
    }
}

fn set_mode(mode: Mode) -> SetMode {
    match mode {
        Mode::Set => SetMode::Set,
        Mode::Add => SetMode::Add,
        Mode::Replace => SetMode::Replace,
        Mode::Append => SetMode::Append,
        Mode::Prepend => SetMode::Prepend,
    }
}

/// What a hit shows. Each call stands for the one before it: a look without the lock may see what
/// is not so, and is repeated.
fn glance(hit: &Hit<'_>, unique: bool, term: bool) -> (Seen, Option<Pin>) {
    let (mut value, pin) = (Vec::new(), hit.pin());
    if pin.is_none() {
        hit.copy_value(&mut value);
    }
    let seen = Seen {
        value: value.into(),
        flags: hit.client_flags(),
        unique: unique.then(|| hit.cas()),
        // One that no item has, where nobody gave the item what it has left.
        term: term.then(|| term_of(hit.ttl()).unwrap_or(TERMS)),
    };
    (seen, pin)
}

/// A large value is read late, through its pin: it has to outlive the item.
fn look(glimpse: Option<(Seen, Option<Pin>)>) -> Seen {
    let (seen, pin) = glimpse.expect("a hit is shown");
    let Some(pin) = pin else { return seen };
    std::thread::yield_now();
    let value: Vec<u8> = pin.slices().flatten().copied().collect();
    Seen { value: value.into(), ..seen }
}
