use std::collections::VecDeque;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, EXPECT, HOST, HeaderName, IF_NONE_MATCH, RANGE,
    TRANSFER_ENCODING, USER_AGENT,
};
use axum::http::request::Parts;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::pattern::Pattern;

/// The headers of a request that are logged. None holds a secret.
const LOGGED: [HeaderName; 10] = [
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

/// A request and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exchange {
    /// `GET`, `PUT` …
    pub method: String,
    /// The path, as it was sent.
    pub path: String,
    /// What followed the question mark.
    pub query: Option<String>,
    /// The status of the answer, `None` if there was none, or is none yet.
    pub status: Option<u16>,
    /// How many bytes of the request's body were read.
    pub request_bytes: u64,
    /// How many bytes of the answer's body were handed over to the connection.
    pub response_bytes: u64,
    /// How the request was authorized: the scheme, never what followed it.
    pub authorization: Option<Authorization>,
    /// Those headers of the request that tell what a client is up to, names in lower case.
    pub headers: Vec<(String, String)>,
    /// What failed inside the server, if the answer is that something did.
    pub failure: Option<String>,
}

/// The scheme of an `Authorization` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// Name and password.
    Basic,
    /// A token.
    Bearer,
    /// Anything else.
    Other,
}

impl Exchange {
    /// Whether the request is of this kind: `GET /v2/**/blobs/*`, or a [`Pattern`] for the path alone.
    ///
    /// A pattern with a question mark is held against path and query.
    pub fn is(&self, kind: &str) -> bool {
        Kind::parse(kind).matches(&self.method, &self.path, self.query.as_deref())
    }

    /// A header of the request, by its name in lower case, if it is logged.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A kind of request: a method, or any, and a pattern for the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    method: Option<String>,
    path: Pattern,
}

impl Kind {
    pub(crate) fn parse(text: &str) -> Kind {
        match text.split_once(' ') {
            Some((method, path)) => {
                Kind { method: (method != "*").then(|| method.to_owned()), path: Pattern::new(path) }
            }
            None => Kind { method: None, path: Pattern::new(text) },
        }
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

/// Whoever wants to know of every request, as soon as it was answered or given up.
///
/// It is called by the tasks that serve, and should not keep them waiting.
pub trait Observer: Debug + Send + Sync + 'static {
    /// A request is over.
    fn exchange(&self, exchange: &Exchange);
}

/// The last requests, from the moment they arrive.
#[derive(Debug)]
pub(crate) struct Log {
    /// How many are kept.
    most: usize,
    entries: Mutex<VecDeque<Arc<Entry>>>,
    observer: Option<Arc<dyn Observer>>,
}

/// One of them. It is in the log before anything is answered, so that whoever has an answer finds it there.
#[derive(Debug)]
pub(crate) struct Entry {
    request: Exchange,
    status: AtomicU16,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    failure: OnceLock<String>,
    observer: Option<Arc<dyn Observer>>,
}

impl Log {
    pub(crate) fn new(most: usize, observer: Option<Arc<dyn Observer>>) -> Log {
        Log { most, entries: Mutex::default(), observer }
    }

    /// Takes note of a request, unless nobody wants to know.
    pub(crate) fn begin(&self, request: &Parts) -> Option<Arc<Entry>> {
        if self.most == 0 && self.observer.is_none() {
            return None;
        }
        let entry = Arc::new(Entry::new(request, self.observer.clone()));
        if self.most > 0 {
            let mut entries = self.lock();
            if entries.len() >= self.most {
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

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(request: &Parts, observer: Option<Arc<dyn Observer>>) -> Entry {
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
            status: None,
            request_bytes: 0,
            response_bytes: 0,
            authorization,
            headers: LOGGED.iter().filter_map(text).collect(),
            failure: None,
        };
        Entry {
            request,
            status: AtomicU16::new(0),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            failure: OnceLock::new(),
            observer,
        }
    }

    pub(crate) fn answered(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    pub(crate) fn failed(&self, cause: String) {
        // The first cause is the cause.
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

/// Whose bytes are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Request,
    Response,
}

/// A body whose bytes are counted as they pass.
pub(crate) fn counted(body: Body, entry: &Option<Arc<Entry>>, side: Side, farewell: Option<Farewell>) -> Body {
    match entry {
        Some(entry) => Body::new(Counted { body, entry: entry.clone(), side, _farewell: farewell }),
        None => body,
    }
}

struct Counted {
    body: Body,
    entry: Arc<Entry>,
    side: Side,
    _farewell: Option<Farewell>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            let counter = match self.side {
                Side::Request => &self.entry.request_bytes,
                Side::Response => &self.entry.response_bytes,
            };
            counter.fetch_add(data.len() as u64, Ordering::SeqCst);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Tells the observer when it is dropped: with the body of the answer, or with the request if there was no answer.
#[derive(Debug)]
pub(crate) struct Farewell(Arc<Entry>);

impl Farewell {
    pub(crate) fn of(entry: &Option<Arc<Entry>>) -> Option<Farewell> {
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
    fn the_last_requests_are_kept() {
        let log = Log::new(2, None);
        for path in ["/a", "/b", "/c"] {
            log.begin(&parts("GET", path, &[])).unwrap().answered(200);
        }
        let paths: Vec<_> = log.exchanges().into_iter().map(|exchange| exchange.path).collect();
        assert_eq!(paths, ["/b", "/c"]);
        log.clear();
        assert_eq!(log.exchanges(), []);
        assert!(Log::new(0, None).begin(&parts("GET", "/", &[])).is_none(), "nobody wants to know");
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
    fn a_kind_is_a_method_and_a_path() {
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
            assert_eq!(Kind::parse(kind).matches(method, path, query), expected, "{kind} {method} {target}");
        }
    }
}
