//! Signature policies: reads a policy with the files that it names, and checks images before they are copied.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use ocikit::{Digest, Location, Platform, Referrers, Registry, Repository, Root};
use ocikit_sign::{
    AuthorityFiles, CertificateTrust, Finding, Policy, PolicyOptions, PolicySigner, SignerFiles, Verdict,
};
use serde::Serialize;

use crate::context::Context;
use crate::coverage::{CheckOutput, table};
use crate::failure::{Code, Failure, Result};
use crate::notation::verification_plugins;
use crate::output::Lines;
use crate::quote::quoted;
use crate::values::key_value;
use crate::{file, keys, sigstore};

/// Arguments for verifying images before they are copied.
#[derive(Debug, Args)]
pub(crate) struct GateArguments {
    /// Copy only images that pass this policy; see `ocikit verify --policy`
    #[arg(long = "verify", value_name = "POLICY")]
    policy: Option<PathBuf>,
    /// Select the rule for this repository; default: that of the source
    #[arg(long, value_name = "NAME", requires = "policy", value_parser = repository_of_scope)]
    verify_scope: Option<Repository>,
    /// Use this notation plugin; see `ocikit verify --plugin`
    #[arg(long, value_name = "NAME", requires = "policy")]
    verify_plugin: Vec<PathBuf>,
    /// Pass this configuration to the plugins; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, requires = "verify_plugin")]
    verify_plugin_config: Vec<(String, String)>,
    /// Choose which referrers of a verified image to copy
    #[arg(long, value_enum, value_name = "WHICH", requires = "policy", default_value_t = WhichReferrers::Verified)]
    referrers: WhichReferrers,
}

/// The values of `--referrers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhichReferrers {
    /// Referrers that the signers of the policy made or signed
    Verified,
    /// All referrers; prints the unverified ones
    All,
    /// No referrers
    None,
}

/// A policy that every image has to pass before it is copied.
#[derive(Debug)]
pub(crate) struct Gate {
    policy: Policy,
    path: PathBuf,
    scope: Option<Repository>,
    referrers: WhichReferrers,
    /// What did not happen if an image does not pass.
    consequence: &'static str,
}

/// The number of referrers that are listed by digest; further ones are only counted.
const MAX_LISTED_REFERRERS: usize = 20;

impl GateArguments {
    /// Returns whether a policy is given.
    pub(crate) fn is_given(&self) -> bool {
        self.policy.is_some()
    }

    /// Reads the policy, if one is given.
    pub(crate) async fn gate(&self) -> Result<Option<Gate>> {
        let Some(path) = &self.policy else { return Ok(None) };
        let gate = Gate::of_policy(path, &self.verify_plugin, &self.verify_plugin_config).await?;
        let scope = self.verify_scope.clone();
        Ok(Some(Gate { scope, referrers: self.referrers, consequence: "nothing was copied", ..gate }))
    }
}

impl Gate {
    /// Reads a policy for images that are used and not copied.
    pub(crate) async fn of_policy(path: &Path, plugins: &[PathBuf], config: &[(String, String)]) -> Result<Gate> {
        // The policy is read first, so that no plugin is started for a policy that is not valid.
        let policy = read(path)?;
        let policy = policy.with_plugins(verification_plugins(plugins, config).await?);
        let consequence = "nothing was published";
        Ok(Gate { policy, path: path.to_owned(), scope: None, referrers: WhichReferrers::None, consequence })
    }

    /// Fails unless a root passes the policy. The caller has to copy this root, because its tag may move meanwhile.
    pub(crate) async fn check(&self, location: &Location, root: &Root) -> Result {
        let options = PolicyOptions::new(scope(self.scope.as_ref(), location), Timestamp::now());
        let verdict = self.policy.check(root, &options).await?;
        if verdict.accept(root).is_some() {
            return Ok(());
        }
        let Failure { code, message, .. } = failure(location, &verdict);
        let message = format!("{message}; {}", self.consequence);
        let (path, place) = (self.path.display().to_string(), location.to_string());
        let hint = format!("`ocikit verify --policy {} {}` prints all requirements", quoted(&path), quoted(&place));
        Err(Failure::new(code, message).hint(hint))
    }

    /// Returns the referrers that may be copied, out of those that the command would copy, and prints the others.
    pub(crate) async fn referrers(
        &self,
        context: &Context,
        location: &Location,
        root: &Root,
        wanted: Referrers,
    ) -> Result<Referrers> {
        if wanted.is_none() || self.referrers == WhichReferrers::None {
            return Ok(Referrers::None);
        }
        let options = PolicyOptions::new(scope(self.scope.as_ref(), location), Timestamp::now());
        let check = self.policy.check_referrers(root, &options).await?;
        let name = |digests: &BTreeSet<Digest>, what: &str| {
            for digest in digests.iter().take(MAX_LISTED_REFERRERS) {
                context.output.say(format!("{location}: {what} {digest}"));
            }
            if digests.len() > MAX_LISTED_REFERRERS {
                context.output.say(format!("{location}: and {} more referrers", digests.len() - MAX_LISTED_REFERRERS));
            }
        };
        name(&check.mixed, "copying a manifest of which only some signatures are verified:");
        if self.referrers == WhichReferrers::All {
            name(&check.unverified, "copying a referrer that the policy does not verify:");
            return Ok(wanted);
        }
        name(&check.unverified, "skipping a referrer that the policy does not verify:");
        Ok(wanted.among(check.verified.into_iter().chain(check.mixed).collect()))
    }
}

/// Reads a policy and the files of its signers. Relative paths are relative to the policy.
pub(crate) fn read(path: &Path) -> Result<Policy> {
    let text = file::read_text(path)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut broken = None;
    let policy = Policy::parse(&text, |files| {
        signer(directory, files).map_err(|failure| {
            broken = Some(failure);
            ocikit_sign::Error::Unsupported(String::new())
        })
    });
    match (policy, broken) {
        (_, Some(failure)) => Err(failure),
        (policy, None) => policy.map_err(|error| keys::named(path, error)),
    }
}

fn signer(directory: &Path, files: &SignerFiles) -> Result<PolicySigner> {
    match files {
        SignerFiles::Key(path) => Ok(PolicySigner::Key(keys::public_key(&directory.join(path))?)),
        SignerFiles::Notation { policy, store, lists } => {
            let store = store.as_ref().map(|store| directory.join(store));
            let (policy, store) = keys::trust(&directory.join(policy), store.as_deref())?;
            let lists: Vec<_> = lists.iter().map(|list| directory.join(list)).collect();
            Ok(PolicySigner::Notation { policy, store, lists: keys::revocation_lists(&lists)? })
        }
        SignerFiles::Certificate { identity, issuer, authorities, log, certificate_log } => {
            let root = match authorities {
                AuthorityFiles::Root(root) => sigstore::trusted_root(&directory.join(root))?,
                AuthorityFiles::Own { certificates, timestamps } => {
                    let timestamps = timestamps.as_ref().map(|timestamps| directory.join(timestamps));
                    sigstore::own_root(&directory.join(certificates), timestamps.as_deref())?
                }
            };
            let trust = CertificateTrust::new(identity.clone(), root, Timestamp::now())
                .issuer(issuer.clone())
                .log(*log)
                .certificate_log(*certificate_log);
            Ok(PolicySigner::Certificate(Box::new(trust)))
        }
        _ => Err(Failure::usage("cannot read the policy: it has a signer of an unknown type")),
    }
}

/// Parses the repository that selects the rule of a policy. A registry without a path is not read as an official image of Docker
/// Hub, for which another rule would apply.
pub(crate) fn repository_of_scope(text: &str) -> std::result::Result<Repository, String> {
    if !text.contains('/') && Registry::is_name(text) {
        return Err(format!("`{text}` names no repository; write REGISTRY/REPOSITORY"));
    }
    text.parse().map_err(|error: ocikit::spec::Error| error.to_string())
}

/// Returns the repository that selects the rule of a policy.
fn scope(given: Option<&Repository>, location: &Location) -> Option<Repository> {
    given.or_else(|| Some(location.reference()?.repository())).cloned()
}

#[derive(Serialize)]
struct PolicyOutput {
    location: String,
    digest: Digest,
    verified: bool,
    /// The scope of the selected rule.
    scope: String,
    requirements: Vec<RequirementOutput>,
}

#[derive(Serialize)]
struct RequirementOutput {
    requirement: usize,
    digest: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attestation: Option<String>,
    threshold: usize,
    counted: usize,
    met: bool,
    signatures: Vec<CheckOutput>,
}

impl RequirementOutput {
    fn of(finding: &Finding) -> RequirementOutput {
        RequirementOutput {
            requirement: finding.requirement,
            digest: finding.subject.digest,
            platform: finding.platform.clone(),
            attestation: finding.predicate_type.clone(),
            threshold: finding.threshold,
            counted: finding.counted,
            met: finding.is_met(),
            signatures: finding.checks.iter().map(CheckOutput::of).collect(),
        }
    }

    /// Adds a line for the requirement, and the lines for its signers.
    fn add_to(&self, lines: &mut Lines) {
        let RequirementOutput { requirement, digest, threshold, counted, .. } = self;
        let platform = self.platform.as_ref().map_or("-".to_owned(), ToString::to_string);
        let what = self.attestation.as_ref().map(|kind| format!(" {kind}")).unwrap_or_default();
        let met = if self.met { "met" } else { "not met" };
        lines.push(format!("{digest} {platform} requirement {requirement}{what}: {counted} of {threshold}, {met}"));
        lines.append(&table(&self.signatures));
    }
}

/// Checks a root against a policy, prints the result, and fails if the policy is not met.
pub(crate) async fn verify(
    context: &Context,
    location: &Location,
    root: &Root,
    policy: &Policy,
    given: Option<&Repository>,
    expect: Option<Digest>,
) -> Result {
    // Certificates have to be valid now, so SOURCE_DATE_EPOCH does not apply.
    let options = PolicyOptions::new(scope(given, location), Timestamp::now()).expect(expect);
    let verdict = policy.check(root, &options).await?;
    let result = PolicyOutput {
        location: location.to_string(),
        digest: verdict.root,
        verified: verdict.is_met(),
        scope: verdict.scope.clone(),
        requirements: verdict.findings.iter().map(RequirementOutput::of).collect(),
    };
    context.output.result(&result, || {
        let mut lines = Lines::default();
        result.requirements.iter().for_each(|finding| finding.add_to(&mut lines));
        lines
    })?;
    verdict.accept(root).map(drop).ok_or_else(|| failure(location, &verdict))
}

fn failure(location: &Location, verdict: &Verdict) -> Failure {
    let unmet: Vec<_> = verdict.findings.iter().filter(|finding| !finding.is_met()).collect();
    let first = unmet.first().map(|finding| {
        let Finding { requirement, counted, threshold, subject, .. } = finding;
        format!("; requirement {requirement} has {counted} of {threshold} signers for {}", subject.digest)
    });
    if verdict.findings.is_empty() {
        let message =
            format!("{location} is not verified: it has no image that the rule for `{}` covers", verdict.scope);
        return Failure::new(Code::Unverified, message);
    }
    let message = format!(
        "{location} is not verified: {1} of {2} requirements of the rule for `{0}` are not met{3}",
        verdict.scope,
        unmet.len(),
        verdict.findings.len(),
        first.unwrap_or_default()
    );
    Failure::new(Code::Unverified, message)
        .hint(format_args!("`ocikit referrers {}` lists the signatures", quoted(&location.to_string())))
}
