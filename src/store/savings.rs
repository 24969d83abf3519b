//! How memory outside the pages is paid for where pages hold all of -m: they are given up one at a
//! time, and what each brings is counted as saved at once, before a class takes it for a page
//! again.

use super::flush::Horizon;
use super::shard::Shard;
use super::steal::{Steal, Stolen};
use super::types::Local;
use parking_lot::Mutex;
use slab::ClassId;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes charged for something that has not begun, and the page that is being emptied for more of
/// them. The upkeep's thread alone changes it.
#[derive(Default)]
pub(super) struct Savings {
    bytes: AtomicU64,
    steal: Mutex<Option<Steal>>,
}

/// What a shard saves up for.
#[derive(Default)]
pub(super) struct AllSavings {
    /// Of the index.
    pub lines: Savings,
    pub nodes: Savings,
    pub ghosts: Savings,
}

/// How far a price is saved up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payment {
    Whole,
    Part,
    Nothing,
}

impl Savings {
    fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    fn set(&self, bytes: u64) {
        self.bytes.store(bytes, Relaxed);
    }

    /// True where something is saved, or on its way: what that takes is a reason to go on.
    pub fn are_begun(&self) -> bool {
        self.bytes() > 0 || self.steal.lock().is_some()
    }

    /// What they were for begins, and is what is charged from now on.
    pub fn spend(&self) {
        self.set(0);
    }
}

impl Shard {
    /// Brings the savings nearer to `price` bytes, for which a page may have to be given up, a step
    /// of which is done then.
    pub fn pay(&self, l: &Local, savings: &Savings, price: u64, horizon: Horizon) -> Payment {
        if self.rules.pages_alone {
            return Payment::Whole;
        }
        let saved = savings.bytes();
        if saved >= price {
            self.slabs.discharge(saved - price);
        } else if !self.slabs.charge(price - saved) {
            return self.pay_by_page(l, savings, price - saved, horizon);
        }
        savings.set(price);
        self.end_steal(savings);
        Payment::Whole
    }

    /// Charges as much of `missing` as a page has, where need be for one that is emptied.
    fn pay_by_page(&self, l: &Local, savings: &Savings, missing: u64, horizon: Horizon) -> Payment {
        let piece = missing.min(self.slabs.geometry().page_size().into());
        if !self.slabs.charge(piece) {
            match self.go_on_stealing(l, savings, horizon) {
                Stolen::NotYet => return Payment::Part,
                Stolen::Page if self.slabs.charge(piece) => {}
                _ => return Payment::Nothing,
            }
        }
        savings.set(savings.bytes() + piece);
        Payment::Part
    }

    fn go_on_stealing(&self, l: &Local, savings: &Savings, horizon: Horizon) -> Stolen {
        if !self.rules.evict {
            return Stolen::Nothing;
        }
        let mut under_way = savings.steal.lock();
        if under_way.is_none() && self.rules.steal && self.give_empty(ClassId(0), horizon) {
            return Stolen::Page;
        }
        let mut steal = under_way.take().unwrap_or_else(|| self.plan_steal(ClassId(0)));
        let stolen = self.steal_step(l, &mut steal, horizon);
        if stolen == Stolen::NotYet {
            *under_way = Some(steal);
        }
        stolen
    }

    /// Lets go of what was saved for something that is not needed any more.
    pub fn let_go(&self, savings: &Savings) {
        self.end_steal(savings);
        if savings.bytes() > 0 {
            self.slabs.discharge(savings.bytes());
            savings.set(0);
        }
    }

    fn end_steal(&self, savings: &Savings) {
        if let Some(steal) = savings.steal.lock().take() {
            self.abandon(steal);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;
    use crate::store::testing::Bench;

    /// The class that had to give a page takes any that it finds, as its items go on coming.
    #[test]
    fn nodes_are_had_though_pages_hold_all_and_items_go_on_coming() {
        let b = Bench::new(Settings { maxbytes: 2 << 20, ..Settings::default() });
        b.fill("k", 60_000, 60);
        b.settle();
        let (index, kept) = (&b.shard().index, b.shard().nodes_kept());
        while index.spare_nodes() > 1 {
            index.lose_node();
        }
        for n in 0..5_000 {
            b.set(&format!("j{n:05}"), 60);
            if n % 16 == 0 {
                b.tick();
            }
        }
        assert!(index.spare_nodes() > kept / 2, "{} of {kept}", index.spare_nodes());
    }
}
