//! Errors of parsing texts and documents.

use std::borrow::Cow;
use std::ops::Range;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A text or document is invalid.
///
/// Every variant carries the text or its start, so that a caller can show what was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not of the form `algorithm:hex`, or of the wrong length for the algorithm.
    #[error("`{text}` is not a digest: {problem}")]
    Digest {
        /// The text.
        text: String,
        /// The reason.
        problem: &'static str,
    },
    /// A well-formed digest of an algorithm other than sha256 and sha512.
    #[error("digest algorithm `{algorithm}` is not supported")]
    Algorithm {
        /// The text before the colon.
        algorithm: String,
    },
    /// Not a tag by the grammar of the distribution specification.
    #[error("`{text}` is not a tag: {problem}")]
    Tag {
        /// The text.
        text: String,
        /// The reason.
        problem: &'static str,
    },
    /// Not a registry, repository or reference by the common grammar of Docker and the distribution specification.
    #[error("`{text}` is not an image reference: {problem}")]
    Reference {
        /// The text.
        text: String,
        /// The reason.
        problem: &'static str,
    },
    /// The transport of another tool, which locations do not have.
    #[error("the transport `{transport}` is not supported")]
    Transport {
        /// The prefix, with its colon.
        transport: &'static str,
        /// What to write instead, as an imperative sentence.
        instead: &'static str,
    },
    /// Not of the form `os/architecture[/variant]`.
    #[error("`{text}` is not a platform: {problem}")]
    Platform {
        /// The text.
        text: String,
        /// The reason.
        problem: &'static str,
    },
    /// Not a valid document.
    #[error("not a valid {document}: {problem}")]
    Document {
        /// The expected document: `document`, `manifest`, `index`, `config` or `statement`.
        document: &'static str,
        /// The violation of the specification.
        problem: String,
    },
}

/// Returns the start of a text, short enough for a message, without user information.
pub(crate) fn excerpt(text: &str) -> String {
    const MAX_EXCERPT_CHARS: usize = 200;
    let text = hide_user_information(text);
    match text.char_indices().nth(MAX_EXCERPT_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into_owned(),
    }
}

/// Replaces the user name and password in a reference or URL by `***`. Messages use it for every text that was meant as one:
/// `https://alice:secret@ghcr.io/app` becomes `https://***@ghcr.io/app`.
///
/// ```
/// assert_eq!(ocikit_spec::hide_user_information("docker://alice:secret@ghcr.io/app"), "docker://***@ghcr.io/app");
/// assert_eq!(ocikit_spec::hide_user_information("ghcr.io/app@sha256:12"), "ghcr.io/app@sha256:12");
/// ```
pub fn hide_user_information(text: &str) -> Cow<'_, str> {
    match user_information(text) {
        Some(range) => Cow::Owned(format!("{}***{}", &text[..range.start], &text[range.end..])),
        None => Cow::Borrowed(text),
    }
}

/// Returns the place of `USER:PASSWORD` before a host. RFC 3986, section 3.2.1. A password may have any characters here, since
/// people paste them without encoding.
pub(crate) fn user_information(text: &str) -> Option<Range<usize>> {
    let start = text.find("://").map(|at| at + "://".len());
    let mut end = text.len();
    loop {
        let at = start.unwrap_or_default() + text[start.unwrap_or_default()..end].rfind('@')?;
        let after = &text[at + 1..end];
        if is_like_digest(after) {
            end = at;
            continue;
        }
        let is_host = after == "localhost" || after.contains(['/', '.', ':']);
        return match start {
            Some(start) => Some(start..at),
            // Without a scheme, only a name with a password before a host is certain.
            None => (is_host && text[..at].contains(':')).then_some(0..at),
        };
    }
}

/// Returns whether a text is `ALGORITHM:HEX`, and not `HOST:PORT`.
fn is_like_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, value)| {
        let is_port = value.len() <= 5 && value.bytes().all(|byte| byte.is_ascii_digit());
        !algorithm.contains('.') && !value.contains(['/', ':']) && (!is_port || algorithm.starts_with("sha"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_information_is_hidden() {
        for (text, shown) in [
            ("docker://user:s3cret@127.0.0.1:5901/a/b:1", "docker://***@127.0.0.1:5901/a/b:1"),
            ("https://user:s3cret@ghcr.io/a", "https://***@ghcr.io/a"),
            ("https://s3cret@ghcr.io/a", "https://***@ghcr.io/a"),
            ("user:s3cret@ghcr.io/a:1", "***@ghcr.io/a:1"),
            ("user:s3cret@localhost:5000", "***@localhost:5000"),
            ("user:s3/cr@et@ghcr.io/a@sha256:12", "***@ghcr.io/a@sha256:12"),
            ("ghcr.io/a:1@sha256:12", "ghcr.io/a:1@sha256:12"),
            ("ghcr.io/a:1@sha999:1234567", "ghcr.io/a:1@sha999:1234567"),
            ("alpine:3@latest", "alpine:3@latest"),
            ("alpine@latest", "alpine@latest"),
            ("", ""),
        ] {
            assert_eq!(hide_user_information(text), shown);
        }
    }
}
