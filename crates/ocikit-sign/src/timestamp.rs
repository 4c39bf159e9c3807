//! Timestamps (RFC 3161): a signature of a timestamp authority over a hash and a time.
//!
//! A token is a restricted CMS structure (RFC 5652): DER, one signer, and signed attributes that include the hash of
//! the signer's certificate (RFC 5816). Parts that no signature covers are not evaluated: surplus certificates,
//! revocation lists, unsigned attributes.

mod authority;

pub use authority::TimestampAuthority;

use aws_lc_rs::signature::UnparsedPublicKey;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, civil};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{self, Encode, Tag};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::SubjectKeyIdentifier;
use x509_cert::name::Name;

use crate::algorithm::{Algorithm, Hash};
use crate::der::{Fields, field, inner, outer};
use crate::pki::Certificate;
use crate::pki::path::{self, Purpose};
use crate::refusal::Refusal;
use crate::signer::program::line;

/// The maximum size of a token or response, in bytes.
pub(crate) const MAX_TIMESTAMP_BYTES: u64 = 1 << 20;
/// The maximum number of certificates in a token.
const MAX_TOKEN_CERTIFICATES: usize = 16;

/// The trusted timestamp authorities.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Authorities<'a> {
    /// Trust anchors.
    pub(crate) roots: &'a [Certificate],
    /// Intermediates in addition to those in the token. A token may even omit the certificate of its signer.
    pub(crate) others: &'a [Certificate],
}

/// A verified timestamp.
#[derive(Debug, Clone)]
pub(crate) struct VerifiedTimestamp {
    /// The time, with an error of at most the accuracy.
    pub(crate) time: Timestamp,
    accuracy: SignedDuration,
    /// The nonce of the request, as bytes without leading zeros.
    pub(crate) nonce: Option<Vec<u8>>,
    /// The chain from the signer's certificate to a trust anchor. All were valid at the time.
    pub(crate) chain: Vec<Certificate>,
}

impl VerifiedTimestamp {
    /// Returns the earliest time within the accuracy.
    pub(crate) fn earliest(&self) -> Timestamp {
        self.time.saturating_sub(self.accuracy).unwrap_or(Timestamp::MIN)
    }

    /// Returns the latest time within the accuracy.
    pub(crate) fn latest(&self) -> Timestamp {
        self.time.saturating_add(self.accuracy).unwrap_or(Timestamp::MAX)
    }
}

/// Encodes a request for a timestamp of a message, which contains only the hash of the message. The response must
/// have the same nonce, and includes certificates if requested.
pub(crate) fn request(hash: Hash, message: &[u8], nonce: u64, certificates: bool) -> Result<Vec<u8>, der::Error> {
    // Some authorities require the NULL parameters.
    let algorithm = field(Tag::Sequence, &[hash.oid().to_der()?, ().to_der()?].concat())?;
    let imprint = [algorithm, field(Tag::OctetString, &hash.digest(message))?].concat();
    let mut parts = vec![1u8.to_der()?, field(Tag::Sequence, &imprint)?, nonce.to_der()?];
    if certificates {
        parts.push(true.to_der()?);
    }
    field(Tag::Sequence, &parts.concat())
}

/// Returns the token in the response of an authority, not verified.
pub(crate) fn token(answer: &[u8]) -> Result<&[u8], Refusal> {
    let read = || {
        let mut answer = Fields::of(bounded(answer)?, Tag::Sequence)?;
        let mut status = answer.fields(Tag::Sequence)?;
        let granted = status.decode::<u32>()?;
        // RFC 3161, 2.4.2: granted, or granted with changes.
        if granted > 1 {
            let mut said = String::new();
            if let Some(texts) = status.optional(Tag::Sequence)? {
                let text = Fields::within(texts)?.value(Tag::Utf8String)?;
                said = line(&String::from_utf8_lossy(text));
            }
            return Err(format!("the authority answers with status {granted} {said}").trim_end().into());
        }
        let token = answer.bytes()?;
        answer.finish()?;
        Ok(token)
    };
    read().map_err(refusal)
}

/// Verifies a token of a message by a trusted authority.
pub(crate) fn verify(token: &[u8], message: &[u8], authorities: Authorities<'_>) -> Result<VerifiedTimestamp, Refusal> {
    let checked = bounded(token).and_then(Token::read).and_then(|token| token.check(message, authorities));
    checked.map_err(refusal)
}

/// Verifies a timestamp of a message by an authority with a path to one of these roots, and returns its time. `bytes`
/// is a token, or the response with the token.
///
/// # Errors
///
/// [`Refusal::Timestamp`] with the reason.
pub fn verify_timestamp(bytes: &[u8], message: &[u8], roots: &[Certificate]) -> Result<Timestamp, Refusal> {
    let token = token(bytes).unwrap_or(bytes);
    Ok(verify(token, message, Authorities { roots, others: &[] })?.time)
}

/// Why a token is refused.
type TokenError = Box<dyn std::error::Error + Send + Sync>;

fn refusal(why: TokenError) -> Refusal {
    Refusal::Timestamp(match why.downcast_ref::<der::Error>() {
        Some(error) => format!("it is malformed: {error}"),
        None => why.to_string(),
    })
}

fn bounded(bytes: &[u8]) -> Result<&[u8], TokenError> {
    if bytes.len() as u64 <= MAX_TIMESTAMP_BYTES { Ok(bytes) } else { Err("it is too long".into()) }
}

/// A `SignedData` structure with one `SignerInfo`.
struct Token<'a> {
    /// The `TSTInfo` structure, unparsed.
    content: &'a [u8],
    certificates: Vec<Certificate>,
    /// The identifier of the signer's certificate.
    signer: Identifier<'a>,
    hash: Hash,
    /// The signed attributes, without the tag that they have in the token.
    attributes: &'a [u8],
    algorithm: Algorithm<'a>,
    signature: &'a [u8],
}

enum Identifier<'a> {
    /// Issuer and serial number.
    Issued(Name, &'a [u8]),
    /// Subject key identifier.
    Key(&'a [u8]),
}

impl<'a> Token<'a> {
    fn read(token: &'a [u8]) -> Result<Token<'a>, TokenError> {
        let mut outermost = Fields::of(token, Tag::Sequence)?;
        if outermost.decode::<ObjectIdentifier>()? != SIGNED_DATA {
            return Err("it is not signed data".into());
        }
        let mut explicit = outermost.fields(outer(0))?;
        outermost.finish()?;
        let mut data = explicit.fields(Tag::Sequence)?;
        explicit.finish()?;
        // RFC 5652, 5.1: version 3 is for content other than plain data.
        if data.decode::<u8>()? != 3 {
            return Err("it is signed data of another version".into());
        }
        let mut hashes = data.fields(Tag::Set)?;
        let mut listed = Vec::new();
        while !hashes.is_finished() {
            listed.push(Algorithm::read(&mut hashes)?.hash());
        }
        let mut encapsulated = data.fields(Tag::Sequence)?;
        if encapsulated.decode::<ObjectIdentifier>()? != TIMESTAMP_INFO {
            return Err("it is not about a time".into());
        }
        let mut explicit = encapsulated.fields(outer(0))?;
        encapsulated.finish()?;
        let content = explicit.value(Tag::OctetString)?;
        explicit.finish()?;
        let mut certificates = Vec::new();
        if let Some(found) = data.optional(outer(0))? {
            let mut found = Fields::within(found)?;
            while !found.is_finished() {
                if certificates.len() == MAX_TOKEN_CERTIFICATES {
                    return Err("it brings too many certificates".into());
                }
                certificates.push(Certificate::from_der(found.bytes()?)?);
            }
        }
        // Revocation lists in a token are ignored; the caller provides them.
        data.optional(outer(1))?;
        let mut signers = data.fields(Tag::Set)?;
        data.finish()?;
        let mut signer = signers.fields(Tag::Sequence)?;
        // RFC 3161, 2.4.2: one signature, that of the authority.
        signers.finish()?;
        let version = signer.decode::<u8>()?;
        let identifier = match version {
            1 => {
                let mut issued = signer.fields(Tag::Sequence)?;
                let (issuer, serial) = (issued.decode()?, issued.bytes()?);
                issued.finish()?;
                Identifier::Issued(issuer, serial)
            }
            3 => Identifier::Key(signer.value(inner(0))?),
            _ => return Err("its signer has another version".into()),
        };
        let hash = Algorithm::read(&mut signer)?.hash().ok_or("its hash is not supported")?;
        if !listed.contains(&Some(hash)) {
            return Err("its hash is not among those that it lists".into());
        }
        let attributes = signer.value(outer(0))?;
        let algorithm = Algorithm::read(&mut signer)?;
        let signature = signer.value(Tag::OctetString)?;
        signer.optional(outer(1))?;
        signer.finish()?;
        Ok(Token { content, certificates, signer: identifier, hash, attributes, algorithm, signature })
    }

    fn check(&self, message: &[u8], authorities: Authorities<'_>) -> Result<VerifiedTimestamp, TokenError> {
        let signer = self.signer(authorities.others)?;
        let key = signer.key()?;
        let algorithm = self.algorithm.verification(key.kind(), Some(self.hash));
        let algorithm = algorithm.ok_or("its signature algorithm is not supported")?;
        // RFC 5652, 5.4: the attributes are signed with the tag of a set.
        let signed = field(Tag::Set, self.attributes)?;
        if UnparsedPublicKey::new(algorithm, key.to_der()).verify(&signed, self.signature).is_err() {
            return Err("its signature is wrong".into());
        }
        let TimestampInfo { time, accuracy, nonce } = TimestampInfo::read(self.content, message)?;
        let intermediates: Vec<_> = self.certificates.iter().chain(authorities.others).collect();
        let path = path::find(&signer, authorities.roots, &intermediates, Purpose::TimeStamping, time)?;
        let chain = path.into_iter().cloned().collect();
        Ok(VerifiedTimestamp { time, accuracy, nonce, chain })
    }

    /// Checks the signed attributes and returns the certificate that they name.
    fn signer(&self, others: &[Certificate]) -> Result<Certificate, TokenError> {
        let mut attributes = Fields::within(self.attributes)?;
        let (mut kind, mut digest, mut named) = (None, None, None);
        while !attributes.is_finished() {
            let mut attribute = attributes.fields(Tag::Sequence)?;
            let oid: ObjectIdentifier = attribute.decode()?;
            let values = attribute.fields(Tag::Set)?;
            attribute.finish()?;
            let place = match oid {
                CONTENT_TYPE => &mut kind,
                MESSAGE_DIGEST => &mut digest,
                SIGNING_CERTIFICATE => &mut named,
                _ => continue,
            };
            if place.replace(values).is_some() {
                return Err("an attribute is there twice".into());
            }
        }
        let (Some(mut kind), Some(mut digest), Some(mut named)) = (kind, digest, named) else {
            return Err("it does not name its content, its hash or its certificate".into());
        };
        if kind.decode::<ObjectIdentifier>()? != TIMESTAMP_INFO {
            return Err("its signature is about something else".into());
        }
        kind.finish()?;
        if digest.value(Tag::OctetString)? != self.hash.digest(self.content) {
            return Err("its content is not what was signed".into());
        }
        digest.finish()?;
        // RFC 5035, 3: the first identifier is that of the signer; further ones and policies are hints.
        let mut named = named.fields(Tag::Sequence)?.fields(Tag::Sequence)?.fields(Tag::Sequence)?;
        let mut hash = Hash::Sha256;
        let mut print = named.optional(Tag::OctetString)?;
        if print.is_none() {
            hash = Algorithm::read(&mut named)?.hash().ok_or("its certificate is named by a hash that is not used")?;
            print = Some(named.value(Tag::OctetString)?);
        }
        let mut candidates = self.certificates.iter().chain(others);
        let found = candidates.find(|found| Some(&hash.digest(found.to_der())[..]) == print);
        let found = found.ok_or("the certificate of its signer is missing")?;
        let certificate = found.parsed().tbs_certificate();
        if let Some(issuer) = named.optional(Tag::Sequence)? {
            let mut issuer = Fields::within(issuer)?;
            let mut names = issuer.fields(Tag::Sequence)?;
            // A directory name (RFC 5280, 4.2.1.6).
            let name = names.fields(outer(4))?.decode::<Name>()?;
            names.finish()?;
            if name != *certificate.issuer() || issuer.bytes()? != certificate.serial_number().to_der()? {
                return Err("it names two certificates".into());
            }
        }
        named.finish()?;
        let same = match &self.signer {
            Identifier::Issued(issuer, serial) => {
                issuer == certificate.issuer() && *serial == certificate.serial_number().to_der()?
            }
            Identifier::Key(wanted) => {
                let key = found.extension::<SubjectKeyIdentifier>()?;
                key.is_some_and(|(_, key)| key.0.as_bytes() == *wanted)
            }
        };
        if same { Ok(found.clone()) } else { Err("its signer is not the owner of its certificate".into()) }
    }
}

/// The fields of `TSTInfo` that are used.
struct TimestampInfo {
    time: Timestamp,
    accuracy: SignedDuration,
    nonce: Option<Vec<u8>>,
}

impl TimestampInfo {
    fn read(content: &[u8], message: &[u8]) -> Result<TimestampInfo, TokenError> {
        let mut info = Fields::of(content, Tag::Sequence)?;
        if info.decode::<u8>()? != 1 {
            return Err("it is of another version".into());
        }
        let policy: ObjectIdentifier = info.decode()?;
        let mut imprint = info.fields(Tag::Sequence)?;
        let hash = Algorithm::read(&mut imprint)?.hash().ok_or("its message hash is not supported")?;
        if imprint.value(Tag::OctetString)? != hash.digest(message) {
            return Err("it is of something else".into());
        }
        imprint.finish()?;
        info.value(Tag::Integer)?;
        let time = time(info.value(Tag::GeneralizedTime)?).ok_or("its time is malformed")?;
        let accuracy = match info.optional(Tag::Sequence)? {
            Some(accuracy) => accuracy_of(Fields::within(accuracy)?)?,
            None => SignedDuration::ZERO,
        };
        // ETSI EN 319 421: its baseline policy requires an accuracy of one second or better.
        let accuracy = match accuracy.is_zero() && policy == BASELINE_POLICY {
            true => SignedDuration::from_secs(1),
            false => accuracy,
        };
        // The ordering of timestamps is not used.
        info.optional(Tag::Boolean)?;
        let nonce = info.optional(Tag::Integer)?.map(trimmed);
        info.optional(outer(0))?;
        if let Some(extensions) = info.optional(outer(1))? {
            let mut extensions = Fields::within(extensions)?;
            while !extensions.is_finished() {
                let extension: Extension = extensions.decode()?;
                if extension.critical {
                    return Err(format!("its critical extension {} is not understood", extension.extn_id).into());
                }
            }
        }
        info.finish()?;
        Ok(TimestampInfo { time, accuracy, nonce })
    }
}

/// Returns a number without leading zeros.
fn trimmed(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}

/// Returns whether a timestamp has this nonce.
pub(crate) fn is_answer(stamp: &VerifiedTimestamp, nonce: u64) -> bool {
    stamp.nonce.as_deref() == Some(&trimmed(&nonce.to_be_bytes()))
}

/// Parses a time such as `20260601120000.25Z`; RFC 3161, 2.4.2, allows fractions.
fn time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() != 14 || !is_number(whole) || !(1..=9).contains(&fraction.len()) || !is_number(fraction) {
        return None;
    }
    let part = |from: usize, to: usize| whole.get(from..to)?.parse::<i8>().ok();
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    let year = whole.get(..4)?.parse().ok()?;
    let time =
        civil::DateTime::new(year, part(4, 6)?, part(6, 8)?, part(8, 10)?, part(10, 12)?, part(12, 14)?, nanoseconds);
    Some(time.ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn accuracy_of(mut fields: Fields<'_>) -> Result<SignedDuration, TokenError> {
    let seconds = number(fields.optional(Tag::Integer)?)?;
    let (millis, micros) = (number(fields.optional(inner(0))?)?, number(fields.optional(inner(1))?)?);
    fields.finish()?;
    if millis > 999 || micros > 999 {
        return Err("its accuracy is malformed".into());
    }
    Ok(SignedDuration::from_secs(seconds) + SignedDuration::from_micros(millis * 1000 + micros))
}

/// Returns a non-negative number of at most 32 bits; 0 if it is absent.
fn number(value: Option<&[u8]>) -> Result<i64, TokenError> {
    let value = value.unwrap_or_default();
    let bytes = trimmed(value);
    if value.first().is_some_and(|first| *first > 127) || bytes.len() > 4 {
        return Err("its accuracy is malformed".into());
    }
    Ok(bytes.iter().fold(0, |number, byte| number << 8 | i64::from(*byte)))
}

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const TIMESTAMP_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SIGNING_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");
const BASELINE_POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("0.4.0.2023.1.1");

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
