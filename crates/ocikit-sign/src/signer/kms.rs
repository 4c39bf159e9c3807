use std::ffi::OsString;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_image::process;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::algorithm::Hash;
use crate::error::{Error, Result};
use crate::key::{PublicKey, Scheme};
use crate::signer::Signer;
use crate::signer::program::{PROGRAM_TIMEOUT, StderrMode, line, run};

/// A key that a KMS plugin of cosign manages: a program `sigstore-kms-NAME` that implements version 1 of the plugin
/// protocol.
///
/// The program gets the key and the request as arguments, and the message on standard input. It reads its credentials
/// from its environment, which it inherits.
#[derive(Debug, Clone)]
pub struct KmsSigner {
    program: Program,
    public: PublicKey,
}

#[derive(Debug, Clone)]
struct Program {
    name: OsString,
    key: String,
    timeout: Duration,
}

impl KmsSigner {
    /// Returns whether the text has the form `NAME://KEY`.
    pub fn is_reference(text: &str) -> bool {
        parts(text).is_some()
    }

    /// Starts the plugin `sigstore-kms-NAME` on the search path and requests the public key.
    ///
    /// # Errors
    ///
    /// [`Error::Signer`] if the reference is malformed or the plugin fails; [`Error::Key`] if its response is not a
    /// public key.
    pub async fn open(reference: &str) -> Result<KmsSigner> {
        let (name, key) =
            parts(reference).ok_or_else(|| Error::Signer("a plugin and its key are named as NAME://KEY".to_owned()))?;
        KmsSigner::open_program(format!("sigstore-kms-{name}").into(), key).await
    }

    /// Sets the timeout of each request, after which the program is killed. The default is 5 minutes.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> KmsSigner {
        self.program.timeout = timeout;
        self
    }

    async fn open_program(name: OsString, key: &str) -> Result<KmsSigner> {
        let program = Program { name, key: key.to_owned(), timeout: PROGRAM_TIMEOUT };
        // The protocol requires a hash here, which has no effect on this request.
        let response =
            program.ask("publicKey", &json!({"publicKeyOptions": {"rpcOptions": rpc()}}), SHA256, &[]).await?;
        let pem = response.public_key.map(|found| found.public_key_pem).unwrap_or_default();
        let pem = STANDARD.decode(pem).map_err(|_| program.failed("its key is not in base64"))?;
        Ok(KmsSigner { program, public: PublicKey::from_pem(&pem)? })
    }
}

/// Splits a reference into the name of the plugin, which becomes part of a file name, and the key.
fn parts(text: &str) -> Option<(&str, &str)> {
    let (name, key) = text.split_once("://")?;
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    (!name.is_empty() && name.chars().all(is_plain) && !key.is_empty()).then_some((name, key))
}

/// Returns the options that cosign sends by default.
fn rpc() -> Value {
    json!({"keyVersion": "", "remoteVerification": false})
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PluginResponse {
    #[serde(default)]
    error_message: String,
    #[serde(default)]
    public_key: Option<PublicKeyResponse>,
    #[serde(default)]
    sign_message: Option<SignMessageResponse>,
}

#[derive(Deserialize)]
struct PublicKeyResponse {
    #[serde(rename = "publicKeyPEM")]
    public_key_pem: String,
}

#[derive(Deserialize)]
struct SignMessageResponse {
    signature: String,
}

impl Program {
    async fn ask(&self, method: &str, arguments: &Value, hash: u8, input: &[u8]) -> Result<PluginResponse> {
        let request = json!({
            "initOptions": {
                "protocolVersion": PROTOCOL_VERSION,
                "keyResourceID": self.key,
                "hashFunc": hash,
                "rpcOptions": rpc(),
            },
            "methodName": method,
            method: arguments,
        });
        let mut command = Command::from(process::command(&self.name));
        command.args([PROTOCOL_VERSION, &request.to_string()]);
        let response = run(command, input, MAX_RESPONSE_BYTES, StderrMode::Inherit, self.timeout).await;
        let response = response.map_err(|error| self.failed(&error.to_string()))?;
        // The exit status is not checked: plugins report errors in the response and exit with any status.
        let said: PluginResponse = serde_json::from_slice(&response.output)
            .map_err(|error| self.failed(&format!("it ended with {} and no answer: {error}", response.status)))?;
        if said.error_message.is_empty() { Ok(said) } else { Err(self.failed(&said.error_message)) }
    }

    fn failed(&self, why: &str) -> Error {
        Error::Signer(format!("{}: {}", self.name.display(), line(why)))
    }
}

#[async_trait]
impl Signer for KmsSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    async fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>> {
        let hash = match Hash::of_scheme(scheme) {
            Some(Hash::Sha384) => SHA384,
            Some(Hash::Sha512) => SHA512,
            Some(Hash::Sha256) | None => SHA256,
        };
        let options = json!({"signOptions": {"rpcOptions": rpc(), "messageOptions": {"hashFunc": hash}}});
        let response = self.program.ask("signMessage", &options, hash, message).await?;
        let signature = response.sign_message.map(|found| found.signature).unwrap_or_default();
        STANDARD.decode(signature).map_err(|_| self.program.failed("its signature is not in base64"))
    }
}

const PROTOCOL_VERSION: &str = "v1";
/// The maximum size of a response, in bytes. Keys and signatures are smaller.
const MAX_RESPONSE_BYTES: u64 = 64 << 10;
/// Hashes by their numbers in Go's `crypto` package.
const SHA256: u8 = 5;
const SHA384: u8 = 6;
const SHA512: u8 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_names_cannot_be_paths() {
        for (text, found) in [
            ("vault://a/b?c", Some(("vault", "a/b?c"))),
            ("my-hsm://1://2", Some(("my-hsm", "1://2"))),
            ("a/b://c", None),
            ("..://c", None),
            ("://c", None),
            ("a://", None),
            ("cosign.key", None),
        ] {
            assert_eq!(parts(text), found, "{text}");
        }
    }

    #[tokio::test]
    async fn plugins_without_a_response_are_refused() {
        for (program, said) in
            [("true", "no answer"), ("cat", "no answer"), ("sigstore-kms-that-is-not-there", "No such file")]
        {
            let error = KmsSigner::open_program(program.into(), "key").await.unwrap_err();
            assert!(error.to_string().contains(said), "{program}: {error}");
        }
    }
}
