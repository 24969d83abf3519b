//! Starts on damaged memory files.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| rustcached_fuzz::restart::restart(input));
