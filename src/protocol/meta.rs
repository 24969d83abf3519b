//! The meta protocol, `mg ms md ma mn me`: decoding. Wording is in `meta_encode`.

use super::lex::{self, BAD_FORMAT, TOKENS_MAX, Tokens};
use super::{Decoded, text};
use crate::clock::Exptime;
use crate::command::{Arith, Command, Delete, Deleter, Error, Fetch, Get, Say, Set, SetMode};
use crate::store::Key;
use bumpalo::Bump;

/// Most tokens of a line, command and key included.
const OPTIONS_MAX: usize = 20;
/// Longest opaque, its letter included.
const OPAQUE_MAX: usize = 32;
/// Flags that ask for something in the answer.
const RETURNED: u64 = bits(b"stcfhlOk");

/// Which command an answer belongs to; each returns its own set of flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Set,
    Delete,
    Arith,
    /// `mn` and `me`, which return no flags.
    Plain,
}

/// How to word a meta answer: the flags of the request, as they came.
#[derive(Clone, Copy, Debug)]
pub struct Echo<'a> {
    /// Empty where no flag asks for anything in the answer.
    pub(super) flags: &'a [u8],
    pub(super) verb: Verb,
    pub(super) quiet: bool,
    pub(super) value: bool,
    pub(super) binary_key: bool,
    /// Length of the value that came with an `ms`.
    pub(super) len: u32,
}

/// What a line's flags ask for.
#[derive(Default)]
struct Flags<'a> {
    /// Letters that occurred, as [`bit`]s.
    seen: u64,
    touch: Option<Exptime>,
    vivify: Option<Exptime>,
    recache: Option<Exptime>,
    /// `T` came before `R`.
    touch_first: bool,
    /// `T` came after `N`.
    touch_last: bool,
    client_flags: Option<u32>,
    compare_cas: Option<u64>,
    new_cas: Option<u64>,
    delta: Option<u64>,
    initial: Option<u64>,
    /// What follows `M`; 0 where it is bare.
    mode: Option<u8>,
    opaque_too_long: bool,
    /// The key, where it came in base64.
    binary_key: Option<Key<'a>>,
}

/// Why a line is refused.
enum Refusal {
    /// Not even tokens: nothing is known of a value behind the line.
    Line,
    /// With the words of the client error.
    Flags(&'static str),
    Opaque,
}

/// What is wrong with one flag.
enum Wrong {
    /// Nothing more is read.
    Flag(&'static str),
    /// Its argument; a later one's words replace these.
    Argument(&'static str),
    /// Its argument, in words that give way to any other's.
    ClientFlags,
}

const BAD_LINE: &str = "bad command line format";
const BAD_ARGUMENT: &str = "bad token in command line format";

/// Letters from `A` to `z` as bits of a word.
const fn bit(letter: u8) -> u64 {
    1 << (letter - b'A')
}

const fn bits(letters: &[u8]) -> u64 {
    let (mut all, mut at) = (0, 0);
    while at < letters.len() {
        all |= bit(letters[at]);
        at += 1;
    }
    all
}

impl<'a> Flags<'a> {
    #[inline]
    fn has(&self, letter: u8) -> bool {
        self.seen & bit(letter) != 0
    }

    /// Reads all flags. `before` counts the tokens before them.
    #[inline]
    fn read(
        &mut self,
        key: &[u8],
        text: &[u8],
        before: usize,
        arena: &'a Bump,
    ) -> Result<(), Refusal> {
        let mut error = None;
        let mut count = before;
        for token in Tokens::new(text) {
            count += 1;
            match self.take(token, key, arena) {
                _ if count > OPTIONS_MAX => return Err(refusal(text, before, BAD_LINE)),
                Ok(()) => {}
                Err(Wrong::Flag(words)) => return Err(refusal(text, before, words)),
                Err(Wrong::Argument(words)) => error = Some(words),
                Err(Wrong::ClientFlags) => error = error.or(Some(BAD_LINE)),
            }
        }
        error.map_or(Ok(()), |words| Err(Refusal::Flags(words)))
    }

    #[inline]
    fn take(&mut self, token: &[u8], key: &[u8], arena: &'a Bump) -> Result<(), Wrong> {
        let [letter @ b'A'..=b'z', argument @ ..] = token else {
            return Err(Wrong::Flag("invalid flag"));
        };
        if self.has(*letter) {
            return Err(Wrong::Flag("duplicate flag"));
        }
        self.seen |= bit(*letter);
        match letter {
            b'v' | b'k' | b's' | b't' | b'c' | b'f' | b'h' | b'l' | b'q' | b'u' => {}
            b'x' | b'I' | b'P' | b'L' => {}
            b'b' => {
                let decoded = lex::decode_key(key, arena);
                self.binary_key = Some(decoded.ok_or(Wrong::Argument("error decoding key"))?);
            }
            b'O' => self.opaque_too_long = token.len() > OPAQUE_MAX,
            b'M' => self.mode = Some(argument.first().copied().unwrap_or_default()),
            _ => return self.take_number(*letter, argument),
        }
        Ok(())
    }

    /// The exptime of an item that `N` creates: of `N` and `T` the later one sets it.
    fn created(&self) -> Option<Exptime> {
        self.vivify.map(|own| self.touch.filter(|_| self.touch_last).unwrap_or(own))
    }

    fn take_number(&mut self, letter: u8, argument: &[u8]) -> Result<(), Wrong> {
        let (valid, wrong) = match letter {
            b'T' => {
                self.touch_last = self.vivify.is_some();
                (assign(&mut self.touch, argument, lex::exptime), BAD_ARGUMENT)
            }
            b'N' => (assign(&mut self.vivify, argument, lex::exptime), BAD_ARGUMENT),
            b'R' => {
                self.touch_first = self.touch.is_some();
                (assign(&mut self.recache, argument, lex::exptime), BAD_ARGUMENT)
            }
            b'C' => (assign(&mut self.compare_cas, argument, lex::u64), BAD_ARGUMENT),
            b'E' => (assign(&mut self.new_cas, argument, lex::u64), BAD_ARGUMENT),
            b'J' => {
                (assign(&mut self.initial, argument, lex::u64), "invalid numeric initial value")
            }
            b'D' => (assign(&mut self.delta, argument, lex::u64), "invalid numeric delta value"),
            b'F' if assign(&mut self.client_flags, argument, lex::u32) => return Ok(()),
            b'F' => return Err(Wrong::ClientFlags),
            _ => return Err(Wrong::Flag("invalid flag")),
        };
        if valid { Ok(()) } else { Err(Wrong::Argument(wrong)) }
    }
}

/// Sets a field from a flag's argument; false where that is missing or no number.
fn assign<T>(field: &mut Option<T>, argument: &[u8], read: fn(&[u8]) -> Option<T>) -> bool {
    *field = if argument.is_empty() { None } else { read(argument) };
    field.is_some()
}

/// What memcached finds while it tells tokens apart, and their number, come before what it finds
/// in them: looks at the whole line again, for errors only.
#[cold]
fn refusal(text: &[u8], before: usize, words: &'static str) -> Refusal {
    let count = before + Tokens::new(text).count();
    let letters = |token: &[u8]| matches!(token[0], b'A'..=b'z' | b'0'..=b'9');
    if !Tokens::new(text).take(TOKENS_MAX - before).all(letters) {
        Refusal::Line
    } else if count > OPTIONS_MAX {
        Refusal::Flags("options flags are too long")
    } else {
        Refusal::Flags(words)
    }
}

impl Refusal {
    fn error(&self) -> Error {
        match self {
            Refusal::Line => BAD_FORMAT,
            Refusal::Flags(words) => Error::Client(words),
            Refusal::Opaque => Error::Client("opaque token too long"),
        }
    }
}

/// A line's key, and how to word the answer.
struct Request<'a> {
    key: Key<'a>,
    echo: Echo<'a>,
}

impl<'a> Request<'a> {
    /// `key` is the key's token, `text` what follows the tokens before the flags, which are large
    /// and so are filled in where they lie.
    #[inline(always)]
    fn parse(
        verb: Verb,
        key: &'a [u8],
        text: &'a [u8],
        flags: &mut Flags<'a>,
        arena: &'a Bump,
    ) -> Result<Request<'a>, Refusal> {
        let before = if verb == Verb::Set { 3 } else { 2 };
        let Some(plain) = Key::new(key) else {
            // Of too many tokens and a bad key, the key is named.
            return Err(match refusal(text, before, BAD_LINE) {
                Refusal::Line => Refusal::Line,
                _ => Refusal::Flags(BAD_LINE),
            });
        };
        flags.read(key, text, before, arena)?;
        if flags.opaque_too_long {
            return Err(Refusal::Opaque);
        }
        let echo = Echo {
            flags: if flags.seen & RETURNED == 0 { b"" } else { text },
            verb,
            quiet: flags.has(b'q'),
            value: flags.has(b'v'),
            binary_key: flags.binary_key.is_some(),
            len: 0,
        };
        Ok(Request { key: flags.binary_key.unwrap_or(plain), echo })
    }

    /// For the commands whose flags follow the key at once.
    #[inline(always)]
    fn keyed(
        verb: Verb,
        args: &'a [u8],
        flags: &mut Flags<'a>,
        arena: &'a Bump,
    ) -> Result<Request<'a>, Refusal> {
        let mut tokens = Tokens::new(args);
        let key = tokens.next().ok_or(Refusal::Line)?;
        Request::parse(verb, key, tokens.rest(), flags, arena)
    }
}

fn done<'a>(used: usize, command: Command<'a>, echo: Echo<'a>) -> Decoded<'a> {
    Decoded::Command { used, command, echo: super::Echo::Meta(echo) }
}

fn say_error<'a>(used: usize, error: Error) -> Decoded<'a> {
    text::say_error(used, error, false)
}

/// The less busy commands, by the letter behind `m`.
pub(super) fn decode<'a>(
    verb: u8,
    line: &'a [u8],
    args: &'a [u8],
    used: usize,
    arena: &'a Bump,
) -> Decoded<'a> {
    match verb {
        b'g' | b's' => say_error(used, BAD_FORMAT),
        b'd' => delete(args, used, arena),
        b'a' => arith(args, used, arena),
        b'e' => inspect(args, used, arena),
        b'n' => done(used, Command::Say(Say::Noop), plain_echo(false)),
        _ => text::decode(line, used, arena),
    }
}

/// `<key> <flag>*`
#[inline]
pub(super) fn get<'a>(args: &'a [u8], used: usize, arena: &'a Bump) -> Decoded<'a> {
    let mut flags = Flags::default();
    let Request { key, echo } = match Request::keyed(Verb::Get, args, &mut flags, arena) {
        Ok(request) => request,
        Err(refusal) => return say_error(used, refusal.error()),
    };
    let get =
        Get { bump: !flags.has(b'u'), unless_cas: flags.compare_cas, meta: true, ..Get::of(key) };
    let command = if flags.seen & bits(b"TNRc") == 0 {
        Command::Get(get)
    } else {
        Command::Fetch(arena.alloc(Fetch {
            cas: flags.has(b'c'),
            touch: flags.touch,
            touch_first: flags.touch_first,
            vivify: flags.created(),
            recache: flags.recache,
            new_cas: flags.new_cas,
            binary_key: echo.binary_key,
            ..Fetch::of(get)
        }))
    };
    done(used, command, echo)
}

/// `<key> <datalen> <flag>*`. Without a usable length nothing behind the line is dropped.
#[inline]
pub(super) fn set<'a>(args: &'a [u8], used: usize, arena: &'a Bump) -> Decoded<'a> {
    let mut tokens = Tokens::new(args);
    let key = tokens.next();
    let (Some(key), Some(len)) = (key, tokens.next().and_then(lex::value_len)) else {
        return say_error(used, BAD_FORMAT);
    };
    let mut flags = Flags::default();
    let request = Request::parse(Verb::Set, key, tokens.rest(), &mut flags, arena);
    let error = match request.and_then(|request| request.into_set(&flags, len)) {
        Ok((set, echo)) => return done(used, Command::Set(arena.alloc(set)), echo),
        Err(Refusal::Line) => return say_error(used, BAD_FORMAT),
        Err(refusal) => refusal.error(),
    };
    let echo = super::Echo::Text(text::Echo::default());
    Decoded::Refused { used, swallow: u64::from(len) + 2, error, echo }
}

impl<'a> Request<'a> {
    #[inline(always)]
    fn into_set(self, flags: &Flags<'a>, len: u32) -> Result<(Set<'a>, Echo<'a>), Refusal> {
        let Request { key, echo } = self;
        let base = match flags.mode {
            None | Some(b'S') => SetMode::Set,
            Some(b'E') => SetMode::Add,
            Some(b'A') => SetMode::Append,
            Some(b'P') => SetMode::Prepend,
            Some(b'R') => SetMode::Replace,
            Some(_) => return Err(Refusal::Flags("invalid mode for ms M token")),
        };
        let joins = matches!(base, SetMode::Append | SetMode::Prepend);
        let (mode, compare_cas) = match flags.compare_cas {
            Some(_) if base == SetMode::Add => (base, None),
            // memcached takes 0 for no unique here, but not where it turns a set into a cas.
            Some(unique) if joins => (base, Some(unique).filter(|&u| u != 0)),
            Some(unique) => (SetMode::Cas, Some(unique)),
            None => (base, None),
        };
        let set = Set {
            mode,
            client_flags: flags.client_flags.unwrap_or_default(),
            exptime: flags.touch.unwrap_or_default(),
            compare_cas,
            invalidate: flags.has(b'I'),
            vivify: flags.vivify.filter(|_| joins),
            new_cas: flags.new_cas,
            return_cas: flags.has(b'c'),
            binary_key: echo.binary_key,
            ..Set::of(key, len)
        };
        Ok((set, Echo { len, ..echo }))
    }
}

/// `<key> <flag>*`
fn delete<'a>(args: &'a [u8], used: usize, arena: &'a Bump) -> Decoded<'a> {
    let mut flags = Flags::default();
    let Request { key, echo } = match Request::keyed(Verb::Delete, args, &mut flags, arena) {
        Ok(request) => request,
        Err(refusal) => return say_error(used, refusal.error()),
    };
    let delete = Delete {
        key,
        compare_cas: flags.compare_cas,
        invalidate: flags.has(b'I'),
        touch: flags.touch,
        drop_value: flags.has(b'x'),
        client_flags: flags.client_flags.unwrap_or_default(),
        new_cas: flags.new_cas,
        by: Deleter::Meta,
    };
    done(used, Command::Delete(arena.alloc(delete)), echo)
}

/// `<key> <flag>*`. All that is wrong with its flags is told in the same words.
fn arith<'a>(args: &'a [u8], used: usize, arena: &'a Bump) -> Decoded<'a> {
    let mut flags = Flags::default();
    let Request { key, echo } = match Request::keyed(Verb::Arith, args, &mut flags, arena) {
        Ok(request) => request,
        Err(Refusal::Flags(_)) => {
            return say_error(used, Error::Client("invalid or duplicate flag"));
        }
        Err(refusal) => return say_error(used, refusal.error()),
    };
    let increment = match flags.mode {
        None | Some(b'I' | b'+') => true,
        Some(b'D' | b'-') => false,
        Some(_) => return say_error(used, Error::Client("invalid mode for ma M token")),
    };
    let arith = Arith {
        key,
        increment,
        delta: flags.delta.unwrap_or(1),
        // Here memcached takes 0 for no unique.
        compare_cas: flags.compare_cas.filter(|&unique| unique != 0),
        vivify: flags.created(),
        initial: flags.initial.unwrap_or_default(),
        touch: flags.touch,
        new_cas: flags.new_cas,
        return_cas: flags.has(b'c'),
        binary_key: echo.binary_key,
    };
    done(used, Command::Arith(arena.alloc(arith)), echo)
}

/// `<key> [b]`. memcached's documents let `b` follow the key; 1.6.45 itself overlooks it there.
fn inspect<'a>(args: &'a [u8], used: usize, arena: &'a Bump) -> Decoded<'a> {
    let mut tokens = Tokens::new(args);
    let Some(token) = tokens.next() else {
        return say_error(used, BAD_FORMAT);
    };
    let text = tokens.rest();
    let binary_key = tokens.next() == Some(b"b");
    let well_formed = !matches!(refusal(text, 2, BAD_LINE), Refusal::Line);
    let key = Key::new(token).filter(|_| well_formed);
    let key = if binary_key { key.and_then(|_| lex::decode_key(token, arena)) } else { key };
    match key {
        Some(key) => done(used, Command::Inspect(key), plain_echo(binary_key)),
        None => say_error(used, BAD_FORMAT),
    }
}

fn plain_echo<'a>(binary_key: bool) -> Echo<'a> {
    Echo { flags: b"", verb: Verb::Plain, quiet: false, value: false, binary_key, len: 0 }
}
