//! Whether a class is one queue or is split in probation and a main part: the two are compared in
//! miniature, on a sample of the keys, and each class follows the one that hits more.
//!
//! A class starts as one queue, as memcached's is: an item stays until as much was stored after it
//! as the class holds, and once more where it was read twice. Keys that are written once and read
//! once, late, need that. Most traffic hits more where the class is split as S3-FIFO has it: what
//! is not read soon goes soon. A class is split when that is shown, and one queue again when a
//! notable part of its hits is at stake. A class with few sampled requests goes by those of all
//! classes.

use super::miniature::{Miniature, Outcome, Room};
use crate::clock::Seconds;
use crate::store::flush::Horizon;
use parking_lot::Mutex;
use slab::ClassId;
use slab::sync::MODELLED;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// Items of the sample that are aimed at: a half to all of these.
const SAMPLE: u64 = 2048;
/// One key in so many at the least: what is spent on the sample is spent by requests.
const SPARSE_MIN: u32 = 3;
/// Entries of the simulations, beyond which the sample is made sparser whatever the items are.
const ENTRIES_MAX: usize = 4 * SAMPLE as usize;
/// Standard deviations that a lead must have, and the part of the hits that must be at stake, for a
/// class to be split, and for it to be one queue again.
const TO_SPLIT: (f64, f64) = (2.0, 0.002);
const TO_WHOLE: (f64, f64) = (3.0, 0.01);
/// Gets that differ, from which on a class goes by its own.
const DIFFER_MIN: f64 = 16.0;
/// What is left of the evidence after as many sampled gets as a class has items in the sample, but
/// at least so many.
const FADE: f64 = 0.5;
const FADE_MIN: f64 = 512.0;
/// A mask that no hash passes but by chance.
const OFF: u32 = u32::MAX;

/// What a class has room for.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct Capacity {
    /// Items, as they are now on the mean.
    pub items: u64,
    /// Of those, in probation by its share, in thousandths.
    pub probation: u32,
}

/// Sampled gets of late, fading.
#[derive(Clone, Copy, Debug, Default)]
struct Evidence {
    gets: f64,
    split_only: f64,
    whole_only: f64,
    either: f64,
}

#[derive(Default)]
struct Arena {
    miniature: Miniature,
    evidence: Vec<Evidence>,
    /// Items of the sample in each class, after which evidence fades.
    items: Vec<usize>,
    all: Evidence,
    /// The flush that what is simulated came after.
    flush: Seconds,
}

pub(in crate::store) struct Duel {
    /// Keys whose hash has none of these bits are in the sample.
    mask: AtomicU32,
    /// Classes that are one queue.
    whole: Box<[AtomicBool]>,
    /// Tried, never waited for: who finds it locked leaves its key out.
    arena: Mutex<Arena>,
}

impl Evidence {
    fn add(&mut self, Outcome { split, whole, .. }: Outcome) {
        self.gets += 1.0;
        self.split_only += f64::from(u8::from(split && !whole));
        self.whole_only += f64::from(u8::from(whole && !split));
        self.either += f64::from(u8::from(whole || split));
    }

    fn fade(&mut self) {
        for part in [&mut self.gets, &mut self.split_only, &mut self.whole_only, &mut self.either] {
            *part *= FADE;
        }
    }

    fn differ(&self) -> f64 {
        self.split_only + self.whole_only
    }

    /// Whether a class that is `whole` now should be.
    fn judge(&self, whole: bool) -> bool {
        let lead = self.whole_only - self.split_only;
        let beyond = |lead: f64, (doubt, stake): (f64, f64)| {
            lead > doubt * self.differ().sqrt() && lead > stake * self.either
        };
        if whole { !beyond(-lead, TO_SPLIT) } else { beyond(lead, TO_WHOLE) }
    }
}

impl Duel {
    /// For classes counted from 0.
    pub fn new(classes: usize) -> Duel {
        let whole = (0..classes).map(|_| AtomicBool::new(true)).collect();
        Duel { mask: AtomicU32::new(OFF), whole, arena: Mutex::default() }
    }

    /// True where the class is to be one queue.
    #[inline]
    pub fn is_whole(&self, class: ClassId) -> bool {
        self.whole[class.index()].load(Relaxed)
    }

    /// True for keys that are in the sample.
    #[inline(always)]
    pub fn samples(&self, hash: u64) -> bool {
        !MODELLED && hash as u32 & self.mask.load(Relaxed) == 0
    }

    /// A sampled key was read; `found` says its class and deadline where it was there.
    #[cold]
    pub fn read(&self, hash: u64, found: Option<(ClassId, Seconds)>, horizon: Horizon) {
        let Some(mut arena) = self.arena.try_lock() else { return };
        arena.begin(horizon);
        let found = found.map(|(class, deadline)| (class.index(), deadline));
        let Some(outcome) = arena.miniature.read(name(hash), found, horizon.now) else { return };
        let whole = &self.whole[outcome.class];
        let is = whole.load(Relaxed);
        let should = arena.weigh(outcome, is);
        if should != is {
            whole.store(should, Relaxed);
        }
    }

    /// A sampled key was stored.
    #[cold]
    pub fn stored(&self, hash: u64, class: ClassId, deadline: Seconds, horizon: Horizon) {
        let Some(mut arena) = self.arena.try_lock() else { return };
        arena.begin(horizon);
        arena.miniature.store(name(hash), class.index(), deadline, horizon.now);
    }

    /// A sampled key was evicted.
    #[cold]
    pub fn evicted(&self, hash: u64) {
        if let Some(mut arena) = self.arena.try_lock() {
            arena.miniature.evicted(name(hash));
        }
    }

    /// A sampled key was deleted.
    #[cold]
    pub fn removed(&self, hash: u64) {
        if let Some(mut arena) = self.arena.try_lock() {
            arena.miniature.remove(name(hash));
        }
    }

    /// Says what the classes, from the first on, have room for, and how many items there will be
    /// when memory is in use to its limit; `full`: that it is by now.
    pub fn fit(&self, capacities: &[Capacity], items: u64, full: bool) {
        let Some(mut arena) = self.arena.try_lock() else { return };
        let sparse = self.sparse(items, arena.miniature.len());
        let mask = ((1u64 << sparse) - 1) as u32;
        if self.mask.swap(mask, Relaxed) != mask {
            arena.miniature.retain(|name| name & mask == 0);
        }
        let room = |c: &Capacity| {
            let items = (c.items >> sparse) as usize;
            Room { items, probation: (items * c.probation as usize / 1000).max(1), full }
        };
        // Class 0 is none.
        let none = Capacity::default();
        let all = || std::iter::once(&none).chain(capacities);
        arena.miniature.resize(all().map(room));
        arena.evidence.resize(capacities.len() + 1, Evidence::default());
        arena.items = all().map(|c| (c.items >> sparse) as usize).collect();
    }

    /// One key in two to the power of this is in the sample. It becomes sparser when there are too
    /// many, and denser only when there are far too few, lest it change to and fro.
    fn sparse(&self, items: u64, entries: usize) -> u32 {
        let mask = self.mask.load(Relaxed);
        let wanted = (items / SAMPLE).max(1).ilog2() + u32::from(items > SAMPLE);
        let wanted = wanted.max(SPARSE_MIN);
        if mask == OFF {
            return wanted;
        }
        let is = mask.count_ones();
        match wanted {
            _ if entries > ENTRIES_MAX => is + 1,
            wanted if wanted > is || wanted + 2 <= is => wanted,
            _ => is,
        }
    }

    /// Ends all of it: another policy is in force.
    pub fn end(&self) {
        if self.mask.swap(OFF, Relaxed) == OFF {
            return;
        }
        self.whole.iter().for_each(|whole| whole.store(true, Relaxed));
        *self.arena.lock() = Arena::default();
    }
}

impl Arena {
    /// What was flushed since is gone.
    fn begin(&mut self, horizon: Horizon) {
        if self.flush != horizon.flush {
            self.flush = horizon.flush;
            self.miniature.forget();
        }
    }

    /// Adds one get to the evidence; whether its class, which is `whole` now, should be.
    fn weigh(&mut self, outcome: Outcome, whole: bool) -> bool {
        self.all.add(outcome);
        if self.all.gets > FADE_MIN + 2.0 * SAMPLE as f64 {
            self.all.fade();
        }
        let evidence = &mut self.evidence[outcome.class];
        evidence.add(outcome);
        if evidence.gets > FADE_MIN + 2.0 * self.items[outcome.class] as f64 {
            evidence.fade();
        }
        let own = evidence.differ() >= DIFFER_MIN;
        if own { evidence.judge(whole) } else { self.all.judge(whole) }
    }
}

/// What a sampled key is known by: the bits that pick it, and the rest of their half.
fn name(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::flush::Flush;
    use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

    const CLASS: ClassId = ClassId(1);
    /// Items that the class has room for.
    const ITEMS: u64 = 8_000;

    /// A duel about a cache that holds the last [`ITEMS`] keys that were stored.
    struct Cache {
        duel: Duel,
        horizon: Horizon,
        stored: std::collections::VecDeque<u64>,
    }

    fn hash(key: u64) -> u64 {
        rapidhash_v3_seeded(&key.to_le_bytes(), &RapidSecrets::seed(3))
    }

    impl Cache {
        fn new() -> Cache {
            let duel = Duel::new(2);
            duel.fit(&[Capacity { items: ITEMS, probation: 100 }], ITEMS, true);
            Cache { duel, horizon: Flush::new().horizon(1000), stored: Default::default() }
        }

        fn set(&mut self, key: u64) {
            if self.duel.samples(hash(key)) {
                self.duel.stored(hash(key), CLASS, 0, self.horizon);
            }
            self.stored.push_back(key);
            if self.stored.len() as u64 > ITEMS
                && let Some(oldest) = self.stored.pop_front()
                && self.duel.samples(hash(oldest))
            {
                self.duel.evicted(hash(oldest));
            }
        }

        fn get(&mut self, key: u64, hit: bool) {
            if self.duel.samples(hash(key)) {
                self.duel.read(hash(key), hit.then_some((CLASS, 0)), self.horizon);
            }
        }

        /// Keys that are stored, each read once when so many were stored after it.
        fn read_once(&mut self, from: u64, later: u64) {
            for key in from..from + 4 * ITEMS {
                self.set(key);
                if key >= from + later {
                    self.get(key - later, true);
                }
            }
        }

        /// A loop over somewhat more keys than there is room for, each stored where it missed.
        fn go_round(&mut self, from: u64) {
            for n in 0..12 * ITEMS {
                let key = from + n % (ITEMS / 4 * 5);
                self.get(key, false);
                self.set(key);
            }
        }
    }

    #[test]
    fn a_class_begins_as_one_queue_and_stays_so_where_keys_are_read_once_and_late() {
        let mut cache = Cache::new();
        assert!(cache.duel.is_whole(CLASS));
        cache.read_once(0, ITEMS / 4 * 3);
        assert!(cache.duel.is_whole(CLASS));
    }

    #[test]
    fn a_loop_splits_it_and_late_reads_make_it_one_again() {
        let mut cache = Cache::new();
        cache.go_round(1 << 32);
        assert!(!cache.duel.is_whole(CLASS));
        cache.read_once(2 << 32, ITEMS / 4 * 3);
        assert!(cache.duel.is_whole(CLASS));
    }

    #[test]
    fn a_sample_stays_small_whatever_there_is() {
        let mut cache = Cache::new();
        for key in 0..400_000 {
            cache.set(key);
            if key % 1000 == 0 {
                let items = ITEMS.max(key / 2);
                cache.duel.fit(&[Capacity { items, probation: 100 }], items, true);
            }
        }
        let entries = cache.duel.arena.lock().miniature.len();
        assert!((200..=ENTRIES_MAX + 200).contains(&entries), "{entries}");
    }

    #[test]
    fn a_flush_and_another_policy_end_it() {
        let mut cache = Cache::new();
        (0..4000).for_each(|key| cache.set(key));
        let flush = Flush::new();
        flush.flush(1000, None);
        cache.horizon = flush.horizon(1000);
        cache.set((0..).find(|key| cache.duel.samples(hash(*key))).expect("one of the sample"));
        assert_eq!(cache.duel.arena.lock().miniature.len(), 1);
        cache.duel.end();
        assert!((0..100_000).all(|key| !cache.duel.samples(hash(key))));
    }
}
