//! Certificates and keys as files.

use crate::config::{KeyFormat, Settings};
use memchr::memmem;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use std::path::{Path, PathBuf, absolute};

/// Where they lie.
pub struct Files {
    chain: PathBuf,
    key: PathBuf,
    key_format: KeyFormat,
    authorities: Option<PathBuf>,
}

impl Files {
    /// The files that the settings name, found from the directory that the process is in; `None`
    /// without -Z.
    pub fn named(settings: &Settings) -> Result<Option<Files>, String> {
        let settings = &settings.tls;
        if !settings.enabled {
            return Ok(None);
        }
        let whole = |path: &String| absolute(path).map_err(|e| format!("{path}: {e}"));
        let chain = settings.chain_cert.as_ref().ok_or("no certificate chain is named")?;
        Ok(Some(Files {
            chain: whole(chain)?,
            key: whole(settings.key.as_ref().unwrap_or(chain))?,
            key_format: settings.key_format,
            authorities: settings.ca_cert.as_ref().map(whole).transpose()?,
        }))
    }

    /// The server's chain and key, which must belong together.
    pub(super) fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
        let chain = certificates(&self.chain, "the certificate chain")?;
        let name = self.key.display();
        let key = self.key()?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|e| format!("the key in {name} cannot be used: {e}"))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
            // Certificates of X.509 version 1 serve, but are not looked into.
            Err(Error::InvalidCertificate(_)) if holds_public_key(&certified) => Ok(certified),
            Err(Error::InvalidCertificate(e)) => Err(format!(
                "the certificate in {} is not one of the key in {name}: {e:?}",
                self.chain.display()
            )),
            Err(_) => Err(format!(
                "the certificate in {} is not one of the key in {name}",
                self.chain.display()
            )),
        }
    }

    /// Who may have signed the certificates of clients, if anybody.
    pub(super) fn authorities(&self) -> Result<Option<RootCertStore>, String> {
        let Some(path) = &self.authorities else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path, "the CA certificates")? {
            roots.add(certificate).map_err(|e| {
                format!("a CA certificate in {} cannot be used: {e}", path.display())
            })?;
        }
        Ok(Some(roots))
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, String> {
        let name = self.key.display();
        let unreadable = |e: std::io::Error| format!("cannot read the key {name}: {e}");
        match self.key_format {
            KeyFormat::Pem => PrivateKeyDer::from_pem_file(&self.key).map_err(|e| match e {
                pem::Error::Io(e) => unreadable(e),
                pem::Error::NoItemsFound => {
                    format!("{name} holds no private key in PEM form, or only an encrypted one")
                }
                e => format!("{name} is not PEM: {e}"),
            }),
            KeyFormat::Der => {
                let bytes = std::fs::read(&self.key).map_err(unreadable)?;
                PrivateKeyDer::try_from(bytes)
                    .map_err(|e| format!("{name} is no private key in DER form: {e}"))
            }
        }
    }
}

fn holds_public_key(certified: &CertifiedKey) -> bool {
    let public = certified.key.public_key();
    let certificate = certified.cert.first();
    public.zip(certificate).is_some_and(|(key, cert)| memmem::find(cert, &key).is_some())
}

fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let name = path.display();
    let failed = |e| match e {
        pem::Error::Io(e) => format!("cannot read {what} {name}: {e}"),
        e => format!("{name} is not PEM: {e}"),
    };
    let all = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let all = all.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if all.is_empty() {
        return Err(format!("{name} holds no certificate in PEM form"));
    }
    Ok(all)
}
