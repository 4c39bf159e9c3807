use std::time::Duration;

use bytes::Bytes;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The request is answered with this and does nothing.
    Answer(Reply),
    /// The request is sent to another URL, status 307. `{path}` in it stands for path and query of the request, so a
    /// URL of only that is a redirect that leads to itself.
    Redirect(String),
    /// The connection is cut.
    Cut(Point),
    /// The request is looked at so much later, as if the registry were far away.
    Delay(Duration),
    /// Nothing more comes, and the connection stays.
    Stall(Point),
    /// The body of the answer comes at this many bytes per second.
    Drip(u64),
    /// The request does what it should, and the answer has this status.
    Status(u16),
    /// The answer has another value in this header, or has no such header.
    Header(&'static str, Option<String>),
    /// The `Content-Length` of the answer is this much more than there is. What is longer never arrives in full; what is
    /// shorter arrives cut off.
    ContentLength(i64),
    /// One byte of the answer's body is another one: that at this offset, or the last one if there are fewer.
    Corrupt(u64),
    /// A `Location` is of this form.
    Location(Location),
    /// Mounting a blob begins an upload, as if it were not there.
    RefuseMount,
    /// The upload that the request is for is forgotten before the request is looked at.
    LoseUpload,
    /// So many of the last bytes of an upload are lost after they came, and `Range` says so.
    LoseBytes(u64),
    /// All tokens end before the request is looked at.
    ExpireTokens,
    /// `Range` is not heard: the answer is all of the blob, status 200.
    IgnoreRange,
}

impl Action {
    /// The `Docker-Content-Digest` of the answer is that of something else.
    pub fn wrong_digest() -> Action {
        let digest = ocikit_spec::Digest::sha256_of(b"something else");
        Action::Header("docker-content-digest", Some(digest.to_string()))
    }

    /// The method is not supported, as some registries say of `HEAD`.
    pub fn unsupported() -> Action {
        Action::Answer(Reply::status(405))
    }

    /// The request is redirected to itself, for ever.
    pub fn redirect_loop() -> Action {
        Action::Redirect("{path}".to_owned())
    }
}

/// Where in an exchange something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before the request is looked at.
    Request,
    /// After so many bytes of the request's body. If it has fewer nothing happens.
    RequestBody(u64),
    /// After the request did what it should, before anything is answered.
    Answer,
    /// After so many bytes of the answer's body. If it has fewer nothing happens.
    AnswerBody(u64),
}

/// An answer made up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The status; what HTTP does not know as one is a 500.
    pub status: u16,
    /// Headers. Those that HTTP does not allow are left out.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A status and nothing else.
    pub fn status(status: u16) -> Reply {
        Reply { status, ..Reply::default() }
    }
}

/// The form of a `Location` header; this server's own is a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A URL with scheme and host.
    Absolute,
    /// The location of an upload has a query, without which later requests fail.
    WithQuery,
    /// There is none.
    Missing,
    /// The same path on another host: `http://127.0.0.1:5000`.
    Elsewhere(String),
}
