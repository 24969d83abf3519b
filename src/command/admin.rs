//! Operators' commands: statistics, flush_all, verbosity.

use super::StatsTopic;
use crate::store::{Local, Store};

/// `STAT name value` lines in order, or lines of a topic's own form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatLines(pub Vec<(String, String)>);

/// The lines that answer `stats <topic>`.
pub fn stats(_store: &Store, _local: &Local, _topic: StatsTopic<'_>) -> StatLines {
    todo!()
}
