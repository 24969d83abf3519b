//! What the process may do and use: its user, open files, core dumps, locked memory, system calls.
//!
//! The order at start: [`raise_file_limit`], [`allow_core_dumps`], bind the TCP ports, reserve the
//! store's memory, [`lock_memory`], which root may do beyond the limit, [`drop_privileges`], bind
//! the unix socket, which belongs to the user, start the threads, and [`confine`].

mod calls;

pub use calls::confine;

use crate::config::Settings;
use log::{info, warn};
use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};
use nix::unistd::{Gid, Uid, User, getuid, setgid, setgroups, setuid};
use std::fs;

/// Who root becomes without -u.
const NOBODY: &str = "nobody";
/// `nobody` where there is no user database, as in a container with one file in it.
const NOBODY_ID: u32 = 65534;
/// Files beside the connections: listeners, and a poller and a waker for each of up to 64 threads.
const OTHER_FILES: rlim_t = 160;

/// Makes room for `max_conns` connections among the open files; never lowers a limit. Root may
/// raise the hard limit too. An error means that the limit stays below `max_conns`.
pub fn raise_file_limit(max_conns: u32) -> Result<(), String> {
    let failed = |e| format!("cannot read the limit of open files: {e}");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    let connections = rlim_t::from(max_conns);
    let wanted = connections + OTHER_FILES;
    if soft >= wanted || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_ok() {
        return Ok(());
    }
    if hard < connections {
        return Err(format!(
            "-c {max_conns}: only {hard} files may be open; start as root, raise the limit \
             (ulimit -n) or ask for fewer connections"
        ));
    }
    let failed = |e| format!("cannot raise the limit of open files to {hard}: {e}");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed)?;
    warn!("only {hard} files may be open: a little less than -c {max_conns} connections fit");
    Ok(())
}

/// Lets other threads go before the one that calls, where processors are scarce. On Linux a nice
/// value is a thread's own; elsewhere nothing is done.
pub fn yield_to_others() {
    const NICE: i32 = 10;
    if cfg!(target_os = "linux")
        && let Err(e) = rustix::process::setpriority_process(None, NICE)
    {
        info!("cannot lower a thread's priority: {e}");
    }
}

/// -r: core dumps as large as they get. An error where the limit stays 0.
pub fn allow_core_dumps() -> Result<(), String> {
    let core = Resource::RLIMIT_CORE;
    let failed = |e| format!("-r: cannot read the limit of core dumps: {e}");
    if setrlimit(core, RLIM_INFINITY, RLIM_INFINITY).is_err() {
        let (_, hard) = getrlimit(core).map_err(failed)?;
        // The check below tells whether it helped.
        let _ = setrlimit(core, hard, hard);
    }
    match getrlimit(core).map_err(failed)? {
        (0, _) => Err("-r: core dumps are not allowed here (ulimit -c)".into()),
        _ => Ok(()),
    }
}

/// -k: keeps memory from being swapped out. A failure is only a warning, as memcached's. Pages are
/// locked when they are first touched: locking the whole reservation at once would make all of -m
/// resident at start.
pub fn lock_memory() {
    // Root may; for others the limit stays.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let on_fault = MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT);
    let mut flags = MlockAllFlags::MCL_CURRENT | on_fault;
    // Under a limit, locking what is yet to be mapped would make later allocations fail.
    if getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY) {
        flags |= MlockAllFlags::MCL_FUTURE;
    }
    if let Err(e) = mlockall(flags) {
        warn!("-k: the memory cannot be locked: {e}");
    }
}

/// Bytes of address space that are locked, as the kernel counts them.
pub fn locked_bytes() -> u64 {
    field_of("/proc/self/status", "VmLck:")
}

/// Bytes of memory that the process uses.
pub fn resident_bytes() -> u64 {
    field_of("/proc/self/status", "VmRSS:")
}

/// Bytes of memory that huge pages hold. The kernel looks at every page for it that is not one.
pub fn huge_page_bytes() -> u64 {
    field_of("/proc/self/smaps_rollup", "AnonHugePages:")
}

/// True where the system gives no huge pages, also to those who ask.
pub fn huge_pages_are_off() -> bool {
    let modes = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    modes.is_ok_and(|modes| modes.contains("[never]"))
}

/// A line of kilobytes, in bytes; 0 where there is none.
fn field_of(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let digits = line.and_then(|rest| rest.split_whitespace().next());
    digits.and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Started as root, becomes the user of -u, or `nobody` without it (memcached refuses to start);
/// `-u root` stays root. Started as anyone else, stays that, whatever -u says, as memcached does.
pub fn drop_privileges(settings: &Settings) -> Result<(), String> {
    if !getuid().is_root() && !Uid::effective().is_root() {
        return Ok(());
    }
    let name = settings.user.as_deref().unwrap_or(NOBODY);
    let (uid, gid) = ids(name)?;
    if settings.user.is_none() {
        warn!("started as root without -u: running as {name} (-u root stays root)");
    }
    become_user(name, uid, gid)?;
    if settings.max_core_dumps {
        // A change of user forbids core dumps, whatever their limit.
        set_dumpable(true).map_err(|e| format!("-r: cannot allow core dumps: {e}"))?;
    }
    info!("running as {name} (uid {uid}, gid {gid})");
    Ok(())
}

fn ids(name: &str) -> Result<(Uid, Gid), String> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok((user.uid, user.gid)),
        _ if name == NOBODY => Ok((Uid::from_raw(NOBODY_ID), Gid::from_raw(NOBODY_ID))),
        Ok(None) => Err(format!("-u {name}: there is no such user")),
        Err(e) => Err(format!("-u {name}: cannot look the user up: {e}")),
    }
}

fn become_user(name: &str, uid: Uid, gid: Gid) -> Result<(), String> {
    match setgroups(&[]) {
        Ok(()) => (),
        // A container that forbids it has already taken what there was to take.
        Err(Errno::EPERM) => warn!("the supplementary groups cannot be dropped here"),
        Err(e) => return Err(format!("cannot drop the supplementary groups: {e}")),
    }
    setgid(gid).and_then(|()| setuid(uid)).map_err(|e| format!("cannot become {name}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_resolve() {
        assert_eq!(ids("root"), Ok((Uid::from_raw(0), Gid::from_raw(0))));
        assert!(ids(NOBODY).is_ok_and(|(uid, _)| !uid.is_root()));
        assert!(ids("no such user").is_err_and(|e| e.starts_with("-u no such user")));
    }

    #[test]
    fn the_kernels_figures_are_read_in_bytes() {
        let resident = field_of("/proc/self/status", "VmRSS:");
        assert!((1 << 20..1 << 40).contains(&resident), "{resident}");
        assert_eq!(field_of("/proc/self/status", "NoSuch:"), 0);
        assert_eq!(field_of("/proc/self/no such file", "VmRSS:"), 0);
        assert_eq!(locked_bytes() % 1024, 0);
    }

    #[test]
    fn the_file_limit_rises_and_never_falls() {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("readable");
        raise_file_limit(1).expect("one connection");
        assert!(getrlimit(Resource::RLIMIT_NOFILE).expect("readable").0 >= soft);
        // More than any kernel allows a process to open.
        assert!(raise_file_limit(i32::MAX as u32).is_err_and(|e| e.starts_with("-c 2147483647")));
    }
}
