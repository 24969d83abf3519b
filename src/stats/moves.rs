//! What the page mover counts, under memcached's names.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

/// What last kept a page from moving; memcached's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BusyStatus {
    None,
    Busy,
    BusyUploading,
    BusyFloating,
    Locked,
}

impl BusyStatus {
    const ALL: [BusyStatus; 5] = [
        BusyStatus::None,
        BusyStatus::Busy,
        BusyStatus::BusyUploading,
        BusyStatus::BusyFloating,
        BusyStatus::Locked,
    ];

    pub fn name(self) -> &'static str {
        match self {
            BusyStatus::None => "none",
            BusyStatus::Busy => "busy",
            BusyStatus::BusyUploading => "busy_uploading",
            BusyStatus::BusyFloating => "busy_floating",
            BusyStatus::Locked => "locked",
        }
    }
}

/// Written by the background thread.
#[derive(Default, Debug)]
pub struct MoveStats {
    pub rescues: AtomicU64,
    pub chunk_rescues: AtomicU64,
    /// Chunks that were in the way, once for each time.
    pub busy_items: AtomicU64,
    /// Items dropped because they were in the way for too long.
    pub busy_deletes: AtomicU64,
    pub busy_nomem: AtomicU64,
    pub slabs_moved: AtomicU64,
    pub running: AtomicBool,
    last_busy: AtomicU8,
}

impl MoveStats {
    pub fn note_busy(&self, status: BusyStatus) {
        self.last_busy.store(status as u8, Relaxed);
    }

    pub fn last_busy(&self) -> BusyStatus {
        BusyStatus::ALL[usize::from(self.last_busy.load(Relaxed)) % BusyStatus::ALL.len()]
    }

    /// `stats reset`
    pub(super) fn reset(&self) {
        for count in [
            &self.rescues,
            &self.chunk_rescues,
            &self.busy_items,
            &self.busy_deletes,
            &self.busy_nomem,
            &self.slabs_moved,
        ] {
            count.store(0, Relaxed);
        }
    }
}
