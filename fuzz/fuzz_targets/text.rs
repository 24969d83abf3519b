//! A connection of the text protocols. `text` and `meta` differ in where they start: their corpora
//! and dictionaries.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustcached::config::Protocol;

fuzz_target!(|input: &[u8]| rustcached_fuzz::stream(Protocol::Ascii, input));
