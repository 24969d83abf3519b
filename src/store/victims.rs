//! How long a class's victims had been idle when they went: what `evicted_time` and `age` show.

use slab::ClassId;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Parts of a second that the mean is kept in.
const PARTS: u32 = 32;
/// The share of the mean that one more victim makes.
const WEIGHT: u32 = 16;

/// By class id. Threads that evict from one class at once may lose each other's victim, never more.
pub(super) struct Victims(Box<[Class]>);

#[derive(Default)]
struct Class {
    /// Idle seconds of the last victim since `stats reset`, plus 1; 0: none.
    last: AtomicU32,
    /// Decayed mean of the idle seconds of all, in [`PARTS`], plus 1; 0: none.
    mean: AtomicU32,
}

impl Victims {
    /// `classes` counts from 0.
    pub fn new(classes: usize) -> Victims {
        Victims((0..classes).map(|_| Class::default()).collect())
    }

    pub fn note(&self, class: ClassId, idle: u32) {
        let class = &self.0[class.index()];
        class.last.store(idle.saturating_add(1), Relaxed);
        let now = idle.saturating_mul(PARTS).min(u32::MAX - 1);
        let mean = match class.mean.load(Relaxed).checked_sub(1) {
            Some(was) if was < now => was + (now - was) / WEIGHT,
            Some(was) => was - (was - now) / WEIGHT,
            None => now,
        };
        class.mean.store(mean + 1, Relaxed);
    }

    /// Idle seconds of the last victim since the last [`Victims::forget_last`].
    pub fn last(&self, class: ClassId) -> Option<u32> {
        self.0[class.index()].last.load(Relaxed).checked_sub(1)
    }

    /// Decayed mean of the victims' idle seconds; `None` before the first.
    pub fn mean(&self, class: ClassId) -> Option<u32> {
        let mean = self.0[class.index()].mean.load(Relaxed).checked_sub(1)?;
        Some(mean.saturating_add(PARTS / 2) / PARTS)
    }

    /// `stats reset`: memcached's `evicted_time` starts again from 0, its `age` goes on.
    pub fn forget_last(&self) {
        self.0.iter().for_each(|class| class.last.store(0, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: ClassId = ClassId(2);

    #[test]
    fn the_mean_follows_the_victims() {
        let victims = Victims::new(3);
        assert_eq!((victims.last(CLASS), victims.mean(CLASS)), (None, None));
        victims.note(CLASS, 100);
        assert_eq!((victims.last(CLASS), victims.mean(CLASS)), (Some(100), Some(100)));
        victims.note(CLASS, 0);
        assert_eq!((victims.last(CLASS), victims.mean(CLASS)), (Some(0), Some(94)));
        (0..200).for_each(|_| victims.note(CLASS, 30));
        assert_eq!(victims.mean(CLASS), Some(30));
        assert_eq!(victims.mean(ClassId(1)), None, "classes are apart");
    }

    #[test]
    fn extremes_stay_within_bounds() {
        let victims = Victims::new(3);
        (0..100).for_each(|_| victims.note(CLASS, u32::MAX));
        assert_eq!(victims.last(CLASS), Some(u32::MAX - 1));
        assert!(victims.mean(CLASS).is_some_and(|mean| mean > 1 << 26));
        (0..1000).for_each(|_| victims.note(CLASS, 0));
        assert!(victims.mean(CLASS).is_some_and(|mean| mean == 0));
    }

    #[test]
    fn a_reset_forgets_the_last_and_keeps_the_mean() {
        let victims = Victims::new(3);
        victims.note(CLASS, 7);
        victims.forget_last();
        assert_eq!((victims.last(CLASS), victims.mean(CLASS)), (None, Some(7)));
    }
}
