use clap::{Args, Subcommand};
use ocikit::{Digest, Location, Name, Platform};
use ocikit_build::{Builder, BuilderKind, Candidate, Installation, InstallationSource, Installations};
use serde::Serialize;

use crate::build::{BuilderArguments, installations};
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::inside;
use crate::output::Lines;
use crate::quote::quoted;

const EXAMPLES: &str = "\
Examples:
  ocikit buildkit status
  ocikit buildkit status --addr docker-container://buildkitd
  ocikit buildkit list";

/// Install BuildKit, and show which BuildKit a build uses
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Buildkit {
    #[command(subcommand)]
    command: BuildkitCommand,
}

#[derive(Debug, Subcommand)]
enum BuildkitCommand {
    #[cfg(unix)]
    Install(Install),
    List(List),
    Status(Status),
    Uninstall(Uninstall),
}

const INSTALL_EXAMPLES: &str = "\
Examples:
  ocikit buildkit install --from moby/buildkit@sha256:0000000000000000000000000000000000000000000000000000000000000000
  ocikit buildkit install --from ./buildkit.tar@sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Install BuildKit from an image into the cache directory of the user
///
/// Downloads the image from a registry, or reads an archive or a layout, verifies it, and keeps its programs: buildctl, buildkitd,
/// runc and rootlesskit. Builds then use them unless BUILDKIT_HOST is set or `buildkitd` is on the PATH. Several digests can be
/// installed; the last one is used. Prints the directory of the programs.
#[cfg(unix)]
#[derive(Debug, Args)]
#[command(after_help = INSTALL_EXAMPLES)]
struct Install {
    /// Image of BuildKit, with its digest
    ///
    /// `ocikit digest moby/buildkit:TAG` prints the digest of a tag.
    #[arg(long, value_name = "LOCATION@DIGEST")]
    from: Location,
    /// Take the image for this platform; default: that of this machine
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

const LIST_EXAMPLES: &str = "\
Examples:
  ocikit buildkit list
  ocikit buildkit list --json";

/// List installed BuildKits; the first one is used
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
struct List {}

const UNINSTALL_EXAMPLES: &str = "\
Examples:
  ocikit buildkit uninstall 0123456789ab
  ocikit buildkit uninstall --all";

/// Remove an installed BuildKit
///
/// Fails if a build uses it.
#[derive(Debug, Args)]
#[command(after_help = UNINSTALL_EXAMPLES)]
struct Uninstall {
    /// Digest, or at least 12 hex digits of it
    #[arg(required_unless_present = "all")]
    digest: Option<String>,
    /// Remove all installed BuildKits
    #[arg(long, conflicts_with = "digest")]
    all: bool,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  ocikit buildkit status
  ocikit buildkit status --builder linux/amd64=tcp://a:1234 --json";

/// Show which BuildKit a build would use, and why not the others
///
/// Starts no daemon. Fails if no BuildKit can be used.
#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
struct Status {
    #[command(flatten)]
    builder: BuilderArguments,
}

#[derive(Serialize)]
struct StatusOutput {
    builders: Vec<CandidateOutput>,
}

#[derive(Serialize)]
struct CandidateOutput {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// The digest of the image of an installation.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Whether a build would use it.
    used: bool,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// How a daemon would be started.
    #[serde(skip)]
    mode: &'static str,
}

#[derive(Serialize)]
struct ListOutput {
    installations: Vec<InstallationOutput>,
}

#[derive(Serialize)]
struct InstallationOutput {
    digest: Digest,
    version: String,
    platform: String,
    location: String,
    path: String,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Buildkit {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        match &self.command {
            #[cfg(unix)]
            BuildkitCommand::Install(install) => install.run(context).await,
            BuildkitCommand::List(_) => list(context),
            BuildkitCommand::Status(status) => status.run(context).await,
            BuildkitCommand::Uninstall(uninstall) => uninstall.run(context).await,
        }
    }
}

fn installed() -> Result<Installations> {
    installations().ok_or_else(|| {
        Failure::usage("cannot find the cache directory: HOME is not set").hint("set XDG_CACHE_HOME to a directory")
    })
}

#[cfg(unix)]
impl Install {
    async fn run(&self, context: &Context) -> Result {
        let from = context.expand(&self.from);
        let Name::Digest(digest) = from.name() else {
            let name = from.to_string();
            let shown = quoted(&name);
            return Err(Failure::usage(format_args!("cannot install BuildKit from {from}: the digest is missing"))
                .hint(format_args!("add @DIGEST; `ocikit digest {shown}` prints it")));
        };
        let installations = installed()?;
        let platform = self.platform.clone().unwrap_or_else(Platform::of_this_machine);
        let source = InstallationSource::of(digest, self.from.to_string()).for_platform(platform.clone());
        let installation = match installations.select(&source)? {
            Some(installation) => {
                context.output.say(format!("BuildKit {} is installed already", installation.version));
                installation
            }
            None => {
                let root = context.session(&[&from])?.open(&from).await?;
                let image = inside::image(root, Some(&platform)).await?;
                let installation = installations.install(&image, &source).await?;
                context.output.say(format!("installed BuildKit {}", installation.version));
                installation
            }
        };
        let path = installation.programs.display().to_string();
        context.output.result(&InstallationOutput::of(installation), || path)
    }
}

fn list(context: &Context) -> Result {
    let installations = installed()?.list()?.into_iter().map(InstallationOutput::of).collect();
    let result = ListOutput { installations };
    context.output.result(&result, || result.installations.iter().map(InstallationOutput::line).collect::<Lines>())
}

impl Uninstall {
    async fn run(&self, context: &Context) -> Result {
        let installations = installed()?;
        let mut found = installations.list()?;
        found.retain(|found| self.digest.as_ref().is_none_or(|digest| is_meant(&found.digest, digest)));
        match (&self.digest, found.len()) {
            (Some(digest), 0) => {
                return Err(Failure::new(Code::Missing, format_args!("no BuildKit {digest} is installed"))
                    .hint("give at least 12 hex digits of a digest; `ocikit buildkit list` lists them"));
            }
            (Some(digest), 2..) => {
                return Err(Failure::usage(format_args!("several installed BuildKits have a digest {digest}")));
            }
            (Some(_), 1) | (None, _) => {}
        }
        for installation in &found {
            installations.remove(installation).await?;
            context.output.say(format!("removed BuildKit {} {}", installation.version, installation.digest));
        }
        Ok(())
    }
}

/// Returns whether a text is a digest, or the first hex digits of it.
fn is_meant(digest: &Digest, text: &str) -> bool {
    const MIN_HEX_DIGITS: usize = 12;
    let hex = text.rsplit(':').next().unwrap_or_default();
    let has_algorithm = text.len() == hex.len() || digest.to_string().starts_with(text);
    has_algorithm && hex.len() >= MIN_HEX_DIGITS && digest.hex().starts_with(hex)
}

impl Status {
    async fn run(&self, context: &Context) -> Result {
        let options = self.builder.options(&[], Vec::new())?;
        let candidates = Builder::candidates(&options).await;
        // Given addresses are all used, even if one cannot be reached; otherwise the first that can be used.
        let used: Vec<_> = match options.nodes.len() {
            0 => candidates.iter().position(|candidate| candidate.problem.is_none()).into_iter().collect(),
            given => (0..given).collect(),
        };
        let is_usable = !used.is_empty() && used.iter().all(|position| candidates[*position].problem.is_none());
        let builders = candidates.into_iter().enumerate();
        let mode = Builder::daemon_mode(&options.daemon);
        let builders = builders.map(|(position, found)| CandidateOutput::of(found, used.contains(&position), mode));
        let result = StatusOutput { builders: builders.collect() };
        context.output.result(&result, || result.builders.iter().map(CandidateOutput::line).collect::<Lines>())?;
        match is_usable {
            true => Ok(()),
            false => Err(Failure::new(Code::Missing, "no BuildKit can be used")
                .hint("run `ocikit buildkit install`, or set BUILDKIT_HOST to a running BuildKit")),
        }
    }
}

impl CandidateOutput {
    fn of(found: Candidate, used: bool, mode: &'static str) -> CandidateOutput {
        CandidateOutput {
            kind: found.kind.as_str(),
            address: found.address.map(|address| address.to_string()),
            digest: found.installation.map(|installation| installation.digest),
            version: found.version,
            used,
            problem: found.problem,
            mode,
        }
    }

    fn line(&self) -> String {
        let name = self.address.as_deref().unwrap_or(self.kind);
        let starts = [BuilderKind::Daemon, BuilderKind::Installed].iter().any(|kind| kind.as_str() == self.kind);
        let mode = if starts { format!(" ({})", self.mode) } else { String::new() };
        let version = self.version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
        let digest = self.digest.map(|digest| format!(" {digest}")).unwrap_or_default();
        let state = match (&self.problem, self.used) {
            (Some(problem), _) => format!("cannot be used: {problem}"),
            (None, true) => "used".to_owned(),
            (None, false) => "not needed".to_owned(),
        };
        format!("{name}{mode}{version}{digest}: {state}")
    }
}

impl InstallationOutput {
    fn of(found: Installation) -> InstallationOutput {
        InstallationOutput {
            digest: found.digest,
            version: found.version,
            platform: found.source.platform.to_string(),
            location: found.source.location,
            path: found.programs.display().to_string(),
            problem: found.problem,
        }
    }

    fn line(&self) -> String {
        let InstallationOutput { digest, version, platform, location, problem, .. } = self;
        let problem = problem.as_ref().map(|problem| format!(" (cannot be used: {problem})")).unwrap_or_default();
        format!("{digest} {version} {platform} {location}{problem}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_given_by_its_first_digits() {
        let digest = Digest::sha256_of(b"one");
        let (hex, whole) = (digest.hex(), digest.to_string());
        for text in [&whole, &whole[..19], &hex[..12], &hex] {
            assert!(is_meant(&digest, text), "{text}");
        }
        for text in [&hex[..11], "sha256:", "", "sha512:000000000000", &format!("sha512:{hex}")] {
            assert!(!is_meant(&digest, text), "{text}");
        }
    }
}
