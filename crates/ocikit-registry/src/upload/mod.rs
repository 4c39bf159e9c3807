//! Uploads blobs. `state` decides what to send next; this module sends it and evaluates the answers.

mod journal;
mod open_session;
mod reader;
mod state;

use std::sync::Arc;

use async_trait::async_trait;
use ocikit_image::{Body, Error, Mismatch, Put, Result, Source, retry};
use ocikit_spec::{Algorithm, Descriptor, Digest};
use reqwest::{Method, Url};

use crate::auth::Access;
use crate::blobs::{self, MIN_BULK_BYTES};
use crate::client::{Inner, Streamed};
use crate::existence::ExistsReceiver;
use crate::http::address::Reach;
use crate::http::fault::Fault;
use crate::http::problem::{self, Problem};
use crate::http::send::{Reply, Request};
use crate::http::transport::Lane;
use crate::http::{range, redirect};
use crate::manifests;
use crate::target::Target;

pub use journal::{FileJournal, Journal, JournalEntry, JournalKey, JournalOptions};
use open_session::OpenSession;
use reader::Reader;
use state::{Outcome, OutcomeKind, Step, Upload};

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
    inner: &Arc<Inner>,
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
    let (was_mount, other_host, last) = (false, None, LastFailure::Nothing);
    let journal = inner.options.journal.as_deref();
    let open = OpenSession::none(inner, target, journal.is_some_and(|journal| journal.keeps(key)));
    let mut uploader = Uploader { inner, target, descriptor, mount, exists, was_mount, access, other_host, last, open };
    let journal = journal.map(|journal| JournalRecord { journal, key, written: None });
    let mut record = journal.unwrap_or(JournalRecord { journal: &NoJournal, key, written: None });
    let recalled = record.take().await;
    if recalled.as_ref().is_some_and(|url| !redirect::same_server(&target.endpoint.base, url)) {
        uploader.other_host = Some(inner.http.reach_from(None));
    }
    let mut upload = Upload::new(descriptor.size, mount.is_some(), recalled);
    uploader.open.note(upload.session(), uploader.other_host);
    let outcome = uploader.run(&mut upload, &Reader::new(descriptor, from), &mut record).await;
    match &outcome {
        Ok(_) => {
            record.forget().await;
            uploader.open.release();
        }
        // The session may be resumed when the registry is reachable again.
        Err(Error::Unreachable { .. }) if uploader.open.is_kept() => uploader.open.release(),
        Err(_) => {
            record.forget().await;
            uploader.open.cancel().await;
        }
    }
    outcome
}

/// The journal entry of one upload.
struct JournalRecord<'a> {
    journal: &'a dyn Journal,
    key: &'a JournalKey,
    written: Option<Url>,
}

impl JournalRecord<'_> {
    async fn take(&self) -> Option<Url> {
        self.journal.take(self.key).await?.url.parse().ok()
    }

    /// Records the session. The offset is recorded only with a new URL: the registry knows the current one.
    async fn record(&mut self, url: &Url, offset: u64) {
        if self.written.as_ref() != Some(url) {
            self.journal.record(self.key, &JournalEntry { url: url.to_string(), offset }).await;
            self.written = Some(url.clone());
        }
    }

    async fn forget(&self) {
        if self.written.is_some() {
            self.journal.forget(self.key).await;
        }
    }
}

/// Does nothing, for clients without a journal.
#[derive(Debug)]
struct NoJournal;

#[async_trait]
impl Journal for NoJournal {
    async fn take(&self, _: &JournalKey) -> Option<JournalEntry> {
        None
    }

    async fn record(&self, _: &JournalKey, _: &JournalEntry) {}

    async fn forget(&self, _: &JournalKey) {}
}

/// Sends the requests of one upload.
struct Uploader<'a> {
    inner: &'a Arc<Inner>,
    target: &'a Target,
    descriptor: &'a Descriptor,
    mount: Option<&'a Mount>,
    /// The result of a check whether the blob exists, until it has been evaluated.
    exists: Option<ExistsReceiver>,
    /// Whether the session was started by a request to mount the blob.
    was_mount: bool,
    access: Access,
    /// The zones that may be contacted, if the session is on another host, which gets no credentials.
    other_host: Option<Reach>,
    last: LastFailure,
    open: OpenSession,
}

/// The last failure, reported when no attempt is left.
enum LastFailure {
    Nothing,
    /// The registry reported success, and the blob does not exist.
    Absent,
    Fault(Fault),
    Problem(u16, Problem, Option<std::time::Duration>),
}

impl LastFailure {
    fn asked(&self) -> Option<std::time::Duration> {
        match self {
            LastFailure::Problem(_, _, asked) => *asked,
            _ => None,
        }
    }

    fn error(self, descriptor: &Descriptor, target: &Target) -> Error {
        match self {
            LastFailure::Fault(fault) => problem::unreachable(fault, &target.place),
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

impl Uploader<'_> {
    /// Sends the requests that the state machine demands, until it ends.
    async fn run(&mut self, upload: &mut Upload, reader: &Reader<'_>, record: &mut JournalRecord<'_>) -> Result<Put> {
        let (inner, size) = (self.inner, self.descriptor.size);
        loop {
            if upload.session().is_some()
                && let Some(exists) = self.exists.take()
                && self.is_there(exists).await?
            {
                return self.cancel(upload, record).await;
            }
            let recalled = upload.is_recalled();
            let outcome = match upload.step() {
                Step::Done { mounted: true } => {
                    if !self.is_from_itself() {
                        return Ok(Put::Mounted);
                    }
                    self.inner.cache.note_mounts(&self.target.endpoint, true);
                    return Ok(Put::Present);
                }
                Step::Done { mounted: false } => return Ok(Put::Copied),
                Step::Failed => return Err(self.take_last()),
                Step::Start { mount } => self.start(*mount).await?,
                Step::Whole { url } => self.send(Method::PUT, url, reader, 0, size).await?,
                Step::Chunk { url, offset, length } => self.send(Method::PATCH, url, reader, *offset, *length).await?,
                Step::Commit { url } => self.plain(Method::PUT, self.commit_url(url)).await?,
                // The session of a dead process is optional: if it cannot be queried, a new one is started.
                Step::QueryOffset { url } if recalled => self.plain(Method::GET, url.clone()).await.unwrap_or_default(),
                Step::QueryOffset { url } => self.plain(Method::GET, url.clone()).await?,
                Step::HeadBlob => self.head_blob().await?,
            };
            let failed = upload.proceed(outcome);
            self.open.note(upload.session(), self.other_host);
            if let Some(url) = upload.session() {
                record.record(url, upload.offset()).await;
            }
            if failed {
                match inner.http.pause(upload.failures(), self.last.asked()) {
                    Some(pause) => {
                        let uploads = self.target.uploads();
                        inner.http.observer().retried(&Method::PUT, &uploads, pause, upload.failures());
                        inner.http.clock().sleep(pause).await;
                    }
                    None => return Err(self.take_last()),
                }
            }
        }
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

    /// Ends the upload of a blob that exists.
    async fn cancel(&mut self, upload: &Upload, record: &mut JournalRecord<'_>) -> Result<Put> {
        if self.was_mount && self.is_from_itself() {
            self.inner.cache.note_mounts(&self.target.endpoint, false);
        }
        if let Some(url) = upload.session() {
            record.written = Some(url.clone());
            // If this fails, the session expires.
            let _ = self.plain(Method::DELETE, url.clone()).await;
        }
        Ok(Put::Present)
    }

    fn take_last(&mut self) -> Error {
        std::mem::replace(&mut self.last, LastFailure::Nothing).error(self.descriptor, self.target)
    }

    async fn start(&mut self, mount: bool) -> Result<Outcome> {
        let mut url = self.target.uploads();
        let algorithm = self.descriptor.digest.algorithm();
        if algorithm != Algorithm::Sha256 {
            url.query_pairs_mut().append_pair("digest-algorithm", algorithm.name());
        }
        if mount {
            url.query_pairs_mut().append_pair("mount", &self.descriptor.digest.to_string());
        }
        if let Some(Mount::From(from)) = self.mount.filter(|_| mount) {
            url.query_pairs_mut().append_pair("from", from);
        }
        if !mount {
            self.access = self.target.access_to_push();
        }
        self.was_mount = mount;
        self.other_host = None;
        match self.plain(Method::POST, url).await {
            // The user may have no permission to read the other repository, and still have it to write this one.
            Err(Error::Denied { .. }) if mount => Ok(Outcome { kind: OutcomeKind::Status(403), ..Outcome::default() }),
            outcome => outcome,
        }
    }

    async fn exists(&self) -> Result<bool> {
        let Descriptor { digest, size, .. } = self.descriptor;
        blobs::exists_to_push(self.inner, self.target, &self.access, digest, *size).await
    }

    async fn head_blob(&mut self) -> Result<Outcome> {
        let exists = self.exists().await?;
        if !exists {
            self.last = LastFailure::Absent;
        }
        Ok(Outcome { kind: OutcomeKind::Status(if exists { 200 } else { 404 }), ..Outcome::default() })
    }

    /// Sends a request without a body, with retries.
    async fn plain(&mut self, method: Method, url: Url) -> Result<Outcome> {
        let mut request = Request::new(method, url);
        let reply = match self.other_host {
            None => self.inner.call(&self.target.endpoint, &self.access, request, &self.target.place).await?,
            Some(reach) => {
                request.reach = reach;
                let unreachable = |fault| problem::unreachable(fault, &self.target.place);
                let tls = self.inner.http.tls_of(&request.url).map_err(unreachable)?;
                self.inner.http.send(&request, &tls).await.map_err(unreachable)?
            }
        };
        if retry::is_passing(reply.answer.status) {
            let digest = self.descriptor.digest.to_string();
            return Err(problem::error(reply, &digest, &self.target.place).await);
        }
        self.outcome(reply).await
    }

    /// Sends bytes of the blob in one attempt.
    async fn send(
        &mut self,
        method: Method,
        url: &Url,
        reader: &Reader<'_>,
        offset: u64,
        length: u64,
    ) -> Result<Outcome> {
        let chunked = method == Method::PATCH;
        let url = if chunked { url.clone() } else { self.commit_url(url) };
        let mut request = Request::new(method, url).header("content-type", "application/octet-stream");
        if chunked {
            request = request.header("content-range", &range::chunk(offset, length));
        }
        request.lane = if length >= MIN_BULK_BYTES { Lane::Bulk } else { Lane::Small };
        match self.stream_with_redirects(request, reader, offset, length).await? {
            Streamed::Answered(reply) => {
                let asked = self.inner.http.retry_after(&reply.answer);
                let passing = retry::is_passing(reply.answer.status);
                let outcome = self.outcome(*reply).await?;
                if let LastFailure::Problem(_, _, after) = &mut self.last {
                    *after = asked;
                }
                Ok(if passing { Outcome::default() } else { outcome })
            }
            Streamed::Challenged => Ok(Outcome::default()),
            Streamed::Broken(Fault::Payload(error)) => Err(error),
            Streamed::Broken(fault) if fault.is_final() => Err(problem::unreachable(fault, &self.target.place)),
            Streamed::Broken(fault) => {
                self.last = LastFailure::Fault(fault);
                Ok(Outcome::default())
            }
        }
    }

    /// Sends a body and follows redirects, with a new body for each.
    async fn stream_with_redirects(
        &self,
        mut request: Request,
        reader: &Reader<'_>,
        offset: u64,
        length: u64,
    ) -> Result<Streamed> {
        let (mut other_host, mut visited) = (self.other_host, vec![request.url.clone()]);
        loop {
            let body = reader.open(offset, length).await?;
            let reply = match self.stream(request.clone(), body, other_host).await? {
                Streamed::Answered(reply) if redirect::is_redirect(reply.answer.status) => reply,
                streamed => return Ok(streamed),
            };
            let (status, location) = (reply.answer.status, reply.answer.header("location"));
            let hop = redirect::follow(&visited, &request.method, status, location);
            let hop = hop.map_err(|problem| problem::unreachable(Fault::Final(problem.into()), &self.target.place))?;
            if !hop.same && other_host.is_none() {
                other_host = Some(self.inner.http.reach_from(reply.answer.zone));
            }
            request.url = hop.url.clone();
            visited.push(hop.url);
        }
    }

    async fn stream(&self, mut request: Request, body: Body, other_host: Option<Reach>) -> Result<Streamed> {
        let Some(reach) = other_host else {
            return self.inner.stream(&self.target.endpoint, &self.access, request, body, &self.target.place).await;
        };
        request.reach = reach;
        let tls = self.inner.http.tls_of(&request.url);
        let tls = tls.map_err(|fault| problem::unreachable(fault, &self.target.place))?;
        Ok(match self.inner.http.stream(request, body, &tls).await {
            Ok(reply) => Streamed::Answered(Box::new(reply)),
            Err(fault) => Streamed::Broken(fault),
        })
    }

    fn commit_url(&self, url: &Url) -> Url {
        let mut url = url.clone();
        url.query_pairs_mut().append_pair("digest", &self.descriptor.digest.to_string());
        url
    }

    /// Translates an answer for the state machine.
    async fn outcome(&mut self, reply: Reply) -> Result<Outcome> {
        let status = reply.answer.status;
        let header = |name| reply.answer.header(name);
        let digest = &self.descriptor.digest;
        let location = match (header("location"), header("docker-upload-uuid")) {
            (Some(location), _) => {
                match redirect::resolve(&reply.url, location) {
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
            let own = redirect::same_server(&self.target.endpoint.base, location);
            let reach = self.other_host.unwrap_or_else(|| self.inner.http.reach_from(reply.answer.zone));
            self.other_host = (!own).then_some(reach);
        }
        let outcome = Outcome {
            kind: OutcomeKind::Status(status),
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
}
