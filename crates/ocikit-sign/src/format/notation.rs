//! The formats of the Notary Project: JWS and COSE envelopes, stored as referrers.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use ocikit_spec::{Annotations, Descriptor, MediaType, annotations};
use serde_json::json;

use crate::budget::MAX_ENVELOPE_BYTES;
use crate::error::{Error, Result};
use crate::format::interface::{Content, Properties, SignInput, SignRequest, SignatureFormat, SigningKey, Storage};
use crate::notation::{self, Chain, EnvelopeFormat, EnvelopeSigner, NotationOptions};
use crate::refusal::Refusal;
use crate::time::seconds;
use crate::trust::{Expected, SignerKind, Trust};
use crate::verification::Verification;

#[derive(Debug)]
pub(super) struct Envelope(pub(super) EnvelopeFormat);

/// The artifact type of signatures. notation 1.3 writes it as the media type of the config, and finds no other
/// signatures in an OCI layout.
const ARTIFACT_TYPE: &str = "application/vnd.cncf.notary.signature";

const JWS: Properties = Properties {
    name: "notation-jws",
    description: "JWS envelope of the Notary Project",
    signers: &[SignerKind::Notation],
    inputs: &[SignInput::Notation],
    has_attestations: false,
    max_bytes: MAX_ENVELOPE_BYTES,
    storage: Storage::ReferrerByConfig { artifact_type: ARTIFACT_TYPE },
    envelope: Some(EnvelopeFormat::Jws),
};

const COSE: Properties = Properties {
    name: "notation-cose",
    description: "COSE envelope of the Notary Project",
    envelope: Some(EnvelopeFormat::Cose),
    ..JWS
};

#[async_trait]
impl SignatureFormat for Envelope {
    fn properties(&self) -> &'static Properties {
        match self.0 {
            EnvelopeFormat::Jws => &JWS,
            EnvelopeFormat::Cose => &COSE,
        }
    }

    fn detect(&self, artifact_type: &str, layer_type: &str) -> Result<bool, Refusal> {
        if artifact_type != ARTIFACT_TYPE {
            return Ok(false);
        }
        match EnvelopeFormat::of_media_type(layer_type) {
            Some(found) => Ok(found == self.0),
            None => Err(Refusal::NotUnderstood(format!("envelopes of type {layer_type}"))),
        }
    }

    fn may_be_listed_as(&self, artifact_type: &str) -> bool {
        artifact_type == ARTIFACT_TYPE
    }

    async fn sign(&self, subject: &Descriptor, request: &SignRequest<'_>) -> Result<Content> {
        let needs = |what: &str| Error::Unsupported(format!("a signature of the Notary Project needs {what}"));
        let options = request.notation.ok_or_else(|| needs("`notation` options"))?;
        let NotationOptions { chain, expiry, metadata, scheme, authority } = options;
        let by = match request.by {
            SigningKey::Plugin(plugin) => EnvelopeSigner::Plugin(plugin),
            SigningKey::Signer(signer) => {
                EnvelopeSigner::Key { signer, chain: chain.as_ref().ok_or_else(|| needs("certificates"))? }
            }
        };
        let (expiry, scheme, authority) = (*expiry, *scheme, authority.as_ref());
        let options = notation::Options { by, time: request.created, expiry, metadata, scheme, authority };
        let (envelope, more) = notation::sign(self.0, subject, &options).await?;
        // A plugin puts its own certificates into the envelope, and may name a verification plugin.
        let opened = match by {
            EnvelopeSigner::Key { .. } => notation::open(self.0, &envelope),
            EnvelopeSigner::Plugin(_) => notation::open_extended(self.0, &envelope),
        };
        let chain = opened.map_err(Error::Refused)?.chain;
        Ok(self.content(envelope.into(), &chain, request.created, &more))
    }

    fn verify(
        &self,
        trust: &Trust,
        subject: &Descriptor,
        _layer: &Descriptor,
        content: &Bytes,
        _expected: Expected<'_>,
    ) -> Result<Verification, Refusal> {
        let Trust::Notation(trust) = trust else { return Err(Refusal::OtherSigner) };
        trust.verify(self.0, content, subject)
    }

    fn import(
        &self,
        subject: &Descriptor,
        _layer: Descriptor,
        content: Bytes,
        created: Timestamp,
    ) -> Result<Content, Refusal> {
        let opened = notation::open(self.0, &content)?;
        opened.is_about(subject)?;
        Ok(self.content(content, &opened.chain, created, &Annotations::new()))
    }
}

impl Envelope {
    /// Returns the content for an envelope. `more` are annotations that a plugin adds.
    fn content(&self, envelope: Bytes, chain: &Chain, created: Timestamp, more: &Annotations) -> Content {
        let thumbprints: Vec<_> =
            chain.certificates().iter().map(|certificate| certificate.fingerprint().hex()).collect();
        let mut annotations = vec![
            ("io.cncf.notary.x509chain.thumbprint#S256".to_owned(), json!(thumbprints).to_string()),
            (annotations::CREATED.to_owned(), seconds(created)),
        ];
        for (key, value) in more.iter() {
            if annotations.iter().all(|(known, _)| known != key) {
                annotations.push((key.to_owned(), value.to_owned()));
            }
        }
        let layer = Descriptor::of(MediaType::new(self.0.media_type()), &envelope);
        Content { layer, bytes: envelope, annotations, attests: None }
    }
}
