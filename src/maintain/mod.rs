//! Background upkeep: one thread that lets the store do bounded steps of its work, eagerly while
//! no client comes and within a budget while some do, and keeps the clock moving.

mod pacing;

use crate::store::{Local, Pace, Store};
use log::error;
use nix::time::{ClockId, clock_gettime};
use pacing::Watch;
use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{Builder, JoinHandle, park_timeout};
use std::time::{Duration, Instant};

/// The running thread.
pub struct Maintenance {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Maintenance {
    pub fn start(store: &Arc<Store>) -> Result<Maintenance> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, store) = (stop.clone(), store.clone());
        let thread = Builder::new().name("maintenance".into()).spawn(move || {
            let local = store.local();
            store.is_upkeep();
            let share = store.settings().bg_cpu_pct;
            let (start, mut watch) = (Instant::now(), Watch::default());
            while !stopped.load(Relaxed) {
                let busy = watch.is_busy(store.stats().traffic(), start.elapsed());
                let (pace, worked) = work(&store, &local, pacing::quantum(busy));
                let rest = pacing::rest(pace, worked, busy, share);
                if !rest.is_zero() {
                    park_timeout(rest);
                }
            }
        })?;
        Ok(Maintenance { stop, thread })
    }

    /// Ends the thread after the step it is in.
    pub fn stop(self) {
        self.stop.store(true, Relaxed);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            error!("the maintenance thread died");
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
    let mut before = processor_time();
    loop {
        let pace = store.tick(local);
        let now = processor_time();
        store.stats().server.upkeep.note(now.saturating_sub(before));
        before = now;
        let worked = start.elapsed();
        if pace == Pace::Rest || worked >= quantum {
            return (pace, worked);
        }
    }
}
