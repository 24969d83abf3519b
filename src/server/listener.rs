//! Listening sockets: where -l, -p and -s say, and the file that tells their ports.

use super::udp::UdpSockets;
use crate::config::{Listen, ListenTraits, Settings};
use crate::tls;
use log::{info, warn};
use nix::sys::stat::{Mode, umask};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::env;
use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::mem::take;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// memcached's variable: the file to write the bound ports to.
const PORT_FILE_VARIABLE: &str = "MEMCACHED_PORT_FILENAME";

/// A listening socket, and what goes for those who connect to it.
pub(super) struct Listener {
    pub(super) socket: Socket,
    pub(super) traits: ListenTraits,
}

/// All listening sockets. Dropped, they take the unix socket's file with them.
pub(super) struct Listeners {
    all: Vec<Listener>,
    /// Until the workers have them.
    udp: UdpSockets,
    unix: Option<PathBuf>,
    /// The sockets were opened by whoever started the server.
    are_inherited: bool,
}

impl Listeners {
    /// Binds every TCP address that the settings name, unless there are `inherited` sockets, which
    /// then are all, and every UDP address. An error names the address and the reason.
    pub(super) fn bind(
        settings: &Settings,
        inherited: Vec<Listener>,
    ) -> std::result::Result<Listeners, String> {
        let (are_inherited, udp) = (!inherited.is_empty(), UdpSockets::default());
        let mut listeners = Listeners { are_inherited, all: inherited, udp, unix: None };
        if are_inherited && (settings.inter.is_some() || settings.unix_socket.is_some()) {
            warn!("-l and -s have no effect beside the sockets of LISTEN_FDS");
        }
        for listen in settings.listen.iter().filter(|_| !are_inherited) {
            let bound = bind_all("TCP", listen, |address| tcp_socket(address, backlog(settings)))?;
            let traits = listen.traits;
            listeners.all.extend(bound.into_iter().map(|socket| Listener { socket, traits }));
        }
        listeners.udp = UdpSockets::bind(settings)?;
        Ok(listeners)
    }

    /// Binds the unix socket, if there is to be one, with the mode that -a says.
    pub(super) fn bind_unix(&mut self, settings: &Settings) -> std::result::Result<(), String> {
        let Some(path) = settings.unix_socket.as_ref().filter(|_| !self.are_inherited) else {
            return Ok(());
        };
        let socket = unix_socket(path, settings.unix_mask, backlog(settings))
            .map_err(|e| format!("failed to listen on UNIX socket {}: {e}", path.display()))?;
        self.all.push(Listener { socket, traits: settings.unix_traits });
        self.unix = Some(path.clone());
        Ok(())
    }

    /// Tells the ports to whoever set `MEMCACHED_PORT_FILENAME`: written aside, then renamed, so
    /// that the file is whole as soon as it is there.
    pub(super) fn write_port_file(&self) -> std::result::Result<(), String> {
        let Some(path) = env::var_os(PORT_FILE_VARIABLE).map(PathBuf::from) else {
            return Ok(());
        };
        let mut aside = path.clone().into_os_string();
        aside.push(".lck");
        fs::write(&aside, self.port_lines() + &self.udp.port_lines())
            .and_then(|()| fs::rename(&aside, &path))
            .map_err(|e| format!("failed to write ports to {}: {e}", path.display()))
    }

    /// Says so where strangers can come in: by listeners that ask nobody who they are, and that
    /// more than this machine and its private networks can reach.
    pub(super) fn warn_of_strangers(&self, settings: &Settings) {
        if settings.sasl_passwords.is_some() || settings.auth_file.is_some() {
            return;
        }
        let open = self.all.iter().filter(|l| !tls::must_have_one(l.traits.tls, &settings.tls));
        let addresses = open.filter_map(|l| l.socket.local_addr().ok()?.as_socket());
        let wide: Vec<String> =
            addresses.filter(|a| is_wide(a.ip())).map(|a| a.to_string()).collect();
        if !wide.is_empty() {
            warn!(
                "whoever reaches {} may read and change everything, unasked: keep strangers off by \
                 -l 127.0.0.1 or a firewall, or ask them who they are by -S, -Y or -Z with \
                 ssl_verify_mode=2",
                wide.join(" or ")
            );
        }
    }

    pub(super) fn all(&self) -> &[Listener] {
        &self.all
    }

    pub(super) fn take_udp(&mut self) -> UdpSockets {
        take(&mut self.udp)
    }

    fn port_lines(&self) -> String {
        families("TCP", self.all.iter().filter_map(|l| l.socket.local_addr().ok()?.as_socket()))
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        if let Some(path) = &self.unix
            && let Err(e) = fs::remove_file(path)
            && e.kind() != ErrorKind::NotFound
        {
            warn!("cannot remove {}: {e}", path.display());
        }
    }
}

/// True of all addresses of the machine at once, and of one that the public network may know. Who
/// names an address of a private network has chosen who is on it.
fn is_wide(address: IpAddr) -> bool {
    let near = match address.to_canonical() {
        IpAddr::V4(a) => a.is_loopback() || a.is_private() || a.is_link_local(),
        IpAddr::V6(a) => a.is_loopback() || a.is_unique_local() || a.is_unicast_link_local(),
    };
    !near
}

/// Binds what `listen` names. One host name may stand for several addresses, and no address for
/// those of each family. As with memcached one of them is enough: a machine may lack a family that
/// its resolver knows. An error names the transport, the address and the reason.
pub(super) fn bind_all<T>(
    transport: &str,
    listen: &Listen,
    bind: impl Fn(SocketAddr) -> Result<T>,
) -> std::result::Result<Vec<T>, String> {
    let port = listen.port;
    let failed = |e: Error| match listen.host.as_str() {
        "" => format!("failed to listen on {transport} port {port}: {e}"),
        host => format!("failed to listen on {transport} address {host} port {port}: {e}"),
    };
    let mut last = Error::other("no such address");
    let mut all = Vec::new();
    for address in addresses(listen).map_err(failed)? {
        match bind(address) {
            Ok(bound) => all.push(bound),
            Err(e) => {
                info!("failed to listen on {address}: {e}");
                last = e;
            }
        }
    }
    if all.is_empty() { Err(failed(last)) } else { Ok(all) }
}

/// Ports as the port file tells them.
pub(super) fn families(transport: &str, addresses: impl Iterator<Item = SocketAddr>) -> String {
    let family = |address: &SocketAddr| if address.is_ipv4() { "INET" } else { "INET6" };
    addresses.map(|a| format!("{transport} {}: {}\n", family(&a), a.port())).collect()
}

fn backlog(settings: &Settings) -> i32 {
    i32::try_from(settings.backlog).unwrap_or(i32::MAX)
}

fn addresses(listen: &Listen) -> Result<Vec<SocketAddr>> {
    if listen.host.is_empty() {
        let (all4, all6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        return Ok(vec![(all4, listen.port).into(), (all6, listen.port).into()]);
    }
    Ok((listen.host.as_str(), listen.port).to_socket_addrs()?.collect())
}

/// Accepted sockets inherit nodelay and keepalive, and need no calls of their own for them.
fn tcp_socket(address: SocketAddr, backlog: i32) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_keepalive(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    listening(socket, backlog)
}

/// A socket that a previous server left behind is removed; any other file is not.
fn unix_socket(path: &Path, mode: u32, backlog: i32) -> Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let address = SockAddr::unix(path)?;
    // No other thread makes files yet.
    let before = umask(Mode::from_bits_truncate(!mode & 0o777));
    let bound = socket.bind(&address);
    umask(before);
    bound?;
    listening(socket, backlog)
}

fn listening(socket: Socket, backlog: i32) -> Result<Socket> {
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_can_reach_is_wide() {
        let wide = |text: &str| is_wide(text.parse().expect("an address"));
        for near in ["127.0.0.1", "127.9.9.9", "10.1.2.3", "172.31.0.1", "192.168.0.1", "::1"]
            .into_iter()
            .chain(["169.254.0.1", "fd00::1", "fe80::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"])
        {
            assert!(!wide(near), "{near}");
        }
        for far in ["0.0.0.0", "::", "192.0.2.1", "172.32.0.1", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert!(wide(far), "{far}");
        }
    }
}
