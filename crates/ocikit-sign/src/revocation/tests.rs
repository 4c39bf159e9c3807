use std::sync::LazyLock;

use proptest::prelude::*;
use rcgen::{
    BasicConstraints as Constraints, CertificateParams, CrlDistributionPoint, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::*;
use crate::der::{field, inner};
use crate::key::{KeyKind, PrivateKey, Scheme};

/// A root, an intermediate and a signer, with the keys of the first two.
struct Pki {
    chain: Vec<Certificate>,
    keys: [PrivateKey; 2],
}

fn params(name: &str, usages: Vec<KeyUsagePurpose>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    params.key_usages = usages;
    params
}

fn pki(of_authority: impl FnOnce(&mut CertificateParams), of_signer: impl FnOnce(&mut CertificateParams)) -> Pki {
    let keys = [(); 2].map(|()| PrivateKey::generate(KeyKind::P256).unwrap());
    let [root_key, authority_key] = [0, 1].map(|at| KeyPair::from_pem(&keys[at].to_pem().unwrap()).unwrap());
    let usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mut root = params("root", usages.clone());
    root.is_ca = IsCa::Ca(Constraints::Unconstrained);
    let mut authority = params("authority", usages);
    authority.is_ca = IsCa::Ca(Constraints::Constrained(0));
    of_authority(&mut authority);
    let mut signer = params("signer", vec![KeyUsagePurpose::DigitalSignature]);
    of_signer(&mut signer);
    let root_certificate = root.self_signed(&root_key).unwrap();
    let root = Issuer::new(root, root_key);
    let authority_certificate = authority.signed_by(&authority_key, &root).unwrap();
    let authority = Issuer::new(authority, authority_key);
    let signer = signer.signed_by(&KeyPair::generate().unwrap(), &authority).unwrap();
    let chain = [signer.der(), authority_certificate.der(), root_certificate.der()];
    Pki { chain: chain.map(|der| Certificate::from_der(der).unwrap()).to_vec(), keys }
}

/// The content of a list and its signer.
struct CrlContent {
    this: &'static str,
    next: Option<&'static str>,
    /// Serial numbers and their extensions.
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    extensions: Vec<u8>,
}

fn crl_content(entries: Vec<(Vec<u8>, Vec<u8>)>) -> CrlContent {
    CrlContent { this: "260601000000Z", next: Some("260701000000Z"), entries, extensions: Vec::new() }
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    field(Tag::Sequence, &parts.concat()).unwrap()
}

fn extension(oid: ObjectIdentifier, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { true.to_der().unwrap() } else { Vec::new() };
    sequence(&[oid.to_der().unwrap(), critical, field(Tag::OctetString, value).unwrap()])
}

fn list(issuer: &Certificate, key: &PrivateKey, crl_content: &CrlContent) -> RevocationList {
    RevocationList::from_der(&der(issuer, key, crl_content)).unwrap()
}

fn der(issuer: &Certificate, key: &PrivateKey, crl_content: &CrlContent) -> Vec<u8> {
    let time = |text: &str| field(Tag::UtcTime, text.as_bytes()).unwrap();
    let algorithm = sequence(&[ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2").to_der().unwrap()]);
    let entry = |(serial, extensions): &(Vec<u8>, Vec<u8>)| {
        let extensions = if extensions.is_empty() { Vec::new() } else { sequence(std::slice::from_ref(extensions)) };
        sequence(&[serial.clone(), time("260515000000Z"), extensions])
    };
    let entries: Vec<_> = crl_content.entries.iter().map(entry).collect();
    let extensions = match crl_content.extensions.is_empty() {
        true => Vec::new(),
        false => field(outer(0), &sequence(std::slice::from_ref(&crl_content.extensions))).unwrap(),
    };
    let signed = sequence(&[
        1u8.to_der().unwrap(),
        algorithm.clone(),
        issuer.parsed().tbs_certificate().subject().to_der().unwrap(),
        time(crl_content.this),
        crl_content.next.map(time).unwrap_or_default(),
        if entries.is_empty() { Vec::new() } else { sequence(&entries) },
        extensions,
    ]);
    let signature = [&[0][..], &key.sign(Scheme::EcdsaP256Sha256, &signed).unwrap()].concat();
    sequence(&[signed, algorithm, field(Tag::BitString, &signature).unwrap()])
}

fn serial(certificate: &Certificate) -> Vec<u8> {
    certificate.parsed().tbs_certificate().serial_number().to_der().unwrap()
}

fn now() -> Timestamp {
    "2026-06-15T00:00:00Z".parse().unwrap()
}

fn with_place(params: &mut CertificateParams) {
    params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec!["http://one.example/crl".to_owned()] }];
}

static PKI: LazyLock<Pki> = LazyLock::new(|| pki(with_place, with_place));

/// Returns the result for a signer with this list of its authority and a valid list of the root.
fn outcome(crl_content: &CrlContent) -> Result<(), Refusal> {
    let [_, authority, root] = &PKI.chain[..] else { panic!("there are three") };
    let lists = [list(root, &PKI.keys[0], &self::crl_content(vec![])), list(authority, &PKI.keys[1], crl_content)];
    check(&PKI.chain, &lists, now(), None)
}

#[test]
fn a_listed_certificate_is_revoked() {
    let [signer, authority, root] = &PKI.chain[..] else { panic!("there are three") };
    let other = 1u8.to_der().unwrap();
    assert_eq!(outcome(&crl_content(vec![])), Ok(()));
    assert_eq!(outcome(&crl_content(vec![(other.clone(), vec![])])), Ok(()));
    let revoked = outcome(&crl_content(vec![(other, vec![]), (serial(signer), vec![])])).unwrap_err();
    assert_eq!(revoked.to_string(), "the certificate CN=signer was revoked at 2026-05-15T00:00:00Z");
    // A revoked authority is reported before a signer of unknown status.
    let lists = [list(root, &PKI.keys[0], &crl_content(vec![(serial(authority), vec![])]))];
    let found = check(&PKI.chain, &lists, now(), None);
    assert!(matches!(found, Err(Refusal::Revoked { .. })), "{found:?}");
    // Without a list the status is unknown.
    let found = check(&PKI.chain, &[], now(), None).unwrap_err();
    assert!(matches!(found, Refusal::Revocation(_)), "{found}");
    // A certificate without distribution points is not revoked unless a list that was given says so.
    let silent = pki(|_| {}, |_| {});
    assert_eq!(check(&silent.chain, &[], now(), None), Ok(()));
    let told = [list(&silent.chain[1], &silent.keys[1], &crl_content(vec![(serial(&silent.chain[0]), vec![])]))];
    assert!(matches!(check(&silent.chain, &told, now(), None), Err(Refusal::Revoked { .. })));
}

#[test]
fn a_list_that_cannot_be_used_leaves_the_answer_unknown() {
    let [signer, authority, root] = &PKI.chain[..] else { panic!("there are three") };
    let unknown = ObjectIdentifier::new_unwrap("1.2.3");
    let with = |extensions| CrlContent { extensions, ..crl_content(vec![]) };
    let indirect = sequence(&[field(inner(4), &[0xff]).unwrap()]);
    let makings = [
        ("a delta list", with(extension(DELTA_INDICATOR, true, &[2, 1, 1]))),
        (
            "a delta list without the delta extension marked critical",
            with(extension(DELTA_INDICATOR, false, &[2, 1, 1])),
        ),
        ("something critical", with(extension(unknown, true, b""))),
        ("an indirect list", with(extension(IssuingDistributionPoint::OID, true, &indirect))),
        ("out of date", CrlContent { next: Some("260610000000Z"), ..crl_content(vec![]) }),
        ("of the future", CrlContent { this: "260620000000Z", ..crl_content(vec![]) }),
        ("without an end", CrlContent { next: None, ..crl_content(vec![]) }),
        ("a critical entry", crl_content(vec![(1u8.to_der().unwrap(), extension(unknown, true, &[5, 0]))])),
    ];
    let good = || list(authority, &PKI.keys[1], &crl_content(vec![]));
    let of_root = || list(root, &PKI.keys[0], &crl_content(vec![]));
    assert_eq!(check(&PKI.chain, &[of_root(), good(), good()], now(), None), Ok(()));
    let unusable = makings.iter().map(|(name, crl_content)| (*name, list(authority, &PKI.keys[1], crl_content)));
    let forged = ("by another key", list(authority, &PKI.keys[0], &crl_content(vec![])));
    for (name, bad) in unusable.chain([forged]) {
        for lists in [[of_root(), bad.clone(), good()], [of_root(), good(), bad.clone()]] {
            let found = check(&PKI.chain, &lists, now(), None);
            assert!(matches!(found, Err(Refusal::Revocation(_))), "{name}: {found:?}");
        }
        // One list that revokes is enough, in any position.
        let revoking = list(authority, &PKI.keys[1], &crl_content(vec![(serial(signer), vec![])]));
        for lists in [[of_root(), bad.clone(), revoking.clone()], [of_root(), revoking, bad]] {
            let found = check(&PKI.chain, &lists, now(), None);
            assert!(matches!(found, Err(Refusal::Revoked { .. })), "{name}: {found:?}");
        }
    }
}

#[test]
fn lists_of_another_key_of_the_issuer_are_not_its_own() {
    let [_, authority, root] = &PKI.chain[..] else { panic!("there are three") };
    let named = |key: &[u8]| {
        let value = sequence(&[field(inner(0), key).unwrap()]);
        let extensions = extension(AuthorityKeyIdentifier::OID, false, &value);
        CrlContent { extensions, ..crl_content(vec![]) }
    };
    let own = authority.extension::<SubjectKeyIdentifier>().unwrap().unwrap().1;
    let of_root = list(root, &PKI.keys[0], &crl_content(vec![]));
    let good = list(authority, &PKI.keys[1], &named(own.0.as_bytes()));
    // After a key change, both lists have the same issuer name.
    let older = list(authority, &PKI.keys[0], &named(b"another key"));
    assert_eq!(check(&PKI.chain, &[of_root.clone(), older.clone(), good], now(), None), Ok(()));
    assert!(matches!(check(&PKI.chain, &[of_root, older], now(), None), Err(Refusal::Revocation(_))));
}

#[test]
fn of_several_entries_one_that_revokes_is_enough() {
    let [signer, authority, root] = &PKI.chain[..] else { panic!("there are three") };
    let of_root = list(root, &PKI.keys[0], &crl_content(vec![]));
    let reason = |code: u8| extension(REASON, false, &[10, 1, code]);
    let since = |time: &[u8]| extension(INVALIDITY_DATE, false, &field(Tag::GeneralizedTime, time).unwrap());
    let signed = Some("2026-05-01T00:00:00Z".parse().unwrap());
    let later = since(b"20260510000000Z");
    for (entries, signed, is_revoked) in [
        (vec![vec![]], None, true),
        (vec![reason(1), reason(8)], None, true),
        (vec![reason(8), reason(1)], None, true),
        // Only a delta list removes an entry of another list.
        (vec![reason(8)], None, true),
        (vec![reason(6), reason(8)], None, true),
        (vec![later.clone()], signed, false),
        (vec![later.clone(), vec![]], signed, true),
        (vec![vec![], later.clone()], signed, true),
        (vec![later, since(b"20260401000000Z")], signed, true),
    ] {
        let entries: Vec<_> = entries.into_iter().map(|extensions| (serial(signer), extensions)).collect();
        let lists = [of_root.clone(), list(authority, &PKI.keys[1], &crl_content(entries))];
        let found = check(&PKI.chain, &lists, now(), signed);
        assert_eq!(matches!(found, Err(Refusal::Revoked { .. })), is_revoked, "{found:?}");
        assert_eq!(found.is_ok(), !is_revoked);
    }
}

#[test]
fn an_extension_occurs_once() {
    let [signer, authority, _] = &PKI.chain[..] else { panic!("there are three") };
    let twice = extension(ObjectIdentifier::new_unwrap("2.5.29.20"), false, &[2, 1, 1]).repeat(2);
    let reasons = extension(REASON, false, &[10, 1, 1]).repeat(2);
    for crl_content in
        [CrlContent { extensions: twice, ..crl_content(vec![]) }, crl_content(vec![(serial(signer), reasons)])]
    {
        let error = RevocationList::from_der(&der(authority, &PKI.keys[1], &crl_content)).unwrap_err();
        assert!(error.to_string().contains("an extension occurs twice"), "{error}");
    }
}

#[test]
fn signatures_before_the_invalidity_date_are_accepted() {
    let [signer, authority, root] = &PKI.chain[..] else { panic!("there are three") };
    let since = field(Tag::GeneralizedTime, b"20260510000000Z").unwrap();
    let entries = vec![(serial(signer), extension(INVALIDITY_DATE, false, &since))];
    let lists = [list(root, &PKI.keys[0], &crl_content(vec![])), list(authority, &PKI.keys[1], &crl_content(entries))];
    for (signed, counts) in [("2026-05-09", true), ("2026-05-11", false)] {
        let signed = Some(format!("{signed}T00:00:00Z").parse().unwrap());
        assert_eq!(check(&PKI.chain, &lists, now(), signed).is_ok(), counts);
    }
    assert!(check(&PKI.chain, &lists, now(), None).is_err());
}

#[test]
fn lists_that_violate_a_rule_give_no_status() {
    let place = |parts: &[Vec<u8>]| extension(IssuingDistributionPoint::OID, true, &sequence(parts));
    let named = |uri: &[u8]| {
        let name = field(inner(6), uri).unwrap();
        field(outer(0), &field(outer(0), &name).unwrap()).unwrap()
    };
    let flag = |number| field(inner(number), &[0xff]).unwrap();
    let unknown = ObjectIdentifier::new_unwrap("1.2.3");
    let delta = ObjectIdentifier::new_unwrap("2.5.29.27");
    let issuer_of_entry = ObjectIdentifier::new_unwrap("2.5.29.29");
    let with = |extensions| CrlContent { extensions, ..crl_content(vec![]) };
    for (name, crl_content, counts) in [
        ("of now", crl_content(vec![]), true),
        ("of the future", CrlContent { this: "260620000000Z", ..crl_content(vec![]) }, false),
        ("out of date", CrlContent { next: Some("260610000000Z"), ..crl_content(vec![]) }, false),
        ("without an end", CrlContent { next: None, ..crl_content(vec![]) }, false),
        ("with a number", with(extension(ObjectIdentifier::new_unwrap("2.5.29.20"), false, &[2, 1, 1])), true),
        ("something critical", with(extension(unknown, true, b"")), false),
        ("something else", with(extension(unknown, false, b"")), true),
        ("what was added", with(extension(delta, true, &[2, 1, 1])), false),
        ("of its place", with(place(&[named(b"http://one.example/crl")])), true),
        ("of another place", with(place(&[named(b"http://two.example/crl")])), false),
        ("of signers", with(place(&[flag(1)])), true),
        ("of authorities", with(place(&[flag(2)])), false),
        ("of attributes", with(place(&[flag(5)])), false),
        ("of others' certificates", with(place(&[flag(4)])), false),
        ("of some reasons", with(place(&[field(inner(3), &[6, 0x40]).unwrap()])), false),
        (
            "an entry of another issuer",
            crl_content(vec![(1u8.to_der().unwrap(), extension(issuer_of_entry, true, &[0x30, 0]))]),
            false,
        ),
    ] {
        let found = outcome(&crl_content);
        assert_eq!(found.is_ok(), counts, "{name}: {found:?}");
        assert!(counts || matches!(found, Err(Refusal::Revocation(_))), "{name}: {found:?}");
    }
    // Signed by another key, by an authority without the right usage, and for an issuer of another name.
    let [_, authority, root] = &PKI.chain[..] else { panic!("there are three") };
    let of_root = list(root, &PKI.keys[0], &crl_content(vec![]));
    let forged = list(authority, &PKI.keys[0], &crl_content(vec![]));
    assert!(check(&PKI.chain, &[of_root.clone(), forged], now(), None).is_err());
    assert!(check(&PKI.chain, &[of_root], now(), None).is_err());
    let weak = pki(
        |params| {
            with_place(params);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        },
        with_place,
    );
    let lists = [0, 1].map(|at| list(&weak.chain[2 - at], &weak.keys[at], &crl_content(vec![])));
    let found = check(&weak.chain, &lists, now(), None).unwrap_err();
    assert!(found.to_string().contains("may not sign revocation lists"), "{found}");
}

#[test]
fn no_byte_of_a_list_can_be_changed() {
    let [signer, authority, root] = &PKI.chain[..] else { panic!("there are three") };
    let of_root = list(root, &PKI.keys[0], &crl_content(vec![]));
    let good = list(authority, &PKI.keys[1], &crl_content(vec![(serial(signer), vec![])])).der;
    for position in 0..good.len() {
        let mut changed = good.clone();
        changed[position] ^= 1;
        let Ok(changed) = RevocationList::from_der(&changed) else { continue };
        let found = check(&PKI.chain, &[of_root.clone(), changed], now(), None);
        assert!(matches!(found, Err(Refusal::Revocation(_))), "{position} {found:?}");
    }
}

#[test]
fn files_hold_one_or_several() {
    let root = &PKI.chain[2];
    let list = list(root, &PKI.keys[0], &crl_content(vec![]));
    let pem = |label: &str| crate::key::pem(label, &list.der).to_string();
    assert_eq!(RevocationList::read_all(&list.der).unwrap(), std::slice::from_ref(&list));
    assert_eq!(RevocationList::read_all(pem("X509 CRL").repeat(2).as_bytes()).unwrap(), [list.clone(), list.clone()]);
    for wrong in [pem("CERTIFICATE"), String::new(), "0".to_owned()] {
        assert!(RevocationList::read_all(wrong.as_bytes()).is_err());
    }
    assert!(RevocationList::read_all(&list.der[..list.der.len() - 1]).is_err());
    assert!(RevocationList::read_all(root.to_der()).is_err());
}

proptest! {
    #[test]
    fn untrusted_input_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = RevocationList::from_der(&bytes);
        let _ = RevocationList::from_der(&sequence(&[sequence(&[bytes])]));
    }
}
