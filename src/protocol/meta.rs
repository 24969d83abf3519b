//! The meta protocol: `mg ms md ma mn me`.

/// How to word a meta answer: the flags of the request, as they came.
#[derive(Clone, Copy, Debug)]
pub struct Echo<'a> {
    pub(super) flags: &'a [u8],
    pub(super) quiet: bool,
    pub(super) value: bool,
    pub(super) binary_key: bool,
}
