//! Threads that make TLS handshakes, so that no worker's connections wait for the arithmetic.
//!
//! A greeter takes what was accepted on listeners with TLS, and hands each connection to a worker
//! when its handshake is done. One that takes too long is closed.

use super::Shared;
use super::mailbox::{Mailbox, Turns, WAKE};
use crate::config::ListenTraits;
use crate::connection::{Arrival, Transport};
use crate::privileges;
use crate::stats::{ConnState, Held};
use crate::store::Local;
use crate::tls::Stream;
use log::{error, info, warn};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::Socket;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Events taken from the system at once.
const EVENTS_MAX: usize = 64;
/// A handshake that takes longer is given up; with `-o idle_timeout` the shorter of both counts.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// It is looked so often for handshakes that take too long.
const SWEEP: Duration = Duration::from_secs(1);

/// A running greeter.
pub(super) struct Greeter {
    mailbox: Arc<Mailbox>,
    thread: JoinHandle<()>,
}

/// The greeter's own side.
struct Shift {
    shared: Arc<Shared>,
    local: Local,
    mailbox: Arc<Mailbox>,
    workers: Turns,
    poll: Poll,
    slots: Vec<Option<Guest>>,
    free: Vec<usize>,
    patience: Duration,
    next_sweep: Instant,
}

/// A client in its handshake.
struct Guest {
    stream: Box<Stream>,
    peer: Option<SocketAddr>,
    traits: ListenTraits,
    since: Instant,
    /// What it added to the statistics of buffers.
    held: Held,
}

/// How many greeters so many workers get.
pub(super) fn count(workers: usize) -> usize {
    workers.div_ceil(4)
}

impl Greeter {
    pub(super) fn start(id: usize, shared: Arc<Shared>, workers: Turns) -> Result<Greeter> {
        let poll = Poll::new()?;
        let mailbox = Arc::new(Mailbox::new(poll.registry())?);
        let idle_timeout = shared.store.settings().idle_timeout;
        let patience = match u64::from(idle_timeout) {
            0 => HANDSHAKE_MAX,
            seconds => HANDSHAKE_MAX.min(Duration::from_secs(seconds)),
        };
        let mut shift = Shift {
            local: shared.store.local(),
            shared,
            mailbox: mailbox.clone(),
            workers,
            poll,
            slots: Vec::new(),
            free: Vec::new(),
            patience,
            next_sweep: Instant::now(),
        };
        let thread = Builder::new().name(format!("greeter {id}")).spawn(move || {
            privileges::yield_to_others();
            shift.work();
        })?;
        Ok(Greeter { mailbox, thread })
    }

    pub(super) fn mailbox(&self) -> Arc<Mailbox> {
        self.mailbox.clone()
    }

    /// Ends the thread, and with it all handshakes that are not done.
    pub(super) fn stop(self) {
        self.mailbox.stop();
        if self.thread.join().is_err() {
            error!("a greeter died");
        }
    }
}

impl Shift {
    fn work(&mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.mailbox.is_stopped() {
            let waiting = self.slots.len() > self.free.len();
            match self.poll.poll(&mut events, waiting.then_some(SWEEP)) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => panic!("a greeter cannot poll: {e}"),
            }
            for event in events.iter().filter(|event| event.token() != WAKE) {
                self.drive(event.token().0);
            }
            for arrival in self.mailbox.take() {
                self.admit(arrival);
            }
            self.sweep(Instant::now());
        }
        for index in 0..self.slots.len() {
            if let Some(guest) = self.slots[index].take() {
                self.leave(guest);
            }
        }
    }

    fn admit(&mut self, arrival: Arrival) {
        let Arrival { transport: Transport::Plain(socket), peer, traits } = arrival else {
            return self.forget();
        };
        let stream = match self.welcome(socket, traits) {
            Ok(stream) => Box::new(stream),
            Err(e) => {
                warn!("cannot serve a connection: {e}");
                return self.forget();
            }
        };
        let index = self.free.pop().unwrap_or(self.slots.len());
        if index == self.slots.len() {
            self.slots.push(None);
        }
        let (stats, now) = (self.shared.store.stats(), self.shared.store.clock().now());
        let file = stream.as_raw_fd();
        stats.conns.set(file as usize, ConnState::Read, now);
        self.slots[index] =
            Some(Guest { stream, peer, traits, since: Instant::now(), held: Held::default() });
        let interest = Interest::READABLE | Interest::WRITABLE;
        let added = self.poll.registry().register(&mut SourceFd(&file), Token(index), interest);
        if let Err(e) = added {
            self.fail(index, &e);
        }
    }

    fn welcome(&self, socket: Socket, traits: ListenTraits) -> Result<Stream> {
        let tls = self.shared.tls.as_ref().ok_or(ErrorKind::Unsupported)?;
        tls.accept(traits.tls, socket).map_err(Error::other)
    }

    /// As much of one handshake as can be made now. Events of those that are gone find nobody.
    fn drive(&mut self, index: usize) {
        let Some(Some(guest)) = self.slots.get_mut(index) else { return };
        let buffers = &self.shared.store.stats().buffers;
        let done = guest.stream.handshake();
        let grown = buffers.count(&mut guest.held, guest.stream.held());
        match done {
            Ok(false) if grown && !buffers.allows(&guest.held, 0) => {
                self.local.counters.thread.read_buf_oom.bump();
                self.fail(index, &ErrorKind::OutOfMemory.into());
            }
            Ok(false) => {}
            Ok(true) => self.introduce(index),
            Err(e) => self.fail(index, &e),
        }
    }

    /// Hands a client whose handshake is done to a worker.
    fn introduce(&mut self, index: usize) {
        let Some(mut guest) = self.slots[index].take() else { return };
        self.free.push(index);
        // From now on it is its worker's to count.
        self.shared.store.stats().buffers.count(&mut guest.held, 0);
        let file = guest.stream.as_raw_fd();
        if let Err(e) = self.poll.registry().deregister(&mut SourceFd(&file)) {
            warn!("cannot serve a connection: {e}");
            return self.leave(guest);
        }
        let Guest { stream, peer, traits, .. } = guest;
        self.workers.deliver(Arrival { transport: Transport::Tls(stream), peer, traits });
    }

    fn fail(&mut self, index: usize, reason: &Error) {
        let Some(guest) = self.slots[index].take() else { return };
        self.free.push(index);
        let stats = self.shared.store.stats();
        stats.server.tls.ssl_handshake_errors.fetch_add(1, Relaxed);
        let file = guest.stream.as_raw_fd();
        self.local.log.tls_failed(file, reason);
        match guest.peer {
            Some(peer) => info!("<{file} TLS handshake with {peer} failed: {reason}"),
            None => info!("<{file} TLS handshake failed: {reason}"),
        }
        self.leave(guest);
    }

    /// Closes those that have had their time.
    fn sweep(&mut self, now: Instant) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP;
        for index in 0..self.slots.len() {
            let over = |guest: &Guest| now.duration_since(guest.since) >= self.patience;
            if self.slots[index].as_ref().is_some_and(over) {
                self.fail(index, &ErrorKind::TimedOut.into());
            }
        }
    }

    fn leave(&self, mut guest: Guest) {
        self.shared.store.stats().buffers.count(&mut guest.held, 0);
        let file = guest.stream.as_raw_fd() as usize;
        self.shared.store.stats().conns.set(file, ConnState::Closed, 0);
        self.forget();
    }

    /// Takes a client that no worker will see out of the counts.
    fn forget(&self) {
        self.shared.store.stats().server.curr_connections.fetch_sub(1, Relaxed);
        self.shared.clients.fetch_sub(1, Relaxed);
    }
}
