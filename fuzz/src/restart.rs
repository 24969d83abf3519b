//! Starts on memory files that were damaged, or made to look sound.
//!
//! An input is a byte for the file and what has become of it, one for the settings of the start,
//! and edits of eight bytes. Flipped bits, of which no sum misses as few as [`FLIPS_MAX`], must
//! take items away at the most; after anything else, with the sums at the file's head made good
//! again, the start and what follows must be no danger.

use rustcached::clock::{Clock, Exptime};
use rustcached::config::{Eviction, Layout, Settings};
use rustcached::store::{Arith, Delete, Fetch, FetchOutcome, Get, Key, Local, Set, Store};
use rustix::fs::{SeekFrom, seek};
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, LazyLock, OnceLock};
use tempfile::TempDir;

const UNIX: u64 = 1_700_000_000;
/// Seconds from what a file tells of to the start on it.
const LATER: u64 = 10;
/// Bits of a file's byte: how it was made, and whether sums are made good.
const MEMCACHED: u8 = 1;
const CHECKSUM: u8 = 2;
const CLOSED: u8 = 4;
const FORGED: u8 = 8;
const IMAGES: u8 = 8;
/// Bits that are flipped in a file whose sums are not made good.
const FLIPS_MAX: usize = 3;
const EDIT: usize = 8;
/// The header with the ledger ends here, and records follow.
const HEAD_END: u64 = 64 << 10;
/// No record is from here on.
const ARENA: u64 = 2 << 20;
/// Where a header's sum stands, what it is of but for the sizes, and where their number stands.
const SUM: usize = 8;
const FIXED: Range<usize> = 12..40;
const CLASSES: usize = 28;
/// The ledger's places, and the bytes that one takes.
const PLACES: [usize; 2] = [32 << 10, 48 << 10];
const PLACE_BYTES: usize = 60;
/// How often a value says whose it is, bytes.
const STRIDE: usize = 256;

/// A memory file, in pieces that have something in them.
struct Image {
    settings: Settings,
    len: u64,
    pieces: Vec<(u64, Vec<u8>)>,
    /// Words that are not zero: in the header, the records, the arena.
    words: [Vec<u64>; 3],
    /// What must come back of an undamaged file, and what must not.
    alive: Vec<String>,
    dead: Vec<String>,
}

struct Bench {
    store: Arc<Store>,
    local: Local,
}

/// What a client is told of a hit: value, client flags, seconds left.
type Told = (Vec<u8>, u32, Option<u32>);

/// A value that says whose it is, with little in between.
fn value_of(name: &str, len: usize) -> Vec<u8> {
    let mut value = vec![0; len];
    value.chunks_mut(STRIDE).enumerate().for_each(|(n, part)| {
        let text = format!("{name}.{n}");
        part.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    });
    value
}

fn key(name: &str) -> Key<'_> {
    Key::new(name.as_bytes()).expect("a key")
}

/// Length, client flags and exptime of the n-th item.
fn traits(n: usize) -> (usize, u32, i64) {
    let lens = [0, 1, 7, 60, 300, 900, 3_000, 8_100, 8_200, 20_000, 60_000];
    let exptime = if n % 3 == 1 { 500 } else { 0 };
    (lens[n % lens.len()], (n % 4) as u32, exptime)
}

impl Bench {
    fn start(settings: &Settings, unix: u64) -> Result<Bench, String> {
        let store = Store::new(Arc::new(settings.clone()), Arc::new(Clock::manual(unix)))?;
        Ok(Bench { local: store.local(), store })
    }

    fn set(&self, name: &str, value: &[u8], flags: u32, exptime: i64) -> bool {
        let len = value.len() as u32;
        let set = Set { client_flags: flags, exptime: Exptime(exptime), ..Set::of(key(name), len) };
        self.store.set(&self.local, &set, self.store.hash(set.key), value).is_ok()
    }

    fn has(&self, name: &str) -> bool {
        self.store.inspect(&self.local, key(name), self.store.hash(key(name))).is_some()
    }

    fn get(&self, name: &str) -> Option<Told> {
        self.fetch(&Fetch::of(Get { meta: true, ..Get::of(key(name)) }))
    }

    /// Gives the item a CAS unique, which it has to make room for.
    fn gets(&self, name: &str) -> Option<Told> {
        self.fetch(&Fetch { cas: true, ..Fetch::of(Get::of(key(name))) })
    }

    fn fetch(&self, fetch: &Fetch<'_>) -> Option<Told> {
        let mut told = None;
        let hash = self.store.hash(fetch.get.key);
        let outcome = self.store.fetch(&self.local, fetch, hash, |hit| {
            let mut value = Vec::new();
            hit.copy_value(&mut value);
            assert_eq!(value.len(), hit.value_len() as usize);
            told = Some((value, hit.client_flags(), hit.ttl()));
        });
        told.filter(|_| outcome == FetchOutcome::Hit)
    }

    fn delete(&self, name: &str) {
        self.store.delete(&self.local, &Delete::of(key(name)), self.store.hash(key(name)));
    }

    fn validate(&self) {
        if let Err(fault) = self.store.validate() {
            panic!("{fault}");
        }
    }

    fn ticks(&self) {
        (0..super::TICKS).for_each(|_| {
            self.store.tick(&self.local);
        });
    }

    fn items(&self) -> u64 {
        self.store.stats().levels().iter().map(|(items, _)| items).sum()
    }

    /// Items of every kind, and what went before the end.
    fn fill(&self) -> (Vec<String>, Vec<String>) {
        let mut dead = Vec::new();
        for name in ["flushed", "flushed-large"] {
            self.set(name, &value_of(name, name.len() * 1_000), 0, 0);
            dead.push(name.into());
        }
        self.store.flush_all(&self.local, None);
        let alive: Vec<String> = (0..44).map(|n| format!("item{n}")).collect();
        for (n, name) in alive.iter().enumerate() {
            let (len, flags, exptime) = traits(n);
            // Another value before, of which nothing may be seen again.
            self.set(name, &value_of("old", len / 2 + n), 0, 0);
            assert!(self.set(name, &value_of(name, len), flags, exptime));
            if n % 2 == 0 {
                self.gets(name).expect("a hit");
            }
        }
        for (name, len) in [("deleted", 40), ("deleted-large", 30_000)] {
            self.set(name, &value_of(name, len), 0, 0);
            self.delete(name);
            dead.push(name.into());
        }
        self.set("expired", b"expired", 0, LATER as i64 - 1);
        dead.push("expired".into());
        (alive, dead)
    }

    /// Reads and changes whatever there is.
    fn work(&self, names: &[String]) {
        let mut dump = self.store.dump(self.store.classes(&[1, 2, 3]).expect("classes"));
        while dump.step(&self.local, |listed| assert!(listed.key.len() <= Key::MAX)) {}
        self.store.class_census();
        for (n, name) in names.iter().enumerate() {
            let hash = self.store.hash(key(name));
            match n % 4 {
                0 => self.delete(name),
                1 => {
                    let _ = self.set(name, &value_of(name, n * 700), 7, 100);
                }
                2 => {
                    self.store.arith(&self.local, &Arith::of(key(name), 1), hash);
                }
                _ => {
                    self.gets(name);
                }
            }
        }
        self.ticks();
    }
}

impl Image {
    fn make(kind: u8) -> Image {
        let dir = folder();
        let path = dir.path().join("mem");
        let layout = match kind & MEMCACHED {
            0 => Layout::Compact,
            _ => Layout::Memcached,
        };
        let settings = Settings {
            maxbytes: 2 << 20,
            item_size_max: 128 << 10,
            layout,
            checksum: kind & CHECKSUM != 0,
            memory_file: Some(path.clone()),
            ..Settings::default()
        };
        let bench = Bench::start(&settings, UNIX).expect("a store");
        let (alive, dead) = bench.fill();
        bench.validate();
        assert!(alive.iter().all(|name| bench.has(name)), "something was evicted");
        // A value that was on its way.
        let set = Set::of(key("unfinished"), 30_000);
        let open = bench.store.reserve(&bench.local, &set, bench.store.hash(set.key));
        let open = open.expect("room");
        if kind & CLOSED != 0 {
            drop(open);
            bench.store.close();
        }
        let (len, pieces) = read(&path);
        let mut words = [const { Vec::new() }; 3];
        for (start, bytes) in &pieces {
            for (n, _) in bytes.chunks(4).enumerate().filter(|(_, word)| **word != [0; 4]) {
                let at = start + n as u64 * 4;
                words[usize::from(at >= HEAD_END) + usize::from(at >= ARENA)].push(at);
            }
        }
        assert!(words.iter().all(|words| !words.is_empty()));
        Image { settings, len, pieces, words, alive, dead }
    }

    /// What a client would be told of an item at the start.
    fn knows(&self, n: usize) -> Told {
        let (len, flags, exptime) = traits(n);
        let left = (exptime > 0).then(|| exptime as u32 - LATER as u32);
        (value_of(&self.alive[n], len), flags, left)
    }
}

/// What a file has become.
struct Copy {
    len: u64,
    pieces: Vec<(u64, Vec<u8>)>,
}

impl Copy {
    /// The word at a place of the file, where there is something.
    fn word(&mut self, at: u64) -> Option<&mut [u8; 4]> {
        let (start, bytes) = self.pieces.iter_mut().rev().find(|(start, _)| *start <= at)?;
        bytes[(at - *start) as usize..].first_chunk_mut()
    }

    /// Edits by eight bytes: |what 1|area 1|which word of it 2|a number 4|.
    fn edit(&mut self, image: &Image, edit: &[u8; EDIT], forge: bool) {
        let [what, area, low, high, number @ ..] = *edit;
        let words = &image.words[usize::from(area % 3)];
        let at = words[usize::from(u16::from_le_bytes([low, high])) % words.len()];
        // Beside what is not zero, there is what comes next to it.
        let at = at + u64::from(area / 3 % 4) * 4;
        let by = u32::from_le_bytes(number);
        let Some(word) = self.word(at) else { return };
        let was = u32::from_le_bytes(*word);
        let new = match what % 6 {
            _ if !forge => was ^ 1 << (what % 32),
            0 => was ^ by,
            1 => by,
            2 => was.wrapping_add(by),
            3 => 0,
            4 => {
                // What stands elsewhere: another's header, key, link.
                for n in 0..u64::from(what / 6) {
                    let from = words[by as usize % words.len()] + n * 4;
                    let Some(from) = self.word(from).copied() else { return };
                    let Some(to) = self.word(at + n * 4) else { return };
                    *to = from;
                }
                return;
            }
            _ => {
                self.len = at.min(self.len);
                return;
            }
        };
        *word = new.to_le_bytes();
    }

    /// Makes the sums of header and ledger good again.
    fn forge(&mut self) {
        let bytes = &mut self.pieces[0].1;
        let classes = u32::from_le_bytes(bytes[CLASSES..CLASSES + 4].try_into().expect("a word"));
        let end = FIXED.end + 4 * (classes as usize).min(2_000);
        let sum = crc32fast::hash(&bytes[FIXED.start..end]);
        bytes[SUM..FIXED.start].copy_from_slice(&sum.to_le_bytes());
        for at in PLACES {
            let place = &mut bytes[at..at + PLACE_BYTES];
            let sum = crc32fast::hash(&[&place[..4], &place[8..]].concat());
            place[4..8].copy_from_slice(&sum.to_le_bytes());
        }
    }

    fn write(&self, path: &Path) {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = file.expect("a file");
        for (start, bytes) in &self.pieces {
            file.write_all_at(bytes, *start).expect("room");
        }
        file.set_len(self.len).expect("a length");
    }
}

/// A folder in memory where there is one: an input is a whole file.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    folder.expect("a folder")
}

/// A file's length, and what is in it: all of its head, and the rest but for the holes.
fn read(path: &Path) -> (u64, Vec<(u64, Vec<u8>)>) {
    let file = File::open(path).expect("the file");
    let mut head = vec![0; HEAD_END as usize];
    file.read_exact_at(&mut head, 0).expect("a head");
    let (mut pieces, mut at) = (vec![(0, head)], HEAD_END);
    while let Ok(start) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(start)).expect("an end");
        let mut bytes = vec![0; (at - start) as usize];
        file.read_exact_at(&mut bytes, start).expect("bytes");
        pieces.push((start, bytes));
    }
    (file.metadata().expect("a length").len(), pieces)
}

/// The whole of the target.
pub fn restart(input: &[u8]) {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(folder);
    static MADE: [OnceLock<Image>; IMAGES as usize] = [const { OnceLock::new() }; IMAGES as usize];
    let Some((&[kind, start], edits)) = input.split_first_chunk() else { return };
    let (made, forge) = (kind % IMAGES, kind & FORGED != 0);
    let image = MADE[usize::from(made)].get_or_init(|| Image::make(made));
    let mut copy = Copy { len: image.len, pieces: image.pieces.clone() };
    let most = if forge { usize::MAX } else { FLIPS_MAX };
    for edit in edits.as_chunks().0.iter().take(most) {
        copy.edit(image, edit, forge);
    }
    if forge {
        copy.forge();
    }
    let path = FOLDER.path().join("mem");
    copy.write(&path);
    let mut settings = Settings { memory_file: Some(path), ..image.settings.clone() };
    settings.checksum ^= start & 1 != 0;
    settings.eviction = [Eviction::S3, Eviction::Lru][usize::from(start >> 1 & 1)];
    settings.evict = start & 4 == 0;
    // A smaller one takes items away.
    let same = start & 8 == 0 || settings.layout == Layout::Memcached;
    settings.maxbytes = if same { settings.maxbytes } else { settings.maxbytes / 2 };
    let Ok(bench) = Bench::start(&settings, UNIX + LATER) else { return };
    bench.validate();
    if !forge {
        judge(image, &bench, edits.is_empty() && same);
    }
    let moved = forge && edits.as_chunks::<EDIT>().0.iter().any(|edit| edit[1] % 3 == 0);
    follow(bench, &settings, image, moved);
}

/// What is there must be as it was; with `all`, nothing may be missing.
fn judge(image: &Image, bench: &Bench, all: bool) {
    for (n, name) in image.alive.iter().enumerate() {
        let (is, was) = (bench.get(name), image.knows(n));
        assert!(!all || is.is_some(), "{name} is gone");
        let Some(is) = is else { continue };
        // Only a checksum sees to the values' bytes.
        let same = is.0 == was.0 || !image.settings.checksum && is.0.len() == was.0.len();
        assert!(same && (is.1, is.2) == (was.1, was.2), "{name}");
    }
    for name in &image.dead {
        assert!(bench.get(name).is_none(), "{name} is back");
    }
    assert!(bench.items() <= image.alive.len() as u64);
}

/// The server goes on, and the next start finds what this one leaves.
fn follow(bench: Bench, settings: &Settings, image: &Image, moved: bool) {
    let names: Vec<String> = image.alive.iter().chain(&image.dead).cloned().collect();
    names.iter().for_each(|name| drop(bench.get(name)));
    bench.work(&names);
    bench.validate();
    let live: Vec<&String> = names.iter().filter(|name| bench.has(name)).collect();
    let unix = bench.store.clock().unix(bench.store.clock().now());
    bench.store.close();
    drop(bench);
    let bench = Bench::start(settings, unix).expect("a file of our own");
    bench.validate();
    let told = bench.store.restarted().expect("a memory file");
    assert!(told.warm && told.clean && told.dropped == 0, "{told:?}");
    // Where the header told of other arenas than there are, their records are found only now.
    assert!(told.pages_lost == 0 || moved, "{told:?}");
    for name in live {
        assert!(bench.has(name), "{name} is gone after a clean stop");
    }
}
