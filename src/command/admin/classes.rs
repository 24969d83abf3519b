//! `stats items`, `stats slabs` and `stats sizes`: figures by slab class and by size.

use super::{Rows, StatLines};
use crate::stats::ClassSums;
use crate::store::ClassInfo;

/// What `stats items` shows.
#[derive(Clone, Copy)]
pub(super) struct Shown {
    pub(super) lru_maintainer: bool,
    pub(super) temp_lru: bool,
}

/// `stats items`: classes that hold items. `sums` is indexed by class id.
pub(super) fn items(infos: &[ClassInfo], sums: &[ClassSums], shown: Shown) -> StatLines {
    let mut rows = Rows::default();
    for info in infos.iter().filter(|info| info.items > 0) {
        class_items(&mut rows, info, &sums_of(sums, info.id), shown);
    }
    rows.end()
}

/// `stats slabs`: classes that have pages, then the totals. `malloced`: bytes of pages.
pub(super) fn slabs(infos: &[ClassInfo], sums: &[ClassSums], malloced: u64) -> StatLines {
    let mut rows = Rows::default();
    let active = infos.iter().filter(|info| info.pages > 0);
    for info in active.clone() {
        class_slabs(&mut rows, info, &sums_of(sums, info.id));
    }
    rows.put("active_slabs", active.count());
    rows.put("total_malloced", malloced);
    rows.end()
}

/// `stats sizes`: how many items there are of each size, in bytes rounded up to 32.
pub(super) fn sizes(sizes: &[(u32, u64)]) -> StatLines {
    StatLines::Pairs(sizes.iter().map(|(size, n)| (size.to_string(), n.to_string())).collect())
}

fn sums_of(sums: &[ClassSums], id: u32) -> ClassSums {
    sums.get(id as usize).copied().unwrap_or_default()
}

fn class_items(rows: &mut Rows, info: &ClassInfo, sums: &ClassSums, shown: Shown) {
    let maintained = shown.lru_maintainer;
    let mut put =
        |name: &str, value: u64| rows.put(format_args!("items:{}:{name}", info.id), value);
    put("number", info.items);
    if maintained {
        put("number_hot", info.number_hot);
        put("number_warm", info.number_warm);
        put("number_cold", info.number_cold);
        if shown.temp_lru {
            put("number_temp", info.number_temp);
        }
        put("age_hot", info.age_hot.into());
        put("age_warm", info.age_warm.into());
    }
    put("age", info.age.into());
    put("mem_requested", info.bytes);
    put("evicted", sums.evicted);
    put("evicted_nonzero", sums.evicted_nonzero);
    put("evicted_time", info.evicted_time.into());
    put("outofmemory", sums.outofmemory);
    // An item cannot be lost at a tail with a reference to it, so none is ever repaired.
    put("tailrepairs", 0);
    put("reclaimed", sums.reclaimed);
    put("expired_unfetched", sums.expired_unfetched);
    put("evicted_unfetched", sums.evicted_unfetched);
    if maintained {
        put("evicted_active", sums.evicted_active);
    }
    put("crawler_reclaimed", sums.crawler_reclaimed);
    put("crawler_items_checked", sums.crawler_items_checked);
    put("lrutail_reflocked", 0);
    if maintained {
        put("moves_to_cold", sums.moves_to_cold);
        put("moves_to_warm", sums.moves_to_warm);
        put("moves_within_lru", sums.moves_within_lru);
        put("direct_reclaims", sums.direct_reclaims);
        put("hits_to_hot", sums.hits_to_hot);
        put("hits_to_warm", sums.hits_to_warm);
        put("hits_to_cold", sums.hits_to_cold);
        put("hits_to_temp", sums.hits_to_temp);
    }
}

fn class_slabs(rows: &mut Rows, info: &ClassInfo, sums: &ClassSums) {
    let mut put = |name: &str, value: u64| rows.put(format_args!("{}:{name}", info.id), value);
    put("chunk_size", info.chunk_size.into());
    put("chunks_per_page", info.chunks_per_page.into());
    put("total_pages", info.pages);
    put("total_chunks", info.total_chunks);
    put("used_chunks", info.total_chunks.saturating_sub(info.free_chunks));
    put("free_chunks", info.free_chunks);
    put("free_chunks_end", 0);
    // memcached moved this to `stats items` in 1.5.17; three monitoring tools still read it here.
    put("mem_requested", info.bytes);
    put("get_hits", sums.get_hits);
    put("cmd_set", sums.set_cmds);
    put("delete_hits", sums.delete_hits);
    put("incr_hits", sums.incr_hits);
    put("decr_hits", sums.decr_hits);
    put("cas_hits", sums.cas_hits);
    put("cas_badval", sums.cas_badval);
    put("touch_hits", sums.touch_hits);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// memcached 1.6.45's keys of one class in `stats items`, in its order.
    const ITEM_KEYS: &str = "number number_hot number_warm number_cold age_hot age_warm age
        mem_requested evicted evicted_nonzero evicted_time outofmemory tailrepairs reclaimed
        expired_unfetched evicted_unfetched evicted_active crawler_reclaimed
        crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru
        direct_reclaims hits_to_hot hits_to_warm hits_to_cold hits_to_temp";
    /// The same without its maintainer.
    const UNMAINTAINED_KEYS: &str =
        "number age mem_requested evicted evicted_nonzero evicted_time outofmemory tailrepairs
        reclaimed expired_unfetched evicted_unfetched crawler_reclaimed
        crawler_items_checked lrutail_reflocked";
    /// memcached's keys of one class in `stats slabs`, and `mem_requested` where older ones had it.
    const SLAB_KEYS: &str = "chunk_size chunks_per_page total_pages total_chunks used_chunks
        free_chunks free_chunks_end mem_requested get_hits cmd_set delete_hits incr_hits decr_hits
        cas_hits cas_badval touch_hits";

    const DEFAULT: Shown = Shown { lru_maintainer: true, temp_lru: false };

    fn class(id: u32) -> ClassInfo {
        ClassInfo {
            id,
            chunk_size: 96,
            chunks_per_page: 682,
            pages: 2,
            total_chunks: 1364,
            free_chunks: 1000,
            items: 364,
            bytes: 20_000,
            number_hot: 60,
            number_warm: 4,
            number_cold: 300,
            age_hot: 5,
            age_warm: 6,
            age: 7,
            evicted_time: 8,
            ..ClassInfo::default()
        }
    }

    fn prefixed(prefix: &str, keys: &str) -> Vec<String> {
        keys.split_whitespace().map(|key| format!("{prefix}{key}")).collect()
    }

    #[test]
    fn items_shows_memcacheds_keys_of_classes_that_hold_items() {
        let empty = ClassInfo { items: 0, ..class(2) };
        let lines = items(&[class(1), empty], &[ClassSums::default(); 3], DEFAULT);
        assert_eq!(lines.names(), prefixed("items:1:", ITEM_KEYS));
    }

    #[test]
    fn items_follows_the_maintainer_and_temp_lru() {
        let bare = Shown { lru_maintainer: false, temp_lru: true };
        let lines = items(&[class(1)], &[], bare);
        assert_eq!(lines.names(), prefixed("items:1:", UNMAINTAINED_KEYS));
        let temp = Shown { temp_lru: true, ..DEFAULT };
        let info = ClassInfo { number_temp: 9, ..class(1) };
        let lines = items(&[info], &[], temp);
        assert_eq!(
            lines.names()[3..6],
            ["items:1:number_cold", "items:1:number_temp", "items:1:age_hot"]
        );
        assert_eq!(lines.value("items:1:number_temp"), "9");
    }

    #[test]
    fn items_takes_counters_by_class_id() {
        let mut sums = [ClassSums::default(); 40];
        sums[31].evicted = 40;
        sums[31].moves_to_cold = 41;
        sums[31].hits_to_warm = 42;
        (sums[31].crawler_reclaimed, sums[31].crawler_items_checked) = (43, 44);
        sums[1].evicted = 1;
        let lines = items(&[class(31)], &sums, DEFAULT);
        for (name, value) in [
            ("evicted", "40"),
            ("moves_to_cold", "41"),
            ("hits_to_warm", "42"),
            ("crawler_reclaimed", "43"),
            ("crawler_items_checked", "44"),
            ("number", "364"),
            ("number_hot", "60"),
            ("number_warm", "4"),
            ("number_cold", "300"),
            ("age_hot", "5"),
            ("age_warm", "6"),
            ("age", "7"),
            ("evicted_time", "8"),
            ("mem_requested", "20000"),
        ] {
            assert_eq!(lines.value(&format!("items:31:{name}")), value, "{name}");
        }
    }

    #[test]
    fn slabs_shows_classes_with_pages_and_the_totals() {
        let mut sums = [ClassSums::default(); 4];
        (sums[3].get_hits, sums[3].set_cmds, sums[3].cas_badval) = (3, 4, 5);
        let idle = ClassInfo { pages: 0, ..class(2) };
        let held_but_empty = ClassInfo { items: 0, ..class(1) };
        let lines = slabs(&[held_but_empty, idle, class(3)], &sums, 3 << 16);
        let mut names = prefixed("1:", SLAB_KEYS);
        names.extend(prefixed("3:", SLAB_KEYS));
        names.extend(["active_slabs".into(), "total_malloced".into()]);
        assert_eq!(lines.names(), names);
        for (name, value) in [
            ("3:chunk_size", "96"),
            ("3:chunks_per_page", "682"),
            ("3:total_pages", "2"),
            ("3:total_chunks", "1364"),
            ("3:used_chunks", "364"),
            ("3:free_chunks", "1000"),
            ("3:mem_requested", "20000"),
            ("3:get_hits", "3"),
            ("3:cmd_set", "4"),
            ("3:cas_badval", "5"),
            ("1:get_hits", "0"),
            ("active_slabs", "2"),
            ("total_malloced", "196608"),
        ] {
            assert_eq!(lines.value(name), value, "{name}");
        }
    }

    #[test]
    fn an_empty_server_has_no_items_and_no_active_slabs() {
        let none = [ClassInfo { pages: 0, items: 0, ..class(1) }];
        assert_eq!(items(&none, &[], DEFAULT), StatLines::Pairs(vec![]));
        assert_eq!(slabs(&none, &[], 0).names(), ["active_slabs", "total_malloced"]);
    }

    #[test]
    fn sizes_are_pairs_of_size_and_count() {
        let lines = sizes(&[(64, 3), (96, 1)]);
        assert_eq!(lines.names(), ["64", "96"]);
        assert_eq!(lines.value("64"), "3");
    }
}
