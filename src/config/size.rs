//! Numbers and sizes as people write them on a command line.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;

/// A size in bytes: digits and one of k, m, g, t (powers of 1024, in either case, with or without
/// a trailing `b` or `ib`). A bare number counts in `bare` bytes, so that `-m 64` stays megabytes.
pub(super) fn size(text: &str, bare: u64) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = match unit.to_ascii_lowercase().as_str() {
        "" => bare,
        "b" => 1,
        "k" | "kb" | "kib" => KIB,
        "m" | "mb" | "mib" => MIB,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(not_a_size(text)),
    };
    let number = number.parse::<u64>().map_err(|_| not_a_size(text))?;
    number.checked_mul(scale).ok_or_else(|| format!("'{text}' is too large"))
}

fn not_a_size(text: &str) -> String {
    format!("'{text}' is not a size (a number, perhaps followed by k, m, g or t)")
}

/// A whole number within `range`. Unlike memcached's `atoi`, which reads `12x` as 12, anything but
/// digits is refused.
pub(super) fn number<T>(text: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    text.trim().parse().ok().filter(|n| range.contains(n)).ok_or_else(|| {
        let (low, high) = (range.start(), range.end());
        format!("must be a number from {low} to {high}, not '{}'", text.trim())
    })
}

/// A finite number greater than `above`.
pub(super) fn real(text: &str, above: f64) -> Result<f64, String> {
    let number = text.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n > above);
    number.ok_or_else(|| format!("must be a number greater than {above}, not '{}'", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_units() {
        assert_eq!(size("64", MIB), Ok(64 << 20));
        assert_eq!(size("4g", MIB), Ok(4 << 30));
        assert_eq!(size(" 4G", MIB), Ok(4 << 30));
        assert_eq!(size("512k", 1), Ok(512 << 10));
        assert_eq!(size("512KiB", 1), Ok(512 << 10));
        assert_eq!(size("2097152", 1), Ok(2 << 20));
        assert_eq!(size("3MB", 1), Ok(3 << 20));
        assert_eq!(size("100b", MIB), Ok(100));
        assert_eq!(size("1t", MIB), Ok(1 << 40));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for bad in ["", "m", "-1", "64x", "1.5g", "4 g", "0x10", "18446744073709551616"] {
            assert!(size(bad, MIB).is_err_and(|e| e.contains("is not a size")), "{bad}");
        }
        assert!(size("18446744073709551615", MIB).is_err_and(|e| e.contains("too large")));
        assert!(size("99999999t", MIB).is_err_and(|e| e.contains("too large")));
    }

    #[test]
    fn numbers_stay_in_range() {
        assert_eq!(number("12", 12..=32), Ok(12u32));
        assert_eq!(number(" 32 ", 12..=32), Ok(32u32));
        assert_eq!(number("-1", -1..=65535), Ok(-1i32));
        for bad in ["", "11", "33", "twelve", "12x", "1e1"] {
            assert!(number::<u32>(bad, 12..=32).is_err(), "{bad}");
        }
    }

    #[test]
    fn reals_are_finite_and_above() {
        assert_eq!(real("1.25", 1.0), Ok(1.25));
        for bad in ["1", "1.0", "0.5", "-3", "nan", "inf", "x", ""] {
            assert!(real(bad, 1.0).is_err(), "{bad}");
        }
    }
}
