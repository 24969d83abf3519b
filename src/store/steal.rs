//! A page of another class for one that is short, or for the index: an empty one before anything is
//! evicted, and one whose items go where the class has none of its own to evict. Unlike the mover,
//! whoever needs it does it at once, for one request.

use super::evict;
use super::flush::Horizon;
use super::shard::Shard;
use super::types::Local;
use crate::item::{self, Shape, State};
use slab::{ChunkRef, ClassId, PageNo};
use std::cmp::Reverse;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Pages of other classes that one allocation empties in vain.
const STEALS_MAX: usize = 4;
/// Classes whose pages it looks at.
const DONORS_MAX: usize = 4;
/// Pages that are looked at for one without items.
const LOOK_FOR_EMPTY: usize = 64;
/// A page of small chunks takes more of the limit, for their places in a queue, than one of large
/// chunks gave back: then it takes a second one.
pub(super) const PAGES_FOR_ONE: usize = 2;

/// Pages that a class has had no use for of late, as the mover last saw it: whoever is short may
/// have them.
#[derive(Default)]
pub(super) struct Offer(AtomicU64);

impl Offer {
    pub fn renew(&self, offer: Option<(ClassId, u64)>) {
        let word = |(class, pages): (ClassId, u64)| u64::from(class.0) << 32 | pages;
        self.0.store(offer.map_or(0, word), Relaxed);
    }

    /// Accepts one page: of this class.
    fn accept(&self) -> Option<ClassId> {
        let one_less = |word: u64| (word as u32 > 0).then(|| word - 1);
        let word = self.0.fetch_update(Relaxed, Relaxed, one_less).ok()?;
        Some(ClassId((word >> 32) as u16))
    }
}

impl Shard {
    /// A chunk of a class that is short, and that has no more pages to be had, on an empty page of
    /// another; or the class again where none is on offer. What aborted uploads or deletes leave in
    /// one class is thus another's when that needs it.
    pub fn take_offered<'a>(
        &'a self,
        mut short: evict::Class<'a>,
    ) -> Result<ChunkRef, evict::Class<'a>> {
        let class = short.class();
        for _ in 0..PAGES_FOR_ONE {
            let Some(donor) = self.offer.accept() else { break };
            // One lock at a time.
            drop(short);
            let donor = self.slabs.lock(donor);
            let page = donor.empty_page(LOOK_FOR_EMPTY);
            if !page.is_some_and(|page| self.release_empty(donor, page)) {
                self.offer.renew(None);
            }
            short = self.slabs.lock(class);
            if let Some(chunk) = self.take_from(&mut short, true) {
                return Ok(chunk);
            }
        }
        Err(short)
    }

    /// Empties a page of one of the classes that have the most, for `class` or for the index;
    /// false where none can be emptied.
    pub fn steal_page(&self, l: &Local, class: ClassId, horizon: Horizon) -> bool {
        let pages_of = |c: ClassId| self.slabs.lock(c).pages().len();
        let others = self.slabs.geometry().classes().filter(|c| *c != class);
        let mut donors: Vec<(usize, ClassId)> = others.map(|c| (pages_of(c), c)).collect();
        let poorest = self.poorest.load(Relaxed);
        donors.sort_unstable_by_key(|(pages, donor)| {
            (Reverse(u32::from(donor.0) == poorest && *pages > 1), Reverse(*pages))
        });
        let mut attempts = 0;
        for (_, donor) in donors.into_iter().take(DONORS_MAX) {
            let pages = emptiest_first(&self.slabs.lock(donor));
            for page in pages.into_iter().filter(|page| self.can_be_emptied(*page, donor)) {
                if attempts == STEALS_MAX {
                    return false;
                }
                if !self.slabs.lock(donor).start_drain(page) {
                    continue;
                }
                let dropped = self.drop_items(l, page, donor, horizon);
                if self.end_drain(page, donor, None) {
                    return true;
                }
                attempts += usize::from(dropped > 0);
            }
        }
        false
    }

    /// True where nothing on a page is pinned, TEMP or a value on its way, as the caller's own may
    /// be: as of now, and without locking anything.
    pub fn can_be_emptied(&self, page: PageNo, class: ClassId) -> bool {
        (0..self.slabs.geometry().chunks_per_page(class)).all(|index| {
            let chunk = self.slabs.chunk_at(page, class, index);
            match self.owner_of(chunk).map(|owner| self.item(owner)) {
                Some(item) => {
                    let stays = item.shape().has(Shape::PINNED | Shape::TEMP);
                    item.standing().state() == State::Linked && !stays
                }
                None => self.item(chunk).standing().state() == State::Free,
            }
        })
    }

    /// The item that a chunk is part of, looked up without any care.
    pub fn owner_of(&self, chunk: ChunkRef) -> Option<ChunkRef> {
        let standing = self.item(chunk).standing();
        if standing.is_body() {
            item::body_head(&self.slabs, chunk)
        } else {
            (standing.state() == State::Linked).then_some(chunk)
        }
    }

    /// Evicts a page's items, up to one that cannot go now, as that which the caller's own is to
    /// replace; how many went.
    fn drop_items(&self, l: &Local, page: PageNo, class: ClassId, horizon: Horizon) -> u32 {
        let mut dropped = 0;
        for index in 0..self.slabs.geometry().chunks_per_page(class) {
            let chunk = self.slabs.chunk_at(page, class, index);
            let Some(owner) = self.owner_of(chunk) else { continue };
            let part = evict::part_of(self.item(owner).shape());
            if !self.unlink_victim(l, owner, horizon, (class, part)) {
                break;
            }
            self.free(owner);
            dropped += 1;
        }
        dropped
    }
}

/// Some pages of the class, those with the fewest chunks in use first.
pub(super) fn emptiest_first(class: &evict::Class<'_>) -> Vec<PageNo> {
    let mut pages: Vec<PageNo> = class.pages().iter().take(evict::LOOK_MAX).copied().collect();
    pages.sort_by_key(|page| class.used_on(*page));
    pages
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;
    use crate::store::testing::Bench;
    use slab::ClassId;

    const SMALL: usize = 3_000;
    const LARGE: usize = 100_000;

    /// A small item and large ones that came and went, in 8 MiB.
    fn emptied(settings: Settings) -> Bench {
        let b = Bench::new(Settings { maxbytes: 8 << 20, ..settings });
        b.set("before", SMALL);
        b.fill("large", 70, LARGE);
        assert_eq!(b.present("large", 70), 70);
        (0..70).for_each(|n| assert!(b.delete(&format!("large{n:05}"))));
        // The mover sees it in two seconds; nothing is due to be given back yet.
        for _ in 0..2 {
            b.tick();
            b.store.clock().advance(1);
        }
        b.tick();
        assert!(b.shard().slabs.available_pages() < 60);
        b
    }

    #[test]
    fn pages_without_items_are_used_before_anything_is_evicted() {
        for evict in [true, false] {
            let b = emptied(Settings { evict, ..Settings::default() });
            // No tick from here on.
            (0..2_000).for_each(|n| b.set(&format!("small{n:05}"), SMALL));
            assert_eq!(b.present("small", 2_000), 2_000);
            assert!(b.get("before"));
            b.store.validate().expect("a valid store");
        }
    }

    #[test]
    fn a_class_keeps_pages_for_what_may_come_back() {
        let b = emptied(Settings::default());
        let largest = b.store.class_info().iter().map(|c| c.id).max().expect("classes");
        (0..4_000).for_each(|n| b.set(&format!("small{n:05}"), SMALL));
        let kept = b.pages(ClassId(largest as u16)).len();
        assert!((1..=4).contains(&kept), "{kept} pages");
    }
}
