//! The format of cosign 3: an in-toto statement in a sigstore bundle, stored as a referrer.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use ocikit_spec::{Descriptor, MediaType, annotations};
use serde_json::{Map, Value};

use crate::budget::MAX_BUNDLE_BYTES;
use crate::cosign::bundle;
use crate::error::Result;
use crate::format::interface::{Content, Properties, SignInput, SignRequest, SignatureFormat, Storage};
use crate::predicate::SIGNATURE_PREDICATE_TYPE;
use crate::refusal::Refusal;
use crate::time::seconds;
use crate::trust::{Expected, SignerKind, Statement, Trust};
use crate::verification::Verification;

#[derive(Debug)]
pub(super) struct Bundle;

/// The beginning of the artifact types of all versions.
const ARTIFACT_TYPE_PREFIX: &str = "application/vnd.dev.sigstore.bundle";

const PROPERTIES: Properties = Properties {
    name: "cosign",
    description: "Sigstore bundle, stored as a referrer (cosign 3)",
    signers: &[SignerKind::Key, SignerKind::Certificate],
    inputs: &[SignInput::Material],
    has_attestations: true,
    max_bytes: MAX_BUNDLE_BYTES,
    storage: Storage::Referrer { artifact_type: bundle::MEDIA_TYPE },
    envelope: None,
};

#[async_trait]
impl SignatureFormat for Bundle {
    fn properties(&self) -> &'static Properties {
        &PROPERTIES
    }

    fn detect(&self, artifact_type: &str, _layer_type: &str) -> Result<bool, Refusal> {
        match artifact_type {
            bundle::MEDIA_TYPE => Ok(true),
            other if self.may_be_listed_as(other) => Err(Refusal::NotUnderstood(format!("bundles of type {other}"))),
            _ => Ok(false),
        }
    }

    fn may_be_listed_as(&self, artifact_type: &str) -> bool {
        artifact_type.starts_with(ARTIFACT_TYPE_PREFIX)
    }

    async fn sign(&self, subject: &Descriptor, request: &SignRequest<'_>) -> Result<Content> {
        let signer = request.by.signer(&PROPERTIES)?;
        let nothing = Value::Object(Map::new());
        let (predicate_type, predicate) = request.attestation.unwrap_or((SIGNATURE_PREDICATE_TYPE, &nothing));
        let bundle = bundle::sign(&subject.digest, predicate_type, predicate, signer, request.material).await?;
        Ok(of_bundle(bundle.into(), predicate_type.to_owned(), request.created))
    }

    fn verify(
        &self,
        trust: &Trust,
        subject: &Descriptor,
        _layer: &Descriptor,
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

    fn import(
        &self,
        subject: &Descriptor,
        _layer: Descriptor,
        content: Bytes,
        created: Timestamp,
    ) -> Result<Content, Refusal> {
        let predicate_type = bundle::check_unverified(&content, &subject.digest)?;
        Ok(of_bundle(content, predicate_type, created))
    }
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
