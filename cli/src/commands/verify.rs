use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use ocikit::{Digest, Location, Repository};
use ocikit_sign::{NotationTrust, Outcome, Trust, VerificationPlugin, VerifyOptions, VerifyReport};
use serde::Serialize;

use super::annotate::key_value;
use crate::context::Context;
use crate::coverage::{CellFacts, table};
use crate::failure::{Code, Failure, Result};
use crate::keys::{self, DepthArguments, FormatName};
use crate::quote::quoted;
use crate::sigstore::CertificateArguments;
use crate::{notation, policy};

/// Check who signed an image, an index or an artifact
///
/// Prints a line for each digest, signer and format that is asked for, and ends with 5 if a signature is missing. Nothing
/// but the place of the image is asked: entries in transparency logs and timestamps are checked as they were stored, against a
/// trusted root, and beside a signature by a key that is given they are not looked at.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The image
    location: Location,
    /// A public key (PEM), or NAME://KEY of a plugin of cosign, whose signature has to be there; may be repeated, and then each
    /// of them has to have signed
    #[arg(long, value_name = "FILE", required_unless_present_any = ["trust_policy", "policy", "certificate_identity", "certificate_identity_regexp"])]
    key: Vec<PathBuf>,
    /// A policy in YAML: signers, and how many of them have to have signed what in which repositories; it says all that the
    /// flags for keys, formats and depth say
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "trust_policy", "certificate_identity", "certificate_identity_regexp", "trusted_root", "certificate_chain", "format", "attestation", "recursive"])]
    policy: Option<PathBuf>,
    /// A trust policy of the Notary Project, as notation has it; somebody whom it trusts has to have signed
    #[arg(long, value_name = "FILE")]
    trust_policy: Option<PathBuf>,
    /// The trust stores that it names, as notation has them; `truststore` beside it if this is not given
    #[arg(long, value_name = "DIR", requires = "trust_policy")]
    trust_store: Option<PathBuf>,
    /// The repository by which the policy chooses; that of the image if this is not given
    #[arg(long, value_name = "NAME")]
    scope: Option<String>,
    /// A list of revoked certificates (PEM or DER) of one of the issuers; may be repeated. They are not looked for elsewhere
    #[arg(long, value_name = "FILE", requires = "trust_policy")]
    crl: Vec<PathBuf>,
    /// A plugin of notation that is asked about signatures that ask for it: the name of one that notation has installed, or the path
    /// of the program; may be repeated. Without it they do not count
    #[arg(long, value_name = "NAME")]
    plugin: Vec<PathBuf>,
    /// What these plugins are told besides; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, requires = "plugin")]
    plugin_config: Vec<(String, String)>,
    /// A form in which there has to be a signature; may be repeated, and then each is asked for. Any one will do if this is
    /// not given
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Vec<FormatName>,
    /// Ask for an attestation of this type instead of a plain signature; --json prints what it says
    #[arg(long, value_name = "TYPE", value_parser = ocikit_sign::predicate_type, conflicts_with = "trust_policy")]
    attestation: Option<String>,
    /// The repository under which a signature in the form cosign-legacy has to have been made; the others name none
    #[arg(long, value_name = "NAME", conflicts_with = "policy")]
    signed_as: Option<Repository>,
    #[command(flatten)]
    depth: DepthArguments,
    /// The image has to have this digest
    #[arg(long, value_name = "DIGEST")]
    expect: Option<Digest>,
    #[command(flatten)]
    certificates: CertificateArguments,
}

#[derive(Serialize)]
struct Facts {
    location: String,
    digest: Digest,
    verified: bool,
    signatures: Vec<CellFacts>,
}

impl Verify {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        self.check_flags()?;
        let policy = self.policy.as_deref().map(policy::read).transpose()?;
        let root = context.session(&[&location])?.open(&location).await?;
        if let Some(policy) = policy {
            let scope = self.scope.as_ref().map(|scope| scope.parse()).transpose()?;
            let policy = policy.with_plugins(self.plugins().await?);
            return policy::verify(context, &location, &root, &policy, scope.as_ref(), self.expect).await;
        }
        let trusted = self.trusted(&location).await?;
        let options = VerifyOptions {
            formats: self.format.iter().map(|name| name.format()).collect(),
            predicate_type: self.attestation.clone(),
            signed_as: self.signed_as.clone(),
            depth: self.depth.depth(),
            expect: self.expect,
            ..VerifyOptions::new(trusted)
        };
        let coverage = ocikit_sign::verify(&root, &options).await?;
        let facts = Facts {
            location: location.to_string(),
            digest: coverage.root,
            verified: coverage.is_complete(),
            signatures: coverage.checks.iter().map(CellFacts::of).collect(),
        };
        context.output.facts(&facts, || table(&facts.signatures))?;
        match coverage.accept(&root) {
            Some(_) => Ok(()),
            None => Err(failure(&location, &coverage)),
        }
    }

    /// Refuses a flag that nothing would look at.
    fn check_flags(&self) -> Result {
        let has_legacy = self.format.is_empty() || self.format.contains(&FormatName::CosignLegacy);
        if self.signed_as.is_some() && (!has_legacy || self.attestation.is_some()) {
            return Err(Failure::usage(
                "--signed-as is for signatures in the format cosign-legacy, which are not asked for",
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
                return Err(Failure::usage(format_args!("{name} goes with --policy or --trust-policy")));
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
            let (policy, store) = keys::trust(path, self.trust_store.as_deref())?;
            let scope = self.scope.clone().unwrap_or_else(|| keys::repository(location));
            // Whether certificates are valid is a matter of now, whatever the time of a build.
            let trust = NotationTrust::new(&policy, &store, &scope, Timestamp::now())?;
            let lists = keys::revocation_lists(&self.crl)?;
            let trust = trust.with_revocation_lists(lists).with_plugins(self.plugins().await?);
            trusted.push(Trust::Notation(trust));
        }
        Ok(trusted)
    }
}

fn failure(location: &Location, coverage: &VerifyReport) -> Failure {
    let missing = coverage.checks.iter().filter(|cell| cell.outcome.is_failure()).count();
    let all = coverage.checks.len();
    let message = format!("{location} is not verified: {missing} of {all} signatures that were asked for are missing");
    let not_understood = coverage.checks.iter().find_map(|cell| match &cell.outcome {
        Outcome::NotUnderstood(why) => Some((cell.subject.digest, why)),
        _ => None,
    });
    if let Some((digest, why)) = not_understood {
        let message = format!("{message}; {digest} is not understood: {}", why);
        return Failure::new(Code::Unverified, message);
    }
    Failure::new(Code::Unverified, message)
        .hint(format_args!("`ocikit referrers {}` lists the signatures", quoted(&location.to_string())))
}
