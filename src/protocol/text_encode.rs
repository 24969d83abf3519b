//! Classic text: how answers are worded.

use super::outbox::Outbox;
use super::text::Echo;
use super::{error_line, number};
use crate::command::{Error, Reply, Say, StatLines};
use crate::item::append_all;
use crate::store::{Hit, Key};

/// Room for the words and numbers of a VALUE line.
const VALUE_LINE_MAX: usize = 64;
const END: &[u8] = b"END\r\n";

#[inline(always)]
pub(super) fn hit(out: &mut Outbox, echo: Echo, key: Key<'_>, hit: Hit<'_>) {
    if echo.cas || hit.client_flags() != 0 {
        // Out of line, for most gets are of neither.
        let cas = echo.cas.then(|| hit.cas());
        value_line(out.bytes(), key, hit.client_flags(), hit.value_len(), cas);
    } else {
        let mut len = itoa::Buffer::new();
        let len = len.format(hit.value_len()).as_bytes();
        append_all(out.bytes(), [b"VALUE ", key.bytes(), b" 0 ", len, b"\r\n"]);
    }
    out.value(hit);
    if echo.end {
        out.bytes().extend_from_slice(b"\r\nEND\r\n");
    } else {
        out.bytes().extend_from_slice(b"\r\n");
    }
}

#[inline(never)]
fn value_line(out: &mut Vec<u8>, key: Key<'_>, client_flags: u32, len: u32, cas: Option<u64>) {
    out.reserve(key.bytes().len() + VALUE_LINE_MAX);
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key.bytes());
    out.push(b' ');
    number(out, client_flags);
    out.push(b' ');
    number(out, len);
    if let Some(cas) = cas {
        out.push(b' ');
        number(out, cas);
    }
    out.extend_from_slice(b"\r\n");
}

#[inline]
pub(super) fn reply(out: &mut Vec<u8>, echo: Echo, reply: &Reply<'_>) {
    match reply {
        Reply::Miss(_) => out.extend_from_slice(if echo.end { END } else { b"" }),
        Reply::NoRoom(_) => no_room(out, echo),
        _ if echo.noreply => {}
        Reply::Stored { .. } => out.extend_from_slice(b"STORED\r\n"),
        reply => other(out, reply),
    }
}

/// A client reads on after an error only if that is what its get ends with: another of several keys
/// is left out.
#[cold]
fn no_room(out: &mut Vec<u8>, echo: Echo) {
    if echo.end {
        error_line(out, Error::NoMemory("out of memory writing get response"));
    }
}

fn other(out: &mut Vec<u8>, reply: &Reply<'_>) {
    let words: &[u8] = match reply {
        Reply::Stored { .. } => b"STORED\r\n",
        Reply::NotStored(_) => b"NOT_STORED\r\n",
        Reply::Exists(_) => b"EXISTS\r\n",
        Reply::NotFound(_) | Reply::Miss(_) => b"NOT_FOUND\r\n",
        Reply::Deleted(_) => b"DELETED\r\n",
        Reply::Touched(_) => b"TOUCHED\r\n",
        Reply::Ok => b"OK\r\n",
        Reply::Reset => b"RESET\r\n",
        Reply::Say(Say::End) => END,
        Reply::Say(Say::Noop) => b"MN\r\n",
        #[cfg(feature = "debug-commands")]
        Reply::Say(Say::DebugMiss) => b"MISS\r\n",
        Reply::Say(Say::Error(error)) => return error_line(out, *error),
        Reply::Number { value, .. } => {
            number(out, *value);
            b"\r\n"
        }
        Reply::Version(version) => {
            out.extend_from_slice(b"VERSION ");
            out.extend_from_slice(version.as_bytes());
            b"\r\n"
        }
        Reply::Stats(lines) => return stats(out, lines),
        Reply::Failed(reason) => {
            out.extend_from_slice(b"SERVER_ERROR ");
            out.extend(reason.bytes().map(|b| if b.is_ascii_control() { b' ' } else { b }));
            b"\r\n"
        }
        // Only meta asks for the first, and text has no words for the others.
        Reply::Inspected { .. }
        | Reply::NoRoom(_)
        | Reply::Closing
        | Reply::Mechanisms(_)
        | Reply::Challenge(_)
        | Reply::LoggedIn => b"",
    };
    out.extend_from_slice(words);
}

fn stats(out: &mut Vec<u8>, lines: &StatLines) {
    match lines {
        StatLines::Pairs(pairs) => {
            for (name, value) in pairs {
                for part in ["STAT ", name, " ", value, "\r\n"] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
        }
        StatLines::Lines(lines) => {
            for line in lines {
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
        }
        StatLines::Ok => return out.extend_from_slice(b"OK\r\n"),
        StatLines::Reset => return out.extend_from_slice(b"RESET\r\n"),
        StatLines::Error(error) => return error_line(out, *error),
    }
    out.extend_from_slice(END);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_lines_carry_a_unique_only_where_asked() {
        let key = Key::new(b"some key").expect("it fits");
        for (flags, len, cas, bytes) in [
            (0, 0, None, "VALUE some key 0 0\r\n"),
            (7, 12, None, "VALUE some key 7 12\r\n"),
            (u32::MAX, u32::MAX, Some(0), "VALUE some key 4294967295 4294967295 0\r\n"),
            (0, 1, Some(u64::MAX), "VALUE some key 0 1 18446744073709551615\r\n"),
        ] {
            let mut out = Vec::new();
            value_line(&mut out, key, flags, len, cas);
            assert_eq!(out, bytes.as_bytes());
        }
        assert!(" 4294967295 4294967295 18446744073709551615\r\n".len() + 6 <= VALUE_LINE_MAX);
    }
}
