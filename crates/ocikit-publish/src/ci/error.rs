/// Why the git state of a job cannot be determined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CiError {
    /// `CI=true`, and no system is recognized.
    #[error("cannot determine the CI system: it is none of GitHub Actions, GitLab CI, Azure DevOps and Jenkins")]
    Unknown,
    /// A variable is not set.
    #[error("cannot read the job: the environment variable {variable} is not set")]
    Missing {
        /// The variable.
        variable: String,
    },
    /// A variable has a value that is not supported.
    #[error("cannot read the job: {variable} has the unsupported value `{value}`; supported: {supported}")]
    Unsupported {
        /// The variable.
        variable: String,
        /// The value.
        value: String,
        /// The supported values.
        supported: String,
    },
    /// A variable is malformed.
    #[error("cannot read the job: {variable} is not {expected}")]
    Malformed {
        /// The variable.
        variable: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The file with the event cannot be read.
    #[error("cannot read the event {path}: {source}")]
    Event {
        /// The file.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The event has no such field.
    #[error("cannot read the event: {problem}")]
    Payload {
        /// The problem.
        problem: String,
    },
}
