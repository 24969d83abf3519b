//! The index: from a key's hash to the chunk of its item.
//!
//! ```text
//! line  |lock and version 4|12 tags|12 chunk references 48|   one cache line
//! node  |6 tags, 2 unused |6 chunk references 24|             half a cache line
//! ```
//!
//! A full line gives up its last slot to a chain of nodes (tag [`LINK`]), which its own lock
//! guards, so that nobody ever needs a second one. Lines are picked by multiply-shift of the hash's
//! upper half, so when the index grows every line's items move to the same or a higher place:
//! the grower goes from the top line down, one line locked at a time, behind a boundary that
//! everybody else checks again once they hold a line.
//!
//! A writer bumps the line's version whenever something is unlinked or changed in place. A reader
//! may therefore look without the lock and keep what it saw if the version is still the same.
//!
//! Invariants:
//! X1 an item is in the index ⇔ its standing is linked; both change under its line's lock.
//! X2 a chunk that leaves the index is not reused before the line's version has moved on.
//! X3 all references under one line belong to hashes of that line.

mod span;

use crate::item::prefetch;
use slab::sync::{AtomicU32, AtomicU64, MODELLED, Mutex, Ordering, fence, relax};
use slab::{ChunkRef, Words};
use std::io;

use Ordering::{Acquire, Relaxed, Release};

const LINE_WORDS: usize = 16;
const NODE_WORDS: usize = 8;
const LINE_SLOTS: usize = 12;
const NODE_SLOTS: usize = 6;
/// Tag of a last slot that refers to a node.
const LINK: u8 = 0xFF;
const LOCKED: u32 = 1;
const VERSION_STEP: u32 = 2;
/// Lines come in multiples of this.
pub const LINE_STEP: u32 = if MODELLED { 2 } else { 256 };
/// Nodes of one line that are read without its lock.
const NODES_READ_MAX: usize = 64;
/// Further looks at a line that somebody holds, where it is only tried: a hit that notes its access
/// holds one for some nanoseconds.
const SPINS_MAX: u32 = if MODELLED { 1 } else { 32 };
/// Most lines an index can have.
pub const LINES_MAX: u32 = (1 << 26) - LINE_STEP;

/// Nodes reserved beyond the limit, for a growth step that must not fail.
const NODE_SLACK: usize = if MODELLED { 2 } else { 4096 };

/// Nodes that [`Index::add_nodes`] adds.
const NODES_MORE: u32 = if MODELLED { 1 } else { 512 };

/// Bytes that [`Index::add_nodes`] is charged for.
pub const NODES_MORE_BYTES: u64 = NODES_MORE as u64 * NODE_WORDS as u64 * 4;

/// Bytes that `lines` lines are charged for: themselves and half a node each.
pub fn bytes_of(lines: u32) -> u64 {
    u64::from(lines) * (LINE_WORDS as u64 * 4 + NODE_WORDS as u64 * 2)
}

/// Where each hash belongs, in one word: lines before and after growth, in steps, and the boundary
/// below which the old number still holds.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Geometry(u64);

impl Geometry {
    fn new(old: u32, new: u32, boundary: u32) -> Geometry {
        let (old, new) = (u64::from(old / LINE_STEP), u64::from(new / LINE_STEP));
        Geometry(old | new << 19 | u64::from(boundary) << 38)
    }

    fn old(self) -> u32 {
        (self.0 & 0x7_FFFF) as u32 * LINE_STEP
    }

    fn new_lines(self) -> u32 {
        (self.0 >> 19 & 0x7_FFFF) as u32 * LINE_STEP
    }

    fn boundary(self) -> u32 {
        (self.0 >> 38) as u32
    }

    #[inline]
    fn line(self, hash: u64) -> u32 {
        let scale = |lines: u32| (((hash >> 32) * u64::from(lines)) >> 32) as u32;
        let line = scale(self.old());
        if line < self.boundary() { line } else { scale(self.new_lines()) }
    }

    fn growing(self) -> bool {
        self.old() != self.new_lines()
    }
}

pub struct Index {
    lines: Words,
    nodes: Words,
    geometry: AtomicU64,
    spare: Mutex<SpareNodes>,
}

/// Nodes not in use. Node 0 is never handed out, so that 0 can mean none.
struct SpareNodes {
    /// First of the free list, linked through the nodes' first references.
    free: u32,
    /// Nodes from here on were never used.
    next: u32,
    in_use: u32,
    limit: u32,
}

/// A line as it was when it was read without its lock.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    line: u32,
    version: u32,
}

/// The index had no room for one more reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Tag of a hash: 1 to 254.
#[inline]
fn tag_of(hash: u64) -> u8 {
    (((hash & 0xFF) * 254) >> 8) as u8 + 1
}

impl Index {
    /// An index of `lines` lines (rounded up to [`LINE_STEP`]) that can grow to `ceiling`.
    pub fn new(lines: u32, ceiling: u32) -> io::Result<Index> {
        let lines = lines.max(1).next_multiple_of(LINE_STEP).min(LINES_MAX);
        let ceiling = ceiling.max(lines).min(LINES_MAX);
        let spare = SpareNodes { free: 0, next: 1, in_use: 0, limit: lines / 2 };
        let line_words = Words::reserve(ceiling as usize * LINE_WORDS)?;
        // Lines are read at random, so every small page costs a walk of the page table; a huge one
        // costs 2 MiB at the most. Where the system has none, small ones will do.
        let _ = line_words.huge_pages();
        Ok(Index {
            lines: line_words,
            nodes: Words::reserve((ceiling as usize * 2 + NODE_SLACK) * NODE_WORDS)?,
            geometry: AtomicU64::new(Geometry::new(lines, lines, lines).0),
            spare: Mutex::new(spare),
        })
    }

    fn geometry(&self) -> Geometry {
        Geometry(self.geometry.load(Acquire))
    }

    /// Lines, once any growth is done.
    pub fn len(&self) -> u32 {
        self.geometry().new_lines()
    }

    pub fn is_growing(&self) -> bool {
        self.geometry().growing()
    }

    /// Most lines that this index can grow to.
    pub fn ceiling(&self) -> u32 {
        (self.lines.len() / LINE_WORDS) as u32
    }

    /// Allows [`NODES_MORE`] nodes more, which the caller has charged; false where there is no room
    /// for them.
    pub fn add_nodes(&self) -> bool {
        let mut spare = self.spare.lock();
        let fits =
            (spare.limit + NODES_MORE) as usize + NODE_SLACK <= self.nodes.len() / NODE_WORDS;
        if fits {
            spare.limit += NODES_MORE;
        }
        fits
    }

    /// True when few spare nodes are left: time to grow.
    pub fn short_of_nodes(&self) -> bool {
        let spare = self.spare.lock();
        spare.in_use > spare.limit / 10 * 9
    }

    #[inline]
    fn line_words(&self, line: u32) -> &[AtomicU32] {
        let at = line as usize * LINE_WORDS;
        &self.lines[at..at + LINE_WORDS]
    }

    /// Starts loading a hash's line.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.lines, self.geometry().line(hash) as usize * LINE_WORDS);
    }

    /// The first reference in a hash's own line that could be the key's, looked up without any
    /// care: good for prefetching only.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<ChunkRef> {
        let words = self.line_words(self.geometry().line(hash));
        let segment = Segment { tags: &words[1..4], slots: &words[4..] };
        segment.matching(tag_of(hash)).find_map(|(_, chunk)| chunk)
    }

    /// Locks a hash's line.
    pub fn lock(&self, hash: u64) -> LineGuard<'_> {
        loop {
            let line = self.geometry().line(hash);
            let guard = self.lock_line(line, hash);
            if self.geometry().line(hash) == line {
                return guard;
            }
        }
    }

    /// Unlocks a line whose guard was forgotten.
    #[cfg(feature = "debug-commands")]
    pub fn unlock_forgotten(&self, hash: u64) {
        let words = self.line_words(self.geometry().line(hash));
        drop(LineGuard { index: self, words, hash, dirty: true });
    }

    /// As [`Index::lock`], if nobody holds the line for long, as the caller itself may.
    pub fn try_lock(&self, hash: u64) -> Option<LineGuard<'_>> {
        let line = self.geometry().line(hash);
        let mut spins = 0;
        let guard = loop {
            match self.try_lock_line(line, hash) {
                Some(guard) => break guard,
                None if spins == SPINS_MAX => return None,
                None => relax(&mut spins),
            }
        };
        (self.geometry().line(hash) == line).then_some(guard)
    }

    fn try_lock_line(&self, line: u32, hash: u64) -> Option<LineGuard<'_>> {
        let words = self.line_words(line);
        let version = words[0].load(Relaxed);
        if version & LOCKED != 0
            || words[0].compare_exchange(version, version | LOCKED, Acquire, Relaxed).is_err()
        {
            return None;
        }
        // Whoever sees one of our stores below sees the lock bit too.
        fence(Release);
        Some(LineGuard { index: self, words, hash, dirty: false })
    }

    fn lock_line(&self, line: u32, hash: u64) -> LineGuard<'_> {
        let mut spins = 0;
        loop {
            match self.try_lock_line(line, hash) {
                Some(guard) => return guard,
                None => relax(&mut spins),
            }
        }
    }

    /// Looks without the lock: `look` is given each chunk that could be the key's until it answers.
    /// `None` says that a writer came between, and whatever `look` did must be forgotten;
    /// `Some(None)` that there is no such key. An answer comes with what [`Index::try_relock`]
    /// needs.
    #[inline]
    pub fn read<T>(
        &self,
        hash: u64,
        mut look: impl FnMut(ChunkRef) -> Option<T>,
    ) -> Option<Option<(T, Seen)>> {
        let line = self.geometry().line(hash);
        let words = self.line_words(line);
        let version = words[0].load(Acquire);
        if version & LOCKED != 0 || self.geometry().line(hash) != line {
            return None;
        }
        let tag = tag_of(hash);
        let mut segment = Segment { tags: &words[1..4], slots: &words[4..] };
        let mut steps = 0;
        let found = loop {
            if let Some(found) = segment.matching(tag).find_map(|(_, c)| look(c?)) {
                break Some(found);
            }
            // A chain that is being changed may lead in circles; a long one is read with the lock.
            steps += 1;
            match segment.link() {
                Some(node) if steps < NODES_READ_MAX => segment = self.node(node)?,
                Some(_) => return None,
                None => break None,
            }
        };
        fence(Acquire);
        let seen = Seen { line, version };
        (words[0].load(Relaxed) == version).then_some(found.map(|found| (found, seen)))
    }

    /// Locks the line that was read, if nothing has changed since, and nobody holds it for long.
    #[inline]
    pub fn try_relock(&self, seen: Seen, hash: u64) -> Option<LineGuard<'_>> {
        let words = self.line_words(seen.line);
        let locked = seen.version | LOCKED;
        let mut spins = 0;
        while let Err(now) = words[0].compare_exchange(seen.version, locked, Acquire, Relaxed) {
            if now != locked || spins == SPINS_MAX {
                return None;
            }
            relax(&mut spins);
        }
        fence(Release);
        Some(LineGuard { index: self, words, hash, dirty: false })
    }

    #[inline]
    fn node(&self, node: u32) -> Option<Segment<'_>> {
        let at = node as usize * NODE_WORDS;
        let words = self.nodes.get(at..at + NODE_WORDS)?;
        Some(Segment { tags: &words[..2], slots: &words[2..] })
    }

    fn take_node(&self) -> Result<u32, Full> {
        let mut spare = self.spare.lock();
        let node = if spare.free != 0 {
            let node = spare.free;
            spare.free = self.nodes[node as usize * NODE_WORDS + 2].load(Relaxed);
            node
        } else if spare.next <= spare.limit {
            spare.next += 1;
            spare.next - 1
        } else {
            return Err(Full);
        };
        spare.in_use += 1;
        for word in &self.nodes[node as usize * NODE_WORDS..][..NODE_WORDS] {
            word.store(0, Relaxed);
        }
        Ok(node)
    }

    fn put_node(&self, node: u32) {
        let mut spare = self.spare.lock();
        self.nodes[node as usize * NODE_WORDS + 2].store(spare.free, Relaxed);
        spare.free = node;
        spare.in_use -= 1;
    }

    /// Starts to grow to `lines` (a multiple of [`LINE_STEP`], within the ceiling): from now on
    /// [`Index::grow_step`] has work. One thread alone may grow.
    pub fn start_growth(&self, lines: u32) {
        let g = self.geometry();
        assert!(!g.growing() && lines > g.old() && lines <= self.ceiling());
        self.spare.lock().limit += (lines - g.old()) / 2;
        self.geometry.store(Geometry::new(g.old(), lines, g.old()).0, Release);
    }

    /// Moves the items of the next line down to where they belong now; `hash_of` gives a chunk's
    /// hash. False when growth is complete.
    pub fn grow_step(&self, hash_of: impl Fn(ChunkRef) -> u64) -> bool {
        let g = self.geometry();
        if !g.growing() {
            return false;
        }
        let Some(line) = g.boundary().checked_sub(1) else {
            let lines = g.new_lines();
            self.geometry.store(Geometry::new(lines, lines, lines).0, Release);
            return false;
        };
        let mut source = self.lock_line(line, 0);
        let next = Geometry::new(g.old(), g.new_lines(), line);
        for chunk in source.drain() {
            let hash = hash_of(chunk);
            let target = next.line(hash);
            debug_assert!(target >= line);
            if target == line {
                // Its nodes were freed, but others may have taken them since.
                while source.insert_tagged(tag_of(hash), chunk).is_err() {
                    self.spare.lock().limit += 1;
                }
            } else {
                let mut other = self.lock_line(target, hash);
                if other.insert_tagged(tag_of(hash), chunk).is_err() {
                    // No node to be had: it stays in the chain of the line it came from, which
                    // would break X3, so wait for one instead.
                    drop(other);
                    self.insert_when_possible(target, hash, chunk);
                }
            }
        }
        self.geometry.store(next.0, Release);
        drop(source);
        true
    }

    fn insert_when_possible(&self, line: u32, hash: u64, chunk: ChunkRef) {
        let mut spins = 0;
        while self.lock_line(line, hash).insert_tagged(tag_of(hash), chunk).is_err() {
            self.spare.lock().limit += 1;
            relax(&mut spins);
        }
    }
}

/// The tags and references of a line or a node.
#[derive(Clone, Copy)]
struct Segment<'a> {
    tags: &'a [AtomicU32],
    slots: &'a [AtomicU32],
}

impl<'a> Segment<'a> {
    #[inline]
    fn tag(self, slot: usize) -> u8 {
        self.tags[slot / 4].load(Relaxed).to_le_bytes()[slot % 4]
    }

    /// Slots whose tag is `tag` (and sometimes one whose is not), with their references.
    #[inline]
    fn matching(self, tag: u8) -> impl Iterator<Item = (usize, Option<ChunkRef>)> + use<'a> {
        let wanted = u32::from(tag) * 0x0101_0101;
        let mut word = 0;
        let mut bits = 0;
        let mut next = move || {
            while bits == 0 {
                let tags = self.tags.get(word)?.load(Relaxed) ^ wanted;
                // Marks bytes that are zero: those whose tag matched.
                bits = tags.wrapping_sub(0x0101_0101) & !tags & 0x8080_8080;
                word += 1;
            }
            let slot = (word - 1) * 4 + bits.trailing_zeros() as usize / 8;
            bits &= bits - 1;
            Some(slot)
        };
        std::iter::from_fn(move || {
            loop {
                let slot = next()?;
                if let Some(reference) = self.slots.get(slot) {
                    return Some((slot, ChunkRef::from_u32(reference.load(Relaxed))));
                }
            }
        })
    }

    fn set(self, slot: usize, tag: u8, reference: u32) {
        self.slots[slot].store(reference, Relaxed);
        let word = &self.tags[slot / 4];
        let mut tags = word.load(Relaxed).to_le_bytes();
        tags[slot % 4] = tag;
        word.store(u32::from_le_bytes(tags), Release);
    }

    fn reference(self, slot: usize) -> u32 {
        self.slots[slot].load(Relaxed)
    }

    fn last(self) -> usize {
        self.slots.len() - 1
    }

    /// The node that follows.
    #[inline]
    fn link(self) -> Option<u32> {
        let last = self.slots.len() - 1;
        (self.tag(last) == LINK).then(|| self.reference(last))
    }

    fn empty_slot(self) -> Option<usize> {
        (0..self.slots.len()).find(|slot| self.tag(*slot) == 0)
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
    /// The hash that it was locked for.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    fn first(&self) -> Segment<'a> {
        Segment { tags: &self.words[1..4], slots: &self.words[4..] }
    }

    fn segments(&self) -> impl Iterator<Item = Segment<'a>> + use<'a> {
        let index = self.index;
        let next = move |s: &Segment<'a>| s.link().and_then(|node| index.node(node));
        std::iter::successors(Some(self.first()), next)
    }

    /// The reference for which `is_it` holds, among those with the hash's tag.
    #[inline]
    pub fn find(&self, mut is_it: impl FnMut(ChunkRef) -> bool) -> Option<(Slot<'a>, ChunkRef)> {
        let tag = tag_of(self.hash);
        self.segments().find_map(|segment| {
            segment.matching(tag).find_map(|(slot, chunk)| {
                let chunk = chunk?;
                let mine = segment.tag(slot) == tag && is_it(chunk);
                mine.then_some((Slot { segment, slot }, chunk))
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
        self.insert_tagged(tag_of(self.hash), chunk)
    }

    fn insert_tagged(&mut self, tag: u8, chunk: ChunkRef) -> Result<(), Full> {
        self.dirty = true;
        let mut segment = self.first();
        loop {
            if let Some(slot) = segment.empty_slot() {
                segment.set(slot, tag, chunk.to_u32());
                return Ok(());
            }
            segment = match segment.link() {
                Some(node) => self.index.node(node).expect("links lead to nodes"),
                None => self.extend(segment)?,
            };
        }
    }

    /// Moves a full segment's last slot to a new node behind it.
    fn extend(&mut self, segment: Segment<'a>) -> Result<Segment<'a>, Full> {
        let number = self.index.take_node()?;
        let node = self.index.node(number).expect("nodes are within their reservation");
        let last = segment.last();
        node.set(0, segment.tag(last), segment.reference(last));
        segment.set(last, LINK, number);
        Ok(node)
    }

    /// Takes a found reference out. The chain behind stays as short as it can be: its last
    /// reference moves into the gap.
    pub fn remove(&mut self, slot: Slot<'a>) {
        self.dirty = true;
        let mut owner = None;
        let mut last = self.first();
        while let Some(node) = last.link() {
            owner = Some((last, node));
            last = self.index.node(node).expect("links lead to nodes");
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
            self.index.put_node(node);
        }
    }

    /// Empties the line and gives its nodes back.
    fn drain(&mut self) -> Vec<ChunkRef> {
        self.dirty = true;
        let mut chunks = Vec::with_capacity(LINE_SLOTS + NODE_SLOTS);
        self.for_each(|_, _, chunk| chunks.push(chunk));
        let nodes: Vec<u32> = self.segments().filter_map(Segment::link).collect();
        for word in &self.words[1..] {
            word.store(0, Relaxed);
        }
        for node in nodes {
            self.index.put_node(node);
        }
        chunks
    }
}

impl Drop for LineGuard<'_> {
    fn drop(&mut self) {
        let version = self.words[0].load(Relaxed) & !LOCKED;
        let step = if self.dirty { VERSION_STEP } else { 0 };
        self.words[0].store(version.wrapping_add(step), Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// While a line is moved, others may take the nodes that it has just given back.
    #[test]
    fn growth_goes_on_without_nodes() {
        let index = Index::new(LINE_STEP, LINE_STEP * 2).expect("address space");
        let chunk = |n: u32| ChunkRef::from_u32(n + 1).expect("not 0");
        // All belong to line 0, before growth and after.
        for n in 0..20 {
            assert!(index.lock(0).insert(chunk(n)).is_ok());
        }
        index.start_growth(LINE_STEP * 2);
        let take_all = |_| {
            while index.take_node().is_ok() {}
            0
        };
        while index.grow_step(take_all) {}
        assert!((0..20).all(|n| index.lock(0).find(|c| c == chunk(n)).is_some()));
    }
}
