//! `-o drop_privileges`: which system calls a server that is up may make.
//!
//! There is one list for all threads: they share their memory, so what one of them is denied
//! another could be made to do for it. Whatever is not on it ends the process, by a signal that
//! nothing can catch, and the kernel's log says which call it was.
//!
//! What an intruder would want is thus out of reach: to run a program or split off a process, to
//! make memory executable, to open, make or rename a file for writing, to call out, to trace or
//! signal other processes, to become somebody else, to change the system.

use nix::libc;
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};
use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::process;

/// A call's number.
type Call = i64;

/// Calls with any arguments.
const ALLOWED: &[Call] = &[
    // Clients, and what wakes a thread.
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // The memory file, files that are read again, and those that go at the end.
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_msync,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_unlinkat,
    // -d lets go of stdout and stderr.
    libc::SYS_dup3,
    // Threads, also those that have only just begun.
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_setpriority,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Time, chance and figures.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    // The last words of a thread that panics.
    libc::SYS_getcwd,
    libc::SYS_readlinkat,
];

/// Calls that newer machines have in one form only, for C libraries that use the old one.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OF_OLD: &[Call] = &[
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OF_OLD: &[Call] = &[];

/// A call that is allowed where one argument, or those bits of it that count, is as said.
#[derive(Clone, Copy)]
struct Narrow {
    call: Call,
    /// Which argument, from 0.
    argument: u8,
    mask: u32,
    value: u32,
}

const fn narrow(call: Call, argument: u8, mask: i32, value: i32) -> Narrow {
    Narrow { call, argument, mask: mask.cast_unsigned(), value: value.cast_unsigned() }
}

/// All bits count, and none.
const WHOLE: i32 = -1;
const ANY: i32 = 0;
/// Bits of a file's mode of opening that let it be changed or made.
const CHANGES: i32 = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;

/// Asks what the kernel told the process at its start, as the size of a page (linux/prctl.h).
const PR_GET_AUXV: i32 = 0x4155_5856;

/// Several of the same call are alternatives.
const NARROW: &[Narrow] = &[
    narrow(libc::SYS_openat, 2, CHANGES, libc::O_RDONLY),
    #[cfg(target_arch = "x86_64")]
    narrow(libc::SYS_open, 1, CHANGES, libc::O_RDONLY),
    narrow(libc::SYS_mmap, 2, libc::PROT_EXEC, 0),
    narrow(libc::SYS_mprotect, 2, libc::PROT_EXEC, 0),
    narrow(libc::SYS_fcntl, 1, WHOLE, libc::F_DUPFD_CLOEXEC),
    narrow(libc::SYS_fcntl, 1, WHOLE, libc::F_GETFD),
    narrow(libc::SYS_fcntl, 1, WHOLE, libc::F_SETFD),
    narrow(libc::SYS_fcntl, 1, WHOLE, libc::F_GETFL),
    narrow(libc::SYS_fcntl, 1, WHOLE, libc::F_SETFL),
    narrow(libc::SYS_ioctl, 1, WHOLE, libc::FIONBIO as i32),
    narrow(libc::SYS_ioctl, 1, WHOLE, libc::FIONREAD as i32),
    narrow(libc::SYS_prctl, 0, WHOLE, libc::PR_SET_NAME),
    narrow(libc::SYS_prctl, 0, WHOLE, PR_GET_AUXV),
];

/// What telling systemd takes: a socket that reaches nothing but this machine's own, connected. The
/// kernel does not see where to.
const TELLING: &[Narrow] =
    &[narrow(libc::SYS_socket, 0, WHOLE, libc::AF_UNIX), narrow(libc::SYS_connect, 0, ANY, 0)];

/// Confines all threads, for good, to what serving takes; with `tells`, systemd may be told of what
/// happens.
pub fn confine(tells: bool) -> Result<(), String> {
    let failed = |e: Error| format!("-o drop_privileges: cannot confine system calls: {e}");
    let program = program(tells).map_err(failed)?;
    apply_filter_all_threads(&program).map_err(failed)
}

fn program(tells: bool) -> Result<BpfProgram, Error> {
    let any = ALLOWED.iter().chain(ALLOWED_OF_OLD).map(|call| (*call, Vec::new()));
    let mut rules: BTreeMap<Call, Vec<SeccompRule>> = any.collect();
    // It may signal itself.
    let own = narrow(libc::SYS_tgkill, 0, WHOLE, process::id().cast_signed());
    let told = if tells { TELLING } else { &[] };
    for narrow in NARROW.iter().chain(told).chain([&own]) {
        let bits = MaskedEq(narrow.mask.into());
        let condition = SeccompCondition::new(narrow.argument, Dword, bits, narrow.value.into())?;
        rules.entry(narrow.call).or_default().push(SeccompRule::new(vec![condition])?);
    }
    let (denied, allowed) = (SeccompAction::KillProcess, SeccompAction::Allow);
    let filter = SeccompFilter::new(rules, denied, allowed, TargetArch::try_from(ARCH)?)?;
    Ok(filter.try_into()?)
}
