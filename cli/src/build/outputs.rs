use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use ocikit::layout::{DockerList, OutputFile, TarOptions};
use ocikit::{Digest, Location, Name, Naming, Platform, Reference, Repository, Root};
use ocikit_build::Export;

use crate::build::{LazyOutput, metadata};
use crate::context::Context;
use crate::environment::variable;
use crate::failure::{Failure, Result};
use crate::file::is_stdout;
use crate::values::tag_of_image;

/// The outputs of a build.
#[derive(Debug, Args)]
#[command(next_help_heading = "Outputs")]
pub(crate) struct OutputArguments {
    /// Write the image here; repeatable; default: container-image.tar
    ///
    /// An archive, a layout or a registry reference, or docker's notation: type=local,dest=DIR exports files,
    /// type=tar,dest=FILE exports them as a tar; also oci, docker, registry, image and cacheonly.
    #[arg(long, short, value_name = "LOCATION")]
    output: Vec<Output>,
    /// Push the image to every --tag
    #[arg(long)]
    push: bool,
    /// Let BuildKit upload the layers of --push
    ///
    /// They do not pass through this machine. BuildKit stores the image by its digest, with the credential of this command and with
    /// its own certificates and mirrors; then it is annotated, signed and tagged from here. All tags must be in one repository.
    #[arg(long, requires = "push", conflicts_with_all = ["output", "builder", "compression", "policy", "verify_result", "provenance", "sbom", "attest"])]
    push_by_buildkit: bool,
    /// Name the image, for `docker load` and --push; repeatable
    #[arg(long, short, value_name = "REFERENCE", value_parser = tag_of_image)]
    tag: Vec<Reference>,
    /// Leave out the `manifest.json` that `docker load` needs
    #[arg(long)]
    no_docker: bool,
    /// Also write the digest to this file
    #[arg(long, value_name = "FILE")]
    digest_file: Option<PathBuf>,
    /// Write the image ID to this file, as docker does
    ///
    /// It is the digest of the config of an image for one platform, and otherwise that of the index.
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write the result to this file as JSON, as `docker buildx` does
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
}

/// A value of `--output`.
#[derive(Debug, Clone)]
enum Output {
    Image(Location),
    /// A registry; every tag if there is no reference.
    Push(Option<Reference>),
    Export(Export),
    /// No output: the build only fills the cache.
    CacheOnly,
}

/// Where the results of a build go.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) images: Vec<Location>,
    pub(crate) exports: Vec<Export>,
    /// The names of the image in archives and layouts.
    pub(crate) names: Vec<Naming>,
    /// The repository to which BuildKit uploads the layers.
    pub(crate) uploaded_to: Option<Repository>,
}

/// The name of the archive in the build directory; part of the contract with the builder plugin.
const ARCHIVE: &str = "container-image.tar";

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Output, String> {
        let fields = match text.split(',').any(|field| field.trim_start_matches('"').starts_with("type=")) {
            true => ocikit_build::attributes(text).map_err(|error| error.to_string())?,
            false => return text.parse().map(Output::Image).map_err(|error| format!("{error}")),
        };
        let get = |key: &str| fields.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str());
        let known = ["type", "dest", "name", "push", "tar"];
        if let Some((unknown, _)) = fields.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            let instead = match unknown.as_str() {
                key if key.starts_with("annotation") => "use --annotation",
                "compression" | "compression-level" | "force-compression" => "use --compression",
                "rewrite-timestamp" => "set SOURCE_DATE_EPOCH",
                _ => "it is not one of type, dest, name, push and tar",
            };
            return Err(format!("cannot use `{unknown}`: {instead}"));
        }
        let kind = get("type").unwrap_or_default();
        let destination = || get("dest").filter(|dest| !dest.is_empty()).ok_or(format!("type={kind} needs `dest=`"));
        let push = get("push").map(is_true).transpose()?;
        let name = get("name").map(|name| name.parse::<Reference>().map_err(|error| error.to_string())).transpose()?;
        let named = name.as_ref().map_or(Name::Only, |name| Name::Full(name.to_string()));
        match kind {
            "local" => Ok(Output::Export(Export::Directory(destination()?.into()))),
            "tar" if is_stdout(Path::new(destination()?)) => {
                Err("type=tar cannot be written to standard output".to_owned())
            }
            "tar" => Ok(Output::Export(Export::Tar(destination()?.into()))),
            "oci" | "docker" if destination()? == "-" => Ok(Output::Image(Location::Stdio)),
            "oci" if get("tar").map(is_true).transpose()? == Some(false) => {
                Ok(Output::Image(Location::Layout { path: destination()?.into(), name: named }))
            }
            "oci" => Ok(Output::Image(Location::Archive { path: destination()?.into(), name: named })),
            "docker" => Ok(Output::Image(Location::DockerArchive { path: destination()?.into(), name: named })),
            "registry" if push == Some(false) => {
                Err("type=registry pushes the image: leave out `push=false`".to_owned())
            }
            "registry" => Ok(Output::Push(name)),
            "image" if push == Some(true) => Ok(Output::Push(name)),
            "image" => Err("type=image needs `push=true`: there is no local image store".to_owned()),
            "cacheonly" => Ok(Output::CacheOnly),
            _ => Err("its type is not one of local, tar, oci, docker, registry, image and cacheonly".to_owned()),
        }
    }
}

impl OutputArguments {
    /// Returns the name of the image in its attestations.
    pub(crate) fn name(&self) -> Option<String> {
        self.tag.first().map(ToString::to_string)
    }

    /// Returns the outputs. `plugin` is whether the arguments are those of the builder plugin.
    pub(crate) fn outputs(&self, context: &Context, plugin: bool) -> Result<Outputs> {
        let files = [&self.digest_file, &self.iidfile, &self.metadata_file];
        files.into_iter().flatten().try_for_each(|path| crate::file::check_writable(path))?;
        let (mut images, mut exports) = (Vec::new(), Vec::new());
        let tags = || self.tag.iter().cloned().map(Location::Registry);
        for output in &self.output {
            match output {
                Output::Image(location) => images.push(context.expand_output(location)),
                Output::Push(Some(reference)) => images.push(Location::Registry(reference.clone())),
                Output::Push(None) => images.extend(tags()),
                Output::Export(export) => exports.push(export.clone()),
                Output::CacheOnly => {}
            }
        }
        let pushes = self.push || self.output.iter().any(|output| matches!(output, Output::Push(None)));
        if pushes && self.tag.is_empty() {
            return Err(Failure::usage("cannot push: the image has no name").hint("add --tag REFERENCE"));
        }
        if self.push {
            let new: Vec<_> = tags().filter(|tag| !images.contains(tag)).collect();
            images.extend(new);
        }
        if self.output.is_empty() && !self.push {
            let directory = match plugin {
                true => PathBuf::from(variable("PLP_BUILD_PATH").unwrap_or_else(|| "/build".to_owned())),
                false => PathBuf::new(),
            };
            images.push(Location::Archive { path: directory.join(ARCHIVE), name: Name::Only });
        }
        let naming =
            |reference: &Reference| Naming::default().tag(reference.tag().cloned()).full(Some(reference.to_string()));
        let uploaded_to = match self.push_by_buildkit {
            true => Some(self.repository()?),
            false => None,
        };
        Ok(Outputs { images, exports, names: self.tag.iter().map(naming).collect(), uploaded_to })
    }

    /// Checks before the build that no output replaces another.
    pub(crate) fn check(&self, outputs: &Outputs) -> Result {
        let mut places: Vec<(PathBuf, &Location)> = Vec::new();
        // Several names in one archive or layout are written together.
        let are_together = |one: &Location, other: &Location| {
            std::mem::discriminant(one) == std::mem::discriminant(other) && one.path() == other.path()
        };
        for image in &outputs.images {
            let Some(path) = image.path().filter(|path| !OutputFile::is_stream(path)) else { continue };
            let place = identity(path);
            if places.iter().any(|(other, location)| *other == place && !are_together(location, image)) {
                return Err(written_twice(path));
            }
            places.push((place, image));
        }
        let mut taken: Vec<PathBuf> = places.into_iter().map(|(place, _)| place).collect();
        let exports = outputs.exports.iter().map(|export| {
            let (Export::Directory(path) | Export::Tar(path)) = export;
            path.as_path()
        });
        let files = [&self.digest_file, &self.iidfile, &self.metadata_file];
        for path in exports.chain(files.into_iter().filter_map(|file| file.as_deref())) {
            if is_stdout(path) || OutputFile::is_stream(path) {
                continue;
            }
            let place = identity(path);
            if taken.contains(&place) {
                return Err(written_twice(path));
            }
            taken.push(place);
        }
        Ok(())
    }

    /// Returns the only repository of the tags.
    fn repository(&self) -> Result<Repository> {
        let mut repositories = self.tag.iter().map(Reference::repository);
        let first = repositories.next().ok_or_else(|| Failure::usage("cannot push: the image has no name"))?;
        match repositories.all(|other| other == first) {
            true => Ok(first.clone()),
            false => Err(Failure::usage("cannot use --push-by-buildkit with tags in several repositories")),
        }
    }

    /// Returns how archives are written.
    pub(crate) fn archive(&self, platforms: &[Platform]) -> TarOptions {
        let docker = match self.no_docker {
            true => DockerList::None,
            false => DockerList::For(platforms.first().cloned().unwrap_or_else(Platform::of_this_machine)),
        };
        TarOptions::default().docker(docker)
    }

    /// Writes the files of `--digest-file`, `--iidfile` and `--metadata-file`.
    pub(crate) async fn write_files(&self, root: &Root, images: &[Location], lazy: &[LazyOutput]) -> Result {
        if let Some(path) = &self.digest_file {
            crate::file::write(path, format!("{}\n", root.digest()).as_bytes())?;
        }
        if let Some(path) = &self.iidfile {
            crate::file::write(path, image_id(root).to_string().as_bytes())?;
        }
        if let Some(path) = &self.metadata_file {
            let names = self.tag.iter().map(ToString::to_string);
            let references = images.iter().filter_map(|image| image.reference().map(ToString::to_string));
            let mut names: Vec<_> = names.chain(references).collect();
            let mut seen = std::collections::HashSet::new();
            names.retain(|name| seen.insert(name.clone()));
            crate::file::write(path, &metadata::of(root, &names, lazy).await?)?;
        }
        Ok(())
    }
}

/// Reads a value as Go does, with which docker's notation is read elsewhere.
fn is_true(text: &str) -> std::result::Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

/// Returns what two paths of one file or directory have in common, whether it exists or not.
fn identity(path: &Path) -> PathBuf {
    let followed = OutputFile::followed(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(path) = followed.canonicalize() {
        return path;
    }
    let parent = followed.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (parent.canonicalize(), followed.file_name()) {
        (Ok(parent), Some(name)) => parent.join(name),
        _ => followed,
    }
}

fn written_twice(path: &Path) -> Failure {
    Failure::usage(format_args!("cannot write two outputs to {}: one would replace the other", path.display()))
        .hint("give each output a path of its own")
}

fn image_id(root: &Root) -> Digest {
    metadata::config(root).unwrap_or_else(|| root.digest())
}

impl Outputs {
    /// Returns the path of the first archive, and its size in bytes.
    pub(crate) fn archive_file(&self) -> Option<(String, u64)> {
        let size = |path: &Path| path.metadata().ok().filter(std::fs::Metadata::is_file).map(|found| found.len());
        let mut files = self.images.iter().filter_map(Location::path);
        files.find_map(|path| Some((path.display().to_string(), size(path)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_have_the_notation_of_docker() {
        for (text, expected) in [
            ("app.tar", "Image(Path { path: \"app.tar\", name: Only })"),
            ("-", "Image(Stdio)"),
            ("type=oci,dest=-", "Image(Stdio)"),
            ("type=local,dest=out", "Export(Directory(\"out\"))"),
            ("type=tar,\"dest=a,b\"", "Export(Tar(\"a,b\"))"),
            ("type=oci,dest=app,tar=false", "Image(Layout { path: \"app\", name: Only })"),
            ("type=registry", "Push(None)"),
            ("type=cacheonly", "CacheOnly"),
        ] {
            let shown = format!("{:?}", text.parse::<Output>().unwrap());
            assert!(shown.starts_with(expected), "{text}: {shown}");
        }
        let pushed = "type=image,name=localhost:5000/app:1,push=true".parse::<Output>().unwrap();
        assert!(matches!(pushed, Output::Push(Some(reference)) if reference.to_string() == "localhost:5000/app:1"));
        for text in [
            "type=local",
            "type=x,dest=y",
            "type=image,name=app",
            "type=image,name=app,push=0",
            "type=image,name=app,push=maybe",
            "type=registry,name=app,push=false",
            "type=registry,name=app,push=False",
            "type=oci,dest=a,annotation.x=y",
            "type=tar,dest=-",
            "type=tar,dest=/dev/stdout",
        ] {
            assert!(text.parse::<Output>().is_err(), "{text}");
        }
    }

    #[test]
    fn two_paths_of_one_file_are_the_same() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("dir")).unwrap();
        let new = place.path().join("new.tar");
        assert_eq!(identity(&place.path().join("dir/../new.tar")), identity(&new));
        std::fs::write(&new, "").unwrap();
        assert_eq!(identity(&place.path().join("dir/../new.tar")), identity(&new));
        assert_ne!(identity(&place.path().join("other.tar")), identity(&new));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("new.tar", place.path().join("link")).unwrap();
            assert_eq!(identity(&place.path().join("link")), identity(&new));
        }
    }
}
