//! What watchers have to do with a connection: they are told of its beginning and its end, and it
//! may be one's own, which is sent lines as they come while what it sends itself is dropped.

use super::{Connection, Desk, State};
use crate::command::{Replies, Reply, Say, Streams, start_watch};
use crate::protocol::{Echo, Encoder};
use crate::watch::{CloseReason, Event, Transport};
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getpeername, getsockname};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

impl Connection {
    /// Becomes a watcher's, or says why not.
    pub(super) fn start_watch(
        &mut self,
        streams: Option<Streams>,
        piped: bool,
        echo: Echo<'_>,
        desk: &mut Desk,
    ) {
        let wake = desk.wake.clone();
        let reply = match start_watch(&desk.store, streams, piped, wake) {
            Ok(watcher) => {
                self.state = State::Watch(Box::new(watcher));
                Reply::Ok
            }
            Err(error) => Reply::Say(Say::Error(error)),
        };
        Encoder::new(&mut desk.outbox, &echo).reply(reply);
    }

    /// Puts the lines that wait with what is to be sent.
    #[inline]
    pub(super) fn take_lines(&self, desk: &mut Desk) {
        if let State::Watch(watcher) = &self.state {
            watcher.take(desk.outbox.bytes());
        }
    }

    /// The client does not take what was sent: what it is told next is for its buffer to hold, or
    /// to skip.
    #[inline]
    pub(super) fn block_lines(&self) {
        if let State::Watch(watcher) = &self.state {
            watcher.block();
        }
    }

    /// It has come, from `peer`.
    pub(super) fn tell_new(&self, peer: Option<SocketAddr>, desk: &mut Desk) {
        let (client, log) = (self.file() as i32, &desk.local.log);
        log.attend(client);
        if log.wants(Streams::CONNEVENTS) {
            let transport = self.kind();
            log.note(Event::ConnNew { peer, transport, client }, b"");
            desk.peers.extend(peer.map(|peer| (self.file(), peer)));
        }
    }

    /// It goes, for `reason` or for its own. Of a client that came before anybody watched, the
    /// system is asked where from; it does not know any more after a reset.
    pub(super) fn tell_close(&self, reason: Option<CloseReason>, desk: &mut Desk) {
        let known = desk.peers.remove(&self.file());
        let (client, log) = (self.file() as i32, &desk.local.log);
        log.attend(client);
        if !log.wants(Streams::CONNEVENTS) {
            return;
        }
        let own = match self.state {
            State::Closing(reason) => reason,
            _ => CloseReason::Error,
        };
        let peer = known.or_else(|| peer_of(self.transport.as_raw_fd()));
        let (transport, reason) = (self.kind(), reason.unwrap_or(own));
        log.note(Event::ConnClose { peer, transport, reason, client }, b"");
    }

    /// Asked of the system, so that a connection need not remember it.
    fn kind(&self) -> Transport {
        let address = getsockname::<SockaddrStorage>(self.transport.as_raw_fd());
        let local = address.is_ok_and(|address| address.family() == Some(AddressFamily::Unix));
        if local { Transport::Local } else { Transport::Tcp }
    }
}

/// The other end of a socket, if it has an address and that is still known.
fn peer_of(socket: RawFd) -> Option<SocketAddr> {
    let address: SockaddrStorage = getpeername(socket).ok()?;
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}
