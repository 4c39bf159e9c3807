//! The metadata of an image: `info.edn`, or `image.toml`.

use ocikit::Platform;
use serde::Deserialize;

use super::edn::{self, Form, Value};
use super::limits::MAX_METADATA_BYTES;
use super::place::Span;

/// The form of the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MetadataFormat {
    /// `info.edn`.
    Edn,
    /// `image.toml`.
    Toml,
}

impl MetadataFormat {
    /// All forms.
    pub const ALL: [MetadataFormat; 2] = [MetadataFormat::Edn, MetadataFormat::Toml];

    /// Returns the name of the file.
    pub fn file_name(self) -> &'static str {
        match self {
            MetadataFormat::Edn => "info.edn",
            MetadataFormat::Toml => "image.toml",
        }
    }
}

/// What the metadata of an image say. Unknown keys have no meaning here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// The version, as it is written.
    pub version: Located<String>,
    /// The platforms; `None` if the defaults of the project apply.
    pub platforms: Option<Vec<Platform>>,
    /// The named contexts of the build that are images of the project.
    pub contexts: Vec<ContextEntry>,
}

/// A value with the place of its text in the file, quotes included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// The place.
    pub span: Span,
}

/// A named context: the name in the Dockerfile, and the image that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextEntry {
    /// The name in the Dockerfile.
    pub name: String,
    /// The image: `NAME` or `NAME:VERSION`.
    pub image: Located<String>,
}

/// Why metadata cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
#[non_exhaustive]
pub struct MetadataError {
    /// The offset in the file.
    pub offset: usize,
    /// The problem.
    pub problem: String,
}

fn fail(offset: usize, problem: impl Into<String>) -> MetadataError {
    MetadataError { offset, problem: problem.into() }
}

impl Metadata {
    /// Reads metadata.
    ///
    /// # Errors
    ///
    /// [`MetadataError`] if it is not of the form, has no version, or is too large.
    pub fn parse(format: MetadataFormat, bytes: &[u8]) -> Result<Metadata, MetadataError> {
        if bytes.len() > MAX_METADATA_BYTES {
            return Err(fail(0, format!("it has more than {MAX_METADATA_BYTES} bytes")));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| fail(error.valid_up_to(), "it is not UTF-8"))?;
        let metadata = match format {
            MetadataFormat::Edn => of_edn(text)?,
            MetadataFormat::Toml => of_toml(text)?,
        };
        let Located { value, span } = &metadata.version;
        value
            .parse::<ocikit::Tag>()
            .map_err(|error| fail(span.start, format!("the version is not a valid tag: {error}")))?;
        Ok(metadata)
    }
}

/// Returns a string as EDN and TOML both write it.
pub(super) fn quoted(value: &str) -> String {
    // Versions and references have no character that EDN or TOML would escape.
    format!("\"{value}\"")
}

fn platform(text: &str, offset: usize) -> Result<Platform, MetadataError> {
    text.parse().map_err(|error: ocikit::spec::Error| fail(offset, error.to_string()))
}

fn of_edn(text: &str) -> Result<Metadata, MetadataError> {
    let form = edn::read(text).map_err(|error| fail(error.offset, error.problem))?;
    let Value::Map(pairs) = form.value else { return Err(fail(form.span.start, "it is not a map")) };
    let find = |name: &str| {
        let mut found = pairs.iter().filter(|(key, _)| key.value == Value::Keyword(name.to_owned()));
        match (found.next(), found.next()) {
            (_, Some((second, _))) => Err(fail(second.span.start, format!("the key :{name} is given twice"))),
            (first, None) => Ok(first.map(|(_, value)| value)),
        }
    };
    let located = |form: &Form, what: &str| match &form.value {
        Value::Text(value) => Ok(Located { value: value.clone(), span: form.span }),
        _ => Err(fail(form.span.start, format!("{what} is not a string"))),
    };
    let version = find("version")?.ok_or_else(|| fail(form.span.start, "it has no key :version"))?;
    let mut platforms = None;
    if let Some(form) = find("platforms")? {
        let Value::Sequence(items) = &form.value else {
            return Err(fail(form.span.start, ":platforms is not a vector"));
        };
        let item = |item: &Form| platform(&located(item, "a platform")?.value, item.span.start);
        platforms = Some(items.iter().map(item).collect::<Result<Vec<_>, _>>()?);
    }
    let mut contexts = Vec::new();
    if let Some(form) = find("contexts")? {
        let Value::Map(pairs) = &form.value else { return Err(fail(form.span.start, ":contexts is not a map")) };
        for (key, value) in pairs {
            let name = match &key.value {
                Value::Text(name) | Value::Keyword(name) => name.clone(),
                _ => return Err(fail(key.span.start, "the name of a context is neither a string nor a keyword")),
            };
            contexts.push(ContextEntry { name, image: located(value, "a context")? });
        }
    }
    check(Metadata { version: located(version, ":version")?, platforms, contexts })
}

#[derive(Deserialize)]
struct TomlMetadata {
    version: toml::Spanned<String>,
    platforms: Option<Vec<toml::Spanned<String>>>,
    #[serde(default)]
    contexts: std::collections::BTreeMap<String, toml::Spanned<String>>,
}

fn of_toml(text: &str) -> Result<Metadata, MetadataError> {
    let read: TomlMetadata = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        fail(offset, error.message().to_owned())
    })?;
    let located = |value: toml::Spanned<String>| Located { span: value.span().into(), value: value.into_inner() };
    let platforms = read.platforms.map(|platforms| {
        platforms.into_iter().map(|item| platform(item.get_ref(), item.span().start)).collect::<Result<Vec<_>, _>>()
    });
    let contexts =
        read.contexts.into_iter().map(|(name, image)| ContextEntry { name, image: located(image) }).collect();
    check(Metadata { version: located(read.version), platforms: platforms.transpose()?, contexts })
}

fn check(metadata: Metadata) -> Result<Metadata, MetadataError> {
    let offset = metadata.version.span.start;
    if metadata.platforms.as_ref().is_some_and(Vec::is_empty) {
        return Err(fail(offset, "the list of platforms is empty; leave it out for the default platforms"));
    }
    for (position, entry) in metadata.contexts.iter().enumerate() {
        let start = entry.image.span.start;
        if entry.name.is_empty() || entry.image.value.is_empty() {
            return Err(fail(start, "a context has no name or no image"));
        }
        if metadata.contexts[..position].iter().any(|other| other.name == entry.name) {
            return Err(fail(start, format!("the context `{}` is given twice", entry.name)));
        }
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let edn = "; an image\n{:version \"1.2.3\" ; now\n :platforms [\"linux/amd64\" \"linux/arm64\"]\n :owner \"us\"\n :contexts {\"deps\" \"base:1.0.0\"}}\n";
        let toml = "# an image\nversion = '1.2.3' # now\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\nowner = \"us\"\n[contexts]\ndeps = \"base:1.0.0\"\n";
        for (format, text, version) in
            [(MetadataFormat::Edn, edn, "\"1.2.3\""), (MetadataFormat::Toml, toml, "'1.2.3'")]
        {
            let read = Metadata::parse(format, text.as_bytes()).unwrap();
            assert_eq!(read.version.value, "1.2.3");
            assert_eq!(&text[read.version.span.range()], version);
            assert_eq!(read.platforms.unwrap().len(), 2);
            assert_eq!((read.contexts[0].name.as_str(), read.contexts[0].image.value.as_str()), ("deps", "base:1.0.0"));
            assert_eq!(&text[read.contexts[0].image.span.range()], "\"base:1.0.0\"");
        }
    }

    #[test]
    fn wrong_metadata_is_refused_with_its_place() {
        use MetadataFormat::{Edn, Toml};
        for (format, text, offset, problem) in [
            (Edn, "[]", 0, "it is not a map"),
            (Edn, "{}", 0, "it has no key :version"),
            (Edn, "{:version 1.0}", 10, ":version is not a string"),
            (Edn, "{:version \"a\" :version \"b\"}", 14, "the key :version is given twice"),
            (Edn, "{:version \"a b\"}", 10, "the version is not a valid tag"),
            (Edn, "{:version \"1\" :platforms []}", 10, "the list of platforms is empty"),
            (Edn, "{:version \"1\" :platforms [1]}", 26, "a platform is not a string"),
            (Edn, "{:version \"1\" :contexts {:a \"b\" \"a\" \"c\"}}", 36, "the context `a` is given twice"),
            (Toml, "version = 1", 10, "invalid type"),
            (Toml, "version = ", 10, ""),
            (Toml, "platforms = []", 0, "missing field `version`"),
        ] {
            let error = Metadata::parse(format, text.as_bytes()).unwrap_err();
            assert!(error.problem.contains(problem), "{text}: {error}");
            assert_eq!(error.offset, offset, "{text}: {error}");
        }
        assert!(Metadata::parse(Edn, &[b' '; MAX_METADATA_BYTES + 1]).is_err());
        assert!(Metadata::parse(Edn, b"\xff").is_err());
    }
}
