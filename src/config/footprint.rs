//! What the process may use beside the cache, part by part: the formula of the README's section
//! "Memory". Each part is held to its figure where it lies, by a limit or by its size.

use super::settings::{Layout, Settings};
use super::size::{KIB, MIB};

/// The program, what it loads, what the system's allocator keeps for itself, and what is not filled
/// yet of a huge page. Code that is not optimized is larger.
const PROGRAM: u64 = if cfg!(debug_assertions) { 12 * MIB } else { 8 * MIB };
/// A thread's stack as far as it is used, its counters, and its part of the allocator.
const THREAD: u64 = 256 * KIB;
/// Threads beside the workers and the greeters: main, logger, and those that maintain, prefault and
/// hurry.
const OTHER_THREADS: u64 = 5;
/// A worker's input, and the answers to the turns that it takes in step.
const WORKER: u64 = 1536 * KIB;
/// What a thread that encrypts has for that, beside what it encrypts at once.
const ENCRYPTING: u64 = 192 * KIB;
/// A connection with nothing to do: itself, its slot, its word for `stats conns`, its place among
/// those that arrive.
pub const CONNECTION: u64 = 512;
/// The same for its TLS session.
pub const TLS_CONNECTION: u64 = 8 * KIB;
/// Buffers that each connection may have on the mean, where nothing says otherwise.
const BUFFERS_EACH: u64 = 128 * KIB;
/// With few connections, they all may have this: room for a long `stats cachedump`.
const BUFFERS_LEAST: u64 = 32 * MIB;
/// Of -m, with `memory_budget=total`, one in so many bytes is for buffers.
const BUFFERS_SHARE: u64 = 16;
/// A prefix of `stats detail` with its counts.
pub const PREFIX: u64 = 384;
/// The most that are counted: memcached's limit.
const PREFIXES_MAX: u64 = 1 << 16;
/// A session that is kept for its client (`ssl_session_cache`), at the most.
pub const SESSION: u64 = 2 * KIB;
/// The most that are kept, by OpenSSL's default.
const SESSIONS_MAX: u64 = 20 << 10;
/// Of -m, with `memory_budget=total`, one in so many bytes is for prefixes, and one for sessions.
const TABLES_SHARE: u64 = 64;
/// With `layout=memcached`: bytes of index, ghosts and queues for each chunk of the smallest size.
const BESIDE_CHUNK: u64 = 22;
const SMALLEST_CHUNK: u64 = 96;

/// Bytes of each part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    pub program: u64,
    /// All threads, with what they have of their own.
    pub threads: u64,
    pub connections: u64,
    pub tls: u64,
    pub buffers: u64,
    /// What `stats detail` may count, were it turned on.
    pub prefixes: u64,
}

impl Footprint {
    pub fn of(s: &Settings) -> Footprint {
        let workers = u64::from(s.threads);
        let greeters = if s.tls.enabled { workers.div_ceil(4) } else { 0 };
        let own = THREAD + u64::from(s.worker_logbuf_size) + u64::from(s.item_size_max) / 8;
        let sockets = u64::from(s.threads_per_udp()) * s.udp.listen.len() as u64;
        let datagrams = sockets * 2 * u64::from(s.udp.reply_max);
        let (mut encrypting, mut tls) = (0, 0);
        if s.tls.enabled {
            encrypting = (workers + greeters) * (ENCRYPTING + 2 * u64::from(s.tls.wbuf_size));
            tls = u64::from(s.max_connections) * TLS_CONNECTION;
            tls += if s.tls.session_cache { s.sessions_max() as u64 * SESSION } else { 0 };
        }
        Footprint {
            program: PROGRAM,
            threads: (workers + greeters + OTHER_THREADS) * own
                + workers * WORKER
                + encrypting
                + datagrams,
            connections: u64::from(s.max_connections) * CONNECTION,
            tls,
            buffers: s.buffers_max(),
            prefixes: s.prefixes_max() as u64 * PREFIX,
        }
    }

    pub fn total(&self) -> u64 {
        let Footprint { program, threads, connections, tls, buffers, prefixes } = self;
        program + threads + connections + tls + buffers + prefixes
    }
}

impl Settings {
    /// True where -m counts pages alone, as memcached's does.
    pub fn pages_alone(&self) -> bool {
        self.layout == Layout::Memcached && !self.memory_total
    }

    /// What is left to the cache where the process may use `bytes`, or -m is that.
    pub fn cache_of(&self, bytes: u64) -> u64 {
        let beside = if self.memory_total { Footprint::of(self).total() } else { 0 };
        bytes.saturating_sub(beside)
    }

    /// The cache's part of -m.
    pub fn cache_bytes(&self) -> u64 {
        self.cache_of(self.maxbytes)
    }

    /// Bytes that the process may use where -m is `bytes`, `classes` slab classes have pages of
    /// `page` bytes, and so many prefixes are counted.
    pub fn process_max(&self, bytes: u64, classes: u64, page: u64, prefixes: u64) -> u64 {
        if self.memory_total {
            return bytes;
        }
        let beside = Footprint { prefixes: prefixes * PREFIX, ..Footprint::of(self) };
        let pages = bytes + if self.pages_alone() { classes * page } else { 0 };
        let index = if self.pages_alone() { pages / SMALLEST_CHUNK * BESIDE_CHUNK } else { 0 };
        pages + index + beside.total()
    }

    /// Bytes that may be held for clients in all.
    pub fn buffers_max(&self) -> u64 {
        match self.read_buf_mem_limit {
            0 if self.memory_total => (self.maxbytes / BUFFERS_SHARE).max(MIB),
            0 => (u64::from(self.max_connections) * BUFFERS_EACH).max(BUFFERS_LEAST),
            limit => limit,
        }
    }

    /// Prefixes that `stats detail` may count.
    pub fn prefixes_max(&self) -> usize {
        self.entries_max(PREFIX, PREFIXES_MAX)
    }

    /// Sessions that are kept with `ssl_session_cache`.
    pub fn sessions_max(&self) -> usize {
        self.entries_max(SESSION, SESSIONS_MAX)
    }

    /// Entries of a table that take so many bytes each, `most` at the most.
    fn entries_max(&self, each: u64, most: u64) -> usize {
        let share = self.maxbytes / TABLES_SHARE / each;
        let entries = if self.memory_total { share.min(most) } else { most };
        entries as usize
    }
}
