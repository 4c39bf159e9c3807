use bytes::Bytes;
use jiff::Timestamp;
use ocikit_image::{Naming, Root};
use ocikit_spec::{Annotations, Descriptor, MediaType};

use crate::cosign::{bundle, simple};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::found::{COSE_TYPE, Found, JWS_TYPE, max_bytes};
use crate::notation::{Seal, open};
use crate::refusal::Refusal;
use crate::sign::{Made, Signature, added, enveloped, signature, wrapped};
use crate::subjects::Subject;
use crate::verify::{Asked, Trust};

/// A signature that somebody made elsewhere, without storing it.
#[derive(Debug, Clone)]
pub enum Foreign {
    /// A sigstore bundle: a signature or an attestation.
    Bundle(Vec<u8>),
    /// A payload of simple signing, and its signature in base64.
    Simple {
        /// What was signed.
        payload: Vec<u8>,
        /// The signature.
        signature: String,
    },
    /// An envelope of the Notary Project: JWS, which is JSON, or COSE, which is not.
    Envelope(Vec<u8>),
}

/// Takes a signature that was made elsewhere for one of a root, once it was checked. Nothing is written:
/// [`attach`](crate::attach) does that.
///
/// It has to be by `trusted`. If nobody is named, only its form is checked, and that it is about this root: then whoever
/// reads it has to ask who made it, as always.
///
/// # Errors
///
/// [`Error::Refused`] if it is not by them, or not about this root; those of the place of the image.
pub async fn adopt(root: &Root, foreign: Foreign, trusted: Option<&Trust>, created: Timestamp) -> Result<Signature> {
    let (place, subject) = (&Made::default(), Subject::of(root));
    let (format, layer, bytes, kind) = form(foreign, &subject).map_err(Error::Refused)?;
    if let Some(trusted) = trusted {
        let found = Found::given(format, layer.clone(), Bytes::from(bytes.clone()));
        let predicate_type = kind.as_deref().filter(|kind| *kind != bundle::PREDICATE_TYPE);
        trusted.verify(&subject, &found, Asked::of(predicate_type, None)).map_err(Error::Refused)?;
    }
    let (manifest, naming) = match (format, kind) {
        (Format::Cosign, Some(kind)) => (wrapped(&subject, &kind, bytes, (created, &[]), place)?, Naming::default()),
        (Format::CosignLegacy | Format::Cosign, _) => added(&subject, &layer, bytes, place).await?,
        (Format::NotationJws | Format::NotationCose, _) => {
            let seal = seal_of(format);
            let chain = open(seal, &bytes).map_err(Error::Refused)?.chain;
            let notes = (created, &Annotations::new());
            (enveloped(seal, &subject, &chain, bytes, notes, &place.memory), Naming::default())
        }
    };
    signature(&subject, format, &manifest, naming, place).await
}

/// What a signature is, once all was checked that needs nobody's key: its format, layer and content, and the type of its
/// statement if it has one.
fn form(foreign: Foreign, subject: &Subject) -> Result<(Format, Descriptor, Vec<u8>, Option<String>), Refusal> {
    let (format, layer, bytes, kind) = match foreign {
        Foreign::Bundle(bytes) => {
            check_length(Format::Cosign, &bytes)?;
            let kind = bundle::about_unverified(&bytes, &subject.digest())?;
            let layer = Descriptor::of(MediaType::new(bundle::MEDIA_TYPE), &bytes);
            (Format::Cosign, layer, bytes, Some(kind))
        }
        Foreign::Simple { payload, signature } => {
            check_length(Format::CosignLegacy, &payload)?;
            let layer = simple::layer(&payload, signature.trim());
            simple::signature(&layer)?;
            simple::says(&payload, &subject.digest())?;
            (Format::CosignLegacy, layer, payload, None)
        }
        Foreign::Envelope(bytes) => {
            let (format, kind) = match bytes.trim_ascii_start().first() {
                Some(b'{') => (Format::NotationJws, JWS_TYPE),
                _ => (Format::NotationCose, COSE_TYPE),
            };
            check_length(format, &bytes)?;
            open(seal_of(format), &bytes)?.is_about(&subject.descriptor())?;
            (format, Descriptor::of(MediaType::new(kind), &bytes), bytes, None)
        }
    };
    Ok((format, layer, bytes, kind))
}

/// What is longer nobody reads.
fn check_length(format: Format, bytes: &[u8]) -> Result<(), Refusal> {
    let (length, most) = (bytes.len() as u64, max_bytes(format));
    match length > most {
        true => Err(Refusal::Malformed(format!("it has {length} bytes, more than the {most} that are read"))),
        false => Ok(()),
    }
}

fn seal_of(format: Format) -> Seal {
    match format {
        Format::NotationCose => Seal::Cose,
        _ => Seal::Jws,
    }
}
