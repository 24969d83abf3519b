//! Writes of whole values: reserve → fill → commit, and the fields that come to items later.

use super::Store;
use super::draft::{Draft, Reservation};
use super::flush::Horizon;
use super::held::{Found, Held, Purpose};
use super::index::LineGuard;
use super::read::bump_unfetched;
use super::requests::{Set, SetMode};
use super::shard::Shard;
use super::tell::Kept;
use super::types::{Key, KeyHash, Local, Outcome, Refusal};
use crate::clock::Deadline;
use crate::item::{Plan, Shape};
use crate::watch::Stored;
use slab::ChunkRef;
use std::sync::Arc;

/// What an append or prepend adds.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Bytes(&'a [u8]),
    /// A filled draft.
    Chunk(ChunkRef),
}

/// An item of `key` with a value of `value_len` bytes and no client flags.
pub(super) fn draft_of(
    key: Key<'_>,
    value_len: u32,
    deadline: Deadline,
    bits: u32,
    cas: bool,
) -> Draft<'_> {
    let plan = Plan {
        key_len: key.bytes().len(),
        value_len,
        exptime: deadline != Deadline::NEVER,
        client_flags: false,
        cas,
        wide: false,
    };
    let key = key.bytes();
    Draft { key, plan, deadline: deadline.0, client_flags: 0, bits, is_copy: false }
}

impl Store {
    /// Stores a value that is here whole.
    pub fn set(
        self: &Arc<Self>,
        l: &Local,
        set: &Set<'_>,
        hash: KeyHash,
        value: &[u8],
    ) -> Result<Outcome, Refusal> {
        debug_assert_eq!(value.len(), set.len as usize);
        let shard = self.shard_of(hash);
        if matches!(set.mode, SetMode::Append | SetMode::Prepend) {
            self.admit_piece(l, shard, set, hash)?;
            return self.append(l, set, hash, Piece::Bytes(value));
        }
        if let Some(outcome) = self.overwrite(l, set, hash, value) {
            return Ok(outcome);
        }
        let chunk = self.draft_set(l, shard, set, hash)?;
        shard.writer(chunk).put(value);
        Ok(self.commit_chunk(l, set, hash, chunk))
    }

    /// Refuses a value that is larger than -I allows, before anything of it has come. That is
    /// counted and, where the command says so, deletes the old value.
    pub fn admit(&self, l: &Local, set: &Set<'_>, hash: KeyHash) -> Result<(), Refusal> {
        let shard = self.shard_of(hash);
        let plan = shard.settled(self.draft_for(set).plan);
        if shard.charged_size(&plan) > shard.rules.item_size_max as usize {
            self.refused(l, set, hash, Refusal::TooLarge);
            return Err(Refusal::TooLarge);
        }
        Ok(())
    }

    /// The first room for a value of which something has come. A refusal is counted and, where the
    /// command says so, deletes the old value.
    pub fn reserve(
        self: &Arc<Self>,
        l: &Local,
        set: &Set<'_>,
        hash: KeyHash,
    ) -> Result<Reservation, Refusal> {
        let shard_no = self.shard_no(hash);
        let shard = self.shard_at(shard_no);
        let made = shard.draft_head(l, &self.draft_for(set), self.horizon());
        let (head, room) = made.inspect_err(|refusal| self.refused(l, set, hash, *refusal))?;
        shard.class_counters(l, shard.slabs.class_of(head)).set_cmds.bump();
        Ok(Reservation::new(self, shard_no, head, room, set.len))
    }

    /// What becomes of a command whose value was dropped on its way, as there is no memory for it.
    /// As in memcached, which has room for the whole of a value up to its largest chunk before any
    /// of it comes, the old value outlives only a larger one.
    pub fn give_up(&self, l: &Local, set: &Set<'_>, hash: KeyHash) -> Refusal {
        let shard = self.shard_of(hash);
        let plan = shard.settled(self.draft_for(set).plan);
        if shard.charged_size(&plan) > self.settings.slab_chunk_size_max as usize {
            return Refusal::NoMemoryOnTheWay;
        }
        self.refused(l, set, hash, Refusal::NoMemory);
        Refusal::NoMemory
    }

    /// Links a filled reservation. `set` is the command that it was reserved for.
    pub fn commit(
        &self,
        l: &Local,
        reservation: Reservation,
        set: &Set<'_>,
        hash: KeyHash,
    ) -> Result<Outcome, Refusal> {
        let shard = self.shard_of(hash);
        let chunk = reservation.into_chunk().ok_or_else(|| self.give_up(l, set, hash))?;
        if matches!(set.mode, SetMode::Append | SetMode::Prepend) {
            let outcome = self.append(l, set, hash, Piece::Chunk(chunk));
            shard.free(chunk);
            return outcome;
        }
        Ok(self.commit_chunk(l, set, hash, chunk))
    }

    /// The item of a storage command.
    pub(super) fn draft_for<'a>(&self, set: &Set<'a>) -> Draft<'a> {
        let deadline = self.clock.deadline(set.exptime);
        let plan = Plan {
            key_len: set.key.bytes().len(),
            value_len: set.len,
            // An invalidating set takes over the deadline of the item that it replaces. Where
            // nothing is evicted, each item has one: see `Shard::settled`.
            exptime: deadline != Deadline::NEVER || set.invalidate || !self.settings.evict,
            client_flags: set.client_flags != 0,
            cas: self.use_cas && (set.return_cas || set.new_cas.is_some()),
            wide: false,
        };
        let bits = self.bits_for(deadline, set.binary_key);
        let (key, client_flags) = (set.key.bytes(), set.client_flags);
        Draft { key, plan, deadline: deadline.0, client_flags, bits, is_copy: false }
    }

    /// Reserves the item of a storage command, or refuses it.
    fn draft_set(
        &self,
        l: &Local,
        shard: &Shard,
        set: &Set<'_>,
        hash: KeyHash,
    ) -> Result<ChunkRef, Refusal> {
        let draft = self.draft_for(set);
        let made = shard.draft(l, &draft, self.horizon());
        match made {
            Ok(chunk) => {
                shard.class_counters(l, shard.slabs.class_of(chunk)).set_cmds.bump();
                Ok(chunk)
            }
            Err(refusal) => {
                self.refused(l, set, hash, refusal);
                Err(refusal)
            }
        }
    }

    /// What memcached would reserve for a piece to append: one too large is refused, and any other
    /// counts as a set.
    fn admit_piece(
        &self,
        l: &Local,
        shard: &Shard,
        set: &Set<'_>,
        hash: KeyHash,
    ) -> Result<(), Refusal> {
        let plan = self.piece_plan(shard, set);
        if shard.charged_size(&plan) > shard.rules.item_size_max as usize {
            self.refused(l, set, hash, Refusal::TooLarge);
            return Err(Refusal::TooLarge);
        }
        shard.class_counters(l, shard.class_or_largest(&plan)).set_cmds.bump();
        Ok(())
    }

    fn piece_plan(&self, shard: &Shard, set: &Set<'_>) -> Plan {
        let deadline = self.clock.deadline(set.exptime);
        let mut draft = draft_of(set.key, set.len, deadline, 0, false);
        draft.plan.client_flags = set.client_flags != 0;
        shard.settled(draft.plan)
    }

    /// A piece that was not appended, as watchers are told of it.
    fn piece(&self, shard: &Shard, set: &Set<'_>) -> Kept {
        let class = shard.class_or_largest(&self.piece_plan(shard, set));
        let deadline = self.clock.deadline(set.exptime);
        Kept { deadline, class: class.0.into(), len: set.len }
    }

    fn bits_for(&self, deadline: Deadline, binary_key: bool) -> u32 {
        let temp = self
            .knobs
            .temporary_ttl()
            .is_some_and(|ttl| deadline != Deadline::NEVER && deadline.0 <= self.clock.now() + ttl);
        let mut bits = if binary_key { Shape::BINARY_KEY } else { 0 };
        if temp {
            bits |= Shape::TEMP;
        }
        bits
    }

    /// Counts a refusal, and lets no old value outlive a newer one that was refused.
    fn refused(&self, l: &Local, set: &Set<'_>, hash: KeyHash, why: Refusal) {
        l.tell_refused(set, why);
        match why {
            Refusal::TooLarge => l.counters.thread.store_too_large.bump(),
            Refusal::NoMemory | Refusal::NoMemoryOnTheWay => {
                l.counters.thread.store_no_memory.bump();
            }
        }
        if set.drop_old_on_refusal {
            let mut held = self.hold(l, hash);
            if let Some(old) = held.find(set.key, Purpose::Write) {
                held.drop_found(old);
            }
        }
    }

    /// Links a filled draft if the command's condition holds; frees it where not.
    fn commit_chunk(&self, l: &Local, set: &Set<'_>, hash: KeyHash, chunk: ChunkRef) -> Outcome {
        let mut held = self.hold(l, hash);
        let shard = held.shard;
        let old = held.find(set.key, Purpose::Write);
        if let Some(refusal) = self.judge(&held, set, old.as_ref()) {
            held.tell_stored(set, refusal.into(), || shard.kept(chunk));
            drop(held);
            shard.free(chunk);
            return refusal;
        }
        if let Some(old) = old.as_ref()
            && set.mode == SetMode::Cas
            && !cas_matches(set.compare_cas, old)
        {
            store_as_stale(shard, chunk, old);
        }
        self.link(held, set, old, chunk, set.len)
    }

    /// Links a filled draft, with a CAS unique where it needs one, over an old item or as a new
    /// one.
    fn link<'a>(
        &self,
        mut held: Held<'a>,
        set: &Set<'_>,
        old: Option<Found<'a>>,
        chunk: ChunkRef,
        len: u32,
    ) -> Outcome {
        let (l, shard) = (held.l, held.shard);
        let cas = self.cas_for(set.new_cas, set.return_cas);
        if let Some(cas) = cas {
            shard.put_cas(chunk, cas);
        }
        match old {
            Some(old) => held.link_over(old, chunk),
            None if held.link_new(chunk) => {}
            None => {
                held.tell_stored(set, Stored::NoMemory, || shard.kept(chunk));
                drop(held);
                shard.free(chunk);
                l.counters.thread.store_no_memory.bump();
                return Outcome::NoMemory;
            }
        }
        held.tell_stored(set, Stored::Stored, || shard.kept(chunk));
        Outcome::Stored { cas: cas.filter(|_| set.return_cas), len }
    }

    /// Why a storage command (but append and prepend) is not carried out; `None`: it is.
    fn judge(&self, held: &Held<'_>, set: &Set<'_>, old: Option<&Found<'_>>) -> Option<Outcome> {
        match (set.mode, old) {
            (SetMode::Set, _) | (SetMode::Replace, Some(_)) | (SetMode::Add, None) => None,
            (SetMode::Add, Some(old)) => {
                bump_unfetched(old.item, old.standing, held.horizon.stamp);
                Some(Outcome::NotStored)
            }
            (SetMode::Cas, Some(old)) => {
                let class = held.class_counters(old.chunk);
                let matches = cas_matches(set.compare_cas, old);
                if matches || (set.invalidate && cas_is_older(set.compare_cas, old)) {
                    class.cas_hits.bump();
                    return None;
                }
                class.cas_badval.bump();
                Some(Outcome::Exists)
            }
            (SetMode::Cas, None) => {
                held.l.counters.thread.cas_misses.bump();
                Some(Outcome::NotFound)
            }
            _ => Some(Outcome::NotStored),
        }
    }

    /// The CAS unique that a changed item gets: the client's, or the next where the answer or the
    /// item itself needs one.
    pub(super) fn cas_for(&self, asked: Option<u64>, needed: bool) -> Option<u64> {
        if !self.use_cas {
            return None;
        }
        asked.or_else(|| needed.then(|| self.next_cas()))
    }

    // Append and prepend

    /// Adds to a value by writing a new item of both.
    fn append(
        &self,
        l: &Local,
        set: &Set<'_>,
        hash: KeyHash,
        piece: Piece<'_>,
    ) -> Result<Outcome, Refusal> {
        let mut held = self.hold(l, hash);
        let shard = held.shard;
        let old = held.find(set.key, Purpose::Write);
        let cas_room = self.use_cas && (set.return_cas || set.new_cas.is_some());
        let (deadline, client_flags, old_len, bits) = match (&old, set.vivify) {
            (Some(old), _) => {
                let compared = set.compare_cas.filter(|cas| *cas != 0);
                if compared.is_some() && !cas_matches(compared, old) {
                    held.tell_stored(set, Stored::Exists, || self.piece(shard, set));
                    return Ok(Outcome::Exists);
                }
                let (item, shape) = (old.item, old.shape);
                let bits = shape.0 & (Shape::BINARY_KEY | Shape::TEMP);
                (item.deadline(shape), item.client_flags(shape), item.value_len(shape), bits)
            }
            (None, Some(exptime)) => {
                let deadline = self.clock.deadline(exptime);
                (deadline.0, set.client_flags, 0, self.bits_for(deadline, set.binary_key))
            }
            (None, None) => {
                held.tell_stored(set, Stored::NotStored, || self.piece(shard, set));
                return Ok(Outcome::NotStored);
            }
        };
        let len = old_len.saturating_add(set.len);
        let plan = Plan {
            key_len: set.key.bytes().len(),
            value_len: len,
            exptime: deadline != 0,
            client_flags: client_flags != 0,
            cas: cas_room,
            wide: false,
        };
        let key = set.key.bytes();
        let draft = Draft { key, plan, deadline, client_flags, bits, is_copy: false };
        let Ok(chunk) = shard.draft(l, &draft, held.horizon) else {
            held.tell_stored(set, Stored::NotStored, || self.piece(shard, set));
            return Ok(Outcome::NotStored);
        };
        join(&held, chunk, old.as_ref(), piece, set.mode == SetMode::Prepend);
        Ok(self.link(held, set, old, chunk, len))
    }
}

/// Marks the draft of an invalidating set with an older CAS unique: it keeps the deadline and the
/// win of the item that it replaces, and is stale.
fn store_as_stale(shard: &Shard, chunk: ChunkRef, old: &Found<'_>) {
    let item = shard.item(chunk);
    item.put_deadline_field(item.shape(), old.item.deadline(old.shape));
    item.set_bits(Shape::STALE | (old.shape.0 & Shape::WIN));
}

/// A comparison with an item's CAS unique; 0 and an item without one never match.
pub(super) fn cas_matches(compare: Option<u64>, found: &Found<'_>) -> bool {
    found.shape.has(Shape::CAS)
        && compare.is_some_and(|cas| cas != 0 && cas == found.item.cas(found.shape))
}

/// True where the item is newer than the CAS unique: one that has none was written after every
/// unique that was ever handed out for it.
fn cas_is_older(compare: Option<u64>, found: &Found<'_>) -> bool {
    let newer = |cas: u64| !found.shape.has(Shape::CAS) || cas < found.item.cas(found.shape);
    compare.is_some_and(|cas| cas != 0 && newer(cas))
}

/// Fills a draft with an old value and a piece, in their order.
fn join(
    held: &Held<'_>,
    chunk: ChunkRef,
    old: Option<&Found<'_>>,
    piece: Piece<'_>,
    piece_first: bool,
) {
    let mut writer = held.shard.writer(chunk);
    for part_is_piece in [piece_first, !piece_first] {
        match (part_is_piece, piece, old) {
            (true, Piece::Bytes(bytes), _) => writer.put(bytes),
            (true, Piece::Chunk(piece), _) => writer.put_value_of(held.l, piece),
            (false, _, Some(old)) => writer.put_value_of(held.l, old.chunk),
            (false, _, None) => {}
        }
    }
}

impl Shard {
    /// Stores a CAS unique where one was planned for.
    pub fn put_cas(&self, chunk: ChunkRef, cas: u64) {
        let item = self.item(chunk);
        let stored = item.put_cas(item.shape(), cas, self.chunk_size(chunk));
        debug_assert!(stored, "room for a planned CAS unique");
    }

    /// Notes a linked item's deadline for the reclaimer.
    pub fn note_deadline(&self, chunk: ChunkRef) {
        let item = self.item(chunk);
        let deadline = item.deadline(item.shape());
        if deadline != 0 {
            self.slabs.note_deadline(chunk, self.slabs.class_of(chunk), deadline);
        }
    }

    /// Adds a reference to a line that has no room: with more nodes, or when there is no memory for
    /// them by evicting one of the line's own items.
    pub fn insert_by_force(
        &self,
        l: &Local,
        line: &mut LineGuard<'_>,
        chunk: ChunkRef,
        horizon: Horizon,
    ) -> bool {
        if self.add_nodes() && line.insert(chunk).is_ok() {
            return true;
        }
        if !self.rules.evict {
            return false;
        }
        let all_but = |bits| line.any_but(|c| self.item(c).shape().has(bits));
        // A line full of TEMP items has to give one up after all.
        let found = all_but(Shape::PINNED | Shape::TEMP).or_else(|| all_but(Shape::PINNED));
        let Some((slot, victim)) = found else { return false };
        line.remove(slot);
        let item = self.item(victim);
        self.count_victim(l, victim, item, (item.shape(), item.standing()), horizon);
        self.unlinked(l, victim);
        self.free(victim);
        line.insert(chunk).is_ok()
    }
}
