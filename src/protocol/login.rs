//! What a client may say to be let in: a line of the text protocol, or a request of the binary one
//! that is part of a SASL exchange.
//!
//! With -Y, a `set` whose value is `user password` is the only line that is heard. The rules and
//! words are those of memcached 1.6.45. In particular the key, the flags and the exptime of the
//! line mean nothing, and neither do words after the length.

use super::{LINE_MAX, error_line, lex};
use crate::command::Error;
use memchr::memchr;

/// Longest token, bytes.
pub const TOKEN_MAX: u32 = 16 << 10;
/// A shorter line, its `\n` not counted, ends the connection.
const LINE_MIN: usize = 6;

/// What the bytes at the front of the buffer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// A line in the first `used` bytes that is not heard.
    Refused { used: usize, error: Error },
    /// A line in the first `used` bytes; a token of `len` bytes and CRLF follow.
    Token { used: usize, len: u32 },
    /// More bytes are needed.
    Incomplete,
    /// Nothing sensible can follow: close.
    HangUp,
}

/// A request of a SASL exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// The names of the mechanisms.
    Mechanisms,
    /// To start by this mechanism; a message to it follows.
    Start(&'a [u8]),
    /// To go on; a message follows.
    Step,
}

/// Reads one line from the front of `buf`.
pub fn line(buf: &[u8]) -> Login {
    let Some(end) = memchr(b'\n', buf) else {
        return if buf.len() > LINE_MAX { Login::HangUp } else { Login::Incomplete };
    };
    if end < LINE_MIN {
        return Login::HangUp;
    }
    let used = end + 1;
    let line = lex::without_end(&buf[..used]);
    let len = lex::Tokens::new(line).nth(4).and_then(lex::u32);
    match len.filter(|_| line.starts_with(b"set")) {
        None => Login::Refused { used, error: Error::Client("unauthenticated") },
        Some(len) if len > TOKEN_MAX => {
            Login::Refused { used, error: Error::Client("auth token too long") }
        }
        Some(len) => Login::Token { used, len },
    }
}

/// The user and the password of a token, which still has its CRLF.
pub fn token(token: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let token = token.strip_suffix(b"\r\n").ok_or(Error::Client("bad command line termination"))?;
    let blank = memchr(b' ', token).ok_or(Error::Client("bad authentication token format"))?;
    Ok((&token[..blank], &token[blank + 1..]))
}

/// Words the answer to a line or a token.
pub fn encode(out: &mut Vec<u8>, answer: Result<(), Error>) {
    match answer {
        Ok(()) => out.extend_from_slice(b"STORED\r\n"),
        Err(error) => error_line(out, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNAUTHENTICATED: Error = Error::Client("unauthenticated");

    #[test]
    fn a_set_line_announces_a_token() {
        for (text, len) in [
            ("set foo 0 0 7\r\nfoo bar\r\n", 7),
            ("set foo 0 0 7\nfoo bar\r\n", 7),
            ("set any words here 0 noreply\r\n", 0),
            ("sets  a b   c 16384 \r\n", 16384),
        ] {
            let used = text.find('\n').unwrap() + 1;
            assert_eq!(line(text.as_bytes()), Login::Token { used, len }, "{text}");
        }
    }

    #[test]
    fn other_lines_are_not_heard() {
        for text in [
            "get foo\r\n",
            "version\r\n",
            "stats\n\n",
            " set a 0 0 7\r\n",
            "set a 0 0\r\n",
            "set a 0 0 -1\r\n",
            "set a 0 0 4294967296\r\n",
            "set a 0 0 7x\r\n",
            "ms a 7   \r\n",
            "\x7f\u{ff}\0\0\0\0\0\n",
        ] {
            let used = text.find('\n').unwrap() + 1;
            let refused = Login::Refused { used, error: UNAUTHENTICATED };
            assert!([refused, Login::HangUp].contains(&line(text.as_bytes())), "{text}");
            assert_eq!(line(text.as_bytes()) == Login::HangUp, used <= LINE_MIN, "{text}");
        }
        for len in ["16385", "2147483646", "4294967295"] {
            let text = format!("set a 0 0 {len}\r\n");
            let error = Error::Client("auth token too long");
            assert_eq!(line(text.as_bytes()), Login::Refused { used: text.len(), error });
        }
    }

    #[test]
    fn lines_end_in_time() {
        assert_eq!(line(b""), Login::Incomplete);
        assert_eq!(line(&[b'x'; LINE_MAX]), Login::Incomplete);
        assert_eq!(line(&[b'x'; LINE_MAX + 1]), Login::HangUp);
        for short in ["\n", "\r\n", "quit\r\n", "mn\r\n", "get a\n"] {
            assert_eq!(line(short.as_bytes()), Login::HangUp, "{short}");
        }
    }

    #[test]
    fn a_token_is_a_user_and_a_password() {
        assert_eq!(token(b"foo bar\r\n"), Ok((&b"foo"[..], &b"bar"[..])));
        assert_eq!(token(b"foo bar baz \r\n"), Ok((&b"foo"[..], &b"bar baz "[..])));
        assert_eq!(token(b" \r\n"), Ok((&b""[..], &b""[..])));
        assert_eq!(token(b"foobar\r\n"), Err(Error::Client("bad authentication token format")));
        assert_eq!(token(b"\r\n"), Err(Error::Client("bad authentication token format")));
        for bad in [&b"foo bar\n\n"[..], b"foo barxx", b"foo bar\n\r", b"", b"\n"] {
            assert_eq!(token(bad), Err(Error::Client("bad command line termination")));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_waited_for(text: Vec<u8>) {
            match line(&text) {
                Login::Refused { used, .. } | Login::Token { used, .. } => {
                    prop_assert!(used > LINE_MIN && used <= text.len());
                    prop_assert_eq!(text[used - 1], b'\n');
                }
                Login::Incomplete => prop_assert!(!text.contains(&b'\n')),
                Login::HangUp => {}
            }
            if let Ok((user, password)) = token(&text) {
                prop_assert_eq!([user, b" ", password, b"\r\n"].concat(), text);
            }
        }

        #[test]
        fn no_line_but_a_set_is_a_token(text in "[a-z0-9 ]{6,60}\r\n") {
            if let Login::Token { len, .. } = line(text.as_bytes()) {
                prop_assert!(text.starts_with("set"));
                prop_assert_eq!(text.split_ascii_whitespace().nth(4), Some(&*len.to_string()));
            }
        }
    }
}
