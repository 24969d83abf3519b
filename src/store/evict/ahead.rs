//! What the next victims need of the memory: headers, keys, lines of the index and of the ghosts
//! lie all over it, and choosing a victim would wait for one after the other.

use super::{Class, Hand, Rule, evictable, item_of, s3};
use crate::config::Eviction;
use crate::item::{Shape, Standing};
use crate::store::ghost::Part;
use slab::ChunkRef;

/// Places until a chunk's turn: when it is time for its header, and, that being there, for what its
/// key leads to.
const TO_HEADER: usize = 8;
const TO_KEY: usize = 3;
/// Chunks that a hand may still pass until that one.
const LOOK_MAX: usize = 16;

/// Chunks that may be victims before long. They may be anything by then.
#[derive(Clone, Copy)]
pub(in crate::store) struct Ahead {
    pub header: Option<ChunkRef>,
    pub key: Option<ChunkRef>,
}

/// What to bring after a victim of `part`, as the next ones are likely to come from there.
pub(in crate::store) fn ahead(class: &Class<'_>, part: Part, rule: Rule) -> Ahead {
    let key = if rule.eviction != Eviction::S3 {
        class.ring.get(TO_KEY)
    } else if class.unread > 0 {
        by_hand(class, class.unread_hand, |standing, shape| !s3::earned(standing, shape))
    } else if part == Part::Probation {
        class.ring.get(TO_KEY)
    } else {
        by_hand(class, class.hand, |standing, shape| {
            standing.counter() == 0 && !shape.has(Shape::QUEUED)
        })
    };
    // Something leaves probation with every newcomer, whoever is the victim.
    Ahead { header: class.ring.get(TO_HEADER), key }
}

/// The next item but so many that a hand comes to. Headers beyond those that are looked at for that
/// are brought, as a hand may pass several at once.
fn by_hand(
    class: &Class<'_>,
    mut hand: Hand,
    goes: impl Fn(Standing, Shape) -> bool,
) -> Option<ChunkRef> {
    let mut beyond = Hand { chunk: hand.chunk + TO_HEADER as u32, ..hand };
    let chunks = (0..LOOK_MAX).map_while(|_| {
        if let Some(chunk) = beyond.advance(class) {
            item_of(class, chunk).prefetch_key();
        }
        hand.advance(class)
    });
    let mut victims = chunks.filter(|chunk| {
        let item = item_of(class, *chunk);
        let (standing, shape) = (item.standing(), item.shape());
        evictable(standing, shape) && goes(standing, shape)
    });
    victims.nth(TO_KEY)
}
