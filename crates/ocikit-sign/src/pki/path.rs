//! Certification paths (RFC 5280, 6): from a certificate to a trusted one, for a purpose, at a time.

use jiff::Timestamp;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage};

use crate::pki::certificate::Certificate;
use crate::pki::names;
use crate::pki::violation::{Rule, Violation};

/// The purpose of the certificate at the beginning of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Code signing, as certified by Fulcio.
    CodeSigning,
    /// Timestamps (RFC 3161, 2.3).
    TimeStamping,
}

/// The maximum number of certificates between the ends of a path.
const MAX_INTERMEDIATES: usize = 16;
/// The maximum number of signatures that are checked per path. Many certificates with the same name and key can form
/// many paths.
const MAX_SIGNATURES: usize = 100;

/// Finds a path from a certificate to a trusted one and checks every rule on it: those on each certificate, validity,
/// path lengths, usages, name constraints. Trusted certificates follow the same rules as the others.
///
/// The path begins with `leaf`. It is `leaf` alone if `leaf` itself is trusted, which is possible for timestamps
/// only.
///
/// # Errors
///
/// The last rule that a candidate certificate violated, or [`Rule::NoPath`].
pub(crate) fn find<'a>(
    leaf: &'a Certificate,
    trusted: &'a [Certificate],
    intermediates: &[&'a Certificate],
    purpose: Purpose,
    time: Timestamp,
) -> Result<Vec<&'a Certificate>, Violation> {
    purpose.check_leaf(leaf)?;
    leaf.check_valid_at(time)?;
    if purpose == Purpose::TimeStamping && trusted.contains(leaf) {
        return Ok(vec![leaf]);
    }
    let mut search = Search { trusted, intermediates, purpose, time, signatures: 0, problem: None };
    let mut path = vec![leaf];
    if search.extend(&mut path) { Ok(path) } else { Err(search.problem.unwrap_or_else(|| leaf.violates(Rule::NoPath))) }
}

struct Search<'a, 'b> {
    trusted: &'a [Certificate],
    intermediates: &'b [&'a Certificate],
    purpose: Purpose,
    time: Timestamp,
    /// The number of signatures checked so far.
    signatures: usize,
    /// The last rule that was violated.
    problem: Option<Violation>,
}

impl<'a> Search<'a, '_> {
    /// Extends a path that ends with an untrusted certificate to a trusted one. Returns whether that succeeded.
    fn extend(&mut self, path: &mut Vec<&'a Certificate>) -> bool {
        for root in self.trusted {
            if self.take(root, path) {
                match names::check(path) {
                    Ok(()) => return true,
                    Err(problem) => self.problem = Some(problem),
                }
                path.pop();
            }
        }
        if path.len() > MAX_INTERMEDIATES {
            return false;
        }
        for position in 0..self.intermediates.len() {
            let candidate = self.intermediates[position];
            if !path.contains(&candidate) && self.take(candidate, path) {
                if self.extend(path) {
                    return true;
                }
                path.pop();
            }
        }
        false
    }

    /// Adds a certificate to the path if it issued the last one and may have done so.
    fn take(&mut self, issuer: &'a Certificate, path: &mut Vec<&'a Certificate>) -> bool {
        let Some(last) = path.last().copied().filter(|last| last.names_issuer(issuer)) else { return false };
        // RFC 5280, 6.1.4 (l): self-issued certificates do not count for path lengths.
        let below = path.iter().skip(1).filter(|certificate| !certificate.is_self_issued()).count();
        let checked = self.check(issuer, below).and_then(|()| {
            if self.signatures == MAX_SIGNATURES {
                return Err(last.violates(Rule::TooManySignatures(MAX_SIGNATURES)));
            }
            self.signatures += 1;
            last.check_issued_by(issuer)
        });
        match checked {
            Ok(()) => path.push(issuer),
            Err(problem) => self.problem = Some(problem),
        }
        path.last().is_some_and(|end| *end == issuer)
    }

    fn check(&self, issuer: &Certificate, below: usize) -> Result<(), Violation> {
        issuer.check_valid_at(self.time)?;
        issuer.check_authority(below)?;
        match self.purpose {
            Purpose::CodeSigning => {
                issuer.check_constraints_critical()?;
                issuer.check_may_issue_for(CODE_SIGNING, "code signing")
            }
            // Roots created with OpenSSL's defaults have basic constraints that are not critical, and notation
            // accepts them.
            Purpose::TimeStamping => issuer.check_may_issue_for(TIME_STAMPING, "timestamping"),
        }
    }
}

impl Purpose {
    fn check_leaf(self, leaf: &Certificate) -> Result<(), Violation> {
        leaf.check_end_entity()?;
        let usage = leaf.extension::<KeyUsage>()?.ok_or_else(|| leaf.violates(Rule::NoKeyUsage))?.1;
        if !usage.digital_signature() {
            return Err(leaf.violates(Rule::KeyUsageLacks("digitalSignature")));
        }
        if usage.key_cert_sign() || self == Purpose::TimeStamping && usage.crl_sign() {
            return Err(leaf.violates(Rule::KeyUsageExcess));
        }
        let (critical, usages) =
            leaf.extension::<ExtendedKeyUsage>()?.ok_or_else(|| leaf.violates(Rule::NoExtendedKeyUsage))?;
        match self {
            Purpose::CodeSigning if !usages.0.contains(&CODE_SIGNING) => {
                Err(leaf.violates(Rule::ExtendedKeyUsageLacks("code signing")))
            }
            Purpose::TimeStamping if !usages.0.contains(&TIME_STAMPING) => {
                Err(leaf.violates(Rule::ExtendedKeyUsageLacks("timestamping")))
            }
            Purpose::TimeStamping if usages.0.len() > 1 => {
                Err(leaf.violates(Rule::ExtendedKeyUsageExcess("timestamping")))
            }
            Purpose::TimeStamping if !critical => Err(leaf.violates(Rule::ExtendedKeyUsageNotCritical)),
            _ => Ok(()),
        }
    }
}

pub(crate) const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");
const TIME_STAMPING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8");
