//! Who made a signature, for telling two signers apart.

use std::collections::BTreeSet;

use ocikit_spec::Digest;
use x509_cert::der::asn1::Ia5StringRef;
use x509_cert::der::{Encode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::{DirectoryString, GeneralName};

use crate::key::PublicKey;
use crate::pki::Certificate;
use crate::refusal::Refusal;

/// The maker of a signature: a key, and the names in its certificate.
///
/// Two signatures count as two proofs only if both the keys and the names differ. A key is the same key in another
/// encoding or in a certificate, and a name is the same name whichever authority certified it and in whichever case
/// it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Maker {
    key: Digest,
    names: BTreeSet<String>,
}

/// Which names of a certificate identify its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// The subject alternative names, as sigstore uses them; the distinguished name if there are none.
    Alternative,
    /// The distinguished name, as the Notary Project uses it, and the subject alternative names.
    All,
}

impl Maker {
    /// Returns the maker of signatures by a key without a certificate.
    pub(crate) fn of_key(key: &PublicKey) -> Maker {
        Maker { key: key.identity(), names: BTreeSet::new() }
    }

    /// Returns the maker of signatures by a certificate.
    pub(crate) fn of_certificate(certificate: &Certificate, which: Names) -> Result<Maker, Refusal> {
        let key = certificate.key()?;
        let mut names = alternative(certificate);
        if which == Names::All || names.is_empty() {
            names.extend(distinguished(certificate));
        }
        Ok(Maker { key: key.identity(), names })
    }

    /// Returns whether both key and names differ. For a key without a certificate the owner is unknown, so the key
    /// alone decides.
    pub fn is_distinct_from(&self, other: &Maker) -> bool {
        self.key != other.key && self.names.is_disjoint(&other.names)
    }
}

/// Returns the subject as text that does not depend on order, case and white space (RFC 5280, 7.1). `None` if it is
/// empty.
fn distinguished(certificate: &Certificate) -> Option<String> {
    let mut parts = Vec::new();
    for part in certificate.parsed().tbs_certificate().subject().iter_rdn() {
        for attribute in part.iter() {
            let value = &attribute.value;
            let text = match value.tag() {
                Tag::Utf8String | Tag::PrintableString | Tag::TeletexString => {
                    value.decode_as::<DirectoryString>().map(|text| text.value().into_owned())
                }
                Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().map(|text| text.to_string()),
                _ => value.to_der().map(hex::encode),
            };
            parts.push(format!("{}={}", attribute.oid, folded(&text.unwrap_or_default())));
        }
    }
    parts.sort();
    (!parts.is_empty()).then(|| format!("subject:{}", parts.join(",")))
}

/// Returns the subject alternative names: mail addresses, URIs and others.
fn alternative(certificate: &Certificate) -> BTreeSet<String> {
    let names = certificate.extension::<SubjectAltName>().ok().flatten().map(|(_, names)| names.0);
    names.into_iter().flatten().filter_map(|name| text_of(&name)).collect()
}

fn text_of(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::Rfc822Name(text) | GeneralName::DnsName(text) => Some(format!("name:{}", folded(text.as_str()))),
        // The path of a URI is case-sensitive: repositories, workflows.
        GeneralName::UniformResourceIdentifier(text) => Some(format!("uri:{}", text.as_str())),
        other => Some(format!("other:{}", hex::encode(other.to_der().ok()?))),
    }
}

fn folded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// The maximum number of steps of one search. Real policies need a few.
const MAX_STEPS: usize = 100_000;

/// Returns the largest number of signers that can each be assigned one of their own proofs so that all proofs are
/// pairwise distinct. If the search runs out of steps, returns the best number found so far.
pub(crate) fn count_distinct(proofs: &[Vec<Maker>]) -> usize {
    let mut signers: Vec<Vec<&Maker>> =
        proofs.iter().map(|own| own.iter().collect::<BTreeSet<_>>()).map(|own| own.into_iter().collect()).collect();
    signers.retain(|own| !own.is_empty());
    // Signers with the fewest proofs first, so that dead ends are short.
    signers.sort_by_key(Vec::len);
    let keys: BTreeSet<_> = signers.iter().flatten().map(|maker| maker.key).collect();
    let mut search = Search { bound: signers.len().min(keys.len()), chosen: Vec::new(), best: 0, steps: 0 };
    search.extend(&signers);
    search.best
}

struct Search<'a> {
    bound: usize,
    chosen: Vec<&'a Maker>,
    best: usize,
    steps: usize,
}

impl<'a> Search<'a> {
    fn extend(&mut self, signers: &[Vec<&'a Maker>]) {
        self.best = self.best.max(self.chosen.len());
        let Some((own, rest)) = signers.split_first() else { return };
        for maker in own {
            if self.best >= self.bound || self.chosen.len() + signers.len() <= self.best || self.steps >= MAX_STEPS {
                return;
            }
            self.steps += 1;
            if self.chosen.iter().all(|chosen| chosen.is_distinct_from(maker)) {
                self.chosen.push(maker);
                self.extend(rest);
                self.chosen.pop();
            }
        }
        if self.chosen.len() + rest.len() > self.best && self.steps < MAX_STEPS {
            self.extend(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyKind, PrivateKey};

    fn maker(text: &str) -> Maker {
        let mut words = text.split(' ');
        let key = Digest::sha256_of(words.next().unwrap().as_bytes());
        Maker { key, names: words.map(str::to_owned).collect() }
    }

    #[test]
    fn only_makers_with_other_keys_and_names_are_distinct() {
        for (proofs, counted) in [
            (&[][..], 0),
            (&[&[][..], &["k1"]], 1),
            (&[&["k1"], &["k2"]], 2),
            // One key: plain twice, or plain and in a certificate.
            (&[&["k1"], &["k1"]], 1),
            (&[&["k1"], &["k1 alice"]], 1),
            // One name with two keys.
            (&[&["k1 alice"], &["k2 alice"]], 1),
            (&[&["k1 alice"], &["k2 bob"]], 2),
            // A certificate with two names counts for both names.
            (&[&["k1 alice bob"], &["k2 bob"], &["k3 alice"]], 2),
            // One signer counts once, however many proofs it has.
            (&[&["k1 alice", "k2 bob", "k3"]], 1),
            // The first signer must leave `k1` to the second.
            (&[&["k1", "k2"], &["k1"]], 2),
            (&[&["k1 a", "k2 b"], &["k1 b", "k3 c"], &["k1 d"]], 3),
            // The last proof shares its key or its name with each proof of the first signer.
            (&[&["k1 a", "k2 b"], &["k1 b", "k3 c"], &["k2 a"]], 2),
            (&[&["k1 a", "k2 a"], &["k1 b", "k2 b"]], 2),
            (&[&["k1 a", "k2 a"], &["k1 a", "k2 a"], &["k1 a", "k2 a"]], 1),
        ] {
            let makers: Vec<Vec<Maker>> =
                proofs.iter().map(|own| own.iter().map(|text| maker(text)).collect()).collect();
            assert_eq!(count_distinct(&makers), counted, "{proofs:?}");
        }
    }

    #[test]
    fn a_long_search_ends() {
        // A thousand one-time keys of one identity that four signers accept.
        let keyless: Vec<_> = (0..1000).map(|number| maker(&format!("k{number} alice"))).collect();
        assert_eq!(count_distinct(&vec![keyless; 4]), 1);
        let many: Vec<Vec<_>> = (0..40)
            .map(|signer| (0..40).map(|key| maker(&format!("k{key} n{}", (signer * key) % 13))).collect())
            .collect();
        assert!(count_distinct(&many) >= 2);
    }

    #[test]
    fn names_are_normalized() {
        let make = |names: &[(rcgen::DnType, &str)], mail: Option<&str>| {
            let key = PrivateKey::generate(KeyKind::P256).unwrap();
            let pair = rcgen::KeyPair::from_pem(&key.to_pem().unwrap()).unwrap();
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            for (kind, value) in names {
                params.distinguished_name.push(kind.clone(), *value);
            }
            params.subject_alt_names =
                mail.map(|mail| rcgen::SanType::Rfc822Name(mail.try_into().unwrap())).into_iter().collect();
            Certificate::from_der(params.self_signed(&pair).unwrap().der()).unwrap()
        };
        let of = |certificate: &Certificate, which| Maker::of_certificate(certificate, which).unwrap();
        let (org, name) = (rcgen::DnType::OrganizationName, rcgen::DnType::CommonName);
        let one = make(&[(org.clone(), "Acme"), (name.clone(), "Alice  A")], Some("alice@acme.example"));
        let same = make(&[(name.clone(), "alice a"), (org.clone(), "ACME")], None);
        let other = make(&[(org.clone(), "Acme"), (name.clone(), "Bob")], Some("Alice@acme.example"));
        assert!(!of(&one, Names::All).is_distinct_from(&of(&same, Names::All)), "one distinguished name");
        assert!(!of(&one, Names::All).is_distinct_from(&of(&other, Names::All)), "one mail address");
        assert!(of(&same, Names::All).is_distinct_from(&of(&other, Names::All)));
        // SPIFFE certificates share a distinguished name; the alternative names tell their owners apart.
        assert!(of(&one, Names::Alternative).is_distinct_from(&of(&same, Names::Alternative)));
        let key = Maker::of_key(&one.key().unwrap());
        assert!(!key.is_distinct_from(&of(&one, Names::All)), "one key, plain and in a certificate");
    }
}
