use std::fmt;

use crate::tags::Release;

/// A version `MAJOR.MINOR.PATCH`: three numbers without leading zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The major version.
    pub major: u64,
    /// The minor version.
    pub minor: u64,
    /// The patch version.
    pub patch: u64,
}

/// The part of a version that a change increases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The third number.
    Patch,
    /// The second number.
    Minor,
    /// The first number.
    Major,
}

impl Level {
    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Level::Patch => "patch",
            Level::Minor => "minor",
            Level::Major => "major",
        }
    }
}

impl Version {
    /// Reads a version. `None` for anything but three numbers: no prefix, pre-release or build metadata.
    pub fn parse(text: &str) -> Option<Version> {
        let Release { major, minor, patch } = Release::of_tag(text)?;
        // Not with a prefix or leading zeros.
        Some(Version { major, minor, patch }).filter(|version| version.to_string() == text)
    }

    /// Returns the length of the version at the beginning of a tag, which may have a suffix such as `-alpine`.
    pub(super) fn prefix_of(tag: &[u8]) -> Option<(Version, usize)> {
        let end = tag.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.').unwrap_or(tag.len());
        let version = Version::parse(std::str::from_utf8(&tag[..end]).ok()?)?;
        // `1.0.0a` is another version, and `1.0.0-alpine` a variant of one.
        matches!(tag.get(end), None | Some(b'-' | b'_')).then_some((version, end))
    }

    /// Returns the next version; `None` if a number would overflow.
    pub fn next(self, level: Level) -> Option<Version> {
        let Version { major, minor, patch } = self;
        Some(match level {
            Level::Patch => Version { major, minor, patch: patch.checked_add(1)? },
            Level::Minor => Version { major, minor: minor.checked_add(1)?, patch: 0 },
            Level::Major => Version { major: major.checked_add(1)?, minor: 0, patch: 0 },
        })
    }

    /// Returns the part that changed from another version; a patch if this one is older.
    pub fn level_from(self, before: Version) -> Level {
        if self.major > before.major {
            Level::Major
        } else if self.major == before.major && self.minor > before.minor {
            Level::Minor
        } else {
            Level::Patch
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_three_numbers() {
        assert_eq!(Version::parse("1.2.10").map(|version| version.to_string()).as_deref(), Some("1.2.10"));
        for text in ["", "1.2", "1.2.3.4", "1.0.0-rc1", "v1.0.0", "1..0", "01.0.0", "1.0.x", "1.0.99999999999999999999"]
        {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        for (tag, expected) in [
            ("1.2.3", Some(5)),
            ("1.2.3-alpine", Some(5)),
            ("1.2.3_x", Some(5)),
            ("1.2.3a", None),
            ("1.2.3.4", None),
            ("1.2", None),
            ("latest", None),
        ] {
            assert_eq!(Version::prefix_of(tag.as_bytes()).map(|(_, length)| length), expected, "{tag}");
        }
    }

    #[test]
    fn a_bump_resets_the_lower_numbers() {
        let version = Version::parse("1.2.9").unwrap();
        for (level, next) in [(Level::Patch, "1.2.10"), (Level::Minor, "1.3.0"), (Level::Major, "2.0.0")] {
            let bumped = version.next(level).unwrap();
            assert_eq!((bumped.to_string().as_str(), bumped.level_from(version)), (next, level));
        }
        assert_eq!(version.level_from(Version::parse("2.0.0").unwrap()), Level::Patch);
        let last = Version { patch: u64::MAX, ..version };
        assert_eq!(last.next(Level::Patch), None);
    }
}
