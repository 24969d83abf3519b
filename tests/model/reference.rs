//! memcached's semantics in the simplest words there are: a map from keys to entries.
//!
//! The store may have lost an entry where the reference has one (evicted, or no memory for a
//! change); what it has must be as the reference says.

use rustcached::command::SetMode;
use std::collections::HashMap;

/// What an item is known to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub value: Vec<u8>,
    pub flags: u32,
    /// Second of the clock, 0 for never.
    pub deadline: u32,
    /// The unique that the store keeps for it.
    pub cas: Option<u64>,
    pub stale: bool,
    pub win: bool,
}

#[derive(Debug, Default)]
pub struct Reference {
    pub entries: HashMap<Vec<u8>, Entry>,
    pub now: u32,
    /// Second of a flush that waits.
    planned: Option<u32>,
}

impl Reference {
    /// The entry of a key, if it is alive now.
    pub fn live(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let now = self.now;
        if self.entries.get(key).is_some_and(|e| e.deadline != 0 && e.deadline <= now) {
            self.entries.remove(key);
        }
        self.entries.get_mut(key)
    }

    pub fn flush(&mut self, at: Option<u32>) {
        self.planned = at.filter(|at| *at > self.now);
        if self.planned.is_none() {
            self.entries.clear();
        }
    }

    pub fn advance(&mut self, now: u32) {
        self.now = now;
        if self.planned.is_some_and(|at| at <= now) {
            self.flush(None);
        }
    }

    /// Seconds that an entry has left, `None` for ever.
    pub fn ttl(&self, deadline: u32) -> Option<u32> {
        (deadline != 0).then(|| deadline.saturating_sub(self.now))
    }
}

impl Entry {
    /// A comparison with its unique: 0, and an entry without one, never match.
    pub fn matches(&self, compare: u64) -> bool {
        compare != 0 && self.cas == Some(compare)
    }

    /// True where the unique is older than the entry: without one it is newer than any.
    pub fn is_newer_than(&self, compare: u64) -> bool {
        compare != 0 && self.cas.is_none_or(|cas| compare < cas)
    }

    /// The number that it starts with, after blanks and up to one or the end.
    pub fn number(&self) -> Option<u64> {
        let digits = self.value.trim_ascii_start().split(|b| *b == b' ').next()?;
        let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        all.then(|| str::from_utf8(digits).ok()?.parse().ok()).flatten()
    }

    /// Writes a number over it as memcached does: padded with blanks where it got shorter.
    pub fn put_number(&mut self, number: u64) {
        let mut digits = number.to_string().into_bytes();
        if digits.len() > self.value.len() {
            (self.stale, self.win) = (false, false);
        }
        digits.resize(digits.len().max(self.value.len()), b' ');
        self.value = digits;
    }

    /// Adds a piece at the end or the front.
    pub fn join(&mut self, mode: SetMode, piece: &[u8]) {
        let at = if mode == SetMode::Prepend { 0 } else { self.value.len() };
        self.value.splice(at..at, piece.iter().copied());
        (self.stale, self.win) = (false, false);
    }
}
