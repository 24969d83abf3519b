//! The binary protocol: decoding. Wording is in `binary_encode`.
//!
//! A request is a header of 24 bytes, extras, a key and a value; `protocol_binary.h` of memcached
//! 1.6.45 names the fields. Where the lengths of a header disagree with each other or with its
//! opcode, memcached says so and closes, since nobody can tell where the next request starts.

use super::Decoded;
use super::login::Ask;
use crate::clock::Exptime;
use crate::command::{
    Admin, Arith, Command, Delete, Error, Fetch, Get, Say, Set, SetMode, StatsTopic,
};
use crate::store::Key;
use bumpalo::Bump;
use std::fmt::Write as _;

/// The first byte of every request.
pub(super) const MAGIC: u8 = 0x80;
/// Bytes of the header of a request, and of an answer.
pub(super) const HEADER_LEN: usize = 24;
/// Longest extras, key and value together. memcached's limit.
const BODY_MAX: u32 = 1 << 30;
/// The exptime of an incr or decr that must not create its item.
const NOT_CREATED: u32 = u32::MAX;

/// The words are the encoder's.
const INVALID: Error = Error::Client("invalid arguments");

/// What an opcode asks for, quiet or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    /// A get whose answer holds the key.
    GetK,
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    Delete,
    Increment,
    Decrement,
    Touch,
    Gat,
    GatK,
    Stat,
    Version,
    Noop,
    Flush,
    Quit,
    SaslMechanisms,
    SaslStart,
    SaslStep,
    Unknown,
}

/// How to word a binary answer.
#[derive(Clone, Copy, Debug)]
pub struct Echo {
    pub(super) verb: Verb,
    pub(super) quiet: bool,
    pub(super) opcode: u8,
    pub(super) opaque: [u8; 4],
}

impl Echo {
    pub(super) fn precedes_login(self) -> bool {
        use Verb::{SaslMechanisms, SaslStart, SaslStep, Version};
        matches!(self.verb, Version | SaslMechanisms | SaslStart | SaslStep)
    }
}

/// A request without its value.
struct Request<'a> {
    verb: Verb,
    extras: &'a [u8],
    key: Option<Key<'a>>,
    value_len: u32,
    /// `None` where the header's unique is 0.
    cas: Option<u64>,
}

/// Extras, read from front to back.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    #[inline]
    fn u32(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*first))
    }

    fn u64(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*first))
    }

    #[inline]
    fn exptime(&mut self) -> Option<Exptime> {
        self.u32().map(|seconds| Exptime(seconds.into()))
    }
}

/// What an opcode asks for, and whether quietly.
#[inline]
fn verb(opcode: u8) -> (Verb, bool) {
    match opcode {
        0x00 => (Verb::Get, false),
        0x01 => (Verb::Set, false),
        0x02 => (Verb::Add, false),
        0x03 => (Verb::Replace, false),
        0x04 => (Verb::Delete, false),
        0x05 => (Verb::Increment, false),
        0x06 => (Verb::Decrement, false),
        0x07 => (Verb::Quit, false),
        0x08 => (Verb::Flush, false),
        0x09 => (Verb::Get, true),
        0x0a => (Verb::Noop, false),
        0x0b => (Verb::Version, false),
        0x0c => (Verb::GetK, false),
        0x0d => (Verb::GetK, true),
        0x0e => (Verb::Append, false),
        0x0f => (Verb::Prepend, false),
        0x10 => (Verb::Stat, false),
        0x11 => (Verb::Set, true),
        0x12 => (Verb::Add, true),
        0x13 => (Verb::Replace, true),
        0x14 => (Verb::Delete, true),
        0x15 => (Verb::Increment, true),
        0x16 => (Verb::Decrement, true),
        0x17 => (Verb::Quit, true),
        0x18 => (Verb::Flush, true),
        0x19 => (Verb::Append, true),
        0x1a => (Verb::Prepend, true),
        0x1c => (Verb::Touch, false),
        0x1d => (Verb::Gat, false),
        0x1e => (Verb::Gat, true),
        0x20 => (Verb::SaslMechanisms, false),
        0x21 => (Verb::SaslStart, false),
        0x22 => (Verb::SaslStep, false),
        0x23 => (Verb::GatK, false),
        0x24 => (Verb::GatK, true),
        _ => (Verb::Unknown, false),
    }
}

/// Decodes the request at the front of `buf`, which starts with its header.
#[inline]
pub(super) fn decode<'a>(buf: &'a [u8], arena: &'a Bump) -> Decoded<'a> {
    let Some((header, rest)) = buf.split_first_chunk::<HEADER_LEN>() else {
        return too_short(buf);
    };
    let &[magic, opcode, k0, k1, extras_len, _, _, _, b0, b1, b2, b3, ..] = header;
    if magic != MAGIC {
        return Decoded::HangUp;
    }
    let (key_len, extras_len) = (usize::from(u16::from_be_bytes([k0, k1])), extras_len.into());
    let Some((extras, rest)) = rest.split_at_checked(extras_len) else {
        return Decoded::Incomplete;
    };
    let Some(key) = rest.get(..key_len) else { return Decoded::Incomplete };
    let used = HEADER_LEN + extras_len + key_len;
    let &[.., o0, o1, o2, o3, c0, c1, c2, c3, c4, c5, c6, c7] = header;
    let (verb, quiet) = verb(opcode);
    let echo = Echo { verb, quiet, opcode, opaque: [o0, o1, o2, o3] };
    let body_len = u32::from_be_bytes([b0, b1, b2, b3]);
    let Some(value_len) = body_len.checked_sub((extras_len + key_len) as u32) else {
        return command(used, Command::HangUp(Error::Unknown), echo);
    };
    if body_len > BODY_MAX || key_len > Key::MAX {
        return command(used, Command::HangUp(INVALID), echo);
    }
    let cas = u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]);
    let cas = Some(cas).filter(|&cas| cas != 0);
    let request = Request { verb, extras, key: Key::new(key), value_len, cas };
    if verb == Verb::Unknown {
        let swallow = value_len.into();
        return Decoded::Refused { used, swallow, error: Error::Unknown, echo: wrap(echo) };
    }
    if let Some(ask) = request.login() {
        return Decoded::Login { used, ask, len: value_len, echo: wrap(echo) };
    }
    command(used, request.command(arena).unwrap_or(Command::HangUp(INVALID)), echo)
}

/// Less than a header: what cannot become one need not be waited for.
#[cold]
fn too_short(buf: &[u8]) -> Decoded<'_> {
    match buf.first() {
        Some(&MAGIC) | None => Decoded::Incomplete,
        Some(_) => Decoded::HangUp,
    }
}

#[inline]
fn wrap<'a>(echo: Echo) -> super::Echo<'a> {
    super::Echo::Binary(echo)
}

#[inline]
fn command<'a>(used: usize, command: Command<'a>, echo: Echo) -> Decoded<'a> {
    Decoded::Command { used, command, echo: wrap(echo) }
}

impl<'a> Request<'a> {
    /// The lengths must be right also where nobody has to log in.
    fn login(&self) -> Option<Ask<'a>> {
        match (self.verb, self.key) {
            (Verb::SaslMechanisms, _) if self.is_bare() => Some(Ask::Mechanisms),
            (Verb::SaslStart, Some(name)) if self.extras.is_empty() => {
                Some(Ask::Start(name.bytes()))
            }
            (Verb::SaslStep, Some(_)) if self.extras.is_empty() => Some(Ask::Step),
            _ => None,
        }
    }

    /// Nothing but a header.
    fn is_bare(&self) -> bool {
        self.extras.is_empty() && self.key.is_none() && self.value_len == 0
    }

    /// `None` where the lengths are not those of the opcode.
    #[inline]
    fn command(&self, arena: &'a Bump) -> Option<Command<'a>> {
        let fields = Fields(self.extras);
        match (self.verb, self.extras.len(), self.key, self.value_len) {
            (Verb::Get | Verb::GetK, 0, Some(key), 0) => Some(fetch(key, None, arena)),
            (Verb::Set | Verb::Add | Verb::Replace, 8, Some(key), _) => {
                self.set(key, fields, arena)
            }
            (Verb::Touch | Verb::Gat | Verb::GatK, 4, Some(key), 0) => {
                let mut fields = fields;
                Some(fetch(key, Some(fields.exptime()?), arena))
            }
            (Verb::Append | Verb::Prepend, 0, Some(key), _) => Some(self.join(key, arena)),
            (Verb::Delete, 0, Some(key), 0) => Some(self.delete(key, arena)),
            (Verb::Increment | Verb::Decrement, 20, Some(key), 0) => self.arith(key, fields, arena),
            _ => self.administrate(fields),
        }
    }

    fn administrate(&self, mut fields: Fields<'a>) -> Option<Command<'a>> {
        match self.verb {
            Verb::Stat if self.extras.is_empty() && self.value_len == 0 => {
                let topic = self.key.map_or(StatsTopic::General, |key| topic(key.bytes()));
                Some(Command::Admin(Admin::Stats(topic)))
            }
            Verb::Flush if self.key.is_none() && self.value_len == 0 => match self.extras.len() {
                0 => Some(Command::Admin(Admin::FlushAll(None))),
                4 => Some(Command::Admin(Admin::FlushAll(Some(fields.exptime()?)))),
                _ => None,
            },
            Verb::Version if self.is_bare() => Some(Command::Admin(Admin::Version)),
            Verb::Noop if self.is_bare() => Some(Command::Say(Say::Noop)),
            Verb::Quit if self.is_bare() => Some(Command::Quit),
            _ => None,
        }
    }

    /// Items get a CAS unique at once: every answer to a binary get holds it. With a unique, set,
    /// add and replace are all the same comparison.
    #[inline]
    fn set(&self, key: Key<'a>, mut fields: Fields<'a>, arena: &'a Bump) -> Option<Command<'a>> {
        let mode = match self.verb {
            _ if self.cas.is_some() => SetMode::Cas,
            Verb::Add => SetMode::Add,
            Verb::Replace => SetMode::Replace,
            _ => SetMode::Set,
        };
        Some(Command::Set(arena.alloc(Set {
            mode,
            client_flags: fields.u32()?,
            exptime: fields.exptime()?,
            compare_cas: self.cas,
            return_cas: true,
            drop_old_on_refusal: self.verb == Verb::Set,
            ..Set::of(key, self.value_len)
        })))
    }

    fn join(&self, key: Key<'a>, arena: &'a Bump) -> Command<'a> {
        let mode = if self.verb == Verb::Append { SetMode::Append } else { SetMode::Prepend };
        Command::Set(arena.alloc(Set {
            mode,
            compare_cas: self.cas,
            return_cas: true,
            drop_old_on_refusal: false,
            ..Set::of(key, self.value_len)
        }))
    }

    fn delete(&self, key: Key<'a>, arena: &'a Bump) -> Command<'a> {
        Command::Delete(arena.alloc(Delete { compare_cas: self.cas, ..Delete::of(key) }))
    }

    fn arith(&self, key: Key<'a>, mut fields: Fields<'a>, arena: &'a Bump) -> Option<Command<'a>> {
        let (delta, initial, seconds) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let vivify = (seconds != NOT_CREATED).then_some(Exptime(seconds.into()));
        Some(Command::Arith(arena.alloc(Arith {
            increment: self.verb == Verb::Increment,
            compare_cas: self.cas,
            vivify,
            initial,
            return_cas: true,
            ..Arith::of(key, delta)
        })))
    }
}

#[inline]
fn fetch<'a>(key: Key<'a>, touch: Option<Exptime>, arena: &'a Bump) -> Command<'a> {
    Command::Fetch(arena.alloc(Fetch { cas: true, touch, ..Fetch::of(Get::of(key)) }))
}

/// The first three may have anything behind them, as in memcached. It does not know `conns` here.
fn topic(name: &[u8]) -> StatsTopic<'_> {
    if name.starts_with(b"reset") {
        return StatsTopic::Reset;
    }
    if name.starts_with(b"settings") {
        return StatsTopic::Settings;
    }
    if let Some(mode) = name.strip_prefix(b"detail") {
        return match mode {
            [b' ', b'd', b'u', b'm', b'p', ..] => StatsTopic::DetailDump,
            [b' ', b'o', b'n', ..] => StatsTopic::Detail(Some(true)),
            [b' ', b'o', b'f', b'f', ..] => StatsTopic::Detail(Some(false)),
            _ => StatsTopic::Detail(None),
        };
    }
    match name {
        b"items" => StatsTopic::Items,
        b"slabs" => StatsTopic::Slabs,
        b"sizes" => StatsTopic::Sizes,
        b"conns" => StatsTopic::Conns,
        b"automover" => StatsTopic::Automover,
        b"memory" => StatsTopic::Memory,
        _ => StatsTopic::Unknown(name),
    }
}

/// A header's bytes, four on a line as memcached logs them; `None` while it is not all there.
pub(super) fn describe(buf: &[u8]) -> Option<String> {
    let header = buf.get(..HEADER_LEN)?;
    let mut text = "Read binary protocol data:".to_owned();
    for word in header.chunks(4) {
        text.push_str("\n   ");
        for byte in word {
            let _ = write!(text, " 0x{byte:02x}");
        }
    }
    Some(text)
}
