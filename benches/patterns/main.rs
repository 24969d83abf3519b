//! Access patterns, each a row of a table: what stays in our server, beside another one with as
//! much memory.
//!
//! Both are asked the same at the same time, by a thread each. Answers are checked.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../common/harness.rs"]
mod harness;
#[path = "../live/mod.rs"]
mod live;
#[path = "../live/process.rs"]
mod process;
mod rows;
mod table;
#[path = "../common/zipf.rs"]
mod zipf;

use clap::Parser;
use common::{Server, server_path};
use harness::Harness;
use process::{allow_files, memcached};
use rows::{CONNECTIONS, Pattern, Row, Target};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use table::Table;

/// Patterns, and -m, where they are only tried.
const SMOKE: [&str; 3] = ["once-75", "chains", "announced"];
const SMOKE_MEGABYTES: u64 = 8;

#[derive(Parser)]
#[command(about = "What stays in our server and another one, access pattern by access pattern")]
struct Args {
    /// The other server's binary [default: memcached of PATH]
    #[arg(long)]
    server: Option<PathBuf>,
    /// -m of both; several with commas between
    #[arg(long, value_delimiter = ',', default_value = "64")]
    megabytes: Vec<u64>,
    /// Patterns, with commas between [default: all]
    #[arg(long, value_delimiter = ',', value_parser = known)]
    rows: Vec<String>,
    /// Prints what patterns there are
    #[arg(long)]
    list: bool,
    /// Further options of our server, with spaces between
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    args: String,
    /// Exit with status 1 where ours has 3 % less hits than the other, or takes 1.2 times as long
    #[arg(long)]
    require: bool,
    #[command(flatten)]
    harness: Harness,
}

fn known(name: &str) -> Result<String, String> {
    let found = rows::all().any(|pattern| pattern.name == name);
    if found { Ok(name.into()) } else { Err("no such pattern; --list shows them".into()) }
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    if !args.harness.wants("patterns") {
        return ExitCode::SUCCESS;
    }
    if args.list {
        rows::all().for_each(|pattern| println!("{:<14} {}", pattern.name, pattern.about));
        return ExitCode::SUCCESS;
    }
    if args.harness.smoke() {
        live::check();
        let rows = SMOKE.map(String::from).into();
        args = Args { rows, megabytes: vec![SMOKE_MEGABYTES], server: None, ..args };
    } else if args.server.is_none() {
        args.server = memcached();
    }
    allow_files(CONNECTIONS as u64 * 2 + 100).expect("a larger limit of open files: ulimit -n");
    let mut holds = true;
    for &megabytes in &args.megabytes {
        holds &= compare(&args, megabytes);
    }
    if holds || !args.require { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All rows at one -m; false where ours is below its bounds.
fn compare(args: &Args, megabytes: u64) -> bool {
    let began = Instant::now();
    let table = Table::start(megabytes, args.server.as_deref());
    let wanted = |name: &str| args.rows.is_empty() || args.rows.iter().any(|row| row == name);
    let mut below = 0;
    for pattern in rows::all().filter(|pattern| wanted(pattern.name)) {
        let own = args.args.split_whitespace().chain(pattern.own.iter().copied());
        let own: Vec<&str> = own.collect();
        let (ours, its) = std::thread::scope(|scope| {
            let other = args.server.as_deref();
            let its = other.map(|binary| scope.spawn(|| play(pattern, binary, megabytes, &[])));
            let ours = play(pattern, &server_path(), megabytes, &own);
            (ours, its.map(|its| its.join().expect("the other server's thread")))
        });
        below += table.print(pattern.name, &ours, its.as_deref());
    }
    println!("{} s; rows below the bounds: {below}", began.elapsed().as_secs());
    below == 0
}

fn play(pattern: &Pattern, binary: &Path, megabytes: u64, own: &[&str]) -> Vec<Row> {
    let (megabytes_text, connections) = (megabytes.to_string(), CONNECTIONS.to_string());
    let mut options = vec!["-t", "2", "-m", &megabytes_text, "-c", &connections];
    options.extend(pattern.options);
    options.extend(own);
    let server = Server::start_binary(binary, &options);
    let target = Target::new(&server, megabytes);
    let rows = target.and_then(|mut target| (pattern.run)(&mut target));
    let rows = rows.unwrap_or_else(|e| panic!("{} of {}: {e}", pattern.name, binary.display()));
    for row in &rows {
        assert!(row.asked > 0 && row.hits <= row.asked, "{}: {row:?}", pattern.name);
    }
    rows
}
