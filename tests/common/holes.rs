//! Memory files have holes, which a copy should not fill.

use rustix::fs::{SeekFrom, seek};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Copies a file with its holes.
pub fn copy(from: &Path, to: &Path) {
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
