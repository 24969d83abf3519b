//! Going through the index by hash: what a walk needs that growth and shrink must not lead astray.

use super::{Geometry, Index, LineGuard};
use slab::ChunkRef;
use std::ops::Range;

impl Geometry {
    /// From an upper half of hashes on, those that are in the same line.
    fn span(self, upper: u32) -> Range<u64> {
        let line = u64::from(self.line(u64::from(upper) << 32));
        let (old, new) = (u64::from(self.old()), u64::from(self.new_lines()));
        let boundary = u64::from(self.boundary());
        let first_of = |line: u64, lines: u64| (line << 32).div_ceil(lines);
        let end = if (line < boundary) != self.shrinking() {
            first_of(line + 1, old)
        } else if self.shrinking() {
            // What the old number puts at the boundary has not come down yet.
            first_of(line + 1, new).min(first_of(boundary, old))
        } else {
            first_of(line + 1, new)
        };
        upper.into()..end
    }
}

impl Index {
    /// Locks the line of the hashes whose upper half is `upper`, or up to the end of the span.
    /// Those are under this line and nowhere else; others may be under it too.
    pub fn lock_span(&self, upper: u32) -> (LineGuard<'_>, Range<u64>) {
        let guard = self.lock(u64::from(upper) << 32);
        (guard, self.geometry().span(upper))
    }

    /// Calls `visit` for every reference of the line, locked, that `line` counts; returns the
    /// number of its nodes. For `validate`.
    pub fn visit_line(&self, line: u32, mut visit: impl FnMut(ChunkRef)) -> u32 {
        let guard = self.lock_line(line, 0);
        guard.for_each(|_, _, chunk| visit(chunk));
        guard.nodes().count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::super::LINE_STEP;
    use super::*;

    #[test]
    fn a_span_is_all_that_a_line_holds_from_there_on() {
        for (old, new, boundary) in [(4, 4, 4), (4, 6, 4), (4, 6, 3), (6, 8, 1), (6, 8, 0)]
            .into_iter()
            .chain([(6, 4, 0), (6, 4, 3), (6, 5, 4), (8, 3, 6), (8, 3, 8)])
        {
            let [old, new] = [old, new].map(|steps| steps * LINE_STEP);
            let g = Geometry::new(old, new, boundary * LINE_STEP);
            let mut upper = 0u64;
            let mut lines = 0;
            while upper < 1 << 32 {
                let line = g.line(upper << 32);
                let span = g.span(upper as u32);
                assert!(span.contains(&upper));
                for inside in [upper, (upper + span.end) / 2, span.end - 1] {
                    assert_eq!(g.line(inside << 32), line);
                }
                assert!(span.end == 1 << 32 || g.line(span.end << 32) != line);
                (upper, lines) = (span.end, lines + 1);
            }
            assert!(
                (old.min(new)..=old.max(new)).contains(&lines),
                "{lines} lines of {old} to {new}"
            );
        }
    }
}
