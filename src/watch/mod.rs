//! Watchers: clients that are told what happens, line by line.
//!
//! What happens is noted by the thread on which it happens, in a ring of its own ([`Log`]); one
//! more thread ([`Logger`]) puts the notes of all rings in order and in memcached's words, and
//! adds each line to the buffers of the watchers that want it ([`Watcher`]). Nobody waits for
//! anybody: a note that finds its ring full is dropped and counted, a line that finds a watcher's
//! buffer full is skipped, counted, and the watcher told how many.
//!
//! While nobody watches, [`Log::attend`] is one load, and each [`Log::wants`] a look at the
//! thread's own memory.

mod event;
mod line;
mod log;
mod logger;
mod watcher;

pub use event::{CloseReason, Deleter, Event, Got, Stored, Storer, Streams, Transport};
pub use log::Log;
pub use logger::Logger;
pub use watcher::{Refused, Wake, Watcher};

use crossbeam::utils::CachePadded;
use log::Feed;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use watcher::Tap;

/// What the threads that note and the one that tells share.
pub struct Watch {
    /// All that some watcher wants. On a line of its own: every worker reads it.
    wanted: CachePadded<AtomicU16>,
    /// The number of the last event. Only written while somebody watches.
    gid: CachePadded<AtomicU64>,
    /// Bytes of a thread's ring, of a watcher's buffer.
    ring_bytes: usize,
    buffer_bytes: usize,
    /// The rings' ends from which notes are taken, by the logger alone.
    feeds: Mutex<Vec<Feed>>,
    taps: Mutex<Vec<Arc<Tap>>>,
    /// The logger, once there is one, and whether it waits for the next event.
    logger: OnceLock<Thread>,
    asleep: AtomicBool,
    skipped: AtomicU64,
    sent: AtomicU64,
}

/// What `stats` shows of watchers beside what threads count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// `log_watcher_skipped`
    pub skipped: u64,
    /// `log_watcher_sent`
    pub sent: u64,
    /// `log_watchers`
    pub watchers: u64,
}

impl Watch {
    /// `ring_bytes` and `buffer_bytes` as `worker_logbuf_size` and `watcher_logbuf_size` say.
    pub fn new(ring_bytes: u32, buffer_bytes: u32) -> Arc<Watch> {
        Arc::new(Watch {
            wanted: CachePadded::default(),
            gid: CachePadded::default(),
            ring_bytes: ring_bytes as usize,
            buffer_bytes: buffer_bytes as usize,
            feeds: Mutex::default(),
            taps: Mutex::default(),
            logger: OnceLock::new(),
            asleep: AtomicBool::new(false),
            skipped: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        })
    }

    pub fn figures(&self) -> Figures {
        Figures {
            skipped: self.skipped.load(Relaxed),
            sent: self.sent.load(Relaxed),
            watchers: self.taps.lock().len() as u64,
        }
    }

    /// `stats reset`: what was counted starts again from 0.
    pub fn reset(&self) {
        self.skipped.store(0, Relaxed);
        self.sent.store(0, Relaxed);
    }

    fn next_gid(&self) -> u64 {
        self.gid.fetch_add(1, Relaxed) + 1
    }

    fn rouse_logger(&self) {
        if let Some(logger) = self.logger.get() {
            logger.unpark();
        }
    }
}
