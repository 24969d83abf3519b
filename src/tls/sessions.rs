//! `-o ssl_session_cache`: sessions that are kept here, and counted.

use crate::stats::TlsStats;
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Sessions kept; the oldest go first. OpenSSL's number.
const SESSIONS_MAX: usize = 20 << 10;

/// Kept sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    kept: Arc<ServerSessionMemoryCache>,
    stats: Arc<TlsStats>,
}

impl Sessions {
    pub(super) fn new(stats: Arc<TlsStats>) -> Sessions {
        Sessions { kept: ServerSessionMemoryCache::new(SESSIONS_MAX), stats }
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
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
