//! One thread that serves its share of the connections.
//!
//! Sockets are registered once, edge-triggered for both directions, and never again: there is no
//! call to the poller on the way of a request. A connection that stops with work left (-R, unread
//! input, a value larger than one turn) is put on the worker's own list, [`Shift::again`], for
//! which no event will come: while that list is not empty the worker polls without waiting.

use super::Shared;
use super::mailbox::{Mailbox, WAKE};
use crate::clock::Seconds;
use crate::connection::{Connection, Datagrams, Next, Ready, TURNS_MAX, Workspace};
use crate::watch::CloseReason;
use log::{error, warn};
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Result};
use std::mem::{replace, take};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Events taken from the system at once.
const EVENTS_MAX: usize = 256;
/// The first UDP socket's token; connections have those of their slots.
const UDP: usize = usize::MAX / 2;
/// With -o idle_timeout, idle connections are looked for so often.
const SWEEP: Duration = Duration::from_secs(1);
/// While clients are slow to take their answers, it is looked for so often whether they must go.
const SLOW_SWEEP: Duration = Duration::from_millis(100);
/// How long clients may take to read their last answers when the server stops.
const DRAIN: Duration = Duration::from_secs(1);

/// A running worker.
pub(super) struct Worker {
    mailbox: Arc<Mailbox>,
    thread: JoinHandle<()>,
}

/// The worker's own side.
struct Shift {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    poll: Poll,
    workspace: Workspace,
    /// Each connection's token is its place here.
    slots: Vec<Option<Connection>>,
    /// Slots whose connections are on the list of those that have work left.
    queued: Vec<bool>,
    free: Vec<usize>,
    /// Connections that watch.
    watchers: Vec<usize>,
    udp: Vec<Door>,
    /// Connections and UDP sockets that have work left, and an empty list to swap it with.
    again: Vec<usize>,
    spare: Vec<usize>,
    /// An empty list for those that get a turn.
    calls: Vec<usize>,
    last_sweep: Seconds,
    /// Some clients may be slow to take their answers.
    slow: bool,
    /// [`Store::revocations`](crate::store::Store::revocations) when connections were last looked
    /// at for it.
    revocations: u32,
}

/// A UDP socket.
struct Door {
    datagrams: Datagrams,
    /// On the list of those that have work left.
    queued: bool,
}

impl Worker {
    pub(super) fn start(id: u32, shared: Arc<Shared>, udp: Vec<UdpSocket>) -> Result<Worker> {
        let poll = Poll::new()?;
        let mailbox = Arc::new(Mailbox::new(poll.registry())?);
        let told = mailbox.clone();
        let wake = Arc::new(move || told.tell_lines());
        let Shared { store, auth, tls, .. } = &*shared;
        let workspace = Workspace::new(store.clone(), auth.clone(), tls.clone(), wake);
        let mut shift = Shift {
            shared,
            mailbox: mailbox.clone(),
            poll,
            workspace,
            slots: Vec::new(),
            queued: Vec::new(),
            free: Vec::new(),
            udp: Vec::new(),
            watchers: Vec::new(),
            again: Vec::new(),
            spare: Vec::new(),
            calls: Vec::new(),
            last_sweep: 0,
            slow: false,
            revocations: 0,
        };
        udp.into_iter().try_for_each(|socket| shift.open(socket))?;
        let thread = Builder::new().name(format!("worker {id}")).spawn(move || shift.work())?;
        Ok(Worker { mailbox, thread })
    }

    pub(super) fn mailbox(&self) -> Arc<Mailbox> {
        self.mailbox.clone()
    }

    /// Tells the worker to answer what has come, and to end.
    pub(super) fn stop(&self) {
        self.mailbox.stop();
    }

    pub(super) fn join(self) {
        if self.thread.join().is_err() {
            error!("a worker died");
        }
    }
}

impl Shift {
    fn work(&mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let idle_timeout = self.shared.store.settings().idle_timeout;
        let patience = (idle_timeout > 0).then_some(SWEEP);
        while !self.mailbox.is_stopped() {
            self.round(&mut events, if self.slow { Some(SLOW_SWEEP) } else { patience });
            if self.slow {
                self.close_revoked();
            }
            if idle_timeout > 0 {
                self.sweep(idle_timeout);
            }
        }
        self.drain(&mut events);
    }

    /// Waits for events, no longer than `patience`, and gives every connection that is ready, and
    /// every one with work left, one turn.
    fn round(&mut self, events: &mut Events, patience: Option<Duration>) {
        let timeout = if self.again.is_empty() { patience } else { Some(Duration::ZERO) };
        match self.poll.poll(events, timeout) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => return,
            Err(e) => panic!("a worker cannot poll: {e}"),
        }
        self.shared.store.clock().refresh();
        let queue = replace(&mut self.again, take(&mut self.spare));
        let mut calls = take(&mut self.calls);
        let mut woken = false;
        for event in &*events {
            match event.token() {
                WAKE => woken = true,
                Token(index) if index >= UDP => self.answer(index, readiness(event)),
                Token(index) => self.notice(index, readiness(event), &mut calls),
            }
        }
        for &index in &queue {
            match index {
                UDP.. => self.answer_again(index),
                _ => calls.push(index),
            }
        }
        (self.spare, self.calls) = (queue, self.serve(calls));
        self.spare.clear();
        if woken {
            self.admit();
            self.send_lines();
        }
    }

    /// A connection has an event; it gets its turn with the others, once. Events of connections
    /// that are gone find nobody.
    fn notice(&mut self, index: usize, ready: Ready, calls: &mut Vec<usize>) {
        let Some(Some(connection)) = self.slots.get_mut(index) else { return };
        connection.notice(ready);
        if !self.queued[index] {
            calls.push(index);
        }
    }

    /// Gives each of these connections, none of which is named twice, a turn, as many at a time in
    /// step as there is room for; returns the list, empty.
    fn serve(&mut self, mut calls: Vec<usize>) -> Vec<usize> {
        debug_assert!(calls.iter().all(|index| calls.iter().filter(|i| *i == index).count() == 1));
        let alone = calls.len() == 1;
        let mut left = &calls[..];
        while !left.is_empty() {
            let (turns, later) = left.split_at(self.take_in(left));
            self.workspace.fetch_ahead(turns.len() - 1);
            for (turn, &index) in turns.iter().enumerate() {
                if let Some(connection) = &mut self.slots[index] {
                    connection.work(&mut self.workspace, turn, alone);
                }
            }
            for (turn, &index) in turns.iter().enumerate() {
                self.give_out(turn, index);
            }
            left = later;
        }
        calls.clear();
        calls
    }

    /// Reads the first of these connections; returns how many.
    fn take_in(&mut self, calls: &[usize]) -> usize {
        self.workspace.begin_turns(calls.len() > 1);
        for (turn, &index) in calls.iter().enumerate() {
            if turn == TURNS_MAX {
                return turn;
            }
            // One that was on the list of those with work left may be gone by now.
            let Some(connection) = &mut self.slots[index] else { continue };
            if turn > 0 && !self.workspace.has_room_for(connection) {
                return turn;
            }
            connection.take_in(&mut self.workspace, turn);
            if turn > 0 {
                self.workspace.fetch_ahead(turn - 1);
            }
        }
        calls.len()
    }

    fn give_out(&mut self, turn: usize, index: usize) {
        self.queued[index] = false;
        let Some(connection) = &mut self.slots[index] else { return };
        match connection.give_out(&mut self.workspace, turn) {
            Next::Wait => self.slow |= connection.has_unsent(),
            next => self.follow(index, next),
        }
    }

    /// What a connection wants but to wait.
    #[inline(never)]
    fn follow(&mut self, index: usize, next: Next) {
        match next {
            Next::Wait => {}
            Next::Watch if self.watchers.contains(&index) => {}
            Next::Watch => self.watchers.push(index),
            Next::Again => {
                self.queued[index] = true;
                self.again.push(index);
            }
            Next::Close => self.close(index, None),
        }
    }

    fn answer_again(&mut self, index: usize) {
        self.udp[index - UDP].queued = false;
        self.answer(index, Ready::default());
    }

    /// One turn of one UDP socket.
    fn answer(&mut self, index: usize, ready: Ready) {
        let door = &mut self.udp[index - UDP];
        let again = door.datagrams.drive(&mut self.workspace, ready) == Next::Again;
        if again && !replace(&mut door.queued, true) {
            self.again.push(index);
        }
    }

    /// Serves a UDP socket. It is counted as memcached counts it, as a connection that stays.
    fn open(&mut self, socket: UdpSocket) -> Result<()> {
        let (file, token) = (socket.as_raw_fd(), Token(UDP + self.udp.len()));
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&file), token, interest)?;
        let datagrams = Datagrams::new(socket, self.shared.meter.clone(), &self.workspace);
        self.udp.push(Door { datagrams, queued: false });
        let stats = &self.shared.store.stats().server;
        stats.curr_connections.fetch_add(1, Relaxed);
        stats.total_connections.fetch_add(1, Relaxed);
        stats.connection_structures.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Takes in the connections that were handed over.
    fn admit(&mut self) {
        for arrival in self.mailbox.take() {
            let index = self.free.pop().unwrap_or(self.slots.len());
            if index == self.slots.len() {
                self.slots.push(None);
                self.queued.push(false);
                self.shared.store.stats().server.connection_structures.fetch_add(1, Relaxed);
            }
            let file = arrival.transport.as_raw_fd();
            let interest = Interest::READABLE | Interest::WRITABLE;
            let added = self.poll.registry().register(&mut SourceFd(&file), Token(index), interest);
            self.slots[index] = Some(Connection::new(arrival, &mut self.workspace));
            if let Err(e) = added {
                warn!("cannot serve a connection: {e}");
                self.close(index, Some(CloseReason::Error));
            }
        }
    }

    /// Gives a turn to the connections for which there may be lines. Those that have work left get
    /// theirs in the next round, which is at once.
    fn send_lines(&mut self) {
        if self.mailbox.take_lines() {
            let waiting = self.watchers.iter().filter(|index| !self.queued[**index]);
            let calls = waiting.copied().collect();
            self.serve(calls);
        }
    }

    /// `reason`: where it is not the connection's own.
    fn close(&mut self, index: usize, reason: Option<CloseReason>) {
        let Some(connection) = self.slots[index].take() else { return };
        let stats = self.shared.store.stats();
        connection.close(&mut self.workspace, reason);
        self.watchers.retain(|watcher| *watcher != index);
        stats.server.curr_connections.fetch_sub(1, Relaxed);
        self.shared.clients.fetch_sub(1, Relaxed);
        self.free.push(index);
    }

    /// Once a second, closes the connections that asked nothing for longer than `idle_timeout`.
    fn sweep(&mut self, idle_timeout: u32) {
        let now = self.shared.store.clock().now();
        if now == self.last_sweep {
            return;
        }
        self.last_sweep = now;
        for index in 0..self.slots.len() {
            let Some(connection) = &self.slots[index] else { continue };
            let quiet = now.saturating_sub(connection.last_command());
            if connection.idle() && quiet > idle_timeout {
                self.workspace.local().counters.thread.idle_kicks.bump();
                self.close(index, Some(CloseReason::IdleTimeout));
            }
        }
    }

    /// Closes the connections whose clients keep memory that is needed by not reading.
    fn close_revoked(&mut self) {
        let revocations = self.shared.store.revocations();
        if revocations == self.revocations {
            self.slow = self.slots.iter().flatten().any(Connection::has_unsent);
            return;
        }
        self.revocations = revocations;
        for index in 0..self.slots.len() {
            if self.slots[index].as_ref().is_some_and(Connection::is_revoked) {
                self.close(index, Some(CloseReason::Error));
            }
        }
    }

    /// The end: what clients have sent is answered, and they get a while to take the answers.
    fn drain(&mut self, events: &mut Events) {
        self.admit();
        let until = Instant::now() + DRAIN;
        let sent = Ready { readable: true, closed: false };
        let mut calls = Vec::new();
        for index in 0..self.slots.len() {
            self.notice(index, sent, &mut calls);
        }
        self.serve(calls);
        for index in 0..self.udp.len() {
            self.answer(UDP + index, sent);
        }
        while self.is_busy() && Instant::now() < until {
            self.round(events, Some(until.saturating_duration_since(Instant::now())));
        }
        for index in 0..self.slots.len() {
            self.close(index, Some(CloseReason::Shutdown));
        }
        for door in self.udp.drain(..) {
            door.datagrams.close(self.shared.store.stats());
        }
    }

    fn is_busy(&self) -> bool {
        !self.again.is_empty() || self.slots.iter().flatten().any(Connection::has_unsent)
    }
}

fn readiness(event: &Event) -> Ready {
    let closed = event.is_read_closed() || event.is_write_closed() || event.is_error();
    Ready { readable: event.is_readable(), closed }
}
