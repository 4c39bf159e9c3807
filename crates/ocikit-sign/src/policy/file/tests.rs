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
        let text =
            format!("{{version: 1, signers: {{a: {signer}}}, rules: [{{scope: '*', require: [{{signers: [a]}}]}}]}}");
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
        ("[{scope: '*', require: [{signers: [a]}]}, {scope: alpine, require: [{signers: [b]}]}]".to_owned(), "never"),
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
