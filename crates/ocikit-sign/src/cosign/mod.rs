//! The signature formats of cosign: bundles and simple signing.

pub(crate) mod bundle;
pub(crate) mod simple;
pub(crate) mod statement;

use std::borrow::Cow;

pub use statement::Predicate;

use crate::maker::{Maker, Names};
use crate::refusal::Refusal;
use crate::sigstore::Evidence;
use crate::sigstore::entry::{SignedMessage, VerificationKey};
use crate::trust::Trust;
use crate::verification::Verification;

/// Verifies a signature by a trusted signer: with its key, or with a certificate, which must lead to a trusted
/// authority, and the evidence for it.
fn verify_signer(
    trust: &Trust,
    signed: &SignedMessage<'_>,
    evidence: impl FnOnce() -> Result<Evidence, Refusal>,
) -> Result<Verification, Refusal> {
    let key = match signed.by {
        VerificationKey::Key(key) => Cow::Borrowed(key),
        VerificationKey::Certificate(leaf) => Cow::Owned(leaf.key()?),
    };
    if !key.verifies_cosign(signed.message, signed.signature) {
        return Err(Refusal::WrongSignature);
    }
    match (trust, signed.by) {
        // Log entries and timestamps are not checked, because a signature verified with a key does not depend on them.
        (Trust::Key { key, .. }, VerificationKey::Key(_)) => {
            Ok(Verification::new(key.fingerprint(), Maker::of_key(key)))
        }
        (Trust::Certificate(trust), VerificationKey::Certificate(leaf)) => {
            let identity = trust.check(leaf, signed, &evidence()?)?;
            Ok(Verification::new(identity, Maker::of_certificate(leaf, Names::Alternative)?))
        }
        _ => Err(Refusal::OtherSigner),
    }
}
