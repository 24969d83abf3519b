//! `cache_memlimit`: -m as it is now.

use super::{ARENA_MAX, Store, UNLINKED_SHARE};
use std::sync::atomic::Ordering::Relaxed;

/// How often -m the limit may become at run time: address space for it is reserved at the start.
/// The checkers of memory and of threads have real memory for it, so they stay with -m.
const REACH_TIMES: u64 = if cfg!(any(loom, miri)) { 1 } else { 16 };

/// Bytes that a shard which starts with `limit` bytes can ever be given: 16 times as many, as far
/// as one arena reaches.
pub(super) fn reach_of(limit: u64) -> u64 {
    limit.saturating_mul(REACH_TIMES).min(ARENA_MAX).max(limit)
}

impl Store {
    /// Changes -m to so many bytes, of which every shard gets its even share. False, and nothing
    /// changed, where that is beyond what address space was reserved for. With less than is in use
    /// now nothing is dropped here: the background work gives pages up until the limit holds.
    pub fn set_limit(&self, bytes: u64) -> bool {
        let share = bytes / self.shards.len() as u64;
        if self.shards.iter().any(|shard| share > shard.reach) {
            return false;
        }
        for shard in &self.shards {
            shard.slabs.set_limit(share);
            shard.pins.set_unlinked_max(share / UNLINKED_SHARE);
        }
        self.limit.store(bytes, Relaxed);
        true
    }
}
