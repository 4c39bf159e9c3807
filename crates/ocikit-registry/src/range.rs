//! Byte ranges in HTTP headers.

/// Returns the value of a `Range` header for `length` bytes from an offset on.
pub(crate) fn request(offset: u64, length: u64) -> String {
    format!("bytes={offset}-{}", offset + length.max(1) - 1)
}

/// Returns the value of a `Content-Range` header for a chunk of an upload. The distribution specification defines it
/// without a unit; both ends are inclusive.
pub(crate) fn chunk(offset: u64, length: u64) -> String {
    format!("{offset}-{}", offset + length.max(1) - 1)
}

/// Returns the offset at which a partial answer begins, from its `Content-Range`.
pub(crate) fn answered(header: &str) -> Option<u64> {
    let range = header.trim().strip_prefix("bytes")?.trim_start_matches([' ', '=']);
    range.split('-').next()?.trim().parse().ok()
}

/// Returns the length of the complete blob, from the `Content-Range` of a partial answer.
pub(crate) fn total(header: &str) -> Option<u64> {
    header.rsplit_once('/')?.1.trim().parse().ok()
}

/// Returns the number of bytes that an upload session has received, from its `Range`: `0-9` means 10.
///
/// `0-0` means 1 by the grammar, but registries also send it for an empty session (distribution/distribution#2363).
/// This function returns 1; the caller resolves the ambiguity.
pub(crate) fn received(header: &str) -> Option<u64> {
    let range = header.trim();
    let range = range.strip_prefix("bytes").map_or(range, |range| range.trim_start_matches([' ', '=']));
    let (start, end) = range.split_once('-')?;
    let end = end.split('/').next()?.trim();
    if start.trim().parse::<u64>().ok()? != 0 {
        return None;
    }
    // Pulp sent `0--1` for an empty session (pulp/pulp_container#430).
    if end == "-1" {
        return Some(0);
    }
    end.parse::<u64>().ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_received_range() {
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
    fn parses_content_range() {
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
    fn ranges_include_both_ends() {
        assert_eq!(request(5, 10), "bytes=5-14");
        assert_eq!(chunk(0, 1), "0-0");
    }
}
