//! Statistics for operators: which figures each topic shows, in memcached's order and format.

use super::{Error, StatsTopic};
use crate::store::Store;

/// The memcached version whose behaviour is offered; tools compare it.
pub const MEMCACHED_VERSION: &str = "1.6.45";

/// What answers `stats <topic>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatLines {
    /// `STAT <name> <value>` each, then `END`.
    Pairs(Vec<(String, String)>),
    /// Lines of a topic's own form without their line ends, then `END`. Bytes, because they hold
    /// keys.
    Lines(Vec<Vec<u8>>),
    /// `OK`
    Ok,
    /// `RESET`
    Reset,
    Error(Error),
}

/// The answer to `stats <topic>`.
pub fn stats(_store: &Store, _topic: StatsTopic<'_>) -> StatLines {
    todo!()
}
