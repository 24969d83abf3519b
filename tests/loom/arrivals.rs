//! Values that come bit by bit, against whoever moves their chunks or drops them.

use super::mover::emptying;
use super::{INDEX, LARGE, PAGE, User, check, key, store_of};
use rustcached::command::Set;
use rustcached::store::{Outcome, Refusal, Reservation};

const VALUE: [u8; LARGE] = [b'a'; LARGE];
/// What of it is in its first chunk.
const FIRST: usize = 20;
const PAGES: u64 = 4;

fn set() -> Set<'static> {
    Set::of(key("k"), LARGE as u32)
}

fn begin(user: &User) -> Reservation {
    let set = set();
    let half = user.store.reserve(&user.local, &set, user.store.hash(set.key));
    let mut half = half.expect("memory");
    assert_eq!(half.fill(&user.local, &VALUE[..FIRST]), Ok(FIRST));
    half
}

fn end(user: &User, mut half: Reservation) -> Result<Outcome, Refusal> {
    let set = set();
    half.fill(&user.local, &VALUE[FIRST..])?;
    user.store.commit(&user.local, half, &set, user.store.hash(set.key))
}

/// It grows by a chunk while the mover empties a page that it lies on.
#[test]
fn a_value_comes_while_its_chunks_move() {
    check(|| {
        let user = emptying();
        let half = begin(&user);
        let mover = user.spawn(|user| user.resize());
        end(&user, half).expect("it is stored");
        mover.join().unwrap();
        user.resize();
        assert_eq!(user.get("k").unwrap(), VALUE);
        user.validate();
    });
}

/// It is freed by whoever needs its memory, or stored, or both in this order; never both at once.
#[test]
fn a_value_is_dropped_while_it_comes_or_is_stored() {
    check(|| {
        let user = store_of(PAGES);
        let half = begin(&user);
        let other = user.spawn(|user| {
            // Less than its chunks take together.
            assert!(user.store.set_limit(200));
            assert!(user.store.set_limit(INDEX + PAGES * PAGE));
        });
        let stored = end(&user, half).is_ok();
        other.join().unwrap();
        assert_eq!(user.get("k").is_some(), stored);
        user.holds(u64::from(stored), 2);
    });
}

/// A connection that ends frees what another thread does not.
#[test]
fn a_value_that_is_given_up_is_freed_once() {
    check(|| {
        let user = store_of(PAGES);
        let half = begin(&user);
        let other = user.spawn(|user| assert!(user.store.set_limit(100)));
        drop(half);
        other.join().unwrap();
        user.holds(0, 1);
    });
}
