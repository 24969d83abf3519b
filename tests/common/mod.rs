//! What the tests that talk to a server share: starting one, and a client that sees every byte.
//!
//! `RUSTCACHED_TEST_SERVER=/path/to/memcached` runs the same tests against another server, which is
//! how a transcript proves that it tells the truth about memcached. `RUSTCACHED_TEST_SANITIZED=1`
//! leaves the process's memory out of them, of which sanitizers take much and spare none.
#![allow(dead_code, unreachable_pub)]

pub mod faults;
pub mod load;
pub mod packets;
pub mod requests;
pub mod transcript;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a server may take to listen. Generous: tests of a debug build run side by side.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long an expected byte may take.
const REPLY_LIMIT: Duration = Duration::from_secs(60);
/// How long a server may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Longer than anything that a test waits for takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Options of a server that may make any system call, and of one that may not.
pub const FREE_AND_CONFINED: [&[&str]; 2] = [&[], &["-o", "drop_privileges"]];

/// Asks until there is an answer.
pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        sleep(Duration::from_millis(2));
    }
}

/// Asks until it is so.
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    wait_for(what, || so().then_some(()));
}

/// The server under test, unless `RUSTCACHED_TEST_SERVER` names another.
pub fn server_path() -> PathBuf {
    other_server().unwrap_or_else(|| env!("CARGO_BIN_EXE_rustcached").into())
}

/// The server that stands in for ours, if any.
pub fn other_server() -> Option<PathBuf> {
    std::env::var_os("RUSTCACHED_TEST_SERVER").map(PathBuf::from)
}

/// Whether the server has a sanitizer in it.
pub fn is_sanitized() -> bool {
    std::env::var_os("RUSTCACHED_TEST_SANITIZED").is_some()
}

/// A directory of its own for each call, under the system's temporary one.
pub fn temp_dir(what: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("rc-{what}-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a temporary directory");
    dir
}

/// A server started with arguments of its own, on no port unless they say so.
pub fn spawn(args: &[&str]) -> Child {
    spawn_by(&mut Command::new(server_path()), args)
}

/// The same by a command that starts it.
pub fn spawn_by(command: &mut Command, args: &[&str]) -> Child {
    let user: &[&str] = if nix::unistd::geteuid().is_root() { &["-u", "root"] } else { &[] };
    command.args(user).args(args).stderr(Stdio::piped()).spawn().expect("a server")
}

/// Asserts that a start ends in a failure and one line that says why.
pub fn fails(started: Child, because: &str) {
    let ended = started.wait_with_output().expect("an end");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code().is_some_and(|code| code != 0), "{}: {said}", ended.status);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(because), "{said}");
}

pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("a running process");
}

/// A running server; dropping it ends the process.
pub struct Server {
    child: Child,
    dir: PathBuf,
    pub port: u16,
    /// With `-U -1`, one for each address.
    pub udp_ports: Vec<u16>,
}

impl Server {
    /// Starts the server under test on an ephemeral port of 127.0.0.1 with `args` besides.
    pub fn start(args: &[&str]) -> Server {
        Server::start_binary(&server_path(), args)
    }

    /// Starts `binary`, which must know memcached's `-p -1` and `MEMCACHED_PORT_FILENAME`.
    pub fn start_binary(binary: &Path, args: &[&str]) -> Server {
        Server::start_prepared(binary, args, |_| {})
    }

    /// The same, with what `prepare` adds to the command: a variable, a file for its stderr.
    pub fn start_prepared(
        binary: &Path,
        args: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Server {
        let dir = temp_dir("server");
        let port_file = dir.join("ports");
        let mut command = Command::new(binary);
        command.args(["-l", "127.0.0.1", "-p", "-1", "-U", "0"]).args(args);
        if nix::unistd::geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        command.env("MEMCACHED_PORT_FILENAME", &port_file);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        prepare(&mut command);
        let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", binary.display()));
        let mut server = Server { child, dir, port: 0, udp_ports: Vec::new() };
        server.port = server.wait_for_port(&port_file);
        server.udp_ports = read_ports(&port_file, "UDP INET:");
        server
    }

    fn wait_for_port(&mut self, port_file: &Path) -> u16 {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(port) = read_ports(port_file, "TCP INET:").first() {
                return *port;
            }
            if let Some(status) = self.child.try_wait().expect("the server's status") {
                panic!("the server ended instead of listening: {status}");
            }
            assert!(Instant::now() < deadline, "the server did not write its port");
            sleep(Duration::from_millis(5));
        }
    }

    /// All TCP ports of IPv4, in the order of -l.
    pub fn ports(&self) -> Vec<u16> {
        read_ports(&self.dir.join("ports"), "TCP INET:")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        Client::new(stream)
    }

    /// A fresh connection's answer to `line`, up to and with its first line end.
    pub fn ask(&self, line: &str) -> String {
        let mut client = self.connect();
        client.send(line.as_bytes());
        client.send(b"\r\n");
        client.line()
    }

    /// The release that the server says it is, as three numbers; missing ones are 0.
    pub fn release(&self) -> [u32; 3] {
        parse_release(&self.ask("version"))
    }

    /// True if the server has the command that moves its clock.
    pub fn has_debugtime(&self) -> bool {
        self.ask("debugtime 0") == "OK"
    }

    pub fn signal(&self, signal: Signal) {
        self::signal(self.pid(), signal);
    }

    /// A figure of `stats`.
    pub fn stat(&self, name: &str) -> Option<u64> {
        self.connect().stat(name)
    }

    /// Bytes of a line such as `VmRSS` of the process's status, as the kernel counts them; 0 where
    /// most of them are a sanitizer's.
    pub fn memory(&self, line: &str) -> u64 {
        if is_sanitized() {
            return 0;
        }
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("the process's status");
        let found = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
        let kib = found.and_then(|rest| rest.trim().strip_suffix(" kB"));
        kib.and_then(|n| n.trim().parse::<u64>().ok()).expect("a line in kB") << 10
    }

    /// Asks the server to end, with SIGTERM, and says how it did; `None` if it would not.
    pub fn stop(self) -> Option<ExitStatus> {
        self.signal(Signal::SIGTERM);
        self.ended()
    }

    /// How the server ended, once it has; `None` if it does not.
    pub fn ended(mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("the server's status") {
                return Some(status);
            }
            sleep(Duration::from_millis(2));
        }
        None
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn read_ports(port_file: &Path, family: &str) -> Vec<u16> {
    let ports = std::fs::read_to_string(port_file).unwrap_or_default();
    let lines = ports.lines().filter_map(|line| line.strip_prefix(family));
    lines.filter_map(|port| port.trim().parse().ok()).collect()
}

/// The three numbers in a text such as `VERSION 1.6.45`.
pub fn parse_release(text: &str) -> [u32; 3] {
    let mut release = [0; 3];
    let number = text.rsplit(' ').next().unwrap_or(text);
    for (slot, part) in release.iter_mut().zip(number.split('.')) {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        *slot = digits.parse().unwrap_or(0);
    }
    release
}

/// One connection, byte for byte.
pub struct Client {
    stream: TcpStream,
    /// Received and not yet taken.
    pending: Vec<u8>,
    taken: usize,
    /// No byte came within [`REPLY_LIMIT`]: what looks like the end is a silence.
    pub timed_out: bool,
    /// The last line that was taken did not end.
    pub cut_off: bool,
}

impl Client {
    pub fn new(stream: TcpStream) -> Client {
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(REPLY_LIMIT)).expect("a timeout");
        stream.set_write_timeout(Some(REPLY_LIMIT)).expect("a timeout");
        Client { stream, pending: Vec::new(), taken: 0, timed_out: false, cut_off: false }
    }

    /// Lets the server take as long as this to say or to take something.
    pub fn set_patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a timeout");
        self.stream.set_write_timeout(Some(patience)).expect("a timeout");
    }

    /// The port that it came from, as text.
    pub fn port(&self) -> String {
        self.stream.local_addr().expect("an address").port().to_string()
    }

    /// Ends the connection.
    pub fn close(self) {
        drop(self.stream);
    }

    /// Ends the connection by a reset: what was sent to it and not read is lost.
    pub fn reset(self) {
        let socket = socket2::Socket::from(self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("no linger");
    }

    /// Sends nothing more; what the server says can still be read.
    pub fn shut_down(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("a connection");
    }

    /// Sends `bytes`. A connection that the server has closed shows when the answer is read.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends `bytes`, telling whether the connection took them.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next byte without taking it; `None` once the server has closed or said nothing for
    /// [`REPLY_LIMIT`].
    pub fn peek(&mut self) -> Option<u8> {
        if self.taken == self.pending.len() && !self.fill() {
            return None;
        }
        Some(self.pending[self.taken])
    }

    pub fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.taken += 1;
        Some(byte)
    }

    /// Reads what is there, waiting for the first of it; false at the end.
    fn fill(&mut self) -> bool {
        self.pending.clear();
        self.taken = 0;
        let mut chunk = [0; 16 << 10];
        // A process that was stopped and goes on finds its read interrupted.
        let read = loop {
            match self.stream.read(&mut chunk) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(len) => self.pending.extend_from_slice(&chunk[..len]),
            Err(e) => self.timed_out |= e.kind() == ErrorKind::WouldBlock,
        }
        !self.pending.is_empty()
    }

    /// The next `len` bytes, fewer if the server closes or falls silent before.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let mut taken = Vec::with_capacity(len);
        while taken.len() < len && self.peek().is_some() {
            let there = &self.pending[self.taken..];
            let part = &there[..there.len().min(len - taken.len())];
            taken.extend_from_slice(part);
            self.taken += part.len();
        }
        taken
    }

    /// The next line without its end; what there is of it if the server closes or falls silent.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.cut_off = true;
        while let Some(byte) = self.next() {
            if byte == b'\n' {
                line.pop_if(|last| *last == b'\r');
                self.cut_off = false;
                break;
            }
            line.push(byte);
        }
        String::from_utf8_lossy(&line).into_owned()
    }

    /// An answer to `stats`, or what there is of it. Telegraf gives up at a line that is not three
    /// words.
    pub fn stats(&mut self, topic: &str) -> HashMap<String, String> {
        self.send(format!("stats{topic}\r\n").as_bytes());
        let mut figures = HashMap::new();
        loop {
            let line = self.line();
            if line == "END" || self.cut_off {
                return figures;
            }
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!((words.len(), words[0]), (3, "STAT"), "{line:?}");
            figures.insert(words[1].to_owned(), words[2].to_owned());
        }
    }

    /// A figure of `stats`.
    pub fn stat(&mut self, name: &str) -> Option<u64> {
        self.send(b"stats\r\n");
        let mut found = None;
        loop {
            let line = self.line();
            let mut words = line.split(' ').skip(1);
            match (line.as_str(), words.next()) {
                // An empty line is the end of a connection that was refused.
                ("END" | "", _) => return found,
                (_, Some(word)) if word == name => {
                    found = words.next().and_then(|number| number.parse().ok());
                }
                _ => {}
            }
        }
    }

    /// Asserts that the next bytes are exactly `wanted`.
    pub fn expect(&mut self, wanted: &[u8]) {
        let got = self.take(wanted.len());
        assert!(got == wanted, "wanted {:?}, got {:?}", printable(wanted), printable(&got));
    }

    /// Sends `request` and asserts that the answer is exactly `reply`.
    pub fn exchange(&mut self, request: &[u8], reply: &[u8]) {
        self.send(request);
        self.expect(reply);
    }

    /// What else arrives within `wait`, for messages.
    pub fn rest(&mut self, wait: Duration) -> Vec<u8> {
        let mut rest = self.pending.split_off(self.taken);
        self.taken = self.pending.len();
        let _ = self.stream.set_read_timeout(Some(wait));
        let mut chunk = [0; 4096];
        while let Ok(len @ 1..) = self.stream.read(&mut chunk) {
            rest.extend_from_slice(&chunk[..len]);
        }
        let _ = self.stream.set_read_timeout(Some(REPLY_LIMIT));
        rest
    }
}

/// `bytes` as one readable line.
pub fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// A small seeded generator, so that a failure can be run again: xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The seed in the environment variable `name`, else one from the clock.
    pub fn seed_from(name: &str) -> u64 {
        let from_clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |d| d.as_micros() as u64);
        std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or_else(from_clock)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is above 0.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
