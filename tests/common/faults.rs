//! Ways to make trouble for a server: limits of a running process, clients that vanish, disks that
//! fill up, clocks that jump.

use super::{Client, Server, temp_dir, wait_until};
use nix::sys::signal::Signal;
use nix::sys::socket::setsockopt;
use nix::{libc, setsockopt_impl, sockopt_impl};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

sockopt_impl!(Repair, SetOnly, libc::IPPROTO_TCP, libc::TCP_REPAIR, bool);

/// A limit of a running process, as long as this is there.
pub struct Limited {
    pid: Pid,
    what: Resource,
    before: Rlimit,
}

impl Limited {
    pub fn new(server: &Server, what: Resource, to: u64) -> Limited {
        let pid = Pid::from_raw(server.pid().cast_signed()).expect("a process");
        // The hard limit stays, so that the soft one can be raised again.
        let limit = Rlimit { current: Some(to), maximum: getrlimit(what).maximum };
        let before = prlimit(Some(pid), what, limit).expect("a limit");
        Limited { pid, what, before }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let limit = Rlimit { maximum: getrlimit(self.what).maximum, ..self.before };
        // It may have ended meanwhile.
        let _ = prlimit(Some(self.pid), self.what, limit);
    }
}

/// Numbers of the files that a server has open.
pub fn open_files(server: &Server) -> Vec<u64> {
    let files = fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("the process's files");
    let number = |name: OsString| name.into_string().ok()?.parse().ok();
    files.filter_map(|file| number(file.ok()?.file_name())).collect()
}

impl Server {
    /// Stops the process, and waits until all of it has: SIGCONT lets it go on.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.pid());
        wait_until("the process to stop", || {
            let mut tasks = fs::read_dir(&tasks).expect("the process's threads");
            tasks.all(|task| {
                let stat = task.and_then(|task| fs::read_to_string(task.path().join("stat")));
                stat.is_ok_and(|stat| stat.contains(") T "))
            })
        });
    }
}

impl Client {
    /// Is gone without a word, as after a power cut: whatever the server sends from now on, nobody
    /// says that he is not there until it has sent something. False, and it stays, where that needs
    /// a right that this process has not.
    pub fn vanish(self) -> bool {
        setsockopt(&self.stream, Repair, &true).is_ok()
    }
}

/// A directory for memory files, removed in the end.
pub struct Dir(pub PathBuf);

impl Dir {
    /// `RUSTCACHED_CRASH_DIR` says where; else it is in /dev/shm, where there is one.
    pub fn new(what: &str) -> Dir {
        let shm = Path::new("/dev/shm");
        let base = std::env::var_os("RUSTCACHED_CRASH_DIR").map(PathBuf::from);
        let base = base.or_else(|| shm.is_dir().then(|| shm.to_owned()));
        let base = base.unwrap_or_else(std::env::temp_dir);
        let dir = base.join(format!("rc-{what}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        Dir(dir)
    }

    pub fn file(&self) -> String {
        self.0.join("mem").display().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A file system in memory of its own, so large and no larger.
pub struct Disk(Dir);

impl Disk {
    /// `None` where none can be mounted, as only root can.
    pub fn new(what: &str, mib: u32) -> Option<Disk> {
        let dir = Dir::new(what);
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(&dir.0)
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Disk(dir))
    }

    /// Where a memory file may be.
    pub fn file(&self) -> String {
        self.0.file()
    }

    /// Another file on it, that takes what room there is.
    pub fn hog(&self) -> Hog {
        Hog(File::create(self.0.0.join("hog")).expect("a file"))
    }
}

/// A file that others leave no room, or that leaves none to others.
pub struct Hog(File);

impl Hog {
    /// Takes all the room that there is now; returns the bytes.
    pub fn take(&mut self) -> u64 {
        let zeroes = [0; 64 << 10];
        let (mut len, mut taken) = (zeroes.len(), 0);
        while len >= 4 << 10 {
            match self.0.write(&zeroes[..len]) {
                Ok(written @ 1..) => taken += written as u64,
                _ => len /= 2,
            }
        }
        taken
    }

    /// Gives all of it back.
    pub fn give_back(&mut self) {
        self.0.set_len(0).expect("a shorter file");
        self.0.rewind().expect("its start");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0.0).status();
    }
}

/// The clocks of a server that was started with this: they can be set, while the machine's stay.
pub struct Clocks {
    file: File,
    path: PathBuf,
}

impl Clocks {
    /// `None` where there is no C compiler.
    pub fn new() -> Option<Clocks> {
        library()?;
        let path = temp_dir("clocks").join("offsets");
        let file = File::create(&path).expect("a file");
        let clocks = Clocks { file, path };
        clocks.set(0, 0);
        Some(clocks)
    }

    /// Has a server go by these clocks.
    pub fn give_to(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library().expect("it was built"));
        command.env("FAKED_CLOCKS", &self.path);
    }

    /// Seconds that the wall clock and the steady clock are ahead of the machine's.
    pub fn set(&self, wall: i64, steady: i64) {
        let bytes = [wall.to_ne_bytes(), steady.to_ne_bytes()].concat();
        self.file.write_all_at(&bytes, 0).expect("a write");
    }
}

impl Drop for Clocks {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.path.parent().expect("a directory"));
    }
}

/// The library that stands before the system's functions of time.
fn library() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/clocks.c");
        // Left behind: others of this process may start servers with it to the end.
        let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("clocks-{}.so", std::process::id()));
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(source)
            .status();
        built.is_ok_and(|status| status.success()).then_some(library)
    };
    BUILT.get_or_init(build).as_deref()
}
