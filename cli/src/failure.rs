//! Failures of commands: the documented exit code, the message and a hint.

use std::fmt::Display;
use std::io;
use std::path::Path;

use ocikit::image::Need;
use ocikit::registry::NoAnswer;
use ocikit::spec::with_causes;
use ocikit::{Error, Location};

use crate::quote::quoted;

/// The failure of a command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// The exit code of a contract that the command follows instead of its own.
    pub(crate) exit: Option<u8>,
    /// The message with its causes, on one line; empty if nothing is to be printed.
    pub(crate) message: String,
    /// Lines below the message: the end of a log.
    pub(crate) details: Vec<String>,
    /// The items that failed, if the command has several and others may have succeeded.
    pub(crate) failed: Vec<FailedItem>,
    /// Hints, the most useful first. The first one whose flags the command has is printed.
    pub(crate) hints: Vec<String>,
}

/// One of several targets, images or signers that failed.
#[derive(Debug)]
pub(crate) struct FailedItem {
    pub(crate) name: String,
    pub(crate) code: Code,
    pub(crate) message: String,
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

impl Code {
    /// Returns the word for this code in the JSON of an error.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Code::Other => "failed",
            Code::Usage => "usage",
            Code::Missing => "not-found",
            Code::Denied => "denied",
            Code::Unverified => "unverified",
            Code::Unreachable => "unreachable",
            Code::Partial => "partial",
            Code::Interrupted => "interrupted",
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// So that it passes through a call of the library that returns to the program.
impl std::error::Error for Failure {}

pub(crate) type Result<T = (), E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(code: Code, message: impl Display) -> Failure {
        Failure {
            code,
            exit: None,
            message: message.to_string(),
            details: Vec::new(),
            failed: Vec::new(),
            hints: Vec::new(),
        }
    }

    pub(crate) fn usage(message: impl Display) -> Failure {
        Failure::new(Code::Usage, message)
    }

    pub(crate) fn hint(mut self, hint: impl Display) -> Failure {
        self.hints = vec![hint.to_string()];
        self
    }

    /// Adds a hint, if there is one.
    pub(crate) fn hint_if(self, hint: Option<impl Display>) -> Failure {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Combines the failures of several items, with the first hints that one of them has.
    pub(crate) fn of_items(code: Code, message: impl Display, mut failures: Vec<(impl Display, Failure)>) -> Failure {
        let hints = failures.iter_mut().map(|(_, failure)| std::mem::take(&mut failure.hints));
        let hints = hints.reduce(|first, next| if first.is_empty() { next } else { first }).unwrap_or_default();
        let failed = failures.into_iter().map(|(name, Failure { code, message, .. })| FailedItem {
            name: name.to_string(),
            code,
            message,
        });
        Failure { hints, failed: failed.collect(), ..Failure::new(code, message) }
    }

    /// Returns the first hint whose flags the command has. Errors come from code that several commands share, so the best
    /// hint may name a flag of another command.
    pub(crate) fn hint_for(&self, root: &clap::Command, command: &[String]) -> Option<&str> {
        self.hints.iter().map(String::as_str).find(|hint| crate::hint::is_for(hint, root, command))
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
        self.hint_if(meant.map(|name| format!("did you mean `{}`?", quoted(&format!("./{name}")))))
    }

    /// Repeats the names of repositories as the user spelled them: `alpine`, where an error of the library has
    /// `docker.io/library/alpine`, and of layouts: `ocidir://images`, where it has `oci:images`.
    pub(crate) fn with_typed_names(mut self, arguments: impl Iterator<Item = String>) -> Failure {
        for argument in arguments {
            let Ok(location) = argument.parse() else { continue };
            let Some((name, typed)) = typed_name(&location, &argument) else { continue };
            let texts = self.hints.iter_mut().chain([&mut self.message]).chain(&mut self.details);
            for text in texts.chain(self.failed.iter_mut().map(|item| &mut item.message)) {
                *text = replace_name(text, &name, &typed);
            }
        }
        self
    }

    /// Returns the exit code of the program.
    pub(crate) fn exit_code(&self) -> u8 {
        self.exit.unwrap_or(self.code as u8)
    }

    /// Removes the message, so that only the exit code reports the failure.
    pub(crate) fn silent(self) -> Failure {
        Failure::new(self.code, "")
    }

    /// Returns the failure of a system call on an object that the user named.
    pub(crate) fn io(operation: &str, what: impl Display, error: &io::Error) -> Failure {
        let code = if error.kind() == io::ErrorKind::NotFound { Code::Missing } else { Code::Other };
        Failure::new(code, format_args!("cannot {operation} {what}: {error}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { hints: hints(&error), ..Failure::new(code_of(&error), with_causes(&error)) }
    }
}

fn code_of(error: &Error) -> Code {
    match error {
        Error::NotFound { .. } | Error::NoPlatform { .. } | Error::Document { .. } | Error::Broken { .. } => {
            Code::Missing
        }
        Error::Ambiguous { .. } | Error::Pipe { .. } | Error::Proxy { .. } => Code::Usage,
        Error::Mismatch { .. } | Error::OtherDigest { .. } | Error::Conflict { .. } => Code::Unverified,
        Error::Denied { .. } | Error::Blocked { .. } => Code::Denied,
        Error::Unreachable { .. } => Code::Unreachable,
        Error::Referrers { source, .. } => code_of(source),
        Error::Failed { source, .. } if source.kind() == io::ErrorKind::NotFound => Code::Missing,
        Error::Failed { source, place, .. } if is_read_only_format(place, source) => Code::Usage,
        _ => Code::Other,
    }
}

fn hints(error: &Error) -> Vec<String> {
    if let Error::Referrers { place, source, .. } = error {
        const LEAVE_OUT: &str = "add `--no-referrers` to leave out signatures and other referrers";
        return match &**source {
            Error::Denied { .. } => {
                let log_in = format!(
                    "log in as a user who may read and list them with `ocikit login {}`",
                    quoted(registry_of(place))
                );
                vec![format!("{LEAVE_OUT}, or {log_in}"), log_in]
            }
            _ => vec![LEAVE_OUT.to_owned()],
        };
    }
    hint(error).into_iter().collect()
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
        Error::Unmet { place, need: Need::OciArchive, .. } => {
            format!("`ocikit copy {} oci.tar` converts it", quoted(place))
        }
        Error::Unmet { need: Need::OciFormat, .. } => "convert it first with `ocikit convert --to oci`".to_owned(),
        Error::Unmet { need: Need::OtherCompression, .. } => {
            "recompress it first with `ocikit recompress --compression gzip`".to_owned()
        }
        Error::Unmet { need: Need::PlainLayers, .. } => {
            "convert it first with `ocikit convert --to plain`, and back afterwards".to_owned()
        }
        Error::Unmet { need: Need::DropUnsupported, .. } => {
            "add --drop-unsupported to leave out attestations and subjects".to_owned()
        }
        Error::Unmet { need: Need::Time, .. } => "give --time, or set SOURCE_DATE_EPOCH".to_owned(),
        Error::Unmet { need: Need::IdRange, .. } => {
            "add a range to `--uid-map` or `--gid-map`, or leave both out".to_owned()
        }
        Error::Pipe { .. } => "save it to a file first, and name the file".to_owned(),
        Error::Conflict { .. } => {
            "run the command again, unless the tag has the change already: the other client may have kept it".to_owned()
        }
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
        Error::Failed { source, place, .. } => match source.kind() {
            io::ErrorKind::StorageFull => "free disk space".to_owned(),
            _ if is_read_only_format(place, source) => "use `.tar`, `.tar.gz` or `.tar.zst`".to_owned(),
            _ => return None,
        },
        Error::Refused { status: 413, .. } => {
            "raise the upload size limit of the registry or of the proxy in front of it".to_owned()
        }
        _ => return None,
    })
}

/// Returns whether an archive cannot be written because its compression can only be read.
fn is_read_only_format(place: &str, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported && (place.ends_with(".xz") || place.ends_with(".bz2"))
}

/// Returns the hint for a server that gave no usable answer, if the cause is known.
fn connection_hint(place: &str, cause: NoAnswer) -> Option<String> {
    let registry = registry_of(place);
    Some(match cause {
        NoAnswer::ConnectionRefused => format!("start the registry, or correct the host and port `{registry}`"),
        NoAnswer::NameResolution => {
            format!("check the spelling of the host name `{registry}` and the name servers of this machine")
        }
        NoAnswer::UntrustedCertificate => format!(
            "trust the registry's certificate with `--ca-file FILE`, or do not check it with `--insecure={registry}`"
        ),
        NoAnswer::CertificateName => {
            format!("use a host name of the certificate, or do not check it with `--insecure={registry}`")
        }
        NoAnswer::CertificateTime => {
            format!("check the clock of this machine, or do not check the certificate with `--insecure={registry}`")
        }
        NoAnswer::Proxy => {
            format!("correct the proxy in HTTPS_PROXY or HTTP_PROXY, or list `{registry}` in NO_PROXY")
        }
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

/// Replaces a name in a text, but not where it is a part of another name.
fn replace_name(text: &str, name: &str, with: &str) -> String {
    let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '/' | '.' | '-' | '_');
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(name) {
        let is_name = !before.ends_with(is_part) && !after.starts_with(is_part);
        replaced.push_str(before);
        replaced.push_str(if is_name { with } else { name });
        rest = after;
    }
    replaced + rest
}

/// Returns how the library names the place of a location, and how the user does, if that differs.
fn typed_name(location: &Location, argument: &str) -> Option<(String, String)> {
    match location {
        Location::Registry(reference) => {
            let typed = argument.strip_prefix("docker://").unwrap_or(argument);
            let typed = typed.split('@').next().unwrap_or(typed);
            let typed = reference.tag().and_then(|tag| typed.strip_suffix(&format!(":{tag}"))).unwrap_or(typed);
            Some((reference.repository().to_string(), typed.to_owned()))
        }
        Location::Layout { path, .. } => {
            let synonym = ["ocidir://", "oci-layout://"].into_iter().find(|prefix| argument.starts_with(prefix))?;
            let path = path.display();
            Some((format!("oci:{path}"), format!("{synonym}{path}")))
        }
        Location::Archive { .. } | Location::DockerArchive { .. } | Location::Path { .. } | Location::Stdio => None,
    }
}

/// Returns the registry at the beginning of a place.
fn registry_of(place: &str) -> &str {
    place.split(['/', ' ']).next().unwrap_or(place)
}

/// Returns the location of one of several images in a place.
fn choose(place: &str, choice: &str) -> String {
    // `#TAG` is valid only after the path of an archive.
    let has_prefix = ["oci:", "oci-archive:", "docker-archive:"].iter().any(|prefix| place.starts_with(prefix));
    let (prefix, separator) = match has_prefix {
        true => ("", ':'),
        false if Location::names_an_archive(Path::new(place)) => ("", '#'),
        false => ("oci:", ':'),
    };
    let separator = if choice.parse::<ocikit::Digest>().is_ok() { '@' } else { separator };
    quoted(&format!("{prefix}{place}{separator}{choice}")).into_owned()
}

impl From<ocikit::spec::Error> for Failure {
    fn from(error: ocikit::spec::Error) -> Failure {
        Failure::usage(error)
    }
}

impl From<ocikit_publish::PublishError> for Failure {
    fn from(error: ocikit_publish::PublishError) -> Failure {
        use ocikit_publish::PublishError;
        let message = with_causes(&error);
        match error {
            PublishError::Store { failures, .. } => {
                let mut failures: Vec<_> =
                    failures.into_iter().map(|(repository, error)| (repository, Failure::from(error))).collect();
                if let [(_, only)] = &mut failures[..] {
                    only.message = format!("{}; no tag was changed", only.message);
                    return failures.remove(0).1;
                }
                let code = failures.first().map_or(Code::Other, |(_, failure)| failure.code);
                Failure::of_items(code, message, failures)
            }
            PublishError::Sign { source, .. } => Failure { message, ..(*source).into() },
            PublishError::AllOlder { .. } => {
                Failure::new(Code::Other, message).hint("add --allow-moving-back to move tags back")
            }
            PublishError::NoSigner => Failure::usage(message)
                .hint("add --key, add a signer to `sign-config`, or accept it with --allow-unsigned"),
            _ => Failure::new(Code::Other, message),
        }
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
        use ocikit_build::{Error, UploadProblem};
        let message = with_causes(&error);
        match error {
            Error::Image(error) => error.into(),
            Error::Option { .. } => Failure::new(Code::Usage, message),
            Error::Missing { what, .. } => Failure::new(Code::Missing, message).hint_if(match what {
                "the Dockerfile" => Some("name the Dockerfile with --file, or generate one with `--runtime auto`"),
                "the build context" => Some("name the directory to build from: `ocikit build CONTEXT`"),
                _ => None,
            }),
            Error::TimedOut { .. } => Failure::new(Code::Other, message).hint("raise --time-limit"),
            Error::Unreachable { .. } => Failure::new(Code::Unreachable, message)
                .hint("start BuildKit there, or correct --addr, --builder or BUILDKIT_HOST"),
            Error::Upload { problem, .. } => match problem {
                UploadProblem::Denied => Failure::new(Code::Denied, message)
                    .hint("check the credential with `ocikit login`; it must permit to push"),
                UploadProblem::Unreachable => Failure::new(Code::Unreachable, message)
                    .hint("leave out --push-by-buildkit to push from here, or configure the registry in BuildKit"),
                _ => Failure::new(Code::Other, message),
            },
            Error::Rootless { .. } => Failure::new(Code::Missing, message)
                .hint("see \"Without root\" in docs/build.md, or set BUILDKIT_HOST to a running BuildKit"),
            Error::Unfit { .. } => Failure::new(Code::Missing, message)
                .hint("install from an image such as moby/buildkit, for the platform of this machine"),
            Error::Generate { .. } => Failure::new(Code::Missing, message).hint("write a Dockerfile"),
            Error::Context { .. } => Failure::new(Code::Missing, message),
            Error::InUse { .. } => Failure::new(Code::Other, message).hint("remove it when the build has ended"),
            Error::Config { .. } | Error::Version { .. } => {
                Failure::new(Code::Usage, message).hint("docs/agent.md lists the keys of build.json")
            }
            Error::NoDockerfile | Error::Source { .. } | Error::MissingSecrets { .. } => {
                Failure::new(Code::Missing, message)
            }
            Error::NotInMemory { .. } => {
                Failure::new(Code::Usage, message).hint("mount a tmpfs at /run, or name one with --secrets-dir")
            }
            Error::BaseImage { .. } => Failure::new(Code::Unverified, message),
            Error::Cancelled => Failure::new(Code::Interrupted, message),
            Error::Start { program, .. } => {
                let hint = match program.as_str() {
                    "buildctl" => "install `buildctl` of BuildKit, or run `ocikit buildkit install`",
                    "buildkitd" => "run `ocikit buildkit install`, or set BUILDKIT_HOST to a running BuildKit",
                    "runc" => "install `runc`, which starts the steps of a build, or set BUILDKIT_HOST",
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
        assert!(failure.hints[0].contains("--ca-file"));
    }

    #[test]
    fn hints_follow_from_the_cause() {
        let hint = |cause| {
            let error = Error::Unreachable { place: "ghcr.io/a/b".to_owned(), cause, source: "x".into() };
            Failure::from(error).hints.concat()
        };
        for (cause, part) in [
            (NoAnswer::ConnectionRefused, "`ghcr.io`"),
            (NoAnswer::NameResolution, "`ghcr.io`"),
            (NoAnswer::UntrustedCertificate, "`--ca-file FILE`"),
            (NoAnswer::CertificateName, "`--insecure=ghcr.io`"),
            (NoAnswer::CertificateTime, "the clock"),
            (NoAnswer::Proxy, "`ghcr.io` in NO_PROXY"),
            (NoAnswer::SpeaksPlainHttp, "`--plain-http=ghcr.io`"),
            (NoAnswer::SpeaksTls, "leave out `--plain-http`"),
            (NoAnswer::OutOfReach, "`--trust-redirects`"),
            (NoAnswer::TimedOut, "`--timeout SECONDS`"),
            (NoAnswer::RateLimited { retry_after: Some(std::time::Duration::from_secs(300)) }, "after 300 s"),
        ] {
            assert!(hint(cause).contains(part), "{cause:?}: {}", hint(cause));
        }
        for cause in [
            NoAnswer::Tls,
            NoAnswer::Failing { status: 503 },
            NoAnswer::RateLimited { retry_after: None },
            NoAnswer::Other,
        ] {
            assert_eq!(hint(cause), "", "the cause is not known");
        }
        let denied = Error::Denied { place: "ghcr.io/a/b".to_owned(), problem: String::new() };
        let referrers = |source| Failure::from(Error::referrers(&Digest::sha256_of(b""), "ghcr.io/a/b", source)).hints;
        let root = crate::parser();
        let hint = |error, command: &str| {
            let failure = Failure { hints: referrers(error), ..Failure::new(Code::Denied, "") };
            failure.hint_for(&root, &[command.to_owned()]).unwrap_or_default().to_owned()
        };
        let again = || Error::Denied { place: "ghcr.io/a/b".to_owned(), problem: String::new() };
        assert!(hint(denied, "push").contains("`--no-referrers`"));
        assert!(hint(again(), "push").contains("or log in"));
        assert!(hint(again(), "annotate").starts_with("log in as a user"));
        let blob = Failure { hints: referrers(again()), ..Failure::new(Code::Denied, "") };
        assert!(blob.hint_for(&root, &["blob".to_owned(), "get".to_owned()]).unwrap().starts_with("log in"));
        let failing = Error::Unreachable { place: String::new(), cause: NoAnswer::Other, source: "x".into() };
        assert_eq!(hint(failing, "annotate"), "", "it has no such flag");
    }

    #[test]
    fn choices_can_be_pasted() {
        let digest = Digest::sha256_of(b"").to_string();
        let error = Error::Ambiguous { place: "a.tar".to_owned(), choices: vec!["v1".to_owned(), digest.clone()] };
        let hint = format!("choose one of them: a.tar#v1, a.tar@{digest}");
        assert_eq!(Failure::from(error).hints, [hint]);
    }

    #[test]
    fn names_are_repeated_as_they_were_typed() {
        let hub = "docker.io/library/alpine";
        for (typed, message, expected) in [
            ("alpine", format!("{hub} has no tag 9"), "alpine has no tag 9"),
            ("alpine:9", format!("cannot access {hub}: no"), "cannot access alpine: no"),
            ("docker://alpine:9", format!("{hub}:9 and {hub}2"), "alpine:9 and docker.io/library/alpine2"),
            ("docker.io/library/alpine", format!("{hub} x"), "docker.io/library/alpine x"),
            ("LOCALHOST:05000/a:1", "localhost:5000/a has no tag 1".to_owned(), "LOCALHOST:05000/a has no tag 1"),
            ("--json", "x".to_owned(), "x"),
        ] {
            let failure = Failure::new(Code::Missing, message).with_typed_names([typed.to_owned()].into_iter());
            assert_eq!(failure.message, expected, "{typed}");
        }
    }

    #[test]
    fn repeated_causes_are_left_out() {
        let inner = io::Error::other("full");
        assert_eq!(with_causes(&Error::failed("write to", "a", inner)), "cannot write to a: full");
    }
}
