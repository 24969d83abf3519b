//! One connection that sends requests of any size in batches and checks each answer.

use crate::live::name;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests in one write; and their bytes, which the sockets' buffers take while the server sends
/// answers that nobody reads yet.
pub const BATCH: usize = 50;
const BATCH_BYTES: usize = 48 << 10;
/// Bytes of values that one batch of gets may bring.
const ANSWER_BYTES: usize = 2 << 20;
const INPUT: usize = 256 << 10;
/// A byte of a value that is not its key's.
const FILLER: u8 = b'v';
/// How an answer starts that refuses a value for want of memory.
const NO_MEMORY: &str = "SERVER_ERROR out of memory";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Get(u64),
    /// A value of `size` bytes, which starts with its key's name.
    Set {
        key: u64,
        size: usize,
        exptime: u32,
    },
    Append {
        key: u64,
        size: usize,
    },
    Delete(u64),
}

pub fn set(key: u64, size: usize) -> Request {
    Request::Set { key, size, exptime: 0 }
}

pub struct Wire {
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
    line: Vec<u8>,
    value: Vec<u8>,
}

impl Wire {
    pub fn connect(port: u16) -> Result<Wire> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let stream = BufReader::with_capacity(INPUT, stream);
        let (out, line, value) = Default::default();
        Ok(Wire { stream, out, line, value })
    }

    /// Sends all requests in order. An answer is true for what was found, stored or deleted.
    pub fn ask(&mut self, requests: &[Request]) -> Result<Vec<bool>> {
        let mut answers = Vec::with_capacity(requests.len());
        while answers.len() < requests.len() {
            let left = &requests[answers.len()..];
            self.out.clear();
            let mut count = 0;
            while count < BATCH.min(left.len()) {
                push(left[count], &mut self.out);
                count += 1;
                if self.out.len() > BATCH_BYTES {
                    break;
                }
            }
            self.stream.get_mut().write_all(&self.out)?;
            for request in &left[..count] {
                answers.push(self.answer(*request)?);
            }
        }
        Ok(answers)
    }

    /// Gets each key with a size, and sets what is not there. True for each that was there.
    pub fn look_aside(&mut self, items: &[(u64, usize)]) -> Result<Vec<bool>> {
        self.look_aside_until(items, 0)
    }

    /// The same with an exptime for what is set.
    pub fn look_aside_until(&mut self, items: &[(u64, usize)], exptime: u32) -> Result<Vec<bool>> {
        let mut found = Vec::with_capacity(items.len());
        while found.len() < items.len() {
            let left = &items[found.len()..];
            let mut bytes = 0;
            let fits = left.iter().take(BATCH).take_while(|(_, size)| {
                bytes += size;
                bytes <= ANSWER_BYTES
            });
            let batch = &left[..fits.count().max(1)];
            let gets: Vec<Request> = batch.iter().map(|(key, _)| Request::Get(*key)).collect();
            let hits = self.ask(&gets)?;
            let missed = batch.iter().zip(&hits).filter(|(_, hit)| !**hit);
            let set = |((key, size), _): (&(u64, usize), _)| Request::Set {
                key: *key,
                size: *size,
                exptime,
            };
            let sets: Vec<Request> = missed.map(set).collect();
            self.ask(&sets)?;
            found.extend(hits);
        }
        Ok(found)
    }

    fn answer(&mut self, request: Request) -> Result<bool> {
        self.read_line()?;
        let line = std::str::from_utf8(&self.line).map_err(|_| wrong(&self.line))?;
        let refused = line.starts_with(NO_MEMORY);
        match (request, line) {
            (Request::Get(_), "END") => Ok(false),
            (Request::Get(key), line) if line.starts_with("VALUE ") => {
                let size = line.rsplit(' ').next().and_then(|size| size.parse().ok());
                let size: usize = size.ok_or_else(|| wrong(&self.line))?;
                self.value(key, size)
            }
            (Request::Set { .. } | Request::Append { .. }, "STORED") => Ok(true),
            (Request::Append { .. }, "NOT_STORED") => Ok(false),
            (Request::Delete(_), "DELETED") => Ok(true),
            (Request::Delete(_), "NOT_FOUND") => Ok(false),
            (Request::Set { .. } | Request::Append { .. }, _) if refused => Ok(false),
            _ => Err(wrong(&self.line)),
        }
    }

    /// Reads a value, which must be the key's and whole.
    fn value(&mut self, key: u64, size: usize) -> Result<bool> {
        let named = self.line.get(6..22) == Some(&name(key)[..]);
        self.value.resize(size + 2, 0);
        self.stream.read_exact(&mut self.value)?;
        let shown = size.min(name(key).len());
        if !named || self.value[..shown] != name(key)[..shown] || !self.value.ends_with(b"\r\n") {
            return Err(wrong(&self.line));
        }
        self.read_line()?;
        if self.line == b"END" { Ok(true) } else { Err(wrong(&self.line)) }
    }

    /// Reads a line, and leaves its end out.
    fn read_line(&mut self) -> Result<()> {
        self.line.clear();
        self.stream.read_until(b'\n', &mut self.line)?;
        match self.line.strip_suffix(b"\r\n").map(<[u8]>::len) {
            Some(len) => self.line.truncate(len),
            None => return Err(ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    /// Sends bytes as they are; no answer is read.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The answer to a line that is answered by one line.
    pub fn line(&mut self, line: &str) -> Result<String> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.read_line()?;
        Ok(String::from_utf8_lossy(&self.line).into_owned())
    }
}

fn push(request: Request, out: &mut Vec<u8>) {
    let mut storage = |verb: &str, key: u64, size: usize, exptime: u32, named: bool| {
        out.extend_from_slice(verb.as_bytes());
        out.extend_from_slice(&name(key));
        let _ = write!(out, " 0 {exptime} {size}\r\n");
        let end = out.len() + size;
        if named {
            out.extend_from_slice(&name(key)[..size.min(name(key).len())]);
        }
        out.resize(end, FILLER);
        out.extend_from_slice(b"\r\n");
    };
    match request {
        Request::Set { key, size, exptime } => storage("set ", key, size, exptime, true),
        Request::Append { key, size } => storage("append ", key, size, 0, false),
        Request::Get(key) | Request::Delete(key) => {
            let verb = if request == Request::Get(key) { "get " } else { "delete " };
            out.extend_from_slice(verb.as_bytes());
            out.extend_from_slice(&name(key));
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn wrong(line: &[u8]) -> Error {
    let shown = line[..line.len().min(60)].escape_ascii();
    Error::new(ErrorKind::InvalidData, format!("a wrong answer: {shown}"))
}
