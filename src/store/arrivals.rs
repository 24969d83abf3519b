//! Values that are still on their way, and what they may hold in all.
//!
//! A value has chunks for what came of it and no more. Those chunks are the business of whoever has
//! the lock of its [`Arrival`]: the connection that fills them, as a rule; the mover, which puts
//! others in their place; or a thread that needs their memory, and frees them. The connection then
//! finds none, drops what else comes, and says that memory ran out.
//!
//! What has not come whole may take up half of -m. Whatever would go beyond has the values dropped
//! that have taken nothing for the longest time; a value that is alone may be as large as -I
//! allows.
//!
//! The lock of a value is taken before any other, that of another value is only tried, and that of
//! the table is taken last and alone.

use super::shard::Shard;
use crate::item::{self, Cursor, State};
use slab::sync::{Mutex, MutexGuard};
use slab::{ChunkRef, ClassId, PageNo};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[cfg(test)]
mod tests;

/// Values that a thread tries to drop for one chunk: others may be at work on them.
const TRIED_MAX: usize = 16;

/// All values of a shard that are on their way.
pub(super) struct Arrivals {
    table: Mutex<Table>,
    /// Most bytes of their chunks together.
    most: AtomicU64,
}

#[derive(Default)]
struct Table {
    /// By the first chunk.
    entries: HashMap<ChunkRef, Entry>,
    /// The first chunks in the order in which the values last took some.
    order: BTreeMap<u64, ChunkRef>,
    /// Counts up whenever a value takes some.
    takes: u64,
    bytes: u64,
}

struct Entry {
    arrival: Arc<Arrival>,
    /// Its place in [`Table::order`].
    taken: u64,
    bytes: u64,
}

/// A value that is on its way.
pub(super) struct Arrival(Mutex<Option<Chunks>>);

/// The chunks of a value that is on its way. `None` in their place: they were freed, or are now
/// the caller's of [`Arrivals::finish`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks {
    pub head: ChunkRef,
    /// What there is room for.
    pub room: Room,
    /// How far it is filled.
    pub at: Cursor,
}

/// How much of a value the chunks that it has are for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub bytes: usize,
    /// The last of the chunks.
    pub last: ChunkRef,
}

impl Arrival {
    pub fn lock(&self) -> MutexGuard<'_, Option<Chunks>> {
        self.0.lock()
    }
}

impl Arrivals {
    pub fn new(most: u64) -> Arrivals {
        Arrivals { table: Mutex::new(Table::default()), most: AtomicU64::new(most) }
    }

    /// Changes the limit; [`Shard::drop_arrivals`] has it hold.
    pub fn set_most(&self, bytes: u64) {
        self.most.store(bytes, Relaxed);
    }

    /// A value that has just got its first chunk, of so many bytes.
    pub fn begin(&self, chunks: Chunks, bytes: u64) -> Arc<Arrival> {
        let arrival = Arc::new(Arrival(Mutex::new(Some(chunks))));
        let mut table = self.table.lock();
        let taken = table.next_take(chunks.head);
        table.bytes += bytes;
        table.entries.insert(chunks.head, Entry { arrival: arrival.clone(), taken, bytes });
        arrival
    }

    /// Counts more chunks, of so many bytes, for a value that the caller has locked.
    pub fn grow(&self, head: ChunkRef, bytes: u64) {
        let mut table = self.table.lock();
        let taken = table.next_take(head);
        let Some(entry) = table.entries.get_mut(&head) else { return };
        entry.bytes += bytes;
        let before = std::mem::replace(&mut entry.taken, taken);
        table.bytes += bytes;
        table.order.remove(&before);
    }

    /// A value that the caller has locked is whole, or will never be.
    pub fn finish(&self, head: ChunkRef) {
        let mut table = self.table.lock();
        let Some(entry) = table.entries.remove(&head) else { return };
        table.order.remove(&entry.taken);
        table.bytes -= entry.bytes;
    }

    /// Bytes of all their chunks.
    pub fn bytes(&self) -> u64 {
        self.table.lock().bytes
    }

    /// A value that the caller has locked has another first chunk.
    fn rename(&self, from: ChunkRef, to: ChunkRef) {
        let mut table = self.table.lock();
        let Some(entry) = table.entries.remove(&from) else { return };
        table.order.insert(entry.taken, to);
        table.entries.insert(to, entry);
    }

    fn find(&self, head: ChunkRef) -> Option<Arc<Arrival>> {
        self.table.lock().entries.get(&head).map(|entry| entry.arrival.clone())
    }

    /// Those that have taken nothing for the longest time, if `more` bytes would be too many.
    fn too_many(&self, more: u64) -> Vec<(ChunkRef, Arc<Arrival>)> {
        let table = self.table.lock();
        if table.bytes + more <= self.most.load(Relaxed) {
            return Vec::new();
        }
        let oldest = table.order.values().take(TRIED_MAX);
        oldest.map(|head| (*head, table.entries[head].arrival.clone())).collect()
    }
}

impl Table {
    fn next_take(&mut self, head: ChunkRef) -> u64 {
        self.takes += 1;
        self.order.insert(self.takes, head);
        self.takes
    }
}

impl Shard {
    /// Drops values that have taken nothing for the longest time until `more` bytes have room
    /// beside the others, or those that are left are being worked on. The caller may have a value
    /// locked.
    pub fn drop_arrivals(&self, more: u64) {
        loop {
            let oldest = self.arrivals.too_many(more);
            if !oldest.iter().any(|(head, arrival)| self.drop_arrival(*head, arrival)) {
                return;
            }
        }
    }

    /// Drops the value on its way that a reserved chunk is the first of or a body of; false where
    /// it is none, or somebody is at work on it.
    pub fn drop_arrival_of(&self, chunk: ChunkRef) -> bool {
        let head = if self.item(chunk).standing().is_body() {
            item::body_head(&self.slabs, chunk)
        } else {
            Some(chunk)
        };
        let found = head.and_then(|head| Some((head, self.arrivals.find(head)?)));
        found.is_some_and(|(head, arrival)| self.drop_arrival(head, &arrival))
    }

    fn drop_arrival(&self, head: ChunkRef, arrival: &Arrival) -> bool {
        let Some(mut chunks) = arrival.0.try_lock() else { return false };
        if chunks.take_if(|chunks| chunks.head == head).is_none() {
            return false;
        }
        self.free_arrival(head);
        true
    }

    /// Frees the chunks of a value that does not come whole, of which the caller has the lock. The
    /// pages that this empties are any class's at once, as far as theirs has more than it needs.
    pub fn free_arrival(&self, head: ChunkRef) {
        self.arrivals.finish(head);
        let place = |chunk| (self.slabs.page_of(chunk), self.slabs.class_of(chunk));
        let mut pages: Vec<(PageNo, ClassId)> =
            item::chunks_of(&self.slabs, head).map(place).collect();
        self.free(head);
        pages.sort_unstable();
        pages.dedup();
        for (page, class) in pages.into_iter().filter(|_| !self.rules.pages_alone) {
            self.give_back(class, page, true);
        }
    }

    /// Puts `fresh` in the place of a chunk of a value that is on its way, which `head` is the
    /// first of; false where somebody is at work on it, or it has no such chunk any more.
    pub fn move_arrival(&self, head: ChunkRef, chunk: ChunkRef, fresh: ChunkRef) -> bool {
        let Some(arrival) = self.arrivals.find(head) else { return false };
        let Some(mut guard) = arrival.0.try_lock() else { return false };
        let Some(chunks) = guard.as_mut().filter(|chunks| chunks.head == head) else {
            return false;
        };
        let class = self.slabs.class_of(chunk);
        if chunk == head {
            let (from, to) = (self.item(head), self.item(fresh));
            from.copy_to(self.slabs.geometry().whole_size(class), to);
            if from.shape().chained() {
                item::adopt_bodies(&self.slabs, fresh);
            }
            self.arrivals.rename(head, fresh);
            chunks.head = fresh;
        } else if !self.replace_body(head, chunk, fresh, class) {
            return false;
        }
        if chunks.room.last == chunk {
            chunks.room.last = fresh;
        }
        chunks.at.forget_place();
        self.put(chunk);
        true
    }

    /// True where the value on its way that `head` is the first chunk of can be moved, or dropped.
    pub fn is_arriving(&self, head: ChunkRef) -> bool {
        self.arrivals.find(head).is_some()
    }

    /// Whether the values on their way have what the table says, and as much of it as they need.
    pub fn check_arrivals(&self) -> Result<(), String> {
        let table = self.arrivals.table.lock();
        let mut sum = 0;
        for (head, entry) in &table.entries {
            let Some(chunks) = *entry.arrival.lock() else {
                return Err(format!("{head:?} is on its way and free"));
            };
            let all: Vec<ChunkRef> = item::chunks_of(&self.slabs, *head).collect();
            let bytes: u64 = all.iter().map(|chunk| self.whole_size(*chunk)).sum();
            let reserved = all.iter().all(|c| self.item(*c).standing().state() == State::Reserved);
            let (filled, room) = (chunks.at.at(), chunks.room);
            if chunks.head != *head || !reserved || bytes != entry.bytes || filled > room.bytes {
                return Err(format!("{head:?}: {chunks:?} with {all:?}, {bytes} bytes"));
            }
            if all.last() != Some(&room.last) || table.order.get(&entry.taken) != Some(head) {
                return Err(format!("{head:?}: {chunks:?} ends with {all:?}"));
            }
            sum += bytes;
        }
        if sum != table.bytes || table.order.len() != table.entries.len() {
            return Err(format!("{sum} bytes are on their way, {} counted", table.bytes));
        }
        Ok(())
    }
}
