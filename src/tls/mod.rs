//! TLS by rustls: certificates, what each kind of listener asks of clients, and the stream that
//! carries a connection's bytes.
//!
//! The files are read at the start and whenever somebody asks for it; connections keep what they
//! began with. A new set of files is used whole or not at all.

mod ciphers;
mod clients;
mod files;
mod sessions;
mod stream;

pub use clients::must_have_one;
pub use files::Files;
pub use stream::{Stream, is_protocol_error};

use crate::clock::Seconds;
use crate::config::{ListenTls, Settings, TlsSettings, TlsVersion};
use crate::stats::TlsStats;
use parking_lot::RwLock;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::UnbufferedServerConnection;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, version};
use sessions::Sessions;
use socket2::Socket;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The kinds of listeners that speak TLS.
const KINDS: [ListenTls; 3] = [ListenTls::Default, ListenTls::NoPeer, ListenTls::Peer];

/// What new connections are served with.
pub struct Tls {
    settings: TlsSettings,
    files: Files,
    provider: Arc<CryptoProvider>,
    /// Kinds that some listener is of.
    used: [bool; KINDS.len()],
    sessions_max: usize,
    stats: Arc<TlsStats>,
    configs: RwLock<Configs>,
}

/// By kind, as in [`KINDS`].
type Configs = [Option<Arc<ServerConfig>>; KINDS.len()];

impl Tls {
    /// Reads the files; without any there is nothing to do. An error names the file and says what
    /// is wrong with it.
    pub fn open(
        files: Option<Files>,
        settings: &Settings,
        stats: Arc<TlsStats>,
    ) -> Result<Option<Arc<Tls>>, String> {
        let Some(files) = files else { return Ok(None) };
        let mut provider = ring::default_provider();
        if let Some(list) = &settings.tls.ciphers {
            provider.cipher_suites = ciphers::chosen(list, &provider.cipher_suites)?;
        }
        let listeners = settings.listen.iter().map(|listen| listen.traits);
        let kinds: Vec<_> = listeners.chain([settings.listen_traits]).map(|t| t.tls).collect();
        let used = KINDS.map(|kind| kinds.contains(&kind));
        let tls = Tls {
            files,
            settings: settings.tls.clone(),
            provider: Arc::new(provider),
            used,
            sessions_max: settings.sessions_max(),
            stats,
            configs: RwLock::default(),
        };
        tls.reload(0)?;
        Ok(Some(Arc::new(tls)))
    }

    /// Reads the files again, for new connections. After an error the old ones stay in use. `now`
    /// is what [`TlsStats::last_cert_refresh`] becomes.
    pub fn reload(&self, now: Seconds) -> Result<(), String> {
        let certified = Arc::new(self.files.certified(&self.provider)?);
        let mut configs = Configs::default();
        for (config, (kind, used)) in configs.iter_mut().zip(KINDS.into_iter().zip(self.used)) {
            // What the files hold is checked even where no listener needs it.
            let made = self.config(kind, certified.clone())?;
            *config = used.then(|| Arc::new(made));
        }
        *self.configs.write() = configs;
        self.stats.last_cert_refresh.store(now, Relaxed);
        Ok(())
    }

    /// A stream over a socket that a listener of this kind accepted, its handshake still to come.
    pub fn accept(&self, kind: ListenTls, socket: Socket) -> Result<Stream, rustls::Error> {
        let at = KINDS.iter().position(|known| *known == kind);
        let config = at.and_then(|at| self.configs.read()[at].clone());
        let config =
            config.ok_or_else(|| rustls::Error::General("not a listener of TLS".into()))?;
        let session = UnbufferedServerConnection::new(config)?;
        let write_max = self.settings.wbuf_size as usize;
        Ok(Stream::new(socket, session, write_max, self.stats.clone()))
    }

    fn config(
        &self,
        kind: ListenTls,
        certified: Arc<CertifiedKey>,
    ) -> Result<ServerConfig, String> {
        let versions: &[_] = match self.settings.min_version {
            TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            TlsVersion::Tls13 => &[&version::TLS13],
        };
        let verifier = clients::verifier(kind, &self.settings, &self.files, &self.provider)?;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(versions)
            .map_err(|e| format!("TLS cannot be set up: {e}"))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        // A session of one kind of listener or of an older set of files is not resumed by another:
        // its client may not have shown the certificate that is asked for.
        if self.settings.session_cache {
            config.session_storage = Arc::new(Sessions::new(self.sessions_max, self.stats.clone()));
        } else {
            config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
            config.ticketer = ring::Ticketer::new().map_err(|e| format!("no tickets: {e}"))?;
        }
        Ok(config)
    }
}
