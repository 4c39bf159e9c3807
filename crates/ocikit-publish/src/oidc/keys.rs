use std::fmt;

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::algorithm::Algorithm;
use super::error::OidcError;

/// The maximum size of a key set, in bytes.
pub const MAX_KEY_SET_BYTES: usize = 256 << 10;
/// The maximum number of keys in a set.
pub const MAX_KEYS: usize = 100;

/// The public keys of an issuer (RFC 7517, section 5).
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// A public key.
#[derive(Clone)]
struct Key {
    id: Option<String>,
    /// The only algorithm that the key is for, if its issuer says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// A key for one algorithm: an uncompressed point (SEC 1, 2.3.3), or that of Ed25519.
    Curve(Algorithm, Vec<u8>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct SetJson {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct KeyJson {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Parses a set. Keys that cannot verify signatures are left out, as RFC 7517, section 5, asks: those of other kinds
    /// and uses, shared secrets and malformed ones.
    ///
    /// # Errors
    ///
    /// [`OidcError::Keys`] if it is not a key set, exceeds a limit or has no usable key.
    pub fn parse(bytes: &[u8]) -> Result<KeySet, OidcError> {
        let refuse = |problem: String| OidcError::Keys { problem };
        if bytes.len() > MAX_KEY_SET_BYTES {
            return Err(refuse(format!("it has more than {MAX_KEY_SET_BYTES} bytes")));
        }
        let set: SetJson =
            serde_json::from_slice(bytes).map_err(|_| refuse("it is not a JSON object with `keys`".to_owned()))?;
        if set.keys.len() > MAX_KEYS {
            return Err(refuse(format!("it has more than {MAX_KEYS} keys")));
        }
        let keys: Vec<_> = set.keys.into_iter().filter_map(Key::of).collect();
        match keys.is_empty() {
            true => Err(refuse("it has no key that verifies signatures".to_owned())),
            false => Ok(KeySet { keys }),
        }
    }

    /// Returns whether the set has a key with this id, or any key if there is no id.
    pub(super) fn has(&self, id: Option<&str>) -> bool {
        self.named(id).next().is_some()
    }

    fn named<'a>(&'a self, id: Option<&'a str>) -> impl Iterator<Item = &'a Key> {
        self.keys.iter().filter(move |key| id.is_none() || key.id.as_deref() == id)
    }

    /// Returns whether a key of the set, or the key with this id, made a signature.
    pub(super) fn verifies(&self, id: Option<&str>, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.named(id).any(|key| key.verifies(algorithm, message, signature))
    }
}

impl Key {
    fn of(json: serde_json::Value) -> Option<Key> {
        let json: KeyJson = serde_json::from_value(json).ok()?;
        let is_for_signatures = json.usage.as_deref().is_none_or(|usage| usage == "sig")
            && json.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
        if !is_for_signatures {
            return None;
        }
        let algorithm = match &json.alg {
            Some(name) => Some(Algorithm::of(name)?),
            None => None,
        };
        let bytes = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_deref()?).ok();
        // RFC 7518, section 6.2.1.2: a coordinate has the full length of the field.
        let point = |length: usize| {
            let (x, y) = (bytes(&json.x)?, bytes(&json.y)?);
            (x.len() == length && y.len() == length).then(|| [&[4], &x[..], &y[..]].concat())
        };
        let material = match (json.kty.as_str(), json.crv.as_deref()) {
            ("RSA", None) => Material::Rsa { modulus: bytes(&json.n)?, exponent: bytes(&json.e)? },
            ("EC", Some("P-256")) => Material::Curve(Algorithm::Es256, point(32)?),
            ("EC", Some("P-384")) => Material::Curve(Algorithm::Es384, point(48)?),
            ("EC", Some("P-521")) => Material::Curve(Algorithm::Es512, point(66)?),
            ("OKP", Some("Ed25519")) => {
                Material::Curve(Algorithm::EdDsa, bytes(&json.x).filter(|key| key.len() == 32)?)
            }
            _ => return None,
        };
        Some(Key { id: json.kid, algorithm, material })
    }

    /// Verifies a signature. The kind of the key has to be that of the algorithm, so that a token cannot choose how its key
    /// is read.
    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if self.algorithm.is_some_and(|only| only != algorithm) {
            return false;
        }
        let rsa = |parameters: &'static RsaParameters| match &self.material {
            Material::Rsa { modulus, exponent } => {
                let key = PublicKeyComponents { n: modulus, e: exponent };
                key.verify(parameters, message, signature).is_ok()
            }
            Material::Curve(..) => false,
        };
        let curve = |by: &'static dyn VerificationAlgorithm| match &self.material {
            Material::Curve(only, key) if *only == algorithm => {
                UnparsedPublicKey::new(by, key).verify(message, signature).is_ok()
            }
            Material::Curve(..) | Material::Rsa { .. } => false,
        };
        match algorithm {
            Algorithm::Rs256 => rsa(&RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Rs384 => rsa(&RSA_PKCS1_2048_8192_SHA384),
            Algorithm::Rs512 => rsa(&RSA_PKCS1_2048_8192_SHA512),
            Algorithm::Ps256 => rsa(&RSA_PSS_2048_8192_SHA256),
            Algorithm::Ps384 => rsa(&RSA_PSS_2048_8192_SHA384),
            Algorithm::Ps512 => rsa(&RSA_PSS_2048_8192_SHA512),
            Algorithm::Es256 => curve(&ECDSA_P256_SHA256_FIXED),
            Algorithm::Es384 => curve(&ECDSA_P384_SHA384_FIXED),
            Algorithm::Es512 => curve(&ECDSA_P521_SHA512_FIXED),
            Algorithm::EdDsa => curve(&ED25519),
        }
    }
}
