//! The page mover, and an allocation that clears a page, against readers, writers and pins.

use super::{LARGE, User, check, store_of};
use rustcached::store::{ClassInfo, DeleteOutcome, Reassign};

/// Class of the largest chunks, 8 on a page.
const LARGEST: u32 = 64;

/// A store of so many pages. The largest class has two, with items on either that one could hold.
fn half_empty(pages: u64) -> User {
    let user = store_of(pages);
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    for name in names {
        user.set(name, &[b'x'; 48]);
    }
    for name in &names[2..7] {
        assert_eq!(user.delete(name), DeleteOutcome::Deleted);
    }
    let class = largest(&user);
    assert_eq!((class.pages, class.items), (2, 4));
    user
}

fn largest(user: &User) -> ClassInfo {
    let mut classes = user.store.class_info().into_iter();
    classes.find(|c| c.chunk_size == LARGEST).expect("the largest class")
}

/// The same with one of the two pages about to be emptied.
pub(super) fn emptying() -> User {
    let user = half_empty(4);
    assert_eq!(user.store.reassign(largest(&user).id as i32, 0), Reassign::Ok);
    user
}

/// The mover copies items off a page while they are read, replaced, deleted and touched: none is
/// lost, none comes back, and a reader takes no bytes of two.
#[test]
fn a_page_that_is_emptied_loses_no_item() {
    let (old, new) = ([b'x'; 48], [b'y'; 48]);
    let works: [(fn(&User, &str), Option<[u8; 48]>); 4] = [
        (|user, name| assert_eq!(user.get(name).unwrap(), [b'x'; 48]), Some(old)),
        (|user, name| user.set(name, &[b'y'; 48]), Some(new)),
        (|user, name| assert_eq!(user.delete(name), DeleteOutcome::Deleted), None),
        (|user, name| assert!(user.touch(name)), Some(old)),
    ];
    for (work, left) in works {
        // One on either page.
        for name in ["a", "i"] {
            check(move || {
                let user = emptying();
                let mover = user.spawn(|user| user.resize());
                work(&user, name);
                mover.join().unwrap();
                user.resize();
                assert_eq!(user.get(name), left.map(Vec::from));
                for other in ["a", "b", "h", "i"].into_iter().filter(|other| *other != name) {
                    assert_eq!(user.get(other).unwrap(), old);
                }
                user.holds(3 + u64::from(left.is_some()), 1);
            });
        }
    }
}

/// An allocation clears a page of another class for itself while that one's items are used. Where
/// it finds their lines locked too often it evicts some; none comes back or has another's bytes.
#[test]
fn what_another_class_took_brings_nothing_back() {
    let works: [fn(&User, &str) -> Option<Vec<u8>>; 3] = [
        |user, name| user.get(name).or_else(|| Some(b"none".to_vec())),
        |user, name| {
            user.set(name, &[b'y'; 48]);
            Some(vec![b'y'; 48])
        },
        |user, name| {
            user.delete(name);
            None
        },
    ];
    for work in works {
        for name in ["a", "i"] {
            check(move || {
                let user = half_empty(2);
                let short = user.spawn(|user| user.set("s", b"small"));
                let left = work(&user, name);
                short.join().unwrap();
                assert_eq!(user.get("s").unwrap(), b"small");
                assert!(user.get(name).is_none_or(|value| Some(value) == left));
                let others = ["a", "b", "h", "i"].into_iter().filter(|other| *other != name);
                assert!(others.flat_map(|other| user.get(other)).all(|v| v == [b'x'; 48]));
                assert_eq!(largest(&user).pages, 1);
                user.validate();
            });
        }
    }
}

/// A value of several chunks is pinned while the mover wants a page that it lies on.
#[test]
fn a_page_waits_for_a_pin() {
    check(|| {
        let user = emptying();
        user.set("k", &[b'a'; LARGE]);
        let mover = user.spawn(|user| user.resize());
        if let Some(pin) = user.pin("k") {
            let mut value = Vec::new();
            pin.copy(&mut value);
            assert_eq!(value, [b'a'; LARGE]);
        }
        mover.join().unwrap();
        assert!(user.get("k").is_none_or(|value| value == [b'a'; LARGE]));
        user.validate();
    });
}
