//! Credentials, and where they are stored.

mod docker;
mod keychain;
mod scope;

pub use docker::{CredentialPlaces, DockerConfig, HelperOptions};
pub use keychain::{Anonymous, Credential, Fixed, Keychain, Keychains, Named};
pub use ocikit_http::Secret;
pub use scope::CredentialScope;
