use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};

use super::*;
use crate::key::{KeyKind, PrivateKey};
use crate::sigstore::testing::{World, at};

const DURING: &str = "2026-06-15T12:00:00Z";

type Change = fn(&mut CertificateParams);

fn refused(world: &World, of_leaf: Change, time: &str) -> Option<String> {
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let leaf = world.certificate(&key, of_leaf);
    issuer(&leaf, &world.root().authorities, at(time)).err().map(|why| why.to_string())
}

fn critical(params: &mut CertificateParams) {
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], vec![0x30, 0]);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
}

#[test]
fn a_signer_has_a_certificate_to_sign_code_with_at_the_time() {
    let world = World::new();
    let cases: [(Change, &str, Option<&str>); 12] = [
        (|_| {}, DURING, None),
        (|_| {}, "2026-06-01T00:00:00Z", None),
        (|_| {}, "2026-07-01T00:00:00Z", None),
        (|_| {}, "2026-05-31T23:59:59Z", Some("was not valid at")),
        (|_| {}, "2026-07-01T00:00:01Z", Some("was not valid at")),
        (|leaf| leaf.extended_key_usages.clear(), DURING, Some("not to sign code with")),
        (
            |leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::TimeStamping],
            DURING,
            Some("not to sign code with"),
        ),
        (|leaf| leaf.key_usages.clear(), DURING, Some("not to sign with")),
        (|leaf| leaf.key_usages = vec![KeyUsagePurpose::KeyAgreement], DURING, Some("not to sign with")),
        (|leaf| leaf.key_usages.push(KeyUsagePurpose::KeyCertSign), DURING, Some("not to sign with")),
        (|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), DURING, Some("is an authority")),
        (critical, DURING, Some("2.5.29.30 is not understood")),
    ];
    for (number, (change, time, expected)) in cases.into_iter().enumerate() {
        let found = refused(&world, change, time);
        match (&found, expected) {
            (None, None) => {}
            (Some(found), Some(expected)) if found.contains(expected) => {}
            _ => panic!("{number}: {found:?}"),
        }
    }
}

#[test]
fn an_authority_may_issue_what_it_issued() {
    let nothing: Change = |_| {};
    let cases: [(Change, Change, &str); 8] = [
        (nothing, |middle| middle.is_ca = IsCa::NoCa, "basic constraints"),
        (nothing, |middle| middle.key_usages = vec![KeyUsagePurpose::DigitalSignature], "key usage"),
        (
            nothing,
            |middle| middle.extended_key_usages = vec![ExtendedKeyUsagePurpose::TimeStamping],
            "may not issue certificates to sign code with",
        ),
        (nothing, |middle| middle.not_after = rcgen::date_time_ymd(2026, 6, 10), "was not valid at"),
        (nothing, critical, "2.5.29.30 is not understood"),
        (|root| root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)), nothing, "fewer authorities"),
        (|root| root.not_before = rcgen::date_time_ymd(2026, 6, 20), nothing, "was not valid at"),
        (critical, nothing, "2.5.29.30 is not understood"),
    ];
    for (number, (of_root, of_middle, expected)) in cases.into_iter().enumerate() {
        let world = World::with(of_root, of_middle);
        let found = refused(&world, nothing, DURING);
        assert!(found.as_ref().is_some_and(|found| found.contains(expected)), "{number}: {found:?}");
    }
}

#[test]
fn others_of_the_same_name_are_not_believed() {
    let (world, other) = (World::new(), World::new());
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let leaf = world.certificate(&key, |leaf| {
        leaf.subject_alt_names = vec![SanType::URI("https://example.com/a".try_into().unwrap())];
    });
    let found = issuer(&leaf, &other.root().authorities, at(DURING)).unwrap_err();
    assert!(found.to_string().contains("is wrong"), "{found}");
    let mut both = other.root().authorities;
    both.extend(world.root().authorities);
    assert_eq!(issuer(&leaf, &both, at(DURING)).unwrap(), &world.chain[0]);
    assert!(issuer(&leaf, &[], at(DURING)).is_err());
}
