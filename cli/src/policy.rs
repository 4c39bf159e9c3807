//! Policies: read from a file with the files that it names, and asked before anything is written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use ocikit::{Digest, Location, Platform, Referrers, Repository, Root};
use ocikit_sign::{
    AuthorityFiles, CertificateTrust, Finding, Policy, PolicyOptions, PolicySigner, SignerFiles, Verdict,
};
use serde::Serialize;

use crate::commands::annotate::key_value;
use crate::context::Context;
use crate::coverage::{CellFacts, table};
use crate::failure::{Code, Failure, Result};
use crate::notation::verification_plugins;
use crate::output::Lines;
use crate::quote::quoted;
use crate::{file, keys, sigstore};

/// Whether what is copied is verified first.
#[derive(Debug, Args)]
pub(crate) struct GateArguments {
    /// Copy only what this policy lets through; see `ocikit verify --policy`
    #[arg(long = "verify", value_name = "POLICY")]
    policy: Option<PathBuf>,
    /// The repository by which the policy chooses; that of the source if this is not given
    #[arg(long, value_name = "NAME", requires = "policy")]
    verify_scope: Option<Repository>,
    /// A plugin of notation that is asked about signatures that ask for it; see `ocikit verify --plugin`
    #[arg(long, value_name = "NAME", requires = "policy")]
    verify_plugin: Vec<PathBuf>,
    /// What these plugins are told besides; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, requires = "verify_plugin")]
    verify_plugin_config: Vec<(String, String)>,
    /// Which referrers are copied of an image that the policy lets through: by default those that its signers made or signed
    #[arg(long, value_enum, value_name = "WHICH", requires = "policy", default_value_t = WhichReferrers::Verified)]
    referrers: WhichReferrers,
}

/// The referrers that are copied along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhichReferrers {
    /// Those that the signers of the policy made or signed
    Verified,
    /// All; those that are not verified are named
    All,
    /// None
    None,
}

/// A policy that every image has to pass before it is copied.
#[derive(Debug)]
pub(crate) struct Gate {
    policy: Policy,
    path: PathBuf,
    scope: Option<Repository>,
    referrers: WhichReferrers,
}

impl GateArguments {
    /// Whether there is a policy.
    pub(crate) fn is_given(&self) -> bool {
        self.policy.is_some()
    }

    /// Reads the policy, if there is one.
    pub(crate) async fn gate(&self) -> Result<Option<Gate>> {
        let Some(path) = &self.policy else { return Ok(None) };
        // No program is started for a policy that cannot be read.
        let policy = read(path)?;
        let plugins = verification_plugins(&self.verify_plugin, &self.verify_plugin_config).await?;
        let policy = policy.with_plugins(plugins);
        let (path, scope) = (path.clone(), self.verify_scope.clone());
        Ok(Some(Gate { policy, path, scope, referrers: self.referrers }))
    }
}

impl Gate {
    /// Fails unless the policy lets a root through that was opened at a location. What is copied has to be this root, and
    /// not whatever its name leads to later.
    pub(crate) async fn check(&self, location: &Location, root: &Root) -> Result {
        let options = PolicyOptions::new(scope(self.scope.as_ref(), location), Timestamp::now());
        let verdict = self.policy.check(root, &options).await?;
        match verdict.accept(root) {
            Some(_) => Ok(()),
            None => {
                let Failure { code, message, .. } = failure(location, &verdict);
                let message = format!("{message}, so nothing of it is copied");
                let (path, place) = (self.path.display().to_string(), location.to_string());
                let hint = format!("`ocikit verify --policy {} {}` tells all of it", quoted(&path), quoted(&place));
                Err(Failure::new(code, message).hint(hint))
            }
        }
    }
}

/// The most referrers that are named one by one.
const MAX_NAMED: usize = 20;

impl Gate {
    /// Of the referrers that are to be copied, those that may be. The others are named.
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
            for digest in digests.iter().take(MAX_NAMED) {
                context.output.say(format!("{location}: {what} {digest}"));
            }
            if digests.len() > MAX_NAMED {
                context.output.say(format!("{location}: and {} more", digests.len() - MAX_NAMED));
            }
        };
        name(&check.mixed, "copies signatures of which the policy verifies only some:");
        if self.referrers == WhichReferrers::All {
            name(&check.unverified, "copies a referrer that the policy does not verify:");
            return Ok(wanted);
        }
        name(&check.unverified, "leaves out a referrer that the policy does not verify:");
        Ok(wanted.among(check.verified.into_iter().chain(check.mixed).collect()))
    }
}

/// Reads a policy and the files of its signers, which lie beside it unless it says otherwise.
pub(crate) fn read(path: &Path) -> Result<Policy> {
    let text = String::from_utf8(file::read(path)?);
    let text = text.map_err(|_| Failure::usage(format_args!("{} is not text", path.display())))?;
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
            Ok(PolicySigner::Certificate(Box::new(CertificateTrust {
                name: identity.to_string(),
                identity: identity.clone(),
                issuer: issuer.clone(),
                root,
                log: *log,
                certificate_log: *certificate_log,
                now: Timestamp::now(),
            })))
        }
        _ => Err(Failure::usage("the policy has a signer of a kind that is not known here")),
    }
}

/// The repository by which a policy chooses its rule.
fn scope(given: Option<&Repository>, location: &Location) -> Option<Repository> {
    match (given, location) {
        (Some(given), _) => Some(given.clone()),
        (None, Location::Registry(reference)) => Some(reference.repository().clone()),
        (None, _) => None,
    }
}

#[derive(Serialize)]
struct Facts {
    location: String,
    digest: Digest,
    verified: bool,
    /// The scope of the rule that decided.
    scope: String,
    requirements: Vec<FindingFacts>,
}

#[derive(Serialize)]
struct FindingFacts {
    requirement: usize,
    digest: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attestation: Option<String>,
    threshold: usize,
    counted: usize,
    met: bool,
    signatures: Vec<CellFacts>,
}

impl FindingFacts {
    fn of(finding: &Finding) -> FindingFacts {
        FindingFacts {
            requirement: finding.requirement,
            digest: finding.subject.digest,
            platform: finding.platform.clone(),
            attestation: finding.predicate_type.clone(),
            threshold: finding.threshold,
            counted: finding.counted,
            met: finding.is_met(),
            signatures: finding.checks.iter().map(CellFacts::of).collect(),
        }
    }

    /// A line for the requirement, and one for each signer.
    fn add_to(&self, lines: &mut Lines) {
        let FindingFacts { requirement, digest, threshold, counted, .. } = self;
        let platform = self.platform.as_ref().map_or("-".to_owned(), ToString::to_string);
        let what = self.attestation.as_ref().map(|kind| format!(" {kind}")).unwrap_or_default();
        let met = if self.met { "met" } else { "not met" };
        lines.push(format!("{digest} {platform} requirement {requirement}{what}: {counted} of {threshold}, {met}"));
        lines.append(&table(&self.signatures));
    }
}

/// Asks a policy about a root, and states what it says.
pub(crate) async fn verify(
    context: &Context,
    location: &Location,
    root: &Root,
    policy: &Policy,
    given: Option<&Repository>,
    expect: Option<Digest>,
) -> Result {
    // Whether certificates are valid is a matter of now, whatever the time of a build.
    let options = PolicyOptions { expect, ..PolicyOptions::new(scope(given, location), Timestamp::now()) };
    let verdict = policy.check(root, &options).await?;
    let facts = Facts {
        location: location.to_string(),
        digest: verdict.root,
        verified: verdict.is_met(),
        scope: verdict.scope.clone(),
        requirements: verdict.findings.iter().map(FindingFacts::of).collect(),
    };
    context.output.facts(&facts, || {
        let mut lines = Lines::default();
        facts.requirements.iter().for_each(|finding| finding.add_to(&mut lines));
        lines
    })?;
    match verdict.accept(root) {
        Some(_) => Ok(()),
        None => Err(failure(location, &verdict)),
    }
}

fn failure(location: &Location, verdict: &Verdict) -> Failure {
    let unmet: Vec<_> = verdict.findings.iter().filter(|finding| !finding.is_met()).collect();
    let first = unmet.first().map(|finding| {
        let Finding { requirement, counted, threshold, subject, .. } = finding;
        format!("; first requirement {requirement} on {}, with {counted} of {threshold} signers", subject.digest)
    });
    let message = format!(
        "{location} is not verified: by the rule for `{}`, {} of {} requirements are not met{}",
        verdict.scope,
        unmet.len(),
        verdict.findings.len(),
        first.unwrap_or_default()
    );
    Failure::new(Code::Unverified, message)
        .hint(format_args!("`ocikit referrers {}` lists the signatures", quoted(&location.to_string())))
}
