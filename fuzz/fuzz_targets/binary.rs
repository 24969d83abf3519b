//! A connection of the binary protocol.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustcached::config::Protocol;

fuzz_target!(|input: &[u8]| rustcached_fuzz::stream(Protocol::Binary, input));
