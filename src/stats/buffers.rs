//! What is held for clients beside the cache: parts of requests, answers that wait to be taken,
//! watchers' lines, answers for operators in the making. All of it shares one limit, of which a
//! quarter is kept for those that hold little, lest a few that hold much shut out everybody.

use std::mem::replace;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// The bytes held, and what they may come to.
#[derive(Debug)]
pub struct Buffers {
    bytes: AtomicI64,
    /// Connections that hold any.
    holders: AtomicI64,
    /// What all that is not small may come to, beside what is.
    max: u64,
    /// Bytes that each connection may hold whatever the others do.
    small: u64,
}

/// One connection's part, as it was last counted.
#[derive(Debug, Default)]
pub struct Held(u32);

impl Held {
    #[inline]
    pub fn is_nothing(&self) -> bool {
        self.0 == 0
    }
}

impl Buffers {
    /// So many bytes for so many connections.
    pub fn new(max: u64, connections: u32) -> Buffers {
        let small = max / 4 / u64::from(connections.max(1));
        Buffers { bytes: AtomicI64::new(0), holders: AtomicI64::new(0), max: max - max / 4, small }
    }

    /// Counts a connection's part anew; true where it has grown.
    pub fn count(&self, held: &mut Held, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes == held.0 {
            return false;
        }
        let before = replace(&mut held.0, bytes);
        self.bytes.fetch_add(i64::from(bytes) - i64::from(before), Relaxed);
        self.holders.fetch_add(i64::from(bytes > 0) - i64::from(before > 0), Relaxed);
        bytes > before
    }

    /// Bytes that may still be held.
    pub fn room(&self) -> u64 {
        self.max.saturating_sub(self.bytes())
    }

    /// True where a connection may hold `more` bytes beside those that were counted.
    pub fn allows(&self, held: &Held, more: usize) -> bool {
        u64::from(held.0) + more as u64 <= self.small || self.has(more)
    }

    /// True where `more` bytes may be held, and all that are held now are within the limit.
    pub fn has(&self, more: usize) -> bool {
        self.bytes() + more as u64 <= self.max
    }

    /// Counts `bytes` while `make` runs; `None`, and it does not, where there is no room for them.
    pub fn lend<T>(&self, bytes: u64, make: impl FnOnce() -> T) -> Option<T> {
        let lent = bytes as i64;
        let before = self.bytes.fetch_add(lent, Relaxed);
        let made = (before.max(0) as u64 + bytes <= self.max).then(make);
        self.bytes.fetch_sub(lent, Relaxed);
        made
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed).max(0) as u64
    }

    pub fn holders(&self) -> u64 {
        self.holders.load(Relaxed).max(0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_share_one_limit() {
        let buffers = Buffers::new(4 << 18, 1 << 20);
        let (mut one, mut two) = (Held::default(), Held::default());
        assert!(buffers.count(&mut one, 1 << 18) && !buffers.count(&mut one, 1 << 18));
        assert!(buffers.has(1 << 19) && !buffers.has((1 << 19) + 1));
        assert!(buffers.count(&mut two, 1 << 18));
        assert_eq!((buffers.bytes(), buffers.holders(), buffers.room()), (2 << 18, 2, 1 << 18));
        assert!(!buffers.count(&mut one, 0), "less is not more");
        assert_eq!((buffers.bytes(), buffers.holders()), (1 << 18, 1));
        assert!(buffers.count(&mut two, 2 << 20) && !buffers.has(0), "counted all the same");
        assert_eq!(buffers.room(), 0);
    }

    #[test]
    fn who_holds_little_is_not_shut_out() {
        let buffers = Buffers::new(4000, 10);
        let (mut hog, mut other) = (Held::default(), Held::default());
        assert!(buffers.count(&mut hog, 3000) && buffers.allows(&hog, 0));
        assert!(buffers.count(&mut other, 60) && !buffers.allows(&hog, 0));
        assert!(buffers.allows(&other, 40) && !buffers.allows(&other, 41));
    }

    #[test]
    fn what_is_lent_counts_for_as_long() {
        let buffers = Buffers::new(133, 100);
        let outer = buffers.lend(60, || (buffers.bytes(), buffers.lend(41, || ())));
        assert_eq!(outer, Some((60, None)));
        assert_eq!((buffers.bytes(), buffers.lend(100, || ())), (0, Some(())));
    }
}
