//! An image with everything that is hard to convert, and what a container sees of it.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::io::Read;

use ocikit_image::EncoderOptions;
use ocikit_image::files::{Entry, FileKind, FileTree, Kind, Metadata, Path, Reader, Time, Tree, Whiteout, Writer};
use ocikit_image::testing::{Compression, random};
use ocikit_spec::Digest;

/// What is seen of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Type, contents, target or device number.
    pub(super) kind: String,
    pub(super) mode: u32,
    pub(super) owner: (u64, u64),
    pub(super) modified: (i64, u32),
    /// The number of names; 0 for a directory.
    pub(super) links: u64,
    /// The first of its names.
    pub(super) first_name: Vec<u8>,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
}

/// All files by their paths.
pub(super) type Files = BTreeMap<Vec<u8>, Seen>;

/// Returns the type as [`Seen`] has it; contents are added by the caller.
pub(super) fn kind_of(kind: &FileKind, contents: &[u8]) -> String {
    match kind {
        FileKind::Regular { size } => format!("file {size} {}", Digest::sha256_of(contents)),
        FileKind::Directory => "directory".to_owned(),
        FileKind::Symlink { target } => format!("symlink {:?}", String::from_utf8_lossy(target)),
        FileKind::CharacterDevice { major, minor } => format!("character {major}:{minor}"),
        FileKind::BlockDevice { major, minor } => format!("block {major}:{minor}"),
        FileKind::Fifo => "fifo".to_owned(),
    }
}

/// Returns the files that a container sees, from the tars of its layers.
pub(super) fn source(layers: &[Vec<u8>]) -> Files {
    let mut tree = FileTree::new();
    let mut contents: Vec<HashMap<u64, Vec<u8>>> = Vec::new();
    for layer in layers {
        let mut of_layer = HashMap::new();
        let read = Tree::read_with(&mut Reader::new(&layer[..]), |number, _, reader| {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes)?;
            of_layer.insert(number, bytes);
            Ok(None)
        });
        tree.apply(&read.unwrap()).unwrap();
        contents.push(of_layer);
    }
    let mut names: HashMap<(usize, u64), (Vec<u8>, u64)> = HashMap::new();
    for (path, located) in tree.iter().filter(|(_, located)| !located.file.is_directory()) {
        let key = (located.layer, located.file.entry.unwrap());
        names.entry(key).or_insert_with(|| (path.as_bytes().to_vec(), 0)).1 += 1;
    }
    let seen = tree.iter().map(|(path, located)| {
        let file = &located.file;
        let (first_name, links) = match file.entry.filter(|_| !file.is_directory()) {
            Some(entry) => names[&(located.layer, entry)].clone(),
            None => (path.as_bytes().to_vec(), 0),
        };
        let bytes = file.entry.and_then(|entry| contents[located.layer].get(&entry)).cloned().unwrap_or_default();
        let metadata = &file.metadata;
        let seen = Seen {
            kind: kind_of(&file.kind, &bytes),
            mode: metadata.mode,
            owner: (metadata.uid, metadata.gid),
            modified: (metadata.modified.seconds, metadata.modified.nanoseconds),
            links,
            first_name,
            xattrs: metadata.xattrs.iter().map(|(name, value)| (name.to_string(), value.to_vec())).collect(),
        };
        (path.as_bytes().to_vec(), seen)
    });
    let mut files: Files = seen.collect();
    // Layers without entries have no root, but a mount has one.
    files.entry(Vec::new()).or_insert_with(|| Seen {
        kind: kind_of(&FileKind::Directory, b""),
        mode: 0o755,
        owner: (0, 0),
        modified: (0, 0),
        links: 0,
        first_name: Vec::new(),
        xattrs: BTreeMap::new(),
    });
    files
}

/// The xattr that no bootstrap can hold.
pub(super) const LOST_XATTR: &str = "com.example.lost";

/// Builds the tar of a layer.
struct Layer(Writer<Vec<u8>>);

impl Layer {
    fn new() -> Layer {
        Layer(Writer::new(&EncoderOptions::from(Compression::None), Vec::new()).unwrap())
    }

    fn add(&mut self, path: &[u8], kind: FileKind, change: impl FnOnce(&mut Metadata), contents: &[u8]) -> &mut Layer {
        let mode = if kind == FileKind::Directory { 0o755 } else { 0o644 };
        let modified = Time { seconds: 1_600_000_000, nanoseconds: 123_456_789 };
        let mut metadata = Metadata { mode, modified, ..Metadata::default() };
        change(&mut metadata);
        let entry = Entry { path: Path::confined(path), kind: Kind::File(kind), metadata };
        self.0.append(&entry, contents).unwrap();
        self
    }

    fn file(&mut self, path: &str, contents: &[u8]) -> &mut Layer {
        self.add(path.as_bytes(), FileKind::Regular { size: contents.len() as u64 }, |_| (), contents)
    }

    fn directory(&mut self, path: &str) -> &mut Layer {
        self.add(path.as_bytes(), FileKind::Directory, |_| (), b"")
    }

    fn symlink(&mut self, path: &str, target: &str) -> &mut Layer {
        self.add(path.as_bytes(), FileKind::Symlink { target: target.as_bytes().into() }, |m| m.mode = 0o777, b"")
    }

    fn link(&mut self, path: &str, target: &str) -> &mut Layer {
        let kind = Kind::HardLink { target: Path::confined(target.as_bytes()) };
        let entry = Entry { path: Path::confined(path.as_bytes()), kind, metadata: Metadata::default() };
        self.0.append(&entry, &b""[..]).unwrap();
        self
    }

    fn whiteout(&mut self, whiteout: Whiteout) -> &mut Layer {
        self.0.append(&Entry::whiteout(whiteout).unwrap(), &b""[..]).unwrap();
        self
    }

    fn hide(&mut self, path: &str) -> &mut Layer {
        self.whiteout(Whiteout::Path(Path::confined(path.as_bytes())))
    }

    fn finish(self) -> Vec<u8> {
        self.0.finish().unwrap().0
    }
}

fn xattr(name: &str, value: &[u8]) -> impl FnOnce(&mut Metadata) {
    let (name, value) = (name.into(), value.into());
    move |metadata: &mut Metadata| drop(metadata.xattrs.insert(name, value))
}

/// Returns the tars of the three layers, the lowest first. The last one has no file with contents.
pub(super) fn layers() -> Vec<Vec<u8>> {
    vec![lower(), upper(), metadata_only()]
}

fn lower() -> Vec<u8> {
    let mut layer = Layer::new();
    layer.directory("").directory("etc").file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n");
    let regular = |size| FileKind::Regular { size };
    layer.add(b"etc/shadow", regular(2), |m| (m.mode, m.gid) = (0o640, 42), b"*\n");
    layer.add(b"bin/su", regular(4), |m| m.mode = 0o4755, b"\x7fELF");
    layer.link("bin/su2", "bin/su").link("bin/sx", "bin/su");
    layer.add(b"tmp", FileKind::Directory, |m| m.mode = 0o1777, b"");
    layer.add(b"owner/large", regular(1), |m| (m.uid, m.gid) = (70_000, 100_000), b"o");
    layer.add(b"owner/largest", regular(1), |m| (m.uid, m.gid) = (4_294_967_294, 4_294_967_293), b"p");
    for (name, seconds, nanoseconds) in
        [("zero", 0, 0), ("old", -5, 0), ("older", -6, 750_000_000), ("late", 5_000_000_000, 1)]
    {
        let time = Time { seconds, nanoseconds };
        layer.add(format!("time/{name}").as_bytes(), regular(0), |m| m.modified = time, b"");
    }
    layer.add(b"dev/null", FileKind::CharacterDevice { major: 1, minor: 3 }, |m| m.mode = 0o666, b"");
    layer.add(b"dev/odd", FileKind::CharacterDevice { major: 300, minor: 70_000 }, |_| (), b"");
    layer.add(b"dev/sda", FileKind::BlockDevice { major: 8, minor: 0 }, |m| m.gid = 6, b"");
    layer.add(b"dev/pipe", FileKind::Fifo, |_| (), b"");
    layer.link("dev/null2", "dev/null");
    layer.symlink("lib", "usr/lib").symlink("broken", "/no/where/\u{fc}").symlink("long", &"t/".repeat(2000));
    layer.link("lib2", "lib");
    // The target does not fit behind the inode together with the attribute.
    let target = FileKind::Symlink { target: "u".repeat(4000).into_bytes().into() };
    layer.add(b"longer", target, xattr("trusted.symlink", b"value"), b"");
    layer.add(b"xattr/user", regular(1), xattr("user.a", b"one"), b"x");
    let several = |m: &mut Metadata| {
        for (name, value) in [
            ("user.b", &b"line\nline\0"[..]),
            ("user.a", b"one"),
            ("trusted.t", b""),
            (
                "security.capability",
                b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
            ),
            (LOST_XATTR, b"lost"),
        ] {
            m.xattrs.insert(name.into(), value.into());
        }
    };
    layer.add(b"xattr/several", regular(3), several, b"yyy");
    layer.add(b"xattr/directory", FileKind::Directory, xattr("user.directory", &[7; 3000]), b"");
    layer.add(b"xattr/large", regular(5), xattr("user.large", &random(3, 9000)), b"large");
    names(&mut layer);
    contents(&mut layer);
    layer.directory("gone").file("gone/a", b"a").file("gone/b/c", b"c");
    layer.directory("opaque").file("opaque/old", b"old").directory("opaque/sub").file("opaque/sub/old", b"old");
    layer.directory("replaced").file("replaced/x", b"x");
    layer.file("becomes-directory", b"file");
    layer.add(b"kept", FileKind::Directory, |m| (m.mode, m.uid, m.gid) = (0o2711, 7, 8), b"");
    layer.file("kept/lower", b"lower");
    layer.file("linked/one", &random(9, 70_000)).link("linked/two", "linked/one").link("linked/three", "linked/one");
    // A whiteout in the lowest layer hides nothing, and must not be seen.
    layer.hide("etc/nothing");
    // A later entry of the same path wins.
    layer.file("twice", b"first").file("twice", b"second!");
    layer.finish()
}

fn names(layer: &mut Layer) {
    layer.file(&format!("names/{}", "n".repeat(100)), b"100").file(&format!("names/{}", "m".repeat(255)), b"255");
    layer.file("names/\u{e4}\u{f6}\u{fc} \u{1f980}", b"utf-8").file("names/new\nline", b"newline");
    layer.add(b"names/\xff\xfe", FileKind::Regular { size: 5 }, |_| (), b"bytes");
    // Some are sorted before the two entries that each directory has.
    for name in ["!first", "-dash", ".hidden", "..more", "...", ".-x", "+plus", ","] {
        layer.file(&format!("names/{name}"), name.as_bytes());
    }
    layer.file("a-b", b"between").file("a/b", b"below").file("a.b", b"dot").file("a0", b"zero");
    let deep = (0..60).map(|depth| format!("d{depth}")).collect::<Vec<_>>().join("/");
    layer.file(&format!("deep/{deep}/file"), b"deep");
    for number in 0..600 {
        layer.file(&format!("many/file-{number:04}"), format!("contents {}", number % 50).as_bytes());
    }
    // Names that fill blocks of directories exactly, or almost.
    for (count, length) in [(16, 243), (15, 255), (341, 9)] {
        for number in 0..count {
            layer.file(&format!("blocks-{count}/{number:0length$}"), b"b");
        }
    }
    layer.directory("empty");
}

fn contents(layer: &mut Layer) {
    for size in [0, 1, 4095, 4096, 4097, 1 << 20, (1 << 20) + 1, 2 << 20] {
        layer.file(&format!("sizes/{size}"), &random(size as u64, size));
    }
    layer.file("sizes/random", &random(77, 5_200_000)).file("sizes/zeros", &vec![0; 3 << 20]);
    layer.file("sizes/text", "compressible text\n".repeat(200_000).as_bytes());
    layer.file("sizes/again", &random(77, 5_200_000)).file("sizes/start", &random(77, 1 << 20));
}

fn upper() -> Vec<u8> {
    let mut layer = Layer::new();
    layer.hide("gone").hide("linked/two").hide("not/there");
    layer.directory("opaque").whiteout(Whiteout::Contents(Path::confined(b"opaque"))).file("opaque/new", b"new");
    layer.file("replaced", b"now a file");
    layer.add(b"becomes-directory", FileKind::Directory, |m| m.mode = 0o700, b"");
    layer.file("becomes-directory/file", b"in it");
    // No entry for the directory: it keeps its metadata.
    layer.file("kept/upper", b"upper");
    // Names of files in the lower layer.
    layer.link("link/passwd", "etc/passwd").link("link/four", "linked/one").link("link/lib", "lib");
    layer.file("copy/random", &random(77, 5_200_000)).file("copy/new", &random(78, 300_000));
    layer.file("etc/shadow", b"changed\n");
    layer.file("implicit/parents/of/a/file", b"implicit");
    layer.finish()
}

fn metadata_only() -> Vec<u8> {
    let mut layer = Layer::new();
    layer.hide("many/file-0007").symlink("etc/link", "passwd");
    layer.add(
        b"tmp",
        FileKind::Directory,
        |m| (m.mode, m.modified) = (0o700, Time { seconds: 7, nanoseconds: 7 }),
        b"",
    );
    layer.add(b"fresh/empty", FileKind::Regular { size: 0 }, |_| (), b"");
    layer.finish()
}

/// Returns the differences of two sets of files, at most ten.
pub(super) fn differences(expected: &Files, found: &Files) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let different = names.into_iter().filter(|name| expected.get(*name) != found.get(*name));
    let shown = different.map(|name| {
        let mut text =
            format!("{}: {:?}\n  found {:?}", String::from_utf8_lossy(name), expected.get(name), found.get(name));
        text.truncate(text.char_indices().nth(1500).map_or(text.len(), |(at, _)| at));
        text
    });
    shown.take(10).collect()
}
