use ocikit_spec::Digest;
use reqwest::Url;

use crate::auth::{Access, Scopes};
use crate::endpoint::Endpoint;
use crate::manifests::ManifestKey;

/// A repository at one address: at its registry, or at a mirror.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    pub(crate) path: String,
    /// Its name in messages.
    pub(crate) place: String,
}

impl Target {
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
