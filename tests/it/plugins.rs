//! Signing and verifying with plugins of notation and of cosign.

use std::fs;
use std::os::unix::fs::symlink;

use ocikit_tests::{Bench, testdata};
use serde_json::json;

use crate::bench;
use crate::signing_ca::SigningCa;

/// Returns a bench with plugins, an image, and a policy that trusts a company.
fn with_plugins() -> (Bench, Vec<String>) {
    let bench = bench().with("OCIKIT_KEY_PASSWORD", "secret");
    for name in ["notation-raw", "notation-whole", "notation-checks", "sigstore-kms-ours"] {
        symlink(env!("CARGO_BIN_EXE_ocikit-plugin"), bench.path(name)).unwrap();
    }
    let path = format!("{}:{}", bench.path("").display(), std::env::var("PATH").unwrap_or_default());
    let bench = bench.with("PATH", &path);
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    let [key, chain] = SigningCa::new(bench.path(""), "acme").signer("one", |_| {});
    let policy = json!({"version": "1.0", "trustPolicies": [{
        "name": "all", "registryScopes": ["*"], "signatureVerification": {"level": "strict"},
        "trustStores": ["ca:acme"], "trustedIdentities": ["*"],
    }]});
    bench.write("notation/trustpolicy.json", policy.to_string());
    let config = ["key", "chain"].into_iter().zip([key, chain]);
    let config = config.flat_map(|(name, file)| ["--plugin-config".to_owned(), format!("{name}={file}")]);
    (bench, config.collect())
}

fn sign<'a>(plugin: &'a str, format: &'a str, config: &'a [String]) -> Vec<&'a str> {
    let mut line = vec!["sign", "a.tar", "--plugin", plugin, "--key-id", "k", "--format", format];
    line.extend(config.iter().map(String::as_str));
    line
}

#[test]
fn notation_plugins_sign() {
    let (bench, config) = with_plugins();
    let verify = ["verify", "a.tar", "--trust-policy", "notation/trustpolicy.json", "--json"];
    for (plugin, format) in
        [("./notation-raw", "notation-jws"), ("./notation-raw", "notation-cose"), ("./notation-whole", "notation-jws")]
    {
        fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
        assert_eq!(bench.ocikit(&verify).code, 5);
        let mut line = sign(plugin, format, &config);
        line.extend(["--user-metadata", "a=b", "--expiry", "1h"]);
        bench.ok(&line);
        let facts = bench.json(&verify);
        assert_eq!(facts["signatures"][0]["metadata"], json!({"a": "b"}), "{plugin} {format}");
    }
    // The directory where notation installs plugins.
    fs::create_dir_all(bench.path("notation/plugins/raw")).unwrap();
    symlink(bench.path("notation-raw"), bench.path("notation/plugins/raw/notation-raw")).unwrap();
    let bench = bench.with("NOTATION_CONFIG", "notation");
    bench.ok(&sign("raw", "notation-jws", &config));
}

#[test]
fn faulty_notation_plugins_are_detected() {
    let (bench, config) = with_plugins();
    let before = fs::read(bench.path("a.tar")).unwrap();
    for (plugin, errs, code, message) in [
        ("./notation-raw", "name", 1, "would be notation-other"),
        ("./notation-raw", "version", 1, "version 1.0 of the protocol"),
        ("./notation-raw", "denies", 1, "ACCESS_DENIED not you"),
        ("./notation-raw", "key", 1, "another key"),
        ("./notation-raw", "signature", 1, "its signature does not match its certificate"),
        ("./notation-whole", "signature", 5, "its signature is wrong"),
        ("./notation-whole", "subject", 5, "malformed"),
        ("./notation-none", "", 1, "No such file"),
        ("none", "", 1, "No such file"),
    ] {
        let errs = format!("errs={errs}");
        let mut line = sign(plugin, "notation-jws", &config);
        line.extend(["--plugin-config", &errs]);
        let outcome = bench.ocikit(&line);
        assert_eq!(outcome.code, code, "{plugin} {errs}: {outcome}");
        assert!(outcome.stderr.contains(message), "{plugin} {errs}: {outcome}");
    }
    let cosign = bench.ocikit(&sign("./notation-raw", "cosign", &config));
    assert_eq!(cosign.code, 2, "{cosign}");
    let timed = [&sign("./notation-whole", "notation-jws", &config)[..], &["--signing-authority"]].concat();
    assert_eq!(bench.ocikit(&timed).code, 2);
    assert_eq!(fs::read(bench.path("a.tar")).unwrap(), before);
}

#[test]
fn notation_plugins_verify_envelopes_that_name_them() {
    let (bench, config) = with_plugins();
    let mut line = sign("./notation-whole", "notation-jws", &config);
    line.extend(["--plugin-config", "asks=checks"]);
    bench.ok(&line);
    let policy = |revocation: &str, authenticity: &str, identity: &str| {
        let policy = json!({"version": "1.0", "trustPolicies": [{
            "name": "all", "registryScopes": ["*"], "trustStores": ["ca:acme"], "trustedIdentities": [identity],
            "signatureVerification": {"level": "strict",
                "override": {"revocation": revocation, "authenticity": authenticity}},
        }]});
        bench.write("notation/trustpolicy.json", policy.to_string());
    };
    let verify = |more: &[&str]| {
        bench.ocikit(&[&["verify", "a.tar", "--trust-policy", "notation/trustpolicy.json"], more].concat())
    };
    let without_plugin = verify(&[]);
    assert!(
        without_plugin.code == 5 && without_plugin.stdout.contains("the verification plugin checks"),
        "{without_plugin}"
    );
    const IDENTITY: &str = "SIGNATURE_VERIFIER.TRUSTED_IDENTITY";
    const REVOCATION: &str = "SIGNATURE_VERIFIER.REVOCATION_CHECK";
    // The fault of the plugin, the policy for revocation and authenticity, whether the signature is accepted, and the
    // message.
    for (errs, revocation, authenticity, is_accepted, message) in [
        ("", "enforce", "enforce", true, ""),
        (IDENTITY, "enforce", "enforce", false, "plugin checks does not agree: so it is"),
        (IDENTITY, "enforce", "log", true, "warning: the verification plugin checks"),
        (REVOCATION, "enforce", "enforce", false, "plugin checks does not agree: so it is"),
        (REVOCATION, "log", "enforce", true, "warning: the verification plugin checks"),
        (REVOCATION, "skip", "enforce", true, ""),
        ("processed", "enforce", "enforce", false, "the critical attribute com.example.must"),
        ("denies", "log", "log", false, "ACCESS_DENIED"),
    ] {
        // With a plugin, the plugin decides which identities are trusted.
        policy(revocation, authenticity, "x509.subject: C=US, ST=WA, O=other");
        let outcome = verify(&["--plugin", "./notation-checks", "--plugin-config", &format!("errs={errs}")]);
        assert_eq!(outcome.code == 0, is_accepted, "{errs} {revocation} {authenticity}: {outcome}");
        assert!(outcome.stdout.contains(message), "{errs} {revocation} {authenticity}: {outcome}");
    }
    // A policy file uses the plugins that the command line names.
    policy("enforce", "enforce", "x509.subject: C=US, ST=WA, O=other");
    let rules = "rules: [{scope: '*', require: [{signers: [corp]}]}]\n";
    let text = format!("version: 1\nsigners: {{corp: {{trustPolicy: notation/trustpolicy.json}}}}\n{rules}");
    bench.write("policy.yaml", text);
    for (errs, code) in [("", 0), (IDENTITY, 5), (REVOCATION, 5)] {
        let config = format!("errs={errs}");
        let verify =
            ["verify", "a.tar", "--policy", "policy.yaml", "--plugin", "./notation-checks", "--plugin-config", &config];
        let copy = [
            "copy",
            "a.tar",
            "b.tar",
            "--verify",
            "policy.yaml",
            "--verify-plugin",
            "./notation-checks",
            "--verify-plugin-config",
            &config,
        ];
        for line in [verify.to_vec(), copy.to_vec()] {
            let outcome = bench.ocikit(&line);
            assert_eq!(outcome.code, code, "{errs}: {outcome}");
        }
    }
    // No plugin is started for an invalid policy.
    for line in [
        ["verify", "a.tar", "--policy", "none.yaml", "--plugin", "./none"],
        ["copy", "a.tar", "b.tar", "--verify=none.yaml", "--verify-plugin", "./none"],
    ] {
        let outcome = bench.ocikit(&line);
        assert!(outcome.code == 3 && outcome.stderr.contains("none.yaml"), "{outcome}");
    }
    let unnamed = bench.ocikit(&["verify", "a.tar", "--policy", "policy.yaml"]);
    assert!(unnamed.code == 5 && unnamed.stdout.contains("the verification plugin checks"), "{unnamed}");
    let with_key = bench.ocikit(&["verify", "a.tar", "--key", "x.pub", "--plugin", "./notation-checks"]);
    assert_eq!(with_key.code, 2, "{with_key}");
    // A plugin is not started for untrusted signers, and one that cannot verify is refused.
    SigningCa::new(bench.path(""), "acme");
    let stranger = verify(&["--plugin", "./notation-checks", "--plugin-config", "errs=denies"]);
    assert!(stranger.code == 5 && stranger.stdout.contains("not by the expected signer"), "{stranger}");
    let other = verify(&["--plugin", "./notation-raw"]);
    assert!(other.code == 1 && other.stderr.contains("it does not verify"), "{other}");
}

#[test]
fn an_unreachable_timestamp_authority_changes_nothing() {
    let (bench, _) = with_plugins();
    let before = fs::read(bench.path("a.tar")).unwrap();
    let [key, chain] = SigningCa::new(bench.path(""), "timed").signer("one", |_| {});
    let line = ["sign", "a.tar", "--format", "notation-jws", "--key", &key, "--certificate-chain", &chain];
    // No server listens on this port.
    let times = ["--timestamp-url", "http://127.0.0.1:1/", "--timestamp-root-cert", &chain];
    let refused = bench.ocikit(&[&line[..], &times, &["--retries", "1"]].concat());
    assert!(refused.code == 6 && refused.stderr.contains("http://127.0.0.1:1/"), "{refused}");
    assert!(refused.stderr.contains(", asked 2 times"), "{refused}");
    assert_eq!(fs::read(bench.path("a.tar")).unwrap(), before);
    // `--dry-run` sends no requests.
    bench.ok(&[&line[..], &times, &["--dry-run"]].concat());
    let alone = bench.ocikit(&[&line[..], &times[..2]].concat());
    assert_eq!(alone.code, 2, "{alone}");
}

#[test]
fn cosign_kms_plugins_sign() {
    let (bench, _) = with_plugins();
    bench.ok(&["keygen", "--unencrypted", "-o", "mine"]);
    bench.ok(&["keygen", "--unencrypted", "-o", "others"]);
    bench.ok(&["sign", "--key", "ours://mine.key", "--format", "cosign", "--format", "cosign-legacy", "a.tar"]);
    for key in ["mine.pub", "ours://mine.key"] {
        bench.ok(&["verify", "--key", key, "--format", "cosign", "--format", "cosign-legacy", "a.tar"]);
    }
    assert_eq!(bench.ocikit(&["verify", "--key", "ours://others.key", "a.tar"]).code, 5);
    for (key, message) in [
        ("ours://missing.key", "sigstore-kms-ours: "),
        ("theirs://mine.key", "sigstore-kms-theirs: No such file"),
        ("a/b://mine.key", "cannot read a/b://mine.key"),
    ] {
        let outcome = bench.ocikit(&["sign", "--key", key, "a.tar"]);
        assert!(outcome.code != 0 && outcome.stderr.contains(message), "{key}: {outcome}");
    }
    let without_key = bench.ocikit(&["sign", "a.tar"]);
    assert_eq!(without_key.code, 2, "{without_key}");
}
