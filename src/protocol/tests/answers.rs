//! How answers are worded.

use super::*;
use crate::command::StatLines;
use crate::store::Inspection;

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
        ("gets a\r\n", Reply::NoRoom(a), "SERVER_ERROR out of memory writing get response\r\n"),
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
        ("mg a c q\r\n", Reply::NoRoom(a), "SERVER_ERROR out of memory\r\n"),
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
    let item = Inspection {
        ttl: None,
        idle: 3,
        cas: 17,
        fetched: true,
        class: 1,
        size: 64,
        binary_key: false,
    };
    let reply = |key, item| Reply::Inspected { key, item };
    assert_eq!(
        says("me a\r\n", reply(key("a"), item.clone())),
        "ME a exp=-1 la=3 cas=17 fetch=yes cls=1 size=64\r\n"
    );
    let item = Inspection { ttl: Some(30), fetched: false, binary_key: true, ..item };
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
    let mut encoder = Encoder::new(&mut out, &echo);
    encoder.reply(Reply::Ok);
    encoder.reply(Reply::Miss(key("a")));
    assert_eq!(*out.bytes(), *b"before EN ka\r\n");
}
