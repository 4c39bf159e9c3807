//! What a signature format has to implement.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use ocikit_spec::Descriptor;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::notation::{EnvelopeFormat, NotationOptions, NotationPlugin};
use crate::refusal::Refusal;
use crate::signer::Signer;
use crate::sigstore::VerificationMaterial;
use crate::trust::{Expected, SignerKind, Trust};
use crate::verification::Verification;

/// An input of signing that applies to some formats only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignInput {
    /// The name under which images are signed: [`SignOptions::reference`](crate::SignOptions::reference).
    Reference,
    /// Certificates, log entries and timestamps of sigstore: [`SignOptions::material`](crate::SignOptions::material).
    Material,
    /// The content of Notary Project envelopes: [`SignOptions::notation`](crate::SignOptions::notation).
    Notation,
}

/// The properties of a format.
#[derive(Debug)]
pub(crate) struct Properties {
    /// The name in options and output.
    pub(crate) name: &'static str,
    /// The description in help texts.
    pub(crate) description: &'static str,
    /// The kinds of signers whose signatures can be in this format.
    pub(crate) signers: &'static [SignerKind],
    /// The inputs of signing that this format uses.
    pub(crate) inputs: &'static [SignInput],
    pub(crate) has_attestations: bool,
    /// The maximum size of a signature, in bytes.
    pub(crate) max_bytes: u64,
    pub(crate) storage: Storage,
    /// The encoding, if this is a Notary Project envelope, which plugins may create and check.
    pub(crate) envelope: Option<EnvelopeFormat>,
}

/// How signatures in a format are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// As a referrer with one layer and this artifact type.
    Referrer { artifact_type: &'static str },
    /// As a referrer with one layer. The artifact type is the media type of its config, as in image specification 1.0.
    ReferrerByConfig { artifact_type: &'static str },
    /// As a layer of the manifest under the tag `sha256-….sig`, which holds all signatures of the digest.
    Tag,
}

/// What signs: a signer, or a notation plugin, which has its own certificates.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SigningKey<'a> {
    Signer(&'a dyn Signer),
    Plugin(&'a NotationPlugin),
}

impl<'a> SigningKey<'a> {
    /// Returns the signer, for a format that plugins do not sign in.
    pub(crate) fn signer(self, format: &Properties) -> Result<&'a dyn Signer> {
        match self {
            SigningKey::Signer(signer) => Ok(signer),
            SigningKey::Plugin(_) => {
                Err(Error::Unsupported(format!("a plugin of notation does not sign as {}", format.name)))
            }
        }
    }
}

/// What to sign with, and the content of signatures besides their subject.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignRequest<'a> {
    pub(crate) by: SigningKey<'a>,
    pub(crate) created: Timestamp,
    pub(crate) reference: &'a str,
    pub(crate) notation: Option<&'a NotationOptions>,
    pub(crate) material: Option<&'a VerificationMaterial>,
    /// The predicate type and the predicate to attest; `None` for a plain signature.
    pub(crate) attestation: Option<(&'a str, &'a Value)>,
}

/// A signature that is not stored yet.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    /// The descriptor of the signature.
    pub(crate) layer: Descriptor,
    pub(crate) bytes: Bytes,
    /// The annotations of its manifest.
    pub(crate) annotations: Vec<(String, String)>,
    /// The predicate type of an attestation; `None` for a plain signature.
    pub(crate) attests: Option<String>,
}

/// A signature format: how its signatures are found, created, verified and imported.
#[async_trait]
pub(crate) trait SignatureFormat: Sync {
    fn properties(&self) -> &'static Properties;

    /// Returns whether a manifest with this artifact type and this type of its first layer is in this format.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotUnderstood`] for an unsupported version of this format.
    fn detect(&self, artifact_type: &str, layer_type: &str) -> Result<bool, Refusal>;

    /// Returns whether a registry may list signatures in this format under this artifact type.
    fn may_be_listed_as(&self, artifact_type: &str) -> bool;

    /// Signs one subject.
    async fn sign(&self, subject: &Descriptor, request: &SignRequest<'_>) -> Result<Content>;

    /// Verifies a signature: its signer, its subject and the expected content. `layer` describes `content` and comes
    /// from the manifest of the signature, which is untrusted.
    fn verify(
        &self,
        trust: &Trust,
        subject: &Descriptor,
        layer: &Descriptor,
        content: &Bytes,
        expected: Expected<'_>,
    ) -> Result<Verification, Refusal>;

    /// Checks a signature made by another tool as far as that is possible without its key: its encoding and its
    /// subject.
    fn import(
        &self,
        subject: &Descriptor,
        layer: Descriptor,
        content: Bytes,
        created: Timestamp,
    ) -> Result<Content, Refusal>;
}
