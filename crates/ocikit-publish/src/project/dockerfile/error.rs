use crate::project::limits::{
    MAX_DOCKERFILE_BYTES, MAX_EXPANDED_BYTES, MAX_EXPANSION_BYTES, MAX_LINE_BYTES, MAX_PATTERN_BYTES,
    MAX_SUBSTITUTION_DEPTH,
};

/// A problem of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
#[non_exhaustive]
pub struct DockerfileError {
    /// The offset in the file.
    pub offset: usize,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// The problem.
    pub problem: DockerfileProblem,
}

/// Why a Dockerfile cannot be read. BuildKit refuses the same files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DockerfileProblem {
    /// It is too large.
    #[error("the Dockerfile has more than {MAX_DOCKERFILE_BYTES} bytes")]
    TooLarge,
    /// A line is too long.
    #[error("the line has more than {MAX_LINE_BYTES} bytes")]
    LongLine,
    /// It has no instruction.
    #[error("the Dockerfile has no instructions")]
    Empty,
    /// A parser directive is repeated.
    #[error("the parser directive `{0}` is given twice")]
    RepeatedDirective(
        /// Its name.
        &'static str,
    ),
    /// The escape character is none of the two.
    #[error("the escape character is neither ` nor \\")]
    Escape,
    /// A here-document has no end.
    #[error("the here-document `{0}` has no end")]
    Heredoc(
        /// The line that would end it.
        String,
    ),
    /// A JSON array of arguments has something else than strings.
    #[error("the JSON array has a value that is not a string")]
    NotStrings,
    /// `FROM` has the wrong number of words.
    #[error("FROM needs an image, or an image, `AS` and a stage")]
    From,
    /// The name of a stage is not valid.
    #[error("`{0}` is not a valid name of a stage")]
    StageName(
        /// The name.
        String,
    ),
    /// An instruction that needs a stage stands before the first `FROM`.
    #[error("{0} stands before the first FROM")]
    NoStage(
        /// The instruction.
        String,
    ),
    /// A substitution cannot be read.
    #[error("the substitution cannot be read: {0}")]
    Substitution(
        /// The reason.
        &'static str,
    ),
    /// `${NAME:?MESSAGE}` and the variable has no value.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message.
        message: String,
    },
    /// An expanded text is too long.
    #[error("an expanded value has more than {MAX_EXPANDED_BYTES} bytes, or all together {MAX_EXPANSION_BYTES}")]
    TooMuchExpansion,
    /// Substitutions are nested too deeply.
    #[error("substitutions are nested deeper than {MAX_SUBSTITUTION_DEPTH}")]
    TooDeep,
    /// A pattern is too long.
    #[error("the pattern or its value has more than {MAX_PATTERN_BYTES} bytes")]
    LongPattern,
    /// The fields of `--mount` cannot be read.
    #[error("the fields of --mount cannot be read")]
    Mount,
}
