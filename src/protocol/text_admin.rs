//! Classic text: operators' commands, and lines that name no command.

use super::lex::{self, Args, BAD_FORMAT};
use super::text::{command, say_error};
use super::{Decoded, lex::Tokens};
#[cfg(feature = "debug-commands")]
use crate::command::DebugItem;
use crate::command::{Admin, Command, Error, Say, StatsTopic};
#[cfg(feature = "debug-commands")]
use crate::store::Key;

/// Any line whose command is no data command. `verb` is what comes before the first blank; the
/// commands that memcached looks up later it takes from the line's first token, so those may have
/// blanks before them.
pub(super) fn decode<'a>(verb: &[u8], args: &'a [u8], line: &'a [u8], used: usize) -> Decoded<'a> {
    match verb {
        b"version" => return admin(used, Admin::Version, false),
        b"stats" => return stats(&lex::args(args), used),
        b"shutdown" => return command(used, Command::Say(Say::ShutdownDisabled), false),
        _ => {}
    }
    let mut tokens = Tokens::new(line);
    let first = tokens.next().unwrap_or_default();
    let args = lex::args(tokens.rest());
    let noreply = lex::is_noreply(&args);
    match first {
        b"flush_all" => flush_all(&args, noreply, used),
        b"verbosity" => verbosity(&args, noreply, used),
        b"slabs" => say_error(used, slabs_error(&args), noreply),
        #[cfg(feature = "debug-commands")]
        b"debugtime" => debug_time(&args, noreply, used),
        #[cfg(feature = "debug-commands")]
        b"debugitem" => debug_item(&args, used),
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

/// How `slabs` is refused: pages are not moved by hand yet, but arguments that memcached calls
/// malformed are called so here too.
fn slabs_error(args: &Args<'_>) -> Error {
    let [sub, setting, rest @ ..] = args.as_slice() else {
        return Error::Unknown;
    };
    let well_formed = match (*sub, *setting) {
        (sub, _) if !b"automove".starts_with(sub) => true,
        (_, name) if b"ratio".starts_with(name) || b"freeratio".starts_with(name) => true,
        (_, name) if b"window".starts_with(name) => {
            rest.first().is_some_and(|n| lex::u32(n).is_some())
        }
        (_, level) => lex::u32(level).is_some(),
    };
    if well_formed { Error::Unknown } else { BAD_FORMAT }
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
    match args.first().and_then(|seconds| lex::u32(seconds)) {
        Some(seconds) => admin(used, Admin::DebugTime(seconds), noreply),
        None => say_error(used, Error::Unknown, noreply),
    }
}

/// `stats` knows no `noreply`. Most topics may be cut short to any prefix, tried in memcached's
/// order; the last three have to be written out.
fn stats<'a>(args: &Args<'a>, used: usize) -> Decoded<'a> {
    let topic = match args.first().copied() {
        None => StatsTopic::General,
        Some(topic) if b"reset".starts_with(topic) => StatsTopic::Reset,
        Some(topic) if b"detail".starts_with(topic) => detail(args),
        Some(topic) if b"settings".starts_with(topic) => StatsTopic::Settings,
        Some(topic) if b"cachedump".starts_with(topic) => match cachedump(args) {
            Ok(topic) => topic,
            Err(error) => return say_error(used, error, false),
        },
        Some(topic) if b"conns".starts_with(topic) => StatsTopic::Conns,
        Some(b"items") => StatsTopic::Items,
        Some(b"slabs") => StatsTopic::Slabs,
        Some(b"sizes") => StatsTopic::Sizes,
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
