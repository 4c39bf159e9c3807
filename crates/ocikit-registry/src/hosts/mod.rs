//! Which host answers for a registry, and how it is spoken to.

mod certs;
mod registries;
mod settings;

pub use ocikit_image::proxy::ProxyOptions;
pub use registries::RegistriesConf;
pub(crate) use registries::{Place, Serves};
pub use settings::{HostOptions, HostSettings, Identity, Scheme, TlsSettings, Verify};
