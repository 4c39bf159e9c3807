//! What policies let through and what they do not.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says where it fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use ocikit_image::{CopyOptions, Memory, Root, Sink, testing};
use ocikit_sign::{
    AttestOptions, Depth, Error, Format, KeyKind, Outcome, Policy, PolicyOptions, PolicySigner, PrivateKey,
    SignOptions, SignerFiles, Verdict, attach, attest, sign,
};

/// An index of two images, and three keys by their names.
struct Bench {
    root: Root,
    place: Arc<dyn Sink>,
    keys: BTreeMap<&'static str, PrivateKey>,
}

impl Bench {
    async fn new() -> Bench {
        let memory = Arc::new(Memory::new());
        let platforms = ["linux/amd64", "linux/arm64"].map(|platform| platform.parse().unwrap());
        let images = platforms.iter().zip(1..).map(|(platform, seed)| testing::image(&memory, seed, platform, &[100]));
        let images: Vec<_> = images.collect();
        let index = testing::index(&memory, &images);
        let root = Root::at(memory.clone(), index).await.unwrap();
        let keys = ["a", "b", "c"].map(|name| (name, PrivateKey::generate(KeyKind::P256).unwrap()));
        Bench { root, place: memory, keys: BTreeMap::from(keys) }
    }

    async fn sign(&self, key: &str, format: Format, depth: Depth) {
        let options = SignOptions { depth, ..SignOptions::new(vec![format], Timestamp::UNIX_EPOCH) };
        let made = sign(&self.root, &self.keys[key], &options).await.unwrap();
        attach(&made, &self.place, &CopyOptions::default()).await.unwrap();
    }

    async fn attest(&self, key: &str, depth: Depth) {
        let options = AttestOptions {
            predicate_type: "https://slsa.dev/provenance/v1".to_owned(),
            predicate: serde_json::json!({}),
            depth,
            expect: None,
            created: Timestamp::UNIX_EPOCH,
            vouchers: None,
        };
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

    async fn lets_through(&self, requirement: &str) -> bool {
        let verdict = self.ask(requirement).await;
        assert_eq!(verdict.accept(&self.root).is_some(), verdict.is_met());
        verdict.is_met()
    }
}

#[tokio::test]
async fn a_threshold_counts_signers_and_not_signatures() {
    let bench = Bench::new().await;
    let two = "{signers: [a, b, c], threshold: 2}";
    assert!(!bench.lets_through(two).await);
    // The same one twice, in two forms and again, is one.
    for format in [Format::Cosign, Format::CosignLegacy, Format::Cosign] {
        bench.sign("a", format, Depth::Root).await;
        let verdict = bench.ask(two).await;
        assert_eq!((verdict.is_met(), verdict.findings[0].counted), (false, 1));
    }
    assert!(bench.lets_through("{signers: [a, b, c], threshold: 1}").await);
    bench.sign("c", Format::CosignLegacy, Depth::Root).await;
    let verdict = bench.ask(two).await;
    assert_eq!((verdict.is_met(), verdict.findings[0].counted), (true, 2));
    let signed = verdict.findings[0].cells.iter().map(|cell| matches!(cell.outcome, Outcome::Verified(_)));
    assert_eq!(signed.collect::<Vec<_>>(), [true, false, true]);
    assert!(!bench.lets_through("{signers: [a, b, c]}").await, "without a threshold it is all of them");
    assert!(!bench.lets_through("{signers: [a, c], formats: [cosign]}").await, "one of them has signed otherwise");
    assert!(bench.lets_through("{signers: [a, c]}, {signers: [c], formats: [cosign-legacy]}").await);
    assert!(!bench.lets_through("{signers: [a, c]}, {signers: [b]}").await, "every requirement counts");
}

#[tokio::test]
async fn each_digest_counts_for_itself() {
    let bench = Bench::new().await;
    bench.sign("a", Format::Cosign, Depth::Root).await;
    assert!(bench.lets_through("{signers: [a]}").await);
    for depth in ["images", "leaves", "everything"] {
        assert!(!bench.lets_through(&format!("{{signers: [a], depth: {depth}}}")).await, "{depth}");
    }
    bench.sign("b", Format::Cosign, Depth::Images).await;
    assert!(!bench.lets_through("{signers: [a, b], depth: images}").await);
    assert!(bench.lets_through("{signers: [a, b], depth: images, threshold: 1}").await);
    let verdict = bench.ask("{signers: [a]}, {signers: [b], depth: images}").await;
    assert_eq!((verdict.is_met(), verdict.findings.len()), (true, 4));
}

#[tokio::test]
async fn an_image_is_one_whatever_it_says() {
    let bench = Bench::new().await;
    bench.sign("a", Format::Cosign, Depth::Leaves).await;
    assert!(bench.lets_through("{signers: [a], depth: leaves}").await);
    let memory = Arc::new(Memory::new());
    for (platform, wanted) in [(Some("linux/amd64"), 2), (None, 2), (Some("unknown/unknown"), 1)] {
        let mut entries: Vec<_> =
            (1..=2).map(|seed| testing::image(&memory, seed, &"linux/amd64".parse().unwrap(), &[1])).collect();
        entries[1].platform = platform.map(|platform| platform.parse().unwrap());
        entries[1].annotations.insert("vnd.docker.reference.type", "attestation-manifest");
        let root = Root::at(memory.clone(), testing::index(&memory, &entries)).await.unwrap();
        for depth in ["leaves", "images"] {
            let policy = bench.policy(&format!("[{{scope: '*', require: [{{signers: [a], depth: {depth}}}]}}]"));
            let verdict = policy.check(&root, &PolicyOptions::new(None, Timestamp::UNIX_EPOCH)).await.unwrap();
            assert_eq!(verdict.findings.len(), wanted + usize::from(depth == "images"), "{platform:?} {depth}");
        }
    }
}

#[tokio::test]
async fn an_attestation_is_asked_for_by_its_type_and_its_signer() {
    let bench = Bench::new().await;
    let wanted = "{signers: [a], attestation: slsaprovenance1, depth: leaves}";
    bench.sign("a", Format::Cosign, Depth::Images).await;
    assert!(!bench.lets_through(wanted).await, "who signs does not attest");
    bench.attest("b", Depth::Leaves).await;
    assert!(!bench.lets_through(wanted).await);
    bench.attest("a", Depth::Leaves).await;
    let verdict = bench.ask(wanted).await;
    assert_eq!((verdict.is_met(), verdict.findings.len()), (true, 2));
    assert!(!bench.lets_through("{signers: [a], attestation: slsaprovenance1}").await, "the index was not attested");
    assert!(!bench.lets_through("{signers: [a], attestation: spdxjson, depth: leaves}").await);
    assert!(!bench.lets_through("{signers: [b]}").await, "who attests does not sign");
}

#[tokio::test]
async fn what_a_policy_says_nothing_of_is_refused() {
    let bench = Bench::new().await;
    bench.sign("a", Format::Cosign, Depth::Root).await;
    let policy = bench.policy("[{scope: ghcr.io/acme/*, require: [{signers: [a]}]}]");
    let ask = async |repository: Option<&str>| {
        let repository = repository.map(|name| name.parse().unwrap());
        policy.check(&bench.root, &PolicyOptions::new(repository, Timestamp::UNIX_EPOCH)).await
    };
    assert_eq!(ask(Some("ghcr.io/acme/app")).await.unwrap().scope, "ghcr.io/acme/*");
    for repository in [None, Some("ghcr.io/other/app")] {
        assert!(matches!(ask(repository).await, Err(Error::Policy { .. })), "{repository:?}");
    }
    let other = PolicyOptions {
        expect: Some(ocikit_spec::Digest::sha256_of(b"")),
        ..PolicyOptions::new(Some("ghcr.io/acme/app".parse().unwrap()), Timestamp::UNIX_EPOCH)
    };
    assert!(matches!(policy.check(&bench.root, &other).await, Err(Error::Moved { .. })));
    // An index without images has nothing that could be signed, and that is not enough.
    let memory = Arc::new(Memory::new());
    let empty = Root::at(memory.clone(), testing::index(&memory, &[])).await.unwrap();
    let policy = bench.policy("[{scope: '*', require: [{signers: [a], depth: leaves}]}]");
    let verdict = policy.check(&empty, &PolicyOptions::new(None, Timestamp::UNIX_EPOCH)).await.unwrap();
    assert!(!verdict.is_met() && verdict.findings.len() == 1);
}
