//! A class as one queue and split in two, in miniature, for a sample of the keys: which would hit?
//! See `duel`.
//!
//! Miniature simulation is by Waldspurger et al. (ATC'17): a cache for one key in n, with room for
//! one item in n, hits as often as the whole. Which keys of the sample are really cached is known,
//! and a simulation has room for as many items: the sample may have a few more or less than its
//! share. Each slab class is simulated apart, as each evicts by itself. A key has one entry, which
//! says where it stands in either simulation. Queues hold tickets; that of a key which has gone or
//! moved on is no longer its entry's, and counts for nothing when its turn comes.

use super::s3::PROMOTE_AT;
use crate::clock::Seconds;
use crate::item::COUNTER_MAX;
use rapidhash::RapidHashMap;
use std::collections::VecDeque;

/// Entries that leave probation when one joins and there are too many.
const LEAVE_MAX: usize = 2;
/// Items that a search for a victim looks at.
const LOOK_MAX: usize = 256;
/// Evicted keys that are remembered, to so many items: what the ghost table comes to.
const GHOSTS: (usize, usize) = (3, 8);
/// One key in so many that the cache holds may be unknown to both simulations.
const STRAYS: usize = 8;
/// Tickets beyond which a queue is rid of those that count for nothing, beside two for each item.
const TICKETS_MIN: usize = 64;

/// A sampled key, by bits of its hash.
type Name = u32;

/// A place in a queue: a key, and a number that is given once.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ticket {
    name: Name,
    number: u32,
}

/// Where a key stands in one of the simulations.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Nowhere,
    Probation,
    Main,
    Ghost,
}

/// What a simulation knows of a key.
#[derive(Clone, Copy, Default)]
struct Seat {
    place: Place,
    /// Of its ticket.
    number: u32,
    counter: u8,
    /// Read since it was stored.
    fetched: bool,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    deadline: Seconds,
    class: u16,
    /// The cache itself holds it.
    cached: bool,
    /// In a class that is split, and in one that is one queue.
    split: Seat,
    whole: Seat,
}

/// A queue, and how many of its tickets count.
#[derive(Default)]
struct Queue {
    tickets: VecDeque<Ticket>,
    held: usize,
}

/// One slab class in miniature.
#[derive(Default)]
struct Class {
    room: Room,
    probation: Queue,
    main: Queue,
    /// Items of the main part that left probation unread while there was room.
    unread: VecDeque<Ticket>,
    ghosts: Queue,
    queue: Queue,
    /// Keys that the cache holds, and those of them that neither simulation does, the oldest first:
    /// most of these have gone without notice.
    cached: usize,
    strays: VecDeque<Name>,
}

/// What one get came to: hits of either simulation, for a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub class: usize,
    pub split: bool,
    pub whole: bool,
}

/// Room of a class, in items of the sample.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    /// As its share of the sample would be.
    pub items: usize,
    /// Of these, in probation where that has its share.
    pub probation: usize,
    /// Memory is in use to its limit: there is no more room.
    pub full: bool,
}

#[derive(Default)]
pub(super) struct Miniature {
    keys: RapidHashMap<Name, Entry>,
    classes: Vec<Class>,
    /// Tickets given so far; it may wrap.
    tickets: u32,
}

impl Seat {
    fn is_held(self) -> bool {
        matches!(self.place, Place::Probation | Place::Main)
    }

    fn read(&mut self) {
        self.counter = (self.counter + 1).min(COUNTER_MAX as u8);
        self.fetched = true;
    }
}

impl Class {
    /// Items that a simulation has room for.
    fn items(&self) -> usize {
        match self.room {
            Room { full: false, .. } => usize::MAX,
            Room { items, .. } => self.cached.clamp(items - items / 4, items + items / 4 + 1),
        }
    }
}

impl Entry {
    fn is_nowhere(&self) -> bool {
        self.split.place == Place::Nowhere && self.whole.place == Place::Nowhere
    }
}

impl Queue {
    fn push(&mut self, ticket: Ticket) {
        self.tickets.push_back(ticket);
        self.held += 1;
    }
}

impl Miniature {
    /// Forgets all keys.
    pub fn forget(&mut self) {
        self.keys.clear();
        for class in &mut self.classes {
            *class = Class { room: class.room, ..Class::default() };
        }
    }

    /// Forgets the keys that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(Name) -> bool) {
        let out: Vec<Name> = self.keys.keys().copied().filter(|name| !keep(*name)).collect();
        out.into_iter().for_each(|name| self.remove(name));
    }

    /// Says what room the classes have now; what is too much goes when the next item comes.
    pub fn resize(&mut self, rooms: impl Iterator<Item = Room>) {
        for (n, room) in rooms.enumerate() {
            if self.classes.len() <= n {
                self.classes.push(Class::default());
            }
            self.classes[n].room = room;
        }
    }

    /// Keys that have an entry.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// A key was asked for; `found` has class and deadline where the real cache had it. What a
    /// simulation missed and the real cache did not is as if stored by who missed it.
    pub fn read(
        &mut self,
        name: Name,
        found: Option<(usize, Seconds)>,
        now: Seconds,
    ) -> Option<Outcome> {
        if found.is_none() {
            self.evicted(name);
        }
        let entry = self.living(name, now);
        let outcome = entry.map(|entry| {
            let (split, whole) = (entry.split.is_held(), entry.whole.is_held());
            if split {
                entry.split.read();
            }
            if whole {
                entry.whole.read();
            }
            Outcome { class: entry.class.into(), split, whole }
        });
        if let Some((class, deadline)) = found {
            self.store(name, class, deadline, now);
        }
        outcome
    }

    /// A key was stored.
    pub fn store(&mut self, name: Name, class: usize, deadline: Seconds, now: Seconds) {
        if class >= self.classes.len() {
            return;
        }
        if self.living(name, now).is_some_and(|entry| usize::from(entry.class) != class) {
            self.remove(name);
        }
        let entry =
            self.keys.entry(name).or_insert(Entry { class: class as u16, ..Entry::default() });
        entry.deadline = deadline;
        self.classes[class].cached += usize::from(!entry.cached);
        entry.cached = true;
        let (split, whole) = (entry.split, entry.whole);
        if !split.is_held() {
            self.store_split(name, class);
        }
        if !whole.is_held() {
            self.store_whole(name, class);
        }
    }

    /// A key is no longer in the cache, for want of room.
    pub fn evicted(&mut self, name: Name) {
        let Some(entry) = self.keys.get_mut(&name) else { return };
        self.classes[usize::from(entry.class)].cached -= usize::from(entry.cached);
        entry.cached = false;
        self.drop_if_nowhere(name);
    }

    /// A key was deleted.
    pub fn remove(&mut self, name: Name) {
        let Some(entry) = self.keys.remove(&name) else { return };
        let class = &mut self.classes[usize::from(entry.class)];
        class.cached -= usize::from(entry.cached);
        match entry.split.place {
            Place::Probation => class.probation.held -= 1,
            Place::Main => class.main.held -= 1,
            Place::Ghost => class.ghosts.held -= 1,
            Place::Nowhere => {}
        }
        if entry.whole.is_held() {
            class.queue.held -= 1;
        }
    }

    /// The entry of a key, without what has expired.
    fn living(&mut self, name: Name, now: Seconds) -> Option<&mut Entry> {
        let entry = self.keys.get(&name)?;
        if entry.deadline != 0 && entry.deadline <= now {
            self.remove(name);
            return None;
        }
        self.keys.get_mut(&name)
    }

    fn ticket(&mut self, name: Name) -> Ticket {
        self.tickets = self.tickets.wrapping_add(1);
        Ticket { name, number: self.tickets }
    }

    // Probation, main part and ghosts

    fn store_split(&mut self, name: Name, class: usize) {
        let held = |c: &Class| c.probation.held + c.main.held;
        for _ in 0..LEAVE_MAX {
            if held(&self.classes[class]) >= self.classes[class].items() {
                self.evict_split(class);
            }
        }
        self.shorten(class);
        let ticket = self.ticket(name);
        let of = &mut self.classes[class];
        // What was evicted just now may have had the oldest ghosts forgotten, this one among them.
        let Some(entry) = self.keys.get_mut(&name) else { return };
        let known = entry.split.place == Place::Ghost;
        let (place, counter) = if known { (Place::Main, 1) } else { (Place::Probation, 0) };
        entry.split = Seat { place, number: ticket.number, counter, fetched: false };
        if known {
            of.ghosts.held -= 1;
            of.main.push(ticket);
        } else {
            of.probation.push(ticket);
        }
        self.tidy(class);
    }

    /// The oldest leave probation where it is longer than its share.
    fn shorten(&mut self, class: usize) {
        for _ in 0..LEAVE_MAX {
            let of = &mut self.classes[class];
            if of.probation.held < of.room.probation {
                return;
            }
            let Some(ticket) = of.probation.tickets.pop_front() else { return };
            let Some(seat) = split_of(&mut self.keys, ticket) else { continue };
            seat.place = Place::Main;
            of.probation.held -= 1;
            of.main.push(ticket);
            if !seat.fetched {
                of.unread.push_back(ticket);
            }
        }
    }

    fn evict_split(&mut self, class: usize) {
        for _ in 0..LOOK_MAX {
            let of = &mut self.classes[class];
            let full = of.probation.held >= of.room.probation || of.main.held == 0;
            let hunts = !of.unread.is_empty();
            let tickets = match full {
                _ if hunts => &mut of.unread,
                true => &mut of.probation.tickets,
                false => &mut of.main.tickets,
            };
            let Some(ticket) = tickets.pop_front() else { return };
            let Some(seat) = split_of(&mut self.keys, ticket) else { continue };
            match seat.place {
                Place::Main if hunts && (seat.fetched || seat.counter > 0) => continue,
                Place::Main if seat.counter > 0 => {
                    seat.counter -= 1;
                    of.main.tickets.push_back(ticket);
                    continue;
                }
                Place::Main => of.main.held -= 1,
                Place::Probation if u32::from(seat.counter) >= PROMOTE_AT => {
                    (seat.place, seat.counter) = (Place::Main, 0);
                    of.probation.held -= 1;
                    of.main.push(ticket);
                    continue;
                }
                Place::Probation => of.probation.held -= 1,
                Place::Ghost | Place::Nowhere => continue,
            }
            seat.place = Place::Ghost;
            of.ghosts.push(ticket);
            return self.forget_ghosts(class);
        }
    }

    fn forget_ghosts(&mut self, class: usize) {
        let room = self.classes[class].room.items / GHOSTS.1 * GHOSTS.0;
        while self.classes[class].ghosts.held > room {
            let of = &mut self.classes[class];
            let Some(ticket) = of.ghosts.tickets.pop_front() else { return };
            let Some(seat) = split_of(&mut self.keys, ticket) else { continue };
            *seat = Seat::default();
            of.ghosts.held -= 1;
            self.drop_if_nowhere(ticket.name);
        }
    }

    // One queue

    fn store_whole(&mut self, name: Name, class: usize) {
        for _ in 0..LEAVE_MAX {
            if self.classes[class].queue.held >= self.classes[class].items() {
                self.evict_whole(class);
            }
        }
        let ticket = self.ticket(name);
        let Some(entry) = self.keys.get_mut(&name) else { return };
        entry.whole = Seat { place: Place::Probation, number: ticket.number, ..Seat::default() };
        self.classes[class].queue.push(ticket);
    }

    fn evict_whole(&mut self, class: usize) {
        for _ in 0..LOOK_MAX {
            let of = &mut self.classes[class];
            let Some(ticket) = of.queue.tickets.pop_front() else { return };
            let Some(entry) = self.keys.get_mut(&ticket.name) else { continue };
            let seat = &mut entry.whole;
            if seat.number != ticket.number {
                continue;
            }
            if u32::from(seat.counter) >= PROMOTE_AT {
                seat.counter = PROMOTE_AT as u8 - 1;
                of.queue.tickets.push_back(ticket);
                continue;
            }
            of.queue.held -= 1;
            *seat = Seat::default();
            return self.drop_if_nowhere(ticket.name);
        }
    }

    /// Forgets a key that neither simulation has, unless the cache does.
    fn drop_if_nowhere(&mut self, name: Name) {
        let Some(entry) = self.keys.get(&name).filter(|entry| entry.is_nowhere()) else { return };
        let class = &mut self.classes[usize::from(entry.class)];
        if !entry.cached {
            self.keys.remove(&name);
            return;
        }
        class.strays.push_back(name);
        if class.strays.len() > class.room.items / STRAYS
            && let Some(oldest) = class.strays.pop_front()
            && self.keys.get(&oldest).is_some_and(Entry::is_nowhere)
        {
            self.remove(oldest);
        }
    }

    /// Takes tickets that count for nothing out of queues that are full of them.
    fn tidy(&mut self, class: usize) {
        let (keys, of) = (&mut self.keys, &mut self.classes[class]);
        let unread = of.main.held;
        for queue in [&mut of.probation, &mut of.main, &mut of.ghosts] {
            if queue.tickets.len() > 2 * queue.held + TICKETS_MIN {
                queue.tickets.retain(|ticket| split_of(keys, *ticket).is_some());
            }
        }
        if of.unread.len() > unread + TICKETS_MIN {
            of.unread.retain(|ticket| split_of(keys, *ticket).is_some());
        }
        if of.queue.tickets.len() > 2 * of.queue.held + TICKETS_MIN {
            let number = |ticket: &Ticket| keys.get(&ticket.name).map(|entry| entry.whole.number);
            of.queue.tickets.retain(|ticket| number(ticket) == Some(ticket.number));
        }
    }
}

/// What a ticket of the split simulation stands for, if it still counts.
fn split_of(keys: &mut RapidHashMap<Name, Entry>, ticket: Ticket) -> Option<&mut Seat> {
    let seat = &mut keys.get_mut(&ticket.name)?.split;
    (seat.number == ticket.number).then_some(seat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Op {
        Read(Name, Option<(usize, Seconds)>),
        Store(Name, usize, Seconds),
        Evict(Name),
        Remove(Name),
        Resize(usize, usize, bool),
        Thin(Name),
        Forget,
    }

    fn op() -> impl Strategy<Value = Op> {
        let (name, class, deadline) = (0..60u32, 0..2usize, prop_oneof![Just(0u32), 1..40u32]);
        let found = prop::option::of((class.clone(), deadline.clone()));
        prop_oneof![
            20 => (name.clone(), found).prop_map(|(name, found)| Op::Read(name, found)),
            30 => (name.clone(), class, deadline).prop_map(|(n, c, d)| Op::Store(n, c, d)),
            10 => name.clone().prop_map(Op::Evict),
            5 => name.clone().prop_map(Op::Remove),
            3 => (0..30usize, 0..10usize, any::<bool>()).prop_map(|(i, p, f)| Op::Resize(i, p, f)),
            1 => name.prop_map(Op::Thin),
            1 => Just(Op::Forget),
        ]
    }

    /// What is counted is what there is.
    fn check(m: &Miniature) {
        for (n, class) in m.classes.iter().enumerate() {
            let count = |is: fn(&Entry) -> bool| {
                m.keys.values().filter(|e| usize::from(e.class) == n && is(e)).count()
            };
            assert_eq!(class.cached, count(|e| e.cached));
            assert_eq!(class.probation.held, count(|e| e.split.place == Place::Probation));
            assert_eq!(class.main.held, count(|e| e.split.place == Place::Main));
            assert_eq!(class.ghosts.held, count(|e| e.split.place == Place::Ghost));
            assert_eq!(class.queue.held, count(|e| e.whole.is_held()));
            assert!(class.queue.tickets.len() >= class.queue.held);
        }
        assert!(m.keys.values().all(|entry| entry.cached || !entry.is_nowhere()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn counts_are_true_whatever_comes(ops in prop::collection::vec(op(), 1..400)) {
            let mut m = Miniature::default();
            m.resize([Room { items: 12, probation: 2, full: true }; 2].into_iter());
            for (now, op) in (0..).zip(ops) {
                let now = now / 10;
                match op {
                    Op::Read(name, found) => _ = m.read(name, found, now),
                    Op::Store(name, class, deadline) => m.store(name, class, deadline, now),
                    Op::Evict(name) => m.evicted(name),
                    Op::Remove(name) => m.remove(name),
                    Op::Resize(items, probation, full) => {
                        m.resize([Room { items, probation, full }; 2].into_iter());
                    }
                    Op::Thin(bit) => m.retain(|name| name & 1 << (bit % 6) == 0),
                    Op::Forget => m.forget(),
                }
                check(&m);
            }
        }
    }
}
