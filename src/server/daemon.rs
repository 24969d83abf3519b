//! -d: the server leaves its terminal, and whoever started it waits until it is up or has failed.

use crate::config::Settings;
use daemonize::{Daemonize, Outcome, Stdio};
use log::warn;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stderr, dup2_stdout};
use std::env;
use std::fs::{File, OpenOptions};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::path::{PathBuf, absolute};
use std::process::exit;

/// The exit status of a server that could not start or go on: `EX_OSERR` of sysexits.h, as
/// memcached's.
pub const EX_OSERR: i32 = 71;
/// What the daemon tells the process that was started.
const READY: [u8; 1] = [1];

/// A server on its way up.
pub(super) struct Launch {
    /// The process that was started, where that is not this one.
    parent: Option<Parent>,
}

struct Parent {
    /// Tells it.
    told: PipeWriter,
    /// What takes the place of the stdout and stderr that are still its own.
    null: File,
}

impl Launch {
    /// With -d, goes on in a child without a terminal. The process that was started stays until
    /// that one is ready, and ends with status 0, or until it is gone, and ends with [`EX_OSERR`];
    /// what went wrong is on stderr, which both have. There may be no other thread yet.
    ///
    /// The child changes its directory, so names of files are made whole.
    pub(super) fn begin(settings: &mut Settings) -> std::result::Result<Launch, String> {
        if !settings.daemonize {
            return Ok(Launch { parent: None });
        }
        let failed = |e: &dyn std::fmt::Display| format!("-d: cannot become a daemon: {e}");
        let files = [
            &mut settings.pid_file,
            &mut settings.unix_socket,
            &mut settings.auth_file,
            &mut settings.memory_file,
        ];
        for path in files.into_iter().flatten() {
            *path = absolute(&*path).map_err(|e| failed(&e))?;
        }
        let (reader, writer) = pipe().map_err(|e| failed(&e))?;
        // Later it might not be allowed.
        let null = OpenOptions::new().read(true).write(true).open("/dev/null");
        let null = null.map_err(|e| failed(&e))?;
        let outcome = Daemonize::new()
            .working_directory(directory(settings))
            .umask(present_umask().bits())
            .stdout(Stdio::keep())
            .stderr(Stdio::keep())
            .execute();
        match outcome {
            Outcome::Parent(Ok(_)) => {
                drop(writer);
                exit(status_of(reader));
            }
            Outcome::Child(Ok(_)) => Ok(Launch { parent: Some(Parent { told: writer, null }) }),
            Outcome::Parent(Err(e)) | Outcome::Child(Err(e)) => Err(failed(&e)),
        }
    }

    /// Lets the process that was started end. From here on the daemon says no more on its stdout
    /// and stderr; with -v it goes on, as memcached does.
    pub(super) fn ready(self, settings: &Settings) {
        let Some(Parent { mut told, null }) = self.parent else { return };
        if settings.verbosity == 0
            && let Err(e) = dup2_stdout(&null).and_then(|()| dup2_stderr(&null))
        {
            warn!("-d: cannot let go of stdout and stderr: {e}");
        }
        if let Err(e) = told.write_all(&READY) {
            warn!("-d: whoever started this is gone: {e}");
        }
    }
}

/// As memcached: core dumps stay where the server was started, and anything else goes to the root,
/// so that no file system is kept in use.
fn directory(settings: &Settings) -> PathBuf {
    let here = settings.max_core_dumps.then(|| env::current_dir().ok()).flatten();
    here.unwrap_or_else(|| "/".into())
}

fn present_umask() -> Mode {
    let mask = umask(Mode::empty());
    umask(mask);
    mask
}

/// The exit status of the process that was started, once the daemon is ready or gone.
fn status_of(mut daemon: PipeReader) -> i32 {
    match daemon.read_exact(&mut [0; READY.len()]) {
        Ok(()) => 0,
        Err(_) => EX_OSERR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_starter_ends_as_the_daemon_fares() {
        let (reader, mut writer) = pipe().expect("a pipe");
        writer.write_all(&READY).expect("a byte");
        assert_eq!(status_of(reader), 0);
        let (reader, writer) = pipe().expect("a pipe");
        drop(writer);
        assert_eq!(status_of(reader), EX_OSERR);
    }

    #[test]
    fn core_dumps_stay_where_the_server_was_started() {
        let settings = |max_core_dumps| Settings { max_core_dumps, ..Settings::default() };
        assert_eq!(directory(&settings(false)), PathBuf::from("/"));
        assert_eq!(directory(&settings(true)), env::current_dir().expect("a directory"));
    }
}
