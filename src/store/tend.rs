//! After a change of policy: what was in no queue joins one, and a queue that is too long gets
//! shorter, in bounded steps.

use super::Store;
use super::evict;
use super::shard::Shard;
use super::types::Local;
use super::upkeep::Pace;
use crate::config::Eviction;
use slab::{ClassId, PageNo};

/// Chunks that one step looks at.
const CHUNKS_PER_STEP: u32 = 256;

/// Where the walk over a shard's pages stands.
#[derive(Default)]
pub(super) struct Tending {
    on: bool,
    page: u32,
    chunk: u32,
    /// This walk has queued something. What was linked by the old rule while the rule changed may
    /// lie behind it, so there is another.
    found: bool,
}

impl Tending {
    /// The policy has changed.
    pub fn begin(&mut self) {
        *self = Tending { on: true, ..Tending::default() };
    }

    pub fn is_on(&self) -> bool {
        self.on
    }
}

impl Store {
    pub(super) fn tend_step(&self, l: &Local) -> Pace {
        self.step_shards(l, Shard::tend_step)
    }
}

impl Shard {
    fn tend_step(&self) -> Pace {
        let mut t = self.tending.lock();
        if !t.on {
            return Pace::Rest;
        }
        if t.page >= self.slabs.pages_touched() {
            let again = std::mem::take(&mut t.found);
            (t.on, t.page, t.chunk) = (again, 0, 0);
            return Pace::Spare;
        }
        let page = PageNo(t.page);
        let class = self.slabs.owner_of(page);
        let chunks = match class {
            ClassId(0) => 0,
            class => self.slabs.geometry().chunks_per_page(class),
        };
        let end = chunks.min(t.chunk + CHUNKS_PER_STEP);
        if t.chunk < end {
            t.found |= self.tend_chunks(page, class, t.chunk..end);
            t.chunk = end;
        }
        if t.chunk >= chunks {
            (t.page, t.chunk) = (t.page + 1, 0);
        }
        Pace::Spare
    }

    /// True where something was queued.
    fn tend_chunks(&self, page: PageNo, class: ClassId, chunks: std::ops::Range<u32>) -> bool {
        let rule = self.rule();
        let mut guard = self.slabs.lock(class);
        if rule.eviction == Eviction::S3 {
            evict::shorten(&mut guard, rule);
            return false;
        }
        let mut found = false;
        for index in chunks {
            found |= evict::enqueue_lost(&mut guard, self.slabs.chunk_at(page, class, index));
        }
        found
    }
}
