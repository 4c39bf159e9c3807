use std::time::Duration;

use bytes::Bytes;

/// The effect of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The request is answered with this reply and has no effect.
    Answer(Reply),
    /// The request is redirected to another URL with status 307. `{path}` in it is replaced by path and query of the
    /// request, so `{path}` alone is a redirect loop.
    Redirect(String),
    /// The connection is cut.
    Cut(Point),
    /// Processing of the request is delayed, as with a long round-trip time.
    Delay(Duration),
    /// No further bytes are sent or read, and the connection stays open.
    Stall(Point),
    /// The response body is sent at this many bytes per second.
    Drip(u64),
    /// The request is processed, and the response has this status.
    Status(u16),
    /// A header of the response is replaced, or removed.
    Header(&'static str, Option<String>),
    /// The `Content-Length` of the response is off by this many bytes. A body that is announced as too long never
    /// arrives in full; one that is announced as too short arrives truncated.
    ContentLength(i64),
    /// One byte of the response body is changed: the one at this offset, or the last one of a shorter body.
    Corrupt(u64),
    /// `Location` has this form.
    Location(Location),
    /// A mount starts an upload, as if the blob did not exist.
    RefuseMount,
    /// The upload session of the request is deleted before the request is processed.
    LoseUpload,
    /// This many of the last received bytes of an upload are lost, and `Range` reports it.
    LoseBytes(u64),
    /// All tokens expire before the request is processed.
    ExpireTokens,
    /// `Range` is ignored: the response is the whole blob with status 200.
    IgnoreRange,
}

impl Action {
    /// The response has a wrong `Docker-Content-Digest`.
    pub fn wrong_digest() -> Action {
        let digest = ocikit_spec::Digest::sha256_of(b"something else");
        Action::Header("docker-content-digest", Some(digest.to_string()))
    }

    /// The method is not supported: status 405, as for `HEAD` of manifests on Nexus (merll/docker-registry-util#3).
    pub fn unsupported() -> Action {
        Action::Answer(Reply::status(405))
    }

    /// The request is redirected to itself.
    pub fn redirect_loop() -> Action {
        Action::Redirect("{path}".to_owned())
    }
}

/// The point of an exchange at which a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before the request is processed.
    Request,
    /// After this many bytes of the request body. If it is shorter, nothing happens.
    RequestBody(u64),
    /// After the request is processed, before the response is sent.
    Answer,
    /// After this many bytes of the response body. If it is shorter, nothing happens.
    AnswerBody(u64),
}

/// A response made by a fault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// The status; an invalid one becomes 500.
    pub status: u16,
    /// The headers. Invalid ones are dropped.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

ocikit_spec::setters! {
    Reply {
        headers: Vec<(String, String)>,
        body: Bytes,
    }
}

impl Reply {
    /// Returns a reply with a status only.
    pub fn status(status: u16) -> Reply {
        Reply { status, ..Reply::default() }
    }
}

/// The form of a `Location` header; by default this server sends a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A URL with scheme and host.
    Absolute,
    /// The location of an upload has a query, which later requests must repeat.
    WithQuery,
    /// There is no `Location`.
    Missing,
    /// The same path on another host: `http://127.0.0.1:5000`.
    Elsewhere(String),
}
