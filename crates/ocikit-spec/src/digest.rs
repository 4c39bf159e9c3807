use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

use crate::error::{Error, Result, excerpt};

/// A digest algorithm registered by the image specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, which every implementation supports.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// All algorithms.
    pub const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

    /// Returns the name before the colon of a digest, which is also the directory below `blobs/` in a layout.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn named(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    fn length(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }
}

/// The identity of a blob: an algorithm and the hash of its bytes, written `sha256:HEX` in lower-case hexadecimal.
///
/// Image specification, "Digests". Cheap to copy; ordered like its text.
///
/// ```
/// use ocikit_spec::Digest;
///
/// let digest = Digest::sha256_of(b"");
/// assert_eq!(digest.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
/// assert_eq!(digest.to_string().parse(), Ok(digest));
/// assert!("sha256:abc".parse::<Digest>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Hash);

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Hash {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

impl Digest {
    /// Returns the sha256 digest of these bytes.
    pub fn sha256_of(bytes: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, bytes)
    }

    /// Returns the digest of these bytes.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Hash::Sha256(_) => Algorithm::Sha256,
            Hash::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Returns the hash, 32 or 64 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Hash::Sha256(bytes) => bytes,
            Hash::Sha512(bytes) => bytes,
        }
    }

    /// Returns the hash in hexadecimal, the part after the colon.
    pub fn hex(&self) -> String {
        hex::encode(self.as_bytes())
    }

    /// Returns the path of the blob in a layout, relative to its root: `blobs/sha256/…`.
    pub fn blob_path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm().name(), self.hex())
    }

    /// Returns the digest of the blob at this path of a layout, the inverse of [`Digest::blob_path`].
    pub fn from_blob_path(path: &str) -> Option<Digest> {
        let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
        Digest::from_hex(Algorithm::named(algorithm)?, hex)
    }

    fn from_hex(algorithm: Algorithm, text: &str) -> Option<Digest> {
        if text.len() != 2 * algorithm.length() || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        match algorithm {
            Algorithm::Sha256 => {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes).ok()?;
                Some(Digest(Hash::Sha256(bytes)))
            }
            Algorithm::Sha512 => {
                let mut bytes = [0; 64];
                hex::decode_to_slice(text, &mut bytes).ok()?;
                Some(Digest(Hash::Sha512(bytes)))
            }
        }
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest> {
        let digest_error = |problem| Error::Digest { text: excerpt(text), problem };
        let (name, hex) = text
            .split_once(':')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| digest_error("it has no `algorithm:` before the hash"))?;
        let algorithm = Algorithm::named(name).ok_or_else(|| Error::Algorithm { algorithm: excerpt(name) })?;
        Digest::from_hex(algorithm, hex).ok_or_else(|| {
            digest_error(match algorithm {
                Algorithm::Sha256 => "sha256 requires 64 lower-case hexadecimal digits",
                Algorithm::Sha512 => "sha512 requires 128 lower-case hexadecimal digits",
            })
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Digest, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The state of a digest computation.
#[derive(Clone)]
pub struct Hasher(HashState);

#[derive(Clone)]
enum HashState {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Creates the state before the first byte.
    pub fn new(algorithm: Algorithm) -> Hasher {
        Hasher(match algorithm {
            Algorithm::Sha256 => HashState::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => HashState::Sha512(sha2::Sha512::new()),
        })
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            HashState::Sha256(state) => state.update(bytes),
            HashState::Sha512(state) => state.update(bytes),
        }
    }

    /// Returns the digest of all bytes.
    pub fn finish(self) -> Digest {
        Digest(match self.0 {
            HashState::Sha256(state) => Hash::Sha256(state.finalize().into()),
            HashState::Sha512(state) => Hash::Sha512(state.finalize().into()),
        })
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn knows_the_empty_blob() {
        assert_eq!(Digest::sha256_of(b"").to_string(), format!("sha256:{EMPTY}"));
        assert_eq!(Digest::of(Algorithm::Sha512, b"").hex().len(), 128);
    }

    #[test]
    fn rejects_invalid_digests() {
        for text in [
            "",
            ":",
            "sha256",
            "sha256:",
            &format!("sha256:{}", &EMPTY[1..]),
            &format!("sha256:{}", EMPTY.to_uppercase()),
            &format!("sha256:{}g", &EMPTY[1..]),
            &format!("sha512:{EMPTY}"),
            &format!("sha256: {}", &EMPTY[1..]),
            &format!("sha256:../{}", &EMPTY[3..]),
        ] {
            assert!(matches!(text.parse::<Digest>(), Err(Error::Digest { .. })), "{text}");
        }
        assert_eq!("md5:abc".parse::<Digest>(), Err(Error::Algorithm { algorithm: "md5".to_owned() }));
    }

    #[test]
    fn blob_path_round_trips() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"x");
            assert_eq!(Digest::from_blob_path(&digest.blob_path()), Some(digest));
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
        assert_eq!(Digest::from_blob_path("blobs/sha256"), None);
        assert_eq!(Digest::from_blob_path(&format!("blobs/sha256/{EMPTY}/x")), None);
        assert_eq!(Digest::from_blob_path(&format!("./blobs/sha256/{EMPTY}")), None);
    }
}
