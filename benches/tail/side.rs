//! The second client: one connection that does something every so often, from the same thread as
//! the load that is measured, so that the two do not wait for each other's time slices.

use crate::live::{Dialect, Protocol, name};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Bytes of the values that it sets.
pub const VALUE: usize = 32;
/// Numbers of its keys start here, beyond all that are measured.
const FIRST_KEY: u64 = 1_000_000_000;
/// Sets in one write, of which there is one a turn of the load's fifty connections at the most.
const BATCH: u64 = 128;
/// Lines that answer what it asks; what a server refuses for now is asked again later.
const DONE: [&[u8]; 3] = [b"STORED\r", b"OK\r", b"MN\r"];
const REFUSED: [&[u8]; 2] = [b"BUSY ", b"NOSPARE "];

/// What it asks, again and again.
pub enum Script {
    /// These lines in turn.
    Lines(Vec<String>),
    /// Sets of so many of its keys in turn, in values of so many bytes: for ever, or each once;
    /// and a `flush_all` before every so many sets.
    Sets { keys: u64, value: usize, once: bool, flush_every: Option<u64> },
}

pub struct Side {
    socket: TcpStream,
    script: Script,
    dialect: Dialect,
    /// How many requests were made.
    asked: u64,
    requests: Vec<u8>,
    /// Lines that are still to come, and the front of one that came in part.
    due: usize,
    held: Vec<u8>,
    pause: Duration,
    next: Instant,
    /// How many were done, and refused.
    pub done: u64,
    pub refused: u64,
}

impl Side {
    /// `pause`: from one write to the next, unless the first is not answered by then.
    pub fn new(port: u16, script: Script, pause: Duration) -> Result<Side> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let value = if let Script::Sets { value, .. } = script { value } else { VALUE };
        Ok(Side {
            socket,
            script,
            dialect: Dialect::new(Protocol::Text, value),
            asked: 0,
            requests: Vec::new(),
            due: 0,
            held: Vec::new(),
            pause,
            next: Instant::now(),
            done: 0,
            refused: 0,
        })
    }

    /// Sets at so many a second.
    pub fn setter(port: u16, script: Script, rate: u64) -> Result<Side> {
        Side::new(port, script, Duration::from_secs(1) * BATCH as u32 / rate as u32)
    }

    /// Takes answers and asks, where it is time to; false when all is done.
    pub fn turn(&mut self) -> Result<bool> {
        if self.due > 0 {
            self.hear()?;
        }
        let now = Instant::now();
        if self.due > 0 || now < self.next {
            return Ok(true);
        }
        self.next = now.max(self.next + self.pause);
        self.compose();
        self.socket.write_all(&self.requests)?;
        Ok(self.due > 0)
    }

    /// Does all of it at once.
    pub fn finish(mut self) -> Result<()> {
        while self.turn()? {}
        Ok(())
    }

    fn compose(&mut self) {
        self.requests.clear();
        match &self.script {
            Script::Lines(lines) => {
                let line = &lines[self.asked as usize % lines.len()];
                self.requests.extend_from_slice(line.as_bytes());
                self.asked += 1;
                self.due = 1;
            }
            Script::Sets { keys, once, flush_every, .. } => {
                for _ in 0..BATCH {
                    if *once && self.asked == *keys {
                        break;
                    }
                    if flush_every.is_some_and(|every| self.asked % every == every - 1) {
                        self.requests.extend_from_slice(b"flush_all\r\n");
                        self.due += 1;
                    }
                    let key = name(FIRST_KEY + self.asked % keys);
                    self.dialect.push_set(key, &mut self.requests);
                    self.asked += 1;
                    self.due += 1;
                }
            }
        }
    }

    fn hear(&mut self) -> Result<()> {
        let mut input = [0; 4096];
        let len = match self.socket.read(&mut input) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        };
        self.held.extend_from_slice(&input[..len]);
        let Some(end) = memchr::memrchr(b'\n', &self.held) else { return Ok(()) };
        for line in self.held[..end].split(|byte| *byte == b'\n') {
            let refused = REFUSED.iter().any(|start| line.starts_with(start));
            if self.due == 0 || !refused && !DONE.contains(&line) {
                let shown = line.escape_ascii();
                return Err(Error::other(format!("the second client was answered {shown}")));
            }
            self.due -= 1;
            self.done += u64::from(!refused);
            self.refused += u64::from(refused);
        }
        self.held.drain(..=end);
        Ok(())
    }
}
