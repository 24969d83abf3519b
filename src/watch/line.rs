//! Events as lines, in memcached's words and order.

use super::event::{Event, Transport};
use std::io::Write;
use std::net::SocketAddr;

/// Hexadecimal digits of encoded bytes.
const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// Appends the line of an event, its end included. `at`: microseconds of unix time, which
/// memcached prints without leading zeros; `text`: the key, or an [`Event::Text`]'s own.
pub(super) fn put(out: &mut Vec<u8>, gid: u64, at: u64, event: &Event, text: &[u8]) {
    let (seconds, micros) = (at / 1_000_000, at % 1_000_000);
    put_all(out, format_args!("ts={seconds}.{micros} gid={gid} "));
    match *event {
        Event::ItemGet { got, class, client, size } => {
            key(out, "item_get", text);
            let got = got.word();
            put_all(out, format_args!("status={got} clsid={class} cfd={client} size={size}"));
        }
        Event::ItemStore { stored, by, ttl, class, client, size } => {
            key(out, "item_store", text);
            let (stored, by) = (stored.word(), by.word());
            put_all(out, format_args!("status={stored} cmd={by} ttl={ttl} clsid={class} "));
            put_all(out, format_args!("cfd={client} size={size}"));
        }
        Event::Eviction { fetched, ttl, idle, class, size } => {
            key(out, "eviction", text);
            let fetched = if fetched { "yes" } else { "no" };
            put_all(out, format_args!("fetch={fetched} ttl={ttl} la={idle} "));
            put_all(out, format_args!("clsid={class} size={size}"));
        }
        Event::Deleted { by, class, size } => {
            key(out, "deleted", text);
            put_all(out, format_args!("cmd={} clsid={class} size={size}", by.word()));
        }
        Event::ConnNew { peer, transport, client } => {
            address(out, "conn_new", peer, transport);
            put_all(out, format_args!("transport={} cfd={client}", transport.word()));
        }
        Event::ConnClose { peer, transport, reason, client } => {
            address(out, "conn_close", peer, transport);
            let (transport, reason) = (transport.word(), reason.word());
            put_all(out, format_args!("transport={transport} reason={reason} cfd={client}"));
        }
        Event::Text(_) => out.extend_from_slice(text),
    }
    out.push(b'\n');
}

/// What a watcher is told in the place of lines that found its buffer full.
pub(super) fn put_skipped(out: &mut Vec<u8>, lines: u64) {
    put_all(out, format_args!("skipped={lines}\n"));
}

fn put_all(out: &mut Vec<u8>, args: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(args);
    debug_assert!(written.is_ok(), "a vector takes everything");
}

fn key(out: &mut Vec<u8>, kind: &str, key: &[u8]) {
    put_all(out, format_args!("type={kind} key="));
    for &byte in key {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            let digit = |n: u8| DIGITS[usize::from(n & 15)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
        }
    }
    out.push(b' ');
}

fn address(out: &mut Vec<u8>, kind: &str, peer: Option<SocketAddr>, transport: Transport) {
    match (peer, transport) {
        (Some(peer), _) => {
            let (ip, port) = (peer.ip(), peer.port());
            put_all(out, format_args!("type={kind} rip={ip} rport={port} "));
        }
        (None, Transport::Local) => put_all(out, format_args!("type={kind} rip=unix rport=0 ")),
        (None, _) => put_all(out, format_args!("type={kind} rip=unknown rport=0 ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::*;
    use super::*;

    fn line(event: Event, text: &[u8]) -> String {
        let mut out = Vec::new();
        put(&mut out, 7, 1_700_000_000_000_042, &event, text);
        String::from_utf8(out).expect("lines are ASCII")
    }

    #[test]
    fn lines_are_memcacheds() {
        let peer = |text: &str| Some(text.parse().expect("an address"));
        let get = Event::ItemGet { got: Got::NotFound, class: 0, client: 28, size: 0 };
        let store = Event::ItemStore {
            stored: Stored::Stored,
            by: Storer::Cas,
            ttl: 9,
            class: 1,
            client: 28,
            size: 4,
        };
        let evicted = Event::Eviction { fetched: true, ttl: -1, idle: 3, class: 2, size: 9 };
        let new = |peer, transport| Event::ConnNew { peer, transport, client: 30 };
        let close = Event::ConnClose {
            peer: peer("[::1]:80"),
            transport: Transport::Tcp,
            reason: CloseReason::IdleTimeout,
            client: 30,
        };
        for (event, text, wanted) in [
            (get, "a", "type=item_get key=a status=not_found clsid=0 cfd=28 size=0"),
            (
                store,
                "a b%é-._~",
                "type=item_store key=a%20b%25%C3%A9-._~ status=stored cmd=cas ttl=9 clsid=1 \
                 cfd=28 size=4",
            ),
            (evicted, "k", "type=eviction key=k fetch=yes ttl=-1 la=3 clsid=2 size=9"),
            (
                Event::Deleted { by: Deleter::Meta, class: 5, size: 1 },
                "k",
                "type=deleted key=k cmd=md clsid=5 size=1",
            ),
            (
                new(peer("127.0.0.1:4242"), Transport::Tcp),
                "",
                "type=conn_new rip=127.0.0.1 rport=4242 transport=tcp cfd=30",
            ),
            (
                new(None, Transport::Local),
                "",
                "type=conn_new rip=unix rport=0 transport=local cfd=30",
            ),
            (
                close,
                "",
                "type=conn_close rip=::1 rport=80 transport=tcp reason=idle_timeout cfd=30",
            ),
            (Event::Text(Streams::SYSEVENTS), "type=x y=z", "type=x y=z"),
        ] {
            let wanted = format!("ts=1700000000.42 gid=7 {wanted}\n");
            assert_eq!(line(event, text.as_bytes()), wanted);
        }
    }

    #[test]
    fn the_longest_key_is_encoded_whole() {
        let get = Event::ItemGet { got: Got::Found, class: 1, client: 1, size: 1 };
        let line = line(get, &[b'#'; 250]);
        assert_eq!(line.matches("%23").count(), 250);
    }
}
