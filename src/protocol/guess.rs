//! A guess at the key of a request that was not decoded yet, so that what is needed for it can be
//! on its way from memory. Where it is wrong, no more than that is lost.

use super::binary::{HEADER_LEN, MAGIC};
use crate::store::Key;
use memchr::memchr3;

/// The longest verb in front of a key, and a blank: `prepend `.
const VERB_MAX: usize = 8;

/// The key of the request at the front of `buf`: what follows its first word, or its header.
#[inline]
pub fn key(buf: &[u8]) -> Option<Key<'_>> {
    if let [MAGIC, _, high, low, extras, ..] = *buf {
        let start = HEADER_LEN + usize::from(extras);
        let len = usize::from(u16::from_be_bytes([high, low]));
        return Key::new(buf.get(start..start + len)?);
    }
    let verb = buf.iter().take(VERB_MAX).position(|&byte| byte == b' ')?;
    let rest = &buf[verb + 1..];
    let len = memchr3(b' ', b'\r', b'\n', &rest[..rest.len().min(Key::MAX + 1)])?;
    Key::new(&rest[..len])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guessed(buf: &[u8]) -> Option<&[u8]> {
        key(buf).map(Key::bytes)
    }

    #[test]
    fn a_line_names_its_key_second() {
        for line in ["get k\r\n", "mg k v\r\n", "prepend k 0 0 1\r\na\r\n", "gets k j\n", "md k\n"]
        {
            assert_eq!(guessed(line.as_bytes()), Some(&b"k"[..]), "{line}");
        }
    }

    #[test]
    fn a_header_says_where_its_key_is() {
        let mut packet = [0; 34];
        packet[..5].copy_from_slice(&[MAGIC, 1, 0, 2, 8]);
        packet[32..].copy_from_slice(b"ab");
        assert_eq!(guessed(&packet), Some(&b"ab"[..]));
        assert_eq!(guessed(&packet[..33]), None, "not all of it is here");
    }

    #[test]
    fn what_has_no_key_is_passed_over() {
        let long = [b"get ", &[b'k'; 251][..], b"\r\n"].concat();
        let lines: [&[u8]; 7] =
            [b"", b"mn\r\n", b"stats", b"get ", b"get k", b"an_unknown_verb k\r\n", &long];
        for line in lines {
            assert_eq!(guessed(line), None, "{}", line.escape_ascii());
        }
        assert_eq!(guessed(&[MAGIC, 0x0a, 0, 0, 0]), None);
    }
}
