//! The server and whoever looks after it: -d, -P, `shutdown`, systemd.

mod common;

use common::{Client, FREE_AND_CONFINED, PATIENCE, Server, server_path, temp_dir, wait_for};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The server's program with `args`.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(server_path());
    if nix::unistd::geteuid().is_root() {
        command.args(["-u", "root"]);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("a running process");
}

/// A daemon and its directory; dropped, both go.
struct Daemon {
    pid: i32,
    dir: PathBuf,
}

impl Daemon {
    /// Starts it on a unix socket and waits for the process that was started.
    fn start(args: &[&str]) -> (Daemon, Output) {
        let dir = temp_dir("daemon");
        let (socket, pid_file) = (dir.join("socket"), dir.join("pid"));
        let paths = ["-d", "-s", text(&socket), "-P", text(&pid_file)];
        let output = command(&[&paths, args].concat()).output().expect("an end");
        assert!(output.status.success(), "{output:?}");
        let pid = fs::read_to_string(&pid_file).expect("a pid file");
        let pid = pid.strip_suffix('\n').and_then(|pid| pid.parse().ok()).expect("a number");
        (Daemon { pid, dir }, output)
    }

    fn is_running(&self) -> bool {
        kill(Pid::from_raw(self.pid), None).is_ok() && !is_zombie(self.pid)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Nobody may wait for an orphan where there is no init.
fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn ask(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("a connection");
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn a_daemon_serves_when_its_starter_ends() {
    for options in FREE_AND_CONFINED {
        let (daemon, output) = Daemon::start(options);
        assert!(output.stderr.is_empty(), "{output:?}");
        let stats = ask(&daemon.dir.join("socket"), "stats\r\nquit\r\n");
        assert!(stats.contains(&format!("STAT pid {}\r\n", daemon.pid)), "{stats}");
        // In a session of its own, with nothing open that was the starter's.
        let of = |name: &str| fs::read_link(format!("/proc/{}/{name}", daemon.pid)).expect(name);
        for standard in ["fd/0", "fd/1", "fd/2"] {
            assert_eq!(of(standard), Path::new("/dev/null"), "{standard}");
        }
        assert_eq!(of("cwd"), Path::new("/"));
        let session = nix::unistd::getsid(Some(Pid::from_raw(daemon.pid))).expect("a session");
        assert_ne!(session, nix::unistd::getsid(None).expect("a session"));
        // SIGHUP does not end it.
        signal(daemon.pid, Signal::SIGHUP);
        assert!(ask(&daemon.dir.join("socket"), "version\r\nquit\r\n").starts_with("VERSION "));
        signal(daemon.pid, Signal::SIGTERM);
        wait_for("the end", || (!daemon.is_running()).then_some(()));
        assert!(!daemon.dir.join("pid").exists() && !daemon.dir.join("socket").exists());
    }
}

#[test]
fn a_daemons_files_are_where_it_was_started() {
    let dir = temp_dir("daemon");
    let mut command = command(&["-d", "-s", "socket", "-P", "pid"]);
    let output = command.current_dir(&dir).output().expect("an end");
    assert!(output.status.success(), "{output:?}");
    let pid = fs::read_to_string(dir.join("pid")).expect("a pid file");
    let daemon = Daemon { pid: pid.trim().parse().expect("a number"), dir };
    assert!(ask(&daemon.dir.join("socket"), "version\r\nquit\r\n").starts_with("VERSION "));
}

#[test]
fn a_daemon_that_cannot_start_says_so_to_its_starter() {
    let dir = temp_dir("daemon");
    let missing = dir.join("missing/pid");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port().to_string();
    for (args, because) in [
        (vec!["-p", "0", "-P", text(&missing)], text(&missing)),
        (vec!["-l", "127.0.0.1", "-p", &port], "in use"),
        (vec!["-s", text(&dir)], text(&dir)),
    ] {
        for daemonize in [true, false] {
            let mut command = command(&args);
            if daemonize {
                command.arg("-d");
            }
            let output = command.output().expect("an end");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(71), "{args:?}: {said}");
            assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
            assert!(said.contains(because), "{args:?}: {said}");
        }
    }
    assert_eq!(fs::read_dir(&dir).expect("the directory").count(), 0, "something was left");
    fs::remove_dir_all(dir).expect("its directory");
}

#[test]
fn a_pid_file_of_a_running_process_is_warned_about() {
    let dir = temp_dir("pid");
    let pid_file = dir.join("pid");
    let own = std::process::id();
    fs::write(&pid_file, format!("{own}\n")).expect("a pid file");
    let mut server = command(&["-p", "0", "-P", text(&pid_file)]).spawn().expect("a server");
    let named = wait_for("the pid file", || {
        let pid = fs::read_to_string(&pid_file).ok()?;
        (pid.trim() != own.to_string()).then_some(pid)
    });
    assert_eq!(named, format!("{}\n", server.id()));
    signal(server.id().cast_signed(), Signal::SIGINT);
    assert!(server.wait().expect("an end").success());
    assert!(!pid_file.exists());
    let mut said = String::new();
    server.stderr.take().expect("its stderr").read_to_string(&mut said).expect("text");
    assert!(said.contains(&own.to_string()) && said.contains("running"), "{said}");
    fs::remove_dir_all(dir).expect("its directory");
}

#[test]
fn shutdown_ends_the_server() {
    for request in ["shutdown\r\n", "shutdown graceful\r\n", " shutdown g\r\n"] {
        let dir = temp_dir("shutdown");
        let socket = dir.join("socket");
        let mut server = command(&["-A", "-s", text(&socket)]).spawn().expect("a server");
        wait_for("the socket", || UnixStream::connect(&socket).ok());
        // What came before it is answered, what comes after it is not.
        assert_eq!(ask(&socket, &format!("mn\r\n{request}mn\r\n")), "MN\r\n");
        assert_eq!(server.wait().expect("an end").code(), Some(0), "{request}");
        assert!(!socket.exists());
        fs::remove_dir_all(dir).expect("its directory");
    }
}

#[test]
fn shutdown_is_off_unless_asked_for() {
    let server = Server::start(&[]);
    assert_eq!(server.ask("shutdown"), "SERVER_ERROR: shutdown not enabled");
    assert_eq!(server.ask("mn"), "MN");
}

#[test]
fn systemd_is_told_of_every_state() {
    for options in FREE_AND_CONFINED {
        let dir = temp_dir("notify");
        let path = dir.join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut command = command(&[&["-p", "0"], options].concat());
        let mut server = command.env("NOTIFY_SOCKET", &path).spawn().expect("a server");
        let pid = server.id().cast_signed();
        let told = || {
            let mut message = [0; 512];
            let len = manager.recv(&mut message).expect("a message");
            String::from_utf8_lossy(&message[..len]).into_owned()
        };
        let ready = format!("READY=1\nMAINPID={pid}\n");
        assert_eq!(told(), ready);
        signal(pid, Signal::SIGHUP);
        let reloading = told();
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert_eq!(told(), ready);
        signal(pid, Signal::SIGTERM);
        assert_eq!(told(), "STOPPING=1\n");
        assert!(server.wait().expect("an end").success());
        fs::remove_dir_all(dir).expect("its directory");
    }
}

/// `command` with `socket` handed over as systemd does, but under the number that it has.
fn hand_over(command: &mut Command, socket: &impl AsRawFd, name: &str) {
    let file = socket.as_raw_fd().to_string();
    command.env("LISTEN_FDS", "1").env("LISTEN_FDS_FIRST_FD", file).env("LISTEN_FDNAMES", name);
}

fn keep_over_exec(socket: &impl std::os::fd::AsFd) {
    fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())).expect("a flag");
}

#[test]
fn sockets_of_systemd_are_served_in_place_of_our_own() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    keep_over_exec(&listener);
    // Connections wait in it until the server is there.
    let early = TcpStream::connect(address).expect("a connection");
    let dir = temp_dir("activation");
    let unused = dir.join("unused");
    let mut command = command(&["-v", "-s", text(&unused)]);
    hand_over(&mut command, &listener, "cache");
    let mut server = command.spawn().expect("a server");
    drop(listener);
    let mut client = Client::new(early);
    client.exchange(b"mn\r\n", b"MN\r\n");
    assert!(!unused.exists());
    client.send(b"stats conns\r\n");
    let listening = format!(":addr tcp:{address}");
    let lines = std::iter::repeat_with(|| client.line()).take_while(|line| line != "END");
    assert_eq!(lines.filter(|line| line.ends_with(&listening)).count(), 1);
    signal(server.id().cast_signed(), Signal::SIGTERM);
    assert!(server.wait().expect("an end").success());
    let mut said = String::new();
    server.stderr.take().expect("its stderr").read_to_string(&mut said).expect("text");
    assert!(said.contains("'cache'") && said.contains("-s"), "{said}");
    fs::remove_dir_all(dir).expect("its directory");
}

#[test]
fn a_unix_socket_of_systemd_outlives_the_server() {
    let dir = temp_dir("activation");
    let path = dir.join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    keep_over_exec(&listener);
    let mut command = command(&[]);
    hand_over(&mut command, &listener, "");
    let mut server = command.spawn().expect("a server");
    assert!(ask(&path, "version\r\nquit\r\n").starts_with("VERSION "));
    signal(server.id().cast_signed(), Signal::SIGTERM);
    assert!(server.wait().expect("an end").success());
    assert!(path.exists());
    fs::remove_dir_all(dir).expect("its directory");
}

#[test]
fn what_is_no_listening_socket_ends_the_start() {
    let dir = temp_dir("activation");
    let file = fs::File::create(dir.join("file")).expect("a file");
    let datagrams = UnixDatagram::unbound().expect("a socket");
    let (stream, _peer) = UnixStream::pair().expect("sockets");
    keep_over_exec(&file);
    keep_over_exec(&datagrams);
    keep_over_exec(&stream);
    for number in [file.as_raw_fd(), datagrams.as_raw_fd(), stream.as_raw_fd()] {
        let mut command = command(&[]);
        command.env("LISTEN_FDS", "1").env("LISTEN_FDS_FIRST_FD", number.to_string());
        let output = command.output().expect("an end");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(71), "{said}");
        assert!(said.contains("LISTEN_FDS") && said.lines().count() == 1, "{said}");
    }
    fs::remove_dir_all(dir).expect("its directory");
}
