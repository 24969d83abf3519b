//! What carries a connection's bytes. Whoever reads and writes does not know which it is.

use socket2::Socket;
use std::io::{IoSlice, Read, Result, Write};
use std::os::fd::{AsRawFd, RawFd};

/// A stream whose reads take all that has come, up to the buffer's length: as with a socket, less
/// than that says that no more was there.
pub(super) enum Transport {
    Plain(Socket),
}

impl Read for Transport {
    #[inline]
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        match self {
            Transport::Plain(socket) => socket.read(into),
        }
    }
}

impl Write for Transport {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Transport::Plain(socket) => socket.write(bytes),
        }
    }

    #[inline]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> Result<usize> {
        match self {
            Transport::Plain(socket) => socket.write_vectored(slices),
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
        }
    }
}
