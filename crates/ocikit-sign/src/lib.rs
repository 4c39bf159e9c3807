//! Who made this image: signing and verifying.
mod error;
mod key;
pub use error::{Error, Result};
pub use key::{KeyKind, PrivateKey, PublicKey, Scheme};
