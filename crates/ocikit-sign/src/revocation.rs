//! Lists of revoked certificates (RFC 5280, 5). They are given, not looked for.

use aws_lc_rs::signature::UnparsedPublicKey;
use jiff::Timestamp;
use x509_cert::der::asn1::{GeneralizedTime, ObjectIdentifier};
use x509_cert::der::{self, Decode, Encode, Tag};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::crl::IssuingDistributionPoint;
use x509_cert::ext::pkix::name::DistributionPointName;
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, BasicConstraints, CrlDistributionPoints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::time::Time;

use crate::Certificate;
use crate::algorithm::Algorithm;
use crate::der::{Fields, outer};
use crate::error::{Error, Result};
use crate::key::blocks;
use crate::refusal::Refusal;

/// No list has more bytes.
const LONGEST: usize = 16 << 20;

/// A list of the certificates that an issuer has revoked, as the bytes that it came in. It is checked when it is used, since
/// only then its issuer is known.
#[derive(Clone, PartialEq, Eq)]
pub struct RevocationList {
    der: Vec<u8>,
    issuer: Name,
}

impl RevocationList {
    /// Reads one in DER.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] if it is none.
    pub fn from_der(der: &[u8]) -> Result<RevocationList> {
        if der.len() > LONGEST {
            return Err(Error::Certificates("a list of revoked ones is too long".to_owned()));
        }
        let whole = || {
            let content = Content::read(der)?;
            let mut entries = content.entries()?;
            while !entries.is_finished() {
                Entry::read(&mut entries)?;
            }
            Ok(content.issuer)
        };
        let refuse = |error: der::Error| Error::Certificates(format!("not a list of revoked ones: {error}"));
        Ok(RevocationList { der: der.to_vec(), issuer: whole().map_err(refuse)? })
    }

    /// Reads all lists of a file in PEM, or the one in DER.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`] if there is none, or something else among them.
    pub fn read_all(file: &[u8]) -> Result<Vec<RevocationList>> {
        // What is DER begins with a sequence.
        if file.first() == Some(&0x30) {
            return Ok(vec![RevocationList::from_der(file)?]);
        }
        let blocks = blocks(file).map_err(|why| Error::Certificates(why.to_owned()))?;
        if blocks.is_empty() || blocks.iter().any(|block| block.label != "X509 CRL") {
            return Err(Error::Certificates("a file holds something else than lists of revoked ones".to_owned()));
        }
        blocks.iter().map(|block| RevocationList::from_der(&block.bytes)).collect()
    }

    /// Whether a certificate is on it; `None` if the list is not for it.
    fn tells(&self, certificate: &Certificate, issuer: &Certificate, now: Timestamp) -> Result<Option<Entry>, String> {
        let broken = |error: der::Error| error.to_string();
        let content = Content::read(&self.der).map_err(broken)?;
        content.check(issuer, now)?;
        if !content.is_for(certificate)? {
            return Ok(None);
        }
        let serial = certificate.parsed().tbs_certificate().serial_number().to_der().map_err(broken)?;
        let mut entries = content.entries().map_err(broken)?;
        let mut found = None;
        while !entries.is_finished() {
            let entry = Entry::read(&mut entries).map_err(broken)?;
            // On whose certificates an entry is, it says itself in lists of another kind.
            if let Some(oid) = entry.unknown {
                return Err(format!("its critical extension {oid} is not understood"));
            }
            if entry.serial == serial {
                found = Some(entry);
            }
        }
        Ok(Some(found.unwrap_or_default()))
    }
}

impl std::fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RevocationList({})", self.issuer)
    }
}

/// `CertificateList`, apart from its entries.
struct Content<'a> {
    signed: &'a [u8],
    algorithm: Algorithm<'a>,
    signature: &'a [u8],
    issuer: Name,
    this_update: Time,
    next_update: Option<Time>,
    entries: &'a [u8],
    extensions: Vec<Extension>,
}

impl<'a> Content<'a> {
    fn read(der: &'a [u8]) -> Result<Content<'a>, der::Error> {
        let mut list = Fields::of(der, Tag::Sequence)?;
        let signed = list.bytes()?;
        let algorithm = Algorithm::read(&mut list)?;
        // A string of bits, of which none is left over.
        let signature = match list.value(Tag::BitString)? {
            [0, signature @ ..] => signature,
            _ => return Err(Tag::BitString.value_error().into()),
        };
        list.finish()?;
        let mut list = Fields::of(signed, Tag::Sequence)?;
        // Version 2 is written as 1; there are no extensions in version 1.
        let version = list.optional(Tag::Integer)?;
        if version.is_some_and(|version| version != [1]) || Algorithm::read(&mut list)? != algorithm {
            return Err(Tag::Integer.value_error().into());
        }
        let (issuer, this_update) = (list.decode()?, list.decode()?);
        let mut content = Content {
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
        Ok(content)
    }

    fn entries(&self) -> Result<Fields<'a>, der::Error> {
        Fields::within(self.entries)
    }

    /// Whether the issuer signed it, and it is of now.
    fn check(&self, issuer: &Certificate, now: Timestamp) -> Result<(), String> {
        let key = issuer.key()?;
        let algorithm = self.algorithm.verification(key.kind(), None).ok_or("its signature algorithm is not used")?;
        if UnparsedPublicKey::new(algorithm, key.to_der()).verify(self.signed, self.signature).is_err() {
            return Err("its signature is wrong".to_owned());
        }
        if issuer.extension::<KeyUsage>()?.is_some_and(|(_, usage)| !usage.crl_sign()) {
            return Err("its issuer may not sign such lists".to_owned());
        }
        let seconds = |time: &Time| i128::from(time.to_unix_duration().as_secs());
        let now = i128::from(now.as_second());
        if seconds(&self.this_update) > now {
            return Err(format!("it is of the future, of {}", self.this_update));
        }
        match &self.next_update {
            Some(next) if seconds(next) >= now => {}
            Some(next) => return Err(format!("it is out of date since {next}")),
            None => return Err("it does not say how long it is up to date".to_owned()),
        }
        // Among the unknown ones is that of lists that hold only what was added to another.
        let mut unknown = self.extensions.iter().filter(|found| found.critical && found.extn_id != DISTRIBUTION_POINT);
        match unknown.next() {
            Some(found) => Err(format!("its critical extension {} is not understood", found.extn_id)),
            None => Ok(()),
        }
    }

    /// Whether a certificate would be on it if it were revoked. A list may be a part of all that there is.
    fn is_for(&self, certificate: &Certificate) -> Result<bool, String> {
        let Some(found) = self.extensions.iter().find(|found| found.extn_id == DISTRIBUTION_POINT) else {
            return Ok(true);
        };
        let place =
            IssuingDistributionPoint::from_der(found.extn_value.as_bytes()).map_err(|error| error.to_string())?;
        if place.indirect_crl || place.only_some_reasons.is_some() {
            return Err("it is of a kind that is not understood".to_owned());
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
            return Err("the place that it is of has a relative name".to_owned());
        };
        let Some((_, places)) = certificate.extension::<CrlDistributionPoints>()? else { return Ok(false) };
        Ok(places.0.iter().any(|place| match &place.distribution_point {
            Some(DistributionPointName::FullName(found)) => found.iter().any(|name| names.contains(name)),
            _ => false,
        }))
    }
}

/// A certificate on a list; without a time it is on none.
#[derive(Default)]
struct Entry {
    /// The whole field.
    serial: Vec<u8>,
    time: Option<Time>,
    /// Since when the certificate is not to be trusted, if that is not when it was revoked.
    invalid_since: Option<GeneralizedTime>,
    unknown: Option<ObjectIdentifier>,
}

impl Entry {
    fn read(entries: &mut Fields<'_>) -> Result<Entry, der::Error> {
        let mut fields = entries.fields(Tag::Sequence)?;
        let mut entry = Entry { serial: fields.bytes()?.to_vec(), time: Some(fields.decode()?), ..Entry::default() };
        if !fields.is_finished() {
            let extensions: Vec<Extension> = fields.decode()?;
            for extension in extensions {
                match extension.extn_id {
                    INVALIDITY_DATE => {
                        entry.invalid_since = Some(GeneralizedTime::from_der(extension.extn_value.as_bytes())?);
                    }
                    REASON => {}
                    other if extension.critical => entry.unknown = Some(other),
                    _ => {}
                }
            }
        }
        fields.finish()?;
        Ok(entry)
    }
}

/// Whether no certificate of a chain was revoked, as far as these lists tell; the last is a root, which nobody revokes. Where
/// it is known when something was signed, it counts if that was before the certificate became invalid.
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
            match list.tells(certificate, issuer, now) {
                Ok(Some(Entry { time: Some(time), invalid_since, .. })) => {
                    let since = invalid_since.map(|since| since.to_unix_duration().as_secs());
                    let signed = signed.and_then(|signed| u64::try_from(signed.as_second()).ok());
                    if since.zip(signed).is_none_or(|(since, signed)| signed >= since) {
                        return Err(Refusal::Revoked { subject: certificate.subject(), time: time.to_string() });
                    }
                    is_told = true;
                }
                Ok(Some(_)) => is_told = true,
                Ok(None) => {}
                Err(problem) => why = Some(format!("the list of {name}: {problem}")),
            }
        }
        if is_told {
            continue;
        }
        // Who issues certificates without saying where such lists are, and gives none, revokes none.
        if why.is_some() || is_told_elsewhere(certificate).map_err(Refusal::Certificates)? {
            let why = why.unwrap_or_else(|| format!("there is no list for {}", certificate.subject()));
            unknown = unknown.or(Some(why));
        }
    }
    // One that was revoked is worse than one of which nothing is known.
    unknown.map_or(Ok(()), |why| Err(Refusal::Revocation(why)))
}

/// Whether a certificate names places that tell whether it was revoked.
fn is_told_elsewhere(certificate: &Certificate) -> Result<bool, String> {
    let has_list = certificate.extension::<CrlDistributionPoints>()?.is_some();
    let access = certificate.extension::<AuthorityInfoAccessSyntax>()?;
    Ok(has_list || access.is_some_and(|(_, access)| access.0.iter().any(|place| place.access_method == OCSP)))
}

const DISTRIBUTION_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");
const INVALIDITY_DATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.24");
const REASON: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");

#[cfg(test)]
mod tests;
