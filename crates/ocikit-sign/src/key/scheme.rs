//! Kinds of keys and signature schemes.

use std::fmt;

use aws_lc_rs::signature::{self, VerificationAlgorithm};

/// The kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Elliptic curve P-256.
    P256,
    /// Elliptic curve P-384.
    P384,
    /// Elliptic curve P-521.
    P521,
    /// Ed25519.
    Ed25519,
    /// RSA.
    Rsa {
        /// The length of the modulus in bits, from 2048 to 8192.
        bits: u32,
    },
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyKind::P256 => f.write_str("P-256"),
            KeyKind::P384 => f.write_str("P-384"),
            KeyKind::P521 => f.write_str("P-521"),
            KeyKind::Ed25519 => f.write_str("Ed25519"),
            KeyKind::Rsa { bits } => write!(f, "RSA-{bits}"),
        }
    }
}

/// A signature scheme: algorithm, curve or padding, and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256Sha256,
    /// ECDSA on P-384 with SHA-256; verified, never used to sign.
    EcdsaP384Sha256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384Sha384,
    /// ECDSA on P-521 with SHA-256; verified, never used to sign.
    EcdsaP521Sha256,
    /// ECDSA on P-521 with SHA-512.
    EcdsaP521Sha512,
    /// Ed25519 over the message, not over its hash.
    Ed25519,
    /// RSA PKCS #1 v1.5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSA-PSS with SHA-256 and a salt of 32 bytes.
    RsaPssSha256,
    /// RSA-PSS with SHA-384 and a salt of 48 bytes.
    RsaPssSha384,
    /// RSA-PSS with SHA-512 and a salt of 64 bytes.
    RsaPssSha512,
}

impl Scheme {
    /// Returns the scheme that cosign verifies for keys of this kind.
    ///
    /// cosign 3.1 signs with Ed25519ph and then verifies Ed25519, so its own Ed25519 signatures fail; this returns
    /// Ed25519.
    pub fn of_cosign(kind: KeyKind) -> Scheme {
        Scheme::accepted_from_cosign(kind)[0]
    }

    /// Returns the scheme of the Notary Project for keys of this kind; `None` if its specification does not allow the
    /// kind.
    pub fn of_notation(kind: KeyKind) -> Option<Scheme> {
        Some(match kind {
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => Scheme::of_cosign(kind),
            KeyKind::Rsa { bits: 2048 } => Scheme::RsaPssSha256,
            KeyKind::Rsa { bits: 3072 } => Scheme::RsaPssSha384,
            KeyKind::Rsa { bits: 4096 } => Scheme::RsaPssSha512,
            KeyKind::Ed25519 | KeyKind::Rsa { .. } => return None,
        })
    }

    /// Returns the schemes that cosign may have used, the one that it verifies first. Older versions always hash with SHA-256, and newer ones do if a
    /// flag says so.
    pub(crate) fn accepted_from_cosign(kind: KeyKind) -> &'static [Scheme] {
        match kind {
            KeyKind::P256 => &[Scheme::EcdsaP256Sha256],
            KeyKind::P384 => &[Scheme::EcdsaP384Sha384, Scheme::EcdsaP384Sha256],
            KeyKind::P521 => &[Scheme::EcdsaP521Sha512, Scheme::EcdsaP521Sha256],
            KeyKind::Ed25519 => &[Scheme::Ed25519],
            KeyKind::Rsa { .. } => &[Scheme::RsaPkcs1Sha256],
        }
    }

    /// Returns the name and the algorithm of the scheme.
    fn row(self) -> (&'static str, &'static dyn VerificationAlgorithm) {
        match self {
            Scheme::EcdsaP256Sha256 => ("ecdsa-p256-sha256", &signature::ECDSA_P256_SHA256_ASN1),
            Scheme::EcdsaP384Sha256 => ("ecdsa-p384-sha256", &signature::ECDSA_P384_SHA256_ASN1),
            Scheme::EcdsaP384Sha384 => ("ecdsa-p384-sha384", &signature::ECDSA_P384_SHA384_ASN1),
            Scheme::EcdsaP521Sha256 => ("ecdsa-p521-sha256", &signature::ECDSA_P521_SHA256_ASN1),
            Scheme::EcdsaP521Sha512 => ("ecdsa-p521-sha512", &signature::ECDSA_P521_SHA512_ASN1),
            Scheme::Ed25519 => ("ed25519", &signature::ED25519),
            Scheme::RsaPkcs1Sha256 => ("rsa-pkcs1-sha256", &signature::RSA_PKCS1_2048_8192_SHA256),
            Scheme::RsaPssSha256 => ("rsa-pss-sha256", &signature::RSA_PSS_2048_8192_SHA256),
            Scheme::RsaPssSha384 => ("rsa-pss-sha384", &signature::RSA_PSS_2048_8192_SHA384),
            Scheme::RsaPssSha512 => ("rsa-pss-sha512", &signature::RSA_PSS_2048_8192_SHA512),
        }
    }

    /// Returns the name of the scheme, as it is passed to signing programs.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    pub(crate) fn algorithm(self) -> &'static dyn VerificationAlgorithm {
        self.row().1
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
