//! How requests in text get to a server and what it says gets back: by a connection, or each by a
//! datagram of its own.

use crate::common::{Client, Random, Server};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

/// Ends every batch, so that the reply's end shows; no reply to anything else looks like it.
const SENTINEL: &[u8] = b"mg no_such_key_at_all k\r\n";
const SENTINEL_REPLY: &[u8] = b"EN kno_such_key_at_all\r\n";
/// How long an expected datagram may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes before a datagram's payload.
const FRAME: usize = 8;

pub enum Wire {
    Tcp(Client),
    Udp { socket: UdpSocket, next: u16 },
}

impl Wire {
    pub fn to(server: &Server, udp: bool) -> Wire {
        if udp {
            let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
            socket.connect(("127.0.0.1", server.udp_ports[0])).expect("a peer");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            return Wire::Udp { socket, next: 0 };
        }
        // The first byte chooses the protocol, so it must not be drawn.
        let mut client = server.connect();
        client.exchange(SENTINEL, SENTINEL_REPLY);
        Wire::Tcp(client)
    }

    /// The reply to `bytes`, and whether the server then closed.
    pub fn ask(
        &mut self,
        bytes: &mut Vec<u8>,
        random: &mut Random,
    ) -> Result<(Vec<u8>, bool), String> {
        match self {
            Wire::Tcp(client) => {
                bytes.extend_from_slice(SENTINEL);
                send_in_pieces(client, bytes, random);
                Ok(read_to_sentinel(client))
            }
            Wire::Udp { socket, next } => {
                for payload in [bytes, SENTINEL] {
                    *next = next.wrapping_add(1);
                    let frame = [&next.to_be_bytes()[..], &[0, 0, 0, 1, 0, 0]].concat();
                    socket.send(&[&frame, payload].concat()).expect("a datagram");
                }
                Ok((datagrams_to(socket, *next)?, false))
            }
        }
    }
}

fn send_in_pieces(client: &mut Client, bytes: &[u8], random: &mut Random) {
    let longest = if random.once_in(4) { 1 + random.below(200) } else { bytes.len() };
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(1 + random.below(longest)));
        let piece = if longest == bytes.len() { rest } else { piece };
        client.send(piece);
        rest = if longest == bytes.len() { &[] } else { after };
    }
}

/// The reply without the sentinel, and whether the server closed.
fn read_to_sentinel(client: &mut Client) -> (Vec<u8>, bool) {
    let mut reply = Vec::new();
    while let Some(byte) = client.next() {
        reply.push(byte);
        if reply.ends_with(SENTINEL_REPLY) {
            reply.truncate(reply.len() - SENTINEL_REPLY.len());
            return (reply, false);
        }
    }
    (reply, !client.timed_out)
}

/// What comes before the answer `last`, which is the sentinel's.
fn datagrams_to(socket: &UdpSocket, last: u16) -> Result<Vec<u8>, String> {
    let mut reply = Vec::new();
    loop {
        let (id, payload) = datagrams(socket)?;
        if id == last {
            let ended = payload == SENTINEL_REPLY;
            return if ended { Ok(reply) } else { Err("another's answer".into()) };
        }
        reply.extend(payload);
    }
}

/// The next answer, put together.
fn datagrams(socket: &UdpSocket) -> Result<(u16, Vec<u8>), String> {
    let mut parts = BTreeMap::new();
    let mut buffer = [0; 64 << 10];
    loop {
        let len = match socket.recv(&mut buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            received => received.map_err(|e| format!("no answer: {e}"))?,
        };
        let number = |at: usize| u16::from_be_bytes([buffer[at], buffer[at + 1]]);
        let (id, sequence, total) = (number(0), number(2), number(4));
        if len < FRAME || parts.insert(sequence, buffer[FRAME..len].to_vec()).is_some() {
            return Err(format!("datagram {sequence} of {total} twice, or short: {len} bytes"));
        }
        if parts.len() == usize::from(total) {
            return Ok((id, parts.into_values().flatten().collect()));
        }
    }
}
