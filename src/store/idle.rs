//! A class that fills up in a burst takes pages of a class that nobody uses meanwhile.
//!
//! What a page is worth to whom the mover finds out from thousands of requests, in its own time; a
//! burst of values of a new size is over by then, and has evicted nothing but itself. So each time
//! a class has evicted as many items as it has chunks, its allocation looks at the class with the
//! most pages: where no item of that was read or stored since the last look, the class doubles its
//! pages at the other's cost. It ends where the other is used, or at a small share of all pages.

use super::evict::{Class, Surge};
use super::flush::Horizon;
use super::shard::Shard;
use super::types::Local;
use slab::{ChunkRef, ClassId};

/// Of all pages, one in so many are a class's at the most by this.
const SHARE: u64 = 8;
impl Shard {
    /// A chunk on a page of a class that nobody uses, where the caller's is due one; or the class
    /// again.
    #[inline]
    pub fn take_of_idle<'a>(
        &'a self,
        l: &Local,
        mut class: Class<'a>,
        horizon: Horizon,
    ) -> Result<ChunkRef, Class<'a>> {
        let chunks = class.total_chunks();
        if !self.rules.steal || chunks == 0 || !class.surge.is_due(chunks) {
            return Err(class);
        }
        let id = class.class();
        drop(class);
        self.take_of_giver(l, id, horizon).ok_or_else(|| self.slabs.lock(id))
    }

    #[cold]
    fn take_of_giver(&self, l: &Local, id: ClassId, horizon: Horizon) -> Option<ChunkRef> {
        let granted = self.slabs.lock(id).surge.granted;
        if granted == 0 {
            self.look_for_idle(l, id);
        }
        let giver = {
            let surge = &mut self.slabs.lock(id).surge;
            surge.granted = surge.granted.checked_sub(1)?;
            surge.giver
        };
        let stolen = self.steal_from(l, id, giver, horizon);
        if !stolen {
            self.slabs.lock(id).surge.granted = 0;
        }
        stolen.then(|| self.take_free(id, true)).flatten()
    }

    /// Notes what the class with the most pages is used, and whether it was since the last look.
    fn look_for_idle(&self, l: &Local, id: ClassId) {
        let pages_of = |class| self.slabs.lock(class).pages().len() as u64;
        let others = self.slabs.geometry().classes().filter(|class| *class != id);
        let Some(giver) = others.max_by_key(|class| pages_of(*class)) else { return };
        let (uses, pages) = (l.stats.uses(giver.index()), pages_of(giver));
        let most = u64::from(self.slabs.pages_touched()) / SHARE;
        let mut class: Class<'_> = self.slabs.lock(id);
        let has = class.pages().len() as u64;
        let is_idle = class.surge.giver == giver && class.surge.uses == uses;
        let more = if is_idle && pages > has { has.min(most.saturating_sub(has)) } else { 0 };
        class.surge = Surge { evicted: 0, granted: more, giver, uses };
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;
    use crate::store::testing::Bench;

    const NEW: usize = 2_000;

    /// A full cache of one size, into which another comes in a burst, while every so many requests
    /// one of the old items is read: the share of the new ones that is there at the end.
    fn burst(read_every: usize) -> f64 {
        let b = Bench::new(Settings { maxbytes: 16 << 20, ..Settings::default() });
        b.fill_for("old", 80_000, 200, 0);
        let fits = (16 << 20) / (NEW + 60);
        for n in 0..2 * fits {
            b.set(&format!("new{n:05}"), NEW);
            if n % read_every == 0 {
                b.get(&format!("old{:05}", 79_000 + n % 1_000));
            }
        }
        b.validate();
        b.present("new", 2 * fits) as f64 / fits as f64
    }

    #[test]
    fn a_burst_takes_pages_of_what_nobody_uses() {
        let share = burst(usize::MAX);
        assert!((0.1..0.15).contains(&share), "{share}");
    }

    #[test]
    fn what_is_used_keeps_its_pages() {
        let share = burst(100);
        assert!(share < 0.03, "{share}");
    }
}
