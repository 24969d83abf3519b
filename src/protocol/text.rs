//! Classic text: `decode` and `encode`.

/// A get line whose keys are being handed out one by one.
#[derive(Clone, Debug)]
pub(super) struct Multiget {}

/// How to word a classic answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo {
    pub(super) noreply: bool,
    /// VALUE lines end in the CAS unique.
    pub(super) cas: bool,
}
