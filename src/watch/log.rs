//! One thread's end: what happens on it goes into its ring, or is dropped where that is full.

use super::Watch;
use super::event::{Event, Got, Streams};
use crate::stats::Counters;
use rtrb::{Consumer, Producer, RingBuffer};
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::UNIX_EPOCH;

/// Bytes of a key in one place of a ring.
const PIECE: usize = 64;
/// Longest key or text, bytes: keys have at most 250, and memcached cuts texts at 512.
const TEXT_MAX: usize = 512;
/// The fewest places that a ring has: the longest note fits.
const PLACES_MIN: usize = 2 + TEXT_MAX / PIECE;

/// What a thread notes by. It is that thread's alone.
pub struct Log {
    watch: Arc<Watch>,
    counters: Arc<Counters>,
    /// What was wanted when [`Log::attend`] last looked, and whose work has been done since.
    wanted: Cell<u16>,
    client: Cell<i32>,
    ring: RefCell<Producer<Place>>,
}

/// A place in a ring. A note is one [`Place::Head`] and as many pieces as its text needs.
enum Place {
    Head(Head),
    Piece([u8; PIECE]),
}

#[derive(Clone, Copy)]
pub(super) struct Head {
    pub gid: u64,
    /// Microseconds of unix time.
    pub at: u64,
    pub event: Event,
    text_len: u16,
}

/// The other end of a ring.
pub(super) struct Feed {
    ring: Consumer<Place>,
    /// Places that were filled when the present sweep began.
    due: usize,
}

impl Log {
    /// Looks what is wanted, before some work is done for `client`, a file number.
    #[inline]
    pub fn attend(&self, client: i32) {
        self.wanted.set(self.watch.wanted.load(Relaxed));
        self.client.set(client);
    }

    /// True where somebody watches the stream.
    #[inline]
    pub fn wants(&self, stream: Streams) -> bool {
        self.wanted.get() & stream.0 != 0
    }

    /// The file number that [`Log::attend`] was last given.
    pub fn client(&self) -> i32 {
        self.client.get()
    }

    /// A key was looked for: memcached's `item_get`, whatever the command. `of`: the class of what
    /// was found, and its value's size.
    #[inline]
    pub fn got(&self, key: &[u8], got: Got, of: impl FnOnce() -> (u32, u32)) {
        if self.wants(Streams::FETCHERS) {
            let (class, size) = of();
            self.note(Event::ItemGet { got, class, client: self.client(), size }, key);
        }
    }

    /// As [`Log::got`], where there was nothing.
    #[inline]
    pub fn missed(&self, key: &[u8], why: Got) {
        self.got(key, why, || (0, 0));
    }

    /// What `client` and the server said by TLS cannot go on: memcached's `conntlserr`.
    #[cold]
    pub fn tls_failed(&self, client: i32, reason: &dyn Display) {
        self.attend(client);
        if self.wants(Streams::CONNEVENTS) {
            let line = format!("type=conntlserr fd={client} msg={reason}");
            let line = line.replace(char::is_control, " ");
            self.note(Event::Text(Streams::CONNEVENTS), line.as_bytes());
        }
    }

    /// Notes an event that [`Log::wants`] was asked about. `text`: the key. Never waits.
    #[cold]
    #[inline(never)]
    pub fn note(&self, event: Event, text: &[u8]) {
        let text = &text[..text.len().min(TEXT_MAX)];
        let mut ring = self.ring.borrow_mut();
        let Ok(places) = ring.write_chunk_uninit(1 + text.len().div_ceil(PIECE)) else {
            self.counters.thread.log_dropped.bump();
            return;
        };
        let at = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros() as u64);
        let gid = self.watch.next_gid();
        let head = Head { gid, at, event, text_len: text.len() as u16 };
        let pieces = text.chunks(PIECE).map(|bytes| {
            let mut piece = [0; PIECE];
            piece[..bytes.len()].copy_from_slice(bytes);
            Place::Piece(piece)
        });
        places.fill_from_iter(std::iter::once(Place::Head(head)).chain(pieces));
        self.counters.thread.log_written.bump();
        let half_full = ring.slots() * 2 < ring.buffer().capacity();
        self.watch.noted(half_full);
    }
}

impl Watch {
    /// A log for one more thread, which counts in `counters`.
    pub fn log(self: &Arc<Self>, counters: Arc<Counters>) -> Log {
        let places = (self.ring_bytes / size_of::<Place>()).max(PLACES_MIN);
        let (producer, consumer) = RingBuffer::new(places);
        let mut feeds = self.feeds.lock();
        feeds.retain(|feed| !feed.is_over());
        feeds.push(Feed { ring: consumer, due: 0 });
        Log {
            watch: self.clone(),
            counters,
            wanted: Cell::new(0),
            client: Cell::new(0),
            ring: RefCell::new(producer),
        }
    }
}

impl Feed {
    /// A sweep begins: it takes what is there by now, so that it comes to an end.
    pub fn begin(&mut self) {
        self.due = self.ring.slots();
    }

    /// The number of the next note.
    pub fn next_gid(&self) -> Option<u64> {
        match self.ring.peek() {
            Ok(Place::Head(head)) if self.due > 0 => Some(head.gid),
            _ => None,
        }
    }

    /// Takes the next note, its text into `text`.
    pub fn take(&mut self, text: &mut Vec<u8>) -> Option<Head> {
        text.clear();
        let Ok(Place::Head(head)) = self.ring.pop() else { return None };
        let len = usize::from(head.text_len);
        self.due = self.due.saturating_sub(1 + len.div_ceil(PIECE));
        while text.len() < len {
            let Ok(Place::Piece(piece)) = self.ring.pop() else { return None };
            let bytes = PIECE.min(len - text.len());
            text.extend_from_slice(&piece[..bytes]);
        }
        Some(head)
    }

    /// True where nothing is left and nothing can come.
    fn is_over(&self) -> bool {
        self.ring.is_abandoned() && self.ring.is_empty()
    }
}
