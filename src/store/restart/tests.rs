//! Restarts over files as a stop, a crash, an operator or a fault may leave them.

use super::*;
use crate::clock::{Clock, Exptime};
use crate::config::{Eviction, Layout, Settings};
use crate::store::index::LINE_STEP;
use crate::store::resize::lines_ceiling;
use crate::store::testing::{Bench, value_of};
use crate::store::{Fetch, Get, Key};
use holes::copy;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

#[path = "../../../tests/common/holes.rs"]
mod holes;

const UNIX: u64 = 1_700_000_000;

/// A directory for memory files, and the settings that all starts have.
struct Place {
    dir: TempDir,
    settings: Settings,
}

impl Place {
    fn new() -> Place {
        Place::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Place {
        let dir = TempDir::new().expect("a directory");
        let file = dir.path().join("mem");
        let mut settings =
            Settings { maxbytes: 2 << 20, memory_file: Some(file), ..Settings::default() };
        settings.item_size_max = 512 << 10;
        change(&mut settings);
        Place { dir, settings }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mem")
    }

    /// So many seconds after the first start, with other settings perhaps.
    fn start_with(&self, after: u64, change: impl FnOnce(&mut Settings)) -> Result<Bench, String> {
        let mut settings = self.settings.clone();
        change(&mut settings);
        let clock = Arc::new(Clock::manual(UNIX + after));
        let store = Store::new(Arc::new(settings), clock)?;
        let bench = Bench { local: store.local(), store };
        bench.validate();
        Ok(bench)
    }

    fn start(&self, after: u64) -> Bench {
        self.start_with(after, |_| {}).expect("a store")
    }

    fn refusal(&self) -> String {
        self.start_with(0, |_| {}).err().expect("a refusal")
    }

    fn file(&self) -> File {
        OpenOptions::new().read(true).write(true).open(self.path()).expect("the file")
    }

    fn flip(&self, bit: u64) {
        let (file, mut byte) = (self.file(), [0]);
        file.read_exact_at(&mut byte, bit / 8).expect("a byte");
        byte[0] ^= 1 << (bit % 8);
        file.write_all_at(&byte, bit / 8).expect("a byte");
    }
}

impl Bench {
    fn told(&self) -> &Restart {
        self.store.restarted().expect("a memory file")
    }

    fn value(&self, name: &str) -> Option<Vec<u8>> {
        self.held(name).map(|held| held.value)
    }
}

fn key(name: &str) -> Key<'_> {
    Key::new(name.as_bytes()).expect("a key")
}

/// Items of every kind, and what went before the end; the names of those that stay.
fn fill(bench: &Bench) -> Vec<String> {
    let mut names = Vec::new();
    for (n, len) in [0, 1, 7, 60, 900, 7_000, 8_200, 30_000, 200_000].into_iter().enumerate() {
        for exptime in [0, 500] {
            let name = format!("item{n}-{exptime}");
            bench.set_for(&name, len, exptime);
            names.push(name);
        }
    }
    bench.fill("many", 1_000, 20);
    names.extend((0..1_000).map(|n| format!("many{n:05}")));
    let fetch = Fetch { cas: true, ..Fetch::of(Get::of(key("item2-0"))) };
    bench.store.fetch(&bench.local, &fetch, bench.store.hash(key("item2-0")), |_| {});
    bench.set_for("short", 40, 5);
    for name in ["gone", "gone-large"] {
        bench.set(name, if name == "gone" { 10 } else { 50_000 });
        assert!(bench.delete(name));
    }
    names
}

#[test]
fn everything_comes_back_after_a_stop_and_after_a_crash() {
    for (layout, clean, checksum) in [
        (Layout::Compact, true, false),
        (Layout::Compact, false, false),
        (Layout::Compact, false, true),
        (Layout::Memcached, false, false),
        (Layout::Memcached, true, true),
    ] {
        let place = Place::with(|s| (s.layout, s.checksum) = (layout, checksum));
        let bench = place.start(0);
        assert!(!bench.told().warm);
        let names = fill(&bench);
        let held: Vec<_> = names.iter().map(|name| bench.held(name)).collect();
        if clean {
            bench.store.close();
        }
        drop(bench);
        let bench = place.start(10);
        let told = bench.told();
        assert!(told.warm && told.clean == clean, "{told:?}");
        assert_eq!((told.kept, told.dead), (names.len() as u64, 1), "{told:?}");
        assert_eq!((told.dropped, told.pages_lost), (0, 0), "{told:?}");
        for (name, mut was) in names.iter().zip(held) {
            let is = bench.held(name);
            let left = was.as_mut().and_then(|held| held.ttl.as_mut());
            left.into_iter().for_each(|ttl| *ttl -= 10);
            assert_eq!(is, was, "{name}");
        }
        for name in ["short", "gone", "gone-large"] {
            assert_eq!(bench.held(name), None, "{name}");
        }
        assert_eq!(bench.items(), names.len() as u64);
        bench.settle();
        bench.validate();
    }
}

#[test]
fn what_was_flushed_stays_dead_and_what_came_after_lives() {
    let place = Place::new();
    let bench = place.start(0);
    bench.set("before", 10);
    bench.store.flush_all(&bench.local, None);
    bench.set("after", 10);
    drop(bench);
    let bench = place.start(0);
    assert_eq!((bench.told().kept, bench.told().dead), (1, 1));
    assert!(bench.value("before").is_none() && bench.value("after").is_some());
    // One that is planned is carried out, though nobody is there when its time comes.
    bench.store.flush_all(&bench.local, Some(Exptime(20)));
    drop(bench);
    let bench = place.start(10);
    assert!(bench.value("after").is_some());
    drop(bench);
    let bench = place.start(30);
    assert_eq!((bench.told().kept, bench.told().dead), (0, 1));
    bench.set("new", 10);
    drop(bench);
    assert_eq!(place.start(30).told().kept, 1);
}

#[test]
fn uniques_are_never_given_out_twice() {
    let place = Place::new();
    let unique = |bench: &Bench| {
        bench.set("key", 10);
        let fetch = Fetch { cas: true, ..Fetch::of(Get::of(key("key"))) };
        let mut cas = 0;
        bench.store.fetch(&bench.local, &fetch, bench.store.hash(key("key")), |hit| {
            cas = hit.cas();
        });
        cas
    };
    let mut last = 0;
    for clean in [true, false, false, true] {
        let bench = place.start(0);
        for _ in 0..3 {
            let cas = unique(&bench);
            assert!(cas > last, "{cas} after {last}");
            last = cas;
        }
        if clean {
            bench.store.close();
        }
    }
}

/// Who takes an item out of the index may die before its chunk is free.
#[test]
fn what_is_out_of_the_index_does_not_come_back() {
    let place = Place::new();
    let bench = place.start(0);
    for (name, len) in [("small", 20), ("large", 40_000), ("kept", 20)] {
        bench.set(name, len);
    }
    for name in ["small", "large"] {
        let (shard, chunk) = (bench.shard(), bench.chunk_of(name).expect("there"));
        let (mut line, slot) = shard.line_of(&bench.local, chunk).expect("its line");
        line.remove(slot);
        shard.unlinked(&bench.local, chunk);
    }
    drop(bench);
    let bench = place.start(0);
    assert_eq!((bench.told().kept, bench.told().dropped), (1, 0));
    let infos = bench.store.class_info();
    let used: u64 = infos.iter().map(|class| class.total_chunks - class.free_chunks).sum();
    assert_eq!(used, 1, "the bodies of a chain that is gone are free");
}

/// Of two linked items with one key, one stays, with all of its chain.
#[test]
fn twins_become_one() {
    let place = Place::new();
    let bench = place.start(0);
    for (name, len) in [("small", 20), ("large", 40_000)] {
        bench.set(name, len);
        let (shard, chunk) = (bench.shard(), bench.chunk_of(name).expect("there"));
        let class = shard.slabs.class_of(chunk);
        let fresh = shard.take_free(class, true).expect("room");
        let size = shard.slabs.geometry().whole_size(class);
        shard.item(chunk).copy_to(size, shard.item(fresh));
        shard.item(fresh).set_standing(shard.item(chunk).standing());
    }
    drop(bench);
    let bench = place.start(0);
    assert_eq!((bench.told().kept, bench.told().dropped), (2, 0));
    for (name, len) in [("small", 20), ("large", 40_000)] {
        assert_eq!(bench.value(name), Some(value_of(name, len)));
        assert!(bench.delete(name));
    }
    bench.validate();
    let infos = bench.store.class_info();
    assert!(infos.iter().all(|class| class.free_chunks == class.total_chunks), "a leak");
}

#[test]
fn other_limits_and_ladders_are_warm_too() {
    let place = Place::with(|s| s.maxbytes = 8 << 20);
    let bench = place.start(0);
    bench.fill("many", 20_000, 200);
    let (items, class) = (bench.items(), bench.class_of("many19000"));
    drop(bench);
    let bench = place.start_with(0, |s| s.maxbytes = 32 << 20).expect("a larger one");
    assert_eq!((bench.items(), bench.class_of("many19000")), (items, class));
    drop(bench);
    let steeper = |s: &mut Settings| {
        (s.growth_factor, s.growth_factor_given, s.eviction) = (1.5, true, Eviction::Lru);
    };
    let bench = place.start_with(0, steeper).expect("another -f");
    assert_eq!((bench.items(), bench.class_of("many19000")), (items, class));
    bench.settle();
    bench.validate();
    drop(bench);
    let bench = place.start_with(0, |s| s.maxbytes = 4 << 20).expect("a smaller one");
    bench.settle();
    assert!((items / 2..items).contains(&bench.items()), "{} of {items}", bench.items());
    assert_eq!(bench.shard().slabs.over_limit(), 0);
    bench.validate();
    drop(bench);
    let other = place.start_with(0, |s| s.layout = Layout::Memcached).expect("a cold start");
    assert_eq!((other.told().warm, other.items()), (false, 0));
}

#[test]
fn seals_are_changed_as_asked() {
    let place = Place::new();
    let bench = place.start(0);
    let names = fill(&bench);
    drop(bench);
    for checksum in [true, true, false, true] {
        let bench = place.start_with(1, |s| s.checksum = checksum).expect("a store");
        let kept = names.len() as u64 + 1;
        assert_eq!((bench.told().kept, bench.told().dropped), (kept, 0));
    }
}

/// A flipped bit anywhere takes some items away at the most; none is served under another key, nor
/// with another length, and with `-o checksum` none with other bytes.
#[test]
fn damage_is_never_served() {
    for checksum in [false, true] {
        let place = Place::with(|s| s.checksum = checksum);
        let bench = place.start(0);
        let names = fill(&bench);
        let page_of = |name: &str| {
            let chunk = bench.chunk_of(name).expect("there");
            (bench.shard().slabs.page_of(chunk), chunk)
        };
        let arena = (64 << 10) + (16u64 << 30 >> 15) * 32;
        let arena = arena.next_multiple_of(2 << 20);
        let targets: Vec<u64> =
            names.iter().map(|n| arena + page_of(n).1.word() as u64 * 4).collect();
        let good: Vec<_> = names.iter().map(|name| bench.value(name)).collect();
        bench.store.close();
        drop(bench);
        let saved = place.dir.path().join("saved");
        copy(&place.path(), &saved);
        let mut seed = 12345u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let mut dropped = 0;
        for _ in 0..10 {
            for _ in 0..100 {
                let at = targets[random(targets.len() as u64) as usize];
                // The header and the key, or anything.
                let bits = if checksum { 400 } else { 10 * 8 };
                place.flip(at * 8 + random(bits));
            }
            for _ in 0..4 {
                place.flip((64 << 10) * 8 + random(32 * 8 * 64));
            }
            let bench = place.start(1);
            dropped += bench.told().dropped;
            for (name, good) in names.iter().zip(&good) {
                let is = bench.value(name);
                assert!(is.is_none() || is == *good, "{name}");
            }
            assert!(bench.items() <= names.len() as u64);
            bench.settle();
            bench.validate();
            bench.store.flush_all(&bench.local, None);
            assert!(!names.iter().any(|name| bench.get(name)), "alive after a flush");
            drop(bench);
            copy(&saved, &place.path());
        }
        assert!(dropped > 250, "{dropped}");
    }
}

#[test]
fn a_file_cut_short_or_with_a_damaged_head_is_no_danger() {
    let place = Place::new();
    let bench = place.start(0);
    let names = fill(&bench);
    bench.store.close();
    drop(bench);
    let saved = place.dir.path().join("saved");
    copy(&place.path(), &saved);
    let used = 18u64 << 20;
    for len in
        [1, 7, 8, 100, 40_000, 70_000, 1 << 20, used + 100_000, used + 300_000, used + 500_000]
    {
        copy(&saved, &place.path());
        place.file().set_len(len).expect("a length");
        let Ok(bench) = place.start_with(1, |_| {}) else {
            assert!(len < 8, "{len} bytes are enough to know it");
            continue;
        };
        assert!(bench.items() < names.len() as u64, "{len}");
        bench.set("new", 100);
        bench.validate();
    }
    let ledger = (32u64 << 13..(32 << 13) + 480).step_by(5);
    for bit in (0..2_000).step_by(31).chain(ledger) {
        copy(&saved, &place.path());
        place.flip(bit);
        match place.start_with(1, |_| {}) {
            Ok(bench) => assert!(!bench.told().warm, "bit {bit}"),
            Err(why) => assert!(bit < 64 && why.contains("is no memory file"), "{why}"),
        }
    }
}

#[test]
fn whose_file_it_is_counts() {
    let place = Place::new();
    let bench = place.start(0);
    assert_eq!(fs::metadata(place.path()).expect("the file").permissions().mode() & 0o777, 0o600);
    assert!(place.refusal().contains("is in use by another process"));
    bench.set("key", 10);
    drop(bench);
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o620)).expect("a change");
    assert!(place.refusal().contains("may be written to by others"));
    fs::remove_file(place.path()).expect("gone");
    symlink("elsewhere", place.path()).expect("a link");
    assert!(place.refusal().contains("is a symbolic link"));
    fs::remove_file(place.path()).expect("gone");
    fs::create_dir(place.path()).expect("a directory");
    assert!(place.refusal().starts_with("-e "));
}

#[test]
fn what_is_not_ours_is_left_alone_unless_told_otherwise() {
    let place = Place::new();
    let write = |text: &str, path: &Path| fs::write(path, text).expect("a file");
    write("precious", &place.path());
    assert!(place.refusal().contains("is no memory file of rustcached"));
    assert_eq!(fs::read(place.path()).expect("the file"), b"precious");
    let meta = place.dir.path().join("mem.meta");
    write("", &meta);
    assert!(place.refusal().contains("so it is memcached's"));
    let bench = place.start_with(0, |s| s.memory_file_discard = true).expect("a cold start");
    assert!(!bench.told().warm && !meta.exists());
    bench.set("key", 10);
    drop(bench);
    assert_eq!(place.start(0).items(), 1);
    let bench = place.start_with(0, |s| s.memory_file_discard = true).expect("a cold start");
    assert_eq!(bench.items(), 0);
}

/// Pages that are given back take no room in the file.
#[test]
fn room_is_given_back() {
    let place = Place::with(|s| s.maxbytes = 8 << 20);
    let bench = place.start(0);
    let room = || fs::metadata(place.path()).expect("the file").blocks() * 512;
    let empty = room();
    bench.fill("many", 20_000, 200);
    let full = room();
    assert!(full > empty + (4 << 20), "{empty}, {full}");
    bench.store.flush_all(&bench.local, None);
    for _ in 0..30 {
        bench.store.clock().advance(1);
        bench.settle();
    }
    assert!(room() < empty + (1 << 20), "{empty}, {full}, {}", room());
}

#[test]
fn an_index_is_no_longer_than_its_memory_can_need() {
    let place = Place::with(|settings| settings.layout = Layout::Memcached);
    let bench = place.start(0);
    let file = bench.store.file.as_ref().expect("a memory file");
    file.ledger.update(|entry| entry.lines = u32::MAX);
    drop(bench);
    let bench = place.start(1);
    let shard = &bench.store.shards[0];
    assert_eq!(shard.index.len(), lines_ceiling(shard.reach).next_multiple_of(LINE_STEP));
}

/// Room for a thousand arenas is not in a file of one.
#[test]
fn a_file_has_the_length_of_its_arenas() {
    let place = Place::new();
    fill(&place.start(0));
    let mut head = [0; 4096];
    place.file().read_exact_at(&mut head, 0).expect("a header");
    for shards in [1_000_u32, u32::MAX] {
        head[24..28].copy_from_slice(&shards.to_le_bytes());
        let classes = u32::from_le_bytes(head[28..32].try_into().expect("a word")) as usize;
        let sum = crc32fast::hash(&head[12..40 + 4 * classes]);
        head[8..12].copy_from_slice(&sum.to_le_bytes());
        place.file().write_all_at(&head, 0).expect("room");
        let bench = place.start(1);
        assert!(!bench.told().warm && bench.store.shards.len() == 1, "{shards}");
    }
}
