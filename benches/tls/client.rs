//! Clients with TLS that believe every certificate, so that a handshake costs them less than the
//! server.

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Takes any certificate: whether a server is the right one is not the question.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

pub fn client_config() -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let mut config = builder
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

pub fn socket(port: u16) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// A client's connection, whose answers are known by their length.
pub struct Link {
    session: ClientConnection,
    socket: BufReader<TcpStream>,
    /// Bytes of answers that are still to come.
    due: usize,
    buf: Vec<u8>,
}

impl Link {
    /// Connects and makes the handshake.
    pub fn open(port: u16, config: Arc<ClientConfig>) -> io::Result<Link> {
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let socket = BufReader::with_capacity(64 << 10, socket(port)?);
        let mut link = Link { session, socket, due: 0, buf: vec![0; 64 << 10] };
        while link.session.is_handshaking() {
            link.send()?;
            if link.session.is_handshaking() {
                link.receive()?;
            }
        }
        link.send()?;
        Ok(link)
    }

    fn send(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(self.socket.get_mut())?;
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        if self.session.read_tls(&mut self.socket)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.session.process_new_packets().map_err(io::Error::other)?;
        Ok(())
    }

    /// Sends, and waits for nothing. `due`: bytes of the answers.
    pub fn ask(&mut self, requests: &[u8], due: usize) -> io::Result<()> {
        self.session.writer().write_all(requests)?;
        self.due = due;
        self.send()
    }

    /// Takes what has come of all that is due, which must end with those bytes; true when nothing
    /// is missing. A socket that blocks is waited for.
    pub fn collect(&mut self, end: &[u8]) -> io::Result<bool> {
        while self.due > 0 {
            match self.session.reader().read(&mut self.buf) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) if n > self.due || n == self.due && !ends(&self.buf[..n], end) => {
                    return Err(ErrorKind::InvalidData.into());
                }
                Ok(n) => self.due -= n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => match self.receive() {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                    received => received?,
                },
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// From now on nothing is waited for.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.socket.get_ref().set_nonblocking(true)
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.get_ref().as_raw_fd()
    }
}

/// True where they end so, as far as they go.
fn ends(bytes: &[u8], end: &[u8]) -> bool {
    let len = bytes.len().min(end.len());
    bytes[bytes.len() - len..] == end[end.len() - len..]
}
