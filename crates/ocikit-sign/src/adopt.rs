use std::sync::Arc;

use jiff::Timestamp;
use ocikit_image::{Memory, Naming, Root};
use ocikit_spec::{Descriptor, MediaType};

use crate::cosign::{bundle, simple};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::key::PublicKey;
use crate::sign::{Signature, added, wrapped};
use crate::subjects::Subject;

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
}

/// Takes a signature that was made elsewhere for one of a root, once it was checked. Nothing is written:
/// [`attach`](crate::attach) does that.
///
/// # Errors
///
/// [`Error::Refused`] if it is not by this key, or not about this root; those of the place of the image.
pub async fn adopt(root: &Root, foreign: Foreign, key: &PublicKey, created: Timestamp) -> Result<Signature> {
    let memory = Arc::new(Memory::new());
    let subject = Subject { root: root.clone(), platform: root.descriptor().platform.clone() };
    let digest = root.digest();
    let (format, (manifest, naming)) = match foreign {
        Foreign::Bundle(bytes) => {
            let kind = bundle::predicate_type_unverified(&bytes).map_err(Error::Refused)?;
            bundle::verify(&bytes, &digest, &kind, key).map_err(Error::Refused)?;
            (Format::Cosign, (wrapped(&subject, &kind, bytes, created, &memory)?, Naming::default()))
        }
        Foreign::Simple { payload, signature } => {
            let layer = simple::layer(&payload, signature.trim());
            simple::verify(&layer, &payload, &digest, key).map_err(Error::Refused)?;
            (Format::CosignLegacy, added(&subject, &layer, payload, &memory).await?)
        }
    };
    let root = Root::at(memory, Descriptor::of(MediaType::OCI_MANIFEST, &manifest)).await?;
    Ok(Signature { subject: subject.descriptor(), platform: subject.platform, format, root, naming })
}
