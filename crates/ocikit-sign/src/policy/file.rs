use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use ocikit_spec::Repository;
use serde::Deserialize;

use crate::error::{Error, Result};
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
        /// The OIDC issuer; optional with a certificate chain of one's own.
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
    depth: Option<DepthYaml>,
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
    depth: Option<DepthYaml>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "camelCase")]
enum DepthYaml {
    Root,
    Images,
    Leaves,
    Everything,
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
        let file: PolicyYaml = serde_saphyr::from_str(text).map_err(|error| refused(error.to_string()))?;
        if file.version != 1 {
            return Err(refused(format!("its version is {} and not 1", file.version)).into());
        }
        if file.signers.len() > MAX_POLICY_ITEMS || file.rules.len() > MAX_POLICY_ITEMS {
            return Err(refused(format!("it has more than {MAX_POLICY_ITEMS} signers or rules")).into());
        }
        let mut signers = BTreeMap::new();
        for (name, yaml) in file.signers {
            let files = yaml.files().map_err(|why| refused(format!("the signer `{name}`: {why}")))?;
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

fn refused(problem: String) -> Error {
    Error::Policy { what: "the policy".to_owned(), problem }
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
        let rule = Rule::of(yaml, signers).map_err(|why| refused(format!("the rule for `{text}`: {why}")))?;
        if let Some(before) = rules.iter().find(|before| before.scope.covers(&rule.scope)) {
            return Err(refused(format!(
                "the rule for `{text}` never decides: one for `{}` is before it",
                before.scope
            )));
        }
        rules.push(rule);
    }
    match rules.is_empty() {
        true => Err(refused("it has no rules".to_owned())),
        false => Ok(rules),
    }
}

impl SignerYaml {
    fn files(self) -> Result<SignerFiles, String> {
        let issuer = pattern(&self.issuer, &self.issuer_regexp)?;
        let identity = pattern(&self.identity, &self.identity_regexp)?;
        let authorities = match (self.trusted_root, self.certificate_chain, self.timestamp_certificate_chain) {
            (Some(root), None, None) => Some(AuthorityFiles::Root(root)),
            (None, Some(certificates), timestamps) => Some(AuthorityFiles::Own { certificates, timestamps }),
            (None, None, None) => None,
            _ => return Err("it has either a `trustedRoot` or a `certificateChain`".to_owned()),
        };
        let is_own = matches!(authorities, Some(AuthorityFiles::Own { .. }));
        let ignores = self.insecure_ignore_tlog || self.insecure_ignore_sct;
        let check = |skips: bool| if is_own || skips { LogCheck::Skipped } else { LogCheck::Required };
        match (self.key, self.trust_policy, identity) {
            (Some(key), None, None) if issuer.is_none() && authorities.is_none() && !ignores => {
                match (self.trust_store, self.crl.is_empty()) {
                    (None, true) => Ok(SignerFiles::Key(key)),
                    _ => Err("a `key` has neither a `trustStore` nor a `crl`".to_owned()),
                }
            }
            (None, Some(policy), None) if issuer.is_none() && authorities.is_none() && !ignores => {
                Ok(SignerFiles::Notation { policy, store: self.trust_store, lists: self.crl })
            }
            (None, None, Some(identity)) if self.trust_store.is_none() && self.crl.is_empty() => {
                let authorities = authorities.ok_or("an `identity` needs a `trustedRoot`, or a `certificateChain`")?;
                if is_own && ignores {
                    return Err("a `certificateChain` has no logs to ignore".to_owned());
                }
                if !is_own && issuer.is_none() {
                    return Err("an `identity` needs an `issuer`, who has checked it".to_owned());
                }
                let (log, certificate_log) = (check(self.insecure_ignore_tlog), check(self.insecure_ignore_sct));
                Ok(SignerFiles::Certificate { identity, issuer, authorities, log, certificate_log })
            }
            _ => Err("it has one of `key`, `trustPolicy` and `identity`, and what belongs to that".to_owned()),
        }
    }
}

/// Returns a pattern from the exact or the regular expression field.
fn pattern(exact: &Option<String>, expression: &Option<String>) -> Result<Option<Pattern>, String> {
    match (exact, expression) {
        (Some(_), Some(_)) => Err("it has both an exact value and a regular expression".to_owned()),
        (Some(exact), None) => Ok(Some(Pattern::Exact(exact.clone()))),
        (None, Some(expression)) => Pattern::matching(expression).map(Some).map_err(|error| error.to_string()),
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
    fn of(yaml: RuleYaml, signers: &BTreeMap<String, PolicySigner>) -> Result<Rule, String> {
        if yaml.require.is_empty() || yaml.require.len() > MAX_POLICY_ITEMS {
            return Err(format!("it has no requirements, or more than {MAX_POLICY_ITEMS}"));
        }
        let depth = yaml.depth.unwrap_or(DepthYaml::Root);
        let requirements = yaml.require.into_iter().map(|yaml| Requirement::of(yaml, depth, signers));
        Ok(Rule { scope: Scope::parse(&yaml.scope)?, requirements: requirements.collect::<Result<_, _>>()? })
    }
}

impl Requirement {
    fn of(
        yaml: RequirementYaml,
        depth: DepthYaml,
        signers: &BTreeMap<String, PolicySigner>,
    ) -> Result<Requirement, String> {
        let mut named: Vec<&PolicySigner> = Vec::new();
        for (position, name) in yaml.signers.iter().enumerate() {
            named.push(signers.get(name).ok_or_else(|| format!("there is no signer `{name}`"))?);
            if yaml.signers[..position].contains(name) {
                return Err(format!("the signer `{name}` is named twice"));
            }
        }
        let threshold = yaml.threshold.unwrap_or(named.len());
        if threshold == 0 || threshold > named.len() {
            return Err(format!("a threshold of {threshold} with {} signers is not possible", named.len()));
        }
        let formats = yaml.formats.iter().map(|text| text.parse::<Format>().map_err(|error| error.to_string()));
        let mut formats: Vec<_> = formats.collect::<Result<_, _>>()?;
        let predicate_type =
            yaml.attestation.as_deref().map(predicate_type).transpose().map_err(|error| error.to_string())?;
        if let Some(predicate_type) = &predicate_type {
            check_not_reserved(predicate_type).map_err(|error| error.to_string())?;
            Format::check_attestations(&formats).map_err(|error| error.to_string())?;
        }
        if formats.is_empty() {
            formats = if predicate_type.is_some() { Format::of_attestations() } else { Format::ALL.to_vec() };
        }
        let is_able =
            |signer: &PolicySigner| Format::of_signers(signer.kind()).iter().any(|format| formats.contains(format));
        if let Some((name, _)) = yaml.signers.iter().zip(&named).find(|(_, signer)| !is_able(signer)) {
            return Err(format!("the signer `{name}` does not support the required formats"));
        }
        let depth = match yaml.depth.unwrap_or(depth) {
            DepthYaml::Root => Depth::Root,
            DepthYaml::Images => Depth::Images,
            DepthYaml::Leaves => Depth::Leaves,
            DepthYaml::Everything => Depth::Everything,
        };
        Ok(Requirement { signers: yaml.signers, threshold, formats, predicate_type, depth })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::key::{KeyKind, PrivateKey};
    use crate::sigstore::TrustedRoot;

    static KEYS: LazyLock<[PublicKey; 2]> =
        LazyLock::new(|| [(); 2].map(|()| PrivateKey::generate(KeyKind::P256).unwrap().public_key().clone()));

    /// Returns the keys `a` and `b`, and any trust policy.
    fn read(files: &SignerFiles) -> Result<PolicySigner> {
        match files {
            SignerFiles::Key(path) => Ok(PolicySigner::Key(KEYS[usize::from(*path == *"b")].clone())),
            SignerFiles::Notation { .. } => {
                let policy = br#"{"version":"1.0","trustPolicies":[{"name":"all","registryScopes":["*"],
                    "signatureVerification":{"level":"strict"},"trustStores":["ca:a"],"trustedIdentities":["*"]}]}"#;
                Ok(PolicySigner::Notation {
                    policy: TrustPolicy::parse(policy)?,
                    store: TrustStore::new(),
                    lists: Vec::new(),
                })
            }
            SignerFiles::Certificate { identity, issuer, log, certificate_log, .. } => {
                Ok(PolicySigner::Certificate(Box::new(CertificateTrust {
                    name: String::new(),
                    identity: identity.clone(),
                    issuer: issuer.clone(),
                    root: TrustedRoot::default(),
                    log: *log,
                    certificate_log: *certificate_log,
                    now: jiff::Timestamp::UNIX_EPOCH,
                })))
            }
        }
    }

    fn parse(rules: &str) -> Result<Policy> {
        let signers = "{a: {key: a}, b: {key: b}, corp: {trustPolicy: c}}";
        Policy::parse(&format!("version: 1\nsigners: {signers}\nrules: {rules}"), read)
    }

    #[test]
    fn the_first_matching_rule_applies() {
        let policy = parse(
            "
  - scope: ghcr.io/acme/*
    depth: images
    require:
      - {signers: [a, b], threshold: 1, formats: [cosign]}
      - {signers: [b], attestation: slsaprovenance1, depth: leaves}
  - {scope: '*', require: [{signers: [a, corp]}]}",
        )
        .unwrap();
        let rule = policy.rule(Some(&"ghcr.io/acme/app".parse().unwrap())).unwrap();
        let [one, two] = &rule.requirements[..] else { panic!("two requirements") };
        assert_eq!((one.threshold, &one.formats[..], one.depth), (1, &[Format::Cosign][..], Depth::Images));
        assert_eq!((two.threshold, two.depth), (1, Depth::Leaves));
        assert_eq!(two.predicate_type.as_deref(), Some("https://slsa.dev/provenance/v1"));
        let other = policy.rule(None).unwrap();
        assert_eq!((other.requirements[0].threshold, other.requirements[0].depth), (2, Depth::Root), "all of them");
        let only = parse("[{scope: ghcr.io/*, require: [{signers: [a]}]}]").unwrap();
        assert!(only.rule(None).is_err() && only.rule(Some(&"alpine".parse().unwrap())).is_err());
    }

    #[test]
    fn certificate_signers_need_identity_issuer_and_root() {
        let trust = |signer: &str| {
            let text = format!(
                "{{version: 1, signers: {{a: {signer}}}, rules: [{{scope: '*', require: [{{signers: [a]}}]}}]}}"
            );
            match Policy::parse(&text, read).unwrap().signers.remove("a") {
                Some(PolicySigner::Certificate(trust)) => *trust,
                other => panic!("{other:?}"),
            }
        };
        let (required, skipped) = (LogCheck::Required, LogCheck::Skipped);
        let strict = trust("{identity: me@example.com, issuer: 'https://accounts.example', trustedRoot: root.json}");
        assert_eq!((strict.log, strict.certificate_log), (required, required));
        assert!(strict.identity.matches("me@example.com") && !strict.identity.matches("you@example.com"));
        assert!(strict.issuer.unwrap().matches("https://accounts.example"));
        let loose =
            trust("{identityRegexp: '.*@example.com', issuerRegexp: '.*', trustedRoot: r, insecureIgnoreSct: true}");
        assert_eq!((loose.log, loose.certificate_log), (required, skipped));
        assert!(loose.identity.matches("you@example.com") && !loose.identity.matches("me@example.org"));
        let own = trust("{identity: a, certificateChain: ca.pem, timestampCertificateChain: tsa.pem}");
        assert_eq!((own.log, own.certificate_log, own.issuer.is_none()), (skipped, skipped, true));
    }

    #[test]
    fn invalid_policies_are_refused() {
        let requires = |what: &str| format!("[{{scope: '*', require: [{what}]}}]");
        for (rules, problem) in [
            ("[]".to_owned(), "no rules"),
            (requires(""), "no requirements"),
            (requires("{signers: []}"), "a threshold of 0 with 0"),
            (requires("{signers: [a], threshold: 0}"), "a threshold of 0 with 1"),
            (requires("{signers: [a], threshold: 2}"), "a threshold of 2 with 1"),
            (requires("{signers: [a, a]}"), "twice"),
            (requires("{signers: [c]}"), "no signer `c`"),
            (requires("{signers: [a], formats: [pgp]}"), "pgp"),
            (requires("{signers: [a], formats: [notation-jws]}"), "does not support the required formats"),
            (requires("{signers: [corp], attestation: custom}"), "does not support the required formats"),
            (
                requires("{signers: [a, corp], threshold: 1, formats: [cosign]}"),
                "`corp` does not support the required formats",
            ),
            (requires("{signers: [a], attestation: nonsense}"), "URI"),
            (requires("{signers: [a], attestation: 'https://sigstore.dev/cosign/sign/v1'}"), "reserved for signatures"),
            (requires("{signers: [a], attestation: custom, formats: [cosign-legacy]}"), "the format `cosign` only"),
            (requires("{signers: [a], treshold: 1}"), "treshold"),
            (requires("{signers: [a], depth: deep}"), "deep"),
            ("[{scope: 'a:1', require: [{signers: [a]}]}]".to_owned(), "a:1"),
            (
                "[{scope: '*', require: [{signers: [a]}]}, {scope: alpine, require: [{signers: [b]}]}]".to_owned(),
                "never",
            ),
        ] {
            let error = parse(&rules).unwrap_err().to_string();
            assert!(error.contains(problem), "{rules}: {error}");
        }
        for (text, problem) in [
            ("version: 2\nsigners: {}\nrules: []", "version is 2"),
            ("signers: {}\nrules: []", "version"),
            ("version: 1\nsigners: {a: {}}\nrules: []", "one of"),
            ("version: 1\nsigners: {a: {key: a, trustPolicy: b}}\nrules: []", "one of"),
            ("version: 1\nsigners: {a: {key: a, trustStore: b}}\nrules: []", "neither"),
            ("version: 1\nsigners: {a: {key: a, crl: [b]}}\nrules: []", "neither"),
            ("version: 1\nsigners: {a: {key: a, issuer: b}}\nrules: []", "one of"),
            ("version: 1\nsigners: {a: {key: a, insecureIgnoreTlog: true}}\nrules: []", "one of"),
            ("version: 1\nsigners: {a: {trustPolicy: a, trustedRoot: b}}\nrules: []", "one of"),
            ("version: 1\nsigners: {a: {identity: a, issuer: b}}\nrules: []", "trustedRoot"),
            ("version: 1\nsigners: {a: {identity: a, trustedRoot: b}}\nrules: []", "issuer"),
            ("version: 1\nsigners: {a: {identity: a, identityRegexp: a, certificateChain: b}}\nrules: []", "both"),
            ("version: 1\nsigners: {a: {identityRegexp: '(', certificateChain: b}}\nrules: []", "("),
            ("version: 1\nsigners: {a: {identity: a, certificateChain: b, trustedRoot: c}}\nrules: []", "either"),
            ("version: 1\nsigners: {a: {identity: a, timestampCertificateChain: b}}\nrules: []", "either"),
            (
                "version: 1\nsigners: {a: {identity: a, certificateChain: b, insecureIgnoreTlog: true}}\nrules: []",
                "no logs",
            ),
            ("version: 1\nsigners: {a: {identity: a, issuer: b, trustedRoot: c, crl: [d]}}\nrules: []", "one of"),
            ("version: 1\nsigners: {a: {key: a}, c: {key: a}}\nrules: []", "same key"),
            ("version: 1\nsigners: {a: {key: a}, a: {key: b}}\nrules: []", "a"),
            ("[", ""),
        ] {
            let error = Policy::parse(text, read).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        let long = format!("#{}", " ".repeat(MAX_POLICY_BYTES));
        assert!(Policy::parse(&long, read).unwrap_err().to_string().contains("bytes"));
    }

    proptest::proptest! {
        #[test]
        fn untrusted_input_does_not_panic(text in ".*") {
            let _ = Policy::parse(&text, read);
            let _ = parse(&text);
        }
    }
}
