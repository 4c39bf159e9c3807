//! Policies: the signers that an image requires, by repository.

mod check;
mod form;
mod referrers;
mod scope;

pub use check::{Finding, PolicyOptions, Verdict};
pub use form::{AuthorityFiles, Policy, PolicySigner, SignerFiles};
pub use referrers::ReferrerCheck;
