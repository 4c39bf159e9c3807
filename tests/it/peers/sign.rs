//! Signatures and attestations of ocikit verified by cosign, and those of cosign verified by ocikit.

use std::fs;

use ocikit_tests::{Bench, Daemon, Outcome, Peers, fixture, json, multi, run, testdata};

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
        bench.ok(&["push", &multi(), &format!("{repository}:1")]);
        let index = bench.ok(&["inspect", "--raw", &format!("{repository}:1")]);
        let index = json(&index);
        let children = index["manifests"].as_array().unwrap().iter();
        let children = children.map(|entry| entry["digest"].as_str().unwrap().to_owned());
        let root = bench.ok(&["digest", &format!("{repository}:1")]);
        Place { repository, digests: std::iter::once(root).chain(children).collect() }
    }

    pub(super) fn tag(&self) -> String {
        format!("{}:1", self.repository)
    }
}

pub(super) fn with_password() -> Bench {
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
            let facts = bench.json(&line);
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

/// The crate `sigstore` does simple signing, which is the format `cosign-legacy`, with keys that are not encrypted.
#[test]
fn the_crate_sigstore_and_ocikit_verify_each_other() {
    let Some(peers) = Peers::find(&["registry", "sigstore-rs"]) else { return };
    let (bench, registry) = (bench(), peers.distribution("registry"));
    for name in ["ours", "other"] {
        bench.ok(&["keygen", "--unencrypted", "-o", name]);
    }
    let [key, public, other] = ["ours.key", "ours.pub", "other.pub"].map(|name| bench.path(name).display().to_string());
    let theirs =
        |command: &str, key: &str, image: &str| run(peers.command("sigstore-rs").args([command, key, image]), &[]);

    let place = Place::new(&bench, &registry, "by-us");
    assert_ne!(theirs("verify", &public, &place.tag()).code, 0, "it is not signed yet");
    bench.ok(&["sign", "--key", &key, "--format", "cosign-legacy", &place.tag()]);
    assert_eq!(theirs("verify", &public, &place.tag()).ok(), place.digests[0]);
    assert_ne!(theirs("verify", &other, &place.tag()).code, 0);

    let place = Place::new(&bench, &registry, "by-them");
    let verify = |key: &str| bench.ocikit(&["verify", "--key", key, "--format", "cosign-legacy", &place.tag()]);
    assert_eq!(verify(&public).code, 5, "it is not signed yet");
    assert_eq!(theirs("sign", &key, &place.tag()).ok(), place.digests[0]);
    assert_eq!(verify(&public).code, 0, "{}", verify(&public));
    assert_eq!(verify(&other).code, 5);
    assert_eq!(theirs("verify", &public, &place.tag()).ok(), place.digests[0]);
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
        let listed = json(&listed);
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
        let facts = bench.json(&line);
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
            bench.ok(&["push", &fixture(&format!("buildkit-attested/{name}.tar")), &tag]);
            bench.ok(&["attest", "--promote", "--key", "ocikit.key", &tag]);
            let index = bench.json(&["inspect", "--raw", &tag]);
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
    let listed = bench.json(&["referrers", "--json", &place.tag()]);
    let manifest = format!("{}@{}", place.repository, listed["referrers"][0]["digest"].as_str().unwrap());
    let manifest = bench.json(&["inspect", "--raw", &manifest]);
    let blob = format!("{}@{}", place.repository, manifest["layers"][0]["digest"].as_str().unwrap());
    let bundle = bench.ok(&["blob", "get", &blob]);
    bench.write("bundle", bundle);
    let theirs = format!("{files}cosign.pub");
    assert_eq!(bench.ocikit(&["attach", "--key", &public, "--bundle", "bundle", "a.tar"]).code, 5);
    assert_eq!(bench.ocikit(&["attach", "--key", &theirs, "--bundle", "bundle", "other.tar"]).code, 5);
    bench.ok(&["attach", "--key", &theirs, "--bundle", "bundle", "a.tar"]);
    bench.ok(&["verify", "--key", &theirs, "--format", "cosign", "a.tar"]);
}
