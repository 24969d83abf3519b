//! What can be watched, and the words that memcached has for it.

use std::net::SocketAddr;

/// A set of streams: what a watcher asks for, and the one that an event belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams(pub(super) u16);

impl Streams {
    pub const NONE: Streams = Streams(0);
    pub const RAWCMDS: Streams = Streams(1 << 0);
    pub const EVICTIONS: Streams = Streams(1 << 1);
    pub const FETCHERS: Streams = Streams(1 << 2);
    pub const MUTATIONS: Streams = Streams(1 << 3);
    pub const SYSEVENTS: Streams = Streams(1 << 4);
    pub const CONNEVENTS: Streams = Streams(1 << 5);
    pub const DELETIONS: Streams = Streams(1 << 6);
    /// Those of memcached's proxy: without one nothing ever happens on them.
    pub const PROXY: Streams = Streams(1 << 7);

    #[must_use]
    pub fn and(self, other: Streams) -> Streams {
        Streams(self.0 | other.0)
    }

    pub fn meets(self, other: Streams) -> bool {
        self.0 & other.0 != 0
    }
}

/// Something that happened. What it happened to, an item's key, stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was looked for, by whatever command. Sizes are those of values, in bytes.
    ItemGet {
        got: Got,
        class: u32,
        client: i32,
        size: u32,
    },
    /// A storage command ended. `ttl` in seconds, 0 for ever.
    ItemStore {
        stored: Stored,
        by: Storer,
        ttl: u32,
        class: u32,
        client: i32,
        size: u32,
    },
    /// `ttl` as above, but -1 for ever; `idle`: seconds since the last access.
    Eviction {
        fetched: bool,
        ttl: i64,
        idle: u32,
        class: u32,
        size: u32,
    },
    Deleted {
        by: Deleter,
        class: u32,
        size: u32,
    },
    /// `peer`: none for a unix socket's client, or where it is not known any more.
    ConnNew {
        peer: Option<SocketAddr>,
        transport: Transport,
        client: i32,
    },
    ConnClose {
        peer: Option<SocketAddr>,
        transport: Transport,
        reason: CloseReason,
        client: i32,
    },
    /// A line of its own kind on that stream; its text stands where others have their key.
    Text(Streams),
}

impl Event {
    /// The stream that it belongs to.
    pub(super) fn stream(&self) -> Streams {
        match self {
            Event::ItemGet { .. } => Streams::FETCHERS,
            Event::ItemStore { .. } => Streams::MUTATIONS,
            Event::Eviction { .. } => Streams::EVICTIONS,
            Event::Deleted { .. } => Streams::DELETIONS,
            Event::ConnNew { .. } | Event::ConnClose { .. } => Streams::CONNEVENTS,
            Event::Text(stream) => *stream,
        }
    }
}

/// Enumerations whose members have a word each.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($member:ident = $word:literal),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($member),* }

        impl $name {
            pub(super) fn word(self) -> &'static str {
                match self { $($name::$member => $word),* }
            }
        }
    )* };
}

words! {
    /// How a look for a key ended.
    Got { NotFound = "not_found", Found = "found", Flushed = "flushed", Expired = "expired" }
    /// How a storage command ended.
    Stored {
        NotStored = "not_stored",
        Stored = "stored",
        Exists = "exists",
        NotFound = "not_found",
        TooLarge = "too_large",
        NoMemory = "no_memory",
    }
    /// The storage command.
    Storer {
        Add = "add",
        Set = "set",
        Replace = "replace",
        Append = "append",
        Prepend = "prepend",
        Cas = "cas",
    }
    /// The command that deleted.
    Deleter { Delete = "delete", Meta = "md" }
    /// What a client came by.
    Transport { Local = "local", Tcp = "tcp", Udp = "udp" }
    /// Why a connection was closed: whatever memcached has no other word for is an error.
    CloseReason {
        Error = "error",
        Normal = "normal",
        IdleTimeout = "idle_timeout",
        Shutdown = "shutdown",
    }
}
