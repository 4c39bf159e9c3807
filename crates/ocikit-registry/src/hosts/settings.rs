use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ocikit_http::{OtherServers, TlsSettings, Url, Verify};
use ocikit_image::Result;
use ocikit_spec::Registry;

use super::registries::RegistriesConf;
use crate::problem;

/// How to connect to registries: settings for named registries, and settings for all others.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct HostOptions {
    /// Settings by registry.
    pub named: HashMap<Registry, HostSettings>,
    /// Settings for registries that are not in `named`. Servers that a registry names, in redirects or as token
    /// services, get these without the client certificate.
    pub others: HostSettings,
    /// Directories like `/etc/docker/certs.d` and `/etc/containers/certs.d`. Their certificates for a registry are
    /// added to its settings.
    pub certificates: Vec<PathBuf>,
    /// Mirrors, blocked registries and replaced locations.
    pub registries: RegistriesConf,
}

ocikit_spec::setters! {
    HostOptions {
        named: HashMap<Registry, HostSettings>,
        others: HostSettings,
        certificates: Vec<PathBuf>,
        registries: RegistriesConf,
    }
}

impl HostOptions {
    /// Returns the settings for a registry, with the scheme decided.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`](ocikit_image::Error::Failed) if a directory of certificates cannot be read,
    /// [`Error::Broken`](ocikit_image::Error::Broken) if a key is missing there.
    pub fn of(&self, registry: &Registry) -> Result<HostSettings> {
        self.settle(&self.others, registry).map_err(problem::unusable)
    }

    /// Returns the settings for a server that replaces or mirrors a registry. The client certificate of the default
    /// settings is not for it.
    pub(crate) fn of_other(&self, registry: &Registry) -> ocikit_http::Result<HostSettings> {
        let tls = self.others.tls.without_identity();
        self.settle(&HostSettings { tls, ..self.others.clone() }, registry)
    }

    fn settle(&self, others: &HostSettings, registry: &Registry) -> ocikit_http::Result<HostSettings> {
        let named = self.named.get(registry);
        let mut settings = named.unwrap_or(others).clone();
        // TLS settings for all registries do not show that this one speaks TLS; its answer does.
        let mut has_tls = named.is_some_and(|named| named.tls != TlsSettings::default()) || registry.names_tls_port();
        for directory in &self.certificates {
            has_tls |= settings.tls.add_registry(directory, registry)?;
        }
        if settings.scheme == Scheme::Guess {
            settings.scheme = if registry.is_loopback() && !has_tls { Scheme::Http } else { Scheme::Https };
            // On a loopback address, disabled verification implies that plain HTTP is acceptable.
            if registry.is_loopback() && settings.tls.verify == Verify::Nothing {
                settings.tls.verify = Verify::InsecureAllowHttp;
            }
        }
        Ok(settings)
    }

    /// Returns whether a registry must not receive credentials over plain HTTP: a TLS option applies to it, and plain
    /// HTTP is only the first attempt for a loopback registry.
    pub(crate) fn is_tls_expected(&self, registry: &Registry) -> bool {
        let settings = self.named.get(registry).unwrap_or(&self.others);
        let TlsSettings { verify, authorities, identity, config, .. } = &settings.tls;
        settings.scheme == Scheme::Guess
            && registry.is_loopback()
            && (*verify == Verify::Nothing || !authorities.is_empty() || identity.is_some() || config.is_some())
    }
}

impl OtherServers for HostOptions {
    fn tls(&self, url: &Url) -> ocikit_http::Result<TlsSettings> {
        match url.authority().parse::<Registry>() {
            Ok(registry) => Ok(self.of_other(&registry)?.tls),
            // A URL may contain characters that the name of a registry may not, such as an underscore.
            Err(_) => Ok(self.others.tls.without_identity()),
        }
    }
}

/// How to connect to one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostSettings {
    /// Whether to use TLS.
    pub scheme: Scheme,
    /// The TLS settings.
    pub tls: TlsSettings,
}

ocikit_spec::setters! {
    HostSettings {
        scheme: Scheme,
        tls: TlsSettings,
    }
}

impl HostSettings {
    /// Adds the certificates from a directory: CA certificates in `*.crt`, and a client certificate in `*.cert` with
    /// its key in the `*.key` of the same name.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`](ocikit_image::Error::Failed) if the directory cannot be read,
    /// [`Error::Broken`](ocikit_image::Error::Broken) if a key is missing.
    pub fn add_certificates(&mut self, directory: &Path) -> Result<()> {
        self.tls.add_directory(directory).map(drop).map_err(problem::unusable)
    }
}

/// Whether to use TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// TLS, unless the registry has a loopback name (see [`Registry::is_loopback`]) and neither TLS settings nor a
    /// certificate directory of its own. A loopback registry that answers that it speaks TLS is contacted with TLS,
    /// with the settings for all registries.
    #[default]
    Guess,
    /// Always plain HTTP.
    Http,
    /// Always TLS.
    Https,
}

#[cfg(test)]
mod tests {
    use ocikit_http::Identity;

    use super::*;

    #[test]
    fn client_certificate_is_limited_to_configured_registries() {
        let identity = Some(Identity { certificate: Path::new("c").into(), key: Path::new("k").into() });
        let tls = TlsSettings::default().identity(identity.clone());
        let settings = HostSettings { tls, ..HostSettings::default() };
        let named = HashMap::from([("named.test".parse().unwrap(), settings.clone())]);
        let options = HostOptions { named, others: settings, ..HostOptions::default() };
        for (url, expected) in [
            ("https://NAMED.test:443/x", identity.clone()),
            ("https://named.test:444/x", None),
            ("https://auth.named.test/token", None),
            ("https://a_b.test/token", None),
        ] {
            assert_eq!(options.tls(&url.parse().unwrap()).unwrap().identity, expected, "{url}");
        }
        assert_eq!(options.of(&"registry.test".parse().unwrap()).unwrap().tls.identity, identity);
    }

    #[test]
    fn only_loopback_registries_default_to_plain_http() {
        let insecure = TlsSettings::default().verify(Verify::Nothing);
        let settings = |scheme, tls: &TlsSettings| HostSettings { scheme, tls: tls.clone() };
        let default = TlsSettings::default();
        for (name, named, others, expected) in [
            ("localhost:5000", None, settings(Scheme::Guess, &default), Scheme::Http),
            ("[::1]:5000", None, settings(Scheme::Guess, &insecure), Scheme::Http),
            ("localhost:443", None, HostSettings::default(), Scheme::Https),
            ("localhost:5000", None, settings(Scheme::Http, &insecure), Scheme::Http),
            ("127.0.0.1", Some(settings(Scheme::Guess, &insecure)), HostSettings::default(), Scheme::Https),
            ("127.0.0.1", Some(settings(Scheme::Guess, &default)), HostSettings::default(), Scheme::Http),
            ("127.0.0.1", Some(settings(Scheme::Https, &default)), HostSettings::default(), Scheme::Https),
            ("10.0.0.1:5000", None, HostSettings::default(), Scheme::Https),
            ("10.0.0.1:5000", None, settings(Scheme::Http, &default), Scheme::Http),
            ("ghcr.io", None, settings(Scheme::Guess, &insecure), Scheme::Https),
        ] {
            let named = named.map(|named| (name.parse().unwrap(), named)).into_iter().collect();
            let options = HostOptions { named, others, ..HostOptions::default() };
            assert_eq!(options.of(&name.parse().unwrap()).unwrap().scheme, expected, "{name}");
        }
    }
}
