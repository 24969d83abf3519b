//! What is read again on SIGHUP.

use super::Shared;
use log::{info, warn};

/// Reads something again, without touching the connections. Where that fails, what was there stays
/// in use, and the error says why.
type Reload = Box<dyn Fn() -> Result<(), String>>;

/// All of it, by name.
pub(super) struct Reloads(Vec<(&'static str, Reload)>);

impl Reloads {
    pub(super) fn new(shared: &Shared) -> Reloads {
        let mut all: Vec<(&'static str, Reload)> = Vec::new();
        if shared.auth.file.is_some() {
            let auth = shared.auth.clone();
            let users = move || auth.file.as_ref().map_or(Ok(()), |file| file.reload());
            all.push(("the auth file", Box::new(users)));
        }
        if let Some(tls) = shared.tls.clone() {
            let store = shared.store.clone();
            let certificates = move || tls.reload(store.clock().now());
            all.push(("the certificates", Box::new(certificates)));
        }
        Reloads(all)
    }

    /// One that fails keeps none of the others from being tried.
    pub(super) fn run(&self) {
        if self.0.is_empty() {
            info!("SIGHUP: there is nothing to reload");
        }
        for (name, reload) in &self.0 {
            match reload() {
                Ok(()) => info!("SIGHUP: read {name} again"),
                Err(e) => warn!("SIGHUP: {name} stays as it was: {e}"),
            }
        }
    }
}
