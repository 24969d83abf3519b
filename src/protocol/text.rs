//! Classic text: data commands and what a multiget remembers. Wording is in `text_encode`,
//! operators' commands are in `text_admin`.

use super::lex::{self, Args, BAD_FORMAT};
use super::{Decoded, Mode, text_admin};
use crate::clock::Exptime;
use crate::command::{Arith, Command, Delete, Error, Fetch, Get, Say, Set, SetMode, Touch};
use crate::store::Key;
use bumpalo::Bump;
use memchr::memchr;

/// What precedes the keys of a get.
pub(super) const GET: &[u8] = b"get ";
/// Most words after `delete`.
const DELETE_ARGS_MAX: usize = 4;

/// How to word a classic answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo {
    pub(super) noreply: bool,
    /// VALUE lines end in the CAS unique.
    pub(super) cas: bool,
    /// The last key of a get: `END` follows its answer.
    pub(super) end: bool,
}

impl Echo {
    /// Of a get's last key.
    pub(super) const LAST: Echo = Echo { noreply: false, cas: false, end: true };
}

/// What a get line asks for each of its keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    cas: bool,
    touch: Option<Exptime>,
}

impl Form {
    pub(super) const GET: Form = Form { cas: false, touch: None };
    pub(super) const GETS: Form = Form { cas: true, touch: None };

    #[inline(always)]
    fn command<'a>(self, used: usize, key: &'a [u8], end: bool, arena: &'a Bump) -> Decoded<'a> {
        let Some(key) = Key::new(key) else {
            return say_error(used, BAD_FORMAT, false);
        };
        let get = Get::of(key);
        let command = if self.cas || self.touch.is_some() {
            let fetch = Fetch { cas: self.cas, touch: self.touch, ..Fetch::of(get) };
            Command::Fetch(arena.alloc(fetch))
        } else {
            Command::Get(get)
        };
        let echo = Echo { noreply: false, cas: self.cas, end };
        Decoded::Command { used, command, echo: super::Echo::Text(echo) }
    }
}

/// A get line whose keys are being handed out one by one. All of them were found to be short
/// enough when its first was handed out.
#[derive(Clone, Debug)]
pub(super) struct Multiget {
    form: Form,
    /// Bytes of the line, end included, from the next key on.
    left: usize,
}

impl Multiget {
    /// The next key.
    #[inline(always)]
    pub(super) fn next<'a>(&mut self, buf: &'a [u8], arena: &'a Bump) -> Decoded<'a> {
        let Some(line) = buf.get(..self.left) else { return Decoded::Incomplete };
        let text = lex::without_end(line);
        let (key, rest) = split_key(text);
        let end = rest.is_empty();
        let used = if end { self.left } else { text.len() - rest.len() };
        self.left -= used;
        self.form.command(used, key, end, arena)
    }

    /// Its last key was handed out.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }
}

/// The first key of `text`, and what comes after it and its blanks.
#[inline]
fn split_key(text: &[u8]) -> (&[u8], &[u8]) {
    match lex::find_blank(text) {
        Some(end) => (&text[..end], lex::skip_blanks(&text[end..])),
        None => (text, &[]),
    }
}

/// The key of a get of one, and the length of its line, if that is here: one look finds where both
/// end.
#[inline(always)]
pub(super) fn single_get(buf: &[u8]) -> Option<(Key<'_>, usize)> {
    let args = buf.strip_prefix(GET)?;
    let end = lex::find_either(args, b' ', b'\n').filter(|end| args[*end] == b'\n')?;
    let key = Key::new(lex::without_end(&args[..=end]))?;
    Some((key, buf.len() - args.len() + end + 1))
}

/// A get's first key; `mode` is told of others if there are any. `args` is the line behind the
/// command, `used` the line's length and `line_end` its end's. Where any key is too long, none is
/// handed out.
#[inline(always)]
pub(super) fn get<'a>(
    form: Form,
    args: &'a [u8],
    (used, line_end): (usize, usize),
    mode: &mut Mode,
    arena: &'a Bump,
) -> Decoded<'a> {
    let (key, rest) = split_key(lex::skip_blanks(args));
    if rest.is_empty() {
        return form.command(used, key, true, arena);
    }
    if key.len() > Key::MAX || !lex::keys_fit(rest) {
        return say_error(used, BAD_FORMAT, false);
    }
    let left = rest.len() + line_end;
    *mode = Mode::Multiget(Multiget { form, left });
    form.command(used - left, key, false, arena)
}

/// The form of `gat` and `gats`, and their keys.
pub(super) fn touching_form(cas: bool, args: &[u8]) -> Result<(Form, &[u8]), Error> {
    let mut tokens = lex::Tokens::new(args);
    let exptime = tokens.next().unwrap_or_default();
    let keys = lex::skip_blanks(tokens.rest());
    if keys.is_empty() {
        return Err(BAD_FORMAT);
    }
    match lex::exptime(exptime) {
        Some(exptime) => Ok((Form { cas, touch: Some(exptime) }, keys)),
        None => Err(Error::Client("invalid exptime argument")),
    }
}

/// Commands that are not gets or meta, by name.
pub(super) fn decode<'a>(line: &'a [u8], used: usize, arena: &'a Bump) -> Decoded<'a> {
    let end = memchr(b' ', line).unwrap_or(line.len());
    let (verb, args) = line.split_at(end);
    match verb {
        b"set" => storage(SetMode::Set, args, used, arena),
        b"add" => storage(SetMode::Add, args, used, arena),
        b"replace" => storage(SetMode::Replace, args, used, arena),
        b"append" => storage(SetMode::Append, args, used, arena),
        b"prepend" => storage(SetMode::Prepend, args, used, arena),
        b"cas" => storage(SetMode::Cas, args, used, arena),
        b"delete" => delete(args, used, arena),
        b"incr" => arith(true, args, used, arena),
        b"decr" => arith(false, args, used, arena),
        b"touch" => touch(args, used),
        b"get" | b"gets" | b"gat" | b"gats" => say_error(used, BAD_FORMAT, false),
        b"quit" => command(used, Command::Quit, false),
        _ => text_admin::decode(verb, args, line, used),
    }
}

/// A line of [`storage`] as nearly all are written.
#[inline(always)]
pub(super) fn set<'a>(args: &'a [u8], used: usize, arena: &'a Bump) -> Decoded<'a> {
    let (key, rest) = args.split_at(lex::find_blank(args).unwrap_or(args.len()));
    if let (Some(key), [b' ', numbers @ ..]) = (Key::new(key), rest)
        && let Some([client_flags, exptime, len]) = lex::plain_numbers(numbers)
    {
        let exptime = Exptime(exptime.into());
        let set = Set { client_flags, exptime, drop_old_on_refusal: true, ..Set::of(key, len) };
        return command(used, Command::Set(arena.alloc(set)), false);
    }
    storage(SetMode::Set, args, used, arena)
}

/// `<key> <flags> <exptime> <bytes> [<unique>] [noreply]`. A line without a usable length has no
/// value behind it that could be dropped; any other refusal drops the value.
pub(super) fn storage<'a>(
    mode: SetMode,
    args: &'a [u8],
    used: usize,
    arena: &'a Bump,
) -> Decoded<'a> {
    let mut tokens = lex::Tokens::new(args);
    let (Some(key), Some(flags), Some(exptime), Some(len)) =
        (tokens.next(), tokens.next(), tokens.next(), tokens.next())
    else {
        return say_error(used, BAD_FORMAT, false);
    };
    let Some(len) = lex::value_len(len) else {
        return say_error(used, BAD_FORMAT, false);
    };
    let noreply = !tokens.rest().is_empty() && lex::is_noreply(&lex::args(args));
    let echo = echo(noreply);
    let compare_cas = match mode {
        SetMode::Cas => tokens.next().and_then(lex::u64),
        _ => None,
    };
    let (Some(key), Some(client_flags), Some(exptime), true) = (
        Key::new(key),
        lex::classic_flags(flags),
        lex::classic_exptime(exptime),
        compare_cas.is_some() || mode != SetMode::Cas,
    ) else {
        return Decoded::Refused { used, swallow: u64::from(len) + 2, error: BAD_FORMAT, echo };
    };
    let set = arena.alloc(Set {
        mode,
        client_flags,
        exptime,
        compare_cas,
        drop_old_on_refusal: mode == SetMode::Set,
        ..Set::of(key, len)
    });
    Decoded::Command { used, command: Command::Set(set), echo }
}

/// `<key>`; a few further words mean nothing but `noreply`, as in memcached 1.6.45. Its earlier
/// releases refused more of them, and memccapable asks for that.
fn delete<'a>(args: &'a [u8], used: usize, arena: &'a Bump) -> Decoded<'a> {
    let args = lex::args(args);
    let noreply = lex::is_noreply(&args);
    let Some(&key) = args.first() else {
        return say_error(used, BAD_FORMAT, false);
    };
    let Some(key) = Key::new(key).filter(|_| args.len() <= DELETE_ARGS_MAX) else {
        return say_error(used, BAD_FORMAT, noreply);
    };
    command(used, Command::Delete(arena.alloc(Delete::of(key))), noreply)
}

/// `<key> <delta> [noreply]`
fn arith<'a>(increment: bool, args: &'a [u8], used: usize, arena: &'a Bump) -> Decoded<'a> {
    let args = lex::args(args);
    let (key, noreply) = match keyed(&args) {
        Ok(found) => found,
        Err(noreply) => return say_error(used, BAD_FORMAT, noreply),
    };
    let Some(delta) = lex::u64(args[1]) else {
        return say_error(used, Error::Client("invalid numeric delta argument"), noreply);
    };
    let arith = Arith { increment, ..Arith::of(key, delta) };
    command(used, Command::Arith(arena.alloc(arith)), noreply)
}

/// `<key> <exptime> [noreply]`
fn touch<'a>(args: &'a [u8], used: usize) -> Decoded<'a> {
    let args = lex::args(args);
    let (key, noreply) = match keyed(&args) {
        Ok(found) => found,
        Err(noreply) => return say_error(used, BAD_FORMAT, noreply),
    };
    let Some(exptime) = lex::exptime(args[1]) else {
        return say_error(used, Error::Client("invalid exptime argument"), noreply);
    };
    command(used, Command::Touch(Touch { key, exptime }), noreply)
}

/// The key of a command that wants one more argument, and whether it asks for silence; `Err` where
/// either is missing or the key is too long, with whether that is to be kept silent. memcached
/// heeds `noreply` only on lines that have all their arguments.
fn keyed<'a>(args: &Args<'a>) -> Result<(Key<'a>, bool), bool> {
    if args.len() < 2 {
        return Err(false);
    }
    let noreply = lex::is_noreply(args);
    Key::new(args[0]).map(|key| (key, noreply)).ok_or(noreply)
}

#[inline]
fn echo<'a>(noreply: bool) -> super::Echo<'a> {
    super::Echo::Text(Echo { noreply, cas: false, end: false })
}

#[inline]
pub(super) fn command<'a>(used: usize, command: Command<'a>, noreply: bool) -> Decoded<'a> {
    Decoded::Command { used, command, echo: echo(noreply) }
}

/// An error found in the line; its value, if any, is not dropped.
pub(super) fn say_error<'a>(used: usize, error: Error, noreply: bool) -> Decoded<'a> {
    command(used, Command::Say(Say::Error(error)), noreply)
}
