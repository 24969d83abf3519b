//! `stats memory`: what the process may use, what it does, and what for. A topic of our own.

use super::{Rows, StatLines};
use crate::config::{CONNECTION, Footprint, PREFIX, TLS_CONNECTION};
use crate::privileges;
use crate::store::{MemoryInfo, Store};
use std::sync::atomic::Ordering::Relaxed;

/// Bytes, but for what says otherwise.
#[derive(Default)]
struct Memory {
    /// The most that the process may use: the README's formula.
    max: u64,
    /// What it uses now, as the system counts.
    resident: u64,
    cache: MemoryInfo,
    buffers: u64,
    buffers_max: u64,
    /// Clients.
    connections: u64,
    /// Those of them that speak TLS.
    tls: u64,
    /// Prefixes of `stats detail`.
    prefixes: u64,
    beside: Footprint,
}

pub(super) fn of(store: &Store) -> StatLines {
    let (settings, stats, cache) = (store.settings(), store.stats(), store.memory_info());
    let prefixes = stats.prefixes.count() as u64;
    let present = |gauge: i64| gauge.max(0) as u64;
    format(&Memory {
        max: settings.process_max(cache.limit, cache.classes, cache.page, prefixes),
        resident: privileges::resident_bytes(),
        buffers: stats.buffers.bytes(),
        buffers_max: settings.buffers_max(),
        connections: present(stats.server.curr_connections.load(Relaxed)),
        tls: present(stats.server.tls.connections.load(Relaxed)),
        prefixes,
        beside: Footprint::of(settings),
        cache,
    })
}

fn format(m: &Memory) -> StatLines {
    let mut rows = Rows::default();
    rows.put_all([
        ("process_max", m.max),
        ("process_resident", m.resident),
        ("cache_max", m.cache.cache_limit),
        ("pages", m.cache.pages),
        ("pages_pinned", m.cache.pinned),
        ("over_limit", m.cache.over_limit),
        ("pages_arriving", m.cache.arriving),
        ("index", m.cache.index),
        ("ghosts", m.cache.ghosts),
        ("queues", m.cache.queues),
        ("buffers", m.buffers),
        ("buffers_max", m.buffers_max),
        ("connections", m.connections * CONNECTION),
        ("connections_max", m.beside.connections),
        ("tls", m.tls * TLS_CONNECTION),
        ("tls_max", m.beside.tls),
        ("prefixes", m.prefixes * PREFIX),
        ("prefixes_max", m.beside.prefixes),
        ("threads_max", m.beside.threads),
        ("program_max", m.beside.program),
    ]);
    rows.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    /// What the README works out.
    #[test]
    fn the_worked_example_is_right() {
        let readme = include_str!("../../../README.md");
        let settings = Settings { maxbytes: 1 << 30, threads: 4, ..Settings::default() };
        let beside = Footprint { program: 8 << 20, ..Footprint::of(&settings) };
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        let example = readme.split("-m 1024 -c 1024 -t 4").nth(1).expect("an example");
        for part in [beside.threads, beside.connections, beside.buffers] {
            let figure = format!("{} MiB", mib(part));
            assert!(example.contains(&figure), "{figure} is not in the README");
        }
        let sum = beside.total() - beside.prefixes + settings.maxbytes;
        assert!(example.contains(&format!("{} MiB", mib(sum))), "{}", mib(sum));
        let total = Settings { memory_total: true, ..settings };
        let more = if cfg!(debug_assertions) { 4 << 20 } else { 0 };
        let cache = mib(total.cache_bytes() + more);
        assert!(example.contains(&format!("{cache} MiB")), "{cache}");
    }

    #[test]
    fn each_part_has_its_line() {
        let lines = format(&Memory {
            max: 1,
            resident: 2,
            cache: MemoryInfo { pages: 3, index: 4, ghosts: 5, queues: 6, ..Default::default() },
            connections: 7,
            tls: 2,
            ..Memory::default()
        });
        for (name, value) in [
            ("process_max", "1"),
            ("process_resident", "2"),
            ("pages", "3"),
            ("index", "4"),
            ("ghosts", "5"),
            ("queues", "6"),
            ("connections", "3584"),
            ("tls", "16384"),
        ] {
            assert_eq!(lines.value(name), value, "{name}");
        }
    }
}
