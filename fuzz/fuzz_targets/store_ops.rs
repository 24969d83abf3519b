//! Steps on a store against a plain map of what memcached's semantics say, with a walk over
//! everything after each: the bench of `tests/model.rs`, whose steps the input's bytes draw.
#![no_main]
#![allow(dead_code)]

#[path = "../../tests/model/bench.rs"]
mod bench;
#[path = "../../tests/model/ops.rs"]
mod ops;
#[path = "../../tests/model/reference.rs"]
mod reference;

use bench::Bench;
use libfuzzer_sys::fuzz_target;
use rustcached_fuzz::Drawer;

fuzz_target!(|input: &[u8]| {
    let mut drawer = Drawer::of(input);
    let mut bench = Bench::new(drawer.draw(ops::settings()));
    // About the bytes that a step takes.
    for op in drawer.draw(ops::ops(2 + input.len() / 32)) {
        bench.run(&op);
        bench.validate();
    }
    bench.finish();
});
