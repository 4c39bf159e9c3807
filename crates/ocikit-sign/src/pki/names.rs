//! Name constraints (RFC 5280, 4.2.1.10): the names that a certificate authority may certify, for every certificate
//! below it.
//!
//! All constraints are evaluated, critical or not: mail addresses, host names, URIs, IP addresses and directory
//! names. The path is refused if a constraint applies to another kind of name, or to a malformed name.

use x509_cert::attr::AttributeValue;
use x509_cert::der::asn1::{Ia5String, ObjectIdentifier};
use x509_cert::der::{Tag, Tagged};
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{NameConstraints, SubjectAltName};
use x509_cert::name::Name;

use crate::pki::certificate::Certificate;
use crate::pki::violation::{Rule, Violation};

/// The maximum number of comparisons of names with constraints per path.
const MAX_COMPARISONS: usize = 100_000;

/// Checks the names of every certificate of a path against the constraints of all certificates above it. The path
/// begins with the signer's certificate and ends with the trusted one, whose constraints count as well.
pub(crate) fn check(path: &[&Certificate]) -> Result<(), Violation> {
    let mut comparisons = 0;
    for (position, authority) in path.iter().enumerate().skip(1) {
        let Some((_, constraints)) = authority.extension::<NameConstraints>()? else { continue };
        let constraints = Constraints::read(constraints)
            .map_err(|problem| authority.violates(Rule::MalformedNameConstraints(problem)))?;
        for (below, certificate) in path[..position].iter().enumerate() {
            // RFC 5280, 6.1.4 (b): a certificate authority that changes its key may certify itself.
            if below > 0 && certificate.is_self_issued() {
                continue;
            }
            for name in names_of(certificate)? {
                comparisons += constraints.permitted.len() + constraints.excluded.len();
                if comparisons > MAX_COMPARISONS {
                    return Err(certificate.violates(Rule::TooManyNames(MAX_COMPARISONS)));
                }
                constraints.check(&name, &authority.subject()).map_err(|rule| certificate.violates(rule))?;
            }
        }
    }
    Ok(())
}

/// Returns the subject of a certificate, its alternative names, and the mail addresses in its subject, where older
/// certificates have them.
fn names_of(certificate: &Certificate) -> Result<Vec<GeneralName>, Violation> {
    let subject = certificate.parsed().tbs_certificate().subject();
    let mut names = certificate.extension::<SubjectAltName>()?.map(|(_, names)| names.0).unwrap_or_default();
    for attribute in subject.iter().filter(|attribute| attribute.oid == EMAIL_ADDRESS) {
        let address = text_of(&attribute.value).unwrap_or_default();
        // An address that is not ASCII is malformed, as an empty one is.
        if let Ok(address) = Ia5String::new(&address).or_else(|_| Ia5String::new("")) {
            names.push(GeneralName::Rfc822Name(address));
        }
    }
    if !subject.is_empty() {
        names.push(GeneralName::DirectoryName(subject.clone()));
    }
    Ok(names)
}

/// The name constraints of one certificate authority.
struct Constraints {
    permitted: Vec<Subtree>,
    excluded: Vec<Subtree>,
}

impl Constraints {
    fn read(constraints: NameConstraints) -> Result<Constraints, &'static str> {
        let subtrees = |found: Option<Vec<GeneralSubtree>>| match found {
            Some(found) if found.is_empty() => Err("a list of subtrees is empty"),
            found => found.unwrap_or_default().into_iter().map(Subtree::read).collect(),
        };
        let constraints = Constraints {
            permitted: subtrees(constraints.permitted_subtrees)?,
            excluded: subtrees(constraints.excluded_subtrees)?,
        };
        match constraints.permitted.is_empty() && constraints.excluded.is_empty() {
            true => Err("they constrain nothing"),
            false => Ok(constraints),
        }
    }

    fn check(&self, name: &GeneralName, authority: &str) -> Result<(), Rule> {
        let of_kind = |subtree: &&Subtree| subtree.kind() == kind_of(name);
        let permitted: Vec<_> = self.permitted.iter().filter(of_kind).collect();
        let mut excluded = self.excluded.iter().filter(of_kind).peekable();
        if permitted.is_empty() && excluded.peek().is_none() {
            return Ok(());
        }
        let authority = authority.to_owned();
        let text = text_of_name(name);
        let Some(presented) = ComparableName::read(name) else {
            return Err(match kind_of(name) {
                NameKind::Other(kind) => Rule::NameKind { kind, authority },
                _ => Rule::MalformedName { name: text, authority },
            });
        };
        if excluded.any(|subtree| subtree.meets(&presented)) {
            return Err(Rule::NameExcluded { name: text, authority });
        }
        match permitted.is_empty() || permitted.iter().any(|subtree| subtree.holds(&presented)) {
            true => Ok(()),
            false => Err(Rule::NameNotPermitted { name: text, authority }),
        }
    }
}

/// A kind of name. Constraints on one kind do not apply to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameKind {
    Directory,
    Host,
    Mail,
    Uri,
    Address,
    /// A kind that is not supported.
    Other(&'static str),
}

fn kind_of(name: &GeneralName) -> NameKind {
    match name {
        GeneralName::DirectoryName(_) => NameKind::Directory,
        GeneralName::DnsName(_) => NameKind::Host,
        GeneralName::Rfc822Name(_) => NameKind::Mail,
        GeneralName::UniformResourceIdentifier(_) => NameKind::Uri,
        GeneralName::IpAddress(_) => NameKind::Address,
        GeneralName::OtherName(_) => NameKind::Other("name of another type"),
        GeneralName::EdiPartyName(_) => NameKind::Other("EDI party name"),
        GeneralName::RegisteredId(_) => NameKind::Other("registered identifier"),
    }
}

fn text_of_name(name: &GeneralName) -> String {
    match name {
        GeneralName::DirectoryName(name) => name.to_string(),
        GeneralName::DnsName(text) | GeneralName::Rfc822Name(text) | GeneralName::UniformResourceIdentifier(text) => {
            text.to_string()
        }
        GeneralName::IpAddress(bytes) => match bytes.as_bytes() {
            [a, b, c, d] => std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string(),
            bytes => <[u8; 16]>::try_from(bytes)
                .map_or_else(|_| hex::encode(bytes), |bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        other => format!("{other:?}"),
    }
}

/// A set of names.
enum Subtree {
    /// Directory names that begin with these parts.
    Directory(Vec<NamePart>),
    /// This host and the hosts below it; all hosts if empty.
    Hosts(String),
    /// Mail addresses at one host, or URIs with this host.
    AtHost(NameKind, String),
    /// Mail addresses or URIs at hosts below this one.
    BelowHost(NameKind, String),
    /// One mail address.
    Mailbox { local: String, host: String },
    /// IP addresses in a network.
    Network { address: Vec<u8>, mask: Vec<u8> },
    /// Names of an unsupported kind.
    Other(&'static str),
}

impl Subtree {
    fn read(subtree: GeneralSubtree) -> Result<Subtree, &'static str> {
        // RFC 5280 allows no other values.
        if subtree.minimum != 0 || subtree.maximum.is_some() {
            return Err("a subtree has a minimum or a maximum");
        }
        let kind = kind_of(&subtree.base);
        match &subtree.base {
            GeneralName::DirectoryName(name) => Ok(Subtree::Directory(parts_of(name))),
            GeneralName::DnsName(text) => match text.as_str() {
                "" => Ok(Subtree::Hosts(String::new())),
                text => host(text).map(Subtree::Hosts).ok_or("a host name is malformed"),
            },
            GeneralName::Rfc822Name(text) | GeneralName::UniformResourceIdentifier(text) => {
                let text = text.as_str();
                if kind == NameKind::Mail && text.contains('@') {
                    let (local, host) = mailbox(text).ok_or("a mail address is malformed")?;
                    return Ok(Subtree::Mailbox { local, host });
                }
                match text.strip_prefix('.') {
                    Some(text) => host(text).map(|host| Subtree::BelowHost(kind, host)),
                    None => host(text).map(|host| Subtree::AtHost(kind, host)),
                }
                .ok_or("a host name is malformed")
            }
            GeneralName::IpAddress(bytes) => {
                let bytes = bytes.as_bytes();
                let (address, mask) = bytes.split_at(bytes.len() / 2);
                match (bytes.len(), is_prefix(mask)) {
                    (8 | 32, true) => Ok(Subtree::Network { address: address.to_vec(), mask: mask.to_vec() }),
                    _ => Err("a network is malformed"),
                }
            }
            _ => match kind {
                NameKind::Other(kind) => Ok(Subtree::Other(kind)),
                _ => Err("a name is of an unknown kind"),
            },
        }
    }

    fn kind(&self) -> NameKind {
        match self {
            Subtree::Directory(_) => NameKind::Directory,
            Subtree::Hosts(_) => NameKind::Host,
            Subtree::AtHost(kind, _) | Subtree::BelowHost(kind, _) => *kind,
            Subtree::Mailbox { .. } => NameKind::Mail,
            Subtree::Network { .. } => NameKind::Address,
            Subtree::Other(kind) => NameKind::Other(kind),
        }
    }

    /// Returns whether the set contains all names that `name` stands for.
    fn holds(&self, name: &ComparableName) -> bool {
        match (self, name) {
            (Subtree::Directory(base), ComparableName::Directory(parts)) => parts.starts_with(base),
            // A wildcard stands for hosts below the rest of the name.
            (Subtree::Hosts(base), ComparableName::Host { host, .. }) => {
                base.is_empty() || host == base || is_below(host, base)
            }
            (Subtree::AtHost(_, base), ComparableName::At { host, .. }) => host == base,
            (Subtree::BelowHost(_, base), ComparableName::At { host, .. }) => is_below(host, base),
            (Subtree::Mailbox { local, host }, ComparableName::At { local: Some(name), host: at }) => {
                local == name && host == at
            }
            (Subtree::Network { address, mask }, ComparableName::Address(bytes)) => {
                bytes.len() == address.len()
                    && bytes.iter().zip(address).zip(mask).all(|((byte, address), mask)| byte & mask == address & mask)
            }
            _ => false,
        }
    }

    /// Returns whether the set contains any name that `name` stands for. This differs from `holds` for wildcards:
    /// `*.example.com` stands for `test.example.com` among others (Go, CVE-2025-61727).
    fn meets(&self, name: &ComparableName) -> bool {
        let is_one_below = |base: &str, host: &str| base.split_once('.').is_some_and(|(_, parent)| parent == host);
        match (self, name) {
            (Subtree::Hosts(base), ComparableName::Host { host, is_wildcard: true }) if is_one_below(base, host) => {
                true
            }
            _ => self.holds(name),
        }
    }
}

/// Returns whether a mask is ones followed by zeros.
fn is_prefix(mask: &[u8]) -> bool {
    let mut rest = mask.iter().skip_while(|byte| **byte == 0xff);
    let first = rest.next().copied().unwrap_or_default();
    first.leading_ones() == first.count_ones() && rest.all(|byte| *byte == 0)
}

fn is_below(host: &str, base: &str) -> bool {
    host.strip_suffix(base).is_some_and(|rest| rest.ends_with('.'))
}

/// A name in a certificate, normalized for comparison.
enum ComparableName {
    Directory(Vec<NamePart>),
    /// A host, or with a wildcard the hosts below it.
    Host {
        host: String,
        is_wildcard: bool,
    },
    /// A mail address, or a URI, of which only the host is compared.
    At {
        local: Option<String>,
        host: String,
    },
    Address(Vec<u8>),
}

impl ComparableName {
    /// Returns `None` if the name is malformed or of an unsupported kind.
    fn read(name: &GeneralName) -> Option<ComparableName> {
        match name {
            GeneralName::DirectoryName(name) => Some(ComparableName::Directory(parts_of(name))),
            GeneralName::DnsName(text) => {
                let text = text.as_str();
                let rest = text.strip_prefix("*.");
                let host = host(rest.unwrap_or(text))?;
                Some(ComparableName::Host { host, is_wildcard: rest.is_some() })
            }
            GeneralName::Rfc822Name(text) => {
                let (local, host) = mailbox(text.as_str())?;
                Some(ComparableName::At { local: Some(local), host })
            }
            GeneralName::UniformResourceIdentifier(text) => {
                let host = authority_of(text.as_str())?;
                Some(ComparableName::At { local: None, host })
            }
            GeneralName::IpAddress(bytes) if [4, 16].contains(&bytes.as_bytes().len()) => {
                Some(ComparableName::Address(bytes.as_bytes().to_vec()))
            }
            _ => None,
        }
    }
}

/// Returns a host name in lower case. Names that only resemble one are refused, such as IP addresses and names with a
/// trailing dot.
fn host(text: &str) -> Option<String> {
    let is_label = |label: &str| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(is_letter)
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_host = text.len() <= 253 && text.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit());
    is_host.then(|| text.to_ascii_lowercase())
}

/// Splits a mail address into the local part, unchanged, and the host in lower case. Quoted local parts are not
/// supported.
fn mailbox(text: &str) -> Option<(String, String)> {
    let (local, at) = text.split_once('@')?;
    let is_atom = |byte: u8| byte.is_ascii_graphic() && !br#""(),:;<>[\]"#.contains(&byte);
    (!local.is_empty() && local.bytes().all(is_atom)).then_some(())?;
    Some((local.to_owned(), host(at)?))
}

/// Returns the host of a URI (RFC 3986, 3.2). URIs with invalid characters are refused, because parsers disagree on
/// their host.
fn authority_of(uri: &str) -> Option<String> {
    uri.bytes().all(|byte| byte.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&byte)).then_some(())?;
    let (scheme, rest) = uri.split_once("://")?;
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    (scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(is_scheme)).then_some(())?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (name, port) = place.split_once(':').unwrap_or((place, ""));
    port.bytes().all(|byte| byte.is_ascii_digit()).then(|| host(name))?
}

/// A relative distinguished name with its attributes sorted.
type NamePart = Vec<(ObjectIdentifier, Value)>;

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    /// Text, without regard to string type and case (RFC 5280, 7.1).
    Text(String),
    /// Any other value.
    Bytes(u32, Vec<u8>),
}

fn parts_of(name: &Name) -> Vec<NamePart> {
    name.iter_rdn()
        .map(|part| {
            let mut attributes: NamePart =
                part.iter().map(|attribute| (attribute.oid, value_of(&attribute.value))).collect();
            attributes.sort();
            attributes
        })
        .collect()
}

fn value_of(value: &AttributeValue) -> Value {
    match text_of(value) {
        Some(text) => Value::Text(text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()),
        None => Value::Bytes(value.tag().number().value(), value.value().to_vec()),
    }
}

fn text_of(value: &AttributeValue) -> Option<String> {
    let bytes = value.value();
    match value.tag() {
        Tag::Utf8String => String::from_utf8(bytes.to_vec()).ok(),
        Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString | Tag::TeletexString => {
            Some(bytes.iter().map(|byte| char::from(*byte)).collect())
        }
        Tag::BmpString if bytes.len().is_multiple_of(2) => {
            let units = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

const EMAIL_ADDRESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");

#[cfg(test)]
mod tests;
