//! What the command line resolved to.

use super::tls::{NO_TLS, TlsSettings};
use std::path::PathBuf;

/// How chunks are laid out; both are parameters of one engine (`ARCHITECTURE.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// 64 KiB pages, page/k classes, everything inside -m. The default.
    Compact,
    /// 1 MiB pages, memcached's ladder, class numbers and accounting.
    Memcached,
}

/// `-o eviction=`: which item of a class goes when room is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Eviction {
    /// Probation and a clock, after S3-FIFO.
    S3 = 0,
    /// An approximation of a flat LRU; also what `lru mode flat` makes of the default.
    Lru = 1,
    /// A queue with a hand, after SIEVE.
    Sieve = 2,
}

/// `-B`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Auto,
    Ascii,
    Binary,
}

impl Protocol {
    /// As memcached calls it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Auto => "auto-negotiate",
            Protocol::Ascii => "ascii",
            Protocol::Binary => "binary",
        }
    }
}

/// Whether a listener speaks TLS, and what it asks of its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenTls {
    /// Plain text: without `-Z`, or `notls:`.
    #[default]
    Off,
    /// `-Z`, with certificates of clients as `-o ssl_verify_mode` says.
    Default,
    /// `btls:`: no client is asked for a certificate.
    NoPeer,
    /// `mtls:`: every client must have a certificate.
    Peer,
}

/// What an entry of `-l` says of its connections, beside the address. Small: it goes with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenTraits {
    /// `proto[...]:`, else -B.
    pub protocol: Protocol,
    pub tls: ListenTls,
    /// `tag[...]:`, padded with NUL; all NUL without one.
    pub tag: [u8; 8],
}

/// One listening address of `-l`, its port resolved against `-p`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// As given: a host name, an address, or empty for all interfaces.
    pub host: String,
    /// 0 is ephemeral (`-p -1`).
    pub port: u16,
    pub traits: ListenTraits,
}

/// What UDP has beside its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Sockets; empty with `-U 0` or `-s`.
    pub listen: Vec<Listen>,
    /// `-o udp_reply_max`, bytes: all answers to one datagram.
    pub reply_max: u32,
    /// `-o udp_reply_rate`, bytes a second that answers to one network may have more than its
    /// requests; 0 is no bound.
    pub reply_rate: u32,
}

/// Everything a server needs to know, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// -m, bytes. In `Layout::Compact` it bounds the whole cache, in `Memcached` pages only, and
    /// with `memory_total` the whole process.
    pub maxbytes: u64,
    /// `-o memory_budget=total`
    pub memory_total: bool,
    pub layout: Layout,
    pub eviction: Eviction,
    /// -p as printed by `stats settings`; -1 is ephemeral, 0 none.
    pub tcp_port: i32,
    /// -U, as `tcp_port`
    pub udp_port: i32,
    /// TCP listeners; empty with `-p 0` or `-s`.
    pub listen: Vec<Listen>,
    /// Those of a TCP listener that says nothing of its own.
    pub listen_traits: ListenTraits,
    pub udp: Udp,
    /// -l as given, `None` for all interfaces.
    pub inter: Option<String>,
    pub unix_socket: Option<PathBuf>,
    /// Those of the unix socket; it never speaks TLS.
    pub unix_traits: ListenTraits,
    /// -a, permission bits
    pub unix_mask: u32,
    pub tls: TlsSettings,
    pub max_connections: u32,
    pub threads: u32,
    pub backlog: u32,
    /// -R
    pub requests_per_event: u32,
    /// -N; 0 where not given. Shown, and no more.
    pub napi_ids: u32,
    pub evict: bool,
    pub use_cas: bool,
    /// -f
    pub growth_factor: f64,
    /// False where `growth_factor` is memcached's default: the compact ladder then has its own.
    pub growth_factor_given: bool,
    /// -n, bytes
    pub chunk_size: u32,
    /// False where `chunk_size` is memcached's default.
    pub chunk_size_given: bool,
    /// -I, bytes
    pub item_size_max: u32,
    /// `-o slab_chunk_max`, bytes; `None` where not given.
    pub slab_chunk_max: Option<u32>,
    /// The largest chunk of memcached's ladder, bytes, as `stats settings` prints it under
    /// `slab_chunk_max`: the one given, else half a page, or a whole page with `no_chunked_items`
    /// and `no_modern`.
    pub slab_chunk_size_max: u32,
    /// `-o slab_sizes`, bytes; empty where not given.
    pub slab_sizes: Vec<u32>,
    /// `-o hashpower`; 0 where not given, as memcached prints it.
    pub hashpower_init: u32,
    /// `-o no_hashexpand`: the index keeps the size it starts with.
    pub no_hashexpand: bool,
    /// -e
    pub memory_file: Option<PathBuf>,
    /// `-o memory_file_discard`: start cold, whatever is in the file.
    pub memory_file_discard: bool,
    /// `-o checksum`: the seals in a memory file cover values.
    pub checksum: bool,
    /// `-o drop_privileges`: no system calls but those that serving takes.
    pub drop_privileges: bool,
    pub large_pages: bool,
    pub lock_memory: bool,
    pub max_core_dumps: bool,
    /// -d
    pub daemonize: bool,
    /// -P; `None` where not given or empty.
    pub pid_file: Option<PathBuf>,
    /// -u; `None` where not given or empty.
    pub user: Option<String>,
    pub verbosity: u32,
    pub protocol: Protocol,
    /// -Y
    pub auth_file: Option<PathBuf>,
    /// With -S, the environment's `MEMCACHED_SASL_PWDB`.
    pub sasl_passwords: Option<PathBuf>,
    pub maxconns_fast: bool,
    pub idle_timeout: u32,
    pub flush_enabled: bool,
    pub dump_enabled: bool,
    pub watch_enabled: bool,
    pub shutdown_command: bool,
    pub detail_enabled: bool,
    pub prefix_delimiter: u8,
    pub hash_algorithm: &'static str,
    pub tail_repair_time: u32,
    pub slab_reassign: bool,
    pub slab_automove: u32,
    pub slab_automove_ratio: f64,
    pub slab_automove_window: u32,
    pub lru_crawler: bool,
    pub lru_crawler_sleep: u32,
    pub lru_crawler_tocrawl: u32,
    pub lru_maintainer: bool,
    pub lru_segmented: bool,
    pub hot_lru_pct: u32,
    pub warm_lru_pct: u32,
    pub hot_max_factor: f64,
    pub warm_max_factor: f64,
    pub temp_lru: bool,
    pub temporary_ttl: u32,
    pub watcher_logbuf_size: u32,
    pub worker_logbuf_size: u32,
    /// `-o read_buf_mem_limit`, bytes; 0 is none.
    pub read_buf_mem_limit: u64,
    /// `-o bg_cpu_pct`, per cent of one core for background work while clients are busy.
    pub bg_cpu_pct: u32,
    pub track_sizes: bool,
    /// Bytes that count as allocated before the first page (the environment's
    /// `T_MEMD_INITIAL_MALLOC`); always 0 without the feature `debug-commands`.
    pub initial_malloc: u64,
    /// What the operator should know at every start: options without effect in this release.
    pub warnings: Vec<String>,
    /// What is worth a line with -v.
    pub notes: Vec<String>,
}

impl Settings {
    /// True where the slab classes follow memcached's formula: by `layout=memcached`, or because
    /// `slab_sizes` or `slab_chunk_max` only mean something in it.
    pub fn memcached_ladder(&self) -> bool {
        self.layout == Layout::Memcached
            || self.slab_chunk_max.is_some()
            || !self.slab_sizes.is_empty()
    }

    /// Workers that serve each UDP address: as memcached, one where there are several addresses.
    pub fn threads_per_udp(&self) -> u32 {
        let several = self.inter.as_ref().is_some_and(|list| list.contains(','));
        if several { 1 } else { self.threads }
    }
}

/// The defaults, but for what takes memory of its own. A constant, since no function is that long.
const DEFAULTS: Settings = Settings {
    maxbytes: 64 << 20,
    memory_total: false,
    layout: Layout::Compact,
    eviction: Eviction::S3,
    tcp_port: 11211,
    udp_port: 0,
    listen: Vec::new(),
    listen_traits: PLAIN,
    udp: Udp { listen: Vec::new(), reply_max: 128 << 10, reply_rate: 1 << 20 },
    inter: None,
    unix_socket: None,
    unix_traits: PLAIN,
    unix_mask: 0o700,
    tls: NO_TLS,
    max_connections: 1024,
    threads: 4,
    backlog: 1024,
    requests_per_event: 20,
    napi_ids: 0,
    evict: true,
    use_cas: true,
    growth_factor: 1.25,
    growth_factor_given: false,
    chunk_size: 48,
    chunk_size_given: false,
    item_size_max: 1 << 20,
    slab_chunk_max: None,
    slab_chunk_size_max: 512 << 10,
    slab_sizes: Vec::new(),
    hashpower_init: 0,
    no_hashexpand: false,
    memory_file: None,
    memory_file_discard: false,
    checksum: false,
    drop_privileges: false,
    large_pages: false,
    lock_memory: false,
    max_core_dumps: false,
    daemonize: false,
    pid_file: None,
    user: None,
    verbosity: 0,
    protocol: Protocol::Auto,
    auth_file: None,
    sasl_passwords: None,
    maxconns_fast: true,
    idle_timeout: 0,
    flush_enabled: true,
    dump_enabled: true,
    watch_enabled: true,
    shutdown_command: false,
    detail_enabled: false,
    prefix_delimiter: b':',
    hash_algorithm: "rapidhash",
    tail_repair_time: 0,
    slab_reassign: true,
    slab_automove: 1,
    slab_automove_ratio: 0.8,
    slab_automove_window: 10,
    lru_crawler: true,
    lru_crawler_sleep: 100,
    lru_crawler_tocrawl: 0,
    lru_maintainer: true,
    lru_segmented: true,
    hot_lru_pct: 20,
    warm_lru_pct: 40,
    hot_max_factor: 0.2,
    warm_max_factor: 2.0,
    temp_lru: false,
    temporary_ttl: 61,
    watcher_logbuf_size: 256 << 10,
    worker_logbuf_size: 64 << 10,
    read_buf_mem_limit: 0,
    bg_cpu_pct: 5,
    track_sizes: false,
    initial_malloc: 0,
    warnings: Vec::new(),
    notes: Vec::new(),
};

/// A listener of which nothing special was said.
const PLAIN: ListenTraits =
    ListenTraits { protocol: Protocol::Auto, tls: ListenTls::Off, tag: [0; 8] };

impl Default for Settings {
    fn default() -> Settings {
        let listen = vec![Listen { port: 11211, ..Listen::default() }];
        Settings { listen, ..DEFAULTS }
    }
}
