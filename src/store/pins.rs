//! Items whose value is being sent from its chunks.
//!
//! The pinned bit in the item says that it has an entry here; both change under the table's lock.
//! The table is bounded by the connections: each sends at most one output's worth of values.

use super::Store;
use super::shard::Shard;
use crate::item::{self, Item, Shape};
use parking_lot::Mutex;
use slab::ChunkRef;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Pins {
    table: Mutex<HashMap<ChunkRef, Entry>>,
}

#[derive(Default)]
struct Entry {
    count: u32,
    /// Out of the index: freed with the last pin.
    unlinked: bool,
}

impl Pins {
    /// Pins an item that is linked, under its line's lock.
    fn pin(&self, chunk: ChunkRef, item: Item<'_>) {
        let mut table = self.table.lock();
        table.entry(chunk).or_default().count += 1;
        item.set_bits(Shape::PINNED);
    }

    /// True where an item that has just left the index is pinned: it will be freed by the last
    /// [`Pin`].
    pub fn leave_to_last(&self, chunk: ChunkRef) -> bool {
        match self.table.lock().get_mut(&chunk) {
            Some(entry) => {
                entry.unlinked = true;
                true
            }
            None => false,
        }
    }

    /// Gives a pin back; true where the item must be freed now.
    fn unpin(&self, chunk: ChunkRef, item: Item<'_>) -> bool {
        let mut table = self.table.lock();
        let Some(entry) = table.get_mut(&chunk) else { return false };
        entry.count -= 1;
        if entry.count > 0 {
            return false;
        }
        let unlinked = entry.unlinked;
        table.remove(&chunk);
        item.clear_bits(Shape::PINNED);
        unlinked
    }

    /// Pinned items.
    pub fn len(&self) -> usize {
        self.table.lock().len()
    }
}

/// Keeps an item's value as it is until dropped, whatever happens to its key.
pub struct Pin {
    store: Arc<Store>,
    shard: usize,
    chunk: ChunkRef,
    len: usize,
}

impl Pin {
    /// Pins a linked item; its line is locked.
    pub(super) fn new(store: &Arc<Store>, shard: usize, chunk: ChunkRef, len: usize) -> Pin {
        let owner = store.shard_at(shard);
        owner.pins.pin(chunk, owner.item(chunk));
        Pin { store: store.clone(), shard, chunk, len }
    }

    fn owner(&self) -> &Shard {
        self.store.shard_at(self.shard)
    }

    /// The value's bytes in order, chunk by chunk.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> + '_ {
        item::pinned_bytes(&self.owner().slabs, self.chunk)
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
