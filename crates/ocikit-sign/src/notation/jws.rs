//! JWS envelopes: the flattened JSON serialization of RFC 7515 with the restrictions of the Notary Project.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Result, to_json};
use crate::key::Scheme;
use crate::notation::attributes::{self, Attributes, Opened, PAYLOAD_TYPE, SigningScheme};
use crate::notation::options::Options;
use crate::refusal::{Refusal, malformed};
use crate::time::{rfc3339, seconds};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    payload: String,
    protected: String,
    header: Header,
    signature: String,
}

/// The unprotected header.
#[derive(Serialize, Deserialize)]
struct Header {
    x5c: Vec<String>,
    #[serde(rename = "io.cncf.notary.timestampSignature", default, skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    /// Other attributes are ignored, such as `io.cncf.notary.signingAgent`, which notation 1.0 wrote as
    /// `SigningAgent`.
    #[serde(flatten)]
    ignored: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Protected {
    alg: String,
    crit: Vec<String>,
    cty: String,
    #[serde(rename = "io.cncf.notary.authenticSigningTime", default, skip_serializing_if = "Option::is_none")]
    authentic_time: Option<String>,
    #[serde(rename = "io.cncf.notary.expiry", default, skip_serializing_if = "Option::is_none")]
    expiry: Option<String>,
    #[serde(rename = "io.cncf.notary.signingScheme")]
    scheme: String,
    #[serde(rename = "io.cncf.notary.signingTime", default, skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    /// All other attributes, critical or not.
    #[serde(flatten)]
    more: Map<String, Value>,
}

pub(crate) async fn sign(payload: &[u8], options: &Options<'_>) -> Result<Vec<u8>> {
    let scheme = options.by.scheme()?;
    let time = |scheme| (options.scheme == scheme).then(|| seconds(options.time));
    let protected = Protected {
        alg: algorithm(scheme).to_owned(),
        authentic_time: time(SigningScheme::SigningAuthority),
        crit: options.critical(),
        cty: PAYLOAD_TYPE.to_owned(),
        expiry: options.expiry.map(seconds),
        scheme: options.scheme.as_str().to_owned(),
        time: time(SigningScheme::X509),
        more: Map::new(),
    };
    let protected = URL_SAFE_NO_PAD.encode(to_json(&protected)?);
    let payload = URL_SAFE_NO_PAD.encode(payload);
    let sealed = options.seal(scheme, format!("{protected}.{payload}").as_bytes()).await?;
    let timestamp = sealed.timestamp.map(|token| STANDARD.encode(token));
    let signature = URL_SAFE_NO_PAD.encode(sealed.signature);
    let x5c = sealed.chain.certificates().iter().map(|certificate| STANDARD.encode(certificate.to_der())).collect();
    // `io.cncf.notary.signingAgent` is not written: it would be unsigned, and nothing reads it.
    let header = Header { x5c, timestamp, ignored: Map::new() };
    to_json(&Envelope { payload, protected, header, signature })
}

pub(crate) fn open(bytes: &[u8]) -> Result<Opened, Refusal> {
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(malformed)?;
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed("it is not in base64"));
    let ders: Result<Vec<_>, _> = envelope.header.x5c.iter().map(|text| STANDARD.decode(text)).collect();
    let ders = ders.map_err(|_| malformed("its certificates are not in base64"))?;
    let (chain, scheme) = attributes::chain(ders.into_iter())?;
    // The signature covers the original text.
    let message = format!("{}.{}", envelope.protected, envelope.payload);
    let signature = decode(&envelope.signature)?;
    if !attributes::verifies(chain.public_key(), scheme, message.as_bytes(), &signature) {
        return Err(Refusal::WrongSignature);
    }
    let protected = decode(&envelope.protected)?;
    let signed: Map<String, Value> = serde_json::from_slice(&protected).map_err(malformed)?;
    // RFC 7515, 7.2.1: no name is in both headers, and `crit` is in the protected one.
    if let Some(name) = envelope.header.ignored.keys().find(|name| *name == "crit" || signed.contains_key(*name)) {
        return Err(malformed(format!("the attribute {name} is not signed")));
    }
    let protected: Protected = serde_json::from_slice(&protected).map_err(malformed)?;
    if protected.alg != algorithm(scheme) {
        return Err(malformed("its algorithm is not that of its key"));
    }
    let time = |text: &Option<String>| text.as_ref().map(|text| parse(text)).transpose();
    let attributes = Attributes {
        critical: protected.crit.clone(),
        content_type: Some(&protected.cty),
        scheme: Some(&protected.scheme),
        time: time(&protected.time)?,
        authentic_time: time(&protected.authentic_time)?,
        expiry: time(&protected.expiry)?,
        others: protected.more.clone(),
    };
    let (said, extended) = attributes.check()?;
    let timestamp = envelope.header.timestamp.map(|text| STANDARD.decode(text)).transpose();
    let timestamp = timestamp.map_err(|_| Refusal::Timestamp("it is not in base64".to_owned()))?;
    Ok(Opened { payload: decode(&envelope.payload)?, chain, said, signature, timestamp, extended })
}

/// Returns the name of a signature scheme.
fn algorithm(scheme: Scheme) -> &'static str {
    attributes::algorithm(scheme).map_or("none", |(_, jws)| jws)
}

fn parse(text: &str) -> Result<Timestamp, Refusal> {
    rfc3339(text).ok_or_else(|| malformed(format!("`{text}` is not a time of RFC 3339")))
}
