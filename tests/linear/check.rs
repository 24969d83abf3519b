//! An exact checker of linearizability for one key: Wing and Gong's search in Lowe's
//! just-in-time form. Events are taken in the order of time. What is kept is every pair of a state
//! and the set of operations under way that may already have happened in it; an operation has to
//! have happened when its answer is there, so whoever has not done it by then tries every order of
//! those under way that ends with it. Pairs are kept once, so the work is bounded by states times
//! subsets of what is under way at one moment, however long the history is.

use crate::history::{Answer, Op, Record};
use crate::spec::{Rules, State, Values, next};
use std::collections::HashSet;

/// Operations that may be under way at once on one key.
const CLIENTS_MAX: usize = 32;
/// Records before a violation that a report shows.
const STORY: usize = 24;
/// Values that a key may have before those that it can no longer have are forgotten.
const VALUES_MAX: usize = 1 << 12;

/// A key's history so far: the states that it may be in.
pub struct Checker {
    rules: Rules,
    values: Values,
    states: Vec<State>,
}

/// A state, and who of those under way has been served already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Point {
    state: State,
    served: u32,
}

/// What a history has that no order explains.
#[derive(Debug)]
pub struct Violation(pub String);

enum Event<'a> {
    Sent(&'a Record),
    Answered(&'a Record),
}

impl Checker {
    /// Of a key that is not there.
    pub fn new(rules: Rules) -> Checker {
        Checker { rules, values: Values::default(), states: vec![State::default()] }
    }

    /// Takes more of the key's history; all its operations were answered.
    pub fn check(&mut self, records: &[Record]) -> Result<(), Violation> {
        let mut points: HashSet<Point> =
            self.states.iter().map(|state| Point { state: *state, served: 0 }).collect();
        let mut under_way: Vec<Option<&Record>> = vec![None; CLIENTS_MAX];
        for event in events(records) {
            match event {
                Event::Sent(record) => {
                    let place = &mut under_way[usize::from(record.client)];
                    assert!(place.is_none(), "a client has two operations at once");
                    *place = Some(record);
                }
                Event::Answered(record) => {
                    let before = points.clone();
                    points = self.serve(points, &under_way, record.client);
                    if points.is_empty() {
                        return Err(self.violation(records, record, &before));
                    }
                    under_way[usize::from(record.client)] = None;
                }
            }
        }
        self.states = points.into_iter().map(|point| point.state).collect();
        self.forget();
        Ok(())
    }

    /// The points in which `client` has been served, by every order that leads there.
    fn serve(
        &mut self,
        points: HashSet<Point>,
        under_way: &[Option<&Record>],
        client: u8,
    ) -> HashSet<Point> {
        let mut found = HashSet::with_capacity(points.len());
        let mut seen = points.clone();
        let mut left: Vec<Point> = points.into_iter().collect();
        while let Some(point) = left.pop() {
            if point.served & 1 << client != 0 {
                found.insert(Point { served: point.served & !(1 << client), ..point });
                continue;
            }
            for record in under_way.iter().flatten() {
                let bit = 1 << record.client;
                if point.served & bit != 0 {
                    continue;
                }
                for state in self.after(point.state, &record.op, &record.answer) {
                    let reached = Point { state, served: point.served | bit };
                    if seen.insert(reached) {
                        left.push(reached);
                    }
                }
            }
        }
        found
    }

    /// The states after an operation, before which the item may have been evicted.
    fn after(&mut self, state: State, op: &Op, answer: &Answer) -> Vec<State> {
        let mut states = next(self.rules, &mut self.values, state, op, answer);
        if self.rules.evicts && state.item.is_some() {
            let without = State { item: None, ..state };
            states.extend(next(self.rules, &mut self.values, without, op, answer));
        }
        states
    }

    /// Drops values that no state has.
    fn forget(&mut self) {
        if self.values.len() < VALUES_MAX {
            return;
        }
        let old = std::mem::take(&mut self.values);
        for item in self.states.iter_mut().filter_map(|state| state.item.as_mut()) {
            item.value = self.values.number(old.bytes(item.value));
        }
    }

    fn violation(&self, records: &[Record], at: &Record, before: &HashSet<Point>) -> Violation {
        let mut until: Vec<&Record> = records.iter().filter(|r| r.sent <= at.answered).collect();
        until.sort_by_key(|record| record.answered);
        let last = &until[until.len().saturating_sub(STORY)..];
        let story: Vec<String> = last.iter().map(|record| words(record)).collect();
        let states: Vec<String> = before.iter().map(|point| self.state_words(point)).collect();
        Violation(format!(
            "no order explains {}\nbefore it the key could be\n  {}\nafter\n  {}",
            words(at),
            states.join("\n  "),
            story.join("\n  "),
        ))
    }

    fn state_words(&self, point: &Point) -> String {
        let State { item, newest } = point.state;
        let served = point.served;
        let Some(item) = item else {
            return format!("absent, newest {newest}, served {served:#b}");
        };
        let value = format!("{:?}", self.values.bytes(item.value));
        let (flags, term, unique) = (item.flags, item.term, item.unique);
        format!("{value} F{flags} T{term} c{unique}, newest {newest}, served {served:#b}")
    }
}

/// In the order of time; what is sent in the very moment of an answer may have come before it.
fn events(records: &[Record]) -> impl Iterator<Item = Event<'_>> {
    let mut events: Vec<(u64, bool, &Record)> = Vec::with_capacity(2 * records.len());
    for record in records {
        assert!(record.sent <= record.answered, "answered before it was sent: {record:?}");
        events.push((record.sent, false, record));
        events.push((record.answered, true, record));
    }
    // A client's next operation is never sent in the moment in which its last was answered.
    events.sort_by_key(|(time, is_answer, _)| (*time, *is_answer));
    events.into_iter().map(
        |(_, is_answer, record)| {
            if is_answer { Event::Answered(record) } else { Event::Sent(record) }
        },
    )
}

fn words(record: &Record) -> String {
    let Record { client, key, sent, answered, op, answer } = record;
    format!("client {client} key {key} {sent}..{answered} {op:?} -> {answer:?}")
}
