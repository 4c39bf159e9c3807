//! Uploads in one or several requests, and cross-repository mounts.

use std::io;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use ocikit_spec::{Algorithm, Digest};

use super::reply::{created, empty};
use crate::chunk::{Chunk, Progress, Unfit, admit};
use crate::desk::{Call, Desk, too_busy};
use crate::fault::{Action, Location};
use crate::name::RepositoryName;
use crate::random;
use crate::range::ContentRange;
use crate::refusal::{Code, Refusal, Result};
use crate::route;
use crate::rules::Switch;
use crate::storage::{Draft, Received, Refused, Stopped, Turn, Upload};

const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// The parameter that the URL of an upload carries if a fault requires it.
const SECRET_PARAMETER: &str = "_state";

pub(super) async fn begin(desk: &Arc<Desk>, name: RepositoryName, call: Call, body: Body) -> Result<Response> {
    if let Some(digest) = call.query.get("mount") {
        let digest = route::digest(digest)?;
        if let Some(mounted) = mount(desk, &name, digest, &call).await? {
            return Ok(mounted);
        }
    }
    let digest = call.query.get("digest").map(route::digest).transpose()?;
    let mut draft = desk.store.draft(Some(&desk.upload_memory));
    draft.expect(match digest {
        Some(digest) => digest.algorithm(),
        None => algorithm(call.query.get("digest-algorithm"))?,
    });
    desk.forget_idle_uploads();
    let upload = desk.store.uploads.begin(name, draft, desk.clock.now(), desk.limits.max_uploads);
    let upload = upload.map_err(Refusal::internal)?.ok_or_else(too_busy)?;
    match digest {
        // No client knows the name of this upload, so it ends with the request.
        Some(digest) => {
            let id = upload.id.clone();
            let result = complete(desk, upload, call, body, digest).await;
            desk.store.uploads.forget(&id);
            result
        }
        None => {
            if call.quirks.has(&Action::Location(Location::WithQuery)) {
                let secret = random::secret().map_err(Refusal::internal)?;
                let _ = upload.secret.set(secret); // It is new and has none.
            }
            let mut headers = progress_headers(&upload, Progress::default());
            headers.extend(desk.rules.min_chunk.map(|least| (CHUNK_MIN_LENGTH, least.to_string())));
            Ok(empty(StatusCode::ACCEPTED, headers))
        }
    }
}

/// Mounts a blob from another repository, if the client may read it there.
async fn mount(desk: &Arc<Desk>, name: &RepositoryName, digest: Digest, call: &Call) -> Result<Option<Response>> {
    if call.quirks.has(&Action::RefuseMount) {
        return Ok(None);
    }
    let candidates: Vec<RepositoryName> = match call.query.get("from") {
        Some(from) => from.parse().ok().into_iter().collect(),
        None if desk.rules.anonymous_mount == Switch::On => desk.store.repositories_with(&digest),
        None => Vec::new(),
    };
    for from in candidates.into_iter().filter(|from| call.access.may_pull(from)) {
        if desk.store.mount(from, name.clone(), digest).await.map_err(Refusal::internal)? {
            return Ok(Some(created(blob_location(name, &digest), &digest)));
        }
    }
    Ok(None)
}

pub(super) async fn status(desk: &Arc<Desk>, name: &RepositoryName, id: &str, call: &Call) -> Result<Response> {
    let upload = find(desk, name, id, call)?;
    let mut turn = turn(desk, &upload).await?;
    turn.lose(call.quirks.lost_bytes()).map_err(Refusal::internal)?;
    Ok(empty(StatusCode::NO_CONTENT, progress_headers(&upload, turn.progress())))
}

pub(super) async fn append(
    desk: &Arc<Desk>,
    name: &RepositoryName,
    id: &str,
    call: Call,
    body: Body,
) -> Result<Response> {
    let upload = find(desk, name, id, &call)?;
    // Received bytes are kept even if the connection is lost and no client waits for the response.
    let append = {
        let (desk, upload) = (desk.clone(), upload.clone());
        async move {
            let mut turn = turn(&desk, &upload).await?;
            receive(&desk, &upload, &mut turn, &call.headers, body).await?;
            turn.lose(call.quirks.lost_bytes()).map_err(Refusal::internal)?;
            Ok::<_, Refusal>(turn.progress())
        }
    };
    let progress = desk.tasks.spawn(append).await.map_err(Refusal::internal)??;
    Ok(empty(StatusCode::ACCEPTED, progress_headers(&upload, progress)))
}

pub(super) async fn finish(
    desk: &Arc<Desk>,
    name: &RepositoryName,
    id: &str,
    call: Call,
    body: Body,
) -> Result<Response> {
    let upload = find(desk, name, id, &call)?;
    let digest = call.query.get("digest");
    let digest = digest.ok_or_else(|| Refusal::invalid(Code::DigestInvalid, "the parameter `digest` is missing"))?;
    let digest = route::digest(digest)?;
    complete(desk, upload, call, body, digest).await
}

pub(super) fn cancel(desk: &Desk, name: &RepositoryName, id: &str, call: &Call) -> Result<Response> {
    find(desk, name, id, call)?;
    match desk.store.uploads.forget(id) {
        true => Ok(empty(StatusCode::NO_CONTENT, [])),
        false => Err(Refusal::upload_unknown()),
    }
}

/// Receives the last bytes of an upload and stores it as a blob.
async fn complete(desk: &Arc<Desk>, upload: Arc<Upload>, call: Call, body: Body, digest: Digest) -> Result<Response> {
    let name = upload.name.clone();
    let complete = {
        let desk = desk.clone();
        async move {
            let mut turn = turn(&desk, &upload).await?;
            turn.expect(digest.algorithm());
            receive(&desk, &upload, &mut turn, &call.headers, body).await?;
            let draft = turn.finish().ok_or_else(Refusal::upload_unknown)?;
            desk.store.uploads.forget(&upload.id);
            store(&desk, upload.name.clone(), draft, digest).await
        }
    };
    desk.tasks.spawn(complete).await.map_err(Refusal::internal)??;
    Ok(created(blob_location(&name, &digest), &digest))
}

async fn store(desk: &Desk, name: RepositoryName, draft: Draft, digest: Digest) -> Result<()> {
    match desk.store.put_blob(name, draft, digest).await {
        Ok(()) => Ok(()),
        Err(Refused::Digest(actual)) => {
            let message = format_args!("the received bytes have digest {actual}, not {digest}");
            Err(Refusal::invalid(Code::DigestInvalid, message))
        }
        Err(Refused::Failed(error)) => Err(Refusal::internal(error)),
        Err(Refused::Missing(_) | Refused::Changed) => Err(Refusal::internal("a blob was taken for a manifest")),
    }
}

fn find(desk: &Desk, name: &RepositoryName, id: &str, call: &Call) -> Result<Arc<Upload>> {
    let upload = desk.store.uploads.find(name, id).ok_or_else(Refusal::upload_unknown)?;
    match upload.secret.get() {
        Some(secret) if call.query.get(SECRET_PARAMETER) != Some(secret) => {
            let message = "the URL lacks the query that it was given with";
            Err(Refusal::invalid(Code::BlobUploadInvalid, message))
        }
        _ => Ok(upload),
    }
}

async fn turn(desk: &Desk, upload: &Arc<Upload>) -> Result<Turn> {
    upload.turn(desk.clock.now()).await.ok_or_else(Refusal::upload_unknown)
}

/// Receives the bytes of a request, if they continue the upload.
async fn receive(desk: &Desk, upload: &Upload, turn: &mut Turn, headers: &HeaderMap, body: Body) -> Result<()> {
    let least = desk.rules.min_chunk;
    let expected = chunk(headers, &body).and_then(|chunk| {
        let unfit = |unfit| Refusal::from(unfit).with_header(RANGE, turn.progress().range());
        admit(turn.progress(), chunk, least).map_err(unfit)
    });
    let expected = expected.map_err(|refusal| refusal.with_header(LOCATION, location(upload)))?;
    let before = turn.progress().received;
    let received = turn.receive(body.into_data_stream(), expected, least).await.map_err(|error| {
        // The number of written bytes is unknown, so the upload cannot be resumed.
        desk.store.uploads.forget(&upload.id);
        match error.kind() {
            io::ErrorKind::OutOfMemory => no_memory(desk, before),
            _ => Refusal::internal(error),
        }
    })?;
    check(received, expected)
}

/// The response to an upload for which the storage in memory has no room.
fn no_memory(desk: &Desk, received: u64) -> Refusal {
    let max = desk.limits.max_upload_bytes;
    let message = format_args!(
        "unfinished uploads may hold {max} bytes of memory together, and this one had {received} before; serve with a storage \
         directory for larger uploads"
    );
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message)
}

fn check(received: Received, expected: Option<u64>) -> Result<()> {
    let bytes = received.bytes;
    match (received.stopped, expected) {
        (Stopped::End, Some(claimed)) if bytes != claimed => Err(Unfit::Length { claimed, actual: bytes }.into()),
        (Stopped::End, _) => Ok(()),
        (Stopped::TooMany, claimed) => {
            let message = format_args!("the body has more than {} bytes", claimed.unwrap_or(bytes));
            Err(Refusal::invalid(Code::SizeInvalid, message))
        }
        (Stopped::Broken, _) => Err(Refusal::invalid(Code::BlobUploadInvalid, "the body is incomplete")),
        (Stopped::TakenOver, _) => {
            let message = "another request continues this upload";
            Err(Refusal::new(StatusCode::CONFLICT, Code::BlobUploadInvalid, message))
        }
    }
}

fn chunk(headers: &HeaderMap, body: &Body) -> Result<Chunk> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let parse = |text: &str| {
        let wrong = || Refusal::invalid(Code::BlobUploadInvalid, format_args!("`{text}` is not a content range"));
        ContentRange::parse(text).ok_or_else(wrong)
    };
    let range = text(CONTENT_RANGE).map(parse).transpose()?;
    // Without `Content-Length` there may be no body at all.
    let stated = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    Ok(Chunk { range, length: stated.or(body.size_hint().exact()) })
}

fn algorithm(name: Option<&str>) -> Result<Algorithm> {
    let name = name.unwrap_or(Algorithm::Sha256.name());
    let found = [Algorithm::Sha256, Algorithm::Sha512].into_iter().find(|known| known.name() == name);
    let unknown = || Refusal::invalid(Code::DigestInvalid, format_args!("digest algorithm `{name}` is not known"));
    found.ok_or_else(unknown)
}

/// Returns the headers of every response about an upload in progress.
fn progress_headers(upload: &Upload, progress: Progress) -> Vec<(HeaderName, String)> {
    vec![(LOCATION, location(upload)), (RANGE, progress.range()), (UPLOAD_UUID, upload.id.clone())]
}

fn location(upload: &Upload) -> String {
    let path = format!("/v2/{}/blobs/uploads/{}", upload.name, upload.id);
    match upload.secret.get() {
        Some(secret) => format!("{path}?{SECRET_PARAMETER}={secret}"),
        None => path,
    }
}

fn blob_location(name: &RepositoryName, digest: &Digest) -> String {
    format!("/v2/{name}/blobs/{digest}")
}
