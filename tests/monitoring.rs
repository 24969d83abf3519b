//! What monitoring reads: each figure that an exporter, an agent or a dashboard asks for is there,
//! in the form in which it is parsed. Asked of a running server, over the wire.

mod common;

use common::{Client, Server};
use std::collections::HashMap;

/// Of `stats`: memcached_exporter, Telegraf, Datadog's mcache, phpMemcachedAdmin, memcached-tool.
const GENERAL: &str = "pid uptime time pointer_size max_connections curr_connections
    total_connections rejected_connections connection_structures cmd_get cmd_set cmd_flush cmd_touch
    get_hits get_misses delete_misses delete_hits incr_misses incr_hits decr_misses decr_hits
    cas_misses cas_hits cas_badval touch_hits touch_misses store_too_large store_no_memory auth_cmds
    auth_errors bytes_read bytes_written limit_maxbytes accepting_conns listen_disabled_num threads
    conn_yields lru_crawler_starts bytes curr_items total_items evictions reclaimed
    expired_unfetched evicted_unfetched crawler_reclaimed crawler_items_checked moves_to_cold
    moves_to_warm moves_within_lru direct_reclaims hash_power_level hash_bytes hash_is_expanding
    slab_reassign_running slabs_moved log_worker_dropped log_watcher_skipped log_watcher_sent";
/// Of `stats settings`, those that memcached_exporter takes for numbers, and for yes or no.
const SETTINGS: &str = "maxconns lru_crawler_sleep lru_crawler_tocrawl hot_lru_pct warm_lru_pct
    maxbytes udpport num_threads item_size_max idle_timeout tail_repair_time chunk_size";
const FRACTIONS: &str = "growth_factor hot_max_factor warm_max_factor slab_automove_ratio";
const SWITCHES: &str = "lru_crawler lru_maintainer_thread lru_segmented cas_enabled flush_enabled
    dump_enabled detail_enabled maxconns_fast slab_reassign auth_enabled_sasl auth_enabled_ascii
    shutdown_command temp_lru";
/// Of a class in `stats items`, with `temporary_ttl`.
const ITEMS: &str = "number number_hot number_warm number_cold number_temp age_hot age_warm age
    mem_requested evicted evicted_nonzero evicted_time outofmemory tailrepairs reclaimed
    expired_unfetched evicted_unfetched crawler_reclaimed lrutail_reflocked moves_to_cold
    moves_to_warm moves_within_lru direct_reclaims hits_to_hot hits_to_warm hits_to_cold
    hits_to_temp";
/// Of a class in `stats slabs`; three of the tools look for `mem_requested` here.
const SLABS: &str = "chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks
    free_chunks_end mem_requested get_hits cmd_set delete_hits incr_hits decr_hits cas_hits
    cas_badval touch_hits";

/// Names of `wanted` that are not there, or whose value is not in its form.
fn faults(
    found: &HashMap<String, String>,
    prefix: &str,
    wanted: &str,
    in_form: fn(&str) -> bool,
) -> Vec<String> {
    let names = wanted.split_whitespace().map(|name| format!("{prefix}{name}"));
    names.filter(|name| !found.get(name).is_some_and(|value| in_form(value))).collect()
}

fn is_count(text: &str) -> bool {
    text.parse::<u64>().is_ok()
}

/// Two digits behind a dot.
fn is_fraction(text: &str) -> bool {
    text.split_once('.').is_some_and(|(whole, part)| is_count(whole) && part.len() == 2)
}

/// Seconds and six digits of microseconds: the exporter splits them at the dot.
fn is_cpu_time(text: &str) -> bool {
    let digits = |part: &str| part.len() == 6 && is_count(part);
    text.split_once('.').is_some_and(|(seconds, micros)| is_count(seconds) && digits(micros))
}

fn is_switch(text: &str) -> bool {
    matches!(text, "yes" | "no")
}

fn filled() -> Server {
    let server = Server::start(&["-o", "temporary_ttl=61"]);
    let mut client = server.connect();
    for i in 0..100 {
        let value = "v".repeat(i * 50);
        let set = format!("set k{i} 0 {} {}\r\n{value}\r\n", i % 3 * 50, value.len());
        client.exchange(set.as_bytes(), b"STORED\r\n");
    }
    server
}

#[test]
fn the_server_as_a_whole() {
    let server = filled();
    let found = server.connect().stats("");
    assert_eq!(faults(&found, "", GENERAL, is_count), [""; 0]);
    assert_eq!(faults(&found, "", "rusage_user rusage_system", is_cpu_time), [""; 0]);
    assert_eq!(found["version"].split('.').filter(|part| is_count(part)).count(), 3);
    assert_eq!((found["pointer_size"].as_str(), found["cmd_set"].as_str()), ("64", "100"));
    // phpMemcachedAdmin divides by it.
    assert_ne!(found["uptime"], "0");
    assert!(!found["libevent"].is_empty());
}

#[test]
fn its_settings() {
    let server = filled();
    let found = server.connect().stats(" settings");
    assert_eq!(faults(&found, "", SETTINGS, is_count), [""; 0]);
    assert_eq!(faults(&found, "", FRACTIONS, is_fraction), [""; 0]);
    assert_eq!(faults(&found, "", SWITCHES, is_switch), [""; 0]);
    assert!(matches!(found["evictions"].as_str(), "on" | "off"));
}

#[test]
fn each_class() {
    let server = filled();
    let mut client = server.connect();
    let (items, slabs) = (client.stats(" items"), client.stats(" slabs"));
    let ids: Vec<&str> = slabs.keys().filter_map(|name| name.strip_suffix(":chunk_size")).collect();
    assert!(ids.len() > 10 && ids.iter().all(|id| is_count(id)), "{ids:?}");
    let mut stored = 0;
    for id in &ids {
        assert_eq!(faults(&slabs, &format!("{id}:"), SLABS, is_count), [""; 0]);
        let prefix = format!("items:{id}:");
        if let Some(number) = items.get(&format!("{prefix}number")) {
            assert_eq!(faults(&items, &prefix, ITEMS, is_count), [""; 0]);
            stored += number.parse::<u64>().expect("a number");
        }
    }
    assert_eq!(stored, 100);
    assert_eq!(faults(&slabs, "", "active_slabs total_malloced", is_count), [""; 0]);
    assert_eq!(slabs["active_slabs"], ids.len().to_string());
}

#[test]
fn the_sizes_of_items() {
    let server = filled();
    let sizes = server.connect().stats(" sizes");
    let step = |size: &String| size.parse::<u64>().is_ok_and(|size| size % 32 == 0);
    assert!(sizes.keys().all(step), "{sizes:?}");
    let counts = sizes.values().map(|count| count.parse::<u64>().expect("a count"));
    assert_eq!(counts.sum::<u64>(), 100);
}

/// The keys of `stats cachedump`.
fn cachedump(client: &mut Client, class: u32, limit: u32) -> Vec<String> {
    client.send(format!("stats cachedump {class} {limit}\r\n").as_bytes());
    let lines = std::iter::repeat_with(|| client.line()).take_while(|line| line != "END");
    let key = |line: String| line.strip_prefix("ITEM ")?.split(' ').next().map(str::to_owned);
    lines.map(|line| key(line).expect("an item")).collect()
}

/// libmemcached knows memcached's ids and no more.
#[test]
fn a_dump_by_memcacheds_class_ids_misses_nothing() {
    for (layout, beyond) in [("layout=compact", true), ("layout=memcached", false)] {
        let server = Server::start(&["-o", layout]);
        let mut client = server.connect();
        let sizes = (0..20).map(|n| 1 << n);
        for len in sizes.clone() {
            let set = format!("set k{len} 0 0 {len}\r\n{}\r\n", "v".repeat(len));
            client.exchange(set.as_bytes(), b"STORED\r\n");
        }
        let mut found: Vec<_> = (0..64).flat_map(|id| cachedump(&mut client, id, 0)).collect();
        let mut wanted: Vec<_> = sizes.map(|len| format!("k{len}")).collect();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "{layout}");
        assert_eq!(cachedump(&mut client, 0, 2).len(), if beyond { 2 } else { 0 }, "{layout}");
    }
}
