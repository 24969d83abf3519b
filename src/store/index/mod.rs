//! The index: from a key's hash to the chunk of its item.
//!
//! ```text
//! line  |lock and version 4|12 tags|12 chunk references 48|   one cache line
//! node  |6 tags, 2 unused |6 chunk references 24|             half a cache line
//! ```
//!
//! A full line gives up its last slot to a chain of nodes (tag [`LINK`]), which its own lock
//! guards, so that nobody ever needs a second one. Lines are picked by multiply-shift of the hash's
//! upper half; how their number changes stands in `resize`.
//!
//! A writer bumps the line's version whenever something is unlinked or changed in place. A reader
//! may therefore look without the lock and keep what it saw if the version is still the same.
//!
//! Invariants:
//! X1 an item is in the index ⇔ its standing is linked; both change under its line's lock.
//! X2 a chunk that leaves the index is not reused before the line's version has moved on.
//! X3 all references under one line belong to hashes of that line.
//! X4 a line has no version twice, also if its memory was given back in between.

mod line;
mod nodes;
mod plan;
mod resize;
mod span;

pub use line::{LineGuard, Slot};
pub use nodes::{BLOCK_BYTES, BLOCK_NODES, MOVE_NODES};
pub use resize::{Growth, Load, Step};

use crate::item::prefetch;
use line::{LIVE, LOCKED, Segment, tag_of};
use nodes::Nodes;
use plan::Plan;
use slab::sync::{AtomicU32, AtomicU64, MODELLED, Ordering, fence, relax};
use slab::{ChunkRef, Grain, Waits, Words};
use std::io;
use std::time::Instant;

use Ordering::{Acquire, Relaxed, Release};

const LINE_WORDS: usize = 16;
/// Lines come in multiples of this.
pub const LINE_STEP: u32 = if MODELLED { 2 } else { 256 };
/// Nodes of one line that are read without its lock.
const NODES_READ_MAX: usize = 64;
/// Further looks at a line that somebody holds, where it is only tried: a hit that notes its access
/// holds one for some nanoseconds.
const SPINS_MAX: u32 = if MODELLED { 1 } else { 32 };
/// How long a reader waits for a writer of its line before it asks for the lock itself.
const WRITE_SPINS: u32 = if MODELLED { 1 } else { 63 };
/// Most lines an index can have.
pub const LINES_MAX: u32 = (1 << 26) - LINE_STEP;
/// Bytes of a line, without nodes.
pub const LINE_BYTES: u64 = LINE_WORDS as u64 * 4;

/// Why a look without the lock has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// A writer has the line, or had it meanwhile: it is worth another look.
    Writer,
    /// What is looked for is to be had with the lock only.
    Lock,
}

/// Where each hash belongs, in one word: lines before and after a change of their number, in steps,
/// and the boundary. While the index grows, what the old number puts below the boundary is still
/// there; while it shrinks, what the old number puts at or above it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Geometry(u64);

impl Geometry {
    fn new(old: u32, new: u32, boundary: u32) -> Geometry {
        let (old, new) = (u64::from(old / LINE_STEP), u64::from(new / LINE_STEP));
        Geometry(old | new << 19 | u64::from(boundary) << 38)
    }

    fn settled(lines: u32) -> Geometry {
        Geometry::new(lines, lines, lines)
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
        if self.is_settled() {
            return line;
        }
        let stays = (line < self.boundary()) != self.shrinking();
        if stays { line } else { scale(self.new_lines()) }
    }

    #[inline]
    fn is_settled(self) -> bool {
        (self.0 ^ self.0 >> 19) & 0x7_FFFF == 0
    }

    fn growing(self) -> bool {
        self.old() < self.new_lines()
    }

    #[inline]
    fn shrinking(self) -> bool {
        self.old() > self.new_lines()
    }
}

pub struct Index {
    lines: Words,
    /// Most lines that it can have.
    ceiling: u32,
    grain: Grain,
    nodes: Nodes,
    geometry: AtomicU64,
    /// Lines at the start, which it never shrinks below.
    floor: u32,
    /// Highest version of any line whose memory was given back, with [`LIVE`]: where lines that
    /// come back go on.
    restart: AtomicU32,
    plan: Plan,
    waits: Waits,
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

impl Index {
    /// An index of `lines` lines (rounded up to [`LINE_STEP`]) that can grow to `ceiling`.
    #[cfg(test)]
    pub fn new(lines: u32, ceiling: u32) -> io::Result<Index> {
        Index::grown(lines, lines, ceiling, true)
    }

    /// The same, which can shrink to `floor` lines; `huge`: it may have memory in huge pages.
    pub fn grown(lines: u32, floor: u32, ceiling: u32, huge: bool) -> io::Result<Index> {
        let whole = |lines: u32| lines.max(1).next_multiple_of(LINE_STEP).min(LINES_MAX);
        let (lines, floor) = (whole(lines), whole(floor));
        let ceiling = ceiling.max(lines).min(LINES_MAX);
        // Lines are read at random, so every small page costs a walk of the page table; a huge one
        // costs 2 MiB at the most.
        let reserve = if huge { Words::reserve_huge } else { Words::reserve };
        let line_words = reserve(ceiling as usize * LINE_WORDS)?;
        let grain = Grain::new(&line_words, if huge { line_words.len() } else { 0 });
        Ok(Index {
            lines: line_words,
            ceiling,
            grain,
            nodes: Nodes::new(ceiling)?,
            geometry: AtomicU64::new(Geometry::settled(lines).0),
            floor,
            restart: AtomicU32::new(LIVE),
            plan: Plan::default(),
            waits: Waits::default(),
        })
    }

    fn geometry(&self) -> Geometry {
        Geometry(self.geometry.load(Acquire))
    }

    /// Lines, once any change of their number is done.
    pub fn len(&self) -> u32 {
        self.geometry().new_lines()
    }

    /// Lines that references may be under.
    pub fn span(&self) -> u32 {
        let g = self.geometry();
        g.old().max(g.new_lines())
    }

    /// Lines at the start.
    pub fn floor(&self) -> u32 {
        self.floor
    }

    /// Most lines that this index can grow to.
    pub fn ceiling(&self) -> u32 {
        self.ceiling
    }

    pub fn is_growing(&self) -> bool {
        self.geometry().growing()
    }

    pub fn is_resizing(&self) -> bool {
        let g = self.geometry();
        g.old() != g.new_lines()
    }

    /// Bytes of lines and nodes that it uses or may use at any time.
    pub fn bytes(&self) -> u64 {
        u64::from(self.geometry().backed()) * LINE_BYTES + self.nodes.bytes()
    }

    // Nodes

    /// Makes room for more nodes, [`BLOCK_BYTES`] that the caller has charged; false where there
    /// can be no more.
    pub fn add_nodes(&self) -> bool {
        self.nodes.open_block()
    }

    /// Gives back room for nodes of which none is used, as long as `kept` free ones are left;
    /// returns the bytes.
    pub fn trim_nodes(&self, kept: u32) -> u64 {
        self.nodes.close_blocks(kept)
    }

    /// True where a block of nodes could be given back and leave `kept` free ones.
    pub fn can_trim(&self, kept: u32) -> bool {
        self.nodes.can_close(kept)
    }

    /// Nodes that are free.
    pub fn spare_nodes(&self) -> u32 {
        self.nodes.spare()
    }

    /// Takes a node for good.
    #[cfg(test)]
    pub fn lose_node(&self) {
        self.nodes.take_for_move().expect("a node");
    }

    /// Nodes in use.
    pub fn used_nodes(&self) -> u32 {
        self.nodes.used()
    }

    // Lines

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
    /// care: good for prefetching only. Where there is none, starts loading the line's first node.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<ChunkRef> {
        let segment = Segment::of_line(self.line_words(self.geometry().line(hash)));
        let found = segment.matching(tag_of(hash)).find_map(|(_, chunk)| chunk);
        if found.is_none()
            && let Some(node) = segment.link()
        {
            self.nodes.prefetch(node);
        }
        found
    }

    /// Locks a hash's line.
    #[inline]
    pub fn lock(&self, hash: u64) -> LineGuard<'_> {
        loop {
            let geometry = self.geometry();
            let line = geometry.line(hash);
            let guard = self.lock_line(line, hash);
            if self.is_at(hash, line, geometry) {
                return guard;
            }
        }
    }

    /// True where a hash's line still is what it was in a geometry.
    #[inline]
    fn is_at(&self, hash: u64, line: u32, before: Geometry) -> bool {
        let now = self.geometry();
        now == before || now.line(hash) == line
    }

    /// Unlocks a line whose guard was forgotten. While it is locked the hash's line is the same.
    #[cfg(feature = "debug-commands")]
    pub fn unlock_forgotten(&self, hash: u64) {
        let line = self.geometry().line(hash);
        let mut guard = LineGuard::new(self, self.line_words(line), hash);
        guard.dirty();
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
        Some(LineGuard::new(self, words, hash))
    }

    fn lock_line(&self, line: u32, hash: u64) -> LineGuard<'_> {
        self.try_lock_line(line, hash).unwrap_or_else(|| self.wait_for_line(line, hash))
    }

    #[cold]
    fn wait_for_line(&self, line: u32, hash: u64) -> LineGuard<'_> {
        let since = Instant::now();
        let mut spins = 0;
        loop {
            relax(&mut spins);
            if let Some(guard) = self.try_lock_line(line, hash) {
                self.waits.note(since.elapsed());
                return guard;
            }
        }
    }

    /// Long waits for the lock of a line.
    pub fn waits(&self) -> &Waits {
        &self.waits
    }

    /// Waits while a writer has a hash's line, but not for long.
    pub fn await_writer(&self, hash: u64) {
        let line = self.geometry().line(hash);
        let mut spins = 0;
        while self.line_words(line)[0].load(Relaxed) & LOCKED != 0 && spins < WRITE_SPINS {
            relax(&mut spins);
        }
    }

    /// Looks without the lock: `look` is given each chunk that could be the key's until it answers.
    /// An answer, and that there is none, holds where the line still
    /// [is as it was seen](Index::is_as_seen) after all that was read for it.
    #[inline]
    pub fn look<T>(
        &self,
        hash: u64,
        mut look: impl FnMut(ChunkRef) -> Option<T>,
    ) -> Result<(Option<T>, Seen), Blocked> {
        let geometry = self.geometry();
        let line = geometry.line(hash);
        let words = self.line_words(line);
        let version = words[0].load(Acquire);
        if version & (LOCKED | LIVE) != LIVE {
            return Err(if version & LOCKED == 0 { Blocked::Lock } else { Blocked::Writer });
        }
        if !self.is_at(hash, line, geometry) {
            return Err(Blocked::Writer);
        }
        let tag = tag_of(hash);
        let mut segment = Segment::of_line(words);
        let mut steps = 0;
        let found = loop {
            if let Some(found) = segment.matching(tag).find_map(|(_, c)| look(c?)) {
                break Some(found);
            }
            // A chain that is being changed may lead in circles; a long one is read with the lock.
            steps += 1;
            match segment.link() {
                Some(node) if steps < NODES_READ_MAX => {
                    segment = self.nodes.segment(node).ok_or(Blocked::Writer)?;
                }
                Some(_) => return Err(Blocked::Lock),
                None => break None,
            }
        };
        Ok((found, Seen { line, version }))
    }

    /// True where no writer came since, so that what was read in between is true.
    #[inline]
    pub fn is_as_seen(&self, seen: Seen) -> bool {
        fence(Acquire);
        self.line_words(seen.line)[0].load(Relaxed) == seen.version
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
        Some(LineGuard::new(self, words, hash))
    }
}
