//! TLS as clients and operators meet it. Certificates are made anew for each run.

mod common;

use common::{FREE_AND_CONFINED, Server, server_path, temp_dir};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const BOTH: [&rustls::SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an issuer")
}

/// A certificate and its key, both as PEM.
struct Identity {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

fn identity(name: &str, by: &Authority) -> Identity {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".into()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    let cert = params.signed_by(&key, by).expect("a certificate");
    let der = cert.der().clone();
    Identity { cert: cert.pem(), key: key.serialize_pem(), der, key_der: key.serialize_der() }
}

/// The files of a server, and who signed them.
struct Files {
    dir: PathBuf,
    ca: Authority,
    server: Identity,
}

impl Files {
    fn new() -> Files {
        let (dir, ca) = (temp_dir("tls"), authority("Test CA"));
        let server = identity("first", &ca);
        let files = Files { dir, ca, server };
        fs::write(files.path("ca.pem"), files.ca.pem()).expect("a file");
        files.install(&files.server);
        files
    }

    fn install(&self, identity: &Identity) {
        fs::write(self.path("cert.pem"), &identity.cert).expect("a file");
        fs::write(self.path("key.pem"), &identity.key).expect("a file");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A server with TLS on its first port.
    fn serve(&self, args: &[&str]) -> Server {
        let dir = self.dir.display();
        let files = format!("ssl_chain_cert={dir}/cert.pem,ssl_key={dir}/key.pem");
        let all = [&["-Z", "-o", &files], args].concat();
        Server::start(&all)
    }

    fn trust(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).expect("a root");
        roots
    }

    fn config(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(self.trust())
            .with_no_client_auth()
    }

    fn config_as(&self, me: &Identity) -> ClientConfig {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(me.key_der.clone()));
        ClientConfig::builder()
            .with_root_certificates(self.trust())
            .with_client_auth_cert(vec![me.der.clone()], key)
            .expect("a client's certificate")
    }

    fn connect(&self, server: &Server) -> Client {
        Client::new(server.port, &Arc::new(self.config(&BOTH)))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn plain(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

struct Client(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Client {
    fn new(port: u16, config: &Arc<ClientConfig>) -> Client {
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(config.clone(), name).expect("a session");
        Client(BufReader::new(StreamOwned::new(session, plain(port))))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("a connection that takes it");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    fn ask(&mut self, request: &str) -> String {
        self.send(request.as_bytes());
        self.send(b"\r\n");
        self.line()
    }

    fn expect(&mut self, wanted: &[u8]) {
        let mut got = vec![0; wanted.len()];
        self.0.read_exact(&mut got).expect("an answer");
        assert!(got == wanted, "{} bytes differ from what was wanted", wanted.len());
    }

    /// Sends, and says how the connection takes it.
    fn try_ask(&mut self, request: &str) -> std::io::Result<String> {
        self.0.get_mut().write_all(format!("{request}\r\n").as_bytes())?;
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    fn stat(&mut self, name: &str) -> Option<String> {
        self.send(b"stats\r\n");
        let prefix = format!("STAT {name} ");
        let mut found = None;
        loop {
            let line = self.line();
            if line == "END" {
                return found;
            }
            found = line.strip_prefix(&prefix).map(str::to_owned).or(found);
        }
    }

    fn wait_for(&mut self, name: &str, value: &str) {
        let until = Instant::now() + PATIENCE;
        while self.stat(name).as_deref() != Some(value) {
            assert!(Instant::now() < until, "{name} is {:?}, not {value}", self.stat(name));
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// True if the server showed that certificate.
    fn is_served_by(&self, identity: &Identity) -> bool {
        let chain = self.0.get_ref().conn.peer_certificates().expect("a handshake that is done");
        chain[0] == identity.der
    }
}

/// A value that is different everywhere.
fn value(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| b'a' + ((i / 7 + i / 4093 + seed) % 26) as u8).collect()
}

fn store(client: &mut Client, key: &str, value: &[u8]) {
    let line = format!("set {key} 0 0 {}\r\n", value.len());
    client.send(&[line.as_bytes(), value, b"\r\n"].concat());
    client.expect(b"STORED\r\n");
}

fn answer(key: &str, value: &[u8]) -> Vec<u8> {
    let line = format!("VALUE {key} 0 {}\r\n", value.len());
    [line.as_bytes(), value, b"\r\nEND\r\n"].concat()
}

#[test]
fn values_of_all_sizes_in_both_versions() {
    let files = Files::new();
    let server = files.serve(&[]);
    for version in BOTH {
        let mut client = Client::new(server.port, &Arc::new(files.config(&[version])));
        for len in [0, 1, 1000, 16_383, 16_384, 16_385, 40_000, 70_000, 1_000_000] {
            let value = value(len, len);
            store(&mut client, "v", &value);
            client.send(b"get v\r\n");
            client.expect(&answer("v", &value));
        }
    }
}

#[test]
fn pipelined_requests_and_slow_writers_are_understood() {
    let files = Files::new();
    let server = files.serve(&[]);
    let mut client = files.connect(&server);
    let requests: String = (0..2000).map(|i| format!("set k{i} 0 0 3\r\nabc\r\n")).collect();
    client.send(requests.as_bytes());
    client.expect("STORED\r\n".repeat(2000).as_bytes());
    // A record a byte.
    for byte in b"set slow 0 0 5\r\nhello\r\nget slow\r\n" {
        client.send(&[*byte]);
        client.0.get_mut().flush().expect("a connection");
    }
    client.expect(b"STORED\r\n");
    client.expect(&answer("slow", b"hello"));
}

/// A request of which one part comes with the end of the handshake, and the rest while a worker is
/// about to take the connection over.
#[test]
fn a_request_on_the_heels_of_the_handshake_is_answered() {
    let files = Files::new();
    let server = files.serve(&[]);
    for _ in 0..300 {
        let mut client = files.connect(&server);
        client.0.get_mut().conn.writer().write_all(b"version").expect("room for it");
        client.send(b"\r\n");
        assert!(client.line().starts_with("VERSION"));
    }
}

#[test]
fn whoever_reads_late_gets_everything() {
    let files = Files::new();
    let server = files.serve(&[]);
    let mut client = files.connect(&server);
    let (large, small) = (value(900_000, 3), value(5_000, 5));
    store(&mut client, "large", &large);
    store(&mut client, "small", &small);
    let rounds = 40;
    for _ in 0..rounds {
        client.send(b"get large\r\nget small\r\n");
    }
    // More than all buffers hold is on its way now, and another connection is served meanwhile.
    assert!(files.connect(&server).ask("version").starts_with("VERSION"));
    for _ in 0..rounds {
        client.expect(&answer("large", &large));
        client.expect(&answer("small", &small));
    }
    assert!(client.ask("version").starts_with("VERSION"));
}

#[test]
fn quit_ends_as_tls_wants_it() {
    let files = Files::new();
    let server = files.serve(&[]);
    let mut client = files.connect(&server);
    client.send(b"version\r\nquit\r\n");
    assert!(client.line().starts_with("VERSION"));
    // Without a goodbye rustls says that the end was unexpected.
    assert_eq!(client.0.read(&mut [0; 8]).expect("a proper end"), 0);
    // The other way round: the client's goodbye is one, though its socket stays open.
    let mut client = files.connect(&server);
    assert!(client.ask("version").starts_with("VERSION"));
    client.0.get_mut().conn.send_close_notify();
    client.0.get_mut().flush().expect("a connection");
    assert_eq!(client.0.read(&mut [0; 8]).expect("a proper end"), 0);
}

#[test]
fn what_is_no_handshake_is_closed_and_counted() {
    let files = Files::new();
    let server = files.serve(&[]);
    let mut client = files.connect(&server);
    assert!(client.ask("version").starts_with("VERSION"));
    let mut events = files.connect(&server);
    assert_eq!(events.ask("watch connevents"), "OK");
    let hello: &[u8] = &[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3, 7, 7, 7];
    let lying: &[u8] = &[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    let bad: [&[u8]; 5] = [b"version\r\n", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4000], hello, lying];
    for (count, bytes) in (1..).zip(bad) {
        let mut stream = plain(server.port);
        stream.write_all(bytes).expect("a connection");
        // What could still become a handshake is waited for; its end is one.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"VERSION"), "plain text was answered on a port of TLS");
        client.wait_for("ssl_handshake_errors", &count.to_string());
        let event = events.line();
        assert!(event.contains(" type=conntlserr fd=") && event.contains(" msg="), "{event}");
    }
    client.wait_for("curr_connections", "2");
}

#[test]
fn garbage_after_the_handshake_ends_that_connection_alone() {
    let files = Files::new();
    let server = files.serve(&[]);
    let (mut broken, mut client) = (files.connect(&server), files.connect(&server));
    assert!(broken.ask("version").starts_with("VERSION"));
    assert!(client.ask("version").starts_with("VERSION"));
    let mut events = files.connect(&server);
    assert_eq!(events.ask("watch connevents"), "OK");
    let mut socket = broken.0.get_ref().sock.try_clone().expect("a socket");
    socket.write_all(&[23, 3, 3, 0, 64]).expect("a connection");
    socket.write_all(&[0x55; 64]).expect("a connection");
    assert!(broken.0.read(&mut [0; 8]).is_err(), "an alert was to come");
    client.wait_for("ssl_proto_errors", "1");
    assert_eq!(client.stat("ssl_handshake_errors").as_deref(), Some("0"));
    let (error, close) = (events.line(), events.line());
    let file = close.rsplit("cfd=").next().unwrap_or_default();
    assert!(error.contains(&format!(" type=conntlserr fd={file} msg=")), "{error}");
    assert!(close.contains(" type=conn_close ") && close.contains(" reason=error "), "{close}");
}

#[test]
fn a_handshake_that_does_not_end_is_ended() {
    let files = Files::new();
    let server = files.serve(&["-o", "idle_timeout=1"]);
    let mut silent = plain(server.port);
    let mut half = plain(server.port);
    half.write_all(&[22, 3, 1, 0, 200, 1, 0]).expect("a connection");
    for stream in [&mut silent, &mut half] {
        assert_eq!(stream.read_to_end(&mut Vec::new()).expect("the end"), 0);
    }
}

#[test]
fn each_listener_asks_for_what_it_was_told() {
    let files = Files::new();
    let ca = format!("ssl_ca_cert={},ssl_verify_mode=1", files.path("ca.pem").display());
    let others = "notls:127.0.0.1:0,btls:127.0.0.1:0,mtls:127.0.0.1:0";
    let server = files.serve(&["-o", &ca, "-l", others]);
    let [optional, notls, btls, mtls] = server.ports()[..] else { panic!("four ports") };
    let friend = identity("friend", &files.ca);
    let stranger = identity("stranger", &authority("Another CA"));
    let mut text = plain(notls);
    text.write_all(b"version\r\n").expect("a connection");
    let mut line = [0; 7];
    text.read_exact(&mut line).expect("an answer");
    assert_eq!(&line, b"VERSION");
    let nobody = Arc::new(files.config(&BOTH));
    let old = Arc::new(files.config(&[&version::TLS12]));
    let known = Arc::new(files.config_as(&friend));
    let unknown = Arc::new(files.config_as(&stranger));
    for (port, config, welcome) in [
        (optional, &nobody, true),
        (optional, &known, true),
        (optional, &unknown, false),
        (btls, &nobody, true),
        (btls, &unknown, true),
        (mtls, &nobody, false),
        (mtls, &old, false),
        (mtls, &unknown, false),
        (mtls, &known, true),
    ] {
        let answer = Client::new(port, config).try_ask("version");
        assert_eq!(answer.is_ok(), welcome, "{port} of {:?}: {answer:?}", server.ports());
    }
}

#[test]
fn a_session_of_one_listener_is_none_of_another() {
    for cache in ["ssl_wbuf_size=16", "ssl_session_cache"] {
        let files = Files::new();
        let ca = format!("ssl_ca_cert={},{cache}", files.path("ca.pem").display());
        let server = files.serve(&["-o", &ca, "-l", "mtls:127.0.0.1:0"]);
        let config = Arc::new(files.config(&BOTH));
        for _ in 0..2 {
            assert!(Client::new(server.port, &config).try_ask("version").is_ok());
        }
        // The same client, with a ticket of the port that asks for no certificate.
        let refused = Client::new(server.ports()[1], &config).try_ask("version");
        assert!(refused.is_err(), "{cache}: {refused:?}");
    }
}

#[test]
fn sessions_are_resumed_and_counted() {
    for (options, counted) in [("ssl_wbuf_size=8", false), ("ssl_session_cache", true)] {
        let files = Files::new();
        let server = files.serve(&["-o", options]);
        for version in BOTH {
            let mut config = files.config(&[version]);
            config.resumption = Resumption::in_memory_sessions(8);
            let config = Arc::new(config);
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let mut client = Client::new(server.port, &config);
                assert!(client.ask("version").starts_with("VERSION"));
                kinds.push(client.0.get_ref().conn.handshake_kind());
                assert_eq!(client.stat("ssl_new_sessions").is_some(), counted);
            }
            let resumed = Some(rustls::HandshakeKind::Resumed);
            assert!(kinds[0] != resumed && kinds[1] == resumed, "{options}: {kinds:?}");
        }
    }
}

#[test]
fn new_certificates_are_for_new_connections() {
    for options in FREE_AND_CONFINED {
        let files = Files::new();
        let server = files.serve(options);
        let mut old = files.connect(&server);
        assert!(old.ask("version").starts_with("VERSION"));
        let second = identity("second", &files.ca);
        files.install(&second);
        assert_eq!(old.ask("refresh_certs"), "OK");
        let mut new = files.connect(&server);
        assert!(new.ask("version").starts_with("VERSION") && new.is_served_by(&second));
        assert!(old.ask("version").starts_with("VERSION") && old.is_served_by(&files.server));
        // A key that does not belong to it: nothing changes, and the reason is said.
        fs::write(files.path("key.pem"), &files.server.key).expect("a file");
        let refusal = old.ask("refresh_certs");
        assert!(refusal.starts_with("SERVER_ERROR ") && refusal.contains("not one of the key"));
        fs::write(files.path("cert.pem"), "nothing of the kind").expect("a file");
        let refusal = old.ask("refresh_certs");
        assert!(refusal.contains("holds no certificate"), "{refusal}");
        let mut newer = files.connect(&server);
        assert!(newer.ask("version").starts_with("VERSION") && newer.is_served_by(&second));
        files.install(&files.server);
        kill(Pid::from_raw(server.pid().cast_signed()), Signal::SIGHUP).expect("a signal");
        let until = Instant::now() + PATIENCE;
        loop {
            let mut client = files.connect(&server);
            assert!(client.ask("version").starts_with("VERSION"));
            if client.is_served_by(&files.server) {
                break;
            }
            assert!(Instant::now() < until, "SIGHUP brought no certificate");
        }
    }
}

#[test]
fn without_tls_there_is_nothing_to_refresh() {
    let server = Server::start(&[]);
    assert_eq!(server.ask("refresh_certs"), "SERVER_ERROR TLS is not enabled (-Z)");
}

#[test]
fn files_that_cannot_serve_are_named_at_the_start() {
    let files = Files::new();
    let other = identity("other", &files.ca);
    fs::write(files.path("other.pem"), &other.key).expect("a file");
    fs::write(files.path("both.pem"), [other.cert, other.key].concat()).expect("a file");
    fs::write(files.path("empty.pem"), "").expect("a file");
    let path = |name: &str| files.path(name).display().to_string();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    for (options, reason) in [
        (format!("ssl_chain_cert={},ssl_key={key}", path("none.pem")), "cannot read"),
        (format!("ssl_chain_cert={},ssl_key={key}", path("empty.pem")), "holds no certificate"),
        (format!("ssl_chain_cert={cert},ssl_key={}", path("empty.pem")), "no private key"),
        (format!("ssl_chain_cert={cert}"), "no private key"),
        (format!("ssl_chain_cert={cert},ssl_key={}", path("other.pem")), "not one of the key"),
        (format!("ssl_chain_cert={cert},ssl_key={key},ssl_keyformat=2"), "in DER form"),
        (format!("ssl_chain_cert={cert},ssl_key={key},ssl_ca_cert={key}"), "holds no certificate"),
        (format!("ssl_chain_cert={cert},ssl_key={key},ssl_ciphers=RC4-SHA"), "leaves no cipher"),
    ] {
        assert!(refusal(&options).contains(reason), "{options}: {}", refusal(&options));
    }
    // A file may hold both.
    let both = format!("ssl_chain_cert={}", path("both.pem"));
    let server = Server::start(&["-Z", "-o", &both]);
    assert!(files.connect(&server).ask("version").starts_with("VERSION"));
}

/// What a server says that does not start.
fn refusal(options: &str) -> String {
    let user: &[&str] = if nix::unistd::geteuid().is_root() { &["-u", "root"] } else { &[] };
    let output = Command::new(Path::new(&server_path()))
        .args(["-l", "127.0.0.1", "-p", "-1", "-Z", "-o", options])
        .args(user)
        .output()
        .expect("a server");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}
