use std::fmt;

use aws_lc_rs::signature::UnparsedPublicKey;
use jiff::Timestamp;
use ocikit_spec::Digest;
use x509_cert::Version;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{self, Decode, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName};

use crate::algorithm::Algorithm;
use crate::error::{Error, Result};
use crate::key::{PublicKey, blocks, write};
use crate::pki::violation::{Rule, Violation};

/// An X.509 certificate (RFC 5280) with its original bytes.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    parsed: x509_cert::Certificate,
}

impl Certificate {
    /// Parses a certificate in DER.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] if the bytes are not a certificate, or violate a rule of RFC 5280, 4.1, on which
    /// parsers disagree: a duplicate extension, extensions in a version other than 3, two signature algorithms, a
    /// negative serial number, an empty issuer.
    pub fn from_der(der: &[u8]) -> Result<Certificate> {
        let refuse = |why: &str| Error::Certificates(format!("not a certificate: {why}"));
        let parsed = x509_cert::Certificate::from_der(der).map_err(|error| refuse(&error.to_string()))?;
        check_form(&parsed).map_err(refuse)?;
        Ok(Certificate { der: der.to_vec(), parsed })
    }

    /// Reads all certificates of a PEM file in order, or the one in a DER file.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] if the file has no certificate, or contains other PEM blocks.
    pub fn read_all(file: &[u8]) -> Result<Vec<Certificate>> {
        // DER begins with the tag of a sequence.
        if file.first() == Some(&0x30) {
            return Ok(vec![Certificate::from_der(file)?]);
        }
        let blocks = blocks(file).map_err(|why| Error::Certificates(why.to_owned()))?;
        if let Some(other) = blocks.iter().find(|block| block.label != "CERTIFICATE") {
            return Err(Error::Certificates(format!("there is a {} among them", other.label)));
        }
        if blocks.is_empty() {
            return Err(Error::Certificates("the file has no certificates".to_owned()));
        }
        blocks.iter().map(|block| Certificate::from_der(&block.bytes)).collect()
    }

    /// Returns the certificate in DER.
    pub fn to_der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the certificate in PEM.
    pub fn to_pem(&self) -> String {
        write("CERTIFICATE", &self.der).to_string()
    }

    /// Returns the SHA-256 digest of the DER form.
    pub fn fingerprint(&self) -> Digest {
        Digest::sha256_of(&self.der)
    }

    pub(crate) fn parsed(&self) -> &x509_cert::Certificate {
        &self.parsed
    }

    pub(crate) fn subject(&self) -> String {
        self.parsed.tbs_certificate().subject().to_string()
    }

    pub(crate) fn violates(&self, rule: Rule) -> Violation {
        let subject = self.subject();
        Violation {
            subject: if subject.is_empty() { "a certificate without a subject".to_owned() } else { subject },
            rule,
        }
    }

    /// Returns the first and the last second of its validity, in seconds since 1970.
    fn validity(&self) -> (u64, u64) {
        let validity = self.parsed.tbs_certificate().validity();
        (validity.not_before.to_unix_duration().as_secs(), validity.not_after.to_unix_duration().as_secs())
    }

    /// Returns whether a time is after the last second of its validity, even by a fraction of a second.
    pub(crate) fn has_expired_at(&self, time: Timestamp) -> bool {
        let Ok(seconds) = u64::try_from(time.as_second()) else { return false };
        let last = self.validity().1;
        seconds > last || seconds == last && time.subsec_nanosecond() > 0
    }

    pub(crate) fn is_valid_at(&self, time: Timestamp) -> bool {
        let has_begun = u64::try_from(time.as_second()).is_ok_and(|time| self.validity().0 <= time);
        has_begun && !self.has_expired_at(time)
    }

    pub(crate) fn check_valid_at(&self, time: Timestamp) -> Result<(), Violation> {
        if self.is_valid_at(time) { Ok(()) } else { Err(self.violates(Rule::NotValidAt(time))) }
    }

    pub(crate) fn is_self_signed(&self) -> bool {
        self.check_issued_by(self).is_ok()
    }

    /// Returns whether issuer and subject are equal (RFC 5280, 3.2).
    pub(crate) fn is_self_issued(&self) -> bool {
        self.names_issuer(self)
    }

    /// Returns whether its issuer is the subject of the other certificate.
    pub(crate) fn names_issuer(&self, issuer: &Certificate) -> bool {
        self.parsed.tbs_certificate().issuer() == issuer.parsed.tbs_certificate().subject()
    }

    /// Returns the bytes that the issuer signed.
    pub(crate) fn signed_bytes(&self) -> Option<&[u8]> {
        let outer = AnyRef::from_der(&self.der).ok()?;
        SliceReader::new(outer.value()).ok()?.tlv_bytes().ok()
    }

    /// Checks that the other certificate issued this one, by name and by signature.
    pub(crate) fn check_issued_by(&self, issuer: &Certificate) -> Result<(), Violation> {
        if !self.names_issuer(issuer) {
            return Err(self.violates(Rule::OtherIssuer(self.parsed.tbs_certificate().issuer().to_string())));
        }
        let algorithm = self.parsed.signature_algorithm();
        let key = issuer.key()?;
        let parameters = algorithm.parameters.as_ref().map(AnyRef::from);
        let verification = Algorithm::new(algorithm.oid, parameters)
            .verification(key.kind(), None)
            .ok_or_else(|| self.violates(Rule::SignatureAlgorithm(algorithm.oid)))?;
        let verified = match (self.signed_bytes(), self.parsed.signature().as_bytes()) {
            (Some(bytes), Some(signature)) => {
                UnparsedPublicKey::new(verification, key.to_der()).verify(bytes, signature).is_ok()
            }
            _ => false,
        };
        if verified { Ok(()) } else { Err(self.violates(Rule::WrongSignature)) }
    }

    /// Checks that every critical extension is supported (RFC 5280, 4.2), and the rules that hold for certificates of
    /// any kind.
    pub(crate) fn check_extensions(&self) -> Result<(), Violation> {
        let extensions = self.parsed.tbs_certificate().extensions().into_iter().flatten();
        let mut unknown = extensions.filter(|extension| extension.critical && !EVALUATED.contains(&extension.extn_id));
        if let Some(found) = unknown.next() {
            return Err(self.violates(Rule::UnknownCriticalExtension(found.extn_id)));
        }
        // RFC 5280, 4.2.1.6: the names of a certificate without a subject are critical.
        let has_names = self.extension::<SubjectAltName>()?.is_some_and(|(critical, _)| critical);
        if self.parsed.tbs_certificate().subject().is_empty() && !has_names {
            return Err(self.violates(Rule::NoSubject));
        }
        match self.extension::<ExtendedKeyUsage>()? {
            Some((_, usages)) if usages.0.is_empty() => Err(self.violates(Rule::EmptyExtendedKeyUsage)),
            _ => Ok(()),
        }
    }

    /// Checks that this is a certificate authority that may have `below` certificate authorities below it.
    pub(crate) fn check_authority(&self, below: usize) -> Result<(), Violation> {
        // Certificates name their issuer, so an issuer needs a subject (RFC 5280, 4.1.2.6).
        if self.parsed.tbs_certificate().subject().is_empty() {
            return Err(self.violates(Rule::NoSubject));
        }
        let constraints = self.extension::<BasicConstraints>()?.filter(|(_, constraints)| constraints.ca);
        let Some((_, constraints)) = constraints else { return Err(self.violates(Rule::NoAuthority)) };
        if let Some(most) = constraints.path_len_constraint.filter(|most| usize::from(*most) < below) {
            return Err(self.violates(Rule::PathLength(most)));
        }
        match self.extension::<KeyUsage>()? {
            None => Err(self.violates(Rule::NoKeyUsage)),
            Some((_, usage)) if !usage.key_cert_sign() => Err(self.violates(Rule::KeyUsageLacks("keyCertSign"))),
            Some(_) => self.check_extensions(),
        }
    }

    /// Checks that the basic constraints are critical, as RFC 5280, 4.2.1.9, requires of certificate authorities.
    pub(crate) fn check_constraints_critical(&self) -> Result<(), Violation> {
        match self.extension::<BasicConstraints>()? {
            Some((false, _)) => Err(self.violates(Rule::BasicConstraintsNotCritical)),
            _ => Ok(()),
        }
    }

    /// Checks that this is not a certificate authority and has no extension that is reserved for them.
    pub(crate) fn check_end_entity(&self) -> Result<(), Violation> {
        if self.extension::<BasicConstraints>()?.is_some_and(|(_, constraints)| constraints.ca) {
            return Err(self.violates(Rule::Authority));
        }
        // RFC 5280, 4.2.1.10.
        if self.extension::<NameConstraints>()?.is_some() {
            return Err(self.violates(Rule::NameConstraintsInLeaf));
        }
        self.check_extensions()
    }

    /// Checks that the extended key usage, if present, includes this usage or any usage.
    pub(crate) fn check_may_issue_for(&self, usage: ObjectIdentifier, name: &'static str) -> Result<(), Violation> {
        match self.extension::<ExtendedKeyUsage>()? {
            Some((_, usages)) if !usages.0.iter().any(|found| [usage, ANY_USAGE].contains(found)) => {
                Err(self.violates(Rule::ExtendedKeyUsageLacks(name)))
            }
            _ => Ok(()),
        }
    }

    /// Returns the key usage, which must be present and critical.
    pub(crate) fn critical_key_usage(&self) -> Result<KeyUsage, Violation> {
        match self.extension::<KeyUsage>()? {
            None => Err(self.violates(Rule::NoKeyUsage)),
            Some((false, _)) => Err(self.violates(Rule::KeyUsageNotCritical)),
            Some((true, usage)) => Ok(usage),
        }
    }

    pub(crate) fn key(&self) -> Result<PublicKey, Violation> {
        PublicKey::of_certificate(&self.parsed).map_err(|error| self.violates(Rule::Key(error.to_string())))
    }

    /// Returns whether an extension is critical, and its value. `check_form` refuses duplicates.
    pub(crate) fn extension<'a, T>(&'a self) -> Result<Option<(bool, T)>, Violation>
    where
        T: Decode<'a, Error = der::Error> + AssociatedOid,
    {
        let found = self.parsed.tbs_certificate().get_extension::<T>();
        found.map_err(|error| self.violates(Rule::MalformedExtension(T::OID, error)))
    }
}

/// Checks the rules on the form of a certificate that the parser does not check.
fn check_form(certificate: &x509_cert::Certificate) -> Result<(), &'static str> {
    let signed = certificate.tbs_certificate();
    let extensions: Vec<_> = signed.extensions().into_iter().flatten().map(|extension| extension.extn_id).collect();
    if signed.version() != Version::V3 && signed.extensions().is_some() {
        return Err("it has extensions and is not of version 3");
    }
    // RFC 5280, 4.2: an extension occurs once. Parsers take the first, the last or both of two.
    if extensions.iter().enumerate().any(|(position, oid)| extensions[..position].contains(oid)) {
        return Err("an extension occurs twice");
    }
    // RFC 5280, 4.1.1.2.
    if certificate.signature_algorithm() != signed.signature() {
        return Err("it names two signature algorithms");
    }
    // RFC 5280, 4.1.2.2. Zero is forbidden as well, but in use: Starfield's and Go Daddy's class 2 roots have it.
    let serial = signed.serial_number().to_der().map_err(|_| "its serial number is malformed")?;
    if serial.get(2).is_some_and(|first| *first > 0x7f) {
        return Err("its serial number is negative");
    }
    // RFC 5280, 4.1.2.4.
    if signed.issuer().is_empty() {
        return Err("its issuer is empty");
    }
    Ok(())
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Certificate) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({} {})", self.subject(), self.fingerprint())
    }
}

const ANY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

/// The supported extensions, which may be critical.
const EVALUATED: [ObjectIdentifier; 5] =
    [BasicConstraints::OID, KeyUsage::OID, ExtendedKeyUsage::OID, SubjectAltName::OID, NameConstraints::OID];
