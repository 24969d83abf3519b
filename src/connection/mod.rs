//! One client: reads what came, has it decoded and run in batches, sends the answers.
//!
//! Sockets are registered edge-triggered, so a connection remembers whether more can be read: after
//! a read that did not fill its buffer there is nothing left, unless the peer has closed its side.
//! A turn makes one read and one write where no value is cut in two: see `turn`.
//!
//! A connection owns bytes only while it has a part of a request (`rest`) or unsent
//! answers. Everything else is lent by its worker: see [`Workspace`].

mod batch;
mod datagram;
mod dump;
mod gate;
mod memory;
mod meter;
mod sasl;
mod transport;
mod turn;
mod value;
mod watch;

pub use datagram::Datagrams;
pub use meter::Meter;

use crate::auth::Auth;
use crate::clock::Seconds;
use crate::config::{CONNECTION, ListenTraits, Protocol};
use crate::protocol::Decoder;
use crate::protocol::outbox::{Outbox, Progress};
use crate::stats::{ConnState, Held, Stats};
use crate::store::{Local, Store};
use crate::tls::Tls;
use crate::watch::{CloseReason, Wake, Watcher};
use batch::Stop;
use bumpalo::Bump;
use dump::Dump;
use gate::Gate;
use log::{Level, debug, log_enabled};
use memory::Room;
use sasl::Login;
use std::collections::HashMap;
use std::io::Result;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
pub use transport::Transport;
pub use turn::TURNS_MAX;
use turn::Turn;
use value::Value;

/// Bytes of input taken at once, into a buffer that all connections of a worker share.
const INPUT_SIZE: usize = 64 << 10;
/// The same behind a value that was read by itself: what comes next may be the front of another,
/// which is read straight into its chunks but for this.
const INPUT_AFTER_LARGE: usize = READ_MIN;
/// The same of one large value, which gets memory for so much at a time.
const BULK_SIZE: usize = 64 << 10;
/// A part of a request that leaves less than this of the shared buffer gets a buffer of its own.
const READ_MIN: usize = 4 << 10;
/// Unsent bytes that make a connection send before it runs its next command.
const OUTBOX_HIGH: usize = 64 << 10;

/// What a worker lends to the connection that it drives.
pub struct Workspace {
    /// What was read in the turns that are taken in step; so much of it.
    input: Box<[u8]>,
    taken: usize,
    several: bool,
    turns: Box<[Turn]>,
    desk: Desk,
}

/// The part of a [`Workspace`] that answering needs.
struct Desk {
    store: Arc<Store>,
    auth: Arc<Auth>,
    local: Local,
    /// What `refresh_certs` refreshes.
    tls: Option<Arc<Tls>>,
    /// The present turn's.
    outbox: Box<Outbox>,
    /// Keys that came in base64, decoded; emptied after each batch.
    arena: Bump,
    /// What is read of a large value, on its way to its chunks.
    bulk: Box<[u8]>,
    /// A command was run in this turn, and its answer not forced out (as by `mn`).
    piped: bool,
    /// Tells this worker that there are lines for some watcher of its.
    wake: Wake,
    /// Where clients came from, by file number, if somebody watched then.
    peers: HashMap<usize, SocketAddr>,
    /// Requests of one turn while other connections wait: -R, see [`batch::requests_per_turn`].
    requests: usize,
    room: Room,
}

/// What the system said of a socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready {
    pub readable: bool,
    /// The peer will send no more, or the socket failed: it is read to its end.
    pub closed: bool,
}

/// When a connection wants its next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When its socket is ready.
    Wait,
    /// That, or when there are lines for it: it is a watcher's.
    Watch,
    /// Soon, without any event: it has work left.
    Again,
    /// Never.
    Close,
}

/// A client that was accepted.
pub struct Arrival {
    pub transport: Transport,
    /// Where it comes from; `None` by a unix socket.
    pub peer: Option<SocketAddr>,
    /// What its listener was told by `-l`.
    pub traits: ListenTraits,
}

/// A client. It begins with a cache line.
#[repr(align(64))]
pub struct Connection {
    transport: Transport,
    state: State,
    decoder: Decoder,
    /// Bytes that came and are not used up: from `rest_at` on, the front of a request.
    rest: Vec<u8>,
    rest_at: u32,
    /// What the client did not take yet. No command is run meanwhile.
    unsent: Option<Box<Outbox>>,
    /// What this connection added to the statistics of buffers.
    held: Held,
    last_command: Seconds,
    /// What `stats conns` was last told: it lies in memory that other workers write too.
    shown: (ConnState, Seconds),
    readable: bool,
    closed: bool,
    /// Stopped with whole requests in `rest`, maybe: they are run before more is read.
    yielded: bool,
    /// The last value was read by itself.
    after_large: bool,
}

/// What the next bytes are.
enum State {
    /// A command.
    Command,
    /// What a client may say before it has said who it is.
    Gate(Gate),
    /// The same where it has to prove that by SASL.
    Sasl(Box<Login>),
    /// A value.
    Value(Box<Value>),
    /// A refused value, of which so many bytes are still to be dropped.
    Swallow(u64),
    /// A command, when the dump in hand is done.
    Dump(Box<Dump>),
    /// Of no interest: it watches.
    Watch(Box<Watcher>),
    /// Nothing: what is unsent is sent, then the connection is closed.
    Closing(CloseReason),
}

// An idle connection costs this, its slot and its word for `stats conns`. Lists of slots double.
const _: () = assert!(size_of::<Connection>() <= 128);
const _: () = assert!(2 * (size_of::<Connection>() + size_of::<Arrival>()) <= CONNECTION as usize);

impl Workspace {
    /// `wake` is called by other threads, and tells this one that there are lines to send.
    pub fn new(store: Arc<Store>, auth: Arc<Auth>, tls: Option<Arc<Tls>>, wake: Wake) -> Workspace {
        let local = store.local();
        let requests = batch::requests_per_turn(store.settings().requests_per_event);
        let room = Room::new(store.settings());
        let (outbox, arena, peers) = (Box::default(), Bump::new(), HashMap::new());
        let (piped, bulk) = (false, vec![0; BULK_SIZE].into());
        Workspace {
            input: vec![0; INPUT_SIZE].into(),
            taken: 0,
            several: false,
            turns: (0..TURNS_MAX).map(|_| Turn::default()).collect(),
            desk: Desk {
                store,
                auth,
                local,
                tls,
                outbox,
                arena,
                bulk,
                piped,
                wake,
                peers,
                requests,
                room,
            },
        }
    }

    pub fn store(&self) -> &Store {
        &self.desk.store
    }

    pub fn local(&self) -> &Local {
        &self.desk.local
    }
}

impl Connection {
    /// A new client.
    pub fn new(arrival: Arrival, w: &mut Workspace) -> Connection {
        let now = w.store().clock().now();
        let (state, protocol) = match &w.desk.auth {
            auth if auth.sasl.is_some() => (State::Sasl(Box::default()), Protocol::Binary),
            auth if auth.file.is_some() => (State::Gate(Gate::default()), Protocol::Ascii),
            _ => (State::Command, arrival.traits.protocol),
        };
        let mut connection = Connection {
            readable: arrival.transport.has_more(),
            transport: arrival.transport,
            state,
            decoder: Decoder::new(protocol),
            rest: Vec::new(),
            rest_at: 0,
            unsent: None,
            held: Held::default(),
            last_command: now,
            shown: (ConnState::Closed, 0),
            closed: false,
            yielded: false,
            after_large: false,
        };
        connection.show(connection.shown_state(), w.store().stats());
        if log_enabled!(Level::Debug) {
            let kind = match protocol {
                Protocol::Auto => "auto-negotiating client connection",
                Protocol::Ascii => "ascii client connection.",
                Protocol::Binary => "binary client connection.",
            };
            debug!("<{} new {kind}", connection.file());
        }
        connection.tell_new(arrival.peer, &mut w.desk);
        connection
    }

    /// True while nothing has been asked that is not answered.
    pub fn idle(&self) -> bool {
        matches!(self.state, State::Command | State::Gate(_) | State::Sasl(_))
            && self.unsent.is_none()
            && !self.yielded
    }

    /// The second of the last command, or of the start.
    pub fn last_command(&self) -> Seconds {
        self.last_command
    }

    /// True while the client has answers to take.
    pub fn has_unsent(&self) -> bool {
        self.unsent.is_some()
    }

    /// True where the client is so slow to take a value that its memory is needed.
    pub fn is_revoked(&self) -> bool {
        self.unsent.as_ref().is_some_and(|outbox| outbox.is_revoked())
    }

    /// Takes its leave of the statistics and closes the socket. `reason`: where it is not the
    /// connection's own.
    pub fn close(mut self, w: &mut Workspace, reason: Option<CloseReason>) {
        self.tell_close(reason, &mut w.desk);
        let stats = w.store().stats();
        if self.unsent.is_none() {
            self.transport.close();
        }
        stats.buffers.count(&mut self.held, 0);
        // Before the socket goes: its number may be another connection's at once.
        self.show(ConnState::Closed, stats);
        if log_enabled!(Level::Debug) {
            debug!("<{} connection closed.", self.file());
        }
    }

    /// Uses up as many whole requests of `buf` as this turn may; returns their length.
    fn process(&mut self, buf: &[u8], desk: &mut Desk, alone: bool) -> Result<usize> {
        self.yielded = false;
        let mut at = 0;
        let mut requests = desk.requests;
        while at < buf.len() {
            match &mut self.state {
                State::Command | State::Gate(_) | State::Sasl(_) => {
                    if requests == 0 {
                        desk.local.counters.thread.conn_yields.bump();
                        requests = desk.requests;
                        self.yielded = !alone || desk.room.is_limited();
                    }
                    if self.yielded {
                        break;
                    }
                    let done = match self.state {
                        State::Command => self.batch(&buf[at..], requests, desk)?,
                        _ => self.wait_at_gate(&buf[at..], desk),
                    };
                    at += done.used;
                    requests -= done.requests;
                    match done.stop {
                        Stop::Limit => {}
                        Stop::Incomplete => break,
                        Stop::Blocked => self.yielded = true,
                    }
                }
                State::Value(_) => at += self.feed(&buf[at..], desk),
                State::Swallow(left) => {
                    let dropped =
                        (buf.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    at += dropped;
                    *left -= dropped as u64;
                    if *left == 0 {
                        self.state = State::Command;
                    }
                }
                State::Dump(_) => {
                    self.yielded = true;
                    break;
                }
                State::Watch(_) | State::Closing(_) => return Ok(buf.len()),
            }
        }
        Ok(at)
    }

    fn shown_state(&self) -> ConnState {
        match self.state {
            State::Watch(_) => ConnState::Watch,
            _ if self.unsent.is_some() => ConnState::Mwrite,
            State::Command | State::Gate(_) | State::Sasl(_) => ConnState::Read,
            State::Value(_) => ConnState::Nread,
            State::Swallow(_) => ConnState::Swallow,
            State::Dump(_) => ConnState::Mwrite,
            State::Closing(_) => ConnState::Closing,
        }
    }

    fn show(&mut self, state: ConnState, stats: &Stats) {
        let shown = (state, self.last_command);
        if shown != self.shown {
            self.shown = shown;
            stats.conns.set(self.file(), state, self.last_command);
        }
    }

    fn file(&self) -> usize {
        self.transport.as_raw_fd() as usize
    }
}

/// One counted write.
#[inline(always)]
fn write(transport: &mut Transport, outbox: &mut Outbox, local: &Local) -> Result<Progress> {
    let before = outbox.len();
    let progress = outbox.write_to(transport);
    local.counters.thread.bytes_written.add((before - outbox.len()) as u64);
    progress
}
