use std::path::PathBuf;

use clap::Args;
use ocikit::{Digest, Location, Repository};
use ocikit_sign::{Format, SignInput, Trust, VerificationPlugin, VerifyOptions};
use serde::Serialize;

use crate::context::Context;
use crate::coverage::{CheckOutput, not_verified, table};
use crate::failure::{Code, Failure, Result};
use crate::keys::{self, DepthArguments};
use crate::quote::quoted;
use crate::sigstore::CertificateArguments;
use crate::values::key_value;
use crate::{notation, policy};

const EXAMPLES: &str = "\
Examples:
  ocikit verify --key ocikit.pub ghcr.io/acme/app:1
  ocikit verify --key ocikit.pub --attestation slsaprovenance1 app.tar
  ocikit verify --policy policy.yaml ghcr.io/acme/app:1
  ocikit verify --trusted-root root.json --certificate-identity dev@example.com --certificate-oidc-issuer https://issuer.example.com app.tar";

/// Verify the signatures or attestations of an image
///
/// Prints a line for each digest, signer and format, and exits with 5 if a required signature is missing. Contacts only
/// the location of the image: transparency log entries and timestamps are verified as stored, against a trusted root.
/// With --key they are not checked.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    /// Image, index or artifact to verify
    location: Location,
    /// Require a signature by this public key (PEM); repeatable
    ///
    /// NAME://KEY uses the key management plugin sigstore-kms-NAME. With several keys, a signature by each key is required.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["trust_policy", "policy", "certificate_identity", "certificate_identity_regexp"])]
    key: Vec<PathBuf>,
    /// Require the signers that this policy (YAML) lists for the repository
    ///
    /// Replaces the flags for keys, formats and depth.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "trust_policy", "certificate_identity", "certificate_identity_regexp", "trusted_root", "certificate_chain", "format", "attestation", "recursive"])]
    policy: Option<PathBuf>,
    /// Require a signer that this Notary Project trust policy trusts
    #[arg(long, value_name = "FILE")]
    trust_policy: Option<PathBuf>,
    /// Read trust stores here; default: `truststore` next to the policy
    #[arg(long, value_name = "DIR", requires = "trust_policy")]
    trust_store: Option<PathBuf>,
    /// Select the policy of this repository; default: that of the image
    #[arg(long, value_name = "NAME")]
    scope: Option<String>,
    /// Reject certificates on this revocation list (PEM or DER); repeatable
    ///
    /// Revocation lists are not downloaded.
    #[arg(long, value_name = "FILE", requires = "trust_policy")]
    crl: Vec<PathBuf>,
    /// Use this notation plugin for signatures that need one; repeatable
    ///
    /// The name of an installed plugin, or the path of its program. Without the plugin, signatures that require one
    /// fail.
    #[arg(long, value_name = "NAME")]
    plugin: Vec<PathBuf>,
    /// Pass this configuration to the plugins; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, requires = "plugin")]
    plugin_config: Vec<(String, String)>,
    /// Require a signature in this format; repeatable
    ///
    /// With several formats, each of them is required. Without this flag, any format is accepted.
    #[arg(long, value_parser = keys::format_parser(), value_name = "FORMAT")]
    format: Vec<Format>,
    /// Require an attestation of this type; --json prints its predicate
    #[arg(long, value_name = "TYPE", value_parser = ocikit_sign::predicate_type, conflicts_with = "trust_policy")]
    attestation: Option<String>,
    /// Require this repository in cosign-legacy signatures
    #[arg(long, value_name = "NAME", conflicts_with = "policy")]
    signed_as: Option<Repository>,
    #[command(flatten)]
    depth: DepthArguments,
    /// Fail unless the image has this digest
    #[arg(long, value_name = "DIGEST")]
    expect: Option<Digest>,
    #[command(flatten)]
    certificates: CertificateArguments,
}

#[derive(Serialize)]
struct VerifyOutput {
    location: String,
    digest: Digest,
    verified: bool,
    signatures: Vec<CheckOutput>,
}

impl Verify {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        self.check_flags()?;
        let policy = self.policy.as_deref().map(policy::read).transpose()?;
        let session = context.session(&[&location])?;
        let root = session.open(&location).await?;
        if let Some(problem) = session.docker_disagreement(&location).await? {
            let message =
                format!("{location} is not verified: its `manifest.json` differs from its `index.json`: {problem}");
            return Err(Failure::new(Code::Unverified, message)
                .hint(format_args!("`ocikit copy {} new.tar` writes both anew", quoted(&location.to_string()))));
        }
        if let Some(policy) = policy {
            let scope = self.scope.as_deref().map(policy::repository_of_scope).transpose().map_err(Failure::usage)?;
            let policy = policy.with_plugins(self.plugins().await?);
            return policy::verify(context, &location, &root, &policy, scope.as_ref(), self.expect).await;
        }
        let trusted = self.trusted(&location).await?;
        let options = VerifyOptions::new(trusted)
            .formats(self.format.clone())
            .predicate_type(self.attestation.clone())
            .signed_as(self.signed_as.clone())
            .depth(self.depth.depth())
            .expect(self.expect);
        let coverage = ocikit_sign::verify(&root, &options).await?;
        let result = VerifyOutput {
            location: location.to_string(),
            digest: coverage.root,
            verified: coverage.is_complete(),
            signatures: coverage.checks.iter().map(CheckOutput::of).collect(),
        };
        context.output.result(&result, || table(&result.signatures))?;
        match coverage.accept(&root) {
            Some(_) => Ok(()),
            None if self.signed_as.is_some() => Err(not_verified(&location, &coverage)
                .hint("only cosign-legacy signatures name a repository; leave out --signed-as to accept others")),
            None => Err(not_verified(&location, &coverage)),
        }
    }

    /// Fails for a flag that would be ignored.
    fn check_flags(&self) -> Result {
        let has_names = self.format.is_empty() || self.format.iter().any(|format| format.uses(SignInput::Reference));
        if self.signed_as.is_some() && (!has_names || self.attestation.is_some()) {
            return Err(Failure::usage(
                "--signed-as applies to signatures in the format cosign-legacy, which is not selected",
            )
            .hint("leave out --signed-as, or add `--format cosign-legacy`"));
        }
        Ok(())
    }

    async fn plugins(&self) -> Result<Vec<VerificationPlugin>> {
        notation::verification_plugins(&self.plugin, &self.plugin_config).await
    }

    async fn trusted(&self, location: &Location) -> Result<Vec<Trust>> {
        for (name, is_given) in [("--scope", self.scope.is_some()), ("--plugin", !self.plugin.is_empty())] {
            if is_given && self.trust_policy.is_none() {
                return Err(Failure::usage(format_args!("{name} needs --policy or --trust-policy")));
            }
        }
        let mut trusted = Vec::new();
        for path in &self.key {
            trusted.push(Trust::Key { name: path.display().to_string(), key: keys::public_key_of(path).await? });
        }
        if let Some(trust) = self.certificates.trust()? {
            trusted.push(Trust::Certificate(Box::new(trust)));
        }
        if let Some(path) = &self.trust_policy {
            let trust = keys::notation_trust(path, self.trust_store.as_deref(), self.scope.as_deref(), location)?;
            let lists = keys::revocation_lists(&self.crl)?;
            let trust = trust.with_revocation_lists(lists).with_plugins(self.plugins().await?);
            trusted.push(Trust::Notation(trust));
        }
        Ok(trusted)
    }
}
