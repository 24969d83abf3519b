//! The doors of a server: what a start says of those that stand open, and that behind one that does
//! not nothing is heard, whatever the command.

mod common;

use common::packets::{request, take_answer};
use common::{Client, Server, server_path, temp_dir, wait_for};
use rcgen::generate_simple_self_signed;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const OPEN: &str = "may read and change everything, unasked";
const VERSION: u8 = 0x0b;
const MECHANISMS: u8 = 0x20;
const START: u8 = 0x21;
const STEP: u8 = 0x22;
const REFUSED: u16 = 0x20;
const UNKNOWN: u16 = 0x81;

/// Files for a test, and users who may come in.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        let dir = temp_dir("doors");
        fs::write(dir.join("users"), "jane:pencil\n").expect("a file of users");
        Place(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// What a start says by itself until it serves.
    fn said_with(&self, args: &[&str]) -> String {
        let log = self.0.join("log");
        let server = Server::start_prepared(&server_path(), args, |command| self.prepare(command));
        let said = fs::read_to_string(&log).expect("a log");
        drop(server);
        said
    }

    fn prepare(&self, command: &mut Command) {
        let log = File::create(self.0.join("log")).expect("a log");
        command.env("MEMCACHED_SASL_PWDB", self.0.join("users")).stderr(log);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_start_says_where_strangers_can_come_in() {
    let place = Place::new();
    let identity = generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(place.0.join("cert.pem"), identity.cert.pem()).expect("a file");
    fs::write(place.0.join("key.pem"), identity.signing_key.serialize_pem()).expect("a file");
    let tls =
        format!("ssl_chain_cert={},ssl_key={}", place.path("cert.pem"), place.path("key.pem"));
    let mutual = format!("{tls},ssl_verify_mode=2,ssl_ca_cert={}", place.path("cert.pem"));
    let users = place.path("users");
    for (args, wide) in [
        (&["-l", "0.0.0.0"][..], true),
        (&["-l", "*"], true),
        (&["-l", "0.0.0.0", "-Z", "-o", &tls], true),
        (&["-l", "notls:0.0.0.0:0", "-Z", "-o", &mutual], true),
        (&["-l", "btls:0.0.0.0:0", "-Z", "-o", &mutual], true),
        (&[], false),
        (&["-l", "localhost"], false),
        (&["-l", "0.0.0.0", "-Z", "-o", &mutual], false),
        (&["-l", "mtls:0.0.0.0:0", "-Z", "-o", &tls], false),
        (&["-l", "0.0.0.0", "-Y", &users], false),
        (&["-l", "0.0.0.0", "-S"], false),
    ] {
        let said = place.said_with(args);
        let warnings = said.lines().filter(|line| line.contains(OPEN)).count();
        assert_eq!(warnings, usize::from(wide), "{args:?}: {said}");
        let named = said.contains("rustcached: warning: whoever reaches 0.0.0.0:");
        assert!(named == wide && !said.contains("127.0.0.1:"), "{args:?}: {said}");
    }
}

#[test]
fn a_unix_socket_is_nobody_elses() {
    let place = Place::new();
    let socket = place.path("socket");
    let mut command = Command::new(server_path());
    command.args(["-s", &socket]).stdout(Stdio::null());
    if nix::unistd::geteuid().is_root() {
        command.args(["-u", "root"]);
    }
    place.prepare(&mut command);
    let mut child = command.spawn().expect("a server");
    wait_for("the socket", || Path::new(&socket).exists().then_some(()));
    child.kill().expect("the end");
    child.wait().expect("the end");
    assert!(!fs::read_to_string(place.0.join("log")).expect("a log").contains(OPEN));
}

/// Every word that the decoders of the text protocols compare anything with: all commands are among
/// them, and so is what will be one.
fn words() -> BTreeSet<&'static str> {
    let sources = [
        include_str!("../src/protocol/text.rs"),
        include_str!("../src/protocol/text_admin.rs"),
        include_str!("../src/protocol/meta.rs"),
    ];
    let literals = sources.into_iter().flat_map(|source| source.split("b\"").skip(1));
    let words = literals.filter_map(|rest| rest.split('"').next());
    let is_word = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let words: BTreeSet<&str> = words.filter(|word| !word.is_empty()).filter(is_word).collect();
    for known in ["get", "gat", "set", "cas", "shutdown", "watch", "refresh_certs", "lru_crawler"] {
        assert!(words.contains(known), "{known}: {words:?}");
    }
    words
}

/// Lines that could do something, were they heard. None is a `set`, which announces a token.
fn lines() -> Vec<String> {
    let words = words();
    let letters = ('a'..='z').map(|letter| format!("m{letter}"));
    let words = words.iter().map(|word| (*word).to_owned()).chain(letters);
    let ends =
        ["secret", "secret 0 0 1", "secret 0 0 1 1", "secret v t q N30", "all", "detail dump"];
    let all = words.flat_map(|word| ends.map(|end| format!("{word} {end}")));
    let admin =
        ["shutdown", "shutdown graceful", "flush_all", "flush_all noreply", "cache_memlimit 8"]
            .into_iter()
            .chain([
                "version",
                "stats settings",
                "watch fetchers",
                "slabs automove 0",
                "verbosity 3",
            ])
            .chain([
                "lru_crawler metadump all",
                "refresh_certs",
                "debugtime +100000",
                "gat 1 secret",
            ]);
    all.chain(admin.map(Into::into)).filter(|line| !line.starts_with("set")).collect()
}

fn jane(client: &mut Client) {
    client.exchange(b"set any 0 0 11\r\njane pencil\r\n", b"STORED\r\n");
}

#[test]
fn no_line_is_heard_before_a_token() {
    let place = Place::new();
    let args = ["-A", "-Y", &place.path("users")];
    let server = Server::start_prepared(&server_path(), &args, |command| place.prepare(command));
    let mut inside = server.connect();
    jane(&mut inside);
    inside.exchange(b"set secret 5 0 1\r\n7\r\n", b"STORED\r\n");
    let settings = shown(&mut inside, "stats settings");
    for line in lines() {
        let mut client = server.connect();
        client.send(format!("{line}\r\n").as_bytes());
        assert_eq!(client.line(), "CLIENT_ERROR unauthenticated", "{line}");
        // It went no further.
        client.send(b"version\r\n");
        assert_eq!(client.line(), "CLIENT_ERROR unauthenticated", "after {line}");
    }
    inside.exchange(b"mg secret v f h t\r\n", b"VA 1 f5 h0 t-1\r\n7\r\n");
    assert_eq!(shown(&mut inside, "stats settings"), settings);
    let stats = shown(&mut inside, "stats");
    for quiet in ["cmd_get 1", "cmd_set 1", "cmd_flush 0", "delete_misses 0", "auth_cmds 1"] {
        assert!(stats.contains(&format!("STAT {quiet}")), "{quiet}: {stats:?}");
    }
}

/// The lines of an answer that ends with `END`.
fn shown(client: &mut Client, line: &str) -> Vec<String> {
    client.send(format!("{line}\r\n").as_bytes());
    std::iter::repeat_with(|| client.line()).take_while(|line| line != "END").collect()
}

#[test]
fn no_opcode_is_heard_before_a_login() {
    let place = Place::new();
    let args = ["-A", "-S"];
    let server = Server::start_prepared(&server_path(), &args, |command| place.prepare(command));
    for opcode in 0..=u8::MAX {
        for (extras, key, value) in bodies() {
            let mut client = server.connect();
            client.send(&request(opcode, 7, 0, [extras, key, value]));
            let heard = matches!(opcode, VERSION | MECHANISMS | START | STEP);
            let Some(answer) = take_answer(&mut client) else {
                panic!("{opcode:#x} is not answered");
            };
            if !heard {
                let status = answer.status;
                let refused = status == REFUSED || status == UNKNOWN || status == 0x04;
                assert!(refused, "{opcode:#x}: {answer:?}");
                assert!(take_answer(&mut client).is_none() && !client.timed_out, "{opcode:#x}");
            }
        }
    }
    let mut inside = server.connect();
    inside.send(&request(START, 0, 0, [b"", b"PLAIN", b"\0jane\0pencil"]));
    assert_eq!(take_answer(&mut inside).map(|answer| answer.status), Some(0));
    inside.send(&request(0x10, 0, 0, [b"", b"", b""]));
    let mut figures = Vec::new();
    while let Some(answer) = take_answer(&mut inside).filter(|answer| !answer.key.is_empty()) {
        figures.push((answer.key, answer.value));
    }
    for idle in ["cmd_get", "cmd_set", "cmd_flush", "cmd_touch", "delete_misses", "incr_misses"] {
        let found = figures.iter().find(|(name, _)| name == idle.as_bytes());
        assert_eq!(found.map(|(_, figure)| &figure[..]), Some(&b"0"[..]), "{idle}");
    }
}

/// Bodies among which each opcode has one that it would take.
fn bodies() -> [(&'static [u8], &'static [u8], &'static [u8]); 6] {
    [
        (b"", b"", b""),
        (b"", b"secret", b""),
        (b"", b"secret", b"v"),
        (&[0; 4], b"secret", b""),
        (&[0; 8], b"secret", b"v"),
        (&[0; 20], b"secret", b""),
    ]
}

/// UDP cannot ask who sends a datagram.
#[test]
fn there_is_no_udp_beside_users() {
    let place = Place::new();
    for option in [vec!["-Y".to_owned(), place.path("users")], vec!["-S".to_owned()]] {
        let mut command = Command::new(server_path());
        command.args(&option).args(["-l", "127.0.0.1", "-p", "-1", "-U", "-1"]);
        place.prepare(&mut command);
        let ended = command.stdout(Stdio::null()).status().expect("the server's program");
        let said = fs::read_to_string(place.0.join("log")).expect("a log");
        assert_eq!(ended.code(), Some(64), "{said}");
        assert!(said.contains("UDP has no authentication"), "{said}");
    }
}
