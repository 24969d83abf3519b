//! One engine: an arena with its classes, and the index over it. A store has one for every 16 GiB.
//!
//! Who may free a chunk: whoever took its reference out of the index, under the line's lock. Until
//! then anybody may look at it, and must check again under that lock before acting.
//!
//! Lock order: line, then class, then pool. With a line held, another is only tried.

use super::arrivals::Arrivals;
use super::evict::{self, Ahead, Duel, Policy, Rule, Victim};
use super::flush::Horizon;
use super::ghost::{EPOCHS, Ghost, Part};
use super::index::Index;
use super::pins::Pins;
use super::reclaim::Reclaimer;
use super::savings::AllSavings;
use super::seals::Seals;
use super::steal::PAGES_FOR_ONE;
use super::tend::Tending;
use super::types::{Key, KeyHash, Local, SIZE_STEP};
use super::vacant::Vacant;
use super::victims::Victims;
use crate::config::Eviction;
use crate::item::{self, Chain, Item, Plan, Shape, Standing, State};
use crate::stats::ClassCounters;
use parking_lot::Mutex;
use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};
use slab::sync::Ordering::{Relaxed, Release};
use slab::sync::fence;
use slab::{ChunkRef, ClassId, Slabs};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Victims that one allocation tries before it gives up: another thread may hold each one's line.
const VICTIMS_MAX: usize = 16;

pub(super) struct Shard {
    pub slabs: Slabs<Policy>,
    pub index: Index,
    pub pins: Pins,
    pub arrivals: Arrivals,
    pub ghost: Ghost,
    pub duel: Duel,
    /// The eviction policy in force, as [`Rule`] packs it.
    pub rule: AtomicU32,
    pub secrets: RapidSecrets,
    pub rules: Rules,
    /// Items in the index.
    pub items: AtomicU64,
    pub victims: Victims,
    /// Bytes charged for the queues beside what comes with each page.
    pub queue_bytes: AtomicU64,
    pub savings: AllSavings,
    /// The class that can best spare a page, as the mover last saw it; 0: none.
    pub poorest: AtomicU32,
    pub vacant: Vacant,
    /// Bytes that its share of -m can become at run time.
    pub reach: u64,
    pub reclaimer: Mutex<Reclaimer>,
    pub tending: Mutex<Tending>,
}

/// Settings that the engine works by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Charge items as memcached does: `layout=memcached`.
    pub as_memcached: bool,
    pub evict: bool,
    pub use_cas: bool,
    /// -I, bytes, measured as memcached would.
    pub item_size_max: u32,
    /// -m counts pages alone, and each class may have its first one beyond that.
    pub pages_alone: bool,
    /// A class without pages may take one from another class.
    pub steal: bool,
    /// What stands behind each item: something in a memory file.
    pub seals: Seals,
}

impl Shard {
    #[inline]
    pub fn hash_bytes(&self, key: &[u8]) -> u64 {
        rapidhash_v3_seeded(key, &self.secrets)
    }

    #[inline]
    pub fn item(&self, chunk: ChunkRef) -> Item<'_> {
        Item::new(&self.slabs.words()[chunk.word()..])
    }

    /// The eviction policy in force.
    #[inline]
    pub fn rule(&self) -> Rule {
        Rule::unpack(self.rule.load(Relaxed))
    }

    /// The same for a class.
    #[inline]
    pub fn rule_of(&self, class: ClassId) -> Rule {
        let rule = self.rule();
        Rule { whole: rule.eviction == Eviction::S3 && self.duel.is_whole(class), ..rule }
    }

    /// True where a class has HOT, WARM and COLD. With one queue there is no probation, and a
    /// counter leads nowhere: all but TEMP is COLD, as in memcached's flat LRU.
    #[inline]
    pub fn is_segmented(&self) -> bool {
        self.rule().eviction == Eviction::S3
    }

    pub fn chunk_size(&self, chunk: ChunkRef) -> u32 {
        self.slabs.geometry().chunk_size(self.slabs.class_of(chunk))
    }

    /// Appends the value of an item that cannot change meanwhile.
    #[cold]
    pub fn append_value(&self, chunk: ChunkRef, out: &mut Vec<u8>) {
        Chain::of(&self.slabs, chunk).for_each(|segment| segment.copy(out));
    }

    /// The number of a chunk's class, as operators know it.
    pub fn class_id(&self, chunk: ChunkRef) -> u32 {
        u32::from(self.slabs.class_of(chunk).0)
    }

    /// The hash of a linked item's key; of any other chunk, some number.
    pub fn hash_of(&self, l: &Local, chunk: ChunkRef) -> u64 {
        let item = self.item(chunk);
        l.with_key(item, item.shape(), |key| self.hash_bytes(key))
    }

    /// Bytes that memcached would say an item of this plan takes; -I bounds them.
    pub fn charged_size(&self, plan: &Plan) -> usize {
        let cas = if self.rules.use_cas { 8 } else { 0 };
        let flags = if plan.client_flags { 4 } else { 0 };
        48 + cas + plan.key_len + 1 + plan.value_len as usize + 2 + flags
    }

    /// Bytes that `stats` counts for an item.
    pub fn counted_size(&self, plan: &Plan) -> usize {
        if self.rules.as_memcached { self.charged_size(plan) } else { plan.size() }
    }

    /// The class of a one-chunk item; `None`: it needs a chain.
    pub fn class_for(&self, plan: &Plan) -> Option<ClassId> {
        let geometry = self.slabs.geometry();
        // memcached's sizes are those of whole chunks, and leave room enough for a tail.
        let tail = if self.rules.as_memcached { geometry.tail() as usize } else { 0 };
        let class = geometry.class_for(self.counted_size(plan) - tail);
        // What memcached would charge too much for the largest chunk may still fit it here.
        class.or_else(|| geometry.class_for(plan.size()))
    }

    /// The same, or the class that chains start in.
    pub fn class_or_largest(&self, plan: &Plan) -> ClassId {
        self.class_for(plan).unwrap_or(self.slabs.geometry().largest())
    }

    pub fn class_counters<'a>(&self, l: &'a Local, class: ClassId) -> &'a ClassCounters {
        &l.counters.classes[class.index()]
    }

    // Linking

    /// Bookkeeping for an item that has just been put into the index.
    pub fn linked(&self, l: &Local, chunk: ChunkRef) {
        self.items.fetch_add(1, Relaxed);
        self.count(l, chunk, 1);
    }

    /// Bookkeeping for an item that has just been taken out of the index, under its line's lock.
    pub fn unlinked(&self, l: &Local, chunk: ChunkRef) {
        self.dies(chunk);
        self.items.fetch_sub(1, Relaxed);
        self.count(l, chunk, -1);
    }

    /// An item has just been taken out of the index, and whoever has its line's lock next will see
    /// that it is gone: should the process die now, a memory file must not bring it back.
    #[inline]
    pub fn dies(&self, chunk: ChunkRef) {
        let item = self.item(chunk);
        item.set_standing(item.standing().with_state(State::Dying));
        self.spoil_seal(chunk);
    }

    /// Bookkeeping for an item that has just been put in another's place.
    pub fn replaced(&self, l: &Local, old: ChunkRef, new: ChunkRef) {
        self.dies(old);
        let (was, is) = (self.item(old), self.item(new));
        let same_class = self.slabs.class_of(old) == self.slabs.class_of(new);
        if same_class && was.shape().measures_as(is.shape()) {
            return;
        }
        let size = |item: Item<'_>| self.counted_size(&item.plan(item.shape()));
        if !same_class || size(was) != size(is) {
            self.count(l, old, -1);
            self.count(l, new, 1);
        }
    }

    /// Bookkeeping for a linked item whose optional fields have changed from `before`.
    pub fn reshaped(&self, l: &Local, chunk: ChunkRef, before: &Plan) {
        let item = self.item(chunk);
        let (was, is) = (self.counted_size(before), self.counted_size(&item.plan(item.shape())));
        if was != is {
            let class = self.slabs.class_of(chunk);
            l.counters.levels[class.index()].add(0, is as i64 - was as i64);
            self.count_size(l, was, -1);
            self.count_size(l, is, 1);
        }
    }

    pub fn count(&self, l: &Local, chunk: ChunkRef, by: i64) {
        let item = self.item(chunk);
        let size = self.counted_size(&item.plan(item.shape()));
        let class = self.slabs.class_of(chunk);
        l.counters.levels[class.index()].add(by, by * size as i64);
        self.count_size(l, size, by as i32);
    }

    fn count_size(&self, l: &Local, size: usize, by: i32) {
        let step = size.div_ceil(SIZE_STEP as usize).min(l.sizes.cells.len() - 1);
        if step as u32 > l.sizes.top.load(Relaxed) {
            l.sizes.top.store(step as u32, Relaxed);
        }
        let cell = &l.sizes.cells[step];
        cell.store(cell.load(Relaxed).wrapping_add_signed(by), Relaxed);
    }

    /// Gives a new item of the key its place in its class's order, unless it is TEMP.
    pub fn admit(&self, l: &Local, chunk: ChunkRef, hash: u64) {
        let known = self.ghost.recall(hash).is_some_and(|memory| memory.age <= EPOCHS);
        let item = self.item(chunk);
        let id = self.slabs.class_of(chunk);
        let mut class = self.slabs.lock(id);
        if item.shape().has(Shape::TEMP) {
            return evict::leave(&mut class, item);
        }
        evict::admit(&mut class, chunk, item, self.rule_of(id), known);
        let moves = std::mem::take(&mut class.moves);
        drop(class);
        self.count_moves(l, id, moves);
    }

    /// Gives an item that is new in its chunk a place in its class's queue, unless it is TEMP.
    pub fn enqueue(&self, l: &Local, chunk: ChunkRef) {
        let item = self.item(chunk);
        let id = self.slabs.class_of(chunk);
        let mut class = self.slabs.lock(id);
        if item.shape().has(Shape::TEMP) {
            return evict::leave(&mut class, item);
        }
        evict::enqueue(&mut class, chunk, item, self.rule_of(id));
        let moves = std::mem::take(&mut class.moves);
        drop(class);
        self.count_moves(l, id, moves);
    }

    /// Gives an item that is new in its chunk a place if the one that it replaces had one or was
    /// TEMP; where there is one queue, all stand in it.
    pub fn inherit_queue(&self, l: &Local, chunk: ChunkRef, old: Shape) {
        let all_stand = || !self.rule_of(self.slabs.class_of(chunk)).has_main();
        if old.queued() || old.has(Shape::TEMP) || all_stand() {
            self.enqueue(l, chunk);
        } else {
            let item = self.item(chunk);
            if item.shape().has(Shape::QUEUED) {
                evict::leave(&mut self.slabs.lock(self.slabs.class_of(chunk)), item);
            }
        }
    }

    /// Queues a victim that could not go after all, where there is no other way to it.
    fn requeue(&self, chunk: ChunkRef) {
        let class = self.slabs.class_of(chunk);
        if class != ClassId(0) && !self.rule_of(class).has_main() {
            evict::enqueue_lost(&mut self.slabs.lock(class), chunk);
        }
    }

    fn count_moves(&self, l: &Local, class: ClassId, moves: evict::Moves) {
        let counters = self.class_counters(l, class);
        counters.moves_to_cold.add(u64::from(moves.to_cold));
        counters.moves_within_lru.add(u64::from(moves.within));
    }

    // Freeing

    /// Frees an item that is out of the index or was never in it, with its chain; the last pin
    /// does it where there is one.
    pub fn free(&self, chunk: ChunkRef) {
        let shape = self.item(chunk).shape_after_pins();
        if shape.has(Shape::PINNED) && self.pins.leave_to_last(chunk) {
            return;
        }
        if shape.chained() {
            let chunks: Vec<ChunkRef> = item::chunks_of(&self.slabs, chunk).skip(1).collect();
            self.free_bodies(&chunks);
        }
        self.put(chunk);
    }

    /// Frees the bodies of a chain.
    pub fn free_bodies(&self, bodies: &[ChunkRef]) {
        for body in bodies {
            self.put(*body);
        }
    }

    pub fn put(&self, chunk: ChunkRef) {
        self.put_into(&mut self.slabs.lock(self.slabs.class_of(chunk)), chunk);
    }

    /// Puts a chunk back on the free list of its class.
    pub fn put_into(&self, class: &mut evict::Class<'_>, chunk: ChunkRef) {
        let item = self.item(chunk);
        if item.standing().is_body() {
            class.bodies -= 1;
        }
        item.reshape(Shape(0));
        item.set_standing(Standing::FREE);
        class.put(chunk);
    }

    /// Makes a chunk that the caller reserved a body of `head`'s chain.
    pub fn make_body(&self, chunk: ChunkRef, head: ChunkRef, len: usize) {
        let mut class = self.slabs.lock(self.slabs.class_of(chunk));
        class.bodies += 1;
        item::make_body(&self.slabs, chunk, head.to_u32(), 0, len);
    }

    // Allocating

    /// A chunk of `class`, reserved and blank: a free one, an expired one, one of a new page, or
    /// a victim's. `None`: out of memory.
    pub fn allocate(&self, l: &Local, class: ClassId, horizon: Horizon) -> Option<ChunkRef> {
        self.take_any(l, class, horizon).or_else(|| self.out_of_memory(l, class, horizon))
    }

    /// A chunk for a changed copy of an item, which otherwise would have to stay as it is: one of a
    /// larger class where need be, or of a page in reserve.
    pub fn allocate_for_copy(
        &self,
        l: &Local,
        class: ClassId,
        horizon: Horizon,
    ) -> Option<ChunkRef> {
        let in_reserve = || {
            let mut guard = self.slabs.lock(class);
            guard.grow_from_reserve().then(|| self.take_from(&mut guard, false)).flatten()
        };
        self.take_any(l, class, horizon)
            .or_else(|| self.take_larger(class))
            .or_else(in_reserve)
            .or_else(|| self.out_of_memory(l, class, horizon))
    }

    /// A free chunk of the next larger class that has one.
    fn take_larger(&self, class: ClassId) -> Option<ChunkRef> {
        let mut larger = self.slabs.geometry().classes().skip(class.index());
        larger.find_map(|class| self.take_free(class, false))
    }

    #[cold]
    fn out_of_memory<T>(&self, l: &Local, class: ClassId, horizon: Horizon) -> Option<T> {
        self.class_counters(l, class).outofmemory.bump();
        self.pins.relieve(horizon.now);
        None
    }

    fn take_any(&self, l: &Local, class: ClassId, horizon: Horizon) -> Option<ChunkRef> {
        if let Some(chunk) = self.take_kept(l, class) {
            return Some(chunk);
        }
        let mut guard = self.slabs.lock(class);
        if let Some(chunk) = self.take_from(&mut guard, false) {
            return Some(chunk);
        }
        self.make_room(l, guard, horizon)
    }

    pub fn take_free(&self, class: ClassId, grow: bool) -> Option<ChunkRef> {
        self.take_from(&mut self.slabs.lock(class), grow)
    }

    #[inline]
    pub fn take_from(&self, class: &mut evict::Class<'_>, grow: bool) -> Option<ChunkRef> {
        if class.free_chunks() == 0 && grow && !class.grow() {
            return None;
        }
        let chunk = class.take()?;
        let item = self.item(chunk);
        item.set_standing(Standing::RESERVED);
        // Whoever sees what is now written to the chunk sees that its line's version moved on.
        fence(Release);
        Some(chunk)
    }

    /// A chunk of a class that has no free one.
    fn make_room<'a>(
        &'a self,
        l: &Local,
        mut class: evict::Class<'a>,
        horizon: Horizon,
    ) -> Option<ChunkRef> {
        let id = class.class();
        let due = self.slabs.earliest(id).is_some_and(|e| e <= horizon.now);
        if due || self.has_kept(l) {
            drop(class);
            self.give_back_kept(l);
            if due {
                self.reclaim_expired(l, id, horizon);
            }
            class = self.slabs.lock(id);
        }
        if let Some(chunk) = self.take_from(&mut class, true) {
            return Some(chunk);
        }
        class = match self.take_vacant(l, class, horizon) {
            Ok(chunk) => return Some(chunk),
            Err(class) => class,
        };
        if !self.rules.evict {
            // One without pages may not stay so.
            let has_pages = class.total_chunks() > 0;
            drop(class);
            return if has_pages { None } else { self.take_larger(id) };
        }
        class = match self.take_of_idle(l, class, horizon) {
            Ok(chunk) => return Some(chunk),
            Err(class) => class,
        };
        if let Some(chunk) = self.evict_with(l, class, horizon) {
            self.class_counters(l, id).direct_reclaims.bump();
            return Some(chunk);
        }
        if !self.rules.steal {
            return None;
        }
        for _ in 0..PAGES_FOR_ONE {
            if !self.steal_page(l, id, horizon) {
                return None;
            }
            if let Some(chunk) = self.take_free(id, true) {
                return Some(chunk);
            }
        }
        None
    }

    /// Takes the chunk of one of the class's items.
    pub fn evict_from(&self, l: &Local, class: ClassId, horizon: Horizon) -> Option<ChunkRef> {
        self.evict_with(l, self.slabs.lock(class), horizon)
    }

    /// The same with the class locked, which it is not while a victim goes.
    fn evict_with<'a>(
        &'a self,
        l: &Local,
        locked: evict::Class<'a>,
        horizon: Horizon,
    ) -> Option<ChunkRef> {
        let class = locked.class();
        let mut locked = Some(locked);
        for _ in 0..VICTIMS_MAX {
            let (victim, moves) = {
                let mut guard = locked.take().unwrap_or_else(|| self.slabs.lock(class));
                if guard.total_chunks() == 0 {
                    return None;
                }
                let rule = self.rule_of(class);
                let victim = evict::victim(&mut guard, horizon, rule);
                let victim = victim.map(|v| (v, evict::ahead(&guard, v.part, rule)));
                (victim, std::mem::take(&mut guard.moves))
            };
            self.count_moves(l, class, moves);
            let Some((Victim { chunk, part }, ahead)) = victim else { continue };
            self.prefetch_victims(l, ahead);
            if self.item(chunk).shape().has(Shape::TEMP)
                && let Some(chunk) = self.spare_temp(l, class, horizon)
            {
                return Some(chunk);
            }
            if !self.unlink_victim(l, chunk, horizon, (class, part)) {
                self.requeue(chunk);
                continue;
            }
            if self.slabs.class_of(chunk) == class {
                self.reserve_evicted(chunk);
                return Some(chunk);
            }
            // The head of a chain that only ends in this class.
            self.free(chunk);
            if let Some(chunk) = self.take_free(class, false) {
                return Some(chunk);
            }
        }
        None
    }

    /// A chunk of a page that another class can spare, before a TEMP item goes.
    #[cold]
    fn spare_temp(&self, l: &Local, class: ClassId, horizon: Horizon) -> Option<ChunkRef> {
        let stolen = self.rules.steal && self.steal_one(l, class, horizon, false);
        stolen.then(|| self.take_free(class, true)).flatten()
    }

    fn prefetch_victims(&self, l: &Local, Ahead { header, key }: Ahead) {
        if let Some(chunk) = header {
            self.item(chunk).prefetch_key();
        }
        if let Some(chunk) = key {
            let hash = self.hash_of(l, chunk);
            self.index.prefetch(hash);
            self.ghost.prefetch(hash);
        }
    }

    /// Makes a chunk that was just taken out of the index the caller's, without its chain.
    fn reserve_evicted(&self, chunk: ChunkRef) {
        let item = self.item(chunk);
        if item.shape().chained() {
            let bodies: Vec<ChunkRef> = item::chunks_of(&self.slabs, chunk).skip(1).collect();
            self.free_bodies(&bodies);
        }
        item.reshape(Shape(0));
        item.set_standing(Standing::RESERVED);
    }

    /// Takes an item out of the index if its line is free to lock, it is not pinned, and it is
    /// still what it seemed to be. The chunk is then the caller's. `short_of`: the class
    /// that it goes for, which is not its own where that is a chain's and only ends there.
    pub fn unlink_victim(
        &self,
        l: &Local,
        chunk: ChunkRef,
        horizon: Horizon,
        (short_of, part): (ClassId, Part),
    ) -> bool {
        let item = self.item(chunk);
        let Some((mut line, slot)) = self.line_of(l, chunk) else { return false };
        let (shape, standing) = (item.shape_after_pins(), item.standing());
        if shape.has(Shape::PINNED) {
            return false;
        }
        line.remove(slot);
        if self.count_victim(l, chunk, item, (shape, standing), horizon) {
            self.ghost.remember(line.hash(), short_of, part);
        }
        if self.duel.samples(line.hash()) {
            self.duel.evicted(line.hash());
        }
        self.unlinked(l, chunk);
        true
    }

    /// Counts an item that goes; false where it was dead anyway.
    pub fn count_victim(
        &self,
        l: &Local,
        chunk: ChunkRef,
        item: Item<'_>,
        (shape, standing): (Shape, Standing),
        horizon: Horizon,
    ) -> bool {
        let class = self.class_counters(l, self.slabs.class_of(chunk));
        let deadline = item.deadline(shape);
        if horizon.flushed(standing) || horizon.expired(deadline) {
            class.reclaimed.bump();
            if !standing.fetched() {
                class.expired_unfetched.bump();
            }
            return false;
        }
        self.tell_evicted(l, chunk, item, (shape, standing), horizon);
        class.evicted.bump();
        self.victims.note(self.slabs.class_of(chunk), standing.idle(horizon.now));
        if deadline != 0 {
            class.evicted_nonzero.bump();
        }
        if !standing.fetched() {
            class.evicted_unfetched.bump();
        }
        if standing.counter() >= 2 {
            class.evicted_active.bump();
        }
        true
    }

    // Hashing

    /// As [`Shard::hash_bytes`], for callers above.
    #[inline]
    pub fn hash(&self, key: Key<'_>) -> KeyHash {
        KeyHash(self.hash_bytes(key.bytes()))
    }
}
