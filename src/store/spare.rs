//! The chunk that a thread keeps from one request of a batch to the next.
//!
//! A set over a live key takes a chunk and frees another of the same class, and each of the two
//! needs the class's lock. In a batch the chunk that was freed is kept for the next item instead.
//! Meanwhile it is reserved, as for a value on its way (I2). A batch takes some microseconds, and
//! none is kept beyond it.

use super::Store;
use super::shard::Shard;
use super::types::Local;
use crate::item::{Shape, Standing};
use slab::sync::Ordering::Release;
use slab::sync::fence;
use slab::{ChunkRef, ClassId};
use std::cell::Cell;
use std::ptr::from_ref;

/// A thread's place for it.
#[derive(Default)]
pub(super) struct Spare {
    in_batch: Cell<bool>,
    kept: Cell<Option<Kept>>,
}

#[derive(Clone, Copy)]
struct Kept {
    /// Where its shard lies.
    shard: usize,
    class: ClassId,
    chunk: ChunkRef,
}

impl Store {
    /// More requests follow at once, up to [`Store::end_batch`].
    pub fn begin_batch(&self, l: &Local) {
        l.spare.in_batch.set(true);
    }

    /// Frees what was kept.
    pub fn end_batch(&self, l: &Local) {
        l.spare.in_batch.set(false);
        let Some(kept) = l.spare.kept.take() else { return };
        let mut shards = self.shards.iter();
        if let Some(shard) = shards.find(|shard| from_ref(*shard).addr() == kept.shard) {
            shard.put(kept.chunk);
        }
    }
}

impl Shard {
    /// Frees an item that was replaced, or keeps its chunk. Its line is still locked: nobody
    /// allocates before the line's version has moved on (X2).
    #[inline]
    pub fn free_replaced(&self, l: &Local, chunk: ChunkRef) {
        let item = self.item(chunk);
        let spare = &l.spare;
        if !spare.in_batch.get()
            || spare.kept.get().is_some()
            || !item.shape_after_pins().is_plain()
        {
            return self.free(chunk);
        }
        item.reshape(Shape(0));
        item.set_standing(Standing::RESERVED);
        let shard = from_ref(self).addr();
        spare.kept.set(Some(Kept { shard, class: self.slabs.class_of(chunk), chunk }));
    }

    /// True where one of this shard's is kept.
    #[inline]
    pub fn has_kept(&self, l: &Local) -> bool {
        l.spare.kept.get().is_some_and(|kept| kept.shard == from_ref(self).addr())
    }

    /// Frees what was kept, so that its page may be given to another class.
    pub fn give_back_kept(&self, l: &Local) {
        if self.has_kept(l)
            && let Some(kept) = l.spare.kept.take()
        {
            self.put(kept.chunk);
        }
    }

    /// What was kept, if it is of this class.
    #[inline]
    pub fn take_kept(&self, l: &Local, class: ClassId) -> Option<ChunkRef> {
        let kept = l.spare.kept.get()?;
        if kept.class != class || kept.shard != from_ref(self).addr() {
            return None;
        }
        l.spare.kept.set(None);
        // Whoever sees what is now written to the chunk sees that its line's version moved on.
        fence(Release);
        Some(kept.chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::Settings;
    use crate::store::{Key, Outcome, Set};
    use std::sync::Arc;

    fn set(store: &Arc<Store>, l: &Local, len: usize) {
        let key = Key::new(b"key").expect("a short key");
        let set = Set::of(key, len as u32);
        let outcome = store.set(l, &set, store.hash(key), &vec![b'v'; len]);
        assert!(matches!(outcome, Ok(Outcome::Stored { .. })));
    }

    #[test]
    fn a_batch_keeps_one_chunk_and_leaves_none_behind() {
        let clock = Arc::new(Clock::manual(1_700_000_000));
        let store = Store::new(Arc::new(Settings::default()), clock).expect("a store");
        let l = store.local();
        let kept = || l.spare.kept.get().map(|kept| kept.chunk);
        // Of one class; those of one length would be written over.
        set(&store, &l, 100);
        set(&store, &l, 101);
        assert_eq!(kept(), None, "not outside a batch");
        store.begin_batch(&l);
        set(&store, &l, 100);
        let first = kept().expect("the one that was replaced");
        set(&store, &l, 101);
        let second = kept().expect("the next");
        assert_ne!(first, second, "the first was used");
        // Others have no use for it. One that takes a page has it freed first.
        for len in [300, 20_000, 100, 300, 100, 101] {
            set(&store, &l, len);
        }
        assert!(kept().is_some());
        store.end_batch(&l);
        assert_eq!(kept(), None);
        store.validate().expect("a valid store");
        let used = store.class_info().iter().map(|c| c.total_chunks - c.free_chunks).sum::<u64>();
        assert_eq!(used, 1);
    }
}
