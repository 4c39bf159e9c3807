//! The JSON encoding of protocol buffers, as far as sigstore uses it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::rfc3339;

/// Bytes in canonical base64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Base64(pub(crate) Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(&text).map(Base64).map_err(|_| D::Error::custom("a value is not in base64"))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LogId {
    pub(crate) key_id: Base64,
}

/// A certificate in DER.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CertificateJson {
    pub(crate) raw_bytes: Base64,
}

/// A non-negative number of at most 63 bits: a string of digits or a JSON number. Zero may be omitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number(pub(crate) u64);

impl Number {
    pub(crate) fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_string())
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, as such or as text")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<u64, E> {
                Ok(number)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
                // Other spellings of a number, such as `+5` and `05`, are refused.
                let number = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
                number.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }

        let number = deserializer.deserialize_any(Either)?;
        // Other readers use signed 64-bit numbers.
        match i64::try_from(number) {
            Ok(_) => Ok(Number(number)),
            Err(_) => Err(D::Error::custom("a number is too large")),
        }
    }
}

/// A time in RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        rfc3339(&text).map(Time).ok_or_else(|| D::Error::custom(format!("`{text}` is not a time of RFC 3339")))
    }
}

/// A validity period with both ends included. Without an end it does not end.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Validity {
    start: Option<Time>,
    end: Option<Time>,
}

impl Validity {
    pub(crate) fn holds(&self, time: Timestamp) -> bool {
        self.start.is_none_or(|start| start.0 <= time) && self.end.is_none_or(|end| time <= end.0)
    }

    /// Returns the beginning of the period, for selecting the newest service.
    pub(crate) fn start(&self) -> Option<Timestamp> {
        self.start.map(|start| start.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_one_way() {
        for (text, expected) in [
            ("\"5\"", Some(5)),
            ("5", Some(5)),
            ("\"0\"", Some(0)),
            ("\"9223372036854775807\"", Some(i64::MAX as u64)),
            ("\"9223372036854775808\"", None),
            ("9223372036854775808", None),
            ("\"05\"", None),
            ("\"+5\"", None),
            ("\"-5\"", None),
            ("-5", None),
            ("5.5", None),
            ("\"\"", None),
            ("null", None),
        ] {
            assert_eq!(serde_json::from_str::<Number>(text).ok(), expected.map(Number), "{text}");
        }
    }

    #[test]
    fn a_validity_has_both_its_ends() {
        let validity: Validity =
            serde_json::from_str(r#"{"start": "2022-04-13T20:06:15.000Z", "end": "2022-12-31T23:59:59.999Z"}"#)
                .unwrap();
        for (time, holds) in [
            ("2022-04-13T20:06:14Z", false),
            ("2022-04-13T20:06:15Z", true),
            ("2022-12-31T23:59:59.999Z", true),
            ("2023-01-01T00:00:00Z", false),
        ] {
            assert_eq!(validity.holds(time.parse().unwrap()), holds, "{time}");
        }
        assert!(serde_json::from_str::<Validity>(r#"{"from": "2022-04-13T20:06:15Z"}"#).is_err());
        assert!(serde_json::from_str::<Validity>(r#"{"start": "yesterday"}"#).is_err());
    }
}
