//! Runs a command against the store and says how it went.

use super::{
    Admin, Command, Error, Get, MEMCACHED_VERSION, Replies, Reply, Say, Set, operate, stats,
};
use crate::clock::Exptime;
use crate::config::log_level;
use crate::store::{
    ArithOutcome, DeleteOutcome, FetchOutcome, Key, KeyHash, Local, Outcome, Refusal, Reservation,
    Store, TouchOutcome,
};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// memcached's highest verbosity.
const VERBOSITY_MAX: u32 = 2;

/// What the connection does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Continue,
    Close,
}

/// Runs any command but `Set`, whose value the connection has to bring (see [`store_value`] and
/// [`commit_value`]), `Dump` ([`super::start_dump`]) and `RefreshCerts`. `Watch` is refused: who
/// can be a watcher becomes one by [`super::start_watch`]. `hash` is the key's, found ahead so that
/// a batch can prefetch; `None` for keyless commands.
///
/// # Panics
/// On the first three.
#[inline]
pub fn execute(
    store: &Arc<Store>,
    local: &Local,
    command: &Command<'_>,
    hash: Option<KeyHash>,
    replies: &mut impl Replies,
) -> Next {
    let Command::Get(get) = command else {
        return execute_other(store, local, command, hash, replies);
    };
    let hash = hash.unwrap_or_else(|| store.hash(get.key));
    execute_get(store, local, get, hash, replies);
    Next::Continue
}

/// Runs the busiest command.
#[inline(never)]
pub fn execute_get(
    store: &Arc<Store>,
    local: &Local,
    get: &Get<'_>,
    hash: KeyHash,
    replies: &mut impl Replies,
) {
    let key = get.key;
    // Two visitors, so that the first is compiled into the look.
    let hit = store.look(local, get, hash, |hit| replies.hit(key, hit)).unwrap_or_else(|blocked| {
        store.get_blocked(local, get, hash, blocked, |hit| replies.hit(key, hit))
    });
    found(store, key, hit, replies);
}

/// Beside the busiest command, which has its registers to itself.
#[inline(never)]
fn execute_other(
    store: &Arc<Store>,
    local: &Local,
    command: &Command<'_>,
    hash: Option<KeyHash>,
    replies: &mut impl Replies,
) -> Next {
    let hashed = |key: Key<'_>| hash.unwrap_or_else(|| store.hash(key));
    match command {
        Command::Get(_) => unreachable!("run by `execute`"),
        Command::Fetch(fetch) => {
            let key = fetch.get.key;
            let outcome = store.fetch(local, fetch, hashed(key), |hit| replies.hit(key, hit));
            match outcome {
                FetchOutcome::NoMemory => replies.reply(Reply::NoRoom(key)),
                outcome => found(store, key, outcome == FetchOutcome::Hit, replies),
            }
        }
        Command::Set(_) => unreachable!("a set is run with its value"),
        Command::Dump(_) | Command::RefreshCerts => unreachable!("run by the connection"),
        Command::Watch(_) => replies.reply(error(operate::CANNOT_WATCH)),
        Command::Delete(delete) => {
            let key = delete.key;
            store.stats().prefixes.record_delete(key.bytes());
            replies.reply(deleted(key, store.delete(local, delete, hashed(key))));
        }
        Command::Arith(arith) => {
            let key = arith.key;
            replies.reply(counted(key, store.arith(local, arith, hashed(key))));
        }
        Command::Touch(touch) => {
            let outcome = store.touch(local, touch, hashed(touch.key));
            replies.reply(touched(touch.key, outcome));
        }
        Command::Inspect(key) => {
            local.counters.thread.meta_cmds.bump();
            replies.reply(match store.inspect(local, *key, hashed(*key)) {
                Some(item) => Reply::Inspected { key: *key, item },
                None => Reply::Miss(*key),
            });
        }
        Command::Say(say) => replies.reply(Reply::Say(*say)),
        Command::Admin(Admin::Shutdown(how)) => match operate::shutdown(store.settings(), *how) {
            Ok(()) => return Next::Close,
            Err(why) => replies.reply(error(why)),
        },
        Command::Admin(admin) => run_admin(store, local, admin, replies),
        Command::Quit => {
            replies.reply(Reply::Closing);
            return Next::Close;
        }
        Command::HangUp(why) => {
            replies.reply(error(*why));
            return Next::Close;
        }
    }
    Next::Continue
}

/// Stores a value that is here whole.
#[inline]
pub fn store_value(
    store: &Arc<Store>,
    local: &Local,
    set: &Set<'_>,
    hash: KeyHash,
    value: &[u8],
    replies: &mut impl Replies,
) {
    store.stats().prefixes.record_set(set.key.bytes());
    match store.set(local, set, hash, value) {
        Ok(outcome) => replies.reply(stored(set.key, outcome)),
        Err(refusal) => refuse(refusal, replies),
    }
}

/// Stores a value that has filled its reservation.
pub fn commit_value(
    store: &Arc<Store>,
    local: &Local,
    set: &Set<'_>,
    reservation: Reservation,
    replies: &mut impl Replies,
) {
    store.stats().prefixes.record_set(set.key.bytes());
    match store.commit(local, reservation, set, store.hash(set.key)) {
        Ok(outcome) => replies.reply(stored(set.key, outcome)),
        Err(refusal) => refuse(refusal, replies),
    }
}

/// Says why there is no room for a value.
pub fn refuse(refusal: Refusal, replies: &mut impl Replies) {
    replies.reply(Reply::Say(Say::Error(refusal.into())));
}

/// A hit has been told already.
#[inline]
fn found(store: &Store, key: Key<'_>, hit: bool, replies: &mut impl Replies) {
    store.stats().prefixes.record_get(key.bytes(), hit);
    if !hit {
        replies.reply(Reply::Miss(key));
    }
}

#[inline]
fn stored(key: Key<'_>, outcome: Outcome) -> Reply<'_> {
    match outcome {
        Outcome::Stored { cas, len } => Reply::Stored { key, cas, len },
        Outcome::NotStored => Reply::NotStored(key),
        Outcome::Exists => Reply::Exists(key),
        Outcome::NotFound => Reply::NotFound(key),
        Outcome::NoMemory => error(Refusal::NoMemory.into()),
    }
}

fn touched(key: Key<'_>, outcome: TouchOutcome) -> Reply<'_> {
    match outcome {
        TouchOutcome::Touched => Reply::Touched(key),
        TouchOutcome::NotFound => Reply::NotFound(key),
        TouchOutcome::NoMemory => error(Error::NoMemory("out of memory")),
    }
}

fn deleted(key: Key<'_>, outcome: DeleteOutcome) -> Reply<'_> {
    match outcome {
        DeleteOutcome::Deleted => Reply::Deleted(key),
        DeleteOutcome::NotFound => Reply::NotFound(key),
        DeleteOutcome::Exists => Reply::Exists(key),
        DeleteOutcome::NoMemory => error(Error::NoMemory("out of memory")),
    }
}

fn counted(key: Key<'_>, outcome: ArithOutcome) -> Reply<'_> {
    match outcome {
        ArithOutcome::Number { value, cas, ttl, ttl_before } => {
            Reply::Number { key, value, cas, ttl, ttl_before }
        }
        ArithOutcome::NotFound => Reply::NotFound(key),
        ArithOutcome::Exists => Reply::Exists(key),
        ArithOutcome::NonNumeric => error(Error::NonNumeric),
        ArithOutcome::NoMemory => error(Error::NoMemory("out of memory")),
    }
}

fn error<'a>(error: Error) -> Reply<'a> {
    Reply::Say(Say::Error(error))
}

fn run_admin(store: &Arc<Store>, local: &Local, admin: &Admin<'_>, replies: &mut impl Replies) {
    match *admin {
        Admin::Version => replies.reply(Reply::Version(MEMCACHED_VERSION)),
        Admin::Verbosity(level) => {
            let level = level.min(VERBOSITY_MAX);
            store.stats().server.verbosity.store(level, Relaxed);
            log::set_max_level(log_level(level));
            replies.reply(Reply::Ok);
        }
        Admin::FlushAll(at) => replies.reply(flush_all(store, local, at)),
        Admin::Stats(topic) => replies.reply(Reply::Stats(&stats(store, topic))),
        Admin::Crawler(command) => replies.reply(operate::crawler(store, command)),
        Admin::Lru(command) => replies.reply(operate::lru(store, command)),
        Admin::Reassign(classes) => replies.reply(operate::reassign(store, local, classes)),
        Admin::Automove(command) => replies.reply(operate::automove(store, command)),
        Admin::MemLimit(megabytes) => replies.reply(operate::memlimit(store, megabytes)),
        Admin::Shutdown(_) => unreachable!("a shutdown ends its connection"),
        #[cfg(feature = "debug-commands")]
        Admin::DebugItem { verb, key } => {
            let done = store.debug_item(verb, key);
            replies.reply(if done { Reply::Ok } else { Reply::Say(Say::DebugMiss) });
        }
        #[cfg(feature = "debug-commands")]
        Admin::Misbehave => replies.reply(operate::misbehave()),
        #[cfg(feature = "debug-commands")]
        Admin::DebugTime(what) => {
            store.clock().debug(what);
            replies.reply(Reply::Ok);
        }
    }
}

/// A negative time flushes now, as 0 and none do.
fn flush_all<'a>(store: &Store, local: &Local, at: Option<Exptime>) -> Reply<'a> {
    if !store.settings().flush_enabled {
        // A refused flush is counted too, as memcached does.
        local.counters.thread.flush_cmds.bump();
        return error(Error::NotAllowed("flush_all not allowed"));
    }
    store.flush_all(local, at.filter(|at| at.0 > 0));
    Reply::Ok
}
