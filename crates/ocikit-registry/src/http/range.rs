//! Ranges of bytes in headers.

/// The value of a `Range` header for bytes from an offset on, up to so many of them.
pub(crate) fn request(offset: u64, length: u64) -> String {
    format!("bytes={offset}-{}", offset + length.max(1) - 1)
}

/// The value of a `Content-Range` header as uploads have it: without a unit, both ends included.
pub(crate) fn chunk(offset: u64, length: u64) -> String {
    format!("{offset}-{}", offset + length.max(1) - 1)
}

/// Where an answer begins, by its `Content-Range`.
pub(crate) fn answered(header: &str) -> Option<u64> {
    let range = header.trim().strip_prefix("bytes")?.trim_start_matches([' ', '=']);
    range.split('-').next()?.trim().parse().ok()
}

/// How long the whole is, by the `Content-Range` of a part.
pub(crate) fn total(header: &str) -> Option<u64> {
    header.rsplit_once('/')?.1.trim().parse().ok()
}

/// How many bytes of an upload have arrived, by its `Range`: `0-9` means ten.
///
/// `0-0` means one by the grammar, and none where a registry has nothing yet and no other way to say so; which of the
/// two is for the caller to find out.
pub(crate) fn received(header: &str) -> Option<u64> {
    let range = header.trim();
    let range = range.strip_prefix("bytes").map_or(range, |range| range.trim_start_matches([' ', '=']));
    let (start, end) = range.split_once('-')?;
    let end = end.split('/').next()?.trim();
    if start.trim().parse::<u64>().ok()? != 0 {
        return None;
    }
    // Some write `0--1` for nothing.
    if end == "-1" {
        return Some(0);
    }
    end.parse::<u64>().ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_arrived() {
        for (header, count) in [
            ("0-9", Some(10)),
            ("bytes=0-9", Some(10)),
            ("bytes 0-9/100", Some(10)),
            ("0-0", Some(1)),
            ("0--1", Some(0)),
            ("5-9", None),
            ("0-", None),
            ("", None),
            ("-", None),
            ("x-y", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(received(header), count, "{header}");
        }
    }

    #[test]
    fn sees_where_an_answer_begins() {
        for (header, offset) in [
            ("bytes 5-9/10", (Some(5), Some(10))),
            ("bytes=5-9/10", (Some(5), Some(10))),
            ("bytes 5-9/*", (Some(5), None)),
            ("bytes */10", (None, Some(10))),
            ("items 5-9/10", (None, Some(10))),
            ("", (None, None)),
        ] {
            assert_eq!((answered(header), total(header)), offset, "{header}");
        }
    }

    #[test]
    fn both_ends_are_included() {
        assert_eq!(request(5, 10), "bytes=5-14");
        assert_eq!(chunk(0, 1), "0-0");
    }
}
