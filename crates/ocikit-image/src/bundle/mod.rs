//! Runtime bundles: a root file system, the `config.json` for a runtime such as runc or crun, and records for a repack.
//!
//! The records are those of umoci: `umoci.json` with the image and the map of owners, and an mtree(5) file with the state of all
//! files. Either program repacks the bundles of the other.

mod accounts;
mod runtime;

use std::fs;
use std::path::{Path, PathBuf};

use ocikit_archive::layer::{Budget, Path as FilePath, Reader, Tree};
use ocikit_archive::unpack::{Changes, IdRange, OpenTree, Owners, Snapshot, State, UnpackOptions, Unpacked};
use ocikit_spec::{Config, Descriptor, Digest};
use serde_json::{Value, json};

use crate::bridge::blocking;
use crate::error::{Error, Result};
use crate::files::{FileKind, FileTree, Kind};
use crate::layer::DiffId;
use crate::new_layer::{LayerOptions, NewLayer};
use crate::root::Image;
use crate::unpack_image::{commit, local, stage};

/// The file with the record of a bundle, and the directory with its root file system.
const RECORD: &str = "umoci.json";
const ROOTFS: &str = "rootfs";

/// The maximum size of a record in bytes, and of a list of users or groups of an image.
const MAX_RECORD_BYTES: u64 = 1 << 30;
const MAX_ACCOUNTS_BYTES: u64 = 16 << 20;

/// A directory that was unpacked from an image, with the state that it had then.
#[derive(Debug)]
pub struct UnpackedDirectory {
    rootfs: PathBuf,
    owners: Owners,
    state: Before,
    descriptor: Descriptor,
}

#[derive(Debug)]
enum Before {
    /// The files on this machine.
    Recorded(Snapshot),
    /// The files of an image.
    OfImage(Snapshot),
}

impl Image {
    /// Writes a runtime bundle to a directory, which appears when it is complete: `rootfs`, `config.json`, and the records that
    /// [`UnpackedDirectory::open_bundle`] reads. [`UnpackOptions::digests`] is set in any case.
    ///
    /// The user of the image is looked up in `/etc/passwd` and `/etc/group` of its root file system. Image specification, "Conversion
    /// to OCI Runtime Configuration".
    ///
    /// # Errors
    ///
    /// As [`Image::unpack`]; [`Error::Unsupported`] if the image does not have its user.
    pub async fn unpack_bundle(&self, target: &Path, options: &UnpackOptions) -> Result<Unpacked> {
        let config = self.config().await?;
        let staging = stage(target).await?;
        let directory = staging.path();
        let rootfs = directory.join(ROOTFS);
        fs::create_dir(&rootfs).map_err(|error| Error::failed("create", rootfs.display(), error))?;
        let mut options = options.clone();
        options.digests = true;
        let unpacked = self.unpack_into(&rootfs, &options).await?;
        let (descriptor, place, owners) = (self.descriptor.clone(), self.source.to_string(), options.owners);
        let unpacked = blocking(move || {
            write_files(&directory, &config, &descriptor, &owners, &unpacked, &place)?;
            Ok(unpacked)
        })
        .await?;
        commit(staging).await?;
        Ok(unpacked)
    }

    /// Returns the file system of this image with the digests of all files, for [`UnpackedDirectory::of_image`].
    async fn files_with_digests(&self) -> Result<FileTree> {
        let budget = Budget::new();
        let mut files = FileTree::with_budget(&budget);
        for layer in self.layers() {
            let within = budget.clone();
            let work = move |tar: &mut crate::LayerTar<'_>| {
                Tree::read_with(&mut Reader::within(&within, tar), |_, _, reader| {
                    let mut hasher = ocikit_spec::Hasher::new(ocikit_spec::Algorithm::Sha256);
                    let mut buffer = vec![0; 64 << 10];
                    loop {
                        match std::io::Read::read(reader, &mut buffer)? {
                            0 => return Ok(Some(hasher.finish())),
                            read => hasher.update(&buffer[..read]),
                        }
                    }
                })
            };
            let (tree, _) = layer.decode_within(&budget, DiffId::Skip, work).await?;
            files = self.lay(files, std::sync::Arc::new(tree)).await?;
        }
        Ok(files)
    }
}

fn write_files(
    directory: &Path,
    config: &Config,
    descriptor: &Descriptor,
    owners: &Owners,
    unpacked: &Unpacked,
    place: &str,
) -> Result<()> {
    let rootfs = directory.join(ROOTFS);
    let mut tree = OpenTree::open(&rootfs).map_err(|error| local("open", &rootfs, error))?;
    let mut accounts =
        |path: &[u8]| tree.read_inside(path, MAX_ACCOUNTS_BYTES).map_err(|error| local("read", &rootfs, error));
    let (passwd, group) = (accounts(b"/etc/passwd")?, accounts(b"/etc/group")?);
    let user = config.execution().user.as_deref().unwrap_or_default();
    let account = accounts::find(user, &passwd.unwrap_or_default(), &group.unwrap_or_default())
        .map_err(|error| Error::Unsupported { place: place.to_owned(), what: error.to_string() })?;
    write_json(&directory.join("config.json"), &runtime::config(config, &account, owners))?;
    let (users, groups) = runtime::maps(owners).unzip();
    let ranges = |ranges: Option<Vec<IdRange>>| ranges.map_or(Value::Null, |ranges| runtime::ranges(&ranges));
    let record = json!({
        "umoci_version": "2",
        "from_descriptor_path": {"descriptor_walk": [descriptor]},
        "map_options": {
            "uid_mappings": ranges(users), "gid_mappings": ranges(groups), "rootless": *owners == Owners::Rootless,
        },
    });
    write_json(&directory.join(RECORD), &record)?;
    let mut snapshot = tree.snapshot().map_err(|error| local("read", &rootfs, error))?;
    snapshot.set_digests(&unpacked.digests);
    write_snapshot(&snapshot, &directory.join(mtree_name(&descriptor.digest)))
}

fn write_snapshot(snapshot: &Snapshot, path: &Path) -> Result<()> {
    let written = fs::File::create(path).and_then(|file| {
        let mut writer = std::io::BufWriter::new(file);
        snapshot.write_mtree(&mut writer)?;
        std::io::Write::flush(&mut writer)
    });
    written.map_err(|error| Error::failed("write", path.display(), error))
}

fn mtree_name(digest: &Digest) -> String {
    format!("{}.mtree", digest.to_string().replace(':', "_"))
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    fs::write(path, format!("{value:#}\n")).map_err(|error| Error::failed("write", path.display(), error))
}

impl UnpackedDirectory {
    /// Opens a bundle of [`Image::unpack_bundle`] or of umoci.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the directory is no bundle, [`Error::Broken`] if a record of it cannot be parsed.
    pub async fn open_bundle(bundle: &Path) -> Result<UnpackedDirectory> {
        let bundle = bundle.to_owned();
        blocking(move || {
            let path = bundle.join(RECORD);
            let broken = |what: &str| Error::broken(path.display(), what.to_owned());
            let (record, descriptor) = record_of(&bundle)?;
            let owners = owners(&record["map_options"]).ok_or_else(|| broken("its map of owners is not valid"))?;
            let path = bundle.join(mtree_name(&descriptor.digest));
            let snapshot =
                Snapshot::parse_mtree(&read(&path)?).map_err(|error| Error::broken(path.display(), error))?;
            let state = Before::Recorded(snapshot);
            Ok(UnpackedDirectory { rootfs: bundle.join(ROOTFS), owners, state, descriptor })
        })
        .await
    }

    /// Makes the records of a bundle those of another image with the files that the bundle has now, so that the next repack
    /// adds only what changes from now on. `config.json` stays as it is.
    ///
    /// # Errors
    ///
    /// As [`UnpackedDirectory::open_bundle`], and [`Error::Failed`] if a file cannot be read or a record not be written. The
    /// bundle then has its old records.
    pub async fn refresh_bundle(bundle: &Path, image: &Descriptor) -> Result<()> {
        let (bundle, image) = (bundle.to_owned(), image.clone());
        blocking(move || {
            let (mut record, before) = record_of(&bundle)?;
            let rootfs = bundle.join(ROOTFS);
            let failed = |error| local("read", &rootfs, error);
            let mut tree = OpenTree::open(&rootfs).map_err(failed)?;
            let mut snapshot = tree.snapshot().map_err(failed)?;
            let regular = |(path, state): (&FilePath, &State)| {
                matches!(state.kind, FileKind::Regular { .. }).then(|| path.clone())
            };
            let regular: Vec<_> = snapshot.iter().filter_map(regular).collect();
            let digests = tree.digests(regular).map_err(failed)?;
            snapshot.set_digests(&digests);
            // The new state has another name, so that the old record leads to the old state until it is replaced.
            write_snapshot(&snapshot, &bundle.join(mtree_name(&image.digest)))?;
            record["from_descriptor_path"] = json!({"descriptor_walk": [image]});
            let (new, path) = (bundle.join(format!(".{RECORD}.new")), bundle.join(RECORD));
            write_json(&new, &record)?;
            fs::rename(&new, &path).map_err(|error| Error::failed("write", path.display(), error))?;
            if before.digest != image.digest {
                // Without a record that leads to it, the old state has no effect.
                let _ = fs::remove_file(bundle.join(mtree_name(&before.digest)));
            }
            Ok(())
        })
        .await
    }

    /// Combines a directory with the image that it was unpacked from, for directories without records. Every layer is read.
    ///
    /// # Errors
    ///
    /// As [`Image::files`].
    pub async fn of_image(directory: &Path, image: &Image, owners: Owners) -> Result<UnpackedDirectory> {
        let files = image.files_with_digests().await?;
        let state = Before::OfImage(Snapshot::of_image(&files));
        Ok(UnpackedDirectory { rootfs: directory.to_owned(), owners, state, descriptor: image.descriptor.clone() })
    }

    /// Returns the manifest of the image that was unpacked.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Returns a layer with the changes since the directory was unpacked, and the numbers of added, modified and removed files; `None`
    /// if nothing has changed.
    ///
    /// Removed files are hidden by whiteouts; a directory that has lost all its contents is opaque. If a name of a file changed, the
    /// layer has all its names, as hard links.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if a file cannot be read.
    pub async fn changes(self, options: impl Into<LayerOptions>) -> Result<Option<(NewLayer, [u64; 3])>> {
        let (mut tree, changes) = blocking(move || {
            let failed = |error| local("compare", &self.rootfs, error);
            let mut tree = OpenTree::open(&self.rootfs).map_err(failed)?;
            let changes = match self.state {
                Before::Recorded(before) => tree.changes(before, &self.owners),
                Before::OfImage(before) => tree.changes_since(&before, &self.owners),
            };
            let changes: Changes = changes.map_err(failed)?;
            Ok((tree, changes))
        })
        .await?;
        if changes.entries.is_empty() {
            return Ok(None);
        }
        let counts = changes.counts;
        let layer = NewLayer::write(options, move |layer| {
            for entry in &changes.entries {
                match entry.kind {
                    Kind::File(FileKind::Regular { .. }) => layer.append(entry, tree.file(&entry.path)?)?,
                    Kind::File(_) | Kind::HardLink { .. } | Kind::Whiteout(_) => {
                        layer.append(entry, std::io::empty())?;
                    }
                }
            }
            Ok(())
        });
        Ok(Some((layer.await?, counts)))
    }
}

/// Returns the record of a bundle, and the manifest that it names.
fn record_of(bundle: &Path) -> Result<(Value, Descriptor)> {
    let path = bundle.join(RECORD);
    let text = match read(&path) {
        Err(error) if error.is_not_found() => {
            return Err(Error::not_found(format!("record {RECORD} of a bundle"), bundle.display()));
        }
        text => text?,
    };
    let record: Value = serde_json::from_slice(&text).map_err(|error| Error::broken(path.display(), error))?;
    let walk = record["from_descriptor_path"]["descriptor_walk"].as_array();
    let last = walk.and_then(|walk| walk.last()).ok_or_else(|| Error::broken(path.display(), "it names no image"))?;
    let descriptor = serde_json::from_value(last.clone()).map_err(|error| Error::broken(path.display(), error))?;
    Ok((record, descriptor))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = fs::File::open(path).map_err(|error| Error::failed("open", path.display(), error))?;
    std::io::Read::read_to_end(&mut std::io::Read::take(read, MAX_RECORD_BYTES), &mut text)
        .map_err(|error| Error::failed("read", path.display(), error))?;
    Ok(text)
}

/// Parses the map of owners of a record.
fn owners(map: &Value) -> Option<Owners> {
    if map["rootless"] == true {
        return Some(Owners::Rootless);
    }
    let ranges = |list: &Value| -> Option<Vec<IdRange>> {
        let Some(list) = list.as_array() else { return Some(Vec::new()) };
        let range = |range: &Value| {
            let number = |key: &str| u32::try_from(range[key].as_u64()?).ok();
            Some(IdRange { container: number("containerID")?, host: number("hostID")?, size: number("size")? })
        };
        list.iter().map(range).collect()
    };
    let (users, groups) = (ranges(&map["uid_mappings"])?, ranges(&map["gid_mappings"])?);
    Some(if users.is_empty() && groups.is_empty() { Owners::Keep } else { Owners::mapped(users, groups) })
}
