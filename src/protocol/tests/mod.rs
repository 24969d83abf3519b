//! Whole lines in, commands and exact bytes out. The bytes are those of memcached 1.6.45, but for
//! the differences that the tests name.

mod answers;
mod binary;
mod lines;
mod pieces;
mod stored;

use super::outbox::Outbox;
use super::*;
use crate::clock::Exptime;
use crate::command::{Arith, Delete, Fetch, Get, Say, Set, SetMode};

pub(super) const BAD: &str = "CLIENT_ERROR bad command line format\r\n";
pub(super) const VERSION_LINE: &[u8] = b"version\r\n";

pub(super) fn key(text: &str) -> Key<'_> {
    Key::new(text.as_bytes()).expect("a test's key fits")
}

/// A command refers to what is large.
pub(super) fn kept<T>(request: T) -> &'static T {
    Box::leak(Box::new(request))
}

pub(super) fn words(echo: Echo<'_>, reply: Reply<'_>) -> String {
    let mut out = Outbox::default();
    Encoder::new(&mut out, &echo).reply(reply);
    String::from_utf8(std::mem::take(out.bytes())).expect("a test's answer is text")
}

/// What a line is answered by itself, and how many bytes behind it are dropped.
pub(super) fn answer(line: &[u8]) -> (String, u64) {
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
pub(super) fn answered<'a>(line: &'a [u8], arena: &'a Bump, reply: Reply<'_>) -> (String, String) {
    match Decoder::default().decode(line, arena) {
        Decoded::Command { used, command, echo } => {
            assert_eq!(used, line.len(), "{}", line.escape_ascii());
            (format!("{command:?}"), words(echo, reply))
        }
        other => panic!("{} is no command: {other:?}", line.escape_ascii()),
    }
}

pub(super) fn command(line: &[u8]) -> String {
    answered(line, &Bump::new(), Reply::Ok).0
}

pub(super) fn says(line: &str, reply: Reply<'_>) -> String {
    answered(line.as_bytes(), &Bump::new(), reply).1
}

pub(super) fn plain_get(name: &str) -> Get<'_> {
    Get::of(key(name))
}

pub(super) fn plain_set(name: &str, mode: SetMode) -> Set<'_> {
    Set { mode, drop_old_on_refusal: mode == SetMode::Set, ..Set::of(key(name), 1) }
}

pub(super) fn plain_arith(name: &str) -> Arith<'_> {
    Arith::of(key(name), 1)
}

pub(super) fn plain_delete(name: &str) -> Delete<'_> {
    Delete::of(key(name))
}

pub(super) fn plain_fetch(get: Get<'_>) -> Fetch<'_> {
    Fetch::of(get)
}
