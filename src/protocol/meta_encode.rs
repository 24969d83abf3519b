//! The meta protocol: how answers are worded. Flags come back in the order of the request.

use super::lex::{Tokens, encode_key};
use super::meta::{Echo, Verb};
use super::outbox::Outbox;
use super::{error_line, number, text_encode};
use crate::command::{Error, Reply};
use crate::store::{Hit, Inspection, Key};

/// Room for a status line without returned flags.
const STATUS_MAX: usize = 32;

/// What the returned flags tell of an item.
#[derive(Clone, Copy, Default)]
struct Facts {
    len: u32,
    client_flags: u32,
    cas: u64,
    ttl: Option<u32>,
    /// Before the command's `T`, which changes what a `t` behind it tells.
    ttl_before: Option<u32>,
    idle: u32,
    fetched: bool,
    binary_key: bool,
}

/// The marks that follow the returned flags unasked.
#[derive(Clone, Copy, Default)]
struct Marks {
    win_sent: bool,
    stale: bool,
    won: bool,
}

#[inline]
pub(super) fn hit(out: &mut Outbox, echo: &Echo<'_>, key: Key<'_>, hit: Hit<'_>) {
    let len = hit.value_len();
    let value = echo.value && !hit.unchanged();
    let bytes = out.bytes();
    bytes.reserve(STATUS_MAX);
    status(bytes, value.then_some(len));
    if !echo.flags.is_empty() {
        let facts = Facts {
            len,
            client_flags: hit.client_flags(),
            cas: hit.cas(),
            ttl: hit.ttl(),
            ttl_before: hit.ttl_before(),
            idle: hit.idle(),
            fetched: hit.fetched(),
            binary_key: hit.binary_key(),
        };
        item_flags(bytes, echo.flags, key, facts);
    }
    marks(bytes, Marks { win_sent: hit.win_sent(), stale: hit.stale(), won: hit.won() });
    bytes.extend_from_slice(b"\r\n");
    if value {
        out.value_line(hit);
    }
}

/// `VA <len>` where a value follows, else `HD`.
#[inline]
fn status(out: &mut Vec<u8>, value_len: Option<u32>) {
    match value_len {
        Some(len) => {
            out.extend_from_slice(b"VA ");
            number(out, len);
        }
        None => out.extend_from_slice(b"HD"),
    }
}

fn item_flags(out: &mut Vec<u8>, flags: &[u8], key: Key<'_>, facts: Facts) {
    let mut left = facts.ttl_before;
    for flag in Tokens::new(flags) {
        match flag[0] {
            b'T' => left = facts.ttl,
            b's' => numeric(out, b" s", facts.len),
            b't' => ttl(out, left),
            b'c' => numeric(out, b" c", facts.cas),
            b'f' => numeric(out, b" f", facts.client_flags),
            b'l' => numeric(out, b" l", facts.idle),
            b'h' => out.extend_from_slice(if facts.fetched { b" h1" } else { b" h0" }),
            b'O' => opaque(out, flag),
            b'k' => key_flag(out, key, facts.binary_key),
            _ => {}
        }
    }
}

#[inline]
fn marks(out: &mut Vec<u8>, marks: Marks) {
    for (set, letters) in [(marks.win_sent, b" Z"), (marks.stale, b" X"), (marks.won, b" W")] {
        if set {
            out.extend_from_slice(letters);
        }
    }
}

fn numeric(out: &mut Vec<u8>, flag: &[u8], n: impl itoa::Integer) {
    out.extend_from_slice(flag);
    number(out, n);
}

fn ttl(out: &mut Vec<u8>, ttl: Option<u32>) {
    match ttl {
        Some(seconds) => numeric(out, b" t", seconds),
        None => out.extend_from_slice(b" t-1"),
    }
}

fn opaque(out: &mut Vec<u8>, flag: &[u8]) {
    out.push(b' ');
    out.extend_from_slice(flag);
}

fn key_flag(out: &mut Vec<u8>, key: Key<'_>, binary: bool) {
    out.extend_from_slice(b" k");
    if binary {
        encode_key(out, key.bytes());
        out.extend_from_slice(b" b");
    } else {
        out.extend_from_slice(key.bytes());
    }
}

#[inline]
pub(super) fn reply(out: &mut Vec<u8>, echo: &Echo<'_>, reply: &Reply<'_>) {
    let nominal = matches!(
        reply,
        Reply::Miss(_) | Reply::Stored { .. } | Reply::Deleted(_) | Reply::Number { .. }
    );
    if nominal && echo.quiet {
        return;
    }
    match *reply {
        Reply::Miss(key) => line(out, b"EN", echo, key, None),
        Reply::NoRoom(_) => error_line(out, Error::NoMemory("out of memory")),
        Reply::Stored { key, cas, len } => {
            line(out, b"HD", echo, key, Some((cas.unwrap_or(0), len)));
        }
        Reply::NotStored(key) => line(out, b"NS", echo, key, Some((0, echo.len))),
        Reply::Exists(key) => line(out, b"EX", echo, key, Some((0, echo.len))),
        Reply::NotFound(key) => line(out, b"NF", echo, key, Some((0, echo.len))),
        Reply::Deleted(key) => line(out, b"HD", echo, key, None),
        Reply::Number { key, value, cas, ttl, ttl_before } => {
            let facts = Facts { cas: cas.unwrap_or(0), ttl, ttl_before, ..Facts::default() };
            arith(out, echo, key, value, facts);
        }
        Reply::Inspected { key, ref item } => inspected(out, key, item),
        ref reply => text_encode::reply(out, Default::default(), reply),
    }
}

/// A status with the flags that a store (`stored`: CAS unique and length) or a miss returns.
fn line(
    out: &mut Vec<u8>,
    status: &[u8],
    echo: &Echo<'_>,
    key: Key<'_>,
    stored: Option<(u64, u32)>,
) {
    out.extend_from_slice(status);
    let stored = stored.filter(|_| echo.verb == Verb::Set);
    for flag in Tokens::new(echo.flags) {
        match (flag[0], stored) {
            (b'O', _) => opaque(out, flag),
            (b'k', _) => key_flag(out, key, echo.binary_key),
            (b'c', Some((cas, _))) => numeric(out, b" c", cas),
            (b's', Some((_, len))) => numeric(out, b" s", len),
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Of the flags that tell of an item, `ma` knows `t` and `c`.
fn arith(out: &mut Vec<u8>, echo: &Echo<'_>, key: Key<'_>, value: u64, facts: Facts) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value);
    status(out, echo.value.then_some(digits.len() as u32));
    let mut left = facts.ttl_before;
    for flag in Tokens::new(echo.flags) {
        match flag[0] {
            b'T' => left = facts.ttl,
            b't' => ttl(out, left),
            b'c' => numeric(out, b" c", facts.cas),
            b'O' => opaque(out, flag),
            b'k' => key_flag(out, key, echo.binary_key),
            _ => {}
        }
    }
    out.extend_from_slice(b"\r\n");
    if echo.value {
        out.extend_from_slice(digits.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// `ME <key> <name>=<value>*`
fn inspected(out: &mut Vec<u8>, key: Key<'_>, item: &Inspection) {
    out.extend_from_slice(b"ME ");
    if item.binary_key {
        encode_key(out, key.bytes());
    } else {
        out.extend_from_slice(key.bytes());
    }
    match item.ttl {
        Some(seconds) => numeric(out, b" exp=", seconds),
        None => out.extend_from_slice(b" exp=-1"),
    }
    numeric(out, b" la=", item.idle);
    numeric(out, b" cas=", item.cas);
    out.extend_from_slice(if item.fetched { b" fetch=yes" } else { b" fetch=no" });
    numeric(out, b" cls=", item.class);
    numeric(out, b" size=", item.size);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("answers to plain keys are text")
    }

    #[test]
    fn item_flags_come_in_the_order_asked() {
        let key = Key::new(b"foo").expect("it fits");
        let facts = Facts { len: 12, client_flags: 5, cas: 16, idle: 3, ..Facts::default() };
        let flags =
            |asked: &str, facts| written(|out| item_flags(out, asked.as_bytes(), key, facts));
        assert_eq!(flags("s v f t h l c k Oopq q", facts), " s12 f5 t-1 h0 l3 c16 kfoo Oopq");
        let facts = Facts { ttl: Some(5), ttl_before: Some(30), ..facts };
        let facts = Facts { fetched: true, binary_key: true, ..facts };
        assert_eq!(flags("k  O1 h t T5", facts), " kZm9v b O1 h1 t30");
        assert_eq!(flags("T5 t", facts), " t5");
    }

    #[test]
    fn marks_follow_unasked() {
        let line = |win_sent, stale, won| written(|out| marks(out, Marks { win_sent, stale, won }));
        assert_eq!(line(false, false, false), "");
        assert_eq!(line(false, true, true), " X W");
        assert_eq!(line(true, true, false), " Z X");
        assert_eq!(line(false, false, true), " W");
    }

    #[test]
    fn a_value_is_announced_by_its_length() {
        assert_eq!(written(|out| status(out, Some(4_294_967_295))), "VA 4294967295");
        assert_eq!(written(|out| status(out, None)), "HD");
        assert!("VA 4294967295 Z X W\r\n".len() <= STATUS_MAX);
    }
}
