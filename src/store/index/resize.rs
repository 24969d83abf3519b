//! More lines and fewer, one line at a time, while everybody goes on.
//!
//! Multiply-shift keeps the order of hashes, so all that changes is where the ranges end. With more
//! lines every reference moves to the same line or a higher one: the mover goes from the top line
//! down, and where it has been are only references that are in their new place. With fewer lines
//! they move to the same line or a lower one, and it goes from line 0 upward. Either way no line
//! holds references of both kinds (X3): what moves from line b goes to lines at or beyond b, where
//! all is moved already.
//!
//! No lookup misses. A line's references move while its lock is held, and the boundary moves before
//! it is let go. Who waits for that line looks at the boundary again once he has it, and goes on to
//! the new place. Who looks without the lock either sees the boundary from before and the line from
//! before, or finds the line's version changed. Who sees the new boundary sees what was moved, for
//! that was written earlier.
//!
//! Nobody waits in a circle: the mover alone takes a line while it holds one, there is one mover,
//! and whoever else holds a line only tries another.
//!
//! A shrinking index gives the lines back that it has emptied. Somebody may still come to one of
//! them with an old boundary: he finds it empty and unlocked, or waits until it is, and then sees
//! that it is not his any more. Its version is lost, and goes on from the highest that was lost
//! (X4), or a reader that slept for so long could take a line that has come back for one that has
//! not changed.

use super::line::{LOCKED, Segment};
use super::nodes::MOVE_NODES;
use super::{Geometry, Index, LINE_BYTES, LINE_STEP, LINE_WORDS, LineGuard};
use crate::item::prefetch;
use slab::ChunkRef;
use slab::sync::{MODELLED, Ordering, fence};
use std::ops::Range;

use Ordering::{Relaxed, Release};

/// Lines whose memory is given back at once: whole pages of the system.
const RELEASED_LINES: u32 = if MODELLED { 2 } else { 1024 };

/// Lines ahead of the one that is moved, whose items are told to be loaded.
const WARM_AHEAD: u32 = 6;
/// Of a line's chain, so many segments.
const WARM_SEGMENTS: usize = 4;

/// What is under a line on the move, and its nodes. Kept from step to step for its memory alone.
#[derive(Default)]
pub struct Load {
    chunks: Vec<ChunkRef>,
    nodes: Vec<u32>,
    /// The chunks, each with its hash.
    hashed: Vec<(u64, ChunkRef)>,
}

/// How far a growth is.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    /// Lines before it, and once it is done.
    pub old: u32,
    pub new: u32,
    /// Of those before it, what is moved.
    pub moved: u32,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A line was moved, and so many bytes of lines were given back.
    Moved(u64),
    /// There are no nodes to be had.
    Stuck,
    /// There is nothing more to be done.
    Done,
}

impl Geometry {
    /// The line to be moved next; `None` where all are.
    fn source(self) -> Option<u32> {
        match self.shrinking() {
            true => Some(self.boundary()).filter(|line| *line < self.old()),
            false => self.boundary().checked_sub(1),
        }
    }

    /// After `source` was moved.
    fn after(self, source: u32) -> Geometry {
        let boundary = if self.shrinking() { source + 1 } else { source };
        Geometry::new(self.old(), self.new_lines(), boundary)
    }

    /// Lines that are emptied and not given back yet, if it is time to.
    fn given_up(self) -> Option<Range<u32>> {
        let end = self.boundary();
        let due = end.is_multiple_of(RELEASED_LINES) || end == self.old();
        let start = (end.saturating_sub(1) / RELEASED_LINES * RELEASED_LINES).max(self.new_lines());
        (self.shrinking() && due && start < end).then_some(start..end)
    }

    /// Lines that have memory, or may have it at any time.
    pub(super) fn backed(self) -> u32 {
        if !self.shrinking() {
            return self.new_lines();
        }
        let whole = self.boundary() / RELEASED_LINES * RELEASED_LINES;
        let released = if self.boundary() == self.old() { self.old() } else { whole };
        self.old() - released.saturating_sub(self.new_lines())
    }

    /// The lines that what is in `line` now goes to.
    fn targets(self, line: u32) -> [u32; 2] {
        let [old, new] = [self.old(), self.new_lines()].map(u64::from);
        let end = (u64::from(line) + 1) * new;
        [(u64::from(line) * new / old) as u32, ((end - 1) / old) as u32]
    }
}

impl Index {
    /// Starts to change to `lines` (a multiple of [`LINE_STEP`], within floor and ceiling, at most
    /// twice as many as now): from now on [`Index::step`] has work. One thread alone may do both.
    pub fn start(&self, lines: u32) {
        let old = self.len();
        assert!(!self.is_resizing() && lines != old && lines.is_multiple_of(LINE_STEP));
        assert!(self.floor() <= lines && lines <= self.ceiling().min(old.saturating_mul(2)));
        let boundary = if lines > old { old } else { 0 };
        self.geometry.store(Geometry::new(old, lines, boundary).0, Release);
    }

    /// How far it has grown, while it does.
    pub fn growth(&self) -> Option<Growth> {
        let g = self.geometry();
        let (old, new) = (g.old(), g.new_lines());
        g.growing().then(|| Growth { old, new, moved: old - g.boundary() })
    }

    /// Moves the references of the next line to where they belong from now on. `warm` is told of
    /// chunks whose hash `hash_of` will be asked for, in this step or soon.
    pub fn step(
        &self,
        load: &mut Load,
        warm: impl Fn(ChunkRef),
        hash_of: impl FnMut(ChunkRef) -> u64,
    ) -> Step {
        let g = self.geometry();
        if g.old() == g.new_lines() {
            return Step::Done;
        }
        let Some(line) = g.source() else {
            self.geometry.store(Geometry::settled(g.new_lines()).0, Release);
            return Step::Done;
        };
        if self.spare_nodes() < MOVE_NODES {
            return Step::Stuck;
        }
        self.prepare(g, line, warm);
        let next = g.after(line);
        let mut source = self.lock_line(line, 0);
        self.move_from(&mut source, load, (line, next), hash_of);
        self.geometry.store(next.0, Release);
        drop(source);
        Step::Moved(next.given_up().map_or(0, |lines| self.release(lines)))
    }

    /// Moves what is in the last block of nodes to lower ones, if more than `kept` nodes would be
    /// free without it: one at least, until `is_over` says so. Returns how many it moved.
    pub fn gather(
        &self,
        kept: u32,
        is_over: impl Fn() -> bool,
        hash_of: impl Fn(ChunkRef) -> u64,
    ) -> usize {
        let used = self.nodes.last_used(kept).into_iter().enumerate();
        let used = used.take_while(|(n, _)| *n == 0 || !is_over());
        used.filter(|(_, node)| {
            // A guess, as the line is not locked: it is good if the node is found there.
            let first = self.nodes.segment(*node).map_or(0, |segment| segment.reference(0));
            ChunkRef::from_u32(first)
                .is_some_and(|chunk| self.lock(hash_of(chunk)).lower_node(*node))
        })
        .count()
    }

    /// Has the memory at hand that is needed under the lock, and sends for what the next steps will
    /// want.
    fn prepare(&self, g: Geometry, line: u32, warm: impl Fn(ChunkRef)) {
        let ahead = match g.shrinking() {
            true => Some(line + WARM_AHEAD).filter(|line| *line < g.old()),
            false => line.checked_sub(WARM_AHEAD),
        };
        if let Some(ahead) = ahead {
            for target in g.targets(ahead) {
                prefetch(&self.lines, target as usize * LINE_WORDS);
            }
            // Unlocked, so that it may lead in circles.
            let next = |s: &Segment<'_>| s.link().and_then(|node| self.nodes.segment(node));
            let first = Segment::of_line(self.line_words(ahead));
            for segment in std::iter::successors(Some(first), next).take(WARM_SEGMENTS) {
                let slots = segment.slots.iter();
                slots.filter_map(|s| ChunkRef::from_u32(s.load(Relaxed))).for_each(&warm);
            }
        }
        if g.growing() && !MODELLED {
            for target in g.targets(line) {
                // Changes nothing, but has the system bring the page now.
                self.line_words(target)[LINE_WORDS - 1].fetch_or(0, Relaxed);
            }
        }
    }

    /// Empties a line and puts what was under it where it belongs now: under the line itself and
    /// one or two others, each of which is locked once.
    fn move_from<'a>(
        &'a self,
        source: &mut LineGuard<'a>,
        load: &mut Load,
        (line, next): (u32, Geometry),
        mut hash_of: impl FnMut(ChunkRef) -> u64,
    ) {
        let Load { chunks, nodes, hashed } = load;
        source.drain(chunks, nodes);
        hashed.extend(chunks.drain(..).map(|chunk| (hash_of(chunk), chunk)));
        while let Some(&(first, _)) = hashed.last() {
            let target = next.line(first);
            let mut other = (target != line).then(|| self.lock_line(target, first));
            let guard = other.as_mut().unwrap_or(&mut *source);
            hashed.retain(|&(hash, chunk)| {
                let stays = next.line(hash) != target;
                if !stays {
                    let mut take = || nodes.pop().map_or_else(|| self.nodes.take_for_move(), Ok);
                    guard.insert_with(hash, chunk, &mut take).expect("nodes are kept for moves");
                }
                stays
            });
        }
        nodes.drain(..).for_each(|node| self.nodes.put(node));
    }

    /// Gives the memory of emptied lines back; returns its bytes.
    fn release(&self, lines: Range<u32>) -> u64 {
        // Nobody is at them while their locks vanish.
        let guards: Vec<_> = lines.clone().map(|line| self.lock_line(line, 0)).collect();
        let newest = guards.iter().map(|guard| guard.version() & !LOCKED).max().unwrap_or(0);
        self.restart.store(newest.max(self.restart.load(Relaxed)), Relaxed);
        // Whoever sees a line without version and lock sees the boundary that is beyond it.
        fence(Release);
        let words = lines.start as usize * LINE_WORDS..lines.end as usize * LINE_WORDS;
        // Otherwise they stay as they are, empty, and are charged again when they are used again.
        if self.lines.release(words).is_ok() {
            guards.into_iter().for_each(std::mem::forget);
        }
        u64::from(lines.end - lines.start) * LINE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::nodes::BLOCK_NODES;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// What a made-up case does to an index.
    #[derive(Clone, Debug)]
    enum Op {
        Fill(Range<u32>),
        Empty(Range<u32>),
        /// In eighths of what it is.
        Resize(u32),
        Steps(u32),
        Trim,
    }

    fn op() -> impl Strategy<Value = Op> {
        let range = || (0u32..12_000, 1u32..3_000).prop_map(|(from, len)| from..from + len);
        prop_oneof![
            3 => range().prop_map(Op::Fill),
            3 => range().prop_map(Op::Empty),
            3 => (1u32..17).prop_map(Op::Resize),
            4 => (1u32..400).prop_map(Op::Steps),
            1 => Just(Op::Trim),
        ]
    }

    /// An index of chunks whose numbers are their keys.
    struct Model {
        index: Index,
        held: BTreeSet<u32>,
        walk: Walk,
    }

    /// A walk by hash, and what it saw.
    #[derive(Default)]
    struct Walk {
        upper: u64,
        seen: BTreeSet<u32>,
        /// What was there all the time.
        throughout: BTreeSet<u32>,
    }

    fn chunk(n: u32) -> ChunkRef {
        ChunkRef::from_u32(n + 1).expect("not 0")
    }

    fn hash_of(chunk: ChunkRef) -> u64 {
        let mixed = u64::from(chunk.to_u32()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
    }

    impl Model {
        fn new() -> Model {
            let index = Index::new(LINE_STEP, LINE_STEP * 16).expect("address space");
            Model { index, held: BTreeSet::new(), walk: Walk::default() }
        }

        fn run(&mut self, op: &Op) {
            match op {
                Op::Fill(range) => range.clone().for_each(|n| self.insert(n)),
                Op::Empty(range) => range.clone().for_each(|n| self.remove(n)),
                Op::Resize(eighths) if !self.index.is_resizing() => {
                    let lines = (self.index.len() / 8 * eighths).next_multiple_of(LINE_STEP);
                    let lines = lines.clamp(self.index.floor(), self.index.ceiling());
                    if lines != self.index.len() {
                        self.index.start(lines);
                    }
                }
                Op::Resize(_) => {}
                Op::Steps(steps) => (0..*steps).for_each(|_| {
                    self.step();
                    self.walk();
                }),
                Op::Trim => {
                    let (bytes, spare) = (self.index.bytes(), self.index.spare_nodes());
                    self.index.gather(64, || false, hash_of);
                    let trimmed = self.index.trim_nodes(64);
                    assert_eq!(self.index.bytes(), bytes - trimmed);
                    assert!(self.index.spare_nodes() >= 64.min(spare));
                }
            }
        }

        fn step(&self) -> Step {
            let bytes = self.index.bytes();
            let step = self.index.step(&mut Load::default(), |_| (), hash_of);
            match step {
                Step::Moved(freed) => assert_eq!(self.index.bytes(), bytes - freed),
                Step::Done => assert_eq!(self.index.bytes(), bytes),
                Step::Stuck => assert!(self.index.add_nodes()),
            }
            step
        }

        /// Looks at one line more. Around, it has seen once what was there throughout.
        fn walk(&mut self) {
            let walk = &mut self.walk;
            let (line, span) = self.index.lock_span(walk.upper as u32);
            line.for_each(|_, _, chunk| {
                let due = span.contains(&(hash_of(chunk) >> 32));
                assert!(!due || walk.seen.insert(chunk.to_u32() - 1), "twice");
            });
            walk.upper = span.end;
            if walk.upper == 1 << 32 {
                assert!(walk.throughout.is_subset(&walk.seen), "missed");
                *walk = Walk { throughout: self.held.clone(), ..Walk::default() };
            }
        }

        fn insert(&mut self, n: u32) {
            if self.held.insert(n) {
                let mut line = self.index.lock(hash_of(chunk(n)));
                if line.insert(chunk(n)).is_err() {
                    assert!(self.index.add_nodes() && line.insert(chunk(n)).is_ok());
                }
            }
        }

        fn remove(&mut self, n: u32) {
            let mut line = self.index.lock(hash_of(chunk(n)));
            let found = line.find(|c| c == chunk(n));
            assert_eq!(found.is_some(), self.held.remove(&n));
            self.walk.throughout.remove(&n);
            if let Some((slot, _)) = found {
                line.remove(slot);
            }
        }

        /// X3, and all is there that should be and nothing else.
        fn check(&self) {
            let mut nodes = 0;
            let mut seen = BTreeSet::new();
            for line in 0..self.index.span() {
                nodes += self.index.visit_line(line, |chunk| {
                    assert_eq!(self.index.geometry().line(hash_of(chunk)), line);
                    assert!(seen.insert(chunk.to_u32() - 1), "twice");
                });
            }
            assert_eq!(seen, self.held);
            assert_eq!(nodes, self.index.used_nodes());
            for n in (0..15_000).step_by(11) {
                let read = self.index.look(hash_of(chunk(n)), |c| (c == chunk(n)).then_some(()));
                let (found, seen) = read.expect("nobody writes");
                assert!(self.index.is_as_seen(seen));
                assert_eq!(found.is_some(), self.held.contains(&n));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(64)
        })]

        #[test]
        fn every_reference_is_found_where_it_belongs(ops in prop::collection::vec(op(), 1..24)) {
            let mut model = Model::new();
            for op in &ops {
                model.run(op);
                model.check();
            }
            while model.step() != Step::Done || model.walk.upper != 0 {
                model.walk();
            }
            model.run(&Op::Empty(0..15_000));
            assert_eq!(model.index.used_nodes(), 0);
        }
    }

    /// While a line is moved, others may take every node that they can get.
    #[test]
    fn lines_move_when_others_take_all_nodes() {
        for (from, to) in [(LINE_STEP, LINE_STEP * 2), (LINE_STEP * 2, LINE_STEP)] {
            let index = Index::new(LINE_STEP, LINE_STEP * 2).expect("address space");
            if from > to {
                index.start(from);
                while index.step(&mut Load::default(), |_| (), |_| unreachable!()) != Step::Done {}
            }
            // All belong to line 0, with any number of lines.
            for n in 0..60 {
                assert!(index.lock(0).insert(chunk(n)).is_ok());
            }
            index.start(to);
            let take_all = |_| {
                while index.nodes.take().is_ok() {}
                0
            };
            while index.step(&mut Load::default(), |_| (), take_all) != Step::Done {}
            assert!((0..60).all(|n| index.lock(0).find(|c| c == chunk(n)).is_some()));
            assert_eq!(index.spare_nodes(), MOVE_NODES);
        }
    }

    #[test]
    fn nodes_gather_at_the_bottom() {
        let mut model = Model::new();
        model.run(&Op::Fill(0..9_000));
        let many = model.index.bytes();
        // Those of the lines that come last are left.
        let (_, high): (Vec<u32>, Vec<u32>) = (0..9_000)
            .partition(|n| model.index.geometry().line(hash_of(chunk(*n))) < LINE_STEP * 7 / 8);
        (0..9_000).filter(|n| !high.contains(n)).for_each(|n| model.remove(n));
        let (used, mut moved) = (model.index.used_nodes(), 0);
        loop {
            let now = model.index.gather(64, || false, hash_of);
            moved += now;
            if model.index.trim_nodes(64) == 0 && now == 0 {
                break;
            }
        }
        model.check();
        assert!(moved > 0 && model.index.used_nodes() == used);
        assert!(model.index.spare_nodes() < 64 + BLOCK_NODES, "of {used}");
        assert!(model.index.bytes() < many);
    }

    /// X4
    #[test]
    fn a_line_that_comes_back_has_a_new_version() {
        let model = Model::new();
        let resize = |lines| {
            model.index.start(lines);
            while model.step() != Step::Done {}
        };
        let version = || model.index.line_words(LINE_STEP + 7)[0].load(Relaxed);
        let mut newest = 0;
        for round in 0..5 {
            resize(LINE_STEP * 2);
            assert_eq!(version(), 0, "new memory");
            for _ in 0..=round * 3 {
                model.index.lock_line(LINE_STEP + 7, 0).dirty();
                assert!(version() > newest);
                newest = version();
            }
            resize(LINE_STEP);
        }
    }
}
