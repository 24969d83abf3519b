//! A growth that is to begin once its memory is there: whoever moved the first line to a huge page
//! would wait until the system has cleared it.

use super::{Index, LINE_WORDS};
use slab::sync::MODELLED;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Lines whose memory is asked for at once.
const LINES_AT_ONCE: u32 = if MODELLED { 2 } else { 1024 };

#[derive(Default)]
pub(super) struct Plan {
    /// Lines that there will be; 0: no growth is planned.
    lines: AtomicU32,
    /// Lines from here on have not been asked for.
    next: AtomicU32,
}

impl Index {
    /// Plans to grow to `lines`.
    pub fn plan(&self, lines: u32) {
        self.plan.next.store(self.len(), Relaxed);
        self.plan.lines.store(lines, Release);
    }

    /// Lines that it is planned to grow to.
    pub fn planned(&self) -> Option<u32> {
        Some(self.plan.lines.load(Relaxed)).filter(|lines| *lines > 0)
    }

    /// Starts the growth that was planned.
    pub fn start_planned(&self) {
        let lines = self.plan.lines.swap(0, Relaxed);
        self.start(lines);
    }

    /// Lines, from this one on, whose memory is wanted for what is planned, up to the second.
    fn lacking(&self) -> Option<(u32, u32)> {
        let lines = self.plan.lines.load(Acquire);
        Some((self.plan.next.load(Relaxed), lines)).filter(|(next, lines)| next < lines)
    }

    /// True where [`Index::populate`] has something to do.
    pub fn lacks_memory(&self) -> bool {
        self.lacking().is_some()
    }

    /// Brings some more of the memory of a growth that is planned, if there is any to be brought.
    /// Nothing is held while the system works. Two who call it at once bring the same.
    pub fn populate(&self) -> bool {
        let Some((next, lines)) = self.lacking() else { return false };
        let end = lines.min(next + LINES_AT_ONCE);
        let brought = self.lines.populate(next as usize * LINE_WORDS..end as usize * LINE_WORDS);
        // Where it cannot be brought ahead it comes when it is touched.
        let end = if brought.is_ok() { end } else { lines };
        // Unless it is another plan by now.
        let _ = self.plan.next.compare_exchange(next, end, Relaxed, Relaxed);
        true
    }
}

impl Index {
    /// Has the memory of lines to come come in small pages of the system's, or in huge ones again.
    pub fn come_small(&self, small: bool) {
        let lines = || self.planned().map_or(self.len(), |_| self.plan.next.load(Relaxed));
        self.grain.come_small(small, &self.lines, || lines() as usize * LINE_WORDS);
    }

    /// Notes some lines whose memory came in small pages, a huge page of them; true where there are
    /// some that were not noted before.
    pub fn note_small(&self) -> bool {
        self.grain.note_due(self.words_kept(), |block| block.end <= self.words_kept())
    }

    /// Makes a huge page of what was noted, if it still is in use; false where nothing is. One
    /// thread alone may call it, and takes no lock.
    pub fn gather_memory(&self) -> bool {
        // The memory of lines that were given back would be brought again.
        self.grain.gather(&self.lines, |block| block.end <= self.words_kept())
    }

    /// Words of lines that there are, and will be when a shrink is done.
    fn words_kept(&self) -> usize {
        self.len() as usize * LINE_WORDS
    }
}
