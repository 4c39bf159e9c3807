//! Keys: reading, generating and writing. Private keys are wiped from memory when they are dropped.

mod encrypted;
mod pem;
mod private;
mod public;
mod scheme;

pub use private::PrivateKey;
pub use public::PublicKey;
pub use scheme::{KeyKind, Scheme};

#[cfg(test)]
pub(crate) use pem::write as pem;
pub(crate) use pem::{blocks, write};
