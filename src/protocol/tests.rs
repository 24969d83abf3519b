//! Whole lines in, commands and exact bytes out. The bytes are those of memcached 1.6.45, but for
//! the differences that the tests name.

use super::outbox::Outbox;
use super::*;
use crate::clock::Exptime;
use crate::command::{Admin, Arith, Delete, Fetch, Get, Say, Set, StatLines, StatsTopic, Touch};
use crate::store::Inspection;
use proptest::prelude::*;

const BAD: &str = "CLIENT_ERROR bad command line format\r\n";
const VERSION_LINE: &[u8] = b"version\r\n";

fn key(text: &str) -> Key<'_> {
    Key::new(text.as_bytes()).expect("a test's key fits")
}

fn words(echo: Echo<'_>, reply: Reply<'_>) -> String {
    let mut out = Outbox::default();
    Encoder::new(&mut out, echo).reply(reply);
    String::from_utf8(std::mem::take(out.bytes())).expect("a test's answer is text")
}

/// What a line is answered by itself, and how many bytes behind it are dropped.
fn answer(line: &[u8]) -> (String, u64) {
    let arena = Bump::new();
    match Decoder::default().decode(line, &arena) {
        Decoded::Command { used, command: Command::Say(say), echo } => {
            assert_eq!(used, line.len());
            (words(echo, Reply::Say(say)), 0)
        }
        Decoded::Refused { used, swallow, error, echo } => {
            assert_eq!(used, line.len());
            (words(echo, Reply::Say(Say::Error(error))), swallow)
        }
        other => panic!("{} is a command: {other:?}", line.escape_ascii()),
    }
}

/// A line's only command, and the answer that `reply` makes.
fn answered<'a>(line: &'a [u8], arena: &'a Bump, reply: Reply<'_>) -> (String, String) {
    match Decoder::default().decode(line, arena) {
        Decoded::Command { used, command, echo } => {
            assert_eq!(used, line.len(), "{}", line.escape_ascii());
            (format!("{command:?}"), words(echo, reply))
        }
        other => panic!("{} is no command: {other:?}", line.escape_ascii()),
    }
}

fn command(line: &[u8]) -> String {
    answered(line, &Bump::new(), Reply::Ok).0
}

fn says(line: &str, reply: Reply<'_>) -> String {
    answered(line.as_bytes(), &Bump::new(), reply).1
}

fn plain_get(name: &str) -> Get<'_> {
    Get { key: key(name), bump: true, unless_cas: None, meta: false }
}

fn plain_set(name: &str, mode: SetMode) -> Set<'_> {
    Set {
        key: key(name),
        mode,
        client_flags: 0,
        exptime: Exptime(0),
        len: 1,
        compare_cas: None,
        invalidate: false,
        vivify: None,
        new_cas: None,
        return_cas: false,
        binary_key: false,
        drop_old_on_refusal: mode == SetMode::Set,
    }
}

fn plain_arith(name: &str) -> Arith<'_> {
    Arith {
        key: key(name),
        increment: true,
        delta: 1,
        compare_cas: None,
        vivify: None,
        initial: 0,
        touch: None,
        new_cas: None,
        return_cas: false,
        binary_key: false,
    }
}

fn plain_delete(name: &str) -> Delete<'_> {
    Delete {
        key: key(name),
        compare_cas: None,
        invalidate: false,
        touch: None,
        drop_value: false,
        client_flags: 0,
        new_cas: None,
    }
}

fn plain_fetch(get: Get<'_>) -> Fetch<'_> {
    Fetch {
        get,
        cas: false,
        touch: None,
        vivify: None,
        recache: None,
        touch_first: false,
        new_cas: None,
        binary_key: false,
    }
}

#[test]
fn classic_lines_answered_by_themselves() {
    let exptime = "CLIENT_ERROR invalid exptime argument\r\n";
    let delta = "CLIENT_ERROR invalid numeric delta argument\r\n";
    let table: &[(&str, &str, u64)] = &[
        ("\r\n", BAD, 0),
        ("\n", BAD, 0),
        (" \n", BAD, 0),
        ("a\r\n", BAD, 0),
        ("mn\n", BAD, 0),
        ("ab\r\n", "ERROR\r\n", 0),
        ("get\r\n", BAD, 0),
        ("get  \r\n", BAD, 0),
        ("gets\r\n", BAD, 0),
        (" get a\r\n", "ERROR\r\n", 0),
        (" version\r\n", "ERROR\r\n", 0),
        ("quitx\r\n", "ERROR\r\n", 0),
        ("foo noreply\r\n", "", 0),
        ("HTTP/1.1\r\n", "ERROR\r\n", 0),
        ("GET / HTTP/1.1 x\r\n", "ERROR\r\n", 0),
        ("set a\r\n", BAD, 0),
        ("set a 0 0\r\n", BAD, 0),
        ("set a 0 0 x\r\n", BAD, 0),
        ("set a 0 0 +1\r\n", BAD, 0),
        ("set a 0 0 -1 noreply\r\n", BAD, 0),
        ("set a 0 0 2147483646\r\n", BAD, 0),
        ("set a 0 0 2147483647\r\n", BAD, 0),
        ("set a 0 0 4294967295\r\n", BAD, 0),
        ("set a x 0 1\r\n", BAD, 3),
        ("set a -1 0 1\r\n", BAD, 3),
        ("set a 4294967296 0 1\r\n", BAD, 3),
        ("set a 0 x 10\r\n", BAD, 12),
        ("set a 0 x 1 noreply\r\n", "", 3),
        ("set a 0 99999999999999999999 1\r\n", BAD, 3),
        ("cas a 0 0 1\r\n", BAD, 3),
        ("cas a 0 0 6 \r\n", BAD, 8),
        ("cas a 0 0 1 x\r\n", BAD, 3),
        ("cas a 0 0 1 noreply\r\n", "", 3),
        ("cas a 0 0 1 18446744073709551616\r\n", BAD, 3),
        ("incr a\r\n", BAD, 0),
        ("incr a x\r\n", delta, 0),
        ("incr a -1\r\n", delta, 0),
        ("incr a +1\r\n", delta, 0),
        ("incr a noreply\r\n", "", 0),
        ("decr a 18446744073709551616\r\n", delta, 0),
        ("delete\r\n", BAD, 0),
        ("touch a\r\n", BAD, 0),
        ("touch a x\r\n", exptime, 0),
        ("touch a 4294967296\r\n", exptime, 0),
        ("gat\r\n", BAD, 0),
        ("gat 0\r\n", BAD, 0),
        ("gat x a\r\n", exptime, 0),
        ("gats x noreply\r\n", exptime, 0),
        ("gat 4294967296 a\r\n", exptime, 0),
        ("verbosity\r\n", BAD, 0),
        ("verbosity x\r\n", BAD, 0),
        ("verbosity 4294967296\r\n", BAD, 0),
        ("verbosity noreply\r\n", "", 0),
        ("flush_all x\r\n", exptime, 0),
        ("flush_all 4294967296\r\n", exptime, 0),
        ("flush_all x noreply\r\n", "", 0),
        ("slabs\r\n", "ERROR\r\n", 0),
        ("slabs automove\r\n", "ERROR\r\n", 0),
        ("slabs automove invalid\r\n", BAD, 0),
        ("slabs automove invalid noreply\r\n", "", 0),
        ("slabs automove window x\r\n", BAD, 0),
        ("slabs automove ratio\r\n", "ERROR\r\n", 0),
        ("slabs automove 3\r\n", "ERROR\r\n", 0),
        ("slabs foo x\r\n", "ERROR\r\n", 0),
        ("stats cachedump\r\n", "CLIENT_ERROR bad command line\r\n", 0),
        ("stats c\r\n", "CLIENT_ERROR bad command line\r\n", 0),
        ("stats cachedump 1\r\n", "CLIENT_ERROR bad command line\r\n", 0),
        ("stats cachedump x 1\r\n", BAD, 0),
    ];
    for &(line, bytes, swallow) in table {
        assert_eq!(answer(line.as_bytes()), (bytes.into(), swallow), "{line:?}");
    }
}

#[test]
fn meta_lines_answered_by_themselves() {
    let token = "CLIENT_ERROR bad token in command line format\r\n";
    let either = "CLIENT_ERROR invalid or duplicate flag\r\n";
    let opaque = "O12345678901234567890123456789012";
    let too_long = "CLIENT_ERROR opaque token too long\r\n";
    let many = "k O1 q v t c f h l s u L1 P1 C5 E4 D3 J1 N0 T0";
    let table: &[(&str, &str, u64)] = &[
        ("mg\r\n", BAD, 0),
        ("mg \r\n", BAD, 0),
        ("mx foo\r\n", "ERROR\r\n", 0),
        ("mg a s s\r\n", "CLIENT_ERROR duplicate flag\r\n", 0),
        ("mg a !\r\n", BAD, 0),
        ("mg a y {\r\n", BAD, 0),
        ("mg a 5\r\n", "CLIENT_ERROR invalid flag\r\n", 0),
        ("mg a y\r\n", "CLIENT_ERROR invalid flag\r\n", 0),
        ("mg a Cx y\r\n", "CLIENT_ERROR invalid flag\r\n", 0),
        ("mg a F\r\n", BAD, 0),
        ("mg a Fx\r\n", BAD, 0),
        ("mg a Jx Fx\r\n", "CLIENT_ERROR invalid numeric initial value\r\n", 0),
        ("mg a Fx Dx\r\n", "CLIENT_ERROR invalid numeric delta value\r\n", 0),
        ("mg a Cx q\r\n", token, 0),
        ("mg a T\r\n", token, 0),
        ("mg a N99999999999\r\n", token, 0),
        (&format!("mg a q {opaque}\r\n"), too_long, 0),
        (&format!("ma a {opaque}\r\n"), too_long, 0),
        (&format!("ms a 1 {opaque}\r\n"), too_long, 3),
        ("mg !! b\r\n", "CLIENT_ERROR error decoding key\r\n", 0),
        ("md a O1 k b\r\n", "CLIENT_ERROR error decoding key\r\n", 0),
        (&format!("mg a {many}\r\n"), "CLIENT_ERROR options flags are too long\r\n", 0),
        (&format!("mg a {many} y\r\n"), "CLIENT_ERROR options flags are too long\r\n", 0),
        (&format!("ms a 1 {many}\r\n"), "CLIENT_ERROR options flags are too long\r\n", 3),
        ("ms a\r\n", BAD, 0),
        ("ms a x\r\n", BAD, 0),
        ("ms a -1\r\n", BAD, 0),
        ("ms a S1\r\n", BAD, 0),
        ("ms a 2147483646\r\n", BAD, 0),
        ("ms a 1 !\r\n", BAD, 0),
        ("ms a 1 s s\r\n", "CLIENT_ERROR duplicate flag\r\n", 3),
        ("ms a 10 F4294967296\r\n", BAD, 12),
        ("ms a 1 Cx\r\n", token, 3),
        ("ms a 1 Tx q\r\n", token, 3),
        ("ms a 1 MX q\r\n", "CLIENT_ERROR invalid mode for ms M token\r\n", 3),
        ("ms a 1 M\r\n", "CLIENT_ERROR invalid mode for ms M token\r\n", 3),
        ("ms a 1 Me\r\n", "CLIENT_ERROR invalid mode for ms M token\r\n", 3),
        ("ma a y\r\n", either, 0),
        ("ma a Jx\r\n", either, 0),
        ("ma a M\r\n", "CLIENT_ERROR invalid mode for ma M token\r\n", 0),
        ("ma a Mi\r\n", "CLIENT_ERROR invalid mode for ma M token\r\n", 0),
        ("me\r\n", BAD, 0),
        ("me a !\r\n", BAD, 0),
        ("me nosuch b b\r\n", BAD, 0),
        ("mn\r\n", "MN\r\n", 0),
        ("mn x\r\n", "MN\r\n", 0),
    ];
    for &(line, bytes, swallow) in table {
        assert_eq!(answer(line.as_bytes()), (bytes.into(), swallow), "{line:?}");
    }
}

#[test]
fn long_keys_are_refused_before_anything_is_done() {
    let long = "k".repeat(Key::MAX + 1);
    let table = [
        ("get K", BAD, 0),
        ("get a K", BAD, 0),
        ("get a b K c", BAD, 0),
        ("gat 0 a K", BAD, 0),
        ("gets a K noreply", BAD, 0),
        ("set K 0 0 1", BAD, 3),
        ("set K 0 0 1 noreply", "", 3),
        ("incr K x", BAD, 0),
        ("incr K x noreply", "", 0),
        ("delete K", BAD, 0),
        ("touch K x", BAD, 0),
        ("mg K y", BAD, 0),
        ("md K q", BAD, 0),
        ("ma K", "CLIENT_ERROR invalid or duplicate flag\r\n", 0),
        ("me K", BAD, 0),
        ("ms K 1 q", BAD, 3),
        ("ms K 1 !", BAD, 0),
    ];
    for (line, bytes, swallow) in table {
        let line = line.replace('K', &long) + "\r\n";
        assert_eq!(answer(line.as_bytes()), (bytes.into(), swallow), "{line:?}");
        let fits = line.replace(&long, &long[1..]);
        let arena = Bump::new();
        let decoded = Decoder::default().decode(fits.as_bytes(), &arena);
        if line.starts_with("get") || line.starts_with("set") {
            assert!(
                matches!(
                    decoded,
                    Decoded::Command { command: Command::Get(_) | Command::Fetch(_), .. }
                        | Decoded::Command { command: Command::Set(_), .. }
                ),
                "{fits:?}"
            );
        }
    }
}

#[test]
fn classic_commands() {
    let set = Set { client_flags: 7, exptime: Exptime(-3), ..plain_set("a", SetMode::Set) };
    let cas = Set { compare_cas: Some(u64::MAX), ..plain_set("a", SetMode::Cas) };
    let gat = Fetch { touch: Some(Exptime(-1)), ..plain_fetch(plain_get("a")) };
    let table = [
        ("get a\r\n", Command::Get(plain_get("a"))),
        ("get  a \n", Command::Get(plain_get("a"))),
        ("gets a\r\n", Command::Fetch(Fetch { cas: true, ..plain_fetch(plain_get("a")) })),
        ("gat -1 a\r\n", Command::Fetch(gat.clone())),
        ("gats  -1  a \r\n", Command::Fetch(Fetch { cas: true, ..gat })),
        ("set a +7 -3 1\r\n", Command::Set(set.clone())),
        ("set  a  7  -3  01 noreply\r\n", Command::Set(set)),
        ("set a 0 0 1 foo\n", Command::Set(plain_set("a", SetMode::Set))),
        ("add a 0 0 1\r\n", Command::Set(plain_set("a", SetMode::Add))),
        ("replace a 0 0 1\r\n", Command::Set(plain_set("a", SetMode::Replace))),
        ("append a 0 0 1\r\n", Command::Set(plain_set("a", SetMode::Append))),
        ("prepend a 0 0 1\r\n", Command::Set(plain_set("a", SetMode::Prepend))),
        ("cas a 0 0 1 18446744073709551615\r\n", Command::Set(cas)),
        ("delete a 0\r\n", Command::Delete(plain_delete("a"))),
        ("delete noreply\r\n", Command::Delete(plain_delete("noreply"))),
        ("incr a 5\r\n", Command::Arith(Arith { delta: 5, ..plain_arith("a") })),
        ("decr a 1\r\n", Command::Arith(Arith { increment: false, ..plain_arith("a") })),
        ("touch a -\r\n", Command::Touch(Touch { key: key("a"), exptime: Exptime(0) })),
        ("version x\r\n", Command::Admin(Admin::Version)),
        ("verbosity 9 x\r\n", Command::Admin(Admin::Verbosity(9))),
        ("flush_all\r\n", Command::Admin(Admin::FlushAll(None))),
        (" flush_all noreply\r\n", Command::Admin(Admin::FlushAll(None))),
        ("flush_all -1 5\r\n", Command::Admin(Admin::FlushAll(Some(Exptime(-1))))),
        ("quit x\r\n", Command::Quit),
    ];
    for (line, expected) in table {
        assert_eq!(command(line.as_bytes()), format!("{expected:?}"), "{line:?}");
    }
}

#[test]
fn stats_topics_may_be_cut_short() {
    let table = [
        ("stats", StatsTopic::General),
        ("stats re", StatsTopic::Reset),
        ("stats reset noreply", StatsTopic::Reset),
        ("stats  settings", StatsTopic::Settings),
        ("stats s", StatsTopic::Settings),
        ("stats items", StatsTopic::Items),
        ("stats item", StatsTopic::Unknown(b"item")),
        ("stats slabs", StatsTopic::Slabs),
        ("stats sizes", StatsTopic::Sizes),
        ("stats sizesx", StatsTopic::Unknown(b"sizesx")),
        ("stats co", StatsTopic::Conns),
        ("stats cachedump 200 0 0", StatsTopic::Cachedump { class: 200, limit: 0 }),
        ("stats c 1 2", StatsTopic::Cachedump { class: 1, limit: 2 }),
        ("stats detail o", StatsTopic::Detail(Some(true))),
        ("stats d of", StatsTopic::Detail(Some(false))),
        ("stats detail d", StatsTopic::DetailDump),
        ("stats detail", StatsTopic::Detail(None)),
        ("stats detail x", StatsTopic::Detail(None)),
        ("stats noreply", StatsTopic::Unknown(b"noreply")),
    ];
    for (line, topic) in table {
        let expected = format!("{:?}", Command::Admin(Admin::Stats(topic)));
        assert_eq!(command(format!("{line}\r\n").as_bytes()), expected, "{line:?}");
    }
    assert_eq!(says("stats reset noreply\r\n", Reply::Stats(&StatLines::Reset)), "RESET\r\n");
}

#[test]
fn meta_gets_take_a_lock_only_where_they_must() {
    let get = Get { meta: true, ..plain_get("a") };
    let fetch = plain_fetch(get.clone());
    let table = [
        ("mg a", Command::Get(get.clone())),
        ("mg  a  v  k  s t f l h q Ox", Command::Get(get.clone())),
        ("mg a u C5", Command::Get(Get { bump: false, unless_cas: Some(5), ..get })),
        ("mg a c", Command::Fetch(Fetch { cas: true, ..fetch.clone() })),
        ("mg a T30", Command::Fetch(Fetch { touch: Some(Exptime(30)), ..fetch.clone() })),
        ("mg a R-1", Command::Fetch(Fetch { recache: Some(Exptime(-1)), ..fetch.clone() })),
        (
            "mg a N0 E7",
            Command::Fetch(Fetch { vivify: Some(Exptime(0)), new_cas: Some(7), ..fetch }),
        ),
    ];
    for (line, expected) in table {
        assert_eq!(command(format!("{line}\r\n").as_bytes()), format!("{expected:?}"), "{line:?}");
    }
}

#[test]
fn meta_writes() {
    let ms = |mode| Set { drop_old_on_refusal: true, ..plain_set("a", mode) };
    let set = ms(SetMode::Set);
    let cas = Set { compare_cas: Some(0), ..ms(SetMode::Cas) };
    let vivifying = Set { vivify: Some(Exptime(9)), ..ms(SetMode::Append) };
    let binary = Set { key: key("foo"), binary_key: true, ..set.clone() };
    let md = Delete { invalidate: true, drop_value: true, ..plain_delete("a") };
    let ma = plain_arith("a");
    let table = [
        ("ms a 1 s k q", Command::Set(set.clone())),
        ("ms Zm9v 1 b", Command::Set(binary)),
        ("ms a 1 MS N9", Command::Set(set.clone())),
        ("ms a 1 F4294967295", Command::Set(Set { client_flags: u32::MAX, ..set.clone() })),
        ("ms a 1 T-1 I c", {
            let stale = Set { exptime: Exptime(-1), invalidate: true, ..set.clone() };
            Command::Set(Set { return_cas: true, ..stale })
        }),
        ("ms a 1 E5", Command::Set(Set { new_cas: Some(5), ..set })),
        ("ms a 1 C0", Command::Set(cas.clone())),
        ("ms a 1 C0 MR", Command::Set(cas)),
        ("ms a 1 C5 MEx", Command::Set(ms(SetMode::Add))),
        ("ms a 1 MR", Command::Set(ms(SetMode::Replace))),
        ("ms a 1 MP", Command::Set(ms(SetMode::Prepend))),
        ("ms a 1 MA N9", Command::Set(vivifying)),
        ("ms a 1 MA C0", Command::Set(ms(SetMode::Append))),
        ("ms a 1 MA C7", { Command::Set(Set { compare_cas: Some(7), ..ms(SetMode::Append) }) }),
        ("md a", Command::Delete(plain_delete("a"))),
        ("md a I x T3 F4 C5 E6", {
            let md = Delete { touch: Some(Exptime(3)), client_flags: 4, ..md };
            Command::Delete(Delete { compare_cas: Some(5), new_cas: Some(6), ..md })
        }),
        ("ma a", Command::Arith(ma.clone())),
        ("ma a MI C0", Command::Arith(ma.clone())),
        ("ma a M- D3 C4 N5 J6 T7 E8 c", {
            let ma = Arith { increment: false, delta: 3, compare_cas: Some(4), ..ma };
            let ma = Arith { vivify: Some(Exptime(5)), initial: 6, new_cas: Some(8), ..ma };
            Command::Arith(Arith { touch: Some(Exptime(7)), return_cas: true, ..ma })
        }),
        ("me a", Command::Inspect(key("a"))),
        ("me a foo", Command::Inspect(key("a"))),
        // 1.6.45 wants one more word before it heeds the `b`.
        ("me Zm9v b", Command::Inspect(key("foo"))),
    ];
    for (line, expected) in table {
        assert_eq!(command(format!("{line}\r\n").as_bytes()), format!("{expected:?}"), "{line:?}");
    }
}

/// The keys of a get line, one decode each; the line must be used up with its last key.
fn keys_of(buf: &[u8]) -> Vec<(String, usize)> {
    let (arena, mut decoder, mut at) = (Bump::new(), Decoder::default(), 0);
    let mut keys = Vec::new();
    loop {
        let Decoded::Command { used, command, echo } = decoder.decode(&buf[at..], &arena) else {
            panic!("no key at {at}");
        };
        let (Command::Get(get) | Command::Fetch(Fetch { get, .. })) = command else {
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
fn reset_forgets_a_line() {
    let (arena, mut decoder) = (Bump::new(), Decoder::default());
    assert!(matches!(decoder.decode(b"get a b c\r\n", &arena), Decoded::Command { .. }));
    assert!(decoder.in_multiget());
    decoder.reset();
    assert!(matches!(decoder.decode(b"vers", &arena), Decoded::Incomplete));
    decoder.reset();
    let decoded = decoder.decode(VERSION_LINE, &arena);
    assert!(matches!(decoded, Decoded::Command { used: 9, command: Command::Admin(_), .. }));
}

#[test]
fn classic_answers() {
    let a = key("a");
    let stored = || Reply::Stored { key: a, cas: None, len: 1 };
    let number =
        || Reply::Number { key: a, value: u64::MAX, cas: None, ttl: None, ttl_before: None };
    let pairs = StatLines::Pairs(vec![("pid".into(), "5".into()), ("x".into(), "".into())]);
    let lines = StatLines::Lines(vec![b"ITEM a [1 b; 0 s]".to_vec()]);
    let error = StatLines::Error(Error::Unknown);
    let table = [
        ("set a 0 0 1\r\n", stored(), "STORED\r\n"),
        ("set a 0 0 1 noreply\r\n", stored(), ""),
        ("set a 0 0 1 noreply\r\n", Reply::Say(Say::Error(Error::Server("x"))), ""),
        ("set a 0 0 1\r\n", Reply::Say(Say::Error(Error::Server("x"))), "SERVER_ERROR x\r\n"),
        ("add a 0 0 1\r\n", Reply::NotStored(a), "NOT_STORED\r\n"),
        ("cas a 0 0 1 5\r\n", Reply::Exists(a), "EXISTS\r\n"),
        ("cas a 0 0 1 5\r\n", Reply::NotFound(a), "NOT_FOUND\r\n"),
        ("delete a\r\n", Reply::Deleted(a), "DELETED\r\n"),
        ("delete a 0 noreply\r\n", Reply::Deleted(a), ""),
        ("touch a 0\r\n", Reply::Touched(a), "TOUCHED\r\n"),
        ("incr a 1\r\n", number(), "18446744073709551615\r\n"),
        ("incr a 1 noreply\r\n", number(), ""),
        ("flush_all\r\n", Reply::Ok, "OK\r\n"),
        ("flush_all 0 noreply\r\n", Reply::Ok, ""),
        ("version\r\n", Reply::Version("1.6.45"), "VERSION 1.6.45\r\n"),
        ("get a\r\n", Reply::Miss(a), "END\r\n"),
        ("get a\r\n", Reply::Say(Say::End), "END\r\n"),
        ("stats\r\n", Reply::Stats(&pairs), "STAT pid 5\r\nSTAT x \r\nEND\r\n"),
        ("stats cachedump 1 1\r\n", Reply::Stats(&lines), "ITEM a [1 b; 0 s]\r\nEND\r\n"),
        ("stats x\r\n", Reply::Stats(&error), "ERROR\r\n"),
        ("stats detail on\r\n", Reply::Stats(&StatLines::Ok), "OK\r\n"),
    ];
    for (line, reply, bytes) in table {
        assert_eq!(says(line, reply), bytes, "{line:?}");
    }
}

#[test]
fn meta_answers() {
    let a = key("a");
    let stored = |cas| Reply::Stored { key: a, cas, len: 3 };
    let number = || Reply::Number { key: a, value: 10, cas: Some(33), ttl: None, ttl_before: None };
    let error = || Reply::Say(Say::Error(Error::Client("bad data chunk")));
    let table = [
        ("mg a\r\n", Reply::Miss(a), "EN\r\n"),
        ("mg a k Ozz\r\n", Reply::Miss(a), "EN ka Ozz\r\n"),
        ("mg a v s t c f l h O1 k\r\n", Reply::Miss(a), "EN O1 ka\r\n"),
        ("mg a k Ozz q\r\n", Reply::Miss(a), ""),
        ("ms a 1\r\n", stored(None), "HD\r\n"),
        ("ms a 2 MA s k\r\n", stored(None), "HD s3 ka\r\n"),
        ("ms a 1 k c s Oab f v t\r\n", stored(Some(17)), "HD ka c17 s3 Oab\r\n"),
        ("ms a 1 k q\r\n", stored(None), ""),
        ("ms a 1 q\r\n", error(), "CLIENT_ERROR bad data chunk\r\n"),
        ("ms a 1 q k Oa ME\r\n", Reply::NotStored(a), "NS ka Oa\r\n"),
        ("ms a 1 C5 k c s\r\n", Reply::Exists(a), "EX ka c0 s1\r\n"),
        ("ms a 1 C5 q k Oa c\r\n", Reply::NotFound(a), "NF ka Oa c0\r\n"),
        ("md a s t c f h v O1 k\r\n", Reply::Deleted(a), "HD O1 ka\r\n"),
        ("md a q\r\n", Reply::Deleted(a), ""),
        ("md a O1 k q\r\n", Reply::NotFound(a), "NF O1 ka\r\n"),
        ("md a C5 q c s\r\n", Reply::Exists(a), "EX\r\n"),
        ("ma a\r\n", number(), "HD\r\n"),
        ("ma a v t c k O1 s f\r\n", number(), "VA 2 t-1 c33 ka O1\r\n10\r\n"),
        (
            "ma a t\r\n",
            Reply::Number { key: a, value: 1, cas: None, ttl: Some(9), ttl_before: Some(9) },
            "HD t9\r\n",
        ),
        ("ma a v q\r\n", number(), ""),
        ("ma a q k O1 c t\r\n", Reply::NotFound(a), "NF ka O1\r\n"),
        ("ma a C5 k\r\n", Reply::Exists(a), "EX ka\r\n"),
        ("ma a q\r\n", error(), "CLIENT_ERROR bad data chunk\r\n"),
        ("me a\r\n", Reply::Miss(a), "EN\r\n"),
    ];
    for (line, reply, bytes) in table {
        assert_eq!(says(line, reply), bytes, "{line:?}");
    }
}

#[test]
fn binary_keys_go_back_as_they_came() {
    let foo = key("foo");
    let stored = Reply::Stored { key: foo, cas: None, len: 1 };
    let number = Reply::Number { key: foo, value: 1, cas: None, ttl: None, ttl_before: None };
    assert_eq!(says("ms Zm9v 1 b k\r\n", stored), "HD kZm9v b\r\n");
    assert_eq!(says("mg Zm9v b k v\r\n", Reply::Miss(foo)), "EN kZm9v b\r\n");
    assert_eq!(says("md Zm9v b k q\r\n", Reply::NotFound(foo)), "NF kZm9v b\r\n");
    assert_eq!(says("ma Zm9v k b O1\r\n", number), "HD kZm9v b O1\r\n");
}

#[test]
fn an_item_is_inspected() {
    let item = Inspection { ttl: None, idle: 3, cas: 17, fetched: true, class: 1, size: 64 };
    let reply = |key, item| Reply::Inspected { key, item };
    assert_eq!(
        says("me a\r\n", reply(key("a"), item.clone())),
        "ME a exp=-1 la=3 cas=17 fetch=yes cls=1 size=64\r\n"
    );
    let item = Inspection { ttl: Some(30), fetched: false, ..item };
    assert_eq!(
        says("me Zm9v b\r\n", reply(key("foo"), item)),
        "ME Zm9v exp=30 la=3 cas=17 fetch=no cls=1 size=64\r\n"
    );
}

#[test]
fn a_reply_replaces_what_the_same_command_said_before() {
    let (arena, mut out) = (Bump::new(), Outbox::default());
    out.bytes().extend_from_slice(b"before ");
    let mut decoder = Decoder::default();
    let Decoded::Command { echo, .. } = decoder.decode(b"mg a k\r\n", &arena) else {
        panic!("no command");
    };
    let mut encoder = Encoder::new(&mut out, echo);
    encoder.reply(Reply::Ok);
    encoder.reply(Reply::Miss(key("a")));
    assert_eq!(*out.bytes(), *b"before EN ka\r\n");
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

proptest! {
    #[test]
    fn any_bytes_are_used_up_or_ask_for_more(bytes in wire()) {
        let (arena, mut decoder, mut at) = (Bump::new(), Decoder::default(), 0);
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
                Decoded::Incomplete => {
                    prop_assert!(!bytes[at..].contains(&b'\n'));
                    break;
                }
                Decoded::HangUp { .. } => break,
            }
        }
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
            Decoded::HangUp { .. } => return seen,
            decoded => {
                at += match &decoded {
                    Decoded::Command { used, .. } | Decoded::Refused { used, .. } => *used,
                    Decoded::Incomplete | Decoded::HangUp { .. } => 0,
                };
                seen.push(format!("{decoded:?}"));
            }
        }
    }
}
