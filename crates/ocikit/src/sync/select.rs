use std::collections::HashSet;

use ocikit_image::Name;
use ocikit_spec::{Digest, Tag};
use regex::Regex;

use super::versions::{InvalidVersions, Versions};

/// The selected tags of a repository: those that are listed, match a pattern or are versions in a range, without the
/// exceptions. All tags if none of these is given.
#[derive(Debug, Clone, Default)]
pub struct Select {
    names: Vec<Name>,
    matches: Vec<Regex>,
    versions: Option<Versions>,
    except: Vec<Regex>,
}

/// An invalid selection of tags.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidSelection {
    /// Neither a tag nor a digest.
    #[error(transparent)]
    Name(#[from] ocikit_spec::Error),
    /// An invalid regular expression.
    #[error("the regex `{text}`: {source}")]
    Regex { text: String, source: regex::Error },
    /// An invalid range of versions.
    #[error(transparent)]
    Versions(#[from] InvalidVersions),
}

impl Select {
    pub(super) fn of(
        names: &[String],
        matches: &[String],
        versions: Option<&str>,
        except: &[String],
    ) -> Result<Select, InvalidSelection> {
        Ok(Select {
            names: names.iter().map(|name| name_of(name)).collect::<Result<_, _>>()?,
            matches: expressions(matches)?,
            versions: versions.map(str::parse).transpose()?,
            except: expressions(except)?,
        })
    }

    /// Returns whether the selection requires the list of tags of the repository.
    pub(super) fn needs_list(&self) -> bool {
        self.names.is_empty() || !self.matches.is_empty() || self.versions.is_some()
    }

    /// Returns the selected tags out of these, and the listed names whether they exist or not, each once.
    pub(super) fn choose(&self, tags: &[Tag]) -> Vec<Name> {
        let everything = self.names.is_empty() && self.matches.is_empty() && self.versions.is_none();
        let is_meant = |tag: &&Tag| {
            everything
                || self.matches.iter().any(|expression| expression.is_match(tag.as_str()))
                || self.versions.as_ref().is_some_and(|versions| versions.contain(tag.as_str()))
        };
        let listed = tags.iter().filter(is_meant).cloned().map(Name::Tag);
        let is_wanted = |name: &Name| match name {
            Name::Tag(tag) => !self.except.iter().any(|expression| expression.is_match(tag.as_str())),
            _ => true,
        };
        let mut seen = HashSet::new();
        let all = self.names.iter().cloned().chain(listed);
        all.filter(is_wanted).filter(|name| seen.insert(name.to_string())).collect()
    }
}

fn name_of(text: &str) -> Result<Name, InvalidSelection> {
    if let Ok(digest) = text.parse::<Digest>() {
        return Ok(Name::Digest(digest));
    }
    Ok(Name::Tag(text.parse()?))
}

fn expressions(texts: &[String]) -> Result<Vec<Regex>, InvalidSelection> {
    let one = |text: &String| Regex::new(text).map_err(|source| InvalidSelection::Regex { text: text.clone(), source });
    texts.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_chosen() {
        let tags: Vec<Tag> =
            ["latest", "1.0", "1.1", "1.1-rc1", "2.0", "nightly"].iter().map(|tag| tag.parse().unwrap()).collect();
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for (names, matches, versions, except, expected) in [
            (vec![], vec![], None, vec![], vec!["latest", "1.0", "1.1", "1.1-rc1", "2.0", "nightly"]),
            (vec!["gone", "1.0"], vec![], None, vec![], vec!["gone", "1.0"]),
            (vec!["latest"], vec!["^1\\."], None, vec!["rc"], vec!["latest", "1.0", "1.1"]),
            (vec![], vec![], Some(">=1.1"), vec![], vec!["1.1", "2.0"]),
            (vec!["2.0"], vec![], Some("1.x"), vec!["^1.0$"], vec!["2.0", "1.1"]),
        ] {
            let select = Select::of(&texts(&names), &texts(&matches), versions, &texts(&except)).unwrap();
            let chosen = select.choose(&tags).into_iter().map(|name| match name {
                Name::Tag(tag) => tag.to_string(),
                name => name.to_string(),
            });
            let chosen: Vec<_> = chosen.collect();
            assert_eq!(chosen, expected);
        }
    }
}
