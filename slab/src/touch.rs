//! The page whose memory one thread is bringing by touching it: nobody is handed that page
//! meanwhile, lest a plain read of what its owner has put there meet the touch.
//!
//! Neither waits for the other: the thread that touches has no haste, and may have lost its
//! processor. It says which page it touches before it looks which have been handed out; whoever
//! hands one out says so before looking which is touched. So at least one of them sees the other.

use crate::page::PageNo;
use crate::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::{AtomicU32, fence};

pub(crate) struct Touch {
    /// The page, plus 1; 0 for none.
    page: AtomicU32,
    /// Pages below have been handed out, or passed over.
    next: AtomicU32,
}

impl Touch {
    pub(crate) fn new() -> Touch {
        Touch { page: AtomicU32::new(0), next: AtomicU32::new(0) }
    }

    /// Runs `touch` on a page that was never handed out; `None` where it has been by now. One
    /// thread alone may call it.
    pub(crate) fn run<T>(&self, page: PageNo, touch: impl FnOnce() -> T) -> Option<T> {
        self.page.store(page.0 + 1, Release);
        fence(SeqCst);
        let fresh = page.0 >= self.next.load(Relaxed);
        let touched = fresh.then(touch);
        self.page.store(0, Release);
        touched
    }

    /// Pages below `next` are about to be handed out: before [`Touch::is_at`], by whoever holds the
    /// pool's lock.
    pub(crate) fn note(&self, next: u32) {
        self.next.store(next, Relaxed);
        fence(SeqCst);
    }

    /// True where the page may be touched right now; else all that was done to it comes before. As
    /// it is one page at a time, so does all that was done to any other.
    pub(crate) fn is_at(&self, page: PageNo) -> bool {
        self.page.load(Acquire) == page.0 + 1
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::cell::UnsafeCell;
    use std::sync::Arc;

    /// The memory of two pages, which one thread touches while the other is handed them.
    #[test]
    fn a_page_is_touched_or_owned() {
        loom::model(|| {
            let shared = Arc::new((Touch::new(), [UnsafeCell::new(0), UnsafeCell::new(0)]));
            let other = shared.clone();
            let prefaulter = loom::thread::spawn(move || {
                let (touch, pages) = &*other;
                for (page, memory) in (0..).zip(pages) {
                    // The checker alone looks at the memory.
                    let _ = touch.run(PageNo(page), || memory.with_mut(|_| ()));
                }
            });
            let (touch, pages) = &*shared;
            for (page, memory) in (0..).zip(pages) {
                touch.note(page + 1);
                if !touch.is_at(PageNo(page)) {
                    memory.with_mut(|_| ());
                }
            }
            prefaulter.join().expect("no panic");
        });
    }
}
