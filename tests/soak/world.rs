//! What all threads of the soak share: the server, when it is over, and what is counted.

use crate::common::{Client, Server};
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::sleep;
use std::time::Duration;

/// An answer may take this long: the machine may stop the server, or all of this, for a while.
const PATIENCE: Duration = Duration::from_secs(900);
const TOO_MANY: &str = "ERROR Too many open connections";

pub struct World {
    pub server: Server,
    over: AtomicBool,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    wrong: Mutex<Vec<String>>,
}

impl World {
    pub fn new(server: Server) -> World {
        let (counts, wrong) = (Mutex::default(), Mutex::default());
        World { server, over: AtomicBool::new(false), counts, wrong }
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    pub fn end(&self) {
        self.over.store(true, Relaxed);
    }

    pub fn count(&self, what: &'static str, n: u64) {
        *self.counts.lock().expect("counts").entry(what).or_default() += n;
    }

    pub fn counted(&self, what: &str) -> u64 {
        self.counts.lock().expect("counts").get(what).copied().unwrap_or(0)
    }

    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().expect("counts").clone()
    }

    /// Something that must not be. The soak ends with it.
    pub fn report(&self, what: String) {
        self.wrong.lock().expect("faults").push(what);
        self.end();
    }

    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().expect("faults").clone()
    }

    /// A connection that may still be refused.
    pub fn connect(&self) -> Option<Client> {
        let stream = TcpStream::connect(("127.0.0.1", self.server.port));
        let Ok(stream) = stream else {
            // All ports of this side wait for the last of their connections, or the queue is full.
            self.count("connections not made", 1);
            sleep(Duration::from_millis(20));
            return None;
        };
        self.count("connections made", 1);
        let mut client = Client::new(stream);
        client.set_patience(PATIENCE);
        Some(client)
    }

    /// A connection that is served; tries until there is one, or it is over.
    pub fn enter(&self) -> Option<Client> {
        while !self.is_over() {
            if let Some(mut client) = self.connect()
                && self.is_served(&mut client)
            {
                return Some(client);
            }
            sleep(Duration::from_millis(5));
        }
        None
    }

    /// Asks for a sign of life.
    pub fn is_served(&self, client: &mut Client) -> bool {
        client.send(b"mn\r\n");
        match client.line().as_str() {
            "MN" => {
                self.count("connections served", 1);
                return true;
            }
            TOO_MANY => self.count("connections refused", 1),
            // What was sent before the server closed may have cost its answer.
            "" if !client.timed_out => self.count("connections refused", 1),
            other => self.report(format!("to mn: {other:?}, timed out: {}", client.timed_out)),
        }
        false
    }

    /// Waits for so many milliseconds, or until it is over.
    pub fn rest(&self, millis: usize) {
        for _ in 0..millis.div_ceil(20) {
            if self.is_over() {
                return;
            }
            sleep(Duration::from_millis(millis.min(20) as u64));
        }
    }
}
