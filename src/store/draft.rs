//! Items that are not linked yet: those whose value is here whole, and those that get room as it
//! comes.

use super::Store;
use super::arrivals::{Arrival, Chunks, Room};
use super::flush::Horizon;
use super::shard::Shard;
use super::types::{Local, Refusal};
use crate::item::{self, BODY_HEADER, Chain, Cursor, Plan, Shape};
use slab::ChunkRef;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Bytes that memcached spends on the chunk of a chain.
const CHUNK_HEADER: usize = 48;

/// Fields of an item to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft<'a> {
    pub key: &'a [u8],
    pub plan: Plan,
    /// 0: none.
    pub deadline: u32,
    pub client_flags: u32,
    /// Further bits of the shape.
    pub bits: u32,
    /// It is a changed copy of an item, which stays as it is where there is no memory for the copy:
    /// that may have what is in reserve.
    pub is_copy: bool,
}

impl Draft<'_> {
    /// The shape of the item, if it is a narrow one.
    pub fn narrow_shape(&self) -> Shape {
        let Plan { key_len, value_len, exptime, client_flags, cas, .. } = self.plan;
        let bit = |has: bool, bit: u32| if has { bit } else { 0 };
        let fields =
            bit(exptime, Shape::EXPTIME) | bit(client_flags, Shape::FLAGS) | bit(cas, Shape::CAS);
        Shape::narrow(key_len, value_len, self.bits | fields)
    }
}

impl Shard {
    /// A plan as it can be carried out here. Where nothing is evicted it has room for a deadline
    /// and a CAS unique from the start, as there may be no memory for them later.
    pub fn settled(&self, plan: Plan) -> Plan {
        let geometry = self.slabs.geometry();
        let (exptime, cas) = match self.rules.evict {
            true => (plan.exptime, plan.cas),
            false => (true, plan.cas || self.rules.use_cas),
        };
        Plan { exptime, cas, ..plan }.settled(geometry.chunk_size(geometry.largest()))
    }

    /// Reserves chunks for an item and writes all of it but the value and the CAS unique.
    pub fn draft(
        &self,
        l: &Local,
        draft: &Draft<'_>,
        horizon: Horizon,
    ) -> Result<ChunkRef, Refusal> {
        let (head, mut room) = self.draft_head(l, draft, horizon)?;
        let len = draft.plan.value_len as usize;
        while room.bytes < len {
            if !self.extend(l, head, &mut room, len, horizon) {
                self.free(head);
                return Err(Refusal::NoMemory);
            }
        }
        Ok(head)
    }

    /// The same without the bodies of a value that does not fit one chunk; and what there is room
    /// for.
    #[inline]
    pub fn draft_head(
        &self,
        l: &Local,
        draft: &Draft<'_>,
        horizon: Horizon,
    ) -> Result<(ChunkRef, Room), Refusal> {
        let geometry = self.slabs.geometry();
        let plan = self.settled(draft.plan);
        if self.charged_size(&plan) > self.rules.item_size_max as usize {
            return Err(Refusal::TooLarge);
        }
        let class = self.class_for(&plan);
        let chained = class.is_none();
        let class = class.unwrap_or(geometry.largest());
        let chunk = match draft.is_copy {
            true => self.allocate_for_copy(l, class, horizon),
            false => self.allocate(l, class, horizon),
        };
        let chunk = chunk.ok_or(Refusal::NoMemory)?;
        let item = self.item(chunk);
        let Plan { key_len, value_len, .. } = plan;
        let shape = if plan.wide {
            Shape::wide(key_len, chained, draft.bits)
        } else {
            Shape::narrow(key_len, value_len, draft.bits)
        };
        if plan.wide {
            item.put_wide(shape, value_len, 0);
        }
        item.reshape(shape);
        item.put_key(draft.key);
        if plan.exptime {
            item.put_deadline_field(item.shape(), draft.deadline);
        }
        if plan.client_flags {
            item.put_client_flags(item.shape(), draft.client_flags);
        }
        let largest = || geometry.chunk_size(geometry.largest()) as usize - plan.value_offset();
        let bytes = if chained { largest() } else { value_len as usize };
        Ok((chunk, Room { bytes, last: chunk }))
    }

    /// Adds a body to the chain of `head`, for a value of `len` bytes of which not all has room.
    /// The last one fits what is left, or is of the largest chunks where there is no memory for
    /// that.
    pub fn extend(
        &self,
        l: &Local,
        head: ChunkRef,
        room: &mut Room,
        len: usize,
        horizon: Horizon,
    ) -> bool {
        let geometry = self.slabs.geometry();
        let left = len - room.bytes;
        let (header, largest) = (self.body_header(), geometry.largest());
        let class = geometry.class_for(left + header).unwrap_or(largest);
        let body = self.allocate(l, class, horizon);
        let once_more = || if class == largest { None } else { self.allocate(l, largest, horizon) };
        let Some(body) = body.or_else(once_more) else { return false };
        let holds = geometry.chunk_size(self.slabs.class_of(body)) as usize - header;
        // Marked before it is part of the chain, so that nobody takes it for an item.
        self.make_body(body, head, left.min(holds));
        item::append_body(&self.slabs, head, room.last, body);
        *room = Room { bytes: room.bytes + left.min(holds), last: body };
        true
    }

    /// Bytes of a body's chunk that are not for the value.
    fn body_header(&self) -> usize {
        match self.rules.as_memcached {
            true => CHUNK_HEADER - self.slabs.geometry().tail() as usize,
            false => BODY_HEADER,
        }
    }

    /// Writes to a draft's value through `put`, from its start on.
    pub fn writer(&self, chunk: ChunkRef) -> ValueWriter<'_> {
        ValueWriter { shard: self, chunk, at: Cursor::default() }
    }
}

/// Fills a draft's value run by run.
pub(super) struct ValueWriter<'a> {
    shard: &'a Shard,
    chunk: ChunkRef,
    at: Cursor,
}

impl ValueWriter<'_> {
    pub fn put(&mut self, bytes: &[u8]) {
        item::fill(&self.shard.slabs, self.chunk, &mut self.at, bytes);
    }

    /// Puts another item's value, which must not change meanwhile.
    pub fn put_value_of(&mut self, l: &Local, chunk: ChunkRef) {
        let mut run = l.scratch.take();
        for segment in Chain::of(&self.shard.slabs, chunk) {
            run.clear();
            segment.copy(&mut run);
            self.put(&run);
        }
        l.scratch.set(run);
    }
}

/// A value that is on its way: not visible to anyone, freed when dropped. It has room for what came
/// of it.
pub struct Reservation {
    store: Arc<Store>,
    shard: usize,
    arrival: Arc<Arrival>,
    len: usize,
    /// Bytes that came.
    filled: usize,
}

impl Reservation {
    /// Of an item that has its first chunk, which there is `room` in.
    pub(super) fn new(
        store: &Arc<Store>,
        shard: usize,
        head: ChunkRef,
        room: Room,
        len: u32,
    ) -> Reservation {
        let owner = store.shard_at(shard);
        let bytes = owner.whole_size(head);
        let chunks = Chunks { head, room, at: Cursor::default() };
        let arrival = owner.arrivals.begin(chunks, bytes);
        // What is beyond the bound now goes from others.
        let guard = arrival.lock();
        owner.drop_arrivals(0);
        drop(guard);
        Reservation { store: store.clone(), shard, arrival, len: len as usize, filled: 0 }
    }

    fn owner(&self) -> &Shard {
        self.store.shard_at(self.shard)
    }

    /// As if it were being filled.
    #[cfg(test)]
    pub(super) fn lock(&self) -> impl Sized + '_ {
        self.arrival.lock()
    }

    /// Bytes of the value still to come.
    pub fn missing(&self) -> usize {
        self.len - self.filled
    }

    /// Takes bytes that came; returns how many are the value's. Where there is no memory for them,
    /// or what there was is somebody else's by now, the value will never be whole, and its chunks
    /// are free.
    pub fn fill(&mut self, l: &Local, bytes: &[u8]) -> Result<usize, Refusal> {
        let fits = &bytes[..bytes.len().min(self.missing())];
        self.with_room(l, fits.len(), |owner, chunks| {
            item::fill(&owner.slabs, chunks.head, &mut chunks.at, fits);
        })?;
        Ok(fits.len())
    }

    /// Reads from a socket, once, up to so many bytes as have come there; those that follow the
    /// value go to `behind`. Returns how many were read in all.
    #[cfg(not(any(loom, miri)))]
    pub fn fill_from(
        &mut self,
        l: &Local,
        socket: BorrowedFd<'_>,
        came: usize,
        behind: &mut [u8],
    ) -> Result<io::Result<usize>, Refusal> {
        let most = came.min(self.missing());
        let follow = behind.len().min(came - most);
        let behind = &mut behind[..follow];
        self.with_room(l, most, |owner, chunks| {
            item::fill_from(&owner.slabs, chunks.head, &mut chunks.at, most, behind, socket)
        })
    }

    /// The same by way of a buffer, for the checkers, which know no system call that writes to
    /// chunks.
    #[cfg(any(loom, miri))]
    pub fn fill_from(
        &mut self,
        l: &Local,
        socket: BorrowedFd<'_>,
        came: usize,
        _behind: &mut [u8],
    ) -> Result<io::Result<usize>, Refusal> {
        let mut bytes = vec![0; came.min(self.missing())];
        match rustix::io::read(socket, &mut bytes[..]) {
            Ok(n) => self.fill(l, &bytes[..n]).map(Ok),
            Err(e) => Ok(Err(e.into())),
        }
    }

    /// Lends the chunks with room for so many bytes more.
    fn with_room<T>(
        &mut self,
        l: &Local,
        more: usize,
        fill: impl FnOnce(&Shard, &mut Chunks) -> T,
    ) -> Result<T, Refusal> {
        let (owner, horizon) = (self.store.shard_at(self.shard), self.store.horizon());
        let mut guard = self.arrival.lock();
        let chunks = guard.as_mut().ok_or(Refusal::NoMemory)?;
        if !owner.make_room_for(l, chunks, self.len, self.filled + more, horizon) {
            let head = chunks.head;
            *guard = None;
            owner.free_arrival(head);
            return Err(Refusal::NoMemory);
        }
        let filled = fill(owner, chunks);
        self.filled = chunks.at.at();
        Ok(filled)
    }

    /// The filled draft, now the caller's to link or free; `None` where it was dropped for others.
    pub(super) fn into_chunk(self) -> Option<ChunkRef> {
        debug_assert_eq!(self.missing(), 0, "only whole values are committed");
        let chunks = self.arrival.lock().take()?;
        self.owner().arrivals.finish(chunks.head);
        Some(chunks.head)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut guard = self.arrival.lock();
        if let Some(chunks) = guard.take() {
            self.owner().free_arrival(chunks.head);
        }
    }
}

impl Shard {
    /// Sees to it that the first `wanted` of a value's `len` bytes have room; false where there is
    /// no memory for that. The caller has it locked.
    fn make_room_for(
        &self,
        l: &Local,
        chunks: &mut Chunks,
        len: usize,
        wanted: usize,
        horizon: Horizon,
    ) -> bool {
        if chunks.room.bytes >= wanted {
            return true;
        }
        let mut taken = 0;
        self.drop_arrivals((wanted - chunks.room.bytes) as u64);
        while chunks.room.bytes < wanted
            && self.extend(l, chunks.head, &mut chunks.room, len, horizon)
        {
            taken += self.whole_size(chunks.room.last);
        }
        self.arrivals.grow(chunks.head, taken);
        chunks.room.bytes >= wanted
    }

    /// Bytes from a chunk to the next.
    pub fn whole_size(&self, chunk: ChunkRef) -> u64 {
        u64::from(self.slabs.geometry().whole_size(self.slabs.class_of(chunk)))
    }
}
