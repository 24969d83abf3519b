//! `stats settings`: what the server was started with, and what was changed since.

use super::{Rows, StatLines};
use crate::config::{Eviction, Layout, Settings, TlsSettings};
use crate::privileges;
use crate::store::{Knobs, Store};
use std::fmt::Display;
use std::sync::atomic::Ordering::Relaxed;

/// What may differ from the settings at start.
struct Present<'a> {
    knobs: &'a Knobs,
    maxbytes: u64,
    verbosity: u32,
    /// Clock seconds of the last flush, 0 for none.
    oldest: u32,
    detail_enabled: bool,
    /// Size in bytes of the largest chunk that a value is put in, or in several of.
    chunk_max: u32,
    /// Bytes of address space that the kernel keeps from being swapped out.
    locked: u64,
    /// Bytes in huge pages, where -L asked for them.
    huge: Option<u64>,
}

pub(super) fn of(store: &Store) -> StatLines {
    let (settings, stats, info) = (store.settings(), store.stats(), store.info());
    let largest = || store.class_info().iter().map(|class| class.chunk_size).max().unwrap_or(0);
    let present = Present {
        knobs: store.knobs(),
        maxbytes: info.limit_maxbytes,
        verbosity: stats.server.verbosity.load(Relaxed),
        oldest: info.oldest_live,
        detail_enabled: stats.prefixes.enabled(),
        chunk_max: settings.slab_chunk_max.unwrap_or_else(largest),
        locked: privileges::locked_bytes(),
        huge: settings.large_pages.then(privileges::huge_page_bytes),
    };
    format(settings, &present)
}

fn format(s: &Settings, present: &Present<'_>) -> StatLines {
    let mut rows = Rows::default();
    network(&mut rows, s, present);
    service(&mut rows, s, present);
    memory(&mut rows, s, present);
    lru(&mut rows, s, present.knobs);
    limits(&mut rows, s);
    ours(&mut rows, s, present);
    rows.end()
}

fn yes(on: bool) -> &'static str {
    if on { "yes" } else { "no" }
}

fn two_places(factor: f64) -> impl Display {
    format!("{factor:.2}")
}

fn network(rows: &mut Rows, s: &Settings, present: &Present<'_>) {
    rows.put("maxbytes", present.maxbytes);
    rows.put("maxconns", s.max_connections);
    rows.put("tcpport", s.tcp_port);
    rows.put("udpport", s.udp_port);
    rows.put("inter", s.inter.as_deref().unwrap_or("NULL"));
    rows.put("verbosity", present.verbosity);
    rows.put("oldest", present.oldest);
    rows.put("evictions", if s.evict { "on" } else { "off" });
    match &s.unix_socket {
        Some(path) => rows.put("domain_socket", path.display()),
        None => rows.put("domain_socket", "NULL"),
    }
    rows.put("umask", format!("{:o}", s.unix_mask));
    rows.put("shutdown_command", yes(s.shutdown_command));
}

fn service(rows: &mut Rows, s: &Settings, present: &Present<'_>) {
    rows.put("growth_factor", two_places(s.growth_factor));
    rows.put("chunk_size", s.chunk_size);
    rows.put("num_threads", s.threads);
    rows.put("num_threads_per_udp", s.threads_per_udp());
    rows.put("stat_key_prefix", char::from(s.prefix_delimiter));
    rows.put("detail_enabled", yes(present.detail_enabled));
    rows.put("reqs_per_event", s.requests_per_event);
    rows.put("cas_enabled", yes(s.use_cas));
    rows.put("tcp_backlog", s.backlog);
    rows.put("binding_protocol", s.protocol.name());
    rows.put("auth_enabled_sasl", yes(s.sasl_passwords.is_some()));
    match &s.auth_file {
        Some(file) => rows.put("auth_enabled_ascii", file.display()),
        None => rows.put("auth_enabled_ascii", "no"),
    }
}

fn memory(rows: &mut Rows, s: &Settings, present: &Present<'_>) {
    rows.put("item_size_max", s.item_size_max);
    rows.put("maxconns_fast", yes(s.maxconns_fast));
    rows.put("hashpower_init", s.hashpower_init);
    rows.put("slab_reassign", yes(s.slab_reassign));
    rows.put("slab_automove", present.knobs.automove.load(Relaxed));
    rows.put("slab_automove_ratio", two_places(present.knobs.automove_ratio.get()));
    rows.put("slab_automove_window", present.knobs.automove_window.load(Relaxed));
    rows.put("slab_chunk_max", present.chunk_max);
}

fn lru(rows: &mut Rows, s: &Settings, k: &Knobs) {
    rows.put("lru_crawler", yes(k.crawler.load(Relaxed)));
    rows.put("lru_crawler_sleep", k.crawler_sleep.load(Relaxed));
    rows.put("lru_crawler_tocrawl", k.crawler_tocrawl.load(Relaxed));
    rows.put("tail_repair_time", s.tail_repair_time);
    rows.put("flush_enabled", yes(s.flush_enabled));
    rows.put("dump_enabled", yes(s.dump_enabled));
    rows.put("hash_algorithm", s.hash_algorithm);
    rows.put("lru_maintainer_thread", yes(s.lru_maintainer));
    rows.put("lru_segmented", yes(k.segmented.load(Relaxed)));
    rows.put("hot_lru_pct", k.hot_pct.load(Relaxed));
    rows.put("warm_lru_pct", k.warm_pct.load(Relaxed));
    rows.put("hot_max_factor", two_places(k.hot_factor.get()));
    rows.put("warm_max_factor", two_places(k.warm_factor.get()));
    rows.put("temp_lru", yes(k.temporary_ttl().is_some()));
    rows.put("temporary_ttl", k.last_temporary_ttl());
}

fn limits(rows: &mut Rows, s: &Settings) {
    rows.put("idle_timeout", s.idle_timeout);
    rows.put("watcher_logbuf_size", s.watcher_logbuf_size);
    rows.put("worker_logbuf_size", s.worker_logbuf_size);
    rows.put("read_buf_mem_limit", s.read_buf_mem_limit);
    // `stats sizes` counts when it is asked, so it always answers.
    rows.put("track_sizes", "yes");
    // Of these memcached has the first in name only; the next two are features not offered.
    rows.put("inline_ascii_response", "no");
    tls(rows, &s.tls);
    rows.put("num_napi_ids", s.napi_ids);
    match &s.memory_file {
        Some(file) => rows.put("memory_file", file.display()),
        None => rows.put("memory_file", "(null)"),
    }
    rows.put("client_flags_size", size_of::<u32>());
}

fn tls(rows: &mut Rows, tls: &TlsSettings) {
    let or = |text: &Option<String>, none: &str| text.clone().unwrap_or_else(|| none.into());
    rows.put("ssl_enabled", yes(tls.enabled));
    rows.put("ssl_chain_cert", or(&tls.chain_cert, "(null)"));
    rows.put("ssl_key", or(&tls.key, "(null)"));
    rows.put("ssl_verify_mode", tls.verify_mode as u8);
    rows.put("ssl_keyformat", tls.key_format as u8);
    rows.put("ssl_ciphers", or(&tls.ciphers, "NULL"));
    rows.put("ssl_ca_cert", or(&tls.ca_cert, "NULL"));
    rows.put("ssl_wbuf_size", tls.wbuf_size);
    rows.put("ssl_session_cache", yes(tls.session_cache));
    // The process encrypts for itself, whatever -o ssl_kernel_tls says.
    rows.put("ssl_kernel_tls", "no");
    rows.put("ssl_min_version", tls.min_version.name());
}

/// Of our own options, and what came of -k and -L: behind memcached's keys, so that whoever reads
/// those by their place still can.
fn ours(rows: &mut Rows, s: &Settings, present: &Present<'_>) {
    let flat = s.eviction == Eviction::S3 && !present.knobs.segmented.load(Relaxed);
    let layout = match s.layout {
        Layout::Compact => "compact",
        Layout::Memcached => "memcached",
    };
    let eviction = match s.eviction {
        Eviction::S3 if flat => "lru",
        Eviction::S3 => "s3",
        Eviction::Lru => "lru",
        Eviction::Sieve => "sieve",
    };
    rows.put("layout", layout);
    rows.put("memory_budget", if s.memory_total { "total" } else { "cache" });
    rows.put("eviction", eviction);
    rows.put("bg_cpu_pct", s.bg_cpu_pct);
    // The reservation is larger than -m: once it is locked, so is whatever is stored.
    let locked = if present.locked >= present.maxbytes { "yes" } else { "failed" };
    rows.put("lock_memory", if s.lock_memory { locked } else { "no" });
    rows.put("large_pages", yes(s.large_pages));
    rows.put("drop_privileges", yes(s.drop_privileges));
    if s.memory_file.is_some() {
        rows.put("checksum", yes(s.checksum));
    }
    if let Some(bytes) = present.huge {
        rows.put("large_pages_bytes", bytes);
    }
    if s.udp_port != 0 {
        rows.put("udp_reply_max", s.udp.reply_max);
        rows.put("udp_reply_rate", s.udp.reply_rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;

    /// The keys and default values of memcached 1.6.45's `stats settings`, in its order, without
    /// those of extstore and TLS. Four values are ours: hashpower_init (shown as resolved),
    /// hash_algorithm, slab_chunk_max and track_sizes; and so are the keys from layout on.
    const DEFAULTS: &str = "
        maxbytes 67108864
        maxconns 1024
        tcpport 11211
        udpport 0
        inter NULL
        verbosity 0
        oldest 0
        evictions on
        domain_socket NULL
        umask 700
        shutdown_command no
        growth_factor 1.25
        chunk_size 48
        num_threads 4
        num_threads_per_udp 4
        stat_key_prefix :
        detail_enabled no
        reqs_per_event 20
        cas_enabled yes
        tcp_backlog 1024
        binding_protocol auto-negotiate
        auth_enabled_sasl no
        auth_enabled_ascii no
        item_size_max 1048576
        maxconns_fast yes
        hashpower_init 0
        slab_reassign yes
        slab_automove 1
        slab_automove_ratio 0.80
        slab_automove_window 10
        slab_chunk_max 8192
        lru_crawler yes
        lru_crawler_sleep 100
        lru_crawler_tocrawl 0
        tail_repair_time 0
        flush_enabled yes
        dump_enabled yes
        hash_algorithm rapidhash
        lru_maintainer_thread yes
        lru_segmented yes
        hot_lru_pct 20
        warm_lru_pct 40
        hot_max_factor 0.20
        warm_max_factor 2.00
        temp_lru no
        temporary_ttl 61
        idle_timeout 0
        watcher_logbuf_size 262144
        worker_logbuf_size 65536
        read_buf_mem_limit 0
        track_sizes yes
        inline_ascii_response no
        ssl_enabled no
        ssl_chain_cert (null)
        ssl_key (null)
        ssl_verify_mode 0
        ssl_keyformat 1
        ssl_ciphers NULL
        ssl_ca_cert NULL
        ssl_wbuf_size 16384
        ssl_session_cache no
        ssl_kernel_tls no
        ssl_min_version tlsv1.2
        num_napi_ids 0
        memory_file (null)
        client_flags_size 4
        layout compact
        memory_budget cache
        eviction s3
        bg_cpu_pct 5
        lock_memory no
        large_pages no
        drop_privileges no
    ";

    fn at_start(knobs: &Knobs) -> Present<'_> {
        Present {
            knobs,
            maxbytes: 64 << 20,
            verbosity: 0,
            oldest: 0,
            detail_enabled: false,
            chunk_max: 8192,
            locked: 0,
            huge: None,
        }
    }

    /// As a server is that was started with these settings.
    fn fresh(settings: &Settings) -> StatLines {
        format(settings, &at_start(&Knobs::new(settings)))
    }

    #[test]
    fn defaults_are_memcacheds() {
        let StatLines::Pairs(pairs) = fresh(&Settings::default()) else { panic!("not pairs") };
        let lines: Vec<String> = pairs.iter().map(|(n, v)| format!("{n} {v}")).collect();
        let expected: Vec<&str> =
            DEFAULTS.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_was_given_is_shown_in_memcacheds_words() {
        let settings = Settings {
            inter: Some("::1,127.0.0.1".into()),
            unix_socket: Some("/tmp/m.sock".into()),
            unix_mask: 0o777,
            evict: false,
            growth_factor: 1.1,
            prefix_delimiter: b'/',
            use_cas: false,
            protocol: Protocol::Binary,
            napi_ids: 3,
            hot_max_factor: 0.255,
            ..Settings::default()
        };
        let lines = fresh(&settings);
        assert_eq!(lines.value("inter"), "::1,127.0.0.1");
        assert_eq!(lines.value("num_threads_per_udp"), "1");
        assert_eq!(lines.value("domain_socket"), "/tmp/m.sock");
        assert_eq!(lines.value("umask"), "777");
        assert_eq!(lines.value("evictions"), "off");
        assert_eq!(lines.value("growth_factor"), "1.10");
        assert_eq!(lines.value("stat_key_prefix"), "/");
        assert_eq!(lines.value("cas_enabled"), "no");
        assert_eq!(lines.value("binding_protocol"), "binary");
        assert_eq!(lines.value("num_napi_ids"), "3");
        assert_eq!(lines.value("hot_max_factor"), "0.26");
        let ascii = Settings { protocol: Protocol::Ascii, ..Settings::default() };
        assert_eq!(fresh(&ascii).value("binding_protocol"), "ascii");
    }

    #[test]
    fn what_came_of_locking_is_shown() {
        let knobs = Knobs::new(&Settings::default());
        let shown = |lock_memory, locked| {
            let settings = Settings { lock_memory, ..Settings::default() };
            let present = Present { locked, ..at_start(&knobs) };
            format(&settings, &present).value("lock_memory").to_owned()
        };
        assert_eq!(shown(false, 0), "no");
        assert_eq!(shown(true, 6 << 20), "failed");
        assert_eq!(shown(true, 64 << 20), "yes");
    }

    #[test]
    fn changes_at_run_time_are_shown() {
        let knobs = Knobs::new(&Settings::default());
        knobs.automove.store(2, Relaxed);
        knobs.automove_ratio.set(0.5);
        knobs.automove_window.store(7, Relaxed);
        knobs.crawler.store(false, Relaxed);
        knobs.crawler_sleep.store(8, Relaxed);
        knobs.crawler_tocrawl.store(9, Relaxed);
        knobs.segmented.store(false, Relaxed);
        knobs.hot_pct.store(10, Relaxed);
        knobs.warm_pct.store(11, Relaxed);
        knobs.hot_factor.set(1.5);
        knobs.warm_factor.set(2.5);
        knobs.set_temporary_ttl(Some(12));
        let present = Present {
            knobs: &knobs,
            maxbytes: 8 << 20,
            verbosity: 2,
            oldest: 208,
            detail_enabled: true,
            chunk_max: 1024,
            locked: 8 << 20,
            huge: Some(2 << 20),
        };
        let lines = format(&Settings::default(), &present);
        assert_eq!(lines.value("maxbytes"), "8388608");
        assert_eq!(lines.value("verbosity"), "2");
        assert_eq!(lines.value("oldest"), "208");
        assert_eq!(lines.value("detail_enabled"), "yes");
        assert_eq!(lines.value("slab_chunk_max"), "1024");
        for (name, value) in [
            ("slab_automove", "2"),
            ("slab_automove_ratio", "0.50"),
            ("slab_automove_window", "7"),
            ("lru_crawler", "no"),
            ("lru_crawler_sleep", "8"),
            ("lru_crawler_tocrawl", "9"),
            ("lru_segmented", "no"),
            ("hot_lru_pct", "10"),
            ("warm_lru_pct", "11"),
            ("hot_max_factor", "1.50"),
            ("warm_max_factor", "2.50"),
            ("temp_lru", "yes"),
            ("temporary_ttl", "12"),
            ("eviction", "lru"),
            ("large_pages_bytes", "2097152"),
        ] {
            assert_eq!(lines.value(name), value, "{name}");
        }
    }
}
