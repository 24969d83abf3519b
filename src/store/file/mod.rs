//! The memory file (`-e`): what it is, whose it is, and whether what is in it can be used.
//!
//! ```text
//! |header 64 KiB: layout, ladder, hash seed, ledger|page records|... |arena|...
//! ```
//!
//! There are as many records and arenas as shards; each has its place whatever -m is, and only the
//! last arena's end moves, so that a file fits any -m of so many shards. It is sparse: what no page
//! has been taken for takes no room.
//!
//! Whoever starts cold empties the file first. What can be seen not to be ours is never touched,
//! and the start refused.

mod header;
mod ledger;

pub(super) use ledger::{Entry, Ledger};

use super::ARENA_MAX;
use super::seals::Seals;
use crate::clock::Clock;
use crate::config::Settings;
use header::{HEADER_BYTES, Header, Unusable};
use log::{info, warn};
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use rustix::fs::{FlockOperation, flock};
use slab::{Geometry, Place, Words};
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that one arena can reach.
const ARENA_STRIDE: u64 = 16 << 30;
/// Bytes of a page's record.
const RECORD_BYTES: u64 = 32;
/// Where the arenas may begin: huge pages of the system's.
const HUGE: u64 = 2 << 20;
/// Bits of access that let others than its owner change a file.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A memory file that is open, locked and ours.
pub(super) struct MemoryFile {
    path: PathBuf,
    file: Arc<File>,
    header: Header,
    pub ledger: Arc<Ledger>,
    /// Bytes that it had when it was opened.
    len: u64,
    /// As the ledger was then; `None`: it starts cold.
    pub before: Option<Entry>,
}

impl MemoryFile {
    /// Opens the file that the settings name, if they do, and makes it what a cold start needs
    /// where it cannot be used. `clock` goes on where the file's was.
    pub fn open(
        s: &Settings,
        ladder: &Geometry,
        clock: &Clock,
    ) -> Result<Option<MemoryFile>, String> {
        let Some(path) = &s.memory_file else { return Ok(None) };
        let failed = |e: &dyn Display| format!("-e {}: {e}", path.display());
        refuse_memcacheds(path, s.memory_file_discard)?;
        let file = Arc::new(open_own(path).map_err(|e| failed(&e))?);
        let len = file.metadata().map_err(|e| failed(&e))?.len();
        let wanted = Header::new(s, ladder, shards_for(s));
        let found = match len == 0 || s.memory_file_discard {
            true => None,
            false => match look(&file, len, &wanted) {
                Err(Unusable::Foreign) => {
                    let what = "is no memory file of rustcached and is left as it is";
                    return Err(failed(&format!("{what}; {DISCARD}")));
                }
                Err(why) => {
                    warn!("-e {}: {why}: starting cold", path.display());
                    None
                }
                Ok(found) => Some(found),
            },
        };
        let before = found.as_ref().map(|(_, entry)| *entry);
        let (header, len) = match found {
            Some((header, _)) => (header, len),
            None => (wanted.create(&file).map_err(|e| failed(&e))?, 0),
        };
        let words = Words::of_file(&file, 0, HEADER_BYTES / 4).map_err(|e| failed(&e))?;
        if let Some(entry) = before {
            clock.resume(entry.origin, entry.last);
            say_what_is_kept(s, path, &header, ladder);
        }
        let ledger = Arc::new(Ledger::new(words));
        let path = path.clone();
        let opened = MemoryFile { path, file, header, ledger, len, before };
        opened.begin(s, clock);
        Ok(Some(opened))
    }

    /// From here on the file is in use.
    fn begin(&self, s: &Settings, clock: &Clock) {
        let fresh = Entry { seals: seals_of(s).0, ..Entry::default() };
        let before = self.before.unwrap_or(fresh);
        self.ledger.update(|entry| {
            *entry = Entry {
                clean: false,
                boot: boot_id(),
                origin: clock.unix(Clock::ORIGIN),
                last: clock.now(),
                // Of both kinds until all have been looked at.
                seals: Seals(before.seals).and(seals_of(s)).0,
                ..before
            };
        });
    }

    /// What is in it is as it should be from now on: every seal is of the kind asked for.
    pub fn restarted(&self, s: &Settings) {
        self.ledger.update(|entry| entry.seals = seals_of(s).0);
    }

    /// Nobody will change anything any more. What is not written out yet is, so that the file also
    /// outlives the system.
    pub fn close(&self) {
        if let Err(e) = self.file.sync_data() {
            warn!("-e {}: cannot be written out: {e}", self.path.display());
        }
        self.ledger.update(|entry| entry.clean = true);
        if let Err(e) = self.file.sync_data() {
            warn!("-e {}: cannot be written out: {e}", self.path.display());
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ladder of the file, which is that of the settings where it is new.
    pub fn geometry(&self) -> Geometry {
        self.header.geometry.clone().with_tail(Seals::TAIL)
    }

    pub fn shards(&self) -> u64 {
        u64::from(self.header.shards)
    }

    /// What the keys' hashes are made with, as they tell the shards apart.
    pub fn seed(&self) -> u64 {
        self.header.seed
    }

    /// Pages of a shard that the file had when it was opened.
    pub fn pages(&self, shard: u64) -> u32 {
        let bytes = self.len.saturating_sub(self.arena_at(shard)).min(ARENA_STRIDE);
        ((bytes / self.page_size()) as u32).min(self.pages_max())
    }

    /// Where a shard's records and arena are, once the file is long enough for so many pages.
    pub fn place(&self, shard: u64, pages: u32) -> io::Result<Place> {
        let end = self.arena_at(shard) + u64::from(pages.min(self.pages_max())) * self.page_size();
        if self.file.metadata()?.len() < end {
            self.file.set_len(end)?;
        }
        let records = HEADER_BYTES as u64 + shard * self.records_stride();
        Ok(Place { file: self.file.clone(), records, arena: self.arena_at(shard) })
    }

    fn page_size(&self) -> u64 {
        self.header.geometry.page_size().into()
    }

    /// Most pages of one arena: the last word that its references reach is no chunk's.
    fn pages_max(&self) -> u32 {
        (ARENA_STRIDE / self.page_size()) as u32 - 1
    }

    fn records_stride(&self) -> u64 {
        ARENA_STRIDE / self.page_size() * RECORD_BYTES
    }

    fn arena_at(&self, shard: u64) -> u64 {
        let records = HEADER_BYTES as u64 + self.shards() * self.records_stride();
        records.next_multiple_of(HUGE) + shard * ARENA_STRIDE
    }
}

const DISCARD: &str = "-o memory_file_discard starts cold over whatever is there";

pub(super) fn seals_of(s: &Settings) -> Seals {
    if s.checksum { Seals::VALUES } else { Seals::HEADERS }
}

/// Shards that -m needs.
fn shards_for(s: &Settings) -> u32 {
    s.cache_bytes().div_ceil(ARENA_MAX).max(1) as u32
}

/// memcached leaves a second file beside its memory file when it stops. What is in the first is
/// memcached's then, which nobody else can read, and the two must not part.
fn refuse_memcacheds(path: &Path, discard: bool) -> Result<(), String> {
    let mut meta = OsString::from(path);
    meta.push(".meta");
    match fs::symlink_metadata(&meta) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Ok(_) if discard => fs::remove_file(&meta).map_err(|e| format!("-e: .meta: {e}")),
        _ => Err(format!(
            "-e {}: {} lies beside it, so it is memcached's; {DISCARD}",
            path.display(),
            meta.display()
        )),
    }
}

/// Opens a file that nobody else can have prepared or is using, or makes it.
fn open_own(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).bits())
        .open(path);
    let file = opened.map_err(|e| match e.raw_os_error() {
        Some(code) if code == nix::Error::ELOOP as i32 => {
            io::Error::other("is a symbolic link, which is not followed")
        }
        _ => e,
    })?;
    let is = file.metadata()?;
    if !is.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    if is.uid() != geteuid().as_raw() {
        return Err(io::Error::other(format!("belongs to another user ({})", is.uid())));
    }
    if is.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(io::Error::other("may be written to by others"));
    }
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
        rustix::io::Errno::WOULDBLOCK => io::Error::other("is in use by another process"),
        e => e.into(),
    })?;
    Ok(file)
}

/// What a file of `len` bytes says of itself, if it can be used by these settings.
fn look(file: &File, len: u64, wanted: &Header) -> Result<(Header, Entry), Unusable> {
    let mut bytes = vec![0; HEADER_BYTES];
    file.read_exact_at(&mut bytes, 0).map_err(|e| match e.kind() {
        ErrorKind::UnexpectedEof => Unusable::short_or_foreign(file),
        _ => Unusable::Unreadable(e.to_string()),
    })?;
    let header = Header::parse(&bytes)?;
    let entry = ledger::parse(&bytes).ok_or(Unusable::Damaged("ledger"))?;
    if u64::from(header.shards - 1) > len / ARENA_STRIDE {
        // All arenas but the last have their whole length, if mostly as a hole.
        return Err(Unusable::Damaged("header"));
    }
    if header.layout != wanted.layout {
        return Err(Unusable::OtherLayout);
    }
    if header.shards < wanted.shards {
        return Err(Unusable::TooFewShards);
    }
    if !entry.clean && (entry.boot != boot_id() || entry.boot == [0; 4]) {
        return Err(Unusable::OtherBoot);
    }
    Ok((header, entry))
}

/// The file's ladder stays, or nothing could be kept. Whoever asked for another is told.
fn say_what_is_kept(s: &Settings, path: &Path, header: &Header, ladder: &Geometry) {
    if header.geometry == *ladder {
        return;
    }
    let asked = s.growth_factor_given
        || s.chunk_size_given
        || s.slab_chunk_max.is_some()
        || !s.slab_sizes.is_empty();
    let path = path.display();
    if asked {
        warn!(
            "-e {path}: the file's slab classes stay, whatever -f, -n and -o say of them; \
             -o memory_file_discard starts cold with others"
        );
    } else {
        info!("-e {path}: the file's slab classes and pages stay");
    }
}

/// What tells this run of the system from others; zeroes where it cannot be told.
fn boot_id() -> [u32; 4] {
    let text = fs::read_to_string(BOOT_ID).unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let part = |n: usize| digits.get(n * 8..n * 8 + 8).map(|part| u32::from_str_radix(part, 16));
    std::array::from_fn(|n| part(n).and_then(Result::ok).unwrap_or(0))
}

/// Lines of the index that a restart begins with: memcached's hash table comes back as large as it
/// was, so with its layout the index does.
pub(super) fn lines_before(s: &Settings, file: Option<&MemoryFile>) -> u32 {
    let entry = file.filter(|_| s.pages_alone()).and_then(|file| file.before);
    entry.map_or(0, |entry| entry.lines)
}
