//! What other threads tell those that serve connections.

use crate::connection::Arrival;
use log::error;
use mio::{Registry, Token, Waker};
use parking_lot::Mutex;
use std::io::Result;
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

/// The waker's token; connections have those of their slots.
pub(super) const WAKE: Token = Token(usize::MAX);

/// What other threads tell one thread.
pub(super) struct Mailbox {
    arrivals: Mutex<Vec<Arrival>>,
    stop: AtomicBool,
    /// There are lines for some watcher.
    lines: AtomicBool,
    waker: Waker,
}

impl Mailbox {
    /// `registry`: of the poller that its thread waits with; it gets an event of [`WAKE`].
    pub(super) fn new(registry: &Registry) -> Result<Mailbox> {
        let waker = Waker::new(registry, WAKE)?;
        let (stop, lines) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Mailbox { arrivals: Mutex::default(), stop, lines, waker })
    }

    /// Hands over a new connection.
    pub(super) fn deliver(&self, arrival: Arrival) {
        self.arrivals.lock().push(arrival);
        self.wake();
    }

    /// What was delivered since the last time.
    pub(super) fn take(&self) -> Vec<Arrival> {
        take(&mut *self.arrivals.lock())
    }

    /// Some watcher has lines to be sent.
    pub(super) fn tell_lines(&self) {
        self.lines.store(true, Release);
        self.wake();
    }

    /// True where that was told since the last time.
    pub(super) fn take_lines(&self) -> bool {
        self.lines.swap(false, AcqRel)
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Release);
        self.wake();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Acquire)
    }

    fn wake(&self) {
        if let Err(e) = self.waker.wake() {
            error!("cannot wake a thread: {e}");
        }
    }
}

/// Threads that take connections in turn.
pub(super) struct Turns {
    mailboxes: Vec<Arc<Mailbox>>,
    next: usize,
}

impl Turns {
    /// `first`: which of them takes the first connection.
    pub(super) fn new(mailboxes: Vec<Arc<Mailbox>>, first: usize) -> Turns {
        Turns { mailboxes, next: first }
    }

    /// Hands a connection to whose turn it is; dropped where there is nobody.
    pub(super) fn deliver(&mut self, arrival: Arrival) {
        let Some(at) = self.next.checked_rem(self.mailboxes.len()) else { return };
        self.mailboxes[at].deliver(arrival);
        self.next = at + 1;
    }
}
