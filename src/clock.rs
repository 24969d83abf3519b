//! Time as the cache sees it: coarse seconds since start, and memcached's rules for exptimes.
//!
//! Seconds start at [`Clock::ORIGIN`], so that 0 can mean "never" and 1 "long past"; after a warm
//! restart they go on where they were ([`Clock::resume`]). A clock made with [`Clock::manual`]
//! moves only by [`Clock::advance`], so tests never sleep.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Seconds on the server's clock; 0 is never a moment.
pub type Seconds = u32;

/// An exptime as clients send it: 0 never, negative already past, up to 30 days relative, beyond
/// that a unix time (memcached's `doc/protocol.txt`, "Expiration times"). Text has 32 bits with a
/// sign, the binary protocol 32 bits without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exptime(pub i64);

/// The longest exptime that is taken as relative: 30 days.
pub const RELATIVE_LIMIT: i64 = 60 * 60 * 24 * 30;

/// When an item dies, in the clock's seconds; [`Deadline::NEVER`] is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Seconds);

impl Deadline {
    pub const NEVER: Deadline = Deadline(0);

    /// True from the second that the deadline names.
    #[inline]
    pub fn passed(self, now: Seconds) -> bool {
        self.0 != 0 && self.0 <= now
    }
}

/// What `debugtime` does to the clock.
#[cfg(feature = "debug-commands")]
#[derive(Clone, Copy, Debug)]
pub enum DebugTime {
    /// It no longer follows the system's, and moves only when told to.
    Pause,
    Resume,
    /// So many seconds later.
    Advance(Seconds),
}

/// The server's clock. Reading it is one relaxed load; [`Clock::refresh`] moves it.
pub struct Clock {
    now: AtomicU32,
    /// Seconds added by `debugtime` or by a test.
    offset: AtomicU32,
    start: Option<Instant>,
    /// The unix time of [`Clock::ORIGIN`].
    start_unix: AtomicU64,
    /// The second in which this server started.
    born: AtomicU32,
    /// Milliseconds of `start` that had gone by in its unix second.
    start_millis: AtomicU64,
    /// Milliseconds since the start at which it was paused, 0 while it runs.
    #[cfg(feature = "debug-commands")]
    paused_at: AtomicU64,
}

impl Clock {
    /// The first second: `uptime` is never 0, and deadlines of 1 are always past.
    pub const ORIGIN: Seconds = 2;

    /// A clock that follows the system's.
    pub fn system() -> Clock {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock {
            now: AtomicU32::new(Self::ORIGIN),
            offset: AtomicU32::new(0),
            start: Some(Instant::now()),
            start_unix: AtomicU64::new(unix.as_secs()),
            born: AtomicU32::new(Self::ORIGIN),
            start_millis: AtomicU64::new(u64::from(unix.subsec_millis())),
            #[cfg(feature = "debug-commands")]
            paused_at: AtomicU64::new(0),
        }
    }

    /// A clock that stands still until [`Clock::advance`], started at unix time `unix`.
    pub fn manual(unix: u64) -> Clock {
        Clock {
            now: AtomicU32::new(Self::ORIGIN),
            offset: AtomicU32::new(0),
            start: None,
            start_unix: AtomicU64::new(unix),
            born: AtomicU32::new(Self::ORIGIN),
            start_millis: AtomicU64::new(0),
            #[cfg(feature = "debug-commands")]
            paused_at: AtomicU64::new(0),
        }
    }

    /// The second last refreshed to.
    #[inline]
    pub fn now(&self) -> Seconds {
        self.now.load(Relaxed)
    }

    /// Follows the system's time; workers call it once a wake-up.
    pub fn refresh(&self) -> Seconds {
        let elapsed = self.elapsed_millis() / 1000;
        let now = Self::ORIGIN + elapsed as u32 + self.offset.load(Relaxed);
        // Several threads refresh; a late one must not turn the clock back.
        let shown = self.now.load(Relaxed);
        if shown < now { self.now.fetch_max(now, Relaxed).max(now) } else { shown }
    }

    /// Milliseconds since the beginning of the unix second in which the clock was started.
    fn elapsed_millis(&self) -> u64 {
        #[cfg(feature = "debug-commands")]
        if let paused @ 1.. = self.paused_at.load(Relaxed) {
            return paused;
        }
        self.start.map_or(0, |s| s.elapsed().as_millis() as u64 + self.start_millis.load(Relaxed))
    }

    /// `debugtime`
    #[cfg(feature = "debug-commands")]
    pub fn debug(&self, what: DebugTime) {
        match what {
            DebugTime::Pause => self.paused_at.store(self.elapsed_millis().max(1), Relaxed),
            DebugTime::Resume => self.paused_at.store(0, Relaxed),
            DebugTime::Advance(seconds) => self.advance(seconds),
        }
    }

    /// Moves the clock forward by `seconds` (tests, `debugtime`).
    pub fn advance(&self, seconds: Seconds) {
        self.offset.fetch_add(seconds, Relaxed);
        self.refresh();
    }

    /// Goes on with the seconds of a clock whose first was at unix time `origin`: as many later as
    /// have gone by, but not before `least`, should the system's clock have been set back. Its
    /// deadlines are good on this one then.
    pub fn resume(&self, origin: u64, least: Seconds) {
        let now = self.refresh();
        let unix = self.unix(now);
        let since = (unix + u64::from(Self::ORIGIN)).saturating_sub(origin);
        let resumed = u32::try_from(since).unwrap_or(u32::MAX / 2).max(least).max(now);
        self.offset.fetch_add(resumed - now, Relaxed);
        self.start_unix.store(unix.saturating_sub(u64::from(resumed - Self::ORIGIN)), Relaxed);
        self.born.fetch_add(resumed - now, Relaxed);
        self.refresh();
    }

    /// Seconds since start, as `stats` prints them.
    pub fn uptime(&self) -> Seconds {
        self.now() - self.born.load(Relaxed) + Self::ORIGIN
    }

    /// The unix time of a moment on this clock.
    pub fn unix(&self, moment: Seconds) -> u64 {
        self.start_unix.load(Relaxed) + u64::from(moment) - u64::from(Self::ORIGIN)
    }

    /// A client's exptime as a deadline. Times before the start become 1: past, but not "never".
    pub fn deadline(&self, exptime: Exptime) -> Deadline {
        match exptime.0 {
            0 => Deadline::NEVER,
            e if e < 0 => Deadline(1),
            e if e <= RELATIVE_LIMIT => Deadline(self.now() + e as u32),
            e => {
                let start = self.start_unix.load(Relaxed);
                let since = (e as u64 + u64::from(Self::ORIGIN)).saturating_sub(start);
                Deadline(u32::try_from(since).unwrap_or(u32::MAX).max(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "debug-commands")]
    #[test]
    fn a_paused_clock_moves_only_when_told_to() {
        let c = Clock::system();
        c.debug(DebugTime::Pause);
        let paused = c.refresh();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert_eq!(c.refresh(), paused);
        c.debug(DebugTime::Advance(5));
        assert_eq!(c.refresh(), paused + 5);
        c.debug(DebugTime::Resume);
        assert!(c.refresh() > paused + 5);
    }

    #[test]
    fn exptimes_follow_memcached() {
        let c = Clock::manual(1_700_000_000);
        assert_eq!(c.deadline(Exptime(0)), Deadline::NEVER);
        assert_eq!(c.deadline(Exptime(-1)), Deadline(1));
        assert_eq!(c.deadline(Exptime(10)), Deadline(12));
        assert_eq!(c.deadline(Exptime(1_700_000_005)), Deadline(7));
        assert_eq!(c.deadline(Exptime(1_600_000_000)), Deadline(1));
        assert_eq!(c.deadline(Exptime(i64::from(u32::MAX))), Deadline(2_594_967_297));
        assert_eq!(c.deadline(Exptime(RELATIVE_LIMIT)), Deadline(2 + RELATIVE_LIMIT as u32));
    }

    #[test]
    fn a_clock_goes_on_where_another_was() {
        let was = Clock::manual(1_700_000_000);
        was.advance(100);
        let deadline = was.deadline(Exptime(50));
        let (origin, last) = (was.unix(Clock::ORIGIN), was.now());
        for (unix, now) in [(1_700_000_130, last + 30), (1_600_000_000, last)] {
            let is = Clock::manual(unix);
            is.resume(origin, last);
            assert_eq!((is.now(), is.uptime(), is.unix(is.now())), (now, 2, unix));
            is.advance(20);
            assert_eq!((is.uptime(), is.unix(is.now())), (22, unix + 20));
            assert_eq!(deadline.passed(is.now()), unix == 1_700_000_130);
            assert_eq!(is.deadline(Exptime(unix as i64 + 25)).0, now + 25);
        }
    }

    #[test]
    fn deadlines_pass_on_their_second() {
        let c = Clock::manual(1_700_000_000);
        let d = c.deadline(Exptime(2));
        c.advance(1);
        assert!(!d.passed(c.now()));
        c.advance(1);
        assert!(d.passed(c.now()));
        assert!(!Deadline::NEVER.passed(u32::MAX));
    }
}
