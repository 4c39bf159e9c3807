//! Signed certificate timestamps (SCTs) embedded in certificates: RFC 6962, 3.2 and 3.3.

use jiff::Timestamp;
use x509_cert::der::asn1::{ObjectIdentifier, OctetStringRef};
use x509_cert::der::{Decode, Error, Tag};

use crate::der::{Fields, field, outer};
use crate::key::{KeyKind, Scheme};
use crate::pki::Certificate;
use crate::refusal::{Refusal, certificates};
use crate::sigstore::root::Log;

/// Checks that a certificate has a valid SCT of a trusted log.
///
/// # Errors
///
/// The reason: that of the last SCT that was checked, if any was by a known log.
pub(crate) fn verify(leaf: &Certificate, issuer: &Certificate, logs: &[Log]) -> Result<(), Refusal> {
    let extensions = leaf.parsed().tbs_certificate().extensions().into_iter().flatten();
    let mut lists = extensions.filter(|extension| extension.extn_id == SCTS);
    let (Some(list), None) = (lists.next(), lists.next()) else {
        return Err(certificates("it has no signed certificate timestamp"));
    };
    let malformed = || certificates("its signed certificate timestamps are malformed");
    let list = <&OctetStringRef>::from_der(list.extn_value.as_bytes()).map_err(|_| malformed())?;
    let scts = parse_scts(list.as_bytes()).ok_or_else(malformed)?;
    let signed = without_scts(leaf).map_err(|_| malformed())?;
    let issuer = issuer.key()?;
    let mut why = certificates("it has no signed certificate timestamp of a trusted log");
    for sct in scts {
        for log in logs.iter().filter(|log| log.id == sct.log) {
            match sct.check(log, issuer.fingerprint().as_bytes(), &signed) {
                Ok(()) => return Ok(()),
                Err(problem) => why = problem,
            }
        }
    }
    Err(why)
}

/// A signed certificate timestamp.
struct Sct<'a> {
    log: &'a [u8],
    /// Milliseconds since 1970.
    time: u64,
    extensions: &'a [u8],
    /// Hash and signature algorithm, as numbered by TLS 1.2.
    algorithm: [u8; 2],
    signature: &'a [u8],
}

impl Sct<'_> {
    fn check(&self, log: &Log, issuer: &[u8], certificate: &[u8]) -> Result<(), Refusal> {
        let time = i64::try_from(self.time).ok().and_then(|time| Timestamp::from_millisecond(time).ok());
        if !time.is_some_and(|time| log.valid.holds(time)) {
            return Err(certificates("its signed certificate timestamp is of a time at which the log was not trusted"));
        }
        let scheme = match (self.algorithm, log.key.kind()) {
            ([4, 3], KeyKind::P256) => Scheme::EcdsaP256Sha256,
            ([4, 1], KeyKind::Rsa { .. }) => Scheme::RsaPkcs1Sha256,
            _ => {
                return Err(certificates(
                    "the signature algorithm of its signed certificate timestamp is not supported",
                ));
            }
        };
        // Version 1, type `certificate_timestamp`; further below, entry type `precert_entry`.
        let mut signed = vec![0, 0];
        signed.extend(self.time.to_be_bytes());
        signed.extend([0, 1]);
        signed.extend(issuer);
        // A certificate that was parsed is shorter than 2^24 bytes.
        signed.extend(&(certificate.len() as u32).to_be_bytes()[1..]);
        signed.extend(certificate);
        signed.extend((self.extensions.len() as u16).to_be_bytes());
        signed.extend(self.extensions);
        if log.key.verifies(scheme, &signed, self.signature) {
            Ok(())
        } else {
            Err(certificates("the signature of its signed certificate timestamp is wrong"))
        }
    }
}

/// Parses a list of SCTs and returns those of version 1. A truncated SCT or trailing bytes make the list malformed.
fn parse_scts(list: &[u8]) -> Option<Vec<Sct<'_>>> {
    let (mut list, rest) = vector(list)?;
    let mut found = Vec::new();
    while !list.is_empty() {
        let (sct, others) = vector(list)?;
        list = others;
        let (version, sct) = sct.split_first()?;
        if *version != 0 {
            continue;
        }
        let (log, sct) = sct.split_at_checked(32)?;
        let (time, sct) = sct.split_first_chunk::<8>()?;
        let (extensions, sct) = vector(sct)?;
        let (algorithm, sct) = sct.split_first_chunk::<2>()?;
        let (signature, after) = vector(sct)?;
        if !after.is_empty() || found.len() == MAX_SCTS {
            return None;
        }
        let (time, algorithm) = (u64::from_be_bytes(*time), *algorithm);
        found.push(Sct { log, time, extensions, algorithm, signature });
    }
    rest.is_empty().then_some(found)
}

/// Splits off a vector with a length of two bytes. Returns its content and the rest.
fn vector(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Returns the signed part of a certificate without the SCT list, as the log signed it.
fn without_scts(certificate: &Certificate) -> Result<Vec<u8>, Error> {
    let extensions = outer(3);
    let mut certificate = Fields::of(certificate.signed_bytes().unwrap_or_default(), Tag::Sequence)?;
    let mut content = Vec::new();
    while !certificate.is_finished() {
        let Some(explicit) = certificate.optional(extensions)? else {
            content.extend_from_slice(certificate.bytes()?);
            continue;
        };
        let mut list = Fields::within(explicit)?.fields(Tag::Sequence)?;
        let mut kept = Vec::new();
        while !list.is_finished() {
            let extension = list.bytes()?;
            if Fields::of(extension, Tag::Sequence)?.decode::<ObjectIdentifier>()? != SCTS {
                kept.extend_from_slice(extension);
            }
        }
        content.extend(field(extensions, &field(Tag::Sequence, &kept)?)?);
    }
    field(Tag::Sequence, &content)
}

const SCTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.11129.2.4.2");
const MAX_SCTS: usize = 16;
