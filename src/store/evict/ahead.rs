//! What the next victims need of the memory: headers, keys, lines of the index and of the ghosts
//! lie all over it, and choosing a victim would wait for one after the other.

use super::{Class, Hand, Rule, evictable, item_of, s3};
use crate::config::Eviction;
use crate::item::{Shape, Standing};
use crate::store::ghost::Part;
use slab::ChunkRef;

/// Places until a chunk's turn: when it is time for its header, and, that being there, for what its
/// key leads to.
const TO_HEADER: u32 = 8;
const TO_KEY: u32 = 3;

/// Chunks that may be victims before long. They may be anything by then.
#[derive(Clone, Copy)]
pub(in crate::store) struct Ahead {
    pub header: Option<ChunkRef>,
    pub key: Option<ChunkRef>,
}

/// What to bring after a victim of `part`, as the next ones are likely to come from there.
pub(in crate::store) fn ahead(class: &Class<'_>, part: Part, rule: Rule) -> Ahead {
    let key = if rule.eviction != Eviction::S3 {
        class.ring.get(TO_KEY as usize)
    } else if class.unread > 0 {
        by_hand(class, class.unread_hand, |standing, shape| !s3::earned(standing, shape))
    } else if part == Part::Probation {
        class.ring.get(TO_KEY as usize)
    } else {
        by_hand(class, class.hand, |standing, shape| {
            standing.counter() == 0 && !shape.has(Shape::QUEUED)
        })
    };
    // Something leaves probation with every newcomer, whoever is the victim.
    Ahead { header: class.ring.get(TO_HEADER as usize), key }
}

/// The chunk that a hand will come to, if it is an item that would go.
fn by_hand(
    class: &Class<'_>,
    hand: Hand,
    goes: impl Fn(Standing, Shape) -> bool,
) -> Option<ChunkRef> {
    let chunk = hand.beyond(class, TO_KEY)?;
    let item = item_of(class, chunk);
    let (standing, shape) = (item.standing(), item.shape());
    (evictable(standing, shape) && goes(standing, shape)).then_some(chunk)
}

/// A hand has moved on: brings the header of the chunk that it will come to.
pub(super) fn follow(class: &Class<'_>, hand: Hand) {
    if let Some(chunk) = hand.beyond(class, TO_HEADER) {
        item_of(class, chunk).prefetch_key();
    }
}
