//! Whether fresh memory comes in huge pages or in small ones.
//!
//! What is read at random is read fastest from huge pages. But one of those comes in one piece, and
//! until it is cleared nobody else has that processor: some 0.2 ms, or several where a virtual
//! machine's host has to find the memory in turn. So memory can be had in small pages for a while,
//! and be gathered into huge ones block by block once it is in use, at a time that suits.

use crate::sync::Mutex;
use crate::words::{HUGE_WORDS, Words};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// No block is due.
const NONE: u32 = 0;
/// The block that is due was not wanted any more.
const REFUSED: u32 = 1 << 31;

/// How the memory of some words comes that are touched from the first to the last. Each method is
/// to be given the same words, and how many of them were touched.
///
/// One thread decides, another one gathers, and takes no lock for it: others would wait for one
/// that has no haste.
pub struct Grain {
    state: Mutex<State>,
    /// The block to gather and 1, or [`NONE`]; maybe [`REFUSED`].
    due: AtomicU32,
    /// Words before the first block.
    offset: usize,
    /// Blocks of a huge page's size.
    blocks: u32,
}

#[derive(Default)]
struct State {
    /// Memory comes in small pages, from this block on.
    small_from: Option<u32>,
    /// Blocks before it that did and are not gathered yet, in order.
    left: VecDeque<Range<u32>>,
    /// Those of which a page was nobody's when it was their turn.
    skipped: VecDeque<u32>,
}

impl State {
    /// The next block to gather, of those below `whole`.
    fn next(&mut self, whole: u32) -> Option<u32> {
        self.next_left(whole).or_else(|| self.next_new(whole)).or_else(|| self.skipped.pop_front())
    }

    fn next_left(&mut self, whole: u32) -> Option<u32> {
        let range = self.left.front_mut().filter(|range| range.start < whole)?;
        let block = range.next();
        if range.start == range.end {
            self.left.pop_front();
        }
        block
    }

    fn next_new(&mut self, whole: u32) -> Option<u32> {
        let from = self.small_from.as_mut().filter(|from| **from < whole)?;
        *from += 1;
        Some(*from - 1)
    }
}

impl Grain {
    /// Memory comes as it does: in huge pages if those were asked for, for the first `huge` words.
    pub fn new(words: &Words, huge: usize) -> Grain {
        let offset = words.to_huge_page();
        let blocks = huge.saturating_sub(offset) / HUGE_WORDS;
        let blocks = if words.can_gather() { blocks as u32 } else { 0 };
        Grain { state: Mutex::default(), due: AtomicU32::new(NONE), offset, blocks }
    }

    /// Has memory that is touched from now on come in small pages, or in huge ones again.
    pub fn come_small(&self, small: bool, words: &Words, touched: impl Fn() -> usize) {
        let mut state = self.state.lock();
        if self.blocks == 0 || small == state.small_from.is_some() {
            return;
        }
        // What the system refuses is as it was.
        if small {
            let from = self.begun(touched());
            let _ = words.small_pages(self.words_of(from..self.blocks));
            state.small_from = Some(from);
        } else if let Some(from) = state.small_from.take() {
            let _ = words.huge_pages(self.words_of(from..self.blocks));
            let end = self.begun(touched());
            if from < end {
                state.left.push_back(from..end);
            }
        }
    }

    /// True while memory comes in small pages.
    pub fn is_small(&self) -> bool {
        self.state.lock().small_from.is_some()
    }

    /// Notes the next block whose words were all touched; true where there is one that was not
    /// noted before. Those that are not `wanted` are asked about again after all others.
    pub fn note_due(&self, touched: usize, wanted: impl FnOnce(Range<usize>) -> bool) -> bool {
        let due = self.due.load(Relaxed);
        if due != NONE && due & REFUSED == 0 {
            return false;
        }
        let mut state = self.state.lock();
        if due != NONE {
            state.skipped.push_back((due & !REFUSED) - 1);
            self.due.store(NONE, Relaxed);
        }
        let whole = touched.saturating_sub(self.offset) / HUGE_WORDS;
        let Some(block) = state.next(self.blocks.min(whole as u32)) else { return false };
        let wanted = wanted(self.words_of(block..block + 1));
        if wanted {
            self.due.store(block + 1, Relaxed);
        } else {
            state.skipped.push_back(block);
        }
        wanted
    }

    /// Makes one huge page of the small ones of the block that was noted, whoever is reading or
    /// writing in them, if it still is `wanted`; false where none is. One thread alone may call it.
    pub fn gather(&self, words: &Words, wanted: impl FnOnce(Range<usize>) -> bool) -> bool {
        let due = self.due.load(Relaxed);
        if due == NONE || due & REFUSED != 0 {
            return false;
        }
        let block = self.words_of(due - 1..due);
        let wanted = wanted(block.clone());
        if wanted {
            // What cannot be done now, the system does by and by.
            let _ = words.gather(block);
        }
        self.due.store(if wanted { NONE } else { due | REFUSED }, Relaxed);
        wanted
    }

    fn words_of(&self, blocks: Range<u32>) -> Range<usize> {
        let word = |block: u32| self.offset + block as usize * HUGE_WORDS;
        word(blocks.start)..word(blocks.end)
    }

    /// Blocks of which a word was touched.
    fn begun(&self, touched: usize) -> u32 {
        let begun = touched.saturating_sub(self.offset).div_ceil(HUGE_WORDS);
        self.blocks.min(begun as u32)
    }
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::*;
    use crate::{ClassId, Geometry, Options, PageNo, Slabs};
    use std::sync::atomic::Ordering::Relaxed;

    const PAGE: u32 = 1 << 20;

    fn slabs(pages: u32) -> Slabs<()> {
        let geometry = Geometry::compact(PAGE, 1.12, 24).expect("a ladder");
        let options = Options {
            limit: u64::from(pages * PAGE),
            ceiling: pages,
            chunk_overhead_64ths: 0,
            first_page_beyond_limit: false,
            reserve: false,
            huge_pages: pages,
        };
        Slabs::new(geometry, options).expect("address space")
    }

    /// Takes so many pages and writes in all of them.
    fn fill(slabs: &Slabs<()>, pages: u32) {
        for _ in 0..pages {
            let mut class = slabs.lock(ClassId(1));
            assert!(class.grow());
            let page = *class.pages().last().expect("one page at least");
            drop(class);
            for word in slabs.words_of(page) {
                slabs.words()[word].store(word as u32, Relaxed);
            }
        }
    }

    fn gather(slabs: &Slabs<()>) -> usize {
        std::iter::from_fn(|| (slabs.note_small() && slabs.gather()).then_some(())).count()
    }

    /// Bytes of the arena in huge pages, as the system counts them.
    fn huge_bytes(slabs: &Slabs<()>) -> usize {
        let (from, len) = (slabs.words().as_ptr().addr(), slabs.words().len() * 4);
        let text = std::fs::read_to_string("/proc/self/smaps").expect("what is mapped");
        let (mut within, mut kib) = (false, 0);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(first) = words.next() else { continue };
            if let Some((start, _)) = first.split_once('-')
                && let Ok(start) = usize::from_str_radix(start, 16)
            {
                within = (from..from + len).contains(&start);
            } else if within && first == "AnonHugePages:" {
                kib += words.next().map_or(0, |n| n.parse::<usize>().expect("KiB"));
            }
        }
        kib << 10
    }

    #[test]
    fn memory_that_came_small_is_made_huge() {
        let slabs = slabs(16);
        if slabs.grain.blocks == 0 {
            return;
        }
        slabs.come_small(true);
        assert!(!slabs.note_small() && !slabs.gather() && !slabs.look_ahead());
        fill(&slabs, 9);
        assert_eq!(huge_bytes(&slabs), 0);
        let gathered = gather(&slabs);
        // They begin where the system's do.
        assert!([3, 4].contains(&gathered), "{gathered}");
        let before = huge_bytes(&slabs);
        slabs.come_small(false);
        fill(&slabs, 6);
        assert!(huge_bytes(&slabs) >= before);
        // What was begun in small pages was left.
        assert_eq!((gather(&slabs), gather(&slabs)), (1, 0));
        let filled = slabs.words_of(PageNo(0)).start..slabs.words_of(PageNo(15)).start;
        let same = |word: usize| slabs.words()[word].load(Relaxed) == word as u32;
        assert!(filled.into_iter().all(same));
        slabs.validate().expect("a valid arena");
    }

    #[test]
    fn a_block_with_a_page_that_was_given_back_stays_as_it_is() {
        let slabs = slabs(16);
        slabs.come_small(true);
        fill(&slabs, 15);
        let blocks = slabs.grain.blocks.min(6);
        let owned = |block| slabs.are_owned(slabs.grain.words_of(block..block + 1));
        assert!((0..blocks).all(owned));
        if blocks > 0 {
            assert!(slabs.note_small());
        }
        let mut class = slabs.lock(ClassId(1));
        // Each block keeps some that are in use.
        for page in class.pages().to_vec().into_iter().filter(|page| page.0 % 2 == 0) {
            assert!(class.start_drain(page) && class.finish_drain(page));
        }
        drop(class);
        assert!(!(0..blocks).any(owned));
        // Nor is the one that was noted when it was whole.
        assert!(!slabs.gather());
        assert_eq!((gather(&slabs), huge_bytes(&slabs)), (0, 0));
    }

    #[test]
    fn a_block_is_gathered_once_it_is_whole() {
        let grain =
            Grain { blocks: 3, offset: 0, due: AtomicU32::new(NONE), state: Mutex::default() };
        grain.state.lock().small_from = Some(0);
        let words = Words::reserve(3 * HUGE_WORDS).expect("address space");
        let all = 3 * HUGE_WORDS;
        let first = |block: Range<usize>| block.start == 0;
        let others = |block: Range<usize>| block.start > 0;
        assert!(!grain.note_due(all, others), "the first is passed over");
        assert!(grain.note_due(all, |_| true) && !grain.note_due(all, |_| true), "one at a time");
        assert!(!grain.gather(&words, |_| false) && !grain.gather(&words, |_| true), "refused");
        assert!(grain.note_due(all, others), "the third");
        assert!(grain.gather(&words, others));
        assert!(grain.note_due(all, first) && grain.gather(&words, first));
        assert!(grain.note_due(all, others) && grain.gather(&words, others));
        assert!(!grain.note_due(all, |_| true) && !grain.gather(&words, |_| true));
    }

    #[test]
    fn blocks_are_gathered_once_in_order() {
        let left = [2..4, 6..7].into();
        let mut state = State { small_from: Some(9), left, skipped: [1].into() };
        let mut next = |whole| state.next(whole);
        let seen: Vec<_> = [2, 2, 3, 3, 4, 6, 7, 9, 10, 20].map(&mut next).into();
        let all = [Some(1), None, Some(2), None, Some(3), None, Some(6), None, Some(9), Some(10)];
        assert_eq!(seen, all);
    }
}
