use std::fmt;
use std::sync::Arc;

use ocikit_http::{Method, Request, Url};
use ocikit_image::{Name, Result};
use ocikit_spec::{Digest, Registry, Repository, Tag};

use crate::auth::Scopes;
use crate::endpoint::Endpoint;
use crate::hosts::MirrorScope;
use crate::inner::Inner;

/// What requests are sent to: a repository at one address, its registry or a mirror, or a registry as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) inner: Arc<Inner>,
    pub(crate) endpoint: Endpoint,
    /// The repository; empty for the registry as a whole.
    pub(crate) path: String,
    /// Its name in messages.
    pub(crate) place: String,
}

/// Names a manifest in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ManifestKey {
    Tag(Tag),
    Digest(Digest),
}

impl ManifestKey {
    /// Returns the tag or digest that a name selects. A repository has no full names, and no object that is the only
    /// one.
    pub(crate) fn of(name: &Name) -> Option<ManifestKey> {
        match name {
            Name::Tag(tag) => Some(ManifestKey::Tag(tag.clone())),
            Name::Digest(digest) => Some(ManifestKey::Digest(*digest)),
            Name::Only | Name::Full(_) => None,
        }
    }

    pub(crate) fn describe(&self) -> String {
        match self {
            ManifestKey::Tag(tag) => format!("tag {tag}"),
            ManifestKey::Digest(digest) => digest.to_string(),
        }
    }

    /// Returns the scope that a mirror needs to be asked for the manifest.
    pub(crate) fn mirror_scope(&self) -> MirrorScope {
        match self {
            ManifestKey::Tag(_) => MirrorScope::TagOnly,
            ManifestKey::Digest(_) => MirrorScope::DigestOnly,
        }
    }
}

impl fmt::Display for ManifestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestKey::Tag(tag) => fmt::Display::fmt(tag, f),
            ManifestKey::Digest(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

impl Target {
    /// Returns a registry as a whole.
    ///
    /// # Errors
    ///
    /// [`Error::Blocked`](ocikit_image::Error::Blocked) if `registries.conf` blocks the whole registry.
    pub(crate) fn of_registry(inner: &Arc<Inner>, registry: &Registry) -> Result<Target> {
        inner.options.hosts.registries.check(registry)?;
        let endpoint = inner.endpoint(registry, false)?;
        Ok(Target { inner: inner.clone(), endpoint, path: String::new(), place: registry.to_string() })
    }

    /// Returns a repository at the registry that its name states.
    ///
    /// # Errors
    ///
    /// [`Error::Blocked`](ocikit_image::Error::Blocked) if `registries.conf` blocks it.
    pub(crate) fn of_repository(inner: &Arc<Inner>, repository: &Repository) -> Result<Target> {
        inner.options.hosts.registries.routes(repository)?;
        let endpoint = inner.endpoint(repository.registry(), false)?;
        let (path, place) = (repository.path().to_owned(), repository.to_string());
        Ok(Target { inner: inner.clone(), endpoint, path, place })
    }

    /// Creates a request to the registry.
    pub(crate) fn request(&self, method: Method, url: Url) -> Request {
        self.endpoint.request(method, url)
    }

    pub(crate) fn manifest(&self, key: &ManifestKey) -> Url {
        self.endpoint.url(&format!("{}/manifests/{key}", self.path))
    }

    pub(crate) fn blob(&self, digest: &Digest) -> Url {
        self.endpoint.url(&format!("{}/blobs/{digest}", self.path))
    }

    pub(crate) fn uploads(&self) -> Url {
        self.endpoint.url(&format!("{}/blobs/uploads/", self.path))
    }

    /// Returns the URL that commits an upload session.
    pub(crate) fn commit(session: &Url, digest: &Digest) -> Url {
        let mut url = session.clone();
        url.append_query("digest", &digest.to_string());
        url
    }

    pub(crate) fn tags(&self) -> Url {
        self.endpoint.url(&format!("{}/tags/list", self.path))
    }

    pub(crate) fn referrers(&self, subject: &Digest) -> Url {
        self.endpoint.url(&format!("{}/referrers/{subject}", self.path))
    }

    /// Returns the access that reading requires.
    pub(crate) fn access(&self) -> Scopes {
        Scopes::pull(&self.path)
    }

    /// Returns the access that writing requires.
    pub(crate) fn access_to_push(&self) -> Scopes {
        Scopes::push(&self.path)
    }

    /// Returns the access that deleting requires.
    pub(crate) fn access_to_delete(&self) -> Scopes {
        Scopes::delete(&self.path)
    }

    /// Returns the access that mounting a blob from another repository requires.
    pub(crate) fn access_to_mount(&self, from: &str) -> Scopes {
        Scopes::push(&self.path).with(&Scopes::pull(from))
    }
}
