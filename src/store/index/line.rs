//! A line's references, in its own slots and in its chain of nodes, and the lock over them.
//!
//! The first word holds the lock, a mark that the line was ever locked since its memory came
//! ([`LIVE`]), and a version. A line without the mark reads as zero: it is empty, but is not read
//! without the lock, whose first holder lets its version begin after any that it had before.

use super::{Full, Index};
use crate::item::bytes_equal_to;
use slab::ChunkRef;
use slab::sync::{AtomicU32, Ordering};

use Ordering::{Relaxed, Release};

/// Tag of a last slot that refers to a node.
const LINK: u8 = 0xFF;
pub(super) const LOCKED: u32 = 1;
pub(super) const LIVE: u32 = 2;
const VERSION_STEP: u32 = 4;

/// Tag of a hash: 1 to 254.
#[inline]
pub(super) fn tag_of(hash: u64) -> u8 {
    (((hash & 0xFF) * 254) >> 8) as u8 + 1
}

/// Stores zero where there is something else.
pub(super) fn clear(words: &[AtomicU32]) {
    words.iter().filter(|word| word.load(Relaxed) != 0).for_each(|word| word.store(0, Relaxed));
}

/// The tags and references of a line or a node.
#[derive(Clone, Copy)]
pub(super) struct Segment<'a> {
    pub tags: &'a [AtomicU32],
    pub slots: &'a [AtomicU32],
}

impl<'a> Segment<'a> {
    #[inline]
    pub fn of_line(words: &'a [AtomicU32]) -> Segment<'a> {
        Segment { tags: &words[1..4], slots: &words[4..] }
    }

    #[inline]
    fn tag(self, slot: usize) -> u8 {
        (self.tags[slot / 4].load(Relaxed) >> (slot % 4 * 8)) as u8
    }

    /// Slots whose tag is `tag`, with their references.
    #[inline]
    pub fn matching(self, tag: u8) -> impl Iterator<Item = (usize, Option<ChunkRef>)> + use<'a> {
        let slots = self.slots;
        let mut bits = self.tagged(tag) & ((1 << slots.len()) - 1);
        std::iter::from_fn(move || {
            let slot = bits.trailing_zeros() as usize;
            let reference = slots.get(slot)?.load(Relaxed);
            bits &= bits - 1;
            Some((slot, ChunkRef::from_u32(reference)))
        })
    }

    /// A bit for each slot whose tag is `tag`, the first slot's being the lowest.
    #[inline]
    fn tagged(self, tag: u8) -> u32 {
        let word = |n: usize| self.tags.get(n).map_or(0, |word| u64::from(word.load(Relaxed)));
        let (low, high) = (word(0) | word(1) << 32, word(2));
        bytes_equal_to(tag, u128::from(low) | u128::from(high) << 64)
    }

    fn set(self, slot: usize, tag: u8, reference: u32) {
        self.slots[slot].store(reference, Relaxed);
        let word = &self.tags[slot / 4];
        let at = slot % 4 * 8;
        let others = word.load(Relaxed) & !(0xFF << at);
        word.store(others | u32::from(tag) << at, Release);
    }

    pub fn reference(self, slot: usize) -> u32 {
        self.slots[slot].load(Relaxed)
    }

    fn last(self) -> usize {
        self.slots.len() - 1
    }

    /// The node that follows.
    #[inline]
    pub fn link(self) -> Option<u32> {
        let last = self.slots.len() - 1;
        (self.tag(last) == LINK).then(|| self.reference(last))
    }

    fn empty_slot(self) -> Option<usize> {
        self.matching(0).map(|(slot, _)| slot).next()
    }
}

/// A place under a locked line.
#[derive(Clone, Copy)]
pub struct Slot<'a> {
    segment: Segment<'a>,
    slot: usize,
}

/// A locked line. Unlocking bumps the version if [`LineGuard::dirty`] was said or implied.
pub struct LineGuard<'a> {
    index: &'a Index,
    words: &'a [AtomicU32],
    hash: u64,
    dirty: bool,
}

impl<'a> LineGuard<'a> {
    /// Takes over a line that was locked.
    pub(super) fn new(index: &'a Index, words: &'a [AtomicU32], hash: u64) -> LineGuard<'a> {
        LineGuard { index, words, hash, dirty: false }
    }

    /// The hash that it was locked for.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    fn first(&self) -> Segment<'a> {
        Segment::of_line(self.words)
    }

    fn segments(&self) -> impl Iterator<Item = Segment<'a>> + use<'a> {
        let index = self.index;
        let next = move |s: &Segment<'a>| s.link().and_then(|node| index.nodes.segment(node));
        std::iter::successors(Some(self.first()), next)
    }

    /// The reference for which `is_it` holds, among those with the hash's tag.
    #[inline]
    pub fn find(&self, mut is_it: impl FnMut(ChunkRef) -> bool) -> Option<(Slot<'a>, ChunkRef)> {
        let tag = tag_of(self.hash);
        self.segments().find_map(|segment| {
            segment.matching(tag).find_map(|(slot, chunk)| {
                let chunk = chunk?;
                is_it(chunk).then_some((Slot { segment, slot }, chunk))
            })
        })
    }

    /// All references, with their places and tags.
    pub fn for_each(&self, mut visit: impl FnMut(Slot<'a>, u8, ChunkRef)) {
        for segment in self.segments() {
            for slot in 0..segment.slots.len() {
                let tag = segment.tag(slot);
                if tag != 0
                    && tag != LINK
                    && let Some(chunk) = ChunkRef::from_u32(segment.reference(slot))
                {
                    visit(Slot { segment, slot }, tag, chunk);
                }
            }
        }
    }

    /// The first reference that need not be kept: what the line can spare.
    pub fn any_but(&self, kept: impl Fn(ChunkRef) -> bool) -> Option<(Slot<'a>, ChunkRef)> {
        let mut found = None;
        self.for_each(|slot, _, chunk| {
            if found.is_none() && !kept(chunk) {
                found = Some((slot, chunk));
            }
        });
        found
    }

    /// Says that readers without the lock must look again.
    pub fn dirty(&mut self) {
        self.dirty = true;
    }

    /// Puts another chunk in a found one's place.
    pub fn replace(&mut self, slot: Slot<'a>, chunk: ChunkRef) {
        self.dirty = true;
        slot.segment.slots[slot.slot].store(chunk.to_u32(), Relaxed);
    }

    /// Adds the hash's reference.
    pub fn insert(&mut self, chunk: ChunkRef) -> Result<(), Full> {
        self.insert_with(self.hash, chunk, || self.index.nodes.take())
    }

    /// Adds the reference of a hash of this line, in a node from `take` if need be.
    pub(super) fn insert_with(
        &mut self,
        hash: u64,
        chunk: ChunkRef,
        mut take: impl FnMut() -> Result<u32, Full>,
    ) -> Result<(), Full> {
        self.dirty = true;
        let mut segment = self.first();
        loop {
            if let Some(slot) = segment.empty_slot() {
                segment.set(slot, tag_of(hash), chunk.to_u32());
                return Ok(());
            }
            segment = match segment.link() {
                Some(node) => self.node(node),
                None => self.extend(segment, take()?),
            };
        }
    }

    fn node(&self, node: u32) -> Segment<'a> {
        self.index.nodes.segment(node).expect("links lead to nodes")
    }

    /// Moves a full segment's last slot to a new node behind it.
    fn extend(&mut self, segment: Segment<'a>, number: u32) -> Segment<'a> {
        let node = self.node(number);
        let last = segment.last();
        node.set(0, segment.tag(last), segment.reference(last));
        segment.set(last, LINK, number);
        node
    }

    /// Takes a found reference out. The chain behind stays as short as it can be: its last
    /// reference moves into the gap.
    pub fn remove(&mut self, slot: Slot<'a>) {
        self.dirty = true;
        let mut owner = None;
        let mut last = self.first();
        while let Some(node) = last.link() {
            owner = Some((last, node));
            last = self.node(node);
        }
        let Some((owner, node)) = owner else {
            slot.segment.set(slot.slot, 0, 0);
            return;
        };
        let taken = (0..=last.last()).rev().find(|s| last.tag(*s) != 0);
        let taken = taken.expect("a node in a chain holds something");
        let (tag, reference) = (last.tag(taken), last.reference(taken));
        slot.segment.set(slot.slot, tag, reference);
        if !(std::ptr::eq(slot.segment.slots, last.slots) && slot.slot == taken) {
            last.set(taken, 0, 0);
        } else {
            slot.segment.set(slot.slot, 0, 0);
        }
        if (0..=last.last()).all(|s| last.tag(s) == 0) {
            owner.set(owner.last(), 0, 0);
            self.index.nodes.put(node);
        }
    }

    /// Numbers of the chain's nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.segments().filter_map(Segment::link)
    }

    /// Moves what is in one of the chain's nodes to a lower one; false where that cannot be.
    pub(super) fn lower_node(&mut self, node: u32) -> bool {
        let Some(owner) = self.segments().find(|s| s.link() == Some(node)) else { return false };
        let Some(copy) = self.index.nodes.copy_down(node) else { return false };
        self.dirty = true;
        owner.set(owner.last(), LINK, copy);
        self.index.nodes.put(node);
        true
    }

    /// Empties the line into two empty lists: what was under it, and its nodes, which are empty and
    /// now the caller's.
    pub(super) fn drain(&mut self, chunks: &mut Vec<ChunkRef>, nodes: &mut Vec<u32>) {
        self.dirty = true;
        self.for_each(|_, _, chunk| chunks.push(chunk));
        nodes.extend(self.nodes());
        clear(&self.words[1..]);
        nodes.iter().for_each(|node| self.index.nodes.clear(*node));
    }

    /// Lock and version.
    pub(super) fn version(&self) -> u32 {
        self.words[0].load(Relaxed)
    }
}

impl Drop for LineGuard<'_> {
    fn drop(&mut self) {
        let version = self.version() & !LOCKED;
        let next = if version & LIVE == 0 {
            self.index.restart.load(Relaxed).wrapping_add(VERSION_STEP)
        } else if self.dirty {
            version.wrapping_add(VERSION_STEP)
        } else {
            version
        };
        self.words[0].store(next, Release);
    }
}
