//! What changed in a directory since it was unpacked.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::error::Result;
use crate::layer::{Entry, File, FileKind, FileTree, Kind, Located, Path, Time, Whiteout};
use crate::unpack::owners::Owners;
use crate::unpack::snapshot::{OpenTree, Snapshot, State};

/// The changes of a tree: the entries of a layer that makes them, in order.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Changes {
    /// The entries. The contents of a regular file are read with [`OpenTree::file`].
    pub entries: Vec<Entry>,
    /// The number of files that were added, of those that were modified, and of those that were removed.
    pub counts: [u64; 3],
}

impl OpenTree {
    /// Compares the tree with its state before, which is that of the files on this machine. Both have owners by the same rules.
    ///
    /// The contents of files whose size is the same are compared by their digest, if the state before has one.
    ///
    /// # Errors
    ///
    /// Those of [`OpenTree::snapshot`]; [`Error::Layer`](crate::Error::Layer) if an owner cannot be mapped.
    pub fn changes(&mut self, mut before: Snapshot, owners: &Owners) -> Result<Changes> {
        before.set_container_owners(owners)?;
        self.changes_since(&before, owners)
    }

    /// As [`OpenTree::changes`], for a state with the owners in the image.
    ///
    /// # Errors
    ///
    /// As [`OpenTree::changes`].
    pub fn changes_since(&mut self, before: &Snapshot, owners: &Owners) -> Result<Changes> {
        let mut after = self.snapshot()?;
        after.set_container_owners(owners)?;
        let mut changed = BTreeSet::new();
        let mut changes = Changes::default();
        let mut unsure = BTreeMap::new();
        for (path, state) in &after.files {
            match before.get(path) {
                None => changes.counts[0] += 1,
                Some(old) if differs(old, state, owners) => changes.counts[1] += 1,
                Some(old) => {
                    if let (FileKind::Regular { size: 1.. }, Some(digest)) = (&state.kind, old.digest) {
                        unsure.insert(path, digest);
                    }
                    continue;
                }
            }
            changed.insert(path.clone());
        }
        for (path, digest) in self.digests(unsure.keys().map(|path| (*path).clone()))? {
            if unsure.get(&path).is_some_and(|before| *before != digest) {
                changes.counts[1] += 1;
                changed.insert(path);
            }
        }
        let removed = removed(before, &after);
        changes.counts[2] = removed.len() as u64;
        split_links(before, &after, &removed, &mut changed);
        let whiteouts = whiteouts(before, &after, &removed).into_iter().filter_map(Entry::whiteout);
        changes.entries = whiteouts.chain(files(&after, &mut changed)).collect();
        // A directory before its contents, and a whiteout wherever it is: its position has no meaning.
        changes.entries.sort_by(|left, right| left.path.parts().cmp(right.path.parts()));
        // A hard link after its target, which has the lower path.
        changes.entries.sort_by_key(|entry| matches!(entry.kind, Kind::HardLink { .. }));
        Ok(changes)
    }
}

/// Adds files that have lost a name other than by its removal, or that have got one.
fn split_links(before: &Snapshot, after: &Snapshot, removed: &[Path], changed: &mut BTreeSet<Path>) {
    let identity = |state: &State| (state.digest, state.links, state.metadata.modified, state.size);
    let mut lost: HashMap<_, u64> = HashMap::new();
    for state in removed.iter().filter_map(|path| before.get(path)) {
        *lost.entry(identity(state)).or_default() += 1;
    }
    for (path, state) in &after.files {
        if state.kind == FileKind::Directory || changed.contains(path) {
            continue;
        }
        let Some(old) = before.get(path) else { continue };
        let explained = lost.get(&identity(old)).copied().unwrap_or_default();
        if state.links != old.links && state.links + explained != old.links {
            changed.insert(path.clone());
        }
    }
}

/// Returns whether a file has changed, as far as its state without its contents says.
fn differs(old: &State, new: &State, owners: &Owners) -> bool {
    let same_kind = match (&old.kind, &new.kind) {
        // Records do not have the numbers of devices.
        (FileKind::CharacterDevice { major: 0, minor: 0 }, FileKind::CharacterDevice { .. })
        | (FileKind::BlockDevice { major: 0, minor: 0 }, FileKind::BlockDevice { .. }) => true,
        // Without the privileges of root, devices are empty files.
        (FileKind::CharacterDevice { .. } | FileKind::BlockDevice { .. }, FileKind::Regular { size: 0 })
            if matches!(owners, Owners::Rootless | Owners::Current) =>
        {
            true
        }
        (old, new) => old == new,
    };
    let (before, after) = (&old.metadata, &new.metadata);
    // A record has whole seconds only.
    let same_time = before.modified.seconds == after.modified.seconds
        && (before.modified.nanoseconds == 0 || before.modified.nanoseconds == after.modified.nanoseconds);
    // The permissions of symlinks have no meaning.
    let is_link = matches!(new.kind, FileKind::Symlink { .. });
    let same_mode = is_link || before.mode == after.mode;
    let same_owner = (before.uid, before.gid) == (after.uid, after.gid);
    !(same_kind && same_time && same_mode && same_owner && before.xattrs == after.xattrs)
}

/// Returns the paths that do not exist any more, or are below something that is no directory any more.
fn removed(before: &Snapshot, after: &Snapshot) -> Vec<Path> {
    before.files.keys().filter(|path| after.get(path).is_none()).cloned().collect()
}

/// Returns the whiteouts for removed files. A directory that has lost everything that it had is opaque instead.
fn whiteouts(before: &Snapshot, after: &Snapshot, removed: &[Path]) -> Vec<Whiteout> {
    let mut lost: BTreeMap<Path, Vec<&Path>> = BTreeMap::new();
    for path in removed {
        let Some(parent) = path.parent() else { continue };
        // What was below a removed or replaced directory is hidden with it.
        if after.get(&parent).is_some_and(|state| state.kind == FileKind::Directory) {
            lost.entry(parent).or_default().push(path);
        }
    }
    let mut had: HashMap<Path, usize> = HashMap::new();
    for path in before.files.keys() {
        if let Some(parent) = path.parent()
            && lost.contains_key(&parent)
        {
            *had.entry(parent).or_default() += 1;
        }
    }
    let mut whiteouts = Vec::new();
    for (directory, children) in lost {
        if children.len() > 1 && !directory.is_root() && had.get(&directory) == Some(&children.len()) {
            whiteouts.push(Whiteout::Contents(directory));
        } else {
            whiteouts.extend(children.into_iter().map(|path| Whiteout::Path(path.clone())));
        }
    }
    whiteouts
}

/// Returns the entries of changed files. All names of a file are in the layer if one is.
fn files(after: &Snapshot, changed: &mut BTreeSet<Path>) -> Vec<Entry> {
    let mut names: HashMap<(u64, u64), Vec<&Path>> = HashMap::new();
    for (path, state) in &after.files {
        if state.links > 1 && state.kind != FileKind::Directory {
            names.entry(state.inode).or_default().push(path);
        }
    }
    for names in names.values() {
        if names.len() > 1 && names.iter().any(|name| changed.contains(*name)) {
            changed.extend(names.iter().map(|name| (*name).clone()));
        }
    }
    let mut first: HashMap<(u64, u64), &Path> = HashMap::new();
    let mut entries = Vec::new();
    for (path, state) in after.files.iter().filter(|(path, _)| changed.contains(*path)) {
        let is_shared = names.get(&state.inode).is_some_and(|names| names.len() > 1);
        let kind = match first.get(&state.inode) {
            Some(target) if is_shared && state.kind != FileKind::Directory => {
                Kind::HardLink { target: (*target).clone() }
            }
            _ => {
                first.insert(state.inode, path);
                Kind::File(state.kind.clone())
            }
        };
        // Layers have whole seconds, as those of other tools, so that the same layer has the same bytes on any file system.
        let modified = Time { nanoseconds: 0, ..state.metadata.modified };
        let metadata = crate::layer::Metadata { modified, ..state.metadata.clone() };
        entries.push(Entry { path: path.clone(), kind, metadata });
    }
    entries
}

impl Snapshot {
    /// Returns the state that an image has after it was unpacked, with the owners in the image, from its files and their digests.
    pub fn of_image(image: &FileTree) -> Snapshot {
        let files = || image.iter();
        let mut names: HashMap<usize, u64> = HashMap::new();
        let address = |located: &Located| std::sync::Arc::as_ptr(&located.file) as usize;
        files().for_each(|(_, located)| *names.entry(address(located)).or_default() += 1);
        let state = |file: &File, links, inode| State {
            kind: file.kind.clone(),
            metadata: file.metadata.clone(),
            links,
            digest: file.digest.as_deref().copied(),
            inode: (0, inode),
            size: if let FileKind::Regular { size } = file.kind { size } else { 0 },
        };
        let states = files().map(|(path, located)| {
            let address = address(located);
            (path.clone(), state(&located.file, names[&address], address as u64))
        });
        let mut snapshot = Snapshot { files: states.collect() };
        snapshot.files.entry(Path::root()).or_insert_with(|| state(&File::undescribed(), 1, 0));
        snapshot
    }
}
