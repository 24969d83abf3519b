//! Steps that end the process, as it should end or at once, and have another go on with its file.

use super::Bench;
use crate::ops::RestartOp;
use rustcached::clock::Clock;
use rustcached::config::Settings;
use rustcached::store::Store;
use rustix::fs::{SeekFrom, seek};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

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

/// Copies a file with its holes.
fn copy(from: &Path, to: &Path) {
    let all = "a copy of the memory file";
    let mut options = OpenOptions::new();
    let (from, to) = (
        File::open(from).expect(all),
        options.write(true).create(true).truncate(true).mode(0o600).open(to).expect(all),
    );
    let (len, mut at) = (from.metadata().expect(all).len(), 0);
    let mut bytes = Vec::new();
    to.set_len(len).expect(all);
    while let Ok(start) = seek(&from, SeekFrom::Data(at)) {
        at = seek(&from, SeekFrom::Hole(start)).expect(all);
        bytes.resize((at - start) as usize, 0);
        from.read_exact_at(&mut bytes, start).expect(all);
        to.write_all_at(&bytes, start).expect(all);
    }
}
