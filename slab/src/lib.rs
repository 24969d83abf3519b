//! One arena, capped, carved into pages, slab classes and chunks.
//!
//! ```text
//! arena   one reservation of address space, page after page, touched on demand
//! page    64 KiB or 1 MiB; free, or owned by one slab class, or draining
//! chunk   a page's equal parts; free, or handed out
//! class   all pages of one chunk size; its lock guards their records
//! ```
//!
//! Chunks are named by [`ChunkRef`], a 32-bit number of 4-byte granules, never by pointer, and the
//! arena is seen as `&[AtomicU32]`, so code above can read and write it without `unsafe`. This
//! crate knows nothing of items. What it promises of a free chunk: words 0 and 1 are left as they
//! were when it was freed, word 2 is its own.
//!
//! An arena may lie in a file and outlive the process. All that counts in it then are the pages'
//! owners, which the records say, and what the caller finds in the chunks: lists, counts and locks
//! are made anew (`restore`).
//!
//! Lock order: class, then pool. No lock is held when a method returns, but for a [`ClassGuard`].

mod ahead;
mod class;
mod geometry;
mod grain;
mod page;
mod pool;
mod restore;
mod slabs;
pub mod sync;
mod touch;
mod validate;
mod waits;
mod words;

pub use class::ClassGuard;
pub use geometry::{ClassId, Geometry, GeometryError};
pub use grain::Grain;
pub use page::{PageNo, earliest_of};
pub use restore::Restored;
pub use slabs::{Options, Place, Slabs};
pub use waits::{LongWaits, Waits, work_in_background};
pub use words::Words;

use std::num::NonZeroU32;

/// A chunk's place in the arena. `None` of `Option<ChunkRef>` costs nothing; stored as u32, 0 is
/// no chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkRef(NonZeroU32);

impl ChunkRef {
    /// The chunk that starts at word `word` of the arena.
    #[inline]
    pub fn at_word(word: usize) -> ChunkRef {
        let n = u32::try_from(word + 1).ok().and_then(NonZeroU32::new);
        ChunkRef(n.expect("an arena holds less than 2^32 granules"))
    }

    /// From [`ChunkRef::to_u32`]; 0 is none.
    #[inline]
    pub fn from_u32(n: u32) -> Option<ChunkRef> {
        NonZeroU32::new(n).map(ChunkRef)
    }

    #[inline]
    pub fn to_u32(self) -> u32 {
        self.0.get()
    }

    /// Index of the chunk's first word in [`Slabs::words`].
    #[inline]
    pub fn word(self) -> usize {
        (self.0.get() - 1) as usize
    }
}
