//! What a client can ask and be told: plain data, no behaviour, no dialect.
//!
//! The semantics are those of memcached's meta protocol, the superset; classic text (and later the
//! binary protocol) are dialects that set fewer fields. How an answer is worded is the dialect's
//! business: see [`crate::protocol`].

mod admin;
mod execute;

pub use admin::{MEMCACHED_VERSION, StatLines, stats};
pub use execute::{Next, commit_value, execute, refuse, store_value};

use crate::clock::Exptime;
use crate::store::{Hit, Key};

/// One request, without its value.
#[derive(Clone, Debug)]
pub enum Command<'a> {
    /// A read that changes nothing but the item's standing.
    Get(Get<'a>),
    /// A read that may also touch, create, or hand out a win.
    Fetch(Fetch<'a>),
    /// A write whose value of `Set::len` bytes follows.
    Set(Set<'a>),
    Delete(Delete<'a>),
    Arith(Arith<'a>),
    Touch(Touch<'a>),
    /// `me`: what the server knows of one item.
    Inspect(Key<'a>),
    /// Nothing to do but say so: the end of a multiget, `mn`, an error found while parsing.
    Say(Say),
    Admin(Admin<'a>),
    /// Close when everything so far has been sent.
    Quit,
}

/// Answers that need no store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// `END` after a classic get's values.
    End,
    /// `MN`
    MetaNoop,
    /// `shutdown` where `-A` was not given, as it cannot be yet.
    ShutdownDisabled,
    Error(Error),
}

#[derive(Clone, Debug)]
pub struct Get<'a> {
    pub key: Key<'a>,
    /// False leaves the item's standing (and its fetched mark) alone: `mg` with `u`.
    pub bump: bool,
    /// Compared with the item's CAS unique; on a match the value is not sent: `mg` with `C`.
    pub unless_cas: Option<u64>,
    /// False: stale items look like others (classic text). True: they are handed out with wins,
    /// so an item that carries such a mark is read as by [`Fetch`].
    pub meta: bool,
}

#[derive(Clone, Debug)]
pub struct Fetch<'a> {
    pub get: Get<'a>,
    /// The answer holds the CAS unique; an item without one gets one: `gets`, `c`.
    pub cas: bool,
    /// New exptime: `gat`, `T`.
    pub touch: Option<Exptime>,
    /// `touch` comes before `recache` in the request, which then looks at the new exptime.
    pub touch_first: bool,
    /// On a miss create an empty item with this exptime and win: `N`.
    pub vivify: Option<Exptime>,
    /// Win when less than this is left to live: `R`.
    pub recache: Option<Exptime>,
    /// CAS unique of a created item instead of the next one: `E`.
    pub new_cas: Option<u64>,
    /// The key came in base64; a created item remembers it.
    pub binary_key: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    /// `cas`, and meta's `C` in the modes set and replace.
    Cas,
}

#[derive(Clone, Debug)]
pub struct Set<'a> {
    pub key: Key<'a>,
    pub mode: SetMode,
    pub client_flags: u32,
    pub exptime: Exptime,
    /// Bytes of the value, without its line end.
    pub len: u32,
    /// Must equal the item's CAS unique. With append and prepend too.
    pub compare_cas: Option<u64>,
    /// With a lower `compare_cas`, store all the same and mark the item stale: `I`.
    pub invalidate: bool,
    /// Append and prepend on a miss create the item with this exptime: `N`.
    pub vivify: Option<Exptime>,
    /// CAS unique to store instead of the next one: `E`.
    pub new_cas: Option<u64>,
    /// The answer holds the new CAS unique: `c`, binary.
    pub return_cas: bool,
    pub binary_key: bool,
    /// A refused store (too large, out of memory) deletes the old value: classic `set` and all of
    /// `ms`, as memcached does; not classic add, replace, append, prepend, cas.
    pub drop_old_on_refusal: bool,
}

#[derive(Clone, Debug)]
pub struct Delete<'a> {
    pub key: Key<'a>,
    pub compare_cas: Option<u64>,
    /// Keep the item but mark it stale, with a new CAS unique and no win sent: `I`.
    pub invalidate: bool,
    /// With `invalidate`, a new exptime; with `drop_value`, the tombstone's: `T`.
    pub touch: Option<Exptime>,
    /// Keep an empty item in its place: `x`.
    pub drop_value: bool,
    pub client_flags: u32,
    pub new_cas: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Arith<'a> {
    pub key: Key<'a>,
    pub increment: bool,
    pub delta: u64,
    pub compare_cas: Option<u64>,
    /// On a miss, store `initial` with this exptime: `N`, `J`.
    pub vivify: Option<Exptime>,
    pub initial: u64,
    pub touch: Option<Exptime>,
    pub new_cas: Option<u64>,
    /// The answer holds the new CAS unique: `c`, binary.
    pub return_cas: bool,
    pub binary_key: bool,
}

#[derive(Clone, Debug)]
pub struct Touch<'a> {
    pub key: Key<'a>,
    pub exptime: Exptime,
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
    /// Moves the clock forward by so many seconds.
    #[cfg(feature = "debug-commands")]
    DebugTime(u32),
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
    Detail(Option<bool>),
    DetailDump,
    Cachedump { class: u32, limit: u32 },
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
}

/// One answer, without its wording.
#[derive(Debug)]
pub enum Reply<'a> {
    /// A get that found nothing.
    Miss(Key<'a>),
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
    Version(&'static str),
    Stats(&'a StatLines),
}

/// Where answers go. A dialect implements it over a connection's output.
pub trait Replies {
    /// A get's hit. It may be called several times for one command, because small values are read
    /// without a lock and read again when a writer came between: each call replaces the last.
    fn hit(&mut self, key: Key<'_>, hit: &Hit<'_>);
    fn reply(&mut self, reply: Reply<'_>);
}
