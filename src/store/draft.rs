//! Items that are not linked yet: room for a value, whole, before its first byte is written.

use super::Store;
use super::flush::Horizon;
use super::shard::Shard;
use super::types::{Local, Refusal};
use crate::item::{self, BODY_HEADER, Chain, Cursor, Plan, Shape};
use slab::ChunkRef;
use std::io::{self, Read};
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
        if chained {
            match self.bodies(l, chunk, &plan, horizon) {
                Some(first) => item.put_wide(shape, value_len, first),
                None => {
                    self.free(chunk);
                    return Err(Refusal::NoMemory);
                }
            }
        }
        item.reshape(shape);
        item.put_key(draft.key);
        if plan.exptime {
            item.put_deadline_field(item.shape(), draft.deadline);
        }
        if plan.client_flags {
            item.put_client_flags(item.shape(), draft.client_flags);
        }
        Ok(chunk)
    }

    /// Reserves and links the bodies of a value that does not fit its head; the first, as u32.
    fn bodies(&self, l: &Local, head: ChunkRef, plan: &Plan, horizon: Horizon) -> Option<u32> {
        let geometry = self.slabs.geometry();
        let largest = geometry.chunk_size(geometry.largest()) as usize;
        let mut left = plan.value_len as usize - (largest - plan.value_offset());
        let header = match self.rules.as_memcached {
            true => CHUNK_HEADER - geometry.tail() as usize,
            false => BODY_HEADER,
        };
        let mut bodies = Vec::with_capacity(left.div_ceil(largest - header));
        while left > 0 {
            let class = geometry.class_for(left + header).unwrap_or(geometry.largest());
            let Some(body) = self.allocate(l, class, horizon) else {
                self.free_bodies(&bodies);
                return None;
            };
            let len = left.min(geometry.chunk_size(class) as usize - header);
            // Marked at once, so that nobody takes it for an item.
            self.make_body(body, head, len);
            left -= len;
            bodies.push(body);
        }
        for pair in bodies.windows(2) {
            let (head, len) = (head.to_u32(), item::body_len(&self.slabs, pair[0]));
            item::make_body(&self.slabs, pair[0], head, pair[1].to_u32(), len);
        }
        Some(bodies[0].to_u32())
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

/// Room for a value that is still on its way: not visible to anyone, freed when dropped.
pub struct Reservation {
    store: Arc<Store>,
    shard: usize,
    chunk: Option<ChunkRef>,
    len: usize,
    at: Cursor,
}

impl Reservation {
    pub(super) fn new(store: &Arc<Store>, shard: usize, chunk: ChunkRef, len: u32) -> Reservation {
        Reservation {
            store: store.clone(),
            shard,
            chunk: Some(chunk),
            len: len as usize,
            at: Cursor::default(),
        }
    }

    /// Bytes of the value still to come.
    pub fn missing(&self) -> usize {
        self.len - self.at.at()
    }

    /// Takes bytes that were already read; returns how many fitted.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let fits = &bytes[..bytes.len().min(self.missing())];
        if let Some(chunk) = self.chunk {
            item::fill(&self.store.shard_at(self.shard).slabs, chunk, &mut self.at, fits);
        }
        fits.len()
    }

    /// Reads from `source` straight into the chunks, once. 0 is the end of `source`.
    pub fn fill_from(&mut self, source: &mut impl Read) -> io::Result<usize> {
        let Some(chunk) = self.chunk else { return Ok(0) };
        let slabs = &self.store.shard_at(self.shard).slabs;
        item::fill_from(slabs, chunk, &mut self.at, source)
    }

    /// The filled draft, now the caller's to link or free.
    pub(super) fn into_chunk(mut self) -> Option<ChunkRef> {
        debug_assert_eq!(self.missing(), 0, "only whole values are committed");
        self.chunk.take()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            self.store.shard_at(self.shard).free(chunk);
        }
    }
}
