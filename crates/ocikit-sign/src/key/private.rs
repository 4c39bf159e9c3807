use std::fmt;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::key::public::PublicKey;
use crate::key::scheme::{KeyKind, Scheme};
use crate::key::{encrypted, pem};

/// A private key. It is wiped from memory when it is dropped, and its `Debug` output shows the public key only.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl PrivateKey {
    /// Generates a key.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] for RSA sizes other than 2048, 3072, 4096 or 8192 bits, and if the system has no randomness.
    pub fn generate(kind: KeyKind) -> Result<PrivateKey> {
        let failed = |_| Error::Key("it could not be made".to_owned());
        let ecdsa = |algorithm| EcdsaKeyPair::generate(algorithm).map(Pair::Ecdsa).map_err(failed);
        let pair = match kind {
            KeyKind::P256 => ecdsa(&signature::ECDSA_P256_SHA256_ASN1_SIGNING)?,
            KeyKind::P384 => ecdsa(&signature::ECDSA_P384_SHA384_ASN1_SIGNING)?,
            KeyKind::P521 => ecdsa(&signature::ECDSA_P521_SHA512_ASN1_SIGNING)?,
            KeyKind::Ed25519 => Pair::Ed25519(Ed25519KeyPair::generate().map_err(failed)?),
            KeyKind::Rsa { bits } => {
                let size = match bits {
                    2048 => KeySize::Rsa2048,
                    3072 => KeySize::Rsa3072,
                    4096 => KeySize::Rsa4096,
                    8192 => KeySize::Rsa8192,
                    _ => return Err(Error::Key(format!("RSA keys of {bits} bits are not made"))),
                };
                Pair::Rsa(RsaKeyPair::generate(size).map_err(failed)?)
            }
        };
        PrivateKey::of(pair)
    }

    /// Reads a key in PEM: PKCS #8, SEC 1 (`EC PRIVATE KEY`), PKCS #1 (`RSA PRIVATE KEY`) or cosign's encrypted
    /// format, which needs the password.
    ///
    /// # Errors
    ///
    /// [`Error::Password`] if the password is missing or wrong; [`Error::Key`] if it is not such a key.
    pub fn from_pem(text: &[u8], password: Option<&[u8]>) -> Result<PrivateKey> {
        let blocks = pem::blocks(text).map_err(|why| Error::Key(why.to_owned()))?;
        // OpenSSL writes a block with the curve in front of the key.
        let mut keys = blocks.iter().filter(|block| block.label != "EC PARAMETERS");
        let (Some(block), None) = (keys.next(), keys.next()) else {
            return Err(Error::Key(format!("it holds {} PEM blocks and not one", blocks.len())));
        };
        match block.label.as_str() {
            "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" => PrivateKey::from_der(&block.bytes),
            label if encrypted::LABELS.contains(&label) => {
                let password = password.ok_or(Error::Password("there is no password"))?;
                PrivateKey::from_der(&encrypted::decrypt(&block.bytes, password)?)
            }
            "PUBLIC KEY" => Err(Error::Key("it is the public half; the private one is wanted".to_owned())),
            "ENCRYPTED PRIVATE KEY" => Err(Error::Key(
                "it is encrypted as PKCS #8 does it, which is not read; `openssl pkcs8` or `cosign import-key-pair` rewrites it"
                    .to_owned(),
            )),
            label => Err(Error::Key(format!("it holds a {label}"))),
        }
    }

    /// Returns whether a file holds a key that needs a password.
    pub fn is_encrypted(text: &[u8]) -> bool {
        let blocks = pem::blocks(text).unwrap_or_default();
        blocks.iter().any(|block| encrypted::LABELS.contains(&block.label.as_str()))
    }

    fn from_der(der: &[u8]) -> Result<PrivateKey> {
        for algorithm in CURVES {
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(algorithm, der) {
                return PrivateKey::of(Pair::Ecdsa(pair));
            }
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return PrivateKey::of(Pair::Ed25519(pair));
        }
        match RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)) {
            Ok(pair) => PrivateKey::of(Pair::Rsa(pair)),
            Err(_) => Err(Error::Key(
                "its kind is not P-256, P-384, P-521, Ed25519 or RSA with at least 2048 bits".to_owned(),
            )),
        }
    }

    fn of(pair: Pair) -> Result<PrivateKey> {
        let der = match &pair {
            Pair::Ecdsa(pair) => pair.public_key().as_der(),
            Pair::Ed25519(pair) => pair.public_key().as_der(),
            Pair::Rsa(pair) => pair.public_key().as_der(),
        };
        let der = der.map_err(|_| Error::Key("it has no public half".to_owned()))?;
        let public = PublicKey::from_der(der.as_ref())?;
        Ok(PrivateKey { pair, public })
    }

    /// Returns the public key.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Returns the key in PEM as PKCS #8, not encrypted.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] if encoding fails.
    pub fn to_pem(&self) -> Result<Zeroizing<String>> {
        Ok(pem::write("PRIVATE KEY", &self.to_pkcs8()?))
    }

    /// Returns the key in cosign's encrypted format.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] if encoding or encryption fails.
    pub fn to_encrypted_pem(&self, password: &[u8]) -> Result<Zeroizing<String>> {
        Ok(pem::write(encrypted::LABELS[0], &encrypted::encrypt(&self.to_pkcs8()?, password)?))
    }

    fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>> {
        let failed = |_| Error::Key("it cannot be written".to_owned());
        Ok(Zeroizing::new(match &self.pair {
            Pair::Ecdsa(pair) => pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
            // Other tools read version 1 only, which omits the public key.
            Pair::Ed25519(pair) => pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
            Pair::Rsa(pair) => pair.as_der().map_err(failed)?.as_ref().to_vec(),
        }))
    }

    /// Signs a message. ECDSA signatures are encoded in ASN.1.
    ///
    /// # Errors
    ///
    /// [`Error::Signer`] if the key does not support the scheme.
    pub fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>> {
        let failed = |_| Error::Signer(format!("a key of kind {} did not sign", self.public.kind()));
        let other = || Error::Signer(format!("keys of kind {} do not sign with {scheme}", self.public.kind()));
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ecdsa(pair) if scheme == Scheme::of_cosign(self.public.kind()) => {
                Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec())
            }
            Pair::Ed25519(pair) if scheme == Scheme::Ed25519 => {
                Ok(pair.try_sign(message).map_err(failed)?.as_ref().to_vec())
            }
            Pair::Rsa(pair) => {
                let padding: &'static dyn signature::RsaEncoding = match scheme {
                    Scheme::RsaPkcs1Sha256 => &signature::RSA_PKCS1_SHA256,
                    Scheme::RsaPssSha256 => &signature::RSA_PSS_SHA256,
                    Scheme::RsaPssSha384 => &signature::RSA_PSS_SHA384,
                    Scheme::RsaPssSha512 => &signature::RSA_PSS_SHA512,
                    _ => return Err(other()),
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            _ => Err(other()),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}

const CURVES: [&EcdsaSigningAlgorithm; 3] = [
    &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
    &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
    &signature::ECDSA_P521_SHA512_ASN1_SIGNING,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> [KeyKind; 5] {
        [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Ed25519, KeyKind::Rsa { bits: 2048 }]
    }

    #[test]
    fn a_key_comes_back_from_both_forms() {
        for kind in kinds() {
            let key = PrivateKey::generate(kind).unwrap();
            assert_eq!(key.public_key().kind(), kind);
            let plain = PrivateKey::from_pem(key.to_pem().unwrap().as_bytes(), None).unwrap();
            assert_eq!(plain.public_key(), key.public_key());
            let text = key.to_encrypted_pem(b"secret").unwrap();
            assert!(PrivateKey::is_encrypted(text.as_bytes()));
            let read = PrivateKey::from_pem(text.as_bytes(), Some(b"secret")).unwrap();
            assert_eq!(read.public_key(), key.public_key());
            assert!(matches!(PrivateKey::from_pem(text.as_bytes(), Some(b"Secret")), Err(Error::Password(_))));
            assert!(matches!(PrivateKey::from_pem(text.as_bytes(), None), Err(Error::Password(_))));
            let public = PublicKey::from_pem(key.public_key().to_pem().as_bytes()).unwrap();
            assert_eq!(&public, key.public_key());
        }
    }

    #[test]
    fn only_the_signed_message_verifies() {
        for kind in kinds() {
            let (key, other) = (PrivateKey::generate(kind).unwrap(), PrivateKey::generate(kind).unwrap());
            for scheme in [Some(Scheme::of_cosign(kind)), Scheme::of_notation(kind)].into_iter().flatten() {
                let signature = key.sign(scheme, b"message").unwrap();
                assert!(key.public_key().verifies(scheme, b"message", &signature));
                assert!(!key.public_key().verifies(scheme, b"massage", &signature));
                assert!(!other.public_key().verifies(scheme, b"message", &signature));
                for position in 0..signature.len() {
                    let mut changed = signature.clone();
                    changed[position] ^= 1;
                    assert!(!key.public_key().verifies(scheme, b"message", &changed), "{kind} {position}");
                }
            }
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        assert_eq!(format!("{key:?}"), format!("PrivateKey {{ public: {:?}, .. }}", key.public_key()));
    }

    #[test]
    fn weak_and_unsupported_keys_are_refused() {
        // An RSA key of 1024 bits and a point on secp256k1, both written by OpenSSL.
        const WEAK: &str = "-----BEGIN PUBLIC KEY-----\nMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCa4Oi8Mf257oVd3TUB03i2Hgmv\n\
         3AR8xN5oeorNlegpPMhtiWRYmhK5tGtk6ZVY1uZ2ku1nAWdhZSNSEYdualuff1AG\n\
         4i8V/2kvmEUGPowG2aUGx7Wee/if2HvbczG57fLMkbu4s11ovRjBJbDOzB7y6gv+\n\
         TxN097Bm23nkjBrxHwIDAQAB\n-----END PUBLIC KEY-----\n";
        const CURVE: &str = "-----BEGIN PUBLIC KEY-----\nMFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEvLlCi+BFltZGsOVzsjGbjPi81NKIR50t\n\
         btXdyeV35K9/qSsWV6fki+x++MmSYhHpwiVcF3CubtG9fHjj6xUukA==\n-----END PUBLIC KEY-----\n";
        for text in [WEAK, CURVE] {
            assert!(matches!(PublicKey::from_pem(text.as_bytes()), Err(Error::Key(_))));
        }
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let mut der = key.public_key().to_der().to_vec();
        *der.last_mut().unwrap() ^= 1;
        assert!(PublicKey::from_der(&der).is_err(), "a point beside the curve");
    }
}
