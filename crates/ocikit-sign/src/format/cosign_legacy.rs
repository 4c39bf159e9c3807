//! The format of cosign 1 and 2: simple signing, stored under the tag `sha256-….sig`.

use bytes::Bytes;
use ocikit_spec::Descriptor;

use crate::budget::MAX_ENVELOPE_BYTES;
use crate::cosign::simple;
use crate::error::Result;
use crate::format::interface::{Content, Properties, SignInput, SignRequest, Storage};
use crate::refusal::Refusal;
use crate::signer::Signer;
use crate::trust::SignerKind;

pub(super) const PROPERTIES: Properties = Properties {
    name: "cosign-legacy",
    description: "Simple signing under the tag sha256-….sig (cosign 1 and 2)",
    signers: &[SignerKind::Key, SignerKind::Certificate],
    inputs: &[SignInput::Reference, SignInput::Material],
    has_attestations: false,
    max_bytes: MAX_ENVELOPE_BYTES,
    storage: Storage::Tag,
    envelope: None,
};

pub(super) async fn sign(subject: &Descriptor, signer: &dyn Signer, request: &SignRequest<'_>) -> Result<Content> {
    let (layer, payload) = simple::sign(&subject.digest, request.reference, signer, request.material).await?;
    Ok(content(layer, payload.into()))
}

pub(super) fn import(subject: &Descriptor, layer: Descriptor, payload: Bytes) -> Result<Content, Refusal> {
    simple::signature(&layer)?;
    simple::check_payload(&payload, &subject.digest)?;
    Ok(content(layer, payload))
}

fn content(layer: Descriptor, bytes: Bytes) -> Content {
    Content { layer, bytes, annotations: Vec::new(), attests: None }
}
