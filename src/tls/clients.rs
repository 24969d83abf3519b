//! What is asked of clients: no certificate, one if they have one, or one in any case.

use super::files::Files;
use crate::config::{ListenTls, TlsSettings, VerifyMode};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::sync::Arc;

/// True where nobody comes in without a certificate.
pub fn must_have_one(kind: ListenTls, settings: &TlsSettings) -> bool {
    match kind {
        ListenTls::Peer => true,
        ListenTls::Default => {
            matches!(settings.verify_mode, VerifyMode::Require | VerifyMode::Once)
        }
        ListenTls::NoPeer | ListenTls::Off => false,
    }
}

/// How a listener of this kind looks at certificates of clients.
pub(super) fn verifier(
    kind: ListenTls,
    settings: &TlsSettings,
    files: &Files,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let authorities = files.authorities()?;
    let mandatory = must_have_one(kind, settings);
    let asked = kind == ListenTls::Default && settings.verify_mode == VerifyMode::Request;
    if !mandatory && !asked {
        return Ok(Arc::new(NoClientAuth));
    }
    let Some(roots) = authorities else {
        let algorithms = provider.signature_verification_algorithms;
        return Ok(Arc::new(NobodyKnown { mandatory, algorithms }));
    };
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
    let verifier = builder.build().map_err(|e| format!("clients cannot be verified: {e}"))?;
    Ok(verifier)
}

/// Asks for certificates without knowing who may have signed them: none is good.
#[derive(Debug)]
struct NobodyKnown {
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for NobodyKnown {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
