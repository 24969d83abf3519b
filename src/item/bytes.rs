//! Bytes in a world of atomic words: copied with relaxed loads and stores, so that a reader and a
//! writer may meet without undefined behaviour, or seen as a slice where nobody can be writing.

use slab::sync::AtomicU32;
use slab::sync::Ordering::Relaxed;

#[cfg(target_endian = "big")]
compile_error!("the arena's words are read as little-endian bytes");

/// True where `bytes` stand in `words` from the first on.
#[inline]
pub(crate) fn equal(words: &[AtomicU32], bytes: &[u8]) -> bool {
    let (whole, rest) = bytes.as_chunks::<4>();
    let Some((head, tail)) = words.split_at_checked(whole.len()) else { return false };
    for (word, four) in head.iter().zip(whole) {
        if word.load(Relaxed) != u32::from_le_bytes(*four) {
            return false;
        }
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
    if len == 0 {
        return;
    }
    let words = &words[offset / 4..(offset + len).div_ceil(4)];
    // Whole words are written, so up to 7 bytes more than asked for.
    out.reserve(len + 8);
    let skip = offset % 4;
    let start = out.len();
    // SAFETY: `start` is within the allocation, and the reservation above leaves room for every
    // word written below: 4 * words.len() <= skip + len + 3.
    let mut at = unsafe { out.as_mut_ptr().add(start) };
    let first = words[0].load(Relaxed) >> (skip * 8);
    // SAFETY: room for 8 bytes was reserved; the pointer may be unaligned, as the write allows.
    unsafe { at.cast::<u32>().write_unaligned(first) };
    // SAFETY: still within the reservation (at most 4 bytes on).
    at = unsafe { at.add(4 - skip) };
    // By fours, for fewer tests: the copy is most of what a small get does.
    let (fours, rest) = words[1..].as_chunks::<4>();
    for four in fours {
        let all = four.each_ref().map(|word| word.load(Relaxed));
        // SAFETY: as above: each word starts no further than `len` bytes from the start.
        unsafe { at.cast::<[u32; 4]>().write_unaligned(all) };
        // SAFETY: as above.
        at = unsafe { at.add(16) };
    }
    for word in rest {
        // SAFETY: as above.
        unsafe { at.cast::<u32>().write_unaligned(word.load(Relaxed)) };
        // SAFETY: as above.
        at = unsafe { at.add(4) };
    }
    // SAFETY: `len` bytes from `start` were written by the loop and lie within the capacity.
    unsafe { out.set_len(start + len) };
}

/// Writes `bytes` from `offset` bytes into `words`. The caller owns them; neighbours in the first
/// and last word are kept.
#[inline]
pub(crate) fn store(words: &[AtomicU32], offset: usize, bytes: &[u8]) {
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
    let (fours, rest) = words[..whole.len()].as_chunks::<4>();
    let (by_fours, singly) = whole.as_chunks::<4>();
    for (words, bytes) in fours.iter().zip(by_fours) {
        for (word, four) in words.iter().zip(bytes) {
            word.store(u32::from_le_bytes(*four), Relaxed);
        }
    }
    for (word, four) in rest.iter().zip(singly) {
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

/// The bytes themselves, to be written.
///
/// # Safety
/// The caller alone reads or writes the range while the slice lives, but for readers whose result
/// is thrown away (`Store::get` validates what it read).
#[allow(clippy::mut_from_ref)]
pub(crate) unsafe fn slice_mut(words: &[AtomicU32], offset: usize, len: usize) -> &mut [u8] {
    assert!(size_of::<AtomicU32>() == 4, "not under the model checker");
    let words = &words[offset / 4..(offset + len).div_ceil(4)];
    let start = words.as_ptr().cast_mut().cast::<u8>().wrapping_add(offset % 4);
    // SAFETY: atomics may be mutated through a shared reference; the words cover the range; the
    // caller vouches that it alone uses them.
    unsafe { std::slice::from_raw_parts_mut(start, len) }
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
    fn equal_looks_at_the_bytes_only() {
        let words: Vec<AtomicU32> = (0..4).map(|_| AtomicU32::new(0)).collect();
        store(&words, 0, b"abcdefghij");
        assert!(equal(&words, b"abcdefghij") && equal(&words, b"abcdefgh") && equal(&words, b""));
        assert!(!equal(&words, b"abcdefghiX") && !equal(&words, b"abcdefghij\0\0\0\0\0\0\0"));
    }
}
