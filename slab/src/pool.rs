//! Pages that no class owns, and the cap: pages in use plus bytes charged never pass the limit.

use crate::page::PageNo;
use crate::sync::Mutex;

pub(crate) struct Pool {
    state: Mutex<State>,
    page_size: u64,
}

struct State {
    /// Pages that were given back; they read as zero.
    free: Vec<PageNo>,
    /// Pages from here on have never been used.
    next: u32,
    /// Pages that the arena has room for.
    ceiling: u32,
    in_use: u32,
    /// Bytes; pages and charges together stay within it.
    limit: u64,
    /// Bytes used outside the arena but counted against the limit.
    charged: u64,
}

impl Pool {
    pub(crate) fn new(page_size: u32, ceiling: u32, limit: u64) -> Pool {
        let state = State { free: Vec::new(), next: 0, ceiling, in_use: 0, limit, charged: 0 };
        Pool { state: Mutex::new(state), page_size: u64::from(page_size) }
    }

    /// A zeroed page, and `extra` bytes charged for what its owner keeps about it; `beyond` asks
    /// for them even past the limit, up to the arena's end.
    pub(crate) fn take(&self, extra: u64, beyond: bool) -> Option<PageNo> {
        let mut s = self.state.lock();
        let used = u64::from(s.in_use) * self.page_size + s.charged;
        if !beyond && used + self.page_size + extra > s.limit {
            return None;
        }
        let page = match s.free.pop() {
            Some(page) => page,
            None if s.next < s.ceiling => {
                s.next += 1;
                PageNo(s.next - 1)
            }
            None => return None,
        };
        s.in_use += 1;
        s.charged += extra;
        Some(page)
    }

    /// Takes back a page whose memory was released, and what was charged for it.
    pub(crate) fn put(&self, page: PageNo, extra: u64) {
        let mut s = self.state.lock();
        s.in_use -= 1;
        s.charged -= extra;
        s.free.push(page);
    }

    /// Counts `bytes` used elsewhere against the limit; false, and nothing counted, past it.
    pub(crate) fn charge(&self, bytes: u64) -> bool {
        let mut s = self.state.lock();
        let used = u64::from(s.in_use) * self.page_size + s.charged;
        let fits = used + bytes <= s.limit;
        if fits {
            s.charged += bytes;
        }
        fits
    }

    pub(crate) fn discharge(&self, bytes: u64) {
        self.state.lock().charged -= bytes;
    }

    /// Another limit; what is in use beyond it stays so until it is given back.
    pub(crate) fn set_limit(&self, bytes: u64) {
        self.state.lock().limit = bytes;
    }

    /// Bytes in use beyond the limit.
    pub(crate) fn over_limit(&self) -> u64 {
        let s = self.state.lock();
        (u64::from(s.in_use) * self.page_size + s.charged).saturating_sub(s.limit)
    }

    /// Pages that could still be taken.
    pub(crate) fn available(&self) -> u64 {
        let s = self.state.lock();
        let used = u64::from(s.in_use) * self.page_size + s.charged;
        let room = s.limit.saturating_sub(used) / self.page_size;
        room.min(u64::from(s.ceiling - s.in_use))
    }

    /// Pages in use, pages that were given back, bytes charged, limit in bytes.
    pub(crate) fn figures(&self) -> (u32, usize, u64, u64) {
        let s = self.state.lock();
        (s.in_use, s.free.len(), s.charged, s.limit)
    }
}
