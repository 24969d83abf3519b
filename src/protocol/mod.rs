//! Bytes to commands and replies to bytes. Nothing here touches a socket or the store.

mod lex;
mod meta;
pub mod outbox;
mod text;

use crate::command::{Command, Replies, Reply};
use crate::store::{Hit, Key};
use bumpalo::Bump;
use outbox::Outbox;

/// Longest command line, but for `get`, `gets` (and `gat`, `gats`) which may name many keys.
pub const LINE_MAX: usize = 2048;
/// Longest line of a get with many keys.
pub const GET_LINE_MAX: usize = 16 << 20;
/// Longest run of blanks before a command.
pub const LEADING_BLANKS_MAX: usize = 100;

/// What a connection remembers of the text protocol between requests: where it is in a multiget.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Inside a classic get line: the command's form, applied to each key in turn.
    multiget: Option<text::Multiget>,
    /// Bytes of the present line already searched for its end.
    scanned: usize,
}

/// How to word an answer; only the dialect that made it looks inside.
#[derive(Clone, Copy, Debug)]
pub enum Echo<'a> {
    Text(text::Echo),
    Meta(meta::Echo<'a>),
}

/// What the bytes at the front of the buffer are.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// A command in the first `used` bytes. A `Command::Set` is followed by its value and CRLF,
    /// which are not in `used`.
    Command { used: usize, command: Command<'a>, echo: Echo<'a> },
    /// A storage command that is refused by its line alone (bad exptime, wrong mode): the next
    /// `swallow` bytes after the first `used` are its value and are dropped; then the error is said.
    Refused { used: usize, swallow: u64, error: crate::command::Error, echo: Echo<'a> },
    /// More bytes are needed.
    Incomplete,
    /// Nothing sensible can follow (line too long, HTTP): say `last` if any, then close.
    HangUp { last: Option<crate::command::Error> },
}

impl Decoder {
    /// Decodes one command from the front of `buf`. Never looks beyond its line. A key that came in
    /// base64 is decoded into `arena`.
    pub fn decode<'a>(&mut self, _buf: &'a [u8], _arena: &'a Bump) -> Decoded<'a> {
        todo!()
    }
}

/// Words answers into an outbox.
pub struct Encoder<'o, 'e> {
    pub out: &'o mut Outbox,
    pub echo: Echo<'e>,
}

impl Replies for Encoder<'_, '_> {
    fn hit(&mut self, _key: Key<'_>, _hit: &Hit<'_>) {
        todo!()
    }
    fn reply(&mut self, _reply: Reply<'_>) {
        todo!()
    }
}
