//! Parses, says what is to be said, runs.

use rustcached::config::{self, Action, EX_USAGE, log_level};
use rustcached::server::EX_OSERR;
use std::io::Write;
use std::process::exit;

fn main() {
    let settings = match config::parse(std::env::args_os()) {
        Ok(Action::Run(settings)) => *settings,
        Ok(Action::Print(text)) => {
            // Whoever closed stdout does not want the rest.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return;
        }
        Err(error) => {
            eprintln!("rustcached: {error}");
            exit(EX_USAGE);
        }
    };
    if let Err(error) = rustcached::store::check(&settings) {
        eprintln!("rustcached: {error}");
        exit(EX_USAGE);
    }
    start_logging(settings.verbosity);
    settings.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    settings.notes.iter().for_each(|note| log::info!("{note}"));
    if let Err(error) = rustcached::server::run(settings) {
        eprintln!("rustcached: {error}");
        exit(EX_OSERR);
    }
}

/// Bare lines on stderr, as memcached's: tools read the slab table of -vv. The `verbosity` command
/// moves the level later by `log::set_max_level`.
fn start_logging(verbosity: u32) {
    env_logger::Builder::new()
        .filter_module("rustcached", log::LevelFilter::Trace)
        .format(|out, record| match record.level() {
            log::Level::Error => writeln!(out, "rustcached: {}", record.args()),
            log::Level::Warn => writeln!(out, "rustcached: warning: {}", record.args()),
            _ => writeln!(out, "{}", record.args()),
        })
        .init();
    log::set_max_level(log_level(verbosity));
}
