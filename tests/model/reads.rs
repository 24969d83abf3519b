//! Reads, changes and what they must answer.

use super::*;

impl Bench {
    pub(super) fn get(
        &mut self,
        bytes: &[u8],
        [bump, meta, pin]: [bool; 3],
        unless: Option<Compare>,
    ) {
        let known = self.known(bytes);
        let unless_cas = self.resolve(unless, known.as_ref());
        let get = Get { bump, unless_cas, meta, ..Get::of(key(bytes)) };
        let mut seen = None;
        let hit = self.store.get(self.local(), &get, self.hash(bytes), |hit| {
            seen = Some(see(&hit, pin));
        });
        assert_eq!(hit, known.is_some());
        let (Some(mut entry), Some(seen)) = (known, seen) else { return };
        assert_eq!(seen.unchanged, unless_cas.is_some() && unless_cas == entry.cas);
        self.compare(&entry, &seen);
        assert_eq!(seen.ttl, self.reference.ttl(entry.deadline));
        assert_eq!(seen.won, meta && entry.stale && !entry.win);
        entry.win |= seen.won;
        self.keep_pin(seen);
        let unique = Unique::Is(entry.cas);
        self.learn(bytes, entry, unique);
    }

    fn compare(&self, entry: &Entry, seen: &Seen) {
        let was = &seen.entry;
        assert!(was.value == entry.value, "value of {} bytes", entry.value.len());
        assert_eq!((was.flags, was.stale, was.win), (entry.flags, entry.stale, entry.win));
        assert_eq!(was.cas.unwrap_or(0), entry.cas.unwrap_or(0));
    }

    fn keep_pin(&mut self, seen: Seen) {
        if let Some(pin) = seen.pin.filter(|_| self.pins.len() < OPEN_MAX) {
            self.pins.push((pin, seen.entry.value));
        }
    }

    pub(super) fn fetch(&mut self, op: &FetchOp) {
        let bytes = key_of(op.key);
        let known = self.known(&bytes);
        let fetch = Fetch {
            cas: op.cas,
            touch: op.touch.map(Exptime),
            touch_first: op.touch_first,
            vivify: op.vivify.map(Exptime),
            recache: op.recache.map(Exptime),
            new_cas: op.new_cas,
            ..Fetch::of(Get { meta: true, ..Get::of(key(&bytes)) })
        };
        let mut seen = None;
        let outcome = self.store.fetch(self.local(), &fetch, self.hash(&bytes), |hit| {
            seen = Some(see(&hit, op.pin));
        });
        assert!(known.is_some() || op.vivify.is_some() || outcome == FetchOutcome::Miss);
        if outcome == FetchOutcome::NoMemory {
            self.excuse();
            return assert!(self.known(&bytes).is_some(), "it stays as it was");
        }
        let Some(seen) = seen.filter(|_| outcome == FetchOutcome::Hit) else {
            if op.vivify.is_some() {
                self.excuse();
            }
            assert!(known.is_none());
            return assert!(self.known(&bytes).is_none());
        };
        self.judge_fetch(op, &bytes, known, seen);
    }

    fn judge_fetch(&mut self, op: &FetchOp, bytes: &[u8], known: Option<Entry>, seen: Seen) {
        let created = known.is_none();
        let vivify = op.vivify.map_or(0, |e| self.deadline(e));
        let mut entry = known.unwrap_or(Entry { deadline: vivify, ..Entry::default() });
        let before = entry.deadline;
        // What is created has the exptime of `vivify`.
        let touch = op.touch.filter(|_| !created);
        entry.deadline = touch.map_or(before, |e| self.deadline(e));
        assert_eq!(seen.ttl_before, self.reference.ttl(before));
        assert_eq!(seen.ttl, self.reference.ttl(entry.deadline));
        let judged = if op.touch_first { entry.deadline } else { before };
        let due = op.recache.is_some_and(|r| judged != 0 && judged < self.deadline(r));
        assert_eq!(seen.won, created || (!entry.win && (due || entry.stale)));
        let unique = if created {
            self.unique_of(op.new_cas, op.cas, seen.entry.cas)
        } else {
            let fresh = op.cas && self.use_cas && entry.cas.is_none();
            if fresh { Unique::Fresh(seen.entry.cas) } else { Unique::Is(entry.cas) }
        };
        entry.cas = seen.entry.cas;
        self.compare(&entry, &seen);
        entry.win |= seen.won;
        self.keep_pin(seen);
        self.learn(bytes, entry, unique);
    }

    // Changes

    pub(super) fn delete(&mut self, op: &DeleteOp) {
        let bytes = key_of(op.key);
        let known = self.known(&bytes);
        let compare_cas = self.resolve(op.compare, known.as_ref());
        let delete = Delete {
            compare_cas,
            invalidate: op.invalidate,
            touch: op.touch.map(Exptime),
            drop_value: op.drop_value,
            client_flags: op.flags,
            new_cas: op.new_cas,
            ..Delete::of(key(&bytes))
        };
        let outcome = self.store.delete(self.local(), &delete, self.hash(&bytes));
        let Some(mut entry) = known else { return assert_eq!(outcome, DeleteOutcome::NotFound) };
        if compare_cas.is_some_and(|cas| !entry.matches(cas)) {
            return assert_eq!(outcome, DeleteOutcome::Exists);
        }
        if outcome == DeleteOutcome::NoMemory {
            self.excuse();
            return assert!(self.known(&bytes).is_some(), "it stays as it was");
        }
        assert_eq!(outcome, DeleteOutcome::Deleted);
        let mut unique = Unique::Is(entry.cas);
        if op.drop_value {
            let deadline = op.touch.map_or(0, |e| self.deadline(e));
            let cas = op.new_cas.filter(|_| self.use_cas).or(entry.cas);
            entry = Entry { flags: op.flags, deadline, cas, ..Entry::default() };
            unique = Unique::Is(cas);
        } else if !op.invalidate {
            self.reference.entries.remove(&bytes);
            return assert!(self.known(&bytes).is_none());
        }
        if op.invalidate {
            entry.deadline = op.touch.map_or(entry.deadline, |e| self.deadline(e));
            (entry.stale, entry.win) = (true, false);
            unique = self.unique_of(op.new_cas, entry.cas.is_some(), None);
        }
        self.learn(&bytes, entry, unique);
    }

    pub(super) fn touch(&mut self, bytes: &[u8], exptime: i64) {
        let known = self.known(bytes);
        let touch = Touch { key: key(bytes), exptime: Exptime(exptime) };
        let touched = self.store.touch(self.local(), &touch, self.hash(bytes));
        let Some(mut entry) = known else { return assert_eq!(touched, TouchOutcome::NotFound) };
        if touched == TouchOutcome::NoMemory {
            self.excuse();
            return assert!(self.known(bytes).is_some(), "it stays as it was");
        }
        assert_eq!(touched, TouchOutcome::Touched);
        entry.deadline = self.deadline(exptime);
        let unique = Unique::Is(entry.cas);
        self.learn(bytes, entry, unique);
    }

    pub(super) fn arith(&mut self, op: &ArithOp) {
        let bytes = key_of(op.key);
        let known = self.known(&bytes);
        let compare_cas = self.resolve(op.compare, known.as_ref());
        let arith = Arith {
            increment: op.increment,
            compare_cas,
            vivify: op.vivify.map(Exptime),
            initial: op.initial,
            touch: op.touch.map(Exptime),
            new_cas: op.new_cas,
            return_cas: op.return_cas,
            ..Arith::of(key(&bytes), op.delta)
        };
        let outcome = self.store.arith(self.local(), &arith, self.hash(&bytes));
        let (value, cas, left) = match outcome {
            ArithOutcome::Number { value, cas, ttl, ttl_before } => (value, cas, (ttl, ttl_before)),
            ArithOutcome::NotFound => return assert!(known.is_none() && op.vivify.is_none()),
            ArithOutcome::NonNumeric => {
                return assert!(known.unwrap().number().is_none());
            }
            ArithOutcome::Exists => {
                return assert!(!known.unwrap().matches(compare_cas.unwrap()));
            }
            ArithOutcome::NoMemory => {
                self.excuse();
                let stays = self.known(&bytes).is_some();
                return assert_eq!(stays, known.is_some(), "it stays as it was");
            }
        };
        assert_eq!(cas.is_some(), op.return_cas && self.use_cas);
        let Some(mut entry) = known else {
            // Whether a touch counts for what is created is the dialect's tests' business.
            let deadlines = [op.vivify, op.touch].map(|e| e.map(|e| self.deadline(e)));
            let said = |deadline: &u32| self.reference.ttl(*deadline) == left.0;
            let deadline = deadlines.into_iter().flatten().find(said).expect("a time to live");
            assert_eq!(value, op.initial);
            let entry = Entry { value: value.to_string().into(), deadline, ..Entry::default() };
            let unique = self.unique_of(op.new_cas, op.return_cas, cas);
            return self.learn(&bytes, entry, unique);
        };
        assert!(compare_cas.is_none_or(|cas| cas == 0 || entry.matches(cas)));
        let old = entry.number().expect("a number");
        let new = match op.increment {
            true => old.wrapping_add(op.delta),
            false => old.saturating_sub(op.delta),
        };
        assert_eq!((value, left.1), (new, self.reference.ttl(entry.deadline)));
        entry.put_number(new);
        entry.deadline = op.touch.map_or(entry.deadline, |e| self.deadline(e));
        assert_eq!(left.0, self.reference.ttl(entry.deadline));
        let unique = self.unique_of(op.new_cas, entry.cas.is_some() || op.return_cas, cas);
        self.learn(&bytes, entry, unique);
    }
}
