//! Which chunk of a class goes when room is needed: probation and a clock, in the spirit of
//! S3-FIFO (Yang et al., SOSP'23) without its links.
//!
//! New items stand in probation, a ring of references to the newest tenth of the class's chunks. At
//! its end an item that was read at least twice moves to the main part (a bit flips, nothing
//! moves); any other is the victim. The main part is swept in place by a hand: a counter above 0
//! costs one, an item at 0 is the victim. Deletes touch neither: what is not linked is skipped.
//!
//! Ghosts and the shadow table come with the memory engine; their place is [`Policy::victim`].

use super::flush::Horizon;
use crate::item::{Item, Shape, Standing, State, body_head};
use slab::{ChunkRef, ClassGuard, ClassId};
use std::collections::VecDeque;

/// Headers that one choice may look at.
pub(super) const LOOK_MAX: usize = 64;
/// Probation is one in so many of a class's chunks.
const PROBATION_SHARE: u64 = 10;
/// Accesses that lead from probation to the main part.
const PROMOTE_AT: u32 = 2;
/// Bytes kept per chunk beside the arena, times 64: the ring's share, and its slack.
pub(super) const OVERHEAD_64THS: u32 = 5 * 64 / PROBATION_SHARE as u32;

/// What a class keeps under its lock.
#[derive(Default)]
pub(super) struct Policy {
    /// Probation, oldest first. An entry counts only while its chunk's queued bit is set.
    ring: VecDeque<ChunkRef>,
    hand: Hand,
    /// Where the search for pages with expired items goes on.
    pub due_from: usize,
}

/// Where the sweep of the main part stands.
#[derive(Default, Clone, Copy)]
struct Hand {
    page: usize,
    chunk: u32,
}

/// What to do with a chunk that was looked at.
enum Look {
    Take,
    Skip,
    /// It may go if nothing better turns up: its counter.
    Spare(u32),
}

pub(super) type Class<'a> = ClassGuard<'a, Policy>;

/// A new item joins probation, unless its chunk is still there from its last life.
pub(super) fn enqueue(class: &mut Class<'_>, chunk: ChunkRef, item: Item<'_>) {
    if item.shape().has(Shape::QUEUED) {
        return;
    }
    let room = probation(class) as usize;
    if class.ring.capacity() < room {
        // In steps of a quarter, so that pages that come one by one do not copy it each time.
        let more = room + room / 4 - class.ring.len();
        class.ring.reserve_exact(more);
    }
    while class.ring.len() >= room {
        let Some(oldest) = class.ring.pop_front() else { break };
        leave_probation(class, oldest);
    }
    class.ring.push_back(chunk);
    item.set_bits(Shape::QUEUED);
}

/// Chunks that probation covers: a tenth, but in a class of few chunks up to half, lest each new
/// item push out the one before.
fn probation(class: &Class<'_>) -> u64 {
    let total = class.total_chunks();
    (total / PROBATION_SHARE).max((total / 2).clamp(1, 16))
}

fn leave_probation(class: &Class<'_>, chunk: ChunkRef) {
    let item = item_of(class, chunk);
    if class.slabs().is_chunk_of(chunk, class.class()) {
        item.clear_bits(Shape::QUEUED);
    }
}

fn item_of<'a>(class: &Class<'a>, chunk: ChunkRef) -> Item<'a> {
    Item::new(&class.slabs().words()[chunk.word()..])
}

/// The chunk that should go, already queued for its next life; `None` where all that was looked at
/// is pinned, reserved or TEMP. Nothing is unlinked yet.
pub(super) fn victim(class: &mut Class<'_>, horizon: Horizon) -> Option<ChunkRef> {
    let mut spare: Option<(u32, ChunkRef)> = None;
    for _ in 0..LOOK_MAX {
        let (chunk, look) = if class.ring.len() as u64 >= probation(class) {
            from_probation(class, horizon)?
        } else {
            from_main(class, horizon)?
        };
        match look {
            Look::Take => return Some(requeue(class, chunk)),
            Look::Spare(counter) if spare.is_none_or(|(least, _)| counter < least) => {
                spare = Some((counter, chunk));
            }
            Look::Spare(_) | Look::Skip => {}
        }
    }
    spare.map(|(_, chunk)| requeue(class, chunk))
}

fn requeue(class: &mut Class<'_>, chunk: ChunkRef) -> ChunkRef {
    if class.slabs().class_of(chunk) == class.class() {
        enqueue(class, chunk, item_of(class, chunk));
    }
    chunk
}

/// Takes the oldest entry of probation.
fn from_probation(class: &mut Class<'_>, horizon: Horizon) -> Option<(ChunkRef, Look)> {
    let chunk = class.ring.pop_front()?;
    let item = item_of(class, chunk);
    if !class.slabs().is_chunk_of(chunk, class.class()) {
        return Some((chunk, Look::Skip));
    }
    let (standing, shape) = (item.standing(), item.shape());
    item.clear_bits(Shape::QUEUED);
    if !shape.has(Shape::QUEUED) || !evictable(standing, shape) {
        return Some((chunk, Look::Skip));
    }
    if is_dead(item, standing, shape, horizon) || standing.counter() < PROMOTE_AT {
        return Some((chunk, Look::Take));
    }
    item.change_standing(standing, standing.with_counter(0));
    Some((chunk, Look::Spare(standing.counter())))
}

/// Moves the hand by one chunk.
fn from_main(class: &mut Class<'_>, horizon: Horizon) -> Option<(ChunkRef, Look)> {
    let chunk = next_under_hand(class)?;
    let item = item_of(class, chunk);
    let (standing, shape) = (item.standing(), item.shape());
    if standing.is_body() {
        return Some(from_body(class, chunk));
    }
    if !evictable(standing, shape) || shape.has(Shape::QUEUED) {
        return Some((chunk, Look::Skip));
    }
    if standing.counter() == 0 || is_dead(item, standing, shape, horizon) {
        return Some((chunk, Look::Take));
    }
    item.change_standing(standing, standing.with_counter(standing.counter() - 1));
    Some((chunk, Look::Spare(standing.counter())))
}

/// A body stands for its head, which goes only if nothing better turns up: in a class of very large
/// values heads are too far apart to be met.
fn from_body(class: &Class<'_>, body: ChunkRef) -> (ChunkRef, Look) {
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

fn next_under_hand(class: &mut Class<'_>) -> Option<ChunkRef> {
    let per_page = class.slabs().geometry().chunks_per_page(class.class());
    if class.hand.chunk >= per_page {
        class.hand = Hand { page: class.hand.page + 1, chunk: 0 };
    }
    if class.hand.page >= class.pages().len() {
        class.hand = Hand::default();
    }
    let page = *class.pages().get(class.hand.page)?;
    class.hand.chunk += 1;
    Some(class.slabs().chunk_at(page, class.class(), class.hand.chunk - 1))
}

fn evictable(standing: Standing, shape: Shape) -> bool {
    standing.state() == State::Linked && !shape.has(Shape::PINNED | Shape::TEMP)
}

fn is_dead(item: Item<'_>, standing: Standing, shape: Shape, horizon: Horizon) -> bool {
    horizon.flushed(standing) || horizon.expired(item.deadline(shape))
}

/// Figures of a class for `stats items`: entries of probation that are linked, and the idle
/// seconds of its oldest.
pub(super) fn probation_figures(class: &Class<'_>, now: u32) -> (u64, u32) {
    let id: ClassId = class.class();
    let mut linked = 0;
    let mut oldest = None;
    for chunk in &class.ring {
        let item = item_of(class, *chunk);
        let counts = class.slabs().is_chunk_of(*chunk, id)
            && item.standing().state() == State::Linked
            && item.shape().has(Shape::QUEUED);
        if counts {
            linked += 1;
            oldest.get_or_insert(item.standing().idle(now));
        }
    }
    (linked, oldest.unwrap_or(0))
}
