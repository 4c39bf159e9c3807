use jiff::Timestamp;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::ExtendedKeyUsage;

use crate::error::{Error, Result};
use crate::key::{PublicKey, Scheme};
use crate::pki::path::CODE_SIGNING;
use crate::pki::{Certificate, Rule, Violation, names};

/// An ordered certificate chain from the signer to a self-signed root, each certificate issued by the next, or a
/// single self-signed certificate. All rules of the Notary Project, "Certificate Requirements", are checked except
/// those on time and trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    certificates: Vec<Certificate>,
    key: PublicKey,
}

/// The maximum number of certificates in a chain.
const MAX_CERTIFICATES: usize = 16;

impl Chain {
    /// Checks and creates a chain from certificates in order, the signer first.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] with the rule that is violated.
    pub fn new(certificates: Vec<Certificate>) -> Result<Chain> {
        let key = check(&certificates)?;
        Ok(Chain { certificates, key })
    }

    /// Returns the certificates, the signer first.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Returns the key of the signer.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// Returns the certificate of the signer.
    pub(crate) fn leaf(&self) -> &Certificate {
        // `check` refuses an empty chain.
        &self.certificates[0]
    }

    /// Returns the signature scheme of the signer's key.
    pub(crate) fn scheme(&self) -> Option<Scheme> {
        Scheme::of_notation(self.key.kind())
    }

    /// Returns the first certificate that is not valid at a time.
    pub(crate) fn invalid_at(&self, time: Timestamp) -> Option<&Certificate> {
        self.certificates.iter().find(|certificate| !certificate.is_valid_at(time))
    }

    /// Returns whether a certificate has expired at a time.
    pub(crate) fn has_expired_at(&self, time: Timestamp) -> bool {
        self.certificates.iter().any(|certificate| certificate.has_expired_at(time))
    }
}

fn check(certificates: &[Certificate]) -> Result<PublicKey> {
    let refuse = |why: &str| Error::Certificates(why.to_owned());
    let (Some(leaf), Some(root)) = (certificates.first(), certificates.last()) else {
        return Err(refuse("there are none"));
    };
    if certificates.len() > MAX_CERTIFICATES {
        return Err(refuse(&format!("there are more than {MAX_CERTIFICATES}")));
    }
    if let Some(early) = certificates.iter().rev().skip(1).find(|certificate| certificate.is_self_signed()) {
        return Err(refuse(&format!("{} is self-signed and not the last one", early.subject())));
    }
    if !root.is_self_signed() {
        return Err(refuse(&format!("the last one, {}, is not a self-signed root", root.subject())));
    }
    check_rules(leaf, certificates).map_err(|violation| Error::Certificates(violation.to_string()))
}

/// Checks the rules of RFC 5280 and of the Notary Project, "Certificate Requirements". Returns the key of the signer.
fn check_rules(leaf: &Certificate, certificates: &[Certificate]) -> Result<PublicKey, Violation> {
    for pair in certificates.windows(2) {
        if let [certificate, issuer] = pair {
            certificate.check_issued_by(issuer)?;
        }
    }
    check_leaf(leaf)?;
    for (position, issuer) in certificates.iter().enumerate().skip(1) {
        // Path lengths: the specification and notation count all certificates below, including self-issued ones.
        issuer.check_authority(position - 1)?;
        issuer.check_constraints_critical()?;
        issuer.critical_key_usage()?;
        issuer.check_may_issue_for(CODE_SIGNING, "code signing")?;
    }
    names::check(&certificates.iter().collect::<Vec<_>>())?;
    leaf.key()
}

/// Checks that a certificate is for code signing only.
fn check_leaf(leaf: &Certificate) -> Result<(), Violation> {
    leaf.check_end_entity()?;
    let usage = leaf.critical_key_usage()?;
    if !usage.digital_signature() {
        return Err(leaf.violates(Rule::KeyUsageLacks("digitalSignature")));
    }
    let more = [
        usage.key_encipherment(),
        usage.data_encipherment(),
        usage.key_agreement(),
        usage.key_cert_sign(),
        usage.crl_sign(),
        usage.encipher_only(),
        usage.decipher_only(),
    ];
    if more.contains(&true) {
        return Err(leaf.violates(Rule::KeyUsageExcess));
    }
    if let Some((_, usages)) = leaf.extension::<ExtendedKeyUsage>()?
        && usages.0.iter().any(|usage| NOT_FOR_CODE.contains(usage))
    {
        return Err(leaf.violates(Rule::ExtendedKeyUsageExcess("code signing")));
    }
    let kind = leaf.key()?.kind();
    match Scheme::of_notation(kind) {
        Some(_) => Ok(()),
        None => Err(leaf.violates(Rule::KeyKind(kind))),
    }
}

/// Extended key usages that a code signing certificate must not have: any, server, client, mail, timestamping, OCSP.
const NOT_FOR_CODE: [ObjectIdentifier; 6] = [
    ObjectIdentifier::new_unwrap("2.5.29.37.0"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.4"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9"),
];
