//! Bytes to commands and replies to bytes. Nothing here touches a socket or the store.

mod binary;
mod binary_encode;
pub mod dump;
pub mod guess;
mod lex;
pub mod login;
mod meta;
mod meta_encode;
pub mod outbox;
mod text;
mod text_admin;
mod text_encode;
pub mod udp_frame;

#[cfg(test)]
mod tests;

use crate::command::{Command, Error, Get, Replies, Reply};
use crate::config::Protocol;
use crate::store::{Hit, Key};
use bumpalo::Bump;
use login::Ask;
use memchr::memchr;
use outbox::{Mark, Outbox};
use std::borrow::Cow;

/// Longest command line, but for `get`, `gets` (and `gat`, `gats`) which may name many keys.
pub const LINE_MAX: usize = 2048;
/// Longest line of a get with many keys.
pub const GET_LINE_MAX: usize = 16 << 20;
/// Longest run of blanks before a command.
pub const LEADING_BLANKS_MAX: usize = 100;
/// Shortest line, its end included, that memcached looks into.
const LINE_MIN: usize = 4;

/// What a connection remembers between requests: which protocol it speaks, where it is in a
/// multiget, and how far it has looked for a line's end.
///
/// `buf` of each call starts where the last command's `used` ended: bytes once used are not shown
/// again, and after [`Decoded::Incomplete`] the same bytes come first. Where the buffer lies may
/// change from call to call, since nothing here is an address.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    mode: Mode,
    /// Bytes of the present line already searched for its end.
    scanned: usize,
}

/// What the next bytes are taken for.
#[derive(Clone, Debug, Default)]
enum Mode {
    /// Nothing came yet: the first byte says which protocol follows, to the end.
    #[default]
    Auto,
    Text,
    /// Inside a classic get line: the command's form, applied to each key in turn.
    Multiget(text::Multiget),
    Binary,
}

/// How to word an answer; only the dialect that made it looks inside.
#[derive(Clone, Copy, Debug)]
pub enum Echo<'a> {
    Text(text::Echo),
    Meta(meta::Echo<'a>),
    Binary(binary::Echo),
}

impl Echo<'_> {
    /// Of a classic get's only key.
    pub const LAST_GET: Echo<'static> = Echo::Text(text::Echo::LAST);

    /// Bytes of the line end that follows a value.
    #[inline]
    pub fn value_end_len(&self) -> usize {
        if matches!(self, Echo::Binary(_)) { 0 } else { 2 }
    }

    /// True for what is answered before a client has said who it is.
    pub fn precedes_login(&self) -> bool {
        matches!(self, Echo::Binary(echo) if echo.precedes_login())
    }
}

/// What the bytes at the front of the buffer are.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// A command in the first `used` bytes. A `Command::Set` is followed by its value and as much
    /// of a CRLF as its `echo` says, which are not in `used`.
    Command { used: usize, command: Command<'a>, echo: Echo<'a> },
    /// A command that is refused by its line or header alone (bad exptime, unknown opcode): the
    /// `swallow` bytes after the first `used` are its value and are dropped, and the error is said.
    Refused { used: usize, swallow: u64, error: Error, echo: Echo<'a> },
    /// A request to be let in; its message of `len` bytes is not in `used`. A server that lets in
    /// anybody answers it as unknown.
    Login { used: usize, ask: Ask<'a>, len: u32, echo: Echo<'a> },
    /// More bytes are needed.
    Incomplete,
    /// Nothing sensible can follow (line too long, HTTP, no binary request): close.
    HangUp,
}

impl Decoder {
    /// For connections that speak what `-B` says.
    pub fn new(protocol: Protocol) -> Decoder {
        let mode = match protocol {
            Protocol::Auto => Mode::Auto,
            Protocol::Ascii => Mode::Text,
            Protocol::Binary => Mode::Binary,
        };
        Decoder { mode, scanned: 0 }
    }

    /// A get of one key, as most requests are, from the front of `buf`, with its line's length;
    /// `None` for all that takes [`Decoder::decode`].
    #[inline(always)]
    pub fn single_get<'a>(&self, buf: &'a [u8]) -> Option<(Get<'a>, Echo<'a>, usize)> {
        let expected = matches!(self.mode, Mode::Text) && self.scanned == 0;
        let (key, used) = expected.then(|| text::single_get(buf))??;
        Some((Get::of(key), Echo::LAST_GET, used))
    }

    /// The key of a get of one, where `buf` is that and nothing else, and where it starts.
    #[inline(always)]
    pub fn lone_get<'a>(&self, buf: &'a [u8]) -> Option<(usize, Key<'a>)> {
        let (get, _, used) = self.single_get(buf)?;
        (used == buf.len()).then_some((text::GET.len(), get.key))
    }

    /// Decodes one command from the front of `buf`. Never looks beyond its line, or its header,
    /// extras and key. What is large, and a key that
    /// came in base64, is put into `arena`.
    #[inline(always)]
    pub fn decode<'a>(&mut self, buf: &'a [u8], arena: &'a Bump) -> Decoded<'a> {
        match &mut self.mode {
            Mode::Text => self.text(buf, arena),
            Mode::Binary => binary::decode(buf, arena),
            Mode::Multiget(multiget) => {
                let decoded = multiget.next(buf, arena);
                if multiget.is_over() {
                    self.mode = Mode::Text;
                }
                decoded
            }
            Mode::Auto => self.negotiate(buf, arena),
        }
    }

    #[cold]
    fn negotiate<'a>(&mut self, buf: &'a [u8], arena: &'a Bump) -> Decoded<'a> {
        self.mode = match buf.first() {
            None => return Decoded::Incomplete,
            Some(&binary::MAGIC) => Mode::Binary,
            Some(_) => Mode::Text,
        };
        self.decode(buf, arena)
    }

    #[inline(always)]
    fn text<'a>(&mut self, buf: &'a [u8], arena: &'a Bump) -> Decoded<'a> {
        let Some(found) = buf.get(self.scanned..).and_then(|fresh| memchr(b'\n', fresh)) else {
            return self.incomplete(buf);
        };
        let used = self.scanned + found + 1;
        self.scanned = 0;
        if used < LINE_MIN {
            return text::say_error(used, lex::BAD_FORMAT, false);
        }
        self.line(lex::without_end(&buf[..used]), used, arena)
    }

    /// Forgets the line in hand. Which protocol the connection speaks stays as it was.
    pub fn leave_line(&mut self) {
        if self.in_multiget() {
            self.mode = Mode::Text;
        }
        self.scanned = 0;
    }

    /// True between the keys of a get line.
    pub fn in_multiget(&self) -> bool {
        matches!(self.mode, Mode::Multiget(_))
    }

    /// The request at the front of `buf` in words, for a log: a line, or a header's bytes.
    pub fn describe<'a>(&self, buf: &'a [u8]) -> Option<Cow<'a, str>> {
        let binary = match self.mode {
            Mode::Binary => true,
            Mode::Auto => buf.first() == Some(&binary::MAGIC),
            Mode::Text => false,
            Mode::Multiget(_) => return None,
        };
        if binary {
            return binary::describe(buf).map(Cow::Owned);
        }
        let end = memchr(b'\n', buf)?;
        Some(String::from_utf8_lossy(lex::without_end(&buf[..=end])))
    }

    /// Dispatches on the command, the busiest first. memcached takes what comes before the first
    /// blank, so a line that starts with one matches only what `text_admin` looks up by token.
    #[inline(always)]
    fn line<'a>(&mut self, line: &'a [u8], used: usize, arena: &'a Bump) -> Decoded<'a> {
        let end = used - line.len();
        match line {
            [b'g', b'e', b't', b' ', args @ ..] => {
                text::get(text::Form::GET, args, (used, end), &mut self.mode, arena)
            }
            [b's', b'e', b't', b' ', args @ ..] => text::set(args, used, arena),
            [b'm', b'g', b' ', args @ ..] => meta::get(args, used, arena),
            [b'm', b's', b' ', args @ ..] => meta::set(args, used, arena),
            [b'g', b'e', b't', b's', b' ', args @ ..] => {
                text::get(text::Form::GETS, args, (used, end), &mut self.mode, arena)
            }
            [b'g', b'a', b't', b' ', args @ ..] => {
                self.get_and_touch(false, args, (used, end), arena)
            }
            [b'g', b'a', b't', b's', b' ', args @ ..] => {
                self.get_and_touch(true, args, (used, end), arena)
            }
            [b'm', verb] => meta::decode(*verb, line, b"", used, arena),
            [b'm', verb, b' ', args @ ..] => meta::decode(*verb, line, args, used, arena),
            _ => text::decode(line, used, arena),
        }
    }

    fn get_and_touch<'a>(
        &mut self,
        cas: bool,
        args: &'a [u8],
        lengths: (usize, usize),
        arena: &'a Bump,
    ) -> Decoded<'a> {
        match text::touching_form(cas, args) {
            Ok((form, keys)) => text::get(form, keys, lengths, &mut self.mode, arena),
            Err(error) => text::say_error(lengths.0, error, false),
        }
    }

    /// No line end in sight: waits for it as long as the line may grow.
    fn incomplete<'a>(&mut self, buf: &'a [u8]) -> Decoded<'a> {
        self.scanned = buf.len();
        if buf.len() <= LINE_MAX {
            return Decoded::Incomplete;
        }
        let line = lex::skip_blanks(buf);
        let blanks = buf.len() - line.len();
        let many_keys = [&b"get "[..], b"gets ", b"gat ", b"gats "];
        let may_grow = blanks <= LEADING_BLANKS_MAX
            && buf.len() <= GET_LINE_MAX
            && many_keys.iter().any(|verb| line.starts_with(verb));
        if may_grow { Decoded::Incomplete } else { Decoded::HangUp }
    }
}

/// Words the answer to one command into an outbox.
pub struct Encoder<'o, 'e> {
    out: &'o mut Outbox,
    echo: &'e Echo<'e>,
    /// Where this command's answer starts: a hit that is told again replaces what it said.
    start: Mark,
}

impl<'o, 'e> Encoder<'o, 'e> {
    #[inline]
    pub fn new(out: &'o mut Outbox, echo: &'e Echo<'e>) -> Encoder<'o, 'e> {
        let start = out.mark();
        Encoder { out, echo, start }
    }
}

impl Replies for Encoder<'_, '_> {
    #[inline(always)]
    fn hit(&mut self, key: Key<'_>, hit: Hit<'_>) {
        self.out.rollback(self.start);
        match self.echo {
            Echo::Text(echo) => text_encode::hit(self.out, *echo, key, hit),
            Echo::Meta(echo) => meta_encode::hit(self.out, echo, key, hit),
            Echo::Binary(echo) => binary_encode::hit(self.out, *echo, key, hit),
        }
    }

    #[inline]
    fn reply(&mut self, reply: Reply<'_>) {
        self.out.rollback(self.start);
        match self.echo {
            Echo::Text(echo) => text_encode::reply(self.out.bytes(), *echo, &reply),
            Echo::Meta(echo) => meta_encode::reply(self.out.bytes(), echo, &reply),
            Echo::Binary(echo) => binary_encode::reply(self.out.bytes(), *echo, &reply),
        }
    }
}

fn number(out: &mut Vec<u8>, n: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// The line of an error, the same in both dialects of text.
fn error_line(out: &mut Vec<u8>, error: Error) {
    let (kind, text) = match error {
        Error::Unknown => ("ERROR", ""),
        Error::Client(text) => ("CLIENT_ERROR ", text),
        Error::Server(text) => ("SERVER_ERROR ", text),
        Error::Line(text) => ("", text),
        Error::TooLarge => ("SERVER_ERROR ", "object too large for cache"),
        Error::NoMemory(text) => ("SERVER_ERROR ", text),
        Error::NonNumeric => ("CLIENT_ERROR ", "cannot increment or decrement non-numeric value"),
        Error::NotAllowed(text) => ("CLIENT_ERROR ", text),
    };
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}
