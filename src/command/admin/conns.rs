//! `stats conns`: the open sockets. Their addresses are asked of the system when they are printed,
//! so that a connection need not keep them.

use super::{Rows, StatLines};
use crate::clock::Seconds;
use crate::stats::{ConnState, ConnTable};
use nix::sys::socket::{SockaddrStorage, getpeername, getsockname};
use std::os::fd::RawFd;

/// One socket, as it is printed.
struct Conn {
    fd: usize,
    state: ConnState,
    /// Clock seconds of the last command.
    last_command: Seconds,
    /// Of a listener and a UDP socket its own address, else the client's.
    addr: String,
    listen_addr: Option<String>,
}

pub(super) fn of(table: &ConnTable, now: Seconds) -> StatLines {
    let conns = table.open().filter_map(|(fd, state, last_command)| {
        let file = RawFd::try_from(fd).ok()?;
        let own = text(getsockname(file).ok());
        let (addr, listen_addr) = match state {
            ConnState::Listening => (own, None),
            ConnState::Datagram => (own.replacen("tcp", "udp", 1), None),
            _ => (text(getpeername(file).ok()), Some(own)),
        };
        Some(Conn { fd, state, last_command, addr, listen_addr })
    });
    format(conns, now)
}

fn format(conns: impl Iterator<Item = Conn>, now: Seconds) -> StatLines {
    let mut rows = Rows::default();
    for conn in conns {
        let name = |what: &str| format!("{}:{what}", conn.fd);
        if conn.state == ConnState::Datagram {
            rows.put(name("UDP"), "UDP");
        }
        rows.put(name("addr"), conn.addr);
        if let Some(addr) = conn.listen_addr {
            rows.put(name("listen_addr"), addr);
        }
        rows.put(name("state"), conn.state.name());
        rows.put(name("secs_since_last_cmd"), now.saturating_sub(conn.last_command));
    }
    rows.end()
}

/// An address in memcached's form. A client of a unix socket has no name; it, and a socket that
/// was closed meanwhile, is shown as 1.6.45 shows the former.
fn text(addr: Option<SockaddrStorage>) -> String {
    let named = addr.as_ref().and_then(|addr| {
        let tcp = addr.as_sockaddr_in().map(|v4| format!("tcp:{v4}"));
        let tcp6 = || addr.as_sockaddr_in6().map(|v6| format!("tcp6:[{}]:{}", v6.ip(), v6.port()));
        let unix = || Some(format!("unix:{}", addr.as_unix_addr()?.path()?.display()));
        tcp.or_else(tcp6).or_else(unix)
    });
    named.unwrap_or_else(|| "?:<AF 0>".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Buffers, Prefixes, Stats};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn table(sockets: &[(RawFd, ConnState, Seconds)]) -> Stats {
        let stats = Stats::new(1, 1 << 16, Prefixes::new(b':', false), Buffers::new(0, 1));
        for &(fd, state, last_command) in sockets {
            stats.conns.set(fd as usize, state, last_command);
        }
        stats
    }

    #[test]
    fn tcp_sockets_show_both_addresses() {
        for (host, form) in [("127.0.0.1", "tcp:127.0.0.1"), ("::1", "tcp6:[::1]")] {
            let Ok(listener) = TcpListener::bind((host, 0)) else {
                assert_eq!(host, "::1", "no loopback");
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let client = TcpStream::connect((host, port)).unwrap();
            let client_port = client.local_addr().unwrap().port();
            let (accepted, _) = listener.accept().unwrap();
            let stats = table(&[
                (listener.as_raw_fd(), ConnState::Listening, 2),
                (accepted.as_raw_fd(), ConnState::ParseCmd, 99),
            ]);
            let lines = of(&stats.conns, 100);
            let listening = listener.as_raw_fd();
            assert_eq!(lines.value(&format!("{listening}:addr")), format!("{form}:{port}"));
            assert_eq!(lines.value(&format!("{listening}:state")), "conn_listening");
            assert_eq!(lines.value(&format!("{listening}:secs_since_last_cmd")), "98");
            let fd = accepted.as_raw_fd();
            assert_eq!(lines.value(&format!("{fd}:addr")), format!("{form}:{client_port}"));
            assert_eq!(lines.value(&format!("{fd}:listen_addr")), format!("{form}:{port}"));
            assert_eq!(lines.value(&format!("{fd}:state")), "conn_parse_cmd");
            assert_eq!(lines.value(&format!("{fd}:secs_since_last_cmd")), "1");
            assert_eq!(lines.names().len(), 3 + 4);
        }
    }

    #[test]
    fn udp_sockets_are_marked() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let fd = socket.as_raw_fd();
        let stats = table(&[(fd, ConnState::Datagram, 2)]);
        let lines = of(&stats.conns, 9);
        let names = ["UDP", "addr", "state", "secs_since_last_cmd"].map(|n| format!("{fd}:{n}"));
        assert_eq!(lines.names(), names);
        let address = format!("udp:127.0.0.1:{port}");
        let values = names.map(|name| lines.value(&name).to_owned());
        assert_eq!(values, ["UDP", &address, "conn_read", "7"]);
    }

    #[test]
    fn unix_sockets_show_their_path() {
        let path = std::env::temp_dir().join(format!("conns-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        std::fs::remove_file(&path).unwrap();
        let stats = table(&[
            (listener.as_raw_fd(), ConnState::Listening, 2),
            (accepted.as_raw_fd(), ConnState::Nread, 2),
        ]);
        let lines = of(&stats.conns, 2);
        let form = format!("unix:{}", path.display());
        assert_eq!(lines.value(&format!("{}:addr", listener.as_raw_fd())), form);
        let fd = accepted.as_raw_fd();
        assert_eq!(lines.value(&format!("{fd}:addr")), "?:<AF 0>");
        assert_eq!(lines.value(&format!("{fd}:listen_addr")), form);
        assert_eq!(lines.value(&format!("{fd}:state")), "conn_nread");
    }

    #[test]
    fn rows_come_in_memcacheds_order() {
        let conn = |fd, state, listen_addr: Option<&str>| Conn {
            fd,
            state,
            last_command: 10,
            addr: "tcp:127.0.0.1:5".into(),
            listen_addr: listen_addr.map(String::from),
        };
        let conns = [
            conn(26, ConnState::Listening, None),
            conn(27, ConnState::Read, Some("tcp:127.0.0.1:11211")),
        ];
        let lines = format(conns.into_iter(), 9);
        assert_eq!(
            lines.names(),
            [
                "26:addr",
                "26:state",
                "26:secs_since_last_cmd",
                "27:addr",
                "27:listen_addr",
                "27:state",
                "27:secs_since_last_cmd",
            ]
        );
        assert_eq!(lines.value("27:secs_since_last_cmd"), "0");
    }

    #[test]
    fn a_socket_closed_meanwhile_is_shown_without_addresses() {
        let stats = table(&[(60_000, ConnState::Read, 2)]);
        assert_eq!(of(&stats.conns, 2).value("60000:addr"), "?:<AF 0>");
    }
}
