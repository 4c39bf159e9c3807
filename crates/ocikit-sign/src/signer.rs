pub(crate) mod kms;
pub(crate) mod program;

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
use crate::signer::program::{Complaints, PATIENCE};

/// Whoever makes signatures with a key: a key in memory, a program, a service.
#[async_trait]
pub trait Signer: Debug + Send + Sync {
    /// The public half of the key.
    fn public_key(&self) -> &PublicKey;

    /// Signs a message. ECDSA signatures are in ASN.1.
    ///
    /// Callers go through [`sign`](crate::sign), which checks the signature before it is used.
    ///
    /// # Errors
    ///
    /// [`Error::Signer`] if it could not.
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

/// A signature that was checked: a signer that errs, or has another key than it says, is found out here and not by those
/// who verify.
pub(crate) async fn checked(signer: &dyn Signer, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>> {
    let signature = signer.sign(scheme, message).await?;
    if !signer.public_key().verifies(scheme, message, &signature) {
        return Err(Error::Signer(format!("what it returned is no {scheme} signature by the key that was named")));
    }
    Ok(signature)
}

/// A program that signs: it gets the message on standard input and answers with the signature on standard output, as bytes
/// or in base64.
///
/// The variable `OCIKIT_SIGNATURE_SCHEME` tells it the scheme, in the words of [`Scheme::as_str`]. It is given no key and
/// no secret.
#[derive(Debug, Clone)]
pub struct CommandSigner {
    program: String,
    arguments: Vec<String>,
    public: PublicKey,
    patience: Duration,
}

impl CommandSigner {
    /// A signer by a program and its arguments, with words separated by spaces; no shell reads them.
    ///
    /// # Errors
    ///
    /// [`Error::Signer`] if there are no words.
    pub fn new(line: &str, public: PublicKey) -> Result<CommandSigner> {
        let mut words = line.split_whitespace().map(str::to_owned);
        let program = words.next().ok_or_else(|| Error::Signer("there is no program".to_owned()))?;
        Ok(CommandSigner { program, arguments: words.collect(), public, patience: PATIENCE })
    }

    async fn run(&self, scheme: Scheme, message: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut command = Command::from(process::command(&self.program));
        command.args(&self.arguments).env("OCIKIT_SIGNATURE_SCHEME", scheme.as_str());
        let answer = program::run(command, message, LONGEST_ANSWER, Complaints::Shown, self.patience).await?;
        match answer.status.success() {
            true => Ok(answer.output),
            false => Err(std::io::Error::other(format!("it ended with {}", answer.status))),
        }
    }

    /// The same with another limit of time, after which the program is killed. It is five minutes if nobody says so.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> CommandSigner {
        CommandSigner { patience, ..self }
    }
}

/// The longest signature, RSA of 8192 bits in base64, has fewer bytes than this.
const LONGEST_ANSWER: u64 = 16 << 10;

#[async_trait]
impl Signer for CommandSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    async fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>> {
        let answer = self.run(scheme, message).await;
        let answer = answer.map_err(|error| Error::Signer(format!("{}: {error}", self.program)))?;
        if self.public.verifies(scheme, message, &answer) {
            return Ok(answer);
        }
        let text = answer.trim_ascii();
        STANDARD.decode(text).map_err(|_| {
            Error::Signer(format!("{}: its answer is no {scheme} signature by the key that was named", self.program))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyKind;

    #[tokio::test]
    async fn a_program_that_signs_otherwise_is_found_out() {
        let public = PrivateKey::generate(KeyKind::P256).unwrap().public_key().clone();
        for (line, said) in [
            ("cat", "its answer is no"),
            ("false", "ended with"),
            ("/nonexistent/signer --now", "/nonexistent/signer"),
            ("printf QUJD", "what it returned is no"),
        ] {
            let signer = CommandSigner::new(line, public.clone()).unwrap();
            let error = checked(&signer, Scheme::EcdsaP256Sha256, b"\xffmessage").await.unwrap_err();
            assert!(error.to_string().contains(said), "{line}: {error}");
        }
        assert!(CommandSigner::new("  ", public).is_err());
    }
}
