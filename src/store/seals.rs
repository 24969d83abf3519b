//! Seals: in a memory file a word behind each item says what it should be, so that damage to the
//! file shows when it is read again. Without a file there are none.
//!
//! An item's standing is in no seal, since every access changes it. So that an item that is out of
//! the index does not come back by a flipped bit of its standing, its seal is spoilt; and so that
//! one that was flushed does not by a flipped bit of its second, a seal is good until the next
//! flush.

use super::flush::Horizon;
use super::shard::Shard;
use super::types::Local;
use crate::item::{self, Item, SEAL_BYTES};
use slab::ChunkRef;
use slab::sync::AtomicU32;
use slab::sync::Ordering::{Relaxed, Release};

/// What seals cover, as bits: a file that is being changed from one to the other has both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seals(pub u32);

/// Spreads the second of a flush over a seal's bits.
const SPREAD: u32 = 0x9E37_79B1;
/// A seal that says nothing: its item is being changed.
const BROKEN: u32 = 0;

impl Seals {
    /// There are none.
    pub const NONE: Seals = Seals(0);
    /// Header, key, deadline, client flags.
    pub const HEADERS: Seals = Seals(1);
    /// The value, too: `-o checksum`.
    pub const VALUES: Seals = Seals(2);

    /// Bytes that each chunk has for them.
    pub const TAIL: u32 = SEAL_BYTES;

    pub fn and(self, other: Seals) -> Seals {
        Seals(self.0 | other.0)
    }

    pub fn has(self, other: Seals) -> bool {
        self.0 & other.0 != 0
    }
}

impl Shard {
    fn seal_word(&self, chunk: ChunkRef) -> &AtomicU32 {
        &self.slabs.words()[chunk.word() + self.chunk_size(chunk) as usize / 4]
    }

    /// Seals an item that is about to be linked.
    #[inline]
    pub fn seal(&self, l: &Local, chunk: ChunkRef, horizon: Horizon) {
        if self.rules.seals != Seals::NONE {
            let sums = self.sums(l, chunk, self.rules.seals, horizon);
            self.seal_word(chunk).store(sums, Release);
        }
    }

    /// An item that has left the index has no seal any more.
    #[inline]
    pub fn spoil_seal(&self, chunk: ChunkRef) {
        if self.rules.seals != Seals::NONE {
            let word = self.seal_word(chunk);
            word.store(!word.load(Relaxed), Release);
        }
    }

    fn sums(&self, l: &Local, chunk: ChunkRef, seals: Seals, horizon: Horizon) -> u32 {
        let mut scratch = l.scratch.take();
        let head = item::head_sum(self.item(chunk), &mut scratch);
        let value = match seals.has(Seals::VALUES) {
            true => item::value_sum(&self.slabs, chunk, &mut scratch),
            false => 0,
        };
        l.scratch.set(scratch);
        head ^ value ^ horizon.flush.wrapping_mul(SPREAD)
    }

    /// Changes a linked item's deadline or marks by `change`, with its seal broken meanwhile:
    /// whoever dies in between leaves an item that is believed as it is.
    #[inline]
    pub fn change_sealed<T>(
        &self,
        l: &Local,
        chunk: ChunkRef,
        change: impl FnOnce(Item<'_>) -> T,
    ) -> T {
        let item = self.item(chunk);
        if self.rules.seals == Seals::NONE {
            return change(item);
        }
        let mut scratch = l.scratch.take();
        let word = self.seal_word(chunk);
        // What it says of the value stays.
        let of_value = word.load(Relaxed) ^ item::head_sum(item, &mut scratch);
        word.store(BROKEN, Release);
        let changed = change(item);
        word.store(of_value ^ item::head_sum(item, &mut scratch), Release);
        l.scratch.set(scratch);
        changed
    }

    /// True where items are sealed, as in a memory file.
    #[inline]
    pub fn has_seals(&self) -> bool {
        self.rules.seals != Seals::NONE
    }

    /// True where a linked item's value may not be written over: one store must do, and no seal
    /// speak of it.
    #[inline]
    pub fn is_write_once(&self, item: Item<'_>) -> bool {
        let seals = self.rules.seals;
        seals != Seals::NONE && (seals.has(Seals::VALUES) || !item.is_one_word(item.shape()))
    }

    /// True where an item from a file is as one of `seals` says; it then has ours.
    pub fn check_seal(&self, l: &Local, chunk: ChunkRef, seals: Seals, horizon: Horizon) -> bool {
        let is = self.seal_word(chunk).load(Relaxed);
        let says = |seals: Seals| is == self.sums(l, chunk, seals, horizon);
        let kinds = [Seals::HEADERS, Seals::VALUES];
        let good = is == BROKEN || kinds.into_iter().any(|kind| seals.has(kind) && says(kind));
        if good && (is == BROKEN || seals != self.rules.seals) {
            self.seal(l, chunk, horizon);
        }
        good
    }
}
