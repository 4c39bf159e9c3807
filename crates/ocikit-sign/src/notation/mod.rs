//! Notary Project signatures: JWS and COSE envelopes, certificate chains, plugins, trust policies and trust stores.

mod attributes;
mod chain;
mod cose;
mod envelope;
mod identity;
mod jws;
mod options;
mod plugin;
mod policy;
mod trust;

pub use attributes::SigningScheme;
pub use chain::Chain;
pub use options::NotationOptions;
pub use plugin::{NotationPlugin, VerificationPlugin};
pub use policy::{Level, TrustPolicy};
pub use trust::{NotationTrust, TrustStore};

pub(crate) use envelope::{EnvelopeFormat, open, open_extended, sign};
pub(crate) use options::{EnvelopeSigner, Options};

#[cfg(test)]
mod testing;
