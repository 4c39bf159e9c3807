//! How `verify`, `sign` and copies with a policy handle untrusted content stored with images.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ocikit_spec::{Descriptor, Digest, MediaType};
use ocikit_tests::{Bench, Registry, json, single, testdata};
use serde_json::{Value, json};

use crate::bench;
use crate::hostile::run_measured;

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn with_keys() -> Bench {
    let bench = bench();
    for name in ["release", "stranger"] {
        bench.ok(&["keygen", "--unencrypted", "-o", name]);
    }
    bench
}

/// A layout that is written by hand.
struct Layout<'a>(&'a Path);

impl Layout<'_> {
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(MediaType::new(media_type), bytes);
        let directory = self.0.join("blobs/sha256");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(descriptor.digest.hex()), bytes).unwrap();
        descriptor
    }

    fn document(&self, media_type: &MediaType, fields: Value) -> Descriptor {
        let mut document = json!({"schemaVersion": 2, "mediaType": media_type});
        document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.blob(media_type.as_str(), document.to_string().as_bytes())
    }

    fn manifest(&self, fields: Value) -> Descriptor {
        self.document(&MediaType::OCI_MANIFEST, fields)
    }

    fn image(&self, number: usize) -> Descriptor {
        let config = json!({"architecture": "amd64", "os": "linux", "author": number.to_string(),
            "rootfs": {"type": "layers", "diff_ids": []}});
        let config = self.blob(MediaType::OCI_CONFIG.as_str(), config.to_string().as_bytes());
        self.manifest(json!({"config": config, "layers": []}))
    }

    /// Writes the manifest of a bundle about a subject.
    fn bundle(&self, subject: &Descriptor, layer: &Descriptor, number: usize) -> Descriptor {
        let config = self.blob(MediaType::OCI_EMPTY.as_str(), b"{}");
        self.manifest(json!({"artifactType": BUNDLE, "config": config, "layers": [layer], "subject": subject,
            "annotations": {"number": number.to_string()}}))
    }

    fn finish(&self, root: &Descriptor, others: &[Descriptor]) {
        let mut first = root.clone();
        first.annotations.insert("org.opencontainers.image.ref.name", "1");
        let roots: Vec<_> = [&first].into_iter().chain(others).collect();
        fs::write(self.0.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        fs::write(self.0.join("index.json"), json!({"schemaVersion": 2, "manifests": roots}).to_string()).unwrap();
    }
}

/// Returns JSON with a long list of zeros, which takes twenty times its size once parsed.
fn zeros(before: &str, after: &str, bytes: usize) -> Vec<u8> {
    let mut text = before.as_bytes().to_vec();
    while text.len() + after.len() + 3 < bytes {
        text.extend(b"0,");
    }
    text.extend(b"0");
    text.extend(after.as_bytes());
    text
}

#[test]
fn untrusted_signatures_take_bounded_memory() {
    let bench = with_keys();
    fs::create_dir(bench.path("layout")).unwrap();
    let path = bench.path("layout");
    let layout = Layout(&path);
    let image = layout.image(0);
    let material = r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":""},"tlogEntries":["#;
    let envelope = format!(
        r#"]}},"dsseEnvelope":{{"payload":"{}","payloadType":"application/vnd.in-toto+json","signatures":[{{"sig":""}}]}}}}"#,
        STANDARD.encode("{}")
    );
    let large = layout.blob(BUNDLE, &zeros(material, &envelope, 16 << 20));
    let mut others: Vec<_> = (0..150).map(|number| layout.bundle(&image, &large, number)).collect();
    // Three more that differ.
    for number in 1..4 {
        let bundle = zeros(material, &envelope, (16 << 20) - 100 * number);
        others.push(layout.bundle(&image, &layout.blob(BUNDLE, &bundle), number));
    }
    layout.finish(&image, &others);
    let (outcome, cost) = run_measured(&bench, &["verify", "--key", "release.pub", "oci:layout:1"]);
    assert_eq!(outcome.code, 5, "{outcome}");
    assert_eq!(outcome.stdout.matches("its signature is wrong").count(), 4, "each content is read once\n{outcome}");
    assert!(cost.kibibytes < 200 << 10, "{} KiB", cost.kibibytes);
    // More signatures than the limit.
    others.extend((1000..2000).map(|number| layout.bundle(&image, &large, number)));
    layout.finish(&image, &others);
    let outcome = bench.ocikit(&["verify", "--key", "release.pub", "oci:layout:1"]);
    assert!(outcome.code == 1 && outcome.stderr.contains("more than 1000 possible signatures"), "{outcome}");
}

#[test]
fn an_entry_that_is_not_understood_is_not_verified() {
    let bench = with_keys();
    fs::create_dir(bench.path("layout")).unwrap();
    let path = bench.path("layout");
    let layout = Layout(&path);
    let image = layout.image(0);
    let index = |entries: Value| layout.document(&MediaType::OCI_INDEX, json!({"manifests": entries}));
    layout.finish(&index(json!([image])), &[]);
    bench.ok(&["sign", "--key", "release.key", "--recursive", "oci:layout:1"]);
    let signed: Value = serde_json::from_slice(&fs::read(path.join("index.json")).unwrap()).unwrap();
    let signed: Vec<Descriptor> = serde_json::from_value(signed["manifests"].clone()).unwrap();
    let other = layout.image(1);
    let strange = layout.blob("application/vnd.acme.script", b"#!/bin/sh");
    for (media_type, entry, said) in [
        ("application/vnd.acme.image", &other, "missing"),
        ("", &other, "missing"),
        ("APPLICATION/VND.OCI.IMAGE.MANIFEST.V1+JSON", &other, "missing"),
        ("application/vnd.oci.image.manifest.v1+json;v=1", &other, "missing"),
        ("application/vnd.acme.script", &strange, "not-understood"),
    ] {
        let entry = Descriptor { media_type: MediaType::new(media_type), ..entry.clone() };
        layout.finish(&index(json!([image, entry])), &signed[1..]);
        let line = ["verify", "--key", "release.pub", "--recursive", "--images-only", "oci:layout:1"];
        let outcome = bench.ocikit(&line);
        assert!(outcome.code == 5 && outcome.stdout.contains(said), "`{media_type}`: {outcome}");
        assert_eq!(outcome.stdout.matches(" verified by ").count(), 1, "`{media_type}`: {outcome}");
    }
    let refused = bench.ocikit(&["sign", "--key", "release.key", "--recursive", "oci:layout:1"]);
    assert!(refused.code == 2 && refused.stderr.contains("cannot sign"), "{refused}");
}

#[test]
fn documents_that_go_reads_differently_are_not_verified() {
    let bench = with_keys();
    fs::create_dir(bench.path("layout")).unwrap();
    let policy = "version: 1\nsigners: {release: {key: release.pub}}\n\
        rules: [{scope: '*', depth: leaves, require: [{signers: [release]}]}]\n";
    bench.write("policy.yaml", policy);
    let path = bench.path("layout");
    let layout = Layout(&path);
    let (signed, other) = (layout.image(0), layout.image(1));
    let (signed_entry, other_entry) = (json!(signed).to_string(), json!(other).to_string());
    let index = |text: String| layout.blob(MediaType::OCI_INDEX.as_str(), text.as_bytes());
    let list = |entries: &str| {
        format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{entries}]}}"#, MediaType::OCI_INDEX)
    };
    let with = |object: &str, more: &str| format!("{},{more}}}", &object[..object.len() - 1]);
    let statement = layout.blob(
        "application/vnd.in-toto+json",
        br#"{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"x","subject":[],"predicate":{}}"#,
    );
    // An attestation manifest needs no signature, unless it could be run.
    let attestation = |config: &str, more: &str| {
        let config = layout.blob(MediaType::OCI_CONFIG.as_str(), config.as_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": config,
            "layers": [statement]});
        let manifest = with(&manifest.to_string(), more);
        let entry = layout.blob(MediaType::OCI_MANIFEST.as_str(), manifest.as_bytes());
        with(
            &json!(entry).to_string(),
            r#""platform":{"architecture":"unknown","os":"unknown"},"annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#,
        )
    };
    let unknown = r#"{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let evil = |digest: &str, size: &str| format!(r#""{digest}":"{}","{size}":{}"#, other.digest, other.size);
    layout.finish(&index(list(&signed_entry)), &[]);
    bench.ok(&["sign", "--key", "release.key", "--recursive", "oci:layout:1"]);
    let roots: Value = serde_json::from_slice(&fs::read(path.join("index.json")).unwrap()).unwrap();
    let roots: Vec<Descriptor> = serde_json::from_value(roots["manifests"].clone()).unwrap();
    let good = attestation(unknown, r#""x":1"#);
    let both = |entry: &str| list(&format!("{signed_entry},{entry}"));
    for (number, (text, accepted)) in [
        (both(&good), true),
        (list(&with(&signed_entry, &evil("Digest", "Size"))), false),
        (list(&with(&signed_entry, &evil("dige\u{17f}t", "\u{17f}ize"))), false),
        (with(&list(&signed_entry), &format!("\"manife\u{17f}ts\":[{other_entry}]")), false),
        (both(&with(&good, &evil("Digest", "Size"))), false),
        (both(&with(&good, r#""Platform":{"architecture":"arm64","os":"linux"}"#)), false),
        (both(&good.replace(r#""os":"unknown""#, r#""os":"unknown","OS":"linux""#)), false),
        (both(&attestation(unknown, "\"layer\u{17f}\":[]")), false),
        (both(&attestation(&with(unknown, r#""Architecture":"arm64","OS":"linux""#), r#""x":1"#)), false),
    ]
    .into_iter()
    .enumerate()
    {
        layout.finish(&index(text.clone()), &roots[1..]);
        let verify = ["verify", "--key", "release.pub", "--recursive", "--images-only", "oci:layout:1"];
        let target = format!("oci:copied-{number}:1");
        let copy = ["copy", "--verify", "policy.yaml", "oci:layout:1", &target];
        for line in [&verify[..], &copy] {
            let outcome = bench.ocikit(line);
            let expected: &[i32] = if accepted { &[0] } else { &[3, 5] };
            assert!(expected.contains(&outcome.code), "{text}: {outcome}");
        }
        let copied = bench.path(&format!("copied-{number}")).join("index.json");
        assert_eq!(copied.exists(), accepted, "{text}");
    }
}

#[test]
fn only_verified_referrers_are_copied_with_a_policy() {
    let bench = with_keys();
    let rules = "[{scope: '*', require: [{signers: [release]}]}]";
    fs::write(
        bench.path("policy.yaml"),
        format!("version: 1\nsigners: {{release: {{key: release.pub}}}}\nrules: {rules}\n"),
    )
    .unwrap();
    let (from, to) = (Registry::start(), Registry::start());
    let source = format!("{}/acme/app:1", from.name());
    bench.ok(&["push", &single(), &source]);
    bench.ok(&["sign", "--key", "release.key", &source]);
    bench.ok(&["sign", "--key", "stranger.key", &source]);
    bench.write("said.json", "{}");
    for key in ["release.key", "stranger.key"] {
        bench.ok(&["attest", "--key", key, "--type", "custom", "--predicate", "said.json", &source]);
    }
    let count = |place: &str| bench.ok(&["referrers", place]).lines().count();
    assert_eq!(count(&source), 4);
    for (name, more, copied, said) in [
        ("verified", &[][..], 2, "skipping a referrer that the policy does not verify: sha256:"),
        ("all", &["--referrers", "all"], 4, "copying a referrer that the policy does not verify: sha256:"),
        ("none", &["--referrers", "none"], 0, ""),
        ("never", &["--no-referrers"], 0, ""),
    ] {
        let target = format!("{}/acme/{name}:1", to.name());
        let outcome = bench.ocikit(&[&["copy", "--verify", "policy.yaml", &source, &target][..], more].concat());
        assert_eq!(outcome.code, 0, "{outcome}");
        let named = outcome.stderr.lines().filter(|line| !said.is_empty() && line.contains(said)).count();
        assert_eq!((count(&target), named), (copied, if said.is_empty() { 0 } else { 2 }), "{name}: {outcome}");
        let image = format!("{{from: {}/acme/app, to: {}/mirror/{name}, tags: ['1']}}", from.name(), to.name());
        bench.write("sync.yaml", format!("images: [{image}]\n"));
        if name != "never" {
            bench.ok(&[&["sync", "--verify", "policy.yaml", "sync.yaml"][..], more].concat());
            assert_eq!(count(&format!("{}/mirror/{name}:1", to.name())), copied, "{name}");
        }
    }
    for line in [
        &["copy", "--referrers", "verified", &source, "oci:layout:1"][..],
        &["copy", "--verify", "policy.yaml", "--referrers", "all", "--no-referrers", &source, "oci:layout:1"],
    ] {
        assert_eq!(bench.ocikit(line).code, 2, "{line:?}");
    }
}

#[test]
fn flags_that_a_format_ignores_are_refused() {
    let bench = with_keys();
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    let before = fs::read(bench.path("a.tar")).unwrap();
    for (format, flag, value) in [
        ("cosign", "--certificate-chain", "chain.pem"),
        ("cosign", "--reference", "acme/app"),
        ("notation-jws", "--reference", "acme/app"),
        ("notation-jws", "--rekor-url", "http://localhost:1"),
        ("notation-cose", "--trusted-root", "root.json"),
    ] {
        let outcome = bench.ocikit(&["sign", "--key", "release.key", "--format", format, flag, value, "a.tar"]);
        let said = format!("{flag} does not apply to the format {format}");
        assert!(outcome.code == 2 && outcome.stderr.contains(&said), "{outcome}");
    }
    let root = bench.ocikit(&["sign", "--key", "release.key", "--trusted-root", "root.json", "a.tar"]);
    assert!(root.code == 2 && root.stderr.contains("no service is named"), "{root}");
    let signed_as = ["verify", "--key", "release.pub", "--signed-as", "acme/app", "--format", "cosign", "a.tar"];
    assert_eq!(bench.ocikit(&signed_as).code, 2);
    assert!(fs::read(bench.path("a.tar")).unwrap() == before);
    // A flag is accepted if one of several formats uses it.
    let both = [
        "sign",
        "--key",
        "release.key",
        "--format=cosign",
        "--format=cosign-legacy",
        "--reference",
        "acme/app",
        "a.tar",
    ];
    bench.ok(&both);
}

#[test]
fn statements_about_an_image_before_it_was_annotated_are_signed_on_request() {
    let bench = with_keys();
    fs::copy(testdata("buildkit-attested/multi.tar"), bench.path("a.tar")).unwrap();
    bench.ok(&["annotate", "a.tar", "acme=1"]);
    let promote =
        |more: &[&str]| bench.ocikit(&[&["attest", "--promote", "--key", "release.key", "a.tar"][..], more].concat());
    let refused = promote(&[]);
    assert!(refused.code == 5 && refused.stderr.contains("before it was annotated"), "{refused}");
    let (_, flags) = refused.stderr.split_once("add `").unwrap();
    let flags: Vec<_> = flags.split('`').next().unwrap().split(' ').collect();
    assert_eq!((flags[0], flags.len() % 2), ("--annotated-from", 0), "{refused}");
    promote(&flags[..]).ok();
    let verify = ["verify", "--json", "--recursive", "--images-only", "--key", "release.pub", "--attestation"];
    let facts = bench.json(&[&verify[..], &["slsaprovenance1", "a.tar"]].concat());
    let signature = facts["signatures"][0]["signature"].as_str().unwrap();
    let manifest = bench.ok(&["manifest", "get", &format!("a.tar@{signature}")]);
    let manifest = json(&manifest);
    let recorded = manifest["annotations"]["dev.ocikit.annotated-from"].as_str().unwrap();
    assert!(flags.contains(&recorded), "{manifest}");
    // cosign writes the artifact type into the config descriptor, and `cosign clean` depends on it.
    assert_eq!((&manifest["config"]["artifactType"], &manifest["artifactType"]), (&BUNDLE.into(), &BUNDLE.into()));
    // Another digest is refused.
    let zeros = Digest::sha256_of(b"").to_string();
    assert_eq!(promote(&["--annotated-from", &zeros]).code, 5);
}

#[test]
fn signed_as_requires_a_signature_that_names_a_repository() {
    let bench = bench();
    bench.ok(&["keygen", "--unencrypted", "-o", "release"]);
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    bench.ok(&["sign", "--key", "release.key", "a.tar"]);
    let verify = |name: &str| bench.ocikit(&["verify", "--key", "release.pub", "--signed-as", name, "a.tar"]);
    let outcome = verify("docker.io/acme/app");
    assert!(
        outcome.code == 5 && outcome.stderr.contains("only cosign-legacy signatures name a repository"),
        "{outcome}"
    );
    let legacy =
        ["sign", "--key", "release.key", "--format", "cosign-legacy", "--reference", "docker.io/acme/app", "a.tar"];
    bench.ok(&legacy);
    assert_eq!((verify("docker.io/acme/app").code, verify("docker.io/acme/other").code), (0, 5));
}
