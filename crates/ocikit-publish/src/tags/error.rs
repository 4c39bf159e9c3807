use crate::template::TemplateError;

/// The maximum number of tags of one image.
pub const MAX_TAGS: usize = 100;

/// Why tags cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    /// A tag has no name or no value.
    #[error("cannot read the tag `{text}`: its name or value is empty")]
    Empty {
        /// The tag as it is written.
        text: String,
    },
    /// The name of a tag has characters other than letters, digits, `_` and `-`.
    #[error("cannot read the tag `{name}`: a name has letters, digits, `_` and `-` only")]
    Name {
        /// The name.
        name: String,
    },
    /// There are too many tags.
    #[error("cannot compute tags: there are more than {MAX_TAGS}")]
    TooMany,
    /// A template is wrong.
    #[error("cannot compute the tag `{name}`: {source}")]
    Template {
        /// The name of the tag.
        name: String,
        /// The problem.
        source: TemplateError,
    },
    /// The result is not a tag.
    #[error("cannot use `{value}` as the tag `{name}`: {problem}")]
    Invalid {
        /// The name of the tag.
        name: String,
        /// The result.
        value: String,
        /// The problem.
        problem: String,
    },
    /// The result does not match the validation of the tag.
    #[error("cannot use `{value}` as the tag `{name}`: it does not match `{pattern}`")]
    NoMatch {
        /// The name of the tag.
        name: String,
        /// The result.
        value: String,
        /// The validation.
        pattern: String,
    },
    /// A validation is not a regular expression.
    #[error("cannot validate the tag `{name}`: {problem}")]
    Pattern {
        /// The name of the tag.
        name: String,
        /// The problem.
        problem: String,
    },
    /// The tag `default_tag` has no validation.
    #[error("cannot use the tag `{name}`: it needs a validation")]
    NoValidation {
        /// The name of the tag.
        name: String,
    },
    /// There is no default tag for an event.
    #[error("cannot compute the default tag: there is none for {kind}")]
    NoDefault {
        /// The events, in the plural.
        kind: &'static str,
    },
    /// The git state has none of branch, tag and pull request.
    #[error("cannot compute tags: neither a branch, a tag nor a pull request is given")]
    NoContext,
    /// The commit is not known. The tags of branches and pull requests have it, and every image is published for one.
    #[error("cannot compute tags: the commit of {of} is not given")]
    NoCommit {
        /// What is published, such as `the git tag v1.2.3`.
        of: String,
    },
    /// Nothing asks for a tag.
    #[error("cannot compute tags: none is asked for")]
    None,
    /// Encoded tags cannot be decoded.
    #[error("cannot decode the tags: {problem}")]
    Base64 {
        /// The problem.
        problem: String,
    },
    /// A version is not `MAJOR.MINOR.PATCH`.
    #[error("cannot use `{version}` as a version: {problem}")]
    Version {
        /// The version.
        version: String,
        /// The problem.
        problem: String,
    },
}
