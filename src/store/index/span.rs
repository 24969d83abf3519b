//! Going through the index by hash: what a walk needs that must not be led astray by growth.

use super::{Geometry, Index, LineGuard};
use slab::ChunkRef;
use std::ops::Range;

impl Geometry {
    /// The upper halves of the hashes that the line of one of them can hold.
    fn span(self, upper: u32) -> Range<u64> {
        let line = u64::from(self.line(u64::from(upper) << 32));
        let old = line < u64::from(self.boundary());
        let lines = u64::from(if old { self.old() } else { self.new_lines() });
        (line << 32).div_ceil(lines)..((line + 1) << 32).div_ceil(lines)
    }
}

impl Index {
    /// Locks the line of the hashes whose upper half is `upper`. All hashes from there to the end
    /// of the span belong to this line, whatever the index does meanwhile; lower ones of the span
    /// may do so or not.
    pub fn lock_span(&self, upper: u32) -> (LineGuard<'_>, Range<u64>) {
        let guard = self.lock(u64::from(upper) << 32);
        (guard, self.geometry().span(upper))
    }

    /// Calls `visit` for every reference of the line, locked, that `line` counts; for
    /// `validate`.
    pub fn visit_line(&self, line: u32, mut visit: impl FnMut(ChunkRef)) {
        let guard = self.lock_line(line, 0);
        guard.for_each(|_, _, chunk| visit(chunk));
    }
}

#[cfg(test)]
mod tests {
    use super::super::LINE_STEP;
    use super::*;

    #[test]
    fn a_span_is_all_that_a_line_holds_from_there_on() {
        for (old, new, boundary) in [(4, 4, 4), (4, 6, 4), (4, 6, 3), (6, 8, 1), (6, 8, 0)] {
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
            assert!((old..=new).contains(&lines), "{lines} lines of {old} to {new}");
        }
    }
}
