//! Items whose value is being sent from its chunks.
//!
//! The pinned bit in the item says that it has an entry here; both change under the table's lock.
//! The table is bounded by the connections: each sends at most one output's worth of values.
//!
//! A client that reads slowly must not keep memory from everybody else. Pinned values that have
//! left the index may take up an eighth of -m; beyond that the oldest of them are revoked, and so
//! are those that have been on their way for long when memory cannot be had at all: their
//! connections are closed ([`Pin::is_revoked`]). A value that is in the index stays there whoever
//! reads it, so nothing would be won by that.

use super::Store;
use super::shard::Shard;
use crate::clock::Seconds;
use crate::item::{self, Cursor, Item, Shape};
use slab::ChunkRef;
use slab::sync::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Pins revoked for one allocation that failed.
const REVOKED_AT_ONCE: usize = 8;
/// Seconds that such a pin has lasted for at least.
const SLOW: Seconds = 5;

pub(super) struct Pins {
    table: Mutex<Table>,
    /// Most bytes of values that are out of the index and not revoked.
    unlinked_max: AtomicU64,
    /// Counts up whenever pins were revoked.
    revocations: AtomicU32,
}

#[derive(Default)]
struct Table {
    entries: HashMap<ChunkRef, Entry>,
    /// Counts up with every entry.
    births: u64,
    unlinked_bytes: u64,
}

#[derive(Default)]
struct Entry {
    count: u32,
    bytes: u64,
    /// Out of the index: freed with the last pin.
    unlinked: bool,
    revoked: bool,
    /// When it was first pinned, in [`Table::births`].
    born: u64,
    /// When it was last pinned.
    since: Seconds,
}

impl Pins {
    pub fn new(unlinked_max: u64) -> Pins {
        Pins {
            table: Mutex::new(Table::default()),
            unlinked_max: AtomicU64::new(unlinked_max),
            revocations: AtomicU32::new(0),
        }
    }

    /// Another limit, from the next value on that leaves the index.
    pub fn set_unlinked_max(&self, bytes: u64) {
        self.unlinked_max.store(bytes, Relaxed);
    }

    /// Pins an item that is linked, under its line's lock.
    fn pin(&self, chunk: ChunkRef, item: Item<'_>, bytes: u64, now: Seconds) {
        let mut table = self.table.lock();
        table.births += 1;
        let born = table.births;
        let entry = table.entries.entry(chunk).or_insert(Entry { bytes, born, ..Entry::default() });
        entry.since = now;
        // One that is revoked is of a value that left the index.
        debug_assert!(!entry.unlinked && !entry.revoked);
        entry.count += 1;
        item.set_bits(Shape::PINNED);
    }

    /// True where an item that has just left the index is pinned: it will be freed by the last
    /// [`Pin`].
    pub fn leave_to_last(&self, chunk: ChunkRef) -> bool {
        let mut table = self.table.lock();
        let Some(entry) = table.entries.get_mut(&chunk) else { return false };
        entry.unlinked = true;
        let revoked = entry.revoked;
        if !revoked {
            table.unlinked_bytes += table.entries[&chunk].bytes;
        }
        let most = self.unlinked_max.load(Relaxed);
        while table.unlinked_bytes > most && table.revoke(|entry| entry.unlinked) {
            self.revocations.fetch_add(1, Relaxed);
        }
        true
    }

    /// Memory could not be had: closes the connections that have been sending what is out of the
    /// index for the longest.
    pub fn relieve(&self, now: Seconds) {
        let mut table = self.table.lock();
        for _ in 0..REVOKED_AT_ONCE {
            if !table.revoke(|entry| entry.unlinked && entry.since + SLOW <= now) {
                return;
            }
            self.revocations.fetch_add(1, Relaxed);
        }
    }

    /// Changes whenever pins were revoked.
    pub fn revocations(&self) -> u32 {
        self.revocations.load(Relaxed)
    }

    fn is_revoked(&self, chunk: ChunkRef) -> bool {
        self.table.lock().entries.get(&chunk).is_some_and(|entry| entry.revoked)
    }

    /// Gives a pin back; true where the item must be freed now.
    fn unpin(&self, chunk: ChunkRef, item: Item<'_>) -> bool {
        let mut table = self.table.lock();
        let Some(entry) = table.entries.get_mut(&chunk) else { return false };
        entry.count -= 1;
        if entry.count > 0 {
            return false;
        }
        let (unlinked, revoked, bytes) = (entry.unlinked, entry.revoked, entry.bytes);
        if unlinked && !revoked {
            table.unlinked_bytes -= bytes;
        }
        table.entries.remove(&chunk);
        item.clear_bits(Shape::PINNED);
        unlinked
    }

    /// Bytes of values that are out of the index and not revoked.
    pub fn unlinked_bytes(&self) -> u64 {
        self.table.lock().unlinked_bytes
    }

    /// Pinned items.
    pub fn len(&self) -> usize {
        self.table.lock().entries.len()
    }
}

impl Table {
    /// Revokes the oldest entry of those meant; false where there is none.
    fn revoke(&mut self, meant: impl Fn(&Entry) -> bool) -> bool {
        let candidates = self.entries.values_mut().filter(|e| !e.revoked && meant(e));
        let Some(oldest) = candidates.min_by_key(|entry| entry.born) else { return false };
        oldest.revoked = true;
        if oldest.unlinked {
            self.unlinked_bytes -= oldest.bytes;
        }
        true
    }
}

/// Keeps an item's value as it is until dropped, whatever happens to its key.
pub struct Pin {
    store: Arc<Store>,
    shard: usize,
    chunk: ChunkRef,
    len: usize,
    /// What was sent of it.
    sent: Cursor,
}

impl Pin {
    /// Pins a linked item; its line is locked.
    pub(super) fn new(store: &Arc<Store>, shard: usize, chunk: ChunkRef, len: usize) -> Pin {
        let owner = store.shard_at(shard);
        owner.pins.pin(chunk, owner.item(chunk), len as u64, store.clock.now());
        Pin { store: store.clone(), shard, chunk, len, sent: Cursor::default() }
    }

    fn owner(&self) -> &Shard {
        self.store.shard_at(self.shard)
    }

    /// The value's bytes that are not sent yet, in order, chunk by chunk.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> + '_ {
        item::pinned_bytes(&self.owner().slabs, self.chunk, self.sent)
    }

    /// Notes that `n` more bytes are sent.
    pub fn advance(&mut self, n: usize) {
        let mut sent = self.sent;
        item::skip(&self.owner().slabs, self.chunk, &mut sent, n);
        self.sent = sent;
    }

    /// Bytes that are not sent yet.
    pub fn unsent(&self) -> usize {
        self.len - self.sent.at()
    }

    /// True where the value must not be sent any further: its memory is needed.
    pub fn is_revoked(&self) -> bool {
        self.owner().pins.is_revoked(self.chunk)
    }

    /// Appends the value's bytes: the model checker's words are not such that they could be lent.
    #[cfg(loom)]
    pub fn copy(&self, out: &mut Vec<u8>) {
        for segment in item::Chain::of(&self.owner().slabs, self.chunk) {
            segment.copy(out);
        }
    }

    /// Length of the value in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let owner = self.owner();
        if owner.pins.unpin(self.chunk, owner.item(self.chunk)) {
            owner.free(self.chunk);
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin").field("chunk", &self.chunk).field("len", &self.len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slab::sync::AtomicU32 as Word;

    #[test]
    fn the_oldest_pins_are_revoked_when_too_much_is_unlinked() {
        let words: Vec<Word> = (0..4).map(|_| Word::new(0)).collect();
        let item = Item::new(&words);
        let pins = Pins::new(250);
        let chunks: Vec<ChunkRef> = (0..4).map(|n| ChunkRef::at_word(n * 100)).collect();
        for chunk in &chunks {
            pins.pin(*chunk, item, 100, 7);
        }
        assert!(pins.leave_to_last(chunks[1]) && pins.leave_to_last(chunks[0]));
        assert_eq!(pins.revocations(), 0, "200 of 250 bytes");
        assert!(pins.leave_to_last(chunks[2]));
        let revoked: Vec<bool> = chunks.iter().map(|c| pins.is_revoked(*c)).collect();
        assert_eq!(revoked, [true, false, false, false], "the oldest that is unlinked");
        assert!(pins.unpin(chunks[0], item) && pins.unpin(chunks[1], item));
        pins.relieve(7 + SLOW - 1);
        assert!(!pins.is_revoked(chunks[2]), "it has just begun");
        pins.relieve(7 + SLOW);
        assert!(pins.is_revoked(chunks[2]) && !pins.is_revoked(chunks[3]), "the other is linked");
        assert!(!pins.unpin(chunks[3], item), "still in the index");
        assert!(!pins.leave_to_last(chunks[3]), "not pinned any more");
        assert!(pins.unpin(chunks[2], item));
        assert_eq!((pins.len(), pins.table.lock().unlinked_bytes), (0, 0));
    }
}
