//! Whether memory comes in huge pages or in small ones, by what clients do.
//!
//! Those who fill the cache as fast as they can wait for its memory whichever way it comes, and the
//! quickest way is in huge pages. Where they do other things before all else, those are not to wait
//! for the clearing of huge pages: memory comes small, and is gathered into huge pages afterwards,
//! at once while nobody comes and little by little while somebody does.

use super::Store;
use super::shard::Shard;
use super::types::Local;
use super::upkeep::Pace;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Bytes of fresh memory in a second from which on clients do little else than fill the cache.
const FILLING: u64 = 64 << 20;
/// Between two looks at how much came.
const LOOK: Duration = Duration::from_millis(100);

/// How much memory had come when that was last looked at.
#[derive(Default)]
pub(super) struct Intake(Mutex<Option<(Instant, u64)>>);

impl Intake {
    /// True where the cache is being filled; `None` where nothing came, or it is too early to tell.
    /// `bytes`: all that ever came.
    fn is_filling(&self, now: Instant, bytes: impl FnOnce() -> u64) -> Option<bool> {
        let mut seen = self.0.lock();
        let over = seen.map(|(at, _)| now.saturating_duration_since(at));
        if over.is_some_and(|over| over < LOOK) {
            return None;
        }
        let bytes = bytes();
        let (_, before) = seen.replace((now, bytes))?;
        let came = bytes.checked_sub(before).filter(|came| *came > 0)?;
        Some(came as f64 >= FILLING as f64 * over?.as_secs_f64())
    }
}

impl Store {
    /// Judges anew, where a thread is there to gather what came small. With -L memory is huge.
    pub(super) fn choose_grain(&self, _: &Local) -> Pace {
        let Some(thread) = self.hurrier.get().filter(|_| !self.settings.large_pages) else {
            return Pace::Rest;
        };
        let touched = || self.shards.iter().map(|shard| shard.slabs.bytes_touched()).sum();
        if let Some(filling) = self.intake.is_filling(Instant::now(), touched) {
            for shard in &self.shards {
                shard.slabs.come_small(!filling);
                shard.index.come_small(!filling);
            }
        }
        // All are to note what they have.
        let noted = self.shards.iter().filter(|shard| shard.note_small()).count();
        if noted > 0 {
            thread.unpark();
        }
        Pace::Rest
    }

    /// Makes one huge page of small ones; false where none is due by now. Up to some milliseconds
    /// in one piece, during which nobody else has this processor, nor that memory. Nothing of the
    /// store's is held meanwhile.
    pub fn gather(&self) -> bool {
        let gather = |shard: &Shard| shard.index.gather_memory() || shard.slabs.gather();
        let gathered = self.shards.iter().any(gather);
        if gathered {
            // It notes the next one.
            self.wake_upkeep();
        }
        gathered
    }
}

impl Shard {
    /// True where the index or the arena has noted what can be gathered.
    fn note_small(&self) -> bool {
        let lines = self.index.note_small();
        self.slabs.note_small() || lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_is_more_than_so_much_in_a_second() {
        let (intake, start) = (Intake::default(), Instant::now());
        let looks = [
            (0, 5, None),
            (100, 5, None),
            (199, 90, None),
            (200, 11, Some(false)),
            (300, 17, Some(false)),
            (400, 24, Some(true)),
            (2400, 151, Some(false)),
            (4400, 279, Some(true)),
            (4500, 279, None),
        ];
        for (ms, mib, filling) in looks {
            let now = start + Duration::from_millis(ms);
            assert_eq!(intake.is_filling(now, || mib << 20), filling, "{ms} ms");
        }
    }
}
