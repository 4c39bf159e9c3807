//! Images signed with keys of the crate `sigstore` are verified here, and the other way round.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says where it fails by panicking")]

use std::sync::Arc;

use ocikit_image::{CopyOptions, Memory, Root, Sink, SourceExt, testing};
use ocikit_sign::{
    Format, KeyKind, Outcome, PrivateKey, SignOptions, Signer, SigstoreSigner, Trust, VerifyOptions, attach, sign,
    verify,
};
use ocikit_spec::Document;
use sigstore::crypto::signing_key::SigStoreKeyPair;
use sigstore::crypto::{CosignVerificationKey, Signature, SigningScheme};

const FORMATS: [Format; 2] = [Format::Cosign, Format::CosignLegacy];

async fn image(memory: &Arc<Memory>) -> Root {
    let descriptor = testing::image(memory, 1, &"linux/amd64".parse().unwrap(), &[100]);
    Root::at(memory.clone(), descriptor).await.unwrap()
}

fn signers() -> Vec<SigstoreSigner> {
    let schemes = [
        SigningScheme::ECDSA_P256_SHA256_ASN1,
        SigningScheme::ECDSA_P384_SHA384_ASN1,
        SigningScheme::ED25519,
        SigningScheme::RSA_PKCS1_SHA256(2048),
    ];
    schemes.iter().map(|scheme| SigstoreSigner::of_signer(scheme.create_signer().unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn signatures_of_that_crate_are_verified() {
    for signer in signers() {
        for format in FORMATS {
            let memory = Arc::new(Memory::new());
            let (root, place) = (image(&memory).await, memory.clone() as Arc<dyn Sink>);
            let options = SignOptions::new(vec![format], 0_u64);
            let signed = sign(&root, &signer, &options).await.unwrap();
            attach(&signed, &place, &CopyOptions::default()).await.unwrap();
            let trusted = Trust::Key { name: "key".to_owned(), key: signer.public_key().clone() };
            let report = verify(&root, &VerifyOptions::new(vec![trusted])).await.unwrap();
            assert!(matches!(report.checks[0].outcome, Outcome::Verified(_)), "{signer:?} {format:?}");
        }
    }
}

#[tokio::test]
async fn that_crate_verifies_our_signatures() {
    for (kind, scheme) in
        [(KeyKind::P256, SigningScheme::ECDSA_P256_SHA256_ASN1), (KeyKind::Ed25519, SigningScheme::ED25519)]
    {
        let key = PrivateKey::generate(kind).unwrap();
        let root = image(&Arc::new(Memory::new())).await;
        let options = SignOptions::new(vec![Format::CosignLegacy], 0_u64);
        let signed = sign(&root, &key, &options).await.unwrap().remove(0);
        let Some(Document::Manifest(manifest)) = signed.root.document() else { panic!("it is a manifest") };
        let layer = &manifest.layers()[0];
        let payload = signed.root.source().read(layer).await.unwrap();
        let signature = layer.annotations.get("dev.cosignproject.cosign/signature").unwrap();
        let theirs = CosignVerificationKey::from_pem(key.public_key().to_pem().as_bytes(), &scheme).unwrap();
        theirs.verify_signature(Signature::Base64Encoded(signature.as_bytes()), &payload).unwrap();
        let changed = [&payload[..], b" "].concat();
        assert!(theirs.verify_signature(Signature::Base64Encoded(signature.as_bytes()), &changed).is_err());
    }
}

/// Our unencrypted keys are read by that crate, and give the same public key.
#[tokio::test]
async fn keys_are_exchanged() {
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519] {
        let ours = PrivateKey::generate(kind).unwrap();
        let theirs = SigStoreKeyPair::from_pem(ours.to_pem().unwrap().as_bytes()).unwrap();
        let signer = SigstoreSigner::of_key_pair(&theirs).unwrap();
        assert_eq!(signer.public_key(), ours.public_key(), "{kind:?}");
        let back = PrivateKey::from_pem(theirs.private_key_to_pem().unwrap().as_bytes(), None);
        assert_eq!(back.unwrap().public_key(), ours.public_key(), "{kind:?}");
    }
}
