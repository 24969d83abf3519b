//! What `stats` counts, which is to be the same after the same requests.

use crate::common::Server;
use std::collections::BTreeMap;

/// Names of the counters that clients' requests move. Not `cmd_set`, `get_expired`, `get_flushed`
/// and `curr_items`, which the README tells apart.
const NAMES: [&str; 24] = [
    "cmd_get",
    "cmd_flush",
    "cmd_touch",
    "cmd_meta",
    "get_hits",
    "get_misses",
    "delete_misses",
    "delete_hits",
    "incr_misses",
    "incr_hits",
    "decr_misses",
    "decr_hits",
    "cas_misses",
    "cas_hits",
    "cas_badval",
    "touch_hits",
    "touch_misses",
    "store_too_large",
    "store_no_memory",
    "auth_cmds",
    "evictions",
    "total_items",
    "idle_kicks",
    "log_watchers",
];

pub type Figures = BTreeMap<String, String>;

pub fn of(server: &Server) -> Figures {
    let mut client = server.connect();
    client.send(b"stats\r\n");
    let lines = std::iter::from_fn(|| Some(client.line()).filter(|line| line.starts_with("STAT ")));
    let pair = |line: String| {
        let mut words = line.split(' ').skip(1).map(str::to_owned);
        Some((words.next()?, words.next()?))
    };
    lines.filter_map(pair).collect()
}

/// The names whose figures differ, in words.
pub fn compare(figures: &[Figures; 2]) -> Result<(), String> {
    let differs = |name: &&&str| figures[0].get(**name) != figures[1].get(**name);
    let words = |name: &&str| {
        let [ours, theirs] = figures.each_ref().map(|side| side.get(*name));
        format!("{name} is {ours:?}, not {theirs:?}")
    };
    let faults: Vec<String> = NAMES.iter().filter(differs).map(words).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults.join(", ")) }
}
