use std::collections::HashSet;
use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

use crate::encoder::EncoderOptions;
use crate::error::{Error, Result};
use crate::layer::blob::{BlobWriter, Written};
use crate::layer::entry::{Entry, FileKind, Kind, Metadata, Time};
use crate::layer::path::Path;

/// Writes a layer from entries: a compressed tar, with its digests.
///
/// What a [`Reader`](super::Reader) reads is written back as it was read. Whatever a `ustar` header cannot hold goes to an
/// extended header by POSIX, as Go, GNU tar and libarchive read it: long names, large numbers, fractions of seconds, and
/// extended attributes as `SCHILY.xattr.NAME`. The bytes depend only on the entries and the options.
///
/// ```
/// use ocikit_archive::Compression;
/// use ocikit_archive::layer::{Entry, FileKind, Kind, Metadata, Path, Writer};
///
/// let mut layer = Writer::new(&Compression::Gzip.into(), Vec::new())?;
/// let kind = Kind::File(FileKind::Regular { size: 5 });
/// let metadata = Metadata { mode: 0o644, ..Metadata::default() };
/// layer.append(&Entry { path: Path::confined(b"etc/motd"), kind, metadata }, &b"hello"[..])?;
/// let (blob, written) = layer.finish()?;
/// assert_eq!(blob.len() as u64, written.size);
/// # Ok::<(), ocikit_archive::Error>(())
/// ```
pub struct Writer<W: Write> {
    tar: Builder<BlobWriter<W>>,
    parents: Option<Parents>,
    watch: Option<Watch>,
}

/// Receives the number of bytes of contents that were read.
type Watch = Box<dyn FnMut(u64) + Send>;

/// The entries for parent directories that nothing else describes.
struct Parents {
    metadata: Metadata,
    /// The directories that have an entry.
    written: HashSet<Path>,
}

impl<W: Write> Writer<W> {
    /// Starts a layer.
    ///
    /// # Errors
    ///
    /// As [`Encoder::with`](crate::Encoder::with).
    pub fn new(options: &EncoderOptions, writer: W) -> Result<Writer<W>> {
        Ok(Writer { tar: Builder::new(BlobWriter::new(options, writer)?), parents: None, watch: None })
    }

    /// Calls a function with the number of bytes whenever contents of files were read, to show progress.
    pub fn watch(&mut self, watch: impl FnMut(u64) + Send + 'static) {
        self.watch = Some(Box::new(watch));
    }

    /// Gives every parent directory that has no entry yet one with this metadata, before the entries that follow.
    ///
    /// Such an entry replaces a symlink, and the metadata of the directory, in lower layers. Without it, both stay, and a new
    /// directory has mode 0755 and belongs to root. Memory grows with the number of directories.
    ///
    /// ```
    /// use ocikit_archive::Compression;
    /// use ocikit_archive::layer::{Metadata, Path, Reader, Writer};
    ///
    /// let mut layer = Writer::new(&Compression::None.into(), Vec::new())?;
    /// layer.add_parents(Metadata { mode: 0o755, ..Metadata::default() });
    /// layer.hide(&Path::confined(b"etc/motd"))?;
    /// let (tar, _) = layer.finish()?;
    /// let first = Reader::new(&tar[..]).next_entry()?;
    /// assert!(first.is_some_and(|entry| entry.path.as_bytes() == b"etc"));
    /// # Ok::<(), ocikit_archive::Error>(())
    /// ```
    pub fn add_parents(&mut self, metadata: Metadata) {
        self.parents = Some(Parents { metadata, written: HashSet::new() });
    }

    /// Appends an entry. The contents are read for a regular file only, and as many bytes as its size says.
    ///
    /// # Errors
    ///
    /// [`Error::Layer`] for an entry that no tar can hold or that its path contradicts; [`Error::Io`] if reading or
    /// writing fails, of the kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the contents are shorter.
    pub fn append(&mut self, entry: &Entry, contents: impl Read) -> Result<()> {
        self.append_parents(entry)?;
        self.append_one(entry, contents)
    }

    fn append_parents(&mut self, entry: &Entry) -> Result<()> {
        let Some(Parents { metadata, written }) = &mut self.parents else { return Ok(()) };
        let mut missing = Vec::new();
        let mut at = entry.path.parent();
        while let Some(path) = at.filter(|path| !path.is_root() && !written.contains(path)) {
            at = path.parent();
            missing.push(path);
        }
        written.extend(missing.iter().cloned());
        if matches!(entry.kind, Kind::File(FileKind::Directory)) {
            written.insert(entry.path.clone());
        }
        let metadata = metadata.clone();
        for path in missing.into_iter().rev() {
            let parent = Entry { path, kind: Kind::File(FileKind::Directory), metadata: metadata.clone() };
            self.append_one(&parent, io::empty())?;
        }
        Ok(())
    }

    fn append_one(&mut self, entry: &Entry, contents: impl Read) -> Result<()> {
        let (header, extended) = headers(entry)?;
        self.tar.append_pax_extensions(extended.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
        let rest = match entry.kind {
            Kind::File(FileKind::Regular { size }) => size,
            Kind::File(_) | Kind::HardLink { .. } | Kind::Whiteout(_) => 0,
        };
        Ok(self.tar.append(&header, Exactly { contents, rest, watch: self.watch.as_mut() })?)
    }

    /// Ends the layer and returns the underlying writer and the digests.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn finish(self) -> Result<(W, Written)> {
        Ok(self.tar.into_inner()?.finish()?)
    }
}

impl<W: Write> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// A reader of exactly this many bytes: a tar whose contents are shorter than their header says is damaged.
struct Exactly<'a, R> {
    contents: R,
    rest: u64,
    watch: Option<&'a mut Watch>,
}

impl<R: Read> Read for Exactly<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.rest).unwrap_or(usize::MAX).min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        let read = self.contents.read(&mut buffer[..length])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the contents are shorter than their size"));
        }
        self.rest -= read as u64;
        if let Some(watch) = &mut self.watch {
            watch(read as u64);
        }
        Ok(read)
    }
}

/// The records of an extended header.
type Records = Vec<(String, Vec<u8>)>;

/// The maximum numbers of octal fields with seven and eleven digits, which every reader supports.
const MAX_OCTAL_7: u64 = (1 << 21) - 1;
const MAX_OCTAL_11: u64 = (1 << 33) - 1;

fn headers(entry: &Entry) -> Result<(Header, Records)> {
    let Entry { path, kind, metadata } = entry;
    check_path(path, kind)?;
    let mut header = Header::new_ustar();
    let mut extended = Records::new();
    let is_directory = matches!(kind, Kind::File(FileKind::Directory));
    name(&mut header, &mut extended, path, is_directory);
    header.set_mode(metadata.mode & 0o7777);
    let size = if let Kind::File(FileKind::Regular { size }) = kind { *size } else { 0 };
    for (key, number, max, set) in [
        ("uid", metadata.uid, MAX_OCTAL_7, Header::set_uid as fn(&mut Header, u64)),
        ("gid", metadata.gid, MAX_OCTAL_7, Header::set_gid),
        ("size", size, MAX_OCTAL_11, Header::set_size),
    ] {
        let fits = number <= max;
        set(&mut header, if fits { number } else { 0 });
        if !fits {
            extended.push((key.to_owned(), number.to_string().into()));
        }
    }
    time(&mut header, &mut extended, metadata.modified);
    owner_names(&mut header, &mut extended, entry);
    entry_type(&mut header, &mut extended, path, kind)?;
    for (name, value) in &metadata.xattrs {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Error::layer(path, "the name of an extended attribute cannot be written to a tar"));
        }
        extended.push((format!("SCHILY.xattr.{name}"), value.to_vec()));
    }
    header.set_cksum();
    Ok((header, extended))
}

/// A path with the name of a whiteout would hide files, and a whiteout with another path would hide none.
fn check_path(path: &Path, kind: &Kind) -> Result<()> {
    use crate::layer::whiteout::{Meaning, meaning};
    match (meaning(path), kind) {
        (Meaning::File, Kind::File(_) | Kind::HardLink { .. }) => Ok(()),
        (Meaning::Whiteout(found), Kind::Whiteout(stated)) if found == *stated => Ok(()),
        (_, Kind::Whiteout(_)) => Err(Error::layer(path, "its name is not that of the whiteout")),
        (_, _) => Err(Error::layer(path, "its name is reserved for whiteouts")),
    }?;
    let is_possible = !path.is_root() || matches!(kind, Kind::File(FileKind::Directory));
    if is_possible { Ok(()) } else { Err(Error::layer(path, "the root is a directory")) }
}

fn name(header: &mut Header, extended: &mut Records, path: &Path, is_directory: bool) {
    let mut name = if path.is_root() { b".".to_vec() } else { path.as_bytes().to_vec() };
    if is_directory {
        name.push(b'/');
    }
    put(&mut header.as_old_mut().name, extended, "path", &name);
}

/// Writes a text to a field, and to the extended header if the field is too short.
fn put(field: &mut [u8], extended: &mut Records, key: &str, text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
    if text.len() > length {
        extended.push((key.to_owned(), text.to_vec()));
    }
}

fn time(header: &mut Header, extended: &mut Records, time: Time) {
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    header.set_mtime(seconds.min(MAX_OCTAL_11));
    if time.seconds < 0 || seconds > MAX_OCTAL_11 || time.nanoseconds > 0 {
        extended.push(("mtime".to_owned(), decimal(time).into()));
    }
}

/// Returns a decimal number of seconds, by POSIX.
fn decimal(Time { seconds, nanoseconds }: Time) -> String {
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    let (sign, whole, fraction) = match seconds < 0 {
        true => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanoseconds.min(999_999_999)),
        false => ("", seconds.unsigned_abs(), nanoseconds.min(999_999_999)),
    };
    let fraction = format!("{fraction:09}");
    format!("{sign}{whole}.{}", fraction.trim_end_matches('0'))
}

fn owner_names(header: &mut Header, extended: &mut Records, entry: &Entry) {
    let Some(ustar) = header.as_ustar_mut() else { return };
    let names = [("uname", &entry.metadata.user, &mut ustar.uname), ("gname", &entry.metadata.group, &mut ustar.gname)];
    for (key, name, field) in names {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty() && !name.contains('\0')) else { continue };
        // The field ends with a zero byte.
        match name.len() < field.len() {
            true => field[..name.len()].copy_from_slice(name.as_bytes()),
            false => extended.push((key.to_owned(), name.as_bytes().to_vec())),
        }
    }
}

fn entry_type(header: &mut Header, extended: &mut Records, path: &Path, kind: &Kind) -> Result<()> {
    let device = |header: &mut Header, kind, major: u32, minor: u32| {
        if u64::from(major.max(minor)) > MAX_OCTAL_7 {
            return Err(Error::layer(path, "its device number cannot be written to a tar"));
        }
        header.set_entry_type(kind);
        header.set_device_major(major)?;
        Ok(header.set_device_minor(minor)?)
    };
    let mut link = |header: &mut Header, kind, target: &[u8]| {
        if target.is_empty() || target.contains(&0) {
            return Err(Error::layer(path, "a link has no valid target"));
        }
        header.set_entry_type(kind);
        put(&mut header.as_old_mut().linkname, extended, "linkpath", target);
        Ok(())
    };
    match kind {
        Kind::File(FileKind::Regular { .. }) | Kind::Whiteout(_) => header.set_entry_type(EntryType::Regular),
        Kind::File(FileKind::Directory) => header.set_entry_type(EntryType::Directory),
        Kind::File(FileKind::Fifo) => header.set_entry_type(EntryType::Fifo),
        Kind::File(FileKind::Symlink { target }) => link(header, EntryType::Symlink, target)?,
        Kind::HardLink { target } => link(header, EntryType::Link, target.as_bytes())?,
        Kind::File(FileKind::CharacterDevice { major, minor }) => device(header, EntryType::Char, *major, *minor)?,
        Kind::File(FileKind::BlockDevice { major, minor }) => device(header, EntryType::Block, *major, *minor)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::layer::{Metadata, Reader, Whiteout};
    use crate::{Compression, Decoder};

    fn paths() -> impl Strategy<Value = Path> {
        let part = prop_oneof![
            4 => "[a-z.]{1,12}",
            1 => "[a-zäß\n= ]{30,120}",
            1 => Just("x".repeat(100)),
        ];
        let odd = vec(1_u8.., 1..20).prop_filter("a name", |name| !name.contains(&b'/'));
        let part = prop_oneof![9 => part.prop_map(String::into_bytes), 1 => odd];
        vec(part, 1..5).prop_map(|parts| Path::confined(&parts.join(&b'/'))).prop_filter("a file", |path| {
            !path.is_root() && matches!(crate::layer::whiteout::meaning(path), crate::layer::whiteout::Meaning::File)
        })
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        let target = prop_oneof![vec(1_u8.., 1..200), Just(b"../lib".to_vec())];
        prop_oneof![
            3 => (0_u64..2000).prop_map(|size| Kind::File(FileKind::Regular { size })),
            2 => Just(Kind::File(FileKind::Directory)),
            1 => Just(Kind::File(FileKind::Fifo)),
            2 => target.prop_map(|target| Kind::File(FileKind::Symlink { target: target.into() })),
            2 => paths().prop_map(|target| Kind::HardLink { target }),
            1 => (0_u32..1 << 21, 0_u32..1 << 21)
                .prop_map(|(major, minor)| Kind::File(FileKind::CharacterDevice { major, minor })),
            1 => (0_u32..256, 0_u32..256)
                .prop_map(|(major, minor)| Kind::File(FileKind::BlockDevice { major, minor })),
        ]
    }

    prop_compose! {
        fn metadata()(
            mode in 0_u32..=0o7777,
            uid in prop_oneof![0_u64..70_000, 0_u64..1 << 40],
            gid in prop_oneof![0_u64..70_000, 0_u64..1 << 32],
            user in proptest::option::of("[a-zä]{1,40}"),
            group in proptest::option::of("[a-z]{1,31}"),
            seconds in prop_oneof![0_i64..2_000_000_000, -1_000_000_000_000_i64..1_000_000_000_000],
            nanoseconds in prop_oneof![Just(0_u32), 0_u32..1_000_000_000],
            xattrs in btree_map("(user|security|trusted)\\.[a-z.ä]{1,20}", vec(any::<u8>(), 0..300), 0..3),
        ) -> Metadata {
            Metadata {
                mode, uid, gid,
                user: user.map(String::into_boxed_str),
                group: group.map(String::into_boxed_str),
                modified: Time { seconds, nanoseconds },
                xattrs: xattrs.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            }
        }
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let file = (paths(), kinds(), metadata()).prop_map(|(path, kind, metadata)| Entry { path, kind, metadata });
        let hidden = (paths(), any::<bool>()).prop_map(|(path, contents)| {
            Entry::whiteout(if contents { Whiteout::Contents(path) } else { Whiteout::Path(path) }).unwrap()
        });
        vec(prop_oneof![8 => file, 1 => hidden], 0..12)
    }

    fn contents(entry: &Entry) -> Vec<u8> {
        let Kind::File(FileKind::Regular { size }) = entry.kind else { return Vec::new() };
        (0..size).map(|at| (at % 251) as u8).collect()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(entries in entries()) {
            let mut layer = Writer::new(&Compression::Zstd.into(), Vec::new()).unwrap();
            for entry in &entries {
                layer.append(entry, &contents(entry)[..]).unwrap();
            }
            let (blob, written) = layer.finish().unwrap();
            prop_assert_eq!(written.digest, ocikit_spec::Digest::sha256_of(&blob));
            let mut tar = Vec::new();
            Decoder::new(&blob[..]).unwrap().read_to_end(&mut tar).unwrap();
            prop_assert_eq!(written.diff_id, ocikit_spec::Digest::sha256_of(&tar));
            prop_assert_eq!((written.size, written.tar_size), (blob.len() as u64, tar.len() as u64));
            let mut reader = Reader::new(&tar[..]);
            for entry in &entries {
                let found = reader.next_entry().unwrap();
                prop_assert_eq!(found.as_ref(), Some(entry));
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).unwrap();
                prop_assert!(bytes == contents(entry));
            }
            prop_assert_eq!(reader.next_entry().unwrap(), None);
        }
    }

    fn file(path: &str, kind: Kind) -> Entry {
        Entry { path: Path::confined(path.as_bytes()), kind, metadata: Metadata::default() }
    }

    fn append(entry: &Entry, contents: &[u8]) -> Result<()> {
        Writer::new(&Compression::None.into(), Vec::new())?.append(entry, contents)
    }

    #[test]
    fn contradictory_entries_are_rejected() {
        let regular = Kind::File(FileKind::Regular { size: 0 });
        for entry in [
            file("etc/.wh.motd", regular.clone()),
            file("a/.wh..wh.plnk/x", regular.clone()),
            file("", regular.clone()),
            file("motd", Kind::Whiteout(Whiteout::Path(Path::confined(b"motd")))),
            file("x", Kind::File(FileKind::CharacterDevice { major: 1 << 21, minor: 0 })),
            file("x", Kind::File(FileKind::Symlink { target: b"".as_slice().into() })),
            Entry {
                metadata: Metadata { xattrs: [("a=b".into(), b"".as_slice().into())].into(), ..Metadata::default() },
                ..file("x", regular)
            },
        ] {
            assert!(matches!(append(&entry, b""), Err(Error::Layer { .. })), "{entry:?}");
        }
        assert!(append(&file("", Kind::File(FileKind::Directory)), b"").is_ok());
    }

    #[test]
    fn short_contents_are_an_error() {
        let entry = file("x", Kind::File(FileKind::Regular { size: 5 }));
        match append(&entry, b"four") {
            Err(Error::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof),
            other => panic!("{other:?}"),
        }
        assert!(append(&entry, b"five and more").is_ok());
    }

    #[test]
    fn sizes_beyond_eight_gib_are_extended() {
        let (header, extended) = headers(&file("x", Kind::File(FileKind::Regular { size: 10 << 30 }))).unwrap();
        assert_eq!(extended, [("size".to_owned(), b"10737418240".to_vec())]);
        assert_eq!(header.size().unwrap(), 0);
    }
}
