//! The lines of `lru_crawler metadump` and `mgdump`. Unlike other answers they are made where the
//! connection asks for them, item by item.

use super::{lex, number};
use crate::command::DumpForm;
use crate::store::Listed;

/// What a dump opens with.
pub const OPENING: &[u8] = b"OK\r\n";

/// What a dump ends with.
pub fn ending(form: DumpForm) -> &'static [u8] {
    match form {
        DumpForm::Metadump => b"END\r\n",
        DumpForm::Mgdump => b"EN\r\n",
    }
}

/// One item's line.
pub fn line(out: &mut Vec<u8>, form: DumpForm, item: &Listed<'_>) {
    match form {
        DumpForm::Metadump => metadump_line(out, item),
        DumpForm::Mgdump => mgdump_line(out, item),
    }
}

/// memcached ends it with a blank and a bare newline.
fn metadump_line(out: &mut Vec<u8>, item: &Listed<'_>) {
    out.extend_from_slice(b"key=");
    escape(out, item.key);
    out.extend_from_slice(b" exp=");
    match item.expires {
        Some(second) => number(out, second),
        None => out.extend_from_slice(b"-1"),
    }
    field(out, b" la=", item.last_access);
    field(out, b" cas=", item.cas);
    out.extend_from_slice(if item.fetched { b" fetch=yes" } else { b" fetch=no" });
    field(out, b" cls=", item.class);
    field(out, b" size=", item.size);
    field(out, b" flags=", item.client_flags);
    out.extend_from_slice(b" \n");
}

fn mgdump_line(out: &mut Vec<u8>, item: &Listed<'_>) {
    out.extend_from_slice(b"mg ");
    if item.binary_key {
        lex::encode_key(out, item.key);
        out.extend_from_slice(b" b\r\n");
    } else {
        out.extend_from_slice(item.key);
        out.extend_from_slice(b"\r\n");
    }
}

fn field(out: &mut Vec<u8>, name: &[u8], n: impl itoa::Integer) {
    out.extend_from_slice(name);
    number(out, n);
}

/// A key as in a URI: what is neither letter, digit nor one of `-._~` as `%XX`.
fn escape(out: &mut Vec<u8>, key: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in key {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(&[b'%', HEX[high], HEX[low]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &[u8]) -> Listed<'_> {
        Listed {
            key,
            expires: None,
            last_access: 1_795_374_042,
            cas: 2,
            fetched: true,
            class: 1,
            size: 61,
            client_flags: 0,
            binary_key: false,
        }
    }

    fn text(form: DumpForm, item: &Listed<'_>) -> String {
        let mut out = Vec::new();
        line(&mut out, form, item);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn metadump_lines_are_memcacheds() {
        assert_eq!(
            text(DumpForm::Metadump, &item(b"a")),
            "key=a exp=-1 la=1795374042 cas=2 fetch=yes cls=1 size=61 flags=0 \n"
        );
        let other = Listed {
            expires: Some(1_795_374_142),
            fetched: false,
            client_flags: u32::MAX,
            ..item(b"foo bar%~-._/\xff\0")
        };
        assert_eq!(
            text(DumpForm::Metadump, &other),
            "key=foo%20bar%25~-._%2F%FF%00 exp=1795374142 la=1795374042 cas=2 fetch=no cls=1 \
             size=61 flags=4294967295 \n"
        );
    }

    #[test]
    fn mgdump_lines_can_be_sent_back() {
        assert_eq!(text(DumpForm::Mgdump, &item(b"c%")), "mg c%\r\n");
        let binary = Listed { binary_key: true, ..item(b"foo bar") };
        assert_eq!(text(DumpForm::Mgdump, &binary), "mg Zm9vIGJhcg== b\r\n");
    }
}
