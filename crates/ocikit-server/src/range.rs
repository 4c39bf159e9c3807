//! Parses byte ranges: `Range` in requests for blobs, and `Content-Range` of upload chunks.

use std::ops::Range;

/// Maximum number of ranges in one request. A request with more gets the whole blob.
const MAX_RANGES: usize = 64;

/// The part of a blob that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestedRanges {
    /// The whole blob: status 200.
    Whole,
    /// Some ranges, none of them empty: status 206.
    Ranges(Vec<Range<u64>>),
    /// No satisfiable range: status 416.
    Unsatisfiable,
}

/// Parses a `Range` header by RFC 9110, section 14.2, for a blob of this size.
///
/// A header that is not a list of byte ranges is ignored, as the RFC requires. A range whose end precedes its start is
/// not satisfiable.
pub(crate) fn requested_ranges(header: Option<&str>, size: u64) -> RequestedRanges {
    let Some(mut parts) = header.and_then(|header| byte_ranges(header, size)) else { return RequestedRanges::Whole };
    parts.retain(|part| part.start < part.end);
    // Many small overlapping ranges could make the server send a blob many times over.
    let total: u64 = parts.iter().map(|part| part.end - part.start).fold(0, u64::saturating_add);
    match parts.len() {
        0 => RequestedRanges::Unsatisfiable,
        count if count > MAX_RANGES || total > size => RequestedRanges::Whole,
        _ => RequestedRanges::Ranges(parts),
    }
}

/// Returns the ranges of a header, some of them empty; `None` if it is not a list of byte ranges.
fn byte_ranges(header: &str, size: u64) -> Option<Vec<Range<u64>>> {
    let (unit, list) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let texts = list.split(',').map(str::trim).filter(|text| !text.is_empty());
    let ranges: Option<Vec<_>> = texts.map(|text| byte_range(text, size)).collect();
    ranges.filter(|ranges| !ranges.is_empty())
}

/// Parses `first-last`, `first-` without an end, or `-length`.
fn byte_range(text: &str, size: u64) -> Option<Range<u64>> {
    Some(match text.split_once('-')? {
        ("", length) => size.saturating_sub(number(length)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => number(first)?..number(last)?.saturating_add(1).min(size),
    })
}

/// Parses decimal digits only. An overflow saturates, since it exceeds the size of any blob.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The position of a chunk in an upload, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl ContentRange {
    /// Parses `first-last`, the form of the distribution specification, or `bytes first-last/total` of RFC 9110.
    pub(crate) fn parse(header: &str) -> Option<ContentRange> {
        let text = header.trim();
        let text = match text.get(..5) {
            Some(unit) if unit.eq_ignore_ascii_case("bytes") => text[5..].trim_start_matches([' ', '=']),
            _ => text,
        };
        let text = text.split_once('/').map_or(text, |(range, _)| range);
        let (first, last) = text.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        (first <= last && last < u64::MAX).then_some(ContentRange { first, last })
    }

    pub(crate) fn length(&self) -> u64 {
        self.last - self.first + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_range_headers() {
        let parts =
            |parts: &[(u64, u64)]| RequestedRanges::Ranges(parts.iter().map(|(start, end)| *start..*end).collect());
        for (header, expected) in [
            ("bytes=0-0", parts(&[(0, 1)])),
            ("bytes=0-9", parts(&[(0, 10)])),
            ("bytes=0-99", parts(&[(0, 10)])),
            ("bytes=3-", parts(&[(3, 10)])),
            ("bytes=-3", parts(&[(7, 10)])),
            ("bytes=-99", parts(&[(0, 10)])),
            ("Bytes = 2-4", parts(&[(2, 5)])),
            ("bytes=0-1, 4-5,,8-", parts(&[(0, 2), (4, 6), (8, 10)])),
            ("bytes=0-1,50-60", parts(&[(0, 2)])),
            ("bytes=9-99999999999999999999999", parts(&[(9, 10)])),
            ("bytes=10-", RequestedRanges::Unsatisfiable),
            ("bytes=10-20", RequestedRanges::Unsatisfiable),
            ("bytes=-0", RequestedRanges::Unsatisfiable),
            ("bytes=5-2", RequestedRanges::Unsatisfiable),
            ("bytes=99999999999999999999999-", RequestedRanges::Unsatisfiable),
            ("bytes=0-9,0-9", RequestedRanges::Whole),
            ("bytes=", RequestedRanges::Whole),
            ("bytes", RequestedRanges::Whole),
            ("bytes=a-b", RequestedRanges::Whole),
            ("bytes=1-2,x", RequestedRanges::Whole),
            ("bytes=+1-2", RequestedRanges::Whole),
            ("bytes=-", RequestedRanges::Whole),
            ("items=0-1", RequestedRanges::Whole),
            ("", RequestedRanges::Whole),
        ] {
            assert_eq!(requested_ranges(Some(header), 10), expected, "{header}");
        }
        assert_eq!(requested_ranges(None, 10), RequestedRanges::Whole);
        assert_eq!(requested_ranges(Some("bytes=0-"), 0), RequestedRanges::Unsatisfiable);
        let many = format!("bytes={}", (0..100).map(|at| format!("{at}-{at}")).collect::<Vec<_>>().join(","));
        assert_eq!(requested_ranges(Some(&many), 1000), RequestedRanges::Whole);
    }

    #[test]
    fn parses_both_forms_of_content_range() {
        for (header, expected) in [
            ("0-1023", Some((0, 1023))),
            ("1024-1024", Some((1024, 1024))),
            ("bytes 0-9/10", Some((0, 9))),
            ("bytes 0-9/*", Some((0, 9))),
            ("bytes=5-9", Some((5, 9))),
            (" 5-9 ", Some((5, 9))),
            ("9-5", None),
            ("-5", None),
            ("5-", None),
            ("", None),
            ("5", None),
            ("a-b", None),
            ("0-18446744073709551615", None),
            ("bytes */10", None),
            ("ébytes", None),
        ] {
            let found = ContentRange::parse(header).map(|range| (range.first, range.last));
            assert_eq!(found, expected, "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_range_is_within_the_blob(header in "bytes=[0-9, -]{0,40}|.*", size in 0u64..100) {
            match requested_ranges(Some(&header), size) {
                RequestedRanges::Ranges(parts) => {
                    proptest::prop_assert!(!parts.is_empty());
                    for part in parts {
                        proptest::prop_assert!(part.start < part.end && part.end <= size, "{part:?}");
                    }
                }
                RequestedRanges::Whole | RequestedRanges::Unsatisfiable => {}
            }
        }

        #[test]
        fn content_range_round_trips(first in 0u64..1 << 60, more in 0u64..1 << 60) {
            let range = ContentRange { first, last: first + more };
            proptest::prop_assert_eq!(ContentRange::parse(&format!("{first}-{}", first + more)), Some(range));
            proptest::prop_assert_eq!(range.length(), more + 1);
        }

        #[test]
        fn any_content_range_is_parsed_without_panic(header in "(bytes[ =])?[0-9/*-]{0,30}|.*") {
            if let Some(range) = ContentRange::parse(&header) {
                proptest::prop_assert!(range.length() > 0);
            }
        }
    }
}
