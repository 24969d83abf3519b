//! What a class knows of a burst that fills it: see `store::idle`.

use slab::ClassId;

/// Evictions from one look to the next, at the least.
const LOOK_MIN: u64 = 64;

/// What a class knows from its last look.
#[derive(Default)]
pub(in crate::store) struct Surge {
    /// Evictions since then.
    pub evicted: u64,
    /// Pages that the class may still take from the giver.
    pub granted: u64,
    pub giver: ClassId,
    /// How often the giver had been used.
    pub uses: u64,
}

impl Surge {
    /// Counts an eviction that is about to be; true where the class should take a page instead, or
    /// look for one.
    #[inline]
    pub fn is_due(&mut self, chunks: u64) -> bool {
        self.evicted += 1;
        self.granted > 0 || self.evicted > chunks.max(LOOK_MIN)
    }
}
