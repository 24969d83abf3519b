//! How long a tick of background work may go on, and where the next one begins.

use super::upkeep::{JOBS, Pace};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Who has worked for so long ends with what is under way. That is several times what a step takes,
/// so it is reached only where memory is slow or several jobs have work: many short turns cost
/// requests more than few longer ones, as each begins by taking a processor from somebody.
const LONG: Duration = Duration::from_micros(200);

/// The ticks of one thread.
#[derive(Default)]
pub(super) struct Tick {
    /// They are bounded by time, and not by what a step does alone.
    timed: Cell<bool>,
    /// When the one that is on has worked for long.
    until: Cell<Option<Instant>>,
    /// The job whose turn it is.
    next: Cell<usize>,
    /// What each said when it had its turn last.
    paces: [Cell<Pace>; JOBS.len()],
}

impl Tick {
    /// Has the ticks from now on end when they have worked for long.
    pub fn bound_by_time(&self) {
        self.timed.set(true);
    }

    /// True where the tick that is on has worked for long.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.until.get().is_some_and(|until| Instant::now() >= until)
    }

    /// One tick: each job has its turn, from the one on that the last tick did not come to, unless
    /// the tick is over before. Returns what is left to do.
    pub fn run(&self, job: impl Fn(usize) -> Pace) -> Pace {
        self.until.set(self.timed.get().then(|| Instant::now() + LONG));
        for _ in 0..JOBS.len() {
            let at = self.next.get();
            self.next.set((at + 1) % JOBS.len());
            let pace = job(at);
            self.paces[at].set(pace);
            if pace != Pace::Rest && self.is_over() {
                break;
            }
        }
        self.until.set(None);
        self.paces.iter().map(Cell::get).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Which jobs had their turn in each of two ticks, where every one of them takes `took`, and
    /// what was left after the first, where one job is urgent.
    fn two(tick: &Tick, took: Duration, urgent: usize) -> ([Vec<usize>; 2], Pace) {
        let had = RefCell::new(Vec::new());
        let job = |at: usize| {
            had.borrow_mut().push(at);
            std::thread::sleep(took);
            if at == urgent { Pace::Urgent } else { Pace::Spare }
        };
        let left = tick.run(job);
        let first = had.take();
        tick.run(job);
        ([first, had.take()], left)
    }

    #[test]
    fn in_a_tick_each_job_has_its_turn() {
        let all: Vec<usize> = (0..JOBS.len()).collect();
        let wanted = ([all.clone(), all], Pace::Urgent);
        assert_eq!(two(&Tick::default(), LONG, 3), wanted);
    }

    #[test]
    fn a_tick_that_takes_long_leaves_jobs_to_the_next() {
        let tick = Tick::default();
        tick.bound_by_time();
        assert_eq!(two(&tick, LONG, 0), ([vec![0], vec![1]], Pace::Urgent));
        // What was urgent stays so until it says otherwise.
        assert_eq!(two(&tick, LONG, 2), ([vec![2], vec![3]], Pace::Urgent));
        assert_eq!(tick.run(|_| Pace::Rest), Pace::Rest);
    }

    #[test]
    fn jobs_with_nothing_to_do_all_have_their_turn() {
        let tick = Tick::default();
        tick.bound_by_time();
        let turns = Cell::new(0);
        tick.run(|_| {
            turns.set(turns.get() + 1);
            std::thread::sleep(LONG);
            Pace::Rest
        });
        assert_eq!(turns.get(), JOBS.len());
    }
}
