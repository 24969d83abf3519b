//! What stands at the start of a memory file and stays as long as its items: how they are laid.
//!
//! ```text
//! |magic 8|sum 4|version 4|layout 4|page size 4|shards 4|classes 4|hash seed 8|sizes 4 each|
//! ```
//!
//! All words are little-endian. The sum covers everything behind it.

use super::ledger;
use crate::config::{Layout, Settings};
use slab::Geometry;
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of the header with the ledger.
pub(super) const HEADER_BYTES: usize = 64 << 10;
const MAGIC: &[u8; 8] = b"rustcmem";
/// Changes with anything that is laid differently, in pages, chunks, items or here.
const VERSION: u32 = 1;
const WORDS_MAX: usize = (ledger::FIRST - MAGIC.len()) / 4;
/// Words before the sizes, from the sum on.
const FIXED_WORDS: usize = 8;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub layout: Layout,
    pub shards: u32,
    pub seed: u64,
    /// Without the tail, which every item in a file has.
    pub geometry: Geometry,
}

/// Why what is in a file cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It is something else.
    Foreign,
    Unreadable(String),
    Short,
    OtherVersion(u32),
    Damaged(&'static str),
    OtherLayout,
    TooFewShards,
    OtherBoot,
}

impl Unusable {
    /// Of a file that ends within its header.
    pub fn short_or_foreign(file: &File) -> Unusable {
        let mut magic = [0; MAGIC.len()];
        match file.read_exact_at(&mut magic, 0) {
            Ok(()) if &magic == MAGIC => Unusable::Short,
            _ => Unusable::Foreign,
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Foreign => write!(f, "no memory file of rustcached"),
            Unusable::Unreadable(why) => write!(f, "cannot be read ({why})"),
            Unusable::Short => write!(f, "the file was cut off within its header"),
            Unusable::OtherVersion(n) => {
                write!(f, "the file is of another version ({n}, not {VERSION})")
            }
            Unusable::Damaged(what) => write!(f, "the {what} of the file is damaged"),
            Unusable::OtherLayout => write!(f, "the file is of the other -o layout"),
            Unusable::TooFewShards => {
                write!(f, "-m is larger than the file's arenas can become (15g each)")
            }
            Unusable::OtherBoot => write!(
                f,
                "the system went down with the file in use, so what is in it may be incomplete"
            ),
        }
    }
}

impl Header {
    pub fn new(s: &Settings, geometry: &Geometry, shards: u32) -> Header {
        let seed = RandomState::new().build_hasher().finish();
        Header { layout: s.layout, shards, seed, geometry: geometry.clone() }
    }

    /// Empties the file and writes this at its start.
    pub fn create(self, file: &File) -> io::Result<Header> {
        file.set_len(0)?;
        file.write_all_at(&self.bytes(), 0)?;
        // There has to be room for it, whatever may come.
        file.write_all_at(&vec![0; HEADER_BYTES - ledger::FIRST], ledger::FIRST as u64)?;
        Ok(self)
    }

    fn bytes(&self) -> Vec<u8> {
        let sizes: Vec<u32> =
            self.geometry.classes().map(|class| self.geometry.whole_size(class)).collect();
        let layout = u32::from(self.layout == Layout::Memcached);
        let fixed = [VERSION, layout, self.geometry.page_size(), self.shards, sizes.len() as u32];
        let seed = [self.seed as u32, (self.seed >> 32) as u32];
        let words = fixed.into_iter().chain(seed).chain(sizes);
        let body: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        let sum = crc32fast::hash(&body).to_le_bytes();
        [&MAGIC[..], &sum, &body].concat()
    }

    /// `bytes` begin with a header.
    pub fn parse(bytes: &[u8]) -> Result<Header, Unusable> {
        let Some(rest) = bytes.strip_prefix(MAGIC) else { return Err(Unusable::Foreign) };
        let words: Vec<u32> =
            rest.as_chunks::<4>().0.iter().map(|w| u32::from_le_bytes(*w)).collect();
        let damaged = Unusable::Damaged("header");
        let [sum, version, layout, page_size, shards, classes, seed_low, seed_high] =
            words[..FIXED_WORDS].try_into().expect("a header is longer");
        let end = FIXED_WORDS + classes as usize;
        if end > WORDS_MAX || crc32fast::hash(&rest[4..end * 4]) != sum {
            // That of another version may be made otherwise.
            return Err(if version == VERSION { damaged } else { Unusable::OtherVersion(version) });
        }
        if version != VERSION {
            return Err(Unusable::OtherVersion(version));
        }
        let layout = if layout == 0 { Layout::Compact } else { Layout::Memcached };
        let geometry = Geometry::new(page_size, words[FIXED_WORDS..end].to_vec());
        let geometry = geometry.map_err(|_| Unusable::Damaged("ladder"))?;
        if !page_size.is_power_of_two() || shards == 0 {
            return Err(damaged);
        }
        let seed = u64::from(seed_low) | u64::from(seed_high) << 32;
        Ok(Header { layout, shards, seed, geometry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let ladder = Geometry::compact(65_536, 1.08, 24).expect("a ladder");
        Header::new(&Settings::default(), &ladder, 1)
    }

    fn padded(header: &Header) -> Vec<u8> {
        let mut bytes = header.bytes();
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    #[test]
    fn a_header_comes_back_as_it_was() {
        let header = header();
        assert_eq!(Header::parse(&padded(&header)), Ok(header));
    }

    #[test]
    fn the_largest_ladder_fits() {
        let ladder = Geometry::new(1 << 20, (6..1029).map(|n| n * 4).collect()).expect("a ladder");
        let header = Header { geometry: ladder, ..header() };
        assert!(header.bytes().len() <= ledger::FIRST);
        assert_eq!(Header::parse(&padded(&header)), Ok(header));
    }

    #[test]
    fn every_bit_counts() {
        let header = header();
        let good = padded(&header);
        for bit in 0..header.bytes().len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::parse(&bad).is_err(), "bit {bit}");
        }
    }
}
