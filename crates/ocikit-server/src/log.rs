use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::body::Body;
use axum::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, EXPECT, HOST, HeaderName, IF_NONE_MATCH, RANGE,
    TRANSFER_ENCODING, USER_AGENT,
};
use axum::http::request::Parts;
use http_body_util::BodyExt;

use crate::pattern::Pattern;

/// The request headers that are logged. None contains a secret.
const LOGGED_HEADERS: [HeaderName; 10] = [
    ACCEPT,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    EXPECT,
    HOST,
    IF_NONE_MATCH,
    RANGE,
    TRANSFER_ENCODING,
    USER_AGENT,
];

/// A request and its outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exchange {
    /// The method, such as `GET`.
    pub method: String,
    /// The path, as sent.
    pub path: String,
    /// The query, without the question mark.
    pub query: Option<String>,
    /// The status of the response; `None` if there is none yet, or the connection was cut.
    pub status: Option<u16>,
    /// Number of bytes that were read of the request body.
    pub request_bytes: u64,
    /// Number of bytes of the response body that were passed to the connection.
    pub response_bytes: u64,
    /// The authentication scheme of the request, without the credential.
    pub authorization: Option<Authorization>,
    /// The headers of the request that are logged, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The internal cause, if the status is 500.
    pub failure: Option<String>,
}

/// The scheme of an `Authorization` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// User name and password.
    Basic,
    /// A token.
    Bearer,
    /// Anything else.
    Other,
}

impl Exchange {
    /// Returns whether the request is of a kind: a method and a [`Pattern`] such as `GET /v2/**/blobs/*`, or a pattern
    /// for the path alone.
    ///
    /// A pattern with a question mark is matched against path and query.
    pub fn is(&self, kind: &str) -> bool {
        RequestKind::parse(kind).matches(&self.method, &self.path, self.query.as_deref())
    }

    /// Returns a logged header of the request, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A kind of request: a method, or any, and a pattern for the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestKind {
    method: Option<String>,
    path: Pattern,
}

impl RequestKind {
    pub(crate) fn parse(text: &str) -> RequestKind {
        let (method, path) = text.split_once(' ').unwrap_or(("*", text));
        RequestKind { method: (method != "*").then(|| method.to_owned()), path: Pattern::new(path) }
    }

    pub(crate) fn matches(&self, method: &str, path: &str, query: Option<&str>) -> bool {
        if self.method.as_ref().is_some_and(|wanted| wanted != method) {
            return false;
        }
        match query {
            Some(query) if self.path.as_str().contains('?') => self.path.matches(&format!("{path}?{query}")),
            _ => self.path.matches(path),
        }
    }
}

/// Observes all requests. It is called after the response was sent or the request was aborted.
///
/// It is called by the tasks that serve requests and should return quickly.
pub trait Observer: Debug + Send + Sync + 'static {
    /// Is called when a request is over.
    fn exchange(&self, exchange: &Exchange);
}

/// The last requests, logged when they arrive.
#[derive(Debug)]
pub(crate) struct Log {
    /// Maximum number of entries.
    max_entries: usize,
    entries: Mutex<VecDeque<Arc<LogEntry>>>,
    observer: Option<Arc<dyn Observer>>,
}

/// A logged request. It is logged before it is answered, so that a client that has a response finds it in the log.
#[derive(Debug, Default)]
pub(crate) struct LogEntry {
    request: Exchange,
    status: AtomicU16,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    failure: OnceLock<String>,
    observer: Option<Arc<dyn Observer>>,
}

impl Log {
    pub(crate) fn new(max_entries: usize, observer: Option<Arc<dyn Observer>>) -> Log {
        Log { max_entries, entries: Mutex::default(), observer }
    }

    /// Logs a request; `None` if neither the log nor an observer needs it.
    pub(crate) fn begin(&self, request: &Parts) -> Option<Arc<LogEntry>> {
        if self.max_entries == 0 && self.observer.is_none() {
            return None;
        }
        let entry = Arc::new(LogEntry::new(request, self.observer.clone()));
        if self.max_entries > 0 {
            let mut entries = self.lock();
            if entries.len() >= self.max_entries {
                entries.pop_front();
            }
            entries.push_back(entry.clone());
        }
        Some(entry)
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        self.lock().iter().map(|entry| entry.exchange()).collect()
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<LogEntry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogEntry {
    fn new(request: &Parts, observer: Option<Arc<dyn Observer>>) -> LogEntry {
        let text = |name: &HeaderName| {
            let value = request.headers.get(name)?;
            Some((name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        };
        let authorization = request.headers.get(AUTHORIZATION).map(|value| {
            let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
            match scheme.to_ascii_lowercase().as_slice() {
                b"basic" => Authorization::Basic,
                b"bearer" => Authorization::Bearer,
                _ => Authorization::Other,
            }
        });
        let request = Exchange {
            method: request.method.to_string(),
            path: request.uri.path().to_owned(),
            query: request.uri.query().map(str::to_owned),
            authorization,
            headers: LOGGED_HEADERS.iter().filter_map(text).collect(),
            ..Exchange::default()
        };
        LogEntry { request, observer, ..LogEntry::default() }
    }

    pub(crate) fn answered(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    pub(crate) fn failed(&self, cause: String) {
        // Only the first cause is kept.
        let _ = self.failure.set(cause);
    }

    fn exchange(&self) -> Exchange {
        let status = self.status.load(Ordering::SeqCst);
        Exchange {
            status: (status != 0).then_some(status),
            request_bytes: self.request_bytes.load(Ordering::SeqCst),
            response_bytes: self.response_bytes.load(Ordering::SeqCst),
            failure: self.failure.get().cloned(),
            ..self.request.clone()
        }
    }
}

/// The direction of the counted bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Request,
    Response,
}

/// Returns a body whose bytes are counted. It holds the farewell until it is dropped.
pub(crate) fn counted(body: Body, entry: &Option<Arc<LogEntry>>, side: Side, farewell: Option<Farewell>) -> Body {
    let Some(entry) = entry.clone() else { return body };
    Body::new(body.inspect_frame(move |frame| {
        let _held = &farewell;
        if let Some(data) = frame.data_ref() {
            let counter = match side {
                Side::Request => &entry.request_bytes,
                Side::Response => &entry.response_bytes,
            };
            counter.fetch_add(data.len() as u64, Ordering::SeqCst);
        }
    }))
}

/// Notifies the observer when dropped: with the response body, or with the request if there was no response.
#[derive(Debug)]
pub(crate) struct Farewell(Arc<LogEntry>);

impl Farewell {
    pub(crate) fn of(entry: &Option<Arc<LogEntry>>) -> Option<Farewell> {
        entry.as_ref().filter(|entry| entry.observer.is_some()).map(|entry| Farewell(entry.clone()))
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if let Some(observer) = &self.0.observer {
            observer.exchange(&self.0.exchange());
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn last_requests_are_logged() {
        let log = Log::new(2, None);
        for path in ["/a", "/b", "/c"] {
            log.begin(&parts("GET", path, &[])).unwrap().answered(200);
        }
        let paths: Vec<_> = log.exchanges().into_iter().map(|exchange| exchange.path).collect();
        assert_eq!(paths, ["/b", "/c"]);
        log.clear();
        assert_eq!(log.exchanges(), []);
        assert!(Log::new(0, None).begin(&parts("GET", "/", &[])).is_none(), "neither log nor observer");
    }

    #[test]
    fn secrets_are_not_logged() {
        let log = Log::new(9, None);
        for value in ["Basic c2VjcmV0", "bearer secret", "secret"] {
            log.begin(&parts("GET", "/v2/", &[("authorization", value), ("cookie", "secret"), ("range", "bytes=0-")]));
        }
        let exchanges = log.exchanges();
        assert!(!format!("{exchanges:?}").contains("c2VjcmV0") && !format!("{exchanges:?}").contains("secret"));
        let schemes: Vec<_> = exchanges.iter().filter_map(|exchange| exchange.authorization).collect();
        assert_eq!(schemes, [Authorization::Basic, Authorization::Bearer, Authorization::Other]);
        assert_eq!(exchanges[0].header("range"), Some("bytes=0-"));
    }

    #[test]
    fn request_kinds_match_method_and_path() {
        for (kind, method, target, expected) in [
            ("GET /v2/", "GET", "/v2/", true),
            ("GET /v2/", "HEAD", "/v2/", false),
            ("* /v2/", "HEAD", "/v2/", true),
            ("/v2/**", "PUT", "/v2/a/manifests/x", true),
            ("POST /v2/**/uploads/", "POST", "/v2/a/blobs/uploads/?mount=x", true),
            ("POST /v2/**/uploads/?mount=**", "POST", "/v2/a/blobs/uploads/?mount=x", true),
            ("POST /v2/**/uploads/?mount=**", "POST", "/v2/a/blobs/uploads/", false),
        ] {
            let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
            assert_eq!(RequestKind::parse(kind).matches(method, path, query), expected, "{kind} {method} {target}");
        }
    }
}
