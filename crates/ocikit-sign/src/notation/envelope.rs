use jiff::Timestamp;
use ocikit_spec::{Annotations, Descriptor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use x509_cert::der::asn1::{AnyRef, UintRef};
use x509_cert::der::{Decode, Encode, Reader, SliceReader, Tag};

use crate::algorithm::Hash;
use crate::error::{Error, Result};
use crate::key::{PublicKey, Scheme};
use crate::notation::{Chain, NotationPlugin, cose, jws};
use crate::refusal::Refusal;
use crate::signer::{Signer, checked};
use crate::timestamp::{TimestampAuthority, VerifiedTimestamp};

/// The media type of the payload.
pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.cncf.notary.payload.v1+json";
pub(crate) const SCHEME: &str = "io.cncf.notary.signingScheme";
pub(crate) const SIGNING_TIME: &str = "io.cncf.notary.signingTime";
pub(crate) const AUTHENTIC_TIME: &str = "io.cncf.notary.authenticSigningTime";
pub(crate) const EXPIRY: &str = "io.cncf.notary.expiry";
pub(crate) const TIMESTAMP: &str = "io.cncf.notary.timestampSignature";
const PLUGIN: &str = "io.cncf.notary.verificationPlugin";
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

/// The two envelope formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EnvelopeFormat {
    Jws,
    Cose,
}

impl EnvelopeFormat {
    const ALL: [EnvelopeFormat; 2] = [EnvelopeFormat::Jws, EnvelopeFormat::Cose];

    /// Returns the media type of envelopes.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            EnvelopeFormat::Jws => "application/jose+json",
            EnvelopeFormat::Cose => "application/cose",
        }
    }

    pub(crate) fn of_media_type(media_type: &str) -> Option<EnvelopeFormat> {
        EnvelopeFormat::ALL.into_iter().find(|format| format.media_type() == media_type)
    }

    /// Returns the format of an envelope, which [`open`] then checks: JWS envelopes are JSON.
    pub(crate) fn of_bytes(envelope: &[u8]) -> EnvelopeFormat {
        match envelope.trim_ascii_start().first() {
            Some(b'{') => EnvelopeFormat::Jws,
            _ => EnvelopeFormat::Cose,
        }
    }
}

/// What signs an envelope.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EnvelopeSigner<'a> {
    /// A key and its certificate chain.
    Key { signer: &'a dyn Signer, chain: &'a Chain },
    /// A plugin, which has both.
    Plugin(&'a NotationPlugin),
}

impl EnvelopeSigner<'_> {
    /// Returns the signature scheme. Plugins that create whole envelopes do not get here.
    pub(crate) fn scheme(&self) -> Result<Scheme> {
        let scheme = match self {
            EnvelopeSigner::Key { chain, .. } => chain.scheme(),
            EnvelopeSigner::Plugin(plugin) => plugin.scheme(),
        };
        scheme.ok_or_else(|| Error::Certificates("the key is not supported".to_owned()))
    }
}

/// Options for Notary Project envelopes.
#[derive(Debug, Clone)]
pub struct NotationOptions {
    /// The certificate chain of the signer; ignored for plugins, which have their own.
    pub chain: Option<Chain>,
    /// The expiry time of the signature.
    pub expiry: Option<Timestamp>,
    /// Additional metadata to sign.
    pub metadata: Annotations,
    /// Where the signing time comes from.
    pub scheme: SigningScheme,
    /// A timestamp authority. It is requested for each signature, and the timestamp is verified and stored with the
    /// signature.
    pub authority: Option<TimestampAuthority>,
}

/// The content of an envelope in addition to the descriptor.
#[derive(Debug, Clone)]
pub(crate) struct Options<'a> {
    pub(crate) by: EnvelopeSigner<'a>,
    pub(crate) time: Timestamp,
    pub(crate) expiry: Option<Timestamp>,
    pub(crate) metadata: &'a Annotations,
    pub(crate) scheme: SigningScheme,
    /// The timestamp authority that proves the signing time.
    pub(crate) authority: Option<&'a TimestampAuthority>,
}

impl Options<'_> {
    /// Returns the names of the critical attributes.
    pub(crate) fn critical(&self) -> Vec<String> {
        let time = (self.scheme == SigningScheme::SigningAuthority).then_some(AUTHENTIC_TIME);
        let all = [Some(SCHEME), time, self.expiry.map(|_| EXPIRY)];
        all.into_iter().flatten().map(str::to_owned).collect()
    }

    /// Signs a message. Returns the signature in the encoding of JOSE and COSE, the chain and the timestamp, all
    /// checked as verification checks them.
    pub(crate) async fn seal(&self, scheme: Scheme, message: &[u8]) -> Result<Sealed> {
        let (signature, chain) = match self.by {
            EnvelopeSigner::Key { signer, chain } => {
                (to_fixed(scheme, checked(signer, scheme, message).await?)?, chain.clone())
            }
            EnvelopeSigner::Plugin(plugin) => plugin.sign(scheme, message).await?,
        };
        self.check(&chain)?;
        let Some(authority) = self.authority else { return Ok(Sealed { signature, chain, timestamp: None }) };
        let hash = hash(scheme).ok_or_else(|| Error::Certificates("the key is not supported".to_owned()))?;
        let (token, stamp) = authority.stamp(hash, &signature).await?;
        within(&stamp, &chain).map_err(|why| Error::Unsupported(why.to_string()))?;
        Ok(Sealed { signature, chain, timestamp: Some(token) })
    }

    fn check(&self, chain: &Chain) -> Result<()> {
        match chain.invalid_at(self.time) {
            Some(invalid) => Err(Error::Certificates(format!("{} is not valid at {}", invalid.subject(), self.time))),
            None => Ok(()),
        }
    }
}

/// A signature, its certificate chain and its timestamp.
pub(crate) struct Sealed {
    pub(crate) signature: Vec<u8>,
    pub(crate) chain: Chain,
    pub(crate) timestamp: Option<Vec<u8>>,
}

/// Returns the hash for timestamps, which is that of the signature.
fn hash(scheme: Scheme) -> Option<Hash> {
    match scheme {
        Scheme::EcdsaP256Sha256 | Scheme::RsaPssSha256 => Some(Hash::Sha256),
        Scheme::EcdsaP384Sha384 | Scheme::RsaPssSha384 => Some(Hash::Sha384),
        Scheme::EcdsaP521Sha512 | Scheme::RsaPssSha512 => Some(Hash::Sha512),
        _ => None,
    }
}

/// Checks that every certificate of a chain was valid at a timestamp, at both ends of its accuracy.
pub(crate) fn within(stamp: &VerifiedTimestamp, chain: &Chain) -> Result<(), Refusal> {
    let invalid = chain.invalid_at(stamp.earliest()).or_else(|| chain.invalid_at(stamp.latest()));
    match invalid {
        Some(invalid) => Err(Refusal::Timestamp(format!("{} may not be valid at {}", invalid.subject(), stamp.time))),
        None => Ok(()),
    }
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

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    target_artifact: Descriptor,
}

/// Signs a descriptor. Returns the envelope, and the annotations that a plugin adds to its manifest.
pub(crate) async fn sign(
    envelope_format: EnvelopeFormat,
    subject: &Descriptor,
    options: &Options<'_>,
) -> Result<(Vec<u8>, Annotations)> {
    let Options { time, metadata, .. } = options;
    if let EnvelopeSigner::Key { signer, chain } = options.by {
        if chain.public_key() != signer.public_key() {
            return Err(Error::Certificates("the first is not for the key that signs".to_owned()));
        }
        // Check the chain before the signer is used, which may prompt a person.
        options.check(chain)?;
    }
    if options.expiry.is_some_and(|expiry| expiry <= *time) {
        return Err(Error::Unsupported("the expiry is not after the signing time".to_owned()));
    }
    if options.authority.is_some() && options.scheme == SigningScheme::SigningAuthority {
        return Err(Error::Unsupported("a signing authority needs no timestamp by another".to_owned()));
    }
    if let Some((key, _)) = metadata.iter().find(|(key, _)| key.starts_with(RESERVED)) {
        return Err(Error::Unsupported(format!("the key {key} is reserved")));
    }
    let target_artifact = Descriptor { annotations: (*metadata).clone(), ..subject.clone() };
    let payload = serde_json::to_vec(&Payload { target_artifact }).map_err(|error| Error::Signer(error.to_string()))?;
    if let EnvelopeSigner::Plugin(plugin) = options.by
        && plugin.scheme().is_none()
    {
        return whole(envelope_format, subject, plugin, &payload, options).await;
    }
    let envelope = match envelope_format {
        EnvelopeFormat::Jws => jws::sign(&payload, options).await?,
        EnvelopeFormat::Cose => cose::sign(payload, options).await?,
    };
    Ok((envelope, Annotations::new()))
}

/// Requests a whole envelope from a plugin. An envelope that verification would refuse is refused here, unless it
/// names another plugin that may understand it.
async fn whole(
    envelope_format: EnvelopeFormat,
    subject: &Descriptor,
    plugin: &NotationPlugin,
    payload: &[u8],
    options: &Options<'_>,
) -> Result<(Vec<u8>, Annotations)> {
    if options.authority.is_some() || options.scheme != SigningScheme::X509 {
        let why = "the plugin makes envelopes, and has timestamps and signing schemes of its own";
        return Err(Error::Unsupported(why.to_owned()));
    }
    let expiry = options.expiry.map(|expiry| expiry.duration_since(options.time).unsigned_abs());
    let (envelope, annotations) = plugin.envelope(envelope_format.media_type(), payload, expiry).await?;
    let opened = open_extended(envelope_format, &envelope).map_err(Error::Refused)?;
    let said = opened.is_about(subject).map_err(Error::Refused)?;
    // A plugin may add metadata, but must not remove any.
    let is_kept = |(key, value): (&str, &str)| said.get(key) == Some(value);
    match options.metadata.iter().all(is_kept) && opened.said.expiry.is_some() == options.expiry.is_some() {
        true => Ok((envelope, annotations)),
        false => Err(Error::Signer("the envelope has not the metadata or the expiry that were asked for".to_owned())),
    }
}

/// Opens an envelope: verifies its signature and checks its attributes. An envelope that requires a plugin is
/// refused.
pub(crate) fn open(envelope_format: EnvelopeFormat, envelope: &[u8]) -> Result<Opened, Refusal> {
    let opened = open_extended(envelope_format, envelope)?;
    match &opened.extended {
        Some(extended) => Err(Refusal::NotUnderstood(format!("the verification plugin {}", extended.plugin))),
        None => Ok(opened),
    }
}

/// Opens an envelope like [`open`], but leaves the plugin to the caller.
pub(crate) fn open_extended(envelope_format: EnvelopeFormat, envelope: &[u8]) -> Result<Opened, Refusal> {
    let opened = match envelope_format {
        EnvelopeFormat::Jws => jws::open(envelope)?,
        EnvelopeFormat::Cose => cose::open(envelope)?,
    };
    // The signing time is the signer's claim, so it can only lead to a refusal.
    let time = opened.said.time;
    match opened.chain.invalid_at(time) {
        Some(invalid) => Err(Refusal::Certificates(format!("{} is not valid at {time}", invalid.subject()))),
        None => Ok(opened),
    }
}

impl Opened {
    /// Checks that the envelope is about this descriptor. Returns the metadata of the signer.
    pub(crate) fn is_about(&self, subject: &Descriptor) -> Result<Annotations, Refusal> {
        let payload: Payload =
            serde_json::from_slice(&self.payload).map_err(|error| Refusal::Malformed(error.to_string()))?;
        let target = payload.target_artifact;
        let same = target.digest == subject.digest && target.size == subject.size;
        match same && target.media_type == subject.media_type {
            true => Ok(target.annotations),
            false => Err(Refusal::OtherSubject(target.digest.to_string())),
        }
    }
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
        let malformed = |why: &str| Refusal::Malformed(why.to_owned());
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
            Some(_) => Err(Refusal::Malformed(format!("the attribute {name} is no text"))),
        };
        let Some(plugin) = text(PLUGIN)? else {
            return match text(PLUGIN_VERSION)? {
                Some(_) => Err(Refusal::Malformed("it names a version of no plugin".to_owned())),
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
    let certificates = ders.take(17).map(|der| crate::pki::Certificate::from_der(&der)).collect::<Result<_>>();
    let chain = Chain::new(certificates.map_err(refuse)?).map_err(refuse)?;
    let scheme = chain.scheme().ok_or_else(|| Refusal::Certificates("its key is not supported".to_owned()))?;
    Ok((chain, scheme))
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
