//! memcached's short and long options, what they set, and the help.

use super::auth::{Authentication, PASSWORDS};
use super::extended::{self, TABLE};
use super::listen::listeners;
use super::resolve::Draft;
use super::settings::{Listen, ListenTls, ListenTraits, Protocol, Settings};
use super::size::{MIB, number, real, size};
use super::{Action, MEMCACHED_VERSION};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::PathBuf;

/// More worker threads than any machine has cores is a slip of the keyboard.
const THREADS_MAX: u32 = 1024;
/// Above this many memcached warns, too.
const THREADS_WISE: u32 = 64;
/// The longest path of a unix socket on Linux, bytes without the NUL.
const UNIX_PATH_MAX: usize = 107;
/// The largest -m, bytes: half the address space of a process.
const MAXBYTES_MAX: u64 = 64 << 40;
/// How memcached's test suite makes a server believe that its memory is nearly gone.
const INITIAL_MALLOC: &str = "T_MEMD_INITIAL_MALLOC";
/// The widest line of the help.
const HELP_WIDTH: usize = 100;

/// The options as typed. Values stay text: they are read in `draft`, so that each error names its
/// option in one line. Like `getopt`, an option takes whatever word follows it, and a repeated
/// option overrides itself.
#[derive(Parser, Debug)]
#[command(
    name = "rustcached",
    about = "A drop-in replacement for memcached",
    override_usage = "rustcached [OPTIONS]",
    disable_help_flag = true,
    disable_version_flag = true,
    infer_long_args = true,
    args_override_self = true,
    max_term_width = HELP_WIDTH
)]
struct Args {
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    memory: Memory,
    #[command(flatten)]
    process: Process,
    #[command(flatten)]
    authentication: Authentication,
    #[command(flatten)]
    commands: Commands,
    #[command(flatten)]
    information: Information,

    /// Sub-options, separated by commas (listed below)
    #[arg(short = 'o', long, value_name = "LIST", action = ArgAction::Append)]
    #[arg(allow_hyphen_values = true, help_heading = "Extended")]
    extended: Vec<String>,

    /// Words that belong to no option.
    #[arg(hide = true)]
    operands: Vec<OsString>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Network")]
struct Network {
    /// TCP port; 0 is off, -1 any free one (default: 11211)
    #[arg(short, long, value_name = "N", allow_hyphen_values = true)]
    port: Option<String>,

    /// Addresses to listen on, repeatable or joined by commas: HOST, HOST:PORT, [V6]:PORT, or *
    /// (default: all interfaces)
    #[arg(short, long, value_name = "ADDR", allow_hyphen_values = true)]
    #[arg(action = ArgAction::Append)]
    listen: Vec<String>,

    /// Unix socket to listen on; turns the network off
    #[arg(short = 's', long, value_name = "FILE", allow_hyphen_values = true)]
    unix_socket: Option<PathBuf>,

    /// Access bits of the unix socket, octal (default: 700)
    #[arg(short = 'a', long, value_name = "MASK", allow_hyphen_values = true)]
    unix_mask: Option<String>,

    /// UDP port; 0 is off, -1 any free one; without -p it is the TCP port, too (default: 0)
    #[arg(short = 'U', long, value_name = "N", allow_hyphen_values = true)]
    udp_port: Option<String>,

    /// Most connections at a time (default: 1024)
    #[arg(short, long, value_name = "N", allow_hyphen_values = true)]
    conn_limit: Option<String>,

    /// Connections that may wait to be accepted (default: 1024)
    #[arg(short = 'b', long, value_name = "N", allow_hyphen_values = true)]
    listen_backlog: Option<String>,

    /// Protocol: auto (the first byte decides), ascii or binary (default: auto)
    #[arg(short = 'B', long, value_name = "NAME", allow_hyphen_values = true)]
    protocol: Option<String>,

    /// Speak TLS (see the ssl_ sub-options of -o); with it, an address may have a prefix: notls:,
    /// btls: (no certificates of clients) or mtls: (with them)
    #[arg(short = 'Z', long)]
    enable_ssl: bool,

    /// Receive queues of the network card; without effect
    #[arg(short = 'N', long, value_name = "N", allow_hyphen_values = true)]
    napi_ids: Option<String>,

    /// Requests of one connection before the others' turn (default: 20)
    #[arg(short = 'R', long, value_name = "N", allow_hyphen_values = true)]
    max_reqs_per_event: Option<String>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Memory")]
struct Memory {
    /// Memory for the cache in megabytes, or with a unit: 512m, 4g (default: 64)
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_limit: Option<String>,

    /// Answer with an error instead of evicting when memory is full
    #[arg(short = 'M', long)]
    disable_evictions: bool,

    /// Largest item: 1k to 1024m, at most half of -m (default: 1m)
    #[arg(short = 'I', long, value_name = "SIZE", allow_hyphen_values = true)]
    max_item_size: Option<String>,

    /// Growth from one chunk size to the next (default: the layout's own)
    #[arg(short = 'f', long, value_name = "FACTOR", allow_hyphen_values = true)]
    slab_growth_factor: Option<String>,

    /// Least bytes for key, value and flags (default: 48)
    #[arg(short = 'n', long, value_name = "BYTES", allow_hyphen_values = true)]
    slab_min_size: Option<String>,

    /// Keep the cache in FILE, on a tmpfs best: the next start with it is warm, also after a crash
    #[arg(short = 'e', long, value_name = "FILE", allow_hyphen_values = true)]
    memory_file: Option<PathBuf>,

    /// Ask the system for large memory pages
    #[arg(short = 'L', long)]
    enable_largepages: bool,

    /// Lock the memory into RAM
    #[arg(short = 'k', long)]
    lock_memory: bool,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Process")]
struct Process {
    /// User to become when started as root (default: nobody; root stays root)
    #[arg(short, long, value_name = "USER", allow_hyphen_values = true)]
    user: Option<String>,

    /// Worker threads (default: 4)
    #[arg(short, long, value_name = "N", allow_hyphen_values = true)]
    threads: Option<String>,

    /// Run in the background; whoever starts it waits until it serves
    #[arg(short, long)]
    daemon: bool,

    /// Write the process id to FILE while the server runs
    #[arg(short = 'P', long, value_name = "FILE", allow_hyphen_values = true)]
    pidfile: Option<PathBuf>,

    /// Let a crash leave a core dump
    #[arg(short = 'r', long)]
    enable_coredumps: bool,

    /// Log to stderr: -v what the server does, -vv what clients send, -vvv everything
    #[arg(short, long, value_name = "N", action = ArgAction::Append)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    verbose: Vec<String>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Commands")]
struct Commands {
    /// Let clients end the server with shutdown
    #[arg(short = 'A', long)]
    enable_shutdown: bool,

    /// No CAS: saves its bytes in every item
    #[arg(short = 'C', long)]
    disable_cas: bool,

    /// No flush_all
    #[arg(short = 'F', long)]
    disable_flush_all: bool,

    /// No stats cachedump, stats detail and other dumps
    #[arg(short = 'X', long)]
    disable_dumping: bool,

    /// No watch
    #[arg(short = 'W', long)]
    disable_watch: bool,

    /// Character between a key's prefix and its rest; turns `stats detail` on (default: ':')
    #[arg(short = 'D', value_name = "CHAR", allow_hyphen_values = true)]
    prefix_delimiter: Option<String>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Information")]
struct Information {
    /// Print this help and exit
    #[arg(short, long)]
    help: bool,

    /// Print the licence and exit
    #[arg(short = 'i', long)]
    license: bool,

    /// Print the version and exit
    #[arg(short = 'V', long)]
    version: bool,
}

/// See [`super::parse`].
pub(super) fn parse(args: impl Iterator<Item = OsString>) -> Result<Action, String> {
    let matches = Args::command().try_get_matches_from(args).map_err(one_line)?;
    let args = Args::from_arg_matches(&matches).map_err(one_line)?;
    let asked = &args.information;
    if asked.help {
        return Ok(Action::Print(help()));
    }
    if asked.license {
        return Ok(Action::Print(LICENSE.into()));
    }
    if asked.version {
        return Ok(Action::Print(version()));
    }
    let mut draft = Draft::default();
    args.network.draft(&mut draft.settings)?;
    let (given, passwords) = (args.network.protocol.is_some(), std::env::var_os(PASSWORDS));
    args.authentication.draft(&mut draft.settings, given, passwords)?;
    args.memory.draft(&mut draft)?;
    args.process.draft(&mut draft)?;
    args.commands.draft(&mut draft.settings)?;
    for list in &args.extended {
        extended::apply(&mut draft, list)?;
    }
    args.network.listen(&mut draft)?;
    for word in &args.operands {
        draft.warn(format!("'{}' belongs to no option and is ignored", word.display()));
    }
    if cfg!(feature = "debug-commands") {
        let text = std::env::var_os(INITIAL_MALLOC);
        draft.settings.initial_malloc = initial_malloc(text.as_deref())?;
    }
    draft.resolve().map(|settings| Action::Run(Box::new(settings)))
}

/// The first line of clap's report says it all.
fn one_line(error: clap::Error) -> String {
    let report = error.to_string();
    let line = report.lines().next().unwrap_or_default();
    format!("{} (-h lists the options)", line.strip_prefix("error: ").unwrap_or(line))
}

fn initial_malloc(text: Option<&OsStr>) -> Result<u64, String> {
    let Some(text) = text else { return Ok(0) };
    number(&text.to_string_lossy(), 0..=u64::MAX).map_err(|e| format!("{INITIAL_MALLOC}: {e}"))
}

/// Reads an option's value where it was given.
fn given<T>(
    option: &str,
    text: Option<&String>,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    text.map(|text| read(text)).transpose().map_err(|e| format!("{option}: {e}"))
}

const POSITIVE: std::ops::RangeInclusive<u32> = 1..=i32::MAX as u32;

impl Network {
    fn draft(&self, s: &mut Settings) -> Result<(), String> {
        if let Some(port) = given("-p", self.port.as_ref(), |t| number(t, -1..=65535))? {
            s.tcp_port = port;
        }
        if let Some(port) = given("-U", self.udp_port.as_ref(), |t| number(t, -1..=65535))? {
            s.udp_port = port;
            if port != 0 && self.port.is_none() {
                s.tcp_port = port;
            }
        }
        if let Some(mask) = given("-a", self.unix_mask.as_ref(), unix_mask)? {
            s.unix_mask = mask;
        }
        if let Some(n) = given("-c", self.conn_limit.as_ref(), |t| number(t, POSITIVE))? {
            s.max_connections = n;
        }
        if let Some(n) =
            given("-b", self.listen_backlog.as_ref(), |t| number(t, 0..=i32::MAX as u32))?
        {
            s.backlog = n;
        }
        if let Some(protocol) = given("-B", self.protocol.as_ref(), protocol)? {
            s.protocol = protocol;
        }
        if let Some(n) = given("-N", self.napi_ids.as_ref(), |t| number(t, POSITIVE))? {
            s.napi_ids = n;
        }
        if let Some(n) = given("-R", self.max_reqs_per_event.as_ref(), |t| number(t, POSITIVE))? {
            s.requests_per_event = n;
        }
        Ok(())
    }

    /// -l and -s, once -p and -U are known.
    fn listen(&self, draft: &mut Draft) -> Result<(), String> {
        if let Some(path) = &self.unix_socket {
            draft.settings.unix_socket = Some(unix_path(path)?);
            draft.settings.unix_traits.protocol = draft.settings.protocol;
        }
        draft.settings.tls.enabled = self.enable_ssl;
        draft.settings.inter = inter(&self.listen);
        draft.settings.listen = self.addresses(draft.settings.tcp_port, draft)?;
        draft.settings.udp.listen = self.addresses(draft.settings.udp_port, draft)?;
        Ok(())
    }

    /// Where to listen on `port`, which is 0 for nowhere and -1 for any free one.
    fn addresses(&self, port: i32, draft: &mut Draft) -> Result<Vec<Listen>, String> {
        // -1, ephemeral, is 0 to the system.
        let system_port = u16::try_from(port).unwrap_or(0);
        let protocol = draft.settings.protocol;
        let tls = if self.enable_ssl { ListenTls::Default } else { ListenTls::Off };
        let traits = ListenTraits { protocol, tls, ..ListenTraits::default() };
        draft.settings.listen_traits = traits;
        let named = listeners(&self.listen, system_port, traits)?;
        if named.tagged {
            draft.warn("-l: tags of listeners have no effect without the proxy".into());
        }
        Ok(match draft.settings.unix_socket {
            Some(_) => Vec::new(),
            None if port == 0 => Vec::new(),
            None if named.addresses.is_empty() => {
                vec![Listen { host: String::new(), port: system_port, traits }]
            }
            None => named.addresses,
        })
    }
}

/// All -l as one text, the way `stats settings` prints it.
fn inter(lists: &[String]) -> Option<String> {
    let mut distinct: Vec<&str> = Vec::new();
    for list in lists {
        if !distinct.contains(&list.trim()) {
            distinct.push(list.trim());
        }
    }
    (!distinct.is_empty()).then(|| distinct.join(","))
}

fn unix_path(path: &std::path::Path) -> Result<PathBuf, String> {
    match path.as_os_str().len() {
        1..=UNIX_PATH_MAX => Ok(path.to_owned()),
        n => Err(format!("-s: a path has 1 to {UNIX_PATH_MAX} bytes, not {n}")),
    }
}

fn unix_mask(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text.trim(), 8)
        .ok()
        .filter(|mask| *mask <= 0o777)
        .ok_or_else(|| format!("must be octal, 0 to 777, not '{text}'"))
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text.trim() {
        "auto" => Ok(Protocol::Auto),
        "ascii" => Ok(Protocol::Ascii),
        "binary" => Ok(Protocol::Binary),
        _ => Err(format!("must be auto, ascii or binary, not '{text}'")),
    }
}

impl Memory {
    fn draft(&self, draft: &mut Draft) -> Result<(), String> {
        let s = &mut draft.settings;
        if let Some(bytes) = given("-m", self.memory_limit.as_ref(), |t| size(t, MIB))? {
            if !(1..=MAXBYTES_MAX).contains(&bytes) {
                return Err("-m: must be more than 0 and at most 64t".into());
            }
            s.maxbytes = bytes;
        }
        if let Some(factor) = given("-f", self.slab_growth_factor.as_ref(), |t| real(t, 1.0))? {
            (s.growth_factor, s.growth_factor_given) = (factor, true);
        }
        if let Some(bytes) = given("-n", self.slab_min_size.as_ref(), |t| number(t, POSITIVE))? {
            (s.chunk_size, s.chunk_size_given) = (bytes, true);
        }
        s.evict = !self.disable_evictions;
        s.memory_file = self.memory_file.clone();
        s.large_pages = self.enable_largepages;
        s.lock_memory = self.lock_memory;
        if let Some(bytes) = given("-I", self.max_item_size.as_ref(), |t| size(t, 1))? {
            draft.item_size_max = bytes;
        }
        Ok(())
    }
}

impl Process {
    fn draft(&self, draft: &mut Draft) -> Result<(), String> {
        let s = &mut draft.settings;
        s.user = self.user.as_deref().map(str::trim).filter(|u| !u.is_empty()).map(str::to_owned);
        s.daemonize = self.daemon;
        s.pid_file = self.pidfile.clone().filter(|path| !path.as_os_str().is_empty());
        s.max_core_dumps = self.enable_coredumps;
        for level in &self.verbose {
            let level: u32 = number(level, 0..=255).map_err(|e| format!("--verbose: {e}"))?;
            s.verbosity = s.verbosity.saturating_add(level);
        }
        if let Some(n) = given("-t", self.threads.as_ref(), |t| number(t, 1..=THREADS_MAX))? {
            s.threads = n;
            if n > THREADS_WISE {
                draft.warn(format!("-t {n}: more threads than cores only get in each other's way"));
            }
        }
        Ok(())
    }
}

impl Commands {
    fn draft(&self, s: &mut Settings) -> Result<(), String> {
        s.shutdown_command = self.enable_shutdown;
        s.use_cas = !self.disable_cas;
        s.flush_enabled = !self.disable_flush_all;
        s.dump_enabled = !self.disable_dumping;
        s.watch_enabled = !self.disable_watch;
        if let Some(byte) = given("-D", self.prefix_delimiter.as_ref(), delimiter)? {
            (s.prefix_delimiter, s.detail_enabled) = (byte, true);
        }
        Ok(())
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match *text.as_bytes() {
        [byte] if byte.is_ascii_graphic() => Ok(byte),
        _ => Err(format!("must be one visible ASCII character, not '{text}'")),
    }
}

fn version() -> String {
    format!(
        "rustcached {} (compatible with memcached {MEMCACHED_VERSION})\n",
        env!("CARGO_PKG_VERSION")
    )
}

const LICENSE: &str = "\
rustcached is free software under the MIT licence or the Apache License, Version 2.0, at your
choice. It comes without warranty of any kind. The texts:
  https://opensource.org/license/mit
  https://www.apache.org/licenses/LICENSE-2.0
";

/// The options in groups, then the sub-options of -o from their table. memcached's test suite
/// searches this text for the names of features, so what is refused is named by letter only.
fn help() -> String {
    let mut text = version();
    let _ = write!(text, "\n{}", Args::command().render_help());
    let (later, now): (Vec<_>, Vec<_>) =
        TABLE.iter().filter(|option| !option.help.is_empty()).partition(|o| o.steers_nothing());
    let sections = [("Sub-options of -o:", now), ("Checked and shown, but without effect:", later)];
    for (title, options) in sections {
        let _ = writeln!(text, "\n{title}");
        for option in options {
            let equals = if option.placeholder.is_empty() { "" } else { "=" };
            let name = format!("{}{equals}{}", option.name, option.placeholder);
            let _ = writeln!(text, "  {name:<30}{}", option.help);
        }
    }
    text.push_str(
        "\nAlso accepted: the no_ form of most sub-options, and those that mean nothing any more \
         (modern,\ninline_ascii_resp, hash_algorithm and the like; -v says so). Refused in this \
         release: -e\nand the sub-options of the proxy and external storage.\n",
    );
    text
}

#[cfg(test)]
mod tests;
