use bytes::Bytes;
use jiff::Timestamp;
use ocikit_image::Root;
use ocikit_spec::{Descriptor, MediaType};

use crate::cosign::{bundle, simple};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::notation::EnvelopeFormat;
use crate::refusal::Refusal;
use crate::signatures::FoundSignature;
use crate::store::{NewSignatures, Signature};
use crate::subjects::Subject;
use crate::trust::{Expected, Trust};

/// A signature made by another tool, not yet stored in the image's location.
#[derive(Debug, Clone)]
pub enum ExternalSignature {
    /// A sigstore bundle that holds a signature or an attestation.
    Bundle(Vec<u8>),
    /// A simple signing payload and its signature in base64.
    Simple {
        /// The payload: the bytes that are signed.
        payload: Vec<u8>,
        /// The signature in base64.
        signature: String,
    },
    /// A Notary Project envelope. JWS envelopes are JSON; anything else is read as COSE.
    Envelope(Vec<u8>),
}

/// Imports a signature made by another tool as a signature of `root`. Nothing is written; [`attach`](crate::attach)
/// stores the result.
///
/// With `trusted`, the signature must verify against it. Without `trusted`, only its format and its subject are
/// checked, and a later `verify` decides who made it.
///
/// # Errors
///
/// [`Error::Refused`] if the signature does not verify or is about another subject; errors of the image's location.
pub async fn import_signature(
    root: &Root,
    external: ExternalSignature,
    trusted: Option<&Trust>,
    created: Timestamp,
) -> Result<Signature> {
    let subject = Subject::of(root);
    let (format, layer, bytes) = external.into_layer();
    let (length, max_bytes) = (bytes.len(), format.properties().max_bytes);
    if length as u64 > max_bytes {
        let why = format!("it has {length} bytes, more than the {max_bytes} that are read");
        return Err(Error::Refused(Refusal::Malformed(why)));
    }
    let found = FoundSignature::given(format, layer.clone(), bytes.clone());
    let imported = format.implementation().import(&subject.descriptor, layer, bytes, created);
    let content = imported.map_err(Error::Refused)?;
    if let Some(trusted) = trusted {
        let expected = Expected::of(content.attests.as_deref(), None);
        trusted.verify(&subject, &found, expected).map_err(Error::Refused)?;
    }
    NewSignatures::default().add(&subject, format, content).await
}

impl ExternalSignature {
    /// Returns the format, and the layer that holds the signature with its descriptor.
    fn into_layer(self) -> (Format, Descriptor, Bytes) {
        let (format, layer, bytes) = match self {
            ExternalSignature::Bundle(bytes) => {
                (Format::Cosign, Descriptor::of(MediaType::new(bundle::MEDIA_TYPE), &bytes), bytes)
            }
            ExternalSignature::Simple { payload, signature } => {
                (Format::CosignLegacy, simple::layer(&payload, signature.trim()), payload)
            }
            ExternalSignature::Envelope(bytes) => {
                let envelope = EnvelopeFormat::of_bytes(&bytes);
                let layer = Descriptor::of(MediaType::new(envelope.media_type()), &bytes);
                (Format::of_envelope(envelope), layer, bytes)
            }
        };
        (format, layer, bytes.into())
    }
}
