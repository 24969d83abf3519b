//! What one key may do, one operation at a time: memcached's semantics as a relation between a
//! state, an operation, an answer and the next state.

use crate::history::{Answer, Bytes, DEAD, Mode, Op, Term};
use std::collections::HashMap;

/// A value by its number in [`Values`], so that states are small.
pub type ValueNo = u32;

/// Every value that was seen of a key.
#[derive(Default)]
pub struct Values {
    numbers: HashMap<Bytes, ValueNo>,
    bytes: Vec<Bytes>,
}

impl Values {
    pub fn number(&mut self, bytes: &Bytes) -> ValueNo {
        if let Some(number) = self.numbers.get(bytes) {
            return *number;
        }
        let number = self.bytes.len() as ValueNo;
        self.bytes.push(bytes.clone());
        self.numbers.insert(bytes.clone(), number);
        number
    }

    pub fn bytes(&self, number: ValueNo) -> &Bytes {
        &self.bytes[number as usize]
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    pub value: ValueNo,
    pub flags: u32,
    pub term: Term,
    /// The CAS unique, 0 while nobody has seen it.
    pub unique: u64,
}

/// A key at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub item: Option<Item>,
    /// The highest unique that anybody has seen of this key.
    pub newest: u64,
}

impl State {
    fn with(self, item: Option<Item>) -> State {
        State { item, ..self }
    }

    /// With a unique that an answer showed as the item's; `None` where it cannot be.
    fn showing(self, unique: u64) -> Option<State> {
        let item = self.item?;
        match item.unique {
            // Uniques of later items are higher.
            0 if unique > self.newest => {
                Some(State { item: Some(Item { unique, ..item }), newest: unique })
            }
            known => (known != 0 && known == unique).then_some(self),
        }
    }
}

/// What may go wrong on the server without anybody's fault.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// An item may go at any time, and memory may be refused.
    pub evicts: bool,
}

/// The states after `op` was carried out on `state` and answered as `answer` says.
pub fn next(
    rules: Rules,
    values: &mut Values,
    state: State,
    op: &Op,
    answer: &Answer,
) -> Vec<State> {
    if *answer == Answer::Refused {
        // Some writes drop the old item when they are refused.
        let both = vec![state, state.with(None)];
        return if rules.evicts { both } else { Vec::new() };
    }
    let mut states = accepted(rules, values, state, op, answer);
    if *answer == Answer::Unheard && rules.evicts {
        states.extend([state, state.with(None)]);
    }
    states
}

fn accepted(
    rules: Rules,
    values: &mut Values,
    state: State,
    op: &Op,
    answer: &Answer,
) -> Vec<State> {
    match op {
        Op::Get | Op::Gets | Op::Look => read(rules, values, state, None, answer),
        Op::Gat(term) => read(rules, values, state, Some(*term), answer),
        Op::Store { mode, value, flags, term, .. } => {
            let new = Item { value: values.number(value), flags: *flags, term: *term, unique: 0 };
            store(rules, values, state, (*mode, new), answer)
        }
        Op::Cas { value, flags, term, compare } => {
            let new = Item { value: values.number(value), flags: *flags, term: *term, unique: 0 };
            let next = state.with(alive(new));
            match state.item {
                None => told(answer, &Answer::Miss, state),
                Some(old) if old.unique == *compare => told(answer, &Answer::Stored(None), next),
                Some(_) => told(answer, &Answer::Exists, state),
            }
        }
        Op::Arith(delta) => count(values, state, *delta, answer),
        Op::Delete => match state.item {
            None => told(answer, &Answer::Miss, state),
            Some(_) => told(answer, &Answer::Done, state.with(None)),
        },
        Op::DeleteIf(compare) => match state.item {
            None => told(answer, &Answer::Miss, state),
            Some(old) if old.unique == *compare => told(answer, &Answer::Done, state.with(None)),
            Some(_) => told(answer, &Answer::Exists, state),
        },
        Op::Touch(term) => match state.item {
            None => told(answer, &Answer::Miss, state),
            Some(old) => {
                let touched = Item { term: *term, ..old };
                told(answer, &Answer::Done, state.with(alive(touched)))
            }
        },
        Op::Flush => told(answer, &Answer::Done, state.with(None)),
    }
}

/// An item whose term is in the past is gone at once.
fn alive(item: Item) -> Option<Item> {
    (item.term != DEAD).then_some(item)
}

fn told(answer: &Answer, truth: &Answer, next: State) -> Vec<State> {
    let agrees = answer == truth || *answer == Answer::Unheard;
    if agrees { vec![next] } else { Vec::new() }
}

fn read(
    rules: Rules,
    values: &mut Values,
    state: State,
    touch: Option<Term>,
    answer: &Answer,
) -> Vec<State> {
    let (item, seen) = match (state.item, answer) {
        (None, Answer::Miss) => return vec![state],
        (Some(item), Answer::Hit(seen)) => (item, seen),
        _ => return Vec::new(),
    };
    let term = touch.unwrap_or(item.term);
    let same = values.bytes(item.value) == &seen.value
        && item.flags == seen.flags
        && seen.term.is_none_or(|seen| seen == term);
    let mut shown = match seen.unique {
        Some(unique) => state.showing(unique).into_iter().collect(),
        None => vec![state],
    };
    // Where there is no memory for the unique it is handed out once and not kept.
    if let (true, Some(unique), 0) = (rules.evicts, seen.unique, item.unique)
        && unique > state.newest
    {
        shown.push(State { newest: unique, ..state });
    }
    shown.retain(|_| same);
    let touched = |state: State| state.item.map(|item| Item { term, ..item });
    shown.into_iter().map(|state| state.with(touched(state).and_then(alive))).collect()
}

fn store(
    rules: Rules,
    values: &mut Values,
    state: State,
    (mode, new): (Mode, Item),
    answer: &Answer,
) -> Vec<State> {
    let stored = match (mode, state.item) {
        (Mode::Set, _) | (Mode::Add, None) | (Mode::Replace, Some(_)) => Some(new),
        (Mode::Append | Mode::Prepend, Some(old)) => {
            let (first, second) =
                if mode == Mode::Append { (old.value, new.value) } else { (new.value, old.value) };
            let joined = [&values.bytes(first)[..], values.bytes(second)].concat();
            Some(Item { value: values.number(&joined.into()), unique: 0, ..old })
        }
        _ => None,
    };
    let joins = matches!(mode, Mode::Append | Mode::Prepend);
    match (stored, answer) {
        (Some(item), Answer::Stored(None) | Answer::Unheard) => vec![state.with(alive(item))],
        (Some(item), Answer::Stored(Some(unique))) => {
            let shown = state.with(Some(item)).showing(*unique);
            shown.into_iter().map(|shown| shown.with(shown.item.and_then(alive))).collect()
        }
        (None, Answer::NotStored | Answer::Unheard) => vec![state],
        // So these say that there is no memory.
        (Some(_), Answer::NotStored) if joins && rules.evicts => vec![state],
        _ => Vec::new(),
    }
}

fn count(values: &mut Values, state: State, delta: i64, answer: &Answer) -> Vec<State> {
    let Some(old) = state.item else { return told(answer, &Answer::Miss, state) };
    let bytes = values.bytes(old.value).clone();
    let Some(number) = number_of(&bytes) else {
        return told(answer, &Answer::NotNumeric, state);
    };
    let number = match delta {
        0.. => number.wrapping_add(delta.unsigned_abs()),
        _ => number.saturating_sub(delta.unsigned_abs()),
    };
    let mut digits = number.to_string().into_bytes();
    digits.resize(digits.len().max(bytes.len()), b' ');
    let value = values.number(&digits.into());
    let counted = Item { value, unique: 0, ..old };
    told(answer, &Answer::Number(number), state.with(Some(counted)))
}

/// The number that a value starts with, up to a blank or the end.
pub fn number_of(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.split(|byte| *byte == b' ').next()?;
    let all = !digits.is_empty() && digits.len() <= 20 && digits.iter().all(u8::is_ascii_digit);
    all.then(|| str::from_utf8(digits).ok()?.parse().ok()).flatten()
}
