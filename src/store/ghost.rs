//! What was evicted of late: one table for two uses. A key that is stored again while it is
//! remembered goes straight to the main part of its class (S3-FIFO's ghost queue). A get that
//! misses such a key says what the class would have gained by a little more memory: the page mover
//! lives on that.
//!
//! ```text
//! line   |turn 4|15 entries|   one cache line; the turn says which entry is replaced next
//! entry  |fingerprint 16|class 10|part 1|epoch 5|   0: none
//! ```
//!
//! The two parts of a class, probation and main, have epochs of their own: a small share of the
//! class's chunks' worth of evictions. So an entry's age says by how many chunks its part was too
//! small to hold it. All accesses are relaxed and unlocked: a race costs one entry. Classes beyond
//! 1023 share their numbers with lower ones, which spoils hints only.

use crate::item::prefetch;
use slab::sync::AtomicU32;
use slab::sync::Ordering::Relaxed;
use slab::{ClassId, Words};
use std::io;
use std::sync::atomic::AtomicU32 as Count;

const LINE_WORDS: usize = 16;
const ENTRIES: u32 = LINE_WORDS as u32 - 1;
/// Bytes of a line.
pub const LINE_BYTES: u64 = LINE_WORDS as u64 * 4;
/// Lines whose memory is given back at once.
const LINES_TRIMMED_MAX: u32 = 16 << 10;
const PART_MASK: u32 = 0x7FF;
const EPOCH_MASK: u32 = 0x1F;
/// Epochs in which a part evicts as many items as its class has chunks.
pub const EPOCHS: u32 = 24;
/// Entries of so many epochs, and on average half of the present one, are the shadow: what a few
/// more pages would have held.
const SHADOW_EPOCHS: u32 = 3;
/// Share of a class's chunks that its shadow stands for.
pub const SHADOW_SHARE: f64 = (SHADOW_EPOCHS as f64 + 0.5) / EPOCHS as f64;

pub(super) struct Ghost {
    words: Words,
    /// Lines in use.
    lines: Count,
    /// Lines that have memory, or may have it at any time.
    backed: Count,
    /// Two for each class.
    parts: Box<[PartGhost]>,
}

/// The part of a class that an item was evicted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Probation = 0,
    Main = 1,
}

#[derive(Default)]
struct PartGhost {
    epoch: Count,
    /// Evictions in this epoch, and how many make one.
    evictions: Count,
    per_epoch: Count,
    /// Misses that the shadow would have saved.
    gain: Count,
    /// The same for fingerprints that nobody asked for: by how much `gain` is too high.
    false_gain: Count,
}

/// What is remembered of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub class: ClassId,
    pub part: Part,
    /// Epochs of its part since it was evicted.
    pub age: u32,
}

impl Ghost {
    /// A table that can have up to `ceiling` lines, and has none yet; `classes` counts from 0.
    pub fn new(ceiling: u32, classes: usize) -> io::Result<Ghost> {
        Ok(Ghost {
            words: Words::reserve(ceiling.max(1) as usize * LINE_WORDS)?,
            lines: Count::new(0),
            backed: Count::new(0),
            parts: (0..2 * classes).map(|_| PartGhost::default()).collect(),
        })
    }

    /// Lines in use.
    pub fn len(&self) -> u32 {
        self.lines.load(Relaxed)
    }

    /// Changes how many lines are in use. Entries whose line changes by it are lost, and what
    /// stands in their old place is noise until it is replaced.
    pub fn resize(&self, lines: u32) {
        let ceiling = (self.words.len() / LINE_WORDS) as u32;
        let is = lines.min(ceiling);
        self.lines.store(is, Relaxed);
        self.backed.fetch_max(is, Relaxed);
    }

    /// Bytes of lines in use, and of those that are not given back yet.
    pub fn bytes(&self) -> u64 {
        u64::from(self.backed.load(Relaxed)) * LINE_BYTES
    }

    /// Gives back some of the memory of lines that are not in use any more; returns its bytes.
    pub fn trim(&self) -> u64 {
        let (lines, backed) = (self.len(), self.backed.load(Relaxed));
        let left = lines.max(backed.saturating_sub(LINES_TRIMMED_MAX));
        if left < backed {
            self.backed.store(left, Relaxed);
            let _ = self.words.release(left as usize * LINE_WORDS..backed as usize * LINE_WORDS);
        }
        u64::from(backed - left) * LINE_BYTES
    }

    fn line_at(&self, hash: u64) -> Option<usize> {
        let lines = u64::from(self.lines.load(Relaxed));
        (lines > 0).then(|| (((hash >> 32) * lines) >> 32) as usize * LINE_WORDS)
    }

    fn line(&self, hash: u64) -> Option<&[AtomicU32]> {
        let at = self.line_at(hash)?;
        self.words.get(at..at + LINE_WORDS)
    }

    /// Starts loading the line of a hash.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if let Some(at) = self.line_at(hash) {
            prefetch(&self.words, at);
        }
    }

    /// Remembers an evicted key.
    pub fn remember(&self, hash: u64, class: ClassId, part: Part) {
        let number = number_of(class, part);
        let of_part = &self.parts[number];
        if of_part.evictions.fetch_add(1, Relaxed) + 1 >= of_part.per_epoch.load(Relaxed).max(1) {
            of_part.evictions.store(0, Relaxed);
            of_part.epoch.fetch_add(1, Relaxed);
        }
        let Some(line) = self.line(hash) else { return };
        let turn = line[0].load(Relaxed) % ENTRIES;
        line[0].store(turn + 1, Relaxed);
        let epoch = of_part.epoch.load(Relaxed) & EPOCH_MASK;
        let entry = fingerprint(hash) << 16 | (number as u32 & PART_MASK) << 5 | epoch;
        line[1 + turn as usize].store(entry, Relaxed);
    }

    /// A key is stored anew: what was known of it, which is then forgotten.
    pub fn recall(&self, hash: u64) -> Option<Memory> {
        let line = self.line(hash)?;
        let (entry, memory) = self.find(line, fingerprint(hash))?;
        entry.store(0, Relaxed);
        Some(memory)
    }

    /// A get missed: counts what its class would have gained.
    pub fn missed(&self, hash: u64) {
        let Some(line) = self.line(hash) else { return };
        let in_shadow = |fingerprint| {
            let (_, memory) = self.find(line, fingerprint)?;
            let number = number_of(memory.class, memory.part);
            (memory.age <= SHADOW_EPOCHS).then(|| &self.parts[number])
        };
        if let Some(part) = in_shadow(fingerprint(hash)) {
            part.gain.fetch_add(1, Relaxed);
        }
        if let Some(part) = in_shadow(mirrored(fingerprint(hash))) {
            part.false_gain.fetch_add(1, Relaxed);
        }
    }

    fn find<'a>(&self, line: &'a [AtomicU32], wanted: u32) -> Option<(&'a AtomicU32, Memory)> {
        let entry = line[1..].iter().find(|e| e.load(Relaxed) >> 16 == wanted)?;
        let word = entry.load(Relaxed);
        let number = word >> 5 & PART_MASK;
        let now = self.parts.get(number as usize)?.epoch.load(Relaxed);
        let part = if number & 1 == 0 { Part::Probation } else { Part::Main };
        let class = ClassId((number / 2) as u16);
        Some((entry, Memory { class, part, age: now.wrapping_sub(word) & EPOCH_MASK }))
    }

    /// Says how many chunks a class has now.
    pub fn note_chunks(&self, class: ClassId, chunks: u64) {
        let per_epoch = (chunks / u64::from(EPOCHS)).max(1);
        for part in [Part::Probation, Part::Main] {
            self.parts[number_of(class, part)].per_epoch.store(per_epoch as u32, Relaxed);
        }
    }

    /// A part's gains so far, and how many of them may be false; both wrap.
    pub fn gains(&self, class: ClassId, part: Part) -> (u32, u32) {
        let part = &self.parts[number_of(class, part)];
        (part.gain.load(Relaxed), part.false_gain.load(Relaxed))
    }
}

fn number_of(class: ClassId, part: Part) -> usize {
    2 * class.index() + part as usize
}

/// 1 to 65535, of bits that pick neither line.
fn fingerprint(hash: u64) -> u32 {
    (hash & 0xFFFF).max(1) as u32
}

/// A fingerprint that this hash would not have.
fn mirrored(fingerprint: u32) -> u32 {
    (fingerprint ^ 0xA5A5).max(1)
}

#[cfg(test)]
mod tests {
    use super::Part::Main;
    use super::*;
    use rapidhash::v3::RapidSecrets;

    fn ghost(lines: u32, chunks: u64) -> Ghost {
        let ghost = Ghost::new(lines, 4).expect("address space");
        ghost.resize(lines);
        (1..4).for_each(|c| ghost.note_chunks(ClassId(c), chunks));
        ghost
    }

    fn hash(n: u64) -> u64 {
        rapidhash::v3::rapidhash_v3_seeded(&n.to_le_bytes(), &RapidSecrets::seed(7))
    }

    #[test]
    fn an_evicted_key_is_recalled_once() {
        let ghost = ghost(8, 240);
        assert_eq!(ghost.recall(hash(1)), None);
        ghost.remember(hash(1), ClassId(2), Main);
        let memory = Memory { class: ClassId(2), part: Main, age: 0 };
        assert_eq!(ghost.recall(hash(1)), Some(memory));
        assert_eq!(ghost.recall(hash(1)), None);
    }

    #[test]
    fn only_a_young_memory_is_a_gain() {
        let ghost = ghost(64, 240);
        ghost.remember(hash(1), ClassId(1), Main);
        ghost.missed(hash(1));
        assert_eq!(ghost.gains(ClassId(1), Main), (1, 0));
        // Four epochs of ten evictions on, in another part of the table as well.
        (2..42).for_each(|n| ghost.remember(hash(n), ClassId(1), Main));
        ghost.missed(hash(1));
        assert_eq!(ghost.gains(ClassId(1), Main).0, 1);
        assert_eq!(ghost.gains(ClassId(2), Main), (0, 0));
    }

    #[test]
    fn a_line_keeps_the_latest() {
        let ghost = ghost(1, 24_000);
        (0..100).for_each(|n| ghost.remember(hash(n), ClassId(1), Main));
        let kept = (0..100).filter(|n| ghost.recall(hash(*n)).is_some()).collect::<Vec<_>>();
        assert_eq!(kept, (85..100).collect::<Vec<_>>());
    }

    #[test]
    fn the_false_rate_is_about_one_in_four_thousand_and_is_measured() {
        let ghost = ghost(1000, 240_000);
        (0..15_000).for_each(|n| ghost.remember(hash(n), ClassId(1), Main));
        (1_000_000..1_400_000).for_each(|n| ghost.missed(hash(n)));
        let (gain, false_gain) = ghost.gains(ClassId(1), Main);
        assert!((40..160).contains(&gain), "{gain}");
        assert!((40..160).contains(&false_gain), "{false_gain}");
    }

    #[test]
    fn without_lines_nothing_is_remembered() {
        let ghost = ghost(0, 24);
        ghost.remember(hash(1), ClassId(1), Main);
        ghost.missed(hash(1));
        assert_eq!((ghost.recall(hash(1)), ghost.gains(ClassId(1), Main)), (None, (0, 0)));
    }
}
