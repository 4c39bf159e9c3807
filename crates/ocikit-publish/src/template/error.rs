/// The maximum length of a template, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 4096;
/// The maximum length of the result, and of each value on the way to it, in bytes.
pub const MAX_VALUE_BYTES: usize = 4096;
/// The maximum depth of nested `if`s and parentheses.
pub const MAX_DEPTH: usize = 32;

/// Why a template cannot be parsed or rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}, at character {}", .offset + 1)]
pub struct TemplateError {
    /// The position of the problem in the template, in bytes.
    pub offset: usize,
    /// The problem.
    pub problem: TemplateProblem,
}

/// A problem of a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateProblem {
    /// The template is longer than [`MAX_TEMPLATE_BYTES`].
    #[error("the template has more than {MAX_TEMPLATE_BYTES} bytes")]
    TooLong,
    /// A value is longer than [`MAX_VALUE_BYTES`].
    #[error("a value has more than {MAX_VALUE_BYTES} bytes")]
    TooLarge,
    /// There are more than [`MAX_DEPTH`] levels.
    #[error("more than {MAX_DEPTH} levels are nested")]
    TooDeep,
    /// A part is missing or in the wrong place.
    #[error("unexpected {found}")]
    Unexpected {
        /// What was found.
        found: String,
    },
    /// A part of Go's templates that this one does not have.
    #[error("`{0}` is not supported in a tag")]
    Unsupported(String),
    /// A function does not exist.
    #[error("there is no function `{0}`")]
    NoFunction(String),
    /// A field or method does not exist.
    #[error("there is no field `.{0}`")]
    NoField(String),
    /// A variable was not defined.
    #[error("there is no variable `{0}`")]
    NoVariable(String),
    /// A variable of the environment is not on the allow-list.
    #[error("the environment variable `{0}` is not on the allow-list")]
    NotAllowed(String),
    /// A function has arguments that it does not take.
    #[error("{function} {problem}")]
    Arguments {
        /// The function.
        function: String,
        /// The problem.
        problem: String,
    },
}
