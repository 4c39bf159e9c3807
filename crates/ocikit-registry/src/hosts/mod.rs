//! Which host serves a registry, and how to connect to it.

mod certs;
mod registries;
mod settings;

pub use ocikit_image::proxy::ProxyOptions;
pub use registries::RegistriesConf;
pub(crate) use registries::{MirrorScope, ReadLocation};
pub use settings::{HostOptions, HostSettings, Identity, Scheme, TlsSettings, Verify};
