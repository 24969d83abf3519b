//! Probation and a clock. New items stand in probation, a ring of references to the newest share of
//! the class's chunks. At its end an item that was read at least twice moves to the main part (a
//! bit flips, nothing moves); any other is the victim, and its key is remembered for a while: see
//! `ghost`. A key that comes back from there goes straight to the main part, which is swept in
//! place by a hand: a counter above 0 costs one, an item at 0 is the victim. What left probation
//! only because newer items came while there was room has earned nothing: it goes first.

use super::{Class, Entry, LOOK_MAX, LOOK_OTHER, LOOK_UNREAD, Look, Rule};
use super::{dequeue, evictable, is_dead, item_of, sweep};
use crate::item::Shape;
use crate::store::flush::Horizon;
use crate::store::ghost::Part;
use slab::ChunkRef;

/// Accesses that lead from probation to the main part.
const PROMOTE_AT: u32 = 2;
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
        let Some(oldest) = class.ring.pop_front() else { break };
        match dequeue(class, oldest) {
            Entry::Gone => continue,
            Entry::Item(_, shape, _) if shape.has(Shape::MAIN) => continue,
            Entry::Item(_, _, standing) if !standing.fetched() => class.unread += 1,
            _ => {}
        }
        class.moves.to_cold += 1;
    }
    room
}

/// Chunks that probation covers: its share, but in a class of few chunks up to half, lest each new
/// item push out the one before.
fn probation(class: &Class<'_>, rule: Rule) -> usize {
    let total = class.total_chunks().saturating_sub(u64::from(class.bodies));
    let share = if class.probation == 0 { rule.probation } else { class.probation };
    (total * u64::from(share) / 1000).max((total / 2).clamp(1, 16)) as usize
}

/// Looks at one more chunk of the part whose turn it is to give something up. `looks`: how many
/// there were for this choice, and whether one of them found what could go.
pub(super) fn turn(
    class: &mut Class<'_>,
    horizon: Horizon,
    rule: Rule,
    looks: (usize, bool),
) -> (Part, Option<(ChunkRef, Look)>) {
    let (count, found) = looks;
    if class.unread > 0 && count < LOOK_UNREAD {
        return (Part::Main, next_unread(class));
    }
    let full = class.ring.len() >= probation(class, rule);
    // The main part may be all TEMP, pinned or bodies, and probation all pinned.
    let other = !found && count >= LOOK_MAX - LOOK_OTHER;
    if full != other && !class.ring.is_empty() {
        (Part::Probation, next(class, horizon))
    } else {
        (Part::Main, sweep(class, horizon))
    }
}

/// Looks at one more chunk of the main part for an item that never earned its place there: while
/// there was room, probation made way for newer ones.
fn next_unread(class: &mut Class<'_>) -> Option<(ChunkRef, Look)> {
    let mut hand = class.unread_hand;
    let at = hand.advance(class);
    class.unread_hand = hand;
    let Some(chunk) = at else {
        // All were looked at: whoever is not met by now has been read, or is gone.
        class.unread = 0;
        return class
            .pages()
            .first()
            .map(|page| (class.slabs().chunk_at(*page, class.class(), 0), Look::Skip));
    };
    let item = item_of(class, chunk);
    let (standing, shape) = (item.standing(), item.shape());
    let earned = standing.fetched() || standing.counter() > 0 || shape.queued();
    if earned || !evictable(standing, shape) {
        return Some((chunk, Look::Skip));
    }
    class.unread -= 1;
    Some((chunk, Look::Take))
}

/// Looks at the oldest entry of probation.
fn next(class: &mut Class<'_>, horizon: Horizon) -> Option<(ChunkRef, Look)> {
    let chunk = class.ring.pop_front()?;
    let Entry::Item(item, shape, standing) = dequeue(class, chunk) else {
        return Some((chunk, Look::Skip));
    };
    if shape.has(Shape::MAIN) {
        return Some((chunk, Look::Skip));
    }
    if is_dead(item, standing, shape, horizon) || standing.counter() < PROMOTE_AT {
        return Some((chunk, Look::Take));
    }
    item.change_standing(standing, standing.with_counter(0));
    class.moves.to_cold += 1;
    Some((chunk, Look::Spare(standing.counter())))
}
