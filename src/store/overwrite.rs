//! Sets that write where the old value lies.
//!
//! Where an item has the measures of the one that it replaces, part by part, no other chunk is
//! needed: readers without a lock see that the line was locked meanwhile and look again, as they do
//! for a number that is counted up. Its place in its class's order stays, as its counter does
//! anyway. What lies in a memory file is not written over: who dies half-way would leave neither.

use super::Store;
use super::draft::Draft;
use super::held::{Found, Held};
use super::requests::{Set, SetMode};
use super::types::{KeyHash, Local, Outcome};
use crate::config::Eviction;
use crate::item::{NARROW_MAX, Shape};
use crate::watch::{Got, Stored};

impl Store {
    /// Stores a value over one of the same measures; `None`, and nothing was done, where the item
    /// needs a chunk of its own.
    pub(super) fn overwrite(
        &self,
        l: &Local,
        set: &Set<'_>,
        hash: KeyHash,
        value: &[u8],
    ) -> Option<Outcome> {
        let shard = self.shard_of(hash);
        if set.mode != SetMode::Set || set.invalidate || set.len > NARROW_MAX {
            return None;
        }
        // Most keys that are not there cost no more than this.
        let guess = shard.index.guess(hash.0)?;
        let draft = self.draft_for(set);
        let mut held = self.hold(l, hash);
        // Others may have read it a moment ago, and look at the line now until it is written.
        shard.item(guess).prefetch_to_write();
        let old = held.peek(set.key).filter(|old| held.can_overwrite(old, &draft))?;
        l.log.got(set.key.bytes(), Got::Found, || (shard.class_id(old.chunk), set.len));
        held.line.dirty();
        old.item.put_value(old.shape, 0, value);
        let cas = self.cas_for(set.new_cas, set.return_cas);
        held.write_fields(&old, &draft, cas);
        held.note_stored(old.chunk);
        held.class_counters(old.chunk).set_cmds.bump();
        l.counters.thread.total_items.bump();
        held.tell_stored(set, Stored::Stored, || shard.kept(old.chunk));
        Some(Outcome::Stored { cas: cas.filter(|_| set.return_cas), len: set.len })
    }
}

impl<'a> Held<'a> {
    /// Puts another value of the same length in a narrow item.
    pub fn overwrite_value(&mut self, found: Found<'a>, value: &[u8]) -> Found<'a> {
        self.line.dirty();
        found.item.put_value(found.shape, 0, value);
        found
    }
}

impl Held<'_> {
    fn can_overwrite(&self, old: &Found<'_>, draft: &Draft<'_>) -> bool {
        let places = Shape::PLACES;
        old.shape.0 & !places == draft.narrow_shape().0
            && self.shard.rule().eviction == Eviction::S3
            && !self.shard.has_seals()
    }

    /// The fields beside the value, and the standing of an item that was stored just now.
    fn write_fields(&self, old: &Found<'_>, draft: &Draft<'_>, cas: Option<u64>) {
        if draft.plan.exptime {
            old.item.put_deadline_field(old.shape, draft.deadline);
            self.shard.note_deadline(old.chunk);
        }
        if draft.plan.client_flags {
            old.item.put_client_flags(old.shape, draft.client_flags);
        }
        if let Some(cas) = cas {
            self.shard.put_cas(old.chunk, cas);
        }
        old.item.set_standing(old.standing.stored_over(self.horizon.stamp));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Exptime;
    use crate::config::Settings;
    use crate::store::Key;
    use crate::store::testing::Bench;

    fn key() -> Key<'static> {
        Key::new(b"key").expect("a short key")
    }

    fn store(b: &Bench, set: &Set<'_>, byte: u8) -> Outcome {
        let value = vec![byte; set.len as usize];
        b.store.set(&b.local, set, b.store.hash(set.key), &value).expect("room")
    }

    fn value(b: &Bench) -> Vec<u8> {
        b.held("key").expect("an item").value
    }

    #[test]
    fn an_item_of_the_same_measures_stays_where_it_is() {
        let b = Bench::new(Settings::default());
        let set = Set::of(key(), 100);
        store(&b, &set, b'a');
        let chunk = b.chunk_of("key");
        store(&b, &set, b'b');
        assert_eq!((b.chunk_of("key"), value(&b)), (chunk, vec![b'b'; 100]));
        assert_eq!(b.items(), 1);
        b.validate();
    }

    #[test]
    fn one_of_other_measures_moves() {
        let b = Bench::new(Settings::default());
        let set = Set::of(key(), 100);
        let unlike = [
            Set { len: 101, ..set.clone() },
            Set { client_flags: 7, ..set.clone() },
            Set { exptime: Exptime(100), ..set.clone() },
            Set { return_cas: true, ..set.clone() },
            Set { binary_key: true, ..set.clone() },
        ];
        for other in unlike {
            for (before, after) in [(&set, &other), (&other, &set)] {
                store(&b, before, b'a');
                let chunk = b.chunk_of("key");
                store(&b, after, b'b');
                assert_ne!(b.chunk_of("key"), chunk, "{before:?}, {after:?}");
                assert_eq!(value(&b), vec![b'b'; after.len as usize]);
                b.validate();
            }
        }
    }

    #[test]
    fn its_fields_are_the_new_ones() {
        let b = Bench::new(Settings::default());
        let with = |seconds, client_flags| Set {
            exptime: Exptime(seconds),
            client_flags,
            return_cas: true,
            ..Set::of(key(), 9)
        };
        let first = store(&b, &with(100, 5), b'a');
        let chunk = b.chunk_of("key");
        let second = store(&b, &with(50, 6), b'b');
        let (Outcome::Stored { cas: Some(first), .. }, Outcome::Stored { cas: Some(second), .. }) =
            (first, second)
        else {
            panic!("{first:?}, {second:?}");
        };
        assert!(second > first && b.gets("key") == second);
        assert_eq!(b.chunk_of("key"), chunk);
        let item = b.shard().item(chunk.expect("an item"));
        assert_eq!(item.client_flags(item.shape()), 6);
        b.store.clock().advance(60);
        assert!(!b.get("key"), "the new deadline is over");
        b.validate();
    }

    #[test]
    fn a_dead_or_stale_one_is_not_written_over() {
        let b = Bench::new(Settings::default());
        let set = Set { return_cas: true, ..Set::of(key(), 9) };
        store(&b, &set, b'a');
        b.delete_as("key", true);
        let chunk = b.chunk_of("key");
        store(&b, &set, b'b');
        let item = b.shard().item(b.chunk_of("key").expect("an item"));
        assert!(b.chunk_of("key") != chunk && !item.shape().has(Shape::STALE));
        b.store.flush_all(&b.local, None);
        store(&b, &set, b'c');
        assert_eq!(value(&b), vec![b'c'; 9]);
        b.validate();
    }
}
