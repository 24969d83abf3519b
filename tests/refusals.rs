//! Command lines that make no server: one line on stderr, memcached's exit status for a bad one,
//! and nothing opened.

mod common;

use common::server_path;
use std::process::{Command, Output};

/// EX_USAGE of sysexits.h.
const EX_USAGE: i32 = 64;

fn start(line: &str) -> Output {
    // Were it accepted, it would end with 71 at an address that nobody has.
    let mut command = Command::new(server_path());
    command.args(["-l", "192.0.2.1", "-p", "1"]).args(line.split_whitespace());
    command.output().expect("the server's program")
}

#[test]
fn impossible_settings_are_refused_in_one_line() {
    for (line, says) in [
        ("-f 1", "-f: must be"),
        ("-f 0.5 -o layout=memcached", "-f: must be"),
        ("-f 1.0001 -o layout=memcached", "-f 1.0001 makes"),
        ("-n 0", "-n: must be"),
        ("-n 2000000", "-n (2000000 bytes) must not exceed -I"),
        ("-o slab_sizes=200-100", "-o slab_sizes: 100 must exceed 200"),
        ("-o slab_sizes=100-9999999", "-o slab_sizes: '9999999' is not a size"),
        ("-I 33m", "-I (34603008 bytes) must not exceed half of -m"),
        ("-I 1023", "-I: must be from 1k"),
        ("-o slab_chunk_max=7", "-I (1048576 bytes) must be a multiple of -o slab_chunk_max"),
        ("-o slab_chunk_max=3 -I 30k", "-o slab_chunk_max (3072 bytes) must divide a page"),
        ("-m 0", "-m: must be"),
        ("-m 32k -I 1k", "-m (32768 bytes) is less than"),
        ("-m 2 -o slab_chunk_max=512", "-m (2097152 bytes) is less than"),
        ("-o hot_lru_pct=80", "-o hot_lru_pct: must be"),
        ("-o hot_lru_pct=50,warm_lru_pct=31", "-o hot_lru_pct and warm_lru_pct add up to 81"),
        ("-o slab_automove_ratio=1.5", "-o slab_automove_ratio: must not exceed 1"),
        ("-o slab_automove_window=2", "-o slab_automove_window: must be"),
        ("-o bg_cpu_pct=101", "-o bg_cpu_pct: must be"),
        ("-o eviction=random", "-o eviction: must be"),
    ] {
        let output = start(line);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(EX_USAGE), "{line}: {text}");
        assert!(text.starts_with(&format!("rustcached: {says}")), "{line}: {text}");
        assert_eq!(text.lines().count(), 1, "{line}: {text}");
        assert!(output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn possible_ones_get_as_far_as_the_address() {
    for line in ["-f 1.02", "-f 1.02 -o layout=memcached", "-m 64k -I 1k", "-n 48 -f 1.25 -m 2"] {
        let output = start(line);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(71), "{line}: {text}");
        assert!(text.contains("192.0.2.1"), "{line}: {text}");
    }
}
