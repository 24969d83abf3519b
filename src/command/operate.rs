//! Commands that change how the server works, or make it work: what they ask for, and how they are
//! carried out. Refusals are in memcached's words.

use super::{Error, Reply, Say};
use crate::config::Settings;
use crate::store::{Classes, Dump, Local, Reassign, Store};
use crate::watch::{Refused, Streams, Wake, Watcher};
use nix::sys::signal::{Signal, raise};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Longest `lru_crawler sleep`, microseconds.
const CRAWLER_SLEEP_MAX: u32 = 1_000_000;
/// HOT and WARM together, per cent.
const LRU_PCT_MAX: u64 = 80;
/// Bounds of `slabs automove window`, seconds.
const WINDOW: std::ops::RangeInclusive<u32> = 3..=1800;
/// Bounds of `cache_memlimit`, MiB: beyond the upper one it was meant as bytes.
const MEMLIMIT_MIN: u32 = 8;
const MEMLIMIT_MAX: u32 = 1_000_000_000;

const CRAWLER_DISABLED: Error = Error::Client("lru crawler disabled");
/// Also where no connection could be a watcher's.
pub(super) const CANNOT_WATCH: Error = Error::Line("WATCHER_FAILED failed to add log watcher");
const BAD_CLASS: Error = Error::Line("BADCLASS invalid class id");

/// `lru_crawler`, but for the dumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrawlerCommand<'a> {
    Enable,
    Disable,
    /// Microseconds.
    Sleep(u32),
    ToCrawl(u32),
    Crawl(Targets<'a>),
}

/// What is crawled or dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets<'a> {
    All,
    /// The index: dumps alone know it.
    Hash,
    /// Class ids in decimal, joined by commas.
    Ids(&'a [u8]),
}

/// `lru_crawler metadump` and `mgdump`: the answer is as long as the cache is large, so the
/// connection makes it step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpCommand<'a> {
    pub form: DumpForm,
    pub targets: Targets<'a>,
}

/// What a dump's lines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpForm {
    /// `metadump`: all that is known of an item.
    Metadump,
    /// `mgdump`: a request that reads it.
    Mgdump,
}

/// `lru`
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LruCommand {
    /// Per cent of a class, and factors of COLD's age.
    Tune { hot_pct: u32, warm_pct: u32, hot_factor: f64, warm_factor: f64 },
    /// `mode`; `None` is one that there is not.
    Segmented(Option<bool>),
    /// `temp_ttl`: seconds, below 0 none goes to TEMP; the outer `None` is no number.
    TempTtl(Option<i32>),
}

/// `slabs automove`
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AutomoveCommand {
    Level(u32),
    Ratio(f64),
    /// Kept by external storage alone, so it is checked and no more.
    FreeRatio,
    /// Seconds.
    Window(u32),
}

/// `shutdown`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// As SIGINT.
    Normal,
    /// As SIGUSR1.
    Graceful,
}

/// `lru_crawler` anything but a dump.
pub(super) fn crawler(store: &Store, command: CrawlerCommand<'_>) -> Reply<'static> {
    let knobs = store.knobs();
    match command {
        CrawlerCommand::Enable if knobs.crawler.swap(true, Relaxed) => {
            return line("ERROR failed to start lru crawler thread");
        }
        CrawlerCommand::Enable => {}
        CrawlerCommand::Disable => knobs.crawler.store(false, Relaxed),
        CrawlerCommand::Sleep(us) if us > CRAWLER_SLEEP_MAX => {
            return say(Error::Client("sleep must be one second or less"));
        }
        CrawlerCommand::Sleep(us) => knobs.crawler_sleep.store(us, Relaxed),
        CrawlerCommand::ToCrawl(items) => knobs.crawler_tocrawl.store(items, Relaxed),
        CrawlerCommand::Crawl(targets) => {
            return crawl(store, targets).map_or_else(say, |()| Reply::Ok);
        }
    }
    Reply::Ok
}

fn crawl(store: &Store, targets: Targets<'_>) -> Result<(), Error> {
    if !store.knobs().crawler.load(Relaxed) {
        return Err(CRAWLER_DISABLED);
    }
    if targets == Targets::Hash {
        return Err(Error::Line("ERROR an unknown error happened"));
    }
    let started = store.crawl(classes(store, targets)?);
    if started { Ok(()) } else { Err(Error::Line("BUSY currently processing crawler request")) }
}

/// Starts a dump. `piped`: answers to earlier commands of this client are still to be sent.
pub fn start_dump(
    store: &Arc<Store>,
    command: DumpCommand<'_>,
    piped: bool,
) -> Result<Dump, Error> {
    let by_form = |metadump, mgdump| match command.form {
        DumpForm::Metadump => Error::Line(metadump),
        DumpForm::Mgdump => Error::Line(mgdump),
    };
    if !store.knobs().crawler.load(Relaxed) {
        return Err(CRAWLER_DISABLED);
    }
    if !store.settings().dump_enabled {
        return Err(by_form("ERROR metadump not allowed", "ERROR key dump not allowed"));
    }
    if piped {
        return Err(by_form(
            "ERROR cannot pipeline other commands before metadump",
            "ERROR cannot pipeline other commands before mgdump",
        ));
    }
    Ok(store.dump(classes(store, command.targets)?))
}

/// Makes a watcher of a client, whose thread is told by `wake` when there are lines for it.
/// `streams` and `piped` as with [`Command::Watch`](super::Command::Watch) and [`start_dump`].
pub fn start_watch(
    store: &Store,
    streams: Option<Streams>,
    piped: bool,
    wake: Wake,
) -> Result<Watcher, Error> {
    if !store.settings().watch_enabled {
        return Err(Error::Client("watch commands not allowed"));
    }
    if piped {
        return Err(Error::Line("ERROR cannot pipeline other commands before watch"));
    }
    let streams = streams.ok_or(Error::Unknown)?;
    if !store.stats().buffers.has(store.settings().watcher_logbuf_size as usize) {
        return Err(CANNOT_WATCH);
    }
    store.watch().add(streams, wake).map_err(|refused| match refused {
        Refused::TooMany => Error::Line("WATCHER_TOO_MANY log watcher limit reached"),
        Refused::Failed => CANNOT_WATCH,
    })
}

/// The classes that are meant.
fn classes(store: &Store, targets: Targets<'_>) -> Result<Classes, Error> {
    let Targets::Ids(text) = targets else { return Ok(Classes::ALL) };
    let parts = text.split(|byte| *byte == b',').filter(|part| !part.is_empty());
    let ids: Option<Vec<u32>> = parts.map(|part| str::from_utf8(part).ok()?.parse().ok()).collect();
    match ids {
        Some(ids) if ids.is_empty() => Err(Error::Line("NOTSTARTED no items to crawl")),
        Some(ids) => store.classes(&ids).ok_or(BAD_CLASS),
        None => Err(BAD_CLASS),
    }
}

pub(super) fn lru(store: &Store, command: LruCommand) -> Reply<'static> {
    let knobs = store.knobs();
    match command {
        LruCommand::Tune { hot_pct, warm_pct, hot_factor, warm_factor } => {
            if u64::from(hot_pct) + u64::from(warm_pct) > LRU_PCT_MAX {
                return line("ERROR hot and warm pcts must not exceed 80");
            }
            if hot_factor <= 0.0 || warm_factor <= 0.0 {
                return line("ERROR hot/warm age factors must be greater than 0");
            }
            knobs.hot_pct.store(hot_pct, Relaxed);
            knobs.warm_pct.store(warm_pct, Relaxed);
            knobs.hot_factor.set(hot_factor);
            knobs.warm_factor.set(warm_factor);
        }
        // There is nothing to choose without a maintainer.
        _ if !store.settings().lru_maintainer => return say(Error::Unknown),
        LruCommand::Segmented(Some(on)) => knobs.segmented.store(on, Relaxed),
        LruCommand::TempTtl(Some(ttl)) => knobs.set_temporary_ttl(u32::try_from(ttl).ok()),
        LruCommand::Segmented(None) | LruCommand::TempTtl(None) => return say(Error::Unknown),
    }
    Reply::Ok
}

/// `slabs reassign`; `classes`, source and destination, are `None` where they are no numbers. Where
/// nothing is in the way, most pages have moved by the time this is answered.
pub(super) fn reassign(
    store: &Store,
    local: &Local,
    classes: Option<(i32, i32)>,
) -> Reply<'static> {
    if !store.settings().slab_reassign {
        return say(Error::Client("slab reassignment disabled"));
    }
    let Some((src, dst)) = classes else {
        return say(Error::Client("bad command line format"));
    };
    match store.reassign(src, dst) {
        Reassign::Ok => {
            store.move_step(local);
            Reply::Ok
        }
        Reassign::Running => line("BUSY currently processing reassign request"),
        Reassign::BadClass => line("BADCLASS invalid src or dst class id"),
        Reassign::NoSpare => line("NOSPARE source class has no spare pages"),
        Reassign::Same => line("SAME src and dst class are identical"),
    }
}

pub(super) fn automove(store: &Store, command: AutomoveCommand) -> Reply<'static> {
    let knobs = store.knobs();
    match command {
        AutomoveCommand::Level(level) => knobs.automove.store(level, Relaxed),
        AutomoveCommand::Ratio(ratio) => knobs.automove_ratio.set(ratio),
        AutomoveCommand::FreeRatio => {}
        AutomoveCommand::Window(seconds) if !WINDOW.contains(&seconds) => {
            return say(Error::Client("automove window too low or too high"));
        }
        AutomoveCommand::Window(seconds) => knobs.automove_window.store(seconds, Relaxed),
    }
    Reply::Ok
}

/// `cache_memlimit`, in MiB.
pub(super) fn memlimit(store: &Store, megabytes: u32) -> Reply<'static> {
    if megabytes < MEMLIMIT_MIN {
        return line("MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m");
    }
    if megabytes > MEMLIMIT_MAX {
        return line("MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes");
    }
    if !store.set_limit(u64::from(megabytes) << 20) {
        return line("MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust");
    }
    match store.over_limit() {
        0 => log::info!("maxbytes adjusted to {megabytes}m"),
        _ => log::info!("maxbytes adjusted to {megabytes}m; {}", store.excess()),
    }
    Reply::Ok
}

/// `shutdown`: the signal does the rest, as if an operator had sent it. An error goes to the
/// client, and the server goes on.
pub(super) fn shutdown(settings: &Settings, how: Option<Shutdown>) -> Result<(), Error> {
    if !settings.shutdown_command {
        return Err(Error::Line("SERVER_ERROR: shutdown not enabled"));
    }
    let signal = match how {
        Some(Shutdown::Normal) => Signal::SIGINT,
        Some(Shutdown::Graceful) => Signal::SIGUSR1,
        None => return Err(Error::Client("invalid shutdown mode")),
    };
    raise(signal).map_err(|_| Error::Server("cannot shut down"))
}

/// Opens a socket to the network and runs a program: `ERROR` where either can be done.
#[cfg(feature = "debug-commands")]
pub(super) fn misbehave() -> Reply<'static> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").is_ok();
    let program = std::process::Command::new("true").status().is_ok();
    if socket || program { say(Error::Unknown) } else { Reply::Ok }
}

fn line(text: &'static str) -> Reply<'static> {
    say(Error::Line(text))
}

fn say(error: Error) -> Reply<'static> {
    Reply::Say(Say::Error(error))
}
