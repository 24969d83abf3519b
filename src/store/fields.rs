//! Optional fields that come to an item when it is already linked: a deadline, a CAS unique.
//!
//! In place where its chunk has the room and no later field is in the way; else the item is copied
//! to a fresh chunk that has, and the two are swapped as a set would.

use super::Store;
use super::draft::Draft;
use super::index::LineGuard;
use super::shard::{Found, Shard};
use super::types::{Key, Local};
use crate::clock::Deadline;
use crate::item::{Plan, Shape};

impl Store {
    /// Gives a found item a new deadline, in place or in a fresh chunk. `None` where neither can
    /// be: the item is dropped, lest it outlive what was asked.
    pub(super) fn redate<'a>(
        &'a self,
        l: &Local,
        shard: &'a Shard,
        line: &mut LineGuard<'a>,
        found: Found<'a>,
        deadline: Deadline,
    ) -> Option<Found<'a>> {
        let before = found.item.plan(found.shape);
        let size = shard.chunk_size(found.chunk);
        line.dirty();
        if found.item.put_deadline(found.shape, deadline.0, size) {
            shard.reshaped(l, found.chunk, &before);
            shard.note_deadline(found.chunk);
            return Some(Found { shape: found.item.shape(), ..found });
        }
        let plan = Plan { exptime: true, ..before };
        match self.recast(l, shard, line, &found, plan, deadline.0) {
            Some(found) => Some(found),
            None => {
                self.drop_found(l, shard, line, found);
                None
            }
        }
    }

    /// Gives a found item its first CAS unique. Where no memory can be had for it, it is handed
    /// out unstored: a later `cas` with it answers EXISTS, which is safe.
    pub(super) fn give_cas<'a>(
        &'a self,
        l: &Local,
        shard: &'a Shard,
        line: &mut LineGuard<'a>,
        found: Found<'a>,
    ) -> (Found<'a>, Option<u64>) {
        let cas = self.next_cas();
        match self.change_cas(l, shard, line, found, cas) {
            Ok(found) => (found, None),
            Err(found) => (found, Some(cas)),
        }
    }

    /// Stores a CAS unique in a found item, in place or in a fresh chunk.
    pub(super) fn change_cas<'a>(
        &'a self,
        l: &Local,
        shard: &'a Shard,
        line: &mut LineGuard<'a>,
        found: Found<'a>,
        cas: u64,
    ) -> Result<Found<'a>, Found<'a>> {
        let before = found.item.plan(found.shape);
        line.dirty();
        if found.item.put_cas(found.shape, cas, shard.chunk_size(found.chunk)) {
            shard.reshaped(l, found.chunk, &before);
            return Ok(Found { shape: found.item.shape(), ..found });
        }
        let deadline = found.item.deadline(found.shape);
        let plan = Plan { cas: true, ..before };
        match self.recast(l, shard, line, &found, plan, deadline) {
            Some(fresh) => {
                shard.put_cas(fresh.chunk, cas);
                Ok(Found { shape: fresh.item.shape(), ..fresh })
            }
            None => Err(found),
        }
    }

    /// Copies a found item to a fresh chunk with room for what `plan` adds, and swaps the two.
    fn recast<'a>(
        &'a self,
        l: &Local,
        shard: &'a Shard,
        line: &mut LineGuard<'a>,
        found: &Found<'a>,
        plan: Plan,
        deadline: u32,
    ) -> Option<Found<'a>> {
        let mut key = Vec::with_capacity(Key::MAX + 8);
        found.item.copy_key(found.shape, &mut key);
        let kept = Shape::BINARY_KEY | Shape::STALE | Shape::WIN | Shape::TEMP;
        let draft = Draft {
            key: &key,
            plan,
            deadline,
            client_flags: found.item.client_flags(found.shape),
            bits: found.shape.0 & kept,
        };
        let chunk = shard.draft(l, &draft, self.horizon()).ok()?;
        shard.writer(chunk).put_value_of(l, found.chunk);
        if found.shape.has(Shape::CAS) {
            shard.put_cas(chunk, found.item.cas(found.shape));
        } else if plan.cas {
            // Counted as having one from the moment it is linked.
            shard.put_cas(chunk, 0);
        }
        let item = shard.item(chunk);
        item.set_standing(found.item.standing());
        shard.inherit_probation(chunk, found.shape);
        shard.note_deadline(chunk);
        shard.unlinked(l, found.chunk);
        line.replace(found.slot, chunk);
        shard.linked(l, chunk);
        shard.free(found.chunk);
        Some(Found {
            slot: found.slot,
            chunk,
            item,
            shape: item.shape(),
            standing: item.standing(),
        })
    }

    /// Takes a found item out of the index and frees it.
    pub(super) fn drop_found<'a>(
        &self,
        l: &Local,
        shard: &Shard,
        line: &mut LineGuard<'a>,
        found: Found<'a>,
    ) {
        line.remove(found.slot);
        shard.unlinked(l, found.chunk);
        shard.free(found.chunk);
    }
}
