//! Policies: the signers that an image requires, by repository.

mod check;
mod file;
mod referrers;
mod scope;

pub use check::{Finding, PolicyOptions, Verdict};
pub use file::{AuthorityFiles, Policy, PolicySigner, SignerFiles};
pub use referrers::ReferrerCheck;
