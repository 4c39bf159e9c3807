use std::sync::Arc;

use ocikit_http::{Method, Origin, Request, TlsSettings, Url};
use ocikit_image::{Error, Result};
use ocikit_spec::Registry;

use crate::hosts::{HostSettings, Scheme};

/// The address of a registry, and how to connect to it.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// Its name, which selects the credentials.
    pub(crate) registry: Registry,
    /// The root of its API, up to and without `v2/`.
    pub(crate) base: Url,
    pub(crate) tls: Arc<TlsSettings>,
    /// Whether credentials are sent over TLS only, although the URL has the scheme `http`.
    pub(crate) is_tls_expected: bool,
}

impl Endpoint {
    pub(crate) fn new(registry: &Registry, settings: HostSettings) -> Result<Endpoint> {
        let scheme = if settings.scheme == Scheme::Http { "http" } else { "https" };
        let name = registry.endpoint();
        // The canonical name omits port 443. Without TLS the default port is 80, so a port 443 that the user wrote is
        // added again.
        let name = match (scheme, registry.names_tls_port(), name.strip_suffix(":443")) {
            ("http", true, None) => format!("{name}:443"),
            ("http", false, Some(host)) => host.to_owned(),
            _ => name.to_owned(),
        };
        let base = format!("{scheme}://{name}/");
        let base = base.parse::<Url>().map_err(|error| Error::broken(registry, error))?;
        Ok(Endpoint { registry: registry.clone(), base, tls: Arc::new(settings.tls), is_tls_expected: false })
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path_and_query(&format!("v2/{path}"), None);
        url
    }

    /// Creates a request to the registry.
    pub(crate) fn request(&self, method: Method, url: Url) -> Request {
        Request::new(method, url, self.origin())
    }

    /// Returns the origin of URLs of the registry: the user named it.
    pub(crate) fn origin(&self) -> Origin {
        Origin::User(self.tls.clone())
    }

    /// Returns what decides whether a URL in an answer belongs to the registry.
    pub(crate) fn home(&self) -> (&Url, &Arc<TlsSettings>) {
        (&self.base, &self.tls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explicit_port_443_is_kept_without_tls() {
        for (name, scheme, base) in [
            ("localhost:443", Scheme::Http, "http://localhost:443/"),
            ("localhost", Scheme::Http, "http://localhost/"),
            ("Registry", Scheme::Http, "http://registry/"),
            ("Registry", Scheme::Https, "https://registry/"),
            ("registry:443", Scheme::Http, "http://registry:443/"),
            ("ghcr.io:0443", Scheme::Https, "https://ghcr.io/"),
            ("docker.io", Scheme::Https, "https://registry-1.docker.io/"),
        ] {
            let settings = HostSettings { scheme, ..HostSettings::default() };
            assert_eq!(Endpoint::new(&name.parse().unwrap(), settings).unwrap().base.reveal(), base, "{name}");
        }
    }
}
