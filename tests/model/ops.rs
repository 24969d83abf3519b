//! What a test case does, one step after the other, and how such steps are made up.

use proptest::prelude::*;
use proptest::sample::select;
use rustcached::command::SetMode;
use rustcached::config::{Layout, Settings};

/// Keys that most steps choose from.
pub const KEYS: u8 = 24;
/// The manual clock's start.
pub const UNIX: u64 = 1_700_000_000;

/// A value to store.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    Number(u64),
    Blanks(u32),
    /// Bytes that follow from length and seed, and are no number.
    Bytes {
        len: u32,
        seed: u8,
    },
}

impl Content {
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Content::Number(n) => n.to_string().into_bytes(),
            Content::Blanks(len) => vec![b' '; len as usize],
            Content::Bytes { len, seed } => {
                (0..len).map(|at| b'A' + (at.wrapping_mul(7) as u8 ^ seed) % 50).collect()
            }
        }
    }
}

/// A CAS unique to compare with, relative to the item's.
#[derive(Clone, Copy, Debug)]
pub enum Compare {
    Same,
    Older,
    Newer,
}

#[derive(Clone, Debug)]
pub struct SetOp {
    pub key: u8,
    pub mode: SetMode,
    pub content: Content,
    pub flags: u32,
    pub exptime: i64,
    pub compare: Option<Compare>,
    pub invalidate: bool,
    pub vivify: Option<i64>,
    pub new_cas: Option<u64>,
    pub return_cas: bool,
    pub drop_old: bool,
}

#[derive(Clone, Debug)]
pub struct FetchOp {
    pub key: u8,
    pub cas: bool,
    pub touch: Option<i64>,
    pub touch_first: bool,
    pub vivify: Option<i64>,
    pub recache: Option<i64>,
    pub new_cas: Option<u64>,
    pub pin: bool,
}

#[derive(Clone, Debug)]
pub struct DeleteOp {
    pub key: u8,
    pub compare: Option<Compare>,
    pub invalidate: bool,
    pub touch: Option<i64>,
    pub drop_value: bool,
    pub flags: u32,
    pub new_cas: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct ArithOp {
    pub key: u8,
    pub increment: bool,
    pub delta: u64,
    pub compare: Option<Compare>,
    pub vivify: Option<i64>,
    pub initial: u64,
    pub touch: Option<i64>,
    pub new_cas: Option<u64>,
    pub return_cas: bool,
}

#[derive(Clone, Debug)]
pub enum Op {
    Set(SetOp),
    Get {
        key: u8,
        bump: bool,
        meta: bool,
        pin: bool,
        unless: Option<Compare>,
    },
    Fetch(FetchOp),
    Delete(DeleteOp),
    Arith(ArithOp),
    Touch {
        key: u8,
        exptime: i64,
    },
    /// A set whose value comes in parts; one of the following ends it.
    Reserve(SetOp),
    Feed {
        which: u8,
        len: u32,
    },
    Commit {
        which: u8,
    },
    Abandon {
        which: u8,
    },
    DropPin {
        which: u8,
    },
    Flush(Option<i64>),
    Advance(u32),
    Tick(u8),
    /// Deletes what a bulk has stored.
    Drop {
        family: u8,
        count: u32,
    },
    /// Stores many items of one size.
    Bulk {
        family: u8,
        count: u32,
        len: u32,
    },
    /// Another -m, MiB.
    Limit(u64),
    /// A page of any class to any, by their numbers.
    Reassign {
        from: u8,
        to: u8,
    },
    /// Where there is a memory file.
    Restart(RestartOp),
}

/// The end of the process, and another start.
#[derive(Clone, Debug)]
pub struct RestartOp {
    pub clean: bool,
    /// Seconds until the next start, and its settings.
    pub down: u32,
    pub megabytes: u64,
    pub checksum: bool,
}

impl SetOp {
    pub fn of(key: u8, content: Content) -> SetOp {
        SetOp {
            key,
            mode: SetMode::Set,
            content,
            flags: 0,
            exptime: 0,
            compare: None,
            invalidate: false,
            vivify: None,
            new_cas: None,
            return_cas: false,
            drop_old: false,
        }
    }
}

impl ArithOp {
    pub fn decr(key: u8, delta: u64) -> ArithOp {
        ArithOp {
            key,
            increment: false,
            delta,
            compare: None,
            vivify: None,
            initial: 0,
            touch: None,
            new_cas: None,
            return_cas: false,
        }
    }
}

/// A store to run steps on.
pub fn settings() -> impl Strategy<Value = Settings> {
    let layout = prop_oneof![2 => Just(Layout::Compact), 1 => Just(Layout::Memcached)];
    let (evict, use_cas) = (prop::bool::weighted(0.7), prop::bool::weighted(0.8));
    let file = (prop::bool::weighted(0.4), any::<bool>());
    (layout, 4u64..=8, evict, use_cas, any::<bool>(), file).prop_map(
        |(layout, megabytes, evict, use_cas, temp_lru, (in_file, checksum))| Settings {
            layout,
            maxbytes: megabytes << 20,
            evict,
            use_cas,
            temp_lru,
            temporary_ttl: 5,
            // As few lines as can be, so that the index grows.
            hashpower_init: 11,
            memory_file: in_file.then(Default::default),
            checksum: in_file && checksum,
            ..Settings::default()
        },
    )
}

pub fn ops(max: usize) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..max)
}

fn op() -> impl Strategy<Value = Op> {
    let which = any::<u8>();
    prop_oneof![
        16 => set().prop_map(Op::Set),
        10 => (key(), any::<bool>(), any::<bool>(), any::<bool>(), maybe(compare()))
            .prop_map(|(key, bump, meta, pin, unless)| Op::Get { key, bump, meta, pin, unless }),
        10 => fetch().prop_map(Op::Fetch),
        5 => delete().prop_map(Op::Delete),
        8 => arith().prop_map(Op::Arith),
        3 => (key(), exptime()).prop_map(|(key, exptime)| Op::Touch { key, exptime }),
        5 => set().prop_map(Op::Reserve),
        4 => (which, 0u32..60_000).prop_map(|(which, len)| Op::Feed { which, len }),
        4 => which.prop_map(|which| Op::Commit { which }),
        2 => which.prop_map(|which| Op::Abandon { which }),
        4 => which.prop_map(|which| Op::DropPin { which }),
        1 => maybe(exptime()).prop_map(Op::Flush),
        3 => (1u32..4).prop_map(Op::Advance),
        3 => (1u8..20).prop_map(Op::Tick),
        2 => bulk(),
        1 => (0u8..6, 0u32..4_000).prop_map(|(family, count)| Op::Drop { family, count }),
        1 => (3u64..9).prop_map(Op::Limit),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Op::Reassign { from, to }),
        2 => restart().prop_map(Op::Restart),
    ]
}

fn restart() -> impl Strategy<Value = RestartOp> {
    let settings = (4u64..=8, any::<bool>());
    (any::<bool>(), 0u32..4, settings).prop_map(|(clean, down, (megabytes, checksum))| RestartOp {
        clean,
        down,
        megabytes,
        checksum,
    })
}

/// About as many bytes each: 200 KB to 3 MB.
fn bulk() -> impl Strategy<Value = Op> {
    let len = prop_oneof![Just(3u32), 30u32..500, 500u32..5_000, 5_000u32..40_000];
    (0u8..6, 200_000u32..3_000_000, len).prop_map(|(family, bytes, len)| Op::Bulk {
        family,
        count: (bytes / (len + 60)).min(4_000),
        len,
    })
}

fn set() -> impl Strategy<Value = SetOp> {
    let mode = select(vec![
        SetMode::Set,
        SetMode::Set,
        SetMode::Add,
        SetMode::Replace,
        SetMode::Append,
        SetMode::Prepend,
        SetMode::Cas,
        SetMode::Cas,
    ]);
    let what = (key(), mode, content(), flags(), exptime());
    let how = (maybe(compare()), any::<bool>(), maybe(exptime()), new_cas());
    (what, how, any::<bool>(), any::<bool>()).prop_map(|(what, how, return_cas, drop_old)| {
        let (key, mode, content, flags, exptime) = what;
        let (compare, invalidate, vivify, new_cas) = how;
        SetOp {
            key,
            mode,
            content,
            flags,
            exptime,
            // Only these two modes look at it.
            compare: if mode == SetMode::Cas { compare.or(Some(Compare::Same)) } else { compare },
            invalidate: invalidate && mode == SetMode::Cas,
            vivify,
            new_cas,
            return_cas,
            drop_old,
        }
    })
}

fn fetch() -> impl Strategy<Value = FetchOp> {
    let times = (maybe(exptime()), maybe(exptime()), maybe(exptime()));
    (key(), times, new_cas(), any::<[bool; 3]>()).prop_map(
        |(key, (touch, vivify, recache), new_cas, [cas, touch_first, pin])| FetchOp {
            key,
            cas,
            touch,
            touch_first,
            vivify,
            recache,
            new_cas,
            pin,
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteOp> {
    let how = (maybe(compare()), maybe(exptime()), flags(), new_cas());
    (key(), how, any::<[bool; 2]>()).prop_map(
        |(key, (compare, touch, flags, new_cas), [invalidate, drop_value])| DeleteOp {
            key,
            compare,
            invalidate,
            touch,
            drop_value,
            flags,
            new_cas,
        },
    )
}

fn arith() -> impl Strategy<Value = ArithOp> {
    let how = (maybe(compare()), maybe(exptime()), maybe(exptime()), new_cas());
    (key(), how, number(), number(), any::<[bool; 2]>()).prop_map(
        |(key, (compare, vivify, touch, new_cas), delta, initial, [increment, return_cas])| {
            ArithOp { key, increment, delta, compare, vivify, initial, touch, new_cas, return_cas }
        },
    )
}

fn key() -> impl Strategy<Value = u8> {
    0..KEYS
}

fn maybe<T: std::fmt::Debug>(s: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::weighted(0.3, s)
}

fn content() -> impl Strategy<Value = Content> {
    let len = prop_oneof![
        6 => 0u32..64,
        4 => 64u32..1_200,
        3 => 1_200u32..9_000,
        2 => 9_000u32..40_000,
        1 => 100_000u32..700_000,
    ];
    prop_oneof![
        2 => number().prop_map(Content::Number),
        1 => (0u32..9_000).prop_map(Content::Blanks),
        4 => (len, any::<u8>()).prop_map(|(len, seed)| Content::Bytes { len, seed }),
    ]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..20, 90u64..110, Just(u64::MAX), any::<u64>()]
}

fn compare() -> impl Strategy<Value = Compare> {
    select(vec![Compare::Same, Compare::Same, Compare::Older, Compare::Newer])
}

fn new_cas() -> impl Strategy<Value = Option<u64>> {
    prop::option::weighted(0.1, 1u64..1 << 40)
}

fn flags() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), any::<u32>()]
}

/// Never, past, soon in both notations, and late.
fn exptime() -> impl Strategy<Value = i64> {
    let absolute = (UNIX as i64..UNIX as i64 + 30).boxed();
    prop_oneof![4 => Just(0), 1 => Just(-1), 4 => 1..12_i64, 1 => absolute, 1 => 100..100_000_i64]
}
