//! A test double of a registry: enough of the protocol for the client, in the process of the test, with faults on
//! demand. It shares no code with the client or with the server of ocikit.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ocikit_spec::{Digest, Document};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// A request, as a rule sees it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) version: hyper::Version,
}

impl Seen {
    /// Method and path, as in the log.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Returns a parameter of the query, or of a form that was merged into it.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).next()
    }

    pub(crate) fn parameters<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(move |(found, _)| *found == name).map(|(_, value)| decode(value))
    }
}

/// What a rule does with a request.
#[derive(Clone)]
pub(crate) enum Action {
    /// Nothing: the next rule, or the registry, answers.
    Pass,
    /// Sends this answer in place of the registry's.
    Reply(u16, Vec<(&'static str, String)>, Bytes),
    /// Reads this many bytes of the body and cuts the connection. An upload keeps the received bytes.
    CutRequest(usize),
    /// Answers normally, and cuts the connection after this many bytes of the body.
    CutResponse(usize),
    /// Answers normally, and stalls after this many bytes of the body.
    StallResponse(usize),
    /// Answers normally, with these additional headers; an empty value removes one.
    Headers(Vec<(&'static str, String)>),
    /// Processes the request and does not answer.
    Swallow,
    /// Reads everything and answers 201.
    Taken,
    /// Never answers.
    Hang,
}

pub(crate) fn status(status: u16) -> Action {
    Action::Reply(status, Vec::new(), Bytes::new())
}

type Rule = Box<dyn FnMut(&Seen) -> Action + Send>;

/// Variations in the behaviour of the registry.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    pub(crate) referrers: bool,
    pub(crate) mount: bool,
    pub(crate) ranges: bool,
    pub(crate) patch_status: u16,
    pub(crate) min_chunk: Option<u64>,
    pub(crate) page: usize,
}

impl Default for Behaviour {
    fn default() -> Behaviour {
        Behaviour { referrers: true, mount: true, ranges: true, patch_status: 202, min_chunk: None, page: usize::MAX }
    }
}

#[derive(Default)]
struct Contents {
    blobs: HashMap<(String, Digest), Bytes>,
    manifests: HashMap<(String, Digest), (String, Bytes)>,
    tags: BTreeMap<(String, String), Digest>,
    uploads: HashMap<String, BytesMut>,
    next: usize,
}

struct Inner {
    address: SocketAddr,
    behaviour: Mutex<Behaviour>,
    contents: Mutex<Contents>,
    log: Mutex<Vec<Seen>>,
    rules: Mutex<Vec<Rule>>,
}

/// A registry on a port of this machine, until it is dropped.
pub(crate) struct Double {
    inner: Arc<Inner>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Double {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Double {
    pub(crate) async fn start() -> Double {
        Double::with(Behaviour::default()).await
    }

    pub(crate) async fn with(behaviour: Behaviour) -> Double {
        Double::run(behaviour, None).await
    }

    /// Starts a registry that speaks TLS.
    pub(crate) async fn secure(tls: ServerConfig) -> Double {
        Double::run(Behaviour::default(), Some(TlsAcceptor::from(Arc::new(tls)))).await
    }

    /// Starts a plain HTTP registry at the address of another one, which is dropped.
    pub(crate) async fn instead_of(other: Double) -> Double {
        let address = other.inner.address;
        drop(other);
        loop {
            if let Ok(listener) = TcpListener::bind(address).await {
                return Double::listen(listener, Behaviour::default(), None);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn run(behaviour: Behaviour, tls: Option<TlsAcceptor>) -> Double {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Double::listen(listener, behaviour, tls)
    }

    fn listen(listener: TcpListener, behaviour: Behaviour, tls: Option<TlsAcceptor>) -> Double {
        let inner = Arc::new(Inner {
            address: listener.local_addr().unwrap(),
            behaviour: Mutex::new(behaviour),
            contents: Mutex::default(),
            log: Mutex::default(),
            rules: Mutex::default(),
        });
        let serving = inner.clone();
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let inner = serving.clone();
                let tls = tls.clone();
                connections.spawn(async move {
                    match tls {
                        None => converse(inner, stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(inner, stream).await;
                            }
                        }
                    }
                });
            }
        });
        Double { inner, server }
    }

    /// Returns `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.inner.address.to_string()
    }

    /// Adds a rule, which sees every request that earlier rules passed on.
    pub(crate) fn rule(&self, rule: impl FnMut(&Seen) -> Action + Send + 'static) {
        lock(&self.inner.rules).push(Box::new(rule));
    }

    /// Adds a rule that applies one action each to the first requests whose log line starts with a prefix.
    pub(crate) fn script(&self, line: &'static str, actions: Vec<Action>) {
        let mut actions = actions.into_iter();
        self.rule(
            move |seen| {
                if seen.line().starts_with(line) { actions.next().unwrap_or(Action::Pass) } else { Action::Pass }
            },
        );
    }

    pub(crate) fn behaviour(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut lock(&self.inner.behaviour));
    }

    /// Returns the log lines of the requests so far, and clears the log.
    pub(crate) fn log(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }

    /// Returns the requests so far, and clears the log.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut lock(&self.inner.log))
    }

    pub(crate) fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        lock(&self.inner.contents).blobs.get(&(repository.to_owned(), *digest)).cloned()
    }

    pub(crate) fn put_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256_of(&bytes);
        lock(&self.inner.contents).blobs.insert((repository.to_owned(), digest), bytes);
        digest
    }

    pub(crate) fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256_of(&bytes);
        let contents = &mut *lock(&self.inner.contents);
        contents.manifests.insert((repository.to_owned(), digest), (media_type.to_owned(), bytes));
        contents.tags.insert((repository.to_owned(), tag.to_owned()), digest);
        digest
    }

    /// Returns whether it is empty, without open uploads.
    pub(crate) fn is_empty(&self) -> bool {
        let contents = lock(&self.inner.contents);
        contents.blobs.is_empty() && contents.manifests.is_empty() && contents.uploads.is_empty()
    }

    /// Returns whether an upload was started and neither completed nor cancelled.
    pub(crate) fn is_uploading(&self) -> bool {
        !lock(&self.inner.contents).uploads.is_empty()
    }

    pub(crate) fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        lock(&self.inner.contents).tags.get(&(repository.to_owned(), tag.to_owned())).copied()
    }

    pub(crate) fn manifest(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        let found = lock(&self.inner.contents).manifests.get(&(repository.to_owned(), *digest)).cloned();
        found.map(|(_, bytes)| bytes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Answers the requests of one connection.
async fn converse(inner: Arc<Inner>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(move |request| answer(inner.clone(), request));
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // A cut connection is an error here, and intended.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

type Reply = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

async fn answer(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Reply, std::io::Error> {
    let cut = || std::io::Error::other("cut");
    let headers = request.headers().iter();
    let mut seen = Seen {
        method: request.method().clone(),
        version: request.version(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        headers: headers
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
            .collect(),
    };
    let mut body = request.into_body();
    if seen.header("content-type") == "application/x-www-form-urlencoded" {
        let form = body.collect().await.map_err(|_| cut())?.to_bytes();
        seen.query = String::from_utf8_lossy(&form).into_owned();
        lock(&inner.log).push(seen.clone());
        return Ok(match act(&inner, &seen) {
            Action::Reply(status, headers, body) => reply(status, &headers, body),
            _ => reply(404, &[], ""),
        });
    }
    lock(&inner.log).push(seen.clone());
    match act(&inner, &seen) {
        Action::Pass => {
            let bytes = receive(&inner, &seen, &mut body, usize::MAX).await.ok_or_else(cut)?;
            Ok(serve(&inner, &seen, bytes))
        }
        Action::Reply(status, headers, bytes) => {
            // Most servers that refuse a body do not wait for its end.
            Ok(reply(status, &headers, bytes))
        }
        Action::CutRequest(after) => {
            let bytes = receive(&inner, &seen, &mut body, after).await;
            if let (Some(bytes), true) = (bytes, is_upload(&seen)) {
                store(&inner, &seen, &bytes);
            }
            Err(cut())
        }
        Action::CutResponse(after) => {
            let bytes = receive(&inner, &seen, &mut body, usize::MAX).await.ok_or_else(cut)?;
            // The head and the first bytes must be sent before the connection is cut.
            let end = async move {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                Err(cut())
            };
            begun(serve(&inner, &seen, bytes), after, end).await
        }
        Action::StallResponse(after) => {
            let bytes = receive(&inner, &seen, &mut body, usize::MAX).await.ok_or_else(cut)?;
            begun(serve(&inner, &seen, bytes), after, std::future::pending()).await
        }
        Action::Headers(headers) => {
            let bytes = receive(&inner, &seen, &mut body, usize::MAX).await.ok_or_else(cut)?;
            let mut response = serve(&inner, &seen, bytes);
            for (name, value) in headers {
                let name = HeaderName::from_static(name);
                response.headers_mut().remove(&name);
                if !value.is_empty() {
                    response.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
                }
            }
            Ok(response)
        }
        Action::Swallow => {
            let bytes = receive(&inner, &seen, &mut body, usize::MAX).await.ok_or_else(cut)?;
            serve(&inner, &seen, bytes);
            Err(cut())
        }
        Action::Taken => {
            body.collect().await.map_err(|_| cut())?;
            Ok(reply(201, &[], ""))
        }
        Action::Hang => std::future::pending().await,
    }
}

/// Sends the start of an answer, and then performs the action.
async fn begun(
    reply: Reply,
    after: usize,
    end: impl Future<Output = Result<Frame<Bytes>, std::io::Error>> + Send + 'static,
) -> Result<Reply, std::io::Error> {
    let (mut head, body) = reply.into_parts();
    let whole = body.collect().await?.to_bytes();
    if !head.headers.contains_key("content-length") {
        head.headers.insert("content-length", whole.len().into());
    }
    let sent = whole.slice(..after.min(whole.len()));
    let frames = futures::stream::iter([Ok(Frame::data(sent))]);
    let frames = futures::StreamExt::chain(frames, futures::stream::once(end));
    Ok(Response::from_parts(head, BodyExt::boxed_unsync(StreamBody::new(Box::pin(frames)))))
}

fn act(inner: &Inner, seen: &Seen) -> Action {
    for rule in lock(&inner.rules).iter_mut() {
        match rule(seen) {
            Action::Pass => {}
            action => return action,
        }
    }
    Action::Pass
}

/// Reads the body, or the start of it; `None` if the client disconnected.
async fn receive(inner: &Inner, seen: &Seen, body: &mut Incoming, most: usize) -> Option<Bytes> {
    let mut bytes = BytesMut::new();
    while bytes.len() < most {
        match body.frame().await {
            None => break,
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref()?),
            Some(Err(_)) => {
                if is_upload(seen) {
                    store(inner, seen, &bytes);
                }
                return None;
            }
        }
    }
    bytes.truncate(most);
    Some(bytes.freeze())
}

fn is_upload(seen: &Seen) -> bool {
    matches!(seen.method, Method::PUT | Method::PATCH) && seen.path.contains("/blobs/uploads/")
}

fn store(inner: &Inner, seen: &Seen, bytes: &[u8]) {
    let session = seen.path.rsplit('/').next().unwrap_or_default();
    if let Some(upload) = lock(&inner.contents).uploads.get_mut(session) {
        upload.extend_from_slice(bytes);
    }
}

fn reply(status: u16, headers: &[(&'static str, String)], body: impl Into<Bytes>) -> Reply {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {});
    let mut response = Response::new(BodyExt::boxed_unsync(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    response
}

fn error(status: u16, code: &str) -> Reply {
    reply(status, &[], format!(r#"{{"errors":[{{"code":"{code}","message":"by the double"}}]}}"#))
}

/// The regular behaviour of a registry.
fn serve(inner: &Inner, seen: &Seen, body: Bytes) -> Reply {
    let Some(path) = seen.path.strip_prefix("/v2/") else { return error(404, "NOT_FOUND") };
    if path.is_empty() {
        return reply(200, &[], "{}");
    }
    if path == "_catalog" {
        let repositories = lock(&inner.contents).tags.keys().map(|(repository, _)| repository.clone()).collect();
        return page(inner, seen, "repositories", repositories);
    }
    if let Some(repository) = path.strip_suffix("/tags/list") {
        let contents = lock(&inner.contents);
        let tags = contents.tags.keys().filter(|(found, _)| found == repository).map(|(_, tag)| tag.clone());
        let tags: Vec<_> = tags.collect();
        drop(contents);
        return if tags.is_empty() { error(404, "NAME_UNKNOWN") } else { page(inner, seen, "tags", tags) };
    }
    if let Some((repository, session)) = path.split_once("/blobs/uploads/") {
        return serve_upload(inner, seen, repository, session, body);
    }
    if let Some((repository, digest)) = path.split_once("/blobs/") {
        return serve_blob(inner, seen, repository, digest);
    }
    if let Some((repository, reference)) = path.split_once("/manifests/") {
        return serve_manifest(inner, seen, repository, reference, body);
    }
    if let Some((repository, subject)) = path.split_once("/referrers/") {
        return serve_referrers(inner, seen, repository, subject);
    }
    error(404, "NOT_FOUND")
}

fn page(inner: &Inner, seen: &Seen, name: &str, mut items: Vec<String>) -> Reply {
    items.sort();
    items.dedup();
    if let Some(last) = seen.parameter("last") {
        items.retain(|item| *item > last);
    }
    let size = lock(&inner.behaviour).page;
    let mut headers = Vec::new();
    if items.len() > size {
        items.truncate(size);
        let last = items.last().cloned().unwrap_or_default();
        headers.push(("link", format!(r#"<{}?n={size}&last={last}>; rel="next""#, seen.path)));
    }
    reply(200, &headers, serde_json::json!({ name: items }).to_string())
}

fn serve_upload(inner: &Inner, seen: &Seen, repository: &str, session: &str, body: Bytes) -> Reply {
    let behaviour = lock(&inner.behaviour).clone();
    let contents = &mut *lock(&inner.contents);
    if seen.method == Method::POST {
        if let (Some(digest), Some(from), true) = (seen.parameter("mount"), seen.parameter("from"), behaviour.mount) {
            let digest: Digest = digest.parse().unwrap();
            if let Some(bytes) = contents.blobs.get(&(from, digest)).cloned() {
                contents.blobs.insert((repository.to_owned(), digest), bytes);
                return reply(201, &[("location", format!("/v2/{repository}/blobs/{digest}"))], "");
            }
        }
        contents.next += 1;
        let session = format!("session-{}", contents.next);
        contents.uploads.insert(session.clone(), BytesMut::new());
        let mut headers = vec![("location", format!("/v2/{repository}/blobs/uploads/{session}?state=x"))];
        headers.extend(behaviour.min_chunk.map(|size| ("oci-chunk-min-length", size.to_string())));
        return reply(202, &headers, "");
    }
    let Some(upload) = contents.uploads.get_mut(session) else { return error(404, "BLOB_UPLOAD_UNKNOWN") };
    let location = ("location", format!("{}?state=y", seen.path));
    let range = |length: usize| ("range", format!("0-{}", length.saturating_sub(1)));
    match seen.method {
        Method::GET => reply(204, &[location, range(upload.len())], ""),
        Method::DELETE => {
            contents.uploads.remove(session);
            reply(204, &[], "")
        }
        Method::PATCH => {
            let begins = seen.header("content-range").split('-').next().and_then(|text| text.parse::<usize>().ok());
            if begins.is_some_and(|begins| begins != upload.len()) {
                return reply(416, &[location, range(upload.len())], "");
            }
            upload.extend_from_slice(&body);
            reply(behaviour.patch_status, &[location, range(upload.len())], "")
        }
        Method::PUT => {
            upload.extend_from_slice(&body);
            let Some(Ok(digest)) = seen.parameter("digest").map(|text| text.parse::<Digest>()) else {
                return error(400, "DIGEST_INVALID");
            };
            if Digest::of(digest.algorithm(), upload) != digest {
                return error(400, "DIGEST_INVALID");
            }
            let bytes = contents.uploads.remove(session).unwrap_or_default().freeze();
            contents.blobs.insert((repository.to_owned(), digest), bytes);
            reply(201, &[("location", format!("/v2/{repository}/blobs/{digest}"))], "")
        }
        _ => error(405, "UNSUPPORTED"),
    }
}

fn serve_blob(inner: &Inner, seen: &Seen, repository: &str, digest: &str) -> Reply {
    let Ok(digest) = digest.parse::<Digest>() else { return error(400, "DIGEST_INVALID") };
    let ranges = lock(&inner.behaviour).ranges;
    let contents = &mut *lock(&inner.contents);
    let key = (repository.to_owned(), digest);
    let Some(bytes) = contents.blobs.get(&key).cloned() else { return error(404, "BLOB_UNKNOWN") };
    match seen.method {
        Method::HEAD => reply(200, &[("content-length", bytes.len().to_string())], ""),
        Method::DELETE => {
            contents.blobs.remove(&key);
            reply(202, &[], "")
        }
        Method::GET => match seen.header("range").strip_prefix("bytes=").filter(|_| ranges) {
            None if ranges => reply(200, &[("accept-ranges", "bytes".to_owned())], bytes),
            None => reply(200, &[], bytes),
            Some(range) => {
                let (start, end) = range.split_once('-').unwrap();
                let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
                if start >= bytes.len() {
                    return reply(416, &[], "");
                }
                let end = end.min(bytes.len() - 1);
                let header = ("content-range", format!("bytes {start}-{end}/{}", bytes.len()));
                reply(206, &[header], bytes.slice(start..=end))
            }
        },
        _ => error(405, "UNSUPPORTED"),
    }
}

fn serve_manifest(inner: &Inner, seen: &Seen, repository: &str, reference: &str, body: Bytes) -> Reply {
    let referrers = lock(&inner.behaviour).referrers;
    let contents = &mut *lock(&inner.contents);
    let tagged = (repository.to_owned(), reference.to_owned());
    let digest = reference.parse().ok().or_else(|| contents.tags.get(&tagged).copied());
    let found =
        digest.and_then(|digest| Some((digest, contents.manifests.get(&(repository.to_owned(), digest))?.clone())));
    match (&seen.method, found) {
        (&Method::PUT, _) => {
            let digest = Digest::sha256_of(&body);
            match reference.parse::<Digest>() {
                Ok(named) if named != digest => return error(400, "DIGEST_INVALID"),
                Ok(_) => {}
                Err(_) => drop(contents.tags.insert(tagged, digest)),
            }
            let mut headers = vec![("docker-content-digest", digest.to_string())];
            let document = Document::sniff(body.clone()).ok();
            let subject = document.as_ref().and_then(|(_, document)| document.subject());
            headers.extend(subject.filter(|_| referrers).map(|subject| ("oci-subject", subject.digest.to_string())));
            let media_type = seen.header("content-type").to_owned();
            contents.manifests.insert((repository.to_owned(), digest), (media_type, body));
            reply(201, &headers, "")
        }
        (_, None) => error(404, "MANIFEST_UNKNOWN"),
        (&Method::DELETE, Some((digest, _))) => {
            if reference.contains(':') {
                contents.manifests.remove(&(repository.to_owned(), digest));
                contents.tags.retain(|(found, _), tagged| found != repository || *tagged != digest);
            } else {
                contents.tags.remove(&tagged);
            }
            reply(202, &[], "")
        }
        (method, Some((digest, (media_type, bytes)))) => {
            let headers = [
                ("content-type", media_type),
                ("docker-content-digest", digest.to_string()),
                ("content-length", bytes.len().to_string()),
            ];
            reply(200, &headers, if method == Method::HEAD { Bytes::new() } else { bytes })
        }
    }
}

fn serve_referrers(inner: &Inner, seen: &Seen, repository: &str, subject: &str) -> Reply {
    if !lock(&inner.behaviour).referrers {
        return error(404, "NOT_FOUND");
    }
    let contents = lock(&inner.contents);
    let mut found: Vec<_> = contents
        .manifests
        .iter()
        .filter(|((found, _), _)| found == repository)
        .filter_map(|((_, digest), (media_type, bytes))| {
            let (_, document) = Document::sniff(bytes.clone()).ok()?;
            (document.subject()?.digest.to_string() == subject).then(|| {
                let parsed: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
                serde_json::json!({
                    "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len(),
                    "artifactType": parsed["artifactType"], "annotations": parsed["annotations"],
                })
            })
        })
        .collect();
    drop(contents);
    found.sort_by_key(|found| found["digest"].to_string());
    let mut headers = vec![("content-type", "application/vnd.oci.image.index.v1+json".to_owned())];
    if let Some(wanted) = seen.parameter("artifactType") {
        found.retain(|found| found["artifactType"] == wanted.as_str());
        headers.push(("oci-filters-applied", "artifactType".to_owned()));
    }
    let skip: usize = seen.parameter("skip").and_then(|skip| skip.parse().ok()).unwrap_or_default();
    let size = lock(&inner.behaviour).page;
    if found.len() - skip > size {
        headers.push(("link", format!(r#"<{}?skip={}>; rel="next""#, seen.path, skip + size)));
    }
    let found: Vec<_> = found.into_iter().skip(skip).take(size).collect();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": found,
    });
    reply(200, &headers, index.to_string())
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let digits = std::str::from_utf8(&digits).unwrap_or("00");
                bytes.push(u8::from_str_radix(digits, 16).unwrap_or_default());
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
