//! Which class gives a page to which: a pure function over samples.
//!
//! A class's gain is the number of misses that a little more memory would have saved: keys that
//! were evicted so lately that the shadow (see `ghost`) still knows them. Per page of that shadow
//! it is what the class's last page is worth, to the giver as to the taker. A page moves when the
//! worth of the best, less three standard deviations, beats that of the worst, plus three; gains
//! fade by the request, so that a change of load shows.

use super::ghost::SHADOW_SHARE;
use crate::clock::Seconds;
use std::mem;

#[cfg(test)]
mod tests;

/// Requests from one round to the next.
const ROUND: u64 = 20_000;
/// The same by what is evicted: one in so many of all pages' worth.
const ROUND_EVICTED: f64 = 32.0;
/// What a round's evictions count in the next, whether a class still evicts: one in so many.
const LATELY: u64 = 4;
/// Gets that there are to so many sets, or it counts as if nobody read.
const READ_FROM: u64 = 10;
/// Pages that one round may move: one in so many. Each round that moved all of them from one class
/// to one other doubles what the next may, so many times.
const ROUND_SHARE: u64 = 100;
const DOUBLED_MAX: u32 = 3;
/// What is left of a gain after so many requests.
const FADE: f64 = 0.95;
/// Gains per page that the winner must be ahead by, beside the ratio.
const MARGIN: f64 = 0.01;
/// Gains in a class before the share of its probation is judged, and by how much that changes.
const GAINS_TO_JUDGE: f64 = 32.0;
const STEP: f64 = 1.1;
/// What a gain of probation counts for in that: a key that it lost too early comes back into the
/// main part, where it costs no second miss. Found by replaying traces.
const PROBATION_WORTH: f64 = 0.5;
const SHARE_MIN: u32 = 20;
const SHARE_MAX: u32 = 600;
/// Standard deviations of doubt.
const DOUBT: f64 = 3.0;
/// Pages that a class needs to give one.
const PAGES_TO_GIVE: u64 = 2;
/// Free chunks, in pages, from which a class has some to spare; memcached's number.
const SPARE_PAGES: f64 = 2.5;

/// A class as it is now. Counts run on from the start; they may wrap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub pages: u64,
    pub free_chunks: u64,
    pub chunks_per_page: u64,
    /// Of probation and main: misses saved by a little more memory, and how many of them may be
    /// false.
    pub gains: [(u32, u32); 2],
    /// Probation's share of the chunks, in thousandths.
    pub probation: u32,
    /// The class is one queue, so that nothing depends on that share.
    pub whole: bool,
    pub evicted: u64,
}

/// Requests served since the start; they may wrap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    pub gets: u64,
    pub sets: u64,
}

/// What an operator may set.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// A page moves from a class only to one that gains more than its gain divided by this.
    pub ratio: f64,
    /// Seconds without evictions after which a class gives up what it has too much of.
    pub window: Seconds,
    /// A page to whichever class evicts: `slabs automove 2`.
    pub eager: bool,
}

/// How much of -m is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Pages that were never used.
    Fresh,
    /// Only pages that classes gave back.
    Touched,
    /// None.
    Full,
}

/// A page is to move: indices of the samples; `to` is `None` for the pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    pub from: usize,
    pub to: Option<usize>,
    pub why: Why,
}

/// Figures that a decision rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// Free chunks of the giver, in pages.
    Spare(f64),
    /// Gain per page of the giver and of the taker.
    Gain { from: f64, to: f64 },
    /// Nobody reads. Of their chunks, giver and taker evicted this share of late.
    Turnover { from: f64, to: f64 },
    /// The taker evicted so many items since the last look.
    Evictions(u64),
    /// -m was lowered, or more is charged to it.
    OverLimit,
}

/// How a class stands, for `stats automover`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Worth {
    pub pages: u64,
    /// Misses of late that a page more would have saved, and what they may be wrong by.
    pub gain: f64,
    pub doubt: f64,
    /// Probation's share of the chunks, in thousandths.
    pub probation: u32,
}

/// What is kept of each class between samples.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    /// Of both parts, fading.
    gain: f64,
    /// Of probation and of main, since the share was last changed.
    parts: [f64; 2],
    last: Sample,
    /// Evictions between the last two samples, since the round began, in the last few rounds, and
    /// of late, fading.
    evicting: u64,
    round_evicted: u64,
    lately_evicted: u64,
    turned: f64,
    /// Since when it has neither evicted nor grown.
    quiet_since: Seconds,
}

/// The policy's memory.
#[derive(Debug, Default)]
pub struct Automove {
    tracks: Vec<Track>,
    /// Requests at the start of the last round, and those of the round before it.
    round_at: Load,
    round: Load,
    /// Pages' worth of items evicted since then.
    round_evicted: f64,
    /// Pages that this round may still move.
    round_left: u64,
    /// Giver and taker of the last page, and the rounds in a row whose pages were all theirs.
    pair: Option<(usize, usize)>,
    used_up: u32,
}

impl Automove {
    /// Takes in how the classes stand.
    pub fn observe(&mut self, samples: &[Sample], now: Seconds) {
        if self.tracks.len() != samples.len() {
            let fresh = |s: &Sample| Track { last: *s, quiet_since: now, ..Track::default() };
            self.tracks = samples.iter().map(fresh).collect();
        }
        for (track, sample) in self.tracks.iter_mut().zip(samples) {
            for (part, (was, is)) in track.last.gains.into_iter().zip(sample.gains).enumerate() {
                let falsely = f64::from(is.1.wrapping_sub(was.1));
                let gained = f64::from(is.0.wrapping_sub(was.0)) - falsely;
                track.gain = (track.gain + gained).max(0.0);
                track.parts[part] = (track.parts[part] + gained).max(0.0);
            }
            track.evicting = sample.evicted.wrapping_sub(track.last.evicted);
            track.round_evicted += track.evicting;
            track.turned += track.evicting as f64;
            let per_page = sample.chunks_per_page.max(1) as f64;
            self.round_evicted += track.evicting as f64 / per_page;
            if track.evicting > 0 || sample.pages > track.last.pages {
                track.quiet_since = now;
            }
            track.last = *sample;
        }
    }

    /// The next page to move, if any.
    pub fn decide(
        &mut self,
        load: Load,
        memory: Memory,
        now: Seconds,
        terms: Terms,
    ) -> Option<Decision> {
        if memory == Memory::Fresh {
            return None;
        }
        if let Some(decision) = self.spare(now, terms) {
            return Some(decision);
        }
        if memory == Memory::Touched {
            return None;
        }
        if terms.eager
            && let Some(decision) = self.to_evicting()
        {
            return Some(decision);
        }
        self.begin_round(load);
        if self.round_left == 0 {
            return None;
        }
        self.round_left -= 1;
        let unread = self.round.gets < self.round.sets / READ_FROM;
        let decision = if unread { self.by_turnover(terms) } else { self.by_gain(terms) };
        let pair = decision.and_then(|d| Some((d.from, d.to?)));
        if pair.is_none() || pair != self.pair {
            self.used_up = 0;
        } else if self.round_left == 0 {
            self.used_up += 1;
        }
        self.pair = pair;
        if decision.is_none() || self.round_left == 0 {
            self.round_left = 0;
            let asked = (self.round.gets + self.round.sets) as f64;
            let fade = FADE.powf(asked / ROUND as f64);
            for track in &mut self.tracks {
                track.gain *= fade;
                track.turned *= fade;
            }
        }
        decision
    }

    /// Starts a round where enough was asked since the last.
    fn begin_round(&mut self, load: Load) {
        let gets = load.gets.wrapping_sub(self.round_at.gets);
        let sets = load.sets.wrapping_sub(self.round_at.sets);
        let pages: u64 = self.tracks.iter().map(|t| t.last.pages).sum();
        let evicted = self.round_evicted * ROUND_EVICTED > pages as f64;
        if gets + sets >= ROUND || evicted {
            self.round_at = load;
            self.round_evicted = 0.0;
            self.round = Load { gets, sets };
            self.round_left = ((pages / ROUND_SHARE) << self.used_up.min(DOUBLED_MAX)).max(1);
            for track in &mut self.tracks {
                let before = track.lately_evicted / LATELY;
                track.lately_evicted = before + mem::take(&mut track.round_evicted);
            }
        }
    }

    /// Classes whose probation should have another share of the chunks, in thousandths: the part
    /// that would have gained more by a little more room gets it.
    pub fn shares(&mut self) -> Vec<(usize, u32)> {
        let mut changed = Vec::new();
        for (n, track) in self.tracks.iter_mut().enumerate() {
            let [probation, main] = [track.parts[0] * PROBATION_WORTH, track.parts[1]];
            let doubt = DOUBT * (probation + main).sqrt();
            if track.last.whole {
                track.parts = [0.0; 2];
                continue;
            }
            if (probation - main).abs() <= doubt || probation + main < GAINS_TO_JUDGE {
                continue;
            }
            let step = if probation > main { STEP } else { 1.0 / STEP };
            let share = (f64::from(track.last.probation) * step) as u32;
            changed.push((n, share.clamp(SHARE_MIN, SHARE_MAX)));
            track.parts = [0.0; 2];
        }
        changed
    }

    /// Every class as it was last seen.
    pub fn worths(&self) -> impl Iterator<Item = Worth> {
        self.tracks.iter().map(|track| match track.last.pages {
            0 => Worth { probation: track.last.probation, ..Worth::default() },
            pages => Worth {
                pages,
                gain: track.worth(),
                doubt: track.doubt(),
                probation: track.last.probation,
            },
        })
    }

    /// The class whose pages are worth least, of those that have one to give.
    pub fn poorest(&self, but: Option<usize>) -> Option<usize> {
        let givers = (0..self.tracks.len()).filter(|n| Some(*n) != but && self.can_give(*n));
        givers.min_by(|a, b| self.tracks[*a].at_most().total_cmp(&self.tracks[*b].at_most()))
    }

    /// The class with the most free pages, or the poorest where none has any, of those with at
    /// least so many pages.
    pub fn fullest(&self, least: u64) -> Option<usize> {
        let largest = || self.largest().filter(|n| self.tracks[*n].last.pages >= least);
        self.freest(least).or_else(|| self.poorest(None)).or_else(largest)
    }

    /// The class with the most free pages, of those that have a page's worth of free chunks, and
    /// at least so many pages.
    pub fn freest(&self, least: u64) -> Option<usize> {
        let free = |n: &usize| self.tracks[*n].free_pages();
        let givers = (0..self.tracks.len()).filter(|n| self.tracks[*n].last.pages >= least);
        let freest = givers.max_by(|a, b| free(a).total_cmp(&free(b)))?;
        (free(&freest) >= 1.0).then_some(freest)
    }

    fn largest(&self) -> Option<usize> {
        let has_some = (0..self.tracks.len()).filter(|n| self.tracks[*n].last.pages > 0);
        has_some.max_by_key(|n| self.tracks[*n].last.pages)
    }

    fn can_give(&self, n: usize) -> bool {
        self.tracks[n].last.pages >= PAGES_TO_GIVE
    }

    /// A class that has had more free chunks than it needs for a while.
    fn spare(&self, now: Seconds, terms: Terms) -> Option<Decision> {
        (0..self.tracks.len()).filter(|n| self.can_give(*n)).find_map(|from| {
            let track = &self.tracks[from];
            let pages = track.free_pages();
            let quiet = now.saturating_sub(track.quiet_since) >= terms.window;
            let spare = quiet && pages > SPARE_PAGES;
            spare.then_some(Decision { from, to: None, why: Why::Spare(pages) })
        })
    }

    fn to_evicting(&self) -> Option<Decision> {
        let to = (0..self.tracks.len()).max_by_key(|n| self.tracks[*n].evicting)?;
        let evicted = self.tracks[to].evicting;
        let from = self.poorest(Some(to)).filter(|_| evicted > 0)?;
        Some(Decision { from, to: Some(to), why: Why::Evictions(evicted) })
    }

    /// Where nobody reads, nothing is known of what a page is worth: then every class is to hold on
    /// to its items for as long as the others, which is what memcached's automover wants. Both are
    /// judged as they would be after the move: what would only trade places stays.
    fn by_turnover(&self, terms: Terms) -> Option<Decision> {
        let of = |n: &usize| &self.tracks[*n];
        let slowest = |n: &usize| of(n).turnover(of(n).last.pages + 1).0;
        let fastest = |n: &usize| of(n).turnover(of(n).last.pages - 1).1;
        let takers = (0..self.tracks.len()).filter(|n| of(n).last.pages > 0);
        let to = takers.max_by(|a, b| slowest(a).total_cmp(&slowest(b)))?;
        let givers = (0..self.tracks.len()).filter(|n| *n != to && self.can_give(*n));
        let from = givers.min_by(|a, b| fastest(a).total_cmp(&fastest(b)))?;
        let middle = |n: &usize| {
            let (low, high) = of(n).turnover(of(n).last.pages);
            (low + high) / 2.0
        };
        let why = Why::Turnover { from: middle(&from), to: middle(&to) };
        let wins = slowest(&to) > fastest(&from) / terms.ratio.max(0.01);
        wins.then_some(Decision { from, to: Some(to), why })
    }

    /// A class that evicts nothing would have nothing to put on a page, whatever it gains.
    fn by_gain(&self, terms: Terms) -> Option<Decision> {
        let worth = |n: &usize| self.tracks[*n].at_least();
        let short = |t: &Track| t.last.pages > 0 && t.lately_evicted > 0;
        let takers = (0..self.tracks.len()).filter(|n| short(&self.tracks[*n]));
        let to = takers.max_by(|a, b| worth(a).total_cmp(&worth(b)))?;
        let from = self.poorest(Some(to))?;
        let (giver, taker) = (&self.tracks[from], &self.tracks[to]);
        let wins = taker.at_least() > giver.at_most() / terms.ratio.max(0.01) + MARGIN;
        let why = Why::Gain { from: giver.worth(), to: taker.worth() };
        wins.then_some(Decision { from, to: Some(to), why })
    }
}

impl Track {
    fn shadow_pages(&self) -> f64 {
        (self.last.pages as f64 * SHADOW_SHARE).max(f64::MIN_POSITIVE)
    }

    /// Misses that a page more would have saved.
    fn worth(&self) -> f64 {
        self.gain / self.shadow_pages()
    }

    fn doubt(&self) -> f64 {
        DOUBT * (self.gain + 1.0).sqrt() / self.shadow_pages()
    }

    fn at_least(&self) -> f64 {
        self.worth() - self.doubt()
    }

    fn at_most(&self) -> f64 {
        self.worth() + self.doubt()
    }

    /// The share of its chunks that it would have evicted of late with so many pages: bounds of it.
    fn turnover(&self, pages: u64) -> (f64, f64) {
        let chunks = (pages * self.last.chunks_per_page).max(1) as f64;
        let doubt = DOUBT * (self.turned + 1.0).sqrt();
        ((self.turned - doubt) / chunks, (self.turned + doubt) / chunks)
    }

    fn free_pages(&self) -> f64 {
        self.last.free_chunks as f64 / self.last.chunks_per_page.max(1) as f64
    }
}
