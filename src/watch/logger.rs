//! The thread that takes notes out of the rings, in order, and tells watchers.

use super::log::Feed;
use super::watcher::Offered;
use super::{Watch, line};
use ::log::error;
use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::thread::{Builder, JoinHandle, park, park_timeout};
use std::time::Duration;

/// While events come, they are gathered for so long; a ring that fills up ends it sooner.
const GATHER: Duration = Duration::from_millis(1);
/// Longest that one sweep waits for watchers' threads to come for what they were told.
const PATIENCE: Duration = Duration::from_millis(2);

/// The running thread.
pub struct Logger {
    watch: Arc<Watch>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Logger {
    pub fn start(watch: &Arc<Watch>) -> Result<Logger> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, own) = (stop.clone(), watch.clone());
        let thread = Builder::new().name("logger".into()).spawn(move || own.run(&stopped))?;
        let _ = watch.logger.set(thread.thread().clone());
        Ok(Logger { watch: watch.clone(), stop, thread })
    }

    /// Ends the thread after the sweep it is in.
    pub fn stop(self) {
        self.stop.store(true, Relaxed);
        self.watch.rouse_logger();
        if self.thread.join().is_err() {
            error!("the logger thread died");
        }
    }
}

impl Watch {
    fn run(&self, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            if self.sweep() > 0 {
                park_timeout(GATHER);
                continue;
            }
            self.asleep.store(true, Relaxed);
            // Whoever notes something either sees that the logger sleeps, or is seen by this sweep.
            fence(SeqCst);
            if self.sweep() == 0 && !stop.load(Relaxed) {
                park();
            }
            self.asleep.store(false, Relaxed);
        }
    }

    /// Something was noted: the logger is roused if it sleeps, or lets its ring fill up.
    pub(super) fn noted(&self, urgent: bool) {
        fence(SeqCst);
        if urgent || self.asleep.load(Relaxed) && self.asleep.swap(false, Relaxed) {
            self.rouse_logger();
        }
    }

    /// Takes what the rings hold, oldest first, to those who want it; returns how many notes there
    /// were.
    pub(super) fn sweep(&self) -> usize {
        let mut feeds = self.feeds.lock();
        let taps = self.taps();
        let (mut text, mut out, mut patience) = (Vec::new(), Vec::new(), PATIENCE);
        feeds.iter_mut().for_each(Feed::begin);
        let mut notes = 0;
        while let Some(feed) = earliest(&mut feeds) {
            let Some(head) = feed.take(&mut text) else { continue };
            notes += 1;
            let stream = head.event.stream();
            out.clear();
            for tap in taps.iter().filter(|t| t.streams.meets(stream) && head.gid >= t.since) {
                if out.is_empty() {
                    line::put(&mut out, head.gid, head.at, &head.event, &text);
                }
                match tap.offer(&out, &mut patience) {
                    Offered::Sent => self.sent.fetch_add(1, Relaxed),
                    Offered::Skipped => self.skipped.fetch_add(1, Relaxed),
                };
            }
        }
        notes
    }
}

/// The feed whose next note is the oldest.
fn earliest(feeds: &mut [Feed]) -> Option<&mut Feed> {
    let due = feeds.iter_mut().filter_map(|feed| Some((feed.next_gid()?, feed)));
    due.min_by_key(|(gid, _)| *gid).map(|(_, feed)| feed)
}

#[cfg(test)]
mod tests {
    use super::super::{Deleter, Event, Figures, Got, Log, Refused, Streams, Wake, Watcher};
    use super::*;
    use crate::stats::{Buffers, Prefixes, Stats};
    use std::sync::atomic::AtomicU32;
    use std::thread;

    const NEVER: fn() = || ();

    fn wake() -> Wake {
        Arc::new(NEVER)
    }

    /// A log, and what counts for it.
    fn log(watch: &Arc<Watch>) -> (Log, Stats) {
        let stats = Stats::new(1, 0, Prefixes::new(b':', false), Buffers::new(0, 1));
        let log = watch.log(stats.register());
        (log, stats)
    }

    fn note(log: &Log, key: &str) {
        log.attend(1);
        log.got(key.as_bytes(), Got::Found, || (1, 1));
    }

    fn taken(watcher: &Watcher) -> String {
        let mut out = Vec::new();
        watcher.take(&mut out);
        String::from_utf8(out).expect("lines are ASCII")
    }

    /// What the lines' keys are, and other lines whole.
    fn keys(text: &str) -> Vec<&str> {
        let key = |line| str::split_once(line, "key=").map_or(line, |(_, rest)| rest);
        text.lines().map(|line| key(line).split(' ').next().unwrap_or_default()).collect()
    }

    #[test]
    fn notes_of_all_threads_come_in_their_order() {
        let watch = Watch::new(64 << 10, 64 << 10);
        let ((one, stats), (two, _)) = (log(&watch), log(&watch));
        note(&one, "unseen");
        let watcher = watch.add(Streams::FETCHERS, wake()).expect("room");
        for n in 0..6 {
            note(if n % 3 == 0 { &two } else { &one }, &format!("k{n}"));
        }
        assert_eq!(watch.sweep(), 6);
        assert_eq!(keys(&taken(&watcher)), ["k0", "k1", "k2", "k3", "k4", "k5"]);
        assert_eq!(taken(&watcher), "", "lines are taken once");
        assert_eq!(watch.figures(), Figures { skipped: 0, sent: 6, watchers: 1 });
        assert_eq!(stats.thread_sums().log_written, 4);
        drop(watcher);
        note(&one, "unseen");
        assert_eq!((watch.sweep(), watch.figures().watchers), (0, 0));
    }

    #[test]
    fn each_gets_its_streams_from_its_start_on() {
        let watch = Watch::new(64 << 10, 64 << 10);
        let (log, _stats) = log(&watch);
        let gets = watch.add(Streams::FETCHERS, wake()).expect("room");
        note(&log, "early");
        let both = watch.add(Streams::FETCHERS.and(Streams::DELETIONS), wake()).expect("room");
        log.attend(1);
        log.note(Event::Deleted { by: Deleter::Delete, class: 1, size: 1 }, b"gone");
        note(&log, "late");
        watch.sweep();
        assert_eq!(keys(&taken(&gets)), ["early", "late"]);
        assert_eq!(keys(&taken(&both)), ["gone", "late"]);
        assert!(log.wants(Streams::DELETIONS) && !log.wants(Streams::EVICTIONS));
    }

    #[test]
    fn keys_of_every_length_arrive_whole() {
        let watch = Watch::new(64 << 10, 1 << 20);
        let (log, _stats) = log(&watch);
        let watcher = watch.add(Streams::FETCHERS, wake()).expect("room");
        for len in 1..=250 {
            note(&log, &"k".repeat(len));
            watch.sweep();
            assert_eq!(keys(&taken(&watcher)), ["k".repeat(len)]);
        }
    }

    #[test]
    fn a_full_ring_drops_and_counts() {
        let watch = Watch::new(8 << 10, 1 << 20);
        let (log, stats) = log(&watch);
        let watcher = watch.add(Streams::FETCHERS, wake()).expect("room");
        (0..1000).for_each(|n| note(&log, &format!("k{n}")));
        let sums = stats.thread_sums();
        assert!(sums.log_written >= 20 && sums.log_dropped >= 20);
        assert_eq!(sums.log_written + sums.log_dropped, 1000);
        assert_eq!(watch.sweep() as u64, sums.log_written);
        note(&log, "next");
        watch.sweep();
        assert!(taken(&watcher).contains("key=next "));
    }

    #[test]
    fn the_smallest_ring_holds_the_longest_note() {
        let watch = Watch::new(0, 1 << 20);
        let (log, _stats) = log(&watch);
        let watcher = watch.add(Streams::SYSEVENTS, wake()).expect("room");
        log.attend(0);
        log.note(Event::Text(Streams::SYSEVENTS), &[b'x'; 2000]);
        watch.sweep();
        assert_eq!(taken(&watcher).matches('x').count(), 512);
    }

    #[test]
    fn a_slow_watcher_is_told_what_it_missed() {
        let watch = Watch::new(64 << 10, 200);
        let (log, _stats) = log(&watch);
        let slow = watch.add(Streams::FETCHERS, wake()).expect("room");
        slow.block();
        (0..9).for_each(|n| note(&log, &format!("k{n}")));
        watch.sweep();
        assert_eq!(keys(&taken(&slow)), ["k0", "k1"], "as many as fit in 200 bytes");
        note(&log, "k9");
        watch.sweep();
        assert_eq!(keys(&taken(&slow)), ["skipped=7", "k9"]);
        note(&log, "k10");
        watch.sweep();
        assert_eq!(keys(&taken(&slow)), ["k10"]);
        assert_eq!(watch.figures(), Figures { skipped: 7, sent: 4, watchers: 1 });
        watch.reset();
        assert_eq!(watch.figures(), Figures { skipped: 0, sent: 0, watchers: 1 });
    }

    #[test]
    fn every_line_arrives_or_is_counted_as_skipped() {
        let watch = Watch::new(64 << 10, 4 << 10);
        let (log, _stats) = log(&watch);
        let watcher = watch.add(Streams::FETCHERS, wake()).expect("room");
        let taking = thread::spawn(move || {
            let mut lines = String::new();
            while !lines.contains("key=last ") {
                lines += &taken(&watcher);
                thread::yield_now();
            }
            lines
        });
        for n in 0..2000 {
            note(&log, &format!("k{n}"));
            if n % 20 == 0 {
                watch.sweep();
            }
        }
        note(&log, "last");
        while !taking.is_finished() {
            watch.sweep();
            note(&log, "last");
        }
        let lines = taking.join().expect("lines");
        let told: u64 = lines.lines().filter_map(|l| l.strip_prefix("skipped=")).map(count).sum();
        let got = (0..2000).filter(|n| lines.contains(&format!("key=k{n} "))).count() as u64;
        assert!(got + told >= 2000, "{got} lines, {told} skipped");
    }

    fn count(number: &str) -> u64 {
        number.parse().expect("a number")
    }

    #[test]
    fn there_are_twenty_watchers_at_the_most() {
        let watch = Watch::new(0, 64);
        let add = || watch.add(Streams::FETCHERS, wake());
        let mut watchers: Vec<Watcher> = (0..20).map(|_| add().expect("room")).collect();
        assert_eq!(add().err(), Some(Refused::TooMany));
        watchers.pop();
        watchers.push(add().expect("one has left"));
        assert_eq!(watch.figures().watchers, 20);
    }

    #[test]
    fn the_thread_is_roused_by_the_first_note_and_ends() {
        let watch = Watch::new(64 << 10, 64 << 10);
        let (log, _stats) = log(&watch);
        let logger = Logger::start(&watch).expect("a thread");
        let wakes = Arc::new(AtomicU32::new(0));
        let (woken, here) = (wakes.clone(), thread::current());
        let wake = move || {
            woken.fetch_add(1, Relaxed);
            here.unpark();
        };
        let watcher = watch.add(Streams::FETCHERS, Arc::new(wake)).expect("room");
        for round in 1..=50 {
            note(&log, "k");
            while wakes.load(Relaxed) < round {
                thread::park();
            }
            assert_eq!(keys(&taken(&watcher)), ["k"]);
        }
        logger.stop();
    }
}
