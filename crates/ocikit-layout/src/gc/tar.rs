use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use ocikit_archive::{END, Entry, Kind, TarIndex, padding};
use ocikit_image::bridge::blocking;
use ocikit_image::{Error, Result};
use ocikit_spec::Digest;

use super::options::{Collected, GcOptions, Removed};
use super::reach::reachable;
use crate::Tar;
use crate::docker::{MANIFEST_JSON, listed_in};
use crate::edit::is_filler;
use crate::staged::Staged;
use crate::tar_edit::{lock, refuse_compressed};

/// Copies what is needed to a new archive, which replaces the old one atomically.
pub(super) async fn collect(path: &Path, options: &GcOptions) -> Result<Collected> {
    let (locked, tar) = blocking({
        let path = path.to_owned();
        move || {
            let locked = lock(&path)?;
            refuse_compressed(&locked, &path)?;
            let reading = locked.try_clone().map_err(|error| Error::failed("open", path.display(), error))?;
            Ok((locked, Tar::of(path, reading)?))
        }
    })
    .await?;
    let needed = reachable(tar.roots(), &tar, tar.unlisted().await?, options).await?;
    let (path, dry_run) = (path.to_owned(), options.dry_run);
    blocking(move || {
        let mut names: HashSet<String> = needed.iter().map(Digest::blob_path).collect();
        if let Some(list) = tar.entry(MANIFEST_JSON)? {
            names.extend(listed_in(&list));
        }
        let keep = kept(tar.index(), &names);
        let collected = tell(tar.index(), &keep);
        if !dry_run && !collected.removed.is_empty() {
            let failed = |error| Error::failed("write to", path.display(), error);
            let staged = rewrite(&path, &locked, tar.index(), &keep).map_err(failed)?;
            check(&tar, &staged, &keep)?;
            staged.commit().map_err(failed)?;
        }
        // The file was duplicated, so closing it here would not release the lock.
        let _ = locked.unlock();
        Ok(collected)
    })
    .await
}

/// Returns the positions of the entries to keep. Entries without the name of a blob are kept, because they are not
/// ours.
fn kept(index: &TarIndex, needed: &HashSet<String>) -> HashSet<usize> {
    let mut wanted: HashSet<&str> = HashSet::new();
    for name in needed {
        follow(index, name, &mut wanted);
    }
    for entry in index.entries() {
        if let Some(name) = entry.name.as_deref().filter(|name| Digest::from_blob_path(name).is_none()) {
            follow(index, name, &mut wanted);
        }
    }
    let stays = |(at, entry): &(usize, &Entry)| {
        let Some(name) = entry.name.as_deref() else { return false };
        index.counts(*at)
            && !is_filler(entry)
            && (wanted.contains(name) || entry.kind == Kind::Directory)
            && entry.kind != Kind::Other
    };
    index.entries().iter().enumerate().filter(stays).map(|(at, _)| at).collect()
}

/// Adds an entry and the targets of its links.
fn follow<'a>(index: &'a TarIndex, name: &str, wanted: &mut HashSet<&'a str>) {
    let mut next = index.entry(name);
    while let Some(entry) = next {
        let Some(name) = entry.name.as_deref() else { return };
        if !wanted.insert(name) {
            return;
        }
        next = match &entry.kind {
            Kind::Link(Some(target)) => index.entry(target),
            _ => None,
        };
    }
}

fn tell(index: &TarIndex, keep: &HashSet<usize>) -> Collected {
    let mut collected = Collected::default();
    for (at, entry) in index.entries().iter().enumerate() {
        let name = entry.name.clone().unwrap_or_else(|| "an entry whose name leads out of the archive".to_owned());
        let digest = Digest::from_blob_path(&name);
        if keep.contains(&at) {
            collected.kept += usize::from(digest.is_some());
        } else {
            collected.freed += entry.end() - entry.start;
            collected.removed.push(Removed { name, digest, bytes: entry.data.size });
        }
    }
    collected
}

fn rewrite(path: &Path, file: &File, index: &TarIndex, keep: &HashSet<usize>) -> io::Result<Staged> {
    let staged = Staged::create(path)?;
    let mut source = file.try_clone()?;
    let mut written = 0;
    for (_, entry) in index.entries().iter().enumerate().filter(|(at, _)| keep.contains(at)) {
        source.seek(SeekFrom::Start(entry.start))?;
        let length = entry.data.offset + entry.data.size - entry.start;
        written += io::copy(&mut (&source).take(length), &mut staged.file())?;
        let zeros = padding(written);
        staged.file().write_all(&END[..zeros as usize])?;
        written += zeros;
    }
    staged.file().write_all(&END)?;
    staged.file().set_permissions(file.metadata()?.permissions())?;
    Ok(staged)
}

/// Checks that the new archive has all entries, before it replaces the old one.
fn check(old: &Tar, staged: &Staged, keep: &HashSet<usize>) -> Result<()> {
    let path = old.path();
    let file = staged.file().try_clone().map_err(|error| Error::failed("read", path.display(), error))?;
    let new = Tar::of(path.to_owned(), file)?;
    let whole = new.roots().text() == old.roots().text() && new.index().entries().len() == keep.len();
    if whole { Ok(()) } else { Err(Error::broken(path.display(), "the rest of it could not be copied")) }
}
