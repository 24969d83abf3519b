//! Unsent output: bytes of our own, and pinned values sent from their chunks.

use crate::store::Pin;

#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Pinned values, each with the offset in `bytes` that it comes before.
    pins: Vec<(usize, Pin)>,
}

/// A place to come back to with [`Outbox::rollback`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub bytes: usize,
    pub pins: usize,
}
