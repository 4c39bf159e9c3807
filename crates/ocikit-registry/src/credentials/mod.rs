//! Credentials, and where they are stored.

mod docker;
mod keychain;
mod secret;

pub use docker::{CredentialPlaces, DockerConfig, HelperOptions};
pub use keychain::{Anonymous, Credential, Fixed, Keychain, Keychains, Named};
pub use secret::Secret;
