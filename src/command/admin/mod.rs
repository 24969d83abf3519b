//! Statistics for operators: which figures each topic shows, in memcached's order and format.
//! Gathering is here; the formatting of each topic is a pure function in a file of its own.

mod automover;
mod classes;
mod conns;
mod general;
mod memory;
mod settings;

use super::{Error, StatsTopic};
use crate::clock::Clock;
use crate::config::Settings;
use crate::stats::PrefixCounts;
use crate::store::{Key, Store};
use std::fmt::Display;

/// The memcached version whose behaviour is offered; tools compare it.
pub const MEMCACHED_VERSION: &str = "1.6.45";

/// memcached's number of class ids; `stats cachedump` accepts those below it whether used or not.
const CLASS_IDS: u32 = 64;
/// Most bytes of a `stats cachedump` answer, without its `END`. memcached's limit.
const CACHEDUMP_MAX: usize = 2 << 20;
/// The shortest line of a `stats cachedump` answer, so that a dump's items are bounded, too.
const CACHEDUMP_LINE_MIN: usize = "ITEM k [0 b; 0 s]\r\n".len();

/// A row of an answer while it is made: its two strings, what lists double, and its line.
const ROW_BYTES: u64 = 256;
/// The same of a line that holds a key or a prefix, and for each byte of it.
const LINE_BYTES: u64 = 128;
const LINE_BYTE: u64 = 4;
/// Rows that a class has in `stats slabs` and `stats items`, or more.
const CLASS_ROWS: u64 = 32;
/// Rows of the other topics, or more.
const ROWS: u64 = 192;
/// memcached's words to an answer for which there is no memory.
const NO_ROOM: Error = Error::Server("out of memory writing stats");

/// What answers `stats <topic>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatLines {
    /// `STAT <name> <value>` each, then `END`.
    Pairs(Vec<(String, String)>),
    /// Lines of a topic's own form without their line ends, then `END`. Bytes, because they hold
    /// keys.
    Lines(Vec<Vec<u8>>),
    /// `OK`
    Ok,
    /// `RESET`
    Reset,
    Error(Error),
}

/// The answer to `stats <topic>`, as memcached 1.6.45 gives it.
pub fn stats(store: &Store, topic: StatsTopic<'_>) -> StatLines {
    let (figures, settings) = (store.stats(), store.settings());
    if let Some(error) = refusal(topic, settings) {
        return StatLines::Error(error);
    }
    match bytes_of(store, topic) {
        0 => answer(store, topic),
        bytes => {
            let made = figures.buffers.lend(bytes, || answer(store, topic));
            made.unwrap_or(StatLines::Error(NO_ROOM))
        }
    }
}

/// Bytes that a long answer takes while it is made, at the most; 0 of the others, which whoever
/// looks for what is wrong needs above all.
fn bytes_of(store: &Store, topic: StatsTopic<'_>) -> u64 {
    let stats = store.stats();
    match topic {
        StatsTopic::Items | StatsTopic::Slabs | StatsTopic::Automover => {
            (ROWS + CLASS_ROWS * stats.class_sums().len() as u64) * ROW_BYTES
        }
        StatsTopic::Sizes => store.sizes_max() * ROW_BYTES,
        // Four rows a socket.
        StatsTopic::Conns => stats.conns.open().count() as u64 * 4 * ROW_BYTES,
        StatsTopic::DetailDump => {
            stats.prefixes.count() as u64 * (LINE_BYTES + LINE_BYTE * Key::MAX as u64)
        }
        StatsTopic::Cachedump { limit, .. } => cachedump_max(store, limit).1,
        _ => 0,
    }
}

/// Bytes that an answer to `stats cachedump` may have: memcached's limit, or as many as there is
/// room for, and what it takes to make it.
fn cachedump_max(store: &Store, limit: u32) -> (usize, u64) {
    /// Of a byte of the shortest lines.
    const COST: u64 = LINE_BYTE + LINE_BYTES.div_ceil(CACHEDUMP_LINE_MIN as u64);
    let room = (store.stats().buffers.room() / 2 / COST).min(CACHEDUMP_MAX as u64);
    let asked = match limit {
        0 => room,
        limit => room.min(u64::from(limit) * (Key::MAX + LINE_BYTES as usize) as u64),
    };
    (room as usize, asked * COST)
}

fn answer(store: &Store, topic: StatsTopic<'_>) -> StatLines {
    let (figures, settings) = (store.stats(), store.settings());
    match topic {
        StatsTopic::General => general::of(store),
        StatsTopic::Reset => {
            store.reset_stats();
            StatLines::Reset
        }
        StatsTopic::Settings => settings::of(store),
        StatsTopic::Items => {
            let temp_lru = store.knobs().temporary_ttl().is_some();
            let shown = classes::Shown { lru_maintainer: settings.lru_maintainer, temp_lru };
            classes::items(&store.class_census(), &figures.class_sums(), shown)
        }
        StatsTopic::Slabs => {
            let malloced = store.info().total_malloced;
            classes::slabs(&store.class_info(), &figures.class_sums(), malloced)
        }
        StatsTopic::Sizes => classes::sizes(&store.sizes()),
        StatsTopic::Conns => conns::of(&figures.conns, store.clock().now()),
        StatsTopic::Automover => automover::of(store),
        StatsTopic::Memory => memory::of(store),
        StatsTopic::Detail(Some(on)) => {
            figures.prefixes.enable(on);
            StatLines::Ok
        }
        StatsTopic::Detail(None) => {
            StatLines::Error(Error::Client("usage: stats detail on|off|dump"))
        }
        StatsTopic::DetailDump => detail_dump(&figures.prefixes.dump()),
        StatsTopic::Cachedump { class, limit } => cachedump(store, class, limit),
        StatsTopic::BadCachedump(error) => StatLines::Error(error),
        StatsTopic::Unknown(_) => StatLines::Error(Error::Unknown),
    }
}

/// Why a topic is not answered: `-X` hides whatever shows keys, and what would start to.
fn refusal(topic: StatsTopic<'_>, settings: &Settings) -> Option<Error> {
    match topic {
        _ if settings.dump_enabled => None,
        StatsTopic::Detail(_) | StatsTopic::DetailDump => {
            Some(Error::Client("stats detail not allowed"))
        }
        StatsTopic::Cachedump { .. } | StatsTopic::BadCachedump(_) => {
            Some(Error::Client("stats cachedump not allowed"))
        }
        _ => None,
    }
}

fn detail_dump(prefixes: &[(Box<[u8]>, PrefixCounts)]) -> StatLines {
    let line = |(prefix, c): &(Box<[u8]>, PrefixCounts)| {
        let counts = format!(" get {} hit {} set {} del {}", c.gets, c.hits, c.sets, c.deletes);
        [b"PREFIX ", &prefix[..], counts.as_bytes()].concat()
    };
    StatLines::Lines(prefixes.iter().map(line).collect())
}

fn cachedump(store: &Store, class: u32, limit: u32) -> StatLines {
    let (max, _) = cachedump_max(store, limit);
    let mut dump = Cachedump { clock: store.clock(), lines: Vec::new(), bytes: 0, max };
    let most = (CACHEDUMP_MAX / CACHEDUMP_LINE_MIN) as u32;
    let limit = if limit == 0 { most } else { limit.min(most) };
    let known = store.cachedump(class, limit, |key, len, left| dump.item(key, len, left));
    if !known && class >= CLASS_IDS {
        return StatLines::Error(Error::Client("Illegal slab id"));
    }
    if class == 0 {
        beyond(store, limit, &mut dump);
    }
    StatLines::Lines(dump.lines)
}

/// The classes that memcached's ids do not reach. Tools that try each id (libmemcached's) ask for
/// class 0, too, which is none and has no items in memcached.
fn beyond(store: &Store, limit: u32, dump: &mut Cachedump<'_>) {
    for class in CLASS_IDS.. {
        let left = limit.saturating_sub(dump.lines.len() as u32);
        if left == 0 || !store.cachedump(class, left, |key, len, ttl| dump.item(key, len, ttl)) {
            return;
        }
    }
}

/// The lines of a `stats cachedump` answer so far.
struct Cachedump<'c> {
    clock: &'c Clock,
    lines: Vec<Vec<u8>>,
    bytes: usize,
    /// The most that they may be.
    max: usize,
}

impl Cachedump<'_> {
    /// `left`: seconds to live; `None`, for ever, is shown as 0, others as the unix time of death.
    fn item(&mut self, key: &[u8], value_len: u32, left: Option<u32>) {
        // Only a key that came in base64 can hold these; it would break the line.
        if key.iter().any(|b| matches!(b, 0 | b' ' | b'\r' | b'\n')) {
            return;
        }
        let death = left.map_or(0, |left| self.clock.unix(self.clock.now()) + u64::from(left));
        let rest = format!(" [{value_len} b; {death} s]");
        let line = [b"ITEM ", key, rest.as_bytes()].concat();
        let bytes = self.bytes + line.len() + "\r\n".len();
        if bytes <= self.max {
            self.bytes = bytes;
            self.lines.push(line);
        }
    }
}

/// `STAT` lines in the making.
#[derive(Default)]
struct Rows(Vec<(String, String)>);

impl Rows {
    fn put(&mut self, name: impl Display, value: impl Display) {
        self.0.push((name.to_string(), value.to_string()));
    }

    /// Counts, in the order given.
    fn put_all<const N: usize>(&mut self, counts: [(&str, u64); N]) {
        for (name, count) in counts {
            self.put(name, count);
        }
    }

    fn end(self) -> StatLines {
        StatLines::Pairs(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Prefixes;

    impl StatLines {
        /// The pairs' names.
        pub(super) fn names(&self) -> Vec<&str> {
            match self {
                StatLines::Pairs(pairs) => pairs.iter().map(|(name, _)| name.as_str()).collect(),
                other => panic!("not pairs: {other:?}"),
            }
        }

        /// The value of one pair.
        pub(super) fn value(&self, name: &str) -> &str {
            match self {
                StatLines::Pairs(pairs) => {
                    &pairs.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name}")).1
                }
                other => panic!("not pairs: {other:?}"),
            }
        }
    }

    #[test]
    fn disabled_dumping_hides_keys_and_nothing_else() {
        let hidden = Settings { dump_enabled: false, ..Settings::default() };
        let cachedump = StatsTopic::Cachedump { class: 200, limit: 0 };
        let detail = Some(Error::Client("stats detail not allowed"));
        assert_eq!(refusal(StatsTopic::Detail(Some(true)), &hidden), detail);
        assert_eq!(refusal(StatsTopic::Detail(None), &hidden), detail);
        assert_eq!(refusal(StatsTopic::DetailDump, &hidden), detail);
        let dump = Some(Error::Client("stats cachedump not allowed"));
        assert_eq!(refusal(cachedump, &hidden), dump);
        assert_eq!(refusal(StatsTopic::Sizes, &hidden), None);
        assert_eq!(refusal(cachedump, &Settings::default()), None);
        assert_eq!(refusal(StatsTopic::DetailDump, &Settings::default()), None);
    }

    #[test]
    fn detail_dump_prints_a_line_a_prefix() {
        let prefixes = Prefixes::new(b':', true);
        prefixes.record_set(b"foo:123");
        prefixes.record_get(b"foo:123", true);
        prefixes.record_get(b"foo:124", false);
        prefixes.record_delete(b"foo:125");
        prefixes.record_set(b"\xff:1");
        assert_eq!(
            detail_dump(&prefixes.dump()),
            StatLines::Lines(vec![
                b"PREFIX foo get 2 hit 1 set 1 del 1".to_vec(),
                b"PREFIX \xff get 0 hit 0 set 1 del 0".to_vec(),
            ])
        );
    }

    #[test]
    fn cachedump_prints_length_and_unix_time_of_death() {
        let clock = Clock::manual(1_700_000_000);
        clock.advance(5);
        let mut dump = Cachedump { clock: &clock, lines: Vec::new(), bytes: 0, max: CACHEDUMP_MAX };
        dump.item(b"a", 1, None);
        dump.item(b"b", 20, Some(10));
        dump.item(b"not shown\r\nEND", 1, None);
        assert_eq!(
            dump.lines,
            [b"ITEM a [1 b; 0 s]".to_vec(), b"ITEM b [20 b; 1700000015 s]".to_vec()]
        );
    }

    #[test]
    fn cachedump_stops_at_two_mebibytes() {
        let clock = Clock::manual(1_700_000_000);
        let mut dump = Cachedump { clock: &clock, lines: Vec::new(), bytes: 0, max: CACHEDUMP_MAX };
        for _ in 0..20_000 {
            dump.item(&[b'k'; 250], 1, None);
        }
        let line = "ITEM  [1 b; 0 s]\r\n".len() + 250;
        assert_eq!(dump.lines.len(), CACHEDUMP_MAX / line);
    }
}
