//! UDP sockets: for each address one a worker, among which the system shares out the clients.
//!
//! A socket of its own wakes only its worker, where one that is shared would wake them all for
//! every datagram, and one client's requests are served in their order.

use super::listener::{bind_all, families};
use crate::config::Settings;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Result;
use std::net::{SocketAddr, UdpSocket};

/// Bytes of answers that may wait to be sent; the system has a limit of its own.
const SEND_BUFFER: usize = 4 << 20;

/// All UDP sockets, by address.
#[derive(Default)]
pub(super) struct UdpSockets(Vec<Vec<UdpSocket>>);

impl UdpSockets {
    /// Binds every UDP address that the settings name. An error names the address and the reason.
    pub(super) fn bind(settings: &Settings) -> std::result::Result<UdpSockets, String> {
        let mut groups = Vec::new();
        for listen in &settings.udp.listen {
            groups.extend(bind_all("UDP", listen, |a| group(a, settings.threads_per_udp()))?);
        }
        Ok(UdpSockets(groups))
    }

    /// The lines of the port file.
    pub(super) fn port_lines(&self) -> String {
        let firsts = self.0.iter().filter_map(|group| group.first());
        families("UDP", firsts.filter_map(|socket| socket.local_addr().ok()))
    }

    /// Hands the sockets out to `workers`, each getting as many as the others or one more.
    pub(super) fn share(self, workers: usize) -> Vec<Vec<UdpSocket>> {
        let mut shares: Vec<Vec<UdpSocket>> = (0..workers).map(|_| Vec::new()).collect();
        for (socket, worker) in self.0.into_iter().flatten().zip((0..workers).cycle()) {
            shares[worker].push(socket);
        }
        shares
    }
}

/// `count` sockets of one address. The first is bound for itself alone, so that an address in use
/// is an error, and lets the others in after that.
fn group(address: SocketAddr, count: u32) -> Result<Vec<UdpSocket>> {
    let first = socket(address)?;
    first.bind(&address.into())?;
    let bound = first.local_addr()?;
    if count > 1 {
        first.set_reuse_port(true)?;
    }
    let mut group = vec![first.into()];
    for _ in 1..count {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&bound)?;
        group.push(socket.into());
    }
    Ok(group)
}

fn socket(address: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // As much as the system grants.
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_socket_a_worker_and_no_stranger() {
        let sockets = group(([127, 0, 0, 1], 0).into(), 3).expect("sockets");
        let ports: Vec<u16> = sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        let taken = group(([127, 0, 0, 1], ports[0]).into(), 3).expect_err("a second server");
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    }

    #[test]
    fn every_worker_gets_its_share() {
        let sockets = || group(([127, 0, 0, 1], 0).into(), 4).expect("sockets");
        let counts = |sockets: Vec<_>, workers| {
            UdpSockets(sockets).share(workers).iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(counts(vec![sockets(), sockets()], 4), [2, 2, 2, 2]);
        assert_eq!(counts(vec![sockets()], 3), [2, 1, 1]);
        assert_eq!(counts(vec![], 2), [0, 0]);
    }
}
