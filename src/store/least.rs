//! What a store needs at the least: checked before anything is opened.

use super::evict::Rule;
use super::ghost::LINE_BYTES;
use super::seals::Seals;
use super::upkeep::LINES_PER_GHOST;
use super::{Geometry, geometry, index};
use crate::config::{Footprint, Settings};
use crate::item::BODY_HEADER;

/// Most slab classes: each costs every thread some counters, and a page before it holds anything.
const CLASSES_MAX: usize = 1023;
/// Bytes that the page's record takes.
const RECORD_BYTES: u64 = 32;

/// Says in one line why no store can be made by these settings.
pub fn check(s: &Settings) -> Result<(), String> {
    let tail = if s.memory_file.is_some() { Seals::TAIL } else { 0 };
    let geometry = geometry(s)?.with_tail(tail);
    let classes = geometry.classes().count();
    if classes > CLASSES_MAX {
        let factor = s.growth_factor;
        return Err(format!("-f {factor} makes {classes} slab classes, more than {CLASSES_MAX}"));
    }
    let (cache, least) = (s.cache_bytes(), least_bytes(s, &geometry));
    if cache >= least {
        return Ok(());
    }
    let (has, item) = (s.maxbytes, s.item_size_max);
    if !s.memory_total {
        return Err(format!(
            "-m ({has} bytes) is less than the {least} bytes that an index and one item of -I \
             ({item} bytes) need"
        ));
    }
    let beside = Footprint::of(s).total();
    Err(format!(
        "-m ({has} bytes) is less than {} bytes with -o memory_budget=total: {least} for an index \
         and one item of -I ({item} bytes), {beside} for the rest of the process (-c, -t, -Z and \
         read_buf_mem_limit count most)",
        least + beside
    ))
}

/// Bytes of the smallest index and of the pages for the largest item. Where -m counts pages alone,
/// each class has one whatever it says.
fn least_bytes(s: &Settings, geometry: &Geometry) -> u64 {
    if s.pages_alone() {
        return 0;
    }
    let largest = geometry.largest();
    let (size, item) = (geometry.chunk_size(largest), s.item_size_max);
    let chunks = item.div_ceil(size - BODY_HEADER as u32);
    // The end of a chain lies in a class of its own.
    let whole = (chunks - 1).div_ceil(geometry.chunks_per_page(largest));
    let pages = if item <= size { 1 } else { whole + 1 };
    let rule = Rule::of(s.eviction, s.lru_segmented, s.hot_lru_pct, false);
    let most = geometry.classes().next().map_or(1, |class| geometry.chunks_per_page(class));
    let queue = u64::from(most * rule.overhead_64ths()).div_ceil(64);
    let page = u64::from(geometry.page_size()) + RECORD_BYTES + queue;
    let affordable = s.cache_bytes() / 32 / index::LINE_BYTES;
    let lines = affordable.max(u64::from(index::LINE_STEP));
    let index = lines * index::LINE_BYTES + 2 * index::BLOCK_BYTES;
    let ghosts = lines / u64::from(LINES_PER_GHOST) * LINE_BYTES;
    index + ghosts + u64::from(pages) * page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::Layout;
    use crate::store::{Key, Outcome, Set, Store};
    use std::sync::Arc;

    fn of(maxbytes: u64, item_size_max: u32) -> Settings {
        Settings { maxbytes, item_size_max, ..Settings::default() }
    }

    /// True where the largest item that -I allows can be stored among small ones.
    fn holds_its_largest(settings: Settings) -> bool {
        let len = settings.item_size_max - 100;
        let store = Store::new(Arc::new(settings), Arc::new(Clock::manual(1))).expect("a store");
        let l = store.local();
        (0..40u32).all(|n| {
            let text = format!("{n}");
            let key = Key::new(text.as_bytes()).expect("a key");
            let small = Set::of(key, 9 * n);
            let value = vec![b'v'; len as usize];
            let set =
                |set: &Set<'_>| store.set(&l, set, store.hash(key), &value[..set.len as usize]);
            matches!(set(&small), Ok(Outcome::Stored { .. }))
                && matches!(set(&Set::of(key, len)), Ok(Outcome::Stored { .. }))
        })
    }

    #[test]
    fn the_least_is_enough_for_the_largest_item() {
        for item in [1 << 10, 32 << 10, 100_000] {
            let mut settings = of(0, item);
            let geometry = geometry(&settings).expect("a ladder");
            settings.maxbytes = least_bytes(&settings, &geometry);
            assert_eq!(check(&settings), Ok(()));
            assert!(holds_its_largest(settings.clone()), "{item}");
            settings.maxbytes -= 1;
            assert!(check(&settings).is_err_and(|e| e.starts_with("-m (")), "{item}");
        }
    }

    #[test]
    fn a_budget_for_the_whole_process_leaves_the_cache_its_least() {
        let total = |maxbytes| Settings { memory_total: true, ..of(maxbytes, 1 << 20) };
        assert_eq!(check(&total(64 << 20)), Ok(()));
        let refused = check(&total(16 << 20)).expect_err("too little");
        let beside = Footprint::of(&total(16 << 20)).total();
        assert!(refused.contains(&format!("{beside} for the rest of the process")), "{refused}");
        let many = Settings { max_connections: 200_000, ..total(64 << 20) };
        assert!(check(&many).is_err());
        let settings = total(beside + (8 << 20));
        let cache = settings.cache_bytes();
        assert!((6 << 20..=8 << 20).contains(&cache), "{cache}");
        assert!(holds_its_largest(settings));
    }

    #[test]
    fn an_ordinary_start_has_more_than_enough() {
        for megabytes in [2, 3, 64, 1 << 20] {
            assert_eq!(check(&of(megabytes << 20, 1 << 20)), Ok(()));
        }
        let tiny = Settings { layout: Layout::Memcached, ..of(1 << 20, 512 << 10) };
        assert_eq!(check(&tiny), Ok(()));
    }

    #[test]
    fn a_ladder_of_too_many_classes_is_refused() {
        let of = |growth_factor, layout| Settings {
            growth_factor,
            growth_factor_given: true,
            layout,
            ..Settings::default()
        };
        assert_eq!(check(&of(1.02, Layout::Memcached)), Ok(()));
        assert_eq!(check(&of(1.0001, Layout::Compact)), Ok(()));
        let refused = check(&of(1.0001, Layout::Memcached)).expect_err("too many");
        assert!(refused.starts_with("-f 1.0001 makes "), "{refused}");
    }
}
