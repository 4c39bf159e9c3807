//! Sending a blob: the state machine says what, this asks and listens.

mod journal;
mod open_session;
mod reader;
mod state;

use std::sync::Arc;

use async_trait::async_trait;
use ocikit_image::{Body, Error, Mismatch, Put, Result, Source, retry};
use ocikit_spec::{Algorithm, Descriptor, Digest};
use reqwest::{Method, Url};

use crate::ahead::Answer;
use crate::auth::Access;
use crate::blobs::{self, BULK};
use crate::client::{Inner, Streamed};
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
use state::{Kind, Outcome, Step, Upload};

/// What a registry is asked to take a blob over from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mount {
    /// Another repository; or the same, which is to ask whether the blob is there.
    From(String),
    /// Whichever has it.
    FromAnywhere,
}

/// Sends a blob that is not there, or lets the registry take it over from another of its repositories. If somebody asked
/// whether it is there, no byte is sent before the answer.
pub(crate) async fn put(
    inner: &Arc<Inner>,
    target: &Arc<Target>,
    key: &JournalKey,
    descriptor: &Descriptor,
    from: &dyn Source,
    mount: Option<&Mount>,
    exists: Option<Answer>,
) -> Result<Put> {
    // What has no bytes is completed without anybody reading it.
    let nothing = Digest::of(descriptor.digest.algorithm(), b"");
    if descriptor.size == 0 && descriptor.digest != nothing {
        return Err(Error::mismatch(&descriptor.digest, from, Mismatch::Digest(nothing)));
    }
    let access = match mount {
        Some(Mount::From(from)) if *from != target.path => target.access_to_mount(from),
        _ => target.access_to_push(),
    };
    let (was_mount, foreign, last) = (false, None, Last::Nothing);
    let journal = inner.options.journal.as_deref();
    let open = OpenSession::none(inner, target, journal.is_some_and(|journal| journal.keeps(key)));
    let mut sender = Sender { inner, target, descriptor, mount, exists, was_mount, access, foreign, last, open };
    let journal = journal.map(|journal| Page { journal, key, written: None });
    let mut page = journal.unwrap_or(Page { journal: &Nowhere, key, written: None });
    let recalled = page.take().await;
    if recalled.as_ref().is_some_and(|url| !redirect::same_server(&target.endpoint.base, url)) {
        sender.foreign = Some(inner.http.reach_from(None));
    }
    let mut upload = Upload::new(descriptor.size, mount.is_some(), recalled);
    sender.open.note(upload.session(), sender.foreign);
    let outcome = sender.run(&mut upload, &Reader::new(descriptor, from), &mut page).await;
    match &outcome {
        Ok(_) => {
            page.forget().await;
            sender.open.release();
        }
        // What the registry has may be continued when it can be reached again.
        Err(Error::Unreachable { .. }) if sender.open.is_kept() => sender.open.release(),
        Err(_) => {
            page.forget().await;
            sender.open.cancel().await;
        }
    }
    outcome
}

/// What the journal says of one upload.
struct Page<'a> {
    journal: &'a dyn Journal,
    key: &'a JournalKey,
    written: Option<Url>,
}

impl Page<'_> {
    async fn take(&self) -> Option<Url> {
        self.journal.take(self.key).await?.url.parse().ok()
    }

    /// Writes down how far it is. Where the session is does not change with every request, and how far it is the
    /// registry knows better.
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

/// The journal of those who keep none.
#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl Journal for Nowhere {
    async fn take(&self, _: &JournalKey) -> Option<JournalEntry> {
        None
    }

    async fn record(&self, _: &JournalKey, _: &JournalEntry) {}

    async fn forget(&self, _: &JournalKey) {}
}

/// Makes the requests of one upload.
struct Sender<'a> {
    inner: &'a Arc<Inner>,
    target: &'a Target,
    descriptor: &'a Descriptor,
    mount: Option<&'a Mount>,
    /// Whether the blob is there, until that is known.
    exists: Option<Answer>,
    /// Whether the session began with a wish to mount the blob.
    was_mount: bool,
    access: Access,
    /// How far it may be reached, if the session is on another host: it gets no credentials.
    foreign: Option<Reach>,
    last: Last,
    open: OpenSession,
}

/// The last thing that went wrong, for when nothing more can be done.
enum Last {
    Nothing,
    /// It claimed success, and the blob is not there.
    Absent,
    Fault(Fault),
    Problem(u16, Problem, Option<std::time::Duration>),
}

impl Last {
    fn asked(&self) -> Option<std::time::Duration> {
        match self {
            Last::Problem(_, _, asked) => *asked,
            _ => None,
        }
    }

    fn error(self, descriptor: &Descriptor, target: &Target) -> Error {
        match self {
            Last::Fault(fault) => problem::unreachable(fault, &target.place),
            // What is missing here is not the blob.
            Last::Problem(404, problem, _) => {
                Error::Refused { place: target.place.clone(), status: 404, problem: problem.text }
            }
            Last::Problem(status, problem, _) => {
                problem::sort(status, problem, &descriptor.digest.to_string(), &target.place)
            }
            Last::Absent => {
                let problem = format!("it accepted {} and does not return it", descriptor.digest);
                Error::protocol(&target.place, problem)
            }
            Last::Nothing => Error::protocol(&target.place, "it begins an upload and does not say where"),
        }
    }
}

impl Sender<'_> {
    /// Makes the requests that the state machine wants, until there are no more.
    async fn run(&mut self, upload: &mut Upload, reader: &Reader<'_>, page: &mut Page<'_>) -> Result<Put> {
        let (inner, size) = (self.inner, self.descriptor.size);
        loop {
            if upload.session().is_some()
                && let Some(exists) = self.exists.take()
                && self.is_there(exists).await?
            {
                return self.cancel(upload, page).await;
            }
            let recalled = upload.is_recalled();
            let outcome = match upload.step() {
                Step::Done { mounted: true } => {
                    if !self.is_from_itself() {
                        return Ok(Put::Mounted);
                    }
                    self.inner.memory.note_mounts(&self.target.endpoint, true);
                    return Ok(Put::Present);
                }
                Step::Done { mounted: false } => return Ok(Put::Copied),
                Step::Failed => return Err(self.take_last()),
                Step::Start { mount } => self.start(*mount).await?,
                Step::Whole { url } => self.send(Method::PUT, url, reader, 0, size).await?,
                Step::Chunk { url, offset, length } => self.send(Method::PATCH, url, reader, *offset, *length).await?,
                Step::Close { url } => self.plain(Method::PUT, self.closing(url)).await?,
                // Whatever became of what a dead process left, there is another way.
                Step::Ask { url } if recalled => self.plain(Method::GET, url.clone()).await.unwrap_or_default(),
                Step::Ask { url } => self.plain(Method::GET, url.clone()).await?,
                Step::Look => self.look().await?,
            };
            let failed = upload.proceed(outcome);
            self.open.note(upload.session(), self.foreign);
            if let Some(url) = upload.session() {
                page.record(url, upload.offset()).await;
            }
            if failed {
                match inner.http.pause(upload.failures(), self.last.asked()) {
                    Some(pause) => {
                        let uploads = self.target.uploads();
                        inner.http.tell().retried(&Method::PUT, &uploads, pause, upload.failures());
                        inner.http.clock().sleep(pause).await;
                    }
                    None => return Err(self.take_last()),
                }
            }
        }
    }

    /// Whether the mount asks no more than whether the blob is there.
    fn is_from_itself(&self) -> bool {
        matches!(self.mount, Some(Mount::From(from)) if *from == self.target.path)
    }

    async fn is_there(&self, exists: Answer) -> Result<bool> {
        match exists.await {
            Ok(exists) => Ok(exists),
            Err(_) => self.exists().await,
        }
    }

    /// Ends an upload of a blob that is there.
    async fn cancel(&mut self, upload: &Upload, page: &mut Page<'_>) -> Result<Put> {
        if self.was_mount && self.is_from_itself() {
            self.inner.memory.note_mounts(&self.target.endpoint, false);
        }
        if let Some(url) = upload.session() {
            page.written = Some(url.clone());
            // It goes away by itself some day if this fails.
            let _ = self.plain(Method::DELETE, url.clone()).await;
        }
        Ok(Put::Present)
    }

    fn take_last(&mut self) -> Error {
        std::mem::replace(&mut self.last, Last::Nothing).error(self.descriptor, self.target)
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
        self.foreign = None;
        match self.plain(Method::POST, url).await {
            // Who may not read the other repository may still write this one.
            Err(Error::Denied { .. }) if mount => Ok(Outcome { kind: Kind::Status(403), ..Outcome::default() }),
            outcome => outcome,
        }
    }

    async fn exists(&self) -> Result<bool> {
        let Descriptor { digest, size, .. } = self.descriptor;
        blobs::exists_to_push(self.inner, self.target, &self.access, digest, *size).await
    }

    async fn look(&mut self) -> Result<Outcome> {
        let exists = self.exists().await?;
        if !exists {
            self.last = Last::Absent;
        }
        Ok(Outcome { kind: Kind::Status(if exists { 200 } else { 404 }), ..Outcome::default() })
    }

    /// A request without a body, repeated as often as it takes.
    async fn plain(&mut self, method: Method, url: Url) -> Result<Outcome> {
        let mut request = Request::new(method, url);
        let reply = match self.foreign {
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
        self.understand(reply).await
    }

    /// Sends bytes of the blob, once.
    async fn send(
        &mut self,
        method: Method,
        url: &Url,
        reader: &Reader<'_>,
        offset: u64,
        length: u64,
    ) -> Result<Outcome> {
        let chunked = method == Method::PATCH;
        let url = if chunked { url.clone() } else { self.closing(url) };
        let mut request = Request::new(method, url).header("content-type", "application/octet-stream");
        if chunked {
            request = request.header("content-range", &range::chunk(offset, length));
        }
        request.lane = if length >= BULK { Lane::Bulk } else { Lane::Small };
        match self.stream_along(request, reader, offset, length).await? {
            Streamed::Answered(reply) => {
                let asked = self.inner.http.retry_after(&reply.answer);
                let passing = retry::is_passing(reply.answer.status);
                let outcome = self.understand(*reply).await?;
                if let Last::Problem(_, _, after) = &mut self.last {
                    *after = asked;
                }
                Ok(if passing { Outcome::default() } else { outcome })
            }
            Streamed::Challenged => Ok(Outcome::default()),
            Streamed::Broken(Fault::Payload(error)) => Err(error),
            Streamed::Broken(fault) if fault.is_final() => Err(problem::unreachable(fault, &self.target.place)),
            Streamed::Broken(fault) => {
                self.last = Last::Fault(fault);
                Ok(Outcome::default())
            }
        }
    }

    /// The same, to wherever the registry sends us with it.
    async fn stream_along(
        &self,
        mut request: Request,
        reader: &Reader<'_>,
        offset: u64,
        length: u64,
    ) -> Result<Streamed> {
        let (mut foreign, mut visited) = (self.foreign, vec![request.url.clone()]);
        loop {
            let body = reader.open(offset, length).await?;
            let reply = match self.stream(request.clone(), body, foreign).await? {
                Streamed::Answered(reply) if redirect::is_redirect(reply.answer.status) => reply,
                streamed => return Ok(streamed),
            };
            let (status, location) = (reply.answer.status, reply.answer.header("location"));
            let hop = redirect::follow(&visited, &request.method, status, location);
            let hop = hop.map_err(|problem| problem::unreachable(Fault::Final(problem.into()), &self.target.place))?;
            if !hop.same && foreign.is_none() {
                foreign = Some(self.inner.http.reach_from(reply.answer.zone));
            }
            request.url = hop.url.clone();
            visited.push(hop.url);
        }
    }

    async fn stream(&self, mut request: Request, body: Body, foreign: Option<Reach>) -> Result<Streamed> {
        let Some(reach) = foreign else {
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

    fn closing(&self, url: &Url) -> Url {
        let mut url = url.clone();
        url.query_pairs_mut().append_pair("digest", &self.descriptor.digest.to_string());
        url
    }

    /// What an answer means to the state machine.
    async fn understand(&mut self, reply: Reply) -> Result<Outcome> {
        let status = reply.answer.status;
        let header = |name| reply.answer.header(name);
        let digest = &self.descriptor.digest;
        let location = match (header("location"), header("docker-upload-uuid")) {
            (Some(location), _) => {
                match redirect::resolve(&reply.url, location) {
                    Ok(location) => Some(location),
                    Err(problem) if status == 202 => return Err(Error::protocol(&self.target.place, problem)),
                    // Nothing is sent to where a complete blob is.
                    Err(_) => None,
                }
            }
            (None, Some(uuid)) if status == 202 => self.target.uploads().join(uuid).ok(),
            (None, _) => None,
        };
        if let (Some(location), 200..300) = (&location, status) {
            let own = redirect::same_server(&self.target.endpoint.base, location);
            let reach = self.foreign.unwrap_or_else(|| self.inner.http.reach_from(reply.answer.zone));
            self.foreign = (!own).then_some(reach);
        }
        let outcome = Outcome {
            kind: Kind::Status(status),
            location,
            received: header("range").and_then(range::received),
            minimum: header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok()),
            named: match manifests::named_digest(header("docker-content-digest")) {
                Some(named) if named.algorithm() == digest.algorithm() => named == *digest,
                _ => header("location").is_some_and(|location| location.contains(&digest.hex())),
            },
        };
        if status >= 300 {
            self.last = Last::Problem(status, Problem::of(reply).await, None);
        }
        Ok(outcome)
    }
}
