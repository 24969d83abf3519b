//! What changes at the head of a memory file while it is in use: the clock, the last flush, how far
//! CAS uniques are given out.
//!
//! There are two places for it, which are written by turns, so that one of them is whole at any
//! moment. A place that is being written has the number 0, so one whose sum is wrong is damaged. No
//! number is a bit away from 0.

use super::header::HEADER_BYTES;
use crate::clock::Seconds;
use parking_lot::Mutex;
use slab::Words;
use slab::sync::AtomicU32;
use slab::sync::Ordering::{Relaxed, Release};

/// Where the two places are, bytes from the file's start.
pub(super) const FIRST: usize = HEADER_BYTES / 2;
const PLACES: [usize; 2] = [FIRST, FIRST + HEADER_BYTES / 4];
/// |number|sum|what stands there|
const WORDS: usize = 2 + ENTRY_WORDS;
const ENTRY_WORDS: usize = 13;
/// Numbers go up by two. Some changes a second do not reach this one in a year: whatever says it is
/// no ledger.
const NUMBER_MAX: u32 = u32::MAX / 2;

/// What the ledger says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Entry {
    /// The server that had the file has ended as it should.
    pub clean: bool,
    /// The run of the system in which it was last in use.
    pub boot: [u32; 4],
    /// Unix time of the clock's first second.
    pub origin: u64,
    /// A second that the clock has reached.
    pub last: Seconds,
    /// What was flushed, and what flush is planned, as in `Flush`.
    pub flush: u64,
    /// CAS uniques below so many blocks may have been given out.
    pub cas_blocks: u32,
    /// Most lines that the index has had.
    pub lines: u32,
    /// What seals cover, as in `Seals`.
    pub seals: u32,
}

impl Entry {
    fn words(&self) -> [u32; ENTRY_WORDS] {
        let [b0, b1, b2, b3] = self.boot;
        let half = |word: u64| [word as u32, (word >> 32) as u32];
        let ([o0, o1], [f0, f1]) = (half(self.origin), half(self.flush));
        let clean = u32::from(self.clean);
        [clean, b0, b1, b2, b3, o0, o1, self.last, f0, f1, self.cas_blocks, self.lines, self.seals]
    }

    fn of_words(words: [u32; ENTRY_WORDS]) -> Entry {
        let [clean, b0, b1, b2, b3, o0, o1, last, f0, f1, cas_blocks, lines, seals] = words;
        let whole = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        Entry {
            clean: clean == 1,
            boot: [b0, b1, b2, b3],
            origin: whole(o0, o1),
            last,
            flush: whole(f0, f1),
            cas_blocks,
            lines,
            seals,
        }
    }
}

fn sum(number: u32, words: &[u32; ENTRY_WORDS]) -> u32 {
    let all = std::iter::once(&number).chain(words);
    crc32fast::hash(&all.flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())
}

/// What stands in one of the places.
enum Found {
    /// It was never written, or half.
    Nothing,
    Entry(u32, Entry),
    Damaged,
}

fn read(place: &[u32; WORDS]) -> Found {
    let [number, found_sum, ref words @ ..] = *place;
    match number {
        0 => Found::Nothing,
        number if number <= NUMBER_MAX && sum(number, words) == found_sum => {
            Found::Entry(number, Entry::of_words(*words))
        }
        _ => Found::Damaged,
    }
}

/// The later entry of a header's two; `None` where that cannot be told.
pub(super) fn parse(header: &[u8]) -> Option<Entry> {
    let words = |at: usize| {
        let bytes = &header[at..at + WORDS * 4];
        std::array::from_fn(|n| u32::from_le_bytes(std::array::from_fn(|b| bytes[n * 4 + b])))
    };
    latest(PLACES.map(|at| read(&words(at)))).map(|(_, entry)| entry)
}

fn latest(found: [Found; 2]) -> Option<(u32, Entry)> {
    let mut latest = None;
    for found in found {
        match found {
            Found::Nothing => {}
            Found::Damaged => return None,
            Found::Entry(number, entry) => {
                if latest.is_none_or(|(before, _)| number > before) {
                    latest = Some((number, entry));
                }
            }
        }
    }
    latest
}

pub(in crate::store) struct Ledger {
    header: Words,
    now: Mutex<(u32, Entry)>,
}

impl Ledger {
    /// That of a header. What it says is for [`parse`] to read before.
    pub fn new(header: Words) -> Ledger {
        let place = |at: usize| read(&std::array::from_fn(|n| header[at / 4 + n].load(Relaxed)));
        let now = latest(PLACES.map(place)).unwrap_or((1, Entry::default()));
        Ledger { header, now: Mutex::new(now) }
    }

    pub fn entry(&self) -> Entry {
        self.now.lock().1
    }

    /// Changes what it says; once this returns, that outlives the process.
    pub fn update(&self, change: impl FnOnce(&mut Entry)) {
        let mut now = self.now.lock();
        let (number, mut entry) = *now;
        change(&mut entry);
        if entry == now.1 {
            return;
        }
        let number = number + 2;
        let words = entry.words();
        let place = &self.header[PLACES[number as usize / 2 % 2] / 4..][..WORDS];
        place[0].store(0, Release);
        put(&place[1], sum(number, &words));
        words.iter().zip(&place[2..]).for_each(|(word, at)| put(at, *word));
        place[0].store(number, Release);
        *now = (number, entry);
    }
}

fn put(at: &AtomicU32, word: u32) {
    at.store(word, Release);
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    fn file() -> Arc<File> {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(HEADER_BYTES as u64).expect("room");
        Arc::new(file)
    }

    fn ledger(file: &Arc<File>) -> Ledger {
        Ledger::new(Words::of_file(file, 0, HEADER_BYTES / 4).expect("a mapping"))
    }

    fn bytes(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0).expect("a header");
        bytes
    }

    #[test]
    fn what_was_said_last_is_read() {
        let file = file();
        assert_eq!(parse(&bytes(&file)), None);
        let one = ledger(&file);
        for n in 1..10 {
            one.update(|entry| entry.flush = n << 33 | n);
            assert_eq!(parse(&bytes(&file)).map(|entry| entry.flush), Some(n << 33 | n));
        }
        let other = ledger(&file);
        assert_eq!(other.entry(), one.entry());
        other.update(|entry| entry.boot = [1, 2, 3, 4]);
        assert_eq!(parse(&bytes(&file)), Some(other.entry()));
    }

    /// Whoever dies in the middle of an update leaves what was said before.
    #[test]
    fn half_an_update_is_none() {
        let file = file();
        let ledger = ledger(&file);
        ledger.update(|entry| entry.last = 7);
        ledger.update(|entry| entry.last = 8);
        let at = PLACES[ledger.now.lock().0 as usize / 2 % 2] / 4;
        ledger.header[at].store(0, Relaxed);
        ledger.header[at + 1].fetch_add(1, Relaxed);
        assert_eq!(parse(&bytes(&file)).map(|entry| entry.last), Some(7));
    }

    #[test]
    fn no_number_is_near_the_end() {
        let file = file();
        let ledger = ledger(&file);
        let place = &ledger.header[FIRST / 4..];
        for (number, taken) in [(NUMBER_MAX, true), (NUMBER_MAX + 1, false), (u32::MAX, false)] {
            place[0].store(number, Relaxed);
            place[1].store(sum(number, &[0; ENTRY_WORDS]), Relaxed);
            assert_eq!(parse(&bytes(&file)).is_some(), taken, "{number}");
        }
    }

    #[test]
    fn damage_shows() {
        let file = file();
        let ledger = ledger(&file);
        ledger.update(|entry| entry.last = 7);
        ledger.update(|entry| entry.last = 8);
        let good = bytes(&file);
        for at in PLACES {
            for bit in at * 8..(at + WORDS * 4) * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(parse(&bad), None, "bit {bit}");
            }
        }
    }
}
