//! The bound on what UDP answers may add to their requests: whoever sends requests in another's
//! name cannot have that other flooded.

use crate::clock::Seconds;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Networks that are told apart, fewer where two share a slot: they then share an allowance, too.
const SLOTS: usize = 4096;
/// Bits of an IPv4 address that name its network. Whoever floods a line spreads over its addresses.
const V4_NETWORK: u32 = 24;
/// Bits of an IPv6 address that name its network: what one customer is given.
const V6_NETWORK: u32 = 56;

/// What was sent to each network in the present second, beyond what came from it. All workers share
/// one, without a lock.
pub struct Meter {
    /// Bytes a second and network; 0 is no bound.
    rate: u32,
    /// A second of the clock in the high half, the bytes spent in it in the low half.
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Meter {
    pub fn new(rate: u32) -> Meter {
        let slots = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Meter { rate, slots, hasher: RandomState::new() }
    }

    /// True where `peer` may be sent `reply` bytes for `request` bytes; they are then counted. An
    /// answer no longer than its request is free. A loopback address cannot be forged from
    /// elsewhere, so nothing is counted for it.
    pub fn admit(&self, peer: IpAddr, now: Seconds, request: usize, reply: usize) -> bool {
        let more = reply.saturating_sub(request) as u64;
        if more == 0 || self.rate == 0 || peer.is_loopback() {
            return true;
        }
        let slot = &self.slots[self.hasher.hash_one(network(peer)) as usize % SLOTS];
        let spend = |word: u64| {
            let spent = if word >> 32 == u64::from(now) { word & u64::from(u32::MAX) } else { 0 };
            let spent = spent + more;
            (spent <= u64::from(self.rate)).then_some(u64::from(now) << 32 | spent)
        };
        slot.fetch_update(Relaxed, Relaxed, spend).is_ok()
    }
}

fn network(peer: IpAddr) -> u128 {
    match peer {
        IpAddr::V4(v4) => u128::from(v4.to_bits() >> (u32::BITS - V4_NETWORK)),
        IpAddr::V6(v6) => v6.to_bits() >> (u128::BITS - V6_NETWORK),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_network_has_one_allowance_a_second() {
        let meter = Meter::new(1000);
        assert!(meter.admit(ip("192.0.2.1"), 5, 100, 700));
        assert!(!meter.admit(ip("192.0.2.200"), 5, 100, 501), "its neighbour spends the same");
        assert!(meter.admit(ip("192.0.2.200"), 5, 100, 500));
        assert!(!meter.admit(ip("192.0.2.1"), 5, 100, 101));
        assert!(meter.admit(ip("192.0.2.1"), 5, 100, 100), "no more than it sent");
        assert!(meter.admit(ip("192.0.2.1"), 6, 0, 1000), "a second later");
        assert!(!meter.admit(ip("192.0.2.1"), 7, 0, 1001), "more than a second's worth");
    }

    #[test]
    fn one_customers_ipv6_is_one_network() {
        let meter = Meter::new(1000);
        assert!(meter.admit(ip("2001:db8:0:1::1"), 5, 0, 1000));
        assert!(!meter.admit(ip("2001:db8:0:ff::2"), 5, 0, 1));
    }

    #[test]
    fn networks_do_not_spend_each_others_allowance() {
        let meter = Meter::new(1000);
        let addresses = (0..100).map(|i| IpAddr::from([10, 0, i, 1]));
        let admitted = addresses.filter(|peer| meter.admit(*peer, 5, 0, 1000)).count();
        // Of a hundred networks in 4096 slots, a few may share one.
        assert!(admitted > 80, "{admitted}");
    }

    #[test]
    fn loopback_and_no_rate_are_unbounded() {
        let (meter, unbounded) = (Meter::new(10), Meter::new(0));
        for _ in 0..3 {
            assert!(meter.admit(ip("127.1.2.3"), 5, 10, 1_000_000));
            assert!(meter.admit(ip("::1"), 5, 10, 1_000_000));
            assert!(unbounded.admit(ip("192.0.2.1"), 5, 10, 1_000_000));
        }
    }
}
