//! Who may come in, as clients and operators meet it: the users of -Y.

mod common;

use common::{Client, FREE_AND_CONFINED, Random, Server, other_server, server_path, temp_dir};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const UNAUTHENTICATED: &[u8] = b"CLIENT_ERROR unauthenticated\r\n";
const FAILED: &[u8] = b"CLIENT_ERROR authentication failure\r\n";
const STORED: &[u8] = b"STORED\r\n";

/// A server with a file of users in a directory of its own.
struct Gated {
    server: Server,
    dir: PathBuf,
}

impl Gated {
    fn start(users: &str) -> Gated {
        Gated::start_with(users, &[])
    }

    fn start_with(users: &str, options: &[&str]) -> Gated {
        let dir = temp_dir("auth");
        fs::write(dir.join("users"), users).expect("a file of users");
        let users = dir.join("users").display().to_string();
        let args = [&["-v", "-Y", &users], options].concat();
        let log = File::create(dir.join("log")).expect("a log");
        let server = Server::start_prepared(&server_path(), &args, |command| {
            command.stderr(log);
        });
        Gated { server, dir }
    }

    /// Replaces the file, sends SIGHUP and waits until the log has so many lines that say `word`.
    fn reload(&self, users: &str, word: &str, lines: usize) {
        fs::write(self.dir.join("users"), users).expect("a file of users");
        kill(Pid::from_raw(self.server.pid().cast_signed()), Signal::SIGHUP).expect("a signal");
        let until = Instant::now() + PATIENCE;
        while self.log().lines().filter(|line| line.contains(word)).count() < lines {
            assert!(Instant::now() < until, "no {word} in {}", self.log());
            sleep(Duration::from_millis(2));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).expect("a log")
    }

    /// Sends a user and a password on a connection of its own, and says whether they were right.
    fn lets_in(&self, user: &str, password: &str) -> bool {
        let mut client = self.server.connect();
        client.send(&token(user, password));
        match client.line().as_bytes() {
            b"STORED" => true,
            line => {
                assert_eq!(line, FAILED.trim_ascii_end());
                false
            }
        }
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn token(user: &str, password: &str) -> Vec<u8> {
    format!("set any 0 0 {}\r\n{user} {password}\r\n", user.len() + 1 + password.len()).into()
}

/// memcached answers the same: `RUSTCACHED_TEST_SERVER` may name one.
fn dialogue() -> Vec<(&'static [u8], &'static [u8])> {
    vec![
        (b"get foo\r\n", UNAUTHENTICATED),
        (b"set foo 0 0 2\r\nhi\r\n", b"CLIENT_ERROR bad authentication token format\r\n"),
        (b"version\r\n", UNAUTHENTICATED),
        (b"mn 1234\r\n", UNAUTHENTICATED),
        (b"set foo 0 0 7\r\nfoo bab\r\n", FAILED),
        (b"set foo 0 0 2147483646\r\n", b"CLIENT_ERROR auth token too long\r\n"),
        (b"set foo 0 0 -1\r\n", UNAUTHENTICATED),
        (b"set foo 0 0\r\n", UNAUTHENTICATED),
        (b"ms foo 2\r\n", UNAUTHENTICATED),
        (b"set foo 0 0 7\r\nfoo bar\n\n", b"CLIENT_ERROR bad command line termination\r\n"),
        (b"set foo 0 0 3\r\nfoo\r\n", b"CLIENT_ERROR bad authentication token format\r\n"),
        (b"set foo x y 7 noreply\r\nfoo bar\r\n", STORED),
        (b"get foo\r\n", b"END\r\n"),
        (b"set toast 0 0 2\r\nhi\r\n", STORED),
        (b"get toast\r\n", b"VALUE toast 0 2\r\nhi\r\nEND\r\n"),
        (b"set foo 0 0 7\r\nfoo bab\r\n", STORED),
    ]
}

#[test]
fn nothing_is_heard_before_a_token() {
    let gated = Gated::start("foo:bar\nbaaaz:quux\n");
    let (mut requests, mut answers) = (Vec::new(), Vec::new());
    let mut client = gated.server.connect();
    for (request, answer) in dialogue() {
        client.exchange(request, answer);
        requests.extend_from_slice(request);
        answers.extend_from_slice(answer);
    }
    client.exchange(b"get foo\r\n", b"VALUE foo 0 7\r\nfoo bab\r\nEND\r\n");
    client.exchange(b"delete foo\r\n", b"DELETED\r\n");
    if other_server().is_some() {
        // memcached leaves what comes in one piece with an unheard line unanswered.
        return;
    }
    gated.server.connect().exchange(&requests, &answers);
    let mut slow = gated.server.connect();
    slow.send(&token("baaaz", "quux"));
    slow.exchange(b"delete foo\r\n", b"STORED\r\nDELETED\r\n");
    let mut bytes = gated.server.connect();
    for byte in &requests {
        bytes.send(&[*byte]);
    }
    bytes.expect(&answers);
}

#[test]
fn lines_without_sense_end_the_connection() {
    let gated = Gated::start("foo:bar\n");
    for line in [&b"quit\r\n"[..], b"mn\r\n\r\n", b"\r\n\r\n", &[b'x'; 2100]] {
        let mut client = gated.server.connect();
        client.send(line);
        assert_eq!(client.next(), None, "{}", line.escape_ascii());
        assert!(!client.timed_out, "{}", line.escape_ascii());
    }
    assert!(gated.lets_in("foo", "bar"));
}

/// A figure of `stats`, asked for by a client that was let in.
fn stat(client: &mut Client, name: &str) -> u64 {
    client.send(b"stats\r\n");
    let mut found = None;
    loop {
        let line = client.line();
        if line == "END" || line.is_empty() {
            return found.expect("a figure");
        }
        if let Some(number) = line.strip_prefix(&format!("STAT {name} ")) {
            found = number.parse().ok();
        }
    }
}

#[test]
fn attempts_are_counted() {
    let gated = Gated::start("foo:bar\n");
    assert!(!gated.lets_in("foo", "baz"));
    assert!(!gated.lets_in("fo", "bar"));
    gated.server.connect().exchange(b"get foo\r\n", UNAUTHENTICATED);
    let mut client = gated.server.connect();
    client.exchange(&token("foo", "bar"), STORED);
    assert_eq!(stat(&mut client, "auth_cmds"), 3);
    assert_eq!(stat(&mut client, "auth_errors"), 2);
    client.send(b"stats settings\r\n");
    let settings: Vec<String> =
        std::iter::repeat_with(|| client.line()).take_while(|line| line != "END").collect();
    let file = gated.dir.join("users");
    assert!(settings.contains(&format!("STAT auth_enabled_ascii {}", file.display())));
    assert!(settings.contains(&"STAT auth_enabled_sasl no".to_owned()));
    assert!(settings.contains(&"STAT binding_protocol ascii".to_owned()));
}

#[test]
fn guessing_ends_a_connection() {
    let gated = Gated::start("foo:bar\n");
    let mut client = gated.server.connect();
    client.send(&token("foo", "baz").repeat(20));
    client.expect(&FAILED.repeat(16));
    assert_eq!(client.next(), None);
    assert!(gated.lets_in("foo", "bar"));
}

#[test]
fn a_reload_keeps_connections_and_a_bad_file_changes_nothing() {
    for options in FREE_AND_CONFINED {
        let gated = Gated::start_with("foo:bar\n", options);
        let mut inside = gated.server.connect();
        inside.exchange(&token("foo", "bar"), STORED);
        let mut outside = gated.server.connect();
        outside.exchange(b"get foo\r\n", UNAUTHENTICATED);
        gated.reload("new:user\n", "again", 1);
        assert!(gated.lets_in("new", "user") && !gated.lets_in("foo", "bar"));
        inside.exchange(b"get foo\r\n", b"END\r\n");
        outside.exchange(&token("foo", "bar"), FAILED);
        outside.exchange(&token("new", "user"), STORED);
        gated.reload("newer:user\nno colon\n", "line 2 is malformed", 1);
        assert!(gated.lets_in("new", "user") && !gated.lets_in("newer", "user"));
        fs::remove_file(gated.dir.join("users")).expect("a file");
        kill(Pid::from_raw(gated.server.pid().cast_signed()), Signal::SIGHUP).expect("a signal");
        assert!(gated.lets_in("new", "user"));
        gated.reload("last:user", "again", 2);
        assert!(gated.lets_in("last", "user") && !gated.lets_in("new", "user"));
    }
}

#[test]
fn garbage_lets_nobody_in() {
    let gated = Gated::start("foo:bar\n");
    let mut random = Random::new(11);
    for _ in 0..200 {
        let mut client = gated.server.connect();
        let len = random.below(4000);
        let mut bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        if random.once_in(2) {
            let head = format!("set a 0 0 {}\r\n", random.below(5000));
            bytes.splice(..0, head.bytes());
        }
        bytes.extend_from_slice(b"\r\nget foo\r\nstats\r\n");
        client.send(&bytes);
        drop(client);
    }
    assert!(gated.lets_in("foo", "bar"));
    let mut client = gated.server.connect();
    client.exchange(&token("foo", "bar"), STORED);
    assert_eq!(stat(&mut client, "auth_cmds") - stat(&mut client, "auth_errors"), 2);
    assert_eq!(stat(&mut client, "cmd_get"), 0);
}

#[test]
fn a_start_without_users_fails_in_one_line() {
    let dir = temp_dir("auth");
    let (bad, missing) = (dir.join("bad"), dir.join("missing"));
    fs::write(&bad, "foo\n").expect("a file");
    for (file, word) in [(&bad, "malformed"), (&missing, "No such file"), (&dir, "directory")] {
        let mut command = Command::new(server_path());
        command.args(["-p", "-1", "-U", "0", "-l", "127.0.0.1", "-Y"]).arg(file);
        if nix::unistd::geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        let ended = command.stdin(Stdio::null()).output().expect("a server");
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success());
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(word) && stderr.contains(&file.display().to_string()));
    }
    fs::remove_dir_all(&dir).expect("the directory");
}
