use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::UnparsedPublicKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_spec::Digest;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::error::{Error, Result};
use crate::key::pem;
use crate::key::scheme::{KeyKind, Scheme};

/// A public key. It is a valid point on its curve, or an RSA modulus of 2048 to 8192 bits.
///
/// The encoding is canonical: a compressed and an uncompressed point, or absent and NULL RSA parameters, give the
/// same bytes and the same fingerprint.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    kind: KeyKind,
    /// `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7) as Go and OpenSSL write it: named curve, uncompressed point, NULL
    /// parameters for RSA.
    der: Vec<u8>,
    /// The digest that identifies the private key; see [`PublicKey::identity`].
    identity: Digest,
}

impl PublicKey {
    /// Reads a `PUBLIC KEY` in PEM.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] if there is not exactly one block, or the key is of an unsupported kind.
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
    /// [`Error::Key`] if it is malformed, or the key is of an unsupported kind.
    pub fn from_der(der: &[u8]) -> Result<PublicKey> {
        let refuse = Error::Key;
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
        let parsed = unparsed.parse().map_err(|error| refuse(error.to_string()))?;
        let canonical: PublicKeyX509Der<'_> = parsed.as_der().map_err(|error| refuse(error.to_string()))?;
        let der = canonical.as_ref().to_vec();
        let identity = identity(kind, &der).ok_or_else(|| refuse("it has no canonical form".to_owned()))?;
        Ok(PublicKey { kind, der, identity })
    }

    /// Returns the key in a certificate.
    pub(crate) fn of_certificate(certificate: &x509_cert::Certificate) -> Result<PublicKey> {
        let info = certificate.tbs_certificate().subject_public_key_info();
        PublicKey::from_der(&info.to_der().map_err(|error| Error::Key(error.to_string()))?)
    }

    /// Returns the kind of the key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Returns the `SubjectPublicKeyInfo` in DER.
    pub fn to_der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the key in PEM.
    pub fn to_pem(&self) -> String {
        pem::write("PUBLIC KEY", &self.der).to_string()
    }

    /// Returns the SHA-256 digest of the DER encoding.
    pub fn fingerprint(&self) -> Digest {
        Digest::sha256_of(&self.der)
    }

    /// Returns a digest that identifies the private key: that of an RSA modulus without the exponent, or of a curve
    /// point without its sign. The private key of one public key is sufficient for all public keys with the same
    /// identity.
    pub fn identity(&self) -> Digest {
        self.identity
    }

    /// Returns the fingerprint in base64, as sigstore bundles have it.
    pub(crate) fn hint(&self) -> String {
        STANDARD.encode(self.fingerprint().as_bytes())
    }

    /// Verifies a signature of a message in one scheme. ECDSA signatures are in ASN.1.
    pub fn verifies(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(scheme.algorithm(), &self.der).verify(message, signature).is_ok()
    }

    /// Verifies a signature in each scheme that cosign may have used.
    pub(crate) fn verifies_cosign(&self, message: &[u8], signature: &[u8]) -> bool {
        Scheme::accepted_from_cosign(self.kind).iter().any(|scheme| self.verifies(*scheme, message, signature))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.kind, self.fingerprint())
    }
}

/// Hashes the part of a public key that the private key determines. `der` is canonical.
fn identity(kind: KeyKind, der: &[u8]) -> Option<Digest> {
    let info = SubjectPublicKeyInfoRef::from_der(der).ok()?;
    let part = match kind {
        KeyKind::Rsa { .. } => {
            let key = rsa::PublicKey::from_der(der).ok()?;
            key.modulus().big_endian_without_leading_zero().to_vec()
        }
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => {
            // SEC 1, 2.3.3: the byte 4, then the two coordinates. The owner of `d` also has `n - d`, whose point
            // differs only in the sign of the second coordinate.
            let (form, coordinates) = info.subject_public_key.as_bytes()?.split_first()?;
            if *form != 4 {
                return None;
            }
            coordinates.get(..coordinates.len() / 2)?.to_vec()
        }
        KeyKind::Ed25519 => {
            let mut point = info.subject_public_key.as_bytes()?.to_vec();
            // RFC 8032, 5.1.2: the highest bit of the last byte is the sign of x.
            *point.last_mut()? &= 0x7f;
            point
        }
    };
    let algorithm = match kind {
        KeyKind::Rsa { .. } => "RSA".to_owned(),
        kind => kind.to_string(),
    };
    Some(Digest::sha256_of(&[algorithm.as_bytes(), b":", &part].concat()))
}

/// Returns the length in bits of a number without leading zero bytes.
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

#[cfg(test)]
mod tests {
    use x509_cert::der::{Tag, asn1::Any};

    use super::*;
    use crate::key::PrivateKey;

    /// Encodes a `SubjectPublicKeyInfo` with these parameters and this key.
    fn info(oid: ObjectIdentifier, parameters: Option<Any>, key: &[u8]) -> Vec<u8> {
        let algorithm = x509_cert::spki::AlgorithmIdentifierOwned { oid, parameters };
        let subject_public_key = x509_cert::der::asn1::BitString::from_bytes(key).unwrap();
        x509_cert::spki::SubjectPublicKeyInfoOwned { algorithm, subject_public_key }.to_der().unwrap()
    }

    fn bits(key: &PublicKey) -> Vec<u8> {
        let info = SubjectPublicKeyInfoRef::from_der(key.to_der()).unwrap();
        info.subject_public_key.as_bytes().unwrap().to_vec()
    }

    #[test]
    fn a_compressed_point_is_the_same_key() {
        for (kind, curve) in [(KeyKind::P256, P256), (KeyKind::P384, P384), (KeyKind::P521, P521)] {
            let key = PrivateKey::generate(kind).unwrap();
            let point = bits(key.public_key());
            let half = (point.len() - 1) / 2;
            let curve = Any::new(Tag::ObjectIdentifier, curve.as_bytes()).unwrap();
            let sign = 2 + (point[point.len() - 1] & 1);
            let read = |sign: u8| {
                let compressed = [&[sign][..], &point[1..=half]].concat();
                PublicKey::from_der(&info(EC, Some(curve.clone()), &compressed)).unwrap()
            };
            assert_eq!(&read(sign), key.public_key(), "{kind}");
            assert_eq!(read(sign).fingerprint(), key.public_key().fingerprint(), "{kind}");
            // The negated point is another public key of the same private key.
            let negated = read(5 - sign);
            assert_ne!(&negated, key.public_key(), "{kind}");
            assert_eq!(negated.identity(), key.public_key().identity(), "{kind}");
            assert_ne!(PrivateKey::generate(kind).unwrap().public_key().identity(), negated.identity(), "{kind}");
        }
    }

    #[test]
    fn rsa_parameters_and_exponents_make_no_second_key() {
        let key = PrivateKey::generate(KeyKind::Rsa { bits: 2048 }).unwrap();
        let key = key.public_key();
        let null = Any::new(Tag::Null, &[][..]).unwrap();
        assert_eq!(&PublicKey::from_der(&info(RSA, Some(null.clone()), &bits(key))).unwrap(), key);
        // Absent parameters give the same key, or are refused.
        if let Ok(absent) = PublicKey::from_der(&info(RSA, None, &bits(key))) {
            assert_eq!(&absent, key);
        }
        let mut numbers = bits(key);
        let end = numbers.len();
        assert_eq!(numbers[end - 5..], [2, 3, 1, 0, 1], "the exponent is 65537");
        numbers[end - 1] = 3;
        let other = PublicKey::from_der(&info(RSA, Some(null), &numbers)).unwrap();
        assert_ne!(&other, key);
        assert_eq!(other.identity(), key.identity());
    }

    #[test]
    fn keys_of_different_kinds_have_different_identities() {
        let kinds = [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Ed25519];
        let keys = kinds.map(|kind| PrivateKey::generate(kind).unwrap());
        for (position, one) in keys.iter().enumerate() {
            for other in &keys[position + 1..] {
                assert_ne!(one.public_key().identity(), other.public_key().identity());
            }
        }
    }
}
