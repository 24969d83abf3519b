//! When the index grows and shrinks, and what it is charged for.

use super::Store;
use super::flush::Horizon;
use super::index::{
    self, BLOCK_BYTES, BLOCK_NODES, Growth, LINE_BYTES, LINE_STEP, Load, MOVE_NODES, Step,
};
use super::savings::Payment;
use super::shard::Shard;
use super::types::Local;
use super::upkeep::Pace;
use slab::ChunkRef;
use slab::sync::MODELLED;
use std::sync::atomic::Ordering::Relaxed;

/// Items per line at which the index grows.
pub(super) const LOAD_MAX: u64 = if MODELLED { 1 } else { 11 };
/// So many per cent of the items at which it grows, and it is late.
const LATE_PCT: u64 = 150;
/// Lines moved in one step: some twenty microseconds of work.
const LINES_PER_STEP: u32 = 12;
/// One node for so many lines is kept free, for writes between two steps.
const LINES_PER_SPARE_NODE: u32 = 128;
/// Smallest item, with its share of the index: what bounds the number of items.
const ITEM_MIN: u64 = if MODELLED { 200 } else { 24 };

/// The lines that an index over `limit` bytes could ever need.
pub(super) fn lines_ceiling(limit: u64) -> u32 {
    let lines = limit / ITEM_MIN / LOAD_MAX;
    lines.clamp(u64::from(LINE_STEP), u64::from(index::LINES_MAX)) as u32
}

/// What the number of items asks of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Stay,
    Grow,
    /// To so many lines.
    Shrink(u32),
}

/// The part of its lines that an index grows by, with `left` bytes for pages: all while so much is
/// left that items will fill them, half while there is plenty, else an eighth. `outside`: the
/// index's memory is not taken from theirs.
fn growth_divisor(lines: u32, left: u64, outside: bool) -> u32 {
    let bytes = u64::from(lines) * LINE_BYTES;
    match left {
        _ if left > bytes * 32 => 1,
        _ if left > bytes * 8 || outside => 2,
        _ => 8,
    }
}

/// Growth by half and a shrink both lead to two thirds of [`LOAD_MAX`], give or take a step, and
/// growth to twice as many lines to half of it. From there it takes half as many items again to
/// grow, and the loss of a fifth at least to shrink, so that neither brings the other about.
///
/// A growth that is being paid for, `begun`, goes on until items are fewer by an eighth: it costs
/// some itself.
fn aim(items: u64, lines: u32, floor: u32, begun: bool) -> Aim {
    let most = u64::from(lines) * LOAD_MAX;
    if items >= if begun { most / 8 * 7 } else { most } {
        return Aim::Grow;
    }
    if items * 5 >= u64::from(lines) * LOAD_MAX * 2 {
        return Aim::Stay;
    }
    let fewer = ((items * 3 / (LOAD_MAX * 2)) as u32).next_multiple_of(LINE_STEP).max(floor);
    if fewer < lines { Aim::Shrink(fewer) } else { Aim::Stay }
}

/// Whether a growth keeps up with the items: it is to be done when they have come for three
/// quarters of the new lines, and there is no haste before that. Great haste there is where another
/// quarter of them has come.
fn pace(items: u64, growth: Growth) -> Pace {
    let [old, new, moved] = [growth.old, growth.new, growth.moved].map(u64::from);
    let (more, quarter) = (items.saturating_sub(old * LOAD_MAX), (new - old) * LOAD_MAX / 4);
    // The share of those that is here, beside the share of the lines that is moved.
    let (here, due) = (more * old, moved * quarter * 3);
    match here {
        _ if here > due + old * quarter => Pace::Urgent,
        _ if here > due => Pace::Soon,
        _ => Pace::Spare,
    }
}

impl Store {
    /// A bounded step of the upkeep of some shard's index. One thread alone may call it.
    pub(super) fn resize_step(&self, l: &Local) -> Pace {
        self.step_shards(l, |shard| self.resize_shard(l, shard))
    }

    fn resize_shard(&self, l: &Local, shard: &Shard) -> Pace {
        let horizon = self.horizon();
        let index = &shard.index;
        let nodes = shard.keep_nodes(l, horizon);
        if index.is_resizing() {
            let pace = index.growth().map_or(Pace::Spare, |g| pace(shard.items.load(Relaxed), g));
            return if shard.move_lines(l) { pace } else { nodes };
        }
        if index.planned().is_some() {
            return if self.begins_growth(shard) { Pace::Urgent } else { nodes };
        }
        if self.settings.no_hashexpand {
            return nodes;
        }
        let begun = shard.savings.lines.are_begun();
        match aim(shard.items.load(Relaxed), index.len(), index.floor(), begun) {
            // What an earlier growth has freed may pay for this one.
            Aim::Grow if shard.has_spare_nodes() && !begun => nodes,
            Aim::Grow => nodes.max(shard.grow(l, horizon)),
            Aim::Shrink(lines) => {
                shard.let_go(&shard.savings.lines);
                index.start(lines);
                Pace::Spare
            }
            Aim::Stay => {
                shard.let_go(&shard.savings.lines);
                nodes
            }
        }
    }
}

impl Store {
    /// Starts the growth that is planned, if its memory is there or is not to be waited for.
    fn begins_growth(&self, shard: &Shard) -> bool {
        if self.awaits_memory(shard) {
            return false;
        }
        shard.savings.lines.spend();
        shard.index.start_planned();
        true
    }
}

impl Shard {
    /// True where the index has grown far too little.
    pub fn is_late(&self) -> bool {
        let most = u64::from(self.index.len()) * LOAD_MAX * LATE_PCT / 100;
        self.items.load(Relaxed) >= most
    }

    /// Room for more nodes; false where there is no memory for them.
    pub fn add_nodes(&self) -> bool {
        let charged = self.rules.pages_alone || self.slabs.charge(BLOCK_BYTES);
        charged && self.add_charged_nodes()
    }

    /// The same, for which a page may have to be given up; true also where it is not all paid yet.
    fn pay_for_nodes(&self, l: &Local, horizon: Horizon) -> bool {
        match self.pay(l, &self.savings.nodes, BLOCK_BYTES, horizon) {
            Payment::Whole => {
                self.savings.nodes.spend();
                self.add_charged_nodes()
            }
            payment => payment == Payment::Part,
        }
    }

    fn add_charged_nodes(&self) -> bool {
        let added = self.index.add_nodes();
        if !added {
            self.discharge_index(BLOCK_BYTES);
        }
        added
    }

    fn discharge_index(&self, bytes: u64) {
        if !self.rules.pages_alone {
            self.slabs.discharge(bytes);
        }
    }

    /// Nodes that are kept free.
    pub fn nodes_kept(&self) -> u32 {
        MOVE_NODES + self.index.len() / LINES_PER_SPARE_NODE
    }

    /// True where so many nodes are free that some are to be given back.
    fn has_spare_nodes(&self) -> bool {
        self.index.can_trim(2 * self.nodes_kept())
    }

    /// Keeps some nodes free, and not many more than that.
    fn keep_nodes(&self, l: &Local, horizon: Horizon) -> Pace {
        let kept = self.nodes_kept();
        // What is evicted for a block sets some free.
        let begun = if self.savings.nodes.are_begun() { BLOCK_NODES } else { 0 };
        if self.index.spare_nodes() < kept + begun {
            return if self.pay_for_nodes(l, horizon) { Pace::Urgent } else { Pace::Rest };
        }
        self.let_go(&self.savings.nodes);
        let (is_over, hash_of) = (|| l.tick.is_over(), |chunk| self.hash_of(l, chunk));
        let gathered = self.index.gather(2 * kept, is_over, hash_of);
        let trimmed = self.index.trim_nodes(2 * kept);
        self.discharge_index(trimmed);
        match gathered > 0 || trimmed > 0 {
            // Where memory is short, items go for want of it.
            true if self.slabs.available_pages() == 0 => Pace::Urgent,
            true => Pace::Spare,
            false => Pace::Rest,
        }
    }

    /// True where more lines can be moved at once.
    fn move_lines(&self, l: &Local) -> bool {
        let mut load = Load::default();
        let warm = |chunk: ChunkRef| {
            if chunk.word() < self.slabs.words().len() {
                self.item(chunk).prefetch_key();
            }
        };
        for _ in 0..LINES_PER_STEP {
            match self.index.step(&mut load, warm, |chunk| self.hash_of(l, chunk)) {
                Step::Moved(freed) => self.discharge_index(freed),
                Step::Stuck | Step::Done => return false,
            }
            if l.tick.is_over() {
                break;
            }
        }
        true
    }

    /// Plans to grow the index, once that is paid for.
    fn grow(&self, l: &Local, horizon: Horizon) -> Pace {
        let lines = self.index.len();
        let page = u64::from(self.slabs.geometry().page_size());
        let left = self.slabs.available_pages() * page;
        let share = lines / growth_divisor(lines, left, self.rules.pages_alone);
        let needed = (self.items.load(Relaxed) / LOAD_MAX * 9 / 8) as u32;
        let more = needed.saturating_sub(lines).max(share).min(lines).next_multiple_of(LINE_STEP);
        let target = lines.saturating_add(more).min(self.index.ceiling());
        let target = target / LINE_STEP * LINE_STEP;
        if target <= lines {
            return Pace::Rest;
        }
        match self.pay(l, &self.savings.lines, u64::from(target - lines) * LINE_BYTES, horizon) {
            Payment::Whole => {
                self.index.plan(target);
                Pace::Urgent
            }
            Payment::Part => Pace::Urgent,
            Payment::Nothing => Pace::Rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_follows_the_items() {
        let table = [
            ((0, 1024, 1024), Aim::Stay),
            ((11 * 1024 - 1, 1024, 1024), Aim::Stay),
            ((11 * 1024, 1024, 1024), Aim::Grow),
            ((4506, 1024, 256), Aim::Stay),
            ((4505, 1024, 256), Aim::Shrink(768)),
            ((0, 1024, 256), Aim::Shrink(256)),
            ((0, 1024, 512), Aim::Shrink(512)),
            // Rounded up there is nothing to be won.
            ((2000, 512, 256), Aim::Stay),
        ];
        for ((items, lines, floor), wanted) in table {
            assert_eq!(aim(items, lines, floor, false), wanted, "{items} items, {lines} lines");
        }
        // One that is being paid for.
        for (items, wanted) in [(9855, Aim::Stay), (9856, Aim::Grow), (11 * 1024, Aim::Grow)] {
            assert_eq!(aim(items, 1024, 1024, true), wanted, "{items} items");
        }
    }

    #[test]
    fn a_growth_goes_as_fast_as_items_come() {
        let table = [
            // As many as it began with, and fewer.
            (11_000, 0, Pace::Spare),
            (9_000, 0, Pace::Spare),
            (11_100, 0, Pace::Soon),
            (12_375, 0, Pace::Soon),
            (12_376, 0, Pace::Urgent),
            // Due are 4,125 more.
            (11_100, 25, Pace::Spare),
            (11_100, 24, Pace::Soon),
            (15_100, 999, Pace::Spare),
            (15_200, 999, Pace::Soon),
            (16_500, 999, Pace::Urgent),
        ];
        for (items, moved, wanted) in table {
            let growth = Growth { old: 1000, new: 1500, moved };
            assert_eq!(pace(items, growth), wanted, "{items} items, {moved} moved");
        }
        // A small growth is to be done sooner.
        assert_eq!(pace(11_100, Growth { old: 1000, new: 1128, moved: 90 }), Pace::Soon);
        assert_eq!(pace(11_100, Growth { old: 1000, new: 1128, moved: 100 }), Pace::Spare);
    }

    /// Whatever the number of items, what follows from it asks for nothing more.
    #[test]
    fn growth_and_shrink_do_not_chase_each_other() {
        for lines in (256..20_000).step_by(256) {
            for items in (0..lines * 12).step_by(37) {
                let items = u64::from(items);
                match aim(items, lines, 256, false) {
                    Aim::Stay => {}
                    Aim::Shrink(fewer) => nothing_follows(items, fewer, 4),
                    Aim::Grow => {
                        let half = (lines / 2).next_multiple_of(LINE_STEP);
                        nothing_follows(items, lines + half, 4);
                        nothing_follows(items, lines * 2, 5);
                    }
                }
            }
        }
    }

    /// Neither now nor when one in `part` has come, or gone again.
    fn nothing_follows(items: u64, lines: u32, part: u64) {
        let again = aim(items, lines, 256, false);
        let crowded = items >= u64::from(lines) * LOAD_MAX;
        assert!(again == Aim::Stay || crowded && again == Aim::Grow);
        let (more, fewer) = (items * (part + 1) / part, items * part / (part + 1));
        for items in [more, fewer].into_iter().filter(|_| lines > 2048) {
            assert!(crowded || aim(items, lines, 256, false) == Aim::Stay, "{items} on {lines}");
        }
    }

    #[test]
    fn an_index_grows_by_what_memory_is_left() {
        let lines = 1024;
        let table = [(0, 8), (512 << 10, 8), (513 << 10, 2), (2 << 20, 2), ((2 << 20) + 1, 1)];
        for (left, wanted) in table {
            assert_eq!(growth_divisor(lines, left, false), wanted, "{left} bytes left");
            assert_eq!(growth_divisor(lines, left, true), wanted.min(2), "{left} bytes left");
        }
    }
}
