//! A reservation of demand-zero memory, seen as atomic words: the arena, page records, the index;
//! or a part of a file, seen the same way.
//!
//! The only file that maps memory. Under Miri and loom it is a zeroed heap block instead, and there
//! are no files.

use crate::sync::AtomicU32;
use crate::sync::Ordering::Relaxed;
#[cfg(not(any(loom, miri)))]
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};
#[cfg(not(any(loom, miri)))]
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;
#[cfg(not(any(loom, miri)))]
use std::sync::atomic::AtomicBool;

/// `len` zeroed words, resident only where touched. Sharing them as atomics is what lets a reader
/// look at memory that a writer may be changing.
pub struct Words {
    #[cfg(not(any(loom, miri)))]
    map: memmap2::MmapRaw,
    #[cfg(not(any(loom, miri)))]
    file: Option<InFile>,
    #[cfg(any(loom, miri))]
    map: Box<[AtomicU32]>,
}

/// The file that words are a part of, and where in it they begin.
#[cfg(not(any(loom, miri)))]
struct InFile {
    file: Arc<File>,
    at: u64,
    /// Some of the words were given back, and are not the file's until they are committed again.
    has_holes: AtomicBool,
    /// Some of those still are in the file as they were.
    has_relics: AtomicBool,
}

/// Words of a huge page, where the system's are of 2 MiB.
pub(crate) const HUGE_WORDS: usize = (2 << 20) / 4;
/// Since Linux 6.1; not every C library has it.
#[cfg(not(any(loom, miri)))]
const MADV_COLLAPSE: libc::c_int = 25;
/// Since Linux 5.18; not every C library has it.
#[cfg(not(any(loom, miri)))]
const MADV_DONTNEED_LOCKED: libc::c_int = 24;
#[cfg(not(any(loom, miri)))]
const READ_AND_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

#[cfg(not(any(loom, miri)))]
impl Words {
    /// Reserves address space; no memory is used yet.
    pub fn reserve(len: usize) -> io::Result<Words> {
        let map = memmap2::MmapOptions::new().len(len.max(1) * 4).no_reserve_swap().map_anon()?;
        Ok(Words { map: memmap2::MmapRaw::from(map), file: None })
    }

    /// The same, of at least so many words, whose memory comes in huge pages where the system has
    /// some. As its length is a multiple of theirs, it begins where one of them can (Linux 6.7 and
    /// later).
    pub fn reserve_huge(len: usize) -> io::Result<Words> {
        let words = Words::reserve(len.next_multiple_of(HUGE_WORDS))?;
        let _ = words.huge_pages(0..words.len());
        Ok(words)
    }

    /// The words of a file from byte `at` on. The file must be that long, and stay so: beyond its
    /// end there is nothing to read or write.
    pub fn of_file(file: &Arc<File>, at: u64, len: usize) -> io::Result<Words> {
        let map = memmap2::MmapOptions::new().offset(at).len(len.max(1) * 4).map_raw(&**file)?;
        let (has_holes, has_relics) = Default::default();
        let file = InFile { file: file.clone(), at, has_holes, has_relics };
        Ok(Words { map, file: Some(file) })
    }

    /// Makes sure that the memory of `range` can be had. Anonymous memory is the system's to find;
    /// room in a file is taken now, since a write that finds none would end the process.
    #[inline]
    pub fn commit(&self, range: Range<usize>) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let (at, len) = (file.at + range.start as u64 * 4, range.len() * 4);
        in_file::allocate(&file.file, at, len as u64)?;
        if !file.has_holes.load(Relaxed) {
            return Ok(());
        }
        let (flags, protection) = (MapFlags::SHARED | MapFlags::FIXED, READ_AND_WRITE);
        let to = self.address(range.start);
        // SAFETY: as for the hole in `release`; the file is as long as was asked for in `of_file`.
        unsafe { mmap(to, len, protection, flags, &file.file, at) }?;
        if file.has_relics.load(Relaxed) {
            self.zero(range);
        }
        Ok(())
    }

    /// Gives the memory of `range` back to the system, as far as it is whole system pages; all of
    /// it reads as zero from then on, unless this fails.
    ///
    /// A reader may still look at it. In a file it would be given new room for that, or end the
    /// process where there is none, so memory without a file takes its place until the next
    /// [`Words::commit`].
    pub fn release(&self, range: Range<usize>) -> io::Result<()> {
        let page = rustix::param::page_size();
        let (from, to) = ((range.start * 4).next_multiple_of(page), range.end * 4 / page * page);
        if from >= to {
            self.zero(range);
            return Ok(());
        }
        self.zero(range.start..from / 4);
        self.zero(to / 4..range.end);
        let Some(file) = &self.file else {
            return self.drop_memory(from / 4..to / 4);
        };
        let (hole, at, len) = (self.address(from / 4), file.at + from as u64, to - from);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        file.has_holes.store(true, Relaxed);
        // SAFETY: the range lies within the mapping, which `self` owns and unmaps as a whole; all
        // access is through atomics (see `deref`), to which other memory of zeroes is a store of
        // zero.
        unsafe { mmap_anonymous(hole, len, READ_AND_WRITE, flags) }?;
        let cleared = in_file::punch(&file.file, at, len as u64)
            .or_else(|_| in_file::write_zeroes(&file.file, at, len as u64));
        file.has_relics.fetch_or(cleared.is_err(), Relaxed);
        cleared
    }

    /// Drops the memory of whole system pages, which the system refuses where they are locked
    /// (`-k`) and it is not told that this is known.
    fn drop_memory(&self, range: Range<usize>) -> io::Result<()> {
        let (from, len) = (self.address(range.start), self[range].len() * 4);
        let advise = |advice| {
            // SAFETY: the range lies within the mapping, which is anonymous and private and `self`
            // owns; all access is through atomics (see `deref`), to which dropping the pages is a
            // store of zero.
            match unsafe { libc::madvise(from, len, advice) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        let refused = |e: &io::Error| e.raw_os_error() == Some(libc::EINVAL);
        match advise(libc::MADV_DONTNEED) {
            Err(e) if refused(&e) => match advise(MADV_DONTNEED_LOCKED) {
                Err(e) if refused(&e) => self.unlocked(from, len, || advise(libc::MADV_DONTNEED)),
                dropped => dropped,
            },
            dropped => dropped,
        }
    }

    /// Runs `drop` while a range of system pages is not locked. What is put there later is locked
    /// again, if the limit on locked memory has room for it.
    fn unlocked(
        &self,
        from: *mut c_void,
        len: usize,
        drop: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        // SAFETY: as in `drop_memory`; whether memory is locked changes nothing that is there.
        unsafe { rustix::mm::munlock(from, len) }?;
        let dropped = drop();
        // SAFETY: as above.
        let _ = unsafe { rustix::mm::mlock_with(from, len, rustix::mm::MlockFlags::ONFAULT) };
        dropped
    }

    /// Has the system bring the memory of `range` now, which changes nothing that is there. Fails
    /// in a file, whose room is for [`Words::commit`].
    ///
    /// It is touched, not asked for: a system that is asked to populate holds what every other
    /// mapping of memory in the process waits for.
    pub fn populate(&self, range: Range<usize>) -> io::Result<()> {
        if self.file.is_some() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let words_per_page = rustix::param::page_size() / 4;
        for word in self[range].iter().step_by(words_per_page) {
            // Neither a load nor what may be made one will do: that brings the page of zeros.
            let _ = word.compare_exchange(0, 0, Relaxed, Relaxed);
        }
        Ok(())
    }

    /// As [`Words::commit`] for words that the file has, which stay as they are.
    pub fn secure(&self, range: Range<usize>) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        in_file::secure(&file.file, file.at + range.start as u64 * 4, range.len() as u64 * 4)
    }

    /// As [`Words::release`], while nobody else can look at any of it.
    pub fn discard(&self, range: Range<usize>) -> io::Result<()> {
        let Some(file) = &self.file else { return self.release(range) };
        in_file::punch(&file.file, file.at + range.start as u64 * 4, range.len() as u64 * 4)
    }

    fn address(&self, word: usize) -> *mut c_void {
        self.map.as_mut_ptr().cast::<u32>().wrapping_add(word).cast()
    }

    /// Asks for huge pages (`-L`).
    pub fn huge_pages(&self, range: Range<usize>) -> io::Result<()> {
        self.map.advise_range(memmap2::Advice::HugePage, range.start * 4, range.len() * 4)
    }
}

#[cfg(not(any(loom, miri)))]
impl Words {
    /// Asks for small pages.
    pub fn small_pages(&self, range: Range<usize>) -> io::Result<()> {
        self.map.advise_range(memmap2::Advice::NoHugePage, range.start * 4, range.len() * 4)
    }

    /// Moves what is in `range`, which is whole huge pages, to huge pages now. Whoever touches it
    /// meanwhile waits.
    pub fn gather(&self, range: Range<usize>) -> io::Result<()> {
        self.huge_pages(range.clone())?;
        let (from, len) = (self.address(range.start), self[range].len() * 4);
        // SAFETY: the range lies within the mapping, which `self` owns, and what is there stays as
        // it is.
        if unsafe { libc::madvise(from, len, MADV_COLLAPSE) } == 0 {
            return Ok(());
        }
        Err(io::Error::last_os_error())
    }

    /// True where small pages can be gathered: in memory without a file, on a system that is
    /// allowed huge pages.
    pub fn can_gather(&self) -> bool {
        let modes = || std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        self.file.is_none() && modes().is_ok_and(|modes| !modes.contains("[never]"))
    }

    /// Words before the first that a huge page can begin with.
    pub fn to_huge_page(&self) -> usize {
        let bytes = HUGE_WORDS * 4;
        (bytes - self.address(0).addr() % bytes) % bytes / 4
    }
}

#[cfg(any(loom, miri))]
impl Words {
    pub fn reserve(len: usize) -> io::Result<Words> {
        Ok(Words { map: (0..len).map(|_| AtomicU32::new(0)).collect() })
    }

    pub fn reserve_huge(len: usize) -> io::Result<Words> {
        Words::reserve(len)
    }

    pub fn of_file(_: &Arc<File>, _: u64, _: usize) -> io::Result<Words> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn commit(&self, _: Range<usize>) -> io::Result<()> {
        Ok(())
    }

    pub fn release(&self, range: Range<usize>) -> io::Result<()> {
        self.zero(range);
        Ok(())
    }

    pub fn populate(&self, _: Range<usize>) -> io::Result<()> {
        Ok(())
    }

    pub fn secure(&self, _: Range<usize>) -> io::Result<()> {
        Ok(())
    }

    pub fn discard(&self, range: Range<usize>) -> io::Result<()> {
        self.release(range)
    }

    pub fn huge_pages(&self, _: Range<usize>) -> io::Result<()> {
        Ok(())
    }

    pub fn small_pages(&self, _: Range<usize>) -> io::Result<()> {
        Ok(())
    }

    pub fn gather(&self, _: Range<usize>) -> io::Result<()> {
        Ok(())
    }

    pub fn can_gather(&self) -> bool {
        false
    }

    pub fn to_huge_page(&self) -> usize {
        0
    }
}

impl Words {
    /// Makes all of `range` read as zero, and keeps its memory.
    pub fn zero(&self, range: Range<usize>) {
        // Nobody has memory brought in only to write what it says already.
        let used = self[range].iter().filter(|word| word.load(Relaxed) != 0);
        used.for_each(|word| word.store(0, Relaxed));
    }
}

impl Deref for Words {
    type Target = [AtomicU32];

    #[cfg(not(any(loom, miri)))]
    #[inline]
    fn deref(&self) -> &[AtomicU32] {
        // SAFETY: the mapping is readable, writable, page-aligned, `len` bytes long (a multiple of
        // 4) and lives as long as `self`; any bytes are valid atomics; nothing in this process
        // makes a `&mut` to it, and who else may write to a file's does so like another thread.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.map.len() / 4) }
    }

    #[cfg(any(loom, miri))]
    fn deref(&self) -> &[AtomicU32] {
        &self.map
    }
}

/// Room in a file.
#[cfg(not(any(loom, miri)))]
mod in_file {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::{Errno, retry_on_intr};
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;

    /// Bytes that are written at once where a file system cannot be asked for room.
    const ZEROES: [u8; 16 << 10] = [0; 16 << 10];

    /// Takes room for bytes of the file that read as zero.
    pub(super) fn allocate(file: &File, at: u64, len: u64) -> io::Result<()> {
        match retry_on_intr(|| fallocate(file, FallocateFlags::KEEP_SIZE, at, len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeroes(file, at, len),
            other => Ok(other?),
        }
    }

    /// Takes room for bytes of the file, which stay as they are.
    pub(super) fn secure(file: &File, at: u64, len: u64) -> io::Result<()> {
        match retry_on_intr(|| fallocate(file, FallocateFlags::KEEP_SIZE, at, len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => rewrite(file, at, len),
            other => Ok(other?),
        }
    }

    /// Writes what is there.
    pub(super) fn rewrite(file: &File, mut at: u64, len: u64) -> io::Result<()> {
        let (end, mut bytes) = (at + len, ZEROES);
        while at < end {
            let piece = ZEROES.len().min((end - at) as usize);
            file.read_exact_at(&mut bytes[..piece], at)?;
            file.write_all_at(&bytes[..piece], at)?;
            at += piece as u64;
        }
        Ok(())
    }

    pub(super) fn write_zeroes(file: &File, mut at: u64, len: u64) -> io::Result<()> {
        let end = at + len;
        while at < end {
            let piece = &ZEROES[..ZEROES.len().min((end - at) as usize)];
            file.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Gives the room of bytes of the file back; they read as zero from then on.
    pub(super) fn punch(file: &File, at: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(retry_on_intr(|| fallocate(file, flags, at, len))?)
    }
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn words_of_a_file_are_its_bytes_and_its_room() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.set_len(1 << 20).unwrap();
        let words = Words::of_file(&file, 1 << 16, 1 << 16).unwrap();
        words.commit(0..1 << 16).unwrap();
        let room = || file.metadata().unwrap().blocks() * 512;
        assert!(room() >= 1 << 18, "{}", room());
        words[5].store(7, Relaxed);
        let again = Words::of_file(&file, 1 << 16, 1 << 16).unwrap();
        assert_eq!(again[5].load(Relaxed), 7);
        let before = room();
        words.release(0..1 << 15).unwrap();
        assert_eq!((again[5].load(Relaxed), words.len()), (0, 1 << 16));
        let less = room();
        assert!(less < before, "{less} of {before} bytes");
        // Whoever looks there, or writes by mistake, takes no room in the file.
        words[9].store(7, Relaxed);
        assert_eq!((words[9].load(Relaxed), again[9].load(Relaxed)), (7, 0));
        words.commit(0..1 << 15).unwrap();
        assert_eq!((words[9].load(Relaxed), room()), (0, before));
        words[9].store(8, Relaxed);
        assert_eq!(again[9].load(Relaxed), 8);
    }

    /// As where the file system cannot be asked for room.
    #[test]
    fn what_is_rewritten_is_as_it_was_and_has_room() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 18).unwrap();
        file.write_all_at(b"an item", 100_000).unwrap();
        let before = file.metadata().unwrap().blocks();
        in_file::rewrite(&file, 1 << 15, 3 << 16).unwrap();
        let mut bytes = [1; 9];
        file.read_exact_at(&mut bytes, 99_999).unwrap();
        assert_eq!(&bytes, b"\0an item\0");
        assert!(file.metadata().unwrap().blocks() * 512 >= 3 << 16 && before * 512 < 1 << 16);
    }

    #[test]
    fn what_is_populated_is_resident_and_stays_as_it_is() {
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
        };
        let words = Words::reserve(16 << 20).unwrap();
        words[3 << 20].store(7, Relaxed);
        let before = resident();
        words.populate(1 << 20..9 << 20).unwrap();
        let more = resident() - before;
        // What a sanitizer notes of memory takes memory itself.
        let sanitized = std::env::var_os("RUSTCACHED_TEST_SANITIZED").is_some();
        assert!(more >= 24 << 20 && (more < 40 << 20 || sanitized), "{more} of 32 MiB");
        assert_eq!((words[3 << 20].load(Relaxed), words[8 << 20].load(Relaxed)), (7, 0));
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.set_len(1 << 16).unwrap();
        assert!(Words::of_file(&file, 0, 1 << 14).unwrap().populate(0..1 << 14).is_err());
    }

    #[test]
    fn released_words_read_zero_and_others_stay() {
        let words = Words::reserve(4096).unwrap();
        words[0].store(7, Relaxed);
        words[2048].store(9, Relaxed);
        words.release(1024..3072).unwrap();
        assert_eq!((words[0].load(Relaxed), words[2048].load(Relaxed)), (7, 0));
    }

    /// As under `-k`, also where the system does not know of the advice for it.
    #[test]
    fn locked_words_are_released_and_locked_again() {
        let words = Words::reserve(4096).unwrap();
        let locked = || {
            let status = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let start = format!("{:x}-", words.address(0).addr());
            let map = status.lines().skip_while(|line| !line.starts_with(&start));
            let figure = |name| {
                let row = map.clone().find(|line| line.starts_with(name)).unwrap();
                row.split_ascii_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
            };
            (figure("Rss:"), figure("Locked:"))
        };
        // SAFETY: whether the memory of a mapping of ours is locked changes nothing that is there.
        let lock = unsafe {
            let flags = rustix::mm::MlockFlags::ONFAULT;
            rustix::mm::mlock_with(words.address(0), 4096 * 4, flags)
        };
        lock.unwrap();
        let fill = || words.iter().for_each(|word| word.store(7, Relaxed));
        fill();
        assert_eq!(locked(), (16, 16));
        words.release(0..4096).unwrap();
        assert_eq!((locked(), words[9].load(Relaxed)), ((0, 0), 0));
        fill();
        let drop = || {
            let whole = words.address(0);
            // SAFETY: as in `drop_memory`.
            let dropped = unsafe { libc::madvise(whole, 4096 * 4, libc::MADV_DONTNEED) };
            if dropped == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        assert!(drop().is_err(), "it is locked");
        words.unlocked(words.address(0), 4096 * 4, drop).unwrap();
        assert_eq!((locked(), words[9].load(Relaxed)), ((0, 0), 0));
        fill();
        assert_eq!(locked(), (16, 16));
    }
}
