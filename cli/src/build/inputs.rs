use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ocikit::Platform;
use ocikit_build::{
    Attestation, BuildContext, ByteSize, Cache, CacheEntry, Dockerfile, ExtraHost, LayerCompression, NamedContext,
    NetworkMode, Secret, Solve, Ulimit,
};

use crate::build::cache::{self, Place};
use crate::build::generate::GenerateArguments;
use crate::context::Context;
use crate::environment::{cache_directory, variable};
use crate::failure::{Failure, Result};
use crate::values::key_value;
use crate::waiting::Waiting;

/// The inputs of a build. The flags have the names and the notation of docker.
#[derive(Debug, Args)]
#[command(next_help_heading = "Inputs")]
pub(crate) struct InputArguments {
    /// Directory, git URL or tar URL to build from
    ///
    /// `-` reads a tar from standard input, plain or compressed by gzip, xz, zstd or bzip2; or a Dockerfile, which is built without
    /// a context. Default: PLP_SOURCE_PATH, or /source.
    pub(crate) context: Option<String>,
    #[command(flatten)]
    generate: GenerateArguments,
    #[command(flatten)]
    pub(crate) options: SolveArguments,
}

/// How a build is solved. It contains no other arguments: clap makes no group of arguments that do, and `publish` needs one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Inputs")]
pub(crate) struct SolveArguments {
    /// Use this Dockerfile; default: `Dockerfile` in CONTEXT
    ///
    /// `-` reads it from standard input. For a remote context or a tar it is a path in the context.
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Build for this platform; repeatable
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',')]
    pub(crate) platform: Vec<Platform>,
    /// Build this stage
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Set an ARG; repeatable
    ///
    /// NAME alone takes the value of the environment variable.
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_value)]
    build_arg: Vec<(String, String)>,
    /// Add a label to the image; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    label: Vec<(String, String)>,
    /// Give the steps a secret; repeatable
    ///
    /// BuildKit reads the file or the environment variable; the value is in no argument, no layer and no log.
    #[arg(long, value_name = "id=ID,src=FILE|env=NAME")]
    secret: Vec<Secret>,
    /// Give the steps an SSH agent or key; repeatable
    #[arg(long, value_name = "default|ID[=SOCKET|KEY[,KEY]]")]
    ssh: Vec<String>,
    /// Add a context for `FROM NAME` and `COPY --from=NAME`; repeatable
    ///
    /// VALUE is a directory, a git or tar URL, docker-image://REFERENCE or oci-layout://DIR[:TAG|@DIGEST].
    #[arg(long, value_name = "NAME=VALUE")]
    build_context: Vec<NamedContext>,
    /// Look up base images again although BuildKit has them
    #[arg(long)]
    pull: bool,
    /// Add an entry to /etc/hosts of the steps; repeatable
    #[arg(long, value_name = "HOST:IP")]
    add_host: Vec<ExtraHost>,
    /// Use this network for the steps: default, none or host
    #[arg(long, value_name = "MODE")]
    network: Option<NetworkMode>,
    /// Allow an entitlement, such as security.insecure; repeatable
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// Limit a resource of the steps; repeatable
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Ulimit>,
    /// Set the size of /dev/shm of the steps
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<ByteSize>,
    /// Run every step even if its result is in the cache
    #[arg(long)]
    no_cache: bool,
    /// Run every step of this stage; repeatable
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Import a build cache; repeatable
    #[arg(long, value_name = "type=TYPE,...|REFERENCE")]
    cache_from: Vec<CacheEntry>,
    /// Export a build cache; repeatable
    ///
    /// Types: local, registry, inline, gha, s3, azblob. `type=local,dest=DIR,max-size=SIZE` limits the size of a
    /// directory: it holds what the last build used, without the oldest results.
    #[arg(long, value_name = "type=TYPE,...|REFERENCE")]
    cache_to: Vec<CacheEntry>,
    /// Limit the size of the cache directory; default: OCIKIT_CACHE_SIZE
    ///
    /// The oldest results are removed.
    #[arg(long, value_name = "SIZE")]
    cache_size: Option<ByteSize>,
    /// Do not keep layers for the next build
    #[arg(long)]
    no_cache_directory: bool,
    /// Add a provenance attestation: true, mode=max or other attributes
    #[arg(long, value_name = "ATTRIBUTES", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = Attestation::provenance)]
    provenance: Option<Attestation>,
    /// Add an SBOM attestation: true or generator=IMAGE
    #[arg(long, value_name = "ATTRIBUTES", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = Attestation::sbom)]
    sbom: Option<Attestation>,
    /// Add an attestation; repeatable
    #[arg(long, value_name = "type=sbom|provenance,...")]
    attest: Vec<Attestation>,
    /// Compress layers this way: gzip, zstd, estargz or uncompressed
    #[arg(long, value_name = "TYPE[:LEVEL]")]
    compression: Option<LayerCompression>,
    /// Cancel the build after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    time_limit: Option<u64>,
}

/// The word for standard input.
const STDIN: &str = "-";

impl InputArguments {
    /// Returns whether the arguments are those of the builder plugin, which has none.
    pub(crate) fn is_plugin(&self) -> bool {
        self.context.is_none()
    }

    /// Returns whether the generated Dockerfile is printed instead of built.
    pub(crate) fn prints_dockerfile(&self) -> bool {
        self.generate.print_dockerfile
    }

    /// Returns the inputs.
    pub(crate) fn solve(&self, context: &Context, name: Option<String>) -> Result<Solve> {
        self.options.solve(context, &self.generate, self.context.as_deref(), name)
    }
}

impl SolveArguments {
    /// Returns the inputs to build a directory or URL; without one, those of the builder plugin.
    pub(crate) fn solve(
        &self,
        context: &Context,
        generate: &GenerateArguments,
        given: Option<&str>,
        name: Option<String>,
    ) -> Result<Solve> {
        let source = given.map(str::to_owned).or_else(|| variable("PLP_SOURCE_PATH"));
        let source = source.unwrap_or_else(|| "/source".to_owned());
        let mut solve = Solve::of(&source);
        match (&self.file, source.as_str()) {
            (Some(file), STDIN) if file == Path::new(STDIN) => {
                return Err(Failure::usage("cannot read both the context and the Dockerfile from standard input"));
            }
            (file, STDIN) => {
                let file = file.as_ref().map(|file| file.to_string_lossy());
                solve.receive(&standard_input()?, file.as_deref())?;
            }
            (file, source) => {
                solve.context = BuildContext::parse(source)?;
                solve.dockerfile = dockerfile(&solve.context, file.as_deref())?;
            }
        }
        generate.apply(context, &mut solve)?;
        solve.platforms.clone_from(&self.platform);
        solve.target.clone_from(&self.target);
        solve.build_arguments.clone_from(&self.build_arg);
        solve.labels.clone_from(&self.label);
        solve.secrets.clone_from(&self.secret);
        solve.ssh.clone_from(&self.ssh);
        solve.named_contexts.clone_from(&self.build_context);
        solve.no_cache = self.no_cache;
        solve.no_cache_stages.clone_from(&self.no_cache_filter);
        solve.pull = self.pull;
        solve.hosts.clone_from(&self.add_host);
        solve.network = self.network;
        solve.entitlements.clone_from(&self.allow);
        solve.ulimits.clone_from(&self.ulimit);
        solve.shm_size = self.shm_size.map(|ByteSize(bytes)| bytes);
        solve.cache_from.clone_from(&self.cache_from);
        let (limited, others): (Vec<_>, Vec<_>) = self.cache_to.iter().cloned().partition(|to| to.limited().is_some());
        solve.cache_to = others;
        solve.attestations = self.attest.iter().chain(&self.provenance).chain(&self.sbom).cloned().collect();
        solve.compression.clone_from(&self.compression);
        solve.source_date_epoch = context.epoch;
        solve.name = name;
        solve.time_limit = self.time_limit.map(Duration::from_secs);
        solve.check()?;
        solve.cache = match limited.iter().find_map(CacheEntry::limited) {
            Some((directory, ByteSize(most))) => cache::usable(context, directory, Place::Own, Some(most)),
            None => self.cache(context, given.is_none())?,
        };
        Ok(solve)
    }

    /// Returns the cache in the default directory.
    fn cache(&self, context: &Context, is_plugin: bool) -> Result<Option<Cache>> {
        if self.no_cache_directory {
            return Ok(None);
        }
        let size = match (self.cache_size, variable("OCIKIT_CACHE_SIZE")) {
            (Some(ByteSize(size)), _) => Some(size),
            (None, Some(text)) => Some(text.parse::<ByteSize>()?.0),
            (None, None) => None,
        };
        let (directory, place) = match (is_plugin, variable("PLP_CACHE_PATH")) {
            // Other users can predict the default path and create it first.
            (true, None) => (Some(PathBuf::from("/tmp/cache/buildkit")), Place::Shared),
            (true, Some(path)) => (Some(Path::new(&path).join("buildkit")), Place::Own),
            (false, _) => (cache_directory().map(|cache| cache.join("buildkit")), Place::Home),
        };
        Ok(directory.and_then(|directory| cache::usable(context, directory, place, size)))
    }
}

/// Copies standard input to a file without a name, so that an interruption leaves nothing.
fn standard_input() -> Result<File> {
    let failed = |error: io::Error| Failure::io("store", "standard input in a temporary file", &error);
    let mut file = tempfile::tempfile().map_err(failed)?;
    let _waiting = Waiting::new();
    io::copy(&mut io::stdin().lock(), &mut file).map_err(failed)?;
    Ok(file)
}

/// Returns the Dockerfile of a context that is not read from standard input.
fn dockerfile(context: &BuildContext, file: Option<&Path>) -> Result<Dockerfile> {
    Ok(match (context, file) {
        (_, Some(file)) if file == Path::new(STDIN) => Dockerfile::Text(crate::file::read(file)?),
        (BuildContext::Remote(_), file) => {
            Dockerfile::InContext(file.map_or("Dockerfile".into(), |file| file.to_string_lossy()).into_owned())
        }
        (_, Some(file)) => Dockerfile::File(file.to_owned()),
        (BuildContext::Directory(directory), None) => Dockerfile::File(directory.join("Dockerfile")),
        (BuildContext::Empty, None) => Dockerfile::File("Dockerfile".into()),
    })
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
