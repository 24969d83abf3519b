//! Bytes in a world of atomic words: copied with relaxed loads and stores, so that a reader and a
//! writer may meet without undefined behaviour, or seen as a slice where nobody can be writing.

#[cfg(not(any(loom, miri)))]
use nix::libc::iovec;
use slab::sync::AtomicU32;
use slab::sync::Ordering::Relaxed;

#[cfg(target_endian = "big")]
compile_error!("the arena's words are read as little-endian bytes");

/// True where `bytes` stand in `words` from the first on.
#[inline]
pub(crate) fn equal(words: &[AtomicU32], bytes: &[u8]) -> bool {
    let (whole, rest) = bytes.as_chunks::<4>();
    let Some((head, tail)) = words.split_at_checked(whole.len()) else { return false };
    let ((head, last), (whole, single)) = (head.as_chunks::<4>(), whole.as_chunks::<4>());
    let differs = |word: &AtomicU32, four: &[u8; 4]| word.load(Relaxed) ^ u32::from_le_bytes(*four);
    // By fours, for fewer tests.
    for (words, bytes) in head.iter().zip(whole) {
        if words.iter().zip(bytes).fold(0, |all, (word, four)| all | differs(word, four)) != 0 {
            return false;
        }
    }
    if last.iter().zip(single).any(|(word, four)| differs(word, four) != 0) {
        return false;
    }
    if rest.is_empty() {
        return true;
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let mask = (1 << (rest.len() * 8)) - 1;
    tail.first().is_some_and(|word| word.load(Relaxed) & mask == u32::from_le_bytes(last))
}

/// Appends `len` bytes that start `offset` bytes into `words`; what they are is up to whoever may
/// be writing, and for the caller to validate afterwards.
#[inline]
pub(crate) fn append(words: &[AtomicU32], offset: usize, len: usize, out: &mut Vec<u8>) {
    assert!(offset + len <= words.len() * 4);
    // Whole words may be written, so up to 7 bytes more than asked for.
    out.reserve(len + 8);
    let start = out.len();
    // SAFETY: `start` is within the allocation.
    let to = unsafe { out.as_mut_ptr().add(start) };
    let from = words.as_ptr().cast::<u8>().wrapping_add(offset);
    // SAFETY: so many bytes are in the words from there on, and were reserved.
    let copied = unsafe { copy_blocks(from, to, len) };
    if !copied && len > 0 {
        let words = &words[offset / 4..(offset + len).div_ceil(4)];
        // SAFETY: the words have at most seven bytes more than were asked for.
        unsafe { copy_words(words, offset % 4, to) };
    }
    // SAFETY: so many bytes from `start` were written, and lie within the capacity.
    unsafe { out.set_len(start + len) };
}

/// Appends all `parts`, with one look at whether there is room.
#[inline(always)]
pub(crate) fn append_all<const N: usize>(out: &mut Vec<u8>, parts: [&[u8]; N]) {
    let len = parts.iter().map(|part| part.len()).sum();
    out.reserve(len);
    let mut at = out.len();
    for part in parts {
        // SAFETY: the parts together are as long as what was reserved.
        let to = unsafe { out.as_mut_ptr().add(at) };
        // SAFETY: the same; they do not overlap what the caller alone may write to.
        unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len()) };
        at += part.len();
    }
    // SAFETY: so far it was written.
    unsafe { out.set_len(at) };
}

/// Copies the bytes of `words` but the first `skip`, at most three.
///
/// # Safety
/// There is room for all of them from `at` on, and for four bytes in any case.
#[inline(never)]
unsafe fn copy_words(words: &[AtomicU32], skip: usize, mut at: *mut u8) {
    let first = words[0].load(Relaxed) >> (skip * 8);
    // SAFETY: there is room for four bytes; the pointer may be unaligned, as the write allows.
    unsafe { at.cast::<u32>().write_unaligned(first) };
    at = at.wrapping_add(4 - skip);
    for word in &words[1..] {
        // SAFETY: so many bytes lie before it in the words, and there is room for this one's.
        unsafe { at.cast::<u32>().write_unaligned(word.load(Relaxed)) };
        at = at.wrapping_add(4);
    }
}

/// Copies `len` bytes by blocks of 16, some of the last ones twice; false, and nothing is copied,
/// where they are fewer, or not on this processor. It does what relaxed loads and stores of each
/// byte would do, which the compiler would not put together: so somebody else may be reading what
/// is written, or writing what is read. Who has to see each access (Miri, loom) does not see these.
///
/// # Safety
/// `from` and `to` are so many bytes, which may be read and written as atomics may be, and do not
/// overlap.
#[inline(always)]
unsafe fn copy_blocks(from: *const u8, to: *mut u8, len: usize) -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri), not(loom)))]
    if len >= 16 {
        // SAFETY: what is read and written is what the caller vouches for: blocks that start below
        // `len - 16`, and the one that starts there.
        unsafe {
            std::arch::asm!(
                "test {last}, {last}",
                "jz 3f",
                "2:",
                "movups {block}, [{from} + {at}]",
                "movups [{to} + {at}], {block}",
                "add {at}, 16",
                "cmp {at}, {last}",
                "jb 2b",
                "3:",
                "movups {block}, [{from} + {last}]",
                "movups [{to} + {last}], {block}",
                from = in(reg) from,
                to = in(reg) to,
                last = in(reg) len - 16,
                at = inout(reg) 0_usize => _,
                block = out(xmm_reg) _,
                options(nostack),
            );
        }
        return true;
    }
    let _ = (from, to, len);
    false
}

/// Writes `bytes` from `offset` bytes into `words`. The caller owns them; neighbours in the first
/// and last word are kept.
#[inline]
pub(crate) fn store(words: &[AtomicU32], offset: usize, bytes: &[u8]) {
    assert!(offset + bytes.len() <= words.len() * 4);
    let to = words.as_ptr().cast::<u8>().cast_mut().wrapping_add(offset);
    // SAFETY: the words, which are atomics, hold all the bytes from there on.
    if !unsafe { copy_blocks(bytes.as_ptr(), to, bytes.len()) } {
        store_words(words, offset, bytes);
    }
}

/// The same word by word.
#[inline(never)]
fn store_words(words: &[AtomicU32], offset: usize, bytes: &[u8]) {
    let mut bytes = bytes;
    let mut at = offset / 4;
    let skip = offset % 4;
    if skip > 0 {
        let (first, rest) = bytes.split_at(bytes.len().min(4 - skip));
        merge(&words[at], skip, first);
        bytes = rest;
        at += 1;
    }
    let (whole, last) = bytes.as_chunks::<4>();
    let words = &words[at.min(words.len())..];
    for (word, four) in words.iter().zip(whole) {
        word.store(u32::from_le_bytes(*four), Relaxed);
    }
    if !last.is_empty() {
        merge(&words[whole.len()], 0, last);
    }
}

/// Replaces up to four bytes of a word, from byte `skip` on.
#[inline]
fn merge(word: &AtomicU32, skip: usize, bytes: &[u8]) {
    let mut all = word.load(Relaxed).to_le_bytes();
    all[skip..skip + bytes.len()].copy_from_slice(bytes);
    word.store(u32::from_le_bytes(all), Relaxed);
}

/// The bytes themselves.
///
/// # Safety
/// Nobody writes to any word of the range while the slice lives.
pub(crate) unsafe fn slice(words: &[AtomicU32], offset: usize, len: usize) -> &[u8] {
    assert!(size_of::<AtomicU32>() == 4, "not under the model checker");
    let words = &words[offset / 4..(offset + len).div_ceil(4)];
    let start = words.as_ptr().cast::<u8>().wrapping_add(offset % 4);
    // SAFETY: the words above cover the range, and the caller vouches that nobody writes to them,
    // so plain reads cannot race.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// A place of no bytes.
#[cfg(not(any(loom, miri)))]
pub(crate) const NO_PLACE: iovec = iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// Where `len` bytes lie that start `offset` bytes into `words`, for the kernel to write to.
#[cfg(not(any(loom, miri)))]
pub(crate) fn place(words: &[AtomicU32], offset: usize, len: usize) -> iovec {
    assert!(offset + len <= words.len() * 4);
    let start = words.as_ptr().cast::<u8>().cast_mut().wrapping_add(offset);
    iovec { iov_base: start.cast(), iov_len: len }
}

/// The place of bytes that are the caller's own.
#[cfg(not(any(loom, miri)))]
pub(crate) fn place_of(bytes: &mut [u8]) -> iovec {
    iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

/// Starts loading the cache line of `words[at]`, if there is one.
#[inline]
pub(crate) fn prefetch(words: &[AtomicU32], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(word) = words.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program can see, and the address is valid.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(word).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (words, at);
}

/// The same for who is going to write there, so that no other processor keeps a copy that it would
/// have to be asked for later.
#[inline]
pub(crate) fn prefetch_to_write(words: &[AtomicU32], at: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if let Some(word) = words.get(at) {
        let word = std::ptr::from_ref(word);
        // SAFETY: it reads and writes nothing that the program can see, the address is valid, and
        // to a 64-bit processor that does not know it, it is no operation.
        unsafe { std::arch::asm!("prefetchw [{}]", in(reg) word, options(nostack, readonly)) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    prefetch(words, at);
}

/// A bit for each byte of `block` that is `byte`, the lowest for the lowest.
#[inline(always)]
pub(crate) fn equal_to(byte: u8, block: u128) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
        // SAFETY: every such processor has SSE2, which is all that this takes.
        let block = unsafe { _mm_set_epi64x((block >> 64) as i64, block as i64) };
        // SAFETY: as above.
        let byte = unsafe { _mm_set1_epi8(byte as i8) };
        // SAFETY: as above.
        let equal = unsafe { _mm_cmpeq_epi8(block, byte) };
        // SAFETY: as above.
        unsafe { _mm_movemask_epi8(equal) as u32 }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let bytes = block.to_le_bytes().into_iter().enumerate();
        bytes.fold(0, |bits, (n, b)| bits | u32::from(b == byte) << n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_bytes_come_back_from_any_offset() {
        let bytes: Vec<u8> = (1..=60).collect();
        for offset in 0..9 {
            for len in 0..=bytes.len() {
                let words: Vec<AtomicU32> =
                    (0..20).map(|_| AtomicU32::new(u32::from_le_bytes([0xEE; 4]))).collect();
                store(&words, offset, &bytes[..len]);
                let mut all = Vec::new();
                append(&words, 0, 80, &mut all);
                assert_eq!(&all[offset..offset + len], &bytes[..len]);
                assert!(all[..offset].iter().chain(&all[offset + len..]).all(|b| *b == 0xEE));
                let mut part = b"x".to_vec();
                append(&words, offset, len, &mut part);
                assert_eq!(&part[1..], &bytes[..len]);
                // SAFETY: this test is the only user.
                assert_eq!(unsafe { slice(&words, offset, len) }, &bytes[..len]);
            }
        }
    }

    /// Miri and ThreadSanitizer say whether they may.
    #[test]
    fn a_reader_and_a_writer_meet() {
        let words: Vec<AtomicU32> = (0..20).map(|_| AtomicU32::new(0)).collect();
        let mut read = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| store(&words, 3, &[7; 60]));
            append(&words, 3, 60, &mut read);
        });
        assert!(read.iter().all(|byte| [0, 7].contains(byte)) && read.len() == 60);
        assert!(equal(&words[1..], &[7; 59]));
    }

    #[test]
    fn equal_bytes_are_told_by_their_places() {
        let block = 7 | 7 << 24 | 7 << 72 | 7 << 120;
        assert_eq!(equal_to(7, block), 1 | 1 << 3 | 1 << 9 | 1 << 15);
        assert_eq!((equal_to(0xFF, u128::MAX), equal_to(0, u128::MAX)), (0xFFFF, 0));
    }

    #[test]
    fn equal_looks_at_the_bytes_only() {
        let words: Vec<AtomicU32> = (0..4).map(|_| AtomicU32::new(0)).collect();
        store(&words, 0, b"abcdefghij");
        assert!(equal(&words, b"abcdefghij") && equal(&words, b"abcdefgh") && equal(&words, b""));
        assert!(!equal(&words, b"abcdefghiX") && !equal(&words, b"abcdefghij\0\0\0\0\0\0\0"));
    }
}
