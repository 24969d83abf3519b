//! Unsent output: bytes of our own, and pinned values sent from their chunks.

use crate::store::{Hit, Pin};
use std::collections::VecDeque;
use std::io::{Error, ErrorKind, IoSlice, Result, Write};

/// What a pin takes in the store's table.
const PIN_ENTRY: usize = 64;
/// Slices handed to one `writev`.
const SLICES_MAX: usize = 64;

/// What is still to be sent, in order: own bytes, between them pinned values. It begins with a
/// cache line.
#[derive(Default)]
#[repr(align(64))]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that are sent already.
    sent: usize,
    /// Pinned values that are not fully sent, each with the offset in `bytes` that it comes before.
    pins: VecDeque<(usize, Pin)>,
    /// Unsent bytes of all pins.
    pinned: usize,
}

/// A place to come back to with [`Outbox::rollback`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub bytes: usize,
    pub pins: usize,
}

/// How far a write got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All is sent; the outbox is empty again.
    Done,
    /// The peer takes no more for now.
    Blocked,
}

impl Outbox {
    /// Unsent bytes, pinned ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent + self.pinned
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.pins.is_empty()
    }

    /// Unsent bytes of pinned values.
    pub fn pinned(&self) -> usize {
        self.pinned
    }

    /// True where a pinned value's memory is needed, so that it can not be sent any further.
    pub fn is_revoked(&self) -> bool {
        self.pins.iter().any(|(_, pin)| pin.is_revoked())
    }

    /// Memory that it holds beside pinned values, used or not.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.pins.capacity() * (size_of::<(usize, Pin)>() + PIN_ENTRY)
    }

    /// Drops everything unsent, keeping the memory of own bytes.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
        self.pinned = 0;
        if !self.pins.is_empty() {
            self.pins.clear();
        }
    }

    /// Own bytes, to append to.
    #[inline]
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends a hit's value: large ones from their chunks, others copied.
    #[inline(always)]
    pub fn value(&mut self, hit: Hit<'_>) {
        match hit.pin() {
            Some(pin) => self.pin(pin),
            None => hit.copy_value(&mut self.bytes),
        }
    }

    /// Appends a hit's value and a line end.
    #[inline(always)]
    pub fn value_line(&mut self, hit: Hit<'_>) {
        self.value(hit);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Sends a pinned value after what is there so far.
    fn pin(&mut self, pin: Pin) {
        if pin.is_empty() {
            return;
        }
        self.pinned += pin.len();
        self.pins.push_back((self.bytes.len(), pin));
    }

    #[inline]
    pub fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), pins: self.pins.len() }
    }

    /// Forgets what was appended since `mark`. Nothing may have been written in between.
    #[inline]
    pub fn rollback(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        while self.pins.len() > mark.pins {
            if let Some((_, pin)) = self.pins.pop_back() {
                self.pinned -= pin.len();
            }
        }
    }

    /// Writes until all is sent or the peer takes no more. Errors are the sink's own; one that
    /// takes nothing without saying why is `WriteZero`.
    #[inline(always)]
    pub fn write_to(&mut self, sink: &mut impl Write) -> Result<Progress> {
        while !self.is_empty() {
            let written = if self.pins.is_empty() {
                sink.write(&self.bytes[self.sent..])
            } else {
                self.write_vectored(sink)
            };
            match written {
                Ok(0) => return Err(Error::from(ErrorKind::WriteZero)),
                Ok(n) => self.advance(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Progress::Blocked),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.clear();
        Ok(Progress::Done)
    }

    /// Moves what is unsent to a fresh outbox that holds no more memory than that needs.
    pub fn take_rest(&mut self) -> Outbox {
        let mut pins = std::mem::take(&mut self.pins);
        pins.shrink_to_fit();
        for (offset, _) in &mut pins {
            *offset -= self.sent;
        }
        let rest =
            Outbox { bytes: self.bytes[self.sent..].to_vec(), sent: 0, pins, pinned: self.pinned };
        self.clear();
        rest
    }

    fn write_vectored(&self, sink: &mut impl Write) -> Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut used = 0;
        for slice in self.unsent().filter(|s| !s.is_empty()).take(SLICES_MAX) {
            slices[used] = IoSlice::new(slice);
            used += 1;
        }
        sink.write_vectored(&slices[..used])
    }

    /// Unsent bytes in order: for each pin the own bytes before it, then its own; then the rest.
    fn unsent(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(self.sent).chain(self.pins.iter().map(|&(at, _)| at));
        let pins = self.pins.iter().zip(starts).flat_map(|((at, pin), from)| {
            std::iter::once(&self.bytes[from..*at]).chain(pin.slices())
        });
        let tail = self.pins.back().map_or(self.sent, |&(at, _)| at);
        pins.chain(std::iter::once(&self.bytes[tail..]))
    }

    /// Notes that the first `n` unsent bytes are sent.
    #[inline]
    fn advance(&mut self, n: usize) {
        let own = if self.pins.is_empty() { n } else { self.advance_over_pins(n) };
        self.sent += own;
    }

    /// The same where some are pinned; returns what is left of `n` behind the last pin.
    fn advance_over_pins(&mut self, mut n: usize) -> usize {
        while let Some((at, pin)) = self.pins.front_mut() {
            let own = n.min(*at - self.sent);
            self.sent += own;
            n -= own;
            if self.sent < *at {
                return 0;
            }
            let taken = n.min(pin.unsent());
            self.pinned -= taken;
            n -= taken;
            if taken < pin.unsent() {
                pin.advance(taken);
                return 0;
            }
            self.pins.pop_front();
        }
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time and blocks after each so many calls.
    struct Trickle {
        taken: Vec<u8>,
        at_once: usize,
        calls: usize,
        blocks_every: usize,
    }

    impl Trickle {
        fn new(at_once: usize, blocks_every: usize) -> Trickle {
            Trickle { taken: Vec::new(), at_once, calls: 0, blocks_every }
        }
    }

    impl Write for Trickle {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }
        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Result<usize> {
            assert!(slices.len() <= SLICES_MAX);
            assert!(slices.iter().all(|slice| !slice.is_empty()));
            self.calls += 1;
            if self.calls.is_multiple_of(self.blocks_every) {
                return Err(Error::from(ErrorKind::WouldBlock));
            }
            let before = self.taken.len();
            let bytes = slices.iter().flat_map(|slice| slice.iter());
            self.taken.extend(bytes.take(self.at_once));
            Ok(self.taken.len() - before)
        }
        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    /// Writes until done; the outbox moves to a fresh one whenever it blocks.
    fn drain(mut outbox: Outbox, sink: &mut Trickle) {
        let mut left = outbox.len();
        while outbox.write_to(sink).expect("the sink never fails") == Progress::Blocked {
            assert!(!outbox.is_empty() && outbox.len() <= left);
            left = outbox.len();
            outbox = outbox.take_rest();
            assert_eq!(outbox.len(), left);
        }
        assert!(outbox.is_empty());
        assert_eq!(outbox.len(), 0);
    }

    fn own(text: &str) -> Outbox {
        let mut outbox = Outbox::default();
        outbox.bytes().extend_from_slice(text.as_bytes());
        outbox
    }

    #[test]
    fn own_bytes_survive_any_partial_write() {
        let text = "VALUE a 0 1\r\nx\r\nEND\r\n";
        for at_once in 1..=text.len() + 1 {
            for blocks_every in [2, 3, 1000] {
                let mut sink = Trickle::new(at_once, blocks_every);
                drain(own(text), &mut sink);
                assert_eq!(sink.taken, text.as_bytes());
            }
        }
    }

    #[test]
    fn a_write_that_takes_all_is_the_only_one() {
        let (mut outbox, mut sink) = (own("END\r\n"), Trickle::new(100, 1000));
        assert_eq!(outbox.write_to(&mut sink).expect("it writes"), Progress::Done);
        assert_eq!(sink.calls, 1);
        assert!(outbox.capacity() >= 5, "its memory stays for the next answer");
        assert_eq!(outbox.write_to(&mut sink).expect("nothing to do"), Progress::Done);
        assert_eq!(sink.calls, 1);
    }

    #[test]
    fn rollback_forgets_what_came_after_the_mark() {
        let mut outbox = own("kept");
        let mark = outbox.mark();
        outbox.bytes().extend_from_slice(b"gone");
        outbox.rollback(mark);
        assert_eq!((outbox.len(), &outbox.bytes()[..]), (4, &b"kept"[..]));
    }

    #[test]
    fn the_rest_holds_no_more_memory_than_it_needs() {
        let mut outbox = own(&"x".repeat(1000));
        let mut sink = Trickle::new(990, 2);
        assert_eq!(outbox.write_to(&mut sink).expect("it blocks"), Progress::Blocked);
        let rest = outbox.take_rest();
        assert_eq!((rest.len(), rest.capacity()), (10, 10));
        assert!(outbox.is_empty() && outbox.capacity() >= 1000);
    }

    #[test]
    fn a_sink_that_takes_nothing_is_an_error() {
        let error = own("x").write_to(&mut Trickle::new(0, 1000)).expect_err("it takes nothing");
        assert_eq!(error.kind(), ErrorKind::WriteZero);
    }
}
