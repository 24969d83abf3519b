//! Every sub-option of `-o`: its name, what it takes, what it sets or why it is refused.

use super::resolve::{Draft, PAGE};
use super::settings::{Eviction, Layout};
use super::size::{KIB, MIB, number, real, size};
use super::tls;

/// One sub-option.
pub(super) struct SubOption {
    pub(super) name: &'static str,
    takes: Takes,
    effect: Effect,
    /// What stands for its value in the help.
    pub(super) placeholder: &'static str,
    /// Its line of the help; without one it is known but not shown.
    pub(super) help: &'static str,
}

/// What may follow the name.
enum Takes {
    Nothing(fn(&mut Draft)),
    Value(fn(&mut Draft, &str) -> Result<(), String>),
    Perhaps(fn(&mut Draft, Option<&str>) -> Result<(), String>),
    /// Known, but not to be had; says what it belongs to.
    Refused(&'static str),
}

/// What an accepted sub-option does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Honoured,
    /// Of no consequence, for the reason given: noted with -v.
    NoOp(&'static str),
    /// It would steer something in memcached, but steers nothing here, for the reason given: a
    /// warning says so.
    Idle(&'static str),
}

/// The largest `udp_reply_max`, bytes: some more than this could be numbered in datagrams.
const UDP_REPLY_LIMIT: u64 = 64 << 20;
const EXTERNAL_STORAGE: &str = "external storage";
const PROXY: &str = "the proxy";
const OWN_HASH: &str = "rustcached has one seeded hash of its own";
const NO_QUEUE: &str = "WARM is what was read of late, not a queue that could be bounded";
const NO_AGE: &str = "what leaves probation is decided by reads, not by age";
const ONE_RESPONSE_PATH: &str = "it chose between response paths that no longer exist";

const fn flag(name: &'static str, set: fn(&mut Draft), help: &'static str) -> SubOption {
    SubOption { name, takes: Takes::Nothing(set), effect: Effect::Honoured, placeholder: "", help }
}

const fn value(
    name: &'static str,
    placeholder: &'static str,
    set: fn(&mut Draft, &str) -> Result<(), String>,
    help: &'static str,
) -> SubOption {
    SubOption { name, takes: Takes::Value(set), effect: Effect::Honoured, placeholder, help }
}

const fn refused(name: &'static str, part: &'static str) -> SubOption {
    let takes = Takes::Refused(part);
    SubOption { name, takes, effect: Effect::Honoured, placeholder: "", help: "" }
}

/// Accepted with or without a value, for the sake of old command lines.
const fn no_op(name: &'static str, why: &'static str) -> SubOption {
    let takes = Takes::Perhaps(|_, _| Ok(()));
    SubOption { name, takes, effect: Effect::NoOp(why), placeholder: "", help: "" }
}

impl SubOption {
    const fn idle(self, why: &'static str) -> SubOption {
        SubOption { effect: Effect::Idle(why), ..self }
    }

    const fn without_effect(self, why: &'static str) -> SubOption {
        SubOption { effect: Effect::NoOp(why), ..self }
    }

    /// True where `stats settings` may show it but nothing else changes.
    pub(super) fn steers_nothing(&self) -> bool {
        matches!(self.effect, Effect::Idle(_))
    }
}

/// All of memcached's sub-options, and ours: `layout`, `memory_budget`, `eviction`, `bg_cpu_pct`,
/// `checksum`, `memory_file_discard` and `udp_...`.
pub(super) const TABLE: &[SubOption] = &[
    value("layout", "compact|memcached", layout, "item and page layout (default: compact)"),
    value("memory_budget", "cache|total", memory_budget, "what -m bounds (default: cache)"),
    value("eviction", "s3|lru|sieve", eviction, "what goes when memory is full (default: s3)"),
    flag("maxconns_fast", |d| d.settings.maxconns_fast = true, ""),
    flag(
        "no_maxconns_fast",
        |d| d.settings.maxconns_fast = false,
        "over -c, let clients wait instead of closing them with an error",
    ),
    value("hashpower", "12..32", hashpower, "index sized for 2^n buckets at start (default: auto)"),
    flag("no_hashexpand", |d| d.settings.no_hashexpand = true, "never grow the index"),
    value("hash_algorithm", "", hash_algorithm, "").without_effect(OWN_HASH),
    value("tail_repair_time", "", tail_repair_time, "")
        .without_effect("no client can hold on to the tail of a queue"),
    value("slab_sizes", "a-b-c", slab_sizes, "chunk sizes in bytes, by memcached's formula"),
    value("slab_chunk_max", "KB", slab_chunk_max, "largest chunk, by memcached's formula"),
    flag("no_chunked_items", no_chunked_items, "chunks of a whole page (layout=memcached)"),
    flag("track_sizes", |d| d.settings.track_sizes = true, "")
        .without_effect("item sizes are always tracked"),
    value("idle_timeout", "s", idle_timeout, "close connections that are idle for longer"),
    value(
        "read_buf_mem_limit",
        "MB",
        read_buf_mem_limit,
        "for clients' requests and answers in hand (default: 0, none)",
    ),
    no_op("resp_obj_mem_limit", "memcached gave it up too"),
    no_op("inline_ascii_resp", ONE_RESPONSE_PATH),
    no_op("no_inline_ascii_resp", ONE_RESPONSE_PATH),
    no_op("modern", "its defaults are everyone's now"),
    flag("no_modern", no_modern, "memcached 1.4's defaults"),
    flag("slab_reassign", |d| d.settings.slab_reassign = true, ""),
    flag("no_slab_reassign", |d| d.settings.slab_reassign = false, "do not move slab pages"),
    SubOption {
        name: "slab_automove",
        takes: Takes::Perhaps(slab_automove),
        effect: Effect::Honoured,
        placeholder: "0..2",
        help: "how eagerly pages move between slab classes (default: 1)",
    },
    flag("no_slab_automove", |d| d.settings.slab_automove = 0, ""),
    value(
        "slab_automove_ratio",
        "0..1",
        slab_automove_ratio,
        "moves where giver's gain < ratio x taker's (default: 0.8)",
    ),
    value(
        "slab_automove_window",
        "3..1800",
        slab_automove_window,
        "seconds of quiet until spare pages go (default: 10)",
    ),
    value("slab_automove_freeratio", "", slab_automove_freeratio, "")
        .idle("only external storage keeps such a reserve"),
    value(
        "bg_cpu_pct",
        "1..100",
        bg_cpu_pct,
        "background work beside clients, % of a core (default: 5)",
    ),
    flag("lru_crawler", |d| d.settings.lru_crawler = true, ""),
    flag("no_lru_crawler", |d| d.settings.lru_crawler = false, "no crawler"),
    value("lru_crawler_sleep", "us", lru_crawler_sleep, "0 to 1000000 (default: 100)"),
    value("lru_crawler_tocrawl", "n", lru_crawler_tocrawl, "items a run (default: 0, all)"),
    flag("lru_maintainer", |d| lru_maintainer(d, true), ""),
    flag(
        "no_lru_maintainer",
        |d| lru_maintainer(d, false),
        "flat LRU; with no_lru_crawler: no reclaimer",
    ),
    value(
        "hot_lru_pct",
        "1..79",
        hot_lru_pct,
        "half of it is probation's share at first (default: 20)",
    ),
    value("warm_lru_pct", "1..79", warm_lru_pct, "per cent of a class for WARM (default: 40)")
        .idle(NO_QUEUE),
    value("hot_max_factor", "f", hot_max_factor, "HOT's idle age by COLD's (default: 0.2)")
        .idle(NO_AGE),
    value("warm_max_factor", "f", warm_max_factor, "WARM's idle age by COLD's (default: 2.0)")
        .idle(NO_QUEUE),
    value("temporary_ttl", "s", temporary_ttl, "items to live no longer go last (default: off)"),
    value("watcher_logbuf_size", "KB", watcher_logbuf, "buffer of a watcher (default: 256)"),
    value("worker_logbuf_size", "KB", worker_logbuf, "buffer of a worker (default: 64)"),
    value("udp_reply_max", "KB", udp_reply_max, "answers to one UDP datagram (default: 128)"),
    value(
        "udp_reply_rate",
        "KB",
        udp_reply_rate,
        "UDP answers beyond requests, per second and network (default: 1024)",
    ),
    flag(
        "memory_file_discard",
        |d| d.settings.memory_file_discard = true,
        "with -e: start cold, whatever is in the file",
    ),
    flag("checksum", |d| d.settings.checksum = true, "with -e: values are checked when it is read"),
    flag("no_drop_privileges", |d| d.settings.drop_privileges = false, ""),
    flag(
        "drop_privileges",
        |d| d.settings.drop_privileges = true,
        "confine system calls (default: no_drop_privileges)",
    ),
    RELAXED_PRIVILEGES,
    refused("sock_cookie_id", "FreeBSD's socket cookies"),
    value(
        "ssl_chain_cert",
        "FILE",
        tls::chain_cert,
        "certificate of the server and its chain, PEM",
    ),
    value("ssl_key", "FILE", tls::key, "its private key (default: in the file of the chain)"),
    value("ssl_keyformat", "1|2", tls::key_format, "of ssl_key: 1 is PEM, 2 is DER (default: 1)"),
    value(
        "ssl_verify_mode",
        "0..3",
        tls::verify_mode,
        "certificates of clients: none, if any, required, as 2 (default: 0)",
    ),
    value("ssl_ca_cert", "FILE", tls::ca_cert, "who may have signed those, PEM"),
    value("ssl_ciphers", "A:B", tls::ciphers, "ciphers of TLS 1.2, by OpenSSL's names"),
    value("ssl_min_version", "2|3", tls::min_version, "TLS 1.2 or 1.3 (default: 2)"),
    value("ssl_wbuf_size", "KB", tls::wbuf_size, "answers encrypted at once (default: 16)"),
    flag(
        "ssl_session_cache",
        |d| d.settings.tls.session_cache = true,
        "keep TLS sessions here instead of in tickets",
    ),
    flag("ssl_kernel_tls", |_| (), "").idle("the process encrypts for itself"),
    refused("ext_path", EXTERNAL_STORAGE),
    refused("ext_page_size", EXTERNAL_STORAGE),
    refused("ext_wbuf_size", EXTERNAL_STORAGE),
    refused("ext_threads", EXTERNAL_STORAGE),
    refused("ext_io_depth", EXTERNAL_STORAGE),
    refused("ext_item_size", EXTERNAL_STORAGE),
    refused("ext_item_age", EXTERNAL_STORAGE),
    refused("ext_low_ttl", EXTERNAL_STORAGE),
    refused("ext_recache_rate", EXTERNAL_STORAGE),
    refused("ext_compact_under", EXTERNAL_STORAGE),
    refused("ext_drop_under", EXTERNAL_STORAGE),
    refused("ext_max_sleep", EXTERNAL_STORAGE),
    refused("ext_max_frag", EXTERNAL_STORAGE),
    refused("ext_drop_unread", EXTERNAL_STORAGE),
    refused("proxy_config", PROXY),
    refused("proxy_arg", PROXY),
    refused("proxy_uring", PROXY),
    refused("proxy_memprofile", PROXY),
];

/// memcached knows it in debug builds only, and its test suite gives it to every server.
const RELAXED_PRIVILEGES: SubOption = if cfg!(feature = "debug-commands") {
    no_op("relaxed_privileges", "a debug build takes no other system calls")
} else {
    refused("relaxed_privileges", "a debug build")
};

/// Applies one `-o` list, its sub-options in their order.
pub(super) fn apply(draft: &mut Draft, list: &str) -> Result<(), String> {
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, value) = match item.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (item, None),
        };
        let option = TABLE
            .iter()
            .find(|option| option.name == name)
            .ok_or_else(|| format!("-o {name}: there is no such option"))?;
        option.set(draft, value).map_err(|e| format!("-o {name}: {e}"))?;
        match option.effect {
            Effect::Honoured => (),
            Effect::NoOp(why) => draft.note(format!("-o {name} has no effect: {why}")),
            Effect::Idle(why) => draft.warn(format!("-o {name} steers nothing: {why}")),
        }
    }
    Ok(())
}

impl SubOption {
    fn set(&self, draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
        match self.takes {
            Takes::Nothing(set) => {
                // memcached takes `lru_crawler=0` for `lru_crawler`, so refusing the value would
                // break command lines that run today.
                if let Some(value) = value {
                    draft.warn(format!("-o {} takes no value: '{value}' is ignored", self.name));
                }
                set(draft);
                Ok(())
            }
            Takes::Value(set) => set(draft, value.ok_or("a value is missing")?),
            Takes::Perhaps(set) => set(draft, value),
            Takes::Refused(part) => Err(format!("{part} is not available in this release")),
        }
    }
}

fn layout(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.layout = match text {
        "compact" => Layout::Compact,
        "memcached" => Layout::Memcached,
        _ => return Err(format!("must be compact or memcached, not '{text}'")),
    };
    Ok(())
}

fn memory_budget(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.memory_total = match text {
        "cache" => false,
        "total" => true,
        _ => return Err(format!("must be cache or total, not '{text}'")),
    };
    Ok(())
}

fn eviction(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.eviction = match text {
        "s3" => Eviction::S3,
        "lru" => Eviction::Lru,
        "sieve" => Eviction::Sieve,
        _ => return Err(format!("must be s3, lru or sieve, not '{text}'")),
    };
    Ok(())
}

fn hashpower(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.hashpower_init = number(text, 12..=32)?;
    Ok(())
}

fn hash_algorithm(_: &mut Draft, text: &str) -> Result<(), String> {
    match text {
        "jenkins" | "murmur3" | "xxh3" => Ok(()),
        _ => Err(format!("must be jenkins, murmur3 or xxh3, not '{text}'")),
    }
}

fn tail_repair_time(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.tail_repair_time = number(text, 10..=i32::MAX as u32)?;
    Ok(())
}

fn slab_sizes(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.slab_sizes = Some(text.to_owned());
    Ok(())
}

fn slab_chunk_max(draft: &mut Draft, text: &str) -> Result<(), String> {
    let bytes = size(text, KIB)?;
    if !bytes.is_multiple_of(KIB) || !(KIB..=u64::from(PAGE)).contains(&bytes) {
        return Err(format!("must be from 1 to 1024 kilobytes, not '{text}'"));
    }
    draft.chunk_max = bytes as u32;
    draft.chunk_max_given = true;
    Ok(())
}

fn no_chunked_items(draft: &mut Draft) {
    draft.chunk_max = PAGE;
    draft.whole_pages = Some("no_chunked_items");
}

/// Unlike memcached's it leaves the hash function alone.
fn no_modern(draft: &mut Draft) {
    if !draft.chunk_max_given {
        draft.chunk_max = PAGE;
        draft.whole_pages = Some("no_modern");
    }
    let settings = &mut draft.settings;
    settings.slab_reassign = false;
    settings.slab_automove = 0;
    settings.maxconns_fast = false;
    settings.lru_crawler = false;
    lru_maintainer(draft, false);
}

fn lru_maintainer(draft: &mut Draft, on: bool) {
    draft.settings.lru_maintainer = on;
    draft.settings.lru_segmented = on;
}

fn slab_automove(draft: &mut Draft, text: Option<&str>) -> Result<(), String> {
    draft.settings.slab_automove = text.map_or(Ok(1), |text| number(text, 0..=2))?;
    Ok(())
}

fn slab_automove_ratio(draft: &mut Draft, text: &str) -> Result<(), String> {
    let ratio = real(text, 0.0)?;
    if ratio > 1.0 {
        return Err(format!("must not exceed 1, not '{text}'"));
    }
    draft.settings.slab_automove_ratio = ratio;
    Ok(())
}

fn slab_automove_window(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.slab_automove_window = number(text, 3..=1800)?;
    Ok(())
}

/// Only external storage keeps such a reserve, so nothing is left to remember.
fn slab_automove_freeratio(_: &mut Draft, text: &str) -> Result<(), String> {
    real(text, 0.0).map(drop)
}

fn lru_crawler_sleep(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.lru_crawler_sleep = number(text, 0..=1_000_000)?;
    Ok(())
}

fn lru_crawler_tocrawl(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.lru_crawler_tocrawl = number(text, 0..=u32::MAX)?;
    Ok(())
}

fn bg_cpu_pct(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.bg_cpu_pct = number(text, 1..=100)?;
    Ok(())
}

fn hot_lru_pct(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.hot_lru_pct = number(text, 1..=79)?;
    draft.hot_given = true;
    Ok(())
}

fn warm_lru_pct(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.warm_lru_pct = number(text, 1..=79)?;
    Ok(())
}

fn hot_max_factor(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.hot_max_factor = real(text, 0.0)?;
    Ok(())
}

fn warm_max_factor(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.warm_max_factor = real(text, 0.0)?;
    Ok(())
}

fn temporary_ttl(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.temporary_ttl = number(text, 0..=i32::MAX as u32)?;
    draft.settings.temp_lru = true;
    Ok(())
}

fn idle_timeout(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.idle_timeout = number(text, 0..=i32::MAX as u32)?;
    Ok(())
}

fn read_buf_mem_limit(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.read_buf_mem_limit = u64::from(number(text, 0..=u32::MAX)?) * MIB;
    Ok(())
}

fn udp_reply_max(draft: &mut Draft, text: &str) -> Result<(), String> {
    let bytes = size(text, KIB)?;
    if !(KIB..=UDP_REPLY_LIMIT).contains(&bytes) {
        return Err(format!("must be from 1 to {} kilobytes, not '{text}'", UDP_REPLY_LIMIT / KIB));
    }
    draft.settings.udp.reply_max = bytes as u32;
    Ok(())
}

fn udp_reply_rate(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.udp.reply_rate = bytes_of_kb(text)?;
    Ok(())
}

fn watcher_logbuf(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.watcher_logbuf_size = bytes_of_kb(text)?;
    Ok(())
}

fn worker_logbuf(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.worker_logbuf_size = bytes_of_kb(text)?;
    Ok(())
}

/// Kilobytes, or a size with a unit.
fn bytes_of_kb(text: &str) -> Result<u32, String> {
    u32::try_from(size(text, KIB)?).map_err(|_| format!("'{text}' is too large"))
}

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::*;
    use std::collections::HashSet;

    fn settings(list: &str) -> Result<Settings, String> {
        let mut draft = Draft::default();
        apply(&mut draft, list)?;
        draft.resolve()
    }

    /// Each with a value that memcached takes, or none.
    const ACCEPTED: &[&str] = &[
        "layout=compact",
        "layout=memcached",
        "memory_budget=cache",
        "memory_budget=total",
        "eviction=sieve",
        "maxconns_fast",
        "no_maxconns_fast",
        "hashpower=12",
        "hashpower=32",
        "no_hashexpand",
        "hash_algorithm=murmur3",
        "hash_algorithm=xxh3",
        "hash_algorithm=jenkins",
        "tail_repair_time=10",
        "slab_reassign",
        "no_slab_reassign",
        "slab_automove",
        "slab_automove=0",
        "slab_automove=2",
        "no_slab_automove",
        "slab_automove_ratio=1",
        "slab_automove_window=3",
        "slab_automove_window=1800",
        "slab_automove_freeratio=0.01",
        "slab_sizes=100-200",
        "slab_chunk_max=512",
        "no_chunked_items",
        "track_sizes",
        "lru_crawler",
        "no_lru_crawler",
        "lru_crawler_sleep=0",
        "lru_crawler_sleep=1000000",
        "lru_crawler_tocrawl=4294967295",
        "lru_maintainer",
        "no_lru_maintainer",
        "bg_cpu_pct=1",
        "bg_cpu_pct=100",
        "hot_lru_pct=1",
        "warm_lru_pct=60",
        "hot_max_factor=0.1",
        "warm_max_factor=3",
        "temporary_ttl=61",
        "idle_timeout=0",
        "idle_timeout=3",
        "read_buf_mem_limit=0",
        "read_buf_mem_limit=1",
        "resp_obj_mem_limit",
        "resp_obj_mem_limit=8",
        "watcher_logbuf_size=8",
        "worker_logbuf_size=1m",
        "udp_reply_max=1",
        "udp_reply_max=64m",
        "udp_reply_rate=0",
        "udp_reply_rate=4095m",
        "inline_ascii_resp",
        "no_inline_ascii_resp",
        "memory_file_discard",
        "checksum",
        "modern",
        "no_modern",
        "drop_privileges",
        "no_drop_privileges",
        "ssl_chain_cert=a",
        "ssl_key=a",
        "ssl_verify_mode=0",
        "ssl_keyformat=1",
        "ssl_ciphers=a",
        "ssl_ca_cert=a",
        "ssl_wbuf_size=16",
        "ssl_session_cache",
        "ssl_kernel_tls",
        "ssl_min_version=2",
    ];

    const REFUSED: &[&str] = &[
        "sock_cookie_id=1",
        "ext_path=/tmp/x:64m",
        "ext_page_size=8",
        "ext_wbuf_size=8",
        "ext_threads=1",
        "ext_io_depth=1",
        "ext_item_size=512",
        "ext_item_age=2",
        "ext_low_ttl=0",
        "ext_recache_rate=1",
        "ext_compact_under=1",
        "ext_drop_under=1",
        "ext_max_sleep=1",
        "ext_max_frag=0.9",
        "ext_drop_unread",
        "proxy_config=a.lua",
        "proxy_arg=a",
        "proxy_uring",
        "proxy_memprofile",
    ];

    #[test]
    fn the_table_names_everything_once() {
        let names: HashSet<_> = TABLE.iter().map(|option| option.name).collect();
        assert_eq!(names.len(), TABLE.len(), "a name occurs twice");
        let tried: HashSet<_> = ACCEPTED
            .iter()
            .chain(REFUSED)
            .chain(&["relaxed_privileges"])
            .filter_map(|item| item.split('=').next())
            .collect();
        assert_eq!(names, tried);
        for option in TABLE {
            let valued = matches!(option.takes, Takes::Value(_) | Takes::Perhaps(_));
            assert!(option.help.is_empty() || valued != option.placeholder.is_empty());
        }
    }

    #[test]
    fn every_option_is_accepted_or_refused_by_name() {
        for item in ACCEPTED {
            assert!(settings(item).is_ok(), "{item}: {:?}", settings(item).err());
        }
        for item in REFUSED {
            let name = item.split('=').next().unwrap_or(item);
            let error = settings(item).expect_err(item);
            assert!(error.starts_with(&format!("-o {name}: ")), "{error}");
            assert!(error.contains("not available in this release"), "{error}");
        }
        let relaxed = settings("relaxed_privileges");
        assert_eq!(relaxed.is_ok(), cfg!(feature = "debug-commands"), "{:?}", relaxed.err());
    }

    #[test]
    fn bad_values_name_their_option() {
        for item in [
            "hashpower",
            "hashpower=11",
            "hashpower=33",
            "hash_algorithm=md5",
            "hash_algorithm",
            "tail_repair_time=9",
            "slab_automove=3",
            "slab_automove=-1",
            "ssl_chain_cert",
            "ssl_key=",
            "ssl_verify_mode=4",
            "ssl_keyformat=3",
            "ssl_wbuf_size=0",
            "ssl_min_version=4",
            "slab_automove_ratio=0",
            "slab_automove_ratio=1.1",
            "slab_automove_window=2",
            "slab_automove_window=1801",
            "slab_automove_freeratio=x",
            "slab_sizes",
            "slab_sizes=1-2",
            "slab_chunk_max=0",
            "slab_chunk_max=1025",
            "slab_chunk_max=16384b4",
            "slab_chunk_max",
            "layout=slab",
            "lru_crawler_sleep=1000001",
            "lru_crawler_tocrawl=4294967296",
            "bg_cpu_pct=0",
            "bg_cpu_pct=101",
            "hot_lru_pct=0",
            "hot_lru_pct=80",
            "warm_lru_pct=80",
            "hot_max_factor=0",
            "warm_max_factor=nan",
            "temporary_ttl=-1",
            "read_buf_mem_limit=1m",
            "watcher_logbuf_size=4194304",
            "worker_logbuf_size=x",
            "udp_reply_max=0",
            "udp_reply_max=65537",
            "udp_reply_rate=4096m",
            "udp_reply_rate=-1",
            "nonsense",
            "nonsense=1",
        ] {
            let name = item.split('=').next().unwrap_or(item);
            let error = settings(item).expect_err(item);
            assert!(error.starts_with(&format!("-o {name}: ")), "{item}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn values_reach_the_settings() {
        let s = settings(
            "hashpower=20,slab_automove=2,slab_automove_ratio=0.5,slab_automove_window=30,\
             lru_crawler_sleep=7,lru_crawler_tocrawl=8,hot_lru_pct=10,warm_lru_pct=70,\
             hot_max_factor=0.3,warm_max_factor=4,temporary_ttl=99,tail_repair_time=60,\
             watcher_logbuf_size=8,worker_logbuf_size=16,no_hashexpand,track_sizes,\
             bg_cpu_pct=20,idle_timeout=9,read_buf_mem_limit=4096,\
             udp_reply_max=32,udp_reply_rate=2m,drop_privileges",
        )
        .expect("all of them are good");
        assert_eq!((s.hashpower_init, s.slab_automove, s.slab_automove_window), (20, 2, 30));
        assert_eq!((s.slab_automove_ratio, s.hot_max_factor, s.warm_max_factor), (0.5, 0.3, 4.0));
        assert_eq!((s.lru_crawler_sleep, s.lru_crawler_tocrawl), (7, 8));
        assert_eq!((s.hot_lru_pct, s.warm_lru_pct), (10, 70));
        assert_eq!((s.temp_lru, s.temporary_ttl, s.tail_repair_time), (true, 99, 60));
        assert_eq!((s.watcher_logbuf_size, s.worker_logbuf_size), (8 << 10, 16 << 10));
        assert!(s.no_hashexpand && s.track_sizes && s.drop_privileges);
        assert_eq!((s.idle_timeout, s.read_buf_mem_limit), (9, 4 << 30));
        assert_eq!((s.udp.reply_max, s.udp.reply_rate), (32 << 10, 2 << 20));
        assert_eq!((s.bg_cpu_pct, Settings::default().bg_cpu_pct), (20, 5));
    }

    #[test]
    fn later_sub_options_override_earlier_ones() {
        let s = settings("no_modern").expect("no_modern");
        assert!(!(s.slab_reassign || s.maxconns_fast || s.lru_segmented));
        assert!(!(s.lru_crawler || s.lru_maintainer));
        assert_eq!((s.slab_automove, s.slab_chunk_size_max), (0, 1 << 20));
        let s = settings("drop_privileges,no_drop_privileges").expect("both");
        assert!(!s.drop_privileges);
        let s = settings("no_modern,lru_crawler,lru_maintainer,maxconns_fast").expect("mixed");
        assert!(s.lru_crawler && s.lru_maintainer && s.lru_segmented && s.maxconns_fast);
        for list in ["no_modern,slab_chunk_max=4", "slab_chunk_max=4,no_modern"] {
            let s = settings(list).expect(list);
            assert_eq!((s.slab_chunk_max, s.slab_chunk_size_max), (Some(4096), 4096), "{list}");
        }
    }

    #[test]
    fn the_ladder_is_memcacheds_only_where_asked_for() {
        let ladder = |list| settings(list).map(|s| s.memcached_ladder());
        assert_eq!(ladder(""), Ok(false));
        assert_eq!(ladder("no_modern"), Ok(false));
        assert_eq!(ladder("layout=memcached"), Ok(true));
        assert_eq!(ladder("slab_sizes=100-200"), Ok(true));
        assert_eq!(ladder("slab_chunk_max=16"), Ok(true));
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let twice = "warm_lru_pct=8,modern,warm_lru_pct=9,lru_crawler=1";
        let s = settings(twice).expect("all good");
        let warned = |part: &str| s.warnings.iter().filter(|w| w.contains(part)).count();
        assert_eq!(warned("-o warm_lru_pct steers nothing"), 1);
        assert_eq!(warned("takes no value"), 1);
        assert_eq!(s.notes.len(), 1, "{:?}", s.notes);
        let honoured = "eviction=s3,hot_lru_pct=30,slab_automove=2,slab_automove_ratio=0.5,\
            slab_automove_window=30,lru_crawler,lru_crawler_sleep=1,lru_crawler_tocrawl=9,\
            temporary_ttl=9,bg_cpu_pct=9,hashpower=20,slab_reassign,watcher_logbuf_size=8,\
            worker_logbuf_size=8";
        let s = settings(honoured).expect("good");
        assert!(s.warnings.is_empty() && s.notes.is_empty(), "{:?} {:?}", s.warnings, s.notes);
        for idle in [
            "warm_lru_pct=30",
            "hot_max_factor=0.3",
            "warm_max_factor=3",
            "slab_automove_freeratio=0.1",
            "eviction=lru,hot_lru_pct=30",
            "hot_lru_pct=30,eviction=sieve",
            "hot_lru_pct=30,no_lru_maintainer",
        ] {
            let s = settings(idle).expect(idle);
            assert_eq!((s.warnings.len(), s.notes.len()), (1, 0), "{idle}: {:?}", s.warnings);
            assert!(s.warnings[0].contains("steers nothing"), "{:?}", s.warnings);
        }
        let s = settings("no_slab_reassign,no_slab_automove,no_lru_crawler,modern").expect("good");
        assert!(s.warnings.is_empty(), "{:?}", s.warnings);
        let s = settings("no_chunked_items").expect("good");
        assert!(s.warnings[0].contains("layout=memcached"));
        assert!(settings("no_chunked_items,layout=memcached").is_ok_and(|s| s.warnings.is_empty()));
    }

    #[test]
    fn empty_places_in_a_list_are_skipped() {
        assert_eq!(settings("modern,, no_maxconns_fast,").map(|s| s.maxconns_fast), Ok(false));
    }
}
