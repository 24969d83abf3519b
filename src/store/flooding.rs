//! Keys that were chosen to meet each other in the index: they must not, where the hash's seed is
//! not known. What a lookup costs is counted, not timed: nodes behind the lines, and items that are
//! looked at in vain.

use super::testing::Bench;
use super::{Key, Set};
use crate::config::Settings;
use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};
use std::collections::HashSet;

/// So many fill the lines of an index of [`HASHPOWER`] that is about to grow.
const KEYS: u32 = 20_000;
const HASHPOWER: u32 = 14;
/// How much more than random keys chosen ones may cost, in percent.
const COST_MAX_PCT: u64 = 150;
/// The seed that a careless server would have.
const KNOWN: RapidSecrets = RapidSecrets::seed_cpp(0);

type Family = (&'static str, fn(u32) -> Vec<u8>);

/// A number that looks like chance.
fn scattered(n: u32) -> u64 {
    let mut x = u64::from(n).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}

fn random(n: u32) -> Vec<u8> {
    [scattered(n), scattered(!n)].map(u64::to_le_bytes).concat()
}

/// Under a known secret eight bytes of a long key can be chosen so that it is multiplied by zero:
/// nothing else of it counts any more.
fn colliding(secrets: &RapidSecrets, n: u32) -> Vec<u8> {
    const LEN: usize = 40;
    let mut key = vec![b'x'; LEN];
    key[..8].copy_from_slice(&scattered(n).to_le_bytes());
    let blind = secrets.secrets[1] ^ LEN as u64;
    key[LEN - 16..LEN - 8].copy_from_slice(&blind.to_le_bytes());
    key
}

const CHOSEN: [Family; 10] = [
    ("in order", |n| format!("user:{n}").into_bytes()),
    ("of one length", |n| format!("{n:010}").into_bytes()),
    ("with one beginning", |n| [&[b'a'; 200][..], &n.to_le_bytes()].concat()),
    ("with one end", |n| [&n.to_le_bytes()[..], &[b'a'; 200]].concat()),
    ("with one beginning and end", |n| [&[b'a'; 60][..], &n.to_be_bytes(), &[b'a'; 60]].concat()),
    ("long, a byte apart", |n| {
        let mut key = vec![b'a'; 250];
        key[n as usize % 250] ^= (n / 250) as u8 + 1;
        key
    }),
    ("of few bits", |n| vec![n as u8 & 7, (n >> 3) as u8 & 7, (n >> 6) as u8, (n >> 14) as u8]),
    ("multiples of 2^32", |n| (u64::from(n) << 32).to_le_bytes().to_vec()),
    ("meeting under known secrets", |n| colliding(&KNOWN, n)),
    ("meeting under secrets of seed 0", |n| colliding(&RapidSecrets::seed(0), n)),
];

/// What a lookup of each key costs, all together: nodes, and items of other keys.
struct Cost {
    nodes: u64,
    in_vain: u64,
}

fn cost_of(make: fn(u32) -> Vec<u8>) -> Cost {
    let bench = Bench::new(Settings { hashpower_init: HASHPOWER, ..Settings::default() });
    let mut keys = HashSet::new();
    for n in 0..KEYS {
        let name = make(n);
        let set = Set::of(Key::new(&name).expect("a key"), 0);
        bench.store.set(&bench.local, &set, bench.store.hash(set.key), b"").expect("room");
        keys.insert(name);
        if n % 16 == 0 {
            bench.tick();
        }
    }
    bench.settle();
    assert_eq!((bench.items(), keys.len()), (u64::from(KEYS), KEYS as usize));
    let shard = bench.shard();
    let mut cost = Cost { nodes: u64::from(shard.index.used_nodes()), in_vain: 0 };
    for name in &keys {
        let line = shard.index.lock(shard.hash_bytes(name));
        let found = line.find(|chunk| {
            let item = shard.item(chunk);
            let is_it = item.key_is(item.shape(), name);
            cost.in_vain += u64::from(!is_it);
            is_it
        });
        assert!(found.is_some());
    }
    cost
}

#[test]
fn chosen_keys_cost_no_more_than_others() {
    let usual = cost_of(random);
    assert!(usual.nodes > 100 && usual.in_vain > 100, "there is nothing to compare with");
    for (name, make) in CHOSEN {
        let cost = cost_of(make);
        let within = |cost: u64, usual: u64| cost * 100 <= usual * COST_MAX_PCT;
        assert!(within(cost.nodes, usual.nodes), "keys {name}: {} nodes", cost.nodes);
        assert!(within(cost.in_vain, usual.in_vain), "keys {name}: {} in vain", cost.in_vain);
    }
}

/// What the families above would do to a server whose secrets are known.
#[test]
fn under_known_secrets_chosen_keys_do_meet() {
    for secrets in [KNOWN, RapidSecrets::seed(0)] {
        let hash = |n| rapidhash_v3_seeded(&colliding(&secrets, n), &secrets);
        let hashes: HashSet<u64> = (0..1_000).map(hash).collect();
        assert_eq!(hashes.len(), 1);
    }
}

#[test]
fn each_store_has_secrets_of_its_own() {
    let secrets = || {
        let bench = Bench::new(Settings::default());
        bench.shard().secrets
    };
    let all: HashSet<RapidSecrets> = (0..8).map(|_| secrets()).collect();
    assert_eq!(all.len(), 8);
    // The seed stands for all of them, so each must follow from it.
    let distinct: HashSet<u64> = all.iter().flat_map(|s| s.secrets).collect();
    assert_eq!(distinct.len(), 8 * 7);
    assert!(all.iter().all(|s| !s.secrets.iter().any(|secret| KNOWN.secrets.contains(secret))));
}
