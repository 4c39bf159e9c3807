use ocikit_spec::Digest;
use reqwest::Url;

use crate::auth::{Access, Scopes};
use crate::endpoint::Endpoint;
use crate::manifests::Key;

/// A repository where it is asked for: at its registry, or at a mirror.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    pub(crate) path: String,
    /// How messages call it.
    pub(crate) place: String,
}

impl Target {
    pub(crate) fn manifest(&self, key: &Key) -> Url {
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

    /// What reading takes.
    pub(crate) fn access(&self) -> Access {
        Access { path: self.path.clone(), scopes: Scopes::pull(&self.path) }
    }

    /// What writing takes.
    pub(crate) fn access_to_push(&self) -> Access {
        Access { path: self.path.clone(), scopes: Scopes::push(&self.path) }
    }

    /// What removing takes.
    pub(crate) fn access_to_delete(&self) -> Access {
        Access { path: self.path.clone(), scopes: Scopes::delete(&self.path) }
    }

    /// What taking a blob over from another repository takes.
    pub(crate) fn access_to_mount(&self, from: &str) -> Access {
        let scopes = Scopes::push(&self.path).with(&Scopes::pull(from));
        Access { path: self.path.clone(), scopes }
    }
}
