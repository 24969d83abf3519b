//! Counters. Each worker owns a padded set and is the only one to write it, so counting is a plain
//! load and store; readers sum all sets. `stats reset` remembers the sums and subtracts them.

mod buffers;
mod moves;
mod prefix;

pub use buffers::{Buffers, Held};
pub use moves::{BusyStatus, MoveStats};
pub use prefix::{PrefixCounts, Prefixes};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A counter with one writer.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }
    #[inline]
    pub fn bump(&self) {
        self.add(1);
    }
    /// The count since the start of the server, whatever was reset.
    pub fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident, $sums:ident {
        $($(#[$field_doc:meta])* $field:ident),* $(,)?
    }) => {
        $(#[$doc])*
        ///
        /// What counts most often stands first, on one cache line.
        #[derive(Default, Debug)]
        #[repr(C, align(64))]
        pub struct $name { $($(#[$field_doc])* pub $field: Counter),* }

        /// Sums over all workers.
        #[derive(Default, Debug, Clone, Copy)]
        pub struct $sums { $($(#[$field_doc])* pub $field: u64),* }

        impl $sums {
            fn add(&mut self, c: &$name) {
                $(self.$field = self.$field.wrapping_add(c.$field.load());)*
            }
            fn less(&mut self, base: &$sums) {
                $(self.$field = self.$field.wrapping_sub(base.$field);)*
            }
            /// Field by field sum.
            pub fn plus(&mut self, other: &$sums) {
                $(self.$field = self.$field.wrapping_add(other.$field);)*
            }
        }
    };
}

counters! {
    /// What one worker counts; names as `stats` prints them, unless the comment says otherwise.
    ThreadCounters, ThreadSums {
        bytes_read, bytes_written,
        /// `cmd_meta`
        meta_cmds,
        /// Every item linked since start.
        total_items,
        get_misses, get_expired, get_flushed,
        /// `cmd_touch`
        touch_cmds,
        touch_misses, incr_misses, decr_misses, delete_misses, cas_misses,
        store_too_large, store_no_memory,
        /// `cmd_flush`
        flush_cmds,
        /// `log_worker_written`
        log_written,
        /// `log_worker_dropped`
        log_dropped,
        conn_yields, auth_cmds, auth_errors, idle_kicks,
        response_obj_oom, read_buf_oom,
        /// Ticks of the maintenance thread.
        lru_maintainer_juggles,
    }
}

counters! {
    /// What one worker counts per slab class.
    ClassCounters, ClassSums {
        get_hits, set_cmds, hits_to_hot, hits_to_warm, hits_to_cold, hits_to_temp,
        touch_hits, delete_hits, incr_hits, decr_hits, cas_hits, cas_badval,
        evicted, evicted_nonzero, evicted_unfetched, evicted_active, expired_unfetched, reclaimed,
        outofmemory, direct_reclaims, moves_to_cold, moves_to_warm, moves_within_lru,
        crawler_reclaimed, crawler_items_checked,
    }
}

/// Items and bytes of a class as one worker changed them: sums over workers are the present state
/// and are not touched by `stats reset`.
#[derive(Default, Debug)]
pub struct ClassLevel {
    pub items: AtomicI64,
    pub bytes: AtomicI64,
}

impl ClassLevel {
    #[inline]
    pub fn add(&self, items: i64, bytes: i64) {
        self.items.store(self.items.load(Relaxed) + items, Relaxed);
        self.bytes.store(self.bytes.load(Relaxed) + bytes, Relaxed);
    }
}

/// One worker's counters.
#[derive(Debug)]
pub struct Counters {
    pub thread: CachePadded<ThreadCounters>,
    pub classes: Box<[ClassCounters]>,
    pub levels: Box<[ClassLevel]>,
}

impl Counters {
    fn new(classes: usize) -> Counters {
        Counters {
            thread: CachePadded::default(),
            classes: (0..classes).map(|_| ClassCounters::default()).collect(),
            levels: (0..classes).map(|_| ClassLevel::default()).collect(),
        }
    }
}

/// Everything the server counts.
pub struct Stats {
    classes: usize,
    workers: Mutex<Vec<Arc<Counters>>>,
    /// The sums at the last reset. Held while sums are read, so that a reset which comes between
    /// the reading and the subtracting cannot turn a count negative. Locked before `workers`.
    base: Mutex<Base>,
    pub server: ServerStats,
    pub moves: MoveStats,
    pub buffers: Buffers,
    pub conns: ConnTable,
    pub prefixes: Prefixes,
}

#[derive(Default)]
struct Base {
    thread: ThreadSums,
    classes: Vec<ClassSums>,
}

/// Counters that several threads write, and gauges.
#[derive(Default, Debug)]
pub struct ServerStats {
    /// Clients connected now.
    pub curr_connections: AtomicI64,
    pub total_connections: AtomicU64,
    pub rejected_connections: AtomicU64,
    pub connection_structures: AtomicU64,
    pub listen_disabled_num: AtomicU64,
    pub time_in_listen_disabled_us: AtomicU64,
    pub accepting_conns: AtomicBool,
    pub malloc_fails: AtomicU64,
    pub tls: Arc<TlsStats>,
    /// Datagrams that were no requests, and requests whose answers were kept back.
    pub udp_requests_dropped: AtomicU64,
    pub udp_replies_dropped: AtomicU64,
    /// Files that the server itself holds open, beside listeners and clients.
    pub reserved_fds: AtomicU64,
    pub upkeep: UpkeepStats,
    /// `-v` as changed by `verbosity`. On a line of its own: workers read it, others write near it.
    pub verbosity: CachePadded<AtomicU32>,
}

/// How long the background thread works at a time, which is as long as it can hold any lock. What
/// it works is its processor time: a tick during which somebody else had the processor is not
/// longer for that, and what it took on the clock is told beside it.
#[derive(Default, Debug)]
pub struct UpkeepStats {
    /// Of one tick, at the most.
    pub longest_us: AtomicU64,
    /// Ticks longer than [`UpkeepStats::LONG`].
    pub long: AtomicU64,
    /// From the start of a tick to its end, at the most.
    pub longest_wall_us: AtomicU64,
}

impl UpkeepStats {
    /// No tick is to take longer.
    pub const LONG: Duration = Duration::from_micros(500);

    /// Counts a tick.
    pub fn note(&self, worked: Duration, wall: Duration) {
        self.longest_us.fetch_max(worked.as_micros() as u64, Relaxed);
        self.longest_wall_us.fetch_max(wall.as_micros() as u64, Relaxed);
        if worked > UpkeepStats::LONG {
            self.long.fetch_add(1, Relaxed);
        }
    }
}

/// What TLS counts. It is shared with what reads the certificates, which is there before the store.
#[derive(Default, Debug)]
pub struct TlsStats {
    /// Sessions that a client may resume; counted with `-o ssl_session_cache` only.
    pub ssl_new_sessions: AtomicU64,
    /// Connections that ended before their handshake did.
    pub ssl_handshake_errors: AtomicU64,
    /// Connections that speak it, or are about to.
    pub connections: AtomicI64,
    /// Connections that ended by a fault of the protocol afterwards.
    pub ssl_proto_errors: AtomicU64,
    /// Clock seconds when the certificates in use were read.
    pub last_cert_refresh: AtomicU32,
}

impl Stats {
    /// `classes`: slab classes, counted from 0; `fds`: one more than the highest file number that
    /// `stats conns` can show.
    pub fn new(classes: usize, fds: usize, prefixes: Prefixes, buffers: Buffers) -> Stats {
        Stats {
            classes,
            workers: Mutex::new(Vec::new()),
            base: Mutex::new(Base {
                classes: vec![ClassSums::default(); classes],
                ..Base::default()
            }),
            server: ServerStats::default(),
            moves: MoveStats::default(),
            buffers,
            conns: ConnTable::new(fds),
            prefixes,
        }
    }

    /// A set of counters for one more thread.
    pub fn register(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::new(self.classes));
        self.workers.lock().push(counters.clone());
        counters
    }

    /// Changes whenever a worker has read something: bytes read since start, wrapping.
    pub fn traffic(&self) -> u64 {
        let workers = self.workers.lock();
        workers.iter().fold(0, |sum, w| sum.wrapping_add(w.thread.bytes_read.load()))
    }

    /// Per worker sums since the last reset.
    pub fn thread_sums(&self) -> ThreadSums {
        let base = self.base.lock();
        let mut sums = self.raw_thread_sums();
        sums.less(&base.thread);
        sums
    }

    /// Per class sums since the last reset, indexed by class id.
    pub fn class_sums(&self) -> Vec<ClassSums> {
        let base = self.base.lock();
        let mut sums = self.raw_class_sums();
        for (sum, base) in sums.iter_mut().zip(&base.classes) {
            sum.less(base);
        }
        sums
    }

    /// Items and bytes of each class now, indexed by class id. One worker may link what another
    /// frees, so a worker's own level can be negative; the sum is not, but for changes on the way.
    pub fn levels(&self) -> Vec<(u64, u64)> {
        let mut levels = vec![(0i64, 0i64); self.classes];
        for worker in self.workers.lock().iter() {
            for (sum, level) in levels.iter_mut().zip(&worker.levels) {
                sum.0 += level.items.load(Relaxed);
                sum.1 += level.bytes.load(Relaxed);
            }
        }
        levels.into_iter().map(|(i, b)| (i.max(0) as u64, b.max(0) as u64)).collect()
    }

    /// `stats reset`: counters start again from 0, the prefix table is emptied, gauges stay.
    pub fn reset(&self) {
        let mut base = self.base.lock();
        *base = Base { thread: self.raw_thread_sums(), classes: self.raw_class_sums() };
        for counter in [
            &self.server.total_connections,
            &self.server.rejected_connections,
            &self.server.listen_disabled_num,
            &self.server.time_in_listen_disabled_us,
            &self.server.malloc_fails,
            &self.server.udp_requests_dropped,
            &self.server.udp_replies_dropped,
            &self.server.upkeep.longest_us,
            &self.server.upkeep.long,
            &self.server.upkeep.longest_wall_us,
        ] {
            counter.store(0, Relaxed);
        }
        self.moves.reset();
        self.prefixes.clear();
    }

    /// Gets and sets since the start.
    pub fn requests(&self) -> (u64, u64) {
        let (mut gets, mut sets) = (0, 0);
        for worker in self.workers.lock().iter() {
            gets += worker.thread.get_misses.load();
            for class in &worker.classes {
                gets += class.get_hits.load();
                sets += class.set_cmds.load();
            }
        }
        (gets, sets)
    }

    /// How often items of a class were read or stored since the start.
    pub fn uses(&self, class: usize) -> u64 {
        let uses_by = |class: &ClassCounters| {
            class.get_hits.load() + class.touch_hits.load() + class.set_cmds.load()
        };
        self.workers.lock().iter().map(|worker| uses_by(&worker.classes[class])).sum()
    }

    /// Gets that missed since the start.
    pub fn raw_misses(&self) -> u64 {
        self.workers.lock().iter().map(|worker| worker.thread.get_misses.load()).sum()
    }

    /// Items evicted since the start, by class id.
    pub fn raw_evictions(&self) -> Vec<u64> {
        let mut sums = vec![0; self.classes];
        for worker in self.workers.lock().iter() {
            for (sum, class) in sums.iter_mut().zip(&worker.classes) {
                *sum += class.evicted.load();
            }
        }
        sums
    }

    fn raw_thread_sums(&self) -> ThreadSums {
        let mut sums = ThreadSums::default();
        for worker in self.workers.lock().iter() {
            sums.add(&worker.thread);
        }
        sums
    }

    fn raw_class_sums(&self) -> Vec<ClassSums> {
        let mut sums = vec![ClassSums::default(); self.classes];
        for worker in self.workers.lock().iter() {
            for (sum, class) in sums.iter_mut().zip(&worker.classes) {
                sum.add(class);
            }
        }
        sums
    }
}

/// What `stats conns` shows of a connection, by file number: one word each, so that an idle
/// connection costs 8 bytes here. Addresses are asked of the system when they are printed.
pub struct ConnTable(Box<[AtomicU64]>);

/// A connection's state under memcached's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ConnState {
    Closed = 0,
    /// `conn_listening`
    Listening = 1,
    /// `conn_read`: waiting for a request
    Read = 2,
    /// `conn_parse_cmd`: working on one
    ParseCmd = 3,
    /// `conn_nread`: waiting for the rest of a value
    Nread = 4,
    /// `conn_swallow`
    Swallow = 5,
    /// `conn_mwrite`: waiting until the client reads
    Mwrite = 6,
    /// `conn_closing`
    Closing = 7,
    /// `conn_read` of a UDP socket
    Datagram = 8,
    /// `conn_watch`
    Watch = 9,
}

impl ConnState {
    pub fn name(self) -> &'static str {
        match self {
            ConnState::Closed => "conn_closed",
            ConnState::Listening => "conn_listening",
            ConnState::Read | ConnState::Datagram => "conn_read",
            ConnState::ParseCmd => "conn_parse_cmd",
            ConnState::Nread => "conn_nread",
            ConnState::Swallow => "conn_swallow",
            ConnState::Mwrite => "conn_mwrite",
            ConnState::Closing => "conn_closing",
            ConnState::Watch => "conn_watch",
        }
    }

    fn from_u8(n: u8) -> ConnState {
        use ConnState::*;
        let all =
            [Closed, Listening, Read, ParseCmd, Nread, Swallow, Mwrite, Closing, Datagram, Watch];
        all.get(usize::from(n)).copied().unwrap_or(Closed)
    }
}

impl ConnTable {
    fn new(fds: usize) -> ConnTable {
        ConnTable((0..fds).map(|_| AtomicU64::new(0)).collect())
    }

    /// Notes the state of file `fd` and when its last command came (clock seconds).
    ///
    /// Eight files share a cache line, perhaps with other workers', so a word that would not change
    /// is not written: a busy connection that notes [`ConnState::Read`] after every request then
    /// writes once a second. For the same reason [`ConnState::ParseCmd`] is worth noting only
    /// before a command that can show it, an operator's.
    #[inline]
    pub fn set(&self, fd: usize, state: ConnState, last_command: u32) {
        if let Some(cell) = self.0.get(fd) {
            let word = u64::from(last_command) << 8 | state as u64;
            if cell.load(Relaxed) != word {
                cell.store(word, Relaxed);
            }
        }
    }

    /// The open files: number, state, second of the last command.
    pub fn open(&self) -> impl Iterator<Item = (usize, ConnState, u32)> + '_ {
        self.0.iter().enumerate().filter_map(|(fd, cell)| {
            let word = cell.load(Relaxed);
            let state = ConnState::from_u8(word as u8);
            (state != ConnState::Closed).then_some((fd, state, (word >> 8) as u32))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Stats {
        Stats::new(3, 8, Prefixes::new(b':', false), Buffers::new(0, 1))
    }

    #[test]
    fn sums_run_over_all_workers() {
        let stats = stats();
        let (a, b) = (stats.register(), stats.register());
        a.thread.get_misses.add(2);
        b.thread.get_misses.bump();
        a.classes[1].set_cmds.bump();
        b.classes[2].set_cmds.add(4);
        assert_eq!(stats.thread_sums().get_misses, 3);
        let set_cmds: Vec<u64> = stats.class_sums().iter().map(|c| c.set_cmds).collect();
        assert_eq!(set_cmds, [0, 1, 4]);
    }

    #[test]
    fn reset_clears_counters_and_keeps_gauges() {
        let stats = stats();
        let worker = stats.register();
        worker.thread.total_items.add(5);
        worker.classes[1].evicted.add(6);
        worker.levels[1].add(1, 70);
        stats.server.total_connections.store(9, Relaxed);
        stats.server.time_in_listen_disabled_us.store(9, Relaxed);
        stats.server.curr_connections.store(4, Relaxed);
        stats.prefixes.enable(true);
        stats.prefixes.record_set(b"a:1");
        stats.reset();
        assert_eq!(stats.thread_sums().total_items, 0);
        assert_eq!(stats.class_sums()[1].evicted, 0);
        assert_eq!(stats.levels()[1], (1, 70));
        assert_eq!(stats.server.total_connections.load(Relaxed), 0);
        assert_eq!(stats.server.time_in_listen_disabled_us.load(Relaxed), 0);
        assert_eq!(stats.server.curr_connections.load(Relaxed), 4);
        assert!(stats.prefixes.dump().is_empty());
        worker.thread.total_items.bump();
        assert_eq!(stats.thread_sums().total_items, 1);
        assert_eq!(worker.thread.total_items.load(), 6);
    }

    #[test]
    fn a_worker_registered_after_a_reset_counts_from_zero() {
        let stats = stats();
        stats.register().thread.cas_misses.add(3);
        stats.reset();
        stats.register().thread.cas_misses.add(2);
        assert_eq!(stats.thread_sums().cas_misses, 2);
    }

    #[test]
    fn one_worker_may_free_what_another_linked() {
        let stats = stats();
        let (a, b) = (stats.register(), stats.register());
        a.levels[2].add(2, 100);
        b.levels[2].add(-1, -40);
        assert_eq!(stats.levels(), [(0, 0), (0, 0), (1, 60)]);
        b.levels[1].add(-1, -40);
        assert_eq!(stats.levels()[1], (0, 0));
    }

    #[test]
    fn a_reset_between_two_reads_never_makes_a_count_negative() {
        let stats = stats();
        let worker = stats.register();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..200_000).for_each(|_| worker.thread.bytes_read.bump()));
            scope.spawn(|| (0..20_000).for_each(|_| stats.reset()));
            for _ in 0..20_000 {
                assert!(stats.thread_sums().bytes_read <= 200_000);
            }
        });
    }

    #[test]
    fn the_connection_table_shows_open_files_within_its_bounds() {
        let stats = stats();
        stats.conns.set(3, ConnState::Listening, 2);
        stats.conns.set(5, ConnState::Nread, u32::MAX);
        stats.conns.set(5, ConnState::Nread, u32::MAX - 1);
        stats.conns.set(6, ConnState::Read, 7);
        stats.conns.set(6, ConnState::Closed, 7);
        stats.conns.set(8, ConnState::Read, 7);
        let open: Vec<_> = stats.conns.open().collect();
        assert_eq!(open, [(3, ConnState::Listening, 2), (5, ConnState::Nread, u32::MAX - 1)]);
    }

    #[test]
    fn every_state_survives_the_table() {
        use ConnState::*;
        for state in [Closed, Listening, Read, ParseCmd, Nread, Swallow, Mwrite, Closing] {
            assert_eq!(ConnState::from_u8(state as u8), state);
        }
    }
}
