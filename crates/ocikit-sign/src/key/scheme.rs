use std::fmt;

use aws_lc_rs::signature::{self, VerificationAlgorithm};

use crate::key::KeyKind;

/// How a message becomes a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256Sha256,
    /// ECDSA on P-384 with SHA-256: only verified.
    EcdsaP384Sha256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384Sha384,
    /// ECDSA on P-521 with SHA-256: only verified.
    EcdsaP521Sha256,
    /// ECDSA on P-521 with SHA-512.
    EcdsaP521Sha512,
    /// Ed25519 of the message itself, not of its hash.
    Ed25519,
    /// RSA PKCS #1 v1.5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSA-PSS with SHA-256 and a salt of that length.
    RsaPssSha256,
    /// RSA-PSS with SHA-384 and a salt of that length.
    RsaPssSha384,
    /// RSA-PSS with SHA-512 and a salt of that length.
    RsaPssSha512,
}

impl Scheme {
    /// How cosign signs with keys of this kind.
    ///
    /// cosign 3.1 itself uses Ed25519ph for its own signatures with Ed25519 keys and then verifies Ed25519; this is what
    /// it verifies.
    pub fn of_cosign(kind: KeyKind) -> Scheme {
        match kind {
            KeyKind::P256 => Scheme::EcdsaP256Sha256,
            KeyKind::P384 => Scheme::EcdsaP384Sha384,
            KeyKind::P521 => Scheme::EcdsaP521Sha512,
            KeyKind::Ed25519 => Scheme::Ed25519,
            KeyKind::Rsa { .. } => Scheme::RsaPkcs1Sha256,
        }
    }

    /// How the Notary Project signs with keys of this kind; `None` for kinds that its specification does not know.
    pub fn of_notation(kind: KeyKind) -> Option<Scheme> {
        Some(match kind {
            KeyKind::P256 => Scheme::EcdsaP256Sha256,
            KeyKind::P384 => Scheme::EcdsaP384Sha384,
            KeyKind::P521 => Scheme::EcdsaP521Sha512,
            KeyKind::Rsa { bits: 2048 } => Scheme::RsaPssSha256,
            KeyKind::Rsa { bits: 3072 } => Scheme::RsaPssSha384,
            KeyKind::Rsa { bits: 4096 } => Scheme::RsaPssSha512,
            KeyKind::Ed25519 | KeyKind::Rsa { .. } => return None,
        })
    }

    /// The schemes in which cosign may have signed: it once hashed by SHA-256 whatever the curve, and still does where its
    /// flags say so.
    pub(crate) fn accepted_from_cosign(kind: KeyKind) -> &'static [Scheme] {
        match kind {
            KeyKind::P256 => &[Scheme::EcdsaP256Sha256],
            KeyKind::P384 => &[Scheme::EcdsaP384Sha384, Scheme::EcdsaP384Sha256],
            KeyKind::P521 => &[Scheme::EcdsaP521Sha512, Scheme::EcdsaP521Sha256],
            KeyKind::Ed25519 => &[Scheme::Ed25519],
            KeyKind::Rsa { .. } => &[Scheme::RsaPkcs1Sha256],
        }
    }

    /// The word for it, which signers that are other programs are told.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Scheme::EcdsaP384Sha256 => "ecdsa-p384-sha256",
            Scheme::EcdsaP384Sha384 => "ecdsa-p384-sha384",
            Scheme::EcdsaP521Sha256 => "ecdsa-p521-sha256",
            Scheme::EcdsaP521Sha512 => "ecdsa-p521-sha512",
            Scheme::Ed25519 => "ed25519",
            Scheme::RsaPkcs1Sha256 => "rsa-pkcs1-sha256",
            Scheme::RsaPssSha256 => "rsa-pss-sha256",
            Scheme::RsaPssSha384 => "rsa-pss-sha384",
            Scheme::RsaPssSha512 => "rsa-pss-sha512",
        }
    }

    pub(crate) fn algorithm(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Scheme::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
            Scheme::EcdsaP384Sha256 => &signature::ECDSA_P384_SHA256_ASN1,
            Scheme::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
            Scheme::EcdsaP521Sha256 => &signature::ECDSA_P521_SHA256_ASN1,
            Scheme::EcdsaP521Sha512 => &signature::ECDSA_P521_SHA512_ASN1,
            Scheme::Ed25519 => &signature::ED25519,
            Scheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Scheme::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
            Scheme::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
            Scheme::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
