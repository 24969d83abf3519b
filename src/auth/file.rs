//! The file of -Y: `user:password` lines, read at the start and again on SIGHUP.
//!
//! As in memcached a file has few users and short lines. Where memcached cuts what is beyond that
//! without a word, the file is refused here.

use log::warn;
use parking_lot::RwLock;
use std::fs::File;
use std::io::{Read, Result as IoResult};
use std::path::{Path, PathBuf};
use subtle::{Choice, ConstantTimeEq};

/// Users that count; memcached's limit. Further ones are left out with a warning.
pub const USERS_MAX: usize = 8;
/// Longest line, bytes without its end; memcached's buffer for it.
const LINE_MAX: usize = 255;
/// Largest file, bytes: room for comments, but none for a device that never ends.
const FILE_MAX: u64 = 64 << 10;
/// Bytes of a [`Field`].
const FIELD_LEN: usize = LINE_MAX + 1;

/// Its users, which a reload replaces as a whole.
pub struct AuthFile {
    path: PathBuf,
    users: RwLock<Vec<User>>,
}

#[derive(Debug)]
struct User {
    name: Field,
    password: Field,
}

/// A name or a password behind its length, filled up with zeros: all take equally long to compare.
type Field = [u8; FIELD_LEN];

impl AuthFile {
    /// Reads the file. An error names it and the reason.
    pub fn open(path: PathBuf) -> Result<AuthFile, String> {
        let users = read(&path)?;
        Ok(AuthFile { path, users: RwLock::new(users) })
    }

    /// Reads the file again. Where that fails, the old users stay, and the error says why.
    pub fn reload(&self) -> Result<(), String> {
        let users = read(&self.path)?;
        *self.users.write() = users;
        Ok(())
    }

    /// True where the file has this user with this password. How long it takes does not tell how
    /// much of either was right.
    pub fn check(&self, name: &[u8], password: &[u8]) -> bool {
        let (Some(name), Some(password)) = (field(name), field(password)) else { return false };
        let users = self.users.read();
        let matches = users.iter().map(|user| {
            user.name.as_slice().ct_eq(&name) & user.password.as_slice().ct_eq(&password)
        });
        matches.fold(Choice::from(0), |any, one| any | one).into()
    }
}

fn field(bytes: &[u8]) -> Option<Field> {
    let mut field = [0; FIELD_LEN];
    field[0] = u8::try_from(bytes.len()).ok()?;
    field[1..=bytes.len()].copy_from_slice(bytes);
    Some(field)
}

fn read(path: &Path) -> Result<Vec<User>, String> {
    let failed = |why: String| format!("auth file {}: {why}", path.display());
    let bytes = read_bytes(path).map_err(|e| failed(e.to_string()))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(failed(format!("is longer than {FILE_MAX} bytes")));
    }
    let mut users = parse(&bytes).map_err(failed)?;
    if users.len() > USERS_MAX {
        warn!("auth file {}: only the first {USERS_MAX} users count", path.display());
        users.truncate(USERS_MAX);
    }
    Ok(users)
}

/// One byte more than there may be.
fn read_bytes(path: &Path) -> IoResult<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Every line's user; empty lines and those that start with `#` have none. The last line needs no
/// end.
fn parse(text: &[u8]) -> Result<Vec<User>, String> {
    let mut users = Vec::new();
    for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() && line[0] != b'#' {
            users.push(user(line).map_err(|why| format!("line {number} {why}"))?);
        }
    }
    if users.is_empty() { Err("names no user".into()) } else { Ok(users) }
}

fn user(line: &[u8]) -> Result<User, String> {
    const MALFORMED: &str = "is malformed, it should be user:password";
    if line.len() > LINE_MAX {
        return Err(format!("is longer than {LINE_MAX} bytes"));
    }
    if line.contains(&0) || line.contains(&b'\r') {
        return Err(MALFORMED.into());
    }
    let colon = line.iter().position(|&byte| byte == b':').ok_or(MALFORMED)?;
    let (name, password) = (field(&line[..colon]), field(&line[colon + 1..]));
    name.zip(password).map(|(name, password)| User { name, password }).ok_or(MALFORMED.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn file(text: &[u8]) -> Result<AuthFile, String> {
        parse(text).map(|users| AuthFile { path: PathBuf::new(), users: RwLock::new(users) })
    }

    #[test]
    fn users_are_who_the_file_says() {
        let file = file(b"# staff\n\nfoo:bar\r\nbaaaz:quux\nodd:a:b c\nempty:\nlast:line").unwrap();
        let good: [(&[u8], &[u8]); 5] = [
            (b"foo", b"bar"),
            (b"baaaz", b"quux"),
            (b"odd", b"a:b c"),
            (b"empty", b""),
            (b"last", b"line"),
        ];
        for (name, password) in good {
            assert!(file.check(name, password), "{}", name.escape_ascii());
        }
        let long = [b'x'; 300];
        let bad: [(&[u8], &[u8]); 8] = [
            (b"foo", b"ba"),
            (b"foo", b"bar\0"),
            (b"foo", b"quux"),
            (b"foo:bar", b""),
            (b"", b""),
            (b"# staff", b""),
            (&long, b"bar"),
            (b"foo", &long),
        ];
        for (name, password) in bad {
            assert!(!file.check(name, password), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn bad_files_are_refused_by_line() {
        let long = [&b"a:b\nc:"[..], &[b'x'; 254]].concat();
        let cases: [(&[u8], &str); 7] = [
            (b"", "names no user"),
            (b"# nobody\n\n", "names no user"),
            (b"a:b\nc", "line 2 is malformed"),
            (b"a:b\n \n", "line 2 is malformed"),
            (b"a\0:b\n", "line 1 is malformed"),
            (b"a:b\rc:d\n", "line 1 is malformed"),
            (&long, "line 2 is longer than 255 bytes"),
        ];
        for (text, part) in cases {
            let error = parse(text).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
        assert!(parse(&long[..long.len() - 1]).is_ok(), "255 bytes are short enough");
    }

    #[test]
    fn a_reload_replaces_all_users_or_none() {
        let dir = std::env::temp_dir().join(format!("rc-auth-file-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("users");
        assert!(AuthFile::open(path.clone()).is_err_and(|e| e.contains("users: No such file")));
        fs::write(&path, "a:1\nb:2\n").unwrap();
        let file = AuthFile::open(path.clone()).unwrap();
        fs::write(&path, "b:3\nbad line\n").unwrap();
        assert!(file.reload().is_err_and(|e| e.contains("line 2")));
        assert!(file.check(b"a", b"1") && file.check(b"b", b"2") && !file.check(b"b", b"3"));
        fs::write(&path, "b:3\n").unwrap();
        file.reload().unwrap();
        assert!(!file.check(b"a", b"1") && !file.check(b"b", b"2") && file.check(b"b", b"3"));
        let many: String = (0..20).map(|i| format!("u{i}:p\n")).collect();
        fs::write(&path, many).unwrap();
        file.reload().unwrap();
        assert!(file.check(b"u7", b"p") && !file.check(b"u8", b"p"));
        fs::write(&path, vec![b'#'; FILE_MAX as usize + 1]).unwrap();
        assert!(file.reload().is_err_and(|e| e.contains("longer than 65536")));
        fs::remove_dir_all(&dir).unwrap();
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(text: Vec<u8>, name: Vec<u8>, password: Vec<u8>) {
            if let Ok(file) = file(&text) {
                let line = [&name[..], b":", &password].concat();
                let found = text.split(|&b| b == b'\n').any(|l| l == line);
                prop_assert!(found || !file.check(&name, &password));
            }
        }

        #[test]
        fn every_line_lets_its_user_in(name in "[a-z]{0,20}", password in "[ -~]{0,100}") {
            let file = file(format!("{name}:{password}\n").as_bytes()).unwrap();
            prop_assert!(file.check(name.as_bytes(), password.as_bytes()));
        }
    }
}
