//! In-toto statements ("Statement layer specification" v1): the content of bundles and of BuildKit attestations.

use std::borrow::Cow;

use bytes::Bytes;
use ocikit_spec::{Algorithm, Digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Result, to_json, to_raw_json};
use crate::refusal::{Refusal, malformed};

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The statement type that cosign still writes in attestations. The fields read here are the same.
const STATEMENT_TYPE_V0_1: &str = "https://in-toto.io/Statement/v0.1";

/// The signed statement: in-toto "Statement layer specification" v1. It is read after its signature is verified, so
/// unknown fields are allowed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    subject: Vec<Subject<'a>>,
    #[serde(borrow)]
    predicate_type: Cow<'a, str>,
    #[serde(default, borrow)]
    predicate: Option<&'a RawValue>,
}

/// A subject of the statement. Only digests with algorithms that images use are kept.
#[derive(Serialize, Deserialize)]
struct Subject<'a> {
    #[serde(borrow)]
    digest: SubjectDigests<'a>,
}

#[derive(Default, Serialize, Deserialize)]
struct SubjectDigests<'a> {
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    sha256: Option<Cow<'a, str>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    sha512: Option<Cow<'a, str>>,
}

impl<'a> SubjectDigests<'a> {
    fn of(digest: &Digest) -> SubjectDigests<'a> {
        let hex = Some(Cow::Owned(digest.hex()));
        match digest.algorithm() {
            Algorithm::Sha512 => SubjectDigests { sha512: hex, sha256: None },
            _ => SubjectDigests { sha256: hex, sha512: None },
        }
    }

    /// Returns the digest with the same algorithm as `digest`.
    fn like(&self, digest: &Digest) -> Option<&str> {
        match digest.algorithm() {
            Algorithm::Sha512 => self.sha512.as_deref(),
            _ => self.sha256.as_deref(),
        }
    }
}

/// The predicate of an attestation, as the JSON text that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predicate(Bytes);

impl Predicate {
    /// Returns the JSON text.
    pub fn as_str(&self) -> &str {
        // The bytes are a slice of text that was parsed, so they are UTF-8.
        std::str::from_utf8(&self.0).unwrap_or("null")
    }
}

impl Serialize for Predicate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(self.as_str()).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// Creates a statement about a digest.
pub(crate) fn new(digest: &Digest, predicate_type: &str, predicate: &Value) -> Result<Vec<u8>> {
    let predicate = to_raw_json(predicate)?;
    let statement = Statement {
        kind: STATEMENT_TYPE.into(),
        subject: vec![Subject { digest: SubjectDigests::of(digest) }],
        predicate_type: predicate_type.into(),
        predicate: Some(&predicate),
    };
    to_json(&statement)
}

/// Returns the predicate type of a statement.
pub(crate) fn predicate_type(payload: &[u8]) -> Result<String, Refusal> {
    Ok(parse(payload)?.predicate_type.into_owned())
}

fn parse(payload: &[u8]) -> Result<Statement<'_>, Refusal> {
    serde_json::from_slice(payload).map_err(malformed)
}

/// Returns whether bytes are an in-toto statement of any type.
pub(crate) fn is_statement(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct TypeJson<'a> {
        #[serde(rename = "_type", borrow)]
        kind: Cow<'a, str>,
    }
    serde_json::from_slice::<TypeJson<'_>>(bytes)
        .is_ok_and(|json| json.kind.starts_with("https://in-toto.io/Statement/"))
}

/// An unsigned statement and its subject.
pub(crate) struct Unsigned {
    /// The statement's bytes, unchanged unless a subject was inserted.
    pub(crate) bytes: Vec<u8>,
    /// The predicate type.
    pub(crate) kind: String,
    /// The digest that the statement named before it was replaced, if it was.
    pub(crate) before: Option<Digest>,
}

/// The annotation on the subject of a promoted statement that records the digest BuildKit wrote.
pub(crate) const ANNOTATED_FROM: &str = "dev.ocikit.annotated-from";

/// Returns an unsigned statement whose only subject is `digest`. A statement without a subject gets this one. A
/// statement whose only subject is a digest that `is_before` accepts gets this one too, and an annotation with the
/// old digest.
pub(crate) fn for_subject(
    bytes: &[u8],
    digest: &Digest,
    is_before: impl Fn(&Digest) -> bool,
) -> Result<Unsigned, Refusal> {
    let statement = parse(bytes)?;
    let kind = statement.predicate_type.clone().into_owned();
    let name = digest.algorithm().name();
    let mut named: Vec<_> = statement.subject.iter().map(|subject| subject.digest.like(digest)).collect();
    named.dedup();
    let (subject, before) = match named[..] {
        [Some(hex)] if hex == digest.hex() => {
            check(&Bytes::copy_from_slice(bytes), digest, Some(&kind))?;
            return Ok(Unsigned { bytes: bytes.to_vec(), kind, before: None });
        }
        [] => (serde_json::json!([{"name": "", "digest": {name: digest.hex()}}]), None),
        [Some(hex)] => match format!("{name}:{hex}").parse::<Digest>().ok().filter(is_before) {
            Some(before) => {
                let note = serde_json::json!({ANNOTATED_FROM: before});
                (serde_json::json!([{"name": "", "digest": {name: digest.hex()}, "annotations": note}]), Some(before))
            }
            None => return Err(Refusal::OtherSubject(format!("{name}:{hex}"))),
        },
        _ => {
            let other = named.iter().flatten().find(|hex| **hex != digest.hex());
            return Err(Refusal::OtherSubject(
                other.map_or_else(|| "nothing".to_owned(), |hex| format!("{name}:{hex}")),
            ));
        }
    };
    let bytes = with_subject(bytes, &subject.to_string()).map_err(malformed)?;
    check(&Bytes::copy_from_slice(&bytes), digest, Some(&kind))?;
    Ok(Unsigned { bytes, kind, before })
}

/// Replaces the subject of a statement and keeps every other byte.
fn with_subject(bytes: &[u8], subject: &str) -> serde_json::Result<Vec<u8>> {
    #[derive(Deserialize)]
    struct SubjectJson<'a> {
        #[serde(borrow)]
        subject: &'a RawValue,
    }
    let SubjectJson { subject: old } = serde_json::from_slice(bytes)?;
    // A `RawValue` borrows from the text it was read from, so its address gives its position.
    let start = (old.get().as_ptr() as usize).saturating_sub(bytes.as_ptr() as usize);
    let (before, after) = (bytes.get(..start), bytes.get(start.saturating_add(old.get().len())..));
    Ok([before.unwrap_or_default(), subject.as_bytes(), after.unwrap_or_default()].concat())
}

/// Checks the type and the subject of a statement whose signature was verified. Returns its predicate. `None` accepts
/// every predicate type.
pub(crate) fn check(payload: &Bytes, digest: &Digest, predicate_type: Option<&str>) -> Result<Predicate, Refusal> {
    let statement = parse(payload)?;
    // Statements of BuildKit are signed after this check, and cosign must find the same subject in them.
    ocikit_spec::check_statement_keys(payload).map_err(malformed)?;
    if ![STATEMENT_TYPE, STATEMENT_TYPE_V0_1].contains(&&*statement.kind) {
        return Err(Refusal::NotUnderstood(format!("statements of type {}", statement.kind)));
    }
    // An attestation is signed as well, but it is not a signature of the image.
    if predicate_type.is_some_and(|wanted| statement.predicate_type != wanted) {
        return Err(Refusal::OtherPredicate(statement.predicate_type.into_owned()));
    }
    let hex = digest.hex();
    if statement.subject.iter().any(|subject| subject.digest.like(digest) == Some(&hex)) {
        let predicate = statement.predicate.map_or("null", RawValue::get);
        // The predicate is a slice of the payload, which is then kept in memory as a whole.
        let is_part = payload.as_ptr_range().contains(&predicate.as_ptr());
        return Ok(Predicate(match is_part {
            true => payload.slice_ref(predicate.as_bytes()),
            false => Bytes::from_static(b"null"),
        }));
    }
    let other = statement.subject.iter().find_map(|subject| subject.digest.like(digest));
    Err(Refusal::OtherSubject(other.unwrap_or("nothing").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> Digest {
        Digest::sha256_of(b"an image")
    }

    #[test]
    fn an_attestation_is_not_a_signature() {
        let payload = format!(
            r#"{{"_type":"{STATEMENT_TYPE}","subject":[{{"digest":{{"sha256":"{}"}}}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{{}}}}"#,
            digest().hex()
        );
        assert_eq!(
            check(&payload.into(), &digest(), Some(crate::predicate::SIGNATURE_PREDICATE_TYPE)),
            Err(Refusal::OtherPredicate("https://slsa.dev/provenance/v1".to_owned()))
        );
    }

    #[test]
    fn a_missing_subject_is_inserted() {
        let hex = digest().hex();
        let text = |subject: &str| {
            format!(
                r#"{{"_type":"{STATEMENT_TYPE}","subject":{subject},"predicateType":"x:y","predicate":{{"n":1.50}}}}"#
            )
        };
        let about = |text: &str| for_subject(text.as_bytes(), &digest(), |_| false);
        let own = format!(r#"{{"name":"a","digest":{{"sha256":"{hex}"}}}}"#);
        for subject in [format!("[{own}]"), format!("[{own}, {own}]")] {
            let unsigned = about(&text(&subject)).unwrap();
            assert_eq!((unsigned.bytes, &*unsigned.kind), (text(&subject).into_bytes(), "x:y"), "no byte is changed");
        }
        let put_in = about(&text("[]")).unwrap().bytes;
        let wanted = text(&format!(r#"[{{"name":"","digest":{{"sha256":"{hex}"}}}}]"#));
        assert_eq!(String::from_utf8(put_in.clone()).unwrap(), wanted, "numbers and order stay");
        let said = check(&put_in.into(), &digest(), Some("x:y")).unwrap();
        assert_eq!((said.as_str(), serde_json::to_string(&said).unwrap().as_str()), (r#"{"n":1.50}"#, r#"{"n":1.50}"#));
        let other = r#"{"name":"b","digest":{"sha256":"00"}}"#;
        for subject in [format!("[{own}, {other}]"), format!("[{other}]"), r#"[{"name":"a","digest":{}}]"#.to_owned()] {
            let refused = about(&text(&subject)).map(|unsigned| unsigned.kind);
            assert!(matches!(refused, Err(Refusal::OtherSubject(_))), "{subject}: {refused:?}");
        }
        for (from, to) in [
            (r#""predicateType""#, format!(r#""Subject":[{other}],"predicateType""#)),
            (r#""predicateType""#, format!("\"\u{17f}ubject\":[{other}],\"predicateType\"")),
            (r#""name":"a""#, r#""name":"a","Digest":{"sha256":"00"}"#.to_owned()),
        ] {
            let refused = about(&text(&format!("[{own}]")).replace(from, &to)).map(|unsigned| unsigned.kind);
            assert!(matches!(refused, Err(Refusal::Malformed(_))), "{to}: {refused:?}");
        }
        for text in [text("{}"), text("null"), text("[]").replace("/v1", "/v9"), "[]".to_owned()] {
            assert!(about(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_statement_about_an_earlier_digest_records_it() {
        let (before, other) = (Digest::sha256_of(b"before"), Digest::sha256_of(b"other"));
        let text = |subjects: &str| {
            format!(r#"{{"_type":"{STATEMENT_TYPE}","subject":[{subjects}],"predicateType":"x:y","predicate":{{}}}}"#)
        };
        let of = |digest: &Digest| format!(r#"{{"name":"a","digest":{{"sha256":"{}"}}}}"#, digest.hex());
        let about = |text: &str| for_subject(text.as_bytes(), &digest(), |named| *named == before);
        let unsigned = about(&text(&of(&before))).unwrap();
        assert_eq!(unsigned.before, Some(before));
        let value: Value = serde_json::from_slice(&unsigned.bytes).unwrap();
        assert_eq!(value["subject"][0]["annotations"][ANNOTATED_FROM], before.to_string());
        assert_eq!(value["subject"].as_array().unwrap().len(), 1);
        assert!(check(&unsigned.bytes.into(), &digest(), Some("x:y")).is_ok());
        for subjects in
            [of(&other), format!("{},{}", of(&before), of(&other)), format!("{},{}", of(&digest()), of(&other))]
        {
            assert!(matches!(about(&text(&subjects)), Err(Refusal::OtherSubject(_))), "{subjects}");
        }
    }

    proptest::proptest! {
        #[test]
        fn untrusted_input_does_not_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = (check(&bytes.clone().into(), &digest(), None), is_statement(&bytes));
            let _ = for_subject(&bytes, &digest(), |_| true);
        }
    }
}
