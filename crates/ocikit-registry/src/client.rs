use std::sync::Arc;

use ocikit_http::{Clock, Method, lock};
use ocikit_image::{Error, Result};
use ocikit_spec::{Registry, Repository};

use crate::auth::Scopes;
use crate::capabilities::Capabilities;
use crate::inner::Inner;
use crate::manifests::is_web_page;
use crate::options::ClientOptions;
use crate::probe;
use crate::repository::RemoteRepository;
use crate::tags::{self, ListOptions};
use crate::target::Target;

/// Maximum number of bytes that are read of the response to `GET /v2/`.
const MAX_PING_BYTES: u64 = 64 << 10;

/// A client of registries. Cheap to clone; all clones share connections, tokens and the cache.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

impl Client {
    /// Creates a client with these options. Reads no file and opens no connection before the first request.
    pub fn new(options: ClientOptions) -> Client {
        Client(Arc::new(Inner::new(options)))
    }

    /// Waits until the upload sessions of dropped pushes are cancelled, at most 5 seconds for each. If a program exits
    /// without this call, those sessions remain at the registry until they expire.
    pub async fn settle(&self) {
        let mut cancellations = std::mem::take(&mut *lock(&self.0.cancellations));
        while cancellations.join_next().await.is_some() {}
    }

    /// Returns the clock of the options.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.options.clock
    }

    /// Returns a repository, for reading and writing.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] if the settings of its registry are invalid, [`Error::Blocked`] if `registries.conf` blocks
    /// it.
    pub fn repository(&self, repository: Repository) -> Result<RemoteRepository> {
        RemoteRepository::new(self.0.clone(), repository)
    }

    /// Announces that many requests will be made concurrently. When a server then turns out to be far away and to speak
    /// no HTTP/2, the client opens this many connections to it before they are needed; the largest number announced so
    /// far applies. Connections that no request needs carry no data.
    pub fn open_ahead(&self, connections: usize) {
        self.0.http.announce(connections.min(self.0.options.requests_per_host));
    }

    /// Finds out what a registry supports by trying it in a scratch repository, and in a second one whose name ends in
    /// `-from`. Deletes what it has uploaded as far as the registry allows.
    ///
    /// # Errors
    ///
    /// Those of the registry, if it accepts no upload at all. Failures of single checks are results.
    pub async fn probe(&self, scratch: &Repository) -> Result<Capabilities> {
        probe::run(&self.0, scratch).await
    }

    /// Checks that a registry accepts the credential that the keychain has for it, if the registry requires one.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if it does not, [`Error::Unreachable`] without an answer, [`Error::Blocked`] if
    /// `registries.conf` blocks the registry.
    pub async fn check(&self, registry: &Registry) -> Result<()> {
        let target = Target::of_registry(&self.0, registry)?;
        let request = target.request(Method::GET, target.endpoint.url(""));
        let reply = target.call(&Scopes::default(), request).await?;
        match reply.answer.status {
            200 => match reply.answer.read(MAX_PING_BYTES).await {
                Ok(body) if is_web_page(&body) => Err(Error::protocol(registry, "it answers with a web page")),
                _ => Ok(()),
            },
            _ => Err(target.error(reply, "registry API").await),
        }
    }

    /// Returns the repositories of a registry.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] if the list may be incomplete or has an entry that is not a valid repository name. Those of
    /// the registry; many have no catalog.
    pub async fn catalog(&self, registry: &Registry) -> Result<Vec<Repository>> {
        self.catalog_part(registry, &ListOptions::default()).await
    }

    /// Returns a part of the repositories of a registry.
    ///
    /// # Errors
    ///
    /// As [`Client::catalog`].
    pub async fn catalog_part(&self, registry: &Registry, options: &ListOptions) -> Result<Vec<Repository>> {
        let listed = tags::catalog(&Target::of_registry(&self.0, registry)?, options).await?;
        let invalid = |error| Error::protocol(registry, format!("its list of repositories cannot be used: {error}"));
        listed.iter().map(|path| Repository::new(registry.clone(), path).map_err(invalid)).collect()
    }
}

impl Default for Client {
    fn default() -> Client {
        Client::new(ClientOptions::default())
    }
}
