//! The file of `MEMCACHED_SASL_PWDB`: `user:password` lines, what follows a further colon is not
//! looked at. It may change at any time; an attempt to log in looks whether it did.

use log::{info, warn};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{Error, Read, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subtle::{Choice, ConstantTimeEq};

/// Longest line, bytes without its end; memcached's buffer for it. A longer one is skipped.
const LINE_MAX: usize = 254;
/// Largest file, bytes.
const FILE_MAX: u64 = 16 << 20;

/// What tells one state of the file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// All users, as the file was last read.
#[derive(Default)]
pub(super) struct Users(HashMap<Vec<u8>, Vec<Vec<u8>>>);

pub(super) struct Passwords {
    path: PathBuf,
    /// As Cyrus does for memcached, a name without a realm is also looked for in this one.
    host: Vec<u8>,
    present: Mutex<(Option<Stamp>, Arc<Users>)>,
}

impl Passwords {
    /// Reads the file; one that cannot be read now may be later, and has no users until then.
    pub(super) fn open(path: PathBuf, host: Vec<u8>) -> Passwords {
        let passwords = Passwords { path, host, present: Mutex::default() };
        if let Err(e) = passwords.refresh() {
            warn!("-S: nobody can log in yet: {}: {e}", passwords.path.display());
        }
        passwords
    }

    /// Its users now. Costs a look at the file's metadata while it stays as it is. A file that is
    /// gone has no users.
    pub(super) fn users(&self) -> Arc<Users> {
        self.refresh().unwrap_or_else(|e| {
            info!("-S: {}: {e}", self.path.display());
            let mut present = self.present.lock();
            *present = (None, Arc::default());
            present.1.clone()
        })
    }

    fn refresh(&self) -> Result<Arc<Users>> {
        let stamp = Stamp::of(&std::fs::metadata(&self.path)?);
        let mut present = self.present.lock();
        if present.0 != Some(stamp) {
            *present = (Some(stamp), Arc::new(Users::parse(&read(&self.path)?)));
        }
        Ok(present.1.clone())
    }

    /// The passwords of a user, the one to use first where only one can be.
    pub(super) fn of<'a>(&self, users: &'a Users, name: &[u8]) -> &'a [Vec<u8>] {
        let found = users.0.get(name).or_else(|| {
            let full = [name, b"@", &self.host].concat();
            users.0.get(&full).filter(|_| !name.contains(&b'@'))
        });
        found.map_or(&[], Vec::as_slice)
    }

    /// True where the user has this password. How long it takes does not tell how much of it was
    /// right.
    pub(super) fn check(&self, name: &[u8], password: &[u8]) -> bool {
        let users = self.users();
        let matches = self.of(&users, name).iter().map(|known| known.as_slice().ct_eq(password));
        matches.fold(Choice::from(0), |any, one| any | one).into()
    }
}

impl Stamp {
    fn of(file: &Metadata) -> Stamp {
        Stamp {
            device: file.dev(),
            inode: file.ino(),
            len: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

impl Users {
    /// As memcached compares, a password may end at any colon that follows it.
    fn parse(text: &[u8]) -> Users {
        let mut users = Users::default();
        for line in text.split(|&byte| byte == b'\n').filter(|line| line.len() <= LINE_MAX) {
            let line = line.split(|&byte| byte == b'\r' || byte == 0).next().unwrap_or_default();
            let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
            let (name, rest) = (&line[..colon], &line[colon + 1..]);
            let ends = (0..=rest.len()).filter(|&at| matches!(rest.get(at), None | Some(b':')));
            let known = users.0.entry(name.to_vec()).or_default();
            known.extend(ends.filter(|&at| at > 0).map(|at| rest[..at].to_vec()));
        }
        users
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        0..=FILE_MAX => Ok(bytes),
        _ => Err(Error::other(format!("longer than {FILE_MAX} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn passwords(name: &str) -> Passwords {
        let path = std::env::temp_dir().join(format!("rc-{name}-{}", std::process::id()));
        Passwords::open(path, b"host".to_vec())
    }

    #[test]
    fn users_are_found_as_memcached_finds_them() {
        let file = passwords("pwdb");
        let long = format!("long:{}\n", "x".repeat(250));
        let text = "plain:secret\r\nfull@host:secret:::\ncolon:a:b\n:nobody\nempty:\nno line\n\
                    plain:other\n";
        fs::write(&file.path, format!("{long}{text}last@elsewhere:end")).unwrap();
        for (name, password) in [
            ("plain", "secret"),
            ("plain", "other"),
            ("full", "secret"),
            ("full@host", "secret"),
            ("full", "secret::"),
            ("colon", "a"),
            ("colon", "a:b"),
            ("last@elsewhere", "end"),
        ] {
            assert!(file.check(name.as_bytes(), password.as_bytes()), "{name} {password}");
        }
        for (name, password) in [
            ("plain", "secre"),
            ("plain", "secret\r"),
            ("plain@host", "secret"),
            ("full@elsewhere", "secret"),
            ("last", "end"),
            ("empty", ""),
            ("colon", "b"),
            ("colon:a", "b"),
            ("no line", ""),
            ("long", "x"),
        ] {
            assert!(!file.check(name.as_bytes(), password.as_bytes()), "{name} {password}");
        }
        fs::remove_file(&file.path).unwrap();
    }

    #[test]
    fn the_file_may_change_at_any_time() {
        let file = passwords("pwdb-changes");
        assert!(!file.check(b"a", b"1"), "it is not there yet");
        fs::write(&file.path, "a:1\n").unwrap();
        assert!(file.check(b"a", b"1"));
        fs::write(&file.path, "a:12\n").unwrap();
        assert!(file.check(b"a", b"12") && !file.check(b"a", b"1"));
        fs::remove_file(&file.path).unwrap();
        assert!(!file.check(b"a", b"12"));
    }
}
