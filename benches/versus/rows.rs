//! The rows of the table: what is stored beforehand, and what is asked.

use crate::live::{Load, Protocol};
use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Row {
    Get1,
    Mix1,
    Get32,
    Mix32,
    Set32,
    Mget50,
    Meta32,
    Many1,
    Bin32,
    Big100k,
    Bigset100k,
    Bigset1m,
    Set32full,
    Cold32,
    Coldm50,
}

/// What a server is started with. Rows of the same one share their servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stock {
    Small,
    /// The same, of servers that only binary is spoken with: it gives items CAS uniques.
    SmallBinary,
    Large,
    /// Values nearly as large as may be.
    Huge,
    /// More than there is room for.
    Full,
    /// More than processors' caches have room for.
    Cold,
}

impl Stock {
    pub const ALL: [Stock; 6] =
        [Stock::Small, Stock::SmallBinary, Stock::Large, Stock::Huge, Stock::Full, Stock::Cold];

    pub fn megabytes(self) -> &'static str {
        if self == Stock::Full { "64" } else { "2048" }
    }

    /// Number of keys, and bytes of each value.
    fn keys(self) -> (u64, usize) {
        match self {
            Stock::Small | Stock::SmallBinary => (100_000, 100),
            Stock::Large => (2_000, 100_000),
            Stock::Huge => (500, 1_000_000),
            Stock::Full | Stock::Cold => (3_000_000, 100),
        }
    }
}

/// Gets of popular keys.
fn gets(stock: Stock, in_flight: usize) -> Load {
    let (keys, value) = stock.keys();
    let zipf = if matches!(stock, Stock::Full | Stock::Cold) { 0.0 } else { 0.99 };
    Load {
        protocol: Protocol::Text,
        connections: 50,
        idle: 0,
        in_flight,
        keys_per_get: 1,
        sets: 0,
        keys,
        zipf,
        value,
    }
}

impl Row {
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    pub fn stock(self) -> Stock {
        match self {
            Row::Bin32 => Stock::SmallBinary,
            Row::Big100k | Row::Bigset100k => Stock::Large,
            Row::Bigset1m => Stock::Huge,
            Row::Set32full => Stock::Full,
            Row::Cold32 | Row::Coldm50 => Stock::Cold,
            _ => Stock::Small,
        }
    }

    pub fn load(self) -> Load {
        let one = gets(self.stock(), 1);
        let many = gets(self.stock(), 32);
        match self {
            Row::Get1 => one,
            Row::Mix1 => Load { sets: 10, ..one },
            Row::Get32 | Row::Cold32 => many,
            Row::Mix32 => Load { sets: 10, ..many },
            Row::Set32 | Row::Set32full => Load { sets: 100, ..many },
            Row::Mget50 | Row::Coldm50 => Load { keys_per_get: 50, ..one },
            Row::Meta32 => Load { sets: 10, protocol: Protocol::Meta, ..many },
            Row::Bin32 => Load { sets: 10, protocol: Protocol::Binary, ..many },
            Row::Many1 => Load { connections: 500, idle: 9_500, ..one },
            Row::Big100k => Load { connections: 16, ..one },
            Row::Bigset100k | Row::Bigset1m => Load { connections: 16, sets: 100, ..one },
        }
    }

    /// What `limit` is asked beside this row: the same, or plain gets as many at a time where it
    /// cannot tell the requests' kinds.
    pub fn limit_load(self) -> Option<Load> {
        let plain = |load: Load| Load { sets: 0, protocol: Protocol::Text, ..load };
        match self {
            Row::Get1
            | Row::Mix1
            | Row::Get32
            | Row::Mix32
            | Row::Meta32
            | Row::Bin32
            | Row::Many1
            | Row::Cold32 => Some(plain(self.load())),
            Row::Set32 | Row::Set32full | Row::Mget50 | Row::Coldm50 => None,
            Row::Big100k | Row::Bigset100k | Row::Bigset1m => None,
        }
    }
}
