//! What memcached's own tests ask of a debug server: items held up by hand.

use super::Store;
use super::pins::Pin;
use super::types::Key;
use parking_lot::Mutex;
use std::sync::Arc;

/// What `debugitem` does.
#[derive(Clone, Copy, Debug)]
pub enum DebugItem {
    /// Locks the key's line until [`DebugItem::Unlock`]: whoever comes near it waits.
    Lock,
    Unlock,
    /// Pins the item, as a client that never reads would.
    Ref,
    /// Drops the oldest pin of the item; with the key `reffed`, the last pin of all.
    Unref,
}

/// Pins made by hand, with their keys.
#[derive(Default)]
pub(super) struct DebugPins(Mutex<Vec<(Vec<u8>, Pin)>>);

impl Store {
    /// False where there is no such item.
    pub fn debug_item(self: &Arc<Self>, verb: DebugItem, key: Key<'_>) -> bool {
        let hash = self.hash(key);
        let shard = self.shard_of(hash);
        match verb {
            DebugItem::Lock => std::mem::forget(shard.index.lock(hash.0)),
            DebugItem::Unlock => shard.index.unlock_forgotten(hash.0),
            DebugItem::Ref => {
                let line = shard.index.lock(hash.0);
                let found = line.find(|chunk| {
                    let item = shard.item(chunk);
                    item.key_is(item.shape(), key.bytes())
                });
                let Some((_, chunk)) = found else { return false };
                let item = shard.item(chunk);
                let len = item.value_len(item.shape()) as usize;
                let pin = Pin::new(self, self.shard_no(hash), chunk, len);
                self.debug_pins.0.lock().push((key.bytes().to_vec(), pin));
            }
            DebugItem::Unref => {
                let mut pins = self.debug_pins.0.lock();
                let at = match key.bytes() {
                    b"reffed" => pins.len().checked_sub(1),
                    key => pins.iter().position(|(pinned, _)| pinned == key),
                };
                let Some(at) = at else { return false };
                drop(pins.remove(at));
            }
        }
        true
    }
}
