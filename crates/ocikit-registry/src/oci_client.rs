//! Uses a configured client of the crate [`oci-client`](::oci_client) as a source and a sink, for programs that already
//! have one.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use oci_client::client::{Client, ClientConfig, ClientProtocol};
//! use oci_client::secrets::RegistryAuth;
//! use ocikit_image::{Name, Root};
//! use ocikit_registry::oci_client::ClientRepository;
//!
//! let config = ClientConfig { protocol: ClientProtocol::Http, use_monolithic_push: true, ..ClientConfig::default() };
//! let client = Client::try_from(config)?;
//! let place = ClientRepository::new(client, RegistryAuth::Anonymous, "localhost:5000/app".parse()?);
//! let root = Root::open(Arc::new(place), &Name::Tag("1".parse()?)).await?;
//! # Ok(()) }
//! ```
//!
//! This adapter has the limitations of that crate: nothing is retried or resumed; tokens are not renewed when they
//! expire; the list of referrers is not maintained where the registry has no referrers API; and every request to a
//! public registry is preceded by one that checks for authentication. Use it to keep the settings of an existing
//! client, and [`RemoteRepository`](crate::RemoteRepository) otherwise.

use std::fmt;
use std::sync::{Arc, Mutex};

use ::oci_client::client::BlobResponse;
use ::oci_client::errors::{OciDistributionError, OciErrorCode};
use ::oci_client::secrets::RegistryAuth;
use ::oci_client::{Client, Reference};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use ocikit_http::header::HeaderValue;
use ocikit_http::{lock, retry::is_passing};
use ocikit_image::{Body, ByteRange, Error, Name, Naming, NoAnswer, Put, Result, Sink, Source, SourceExt};
use ocikit_spec::{Descriptor, Digest, Document, MediaType, Repository};

use crate::manifests::ACCEPTED;

/// A repository that is accessed with a client of the crate `oci-client`.
#[derive(Clone)]
pub struct ClientRepository {
    client: Client,
    auth: RegistryAuth,
    repository: Repository,
}

/// Number of bytes that are passed to the client at once. In its chunked mode it makes a request for each piece.
const CHUNK_BYTES: usize = 4 << 20;

impl ClientRepository {
    /// Creates a repository from a client, a credential and a name.
    pub fn new(client: Client, auth: RegistryAuth, repository: Repository) -> ClientRepository {
        ClientRepository { client, auth, repository }
    }

    fn whole(repository: &Repository) -> Reference {
        ClientRepository::tagged(repository, "latest".to_owned())
    }

    fn tagged(repository: &Repository, tag: String) -> Reference {
        Reference::with_tag(repository.registry().to_string(), repository.path().to_owned(), tag)
    }

    fn at(&self, digest: &Digest) -> Reference {
        ClientRepository::whole(&self.repository).clone_with_digest(digest.to_string())
    }

    /// Returns the reference that a name selects. A repository has no full names, and no object that is the only one.
    fn named(&self, name: &Name) -> Option<Reference> {
        match name {
            Name::Tag(tag) => Some(ClientRepository::tagged(&self.repository, tag.to_string())),
            Name::Digest(digest) => {
                let (registry, path) = (self.repository.registry().to_string(), self.repository.path().to_owned());
                Some(Reference::with_digest(registry, path, digest.to_string()))
            }
            Name::Only | Name::Full(_) => None,
        }
    }

    /// Stores the credential in the client, since most of its methods take none.
    async fn ready(&self) {
        let reference = ClientRepository::whole(&self.repository);
        self.client.store_auth_if_needed(reference.resolve_registry(), &self.auth).await;
    }

    async fn manifest(&self, reference: &Reference, what: &impl ToString) -> Result<Bytes> {
        let accepted: Vec<_> = ACCEPTED.iter().map(MediaType::as_str).collect();
        let pulled = self.client.pull_manifest_raw(reference, &self.auth, &accepted).await;
        Ok(pulled.map_err(|error| self.failed(error, what))?.0)
    }

    async fn send_manifest(&self, reference: Reference, media_type: &MediaType, bytes: Bytes) -> Result<()> {
        self.ready().await;
        let content_type = HeaderValue::from_str(media_type.as_str()).map_err(|error| Error::broken(self, error))?;
        let sent = self.client.push_manifest_raw(&reference, bytes, content_type).await;
        sent.map(|_| ()).map_err(|error| self.failed(error, &reference))
    }

    async fn mounts(&self, digest: &Digest, from: &Repository) -> bool {
        let (here, there) = (ClientRepository::whole(&self.repository), ClientRepository::whole(from));
        self.client.mount_blob(&here, &there, &digest.to_string()).await.is_ok()
    }

    fn failed(&self, error: OciDistributionError, what: &impl ToString) -> Error {
        let place = self.to_string();
        let refused = |status, problem| match status {
            401 | 403 => Error::Denied { place: place.clone(), problem },
            404 => Error::not_found(what.to_string(), &place),
            _ if is_passing(status) => {
                let cause = NoAnswer::Failing { status };
                Error::Unreachable { place: place.clone(), cause, source: problem.into() }
            }
            _ => Error::Refused { place: place.clone(), status, problem },
        };
        match error {
            OciDistributionError::ImageManifestNotFoundError(problem) => refused(404, problem),
            OciDistributionError::UnauthorizedError { .. } => refused(401, "status 401".to_owned()),
            OciDistributionError::AuthenticationFailure(problem) => refused(401, problem),
            OciDistributionError::ServerError { code, message, .. } => refused(code, message),
            OciDistributionError::RegistryError { envelope, .. } => {
                let has = |codes: &[OciErrorCode]| envelope.errors.iter().any(|error| codes.contains(&error.code));
                use OciErrorCode as Code;
                // The error does not contain the HTTP status, so it is derived from the codes.
                let status = if has(&[Code::BlobUnknown, Code::ManifestUnknown, Code::NameUnknown, Code::NotFound]) {
                    404
                } else if has(&[Code::Unauthorized, Code::Denied]) {
                    403
                } else if has(&[Code::Toomanyrequests]) {
                    429
                } else {
                    400
                };
                refused(status, envelope.to_string())
            }
            OciDistributionError::RequestError(error) => match error.status() {
                Some(status) => refused(status.as_u16(), format!("status {}", status.as_u16())),
                None => Error::Unreachable { place, cause: NoAnswer::Other, source: error.without_url().into() },
            },
            error => Error::broken(place, error),
        }
    }
}

impl fmt::Debug for ClientRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `Debug` of the client and the credential shows secrets.
        write!(f, "ClientRepository({})", self.repository)
    }
}

impl fmt::Display for ClientRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.repository, f)
    }
}

#[async_trait]
impl Source for ClientRepository {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        let reference = self.named(name).ok_or_else(|| Error::not_found(name, self))?;
        let bytes = self.manifest(&reference, name).await?;
        let digest = Digest::sha256_of(&bytes);
        let (media_type, _) =
            Document::sniff(bytes.clone()).map_err(|source| Error::document(&digest, self, source))?;
        let descriptor = Descriptor::of(media_type, &bytes);
        match name {
            Name::Digest(digest) => Ok(Descriptor { digest: *digest, ..descriptor }),
            _ => Ok(descriptor),
        }
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        let (offset, length) = range.within(descriptor.size);
        if descriptor.media_type.is_document() {
            let bytes = self.manifest(&self.at(&descriptor.digest), &descriptor.digest).await?;
            return Ok(range.of(&bytes).into());
        }
        self.ready().await;
        let (reference, digest) = (ClientRepository::whole(&self.repository), descriptor.digest.to_string());
        // A `Range` header cannot express an empty range.
        if length == 0 {
            if descriptor.size > 0 {
                return Ok(Bytes::new().into());
            }
            let opened = self.client.pull_blob_stream(&reference, digest.as_str()).await;
            opened.map_err(|error| self.failed(error, &digest))?;
            return Ok(Bytes::new().into());
        }
        let opened = self.client.pull_blob_stream_partial(&reference, digest.as_str(), offset, Some(length)).await;
        let (stream, skip) = match opened.map_err(|error| self.failed(error, &digest))? {
            BlobResponse::Partial(stream) => (stream, 0),
            BlobResponse::Full(stream) => (stream, offset),
        };
        let length = stream.content_length.map_or(length, |found| found.saturating_sub(skip).min(length));
        let place = self.to_string();
        let chunks = stream.map(move |chunk| {
            chunk.map_err(|error| Error::Unreachable {
                place: place.clone(),
                cause: NoAnswer::Other,
                source: error.into(),
            })
        });
        Ok(Body::new(length, cut(chunks, skip, length)))
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        let digest = descriptor.digest.to_string();
        let found = if descriptor.media_type.is_document() {
            self.client.fetch_manifest_digest(&self.at(&descriptor.digest), &self.auth).await.map(|_| true)
        } else {
            self.ready().await;
            self.client.blob_exists(&ClientRepository::whole(&self.repository), &digest).await
        };
        match found.map_err(|error| self.failed(error, &digest)) {
            Err(error) if error.is_not_found() => Ok(false),
            found => found,
        }
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.ready().await;
        let index = self.client.pull_referrers(&self.at(subject), None).await;
        let index = match index.map_err(|error| self.failed(error, subject)) {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            index => index?,
        };
        let descriptor = |entry| serde_json::from_value(serde_json::to_value(entry)?);
        let listed: serde_json::Result<Vec<Descriptor>> = index.manifests.iter().map(descriptor).collect();
        listed.map_err(|error| Error::broken(format!("the list of referrers of {subject} in {self}"), error))
    }

    fn repository(&self, descriptor: &Descriptor) -> Option<&Repository> {
        (!descriptor.media_type.is_document()).then_some(&self.repository)
    }
}

#[async_trait]
impl Sink for ClientRepository {
    async fn put(&self, descriptor: &Descriptor, from: &dyn Source) -> Result<Put> {
        if self.has(descriptor).await? {
            return Ok(Put::Present);
        }
        if descriptor.media_type.is_document() {
            let bytes = from.read(descriptor).await?;
            // A digest in place of the tag makes the same URL. With a digest in its own field, the client panics if a
            // registry sends no `Location`.
            let reference = ClientRepository::tagged(&self.repository, descriptor.digest.to_string());
            self.send_manifest(reference, &descriptor.media_type, bytes).await?;
            return Ok(Put::Copied);
        }
        let neighbor = from.repository(descriptor).filter(|from| from.registry() == self.repository.registry());
        if let Some(neighbor) = neighbor
            && self.mounts(&descriptor.digest, neighbor).await
        {
            return Ok(Put::Mounted);
        }
        // An error of the source is returned as it is, and not as one of the client.
        let problem = Arc::new(Mutex::new(None));
        let keeping = problem.clone();
        let chunks = gathered(from.open(descriptor).await?).map(move |chunk| {
            chunk.map_err(|error| {
                *lock(&keeping) = Some(error);
                OciDistributionError::GenericError(None)
            })
        });
        let (reference, digest) = (ClientRepository::whole(&self.repository), descriptor.digest.to_string());
        let sent = self.client.push_blob_stream(&reference, chunks, &digest, Some(descriptor.size)).await;
        match (lock(&problem).take(), sent) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(self.failed(error, &digest)),
            (None, Ok(_)) => Ok(Put::Copied),
        }
    }

    async fn confirm(&self, root: &Descriptor) -> Result<()> {
        match self.has(root).await? {
            true => Ok(()),
            false => Err(Error::broken(self, format!("it accepted {} and does not return it", root.digest))),
        }
    }

    fn keeps_order(&self) -> bool {
        false
    }

    async fn publish(&self, root: &Descriptor, naming: &Naming) -> Result<()> {
        let Some(tag) = &naming.tag else { return Ok(()) };
        let bytes = self.read(root).await?;
        if let Some(replaced) = naming.replaces {
            let found = self.tagged(tag).await?.map(|found| found.digest);
            if found != Some(replaced) {
                return Err(Error::conflict(tag, self, found));
            }
        }
        let name = Name::Tag(tag.clone());
        let reference = self.named(&name).ok_or_else(|| Error::not_found(&name, self))?;
        self.send_manifest(reference, &root.media_type, bytes).await
    }

    async fn is_complete(&self, root: &Descriptor, naming: &Naming) -> Result<bool> {
        let name = naming.tag.clone().map_or(Name::Digest(root.digest), Name::Tag);
        let Some(reference) = self.named(&name) else { return Ok(false) };
        let found = self.client.fetch_manifest_digest(&reference, &self.auth).await;
        match found.map_err(|error| self.failed(error, &name)) {
            Ok(found) => Ok(found == root.digest.to_string()),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Skips the first bytes of a stream and shortens it to `length`.
fn cut(
    chunks: impl Stream<Item = Result<Bytes>> + Send + 'static,
    skip: u64,
    length: u64,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    chunks.scan((skip, length), |(skip, left), chunk| {
        let chunk = chunk.map(|mut chunk| {
            let passed = (*skip).min(chunk.len() as u64);
            *skip -= passed;
            let mut rest = chunk.split_off(passed as usize);
            rest.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= rest.len() as u64;
            rest
        });
        std::future::ready(Some(chunk))
    })
}

/// Gathers the bytes into larger pieces.
fn gathered(body: Body) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    stream::try_unfold(Some(body), |body| async {
        let Some(mut body) = body else { return Ok(None) };
        let mut gathered = BytesMut::new();
        while gathered.len() < CHUNK_BYTES {
            match body.next().await.transpose()? {
                Some(chunk) => gathered.extend_from_slice(&chunk),
                None if gathered.is_empty() => return Ok(None),
                None => return Ok(Some((gathered.freeze(), None))),
            }
        }
        Ok(Some((gathered.freeze(), Some(body))))
    })
}
