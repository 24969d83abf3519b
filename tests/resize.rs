//! The index grows and shrinks under the hands of threads that read and write.

use rustcached::clock::Clock;
use rustcached::command::{Delete, Get, Set};
use rustcached::config::{Layout, Settings};
use rustcached::store::{DeleteOutcome, Key, Local, Outcome, Pace, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::scope;

const WRITERS: u32 = 3;
/// Keys that each writer stores at once, and of which it keeps one in [`KEPT`].
const KEYS: u32 = 12_000;
const KEPT: u32 = 16;
const WAVES: u32 = 4;
/// Keys that are there throughout.
const STABLE: u32 = 500;

struct User {
    store: Arc<Store>,
    local: Local,
}

impl User {
    fn of(store: &Arc<Store>) -> User {
        User { store: store.clone(), local: store.local() }
    }

    fn set(&self, name: &str, value: &str) {
        let set = Set::of(key(name), value.len() as u32);
        let stored = self.store.set(&self.local, &set, self.store.hash(set.key), value.as_bytes());
        assert!(matches!(stored, Ok(Outcome::Stored { .. })), "{name}: {stored:?}");
    }

    fn get(&self, name: &str) -> Option<String> {
        let get = Get::of(key(name));
        let mut value = Vec::new();
        let hit = self.store.get(&self.local, &get, self.store.hash(get.key), |hit| {
            value.clear();
            hit.copy_value(&mut value);
        });
        hit.then(|| String::from_utf8(value).expect("what was stored is text"))
    }

    fn delete(&self, name: &str) {
        let delete = Delete::of(key(name));
        let deleted = self.store.delete(&self.local, &delete, self.store.hash(delete.key));
        assert_eq!(deleted, DeleteOutcome::Deleted, "{name}");
    }

    /// Stores many keys, deletes most, and looks for each every time.
    fn write(&self, me: u32) {
        for wave in 0..WAVES {
            let name = |n: u32| format!("{me}:{n}");
            let value = |n: u32| format!("{wave}:{}", n.wrapping_mul(2_654_435_761));
            for n in 0..KEYS {
                self.set(&name(n), &value(n));
                let earlier = n / 2;
                assert_eq!(self.get(&name(earlier)), Some(value(earlier)), "{}", name(earlier));
            }
            for n in 0..KEYS {
                assert_eq!(self.get(&name(n)), Some(value(n)), "{}", name(n));
            }
            for n in (0..KEYS).filter(|n| n % KEPT != 0) {
                self.delete(&name(n));
                assert_eq!(self.get(&name(n)), None, "{}", name(n));
            }
            for n in 0..KEYS {
                let kept = (n % KEPT == 0).then(|| value(n));
                assert_eq!(self.get(&name(n)), kept, "{}", name(n));
            }
        }
    }
}

fn key(name: &str) -> Key<'_> {
    Key::new(name.as_bytes()).expect("a short key")
}

fn stable(n: u32) -> String {
    format!("stable:{n}")
}

#[test]
fn nobody_notices() {
    for layout in [Layout::Compact, Layout::Memcached] {
        run(layout);
    }
}

fn run(layout: Layout) {
    let settings =
        Settings { layout, maxbytes: 64 << 20, hashpower_init: 11, ..Settings::default() };
    let clock = Arc::new(Clock::manual(1_700_000_000));
    let store = Store::new(Arc::new(settings), clock).expect("a store");
    let user = User::of(&store);
    (0..STABLE).for_each(|n| user.set(&stable(n), &stable(n)));
    let start = store.info().hash_bytes;
    let done = AtomicBool::new(false);
    let (mut largest, mut shrinks) = (start, 0);
    scope(|threads| {
        let spawn = |me| {
            let user = User::of(&store);
            threads.spawn(move || user.write(me))
        };
        let writers: Vec<_> = (0..WRITERS).map(spawn).collect();
        let (reader, done) = (User::of(&store), &done);
        threads.spawn(move || {
            while !done.load(Relaxed) {
                for name in (0..STABLE).map(stable) {
                    assert_eq!(reader.get(&name), Some(name));
                }
            }
        });
        let mut before = start;
        let writing = || writers.iter().any(|writer| !writer.is_finished());
        while store.tick(&user.local) != Pace::Rest || writing() {
            let bytes = store.info().hash_bytes;
            shrinks += usize::from(bytes < before);
            (largest, before) = (largest.max(bytes), bytes);
        }
        done.store(true, Relaxed);
    });
    assert!(largest > 5 * start, "it never grew: {largest} bytes at the most");
    assert!(shrinks > 0, "it never shrank");
    store.validate().expect("a sound store");
    for name in (0..STABLE).map(stable) {
        assert_eq!(user.get(&name), Some(name));
    }
}
