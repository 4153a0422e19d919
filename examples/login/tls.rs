//! HTTPS: the certificate, and a listener that speaks TLS.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::secret_file;

/// A client that connects and then says nothing may not keep its connection for longer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The certificate of the site and its private key, each in a file in the format PEM.
#[derive(Clone, Debug)]
pub(crate) struct CertificateFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Makes a certificate for this machine, signed by its own key, on the first start. One file holds
/// both, so that a crash cannot leave one without the other.
pub(crate) fn create_certificate(path: &Path) -> Result<(), Box<dyn Error>> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names)?;
    let content = made.signing_key.serialize_pem() + &made.cert.pem();
    Ok(secret_file::create(path, &content)?)
}

/// What a server needs to speak TLS.
pub(crate) struct Tls {
    config: ServerConfig,
    /// The SHA-256 of the certificate's public key, in base64. Chromium takes it with the flag
    /// `--ignore-certificate-errors-spki-list`.
    pub(crate) public_key_hash: String,
}

impl Tls {
    pub(crate) fn read(files: &CertificateFiles) -> Result<Self, Box<dyn Error>> {
        let provider = Arc::new(ring::default_provider());
        let chain = CertificateDer::pem_file_iter(&files.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unreadable("the certificate", &files.certificate, error))?;
        if chain.is_empty() {
            return Err(format!("no certificate in {}", files.certificate.display()).into());
        }
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|error| unreadable("the private key", &files.key, error))?;
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
            format!(
                "{} and {} do not make a TLS certificate: {error}",
                files.certificate.display(),
                files.key.display()
            )
        })?;
        let public_key = certified
            .key
            .public_key()
            .ok_or("this kind of key does not give its public key")?;
        let public_key_hash = STANDARD.encode(Sha256::digest(&public_key));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        Ok(Self {
            config,
            public_key_hash,
        })
    }

    /// Speaks TLS with the clients of this listener.
    pub(crate) fn listen(self, listener: TcpListener) -> io::Result<TlsListener> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(64);
        let acceptor = TlsAcceptor::from(Arc::new(self.config));
        tokio::spawn(shake_hands(listener, acceptor, sender));
        Ok(TlsListener { address, ready })
    }
}

fn unreadable(what: &str, path: &Path, error: pem::Error) -> String {
    let reason = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "there is none in the file".to_owned(),
        error => error.to_string(),
    };
    format!("cannot read {what} from {}: {reason}", path.display())
}

type Ready = (TlsStream<TcpStream>, SocketAddr);

/// Shakes hands with each client in a task of its own, so that a slow client does not hold up the
/// others. Ends with the server, which drops the receiver.
async fn shake_hands(mut listener: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<Ready>) {
    loop {
        let (stream, peer) = tokio::select! {
            // This method of axum's trait waits after an error, and tries again.
            accepted = Listener::accept(&mut listener) => accepted,
            () = ready.closed() => return,
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
            match handshake.await {
                Ok(Ok(stream)) => {
                    let _ = ready.send((stream, peer)).await;
                }
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS with this client"),
                Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
            }
        });
    }
}

/// Gives the connections whose handshake is done.
pub(crate) struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<Ready>,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Ready {
        match self.ready.recv().await {
            Some(ready) => ready,
            // The task ends after this listener only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
