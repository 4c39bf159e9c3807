//! Which host serves a registry, and how to connect to it.

mod registries;
mod settings;

pub use ocikit_http::{Identity, Pem, ProxyOptions, TlsConfig, TlsSettings, Verify};
#[cfg(feature = "registries-conf")]
pub use registries::InvalidRegistriesConf;
pub use registries::RegistriesConf;
pub(crate) use registries::{MirrorScope, ReadLocation};
pub use settings::{HostOptions, HostSettings, Scheme};
