//! `-o ssl_session_cache`: sessions that are kept here, and counted.

use crate::config::SESSION;
use crate::stats::TlsStats;
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What is kept of a session at the most, with its place in the table: one whose client has shown
/// many certificates is not.
const SESSION_MAX: usize = SESSION as usize - 512;

/// Kept sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    kept: Arc<ServerSessionMemoryCache>,
    stats: Arc<TlsStats>,
}

impl Sessions {
    /// Keeps so many, of which the oldest go first.
    pub(super) fn new(most: usize, stats: Arc<TlsStats>) -> Sessions {
        Sessions { kept: ServerSessionMemoryCache::new(most), stats }
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        if key.len() + value.len() > SESSION_MAX {
            return false;
        }
        self.stats.ssl_new_sessions.fetch_add(1, Relaxed);
        self.kept.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.kept.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.kept.take(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}
