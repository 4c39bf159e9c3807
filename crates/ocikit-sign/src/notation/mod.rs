//! What the Notary Project signs: envelopes in JWS and COSE, certificates, and who is trusted.

mod chain;
mod cose;
mod envelope;
mod identity;
mod jws;
mod plugin;
mod policy;
mod trust;

pub use chain::Chain;
pub use envelope::SigningScheme;
pub use plugin::{NotationPlugin, VerificationPlugin};
pub use policy::{Level, TrustPolicy};
pub use trust::{NotationTrust, TrustStore};

pub(crate) use envelope::{By, Options, Seal, open, open_extended, sign};
