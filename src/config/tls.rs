//! `-Z` and the `ssl_*` sub-options of -o.

use super::resolve::Draft;
use super::settings::{ListenTls, Settings};
use super::size::{KIB, number};

/// `-o ssl_verify_mode`: what is asked of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyMode {
    /// No certificate.
    #[default]
    None = 0,
    /// One that is verified where there is one.
    Request = 1,
    /// One that is verified.
    Require = 2,
    /// The same: a connection is only ever verified once.
    Once = 3,
}

/// `-o ssl_keyformat`, by OpenSSL's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFormat {
    #[default]
    Pem = 1,
    Der = 2,
}

/// `-o ssl_min_version`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    #[default]
    Tls12,
    Tls13,
}

impl TlsVersion {
    /// As `stats settings` names it.
    pub fn name(self) -> &'static str {
        match self {
            TlsVersion::Tls12 => "tlsv1.2",
            TlsVersion::Tls13 => "tlsv1.3",
        }
    }
}

/// What TLS was told. Paths stay as given, for `stats settings`.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// -Z
    pub enabled: bool,
    pub chain_cert: Option<String>,
    /// `None`: the key is in the file of the chain.
    pub key: Option<String>,
    pub verify_mode: VerifyMode,
    pub key_format: KeyFormat,
    pub ciphers: Option<String>,
    pub ca_cert: Option<String>,
    /// Bytes of answers that are encrypted at once.
    pub wbuf_size: u32,
    pub session_cache: bool,
    pub min_version: TlsVersion,
}

/// The defaults; without -Z there is no TLS.
pub(super) const NO_TLS: TlsSettings = TlsSettings {
    enabled: false,
    chain_cert: None,
    key: None,
    verify_mode: VerifyMode::None,
    key_format: KeyFormat::Pem,
    ciphers: None,
    ca_cert: None,
    wbuf_size: 16 << 10,
    session_cache: false,
    min_version: TlsVersion::Tls12,
};

/// `-o ssl_wbuf_size`, KiB.
const WBUF_KIB_MAX: u32 = 64 << 10;

pub(super) fn chain_cert(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.tls.chain_cert = Some(path(text)?);
    Ok(())
}

pub(super) fn key(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.tls.key = Some(path(text)?);
    Ok(())
}

pub(super) fn ca_cert(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.tls.ca_cert = Some(path(text)?);
    Ok(())
}

fn path(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("names no file".into()) } else { Ok(text.into()) }
}

pub(super) fn verify_mode(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.tls.verify_mode = match number(text, 0..=3)? {
        0 => VerifyMode::None,
        1 => VerifyMode::Request,
        2 => VerifyMode::Require,
        _ => VerifyMode::Once,
    };
    Ok(())
}

pub(super) fn key_format(draft: &mut Draft, text: &str) -> Result<(), String> {
    let format = number(text, 1..=2).map_err(|e| format!("{e} (1 is PEM, 2 is DER)"))?;
    draft.settings.tls.key_format = if format == 1 { KeyFormat::Pem } else { KeyFormat::Der };
    Ok(())
}

pub(super) fn ciphers(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.tls.ciphers = Some(text.into());
    Ok(())
}

pub(super) fn wbuf_size(draft: &mut Draft, text: &str) -> Result<(), String> {
    draft.settings.tls.wbuf_size = number(text, 1..=WBUF_KIB_MAX)? * KIB as u32;
    Ok(())
}

pub(super) fn min_version(draft: &mut Draft, text: &str) -> Result<(), String> {
    let version = number(text, 0..=3)?;
    if version < 2 {
        let given = if version == 0 { "1.0" } else { "1.1" };
        draft.warn(format!(
            "-o ssl_min_version={version}: TLS {given} is not spoken any more, 1.2 is the least"
        ));
    }
    draft.settings.tls.min_version =
        if version == 3 { TlsVersion::Tls13 } else { TlsVersion::Tls12 };
    Ok(())
}

/// Checks -Z against the other options, and says which are not heard.
pub(super) fn resolve(draft: &mut Draft) -> Result<(), String> {
    let (settings, tls) = (&draft.settings, &draft.settings.tls);
    let named = [&tls.chain_cert, &tls.key, &tls.ca_cert, &tls.ciphers];
    if !tls.enabled {
        if named.iter().any(|option| option.is_some()) {
            draft.warn("-o ssl_*: without -Z there is no TLS, all connections are plain".into());
        }
        return Ok(());
    }
    if tls.chain_cert.is_none() {
        return Err("-Z needs -o ssl_chain_cert=FILE".into());
    }
    if settings.tcp_port == 0 && settings.unix_socket.is_none() {
        return Err("-Z needs a TCP port, but -p is 0".into());
    }
    let (in_the_clear, unix) = (!settings.udp.listen.is_empty(), settings.unix_socket.is_some());
    if in_the_clear {
        draft.warn("-U beside -Z: UDP has no encryption, what it asks and answers is open".into());
    }
    if unix {
        draft.warn("-Z has no effect beside -s: the unix socket speaks no TLS".into());
    } else if asks_for_certificates(&draft.settings) && draft.settings.tls.ca_cert.is_none() {
        draft.warn("no certificate of a client can be verified without -o ssl_ca_cert".into());
    }
    Ok(())
}

fn asks_for_certificates(settings: &Settings) -> bool {
    settings.listen.iter().any(|listen| match listen.traits.tls {
        ListenTls::Off | ListenTls::NoPeer => false,
        ListenTls::Peer => true,
        ListenTls::Default => settings.tls.verify_mode != VerifyMode::None,
    })
}
