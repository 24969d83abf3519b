//! What is recorded of one operation on one key: what was asked, what was answered, and when.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

/// A value that was sent or seen.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Bytes(Arc<[u8]>);

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes(bytes.into())
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes of a value that are shown.
const SHOWN: usize = 32;

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(SHOWN)];
        write!(f, "{}:\"{}\"", self.0.len(), shown.escape_ascii())
    }
}

/// An exptime, by number: 0 is never, [`DEAD`] is in the past, others are so far ahead and so far
/// apart that the seconds left tell which one an item has.
pub type Term = u8;
pub const DEAD: Term = u8::MAX;
/// Terms from 0 that a client may choose.
pub const TERMS: u8 = 5;
const TERM_BASE: i64 = 100_000;
const TERM_STEP: i64 = 20_000;

/// The exptime of a term, as it is sent.
pub fn exptime_of(term: Term) -> i64 {
    match term {
        0 => 0,
        DEAD => -1,
        n => TERM_BASE + TERM_STEP * i64::from(n),
    }
}

/// The term of an item that has so many seconds left; `None` where no term has.
pub fn term_of(seconds_left: Option<u32>) -> Option<Term> {
    let Some(left) = seconds_left.map(i64::from) else { return Some(0) };
    let above = left.checked_sub(TERM_BASE).filter(|above| *above > 0)?;
    u8::try_from((above + TERM_STEP - 1) / TERM_STEP).ok().filter(|n| *n < TERMS)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// `get`
    Get,
    /// `gets`: with the CAS unique.
    Gets,
    /// `mg` with flags, unique and seconds left.
    Look,
    /// `gat`
    Gat(Term),
    Store {
        mode: Mode,
        value: Bytes,
        flags: u32,
        term: Term,
        /// The answer holds the unique.
        unique: bool,
    },
    Cas {
        value: Bytes,
        flags: u32,
        term: Term,
        compare: u64,
    },
    /// `incr`, or `decr` below 0.
    Arith(i64),
    Delete,
    /// `md` with `C`
    DeleteIf(u64),
    Touch(Term),
    /// `flush_all`, which is an operation on every key.
    Flush,
}

/// What an answer says of an item; `None` is not said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub value: Bytes,
    pub flags: u32,
    pub unique: Option<u64>,
    pub term: Option<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Miss,
    Hit(Seen),
    Stored(Option<u64>),
    NotStored,
    Exists,
    Number(u64),
    NotNumeric,
    /// Deleted, touched, flushed.
    Done,
    /// Out of memory.
    Refused,
    /// Nobody was told (`noreply`).
    Unheard,
}

/// An operation of one client, which has one at a time for each key.
#[derive(Clone, Debug)]
pub struct Record {
    pub client: u8,
    pub key: u16,
    /// Nanoseconds at which it was sent, at which it was answered.
    pub sent: u64,
    pub answered: u64,
    pub op: Op,
    pub answer: Answer,
}

/// A clock that all clients share.
#[derive(Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    pub fn now(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}
