//! Model-based tests of the slabs: made-up steps against a plain count of who owns what.

#[path = "model/bench.rs"]
mod bench;

use bench::{CLASSES, Model, Op, op};
use proptest::prelude::*;
use rustcached_slab::{ClassId, Geometry};

fn run(geometry: Geometry, pages: u32, memcached: bool, ops: &[Op]) {
    let mut model = Model::new(geometry, pages, memcached);
    for op in ops {
        model.run(op);
        model.check();
    }
}

/// Steps of a case. Miri is slow at all that is checked behind each.
const STEPS: usize = if cfg!(miri) { 30 } else { 300 };

/// `PROPTEST_CASES` asks for another number.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(96),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn small_pages(pages in 1u32..12, ops in prop::collection::vec(op(), 1..STEPS)) {
        let geometry = Geometry::new(4096, vec![24, 100, 256, 512, 1364, 2048]).unwrap();
        run(geometry, pages, false, &ops);
    }

    #[test]
    #[cfg_attr(miri, ignore = "its pages of 1 MiB are cleared word by word")]
    fn memcached_pages(pages in 1u32..4, ops in prop::collection::vec(op(), 1..80)) {
        let geometry = Geometry::memcached(2.0, 8_144, 524_288).unwrap();
        assert_eq!(geometry.largest(), ClassId(CLASSES));
        run(geometry, pages, true, &ops);
    }
}
