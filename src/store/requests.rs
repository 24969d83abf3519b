//! What the store can be asked: plain data with the semantics of memcached's meta protocol, the
//! superset. Dialects set fewer fields.

use super::types::Key;
use crate::clock::Exptime;
pub use crate::watch::Deleter;

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
    /// What watchers are told that it was.
    pub by: Deleter,
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

impl<'a> Get<'a> {
    /// A classic get of one key.
    #[inline]
    pub fn of(key: Key<'a>) -> Get<'a> {
        Get { key, bump: true, unless_cas: None, meta: false }
    }
}

impl<'a> Fetch<'a> {
    /// A fetch that asks for nothing more than its get.
    #[inline]
    pub fn of(get: Get<'a>) -> Fetch<'a> {
        Fetch {
            get,
            cas: false,
            touch: None,
            touch_first: false,
            vivify: None,
            recache: None,
            new_cas: None,
            binary_key: false,
        }
    }
}

impl<'a> Set<'a> {
    /// A classic set of a value of `len` bytes, that never expires.
    #[inline]
    pub fn of(key: Key<'a>, len: u32) -> Set<'a> {
        Set {
            key,
            mode: SetMode::Set,
            client_flags: 0,
            exptime: Exptime(0),
            len,
            compare_cas: None,
            invalidate: false,
            vivify: None,
            new_cas: None,
            return_cas: false,
            binary_key: false,
            drop_old_on_refusal: true,
        }
    }
}

impl<'a> Delete<'a> {
    /// A classic delete.
    #[inline]
    pub fn of(key: Key<'a>) -> Delete<'a> {
        Delete {
            key,
            compare_cas: None,
            invalidate: false,
            touch: None,
            drop_value: false,
            client_flags: 0,
            new_cas: None,
            by: Deleter::Delete,
        }
    }
}

impl<'a> Arith<'a> {
    /// A classic incr.
    #[inline]
    pub fn of(key: Key<'a>, delta: u64) -> Arith<'a> {
        Arith {
            key,
            increment: true,
            delta,
            compare_cas: None,
            vivify: None,
            initial: 0,
            touch: None,
            new_cas: None,
            return_cas: false,
            binary_key: false,
        }
    }
}
