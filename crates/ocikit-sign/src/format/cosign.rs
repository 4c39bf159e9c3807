//! The format of cosign 3: an in-toto statement in a sigstore bundle, stored as a referrer.

use bytes::Bytes;
use jiff::Timestamp;
use ocikit_spec::{Descriptor, MediaType, annotations};
use serde_json::{Map, Value};

use crate::budget::MAX_BUNDLE_BYTES;
use crate::cosign::bundle;
use crate::error::Result;
use crate::format::interface::{Content, Properties, SignInput, SignRequest, Storage};
use crate::predicate::SIGNATURE_PREDICATE_TYPE;
use crate::refusal::Refusal;
use crate::signer::Signer;
use crate::time::seconds;
use crate::trust::{Expected, SignerKind, Statement, Trust};
use crate::verification::Verification;

/// The beginning of the artifact types of all versions.
pub(super) const ARTIFACT_TYPE_PREFIX: &str = "application/vnd.dev.sigstore.bundle";

pub(super) const PROPERTIES: Properties = Properties {
    name: "cosign",
    description: "Sigstore bundle, stored as a referrer (cosign 3)",
    signers: &[SignerKind::Key, SignerKind::Certificate],
    inputs: &[SignInput::Material],
    has_attestations: true,
    max_bytes: MAX_BUNDLE_BYTES,
    storage: Storage::Referrer { artifact_type: bundle::MEDIA_TYPE },
    envelope: None,
};

pub(super) async fn sign(subject: &Descriptor, signer: &dyn Signer, request: &SignRequest<'_>) -> Result<Content> {
    let nothing = Value::Object(Map::new());
    let (predicate_type, predicate) = request.attestation.unwrap_or((SIGNATURE_PREDICATE_TYPE, &nothing));
    let bundle = bundle::sign(&subject.digest, predicate_type, predicate, signer, request.material).await?;
    Ok(of_bundle(bundle.into(), predicate_type.to_owned(), request.created))
}

pub(super) fn verify(
    trust: &Trust,
    subject: &Descriptor,
    content: &Bytes,
    expected: Expected<'_>,
) -> Result<Verification, Refusal> {
    let predicate_type = match expected.statement {
        Statement::Signature => Some(SIGNATURE_PREDICATE_TYPE),
        Statement::Attestation(kind) => Some(kind),
        Statement::Any => None,
    };
    let verification = bundle::verify(content, &subject.digest, predicate_type, trust)?;
    let predicate = verification.predicate.filter(|_| matches!(expected.statement, Statement::Attestation(_)));
    Ok(Verification { predicate, ..verification })
}

/// Returns the content for a bundle with a statement of this predicate type.
pub(crate) fn of_bundle(bundle: Bytes, predicate_type: String, created: Timestamp) -> Content {
    let annotations = [
        ("dev.sigstore.bundle.content", "dsse-envelope".to_owned()),
        ("dev.sigstore.bundle.predicateType", predicate_type.clone()),
        (annotations::CREATED, seconds(created)),
    ];
    Content {
        layer: Descriptor::of(MediaType::new(bundle::MEDIA_TYPE), &bundle),
        bytes: bundle,
        annotations: annotations.map(|(key, value)| (key.to_owned(), value)).to_vec(),
        attests: (predicate_type != SIGNATURE_PREDICATE_TYPE).then_some(predicate_type),
    }
}
