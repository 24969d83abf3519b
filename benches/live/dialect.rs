//! The protocols as a client of one kind of value needs them: requests put together from parts that
//! were made beforehand, answers checked against what they can look like.

use std::io::{Error, ErrorKind, Result};

pub const KEY_LEN: usize = 16;
pub type Name = [u8; KEY_LEN];

/// The `n`th key: 16 digits.
pub fn name(n: u64) -> Name {
    let mut digits = itoa::Buffer::new();
    digits.format(n + 1_000_000_000_000_000).as_bytes().try_into().expect("16 digits")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Text,
    Meta,
    Binary,
}

/// What a request was, which says what may answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Get,
    Set,
}

/// What a set may be answered by a full cache.
const NO_ROOM: &[u8] = b"SERVER_ERROR out of memory storing object\r\n";

/// One protocol with values of one length.
pub struct Dialect {
    /// A get is the first, then the second and a key for each key, then the third.
    get: [Vec<u8>; 3],
    /// A set is the first, a key, the second with the value in it.
    set: [Vec<u8>; 2],
    /// What stands in front of a value, and behind it.
    hit: Pattern,
    value: usize,
    hit_end: &'static [u8],
    /// Ends an answer to a get: instead of a hit, or behind all of them where hits do not end it.
    miss: Pattern,
    hit_ends: bool,
    stored: Pattern,
    /// All of an answer with one hit.
    whole: Marks,
}

impl Dialect {
    pub fn new(protocol: Protocol, value: usize) -> Dialect {
        let dialect = match protocol {
            Protocol::Text => Dialect::text(value),
            Protocol::Meta => Dialect::meta(value),
            Protocol::Binary => Dialect::binary(value),
        };
        Dialect { whole: dialect.marks(), ..dialect }
    }

    fn text(value: usize) -> Dialect {
        Dialect {
            get: [b"get".into(), b" ".into(), b"\r\n".into()],
            set: [b"set ".into(), line_and_value(&format!(" 0 0 {value}\r\n"), value)],
            hit: Pattern::new(b"VALUE ", KEY_LEN, format!(" 0 {value}\r\n").as_bytes()),
            value,
            hit_end: b"\r\n",
            miss: Pattern::new(b"END\r\n", 0, b""),
            hit_ends: false,
            stored: Pattern::new(b"STORED\r\n", 0, b""),
            whole: Marks::default(),
        }
    }

    fn meta(value: usize) -> Dialect {
        Dialect {
            get: [b"mg".into(), b" ".into(), b" v\r\n".into()],
            set: [b"ms ".into(), line_and_value(&format!(" {value}\r\n"), value)],
            hit: Pattern::new(format!("VA {value}\r\n").as_bytes(), 0, b""),
            value,
            hit_end: b"\r\n",
            miss: Pattern::new(b"EN\r\n", 0, b""),
            hit_ends: true,
            stored: Pattern::new(b"HD\r\n", 0, b""),
            whole: Marks::default(),
        }
    }

    fn binary(value: usize) -> Dialect {
        const REQUEST: u8 = 0x80;
        const ANSWER: u8 = 0x81;
        const CAS: usize = 8;
        let (flags, exptime, not_found) = ([0; 4], [0; 4], b"Not found");
        let get = [&header(REQUEST, 0, [KEY_LEN, 0, KEY_LEN], 0)[..], &[0; CAS]].concat();
        let extras = flags.len() + exptime.len();
        let set = header(REQUEST, 1, [KEY_LEN, extras, extras + KEY_LEN + value], 0);
        let set = [&set[..], &[0; CAS], &flags, &exptime].concat();
        let hit = header(ANSWER, 0, [0, flags.len(), flags.len() + value], 0);
        let miss = header(ANSWER, 0, [0, 0, not_found.len()], 1);
        Dialect {
            get: [get, Vec::new(), Vec::new()],
            set: [set, vec![b'v'; value]],
            hit: Pattern::new(&hit, CAS, &flags),
            value,
            hit_end: b"",
            miss: Pattern::new(&miss, CAS, not_found),
            hit_ends: true,
            stored: Pattern::new(&header(ANSWER, 1, [0; 3], 0), CAS, b""),
            whole: Marks::default(),
        }
    }

    pub fn push_get(&self, keys: impl Iterator<Item = Name>, out: &mut Vec<u8>) {
        let [start, before_key, end] = &self.get;
        out.extend_from_slice(start);
        for key in keys {
            out.extend_from_slice(before_key);
            out.extend_from_slice(&key);
        }
        out.extend_from_slice(end);
    }

    pub fn push_set(&self, key: Name, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.set[0]);
        out.extend_from_slice(&key);
        out.extend_from_slice(&self.set[1]);
    }

    /// What a server says that has the value, whatever the key.
    pub fn answer(&self) -> Vec<u8> {
        self.known().into_iter().map(|byte| byte.unwrap_or(b'0')).collect()
    }

    /// The bytes of that, `None` where they may be any.
    fn known(&self) -> Vec<Option<u8>> {
        let known = |bytes: &[u8]| bytes.iter().copied().map(Some).collect::<Vec<_>>();
        let Pattern { start, any, end } = &self.hit;
        let miss = if self.hit_ends { &[][..] } else { &self.miss.start };
        let any = [*any, self.value].map(|len| vec![None; len]);
        let [any, value] = &any;
        [&known(start), any, &known(end), value, &known(self.hit_end), &known(miss)]
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    fn marks(&self) -> Marks {
        let known = self.known();
        let marks = (0..known.len()).step_by(8).map(|at| {
            let at = at.min(known.len() - 8);
            let bytes: [Option<u8>; 8] = known[at..at + 8].try_into().expect("8 bytes");
            let mask = bytes.map(|byte| if byte.is_some() { 0xff } else { 0 });
            let word = bytes.map(|byte| byte.unwrap_or(0));
            Mark { at, mask: u64::from_le_bytes(mask), word: u64::from_le_bytes(word) }
        });
        Marks { len: known.len(), marks: marks.filter(|mark| mark.mask != 0).collect() }
    }
}

/// An answer that can be told by a few of its words: most are of this kind, and the client is not
/// to be slower than the server.
#[derive(Default)]
struct Marks {
    len: usize,
    marks: Vec<Mark>,
}

struct Mark {
    at: usize,
    mask: u64,
    word: u64,
}

impl Marks {
    fn fit(&self, bytes: &[u8]) -> bool {
        let Some(bytes) = bytes.get(..self.len) else { return false };
        self.marks.iter().all(|Mark { at, mask, word }| {
            let found = bytes[*at..].first_chunk().map(|chunk| u64::from_le_bytes(*chunk));
            found.is_some_and(|found| found & mask == *word)
        })
    }
}

fn line_and_value(line: &str, value: usize) -> Vec<u8> {
    [line.as_bytes(), &vec![b'v'; value], b"\r\n"].concat()
}

/// The front of a binary packet, up to its CAS unique. `lens`: of key, extras, body.
fn header(magic: u8, opcode: u8, lens: [usize; 3], status: u8) -> [u8; 16] {
    let [key, extras, body] = lens;
    let body = (body as u32).to_be_bytes();
    let mut header = [0; 16];
    header[..8].copy_from_slice(&[magic, opcode, 0, key as u8, extras as u8, 0, 0, status]);
    header[8..12].copy_from_slice(&body);
    header
}

/// Bytes that are known but for some in the middle.
struct Pattern {
    start: Vec<u8>,
    any: usize,
    end: Vec<u8>,
}

enum Fit {
    /// They begin so, for so many bytes.
    Whole(usize),
    /// As far as they go.
    Part,
    Not,
}

impl Pattern {
    fn new(start: &[u8], any: usize, end: &[u8]) -> Pattern {
        Pattern { start: start.into(), any, end: end.into() }
    }

    fn fit(&self, bytes: &[u8]) -> Fit {
        let Some(rest) = bytes.strip_prefix(&self.start[..]) else {
            return if self.start.starts_with(bytes) { Fit::Part } else { Fit::Not };
        };
        let Some(rest) = rest.get(self.any..) else { return Fit::Part };
        if rest.starts_with(&self.end) {
            Fit::Whole(self.start.len() + self.any + self.end.len())
        } else if self.end.starts_with(rest) {
            Fit::Part
        } else {
            Fit::Not
        }
    }
}

/// Where a connection is in the answers to its requests.
#[derive(Default)]
pub struct Reader {
    stage: Stage,
    /// Of the get in hand.
    hits: usize,
}

#[derive(Default)]
enum Stage {
    #[default]
    Head,
    /// So many bytes of a value are still to come.
    Value(usize),
    ValueEnd,
}

impl Reader {
    /// Takes what is whole of the answer to `asked` off the front of `bytes`: how many bytes, and
    /// the number of hits once the answer is complete.
    pub fn read(
        &mut self,
        dialect: &Dialect,
        asked: Asked,
        bytes: &[u8],
    ) -> Result<(usize, Option<usize>)> {
        if asked == Asked::Get && self.is_fresh() && dialect.whole.fit(bytes) {
            return Ok((dialect.whole.len, Some(1)));
        }
        let mut at = 0;
        loop {
            let left = &bytes[at..];
            match self.stage {
                Stage::Value(due) => {
                    let here = due.min(left.len());
                    at += here;
                    self.stage = Stage::Value(due - here);
                    if here < due {
                        return Ok((at, None));
                    }
                    self.stage = Stage::ValueEnd;
                }
                Stage::ValueEnd if left.len() < dialect.hit_end.len() => return Ok((at, None)),
                Stage::ValueEnd if !left.starts_with(dialect.hit_end) => return Err(wrong(left)),
                Stage::ValueEnd => {
                    at += dialect.hit_end.len();
                    self.stage = Stage::Head;
                    self.hits += 1;
                    if dialect.hit_ends {
                        return Ok((at, Some(std::mem::take(&mut self.hits))));
                    }
                }
                Stage::Head => match self.read_head(dialect, asked, left)? {
                    (len, true) => return Ok((at + len, Some(std::mem::take(&mut self.hits)))),
                    (0, false) => return Ok((at, None)),
                    (len, false) => at += len,
                },
            }
        }
    }

    /// True before an answer.
    fn is_fresh(&self) -> bool {
        matches!(self.stage, Stage::Head) && self.hits == 0
    }

    /// The bytes of what stands before a value or for all of an answer, and whether that was all;
    /// 0 where it is not there yet.
    fn read_head(&mut self, dialect: &Dialect, asked: Asked, left: &[u8]) -> Result<(usize, bool)> {
        if asked == Asked::Set {
            return match (dialect.stored.fit(left), left.strip_prefix(NO_ROOM)) {
                (Fit::Whole(len), _) => Ok((len, true)),
                // memcached, where the oldest items of a full class are in others' hands.
                (_, Some(_)) => Ok((NO_ROOM.len(), true)),
                (Fit::Part, _) => Ok((0, false)),
                (Fit::Not, _) if NO_ROOM.starts_with(left) => Ok((0, false)),
                (Fit::Not, _) => Err(wrong(left)),
            };
        }
        match (dialect.hit.fit(left), dialect.miss.fit(left)) {
            (Fit::Whole(len), _) => {
                self.stage = Stage::Value(dialect.value);
                Ok((len, false))
            }
            (_, Fit::Whole(len)) => Ok((len, true)),
            (Fit::Not, Fit::Not) => Err(wrong(left)),
            _ => Ok((0, false)),
        }
    }
}

fn wrong(bytes: &[u8]) -> Error {
    let shown = bytes[..bytes.len().min(60)].escape_ascii();
    Error::new(ErrorKind::InvalidData, format!("a wrong answer: {shown}"))
}

/// # Panics
/// If answers are not recognised however they come, or wrong ones are.
pub fn check() {
    for protocol in [Protocol::Text, Protocol::Meta, Protocol::Binary] {
        let dialect = Dialect::new(protocol, 100);
        let answer = dialect.answer();
        let whole = Reader::default().read(&dialect, Asked::Get, &answer);
        assert_eq!(whole.expect("an answer"), (answer.len(), Some(1)), "{protocol:?}");
        for cut in 0..answer.len() {
            let mut reader = Reader::default();
            let part = reader.read(&dialect, Asked::Get, &answer[..cut]).expect("a part");
            assert_eq!(part.1, None, "{protocol:?} cut at {cut}");
            let (rest, hits) =
                reader.read(&dialect, Asked::Get, &answer[part.0..]).expect("a rest");
            assert_eq!((part.0 + rest, hits), (answer.len(), Some(1)), "{protocol:?} cut at {cut}");
        }
        for (at, known) in dialect.known().iter().enumerate() {
            let mut wrong = answer.clone();
            wrong[at] ^= 1;
            let read = Reader::default().read(&dialect, Asked::Get, &wrong);
            assert_eq!(read.is_err(), known.is_some(), "{protocol:?} with a wrong byte at {at}");
        }
    }
}
