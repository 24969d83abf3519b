//! Background upkeep: one thread that lets the store do bounded steps of its work, eagerly while
//! no client comes and within a budget while some do, and keeps the clock moving; and two that have
//! the system bring memory before it is needed, and make small pages of it huge.

mod pacing;

use crate::store::{Local, Pace, Store};
use log::{error, warn};
use nix::time::{ClockId, clock_gettime};
use pacing::Watch;
use parking_lot::Mutex;
use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{Builder, JoinHandle, park, park_timeout, sleep};
use std::time::{Duration, Instant};
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};

/// The running threads.
pub struct Maintenance {
    flags: Arc<Flags>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads tell each other.
#[derive(Default)]
struct Flags {
    stop: AtomicBool,
    /// Clients keep the server busy.
    busy: AtomicBool,
    /// The background work has come to rest.
    rests: AtomicBool,
    /// Held while background work is done, and while a huge page is made of small ones: who touches
    /// those meanwhile, or asks the system for memory, waits for some milliseconds.
    turn: Mutex<()>,
}

impl Maintenance {
    pub fn start(store: &Arc<Store>) -> Result<Maintenance> {
        let mut running = Maintenance { flags: Arc::default(), threads: Vec::new() };
        // The last one asks them for memory from its first tick on.
        running.spawn("prefault", store, prefault)?;
        running.spawn("hurry", store, hurry)?;
        running.spawn("maintenance", store, upkeep)?;
        Ok(running)
    }

    fn spawn(&mut self, name: &str, store: &Arc<Store>, body: fn(&Store, &Flags)) -> Result<()> {
        let (flags, store) = (self.flags.clone(), store.clone());
        let thread = Builder::new().name(name.into()).spawn(move || body(&store, &flags))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Ends each thread after the step it is in.
    pub fn stop(self) {
        self.flags.stop.store(true, Relaxed);
        for thread in self.threads {
            thread.thread().unpark();
            if thread.join().is_err() {
                error!("a maintenance thread died");
            }
        }
    }
}

/// Lets the store do its background work, at the pace that the clients leave it.
fn upkeep(store: &Store, flags: &Flags) {
    let local = store.local();
    store.is_upkeep(&local);
    let share = store.settings().bg_cpu_pct;
    let (start, mut watch) = (Instant::now(), Watch::default());
    let mut waits = true;
    while !flags.stop.load(Relaxed) {
        // Where who gathers is kept from it for long, one wait for it will do.
        let wait = if waits { pacing::TURN } else { Duration::ZERO };
        let turn = flags.turn.try_lock_for(wait);
        waits = turn.is_some();
        let busy = watch.is_busy(store.stats().traffic(), start.elapsed());
        flags.busy.store(busy, Relaxed);
        let (pace, worked) = work(store, &local, pacing::quantum(busy));
        drop(turn);
        flags.rests.store(pace == Pace::Rest, Relaxed);
        let rest = pacing::rest(pace, worked, busy, share);
        if !rest.is_zero() {
            park_timeout(rest);
        }
    }
}

/// Brings memory when it is called. A huge page is as much as 5 ms of work in one piece, so it is
/// done in what time all others leave, and they interrupt it where the system lets them. It takes
/// no lock, as it may lose the processor for long at any time.
fn prefault(store: &Store, flags: &Flags) {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let this = thread_priority::thread_native_id();
    if let Err(e) = thread_priority::set_thread_priority_and_policy(this, ThreadPriority::Min, idle)
    {
        warn!("memory is brought ahead at the priority of requests: {e}");
    }
    store.is_prefaulter();
    while !flags.stop.load(Relaxed) {
        if !store.prefault() {
            park();
        }
    }
}

/// Does what cannot be left to whatever time others leave: brings the memory of an index that items
/// have run away from, with half a processor, and gathers what came in small pages, during which
/// whoever needs that memory waits. While no client comes it gathers when the background work is
/// done.
fn hurry(store: &Store, flags: &Flags) {
    store.is_hurrier();
    let (start, mut due) = (Instant::now(), Duration::ZERO);
    while !flags.stop.load(Relaxed) {
        let began = Instant::now();
        if store.hurry() {
            // Whoever calls it is not to cut this short.
            sleep(pacing::rest(Pace::Urgent, began.elapsed(), true, 1));
            continue;
        }
        let (busy, rests) = (flags.busy.load(Relaxed), flags.rests.load(Relaxed));
        if !pacing::may_gather(busy, rests, start.elapsed() >= due) {
            park_timeout(pacing::LOOK);
            continue;
        }
        let before = processor_time();
        let turn = flags.turn.lock();
        let gathered = store.gather();
        drop(turn);
        if gathered {
            let worked = processor_time().saturating_sub(before);
            due = start.elapsed() + pacing::rest_from_gathering(worked);
        } else {
            park();
        }
    }
}

/// What this thread has used.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Lets the store work until nothing is left or `quantum` is over; says how long it took.
fn work(store: &Store, local: &Local, quantum: Duration) -> (Pace, Duration) {
    store.clock().refresh();
    let start = Instant::now();
    let (mut before, mut worked) = (processor_time(), Duration::ZERO);
    loop {
        let pace = store.tick(local);
        let (now, ticked) = (processor_time(), start.elapsed());
        store.stats().server.upkeep.note(now.saturating_sub(before), ticked - worked);
        (before, worked) = (now, ticked);
        if pace == Pace::Rest || worked >= quantum {
            return (pace, worked);
        }
    }
}
