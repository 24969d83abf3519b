//! Load for live servers: a client that asks, checks what is answered, and asks again.
#![allow(dead_code)]

mod dialect;

pub use dialect::{Dialect, Name, Protocol, check, name};

use crate::common::Random;
use crate::process::{processor_time, ticks};
use crate::zipf::Zipf;
use dialect::{Asked, Reader};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::time::{Duration, Instant};

/// How long a server may be silent.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Keys that are drawn beforehand, and asked for in turn. More of them than a processor's caches
/// have room for what they stand for.
const DRAWN: usize = 1 << 20;
/// Coprime to every number of keys that is used: popular keys do not lie side by side.
const STRIDE: u64 = 1_000_003;
/// Bytes that are read at once, from any connection.
const INPUT: usize = 256 << 10;
/// Bytes of values, about, that are set in one write where all keys are stored.
const FILL_BATCH: usize = 32 << 10;
/// How much goes by before a measurement, at the most; of a short one a tenth.
const WARM_UP: Duration = Duration::from_millis(200);
/// What a client does between two looks at the clock takes some microseconds, a second client's
/// turn some fifty. Where it took so long, somebody else had its processor.
const HELD_UP: Duration = Duration::from_micros(250);

/// What clients do, all of them the same.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub protocol: Protocol,
    pub connections: usize,
    /// Connections that ask once, and then stay.
    pub idle: usize,
    /// Requests in one write, whose answers are waited for before the next.
    pub in_flight: usize,
    pub keys_per_get: usize,
    /// How many of a hundred requests are sets.
    pub sets: usize,
    pub keys: u64,
    /// Exponent of their popularity.
    pub zipf: f64,
    /// Bytes of a value.
    pub value: usize,
}

/// Names of keys in the order in which they are asked for.
pub struct Draws(Vec<Name>);

impl Draws {
    pub fn new(load: &Load) -> Draws {
        let mut zipf = Zipf::new(load.keys, load.zipf, 1);
        Draws((0..DRAWN).map(|_| name(zipf.draw() * STRIDE % load.keys)).collect())
    }
}

/// Where names of keys come from.
enum Source<'a> {
    Drawn {
        draws: &'a Draws,
        at: usize,
    },
    /// Each key once, from the first number up to the second.
    InTurn(u64, u64),
}

impl Source<'_> {
    fn next(&mut self) -> Option<Name> {
        match self {
            Source::Drawn { draws, at } => {
                *at = (*at + 1) % DRAWN;
                Some(draws.0[*at])
            }
            Source::InTurn(next, end) => (*next < *end).then(|| {
                *next += 1;
                name(*next - 1)
            }),
        }
    }
}

/// What was answered.
#[derive(Default)]
pub struct Tally {
    /// Keys that were asked for.
    pub gets: u64,
    pub hits: u64,
    pub sets: u64,
    /// From a write until its last answer, in microseconds.
    pub waits: Vec<f32>,
    /// Those of them in which the client was not [held up](HELD_UP) itself.
    pub undisturbed: Vec<f32>,
}

impl Tally {
    pub fn done(&self) -> u64 {
        self.gets + self.sets
    }
}

/// One connection.
struct Link {
    socket: TcpStream,
    /// Requests, and how much of them is sent.
    requests: Vec<u8>,
    sent: usize,
    /// What was asked, and how much of it is answered.
    asked: Vec<Asked>,
    answered: usize,
    reader: Reader,
    /// The front of an answer that came in part.
    held: Vec<u8>,
    since: Instant,
}

impl Link {
    fn connect(port: u16) -> Result<Link> {
        let stream = connect(port)?;
        stream.set_nonblocking(true)?;
        let socket = TcpStream::from_std(stream);
        let (requests, asked, held) = Default::default();
        let (sent, answered, reader) = (0, 0, Reader::default());
        Ok(Link { socket, requests, sent, asked, answered, reader, held, since: Instant::now() })
    }

    /// Sends what the socket takes; the rest when it can be written to.
    fn flush(&mut self) -> Result<()> {
        while self.sent < self.requests.len() {
            match self.socket.write(&self.requests[self.sent..]) {
                Ok(len) => self.sent += len,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// A connection that is reset when it ends, so that ten thousand leave no ports behind.
fn connect(port: u16) -> Result<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(stream)
}

/// Makes requests and takes their answers.
struct Talk<'a> {
    load: Load,
    dialect: Dialect,
    source: Source<'a>,
    random: Random,
    input: Vec<u8>,
    tally: Tally,
    clock: Clock,
}

/// Tells when the client has not run for a while.
struct Clock {
    /// When it was last seen to run.
    seen: Instant,
    /// The end of the last time that it did not.
    held_up: Instant,
}

impl Clock {
    /// The time. What was done since the clock was last seen takes no more than [`HELD_UP`].
    fn now(&mut self) -> Instant {
        let now = Instant::now();
        if now - self.seen > HELD_UP {
            self.held_up = now;
        }
        self.seen = now;
        now
    }

    /// The client waited for the server until now.
    fn waited(&mut self) {
        self.seen = Instant::now();
    }
}

impl Talk<'_> {
    /// Sends the next requests, if there are keys left.
    fn ask(&mut self, link: &mut Link) -> Result<()> {
        link.requests.clear();
        link.asked.clear();
        (link.sent, link.answered) = (0, 0);
        while link.asked.len() < self.load.in_flight {
            let Some(first) = self.source.next() else { break };
            if self.load.sets > self.random.below(100) {
                self.dialect.push_set(first, &mut link.requests);
                link.asked.push(Asked::Set);
            } else {
                let others = (1..self.load.keys_per_get).map_while(|_| self.source.next());
                let keys = std::iter::once(first).chain(others);
                self.dialect.push_get(keys, &mut link.requests);
                link.asked.push(Asked::Get);
            }
        }
        link.since = self.clock.now();
        link.flush()
    }

    /// Takes what has come; asks again when that is all.
    fn hear(&mut self, link: &mut Link) -> Result<()> {
        loop {
            let held = link.held.len();
            self.input[..held].copy_from_slice(&link.held);
            let len = match link.socket.read(&mut self.input[held..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => len,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            let used = self.check(link, held + len)?;
            link.held.clear();
            link.held.extend_from_slice(&self.input[used..held + len]);
            if link.answered == link.asked.len() {
                if !link.held.is_empty() {
                    return Err(Error::new(ErrorKind::InvalidData, "more than was asked for"));
                }
                let wait = (self.clock.now() - link.since).as_secs_f32() * 1e6;
                self.tally.waits.push(wait);
                if link.since >= self.clock.held_up {
                    self.tally.undisturbed.push(wait);
                }
                return self.ask(link);
            }
            // A read that filled less than its buffer took all that there was.
            if held + len < self.input.len() {
                return Ok(());
            }
        }
    }

    /// Counts the answers in the first `len` bytes of the input; how many bytes they are.
    fn check(&mut self, link: &mut Link, len: usize) -> Result<usize> {
        let mut used = 0;
        while let Some(&asked) = link.asked.get(link.answered) {
            let (taken, answer) = link.reader.read(&self.dialect, asked, &self.input[used..len])?;
            used += taken;
            let Some(hits) = answer else { break };
            link.answered += 1;
            if asked == Asked::Set {
                self.tally.sets += 1;
            } else {
                self.tally.gets += self.load.keys_per_get as u64;
                self.tally.hits += hits as u64;
                if hits > self.load.keys_per_get {
                    return Err(Error::new(ErrorKind::InvalidData, "more hits than keys"));
                }
            }
        }
        Ok(used)
    }
}

/// All connections to a server, in one thread.
pub struct Clients<'a> {
    talk: Talk<'a>,
    links: Vec<Link>,
    /// They do nothing more than to stay.
    _idle: Vec<std::net::TcpStream>,
    poll: Poll,
    events: Events,
}

impl<'a> Clients<'a> {
    /// Connects, and sends the first requests.
    pub fn open(port: u16, load: &Load, draws: &'a Draws) -> Result<Clients<'a>> {
        Clients::with_source(port, load, Source::Drawn { draws, at: 0 })
    }

    fn with_source(port: u16, load: &Load, source: Source<'a>) -> Result<Clients<'a>> {
        let dialect = Dialect::new(load.protocol, load.value);
        let idle = (0..load.idle).map(|_| idle(port, &dialect)).collect::<Result<_>>()?;
        let (random, tally) = (Random::new(1), Tally::default());
        let clock = Clock { seen: Instant::now(), held_up: Instant::now() };
        let input = vec![0; INPUT];
        let mut talk = Talk { load: *load, dialect, source, random, input, tally, clock };
        let poll = Poll::new()?;
        let mut links = Vec::with_capacity(load.connections);
        for at in 0..load.connections {
            let mut link = Link::connect(port)?;
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut link.socket, Token(at), both)?;
            links.push(link);
        }
        for link in &mut links {
            talk.ask(link)?;
        }
        Ok(Clients { talk, links, _idle: idle, poll, events: Events::with_capacity(1024) })
    }

    /// Waits until something can be done, and does it.
    pub fn turn(&mut self) -> Result<()> {
        // Other things were done since the last turn.
        self.talk.clock.now();
        match self.poll.poll(&mut self.events, Some(PATIENCE)) {
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        self.talk.clock.waited();
        if self.events.is_empty() {
            return Err(Error::new(ErrorKind::TimedOut, "no answers"));
        }
        for event in &self.events {
            let link = &mut self.links[event.token().0];
            if event.is_writable() {
                link.flush()?;
            }
            if event.is_readable() {
                self.talk.hear(link)?;
            }
        }
        Ok(())
    }

    /// What was answered since this was last called.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.talk.tally)
    }

    fn wait_for_answers(&self) -> bool {
        self.links.iter().any(|link| link.answered < link.asked.len())
    }
}

/// A connection that has had an answer: the server has more to do with it than to accept it.
fn idle(port: u16, dialect: &Dialect) -> Result<std::net::TcpStream> {
    let mut stream = connect(port)?;
    let mut request = Vec::new();
    dialect.push_get(std::iter::once(name(0)), &mut request);
    stream.write_all(&request)?;
    let mut answer = vec![0; dialect.answer().len()];
    stream.read_exact(&mut answer)?;
    let (len, hits) = Reader::default().read(dialect, Asked::Get, &answer)?;
    if len < answer.len() || hits != Some(1) {
        return Err(Error::new(ErrorKind::InvalidData, "a key that is not there"));
    }
    Ok(stream)
}

/// Stores all keys of a load once.
pub fn fill(port: u16, load: &Load) -> Result<()> {
    let in_flight = (FILL_BATCH / load.value).clamp(1, 64);
    let load = Load { sets: 100, connections: 4, idle: 0, in_flight, ..*load };
    let mut clients = Clients::with_source(port, &load, Source::InTurn(0, load.keys))?;
    while clients.wait_for_answers() {
        clients.turn()?;
    }
    Ok(())
}

/// What a measurement came to.
pub struct Figures {
    pub tally: Tally,
    pub took: Duration,
    /// The server's processor time.
    pub cpu: Duration,
    /// Samples of it in the server's own code and in the kernel's.
    pub ticks: [u64; 2],
}

/// Keeps a server busy for a while. `beside` is called once a turn, and says whether to go on.
pub fn measure(
    clients: &mut Clients<'_>,
    pid: u32,
    length: Duration,
    mut beside: impl FnMut() -> Result<bool>,
) -> Result<Figures> {
    let warm_up = Instant::now();
    while warm_up.elapsed() < WARM_UP.min(length / 10) {
        clients.turn()?;
    }
    clients.take_tally();
    let (cpu, before, start) = (processor_time(pid), ticks(pid), Instant::now());
    while start.elapsed() < length && beside()? {
        clients.turn()?;
    }
    let took = start.elapsed();
    let cpu = processor_time(pid).saturating_sub(cpu);
    let after = ticks(pid);
    let ticks = [0, 1].map(|mode| after[mode].saturating_sub(before[mode]));
    Ok(Figures { tally: clients.take_tally(), took, cpu, ticks })
}

impl Figures {
    pub fn ops(&self) -> f64 {
        self.tally.done() as f64 / self.took.as_secs_f64()
    }

    /// The server's nanoseconds for one operation.
    pub fn cpu_per_op(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.tally.done().max(1) as f64
    }
}

/// The wait that so many of all, `shares` of 1, are not above.
pub fn percentiles<const N: usize>(waits: &mut [f32], shares: [f64; N]) -> [f64; N] {
    waits.sort_by(f32::total_cmp);
    let at = |share: f64| (waits.len() as f64 * share) as usize;
    shares.map(|share| waits.get(at(share)).map_or(f64::NAN, |wait| f64::from(*wait)))
}
