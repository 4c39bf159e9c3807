//! The way from a certificate of a signer to an authority that is trusted.

use jiff::Timestamp;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};

use crate::notation::Certificate;
use crate::refusal::Refusal;
use crate::sigstore::root::Authority;

/// Checks that one of the authorities issued a certificate to sign code with, and that everything was valid at a time.
/// Returns the certificate that issued it.
pub(crate) fn issuer<'a>(
    leaf: &Certificate,
    authorities: &'a [Authority],
    time: Timestamp,
) -> Result<&'a Certificate, Refusal> {
    check_leaf(leaf).map_err(Refusal::Certificates)?;
    let mut why = "nobody who is trusted issued it".to_owned();
    for authority in authorities {
        // One of another name has nothing to do with it.
        let Some(issuer) = authority.chain.first().filter(|issuer| is_named_by(leaf, issuer)) else { continue };
        match check(leaf, authority, time) {
            Ok(()) => return Ok(issuer),
            Err(problem) => why = problem,
        }
    }
    Err(Refusal::Certificates(why))
}

fn is_named_by(leaf: &Certificate, issuer: &Certificate) -> bool {
    leaf.parsed().tbs_certificate().issuer() == issuer.parsed().tbs_certificate().subject()
}

fn check(leaf: &Certificate, authority: &Authority, time: Timestamp) -> Result<(), String> {
    let [issuer, ..] = &authority.chain[..] else { return Err("the authority has no certificates".to_owned()) };
    // The rest of the chain was checked when it was read.
    leaf.is_issued_by(issuer)?;
    for (position, certificate) in authority.chain.iter().enumerate() {
        certificate.check_issuer(position)?;
        check_extensions(certificate)?;
        check_usages(certificate, position + 1 == authority.chain.len())?;
    }
    if !authority.is_valid_at(time) {
        return Err(format!("its authority is not trusted for {time}"));
    }
    match std::iter::once(leaf).chain(&authority.chain).find(|certificate| !certificate.is_valid_at(time)) {
        Some(invalid) => Err(format!("that of `{}` was not valid at {time}", invalid.subject())),
        None => Ok(()),
    }
}

/// Whether it is to sign code with, and names its owner where it is read.
fn check_leaf(leaf: &Certificate) -> Result<(), String> {
    let refuse = |why: &str| Err(why.to_owned());
    if leaf.extension::<BasicConstraints>()?.is_some_and(|(_, constraints)| constraints.ca) {
        return refuse("that of the signer is an authority");
    }
    match leaf.extension::<KeyUsage>()? {
        Some((_, usage)) if usage.digital_signature() && !usage.key_cert_sign() => {}
        _ => return refuse("that of the signer is not to sign with"),
    }
    match leaf.extension::<ExtendedKeyUsage>()? {
        Some((_, usages)) if usages.0.contains(&CODE_SIGNING) => {}
        _ => return refuse("that of the signer is not to sign code with"),
    }
    check_extensions(leaf)
}

/// Whether an authority may issue what is to sign code with; a root says nothing of it, or anything.
fn check_usages(authority: &Certificate, is_root: bool) -> Result<(), String> {
    match authority.extension::<ExtendedKeyUsage>()? {
        Some((_, usages)) if !is_root && !usages.0.contains(&CODE_SIGNING) => {
            Err(format!("{} may not issue certificates to sign code with", authority.subject()))
        }
        _ => Ok(()),
    }
}

/// Whether there is nothing in it that has to be understood and is not (RFC 5280, 4.2).
fn check_extensions(certificate: &Certificate) -> Result<(), String> {
    let extensions = certificate.parsed().tbs_certificate().extensions().into_iter().flatten();
    let mut unknown = extensions.filter(|extension| extension.critical && !KNOWN.contains(&extension.extn_id));
    match unknown.next() {
        Some(found) => Err(format!("the critical extension {} is not understood", found.extn_id)),
        None => Ok(()),
    }
}

const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");
/// The extensions that are looked at: basic constraints, key usage, extended key usage, names of the owner.
const KNOWN: [ObjectIdentifier; 4] = [
    ObjectIdentifier::new_unwrap("2.5.29.19"),
    ObjectIdentifier::new_unwrap("2.5.29.15"),
    ObjectIdentifier::new_unwrap("2.5.29.37"),
    ObjectIdentifier::new_unwrap("2.5.29.17"),
];

#[cfg(test)]
mod tests;
