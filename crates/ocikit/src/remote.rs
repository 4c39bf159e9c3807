use std::sync::Arc;

use ocikit_image::{Error, Result, Sink};
#[cfg(feature = "registry")]
use ocikit_registry::Client;
use ocikit_spec::{Descriptor, Digest, Reference};

/// The registries of a session. In a build without the feature `registry`, there are none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remote {
    #[cfg(feature = "registry")]
    pub(crate) client: Client,
}

#[cfg(feature = "registry")]
impl Remote {
    /// Opens the repository of a reference.
    pub(crate) fn repository(&self, reference: &Reference) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(self.client.repository(reference.repository().clone())?))
    }

    /// Returns the descriptor of a blob.
    pub(crate) async fn find_blob(&self, reference: &Reference, digest: &Digest) -> Result<Descriptor> {
        let repository = self.client.repository(reference.repository().clone())?;
        let found = repository.blob(digest).await?;
        found.ok_or_else(|| Error::not_found(format!("blob {digest}"), &repository))
    }

    /// Announces concurrent requests.
    pub(crate) fn open_ahead(&self, requests: usize) {
        self.client.open_ahead(requests);
    }

    /// Deletes a manifest; does nothing if it does not exist.
    pub(crate) async fn delete_manifest(&self, reference: &Reference, digest: &Digest) -> Result<()> {
        match self.client.repository(reference.repository().clone())?.delete_manifest(digest).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(not(feature = "registry"))]
impl Remote {
    pub(crate) fn repository(&self, reference: &Reference) -> Result<Arc<dyn Sink>> {
        let what = "this program was built without the feature `registry`".to_owned();
        Err(Error::Unsupported { place: reference.to_string(), what })
    }

    pub(crate) async fn find_blob(&self, reference: &Reference, _: &Digest) -> Result<Descriptor> {
        self.repository(reference).and_then(|_| Err(Error::not_found("a blob", reference)))
    }

    pub(crate) fn open_ahead(&self, _: usize) {}

    pub(crate) async fn delete_manifest(&self, reference: &Reference, _: &Digest) -> Result<()> {
        self.repository(reference).map(drop)
    }
}

#[cfg(all(test, not(feature = "registry")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_registries_says_so() {
        let reference = "localhost:5000/app:1".parse().unwrap();
        let error = Remote::default().repository(&reference).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { what, .. } if what.contains("`registry`")), "{error}");
    }
}
