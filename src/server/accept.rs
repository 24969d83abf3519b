//! The main thread once the server runs: takes new connections in, hands them to the workers in
//! turn, keeps to -c, and watches for signals.

use super::Shared;
use super::listener::{Listener, Listeners};
use super::mailbox::Turns;
use super::reload::Reloads;
use super::signals::Signals;
use super::systemd;
use crate::config::{ListenTls, ListenTraits};
use crate::connection::{Arrival, Transport};
use crate::stats::{ConnState, ServerStats};
use log::{debug, info, warn};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::Socket;
use std::io::{ErrorKind, Result, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// While no connection can be taken in, it is tried again so often. memcached does the same.
const RETRY: Duration = Duration::from_millis(10);
/// Connections taken in before signals are looked at.
const ACCEPT_MAX: usize = 1024;
/// memcached's words to a connection beyond -c, with `-o maxconns_fast`.
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

pub(super) struct Acceptor {
    shared: Arc<Shared>,
    listeners: Listeners,
    signals: Signals,
    reloads: Reloads,
    workers: Turns,
    /// Where handshakes are made; empty without TLS.
    greeters: Turns,
    poll: Poll,
    /// Since when new connections are left waiting: -c is reached, or there are no files left.
    paused: Option<Instant>,
}

/// How a round of accepting ended.
enum Round {
    /// Nobody waits any more.
    Done,
    /// Somebody may wait.
    Unfinished,
    /// Somebody may wait, but cannot be taken in now.
    Full,
}

impl Acceptor {
    pub(super) fn new(
        shared: Arc<Shared>,
        listeners: Listeners,
        signals: Signals,
        reloads: Reloads,
        workers: Turns,
        greeters: Turns,
    ) -> Result<Acceptor> {
        let poll = Poll::new()?;
        let stats = shared.store.stats();
        for (listener, id) in listeners.all().iter().zip(1..) {
            let file = listener.socket.as_raw_fd();
            poll.registry().register(&mut SourceFd(&file), Token(id), Interest::READABLE)?;
            stats.conns.set(file as usize, ConnState::Listening, shared.store.clock().now());
            debug!("<{file} server listening ({})", listener.traits.protocol.name());
        }
        poll.registry().register(&mut SourceFd(&signals.file()), Token(0), Interest::READABLE)?;
        // As memcached counts: listening sockets are connections too, but for one in the gauge.
        let listening = listeners.all().len() as u64;
        stats.server.curr_connections.fetch_add(listening as i64 - 1, Relaxed);
        stats.server.total_connections.fetch_add(listening, Relaxed);
        stats.server.connection_structures.fetch_add(listening, Relaxed);
        let paused = None;
        Ok(Acceptor { shared, listeners, signals, reloads, workers, greeters, poll, paused })
    }

    /// Takes connections in until a signal says stop.
    pub(super) fn run(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(64);
        let mut timeout = None;
        loop {
            match self.poll.poll(&mut events, timeout) {
                Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e),
                _ => self.signals.drain()?,
            }
            if self.signals.stop() {
                info!("stopping");
                // Who connected before the signal may have asked something already.
                self.accept_all();
                return Ok(());
            }
            if self.signals.take_hangup() {
                systemd::reloading();
                self.reloads.run();
                systemd::ready();
            }
            timeout = match self.accept_all() {
                Round::Done => {
                    self.resume();
                    None
                }
                Round::Unfinished => {
                    self.resume();
                    Some(Duration::ZERO)
                }
                Round::Full => {
                    self.pause();
                    Some(RETRY)
                }
            };
        }
    }

    /// Every socket is tried at each wake-up: simpler than remembering which is ready.
    fn accept_all(&mut self) -> Round {
        let mut all = Round::Done;
        for index in 0..self.listeners.all().len() {
            match self.accept_from(index) {
                Round::Done => {}
                Round::Unfinished => all = Round::Unfinished,
                Round::Full => return Round::Full,
            }
        }
        all
    }

    fn accept_from(&mut self, index: usize) -> Round {
        let fast = self.shared.store.settings().maxconns_fast;
        for _ in 0..ACCEPT_MAX {
            let full = self.is_full();
            if full && !fast {
                return Round::Full;
            }
            let Listener { socket, traits } = &self.listeners.all()[index];
            match socket.accept() {
                Ok((socket, _)) if full => self.reject(&socket),
                Ok((socket, peer)) => {
                    let (peer, traits) = (peer.as_socket(), *traits);
                    self.admit(socket, peer, traits);
                }
                Err(e) => match e.kind() {
                    ErrorKind::WouldBlock => return Round::Done,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    // No more files, most likely. The peer waits in the backlog.
                    _ => {
                        if self.paused.is_none() {
                            warn!("cannot accept a connection: {e}");
                        }
                        return Round::Full;
                    }
                },
            }
        }
        Round::Unfinished
    }

    fn is_full(&self) -> bool {
        let max = self.shared.store.settings().max_connections as usize;
        self.shared.clients.load(Relaxed) >= max
    }

    fn admit(&mut self, socket: Socket, peer: Option<SocketAddr>, traits: ListenTraits) {
        if let Err(e) = socket.set_nonblocking(true) {
            warn!("cannot serve a connection: {e}");
            return;
        }
        self.shared.clients.fetch_add(1, Relaxed);
        self.stats().curr_connections.fetch_add(1, Relaxed);
        self.stats().total_connections.fetch_add(1, Relaxed);
        let transport = Transport::Plain(socket);
        let desks =
            if traits.tls == ListenTls::Off { &mut self.workers } else { &mut self.greeters };
        desks.deliver(Arrival { transport, peer, traits });
    }

    fn reject(&self, mut socket: &Socket) {
        self.stats().rejected_connections.fetch_add(1, Relaxed);
        // The buffer of a fresh socket is empty; a peer that is gone already needs no answer.
        if let Err(e) = socket.write(TOO_MANY) {
            debug!("rejected a connection that was gone: {e}");
        }
    }

    fn pause(&mut self) {
        if self.paused.is_none() {
            self.paused = Some(Instant::now());
            self.stats().listen_disabled_num.fetch_add(1, Relaxed);
            self.stats().accepting_conns.store(false, Relaxed);
        }
    }

    fn resume(&mut self) {
        if let Some(since) = self.paused.take() {
            let micros = since.elapsed().as_micros() as u64;
            self.stats().time_in_listen_disabled_us.fetch_add(micros, Relaxed);
            self.stats().accepting_conns.store(true, Relaxed);
        }
    }

    fn stats(&self) -> &ServerStats {
        &self.shared.store.stats().server
    }
}
