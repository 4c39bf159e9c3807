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

pub(crate) use retry::RequestError;

/// Options of the HTTP client for signing services: certificate authorities, timestamp authorities, transparency
/// logs, key management.
pub struct HttpOptions {
    /// CA certificates in PEM that are trusted in addition to those of the system; may be empty.
    pub authorities: Vec<u8>,
    /// Whether the CA certificates of the system are trusted.
    pub system_authorities: bool,
    /// The client certificate, for services that require one.
    pub identity: Option<HttpIdentity>,
    /// The proxies. The environment is not read.
    pub proxies: ProxyOptions,
    /// The connect timeout.
    pub connect: Duration,
    /// The timeout of one attempt, from the request to the last byte of the response. Each retry has the same
    /// timeout.
    pub total: Duration,
    /// How often and when failed requests are retried.
    pub retries: RetryOptions,
    /// The `User-Agent` header.
    pub user_agent: String,
}

/// A client certificate and its key. The key is wiped from memory when it is dropped.
#[derive(Clone)]
pub struct HttpIdentity {
    /// The client certificate and its intermediates, in PEM.
    pub chain: Vec<u8>,
    /// The private key in PEM, not encrypted.
    pub key: Zeroizing<Vec<u8>>,
}

impl Default for HttpOptions {
    /// The system's CA certificates, no client certificate, no proxy, a connect timeout of 15 seconds, a total
    /// timeout of 60 seconds and five retries.
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

impl fmt::Debug for HttpResponse {
    /// Omits the body and the location: token services return tokens in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpAnswer")
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// An HTTP client for signing services. It does not follow redirects, and errors never contain what was sent.
///
/// Requests are retried as [`RetryOptions`] says if the connection fails or breaks, the request times out, or the
/// status is 408, 425, 429, 500, 502, 503 or 504. A TLS certificate that is not trusted is not retried.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
    retries: RetryOptions,
}

/// The response of a service.
#[derive(Clone)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The media type of the body; empty if the header is missing.
    pub content_type: String,
    /// The `Location` header, unparsed.
    pub location: Option<String>,
    /// The body, at most as long as the caller allows.
    pub body: Vec<u8>,
    /// The delay in `Retry-After`, if the header is present.
    pub retry_after: Option<Duration>,
    /// The number of attempts that were made.
    pub attempts: u32,
}

impl HttpResponse {
    /// Returns the number of attempts as a suffix for an error message; empty for a single attempt.
    pub(crate) fn times(&self) -> String {
        retry::times(self.attempts)
    }
}

impl Http {
    /// Creates a client. Loading the CA certificates of the system takes a few milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] if the CA certificates are malformed or the system has none; [`Error::Key`] if the
    /// client key does not match its certificate; [`Error::Unsupported`] if a proxy is not a URL.
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
            // The parser's error may contain the address, which may hold a password.
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
        let client = builder.build().map_err(refuse("cannot create the HTTP client"))?;
        Ok(Http { client, retries: options.retries.clone() })
    }

    /// Returns whether a connection to this URL cannot be read by others: it uses TLS or a loopback address. Tokens
    /// are sent to such addresses only.
    pub fn is_private(url: &str) -> bool {
        let Ok(url) = Url::parse(url) else { return false };
        let is_here = url.host_str().is_some_and(|host| {
            let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        });
        url.scheme() == "https" || url.scheme() == "http" && is_here
    }

    /// Sends a GET request and retries it.
    ///
    /// # Errors
    ///
    /// [`Error::Service`] if there is no complete response, or its body has more than `max_bytes` bytes. Every status
    /// is a response, including a retryable one on the last attempt.
    pub async fn get(&self, url: &str, headers: &[(&str, &str)], max_bytes: usize) -> Result<HttpResponse> {
        let url = parsed(url)?;
        let fields = fields(&url, headers)?;
        let ask = || answer(self.client.get(url.clone()).headers(fields.clone()), max_bytes);
        retry::again(&url, ask, |attempts, outcome| retry::after(&self.retries, attempts, outcome)).await
    }

    /// Sends a POST request and retries it.
    ///
    /// If a connection breaks, the service may have processed the request. So this is only for requests that are safe
    /// to repeat: an unused certificate, a further timestamp or a further log entry.
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
        max_bytes: usize,
    ) -> Result<HttpResponse> {
        let pause = |attempts, outcome: &_| retry::after(&self.retries, attempts, outcome);
        self.post_until(url, content_type, headers, body, max_bytes, pause).await
    }

    /// Sends a POST request with a retry rule of the caller. `pause` gets the number of attempts and the last
    /// outcome, and returns the delay before the next attempt, or `None` to stop.
    pub(crate) async fn post_until(
        &self,
        url: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
        max_bytes: usize,
        pause: impl Fn(u32, &Result<HttpResponse, RequestError>) -> Option<Duration>,
    ) -> Result<HttpResponse> {
        let url = parsed(url)?;
        let mut fields = fields(&url, headers)?;
        let content_type = HeaderValue::from_str(content_type);
        fields.insert(CONTENT_TYPE, content_type.map_err(|_| failed(&url, "the content type is not a valid header"))?);
        let body = Bytes::from(body);
        let ask = || answer(self.client.post(url.clone()).headers(fields.clone()).body(body.clone()), max_bytes);
        retry::again(&url, ask, pause).await
    }
}

pub(crate) fn parsed(url: &str) -> Result<Url> {
    let refuse = || Error::Unsupported("the address of a service is not an http or https URL".to_owned());
    let url = Url::parse(url).map_err(|_| refuse())?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(refuse()),
    }
}

fn fields(url: &Url, headers: &[(&str, &str)]) -> Result<HeaderMap> {
    let mut fields = HeaderMap::new();
    for (name, value) in headers {
        let refuse = || failed(url, "a header is not valid");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refuse())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| refuse())?;
        value.set_sensitive(true);
        fields.insert(key, value);
    }
    Ok(fields)
}

async fn answer(request: reqwest::RequestBuilder, max_bytes: usize) -> Result<HttpResponse, RequestError> {
    let too_long = || RequestError::last(format!("its answer has more than {max_bytes} bytes"));
    let mut response = request.send().await?;
    if response.content_length().is_some_and(|length| length > max_bytes as u64) {
        return Err(too_long());
    }
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let content_type = header(CONTENT_TYPE).unwrap_or_default().to_owned();
    let location = header(LOCATION).map(str::to_owned);
    let retry_after = header(RETRY_AFTER).and_then(|header| retry_after(header, SystemTime::now()));
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max_bytes {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(HttpResponse { status, content_type, location, body, retry_after, attempts: 1 })
}

/// Returns an error that names scheme, host, port and path only: user information and query may be secret.
pub(crate) fn failed(url: &Url, problem: impl Into<String>) -> Error {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let place = format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path());
    Error::Service { place, problem: problem.into() }
}

/// Returns an error and its causes in one line. The outermost error of an HTTP client says nothing by itself.
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
    let key = key.map_err(|_| Error::Key("the client key is not a PEM private key".to_owned()))?;
    let configured = builder.with_client_auth_cert(certificates(chain)?, key);
    configured.map_err(|error| Error::Key(format!("the client key does not match the client certificate: {error}")))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(Error::Certificates("it has no PEM certificates".to_owned())),
    }
}

#[cfg(test)]
pub(crate) mod tests;
