/// A release: a version without a pre-release part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The major version.
    pub major: u64,
    /// The minor version.
    pub minor: u64,
    /// The patch version.
    pub patch: u64,
}

impl Release {
    /// Parses `1.2.3` or `v1.2.3`.
    pub fn of_tag(text: &str) -> Option<Release> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts = text.split('.').map(number);
        let release = Release { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
        parts.next().is_none().then_some(release)
    }
}

fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// The versions among which a moving tag points to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Line {
    /// Those of a major version: the tag `1`.
    Major(u64),
    /// Those of a minor version: the tag `1.2`.
    Minor(u64, u64),
    /// All: the tag `latest`.
    All,
}

impl Line {
    /// Returns whether a version is in the line.
    pub fn has(self, release: Release) -> bool {
        match self {
            Line::Major(major) => release.major == major,
            Line::Minor(major, minor) => (release.major, release.minor) == (major, minor),
            Line::All => true,
        }
    }
}
