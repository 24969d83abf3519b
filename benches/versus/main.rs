//! Our server beside others, memcached for one, and beside `limit`, the ceiling: operations per
//! second, processor time, waits, hits.
//!
//! All servers of a row run side by side on processor 0, started with the same arguments, and are
//! asked in turn, round by round; the client has processor 1. Every answer is checked.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../common/harness.rs"]
mod harness;
mod limit;
#[path = "../live/mod.rs"]
mod live;
#[path = "../live/process.rs"]
mod process;
mod rows;
mod table;
#[path = "../common/zipf.rs"]
mod zipf;

use clap::Parser;
use clap::ValueEnum;
use common::{Server, server_path};
use harness::Harness;
use live::{Clients, Dialect, Draws, Figures, Load, Protocol, fill, measure};
use process::{allow_files, memcached, pin};
use rows::{Row, Stock};
use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use table::{Need, Table};

/// -c of the servers: for the row of most connections, and some.
const CONNECTIONS: &str = "12000";
/// Files that the client needs open for that row.
const FILES: u64 = 12_000;
/// Keys, and connections of each kind, where it is only tried.
const SMOKE_KEYS: u64 = 100;
const SMOKE_CONNECTIONS: usize = 10;

#[derive(Parser)]
#[command(about = "Compares our server with others under load")]
struct Args {
    /// Another server's binary, measured beside ours; may be repeated [default: memcached of PATH]
    #[arg(long)]
    server: Vec<PathBuf>,
    /// Rows, with commas between [default: all]
    #[arg(long, value_delimiter = ',')]
    rows: Vec<Row>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// ROW:NAME:RATIO: exit with status 1 where ours has less than RATIO times the operations of
    /// the server NAME, or of itself in the row NAME; may be repeated
    #[arg(long)]
    need: Vec<Need>,
    #[command(flatten)]
    harness: Harness,
}

fn main() -> ExitCode {
    if env::args().any(|argument| argument == limit::ARGUMENT) {
        let served = limit::serve(&Dialect::new(Protocol::Text, Row::Get1.load().value));
        panic!("limit ended: {served:?}");
    }
    let mut args = Args::parse();
    if !args.harness.wants("versus") {
        return ExitCode::SUCCESS;
    }
    let smoke = args.harness.smoke();
    if smoke {
        live::check();
        args = Args { rounds: 1, seconds: 0.02, ..args };
    } else {
        pin(std::process::id(), 1);
    }
    if args.rows.is_empty() {
        args.rows = Row::value_variants().to_vec();
    }
    if args.server.is_empty() && !smoke {
        args.server.extend(memcached());
    }
    allow_files(FILES).expect("a larger limit of open files: ulimit -n");
    let mut table = Table::default();
    for stock in Stock::ALL {
        compare(&args, stock, smoke, &mut table);
    }
    table.print(&args.rows);
    table.check(&args.need)
}

/// A server that is measured.
struct Target {
    name: String,
    server: Server,
    is_limit: bool,
}

impl Target {
    fn start(binary: &Path, name: String, stock: Stock, is_limit: bool, pinned: bool) -> Target {
        let args = ["-t", "1", "-m", stock.megabytes(), "-c", CONNECTIONS, limit::ARGUMENT];
        let server = Server::start_binary(binary, &args[..args.len() - usize::from(!is_limit)]);
        if pinned {
            pin(server.pid(), 0);
        }
        Target { name, server, is_limit }
    }
}

fn start_all(args: &Args, stock: Stock, smoke: bool) -> Vec<Target> {
    let start = |binary: &Path, name: String| Target::start(binary, name, stock, false, !smoke);
    let mut targets = vec![start(&server_path(), "rustcached".into())];
    for binary in &args.server {
        let short = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let taken = targets.iter().any(|target| target.name == short);
        let name = if taken { binary.display().to_string() } else { short };
        targets.push(start(binary, name));
    }
    let itself = env::current_exe().expect("this program's path");
    targets.push(Target::start(&itself, "limit".into(), stock, true, !smoke));
    targets
}

/// Measures all rows of a stock.
fn compare(args: &Args, stock: Stock, smoke: bool, table: &mut Table) {
    let rows: Vec<Row> = args.rows.iter().copied().filter(|row| row.stock() == stock).collect();
    let Some(first) = rows.first() else { return };
    let shown = |load: Load| if smoke { shrunk(load) } else { load };
    let targets = start_all(args, stock, smoke);
    for target in targets.iter().filter(|target| !target.is_limit) {
        fill(target.server.port, &shown(first.load())).unwrap_or_else(|e| fail(target, *first, &e));
    }
    let draws = |row: &Row| (row.name(), Draws::new(&shown(row.load())));
    let draws: HashMap<String, Draws> = rows.iter().map(draws).collect();
    let length = Duration::from_secs_f64(args.seconds);
    for round in 0..args.rounds {
        for &row in &rows {
            for target in &targets {
                let load = if target.is_limit { row.limit_load() } else { Some(row.load()) };
                let Some(load) = load.map(shown) else { continue };
                let figures = ask(target, &load, &draws[&row.name()], length);
                let figures = figures.unwrap_or_else(|e| fail(target, row, &e));
                table.add(row, &target.name, round, figures);
            }
        }
    }
}

fn ask(target: &Target, load: &Load, draws: &Draws, length: Duration) -> std::io::Result<Figures> {
    let mut clients = Clients::open(target.server.port, load, draws)?;
    measure(&mut clients, target.server.pid(), length, || Ok(true))
}

fn fail(target: &Target, row: Row, error: &std::io::Error) -> ! {
    panic!("{} of {}: {error}", row.name(), target.name)
}

fn shrunk(load: Load) -> Load {
    Load {
        keys: load.keys.min(SMOKE_KEYS),
        connections: load.connections.min(SMOKE_CONNECTIONS),
        idle: load.idle.min(SMOKE_CONNECTIONS),
        ..load
    }
}
