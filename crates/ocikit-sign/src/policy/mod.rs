//! Policies: whose signatures an image has to have, by the repository that it is in.

mod check;
mod form;
mod referrers;
mod scope;

pub use check::{Finding, PolicyOptions, Verdict};
pub use form::{AuthorityFiles, Policy, PolicySigner, SignerFiles};
pub use referrers::ReferrerCheck;
