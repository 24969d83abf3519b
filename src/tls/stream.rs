//! A socket that speaks TLS. It holds bytes only while a record came in part, while one that came
//! whole was not all read, or while the peer takes none.

use crate::stats::TlsStats;
use rustls::Error as TlsError;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use socket2::Socket;
use std::cell::RefCell;
use std::io::{Error, ErrorKind, IoSlice, Read, Result, Write};
use std::mem::take;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes taken from the socket at once, at most.
const READ_MAX: usize = 64 << 10;
/// Bytes taken from the socket at once, at least, however few the reader wants.
const READ_MIN: usize = 4 << 10;
/// A record or a message of the handshake that is longer than this ends the connection. Handshakes
/// that people have are far below, records half as long at most.
const PART_MAX: usize = 64 << 10;
/// The plain text of one record.
const RECORD_MAX: usize = 16 << 10;
/// What a record adds to its plain text, at most.
const RECORD_EXTRA: usize = 64;

/// What a thread lends to the stream that it works on.
struct Scratch {
    /// What came from the socket, behind the part of a record that came before.
    input: Box<[u8]>,
    /// Small answers, gathered to a record.
    plain: Vec<u8>,
    /// Encrypted records.
    output: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; PART_MAX + READ_MAX].into(),
        plain: Vec::with_capacity(RECORD_MAX),
        output: Vec::new(),
    });
}

/// A TLS connection. Reads and writes are those of a socket that does not block, but that a write
/// which was refused must be tried again with the same bytes: they are encrypted already.
pub struct Stream {
    socket: Socket,
    session: UnbufferedServerConnection,
    /// The front of a record.
    part: Vec<u8>,
    /// Decrypted bytes, from `ready_at` on, that nobody took yet.
    ready: Vec<u8>,
    ready_at: usize,
    /// Records that the peer did not take yet.
    unsent: Vec<u8>,
    /// Plain bytes in `unsent` that the writer believes unwritten.
    owed: usize,
    /// Plain bytes encrypted at once.
    write_max: usize,
    /// More may be waiting in the socket.
    more: bool,
    /// The peer sends no more.
    ended: bool,
    /// Bytes of the client's certificates, which the session keeps.
    certificates: usize,
    stats: Arc<TlsStats>,
}

impl Stream {
    pub(super) fn new(
        socket: Socket,
        session: UnbufferedServerConnection,
        write_max: usize,
        stats: Arc<TlsStats>,
    ) -> Stream {
        stats.connections.fetch_add(1, Relaxed);
        Stream {
            socket,
            session,
            part: Vec::new(),
            ready: Vec::new(),
            ready_at: 0,
            unsent: Vec::new(),
            owed: 0,
            write_max,
            more: true,
            ended: false,
            certificates: 0,
            stats,
        }
    }

    /// Goes on with the handshake as far as what has come allows; true when it is done. After an
    /// error the peer has been told what was wrong, if it listens.
    pub fn handshake(&mut self) -> Result<bool> {
        loop {
            match self.flush() {
                Ok(()) if !self.session.is_handshaking() => {
                    let shown = self.session.peer_certificates().unwrap_or_default();
                    self.certificates = shown.iter().map(|certificate| certificate.len()).sum();
                    return Ok(true);
                }
                Ok(()) if self.ended => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
            match self.receive(&mut []) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    }

    /// Bytes that it holds beside its session.
    pub fn held(&self) -> usize {
        let buffers = self.part.capacity() + self.ready.capacity() + self.unsent.capacity();
        buffers + self.certificates
    }

    /// True where a read has something to say at once, though the socket may have nothing.
    pub fn has_more(&self) -> bool {
        self.more || self.ended || self.ready_at < self.ready.len()
    }

    /// Tells the peer that no more will come, if it takes that at once.
    pub fn say_goodbye(&mut self) {
        if !self.unsent.is_empty() {
            return;
        }
        let mut part = take(&mut self.part);
        let UnbufferedStatus { state, .. } = self.session.process_tls_records(&mut part);
        if let Ok(ConnectionState::WriteTraffic(mut writer)) = state {
            let mut record = [0; 2 * RECORD_EXTRA];
            if let Ok(n) = writer.queue_close_notify(&mut record) {
                // Whoever is gone needs no goodbye.
                let _ = (&self.socket).write(&record[..n]);
            }
        }
    }

    /// Sends what is encrypted already; `WouldBlock` where the peer does not take it all.
    fn flush(&mut self) -> Result<()> {
        let mut sent = 0;
        let result = loop {
            if sent == self.unsent.len() {
                break Ok(());
            }
            match (&self.socket).write(&self.unsent[sent..]) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        if result.is_ok() {
            self.unsent = Vec::new();
        } else {
            self.unsent.drain(..sent);
        }
        result
    }

    /// Reads from the socket once and works on all whole records. Returns how many decrypted bytes
    /// were put in `into`; what does not fit is kept in `ready`.
    fn receive(&mut self, into: &mut [u8]) -> Result<usize> {
        SCRATCH.with_borrow_mut(|scratch| {
            let held = self.part.len();
            if held >= PART_MAX {
                return Err(Error::new(ErrorKind::InvalidData, TlsError::General(TOO_LONG.into())));
            }
            let want = into.len().clamp(READ_MIN, READ_MAX);
            let input = &mut scratch.input[..held + want];
            let got = (&self.socket).read(&mut input[held..])?;
            self.more = got == want;
            self.ended |= got == 0;
            input[..held].copy_from_slice(&self.part);
            self.part = Vec::new();
            let input = &mut input[..held + got];
            let mut used = 0;
            let taken = self.process(input, &mut used, into).map_err(|e| {
                self.tell(&mut input[used..]);
                Error::new(ErrorKind::InvalidData, e)
            })?;
            if used < input.len() {
                self.part = input[used..].to_vec();
            }
            if !self.unsent.is_empty() {
                match self.flush() {
                    Err(e) if e.kind() != ErrorKind::WouldBlock => return Err(e),
                    _ => {}
                }
            }
            Ok(taken)
        })
    }

    /// Works on the whole records in `input`, whose first `used` bytes are done with. Returns how
    /// many decrypted bytes were put in `into`.
    fn process(
        &mut self,
        input: &mut [u8],
        used: &mut usize,
        into: &mut [u8],
    ) -> std::result::Result<usize, TlsError> {
        let mut taken = 0;
        loop {
            let status = self.session.process_tls_records(&mut input[*used..]);
            let UnbufferedStatus { discard, state, .. } = status;
            *used += discard;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        *used += record.discard;
                        let n = record.payload.len().min(into.len() - taken);
                        into[taken..taken + n].copy_from_slice(&record.payload[..n]);
                        taken += n;
                        self.ready.extend_from_slice(&record.payload[n..]);
                    }
                }
                state @ ConnectionState::EncodeTlsData(_) => encode(state, &mut self.unsent)?,
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.ended = true;
                    *used = input.len();
                    return Ok(taken);
                }
                // The handshake waits for more, or there is nothing but to write.
                _ => return Ok(taken),
            }
        }
    }

    /// After an error: what rustls wants the peer to know of it. `input`: what is not done with.
    fn tell(&mut self, input: &mut [u8]) {
        let status = self.session.process_tls_records(input);
        if let Ok(state @ ConnectionState::EncodeTlsData(_)) = status.state
            && encode(state, &mut self.unsent).is_ok()
        {
            // The connection is given up, whether the peer reads this or not.
            let _ = self.flush();
        }
    }

    /// Encrypts up to `write_max` bytes of `slices` to `output`; returns how many bytes of each.
    fn encrypt(&mut self, slices: &[IoSlice<'_>], scratch: &mut Scratch) -> Result<(usize, usize)> {
        let mut part = take(&mut self.part);
        let UnbufferedStatus { state, .. } = self.session.process_tls_records(&mut part);
        let Ok(ConnectionState::WriteTraffic(mut writer)) = state else {
            return Err(ErrorKind::BrokenPipe.into());
        };
        let Scratch { plain, output, .. } = scratch;
        let (mut accepted, mut encrypted) = (0, 0);
        let mut pieces = slices.iter().map(|slice| &**slice);
        let mut piece: &[u8] = pieces.next().unwrap_or_default();
        while accepted < self.write_max {
            let record_max = RECORD_MAX.min(self.write_max - accepted);
            plain.clear();
            while plain.len() < record_max && piece.len() < record_max {
                let n = piece.len().min(record_max - plain.len());
                plain.extend_from_slice(&piece[..n]);
                piece = &piece[n..];
                if piece.is_empty() {
                    let Some(next) = pieces.next() else { break };
                    piece = next;
                }
            }
            // A record's worth in one piece is encrypted from where it lies.
            let record: &[u8] = if plain.is_empty() {
                let (record, rest) = piece.split_at(record_max.min(piece.len()));
                piece = rest;
                record
            } else {
                plain
            };
            if record.is_empty() {
                break;
            }
            encrypted += encrypt_record(&mut writer, record, output, encrypted)?;
            accepted += record.len();
        }
        self.part = part;
        Ok((accepted, encrypted))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stats.connections.fetch_sub(1, Relaxed);
    }
}

const TOO_LONG: &str = "a record or message of the handshake is too long";

type Writer<'c> = rustls::unbuffered::WriteTraffic<'c, ServerConnectionData>;

/// Encrypts one record to `output[at..]`, which grows where it must; returns its length.
fn encrypt_record(
    writer: &mut Writer<'_>,
    record: &[u8],
    output: &mut Vec<u8>,
    at: usize,
) -> Result<usize> {
    let mut room = record.len() + RECORD_EXTRA;
    loop {
        if output.len() < at + room {
            output.resize(at + room, 0);
        }
        match writer.encrypt(record, &mut output[at..]) {
            Ok(n) => return Ok(n),
            // An update of the keys goes with it.
            Err(EncryptError::InsufficientSize(e)) if e.required_size > room => {
                room = e.required_size;
            }
            Err(e) => return Err(Error::other(e)),
        }
    }
}

/// Appends a message of the handshake to what is to be sent.
fn encode(
    state: ConnectionState<'_, '_, ServerConnectionData>,
    unsent: &mut Vec<u8>,
) -> std::result::Result<(), TlsError> {
    let ConnectionState::EncodeTlsData(mut message) = state else { return Ok(()) };
    let at = unsent.len();
    let needed = match message.encode(&mut []) {
        Err(EncodeError::InsufficientSize(e)) => e.required_size,
        _ => return Ok(()),
    };
    unsent.resize(at + needed, 0);
    let written = message.encode(&mut unsent[at..]);
    let written = written.map_err(|e| TlsError::General(e.to_string()))?;
    unsent.truncate(at + written);
    Ok(())
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        loop {
            let ready = &self.ready[self.ready_at..];
            if !ready.is_empty() {
                let n = ready.len().min(into.len());
                into[..n].copy_from_slice(&ready[..n]);
                self.ready_at += n;
                // The socket was not asked, so nothing is known of it.
                self.more = true;
                if self.ready_at == self.ready.len() {
                    (self.ready, self.ready_at) = (Vec::new(), 0);
                }
                return Ok(n);
            }
            if self.ended {
                return Ok(0);
            }
            match self.receive(into)? {
                0 => {}
                n => return Ok(n),
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Result<usize> {
        if !self.unsent.is_empty() {
            self.flush()?;
        }
        if self.owed > 0 {
            return Ok(take(&mut self.owed));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let (accepted, encrypted) = self.encrypt(slices, scratch)?;
            let records = &scratch.output[..encrypted];
            let sent = match (&self.socket).write(records) {
                Ok(n) => n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
                Err(e) => return Err(e),
            };
            if sent < encrypted {
                self.unsent = records[sent..].to_vec();
                self.owed = accepted;
                // Until the system says so itself, it does not tell of room.
                self.flush()?;
            }
            self.owed = 0;
            Ok(accepted)
        })
    }

    fn flush(&mut self) -> Result<()> {
        Stream::flush(self)
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// True for an error of [`Stream`] that is the protocol's, not the socket's.
pub fn is_protocol_error(error: &Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TlsError>())
}
