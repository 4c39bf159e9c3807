//! Certificate revocation lists (RFC 5280, 5). They are given by the caller and never downloaded.

use aws_lc_rs::signature::UnparsedPublicKey;
use jiff::Timestamp;
use x509_cert::der::asn1::{GeneralizedTime, ObjectIdentifier};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{self, Decode, Encode, Tag};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::crl::IssuingDistributionPoint;
use x509_cert::ext::pkix::name::DistributionPointName;
use x509_cert::ext::pkix::{
    AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, CrlDistributionPoints, KeyUsage,
    SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::time::Time;

use crate::algorithm::Algorithm;
use crate::der::{Fields, outer};
use crate::error::{Error, Result};
use crate::key::blocks;
use crate::pki::{Certificate, Violation};
use crate::refusal::Refusal;

/// The maximum size of a list, in bytes.
const MAX_CRL_BYTES: usize = 16 << 20;

/// A certificate revocation list (CRL) with its original bytes. Its signature is verified on use, because the
/// issuer's certificate is not known before.
#[derive(Clone, PartialEq, Eq)]
pub struct RevocationList {
    der: Vec<u8>,
    issuer: Name,
}

impl RevocationList {
    /// Parses a list in DER.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] if it is malformed.
    pub fn from_der(der: &[u8]) -> Result<RevocationList> {
        if der.len() > MAX_CRL_BYTES {
            return Err(Error::Certificates("a revocation list is too long".to_owned()));
        }
        let whole = || {
            let content = CertificateList::read(der)?;
            let mut entries = content.entries()?;
            while !entries.is_finished() {
                RevokedCertificate::read(&mut entries)?;
            }
            Ok(content.issuer)
        };
        let refuse = |error: CrlError| Error::Certificates(format!("not a revocation list: {error}"));
        Ok(RevocationList { der: der.to_vec(), issuer: whole().map_err(refuse)? })
    }

    /// Reads all lists of a PEM file, or the one in a DER file.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] if the file has no list, or contains other PEM blocks.
    pub fn read_all(file: &[u8]) -> Result<Vec<RevocationList>> {
        // DER begins with the tag of a sequence.
        if file.first() == Some(&0x30) {
            return Ok(vec![RevocationList::from_der(file)?]);
        }
        let blocks = blocks(file).map_err(|why| Error::Certificates(why.to_owned()))?;
        if blocks.is_empty() || blocks.iter().any(|block| block.label != "X509 CRL") {
            return Err(Error::Certificates("a file has contents other than revocation lists".to_owned()));
        }
        blocks.iter().map(|block| RevocationList::from_der(&block.bytes)).collect()
    }

    /// Returns the entries for a certificate, which may be several; `None` if the certificate is outside of the
    /// list's scope.
    fn entries_for(
        &self,
        certificate: &Certificate,
        issuer: &Certificate,
        now: Timestamp,
    ) -> Result<Option<Vec<RevokedCertificate>>, CrlError> {
        let content = CertificateList::read(&self.der)?;
        if content.is_of_another_key(issuer)? {
            return Ok(None);
        }
        content.check(issuer, now)?;
        if !content.is_for(certificate)? {
            return Ok(None);
        }
        let serial = certificate.parsed().tbs_certificate().serial_number().to_der()?;
        let mut entries = content.entries()?;
        let mut found = Vec::new();
        while !entries.is_finished() {
            let entry = RevokedCertificate::read(&mut entries)?;
            // In indirect lists, a critical extension names the issuer of the revoked certificate.
            if let Some(oid) = entry.unknown {
                return Err(CrlError::UnknownCriticalExtension(oid));
            }
            if entry.serial == serial {
                found.push(entry);
            }
        }
        Ok(Some(found))
    }
}

/// Why a list of the right issuer cannot be used.
#[derive(Debug, thiserror::Error)]
enum CrlError {
    #[error("it is malformed: {0}")]
    Malformed(#[from] der::Error),
    #[error("an extension occurs twice")]
    DuplicateExtension,
    #[error(transparent)]
    Certificate(#[from] Violation),
    #[error("its signature is wrong")]
    WrongSignature,
    #[error("its signature algorithm is not supported")]
    SignatureAlgorithm,
    #[error("its issuer may not sign revocation lists")]
    NotAllowed,
    #[error("it was issued in the future, at {0}")]
    Future(Time),
    #[error("it expired at {0}")]
    Expired(Time),
    #[error("it does not say when it expires")]
    NoExpiry,
    #[error("it is a delta list, which is not supported")]
    Delta,
    #[error("the critical extension {0} is not supported")]
    UnknownCriticalExtension(ObjectIdentifier),
    #[error("it is indirect or for some reasons only, which is not supported")]
    Partial,
    #[error("its distribution point has a relative name, which is not supported")]
    RelativeName,
}

/// RFC 5280, 5.2: an extension occurs once.
fn check_unique(extensions: &[Extension]) -> Result<(), CrlError> {
    let mut positions = extensions.iter().enumerate();
    match positions.any(|(position, one)| extensions[..position].iter().any(|other| other.extn_id == one.extn_id)) {
        true => Err(CrlError::DuplicateExtension),
        false => Ok(()),
    }
}

impl std::fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RevocationList({})", self.issuer)
    }
}

/// The `CertificateList` structure with its entries unparsed.
struct CertificateList<'a> {
    signed: &'a [u8],
    algorithm: Algorithm<'a>,
    signature: &'a [u8],
    issuer: Name,
    this_update: Time,
    next_update: Option<Time>,
    entries: &'a [u8],
    extensions: Vec<Extension>,
}

impl<'a> CertificateList<'a> {
    fn read(der: &'a [u8]) -> Result<CertificateList<'a>, CrlError> {
        let mut list = Fields::of(der, Tag::Sequence)?;
        let signed = list.bytes()?;
        let algorithm = Algorithm::read(&mut list)?;
        // A bit string without unused bits.
        let signature = match list.value(Tag::BitString)? {
            [0, signature @ ..] => signature,
            _ => return Err(der::Error::from(Tag::BitString.value_error()).into()),
        };
        list.finish()?;
        let mut list = Fields::of(signed, Tag::Sequence)?;
        // Version 2 is encoded as 1. Version 1 has no extensions.
        let version = list.optional(Tag::Integer)?;
        if version.is_some_and(|version| version != [1]) || Algorithm::read(&mut list)? != algorithm {
            return Err(der::Error::from(Tag::Integer.value_error()).into());
        }
        let (issuer, this_update) = (list.decode()?, list.decode()?);
        let mut content = CertificateList {
            signed,
            algorithm,
            signature,
            issuer,
            this_update,
            next_update: None,
            entries: &[],
            extensions: Vec::new(),
        };
        if list.peek()? == Some(Tag::UtcTime) || list.peek()? == Some(Tag::GeneralizedTime) {
            content.next_update = Some(list.decode()?);
        }
        content.entries = list.optional(Tag::Sequence)?.unwrap_or_default();
        if let Some(extensions) = list.optional(outer(0))? {
            let mut extensions = Fields::within(extensions)?;
            content.extensions = extensions.decode()?;
            extensions.finish()?;
        }
        list.finish()?;
        check_unique(&content.extensions)?;
        Ok(content)
    }

    fn entries(&self) -> Result<Fields<'a>, der::Error> {
        Fields::within(self.entries)
    }

    /// Returns the value of an extension, if it is present.
    fn extension<'b, T: Decode<'b, Error = der::Error> + AssociatedOid>(&'b self) -> Result<Option<T>, der::Error> {
        let found = self.extensions.iter().find(|found| found.extn_id == T::OID);
        found.map(|found| T::from_der(found.extn_value.as_bytes())).transpose()
    }

    /// Returns whether the list names another key than that of the issuer. A certificate authority that changed its
    /// key has one list per key under the same name.
    fn is_of_another_key(&self, issuer: &Certificate) -> Result<bool, CrlError> {
        let named = self.extension::<AuthorityKeyIdentifier>()?.and_then(|found| found.key_identifier);
        let key = issuer.extension::<SubjectKeyIdentifier>()?.map(|(_, found)| found.0);
        Ok(named.zip(key).is_some_and(|(named, key)| named != key))
    }

    /// Checks that the list is signed by the issuer, complete and current, and has no unknown critical extension.
    fn check(&self, issuer: &Certificate, now: Timestamp) -> Result<(), CrlError> {
        let key = issuer.key()?;
        let algorithm = self.algorithm.verification(key.kind(), None).ok_or(CrlError::SignatureAlgorithm)?;
        if UnparsedPublicKey::new(algorithm, key.to_der()).verify(self.signed, self.signature).is_err() {
            return Err(CrlError::WrongSignature);
        }
        if issuer.extension::<KeyUsage>()?.is_some_and(|(_, usage)| !usage.crl_sign()) {
            return Err(CrlError::NotAllowed);
        }
        let seconds = |time: &Time| i128::from(time.to_unix_duration().as_secs());
        let now = i128::from(now.as_second());
        if seconds(&self.this_update) > now {
            return Err(CrlError::Future(self.this_update));
        }
        match self.next_update {
            Some(next) if seconds(&next) >= now => {}
            Some(next) => return Err(CrlError::Expired(next)),
            None => return Err(CrlError::NoExpiry),
        }
        // The delta indicator must be critical, but it makes a delta list even if the issuer did not mark it.
        if self.extensions.iter().any(|found| found.extn_id == DELTA_INDICATOR) {
            return Err(CrlError::Delta);
        }
        let is_known = |found: &&Extension| !found.critical || found.extn_id == IssuingDistributionPoint::OID;
        match self.extensions.iter().find(|found| !is_known(found)) {
            Some(found) => Err(CrlError::UnknownCriticalExtension(found.extn_id)),
            None => Ok(()),
        }
    }

    /// Returns whether a certificate is in the scope of the list, which may cover only a part of the issuer's
    /// certificates.
    fn is_for(&self, certificate: &Certificate) -> Result<bool, CrlError> {
        let Some(place) = self.extension::<IssuingDistributionPoint>()? else { return Ok(true) };
        if place.indirect_crl || place.only_some_reasons.is_some() {
            return Err(CrlError::Partial);
        }
        let is_authority = certificate.extension::<BasicConstraints>()?.is_some_and(|(_, found)| found.ca);
        if place.only_contains_attribute_certs
            || place.only_contains_user_certs && is_authority
            || place.only_contains_ca_certs && !is_authority
        {
            return Ok(false);
        }
        let Some(name) = place.distribution_point else { return Ok(true) };
        let DistributionPointName::FullName(names) = name else {
            return Err(CrlError::RelativeName);
        };
        let Some((_, places)) = certificate.extension::<CrlDistributionPoints>()? else { return Ok(false) };
        Ok(places.0.iter().any(|place| match &place.distribution_point {
            Some(DistributionPointName::FullName(found)) => found.iter().any(|name| names.contains(name)),
            _ => false,
        }))
    }
}

/// A revoked certificate.
struct RevokedCertificate {
    /// The serial number in DER.
    serial: Vec<u8>,
    /// The time of revocation.
    time: Time,
    /// The time at which the certificate became invalid, if it is not the time of revocation.
    invalid_since: Option<GeneralizedTime>,
    unknown: Option<ObjectIdentifier>,
}

impl RevokedCertificate {
    fn read(entries: &mut Fields<'_>) -> Result<RevokedCertificate, CrlError> {
        let mut fields = entries.fields(Tag::Sequence)?;
        let (serial, time) = (fields.bytes()?.to_vec(), fields.decode()?);
        let mut entry = RevokedCertificate { serial, time, invalid_since: None, unknown: None };
        if !fields.is_finished() {
            let extensions: Vec<Extension> = fields.decode()?;
            check_unique(&extensions)?;
            for extension in extensions {
                match extension.extn_id {
                    INVALIDITY_DATE => {
                        entry.invalid_since = Some(GeneralizedTime::from_der(extension.extn_value.as_bytes())?);
                    }
                    // A certificate on a complete list is revoked for any reason: `removeFromCRL` belongs in delta
                    // lists (RFC 5280, 5.3.1).
                    REASON => {}
                    other if extension.critical => entry.unknown = Some(other),
                    _ => {}
                }
            }
        }
        fields.finish()?;
        Ok(entry)
    }

    /// Returns whether the entry revokes the certificate for a signature made at `signed`, if that time is known.
    fn revokes(&self, signed: Option<Timestamp>) -> bool {
        let since = self.invalid_since.map(|since| since.to_unix_duration().as_secs());
        let signed = signed.and_then(|signed| u64::try_from(signed.as_second()).ok());
        since.zip(signed).is_none_or(|(since, signed)| signed >= since)
    }
}

/// Checks that no certificate of a chain is revoked. The root, which is last, has no issuer that could revoke it. If
/// the signing time is known, an entry does not apply to signatures made before the certificate became invalid.
///
/// A list of the issuer that cannot be used makes the status unknown even if another list of the issuer can be used:
/// the certificate may be on the first. One entry that revokes is enough.
pub(crate) fn check(
    chain: &[Certificate],
    lists: &[RevocationList],
    now: Timestamp,
    signed: Option<Timestamp>,
) -> Result<(), Refusal> {
    let mut unknown = None;
    for pair in chain.windows(2) {
        let [certificate, issuer] = pair else { continue };
        let name = issuer.parsed().tbs_certificate().subject();
        let (mut is_told, mut why) = (false, None);
        for list in lists.iter().filter(|list| list.issuer == *name) {
            match list.entries_for(certificate, issuer, now) {
                Ok(Some(entries)) => {
                    if let Some(entry) = entries.iter().find(|entry| entry.revokes(signed)) {
                        return Err(Refusal::Revoked { subject: certificate.subject(), time: entry.time.to_string() });
                    }
                    is_told = true;
                }
                Ok(None) => {}
                Err(problem) => why = Some(format!("the list of {name}: {problem}")),
            }
        }
        // An issuer that names no distribution point, with no list given, revokes nothing.
        if why.is_some() || !is_told && is_told_elsewhere(certificate)? {
            let why = why.unwrap_or_else(|| format!("there is no list for {}", certificate.subject()));
            unknown = unknown.or(Some(why));
        }
    }
    // A revoked certificate is reported before one of unknown status.
    unknown.map_or(Ok(()), |why| Err(Refusal::Revocation(why)))
}

/// Returns whether a certificate names a CRL distribution point or an OCSP responder.
fn is_told_elsewhere(certificate: &Certificate) -> Result<bool, Violation> {
    let has_list = certificate.extension::<CrlDistributionPoints>()?.is_some();
    let access = certificate.extension::<AuthorityInfoAccessSyntax>()?;
    Ok(has_list || access.is_some_and(|(_, access)| access.0.iter().any(|place| place.access_method == OCSP)))
}

const DELTA_INDICATOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.27");
const INVALIDITY_DATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.24");
const REASON: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");

#[cfg(test)]
mod tests;
