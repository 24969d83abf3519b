//! Classic text: operators' commands, and lines that name no command.

use super::lex::{self, Args, BAD_FORMAT};
use super::text::{command, say_error};
use super::{Decoded, lex::Tokens};
use crate::command::{
    Admin, AutomoveCommand, Command, CrawlerCommand, DumpCommand, DumpForm, Error, LruCommand,
    Shutdown, StatsTopic, Streams, Targets,
};
#[cfg(feature = "debug-commands")]
use crate::command::{DebugItem, DebugTime};
#[cfg(feature = "debug-commands")]
use crate::store::Key;

/// Any line whose command is no data command. `verb` is what comes before the first blank; the
/// commands that memcached looks up later it takes from the line's first token, so those may have
/// blanks before them.
pub(super) fn decode<'a>(verb: &[u8], args: &'a [u8], line: &'a [u8], used: usize) -> Decoded<'a> {
    match verb {
        b"version" => return admin(used, Admin::Version, false),
        b"stats" => return stats(&lex::args(args), used),
        b"watch" => return command(used, Command::Watch(streams(args)), false),
        _ => {}
    }
    let mut tokens = Tokens::new(line);
    let first = tokens.next().unwrap_or_default();
    let args = lex::args(tokens.rest());
    let noreply = lex::is_noreply(&args);
    match first {
        b"flush_all" => flush_all(&args, noreply, used),
        b"verbosity" => verbosity(&args, noreply, used),
        b"slabs" => said(slabs(&args), noreply, used),
        b"lru" => said(lru(&args), noreply, used),
        b"lru_crawler" => lru_crawler(&args, noreply, used),
        b"refresh_certs" => command(used, Command::RefreshCerts, false),
        b"cache_memlimit" => said(memlimit(&args), noreply, used),
        b"shutdown" => admin(used, Admin::Shutdown(shutdown(&args)), noreply),
        #[cfg(feature = "debug-commands")]
        b"debugtime" => debug_time(&args, noreply, used),
        #[cfg(feature = "debug-commands")]
        b"debugitem" => debug_item(&args, used),
        #[cfg(feature = "debug-commands")]
        b"misbehave" => admin(used, Admin::Misbehave, noreply),
        _ if args.last().is_some_and(|last| last.starts_with(b"HTTP/")) => Decoded::HangUp,
        _ => say_error(used, Error::Unknown, noreply),
    }
}

fn admin(used: usize, admin: Admin<'_>, noreply: bool) -> Decoded<'_> {
    command(used, Command::Admin(admin), noreply)
}

/// `[<seconds>] [noreply]`
fn flush_all<'a>(args: &Args<'a>, noreply: bool, used: usize) -> Decoded<'a> {
    if args.len() == usize::from(noreply) {
        return admin(used, Admin::FlushAll(None), noreply);
    }
    match lex::exptime(args[0]) {
        Some(at) => admin(used, Admin::FlushAll(Some(at)), noreply),
        None => say_error(used, Error::Client("invalid exptime argument"), noreply),
    }
}

fn verbosity<'a>(args: &Args<'a>, noreply: bool, used: usize) -> Decoded<'a> {
    match args.first().and_then(|level| lex::u32(level)) {
        Some(level) => admin(used, Admin::Verbosity(level), noreply),
        None => say_error(used, BAD_FORMAT, noreply),
    }
}

/// What a line of words came to: a command, or an error found in it.
fn said<'a>(admin: Result<Admin<'a>, Error>, noreply: bool, used: usize) -> Decoded<'a> {
    match admin {
        Ok(admin) => command(used, Command::Admin(admin), noreply),
        Err(error) => say_error(used, error, noreply),
    }
}

/// The subcommands of `slabs`, `lru` and `lru_crawler` may be cut short to any prefix, tried in
/// memcached's order.
fn is_short_for(token: &[u8], word: &str) -> bool {
    word.as_bytes().starts_with(token)
}

fn slabs<'a>(args: &Args<'a>) -> Result<Admin<'a>, Error> {
    match args.as_slice() {
        [sub, src, dst] if is_short_for(sub, "reassign") => {
            Ok(Admin::Reassign(lex::i32(src).zip(lex::i32(dst))))
        }
        [sub, setting, rest @ ..] if is_short_for(sub, "automove") => {
            automove(setting, rest.first().copied()).map(Admin::Automove)
        }
        _ => Err(Error::Unknown),
    }
}

fn automove(setting: &[u8], value: Option<&[u8]>) -> Result<AutomoveCommand, Error> {
    if is_short_for(setting, "ratio") {
        return value.and_then(lex::real).map(AutomoveCommand::Ratio).ok_or(Error::Unknown);
    }
    if is_short_for(setting, "freeratio") {
        let number = value.and_then(lex::real);
        return number.map(|_| AutomoveCommand::FreeRatio).ok_or(Error::Unknown);
    }
    if is_short_for(setting, "window") {
        return value.and_then(lex::u32).map(AutomoveCommand::Window).ok_or(BAD_FORMAT);
    }
    match lex::u32(setting) {
        Some(level @ 0..=2) => Ok(AutomoveCommand::Level(level)),
        Some(_) => Err(Error::Unknown),
        None => Err(BAD_FORMAT),
    }
}

fn lru<'a>(args: &Args<'a>) -> Result<Admin<'a>, Error> {
    match args.as_slice() {
        [sub, hot, warm, hot_factor, warm_factor, ..] if is_short_for(sub, "tune") => {
            let percents = lex::u32(hot).zip(lex::u32(warm));
            let factors = lex::real(hot_factor).zip(lex::real(warm_factor));
            let both = percents.zip(factors).ok_or(Error::Unknown)?;
            let ((hot_pct, warm_pct), (hot_factor, warm_factor)) = both;
            Ok(Admin::Lru(LruCommand::Tune { hot_pct, warm_pct, hot_factor, warm_factor }))
        }
        [sub, mode, ..] if is_short_for(sub, "mode") => {
            let flat = is_short_for(mode, "flat").then_some(false);
            let segmented = is_short_for(mode, "segmented").then_some(true);
            Ok(Admin::Lru(LruCommand::Segmented(flat.or(segmented))))
        }
        [sub, ttl, ..] if is_short_for(sub, "temp_ttl") => {
            Ok(Admin::Lru(LruCommand::TempTtl(lex::i32(ttl))))
        }
        _ => Err(Error::Unknown),
    }
}

fn lru_crawler<'a>(args: &Args<'a>, noreply: bool, used: usize) -> Decoded<'a> {
    let dump = |form, ids| {
        let dump = DumpCommand { form, targets: targets(ids) };
        command(used, Command::Dump(dump), noreply)
    };
    let number = |token, make: fn(u32) -> CrawlerCommand<'static>| {
        lex::u32(token).map(|n| Admin::Crawler(make(n))).ok_or(BAD_FORMAT)
    };
    let admin = match args.as_slice() {
        [sub, ids] if is_short_for(sub, "crawl") => {
            Ok(Admin::Crawler(CrawlerCommand::Crawl(targets(ids))))
        }
        [sub, ids] if is_short_for(sub, "metadump") => return dump(DumpForm::Metadump, ids),
        [sub, ids] if is_short_for(sub, "mgdump") => return dump(DumpForm::Mgdump, ids),
        [sub, n] if is_short_for(sub, "tocrawl") => number(n, CrawlerCommand::ToCrawl),
        [sub, n] if is_short_for(sub, "sleep") => number(n, CrawlerCommand::Sleep),
        [sub] if is_short_for(sub, "enable") => Ok(Admin::Crawler(CrawlerCommand::Enable)),
        [sub] if is_short_for(sub, "disable") => Ok(Admin::Crawler(CrawlerCommand::Disable)),
        _ => Err(Error::Unknown),
    };
    said(admin, noreply, used)
}

/// The streams of `watch`, each of which may be cut short to any prefix, tried in memcached's
/// order; without any it is the fetchers. It knows no `noreply`.
fn streams(args: &[u8]) -> Option<Streams> {
    const NAMES: [(&str, Streams); 10] = [
        ("rawcmds", Streams::RAWCMDS),
        ("evictions", Streams::EVICTIONS),
        ("fetchers", Streams::FETCHERS),
        ("mutations", Streams::MUTATIONS),
        ("sysevents", Streams::SYSEVENTS),
        ("connevents", Streams::CONNEVENTS),
        ("proxyreqs", Streams::PROXY),
        ("proxyevents", Streams::PROXY),
        ("proxyuser", Streams::PROXY),
        ("deletions", Streams::DELETIONS),
    ];
    let mut tokens = Tokens::new(args).peekable();
    if tokens.peek().is_none() {
        return Some(Streams::FETCHERS);
    }
    tokens.try_fold(Streams::NONE, |all, token| {
        let (_, stream) = NAMES.iter().find(|(name, _)| is_short_for(token, name))?;
        Some(all.and(*stream))
    })
}

fn targets(token: &[u8]) -> Targets<'_> {
    match token {
        b"all" => Targets::All,
        b"hash" => Targets::Hash,
        ids => Targets::Ids(ids),
    }
}

/// Megabytes.
fn memlimit<'a>(args: &Args<'a>) -> Result<Admin<'a>, Error> {
    args.first().and_then(|n| lex::u32(n)).map(Admin::MemLimit).ok_or(Error::Unknown)
}

fn shutdown(args: &Args<'_>) -> Option<Shutdown> {
    match args.as_slice() {
        [] => Some(Shutdown::Normal),
        [mode] if is_short_for(mode, "graceful") => Some(Shutdown::Graceful),
        _ => None,
    }
}

#[cfg(feature = "debug-commands")]
fn debug_item<'a>(args: &Args<'a>, used: usize) -> Decoded<'a> {
    let verb = match args.first().copied() {
        Some(b"lock") => DebugItem::Lock,
        Some(b"unlock") => DebugItem::Unlock,
        Some(b"ref") => DebugItem::Ref,
        Some(b"unref") => DebugItem::Unref,
        _ => return say_error(used, Error::Unknown, false),
    };
    match args.get(1).and_then(|key| Key::new(key)) {
        Some(key) => admin(used, Admin::DebugItem { verb, key }, false),
        None => say_error(used, Error::Unknown, false),
    }
}

#[cfg(feature = "debug-commands")]
fn debug_time<'a>(args: &Args<'a>, noreply: bool, used: usize) -> Decoded<'a> {
    let what = match args.first().copied() {
        Some(b"p") => Some(DebugTime::Pause),
        Some(b"r") => Some(DebugTime::Resume),
        seconds => seconds.and_then(lex::u32).map(DebugTime::Advance),
    };
    match what {
        Some(what) => admin(used, Admin::DebugTime(what), noreply),
        None => say_error(used, Error::Unknown, noreply),
    }
}

/// `stats` knows no `noreply`. Most topics may be cut short to any prefix, tried in memcached's
/// order; the last ones have to be written out.
fn stats<'a>(args: &Args<'a>, used: usize) -> Decoded<'a> {
    let topic = match args.first().copied() {
        None => StatsTopic::General,
        Some(topic) if b"reset".starts_with(topic) => StatsTopic::Reset,
        Some(topic) if b"detail".starts_with(topic) => detail(args),
        Some(topic) if b"settings".starts_with(topic) => StatsTopic::Settings,
        Some(topic) if b"cachedump".starts_with(topic) => {
            cachedump(args).unwrap_or_else(StatsTopic::BadCachedump)
        }
        Some(topic) if b"conns".starts_with(topic) => StatsTopic::Conns,
        Some(b"items") => StatsTopic::Items,
        Some(b"slabs") => StatsTopic::Slabs,
        Some(b"sizes") => StatsTopic::Sizes,
        Some(b"automover") => StatsTopic::Automover,
        Some(b"memory") => StatsTopic::Memory,
        Some(topic) => StatsTopic::Unknown(topic),
    };
    admin(used, Admin::Stats(topic), false)
}

fn detail<'a>(args: &Args<'a>) -> StatsTopic<'a> {
    match args.get(1).copied() {
        Some(mode) if b"on".starts_with(mode) => StatsTopic::Detail(Some(true)),
        Some(mode) if b"off".starts_with(mode) => StatsTopic::Detail(Some(false)),
        Some(mode) if b"dump".starts_with(mode) => StatsTopic::DetailDump,
        _ => StatsTopic::Detail(None),
    }
}

/// `cachedump <class> <limit>`
fn cachedump<'a>(args: &Args<'a>) -> Result<StatsTopic<'a>, Error> {
    let [_, class, limit, ..] = args.as_slice() else {
        return Err(Error::Client("bad command line"));
    };
    match (lex::u32(class), lex::u32(limit)) {
        (Some(class), Some(limit)) => Ok(StatsTopic::Cachedump { class, limit }),
        _ => Err(BAD_FORMAT),
    }
}
