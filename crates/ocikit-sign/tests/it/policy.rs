//! Accepted and refused images of trust policies.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says where it fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use ocikit_image::{CopyOptions, Memory, Referrers, Root, Sink, copy, testing};
use ocikit_sign::{
    AttestOptions, Depth, Error, Format, KeyKind, Outcome, Policy, PolicyOptions, PolicySigner, PrivateKey,
    SignOptions, SignerFiles, Trust, Verdict, VerifyOptions, attach, attest, sign, verify,
};
use ocikit_spec::{Descriptor, MediaType};

/// An index of two images, and three named keys.
struct Fixture {
    root: Root,
    place: Arc<dyn Sink>,
    memory: Arc<Memory>,
    keys: BTreeMap<&'static str, PrivateKey>,
}

impl Fixture {
    async fn new() -> Fixture {
        let memory = Arc::new(Memory::new());
        let platforms = ["linux/amd64", "linux/arm64"].map(|platform| platform.parse().unwrap());
        let images = platforms.iter().zip(1..).map(|(platform, seed)| testing::image(&memory, seed, platform, &[100]));
        let images: Vec<_> = images.collect();
        let index = testing::index(&memory, &images);
        let root = Root::at(memory.clone(), index).await.unwrap();
        let keys = ["a", "b", "c"].map(|name| (name, PrivateKey::generate(KeyKind::P256).unwrap()));
        Fixture { root, place: memory.clone(), memory, keys: BTreeMap::from(keys) }
    }

    async fn sign(&self, key: &str, format: Format, depth: Depth) {
        let options = SignOptions::new(vec![format], Timestamp::UNIX_EPOCH).depth(depth);
        let made = sign(&self.root, &self.keys[key], &options).await.unwrap();
        attach(&made, &self.place, &CopyOptions::default()).await.unwrap();
    }

    async fn attest(&self, key: &str, depth: Depth) {
        let options =
            AttestOptions::new("https://slsa.dev/provenance/v1", serde_json::json!({}), Timestamp::UNIX_EPOCH)
                .depth(depth);
        let made = attest(&self.root, &self.keys[key], &options).await.unwrap();
        attach(&made, &self.place, &CopyOptions::default()).await.unwrap();
    }

    fn policy(&self, rules: &str) -> Policy {
        let text = format!("version: 1\nsigners: {{a: {{key: a}}, b: {{key: b}}, c: {{key: c}}}}\nrules: {rules}");
        let read = |files: &SignerFiles| match files {
            SignerFiles::Key(path) => {
                Ok::<_, Error>(PolicySigner::Key(self.keys[path.to_str().unwrap()].public_key().clone()))
            }
            _ => panic!("only keys are named"),
        };
        Policy::parse(&text, read).unwrap()
    }

    async fn ask(&self, requirement: &str) -> Verdict {
        let policy = self.policy(&format!("[{{scope: '*', require: [{requirement}]}}]"));
        policy.check(&self.root, &PolicyOptions::new(None, Timestamp::UNIX_EPOCH)).await.unwrap()
    }

    async fn accepts(&self, requirement: &str) -> bool {
        let verdict = self.ask(requirement).await;
        assert_eq!(verdict.accept(&self.root).is_some(), verdict.is_met());
        verdict.is_met()
    }
}

#[tokio::test]
async fn threshold_counts_signers_and_not_signatures() {
    let fixture = Fixture::new().await;
    let two = "{signers: [a, b, c], threshold: 2}";
    assert!(!fixture.accepts(two).await);
    // The same signer in two formats and repeated counts once.
    for format in [Format::Cosign, Format::CosignLegacy, Format::Cosign] {
        fixture.sign("a", format, Depth::Root).await;
        let verdict = fixture.ask(two).await;
        assert_eq!((verdict.is_met(), verdict.findings[0].counted), (false, 1));
    }
    assert!(fixture.accepts("{signers: [a, b, c], threshold: 1}").await);
    fixture.sign("c", Format::CosignLegacy, Depth::Root).await;
    let verdict = fixture.ask(two).await;
    assert_eq!((verdict.is_met(), verdict.findings[0].counted), (true, 2));
    let signed = verdict.findings[0].checks.iter().map(|check| matches!(check.outcome, Outcome::Verified(_)));
    assert_eq!(signed.collect::<Vec<_>>(), [true, false, true]);
    assert!(!fixture.accepts("{signers: [a, b, c]}").await, "without a threshold, all signers are required");
    assert!(!fixture.accepts("{signers: [a, c], formats: [cosign]}").await, "signer c used another format");
    assert!(fixture.accepts("{signers: [a, c]}, {signers: [c], formats: [cosign-legacy]}").await);
    assert!(!fixture.accepts("{signers: [a, c]}, {signers: [b]}").await, "all requirements must be met");
}

#[tokio::test]
async fn each_digest_needs_its_own_signatures() {
    let fixture = Fixture::new().await;
    fixture.sign("a", Format::Cosign, Depth::Root).await;
    assert!(fixture.accepts("{signers: [a]}").await);
    for depth in ["images", "leaves", "everything"] {
        assert!(!fixture.accepts(&format!("{{signers: [a], depth: {depth}}}")).await, "{depth}");
    }
    fixture.sign("b", Format::Cosign, Depth::Images).await;
    assert!(!fixture.accepts("{signers: [a, b], depth: images}").await);
    assert!(fixture.accepts("{signers: [a, b], depth: images, threshold: 1}").await);
    let verdict = fixture.ask("{signers: [a]}, {signers: [b], depth: images}").await;
    assert_eq!((verdict.is_met(), verdict.findings.len()), (true, 4));
}

/// Returns the index entry of a manifest with this config and these layers, each with its media type. The entry has
/// the platform unknown/unknown and is labelled as an attestation.
fn labelled(memory: &Memory, config: (&str, &[u8]), layers: &[(&str, &[u8])]) -> Descriptor {
    let blob = |(kind, bytes): (&str, &[u8])| {
        memory.insert(bytes.to_vec());
        serde_json::json!(Descriptor::of(MediaType::new(kind), bytes))
    };
    let layers: Vec<_> = layers.iter().copied().map(blob).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_MANIFEST, "config": blob(config), "layers": layers,
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = Descriptor::of(MediaType::OCI_MANIFEST, &manifest);
    memory.insert(manifest);
    entry.platform = Some("unknown/unknown".parse().unwrap());
    entry.annotations.insert("vnd.docker.reference.type", "attestation-manifest");
    entry
}

const EMPTY: (&str, &[u8]) = ("application/vnd.oci.empty.v1+json", b"{}");
const NOWHERE: (&str, &[u8]) = (
    "application/vnd.oci.image.config.v1+json",
    br#"{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#,
);
const SOMEWHERE: (&str, &[u8]) = (
    "application/vnd.oci.image.config.v1+json",
    br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
);
const STATEMENT: (&str, &[u8]) =
    ("application/vnd.in-toto+json", br#"{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"x:y"}"#);
const IN_TOTO: &str = "application/vnd.in-toto+json";

#[tokio::test]
async fn only_manifests_that_cannot_be_run_are_attestations() {
    let fixture = Fixture::new().await;
    let memory = Arc::new(Memory::new());
    let image = testing::image(&memory, 1, &"linux/amd64".parse().unwrap(), &[1]);
    let mut fake = testing::image(&memory, 2, &"linux/amd64".parse().unwrap(), &[1]);
    fake.annotations.insert("vnd.docker.reference.type", "attestation-manifest");
    let with = |platform: Option<&str>, entry: &Descriptor| Descriptor {
        platform: platform.map(|platform| platform.parse().unwrap()),
        ..entry.clone()
    };
    let real = labelled(&memory, EMPTY, &[STATEMENT]);
    let layer = ("application/vnd.oci.image.layer.v1.tar+gzip", &b"\x1f\x8b"[..]);
    for (entry, is_attestation, what) in [
        (real.clone(), true, "BuildKit 0.12 and later"),
        (labelled(&memory, NOWHERE, &[STATEMENT]), true, "BuildKit before"),
        (with(Some("linux/amd64"), &real), false, "for a platform"),
        (with(Some("linux/unknown"), &real), false, "for an operating system"),
        (with(None, &real), false, "for any platform"),
        (Descriptor { annotations: Default::default(), ..real.clone() }, false, "without the label"),
        (with(Some("unknown/unknown"), &fake), false, "an image with the label"),
        (labelled(&memory, SOMEWHERE, &[STATEMENT]), false, "a config that can be run"),
        (labelled(&memory, NOWHERE, &[layer]), false, "a layer that can be unpacked"),
        (labelled(&memory, NOWHERE, &[STATEMENT, layer]), false, "one such layer"),
        (labelled(&memory, EMPTY, &[(IN_TOTO, b"\x1f\x8b\x08")]), false, "an archive labelled as a statement"),
        (labelled(&memory, EMPTY, &[(IN_TOTO, b"{}")]), false, "JSON that is no statement"),
        (labelled(&memory, EMPTY, &[]), false, "no statement"),
        (labelled(&memory, (EMPTY.0, b"{ }"), &[STATEMENT]), false, "a config that is not empty"),
    ] {
        let index = testing::index(&memory, &[image.clone(), entry]);
        let root = Root::at(memory.clone(), index).await.unwrap();
        for (depth, wanted) in [("leaves", 2), ("images", 3)] {
            let policy = fixture.policy(&format!("[{{scope: '*', require: [{{signers: [a], depth: {depth}}}]}}]"));
            let verdict = policy.check(&root, &PolicyOptions::new(None, Timestamp::UNIX_EPOCH)).await.unwrap();
            assert_eq!(verdict.findings.len(), wanted - usize::from(is_attestation), "{what}, {depth}");
        }
    }
    // A digest listed both as an attestation and as an image needs a signature.
    let twice = testing::index(&memory, &[real.clone(), with(Some("linux/amd64"), &real)]);
    let root = Root::at(memory.clone(), twice).await.unwrap();
    let policy = fixture.policy("[{scope: '*', require: [{signers: [a], depth: leaves}]}]");
    let verdict = policy.check(&root, &PolicyOptions::new(None, Timestamp::UNIX_EPOCH)).await.unwrap();
    assert_eq!(verdict.findings.len(), 1);
}

#[tokio::test]
async fn entries_are_classified_by_their_bytes() {
    let (fixture, memory) = (Fixture::new().await, Arc::new(Memory::new()));
    let place: Arc<dyn Sink> = memory.clone();
    let images = [1, 2].map(|seed| testing::image(&memory, seed, &"linux/amd64".parse().unwrap(), &[1]));
    let signed = Root::at(memory.clone(), testing::index(&memory, &images[..1])).await.unwrap();
    let options = SignOptions::new(vec![Format::Cosign], Timestamp::UNIX_EPOCH).depth(Depth::Images);
    let made = sign(&signed, &fixture.keys["a"], &options).await.unwrap();
    attach(&made, &place, &CopyOptions::default()).await.unwrap();
    let nested = testing::index(&memory, &images[1..]);
    memory.insert(&b"#!/bin/sh"[..]);
    let strange = Descriptor::of(MediaType::new("application/octet-stream"), b"#!/bin/sh");
    // The media type of an entry, what it points to, and the expected number of subjects.
    for kind in [
        "",
        "application/octet-stream",
        "Application/vnd.OCI.image.Manifest.v1+json",
        "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.oci.image.index.v1+json",
    ] {
        for (entry, leaves) in [(&images[1], 2), (&nested, 2), (&strange, 2)] {
            let entry = Descriptor { media_type: MediaType::new(kind), ..entry.clone() };
            let root = Root::at(memory.clone(), testing::index(&memory, &[images[0].clone(), entry])).await.unwrap();
            let policy = fixture.policy("[{scope: '*', require: [{signers: [a], depth: leaves}]}]");
            let verdict = policy.check(&root, &PolicyOptions::new(None, Timestamp::UNIX_EPOCH)).await.unwrap();
            assert_eq!((verdict.is_met(), verdict.findings.len()), (false, leaves), "`{kind}`");
            let key = fixture.keys["a"].public_key().clone();
            let trusted = vec![Trust::Key { name: "a".to_owned(), key }];
            let asked = VerifyOptions::new(trusted).depth(Depth::Leaves);
            assert!(!verify(&root, &asked).await.unwrap().is_complete(), "`{kind}`");
        }
    }
    // A subject of unknown kind is not signed either, so that signing and verifying agree.
    let root = Root::at(memory.clone(), testing::index(&memory, &[images[0].clone(), strange])).await.unwrap();
    let refused = sign(&root, &fixture.keys["a"], &options).await;
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
}

#[tokio::test]
async fn duplicate_signatures_count_once() {
    let fixture = Fixture::new().await;
    fixture.sign("a", Format::Cosign, Depth::Root).await;
    // The same signature in other referrers of the same image.
    let listed = fixture.place.referrers(&fixture.root.digest()).await.unwrap();
    let Root::Other(signature) = Root::at(fixture.place.clone(), listed[0].clone()).await.unwrap() else { panic!() };
    let text = String::from_utf8(signature.manifest().unwrap().bytes().to_vec()).unwrap();
    for number in 0..5 {
        let replayed = text.replacen("{", &format!("{{\"number\":{number},"), 1);
        fixture.memory.insert(replayed.into_bytes());
    }
    assert_eq!(fixture.place.referrers(&fixture.root.digest()).await.unwrap().len(), 6);
    let verdict = fixture.ask("{signers: [a, b], threshold: 2}").await;
    assert_eq!((verdict.is_met(), verdict.findings[0].counted), (false, 1));
    let verdict = fixture.ask("{signers: [b]}").await;
    let Outcome::Missing(refused) = &verdict.findings[0].checks[0].outcome else { panic!() };
    assert_eq!(refused.len(), 1, "a replayed signature is read once");
    // Two names for one key are refused before signatures are counted.
    let key = fixture.keys["a"].public_key();
    let trust = |name: &str| Trust::Key { name: name.to_owned(), key: key.clone() };
    let twice = VerifyOptions::new(vec![trust("one"), trust("two")]);
    assert!(matches!(verify(&fixture.root, &twice).await, Err(Error::Unsupported(_))));
}

#[tokio::test]
async fn referrers_are_classified_by_signer() {
    let fixture = Fixture::new().await;
    fixture.sign("a", Format::Cosign, Depth::Images).await;
    fixture.attest("a", Depth::Root).await;
    fixture.sign("c", Format::Cosign, Depth::Images).await;
    fixture.sign("a", Format::CosignLegacy, Depth::Root).await;
    let subject = fixture.root.descriptor().clone();
    let sbom = testing::referrer(&fixture.memory, &subject, "application/spdx+json");
    let signed_sbom = testing::referrer(&fixture.memory, &subject, "application/vnd.cyclonedx+json");
    let of_sbom = Root::at(fixture.place.clone(), signed_sbom.clone()).await.unwrap();
    let options = SignOptions::new(vec![Format::Cosign], Timestamp::UNIX_EPOCH);
    let made = sign(&of_sbom, &fixture.keys["a"], &options).await.unwrap();
    attach(&made, &fixture.place, &CopyOptions::default()).await.unwrap();
    let policy = fixture.policy("[{scope: '*', require: [{signers: [a]}]}]");
    let options = PolicyOptions::new(None, Timestamp::UNIX_EPOCH);
    let check = policy.check_referrers(&fixture.root, &options).await.unwrap();
    // Three signatures, one attestation, one manifest under a tag, the signed SBOM and its signature.
    assert_eq!((check.verified.len(), check.mixed.len(), check.unverified.len()), (7, 0, 4), "{check:?}");
    assert!(check.verified.contains(&signed_sbom.digest) && check.unverified.contains(&sbom.digest));
    // Only verified referrers are copied.
    let there: Arc<dyn Sink> = Arc::new(Memory::new());
    let referrers = Referrers::All.among(check.verified.clone());
    let copied = copy(&fixture.root, &there, &CopyOptions::default().referrers(referrers)).await.unwrap();
    let along: BTreeSet<_> = copied.referrers.iter().map(|referrer| referrer.digest).collect();
    assert_eq!(along, check.verified);
    // A signature manifest with an additional unknown signature is mixed.
    fixture.sign("c", Format::CosignLegacy, Depth::Root).await;
    let check = policy.check_referrers(&fixture.root, &options).await.unwrap();
    assert_eq!((check.verified.len(), check.mixed.len(), check.unverified.len()), (6, 1, 4), "{check:?}");
}

#[tokio::test]
async fn attestations_are_required_by_type_and_signer() {
    let fixture = Fixture::new().await;
    let wanted = "{signers: [a], attestation: slsaprovenance1, depth: leaves}";
    fixture.sign("a", Format::Cosign, Depth::Images).await;
    assert!(!fixture.accepts(wanted).await, "a signature is not an attestation");
    fixture.attest("b", Depth::Leaves).await;
    assert!(!fixture.accepts(wanted).await);
    fixture.attest("a", Depth::Leaves).await;
    let verdict = fixture.ask(wanted).await;
    assert_eq!((verdict.is_met(), verdict.findings.len()), (true, 2));
    assert!(!fixture.accepts("{signers: [a], attestation: slsaprovenance1}").await, "the index was not attested");
    assert!(!fixture.accepts("{signers: [a], attestation: spdxjson, depth: leaves}").await);
    assert!(!fixture.accepts("{signers: [b]}").await, "an attestation is not a signature");
}

#[tokio::test]
async fn images_without_a_rule_are_refused() {
    let fixture = Fixture::new().await;
    fixture.sign("a", Format::Cosign, Depth::Root).await;
    let policy = fixture.policy("[{scope: ghcr.io/acme/*, require: [{signers: [a]}]}]");
    let ask = async |repository: Option<&str>| {
        let repository = repository.map(|name| name.parse().unwrap());
        policy.check(&fixture.root, &PolicyOptions::new(repository, Timestamp::UNIX_EPOCH)).await
    };
    assert_eq!(ask(Some("ghcr.io/acme/app")).await.unwrap().scope, "ghcr.io/acme/*");
    for repository in [None, Some("ghcr.io/other/app")] {
        assert!(matches!(ask(repository).await, Err(Error::Policy { .. })), "{repository:?}");
    }
    let other = PolicyOptions::new(Some("ghcr.io/acme/app".parse().unwrap()), Timestamp::UNIX_EPOCH)
        .expect(Some(ocikit_spec::Digest::sha256_of(b"")));
    assert!(matches!(policy.check(&fixture.root, &other).await, Err(Error::Moved { .. })));
    // An index without images has nothing to sign and is refused.
    let memory = Arc::new(Memory::new());
    let empty = Root::at(memory.clone(), testing::index(&memory, &[])).await.unwrap();
    let policy = fixture.policy("[{scope: '*', require: [{signers: [a], depth: leaves}]}]");
    let verdict = policy.check(&empty, &PolicyOptions::new(None, Timestamp::UNIX_EPOCH)).await.unwrap();
    assert!(!verdict.is_met() && verdict.findings.len() == 1);
}
