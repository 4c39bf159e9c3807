//! Who is asking: secrets, and the places where they are kept.

mod docker;
mod keychain;
mod secret;

pub use docker::{CredentialPlaces, DockerConfig, HelperOptions};
pub use keychain::{Anonymous, Credential, Fixed, Keychain, Keychains};
pub use secret::Secret;
