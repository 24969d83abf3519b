//! `stats`: the server as a whole.

use super::{MEMCACHED_VERSION, Rows, StatLines};
use crate::clock::Seconds;
use crate::config::Settings;
use crate::stats::{ClassSums, MoveStats, ServerStats, ThreadSums};
use crate::store::{Restart, Store, StoreInfo};
use crate::watch::Figures;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Shown where memcached names its event library.
const EVENT_LIBRARY: &str = "mio-1.2";

/// Everything that `stats` prints, gathered.
struct General<'a> {
    settings: &'a Settings,
    /// `lru_crawler` as it is now.
    crawler: bool,
    server: &'a ServerStats,
    moves: &'a MoveStats,
    /// Bytes that connections hold, and how many hold any.
    buffers: (u64, u64),
    watchers: Figures,
    process: Process,
    info: StoreInfo,
    /// With -e: what the file held, and pages that it had no room for.
    memory_file: Option<(Restart, u64)>,
    thread: ThreadSums,
    class: ClassSums,
    items: u64,
    bytes: u64,
}

/// The process as the system sees it.
struct Process {
    pid: u32,
    /// Seconds.
    uptime: u32,
    /// Clock seconds.
    now: Seconds,
    /// Unix time.
    time: u64,
    user: TimeVal,
    system: TimeVal,
}

pub(super) fn of(store: &Store) -> StatLines {
    let stats = store.stats();
    let levels = stats.levels();
    format(&General {
        settings: store.settings(),
        crawler: store.knobs().crawler.load(Relaxed),
        server: &stats.server,
        moves: &stats.moves,
        buffers: (stats.buffers.bytes(), stats.buffers.holders()),
        watchers: store.watch().figures(),
        process: Process::now(store),
        info: store.info(),
        memory_file: store.restarted().map(|told| (told.clone(), store.pages_refused())),
        thread: stats.thread_sums(),
        class: stats.class_sums().iter().fold(ClassSums::default(), |mut sum, class| {
            sum.plus(class);
            sum
        }),
        items: levels.iter().map(|(items, _)| items).sum(),
        bytes: levels.iter().map(|(_, bytes)| bytes).sum(),
    })
}

impl Process {
    fn now(store: &Store) -> Process {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        let zero = TimeVal::new(0, 0);
        let clock = store.clock();
        Process {
            pid: std::process::id(),
            uptime: clock.uptime(),
            now: clock.now(),
            time: clock.unix(clock.now()),
            user: usage.map_or(zero, |usage| usage.user_time()),
            system: usage.map_or(zero, |usage| usage.system_time()),
        }
    }
}

fn format(g: &General<'_>) -> StatLines {
    let mut rows = Rows::default();
    process(&mut rows, g);
    connections(&mut rows, g);
    commands(&mut rows, g);
    traffic(&mut rows, g);
    background(&mut rows, g);
    items(&mut rows, g);
    if g.settings.udp_port != 0 {
        udp(&mut rows, g.server);
    }
    g.memory_file.iter().for_each(|(told, refused)| memory_file(&mut rows, told, *refused));
    rows.end()
}

fn process(rows: &mut Rows, g: &General<'_>) {
    let p = &g.process;
    // The exporter for Prometheus splits these at their one dot.
    let seconds = |t: TimeVal| format!("{}.{:06}", t.tv_sec(), t.tv_usec());
    rows.put("pid", p.pid);
    rows.put("uptime", p.uptime);
    rows.put("time", p.time);
    rows.put("version", MEMCACHED_VERSION);
    rows.put("libevent", EVENT_LIBRARY);
    rows.put("pointer_size", usize::BITS);
    rows.put("rusage_user", seconds(p.user));
    rows.put("rusage_system", seconds(p.system));
}

fn connections(rows: &mut Rows, g: &General<'_>) {
    let s = g.server;
    rows.put("max_connections", g.settings.max_connections);
    rows.put("curr_connections", s.curr_connections.load(Relaxed).max(0));
    rows.put("total_connections", s.total_connections.load(Relaxed));
    if g.settings.maxconns_fast {
        rows.put("rejected_connections", s.rejected_connections.load(Relaxed));
    }
    rows.put("connection_structures", s.connection_structures.load(Relaxed));
    rows.put("response_obj_oom", g.thread.response_obj_oom);
    // Answers are written to a worker's buffer: there are no objects to count.
    rows.put("response_obj_count", 0);
    rows.put("response_obj_bytes", 0);
    rows.put("read_buf_count", g.buffers.1);
    rows.put("read_buf_bytes", g.buffers.0);
    // A connection's buffer is given back when it is empty, none is kept.
    rows.put("read_buf_bytes_free", 0);
    rows.put("read_buf_oom", g.thread.read_buf_oom);
    rows.put("reserved_fds", s.reserved_fds.load(Relaxed));
}

fn commands(rows: &mut Rows, g: &General<'_>) {
    let (t, c) = (&g.thread, &g.class);
    rows.put_all([
        ("cmd_get", c.get_hits.wrapping_add(t.get_misses)),
        ("cmd_set", c.set_cmds),
        ("cmd_flush", t.flush_cmds),
        ("cmd_touch", t.touch_cmds),
        ("cmd_meta", t.meta_cmds),
        ("get_hits", c.get_hits),
        ("get_misses", t.get_misses),
        ("get_expired", t.get_expired),
        ("get_flushed", t.get_flushed),
        ("delete_misses", t.delete_misses),
        ("delete_hits", c.delete_hits),
        ("incr_misses", t.incr_misses),
        ("incr_hits", c.incr_hits),
        ("decr_misses", t.decr_misses),
        ("decr_hits", c.decr_hits),
        ("cas_misses", t.cas_misses),
        ("cas_hits", c.cas_hits),
        ("cas_badval", c.cas_badval),
        ("touch_hits", c.touch_hits),
        ("touch_misses", t.touch_misses),
        ("store_too_large", t.store_too_large),
        ("store_no_memory", t.store_no_memory),
        ("auth_cmds", t.auth_cmds),
        ("auth_errors", t.auth_errors),
    ]);
}

fn traffic(rows: &mut Rows, g: &General<'_>) {
    let s = g.server;
    if g.settings.idle_timeout != 0 {
        rows.put("idle_kicks", g.thread.idle_kicks);
    }
    rows.put("bytes_read", g.thread.bytes_read);
    rows.put("bytes_written", g.thread.bytes_written);
    rows.put("limit_maxbytes", g.info.limit_maxbytes);
    rows.put("accepting_conns", u8::from(s.accepting_conns.load(Relaxed)));
    rows.put("listen_disabled_num", s.listen_disabled_num.load(Relaxed));
    rows.put("time_in_listen_disabled_us", s.time_in_listen_disabled_us.load(Relaxed));
    rows.put("threads", g.settings.threads);
    rows.put("conn_yields", g.thread.conn_yields);
    rows.put("hash_power_level", g.info.hash_power_level);
    rows.put("hash_bytes", g.info.hash_bytes);
    rows.put("hash_is_expanding", u8::from(g.info.hash_is_expanding));
}

fn tls(rows: &mut Rows, g: &General<'_>) {
    let t = &g.server.tls;
    if g.settings.tls.session_cache {
        rows.put("ssl_new_sessions", t.ssl_new_sessions.load(Relaxed));
    }
    let refreshed = t.last_cert_refresh.load(Relaxed);
    rows.put("ssl_handshake_errors", t.ssl_handshake_errors.load(Relaxed));
    rows.put("ssl_proto_errors", t.ssl_proto_errors.load(Relaxed));
    rows.put("time_since_server_cert_refresh", g.process.now.saturating_sub(refreshed));
}

/// Page mover, crawler, maintainer, watchers.
fn background(rows: &mut Rows, g: &General<'_>) {
    if g.settings.slab_reassign {
        let m = g.moves;
        let count = |n: &AtomicU64| n.load(Relaxed);
        rows.put_all([
            ("slab_reassign_rescues", count(&m.rescues)),
            ("slab_reassign_chunk_rescues", count(&m.chunk_rescues)),
            // A page that is being emptied hands out no chunks, so none comes back that way.
            ("slab_reassign_inline_reclaim", 0),
            ("slab_reassign_busy_items", count(&m.busy_items)),
            ("slab_reassign_busy_deletes", count(&m.busy_deletes)),
            ("slab_reassign_busy_nomem", count(&m.busy_nomem)),
        ]);
        rows.put("slab_reassign_last_busy_status", m.last_busy().name());
        rows.put("slab_reassign_running", u8::from(m.running.load(Relaxed)));
        rows.put("slabs_moved", count(&m.slabs_moved));
    }
    if g.crawler {
        rows.put("lru_crawler_running", u8::from(g.info.crawler_running));
        rows.put("lru_crawler_starts", g.info.crawler_starts);
    }
    if g.settings.lru_maintainer {
        rows.put("lru_maintainer_juggles", g.thread.lru_maintainer_juggles);
    }
    rows.put("malloc_fails", g.server.malloc_fails.load(Relaxed));
    rows.put_all([
        ("log_worker_dropped", g.thread.log_dropped),
        ("log_worker_written", g.thread.log_written),
        ("log_watcher_skipped", g.watchers.skipped),
        ("log_watcher_sent", g.watchers.sent),
        ("log_watchers", g.watchers.watchers),
    ]);
    if g.settings.tls.enabled {
        tls(rows, g);
    }
    rows.put_all([("unexpected_napi_ids", 0), ("round_robin_fallback", 0)]);
}

/// Ours, behind memcached's, and only where there is UDP.
fn udp(rows: &mut Rows, s: &ServerStats) {
    rows.put("udp_requests_dropped", s.udp_requests_dropped.load(Relaxed));
    rows.put("udp_replies_dropped", s.udp_replies_dropped.load(Relaxed));
}

/// Ours, too, and only with -e.
fn memory_file(rows: &mut Rows, told: &Restart, refused: u64) {
    rows.put_all([
        ("restart_warm", u64::from(told.warm)),
        ("restart_clean", u64::from(told.clean)),
        ("restart_items_kept", told.kept),
        ("restart_items_dead", told.dead),
        ("restart_items_dropped", told.dropped),
        ("restart_pages_lost", told.pages_lost),
        ("restart_time_us", told.took.as_micros() as u64),
        ("memory_file_pages_refused", refused),
    ]);
}

fn items(rows: &mut Rows, g: &General<'_>) {
    let c = &g.class;
    let maintained = g.settings.lru_maintainer;
    rows.put_all([
        ("bytes", g.bytes),
        ("curr_items", g.items),
        ("total_items", g.thread.total_items),
        ("slab_global_page_pool", g.info.free_pages),
        ("expired_unfetched", c.expired_unfetched),
        ("evicted_unfetched", c.evicted_unfetched),
    ]);
    if maintained {
        rows.put("evicted_active", c.evicted_active);
    }
    rows.put_all([
        ("evictions", c.evicted),
        ("reclaimed", c.reclaimed),
        ("crawler_reclaimed", c.crawler_reclaimed),
        ("crawler_items_checked", c.crawler_items_checked),
        ("lrutail_reflocked", 0),
    ]);
    if maintained {
        rows.put_all([
            ("moves_to_cold", c.moves_to_cold),
            ("moves_to_warm", c.moves_to_warm),
            ("moves_within_lru", c.moves_within_lru),
            ("direct_reclaims", c.direct_reclaims),
            ("lru_bumps_dropped", 0),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of memcached 1.6.45's `stats` with default settings, in its order.
    const KEYS: &str = "
        pid uptime time version libevent pointer_size rusage_user rusage_system max_connections
        curr_connections total_connections rejected_connections connection_structures
        response_obj_oom response_obj_count response_obj_bytes read_buf_count read_buf_bytes
        read_buf_bytes_free read_buf_oom reserved_fds cmd_get cmd_set cmd_flush cmd_touch
        cmd_meta get_hits get_misses get_expired get_flushed delete_misses delete_hits
        incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits
        touch_misses store_too_large store_no_memory auth_cmds auth_errors bytes_read
        bytes_written limit_maxbytes accepting_conns listen_disabled_num
        time_in_listen_disabled_us threads conn_yields hash_power_level hash_bytes
        hash_is_expanding slab_reassign_rescues slab_reassign_chunk_rescues
        slab_reassign_inline_reclaim slab_reassign_busy_items slab_reassign_busy_deletes
        slab_reassign_busy_nomem slab_reassign_last_busy_status slab_reassign_running
        slabs_moved lru_crawler_running lru_crawler_starts lru_maintainer_juggles malloc_fails
        log_worker_dropped log_worker_written log_watcher_skipped log_watcher_sent log_watchers
        unexpected_napi_ids round_robin_fallback bytes curr_items total_items
        slab_global_page_pool expired_unfetched evicted_unfetched evicted_active evictions
        reclaimed crawler_reclaimed crawler_items_checked lrutail_reflocked moves_to_cold
        moves_to_warm moves_within_lru direct_reclaims lru_bumps_dropped";
    /// Those that `-o no_lru_crawler,no_lru_maintainer` takes away.
    const MAINTAINED: &str = "lru_crawler_running lru_crawler_starts lru_maintainer_juggles
        evicted_active moves_to_cold moves_to_warm moves_within_lru direct_reclaims
        lru_bumps_dropped";

    fn with(settings: &Settings, change: impl FnOnce(&mut General<'_>, &ServerStats)) -> StatLines {
        let server = ServerStats::default();
        let mut general = General {
            settings,
            crawler: settings.lru_crawler,
            server: &server,
            moves: &MoveStats::default(),
            buffers: (0, 0),
            watchers: Figures::default(),
            process: Process {
                pid: 77,
                uptime: 2,
                now: 10,
                time: 1_700_000_000,
                user: TimeVal::new(3, 45),
                system: TimeVal::new(0, 123_456),
            },
            info: StoreInfo::default(),
            memory_file: None,
            thread: ThreadSums::default(),
            class: ClassSums::default(),
            items: 0,
            bytes: 0,
        };
        change(&mut general, &server);
        format(&general)
    }

    fn fresh(settings: &Settings) -> StatLines {
        with(settings, |_, _| ())
    }

    #[test]
    fn a_default_server_shows_memcacheds_93_keys_in_its_order() {
        let lines = fresh(&Settings::default());
        assert_eq!(lines.names(), KEYS.split_whitespace().collect::<Vec<_>>());
        assert_eq!(lines.names().len(), 93);
    }

    #[test]
    fn without_crawler_and_maintainer_84_keys_are_left() {
        let settings =
            Settings { lru_crawler: false, lru_maintainer: false, ..Settings::default() };
        let lines = fresh(&settings);
        let gone: Vec<_> = MAINTAINED.split_whitespace().collect();
        let left: Vec<_> = KEYS.split_whitespace().filter(|key| !gone.contains(key)).collect();
        assert_eq!(lines.names(), left);
        assert_eq!(left.len(), 84);
    }

    #[test]
    fn settings_decide_over_the_other_optional_keys() {
        let settings = Settings {
            slab_reassign: false,
            maxconns_fast: false,
            idle_timeout: 5,
            ..Settings::default()
        };
        let lines = fresh(&settings);
        let mut expected: Vec<_> = KEYS
            .split_whitespace()
            .filter(|key| !key.starts_with("slab_reassign") && *key != "slabs_moved")
            .filter(|key| *key != "rejected_connections")
            .collect();
        let after = expected.iter().position(|key| *key == "auth_errors").unwrap();
        expected.insert(after + 1, "idle_kicks");
        assert_eq!(lines.names(), expected);
    }

    #[test]
    fn the_process_is_described_as_tools_parse_it() {
        let lines = fresh(&Settings::default());
        assert_eq!(lines.value("pid"), "77");
        assert_eq!(lines.value("uptime"), "2");
        assert_eq!(lines.value("time"), "1700000000");
        assert_eq!(lines.value("version"), "1.6.45");
        assert_eq!(lines.value("pointer_size"), "64");
        assert_eq!(lines.value("rusage_user"), "3.000045");
        assert_eq!(lines.value("rusage_system"), "0.123456");
        assert_eq!(lines.value("slab_reassign_last_busy_status"), "none");
    }

    #[test]
    fn counters_and_gauges_reach_their_keys() {
        let lines = with(&Settings::default(), |g, server| {
            g.thread.get_misses = 2;
            g.thread.touch_cmds = 11;
            g.class.get_hits = 40;
            g.class.set_cmds = 6;
            g.class.evicted = 12;
            g.thread.total_items = 9;
            g.info.limit_maxbytes = 1 << 26;
            g.info.hash_power_level = 17;
            g.info.hash_is_expanding = true;
            g.info.free_pages = 3;
            (g.info.crawler_running, g.info.crawler_starts) = (true, 14);
            (g.class.crawler_reclaimed, g.class.crawler_items_checked) = (15, 16);
            (g.items, g.bytes) = (5, 500);
            server.accepting_conns.store(true, Relaxed);
            server.curr_connections.store(7, Relaxed);
            g.buffers = (4096, 1);
            server.reserved_fds.store(13, Relaxed);
        });
        for (name, value) in [
            ("cmd_get", "42"),
            ("get_hits", "40"),
            ("get_misses", "2"),
            ("cmd_touch", "11"),
            ("cmd_set", "6"),
            ("evictions", "12"),
            ("total_items", "9"),
            ("limit_maxbytes", "67108864"),
            ("hash_power_level", "17"),
            ("hash_is_expanding", "1"),
            ("slab_global_page_pool", "3"),
            ("lru_crawler_running", "1"),
            ("lru_crawler_starts", "14"),
            ("crawler_reclaimed", "15"),
            ("crawler_items_checked", "16"),
            ("curr_items", "5"),
            ("bytes", "500"),
            ("accepting_conns", "1"),
            ("curr_connections", "7"),
            ("read_buf_bytes", "4096"),
            ("read_buf_count", "1"),
            ("reserved_fds", "13"),
        ] {
            assert_eq!(lines.value(name), value, "{name}");
        }
    }

    #[test]
    fn the_event_librarys_version_is_the_one_built_in() {
        let lock = include_str!("../../../Cargo.lock");
        let version = lock.split("name = \"mio\"\nversion = \"").nth(1).unwrap();
        let built = format!("mio-{}", version.split('"').next().unwrap());
        assert!(built.starts_with(&format!("{EVENT_LIBRARY}.")), "{built}");
    }
}
