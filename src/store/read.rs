//! Reads: `get` without a lock where it can, `fetch` for those that also change something.

use super::evict::BUMP_INTERVAL;
use super::flush::Horizon;
use super::held::{Found, Held, Purpose};
use super::index::Blocked;
use super::pins::Pin;
use super::requests::{Fetch, Get};
use super::shard::Shard;
use super::types::{FetchOutcome, Inspection, Key, KeyHash, Local};
use super::{Store, write};
use crate::clock::Seconds;
use crate::config::Eviction;
use crate::item::{Item, Shape, Standing, State};
use crate::stats::ClassCounters;
use crate::watch::Got;
use slab::ChunkRef;
use slab::sync::MODELLED;
use std::sync::Arc;

/// Looks without a lock that writers may spoil.
const LOOKS_MAX: u32 = if MODELLED { 1 } else { 4 };
/// Accesses of late that make an item WARM.
pub(super) const WARM_FROM: u32 = 2;

/// An item found by a get, readable only while the visitor runs.
#[derive(Clone, Copy)]
pub struct Hit<'a> {
    store: &'a Arc<Store>,
    shard_no: usize,
    chunk: ChunkRef,
    item: Item<'a>,
    shape: Shape,
    /// As before this command.
    standing: Standing,
    now: Seconds,
    unless_cas: Option<u64>,
    locked: bool,
    won: bool,
    /// Deadline before this command.
    deadline_before: Seconds,
}

impl Hit<'_> {
    #[inline]
    pub fn value_len(&self) -> u32 {
        self.item.value_len(self.shape)
    }

    #[inline]
    pub fn client_flags(&self) -> u32 {
        self.item.client_flags(self.shape)
    }

    /// The CAS unique, 0 where the item has none.
    #[inline]
    pub fn cas(&self) -> u64 {
        self.item.cas(self.shape)
    }

    /// True where the command named the item's CAS unique, so that its value is not wanted.
    pub fn unchanged(&self) -> bool {
        self.shape.has(Shape::CAS) && self.unless_cas == Some(self.item.cas(self.shape))
    }

    /// Seconds left to live; `None`: for ever.
    pub fn ttl(&self) -> Option<u32> {
        seconds_left(self.item.deadline(self.shape), self.now)
    }

    /// As [`Hit::ttl`], before this command touched it.
    pub fn ttl_before(&self) -> Option<u32> {
        seconds_left(self.deadline_before, self.now)
    }

    /// Seconds since the last access before this one.
    pub fn idle(&self) -> u32 {
        self.standing.idle(self.now)
    }

    /// True where the item was fetched before this command.
    pub fn fetched(&self) -> bool {
        self.standing.fetched()
    }

    /// meta `X`
    pub fn stale(&self) -> bool {
        self.shape.has(Shape::STALE)
    }

    /// meta `Z`: somebody else already won.
    pub fn win_sent(&self) -> bool {
        self.shape.has(Shape::WIN)
    }

    /// meta `W`: this command won.
    pub fn won(&self) -> bool {
        self.won
    }

    pub fn binary_key(&self) -> bool {
        self.shape.has(Shape::BINARY_KEY)
    }

    /// Appends the value's bytes (without a line end).
    #[inline]
    pub fn copy_value(&self, out: &mut Vec<u8>) {
        if !self.shape.has(Shape::WIDE) {
            return self.item.copy_narrow(self.shape, out);
        }
        self.store.shard_at(self.shard_no).append_value(self.chunk, out);
    }

    /// Large values are sent from their chunks: `Some` pins the item until the [`Pin`] is dropped.
    /// `None` says: copy it.
    #[inline]
    pub fn pin(&self) -> Option<Pin> {
        let large = self.locked && self.shape.has(Shape::WIDE);
        large.then(|| Pin::new(self.store, self.shard_no, self.chunk, self.value_len() as usize))
    }
}

impl std::fmt::Debug for Hit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hit").field("chunk", &self.chunk).field("shape", &self.shape).finish()
    }
}

impl Store {
    /// Reads a key; `visit` gets the item, maybe several times, of which the last is true. False:
    /// not found (and counted).
    pub fn get(
        self: &Arc<Self>,
        l: &Local,
        get: &Get<'_>,
        hash: KeyHash,
        mut visit: impl FnMut(Hit<'_>),
    ) -> bool {
        let found = self.look(l, get, hash, &mut visit);
        found.unwrap_or_else(|blocked| self.get_blocked(l, get, hash, blocked, visit))
    }

    /// Reads a key without a lock, if it can: `visit` gets the item. False: not found (and
    /// counted). An error: go on by [`Store::get_blocked`], and what `visit` did must be forgotten.
    #[inline]
    pub fn look(
        self: &Arc<Self>,
        l: &Local,
        get: &Get<'_>,
        hash: KeyHash,
        visit: impl FnMut(Hit<'_>),
    ) -> Result<bool, Blocked> {
        self.look_for(l, get, hash, 0, visit)
    }

    /// The same. `need`: bits that the item must have.
    #[inline(always)]
    fn look_for(
        self: &Arc<Self>,
        l: &Local,
        get: &Get<'_>,
        hash: KeyHash,
        need: u32,
        mut visit: impl FnMut(Hit<'_>),
    ) -> Result<bool, Blocked> {
        let shard_no = self.shard_no(hash);
        let shard = self.shard_at(shard_no);
        let horizon = self.horizon();
        // Each word of the header is loaded once: the item may be changing hands, and what is
        // judged must be what the visitor goes by.
        let (found, seen) = shard.index.look(hash.0, |chunk| {
            let item = shard.item(chunk);
            let shape = item.shape();
            item.key_is(shape, get.key.bytes()).then_some((chunk, item, shape))
        })?;
        let Some((chunk, item, shape)) = found else {
            if !shard.index.is_as_seen(seen) {
                return Err(Blocked::Writer);
            }
            self.count_miss(l, shard, get.key, hash);
            return Ok(false);
        };
        let hit = Hit::new(self, (shard_no, chunk), item, shape, get, horizon.now);
        let standing = hit.standing;
        let marked = get.meta && shape.has(Shape::STALE | Shape::WIN);
        let dead = horizon.flushed(standing) || horizon.expired(hit.deadline_before);
        let plain =
            standing.state() == State::Linked && !shape.has(Shape::WIDE) && shape.0 & need == need;
        if !plain || marked || dead {
            return Err(Blocked::Lock);
        }
        visit(hit);
        if !shard.index.is_as_seen(seen) {
            return Err(Blocked::Writer);
        }
        let id = shard.slabs.class_of(chunk);
        let class = shard.class_counters(l, id);
        if get.bump && shard.accessed(standing, horizon.stamp) != standing {
            // The page may have been given to another class by now, and be full of others' values:
            // it has not while the line is as it was.
            if let Some(_line) = shard.index.try_relock(seen, hash.0) {
                shard.bump(class, item, standing, horizon.stamp);
            }
        }
        shard.count_hit(class, shape, standing);
        if get.bump && shard.duel.samples(hash.0) {
            shard.duel.read(hash.0, Some((id, hit.deadline_before)), horizon);
        }
        l.log.got(get.key.bytes(), Got::Found, || (id.0.into(), shape.narrow_len()));
        Ok(true)
    }

    /// The same once more where a writer was in the way, and waits for it: who takes the lock where
    /// many read and few write makes the others take it, too, each in turn.
    #[cold]
    fn look_again(
        self: &Arc<Self>,
        l: &Local,
        get: &Get<'_>,
        hash: KeyHash,
        need: u32,
        mut visit: impl FnMut(Hit<'_>),
    ) -> Option<bool> {
        for _ in 0..LOOKS_MAX {
            self.shard_of(hash).index.await_writer(hash.0);
            match self.look_for(l, get, hash, need, &mut visit) {
                Ok(found) => return Some(found),
                Err(Blocked::Lock) => return None,
                Err(Blocked::Writer) => {}
            }
        }
        None
    }

    #[cold]
    fn count_miss(&self, l: &Local, shard: &Shard, key: Key<'_>, hash: KeyHash) {
        l.counters.thread.get_misses.bump();
        shard.missed(hash, self.horizon());
        l.log.missed(key.bytes(), Got::NotFound);
    }

    /// Reads a key that a look was [`Blocked`] for; `visit` gets the item, maybe several times, of
    /// which the last is true. False: not found (and counted).
    #[cold]
    #[inline(never)]
    pub fn get_blocked(
        self: &Arc<Self>,
        l: &Local,
        get: &Get<'_>,
        hash: KeyHash,
        blocked: Blocked,
        mut visit: impl FnMut(Hit<'_>),
    ) -> bool {
        if blocked == Blocked::Writer
            && let Some(found) = self.look_again(l, get, hash, 0, &mut visit)
        {
            return found;
        }
        self.get_locked(l, get, hash, visit)
    }

    /// The same with its line locked: `visit` runs once at the most.
    fn get_locked(
        self: &Arc<Self>,
        l: &Local,
        get: &Get<'_>,
        hash: KeyHash,
        mut visit: impl FnMut(Hit<'_>),
    ) -> bool {
        let mut held = self.hold(l, hash);
        let Some(found) = held.find(get.key, Purpose::Read) else {
            l.counters.thread.get_misses.bump();
            held.shard.missed(hash, held.horizon);
            return false;
        };
        if get.meta && found.shape.has(Shape::STALE | Shape::WIN) {
            // What asks for no fields needs no memory.
            let fetch = Fetch::of(get.clone());
            return self.fetch_held(held, &fetch, hash, Some(found), visit) == FetchOutcome::Hit;
        }
        let (item, shape) = (found.item, found.item.shape());
        let at = (self.shard_no(hash), found.chunk);
        let hit = Hit::new(self, at, item, shape, get, held.horizon.now);
        visit(Hit { locked: true, ..hit });
        let class = held.class_counters(found.chunk);
        if get.bump {
            held.shard.bump(class, found.item, found.standing, held.horizon.stamp);
            held.note_read(found.chunk, hit.deadline_before);
        }
        held.shard.count_hit(class, found.shape, found.standing);
        true
    }

    /// A read that may also touch, create, mark or hand out a win. A miss is counted.
    pub fn fetch(
        self: &Arc<Self>,
        l: &Local,
        fetch: &Fetch<'_>,
        hash: KeyHash,
        mut visit: impl FnMut(Hit<'_>),
    ) -> FetchOutcome {
        let get = &fetch.get;
        let changes = fetch.touch.is_some() || fetch.vivify.is_some() || fetch.recache.is_some();
        let need = if self.use_cas { Shape::CAS } else { 0 };
        if fetch.cas && !changes {
            let found = match self.look_for(l, get, hash, need, &mut visit) {
                Ok(found) => Some(found),
                Err(Blocked::Writer) => self.look_again(l, get, hash, need, &mut visit),
                Err(Blocked::Lock) => None,
            };
            if let Some(found) = found {
                return if found { FetchOutcome::Hit } else { FetchOutcome::Miss };
            }
        }
        let mut held = self.hold(l, hash);
        let found = held.find(get.key, Purpose::Read);
        self.fetch_held(held, fetch, hash, found, visit)
    }

    /// The same for what was found, or not, under the line's lock.
    fn fetch_held<'a>(
        self: &'a Arc<Self>,
        mut held: Held<'a>,
        fetch: &Fetch<'_>,
        hash: KeyHash,
        found: Option<Found<'a>>,
        mut visit: impl FnMut(Hit<'_>),
    ) -> FetchOutcome {
        let (l, get) = (held.l, &fetch.get);
        let (found, created) = match found {
            Some(found) => (Some(found), false),
            None => (self.vivify(&mut held, fetch), true),
        };
        let Some(found) = found else {
            count_fetch_miss(l, fetch);
            held.shard.missed(hash, held.horizon);
            return FetchOutcome::Miss;
        };
        let Some(hit) = self.work_fetch(&mut held, fetch, hash, found, created) else {
            return FetchOutcome::NoMemory;
        };
        visit(hit);
        if hit.won {
            held.shard.change_sealed(l, hit.chunk, |item| item.set_bits(Shape::WIN));
        }
        let class = held.class_counters(hit.chunk);
        if get.bump {
            held.shard.bump(class, hit.item, hit.item.standing(), held.horizon.stamp);
            held.note_read(hit.chunk, hit.deadline_before);
        }
        count_fetch_hit(l, held.shard, class, fetch, &hit);
        FetchOutcome::Hit
    }

    /// Creates the empty item of a fetch that asked for it.
    fn vivify<'a>(&self, held: &mut Held<'a>, fetch: &Fetch<'_>) -> Option<Found<'a>> {
        let deadline = self.clock.deadline(fetch.vivify?);
        let bits = if fetch.binary_key { Shape::BINARY_KEY } else { 0 };
        let cas = self.cas_for(fetch.new_cas, fetch.cas);
        let draft = write::draft_of(fetch.get.key, 0, deadline, bits, cas.is_some());
        let chunk = held.shard.draft(held.l, &draft, held.horizon).ok()?;
        if let Some(cas) = cas {
            held.shard.put_cas(chunk, cas);
        }
        if !held.link_new(chunk) {
            held.shard.free(chunk);
            return None;
        }
        let (slot, _) = held.line.find(|c| c == chunk)?;
        Some(held.linked(slot, chunk))
    }

    /// Does what a fetch asks of its item; `None`, and nothing was done, where there is no memory
    /// for the fields that it asks for.
    fn work_fetch<'a>(
        self: &'a Arc<Self>,
        held: &mut Held<'a>,
        fetch: &Fetch<'_>,
        hash: KeyHash,
        found: Found<'a>,
        created: bool,
    ) -> Option<Hit<'a>> {
        let now = held.horizon.now;
        let (standing, deadline_before) = (found.standing, found.item.deadline(found.shape));
        // What is created has its exptime already.
        let deadline = fetch.touch.filter(|_| !created).map(|e| self.clock.deadline(e));
        let lacks_cas = fetch.cas && self.use_cas && !found.shape.has(Shape::CAS);
        let cas = lacks_cas.then(|| self.next_cas());
        let found = held.change_fields(found, deadline, cas)?;
        let judged =
            if fetch.touch_first { found.item.deadline(found.shape) } else { deadline_before };
        let due =
            fetch.recache.is_some_and(|left| judged != 0 && judged < self.clock.deadline(left).0);
        let untaken = !found.shape.has(Shape::WIN);
        let won = created || (untaken && (due || found.shape.has(Shape::STALE)));
        let get = &fetch.get;
        let (item, shape) = (found.item, found.item.shape());
        let hit = Hit::new(self, (self.shard_no(hash), found.chunk), item, shape, get, now);
        let won = won && get.meta;
        Some(Hit { standing, locked: true, won, deadline_before, ..hit })
    }

    /// What `me` and dumps show of a key; nothing is counted or bumped.
    pub fn inspect(&self, l: &Local, key: Key<'_>, hash: KeyHash) -> Option<Inspection> {
        let shard = self.shard_of(hash);
        let horizon = self.horizon();
        let line = shard.index.lock(hash.0);
        let found = line.find(|c| {
            let item = shard.item(c);
            item.key_is(item.shape(), key.bytes())
        });
        let Some((_, chunk)) = found else {
            l.log.missed(key.bytes(), Got::NotFound);
            return None;
        };
        let item = shard.item(chunk);
        let (shape, standing) = (item.shape(), item.standing());
        let deadline = item.deadline(shape);
        let flushed = horizon.flushed(standing);
        if flushed || horizon.expired(deadline) {
            l.log.missed(key.bytes(), if flushed { Got::Flushed } else { Got::Expired });
            return None;
        }
        l.log.got(key.bytes(), Got::Found, || (shard.class_id(chunk), item.value_len(shape)));
        Some(Inspection {
            ttl: seconds_left(deadline, horizon.now),
            idle: standing.idle(horizon.now),
            cas: item.cas(shape),
            fetched: standing.fetched(),
            class: shard.class_id(chunk),
            size: shard.counted_size(&item.plan(shape)) as u32,
            binary_key: shape.has(Shape::BINARY_KEY),
        })
    }
}

impl<'a> Hit<'a> {
    #[inline]
    fn new(
        store: &'a Arc<Store>,
        (shard_no, chunk): (usize, ChunkRef),
        item: Item<'a>,
        shape: Shape,
        get: &Get<'_>,
        now: Seconds,
    ) -> Hit<'a> {
        Hit {
            store,
            shard_no,
            chunk,
            item,
            shape,
            standing: item.standing(),
            now,
            unless_cas: get.unless_cas,
            locked: false,
            won: false,
            deadline_before: item.deadline(shape),
        }
    }
}

/// Seconds from `now` to a deadline; `None` for never.
pub(super) fn seconds_left(deadline: Seconds, now: Seconds) -> Option<u32> {
    (deadline != 0).then(|| deadline.saturating_sub(now))
}

impl Shard {
    /// What an access makes of a standing; a hot item's stays as it is within its second.
    #[inline]
    fn accessed(&self, standing: Standing, stamp: Seconds) -> Standing {
        if self.rule().eviction == Eviction::Lru && self.is_first(standing, stamp) {
            standing.with_fetched(true)
        } else {
            standing.accessed(stamp)
        }
    }

    /// Notes an access to an item whose line is locked: its counter, fetched mark and second, in
    /// one swap, for the policies change them too.
    #[inline]
    pub fn bump(&self, class: &ClassCounters, item: Item<'_>, standing: Standing, stamp: Seconds) {
        let accessed = self.accessed(standing, stamp);
        if accessed == standing || !item.change_standing(standing, accessed) {
            return;
        }
        let is_warm = accessed.counter() == WARM_FROM && standing.counter() < WARM_FROM;
        if is_warm && self.is_segmented() {
            class.moves_to_warm.bump();
        }
    }

    /// Notes a get that found nothing, with those whose business that is.
    fn missed(&self, hash: KeyHash, horizon: Horizon) {
        self.ghost.missed(hash.0);
        if self.duel.samples(hash.0) {
            self.duel.read(hash.0, None, horizon);
        }
    }

    #[inline]
    fn count_hit(&self, class: &ClassCounters, shape: Shape, standing: Standing) {
        class.get_hits.bump();
        if shape.has(Shape::TEMP) {
            class.hits_to_temp.bump();
        } else if !self.is_segmented() {
            class.hits_to_cold.bump();
        } else if shape.has(Shape::QUEUED) {
            class.hits_to_hot.bump();
        } else if standing.counter() >= WARM_FROM {
            class.hits_to_warm.bump();
        } else {
            class.hits_to_cold.bump();
        }
    }

    /// True for a read that a flat LRU does not go by: as in memcached's, one of an item that was
    /// accessed in the last minute; in the compact layout the first one, which is the first also in
    /// memcached's segmented LRU.
    fn is_first(&self, standing: Standing, stamp: Seconds) -> bool {
        match self.rules.as_memcached {
            true => standing.idle(stamp) < BUMP_INTERVAL,
            false => !standing.fetched(),
        }
    }
}

/// As [`Shard::bump`], for commands that memcached does not take for a fetch: incr, decr, a refused
/// add.
pub(super) fn bump_unfetched(item: Item<'_>, standing: Standing, stamp: Seconds) {
    let accessed = standing.accessed(stamp).with_fetched(standing.fetched());
    if accessed != standing {
        item.change_standing(standing, accessed);
    }
}

fn count_fetch_hit(
    l: &Local,
    shard: &Shard,
    class: &ClassCounters,
    fetch: &Fetch<'_>,
    hit: &Hit<'_>,
) {
    if fetch.touch.is_some() {
        l.counters.thread.touch_cmds.bump();
        class.touch_hits.bump();
    } else {
        shard.count_hit(class, hit.shape, hit.standing);
    }
}

fn count_fetch_miss(l: &Local, fetch: &Fetch<'_>) {
    // A miss of `mg` with `T` is a get's.
    if fetch.touch.is_some() && !fetch.get.meta {
        l.counters.thread.touch_cmds.bump();
        l.counters.thread.touch_misses.bump();
    } else {
        l.counters.thread.get_misses.bump();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::store::testing::Bench;
    use std::thread;

    fn key() -> Key<'static> {
        Key::new(b"key").expect("a short key")
    }

    fn look(b: &Bench, meta: bool) -> Result<bool, Blocked> {
        let get = Get { meta, ..Get::of(key()) };
        b.store.look(&b.local, &get, b.store.hash(key()), |_| ())
    }

    #[test]
    fn what_blocks_a_look_is_told() {
        let b = Bench::new(Settings::default());
        assert_eq!(look(&b, false), Err(Blocked::Lock), "of a line that never had a writer");
        b.set("key", 10);
        assert_eq!(look(&b, false), Ok(true));
        let held = b.store.hold(&b.local, b.store.hash(key()));
        assert_eq!(look(&b, false), Err(Blocked::Writer));
        drop(held);
        b.set("key", 100_000);
        assert_eq!(look(&b, false), Err(Blocked::Lock), "of a large item");
        b.set("key", 10);
        b.delete_as("key", true);
        assert_eq!(look(&b, true), Err(Blocked::Lock), "of a stale item");
        b.delete("key");
        assert_eq!(look(&b, false), Ok(false));
    }

    #[test]
    fn a_get_waits_for_who_has_its_line() {
        let b = Bench::new(Settings::default());
        b.set("key", 10);
        let hash = b.store.hash(key());
        let mut held = b.store.hold(&b.local, hash);
        thread::scope(|scope| {
            let got = scope.spawn(|| {
                let mut lengths = Vec::new();
                let local = b.store.local();
                let visit = |hit: Hit<'_>| lengths.push(hit.value_len());
                assert!(b.store.get(&local, &Get::of(key()), hash, visit));
                lengths
            });
            let found = held.find(key(), Purpose::Write).expect("an item");
            found.item.put_value(found.shape, 0, b"0123456789");
            held.line.dirty();
            drop(held);
            assert_eq!(got.join().expect("no panic").last(), Some(&10));
        });
        b.validate();
    }
}
