use std::str::FromStr;

use semver::{Version, VersionReq};

/// A range of versions in the syntax of container tools: `>=3.12, <4`, `3.12 - 3.14`, `~1.2 || ^2`, `1.x`, `!=1.3`. A
/// version without an operator matches itself, or all versions with it as their prefix.
#[derive(Debug, Clone)]
pub struct Versions(Vec<Alternative>);

#[derive(Debug, Clone)]
struct Alternative {
    within: VersionReq,
    without: Vec<VersionReq>,
}

impl Versions {
    /// Returns whether a tag is a version in the range: `1.2.3`, `v1.2`, `1`. A tag with a suffix, such as
    /// `1.2-alpine`, matches only if the range has a suffix for the same version.
    pub fn contain(&self, tag: &str) -> bool {
        let Some(version) = version(tag) else { return false };
        self.0.iter().any(|alternative| {
            alternative.within.matches(&version) && !alternative.without.iter().any(|without| without.matches(&version))
        })
    }
}

/// Parses a tag as a version; missing components are zero.
fn version(tag: &str) -> Option<Version> {
    let text = tag.strip_prefix('v').unwrap_or(tag);
    let (numbers, rest) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
    let missing = match numbers.split('.').count() {
        1 => ".0.0",
        2 => ".0",
        _ => "",
    };
    Version::parse(&format!("{numbers}{missing}{rest}")).ok()
}

impl FromStr for Versions {
    type Err = InvalidVersions;

    fn from_str(text: &str) -> Result<Versions, InvalidVersions> {
        let alternatives = text.split("||").map(|part| alternative(part.trim()));
        let alternatives: Result<_, VersionsProblem> = alternatives.collect();
        alternatives.map(Versions).map_err(|problem| InvalidVersions { text: text.to_owned(), problem })
    }
}

/// An invalid range of versions.
#[derive(Debug, thiserror::Error)]
#[error("the versions `{text}`: {problem}")]
#[non_exhaustive]
pub struct InvalidVersions {
    /// The range.
    pub text: String,
    /// What is wrong with it.
    pub problem: VersionsProblem,
}

/// A problem of a range of versions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VersionsProblem {
    /// An operator without a version, or an empty alternative.
    #[error("a version is missing")]
    Missing,
    /// A malformed version or operator.
    #[error(transparent)]
    Syntax(#[from] semver::Error),
}

fn alternative(text: &str) -> Result<Alternative, VersionsProblem> {
    let parse = |text: &str| VersionReq::parse(text);
    if let Some((low, high)) = text.split_once(" - ") {
        return Ok(Alternative { within: parse(&format!(">={}, <={}", bare(low), bare(high)))?, without: Vec::new() });
    }
    let mut within = Vec::new();
    let mut without = Vec::new();
    let mut operator = String::new();
    for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
        let at = word.find(|letter: char| !"<>=!~^".contains(letter)).unwrap_or(word.len());
        operator.push_str(&word[..at]);
        if at == word.len() {
            // The version follows after a space.
            continue;
        }
        let version = bare(&word[at..]);
        if operator.is_empty() && ["*", "x", "X"].contains(&version) {
            within.push("*".to_owned());
            continue;
        }
        match std::mem::take(&mut operator).as_str() {
            "" => within.push(format!("={version}")),
            "!=" => without.push(parse(&format!("={version}"))?),
            "=>" => within.push(format!(">={version}")),
            "=<" => within.push(format!("<={version}")),
            "~>" => within.push(format!("~{version}")),
            operator => within.push(format!("{operator}{version}")),
        }
    }
    if !operator.is_empty() || (within.is_empty() && without.is_empty()) {
        return Err(VersionsProblem::Missing);
    }
    let within = if within.is_empty() { VersionReq::STAR } else { parse(&within.join(", "))? };
    Ok(Alternative { within, without })
}

fn bare(version: &str) -> &str {
    let version = version.trim();
    version.strip_prefix('v').unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_match_like_in_other_tools() {
        for (range, inside, outside) in [
            (">=3.12, <4", vec!["3.12", "v3.12.1", "3.99"], vec!["3.11.9", "4", "4.0.0", "latest", "3.13-rc1"]),
            (">= 3.12 < 4", vec!["3.12", "3.20.3"], vec!["4.0", "3.1"]),
            ("3.12 - 3.13", vec!["3.12.0", "3.13.7"], vec!["3.14", "3.11"]),
            ("1.2.3", vec!["1.2.3", "v1.2.3"], vec!["1.2.4", "1.3"]),
            ("1.2", vec!["1.2", "1.2.9"], vec!["1.3", "2"]),
            ("1.x", vec!["1", "1.9.9"], vec!["2.0", "0.9"]),
            ("~1.2 || ^2.1", vec!["1.2.5", "2.9"], vec!["1.3", "2.0", "3.1"]),
            // Greater than all versions with the prefix 1.
            (">1, !=2.3", vec!["2.0", "3.1"], vec!["1.4", "2.3.1"]),
            ("*", vec!["0.1", "9"], vec!["stable"]),
        ] {
            let versions: Versions = range.parse().unwrap();
            for tag in inside {
                assert!(versions.contain(tag), "{range} {tag}");
            }
            for tag in outside {
                assert!(!versions.contain(tag), "{range} {tag}");
            }
        }
        for range in ["", "x.y", ">=", "1 - ", ">=1, ,<"] {
            assert!(range.parse::<Versions>().is_err(), "{range}");
        }
    }
}
