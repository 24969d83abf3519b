//! Plays `tests/golden/*.txt` to a server, delivered in four ways.
//!
//! The transcripts were checked against memcached 1.6.45 itself and can be again:
//! `RUSTCACHED_TEST_SERVER=/path/to/memcached cargo test --test golden`. `GOLDEN=name` plays one
//! file. `GOLDEN_SEED` repeats a run's cuts.

mod common;

use common::transcript::{Delivery, Transcript};
use common::{Random, Server};
use std::path::{Path, PathBuf};

#[test]
fn whole() {
    play_all(Delivery::Whole);
}

#[test]
fn pipelined() {
    play_all(Delivery::Pipelined);
}

#[test]
fn byte_by_byte() {
    play_all(Delivery::ByteByByte);
}

#[test]
fn split_at_random() {
    play_all(Delivery::Split);
}

fn play_all(delivery: Delivery) {
    let seed = Random::seed_from("GOLDEN_SEED");
    println!("GOLDEN_SEED={seed}");
    let mut random = Random::new(seed);
    let files = transcript_files();
    assert!(!files.is_empty(), "no transcripts");
    let mut wrong = Vec::new();
    for file in files {
        play_file(&file, delivery, &mut random, &mut wrong);
    }
    assert!(wrong.is_empty(), "{} cases failed:\n{}", wrong.len(), wrong.join("\n"));
}

fn transcript_files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let only = std::env::var_os("GOLDEN");
    let entries = std::fs::read_dir(dir).expect("tests/golden");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|ext| ext == "txt"));
    files.retain(|file| only.is_none() || file.file_stem() == only.as_deref());
    files.sort();
    files
}

/// Plays every case of a file to one fresh server.
fn play_file(file: &Path, delivery: Delivery, random: &mut Random, wrong: &mut Vec<String>) {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(file).expect("a transcript");
    let transcript = Transcript::parse(&text);
    let args: Vec<&str> = transcript.args.iter().map(String::as_str).collect();
    let server = Server::start(&args);
    // Only a stand-in can be too old: ours is held to everything.
    let release = common::other_server().map_or([u32::MAX; 3], |_| server.release());
    let has_debugtime = server.has_debugtime();
    if release < transcript.since {
        println!("{name}: skipped, the server is older");
        return;
    }
    for case in &transcript.cases {
        if release < case.since || (case.moves_clock() && !has_debugtime) {
            println!("{name}: {}: skipped, the server is older or cannot move time", case.name);
            continue;
        }
        // Time only goes forward, so whoever moves it gets a server of its own.
        let own = case.moves_clock().then(|| Server::start(&args));
        if let Err(error) = case.play(own.as_ref().unwrap_or(&server), delivery, random) {
            wrong.push(format!("{name}: {}: {error}", case.name));
        }
    }
}
