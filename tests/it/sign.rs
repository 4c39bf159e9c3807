//! `keygen`, `sign` and `verify` without tools of other projects.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use insta::assert_snapshot;
use ocikit_image::{CopyOptions, Memory, Name, Naming, Root, Sink, copy, testing};
use ocikit_layout::Dir;
use ocikit_sign::{Outcome, PublicKey, Trust, VerifyOptions, verify};
use ocikit_tests::{Bench, Registry, fixture, json, single, testdata};

use crate::bench;

/// The keys are not encrypted, because each use of an encrypted key derives a key from its password, which is slow on purpose.
pub(crate) fn with_keys() -> Bench {
    let bench = bench();
    for name in ["ocikit", "other"] {
        bench.ok(&["keygen", "--unencrypted", "-o", name]);
    }
    bench
}

pub(crate) const BOTH: [&str; 2] = ["--format=cosign", "--format=cosign-legacy"];

#[test]
fn key_files_are_private_and_not_overwritten() {
    let bench = bench().with("COSIGN_PASSWORD", "secret");
    assert_eq!(bench.ok(&["keygen", "-o", "a.b"]), "a.b.key\na.b.pub");
    for name in ["a.b.key", "a.b.pub"] {
        assert_eq!(fs::metadata(bench.path(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let before = fs::read(bench.path("a.b.key")).unwrap();
    assert!(before.starts_with(b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"));
    let body: String = String::from_utf8_lossy(&before).lines().filter(|line| !line.starts_with('-')).collect();
    let body = String::from_utf8(STANDARD.decode(body).unwrap()).unwrap();
    assert!(body.contains(r#""N":65536"#), "{body}");
    let again = bench.ocikit(&["keygen", "-o", "a.b"]);
    assert_eq!(again.code, 2, "{again}");
    assert_eq!(fs::read(bench.path("a.b.key")).unwrap(), before);
    // An existing public key prevents writing the private key.
    bench.write("half.pub", "");
    assert_eq!(bench.ocikit(&["keygen", "-o", "half"]).code, 2);
    assert!(!bench.path("half.key").exists());

    bench.ok(&["keygen", "--unencrypted", "--type", "ed25519", "-o", "plain"]);
    assert!(bench.read("plain.key").starts_with("-----BEGIN PRIVATE KEY-----\n"));
    let no_password = crate::bench().ocikit(&["keygen"]);
    assert_eq!(no_password.code, 2, "{no_password}");
}

#[test]
fn passwords_come_from_a_file_or_the_environment() {
    let bench = bench().with("OCIKIT_KEY_PASSWORD", "secret");
    bench.ok(&["keygen", "-o", "ocikit"]);
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    bench.write("right", "secret\n");
    bench.write("wrong", "Secret\n");
    bench.ok(&["sign", "--key", "ocikit.key", "--key-password-file", "right", "a.tar"]);
    let refused = bench.ocikit(&["sign", "--key", "ocikit.key", "--key-password-file", "wrong", "a.tar"]);
    assert_snapshot!(refused, @r"
    exit 4
    --- stderr
    error: ocikit.key: the key is encrypted and the password is wrong
    hint: give the password with --key-password-file, OCIKIT_KEY_PASSWORD or COSIGN_PASSWORD
    ");
    let public = bench.ocikit(&["sign", "--key", "ocikit.pub", "a.tar"]);
    assert_eq!(public.code, 2, "{public}");
}

#[test]
fn signatures_verify_in_archives_layouts_and_registries() {
    let (bench, registry) = (with_keys(), Registry::start());
    fs::copy(testdata("buildkit-attested/multi.tar"), bench.path("a.tar")).unwrap();
    bench.ok(&["copy", "a.tar", "oci:layout:1"]);
    let reference = format!("{}/acme/app:1", registry.name());
    bench.ok(&["push", "a.tar", &reference]);
    for place in ["a.tar", "oci:layout:1", &reference] {
        let digest = bench.ok(&["digest", place]);
        for flag in BOTH {
            let verify =
                |more: &[&str]| bench.ocikit(&[&["verify", "--key", "ocikit.pub", flag, place], more].concat());
            assert_eq!(verify(&[]).code, 5, "{place} {flag}");
            bench.ok(&["sign", "--key", "ocikit.key", flag, place]);
            assert_eq!(verify(&[]).code, 0, "{place} {flag}");
            assert_eq!(verify(&["--recursive"]).code, 5, "{place} {flag}");
            bench.ok(&["sign", "--key", "ocikit.key", "--recursive", flag, place]);
            assert_eq!(verify(&["--recursive"]).code, 0, "{place} {flag}");
            assert_eq!(verify(&["--recursive", "--attestation-manifests"]).code, 5, "{place} {flag}");
            bench.ok(&["sign", "--key", "ocikit.key", "--recursive", "--attestation-manifests", flag, place]);
            assert_eq!(verify(&["--recursive", "--attestation-manifests"]).code, 0, "{place} {flag}");
            assert_eq!(verify(&["--key", "other.pub"]).code, 5, "{place} {flag}");
            assert_eq!(verify(&["--expect", &digest]).code, 0, "{place} {flag}");
        }
        assert_eq!(bench.ok(&["digest", place]), digest, "{place}: it is still the only image");
        bench.ok(&["validate", place]);
    }
    // Signatures made in an archive are copied with the image.
    let other = format!("{}/acme/other:1", registry.name());
    bench.ok(&["push", "a.tar", &other]);
    for flag in BOTH {
        bench.ok(&["verify", "--key", "ocikit.pub", "--recursive", "--attestation-manifests", flag, &other]);
    }
    bench.ok(&["pull", &other, "-o", "back.tar"]);
    bench.ok(&["verify", "--key", "ocikit.pub", "--recursive", BOTH[0], BOTH[1], "back.tar"]);
}

#[test]
fn an_unexpected_digest_is_not_signed() {
    let bench = with_keys();
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("a.tar")).unwrap();
    let before = fs::read(bench.path("a.tar")).unwrap();
    let zeros = format!("sha256:{}", "0".repeat(64));
    for words in [vec!["sign", "--key", "ocikit.key"], vec!["verify", "--key", "ocikit.pub"]] {
        let outcome = bench.ocikit(&[&words[..], &["--expect", &zeros, "a.tar"]].concat());
        assert_eq!(outcome.code, 5, "{outcome}");
    }
    bench.ok(&["sign", "--key", "ocikit.key", "--dry-run", "a.tar"]);
    assert_eq!(fs::read(bench.path("a.tar")).unwrap(), before);
}

#[test]
fn verify_reports_each_digest_signer_and_format() {
    let bench = with_keys().with("SOURCE_DATE_EPOCH", "1700000000");
    fs::copy(testdata("buildkit-multi/image.tar"), bench.path("a.tar")).unwrap();
    bench.ok(&["sign", "--key", "ocikit.key", "--recursive", "a.tar"]);
    bench.ok(&["sign", "--key", "other.key", "a.tar"]);
    let line = ["verify", "--recursive", "--key", "ocikit.pub", "--key", "other.pub", "--format", "cosign", "a.tar"];
    let outcome = bench.ocikit(&line);
    assert_eq!(outcome.code, 5, "{outcome}");
    // Signatures are random; their subjects are not.
    let lines = outcome.stdout.lines().filter(|line| !line.starts_with(' '));
    let told = lines.map(|line| line.split(" by ").next().unwrap().to_owned() + "\n");
    let told = told.map(|line| line.split_once(' ').unwrap().1.to_owned()).collect::<String>();
    assert_snapshot!(told, @r"
    - ocikit.pub cosign verified
    - other.pub cosign verified
    linux/amd64 ocikit.pub cosign verified
    linux/amd64 other.pub cosign missing
    linux/arm64 ocikit.pub cosign verified
    linux/arm64 other.pub cosign missing
    linux/arm/v7 ocikit.pub cosign verified
    linux/arm/v7 other.pub cosign missing
    ");
    assert!(outcome.stderr.contains("3 of 8 required signatures"), "{outcome}");
    let facts = json(&bench.ocikit(&[&["--json"], &line[..]].concat()).stdout);
    assert_eq!((&facts["verified"], facts["signatures"].as_array().unwrap().len()), (&false.into(), 8));
    let missing = &facts["signatures"][3];
    assert_eq!(
        (&missing["outcome"], &missing["refused"][0]["why"]),
        (&"missing".into(), &"it is not by the expected signer".into())
    );
    let nothing = bench.ocikit(&["verify", "a.tar"]);
    assert_eq!(nothing.code, 2, "{nothing}");
    let unable = bench.ocikit(&["verify", "--key", "ocikit.pub", "--format", "notation-jws", "a.tar"]);
    assert_eq!(unable.code, 2, "{unable}");
}

/// Writes a certificate for the key, and a trust policy that trusts its authority.
fn write_certificates(bench: &Bench) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
    use rcgen::{DnType, KeyUsagePurpose};
    let params = |name: &str, usage| {
        let mut params = CertificateParams::default();
        for (kind, value) in [(DnType::CountryName, "US"), (DnType::StateOrProvinceName, "WA")] {
            params.distinguished_name.push(kind, value);
        }
        params.distinguished_name.push(DnType::OrganizationName, "Acme");
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![usage];
        params
    };
    let mut authority = params("root", KeyUsagePurpose::KeyCertSign);
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = params("signer", KeyUsagePurpose::DigitalSignature);
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    bench.write("leaf.key", key.serialize_pem());
    bench.write("chain.pem", leaf.pem() + &authority.pem());
    fs::create_dir_all(bench.path("truststore/x509/ca/acme")).unwrap();
    bench.write("truststore/x509/ca/acme/root.crt", authority.pem());
    let policy = serde_json::json!({"version": "1.0", "trustPolicies": [{"name": "p", "registryScopes": ["*"],
        "signatureVerification": {"level": "strict"}, "trustStores": ["ca:acme"], "trustedIdentities": ["*"]}]});
    bench.write("trustpolicy.json", policy.to_string());
}

#[test]
fn envelopes_are_attached_to_their_subject_only() {
    let (bench, stranger) = (with_keys(), bench());
    write_certificates(&bench);
    write_certificates(&stranger);
    let strange = format!("--trust-policy={}", stranger.path("trustpolicy.json").display());
    for format in ["notation-jws", "notation-cose"] {
        for (name, image) in [("from", "multi"), ("to", "multi"), ("other", "single")] {
            let _ = fs::remove_dir_all(bench.path(name));
            let image = fixture(&format!("buildkit-{image}/image.tar"));
            bench.ok(&["copy", &image, &format!("oci:{name}:1")]);
        }
        let before = blobs(&bench.path("from"));
        let line = ["sign", "--format", format, "--key", "leaf.key", "--certificate-chain", "chain.pem", "oci:from:1"];
        bench.ok(&line);
        let after = blobs(&bench.path("from"));
        let is_manifest = |bytes: &[u8]| bytes.starts_with(b"{\"schemaVersion\"") || bytes == b"{}";
        let new = after.difference(&before).map(|blob| bench.path("from/blobs/sha256").join(blob));
        let envelope = new.map(|path| fs::read(path).unwrap()).find(|bytes| !is_manifest(bytes)).unwrap();
        bench.write("envelope", &envelope);

        let attach = |more: &[&str]| bench.ocikit(&[&["attach", "--json", "--envelope", "envelope"], more].concat());
        let trusted = "--trust-policy=trustpolicy.json";
        let verify = |place: &str| bench.ocikit(&["verify", trusted, "--format", format, place]).code;
        assert_eq!(attach(&[&strange, "oci:to:1"]).code, 5, "{format}: another signer");
        for how in [trusted, "--unverified"] {
            assert_eq!(attach(&[how, "oci:other:1"]).code, 5, "{format} {how}: about another image");
        }
        for how in [&["oci:to:1"][..], &["--key", "ocikit.pub", "oci:to:1"], &[trusted, "--unverified", "oci:to:1"]] {
            assert_eq!(attach(how).code, 2, "{format} {how:?}");
        }
        assert_eq!(verify("oci:to:1"), 5, "{format}: nothing of that was stored");
        let facts = json(&attach(&[trusted, "oci:to:1"]).ok());
        assert_eq!((&facts["checked"], &facts["signatures"][0]["format"]), (&"signer".into(), &format.into()));
        assert_eq!(verify("oci:to:1"), 0, "{format}");
        // A changed byte is detected without a trust policy.
        for position in (0..envelope.len()).step_by(97) {
            let mut changed = envelope.clone();
            changed[position] ^= 1;
            bench.write("envelope", changed);
            assert_eq!(attach(&["--unverified", "oci:to:1"]).code, 5, "{format} {position}");
        }
    }
}

#[test]
fn buildkit_attestations_are_promoted() {
    let (bench, registry) = (with_keys(), Registry::start());
    for (name, platforms) in [("multi", 2), ("image", 1), ("config", 1)] {
        let archive = format!("{name}.tar");
        fs::copy(testdata(&format!("buildkit-attested/{archive}")), bench.path(&archive)).unwrap();
        let digest = bench.ok(&["digest", &archive]);
        let verify = |kind: &str, place: &str| {
            let line =
                ["verify", "--json", "--recursive", "--images-only", "--key", "ocikit.pub", "--attestation", kind];
            bench.ocikit(&[&line[..], &[place]].concat())
        };
        assert_eq!(verify("slsaprovenance1", &archive).code, 5, "{name}");
        let promote = ["attest", "--key", "ocikit.key", "--promote"];
        bench.ok(&[&promote[..], &["--type", "slsaprovenance1", &archive]].concat());
        let facts = json(&verify("slsaprovenance1", &archive).ok());
        let cells = facts["signatures"].as_array().unwrap();
        assert_eq!(cells.len(), platforms, "{name}");
        for cell in cells {
            assert!(cell["predicate"]["buildDefinition"]["buildType"].as_str().unwrap().contains("buildkit"), "{cell}");
        }
        assert_eq!(verify("spdxjson", &archive).code, 5, "{name}: only what was asked for is signed");
        bench.ok(&[&promote[..], &[&archive]].concat());
        verify("spdxjson", &archive).ok();
        assert_eq!(bench.ok(&["digest", &archive]), digest, "{name}");
        // A statement signed by the same key is not signed again; another key signs it as well.
        let before = fs::read(bench.path(&archive)).unwrap();
        assert_eq!(bench.ok(&[&promote[..], &[&archive]].concat()), "", "{name}");
        assert!(fs::read(bench.path(&archive)).unwrap() == before, "{name}");
        let other = bench.ok(&["attest", "--key", "other.key", "--promote", "--type", "spdxjson", &archive]);
        assert_eq!(other.lines().count(), platforms, "{name}");
        // A key that signs attestations has not signed the image.
        assert_eq!(bench.ocikit(&["verify", "--key", "ocikit.pub", "--recursive", &archive]).code, 5, "{name}");
        let reference = format!("{}/acme/{name}:1", registry.name());
        bench.ok(&["push", &archive, &reference]);
        verify("slsaprovenance1", &reference).ok();
    }
    fs::copy(testdata("buildkit-single/image.tar"), bench.path("plain.tar")).unwrap();
    let promote = |place: &str| bench.ocikit(&["attest", "--key", "ocikit.key", "--promote", place]);
    let nothing = promote("plain.tar");
    assert!(nothing.code == 2 && nothing.stderr.contains("no attestations of BuildKit"), "{nothing}");
    // A statement about an image before it was edited names another digest and is refused.
    fs::copy(testdata("buildkit-attested/multi.tar"), bench.path("edited.tar")).unwrap();
    bench.ok(&["annotate", "edited.tar", "a=b"]);
    let refused = promote("edited.tar");
    assert!(refused.code == 5 && refused.stderr.contains("the statement names sha256:45b6bd216d3f"), "{refused}");
}

/// Writes an index of eight images to a layout, tagged `1`.
fn eight(path: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let memory = Arc::new(Memory::new());
        let platform = "linux/amd64".parse().unwrap();
        let images: Vec<_> = (0..8).map(|seed| testing::image(&memory, seed, &platform, &[100])).collect();
        let root = Root::at(memory.clone(), testing::index(&memory, &images)).await.unwrap();
        let layout: Arc<dyn Sink> = Arc::new(Dir::create(path).await.unwrap());
        let names = vec![Naming::of_tag("1".parse().unwrap())];
        copy(&root, &layout, &CopyOptions::default().names(names)).await.unwrap();
    });
}

#[test]
fn sign_and_verify_send_no_needless_requests() {
    let (bench, registry) = (with_keys(), Registry::start());
    eight(&bench.path("layout"));
    let reference = format!("{}/acme/app:1", registry.name());
    bench.ok(&["push", "oci:layout:1", &reference]);
    let asked = |line: &[&str]| {
        registry.clear_requests();
        bench.ok(line);
        let mut counts = std::collections::BTreeMap::new();
        // When every response is slow, the referrers tag is requested early. Whether that happens depends on the load
        // of this machine.
        let is_speculative = |path: &str| path.contains("/manifests/sha256-") && !path.contains('.');
        for asked in registry.requests().iter().filter(|asked| !is_speculative(&asked.path)) {
            let kind = match asked.path.strip_prefix("/v2/acme/app/").and_then(|path| path.split('/').next()) {
                Some(kind) => format!("{} {kind}", asked.method),
                None => format!("{} {}", asked.method, asked.path),
            };
            *counts.entry(kind).or_insert(0) += 1;
        }
        counts.into_iter().map(|(kind, count)| format!("{count} {kind}\n")).collect::<String>()
    };
    // For each image the manifest is read; for each signature bundle and manifest are uploaded and checked. The empty
    // config is uploaded once.
    assert_snapshot!(asked(&["sign", "--key", "ocikit.key", "--recursive", &reference]), @r"
    9 GET manifests
    10 HEAD blobs
    18 HEAD manifests
    10 POST blobs
    10 PUT blobs
    9 PUT manifests
    ");
    // Manifests are those of the images and of their signatures. Cosign's older tags are not requested once every
    // required signature is found.
    assert_snapshot!(asked(&["verify", "--key", "ocikit.pub", "--recursive", &reference]), @r"
    9 GET blobs
    18 GET manifests
    9 GET referrers
    ");
    assert_snapshot!(asked(&["verify", "--key", "ocikit.pub", &reference]), @r"
    1 GET blobs
    2 GET manifests
    1 GET referrers
    ");
    // Archives and layouts need no requests.
    bench.ok(&["copy", "oci:layout:1", "a.tar"]);
    assert_snapshot!(asked(&["sign", "--key", "ocikit.key", "--recursive", "a.tar"]), @"");
    assert_snapshot!(asked(&["verify", "--key", "ocikit.pub", "--recursive", "a.tar"]), @"");
    assert_snapshot!(asked(&["sign", "--key", "ocikit.key", "--recursive", "oci:layout:1"]), @"");
    assert_snapshot!(asked(&["verify", "--key", "ocikit.pub", "--recursive", "oci:layout:1"]), @"");
}

/// Returns the file names of the blobs in a layout.
fn blobs(layout: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn no_stored_byte_can_be_changed() {
    let bench = with_keys();
    let key = PublicKey::from_pem(&fs::read(bench.path("ocikit.pub")).unwrap()).unwrap();
    for (name, flag) in ["bundle", "legacy"].into_iter().zip(BOTH) {
        let place = format!("oci:{name}:1");
        bench.ok(&["copy", &single(), &place]);
        let layout = bench.path(name);
        let before = blobs(&layout);
        bench.ok(&["sign", "--key", "ocikit.key", flag, &place]);
        let options = VerifyOptions::new(vec![Trust::Key { name: "key".to_owned(), key: key.clone() }]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let verified = || {
            runtime.block_on(async {
                let (dir, name) = (Dir::open(&layout).await.unwrap(), Name::Tag("1".parse().unwrap()));
                let root = Root::open(Arc::new(dir), &name).await.unwrap();
                // Damage that makes verification fail with an error is not a success either.
                let Ok(report) = verify(&root, &options).await else { return false };
                matches!(report.checks[0].outcome, Outcome::Verified(_))
            })
        };
        assert!(verified());
        let mut changed = 0;
        for blob in blobs(&layout).difference(&before) {
            let path = layout.join("blobs/sha256").join(blob);
            let bytes = fs::read(&path).unwrap();
            // The config has no content and is not read.
            if bytes == b"{}" || bytes.starts_with(b"{\"architecture\"") {
                continue;
            }
            for position in 0..bytes.len() {
                let mut other = bytes.clone();
                other[position] ^= 1 << (position % 8);
                fs::write(&path, other).unwrap();
                assert!(!verified(), "{name}: byte {position} of {blob}");
                changed += 1;
            }
            fs::write(&path, bytes).unwrap();
            assert!(verified());
        }
        assert!(changed > 700, "{name}: {changed}");
    }
}
