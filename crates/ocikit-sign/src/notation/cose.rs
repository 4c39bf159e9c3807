//! COSE envelopes: `COSE_Sign1_Tagged` of RFC 9052 with the restrictions of the Notary Project.

use coset::cbor::value::Value;
use coset::{
    Algorithm, ContentType, CoseSign1, CoseSign1Builder, Header, Label, RegisteredLabelWithPrivate,
    TaggedCborSerializable,
};
use jiff::{SignedDuration, Timestamp};

use crate::error::{Error, Result};
use crate::key::Scheme;
use crate::notation::attributes::{self, Attributes, Opened, PAYLOAD_TYPE};
use crate::notation::options::Options;
use crate::refusal::{Refusal, malformed};

/// The label of the certificate chain (RFC 9360). Notation requires a list, even for one certificate.
const X5CHAIN: Label = Label::Int(33);
/// The CBOR tag for seconds since 1970 (RFC 8949, 3.4.2).
const EPOCH: u64 = 1;

pub(crate) async fn sign(payload: Vec<u8>, options: &Options<'_>) -> Result<Vec<u8>> {
    let failed = |error: coset::CoseError| Error::Signer(error.to_string());
    let scheme = options.by.scheme()?;
    let text = |text: &str| Label::Text(text.to_owned());
    let time = |time: Timestamp| Value::Tag(EPOCH, Box::new(Value::Integer(time.as_second().into())));
    let mut rest = vec![
        (text(attributes::SCHEME), Value::Text(options.scheme.as_str().to_owned())),
        (text(options.scheme.time()), time(options.time)),
    ];
    rest.extend(options.expiry.map(|expiry| (text(attributes::EXPIRY), time(expiry))));
    let protected = Header {
        alg: algorithm(scheme),
        crit: options.critical().into_iter().map(RegisteredLabelWithPrivate::Text).collect(),
        content_type: Some(ContentType::Text(PAYLOAD_TYPE.to_owned())),
        rest,
        ..Header::default()
    };
    let unsigned = CoseSign1Builder::new().protected(protected).payload(payload).build();
    let sealed = options.seal(scheme, &unsigned.tbs_data(&[])).await?;
    let certificates = sealed.chain.certificates().iter();
    let certificates = certificates.map(|certificate| Value::Bytes(certificate.to_der().to_vec())).collect();
    // `io.cncf.notary.signingAgent` is not written: it would be unsigned, and nothing reads it.
    let mut rest = vec![(X5CHAIN, Value::Array(certificates))];
    rest.extend(sealed.timestamp.map(|token| (text(attributes::TIMESTAMP), Value::Bytes(token))));
    let unprotected = Header { rest, ..Header::default() };
    CoseSign1 { signature: sealed.signature, unprotected, ..unsigned }.to_tagged_vec().map_err(failed)
}

pub(crate) fn open(bytes: &[u8]) -> Result<Opened, Refusal> {
    let envelope = CoseSign1::from_tagged_slice(bytes).map_err(malformed)?;
    check_headers(&envelope.unprotected, &envelope.protected.header)?;
    // Other unsigned attributes are ignored, such as `io.cncf.notary.signingAgent`, which notation 1.0 wrote as
    // `SigningAgent`.
    let unsigned =
        |wanted: &Label| envelope.unprotected.rest.iter().find(|(label, _)| label == wanted).map(|(_, value)| value);
    let certificates = unsigned(&X5CHAIN).and_then(Value::as_array);
    let timestamp = match unsigned(&Label::Text(attributes::TIMESTAMP.to_owned())) {
        None => None,
        Some(Value::Bytes(token)) => Some(token.clone()),
        Some(_) => return Err(Refusal::Timestamp("it is not a string of bytes".to_owned())),
    };
    let ders: Option<Vec<_>> = certificates
        .ok_or_else(|| malformed("it has no certificates"))?
        .iter()
        .map(|value| value.as_bytes().cloned())
        .collect();
    let ders = ders.ok_or_else(|| malformed("its certificates are malformed"))?;
    let (chain, scheme) = attributes::chain(ders.into_iter())?;
    // `coset` keeps the original bytes of the protected header for this.
    let Some(payload) = envelope.payload.clone() else { return Err(malformed("it has no payload")) };
    if !attributes::verifies(chain.public_key(), scheme, &envelope.tbs_data(&[]), &envelope.signature) {
        return Err(Refusal::WrongSignature);
    }
    let protected = &envelope.protected.header;
    if protected.alg != algorithm(scheme) {
        return Err(malformed("its algorithm is not that of its key"));
    }
    let value = |name: &str| {
        protected.rest.iter().find(|(label, _)| *label == Label::Text(name.to_owned())).map(|(_, value)| value)
    };
    let critical = protected.crit.iter().map(|label| match label {
        RegisteredLabelWithPrivate::Text(name) => Ok(name.clone()),
        _ => Err(Refusal::NotUnderstood("a critical attribute that has a number".to_owned())),
    });
    let content_type = match &protected.content_type {
        Some(ContentType::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let attributes = Attributes {
        critical: critical.collect::<Result<_, _>>()?,
        content_type,
        scheme: value(attributes::SCHEME).and_then(Value::as_text),
        time: value(attributes::SIGNING_TIME).map(time).transpose()?,
        authentic_time: value(attributes::AUTHENTIC_TIME).map(time).transpose()?,
        expiry: value(attributes::EXPIRY).map(time).transpose()?,
        others: protected.rest.iter().filter_map(other).collect(),
    };
    let (said, extended) = attributes.check()?;
    Ok(Opened { payload, chain, said, signature: envelope.signature, timestamp, extended })
}

/// Checks that no attribute is in both headers, and that the unprotected header has no attribute that must be signed
/// (RFC 9052, 3 and 3.1).
fn check_headers(unsigned: &Header, signed: &Header) -> Result<(), Refusal> {
    let refuse = |name: &str| Err(malformed(format!("the attribute {name} is not signed")));
    if !unsigned.crit.is_empty() {
        return refuse("crit");
    }
    if unsigned.alg.is_some() {
        return refuse("alg");
    }
    if unsigned.content_type.is_some() {
        return refuse("content type");
    }
    match unsigned.rest.iter().find(|(label, _)| signed.rest.iter().any(|(other, _)| other == label)) {
        Some((Label::Text(name), _)) => refuse(name),
        Some((Label::Int(number), _)) => refuse(&number.to_string()),
        None => Ok(()),
    }
}

/// Converts an attribute of another specification to JSON. A value that JSON cannot represent is dropped, and the
/// attribute then counts as unknown if it is critical.
fn other((label, value): &(Label, Value)) -> Option<(String, serde_json::Value)> {
    let Label::Text(name) = label else { return None };
    if [attributes::SCHEME, attributes::SIGNING_TIME, attributes::AUTHENTIC_TIME, attributes::EXPIRY]
        .contains(&name.as_str())
    {
        return None;
    }
    let value = match value {
        Value::Text(text) => text.as_str().into(),
        Value::Bool(value) => (*value).into(),
        Value::Integer(number) => i64::try_from(*number).ok()?.into(),
        // For attributes of the specification, the name alone decides.
        _ if name.starts_with(attributes::RESERVED) => serde_json::Value::Null,
        _ => return None,
    };
    Some((name.clone(), value))
}

/// Returns the header of a signature scheme.
fn algorithm(scheme: Scheme) -> Option<Algorithm> {
    attributes::algorithm(scheme).map(|(cose, _)| Algorithm::Assigned(cose))
}

/// Reads seconds since 1970, as an integer or with a fraction (RFC 8949, 3.4.2).
fn time(value: &Value) -> Result<Timestamp, Refusal> {
    let time = match value {
        Value::Tag(EPOCH, inner) => match **inner {
            Value::Integer(seconds) => i64::try_from(seconds).ok().and_then(|time| Timestamp::from_second(time).ok()),
            Value::Float(seconds) => {
                SignedDuration::try_from_secs_f64(seconds).ok().and_then(|time| Timestamp::from_duration(time).ok())
            }
            _ => None,
        },
        _ => None,
    };
    time.ok_or_else(|| malformed("a time is not a number of seconds since 1970"))
}
