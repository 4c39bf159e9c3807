use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use ocikit::layout::{DockerList, OutputFile, TarOptions, TarWriter};
use ocikit::spec::annotations::{CREATED, REVISION, SOURCE};
use ocikit::{AnnotateOn, AnnotateOptions, Name, Naming, Platform, Root, Sink};
use ocikit_build::{Cache, Daemon, DaemonOptions, Solve};
use serde::Serialize;

use crate::context::Context;
use crate::environment::variable;
use crate::failure::{Code, Failure, Result};
use crate::file::is_stdout;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  ocikit build .
  ocikit build --platform linux/amd64 --platform linux/arm64 -o app.tar .
  ocikit build -t ghcr.io/acme/app:1 --build-arg VERSION=1.0 .";

/// Build an image with BuildKit and write an annotated OCI archive
///
/// Uses the BuildKit at BUILDKIT_HOST, or starts one for this build. Reads the result from a pipe, adds annotations
/// from GIT_REPOSITORY_URL and GIT_SHA, and replaces the archive when it is complete. `docker load` accepts the
/// archive. Without CONTEXT, PLP_SOURCE_PATH, PLP_BUILD_PATH and PLP_CACHE_PATH name the directories. Prints the
/// digest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Build {
    /// Directory to build from
    context: Option<PathBuf>,
    /// Write this archive; default: container-image.tar
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Use this Dockerfile; default: `Dockerfile` in CONTEXT
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Build for this platform; repeatable
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Vec<Platform>,
    /// Build this stage
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Set an ARG; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_value)]
    build_arg: Vec<(String, String)>,
    /// Name the image in the archive, for `docker load`; repeatable
    #[arg(long, short, value_name = "REFERENCE")]
    tag: Vec<ocikit::Reference>,
    /// Leave out the `manifest.json` that `docker load` needs
    #[arg(long)]
    no_docker: bool,
    /// Do not keep layers for the next build
    #[arg(long)]
    no_cache_directory: bool,
}

/// The paths of a build.
struct Paths {
    source: PathBuf,
    archive: PathBuf,
    cache: Option<PathBuf>,
}

#[derive(Serialize)]
struct BuildOutput {
    archive: String,
    digest: ocikit::Digest,
    size: u64,
}

/// The name of the archive in the build directory; part of the contract with the builder plugin.
const ARCHIVE: &str = "container-image.tar";

impl Build {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let plugin = self.context.is_none();
        self.build(context).await.map_err(|failure| match failure.code {
            // The caller of the builder plugin knows the exit codes 0 and 1 only.
            Code::Missing | Code::Unverified | Code::Unreachable if plugin => Failure { code: Code::Other, ..failure },
            _ => failure,
        })
    }

    async fn build(&self, context: &Context) -> Result {
        let paths = self.paths();
        let dockerfile = self.file.clone().unwrap_or_else(|| paths.source.join("Dockerfile"));
        check(&paths, &dockerfile)?;
        let cache = self.cache(context, &paths);
        let solve = Solve {
            dockerfile,
            platforms: self.platform.clone(),
            target: self.target.clone(),
            build_arguments: self.build_arg.clone(),
            source_date_epoch: context.epoch,
            cache,
            ..Solve::of(&paths.source)
        };
        let annotations = git_annotations(context)?;
        let docker = match self.no_docker {
            true => DockerList::None,
            false => DockerList::For(self.platform.first().cloned().unwrap_or_else(Platform::of_this_machine)),
        };
        let options = TarOptions { modified: context.epoch.unwrap_or_default(), docker, ..TarOptions::default() };
        let to_stdout = is_stdout(&paths.archive);
        let archive: Arc<dyn Sink> = match to_stdout {
            true => Arc::new(TarWriter::stream("-", io::stdout(), options)),
            false => Arc::new(TarWriter::create(&paths.archive, options).await?),
        };
        let session = context.session(&[])?;

        let (daemon, address) = match variable("BUILDKIT_HOST") {
            Some(address) => (None, address),
            None => {
                let flags = variable("BUILDKITD_FLAGS").unwrap_or_default();
                let arguments = flags.split_whitespace().map(str::to_owned).collect();
                let daemon = Daemon::start(&DaemonOptions { arguments, ..DaemonOptions::default() }).await?;
                let address = daemon.address().to_owned();
                (Some(daemon), address)
            }
        };
        let built = ocikit_build::build(&solve, &address, context.progress.of_build(), &archive).await;
        if let Some(daemon) = daemon {
            daemon.stop().await;
        }
        let root = Root::open(Arc::new(built?), &Name::Only).await?;
        let root = annotated(&root, annotations).await?;
        let copied = session.copy_to(&root, &archive, self.names()).await?;

        if to_stdout {
            return Ok(());
        }
        let size = std::fs::metadata(&paths.archive).map_or(0, |metadata| metadata.len());
        let shown = paths.archive.display().to_string();
        context.output.say(format!("{shown}: {}", output::bytes(size)));
        let result = BuildOutput { archive: shown, digest: copied.root.digest, size };
        context.output.result(&result, || result.digest.to_string())
    }

    fn paths(&self) -> Paths {
        let path = |name: &str, default: &str| PathBuf::from(variable(name).unwrap_or_else(|| default.to_owned()));
        let mut paths = match &self.context {
            Some(source) => {
                let home = variable("XDG_CACHE_HOME").map(PathBuf::from);
                let home = home.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")));
                let cache = home.map(|home| home.join("ocikit").join("buildkit"));
                Paths { source: source.clone(), archive: PathBuf::from(ARCHIVE), cache }
            }
            None => Paths {
                source: path("PLP_SOURCE_PATH", "/source"),
                archive: path("PLP_BUILD_PATH", "/build").join(ARCHIVE),
                cache: Some(path("PLP_CACHE_PATH", "/tmp/cache").join("buildkit")),
            },
        };
        if let Some(output) = &self.output {
            paths.archive.clone_from(output);
        }
        paths
    }

    /// Returns the layer cache, or `None` if it cannot be used: a build without a cache is slower but has the same result.
    fn cache(&self, context: &Context, paths: &Paths) -> Option<Cache> {
        let directory = paths.cache.clone().filter(|_| !self.no_cache_directory)?;
        let usable = match &self.context {
            // Other users can predict the default path and create it first.
            None if variable("PLP_CACHE_PATH").is_none() => check_cache(&directory, Place::Shared),
            None => check_cache(&directory, Place::Own),
            Some(_) => check_cache(&directory, Place::Home),
        };
        match usable {
            Ok(()) => Some(Cache { directory }),
            Err(error) => {
                context.output.say(format!("warning: building without a cache at {}: {error}", directory.display()));
                None
            }
        }
    }

    fn names(&self) -> Vec<Naming> {
        let naming = |reference: &ocikit::Reference| Naming {
            tag: reference.tag().cloned(),
            full: Some(reference.to_string()),
            replaces: None,
        };
        self.tag.iter().map(naming).collect()
    }
}

/// The owner of the directory of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// One that the user chose, for example a volume that all users of a container may write to.
    Own,
    /// The cache directory of the user.
    Home,
    /// A predictable path in a directory where all users can create files.
    Shared,
}

/// Creates the parent directory of a cache. Fails for a cache that another user can have created or can change, because its
/// content becomes part of images.
fn check_cache(directory: &Path, place: Place) -> io::Result<()> {
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, if place == Place::Shared { 0o700 } else { 0o777 });
    let failed = |operation: &str, error: io::Error| {
        io::Error::new(error.kind(), format!("cannot {operation} {}: {error}", parent.display()))
    };
    builder.create(parent).map_err(|error| failed("create", error))?;
    let probe = tempfile::tempfile_in(parent).map_err(|error| failed("write to", error))?;
    let mut next = directory.as_os_str().to_owned();
    next.push(".next");
    let kept = [directory, Path::new(&next)];
    for path in kept.into_iter().chain((place == Place::Shared).then_some(parent)) {
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(found) => check_owner(path, &found, &probe.metadata()?, place)?,
        }
    }
    match place {
        Place::Own => Ok(()),
        Place::Home => check_above(directory),
        Place::Shared => check_above(parent),
    }
}

#[cfg(unix)]
fn check_owner(path: &Path, found: &Metadata, own: &Metadata, place: Place) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    const WRITABLE_BY_ALL: u32 = 0o002;
    let problem = match () {
        () if !found.is_dir() => "is a symlink or not a directory",
        () if found.uid() != own.uid() => "belongs to another user",
        () if found.mode() & if place == Place::Shared { WRITABLE_BY_OTHERS } else { WRITABLE_BY_ALL } != 0 => {
            "can be written to by other users"
        }
        () => return Ok(()),
    };
    Err(io::Error::other(format!("{} {problem}", path.display())))
}

/// Refuses a directory whose own directory lets another user rename it or put another in its place.
#[cfg(unix)]
fn check_above(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    const ROOT: u32 = 0;
    const STICKY: u32 = 0o1000;
    const WRITABLE_BY_ALL: u32 = 0o002;
    let own = directory.metadata()?.uid();
    let above = directory.canonicalize()?;
    let Some(above) = above.parent() else { return Ok(()) };
    let found = above.metadata()?;
    let problem = match () {
        () if ![ROOT, own].contains(&found.uid()) => "belongs to another user",
        () if found.mode() & WRITABLE_BY_ALL != 0 && found.mode() & STICKY == 0 => {
            "can be written to by other users and is not sticky"
        }
        () => return Ok(()),
    };
    Err(io::Error::other(format!("{} {problem}", above.display())))
}

#[cfg(not(unix))]
fn check_above(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn check_owner(_: &Path, _: &Metadata, _: &Metadata, _: Place) -> io::Result<()> {
    Ok(())
}

/// Checks the paths before BuildKit is started.
fn check(paths: &Paths, dockerfile: &Path) -> Result {
    if !paths.source.is_dir() {
        return Err(Failure::new(
            Code::Missing,
            format_args!("cannot build from {}: no such directory", paths.source.display()),
        )
        .hint("name the directory to build from: `ocikit build CONTEXT`"));
    }
    if !dockerfile.is_file() {
        return Err(Failure::new(
            Code::Missing,
            format_args!("cannot read the Dockerfile {}: no such file", dockerfile.display()),
        )
        .hint("name the Dockerfile with --file"));
    }
    if is_stdout(&paths.archive) || OutputFile::is_stream(&paths.archive) {
        return Ok(());
    }
    let directory = paths.archive.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::tempfile_in(directory).map(drop).map_err(|error| {
        let message = format!("cannot write to {}: {error}", directory.display());
        Failure::new(Code::Other, message)
    })
}

/// Returns the annotations from the git variables and the time. An unset variable leaves its annotation out.
fn git_annotations(context: &Context) -> Result<Vec<(String, String)>> {
    let created = match context.epoch {
        Some(epoch) => {
            let seconds = i64::try_from(epoch).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
            seconds.ok_or_else(|| Failure::usage("cannot use SOURCE_DATE_EPOCH: the time is out of range"))?
        }
        None => Timestamp::now(),
    };
    let known = [
        (SOURCE, variable("GIT_REPOSITORY_URL")),
        (REVISION, variable("GIT_SHA")),
        (CREATED, Some(created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())),
    ];
    Ok(known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
}

/// Annotates the manifests and the index, if there is one, and sets the creation time on the descriptor in `index.json` too.
async fn annotated(root: &Root, annotations: Vec<(String, String)>) -> Result<Root> {
    let created = annotations.iter().find(|(key, _)| key == CREATED).map(|(_, value)| value.clone());
    let options = AnnotateOptions { set: annotations, on: AnnotateOn::ManifestsAndIndex, ..AnnotateOptions::default() };
    let annotated = ocikit::image::annotate(root, &options).await?;
    let mut descriptor = annotated.descriptor().clone();
    if let Some(created) = created {
        descriptor.annotations.insert(CREATED, created);
    }
    Ok(Root::at(annotated.source().clone(), descriptor).await?)
}

fn name_value(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        // As in docker, a name without a value takes the value of the environment variable.
        _ => match variable(text) {
            Some(value) => Ok((text.to_owned(), value)),
            None => Err("it is not of the form NAME=VALUE, and no environment variable has this name".to_owned()),
        },
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_cache_that_others_can_change_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let cache = place.path().join("cache");
        let buildkit = cache.join("buildkit");
        check_cache(&buildkit, Place::Shared).unwrap();
        assert_eq!(std::fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);

        std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o777)).unwrap();
        let error = check_cache(&buildkit, Place::Shared).unwrap_err();
        assert!(error.to_string().contains("by other users"), "{error}");
        check_cache(&buildkit, Place::Own).unwrap();

        std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::create_dir(&buildkit).unwrap();
        std::fs::set_permissions(&buildkit, PermissionsExt::from_mode(0o777)).unwrap();
        for owner in [Place::Shared, Place::Own, Place::Home] {
            let error = check_cache(&buildkit, owner).unwrap_err();
            assert!(error.to_string().contains("by other users"), "{error}");
        }
        std::fs::remove_dir(&buildkit).unwrap();

        for (mode, is_used) in [(0o777, false), (0o1777, true), (0o755, true)] {
            std::fs::set_permissions(place.path(), PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(check_cache(&buildkit, Place::Shared).is_ok(), is_used, "{mode:o}");
            assert_eq!(check_cache(&cache, Place::Home).is_ok(), is_used, "{mode:o}");
        }

        symlink(place.path(), &buildkit).unwrap();
        for owner in [Place::Shared, Place::Own] {
            let error = check_cache(&buildkit, owner).unwrap_err();
            assert!(error.to_string().contains("is a symlink"), "{error}");
        }
        let linked = place.path().join("linked");
        symlink(&cache, &linked).unwrap();
        assert!(check_cache(&linked.join("buildkit"), Place::Shared).is_err());
    }
}
