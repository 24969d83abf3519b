//! Steps on the slabs against a plain count of who owns what, with a walk over everything after
//! each: the bench of `slab/tests/model.rs`, whose steps the input's bytes draw.
#![no_main]

#[path = "../../slab/tests/model/bench.rs"]
mod bench;

use bench::{CLASSES, Model, op};
use libfuzzer_sys::fuzz_target;
use rustcached_slab::{ClassId, Geometry};

const SMALL: [u32; CLASSES as usize] = [24, 100, 256, 512, 1364, 2048];

fuzz_target!(|input: &[u8]| {
    let Some((&kind, steps)) = input.split_first() else { return };
    let memcached = kind % 2 == 1;
    let pages = 1 + u32::from(kind / 2 % 12);
    let geometry = if memcached {
        Geometry::memcached(2.0, 8_144, 524_288).expect("a ladder")
    } else {
        Geometry::new(4096, SMALL.to_vec()).expect("a ladder")
    };
    assert_eq!(geometry.largest(), ClassId(CLASSES));
    let pages = if memcached { 1 + pages % 3 } else { pages };
    let mut model = Model::new(geometry, pages, memcached);
    for op in rustcached_fuzz::steps(op(), steps) {
        model.run(&op);
        model.check();
    }
});
