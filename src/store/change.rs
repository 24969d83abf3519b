//! Changes to items that exist: delete, incr and decr, touch.

use super::Store;
use super::held::{Found, Held, Purpose};
use super::read::{bump_unfetched, seconds_left};
use super::requests::{Arith, Delete, Set, SetMode, Touch};
use super::tell::Kept;
use super::types::{ArithOutcome, DeleteOutcome, Key, KeyHash, Local, TouchOutcome};
use super::write::{cas_matches, draft_of};
use crate::clock::Deadline;
use crate::item::{Plan, Shape};
use crate::watch::{Got, Stored};

/// Decimal digits of the largest u64.
const DIGITS_MAX: usize = 20;

impl Store {
    pub fn delete(&self, l: &Local, delete: &Delete<'_>, hash: KeyHash) -> DeleteOutcome {
        let mut held = self.hold(l, hash);
        let found = held.find(delete.key, Purpose::Read);
        let Some(found) = found else {
            l.counters.thread.delete_misses.bump();
            return DeleteOutcome::NotFound;
        };
        if delete.compare_cas.is_some() && !cas_matches(delete.compare_cas, &found) {
            l.counters.thread.delete_misses.bump();
            return DeleteOutcome::Exists;
        }
        let class = held.class_counters(found.chunk);
        let found = if delete.drop_value {
            match self.entomb(&mut held, delete, found) {
                Some(tombstone) => tombstone,
                None => return DeleteOutcome::NoMemory,
            }
        } else {
            found
        };
        if delete.invalidate {
            return self.invalidate(&mut held, delete, found);
        }
        class.delete_hits.bump();
        held.tell_deleted(delete.key.bytes(), delete.by, &found);
        if !delete.drop_value {
            held.drop_found(found);
        }
        DeleteOutcome::Deleted
    }

    /// Puts an empty item in a found one's place; it keeps the CAS unique unless told otherwise.
    fn entomb<'a>(
        &self,
        held: &mut Held<'a>,
        delete: &Delete<'_>,
        found: Found<'a>,
    ) -> Option<Found<'a>> {
        let deadline = delete.touch.map_or(Deadline::NEVER, |t| self.clock.deadline(t));
        let kept = found.shape.has(Shape::CAS).then(|| found.item.cas(found.shape));
        let cas = if self.use_cas { delete.new_cas.or(kept) } else { None };
        let kept_bits = found.shape.0 & Shape::BINARY_KEY;
        let mut draft = draft_of(delete.key, 0, deadline, kept_bits, cas.is_some());
        draft.client_flags = delete.client_flags;
        draft.plan = Plan { client_flags: delete.client_flags != 0, ..draft.plan };
        draft.is_copy = true;
        let chunk = held.shard.draft(held.l, &draft, held.horizon).ok()?;
        if let Some(cas) = cas {
            held.shard.put_cas(chunk, cas);
        }
        // memcached stores the tombstone by a set, which looks for the key once more.
        let (class, len) = (held.shard.class_id(found.chunk), found.item.value_len(found.shape));
        held.l.log.got(delete.key.bytes(), Got::Found, || (class, len));
        held.tell_stored(&Set::of(delete.key, 0), Stored::Stored, || held.shard.kept(chunk));
        let slot = found.slot;
        held.link_over(found, chunk);
        Some(held.linked(slot, chunk))
    }

    /// Marks a found item stale, with no win handed out, a newer CAS unique and perhaps a deadline.
    fn invalidate<'a>(
        &self,
        held: &mut Held<'a>,
        delete: &Delete<'_>,
        found: Found<'a>,
    ) -> DeleteOutcome {
        let deadline = delete.touch.map(|exptime| self.clock.deadline(exptime));
        // An item without a unique needs none: it counts as newer than any that was given out.
        let cas = self.cas_for(delete.new_cas, found.shape.has(Shape::CAS));
        let Some(found) = held.change_fields(found, deadline, cas) else {
            return DeleteOutcome::NoMemory;
        };
        held.line.dirty();
        held.shard.change_sealed(held.l, found.chunk, |item| {
            item.set_bits(Shape::STALE);
            item.clear_bits(Shape::WIN);
        });
        DeleteOutcome::Deleted
    }

    pub fn touch(&self, l: &Local, touch: &Touch<'_>, hash: KeyHash) -> TouchOutcome {
        l.counters.thread.touch_cmds.bump();
        let deadline = self.clock.deadline(touch.exptime);
        let mut held = self.hold(l, hash);
        let found = held.find(touch.key, Purpose::Read);
        let Some(found) = found else {
            l.counters.thread.touch_misses.bump();
            return TouchOutcome::NotFound;
        };
        let Some(found) = held.change_fields(found, Some(deadline), None) else {
            return TouchOutcome::NoMemory;
        };
        let class = held.class_counters(found.chunk);
        held.shard.bump(class, found.item, found.standing, held.horizon.stamp);
        class.touch_hits.bump();
        TouchOutcome::Touched
    }

    /// Adds to or takes from a decimal number: 64 bits, wrapping up, stopping at 0 downwards.
    pub fn arith(&self, l: &Local, arith: &Arith<'_>, hash: KeyHash) -> ArithOutcome {
        let mut held = self.hold(l, hash);
        match held.find(arith.key, Purpose::Read) {
            Some(found) => self.arith_found(&mut held, arith, found),
            None if arith.vivify.is_some() => self.arith_create(&mut held, arith),
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
        &self,
        held: &mut Held<'a>,
        arith: &Arith<'_>,
        found: Found<'a>,
    ) -> ArithOutcome {
        // memcached's order: empty or in several of its chunks, another CAS unique, no number.
        let len = found.item.value_len(found.shape);
        if len == 0 || len >= self.settings().slab_chunk_size_max {
            return ArithOutcome::NonNumeric;
        }
        let compare = arith.compare_cas.filter(|cas| *cas != 0);
        if compare.is_some() && !cas_matches(compare, &found) {
            return ArithOutcome::Exists;
        }
        let Some(old) = number_in(held, &found) else { return ArithOutcome::NonNumeric };
        let value = match arith.increment {
            true => old.wrapping_add(arith.delta),
            false => old.saturating_sub(arith.delta),
        };
        let class = held.class_counters(found.chunk);
        match arith.increment {
            true => class.incr_hits.bump(),
            false => class.decr_hits.bump(),
        }
        let needs_cas = found.shape.has(Shape::CAS) || arith.return_cas;
        let cas = self.cas_for(arith.new_cas, needs_cas);
        let now = self.clock.now();
        let ttl_before = seconds_left(found.item.deadline(found.shape), now);
        let deadline = arith.touch.map(|exptime| self.clock.deadline(exptime));
        if self.put_number(held, arith.key, found, value, (deadline, cas)).is_none() {
            return ArithOutcome::NoMemory;
        }
        let ttl = deadline.map_or(ttl_before, |deadline| seconds_left(deadline.0, now));
        ArithOutcome::Number { value, cas: cas.filter(|_| arith.return_cas), ttl, ttl_before }
    }

    /// Writes a number over a found one, with a new deadline and CAS unique where there are such,
    /// in place where it is no longer than what was there (the rest is blanks, as in memcached),
    /// else in a new item. `None`: there is no memory for one, and nothing was done.
    fn put_number<'a>(
        &self,
        held: &mut Held<'a>,
        key: Key<'_>,
        found: Found<'a>,
        value: u64,
        fields: (Option<Deadline>, Option<u64>),
    ) -> Option<()> {
        let (deadline, cas) = fields;
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(value).as_bytes();
        let room = found.item.value_len(found.shape) as usize;
        if digits.len() > room || found.shape.has(Shape::PINNED) {
            return self.grow_number(held, key, found, digits, fields);
        }
        let mut padded = held.l.scratch.take();
        padded.clear();
        padded.extend_from_slice(digits);
        padded.resize(room, b' ');
        let in_place = !found.shape.has(Shape::WIDE)
            && !held.shard.is_write_once(found.item)
            && held.has_room(&found, deadline, cas);
        let changed = if in_place {
            let changed = held.change_fields(found, deadline, cas);
            changed.map(|found| held.overwrite_value(found, &padded))
        } else {
            held.recast(&found, deadline, cas, Some(&padded))
        };
        held.l.scratch.set(padded);
        let found = changed?;
        bump_unfetched(found.item, found.standing, held.horizon.stamp);
        Some(())
    }

    fn grow_number<'a>(
        &self,
        held: &mut Held<'a>,
        key: Key<'_>,
        found: Found<'a>,
        digits: &[u8],
        (deadline, cas): (Option<Deadline>, Option<u64>),
    ) -> Option<()> {
        let deadline = deadline.unwrap_or(Deadline(found.item.deadline(found.shape)));
        let kept = found.shape.0 & (Shape::BINARY_KEY | Shape::TEMP);
        let mut draft = draft_of(key, digits.len() as u32, deadline, kept, cas.is_some());
        draft.client_flags = found.item.client_flags(found.shape);
        draft.plan.client_flags = draft.client_flags != 0;
        draft.is_copy = true;
        let chunk = held.shard.draft(held.l, &draft, held.horizon).ok()?;
        held.shard.writer(chunk).put(digits);
        if let Some(cas) = cas {
            held.shard.put_cas(chunk, cas);
        }
        held.link_over(found, chunk);
        Some(())
    }

    fn arith_create<'a>(&self, held: &mut Held<'a>, arith: &Arith<'_>) -> ArithOutcome {
        let deadline = arith.vivify.map_or(Deadline::NEVER, |e| self.clock.deadline(e));
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(arith.initial).as_bytes();
        let bits = if arith.binary_key { Shape::BINARY_KEY } else { 0 };
        let cas = self.cas_for(arith.new_cas, arith.return_cas);
        let draft = draft_of(arith.key, digits.len() as u32, deadline, bits, cas.is_some());
        let Ok(chunk) = held.shard.draft(held.l, &draft, held.horizon) else {
            return ArithOutcome::NoMemory;
        };
        held.shard.writer(chunk).put(digits);
        if let Some(cas) = cas {
            held.shard.put_cas(chunk, cas);
        }
        if !held.link_new(chunk) {
            held.shard.free(chunk);
            return ArithOutcome::NoMemory;
        }
        // memcached creates it by an add, which looks for the key once more, and gives it its
        // exptime after that.
        held.l.log.missed(arith.key.bytes(), Got::NotFound);
        let set = Set { mode: SetMode::Add, ..Set::of(arith.key, digits.len() as u32) };
        let kept = || Kept { deadline: Deadline::NEVER, ..held.shard.kept(chunk) };
        held.tell_stored(&set, Stored::Stored, kept);
        let ttl = seconds_left(deadline.0, self.clock.now());
        let cas = cas.filter(|_| arith.return_cas);
        ArithOutcome::Number { value: arith.initial, cas, ttl, ttl_before: ttl }
    }
}

/// The number that a value starts with, by the rules of memcached's `safe_strtoull`: blanks before
/// it, a sign, digits, then a blank, a NUL or the end.
fn number_in(held: &Held<'_>, found: &Found<'_>) -> Option<u64> {
    let mut value = held.l.scratch.take();
    value.clear();
    match found.shape.has(Shape::WIDE) {
        true => held.shard.append_value(found.chunk, &mut value),
        false => found.item.copy_narrow(found.shape, &mut value),
    }
    let number = parse_number(&value);
    held.l.scratch.set(value);
    number
}

fn parse_number(value: &[u8]) -> Option<u64> {
    let is_blank = |b: &u8| b.is_ascii_whitespace() || *b == 0x0b;
    let start = value.iter().position(|b| !is_blank(b))?;
    let signed = &value[start..];
    let negative = signed.first() == Some(&b'-');
    let value = match signed.first() {
        Some(b'+' | b'-') => &signed[1..],
        _ => signed,
    };
    let end = value.iter().position(|b| !b.is_ascii_digit()).unwrap_or(value.len());
    let (digits, rest) = value.split_at(end);
    if digits.is_empty() || rest.first().is_some_and(|b| !is_blank(b) && *b != 0) {
        return None;
    }
    let digits = digits.iter().position(|b| *b != b'0').map_or(&b"0"[..], |n| &digits[n..]);
    if digits.len() > DIGITS_MAX {
        return None;
    }
    let number =
        digits.iter().try_fold(0u64, |n, d| n.checked_mul(10)?.checked_add(u64::from(d - b'0')));
    number.filter(|n| !negative || *n == 0)
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
            (b"5\0x", Some(5)),
            (b"-0", Some(0)),
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
