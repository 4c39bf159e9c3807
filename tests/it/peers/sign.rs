//! Signatures in both directions: what we sign others verify, and what others sign we verify.

use std::fs;

use ocikit_tests::{Bench, Daemon, Outcome, Peers, run, testdata};
use serde_json::Value;

use crate::bench;

/// A repository with an index of two images, as the registry is called by those who sign in it.
struct Place {
    repository: String,
    /// The digests of the index and of its images.
    digests: Vec<String>,
}

impl Place {
    fn new(bench: &Bench, registry: &Daemon, name: &str) -> Place {
        let repository = format!("{}/{name}", registry.address.replace("127.0.0.1", "localhost"));
        bench.ok(&["push", &testdata("buildkit-multi/image.tar").display().to_string(), &format!("{repository}:1")]);
        let index = bench.ok(&["inspect", "--raw", &format!("{repository}:1")]);
        let index: Value = serde_json::from_str(&index).unwrap();
        let children = index["manifests"].as_array().unwrap().iter();
        let children = children.map(|entry| entry["digest"].as_str().unwrap().to_owned());
        let root = bench.ok(&["digest", &format!("{repository}:1")]);
        Place { repository, digests: std::iter::once(root).chain(children).collect() }
    }

    fn tag(&self) -> String {
        format!("{}:1", self.repository)
    }
}

fn with_password() -> Bench {
    bench().with("OCIKIT_KEY_PASSWORD", "secret")
}

/// cosign, with the password that all keys here have and without any service.
fn cosign(peers: &Peers, line: &str) -> Outcome {
    fs::write(
        peers.path("SC.json"),
        r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}"#,
    )
    .unwrap();
    run(peers.command("cosign").args(line.split_whitespace()).env("COSIGN_PASSWORD", "secret"), &[])
}

fn cosign_signs(peers: &Peers, key: &str, format: &str, flags: &str, reference: &str) {
    let form = match format {
        "cosign" => "--signing-config SC.json",
        _ => "--use-signing-config=false --new-bundle-format=false --tlog-upload=false",
    };
    cosign(peers, &format!("sign --key {key} {form} {flags} --allow-http-registry -y {reference}")).ok();
}

fn cosign_verifies(peers: &Peers, key: &str, format: &str, flags: &str, reference: &str) -> Outcome {
    let form = format!("--new-bundle-format={}", format == "cosign");
    cosign(peers, &format!("verify --key {key} {form} {flags} --insecure-ignore-tlog --allow-http-registry {reference}"))
}

const FORMATS: [&str; 2] = ["cosign", "cosign-legacy"];

#[test]
fn cosign_verifies_what_we_sign() {
    let Some(peers) = Peers::find(&["registry", "olareg", "cosign"]) else { return };
    let bench = with_password();
    for name in ["ours", "others"] {
        bench.ok(&["keygen", "-o", name]);
    }
    let [public, other] = ["ours.pub", "others.pub"].map(|name| bench.path(name).display().to_string());
    for (kind, registry) in peers.registries() {
        for format in FORMATS {
            let place = Place::new(&bench, &registry, &format!("acme/{format}"));
            bench.ok(&["sign", "--key", "ours.key", "--format", format, "--recursive", &place.tag()]);
            for digest in &place.digests {
                let reference = format!("{}@{digest}", place.repository);
                let outcome = cosign_verifies(&peers, &public, format, "", &reference);
                assert_eq!(outcome.code, 0, "{kind} {format}: {outcome}");
                assert!(outcome.stdout.contains(digest), "{kind} {format}: {outcome}");
                let outcome = cosign_verifies(&peers, &other, format, "", &reference);
                assert_ne!(outcome.code, 0, "{kind} {format}: {outcome}");
            }
        }
    }
}

#[test]
fn we_verify_what_cosign_signs() {
    let Some(peers) = Peers::find(&["registry", "olareg", "cosign"]) else { return };
    let bench = with_password();
    cosign(&peers, "generate-key-pair").ok();
    bench.ok(&["keygen", "-o", "other"]);
    let public = peers.path("cosign.pub").display().to_string();
    for (kind, registry) in peers.registries() {
        for format in FORMATS {
            let place = Place::new(&bench, &registry, &format!("acme/{format}"));
            let reference = format!("{}@{}", place.repository, place.digests[0]);
            assert_eq!(bench.ocikit(&["verify", "--key", &public, &reference]).code, 5, "{kind}");
            cosign_signs(&peers, "cosign.key", format, "--recursive", &reference);
            let line = ["verify", "--json", "--recursive", "--key", &public, "--format", format, &reference];
            let facts: Value = serde_json::from_str(&bench.ok(&line)).unwrap();
            let cells = facts["signatures"].as_array().unwrap();
            let covered: Vec<_> = cells.iter().map(|cell| cell["digest"].as_str().unwrap()).collect();
            assert_eq!(covered, place.digests, "{kind} {format}");
            assert!(cells.iter().all(|cell| cell["formats"][0] == format), "{kind} {format}");
            let other = bench.ocikit(&["verify", "--recursive", "--key", "other.pub", &reference]);
            assert_eq!(other.code, 5, "{kind} {format}: {other}");
            // One of two that are asked for is not enough.
            let both = bench.ocikit(&["verify", "--key", &public, "--key", "other.pub", &reference]);
            assert_eq!(both.code, 5, "{kind} {format}: {both}");
            assert!(both.stdout.contains("verified by") && both.stdout.contains("missing"), "{both}");
        }
    }
}

#[test]
fn keys_go_both_ways() {
    let Some(peers) = Peers::find(&["registry", "cosign", "openssl"]) else { return };
    let (bench, registry) = (with_password(), peers.distribution("registry"));
    let place = Place::new(&bench, &registry, "keys");
    let reference = format!("{}@{}", place.repository, place.digests[0]);
    cosign(&peers, "generate-key-pair").ok();
    let theirs = peers.path("cosign").display().to_string();
    bench.ok(&["sign", "--key", &format!("{theirs}.key"), &reference]);
    bench.ok(&["verify", "--key", &format!("{theirs}.pub"), &reference]);
    bench.ok(&["keygen", "-o", "ours"]);
    cosign_signs(&peers, &bench.path("ours.key").display().to_string(), "cosign", "", &reference);
    bench.ok(&["verify", "--key", "ours.pub", &reference]);
    // What OpenSSL writes by default differs from kind to kind.
    let files = bench.path("").display().to_string();
    peers.ok(&format!("openssl ecparam -name prime256v1 -genkey -out {files}/sec1.key"));
    peers.ok(&format!("openssl genrsa -traditional -out {files}/pkcs1.key 3072"));
    peers.ok(&format!("openssl genpkey -algorithm ed25519 -out {files}/ed.key"));
    for name in ["sec1", "pkcs1", "ed"] {
        peers.ok(&format!("openssl pkey -in {files}/{name}.key -pubout -out {files}/{name}.pub"));
        bench.ok(&["sign", "--key", &format!("{name}.key"), &reference]);
        bench.ok(&["verify", "--key", &format!("{name}.pub"), &reference]);
        cosign_verifies(&peers, &format!("{files}/{name}.pub"), "cosign", "", &reference).ok();
    }
    // OpenSSL signs for us, as any other program could.
    let command = format!("openssl dgst -sha256 -sign {files}/sec1.key");
    let place = Place::new(&bench, &registry, "command");
    bench.ok(&["sign", "--key", "sec1.pub", "--signer-command", &command, &place.tag()]);
    cosign_verifies(&peers, &format!("{files}/sec1.pub"), "cosign", "", &place.tag()).ok();
    let refused = bench.ocikit(&["sign", "--key", "ours.pub", "--signer-command", &command, &place.tag()]);
    assert_eq!(refused.code, 1, "{refused}");
}

#[test]
fn every_kind_of_key_that_cosign_verifies() {
    let Some(peers) = Peers::find(&["registry", "cosign"]) else { return };
    let (bench, registry) = (with_password(), peers.distribution("registry"));
    // cosign signs P-384 and P-521 with the hash of that length, and has to be told so to verify it.
    for (kind, flags) in [
        ("p384", "--signature-digest-algorithm=sha384"),
        ("p521", "--signature-digest-algorithm=sha512"),
        ("ed25519", ""),
        ("rsa-2048", ""),
        ("rsa-4096", ""),
    ] {
        bench.ok(&["keygen", "--type", kind, "-o", kind]);
        let public = bench.path(&format!("{kind}.pub")).display().to_string();
        let key = bench.path(&format!("{kind}.key")).display().to_string();
        for format in FORMATS {
            let place = Place::new(&bench, &registry, &format!("{kind}/{format}"));
            bench.ok(&["sign", "--key", &key, "--format", format, &place.tag()]);
            let outcome = cosign_verifies(&peers, &public, format, flags, &place.tag());
            assert_eq!(outcome.code, 0, "{kind} {format}: {outcome}");
            // It signs Ed25519ph and verifies Ed25519: what it signed itself it does not verify either.
            if kind != "ed25519" {
                let place = Place::new(&bench, &registry, &format!("{kind}/{format}/theirs"));
                cosign_signs(&peers, &key, format, "", &place.tag());
                bench.ok(&["verify", "--key", &public, "--format", format, &place.tag()]);
            }
        }
    }
}

#[test]
fn signatures_stay_beside_those_of_others() {
    let Some(peers) = Peers::find(&["registry", "olareg", "cosign"]) else { return };
    let bench = with_password();
    cosign(&peers, "generate-key-pair").ok();
    bench.ok(&["keygen", "-o", "ours"]);
    let (theirs, ours) = (peers.path("cosign.pub").display().to_string(), bench.path("ours.pub").display().to_string());
    for (kind, registry) in peers.registries() {
        for format in FORMATS {
            let place = Place::new(&bench, &registry, &format!("both/{format}"));
            let sign = || bench.ok(&["sign", "--key", "ours.key", "--format", format, &place.tag()]);
            sign();
            cosign_signs(&peers, "cosign.key", format, "", &place.tag());
            sign();
            for key in [&theirs, &ours] {
                let outcome = cosign_verifies(&peers, key, format, "", &place.tag());
                assert_eq!(outcome.code, 0, "{kind} {format}: {outcome}");
            }
            bench.ok(&["verify", "--key", &theirs, "--key", &ours, "--format", format, &place.tag()]);
        }
    }
}

#[test]
fn an_archive_is_signed_and_pushed() {
    let Some(peers) = Peers::find(&["registry", "olareg", "cosign", "oras"]) else { return };
    let bench = with_password();
    bench.ok(&["keygen"]);
    let public = bench.path("ocikit.pub").display().to_string();
    fs::copy(testdata("buildkit-multi/image.tar"), bench.path("a.tar")).unwrap();
    bench.ok(&["copy", "a.tar", "oci:layout:1"]);
    for place in ["a.tar", "oci:layout:1"] {
        let digest = bench.ok(&["digest", place]);
        bench.ok(&["sign", "--key", "ocikit.key", "--recursive", "--format=cosign", "--format=cosign-legacy", place]);
        assert_eq!(bench.ok(&["digest", place]), digest, "it is still the only image of {place}");
        bench.ok(&["verify", "--key", &public, "--recursive", "--format=cosign", "--format=cosign-legacy", place]);
        let path = bench.path(place.trim_start_matches("oci:").trim_end_matches(":1"));
        let listed =
            peers.ok(&format!("oras discover --oci-layout --format json {}@{digest}", path.display()));
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let bundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
        let found = listed["referrers"].as_array().or(listed["manifests"].as_array()).unwrap();
        assert!(found.iter().any(|found| found["artifactType"] == bundle), "{listed}");
        for (kind, registry) in peers.registries() {
            let name = format!("from/{}", if place == "a.tar" { "archive" } else { "layout" });
            let reference =
                format!("{}/{name}:1", registry.address.replace("127.0.0.1", "localhost"));
            bench.ok(&["push", place, &reference]);
            bench.ok(&["verify", "--key", &public, "--recursive", &reference]);
            for format in FORMATS {
                let outcome = cosign_verifies(&peers, &public, format, "", &reference);
                assert_eq!(outcome.code, 0, "{kind} {format}: {outcome}");
            }
        }
    }
}
