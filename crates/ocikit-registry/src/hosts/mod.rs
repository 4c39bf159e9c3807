//! Which host answers for a registry, and how it is spoken to.

mod settings;

pub use settings::{HostOptions, HostSettings, Identity, ProxyOptions, Scheme, TlsSettings, Verify};
