//! Changes to items that exist: delete, incr and decr, touch.

use super::Store;
use super::index::LineGuard;
use super::read::{bump, bump_unfetched, seconds_left};
use super::requests::{Arith, Delete, Touch};
use super::shard::{Found, Purpose, Shard};
use super::types::{ArithOutcome, DeleteOutcome, Key, KeyHash, Local};
use super::write::{cas_matches, draft_of};
use crate::clock::Deadline;
use crate::item::{Plan, Shape};

/// Decimal digits of the largest u64.
const DIGITS_MAX: usize = 20;

impl Store {
    pub fn delete(&self, l: &Local, delete: &Delete<'_>, hash: KeyHash) -> DeleteOutcome {
        let shard = self.shard_of(hash);
        let mut line = shard.index.lock(hash.0);
        let horizon = self.horizon();
        let found = shard.find(l, &mut line, delete.key, horizon, Purpose::Read);
        let Some(found) = found else {
            l.counters.thread.delete_misses.bump();
            return DeleteOutcome::NotFound;
        };
        if delete.compare_cas.is_some() && !cas_matches(delete.compare_cas, &found) {
            l.counters.thread.delete_misses.bump();
            return DeleteOutcome::Exists;
        }
        let class = shard.class_counters(l, shard.slabs.class_of(found.chunk));
        let found = if delete.drop_value {
            match self.entomb(l, shard, &mut line, delete, found) {
                Some(tombstone) => tombstone,
                None => return DeleteOutcome::NoMemory,
            }
        } else {
            found
        };
        if delete.invalidate {
            return self.invalidate(l, shard, &mut line, delete, found);
        }
        class.delete_hits.bump();
        if !delete.drop_value {
            self.drop_found(l, shard, &mut line, found);
        }
        DeleteOutcome::Deleted
    }

    /// Puts an empty item in a found one's place; it keeps the CAS unique unless told otherwise.
    fn entomb<'a>(
        &'a self,
        l: &Local,
        shard: &'a Shard,
        line: &mut LineGuard<'a>,
        delete: &Delete<'_>,
        found: Found<'a>,
    ) -> Option<Found<'a>> {
        let deadline = delete.touch.map_or(Deadline::NEVER, |t| self.clock.deadline(t));
        let kept = found.shape.has(Shape::CAS).then(|| found.item.cas(found.shape));
        let cas = if self.shared.use_cas { delete.new_cas.or(kept) } else { None };
        let mut draft = draft_of(delete.key, 0, deadline, 0, cas.is_some());
        draft.client_flags = delete.client_flags;
        draft.plan = Plan { client_flags: delete.client_flags != 0, ..draft.plan };
        let chunk = shard.draft(l, &draft, self.horizon()).ok()?;
        if let Some(cas) = cas {
            shard.put_cas(chunk, cas);
        }
        let slot = found.slot;
        self.link_over(l, shard, line, found, chunk);
        let item = shard.item(chunk);
        Some(Found { slot, chunk, item, shape: item.shape(), standing: item.standing() })
    }

    /// Marks a found item stale, with no win handed out, a newer CAS unique and perhaps a deadline.
    fn invalidate<'a>(
        &'a self,
        l: &Local,
        shard: &'a Shard,
        line: &mut LineGuard<'a>,
        delete: &Delete<'_>,
        mut found: Found<'a>,
    ) -> DeleteOutcome {
        if let Some(exptime) = delete.touch {
            match self.redate(l, shard, line, found, self.clock.deadline(exptime)) {
                Some(redated) => found = redated,
                None => return DeleteOutcome::Deleted,
            }
        }
        // An item without a unique needs none: it counts as newer than any that was given out.
        if let Some(cas) = self.cas_for(delete.new_cas, found.shape.has(Shape::CAS)) {
            match self.change_cas(l, shard, line, found, cas) {
                Ok(changed) => found = changed,
                Err(_) => return DeleteOutcome::NoMemory,
            }
        }
        line.dirty();
        found.item.set_bits(Shape::STALE);
        found.item.clear_bits(Shape::WIN);
        DeleteOutcome::Deleted
    }

    /// False: not found.
    pub fn touch(&self, l: &Local, touch: &Touch<'_>, hash: KeyHash) -> bool {
        let shard = self.shard_of(hash);
        let horizon = self.horizon();
        let stamp = self.flush.stamp(horizon.now);
        let mut line = shard.index.lock(hash.0);
        l.counters.thread.touch_cmds.bump();
        let deadline = self.clock.deadline(touch.exptime);
        let touched = shard
            .find(l, &mut line, touch.key, horizon, Purpose::Read)
            .and_then(|found| self.redate(l, shard, &mut line, found, deadline));
        match touched {
            Some(found) => {
                bump(found.item, found.standing, stamp);
                let class = shard.slabs.class_of(found.chunk);
                shard.class_counters(l, class).touch_hits.bump();
                true
            }
            None => {
                l.counters.thread.touch_misses.bump();
                false
            }
        }
    }

    /// Adds to or takes from a decimal number: 64 bits, wrapping up, stopping at 0 downwards.
    pub fn arith(&self, l: &Local, arith: &Arith<'_>, hash: KeyHash) -> ArithOutcome {
        let shard = self.shard_of(hash);
        let mut line = shard.index.lock(hash.0);
        let horizon = self.horizon();
        match shard.find(l, &mut line, arith.key, horizon, Purpose::Read) {
            Some(found) => self.arith_found(l, shard, &mut line, arith, found),
            None if arith.vivify.is_some() => self.arith_create(l, shard, &mut line, arith),
            None => {
                match arith.increment {
                    true => l.counters.thread.incr_misses.bump(),
                    false => l.counters.thread.decr_misses.bump(),
                }
                ArithOutcome::NotFound
            }
        }
    }

    fn arith_found<'a>(
        &'a self,
        l: &Local,
        shard: &'a Shard,
        line: &mut LineGuard<'a>,
        arith: &Arith<'_>,
        found: Found<'a>,
    ) -> ArithOutcome {
        // memcached's order: no number at all, another CAS unique, not quite a number.
        if found.shape.has(Shape::WIDE) || found.shape.narrow_len() == 0 {
            return ArithOutcome::NonNumeric;
        }
        let compare = arith.compare_cas.filter(|cas| *cas != 0);
        if compare.is_some() && !cas_matches(compare, &found) {
            return ArithOutcome::Exists;
        }
        let Some(old) = number_in(l, &found) else { return ArithOutcome::NonNumeric };
        let value = match arith.increment {
            true => old.wrapping_add(arith.delta),
            false => old.saturating_sub(arith.delta),
        };
        let class = shard.class_counters(l, shard.slabs.class_of(found.chunk));
        match arith.increment {
            true => class.incr_hits.bump(),
            false => class.decr_hits.bump(),
        }
        let needs_cas = found.shape.has(Shape::CAS) || arith.return_cas;
        let cas = self.cas_for(arith.new_cas, needs_cas);
        let Some(found) = self.put_number(l, shard, line, arith.key, found, value, cas) else {
            return ArithOutcome::NoMemory;
        };
        let ttl_before = seconds_left(found.item.deadline(found.shape), self.clock.now());
        let mut ttl = ttl_before;
        if let Some(exptime) = arith.touch {
            let deadline = self.clock.deadline(exptime);
            ttl = seconds_left(deadline.0, self.clock.now());
            self.redate(l, shard, line, found, deadline);
        }
        ArithOutcome::Number { value, cas: cas.filter(|_| arith.return_cas), ttl, ttl_before }
    }

    /// Writes a number over a found one: in place where it is no longer than what was there (the
    /// rest is blanks, as in memcached), else in a new item.
    #[allow(clippy::too_many_arguments)]
    fn put_number<'a>(
        &'a self,
        l: &Local,
        shard: &'a Shard,
        line: &mut LineGuard<'a>,
        key: Key<'_>,
        mut found: Found<'a>,
        value: u64,
        cas: Option<u64>,
    ) -> Option<Found<'a>> {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(value).as_bytes();
        let room = found.shape.narrow_len() as usize;
        if digits.len() > room {
            return self.grow_number(l, shard, line, key, found, digits, cas);
        }
        if let Some(cas) = cas {
            found = self.change_cas(l, shard, line, found, cas).ok()?;
        }
        line.dirty();
        let mut padded = l.scratch.take();
        padded.clear();
        padded.extend_from_slice(digits);
        padded.resize(room, b' ');
        found.item.put_value(found.shape, 0, &padded);
        l.scratch.set(padded);
        bump_unfetched(found.item, found.standing, self.flush.stamp(self.clock.now()));
        Some(found)
    }

    #[allow(clippy::too_many_arguments)]
    fn grow_number<'a>(
        &'a self,
        l: &Local,
        shard: &'a Shard,
        line: &mut LineGuard<'a>,
        key: Key<'_>,
        found: Found<'a>,
        digits: &[u8],
        cas: Option<u64>,
    ) -> Option<Found<'a>> {
        let deadline = Deadline(found.item.deadline(found.shape));
        let kept = found.shape.0 & (Shape::BINARY_KEY | Shape::TEMP);
        let mut draft = draft_of(key, digits.len() as u32, deadline, kept, cas.is_some());
        draft.client_flags = found.item.client_flags(found.shape);
        draft.plan.client_flags = draft.client_flags != 0;
        let chunk = shard.draft(l, &draft, self.horizon()).ok()?;
        shard.writer(chunk).put(digits);
        if let Some(cas) = cas {
            shard.put_cas(chunk, cas);
        }
        let slot = found.slot;
        self.link_over(l, shard, line, found, chunk);
        let item = shard.item(chunk);
        Some(Found { slot, chunk, item, shape: item.shape(), standing: item.standing() })
    }

    fn arith_create<'a>(
        &'a self,
        l: &Local,
        shard: &'a Shard,
        line: &mut LineGuard<'a>,
        arith: &Arith<'_>,
    ) -> ArithOutcome {
        let deadline = arith.vivify.map_or(Deadline::NEVER, |e| self.clock.deadline(e));
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(arith.initial).as_bytes();
        let bits = if arith.binary_key { Shape::BINARY_KEY } else { 0 };
        let cas = self.cas_for(arith.new_cas, arith.return_cas);
        let draft = draft_of(arith.key, digits.len() as u32, deadline, bits, cas.is_some());
        let Ok(chunk) = shard.draft(l, &draft, self.horizon()) else {
            return ArithOutcome::NoMemory;
        };
        shard.writer(chunk).put(digits);
        if let Some(cas) = cas {
            shard.put_cas(chunk, cas);
        }
        if !self.link_new(l, shard, line, chunk) {
            shard.free(chunk);
            return ArithOutcome::NoMemory;
        }
        let ttl = seconds_left(deadline.0, self.clock.now());
        let cas = cas.filter(|_| arith.return_cas);
        ArithOutcome::Number { value: arith.initial, cas, ttl, ttl_before: ttl }
    }
}

/// The number that a value starts with, by the rules of memcached's `safe_strtoull`: blanks before
/// it, then digits, then a blank or the end.
fn number_in(l: &Local, found: &Found<'_>) -> Option<u64> {
    let mut value = l.scratch.take();
    value.clear();
    found.item.copy_narrow(found.shape, &mut value);
    let number = parse_number(&value);
    l.scratch.set(value);
    number
}

fn parse_number(value: &[u8]) -> Option<u64> {
    let is_blank = |b: &u8| b.is_ascii_whitespace() || *b == 0x0b;
    let start = value.iter().position(|b| !is_blank(b))?;
    let value = value[start..].strip_prefix(b"+").unwrap_or(&value[start..]);
    let end = value.iter().position(|b| !b.is_ascii_digit()).unwrap_or(value.len());
    let (digits, rest) = value.split_at(end);
    if digits.is_empty() || rest.first().is_some_and(|b| !is_blank(b)) {
        return None;
    }
    let digits = digits.iter().position(|b| *b != b'0').map_or(&b"0"[..], |n| &digits[n..]);
    if digits.len() > DIGITS_MAX {
        return None;
    }
    digits.iter().try_fold(0u64, |n, d| n.checked_mul(10)?.checked_add(u64::from(d - b'0')))
}

#[cfg(test)]
mod tests {
    use super::parse_number;

    #[test]
    fn numbers_are_read_as_memcached_reads_them() {
        for (value, number) in [
            (&b"12"[..], Some(12)),
            (b"12  ", Some(12)),
            (b" 12", Some(12)),
            (b"+5", Some(5)),
            (b"007", Some(7)),
            (b"12 apples", Some(12)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"000000000000000000000000000001", Some(1)),
            (b"12x", None),
            (b"-1", None),
            (b"", None),
            (b"  ", None),
            (b"x", None),
        ] {
            assert_eq!(parse_number(value), number, "{:?}", String::from_utf8_lossy(value));
        }
    }
}
