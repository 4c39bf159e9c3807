//! The format of cosign 1 and 2: simple signing, stored under the tag `sha256-….sig`.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use ocikit_spec::Descriptor;

use crate::budget::MAX_ENVELOPE_BYTES;
use crate::cosign::simple;
use crate::error::Result;
use crate::format::interface::{Content, Properties, SignInput, SignRequest, SignatureFormat, Storage};
use crate::refusal::Refusal;
use crate::trust::{Expected, SignerKind, Trust};
use crate::verification::Verification;

#[derive(Debug)]
pub(super) struct SimpleSigning;

const PROPERTIES: Properties = Properties {
    name: "cosign-legacy",
    description: "Simple signing under the tag sha256-….sig (cosign 1 and 2)",
    signers: &[SignerKind::Key, SignerKind::Certificate],
    inputs: &[SignInput::Reference, SignInput::Material],
    has_attestations: false,
    max_bytes: MAX_ENVELOPE_BYTES,
    storage: Storage::Tag,
    envelope: None,
};

#[async_trait]
impl SignatureFormat for SimpleSigning {
    fn properties(&self) -> &'static Properties {
        &PROPERTIES
    }

    fn detect(&self, _artifact_type: &str, _layer_type: &str) -> Result<bool, Refusal> {
        Ok(false)
    }

    fn may_be_listed_as(&self, _artifact_type: &str) -> bool {
        false
    }

    async fn sign(&self, subject: &Descriptor, request: &SignRequest<'_>) -> Result<Content> {
        let signer = request.by.signer(&PROPERTIES)?;
        let (layer, payload) = simple::sign(&subject.digest, request.reference, signer, request.material).await?;
        Ok(content(layer, payload.into()))
    }

    fn verify(
        &self,
        trust: &Trust,
        subject: &Descriptor,
        layer: &Descriptor,
        content: &Bytes,
        expected: Expected<'_>,
    ) -> Result<Verification, Refusal> {
        simple::verify(layer, content, &subject.digest, trust, expected)
    }

    fn import(
        &self,
        subject: &Descriptor,
        layer: Descriptor,
        payload: Bytes,
        _created: Timestamp,
    ) -> Result<Content, Refusal> {
        simple::signature(&layer)?;
        simple::check_payload(&payload, &subject.digest)?;
        Ok(content(layer, payload))
    }
}

fn content(layer: Descriptor, bytes: Bytes) -> Content {
    Content { layer, bytes, annotations: Vec::new(), attests: None }
}
