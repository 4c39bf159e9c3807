//! Sigstore: keyless signing with Fulcio certificates, transparency log entries and timestamps.

mod config;
pub(crate) mod entry;
mod identity;
mod json;
pub(crate) mod log;
mod material;
mod root;
mod sct;
mod services;
mod submit;
mod trust;

pub use config::{LogUrl, LogVersion, ServiceUrls, SigningConfig};
pub use identity::Pattern;
pub use material::VerificationMaterial;
pub use root::TrustedRoot;
pub use services::{certify, github_token, github_token_for};
pub use trust::{CertificateTrust, LogCheck};

pub(crate) use json::{Base64, CertificateJson, LogId, Number};
pub(crate) use trust::{Evidence, TimestampJson, TimestampsJson};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
