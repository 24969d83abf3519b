//! What a client can ask and be told: plain data, no behaviour, no dialect.
//!
//! The semantics are those of memcached's meta protocol, the superset; classic text and the binary
//! protocol are dialects that set fewer fields. How an answer is worded is the dialect's
//! business: see [`crate::protocol`].

mod admin;
mod execute;
mod operate;

pub use admin::{MEMCACHED_VERSION, StatLines, stats};
pub use execute::{Next, commit_value, execute, execute_get, refuse, store_value};
pub use operate::{
    AutomoveCommand, CrawlerCommand, DumpCommand, DumpForm, LruCommand, Shutdown, Targets,
    start_dump, start_watch,
};

#[cfg(feature = "debug-commands")]
pub use crate::clock::DebugTime;
use crate::clock::Exptime;
#[cfg(feature = "debug-commands")]
pub use crate::store::DebugItem;
pub use crate::store::{Arith, Delete, Fetch, Get, Set, SetMode, Touch};
use crate::store::{Hit, Key, Refusal};
pub use crate::watch::{Deleter, Streams};

/// One request, without its value. What is large lies where its decoder put it, so that a command
/// is a few words, which are moved often.
#[derive(Clone, Debug)]
pub enum Command<'a> {
    /// A read that changes nothing but the item's standing.
    Get(Get<'a>),
    /// A read that may also touch, create, or hand out a win.
    Fetch(&'a Fetch<'a>),
    /// A write whose value of `Set::len` bytes follows.
    Set(&'a Set<'a>),
    Delete(&'a Delete<'a>),
    Arith(&'a Arith<'a>),
    Touch(Touch<'a>),
    /// `me`: what the server knows of one item.
    Inspect(Key<'a>),
    /// Nothing to do but say so: the end of a multiget, `mn`, an error found while parsing.
    Say(Say),
    Admin(Admin<'a>),
    /// A long answer, which the connection makes: see [`start_dump`].
    Dump(DumpCommand<'a>),
    /// `refresh_certs`, which the connection runs: certificates are no business of the store.
    RefreshCerts,
    /// The connection becomes a watcher's: see [`start_watch`]. `None` where it names a stream that
    /// there is not.
    Watch(Option<Streams>),
    /// Close when everything so far has been sent.
    Quit,
    /// Say what is wrong and close: nothing sensible can follow.
    HangUp(Error),
}

/// Answers that need no store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// `END` after a classic get's values.
    End,
    /// Nothing but that all before it was done: all answers so far are sent.
    Noop,
    Error(Error),
    /// `debugitem` found no such item.
    #[cfg(feature = "debug-commands")]
    DebugMiss,
}

/// Commands of operators.
#[derive(Clone, Debug)]
pub enum Admin<'a> {
    Version,
    /// `verbosity`; `None` where the argument is missing a number but memcached answers `ERROR`.
    Verbosity(u32),
    /// Seconds as sent: `None` is now.
    FlushAll(Option<Exptime>),
    Stats(StatsTopic<'a>),
    Crawler(CrawlerCommand<'a>),
    Lru(LruCommand),
    /// `slabs reassign`: classes from and to, `None` where they are no numbers.
    Reassign(Option<(i32, i32)>),
    Automove(AutomoveCommand),
    /// `cache_memlimit`, MiB.
    MemLimit(u32),
    /// `shutdown`; `None` is a mode that there is not.
    Shutdown(Option<Shutdown>),
    /// Moves or stops the clock.
    #[cfg(feature = "debug-commands")]
    DebugTime(DebugTime),
    /// Does what no server should be able to do under `-o drop_privileges`.
    #[cfg(feature = "debug-commands")]
    Misbehave,
    /// Locks an item's line or pins the item, so that a test can see what that holds up.
    #[cfg(feature = "debug-commands")]
    DebugItem {
        verb: DebugItem,
        key: Key<'a>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsTopic<'a> {
    General,
    Reset,
    Settings,
    Items,
    Slabs,
    Sizes,
    Conns,
    /// Ours.
    Automover,
    /// What the process may use and does; ours.
    Memory,
    Detail(Option<bool>),
    DetailDump,
    Cachedump {
        class: u32,
        limit: u32,
    },
    /// A cachedump whose arguments are wrong, which is said only where one is allowed.
    BadCachedump(Error),
    Unknown(&'a [u8]),
}

/// What went wrong, without its wording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// `ERROR`: no such command, or arguments missing.
    Unknown,
    /// `CLIENT_ERROR` and `SERVER_ERROR` with memcached's text.
    Client(&'static str),
    Server(&'static str),
    /// A line of its own kind, in memcached's words: `BUSY ...`, `BADCLASS ...`.
    Line(&'static str),
    /// The item would be larger than -I allows.
    TooLarge,
    /// With memcached's text.
    NoMemory(&'static str),
    /// incr or decr of what is no number.
    NonNumeric,
    /// An option forbids it; with memcached's text.
    NotAllowed(&'static str),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::TooLarge => Error::TooLarge,
            Refusal::NoMemory => Error::NoMemory("out of memory storing object"),
            Refusal::NoMemoryOnTheWay => Error::Server("Out of memory during read"),
        }
    }
}

/// One answer, without its wording.
#[derive(Debug)]
pub enum Reply<'a> {
    /// A get that found nothing.
    Miss(Key<'a>),
    /// A get that asks for a field of its item for which there is no memory.
    NoRoom(Key<'a>),
    /// A store that was done: its CAS unique where asked for, and the item's final value length.
    Stored {
        key: Key<'a>,
        cas: Option<u64>,
        len: u32,
    },
    NotStored(Key<'a>),
    /// The CAS unique did not match.
    Exists(Key<'a>),
    NotFound(Key<'a>),
    Deleted(Key<'a>),
    Touched(Key<'a>),
    /// The new value of an incr or decr. `ttl` is the seconds left, `None` for never; `ttl_before`
    /// what was left before the command touched it.
    Number {
        key: Key<'a>,
        value: u64,
        cas: Option<u64>,
        ttl: Option<u32>,
        ttl_before: Option<u32>,
    },
    Inspected {
        key: Key<'a>,
        item: crate::store::Inspection,
    },
    Say(Say),
    Ok,
    Reset,
    /// The answer to a quit, for dialects that have one.
    Closing,
    Version(&'static str),
    /// The mechanisms by which clients can say who they are, separated by blanks.
    Mechanisms(&'static str),
    /// A mechanism's message, which the client has to answer.
    Challenge(&'a [u8]),
    /// The client is who it says it is.
    LoggedIn,
    Stats(&'a StatLines),
    /// The server could not do it, for this reason.
    Failed(&'a str),
}

/// Where answers go. A dialect implements it over a connection's output.
pub trait Replies {
    /// A get's hit. It may be called several times for one command, because small values are read
    /// without a lock and read again when a writer came between: each call replaces the last.
    fn hit(&mut self, key: Key<'_>, hit: Hit<'_>);
    fn reply(&mut self, reply: Reply<'_>);
}
