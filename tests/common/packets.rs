//! Packets of the binary protocol in the lines of a transcript.

use super::Client;
use super::transcript::Piece;

/// Opcodes by name; a `q` makes one quiet.
const OPCODES: [(&str, u8); 35] = [
    ("get", 0x00),
    ("set", 0x01),
    ("add", 0x02),
    ("replace", 0x03),
    ("delete", 0x04),
    ("incr", 0x05),
    ("decr", 0x06),
    ("quit", 0x07),
    ("flush", 0x08),
    ("getq", 0x09),
    ("noop", 0x0a),
    ("version", 0x0b),
    ("getk", 0x0c),
    ("getkq", 0x0d),
    ("append", 0x0e),
    ("prepend", 0x0f),
    ("stat", 0x10),
    ("setq", 0x11),
    ("addq", 0x12),
    ("replaceq", 0x13),
    ("deleteq", 0x14),
    ("incrq", 0x15),
    ("decrq", 0x16),
    ("quitq", 0x17),
    ("flushq", 0x18),
    ("appendq", 0x19),
    ("prependq", 0x1a),
    ("touch", 0x1c),
    ("gat", 0x1d),
    ("gatq", 0x1e),
    ("sasl_list", 0x20),
    ("sasl_auth", 0x21),
    ("sasl_step", 0x22),
    ("gatk", 0x23),
    ("gatkq", 0x24),
];

/// The first byte of a request.
pub const REQUEST: u8 = 0x80;
/// A question that is always answered, and the answer.
pub const NOOP: [u8; 24] = bare(0x80, 0x0a);
pub const NOOP_DONE: [u8; 24] = bare(0x81, 0x0a);

/// A header with nothing behind it.
const fn bare(magic: u8, opcode: u8) -> [u8; 24] {
    let mut header = [0; 24];
    header[0] = magic;
    header[1] = opcode;
    header
}

/// A request; `parts` are its extras, key and value.
pub fn request(opcode: u8, opaque: u32, cas: u64, parts: [&[u8]; 3]) -> Vec<u8> {
    let lengths = parts.map(<[u8]>::len);
    let [extras_len, key_len, _] = lengths;
    let mut bytes = vec![REQUEST, opcode];
    bytes.extend((key_len as u16).to_be_bytes());
    bytes.extend([extras_len as u8, 0, 0, 0]);
    bytes.extend((lengths.iter().sum::<usize>() as u32).to_be_bytes());
    bytes.extend(opaque.to_be_bytes());
    bytes.extend(cas.to_be_bytes());
    bytes.extend(parts.concat());
    bytes
}

/// An answer taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub opcode: u8,
    pub status: u16,
    pub opaque: u32,
    pub cas: u64,
    pub extras: Vec<u8>,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// The next answer of a connection; `None` where it ends or is silent, or what comes is none.
pub fn take_answer(client: &mut Client) -> Option<Answer> {
    let header: [u8; 24] = client.take(24).try_into().ok()?;
    let [0x81, opcode, k0, k1, extras_len, 0, s0, s1, b0, b1, b2, b3, rest @ ..] = header else {
        return None;
    };
    let [o0, o1, o2, o3, cas @ ..] = rest;
    let body_len = u32::from_be_bytes([b0, b1, b2, b3]) as usize;
    let mut body = client.take(body_len);
    let parts = usize::from(extras_len) + usize::from(u16::from_be_bytes([k0, k1]));
    if body.len() < body_len || body_len < parts {
        return None;
    }
    let value = body.split_off(parts);
    let key = body.split_off(extras_len.into());
    Some(Answer {
        opcode,
        status: u16::from_be_bytes([s0, s1]),
        opaque: u32::from_be_bytes([o0, o1, o2, o3]),
        cas: u64::from_be_bytes(cas),
        extras: body,
        key,
        value,
    })
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Request,
    Answer,
}

/// What the words of a line say.
#[derive(Default)]
struct Packet {
    opcode: u8,
    status: u16,
    opaque: u32,
    extras: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
    cas: Option<Piece>,
    /// Lengths that lie.
    key_len: Option<u16>,
    extras_len: Option<u8>,
    body_len: Option<u32>,
}

/// `<opcode> [<field>=<what>]*` as the pieces of a packet; `bytes` reads escapes.
pub fn parse(text: &str, way: Way, bytes: impl Fn(&str) -> Option<Vec<u8>>) -> Option<Vec<Piece>> {
    let mut words = text.split(' ');
    let name = words.next()?;
    let mut packet = Packet { opcode: opcode(name)?, ..Packet::default() };
    for word in words {
        let (field, what) = word.split_once('=')?;
        match field {
            "status" => packet.status = number(what)?,
            "opaque" => packet.opaque = number(what)?,
            "key" => packet.key = bytes(what)?,
            "value" => packet.value = bytes(what)?,
            // A number of 64 bits, as answers to incr and decr hold it.
            "number" => packet.value = what.parse::<u64>().ok()?.to_be_bytes().to_vec(),
            "extras" => packet.extras = extras(what)?,
            "cas" => packet.cas = Some(cas(what)?),
            "key_len" => packet.key_len = Some(number(what)?),
            "extras_len" => packet.extras_len = Some(number(what)?),
            "body_len" => packet.body_len = Some(number(what)?),
            _ => return None,
        }
    }
    Some(packet.pieces(way))
}

fn opcode(name: &str) -> Option<u8> {
    match name.strip_prefix("0x") {
        Some(hex) => u8::from_str_radix(hex, 16).ok(),
        None => OPCODES.iter().find(|(known, _)| *known == name).map(|(_, opcode)| *opcode),
    }
}

fn number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => text.parse().ok()?,
    };
    T::try_from(number).ok()
}

/// Numbers joined by commas: of 32 bits, or 64 with an `L` behind them.
fn extras(text: &str) -> Option<Vec<u8>> {
    let mut extras = Vec::new();
    for word in text.split(',') {
        match word.strip_suffix('L') {
            Some(long) => extras.extend(number::<u64>(long)?.to_be_bytes()),
            None => extras.extend(number::<u32>(word)?.to_be_bytes()),
        }
    }
    Some(extras)
}

/// A number, or `$name` for one that was met or is met now; `$name+1` is not it.
fn cas(text: &str) -> Option<Piece> {
    let Some(name) = text.strip_prefix('$') else {
        return Some(Piece::Bytes(number::<u64>(text)?.to_be_bytes().to_vec()));
    };
    let at = name.find(['+', '-']).unwrap_or(name.len());
    let (name, shift) = name.split_at(at);
    let shift = if shift.is_empty() { 0 } else { shift.parse().ok()? };
    Some(Piece::Unique(name.to_owned(), shift))
}

impl Packet {
    fn pieces(self, way: Way) -> Vec<Piece> {
        let magic = if way == Way::Request { REQUEST } else { 0x81 };
        let key_len = self.key_len.unwrap_or(self.key.len() as u16);
        let extras_len = self.extras_len.unwrap_or(self.extras.len() as u8);
        let body = [self.extras, self.key, self.value].concat();
        let body_len = self.body_len.unwrap_or(body.len() as u32);
        let mut header = vec![magic, self.opcode];
        header.extend(key_len.to_be_bytes());
        header.extend([extras_len, 0]);
        header.extend(self.status.to_be_bytes());
        header.extend(body_len.to_be_bytes());
        header.extend(self.opaque.to_be_bytes());
        let cas = self.cas.unwrap_or(Piece::Bytes(vec![0; 8]));
        vec![Piece::Bytes(header), cas, Piece::Bytes(body)]
    }
}
