//! Background upkeep: one thread that lets the store do a bounded step of its work, and keeps the
//! clock moving while no client comes.

use crate::store::Store;
use log::error;
use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{Builder, JoinHandle, park_timeout};
use std::time::Duration;

/// The clock is never further behind than this, whatever the store says.
const REST_MAX: Duration = Duration::from_millis(100);

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
            while !stopped.load(Relaxed) {
                store.clock().refresh();
                let rest = store.tick(&local);
                if !rest.is_zero() {
                    park_timeout(rest.min(REST_MAX));
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
