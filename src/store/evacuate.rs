//! Emptying a page that is draining: what lives on it is copied to other chunks of its class, as
//! long as there are any; where there are none, the class's own order says what goes for it.

use super::evict;
use super::flush::Horizon;
use super::index::{LineGuard, Slot};
use super::shard::Shard;
use super::types::Local;
use crate::item::{self, Item, Shape, Standing, State};
use slab::{ChunkRef, ClassId, PageNo};

/// Victims that may lie on the very page, one after another, before the next chunk has its turn.
const VICTIMS_MAX: usize = 16;

/// What became of a chunk; names as `slab_reassign_last_busy_status` shows those that stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evacuated {
    /// It was free, or its item was dead.
    Free,
    Rescued,
    ChunkRescued,
    /// Someone is at its line.
    Locked,
    /// A value on its way, and somebody is at work on it.
    Uploading,
    /// Its value is being sent.
    Floating,
    /// No chunk to copy it to.
    NoMemory,
}

/// Where what lives on a page goes.
pub(super) struct Evacuation {
    pub page: PageNo,
    pub class: ClassId,
    /// Whether the class may take a page more for what lives on this one, while -m has one. An
    /// operator who asks for a page wants the class to have less, though it cost items.
    grow: bool,
    /// A reserved chunk of the class that does not lie on the page.
    spare: Option<ChunkRef>,
}

impl Evacuation {
    pub fn of(page: PageNo, class: ClassId, grow: bool) -> Evacuation {
        Evacuation { page, class, grow, spare: None }
    }
}

impl Shard {
    /// Moves or drops what a chunk of the page holds.
    pub fn evacuate(
        &self,
        l: &Local,
        way: &mut Evacuation,
        chunk: ChunkRef,
        horizon: Horizon,
    ) -> Evacuated {
        let standing = self.item(chunk).standing();
        let head = match standing.state() {
            State::Free => return Evacuated::Free,
            State::Dying => return Evacuated::Floating,
            State::Linked => chunk,
            State::Reserved if standing.is_body() => {
                match item::body_head(&self.slabs, chunk).map(|h| (h, self.item(h).standing())) {
                    Some((head, standing)) if standing.state() == State::Linked => head,
                    Some((_, standing)) if standing.state() == State::Dying => {
                        return Evacuated::Floating;
                    }
                    Some((head, _)) => return self.evacuate_arrival(way, head, chunk),
                    None => return Evacuated::Uploading,
                }
            }
            State::Reserved => return self.evacuate_arrival(way, chunk, chunk),
        };
        let Some((mut line, slot)) = self.line_of(l, head) else { return Evacuated::Locked };
        let item = self.item(head);
        let (shape, standing) = (item.shape_after_pins(), item.standing());
        if shape.has(Shape::PINNED) {
            return Evacuated::Floating;
        }
        if horizon.flushed(standing) || horizon.expired(item.deadline(shape)) {
            line.remove(slot);
            self.count_victim(l, head, item, (shape, standing), horizon);
            self.unlinked(l, head);
            drop(line);
            self.free(head);
            // A body may have been looked up in the middle of a change, and be another's.
            let free = self.item(chunk).standing().state() == State::Free;
            return if free { Evacuated::Free } else { Evacuated::Locked };
        }
        let Some(fresh) = way.spare.take().or_else(|| self.take_free(way.class, false)) else {
            return Evacuated::NoMemory;
        };
        if head == chunk {
            self.rescue(l, &mut line, slot, chunk, fresh);
            // The head of a chain is one of its chunks.
            let chained = shape.chained();
            return if chained { Evacuated::ChunkRescued } else { Evacuated::Rescued };
        }
        line.dirty();
        if !self.replace_body(head, chunk, fresh, way.class) {
            way.spare = Some(fresh);
            return Evacuated::Locked;
        }
        self.put(chunk);
        Evacuated::ChunkRescued
    }

    /// The same for a chunk of a value that is on its way, and `head` its first.
    fn evacuate_arrival(&self, way: &mut Evacuation, head: ChunkRef, chunk: ChunkRef) -> Evacuated {
        if !self.is_arriving(head) {
            return Evacuated::Uploading;
        }
        let Some(fresh) = way.spare.take().or_else(|| self.take_free(way.class, false)) else {
            return Evacuated::NoMemory;
        };
        if !self.move_arrival(head, chunk, fresh) {
            way.spare = Some(fresh);
            return Evacuated::Uploading;
        }
        Evacuated::ChunkRescued
    }

    /// Puts a reserved chunk of the same class in a body's place in the chain of `head`, which
    /// nobody else may read meanwhile; false where `body` is none of its bodies.
    pub fn replace_body(
        &self,
        head: ChunkRef,
        body: ChunkRef,
        fresh: ChunkRef,
        class: ClassId,
    ) -> bool {
        let size = self.slabs.geometry().chunk_size(class);
        self.slabs.lock(class).bodies += 1;
        let replaced = item::replace_body(&self.slabs, head, body, fresh, size);
        if !replaced {
            self.slabs.lock(class).bodies -= 1;
        }
        replaced
    }

    /// Locks the line of a linked item if nobody holds it, and finds the item in it.
    pub fn line_of(&self, l: &Local, chunk: ChunkRef) -> Option<(LineGuard<'_>, Slot<'_>)> {
        let item = self.item(chunk);
        let hash = l.with_key(item, item.shape(), |key| self.hash_bytes(key));
        let line = self.index.try_lock(hash)?;
        let (slot, _) = line.find(|c| c == chunk)?;
        Some((line, slot))
    }

    /// Puts a copy in a linked item's place, with its CAS unique, deadline, flags and standing. It
    /// comes later in its class's queue than it was.
    fn rescue<'a>(
        &'a self,
        l: &Local,
        line: &mut LineGuard<'a>,
        slot: Slot<'a>,
        chunk: ChunkRef,
        fresh: ChunkRef,
    ) {
        let (item, copy) = (self.item(chunk), self.item(fresh));
        item.copy_to(self.slabs.geometry().whole_size(self.slabs.class_of(chunk)), copy);
        // From here on there are two heads, which is sound; none is not.
        copy.set_standing(item.standing());
        if item.shape().chained() {
            item::adopt_bodies(&self.slabs, fresh);
        }
        self.inherit_queue(l, fresh, item.shape());
        self.note_deadline(fresh);
        line.replace(slot, fresh);
        self.dies(chunk);
        self.put(chunk);
    }

    /// Makes sure that the next item has somewhere to go: by a page more for the class where it may
    /// have one, else by evicting from it. What it evicts on the page itself is just freed. False:
    /// the class has nothing more to give.
    pub fn prepare(&self, l: &Local, way: &mut Evacuation, horizon: Horizon) -> bool {
        for _ in 0..VICTIMS_MAX {
            if way.spare.is_some() {
                return true;
            }
            way.spare = self.take_free(way.class, way.grow && self.slabs.available_pages() > 0);
            if way.spare.is_some() || !self.rules.evict {
                continue;
            }
            match self.evict_from(l, way.class, horizon) {
                Some(chunk) if self.slabs.page_of(chunk) == way.page => self.put(chunk),
                Some(chunk) => way.spare = Some(chunk),
                None => return false,
            }
        }
        way.spare.is_some()
    }

    /// Gives an emptied page to another class or to the pool; false, and it is in service again,
    /// where it is not empty.
    pub fn end_drain(&self, page: PageNo, from: ClassId, to: Option<ClassId>) -> bool {
        let mut class = self.slabs.lock(from);
        let emptied = match to {
            None => class.finish_drain(page),
            Some(_) => class.let_go(page),
        };
        if emptied {
            evict::forget_page(&mut class, page);
        }
        // One lock at a time.
        drop(class);
        if let Some(to) = to.filter(|_| emptied) {
            self.slabs.lock(to).adopt(page, from);
        }
        emptied
    }

    /// Gives back what was kept ready.
    pub fn end_evacuation(&self, way: &mut Evacuation) {
        if let Some(chunk) = way.spare.take() {
            self.put(chunk);
        }
    }

    /// Takes the pinned item that a chunk is part of out of the index, so that its chunks are free
    /// when its last pin is gone.
    pub fn drop_pinned(&self, l: &Local, chunk: ChunkRef, horizon: Horizon) -> bool {
        let Some(chunk) = self.owner_of(chunk) else { return false };
        let Some((mut line, slot)) = self.line_of(l, chunk) else { return false };
        let item: Item<'_> = self.item(chunk);
        if !item.shape().has(Shape::PINNED) {
            return false;
        }
        let as_was: (Shape, Standing) = (item.shape(), item.standing());
        line.remove(slot);
        self.count_victim(l, chunk, item, as_was, horizon);
        self.unlinked(l, chunk);
        drop(line);
        self.free(chunk);
        true
    }
}
