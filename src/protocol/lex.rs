//! Tokens, integers, key rules and base64, shared by classic text and meta.
//!
//! The rules are those of memcached 1.6.45: only blanks separate tokens, a token's digits are
//! bounded before they are looked at, and no number may carry anything but its digits.

use crate::clock::Exptime;
use crate::command::Error;
use crate::item::bytes_equal_to;
use crate::store::Key;
use arrayvec::ArrayVec;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bumpalo::Bump;
use memchr::memchr_iter;

/// Tokens of a line that memcached looks at, its command included; what follows is ignored.
pub(super) const TOKENS_MAX: usize = 23;
/// Longest digits of a 32-bit number, sign included.
const DIGITS_32_MAX: usize = 11;
/// Longest digits of a 64-bit number.
const DIGITS_64_MAX: usize = 22;
/// Largest length that a storage command may announce: with its line end it still fits an `i32`.
const VALUE_LEN_MAX: i32 = i32::MAX - 2;

pub(super) const BAD_FORMAT: Error = Error::Client("bad command line format");

/// The arguments of a line, without its command.
pub(super) type Args<'a> = ArrayVec<&'a [u8], { TOKENS_MAX - 1 }>;

/// Tokens of a text, one after the other.
#[derive(Clone)]
pub(super) struct Tokens<'a>(&'a [u8]);

impl<'a> Tokens<'a> {
    #[inline]
    pub(super) fn new(text: &'a [u8]) -> Tokens<'a> {
        Tokens(text)
    }
    /// What has not been handed out yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let text = skip_blanks(self.0);
        if text.is_empty() {
            self.0 = text;
            return None;
        }
        let (token, rest) = text.split_at(find_blank(text).unwrap_or(text.len()));
        self.0 = rest;
        Some(token)
    }
}

/// Where the first blank is.
#[inline]
pub(super) fn find_blank(text: &[u8]) -> Option<usize> {
    find_either(text, b' ', b' ')
}

/// Where the first of two bytes is. Tokens are short: sixteen bytes at a time, in line, beat a
/// wider search that has to be called.
#[inline(always)]
pub(super) fn find_either(text: &[u8], one: u8, other: u8) -> Option<usize> {
    let (blocks, rest) = text.as_chunks::<16>();
    for (n, block) in blocks.iter().enumerate() {
        let block = u128::from_le_bytes(*block);
        let found = bytes_equal_to(one, block) | bytes_equal_to(other, block);
        if found != 0 {
            return Some(n * 16 + found.trailing_zeros() as usize);
        }
    }
    let found = rest.iter().position(|&byte| byte == one || byte == other);
    found.map(|at| text.len() - rest.len() + at)
}

#[inline]
pub(super) fn skip_blanks(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    text
}

pub(super) fn args(text: &[u8]) -> Args<'_> {
    Tokens::new(text).take(TOKENS_MAX - 1).collect()
}

/// True where the last of the tokens that memcached looks at asks for silence.
pub(super) fn is_noreply(args: &[&[u8]]) -> bool {
    args.last().is_some_and(|&last| last == b"noreply")
}

/// The line before its `\n` or `\r\n`; `line` ends in `\n`.
#[inline]
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    match line {
        [text @ .., b'\r', b'\n'] | [text @ .., b'\n'] => text,
        text => text,
    }
}

/// False where a key of the text is too long; the text has at least one token.
pub(super) fn keys_fit(text: &[u8]) -> bool {
    let mut start = 0;
    for blank in memchr_iter(b' ', text) {
        if blank - start > Key::MAX {
            return false;
        }
        start = blank + 1;
    }
    text.len() - start <= Key::MAX
}

/// Digits only; `None` also for more digits than `max` and for an overflow.
#[inline]
fn digits(token: &[u8], max: usize) -> Option<u64> {
    if token.len() > max {
        return None;
    }
    // So many digits cannot overflow; few numbers have more.
    let (short, long) = token.split_at(token.len().min(19));
    let mut sum = 0u64;
    for &byte in short {
        sum = sum * 10 + digit(byte)?;
    }
    for &byte in long {
        sum = sum.checked_mul(10)?.checked_add(digit(byte)?)?;
    }
    Some(sum)
}

/// Numbers of up to nine digits with one blank between each two, and nothing else: how nearly all
/// storage lines end. `None` for any other text, which may be right all the same.
#[inline]
pub(super) fn plain_numbers<const N: usize>(text: &[u8]) -> Option<[u32; N]> {
    const DIGITS_MAX: usize = 9;
    let (mut numbers, mut at, mut digits) = ([0; N], 0, 0);
    for &byte in text {
        if byte == b' ' && digits > 0 {
            (at, digits) = (at + 1, 0);
            continue;
        }
        let number = numbers.get_mut(at).filter(|_| digits < DIGITS_MAX)?;
        *number = *number * 10 + digit(byte)? as u32;
        digits += 1;
    }
    (at + 1 == N && digits > 0).then_some(numbers)
}

#[inline]
fn digit(byte: u8) -> Option<u64> {
    let digit = byte.wrapping_sub(b'0');
    (digit <= 9).then_some(digit.into())
}

#[inline]
pub(super) fn u32(token: &[u8]) -> Option<u32> {
    digits(token, DIGITS_32_MAX).and_then(|n| u32::try_from(n).ok())
}

#[inline]
pub(super) fn u64(token: &[u8]) -> Option<u64> {
    digits(token, DIGITS_64_MAX)
}

/// A real number; infinities and what is no number are refused, as is what is longer than
/// memcached reads.
pub(super) fn real(token: &[u8]) -> Option<f64> {
    const REAL_MAX: usize = 31;
    let text = str::from_utf8(token).ok().filter(|text| text.len() <= REAL_MAX)?;
    text.parse().ok().filter(|n: &f64| n.is_finite())
}

/// A lone `-` is 0, as memcached has it.
#[inline]
pub(super) fn i32(token: &[u8]) -> Option<i32> {
    if token.len() > DIGITS_32_MAX {
        return None;
    }
    let (sign, number) = match token {
        [b'-', number @ ..] => (-1, number),
        number => (1, number),
    };
    let magnitude = digits(number, DIGITS_32_MAX)? as i64;
    i32::try_from(sign * magnitude).ok()
}

#[inline]
pub(super) fn exptime(token: &[u8]) -> Option<Exptime> {
    i32(token).map(|n| Exptime(n.into()))
}

/// The length of a value that follows a line.
#[inline]
pub(super) fn value_len(token: &[u8]) -> Option<u32> {
    i32(token).filter(|n| (0..=VALUE_LEN_MAX).contains(n)).map(|n| n as u32)
}

/// Client flags of a classic storage line, which may carry a sign (`+7`, `-0`). memcached cuts
/// flags beyond 32 bits to their low half; here they are refused, as its documents say.
#[inline]
pub(super) fn classic_flags(token: &[u8]) -> Option<u32> {
    let number = signed(token)?;
    u32::try_from(number).ok()
}

/// The exptime of a classic storage line, which may carry a sign and, as in memcached, is cut to
/// its low 32 bits: a unix time after 2038 is in the past.
#[inline]
pub(super) fn classic_exptime(token: &[u8]) -> Option<Exptime> {
    signed(token).map(|n| Exptime((n as i32).into()))
}

#[inline]
fn signed(token: &[u8]) -> Option<i64> {
    let (negative, number) = match token {
        [b'-', number @ ..] => (true, number),
        [b'+', number @ ..] => (false, number),
        number => (false, number),
    };
    if number.is_empty() {
        return None;
    }
    let magnitude = i64::try_from(digits(number, usize::MAX)?).ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

/// Padding is wanted; stray bits behind the last byte are let through.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// The key that `text` encodes; `None` where it is no base64 or encodes nothing.
pub(super) fn decode_key<'a>(text: &[u8], arena: &'a Bump) -> Option<Key<'a>> {
    let room = arena.alloc_slice_fill_copy(text.len(), 0u8);
    let len = BASE64.decode_slice(text, room).ok()?;
    Key::new(&room[..len])
}

/// Appends a key in base64.
pub(super) fn encode_key(out: &mut Vec<u8>, key: &[u8]) {
    let start = out.len();
    // A final group of one to three bytes takes four characters.
    out.resize(start + key.len().div_ceil(3) * 4, 0);
    let written = BASE64.encode_slice(key, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_what_lies_between_blanks() {
        let found: Vec<&[u8]> = Tokens::new(b"  a bc\td  e ").collect();
        assert_eq!(found, [&b"a"[..], b"bc\td", b"e"]);
        assert_eq!(Tokens::new(b"   ").next(), None);
        assert_eq!(args(&b"x ".repeat(40)).len(), TOKENS_MAX - 1);
    }

    #[test]
    fn line_ends_are_taken_off_once() {
        assert_eq!(without_end(b"a\r\n"), b"a");
        assert_eq!(without_end(b"a\n"), b"a");
        assert_eq!(without_end(b"a\r\r\n"), b"a\r");
        assert_eq!(without_end(b"\n"), b"");
    }

    #[test]
    fn numbers_hold_to_their_range() {
        assert_eq!(u32(b"4294967295"), Some(u32::MAX));
        assert_eq!(u32(b"4294967296"), None);
        assert_eq!(u32(b"00000000001"), Some(1));
        assert_eq!(u32(b"000000000001"), None);
        assert_eq!(u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(u64(b"18446744073709551616"), None);
        assert_eq!(u64(b"0000000000000000000001"), Some(1));
        assert_eq!(u64(b"00000000000000000000001"), None);
        assert_eq!(i32(b"-2147483648"), Some(i32::MIN));
        assert_eq!(i32(b"-2147483649"), None);
        assert_eq!(i32(b"2147483648"), None);
        assert_eq!(i32(b"-"), Some(0));
        for bad in [&b"+1"[..], b"1x", b"x", b"--1", b"1 "] {
            assert_eq!((u32(bad), u64(bad), i32(bad)), (None, None, None));
        }
    }

    #[test]
    fn reals_are_finite() {
        for (token, number) in [("0.1", 0.1), (".5", 0.5), ("2.", 2.0), ("-1e3", -1000.0)] {
            assert_eq!(real(token.as_bytes()), Some(number));
        }
        assert_eq!(real(&[b'1'; 31]), Some(1.111_111_111_111_111e30));
        for bad in ["", "x", "0.1x", "1 ", "nan", "inf", "-infinity", "1e400"] {
            assert_eq!(real(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(real(&[b'1'; 32]), None);
        assert_eq!(real(b"\xff"), None);
    }

    #[test]
    fn lengths_leave_room_for_the_line_end() {
        assert_eq!(value_len(b"2147483645"), Some(2_147_483_645));
        assert_eq!(value_len(b"2147483646"), None);
        assert_eq!(value_len(b"-1"), None);
        assert_eq!(value_len(b"4294967295"), None);
    }

    #[test]
    fn classic_lines_may_carry_signs() {
        assert_eq!(classic_flags(b"+7"), Some(7));
        assert_eq!(classic_flags(b"-0"), Some(0));
        assert_eq!(classic_flags(b"-1"), None);
        assert_eq!(classic_flags(b"4294967295"), Some(u32::MAX));
        assert_eq!(classic_flags(b"4294967296"), None);
        assert_eq!(classic_flags(b""), None);
        assert_eq!(classic_exptime(b"-5"), Some(Exptime(-5)));
        assert_eq!(classic_exptime(b"4294967297"), Some(Exptime(1)));
        assert_eq!(classic_exptime(b"99999999999999999999"), None);
        assert_eq!(classic_exptime(b"+"), None);
    }

    #[test]
    fn keys_are_measured_one_by_one() {
        let long = [b'k'; Key::MAX + 1];
        assert!(keys_fit(&[&long[1..], b" ", &long[1..]].concat()));
        assert!(!keys_fit(&[&long[1..], b" ", &long, b" a"].concat()));
        assert!(!keys_fit(&[b"a ", &long[..]].concat()));
    }

    #[test]
    fn base64_goes_both_ways() {
        let arena = Bump::new();
        for plain in [&b"f"[..], b"fo", b"foo", b"foob", &[0, 255, 10, 13, 32]] {
            let mut text = b"k".to_vec();
            encode_key(&mut text, plain);
            let key = decode_key(&text[1..], &arena).expect("own output decodes");
            assert_eq!(key.bytes(), plain);
        }
        for bad in [&b"a"[..], b"!!!!", b"Zm9", b"====", b""] {
            assert_eq!(decode_key(bad, &arena), None);
        }
        assert_eq!(decode_key(b"Zh==", &arena).map(|k| k.bytes()), Some(&b"f"[..]));
    }
}
