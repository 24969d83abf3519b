//! Processes that are measured: where they are found, which processor they run on, the time they
//! take of it, the files that they may open.
#![allow(dead_code)]

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::Result;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

/// Puts all threads of a process on one processor, where the system has the tool for it.
pub fn pin(pid: u32, processor: u32) {
    taskset(&["-a"], pid, processor);
}

/// The same for one thread.
pub fn pin_thread(tid: u32, processor: u32) {
    taskset(&[], tid, processor);
}

fn taskset(options: &[&str], id: u32, processor: u32) {
    let (id, processor) = (id.to_string(), processor.to_string());
    let mut taskset = Command::new("taskset");
    taskset.args(options).args(["-c", "-p", &processor, &id]).stdout(Stdio::null());
    if !taskset.status().is_ok_and(|status| status.success()) {
        eprintln!("process {id} could not be pinned to processor {processor}");
    }
}

/// Processor time of all threads of a process and the kernel for them, so far. Unlike the ticks of
/// `stat` the kernel measures this one, and tells it in nanoseconds.
pub fn processor_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the threads of a process");
    let time = |thread: fs::DirEntry| {
        // One that has ended meanwhile has no file any more.
        let figures = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        figures.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(threads.flatten().map(time).sum())
}

/// Ticks that found the process in its own code, and in the kernel's: samples, good for the share
/// of each.
pub fn ticks(pid: u32) -> [u64; 2] {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("figures of a process");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let mut ticks = fields.skip(11).map(|ticks| ticks.parse().expect("ticks"));
    [(); 2].map(|()| ticks.next().expect("a field"))
}

/// The middle one, by value.
pub fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Lets this process have so many files open, and what it starts from then on.
pub fn allow_files(wanted: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))?;
    }
    Ok(())
}

/// The memcached of `PATH`; without one it says what to do.
pub fn memcached() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|dir| dir.join("memcached")).find(|file| file.exists());
    if found.is_none() {
        eprintln!("there is no memcached on PATH to compare with; --server names one");
    }
    found
}
