//! From single options to [`Settings`]: the checks that need more than one of them.

use super::auth;
use super::settings::{Eviction, Layout, Listen, Settings};
use super::size::MIB;
use super::tls;
use std::net::IpAddr;

/// memcached's page, bytes: the largest chunk of its ladder.
pub(super) const PAGE: u32 = MIB as u32;
/// The bounds of -I, bytes.
const ITEM_SIZE_MIN: u64 = 1 << 10;
const ITEM_SIZE_MAX: u64 = 1 << 30;
/// memcached has 63 slab classes, of which the ladder itself adds the largest.
const SLAB_SIZES_MAX: usize = 62;
/// memcached's chunks are multiples of this many bytes.
const CHUNK_ALIGN: u32 = 8;
/// HOT and WARM together, per cent.
const LRU_PCT_MAX: u32 = 80;

/// Settings on their way: what later options may still override.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) settings: Settings,
    /// -I, bytes, unchecked.
    pub(super) item_size_max: u64,
    /// `-o slab_chunk_max`, or a page by `no_chunked_items` or `no_modern`.
    pub(super) chunk_max: u32,
    pub(super) chunk_max_given: bool,
    /// `-o slab_sizes` as given.
    pub(super) slab_sizes: Option<String>,
    /// `-o hot_lru_pct` was given.
    pub(super) hot_given: bool,
    /// The option that asked for chunks of a whole page, if any did.
    pub(super) whole_pages: Option<&'static str>,
}

impl Default for Draft {
    fn default() -> Draft {
        let settings = Settings::default();
        Draft {
            item_size_max: u64::from(settings.item_size_max),
            chunk_max: settings.slab_chunk_size_max,
            settings,
            chunk_max_given: false,
            slab_sizes: None,
            hot_given: false,
            whole_pages: None,
        }
    }
}

impl Draft {
    /// Adds a warning, once.
    pub(super) fn warn(&mut self, text: String) {
        if !self.settings.warnings.contains(&text) {
            self.settings.warnings.push(text);
        }
    }

    /// Adds a note, once.
    pub(super) fn note(&mut self, text: String) {
        if !self.settings.notes.contains(&text) {
            self.settings.notes.push(text);
        }
    }

    /// Checks what depends on several options, whatever their order was.
    pub(super) fn resolve(mut self) -> Result<Settings, String> {
        self.item_size()?;
        self.chunk_sizes()?;
        self.lru()?;
        self.queues()?;
        auth::resolve(&mut self)?;
        tls::resolve(&mut self)?;
        self.unheard();
        self.exposed();
        Ok(self.settings)
    }

    fn item_size(&mut self) -> Result<(), String> {
        let (size, maxbytes) = (self.item_size_max, self.settings.maxbytes);
        if !(ITEM_SIZE_MIN..=ITEM_SIZE_MAX).contains(&size) {
            return Err(format!("-I: must be from 1k to 1024m, not {size} bytes"));
        }
        if size > maxbytes / 2 {
            return Err(format!("-I ({size} bytes) must not exceed half of -m ({maxbytes} bytes)"));
        }
        // ITEM_SIZE_MAX fits.
        self.settings.item_size_max = size as u32;
        if u64::from(self.settings.chunk_size) > size {
            let chunk = self.settings.chunk_size;
            return Err(format!("-n ({chunk} bytes) must not exceed -I ({size} bytes)"));
        }
        Ok(())
    }

    /// memcached's rules for the largest chunk bind only a ladder of memcached's formula.
    fn chunk_sizes(&mut self) -> Result<(), String> {
        let item = self.settings.item_size_max;
        if item > PAGE && !self.chunk_max_given {
            self.chunk_max = PAGE / 2;
        }
        let chunk = self.chunk_max;
        self.settings.slab_chunk_size_max = chunk;
        self.settings.slab_chunk_max = self.chunk_max_given.then_some(chunk);
        if let Some(sizes) = self.slab_sizes.take() {
            self.settings.slab_sizes = slab_sizes(&sizes, self.settings.chunk_size, chunk)
                .map_err(|e| format!("-o slab_sizes: {e}"))?;
        }
        if !self.settings.memcached_ladder() {
            return Ok(());
        }
        if chunk > item {
            return Err(format!("-o slab_chunk_max ({chunk} bytes) exceeds -I ({item} bytes)"));
        }
        if !item.is_multiple_of(chunk) {
            return Err(format!(
                "-I ({item} bytes) must be a multiple of -o slab_chunk_max ({chunk} bytes)"
            ));
        }
        if !PAGE.is_multiple_of(chunk) {
            return Err(format!(
                "-o slab_chunk_max ({chunk} bytes) must divide a page ({PAGE} bytes) evenly"
            ));
        }
        Ok(())
    }

    fn lru(&self) -> Result<(), String> {
        let s = &self.settings;
        let sum = s.hot_lru_pct + s.warm_lru_pct;
        if sum > LRU_PCT_MAX {
            return Err(format!(
                "-o hot_lru_pct and warm_lru_pct add up to {sum}, more than {LRU_PCT_MAX}"
            ));
        }
        if s.temp_lru && !s.lru_maintainer {
            return Err("-o temporary_ttl needs lru_maintainer".into());
        }
        Ok(())
    }

    /// -N, which memcached checks so.
    fn queues(&mut self) -> Result<(), String> {
        let (queues, threads) = (self.settings.napi_ids, self.settings.threads);
        if queues > threads {
            return Err(format!("-N ({queues}) must not exceed -t ({threads})"));
        }
        if queues > 0 {
            self.warn("-N has no effect: connections go to the threads in turn".into());
        }
        Ok(())
    }

    /// Says which of the options given cannot be heard beside the others.
    fn unheard(&mut self) {
        if let Some(name) = self.whole_pages
            && self.settings.layout == Layout::Compact
            && !self.settings.memcached_ladder()
        {
            self.warn(format!("-o {name} changes chunk sizes only with -o layout=memcached"));
        }
        let probation = self.settings.eviction == Eviction::S3 && self.settings.lru_segmented;
        if self.hot_given && !probation {
            let why =
                "there is no probation with eviction=lru, eviction=sieve or no_lru_maintainer";
            self.warn(format!("-o hot_lru_pct steers nothing: {why}"));
        }
        let (discard, checksum) = (self.settings.memory_file_discard, self.settings.checksum);
        for (name, given) in [("memory_file_discard", discard), ("checksum", checksum)] {
            if given && self.settings.memory_file.is_none() {
                self.warn(format!("-o {name} steers nothing without -e"));
            }
        }
        if self.settings.unix_socket.is_some() && self.settings.inter.is_some() {
            self.warn("-l has no effect beside -s, which turns the network off".into());
        }
        if self.settings.unix_socket.is_some() && self.settings.udp_port != 0 {
            self.warn("-U has no effect beside -s, which turns the network off".into());
        }
    }

    /// A UDP request may be sent in anybody's name, so its port is worth a word.
    fn exposed(&mut self) {
        let local = |listen: &Listen| {
            let address = listen.host.parse::<IpAddr>();
            listen.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        };
        if !self.settings.udp.listen.iter().all(local) {
            let advice = "keep it off the public network, by a firewall or -l 127.0.0.1";
            self.warn(format!("-U: UDP answers whoever a request says it is from; {advice}"));
        }
    }
}

/// Chunk sizes in ascending order, joined by dashes.
fn slab_sizes(text: &str, least: u32, most: u32) -> Result<Vec<u32>, String> {
    let mut sizes: Vec<u32> = Vec::new();
    for part in text.split('-').filter(|part| !part.is_empty()) {
        let size = part.trim().parse().ok().filter(|s| (least..=most).contains(s));
        let size =
            size.ok_or_else(|| format!("'{part}' is not a size from {least} (-n) to {most}"))?;
        // The first one has nothing below it: memcached compares it with 0.
        let last = sizes.last().copied().unwrap_or(0);
        if size <= last + CHUNK_ALIGN {
            return Err(format!("{size} must exceed {last} by more than {CHUNK_ALIGN} bytes"));
        }
        sizes.push(size);
    }
    match sizes.len() {
        0 => Err("names no size".into()),
        1..=SLAB_SIZES_MAX => Ok(sizes),
        n => Err(format!("{n} sizes are more than {SLAB_SIZES_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slab_sizes_ascend_with_gaps() {
        assert_eq!(slab_sizes("100-200-300", 48, 524_288), Ok(vec![100, 200, 300]));
        assert_eq!(slab_sizes("48-57", 48, 524_288), Ok(vec![48, 57]));
        for (bad, part) in [
            ("", "names no size"),
            ("-", "names no size"),
            ("47", "from 48"),
            ("100-600000", "to 524288"),
            ("100-x", "'x' is not a size"),
            ("200-100", "must exceed 200"),
            ("100-108", "must exceed 100"),
        ] {
            let error = slab_sizes(bad, 48, 524_288).expect_err(bad);
            assert!(error.contains(part), "{bad}: {error}");
        }
        let joined = |n: u32| (1..=n).map(|i| (i * 100).to_string()).collect::<Vec<_>>().join("-");
        assert_eq!(slab_sizes(&joined(62), 48, 524_288).map(|s| s.len()), Ok(62));
        assert!(slab_sizes(&joined(63), 48, 524_288).is_err_and(|e| e.contains("more than 62")));
    }
}
