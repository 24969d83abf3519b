//! The page mover against readers, writers and pins.

use super::{LARGE, User, check, store_of};
use rustcached::store::{DeleteOutcome, Reassign};

/// Class of the largest chunks, 8 on a page.
const LARGEST: u32 = 64;

/// Two pages of the largest class, of which one is about to be emptied, with room for its items on
/// the other.
pub(super) fn emptying() -> User {
    let user = store_of(4);
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    for name in names {
        user.set(name, &[b'x'; 48]);
    }
    for name in &names[2..7] {
        assert_eq!(user.delete(name), DeleteOutcome::Deleted);
    }
    let classes = user.store.class_info();
    let class = classes.iter().find(|c| c.chunk_size == LARGEST).expect("the largest class");
    assert_eq!((class.pages, class.items), (2, 4));
    assert_eq!(user.store.reassign(class.id as i32, 0), Reassign::Ok);
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
