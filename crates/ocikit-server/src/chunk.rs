//! Decides which bytes may continue an upload.

use crate::range::ContentRange;

/// The progress of an upload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Number of received bytes.
    pub(crate) received: u64,
    /// Whether a chunk was shorter than the minimum, which is allowed for the last one only.
    pub(crate) short: bool,
}

impl Progress {
    /// Returns the `Range` header for this progress.
    ///
    /// Both ends are inclusive, so an empty upload cannot be expressed. Like distribution, this returns `0-0`, which
    /// clients expect (distribution/distribution#2363).
    pub(crate) fn range(&self) -> String {
        format!("0-{}", self.received.saturating_sub(1))
    }
}

/// The headers that describe the bytes of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// `Content-Range`; without it the bytes follow the received ones.
    pub(crate) range: Option<ContentRange>,
    /// `Content-Length`; `None` for a body of unknown length.
    pub(crate) length: Option<u64>,
}

/// Why the bytes of a request are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// They do not follow the received ones: status 416.
    #[error("the chunk begins at {first}, but {received} bytes were received")]
    OutOfOrder { first: u64, received: u64 },
    /// Their number differs from the announced one.
    #[error("the content range has {claimed} bytes, the body has {actual}")]
    Length { claimed: u64, actual: u64 },
    /// A chunk below the minimum size came before, which must be the last.
    #[error("only the last chunk may be shorter than {least} bytes")]
    AfterShort { least: u64 },
}

/// Returns the number of bytes to expect, where known, if the chunk may continue the upload.
pub(crate) fn admit(progress: Progress, chunk: Chunk, least: Option<u64>) -> Result<Option<u64>, Unfit> {
    if chunk.length == Some(0) && chunk.range.is_none() {
        return Ok(Some(0));
    }
    let length = match (chunk.range, chunk.length) {
        (Some(range), _) if range.first != progress.received => {
            return Err(Unfit::OutOfOrder { first: range.first, received: progress.received });
        }
        (Some(range), Some(length)) if length != range.length() => {
            return Err(Unfit::Length { claimed: range.length(), actual: length });
        }
        (Some(range), _) => Some(range.length()),
        (None, length) => length,
    };
    match least {
        Some(least) if progress.short => Err(Unfit::AfterShort { least }),
        _ => Ok(length),
    }
}

/// Returns the progress after more bytes.
pub(crate) fn advance(progress: Progress, bytes: u64, least: Option<u64>) -> Progress {
    Progress {
        received: progress.received + bytes,
        short: progress.short || (bytes > 0 && least.is_some_and(|least| bytes < least)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(range: &str, length: Option<u64>) -> Chunk {
        Chunk { range: ContentRange::parse(range), length }
    }

    #[test]
    fn chunks_must_be_contiguous() {
        for (received, range, length, expected) in [
            (0, "", None, Ok(None)),
            (0, "", Some(5), Ok(Some(5))),
            (7, "", Some(5), Ok(Some(5))),
            (7, "", Some(0), Ok(Some(0))),
            (0, "0-4", Some(5), Ok(Some(5))),
            (0, "0-4", None, Ok(Some(5))),
            (5, "5-9", Some(5), Ok(Some(5))),
            (5, "0-4", Some(5), Err(Unfit::OutOfOrder { first: 0, received: 5 })),
            (5, "6-9", Some(4), Err(Unfit::OutOfOrder { first: 6, received: 5 })),
            (0, "1-4", None, Err(Unfit::OutOfOrder { first: 1, received: 0 })),
            (0, "0-4", Some(4), Err(Unfit::Length { claimed: 5, actual: 4 })),
            (0, "0-4", Some(0), Err(Unfit::Length { claimed: 5, actual: 0 })),
        ] {
            let progress = Progress { received, short: false };
            assert_eq!(admit(progress, chunk(range, length), None), expected, "{received} {range} {length:?}");
        }
    }

    #[test]
    fn only_the_last_chunk_may_be_short() {
        let least = Some(10);
        let full = advance(Progress::default(), 10, least);
        assert_eq!(full, Progress { received: 10, short: false });
        let short = advance(full, 9, least);
        assert_eq!(short, Progress { received: 19, short: true });
        assert_eq!(admit(short, chunk("19-28", Some(10)), least), Err(Unfit::AfterShort { least: 10 }));
        assert_eq!(admit(short, chunk("", Some(0)), least), Ok(Some(0)), "the closing request brings nothing");
        assert_eq!(admit(short, chunk("19-28", Some(10)), None), Ok(Some(10)));
        assert_eq!(advance(full, 0, least), full);
    }

    #[test]
    fn progress_is_reported_as_a_range() {
        for (received, range) in [(0, "0-0"), (1, "0-0"), (2, "0-1"), (1000, "0-999")] {
            assert_eq!(Progress { received, short: false }.range(), range);
        }
    }
}
