//! Parses, resolves, runs.

fn main() {
    println!("not yet");
}
