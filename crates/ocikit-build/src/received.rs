//! Build contexts that are read from a stream, as `docker build -` reads them.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Component, Path};
use std::sync::Arc;

use ocikit_archive::layer::Budget;
use ocikit_archive::{BLOCK, Compression, Decoder, Kind, TarStream};
use ocikit_image::{ScratchDirectory, ScratchKind};

use crate::error::{Error, Result};
use crate::inputs::{BuildContext, Dockerfile};
use crate::solve::Solve;

/// The maximum size of a Dockerfile that is read from a stream, in bytes.
const MAX_DOCKERFILE_BYTES: u64 = 16 << 20;

/// The beginning of the names of whiteouts, which mean the absence of a file in a layer.
const WHITEOUT: &str = ".wh.";

/// The offset of the checksum in a tar header, and its length.
const CHECKSUM: (usize, usize) = (148, 8);

impl Solve {
    /// Reads the context from a file to which a stream was copied: a Dockerfile, which is built without a context, or a tar, plain
    /// or compressed by gzip, xz, zstd or bzip2. `dockerfile` is the path of the Dockerfile in the tar.
    ///
    /// The files of a tar are in a temporary directory, which is removed when the build ends, so it can be built once. Entries that
    /// lead out of the context are refused, as are devices and pipes.
    ///
    /// # Errors
    ///
    /// [`Error::Context`] for a file that is neither, and for a tar that is refused; [`Error::Failed`] if it cannot be read or
    /// stored.
    pub fn receive(&mut self, stream: &File, dockerfile: Option<&str>) -> Result<()> {
        let failed = Error::failed("read the build context");
        let mut start = Vec::new();
        rewound(stream)?.take(BLOCK).read_to_end(&mut start).map_err(&failed)?;
        if Compression::detect(&start) != Compression::None || is_tar_header(&start) {
            return self.receive_archive(stream, dockerfile.unwrap_or("Dockerfile"));
        }
        if let Some(name) = dockerfile {
            return Err(refuse(format!("it is not a tar, which `{name}` could be a file of")));
        }
        let mut text = Vec::new();
        rewound(stream)?.take(MAX_DOCKERFILE_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
        match std::str::from_utf8(&text) {
            _ if text.len() as u64 > MAX_DOCKERFILE_BYTES => {
                Err(refuse(format!("the Dockerfile is larger than {MAX_DOCKERFILE_BYTES} bytes")))
            }
            Ok(words) if words.trim().is_empty() => Err(refuse("it is empty".to_owned())),
            Ok(words) if !words.contains('\0') => {
                self.dockerfile = Dockerfile::Text(text);
                self.context = BuildContext::Empty;
                Ok(())
            }
            _ => Err(refuse("it is neither a Dockerfile nor a tar".to_owned())),
        }
    }

    /// Checks the entries of an archive and unpacks it.
    fn receive_archive(&mut self, archive: &File, dockerfile: &str) -> Result<()> {
        if !Path::new(dockerfile).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            let reason = "it is a path in the context from standard input, and must not lead out of it";
            return Err(Error::option("file", dockerfile)(reason));
        }
        check(archive)?;
        let failed = Error::failed("store the build context in a temporary directory");
        let directory =
            ScratchDirectory::create(&ScratchDirectory::default_parent(), ScratchKind::Context).map_err(&failed)?;
        let context = directory.path().join("context");
        std::fs::create_dir(&context).map_err(failed)?;
        unpack(archive, &context)?;
        self.context = BuildContext::Directory(context);
        self.dockerfile = Dockerfile::InContext(dockerfile.to_owned());
        self.received = Some(Arc::new(directory));
        Ok(())
    }
}

/// Returns a reader of a file from its beginning.
fn rewound(file: &File) -> Result<File> {
    let mut file = file.try_clone().map_err(Error::failed("read the build context"))?;
    file.rewind().map_err(Error::failed("read the build context"))?;
    Ok(file)
}

fn refuse(reason: String) -> Error {
    Error::Context { reason }
}

/// Returns whether a block is the header of a tar entry: its checksum is right, or it has the mark of POSIX.
fn is_tar_header(block: &[u8]) -> bool {
    let (offset, length) = CHECKSUM;
    let Some(stated) = block.get(offset..offset + length).filter(|_| block.len() as u64 == BLOCK) else { return false };
    let digits: String = stated.iter().map(|byte| char::from(*byte)).filter(char::is_ascii_digit).collect();
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = stated.iter().map(|byte| u32::from(*byte)).sum();
    // The checksum counts as spaces.
    let expected = sum - own + u32::from(b' ') * CHECKSUM.1 as u32;
    u32::from_str_radix(&digits, 8) == Ok(expected) || &block[257..262] == b"ustar"
}

/// A decompressed archive, within the limits for layers.
fn open(archive: &File, budget: &Budget) -> Result<impl Read + Send + use<>> {
    let failed = Error::failed("read the build context");
    let file = rewound(archive)?;
    budget.layer(file.metadata().map_err(&failed)?.len());
    let decoder = Decoder::new(file).map_err(failed)?;
    Ok(Counted { decoder, budget: budget.clone() })
}

struct Counted<R: Read> {
    decoder: Decoder<R>,
    budget: Budget,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.budget.inflated(read as u64)?;
        Ok(read)
    }
}

/// Checks that every entry stays in the context, and can be unpacked as what it is.
fn check(archive: &File) -> Result<()> {
    let mut entries = TarStream::new(open(archive, &Budget::new())?);
    while let Some(entry) = entries.next_entry().map_err(|error| refuse(error.to_string()))? {
        let Some(name) = entry.name else {
            let problem = "has a name that leads out of the context, or is not UTF-8";
            return Err(refuse(format!("the entry at offset {} {problem}", entry.start)));
        };
        match entry.kind {
            Kind::Link(None) => return Err(refuse(format!("the link `{name}` leads out of the context"))),
            Kind::Other => return Err(refuse(format!("`{name}` is a device, a pipe or a sparse file"))),
            Kind::File | Kind::Directory | Kind::Link(Some(_)) => {}
        }
        if name.split('/').any(|part| part.starts_with(WHITEOUT)) {
            return Err(refuse(format!("`{name}` has the name of a whiteout, which layers use for absent files")));
        }
    }
    Ok(())
}

#[cfg(unix)]
fn unpack(archive: &File, directory: &Path) -> Result<()> {
    use ocikit_archive::unpack::{Owners, UnpackOptions, Unpacker};
    let convert = |error: ocikit_archive::Error| match error {
        ocikit_archive::Error::File { source, .. } => Error::failed("store the build context")(source),
        ocikit_archive::Error::Io(source) => Error::failed("store the build context")(source),
        error => refuse(error.to_string()),
    };
    let budget = Budget::new();
    let options = UnpackOptions::default().owners(Owners::Current);
    let mut unpacker = Unpacker::new(directory, options, &budget).map_err(convert)?;
    unpacker.layer(&mut open(archive, &budget)?).map_err(convert)?;
    // A file that a later entry replaces, but that another name still means.
    for number in unpacker.incomplete().map_err(convert)? {
        unpacker.layer_again(number, &mut open(archive, &budget)?).map_err(convert)?;
    }
    unpacker.finish().map(drop).map_err(convert)
}

#[cfg(not(unix))]
fn unpack(_: &File, _: &Path) -> Result<()> {
    Err(refuse("a tar cannot be unpacked on this system".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use ocikit_archive::Encoder;
    use ocikit_image::testing::Tar;

    use super::*;

    fn received(bytes: &[u8], dockerfile: Option<&str>) -> Result<Solve> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut solve = Solve::of(".");
        solve.receive(&file, dockerfile)?;
        Ok(solve)
    }

    #[test]
    fn a_stream_is_a_dockerfile_or_an_archive() {
        let text = b"FROM scratch\n";
        assert_eq!(received(text, None).unwrap().dockerfile, Dockerfile::Text(text.to_vec()));
        let plain = Tar::new().file("Dockerfile", text).file("dir/a", b"one").finish();
        let gzip = {
            let mut encoder = Encoder::new(Compression::Gzip, Vec::new()).unwrap();
            encoder.write_all(&plain).unwrap();
            encoder.finish().unwrap()
        };
        for bytes in [&plain, &gzip] {
            let solve = received(bytes, None).unwrap();
            solve.check().unwrap();
            let BuildContext::Directory(path) = &solve.context else { panic!("{solve:?}") };
            assert_eq!(fs::read_to_string(path.join("dir/a")).unwrap(), "one");
            let kept = path.clone();
            drop(solve);
            assert!(!kept.exists());
        }
        let solve = received(&plain, Some("dir/a")).unwrap();
        assert_eq!(solve.dockerfile, Dockerfile::InContext("dir/a".to_owned()));
        assert!(matches!(received(&plain, Some("dir/b")).unwrap().check(), Err(Error::Missing { .. })));
        for name in ["../Dockerfile", "/Dockerfile", "dir/../../x"] {
            assert!(matches!(received(&plain, Some(name)), Err(Error::Option { .. })), "{name}");
        }
        for bytes in [&b""[..], b" \n", b"\0\x01", &[0x1f, 0x8b, 8, 0]] {
            assert!(received(bytes, None).is_err(), "{bytes:?}");
        }
        assert!(received(text, Some("Dockerfile")).is_err());
        let cut = &gzip[..gzip.len() - 20];
        assert!(received(cut, None).is_err());
    }

    #[test]
    fn entries_that_lead_out_are_refused() {
        let with = || Tar::new().file("Dockerfile", b"");
        for (tar, expected) in [
            (with().file("../x", b""), "leads out"),
            (with().file("/etc/x", b""), "leads out"),
            (with().file("a/../../x", b""), "leads out"),
            (with().symlink("x", "../../etc"), "leads out"),
            (with().symlink("x", "/etc/passwd"), "leads out"),
            (with().link("x", "../etc"), "leads out"),
            (with().entry(b'6', "pipe", "", b""), "pipe"),
            (with().file("dir/.wh.x", b""), "whiteout"),
        ] {
            let error = received(&tar.finish(), None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        // A symlink in the context may lead to another file of it.
        received(&with().file("a/b", b"").symlink("a/c", "../a/b").finish(), None).unwrap();
    }
}
