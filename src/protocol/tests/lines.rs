//! What whole lines decode to.

use super::*;
use crate::command::{
    Admin, AutomoveCommand, CrawlerCommand, Deleter, DumpCommand, DumpForm, LruCommand, StatLines,
    StatsTopic, Streams, Targets, Touch,
};

const EXPTIME: &str = "CLIENT_ERROR invalid exptime argument\r\n";
const DELTA: &str = "CLIENT_ERROR invalid numeric delta argument\r\n";

/// Lines, what they are answered by, and how many bytes behind them are dropped.
const CLASSIC: &[(&str, &str, u64)] = &[
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
    ("incr a x\r\n", DELTA, 0),
    ("incr a -1\r\n", DELTA, 0),
    ("incr a +1\r\n", DELTA, 0),
    ("incr a noreply\r\n", "", 0),
    ("decr a 18446744073709551616\r\n", DELTA, 0),
    ("delete\r\n", BAD, 0),
    ("touch a\r\n", BAD, 0),
    ("touch a x\r\n", EXPTIME, 0),
    ("touch a 4294967296\r\n", EXPTIME, 0),
    ("gat\r\n", BAD, 0),
    ("gat 0\r\n", BAD, 0),
    ("gat x a\r\n", EXPTIME, 0),
    ("gats x noreply\r\n", EXPTIME, 0),
    ("gat 4294967296 a\r\n", EXPTIME, 0),
    ("verbosity\r\n", BAD, 0),
    ("verbosity x\r\n", BAD, 0),
    ("verbosity 4294967296\r\n", BAD, 0),
    ("verbosity noreply\r\n", "", 0),
    ("flush_all x\r\n", EXPTIME, 0),
    ("flush_all 4294967296\r\n", EXPTIME, 0),
    ("flush_all x noreply\r\n", "", 0),
    ("slabs\r\n", "ERROR\r\n", 0),
    ("slabs automove\r\n", "ERROR\r\n", 0),
    ("slabs automove invalid\r\n", BAD, 0),
    ("slabs automove invalid noreply\r\n", "", 0),
    ("slabs automove window x\r\n", BAD, 0),
    ("slabs automove ratio\r\n", "ERROR\r\n", 0),
    ("slabs automove 3\r\n", "ERROR\r\n", 0),
    ("slabs foo x\r\n", "ERROR\r\n", 0),
    ("slabs reassign 1\r\n", "ERROR\r\n", 0),
    ("slabs reassign 1 2 noreply\r\n", "", 0),
    ("lru\r\n", "ERROR\r\n", 0),
    ("lru tune 1 2 3\r\n", "ERROR\r\n", 0),
    ("lru tune 1 2 nan 1\r\n", "ERROR\r\n", 0),
    ("lru tune 1 2 inf 1\r\n", "ERROR\r\n", 0),
    ("lru_crawler\r\n", "ERROR\r\n", 0),
    ("lru_crawler crawl\r\n", "ERROR\r\n", 0),
    ("lru_crawler metadump all x\r\n", "ERROR\r\n", 0),
    ("lru_crawler sleep 1s\r\n", BAD, 0),
    ("cache_memlimit\r\n", "ERROR\r\n", 0),
    ("delete a b c d e\r\n", BAD, 0),
    ("delete a b c d noreply\r\n", "", 0),
    ("cache_memlimit 64m\r\n", "ERROR\r\n", 0),
];

#[test]
fn classic_lines_answered_by_themselves() {
    for &(line, bytes, swallow) in CLASSIC {
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
        ("mg !! b Fx\r\n", "CLIENT_ERROR error decoding key\r\n", 0),
        ("mg !! Fx b\r\n", "CLIENT_ERROR error decoding key\r\n", 0),
        ("mg !! b Jx\r\n", "CLIENT_ERROR invalid numeric initial value\r\n", 0),
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
        ("gets a\r\n", Command::Fetch(kept(Fetch { cas: true, ..plain_fetch(plain_get("a")) }))),
        ("gat -1 a\r\n", Command::Fetch(kept(gat.clone()))),
        ("gats  -1  a \r\n", Command::Fetch(kept(Fetch { cas: true, ..gat }))),
        ("set a +7 -3 1\r\n", Command::Set(kept(set.clone()))),
        ("set  a  7  -3  01 noreply\r\n", Command::Set(kept(set))),
        ("set a 0 0 1 foo\n", Command::Set(kept(plain_set("a", SetMode::Set)))),
        ("add a 0 0 1\r\n", Command::Set(kept(plain_set("a", SetMode::Add)))),
        ("replace a 0 0 1\r\n", Command::Set(kept(plain_set("a", SetMode::Replace)))),
        ("append a 0 0 1\r\n", Command::Set(kept(plain_set("a", SetMode::Append)))),
        ("prepend a 0 0 1\r\n", Command::Set(kept(plain_set("a", SetMode::Prepend)))),
        ("cas a 0 0 1 18446744073709551615\r\n", Command::Set(kept(cas))),
        ("delete a 0\r\n", Command::Delete(kept(plain_delete("a")))),
        ("delete noreply\r\n", Command::Delete(kept(plain_delete("noreply")))),
        ("incr a 5\r\n", Command::Arith(kept(Arith { delta: 5, ..plain_arith("a") }))),
        ("decr a 1\r\n", Command::Arith(kept(Arith { increment: false, ..plain_arith("a") }))),
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
    let bad_cachedump = Error::Client("bad command line");
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
        ("stats automover", StatsTopic::Automover),
        ("stats memory", StatsTopic::Memory),
        ("stats automove", StatsTopic::Unknown(b"automove")),
        ("stats sizesx", StatsTopic::Unknown(b"sizesx")),
        ("stats co", StatsTopic::Conns),
        ("stats cachedump 200 0 0", StatsTopic::Cachedump { class: 200, limit: 0 }),
        ("stats c 1 2", StatsTopic::Cachedump { class: 1, limit: 2 }),
        ("stats cachedump", StatsTopic::BadCachedump(bad_cachedump)),
        ("stats c", StatsTopic::BadCachedump(bad_cachedump)),
        ("stats cachedump 1", StatsTopic::BadCachedump(bad_cachedump)),
        ("stats cachedump x 1", StatsTopic::BadCachedump(Error::Client("bad command line format"))),
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
fn operators_words_may_be_cut_short() {
    let crawler = |command| Command::Admin(Admin::Crawler(command));
    let automove = |command| Command::Admin(Admin::Automove(command));
    let lru = |command| Command::Admin(Admin::Lru(command));
    let dump = |form, targets| Command::Dump(DumpCommand { form, targets });
    let tune = LruCommand::Tune { hot_pct: 1, warm_pct: 2, hot_factor: 0.5, warm_factor: 2.0 };
    let table = [
        ("lru_crawler e", crawler(CrawlerCommand::Enable)),
        (" lru_crawler disable", crawler(CrawlerCommand::Disable)),
        ("lru_crawler s 7", crawler(CrawlerCommand::Sleep(7))),
        ("lru_crawler to 8", crawler(CrawlerCommand::ToCrawl(8))),
        ("lru_crawler c all", crawler(CrawlerCommand::Crawl(Targets::All))),
        ("lru_crawler crawl hash", crawler(CrawlerCommand::Crawl(Targets::Hash))),
        ("lru_crawler m 1,2", dump(DumpForm::Metadump, Targets::Ids(b"1,2"))),
        ("lru_crawler mg hash", dump(DumpForm::Mgdump, Targets::Hash)),
        ("lru t 1 2 .5 2 x", lru(tune)),
        ("lru m f", lru(LruCommand::Segmented(Some(false)))),
        ("lru mode segmented x", lru(LruCommand::Segmented(Some(true)))),
        ("lru mode flats", lru(LruCommand::Segmented(None))),
        ("lru t -1", lru(LruCommand::TempTtl(Some(-1)))),
        ("lru temp_ttl x", lru(LruCommand::TempTtl(None))),
        ("slabs a 2", automove(AutomoveCommand::Level(2))),
        ("slabs automove r .7 x", automove(AutomoveCommand::Ratio(0.7))),
        ("slabs automove f 1", automove(AutomoveCommand::FreeRatio)),
        ("slabs automove w 9", automove(AutomoveCommand::Window(9))),
        ("slabs r -1 2", Command::Admin(Admin::Reassign(Some((-1, 2))))),
        ("slabs reassign 1 x", Command::Admin(Admin::Reassign(None))),
        ("cache_memlimit 64 x", Command::Admin(Admin::MemLimit(64))),
        ("watch", Command::Watch(Some(Streams::FETCHERS))),
        ("watch e m", Command::Watch(Some(Streams::EVICTIONS.and(Streams::MUTATIONS)))),
        ("watch proxyuser  d", Command::Watch(Some(Streams::PROXY.and(Streams::DELETIONS)))),
        ("watch connevents x", Command::Watch(None)),
    ];
    for (line, expected) in table {
        let line = format!("{line}\r\n");
        assert_eq!(command(line.as_bytes()), format!("{expected:?}"), "{line:?}");
    }
    let refused = Reply::Say(Say::Error(crate::command::Error::Line("BUSY for now")));
    assert_eq!(says("slabs r 1 2\r\n", refused), "BUSY for now\r\n");
}

#[test]
fn meta_gets_take_a_lock_only_where_they_must() {
    let get = Get { meta: true, ..plain_get("a") };
    let fetch = plain_fetch(get.clone());
    let table = [
        ("mg a", Command::Get(get.clone())),
        ("mg  a  v  k  s t f l h q Ox", Command::Get(get.clone())),
        ("mg a u C5", Command::Get(Get { bump: false, unless_cas: Some(5), ..get })),
        ("mg a c", Command::Fetch(kept(Fetch { cas: true, ..fetch.clone() }))),
        ("mg a T30", Command::Fetch(kept(Fetch { touch: Some(Exptime(30)), ..fetch.clone() }))),
        ("mg a R-1", Command::Fetch(kept(Fetch { recache: Some(Exptime(-1)), ..fetch.clone() }))),
        ("mg a R5 T30", {
            let recache = Some(Exptime(5));
            Command::Fetch(kept(Fetch { touch: Some(Exptime(30)), recache, ..fetch.clone() }))
        }),
        ("mg a T30 R5", {
            let fetch = Fetch { touch_first: true, recache: Some(Exptime(5)), ..fetch.clone() };
            Command::Fetch(kept(Fetch { touch: Some(Exptime(30)), ..fetch }))
        }),
        ("mg a T3 N4", {
            let vivify = Some(Exptime(4));
            Command::Fetch(kept(Fetch { touch: Some(Exptime(3)), vivify, ..fetch.clone() }))
        }),
        ("mg a N4 T3", {
            let vivify = Some(Exptime(3));
            Command::Fetch(kept(Fetch { touch: Some(Exptime(3)), vivify, ..fetch.clone() }))
        }),
        (
            "mg a N0 E7",
            Command::Fetch(kept(Fetch { vivify: Some(Exptime(0)), new_cas: Some(7), ..fetch })),
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
    let plain_md = Delete { by: Deleter::Meta, ..plain_delete("a") };
    let md = Delete { invalidate: true, drop_value: true, ..plain_md.clone() };
    let ma = plain_arith("a");
    let table = [
        ("ms a 1 s k q", Command::Set(kept(set.clone()))),
        ("ms Zm9v 1 b", Command::Set(kept(binary))),
        ("ms a 1 MS N9", Command::Set(kept(set.clone()))),
        ("ms a 1 F4294967295", Command::Set(kept(Set { client_flags: u32::MAX, ..set.clone() }))),
        ("ms a 1 T-1 I c", {
            let stale = Set { exptime: Exptime(-1), invalidate: true, ..set.clone() };
            Command::Set(kept(Set { return_cas: true, ..stale }))
        }),
        ("ms a 1 E5", Command::Set(kept(Set { new_cas: Some(5), ..set }))),
        ("ms a 1 C0", Command::Set(kept(cas.clone()))),
        ("ms a 1 C0 MR", Command::Set(kept(cas))),
        ("ms a 1 C5 MEx", Command::Set(kept(ms(SetMode::Add)))),
        ("ms a 1 MR", Command::Set(kept(ms(SetMode::Replace)))),
        ("ms a 1 MP", Command::Set(kept(ms(SetMode::Prepend)))),
        ("ms a 1 MA N9", Command::Set(kept(vivifying))),
        ("ms a 1 MA C0", Command::Set(kept(ms(SetMode::Append)))),
        ("ms a 1 MA C7", {
            Command::Set(kept(Set { compare_cas: Some(7), ..ms(SetMode::Append) }))
        }),
        ("md a", Command::Delete(kept(plain_md))),
        ("md a I x T3 F4 C5 E6", {
            let md = Delete { touch: Some(Exptime(3)), client_flags: 4, ..md };
            Command::Delete(kept(Delete { compare_cas: Some(5), new_cas: Some(6), ..md }))
        }),
        ("ma a", Command::Arith(kept(ma.clone()))),
        ("ma a MI C0", Command::Arith(kept(ma.clone()))),
        ("ma a M- D3 C4 N5 J6 T7 E8 c", {
            let ma = Arith { increment: false, delta: 3, compare_cas: Some(4), ..ma };
            let ma = Arith { vivify: Some(Exptime(7)), initial: 6, new_cas: Some(8), ..ma };
            Command::Arith(kept(Arith { touch: Some(Exptime(7)), return_cas: true, ..ma }))
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

#[cfg(feature = "debug-commands")]
#[test]
fn a_debug_server_moves_its_clock() {
    let moved = Command::Admin(Admin::DebugTime(crate::clock::DebugTime::Advance(480)));
    assert_eq!(command(b"debugtime 480\r\n"), format!("{moved:?}"));
    for line in ["debugtime\r\n", "debugtime x\r\n", "debugtime -1\r\n"] {
        assert_eq!(answer(line.as_bytes()), ("ERROR\r\n".into(), 0), "{line:?}");
    }
}

#[cfg(not(feature = "debug-commands"))]
#[test]
fn only_a_debug_server_moves_its_clock() {
    assert_eq!(answer(b"debugtime 480\r\n"), ("ERROR\r\n".into(), 0));
}
