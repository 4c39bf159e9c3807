use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use clap::Args;
use ocikit::image::files::{FileOptions, Metadata, ModifiedTime, Owner, Path, Time, TopDirectory};
use ocikit::image::{LayerOptions, NewLayer, Selection, change_layers, missing_paths};
use ocikit::spec::History;
use ocikit::{Compression, Error, Location, Root};

use crate::change::{ChangeArguments, PlatformArguments};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::layers::{CompressionArguments, epoch, mode, owner, time};
use crate::progress::ReadCounter;

const EXAMPLES: &str = "\
Examples:
  ocikit append ghcr.io/acme/app:1 ./dist --destination /srv/www
  ocikit append --delete /etc/motd --delete /var/cache app.tar
  ocikit append app.tar rootfs.tar.gz -o new.tar
  ocikit append --owner 1000:1000 --mode 0755 --destination /usr/bin/tool app.tar ./tool";

/// Add a layer to an image, for one platform or for all
///
/// The layer holds the deletions first, then the sources in their order. A name that ends in .tar, .tar.gz, .tgz, .tar.zst, .tar.xz or .tar.bz2, and `-` for standard input, is a tar whose entries are added; a directory is added with its contents. A tar that is the only source is added byte for byte unless an option changes it. The other layers are not transferred.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Append {
    /// Image to add the layer to
    location: Location,
    /// Directories, files, tars, or `-` for a tar on standard input
    #[arg(value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// Directory in the image; of a single file its path, unless it ends in /
    #[arg(long, value_name = "PATH")]
    destination: Option<PathBuf>,
    /// Hide this path of the lower layers; repeatable
    ///
    /// In an archive or layout, a warning names each path that no image has, for which all layers are read. Layers of a registry are not downloaded for that.
    #[arg(long, value_name = "PATH")]
    delete: Vec<PathBuf>,
    /// Remove this layer first, counted from 1, the lowest; repeatable
    #[arg(long, value_name = "NUMBER")]
    remove_layer: Vec<std::num::NonZeroUsize>,
    /// Owner of the entries, or `keep`; default: 0:0, of tars theirs
    #[arg(long, value_name = "UID[:GID]", value_parser = owner)]
    owner: Option<Owner>,
    /// Permissions of files and directories
    #[arg(long, value_name = "OCTAL", value_parser = mode)]
    mode: Option<u32>,
    /// Modification time; default: that of the files
    #[arg(long, value_name = "TIME", value_parser = time)]
    mtime: Option<Time>,
    /// Add tars as files instead of their entries
    #[arg(long)]
    no_extract: bool,
    /// Give the destination the owner, mode and time of a source directory
    #[arg(long)]
    include_directory: bool,
    /// Add entries for parent directories that have none, with mode 0755
    ///
    /// They belong to root, or to the owner of `--owner`. They replace symlinks and the permissions of these directories in the lower layers. Programs create missing parents without such entries; only layers for `convert --to zstd-chunked` need them.
    #[arg(long)]
    parents: bool,
    #[command(flatten)]
    compression: CompressionArguments,
    #[command(flatten)]
    platforms: PlatformArguments,
    #[command(flatten)]
    change: ChangeArguments,
}

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceKind {
    Tar,
    Directory,
    File,
}

impl Append {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let has_layer = !self.sources.is_empty() || !self.delete.is_empty();
        if !has_layer && self.remove_layer.is_empty() {
            return Err(Failure::usage("cannot append: give a SOURCE, --delete PATH or --remove-layer NUMBER"));
        }
        if context.expand(&self.location) == Location::Stdio
            && self.sources.iter().any(|source| source == FilePath::new("-"))
        {
            return Err(Failure::usage("cannot append: image and source are both standard input")
                .hint("save one of them to a file first"));
        }
        let layers = if has_layer { vec![self.layer(context).await?] } else { Vec::new() };
        let removed: Vec<_> = self.remove_layer.iter().map(|number| number.get() - 1).collect();
        let change = self.change.prepare(context, &self.location, &[])?;
        let selection = self.platforms.selection();
        let mut missing = Ok(Vec::new());
        let changed = change
            .make(self.platforms.is_partial(), async |root| {
                let changed = change_layers(&root, &selection, &removed, &layers).await?;
                missing = self.missing(&change.location, &root, &selection).await;
                Ok(changed)
            })
            .await?;
        match missing {
            Ok(paths) => paths.iter().for_each(|path| {
                context.output.say(format!("warning: nothing was deleted at `/{path}`: no image has this path"));
            }),
            Err(error) => {
                let why = ocikit::spec::with_causes(&error);
                context.output.say(format!("warning: cannot check whether the deleted paths exist: {why}"));
            }
        }
        change.report(&changed).await
    }

    /// Returns the paths of `--delete` that no image has. Layers of a registry are not downloaded for that.
    async fn missing(&self, location: &Location, root: &Root, selection: &Selection) -> ocikit::Result<Vec<Path>> {
        if self.delete.is_empty() || matches!(location, Location::Registry(_)) {
            return Ok(Vec::new());
        }
        let paths: Vec<_> = self.delete.iter().map(inside).collect();
        missing_paths(root, selection, &paths).await
    }

    async fn layer(&self, context: &Context) -> Result<NewLayer> {
        let options = self.compression.options(Compression::Gzip)?;
        let progress = context.progress.of_change();
        let layer = self.written(context, options, progress.clone()).await;
        progress.iter().for_each(|progress| progress.end());
        // Not the sources: the same files in another directory give the same image, and paths of this machine are private.
        let deleted = self.delete.iter().map(|path| format!(" --delete {}", path.display()));
        let destination = self.destination.iter().map(|path| format!(" --destination {}", path.display()));
        let created = epoch(context).map(|time| time.to_string());
        let created_by = Some(format!("ocikit append{}", deleted.chain(destination).collect::<String>()));
        Ok(layer?.with_history(History { created, created_by, ..History::default() }))
    }

    async fn written(
        &self,
        context: &Context,
        options: LayerOptions,
        progress: Option<Arc<ReadCounter>>,
    ) -> Result<NewLayer> {
        let is_plain = self.destination.is_none()
            && self.owner.is_none()
            && self.mode.is_none()
            && self.mtime.is_none()
            && !self.parents;
        Ok(match &self.sources[..] {
            [tar] if is_plain && self.delete.is_empty() && self.kind(tar) == SourceKind::Tar => {
                let tar = Watched { reader: reader(tar)?, progress };
                NewLayer::of_archive(name(&self.sources[0]).display(), tar, options).await?
            }
            _ => {
                let parts = self.sources.iter().map(|source| self.part(context, source)).collect::<Result<Vec<_>>>()?;
                let hidden: Vec<_> = self.delete.iter().map(inside).collect();
                let parents = self.parents.then(|| self.parent_metadata(context));
                NewLayer::write(options, move |layer| {
                    parents.into_iter().for_each(|metadata| layer.add_parents(metadata));
                    if let Some(progress) = progress {
                        layer.watch(move |bytes| progress.add(bytes));
                    }
                    hidden.iter().try_for_each(|path| layer.hide(path))?;
                    for (source, kind, options) in &parts {
                        match kind {
                            SourceKind::Directory => layer.append_tree(source, options)?,
                            SourceKind::File => layer.append_file(source, options)?,
                            SourceKind::Tar => layer.append_archive(name(source), opened(source)?, options)?,
                        }
                    }
                    Ok(())
                })
                .await?
            }
        })
    }

    /// Returns the metadata of parent directories.
    fn parent_metadata(&self, context: &Context) -> Metadata {
        let (uid, gid) = match self.owner {
            Some(Owner::Fixed { uid, gid }) => (uid, gid),
            _ => (0, 0),
        };
        // Nothing has a time that they could keep.
        let modified = self.mtime.or_else(|| epoch(context)).unwrap_or_default();
        Metadata { mode: 0o755, uid, gid, modified, ..Metadata::default() }
    }

    fn kind(&self, source: &FilePath) -> SourceKind {
        const ENDINGS: [&str; 8] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2"];
        let name = source.to_string_lossy();
        match source.is_dir() {
            true => SourceKind::Directory,
            false if self.no_extract => SourceKind::File,
            false if name == "-" || ENDINGS.iter().any(|ending| name.ends_with(ending)) => SourceKind::Tar,
            false => SourceKind::File,
        }
    }

    fn part(&self, context: &Context, source: &FilePath) -> Result<(PathBuf, SourceKind, FileOptions)> {
        let kind = self.kind(source);
        if kind == SourceKind::File && source == FilePath::new("-") {
            return Err(Failure::usage("cannot append standard input as a file: leave out --no-extract"));
        }
        let default = if kind == SourceKind::Tar { Owner::Keep } else { Owner::ROOT };
        let mut options = FileOptions::from(self.owner.unwrap_or(default));
        options.mode = self.mode;
        options.modified = match (self.mtime, epoch(context)) {
            (Some(time), _) => ModifiedTime::Fixed(time),
            // The times in a tar are those of its writer.
            (None, Some(epoch)) if kind != SourceKind::Tar => ModifiedTime::AtMost(epoch),
            _ => ModifiedTime::Keep,
        };
        options.destination = self.destination.as_deref().map(inside).unwrap_or_default();
        if self.include_directory {
            options.top = TopDirectory::Include;
        }
        if kind == SourceKind::File {
            let into = self.destination.as_ref().map(|path| path.as_os_str().as_encoded_bytes());
            if into.is_none_or(|path| path.ends_with(b"/")) || self.sources.len() > 1 {
                let name = source.file_name().ok_or_else(|| {
                    Failure::usage(format_args!("cannot append `{}`: it has no file name", source.display()))
                })?;
                options.destination = options.destination.child(name.as_encoded_bytes());
            }
        }
        Ok((source.to_owned(), kind, options))
    }
}

/// A tar whose bytes are shown as progress.
struct Watched<R> {
    reader: R,
    progress: Option<Arc<ReadCounter>>,
}

impl<R: std::io::Read> std::io::Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.progress.iter().for_each(|progress| progress.add(read as u64));
        Ok(read)
    }
}

/// Returns a path of the image.
fn inside(path: &(impl AsRef<FilePath> + ?Sized)) -> Path {
    Path::confined(path.as_ref().as_os_str().as_encoded_bytes())
}

/// Returns the name of a source in messages.
fn name(source: &FilePath) -> &FilePath {
    if source == FilePath::new("-") { FilePath::new("standard input") } else { source }
}

fn opened(source: &FilePath) -> std::io::Result<Box<dyn std::io::Read + Send>> {
    Ok(match source == FilePath::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(source)?),
    })
}

fn reader(source: &FilePath) -> Result<Box<dyn std::io::Read + Send>> {
    Ok(opened(source).map_err(|error| Error::failed("open", source.display(), error))?)
}
