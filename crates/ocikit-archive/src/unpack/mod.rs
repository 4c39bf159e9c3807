//! Writes the layers of an image to a directory.
//!
//! ```no_run
//! use ocikit_archive::layer::{Budget, Reader};
//! use ocikit_archive::unpack::{Staging, UnpackOptions, Unpacker};
//!
//! let staging = Staging::beside("rootfs".as_ref())?;
//! let budget = Budget::new();
//! let mut unpacker = Unpacker::new(&staging.path(), UnpackOptions::default(), &budget)?;
//! for layer in ["upper.tar", "lower.tar"] {
//!     unpacker.layer(&mut std::fs::File::open(layer)?)?;
//! }
//! unpacker.finish()?;
//! staging.commit()?;
//! # Ok::<(), ocikit_archive::Error>(())
//! ```
//!
//! An [`OpenTree`] compares a directory with its state before, which a [`Snapshot`] holds: the reverse direction.
//!
//! # Order
//!
//! Layers are read from the highest to the lowest, each once. A file that an upper layer replaces or hides is not written at all,
//! and nothing that was written is replaced by another layer. The result is that of [`FileTree`](crate::layer::FileTree). Contents
//! that turn out to be needed after they were passed over are read again: see [`Unpacker::incomplete`].
//!
//! # Confinement
//!
//! The directory is empty at first. Paths are resolved by the entries of the layers, not by the file system, and directories are
//! opened without following symlinks: with `openat2` and `RESOLVE_BENEATH`, or one component after the other. Files are created
//! exclusively. So a layer cannot name a file outside, and another process that exchanges directories for symlinks cannot redirect
//! anything.

mod ahead;
mod changes;
mod claims;
pub(crate) mod directories;
mod mtree;
mod node;
mod owners;
mod snapshot;
mod staging;
mod workers;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use ocikit_spec::Digest;
use rustix::fs::{AtFlags, Gid, Mode, RawMode, fchmod, fchown, linkat, mkdirat, statat, unlinkat};

use crate::error::{Error, Result};

use crate::layer::{Budget, Entry, File, FileKind, Kind, Node, Path, Reader, Replaced, Tree};
use crate::unpack::ahead::Ahead;
use crate::unpack::claims::{Claim, Claims, Shown};
use crate::unpack::directories::{Directories, failed};
use crate::unpack::node::{Content, Part, Settings};
use crate::unpack::workers::{Job, Workers};

pub use changes::Changes;
pub use owners::{IdRange, Owners, ROOTLESS_XATTR, current_user, parse_rootless_record, rootless_record};
pub use snapshot::{OpenTree, Snapshot, State};
pub use staging::{Staging, TemporaryDirectory};

/// The maximum size of a file that is passed to its writer as a whole, in bytes.
const MAX_WHOLE_FILE_BYTES: u64 = 256 << 10;

/// The size of the parts of larger files in bytes, and the number of parts in a queue.
const PART_BYTES: usize = 256 << 10;
const QUEUED_PARTS: usize = 4;

/// The maximum number of threads that write.
const MAX_THREADS: usize = 8;

/// Options of an [`Unpacker`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct UnpackOptions {
    /// What happens to the owners of files.
    pub owners: Owners,
    /// The number of threads that write; default: one for each processor, at most 8.
    pub threads: Option<NonZeroUsize>,
    /// Whether to compute the SHA-256 digest of each file.
    pub digests: bool,
    /// Whether blocks of zeros become holes in files that are not sparse in the layer.
    pub holes: bool,
}

ocikit_spec::setters! {
    UnpackOptions {
        owners: Owners,
        holes: bool,
    }
}

/// The result of unpacking.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Unpacked {
    /// The number of names: files, directories, links.
    pub names: u64,
    /// The number of bytes of contents, including holes.
    pub bytes: u64,
    /// The number of extended attributes that the file system does not support or that the user may not set.
    pub skipped_xattrs: u64,
    /// The digests of regular files by path, with [`UnpackOptions::digests`].
    pub digests: BTreeMap<Path, Digest>,
}

/// Writes layers to an empty directory, from the highest to the lowest.
#[derive(Debug)]
pub struct Unpacker {
    directories: Directories,
    workers: Workers,
    claims: Claims,
    budget: Budget,
    /// The number of layers that were read.
    layers: usize,
    /// Names of files whose contents were passed over.
    missed: Vec<Missed>,
}

/// A name of a file that is not in the directory yet.
#[derive(Debug)]
struct Missed {
    path: Path,
    layer: usize,
    file: Arc<File>,
}

/// The state of the layer that is read.
struct Current {
    number: usize,
    tree: Tree,
    /// The path of each created file by the number of its entry.
    written: HashMap<u64, Path>,
    /// Recent directories, and whether their contents are visible, as far as upper layers decide.
    visible: Shown,
}

impl Unpacker {
    /// Starts in an empty directory, which [`Staging`] provides.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the directory cannot be opened or is not writable.
    pub fn new(directory: &std::path::Path, options: UnpackOptions, budget: &Budget) -> Result<Unpacker> {
        let directories = Directories::below(directory)?;
        let (root, user) = (directories.root(), current_user());
        // New files would inherit the group of a directory with the set-group-ID bit, and the default access control list.
        #[cfg(target_os = "linux")]
        for list in ["system.posix_acl_default", "system.posix_acl_access"] {
            // Most directories have none, and some file systems none at all.
            let _ = rustix::fs::fremovexattr(root, list);
        }
        let prepared = fchown(root, None, Some(Gid::from_raw(user.1))).and_then(|()| fchmod(root, Mode::RWXU));
        let umask = prepared.and_then(|()| umask_in(root)).map_err(std::io::Error::from)?;
        let UnpackOptions { owners, threads, digests, holes } = options;
        let processors = || std::thread::available_parallelism().map_or(1, |count| count.get().min(MAX_THREADS));
        let threads = threads.map_or_else(processors, NonZeroUsize::get);
        Ok(Unpacker {
            directories,
            workers: Workers::start(Settings { owners, user, umask, digests, holes }, threads),
            claims: Claims::new(budget),
            budget: budget.clone(),
            layers: 0,
            missed: Vec::new(),
        })
    }

    /// Writes the next lower layer, an uncompressed tar.
    ///
    /// # Errors
    ///
    /// Those of [`Reader`] and [`Tree`], and [`Error::File`] if a file cannot be written.
    pub fn layer<R: Read + Send>(&mut self, tar: &mut R) -> Result<()> {
        let number = self.layers;
        self.layers += 1;
        let mut current =
            Current { number, tree: Tree::recording(&self.budget), written: HashMap::new(), visible: Shown::default() };
        std::thread::scope(|scope| {
            let mut reader = Reader::within(&self.budget, Ahead::of(scope, tar));
            let mut entry_number = 0;
            while let Some(entry) = reader.next_entry()? {
                self.entry(&mut current, entry_number, entry, &mut reader)?;
                entry_number += 1;
            }
            Ok::<_, Error>(())
        })?;
        self.workers.settle()?;
        self.end_layer(&current)
    }

    fn entry<R: Read>(
        &mut self,
        current: &mut Current,
        number: u64,
        entry: Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        // Whiteouts and hard links have an effect when the layer is complete.
        let kind = match &entry.kind {
            Kind::File(kind) => Some((kind.clone(), entry.metadata.clone())),
            Kind::HardLink { .. } | Kind::Whiteout(_) => None,
        };
        let path = current.tree.add(number, entry, None)?;
        let replaced = current.tree.take_replaced();
        if !replaced.is_empty() {
            self.remove_replaced(current, &replaced)?;
        }
        let Some((kind, metadata)) = kind else { return Ok(()) };
        if path.is_root() || !self.is_visible(current, &path, &kind) {
            return Ok(());
        }
        if kind == FileKind::Directory {
            return self.directories.ensure(&path).map(drop);
        }
        let directory = self.directories.ensure(&path.parent().unwrap_or_default())?;
        current.written.insert(number, path.clone());
        self.create(directory, path, kind, metadata, (current.number, number), reader)
    }

    /// Passes a file to the threads.
    fn create<R: Read>(
        &self,
        directory: Arc<std::os::fd::OwnedFd>,
        path: Path,
        kind: FileKind,
        mut metadata: crate::layer::Metadata,
        from: (usize, u64),
        reader: &mut Reader<R>,
    ) -> Result<()> {
        (metadata.user, metadata.group) = (None, None);
        let job = |content| Job { directory, path, kind: kind.clone(), metadata, content, from };
        let FileKind::Regular { size } = kind else {
            return self.workers.add(job(Content::Whole(Vec::new())));
        };
        if size <= MAX_WHOLE_FILE_BYTES && !reader.is_sparse() {
            let mut bytes = Vec::with_capacity(size as usize);
            reader.read_to_end(&mut bytes)?;
            return self.workers.add(job(Content::Whole(bytes)));
        }
        let (sender, parts) = sync_channel(QUEUED_PARTS);
        self.workers.add(job(Content::Parts(parts)))?;
        loop {
            let hole = reader.pass_hole();
            if hole > 0 && self.workers.settings().digests {
                // Hashing zeros takes time as well.
                self.budget.inflated(hole)?;
            }
            // Sending fails if the writer failed; its error is returned with the next job.
            if hole > 0 && sender.send(Part::Hole(hole)).is_err() {
                break;
            }
            let mut bytes = vec![0; PART_BYTES];
            let mut length = 0;
            while length < bytes.len() {
                match reader.read(&mut bytes[length..])? {
                    0 => break,
                    read => length += read,
                }
                if reader.is_sparse() {
                    break;
                }
            }
            bytes.truncate(length);
            let part = if length == 0 { Part::End } else { Part::Bytes(bytes) };
            if sender.send(part).is_err() || length == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Returns whether a file of the current layer is part of the result, as far as upper layers decide.
    fn is_visible(&self, current: &mut Current, path: &Path, kind: &FileKind) -> bool {
        current.visible.has(path, &self.claims)
            && match self.claims.get(path) {
                None => true,
                Some(Claim::Directory { .. }) => *kind == FileKind::Directory,
                Some(Claim::File { .. } | Claim::Link | Claim::Hidden) => false,
            }
    }

    /// Removes files of the current layer that a later entry of it replaces. Such layers are rare.
    fn remove_replaced(&mut self, current: &mut Current, replaced: &[Replaced]) -> Result<()> {
        self.workers.settle()?;
        for Replaced { path, entry } in replaced.iter().rev() {
            // A hard link has the entry of its file, which is written under another path.
            if let Some(entry) = entry
                && current.written.get(entry) == Some(path)
            {
                current.written.remove(entry);
            }
            // Whatever an upper layer has at this path was written by it.
            if self.claims.get(path).is_none() && self.claims.shows_contents(&path.parent().unwrap_or_default()) {
                self.directories.remove(path)?;
            }
        }
        Ok(())
    }

    /// Creates hard links and remaining directories, when the layer was read to its end.
    fn end_layer(&mut self, current: &Current) -> Result<()> {
        let number = current.number;
        let mut links = Vec::new();
        let mut shown = Shown::default();
        for (path, node) in current.tree.iter() {
            let Node::File(file) = node else { continue };
            let is_written = file.entry.is_some_and(|entry| current.written.get(&entry) == Some(path));
            if is_written || path.is_root() {
                continue;
            }
            match (shown.has(path, &self.claims), self.claims.get(path), file.is_directory()) {
                (true, None | Some(Claim::Directory { .. }), true) => drop(self.directories.ensure(path)?),
                (true, None, false) => links.push((path.clone(), file.clone())),
                _ => {}
            }
        }
        let further = self.claims.add(number, &current.tree)?;
        let further = further.into_iter().map(|resolved| (resolved.path, resolved.file));
        for (path, file) in links.into_iter().chain(further) {
            match file.entry.and_then(|entry| current.written.get(&entry)) {
                Some(existing) => self.link(existing, &path)?,
                None => self.missed.push(Missed { path, layer: number, file }),
            }
        }
        Ok(())
    }

    fn link(&mut self, existing: &Path, path: &Path) -> Result<()> {
        let from = self.directories.open(&existing.parent().unwrap_or_default())?;
        let to = self.directories.ensure(&path.parent().unwrap_or_default())?;
        linkat(&from, existing.name(), &to, path.name(), AtFlags::empty())
            .map_err(|error| failed("create hard link", path, error))
    }

    /// Returns the layers that have to be [read again](Unpacker::layer_again) before the end, counted from the highest, which is 0:
    /// those in which an upper layer replaces a file that has another name.
    ///
    /// # Errors
    ///
    /// [`Error::Layer`] for a hard link to a file that no layer has, and those of linking to files that exist.
    pub fn incomplete(&mut self) -> Result<Vec<usize>> {
        self.claims.finish()?;
        if self.missed.is_empty() {
            return Ok(Vec::new());
        }
        // The file may have yet another name, which was written.
        let address = |file: &Arc<File>| Arc::as_ptr(file) as usize;
        let mut existing: HashMap<usize, Option<Path>> =
            self.missed.iter().map(|missed| (address(&missed.file), None)).collect();
        let missed_paths: std::collections::HashSet<_> = self.missed.iter().map(|missed| missed.path.clone()).collect();
        for (path, claim) in self.claims.iter() {
            if let Claim::File { file, .. } = claim
                && let Some(found) = existing.get_mut(&address(file))
                && found.is_none()
                && !missed_paths.contains(path)
            {
                *found = Some(path.clone());
            }
        }
        let mut layers = Vec::new();
        for missed in std::mem::take(&mut self.missed) {
            match &existing[&address(&missed.file)] {
                Some(existing) => self.link(existing, &missed.path)?,
                None => {
                    if !layers.contains(&missed.layer) {
                        layers.push(missed.layer);
                    }
                    self.missed.push(missed);
                }
            }
        }
        Ok(layers)
    }

    /// Reads a layer again for the contents that were passed over.
    ///
    /// # Errors
    ///
    /// As [`Unpacker::layer`].
    pub fn layer_again<R: Read + Send>(&mut self, layer: usize, tar: &mut R) -> Result<()> {
        let (wanted, rest): (Vec<_>, Vec<_>) = self.missed.drain(..).partition(|missed| missed.layer == layer);
        self.missed = rest;
        let mut wanted_by_entry: HashMap<u64, Vec<Missed>> = HashMap::new();
        for missed in wanted {
            let Some(entry) = missed.file.entry else { continue };
            wanted_by_entry.entry(entry).or_default().push(missed);
        }
        let mut links = Vec::new();
        std::thread::scope(|scope| {
            let mut reader = Reader::within(&self.budget, Ahead::of(scope, tar));
            let mut number = 0;
            while let Some(entry) = reader.next_entry()? {
                if let (Some(names), Kind::File(kind)) = (wanted_by_entry.remove(&number), entry.kind) {
                    let first = names[0].path.clone();
                    links.extend(names.into_iter().skip(1).map(|name| (first.clone(), name.path)));
                    let directory = self.directories.ensure(&first.parent().unwrap_or_default())?;
                    self.create(directory, first, kind, entry.metadata, (layer, number), &mut reader)?;
                }
                number += 1;
            }
            Ok::<_, Error>(())
        })?;
        self.workers.settle()?;
        match wanted_by_entry.into_values().flatten().next() {
            Some(missed) => Err(Error::layer(&missed.path, "the layer has changed while it was read")),
            None => links.iter().try_for_each(|(existing, path)| self.link(existing, path)),
        }
    }

    /// Sets the metadata of all directories.
    ///
    /// # Errors
    ///
    /// [`Error::File`]; [`Error::Layer`] if layers are [incomplete](Unpacker::incomplete).
    pub fn finish(mut self) -> Result<Unpacked> {
        if !self.incomplete()?.is_empty() {
            return Err(Error::layer(&self.missed[0].path, "its layer has to be read again"));
        }
        let mut unpacked = Unpacked::default();
        let settings = self.workers.settings();
        let root = File::undescribed();
        let mut described = false;
        // Contents before their directory: its time is the last to change, and its permissions may forbid access.
        for (path, claim) in self.claims.iter().rev() {
            unpacked.names += u64::from(!matches!(claim, Claim::Hidden));
            let Claim::Directory { file, .. } = claim else { continue };
            described |= path.is_root();
            let directory = self.directories.open(path)?;
            unpacked.skipped_xattrs += settings.finish_directory(&directory, path, &file.metadata)?;
        }
        if !described {
            settings.finish_directory(self.directories.root(), &Path::root(), &root.metadata)?;
        }
        let tally = self.workers.finish()?;
        unpacked.bytes = tally.bytes;
        unpacked.skipped_xattrs += tally.skipped_xattrs;
        for (path, claim) in self.claims.iter() {
            if let Claim::File { file, layer } = claim
                && let Some(digest) = file.entry.and_then(|entry| tally.digests.get(&(*layer, entry)))
            {
                unpacked.digests.insert(path.clone(), *digest);
            }
        }
        Ok(unpacked)
    }
}

/// Returns the permissions that new files in a directory do not get. The process has no call to read its mask without changing it.
fn umask_in(root: &std::os::fd::OwnedFd) -> rustix::io::Result<u32> {
    const PROBE: &str = "umask";
    mkdirat(root, PROBE, Mode::from_raw_mode(0o777 as RawMode))?;
    let found = statat(root, PROBE, AtFlags::SYMLINK_NOFOLLOW);
    unlinkat(root, PROBE, AtFlags::REMOVEDIR)?;
    Ok(0o777 & !(found?.st_mode as u32))
}
