//! What went wrong, sorted into the exit codes that the documentation promises, with a hint where one helps.

use std::error::Error as StdError;
use std::fmt::Display;
use std::io;

use ocikit::Error;
use ocikit::registry::NoAnswer;

/// A command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// The message and its causes, in one line; empty if nothing is to be said.
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// The exit codes, as `docs/` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Other = 1,
    Usage = 2,
    Missing = 3,
    Denied = 4,
    Unverified = 5,
    Unreachable = 6,
    Partial = 7,
    Interrupted = 130,
}

pub(crate) type Result<T = (), E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(code: Code, message: impl Display) -> Failure {
        Failure { code, message: message.to_string(), hint: None }
    }

    pub(crate) fn usage(message: impl Display) -> Failure {
        Failure::new(Code::Usage, message)
    }

    pub(crate) fn hint(mut self, hint: impl Display) -> Failure {
        self.hint = Some(hint.to_string());
        self
    }

    /// The same without a word: the exit code says it all.
    pub(crate) fn silent(self) -> Failure {
        Failure { message: String::new(), hint: None, ..self }
    }

    /// A failed operation of the system, on something that the user named.
    pub(crate) fn io(operation: &str, what: impl Display, error: &io::Error) -> Failure {
        let code = if error.kind() == io::ErrorKind::NotFound { Code::Missing } else { Code::Other };
        Failure::new(code, format_args!("cannot {operation} {what}: {error}"))
    }
}

/// An error and its causes, each once.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { code: code_of(&error), message: chain(&error), hint: hint(&error) }
    }
}

fn code_of(error: &Error) -> Code {
    match error {
        Error::NotFound { .. } | Error::Document { .. } | Error::Broken { .. } => Code::Missing,
        Error::Ambiguous { .. } => Code::Usage,
        Error::Mismatch { .. } => Code::Unverified,
        Error::Denied { .. } | Error::Blocked { .. } => Code::Denied,
        Error::Unreachable { .. } => Code::Unreachable,
        Error::Referrers { source, .. } => code_of(source),
        Error::Failed { source, .. } if source.kind() == io::ErrorKind::NotFound => Code::Missing,
        _ => Code::Other,
    }
}

fn hint(error: &Error) -> Option<String> {
    Some(match error {
        Error::Ambiguous { place, choices } => {
            let choices: Vec<_> = choices.iter().map(|choice| choose(place, choice)).collect();
            format!("choose one of them: {}", choices.join(", "))
        }
        Error::Exists { .. } => {
            "leave out --no-clobber to add signatures and attestations to it; delete the tag first to replace an SBOM"
                .to_owned()
        }
        Error::NotFound { .. } => "is the name right, and the tag or digest?".to_owned(),
        Error::Mismatch { .. } => {
            "what is stored is not what was built: copy or build it again, and check the disk or the registry"
                .to_owned()
        }
        Error::Broken { .. } | Error::Document { .. } => {
            "was it written completely? An interrupted download or build leaves such files".to_owned()
        }
        Error::Denied { place, .. } => {
            let registry = place.split('/').next().unwrap_or(place);
            format!("log in with `ocikit login {registry}`, or give --username with --password-stdin")
        }
        Error::Blocked { .. } => "ask whoever wrote that file, or name another registry".to_owned(),
        Error::Unreachable { place, cause, .. } => return connection_hint(place, *cause),
        Error::Referrers { place, source, .. } => match &**source {
            Error::Denied { .. } => format!(
                "add `--no-referrers` to leave out signatures and other referrers, or log in as a user who may list them with \
                 `ocikit login {}`",
                registry_of(place)
            ),
            _ => "add `--no-referrers` to leave out signatures and other referrers".to_owned(),
        },
        Error::Failed { source, .. } => match source.kind() {
            io::ErrorKind::StorageFull => "free some space; what was there before is unchanged".to_owned(),
            io::ErrorKind::PermissionDenied => "may this user do that?".to_owned(),
            io::ErrorKind::NotFound => {
                "is the path right? An image in a registry is written without `./` and without `.tar`".to_owned()
            }
            _ => return None,
        },
        Error::Refused { status: 404, .. } => "does the repository exist, and may you push to it?".to_owned(),
        Error::Refused { status: 413, .. } => {
            "the registry, or a proxy before it, limits the size of uploads".to_owned()
        }
        _ => return None,
    })
}

/// What to do about a server that gave no usable answer, where the cause is known.
fn connection_hint(place: &str, cause: NoAnswer) -> Option<String> {
    let registry = registry_of(place);
    Some(match cause {
        NoAnswer::ConnectionRefused => format!("start the registry, or correct the host and port `{registry}`"),
        NoAnswer::NameResolution => format!("correct the host name `{registry}`"),
        NoAnswer::Tls => format!(
            "trust the registry's certificate with `--ca-file FILE`, or do not check it with `--insecure={registry}`"
        ),
        NoAnswer::SpeaksPlainHttp => format!("add `--plain-http={registry}`"),
        NoAnswer::SpeaksTls => format!("leave out `--plain-http` for {registry}"),
        NoAnswer::OutOfReach => {
            format!("add `--trust-redirects` if you trust {registry} to name addresses in your network")
        }
        NoAnswer::TimedOut => "raise the limit with `--timeout SECONDS`".to_owned(),
        NoAnswer::RateLimited { retry_after: Some(time) } => format!("try again after {} s", time.as_secs()),
        _ => return None,
    })
}

/// The registry that a message names first.
fn registry_of(place: &str) -> &str {
    place.split(['/', ' ']).next().unwrap_or(place)
}

/// How one image of several in a place is named.
fn choose(place: &str, choice: &str) -> String {
    if choice.contains(':') && choice.starts_with("sha") {
        format!("{place}@{choice}")
    } else {
        format!("{place}#{choice}")
    }
}

impl From<ocikit::spec::Error> for Failure {
    fn from(error: ocikit::spec::Error) -> Failure {
        Failure::usage(error)
    }
}

impl From<ocikit_sign::Error> for Failure {
    fn from(error: ocikit_sign::Error) -> Failure {
        use ocikit_sign::Error;
        let message = chain(&error);
        match error {
            Error::Image(error) => error.into(),
            Error::Moved { .. } => Failure::new(Code::Unverified, message)
                .hint("somebody moved the tag, or the digest is that of something else"),
            Error::Refused(_) => {
                Failure::new(Code::Unverified, message).hint("is it the right key, and the right image?")
            }
            Error::Password(_) => Failure::new(Code::Denied, message)
                .hint("give --key-password-file, or set OCIKIT_KEY_PASSWORD or COSIGN_PASSWORD"),
            Error::Key(_) | Error::Certificates(_) | Error::Policy { .. } | Error::Unsupported(_) => {
                Failure::new(Code::Usage, message)
            }
            Error::Service { .. } => Failure::new(Code::Unreachable, message)
                .hint("is the address right, does the service run, and does it want --ca-file?"),
            _ => Failure::new(Code::Other, message),
        }
    }
}

impl From<ocikit_build::Error> for Failure {
    fn from(error: ocikit_build::Error) -> Failure {
        use ocikit_build::Error;
        let message = chain(&error);
        match error {
            Error::Image(error) => error.into(),
            Error::Start { program, .. } => {
                let hint = match program.as_str() {
                    "buildctl" => "install BuildKit's `buildctl`; it does the solve and nothing else",
                    "buildkitd" => "install BuildKit's `buildkitd`, or set BUILDKIT_HOST to one that runs",
                    "rootlesskit" => {
                        "without root, buildkitd needs `rootlesskit` and `newuidmap`; or set BUILDKIT_HOST"
                    }
                    _ => "is it installed?",
                };
                Failure::new(Code::Missing, message).hint(hint)
            }
            Error::Daemon { log, .. } | Error::Solve { log, .. } if !log.is_empty() => {
                let log: Vec<_> = log.lines().map(|line| format!("  | {line}")).collect();
                Failure::new(Code::Other, format_args!("{message}\n{}", log.join("\n")))
            }
            _ => Failure::new(Code::Other, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use ocikit::spec::Digest;

    use super::*;

    #[test]
    fn every_condition_has_its_code() {
        let place = || "app.tar".to_owned();
        let io = |kind: io::ErrorKind| Error::failed("write to", "app.tar", kind.into());
        for (error, code) in [
            (Error::not_found("tag v1", "app.tar"), Code::Missing),
            (Error::broken("app.tar", "truncated"), Code::Missing),
            (Error::Ambiguous { place: place(), choices: vec!["a".to_owned()] }, Code::Usage),
            (Error::Denied { place: place(), problem: String::new() }, Code::Denied),
            (Error::Blocked { place: place(), by: "a file" }, Code::Denied),
            (Error::Unreachable { place: place(), cause: NoAnswer::Other, source: "x".into() }, Code::Unreachable),
            (
                Error::referrers(
                    &Digest::sha256_of(b""),
                    "a",
                    Error::Denied { place: place(), problem: String::new() },
                ),
                Code::Denied,
            ),
            (Error::Refused { place: place(), status: 400, problem: String::new() }, Code::Other),
            (io(io::ErrorKind::StorageFull), Code::Other),
            (io(io::ErrorKind::NotFound), Code::Missing),
        ] {
            assert_eq!(Failure::from(error).code, code);
        }
    }

    #[test]
    fn a_service_that_does_not_answer_is_unreachable() {
        let (place, problem) = ("http://localhost:1/".to_owned(), "x".to_owned());
        let failure = Failure::from(ocikit_sign::Error::Service { place, problem });
        assert_eq!(failure.code, Code::Unreachable);
        assert!(failure.hint.unwrap().contains("--ca-file"));
    }

    #[test]
    fn hints_follow_from_the_cause() {
        let hint = |cause| {
            let error = Error::Unreachable { place: "ghcr.io/a/b".to_owned(), cause, source: "x".into() };
            Failure::from(error).hint.unwrap_or_default()
        };
        for (cause, part) in [
            (NoAnswer::ConnectionRefused, "`ghcr.io`"),
            (NoAnswer::NameResolution, "`ghcr.io`"),
            (NoAnswer::Tls, "`--insecure=ghcr.io`"),
            (NoAnswer::SpeaksPlainHttp, "`--plain-http=ghcr.io`"),
            (NoAnswer::SpeaksTls, "leave out `--plain-http`"),
            (NoAnswer::OutOfReach, "`--trust-redirects`"),
            (NoAnswer::TimedOut, "`--timeout SECONDS`"),
            (NoAnswer::RateLimited { retry_after: Some(std::time::Duration::from_secs(300)) }, "after 300 s"),
        ] {
            assert!(hint(cause).contains(part), "{cause:?}: {}", hint(cause));
        }
        for cause in [NoAnswer::Failing { status: 503 }, NoAnswer::RateLimited { retry_after: None }, NoAnswer::Other] {
            assert_eq!(hint(cause), "", "the cause is not known");
        }
        let denied = Error::Denied { place: "ghcr.io/a/b".to_owned(), problem: String::new() };
        let referrers = |source| Failure::from(Error::referrers(&Digest::sha256_of(b""), "ghcr.io/a/b", source)).hint;
        assert!(referrers(denied).unwrap().contains("or log in"));
        let failing = Error::Unreachable { place: String::new(), cause: NoAnswer::Other, source: "x".into() };
        assert!(referrers(failing).unwrap().starts_with("add `--no-referrers`"));
    }

    #[test]
    fn choices_are_written_as_they_are_typed() {
        let error =
            Error::Ambiguous { place: "a.tar".to_owned(), choices: vec!["v1".to_owned(), "sha256:ab".to_owned()] };
        assert_eq!(Failure::from(error).hint.unwrap(), "choose one of them: a.tar#v1, a.tar@sha256:ab");
    }

    #[test]
    fn causes_are_told_once() {
        let inner = io::Error::other("full");
        assert_eq!(chain(&Error::failed("write to", "a", inner)), "cannot write to a: full");
    }
}
