use std::fmt;

use aws_lc_rs::rsa;
use aws_lc_rs::signature::UnparsedPublicKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_spec::Digest;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::error::{Error, Result};
use crate::key::{Scheme, pem};

/// What kind a key is of.
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
        /// The length of the modulus; from 2048 to 8192.
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

/// A public key that signatures are checked with. It is a point on its curve, or an RSA modulus of a length that is not
/// too weak.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    kind: KeyKind,
    /// `SubjectPublicKeyInfo`, RFC 5280 4.1.2.7.
    der: Vec<u8>,
}

impl PublicKey {
    /// Reads a `PUBLIC KEY` in PEM.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] if there is not exactly one, or if it is of no kind that is used.
    pub fn from_pem(text: &[u8]) -> Result<PublicKey> {
        let blocks = pem::blocks(text).map_err(|why| Error::Key(why.to_owned()))?;
        match &blocks[..] {
            [block] if block.label == "PUBLIC KEY" => PublicKey::from_der(&block.bytes),
            [block] => Err(Error::Key(format!("it holds a {} and not a PUBLIC KEY", block.label))),
            [] => Err(Error::Key("it holds no PEM block".to_owned())),
            _ => Err(Error::Key("it holds several PEM blocks".to_owned())),
        }
    }

    /// Reads a `SubjectPublicKeyInfo` in DER.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] if it is none, or of no kind that is used.
    pub fn from_der(der: &[u8]) -> Result<PublicKey> {
        let refuse = |why: String| Error::Key(why);
        let info = SubjectPublicKeyInfoRef::from_der(der)
            .map_err(|error| refuse(format!("it is not a public key: {error}")))?;
        let kind = match info.algorithm.oid {
            EC => {
                let curve: ObjectIdentifier = info
                    .algorithm
                    .parameters
                    .and_then(|parameters| parameters.decode_as().ok())
                    .ok_or_else(|| refuse("its curve has no name".to_owned()))?;
                match curve {
                    P256 => KeyKind::P256,
                    P384 => KeyKind::P384,
                    P521 => KeyKind::P521,
                    other => return Err(refuse(format!("the curve {other} is not used"))),
                }
            }
            ED25519 => KeyKind::Ed25519,
            RSA => {
                let key = rsa::PublicKey::from_der(der).map_err(|error| refuse(error.to_string()))?;
                let bits = bits_of(key.modulus().big_endian_without_leading_zero());
                if !(2048..=8192).contains(&bits) {
                    return Err(refuse(format!("RSA keys have 2048 to 8192 bits, and this one {bits}")));
                }
                KeyKind::Rsa { bits }
            }
            other => return Err(refuse(format!("the algorithm {other} is not used"))),
        };
        let unparsed = UnparsedPublicKey::new(Scheme::of_cosign(kind).algorithm(), der);
        unparsed.parse().map_err(|error| refuse(error.to_string()))?;
        Ok(PublicKey { kind, der: der.to_vec() })
    }

    /// The key in a certificate.
    pub(crate) fn of_certificate(certificate: &x509_cert::Certificate) -> Result<PublicKey> {
        let info = certificate.tbs_certificate().subject_public_key_info();
        PublicKey::from_der(&info.to_der().map_err(|error| Error::Key(error.to_string()))?)
    }

    /// What kind it is of.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// `SubjectPublicKeyInfo` in DER.
    pub fn to_der(&self) -> &[u8] {
        &self.der
    }

    /// The same in PEM.
    pub fn to_pem(&self) -> String {
        pem::write("PUBLIC KEY", &self.der).to_string()
    }

    /// The digest of the DER form, by which people tell keys apart.
    pub fn fingerprint(&self) -> Digest {
        Digest::sha256_of(&self.der)
    }

    /// The digest as sigstore bundles have it: base64.
    pub(crate) fn hint(&self) -> String {
        STANDARD.encode(self.fingerprint().as_bytes())
    }

    /// Whether this key made the signature of the message in that scheme. ECDSA signatures are in ASN.1.
    pub fn verifies(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(scheme.algorithm(), &self.der).verify(message, signature).is_ok()
    }

    /// Whether this key made the signature in one of the schemes of cosign.
    pub(crate) fn verifies_cosign(&self, message: &[u8], signature: &[u8]) -> bool {
        Scheme::accepted_from_cosign(self.kind).iter().any(|scheme| self.verifies(*scheme, message, signature))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.kind, self.fingerprint())
    }
}

/// The length of a number without leading zero bytes.
fn bits_of(big_endian: &[u8]) -> u32 {
    let first = big_endian.first().map_or(8, |first| first.leading_zeros());
    (big_endian.len() as u32).saturating_mul(8).saturating_sub(first)
}

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
