//! Steps that end the process, as it should end or at once, and have another go on with its file.

use super::Bench;
use crate::ops::RestartOp;
use holes::copy;
use rustcached::clock::Clock;
use rustcached::config::Settings;
use rustcached::store::Store;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

#[path = "../common/holes.rs"]
mod holes;

/// Where a bench has its memory files: one for each start.
pub(super) struct Files {
    dir: TempDir,
    starts: u32,
}

impl Files {
    pub fn new() -> Files {
        Files { dir: TempDir::new().expect("a temporary directory"), starts: 0 }
    }

    pub fn next(&mut self) -> PathBuf {
        self.starts += 1;
        self.dir.path().join(self.starts.to_string())
    }
}

impl Bench {
    /// What another process finds is a copy of the file at this very moment: with values on their
    /// way and values being sent, where the first was not to end in order.
    pub(super) fn restart(&mut self, op: &RestartOp) {
        let Some(file) = self.store.settings().memory_file.clone() else { return };
        if op.clean {
            self.open.clear();
            self.pins.clear();
            self.store.close();
        }
        let next = self.files.next();
        copy(&file, &next);
        std::fs::remove_file(&file).expect("the memory file");
        self.open.clear();
        self.pins.clear();
        let (was, clock) = (self.store.settings(), self.store.clock());
        let maxbytes = if was.evict { op.megabytes << 20 } else { was.maxbytes };
        let settings = Settings {
            maxbytes,
            checksum: op.checksum,
            memory_file: Some(next),
            ..Settings::clone(was)
        };
        let clock = Clock::manual(clock.unix(clock.now()) + u64::from(op.down));
        self.store = Store::new(Arc::new(settings), Arc::new(clock)).expect("a warm store");
        self.locals = [self.store.local(), self.store.local()];
        self.reference.advance(self.store.clock().now());
        let told = self.store.restarted().expect("a memory file");
        assert!(told.warm && told.clean == op.clean, "{told:?}");
        assert_eq!((told.dropped, told.pages_lost), (0, 0), "{told:?}");
    }
}
