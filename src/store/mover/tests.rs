//! Pages that move under items of every kind, ticked by hand.

use super::*;
use crate::clock::Exptime;
use crate::config::{Layout, Settings};
use crate::store::testing::{Bench, Held, value_of};
use crate::store::{DeleteOutcome, Fetch, Get, Key, Reservation, Set};
use slab::ChunkRef;

const LAYOUTS: [Layout; 2] = [Layout::Compact, Layout::Memcached];
/// Ticks in which a page moves unless something is in the way.
const SOON: usize = 1_000;

/// Pages stay where they are unless a test moves them.
fn settings(layout: Layout, megabytes: u64) -> Settings {
    Settings { layout, maxbytes: megabytes << 20, slab_automove: 0, ..Settings::default() }
}

fn each(megabytes: u64, test: impl Fn(Bench)) {
    LAYOUTS.iter().for_each(|layout| test(Bench::new(settings(*layout, megabytes))));
}

/// A class that has no page yet, to move one to.
fn other_class(b: &Bench) -> ClassId {
    let classes = b.store.class_info();
    let empty = classes.iter().find(|class| class.pages == 0).expect("a class without pages");
    ClassId(empty.id as u16)
}

fn set_as(b: &Bench, set: &Set<'_>) {
    let name = str::from_utf8(set.key.bytes()).expect("a name");
    let value = value_of(name, set.len as usize);
    let outcome = b.store.set(&b.local, set, b.store.hash(set.key), &value);
    outcome.expect("room");
}

fn key(name: &str) -> Key<'_> {
    Key::new(name.as_bytes()).expect("a short key")
}

/// Items of every kind, of one size: plain, read, hot, with a deadline, flags, a CAS unique, stale,
/// won, with a binary key, and TEMP.
fn store_all_kinds(b: &Bench, n: usize) -> String {
    let name = format!("item{n:04}");
    let mut set = Set::of(key(&name), 300);
    set.exptime = Exptime(if n.is_multiple_of(3) { 1_000 + n as i64 } else { 0 });
    set.client_flags = if n.is_multiple_of(4) { n as u32 } else { 0 };
    set.binary_key = n.is_multiple_of(5);
    if n % 10 == 9 {
        set.exptime = Exptime(30);
    }
    set_as(b, &set);
    let meta = Get { meta: true, ..Get::of(set.key) };
    (0..n % 4).for_each(|_| assert!(b.get(&name)));
    if n.is_multiple_of(2) {
        assert!(b.gets(&name) > 0);
    }
    if n % 7 >= 5 {
        assert_eq!(b.delete_as(&name, true), DeleteOutcome::Deleted);
    }
    if n % 7 == 6 {
        assert!(b.fetch(&Fetch::of(meta)), "it wins");
    }
    name
}

#[test]
fn a_rescue_keeps_all_that_an_item_is() {
    for layout in LAYOUTS {
        let temp = Settings { temp_lru: true, ..settings(layout, 16) };
        let b = Bench::new(temp);
        let names: Vec<String> = (0..8_000).map(|n| store_all_kinds(&b, n)).collect();
        let before: Vec<Option<Held>> = names.iter().map(|name| b.held(name)).collect();
        assert!(before.iter().all(Option::is_some));
        let places: Vec<Option<ChunkRef>> = names.iter().map(|name| b.chunk_of(name)).collect();
        let class = b.class_of(&names[1]);
        let pages = b.pages(class).len();
        // So that all have somewhere to go.
        names.iter().step_by(2).for_each(|name| assert!(b.delete(name)));
        let freed = pages / 3;
        for _ in 0..freed {
            b.reassign(class, other_class(&b));
            b.validate();
        }
        assert_eq!(b.pages(class).len(), pages - freed);
        let odd = |n: &usize| n % 2 == 1;
        let moved = (0..8_000).filter(odd).filter(|n| b.chunk_of(&names[*n]) != places[*n]);
        assert!(moved.count() > 300, "rescues");
        for n in (0..8_000).filter(odd) {
            assert_eq!(b.held(&names[n]), before[n], "{}", names[n]);
        }
    }
}

/// All pages of the large classes move, several times over.
#[test]
fn chains_stay_as_they_are_when_any_page_of_them_moves() {
    each(48, |b| {
        let sizes: Vec<usize> = (0..40).map(|n| 7_000 + n * n * 650).collect();
        let name = |len: usize| format!("value{len}");
        sizes.iter().for_each(|len| b.set(&name(*len), *len));
        // Chunks beside them, so that there is somewhere to go to.
        sizes.iter().for_each(|len| b.set(&format!("other{len}"), *len));
        sizes.iter().step_by(2).for_each(|len| assert!(b.delete(&format!("other{len}"))));
        let before: Vec<Option<Held>> = sizes.iter().map(|len| b.held(&name(*len))).collect();
        let mut moves = 0;
        for _ in 0..4 {
            for info in b.store.class_info() {
                let pages = b.pages(ClassId(info.id as u16));
                for page in pages.into_iter().skip(1).take(12) {
                    // What a class gives up it can take from the pool again.
                    send_off_as(&b, page, Some(Why::Spare(1.0)));
                    b.until("the page moves", |b| !b.is_moving());
                    moves += 1;
                }
                b.validate();
            }
            b.fill("fill", 10, 20_000);
        }
        let rescued = b.store.stats().moves.chunk_rescues.load(Relaxed);
        assert!(moves >= 20 && rescued > 60, "{moves} moves, {rescued} chunks");
        for (len, before) in sizes.iter().zip(before) {
            assert!(b.held(&name(*len)) == before, "a value of {len} bytes");
            assert!(b.get(&name(*len)));
        }
    });
}

/// Lets a page move as if an operator had asked for it, or the policy.
fn send_off_as(b: &Bench, page: PageNo, why: Option<Why>) {
    let class = b.shard().slabs.owner_of(page);
    assert!(b.shard().slabs.lock(class).start_drain(page));
    b.store.mover.lock().now = Some(Move::of(0, page, class, None, why));
    b.store.stats().moves.running.store(true, Relaxed);
}

fn send_off(b: &Bench, page: PageNo) {
    send_off_as(b, page, None);
}

/// Lets a page move, and waits until it is said to be held up by `status`.
fn hold_up(b: &Bench, page: PageNo, status: BusyStatus) {
    let moved = b.moved();
    send_off(b, page);
    b.ticks(SOON);
    let moves = &b.store.stats().moves;
    assert_eq!((moves.last_busy(), b.moved()), (status, moved));
    assert!(moves.busy_items.load(Relaxed) > 100 && b.is_moving());
    assert_eq!(b.store.reassign(1, 0), Reassign::Running);
    b.validate();
}

fn ends(b: &Bench, moved: u64) {
    b.ticks(SOON);
    assert_eq!((b.is_moving(), b.moved()), (false, moved + 1));
    b.validate();
}

/// Enough of one size that the class has two pages and room for all that is on the first; that one.
fn two_pages(b: &Bench, len: usize) -> PageNo {
    b.set("first", len);
    let class = b.class_of("first");
    let mut n = 0;
    while b.pages(class).len() < 2 {
        b.set(&format!("more{n}"), len);
        n += 1;
    }
    assert!(b.delete("more0"));
    b.pages(class)[0]
}

/// Leaves free chunks for a value of this size.
fn leave_room(b: &Bench, len: usize) {
    b.set("room", len);
    assert!(b.delete("room"));
}

fn page_of(b: &Bench, name: &str) -> PageNo {
    b.shard().slabs.page_of(b.chunk_of(name).expect("it is there"))
}

/// Bytes of a value that is on its way.
fn take(b: &Bench, slow: &mut Reservation, bytes: &[u8]) {
    assert_eq!(slow.fill(&b.local, bytes), Ok(bytes.len()));
}

#[test]
fn a_value_on_its_way_moves_with_its_page() {
    for finish in [true, false] {
        each(16, |b| {
            let set = Set::of(key("slow"), 5_000);
            let mut slow = b.store.reserve(&b.local, &set, b.store.hash(set.key)).expect("room");
            take(&b, &mut slow, &value_of("slow", 1_000));
            let page = two_pages(&b, 5_000);
            let moved = b.moved();
            send_off(&b, page);
            ends(&b, moved);
            if finish {
                take(&b, &mut slow, &value_of("slow", 5_000)[1_000..]);
                let done = b.store.commit(&b.local, slow, &set, b.store.hash(set.key));
                done.expect("it is linked");
            } else {
                drop(slow);
            }
            b.validate();
            assert_eq!(b.get("slow"), finish);
        });
    }
}

/// Whichever of a chain's chunks lies on the page, its last one too.
#[test]
fn a_chain_on_its_way_moves_with_any_page() {
    each(48, |b| {
        let len = 900_000;
        let set = Set::of(key("slow"), len);
        let mut slow = b.store.reserve(&b.local, &set, b.store.hash(set.key)).expect("room");
        let value = value_of("slow", len as usize);
        leave_room(&b, 900_000);
        for (at, piece) in value.chunks(300_000).enumerate() {
            take(&b, &mut slow, piece);
            b.set(&format!("beside{at}"), 900_000);
            leave_room(&b, 900_000);
            let pages = b.pages(b.shard().slabs.geometry().largest());
            for page in pages.into_iter().take(12) {
                let moved = b.moved();
                send_off_as(&b, page, Some(Why::Spare(1.0)));
                ends(&b, moved);
            }
        }
        b.store.commit(&b.local, slow, &set, b.store.hash(set.key)).expect("it is linked");
        b.validate();
        assert!(b.get("slow") && b.get("beside0"));
    });
}

/// Whoever fills a value has it locked.
#[test]
fn a_value_that_is_being_filled_holds_its_page_up() {
    each(16, |b| {
        let set = Set::of(key("slow"), 5_000);
        let slow = b.store.reserve(&b.local, &set, b.store.hash(set.key)).expect("room");
        let page = two_pages(&b, 5_000);
        let moved = b.moved();
        {
            let _filling = slow.lock();
            send_off(&b, page);
            b.ticks(SOON);
            let moves = &b.store.stats().moves;
            assert_eq!((moves.last_busy(), b.moved()), (BusyStatus::BusyUploading, moved));
        }
        ends(&b, moved);
        drop(slow);
    });
}

#[test]
fn a_value_that_is_sent_holds_its_page_up_until_the_last_pin_is_gone() {
    for deleted in [true, false] {
        each(48, |b| {
            b.set("sent", 900_000);
            let pins = [b.pin("sent"), b.pin("sent")];
            b.set("beside", 900_000);
            leave_room(&b, 900_000);
            hold_up(&b, page_of(&b, "sent"), BusyStatus::BusyFloating);
            let moved = b.moved();
            assert!(!deleted || b.delete("sent"));
            b.ticks(100);
            let [first, last] = pins;
            drop(first);
            b.ticks(100);
            let bytes: Vec<u8> = last.slices().flatten().copied().collect();
            assert!(bytes == value_of("sent", 900_000), "a pinned value stays");
            assert!(b.is_moving());
            drop(last);
            ends(&b, moved);
            assert_eq!((b.get("sent"), b.get("beside")), (!deleted, true));
        });
    }
}

/// Whichever of its chunks lies on the page.
#[test]
fn an_operators_move_drops_what_is_sent_for_too_long() {
    each(48, |b| {
        b.set("beside", 900_000);
        b.set("sent", 900_000);
        leave_room(&b, 900_000);
        let pin = b.pin("sent");
        let head = b.chunk_of("sent").expect("it is there");
        let slabs = &b.shard().slabs;
        let chunks = crate::item::chunks_of(slabs, head);
        let large = chunks.filter(|c| slabs.class_of(*c) == slabs.geometry().largest());
        let pages = large.map(|chunk| slabs.page_of(chunk));
        // A page of its bodies, and not its head's where it has several.
        send_off(&b, pages.max_by_key(|page| *page != slabs.page_of(head)).expect("a page"));
        b.ticks(2 * ROUNDS_BY_HAND_MAX as usize * 10);
        assert!(b.held("sent").is_none(), "it was dropped");
        let dropped = b.store.stats().moves.busy_deletes.load(Relaxed);
        assert_eq!((dropped, b.is_moving()), (1, true));
        let moved = b.moved();
        drop(pin);
        ends(&b, moved);
        assert!(b.get("beside"));
    });
}

#[test]
fn a_locked_line_holds_a_page_up() {
    each(16, |b| {
        let page = two_pages(&b, 5_000);
        let shard = b.shard();
        let line = shard.index.lock(shard.hash_bytes(b"first"));
        send_off(&b, page);
        b.ticks(SOON);
        let moves = &b.store.stats().moves;
        assert_eq!((moves.last_busy(), b.is_moving()), (BusyStatus::Locked, true));
        drop(line);
        ends(&b, 0);
        assert!(b.get("first"));
    });
}

/// Until a window later; then the page goes where sets are.
#[test]
fn the_policy_lets_an_operators_move_stand() {
    each(16, |b| {
        b.store.knobs.automove.store(1, Relaxed);
        b.fill("small", 40_000, 500);
        let page_for = |len| {
            b.set("one", len);
            b.class_of("one")
        };
        let (from, to) = (b.class_of("small39999"), page_for(5_000));
        let window = b.store.settings.slab_automove_window;
        b.reassign(from, to);
        let pages = b.pages(to).len();
        let load = |family: &str| b.fill(family, 40_000, 500);
        load("before");
        assert_eq!((b.pages(to).len(), b.moved()), (pages, 1));
        b.store.clock().advance(window);
        load("after");
        assert!(b.pages(to).len() < pages && b.moved() > 1);
    });
}

#[test]
fn without_eviction_nothing_is_lost_and_a_page_waits_for_room() {
    for layout in LAYOUTS {
        let b = Bench::new(Settings { evict: false, ..settings(layout, 8) });
        let mut stored = 0;
        while b.try_set(&format!("k{stored:05}"), 2_000, 0).is_ok() {
            stored += 1;
        }
        let class = b.class_of("k00000");
        assert_eq!(b.store.reassign(i32::from(class.0), 0), Reassign::Ok);
        b.ticks(SOON);
        assert_eq!(b.store.stats().moves.last_busy(), BusyStatus::Busy);
        assert!(b.store.stats().moves.busy_nomem.load(Relaxed) > 0 && b.is_moving());
        assert_eq!(b.present_as(stored), stored);
        b.validate();
        let per_page = b.shard().slabs.geometry().chunks_per_page(class) as usize;
        (0..2 * per_page).for_each(|n| assert!(b.delete(&format!("k{n:05}"))));
        ends(&b, 0);
        assert_eq!(b.present_as(stored), stored - 2 * per_page);
    }
}

#[test]
fn a_page_of_temp_items_is_rescued() {
    for layout in LAYOUTS {
        let b = Bench::new(Settings { temp_lru: true, ..settings(layout, 8) });
        b.fill_for("temp", 1_500, 1_000, 50);
        let class = b.class_of("temp01400");
        // Others of the class fill what is left.
        b.fill("plain", 12_000, 1_004);
        let pages = b.pages(class).len();
        for _ in 0..pages / 2 {
            b.reassign(class, ClassId(0));
            b.shard().slabs.charge(u64::from(b.shard().slabs.geometry().page_size()));
            b.validate();
        }
        assert_eq!(b.present("temp", 1_500), 1_500);
        b.store.clock().advance(60);
        b.settle();
        assert_eq!(b.present("temp", 1_500), 0);
        b.validate();
    }
}

/// Stores values of three sizes until `mib` have come.
fn load(b: &Bench, family: &str, mib: usize) {
    let (mut bytes, mut n) = (0, 0);
    while bytes < mib << 20 {
        let len = [100, 3_000, 70_000][n % 3];
        b.set(&format!("{family}{n}"), len);
        b.get(&format!("{family}{}", n / 2));
        b.tick();
        (bytes, n) = (bytes + len, n + 1);
    }
}

#[test]
fn a_lowered_limit_is_reached_under_load() {
    each(16, |b| {
        load(&b, "a", 40);
        let slabs = &b.shard().slabs;
        let page = u64::from(slabs.geometry().page_size());
        for round in 0..3 {
            assert!(b.store.set_limit(4 << 20));
            assert!(slabs.over_limit() > 8 << 20);
            load(&b, &format!("low{round}"), 8);
            b.until("the limit holds", |b| b.shard().slabs.over_limit() == 0);
            b.validate();
            assert!(slabs.pages_in_use() * page <= 6 << 20, "{}", slabs.pages_in_use());
            assert!(b.store.set_limit(16 << 20));
            load(&b, &format!("high{round}"), 40);
            b.validate();
            assert!(slabs.pages_in_use() * page >= 13 << 20, "{}", slabs.pages_in_use());
        }
    });
}

/// A client that takes its time over a value keeps that value's pages and no others, though they be
/// the ones with the least on them.
#[test]
fn a_slow_reader_does_not_keep_the_limit_from_being_reached() {
    each(16, |b| {
        b.fill("slow", 500, 20_000);
        let pin = b.pin("slow00100");
        let slabs = &b.shard().slabs;
        let pages = |name: &str| -> Vec<PageNo> {
            let head = b.chunk_of(name).expect("it is there");
            crate::item::chunks_of(slabs, head).map(|chunk| slabs.page_of(chunk)).collect()
        };
        let pinned = pages("slow00100");
        for n in (0..500).filter(|n| *n != 100) {
            let name = format!("slow{n:05}");
            if pages(&name).iter().any(|page| pinned.contains(page)) {
                assert!(b.delete(&name));
            }
        }
        assert!(b.store.set_limit(6 << 20));
        b.ticks(20 * SOON);
        assert_eq!(b.shard().slabs.over_limit(), 0);
        b.validate();
        let bytes: Vec<u8> = pin.slices().flatten().copied().collect();
        assert!(bytes == value_of("slow00100", 20_000));
        drop(pin);
        b.validate();
    });
}

/// Nor does a page that an operator asked for, and that cannot move.
#[test]
fn an_operators_move_gives_way_to_the_limit() {
    each(16, |b| {
        let set = Set::of(key("slow"), 5_000);
        let slow = b.store.reserve(&b.local, &set, b.store.hash(set.key)).expect("room");
        let page = two_pages(&b, 5_000);
        load(&b, "a", 40);
        {
            let _filling = slow.lock();
            send_off(&b, page);
            assert!(b.store.set_limit(6 << 20));
            b.until("the limit holds", |b| b.shard().slabs.over_limit() == 0);
        }
        drop(slow);
        b.until("the last move ends", |b| !b.is_moving());
        b.validate();
    });
}
