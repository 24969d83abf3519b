//! One queue over all of a class's items, oldest first. What was read since it was last looked at
//! is spared: as a flat LRU would have it, it joins the end again (which is second-chance FIFO: an
//! LRU in steps of one round); as SIEVE has it, it keeps its place behind the hand.

use super::{Class, Entry, Look, dequeue, is_dead, item_of, pop_place, sweep};
use crate::config::Eviction;
use crate::item::Shape;
use crate::store::flush::Horizon;
use slab::ChunkRef;

/// Looks at one more chunk.
pub(super) fn next(
    class: &mut Class<'_>,
    horizon: Horizon,
    eviction: Eviction,
) -> Option<(ChunkRef, Look)> {
    if class.ring.is_empty() {
        let policy = &mut **class;
        std::mem::swap(&mut policy.ring, &mut policy.passed);
    }
    let Some(chunk) = pop_place(class) else {
        // Nothing is queued: what there is came before this policy did, or is a chain's body.
        return sweep(class, horizon);
    };
    let (item, shape, standing) = match dequeue(class, chunk) {
        Entry::Item(item, shape, standing) => (item, shape, standing),
        Entry::Gone => return Some((chunk, Look::Skip)),
        Entry::Busy => {
            requeue(class, chunk, eviction);
            return Some((chunk, Look::Skip));
        }
    };
    if standing.counter() == 0 || is_dead(item, standing, shape, horizon) {
        return Some((chunk, Look::Take));
    }
    item.change_standing(standing, standing.with_counter(0));
    class.moves.within += 1;
    requeue(class, chunk, eviction);
    Some((chunk, Look::Spare(standing.counter())))
}

/// Another round for an item that stays.
pub(super) fn requeue(class: &mut Class<'_>, chunk: ChunkRef, eviction: Eviction) {
    item_of(class, chunk).set_bits(Shape::QUEUED);
    let queue = match eviction {
        Eviction::Sieve => &mut class.passed,
        _ => &mut class.ring,
    };
    queue.push_back(chunk);
}
