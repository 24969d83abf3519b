//! -P: the file with the server's process id.

use log::warn;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

/// The file, for as long as the server runs: dropped, it is removed.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    /// Writes it aside and renames it, so that nobody reads half of a number.
    pub(super) fn create(path: &Path) -> std::result::Result<PidFile, String> {
        write(path).map_err(|e| format!("-P {}: cannot write it: {e}", path.display()))?;
        Ok(PidFile(path.to_owned()))
    }
}

/// A running process that the file names is only warned about, as memcached does.
pub(super) fn warn_of_others(path: &Path) {
    if let Some(other) = running(path) {
        warn!("-P {}: process {other}, which it names, is running", path.display());
    }
}

impl Drop for PidFile {
    /// Another server's file, which took this one's place, stays.
    fn drop(&mut self) {
        let path = &self.0;
        let removed = match fs::read_to_string(path) {
            Ok(text) if pid_in(&text) != i32::try_from(process::id()).ok() => Ok(()),
            Ok(_) => fs::remove_file(path),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        };
        if let Err(e) = removed {
            warn!("-P {}: cannot remove it: {e}", path.display());
        }
    }
}

/// Root may write where others plant links: what lies there is removed, never followed.
fn write(path: &Path) -> Result<()> {
    let mut aside = OsString::from(path);
    aside.push(".tmp");
    match fs::remove_file(&aside) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&aside)?;
    let written = writeln!(file, "{}", process::id()).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // The error of the rename is the one to tell.
        let _ = fs::remove_file(&aside);
    }
    written
}

/// The process that the text of a pid file names.
fn pid_in(text: &str) -> Option<i32> {
    text.trim().parse().ok()
}

/// The process that a pid file names, where there is another such.
fn running(path: &Path) -> Option<i32> {
    let pid = pid_in(&fs::read_to_string(path).ok()?);
    let pid = pid.filter(|pid| *pid > 0 && pid.cast_unsigned() != process::id())?;
    match kill(Pid::from_raw(pid), None) {
        // Somebody else's process is a process.
        Ok(()) | Err(Errno::EPERM) => Some(pid),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A path in a fresh directory of its own.
    fn path(what: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("rc-pid-{what}-{}", process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("a directory");
        dir.join("pid")
    }

    #[test]
    fn the_file_lives_as_long_as_the_server() {
        let path = path("life");
        let file = PidFile::create(&path).expect("a pid file");
        let own = format!("{}\n", process::id());
        assert_eq!(fs::read_to_string(&path).expect("the file"), own);
        assert_eq!(fs::read_dir(path.parent().expect("its directory")).expect("it").count(), 1);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn anothers_file_stays() {
        let path = path("other");
        let file = PidFile::create(&path).expect("a pid file");
        fs::write(&path, "1\n").expect("another server's");
        drop(file);
        assert_eq!(fs::read_to_string(&path).expect("the file"), "1\n");
    }

    #[test]
    fn only_running_others_are_noticed() {
        let path = path("running");
        assert_eq!(running(&path), None);
        for (text, found) in [
            ("1\n", Some(1)),
            (" 1", Some(1)),
            ("0", None),
            ("-1", None),
            ("much", None),
            ("", None),
            // Beyond what the kernel gives out.
            ("2147483647", None),
        ] {
            fs::write(&path, text).expect("a file");
            assert_eq!(running(&path), found, "{text:?}");
        }
        fs::write(&path, process::id().to_string()).expect("a file");
        assert_eq!(running(&path), None);
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let missing = path("missing").join("deeper/pid");
        let error = PidFile::create(&missing).expect_err("no such directory");
        assert!(error.starts_with("-P ") && error.contains("deeper/pid"), "{error}");
        let directory = path("directory");
        fs::create_dir(&directory).expect("a directory");
        assert!(PidFile::create(&directory).is_err());
        assert_eq!(fs::read_dir(directory.parent().expect("above")).expect("it").count(), 1);
    }

    #[test]
    fn links_are_replaced_and_not_followed() {
        let path = path("links");
        let precious = path.with_file_name("precious");
        fs::write(&precious, "data").expect("a file");
        symlink(&precious, &path).expect("a link");
        symlink(&precious, path.with_file_name("pid.tmp")).expect("a link");
        let file = PidFile::create(&path).expect("a pid file");
        assert_eq!(fs::read_to_string(&precious).expect("the file"), "data");
        assert_eq!(fs::read_to_string(&path).expect("it"), format!("{}\n", process::id()));
        drop(file);
    }
}
