//! systemd: the sockets that it opened for the server, and what it is told of the server's state.
//! Without systemd there are no such sockets, and nobody is told.

use super::listener::Listener;
use crate::config::Settings;
use listenfd::ListenFd;
use log::{debug, info};
use sd_notify::NotifyState;
use socket2::{Domain, Socket, Type};
use std::env;
use std::process;

/// Where systemd tells what its sockets are called, joined by colons.
const NAMES: &str = "LISTEN_FDNAMES";
/// Where it wants to be told of states.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// A socket without a name of its own.
const UNNAMED: &str = "unknown";

/// The listening sockets that were handed over, in their order; none where nothing was. An error
/// names the one that is no such socket.
pub(super) fn listeners(settings: &Settings) -> Result<Vec<Listener>, String> {
    let names = env::var(NAMES).unwrap_or_default();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let mut files = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..files.len() {
        let name = names.next().unwrap_or(UNNAMED);
        let failed = |e| format!("socket '{name}' of LISTEN_FDS: {e}");
        let socket = take(&mut files, index).map_err(failed)?;
        let is_unix = prepare(&socket).map_err(|e| failed(e.to_string()))?;
        let traits = if is_unix { settings.unix_traits } else { settings.listen_traits };
        let traits = traits.named(name).map_err(failed)?;
        let at = socket.local_addr().ok().and_then(|address| address.as_socket());
        let at = at.map_or("a unix socket".into(), |address| address.to_string());
        info!("listening on {at}, which was handed over as '{name}'");
        listeners.push(Listener { socket, traits });
    }
    Ok(listeners)
}

/// File `index` as a stream socket of a family that is served.
fn take(files: &mut ListenFd, index: usize) -> Result<Socket, String> {
    let stream = i32::from(Type::STREAM);
    let mut of_family =
        |family: Domain| files.take_custom::<Socket>(index, family.into(), stream, "stream socket");
    let taken = of_family(Domain::IPV4).or_else(|_| of_family(Domain::UNIX));
    match taken.map_err(|e| e.to_string())? {
        Some(socket) if socket.is_listener().unwrap_or(false) => Ok(socket),
        _ => Err("does not listen".into()),
    }
}

/// Does what the server does to the sockets that it opens itself; true for a unix socket.
fn prepare(socket: &Socket) -> std::io::Result<bool> {
    let is_unix = socket.domain()? == Domain::UNIX;
    if !is_unix {
        socket.set_keepalive(true)?;
        socket.set_tcp_nodelay(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(is_unix)
}

/// True where somebody wants to be told of the server's state.
pub(super) fn is_told() -> bool {
    env::var_os(NOTIFY_SOCKET).is_some()
}

/// The server serves.
pub(super) fn ready() {
    notify(&[NotifyState::Ready, NotifyState::MainPid(process::id())]);
}

/// SIGHUP came. [`ready`] follows when its work is done.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(e) => debug!("systemd is not told of a reload: {e}"),
    }
}

/// The server is on its way down.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        debug!("systemd cannot be told: {e}");
    }
}
