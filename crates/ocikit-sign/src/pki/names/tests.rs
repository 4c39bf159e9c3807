use std::net::IpAddr;
use std::sync::LazyLock;

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, Issuer, KeyPair, OtherNameValue, SanType,
};
use x509_cert::der::asn1::{Ia5String, OctetString};
use x509_cert::der::{Decode, Encode};

use super::*;

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];

/// Returns a certificate issued by `CN=issuer` with these names.
fn certificate(subject: &[(DnType, &str)], names: &[SanType], constraints: Option<Vec<u8>>) -> Certificate {
    let issuer = subject_of(&[(DnType::CommonName, "issuer")]);
    let params = |subject: DistinguishedName| {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params
    };
    let issuer = Issuer::new(params(issuer), &*KEY);
    let mut params = params(subject_of(subject));
    params.subject_alt_names = names.to_vec();
    params.custom_extensions =
        constraints.map(|der| CustomExtension::from_oid_content(NAME_CONSTRAINTS, der)).into_iter().collect();
    Certificate::from_der(params.signed_by(&*KEY, &issuer).unwrap().der()).unwrap()
}

fn subject_of(attributes: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in attributes {
        name.push(kind.clone(), *value);
    }
    name
}

fn constraints(permitted: &[GeneralName], excluded: &[GeneralName]) -> Vec<u8> {
    let subtrees = |names: &[GeneralName]| {
        let subtree = |base: &GeneralName| GeneralSubtree { base: base.clone(), minimum: 0, maximum: None };
        (!names.is_empty()).then(|| names.iter().map(subtree).collect())
    };
    let found = NameConstraints { permitted_subtrees: subtrees(permitted), excluded_subtrees: subtrees(excluded) };
    found.to_der().unwrap()
}

fn ia5(text: &str) -> Ia5String {
    Ia5String::new(text).unwrap()
}

/// Parses `dns:`, `mail:`, `uri:`, `dir:` or an IP address with or without a mask.
fn base(text: &str) -> GeneralName {
    match text.split_once(':').filter(|(kind, _)| ["dns", "mail", "uri", "dir", "other"].contains(kind)) {
        Some(("dns", text)) => GeneralName::DnsName(ia5(text)),
        Some(("mail", text)) => GeneralName::Rfc822Name(ia5(text)),
        Some(("uri", text)) => GeneralName::UniformResourceIdentifier(ia5(text)),
        Some(("dir", text)) => GeneralName::DirectoryName(text.parse().unwrap()),
        Some(_) => GeneralName::RegisteredId(ObjectIdentifier::new_unwrap("1.2.3")),
        None => {
            let bytes = text.split('/').flat_map(|part| match part.parse().unwrap() {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            });
            GeneralName::IpAddress(OctetString::new(bytes.collect::<Vec<_>>()).unwrap())
        }
    }
}

fn name(text: &str) -> SanType {
    match text.split_once(':').filter(|(kind, _)| ["dns", "mail", "uri", "other"].contains(kind)) {
        Some(("dns", text)) => SanType::DnsName(text.try_into().unwrap()),
        Some(("mail", text)) => SanType::Rfc822Name(text.try_into().unwrap()),
        Some(("uri", text)) => SanType::URI(text.try_into().unwrap()),
        Some((_, text)) => SanType::OtherName((vec![1, 2, 3], OtherNameValue::Utf8String(text.to_owned()))),
        None => SanType::IpAddress(text.parse().unwrap()),
    }
}

#[test]
fn name_constraints_are_enforced() {
    // The permitted names, the excluded names, the name, and whether it may be certified.
    let cases: &[(&[&str], &[&str], &str, bool)] = &[
        // Hosts: the base and everything below it.
        (&["dns:example.com"], &[], "dns:example.com", true),
        (&["dns:example.com"], &[], "dns:a.b.example.com", true),
        (&["dns:example.com"], &[], "dns:EXAMPLE.com", true),
        (&["dns:Example.COM"], &[], "dns:a.example.com", true),
        (&["dns:example.com"], &[], "dns:badexample.com", false),
        (&["dns:example.com"], &[], "dns:example.com.evil.org", false),
        (&["dns:example.com"], &[], "dns:com", false),
        (&["dns:example.org", "dns:example.com"], &[], "dns:a.example.com", true),
        (&[], &["dns:example.com"], "dns:example.com", false),
        (&[], &["dns:example.com"], "dns:a.example.com", false),
        (&[], &["dns:example.com"], "dns:example.org", true),
        (&["dns:example.com"], &["dns:a.example.com"], "dns:b.example.com", true),
        (&["dns:example.com"], &["dns:a.example.com"], "dns:a.example.com", false),
        (&["dns:"], &[], "dns:example.com", true),
        (&[], &["dns:"], "dns:example.com", false),
        // Wildcards: all names they stand for must be permitted, and none excluded.
        (&["dns:example.com"], &[], "dns:*.example.com", true),
        (&["dns:a.example.com"], &[], "dns:*.example.com", false),
        (&[], &["dns:a.example.com"], "dns:*.example.com", false),
        (&[], &["dns:b.a.example.com"], "dns:*.example.com", true),
        (&[], &["dns:example.com"], "dns:*.example.com", false),
        // Malformed names.
        (&["dns:example.com"], &[], "dns:.example.com", false),
        (&["dns:example.com"], &[], "dns:a.example.com.", false),
        (&["dns:example.com"], &[], "dns:a..example.com", false),
        (&["dns:example.com"], &[], "dns:a.*.example.com", false),
        (&["dns:example.com"], &[], "dns:a b.example.com", false),
        (&[], &["dns:example.com"], "dns:a.example.com.", false),
        (&[], &["dns:example.com"], "dns:192.0.2.1", false),
        // Mail addresses: a single one, those at a host, those at hosts below one.
        (&["mail:a@example.com"], &[], "mail:a@example.com", true),
        (&["mail:a@example.com"], &[], "mail:a@EXAMPLE.com", true),
        (&["mail:a@example.com"], &[], "mail:A@example.com", false),
        (&["mail:a@example.com"], &[], "mail:b@example.com", false),
        (&["mail:*@example.com"], &[], "mail:b@example.com", false),
        (&["mail:*@example.com"], &[], "mail:*@example.com", true),
        (&["mail:example.com"], &[], "mail:a@example.com", true),
        (&["mail:example.com"], &[], "mail:a@b.example.com", false),
        (&["mail:.example.com"], &[], "mail:a@b.example.com", true),
        (&["mail:.example.com"], &[], "mail:a@example.com", false),
        (&[], &["mail:example.com"], "mail:a@example.com", false),
        (&[], &["mail:example.com"], "mail:a@example.org", true),
        (&[], &["mail:.example.com"], "mail:a@b.c.example.com", false),
        (&["mail:example.com"], &[], "mail:a@b@example.com", false),
        (&["mail:example.com"], &[], "mail:example.com", false),
        (&["mail:example.com"], &[], "mail:@example.com", false),
        (&[], &["mail:example.org"], "mail:\"a@example.org\"@example.com", false),
        // URIs: by their host.
        (&["uri:example.com"], &[], "uri:https://example.com/a", true),
        (&["uri:example.com"], &[], "uri:https://user@example.com:8443/a?b#c", true),
        (&["uri:example.com"], &[], "uri:spiffe://Example.com/workload", true),
        (&["uri:example.com"], &[], "uri:https://a.example.com", false),
        (&["uri:.example.com"], &[], "uri:https://a.example.com", true),
        (&["uri:.example.com"], &[], "uri:https://example.com", false),
        (&["uri:example.com"], &[], "uri:https://evil.org/https://example.com", false),
        (&["uri:example.com"], &[], "uri:https://evil.org#@example.com", false),
        (&["uri:example.com"], &[], "uri:https://example.com@evil.org", false),
        (&[], &["uri:evil.org"], "uri:https://example.com@evil.org", false),
        (&[], &["uri:evil.org"], "uri:https://evil.org\\@example.com", false),
        (&["uri:example.com"], &[], "uri:https://192.0.2.1/", false),
        (&[], &["uri:example.com"], "uri:https://[2001:db8::1]/", false),
        (&[], &["uri:example.com"], "uri:urn:example:a", false),
        (&[], &["uri:example.com"], "uri:https://example.org", true),
        // IP addresses.
        (&["192.0.2.0/255.255.255.0"], &[], "192.0.2.7", true),
        (&["192.0.2.0/255.255.255.0"], &[], "192.0.3.7", false),
        (&[], &["192.0.2.0/255.255.255.0"], "192.0.2.7", false),
        (&["2001:db8::/ffff:ffff::"], &[], "2001:db8::7", true),
        (&["2001:db8::/ffff:ffff::"], &[], "2001:db9::7", false),
        (&["192.0.2.0/255.255.255.0"], &[], "2001:db8::7", false),
        (&[], &["0.0.0.0/0.0.0.0"], "192.0.2.7", false),
        (&["192.0.2.7/255.255.255.255"], &[], "192.0.2.7", true),
        // Constraints of one kind do not apply to other kinds, except for unsupported kinds.
        (&["dns:example.com"], &[], "mail:a@example.org", true),
        (&[], &["192.0.2.0/255.255.255.0"], "dns:example.com", true),
        (&["dns:example.com"], &[], "other:a", true),
        (&[], &["other:a"], "dns:example.com", true),
    ];
    for (permitted, excluded, found, expected) in cases {
        let bases = |texts: &[&str]| texts.iter().map(|text| base(text)).collect::<Vec<_>>();
        let authority =
            certificate(&[(DnType::CommonName, "issuer")], &[], Some(constraints(&bases(permitted), &bases(excluded))));
        let leaf = certificate(&[(DnType::CommonName, "signer")], &[name(found)], None);
        let outcome = check(&[&leaf, &authority]);
        assert_eq!(outcome.is_ok(), *expected, "{permitted:?} {excluded:?} {found}: {outcome:?}");
    }
}

#[test]
fn directory_name_constraints_are_enforced() {
    let organization = (DnType::OrganizationName, "Acme");
    let subject = [(DnType::CountryName, "US"), organization.clone(), (DnType::CommonName, "signer")];
    for (permitted, excluded, expected) in [
        ("O=Acme,C=US", "", true),
        ("O=acme,C=us", "", true),
        ("O=\\ Acme\\ ,C=US", "", true),
        ("C=US", "", true),
        ("O=Acme", "", false),
        ("O=Acme,C=DE", "", false),
        ("CN=signer,O=Acme,C=US", "", true),
        ("", "O=ACME,C=US", false),
        ("", "O=Acme,C=DE", true),
        ("C=US", "O=Acme,C=US", false),
    ] {
        let of = |text: &str| if text.is_empty() { Vec::new() } else { vec![base(&format!("dir:{text}"))] };
        let authority =
            certificate(&[(DnType::CommonName, "issuer")], &[], Some(constraints(&of(permitted), &of(excluded))));
        let leaf = certificate(&subject, &[], None);
        assert_eq!(check(&[&leaf, &authority]).is_ok(), expected, "{permitted} {excluded}");
    }
    // The same name in another type of string.
    let excluded = constraints(&[], &[base("dir:O=Acme")]);
    let authority = certificate(&[(DnType::CommonName, "issuer")], &[], Some(excluded));
    for value in [
        DnValue::Utf8String("Acme".to_owned()),
        DnValue::PrintableString("Acme".try_into().unwrap()),
        DnValue::BmpString("ACME".try_into().unwrap()),
        DnValue::TeletexString("acme".try_into().unwrap()),
    ] {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, value.clone());
        let leaf = Certificate::from_der(params.self_signed(&*KEY).unwrap().der()).unwrap();
        assert!(check(&[&leaf, &authority]).is_err(), "{value:?}");
    }
}

#[test]
fn older_certificates_have_mail_addresses_in_their_subject() {
    let authority =
        certificate(&[(DnType::CommonName, "issuer")], &[], Some(constraints(&[base("mail:example.com")], &[])));
    let address = DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]);
    for (text, expected) in [("a@example.com", true), ("a@example.org", false), ("é@example.com", false)] {
        let leaf = certificate(&[(DnType::CommonName, "signer"), (address.clone(), text)], &[], None);
        assert_eq!(check(&[&leaf, &authority]).is_ok(), expected, "{text}");
    }
}

#[test]
fn constrained_names_of_unsupported_kinds_are_refused() {
    let registered = CustomExtension::from_oid_content(
        &[2, 5, 29, 17],
        SubjectAltName(vec![GeneralName::RegisteredId(ObjectIdentifier::new_unwrap("1.2.3.4"))]).to_der().unwrap(),
    );
    let mut params = CertificateParams::default();
    params.custom_extensions = vec![registered];
    let leaf = Certificate::from_der(params.self_signed(&*KEY).unwrap().der()).unwrap();
    for (permitted, excluded, expected) in
        [(&["other:"][..], &[][..], false), (&[], &["other:"], false), (&["dns:a"], &[], true)]
    {
        let of = |texts: &[&str]| texts.iter().map(|text| base(text)).collect::<Vec<_>>();
        let authority =
            certificate(&[(DnType::CommonName, "issuer")], &[], Some(constraints(&of(permitted), &of(excluded))));
        let found = check(&[&leaf, &authority]);
        assert_eq!(found.is_ok(), expected, "{permitted:?} {excluded:?} {found:?}");
    }
}

#[test]
fn constraints_are_well_formed() {
    let leaf = certificate(&[(DnType::CommonName, "signer")], &[], None);
    let of = |der: Vec<u8>| {
        let authority = certificate(&[(DnType::CommonName, "issuer")], &[], Some(der));
        check(&[&leaf, &authority]).map_err(|violation| violation.to_string())
    };
    assert_eq!(of(constraints(&[base("dns:example.com")], &[])), Ok(()));
    let with = |minimum, maximum| {
        let subtree = GeneralSubtree { base: base("dns:example.com"), minimum, maximum };
        NameConstraints { permitted_subtrees: Some(vec![subtree]), excluded_subtrees: None }.to_der().unwrap()
    };
    for (der, said) in [
        (with(1, None), "a minimum or a maximum"),
        (with(0, Some(3)), "a minimum or a maximum"),
        (vec![0x30, 0], "they constrain nothing"),
        (vec![0x30, 2, 0xa0, 0], "a list of subtrees is empty"),
        (vec![0x30, 4, 0xa0, 0, 0xa1, 0], "a list of subtrees is empty"),
        (vec![0x30, 2, 0xa2, 0], "2.5.29.30 is malformed"),
        (vec![5, 0], "2.5.29.30 is malformed"),
        // X.400 addresses are not even parsed.
        (vec![0x30, 6, 0xa0, 4, 0x30, 2, 0xa3, 0], "2.5.29.30 is malformed"),
        (constraints(&[base("dns:.example.com")], &[]), "a host name is malformed"),
        (constraints(&[base("dns:*.example.com")], &[]), "a host name is malformed"),
        (constraints(&[], &[base("dns:example.com.")]), "a host name is malformed"),
        (constraints(&[base("mail:a@b@example.com")], &[]), "a mail address is malformed"),
        (constraints(&[base("uri:https://example.com")], &[]), "a host name is malformed"),
        (constraints(&[base("uri:192.0.2.1")], &[]), "a host name is malformed"),
        (constraints(&[base("192.0.2.1")], &[]), "a network is malformed"),
        (constraints(&[base("2001:db8::1")], &[]), "a network is malformed"),
        (constraints(&[base("192.0.2.1/255.0.255.0")], &[]), "a network is malformed"),
        (constraints(&[], &[base("2001:db8::/ffff:0:ffff::")]), "a network is malformed"),
    ] {
        let found = of(der.clone()).unwrap_err();
        assert!(found.contains(said), "{der:02x?}: {found}");
    }
}

#[test]
fn constraints_apply_to_the_whole_path() {
    let permits = |hosts: &[&str]| {
        let bases: Vec<_> = hosts.iter().map(|host| base(&format!("dns:{host}"))).collect();
        Some(constraints(&bases, &[]))
    };
    let authority =
        |name: &str, names: &[SanType], constraints| certificate(&[(DnType::CommonName, name)], names, constraints);
    let leaf = certificate(&[(DnType::CommonName, "signer")], &[name("dns:a.example.com")], None);
    let root = |constraints| authority("root", &[], constraints);
    let middle = |constraints| authority("middle", &[], constraints);
    for (of_middle, of_root, expected) in [
        (permits(&["a.example.com", "b.example.com"]), permits(&["example.com"]), true),
        (permits(&["b.example.com"]), permits(&["example.com"]), false),
        // A lower authority cannot certify more than a higher one.
        (permits(&["a.example.com"]), permits(&["b.example.com"]), false),
        (None, permits(&["b.example.com"]), false),
        (None, None, true),
    ] {
        let (middle, root) = (middle(of_middle), root(of_root));
        assert_eq!(check(&[&leaf, &middle, &root]).is_ok(), expected);
    }
    // The names of authorities are constrained as well, unless they are self-issued.
    let named = authority("middle", &[name("dns:example.org")], None);
    assert!(check(&[&leaf, &named, &root(permits(&["example.com"]))]).is_err());
    let renewed = authority("issuer", &[name("dns:example.org")], None);
    assert!(renewed.is_self_issued());
    assert_eq!(check(&[&leaf, &renewed, &root(permits(&["example.com"]))]), Ok(()));
    let own = certificate(&[(DnType::CommonName, "issuer")], &[name("dns:example.org")], None);
    assert!(check(&[&own, &root(permits(&["example.com"]))]).is_err());
}

#[test]
fn many_names_and_constraints_are_refused() {
    let names: Vec<_> = (0..400).map(|number| name(&format!("dns:a{number}.example.com"))).collect();
    let bases: Vec<_> = (0..400).map(|number| base(&format!("dns:b{number}.example.com"))).collect();
    let authority = certificate(&[(DnType::CommonName, "issuer")], &[], Some(constraints(&[], &bases)));
    let leaf = certificate(&[(DnType::CommonName, "signer")], &names, None);
    assert!(matches!(check(&[&leaf, &authority]).unwrap_err().rule, Rule::TooManyNames(_)));
}

proptest::proptest! {
    #[test]
    fn untrusted_input_does_not_panic(text in ".*", host in "[a-z.:@/*\\[\\]0-9]*", bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        for text in [&text, &host] {
            let _ = (super::host(text), mailbox(text), authority_of(text), authority_of(&format!("https://{text}")));
        }
        if let Ok(found) = NameConstraints::from_der(&bytes) {
            let _ = Constraints::read(found);
        }
        let _ = is_prefix(&bytes);
    }
}
