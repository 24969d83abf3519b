//! `stats automover`: why pages moved between slab classes, and what the next decision rests on.
//! A topic of our own.

use super::{Rows, StatLines};
use crate::clock::Clock;
use crate::store::{GhostInfo, LongWaits, Moved, Store, Why, Worth};
use std::fmt::Display;
use std::sync::atomic::Ordering::Relaxed;

/// Gathered.
struct Automover<'a> {
    clock: &'a Clock,
    ghost: GhostInfo,
    /// Gets that missed since the start.
    misses: u64,
    /// Of the background thread: its longest tick in microseconds, how many were too long, and
    /// the longest by the clock.
    upkeep: [u64; 3],
    /// The waits for a lock that were too long: those of requests, and those of the upkeep.
    waits: [LongWaits; 2],
    /// From class 1 on.
    worths: &'a [Worth],
    /// Oldest first.
    moves: &'a [Moved],
}

pub(super) fn of(store: &Store) -> StatLines {
    let upkeep = &store.stats().server.upkeep;
    format(&Automover {
        clock: store.clock(),
        ghost: store.ghost_info(),
        misses: store.stats().raw_misses(),
        upkeep: [&upkeep.longest_us, &upkeep.long, &upkeep.longest_wall_us]
            .map(|figure| figure.load(Relaxed)),
        waits: store.long_waits(),
        worths: &store.class_worths(),
        moves: &store.moves(),
    })
}

fn format(a: &Automover<'_>) -> StatLines {
    let mut rows = Rows::default();
    let [of_requests, of_upkeep] = a.waits;
    rows.put_all([
        ("ghost_lines", a.ghost.lines),
        ("ghost_bytes", a.ghost.bytes),
        ("ghost_lookups", a.misses),
        ("ghost_gains", a.ghost.gains),
        ("ghost_false_gains", a.ghost.false_gains),
        ("upkeep_longest_us", a.upkeep[0]),
        ("upkeep_over_500us", a.upkeep[1]),
        ("upkeep_longest_wall_us", a.upkeep[2]),
        ("upkeep_lock_wait_longest_us", of_upkeep.longest_us),
        ("upkeep_lock_waits_over_500us", of_upkeep.count),
        ("lock_wait_longest_us", of_requests.longest_us),
        ("lock_waits_over_500us", of_requests.count),
    ]);
    for (id, worth) in (1..).zip(a.worths).filter(|(_, worth)| worth.pages > 0) {
        class(&mut rows, id, worth);
    }
    // The latest move is number 1.
    for (n, moved) in (1..).zip(a.moves.iter().rev()) {
        page_move(&mut rows, n, moved, a.clock);
    }
    rows.end()
}

fn class(rows: &mut Rows, id: u32, worth: &Worth) {
    let mut put = |name: &str, value: &dyn Display| rows.put(format_args!("{id}:{name}"), value);
    put("pages", &worth.pages);
    put("gain", &hundredths(worth.gain));
    put("doubt", &hundredths(worth.doubt));
    put("hot_pct", &format_args!("{:.1}", f64::from(worth.probation) / 10.0));
}

fn page_move(rows: &mut Rows, n: u32, moved: &Moved, clock: &Clock) {
    let mut put =
        |name: &str, value: &dyn Display| rows.put(format_args!("move:{n}:{name}"), value);
    put("time", &clock.unix(moved.at));
    put("from", &moved.from);
    put("to", &moved.to);
    put("done", &u8::from(moved.done));
    put("rescues", &moved.rescues);
    match moved.why {
        None => put("why", &"asked"),
        Some(Why::OverLimit) => put("why", &"limit"),
        Some(Why::Spare(pages)) => {
            put("why", &"spare");
            put("spare_pages", &hundredths(pages));
        }
        Some(Why::Evictions(evicted)) => {
            put("why", &"evictions");
            put("evicted", &evicted);
        }
        Some(Why::Turnover { from, to }) => {
            put("why", &"turnover");
            put("from_turnover", &hundredths(from));
            put("to_turnover", &hundredths(to));
        }
        Some(Why::Gain { from, to }) => {
            put("why", &"gain");
            put("from_gain", &hundredths(from));
            put("to_gain", &hundredths(to));
        }
    }
}

fn hundredths(value: f64) -> impl Display {
    format!("{value:.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(worths: &[Worth], moves: &[Moved]) -> Vec<String> {
        let ghost = GhostInfo { lines: 2, bytes: 128, gains: 9, false_gains: 1 };
        let clock = &Clock::manual(1_700_000_000);
        let waits = [(600, 1), (0, 0)];
        let waits = waits.map(|(longest_us, count)| LongWaits { longest_us, count });
        let upkeep = [77, 0, 90];
        let given = Automover { clock, ghost, misses: 50, upkeep, waits, worths, moves };
        let StatLines::Pairs(pairs) = format(&given) else { panic!("not pairs") };
        pairs.into_iter().map(|(name, value)| format!("{name} {value}")).collect()
    }

    fn moved(why: Option<Why>) -> Moved {
        Moved { at: Clock::ORIGIN + 5, from: 3, to: 4, why, rescues: 6, done: true }
    }

    #[test]
    fn classes_with_pages_show_what_one_more_is_worth() {
        let worth = Worth { pages: 12, gain: 1.234, doubt: 0.5, probation: 105 };
        assert_eq!(
            lines(&[Worth::default(), worth], &[]),
            [
                "ghost_lines 2",
                "ghost_bytes 128",
                "ghost_lookups 50",
                "ghost_gains 9",
                "ghost_false_gains 1",
                "upkeep_longest_us 77",
                "upkeep_over_500us 0",
                "upkeep_longest_wall_us 90",
                "upkeep_lock_wait_longest_us 0",
                "upkeep_lock_waits_over_500us 0",
                "lock_wait_longest_us 600",
                "lock_waits_over_500us 1",
                "2:pages 12",
                "2:gain 1.23",
                "2:doubt 0.50",
                "2:hot_pct 10.5",
            ]
        );
    }

    #[test]
    fn moves_are_told_with_their_reasons_the_latest_first() {
        let by_gain = moved(Some(Why::Gain { from: 0.1, to: 2.0 }));
        let failed = Moved { to: 0, done: false, ..moved(Some(Why::Spare(3.25))) };
        assert_eq!(
            lines(&[], &[by_gain, failed])[12..],
            [
                "move:1:time 1700000005",
                "move:1:from 3",
                "move:1:to 0",
                "move:1:done 0",
                "move:1:rescues 6",
                "move:1:why spare",
                "move:1:spare_pages 3.25",
                "move:2:time 1700000005",
                "move:2:from 3",
                "move:2:to 4",
                "move:2:done 1",
                "move:2:rescues 6",
                "move:2:why gain",
                "move:2:from_gain 0.10",
                "move:2:to_gain 2.00",
            ]
        );
    }

    #[test]
    fn whoever_asked_for_a_move_is_named() {
        let reasons = [None, Some(Why::OverLimit), Some(Why::Evictions(7))];
        let moves: Vec<Moved> = reasons.into_iter().map(moved).collect();
        let lines = lines(&[], &moves);
        for line in ["move:1:why evictions", "move:1:evicted 7", "move:2:why limit"] {
            assert!(lines.iter().any(|l| l == line), "{line} in {lines:?}");
        }
        assert!(lines.ends_with(&["move:3:why asked".into()]));
    }
}
