//! Clients that take memory and give nothing for it.

use super::{CONNECTIONS, Pattern, Row, Target, Wire, kind, plain};
use std::io::Result;

pub const PATTERNS: &[Pattern] = &[
    plain("announced", "clients that only announce values of 1 MB", |t| {
        announced(t, 70, 1_000_000)
    }),
    plain("announced-100k", "the same, 100 KB and ten times as many", |t| {
        announced(t, 700, 100_000)
    }),
];

/// Items of others that are left, and sets of others that are stored, beside clients that send the
/// first line of a set and stay. They are at most [`CONNECTIONS`] less some.
fn announced(target: &mut Target<'_>, clients: u64, size: usize) -> Result<Vec<Row>> {
    const ITEMS: u64 = 20_000;
    const SETS: u64 = 2_000;
    const VALUE: usize = 1_000;
    const LATER: usize = 8;
    /// Connections that are left for others and for the server's own files.
    const SPARE: u64 = 96;
    let items = target.scaled(ITEMS);
    target.fill(kind(1), items, VALUE)?;
    let mut waiting = Vec::new();
    let most = CONNECTIONS as u64 - SPARE;
    for client in 0..target.scaled(clients).min(most) {
        let mut wire = Wire::connect(target.server.port)?;
        wire.line("version")?;
        wire.send(format!("set announced{client} 0 0 {size}\r\n").as_bytes())?;
        waiting.push(wire);
    }
    // Connections of all workers that are answered later show that these lines were read.
    for _ in 0..LATER {
        Wire::connect(target.server.port)?.line("version")?;
    }
    let sets = target.scaled(SETS);
    let stored = target.fill(kind(2), sets, VALUE)?;
    let left = target.get_all(kind(1), items)?;
    let mut row = Row::new("stored", []);
    (row.hits, row.asked) = (stored, sets);
    let stored = row;
    Ok(vec![Row::new("left", left), stored])
}
