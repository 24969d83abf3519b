//! Pages that no class owns, and the cap: pages in use plus bytes charged never pass the limit.

use crate::page::PageNo;
use crate::sync::{Mutex, MutexGuard};
use crate::touch::Touch;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// One in so many bytes of the limit is in reserve, if a reserve is kept.
const RESERVE_SHARE: u64 = 64;

pub(crate) struct Pool {
    state: Mutex<State>,
    /// No page fits the limit. Whoever is short of one, as all are once a cache is full, need not
    /// lock the state for that.
    full: AtomicBool,
    pub(crate) touch: Touch,
    /// Bytes of a page and, where that is counted, of what is known of it.
    page_cost: u64,
    /// Most pages that are kept in reserve: see [`Pool::reserve`].
    reserve_max: u64,
}

/// Who takes a page, and so which pages may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// One more page for a class: those in reserve stay.
    More,
    /// The reserve is for this.
    Reserved,
    /// A page even past the limit, up to the arena's end.
    Beyond,
}

struct State {
    /// Pages that were given back; they read as zero.
    free: Vec<PageNo>,
    /// Pages from here on have never been used.
    next: u32,
    /// One of those before that was being touched when its turn came.
    passed_over: Option<PageNo>,
    /// Pages that the arena has room for.
    ceiling: u32,
    in_use: u32,
    /// Bytes; pages and charges together stay within it.
    limit: u64,
    /// Bytes used outside the arena but counted against the limit.
    charged: u64,
    /// Pages that were granted beyond the limit and still are.
    beyond: u32,
    /// Chunks of the pages in use, and the bytes kept for each beside the arena, times 64.
    chunks: u64,
    overhead_64ths: u64,
}

impl State {
    /// What was granted beyond the limit and is within it by now is like any other page.
    fn forget_beyond(&mut self, page_cost: u64) {
        let over = self.used(page_cost).saturating_sub(self.limit).div_ceil(page_cost);
        self.beyond = self.beyond.min(over as u32);
    }

    fn used(&self, page_size: u64) -> u64 {
        let chunks = (self.chunks * self.overhead_64ths).div_ceil(64);
        u64::from(self.in_use) * page_size + self.charged + chunks
    }
}

/// The pool's state while it changes.
struct Changing<'a> {
    pool: &'a Pool,
    state: MutexGuard<'a, State>,
}

impl Deref for Changing<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Changing<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let cost = self.pool.page_cost;
        let reserve = self.pool.reserve(self.limit);
        self.pool.full.store(self.used(cost) + cost + reserve > self.limit, Relaxed);
    }
}

impl Pool {
    /// `page_cost`: bytes that a page counts as; `overhead_64ths`: bytes kept per chunk beside the
    /// arena, times 64; `reserve_max`: the most pages that are kept in reserve.
    pub(crate) fn new(
        page_cost: u64,
        ceiling: u32,
        limit: u64,
        overhead_64ths: u32,
        reserve_max: u32,
    ) -> Pool {
        let state = State {
            free: Vec::new(),
            next: 0,
            passed_over: None,
            ceiling,
            in_use: 0,
            limit,
            charged: 0,
            beyond: 0,
            chunks: 0,
            overhead_64ths: u64::from(overhead_64ths),
        };
        let (full, touch) = (AtomicBool::new(false), Touch::new());
        let reserve_max = u64::from(reserve_max);
        Pool { state: Mutex::new(state), full, touch, page_cost, reserve_max }
    }

    /// Bytes of the limit in whole pages that [`Claim::More`] and charges leave alone.
    fn reserve(&self, limit: u64) -> u64 {
        (limit / RESERVE_SHARE / self.page_cost).min(self.reserve_max) * self.page_cost
    }

    /// The state, of which anything may change.
    fn change(&self) -> Changing<'_> {
        Changing { pool: self, state: self.state.lock() }
    }

    /// A zeroed page for `chunks` chunks.
    pub(crate) fn take(&self, chunks: u32, claim: Claim) -> Option<PageNo> {
        if self.full.load(Relaxed) && claim == Claim::More {
            return None;
        }
        let mut s = self.change();
        let reserve = if claim == Claim::More { self.reserve(s.limit) } else { 0 };
        let more = self.page_cost + (u64::from(chunks) * s.overhead_64ths).div_ceil(64);
        let fits = s.used(self.page_cost) + more + reserve <= s.limit;
        if !fits && claim != Claim::Beyond {
            return None;
        }
        let page = s.free.pop().or_else(|| self.fresh(&mut s))?;
        s.in_use += 1;
        s.beyond += u32::from(!fits);
        s.chunks += u64::from(chunks);
        Some(page)
    }

    /// A page that was never in use, but for one that is being touched.
    fn fresh(&self, s: &mut State) -> Option<PageNo> {
        if let Some(page) = s.passed_over.take_if(|page| !self.touch.is_at(*page)) {
            return Some(page);
        }
        loop {
            let page = self.next(s)?;
            if !self.touch.is_at(page) {
                return Some(page);
            }
            // So it is not at that which was passed over before.
            if let Some(before) = s.passed_over.replace(page) {
                return Some(before);
            }
        }
    }

    fn next(&self, s: &mut State) -> Option<PageNo> {
        let page = PageNo(s.next);
        s.next += u32::from(s.next < s.ceiling);
        self.touch.note(s.next);
        (page.0 < s.next).then_some(page)
    }

    /// Pages below `next` are in use, for `chunks` chunks in all, but for those that are free. So
    /// many may have been granted beyond the limit.
    pub(crate) fn restore(&self, next: u32, free: Vec<PageNo>, chunks: u64, beyond: u32) {
        let mut s = self.change();
        s.in_use = next - free.len() as u32;
        (s.next, s.free, s.chunks, s.beyond) = (next, free, chunks, beyond);
        self.touch.note(next);
        s.forget_beyond(self.page_cost);
    }

    /// Takes back a page of `chunks` chunks whose memory was released.
    pub(crate) fn put(&self, page: PageNo, chunks: u32) {
        let mut s = self.change();
        s.in_use -= 1;
        s.chunks -= u64::from(chunks);
        s.forget_beyond(self.page_cost);
        s.free.push(page);
    }

    /// A page of `from` chunks now is one of `to`.
    pub(crate) fn hand_over(&self, from: u32, to: u32) {
        let mut s = self.change();
        s.chunks = s.chunks - u64::from(from) + u64::from(to);
    }

    /// Counts `bytes` used elsewhere against the limit; false, and nothing counted, past it.
    pub(crate) fn charge(&self, bytes: u64) -> bool {
        let mut s = self.change();
        let fits = s.used(self.page_cost) + bytes + self.reserve(s.limit) <= s.limit;
        if fits {
            s.charged += bytes;
        }
        fits
    }

    pub(crate) fn discharge(&self, bytes: u64) {
        self.change().charged -= bytes;
    }

    /// Counts `is` bytes used elsewhere instead of `was`, even past the limit.
    pub(crate) fn recharge(&self, was: u64, is: u64) {
        let mut s = self.change();
        s.charged = s.charged - was + is;
    }

    /// Changes what is kept per chunk beside the arena, even past the limit.
    pub(crate) fn set_overhead(&self, overhead_64ths: u32) {
        self.change().overhead_64ths = u64::from(overhead_64ths);
    }

    /// Another limit; what is in use beyond it stays so until it is given back.
    pub(crate) fn set_limit(&self, bytes: u64) {
        let mut s = self.change();
        s.limit = bytes;
        s.forget_beyond(self.page_cost);
    }

    /// Bytes in use beyond the limit, but for pages that were asked for beyond it.
    pub(crate) fn over_limit(&self) -> u64 {
        let s = self.state.lock();
        s.used(self.page_cost).saturating_sub(s.limit + u64::from(s.beyond) * self.page_cost)
    }

    /// Pages that could still be taken without those in reserve.
    pub(crate) fn available(&self) -> u64 {
        let s = self.state.lock();
        let taken = s.used(self.page_cost) + self.reserve(s.limit);
        let room = s.limit.saturating_sub(taken) / self.page_cost;
        room.min(u64::from(s.ceiling - s.in_use))
    }

    /// The first page that was never taken, and how many from there on the limit has room for once
    /// those that were given back are in use again, without the arena's last: whoever passes over
    /// one page finds another.
    pub(crate) fn untouched(&self) -> (u32, u32) {
        let s = self.state.lock();
        let room = s.limit.saturating_sub(s.used(self.page_cost)) / self.page_cost;
        let fresh = room
            .saturating_sub(s.free.len() as u64)
            .min(u64::from((s.ceiling - s.next).saturating_sub(1)));
        (s.next, fresh as u32)
    }

    /// Pages that were ever handed out, or passed over: those of lower numbers.
    pub(crate) fn touched(&self) -> u32 {
        self.state.lock().next
    }

    /// Pages in use, pages that were given back, bytes used, limit in bytes.
    pub(crate) fn figures(&self) -> (u32, usize, u64, u64) {
        let s = self.state.lock();
        (s.in_use, s.free.len(), s.used(self.page_cost), s.limit)
    }
}
