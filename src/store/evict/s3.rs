//! Probation and a clock. New items stand in probation, a ring of references to the newest share of
//! the class's chunks. At its end an item that was read at least twice moves to the main part (a
//! bit flips, nothing moves); any other is the victim, and its key is remembered for a while: see
//! `ghost`. A key that comes back from there goes straight to the main part, which is swept in
//! place by a hand: a counter above 0 costs one, an item at 0 is the victim. What left probation
//! only because newer items came while there was room has earned nothing: it goes first.
//!
//! A class that is one queue (see `duel`) is swept by that hand alone, in place: an item that was
//! read twice stays for another round, any other is the victim. New items take the chunks that
//! victims leave, so the hand meets the oldest first; the newest share of the class, in probation,
//! is passed over. With `layout=memcached` the ring itself is the queue while it has all items.

use super::{Class, Entry, Look, Rule, ahead, dequeue, evictable, is_dead, item_of, pop_place};
use crate::item::{Item, Shape, Standing};
use crate::store::flush::Horizon;
use crate::store::ghost::Part;
use slab::ChunkRef;

/// Accesses that lead from probation to the main part.
pub(super) const PROMOTE_AT: u32 = 2;
/// Entries that leave when one joins and there are too many, as after a page was given up.
const LEAVE_MAX: usize = 2;

/// Makes room for one entry; returns how many probation is to hold.
pub(super) fn make_way(class: &mut Class<'_>, rule: Rule) -> usize {
    shorten(class, rule, LEAVE_MAX)
}

/// Lets up to `most` of the oldest entries go while there are too many for one more; returns how
/// many probation is to hold.
pub(super) fn shorten(class: &mut Class<'_>, rule: Rule, most: usize) -> usize {
    let room = probation(class, rule);
    for _ in 0..most {
        if class.ring.len() < room {
            break;
        }
        let Some(oldest) = pop_place(class) else { break };
        match dequeue(class, oldest) {
            Entry::Gone => continue,
            Entry::Item(_, _, standing) if !standing.fetched() && !class.whole => class.unread += 1,
            _ => {}
        }
        class.moves.to_cold += 1;
    }
    room
}

/// Where queues are not charged, probation keeps its oldest until they have to go, though its share
/// is full and they are COLD by then. Returns how many places there may be.
pub(super) fn outgrow(class: &mut Class<'_>, rule: Rule) -> usize {
    if class.ring.len() >= probation(class, rule) {
        class.moves.to_cold += 1;
    }
    class.total_chunks() as usize
}

/// Chunks that probation covers: its share, but in a class of few chunks up to half, lest each new
/// item push out the one before.
fn probation(class: &Class<'_>, rule: Rule) -> usize {
    let total = class.total_chunks().saturating_sub(u64::from(class.bodies));
    let share = if class.probation == 0 { rule.probation } else { class.probation };
    (total * u64::from(share) / 1000).max((total / 2).clamp(1, 16)) as usize
}

/// The part whose turn it is to give something up; `hunts`: for what left probation unread.
pub(super) fn turn(class: &Class<'_>, rule: Rule, hunts: bool) -> Part {
    if class.whole && !hunts {
        // Where the ring has them all, it knows their order better than their places do.
        return if rule.roomy && !class.ring.is_empty() { Part::Probation } else { Part::Main };
    }
    let full = class.ring.len() >= probation(class, rule);
    if full && !hunts { Part::Probation } else { Part::Main }
}

/// The other part, if it has anything.
pub(super) fn other(class: &Class<'_>, rule: Rule) -> Part {
    match turn(class, rule, false) {
        Part::Main if !class.ring.is_empty() => Part::Probation,
        _ => Part::Main,
    }
}

/// Looks at one more chunk of the main part for an item that never earned its place there: while
/// there was room, probation made way for newer ones.
pub(super) fn next_unread(class: &mut Class<'_>) -> Option<(ChunkRef, Look)> {
    let mut hand = class.unread_hand;
    let at = hand.advance(class);
    ahead::follow(class, hand);
    class.unread_hand = hand;
    let Some(chunk) = at else {
        // A whole round without any: whoever was counted has been read since, or is gone.
        if !std::mem::take(&mut class.unread_met) {
            class.unread = 0;
        }
        let first = class.pages().first()?;
        return Some((class.slabs().chunk_at(*first, class.class(), 0), Look::Skip));
    };
    let item = item_of(class, chunk);
    let (standing, shape) = (item.standing(), item.shape());
    if !evictable(standing, shape) || shape.has(Shape::QUEUED) {
        return Some((chunk, Look::Skip));
    }
    if class.whole && standing.counter() >= PROMOTE_AT {
        class.unread_met = true;
        requeue(class, chunk, item, standing);
        return Some((chunk, Look::Skip));
    }
    if !class.whole && earned(standing, shape) {
        return Some((chunk, Look::Skip));
    }
    class.unread = class.unread.saturating_sub(1);
    class.unread_met = true;
    Some((chunk, Look::Take))
}

/// Another round through a probation that covers the whole class.
fn requeue(class: &mut Class<'_>, chunk: ChunkRef, item: Item<'_>, standing: Standing) {
    item.change_standing(standing, standing.with_counter(PROMOTE_AT - 1));
    item.set_bits(Shape::QUEUED);
    class.ring.push_back(chunk);
    class.moves.within += 1;
}

/// The counter that the hand of the main part leaves to an item with this one; `None`: it goes.
pub(super) fn left_by_hand(class: &Class<'_>, counter: u32) -> Option<u32> {
    if class.whole {
        (counter >= PROMOTE_AT).then_some(PROMOTE_AT - 1)
    } else {
        counter.checked_sub(1)
    }
}

/// Brings the class in line with whether it is one queue. What there is by then in the main part is
/// hunted: as a class in two parts begins, what was never read; as a ring is to have all, all.
pub(super) fn follow(class: &mut Class<'_>, rule: Rule) {
    if class.whole != rule.whole {
        class.whole = rule.whole;
        let hunts = rule.roomy == rule.whole;
        class.unread = if hunts { class.total_chunks() as u32 } else { 0 };
        class.unread_met = false;
    }
}

/// True for an item that is in its place by right: read, or in probation still.
pub(super) fn earned(standing: Standing, shape: Shape) -> bool {
    standing.fetched() || standing.counter() > 0 || shape.has(Shape::QUEUED)
}

/// Looks at the oldest entry of probation.
pub(super) fn next(class: &mut Class<'_>, horizon: Horizon) -> Option<(ChunkRef, Look)> {
    let chunk = pop_place(class)?;
    let Entry::Item(item, shape, standing) = dequeue(class, chunk) else {
        return Some((chunk, Look::Skip));
    };
    if is_dead(item, standing, shape, horizon) || standing.counter() < PROMOTE_AT {
        return Some((chunk, Look::Take));
    }
    if class.whole {
        requeue(class, chunk, item, standing);
    } else {
        item.change_standing(standing, standing.with_counter(0));
        class.moves.to_cold += 1;
    }
    Some((chunk, Look::Spare(standing.counter())))
}
