//! The signature formats of cosign: bundles and simple signing.

pub(crate) mod bundle;
pub(crate) mod simple;

pub(crate) use bundle::PAYLOAD_TYPE;
pub use bundle::Predicate;
