//! Who made this image: signing and verifying.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::sync::Arc;
//! use ocikit_image::{CopyOptions, Memory, Root, Sink, testing};
//! use ocikit_sign::{Format, KeyKind, PrivateKey, SignOptions, Trust, VerifyOptions, attach, sign, verify};
//!
//! let here = Arc::new(Memory::new());
//! let image = testing::image(&here, 1, &"linux/amd64".parse()?, &[1000]);
//! let root = Root::at(here.clone(), image).await?;
//!
//! let key = PrivateKey::generate(KeyKind::P256)?;
//! let signed = sign(&root, &key, &SignOptions::new(vec![Format::Cosign], jiff::Timestamp::UNIX_EPOCH)).await?;
//! let place: Arc<dyn Sink> = here;
//! attach(&signed, &place, &CopyOptions::default()).await?;
//!
//! let trusted = Trust::Key { name: "release".to_owned(), key: key.public_key().clone() };
//! let coverage = verify(&root, &VerifyOptions::new(vec![trusted])).await?;
//! assert!(coverage.is_complete());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! A [`Policy`] says whose signatures the images of which repositories have to have. [`promote`] signs what BuildKit says of its
//! images, [`adopt`] takes what others signed, and [`signify`] asks a service that signs in its own way.
//!
//! # What this crate never does
//!
//! * It never trusts bytes before their digest was checked, nor what a signature says before the signature was.
//! * It never lets a signature count that has a part which it does not understand.
//! * It never shows a private key or a password, and wipes both from memory.
//! * It never asks a network for anything but the place of the image, and the services that its caller names.
//! * It never starts a program, but for those that its caller names: [`CommandSigner`], [`KmsSigner`],
//!   [`NotationPlugin`], [`VerificationPlugin`].

mod adopt;
mod algorithm;
mod beside;
mod budget;
mod cosign;
mod der;
mod error;
mod format;
mod found;
mod http;
mod key;
mod maker;
mod notation;
mod pki;
mod policy;
mod predicate;
mod promote;
mod refusal;
mod revocation;
mod sign;
mod signer;
pub mod signify;
mod sigstore;
mod subjects;
mod time;
mod timestamp;
mod verify;

pub use adopt::{Foreign, adopt};
pub use cosign::Predicate;
pub use error::{Error, OtherStatement, Result};
pub use format::Format;
pub use http::{Http, HttpAnswer, HttpIdentity, HttpOptions};
pub use key::{KeyKind, PrivateKey, PublicKey, Scheme};
pub use maker::Maker;
pub use notation::{
    Chain, Level, NotationPlugin, NotationTrust, SigningScheme, TrustPolicy, TrustStore, VerificationPlugin,
};
pub use ocikit_image::proxy::ProxyOptions;
pub use pki::Certificate;
pub use policy::{AuthorityFiles, Finding, Policy, PolicyOptions, PolicySigner, ReferrerCheck, SignerFiles, Verdict};
pub use predicate::predicate_type;
pub use promote::{PromoteOptions, promote};
pub use refusal::Refusal;
pub use revocation::RevocationList;
pub use sign::{AttestOptions, NotationOptions, SignOptions, Signature, attach, attest, sign, sign_by_plugin};
pub use signer::kms::KmsSigner;
pub use signer::{CommandSigner, Signer};
pub use sigstore::{
    CertificateTrust, Check, LogUrl, LogVersion, Pattern, ServiceUrls, SigningConfig, TrustedRoot, Vouchers, certify,
    github_token,
};
pub use subjects::Depth;
pub use timestamp::{TimestampAuthority, verify_timestamp};
pub use verify::{Cell, Coverage, Outcome, Proof, Refused, Trust, Verified, VerifyOptions, verify};
