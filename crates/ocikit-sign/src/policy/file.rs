use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use ocikit_spec::Repository;
use serde::Deserialize;

use crate::error::{Error, PolicyEntry, PolicyFile, Result, yaml_problem};
use crate::format::Format;
use crate::key::PublicKey;
use crate::notation::{TrustPolicy, TrustStore, VerificationPlugin};
use crate::policy::scope::Scope;
use crate::predicate::{check_not_reserved, predicate_type};
use crate::revocation::RevocationList;
use crate::sigstore::{CertificateTrust, LogCheck, Pattern};
use crate::subjects::Depth;
use crate::trust::SignerKind;

/// A policy: the signers that images require, by repository. An image without a matching rule is refused.
///
/// ```yaml
/// version: 1
/// signers:
///   release: {key: release.pub}
///   build: {key: build.pub}
///   corp: {trustPolicy: trustpolicy.json, trustStore: truststore}
///   ci: {identity: me@example.com, issuer: "https://accounts.example", trustedRoot: trusted_root.json}
/// rules:                                    # the first rule with a matching scope applies
///   - scope: ghcr.io/acme/*
///     depth: images
///     require:
///       - {signers: [release, build], threshold: 1, formats: [cosign]}
///       - {signers: [build], attestation: slsaprovenance1, depth: leaves}
///   - scope: "*"
///     require: [{signers: [corp]}]
/// ```
///
/// A scope is `*`, a registry with all of its repositories (`ghcr.io` or `ghcr.io/*`), a path and all repositories below it
/// (`ghcr.io/acme/*`), or one repository. As in references, names without a registry are on Docker Hub. A scope that could be
/// either, such as `registry:5000`, is an error.
///
/// A signature in any of the formats is sufficient and every signer counts once. Without a threshold, all signers are
/// required.
///
/// ```
/// # fn main() -> ocikit_sign::Result<()> {
/// use ocikit_sign::{Error, KeyKind, Policy, PolicySigner, PrivateKey, SignerFiles};
///
/// let key = PrivateKey::generate(KeyKind::P256)?;
/// let text = "{version: 1, signers: {a: {key: a.pub}}, rules: [{scope: '*', require: [{signers: [a]}]}]}";
/// let policy = Policy::parse(text, |files| match files {
///     SignerFiles::Key(path) if path.ends_with("a.pub") => Ok(PolicySigner::Key(key.public_key().clone())),
///     _ => Err(Error::Unsupported("another file".to_owned())),
/// })?;
/// // Then call `policy.check(&root, &PolicyOptions::new(repository, now)).await?.accept(&root)`.
/// # drop(policy);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Policy {
    pub(super) signers: BTreeMap<String, PolicySigner>,
    pub(super) plugins: Vec<VerificationPlugin>,
    rules: Vec<Rule>,
}

/// The files that define a signer, with the paths that the policy file has.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SignerFiles {
    /// A public key.
    Key(PathBuf),
    /// A Notary Project trust policy and its trust stores.
    Notation {
        /// The trust policy.
        policy: PathBuf,
        /// The directory of the trust stores, if the policy file names it.
        store: Option<PathBuf>,
        /// Certificate revocation lists.
        lists: Vec<PathBuf>,
    },
    /// The identity in a certificate.
    Certificate {
        /// The mail address, URI or user name.
        identity: Pattern,
        /// The OIDC issuer; optional with a private certificate authority.
        issuer: Option<Pattern>,
        /// The trusted certificate authorities.
        authorities: AuthorityFiles,
        /// Whether a transparency log entry is required.
        log: LogCheck,
        /// Whether a signed certificate timestamp (SCT) is required.
        certificate_log: LogCheck,
    },
}

/// The files with the trusted certificate authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorityFiles {
    /// A sigstore trusted root.
    Root(PathBuf),
    /// Certificate chains of a private authority, ordered from the issuing certificate to the root.
    Own {
        /// The chain of the certificate authority.
        certificates: PathBuf,
        /// The chain of the timestamp authority, if the policy file names one.
        timestamps: Option<PathBuf>,
    },
}

/// A signer of a policy.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PolicySigner {
    /// The owner of this key.
    Key(PublicKey),
    /// Every signer that a Notary Project trust policy trusts.
    Notation {
        /// The trust policy.
        policy: TrustPolicy,
        /// Its trust stores.
        store: TrustStore,
        /// Certificate revocation lists.
        lists: Vec<RevocationList>,
    },
    /// The identity in a certificate. `name` and `now` are replaced: the policy sets them for each check.
    Certificate(Box<CertificateTrust>),
}

/// The requirements for the images of some repositories.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) scope: Scope,
    pub(super) requirements: Vec<Requirement>,
}

/// A number of these signers, each with a signature in one of these formats.
#[derive(Debug, Clone)]
pub(super) struct Requirement {
    pub(super) signers: Vec<String>,
    pub(super) threshold: usize,
    pub(super) formats: Vec<Format>,
    pub(super) predicate_type: Option<String>,
    pub(super) depth: Depth,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PolicyYaml {
    version: u64,
    signers: BTreeMap<String, SignerYaml>,
    rules: Vec<RuleYaml>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SignerYaml {
    key: Option<PathBuf>,
    trust_policy: Option<PathBuf>,
    trust_store: Option<PathBuf>,
    #[serde(default)]
    crl: Vec<PathBuf>,
    identity: Option<String>,
    identity_regexp: Option<String>,
    issuer: Option<String>,
    issuer_regexp: Option<String>,
    trusted_root: Option<PathBuf>,
    certificate_chain: Option<PathBuf>,
    timestamp_certificate_chain: Option<PathBuf>,
    #[serde(default)]
    insecure_ignore_tlog: bool,
    #[serde(default)]
    insecure_ignore_sct: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleYaml {
    scope: String,
    depth: Option<Depth>,
    require: Vec<RequirementYaml>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RequirementYaml {
    signers: Vec<String>,
    threshold: Option<usize>,
    #[serde(default)]
    formats: Vec<String>,
    attestation: Option<String>,
    depth: Option<Depth>,
}

/// The maximum size of a policy file, in bytes.
const MAX_POLICY_BYTES: usize = 1 << 20;
/// The maximum number of signers, of rules, and of requirements of a rule.
const MAX_POLICY_ITEMS: usize = 1000;

impl Policy {
    /// Parses a policy in YAML, or in JSON, which is a subset of YAML. `read` reads the files of a signer.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] if it is malformed, contradictory, or could never be met; errors of `read`.
    pub fn parse<E: From<Error>>(
        text: &str,
        mut read: impl FnMut(&SignerFiles) -> Result<PolicySigner, E>,
    ) -> Result<Policy, E> {
        if text.len() > MAX_POLICY_BYTES {
            return Err(refused(format!("it has more than {MAX_POLICY_BYTES} bytes")).into());
        }
        let file: PolicyYaml = serde_saphyr::from_str(text).map_err(|error| refused(yaml_problem(&error)))?;
        if file.version != 1 {
            return Err(refused(format!("its version is {} and not 1", file.version)).into());
        }
        if file.signers.len() > MAX_POLICY_ITEMS || file.rules.len() > MAX_POLICY_ITEMS {
            return Err(refused(format!("it has more than {MAX_POLICY_ITEMS} signers or rules")).into());
        }
        let mut signers = BTreeMap::new();
        for (name, yaml) in file.signers {
            let files = yaml.files().map_err(|error| error.in_entry(PolicyEntry::Signer(name.clone())))?;
            signers.insert(name, read(&files)?);
        }
        distinct(&signers)?;
        Ok(Policy { rules: rules(file.rules, &signers)?, signers, plugins: Vec::new() })
    }

    /// Adds verification plugins for envelopes that require one. They apply to every trust policy. A policy file
    /// cannot name programs to start.
    #[must_use]
    pub fn with_plugins(self, plugins: Vec<VerificationPlugin>) -> Policy {
        Policy { plugins, ..self }
    }

    /// Returns the rule for an image in this repository, or outside of a repository.
    pub(super) fn rule(&self, repository: Option<&Repository>) -> Result<&Rule> {
        let found = self.rules.iter().find(|rule| rule.scope.fits(repository));
        found.ok_or_else(|| {
            refused(match repository {
                Some(repository) => format!("it has no rule for {repository}"),
                None => "it has no rule for every repository, and the image is in none".to_owned(),
            })
        })
    }
}

fn refused(problem: impl ToString) -> Error {
    Error::policy(PolicyFile::Policy, problem)
}

/// Checks that no key belongs to two signers, which would count twice.
fn distinct(signers: &BTreeMap<String, PolicySigner>) -> Result<()> {
    let mut keys = HashMap::new();
    for (name, signer) in signers {
        let PolicySigner::Key(key) = signer else { continue };
        if let Some(other) = keys.insert(key.identity(), name) {
            return Err(refused(format!("the signers `{other}` and `{name}` have the same key")));
        }
    }
    Ok(())
}

fn rules(yaml_rules: Vec<RuleYaml>, signers: &BTreeMap<String, PolicySigner>) -> Result<Vec<Rule>> {
    let mut rules: Vec<Rule> = Vec::new();
    for yaml in yaml_rules {
        let text = yaml.scope.clone();
        let rule = Rule::of(yaml, signers).map_err(|error| error.in_entry(PolicyEntry::Rule(text.clone())))?;
        if let Some(before) = rules.iter().find(|before| before.scope.covers(&rule.scope)) {
            let problem = format!("it never decides: the rule for `{}` is before it", before.scope);
            return Err(refused(problem).in_entry(PolicyEntry::Rule(text)));
        }
        rules.push(rule);
    }
    if rules.is_empty() { Err(refused("it has no rules".to_owned())) } else { Ok(rules) }
}

impl SignerYaml {
    fn files(self) -> Result<SignerFiles> {
        let issuer = pattern(&self.issuer, &self.issuer_regexp)?;
        let identity = pattern(&self.identity, &self.identity_regexp)?;
        let authorities = match (self.trusted_root, self.certificate_chain, self.timestamp_certificate_chain) {
            (Some(root), None, None) => Some(AuthorityFiles::Root(root)),
            (None, Some(certificates), timestamps) => Some(AuthorityFiles::Own { certificates, timestamps }),
            (None, None, None) => None,
            _ => return Err(refused("it has either a `trustedRoot` or a `certificateChain`")),
        };
        let is_own = matches!(authorities, Some(AuthorityFiles::Own { .. }));
        let ignores = self.insecure_ignore_tlog || self.insecure_ignore_sct;
        let check = |skips: bool| if is_own || skips { LogCheck::Skipped } else { LogCheck::Required };
        match (self.key, self.trust_policy, identity) {
            (Some(key), None, None) if issuer.is_none() && authorities.is_none() && !ignores => {
                match (self.trust_store, self.crl.is_empty()) {
                    (None, true) => Ok(SignerFiles::Key(key)),
                    _ => Err(refused("a `key` has neither a `trustStore` nor a `crl`")),
                }
            }
            (None, Some(policy), None) if issuer.is_none() && authorities.is_none() && !ignores => {
                Ok(SignerFiles::Notation { policy, store: self.trust_store, lists: self.crl })
            }
            (None, None, Some(identity)) if self.trust_store.is_none() && self.crl.is_empty() => {
                let authorities = authorities
                    .ok_or_else(|| refused("an `identity` needs a `trustedRoot`, or a `certificateChain`"))?;
                if is_own && ignores {
                    return Err(refused("a `certificateChain` has no logs to ignore"));
                }
                if !is_own && issuer.is_none() {
                    return Err(refused("an `identity` needs an `issuer`, who has checked it"));
                }
                let (log, certificate_log) = (check(self.insecure_ignore_tlog), check(self.insecure_ignore_sct));
                Ok(SignerFiles::Certificate { identity, issuer, authorities, log, certificate_log })
            }
            _ => Err(refused("it has one of `key`, `trustPolicy` and `identity`, and what belongs to that")),
        }
    }
}

/// Returns a pattern from the exact or the regular expression field.
fn pattern(exact: &Option<String>, expression: &Option<String>) -> Result<Option<Pattern>> {
    match (exact, expression) {
        (Some(_), Some(_)) => Err(refused("it has both an exact value and a regular expression")),
        (Some(exact), None) => Ok(Some(Pattern::Exact(exact.clone()))),
        (None, Some(expression)) => Pattern::matching(expression).map(Some).map_err(refused),
        (None, None) => Ok(None),
    }
}

impl PolicySigner {
    fn kind(&self) -> SignerKind {
        match self {
            PolicySigner::Key(_) => SignerKind::Key,
            PolicySigner::Certificate(_) => SignerKind::Certificate,
            PolicySigner::Notation { .. } => SignerKind::Notation,
        }
    }
}

impl Rule {
    fn of(yaml: RuleYaml, signers: &BTreeMap<String, PolicySigner>) -> Result<Rule> {
        if yaml.require.is_empty() || yaml.require.len() > MAX_POLICY_ITEMS {
            return Err(refused(format!("it has no requirements, or more than {MAX_POLICY_ITEMS}")));
        }
        let depth = yaml.depth.unwrap_or_default();
        let requirements = yaml.require.into_iter().map(|yaml| Requirement::of(yaml, depth, signers));
        Ok(Rule { scope: Scope::parse(&yaml.scope)?, requirements: requirements.collect::<Result<_>>()? })
    }
}

impl Requirement {
    fn of(yaml: RequirementYaml, depth: Depth, signers: &BTreeMap<String, PolicySigner>) -> Result<Requirement> {
        let mut named: Vec<&PolicySigner> = Vec::new();
        for (position, name) in yaml.signers.iter().enumerate() {
            named.push(signers.get(name).ok_or_else(|| refused(format!("there is no signer `{name}`")))?);
            if yaml.signers[..position].contains(name) {
                return Err(refused(format!("the signer `{name}` is named twice")));
            }
        }
        let threshold = yaml.threshold.unwrap_or(named.len());
        if threshold == 0 || threshold > named.len() {
            return Err(refused(format!("a threshold of {threshold} with {} signers is not possible", named.len())));
        }
        let formats = yaml.formats.iter().map(|text| text.parse::<Format>().map_err(refused));
        let mut formats: Vec<_> = formats.collect::<Result<_>>()?;
        let predicate_type = yaml.attestation.as_deref().map(predicate_type).transpose().map_err(refused)?;
        if let Some(predicate_type) = &predicate_type {
            check_not_reserved(predicate_type).map_err(refused)?;
            Format::check_attestations(&formats).map_err(refused)?;
        }
        if formats.is_empty() {
            formats = if predicate_type.is_some() { Format::of_attestations() } else { Format::ALL.to_vec() };
        }
        let is_able =
            |signer: &PolicySigner| Format::of_signers(signer.kind()).iter().any(|format| formats.contains(format));
        if let Some((name, _)) = yaml.signers.iter().zip(&named).find(|(_, signer)| !is_able(signer)) {
            return Err(refused(format!("the signer `{name}` does not support the required formats")));
        }
        let depth = yaml.depth.unwrap_or(depth);
        Ok(Requirement { signers: yaml.signers, threshold, formats, predicate_type, depth })
    }
}

#[cfg(test)]
mod tests;
