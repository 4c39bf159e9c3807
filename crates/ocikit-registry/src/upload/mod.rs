//! Uploads a blob. Distribution specification, "Pushing Blobs".
//!
//! [`state`] decides what to send next, from the answers so far, and makes no requests. This file has the requests, in the
//! order of the protocol: `POST` starts or mounts, `PUT` or `PATCH` sends bytes, `GET` queries how many arrived after a
//! failure, an empty `PUT` commits, `HEAD` checks the result, `DELETE` cancels.

mod open_session;
mod reader;
mod state;

use std::sync::Arc;
use std::time::Duration;

use ocikit_http::{Lane, Method, Origin, Reply, Request, RequestError, Url, retry};
use ocikit_image::{Error, Mismatch, Put, Result, Source};
use ocikit_spec::{Algorithm, Descriptor, Digest};

use crate::auth::Scopes;
use crate::blobs::{self, MIN_BULK_BYTES};
use crate::call::Streamed;
use crate::existence::ExistsReceiver;
use crate::journal::{JournalKey, JournalRecord};
use crate::problem::{self, Problem};
use crate::target::Target;
use crate::{manifests, range};

use open_session::OpenSession;
use reader::Reader;
use state::{Outcome, Step, Upload};

/// The source of a cross-repository mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mount {
    /// Another repository. The target repository itself stands for the question whether the blob exists.
    From(String),
    /// Any repository that has the blob.
    FromAnywhere,
}

/// Uploads a blob that does not exist, or mounts it. If a check whether it exists is in progress, no byte of the blob
/// is sent before its result.
pub(crate) async fn put(
    target: &Arc<Target>,
    key: &JournalKey,
    descriptor: &Descriptor,
    from: &dyn Source,
    mount: Option<&Mount>,
    exists: Option<ExistsReceiver>,
) -> Result<Put> {
    // An empty blob is completed without reading its source, so its digest is checked here.
    let nothing = Digest::of(descriptor.digest.algorithm(), b"");
    if descriptor.size == 0 && descriptor.digest != nothing {
        return Err(Error::mismatch(&descriptor.digest, from, Mismatch::Digest(nothing)));
    }
    let access = match mount {
        Some(Mount::From(from)) if *from != target.path => target.access_to_mount(from),
        _ => target.access_to_push(),
    };
    let journal = target.inner.options.journal.as_deref();
    let open = OpenSession::none(target, journal.is_some_and(|journal| journal.keeps(key)));
    let mut record = JournalRecord::new(journal, key);
    let recalled = record.take().await;
    let origin = match &recalled {
        Some(session) => target.inner.http.origin_of_recorded(session, target.endpoint.home()),
        None => target.endpoint.origin(),
    };
    let (was_mount, last) = (false, LastFailure::Nothing);
    let mut uploader = Uploader { target, descriptor, mount, exists, was_mount, access, origin, last, open };
    let mut upload = Upload::new(descriptor.size, mount.is_some(), recalled);
    uploader.open.note(upload.session(), &uploader.origin);
    let outcome = uploader.run(&mut upload, &Reader::new(descriptor, from), &mut record).await;
    match &outcome {
        Ok(_) => {
            record.forget().await;
            uploader.open.release();
        }
        // The session may be resumed when the registry is reachable again.
        Err(Error::Unreachable { .. }) if uploader.open.kept => uploader.open.release(),
        Err(_) => {
            record.forget().await;
            uploader.open.cancel().await;
        }
    }
    outcome
}

/// Sends the requests of one upload.
struct Uploader<'a> {
    target: &'a Target,
    descriptor: &'a Descriptor,
    mount: Option<&'a Mount>,
    /// The result of a check whether the blob exists, until it has been evaluated.
    exists: Option<ExistsReceiver>,
    /// Whether the session was started by a request to mount the blob.
    was_mount: bool,
    access: Scopes,
    /// Whether the session is on the registry or on another host, which gets no credentials.
    origin: Origin,
    last: LastFailure,
    open: OpenSession,
}

impl Uploader<'_> {
    /// Sends the requests that the state machine demands, until it ends.
    async fn run(&mut self, upload: &mut Upload, reader: &Reader<'_>, record: &mut JournalRecord<'_>) -> Result<Put> {
        let size = self.descriptor.size;
        loop {
            if upload.session().is_some()
                && let Some(exists) = self.exists.take()
                && self.is_there(exists).await?
            {
                self.cancel(upload, record).await;
                return Ok(Put::Present);
            }
            let recalled = upload.recalled;
            let outcome = match &upload.step {
                Step::Start { mount } => self.start_session(*mount).await?,
                Step::Whole { url } => self.send_bytes(Method::PUT, url, reader, 0, size).await?,
                Step::Chunk { url, offset, length } => {
                    self.send_bytes(Method::PATCH, url, reader, *offset, *length).await?
                }
                // The session of a dead process is optional: if it cannot be queried, a new one is started.
                Step::QueryOffset { url } if recalled => {
                    self.send_empty(Method::GET, url.clone()).await.unwrap_or_default()
                }
                Step::QueryOffset { url } => self.send_empty(Method::GET, url.clone()).await?,
                Step::Commit { url } => {
                    self.send_empty(Method::PUT, Target::commit(url, &self.descriptor.digest)).await?
                }
                Step::HeadBlob => self.head_blob().await?,
                Step::Done { mounted } => return Ok(self.done(*mounted)),
                Step::Failed => return Err(self.take_last()),
            };
            let failed = upload.proceed(outcome);
            self.open.note(upload.session(), &self.origin);
            if let Some(url) = upload.session() {
                record.record(url, upload.offset).await;
            }
            if failed && !self.back_off(upload.failures).await {
                return Err(self.take_last());
            }
        }
    }

    /// `POST`: starts a session, or mounts the blob.
    async fn start_session(&mut self, mount: bool) -> Result<Outcome> {
        let mut url = self.target.uploads();
        let algorithm = self.descriptor.digest.algorithm();
        if algorithm != Algorithm::Sha256 {
            url.append_query("digest-algorithm", algorithm.name());
        }
        if mount {
            url.append_query("mount", &self.descriptor.digest.to_string());
        }
        if let Some(Mount::From(from)) = self.mount.filter(|_| mount) {
            url.append_query("from", from);
        }
        if !mount {
            self.access = self.target.access_to_push();
        }
        self.was_mount = mount;
        self.origin = self.target.endpoint.origin();
        match self.send_empty(Method::POST, url).await {
            // The user may have no permission to read the other repository, and still have it to write this one.
            Err(Error::Denied { .. }) if mount => Ok(Outcome { status: Some(403), ..Outcome::default() }),
            outcome => outcome,
        }
    }

    /// `PUT`: sends all bytes and commits. `PATCH`: sends a chunk. One attempt.
    async fn send_bytes(
        &mut self,
        method: Method,
        url: &Url,
        reader: &Reader<'_>,
        offset: u64,
        length: u64,
    ) -> Result<Outcome> {
        let is_chunk = method == Method::PATCH;
        let url = if is_chunk { url.clone() } else { Target::commit(url, &self.descriptor.digest) };
        let request = Request::new(method, url, self.origin.clone());
        let mut request = request.header("content-type", "application/octet-stream");
        if is_chunk {
            request = request.header("content-range", &range::chunk(offset, length));
        }
        request.lane = if length >= MIN_BULK_BYTES { Lane::Bulk } else { Lane::Small };
        match self.target.stream(&self.access, request, &reader.part(offset, length)).await? {
            Streamed::Answered(reply) => {
                let asked = self.target.inner.http.retry_after(&reply.answer);
                let is_passing = retry::is_passing(reply.answer.status);
                let outcome = self.outcome(*reply).await?;
                if let LastFailure::Problem(_, _, after) = &mut self.last {
                    *after = asked;
                }
                Ok(if is_passing { Outcome::default() } else { outcome })
            }
            Streamed::Challenged => Ok(Outcome::default()),
            Streamed::Broken(error) if error.is_final() => Err(problem::unreachable(error, &self.target.place)),
            Streamed::Broken(error) => {
                self.last = LastFailure::NoAnswer(error);
                Ok(Outcome::default())
            }
        }
    }

    /// `HEAD`: checks whether the blob exists, after an answer that does not prove it.
    async fn head_blob(&mut self) -> Result<Outcome> {
        let exists = self.exists().await?;
        if !exists {
            self.last = LastFailure::Absent;
        }
        Ok(Outcome { status: Some(if exists { 200 } else { 404 }), ..Outcome::default() })
    }

    /// Returns the result of an upload that is complete.
    fn done(&self, mounted: bool) -> Put {
        match mounted {
            false => Put::Copied,
            true if self.is_from_itself() => {
                self.target.inner.cache.note_mounts(&self.target.endpoint, true);
                Put::Present
            }
            true => Put::Mounted,
        }
    }

    /// `DELETE`: ends the session of a blob that turned out to exist.
    async fn cancel(&mut self, upload: &Upload, record: &mut JournalRecord<'_>) {
        if self.was_mount && self.is_from_itself() {
            self.target.inner.cache.note_mounts(&self.target.endpoint, false);
        }
        if let Some(url) = upload.session() {
            record.note(url);
            // If this fails, the session expires.
            let _ = self.send_empty(Method::DELETE, url.clone()).await;
        }
    }

    /// Waits before the next attempt. Returns whether there is one.
    async fn back_off(&self, failures: u32) -> bool {
        let asked = match &self.last {
            LastFailure::Problem(_, _, asked) => *asked,
            _ => None,
        };
        self.target.inner.http.back_off(&Method::PUT, &self.target.uploads(), failures, asked).await
    }

    /// Returns whether the mount only checks whether the blob exists.
    fn is_from_itself(&self) -> bool {
        matches!(self.mount, Some(Mount::From(from)) if *from == self.target.path)
    }

    async fn is_there(&self, exists: ExistsReceiver) -> Result<bool> {
        match exists.await {
            Ok(exists) => Ok(exists),
            Err(_) => self.exists().await,
        }
    }

    async fn exists(&self) -> Result<bool> {
        let Descriptor { digest, size, .. } = self.descriptor;
        blobs::exists_to_push(self.target, &self.access, digest, *size).await
    }

    /// Sends a request without a body, with retries.
    async fn send_empty(&mut self, method: Method, url: Url) -> Result<Outcome> {
        let request = Request::new(method, url, self.origin.clone());
        let reply = self.target.call(&self.access, request).await?;
        if retry::is_passing(reply.answer.status) {
            return Err(self.target.error(reply, &self.descriptor.digest.to_string()).await);
        }
        self.outcome(reply).await
    }

    /// Translates an answer for the state machine.
    async fn outcome(&mut self, reply: Reply) -> Result<Outcome> {
        let status = reply.answer.status;
        let header = |name| reply.answer.header(name);
        let digest = &self.descriptor.digest;
        let location = match (header("location"), header("docker-upload-uuid")) {
            (Some(location), _) => {
                match ocikit_http::resolve(&reply.url, location) {
                    Ok(location) => Some(location),
                    Err(problem) if status == 202 => return Err(Error::protocol(&self.target.place, problem)),
                    // No further request goes to the location of a complete blob, so an invalid one does not matter.
                    Err(_) => None,
                }
            }
            (None, Some(uuid)) if status == 202 => self.target.uploads().join(uuid).ok(),
            (None, _) => None,
        };
        if let (Some(location), 200..300) = (&location, status) {
            self.origin = self.target.inner.http.origin_of(location, self.target.endpoint.home(), &reply);
        }
        let outcome = Outcome {
            status: Some(status),
            location,
            received: header("range").and_then(range::received),
            minimum: header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok()),
            named: match manifests::named_digest(header("docker-content-digest")) {
                Some(named) if named.algorithm() == digest.algorithm() => named == *digest,
                _ => header("location").is_some_and(|location| location.contains(&digest.hex())),
            },
        };
        if status >= 300 {
            self.last = LastFailure::Problem(status, Problem::of(reply).await, None);
        }
        Ok(outcome)
    }

    fn take_last(&mut self) -> Error {
        std::mem::replace(&mut self.last, LastFailure::Nothing).error(self.descriptor, self.target)
    }
}

/// The last failure, reported when no attempt is left.
enum LastFailure {
    Nothing,
    /// The registry reported success, and the blob does not exist.
    Absent,
    NoAnswer(RequestError),
    /// An answer with this status, and its `Retry-After`.
    Problem(u16, Problem, Option<Duration>),
}

impl LastFailure {
    fn error(self, descriptor: &Descriptor, target: &Target) -> Error {
        match self {
            LastFailure::NoAnswer(error) => problem::unreachable(error, &target.place),
            // 404 refers to the session here, and not to the blob.
            LastFailure::Problem(404, problem, _) => {
                Error::Refused { place: target.place.clone(), status: 404, problem: problem.text }
            }
            LastFailure::Problem(status, problem, _) => {
                problem::error_of_status(status, problem, &descriptor.digest.to_string(), &target.place)
            }
            LastFailure::Absent => {
                let problem = format!("it accepted {} and does not return it", descriptor.digest);
                Error::protocol(&target.place, problem)
            }
            LastFailure::Nothing => Error::protocol(&target.place, "it started an upload without a location"),
        }
    }
}
