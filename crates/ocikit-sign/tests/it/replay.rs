//! Signatures stored with the wrong subject, and locations with damaged or unsigned content.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says where it fails by panicking")]

use std::sync::Arc;

use jiff::Timestamp;
use ocikit_image::{CopyOptions, Memory, Name, Naming, Root, Sink, Source, SourceExt, testing};
use ocikit_sign::{
    AttestOptions, Certificate, CertificateTrust, Depth, Error, ExternalSignature, Format, Http, HttpOptions, KeyKind,
    LogCheck, Outcome, Pattern, PrivateKey, Refusal, SignOptions, TlsSettings, Trust, TrustedRoot,
    VerificationMaterial, VerifyOptions, attach, attest, sign, verify,
};
use ocikit_spec::{Descriptor, Document};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    date_time_ymd,
};
use serde_json::{Value, json};

const FORMATS: [Format; 2] = [Format::Cosign, Format::CosignLegacy];

async fn image(memory: &Arc<Memory>, seed: u64) -> Root {
    let descriptor = testing::image(memory, seed, &"linux/amd64".parse().unwrap(), &[100]);
    Root::at(memory.clone(), descriptor).await.unwrap()
}

fn trust(key: &PrivateKey) -> VerifyOptions {
    VerifyOptions::new(vec![Trust::Key { name: "key".to_owned(), key: key.public_key().clone() }])
}

async fn outcome(root: &Root, options: &VerifyOptions) -> Outcome {
    verify(root, options).await.unwrap().checks.remove(0).outcome
}

/// Stores a signature of `from` as a referrer of `to`: the same signature in a new manifest.
async fn replay(from: &Root, to: &Root, memory: &Arc<Memory>, key: &PrivateKey, options: &SignOptions) {
    let format = options.formats[0];
    let signed = sign(from, key, options).await.unwrap().remove(0);
    let Some(Document::Manifest(manifest)) = signed.root.document() else { panic!("a signature is a manifest") };
    let layer = &manifest.layers()[0];
    memory.insert(signed.root.source().read(layer).await.unwrap());
    memory.insert(signed.root.source().read(manifest.config().unwrap()).await.unwrap());
    let mut changed: Value = serde_json::from_slice(manifest.bytes()).unwrap();
    if format == Format::Cosign {
        let Descriptor { media_type, digest, size, .. } = to.descriptor();
        changed["subject"] = json!({"mediaType": media_type, "digest": digest, "size": size});
    }
    let bytes = changed.to_string();
    let descriptor = Descriptor::of(manifest.media_type(), bytes.as_bytes());
    memory.insert(bytes);
    let tag = (format == Format::CosignLegacy).then(|| format!("sha256-{}.sig", to.digest().hex()).parse().unwrap());
    memory.publish(&descriptor, &Naming::default().tag(tag)).await.unwrap();
}

#[tokio::test]
async fn a_signature_of_another_image_is_refused() {
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    for format in FORMATS {
        let memory = Arc::new(Memory::new());
        let (signed, unsigned) = (image(&memory, 1).await, image(&memory, 2).await);
        let options = SignOptions::new(vec![format], Timestamp::UNIX_EPOCH);
        replay(&signed, &unsigned, &memory, &key, &options).await;
        let Outcome::Missing(refused) = outcome(&unsigned, &trust(&key)).await else { panic!("it is another's") };
        assert!(matches!(&refused[..], [only] if matches!(only.why, Refusal::OtherSubject(_))), "{refused:?}");
        // A valid signature next to it is found.
        let place: Arc<dyn Sink> = memory.clone();
        attach(&sign(&unsigned, &key, &options).await.unwrap(), &place, &CopyOptions::default()).await.unwrap();
        assert!(matches!(outcome(&unsigned, &trust(&key)).await, Outcome::Verified(_)));
    }
}

/// Returns a certificate for a key and the private authority that issued it, valid between these years.
fn certified(key: &PrivateKey, from: i32, to: i32) -> Vec<Certificate> {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_key = KeyPair::generate().unwrap();
    let issuer = root.self_signed(&root_key).unwrap();
    let mut leaf = CertificateParams::default();
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    leaf.subject_alt_names = vec![SanType::URI("https://example.com/job".try_into().unwrap())];
    (leaf.not_before, leaf.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    let pair = KeyPair::from_pem(&key.to_pem().unwrap()).unwrap();
    let leaf = leaf.signed_by(&pair, &Issuer::new(root, root_key)).unwrap();
    [leaf.der(), issuer.der()].map(|der| Certificate::from_der(der).unwrap()).to_vec()
}

#[tokio::test]
async fn certificate_signature_is_valid_for_one_image_and_time() {
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let now: Timestamp = "2026-06-15T12:00:00Z".parse().unwrap();
    let tls = TlsSettings::default().system_authorities(false);
    let http = Http::new(&HttpOptions::default().tls(tls)).unwrap();
    let certificates = certified(&key, 2026, 2027);
    let trust = |identity: &str, issuers: &[Certificate], now: Timestamp| {
        let root = TrustedRoot::of_authorities(vec![issuers.to_vec()], Vec::new()).unwrap();
        let trust = CertificateTrust::new(Pattern::Exact(identity.to_owned()), root, now)
            .log(LogCheck::Skipped)
            .certificate_log(LogCheck::Skipped);
        VerifyOptions::new(vec![Trust::Certificate(Box::new(trust))])
    };
    let (job, issuers) = ("https://example.com/job", &certificates[1..]);
    for format in FORMATS {
        let memory = Arc::new(Memory::new());
        let (signed, unsigned) = (image(&memory, 1).await, image(&memory, 2).await);
        let material = VerificationMaterial::new(http.clone(), now).certificates(certificates.clone());
        let options = SignOptions::new(vec![format], Timestamp::UNIX_EPOCH).material(Some(material));
        replay(&signed, &unsigned, &memory, &key, &options).await;
        let refused = |outcome: Outcome| match outcome {
            Outcome::Missing(refused) => refused.into_iter().next().map(|refused| refused.why),
            _ => None,
        };
        let why = refused(outcome(&unsigned, &trust(job, issuers, now)).await);
        assert!(matches!(why, Some(Refusal::OtherSubject(_))), "{format}: {why:?}");
        let place: Arc<dyn Sink> = memory.clone();
        attach(&sign(&signed, &key, &options).await.unwrap(), &place, &CopyOptions::default()).await.unwrap();
        let Outcome::Verified(proof) = outcome(&signed, &trust(job, issuers, now)).await else { panic!("{format}") };
        assert_eq!(proof.by, job);
        let others = certified(&key, 2026, 2027);
        for (identity, issuers, now) in [
            ("https://example.com/other", issuers, now),
            (job, &others[1..], now),
            (job, issuers, "2025-12-31T23:59:59Z".parse().unwrap()),
            (job, issuers, "2027-01-01T00:00:01Z".parse().unwrap()),
        ] {
            let why = refused(outcome(&signed, &trust(identity, issuers, now)).await);
            assert!(why.is_some(), "{format} {identity} {now}");
        }
        // Trust in the key alone does not accept it: the bundle has a certificate instead of a key hint.
        let keyed = VerifyOptions::new(vec![Trust::Key { name: "key".to_owned(), key: key.public_key().clone() }]);
        assert_eq!(matches!(outcome(&signed, &keyed).await, Outcome::Verified(_)), format == Format::CosignLegacy);
    }
    // A certificate for another key is refused before anything is signed.
    let other = PrivateKey::generate(KeyKind::P256).unwrap();
    let memory = Arc::new(Memory::new());
    let material = VerificationMaterial::new(http, now).certificates(certificates);
    let options = SignOptions::new(FORMATS.to_vec(), Timestamp::UNIX_EPOCH).material(Some(material));
    let refused = sign(&image(&memory, 1).await, &other, &options).await;
    assert!(matches!(refused, Err(Error::Certificates(_))));
}

#[tokio::test]
async fn image_without_signatures_is_not_verified() {
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let memory = Arc::new(Memory::new());
    let root = image(&memory, 1).await;
    let report = verify(&root, &trust(&key)).await.unwrap();
    assert!(!report.is_complete() && report.accept(&root).is_none());
    assert!(matches!(verify(&root, &VerifyOptions::new(Vec::new())).await, Err(Error::Unsupported(_))));
    let expect = Some(image(&memory, 2).await.digest());
    assert!(matches!(verify(&root, &trust(&key).expect(expect)).await, Err(Error::Moved { .. })));
    let options = SignOptions::new(vec![Format::Cosign], Timestamp::UNIX_EPOCH).expect(expect);
    assert!(matches!(sign(&root, &key, &options).await, Err(Error::Moved { .. })));
    let options = SignOptions::new(vec![Format::NotationJws], Timestamp::UNIX_EPOCH);
    assert!(
        matches!(sign(&root, &key, &options).await, Err(Error::Unsupported(_))),
        "the format requires certificates"
    );
}

#[tokio::test]
async fn only_the_verified_root_is_accepted() {
    let key = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    let memory = Arc::new(Memory::new());
    let (root, other) = (image(&memory, 1).await, image(&memory, 2).await);
    let options = SignOptions::new(FORMATS.to_vec(), Timestamp::UNIX_EPOCH);
    let signatures = sign(&root, &key, &options.depth(Depth::Images)).await.unwrap();
    assert_eq!(signatures.len(), 2);
    assert!(memory.referrers(&root.digest()).await.unwrap().is_empty(), "nothing was written yet");
    let place: Arc<dyn Sink> = memory.clone();
    attach(&signatures, &place, &CopyOptions::default()).await.unwrap();
    assert_eq!(memory.referrers(&root.digest()).await.unwrap().len(), 1);
    let tag = format!("sha256-{}.sig", root.digest().hex()).parse().unwrap();
    assert!(memory.resolve(&Name::Tag(tag)).await.is_ok());
    let options = trust(&key).formats(FORMATS.to_vec());
    let report = verify(&root, &options).await.unwrap();
    assert_eq!(report.checks.len(), 2);
    assert!(report.accept(&other).is_none());
    assert_eq!(report.accept(&root).unwrap().digest(), root.digest());
}

#[tokio::test]
async fn a_signature_for_another_repository_is_refused_on_request() {
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let memory = Arc::new(Memory::new());
    let root = image(&memory, 1).await;
    let place: Arc<dyn Sink> = memory.clone();
    for (reference, told) in [("", "no repository"), ("registry.example/other", "registry.example/other")] {
        let reference = reference.to_owned();
        let options = SignOptions::new(vec![Format::CosignLegacy], Timestamp::UNIX_EPOCH);
        let made = sign(&root, &key, &options.reference(reference)).await.unwrap();
        attach(&made, &place, &CopyOptions::default()).await.unwrap();
        let wanted = |name: &str| trust(&key).signed_as(Some(name.parse().unwrap()));
        let Outcome::Missing(refused) = outcome(&root, &wanted("registry.example/app")).await else { panic!("{told}") };
        assert!(refused.iter().any(|refused| refused.why == Refusal::OtherName(told.to_owned())), "{refused:?}");
        assert!(matches!(outcome(&root, &trust(&key)).await, Outcome::Verified(_)));
        if !told.contains(' ') {
            assert!(matches!(outcome(&root, &wanted(told)).await, Outcome::Verified(_)));
        }
    }
}

#[tokio::test]
async fn external_signatures_are_verified_before_they_are_imported() {
    let [key, other] = [(); 2].map(|()| PrivateKey::generate(KeyKind::P256).unwrap());
    let memory = Arc::new(Memory::new());
    let (root, another) = (image(&memory, 1).await, image(&memory, 2).await);
    let place: Arc<dyn Sink> = memory.clone();
    for format in FORMATS {
        let made = sign(&root, &key, &SignOptions::new(vec![format], Timestamp::UNIX_EPOCH)).await.unwrap().remove(0);
        let Some(Document::Manifest(manifest)) = made.root.document() else { panic!("a signature is a manifest") };
        let layer = &manifest.layers()[0];
        let bytes = made.root.source().read(layer).await.unwrap().to_vec();
        let foreign = || match layer.annotations.get("dev.cosignproject.cosign/signature") {
            Some(signature) => {
                ExternalSignature::Simple { payload: bytes.clone(), signature: format!("{signature}\n") }
            }
            None => ExternalSignature::Bundle(bytes.clone()),
        };
        let import_signature = async |root: &Root, key: &PrivateKey| {
            let trusted = Trust::Key { name: "key".to_owned(), key: key.public_key().clone() };
            ocikit_sign::import_signature(root, foreign(), Some(&trusted), Timestamp::UNIX_EPOCH).await
        };
        assert!(matches!(import_signature(&another, &key).await, Err(Error::Refused(Refusal::OtherSubject(_)))));
        assert!(matches!(import_signature(&root, &other).await, Err(Error::Refused(_))));
        // The subject is checked even without a trusted signer.
        let unverified =
            async |root: &Root| ocikit_sign::import_signature(root, foreign(), None, Timestamp::UNIX_EPOCH).await;
        assert!(matches!(unverified(&another).await, Err(Error::Refused(Refusal::OtherSubject(_)))));
        assert_eq!(unverified(&root).await.unwrap().format, format);
        let adopted = [import_signature(&root, &key).await.unwrap()];
        assert_eq!(adopted[0].format, format);
        attach(&adopted, &place, &CopyOptions::default()).await.unwrap();
        let options = trust(&key).formats(vec![format]);
        assert!(matches!(outcome(&root, &options).await, Outcome::Verified(_)));
    }
}

#[tokio::test]
async fn an_attestation_does_not_count_as_a_signature() {
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let memory = Arc::new(Memory::new());
    let root = image(&memory, 1).await;
    let options = AttestOptions::new("https://example.com/tested/v1", json!({"passed": true}), Timestamp::UNIX_EPOCH);
    let place: Arc<dyn Sink> = memory.clone();
    attach(&attest(&root, &key, &options).await.unwrap(), &place, &CopyOptions::default()).await.unwrap();
    let Outcome::Missing(refused) = outcome(&root, &trust(&key)).await else { panic!("it is no signature") };
    assert!(matches!(refused[0].why, Refusal::OtherPredicate(_)));
    let wanted = trust(&key).predicate_type(Some(options.predicate_type.clone()));
    let Outcome::Verified(proof) = outcome(&root, &wanted).await else { panic!("it is attested") };
    let said = proof.predicate.as_ref().unwrap().as_str();
    assert_eq!(serde_json::from_str::<Value>(said).unwrap(), options.predicate);
    let signature = "https://sigstore.dev/cosign/sign/v1".to_owned();
    let refused = attest(&root, &key, &options.predicate_type(signature)).await;
    assert!(matches!(refused, Err(Error::Unsupported(_))));
}
