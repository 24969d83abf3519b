//! What it takes to understand a request line.

use bumpalo::Bump;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rustcached::protocol::{Decoded, Decoder};

fn main() {
    divan::main();
}

const LINES: [&str; 7] = [
    "get user:1234567:session",
    "gets user:1234567:session",
    "set user:1234567:session 0 3600 100",
    "incr user:1234567:visits 1",
    "mg user:1234567:session v",
    "mg user:1234567:session s v f c t O123 k q",
    "ms user:1234567:session 100 T3600 F0",
];

#[divan::bench(args = LINES)]
fn line(bencher: Bencher<'_, '_>, line: &str) {
    let arena = Bump::new();
    let mut decoder = Decoder::default();
    let line = format!("{line}\r\n");
    bencher.bench_local(|| {
        let decoded = decoder.decode(black_box(line.as_bytes()), &arena);
        assert!(matches!(black_box(decoded), Decoded::Command { .. }));
        // The end of a get's keys is a command of its own.
        decoder.leave_line();
    });
}

/// Every key of one long line, as one command each.
#[divan::bench(args = [10, 50, 100])]
fn keys_of_a_multiget(bencher: Bencher<'_, '_>, keys: usize) {
    let names: Vec<String> = (0..keys).map(|n| format!("user:{n:07}:session")).collect();
    let line = format!("get {}\r\n", names.join(" "));
    let arena = Bump::new();
    bencher.counter(ItemsCount::new(keys)).bench_local(|| {
        let mut decoder = Decoder::default();
        let mut rest = black_box(line.as_bytes());
        loop {
            match decoder.decode(rest, &arena) {
                Decoded::Command { used, command, .. } => {
                    black_box(command);
                    rest = &rest[used..];
                }
                other => panic!("{other:?}"),
            }
            if !decoder.in_multiget() {
                break;
            }
        }
    });
}
