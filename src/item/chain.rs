//! A value's bytes wherever they lie: in one chunk, or in a head and a chain of bodies.

use super::{HEADER_WORDS, Item, Shape, Standing, bytes};
use slab::sync::AtomicU32;
use slab::sync::Ordering::Relaxed;
use slab::{ChunkRef, Slabs};
#[cfg(not(any(loom, miri)))]
use {
    nix::libc,
    std::io,
    std::os::fd::{AsRawFd, BorrowedFd},
};

/// Words before a body's share of the value.
const BODY_WORDS: usize = 4;
pub(super) const BODY_NEXT: usize = 2;
pub(super) const BODY_HEAD: usize = 3;
/// Chunks that one read may fill.
#[cfg(not(any(loom, miri)))]
const READ_SEGMENTS: usize = 64;
/// Bytes before a body's share of the value.
pub const BODY_HEADER: usize = BODY_WORDS * 4;

/// A run of a value's bytes within one chunk.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    words: &'a [AtomicU32],
    /// Bytes from the start of `words`.
    offset: usize,
    len: usize,
}

impl<'a> Segment<'a> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends the bytes; what they are is true while the item cannot change.
    pub fn copy(&self, out: &mut Vec<u8>) {
        bytes::append(self.words, self.offset, self.len, out);
    }

    /// Byte `at` of the segment.
    pub fn byte(&self, at: usize) -> u8 {
        assert!(at < self.len, "a value stays in its segment");
        let byte = self.offset + at;
        self.words[byte / 4].load(Relaxed).to_le_bytes()[byte % 4]
    }

    /// Writes to the value of a reserved chunk.
    pub fn store(&self, at: usize, from: &[u8]) {
        assert!(at + from.len() <= self.len, "a value stays in its segment");
        bytes::store(self.words, self.offset + at, from);
    }
}

/// The runs of bytes of a pinned item's value from a cursor on, in order.
pub fn pinned_bytes<P>(
    slabs: &Slabs<P>,
    chunk: ChunkRef,
    mut from: Cursor,
) -> impl Iterator<Item = &[u8]> {
    assert!(Item::new(&slabs.words()[chunk.word()..]).shape().has(Shape::PINNED));
    let (chain, mut before) = Chain::resume(slabs, chunk, &mut from);
    chain.map(move |s| {
        let skipped = std::mem::take(&mut before);
        // SAFETY: I5: a pinned item's value is not written and its chunks are not freed until its
        // last pin is gone. The assertion above holds callers to asking for pinned items only; the
        // pin that they hold outlives the slices because it lends them.
        unsafe { bytes::slice(s.words, s.offset + skipped, s.len - skipped) }
    })
}

/// Moves a cursor on by `n` bytes.
pub fn skip<P>(slabs: &Slabs<P>, chunk: ChunkRef, at: &mut Cursor, n: usize) {
    at.at += n;
    Chain::resume(slabs, chunk, at);
}

/// Reads up to `most` bytes from a socket, once, into the reserved item at `chunk`, from the cursor
/// on, and what follows them into `behind`; the chunks that it has are for so many more. Returns
/// how many bytes were read in all; 0 is the end of what comes.
#[cfg(not(any(loom, miri)))]
pub fn fill_from<P>(
    slabs: &Slabs<P>,
    chunk: ChunkRef,
    at: &mut Cursor,
    most: usize,
    behind: &mut [u8],
    socket: BorrowedFd<'_>,
) -> io::Result<usize> {
    let (chain, mut before) = Chain::resume(slabs, chunk, at);
    let (mut places, mut used, mut left) = ([bytes::NO_PLACE; READ_SEGMENTS + 1], 0, most);
    for s in chain.take(READ_SEGMENTS) {
        let len = left.min(s.len - before);
        places[used] = bytes::place(s.words, s.offset + before, len);
        (used, left, before) = (used + 1, left - len, 0);
        if left == 0 {
            break;
        }
    }
    if left == 0 {
        places[used] = bytes::place_of(behind);
        used += 1;
    }
    // SAFETY: the places lie within the words, which outlive the call, as `behind` does, which is
    // the caller's alone. What writes to the words is the kernel, as another thread could by
    // storing bytes: whoever still has an old reference to a reserved chunk (I2) may read them by
    // loads of atomics, and throws away what was read.
    let n = unsafe { libc::readv(socket.as_raw_fd(), places.as_ptr(), used as i32) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    at.at += n.min(most);
    Ok(n)
}

/// Writes `bytes` to the reserved item at `chunk`, from the cursor on. A chain has to be no longer
/// than that takes.
pub fn fill<P>(slabs: &Slabs<P>, chunk: ChunkRef, at: &mut Cursor, mut bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let item = Item::new(&slabs.words()[chunk.word()..]);
    let shape = item.shape();
    if !shape.chained() {
        let (offset, len) = (Item::value_offset(shape), item.value_len(shape) as usize);
        Segment { words: item.words, offset, len }.store(at.at, bytes);
        at.at += bytes.len();
        return;
    }
    let (chain, mut before) = Chain::resume(slabs, chunk, at);
    at.at += bytes.len();
    for segment in chain {
        let (now, later) = bytes.split_at(bytes.len().min(segment.len - before));
        segment.store(before, now);
        (before, bytes) = (0, later);
        if bytes.is_empty() {
            return;
        }
    }
    debug_assert!(bytes.is_empty(), "a draft's value has room for all of it");
}

/// How far a value is filled or sent, and the segment which that is in: a chain need not be walked
/// from its head for each piece.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Bytes filled or sent.
    at: usize,
    /// Bytes of the value before the segment.
    start: usize,
    /// The segment's body, as u32; 0: it is the head's.
    body: u32,
}

impl Cursor {
    /// Bytes filled or sent.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Looks its segment up again the next time: the value's chunks may be others by then.
    pub fn forget_place(&mut self) {
        (self.start, self.body) = (0, 0);
    }
}

/// Walks a value's segments in order.
pub struct Chain<'a, P> {
    slabs: &'a Slabs<P>,
    first: Option<Segment<'a>>,
    /// Next body, as u32.
    next: u32,
    left: usize,
}

impl<'a, P> Chain<'a, P> {
    /// The value of the item at `chunk`, which must not change meanwhile.
    pub fn of(slabs: &'a Slabs<P>, chunk: ChunkRef) -> Chain<'a, P> {
        let item = Item::new(&slabs.words()[chunk.word()..]);
        let shape = item.shape();
        let len = item.value_len(shape) as usize;
        let offset = Item::value_offset(shape);
        let room = slabs.geometry().chunk_size(slabs.class_of(chunk)) as usize - offset;
        let first = Segment { words: item.words, offset, len: len.min(room) };
        let next = if shape.chained() { item.next(shape) } else { 0 };
        Chain { slabs, left: len - first.len, first: Some(first), next }
    }

    /// The segments from a cursor on, which is brought to the first of them; and how much of that
    /// is filled.
    fn resume(slabs: &'a Slabs<P>, chunk: ChunkRef, cursor: &mut Cursor) -> (Chain<'a, P>, usize) {
        let mut chain = Chain::of(slabs, chunk);
        let len = chain.left + chain.first.map_or(0, |s| s.len);
        if cursor.at >= len {
            return (Chain { slabs, first: None, next: 0, left: 0 }, 0);
        }
        if cursor.body != 0 {
            chain = Chain { slabs, first: None, next: cursor.body, left: len - cursor.start };
        }
        while let Some(segment) = chain.next() {
            if cursor.at < cursor.start + segment.len {
                chain.first = Some(segment);
                break;
            }
            cursor.start += segment.len;
            cursor.body = chain.next;
        }
        (chain, cursor.at - cursor.start)
    }
}

impl<'a, P> Iterator for Chain<'a, P> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let chunk = ChunkRef::from_u32(self.next)?;
        let words = &self.slabs.words()[chunk.word()..];
        let len = Item::new(words).shape().body_len().min(self.left);
        self.next = words[BODY_NEXT].load(Relaxed);
        self.left -= len;
        Some(Segment { words, offset: BODY_HEADER, len })
    }
}

/// Makes a reserved chunk a body of `head`'s chain, followed by `next` (0: the last), for `len`
/// bytes of the value.
pub fn make_body<P>(slabs: &Slabs<P>, chunk: ChunkRef, head: u32, next: u32, len: usize) {
    let words = &slabs.words()[chunk.word()..];
    Item::new(words).reshape(Shape::body(len));
    words[BODY_NEXT].store(next, Relaxed);
    words[BODY_HEAD].store(head, Relaxed);
    words[0].store(Standing::BODY.0, Relaxed);
}

/// Has `body` follow `last`, the last chunk so far of `head`'s chain, whose owner the caller is.
pub fn append_body<P>(slabs: &Slabs<P>, head: ChunkRef, last: ChunkRef, body: ChunkRef) {
    if last == head {
        let item = Item::new(&slabs.words()[head.word()..]);
        item.set_next(item.shape(), body);
    } else {
        slabs.words()[last.word() + BODY_NEXT].store(body.to_u32(), Relaxed);
    }
}

/// Bytes of the value that a body is for.
fn body_len<P>(slabs: &Slabs<P>, body: ChunkRef) -> usize {
    Item::new(&slabs.words()[body.word()..]).shape().body_len()
}

/// Tells the bodies of `head`'s chain that it is their head.
pub fn adopt_bodies<P>(slabs: &Slabs<P>, head: ChunkRef) {
    for body in chunks_of(slabs, head).skip(1) {
        slabs.words()[body.word() + BODY_HEAD].store(head.to_u32(), Relaxed);
    }
}

/// Puts a reserved chunk of the same size in a body's place in the chain of `head`, which nobody
/// else may read meanwhile; false where `body` is none of its bodies.
pub fn replace_body<P>(
    slabs: &Slabs<P>,
    head: ChunkRef,
    body: ChunkRef,
    fresh: ChunkRef,
    chunk_size: u32,
) -> bool {
    let Some(before) = chunks_of(slabs, head).take_while(|c| *c != body).last() else {
        return false;
    };
    let words = slabs.words();
    let next_of = |c: ChunkRef| ChunkRef::from_u32(words[c.word() + BODY_NEXT].load(Relaxed));
    let item = Item::new(&words[head.word()..]);
    let successor = match before == head {
        true => ChunkRef::from_u32(item.next(item.shape())),
        false => next_of(before),
    };
    if successor != Some(body) {
        return false;
    }
    let next = next_of(body).map_or(0, ChunkRef::to_u32);
    make_body(slabs, fresh, head.to_u32(), next, body_len(slabs, body));
    let payload = BODY_WORDS..chunk_size as usize / 4;
    let (from, to) = (&words[body.word()..], &words[fresh.word()..]);
    for (from, to) in from[payload.clone()].iter().zip(&to[payload]) {
        to.store(from.load(Relaxed), Relaxed);
    }
    match before == head {
        true => item.set_next(item.shape(), fresh),
        false => words[before.word() + BODY_NEXT].store(fresh.to_u32(), Relaxed),
    }
    true
}

/// The head of a body's chain. The body may be changing hands, so this may be any place in the
/// arena with room for a header.
pub fn body_head<P>(slabs: &Slabs<P>, chunk: ChunkRef) -> Option<ChunkRef> {
    let words = slabs.words();
    let head = ChunkRef::from_u32(words[chunk.word() + BODY_HEAD].load(Relaxed))?;
    (head.word() + HEADER_WORDS <= words.len()).then_some(head)
}

/// All chunks of the item at `chunk`: itself, then its bodies.
pub fn chunks_of<P>(slabs: &Slabs<P>, chunk: ChunkRef) -> impl Iterator<Item = ChunkRef> + '_ {
    let item = Item::new(&slabs.words()[chunk.word()..]);
    let shape = item.shape();
    let first = if shape.chained() { ChunkRef::from_u32(item.next(shape)) } else { None };
    let bodies = std::iter::successors(first, |body| {
        ChunkRef::from_u32(slabs.words()[body.word() + BODY_NEXT].load(Relaxed))
    });
    std::iter::once(chunk).chain(bodies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slab::{ClassId, Geometry, Options};

    /// Room in the head, in two bodies, and some in a third.
    const LEN: usize = 28 + 2 * 48 + 30;

    fn slabs() -> Slabs<()> {
        let options = Options {
            limit: 512,
            ceiling: 1,
            chunk_overhead_64ths: 0,
            first_page_beyond_limit: false,
            reserve: false,
            huge_pages: 0,
        };
        Slabs::new(Geometry::new(512, vec![64]).expect("a ladder"), options).expect("an arena")
    }

    /// A reserved item of [`LEN`] bytes, whose bodies come in an order of their own.
    fn chained(slabs: &Slabs<()>) -> ChunkRef {
        let mut class = slabs.lock(ClassId(1));
        assert!(class.grow());
        let [third, head, first, second] = std::array::from_fn(|_| class.take().expect("a chunk"));
        let item = Item::new(&slabs.words()[head.word()..]);
        item.set_standing(Standing::RESERVED);
        item.reshape(Shape::wide(3, true, 0));
        item.put_wide(item.shape(), LEN as u32, 0);
        item.put_key(b"key");
        let mut last = head;
        for (body, len) in [(first, 48), (second, 48), (third, 30)] {
            make_body(slabs, body, head.to_u32(), 0, len);
            append_body(slabs, head, last, body);
            last = body;
        }
        head
    }

    #[test]
    fn a_value_comes_and_goes_through_its_chain() {
        let (slabs, value) = (slabs(), Vec::from_iter(0..LEN as u8));
        let (head, mut at) = (chained(&slabs), Cursor::default());
        for (n, piece) in value.chunks(19).enumerate() {
            fill(&slabs, head, &mut at, piece);
            if n % 2 == 0 {
                at.forget_place();
            }
        }
        check(&slabs, head, at, &value);
    }

    #[cfg(not(any(loom, miri)))]
    #[test]
    fn a_value_comes_from_a_socket() {
        use std::io::Write;
        use std::os::fd::AsFd;

        let (slabs, value) = (slabs(), Vec::from_iter(0..LEN as u8));
        let (head, mut at) = (chained(&slabs), Cursor::default());
        let (mut here, there) = std::os::unix::net::UnixStream::pair().expect("sockets");
        here.write_all(&value).expect("room");
        for most in [1, 26, 2, 60] {
            let n = fill_from(&slabs, head, &mut at, most, &mut [], there.as_fd()).expect("bytes");
            assert_eq!(n, most);
        }
        here.write_all(b"\r\nnext").expect("room");
        let (rest, mut end) = (LEN - 89, [0; 2]);
        let n = fill_from(&slabs, head, &mut at, rest, &mut end, there.as_fd()).expect("bytes");
        assert_eq!((n, &end), (rest + 2, b"\r\n"), "the line end, and nothing of what follows it");
        drop(here);
        check(&slabs, head, at, &value);
    }

    fn check(slabs: &Slabs<()>, head: ChunkRef, at: Cursor, value: &[u8]) {
        assert_eq!(at.at(), LEN);
        let mut copied = Vec::new();
        Chain::of(slabs, head).for_each(|segment| segment.copy(&mut copied));
        assert_eq!(copied, value);
        Item::new(&slabs.words()[head.word()..]).set_bits(Shape::PINNED);
        for sent in 0..=LEN {
            let mut at = Cursor::default();
            skip(slabs, head, &mut at, sent);
            let rest: Vec<u8> = pinned_bytes(slabs, head, at).flatten().copied().collect();
            assert_eq!(rest, value[sent..]);
        }
    }
}
