use std::collections::HashMap;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::layer::budget::Budget;
use crate::layer::entry::{Entry, FileKind, Kind, Metadata};
use crate::layer::path::Path;
use crate::layer::reader::Reader;
use crate::layer::tree::{File, Node, Tree};
use crate::layer::whiteout::Whiteout;
use crate::layer::writer::Writer;

/// Writes the files of a layer in an order that depends on their paths only: whiteouts, then all files by the bytes of
/// their paths, a directory before its contents. Replaced entries of the layer and the names of owners are left out.
/// The function changes the metadata of each file.
///
/// The tar is copied to the temporary file, from which the contents are read in the new order. Memory is that of a
/// [`Tree`].
///
/// # Errors
///
/// As [`Tree::read`] and [`Writer::append`]; [`Error::Layer`] if the layer replaces a directory of which it hides files, for which no
/// order of entries exists; [`Error::Io`] if the temporary file cannot be written or
/// read.
pub fn sort<W: Write>(
    tar: impl Read,
    temporary: &mut (impl Read + Write + Seek),
    budget: &Budget,
    writer: &mut Writer<W>,
    mut change: impl FnMut(&mut Metadata),
) -> Result<()> {
    let mut starts = HashMap::new();
    let mut copy = Copying { tar, copy: BufWriter::with_capacity(BUFFER_BYTES, &mut *temporary) };
    let mut reader = Reader::within(budget, &mut copy);
    let tree = Tree::read_with(&mut reader, |number, _, reader| {
        starts.insert(number, reader.entry_start());
        Ok(None)
    })?;
    drop(reader);
    copy.copy.flush()?;
    drop(copy);
    let link = |path: &Path, target: &Path, writer: &mut Writer<W>, change: &mut dyn FnMut(&mut Metadata)| {
        let mut metadata = Metadata::default();
        change(&mut metadata);
        writer.append(
            &Entry { path: path.clone(), kind: Kind::HardLink { target: target.clone() }, metadata },
            io::empty(),
        )
    };
    // Links to files of lower layers that this layer replaces come before their replacements, which a marker can imply.
    for (path, node) in tree.iter() {
        if let Node::Link(target) = node
            && tree.get(target).is_some()
        {
            link(path, target, writer, &mut change)?;
        }
    }
    let mut whiteouts = Vec::new();
    for whiteout in tree.hidden() {
        let directory = match whiteout {
            Whiteout::Contents(path) => Some(path.clone()),
            Whiteout::Path(path) => path.parent(),
        };
        if let Some(directory) = directory.filter(|directory| !directory.is_root()) {
            match tree.get(&directory) {
                Some(node) if node.is_directory() => {}
                // It hides the contents by itself.
                Some(_) => continue,
                None if is_below_a_file(&directory, &tree) => continue,
                // Writing the marker would create the directory, over what a lower layer has there.
                None => {
                    return Err(Error::layer(&directory, "the layer replaces this directory, of which it hides files"));
                }
            }
        }
        whiteouts.extend(Entry::whiteout(in_place(whiteout, &tree)));
    }
    // After the conversion: a second run must find the same ones in the same order.
    whiteouts.sort_by(|one: &Entry, other| one.path.as_bytes().cmp(other.path.as_bytes()));
    whiteouts.dedup_by(|one, other| one.path == other.path);
    for mut entry in whiteouts {
        change(&mut entry.metadata);
        writer.append(&entry, io::empty())?;
    }
    let mut names: HashMap<*const File, Path> = HashMap::new();
    for (path, node) in tree.iter() {
        let file = match node {
            Node::File(file) => file,
            Node::Link(target) if tree.get(target).is_some() => continue,
            Node::Link(target) => {
                link(path, target, writer, &mut change)?;
                continue;
            }
        };
        // A directory without an entry keeps the metadata that it has in lower layers.
        let Some(number) = file.entry else { continue };
        let mut metadata = file.metadata.clone();
        change(&mut metadata);
        let kind = match names.get(&Arc::as_ptr(file)) {
            Some(target) if !file.is_directory() => Kind::HardLink { target: target.clone() },
            _ => Kind::File(file.kind.clone()),
        };
        names.insert(Arc::as_ptr(file), path.clone());
        let entry = Entry { path: path.clone(), kind, metadata };
        match (&entry.kind, starts.get(&number)) {
            (Kind::File(FileKind::Regular { .. }), Some(start)) => {
                temporary.seek(SeekFrom::Start(*start))?;
                let mut contents = Reader::new(BufReader::with_capacity(BUFFER_BYTES, &mut *temporary));
                contents.next_entry()?;
                writer.append(&entry, contents)?;
            }
            _ => writer.append(&entry, io::empty())?,
        }
    }
    Ok(())
}

const BUFFER_BYTES: usize = 64 << 10;

/// Returns the whiteout in the form that all readers apply alike: a path that the layer both hides and has as a
/// directory is an opaque directory, whose position among the entries does not matter.
fn in_place(whiteout: &Whiteout, tree: &Tree) -> Whiteout {
    match whiteout {
        Whiteout::Path(path) => match tree.get(path) {
            Some(Node::File(file)) if file.is_directory() && file.entry.is_some() => Whiteout::Contents(path.clone()),
            _ => whiteout.clone(),
        },
        Whiteout::Contents(_) => whiteout.clone(),
    }
}

/// Returns whether the layer has something other than a directory above a path.
fn is_below_a_file(path: &Path, tree: &Tree) -> bool {
    let mut above = std::iter::successors(path.parent(), Path::parent);
    above.any(|path| tree.get(&path).is_some_and(|node| !node.is_directory()))
}

/// A reader that writes what it reads.
struct Copying<R, W> {
    tar: R,
    copy: W,
}

impl<R: Read, W: Write> Read for Copying<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.tar.read(buffer)?;
        self.copy.write_all(&buffer[..read])?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Compression;
    use crate::layer::{FileTree, Time};

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry { path: Path::confined(path.as_bytes()), kind, metadata: Metadata { mode: 0o755, ..Metadata::default() } }
    }

    fn regular(size: u64) -> Kind {
        Kind::File(FileKind::Regular { size })
    }

    fn tar(entries: &[(Entry, &[u8])]) -> Vec<u8> {
        let mut layer = Writer::new(&Compression::None.into(), Vec::new()).unwrap();
        for (entry, contents) in entries {
            layer.append(entry, *contents).unwrap();
        }
        layer.finish().unwrap().0
    }

    fn sorted(tar: &[u8]) -> Vec<u8> {
        let mut layer = Writer::new(&Compression::None.into(), Vec::new()).unwrap();
        let mut temporary = tempfile::tempfile().unwrap();
        sort(tar, &mut temporary, &Budget::new(), &mut layer, |metadata| metadata.modified = Time::default()).unwrap();
        layer.finish().unwrap().0
    }

    fn contents(tar: &[u8]) -> Vec<(String, Kind, Vec<u8>)> {
        let mut reader = Reader::new(tar);
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            found.push((entry.path.to_string(), entry.kind, bytes));
        }
        found
    }

    #[test]
    fn order_and_replaced_entries_do_not_matter() {
        let directory = |path| (entry(path, Kind::File(FileKind::Directory)), &b""[..]);
        let link =
            |path, target: &str| (entry(path, Kind::HardLink { target: Path::confined(target.as_bytes()) }), &b""[..]);
        let hidden = (Entry::whiteout(Whiteout::Path(Path::confined(b"z/old"))).unwrap(), &b""[..]);
        let one = tar(&[
            (entry("z/b", regular(3)), b"new"),
            directory("a"),
            (entry("a/x", regular(4)), b"text"),
            link("a/y", "a/x"),
            hidden.clone(),
        ]);
        let other = tar(&[
            (entry("z/b", regular(5)), b"older"),
            hidden,
            (entry("a/y", regular(4)), b"text"),
            link("a/x", "a/y"),
            (entry("z/b", regular(3)), b"new"),
            directory("a"),
        ]);
        let result = sorted(&one);
        assert_eq!(contents(&result), contents(&sorted(&other)));
        assert_eq!(result, sorted(&other));
        assert_eq!(result, sorted(&result), "a sorted layer stays the same");
        let names: Vec<_> = contents(&result).into_iter().map(|(path, ..)| path).collect();
        assert_eq!(names, ["z/.wh.old", "a", "a/x", "a/y", "z/b"]);
    }

    #[test]
    fn a_sorted_layer_has_the_same_effect() {
        let lower = tar(&[
            (entry("d", Kind::File(FileKind::Directory)), b""),
            (entry("d/old", regular(1)), b"x"),
            (entry("f", regular(1)), b"y"),
        ]);
        let upper = tar(&[
            (entry("d/new", regular(1)), b"z"),
            (Entry::whiteout(Whiteout::Path(Path::confined(b"d"))).unwrap(), b""),
            (entry("d", Kind::File(FileKind::Directory)), b""),
            (entry("g", Kind::HardLink { target: Path::confined(b"f") }), b""),
        ]);
        let effect = |upper: &[u8]| {
            let mut files = FileTree::new();
            for tar in [&lower[..], upper] {
                files.apply(&Tree::read(&mut Reader::new(tar)).unwrap()).unwrap();
            }
            let shown = files.iter().map(|(path, found)| {
                (path.to_string(), found.file.kind.clone(), found.file.metadata.clone(), found.layer)
            });
            shown.collect::<Vec<_>>()
        };
        assert_eq!(effect(&sorted(&upper)), effect(&upper));
        assert_eq!(contents(&sorted(&upper))[0].0, "d/.wh..wh..opq");
    }
}
