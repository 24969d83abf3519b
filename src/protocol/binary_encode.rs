//! The binary protocol: how answers are worded. Every error has a text for its body, in memcached's
//! words, since some clients take an empty body for success.

use super::binary::{Echo, HEADER_LEN, Verb};
use super::outbox::Outbox;
use crate::command::{Error, Reply, Say, StatLines};
use crate::store::{Hit, Key};

/// The first byte of every answer.
const MAGIC: u8 = 0x81;
/// Bytes of the client flags that come before a value.
const FLAGS_LEN: usize = 4;

/// A header's status, and the text that goes with it where nothing more is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
enum Status {
    Ok = 0x00,
    NotFound = 0x01,
    Exists = 0x02,
    TooLarge = 0x03,
    Invalid = 0x04,
    NotStored = 0x05,
    NonNumeric = 0x06,
    NotAllowed = 0x20,
    Continue = 0x21,
    Unknown = 0x81,
    NoMemory = 0x82,
}

impl Status {
    fn text(self) -> &'static str {
        match self {
            Status::Ok | Status::Continue => "",
            Status::NotFound => "Not found",
            Status::Exists => "Data exists for key.",
            Status::TooLarge => "Too large.",
            Status::Invalid => "Invalid arguments",
            Status::NotStored => "Not stored.",
            Status::NonNumeric => "Non-numeric server-side value for incr or decr",
            Status::NotAllowed => "Auth failure.",
            Status::Unknown => "Unknown command",
            Status::NoMemory => "Out of memory",
        }
    }
}

/// A header; `body_len` counts extras, key and value.
#[inline]
fn header(
    echo: Echo,
    status: Status,
    extras_len: u8,
    key_len: usize,
    body_len: usize,
    cas: u64,
) -> [u8; HEADER_LEN] {
    // Keys, values and figures are all far shorter than their fields allow.
    let [k0, k1] = (key_len as u16).to_be_bytes();
    let [s0, s1] = (status as u16).to_be_bytes();
    let [b0, b1, b2, b3] = (body_len as u32).to_be_bytes();
    let [o0, o1, o2, o3] = echo.opaque;
    let [c0, c1, c2, c3, c4, c5, c6, c7] = cas.to_be_bytes();
    [
        MAGIC,
        echo.opcode,
        k0,
        k1,
        extras_len,
        0,
        s0,
        s1,
        b0,
        b1,
        b2,
        b3,
        o0,
        o1,
        o2,
        o3,
        c0,
        c1,
        c2,
        c3,
        c4,
        c5,
        c6,
        c7,
    ]
}

#[inline]
pub(super) fn hit(out: &mut Outbox, echo: Echo, key: Key<'_>, hit: Hit<'_>) {
    let value_len = if echo.verb == Verb::Touch { 0 } else { hit.value_len() as usize };
    let key = if echo.returns_key() { key.bytes() } else { b"" };
    let body_len = FLAGS_LEN + key.len() + value_len;
    let header = header(echo, Status::Ok, FLAGS_LEN as u8, key.len(), body_len, hit.cas());
    let bytes = out.bytes();
    bytes.reserve(HEADER_LEN + FLAGS_LEN + key.len());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&hit.client_flags().to_be_bytes());
    bytes.extend_from_slice(key);
    if echo.verb != Verb::Touch {
        out.value(hit);
    }
}

impl Echo {
    fn returns_key(self) -> bool {
        matches!(self.verb, Verb::GetK | Verb::GatK)
    }
}

#[inline]
pub(super) fn reply(out: &mut Vec<u8>, echo: Echo, reply: &Reply<'_>) {
    match *reply {
        Reply::Miss(_) if echo.quiet => {}
        Reply::Miss(key) if echo.returns_key() => {
            let len = key.bytes().len();
            out.extend_from_slice(&header(echo, Status::NotFound, 0, len, len, 0));
            out.extend_from_slice(key.bytes());
        }
        Reply::Miss(_) | Reply::NotFound(_) => error(out, echo, Status::NotFound),
        Reply::Stored { cas, .. } => success(out, echo, cas.unwrap_or(0), b""),
        Reply::Number { value, cas, .. } => {
            success(out, echo, cas.unwrap_or(0), &value.to_be_bytes());
        }
        Reply::Exists(_) => error(out, echo, Status::Exists),
        Reply::NotStored(_) => error(out, echo, not_stored(echo.verb)),
        Reply::Deleted(_)
        | Reply::Touched(_)
        | Reply::Ok
        | Reply::Reset
        | Reply::Closing
        | Reply::Say(Say::Noop) => success(out, echo, 0, b""),
        Reply::Version(version) => success(out, echo, 0, version.as_bytes()),
        Reply::Mechanisms(names) => success(out, echo, 0, names.as_bytes()),
        Reply::Challenge(message) => packet(out, echo, Status::Continue, b"", message),
        // Some clients take an empty body for a failure.
        Reply::LoggedIn => success(out, echo, 0, b"Authenticated"),
        Reply::Stats(lines) => stats(out, echo, lines),
        Reply::NoRoom(_) => refusal(out, echo, Error::NoMemory("")),
        Reply::Say(Say::Error(why)) => refusal(out, echo, why),
        // Of these no request of this protocol is answered by one.
        Reply::Inspected { .. } | Reply::Failed(_) | Reply::Say(_) => {}
    }
}

/// Quiet requests hear nothing of success.
#[inline]
fn success(out: &mut Vec<u8>, echo: Echo, cas: u64, body: &[u8]) {
    if !echo.quiet {
        out.extend_from_slice(&header(echo, Status::Ok, 0, 0, body.len(), cas));
        out.extend_from_slice(body);
    }
}

fn refusal(out: &mut Vec<u8>, echo: Echo, why: Error) {
    let (status, text) = words(echo.verb, why);
    packet(out, echo, status, b"", text.as_bytes());
}

fn error(out: &mut Vec<u8>, echo: Echo, status: Status) {
    packet(out, echo, status, b"", status.text().as_bytes());
}

fn packet(out: &mut Vec<u8>, echo: Echo, status: Status, key: &[u8], value: &[u8]) {
    let body_len = key.len() + value.len();
    out.extend_from_slice(&header(echo, status, 0, key.len(), body_len, 0));
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// Why a storage command's condition did not hold.
fn not_stored(verb: Verb) -> Status {
    match verb {
        Verb::Add => Status::Exists,
        Verb::Replace => Status::NotFound,
        _ => Status::NotStored,
    }
}

fn words(verb: Verb, why: Error) -> (Status, &'static str) {
    let status = match why {
        Error::NoMemory(_) => return (Status::NoMemory, no_memory(verb)),
        Error::Server(text) | Error::Line(text) => return (Status::NoMemory, text),
        Error::Unknown => Status::Unknown,
        Error::Client(_) => Status::Invalid,
        Error::TooLarge => Status::TooLarge,
        Error::NonNumeric => Status::NonNumeric,
        Error::NotAllowed(_) => Status::NotAllowed,
    };
    (status, status.text())
}

fn no_memory(verb: Verb) -> &'static str {
    match verb {
        Verb::Increment | Verb::Decrement => "Out of memory incrementing value",
        _ => "Out of memory allocating item",
    }
}

/// A packet for each figure, and an empty one at the end. `detail dump` is one figure of lines.
fn stats(out: &mut Vec<u8>, echo: Echo, lines: &StatLines) {
    match lines {
        StatLines::Pairs(pairs) => {
            for (name, value) in pairs {
                packet(out, echo, Status::Ok, name.as_bytes(), value.as_bytes());
            }
        }
        StatLines::Lines(lines) => {
            let mut text: Vec<u8> = Vec::new();
            for line in lines {
                text.extend_from_slice(line);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"END\r\n");
            packet(out, echo, Status::Ok, b"detailed", &text);
        }
        StatLines::Ok | StatLines::Reset => {}
        StatLines::Error(_) => return error(out, echo, Status::NotFound),
    }
    packet(out, echo, Status::Ok, b"", b"");
}
