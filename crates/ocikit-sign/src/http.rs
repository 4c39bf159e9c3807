//! Requests to signing services, with the HTTP stack of the registry client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ocikit_http::header::HeaderValue;
use ocikit_http::{
    Document, HttpClient, HttpClientOptions, Method, Origin, ProxyOptions, Redirects, Request, RequestError,
    RetryOptions, TimeLimit, Timeouts, TlsSettings, Url,
};

use crate::error::{Error, Result};

/// Options of the HTTP client for signing services: certificate authorities, timestamp authorities, transparency
/// logs, key management.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpOptions {
    /// The CA certificates that are trusted, and the client certificate for services that require one.
    pub tls: TlsSettings,
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

ocikit_spec::setters! {
    HttpOptions {
        tls: TlsSettings,
        proxies: ProxyOptions,
        connect: Duration,
        total: Duration,
        retries: RetryOptions,
        user_agent: String,
    }
}

impl Default for HttpOptions {
    /// The system's CA certificates, no client certificate, no proxy, a connect timeout of 15 seconds, a total
    /// timeout of 60 seconds and five retries.
    fn default() -> HttpOptions {
        let Timeouts { connect, document, .. } = Timeouts::default();
        HttpOptions {
            tls: TlsSettings::default(),
            proxies: ProxyOptions::default(),
            connect,
            total: document,
            retries: RetryOptions::default(),
            user_agent: HttpClientOptions::default().user_agent,
        }
    }
}

/// An HTTP client for signing services. It does not follow redirects, and errors never contain what was sent.
///
/// Requests are retried as [`RetryOptions`] says if the connection fails or breaks, or the status is 408, 425, 429, 500,
/// 502, 503 or 504; once if the request times out. A TLS certificate that is not trusted is not retried.
#[derive(Debug, Clone)]
pub struct Http {
    client: Arc<HttpClient>,
    tls: Arc<TlsSettings>,
}

impl Http {
    /// Creates a client. Loading the CA certificates of the system takes a few milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] if the CA certificates are malformed or the system has none; [`Error::Key`] if the
    /// client key does not match its certificate; [`Error::Unsupported`] if a proxy is not a URL.
    pub fn new(options: &HttpOptions) -> Result<Http> {
        let HttpOptions { tls, proxies, connect, total, retries, user_agent } = options.clone();
        proxies.check().map_err(unusable)?;
        let tls = Arc::new(tls.load().map_err(unusable)?);
        let timeouts = Timeouts::default().connect(connect).answer(total).silence(total).document(total);
        let options = HttpClientOptions::default()
            .user_agent(user_agent)
            .proxies(proxies)
            .retry(retries)
            .timeouts(timeouts)
            .redirects(Redirects::Never);
        Ok(Http { client: Arc::new(HttpClient::new(options)), tls })
    }

    /// Returns whether a connection to this URL cannot be read by others: it uses TLS or a loopback address. Tokens
    /// are sent to such addresses only.
    pub fn is_private(url: &str) -> bool {
        url.parse::<Url>().is_ok_and(|url| url.is_confidential())
    }

    /// Sends a GET request and retries it.
    ///
    /// # Errors
    ///
    /// [`Error::Service`] if there is no complete response, or its body has more than `max_bytes` bytes. Every status
    /// is a response, including a retryable one on the last attempt.
    pub async fn get(&self, url: &str, headers: &[(&str, &str)], max_bytes: usize) -> Result<Document> {
        let request = self.request(Method::GET, url, headers)?;
        self.fetch(&request, max_bytes).await
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
    ) -> Result<Document> {
        let request = self.request(Method::POST, url, headers)?.body(content_type, body.into());
        self.fetch(&request, max_bytes).await
    }

    /// Sends a POST request with a retry rule of the caller. `pause` gets the number of attempts and the last
    /// outcome, and returns the delay before the next attempt, or `None` to stop.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Http::get).
    pub async fn post_until(
        &self,
        url: &str,
        content_type: &str,
        body: Vec<u8>,
        max_bytes: usize,
        pause: impl Fn(u32, Result<&Document, &RequestError>) -> Option<Duration> + Send,
    ) -> Result<Document> {
        let request = self.request(Method::POST, url, &[])?.body(content_type, body.into());
        let response = self.client.fetch_until(&request, max_bytes as u64, pause).await;
        response.map_err(|error| no_response(&request.url, &error))
    }

    async fn fetch(&self, request: &Request, max_bytes: usize) -> Result<Document> {
        let response = self.client.fetch(request, max_bytes as u64).await;
        response.map_err(|error| no_response(&request.url, &error))
    }

    fn request(&self, method: Method, url: &str, headers: &[(&str, &str)]) -> Result<Request> {
        let url = parsed(url)?;
        let mut request = Request::new(method, url.clone(), Origin::User(self.tls.clone()));
        request.limit = TimeLimit::Document;
        for (name, value) in headers {
            let refuse = || failed(&url, "a header is not valid");
            let mut value = HeaderValue::from_str(value).map_err(|_| refuse())?;
            value.set_sensitive(true);
            let name: ocikit_http::header::HeaderName = name.parse().map_err(|_| refuse())?;
            request.headers.insert(name, value);
        }
        Ok(request)
    }
}

pub(crate) fn parsed(url: &str) -> Result<Url> {
    let url = url.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| Error::Unsupported("the address of a service is not an http or https URL".to_owned()))
}

/// Returns an error that names scheme, host, port and path only: user information and query may be secret.
pub(crate) fn failed(url: &Url, problem: impl fmt::Display) -> Error {
    Error::Service { place: url.to_string(), problem: problem.to_string() }
}

fn no_response(url: &Url, (error, attempts): &(RequestError, u32)) -> Error {
    failed(url, format_args!("{error}{}", times(*attempts)))
}

/// Returns the number of attempts as a suffix for an error message; empty for a single attempt.
pub(crate) fn times(attempts: u32) -> String {
    if attempts > 1 { format!(", asked {attempts} times") } else { String::new() }
}

fn unusable(error: ocikit_http::Error) -> Error {
    match error {
        ocikit_http::Error::Read { path, source } => ocikit_image::Error::failed("read", path.display(), source).into(),
        ocikit_http::Error::Certificates { place, source } => Error::Certificates(format!("{place}: {source}")),
        ocikit_http::Error::Identity { place, source } => Error::Key(format!("{place}: {source}")),
        error => Error::Unsupported(error.to_string()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
