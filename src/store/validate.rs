//! Walks everything and says what disagrees: for tests and fuzzing, while nobody else is at work.

use super::Store;
use super::evict;
use super::shard::Shard;
use crate::config::Eviction;
use crate::item::{State, chunks_of};
use std::collections::{HashMap, HashSet};

impl Store {
    /// Checks I1 to I6; `Err` names what is broken.
    pub fn validate(&self) -> Result<(), String> {
        let mut levels = HashMap::new();
        for (n, shard) in self.shards.iter().enumerate() {
            shard.slabs.validate().map_err(|e| format!("shard {n}: {e}"))?;
            self.check_shard(shard, &mut levels).map_err(|e| format!("shard {n}: {e}"))?;
        }
        for (class, (items, bytes)) in self.stats.levels().into_iter().enumerate() {
            let counted = levels.get(&(class as u16)).copied().unwrap_or((0, 0));
            if counted != (items, bytes) {
                return Err(format!("class {class}: {counted:?} held, {items}, {bytes} counted"));
            }
        }
        let sizes: u64 = self.sizes().iter().map(|(_, n)| n).sum();
        let held: u64 = levels.values().map(|(items, _)| items).sum();
        if sizes != held {
            return Err(format!("{held} items held, {sizes} in the histogram"));
        }
        Ok(())
    }

    fn check_shard(
        &self,
        shard: &Shard,
        levels: &mut HashMap<u16, (u64, u64)>,
    ) -> Result<(), String> {
        let mut indexed = HashSet::new();
        let mut keys = HashSet::new();
        let mut nodes = 0;
        for line in 0..shard.index.span() {
            let mut chunks = Vec::new();
            nodes += shard.index.visit_line(line, |chunk| chunks.push(chunk));
            for chunk in chunks {
                let item = shard.item(chunk);
                let mut key = Vec::new();
                item.copy_key(item.shape(), &mut key);
                if item.standing().state() != State::Linked || !indexed.insert(chunk) {
                    return Err(format!("{chunk:?} is indexed wrongly or twice"));
                }
                let hash = shard.hash_bytes(&key);
                if shard.index.lock(hash).find(|c| c == chunk).is_none() {
                    return Err(format!("{chunk:?} is under the wrong line"));
                }
                if !keys.insert(key) {
                    return Err(format!("{chunk:?}: its key is in the index twice"));
                }
                let class = shard.slabs.class_of(chunk);
                let level = levels.entry(class.0).or_default();
                level.0 += 1;
                level.1 += shard.counted_size(&item.plan(item.shape())) as u64;
            }
        }
        if nodes != shard.index.used_nodes() {
            return Err(format!("{nodes} nodes linked, {} in use", shard.index.used_nodes()));
        }
        shard.check_arrivals()?;
        self.check_chunks(shard, &indexed)
    }

    /// Every chunk of every page is free, reserved, or accounted for by the index or a pin.
    fn check_chunks(&self, shard: &Shard, indexed: &HashSet<slab::ChunkRef>) -> Result<(), String> {
        let bodies: HashSet<_> =
            indexed.iter().flat_map(|c| chunks_of(&shard.slabs, *c).skip(1)).collect();
        let (mut linked, mut dying) = (0, 0);
        for class in shard.slabs.geometry().classes() {
            let one_queue = shard.rule().eviction != Eviction::S3 && !shard.tending.lock().is_on();
            let guard = shard.slabs.lock(class);
            evict::check(&guard, one_queue).map_err(|e| format!("class {}: {e}", class.0))?;
            let pages = guard.pages().to_vec();
            drop(guard);
            for page in pages {
                for index in 0..shard.slabs.geometry().chunks_per_page(class) {
                    let chunk = shard.slabs.chunk_at(page, class, index);
                    let standing = shard.item(chunk).standing();
                    match standing.state() {
                        State::Linked => linked += 1,
                        State::Dying => dying += 1,
                        State::Free if bodies.contains(&chunk) => {
                            return Err(format!("{chunk:?} is free and a body"));
                        }
                        _ => {}
                    }
                }
            }
        }
        if linked != indexed.len() {
            return Err(format!("{linked} chunks linked, {} indexed", indexed.len()));
        }
        if dying > shard.pins.len() {
            return Err(format!("{dying} dying, {} pinned", shard.pins.len()));
        }
        Ok(())
    }
}
