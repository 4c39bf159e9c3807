//! Authorization of callers by OpenID Connect tokens: a service that builds or publishes for others accepts the tokens
//! of their CI jobs.
//!
//! ```
//! use jiff::Timestamp;
//! use ocikit_publish::oidc::{KeySet, TrustedIssuer, verify_with};
//!
//! let issuer = TrustedIssuer::new("github", "https://issuer.example", vec!["image-builder".to_owned()]);
//! let keys = KeySet::parse(br#"{"keys": [{"kty": "OKP", "crv": "Ed25519",
//!     "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#)?;
//! assert!(verify_with("not.a.token", &[issuer], &keys, Timestamp::UNIX_EPOCH).is_err());
//! # Ok::<(), ocikit_publish::oidc::OidcError>(())
//! ```

mod algorithm;
mod error;
mod fetch;
mod issuer;
mod keys;
mod token;
mod verify;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use error::OidcError;
pub use issuer::{
    Accepted, DEFAULT_CLOCK_SKEW_SECONDS, DEFAULT_MAX_AGE_MINUTES, MAX_CLOCK_SKEW_SECONDS, TrustedIssuer,
};
pub use keys::{KeySet, MAX_KEY_SET_BYTES, MAX_KEYS};
pub use token::{Claims, MAX_TOKEN_BYTES};
pub use verify::{Caller, verify_token, verify_with};

#[cfg(test)]
mod tests;
