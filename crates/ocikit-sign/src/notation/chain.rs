use std::fmt;

use aws_lc_rs::signature::UnparsedPublicKey;
use jiff::Timestamp;
use ocikit_spec::Digest;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Decode, Reader, SliceReader};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};

use crate::algorithm::Algorithm;
use crate::error::{Error, Result};
use crate::key::{PublicKey, Scheme, blocks, write};

/// A certificate (RFC 5280), as the bytes that it came in.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    parsed: x509_cert::Certificate,
}

impl Certificate {
    /// Reads one in DER.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] if it is none.
    pub fn from_der(der: &[u8]) -> Result<Certificate> {
        let refuse = |error: x509_cert::der::Error| Error::Certificates(format!("not a certificate: {error}"));
        Ok(Certificate { der: der.to_vec(), parsed: x509_cert::Certificate::from_der(der).map_err(refuse)? })
    }

    /// Reads all certificates of a file in PEM, or the one in DER, in their order.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] if there is none, or something else among them.
    pub fn read_all(file: &[u8]) -> Result<Vec<Certificate>> {
        // What is DER begins with a sequence.
        if file.first() == Some(&0x30) {
            return Ok(vec![Certificate::from_der(file)?]);
        }
        let blocks = blocks(file).map_err(|why| Error::Certificates(why.to_owned()))?;
        if let Some(other) = blocks.iter().find(|block| block.label != "CERTIFICATE") {
            return Err(Error::Certificates(format!("there is a {} among them", other.label)));
        }
        if blocks.is_empty() {
            return Err(Error::Certificates("there are none in the file".to_owned()));
        }
        blocks.iter().map(|block| Certificate::from_der(&block.bytes)).collect()
    }

    /// The bytes.
    pub fn to_der(&self) -> &[u8] {
        &self.der
    }

    /// The same in PEM.
    pub fn to_pem(&self) -> String {
        write("CERTIFICATE", &self.der).to_string()
    }

    /// The digest of the bytes.
    pub fn fingerprint(&self) -> Digest {
        Digest::sha256_of(&self.der)
    }

    pub(crate) fn parsed(&self) -> &x509_cert::Certificate {
        &self.parsed
    }

    pub(crate) fn subject(&self) -> String {
        self.parsed.tbs_certificate().subject().to_string()
    }

    /// The time before which and the time after which it is not valid, in seconds since 1970.
    fn validity(&self) -> (u64, u64) {
        let validity = self.parsed.tbs_certificate().validity();
        (validity.not_before.to_unix_duration().as_secs(), validity.not_after.to_unix_duration().as_secs())
    }

    /// Whether the time is after the last one at which it is valid, be it by a fraction of a second.
    fn has_expired_at(&self, time: Timestamp) -> bool {
        let Ok(seconds) = u64::try_from(time.as_second()) else { return false };
        let last = self.validity().1;
        seconds > last || seconds == last && time.subsec_nanosecond() > 0
    }

    pub(crate) fn is_valid_at(&self, time: Timestamp) -> bool {
        let is_late = u64::try_from(time.as_second()).is_ok_and(|time| self.validity().0 <= time);
        is_late && !self.has_expired_at(time)
    }

    pub(crate) fn is_self_signed(&self) -> bool {
        self.is_issued_by(self).is_ok()
    }

    /// The bytes that the issuer signed.
    pub(crate) fn signed_bytes(&self) -> Option<&[u8]> {
        let outer = AnyRef::from_der(&self.der).ok()?;
        SliceReader::new(outer.value()).ok()?.tlv_bytes().ok()
    }

    /// Whether the other issued this one, by name and by signature.
    pub(crate) fn is_issued_by(&self, issuer: &Certificate) -> Result<(), String> {
        let (child, parent) = (self.parsed.tbs_certificate(), issuer.parsed.tbs_certificate());
        if child.issuer() != parent.subject() {
            return Err(format!("{} is not issued by {}", self.subject(), issuer.subject()));
        }
        let algorithm = self.parsed.signature_algorithm();
        if algorithm != child.signature() {
            return Err(format!("{} names two signature algorithms", self.subject()));
        }
        let key = PublicKey::of_certificate(&issuer.parsed).map_err(|error| error.to_string())?;
        let parameters = algorithm.parameters.as_ref().map(AnyRef::from);
        let algorithm = Algorithm::new(algorithm.oid, parameters)
            .verification(key.kind(), None)
            .ok_or_else(|| format!("the signature algorithm {} is not used", algorithm.oid))?;
        let signature = self.parsed.signature().as_bytes();
        let verified = match (self.signed_bytes(), signature) {
            (Some(bytes), Some(signature)) => {
                UnparsedPublicKey::new(algorithm, key.to_der()).verify(bytes, signature).is_ok()
            }
            _ => false,
        };
        if verified { Ok(()) } else { Err(format!("the signature of {} is wrong", self.subject())) }
    }

    /// Whether there is nothing in it that has to be understood and is not, as constraints of names (RFC 5280, 4.2).
    pub(crate) fn check_extensions(&self) -> Result<(), String> {
        let extensions = self.parsed.tbs_certificate().extensions().into_iter().flatten();
        let mut unknown = extensions.filter(|extension| extension.critical && !KNOWN.contains(&extension.extn_id));
        match unknown.next() {
            Some(found) => {
                Err(format!("{}: the critical extension {} is not understood", self.subject(), found.extn_id))
            }
            None => Ok(()),
        }
    }

    /// Whether it may issue certificates, with so many other issuers below it.
    pub(crate) fn check_issuer(&self, below: usize) -> Result<(), String> {
        let refuse = |why: &str| Err(format!("{}: {why}", self.subject()));
        let Some((critical, constraints)) = self.extension::<BasicConstraints>()? else {
            return refuse("it has no basic constraints");
        };
        if !critical || !constraints.ca {
            return refuse("its basic constraints are not critical, or do not make it an authority");
        }
        if constraints.path_len_constraint.is_some_and(|most| usize::from(most) < below) {
            return refuse("it allows fewer authorities below it");
        }
        match self.extension::<KeyUsage>()? {
            Some((true, usage)) if usage.key_cert_sign() => Ok(()),
            _ => refuse("its key usage is not critical, or not to sign certificates"),
        }
    }

    /// Whether it may sign code and nothing else.
    fn check_leaf(&self) -> Result<(), String> {
        let refuse = |why: &str| Err(format!("{}: {why}", self.subject()));
        if self.extension::<BasicConstraints>()?.is_some_and(|(_, constraints)| constraints.ca) {
            return refuse("it is an authority");
        }
        let Some((true, usage)) = self.extension::<KeyUsage>()? else {
            return refuse("its key usage is missing or not critical");
        };
        let more = [
            usage.key_encipherment(),
            usage.data_encipherment(),
            usage.key_agreement(),
            usage.key_cert_sign(),
            usage.crl_sign(),
            usage.encipher_only(),
            usage.decipher_only(),
        ];
        if !usage.digital_signature() || more.contains(&true) {
            return refuse("its key usage is not to sign, or is more than that");
        }
        if let Some((_, usages)) = self.extension::<ExtendedKeyUsage>()?
            && usages.0.iter().any(|usage| NOT_FOR_CODE.contains(usage))
        {
            return refuse("its extended key usage has other uses than to sign code");
        }
        let key = self.key()?;
        match Scheme::of_notation(key.kind()) {
            Some(_) => Ok(()),
            None => refuse(&format!("its key is {}, which is not used", key.kind())),
        }
    }

    pub(crate) fn key(&self) -> Result<PublicKey, String> {
        PublicKey::of_certificate(&self.parsed).map_err(|error| error.to_string())
    }

    pub(crate) fn extension<'a, T>(&'a self) -> Result<Option<(bool, T)>, String>
    where
        T: Decode<'a, Error = x509_cert::der::Error> + x509_cert::der::oid::AssociatedOid,
    {
        let found = self.parsed.tbs_certificate().get_extension::<T>();
        found.map_err(|error| format!("{}: an extension is malformed: {error}", self.subject()))
    }
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

/// Certificates from that of a signer to a self-signed root, each issued by the next, or one that is self-signed. Every rule
/// of the specification holds but those of time and trust: Notary Project, "Certificate Requirements".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    certificates: Vec<Certificate>,
    key: PublicKey,
}

/// No chain has more certificates.
const LONGEST: usize = 16;

impl Chain {
    /// A chain of these, that of the signer first.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] with the rule that does not hold.
    pub fn new(certificates: Vec<Certificate>) -> Result<Chain> {
        let key = check(&certificates).map_err(Error::Certificates)?;
        Ok(Chain { certificates, key })
    }

    /// The certificates, that of the signer first.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The key of the signer.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// The certificate of the signer.
    pub(crate) fn leaf(&self) -> &Certificate {
        // `check` lets no empty chain through.
        &self.certificates[0]
    }

    /// How the signer signs.
    pub(crate) fn scheme(&self) -> Option<Scheme> {
        Scheme::of_notation(self.key.kind())
    }

    /// The first certificate that is not valid at a time.
    pub(crate) fn invalid_at(&self, time: Timestamp) -> Option<&Certificate> {
        self.certificates.iter().find(|certificate| !certificate.is_valid_at(time))
    }

    /// Whether one of them is not valid any more.
    pub(crate) fn has_expired_at(&self, time: Timestamp) -> bool {
        self.certificates.iter().any(|certificate| certificate.has_expired_at(time))
    }
}

fn check(certificates: &[Certificate]) -> Result<PublicKey, String> {
    let (Some(leaf), Some(root)) = (certificates.first(), certificates.last()) else {
        return Err("there are none".to_owned());
    };
    if certificates.len() > LONGEST {
        return Err(format!("there are {} of them", certificates.len()));
    }
    for pair in certificates.windows(2) {
        let [child, parent] = pair else { continue };
        if child.is_issued_by(child).is_ok() {
            return Err(format!("{} is self-signed, and not the last", child.subject()));
        }
        child.is_issued_by(parent)?;
    }
    root.is_issued_by(root).map_err(|why| format!("the last is not a self-signed root: {why}"))?;
    certificates.iter().try_for_each(Certificate::check_extensions)?;
    leaf.check_leaf()?;
    for (position, certificate) in certificates.iter().enumerate().skip(1) {
        certificate.check_issuer(position - 1)?;
    }
    leaf.key()
}

/// Uses that a certificate to sign code with must not have: any, servers, clients, mail, timestamps, OCSP.
const NOT_FOR_CODE: [ObjectIdentifier; 6] = [
    ObjectIdentifier::new_unwrap("2.5.29.37.0"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.4"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9"),
];
/// The extensions that are looked at: basic constraints, key usage, extended key usage.
const KNOWN: [ObjectIdentifier; 3] = [
    ObjectIdentifier::new_unwrap("2.5.29.19"),
    ObjectIdentifier::new_unwrap("2.5.29.15"),
    ObjectIdentifier::new_unwrap("2.5.29.37"),
];
