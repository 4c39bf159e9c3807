//! The order of a layer in which the files that a snapshotter is to fetch first come first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path as DirectoryPath;

use ocikit_archive::layer::{Budget, Path, RawEntry, RawKind, RawReader};
use ocikit_archive::{Header, padding};

use crate::error::Stopped;
use crate::estargz::format::{LANDMARK, PREFETCH_LANDMARK, is_own_file};
use crate::reason::{Reason, key};

/// The maximum number of directories above a file that move with it.
const MAX_PARENTS: usize = 1024;

/// The maximum number of hard links that lead to a file one after the other.
const MAX_LINKS: usize = 64;

/// A tar in another order.
pub(crate) struct Ordered {
    pub(crate) tar: BufReader<Spans>,
    /// Whether any file comes first. The landmark is then after these files.
    pub(crate) has_landmark: bool,
}

/// Copies a tar to a temporary file and returns it with the listed files and directories at its start, in this order,
/// each after the directories above it and the target of a hard link. Paths that are not in it are left out. A tar with a
/// file at the path of one that the format has is refused.
pub(crate) fn ordered(tar: &mut impl Read, prefetch: &[Path], directory: &DirectoryPath) -> Result<Ordered, Stopped> {
    let mut copy = Copying { reader: tar, file: BufWriter::new(tempfile::tempfile_in(directory)?), failed: None };
    let entries = Entries::read(&mut copy, prefetch);
    if let Some(error) = copy.failed {
        return Err(Stopped::Writing(error));
    }
    let entries = entries?;
    let mut file = copy.file.into_inner().map_err(io::IntoInnerError::into_error)?;
    let end = file.seek(SeekFrom::End(0))?;
    let mut landmark = Header::file(PREFETCH_LANDMARK, LANDMARK.len() as u64).to_bytes();
    landmark.extend_from_slice(&LANDMARK);
    landmark.resize(landmark.len().next_multiple_of(512), 0);
    file.write_all(&landmark)?;
    let first = entries.first();
    let is_first: HashSet<_> = first.iter().copied().collect();
    let span = |index: usize| entries.spans.get(index).cloned();
    let mut spans: VecDeque<_> = first.iter().copied().filter_map(span).collect();
    if !first.is_empty() {
        spans.push_back(end..end + landmark.len() as u64);
    }
    let rest = (0..entries.spans.len()).filter(|index| !is_first.contains(index));
    spans.extend(rest.filter_map(span));
    spans.push_back(entries.spans.last().map_or(0, |last| last.end)..end);
    let tar = BufReader::new(Spans { file, spans, left: 0 });
    Ok(Ordered { tar, has_landmark: !first.is_empty() })
}

/// The entries of a tar: 16 bytes each, and 40 for its path.
#[derive(Default)]
struct Entries {
    spans: Vec<Range<u64>>,
    known: HashMap<[u8; 16], usize>,
    /// The targets of hard links.
    links: HashMap<usize, Path>,
    /// The entries that are listed or below a listed directory, with the position in the list.
    listed: Vec<(usize, Path)>,
}

impl Entries {
    fn read(copy: &mut Copying<impl Read>, prefetch: &[Path]) -> Result<Entries, Stopped> {
        let mut entries = Entries::default();
        let mut reader = RawReader::within(&Budget::new(), copy);
        let mut between = Vec::new();
        while let Some(entry) = reader.next_entry(&mut between)? {
            between.clear();
            // Between the entries, only a global header can be.
            if entry.start != entries.spans.last().map_or(0, |last| last.end) {
                return Err(Reason::GlobalHeader.into());
            }
            if is_own_file(entry.path.as_bytes()) {
                return Err(Reason::OwnFile { path: entry.path }.into());
            }
            entries.add(&entry, prefetch);
            io::copy(&mut reader, &mut io::sink()).map_err(|error| Stopped::Reading(error.into()))?;
        }
        entries.listed.sort_by_key(|(position, _)| *position);
        Ok(entries)
    }

    fn add(&mut self, entry: &RawEntry, prefetch: &[Path]) {
        let index = self.spans.len();
        let end = entry.data.offset + entry.data.size;
        self.spans.push(entry.start..end + padding(entry.data.size));
        self.known.entry(key(&entry.path)).or_insert(index);
        if entry.kind == RawKind::HardLink {
            self.links.insert(index, Path::confined(&entry.link));
        }
        let is_listed = |listed: &Path| entry.path == *listed || entry.path.is_within(listed);
        if let Some(position) = prefetch.iter().position(is_listed) {
            self.listed.push((position, entry.path.clone()));
        }
    }

    /// Returns the entries that come first.
    fn first(&self) -> Vec<usize> {
        let (mut order, mut taken) = (Vec::new(), HashSet::new());
        for (_, path) in &self.listed {
            let mut names = vec![path.clone()];
            while let Some(link) = names.last().and_then(|name| self.links.get(self.known.get(&key(name))?))
                && names.len() < MAX_LINKS
            {
                names.push(link.clone());
            }
            for name in names.into_iter().rev() {
                let parents = std::iter::successors(name.parent(), Path::parent);
                let mut parents: Vec<_> = parents.take_while(|parent| !parent.is_root()).take(MAX_PARENTS).collect();
                parents.reverse();
                let moved = parents.iter().chain([&name]).filter_map(|path| self.known.get(&key(path)).copied());
                order.extend(moved.filter(|index| taken.insert(*index)));
            }
        }
        order
    }
}

/// A reader that writes what it reads to a file.
struct Copying<'a, R> {
    reader: &'a mut R,
    file: BufWriter<File>,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Copying<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        if let Err(error) = self.file.write_all(&buffer[..read]) {
            self.failed = Some(error);
            return Err(io::Error::other("the temporary file cannot be written"));
        }
        Ok(read)
    }
}

/// The spans of a file, one after the other.
pub(crate) struct Spans {
    file: File,
    spans: VecDeque<Range<u64>>,
    /// The number of bytes of the span in progress that are left.
    left: u64,
}

impl Read for Spans {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let Some(span) = self.spans.pop_front() else { return Ok(0) };
            self.file.seek(SeekFrom::Start(span.start))?;
            self.left = span.end.saturating_sub(span.start);
        }
        let read = (&mut self.file).take(self.left).read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a temporary file became shorter"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use ocikit_image::testing::Tar;

    use super::*;

    fn names(tar: &[u8], prefetch: &[&str]) -> (Vec<String>, bool) {
        let prefetch: Vec<_> = prefetch.iter().map(|path| Path::confined(path.as_bytes())).collect();
        let mut ordered = ordered(&mut &*tar, &prefetch, &std::env::temp_dir()).unwrap();
        let mut bytes = Vec::new();
        ordered.tar.read_to_end(&mut bytes).unwrap();
        let mut reader = RawReader::within(&Budget::new(), &bytes[..]);
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry(&mut Vec::new()).unwrap() {
            let mut contents = String::new();
            reader.read_to_string(&mut contents).unwrap();
            names.push(format!("{}={}", String::from_utf8_lossy(&entry.name), contents.len()));
        }
        (names, ordered.has_landmark)
    }

    #[test]
    fn listed_files_come_first_after_their_directories_and_targets() {
        let tar = Tar::new().file("a", b"1").directory("d").file("d/b", &[7; 700]).file("d/c", b"333");
        let tar = tar.directory("e").link("e/link", "d/c").finish();
        let (found, has_landmark) = names(&tar, &["/e/link", "gone", "d"]);
        assert_eq!(found, ["d/=0", "d/c=3", "e/=0", "e/link=0", "d/b=700", ".prefetch.landmark=1", "a=1"]);
        assert!(has_landmark);
        let (found, has_landmark) = names(&tar, &["gone"]);
        assert_eq!(found, ["a=1", "d/=0", "d/b=700", "d/c=3", "e/=0", "e/link=0"]);
        assert!(!has_landmark);
        assert_eq!(names(&tar, &["/"]).0.last().unwrap(), ".prefetch.landmark=1");
    }
}
