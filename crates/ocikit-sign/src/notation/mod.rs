//! Notary Project signatures: JWS and COSE envelopes, certificate chains, plugins, trust policies and trust stores.

mod chain;
mod cose;
mod envelope;
mod identity;
mod jws;
mod plugin;
mod policy;
mod trust;

pub use chain::Chain;
pub use envelope::{NotationOptions, SigningScheme};
pub use plugin::{NotationPlugin, VerificationPlugin};
pub use policy::{Level, TrustPolicy};
pub use trust::{NotationTrust, TrustStore};

pub(crate) use envelope::{EnvelopeFormat, EnvelopeSigner, Options, open, open_extended, sign};
