//! `inspect`, `kind`, `digest`: looking at what is there.

use ocikit_tests::{Registry, testdata};
use serde_json::Value;

use crate::bench;

fn fixture(name: &str) -> String {
    testdata(name).display().to_string()
}

/// What other programs say of a fixture.
fn expected(name: &str) -> Value {
    let text = std::fs::read_to_string(testdata("expected.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["fixtures"][name].clone()
}

#[test]
fn the_digest_is_what_others_say() {
    for name in
        ["buildkit-single/image.tar", "buildkit-multi/image.tar", "archive-podman/image.tar", "layout-umoci/layout"]
    {
        let root = &expected(name)["oci"]["roots"][0];
        let digest = root["digest"].as_str().unwrap();
        let location = format!("{}@{digest}", fixture(name));
        assert_eq!(bench().ok(&["digest", &location]), digest);
        let facts: Value = serde_json::from_str(&bench().ok(&["digest", "--json", &location])).unwrap();
        assert_eq!(
            (&facts["digest"], &facts["mediaType"], &facts["size"]),
            (&root["digest"], &root["media_type"], &root["size"])
        );
    }
    let multi = fixture("buildkit-multi/image.tar");
    let children = &expected("buildkit-multi/image.tar")["oci"]["roots"][0]["manifests"];
    for (platform, child) in [("linux/amd64", 0), ("linux/arm64", 1), ("linux/arm/v7", 2), ("linux/arm", 2)] {
        assert_eq!(bench().ok(&["digest", &multi, "--platform", platform]), children[child], "{platform}");
    }
}

#[test]
fn kind_is_one_word() {
    for (name, kind) in [
        ("buildkit-single/image.tar", "image"),
        ("buildkit-multi/image.tar", "index"),
        ("buildkit-docker/schema2.tar", "docker-image"),
    ] {
        assert_eq!(bench().ok(&["kind", &fixture(name)]), kind);
    }
    let attested = expected("buildkit-attested/image.tar");
    let attestation = attested["oci"]["roots"][0]["manifests"][1].as_str().unwrap();
    assert_eq!(
        bench().ok(&["kind", &format!("{}@{attestation}", fixture("buildkit-attested/image.tar"))]),
        "attestation"
    );
}

#[test]
fn raw_and_config_are_exact_bytes() {
    use ocikit_spec::Digest;
    let single = fixture("buildkit-single/image.tar");
    let digest = bench().ok(&["digest", &single]);
    let raw = bench().ocikit(&["inspect", "--raw", &single]);
    assert_eq!(Digest::sha256_of(raw.stdout.as_bytes()).to_string(), digest);
    let facts: Value = serde_json::from_str(&bench().ok(&["inspect", "--json", &single])).unwrap();
    let config = bench().ocikit(&["inspect", "--config", &single]);
    assert_eq!(Digest::sha256_of(config.stdout.as_bytes()).to_string(), facts["config"]["digest"].as_str().unwrap());
}

#[test]
fn annotations_are_told_wherever_they_are() {
    let outcome = bench().ocikit(&["inspect", &fixture("buildkit-annotated/image.tar")]);
    insta::assert_snapshot!(outcome.redacted(&[(&fixture(""), "testdata/")]), @"");
    let outcome = bench().ok(&["inspect", "--json", &fixture("buildkit-annotated/image.tar")]);
    let facts: Value = serde_json::from_str(&outcome).unwrap();
    assert_eq!(facts["kind"], "index");
    assert!(facts["annotations"].as_object().is_some_and(|found| !found.is_empty()));
    assert!(facts["manifests"][0]["annotations"].as_object().is_some_and(|found| !found.is_empty()));
}

#[test]
fn one_image_is_told_in_full() {
    let outcome = bench().ocikit(&["inspect", &fixture("buildkit-single/image.tar")]);
    insta::assert_snapshot!(outcome.redacted(&[(&fixture(""), "testdata/")]), @"");
}

#[test]
fn what_is_in_a_registry_looks_the_same() {
    let (bench, registry) = (bench(), Registry::start());
    let reference = format!("{}/app:1", registry.name());
    bench.ok(&["push", &fixture("buildkit-multi/image.tar"), &reference]);
    for command in [&["digest"][..], &["kind"], &["inspect", "--raw"], &["inspect", "--config"]] {
        let here = bench.ok(&[command, &[&fixture("buildkit-multi/image.tar")]].concat());
        assert_eq!(bench.ok(&[command, &[&reference]].concat()), here, "{command:?}");
    }
}

#[test]
fn version_and_completion_speak_for_themselves() {
    let facts: Value = serde_json::from_str(&bench().ok(&["version", "--json"])).unwrap();
    assert_eq!(facts["name"], "ocikit");
    assert!(bench().ok(&["--version"]).starts_with("ocikit "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(bench().ok(&["completion", shell]).contains("annotate"), "{shell}");
    }
}
