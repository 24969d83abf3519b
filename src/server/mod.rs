//! Sockets and threads: binds, spawns the workers, and takes everything down again.

mod accept;
mod daemon;
mod greeter;
mod listener;
mod mailbox;
mod pidfile;
mod reload;
mod signals;
mod systemd;
mod udp;
mod worker;

pub use daemon::EX_OSERR;

use crate::auth::Auth;
use crate::clock::Clock;
use crate::config::Settings;
use crate::connection::Meter;
use crate::maintain::Maintenance;
use crate::privileges;
use crate::store::Store;
use crate::tls::{self, Tls};
use crate::watch::Logger;
use accept::Acceptor;
use daemon::Launch;
use greeter::Greeter;
use listener::Listeners;
use log::{debug, warn};
use mailbox::Turns;
use pidfile::PidFile;
use reload::Reloads;
use signals::Signals;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use worker::Worker;

/// Files that a worker, or a greeter, holds beside its clients: its poller and its waker.
const WORKER_FILES: u64 = 2;
/// Files of the main thread: its poller, the pipe of signals and the three standard ones.
const MAIN_FILES: u64 = 6;

/// What the threads share beside the store.
struct Shared {
    store: Arc<Store>,
    auth: Arc<Auth>,
    /// With -Z.
    tls: Option<Arc<Tls>>,
    /// Clients that are connected.
    clients: AtomicUsize,
    /// What UDP clients were answered.
    meter: Arc<Meter>,
}

/// Serves until a signal says stop. An error says in one line why it could not start.
///
/// With -d this process ends here, and `daemon` says when: the rest is a child's doing.
///
/// The TCP and UDP sockets are bound while still root, so that ports below 1024 can be had; the
/// unix socket after that, as memcached does, so that it belongs to the user that -u names. The pid
/// file may be where root alone can write, or, where root is short of capabilities, the user alone.
pub fn run(mut settings: Settings) -> Result<(), String> {
    let inherited = systemd::listeners(&settings)?;
    // A daemon changes its directory.
    let files = tls::Files::named(&settings)?;
    let launch = Launch::begin(&mut settings)?;
    let settings = Arc::new(settings);
    let signals = Signals::catch().map_err(|e| format!("cannot catch signals: {e}"))?;
    privileges::raise_file_limit(settings.max_connections)?;
    if settings.max_core_dumps {
        privileges::allow_core_dumps()?;
    }
    let mut listeners = Listeners::bind(&settings, inherited)?;
    let store = reserve(&settings)?;
    // Keys are read while still root, as they may be root's alone.
    let tls = Tls::open(files, &settings, store.stats().server.tls.clone())?;
    let pid_file = settings.pid_file.as_deref();
    pid_file.iter().for_each(|path| pidfile::warn_of_others(path));
    let roots = pid_file.and_then(|path| PidFile::create(path).ok());
    privileges::drop_privileges(&settings)?;
    let _pid_file = match (roots, pid_file) {
        (None, Some(path)) => Some(PidFile::create(path)?),
        (roots, _) => roots,
    };
    // As the user that reads its files again on SIGHUP.
    let auth = Auth::open(&settings)?;
    listeners.bind_unix(&settings)?;
    listeners.warn_of_strangers(&settings);
    list_classes(&store);
    // Whoever waits for this file finds all of the above said.
    listeners.write_port_file()?;
    let ready = || {
        systemd::ready();
        launch.ready(&settings);
    };
    let (auth, clients) = (Arc::new(auth), AtomicUsize::new(0));
    let meter = Arc::new(Meter::new(settings.udp.reply_rate));
    let shared = Arc::new(Shared { store, auth, tls, clients, meter });
    serve(&shared, listeners, signals, ready)
}

/// The store, and what -k and -L want of its memory.
fn reserve(settings: &Arc<Settings>) -> Result<Arc<Store>, String> {
    let store = Store::new(settings.clone(), Arc::new(Clock::system()))?;
    if settings.lock_memory {
        privileges::lock_memory();
    }
    if settings.large_pages && privileges::huge_pages_are_off() {
        warn!("-L: the system gives no huge pages (transparent_hugepage is set to never)");
    }
    Ok(store)
}

/// Starts the threads, says so by `ready`, and takes connections in until a signal says stop.
fn serve(
    shared: &Arc<Shared>,
    mut listeners: Listeners,
    signals: Signals,
    ready: impl FnOnce(),
) -> Result<(), String> {
    let settings = shared.store.settings();
    let logger = Logger::start(shared.store.watch()).map_err(|e| cannot_start("logger", e))?;
    let maintenance =
        Maintenance::start(&shared.store).map_err(|e| cannot_start("maintenance", e))?;
    announce(shared);
    let workers = (0..settings.threads)
        .zip(listeners.take_udp().share(settings.threads as usize))
        .map(|(id, udp)| Worker::start(id, shared.clone(), udp))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| cannot_start("worker", e))?;
    let greeters = start_greeters(shared, &workers).map_err(|e| cannot_start("greeter", e))?;
    let turns = Turns::new(workers.iter().map(Worker::mailbox).collect(), 0);
    let greeting = Turns::new(greeters.iter().map(Greeter::mailbox).collect(), 0);
    let reloads = Reloads::new(shared);
    let mut acceptor = Acceptor::new(shared.clone(), listeners, signals, reloads, turns, greeting)
        .map_err(|e| cannot_start("listener", e))?;
    if settings.drop_privileges {
        privileges::confine(systemd::is_told())?;
    }
    ready();
    let ended = acceptor.run();
    systemd::stopping();
    // Closes the listening sockets and removes the unix socket's file before the clients go.
    drop(acceptor);
    greeters.into_iter().for_each(Greeter::stop);
    workers.iter().for_each(|worker| worker.stop());
    workers.into_iter().for_each(|worker| worker.join());
    maintenance.stop();
    logger.stop();
    shared.store.close();
    ended.map_err(|e| format!("cannot wait for connections: {e}"))
}

/// With TLS, threads for its handshakes.
fn start_greeters(shared: &Arc<Shared>, workers: &[Worker]) -> std::io::Result<Vec<Greeter>> {
    let count = shared.tls.as_ref().map_or(0, |_| greeter::count(workers.len()));
    let start = |id| {
        let mailboxes = workers.iter().map(Worker::mailbox).collect();
        Greeter::start(id, shared.clone(), Turns::new(mailboxes, id))
    };
    (0..count).map(start).collect()
}

fn announce(shared: &Shared) {
    let (settings, stats) = (shared.store.settings(), &shared.store.stats().server);
    let greeters = shared.tls.as_ref().map_or(0, |_| greeter::count(settings.threads as usize));
    let threads = u64::from(settings.threads) + greeters as u64;
    let files = threads * WORKER_FILES + MAIN_FILES;
    stats.reserved_fds.store(files, Relaxed);
    stats.verbosity.store(settings.verbosity, Relaxed);
    stats.accepting_conns.store(true, Relaxed);
}

/// With -vv, the slab classes: tools read memcached's lines of this form.
fn list_classes(store: &Store) {
    for class in store.class_info() {
        let (id, size, count) = (class.id, class.chunk_size, class.chunks_per_page);
        debug!("slab class {id:3}: chunk size {size:9} perslab {count:7}");
    }
}

fn cannot_start(thread: &str, e: std::io::Error) -> String {
    format!("cannot start the {thread} thread: {e}")
}
