use std::fmt;

use ::sigstore::crypto::SigningScheme;
use ::sigstore::crypto::signing_key::{SigStoreKeyPair, SigStoreSigner};
use async_trait::async_trait;

use super::Signer;
use crate::error::{Error, Result};
use crate::key::{PublicKey, Scheme};

/// A key of the crate `sigstore` as a signer, for programs that already have one.
///
/// ```
/// use ocikit_sign::{Signer, SigstoreSigner};
/// use sigstore::crypto::SigningScheme;
///
/// let key = SigningScheme::ECDSA_P256_SHA256_ASN1.create_signer()?;
/// let signer = SigstoreSigner::of_signer(key)?;
/// println!("{}", signer.public_key().to_pem());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SigstoreSigner {
    signer: SigStoreSigner,
    scheme: Scheme,
    public_key: PublicKey,
}

impl SigstoreSigner {
    /// Returns a signer for a key pair. The scheme is that of the kind and the length of the key: RSA keys sign with PKCS #1
    /// v1.5, as cosign does.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] if no format of signatures uses such a key.
    pub fn of_key_pair(keys: &SigStoreKeyPair) -> Result<SigstoreSigner> {
        // The length of an RSA key in the scheme is used only to create one.
        const UNUSED_LENGTH: usize = 0;
        let schemes = [
            SigningScheme::ECDSA_P256_SHA256_ASN1,
            SigningScheme::ECDSA_P384_SHA384_ASN1,
            SigningScheme::ECDSA_P521_SHA512_ASN1,
            SigningScheme::ED25519,
            SigningScheme::RSA_PKCS1_SHA256(UNUSED_LENGTH),
        ];
        let signer = schemes.iter().find_map(|scheme| keys.to_sigstore_signer(scheme).ok());
        SigstoreSigner::of_signer(signer.ok_or_else(|| Error::Key(format!("no scheme fits a key of kind {keys}")))?)
    }

    /// Returns a signer for one of that crate, which has a scheme.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] if its public key cannot be used.
    pub fn of_signer(signer: SigStoreSigner) -> Result<SigstoreSigner> {
        let scheme = match &signer {
            SigStoreSigner::ECDSA_P256_SHA256_ASN1(_) => Scheme::EcdsaP256Sha256,
            SigStoreSigner::ECDSA_P384_SHA384_ASN1(_) => Scheme::EcdsaP384Sha384,
            SigStoreSigner::ECDSA_P521_SHA512_ASN1(_) => Scheme::EcdsaP521Sha512,
            SigStoreSigner::ED25519(_) => Scheme::Ed25519,
            SigStoreSigner::RSA_PKCS1_SHA256(_) => Scheme::RsaPkcs1Sha256,
            SigStoreSigner::RSA_PSS_SHA256(_) => Scheme::RsaPssSha256,
        };
        let unusable = |error: ::sigstore::errors::SigstoreError| Error::Key(error.to_string());
        let keys = signer.to_sigstore_keypair().map_err(unusable)?;
        let public_key = PublicKey::from_der(&keys.public_key_to_der().map_err(unusable)?)?;
        Ok(SigstoreSigner { signer, scheme, public_key })
    }
}

impl fmt::Debug for SigstoreSigner {
    /// Omits the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigstoreSigner").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

#[async_trait]
impl Signer for SigstoreSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    async fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>> {
        if scheme != self.scheme {
            return Err(Error::Signer(format!(
                "the key of the crate sigstore signs as {:?}, not as {scheme:?}",
                self.scheme
            )));
        }
        self.signer.sign(message).map_err(|error| Error::Signer(error.to_string()))
    }
}
