use ocikit_image::{Error, Result};
use ocikit_spec::Registry;
use reqwest::Url;

use crate::hosts::{HostSettings, Scheme, TlsSettings};

/// Where a registry answers, and how it is spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// Its name, by which credentials are found.
    pub(crate) registry: Registry,
    /// The root of its API, up to and without `v2/`.
    pub(crate) base: Url,
    pub(crate) tls: TlsSettings,
}

impl Endpoint {
    pub(crate) fn new(registry: &Registry, settings: HostSettings) -> Result<Endpoint> {
        let scheme = if settings.scheme == Scheme::Http { "http" } else { "https" };
        let base = format!("{scheme}://{}/", registry.endpoint());
        let base = base.parse().map_err(|error| Error::broken(registry, error))?;
        Ok(Endpoint { registry: registry.clone(), base, tls: settings.tls })
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("v2/{path}"));
        url
    }
}
