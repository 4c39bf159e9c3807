use bytes::Bytes;
use jiff::Timestamp;
use ocikit_image::{Naming, Root};
use ocikit_spec::{Annotations, Descriptor, MediaType};

use crate::cosign::{bundle, simple};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::notation::{EnvelopeFormat, open};
use crate::refusal::Refusal;
use crate::sign::{Signature, SigningContext, added, enveloped, signature, wrapped};
use crate::signatures::{COSE_TYPE, FoundSignature, JWS_TYPE, max_bytes};
use crate::subjects::Subject;
use crate::verify::{Expected, Trust};

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
    let (place, subject) = (&SigningContext::default(), Subject::of(root));
    let (format, layer, bytes, kind) = parse(external, &subject).map_err(Error::Refused)?;
    if let Some(trusted) = trusted {
        let found = FoundSignature::given(format, layer.clone(), Bytes::from(bytes.clone()));
        let predicate_type = kind.as_deref().filter(|kind| *kind != bundle::PREDICATE_TYPE);
        trusted.verify(&subject, &found, Expected::of(predicate_type, None)).map_err(Error::Refused)?;
    }
    let (manifest, naming) = match (format, kind) {
        (Format::Cosign, Some(kind)) => (wrapped(&subject, &kind, bytes, (created, &[]), place)?, Naming::default()),
        (Format::CosignLegacy | Format::Cosign, _) => added(&subject, &layer, bytes, place).await?,
        (Format::NotationJws | Format::NotationCose, _) => {
            let envelope_format = envelope_format_of(format);
            let chain = open(envelope_format, &bytes).map_err(Error::Refused)?.chain;
            let notes = (created, &Annotations::new());
            (enveloped(envelope_format, &subject, &chain, bytes, notes, &place.memory), Naming::default())
        }
    };
    signature(&subject, format, &manifest, naming, place).await
}

/// Checks everything that needs no key. Returns the format, the layer, its content and the predicate type, if the
/// signature has one.
fn parse(
    external: ExternalSignature,
    subject: &Subject,
) -> Result<(Format, Descriptor, Vec<u8>, Option<String>), Refusal> {
    let (format, layer, bytes, kind) = match external {
        ExternalSignature::Bundle(bytes) => {
            check_length(Format::Cosign, &bytes)?;
            let kind = bundle::check_unverified(&bytes, &subject.digest())?;
            let layer = Descriptor::of(MediaType::new(bundle::MEDIA_TYPE), &bytes);
            (Format::Cosign, layer, bytes, Some(kind))
        }
        ExternalSignature::Simple { payload, signature } => {
            check_length(Format::CosignLegacy, &payload)?;
            let layer = simple::layer(&payload, signature.trim());
            simple::signature(&layer)?;
            simple::check_payload(&payload, &subject.digest())?;
            (Format::CosignLegacy, layer, payload, None)
        }
        ExternalSignature::Envelope(bytes) => {
            let (format, kind) = match bytes.trim_ascii_start().first() {
                Some(b'{') => (Format::NotationJws, JWS_TYPE),
                _ => (Format::NotationCose, COSE_TYPE),
            };
            check_length(format, &bytes)?;
            open(envelope_format_of(format), &bytes)?.is_about(&subject.descriptor())?;
            (format, Descriptor::of(MediaType::new(kind), &bytes), bytes, None)
        }
    };
    Ok((format, layer, bytes, kind))
}

/// Checks that the signature is not longer than what verification reads.
fn check_length(format: Format, bytes: &[u8]) -> Result<(), Refusal> {
    let (length, most) = (bytes.len() as u64, max_bytes(format));
    match length > most {
        true => Err(Refusal::Malformed(format!("it has {length} bytes, more than the {most} that are read"))),
        false => Ok(()),
    }
}

fn envelope_format_of(format: Format) -> EnvelopeFormat {
    match format {
        Format::NotationCose => EnvelopeFormat::Cose,
        _ => EnvelopeFormat::Jws,
    }
}
