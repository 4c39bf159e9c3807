use jiff::Timestamp;
use ocikit_spec::{Annotations, Descriptor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use x509_cert::der::asn1::{AnyRef, UintRef};
use x509_cert::der::{Decode, Encode, Reader, SliceReader, Tag};

use crate::algorithm::Hash;
use crate::error::{Error, Result};
use crate::found::{COSE_TYPE, JWS_TYPE};
use crate::key::{PublicKey, Scheme};
use crate::notation::{Chain, NotationPlugin, cose, jws};
use crate::refusal::Refusal;
use crate::signer::{Signer, checked};
use crate::timestamp::{Stamp, TimestampAuthority};

/// The type of what is signed.
pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.cncf.notary.payload.v1+json";
pub(crate) const SCHEME: &str = "io.cncf.notary.signingScheme";
pub(crate) const SIGNING_TIME: &str = "io.cncf.notary.signingTime";
pub(crate) const AUTHENTIC_TIME: &str = "io.cncf.notary.authenticSigningTime";
pub(crate) const EXPIRY: &str = "io.cncf.notary.expiry";
pub(crate) const TIMESTAMP: &str = "io.cncf.notary.timestampSignature";
const PLUGIN: &str = "io.cncf.notary.verificationPlugin";
const PLUGIN_VERSION: &str = "io.cncf.notary.verificationPluginMinVersion";
const PLUGIN_ATTRIBUTES: [&str; 2] = [PLUGIN, PLUGIN_VERSION];
/// Keys of annotations and names of attributes that begin so are the specification's.
pub(crate) const RESERVED: &str = "io.cncf.notary";

/// Who says when something was signed. Notary Project, "Signing Scheme".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SigningScheme {
    /// The signer, whom nobody believes; a timestamp tells.
    #[default]
    X509,
    /// A service that signs for others, and is believed as well.
    SigningAuthority,
}

impl SigningScheme {
    const ALL: [SigningScheme; 2] = [SigningScheme::X509, SigningScheme::SigningAuthority];

    /// The word for it in envelopes.
    pub fn as_str(self) -> &'static str {
        match self {
            SigningScheme::X509 => "notary.x509",
            SigningScheme::SigningAuthority => "notary.x509.signingAuthority",
        }
    }

    /// The type of the trust stores of those who sign so.
    pub(crate) fn store(self) -> &'static str {
        match self {
            SigningScheme::X509 => "ca",
            SigningScheme::SigningAuthority => "signingAuthority",
        }
    }

    /// The attribute that has the time.
    pub(crate) fn time(self) -> &'static str {
        match self {
            SigningScheme::X509 => SIGNING_TIME,
            SigningScheme::SigningAuthority => AUTHENTIC_TIME,
        }
    }
}

/// What a signer wants somebody else to look at, in attributes that are critical.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Extended {
    /// The name of the plugin that has to be asked.
    pub(crate) plugin: String,
    /// It has to be of this version at least.
    pub(crate) version: Option<String>,
    /// What it has to understand.
    pub(crate) others: Map<String, Value>,
}

/// The two envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seal {
    Jws,
    Cose,
}

/// Whoever signs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum By<'a> {
    /// A key, and the certificates of it.
    Key { signer: &'a dyn Signer, chain: &'a Chain },
    /// A plugin, which has both.
    Plugin(&'a NotationPlugin),
}

impl By<'_> {
    /// How they sign; none that makes envelopes gets here.
    pub(crate) fn scheme(&self) -> Result<Scheme> {
        let scheme = match self {
            By::Key { chain, .. } => chain.scheme(),
            By::Plugin(plugin) => plugin.scheme(),
        };
        scheme.ok_or_else(|| Error::Certificates("the key is not used".to_owned()))
    }
}

/// What is in an envelope besides the descriptor.
#[derive(Debug, Clone)]
pub(crate) struct Options<'a> {
    pub(crate) by: By<'a>,
    pub(crate) time: Timestamp,
    pub(crate) expiry: Option<Timestamp>,
    pub(crate) metadata: &'a Annotations,
    pub(crate) scheme: SigningScheme,
    /// Who says when it was signed, besides the signer.
    pub(crate) authority: Option<&'a TimestampAuthority>,
}

impl Options<'_> {
    /// The attributes that have to be understood.
    pub(crate) fn critical(&self) -> Vec<String> {
        let time = (self.scheme == SigningScheme::SigningAuthority).then_some(AUTHENTIC_TIME);
        let all = [Some(SCHEME), time, self.expiry.map(|_| EXPIRY)];
        all.into_iter().flatten().map(str::to_owned).collect()
    }

    /// A signature in the form of JOSE and COSE, what is not signed beside it, and all of it checked as those who verify check
    /// it.
    pub(crate) async fn seal(&self, scheme: Scheme, message: &[u8]) -> Result<Sealed> {
        let (signature, chain) = match self.by {
            By::Key { signer, chain } => (to_fixed(scheme, checked(signer, scheme, message).await?)?, chain.clone()),
            By::Plugin(plugin) => plugin.sign(scheme, message).await?,
        };
        self.check(&chain)?;
        let Some(authority) = self.authority else { return Ok(Sealed { signature, chain, timestamp: None }) };
        let hash = hash(scheme).ok_or_else(|| Error::Certificates("the key is not used".to_owned()))?;
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

/// A signature and what is beside it.
pub(crate) struct Sealed {
    pub(crate) signature: Vec<u8>,
    pub(crate) chain: Chain,
    pub(crate) timestamp: Option<Vec<u8>>,
}

/// The hash of timestamps: that of the signature.
fn hash(scheme: Scheme) -> Option<Hash> {
    match scheme {
        Scheme::EcdsaP256Sha256 | Scheme::RsaPssSha256 => Some(Hash::Sha256),
        Scheme::EcdsaP384Sha384 | Scheme::RsaPssSha384 => Some(Hash::Sha384),
        Scheme::EcdsaP521Sha512 | Scheme::RsaPssSha512 => Some(Hash::Sha512),
        _ => None,
    }
}

/// Whether all of a chain was valid at a timestamp, as early and as late as it may have been.
pub(crate) fn within(stamp: &Stamp, chain: &Chain) -> Result<(), Refusal> {
    let invalid = chain.invalid_at(stamp.earliest()).or_else(|| chain.invalid_at(stamp.latest()));
    match invalid {
        Some(invalid) => Err(Refusal::Timestamp(format!("{} may not be valid at {}", invalid.subject(), stamp.time))),
        None => Ok(()),
    }
}

/// What an envelope says. The signature is by the key of the chain, which obeys every rule but those of time and trust.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) payload: Vec<u8>,
    pub(crate) chain: Chain,
    pub(crate) said: Said,
    /// As it came, of which timestamps are.
    pub(crate) signature: Vec<u8>,
    /// A token that was not looked at.
    pub(crate) timestamp: Option<Vec<u8>>,
    /// What is not understood here, and a plugin may.
    pub(crate) extended: Option<Extended>,
}

/// What the signed attributes say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub(crate) scheme: SigningScheme,
    pub(crate) time: Timestamp,
    pub(crate) expiry: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    target_artifact: Descriptor,
}

/// Signs a descriptor. Returns the envelope, and annotations for its manifest where a plugin has some.
pub(crate) async fn sign(seal: Seal, subject: &Descriptor, options: &Options<'_>) -> Result<(Vec<u8>, Annotations)> {
    let Options { time, metadata, .. } = options;
    if let By::Key { signer, chain } = options.by {
        if chain.public_key() != signer.public_key() {
            return Err(Error::Certificates("the first is not for the key that signs".to_owned()));
        }
        // Before anybody is asked to sign.
        options.check(chain)?;
    }
    if options.expiry.is_some_and(|expiry| expiry <= *time) {
        return Err(Error::Unsupported("the signature would have expired already".to_owned()));
    }
    if options.authority.is_some() && options.scheme == SigningScheme::SigningAuthority {
        return Err(Error::Unsupported("a signing authority needs no timestamp by another".to_owned()));
    }
    if let Some((key, _)) = metadata.iter().find(|(key, _)| key.starts_with(RESERVED)) {
        return Err(Error::Unsupported(format!("the key {key} is reserved")));
    }
    let target_artifact = Descriptor { annotations: (*metadata).clone(), ..subject.clone() };
    let payload = serde_json::to_vec(&Payload { target_artifact }).map_err(|error| Error::Signer(error.to_string()))?;
    if let By::Plugin(plugin) = options.by
        && plugin.scheme().is_none()
    {
        return whole(seal, subject, plugin, &payload, options).await;
    }
    let envelope = match seal {
        Seal::Jws => jws::sign(&payload, options).await?,
        Seal::Cose => cose::sign(payload, options).await?,
    };
    Ok((envelope, Annotations::new()))
}

/// An envelope that a plugin makes. Whatever would be refused when it is read is refused here, unless another plugin understands
/// it.
async fn whole(
    seal: Seal,
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
    let envelope_type = match seal {
        Seal::Jws => JWS_TYPE,
        Seal::Cose => COSE_TYPE,
    };
    let (envelope, annotations) = plugin.envelope(envelope_type, payload, expiry).await?;
    let opened = open_extended(seal, &envelope).map_err(Error::Refused)?;
    let said = opened.is_about(subject).map_err(Error::Refused)?;
    // A plugin may add to what is signed along, and must not take from it.
    let is_kept = |(key, value): (&str, &str)| said.get(key) == Some(value);
    match options.metadata.iter().all(is_kept) && opened.said.expiry.is_some() == options.expiry.is_some() {
        true => Ok((envelope, annotations)),
        false => Err(Error::Signer("the envelope has not the metadata or the expiry that were asked for".to_owned())),
    }
}

/// Opens an envelope and checks all that it says about itself. One that asks for a plugin is refused.
pub(crate) fn open(seal: Seal, envelope: &[u8]) -> Result<Opened, Refusal> {
    let opened = open_extended(seal, envelope)?;
    match &opened.extended {
        Some(extended) => Err(Refusal::NotUnderstood(format!("the verification plugin {}", extended.plugin))),
        None => Ok(opened),
    }
}

/// The same for those who ask the plugin.
pub(crate) fn open_extended(seal: Seal, envelope: &[u8]) -> Result<Opened, Refusal> {
    let opened = match seal {
        Seal::Jws => jws::open(envelope)?,
        Seal::Cose => cose::open(envelope)?,
    };
    // When it was signed is the claim of the signer, which counts only against it.
    let time = opened.said.time;
    match opened.chain.invalid_at(time) {
        Some(invalid) => Err(Refusal::Certificates(format!("{} is not valid at {time}", invalid.subject()))),
        None => Ok(opened),
    }
}

impl Opened {
    /// Whether it is about this descriptor; the metadata of the signer, if so.
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

/// Checks the attributes that both envelopes have in the same words.
pub(crate) struct Attributes<'a> {
    /// The critical ones, as listed.
    pub(crate) critical: Vec<String>,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) scheme: Option<&'a str>,
    pub(crate) time: Option<Timestamp>,
    pub(crate) authentic_time: Option<Timestamp>,
    pub(crate) expiry: Option<Timestamp>,
    /// All others, as far as they are text, numbers and the like.
    pub(crate) others: Map<String, Value>,
}

impl Attributes<'_> {
    /// What they say, and what they want somebody else to look at.
    pub(crate) fn check(&self) -> Result<(Said, Option<Extended>), Refusal> {
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
            return Err(malformed("what has to be critical is not"));
        }
        let time = match (scheme, self.time, self.authentic_time) {
            (SigningScheme::X509, Some(time), None) | (SigningScheme::SigningAuthority, None, Some(time)) => time,
            _ => return Err(malformed("it has not the signing time of its signing scheme")),
        };
        if self.expiry.is_some_and(|expiry| expiry <= time) {
            return Err(malformed("it expired before it was signed"));
        }
        Ok((Said { scheme, time, expiry: self.expiry }, self.extended()?))
    }

    /// What a plugin has to look at. Attributes of the specification that are not known are refused, be they critical or not: a
    /// plugin that is named must not be passed over because its name was not marked.
    fn extended(&self) -> Result<Option<Extended>, Refusal> {
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
        Ok(Some(Extended { plugin, version: text(PLUGIN_VERSION)?, others }))
    }
}

/// The chain in an envelope, and how its signer signs.
pub(crate) fn chain(ders: impl Iterator<Item = Vec<u8>>) -> Result<(Chain, Scheme), Refusal> {
    let refuse = |error: Error| Refusal::Certificates(error.to_string());
    // One more than any chain may have, so that a longer one is seen to be longer.
    let certificates = ders.take(17).map(|der| crate::pki::Certificate::from_der(&der)).collect::<Result<_>>();
    let chain = Chain::new(certificates.map_err(refuse)?).map_err(refuse)?;
    let scheme = chain.scheme().ok_or_else(|| Refusal::Certificates("its key is not used".to_owned()))?;
    Ok((chain, scheme))
}

/// A time as RFC 3339 has it, without fractions of seconds.
pub(crate) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An ECDSA signature as JOSE and COSE have it: two numbers of the length of the curve. Others stay.
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

/// Whether a key made a signature in the form of JOSE and COSE.
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
