//! A key's line, locked, and what can be done to its item while it is.

use super::Store;
use super::draft::Draft;
use super::flush::Horizon;
use super::index::{LineGuard, Slot};
use super::shard::Shard;
use super::types::{Key, KeyHash, Local};
use crate::clock::Deadline;
use crate::item::{Item, Plan, Shape, Standing};
use crate::stats::ClassCounters;
use crate::watch::Got;
use slab::ChunkRef;

/// The line of a key, locked until dropped. What it gives out and takes are chunks of its shard.
pub(super) struct Held<'a> {
    pub shard: &'a Shard,
    pub l: &'a Local,
    pub line: LineGuard<'a>,
    /// What is dead, as of the moment that the line was locked.
    pub horizon: Horizon,
}

/// Why an item is looked for, and so what finding a dead one counts as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    Write,
}

/// An item found under its line's lock.
pub(super) struct Found<'a> {
    pub slot: Slot<'a>,
    pub chunk: ChunkRef,
    pub item: Item<'a>,
    pub shape: Shape,
    pub standing: Standing,
}

impl Store {
    /// Locks the line of a hash.
    pub(super) fn hold<'a>(&'a self, l: &'a Local, hash: KeyHash) -> Held<'a> {
        let shard = self.shard_of(hash);
        let line = shard.index.lock(hash.0);
        Held { shard, l, line, horizon: self.horizon() }
    }
}

/// The plan of an item that gets these fields.
fn with_fields(plan: Plan, deadline: Option<Deadline>, cas: Option<u64>) -> Plan {
    let dated = deadline.is_some_and(|deadline| deadline != Deadline::NEVER);
    Plan { exptime: plan.exptime || dated, cas: plan.cas || cas.is_some(), ..plan }
}

impl<'a> Held<'a> {
    /// The item of the key, if it is alive; nothing is done to one that is not.
    #[inline]
    pub fn peek(&self, key: Key<'_>) -> Option<Found<'a>> {
        let found = self.locate(key)?;
        let (flushed, deadline) =
            (self.horizon.flushed(found.standing), found.item.deadline(found.shape));
        (!flushed && !self.horizon.expired(deadline)).then_some(found)
    }

    /// The item of the key, alive or not.
    #[inline]
    fn locate(&self, key: Key<'_>) -> Option<Found<'a>> {
        let shard = self.shard;
        let (slot, chunk) = self.line.find(|chunk| {
            let item = shard.item(chunk);
            item.key_is(item.shape(), key.bytes())
        })?;
        let item = shard.item(chunk);
        Some(Found { slot, chunk, item, shape: item.shape(), standing: item.standing() })
    }

    /// The live item of the key. A dead one is unlinked, counted and freed.
    pub fn find(&mut self, key: Key<'_>, purpose: Purpose) -> Option<Found<'a>> {
        let shard = self.shard;
        let (log, name) = (&self.l.log, key.bytes());
        let Some(found) = self.locate(key) else {
            log.missed(name, Got::NotFound);
            return None;
        };
        let Found { chunk, item, shape, standing, .. } = found;
        let flushed = self.horizon.flushed(standing);
        if !flushed && !self.horizon.expired(item.deadline(shape)) {
            log.got(name, Got::Found, || (shard.class_id(chunk), item.value_len(shape)));
            return Some(found);
        }
        log.missed(name, if flushed { Got::Flushed } else { Got::Expired });
        let (class, thread) = (self.class_counters(chunk), &self.l.counters.thread);
        // As memcached does, whatever it was looked for.
        if flushed {
            thread.get_flushed.bump()
        } else {
            thread.get_expired.bump()
        }
        if purpose == Purpose::Write {
            class.reclaimed.bump();
        }
        if !standing.fetched() {
            class.expired_unfetched.bump();
        }
        self.drop_found(found);
        None
    }

    /// The counters of a chunk's class.
    pub fn class_counters(&self, chunk: ChunkRef) -> &'a ClassCounters {
        self.shard.class_counters(self.l, self.shard.slabs.class_of(chunk))
    }

    /// A chunk that has just been linked, as it would have been found.
    pub fn linked(&self, slot: Slot<'a>, chunk: ChunkRef) -> Found<'a> {
        let item = self.shard.item(chunk);
        Found { slot, chunk, item, shape: item.shape(), standing: item.standing() }
    }

    // Linking

    /// Puts a finished item in the place of a found one.
    pub fn link_over(&mut self, old: Found<'a>, chunk: ChunkRef) {
        let item = self.shard.item(chunk);
        self.shard.seal(self.l, chunk, self.horizon);
        // The newcomer inherits its predecessor's counter and place.
        item.set_standing(old.standing.stored_over(self.horizon.stamp));
        self.shard.inherit_queue(self.l, chunk, old.shape);
        self.shard.note_deadline(chunk);
        self.line.replace(old.slot, chunk);
        self.shard.replaced(self.l, old.chunk, chunk);
        self.note_stored(chunk);
        self.l.counters.thread.total_items.bump();
        self.shard.free_replaced(self.l, old.chunk);
    }

    /// Adds a finished item under its line; false where the index has no room for it, even after
    /// evicting one of the line's own.
    pub fn link_new(&mut self, chunk: ChunkRef) -> bool {
        let item = self.shard.item(chunk);
        self.shard.seal(self.l, chunk, self.horizon);
        item.set_standing(Standing::linked(0, self.horizon.stamp));
        if self.line.insert(chunk).is_err()
            && !self.shard.insert_by_force(self.l, &mut self.line, chunk, self.horizon)
        {
            item.set_standing(Standing::RESERVED);
            return false;
        }
        self.shard.admit(self.l, chunk, self.line.hash());
        self.shard.note_deadline(chunk);
        self.shard.linked(self.l, chunk);
        self.note_stored(chunk);
        self.l.counters.thread.total_items.bump();
        true
    }

    /// Tells the duel of policies that a sampled key was read.
    #[inline]
    pub fn note_read(&self, chunk: ChunkRef, deadline: u32) {
        let hash = self.line.hash();
        if self.shard.duel.samples(hash) {
            let class = self.shard.slabs.class_of(chunk);
            self.shard.duel.read(hash, Some((class, deadline)), self.horizon);
        }
    }

    /// Tells it that one was stored.
    #[inline]
    pub fn note_stored(&self, chunk: ChunkRef) {
        let hash = self.line.hash();
        if self.shard.duel.samples(hash) {
            let item = self.shard.item(chunk);
            let (class, deadline) = (self.shard.slabs.class_of(chunk), item.deadline(item.shape()));
            self.shard.duel.stored(hash, class, deadline, self.horizon);
        }
    }

    // Fields that come later: in place where the chunk has the room and no later field is in the
    // way; else in a fresh chunk, swapped as by a set. Where there is no memory for that, nothing
    // was done.

    /// Gives a found item a new deadline, a new CAS unique, or both, in place or in a fresh chunk.
    /// `None`: there is no memory for one, and the item is as it was.
    pub fn change_fields(
        &mut self,
        found: Found<'a>,
        deadline: Option<Deadline>,
        cas: Option<u64>,
    ) -> Option<Found<'a>> {
        if !self.has_room(&found, deadline, cas) {
            return self.recast(&found, deadline, cas, None);
        }
        let size = self.shard.chunk_size(found.chunk);
        let found = match deadline {
            Some(deadline) => self.put_deadline(found, deadline, size),
            None => found,
        };
        Some(match cas {
            Some(cas) => self.put_cas(found, cas, size),
            None => found,
        })
    }

    /// True where these fields can be stored in place.
    pub fn has_room(
        &self,
        found: &Found<'a>,
        deadline: Option<Deadline>,
        cas: Option<u64>,
    ) -> bool {
        let plan = found.item.plan(found.shape);
        let wanted = with_fields(plan, deadline, cas);
        // A deadline comes before the other fields, whose place is taken.
        let in_the_way = wanted.exptime && !plan.exptime && (plan.client_flags || plan.cas);
        plan.wide || !in_the_way && wanted.size() <= self.shard.chunk_size(found.chunk) as usize
    }

    /// Stores a deadline in a found item that has a place for it.
    fn put_deadline(&mut self, found: Found<'a>, deadline: Deadline, size: u32) -> Found<'a> {
        let before = found.item.plan(found.shape);
        self.line.dirty();
        let put = |item: Item<'_>| item.put_deadline(found.shape, deadline.0, size);
        let stored = self.shard.change_sealed(self.l, found.chunk, put);
        debug_assert!(stored, "a place for a deadline");
        self.shard.reshaped(self.l, found.chunk, &before);
        self.shard.note_deadline(found.chunk);
        Found { shape: found.item.shape(), ..found }
    }

    /// Stores a CAS unique in a found item that has a place for it.
    fn put_cas(&mut self, found: Found<'a>, cas: u64, size: u32) -> Found<'a> {
        let before = found.item.plan(found.shape);
        self.line.dirty();
        let stored = found.item.put_cas(found.shape, cas, size);
        debug_assert!(stored, "a place for a CAS unique");
        self.shard.reshaped(self.l, found.chunk, &before);
        Found { shape: found.item.shape(), ..found }
    }

    /// Copies a found item to a fresh chunk, with `value`, a deadline and a CAS unique instead of
    /// its own where there are such, and swaps the two. `None`: there is no memory for one.
    pub fn recast(
        &mut self,
        found: &Found<'a>,
        deadline: Option<Deadline>,
        cas: Option<u64>,
        value: Option<&[u8]>,
    ) -> Option<Found<'a>> {
        let plan = with_fields(found.item.plan(found.shape), deadline, cas);
        let mut key = Vec::with_capacity(Key::MAX + 8);
        found.item.copy_key(found.shape, &mut key);
        let kept = Shape::BINARY_KEY | Shape::STALE | Shape::WIN | Shape::TEMP;
        let draft = Draft {
            key: &key,
            plan,
            deadline: deadline.map_or_else(|| found.item.deadline(found.shape), |d| d.0),
            client_flags: found.item.client_flags(found.shape),
            bits: found.shape.0 & kept,
            is_copy: true,
        };
        let chunk = self.shard.draft(self.l, &draft, self.horizon).ok()?;
        match value {
            Some(value) => self.shard.writer(chunk).put(value),
            None => self.shard.writer(chunk).put_value_of(self.l, found.chunk),
        }
        if plan.cas {
            self.shard.put_cas(chunk, cas.unwrap_or_else(|| found.item.cas(found.shape)));
        }
        let item = self.shard.item(chunk);
        self.shard.seal(self.l, chunk, self.horizon);
        item.set_standing(found.item.standing());
        self.shard.inherit_queue(self.l, chunk, found.shape);
        self.shard.note_deadline(chunk);
        self.line.replace(found.slot, chunk);
        self.shard.replaced(self.l, found.chunk, chunk);
        self.shard.free(found.chunk);
        Some(self.linked(found.slot, chunk))
    }

    /// Takes a found item out of the index and frees it.
    pub fn drop_found(&mut self, found: Found<'a>) {
        self.line.remove(found.slot);
        self.shard.unlinked(self.l, found.chunk);
        let hash = self.line.hash();
        if self.shard.duel.samples(hash) {
            self.shard.duel.removed(hash);
        }
        self.shard.free(found.chunk);
    }
}
