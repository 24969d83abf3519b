//! The protocols between threads, run on the real store by a model checker in every order that it
//! can tell apart, stale reads of relaxed atomics included:
//! `RUSTFLAGS="--cfg loom" cargo test --release --test loom`.
//!
//! Stores are as small as they can be (pages of 512 bytes, two index lines), so that a chunk that
//! one thread frees is the next that another gets. All orders in which one thread is interrupted
//! once are tried, for at most [`LONGEST`] a model; `LOOM_MAX_PREEMPTIONS` and `LOOM_MAX_DURATION`
//! (seconds) ask for more.
#![cfg(loom)]

#[path = "loom/arrivals.rs"]
mod arrivals;
#[path = "loom/mover.rs"]
mod mover;

use loom::thread::{JoinHandle, spawn};
use rustcached::clock::{Clock, Exptime};
use rustcached::command::{Arith, Delete, Fetch, Get, Set, SetMode, Touch};
use rustcached::config::Settings;
use rustcached::store::{
    ArithOutcome, DeleteOutcome, FetchOutcome, Key, Local, Outcome, Pace, Pin, Store, TouchOutcome,
};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of the smallest index, and of a page with what is charged beside it.
const INDEX: u64 = 384;
const PAGE: u64 = 570;
/// Chunks on a page of the smallest class, which holds keys of 1 and values of up to 15 bytes.
const SMALLEST: usize = 512 / 24;
/// More than fits the largest chunk of 64 bytes: a head and a body.
const LARGE: usize = 60;

const LONGEST: Duration = Duration::from_secs(25);

/// One thread's view of a store.
struct User {
    store: Arc<Store>,
    local: Local,
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    check_interrupted(1, model);
}

fn check_interrupted(times: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 1_000_000;
    builder.preemption_bound = builder.preemption_bound.or(Some(times));
    // How often it looks at the time.
    builder.checkpoint_interval = 100;
    builder.max_duration = builder.max_duration.or(Some(LONGEST));
    builder.check(model);
}

fn store_of(pages: u64) -> User {
    let settings = Settings {
        maxbytes: INDEX + pages * PAGE,
        item_size_max: 1024,
        max_connections: 0,
        ..Settings::default()
    };
    let clock = Arc::new(Clock::manual(1_700_000_000));
    let store = Store::new(Arc::new(settings), clock).expect("a store");
    User { local: store.local(), store }
}

fn key(key: &str) -> Key<'_> {
    Key::new(key.as_bytes()).expect("a short key")
}

fn plain_get(name: &str) -> Get<'_> {
    Get::of(key(name))
}

impl User {
    /// Another thread's.
    fn other(&self) -> User {
        User { store: self.store.clone(), local: self.store.local() }
    }

    fn spawn<T: 'static>(&self, work: impl FnOnce(&User) -> T + 'static) -> JoinHandle<T> {
        let user = self.other();
        spawn(move || work(&user))
    }

    fn set(&self, name: &str, value: &[u8]) {
        assert_eq!(self.store_as(SetMode::Set, name, value, None), stored(value.len()));
    }

    fn store_as(&self, mode: SetMode, name: &str, value: &[u8], cas: Option<u64>) -> Outcome {
        let set = Set { mode, compare_cas: cas, ..Set::of(key(name), value.len() as u32) };
        let hash = self.store.hash(set.key);
        self.store.set(&self.local, &set, hash, value).expect("memory")
    }

    fn get(&self, name: &str) -> Option<Vec<u8>> {
        let get = plain_get(name);
        let mut value = Vec::new();
        let hit = self.store.get(&self.local, &get, self.store.hash(get.key), |hit| {
            value.clear();
            hit.copy_value(&mut value);
        });
        hit.then_some(value)
    }

    fn pin(&self, name: &str) -> Option<Pin> {
        let get = plain_get(name);
        let mut pin = None;
        self.store.get(&self.local, &get, self.store.hash(get.key), |hit| pin = hit.pin());
        pin
    }

    /// Value and CAS unique.
    fn gets(&self, name: &str) -> Option<(Vec<u8>, u64)> {
        let fetch = Fetch { cas: true, ..Fetch::of(plain_get(name)) };
        let mut seen = (Vec::new(), 0);
        let hash = self.store.hash(fetch.get.key);
        let hit = self.store.fetch(&self.local, &fetch, hash, |hit| {
            seen.0.clear();
            hit.copy_value(&mut seen.0);
            seen.1 = hit.cas();
        });
        (hit == FetchOutcome::Hit).then_some(seen)
    }

    fn delete(&self, name: &str) -> DeleteOutcome {
        let delete = Delete::of(key(name));
        self.store.delete(&self.local, &delete, self.store.hash(delete.key))
    }

    fn touch(&self, name: &str) -> bool {
        let touch = Touch { key: key(name), exptime: Exptime(100) };
        let outcome = self.store.touch(&self.local, &touch, self.store.hash(touch.key));
        outcome == TouchOutcome::Touched
    }

    fn incr(&self, name: &str, delta: u64) -> Option<u64> {
        let arith = Arith::of(key(name), delta);
        match self.store.arith(&self.local, &arith, self.store.hash(arith.key)) {
            ArithOutcome::Number { value, .. } => Some(value),
            ArithOutcome::NotFound => None,
            other => panic!("{other:?}"),
        }
    }

    /// Lets the index grow or shrink as far as it will.
    fn resize(&self) {
        while self.store.tick(&self.local) != Pace::Rest {}
    }

    fn validate(&self) {
        if let Err(fault) = self.store.validate() {
            panic!("{fault}");
        }
    }

    /// Nothing is handed out but what `items` items need, of as many chunks each.
    fn holds(&self, items: u64, chunks_each: u64) {
        self.validate();
        let classes = self.store.class_info();
        let held: u64 = classes.iter().map(|class| class.items).sum();
        let out: u64 = classes.iter().map(|class| class.total_chunks - class.free_chunks).sum();
        assert_eq!((held, out), (items, items * chunks_each));
    }
}

fn stored(len: usize) -> Outcome {
    Outcome::Stored { cas: None, len: len as u32 }
}

/// A read without the lock never takes bytes of two values for one, though the chunk is freed and
/// used again while it looks; and a key that is there throughout is found.
#[test]
fn a_read_sees_one_value_while_its_chunk_is_used_again() {
    check(|| {
        let user = store_of(1);
        user.set("k", b"aaaaaaaa");
        let writer = user.spawn(|user| {
            // Of another length, so that it takes a chunk of its own.
            user.set("k", b"bbbbbbb");
            user.set("j", b"cccccccc");
        });
        let value = user.get("k").expect("the key is there throughout");
        assert!(value == b"aaaaaaaa" || value == b"bbbbbbb", "{}", value.escape_ascii());
        writer.join().unwrap();
        assert_eq!(user.get("k").unwrap(), b"bbbbbbb");
        user.holds(2, 1);
    });
}

/// The same where a value is written over by one of its length.
#[test]
fn a_read_sees_one_value_while_it_is_written_over() {
    check(|| {
        let user = store_of(1);
        user.set("k", b"aaaaaaaa");
        let writer = user.spawn(|user| user.set("k", b"bbbbbbbb"));
        let value = user.get("k").expect("the key is there throughout");
        assert!(value == b"aaaaaaaa" || value == b"bbbbbbbb", "{}", value.escape_ascii());
        writer.join().unwrap();
        assert_eq!(user.get("k").unwrap(), b"bbbbbbbb");
        user.holds(1, 1);
    });
}

/// As above, but the chunk's next owner is another thread than the one that freed it.
#[test]
fn a_read_sees_one_value_while_a_third_uses_its_chunk() {
    check_interrupted(2, || {
        let user = store_of(1);
        user.set("k", b"aaaaaaaa");
        let deleter = user.spawn(|user| user.delete("k"));
        let writer = user.spawn(|user| user.set("j", b"cccccccc"));
        assert!(user.get("k").is_none_or(|value| value == b"aaaaaaaa"));
        assert_eq!(deleter.join().unwrap(), DeleteOutcome::Deleted);
        writer.join().unwrap();
        assert_eq!(user.get("j").unwrap(), b"cccccccc");
        user.holds(1, 1);
    });
}

#[test]
fn a_read_sees_one_value_while_it_changes_in_place() {
    check(|| {
        let user = store_of(2);
        user.set("n", b"19999999");
        let (_, before) = user.gets("n").unwrap();
        let writer = user.spawn(|user| user.incr("n", 1));
        let (value, cas) = user.gets("n").expect("the key is there throughout");
        match &value[..] {
            b"19999999" => assert_eq!(cas, before),
            b"20000000" => assert!(cas > before),
            _ => panic!("{}", value.escape_ascii()),
        }
        assert_eq!(writer.join().unwrap(), Some(20_000_000));
        user.holds(1, 1);
    });
}

/// Without a CAS unique to go by.
#[test]
fn a_plain_read_sees_one_value_while_it_changes_in_place() {
    check(|| {
        let user = store_of(1);
        user.set("n", b"19999999");
        let writer = user.spawn(|user| user.incr("n", 1));
        let value = user.get("n").expect("the key is there throughout");
        assert!(value == b"19999999" || value == b"20000000", "{}", value.escape_ascii());
        assert_eq!(writer.join().unwrap(), Some(20_000_000));
        user.holds(1, 1);
    });
}

/// Two clients that ask an item for its first CAS unique are given the same.
#[test]
fn an_item_gets_one_first_unique() {
    check(|| {
        let user = store_of(2);
        user.set("k", b"aaaaaaaa");
        let other = user.spawn(|user| user.gets("k").unwrap());
        let mine = user.gets("k").unwrap();
        assert_eq!(other.join().unwrap(), mine);
        user.holds(1, 1);
    });
}

const GROWING: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Keys enough for the index to grow.
fn growing() -> User {
    let user = store_of(2);
    for name in GROWING {
        user.set(name, b"x");
    }
    user
}

/// Ways to find a key, without a lock and with it. The first goes from line 1 of 2 to line 2 of 4,
/// and back; the other stays in line 0.
fn looks() -> impl Iterator<Item = (fn(&User, &str), &'static str)> {
    let looks: [fn(&User, &str); 2] = [
        |user, name| assert_eq!(user.get(name).unwrap(), b"x"),
        |user, name| assert!(user.touch(name)),
    ];
    looks.into_iter().flat_map(|look| ["a", "c"].map(|name| (look, name)))
}

#[test]
fn growth_hides_no_key() {
    for (look, name) in looks() {
        check(move || {
            let user = growing();
            let grower = user.spawn(|user| user.resize());
            look(&user, name);
            grower.join().unwrap();
            user.holds(6, 1);
        });
    }
}

#[test]
fn growth_and_writes_leave_every_key_once() {
    check(|| {
        let user = growing();
        let grower = user.spawn(|user| user.resize());
        user.set("a", b"y");
        user.set("z", b"z");
        assert_eq!(user.delete("b"), DeleteOutcome::Deleted);
        grower.join().unwrap();
        assert_eq!((user.get("a").unwrap(), user.get("z").unwrap()), (b"y".into(), b"z".into()));
        assert_eq!((user.get("b"), user.get("c").unwrap()), (None, b"x".into()));
        user.holds(6, 1);
    });
}

/// An index that has grown and is about to shrink again, with one key left.
fn shrinking(left: &str) -> User {
    let user = growing();
    let bytes = user.store.info().hash_bytes;
    user.resize();
    assert!(user.store.info().hash_bytes > bytes);
    for name in GROWING.into_iter().filter(|name| *name != left) {
        assert_eq!(user.delete(name), DeleteOutcome::Deleted);
    }
    user
}

#[test]
fn a_shrink_hides_no_key() {
    for (look, name) in looks() {
        check(move || {
            let user = shrinking(name);
            let shrinker = user.spawn(|user| user.resize());
            look(&user, name);
            shrinker.join().unwrap();
            assert_eq!(user.store.info().hash_bytes, INDEX);
            user.holds(1, 1);
        });
    }
}

#[test]
fn a_shrink_and_writes_leave_every_key_once() {
    let writes: [fn(&User); 3] = [
        |user| user.set("a", b"y"),
        |user| user.set("z", b"y"),
        |user| assert_eq!(user.delete("a"), DeleteOutcome::Deleted),
    ];
    let left: [&[(&str, &[u8])]; 3] = [&[("a", b"y")], &[("a", b"x"), ("z", b"y")], &[]];
    for (write, left) in writes.into_iter().zip(left) {
        check_interrupted(2, move || {
            let user = shrinking("a");
            let shrinker = user.spawn(|user| user.resize());
            write(&user);
            shrinker.join().unwrap();
            for (name, value) in left {
                assert_eq!(user.get(name).unwrap(), *value);
            }
            user.holds(left.len() as u64, 1);
        });
    }
}

/// Noting an access never brings a freed chunk back to life.
#[test]
fn a_late_bump_is_lost_on_a_freed_chunk() {
    check(|| {
        let user = store_of(1);
        user.set("k", b"aaaaaaaa");
        let writer = user.spawn(|user| {
            assert_eq!(user.delete("k"), DeleteOutcome::Deleted);
            user.set("j", b"cccccccc");
            assert_eq!(user.delete("j"), DeleteOutcome::Deleted);
        });
        assert!(user.get("k").is_none_or(|value| value == b"aaaaaaaa"));
        writer.join().unwrap();
        user.holds(0, 1);
    });
}

/// A pinned value stays as it is until the last pin is gone, and its chunks are freed once.
#[test]
fn a_pin_outlives_its_key() {
    check(|| {
        let user = store_of(4);
        user.set("k", &[b'a'; LARGE]);
        let writer = user.spawn(|user| {
            assert_eq!(user.delete("k"), DeleteOutcome::Deleted);
            user.set("j", &[b'b'; LARGE]);
        });
        if let Some(pin) = user.pin("k") {
            let mut value = Vec::new();
            pin.copy(&mut value);
            assert_eq!(value, [b'a'; LARGE]);
        }
        writer.join().unwrap();
        assert_eq!(user.get("j").unwrap(), [b'b'; LARGE]);
        user.holds(1, 2);
    });
}

#[test]
fn the_last_of_two_pins_frees() {
    check(|| {
        let user = store_of(4);
        user.set("k", &[b'a'; LARGE]);
        let first = user.pin("k").expect("large values are pinned");
        let dropper = spawn(move || drop(first));
        let writer = user.spawn(|user| assert_eq!(user.delete("k"), DeleteOutcome::Deleted));
        drop(user.pin("k"));
        dropper.join().unwrap();
        writer.join().unwrap();
        user.holds(0, 2);
    });
}

/// The evictor reads its victim's key before it has a right to: the chunk may be another's by then.
#[test]
fn eviction_takes_only_what_it_still_finds() {
    check(|| {
        let user = store_of(1);
        let names: Vec<String> = (0..SMALLEST).map(|n| format!("{n:02}")).collect();
        for name in &names {
            user.set(name, b"x");
        }
        let first = names[0].clone();
        let writer = user.spawn(move |user| {
            user.delete(&first);
            user.set("yy", b"y");
        });
        user.set("zz", b"z");
        writer.join().unwrap();
        assert_eq!(user.get("zz").unwrap_or(b"z".into()), b"z");
        assert_eq!(user.get("yy").unwrap_or(b"y".into()), b"y");
        user.validate();
    });
}

/// A page is emptied and given to another class while one of its items is read.
#[test]
fn a_read_sees_one_value_while_its_page_is_taken() {
    check(|| {
        let user = store_of(1);
        user.set("k", b"aaaaaaaa");
        let writer = user.spawn(|user| user.set("j", &[b'c'; 50]));
        assert!(user.get("k").is_none_or(|value| value == b"aaaaaaaa"));
        writer.join().unwrap();
        assert_eq!(user.get("k"), None);
        assert_eq!(user.get("j").unwrap(), [b'c'; 50]);
        user.holds(1, 1);
    });
}

/// The same, where the new owner's value looks like what the reader saw of the item.
#[test]
fn a_late_bump_spoils_no_value_of_a_page_that_was_taken() {
    check(|| {
        let user = store_of(1);
        user.set("i", b"aaaaaaaa");
        // The second chunk, which begins within a larger chunk's value.
        user.set("k", b"aaaaaaaa");
        // Linked, not read yet, in the clock's first second.
        let standing = 2u32 << 30 | user.store.clock().now();
        let value: Vec<u8> = standing.to_le_bytes().repeat(12);
        let stored = value.clone();
        let writer = user.spawn(move |user| user.set("jjjj", &stored));
        assert!(user.get("k").is_none_or(|value| value == b"aaaaaaaa"));
        writer.join().unwrap();
        assert!(user.get("jjjj").unwrap() == value, "spoilt");
        user.validate();
    });
}

/// What was stored before a flush does not survive it, whoever reads or changes it meanwhile.
#[test]
fn a_flush_spares_nothing_that_was_there() {
    let meanwhile: [fn(&User); 4] = [
        |user| assert!(user.get("k").is_none_or(|value| value == b"5")),
        |user| assert!(user.incr("k", 1).is_none_or(|value| value == 6)),
        |user| assert!(user.incr("k", 7).is_none_or(|value| value == 12)),
        |user| {
            let outcome = user.store_as(SetMode::Append, "k", b"5", None);
            assert!(outcome == stored(2) || outcome == Outcome::NotStored);
        },
    ];
    for work in meanwhile {
        check(move || {
            let user = store_of(1);
            user.set("k", b"5");
            let flusher = user.spawn(|user| user.store.flush_all(&user.local, None));
            work(&user);
            flusher.join().unwrap();
            assert_eq!(user.get("k"), None);
            user.validate();
        });
    }
}

/// What is stored after a flush was answered lives, even if it is read by one who began earlier.
#[test]
fn a_flush_spares_what_comes_after() {
    check(|| {
        let user = store_of(1);
        user.set("k", b"a");
        let flusher = user.spawn(|user| {
            user.store.flush_all(&user.local, None);
            user.set("k", b"b");
        });
        assert!(user.get("k").is_none_or(|value| value == b"a" || value == b"b"));
        flusher.join().unwrap();
        assert_eq!(user.get("k").unwrap(), b"b");
        user.holds(1, 1);
    });
}

#[test]
fn of_two_sets_one_is_left() {
    check(|| {
        let user = store_of(1);
        let other = user.spawn(|user| user.set("k", b"aaaaaaaa"));
        user.set("k", b"bbbbbbbb");
        other.join().unwrap();
        let value = user.get("k").unwrap();
        assert!(value == b"aaaaaaaa" || value == b"bbbbbbbb");
        user.holds(1, 1);
    });
}

#[test]
fn of_two_adds_one_is_stored() {
    check(|| {
        let user = store_of(1);
        let other = user.spawn(|user| user.store_as(SetMode::Add, "k", b"a", None));
        let mine = user.store_as(SetMode::Add, "k", b"b", None);
        let (stored, value) = (stored(1), user.get("k").unwrap());
        let theirs = other.join().unwrap();
        assert_eq!((theirs == stored, mine == stored), (value == b"a", value == b"b"));
        user.holds(1, 1);
    });
}

#[test]
fn of_two_cas_one_is_stored() {
    check(|| {
        let user = store_of(2);
        user.set("k", b"x");
        let (_, cas) = user.gets("k").unwrap();
        let other = user.spawn(move |user| user.store_as(SetMode::Cas, "k", b"a", Some(cas)));
        let mine = user.store_as(SetMode::Cas, "k", b"b", Some(cas));
        let outcomes = [other.join().unwrap(), mine];
        assert!(outcomes.contains(&stored(1)) && outcomes.contains(&Outcome::Exists));
        user.holds(1, 1);
    });
}

/// Increments are not lost.
#[test]
fn two_increments_add_up() {
    check(|| {
        let user = store_of(1);
        user.set("n", b"9");
        let other = user.spawn(|user| user.incr("n", 1).unwrap());
        let mine = user.incr("n", 2).unwrap();
        let theirs = other.join().unwrap();
        assert!((theirs, mine) == (10, 12) || (theirs, mine) == (12, 11));
        user.holds(1, 1);
    });
}
