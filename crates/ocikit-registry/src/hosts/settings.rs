use std::collections::HashMap;
use std::path::PathBuf;

use ocikit_spec::Registry;
use reqwest::Url;

use crate::credentials::Secret;

/// How registries are spoken to: one way for each that was named, and one for all the others.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// By the registry's name as it stands in references, with its port.
    pub named: HashMap<String, HostSettings>,
    /// For those without settings of their own.
    pub others: HostSettings,
}

impl HostOptions {
    /// The settings for a registry.
    pub fn of(&self, registry: &Registry) -> &HostSettings {
        self.named.get(registry.as_str()).unwrap_or(&self.others)
    }

    /// The settings for a server that a registry named.
    pub(crate) fn of_url(&self, url: &Url) -> &HostSettings {
        let host = url.host_str().unwrap_or_default();
        let with_port = url.port().and_then(|port| self.named.get(&format!("{host}:{port}")));
        with_port.or_else(|| self.named.get(host).filter(|_| url.port().is_none())).unwrap_or(&self.others)
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
    /// With TLS, unless the registry is on this machine by its name (see [`Registry::is_loopback`]) and has no TLS
    /// settings: who sets TLS up for it means it, and everyone else runs a registry for a test.
    #[default]
    Guess,
    /// Always without.
    Http,
    /// Always with.
    Https,
}

impl Scheme {
    /// Its name in a URL, for a registry with these TLS settings.
    pub(crate) fn name(self, registry: &Registry, tls: &TlsSettings) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Guess if registry.is_loopback() && *tls == TlsSettings::default() => "http",
            Scheme::Guess | Scheme::Https => "https",
        }
    }
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

/// Whether the certificate of a registry is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// It has to be valid, for the name of the registry, and from an authority that is trusted.
    #[default]
    Full,
    /// It is not looked at. Whoever is between us and the registry can read and change everything.
    Nothing,
}

/// Files with a certificate of ours in PEM, with those that lead to its authority, and its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The certificates.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Proxies, as the variables of the same names have them.
#[derive(Debug, Clone, Default)]
pub struct ProxyOptions {
    /// For `http` URLs: the value of `HTTP_PROXY`, which may hold a password.
    pub http: Option<Secret>,
    /// For `https` URLs: the value of `HTTPS_PROXY`.
    pub https: Option<Secret>,
    /// Names, domains and networks that are reached without: the value of `NO_PROXY`. Loopback names and addresses
    /// always are.
    pub except: String,
}
