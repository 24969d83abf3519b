//! Replays a recorded trace against a store in this process, look-aside: a get, and on a miss a set
//! of the recorded size. Prints the miss ratio; the upkeep that a server's background thread does
//! runs between requests. By hand:
//! `cargo bench --bench trace -- TRACE.kvt... [--mib 16,64] [--pace N] [-o key=value,...] [-f F]`
//!
//! A trace is "KVT1", then u32 requests, u32 objects, u32 has_ttl, then columns of u32 in little
//! endian: second, object, size (key and value, low 28 bits), and the ttl where has_ttl is 1.

use rustcached::clock::Clock;
use rustcached::command::{Get, Set};
use rustcached::config::{Action, parse};
use rustcached::store::{Key, Local, Pace, Store};
use std::sync::Arc;
use std::time::Instant;

/// Bytes of a key, as the sizes of the trace count it.
const KEY_LEN: usize = 20;
/// Requests between two looks of the background thread.
const PACE: usize = 500;
/// Ticks that it does in a row at the most.
const TICKS_MAX: usize = 64;

struct Trace {
    words: Vec<u32>,
    requests: usize,
}

impl Trace {
    fn read(path: &str) -> Trace {
        let raw = std::fs::read(path).expect("a trace");
        assert_eq!(&raw[..4], b"KVT1", "a trace starts with KVT1");
        let word = |b: &[u8]| u32::from_le_bytes(b.try_into().expect("four bytes"));
        let words: Vec<u32> = raw[16..].chunks_exact(4).map(word).collect();
        Trace { words, requests: word(&raw[4..8]) as usize }
    }

    fn object(&self, n: usize) -> u32 {
        self.words[self.requests + n]
    }

    fn size(&self, n: usize) -> usize {
        (self.words[2 * self.requests + n] & 0x0FFF_FFFF) as usize
    }
}

fn key(object: u32) -> [u8; KEY_LEN] {
    let mut key = [b'0'; KEY_LEN];
    let digits = object.to_string();
    key[KEY_LEN - digits.len()..].copy_from_slice(digits.as_bytes());
    key
}

/// Requests, misses.
fn replay(trace: &Trace, store: &Arc<Store>, l: &Local, pace: usize) -> (u64, u64) {
    let value = vec![b'v'; 1 << 20];
    let mut misses = 0;
    for n in 0..trace.requests {
        let name = key(trace.object(n));
        let key = Key::new(&name).expect("a key of 20 bytes");
        let hash = store.hash(key);
        if !store.get(l, &Get::of(key), hash, |_| ()) {
            misses += 1;
            let len = trace.size(n).saturating_sub(KEY_LEN).min(value.len() - 512);
            let set = Set::of(key, len as u32);
            let _ = store.set(l, &set, hash, &value[..len]);
        }
        if n % pace == 0 {
            (0..TICKS_MAX).take_while(|_| store.tick(l) != Pace::Rest).count();
        }
    }
    (trace.requests as u64, misses)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let after = |name: &str| {
        let at = args.iter().position(|a| a == name)?;
        args.get(at + 1).cloned()
    };
    let sizes = after("--mib").unwrap_or("16,64".into());
    let pace = after("--pace").map_or(PACE, |n| n.parse().expect("a number"));
    let (options, factor) = (after("-o"), after("-f"));
    let traces = args.iter().take_while(|a| !a.starts_with('-'));
    for path in traces {
        let trace = Trace::read(path);
        for mib in sizes.split(',') {
            let mut line = vec!["rustcached", "-m", mib];
            line.extend(options.iter().flat_map(|o| ["-o", o.as_str()]));
            line.extend(factor.iter().flat_map(|f| ["-f", f.as_str()]));
            let parsed = parse(line.into_iter().map(Into::into));
            let Ok(Action::Run(settings)) = parsed else { panic!("{parsed:?}") };
            let clock = Arc::new(Clock::manual(1_700_000_000));
            let store = Store::new(Arc::new(*settings), clock).expect("a store");
            let local = store.local();
            let start = Instant::now();
            let (gets, misses) = replay(&trace, &store, &local, pace);
            println!(
                "{path} -m {mib}: gets {gets} misses {misses} miss_ratio {:.4} items {} in {:.1} s",
                misses as f64 / gets as f64,
                store.class_info().iter().map(|c| c.items).sum::<u64>(),
                start.elapsed().as_secs_f64()
            );
        }
    }
}
