//! The signature formats of cosign: bundles and simple signing.

pub(crate) mod bundle;
pub(crate) mod simple;
pub(crate) mod statement;

pub use statement::Predicate;
