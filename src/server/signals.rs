//! Signals, as a file that becomes readable and two flags.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::{flag, low_level::pipe};
use std::io::{ErrorKind, Read, Result};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The signals that end the server. SIGPIPE is ignored from the start: Rust programs are born so.
const STOPPING: [i32; 3] = [SIGTERM, SIGINT, SIGUSR1];

/// What was caught so far.
pub(super) struct Signals {
    stop: Arc<AtomicBool>,
    hangup: Arc<AtomicBool>,
    pipe: UnixStream,
}

impl Signals {
    pub(super) fn catch() -> Result<Signals> {
        let (pipe, sender) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        sender.set_nonblocking(true)?;
        let signals = Signals { stop: Arc::default(), hangup: Arc::default(), pipe };
        for signal in STOPPING {
            flag::register(signal, signals.stop.clone())?;
        }
        flag::register(SIGHUP, signals.hangup.clone())?;
        // Nobody asks whether it came: what would make a file too long fails, and says so.
        flag::register(SIGXFSZ, Arc::default())?;
        // Behind the flags: they are set when the pipe wakes somebody.
        for signal in STOPPING.into_iter().chain([SIGHUP]) {
            pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(signals)
    }

    /// The file that is readable after a signal, edge-triggered.
    pub(super) fn file(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }

    /// True once a signal said stop.
    pub(super) fn stop(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// True once for each time that SIGHUP came.
    pub(super) fn take_hangup(&self) -> bool {
        self.hangup.swap(false, Relaxed)
    }

    /// Makes the file unreadable until the next signal.
    pub(super) fn drain(&self) -> Result<()> {
        let mut buf = [0; 64];
        loop {
            match (&self.pipe).read(&mut buf) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}
