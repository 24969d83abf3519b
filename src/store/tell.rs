//! What watchers are told of items, by the thread that changes them. All but refusals for want of
//! room is told under the lock of the item's line, so that the events of one key are numbered in
//! the order in which they happened.

use super::flush::Horizon;
use super::held::{Found, Held};
use super::requests::{Set, SetMode};
use super::shard::Shard;
use super::types::{Local, Refusal};
use crate::clock::{Deadline, Seconds};
use crate::item::{Item, Shape, Standing};
use crate::watch::{Deleter, Event, Stored, Storer, Streams};
use slab::{ChunkRef, ClassId};

/// An item as a storage command leaves it, or would have.
pub(super) struct Kept {
    pub deadline: Deadline,
    pub class: u32,
    /// Bytes of its value.
    pub len: u32,
}

impl Kept {
    /// Nothing: there was no room.
    const NONE: Kept = Kept { deadline: Deadline::NEVER, class: 0, len: 0 };
}

impl Local {
    /// A storage command on a key ended. `now`: the clock's second.
    pub(super) fn tell_stored(
        &self,
        key: &[u8],
        (by, stored): (Storer, Stored),
        kept: &Kept,
        now: Seconds,
    ) {
        let Kept { deadline, class, len } = *kept;
        // What is past already wraps around, as in memcached.
        let ttl = if deadline == Deadline::NEVER { 0 } else { deadline.0.wrapping_sub(now) };
        let client = self.log.client();
        self.log.note(Event::ItemStore { stored, by, ttl, class, client, size: len }, key);
    }

    /// The mover has chosen a page of `from` for `to`; `None` is the pool.
    pub(super) fn tell_moving(&self, from: ClassId, to: Option<ClassId>) {
        if self.log.wants(Streams::SYSEVENTS) {
            let (src, dst) = (from.0, to.map_or(0, |class| class.0));
            let text = format!("type=slab_move src={src} dst={dst} state=ok");
            self.log.note(Event::Text(Streams::SYSEVENTS), text.as_bytes());
        }
    }

    /// A value found no room. memcached's line has its arguments mixed up here: what it shows
    /// under `clsid` is the client, and `cfd` is nothing at all.
    pub(super) fn tell_refused(&self, set: &Set<'_>, why: Refusal) {
        if self.log.wants(Streams::MUTATIONS) {
            let stored = match why {
                Refusal::TooLarge => Stored::TooLarge,
                Refusal::NoMemory | Refusal::NoMemoryOnTheWay => Stored::NoMemory,
            };
            self.tell_stored(set.key.bytes(), (set.mode.storer(), stored), &Kept::NONE, 0);
        }
    }
}

impl Held<'_> {
    /// A storage command ended; `kept` is asked only where somebody watches.
    #[inline]
    pub fn tell_stored(&self, set: &Set<'_>, stored: Stored, kept: impl FnOnce() -> Kept) {
        if self.l.log.wants(Streams::MUTATIONS) {
            let what = (set.mode.storer(), stored);
            self.l.tell_stored(set.key.bytes(), what, &kept(), self.horizon.now);
        }
    }

    /// A found item is deleted.
    #[inline]
    pub fn tell_deleted(&self, key: &[u8], by: Deleter, found: &Found<'_>) {
        if self.l.log.wants(Streams::DELETIONS) {
            let class = self.shard.class_id(found.chunk);
            let size = found.item.value_len(found.shape);
            self.l.log.note(Event::Deleted { by, class, size }, key);
        }
    }
}

impl Shard {
    /// An item of which the lock is held, or which nobody else can see.
    pub fn kept(&self, chunk: ChunkRef) -> Kept {
        let item = self.item(chunk);
        let shape = item.shape();
        let (deadline, len) = (Deadline(item.deadline(shape)), item.value_len(shape));
        Kept { deadline, class: self.class_id(chunk), len }
    }

    /// A live item is evicted.
    #[inline]
    pub fn tell_evicted(
        &self,
        l: &Local,
        chunk: ChunkRef,
        item: Item<'_>,
        (shape, standing): (Shape, Standing),
        horizon: Horizon,
    ) {
        if !l.log.wants(Streams::EVICTIONS) {
            return;
        }
        let Kept { deadline, class, len } = self.kept(chunk);
        let left = i64::from(deadline.0) - i64::from(horizon.now);
        let ttl = if deadline == Deadline::NEVER { -1 } else { left };
        let (fetched, idle) = (standing.fetched(), standing.idle(horizon.now));
        let event = Event::Eviction { fetched, ttl, idle, class, size: len };
        l.with_key(item, shape, |key| l.log.note(event, key));
    }
}

impl SetMode {
    /// memcached's word for the command.
    fn storer(self) -> Storer {
        match self {
            SetMode::Set => Storer::Set,
            SetMode::Add => Storer::Add,
            SetMode::Replace => Storer::Replace,
            SetMode::Append => Storer::Append,
            SetMode::Prepend => Storer::Prepend,
            SetMode::Cas => Storer::Cas,
        }
    }
}
