//! Binary requests in, commands and exact packets out.

use super::*;
use crate::command::{Admin, StatLines, StatsTopic};
use crate::protocol::login::Ask;

/// A request's bytes without its value, whose length only the header tells.
fn request(opcode: u8, extras: &[u8], name: &[u8], value_len: u32, cas: u64) -> Vec<u8> {
    let body_len = extras.len() as u32 + name.len() as u32 + value_len;
    let mut bytes = vec![0x80, opcode];
    bytes.extend_from_slice(&(name.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&[extras.len() as u8, 0, 0, 0]);
    bytes.extend_from_slice(&body_len.to_be_bytes());
    bytes.extend_from_slice(b"opaq");
    bytes.extend_from_slice(&cas.to_be_bytes());
    bytes.extend_from_slice(extras);
    bytes.extend_from_slice(name);
    bytes
}

/// A header with nothing behind it.
fn bare(opcode: u8) -> Vec<u8> {
    request(opcode, b"", b"", 0, 0)
}

/// An answer's bytes.
fn answer_to(opcode: u8, status: u8, cas: u64, parts: [&[u8]; 3]) -> Vec<u8> {
    let [extras, name, value] = parts;
    let mut bytes = request(opcode, extras, name, value.len() as u32, cas);
    bytes[0] = 0x81;
    bytes[7] = status;
    bytes.extend_from_slice(value);
    bytes
}

fn error_to(opcode: u8, status: u8, text: &str) -> Vec<u8> {
    answer_to(opcode, status, 0, [b"", b"", text.as_bytes()])
}

fn asked(bytes: &[u8]) -> String {
    let arena = Bump::new();
    match Decoder::default().decode(bytes, &arena) {
        Decoded::Command { used, command, .. } => {
            assert_eq!(used, bytes.len());
            format!("{command:?}")
        }
        other => panic!("{} is no command: {other:?}", bytes.escape_ascii()),
    }
}

/// What the request is told when `reply` answers it.
fn told(bytes: &[u8], reply: Reply<'_>) -> Vec<u8> {
    let arena = Bump::new();
    let (Decoded::Command { echo, .. } | Decoded::Refused { echo, .. }) =
        Decoder::default().decode(bytes, &arena)
    else {
        panic!("{} has no answer", bytes.escape_ascii());
    };
    let mut out = Outbox::default();
    Encoder::new(&mut out, &echo).reply(reply);
    std::mem::take(out.bytes())
}

fn wide(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

#[test]
fn reads_are_fetches_with_a_unique() {
    let fetch = || Fetch { cas: true, ..plain_fetch(plain_get("a")) };
    let plain = format!("{:?}", Command::Fetch(kept(fetch())));
    for opcode in [0x00, 0x09, 0x0c, 0x0d] {
        assert_eq!(asked(&request(opcode, b"", b"a", 0, 0)), plain, "{opcode:#x}");
    }
    let touching = Fetch { touch: Some(Exptime(0xffff_fffe)), ..fetch() };
    let touching = format!("{:?}", Command::Fetch(kept(touching)));
    for opcode in [0x1c, 0x1d, 0x1e, 0x23, 0x24] {
        let bytes = request(opcode, &wide(&[0xffff_fffe]), b"a", 0, 0);
        assert_eq!(asked(&bytes), touching, "{opcode:#x}");
    }
}

#[test]
fn a_unique_makes_a_comparison_of_any_store() {
    let set = |mode, cas| Set {
        mode,
        client_flags: 7,
        exptime: Exptime(9),
        len: 5,
        compare_cas: cas,
        return_cas: true,
        ..plain_set("a", SetMode::Cas)
    };
    let dropping = |set| Set { drop_old_on_refusal: true, ..set };
    for (opcode, cas, set) in [
        (0x01, 0, dropping(set(SetMode::Set, None))),
        (0x11, 0, dropping(set(SetMode::Set, None))),
        (0x01, 4, dropping(set(SetMode::Cas, Some(4)))),
        (0x02, 0, set(SetMode::Add, None)),
        (0x12, 4, set(SetMode::Cas, Some(4))),
        (0x03, 0, set(SetMode::Replace, None)),
        (0x13, 4, set(SetMode::Cas, Some(4))),
    ] {
        let bytes = request(opcode, &wide(&[7, 9]), b"a", 5, cas);
        assert_eq!(asked(&bytes), format!("{:?}", Command::Set(kept(set))), "{opcode:#x}");
    }
    for (opcode, mode) in [
        (0x0e, SetMode::Append),
        (0x19, SetMode::Append),
        (0x0f, SetMode::Prepend),
        (0x1a, SetMode::Prepend),
    ] {
        let set = Set { compare_cas: Some(4), return_cas: true, ..plain_set("a", mode) };
        let bytes = request(opcode, b"", b"a", 1, 4);
        assert_eq!(asked(&bytes), format!("{:?}", Command::Set(kept(set))), "{opcode:#x}");
    }
}

#[test]
fn changes() {
    let delete = Delete { compare_cas: Some(3), ..plain_delete("a") };
    let delete = format!("{:?}", Command::Delete(kept(delete)));
    assert_eq!(asked(&request(0x04, b"", b"a", 0, 3)), delete);
    assert_eq!(asked(&request(0x14, b"", b"a", 0, 3)), delete);
    let arith = |increment, vivify| {
        let arith = Arith { increment, vivify, ..Arith::of(key("a"), 1 << 32 | 2) };
        format!("{:?}", Command::Arith(kept(Arith { initial: 6, return_cas: true, ..arith })))
    };
    for (opcode, seconds, command) in [
        (0x05, 30, arith(true, Some(Exptime(30)))),
        (0x15, u32::MAX, arith(true, None)),
        (0x06, 0, arith(false, Some(Exptime(0)))),
        (0x16, u32::MAX, arith(false, None)),
    ] {
        let bytes = request(opcode, &wide(&[1, 2, 0, 6, seconds]), b"a", 0, 0);
        assert_eq!(asked(&bytes), command, "{opcode:#x}");
    }
}

#[test]
fn operators_commands() {
    let flush = |at| Command::Admin(Admin::FlushAll(at));
    let stats = |topic| Command::Admin(Admin::Stats(topic));
    for (bytes, command) in [
        (bare(0x07), Command::Quit),
        (bare(0x17), Command::Quit),
        (bare(0x08), flush(None)),
        (request(0x18, &wide(&[0x8000_0000]), b"", 0, 0), flush(Some(Exptime(1 << 31)))),
        (bare(0x0a), Command::Say(Say::Noop)),
        (bare(0x0b), Command::Admin(Admin::Version)),
        (bare(0x10), stats(StatsTopic::General)),
        (request(0x10, b"", b"reset", 0, 0), stats(StatsTopic::Reset)),
        (request(0x10, b"", b"settings", 0, 0), stats(StatsTopic::Settings)),
        (request(0x10, b"", b"detail on", 0, 0), stats(StatsTopic::Detail(Some(true)))),
        (request(0x10, b"", b"detail off", 0, 0), stats(StatsTopic::Detail(Some(false)))),
        (request(0x10, b"", b"detail dump", 0, 0), stats(StatsTopic::DetailDump)),
        (request(0x10, b"", b"detail", 0, 0), stats(StatsTopic::Detail(None))),
        (request(0x10, b"", b"items", 0, 0), stats(StatsTopic::Items)),
        (request(0x10, b"", b"slabs", 0, 0), stats(StatsTopic::Slabs)),
        (request(0x10, b"", b"sizes", 0, 0), stats(StatsTopic::Sizes)),
        (request(0x10, b"", b"conns", 0, 0), stats(StatsTopic::Conns)),
        (request(0x10, b"", b"item", 0, 0), stats(StatsTopic::Unknown(b"item"))),
    ] {
        assert_eq!(asked(&bytes), format!("{command:?}"), "{}", bytes.escape_ascii());
    }
}

#[test]
fn lengths_that_disagree_are_told_and_end_the_connection() {
    let invalid = error_to(0, 0x04, "Invalid arguments");
    let (four, arena) = (wide(&[1]), Bump::new());
    for bytes in [
        bare(0x00),
        request(0x00, &four, b"a", 0, 0),
        request(0x00, b"", b"a", 1, 0),
        request(0x00, b"", &[b'k'; 251], 0, 0),
        request(0x01, &four, b"a", 1, 0),
        request(0x01, &wide(&[1, 2]), b"", 1, 0),
        request(0x01, &wide(&[1, 2]), b"a", 1 << 30, 0),
        request(0x04, b"", b"a", 1, 0),
        request(0x05, &wide(&[1, 2, 3, 4]), b"a", 0, 0),
        request(0x07, b"", b"a", 0, 0),
        request(0x08, b"ab", b"", 0, 0),
        request(0x0a, b"", b"", 1, 0),
        request(0x0b, b"", b"a", 0, 0),
        request(0x0e, &four, b"a", 1, 0),
        request(0x10, b"", b"items", 1, 0),
        request(0x1c, b"", b"a", 0, 0),
        request(0x1d, &four, b"a", 1, 0),
        request(0x20, b"", b"a", 0, 0),
        request(0x21, b"", b"", 5, 0),
    ] {
        let Decoded::Command { used, command: Command::HangUp(why), echo } =
            Decoder::default().decode(&bytes, &arena)
        else {
            panic!("{} is let through", bytes.escape_ascii());
        };
        assert_eq!(used, bytes.len());
        let mut out = Outbox::default();
        Encoder::new(&mut out, &echo).reply(Reply::Say(Say::Error(why)));
        let wanted = [&invalid[..1], &bytes[1..2], &invalid[2..]].concat();
        assert_eq!(*out.bytes(), wanted, "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_body_shorter_than_its_parts_is_no_command() {
    let mut bytes = request(0x00, b"", b"abc", 0, 0);
    bytes[11] = 2;
    assert_eq!(asked(&bytes), format!("{:?}", Command::HangUp(Error::Unknown)));
}

#[test]
fn unknown_opcodes_lose_their_body_and_no_more() {
    for (bytes, swallowed) in
        [(bare(0xff), 0), (request(0x1b, &wide(&[2]), b"key", 70_000, 0), 70_000)]
    {
        let Decoded::Refused { used, swallow, error, .. } =
            Decoder::default().decode(&bytes, &Bump::new())
        else {
            panic!("{} is known", bytes.escape_ascii());
        };
        assert_eq!((used, swallow), (bytes.len(), swallowed));
        let told = told(&bytes, Reply::Say(Say::Error(error)));
        assert_eq!(told, error_to(bytes[1], 0x81, "Unknown command"));
    }
}

#[test]
fn requests_in_pieces() {
    let bytes = request(0x01, &wide(&[1, 2]), b"some key", 3, 0);
    let (mut decoder, arena) = (Decoder::default(), Bump::new());
    for cut in 0..bytes.len() {
        let decoded = decoder.decode(&bytes[..cut], &arena);
        assert!(matches!(decoded, Decoded::Incomplete), "{cut}: {decoded:?}");
    }
    let whole = [&bytes[..], b"abc", &bare(0x0a)].concat();
    let Decoded::Command { used, command: Command::Set(set), echo } =
        decoder.decode(&whole, &arena)
    else {
        panic!("no set");
    };
    assert_eq!((used, set.len, echo.value_end_len()), (bytes.len(), 3, 0));
}

#[test]
fn the_first_byte_decides_for_good() {
    let arena = Bump::new();
    let decode = |protocol, pieces: &[&[u8]]| {
        let mut decoder = Decoder::new(protocol);
        let decoded = pieces.iter().map(|piece| format!("{:?}", decoder.decode(piece, &arena)));
        decoded.map(|d| d.split([' ', '{']).next().unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    let version = bare(0x0b);
    let said = "Command";
    assert_eq!(decode(Protocol::Auto, &[&version, b"", b"m"]), [said, "Incomplete", "HangUp"]);
    assert_eq!(
        decode(Protocol::Auto, &[b"", b"\x80", b"mn\r\n"]),
        ["Incomplete", "Incomplete", "HangUp"]
    );
    assert_eq!(decode(Protocol::Auto, &[b"mn\r\n", &version]), [said, "Incomplete"]);
    assert_eq!(decode(Protocol::Ascii, &[&version]), ["Incomplete"]);
    assert_eq!(decode(Protocol::Binary, &[b"mn\r\n"]), ["HangUp"]);
    assert_eq!(decode(Protocol::Binary, &[&[b'x'; 24]]), ["HangUp"]);
    assert_eq!(decode(Protocol::Binary, &[&version]), [said]);
}

#[test]
fn answers() {
    let a = key("a");
    let get = |opcode| request(opcode, b"", b"a", 0, 0);
    let set = |opcode| request(opcode, &wide(&[0, 0]), b"a", 1, 0);
    let join = |opcode| request(opcode, b"", b"a", 1, 0);
    let arith = |opcode| request(opcode, &wide(&[0, 1, 0, 0, 0]), b"a", 0, 0);
    let stored = || Reply::Stored { key: a, cas: Some(77), len: 1 };
    let number =
        || Reply::Number { key: a, value: 1 << 40, cas: Some(8), ttl: None, ttl_before: None };
    let said = |error| Reply::Say(Say::Error(error));
    let ok = |opcode, cas, value: &[u8]| answer_to(opcode, 0, cas, [b"", b"", value]);
    let table = [
        (get(0x00), Reply::Miss(a), error_to(0x00, 1, "Not found")),
        (get(0x0c), Reply::Miss(a), answer_to(0x0c, 1, 0, [b"", b"a", b""])),
        (get(0x09), Reply::Miss(a), vec![]),
        (get(0x09), Reply::NoRoom(a), error_to(0x09, 0x82, "Out of memory allocating item")),
        (get(0x0d), Reply::Miss(a), vec![]),
        (set(0x01), stored(), ok(0x01, 77, b"")),
        (set(0x11), stored(), vec![]),
        (set(0x11), said(Error::TooLarge), error_to(0x11, 3, "Too large.")),
        (
            set(0x01),
            said(Error::NoMemory("x")),
            error_to(0x01, 0x82, "Out of memory allocating item"),
        ),
        (set(0x02), Reply::NotStored(a), error_to(0x02, 2, "Data exists for key.")),
        (set(0x13), Reply::NotStored(a), error_to(0x13, 1, "Not found")),
        (join(0x19), Reply::NotStored(a), error_to(0x19, 5, "Not stored.")),
        (set(0x01), Reply::Exists(a), error_to(0x01, 2, "Data exists for key.")),
        (get(0x14), Reply::NotFound(a), error_to(0x14, 1, "Not found")),
        (get(0x04), Reply::Deleted(a), ok(0x04, 0, b"")),
        (get(0x14), Reply::Deleted(a), vec![]),
        (arith(0x05), number(), ok(0x05, 8, &(1u64 << 40).to_be_bytes())),
        (arith(0x16), number(), vec![]),
        (
            arith(0x06),
            said(Error::NonNumeric),
            error_to(0x06, 6, "Non-numeric server-side value for incr or decr"),
        ),
        (bare(0x08), Reply::Ok, ok(0x08, 0, b"")),
        (bare(0x18), Reply::Ok, vec![]),
        (bare(0x18), said(Error::NotAllowed("x")), error_to(0x18, 0x20, "Auth failure.")),
        (bare(0x0a), Reply::Say(Say::Noop), ok(0x0a, 0, b"")),
        (bare(0x07), Reply::Closing, ok(0x07, 0, b"")),
        (bare(0x17), Reply::Closing, vec![]),
        (bare(0x0b), Reply::Version("1.6.45"), ok(0x0b, 0, b"1.6.45")),
    ];
    for (bytes, reply, wanted) in table {
        let words = format!("{reply:?}");
        assert_eq!(told(&bytes, reply), wanted, "{} {words}", bytes.escape_ascii());
    }
}

#[test]
fn figures_come_one_by_one_and_end_with_an_empty_packet() {
    let bytes = request(0x10, b"", b"items", 0, 0);
    let end = answer_to(0x10, 0, 0, [b"", b"", b""]);
    let pairs = StatLines::Pairs(vec![("pid".into(), "5".into()), ("x".into(), "".into())]);
    let pid = answer_to(0x10, 0, 0, [b"", b"pid", b"5"]);
    let empty = answer_to(0x10, 0, 0, [b"", b"x", b""]);
    assert_eq!(told(&bytes, Reply::Stats(&pairs)), [pid, empty, end.clone()].concat());
    let lines = StatLines::Lines(vec![b"PREFIX a get 1".to_vec()]);
    let dump = answer_to(0x10, 0, 0, [b"", b"detailed", b"PREFIX a get 1\r\nEND\r\n"]);
    assert_eq!(told(&bytes, Reply::Stats(&lines)), [dump, end.clone()].concat());
    for done in [StatLines::Ok, StatLines::Reset] {
        assert_eq!(told(&bytes, Reply::Stats(&done)), end);
    }
    let refused = StatLines::Error(Error::Unknown);
    assert_eq!(told(&bytes, Reply::Stats(&refused)), error_to(0x10, 1, "Not found"));
}

#[test]
fn logs_show_headers_and_lines() {
    let bytes = request(0x00, b"", b"a", 0, 0);
    let shown = Decoder::default().describe(&bytes).expect("a header");
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 7);
    assert_eq!(lines[..2], ["Read binary protocol data:", "    0x80 0x00 0x00 0x01"]);
    assert_eq!(Decoder::default().describe(&bytes[..23]), None);
    assert_eq!(Decoder::default().describe(b"get a\r\nx").as_deref(), Some("get a"));
    assert_eq!(Decoder::default().describe(b"get a"), None);
}

#[test]
fn sasl_requests_are_of_their_own_kind() {
    for (bytes, wanted, message) in [
        (bare(0x20), Ask::Mechanisms, 0),
        (request(0x21, b"", b"PLAIN", 9, 0), Ask::Start(b"PLAIN"), 9),
        (request(0x22, b"", b"PLAIN", 0, 0), Ask::Step, 0),
    ] {
        let arena = Bump::new();
        let decoded = Decoder::new(Protocol::Binary).decode(&bytes, &arena);
        let Decoded::Login { used, ask, len, echo } = decoded else { panic!("{decoded:?}") };
        assert_eq!((used, ask, len), (bytes.len(), wanted, message));
        assert!(echo.precedes_login());
    }
}
