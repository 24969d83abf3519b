//! Items that come from a file: whether one can be what its header says, and the seal that stands
//! behind it, by which damage shows.
//!
//! Whoever wrote the file may have died between any two stores. An item that was linked is whole,
//! since that is said of it last; its chain may be in the middle of a move to other chunks.

use super::chain::{BODY_HEAD, BODY_HEADER, BODY_NEXT};
use super::{Chain, HEADER_WORDS, Item, Shape, State};
use slab::sync::Ordering::Relaxed;
use slab::{ChunkRef, Slabs};

/// Bytes of the seal, behind what each chunk holds.
pub const SEAL_BYTES: u32 = 4;
/// What of an item's shape its seal covers: all but what readers and queues change, and whether it
/// has a CAS unique.
const SEALED: u32 = !(Shape::PLACES | Shape::PINNED | Shape::CAS);
/// Longest key, bytes.
const KEY_MAX: usize = 250;

/// True where the linked item at `chunk` fits its chunk and has all of its chain.
pub fn is_sound<P>(slabs: &Slabs<P>, chunk: ChunkRef) -> bool {
    let item = Item::new(&slabs.words()[chunk.word()..]);
    let shape = item.shape();
    let room = slabs.geometry().chunk_size(slabs.class_of(chunk)) as usize;
    let offset = Item::value_offset(shape);
    if !(1..=KEY_MAX).contains(&shape.key_len()) || offset > room {
        return false;
    }
    if !shape.chained() {
        return item.plan(shape).size() <= room && !shape.is_garbled();
    }
    let len = item.value_len(shape) as usize;
    !shape.is_garbled() && len > room - offset && has_chain(slabs, chunk, len - (room - offset))
}

/// True where the bodies behind a head hold `left` bytes together, and each is this head's, or that
/// of its twin: a copy that was about to take its place.
fn has_chain<P>(slabs: &Slabs<P>, head: ChunkRef, mut left: usize) -> bool {
    let item = Item::new(&slabs.words()[head.word()..]);
    let mut next = item.next(item.shape());
    while let Some(body) = ChunkRef::from_u32(next) {
        if !slabs.is_chunk(body) {
            return false;
        }
        let words = &slabs.words()[body.word()..];
        let (of, len) = (words[BODY_HEAD].load(Relaxed), Item::new(words).shape().body_len());
        let room = slabs.geometry().chunk_size(slabs.class_of(body)) as usize - BODY_HEADER;
        let mine = of == head.to_u32()
            || ChunkRef::from_u32(of).is_some_and(|of| is_twin(slabs, head, of));
        let sound = Item::new(words).standing().is_body() && (1..=room.min(left)).contains(&len);
        if !mine || !sound {
            return false;
        }
        left -= len;
        next = words[BODY_NEXT].load(Relaxed);
    }
    left == 0
}

fn is_twin<P>(slabs: &Slabs<P>, one: ChunkRef, other: ChunkRef) -> bool {
    let linked = |chunk: ChunkRef| {
        let item = Item::new(&slabs.words()[chunk.word()..]);
        item.standing().state() == State::Linked
    };
    slabs.is_chunk(other) && linked(other) && have_same_key(slabs, one, other)
}

/// True where two items have one key.
pub fn have_same_key<P>(slabs: &Slabs<P>, one: ChunkRef, other: ChunkRef) -> bool {
    let (one, other) =
        (Item::new(&slabs.words()[one.word()..]), Item::new(&slabs.words()[other.word()..]));
    let mut key = Vec::with_capacity(KEY_MAX + 8);
    one.copy_key(one.shape(), &mut key);
    other.key_is(other.shape(), &key)
}

/// What the seal of an item says of its header, key, deadline and client flags.
pub fn head_sum(item: Item<'_>, scratch: &mut Vec<u8>) -> u32 {
    let shape = item.shape();
    scratch.clear();
    for word in
        [shape.0 & SEALED, item.value_len(shape), item.deadline(shape), item.client_flags(shape)]
    {
        scratch.extend_from_slice(&word.to_le_bytes());
    }
    item.copy_key(shape, scratch);
    crc32fast::hash(scratch)
}

/// What it says of the value, where it does: turned, lest the same fault in both undo itself.
pub fn value_sum<P>(slabs: &Slabs<P>, chunk: ChunkRef, scratch: &mut Vec<u8>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for segment in Chain::of(slabs, chunk) {
        scratch.clear();
        segment.copy(scratch);
        hasher.update(scratch);
    }
    hasher.finalize().rotate_left(13)
}

impl Shape {
    /// True where bits are set that no item of its kind has.
    fn is_garbled(self) -> bool {
        self.has(Shape::WIDE) && self.narrow_len() > 1
    }
}

impl Item<'_> {
    /// True where a narrow value's bytes lie within one word, so that a store changes all of them
    /// or none.
    pub fn is_one_word(self, shape: Shape) -> bool {
        let (at, len) = (Self::value_offset(shape), shape.narrow_len() as usize);
        !shape.has(Shape::WIDE) && at / 4 == (at + len).saturating_sub(1).max(HEADER_WORDS * 4) / 4
    }

    /// Takes back what was said of an item in its last life, in another process, and that it was
    /// accessed after `second`: it would outlive a flush.
    pub fn wake(self, second: u32) {
        let standing = self.standing();
        if !standing.at_or_before(second) {
            self.set_standing(standing.with_second(second));
        }
        self.forget_process();
    }

    /// Takes back what was said of a chunk, be it an item's or a body's, that only another process
    /// knew of: places in its queues, and pins.
    pub fn forget_process(self) {
        if self.shape().has(Shape::PLACES | Shape::PINNED) {
            self.clear_bits(Shape::PLACES | Shape::PINNED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slab::sync::AtomicU32;

    fn item(words: &[AtomicU32]) -> Item<'_> {
        let item = Item::new(words);
        item.reshape(Shape::narrow(3, 5, 0));
        item.put_key(b"key");
        item.put_value(item.shape(), 0, b"value");
        item
    }

    #[test]
    fn every_bit_of_header_and_key_counts_but_those_that_readers_and_queues_change() {
        let words: Vec<AtomicU32> = (0..16).map(|_| AtomicU32::new(0)).collect();
        let item = item(&words);
        assert!(item.put_deadline(item.shape(), 77, 64));
        let mut scratch = Vec::new();
        let sum = head_sum(item, &mut scratch);
        let mut seen = 0;
        let words_of_key_and_deadline = [(1, u32::MAX), (2, 0x00FF_FFFF), (4, u32::MAX)];
        for (at, mask) in words_of_key_and_deadline {
            for bit in (0..32).map(|n| 1 << n).filter(|bit| mask & bit != 0) {
                let was = words[at].load(Relaxed);
                words[at].store(was ^ bit, Relaxed);
                let covered = at != 1 || SEALED & bit != 0;
                assert_eq!(head_sum(item, &mut scratch) != sum, covered, "word {at}, {bit:#x}");
                words[at].store(was, Relaxed);
                seen += usize::from(covered);
            }
        }
        assert!(seen > 70);
    }

    #[test]
    fn a_value_is_one_word_where_it_is() {
        let words: Vec<AtomicU32> = (0..16).map(|_| AtomicU32::new(0)).collect();
        let one_word = |key_len, value_len| {
            let item = Item::new(&words);
            item.reshape(Shape::narrow(key_len, value_len, 0));
            item.is_one_word(item.shape())
        };
        assert!(one_word(4, 4) && one_word(3, 1) && one_word(5, 3));
        assert!(!one_word(4, 5) && !one_word(3, 2) && !one_word(5, 4));
    }
}
