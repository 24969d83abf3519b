//! The command line, and what it resolves to: parsing has no side effects, resolution happens
//! once, and [`Settings`] does not change afterwards.

mod args;
mod auth;
mod extended;
mod footprint;
mod listen;
mod resolve;
mod settings;
mod size;
mod tls;

pub use footprint::{CONNECTION, Footprint, PREFIX, SESSION, TLS_CONNECTION};
pub use settings::{Eviction, Layout, Listen, ListenTls, ListenTraits, Protocol, Settings, Udp};
pub use tls::{KeyFormat, TlsSettings, TlsVersion, VerifyMode};

use std::ffi::OsString;
use std::fmt;

/// The release of memcached whose commands, options and statistics this one follows.
pub const MEMCACHED_VERSION: &str = "1.6.45";

/// The exit status of a refused command line: `EX_USAGE` of sysexits.h, as memcached's.
pub const EX_USAGE: i32 = 64;

/// What a command line asks for.
#[derive(Debug)]
pub enum Action {
    Run(Box<Settings>),
    /// Text for stdout: the help, the version or the licence.
    Print(String),
}

/// Why a command line is refused: one line that names the option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Reads a whole command line, the program's name first, and checks every value in it. Opens and
/// changes nothing.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Action, Error> {
    args::parse(args).map_err(Error)
}

/// What is logged at a verbosity (`-v`, or the command of that name): warnings always, the
/// server's doings with one `-v`, the clients' with two, everything with three.
pub fn log_level(verbosity: u32) -> log::LevelFilter {
    match verbosity {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        2 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    }
}
