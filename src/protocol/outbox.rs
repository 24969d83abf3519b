//! Unsent output: bytes of our own, and pinned values sent from their chunks.

use crate::store::{Hit, Pin};
use std::collections::VecDeque;
use std::io::{Error, ErrorKind, IoSlice, Result, Write};

/// Slices handed to one `writev`.
const SLICES_MAX: usize = 64;

/// What is still to be sent, in order: own bytes, between them pinned values.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that are sent already.
    sent: usize,
    /// Pinned values that are not fully sent, each with the offset in `bytes` that it comes before.
    pins: VecDeque<(usize, Pin)>,
    /// Bytes of the first pin that are sent already.
    pin_sent: usize,
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
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent + self.pinned
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.pins.is_empty()
    }

    /// Unsent bytes of pinned values.
    pub fn pinned(&self) -> usize {
        self.pinned
    }

    /// Memory that own bytes hold, used or not.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Drops everything unsent, keeping the memory of own bytes.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.pins.clear();
        self.sent = 0;
        self.pin_sent = 0;
        self.pinned = 0;
    }

    /// Own bytes, to append to.
    #[inline]
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends a hit's value and its line end: large ones from their chunks, others copied.
    #[inline]
    pub fn value(&mut self, hit: &Hit<'_>) {
        match hit.pin() {
            Some(pin) => self.pin(pin),
            None => hit.copy_value(&mut self.bytes),
        }
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Sends a pinned value after what is there so far.
    fn pin(&mut self, pin: Pin) {
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
        let rest = Outbox {
            bytes: self.bytes[self.sent..].to_vec(),
            sent: 0,
            pins,
            pin_sent: self.pin_sent,
            pinned: self.pinned,
        };
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
        let skips = std::iter::once(self.pin_sent).chain(std::iter::repeat(0));
        let pins = self.pins.iter().zip(starts).zip(skips).flat_map(|(((at, pin), from), skip)| {
            std::iter::once(&self.bytes[from..*at]).chain(skip_bytes(pin.slices(), skip))
        });
        let tail = self.pins.back().map_or(self.sent, |&(at, _)| at);
        pins.chain(std::iter::once(&self.bytes[tail..]))
    }

    /// Notes that the first `n` unsent bytes are sent.
    fn advance(&mut self, mut n: usize) {
        while let Some((at, pin)) = self.pins.front() {
            let own = n.min(at - self.sent);
            self.sent += own;
            n -= own;
            if self.sent < *at {
                return;
            }
            let left = pin.len() - self.pin_sent;
            let taken = n.min(left);
            self.pinned -= taken;
            n -= taken;
            if taken < left {
                self.pin_sent += taken;
                return;
            }
            self.pin_sent = 0;
            self.pins.pop_front();
        }
        self.sent += n;
    }
}

/// The slices without their first `skip` bytes.
fn skip_bytes<'a>(
    slices: impl Iterator<Item = &'a [u8]>,
    mut skip: usize,
) -> impl Iterator<Item = &'a [u8]> {
    slices.map(move |slice| {
        let (skipped, rest) = slice.split_at(skip.min(slice.len()));
        skip -= skipped.len();
        rest
    })
}
