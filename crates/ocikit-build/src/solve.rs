use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ocikit_archive::{Compression, EncoderOptions};
use ocikit_image::ScratchDirectory;
use ocikit_spec::Platform;

use crate::address::Node;
use crate::attributes::{Attributes, field};
use crate::cache::{Cache, CacheInUse};
use crate::confined::inside;
use crate::error::{Error, Result};
use crate::export::StagedExport;
use crate::inputs::{
    Attestation, BuildContext, CacheEntry, Dockerfile, ExtraHost, NamedContext, NamedSource, NetworkMode, Secret,
    Ulimit, exists,
};
use crate::upload::{Upload, UploadFiles};

/// The inputs of a build.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Solve {
    /// The `buildctl` program.
    pub buildctl: PathBuf,
    /// What `COPY` copies from.
    pub context: BuildContext,
    /// The Dockerfile.
    pub dockerfile: Dockerfile,
    /// The platforms to build for; that of the daemon if empty.
    pub platforms: Vec<Platform>,
    /// The stage to build; the last if `None`.
    pub target: Option<String>,
    /// The values of `ARG`.
    pub build_arguments: Vec<(String, String)>,
    /// The labels of the image.
    pub labels: Vec<(String, String)>,
    /// The secrets of the steps.
    pub secrets: Vec<Secret>,
    /// The SSH agents and keys of the steps, in the notation of docker: `default`, or `ID=SOCKET`.
    pub ssh: Vec<String>,
    /// The contexts with a name.
    pub named_contexts: Vec<NamedContext>,
    /// Whether every step runs, even if its result is in the cache.
    pub no_cache: bool,
    /// The stages whose steps run even if their results are in the cache.
    pub no_cache_stages: Vec<String>,
    /// Whether base images are looked up again although the daemon has them.
    pub pull: bool,
    /// Entries for `/etc/hosts` of the steps.
    pub hosts: Vec<ExtraHost>,
    /// The network of the steps.
    pub network: Option<NetworkMode>,
    /// The entitlements that the build may use, such as `security.insecure`.
    pub entitlements: Vec<String>,
    /// The resource limits of the steps.
    pub ulimits: Vec<Ulimit>,
    /// The size of `/dev/shm` of the steps, in bytes.
    pub shm_size: Option<u64>,
    /// The caches to import.
    pub cache_from: Vec<CacheEntry>,
    /// The caches to export.
    pub cache_to: Vec<CacheEntry>,
    /// The cache in a directory of this machine, which is both imported and exported.
    pub cache: Option<Cache>,
    /// The attestations to add. The last of a kind counts.
    pub attestations: Vec<Attestation>,
    /// The compression of the layers in the notation of docker: `zstd`, or `gzip:9`.
    pub compression: Option<LayerCompression>,
    /// The time of everything in the image, in seconds since 1970, for reproducible builds.
    pub source_date_epoch: Option<u64>,
    /// The name of the image in its attestations.
    pub name: Option<String>,
    /// The time limit of the build.
    pub time_limit: Option<Duration>,
    /// The directory with a context that was read from a stream.
    pub(crate) received: Option<Arc<ScratchDirectory>>,
    /// The directory of the docker configuration with the credentials for base images and caches; that of the environment if
    /// `None`.
    pub docker_config: Option<PathBuf>,
}

/// The compression of the layers of an image.
///
/// zstd, and gzip with a level, are the work of this library: BuildKit exports what it has, uncompressed where it has no other
/// form, and each layer is compressed on all processors while it arrives. BuildKit has gzip without a level already, from its
/// cache and from base images, and writes eStargz.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerCompression {
    kind: LayerFormat,
    level: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LayerFormat {
    Gzip,
    Zstd,
    Estargz,
    Uncompressed,
}

impl LayerCompression {
    /// Returns how the layers are compressed while they arrive; `None` if BuildKit does it.
    pub(crate) fn encoder(&self) -> Option<EncoderOptions> {
        let compression = match (self.kind, self.level) {
            (LayerFormat::Zstd, _) => Compression::Zstd,
            (LayerFormat::Gzip, Some(_)) => Compression::Gzip,
            (LayerFormat::Uncompressed, _) => Compression::None,
            (LayerFormat::Gzip, None) | (LayerFormat::Estargz, _) => return None,
        };
        Some(EncoderOptions::from(compression).level(self.level))
    }

    /// Adds the attributes of the output of BuildKit.
    fn add_to(&self, output: &mut Attributes) {
        let kind = match self.kind {
            _ if self.encoder().is_some() => return output.push("compression", "uncompressed"),
            LayerFormat::Estargz => "estargz",
            LayerFormat::Gzip | LayerFormat::Zstd | LayerFormat::Uncompressed => "gzip",
        };
        output.push("compression", kind);
        output.push("force-compression", "true");
        self.level.iter().for_each(|level| output.push("compression-level", level.to_string()));
    }
}

impl std::str::FromStr for LayerCompression {
    type Err = Error;

    /// Reads `gzip`, `zstd`, `estargz` or `uncompressed`, with a level after a colon: `zstd:19`.
    fn from_str(text: &str) -> Result<LayerCompression> {
        let refuse = Error::option("compression", text);
        let (kind, level) = text.split_once(':').map_or((text, None), |(kind, level)| (kind, Some(level)));
        let (kind, levels) = match kind {
            "gzip" => (LayerFormat::Gzip, EncoderOptions::levels(Compression::Gzip)),
            "zstd" => (LayerFormat::Zstd, EncoderOptions::levels(Compression::Zstd)),
            "estargz" => (LayerFormat::Estargz, EncoderOptions::levels(Compression::Gzip)),
            "uncompressed" | "none" => (LayerFormat::Uncompressed, None),
            _ => return Err(refuse("it is not one of gzip, zstd, estargz and uncompressed")),
        };
        let level = level.map(str::parse::<u32>).transpose().map_err(|_| refuse("its level is not a number"))?;
        match (level, levels) {
            (Some(_), None) => Err(refuse("it has no levels")),
            (Some(level), Some(levels)) if !levels.contains(&level) => {
                Err(refuse(&format!("its levels are {} to {}", levels.start(), levels.end())))
            }
            (level, _) => Ok(LayerCompression { kind, level }),
        }
    }
}

/// The time limit of `buildctl` for a connection to the daemon, in seconds. Its default of 5 is too short for a machine
/// that is busy with other builds; an address that refuses connections fails at once.
const CONNECT_TIMEOUT_SECONDS: u32 = 60;

/// What a run of `buildctl` writes and where.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outputs<'a> {
    /// Whether the image is written to standard output as an OCI archive.
    pub(crate) image: bool,
    /// The upload by BuildKit.
    pub(crate) upload: Option<(&'a Upload, &'a UploadFiles)>,
    pub(crate) exports: &'a [StagedExport],
    /// The cache in a directory, if it can be used.
    pub(crate) cache: Option<&'a CacheInUse>,
    /// A temporary directory: the Dockerfile of [`Dockerfile::Text`] is in `dockerfile`, and `context` is empty.
    pub(crate) scratch: Option<&'a Path>,
    /// The name of a subrequest of the frontend, which answers on standard output instead of a build.
    pub(crate) subrequest: Option<&'a str>,
}

impl Solve {
    /// Returns the options to build a directory with a `Dockerfile`.
    pub fn of(context: impl Into<PathBuf>) -> Solve {
        let context = context.into();
        Solve {
            buildctl: "buildctl".into(),
            dockerfile: Dockerfile::File(context.join("Dockerfile")),
            context: BuildContext::Directory(context),
            platforms: Vec::new(),
            target: None,
            build_arguments: Vec::new(),
            labels: Vec::new(),
            secrets: Vec::new(),
            ssh: Vec::new(),
            named_contexts: Vec::new(),
            no_cache: false,
            no_cache_stages: Vec::new(),
            pull: false,
            hosts: Vec::new(),
            network: None,
            entitlements: Vec::new(),
            ulimits: Vec::new(),
            shm_size: None,
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            cache: None,
            attestations: Vec::new(),
            compression: None,
            source_date_epoch: None,
            name: None,
            time_limit: None,
            received: None,
            docker_config: None,
        }
    }

    /// Checks that all local inputs exist, so that a build fails before BuildKit is started.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] for files and directories, [`Error::Option`] for environment variables.
    pub fn check(&self) -> Result<()> {
        if let BuildContext::Directory(path) = &self.context {
            exists("the build context", path)?;
        }
        match (&self.dockerfile, &self.context) {
            (Dockerfile::File(path), _) => exists("the Dockerfile", path)?,
            (Dockerfile::InContext(name), BuildContext::Directory(path)) => {
                let found = inside(path, Path::new(name)).filter(|found| path.join(found).is_file());
                found
                    .ok_or_else(|| Error::Missing { what: "the Dockerfile", path: format!("{name} of the context") })?;
            }
            (Dockerfile::Text(_) | Dockerfile::Generated { .. } | Dockerfile::InContext(_), _) => {}
        }
        self.secrets.iter().try_for_each(Secret::check)?;
        self.named_contexts.iter().try_for_each(|context| match &context.source {
            NamedSource::Directory(path) | NamedSource::Layout { path, .. } => exists("the build context", path),
            NamedSource::Remote(_) => Ok(()),
        })
    }

    /// Returns the arguments with which `buildctl` builds on a node, for display. They contain no secret: `buildctl`
    /// reads secrets from the files and variables that they name.
    pub fn call(&self, node: &Node) -> Vec<String> {
        let outputs = Outputs { image: true, scratch: Some(Path::new("TEMPORARY")), ..Outputs::default() };
        let program = self.buildctl.display().to_string();
        [vec![program], self.arguments(node, &outputs)].concat()
    }

    /// Returns the entitlements that the daemon must allow.
    pub fn needed_entitlements(&self) -> Vec<String> {
        let mut needed = self.entitlements.clone();
        if self.network == Some(NetworkMode::Host) && !needed.iter().any(|known| known == "network.host") {
            needed.push("network.host".to_owned());
        }
        needed
    }

    /// Returns whether the provenance attestation is requested.
    pub fn has_provenance(&self) -> bool {
        self.last_attestations().any(|attestation| attestation.kind() == "provenance" && attestation.is_on())
    }

    /// Returns the inputs for one of several nodes, each of which has a cache directory of its own.
    pub(crate) fn for_node(&self, position: usize, count: usize) -> Solve {
        let mut solve = self.clone();
        if let Some(cache) = solve.cache.as_mut().filter(|_| count > 1) {
            cache.directory.as_mut_os_string().push(format!("-{position}"));
        }
        if count > 1 {
            // The first node that ends must not remove the context of the others.
            solve.received = None;
        }
        solve
    }

    /// Returns the arguments of `buildctl` for a node.
    pub(crate) fn arguments(&self, node: &Node, outputs: &Outputs<'_>) -> Vec<String> {
        let mut arguments = node.address.arguments();
        arguments.push(format!("--timeout={CONNECT_TIMEOUT_SECONDS}"));
        arguments.extend(["build", "--frontend=dockerfile.v0", "--progress=rawjson"].map(str::to_owned));
        self.add_context(&mut arguments, outputs);
        let platforms = if node.platforms.is_empty() { &self.platforms } else { &node.platforms };
        let mut options = Vec::new();
        if !platforms.is_empty() {
            options.push(format!("platform={}", joined(platforms)));
        }
        options.extend(self.target.iter().map(|target| format!("target={target}")));
        options.extend(self.build_arguments.iter().map(|(name, value)| format!("build-arg:{name}={value}")));
        options.extend(self.source_date_epoch.map(|epoch| format!("build-arg:SOURCE_DATE_EPOCH={epoch}")));
        options.extend(self.labels.iter().map(|(name, value)| format!("label:{name}={value}")));
        if !self.no_cache_stages.is_empty() {
            options.push(format!("no-cache={}", self.no_cache_stages.join(",")));
        }
        options.extend(self.pull.then(|| "image-resolve-mode=pull".to_owned()));
        if !self.hosts.is_empty() {
            let hosts = self.hosts.iter().map(|host| format!("{}={}", host.name, host.address));
            options.push(format!("add-hosts={}", hosts.collect::<Vec<_>>().join(",")));
        }
        options.extend(self.network.and_then(|network| match network {
            NetworkMode::Default => None,
            NetworkMode::None => Some("force-network-mode=none".to_owned()),
            NetworkMode::Host => Some("force-network-mode=host".to_owned()),
        }));
        if !self.ulimits.is_empty() {
            options.push(format!("ulimit={}", joined(&self.ulimits)));
        }
        options.extend(self.shm_size.map(|bytes| format!("shm-size={bytes}")));
        options.extend(self.last_attestations().filter_map(Attestation::to_option));
        options.extend(outputs.subrequest.map(|request| format!("requestid=frontend.{request}")));
        arguments.extend(options.into_iter().map(|option| format!("--opt={option}")));
        // Without a value, `no-cache` means every stage, and would replace the list of stages.
        arguments.extend((self.no_cache && self.no_cache_stages.is_empty()).then(|| "--no-cache".to_owned()));
        arguments.extend(self.secrets.iter().map(|secret| format!("--secret={}", secret.to_argument())));
        arguments.extend(self.ssh.iter().map(|ssh| format!("--ssh={ssh}")));
        arguments.extend(self.needed_entitlements().iter().map(|name| format!("--allow={name}")));
        if outputs.subrequest.is_some() {
            return arguments;
        }
        self.add_caches(&mut arguments, outputs.cache);
        if outputs.image {
            arguments.push(format!("--output={}", self.image_output()));
        }
        if let Some((upload, files)) = outputs.upload {
            arguments.push(format!("--output={}", self.upload_output(upload)));
            arguments.push(format!("--metadata-file={}", files.metadata().display()));
        }
        arguments.extend(outputs.exports.iter().map(|export| format!("--output={}", export.to_argument())));
        arguments
    }

    fn add_context(&self, arguments: &mut Vec<String>, outputs: &Outputs<'_>) {
        let scratch = outputs.scratch.unwrap_or(Path::new("."));
        match &self.context {
            BuildContext::Directory(path) => arguments.push(format!("--local=context={}", path.display())),
            BuildContext::Remote(url) => arguments.push(format!("--opt=context={url}")),
            BuildContext::Empty => arguments.push(format!("--local=context={}", scratch.join("context").display())),
        }
        let local = |path: &Path| {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            [format!("--local=dockerfile={}", directory.display()), format!("--opt=filename={name}")]
        };
        match &self.dockerfile {
            Dockerfile::File(path) => arguments.extend(local(path)),
            Dockerfile::Text(_) | Dockerfile::Generated { .. } => {
                arguments.extend(local(&scratch.join("dockerfile").join("Dockerfile")));
            }
            Dockerfile::InContext(name) => {
                if let BuildContext::Directory(path) = &self.context {
                    arguments.push(format!("--local=dockerfile={}", path.display()));
                }
                arguments.push(format!("--opt=filename={name}"));
            }
        }
        // A local Dockerfile for a remote context: without this, BuildKit looks for it in the context.
        if matches!(self.context, BuildContext::Remote(_)) && !matches!(self.dockerfile, Dockerfile::InContext(_)) {
            arguments.push("--opt=dockerfilekey=dockerfile".to_owned());
        }
        for (position, NamedContext { name, source }) in self.named_contexts.iter().enumerate() {
            match source {
                NamedSource::Directory(path) => {
                    arguments.push(format!("--local={name}={}", path.display()));
                    arguments.push(format!("--opt=context:{name}=local:{name}"));
                }
                NamedSource::Layout { path, digest } => {
                    // BuildKit cuts a tag off the name of a layout, and the name of a context may have one.
                    arguments.push(format!("--oci-layout=layout{position}={}", path.display()));
                    arguments.push(format!("--opt=context:{name}=oci-layout://layout{position}@{digest}"));
                }
                NamedSource::Remote(url) => arguments.push(format!("--opt=context:{name}={url}")),
            }
        }
    }

    fn add_caches(&self, arguments: &mut Vec<String>, used: Option<&CacheInUse>) {
        arguments.extend(self.cache_from.iter().map(|cache| format!("--import-cache={}", cache.to_argument())));
        arguments.extend(self.cache_to.iter().map(|cache| format!("--export-cache={}", cache.to_argument())));
        let Some(cache) = &self.cache else { return };
        // A call that is only shown has no directory of its own.
        let (last, next) = match used {
            Some(used) => (used.last(), used.next()),
            None => (cache.exists().then_some(&*cache.directory), PathBuf::from("TEMPORARY/next")),
        };
        // A cache that cannot be read or written must not fail the build.
        let attribute = |key: &str, path: &Path| field(&format!("{key}={}", path.display()));
        let to = attribute("dest", &next);
        arguments.push(format!("--export-cache=type=local,mode=max,ignore-error=true,{to}"));
        arguments.extend(last.map(|last| format!("--import-cache=type=local,{}", attribute("src", last))));
    }

    /// Returns the attestations without those that a later one of the same kind replaces.
    fn last_attestations(&self) -> impl Iterator<Item = &Attestation> {
        let is_last = |(position, attestation): &(usize, &Attestation)| {
            self.attestations[position + 1..].iter().all(|later| later.kind() != attestation.kind())
        };
        self.attestations.iter().enumerate().filter(is_last).map(|(_, attestation)| attestation)
    }

    fn image_output(&self) -> String {
        let mut output = Attributes::default();
        output.push("type", "oci");
        output.push("dest", "-");
        // BuildKit names the image as the subject of its statements only if it has a name.
        if self.last_attestations().any(Attestation::is_on) {
            self.name.iter().for_each(|name| output.push("name", name));
        }
        self.compression.iter().for_each(|compression| compression.add_to(&mut output));
        self.finished(output)
    }

    /// Returns the output that BuildKit uploads. Nothing gets a tag.
    fn upload_output(&self, upload: &Upload) -> String {
        let mut output = Attributes::default();
        output.push("type", "image");
        output.push("name", upload.repository.to_string());
        for attribute in ["push", "push-by-digest", "oci-mediatypes"] {
            output.push(attribute, "true");
        }
        if upload.is_insecure {
            output.push("registry.insecure", "true");
        }
        self.finished(output)
    }

    fn finished(&self, mut output: Attributes) -> String {
        if self.source_date_epoch.is_some() {
            output.push("rewrite-timestamp", "true");
        }
        output.to_line()
    }
}

fn joined(values: &[impl ToString]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node { platforms: Vec::new(), address: "unix:///s".parse().unwrap() }
    }

    #[test]
    fn arguments_say_what_to_build() {
        let mut solve = Solve::of("src");
        solve.dockerfile = Dockerfile::File("docker/app.Dockerfile".into());
        solve.platforms = vec!["linux/amd64".parse().unwrap(), "linux/arm/v7".parse().unwrap()];
        solve.build_arguments = vec![("A".to_owned(), "x,y=\"z\"".to_owned())];
        solve.source_date_epoch = Some(7);
        solve.target = Some("final".to_owned());
        solve.cache = Some(Cache { directory: "a,b/cache".into(), max_bytes: None });
        assert_eq!(
            solve.arguments(&node(), &Outputs { image: true, ..Outputs::default() }),
            [
                "--addr=unix:///s",
                "--timeout=60",
                "build",
                "--frontend=dockerfile.v0",
                "--progress=rawjson",
                "--local=context=src",
                "--local=dockerfile=docker",
                "--opt=filename=app.Dockerfile",
                "--opt=platform=linux/amd64,linux/arm/v7",
                "--opt=target=final",
                "--opt=build-arg:A=x,y=\"z\"",
                "--opt=build-arg:SOURCE_DATE_EPOCH=7",
                "--export-cache=type=local,mode=max,ignore-error=true,dest=TEMPORARY/next",
                "--output=type=oci,dest=-,rewrite-timestamp=true",
            ]
        );
    }

    #[test]
    fn arguments_have_every_input() {
        let mut solve = Solve::of("src");
        solve.labels = vec![("a".to_owned(), "b c".to_owned())];
        solve.secrets = vec!["id=token,env=PATH".parse().unwrap()];
        solve.ssh = vec!["default".to_owned()];
        solve.named_contexts =
            vec!["lib=../lib".parse().unwrap(), "base=docker-image://localhost:5000/base:1".parse().unwrap()];
        solve.no_cache = true;
        solve.no_cache_stages = vec!["one".to_owned(), "two".to_owned()];
        solve.hosts = vec!["a:1.2.3.4".parse().unwrap()];
        solve.network = Some(NetworkMode::Host);
        solve.ulimits = vec!["nofile=1:2".parse().unwrap()];
        solve.shm_size = Some(1024);
        solve.attestations =
            vec![Attestation::provenance("true").unwrap(), Attestation::provenance("mode=max").unwrap()];
        solve.compression = Some("zstd:3".parse().unwrap());
        solve.name = Some("acme/app:1".to_owned());
        let arguments = solve.arguments(&node(), &Outputs { image: true, ..Outputs::default() });
        for expected in [
            "--opt=label:a=b c",
            "--secret=id=token,env=PATH",
            "--ssh=default",
            "--local=lib=../lib",
            "--opt=context:lib=local:lib",
            "--opt=context:base=docker-image://localhost:5000/base:1",
            "--opt=no-cache=one,two",
            "--opt=add-hosts=a=1.2.3.4",
            "--opt=force-network-mode=host",
            "--allow=network.host",
            "--opt=ulimit=nofile=1:2",
            "--opt=shm-size=1024",
            "--opt=attest:provenance=mode=max",
            "--output=type=oci,dest=-,name=acme/app:1,compression=uncompressed",
        ] {
            assert!(arguments.iter().any(|argument| argument == expected), "{expected}: {arguments:?}");
        }
        assert!(!arguments.iter().any(|argument| argument == "--no-cache"));
        assert_eq!(arguments.iter().filter(|argument| argument.contains("attest:")).count(), 1);
    }

    #[test]
    fn compressions_have_a_format_and_a_level() {
        for (text, expected) in [
            ("gzip", "compression=gzip,force-compression=true"),
            ("gzip:9", "compression=uncompressed"),
            ("zstd", "compression=uncompressed"),
            ("none", "compression=uncompressed"),
            ("estargz:5", "compression=estargz,force-compression=true,compression-level=5"),
        ] {
            let mut solve = Solve::of("src");
            solve.compression = Some(text.parse().unwrap());
            assert_eq!(solve.image_output(), format!("type=oci,dest=-,{expected}"), "{text}");
        }
        for text in ["", "xz", "gzip:0", "gzip:10", "zstd:20", "zstd:x", "none:1", "zstd:"] {
            assert!(text.parse::<LayerCompression>().is_err(), "{text}");
        }
    }

    #[test]
    fn missing_inputs_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut solve = Solve::of(directory.path());
        assert!(solve.check().unwrap_err().to_string().contains("Dockerfile"));
        solve.dockerfile = Dockerfile::Text(b"FROM scratch".to_vec());
        solve.check().unwrap();
        solve.secrets = vec!["id=a,src=/no/such/file".parse().unwrap()];
        assert!(solve.check().unwrap_err().to_string().contains("/no/such/file"));
        solve.secrets = vec!["id=a,env=NO_SUCH_VARIABLE".parse().unwrap()];
        assert!(solve.check().unwrap_err().to_string().contains("NO_SUCH_VARIABLE"));
    }
}
