//! Signing and verifying container images.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::sync::Arc;
//! use ocikit_image::{CopyOptions, Memory, Root, Sink, testing};
//! use ocikit_sign::{Format, KeyKind, PrivateKey, SignOptions, Trust, VerifyOptions, attach, sign, verify};
//!
//! let memory = Arc::new(Memory::new());
//! let image = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
//! let root = Root::at(memory.clone(), image).await?;
//!
//! let key = PrivateKey::generate(KeyKind::P256)?;
//! let signed = sign(&root, &key, &SignOptions::new(vec![Format::Cosign], jiff::Timestamp::UNIX_EPOCH)).await?;
//! let location: Arc<dyn Sink> = memory;
//! attach(&signed, &location, &CopyOptions::default()).await?;
//!
//! let trusted = Trust::Key { name: "release".to_owned(), key: key.public_key().clone() };
//! let report = verify(&root, &VerifyOptions::new(vec![trusted])).await?;
//! assert!(report.is_complete());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! A [`Policy`] defines which signers the images of each repository require. [`promote`] signs the attestations that
//! BuildKit stored in an index, and [`import_signature`] accepts signatures of other
//! tools.
//!
//! # Guarantees
//!
//! * Bytes are not used before their digest is checked, and signed content is not used before its signature is
//!   verified.
//! * A signature with a part that is not understood is refused.
//! * Private keys and passwords are never printed, and are wiped from memory.
//! * Network requests go to the location of the image and to the services that the caller names, and nowhere else.
//! * The only programs started are those that the caller names: [`CommandSigner`], [`KmsSigner`], [`NotationPlugin`],
//!   [`VerificationPlugin`].

mod algorithm;
mod budget;
mod cosign;
mod created;
mod der;
mod error;
mod format;
mod http;
mod import;
mod key;
mod maker;
mod notation;
mod pki;
mod policy;
mod predicate;
mod promote;
mod redact;
mod refusal;
mod revocation;
mod sign;
mod signatures;
mod signer;
mod sigstore;
mod store;
mod subjects;
mod time;
mod timestamp;
mod trust;
mod verification;
mod verify;

pub use cosign::Predicate;
pub use created::Created;
pub use error::{Error, OtherStatement, PolicyEntry, PolicyFile, Result, expect_digest};
pub use format::{Format, SignInput};
pub use http::{Http, HttpOptions};
pub use import::{ExternalSignature, import_signature};
pub use key::{KeyKind, PrivateKey, PublicKey, Scheme};
pub use maker::Maker;
pub use notation::{
    Chain, Level, NotationOptions, NotationPlugin, NotationTrust, SigningScheme, TrustPolicy, TrustStore,
    VerificationPlugin,
};
pub use ocikit_http::{Document, Identity, Pem, ProxyOptions, RetryOptions, TlsSettings};
pub use pki::Certificate;
pub use policy::{AuthorityFiles, Finding, Policy, PolicyOptions, PolicySigner, ReferrerCheck, SignerFiles, Verdict};
pub use predicate::predicate_type;
pub use promote::{PromoteOptions, promote};
pub use refusal::Refusal;
pub use revocation::RevocationList;
pub use sign::{AttestOptions, SignOptions, SigningMethod, attach, attest, sign, sign_by_plugin};
pub use signer::kms::KmsSigner;
#[cfg(feature = "sigstore")]
pub use signer::sigstore_crate::SigstoreSigner;
pub use signer::{CommandSigner, Signer};
pub use sigstore::{
    CertificateTrust, LogCheck, LogUrl, LogVersion, Pattern, ServiceUrls, SigningConfig, TrustedRoot,
    VerificationMaterial, certify, github_token, github_token_for,
};
pub use store::Signature;
pub use subjects::Depth;
pub use timestamp::{TimestampAuthority, verify_timestamp};
pub use trust::Trust;
pub use verify::{
    Check, Outcome, Proof, Refused, Verified, VerifyOptions, VerifyReport, earlier_signatures, missing_formats, verify,
};
