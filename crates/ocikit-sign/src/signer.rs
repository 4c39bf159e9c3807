pub(crate) mod kms;
pub(crate) mod program;
#[cfg(feature = "sigstore")]
pub(crate) mod sigstore_crate;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_image::process;
use tokio::process::Command;

use crate::error::{Error, Result};
use crate::key::{PrivateKey, PublicKey, Scheme};
use crate::signer::program::{PROGRAM_TIMEOUT, StderrMode};

/// A signer: a key in memory, a program or a service.
#[async_trait]
pub trait Signer: Debug + Send + Sync {
    /// Returns the public key.
    fn public_key(&self) -> &PublicKey;

    /// Signs a message. ECDSA signatures are in ASN.1.
    ///
    /// [`sign`](crate::sign) verifies the result before it is used.
    ///
    /// # Errors
    ///
    /// [`Error::Signer`] if signing fails.
    async fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>>;
}

#[async_trait]
impl Signer for PrivateKey {
    fn public_key(&self) -> &PublicKey {
        PrivateKey::public_key(self)
    }

    async fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>> {
        PrivateKey::sign(self, scheme, message)
    }
}

#[async_trait]
impl<S: Signer + ?Sized> Signer for Arc<S> {
    fn public_key(&self) -> &PublicKey {
        (**self).public_key()
    }

    async fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>> {
        (**self).sign(scheme, message).await
    }
}

/// Signs a message and verifies the signature, so that a signer with a fault or with another key is detected here and
/// not by those who verify.
pub(crate) async fn checked(signer: &dyn Signer, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>> {
    let signature = signer.sign(scheme, message).await?;
    if !signer.public_key().verifies(scheme, message, &signature) {
        return Err(Error::Signer(format!("its response is not a {scheme} signature by the given key")));
    }
    Ok(signature)
}

/// A signing program: it reads the message from standard input and writes the signature, as bytes or in base64, to
/// standard output.
///
/// The environment variable `OCIKIT_SIGNATURE_SCHEME` contains the scheme, as [`Scheme::as_str`] spells it. The
/// program gets neither keys nor secrets.
#[derive(Debug, Clone)]
pub struct CommandSigner {
    program: String,
    arguments: Vec<String>,
    public: PublicKey,
    timeout: Duration,
}

impl CommandSigner {
    /// Creates a signer from a command line. Words are separated by spaces; no shell is involved.
    ///
    /// # Errors
    ///
    /// [`Error::Signer`] if the command line is empty.
    pub fn new(line: &str, public: PublicKey) -> Result<CommandSigner> {
        let mut words = line.split_whitespace().map(str::to_owned);
        let program = words.next().ok_or_else(|| Error::Signer("there is no program".to_owned()))?;
        Ok(CommandSigner { program, arguments: words.collect(), public, timeout: PROGRAM_TIMEOUT })
    }

    async fn run(&self, scheme: Scheme, message: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut command = Command::from(process::command(&self.program));
        command.args(&self.arguments).env("OCIKIT_SIGNATURE_SCHEME", scheme.as_str());
        let response = program::run(command, message, MAX_SIGNATURE_BYTES, StderrMode::Inherit, self.timeout).await?;
        match response.status.success() {
            true => Ok(response.output),
            false => Err(std::io::Error::other(format!("it ended with {}", response.status))),
        }
    }

    /// Sets the timeout of each signature, after which the program is killed. The default is 5 minutes.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> CommandSigner {
        CommandSigner { timeout, ..self }
    }
}

/// The maximum size of a signature, in bytes. RSA of 8192 bits in base64 is smaller.
const MAX_SIGNATURE_BYTES: u64 = 16 << 10;

#[async_trait]
impl Signer for CommandSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    async fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>> {
        let response = self.run(scheme, message).await;
        let response = response.map_err(|error| Error::Signer(format!("{}: {error}", self.program)))?;
        if self.public.verifies(scheme, message, &response) {
            return Ok(response);
        }
        let text = response.trim_ascii();
        STANDARD.decode(text).map_err(|_| {
            Error::Signer(format!("{}: its output is not a {scheme} signature by the given key", self.program))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyKind;

    #[tokio::test]
    async fn wrong_signatures_of_a_program_are_detected() {
        let public = PrivateKey::generate(KeyKind::P256).unwrap().public_key().clone();
        for (line, said) in [
            ("cat", "its output is not a"),
            ("false", "ended with"),
            ("/nonexistent/signer --now", "/nonexistent/signer"),
            ("printf QUJD", "its response is not a"),
        ] {
            let signer = CommandSigner::new(line, public.clone()).unwrap();
            let error = checked(&signer, Scheme::EcdsaP256Sha256, b"\xffmessage").await.unwrap_err();
            assert!(error.to_string().contains(said), "{line}: {error}");
        }
        assert!(CommandSigner::new("  ", public).is_err());
    }
}
