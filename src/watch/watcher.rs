//! One watcher's end: a bounded buffer of lines between the logger and the connection.

use super::{Streams, Watch, line};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// memcached's limit.
const WATCHERS_MAX: usize = 20;

/// Tells a watcher's thread that there are lines to take. It must not wait for anything.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Why a watcher is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    TooMany,
    /// There is no memory for its buffer.
    Failed,
}

/// A client that watches, until dropped.
pub struct Watcher {
    watch: Arc<Watch>,
    tap: Arc<Tap>,
}

/// What the logger knows of it.
pub(super) struct Tap {
    pub streams: Streams,
    /// Events from here on are for it.
    pub since: u64,
    lines: Mutex<Lines>,
    taken: Condvar,
    wake: Wake,
}

/// Lines that wait to be taken.
struct Lines {
    bytes: Vec<u8>,
    /// Bytes that they may take.
    limit: usize,
    /// Lines that found no room since the last that did.
    skipped: u64,
    /// The client does not take what it was sent before, so nothing will be taken for now.
    blocked: bool,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    Sent,
    Skipped,
}

impl Watch {
    /// Takes in a watcher of `streams`, whose thread is told by `wake` when lines come.
    pub fn add(self: &Arc<Self>, streams: Streams, wake: Wake) -> Result<Watcher, Refused> {
        let mut taps = self.taps.lock();
        if taps.len() >= WATCHERS_MAX {
            return Err(Refused::TooMany);
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(self.buffer_bytes).map_err(|_| Refused::Failed)?;
        let lines = Lines { bytes, limit: self.buffer_bytes, skipped: 0, blocked: false };
        let tap = Arc::new(Tap {
            streams,
            since: self.next_gid(),
            lines: Mutex::new(lines),
            taken: Condvar::new(),
            wake,
        });
        taps.push(tap.clone());
        self.publish(&taps);
        Ok(Watcher { watch: self.clone(), tap })
    }

    pub(super) fn taps(&self) -> Vec<Arc<Tap>> {
        self.taps.lock().clone()
    }

    /// Tells all threads what is wanted now.
    fn publish(&self, taps: &[Arc<Tap>]) {
        let all = taps.iter().fold(Streams::NONE, |all, tap| all.and(tap.streams));
        self.wanted.store(all.0, Relaxed);
    }
}

impl Watcher {
    /// Moves the lines that wait to the end of `out`.
    pub fn take(&self, out: &mut Vec<u8>) {
        let mut lines = self.tap.lines.lock();
        lines.blocked = false;
        out.extend_from_slice(&lines.bytes);
        lines.bytes.clear();
        drop(lines);
        self.tap.taken.notify_one();
    }

    /// Bytes that its lines may take.
    pub fn held(&self) -> usize {
        self.watch.buffer_bytes
    }

    /// The client takes no more for now: there is no point in waiting for it.
    pub fn block(&self) {
        self.tap.lines.lock().blocked = true;
        self.tap.taken.notify_one();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut taps = self.watch.taps.lock();
        taps.retain(|tap| !Arc::ptr_eq(tap, &self.tap));
        self.watch.publish(&taps);
        drop(taps);
        self.block();
    }
}

impl Tap {
    /// Adds a line if there is room for it. Where there would be if the watcher's thread came, it
    /// is waited for, at most `patience`, which is used up by that.
    pub fn offer(&self, text: &[u8], patience: &mut Duration) -> Offered {
        let mut lines = self.lines.lock();
        if !lines.has_room(text) && !lines.blocked && !patience.is_zero() {
            let waited = std::mem::take(patience);
            self.taken.wait_while_for(&mut lines, |l| !l.has_room(text) && !l.blocked, waited);
        }
        if !lines.has_room(text) {
            lines.skipped += 1;
            return Offered::Skipped;
        }
        let was_empty = lines.bytes.is_empty();
        let skipped = std::mem::take(&mut lines.skipped);
        if skipped > 0 {
            line::put_skipped(&mut lines.bytes, skipped);
        }
        lines.bytes.extend_from_slice(text);
        drop(lines);
        if was_empty {
            (self.wake)();
        }
        Offered::Sent
    }
}

impl Lines {
    fn has_room(&self, text: &[u8]) -> bool {
        /// `skipped=` and twenty digits.
        const SKIPPED_MAX: usize = 29;
        let notice = if self.skipped > 0 { SKIPPED_MAX } else { 0 };
        self.bytes.len() + notice + text.len() <= self.limit
    }
}
