use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ocikit_image::RetryOptions;
use ocikit_image::proxy::{self, ProxyOptions};
use ocikit_image::retry::retry_after;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Proxy, Url};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

mod retry;

pub(crate) use retry::Fault;

/// How the services around signing are spoken to: authorities of certificates and of time, logs, whoever keeps keys.
pub struct HttpOptions {
    /// Certificates in PEM of authorities that are trusted besides those of the system, or nothing.
    pub authorities: Vec<u8>,
    /// Whether the authorities of the system are trusted.
    pub system_authorities: bool,
    /// Who we are, for services that want to see a certificate.
    pub identity: Option<HttpIdentity>,
    /// The proxies. The environment is not read.
    pub proxies: ProxyOptions,
    /// How long it may take to be connected.
    pub connect: Duration,
    /// How long a request may take until all of its answer is there. One that is made again has as long again.
    pub total: Duration,
    /// How often a request is made again.
    pub retries: RetryOptions,
    /// What we call ourselves.
    pub user_agent: String,
}

/// A certificate of a client and its key. The key is wiped from memory when it goes.
#[derive(Clone)]
pub struct HttpIdentity {
    /// The certificate and those that lead from it to a root, in PEM.
    pub chain: Vec<u8>,
    /// The private key in PEM, not encrypted.
    pub key: Zeroizing<Vec<u8>>,
}

impl Default for HttpOptions {
    /// The authorities of the system, no identity, no proxy, a quarter of a minute to connect, a minute for everything, and
    /// five further attempts.
    fn default() -> HttpOptions {
        let minute = Duration::from_secs(60);
        HttpOptions {
            authorities: Vec::new(),
            system_authorities: true,
            identity: None,
            proxies: ProxyOptions::default(),
            connect: minute / 4,
            total: minute,
            retries: RetryOptions::default(),
            user_agent: format!("ocikit/{}", env!("CARGO_PKG_VERSION")),
        }
    }
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions").field("system_authorities", &self.system_authorities).finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpIdentity(…)")
    }
}

impl fmt::Debug for HttpAnswer {
    /// Without the body and the location: token services answer with tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpAnswer")
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A client for the services around signing. Redirects are answers, and what was sent is in no message.
///
/// Where a fault may pass the service is asked again, as [`RetryOptions`] says: if it cannot be reached, the connection breaks,
/// there is no answer in time, or it answers with 408, 425, 429, 500, 502, 503 or 504. One whose certificate nobody vouches for
/// is not.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
    retries: RetryOptions,
}

/// What a service said.
#[derive(Clone)]
pub struct HttpAnswer {
    /// The status, 200 for one.
    pub status: u16,
    /// The type of the body; empty if it was not said.
    pub content_type: String,
    /// Where it says that something is, unread.
    pub location: Option<String>,
    /// The body, no longer than was asked for.
    pub body: Vec<u8>,
    /// How long the service wants to be left alone, if it says so.
    pub retry_after: Option<Duration>,
    /// How often it was asked until it said this.
    pub attempts: u32,
}

impl HttpAnswer {
    /// How often it was asked, to be put behind what is wrong; nothing if it was once.
    pub(crate) fn times(&self) -> String {
        retry::times(self.attempts)
    }
}

impl Http {
    /// A client. It reads the certificates of the system where they are wanted, which takes some milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] if those that were given are none, or the system has none; [`Error::Key`] if the key of the
    /// identity is not one that goes with its certificate; [`Error::Unsupported`] for a proxy that is no URL.
    pub fn new(options: &HttpOptions) -> Result<Http> {
        let refuse = |why: &'static str| move |_: reqwest::Error| Error::Unsupported(why.to_owned());
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(options)?)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(options.connect)
            .timeout(options.total)
            .user_agent(&options.user_agent)
            .no_proxy();
        for (variable, proxy) in [("HTTP_PROXY", &options.proxies.http), ("HTTPS_PROXY", &options.proxies.https)] {
            let Some(proxy) = proxy else { continue };
            // What the parser says may show the address.
            let is_url = proxy.trim().is_empty() || Url::parse(&proxy::url_of(proxy)).is_ok();
            if !is_url {
                return Err(Error::Unsupported(format!("the address of the proxy in {variable} is not a URL")));
            }
        }
        let proxies = options.proxies.clone();
        builder = builder.proxy(Proxy::custom(move |url| {
            let port = url.port_or_known_default().unwrap_or_default();
            let proxy = proxies.proxy_for(url.scheme(), url.host_str().unwrap_or_default(), port)?;
            Url::parse(&proxy).ok()
        }));
        let client = builder.build().map_err(refuse("the HTTP client could not be made"))?;
        Ok(Http { client, retries: options.retries.clone() })
    }

    /// Whether what is sent to an address can be read by nobody on the way: it has TLS, or is on this machine. A token goes
    /// nowhere else.
    pub fn is_private(url: &str) -> bool {
        let Ok(url) = Url::parse(url) else { return false };
        let is_here = url.host_str().is_some_and(|host| {
            let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        });
        url.scheme() == "https" || url.scheme() == "http" && is_here
    }

    /// Asks for something, again where that may help.
    ///
    /// # Errors
    ///
    /// [`Error::Service`] if there is no whole answer, or one of more than `most` bytes. What status it has is the caller's
    /// business, also where that of the last attempt is one that may pass.
    pub async fn get(&self, url: &str, headers: &[(&str, &str)], most: usize) -> Result<HttpAnswer> {
        let url = parsed(url)?;
        let fields = fields(&url, headers)?;
        let ask = || answer(self.client.get(url.clone()).headers(fields.clone()), most);
        retry::again(&url, ask, |attempts, outcome| retry::after(&self.retries, attempts, outcome)).await
    }

    /// Sends something, and waits for what is said to it; again where that may help.
    ///
    /// Nobody knows whether a service has done what was asked of it before a connection broke. So this is for what does no harm
    /// if it is done twice: a certificate that is thrown away, a timestamp or an entry in a log more.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Http::get).
    pub async fn post(
        &self,
        url: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
        most: usize,
    ) -> Result<HttpAnswer> {
        let pause = |attempts, outcome: &_| retry::after(&self.retries, attempts, outcome);
        self.post_until(url, content_type, headers, body, most, pause).await
    }

    /// The same by the caller's own rules: as often as `pause` gives a time to wait for, which gets how often that was and
    /// what came of it.
    pub(crate) async fn post_until(
        &self,
        url: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
        most: usize,
        pause: impl Fn(u32, &Result<HttpAnswer, Fault>) -> Option<Duration>,
    ) -> Result<HttpAnswer> {
        let url = parsed(url)?;
        let mut fields = fields(&url, headers)?;
        let content_type = HeaderValue::from_str(content_type);
        fields.insert(CONTENT_TYPE, content_type.map_err(|_| failed(&url, "the type of the body is no header"))?);
        let body = Bytes::from(body);
        let ask = || answer(self.client.post(url.clone()).headers(fields.clone()).body(body.clone()), most);
        retry::again(&url, ask, pause).await
    }
}

pub(crate) fn parsed(url: &str) -> Result<Url> {
    let refuse = || Error::Unsupported("the address of a service is no http or https URL".to_owned());
    let url = Url::parse(url).map_err(|_| refuse())?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(refuse()),
    }
}

fn fields(url: &Url, headers: &[(&str, &str)]) -> Result<HeaderMap> {
    let mut fields = HeaderMap::new();
    for (name, value) in headers {
        let refuse = || failed(url, "what is to be sent is no header");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refuse())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| refuse())?;
        value.set_sensitive(true);
        fields.insert(key, value);
    }
    Ok(fields)
}

async fn answer(request: reqwest::RequestBuilder, most: usize) -> Result<HttpAnswer, Fault> {
    let too_long = || Fault::last(format!("its answer has more than {most} bytes"));
    let mut response = request.send().await?;
    if response.content_length().is_some_and(|length| length > most as u64) {
        return Err(too_long());
    }
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let content_type = header(CONTENT_TYPE).unwrap_or_default().to_owned();
    let location = header(LOCATION).map(str::to_owned);
    let retry_after = header(RETRY_AFTER).and_then(|header| retry_after(header, SystemTime::now()));
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > most {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(HttpAnswer { status, content_type, location, body, retry_after, attempts: 1 })
}

/// Names the host and the path only: a query, a name or a password is nobody's business.
pub(crate) fn failed(url: &Url, problem: impl Into<String>) -> Error {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let place = format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path());
    Error::Service { place, problem: problem.into() }
}

/// An error and its causes in one line: those of HTTP clients say nothing by themselves.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn tls(options: &HttpOptions) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let extra = match options.authorities.is_empty() {
        true => Vec::new(),
        false => certificates(&options.authorities)?,
    };
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::Unsupported(error.to_string()))?;
    let refuse = |error: rustls::Error| Error::Certificates(error.to_string());
    let builder = match options.system_authorities {
        true => {
            let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier.map_err(refuse)?))
        }
        false => {
            let mut roots = RootCertStore::empty();
            for certificate in extra {
                roots.add(certificate).map_err(refuse)?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let Some(HttpIdentity { chain, key }) = &options.identity else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_slice(key);
    let key = key.map_err(|_| Error::Key("that of the client holds no private key in PEM".to_owned()))?;
    let configured = builder.with_client_auth_cert(certificates(chain)?, key);
    configured.map_err(|error| Error::Key(format!("that of the client does not go with its certificate: {error}")))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(Error::Certificates("there are none in PEM".to_owned())),
    }
}

#[cfg(test)]
pub(crate) mod tests;
