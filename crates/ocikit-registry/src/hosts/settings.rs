use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ocikit_image::Result;
use ocikit_spec::Registry;
use reqwest::Url;

use super::certs;
use super::registries::RegistriesConf;

/// How registries are spoken to: one way for each that was named, and one for all the others.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// By registry.
    pub named: HashMap<Registry, HostSettings>,
    /// For those without settings of their own. Servers that a registry names, in redirects or as token services, get all of
    /// it but the client certificate.
    pub others: HostSettings,
    /// Directories like `/etc/docker/certs.d` and `/etc/containers/certs.d`. What they hold for a registry is added to
    /// its settings.
    pub certificates: Vec<PathBuf>,
    /// Mirrors, blocks and other names.
    pub registries: RegistriesConf,
}

impl HostOptions {
    /// The settings for a registry, with nothing left to guess.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`](ocikit_image::Error::Failed) if a directory of certificates cannot be read,
    /// [`Error::Broken`](ocikit_image::Error::Broken) if a key is missing there.
    pub fn of(&self, registry: &Registry) -> Result<HostSettings> {
        self.settle(&self.others, registry)
    }

    /// The same for a server that stands in for a registry: what was set for no registry in particular has no client
    /// certificate for it.
    pub(crate) fn of_other(&self, registry: &Registry) -> Result<HostSettings> {
        let tls = TlsSettings { identity: None, ..self.others.tls.clone() };
        self.settle(&HostSettings { tls, ..self.others.clone() }, registry)
    }

    fn settle(&self, others: &HostSettings, registry: &Registry) -> Result<HostSettings> {
        let named = self.named.get(registry);
        let mut settings = named.unwrap_or(others).clone();
        // What is set for all registries does not tell that this one speaks TLS; its answer does.
        let mut has_tls = named.is_some_and(|named| named.tls != TlsSettings::default()) || registry.names_tls_port();
        for directory in &self.certificates {
            has_tls |= certs::add(&mut settings.tls, directory, registry)?;
        }
        if settings.scheme == Scheme::Guess {
            settings.scheme = if registry.is_loopback() && !has_tls { Scheme::Http } else { Scheme::Https };
            // On this machine, whoever does not want certificates checked hardly minds that there are none.
            if registry.is_loopback() && settings.tls.verify == Verify::Nothing {
                settings.tls.verify = Verify::NorTls;
            }
        }
        Ok(settings)
    }

    /// Returns whether a registry gets no credentials over plain HTTP: a TLS option applies to it, and plain HTTP is only
    /// how a loopback registry is addressed until it answers that it speaks TLS.
    pub(crate) fn is_tls_expected(&self, registry: &Registry) -> bool {
        let settings = self.named.get(registry).unwrap_or(&self.others);
        let TlsSettings { verify, authorities, identity } = &settings.tls;
        settings.scheme == Scheme::Guess
            && registry.is_loopback()
            && (*verify == Verify::Nothing || !authorities.is_empty() || identity.is_some())
    }

    /// The TLS settings for a server that a registry named.
    pub(crate) fn of_url(&self, url: &Url) -> Result<TlsSettings> {
        let host = url.host_str().unwrap_or_default();
        let name = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        match name.parse::<Registry>() {
            Ok(registry) => Ok(self.of_other(&registry)?.tls),
            // An underscore, for example, is allowed in a URL and not in the name of a registry.
            Err(_) => Ok(TlsSettings { identity: None, ..self.others.tls.clone() }),
        }
    }
}

/// How one registry is spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostSettings {
    /// With TLS or without.
    pub scheme: Scheme,
    /// How TLS is set up.
    pub tls: TlsSettings,
}

/// Whether a registry is spoken to with TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// With TLS, unless the registry is on this machine by its name (see [`Registry::is_loopback`]) and has no TLS settings
    /// of its own, nor a directory of certificates. One on this machine that answers that it speaks TLS is spoken to with
    /// TLS, and what is set for all registries applies then.
    #[default]
    Guess,
    /// Always without.
    Http,
    /// Always with.
    Https,
}

/// How TLS is set up for a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    /// Whether its certificate is checked.
    pub verify: Verify,
    /// Files with certificates in PEM that are trusted besides the system's.
    pub authorities: Vec<PathBuf>,
    /// The certificate that we show, and its key.
    pub identity: Option<Identity>,
}

impl TlsSettings {
    /// Adds what a directory holds: authorities in `*.crt`, and a certificate of ours in `*.cert` with its key in the `*.key` of
    /// the same name.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`](ocikit_image::Error::Failed) if the directory cannot be read, [`Error::Broken`](ocikit_image::Error::Broken) if a key is missing.
    pub fn add_directory(&mut self, directory: &Path) -> Result<()> {
        certs::add_directory(self, directory).map(drop)
    }
}

/// Whether the certificate of a registry is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// It has to be valid, for the name of the registry, and from an authority that is trusted.
    #[default]
    Full,
    /// It is not looked at. Whoever is between us and the registry can read and change everything.
    Nothing,
    /// Nor is it, and a registry that speaks no TLS is spoken to without: what docker and podman call insecure.
    NorTls,
}

/// Files with a certificate of ours in PEM, with those that lead to its authority, and its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The certificates.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_certificate_is_for_the_registries_that_it_was_given_for() {
        let identity = Some(Identity { certificate: "c".into(), key: "k".into() });
        let tls = TlsSettings { identity: identity.clone(), ..TlsSettings::default() };
        let settings = HostSettings { tls, ..HostSettings::default() };
        let named = HashMap::from([("named.test".parse().unwrap(), settings.clone())]);
        let options = HostOptions { named, others: settings, ..HostOptions::default() };
        for (url, expected) in [
            ("https://NAMED.test:443/x", identity.clone()),
            ("https://named.test:444/x", None),
            ("https://auth.named.test/token", None),
            ("https://a_b.test/token", None),
        ] {
            assert_eq!(options.of_url(&url.parse().unwrap()).unwrap().identity, expected, "{url}");
        }
        assert_eq!(options.of(&"registry.test".parse().unwrap()).unwrap().tls.identity, identity);
    }

    #[test]
    fn only_registries_on_this_machine_are_taken_to_speak_no_tls() {
        let insecure = TlsSettings { verify: Verify::Nothing, ..TlsSettings::default() };
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
