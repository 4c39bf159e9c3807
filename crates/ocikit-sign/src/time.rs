//! Parsing and formatting of times.

use jiff::Timestamp;

/// Parses a time in RFC 3339 as strictly as protocol buffers and Go: capital letters, all fields, a fraction of at
/// most nine digits, no leap second. General parsers accept more, and then two programs disagree on what is valid.
pub(crate) fn rfc3339(text: &str) -> Option<Timestamp> {
    let shape = text.get(..19)?.bytes().zip("0000-00-00T00:00:00".bytes());
    let fits = |(byte, wanted): (u8, u8)| if wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted };
    // RFC 3339, 5.7: second 60 is valid only for an inserted leap second, which is not known here.
    if !{ shape }.all(fits) || text.get(17..19)? > "59" || text.get(11..13)? > "23" {
        return None;
    }
    let rest = text.get(19..)?;
    let offset = match rest.strip_prefix('.') {
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            (1..=9).contains(&digits).then(|| rest.get(digits..))??
        }
        None => rest,
    };
    let is_offset = match offset.as_bytes() {
        b"Z" => true,
        [b'+' | b'-', hours @ .., b':', _, _] if hours.len() == 2 => {
            let (hours, minutes) = (offset.get(1..3)?, offset.get(4..6)?);
            let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            is_number(hours) && is_number(minutes) && hours <= "23" && minutes <= "59"
        }
        _ => false,
    };
    is_offset.then(|| text.parse().ok())?
}

/// Formats a time as RFC 3339 without fractions of seconds.
pub(crate) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_strictly() {
        for (text, expected) in [
            ("2022-04-13T20:06:15Z", Some("2022-04-13T20:06:15Z")),
            ("2022-04-13T20:06:15.000Z", Some("2022-04-13T20:06:15Z")),
            ("2022-12-31T23:59:59.999Z", Some("2022-12-31T23:59:59.999Z")),
            ("2022-04-13T20:06:15.123456789Z", Some("2022-04-13T20:06:15.123456789Z")),
            // Go writes the local offset.
            ("2024-04-04T14:20:21-07:00", Some("2024-04-04T21:20:21Z")),
            ("2024-04-04T14:20:21.5+05:30", Some("2024-04-04T08:50:21.5Z")),
            ("2024-02-29T00:00:00Z", Some("2024-02-29T00:00:00Z")),
            ("1970-01-01T00:00:00Z", Some("1970-01-01T00:00:00Z")),
            ("2023-02-29T00:00:00Z", None),
            ("2022-13-01T00:00:00Z", None),
            ("2022-04-13", None),
            ("2022-04-13T20:06:15", None),
            ("2022-04-13T20:06Z", None),
            ("2022-04-13T20Z", None),
            ("2022-04-13 20:06:15Z", None),
            ("2022-04-13t20:06:15Z", None),
            ("2022-04-13T20:06:15z", None),
            ("20220413T200615Z", None),
            ("2022-04-13T200615Z", None),
            ("2022-W15-3T20:06:15Z", None),
            ("2022-04-13T20:06:15,5Z", None),
            ("2022-04-13T20:06:15.Z", None),
            ("2022-04-13T20:06:15.0000000001Z", None),
            ("2022-04-13T24:00:00Z", None),
            ("2022-04-13T20:60:15Z", None),
            ("2022-06-30T23:59:60Z", None),
            ("2022-04-13T20:06:15+02", None),
            ("2022-04-13T20:06:15+0200", None),
            ("2022-04-13T20:06:15+24:00", None),
            ("2022-04-13T20:06:15+02:60", None),
            ("2022-04-13T20:06:15+02:00:30", None),
            ("2022-04-13T20:06:15+02:00[Europe/Berlin]", None),
            ("2022-04-13T20:06:15Z[UTC]", None),
            ("+002022-04-13T20:06:15Z", None),
            ("-02022-04-13T20:06:15Z", None),
            (" 2022-04-13T20:06:15Z", None),
            ("2022-04-13T20:06:15Z ", None),
            ("２022-04-13T20:06:15Z", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(rfc3339(text).map(|time| time.to_string()).as_deref(), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn untrusted_input_does_not_panic(text in ".*", digits in "[0-9T:Z+.-]{0,40}") {
            let _ = (rfc3339(&text), rfc3339(&digits));
        }
    }
}
