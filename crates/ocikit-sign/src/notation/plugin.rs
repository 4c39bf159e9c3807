use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_image::process;
use ocikit_spec::Annotations;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::error::{Error, Result};
use crate::key::Scheme;
use crate::notation::attributes::{self, Opened, PAYLOAD_TYPE, PluginRequest, SigningScheme};
use crate::notation::chain::Chain;
use crate::pki::Certificate;
use crate::refusal::Refusal;
use crate::signer::program::{PROGRAM_TIMEOUT, StderrMode, line, run};
use crate::time::seconds;

/// A signing plugin of notation: a program `notation-NAME` that implements version 1.0 of the plugin protocol and has
/// its own certificates. Notary Project, "Plugin Extensibility".
///
/// The program gets a command as its only argument and a JSON request on standard input. Its signatures are verified
/// before they are used.
#[derive(Debug, Clone)]
pub struct NotationPlugin {
    program: Program,
    key: String,
    can: Capability,
}

#[derive(Clone)]
struct Program {
    path: PathBuf,
    config: BTreeMap<String, String>,
    timeout: Duration,
}

/// Shows the keys of the configuration, because its values may be secret.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("path", &self.path).field("config", &self.config.keys()).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Capability {
    /// It signs bytes with this scheme.
    Raw(Scheme),
    /// It creates whole envelopes.
    Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    version: String,
    supported_contract_versions: Vec<String>,
    capabilities: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescribeKeyResponse {
    key_id: String,
    key_spec: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GenerateSignatureResponse {
    key_id: String,
    signature: String,
    signing_algorithm: String,
    certificate_chain: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GenerateEnvelopeResponse {
    signature_envelope: String,
    signature_envelope_type: String,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorResponse {
    error_code: String,
    #[serde(default)]
    error_message: String,
}

impl NotationPlugin {
    /// Starts a plugin and requests its capabilities and the kind of a key.
    ///
    /// # Errors
    ///
    /// [`Error::Signer`] if the response is invalid, or the plugin cannot sign.
    pub async fn open(path: &Path, key: &str, config: BTreeMap<String, String>) -> Result<NotationPlugin> {
        let (program, found) = Program::open(path, config).await?;
        let can = if found.has("SIGNATURE_GENERATOR.RAW") {
            let request = json!({"contractVersion": PROTOCOL_VERSION, "keyId": key});
            let described: DescribeKeyResponse = program.ask("describe-key", request).await?;
            if described.key_id != key {
                return Err(program.failed("it describes another key"));
            }
            let scheme = SCHEMES.iter().find(|(_, spec, ..)| *spec == described.key_spec);
            let refuse = || program.failed(&format!("keys of kind {} are not supported", described.key_spec));
            Capability::Raw(scheme.ok_or_else(refuse)?.0)
        } else if found.has("SIGNATURE_GENERATOR.ENVELOPE") {
            Capability::Envelope
        } else {
            return Err(program.failed("it does not sign"));
        };
        Ok(NotationPlugin { program, key: key.to_owned(), can })
    }

    /// Sets the timeout of each request, after which the program is killed. The default is 5 minutes.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> NotationPlugin {
        self.program.timeout = timeout;
        self
    }

    /// Returns the scheme in which it signs; `None` if it creates envelopes.
    pub(crate) fn scheme(&self) -> Option<Scheme> {
        match self.can {
            Capability::Raw(scheme) => Some(scheme),
            Capability::Envelope => None,
        }
    }

    /// Signs a message. Returns the signature in the encoding of JOSE and COSE and the certificate chain, whose key
    /// verifies it.
    pub(crate) async fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<(Vec<u8>, Chain)> {
        let words = SCHEMES.iter().find(|(known, ..)| *known == scheme);
        let (_, spec, hash, algorithm) =
            words.ok_or_else(|| self.program.failed(&format!("it does not sign with {scheme}")))?;
        let request = json!({"contractVersion": PROTOCOL_VERSION, "keyId": self.key, "keySpec": spec, "hashAlgorithm": hash,
            "payload": STANDARD.encode(message)});
        let signed: GenerateSignatureResponse = self.program.ask("generate-signature", request).await?;
        if signed.key_id != self.key || signed.signing_algorithm != *algorithm {
            return Err(self.program.failed("it signed with another key, or otherwise"));
        }
        let ders = signed.certificate_chain.iter().map(|text| self.decoded(text));
        let certificates = ders.map(|der| Certificate::from_der(&der?)).collect::<Result<_>>()?;
        let (signature, chain) = (self.decoded(&signed.signature)?, Chain::new(certificates)?);
        match chain.scheme() == Some(scheme) && attributes::verifies(chain.public_key(), scheme, message, &signature) {
            true => Ok((signature, chain)),
            false => Err(self.program.failed("its signature does not match its certificate")),
        }
    }

    /// Requests an envelope for a payload. Returns the envelope, not verified, and annotations for its manifest.
    pub(crate) async fn envelope(
        &self,
        envelope_type: &str,
        payload: &[u8],
        expiry: Option<Duration>,
    ) -> Result<(Vec<u8>, Annotations)> {
        let mut request = json!({"contractVersion": PROTOCOL_VERSION, "keyId": self.key, "payloadType": PAYLOAD_TYPE,
            "signatureEnvelopeType": envelope_type, "payload": STANDARD.encode(payload)});
        if let Some(expiry) = expiry {
            request["expiryDurationInSeconds"] = expiry.as_secs().into();
        }
        let made: GenerateEnvelopeResponse = self.program.ask("generate-envelope", request).await?;
        match made.signature_envelope_type == envelope_type {
            true => Ok((self.decoded(&made.signature_envelope)?, made.annotations)),
            false => Err(self.program.failed("it made an envelope of another type")),
        }
    }

    fn decoded(&self, text: &str) -> Result<Vec<u8>> {
        STANDARD.decode(text).map_err(|_| self.program.failed("its response is not in base64"))
    }
}

/// A verification plugin of notation, which checks who may sign, whether certificates are revoked, or both. It is
/// started only for envelopes that name it, whose signature is verified and whose certificates are in a trust store.
#[derive(Debug, Clone)]
pub struct VerificationPlugin {
    program: Program,
    name: String,
    version: [u64; 3],
    knows_identities: bool,
    knows_revocation: bool,
}

/// The results of a plugin; `None` for a check that the plugin does not support or that was not requested.
#[derive(Debug, Clone, Default)]
pub(crate) struct PluginVerdict {
    pub(crate) identity: Option<Result<(), Refusal>>,
    pub(crate) revocation: Option<Result<(), Refusal>>,
}

impl VerificationPlugin {
    /// Starts a plugin and requests its capabilities.
    ///
    /// # Errors
    ///
    /// [`Error::Signer`] if the response is invalid, or the plugin cannot verify.
    pub async fn open(path: &Path, config: BTreeMap<String, String>) -> Result<VerificationPlugin> {
        let (program, found) = Program::open(path, config).await?;
        let [knows_identities, knows_revocation] = [IDENTITY, REVOCATION].map(|capability| found.has(capability));
        if !knows_identities && !knows_revocation {
            return Err(program.failed("it does not verify"));
        }
        let version = version(&found.version).ok_or_else(|| program.failed("its version is malformed"))?;
        Ok(VerificationPlugin { program, name: found.name, version, knows_identities, knows_revocation })
    }

    /// Returns the name that envelopes use for it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Requests the verification of an envelope with the identities of a trust policy and, if `revocation` is set, a
    /// revocation check.
    pub(crate) async fn verify(
        &self,
        opened: &Opened,
        extended: &PluginRequest,
        identities: &[String],
        revocation: bool,
    ) -> Result<PluginVerdict, Refusal> {
        let refuse = |why: String| Refusal::Plugin { name: self.name.clone(), why };
        if let Some(least) = &extended.version
            && version(least).is_none_or(|least| self.version < least)
        {
            return Err(refuse(format!("it is not of version {least} or later")));
        }
        let wanted = [(IDENTITY, self.knows_identities), (REVOCATION, self.knows_revocation && revocation)];
        let wanted: Vec<_> =
            wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(capability, _)| capability).collect();
        let certificates = opened.chain.certificates().iter();
        let chain: Vec<_> = certificates.map(|certificate| STANDARD.encode(certificate.to_der())).collect();
        let names: Vec<_> = extended.others.keys().collect();
        let mut critical = json!({"contentType": PAYLOAD_TYPE, "signingScheme": opened.said.scheme.as_str(),
            "extendedAttributes": extended.others});
        if let Some(expiry) = opened.said.expiry {
            critical["expiry"] = seconds(expiry).into();
        }
        if opened.said.scheme == SigningScheme::SigningAuthority {
            critical["authenticSigningTime"] = seconds(opened.said.time).into();
        }
        let request = json!({"contractVersion": PROTOCOL_VERSION, "signature": {"criticalAttributes": critical,
            "unprocessedAttributes": names, "certificateChain": chain},
            "trustPolicy": {"trustedIdentities": identities, "signatureVerification": wanted}});
        let response: VerifySignatureResponse = match wanted.is_empty() {
            true => VerifySignatureResponse::default(),
            false => self.program.ask("verify-signature", request).await.map_err(|error| refuse(error.to_string()))?,
        };
        let is_processed = |name: &String| response.processed_attributes.iter().any(|found| found == name.as_str());
        if let Some(name) = extended.others.keys().find(|name| !is_processed(name)) {
            return Err(refuse(format!("it did not process the critical attribute {name}")));
        }
        let mut verdict = PluginVerdict::default();
        for capability in wanted {
            let found = response.verification_results.get(capability);
            let found = found.ok_or_else(|| refuse(format!("its response has no result for {capability}")))?;
            let outcome = if found.success { Ok(()) } else { Err(refuse(line(&found.reason))) };
            match capability {
                IDENTITY => verdict.identity = Some(outcome),
                _ => verdict.revocation = Some(outcome),
            }
        }
        Ok(verdict)
    }
}

/// Parses `MAJOR.MINOR.PATCH`. Pre-release and build versions are not supported.
fn version(text: &str) -> Option<[u64; 3]> {
    let numbers: Option<Vec<u64>> = text.split('.').map(|part| part.parse().ok()).collect();
    numbers?.try_into().ok()
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct VerifySignatureResponse {
    verification_results: BTreeMap<String, VerificationResult>,
    #[serde(default)]
    processed_attributes: Vec<Value>,
}

#[derive(Deserialize)]
struct VerificationResult {
    success: bool,
    #[serde(default)]
    reason: String,
}

impl Metadata {
    fn has(&self, wanted: &str) -> bool {
        self.capabilities.iter().any(|capability| capability == wanted)
    }
}

impl Program {
    /// Starts a program and returns it with its metadata.
    async fn open(path: &Path, config: BTreeMap<String, String>) -> Result<(Program, Metadata)> {
        let program = Program { path: path.to_owned(), config, timeout: PROGRAM_TIMEOUT };
        let found: Metadata = program.ask("get-plugin-metadata", json!({})).await?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.strip_suffix(".exe").unwrap_or(name);
        if name.strip_prefix("notation-") != Some(&found.name) {
            return Err(program.failed(&format!("it says that it is `{}`, and would be notation-{0} then", found.name)));
        }
        if !found.supported_contract_versions.iter().any(|version| version == PROTOCOL_VERSION) {
            return Err(program.failed(&format!("it does not know version {PROTOCOL_VERSION} of the protocol")));
        }
        Ok((program, found))
    }

    async fn ask<T: DeserializeOwned>(&self, what: &str, mut request: Value) -> Result<T> {
        if !self.config.is_empty() {
            request["pluginConfig"] = json!(self.config);
        }
        let mut command = Command::from(process::command(&self.path));
        command.arg(what);
        let input = request.to_string();
        let response = run(command, input.as_bytes(), MAX_RESPONSE_BYTES, StderrMode::Capture, self.timeout).await;
        let response = response.map_err(|error| self.failed(&format!("{what}: {error}")))?;
        if !response.status.success() {
            let why = match serde_json::from_slice(&response.stderr) {
                Ok(ErrorResponse { error_code, error_message }) => format!("{error_code} {error_message}"),
                Err(_) => format!("it ended with {} {}", response.status, String::from_utf8_lossy(&response.stderr)),
            };
            return Err(self.failed(&format!("{what}: {why}")));
        }
        serde_json::from_slice(&response.output)
            .map_err(|error| self.failed(&format!("{what}: its response is malformed: {error}")))
    }

    fn failed(&self, why: &str) -> Error {
        Error::Signer(format!("{}: {}", self.path.display(), line(why)))
    }
}

const PROTOCOL_VERSION: &str = "1.0";
const IDENTITY: &str = "SIGNATURE_VERIFIER.TRUSTED_IDENTITY";
const REVOCATION: &str = "SIGNATURE_VERIFIER.REVOCATION_CHECK";
/// The maximum size of a response, in bytes. Envelopes in base64 are smaller.
const MAX_RESPONSE_BYTES: u64 = 4 << 20;
/// Schemes with the names that the protocol has for their key, hash and signature algorithm.
const SCHEMES: [(Scheme, &str, &str, &str); 6] = [
    (Scheme::EcdsaP256Sha256, "EC-256", "SHA-256", "ECDSA-SHA-256"),
    (Scheme::EcdsaP384Sha384, "EC-384", "SHA-384", "ECDSA-SHA-384"),
    (Scheme::EcdsaP521Sha512, "EC-521", "SHA-512", "ECDSA-SHA-512"),
    (Scheme::RsaPssSha256, "RSA-2048", "SHA-256", "RSASSA-PSS-SHA-256"),
    (Scheme::RsaPssSha384, "RSA-3072", "SHA-384", "RSASSA-PSS-SHA-384"),
    (Scheme::RsaPssSha512, "RSA-4096", "SHA-512", "RSASSA-PSS-SHA-512"),
];
