//! Signatures of ocikit verified by cosign and notation, and their signatures verified by ocikit.

use std::fs;

use ocikit_tests::{Bench, Daemon, Outcome, Peers, run, testdata};
use serde_json::Value;

use crate::bench;

/// A repository with an index of two images, under the name that the signing tools use for the registry.
pub(super) struct Place {
    pub(super) repository: String,
    /// The digests of the index and of its images.
    pub(super) digests: Vec<String>,
}

impl Place {
    pub(super) fn new(bench: &Bench, registry: &Daemon, name: &str) -> Place {
        let repository = format!("{}/{name}", registry.address.replace("127.0.0.1", "localhost"));
        bench.ok(&["push", &testdata("buildkit-multi/image.tar").display().to_string(), &format!("{repository}:1")]);
        let index = bench.ok(&["inspect", "--raw", &format!("{repository}:1")]);
        let index: Value = serde_json::from_str(&index).unwrap();
        let children = index["manifests"].as_array().unwrap().iter();
        let children = children.map(|entry| entry["digest"].as_str().unwrap().to_owned());
        let root = bench.ok(&["digest", &format!("{repository}:1")]);
        Place { repository, digests: std::iter::once(root).chain(children).collect() }
    }

    pub(super) fn tag(&self) -> String {
        format!("{}:1", self.repository)
    }
}

fn with_password() -> Bench {
    bench().with("OCIKIT_KEY_PASSWORD", "secret")
}

/// Runs cosign with the password of all keys here and without any service.
pub(super) fn cosign(peers: &Peers, line: &str) -> Outcome {
    fs::write(peers.path("SC.json"), r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}"#)
        .unwrap();
    let mut command = peers.command("cosign");
    // A test may have installed plugins there.
    let path = format!("{}:{}", peers.path("programs").display(), std::env::var("PATH").unwrap_or_default());
    command.env("PATH", path);
    run(command.args(line.split_whitespace()).env("COSIGN_PASSWORD", "secret"), &[])
}

pub(super) fn cosign_signs(peers: &Peers, key: &str, format: &str, flags: &str, reference: &str) {
    let form = match format {
        "cosign" => "--signing-config SC.json",
        _ => "--use-signing-config=false --new-bundle-format=false --tlog-upload=false",
    };
    cosign(peers, &format!("sign --key {key} {form} {flags} --allow-http-registry -y {reference}")).ok();
}

pub(super) fn cosign_verifies(peers: &Peers, key: &str, format: &str, flags: &str, reference: &str) -> Outcome {
    let form = format!("--new-bundle-format={}", format == "cosign");
    cosign(
        peers,
        &format!("verify --key {key} {form} {flags} --insecure-ignore-tlog --allow-http-registry {reference}"),
    )
}

const FORMATS: [&str; 2] = ["cosign", "cosign-legacy"];

#[test]
fn cosign_verifies_signatures_of_ocikit() {
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
fn ocikit_verifies_signatures_of_cosign() {
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
            // One of two required signatures is not enough.
            let both = bench.ocikit(&["verify", "--key", &public, "--key", "other.pub", &reference]);
            assert_eq!(both.code, 5, "{kind} {format}: {both}");
            assert!(both.stdout.contains("verified by") && both.stdout.contains("missing"), "{both}");
        }
    }
}

#[test]
fn cosign_openssl_and_ocikit_read_each_others_keys() {
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
    // OpenSSL writes a different format by default for each kind of key.
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
    // OpenSSL as the signing program.
    let command = format!("openssl dgst -sha256 -sign {files}/sec1.key");
    let place = Place::new(&bench, &registry, "command");
    bench.ok(&["sign", "--key", "sec1.pub", "--signer-command", &command, &place.tag()]);
    cosign_verifies(&peers, &format!("{files}/sec1.pub"), "cosign", "", &place.tag()).ok();
    let refused = bench.ocikit(&["sign", "--key", "ours.pub", "--signer-command", &command, &place.tag()]);
    assert_eq!(refused.code, 1, "{refused}");
}

#[test]
fn cosign_verifies_every_kind_of_key() {
    let Some(peers) = Peers::find(&["registry", "cosign"]) else { return };
    let (bench, registry) = (with_password(), peers.distribution("registry"));
    // cosign signs P-384 and P-521 with the hash of matching length, and needs a flag to verify that.
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
            // cosign signs Ed25519ph and verifies Ed25519, so it does not verify its own signatures either.
            if kind != "ed25519" {
                let place = Place::new(&bench, &registry, &format!("{kind}/{format}/theirs"));
                cosign_signs(&peers, &key, format, "", &place.tag());
                bench.ok(&["verify", "--key", &public, "--format", format, &place.tag()]);
            }
        }
    }
}

#[test]
fn existing_signatures_of_cosign_are_kept() {
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
        let listed = peers.ok(&format!("oras discover --oci-layout --format json {}@{digest}", path.display()));
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let bundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
        let found = listed["referrers"].as_array().or(listed["manifests"].as_array()).unwrap();
        assert!(found.iter().any(|found| found["artifactType"] == bundle), "{listed}");
        for (kind, registry) in peers.registries() {
            let name = format!("from/{}", if place == "a.tar" { "archive" } else { "layout" });
            let reference = format!("{}/{name}:1", registry.address.replace("127.0.0.1", "localhost"));
            bench.ok(&["push", place, &reference]);
            bench.ok(&["verify", "--key", &public, "--recursive", &reference]);
            for format in FORMATS {
                let outcome = cosign_verifies(&peers, &public, format, "", &reference);
                assert_eq!(outcome.code, 0, "{kind} {format}: {outcome}");
            }
        }
    }
}

#[test]
fn other_tools_read_signed_archives_by_tag() {
    let Some(peers) = Peers::find(&["registry", "crane", "oras", "podman", "regctl", "skopeo"]) else { return };
    let (bench, registry) = (with_password(), peers.distribution("registry"));
    bench.ok(&["keygen"]);
    fs::copy(testdata("buildkit-multi/image.tar"), bench.path("a.tar")).unwrap();
    let digest = bench.ok(&["digest", "a.tar"]);
    bench.ok(&["tag", "a.tar", "1"]);
    bench.ok(&["sign", "--key", "ocikit.key", "--recursive", "a.tar"]);
    bench.ok(&["copy", "a.tar", "oci:layout:1"]);
    let [archive, layout] = ["a.tar", "layout"].map(|name| bench.path(name).display().to_string());
    let peer = |line: &str| {
        let mut words = line.split_whitespace();
        run(peers.command(words.next().unwrap()).args(words), &[])
    };
    let storage = format!("--root {0}/r --runroot {0}/rr", peers.path("").display());
    let podman =
        format!("podman {storage} --storage-driver vfs --cgroup-manager cgroupfs --events-backend none pull -q");
    // podman derives an image name from the path of a layout and refuses capital letters in it.
    let [from_archive, from_layout] = [format!("oci-archive:{archive}"), format!("oci:{layout}")];
    for (line, place) in [("skopeo inspect", &from_archive), ("skopeo inspect", &from_layout), (&podman, &from_archive)]
    {
        let alone = peer(&format!("{line} {place}"));
        assert!(alone.code != 0 && alone.stderr.contains("more than one image"), "{line}: {alone}");
        peers.ok(&format!("{line} {place}:1"));
    }
    assert!(peers.ok(&format!("skopeo inspect {from_archive}:1")).contains(&digest));
    for place in [&archive, &layout] {
        assert!(peers.ok(&format!("oras manifest fetch --oci-layout --descriptor {place}:1")).contains(&digest));
        let listed = peers.ok(&format!("oras discover --oci-layout {place}:1"));
        assert!(listed.contains("application/vnd.dev.sigstore.bundle.v0.3+json"), "{listed}");
    }
    // regctl reads the first entry, which is the image.
    peers.ok(&format!("regctl registry set --tls disabled {}", registry.address));
    peers.ok(&format!("regctl image import {}/from/regctl:1 {archive}", registry.address));
    assert_eq!(bench.ok(&["digest", &format!("{}/from/regctl:1", registry.address)]), digest);
    // crane cannot select one of several entries.
    let crane = peer(&format!("crane push --insecure {layout} {}/from/crane:1", registry.address));
    assert!(crane.code != 0 && crane.stderr.contains("entries"), "{crane}");
}

#[test]
fn cosign_and_ocikit_verify_each_others_attestations() {
    let Some(peers) = Peers::find(&["registry", "olareg", "cosign"]) else { return };
    let bench = with_password();
    cosign(&peers, "generate-key-pair").ok();
    let [key, public] = ["cosign.key", "cosign.pub"].map(|name| peers.path(name).display().to_string());
    let said = serde_json::json!({"buildDefinition": {"buildType": "https://example.com/b", "externalParameters": {}},
        "runDetails": {"builder": {"id": "https://example.com/builder"}}});
    let predicate = bench.path("predicate.json").display().to_string();
    fs::write(&predicate, said.to_string()).unwrap();
    for (kind, registry) in peers.registries() {
        let place = Place::new(&bench, &registry, "ours");
        let line = ["--key", &key, "--type", "slsaprovenance1", "--predicate", &predicate, "--recursive"];
        bench.ok(&[&["attest"], &line[..], &[place.tag().as_str()]].concat());
        for digest in &place.digests {
            let reference = format!("{}@{digest}", place.repository);
            let verify = |kind: &str| {
                let flags = format!("--key {public} --type {kind} --insecure-ignore-tlog --allow-http-registry");
                cosign(&peers, &format!("verify-attestation {flags} {reference}"))
            };
            assert_eq!(verify("slsaprovenance1").code, 0, "{kind}: {}", verify("slsaprovenance1"));
            assert_ne!(verify("spdxjson").code, 0, "{kind}");
        }
        // An attestation is not a signature.
        assert_eq!(bench.ocikit(&["verify", "--key", &public, &place.tag()]).code, 5, "{kind}");

        let place = Place::new(&bench, &registry, "theirs");
        let reference = format!("{}@{}", place.repository, place.digests[0]);
        let flags = "--signing-config SC.json --allow-http-registry -y --type slsaprovenance1";
        cosign(&peers, &format!("attest --key {key} {flags} --predicate {predicate} {reference}")).ok();
        let line = ["verify", "--json", "--key", &public, "--attestation", "slsaprovenance1", &reference];
        let facts: Value = serde_json::from_str(&bench.ok(&line)).unwrap();
        assert_eq!(facts["signatures"][0]["predicate"], said, "{kind}");
        let other = bench.ocikit(&["verify", "--key", &public, "--attestation", "spdxjson", &reference]);
        assert!(other.code == 5 && other.stdout.contains("https://slsa.dev/provenance/v1"), "{kind}: {other}");
    }
}

#[test]
fn cosign_verifies_promoted_buildkit_attestations() {
    let Some(peers) = Peers::find(&["registry", "olareg", "cosign"]) else { return };
    let bench = with_password();
    bench.ok(&["keygen"]);
    let public = bench.path("ocikit.pub").display().to_string();
    for (kind, registry) in peers.registries() {
        // The subject of the statement is the image, whether the image has a name or not.
        for name in ["multi", "image"] {
            let repository = format!("{}/{name}", registry.address.replace("127.0.0.1", "localhost"));
            let tag = format!("{repository}:1");
            bench.ok(&["push", &testdata(&format!("buildkit-attested/{name}.tar")).display().to_string(), &tag]);
            bench.ok(&["attest", "--promote", "--key", "ocikit.key", &tag]);
            let index: Value = serde_json::from_str(&bench.ok(&["inspect", "--raw", &tag])).unwrap();
            let entries = index["manifests"].as_array().unwrap().iter();
            let images: Vec<_> = entries.filter(|entry| entry["platform"]["os"] == "linux").collect();
            assert!(!images.is_empty());
            for image in images {
                let reference = format!("{repository}@{}", image["digest"].as_str().unwrap());
                let verify = |wanted: &str| {
                    let flags = format!("--key {public} --type {wanted} --insecure-ignore-tlog --allow-http-registry");
                    cosign(&peers, &format!("verify-attestation {flags} {reference}"))
                };
                for wanted in ["slsaprovenance1", "spdxjson"] {
                    assert_eq!(verify(wanted).code, 0, "{kind} {name}: {}", verify(wanted));
                    bench.ok(&["verify", "--key", "ocikit.pub", "--attestation", wanted, &reference]);
                }
                assert_ne!(verify("cyclonedx").code, 0, "{kind} {name}");
            }
        }
    }
}

#[test]
fn signatures_and_bundles_of_cosign_are_attached() {
    let Some(peers) = Peers::find(&["registry", "cosign", "openssl"]) else { return };
    let (bench, registry) = (with_password(), peers.distribution("registry"));
    let place = Place::new(&bench, &registry, "made");
    let files = peers.path("").display().to_string();
    peers.ok("openssl ecparam -name prime256v1 -genkey -noout -out sec1.key");
    peers.ok("openssl pkey -in sec1.key -pubout -out sec1.pub");
    let public = format!("{files}sec1.pub");
    // cosign prints the payload, OpenSSL signs it, and neither stores it.
    let payload = cosign(&peers, &format!("generate --allow-http-registry {}@{}", place.repository, place.digests[0]));
    fs::write(peers.path("payload"), payload.ok()).unwrap();
    peers.ok("openssl dgst -sha256 -sign sec1.key -out raw payload");
    peers.ok("openssl base64 -A -in raw -out signature");
    fs::copy(testdata("buildkit-multi/image.tar"), bench.path("a.tar")).unwrap();
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("other.tar")).unwrap();
    let [payload, signature] = ["payload", "signature"].map(|name| format!("{files}{name}"));
    let line = ["attach", "--key", &public, "--payload", &payload, "--signature", &signature];
    let refused = bench.ocikit(&[&line[..], &["other.tar"]].concat());
    assert_eq!(refused.code, 5, "{refused}");
    for target in ["a.tar", &place.tag()] {
        bench.ok(&[&line[..], &[target]].concat());
        bench.ok(&["verify", "--key", &public, "--format", "cosign-legacy", target]);
    }
    cosign_verifies(&peers, &public, "cosign-legacy", "", &place.tag()).ok();
    // A bundle that cosign stored in one place, stored in another.
    cosign(&peers, "generate-key-pair").ok();
    cosign_signs(&peers, "cosign.key", "cosign", "", &format!("{}@{}", place.repository, place.digests[0]));
    let listed: Value = serde_json::from_str(&bench.ok(&["referrers", "--json", &place.tag()])).unwrap();
    let manifest = format!("{}@{}", place.repository, listed["referrers"][0]["digest"].as_str().unwrap());
    let manifest: Value = serde_json::from_str(&bench.ok(&["inspect", "--raw", &manifest])).unwrap();
    let blob = format!("{}@{}", place.repository, manifest["layers"][0]["digest"].as_str().unwrap());
    let bundle = bench.ok(&["blob", "get", &blob]);
    fs::write(bench.path("bundle"), bundle).unwrap();
    let theirs = format!("{files}cosign.pub");
    assert_eq!(bench.ocikit(&["attach", "--key", &public, "--bundle", "bundle", "a.tar"]).code, 5);
    assert_eq!(bench.ocikit(&["attach", "--key", &theirs, "--bundle", "bundle", "other.tar"]).code, 5);
    bench.ok(&["attach", "--key", &theirs, "--bundle", "bundle", "a.tar"]);
    bench.ok(&["verify", "--key", &theirs, "--format", "cosign", "a.tar"]);
}

/// notation with a configuration of this test: a key, its certificate, and a trust policy for it.
pub(super) struct Notation<'a> {
    peers: &'a Peers,
}

impl<'a> Notation<'a> {
    pub(super) fn new(peers: &'a Peers) -> Notation<'a> {
        let notation = Notation { peers };
        notation.run("cert generate-test --default --bits 2048 acme").ok();
        notation.trust("strict", "acme");
        notation
    }

    pub(super) fn run(&self, line: &str) -> Outcome {
        let mut command = self.peers.command("notation");
        command.env("NOTATION_CONFIG", self.peers.path("notation")).env("NOTATION_EXPERIMENTAL", "1");
        run(command.args(line.split_whitespace()), &[])
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.peers.path("notation").join(name).display().to_string()
    }

    /// Writes a trust policy for all repositories.
    fn trust(&self, level: &str, store: &str) {
        self.policy(&serde_json::json!({"level": level}), &[&format!("ca:{store}")]);
    }

    /// Writes a trust policy with these verification settings and trust stores.
    pub(super) fn policy(&self, verification: &Value, stores: &[&str]) {
        let policy = serde_json::json!({"version": "1.0", "trustPolicies": [{
            "name": "all", "registryScopes": ["*"], "signatureVerification": verification,
            "trustStores": stores, "trustedIdentities": ["*"],
        }]});
        fs::write(self.path("trustpolicy.json"), policy.to_string()).unwrap();
    }

    /// Returns the flags of `verify` for that policy.
    pub(super) fn words(&self) -> [String; 2] {
        ["--trust-policy".to_owned(), self.path("trustpolicy.json")]
    }
}

pub(super) const ENVELOPES: [(&str, &str); 2] = [("jws", "notation-jws"), ("cose", "notation-cose")];

#[test]
fn ocikit_verifies_signatures_of_notation() {
    let Some(peers) = Peers::find(&["registry", "olareg", "notation"]) else { return };
    let (bench, notation) = (bench(), Notation::new(&peers));
    notation.run("cert generate-test --bits 3072 stranger").ok();
    for (kind, registry) in peers.registries() {
        for (envelope, format) in ENVELOPES {
            let place = Place::new(&bench, &registry, &format!("acme/{envelope}"));
            let reference = format!("{}@{}", place.repository, place.digests[0]);
            let [flag, policy] = notation.words();
            let verify =
                || bench.ocikit(&["verify", "--json", "--recursive", &flag, &policy, "--format", format, &reference]);
            for digest in &place.digests {
                assert_eq!(verify().code, 5, "{kind} {envelope}");
                // By default notation writes the fallback tag even if the registry lists referrers, and then does not
                // find the signature.
                let flags = format!("--force-referrers-tag={} --insecure-registry", kind == "distribution");
                let flags = format!("{flags} --expiry 24h --user-metadata who=acme");
                notation.run(&format!("sign {flags} --signature-format {envelope} {}@{digest}", place.repository)).ok();
            }
            let facts: Value = serde_json::from_str(&verify().ok()).unwrap();
            let cells = facts["signatures"].as_array().unwrap();
            let covered: Vec<_> = cells.iter().map(|cell| cell["digest"].as_str().unwrap()).collect();
            assert_eq!(covered, place.digests, "{kind} {envelope}");
            for cell in cells {
                assert_eq!((&cell["formats"][0], &cell["metadata"]["who"]), (&format.into(), &"acme".into()), "{cell}");
            }
            // Another trust store trusts another signer; the level `audit` only prints a warning.
            notation.trust("permissive", "stranger");
            assert_eq!(verify().code, 5, "{kind} {envelope}");
            notation.trust("audit", "stranger");
            let facts: Value = serde_json::from_str(&verify().ok()).unwrap();
            assert_eq!(facts["signatures"][0]["warnings"][0], "it is not by the expected signer", "{facts}");
            notation.trust("strict", "acme");
        }
    }
}

#[test]
fn notation_verifies_signatures_of_ocikit() {
    let Some(peers) = Peers::find(&["registry", "olareg", "notation", "openssl"]) else { return };
    let (bench, notation) = (bench(), Notation::new(&peers));
    // A chain of three certificates; notation generates self-signed certificates only.
    let store = peers.path("notation/truststore/x509/ca/company");
    fs::create_dir_all(&store).unwrap();
    fs::write(peers.path("ca.ext"), "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n").unwrap();
    fs::write(peers.path("leaf.ext"), "keyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\n").unwrap();
    for (name, issuer, extensions, curve) in
        [("root", "", "ca", "P-384"), ("middle", "root", "ca", "P-256"), ("signer", "middle", "leaf", "P-384")]
    {
        peers.ok(&format!("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -out {name}.key"));
        peers.ok(&format!("openssl req -new -key {name}.key -subj /C=US/ST=WA/O=Acme/CN={name} -out {name}.csr"));
        let by = match issuer {
            "" => format!("-signkey {name}.key"),
            issuer => format!("-CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial"),
        };
        peers.ok(&format!(
            "openssl x509 -req -sha384 -in {name}.csr {by} -extfile {extensions}.ext -days 2 -out {name}.crt"
        ));
    }
    let chain: String = ["signer", "middle", "root"]
        .map(|name| fs::read_to_string(peers.path(&format!("{name}.crt"))).unwrap())
        .concat();
    fs::write(peers.path("chain.pem"), chain).unwrap();
    fs::copy(peers.path("root.crt"), store.join("root.crt")).unwrap();
    for (kind, registry) in peers.registries() {
        for (envelope, format) in ENVELOPES {
            for (who, key, chain) in [
                ("acme", notation.path("localkeys/acme.key"), notation.path("localkeys/acme.crt")),
                (
                    "company",
                    peers.path("signer.key").display().to_string(),
                    peers.path("chain.pem").display().to_string(),
                ),
            ] {
                let place = Place::new(&bench, &registry, &format!("{who}/{envelope}"));
                notation.trust("strict", who);
                let mut line =
                    vec!["sign", "--recursive", "--format", format, "--key", &key, "--certificate-chain", &chain];
                let tag = place.tag();
                line.extend(["--expiry", "2d", "--user-metadata", "who=us", &tag]);
                bench.ok(&line);
                for digest in &place.digests {
                    let reference = format!("{}@{digest}", place.repository);
                    let verify =
                        || notation.run(&format!("verify --insecure-registry --user-metadata who=us {reference}"));
                    let outcome = verify();
                    assert_eq!(outcome.code, 0, "{kind} {envelope} {who}: {outcome}");
                    notation.trust("strict", if who == "acme" { "company" } else { "acme" });
                    assert_ne!(verify().code, 0, "{kind} {envelope} {who}");
                    notation.trust("strict", who);
                }
                let [flag, policy] = notation.words();
                bench.ok(&["verify", "--recursive", &flag, &policy, &tag]);
            }
        }
    }
}

#[test]
fn a_policy_counts_signers_of_all_formats() {
    let Some(peers) = Peers::find(&["registry", "olareg", "cosign", "notation"]) else { return };
    let (bench, notation) = (with_password(), Notation::new(&peers));
    cosign(&peers, "generate-key-pair").ok();
    bench.ok(&["keygen", "-o", "ours"]);
    fs::copy(peers.path("cosign.pub"), bench.path("theirs.pub")).unwrap();
    notation.run("cert generate-test --bits 2048 second").ok();
    // Two trust policies; the second one trusts both certificates.
    let statement = |level: &str, stores: &[&str]| {
        serde_json::json!({"version": "1.0", "trustPolicies": [{
            "name": "all", "registryScopes": ["*"], "signatureVerification": {"level": level},
            "trustStores": stores, "trustedIdentities": ["*"],
        }]})
        .to_string()
    };
    fs::write(bench.path("corp.json"), statement("strict", &["ca:acme"])).unwrap();
    fs::write(bench.path("other.json"), statement("strict", &["ca:acme", "ca:second"])).unwrap();
    let store = notation.path("truststore");
    let policy = |rules: &str| {
        let signers = format!(
            "ours: {{key: ours.pub}}\n  theirs: {{key: theirs.pub}}\n  corp: {{trustPolicy: corp.json, trustStore: {store}}}\n  \
             other: {{trustPolicy: other.json, trustStore: {store}}}"
        );
        let text = format!("version: 1\nsigners:\n  {signers}\nrules: [{{scope: '*', require: [{rules}]}}]");
        fs::write(bench.path("policy.yaml"), text).unwrap();
    };
    for (kind, registry) in peers.registries() {
        let place = Place::new(&bench, &registry, "acme/app");
        let reference = format!("{}@{}", place.repository, place.digests[0]);
        let asks = |rules: &str| {
            policy(rules);
            bench.ocikit(&["verify", "--policy", "policy.yaml", &reference]).code
        };
        let two = "{signers: [ours, theirs, corp], threshold: 2}";
        cosign_signs(&peers, "cosign.key", "cosign", "", &reference);
        assert_eq!(asks(two), 5, "{kind}");
        let archive = format!("{kind}.tar");
        assert_eq!(bench.ocikit(&["copy", "--verify", "policy.yaml", &reference, &archive]).code, 5, "{kind}");
        let flags = format!("--insecure-registry --force-referrers-tag={}", kind == "distribution");
        notation.run(&format!("sign {flags} --key acme {reference}")).ok();
        assert_eq!(asks(two), 0, "{kind}");
        bench.ok(&["copy", "--verify", "policy.yaml", &reference, &archive]);
        bench.ok(&["verify", "--policy", "policy.yaml", &archive]);
        assert_eq!(
            asks("{signers: [theirs], formats: [cosign]}, {signers: [corp], formats: [notation-jws]}"),
            0,
            "{kind}"
        );
        assert_eq!(asks("{signers: [corp], formats: [notation-cose]}"), 5, "{kind}");
        // Both policies trust the same certificate, which is one signer.
        assert_eq!((asks("{signers: [corp]}, {signers: [other]}"), asks("{signers: [corp, other]}")), (0, 5), "{kind}");
        notation.run(&format!("sign {flags} --key second {reference}")).ok();
        assert_eq!(asks("{signers: [corp, other]}"), 0, "{kind}");
        fs::write(bench.path("corp.json"), statement("audit", &["ca:acme"])).unwrap();
        assert_eq!(asks("{signers: [corp]}"), 2, "{kind}: a policy that only audits identifies no signer");
        fs::write(bench.path("corp.json"), statement("strict", &["ca:acme"])).unwrap();
    }
}

#[test]
fn envelopes_of_notation_are_attached() {
    let Some(peers) = Peers::find(&["registry", "olareg", "notation"]) else { return };
    let (bench, notation) = (bench(), Notation::new(&peers));
    notation.run("cert generate-test --bits 2048 stranger").ok();
    let registries = peers.registries();
    let (_, registry) = registries.iter().find(|(kind, _)| *kind == "olareg").unwrap();
    for (envelope, format) in ENVELOPES {
        let made = Place::new(&bench, registry, &format!("made/{envelope}"));
        let flags = "--insecure-registry --force-referrers-tag=false";
        let reference = format!("{}@{}", made.repository, made.digests[0]);
        notation.run(&format!("sign {flags} --signature-format {envelope} {reference}")).ok();
        let listed: Value = serde_json::from_str(&bench.ok(&["referrers", "--json", &made.tag()])).unwrap();
        let manifest = format!("{}@{}", made.repository, listed["referrers"][0]["digest"].as_str().unwrap());
        let manifest: Value = serde_json::from_str(&bench.ok(&["inspect", "--raw", &manifest])).unwrap();
        let blob = format!("{}@{}", made.repository, manifest["layers"][0]["digest"].as_str().unwrap());
        bench.ok(&["blob", "get", &blob, "-o", "envelope"]);

        let place = Place::new(&bench, registry, &format!("other/{envelope}"));
        fs::copy(testdata("buildkit-multi/image.tar"), bench.path("a.tar")).unwrap();
        fs::copy(testdata("buildkit-single/image.tar"), bench.path("other.tar")).unwrap();
        let [flag, policy] = notation.words();
        let attach = |more: &[&str]| bench.ocikit(&[&["attach", "--json", "--envelope", "envelope"], more].concat());
        for target in ["a.tar", &place.tag()] {
            notation.trust("strict", "stranger");
            assert_eq!(attach(&[&flag, &policy, target]).code, 5, "{envelope}");
            notation.trust("audit", "stranger");
            assert_eq!(
                attach(&[&flag, &policy, target]).code,
                2,
                "{envelope}: a policy that only audits identifies no signer"
            );
            notation.trust("strict", "acme");
            assert_eq!(attach(&[&flag, &policy, "other.tar"]).code, 5, "{envelope}: another subject");
            assert_eq!(attach(&["--unverified", "other.tar"]).code, 5, "{envelope}: the subject is always checked");
            assert_eq!(bench.ocikit(&["verify", &flag, &policy, target]).code, 5, "{envelope}");
            let facts: Value = serde_json::from_str(&attach(&[&flag, &policy, target]).ok()).unwrap();
            assert_eq!((&facts["checked"], &facts["signatures"][0]["format"]), (&"signer".into(), &format.into()));
            bench.ok(&["verify", &flag, &policy, "--format", format, target]);
        }
        notation.run(&format!("verify --insecure-registry {}@{}", place.repository, place.digests[0])).ok();
        // Without a trust anchor the signer is not verified, and the command says so.
        fs::copy(testdata("buildkit-multi/image.tar"), bench.path("b.tar")).unwrap();
        let unverified = attach(&["--unverified", "b.tar"]);
        let facts: Value = serde_json::from_str(&unverified.stdout).unwrap();
        assert_eq!(facts["checked"], "subject");
        assert!(unverified.stderr.contains("the signer was not verified"), "{unverified}");
        bench.ok(&["verify", &flag, &policy, "b.tar"]);
    }
}

#[test]
fn notation_and_ocikit_read_each_others_layouts() {
    let Some(peers) = Peers::find(&["notation", "oras"]) else { return };
    let (bench, notation) = (bench(), Notation::new(&peers));
    notation.trust("strict", "acme");
    let source = testdata("buildkit-multi/image.tar").display().to_string();
    for (envelope, format) in ENVELOPES {
        let place = format!("oci:{envelope}:1");
        bench.ok(&["copy", &source, &place]);
        let (digest, path) = (bench.ok(&["digest", &place]), bench.path(envelope).display().to_string());
        let (key, chain) = (notation.path("localkeys/acme.key"), notation.path("localkeys/acme.crt"));
        bench.ok(&["sign", "--format", format, "--key", &key, "--certificate-chain", &chain, &place]);
        assert_eq!(bench.ok(&["digest", &place]), digest);
        notation.run(&format!("verify --oci-layout --scope local/app {path}@{digest}")).ok();
        let listed = peers.ok(&format!("oras discover --oci-layout --format json {path}@{digest}"));
        assert!(listed.contains("application/vnd.cncf.notary.signature"), "{listed}");

        let place = format!("oci:{envelope}-theirs:1");
        bench.ok(&["copy", &source, &place]);
        let path = bench.path(&format!("{envelope}-theirs")).display().to_string();
        let [flag, policy] = notation.words();
        assert_eq!(bench.ocikit(&["verify", &flag, &policy, &place]).code, 5);
        notation.run(&format!("sign --oci-layout --signature-format {envelope} {path}@{digest}")).ok();
        bench.ok(&["verify", &flag, &policy, "--scope", "local/app", &place]);
    }
}
