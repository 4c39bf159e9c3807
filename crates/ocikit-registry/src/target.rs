use std::fmt;

use ocikit_http::{Method, Request, Url};
use ocikit_image::Name;
use ocikit_spec::{Digest, Tag};

use crate::auth::{Access, Scopes};
use crate::endpoint::Endpoint;
use crate::hosts::MirrorScope;

/// A repository at one address: at its registry, or at a mirror.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
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

    pub(crate) fn tags(&self) -> Url {
        self.endpoint.url(&format!("{}/tags/list", self.path))
    }

    pub(crate) fn referrers(&self, subject: &Digest) -> Url {
        self.endpoint.url(&format!("{}/referrers/{subject}", self.path))
    }

    /// Returns the access that reading requires.
    pub(crate) fn access(&self) -> Access {
        Access { path: self.path.clone(), scopes: Scopes::pull(&self.path) }
    }

    /// Returns the access that writing requires.
    pub(crate) fn access_to_push(&self) -> Access {
        Access { path: self.path.clone(), scopes: Scopes::push(&self.path) }
    }

    /// Returns the access that deleting requires.
    pub(crate) fn access_to_delete(&self) -> Access {
        Access { path: self.path.clone(), scopes: Scopes::delete(&self.path) }
    }

    /// Returns the access that mounting a blob from another repository requires.
    pub(crate) fn access_to_mount(&self, from: &str) -> Access {
        let scopes = Scopes::push(&self.path).with(&Scopes::pull(from));
        Access { path: self.path.clone(), scopes }
    }
}
