//! The eight bytes before every key: two atomic words.
//!
//! ```text
//! word 0, standing   |state 2|counter 2|fetched 1|second of last access 27|
//! word 1, shape      |stale place|temp|win|stale|binary key|queued|pinned|wide|cas|flags|exptime|
//!                    |value length 13|key length 8|
//! of a body          |stale place|queued| |bytes of the value 21|
//! ```
//!
//! The standing changes by compare-and-swap, so that a late reader can never bring a freed chunk
//! back to life; the shape's bits change by atomic OR and AND only.

/// Where a chunk is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// On a free list.
    Free = 0,
    /// Handed out, not visible: a value on its way, or a chain's body.
    Reserved = 1,
    /// In the index.
    Linked = 2,
    /// Out of the index, kept while somebody still sends its value.
    Dying = 3,
}

const STATE_SHIFT: u32 = 30;
const COUNTER_SHIFT: u32 = 28;
const FETCHED: u32 = 1 << 27;
const SECOND_MASK: u32 = FETCHED - 1;
/// Seconds that can be told apart as before and after: 2 years.
pub const SECONDS_APART: u32 = SECOND_MASK / 2;
/// In a reserved chunk: the body of a chain.
const BODY: u32 = 1;

/// Highest value of the access counter.
pub const COUNTER_MAX: u32 = 3;

/// Word 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing(pub u32);

impl Standing {
    pub const FREE: Standing = Standing(0);
    pub const RESERVED: Standing = Standing((State::Reserved as u32) << STATE_SHIFT);
    pub const BODY: Standing = Standing(Standing::RESERVED.0 | BODY);

    /// A newly linked item's.
    pub fn linked(counter: u32, second: u32) -> Standing {
        Standing(
            (State::Linked as u32) << STATE_SHIFT
                | counter.min(COUNTER_MAX) << COUNTER_SHIFT
                | (second & SECOND_MASK),
        )
    }

    /// Of a new item in this one's place, stored at `second`: the counter is inherited.
    #[inline]
    pub fn stored_over(self, second: u32) -> Standing {
        Standing::linked(self.counter(), self.second_from(second))
    }

    #[inline]
    pub fn state(self) -> State {
        match self.0 >> STATE_SHIFT {
            0 => State::Free,
            1 => State::Reserved,
            2 => State::Linked,
            _ => State::Dying,
        }
    }

    pub fn is_body(self) -> bool {
        self.0 == Standing::BODY.0
    }

    /// Times it was accessed of late, 0 to [`COUNTER_MAX`].
    #[inline]
    pub fn counter(self) -> u32 {
        self.0 >> COUNTER_SHIFT & COUNTER_MAX
    }

    #[inline]
    pub fn fetched(self) -> bool {
        self.0 & FETCHED != 0
    }

    /// Seconds from the last access to `now`; both wrap at 2^27 (4 years).
    #[inline]
    pub fn idle(self, now: u32) -> u32 {
        let idle = now.wrapping_sub(self.0) & SECOND_MASK;
        // An access stamped ahead of the clock (after a flush) is no time ago.
        if idle > SECONDS_APART { 0 } else { idle }
    }

    /// True where the last access was at `moment` or before.
    #[inline]
    pub fn at_or_before(self, moment: u32) -> bool {
        moment.wrapping_sub(self.0) & SECOND_MASK <= SECONDS_APART
    }

    /// The second of the last access; it wraps as in [`Standing::idle`].
    pub fn second(self) -> u32 {
        self.0 & SECOND_MASK
    }

    /// `second`, or that of the last access where it is later.
    #[inline]
    pub fn second_from(self, second: u32) -> u32 {
        (if self.at_or_before(second) { second } else { self.0 }) & SECOND_MASK
    }

    /// After an access at `second`, unless a later one is noted already. Equal to `self` where a
    /// hot item was seen already this second.
    #[inline]
    pub fn accessed(self, second: u32) -> Standing {
        let counter = (self.counter() + 1).min(COUNTER_MAX);
        let kept = self.0 & ((State::Dying as u32) << STATE_SHIFT);
        Standing(kept | counter << COUNTER_SHIFT | FETCHED | self.second_from(second))
    }

    pub fn with_counter(self, counter: u32) -> Standing {
        let cleared = self.0 & !(COUNTER_MAX << COUNTER_SHIFT);
        Standing(cleared | counter.min(COUNTER_MAX) << COUNTER_SHIFT)
    }

    pub fn with_fetched(self, fetched: bool) -> Standing {
        Standing(if fetched { self.0 | FETCHED } else { self.0 & !FETCHED })
    }

    pub fn with_second(self, second: u32) -> Standing {
        Standing(self.0 & !SECOND_MASK | second & SECOND_MASK)
    }

    pub fn with_state(self, state: State) -> Standing {
        let cleared = self.0 & !((State::Dying as u32) << STATE_SHIFT);
        Standing(cleared | (state as u32) << STATE_SHIFT)
    }
}

const LEN_SHIFT: u32 = 8;
const LEN_MASK: u32 = 0x1FFF;

/// Where a body has its share of the value's length: below the bits.
const BODY_LEN_MASK: u32 = (1 << 21) - 1;

/// Longest value whose length fits the header; longer ones are wide.
pub const NARROW_MAX: u32 = LEN_MASK;

/// Word 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape(pub u32);

impl Shape {
    pub const EXPTIME: u32 = 1 << 21;
    pub const FLAGS: u32 = 1 << 22;
    pub const CAS: u32 = 1 << 23;
    /// The value's length and all optional fields stand before the value, at fixed places.
    pub const WIDE: u32 = 1 << 24;
    /// Somebody is sending the value from its chunks.
    pub const PINNED: u32 = 1 << 25;
    /// In its class's queue (guarded by the class lock).
    pub const QUEUED: u32 = 1 << 26;
    pub const BINARY_KEY: u32 = 1 << 27;
    pub const STALE: u32 = 1 << 28;
    pub const WIN: u32 = 1 << 29;
    /// `temporary_ttl`: evicted only where its class holds next to nothing else.
    pub const TEMP: u32 = 1 << 30;
    /// In its class's queue there still is a place from the chunk's last life, before any that
    /// [`Shape::QUEUED`] speaks of (guarded by the class lock).
    pub const STALE_PLACE: u32 = 1 << 31;
    /// What belongs to the chunk, whatever item is in it.
    pub const PLACES: u32 = Shape::QUEUED | Shape::STALE_PLACE;
    /// What a narrow item's size follows from.
    const MEASURES: u32 =
        0xFF | LEN_MASK << LEN_SHIFT | Shape::EXPTIME | Shape::FLAGS | Shape::CAS | Shape::WIDE;
    /// In a wide item, where the length would be: the value goes on in body chunks.
    const CHAINED: u32 = 1 << LEN_SHIFT;

    pub fn narrow(key_len: usize, value_len: u32, bits: u32) -> Shape {
        debug_assert!(value_len <= NARROW_MAX);
        Shape(key_len as u32 | value_len << LEN_SHIFT | bits)
    }

    pub fn wide(key_len: usize, chained: bool, bits: u32) -> Shape {
        let chain = if chained { Shape::CHAINED } else { 0 };
        Shape(key_len as u32 | chain | Shape::WIDE | bits)
    }

    /// Of a chain's body, for so many bytes of the value.
    pub fn body(len: usize) -> Shape {
        debug_assert!(len <= BODY_LEN_MASK as usize);
        Shape(len as u32)
    }

    pub fn body_len(self) -> usize {
        (self.0 & BODY_LEN_MASK) as usize
    }

    #[inline]
    pub fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    #[inline]
    pub fn key_len(self) -> usize {
        (self.0 & 0xFF) as usize
    }

    /// Length of a narrow item's value.
    #[inline]
    pub fn narrow_len(self) -> u32 {
        self.0 >> LEN_SHIFT & LEN_MASK
    }

    /// True where it stands in its class's queue on its own account.
    #[inline]
    pub fn queued(self) -> bool {
        self.has(Shape::QUEUED)
    }

    /// True where both are narrow and of one size, part by part.
    #[inline]
    pub fn measures_as(self, other: Shape) -> bool {
        (self.0 ^ other.0) & Shape::MEASURES == 0 && !self.has(Shape::WIDE)
    }

    /// True where it is narrow, and nobody sends its value from its chunk.
    #[inline]
    pub fn is_plain(self) -> bool {
        !self.has(Shape::WIDE | Shape::PINNED)
    }

    pub fn chained(self) -> bool {
        self.has(Shape::WIDE) && self.has(Shape::CHAINED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_keeps_its_parts_apart() {
        let s = Standing::linked(0, 5).accessed(9);
        assert_eq!((s.state(), s.counter(), s.fetched(), s.idle(12)), (State::Linked, 1, true, 3));
        let hot = s.accessed(9).accessed(9);
        assert_eq!(hot.accessed(9), hot, "a hot item is read-only within its second");
        assert_eq!(hot.accessed(8), hot, "a late access does not turn it back");
        assert_eq!(hot.with_counter(0).counter(), 0);
        assert_eq!(hot.with_state(State::Dying).state(), State::Dying);
        assert_eq!(hot.idle(8), 0, "stamped ahead of the clock");
    }

    #[test]
    fn seconds_wrap() {
        let s = Standing::linked(0, SECOND_MASK);
        assert!(s.at_or_before(SECOND_MASK) && s.at_or_before(SECOND_MASK + 10));
        assert!(!s.at_or_before(SECOND_MASK - 1));
        assert_eq!(s.idle(SECOND_MASK + 3), 3);
    }

    #[test]
    fn shapes_carry_lengths_and_bits() {
        let s = Shape::narrow(250, NARROW_MAX, Shape::CAS | Shape::TEMP);
        assert_eq!((s.key_len(), s.narrow_len()), (250, NARROW_MAX));
        assert!(s.has(Shape::CAS) && s.has(Shape::TEMP) && !s.has(Shape::WIDE) && !s.chained());
        let more = Shape::narrow(250, NARROW_MAX, Shape::CAS | Shape::QUEUED);
        assert!(s.measures_as(more) && !s.measures_as(Shape::narrow(250, NARROW_MAX, 0)));
        assert!(!Shape::wide(3, true, 0).measures_as(Shape::wide(3, true, 0)));
        assert!(Shape::wide(3, true, 0).chained() && !Shape::wide(3, false, 0).chained());
    }
}
