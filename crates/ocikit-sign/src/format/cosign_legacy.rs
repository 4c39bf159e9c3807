//! The format of cosign 1 and 2: simple signing, stored under the tag `sha256-….sig`.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use ocikit_spec::Descriptor;

use crate::budget::MAX_ENVELOPE_BYTES;
use crate::cosign::simple;
use crate::error::{Error, Result};
use crate::format::interface::{
    Content, Properties, SignInput, SignRequest, SignatureFormat, SigningKey, Storage, Verification,
};
use crate::maker::Maker;
use crate::refusal::Refusal;
use crate::trust::{Expected, SignerKind, Trust};

#[derive(Debug)]
pub(super) struct SimpleSigning;

#[async_trait]
impl SignatureFormat for SimpleSigning {
    fn properties(&self) -> &'static Properties {
        &Properties {
            name: "cosign-legacy",
            description: "Simple signing under the tag sha256-….sig (cosign 1 and 2)",
            signers: &[SignerKind::Key, SignerKind::Certificate],
            inputs: &[SignInput::Reference, SignInput::Material],
            has_attestations: false,
            max_bytes: MAX_ENVELOPE_BYTES,
            storage: Storage::Tag,
            envelope: None,
        }
    }

    fn detect(&self, _artifact_type: &str, _layer_type: &str) -> Result<bool, Refusal> {
        Ok(false)
    }

    async fn sign(&self, subject: &Descriptor, request: &SignRequest<'_>) -> Result<Content> {
        let SigningKey::Signer(signer) = request.by else {
            return Err(Error::Unsupported("a plugin of notation does not sign as cosign-legacy".to_owned()));
        };
        let (layer, payload) = simple::sign(&subject.digest, request.reference, signer, request.material).await?;
        Ok(Content { layer, bytes: payload.into(), annotations: Vec::new(), attests: None })
    }

    fn verify(
        &self,
        trust: &Trust,
        subject: &Descriptor,
        layer: &Descriptor,
        content: &Bytes,
        expected: Expected<'_>,
    ) -> Result<Verification, Refusal> {
        let (verification, name) = match trust {
            Trust::Key { key, .. } => {
                let name = simple::verify(layer, content, &subject.digest, key)?;
                (Verification::new(key.fingerprint(), Maker::of_key(key)), name)
            }
            Trust::Certificate(trust) => {
                let (identity, maker, name) = simple::verify_certificate(layer, content, &subject.digest, trust)?;
                (Verification::new(identity, maker), name)
            }
            Trust::Notation(_) => return Err(Refusal::OtherSigner),
        };
        expected.check_name(&name)?;
        Ok(verification)
    }

    fn import(
        &self,
        subject: &Descriptor,
        layer: Descriptor,
        content: Bytes,
        _created: Timestamp,
    ) -> Result<Content, Refusal> {
        simple::signature(&layer)?;
        simple::check_payload(&content, &subject.digest)?;
        Ok(Content { layer, bytes: content, annotations: Vec::new(), attests: None })
    }
}
