//! Policies: `verify --policy`, and copies that are verified before anything is written.

use std::fs;

use insta::assert_snapshot;
use ocikit_tests::{Bench, Registry, multi, single, testdata};
use serde_json::Value;

use crate::bench;

/// Writes three key pairs, and a policy next to two of the public keys in a separate directory.
fn with_policy(rules: &str) -> Bench {
    let bench = bench();
    for name in ["release", "ci", "stranger"] {
        bench.ok(&["keygen", "--unencrypted", "-o", name]);
    }
    fs::create_dir(bench.path("policy")).unwrap();
    for name in ["release.pub", "ci.pub"] {
        fs::copy(bench.path(name), bench.path("policy").join(name)).unwrap();
    }
    let signers = "signers:\n  release: {key: release.pub}\n  ci: {key: ./ci.pub}\n";
    bench.write("policy/policy.yaml", format!("version: 1\n{signers}rules:\n{rules}"));
    bench
}

const POLICY: &str = "--policy=policy/policy.yaml";
const GATE: &str = "--verify=policy/policy.yaml";

#[test]
fn a_policy_requires_a_threshold_of_signers() {
    let bench = with_policy(
        "  - {scope: 'ghcr.io/acme/*', require: [{signers: [release]}]}
  - scope: '*'
    require:
      - {signers: [release, ci], threshold: 1, depth: images}
      - {signers: [release, ci]}
",
    );
    fs::copy(testdata("buildkit-multi/image.tar"), bench.path("a.tar")).unwrap();
    bench.ok(&["sign", "--key", "ci.key", "--recursive", "a.tar"]);
    bench.ok(&["sign", "--key", "stranger.key", "a.tar"]);
    let outcome = bench.ocikit(&["verify", POLICY, "a.tar"]);
    // Signatures and keys are random.
    let told = outcome.stdout.lines().filter(|line| !line.starts_with(' '));
    let told = told.map(|line| line.split(" by ").next().unwrap().split_once(' ').unwrap().1.to_owned() + "\n");
    assert_snapshot!(told.collect::<String>(), @r"
    - requirement 1: 1 of 1, met
    - release cosign|cosign-legacy missing
    - ci cosign verified
    linux/amd64 requirement 1: 1 of 1, met
    linux/amd64 release cosign|cosign-legacy missing
    linux/amd64 ci cosign verified
    linux/arm64 requirement 1: 1 of 1, met
    linux/arm64 release cosign|cosign-legacy missing
    linux/arm64 ci cosign verified
    linux/arm/v7 requirement 1: 1 of 1, met
    linux/arm/v7 release cosign|cosign-legacy missing
    linux/arm/v7 ci cosign verified
    - requirement 2: 1 of 2, not met
    - release cosign|cosign-legacy missing
    - ci cosign verified
    ");
    assert_eq!(outcome.code, 5, "{outcome}");
    assert_snapshot!(outcome.stderr, @r"
    error: a.tar is not verified: 1 of 5 requirements of the rule for `*` are not met; requirement 2 has 1 of 2 signers for sha256:0af30cf7acc79ec8907e9022813e03d39bc53423c179ddc15a5f1adcf6c7eba2
    hint: `ocikit referrers a.tar` lists the signatures
    ");
    // Another rule for another repository, with the same result in JSON.
    let json = ["--json", "verify", POLICY, "--scope", "ghcr.io/acme/app", "a.tar"];
    let facts: Value = serde_json::from_str(&bench.ocikit(&json).stdout).unwrap();
    assert_eq!((&facts["verified"], &facts["scope"]), (&false.into(), &"ghcr.io/acme/*".into()));
    bench.ok(&["sign", "--key", "release.key", "a.tar"]);
    let facts = bench.json(&json);
    let finding = &facts["requirements"][0];
    assert_eq!(
        (&facts["verified"], &finding["requirement"], &finding["threshold"], &finding["counted"], &finding["met"]),
        (&true.into(), &1.into(), &1.into(), &1.into(), &true.into())
    );
    assert_eq!(finding["signatures"][0]["outcome"], "verified");
    assert!(finding["signatures"][0]["by"].as_str().unwrap().starts_with("sha256:"), "{facts}");
    let digest = bench.ok(&["digest", "a.tar"]);
    bench.ok(&["verify", POLICY, "--expect", &digest, "a.tar"]);
    let zeros = format!("sha256:{}", "0".repeat(64));
    assert_eq!(bench.ocikit(&["verify", POLICY, "--expect", &zeros, "a.tar"]).code, 5);
}

#[test]
fn invalid_policies_are_reported() {
    let bench = with_policy("  - {scope: 'ghcr.io/acme/*', require: [{signers: [release]}]}\n");
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    let nothing = bench.ocikit(&["verify", POLICY, "a.tar"]);
    assert_snapshot!(nothing, @r"
    exit 2
    --- stderr
    error: the policy is not valid: it has no rule for every repository, and the image is in none
    ");
    for (text, problem) in [
        ("version: 1\nsigners: {a: {key: nowhere.pub}}\nrules: []", "policy/nowhere.pub"),
        ("version: 1\nsigners: {a: {key: release.pub}, b: {key: ../release.pub}}\nrules: []", "same key"),
        ("version: 1\nsigners: {}\nrules: []\nmore: 1", "more"),
    ] {
        bench.write("policy/policy.yaml", text);
        let outcome = bench.ocikit(&["verify", POLICY, "a.tar"]);
        assert!(outcome.code != 0 && outcome.code != 5 && outcome.stderr.contains(problem), "{outcome}");
    }
    for more in [["--key", "release.pub"], ["--format", "cosign"], ["--attestation", "custom"]] {
        assert_eq!(bench.ocikit(&[&["verify", POLICY, "a.tar"][..], &more].concat()).code, 2);
    }
    assert_eq!(bench.ocikit(&["verify", "--key", "release.pub", "--scope", "a/b", "a.tar"]).code, 2);
}

#[test]
fn images_that_fail_a_policy_are_not_copied() {
    let bench = with_policy("  - {scope: '*', require: [{signers: [release]}]}\n");
    let (from, to) = (Registry::start(), Registry::start());
    let image = multi();
    let (source, target) = (format!("{}/acme/app:1", from.name()), format!("{}/acme/app:1", to.name()));
    bench.ok(&["push", &image, &source]);
    bench.ok(&["sign", "--key", "stranger.key", &source]);
    bench.ok(&["pull", &source, "-o", "signed.tar"]);
    let refused = bench.ocikit(&["copy", GATE, &source, &target]);
    assert_snapshot!(refused.redacted(&[(&from.name(), "registry")]), @r"
    exit 5
    --- stderr
    error: registry/acme/app:1 is not verified: 1 of 1 requirements of the rule for `*` are not met; requirement 1 has 0 of 1 signers for sha256:0af30cf7acc79ec8907e9022813e03d39bc53423c179ddc15a5f1adcf6c7eba2; nothing was copied
    hint: `ocikit verify --policy policy/policy.yaml registry/acme/app:1` prints all requirements
    ");
    for line in [
        vec!["push", GATE, "signed.tar", &target],
        vec!["push", GATE, "signed.tar", "signed.tar#1", &target],
        vec!["copy", GATE, "--dry-run", &source, &target],
        vec!["copy", GATE, "--platform", "linux/arm64", &source, &target],
        vec!["copy", GATE, &source, &target, "oci:layout:1", "copy.tar"],
        vec!["pull", GATE, &source, "-o", "copy.tar"],
        vec!["pull", GATE, &source, "-o", "-"],
    ] {
        let outcome = bench.ocikit(&line);
        assert!(outcome.code == 5 && outcome.stdout.is_empty(), "{line:?}: {outcome}");
    }
    assert_eq!(to.requests().len(), 0, "no request to the target");
    assert!(!bench.path("layout").exists() && !bench.path("copy.tar").exists());

    bench.ok(&["sign", "--key", "release.key", &source]);
    from.clear_requests();
    bench.ok(&["copy", GATE, &source, &target]);
    let asked = from.requests();
    let resolved = asked.iter().filter(|asked| asked.path == "/v2/acme/app/manifests/1").count();
    assert_eq!(resolved, 1, "the verified image is copied even if the tag moves");
    bench.ok(&["verify", POLICY, &target]);
    // The platform of an image is that of its index entry.
    bench.ok(&["copy", GATE, "--platform", "linux/arm64", &source, "oci:layout:1"]);
    bench.ok(&["pull", GATE, &source, "-o", "copy.tar"]);
    bench.ok(&["push", GATE, "copy.tar", &format!("{}/acme/again:1", to.name())]);
}

/// Pushes an image under the tag `1` and another one under `2`, and returns their repository.
fn two_images(bench: &Bench, registry: &Registry) -> String {
    let repository = format!("{}/acme/app", registry.name());
    for (tag, image) in [("1", single()), ("2", multi())] {
        bench.ok(&["push", &image, &format!("{repository}:{tag}")]);
    }
    repository
}

#[test]
fn all_images_of_one_copy_must_pass() {
    let bench = with_policy("  - {scope: '*', require: [{signers: [release]}]}\n");
    let (from, to) = (Registry::start(), Registry::start());
    let repository = two_images(&bench, &from);
    bench.ok(&["sign", "--key", "release.key", &format!("{repository}:1")]);
    let target = format!("{}/acme/app", to.name());
    let copy = || bench.ocikit(&["copy", GATE, "--all-tags", &repository, &target]);
    let refused = copy();
    assert!(refused.code == 5 && refused.stderr.contains("acme/app:2 is not verified"), "{refused}");
    assert_eq!(to.requests().len(), 0);
    bench.ok(&["sign", "--key", "release.key", &format!("{repository}:2")]);
    copy().ok();
    for tag in ["1", "2"] {
        bench.ok(&["verify", POLICY, &format!("{target}:{tag}")]);
    }
}

#[test]
fn a_pipe_cannot_be_verified_before_it_is_copied() {
    let bench = with_policy("  - {scope: '*', require: [{signers: [release]}]}\n");
    let archive = fs::read(testdata("buildkit-single/image.tar")).unwrap();
    let outcome = bench.ocikit_with_input(&["copy", GATE, "-", "oci:layout:1"], &archive);
    assert_snapshot!(outcome, @r"
    exit 2
    --- stderr
    error: cannot verify an archive from a pipe: it is copied while it is read
    hint: write the archive to a file and copy the file with --verify
    ");
    assert!(!bench.path("layout").exists());
}

#[test]
fn sync_refuses_images_that_fail_the_policy() {
    let bench = with_policy("  - {scope: '*', require: [{signers: [release]}]}\n");
    let (from, to) = (Registry::start(), Registry::start());
    let repository = two_images(&bench, &from);
    bench.ok(&["sign", "--key", "release.key", &format!("{repository}:1")]);
    bench.ok(&["sign", "--key", "stranger.key", &format!("{repository}:2")]);
    let sync = |tags: &str, more: &[&str]| {
        let image = format!("{{from: {repository}, to: {}/mirror, tags: [{tags}]}}", to.name());
        bench.write("sync.yaml", format!("jobs: 1\nimages: [{image}]\n"));
        let outcome = bench.ocikit(&[&["sync", GATE, "sync.yaml"], more].concat());
        outcome.redacted(&[(&from.name(), "from"), (&to.name(), "to")])
    };
    for more in [&[][..], &["-k"], &["-n"]] {
        let refused = sync("'2'", more);
        assert_eq!(refused.code, 5, "{refused}");
    }
    assert_eq!(to.requests().len(), 0, "no request to the target");
    let planned = sync("'1', '2'", &["-k", "-n"]);
    assert!(planned.code == 7 && planned.stdout.starts_with("planned from/acme/app:1 -> to/mirror:1 ("), "{planned}");
    assert!(planned.stdout.contains("\nrefused from/acme/app:2 -> to/mirror:2: "), "{planned}");
    assert!(to.requests().iter().all(|request| ["GET", "HEAD"].contains(&request.method.as_str())));

    from.clear_requests();
    let outcome = sync("'2', '1'", &["-k"]);
    assert_eq!(outcome.code, 7, "{outcome}");
    assert_snapshot!(outcome.stderr, @r"
    error: 1 of 2 images failed
      from/acme/app:2: from/acme/app:2 is not verified: 1 of 1 requirements of the rule for `*` are not met; requirement 1 has 0 of 1 signers for sha256:0af30cf7acc79ec8907e9022813e03d39bc53423c179ddc15a5f1adcf6c7eba2; nothing was copied
    hint: `ocikit verify --policy policy/policy.yaml from/acme/app:2` prints all requirements
    ");
    for tag in ["1", "2"] {
        let path = format!("/v2/acme/app/manifests/{tag}");
        let resolved = from.requests().iter().filter(|asked| asked.path == path).count();
        assert_eq!(resolved, 1, "the verified image is copied even if the tag moves");
    }
    assert_eq!(bench.ok(&["tags", &format!("{}/mirror", to.name())]), "1");
    bench.ok(&["verify", POLICY, &format!("{}/mirror:1", to.name())]);
    // A missing image is another failure.
    let mixed = sync("'2', gone", &["-k"]);
    assert_eq!(mixed.code, 7, "{mixed}");
    assert!(mixed.stdout.contains("refused from/acme/app:2") && mixed.stdout.contains("failed from/acme/app:gone"));

    // Images that exist at the target must pass as well.
    assert_eq!(bench.ocikit(&["sync", "sync.yaml", "-k"]).code, 7);
    let again = sync("'1', '2'", &["-k", "--json"]);
    let facts: Vec<Value> = again.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&facts[0]["outcome"], &facts[1]["outcome"]), (&"same".into(), &"refused".into()), "{again}");
    assert!(again.code == 7 && facts[1]["error"].as_str().unwrap().contains("not verified"), "{again}");
    bench.ok(&["sign", "--key", "release.key", &format!("{repository}:2")]);
    sync("'1', '2'", &[]).ok();
    bench.ok(&["verify", POLICY, &format!("{}/mirror:2", to.name())]);
}

#[test]
fn sync_with_platforms_verifies_the_whole_index() {
    let bench = with_policy("  - {scope: 'example.com/acme', require: [{signers: [release]}]}\n");
    let (from, to) = (Registry::start(), Registry::start());
    let source = format!("{}/acme/app", from.name());
    bench.ok(&["push", &multi(), &format!("{source}:1")]);
    let image = format!("{{from: {source}, to: {}/app, platforms: [linux/arm64]}}", to.name());
    bench.write("sync.yaml", format!("images: [{image}]\n"));
    let sync = |more: &[&str]| bench.ocikit(&[&["sync", "sync.yaml", GATE], more].concat());
    let outcome = sync(&[]);
    assert!(
        outcome.code == 2 && outcome.stdout.starts_with("failed ") && outcome.stderr.contains("no rule"),
        "{outcome}"
    );
    let scope = ["--verify-scope", "example.com/acme"];
    assert_eq!(sync(&scope).code, 5);
    assert_eq!(to.requests().len(), 0);
    bench.ok(&["sign", "--key", "release.key", &format!("{source}:1")]);
    sync(&scope).ok();
    assert_eq!(bench.ok(&["kind", &format!("{}/app:1", to.name())]), "image");
    // An invalid policy file is found before any request.
    bench.write("policy/policy.yaml", "version: 2");
    from.clear_requests();
    assert_eq!((sync(&[]).code, from.requests().len()), (2, 0));
}

#[test]
fn a_registry_as_scope_applies_to_its_repositories() {
    let bench = with_policy(
        "  - {scope: ghcr.io, require: [{signers: [release]}]}
  - {scope: '*', require: [{signers: [ci]}]}
",
    );
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    bench.ok(&["sign", "--key", "ci.key", "a.tar"]);
    let verify = |scope: &str| bench.ocikit(&["verify", POLICY, "--scope", scope, "a.tar"]);
    assert_eq!(verify("ghcr.io/acme/app").code, 5, "{}", verify("ghcr.io/acme/app"));
    assert_eq!(verify("other.example/app").code, 0, "{}", verify("other.example/app"));
    // A registry is not a repository, for which the last rule would apply.
    let copy = bench.ocikit(&["copy", GATE, "--verify-scope", "ghcr.io", "a.tar", "b.tar"]);
    assert_eq!((verify("ghcr.io").code, copy.code), (2, 2), "{copy}");

    let bench = with_policy("  - {scope: 'registry:5000', require: [{signers: [release]}]}\n");
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    let outcome = bench.ocikit(&["verify", POLICY, "a.tar"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.contains("write `registry:5000/*` or `docker.io/library/registry`"), "{outcome}");
}
