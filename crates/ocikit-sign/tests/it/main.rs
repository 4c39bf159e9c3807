//! Policies, and signatures stored with the wrong subject.

mod policy;
mod replay;
#[cfg(feature = "sigstore")]
mod sigstore_crate;
