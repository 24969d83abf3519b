//! Counts by key prefix: `-D`, `stats detail`. Off, it costs one relaxed load a command.

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Most prefixes that are counted, where nothing says otherwise. memcached's limit.
const MAX: usize = 1 << 16;
/// Parts of the table, each with its own lock.
const SHARDS: usize = 16;

/// What one prefix saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixCounts {
    pub gets: u64,
    pub hits: u64,
    pub sets: u64,
    pub deletes: u64,
}

type Shard = HashMap<Box<[u8]>, PrefixCounts, RandomState>;

/// Counts of the prefixes that keys have before their first delimiter.
pub struct Prefixes {
    /// Read at every command, so on a line that nobody writes.
    enabled: CachePadded<AtomicBool>,
    delimiter: u8,
    hasher: RandomState,
    /// Prefixes in all shards, and the most that are counted: keys with further ones are not.
    len: AtomicUsize,
    max: usize,
    shards: Box<[CachePadded<Mutex<Shard>>]>,
}

impl Prefixes {
    /// `delimiter` ends a prefix, `enabled` starts counting at once (`-D`).
    pub fn new(delimiter: u8, enabled: bool) -> Prefixes {
        let hasher = RandomState::new();
        let shards = (0..SHARDS)
            .map(|_| CachePadded::new(Mutex::new(Shard::with_hasher(hasher.clone()))))
            .collect();
        Prefixes {
            enabled: CachePadded::new(AtomicBool::new(enabled)),
            delimiter,
            hasher,
            len: AtomicUsize::new(0),
            max: MAX,
            shards,
        }
    }

    /// With another limit.
    pub fn at_most(self, max: usize) -> Prefixes {
        Prefixes { max, ..self }
    }

    /// Prefixes that are counted now.
    pub fn count(&self) -> usize {
        self.len.load(Relaxed)
    }

    #[inline]
    pub fn enabled(&self) -> bool {
        self.enabled.load(Relaxed)
    }

    /// `stats detail on|off`; turning it off keeps what was counted.
    pub fn enable(&self, on: bool) {
        self.enabled.store(on, Relaxed);
    }

    /// A get or gat of one key.
    #[inline]
    pub fn record_get(&self, key: &[u8], hit: bool) {
        if self.enabled() {
            self.record(key, |counts| {
                counts.gets += 1;
                counts.hits += u64::from(hit);
            });
        }
    }

    /// A storage command, whatever becomes of it.
    #[inline]
    pub fn record_set(&self, key: &[u8]) {
        if self.enabled() {
            self.record(key, |counts| counts.sets += 1);
        }
    }

    /// A delete, whether or not it finds something.
    #[inline]
    pub fn record_delete(&self, key: &[u8]) {
        if self.enabled() {
            self.record(key, |counts| counts.deletes += 1);
        }
    }

    /// All prefixes and their counts, sorted by prefix.
    pub fn dump(&self) -> Vec<(Box<[u8]>, PrefixCounts)> {
        let mut all: Vec<_> = self
            .shards
            .iter()
            .flat_map(|shard| {
                let shard = shard.lock();
                shard.iter().map(|(prefix, counts)| (prefix.clone(), *counts)).collect::<Vec<_>>()
            })
            .collect();
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Forgets all prefixes and gives their memory back.
    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            self.len.fetch_sub(shard.len(), Relaxed);
            *shard = Shard::with_hasher(self.hasher.clone());
        }
    }

    /// The part of a key before its first delimiter; `None` where it has none. A NUL byte ends the
    /// search, as in memcached.
    fn prefix<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let end = key.iter().position(|&b| b == self.delimiter || b == 0)?;
        (key[end] == self.delimiter).then_some(&key[..end])
    }

    #[cold]
    fn record(&self, key: &[u8], count: impl FnOnce(&mut PrefixCounts)) {
        let Some(prefix) = self.prefix(key) else { return };
        let mut shard = self.shards[self.hasher.hash_one(prefix) as usize % SHARDS].lock();
        if let Some(counts) = shard.get_mut(prefix) {
            count(counts);
        } else if self.take_place() {
            count(shard.entry(prefix.into()).or_default());
        }
    }

    /// True where there was room for one more prefix, which is then counted in `len`.
    fn take_place(&self) -> bool {
        self.len.fetch_update(Relaxed, Relaxed, |n| (n < self.max).then_some(n + 1)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(prefixes: &Prefixes) -> Vec<(String, [u64; 4])> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let counts = |c: PrefixCounts| [c.gets, c.hits, c.sets, c.deletes];
        prefixes.dump().into_iter().map(|(p, c)| (text(&p), counts(c))).collect()
    }

    #[test]
    fn keys_count_under_what_precedes_the_delimiter() {
        let prefixes = Prefixes::new(b'/', true);
        prefixes.record_set(b"foo/1");
        prefixes.record_get(b"foo/1", true);
        prefixes.record_get(b"foo/2/3", false);
        prefixes.record_delete(b"foo/");
        prefixes.record_set(b"fo/1");
        prefixes.record_get(b"/x", false);
        prefixes.record_get(b"none", true);
        prefixes.record_get(b"a\0b/c", true);
        assert_eq!(
            dump(&prefixes),
            [("".into(), [1, 0, 0, 0]), ("fo".into(), [0, 0, 1, 0]), ("foo".into(), [2, 1, 1, 1]),]
        );
    }

    #[test]
    fn nothing_counts_while_off_and_off_keeps_the_counts() {
        let prefixes = Prefixes::new(b':', false);
        prefixes.record_set(b"a:1");
        assert_eq!(dump(&prefixes), []);
        prefixes.enable(true);
        prefixes.record_set(b"a:1");
        prefixes.enable(false);
        prefixes.record_set(b"a:1");
        assert_eq!(dump(&prefixes), [("a".into(), [0, 0, 1, 0])]);
    }

    #[test]
    fn the_table_is_capped_until_cleared() {
        let prefixes = Prefixes::new(b':', true);
        for n in 0..MAX {
            prefixes.record_set(format!("{n}:x").as_bytes());
        }
        prefixes.record_set(b"late:x");
        prefixes.record_set(b"7:x");
        let full = prefixes.dump();
        assert_eq!(full.len(), MAX);
        assert!(full.iter().all(|(prefix, _)| **prefix != *b"late"));
        let seven = full.iter().find(|(prefix, _)| **prefix == *b"7").unwrap();
        assert_eq!(seven.1.sets, 2);
        prefixes.clear();
        prefixes.record_set(b"late:x");
        assert_eq!(dump(&prefixes), [("late".into(), [0, 0, 1, 0])]);
    }
}
