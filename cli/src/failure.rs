//! Failures of commands: the documented exit code, the message and a hint.

use std::fmt::Display;
use std::io;
use std::path::Path;

use ocikit::registry::NoAnswer;
use ocikit::spec::with_causes;
use ocikit::{Error, Location};

use crate::quote::quoted;

/// The failure of a command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// The message with its causes, on one line; empty if nothing is to be printed.
    pub(crate) message: String,
    /// Lines below the message: the failure of each target, or the end of a log.
    pub(crate) details: Vec<String>,
    pub(crate) hint: Option<String>,
}

/// The exit codes, as documented in `docs/guide.md`.
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
        Failure { code, message: message.to_string(), details: Vec::new(), hint: None }
    }

    pub(crate) fn usage(message: impl Display) -> Failure {
        Failure::new(Code::Usage, message)
    }

    pub(crate) fn hint(mut self, hint: impl Display) -> Failure {
        self.hint = Some(hint.to_string());
        self
    }

    /// Adds a hint if an argument was read as a name on Docker Hub that could not be resolved, and a file or directory has that
    /// name.
    pub(crate) fn with_file_hint(self, arguments: impl Iterator<Item = String>) -> Failure {
        // A name without a registry is on Docker Hub, and messages show it with the registry.
        let is_about_docker_hub = self.message.contains("docker.io");
        if !is_about_docker_hub || !matches!(self.code, Code::Missing | Code::Denied | Code::Unreachable) {
            return self;
        }
        let is_file = |text: &&str| !text.is_empty() && Path::new(text).exists();
        let meant = arguments.filter(|text| !text.starts_with('-')).find_map(|text| {
            let Ok(Location::Registry(reference)) = text.parse() else { return None };
            let is_implied = reference.registry().is_docker_hub() && !text.contains("docker.io");
            let without = |separator| text.rsplit_once(separator).map_or("", |(name, _)| name);
            [text.as_str(), without('@'), without(':')]
                .into_iter()
                .find(is_file)
                .filter(|_| is_implied)
                .map(str::to_owned)
        });
        match meant {
            Some(name) => self.hint(format_args!("did you mean `{}`?", quoted(&format!("./{name}")))),
            None => self,
        }
    }

    /// Removes the message, so that only the exit code reports the failure.
    pub(crate) fn silent(self) -> Failure {
        Failure { message: String::new(), details: Vec::new(), hint: None, ..self }
    }

    /// Returns the failure of a system call on an object that the user named.
    pub(crate) fn io(operation: &str, what: impl Display, error: &io::Error) -> Failure {
        let code = if error.kind() == io::ErrorKind::NotFound { Code::Missing } else { Code::Other };
        Failure::new(code, format_args!("cannot {operation} {what}: {error}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { hint: hint(&error), ..Failure::new(code_of(&error), with_causes(&error)) }
    }
}

fn code_of(error: &Error) -> Code {
    match error {
        Error::NotFound { .. } | Error::NoPlatform { .. } | Error::Document { .. } | Error::Broken { .. } => {
            Code::Missing
        }
        Error::Ambiguous { .. } | Error::Pipe { .. } | Error::Proxy { .. } => Code::Usage,
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
            const MAX_SHOWN: usize = 10;
            let shown: Vec<_> = choices.iter().take(MAX_SHOWN).map(|choice| choose(place, choice)).collect();
            let more = choices.len().saturating_sub(MAX_SHOWN);
            let more = if more > 0 {
                format!(" and {more} more; `ocikit tags {}` lists all", quoted(place))
            } else {
                String::new()
            };
            format!("choose one of them: {}{more}", shown.join(", "))
        }
        Error::Proxy { variable, .. } => {
            let lower = variable.to_lowercase();
            format!("set {variable} (or {lower}) to a URL such as `http://proxy.example:3128`, or unset it")
        }
        Error::Pipe { .. } => "save it to a file first, and name the file".to_owned(),
        Error::Exists { .. } => {
            "leave out --no-clobber to add signatures and attestations to the tag; delete the tag first to replace an SBOM"
                .to_owned()
        }
        Error::NotFound { what, place } if what.starts_with("tag ") => {
            let prefix = if Path::new(place).is_dir() { "oci:" } else { "" };
            format!("`ocikit tags {}` lists tags", quoted(&format!("{prefix}{place}")))
        }
        Error::NoPlatform { available, .. } if !available.is_empty() => {
            format!("choose one with `--platform {}`", available[0])
        }
        Error::Denied { place, .. } => {
            let registry = place.split('/').next().unwrap_or(place);
            format!("log in with `ocikit login {registry}`, or give --username with --password-stdin")
        }
        Error::Blocked { .. } => "remove the block from that file, or use another registry".to_owned(),
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
            io::ErrorKind::StorageFull => "free disk space".to_owned(),
            _ => return None,
        },
        Error::Refused { status: 413, .. } => {
            "raise the upload size limit of the registry or of the proxy in front of it".to_owned()
        }
        _ => return None,
    })
}

/// Returns the hint for a server that gave no usable answer, if the cause is known.
fn connection_hint(place: &str, cause: NoAnswer) -> Option<String> {
    let registry = registry_of(place);
    Some(match cause {
        NoAnswer::ConnectionRefused => format!("start the registry, or correct the host and port `{registry}`"),
        NoAnswer::NameResolution => {
            format!("check the spelling of the host name `{registry}` and the name servers of this machine")
        }
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

/// Returns the registry at the beginning of a place.
fn registry_of(place: &str) -> &str {
    place.split(['/', ' ']).next().unwrap_or(place)
}

/// Returns the location of one of several images in a place.
fn choose(place: &str, choice: &str) -> String {
    // `#TAG` is valid only after the path of an archive.
    let (prefix, separator) = if Location::names_an_archive(Path::new(place)) { ("", '#') } else { ("oci:", ':') };
    let separator = if choice.parse::<ocikit::Digest>().is_ok() { '@' } else { separator };
    quoted(&format!("{prefix}{place}{separator}{choice}")).into_owned()
}

impl From<ocikit::spec::Error> for Failure {
    fn from(error: ocikit::spec::Error) -> Failure {
        Failure::usage(error)
    }
}

impl From<ocikit_sign::Error> for Failure {
    fn from(error: ocikit_sign::Error) -> Failure {
        use ocikit_sign::Error;
        let message = with_causes(&error);
        match error {
            Error::Image(error) => error.into(),
            Error::Moved { .. } => {
                Failure::new(Code::Unverified, message).hint("name the image by its digest: REPOSITORY@DIGEST")
            }
            Error::Refused(_) => Failure::new(Code::Unverified, message),
            Error::OtherStatement(statements) => {
                let failure = Failure::new(Code::Unverified, message);
                let flags = statements.iter().map(|statement| format!("--annotated-from {}", statement.named));
                let flags = flags.collect::<Vec<_>>().join(" ");
                match statements.iter().all(|statement| statement.is_annotated) {
                    true => {
                        failure.hint(format_args!("add `{flags}` to sign the statements for the image as it is now"))
                    }
                    false => {
                        failure.hint("if the image was annotated, see `--annotated-from` in `ocikit attest --help`")
                    }
                }
            }
            Error::Password(_) => Failure::new(Code::Denied, message)
                .hint("give the password with --key-password-file, OCIKIT_KEY_PASSWORD or COSIGN_PASSWORD"),
            Error::Key(_) | Error::Certificates(_) | Error::Policy { .. } | Error::Unsupported(_) => {
                Failure::new(Code::Usage, message)
            }
            Error::Service { .. } => Failure::new(Code::Unreachable, message)
                .hint("check the URL of the service; if its CA is not a public one, add --ca-file"),
            _ => Failure::new(Code::Other, message),
        }
    }
}

impl From<ocikit_build::Error> for Failure {
    fn from(error: ocikit_build::Error) -> Failure {
        use ocikit_build::Error;
        let message = with_causes(&error);
        match error {
            Error::Image(error) => error.into(),
            Error::Start { program, .. } => {
                let hint = match program.as_str() {
                    "buildctl" => "install `buildctl` of BuildKit",
                    "buildkitd" => "install `buildkitd` of BuildKit, or set BUILDKIT_HOST to a running one",
                    "rootlesskit" => {
                        "install `rootlesskit` and `newuidmap`, which buildkitd needs without root, or set BUILDKIT_HOST"
                    }
                    _ => "install the program, or add its directory to PATH",
                };
                Failure::new(Code::Missing, message).hint(hint)
            }
            Error::Daemon { log, .. } | Error::Solve { log, .. } if !log.is_empty() => {
                let details = log.lines().map(|line| format!("| {line}")).collect();
                Failure { details, ..Failure::new(Code::Other, message) }
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
    fn errors_map_to_exit_codes() {
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
    fn a_failed_service_has_exit_code_6() {
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
    fn choices_can_be_pasted() {
        let digest = Digest::sha256_of(b"").to_string();
        let error = Error::Ambiguous { place: "a.tar".to_owned(), choices: vec!["v1".to_owned(), digest.clone()] };
        let hint = format!("choose one of them: a.tar#v1, a.tar@{digest}");
        assert_eq!(Failure::from(error).hint.unwrap(), hint);
    }

    #[test]
    fn repeated_causes_are_left_out() {
        let inner = io::Error::other("full");
        assert_eq!(with_causes(&Error::failed("write to", "a", inner)), "cannot write to a: full");
    }
}
