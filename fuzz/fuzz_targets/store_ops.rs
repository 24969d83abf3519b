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

fuzz_target!(|input: &[u8]| {
    let Some((settings, steps)) = input.split_first_chunk::<4>() else { return };
    let mut bench = Bench::new(rustcached_fuzz::draw(&ops::settings(), settings));
    for op in rustcached_fuzz::steps(ops::ops(2), steps).flatten() {
        bench.run(&op);
        bench.validate();
    }
    bench.finish();
});
