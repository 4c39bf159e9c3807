use std::fmt::{self, Debug};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};

use crate::answer::Answer;
use crate::redact::Secrets;
use crate::timeouts::TimeLimit;
use crate::transport::Lane;
use crate::trust::Origin;
use crate::url::Url;

/// A request that can be repeated.
#[derive(Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: Url,
    /// Who named the URL.
    pub origin: Origin,
    /// The headers, except `Authorization`.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The connection to use.
    pub lane: Lane,
    /// The limit on the total time of each response.
    pub limit: TimeLimit,
    /// The `Authorization` header. It is sent to the server of the URL only, and to no server that this one names.
    pub authorization: Option<HeaderValue>,
    /// Whether the body is secret as well. Then a redirect to another server is an error.
    pub is_secret: bool,
}

impl Debug for Request {
    /// Omits headers and body, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { method, url, .. } = self;
        f.debug_struct("Request").field("method", method).field("url", url).finish_non_exhaustive()
    }
}

impl Request {
    /// Creates a request without headers and body. A `GET` or `HEAD` has the time limit of a small document.
    pub fn new(method: Method, url: Url, origin: Origin) -> Request {
        let is_small = matches!(method, Method::GET | Method::HEAD);
        Request {
            limit: if is_small { TimeLimit::Document } else { TimeLimit::None },
            method,
            url,
            origin,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            lane: Lane::Small,
            authorization: None,
            is_secret: false,
        }
    }

    /// Adds a header. A value that is not valid in a header is omitted.
    pub fn header(mut self, name: &'static str, value: &str) -> Request {
        // The value comes from a document with an invalid media type. The server reports what is wrong with the request.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    /// Sets the body and its media type.
    pub fn body(mut self, media_type: &str, body: Bytes) -> Request {
        self.body = body;
        self.header("content-type", media_type)
    }
}

/// An answer and its origin.
#[derive(Debug)]
pub struct Reply {
    /// The answer.
    pub answer: Answer,
    /// The URL that answered, after redirects.
    pub url: Url,
    /// Who named that URL.
    pub origin: Origin,
    /// Whether the server of the request answered, and not one that it named.
    pub direct: bool,
    /// The number of attempts that were made, as far as the client can tell.
    pub attempts: u32,
    /// The secrets of the request, to be removed from everything that is shown of the answer.
    pub secrets: Secrets,
}

/// A complete answer.
#[derive(Clone)]
pub struct Document {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The delay in `Retry-After`, if the header is present.
    pub retry_after: Option<Duration>,
    /// The number of attempts that were made.
    pub attempts: u32,
}

impl Document {
    /// Returns a header; `None` if it is missing or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Debug for Document {
    /// Omits headers and body: token services return tokens in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Document { status, body, attempts, .. } = self;
        let mut shown = f.debug_struct("Document");
        shown.field("status", status).field("body_bytes", &body.len()).field("attempts", attempts);
        shown.finish_non_exhaustive()
    }
}
