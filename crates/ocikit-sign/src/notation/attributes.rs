//! The parts that JWS and COSE envelopes share: signed attributes, certificates and signatures.

use coset::iana::Algorithm;
use jiff::Timestamp;
use serde_json::{Map, Value};
use x509_cert::der::asn1::{AnyRef, UintRef};
use x509_cert::der::{Decode, Encode, Reader, SliceReader, Tag};

use crate::error::{Error, Result};
use crate::key::{PublicKey, Scheme};
use crate::notation::chain::Chain;
use crate::pki::Certificate;
use crate::refusal::{Refusal, malformed};
use crate::timestamp::VerifiedTimestamp;

/// The media type of the payload.
pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.cncf.notary.payload.v1+json";
pub(crate) const SCHEME: &str = "io.cncf.notary.signingScheme";
pub(crate) const SIGNING_TIME: &str = "io.cncf.notary.signingTime";
pub(crate) const AUTHENTIC_TIME: &str = "io.cncf.notary.authenticSigningTime";
pub(crate) const EXPIRY: &str = "io.cncf.notary.expiry";
pub(crate) const TIMESTAMP: &str = "io.cncf.notary.timestampSignature";
pub(crate) const PLUGIN: &str = "io.cncf.notary.verificationPlugin";
const PLUGIN_VERSION: &str = "io.cncf.notary.verificationPluginMinVersion";
const PLUGIN_ATTRIBUTES: [&str; 2] = [PLUGIN, PLUGIN_VERSION];
/// The prefix of annotation keys and attribute names that the specification reserves.
pub(crate) const RESERVED: &str = "io.cncf.notary";

/// Where the signing time comes from. Notary Project, "Signing Scheme".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SigningScheme {
    /// The signer claims it. The claim is not trusted; a timestamp proves the time.
    #[default]
    X509,
    /// A trusted service that signs for others asserts it.
    SigningAuthority,
}

impl SigningScheme {
    const ALL: [SigningScheme; 2] = [SigningScheme::X509, SigningScheme::SigningAuthority];

    /// Returns the name in envelopes.
    pub fn as_str(self) -> &'static str {
        match self {
            SigningScheme::X509 => "notary.x509",
            SigningScheme::SigningAuthority => "notary.x509.signingAuthority",
        }
    }

    /// Returns the type of trust store that holds the signer's certificates.
    pub(crate) fn store(self) -> &'static str {
        match self {
            SigningScheme::X509 => "ca",
            SigningScheme::SigningAuthority => "signingAuthority",
        }
    }

    /// Returns the attribute with the time.
    pub(crate) fn time(self) -> &'static str {
        match self {
            SigningScheme::X509 => SIGNING_TIME,
            SigningScheme::SigningAuthority => AUTHENTIC_TIME,
        }
    }
}

/// What the critical attributes of an envelope ask a verification plugin to check.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PluginRequest {
    /// The name of the plugin.
    pub(crate) plugin: String,
    /// The minimum version of the plugin.
    pub(crate) version: Option<String>,
    /// The critical attributes that the plugin must process.
    pub(crate) others: Map<String, Value>,
}

/// An envelope whose signature is verified with the key of its chain. The chain follows all rules except those on
/// time and trust.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) payload: Vec<u8>,
    pub(crate) chain: Chain,
    pub(crate) said: SignedAttributes,
    /// The signature as it is encoded in the envelope, which timestamps cover.
    pub(crate) signature: Vec<u8>,
    /// The timestamp token, not verified.
    pub(crate) timestamp: Option<Vec<u8>>,
    /// The part of the envelope that only a plugin can check.
    pub(crate) extended: Option<PluginRequest>,
}

/// The signed attributes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignedAttributes {
    pub(crate) scheme: SigningScheme,
    pub(crate) time: Timestamp,
    pub(crate) expiry: Option<Timestamp>,
}

/// The attributes that JWS and COSE envelopes share.
pub(crate) struct Attributes<'a> {
    /// The names of critical attributes, as listed.
    pub(crate) critical: Vec<String>,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) scheme: Option<&'a str>,
    pub(crate) time: Option<Timestamp>,
    pub(crate) authentic_time: Option<Timestamp>,
    pub(crate) expiry: Option<Timestamp>,
    /// All other attributes whose values JSON can represent.
    pub(crate) others: Map<String, Value>,
}

impl Attributes<'_> {
    /// Checks the attributes. Returns the signed attributes, and what a plugin must check.
    pub(crate) fn check(&self) -> Result<(SignedAttributes, Option<PluginRequest>), Refusal> {
        for (position, name) in self.critical.iter().enumerate() {
            match name.as_str() {
                SCHEME => {}
                EXPIRY if self.expiry.is_some() => {}
                AUTHENTIC_TIME if self.authentic_time.is_some() => {}
                EXPIRY | AUTHENTIC_TIME => return Err(malformed("a time is critical and missing")),
                other if self.others.contains_key(other) && self.others.contains_key(PLUGIN) => {}
                other => return Err(Refusal::NotUnderstood(format!("the critical attribute {other}"))),
            }
            if self.critical[..position].contains(name) {
                return Err(malformed("an attribute is listed as critical twice"));
            }
        }
        if self.content_type != Some(PAYLOAD_TYPE) {
            return Err(malformed("its payload is of another type"));
        }
        let scheme = self.scheme.ok_or_else(|| malformed("it has no signing scheme"))?;
        let known = SigningScheme::ALL.into_iter().find(|known| known.as_str() == scheme);
        let scheme = known.ok_or_else(|| Refusal::NotUnderstood(format!("the signing scheme {scheme}")))?;
        let lists = |name: &str| self.critical.iter().any(|listed| listed == name);
        let is_listed = |name: &str, time: Option<Timestamp>| time.is_some() == lists(name);
        if !lists(SCHEME) || !is_listed(EXPIRY, self.expiry) || !is_listed(AUTHENTIC_TIME, self.authentic_time) {
            return Err(malformed("a required attribute is not critical"));
        }
        let time = match (scheme, self.time, self.authentic_time) {
            (SigningScheme::X509, Some(time), None) | (SigningScheme::SigningAuthority, None, Some(time)) => time,
            _ => return Err(malformed("it does not have the signing time of its signing scheme")),
        };
        if self.expiry.is_some_and(|expiry| expiry <= time) {
            return Err(malformed("it expired before it was signed"));
        }
        Ok((SignedAttributes { scheme, time, expiry: self.expiry }, self.extended()?))
    }

    /// Returns what a plugin must check. Unknown attributes in the reserved namespace are refused even if they are
    /// not critical: a plugin must not be skipped because its name was not marked as critical.
    fn extended(&self) -> Result<Option<PluginRequest>, Refusal> {
        let is_critical = |name: &str| self.critical.iter().any(|listed| listed == name);
        let is_understood =
            |name: &str| !name.starts_with(RESERVED) || PLUGIN_ATTRIBUTES.contains(&name) && is_critical(name);
        if let Some(name) = self.others.keys().find(|name| !is_understood(name)) {
            return Err(Refusal::NotUnderstood(format!("the attribute {name}")));
        }
        let text = |name: &str| match self.others.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.clone())),
            Some(_) => Err(malformed(format!("the attribute {name} is no text"))),
        };
        let Some(plugin) = text(PLUGIN)? else {
            return match text(PLUGIN_VERSION)? {
                Some(_) => Err(malformed("it names a version of no plugin")),
                None => Ok(None),
            };
        };
        let others = self.others.iter();
        let others = others.filter(|(name, _)| is_critical(name) && !PLUGIN_ATTRIBUTES.contains(&name.as_str()));
        let others = others.map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Some(PluginRequest { plugin, version: text(PLUGIN_VERSION)?, others }))
    }
}

/// Returns the chain in an envelope and the signature scheme of its signer.
pub(crate) fn chain(ders: impl Iterator<Item = Vec<u8>>) -> Result<(Chain, Scheme), Refusal> {
    let refuse = |error: Error| Refusal::Certificates(error.to_string());
    // One more than a chain may have, so that a longer chain is refused.
    let certificates = ders.take(17).map(|der| Certificate::from_der(&der)).collect::<Result<_>>();
    let chain = Chain::new(certificates.map_err(refuse)?).map_err(refuse)?;
    let scheme = chain.scheme().ok_or_else(|| Refusal::Certificates("its key is not supported".to_owned()))?;
    Ok((chain, scheme))
}

/// Checks that every certificate of a chain was valid at a timestamp, at both ends of its accuracy.
pub(crate) fn within(stamp: &VerifiedTimestamp, chain: &Chain) -> Result<(), Refusal> {
    let invalid = chain.invalid_at(stamp.earliest()).or_else(|| chain.invalid_at(stamp.latest()));
    match invalid {
        Some(invalid) => Err(Refusal::Timestamp(format!("{} may not be valid at {}", invalid.subject(), stamp.time))),
        None => Ok(()),
    }
}

/// Converts an ECDSA signature from ASN.1 to the encoding of JOSE and COSE: two numbers with the length of the curve.
/// Other signatures are returned unchanged.
pub(crate) fn to_fixed(scheme: Scheme, signature: Vec<u8>) -> Result<Vec<u8>> {
    let Some(length) = fixed_length(scheme) else { return Ok(signature) };
    let failed = || Error::Signer("the signature is not two numbers".to_owned());
    let outer = AnyRef::from_der(&signature).map_err(|_| failed())?;
    let mut reader = SliceReader::new(outer.value()).map_err(|_| failed())?;
    let mut number = || reader.decode::<UintRef<'_>>().map_err(|_| failed());
    let numbers = [number()?, number()?];
    let mut fixed = vec![0; 2 * length];
    for (number, place) in numbers.iter().zip(fixed.chunks_mut(length)) {
        let bytes = number.as_bytes();
        let start = length.checked_sub(bytes.len()).ok_or_else(failed)?;
        place[start..].copy_from_slice(bytes);
    }
    Ok(fixed)
}

/// Verifies a signature in the encoding of JOSE and COSE.
pub(crate) fn verifies(key: &PublicKey, scheme: Scheme, message: &[u8], signature: &[u8]) -> bool {
    let Some(length) = fixed_length(scheme) else { return key.verifies(scheme, message, signature) };
    if signature.len() != 2 * length {
        return false;
    }
    let (r, s) = signature.split_at(length);
    let (Ok(r), Ok(s)) = (UintRef::new(r), UintRef::new(s)) else { return false };
    let (Ok(r), Ok(s)) = (r.to_der(), s.to_der()) else { return false };
    let numbers = [r, s].concat();
    let der = AnyRef::new(Tag::Sequence, &numbers).and_then(|sequence| sequence.to_der());
    der.is_ok_and(|der| key.verifies(scheme, message, &der))
}

/// The signature schemes with their names in COSE and in JWS.
const ALGORITHMS: [(Scheme, Algorithm, &str); 6] = [
    (Scheme::EcdsaP256Sha256, Algorithm::ES256, "ES256"),
    (Scheme::EcdsaP384Sha384, Algorithm::ES384, "ES384"),
    (Scheme::EcdsaP521Sha512, Algorithm::ES512, "ES512"),
    (Scheme::RsaPssSha256, Algorithm::PS256, "PS256"),
    (Scheme::RsaPssSha384, Algorithm::PS384, "PS384"),
    (Scheme::RsaPssSha512, Algorithm::PS512, "PS512"),
];

/// Returns the name of a signature scheme in COSE and in JWS.
pub(crate) fn algorithm(scheme: Scheme) -> Option<(Algorithm, &'static str)> {
    ALGORITHMS.iter().find(|(known, ..)| *known == scheme).map(|(_, cose, jws)| (*cose, *jws))
}

fn fixed_length(scheme: Scheme) -> Option<usize> {
    match scheme {
        Scheme::EcdsaP256Sha256 => Some(32),
        Scheme::EcdsaP384Sha384 => Some(48),
        Scheme::EcdsaP521Sha512 => Some(66),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
