//! Nodes: room for what does not fit a line. They come in blocks of a system page, opened when
//! nodes run short and closed from the top when they are not needed. The lowest free node is taken
//! first, and what is used in a block that should be closed moves down ([`Index::gather`]).
//!
//! [`Index::gather`]: super::Index::gather

use super::Full;
use super::line::{Segment, clear};
use crate::item::prefetch;
use slab::Words;
use slab::sync::{MODELLED, Mutex, Ordering, fence};
use std::io;
use std::ops::Range;

use Ordering::{Relaxed, Release};

const NODE_WORDS: usize = 8;
pub const BLOCK_NODES: u32 = if MODELLED { 8 } else { 128 };
/// Bytes that one more block is charged for.
pub const BLOCK_BYTES: u64 = BLOCK_NODES as u64 * NODE_WORDS as u64 * 4;
/// Blocks closed at once.
const CLOSED_MAX: u32 = 16;
/// A block of which all is free.
const ALL: u128 = u128::MAX >> (128 - BLOCK_NODES);

/// Nodes that only a line on the move may take: what it needs beyond those that it had.
///
/// A line of k references has (k - 12) / 5 nodes, rounded up, so y more take at most y / 5 of them,
/// rounded up. A line's k references go to three lines at the most, which take less than
/// k / 5 + 2.4, and had k / 5 - 2.4 or more.
pub const MOVE_NODES: u32 = if MODELLED { 4 } else { 8 };

pub(super) struct Nodes {
    words: Words,
    spare: Mutex<Spare>,
}

/// Node 0 is never handed out, so that 0 can mean none.
struct Spare {
    /// A bit for each node of each block, set where it is free. A closed block has none.
    free: Box<[u128]>,
    /// A bit for each block that has a free node.
    ready: Box<[u64]>,
    /// Blocks open, from the first on.
    open: u32,
    in_use: u32,
}

impl Nodes {
    /// Two nodes for each line that there can ever be. One block is open.
    pub fn new(lines: u32) -> io::Result<Nodes> {
        let blocks = (lines as usize * 2).div_ceil(BLOCK_NODES as usize).max(1);
        let mut spare = Spare {
            free: vec![0; blocks].into(),
            ready: vec![0; blocks.div_ceil(64)].into(),
            open: 0,
            in_use: 0,
        };
        spare.open_block();
        spare.free[0] &= !1;
        let words = Words::reserve(blocks * BLOCK_NODES as usize * NODE_WORDS)?;
        Ok(Nodes { words, spare: Mutex::new(spare) })
    }

    #[inline]
    pub fn segment(&self, node: u32) -> Option<Segment<'_>> {
        let at = node as usize * NODE_WORDS;
        let words = self.words.get(at..at + NODE_WORDS)?;
        Some(Segment { tags: &words[..2], slots: &words[2..] })
    }

    /// Starts loading a node, if it is one.
    #[inline]
    pub fn prefetch(&self, node: u32) {
        prefetch(&self.words, node as usize * NODE_WORDS);
    }

    /// An empty node, as long as more than [`MOVE_NODES`] are free.
    pub fn take(&self) -> Result<u32, Full> {
        self.take_beyond(MOVE_NODES)
    }

    /// A node for a line on the move.
    pub fn take_for_move(&self) -> Result<u32, Full> {
        self.take_beyond(0)
    }

    fn take_beyond(&self, kept: u32) -> Result<u32, Full> {
        let node = {
            let mut spare = self.spare.lock();
            if spare.left() <= kept {
                return Err(Full);
            }
            spare.take().ok_or(Full)?
        };
        // Whoever sees what is now written to the node sees that the line it was under was locked.
        fence(Release);
        self.clear(node);
        Ok(node)
    }

    /// Empties a node that is still the caller's.
    pub fn clear(&self, node: u32) {
        clear(&self.words[node as usize * NODE_WORDS..][..NODE_WORDS]);
    }

    pub fn put(&self, node: u32) {
        self.spare.lock().put(node);
    }

    /// Opens one more block; false where there is no room for it.
    pub fn open_block(&self) -> bool {
        self.spare.lock().open_block()
    }

    /// Nodes used in the last block, if more than `kept` would be free without it.
    pub fn last_used(&self, kept: u32) -> Vec<u32> {
        let spare = self.spare.lock();
        if !spare.can_close(kept) {
            return Vec::new();
        }
        let free = spare.free[spare.open as usize - 1];
        let used = (0..BLOCK_NODES).filter(|bit| free >> bit & 1 == 0);
        used.map(|bit| (spare.open - 1) * BLOCK_NODES + bit).collect()
    }

    /// Copies a node that is the caller's to one that is lower, which is now the caller's as well;
    /// `None` where there is none.
    pub fn copy_down(&self, node: u32) -> Option<u32> {
        let copy = self.take().ok()?;
        if copy > node {
            self.put(copy);
            return None;
        }
        let at = |node: u32| &self.words[node as usize * NODE_WORDS..][..NODE_WORDS];
        for (from, to) in at(node).iter().zip(at(copy)) {
            to.store(from.load(Relaxed), Relaxed);
        }
        Some(copy)
    }

    /// Closes some blocks of which nothing is used, as long as `kept` free nodes are left; returns
    /// the bytes given back.
    pub fn close_blocks(&self, kept: u32) -> u64 {
        // Held until the memory is gone, lest the blocks are opened again meanwhile.
        let mut spare = self.spare.lock();
        let closed = spare.close_blocks(kept);
        if closed.is_empty() {
            return 0;
        }
        let words = |block: u32| block as usize * BLOCK_NODES as usize * NODE_WORDS;
        // As in `take_beyond`.
        fence(Release);
        // What cannot be released is not empty when it is taken again, which clears it.
        let _ = self.words.release(words(closed.start)..words(closed.end));
        closed.len() as u64 * BLOCK_BYTES
    }

    /// True where `kept` nodes would be free without the last block.
    pub fn can_close(&self, kept: u32) -> bool {
        self.spare.lock().can_close(kept)
    }

    /// Nodes that are free.
    pub fn spare(&self) -> u32 {
        self.spare.lock().left()
    }

    pub fn used(&self) -> u32 {
        self.spare.lock().in_use
    }

    /// Bytes of the blocks that are open.
    pub fn bytes(&self) -> u64 {
        u64::from(self.spare.lock().open) * BLOCK_BYTES
    }
}

impl Spare {
    fn left(&self) -> u32 {
        self.open * BLOCK_NODES - 1 - self.in_use
    }

    fn take(&mut self) -> Option<u32> {
        let word = self.ready.iter().position(|word| *word != 0)?;
        let block = word * 64 + self.ready[word].trailing_zeros() as usize;
        let bit = self.free[block].trailing_zeros();
        self.free[block] &= self.free[block] - 1;
        if self.free[block] == 0 {
            self.ready[word] &= self.ready[word] - 1;
        }
        self.in_use += 1;
        Some(block as u32 * BLOCK_NODES + bit)
    }

    fn put(&mut self, node: u32) {
        let block = node / BLOCK_NODES;
        self.free[block as usize] |= 1 << (node % BLOCK_NODES);
        self.ready[block as usize / 64] |= 1 << (block % 64);
        self.in_use -= 1;
    }

    fn open_block(&mut self) -> bool {
        let block = self.open as usize;
        if block == self.free.len() {
            return false;
        }
        self.free[block] = ALL;
        self.ready[block / 64] |= 1 << (block % 64);
        self.open += 1;
        true
    }

    /// The first block stays.
    fn can_close(&self, kept: u32) -> bool {
        self.open > 1 && self.left() >= kept.saturating_add(BLOCK_NODES)
    }

    /// The blocks closed.
    fn close_blocks(&mut self, kept: u32) -> Range<u32> {
        let end = self.open;
        while end - self.open < CLOSED_MAX
            && self.can_close(kept)
            && self.free[self.open as usize - 1] == ALL
        {
            self.open -= 1;
            let block = self.open as usize;
            self.free[block] = 0;
            self.ready[block / 64] &= !(1 << (block % 64));
        }
        self.open..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_node_is_taken_first() {
        let nodes = Nodes::new(1024).unwrap();
        let first: Vec<u32> = std::iter::from_fn(|| nodes.take().ok()).collect();
        assert_eq!(first, Vec::from_iter(1..BLOCK_NODES - MOVE_NODES));
        assert!(nodes.open_block());
        let more: Vec<u32> = std::iter::from_fn(|| nodes.take().ok()).collect();
        assert_eq!(more.len() as u32, BLOCK_NODES);
        for node in [more[7], first[3]] {
            nodes.put(node);
        }
        assert_eq!((nodes.take(), nodes.take()), (Ok(first[3]), Ok(more[7])));
        assert_eq!(nodes.take(), Err(Full));
        assert_eq!(nodes.take_for_move(), Ok(2 * BLOCK_NODES - MOVE_NODES));
    }

    #[test]
    fn blocks_close_from_the_top_when_they_are_empty() {
        let nodes = Nodes::new(4096).unwrap();
        let blocks = 1 + (0..40).filter(|_| nodes.open_block()).count() as u64;
        assert_eq!((blocks, nodes.bytes()), (41, 41 * BLOCK_BYTES));
        let low = nodes.take().unwrap();
        assert_eq!(nodes.close_blocks(30 * BLOCK_NODES), 10 * BLOCK_BYTES);
        assert_eq!(nodes.close_blocks(0), u64::from(CLOSED_MAX) * BLOCK_BYTES);
        assert_eq!(nodes.close_blocks(0), 14 * BLOCK_BYTES, "all but the first");
        assert_eq!((nodes.close_blocks(0), nodes.used()), (0, 1));
        nodes.put(low);
        assert_eq!(nodes.spare(), BLOCK_NODES - 1);
        // What comes back is empty and can be used.
        assert!(nodes.open_block());
        let taken = std::iter::from_fn(|| nodes.take_for_move().ok()).count() as u32;
        assert_eq!(taken, 2 * BLOCK_NODES - 1);
        assert_eq!((nodes.take_for_move(), nodes.spare()), (Err(Full), 0));
    }
}
