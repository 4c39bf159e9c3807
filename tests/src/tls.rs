use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// A certificate authority (CA) for one test.
#[derive(Debug)]
pub struct CertificateAuthority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key in PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate in PEM.
    pub certificate: String,
    /// The private key in PEM.
    pub key: String,
}

impl CertificateAuthority {
    /// Generates a CA key and a self-signed CA certificate.
    ///
    /// # Panics
    ///
    /// If the random number generator fails.
    pub fn new() -> CertificateAuthority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        CertificateAuthority(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Returns the CA certificate in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a client certificate.
    ///
    /// # Panics
    ///
    /// If the random number generator fails.
    pub fn client(&self) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["client".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate").pem();
        Identity { certificate, key: key.serialize_pem() }
    }

    /// Issues a certificate for a server on this machine.
    ///
    /// # Panics
    ///
    /// If the random number generator fails.
    pub fn server_identity(&self) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).expect("names").signed_by(&key, &self.0);
        Identity { certificate: certificate.expect("a certificate").pem(), key: key.serialize_pem() }
    }

    fn server(&self, requires_client_certificate: bool) -> ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).expect("names").signed_by(&key, &self.0);
        let certificate = certificate.expect("a certificate");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let builder = match requires_client_certificate {
            false => builder.with_no_client_auth(),
            true => {
                let mut roots = RootCertStore::empty();
                roots.add(self.0.der().clone()).expect("a CA certificate");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.expect("a CA certificate"))
            }
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        builder.with_single_cert(vec![certificate.der().clone()], key).expect("a certificate and its key")
    }
}

impl Default for CertificateAuthority {
    fn default() -> CertificateAuthority {
        CertificateAuthority::new()
    }
}

/// Terminates TLS in front of a registry that speaks plain HTTP, until this value is dropped.
#[derive(Debug)]
pub struct TlsProxy {
    address: SocketAddr,
    _runtime: Runtime,
}

impl TlsProxy {
    /// Starts a TLS proxy for the registry at this address, with a certificate of this CA. If requested, clients must present a
    /// certificate of the same CA.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn start(server: SocketAddr, authority: &CertificateAuthority, requires_client_certificate: bool) -> TlsProxy {
        let acceptor = TlsAcceptor::from(Arc::new(authority.server(requires_client_certificate)));
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).expect("a free port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut client = acceptor.accept(client).await?;
                    let mut server = TcpStream::connect(server).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        TlsProxy { address, _runtime: runtime }
    }

    /// Returns host and port, as written in references.
    pub fn name(&self) -> String {
        format!("localhost:{}", self.address.port())
    }
}
