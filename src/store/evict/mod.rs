//! Which chunk of a class goes when room is needed. Policies share one small interface: a new item
//! is [`enqueue`]d, and [`victim`] asks the policy's `next` for one chunk after another until one
//! of them may go. Nothing is unlinked here, and a delete touches no queue: what is not linked any
//! more is skipped when its turn comes.
//!
//! - `s3`: probation and a clock, in the spirit of S3-FIFO (Yang et al., SOSP'23), or one queue,
//!   whichever hits more by `duel`. The default.
//! - `queue`: one queue over the whole class, as an approximation of a flat LRU or as SIEVE.

mod ahead;
mod duel;
mod miniature;
mod places;
mod queue;
mod s3;
mod surge;
#[cfg(test)]
mod tests;

use super::flush::Horizon;
use super::ghost::Part;
use crate::config::Eviction;
use crate::item::{Item, Shape, Standing, State, body_head};
pub(super) use ahead::{Ahead, ahead};
pub(super) use duel::{Capacity, Duel};
use places::Places;
use slab::{ChunkRef, ClassGuard, PageNo};
use std::collections::HashMap;
pub(super) use surge::Surge;

/// Headers that one choice may look at: first those that the policy shows, then, if none of them
/// is an item that could go, any.
pub(super) const LOOK_MAX: usize = 64;
const LOOK_ANYWHERE: usize = 16;
/// After so many without a victim the other part has its turn.
const LOOK_OTHER: usize = LOOK_MAX / 8 * 5;
/// The first of these, for what left probation unread: there may be less of it than is counted.
const LOOK_UNREAD: usize = LOOK_MAX / 2;
/// Places without an item that an item which joins takes away from the queue's front.
const CLEAN_AT_ONCE: usize = 2;

/// One in so many items is few, where TEMP items have all the others.
const FEW_SHARE: usize = 10;

/// Bytes of a place in a queue, with what the queue's blocks have no use for.
pub(super) const PLACE_BYTES: u64 = 5;

/// Places that are gone through when a page leaves: some tens of microseconds.
const FORGET_MAX: usize = 1 << 15;

/// Entries that leave probation at once.
const SHORTEN_MAX: usize = 4096;

/// Seconds in which a flat LRU takes an item's reads for one, as memcached's does.
pub(super) const BUMP_INTERVAL: u32 = 60;

/// The policy in force, as the shard knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub eviction: Eviction,
    /// Probation's share of a class's chunks, in thousandths.
    pub probation: u32,
    /// Queues are not charged to -m, so probation may be longer than its share for as long as
    /// there is room.
    pub roomy: bool,
    /// The class that it is for is one queue: see `duel`.
    pub whole: bool,
}

impl Rule {
    /// What the options come to: a flat LRU where segments are not wanted, and half of what
    /// memcached would make HOT for probation, so that its 20 per cent give S3-FIFO's tenth.
    pub fn of(eviction: Eviction, segmented: bool, hot_pct: u32, roomy: bool) -> Rule {
        let eviction = if segmented || eviction != Eviction::S3 { eviction } else { Eviction::Lru };
        Rule { eviction, probation: hot_pct * 5, roomy, whole: false }
    }

    /// False where every item stands in the queue.
    pub fn has_main(self) -> bool {
        self.eviction == Eviction::S3 && !(self.whole && self.roomy)
    }

    pub fn pack(self) -> u32 {
        u32::from(self.roomy) << 24 | (self.eviction as u32) << 16 | self.probation
    }

    #[inline]
    pub fn unpack(word: u32) -> Rule {
        let eviction = match word >> 16 & 0xFF {
            0 => Eviction::S3,
            1 => Eviction::Lru,
            _ => Eviction::Sieve,
        };
        Rule { eviction, probation: word & 0xFFFF, roomy: word >> 24 != 0, whole: false }
    }

    /// Bytes kept per chunk beside the arena, times 64: places in queues.
    pub fn overhead_64ths(self) -> u32 {
        match self.eviction {
            Eviction::S3 => PLACE_BYTES as u32 * 64 * self.probation / 1000,
            Eviction::Lru => PLACE_BYTES as u32 * 64,
            Eviction::Sieve => 2 * PLACE_BYTES as u32 * 64,
        }
    }
}

/// What a class keeps under its lock.
#[derive(Default)]
pub(super) struct Policy {
    /// Oldest first. An entry counts only if its chunk's queued bit is set, and not the one that
    /// says that there is a stale one first; a chunk stands here and in `passed` at most twice.
    ring: Places,
    /// What the hand of SIEVE has passed in this round.
    passed: Places,
    hand: Hand,
    /// Items that left probation because another came while there was room, and were not read
    /// until then; and the hand that looks for them.
    unread: u32,
    unread_hand: Hand,
    /// This round of that hand has met one.
    unread_met: bool,
    /// Items that left probation and were kept, or were put on another round: to be counted.
    pub moves: Moves,
    /// Probation's share of the class's chunks, in thousandths, as its gains have made it; 0: as
    /// the rule says.
    pub probation: u32,
    /// The class is one queue: see `s3`.
    pub whole: bool,
    /// Chunks of the class that are bodies of chains: they have no place of their own in a queue.
    pub bodies: u32,
    pub surge: Surge,
    /// Where the search for pages with expired items goes on.
    pub due_from: usize,
    /// What items are drawn by.
    dice: u64,
}

/// Moves since the counters last took them.
#[derive(Clone, Copy, Default)]
pub(super) struct Moves {
    pub to_cold: u32,
    pub within: u32,
}

/// Where a sweep over a class's chunks stands.
#[derive(Default, Clone, Copy)]
struct Hand {
    /// The page's place among the class's; `None` before the first.
    at: Option<(usize, PageNo)>,
    /// Chunks of it that are done with.
    chunk: u32,
}

/// The item that should go, and where it stood.
#[derive(Clone, Copy)]
pub(super) struct Victim {
    pub chunk: ChunkRef,
    pub part: Part,
}

/// What to do with a chunk that was looked at.
enum Look {
    Take,
    Skip,
    /// It may go if nothing better turns up: its counter.
    Spare(u32),
}

pub(super) type Class<'a> = ClassGuard<'a, Policy>;

/// Gives a new item its place. One whose key was evicted not long ago has no need of probation.
pub(super) fn admit(
    class: &mut Class<'_>,
    chunk: ChunkRef,
    item: Item<'_>,
    rule: Rule,
    known: bool,
) {
    if !known || rule.eviction != Eviction::S3 {
        return enqueue(class, chunk, item, rule);
    }
    item.change_standing(item.standing(), item.standing().with_counter(1));
    match rule.whole {
        true => enqueue(class, chunk, item, rule),
        false => leave(class, item),
    }
}

/// A new item takes its place. That which its chunk may still have from its last life is stale.
pub(super) fn enqueue(class: &mut Class<'_>, chunk: ChunkRef, item: Item<'_>, rule: Rule) {
    s3::follow(class, rule);
    let room = match rule.eviction {
        Eviction::S3 if !rule.roomy => s3::make_way(class, rule),
        Eviction::S3 => s3::outgrow(class, rule),
        _ => class.total_chunks() as usize,
    };
    let shape = item.shape();
    let most = if rule.roomy { 2 * room } else { room + room / 8 };
    if class.ring.len() + class.passed.len() >= most {
        if shape.has(Shape::QUEUED) {
            // It comes a little early.
            return;
        }
        if let Some(oldest) = pop_place(class)
            && !matches!(dequeue(class, oldest), Entry::Gone)
        {
            queue::requeue(class, oldest, rule.eviction);
        }
    }
    if shape.has(Shape::QUEUED) && shape.has(Shape::STALE_PLACE) {
        return;
    }
    leave(class, item);
    clean_front(class);
    class.ring.push_back(chunk);
    item.set_bits(Shape::QUEUED);
}

/// Takes the queue's first place whose page is still the class's: pages that have moved may leave
/// theirs behind, which is seen without looking at a header.
fn pop_place(class: &mut Class<'_>) -> Option<ChunkRef> {
    loop {
        let chunk = class.ring.pop_front()?;
        if class.slabs().is_chunk_of(chunk, class.class()) {
            return Some(chunk);
        }
    }
}

/// A page is no longer the class's: takes its places out of the queue, lest it come back and they
/// be taken for those of its new items. In a very long queue they are left to be met: the worst
/// that comes of it is that some items are looked at early.
pub(super) fn forget_page(class: &mut Class<'_>, page: PageNo) {
    if class.ring.len() + class.passed.len() <= FORGET_MAX {
        let slabs = class.slabs();
        class.ring.retain(|chunk| slabs.page_of(chunk) != page);
        class.passed.retain(|chunk| slabs.page_of(chunk) != page);
    }
}

/// Takes places without an item away from the queue's front, lest they outnumber the others when a
/// class that was emptied fills again.
fn clean_front(class: &mut Class<'_>) {
    for _ in 0..CLEAN_AT_ONCE {
        let Some(chunk) = class.ring.front() else { return };
        let item = item_of(class, chunk);
        let shape = item.shape();
        let lives = class.slabs().is_chunk_of(chunk, class.class())
            && shape.has(Shape::QUEUED)
            && !shape.has(Shape::STALE_PLACE)
            && item.standing().state() != State::Free;
        if lives {
            return;
        }
        class.ring.pop_front();
        dequeue(class, chunk);
    }
}

/// An item is not to have a place. One that its chunk has from its last life goes stale.
pub(super) fn leave(_: &mut Class<'_>, item: Item<'_>) {
    if item.shape().has(Shape::QUEUED) {
        item.clear_bits(Shape::QUEUED);
        item.set_bits(Shape::STALE_PLACE);
    }
}

/// Queues what is in no queue though the policy has all in one, as the oldest; true where it was
/// such. It may be changing hands: at the worst an entry is made that counts for nothing.
pub(super) fn enqueue_lost(class: &mut Class<'_>, chunk: ChunkRef) -> bool {
    let item = item_of(class, chunk);
    let shape = item.shape();
    let stands = shape.has(Shape::QUEUED | Shape::TEMP);
    let linked = item.standing().state() == State::Linked;
    if stands || !linked || !class.slabs().is_chunk_of(chunk, class.class()) {
        return false;
    }
    if shape.has(Shape::STALE_PLACE) {
        // What its chunk still has of its last life will do.
        item.clear_bits(Shape::STALE_PLACE);
    } else {
        class.ring.push_front(chunk);
    }
    item.set_bits(Shape::QUEUED);
    true
}

/// Brings probation nearer to the length that it has by the rule, after another rule has made it
/// longer.
pub(super) fn shorten(class: &mut Class<'_>, rule: Rule) {
    if !rule.roomy {
        s3::shorten(class, rule, SHORTEN_MAX);
    }
}

/// The item that should go; `None` where all that was looked at is pinned or reserved. TEMP items
/// go where there is next to nothing else, lest all others have to make do with what is left.
pub(super) fn victim(class: &mut Class<'_>, horizon: Horizon, rule: Rule) -> Option<Victim> {
    s3::follow(class, rule);
    let mut spare: Option<(u32, Victim)> = None;
    for n in 0..LOOK_MAX - LOOK_ANYWHERE {
        let may_be_temp = match rule.has_main() {
            true if rule.whole => n == LOOK_ANYWHERE && spare.is_none(),
            true => n == LOOK_OTHER && spare.is_none(),
            false => n == 0 && has_few_places(class),
        };
        if may_be_temp && let Some(victim) = temp_victim(class) {
            return Some(victim);
        }
        let hunts = n < LOOK_UNREAD && class.unread > 0;
        let part = match rule.eviction {
            // The main part may be all TEMP, pinned or bodies, and probation all pinned.
            Eviction::S3 if n >= LOOK_OTHER && spare.is_none() => s3::other(class, rule),
            Eviction::S3 => s3::turn(class, rule, hunts),
            Eviction::Lru | Eviction::Sieve => Part::Main,
        };
        let (chunk, look) = match (rule.eviction, part) {
            (Eviction::S3, Part::Probation) => s3::next(class, horizon)?,
            (Eviction::S3, Part::Main) if hunts => s3::next_unread(class)?,
            (Eviction::S3, Part::Main) => sweep(class, horizon)?,
            (eviction, _) => queue::next(class, horizon, eviction)?,
        };
        // What is hunted for was never more than on probation.
        let victim = Victim { chunk, part: if hunts { Part::Probation } else { part } };
        match look {
            Look::Take => return Some(victim),
            Look::Spare(counter) if spare.is_none_or(|(least, _)| counter < least) => {
                spare = Some((counter, victim));
            }
            Look::Spare(_) | Look::Skip => {}
        }
    }
    let found = spare.map(|(_, victim)| victim).or_else(|| any_victim(class));
    found.or_else(|| temp_victim(class))
}

/// The least read of the next items under the hand, whatever the queues say of them: after many
/// deletes these may hold next to nothing but stale places.
fn any_victim(class: &mut Class<'_>) -> Option<Victim> {
    let looks = (0..LOOK_ANYWHERE).filter_map(|_| {
        let chunk = next_under_hand(class)?;
        let item = item_of(class, chunk);
        let (standing, shape) = (item.standing(), item.shape());
        let victim = Victim { chunk, part: part_of(shape) };
        evictable(standing, shape).then_some((standing.counter(), victim))
    });
    looks.min_by_key(|(counter, _)| *counter).map(|(_, victim)| victim)
}

/// True where next to none of a class's items are queued, which all but TEMP ones are where there
/// is one queue.
fn has_few_places(class: &Class<'_>) -> bool {
    let places = class.ring.len() + class.passed.len() + class.bodies as usize;
    places < class.total_chunks() as usize / FEW_SHARE
}

/// Of some items drawn at random the one that ends soonest, if all of them are TEMP.
fn temp_victim(class: &mut Class<'_>) -> Option<Victim> {
    let per_page = u64::from(class.slabs().geometry().chunks_per_page(class.class()));
    let mut soonest: Option<(u32, ChunkRef)> = None;
    for _ in 0..LOOK_ANYWHERE {
        // Knuth's generator: the upper half is random enough.
        class.dice = class.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = ((class.dice >> 32) * class.total_chunks()) >> 32;
        let page = *class.pages().get((at / per_page) as usize)?;
        let drawn = class.slabs().chunk_at(page, class.class(), (at % per_page) as u32);
        let body = item_of(class, drawn).standing().is_body();
        let chunk = if body { body_head(class.slabs(), drawn)? } else { drawn };
        let item = item_of(class, chunk);
        let shape = item.shape();
        if item.standing().state() != State::Linked || shape.has(Shape::PINNED) {
            continue;
        }
        if !shape.has(Shape::TEMP) {
            return None;
        }
        let deadline = item.deadline(shape);
        if soonest.is_none_or(|(least, _)| deadline < least) {
            soonest = Some((deadline, chunk));
        }
    }
    soonest.map(|(_, chunk)| Victim { chunk, part: part_of(item_of(class, chunk).shape()) })
}

/// Where an item stands that was not chosen by [`victim`].
pub(super) fn part_of(shape: Shape) -> Part {
    if shape.has(Shape::QUEUED) { Part::Probation } else { Part::Main }
}

impl Policy {
    /// Bytes of its queues, used or not.
    pub fn queue_bytes(&self) -> u64 {
        ((self.ring.capacity() + self.passed.capacity()) * size_of::<ChunkRef>()) as u64
    }

    /// Entries in its queues, with those that count for nothing.
    #[cfg(test)]
    pub fn queued(&self) -> usize {
        self.ring.len() + self.passed.len()
    }
}

impl Hand {
    /// Moves on by one chunk of the class's pages; `None` at the end, from where it starts again.
    fn advance(&mut self, class: &Class<'_>) -> Option<ChunkRef> {
        let (slabs, pages) = (class.slabs(), class.pages());
        let (mut place, stays) = self.place(pages);
        if !stays {
            self.chunk = 0;
        } else if self.chunk >= slabs.geometry().chunks_per_page(class.class()) {
            (place, self.chunk) = (place + 1, 0);
        }
        let Some(page) = pages.get(place) else {
            *self = Hand::default();
            return None;
        };
        self.at = Some((place, *page));
        self.chunk += 1;
        Some(slabs.chunk_at(*page, class.class(), self.chunk - 1))
    }

    /// The chunk so many after the last one, if that is on the same page.
    fn beyond(&self, class: &Class<'_>, chunks: u32) -> Option<ChunkRef> {
        let ((place, page), chunk) = (self.at?, self.chunk - 1 + chunks);
        let there = class.pages().get(place) == Some(&page);
        let fits = chunk < class.slabs().geometry().chunks_per_page(class.class());
        (there && fits).then(|| class.slabs().chunk_at(page, class.class(), chunk))
    }

    /// Where its page is by now, as pages that leave let those behind them move up; or where the
    /// page was that has left, and false.
    fn place(&self, pages: &[PageNo]) -> (usize, bool) {
        let Some((at, page)) = self.at else { return (0, false) };
        if pages.get(at) == Some(&page) {
            return (at, true);
        }
        let moved_up = pages.iter().take(at).rposition(|other| *other == page);
        moved_up.map_or((at, false), |place| (place, true))
    }
}

/// What a queue's entry turned out to be.
enum Entry<'a> {
    /// No item, or one that is queued elsewhere by now.
    Gone,
    /// An item that cannot go now, because its value is being sent.
    Busy,
    Item(Item<'a>, Shape, Standing),
}

/// Takes an entry's chunk out of the queue.
fn dequeue<'a>(class: &Class<'a>, chunk: ChunkRef) -> Entry<'a> {
    let item = item_of(class, chunk);
    if !class.slabs().is_chunk_of(chunk, class.class()) {
        return Entry::Gone;
    }
    let (standing, shape) = (item.standing(), item.shape());
    if shape.has(Shape::STALE_PLACE) {
        item.clear_bits(Shape::STALE_PLACE);
        return Entry::Gone;
    }
    if !shape.has(Shape::QUEUED) {
        return Entry::Gone;
    }
    item.clear_bits(Shape::QUEUED);
    match standing.state() {
        State::Linked if shape.has(Shape::TEMP) => Entry::Gone,
        State::Linked if shape.has(Shape::PINNED) => Entry::Busy,
        State::Linked => Entry::Item(item, shape, standing),
        _ => Entry::Gone,
    }
}

fn next_under_hand(class: &mut Class<'_>) -> Option<ChunkRef> {
    let mut hand = class.hand;
    let chunk = hand.advance(class).or_else(|| hand.advance(class));
    ahead::follow(class, hand);
    class.hand = hand;
    chunk
}

/// Looks at the chunk under the hand, as a clock does: a counter above 0 costs one.
fn sweep(class: &mut Class<'_>, horizon: Horizon) -> Option<(ChunkRef, Look)> {
    let chunk = next_under_hand(class)?;
    let item = item_of(class, chunk);
    let (standing, shape) = (item.standing(), item.shape());
    if standing.is_body() {
        return Some(head_of_body(class, chunk));
    }
    if !evictable(standing, shape) || shape.has(Shape::QUEUED) {
        return Some((chunk, Look::Skip));
    }
    let counter = standing.counter();
    let left = s3::left_by_hand(class, counter);
    let Some(left) = left.filter(|_| !is_dead(item, standing, shape, horizon)) else {
        return Some((chunk, Look::Take));
    };
    item.change_standing(standing, standing.with_counter(left));
    class.moves.within += 1;
    Some((chunk, Look::Spare(counter)))
}

/// A body stands for its head, which goes only if nothing better turns up: in a class of very large
/// values heads are too far apart to be met.
fn head_of_body(class: &Class<'_>, body: ChunkRef) -> (ChunkRef, Look) {
    let Some(head) = body_head(class.slabs(), body) else {
        return (body, Look::Skip);
    };
    let item = item_of(class, head);
    let standing = item.standing();
    match evictable(standing, item.shape()) {
        true => (head, Look::Spare(standing.counter())),
        false => (head, Look::Skip),
    }
}

/// For `validate`: chains' bodies are counted, what says that it has places in a queue has them,
/// and with `all` every item has one.
pub(super) fn check(class: &Class<'_>, all: bool) -> Result<(), String> {
    let mut places: HashMap<ChunkRef, u32> = HashMap::new();
    for chunk in class.ring.iter().chain(class.passed.iter()) {
        *places.entry(chunk).or_default() += 1;
    }
    let slabs = class.slabs();
    let mut bodies = 0;
    for page in class.pages() {
        for index in 0..slabs.geometry().chunks_per_page(class.class()) {
            let chunk = slabs.chunk_at(*page, class.class(), index);
            let item = item_of(class, chunk);
            let (standing, shape) = (item.standing(), item.shape());
            bodies += u32::from(standing.is_body());
            let missing =
                all && standing.state() == State::Linked && !shape.has(Shape::QUEUED | Shape::TEMP);
            if missing || (shape.0 & Shape::PLACES).count_ones() > *places.get(&chunk).unwrap_or(&0)
            {
                return Err(format!("{chunk:?} is not queued"));
            }
        }
    }
    if bodies != class.bodies {
        return Err(format!("{bodies} bodies, {} counted", class.bodies));
    }
    Ok(())
}

fn item_of<'a>(class: &Class<'a>, chunk: ChunkRef) -> Item<'a> {
    Item::new(&class.slabs().words()[chunk.word()..])
}

fn evictable(standing: Standing, shape: Shape) -> bool {
    standing.state() == State::Linked && !shape.has(Shape::PINNED | Shape::TEMP)
}

fn is_dead(item: Item<'_>, standing: Standing, shape: Shape, horizon: Horizon) -> bool {
    horizon.flushed(standing) || horizon.expired(item.deadline(shape))
}
