//! The output of `sign` and `attest`.

use ocikit::{Digest, Location, Platform, Root};
use ocikit_sign::Signature;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;
use crate::output::Lines;

/// The result of signing or attesting.
#[derive(Serialize)]
pub(crate) struct SignOutput {
    location: String,
    digest: Digest,
    /// For an existing signature that was stored: `signer`, or `subject` if only format and subject were checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<&'static str>,
    signatures: Vec<SignatureOutput>,
}

#[derive(Serialize)]
struct SignatureOutput {
    digest: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    format: &'static str,
    signature: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}

impl SignOutput {
    pub(crate) fn of(location: &Location, root: &Root, signatures: &[Signature]) -> SignOutput {
        let signatures = signatures.iter().map(SignatureOutput::of).collect();
        SignOutput { location: location.to_string(), digest: root.digest(), checked: None, signatures }
    }

    pub(crate) fn checked(self, checked: &'static str) -> SignOutput {
        SignOutput { checked: Some(checked), ..self }
    }

    pub(crate) fn state(&self, context: &Context) -> Result {
        context.output.result(self, || {
            let line = |made: &SignatureOutput| format!("{} {} {}", made.digest, made.format, made.signature);
            self.signatures.iter().map(line).collect::<Lines>()
        })
    }
}

impl SignatureOutput {
    fn of(made: &Signature) -> SignatureOutput {
        SignatureOutput {
            digest: made.subject.digest,
            platform: made.platform.clone(),
            format: made.format.as_str(),
            signature: made.root.digest(),
            tag: made.naming.tag.as_ref().map(ToString::to_string),
        }
    }
}
