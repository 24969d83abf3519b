//! How long to work and how long to rest: pure functions of what was seen.

use crate::store::Pace;
use std::time::Duration;

/// Work between two looks at the clients while none came. Short, for it is what the first that
/// comes may have to wait where it needs the same processor.
const QUANTUM_IDLE: Duration = Duration::from_micros(250);
/// The same while they come.
const QUANTUM_BUSY: Duration = Duration::from_micros(50);
/// Rest where there is nothing to do.
const REST: Duration = Duration::from_millis(20);
/// The clock is never further behind than this.
const REST_MAX: Duration = Duration::from_millis(100);
/// Per cent of one core for what somebody waits for, also while clients are busy.
const URGENT_PCT: u32 = 50;
/// The same for what somebody would wait for later: it slows requests down by a fifth, not to half.
const SOON_PCT: u32 = 20;

/// Work waits so long while a huge page is made: a little more than that takes.
pub(super) const TURN: Duration = Duration::from_millis(10);
/// Between two looks at whether small pages may be gathered.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// Of a busy processor's time one part in so many: that many requests may have to wait for it.
const GATHERING_SHARE: u32 = 10_000;

/// The server is idle once no client has come for so long: those that wait for one another's
/// answers leave gaps of some hundred microseconds.
const QUIET: Duration = Duration::from_millis(5);

/// Whether clients keep the server busy.
#[derive(Default)]
pub(super) struct Watch {
    traffic: u64,
    /// When it was last seen to change.
    changed: Duration,
}

impl Watch {
    /// True while the server is busy. `traffic`: a number that every client changes; `now`: time
    /// since the start.
    pub(super) fn is_busy(&mut self, traffic: u64, now: Duration) -> bool {
        if traffic != self.traffic {
            *self = Watch { traffic, changed: now };
        }
        now.saturating_sub(self.changed) < QUIET
    }
}

/// How long to work before looking at the clients again.
pub(super) fn quantum(busy: bool) -> Duration {
    if busy { QUANTUM_BUSY } else { QUANTUM_IDLE }
}

/// How long to rest after having worked for `worked`, with `pace` telling what is left. `busy`:
/// as [`Watch::is_busy`] says. `share`: per cent of one core for background work beside
/// busy clients, 1 to 100.
pub(super) fn rest(pace: Pace, worked: Duration, busy: bool, share: u32) -> Duration {
    let share = match pace {
        Pace::Rest => return REST,
        _ if !busy => return Duration::ZERO,
        Pace::Spare => share,
        Pace::Soon => share.max(SOON_PCT),
        Pace::Urgent => share.max(URGENT_PCT),
    };
    let share = share.clamp(1, 100);
    (worked * (100 - share) / share).min(REST_MAX)
}

/// Whether small pages may be gathered: while clients are busy, when it is `due`, else when the
/// other background work `rests`, which has to wait meanwhile.
pub(super) fn may_gather(busy: bool, rests: bool, due: bool) -> bool {
    if busy { due } else { rests }
}

/// How long to rest after having gathered for `worked` while clients are busy.
pub(super) fn rest_from_gathering(worked: Duration) -> Duration {
    worked * (GATHERING_SHARE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(100);

    #[test]
    fn the_server_is_idle_some_time_after_the_last_client() {
        let ms = Duration::from_millis;
        let mut watch = Watch::default();
        let looks = [(0, 9), (7, 10), (7, 12), (8, 14), (8, 18), (8, 19), (8, 90), (9, 91)];
        let busy = looks.map(|(traffic, at)| watch.is_busy(traffic, ms(at)));
        assert_eq!(busy, [false, true, true, true, true, false, false, true]);
    }

    #[test]
    fn with_nothing_to_do_it_rests() {
        for busy in [false, true] {
            assert_eq!(rest(Pace::Rest, STEP, busy, 5), REST);
        }
    }

    #[test]
    fn while_idle_it_works_on() {
        for pace in [Pace::Spare, Pace::Soon, Pace::Urgent] {
            assert_eq!(rest(pace, STEP, false, 1), Duration::ZERO);
        }
    }

    #[test]
    fn while_busy_it_keeps_to_its_share() {
        for share in [1, 5, 10, 33, 50, 99, 100] {
            let rest = rest(Pace::Spare, STEP, true, share);
            let used = STEP.as_secs_f64() * 100.0 / (STEP + rest).as_secs_f64();
            assert!((used - f64::from(share)).abs() < 0.1, "{used} of {share}");
        }
    }

    #[test]
    fn what_somebody_waits_for_gets_more() {
        assert_eq!(rest(Pace::Soon, STEP, true, 5), STEP * 4, "a fifth of a core");
        assert_eq!(rest(Pace::Urgent, STEP, true, 5), STEP, "half a core");
        for pace in [Pace::Soon, Pace::Urgent] {
            assert_eq!(rest(pace, STEP, true, 80), STEP / 4, "no less than others would");
        }
    }

    #[test]
    fn a_step_that_took_long_does_not_stop_the_clock() {
        assert_eq!(rest(Pace::Spare, Duration::from_secs(9), true, 1), REST_MAX);
    }

    #[test]
    fn it_looks_at_busy_clients_more_often() {
        assert!(quantum(true) < quantum(false) && quantum(false) <= Duration::from_micros(250));
    }

    #[test]
    fn small_pages_are_gathered_when_nothing_else_is_to_be_done_or_seldom() {
        for (rests, due) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(may_gather(true, rests, due), due);
            assert_eq!(may_gather(false, rests, due), rests);
        }
        let worked = Duration::from_millis(2);
        assert_eq!(worked + rest_from_gathering(worked), Duration::from_secs(20));
    }
}
