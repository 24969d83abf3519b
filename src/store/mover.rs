//! Pages from one slab class to another.

use super::Store;
use slab::ClassId;

/// What became of `slabs reassign`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reassign {
    Ok,
    /// A page is on its way already.
    Running,
    BadClass,
    /// The source has fewer than two pages.
    NoSpare,
    /// Source and destination are the same.
    Same,
}

impl Store {
    /// Moves a page from class `src` (-1: any that can spare one) to class `dst`; 0 is the pool of
    /// free pages.
    pub fn reassign(&self, src: i32, dst: i32) -> Reassign {
        if src == dst {
            return Reassign::Same;
        }
        let pages = |class: ClassId| -> usize {
            self.shards.iter().map(|s| s.slabs.lock(class).pages().len()).sum()
        };
        let geometry = self.shards[0].slabs.geometry();
        let largest = i32::from(geometry.largest().0);
        let src = match src {
            -1 => geometry.classes().find(|c| i32::from(c.0) != dst && pages(*c) > 1),
            src => u16::try_from(src).ok().map(ClassId),
        };
        let Some(src) = src.filter(|c| i32::from(c.0) <= largest && (0..=largest).contains(&dst))
        else {
            return Reassign::BadClass;
        };
        if src.0 == 0 || pages(src) < 2 { Reassign::NoSpare } else { Reassign::Running }
    }
}
