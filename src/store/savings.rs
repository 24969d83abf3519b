//! How memory outside the pages is paid for where pages hold all of -m: they are given up one at a
//! time, and what each brings is counted as saved at once, before a class takes it for a page
//! again.

use super::flush::Horizon;
use super::shard::Shard;
use super::types::Local;
use slab::ClassId;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes charged for something that has not begun. The upkeep's thread alone changes it.
#[derive(Default)]
pub(super) struct Savings(AtomicU64);

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
        self.0.load(Relaxed)
    }

    fn set(&self, bytes: u64) {
        self.0.store(bytes, Relaxed);
    }

    /// What they were for begins, and is what is charged from now on.
    pub fn spend(&self) {
        self.set(0);
    }
}

impl Shard {
    /// Brings the savings nearer to `price` bytes, for which a page may have to be given up.
    pub fn pay(&self, l: &Local, savings: &Savings, price: u64, horizon: Horizon) -> Payment {
        if self.rules.pages_alone {
            return Payment::Whole;
        }
        let saved = savings.bytes();
        if saved >= price {
            self.slabs.discharge(saved - price);
            savings.set(price);
            return Payment::Whole;
        }
        let missing = price - saved;
        if self.slabs.charge(missing) {
            savings.set(price);
            return Payment::Whole;
        }
        let piece = missing.min(self.slabs.geometry().page_size().into());
        let had = self.slabs.charge(piece) || self.charge_for_page(l, piece, horizon);
        if !had {
            return Payment::Nothing;
        }
        savings.set(saved + piece);
        Payment::Part
    }

    /// Lets go of what was saved for something that is not needed any more.
    pub fn let_go(&self, savings: &Savings) {
        if savings.bytes() > 0 {
            self.slabs.discharge(savings.bytes());
            savings.set(0);
        }
    }

    /// Empties a page of some class, and charges `piece` bytes, no more than a page, in its place.
    fn charge_for_page(&self, l: &Local, piece: u64, horizon: Horizon) -> bool {
        self.rules.evict && self.steal_page(l, ClassId(0), horizon) && self.slabs.charge(piece)
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
