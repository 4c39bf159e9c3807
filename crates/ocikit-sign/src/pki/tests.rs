//! Every rule on certificates, checked on the three kinds of paths: sigstore, timestamp authorities, Notary Project.

use std::sync::LazyLock;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use x509_cert::der::{Encode, Tag};
use x509_cert::ext::pkix::NameConstraints;
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;

use super::path::{self, Purpose};
use super::*;
use crate::der::{Fields, field};
use crate::key::{KeyKind, PrivateKey, Scheme};
use crate::notation::Chain;
use crate::sigstore::TrustedRoot;

/// A change to a certificate before it is signed.
type Change = fn(&mut CertificateParams);
/// A change to the fields of a certificate, which is then signed again.
type Edit = fn(&mut Vec<Vec<u8>>);

/// Which certificate of a path a test changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Root,
    Middle,
    Leaf,
}
use At::{Leaf, Middle, Root};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Sigstore,
    Timestamp,
    Notary,
}
const PATHS: [Path; 3] = [Path::Sigstore, Path::Timestamp, Path::Notary];

/// The keys of root, intermediate and signer.
static KEYS: LazyLock<[PrivateKey; 3]> =
    LazyLock::new(|| [(); 3].map(|()| PrivateKey::generate(KeyKind::P256).unwrap()));

fn pair(at: At) -> KeyPair {
    let position = [Root, Middle, Leaf].iter().position(|other| *other == at).unwrap();
    KeyPair::from_pem(&KEYS[position].to_pem().unwrap()).unwrap()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Acme");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 1, 1);
    params
}

fn extension(oid: &[u64], critical: bool, value: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, value.to_vec());
    extension.set_criticality(critical);
    extension
}

const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const ALTERNATIVE_NAMES: &[u64] = &[2, 5, 29, 17];
const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const UNKNOWN: &[u64] = &[1, 3, 6, 1, 4, 1, 99999, 1];
const FOR_TIMESTAMPS: &[u8] = &[0x30, 0x0a, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 8];

/// Returns the certificates of signer, intermediate and root in DER, valid for one kind of path except for the
/// change.
fn certificates(path: Path, changed: At, change: Change) -> Vec<Vec<u8>> {
    let of = |at: At, params: &mut CertificateParams| {
        if at == changed {
            change(params);
        }
    };
    let mut root = params("root");
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    of(Root, &mut root);
    let top = root.self_signed(&pair(Root)).unwrap();
    let issuer = Issuer::new(root, pair(Root));
    let mut middle = params("middle");
    middle.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    middle.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    of(Middle, &mut middle);
    let between = middle.signed_by(&pair(Middle), &issuer).unwrap();
    let issuer = Issuer::new(middle, pair(Middle));
    let mut leaf = params("signer");
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.subject_alt_names = vec![SanType::Rfc822Name("signer@example.com".try_into().unwrap())];
    match path {
        Path::Timestamp => leaf.custom_extensions = vec![extension(EXTENDED_KEY_USAGE, true, FOR_TIMESTAMPS)],
        _ => leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning],
    }
    of(Leaf, &mut leaf);
    let leaf = leaf.signed_by(&pair(Leaf), &issuer).unwrap();
    [leaf.der(), between.der(), top.der()].map(|der| der.to_vec()).to_vec()
}

/// Returns why a path is refused at a time, or `None` if it is valid.
fn refused(path: Path, ders: &[Vec<u8>], time: Timestamp) -> Option<String> {
    let read = ders.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>();
    let found = match read {
        Ok(found) => found,
        Err(error) => return Some(error.to_string()),
    };
    let [leaf, middle, root] = &found[..] else { panic!("there are three") };
    match path {
        Path::Sigstore => {
            let root = TrustedRoot::of_authorities(vec![found[1..].to_vec()], Vec::new()).unwrap();
            root.issuer(leaf, time).err().map(|error| error.to_string())
        }
        Path::Timestamp => {
            let found = path::find(leaf, std::slice::from_ref(root), &[middle], Purpose::TimeStamping, time);
            found.err().map(|violation| violation.to_string())
        }
        Path::Notary => match Chain::new(found.clone()) {
            Err(error) => Some(error.to_string()),
            Ok(chain) => chain.invalid_at(time).map(|invalid| format!("{} is not valid at {time}", invalid.subject())),
        },
    }
}

const DURING: &str = "2026-06-15T12:00:00Z";
/// The expected message for a path that is accepted.
const NOTHING: &str = "";

#[test]
fn every_path_follows_every_rule() {
    // The change, the certificates that are changed one at a time, and the expected message per kind of path: sigstore,
    // timestamps, Notary Project.
    let cases: &[(&str, &[At], Change, [&str; 3])] = &[
        ("nothing", &[Leaf], |_| {}, [NOTHING; 3]),
        ("no authority", &[Root, Middle], |cert| cert.is_ca = IsCa::ExplicitNoCa, ["not a certificate authority"; 3]),
        ("no basic constraints", &[Root, Middle], |cert| cert.is_ca = IsCa::NoCa, ["not a certificate authority"; 3]),
        (
            "basic constraints that are not critical",
            &[Middle, Root],
            |cert| {
                cert.is_ca = IsCa::NoCa;
                cert.custom_extensions = vec![extension(BASIC_CONSTRAINTS, false, &[0x30, 3, 1, 1, 0xff])];
            },
            ["basic constraints are not critical", NOTHING, "basic constraints are not critical"],
        ),
        (
            "malformed basic constraints",
            &[Middle],
            |middle| {
                middle.is_ca = IsCa::NoCa;
                middle.custom_extensions = vec![extension(BASIC_CONSTRAINTS, true, &[0x30, 3, 1, 1])];
            },
            ["2.5.29.19 is malformed"; 3],
        ),
        (
            "path length",
            &[Root],
            |root| root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)),
            ["allows 0 certificate authorities"; 3],
        ),
        (
            "path length, of an authority that certifies itself",
            &[Middle],
            |middle| middle.distinguished_name = params("root").distinguished_name,
            [NOTHING; 3],
        ),
        ("no key usage", &[Root, Middle, Leaf], |cert| cert.key_usages.clear(), ["key usage is missing"; 3]),
        (
            "does not sign certificates",
            &[Root],
            |root| root.key_usages = vec![KeyUsagePurpose::CrlSign],
            ["does not include keyCertSign"; 3],
        ),
        (
            "does not sign certificates",
            &[Middle],
            |middle| middle.key_usages = vec![KeyUsagePurpose::DigitalSignature],
            ["does not include keyCertSign"; 3],
        ),
        (
            "a key usage that is not critical",
            &[Middle],
            |middle| {
                middle.key_usages.clear();
                middle.custom_extensions = vec![extension(KEY_USAGE, false, &[3, 2, 2, 4])];
            },
            [NOTHING, NOTHING, "key usage is not critical"],
        ),
        (
            "for servers alone",
            &[Middle, Root],
            |cert| cert.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            ["include code signing", "include timestamping", "include code signing"],
        ),
        (
            "for everything",
            &[Middle],
            |middle| middle.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any],
            [NOTHING; 3],
        ),
        (
            "for both purposes",
            &[Middle],
            |middle| {
                middle.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::CodeSigning, ExtendedKeyUsagePurpose::TimeStamping];
            },
            [NOTHING; 3],
        ),
        (
            "an authority",
            &[Leaf],
            |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            ["it is a certificate authority"; 3],
        ),
        ("says that it is no authority", &[Leaf], |leaf| leaf.is_ca = IsCa::ExplicitNoCa, [NOTHING; 3]),
        (
            "does not sign",
            &[Leaf],
            |leaf| leaf.key_usages = vec![KeyUsagePurpose::KeyAgreement],
            ["does not include digitalSignature"; 3],
        ),
        (
            "signs certificates",
            &[Leaf],
            |leaf| leaf.key_usages.push(KeyUsagePurpose::KeyCertSign),
            ["more than signing"; 3],
        ),
        (
            "signs revocation lists",
            &[Leaf],
            |leaf| leaf.key_usages.push(KeyUsagePurpose::CrlSign),
            [NOTHING, "more than signing", "more than signing"],
        ),
        (
            "encrypts",
            &[Leaf],
            |leaf| leaf.key_usages.push(KeyUsagePurpose::KeyEncipherment),
            [NOTHING, NOTHING, "more than signing"],
        ),
        (
            "a key usage that is not critical",
            &[Leaf],
            |leaf| {
                leaf.key_usages.clear();
                leaf.custom_extensions.push(extension(KEY_USAGE, false, &[3, 2, 7, 0x80]));
            },
            [NOTHING, NOTHING, "key usage is not critical"],
        ),
        (
            "an empty extended key usage",
            &[Leaf],
            |leaf| {
                leaf.extended_key_usages.clear();
                leaf.custom_extensions = vec![extension(EXTENDED_KEY_USAGE, true, &[0x30, 0])];
            },
            ["extended key usage is empty"; 3],
        ),
        (
            "no extended key usage",
            &[Leaf],
            |leaf| {
                leaf.extended_key_usages.clear();
                leaf.custom_extensions.clear();
            },
            ["extended key usage is missing", "extended key usage is missing", NOTHING],
        ),
        (
            "for servers as well",
            &[Leaf],
            |leaf| {
                leaf.custom_extensions.clear();
                leaf.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::CodeSigning, ExtendedKeyUsagePurpose::ServerAuth];
            },
            [NOTHING, "does not include timestamping", "more than code signing"],
        ),
        (
            "for timestamps as well",
            &[Leaf],
            |leaf| {
                leaf.custom_extensions.clear();
                leaf.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::CodeSigning, ExtendedKeyUsagePurpose::TimeStamping];
            },
            [NOTHING, "more than timestamping", "more than code signing"],
        ),
        (
            "for timestamps, not critical",
            &[Leaf],
            |leaf| {
                leaf.custom_extensions.clear();
                leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::TimeStamping];
            },
            ["include code signing", "extended key usage is not critical", "more than code signing"],
        ),
        (
            "unknown and critical",
            &[Root, Middle, Leaf],
            |cert| cert.custom_extensions.push(extension(UNKNOWN, true, &[5, 0])),
            ["critical extension 1.3.6.1.4.1.99999.1 is not supported"; 3],
        ),
        ("unknown", &[Leaf], |leaf| leaf.custom_extensions.push(extension(UNKNOWN, false, &[5, 0])), [NOTHING; 3]),
        (
            "unknown, twice",
            &[Root, Middle, Leaf],
            |cert| cert.custom_extensions.extend(vec![extension(UNKNOWN, false, &[5, 0]); 2]),
            ["an extension occurs twice"; 3],
        ),
        (
            "name constraints, twice",
            &[Middle],
            |middle| middle.custom_extensions = vec![excluding("example.org", false), excluding("example.com", false)],
            ["an extension occurs twice"; 3],
        ),
        (
            "two key usages",
            &[Leaf],
            |leaf| leaf.custom_extensions.push(extension(KEY_USAGE, true, &[3, 2, 7, 0x80])),
            ["an extension occurs twice"; 3],
        ),
        (
            "other names alone",
            &[Middle],
            |middle| middle.custom_extensions = vec![excluding("example.org", true)],
            [NOTHING; 3],
        ),
        (
            "not this name",
            &[Middle],
            |middle| middle.custom_extensions = vec![excluding("example.com", true)],
            ["must not certify"; 3],
        ),
        (
            "not this name, not critical",
            &[Middle, Root],
            |cert| cert.custom_extensions = vec![excluding("example.com", false)],
            ["must not certify"; 3],
        ),
        (
            "malformed name constraints, not critical",
            &[Middle],
            |middle| middle.custom_extensions = vec![extension(NAME_CONSTRAINTS, false, &[0x30, 0])],
            ["they constrain nothing"; 3],
        ),
        (
            "name constraints",
            &[Leaf],
            |leaf| leaf.custom_extensions.push(excluding("example.org", false)),
            ["it has name constraints"; 3],
        ),
        (
            "expired",
            &[Root, Middle, Leaf],
            |cert| cert.not_after = rcgen::date_time_ymd(2026, 6, 15),
            ["is not valid at 2026-06-15T12:00:00Z"; 3],
        ),
        (
            "not valid yet",
            &[Root, Leaf],
            |cert| cert.not_before = rcgen::date_time_ymd(2026, 6, 16),
            ["is not valid at 2026-06-15T12:00:00Z"; 3],
        ),
        ("no subject", &[Leaf], |leaf| leaf.distinguished_name = DistinguishedName::new(), [NOTHING; 3]),
        (
            "no subject, and names that are not critical",
            &[Leaf],
            |leaf| {
                leaf.distinguished_name = DistinguishedName::new();
                leaf.subject_alt_names.clear();
                leaf.custom_extensions.push(extension(ALTERNATIVE_NAMES, false, &[0x30, 3, 0x82, 1, b'a']));
            },
            ["its subject is empty"; 3],
        ),
        (
            "malformed names",
            &[Leaf],
            |leaf| {
                leaf.subject_alt_names.clear();
                leaf.custom_extensions.push(extension(ALTERNATIVE_NAMES, false, &[0x30, 3, 0x82, 5, b'a']));
            },
            ["2.5.29.17 is malformed"; 3],
        ),
        (
            "no subject",
            &[Middle],
            |middle| middle.distinguished_name = DistinguishedName::new(),
            ["its issuer is empty"; 3],
        ),
    ];
    for (what, at, change, expected) in cases {
        let places =
            at.iter().flat_map(|at| PATHS.into_iter().zip(expected).map(move |(path, expected)| (at, path, expected)));
        for (at, path, expected) in places {
            let found = refused(path, &certificates(path, *at, *change), time(DURING));
            match &found {
                None => assert_eq!(*expected, NOTHING, "{path:?}, {at:?}: {what} is accepted"),
                Some(why) => {
                    let is_expected = *expected != NOTHING && why.contains(expected);
                    assert!(is_expected, "{path:?}, {at:?}: {what} is refused: {why}");
                }
            }
        }
    }
}

/// Returns name constraints that exclude mail addresses at a host.
fn excluding(host: &str, critical: bool) -> CustomExtension {
    let base = GeneralName::Rfc822Name(x509_cert::der::asn1::Ia5String::new(host).unwrap());
    let subtree = GeneralSubtree { base, minimum: 0, maximum: None };
    let constraints = NameConstraints { permitted_subtrees: None, excluded_subtrees: Some(vec![subtree]) };
    extension(NAME_CONSTRAINTS, critical, &constraints.to_der().unwrap())
}

/// Returns the certificate with changed fields, signed again with the key of its issuer.
fn edited(der: &[u8], issuer: At, edit: Edit, algorithm: Option<&[u8]>) -> Vec<u8> {
    let mut whole = Fields::of(der, Tag::Sequence).unwrap();
    let mut signed = whole.fields(Tag::Sequence).unwrap();
    let mut fields = Vec::new();
    while !signed.is_finished() {
        fields.push(signed.bytes().unwrap().to_vec());
    }
    edit(&mut fields);
    let signed = field(Tag::Sequence, &fields.concat()).unwrap();
    let algorithm = algorithm.map_or_else(|| whole.bytes().unwrap().to_vec(), <[u8]>::to_vec);
    let key = &KEYS[[Root, Middle, Leaf].iter().position(|other| *other == issuer).unwrap()];
    let signature = [&[0][..], &key.sign(Scheme::EcdsaP256Sha256, &signed).unwrap()].concat();
    field(Tag::Sequence, &[signed, algorithm, field(Tag::BitString, &signature).unwrap()].concat()).unwrap()
}

#[test]
fn the_form_of_certificates_is_checked_on_every_path() {
    const SHA384: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
    // The fields: version, serial number, algorithm, issuer, validity, subject, key, extensions.
    let cases: &[(&str, Edit, Option<&[u8]>, &str)] = &[
        ("nothing", |_| {}, None, NOTHING),
        ("version 1 with extensions", |fields| drop(fields.remove(0)), None, "not of version 3"),
        ("version 2 with extensions", |fields| fields[0] = vec![0xa0, 3, 2, 1, 1], None, "not of version 3"),
        ("version 4", |fields| fields[0] = vec![0xa0, 3, 2, 1, 3], None, "not a certificate"),
        ("a negative serial number", |fields| fields[1] = vec![2, 1, 0x80], None, "serial number is negative"),
        ("a serial number of 22 bytes", |fields| fields[1] = [&[2, 22, 1][..], &[0; 21]].concat(), None, "not a cert"),
        // In use: the roots of Starfield and Go Daddy.
        ("a serial number of zero", |fields| fields[1] = vec![2, 1, 0], None, NOTHING),
        ("another algorithm outside", |_| {}, Some(SHA384), "two signature algorithms"),
        ("another algorithm inside", |fields| fields[2] = SHA384.to_vec(), None, "two signature algorithms"),
        ("the wrong algorithm in both", |fields| fields[2] = SHA384.to_vec(), Some(SHA384), "the signature is wrong"),
        ("an empty issuer", |fields| fields[3] = vec![0x30, 0], None, "its issuer is empty"),
        (
            "no extensions",
            |fields| {
                fields.remove(0);
                fields.truncate(6);
            },
            None,
            "key usage is missing",
        ),
        (
            "SHA-1",
            |fields| fields[2] = vec![0x30, 9, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1],
            Some(&[0x30, 9, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1]),
            "1.2.840.10045.4.1 is not supported",
        ),
        ("something behind the extensions", |fields| fields.push(vec![5, 0]), None, "not a certificate"),
    ];
    for (what, edit, algorithm, expected) in cases {
        for path in PATHS {
            let mut ders = certificates(path, Leaf, |_| {});
            ders[0] = edited(&ders[0], Middle, *edit, *algorithm);
            let found = refused(path, &ders, time(DURING));
            let is_expected =
                found.as_ref().map_or(*expected == NOTHING, |why| !expected.is_empty() && why.contains(expected));
            assert!(is_expected, "{path:?}: {what}: {found:?}");
        }
    }
    // Signed by another key of the same name, and issued by an authority of another name.
    for path in PATHS {
        let mut ders = certificates(path, Leaf, |_| {});
        ders[0] = edited(&ders[0], Root, |_| {}, None);
        assert!(
            refused(path, &ders, time(DURING)).is_some_and(|why| why.contains("the signature is wrong")),
            "{path:?}"
        );
        ders[0] = edited(&ders[0], Middle, |fields| fields[3] = fields[5].clone(), None);
        assert!(refused(path, &ders, time(DURING)).is_some(), "{path:?}");
    }
}

#[test]
fn a_certificate_is_valid_for_all_of_its_last_second_and_no_longer() {
    for path in PATHS {
        let ders = certificates(path, Leaf, |leaf| leaf.not_after = rcgen::date_time_ymd(2026, 7, 1));
        for (at, is_valid) in [
            ("2025-12-31T23:59:59.999999999Z", false),
            ("2026-01-01T00:00:00Z", true),
            ("2026-07-01T00:00:00Z", true),
            ("2026-07-01T00:00:00.000000001Z", false),
            ("2026-07-01T00:00:01Z", false),
            ("1969-12-31T23:59:59Z", false),
        ] {
            assert_eq!(refused(path, &ders, time(at)).is_none(), is_valid, "{path:?} {at}");
        }
    }
}

#[test]
fn self_issued_certificates_count_for_path_lengths_of_the_notary_project_alone() {
    for path in PATHS {
        let change: Change = |middle| middle.distinguished_name = params("root").distinguished_name;
        let mut ders = certificates(path, Middle, change);
        let constrained = certificates(path, Root, |root| root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
        ders[2] = constrained[2].clone();
        let found = refused(path, &ders, time(DURING));
        match path {
            Path::Notary => assert!(found.is_some_and(|why| why.contains("allows 0 certificate authorities"))),
            _ => assert_eq!(found, None, "{path:?}"),
        }
    }
}

#[test]
fn a_path_is_found_among_others_and_the_search_ends() {
    let ders = certificates(Path::Sigstore, Leaf, |_| {});
    let good: Vec<_> = ders.iter().map(|der| Certificate::from_der(der).unwrap()).collect();
    let [leaf, middle, root] = &good[..] else { panic!("there are three") };
    let other = |at: At, change: Change| {
        let position = if at == Root { 2 } else { 1 };
        Certificate::from_der(&certificates(Path::Sigstore, at, change)[position]).unwrap()
    };
    let expired = other(Middle, |middle| middle.not_after = rcgen::date_time_ymd(2026, 2, 1));
    let constrained = other(Middle, |middle| middle.custom_extensions = vec![excluding("example.com", false)]);
    let stranger = other(Root, |root| root.distinguished_name.push(DnType::CommonName, "stranger"));
    let find = |trusted: &[Certificate], others: &[&Certificate]| {
        path::find(leaf, trusted, others, Purpose::CodeSigning, time(DURING)).map(|path| path.len())
    };
    let trusted = [stranger.clone(), root.clone()];
    assert_eq!(find(&trusted, &[&expired, &constrained, middle, &stranger]), Ok(3));
    let rule = |found: Result<usize, Violation>| found.unwrap_err().rule;
    assert!(matches!(rule(find(&trusted, &[&constrained])), Rule::NameExcluded { .. }));
    assert!(matches!(rule(find(&trusted, &[&expired])), Rule::NotValidAt(_)));
    assert_eq!(rule(find(&trusted, &[])), Rule::NoPath);
    assert_eq!(rule(find(&[stranger], &[middle])), Rule::NoPath);
    assert_eq!(rule(find(&[], &[middle, root])), Rule::NoPath);
    // A trusted leaf certificate is not an authority.
    assert_eq!(rule(find(std::slice::from_ref(leaf), &[])), Rule::NoPath);
    // Many certificates with one name and key, none of which leads to a root.
    let many: Vec<_> = (2..30)
        .map(|number| {
            let mut params = params("middle");
            params.serial_number = Some(number.into());
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            Certificate::from_der(params.self_signed(&pair(Middle)).unwrap().der()).unwrap()
        })
        .collect();
    let many: Vec<_> = many.iter().collect();
    assert!(matches!(rule(find(&[], &many)), Rule::TooManySignatures(_)));
}
