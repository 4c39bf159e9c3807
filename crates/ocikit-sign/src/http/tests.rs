use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::WebPkiClientVerifier;

use ocikit_http::Identity;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use super::*;

/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// A loopback server that returns the given responses in order, repeats the last one, and records the last request
/// and the number of requests. An empty response closes the connection.
pub(crate) struct Server {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<u8>>>,
    times: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) async fn start(answer: Vec<u8>, tls: Option<ServerConfig>) -> Server {
        Server::answering(vec![answer], tls).await
    }

    pub(crate) async fn answering(answers: Vec<Vec<u8>>, tls: Option<ServerConfig>) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Server { port, asked: Arc::default(), times: Arc::default() };
        let (asked, times) = (server.asked.clone(), server.times.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // The client asks whether a server that gave no HTTP answer speaks TLS.
                let mut first = [0];
                let _ = client.peek(&mut first).await;
                if tls.is_none() && first[0] == TLS_HANDSHAKE {
                    continue;
                }
                let answer = answers.get(times.fetch_add(1, Relaxed)).or(answers.last()).unwrap();
                let (answer, asked) = (answer.clone(), asked.clone());
                match tls.clone() {
                    None => drop(tokio::spawn(serve(client, answer, asked))),
                    Some(tls) => drop(tokio::spawn(async move {
                        let client = TlsAcceptor::from(Arc::new(tls)).accept(client).await?;
                        serve(client, answer, asked).await
                    })),
                }
            }
        });
        server
    }

    pub(crate) fn asked(&self) -> String {
        String::from_utf8_lossy(&self.asked.lock().unwrap()).into_owned()
    }

    /// Returns the number of connections, each for one request.
    pub(crate) fn times(&self) -> usize {
        self.times.load(Relaxed)
    }
}

async fn serve(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    answer: Vec<u8>,
    asked: Arc<Mutex<Vec<u8>>>,
) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    asked.lock().unwrap().clear();
    let is_whole = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        body.len() >= length.parse::<usize>().unwrap()
    };
    while !is_whole(&asked.lock().unwrap()) {
        let read = client.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        asked.lock().unwrap().extend_from_slice(&buffer[..read]);
    }
    client.write_all(&answer).await?;
    client.shutdown().await
}

pub(crate) fn said(status: &str, more: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{more}\r\n{body}", body.len()).into_bytes()
}

/// Returns options without delays between retries.
pub(crate) fn local() -> HttpOptions {
    let retries = RetryOptions::default().initial_delay(Duration::ZERO);
    let tls = TlsSettings::default().system_authorities(false);
    HttpOptions { tls, retries, ..HttpOptions::default() }
}

#[tokio::test]
async fn every_status_is_a_response() {
    let server = Server::start(said("201 Created", "content-type: application/json\r\n", "{}"), None).await;
    let (http, url) = (Http::new(&local()).unwrap(), format!("http://127.0.0.1:{}/a/b?c=d", server.port));
    let answer = http.post(&url, "text/x", &[("authorization", "Bearer secret")], b"body".to_vec(), 2).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("content-type").unwrap(), &answer.body[..]),
        (201, "application/json", &b"{}"[..])
    );
    let asked = server.asked().to_lowercase();
    for part in ["post /a/b?c=d ", "content-type: text/x\r\n", "authorization: bearer secret\r\n", "\r\n\r\nbody"] {
        assert!(asked.contains(part), "{part}: {asked}");
    }

    let server = Server::start(said("302 Found", "location: http://127.0.0.1:1/\r\n", ""), None).await;
    let answer = http.get(&format!("http://127.0.0.1:{}/", server.port), &[], 100).await.unwrap();
    assert_eq!(answer.status, 302);
    assert!(server.asked().starts_with("GET / HTTP/1.1\r\n"));
}

#[tokio::test]
async fn long_responses_are_refused_and_secrets_are_not_shown() {
    let http = Http::new(&local()).unwrap();
    let endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n123456".to_vec();
    for answer in [said("200 OK", "", "123456"), endless] {
        let server = Server::start(answer, None).await;
        let url = format!("http://name:secret@127.0.0.1:{}/path?secret", server.port);
        let error = http.get(&url, &[("x", "secret")], 5).await.unwrap_err().to_string();
        assert_eq!(error, format!("http://127.0.0.1:{}/path: its answer has more than 5 bytes", server.port));
        assert_eq!(http.get(&url, &[], 6).await.unwrap().body, "123456");
    }
    // No server listens on port 1.
    for url in ["http://secret@127.0.0.1:1/?secret", "ftp://secret/", "secret", "https://secret@127.0.0.1:1/"] {
        let error = http.get(url, &[], 5).await.unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
    let error = http.get("http://127.0.0.1:1/", &[("x", "se\ncret")], 5).await.unwrap_err().to_string();
    assert_eq!(error, "http://127.0.0.1:1/: a header is not valid");
    assert!(!format!("{http:?}{:?}", local()).contains("secret"));
}

#[tokio::test]
async fn requests_time_out() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let http = Http::new(&HttpOptions { total: Duration::from_millis(200), ..local() }).unwrap();
    let error = http.get(&format!("http://127.0.0.1:{port}/"), &[], 5).await.unwrap_err();
    assert!(matches!(error, Error::Service { .. }) && error.to_string().ends_with(", asked 2 times"), "{error}");
}

#[tokio::test]
async fn transient_errors_are_retried() {
    let http = Http::new(&local()).unwrap();
    let (fine, busy) = (said("200 OK", "", "fine"), said("503 Busy", "", "busy"));
    let soon = said("429 Slowly", "retry-after: 0\r\n", "");
    let date = said("429 Slowly", "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "");
    let late = said("503 Busy", "retry-after: 121\r\n", "late");
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfi".to_vec();
    let (cut, bad) = (Vec::new(), said("400 Bad Request", "", "bad"));
    for (answers, status, body, times) in [
        (vec![busy.clone(), cut.clone(), half.clone(), soon, date, fine.clone()], 200, "fine", 6),
        (vec![busy.clone()], 503, "busy", 6),
        (vec![late], 503, "late", 1),
        (vec![bad.clone(), fine.clone()], 400, "bad", 1),
        (vec![cut.clone(), bad], 400, "bad", 2),
        (vec![said("501 No", "", "no"), fine.clone()], 501, "no", 1),
    ] {
        for is_post in [false, true] {
            let server = Server::answering(answers.clone(), None).await;
            let url = format!("http://127.0.0.1:{}/", server.port);
            let answer = match is_post {
                true => http.post(&url, "text/x", &[("x", "y")], b"body".to_vec(), 100).await.unwrap(),
                false => http.get(&url, &[("x", "y")], 100).await.unwrap(),
            };
            assert_eq!((answer.status, &answer.body[..], answer.attempts), (status, body.as_bytes(), times));
            assert_eq!(server.times(), times as usize);
            let asked = server.asked().to_lowercase();
            assert!(asked.contains("\r\nx: y\r\n") && asked.ends_with("\r\n\r\nbody") == is_post, "{asked}");
        }
    }
    // Every retryable status, and no response at all.
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let server = Server::answering(vec![said(&format!("{status} x"), "", ""), fine.clone()], None).await;
        let answer = http.get(&format!("http://127.0.0.1:{}/", server.port), &[], 100).await.unwrap();
        assert_eq!((answer.status, server.times()), (200, 2), "{status}");
    }
    for (retries, said) in [(local().retries, ", asked 6 times"), (RetryOptions::never(), "")] {
        let http = Http::new(&HttpOptions { retries, ..local() }).unwrap();
        for answer in [cut.clone(), half.clone()] {
            let server = Server::start(answer, None).await;
            let url = format!("http://secret@127.0.0.1:{}/?secret", server.port);
            let error = http.post(&url, "text/x", &[("x", "secret")], b"secret".to_vec(), 100).await.unwrap_err();
            let error = error.to_string();
            assert_eq!(error.contains(", asked"), !said.is_empty(), "{error}");
            assert!(error.ends_with(said) && !error.contains("secret"), "{error}");
        }
    }
}

#[tokio::test]
async fn mutual_tls_works() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap(), key)
    };
    let (certificate, key) = issue("localhost");
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let asks = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_client_cert_verifier(asks);
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let tls = tls.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let server = Server::start(said("200 OK", "", "it is you"), Some(tls)).await;
    let url = format!("https://localhost:{}/", server.port);

    let (certificate, key) = issue("client");
    let key = key.serialize_pem().into_bytes();
    let identity = Identity { certificate: certificate.pem().into_bytes().into(), key: key.into() };
    let options = |authorities: &[u8], identity: Option<&Identity>| {
        let authorities = if authorities.is_empty() { Vec::new() } else { vec![authorities.to_vec().into()] };
        let tls = local().tls.authorities(authorities).identity(identity.cloned());
        HttpOptions { tls, ..local() }
    };
    let authority = authority.pem().into_bytes();
    let known = options(&authority, Some(&identity));
    let answer = Http::new(&known).unwrap().get(&url, &[], 100).await.unwrap();
    assert_eq!(answer.body, "it is you");
    // A client without a certificate is refused, and so is a server whose certificate is not trusted.
    assert!(Http::new(&options(&authority, None)).unwrap().get(&url, &[], 100).await.is_err());
    let stranger = options(&[], Some(&identity));
    let error = Http::new(&stranger).unwrap().get(&url, &[], 100).await.unwrap_err().to_string();
    assert!(!error.contains(", asked"), "it would say the same again: {error}");

    let other = issue("other").1.serialize_pem();
    let mixed = Identity { key: other.into_bytes().into(), ..identity.clone() };
    let none = Identity { key: b"secret".to_vec().into(), ..identity };
    for identity in [mixed, none] {
        let error = Http::new(&options(&authority, Some(&identity))).unwrap_err();
        assert!(matches!(error, Error::Key(_)) && !error.to_string().contains("secret"), "{error}");
    }
    let error = Http::new(&options(b"none", None)).unwrap_err();
    assert!(matches!(error, Error::Certificates(_)), "{error}");
}

#[tokio::test]
async fn proxies_are_used_for_remote_hosts() {
    let proxy = Server::start(said("200 OK", "", "from afar"), None).await;
    let url = Zeroizing::new(format!("http://127.0.0.1:{}", proxy.port));
    let proxies = ProxyOptions::default().http(Some(url));
    let http = Http::new(&HttpOptions { proxies, ..local() }).unwrap();
    assert_eq!(http.get("http://tsa.example/x", &[], 100).await.unwrap().body, "from afar");
    assert!(proxy.asked().starts_with("GET http://tsa.example/x "), "{}", proxy.asked());
    assert!(http.get("http://127.0.0.1:1/", &[], 100).await.is_err());
    for bogus in ["http://", "http://a b"] {
        let proxies = ProxyOptions::default().https(Some(Zeroizing::new(bogus.to_owned())));
        assert!(Http::new(&HttpOptions { proxies, ..local() }).is_err(), "{bogus}");
    }
}
