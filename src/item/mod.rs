//! An item laid on a chunk.
//!
//! ```text
//! narrow  |standing 4|shape 4|key|value|pad to 4|exptime 4?|client flags 4?|CAS unique 8?|
//! wide    |standing 4|shape 4|key|pad to 4|length 4|next 4|exptime 4|flags 4|CAS 8|value ...
//! body    |standing 4|shape 4|next 4|head 4|value ...
//! ```
//!
//! Optional fields follow the value, each present only where its bit is set: adding one moves
//! neither key nor value, so readers and half-sent replies are not disturbed. Values too long for
//! the header's 13 bits are wide; those too long for one chunk go on in a chain of bodies.
//!
//! In a memory file a seal stands behind each, at the end of its chunk (`sound`).
//!
//! Beside `slab`, this is the only place with `unsafe` code.

mod bytes;
mod chain;
mod header;
mod sound;

pub(crate) use bytes::{append_all, equal_to as bytes_equal_to};
#[cfg(not(any(loom, miri)))]
pub use chain::fill_from;
pub use chain::{
    BODY_HEADER, Chain, Cursor, Segment, adopt_bodies, append_body, body_head, chunks_of, fill,
    make_body, pinned_bytes, replace_body, skip,
};
pub use header::{COUNTER_MAX, NARROW_MAX, SECONDS_APART, Shape, Standing, State};
pub use sound::{SEAL_BYTES, have_same_key, head_sum, is_sound, value_sum};

use slab::ChunkRef;
use slab::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use slab::sync::{AtomicU32, MODELLED};

/// Words before the key.
const HEADER_WORDS: usize = 2;
/// Words between key and value of a wide item.
const WIDE_WORDS: usize = 6;

/// What an item is to hold, known before it has a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub key_len: usize,
    pub value_len: u32,
    pub exptime: bool,
    pub client_flags: bool,
    /// Room for a CAS unique.
    pub cas: bool,
    /// Its length and fields stand before the value: see [`Plan::settled`].
    pub wide: bool,
}

impl Plan {
    /// The plan as it can be carried out: wide where the header cannot hold the value's length, or
    /// where the whole would not fit the largest chunk.
    pub fn settled(self, chunk_max: u32) -> Plan {
        let narrow = Plan { wide: false, ..self };
        let wide = self.value_len > NARROW_MAX || narrow.size() > chunk_max as usize;
        Plan { wide, ..self }
    }

    /// Bytes from the item's start to where its value starts.
    pub fn value_offset(&self) -> usize {
        if self.wide {
            (HEADER_WORDS + self.key_len.div_ceil(4) + WIDE_WORDS) * 4
        } else {
            HEADER_WORDS * 4 + self.key_len
        }
    }

    /// Bytes that the item takes when it lies in one chunk.
    pub fn size(&self) -> usize {
        let end = self.value_offset() + self.value_len as usize;
        let fields =
            usize::from(self.exptime) + usize::from(self.client_flags) + 2 * usize::from(self.cas);
        if self.wide || fields == 0 { end } else { end.next_multiple_of(4) + 4 * fields }
    }
}

/// A view of the item at the start of `words`. What it says is true while the item cannot change:
/// under its bucket's lock, pinned, or validated afterwards.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    words: &'a [AtomicU32],
}

impl<'a> Item<'a> {
    /// The item whose chunk starts `words`. The slice may reach beyond the chunk.
    #[inline]
    pub fn new(words: &'a [AtomicU32]) -> Item<'a> {
        Item { words }
    }

    #[inline]
    pub fn standing(self) -> Standing {
        Standing(self.words[0].load(Relaxed))
    }

    /// Overwrites the standing: for the chunk's owner. Nobody who noted an access meanwhile can
    /// undo it, since an exchange takes its place right behind what it found. Whatever was written
    /// before comes first: who dies right afterwards leaves a memory file that says the truth.
    pub fn set_standing(self, standing: Standing) {
        if MODELLED {
            // The model checker knows that of no store, but of exchanges.
            self.words[0].swap(standing.0, Release);
        } else {
            self.words[0].store(standing.0, Release);
        }
    }

    /// Changes the standing if nobody else did since it was read.
    #[inline]
    pub fn change_standing(self, from: Standing, to: Standing) -> bool {
        self.words[0].compare_exchange(from.0, to.0, AcqRel, Relaxed).is_ok()
    }

    #[inline]
    pub fn shape(self) -> Shape {
        Shape(self.words[1].load(Relaxed))
    }

    /// The shape, for who frees the item if it is not pinned: what was read through a pin that is
    /// gone comes before what the next owner writes.
    #[inline]
    pub fn shape_after_pins(self) -> Shape {
        Shape(self.words[1].load(Acquire))
    }

    /// Copies the whole chunk but its standing to a reserved one of the same size, whose places in
    /// a queue stay.
    pub fn copy_to(self, chunk_size: u32, to: Item<'_>) {
        let words = HEADER_WORDS..chunk_size as usize / 4;
        for (from, to) in self.words[words.clone()].iter().zip(&to.words[words]) {
            to.store(from.load(Relaxed), Relaxed);
        }
        to.reshape(Shape(self.shape().0 & !Shape::PLACES));
    }

    #[cfg(test)]
    fn set_shape(self, shape: Shape) {
        self.words[1].store(shape.0, Relaxed);
    }

    #[inline]
    pub fn set_bits(self, bits: u32) {
        self.words[1].fetch_or(bits, AcqRel);
    }

    /// Gives a chunk that the caller owns another shape; its places in a queue stay, which whoever
    /// has the lock of its class may change at any time.
    #[inline]
    pub fn reshape(self, shape: Shape) {
        let word = &self.words[1];
        let exchange =
            |was: u32| word.compare_exchange(was, was & Shape::PLACES | shape.0, AcqRel, Relaxed);
        let mut was = self.shape().0;
        while let Err(now) = exchange(was) {
            was = now;
        }
    }

    #[inline]
    pub fn clear_bits(self, bits: u32) {
        self.words[1].fetch_and(!bits, AcqRel);
    }

    #[inline]
    pub fn key_is(self, shape: Shape, key: &[u8]) -> bool {
        shape.key_len() == key.len()
            && self.words.get(HEADER_WORDS..).is_some_and(|words| bytes::equal(words, key))
    }

    /// Appends the key. With an item that may have changed hands it may be any bytes, at most 255.
    pub fn copy_key(self, shape: Shape, out: &mut Vec<u8>) {
        let end = HEADER_WORDS * 4 + shape.key_len();
        if end <= self.words.len() * 4 {
            bytes::append(self.words, HEADER_WORDS * 4, shape.key_len(), out);
        }
    }

    #[inline]
    pub fn value_len(self, shape: Shape) -> u32 {
        if shape.has(Shape::WIDE) {
            self.words[wide_fields(shape)].load(Relaxed)
        } else {
            shape.narrow_len()
        }
    }

    /// What the item holds, as it would be planned.
    pub fn plan(self, shape: Shape) -> Plan {
        Plan {
            key_len: shape.key_len(),
            value_len: self.value_len(shape),
            exptime: shape.has(Shape::EXPTIME),
            client_flags: shape.has(Shape::FLAGS),
            cas: shape.has(Shape::CAS),
            wide: shape.has(Shape::WIDE),
        }
    }

    /// Bytes from the item's start to its value's.
    #[inline]
    pub fn value_offset(shape: Shape) -> usize {
        if shape.has(Shape::WIDE) {
            (wide_fields(shape) + WIDE_WORDS) * 4
        } else {
            HEADER_WORDS * 4 + shape.key_len()
        }
    }

    /// Second of the deadline, 0 for never.
    #[inline]
    pub fn deadline(self, shape: Shape) -> u32 {
        if shape.has(Shape::EXPTIME) { self.load(exptime_word(shape)) } else { 0 }
    }

    #[inline]
    pub fn client_flags(self, shape: Shape) -> u32 {
        if shape.has(Shape::FLAGS) { self.load(flags_word(shape)) } else { 0 }
    }

    /// The CAS unique, 0 for none.
    #[inline]
    pub fn cas(self, shape: Shape) -> u64 {
        if !shape.has(Shape::CAS) {
            return 0;
        }
        let at = cas_word(shape);
        u64::from(self.load(at)) | u64::from(self.load(at + 1)) << 32
    }

    /// Stores a deadline where the item has a place for one or `chunk_size` leaves room; false
    /// where later fields are in the way.
    pub fn put_deadline(self, shape: Shape, deadline: u32, chunk_size: u32) -> bool {
        if !shape.has(Shape::EXPTIME) {
            if deadline == 0 {
                return true;
            }
            let in_the_way = !shape.has(Shape::WIDE) && shape.has(Shape::FLAGS | Shape::CAS);
            if in_the_way || (exptime_word(shape) + 1) * 4 > chunk_size as usize {
                return false;
            }
        }
        self.words[exptime_word(shape)].store(deadline, Relaxed);
        self.set_bits(Shape::EXPTIME);
        true
    }

    /// Stores the deadline of an item that was planned with one, before any later field.
    pub fn put_deadline_field(self, shape: Shape, deadline: u32) {
        self.words[exptime_word(shape)].store(deadline, Relaxed);
        self.set_bits(Shape::EXPTIME);
    }

    /// As [`Item::put_deadline_field`], for client flags of an item that is not linked yet.
    pub fn put_client_flags(self, shape: Shape, flags: u32) {
        self.words[flags_word(shape)].store(flags, Relaxed);
        self.set_bits(Shape::FLAGS);
    }

    /// Stores a CAS unique where the item has a place for one or `chunk_size` leaves room.
    pub fn put_cas(self, shape: Shape, cas: u64, chunk_size: u32) -> bool {
        let at = cas_word(shape);
        if !shape.has(Shape::CAS) && (at + 2) * 4 > chunk_size as usize {
            return false;
        }
        self.words[at].store(cas as u32, Relaxed);
        self.words[at + 1].store((cas >> 32) as u32, Relaxed);
        self.set_bits(Shape::CAS);
        true
    }

    /// Writes the key of a reserved chunk.
    pub fn put_key(self, key: &[u8]) {
        bytes::store(self.words, HEADER_WORDS * 4, key);
    }

    /// Writes `value` from the `at`th byte of the value on, within the first chunk.
    #[inline]
    pub fn put_value(self, shape: Shape, at: usize, value: &[u8]) {
        bytes::store(self.words, Self::value_offset(shape) + at, value);
    }

    /// Prepares a reserved chunk for a wide item's length and fields.
    pub fn put_wide(self, shape: Shape, value_len: u32, next: u32) {
        let at = wide_fields(shape);
        self.words[at].store(value_len, Relaxed);
        self.words[at + 1].store(next, Relaxed);
    }

    /// Gives a chained item another first body.
    pub fn set_next(self, shape: Shape, body: ChunkRef) {
        self.words[wide_fields(shape) + 1].store(body.to_u32(), Relaxed);
    }

    /// First body of a chained item's chain, as u32.
    pub fn next(self, shape: Shape) -> u32 {
        self.words[wide_fields(shape) + 1].load(Relaxed)
    }

    /// Appends a narrow item's value; nothing where what it says of itself cannot be (it was
    /// being overwritten).
    #[inline]
    pub fn copy_narrow(self, shape: Shape, out: &mut Vec<u8>) {
        let (offset, len) = (Self::value_offset(shape), shape.narrow_len() as usize);
        if offset + len <= self.words.len() * 4 {
            bytes::append(self.words, offset, len, out);
        }
    }

    /// A word that may lie beyond the arena's end when the item is changing hands.
    #[inline]
    fn load(self, at: usize) -> u32 {
        self.words.get(at).map_or(0, |word| word.load(Relaxed))
    }

    /// Starts loading the item.
    #[inline]
    pub fn prefetch(self) {
        bytes::prefetch(self.words, 0);
        bytes::prefetch(self.words, 16);
    }

    /// Starts loading as much for who is going to write to it.
    #[inline]
    pub fn prefetch_to_write(self) {
        [0, 16, 32].into_iter().for_each(|at| bytes::prefetch_to_write(self.words, at));
    }

    /// Starts loading the header and a short key.
    #[inline]
    pub fn prefetch_key(self) {
        bytes::prefetch(self.words, 0);
        bytes::prefetch(self.words, 8);
    }

    /// Starts loading what follows the bytes of [`Item::prefetch`]: of items that are not small,
    /// the fields behind the value.
    #[inline]
    pub fn prefetch_more(self) {
        bytes::prefetch(self.words, 32);
    }
}

/// Starts loading a cache line of `words`.
#[inline]
pub fn prefetch(words: &[AtomicU32], at: usize) {
    bytes::prefetch(words, at);
}

/// First of the six words between a wide item's key and value.
#[inline]
fn wide_fields(shape: Shape) -> usize {
    HEADER_WORDS + shape.key_len().div_ceil(4)
}

/// First word behind a narrow item's value.
#[inline]
fn narrow_fields(shape: Shape) -> usize {
    HEADER_WORDS + (shape.key_len() + shape.narrow_len() as usize).div_ceil(4)
}

#[inline]
fn exptime_word(shape: Shape) -> usize {
    if shape.has(Shape::WIDE) { wide_fields(shape) + 2 } else { narrow_fields(shape) }
}

#[inline]
fn flags_word(shape: Shape) -> usize {
    if shape.has(Shape::WIDE) {
        wide_fields(shape) + 3
    } else {
        narrow_fields(shape) + usize::from(shape.has(Shape::EXPTIME))
    }
}

#[inline]
fn cas_word(shape: Shape) -> usize {
    if shape.has(Shape::WIDE) {
        wide_fields(shape) + 4
    } else {
        let before = [Shape::EXPTIME, Shape::FLAGS];
        narrow_fields(shape) + before.into_iter().filter(|bit| shape.has(*bit)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(words: usize) -> Vec<AtomicU32> {
        (0..words).map(|_| AtomicU32::new(0)).collect()
    }

    fn narrow<'a>(words: &'a [AtomicU32], key: &[u8], value: &[u8]) -> Item<'a> {
        let item = Item::new(words);
        item.set_shape(Shape::narrow(key.len(), value.len() as u32, 0));
        item.put_key(key);
        item.put_value(item.shape(), 0, value);
        item
    }

    fn value(item: Item<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        item.copy_narrow(item.shape(), &mut out);
        out
    }

    #[test]
    fn fields_added_later_disturb_nothing() {
        let words = chunk(16);
        let item = narrow(&words, b"key", b"value");
        assert!(item.put_cas(item.shape(), 1 << 40 | 7, 64));
        assert_eq!((item.cas(item.shape()), value(item)), (1 << 40 | 7, b"value".to_vec()));
        assert!(!item.put_deadline(item.shape(), 9, 64), "the CAS unique is in the way");
        assert!(item.put_deadline(item.shape(), 0, 64), "no deadline needs no room");
        assert_eq!(item.deadline(item.shape()), 0);
    }

    #[test]
    fn fields_need_room() {
        let words = chunk(16);
        let item = narrow(&words, b"key", b"value");
        let plan = Plan {
            key_len: 3,
            value_len: 5,
            exptime: true,
            client_flags: false,
            cas: true,
            wide: false,
        };
        assert_eq!(plan.size(), 28);
        assert!(!item.put_deadline(item.shape(), 9, 16));
        assert!(item.put_deadline(item.shape(), 9, 20));
        assert!(!item.put_cas(item.shape(), 1, 24));
        assert!(item.put_cas(item.shape(), 1, 28));
        let shape = item.shape();
        assert_eq!((item.deadline(shape), item.cas(shape), item.client_flags(shape)), (9, 1, 0));
        assert_eq!(item.plan(shape).size(), 28);
    }

    #[test]
    fn keys_are_compared_whole() {
        let words = chunk(16);
        let item = narrow(&words, b"abcde", b"xyz");
        assert!(item.key_is(item.shape(), b"abcde"));
        assert!(!item.key_is(item.shape(), b"abcd") && !item.key_is(item.shape(), b"abcdx"));
    }

    #[test]
    fn a_shape_that_lies_reads_nothing_out_of_bounds() {
        let words = chunk(4);
        let item = Item::new(&words);
        item.set_shape(Shape::narrow(250, NARROW_MAX, Shape::CAS | Shape::EXPTIME));
        assert_eq!(value(item), b"");
        assert_eq!((item.cas(item.shape()), item.deadline(item.shape())), (0, 0));
    }
}
