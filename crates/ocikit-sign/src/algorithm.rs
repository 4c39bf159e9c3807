//! Signature and hash algorithms of certificates, certificate revocation lists and timestamps.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, VerificationAlgorithm};
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Error, Tag, Tagged};

use crate::der::{Fields, outer};
use crate::key::{KeyKind, Scheme};

/// The supported hashes. SHA-1 is not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(crate) const ALL: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];

    /// Returns the hash of a signature scheme; `None` for Ed25519, which signs the message itself.
    pub(crate) fn of_scheme(scheme: Scheme) -> Option<Hash> {
        match scheme {
            Scheme::EcdsaP256Sha256 | Scheme::EcdsaP384Sha256 | Scheme::EcdsaP521Sha256 => Some(Hash::Sha256),
            Scheme::RsaPkcs1Sha256 | Scheme::RsaPssSha256 => Some(Hash::Sha256),
            Scheme::EcdsaP384Sha384 | Scheme::RsaPssSha384 => Some(Hash::Sha384),
            Scheme::EcdsaP521Sha512 | Scheme::RsaPssSha512 => Some(Hash::Sha512),
            Scheme::Ed25519 => None,
        }
    }

    /// Returns the length in bits, which all names of the hash contain.
    pub(crate) fn bits(self) -> usize {
        8 * self.algorithm().output_len()
    }

    pub(crate) fn oid(self) -> ObjectIdentifier {
        match self {
            Hash::Sha256 => SHA256,
            Hash::Sha384 => SHA384,
            Hash::Sha512 => SHA512,
        }
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
        }
    }

    pub(crate) fn digest(self, message: &[u8]) -> Vec<u8> {
        digest::digest(self.algorithm(), message).as_ref().to_vec()
    }
}

/// An X.509 `AlgorithmIdentifier`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Algorithm<'a> {
    pub(crate) oid: ObjectIdentifier,
    parameters: Option<AnyRef<'a>>,
}

impl<'a> Algorithm<'a> {
    pub(crate) fn new(oid: ObjectIdentifier, parameters: Option<AnyRef<'a>>) -> Algorithm<'a> {
        Algorithm { oid, parameters }
    }

    /// Reads the next field of a structure.
    pub(crate) fn read(fields: &mut Fields<'a>) -> Result<Algorithm<'a>, Error> {
        let mut fields = fields.fields(Tag::Sequence)?;
        let oid = fields.decode()?;
        let parameters = if fields.is_finished() { None } else { Some(fields.decode()?) };
        fields.finish()?;
        Ok(Algorithm { oid, parameters })
    }

    /// Returns the hash, if this is a supported hash algorithm. RFC 5754, 2: parameters are absent or NULL.
    pub(crate) fn hash(self) -> Option<Hash> {
        Hash::ALL.into_iter().find(|hash| hash.oid() == self.oid).filter(|_| self.has_no_parameters())
    }

    fn has_no_parameters(self) -> bool {
        self.parameters.is_none_or(AnyRef::is_null)
    }

    /// Returns the algorithm that verifies signatures by a key of this kind. Some identifiers leave the hash to
    /// another field; `hash` is the hash from that field, if there is one.
    pub(crate) fn verification(self, kind: KeyKind, hash: Option<Hash>) -> Option<&'static dyn VerificationAlgorithm> {
        if self.oid == RSA_PSS {
            let found = pss(self.parameters?)?;
            return match kind {
                KeyKind::Rsa { .. } if hash.is_none_or(|hash| hash == found) => Some(match found {
                    Hash::Sha256 => &signature::RSA_PSS_2048_8192_SHA256,
                    Hash::Sha384 => &signature::RSA_PSS_2048_8192_SHA384,
                    Hash::Sha512 => &signature::RSA_PSS_2048_8192_SHA512,
                }),
                _ => None,
            };
        }
        if !self.has_no_parameters() {
            return None;
        }
        if self.oid == ED25519 && kind == KeyKind::Ed25519 {
            return Some(&signature::ED25519);
        }
        let found = match self.oid {
            ECDSA_SHA256 | RSA_SHA256 => Hash::Sha256,
            ECDSA_SHA384 | RSA_SHA384 => Hash::Sha384,
            ECDSA_SHA512 | RSA_SHA512 => Hash::Sha512,
            // RFC 3370, 3.2: the identifier names the key type only.
            RSA => hash?,
            _ => return None,
        };
        if hash.is_some_and(|hash| hash != found) {
            return None;
        }
        let is_ecdsa = [ECDSA_SHA256, ECDSA_SHA384, ECDSA_SHA512].contains(&self.oid);
        Some(match (kind, found) {
            (KeyKind::P256, Hash::Sha256) if is_ecdsa => &signature::ECDSA_P256_SHA256_ASN1,
            (KeyKind::P256, Hash::Sha384) if is_ecdsa => &signature::ECDSA_P256_SHA384_ASN1,
            (KeyKind::P256, Hash::Sha512) if is_ecdsa => &signature::ECDSA_P256_SHA512_ASN1,
            (KeyKind::P384, Hash::Sha256) if is_ecdsa => &signature::ECDSA_P384_SHA256_ASN1,
            (KeyKind::P384, Hash::Sha384) if is_ecdsa => &signature::ECDSA_P384_SHA384_ASN1,
            (KeyKind::P384, Hash::Sha512) if is_ecdsa => &signature::ECDSA_P384_SHA512_ASN1,
            (KeyKind::P521, Hash::Sha256) if is_ecdsa => &signature::ECDSA_P521_SHA256_ASN1,
            (KeyKind::P521, Hash::Sha384) if is_ecdsa => &signature::ECDSA_P521_SHA384_ASN1,
            (KeyKind::P521, Hash::Sha512) if is_ecdsa => &signature::ECDSA_P521_SHA512_ASN1,
            (KeyKind::Rsa { .. }, Hash::Sha256) if !is_ecdsa => &signature::RSA_PKCS1_2048_8192_SHA256,
            (KeyKind::Rsa { .. }, Hash::Sha384) if !is_ecdsa => &signature::RSA_PKCS1_2048_8192_SHA384,
            (KeyKind::Rsa { .. }, Hash::Sha512) if !is_ecdsa => &signature::RSA_PKCS1_2048_8192_SHA512,
            _ => return None,
        })
    }
}

/// Returns the hash of RSA-PSS parameters (RFC 4055, 3.1). Message and mask must use the same hash, and the salt must
/// be as long as the hash.
fn pss(parameters: AnyRef<'_>) -> Option<Hash> {
    if parameters.tag() != Tag::Sequence {
        return None;
    }
    let mut fields = Fields::within(parameters.value()).ok()?;
    let mut of_hash = fields.fields(outer(0)).ok()?;
    let hash = Algorithm::read(&mut of_hash).ok()?.hash()?;
    let mut of_mask = fields.fields(outer(1)).ok()?.fields(Tag::Sequence).ok()?;
    if of_mask.decode::<ObjectIdentifier>().ok()? != MGF1 || Algorithm::read(&mut of_mask).ok()?.hash()? != hash {
        return None;
    }
    let salt: u32 = fields.fields(outer(2)).ok()?.decode().ok()?;
    let trailer: u32 = match fields.optional(outer(3)).ok()? {
        Some(trailer) => Fields::within(trailer).ok()?.decode().ok()?,
        None => 1,
    };
    (usize::try_from(salt) == Ok(hash.bits() / 8) && trailer == 1 && fields.is_finished()).then_some(hash)
}

const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ECDSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
