use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use regex::RegexBuilder;
use serde::Deserialize;

use super::environment::AllowedEnvironment;
use super::error::{MAX_TAGS, TagError};
use super::set::{Because, Builder, PlannedTag, tag};
use crate::git::GitState;
use crate::template::{Fields, Template, Value};

/// The maximum size of a compiled validation, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// The maximum size of encoded tags, in bytes.
const MAX_ENCODED_BYTES: usize = 1 << 20;
/// The name of the tag that must have a validation.
const DEFAULT_TAG: &str = "default_tag";
/// The number of characters of `.ShortSHA`.
const SHORT_COMMIT_CHARS: usize = 8;

/// A tag with a name, whose value is a template.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct NamedTag {
    /// The name: letters, digits, `_` and `-`.
    pub name: String,
    /// The template.
    pub value: String,
    /// A regular expression that the whole value must match.
    pub validation: Option<String>,
}

impl NamedTag {
    /// Creates a tag without a validation.
    ///
    /// # Errors
    ///
    /// [`TagError::Empty`] and [`TagError::Name`].
    pub fn new(name: &str, value: &str) -> Result<NamedTag, TagError> {
        let named = NamedTag { name: name.to_owned(), value: value.to_owned(), validation: None };
        named.check()?;
        Ok(named)
    }

    /// Checks name and value, which a configuration file may have wrong.
    pub(crate) fn check(&self) -> Result<(), TagError> {
        let NamedTag { name, value, validation } = self;
        if name.is_empty() || value.is_empty() {
            return Err(TagError::Empty { text: if name.is_empty() { value } else { name }.clone() });
        }
        if !is_name(name) {
            return Err(TagError::Name { name: name.clone() });
        }
        if name == DEFAULT_TAG && validation.as_deref().unwrap_or_default().is_empty() {
            return Err(TagError::NoValidation { name: name.clone() });
        }
        self.pattern()?;
        self.template().map(|_| ())
    }

    fn template(&self) -> Result<Template, TagError> {
        self.value.parse().map_err(|source| TagError::Template { name: self.name.clone(), source })
    }

    fn pattern(&self) -> Result<Option<regex::Regex>, TagError> {
        let Some(pattern) = self.validation.as_deref().filter(|pattern| !pattern.is_empty()) else { return Ok(None) };
        // The value must match from its beginning to its end, whatever the pattern says.
        let built = RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(MAX_PATTERN_BYTES).build();
        let wrong = |error: regex::Error| {
            let text = error.to_string();
            let problem = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            TagError::Pattern { name: self.name.clone(), problem: format!("`{pattern}`: {problem}") }
        };
        built.map(Some).map_err(wrong)
    }
}

/// A tag in a list: a text or an object.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a tag is a text, or an object with `name`, `value` and optionally `validation`")]
pub(crate) enum TagYaml {
    Text(String),
    Named(NamedTag),
}

impl TagYaml {
    pub(crate) fn tag(self) -> Result<NamedTag, TagError> {
        match self {
            TagYaml::Text(text) => text.parse(),
            TagYaml::Named(named) => named.check().map(|()| named),
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-'))
}

/// Parses `VALUE` or `NAME=VALUE`. The value may have `=` and `,`. Without a name, the name is the value without the
/// characters that a name cannot have.
impl FromStr for NamedTag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<NamedTag, TagError> {
        match text.split_once('=') {
            Some((name, value)) if is_name(name) || name.is_empty() => NamedTag::new(name, value),
            _ => {
                let name: String = text
                    .chars()
                    .filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-'))
                    .collect();
                match name.is_empty() {
                    true => Err(TagError::Empty { text: text.to_owned() }),
                    false => NamedTag::new(&name, text),
                }
            }
        }
    }
}

/// Decodes tags in base64: a JSON array of texts or of objects with `name` and `value`, or `NAME=VALUE` separated by
/// commas or lines. A comma inside `{{ }}` does not separate, and no tag has one elsewhere.
///
/// # Errors
///
/// [`TagError`] for the first problem.
pub fn decode_base64(text: &str) -> Result<Vec<NamedTag>, TagError> {
    let wrong = |problem: String| TagError::Base64 { problem };
    if text.len() > MAX_ENCODED_BYTES {
        return Err(wrong(format!("they have more than {MAX_ENCODED_BYTES} bytes")));
    }
    let decoded = STANDARD.decode(text.trim()).map_err(|_| wrong("they are not in base64".to_owned()))?;
    let decoded = String::from_utf8(decoded).map_err(|_| wrong("they are not UTF-8".to_owned()))?;
    let tags: Vec<NamedTag> = match decoded.trim_start().starts_with('[') {
        true => {
            let entries: Vec<TagYaml> = serde_json::from_str(&decoded).map_err(|_| {
                wrong("they are not an array of texts, or of objects with `name` and `value`".to_owned())
            })?;
            entries.into_iter().map(TagYaml::tag).collect::<Result<_, _>>()?
        }
        false => split(&decoded).into_iter().map(str::parse).collect::<Result<_, _>>()?,
    };
    if tags.len() > MAX_TAGS { Err(TagError::TooMany) } else { Ok(tags) }
}

/// Splits at commas and line ends outside `{{ }}`.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, letter) in text.char_indices() {
        if text[at..].starts_with("{{") {
            depth += 1;
        } else if text[at..].starts_with("}}") {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && matches!(letter, ',' | '\n') {
            parts.push(&text[start..at]);
            start = at + 1;
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// The values of templates.
pub(super) struct Rendering<'a> {
    pub(super) git: &'a GitState,
    pub(super) environment: &'a AllowedEnvironment,
    pub(super) time: Timestamp,
}

impl Fields for Rendering<'_> {
    fn field(&self, name: &str) -> Option<Value> {
        let text = |text: Option<&str>| Value::Text(text.unwrap_or_default().to_owned());
        Some(match name {
            "CommitSHA" => text(self.git.commit()),
            "ShortSHA" => Value::Text(self.git.short_commit(SHORT_COMMIT_CHARS)),
            "PRNumber" => Value::Text(self.git.pull_request.map(|number| number.to_string()).unwrap_or_default()),
            "Date" => Value::Text(self.time.to_zoned(TimeZone::UTC).strftime("%Y%m%d").to_string()),
            "Time" => Value::Time(self.time),
            "Branch" => text(self.git.branch.as_deref()),
            "Tag" => text(self.git.tag.as_deref()),
            "Event" => text(Some(self.git.event.name())),
            _ => return None,
        })
    }

    fn env(&self, name: &str) -> Option<String> {
        let AllowedEnvironment { allowed, values } = self.environment;
        allowed.contains(name).then(|| values.get(name).cloned().unwrap_or_default())
    }
}

impl Rendering<'_> {
    pub(super) fn add(&self, named: &NamedTag, because: Because, builder: &mut Builder) -> Result<(), TagError> {
        named.check()?;
        let name = &named.name;
        let rendered = named.template()?.render(self);
        let value = rendered.map_err(|source| TagError::Template { name: name.clone(), source })?;
        if let Some(pattern) = named.pattern()?
            && !pattern.is_match(&value)
        {
            let pattern = named.validation.clone().unwrap_or_default();
            return Err(TagError::NoMatch { name: name.clone(), value, pattern });
        }
        let tag = tag(name, &value)?;
        let validation = named.validation.clone().filter(|pattern| !pattern.is_empty());
        builder.add(PlannedTag { tag, name: name.clone(), validation, because, follows: None })
    }
}
