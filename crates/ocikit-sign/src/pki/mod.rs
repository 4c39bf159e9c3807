//! X.509 certificates and certification paths (RFC 5280), for sigstore, timestamp authorities and the Notary Project.
//!
//! [`Certificate`] has the rules that one certificate obeys by itself, [`path`] finds the path from a certificate to a trusted
//! one, and [`names`] evaluates name constraints over a whole path.

mod certificate;
pub(crate) mod names;
pub(crate) mod path;
mod violation;

pub use certificate::Certificate;
pub(crate) use violation::{Rule, Violation};

#[cfg(test)]
mod tests;
