//! Runs a command against the store and says how it went.

use super::{Command, Replies, Set};
use crate::store::{KeyHash, Local, Store};
use std::sync::Arc;

/// What the connection does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Continue,
    Close,
}

/// Runs any command but `Set`, whose value the connection has to bring: see [`store_value`].
/// `hash` is the key's, worked out ahead so that a batch can prefetch; `None` for keyless commands.
pub fn execute(
    _store: &Arc<Store>,
    _local: &Local,
    _command: &Command<'_>,
    _hash: Option<KeyHash>,
    _replies: &mut impl Replies,
) -> Next {
    todo!()
}

/// Stores a value that is here whole.
pub fn store_value(
    _store: &Arc<Store>,
    _local: &Local,
    _set: &Set<'_>,
    _hash: KeyHash,
    _value: &[u8],
    _replies: &mut impl Replies,
) {
    todo!()
}
