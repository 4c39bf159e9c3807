//! Signing and opening envelopes in both encodings.

use ocikit_spec::{Annotations, Descriptor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, to_json};
use crate::notation::attributes::{Opened, RESERVED, SigningScheme};
use crate::notation::options::{EnvelopeSigner, Options};
use crate::notation::plugin::NotationPlugin;
use crate::notation::{cose, jws};
use crate::refusal::{Refusal, malformed};

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
            return Err(Error::Certificates("the first is for another key than the one that signs".to_owned()));
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
    let payload = to_json(&Payload { target_artifact })?;
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
        let why = "the plugin creates whole envelopes, so the timestamp and the signing scheme cannot be chosen";
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
        false => Err(Error::Signer("the envelope lacks the requested metadata or expiry".to_owned())),
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
        let payload: Payload = serde_json::from_slice(&self.payload).map_err(malformed)?;
        let target = payload.target_artifact;
        let same = target.digest == subject.digest && target.size == subject.size;
        match same && target.media_type == subject.media_type {
            true => Ok(target.annotations),
            false => Err(Refusal::OtherSubject(target.digest.to_string())),
        }
    }
}

#[cfg(test)]
mod tests;
