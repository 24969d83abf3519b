//! What carries a connection's bytes. Whoever reads and writes does not know which it is.
//!
//! Plain sockets are read and written by bare system calls: as a point at which its thread may be
//! cancelled, each of the C library's costs two atomic exchanges, which is more than a look-up.
//! Those of contiguous bytes are inlined into whoever asks: a return that follows a system call is
//! mispredicted, as the kernel's own calls have pushed it out of the processor's memory of returns.

use crate::tls;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::Socket;
use std::io::{IoSlice, Read, Result, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// A stream that does not block.
pub enum Transport {
    Plain(Socket),
    /// Its handshake is done.
    Tls(Box<tls::Stream>),
}

impl Transport {
    /// True where a read has something to say though the socket may have nothing. Without that, a
    /// read which did not fill its buffer says that no more is there.
    #[inline]
    pub(super) fn has_more(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(stream) => stream.has_more(),
        }
    }

    /// Where the bytes come as they were sent: the socket, and how many have come.
    pub(super) fn has_come(&self) -> Option<(BorrowedFd<'_>, usize)> {
        let Transport::Plain(socket) = self else { return None };
        let came = rustix::io::ioctl_fionread(socket).ok()?;
        Some((socket.as_fd(), came as usize))
    }

    /// Bytes that it keeps beside its session.
    #[inline]
    pub(super) fn held(&self) -> usize {
        match self {
            Transport::Plain(_) => 0,
            Transport::Tls(stream) => stream.held(),
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Transport::Tls(_))
    }

    /// Ends the stream as its protocol wants it, before it is dropped.
    pub(super) fn close(&mut self) {
        if let Transport::Tls(stream) = self {
            stream.say_goodbye();
        }
    }
}

impl Read for Transport {
    #[inline(always)]
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        match self {
            Transport::Plain(socket) => Ok(recv(socket, into, RecvFlags::empty())?.0),
            Transport::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Transport {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Transport::Plain(socket) => Ok(send(socket, bytes, SendFlags::NOSIGNAL)?),
            Transport::Tls(stream) => stream.write(bytes),
        }
    }

    #[inline]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Result<usize> {
        match self {
            Transport::Plain(socket) => socket.write_vectored(slices),
            Transport::Tls(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl AsRawFd for Transport {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Transport::Plain(socket) => socket.as_raw_fd(),
            Transport::Tls(stream) => stream.as_raw_fd(),
        }
    }
}
