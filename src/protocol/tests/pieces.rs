//! Lines handed out key by key, lines in pieces, lines without an end, and any bytes at all.

use super::*;
use crate::command::Admin;
use proptest::prelude::*;

/// The keys of a get line, one decode each; the line must be used up with its last key.
fn keys_of(buf: &[u8]) -> Vec<(String, usize)> {
    let (arena, mut decoder, mut at) = (Bump::new(), Decoder::default(), 0);
    let mut keys = Vec::new();
    loop {
        let Decoded::Command { used, command, echo } = decoder.decode(&buf[at..], &arena) else {
            panic!("no key at {at}");
        };
        let (Command::Get(get) | Command::Fetch(Fetch { get, .. })) = &command else {
            panic!("no get at {at}");
        };
        keys.push((String::from_utf8(get.key.bytes().to_vec()).expect("ascii"), used));
        at += used;
        if words(echo, Reply::Miss(get.key)) == "END\r\n" {
            assert!(!decoder.in_multiget());
            break;
        }
        assert!(decoder.in_multiget());
    }
    assert!(matches!(
        decoder.decode(&buf[at..], &arena),
        Decoded::Command { command: Command::Admin(Admin::Version), .. }
    ));
    keys
}

#[test]
fn a_get_line_is_handed_out_key_by_key() {
    for (line, keys) in [
        ("get a bb ccc\r\n", &["a", "bb", "ccc"][..]),
        ("gets   a   bb  \r\n", &["a", "bb"]),
        ("get a bb \n", &["a", "bb"]),
        ("get a noreply\r\n", &["a", "noreply"]),
        ("gat 10 a bb ccc\n", &["a", "bb", "ccc"]),
        ("get a\r\n", &["a"]),
    ] {
        let buf = [line.as_bytes(), VERSION_LINE].concat();
        let found = keys_of(&buf);
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, keys, "{line:?}");
        assert_eq!(found.iter().map(|(_, used)| used).sum::<usize>(), line.len());
    }
}

#[test]
fn a_get_line_may_be_huge() {
    let keys: Vec<String> = (0..18_725).map(|n| format!("key_{n:05}")).collect();
    let line = format!("get {}\r\n", keys.join(" "));
    let arena = Bump::new();
    let mut decoder = Decoder::default();
    // It arrives in pieces, and what was searched is not searched again.
    for cut in (0..line.len() - 1).step_by(4096) {
        assert!(matches!(decoder.decode(&line.as_bytes()[..cut], &arena), Decoded::Incomplete));
        assert_eq!(decoder.scanned, cut);
    }
    let found = keys_of(&[line.as_bytes(), VERSION_LINE].concat());
    assert!(found.iter().map(|(name, _)| name).eq(&keys));
    let over = vec![b'k'; GET_LINE_MAX];
    let over = [b"get ", &over[..]].concat();
    assert!(matches!(Decoder::default().decode(&over, &arena), Decoded::HangUp));
}

#[test]
fn lines_without_an_end_are_bounded() {
    let padded = |start: &str, len: usize| format!("{start}{}", " ".repeat(len - start.len()));
    let blanks = |n: usize| format!("{}get {}", " ".repeat(n), "k".repeat(LINE_MAX));
    let table = [
        (padded("incr ", LINE_MAX), true),
        (padded("incr ", LINE_MAX + 1), false),
        (padded("get ", LINE_MAX + 1), true),
        (padded("gets ", 4096), true),
        (padded("gats ", 4096), true),
        (padded("getx ", LINE_MAX + 1), false),
        (padded("", 4095), false),
        (blanks(LEADING_BLANKS_MAX), true),
        (blanks(LEADING_BLANKS_MAX + 1), false),
    ];
    for (line, waits) in table {
        let arena = Bump::new();
        match Decoder::default().decode(line.as_bytes(), &arena) {
            Decoded::Incomplete => assert!(waits, "{line:?}"),
            Decoded::HangUp => assert!(!waits, "{line:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn browsers_are_hung_up_on() {
    for line in ["GET / HTTP/1.1\r\n", "DELETE HTTP/1.1\n", "foo HTTP/\r\n"] {
        let arena = Bump::new();
        let decoded = Decoder::default().decode(line.as_bytes(), &arena);
        assert!(matches!(decoded, Decoded::HangUp), "{line:?}");
    }
    assert_eq!(command(b"get HTTP/1.1\r\n"), format!("{:?}", Command::Get(plain_get("HTTP/1.1"))));
}

#[test]
fn lines_may_arrive_in_any_pieces() {
    let lines = [
        "get a\r\n",
        "get a b\r\n",
        "set a 0 0 1\r\n",
        "mg a v\r\n",
        "ms a 1 T3\r\n",
        "\r\n",
        "flush_all\n",
        "cas a 0 0 6 \r\n",
        "foo\r\n",
        "stats detail on\r\n",
        "ma Zm9v b\r\n",
    ];
    for line in lines {
        let whole = format!("{:?}", Decoder::default().decode(line.as_bytes(), &Bump::new()));
        for first in 0..line.len() {
            let (arena, mut decoder) = (Bump::new(), Decoder::default());
            for cut in [first, line.len() - 1] {
                let part = &line.as_bytes()[..cut.max(first)];
                assert!(matches!(decoder.decode(part, &arena), Decoded::Incomplete), "{part:?}");
            }
            assert_eq!(format!("{:?}", decoder.decode(line.as_bytes(), &arena)), whole);
        }
    }
}

#[test]
fn a_line_that_is_left_is_forgotten_but_not_the_protocol() {
    let (arena, mut decoder) = (Bump::new(), Decoder::default());
    assert!(matches!(decoder.decode(b"get a b c\r\n", &arena), Decoded::Command { .. }));
    assert!(decoder.in_multiget());
    decoder.leave_line();
    assert!(matches!(decoder.decode(b"vers", &arena), Decoded::Incomplete));
    decoder.leave_line();
    let decoded = decoder.decode(VERSION_LINE, &arena);
    assert!(matches!(decoded, Decoded::Command { used: 9, command: Command::Admin(_), .. }));
    decoder.decode(b"get a b c\r\n", &arena);
    decoder.leave_line();
    let binary = [&[0x80, 0x0b][..], &[0; 22]].concat();
    assert!(matches!(decoder.decode(&binary, &arena), Decoded::Incomplete), "a line of text");
}

/// Bytes that resemble requests more often than chance.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"get ".to_vec()),
        Just(b"gats ".to_vec()),
        Just(b"set ".to_vec()),
        Just(b"cas k 0 0 1".to_vec()),
        Just(b"mg ".to_vec()),
        Just(b"ms k 1 ".to_vec()),
        Just(b"ma Zm9v b ".to_vec()),
        Just(b"me ".to_vec()),
        Just(b"stats cachedump ".to_vec()),
        Just(b"slabs automove ".to_vec()),
        Just(b"lru_crawler mgdump ".to_vec()),
        Just(b"lru tune 1 2 ".to_vec()),
        Just(b"flush_all ".to_vec()),
        Just(b"noreply".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b" ".to_vec()),
        "[a-zA-Z]-?[0-9]{0,21}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..300),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

/// Headers of which most fields hold together, and at times any bytes at all.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let lengths = (0u8..40, prop_oneof![Just(0), Just(4), Just(8), Just(20), 0u8..30], 0u8..9);
    let packet = lengths.prop_flat_map(|(opcode, extras, key)| {
        let body = proptest::collection::vec(any::<u8>(), usize::from(extras + key));
        let fields = (prop_oneof![9 => Just(0), 1 => any::<u32>()], any::<[u8; 12]>(), body);
        fields.prop_map(move |(more, rest, body)| {
            let len = u32::from(extras + key).wrapping_add(more);
            let header = [0x80, opcode, 0, key, extras, 0, 0, 0];
            [&header[..], &len.to_be_bytes(), &rest, &body].concat()
        })
    });
    let piece = prop_oneof![9 => packet, 1 => proptest::collection::vec(any::<u8>(), 0..80)];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// A set line that is read the short way means what it would the long way.
    #[test]
    fn a_plain_set_line_is_like_any_other(args in " {0,2}k{0,2} {0,2}[0-9 x+-]{0,24}( noreply)?") {
        let arena = Bump::new();
        let short = text::set(args.as_bytes(), 99, &arena);
        let long = text::storage(SetMode::Set, args.as_bytes(), 99, &arena);
        prop_assert_eq!(format!("{short:?}"), format!("{long:?}"));
    }

    #[test]
    fn plain_numbers_are_read_the_short_way(numbers in any::<[u16; 3]>(), zeros in 0..4usize) {
        let text = numbers.map(|n| format!("{}{n}", "0".repeat(zeros))).join(" ");
        prop_assert_eq!(lex::plain_numbers(text.as_bytes()), Some(numbers.map(u32::from)));
    }

    #[test]
    fn any_bytes_are_used_up_or_ask_for_more(bytes in wire()) {
        let (arena, mut decoder, mut at) = (Bump::new(), Decoder::new(Protocol::Ascii), 0);
        loop {
            match decoder.decode(&bytes[at..], &arena) {
                Decoded::Command { used, command, .. } => {
                    prop_assert!(used > 0 && at + used <= bytes.len());
                    let used_up = bytes[at + used - 1] == b'\n';
                    prop_assert!(used_up || decoder.in_multiget(), "{command:?}");
                    at += used;
                }
                Decoded::Refused { used, swallow, .. } => {
                    prop_assert!(swallow >= 2 && bytes[at + used - 1] == b'\n');
                    at += used;
                }
                Decoded::Login { .. } => prop_assert!(false, "text has no such requests"),
                Decoded::Incomplete => {
                    prop_assert!(!bytes[at..].contains(&b'\n'));
                    break;
                }
                Decoded::HangUp => break,
            }
        }
    }

    #[test]
    fn any_packets_are_used_up_or_ask_for_more(bytes in packets()) {
        let (arena, mut decoder, mut at) = (Bump::new(), Decoder::new(Protocol::Binary), 0);
        loop {
            match decoder.decode(&bytes[at..], &arena) {
                Decoded::Command { used, .. }
                | Decoded::Refused { used, .. }
                | Decoded::Login { used, .. } => {
                    prop_assert!(used >= 24 && at + used <= bytes.len());
                    at += used;
                }
                // A header asks for no more than extras and key.
                Decoded::Incomplete => {
                    prop_assert!(bytes.len() - at < 24 + 255 + 65_535);
                    break;
                }
                Decoded::HangUp => {
                    prop_assert!(bytes[at] != 0x80);
                    break;
                }
            }
        }
    }

    #[test]
    fn packets_decode_in_pieces_as_the_whole(bytes in packets(), step in 1usize..40) {
        let whole = trace(&bytes, bytes.len().max(1));
        prop_assert_eq!(trace(&bytes, step), whole);
    }

    #[test]
    fn pieces_decode_as_the_whole(mut bytes in wire(), step in 1usize..40) {
        // Short enough that no line is given up before its end arrives.
        bytes.truncate(LINE_MAX);
        let whole = trace(&bytes, bytes.len().max(1));
        prop_assert_eq!(trace(&bytes, step), whole);
    }
}

/// All that `bytes` decode to when `step` more of them are shown at a time, each time from the
/// first one not used.
fn trace(bytes: &[u8], step: usize) -> Vec<String> {
    let (arena, mut decoder, mut at, mut seen) = (Bump::new(), Decoder::default(), 0, Vec::new());
    let mut shown = step.min(bytes.len());
    loop {
        match decoder.decode(&bytes[at..shown], &arena) {
            Decoded::Incomplete if shown == bytes.len() => return seen,
            Decoded::Incomplete => shown = (shown + step).min(bytes.len()),
            Decoded::HangUp => return seen,
            decoded => {
                at += match &decoded {
                    Decoded::Command { used, .. }
                    | Decoded::Refused { used, .. }
                    | Decoded::Login { used, .. } => *used,
                    Decoded::Incomplete | Decoded::HangUp => 0,
                };
                seen.push(format!("{decoded:?}"));
            }
        }
    }
}
