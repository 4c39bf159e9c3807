//! Layers are unpacked and compared with the tree that `FileTree` has of them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use proptest::prelude::*;
use tar_core::builder::EntryBuilder;
use tar_core::{EntryType, SparseEntry};

use super::*;
use crate::END;
use crate::layer::{FileTree, Limit, Metadata};

/// A builder for layers.
#[derive(Debug, Default, Clone)]
struct Tar(Vec<u8>);

/// The fields of an entry.
#[derive(Debug, Clone)]
struct Fields<'a> {
    kind: EntryType,
    name: &'a str,
    link: &'a str,
    bytes: &'a [u8],
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    device: (u32, u32),
    pax: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Fields<'a> {
    fn of(kind: EntryType, name: &'a str) -> Fields<'a> {
        let (user, group) = me();
        let mode = if kind == EntryType::Directory { 0o755 } else { 0o644 };
        let owner = (user.into(), group.into());
        Fields { kind, name, link: "", bytes: b"", mode, owner, mtime: 7, device: (0, 0), pax: Vec::new() }
    }
}

/// The current user, so that tests pass without the privileges of root.
fn me() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn is_root() -> bool {
    me().0 == 0
}

impl Tar {
    fn entry(mut self, fields: &Fields<'_>) -> Tar {
        let mut builder = EntryBuilder::new_ustar();
        builder.path(fields.name.as_bytes()).entry_type(fields.kind).mode(fields.mode).unwrap();
        builder.size(fields.bytes.len() as u64).unwrap().mtime(fields.mtime).unwrap();
        builder.uid(fields.owner.0).unwrap().gid(fields.owner.1).unwrap();
        if matches!(fields.kind, EntryType::Char | EntryType::Block) {
            builder.device(fields.device.0, fields.device.1).unwrap();
        }
        if !fields.link.is_empty() {
            builder.link_name(fields.link);
        }
        for (key, value) in &fields.pax {
            builder.add_pax(key, value);
        }
        self.0.extend_from_slice(&builder.finish_bytes());
        self.0.extend_from_slice(fields.bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, bytes: &[u8]) -> Tar {
        self.entry(&Fields { bytes, ..Fields::of(EntryType::Regular, name) })
    }

    fn directory(self, name: &str, mode: u32) -> Tar {
        self.entry(&Fields { mode, ..Fields::of(EntryType::Directory, name) })
    }

    fn symlink(self, name: &str, link: &str) -> Tar {
        self.entry(&Fields { link, ..Fields::of(EntryType::Symlink, name) })
    }

    fn link(self, name: &str, link: &str) -> Tar {
        self.entry(&Fields { link, ..Fields::of(EntryType::Link, name) })
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&END);
        self.0
    }
}

/// Unpacks layers, the lowest first, to a directory `root` in a place that must stay empty otherwise.
fn unpack_to(place: &std::path::Path, layers: &[Vec<u8>], options: UnpackOptions) -> Result<Unpacked> {
    let staging = Staging::beside(&place.join("root"))?;
    let budget = Budget::new();
    let mut unpacker = Unpacker::new(&staging.path(), options, &budget)?;
    for layer in layers.iter().rev() {
        unpacker.layer(&mut &layer[..])?;
    }
    for layer in unpacker.incomplete()? {
        unpacker.layer_again(layer, &mut &layers[layers.len() - 1 - layer][..])?;
    }
    let unpacked = unpacker.finish()?;
    staging.commit()?;
    Ok(unpacked)
}

fn options() -> UnpackOptions {
    UnpackOptions { threads: NonZeroUsize::new(2), ..UnpackOptions::default() }
}

/// Everything about a file that a layer has.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    kind: FileKind,
    mode: u32,
    modified: i64,
    content: Vec<u8>,
    /// All names of the file.
    names: Vec<String>,
}

fn on_disk(root: &std::path::Path) -> BTreeMap<String, Seen> {
    fn walk(root: &std::path::Path, at: &std::path::Path, found: &mut Vec<(String, fs::Metadata)>) {
        let metadata = fs::symlink_metadata(at).unwrap();
        let is_directory = metadata.is_dir();
        found.push((at.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), metadata));
        if is_directory {
            fs::read_dir(at).unwrap().for_each(|entry| walk(root, &entry.unwrap().path(), found));
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    let mut names: HashMap<u64, Vec<String>> = HashMap::new();
    found.iter().for_each(|(name, metadata)| names.entry(metadata.ino()).or_default().push(name.clone()));
    names.values_mut().for_each(|names| names.sort());
    let seen = found.iter().map(|(name, metadata)| {
        let path = root.join(name);
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => FileKind::Directory,
            kind if kind.is_symlink() => {
                let target = fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes();
                FileKind::Symlink { target: target.into() }
            }
            kind if kind.is_file() => FileKind::Regular { size: metadata.len() },
            _ => FileKind::Fifo,
        };
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let mode = if metadata.is_symlink() { 0 } else { metadata.mode() & 0o7777 };
        let names = names[&metadata.ino()].clone();
        (name.clone(), Seen { kind, mode, modified: metadata.mtime(), content, names })
    });
    seen.collect()
}

fn expected(layers: &[Vec<u8>]) -> Result<BTreeMap<String, Seen>> {
    let mut files = FileTree::new();
    let mut contents = HashMap::new();
    for (number, layer) in layers.iter().enumerate() {
        let tree = Tree::read_with(&mut Reader::new(&layer[..]), |entry, _, reader| {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes)?;
            contents.insert((number, entry), bytes);
            Ok(None)
        })?;
        files.apply(&tree)?;
    }
    let mut names: HashMap<*const File, Vec<String>> = HashMap::new();
    for (path, located) in files.iter() {
        names.entry(Arc::as_ptr(&located.file)).or_default().push(path.to_string());
    }
    let root =
        Seen { kind: FileKind::Directory, mode: 0o755, modified: 0, content: Vec::new(), names: vec![String::new()] };
    let mut seen = BTreeMap::from([(String::new(), root)]);
    seen.extend(files.iter().map(|(path, located)| {
        let file = &located.file;
        let content = file.entry.and_then(|entry| contents.get(&(located.layer, entry))).cloned().unwrap_or_default();
        let mode = if matches!(file.kind, FileKind::Symlink { .. }) { 0 } else { file.metadata.mode };
        let names = names[&Arc::as_ptr(file)].clone();
        let modified = file.metadata.modified.seconds;
        (path.to_string(), Seen { kind: file.kind.clone(), mode, modified, content, names })
    }));
    Ok(seen)
}

#[derive(Debug, Clone)]
enum Op {
    File(String),
    Directory(String),
    Symlink(String, String),
    Link(String, String),
    Hide(String),
    Empty(String),
}

fn name() -> impl Strategy<Value = String> {
    proptest::collection::vec("[abc]", 1..4).prop_map(|parts| parts.join("/"))
}

fn operation() -> impl Strategy<Value = Op> {
    (name(), name(), 0..13).prop_map(|(path, other, kind)| match kind {
        0..=3 => Op::File(path),
        4 | 5 => Op::Directory(path),
        6 => Op::Symlink(path, if other.len() > 2 { format!("/{other}") } else { format!("../{other}") }),
        7..=9 => Op::Link(path, other),
        10 => Op::Hide(path),
        11 => Op::Empty(path),
        _ => Op::Empty(".".to_owned()),
    })
}

fn tar_of(layer: usize, operations: &[Op]) -> Vec<u8> {
    let tar = operations.iter().enumerate().fold(Tar::default(), |tar, (number, operation)| {
        // Every file has other contents, and every directory other permissions and another time.
        let text = format!("{layer}.{number}");
        let mtime = (100 * layer + number) as u64;
        let mode = [0o755, 0o700, 0o711, 0o775][(layer + number) % 4];
        match operation {
            Op::File(name) => {
                let fields = Fields::of(EntryType::Regular, name);
                tar.entry(&Fields { bytes: text.as_bytes(), mode: mode & 0o666, mtime, ..fields })
            }
            Op::Directory(name) => tar.entry(&Fields { mode, mtime, ..Fields::of(EntryType::Directory, name) }),
            Op::Symlink(name, target) => {
                tar.entry(&Fields { link: target, mtime, ..Fields::of(EntryType::Symlink, name) })
            }
            Op::Link(name, target) => tar.link(name, target),
            Op::Hide(name) => {
                let (directory, last) = name.rsplit_once('/').unwrap_or((".", name));
                tar.file(&format!("{directory}/.wh.{last}"), b"")
            }
            Op::Empty(name) => tar.file(&format!("{name}/.wh..wh..opq"), b""),
        }
    });
    tar.bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The same files, or a failure in both.
    #[test]
    fn unpacks_what_the_merged_tree_has(
        layers in proptest::collection::vec(proptest::collection::vec(operation(), 0..10), 1..5)
    ) {
        let layers: Vec<_> = layers.iter().enumerate().map(|(number, layer)| tar_of(number, layer)).collect();
        let place = tempfile::tempdir().unwrap();
        let unpacked = unpack_to(place.path(), &layers, options());
        match expected(&layers) {
            Ok(expected) => {
                unpacked.unwrap();
                prop_assert_eq!(on_disk(&place.path().join("root")), expected);
                prop_assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
            }
            Err(_) => {
                prop_assert!(unpacked.is_err());
                prop_assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing is left");
            }
        }
    }
}

/// Returns the state of an unpacked image, after a round trip through the format of records.
fn recorded(root: &std::path::Path, unpacked: &Unpacked) -> Snapshot {
    let mut snapshot = OpenTree::open(root).unwrap().snapshot().unwrap();
    snapshot.set_digests(&unpacked.digests);
    let mut text = Vec::new();
    snapshot.write_mtree(&mut text).unwrap();
    Snapshot::parse_mtree(&text).unwrap()
}

/// Writes the layer that makes the changes of a tree.
fn layer_of(root: &std::path::Path, before: Snapshot) -> Option<Vec<u8>> {
    let mut tree = OpenTree::open(root).unwrap();
    let changes = tree.changes(before, &Owners::Keep).unwrap();
    let mut layer = crate::layer::Writer::new(&crate::Compression::None.into(), Vec::new()).unwrap();
    for entry in &changes.entries {
        match entry.kind {
            Kind::File(FileKind::Regular { .. }) => layer.append(entry, tree.file(&entry.path).unwrap()).unwrap(),
            _ => layer.append(entry, std::io::empty()).unwrap(),
        }
    }
    (!changes.entries.is_empty()).then(|| layer.finish().unwrap().0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The layer of the changes from one tree to another one, applied to the first, gives the second.
    #[test]
    fn changes_lead_from_one_tree_to_another(
        one in proptest::collection::vec(operation(), 0..12),
        two in proptest::collection::vec(operation(), 0..12),
    ) {
        let (one, two) = (tar_of(0, &one), tar_of(1, &two));
        let [place, other, both] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let digests = UnpackOptions { digests: true, ..options() };
        let Ok(unpacked) = unpack_to(place.path(), std::slice::from_ref(&one), digests) else { return Ok(()) };
        if unpack_to(other.path(), &[two], options()).is_err() {
            return Ok(());
        }
        let roots = [&place, &other, &both].map(|place| place.path().join("root"));
        let before = recorded(&roots[0], &unpacked);
        prop_assert_eq!(layer_of(&roots[0], before.clone()), None, "nothing has changed");
        let layers: Vec<_> = std::iter::once(one).chain(layer_of(&roots[1], before)).collect();
        unpack_to(both.path(), &layers, options()).unwrap();
        prop_assert_eq!(on_disk(&roots[2]), on_disk(&roots[1]));
    }
}

#[test]
fn state_of_an_image_is_that_of_its_unpacked_files() {
    let lower = Tar::default().file("a", b"x").link("b", "a").file("gone", b"").directory("d", 0o700);
    let upper = Tar::default().symlink("d/l", "x").file(".wh.gone", b"").directory(".", 0o711);
    let layers = [lower.bytes(), upper.bytes()];
    let place = tempfile::tempdir().unwrap();
    unpack_to(place.path(), &layers, options()).unwrap();
    let mut files = FileTree::new();
    for layer in &layers {
        let tree = Tree::read_with(&mut Reader::new(&layer[..]), |_, _, reader| {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes)?;
            Ok(Some(Digest::sha256_of(&bytes)))
        });
        files.apply(&tree.unwrap()).unwrap();
    }
    let before = Snapshot::of_image(&files);
    let root = place.path().join("root");
    let mut tree = OpenTree::open(&root).unwrap();
    let owners = if is_root() { Owners::Keep } else { Owners::Rootless };
    if is_root() {
        assert_eq!(tree.changes_since(&before, &owners).unwrap().entries, []);
        fs::write(root.join("b"), "y").unwrap();
        fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::remove_file(root.join("d/l")).unwrap();
        let changes = tree.changes_since(&before, &owners).unwrap();
        let names: Vec<_> = changes.entries.iter().map(|entry| entry.path.to_string()).collect();
        assert_eq!(names, ["a", "d", "d/.wh.l", "b"]);
        assert_eq!(changes.counts, [0, 3, 1]);
    }
}

#[test]
fn a_directory_that_lost_everything_is_opaque() {
    let tar = Tar::default().file("d/a", b"").file("d/b", b"").file("d/c/x", b"").file("e/a", b"").file("e/b", b"");
    let place = tempfile::tempdir().unwrap();
    unpack_to(place.path(), &[tar.bytes()], options()).unwrap();
    let root = place.path().join("root");
    let before = recorded(&root, &Unpacked::default());
    fs::remove_dir_all(root.join("d")).unwrap();
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/new"), "").unwrap();
    fs::remove_file(root.join("e/a")).unwrap();
    let mut tree = OpenTree::open(&root).unwrap();
    let names = tree.changes(before, &Owners::Keep).unwrap().entries;
    let names: Vec<_> = names.iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(names, ["", "d", "d/.wh..wh..opq", "d/new", "e", "e/.wh.a"]);
}

#[test]
fn owners_are_mapped_back() {
    if !is_root() {
        return;
    }
    let tar = Tar::default()
        .entry(&Fields { owner: (1000, 5), ..Fields::of(EntryType::Regular, "f") })
        .entry(&Fields { owner: (0, 0), ..Fields::of(EntryType::Regular, "r") })
        .entry(&Fields { device: (1, 3), ..Fields::of(EntryType::Char, "null") })
        .bytes();
    let map = || vec!["0:100000:65536".parse::<IdRange>().unwrap()];
    for owners in [Owners::Mapped { users: map(), groups: map() }, Owners::Rootless] {
        let place = tempfile::tempdir().unwrap();
        let options = UnpackOptions { owners: owners.clone(), ..options() };
        unpack_to(place.path(), std::slice::from_ref(&tar), options).unwrap();
        let root = place.path().join("root");
        let before = recorded(&root, &Unpacked::default());
        let mut tree = OpenTree::open(&root).unwrap();
        assert_eq!(tree.changes(before.clone(), &owners).unwrap().entries, []);
        fs::set_permissions(root.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
        let changes = tree.changes(before, &owners).unwrap();
        let found = &changes.entries[0].metadata;
        assert_eq!((found.uid, found.gid, found.mode, found.xattrs.len()), (1000, 5, 0o600, 0));
    }
}

fn unpacked(layers: &[Tar]) -> (tempfile::TempDir, std::path::PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let layers: Vec<_> = layers.iter().cloned().map(Tar::bytes).collect();
    unpack_to(place.path(), &layers, options()).unwrap();
    let root = place.path().join("root");
    (place, root)
}

fn refused(layers: &[Tar], options: UnpackOptions) -> Error {
    let place = tempfile::tempdir().unwrap();
    let layers: Vec<_> = layers.iter().cloned().map(Tar::bytes).collect();
    let error = unpack_to(place.path(), &layers, options).unwrap_err();
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing is left");
    error
}

#[test]
fn hard_link_keeps_a_file_that_an_upper_layer_replaces() {
    let lower = Tar::default().file("a", b"old").link("b", "a").link("c", "a").file("large", &[7; 300_000]);
    let upper = Tar::default().file("a", b"new").link("kept", "large").file(".wh.large", b"");
    let (_place, root) = unpacked(&[lower, upper]);
    assert_eq!(fs::read(root.join("a")).unwrap(), b"new");
    assert_eq!(fs::read(root.join("b")).unwrap(), b"old");
    assert_eq!(fs::metadata(root.join("b")).unwrap().ino(), fs::metadata(root.join("c")).unwrap().ino());
    assert_eq!(fs::read(root.join("kept")).unwrap(), [7; 300_000]);
    assert!(!root.join("large").exists());
}

#[test]
fn names_never_lead_out() {
    let (place, root) = unpacked(&[Tar::default()
        .file("../../../escaped", b"1")
        .file("/absolute", b"2")
        .symlink("up", "../../..")
        .file("up/under", b"3")
        .symlink("secrets", "/etc")
        .file("secrets/passwd", b"4")
        .link("linked", "../../../absolute")
        .symlink("chain", "up/up/up")
        .directory("chain/directory", 0o755)
        .symlink("file", "/etc/hostname")
        .file("file", b"5")]);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    // Symlinks in the path of an entry are followed inside of the layer: `up` is the root.
    for (name, content) in
        [("escaped", "1"), ("absolute", "2"), ("linked", "2"), ("under", "3"), ("etc/passwd", "4"), ("file", "5")]
    {
        assert_eq!(fs::read_to_string(root.join(name)).unwrap(), content, "{name}");
        assert!(!fs::symlink_metadata(root.join(name)).unwrap().is_symlink());
    }
    assert_eq!(fs::read_link(root.join("secrets")).unwrap().to_str(), Some("/etc"));
    assert!(root.join("directory").is_dir());
}

#[test]
fn upper_layer_cannot_write_through_a_symlink_of_a_lower_layer() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("outside")).unwrap();
    let lower = Tar::default().symlink("out", "../outside").symlink("to", "out/file").bytes();
    let upper = Tar::default().file("out/file", b"x").file("to", b"y").bytes();
    unpack_to(place.path(), &[lower, upper], options()).unwrap();
    assert_eq!(fs::read_dir(place.path().join("outside")).unwrap().count(), 0);
    assert_eq!(fs::read(place.path().join("root/out/file")).unwrap(), b"x");
    assert_eq!(fs::read(place.path().join("root/to")).unwrap(), b"y");
}

#[test]
fn invalid_layers_are_refused_and_leave_nothing() {
    let long = "x".repeat(300);
    for (layer, problem) in [
        (Tar::default().file("a", b"").link("b", "missing"), "hard link to a missing file"),
        (Tar::default().directory("d", 0o755).link("b", "d"), "a directory has one name only"),
        (Tar::default().link("b", "../../etc/passwd"), "hard link to a missing file"),
        (Tar::default().file(&long, b""), "File name too long"),
        (Tar::default().directory(&long, 0o755), "File name too long"),
        (Tar::default().file(".", b""), "the root is a directory"),
        (Tar::default().file(".wh..", b""), "without a valid name"),
        (Tar::default().symlink("l", "l").file("l/x", b""), "too many levels of symlinks"),
        (
            Tar::default().entry(&Fields { owner: (u32::MAX.into(), 0), ..Fields::of(EntryType::Regular, "x") }),
            "not a valid ID",
        ),
    ] {
        let error = refused(&[Tar::default().file("kept", b""), layer], options());
        assert!(error.to_string().contains(problem), "{error} is not: {problem}");
    }
    let truncated = Tar::default().file("large", &[1; 600_000]).bytes()[..500_000].to_vec();
    let place = tempfile::tempdir().unwrap();
    let error = unpack_to(place.path(), &[truncated], options()).unwrap_err();
    assert!(error.to_string().contains("truncated"), "{error}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn whiteout_of_the_root_hides_the_lower_layer_only() {
    let lower = Tar::default().file("a", b"").file("b/c", b"");
    let (_place, root) = unpacked(&[lower, Tar::default().file("./.wh..wh..opq", b"").file("new", b"")]);
    assert_eq!(fs::read_dir(root).unwrap().count(), 1);
}

#[test]
fn all_metadata_is_set() {
    let xattrs: Vec<(&str, &[u8])> = vec![("SCHILY.xattr.user.acme", b"a\0b"), ("mtime", b"-1.5")];
    let tar = Tar::default()
        .entry(&Fields { bytes: b"x", mode: 0o6751, pax: xattrs.clone(), ..Fields::of(EntryType::Regular, "file") })
        .entry(&Fields { mode: 0o444, pax: xattrs.clone(), ..Fields::of(EntryType::Regular, "readonly") })
        .entry(&Fields { mode: 0o3775, pax: xattrs, ..Fields::of(EntryType::Directory, "directory") })
        .entry(&Fields { mode: 0o666, mtime: 9, ..Fields::of(EntryType::Fifo, "fifo") })
        .symlink("link", "nowhere")
        .directory("locked", 0o000)
        .file("locked/file", b"x");
    let (_place, root) = unpacked(&[tar]);
    for (name, mode) in [("file", 0o6751), ("readonly", 0o444), ("directory", 0o3775)] {
        let metadata = fs::metadata(root.join(name)).unwrap();
        assert_eq!(metadata.mode() & 0o7777, mode, "{name}");
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (-2, 500_000_000), "{name}");
        let mut value = [0; 10];
        match rustix::fs::getxattr(root.join(name), "user.acme", &mut value) {
            Ok(length) => assert_eq!(&value[..length], b"a\0b"),
            Err(error) => assert_eq!(error, rustix::io::Errno::NOTSUP),
        }
    }
    let link = fs::symlink_metadata(root.join("link")).unwrap();
    assert_eq!(link.mtime(), 7);
    let fifo = fs::symlink_metadata(root.join("fifo")).unwrap();
    assert_eq!((fifo.mode(), fifo.mtime()), (0o010_666, 9));
    assert_eq!(fs::metadata(root.join("locked")).unwrap().mode() & 0o7777, 0);
    fs::set_permissions(root.join("locked"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(fs::read(root.join("locked/file")).unwrap(), b"x");
}

#[test]
fn owners_devices_and_capabilities_need_root() {
    if !is_root() {
        return;
    }
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // Version 2; the owner and a named user may read.
    let list: &[u8] = &[
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4,
        0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
    ];
    let pax = vec![("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.system.posix_acl_access", list)];
    let device = Fields { device: (1, 3), mode: 0o666, owner: (0, 5), ..Fields::of(EntryType::Char, "null") };
    let tar = Tar::default()
        .entry(&Fields { owner: (1000, 1001), mode: 0o4644, pax, ..Fields::of(EntryType::Regular, "file") })
        .entry(&Fields { owner: (7, 8), mode: 0o755, ..Fields::of(EntryType::Directory, "directory") })
        .entry(&Fields { owner: (9, 10), link: "x", ..Fields::of(EntryType::Symlink, "link") })
        .entry(&device);
    let (_place, root) = unpacked(std::slice::from_ref(&tar));
    let owner = |name: &str| {
        let metadata = fs::symlink_metadata(root.join(name)).unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!(["file", "directory", "link", "null"].map(owner), [(1000, 1001), (7, 8), (9, 10), (0, 5)]);
    assert_eq!(fs::metadata(root.join("file")).unwrap().mode() & 0o7777, 0o4644);
    assert_eq!(fs::metadata(root.join("null")).unwrap().rdev(), rustix::fs::makedev(1, 3));
    let mut value = [0; 100];
    let length = rustix::fs::getxattr(root.join("file"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..length], capability);
    let length = rustix::fs::getxattr(root.join("file"), "system.posix_acl_access", &mut value).unwrap();
    assert_eq!(&value[..length], list);

    // The same with maps, and without the rights of root.
    let map = |map: &str| vec![map.parse::<IdRange>().unwrap()];
    let owners = Owners::Mapped { users: map("0:100000:65536"), groups: map("0:200000:65536") };
    let place = tempfile::tempdir().unwrap();
    unpack_to(place.path(), &[tar.clone().bytes()], UnpackOptions { owners, ..options() }).unwrap();
    let metadata = fs::metadata(place.path().join("root/file")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (101_000, 201_001, 0o4644));
    let owners = Owners::Mapped { users: map("0:0:10"), groups: map("0:0:65536") };
    let error = refused(std::slice::from_ref(&tar), UnpackOptions { owners, ..options() });
    assert!(error.to_string().contains("no range of the user map"), "{error}");
    let place = tempfile::tempdir().unwrap();
    unpack_to(place.path(), &[tar.clone().bytes()], UnpackOptions { owners: Owners::Current, ..options() }).unwrap();
    let file = place.path().join("root/file");
    assert_eq!(fs::metadata(&file).unwrap().uid(), me().0);
    rustix::fs::getxattr(&file, ROOTLESS_XATTR, &mut value).unwrap_err();
    let place = tempfile::tempdir().unwrap();
    unpack_to(place.path(), &[tar.bytes()], UnpackOptions { owners: Owners::Rootless, ..options() }).unwrap();
    let file = place.path().join("root/file");
    let null = fs::symlink_metadata(place.path().join("root/null")).unwrap();
    assert!(null.is_file() && null.len() == 0, "a device is an empty file");
    assert_eq!(fs::metadata(&file).unwrap().uid(), me().0);
    let length = rustix::fs::getxattr(&file, ROOTLESS_XATTR, &mut value).unwrap();
    assert_eq!(parse_rootless_record(&value[..length]), Some((1000, 1001)));
}

#[test]
fn sparse_files_stay_sparse() {
    let size = 64 << 20;
    let map = [SparseEntry { offset: 4096, length: 5 }, SparseEntry { offset: size / 2, length: 4 }];
    let mut builder = EntryBuilder::new_gnu();
    builder.path("sparse").mode(0o644).unwrap();
    builder.uid(me().0.into()).unwrap().gid(me().1.into()).unwrap();
    builder.sparse(&map, size).size(9).unwrap();
    let mut tar = Tar::default();
    tar.0.extend_from_slice(&builder.finish_bytes());
    tar.0.extend_from_slice(b"firstlast");
    tar.0.resize(tar.0.len().next_multiple_of(512), 0);
    let (_place, root) = unpacked(std::slice::from_ref(&tar));
    let file = fs::File::open(root.join("sparse")).unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.len(), size);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    let mut bytes = [1; 7];
    file.read_exact_at(&mut bytes, 4095).unwrap();
    assert_eq!(&bytes, b"\0first\0");
    file.read_exact_at(&mut bytes, size / 2 - 1).unwrap();
    assert_eq!(&bytes, b"\0last\0\0");
    // Zeros that are stored in the layer become holes on request.
    let mut content = vec![0; 3 << 20];
    content[5000] = 1;
    content[2 << 20] = 2;
    let place = tempfile::tempdir().unwrap();
    let layer = Tar::default().file("zeros", &content).bytes();
    unpack_to(place.path(), &[layer], UnpackOptions { holes: true, ..options() }).unwrap();
    assert_eq!(fs::read(place.path().join("root/zeros")).unwrap(), content);
    assert!(fs::metadata(place.path().join("root/zeros")).unwrap().blocks() * 512 < 100_000);
}

#[test]
fn a_sparse_bomb_takes_no_space() {
    let bomb = |size: u64| {
        let mut builder = EntryBuilder::new_gnu();
        builder.path("bomb").mode(0o644).unwrap();
        builder.uid(me().0.into()).unwrap().gid(me().1.into()).unwrap();
        builder.sparse(&[SparseEntry { offset: 0, length: 0 }], size).size(0).unwrap();
        let mut tar = Tar::default();
        tar.0.extend_from_slice(&builder.finish_bytes());
        tar
    };
    let (_place, root) = unpacked(&[bomb(1 << 40)]);
    assert_eq!(fs::metadata(root.join("bomb")).unwrap().len(), 1 << 40);
    let error = refused(&[bomb(1 << 50)], options());
    assert!(error.to_string().contains("a sparse file claims"), "{error}");
    let error = refused(&[bomb(1 << 40)], UnpackOptions { digests: true, ..options() });
    assert!(matches!(error.limit(), Some(Limit::InflatedBytes(_))), "hashing a hole takes time: {error}");
}

#[test]
fn digests_are_those_of_the_contents() {
    let large = vec![3; 700_000];
    let lower = Tar::default().file("a", b"abc").link("b", "a").file("large", &large).file("gone", b"x");
    let upper = Tar::default().file(".wh.gone", b"").file("a", b"new");
    let place = tempfile::tempdir().unwrap();
    let layers = [lower.bytes(), upper.bytes()];
    let found = unpack_to(place.path(), &layers, UnpackOptions { digests: true, ..options() }).unwrap().digests;
    let expected = [("a", &b"new"[..]), ("b", b"abc"), ("large", &large)];
    let expected = expected.map(|(name, bytes)| (Path::confined(name.as_bytes()), Digest::sha256_of(bytes)));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn the_budget_bounds_the_number_of_files() {
    let name = format!("{}/", "d".repeat(240)).repeat(16);
    let tar = (0..40_000).fold(Tar::default(), |tar, number| tar.file(&format!("{name}{number}"), b""));
    let error = refused(&[tar], options());
    assert_eq!(error.limit(), Some(Limit::TreeBytes), "{error}");
}

#[test]
fn a_failed_write_is_reported_with_its_path() {
    let place = tempfile::tempdir().unwrap();
    let staging = Staging::beside(&place.path().join("root")).unwrap();
    let mut unpacker = Unpacker::new(&staging.path(), options(), &Budget::new()).unwrap();
    // Another program, or a name that the file system does not tell apart, is in the way.
    fs::create_dir(staging.path().join("etc")).unwrap();
    fs::write(staging.path().join("etc/motd"), "kept").unwrap();
    let layer = Tar::default().file("etc/motd", b"x").bytes();
    let error = unpacker.layer(&mut &layer[..]).unwrap_err();
    assert_eq!(error.to_string(), "cannot create `etc/motd`: File exists (os error 17)");
    assert_eq!(fs::read(staging.path().join("etc/motd")).unwrap(), b"kept");
}

#[test]
fn directories_that_become_symlinks_during_the_operation_are_refused() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("outside")).unwrap();
    let staging = Staging::beside(&place.path().join("root")).unwrap();
    let mut unpacker = Unpacker::new(&staging.path(), options(), &Budget::new()).unwrap();
    unpacker.layer(&mut &Tar::default().file("a/b/upper", b"x").bytes()[..]).unwrap();
    fs::rename(staging.path().join("a"), staging.path().join("moved")).unwrap();
    std::os::unix::fs::symlink("../outside", staging.path().join("a")).unwrap();
    let many = (0..400).fold(Tar::default(), |tar, number| tar.directory(&format!("other{number}"), 0o755));
    let lower = many.file("a/b/lower", b"x").file("a/c/lower", b"x").bytes();
    let refused = unpacker.layer(&mut &lower[..]).unwrap_err();
    assert!(refused.to_string().starts_with("cannot open directory `a/b`"), "{refused}");
    assert_eq!(fs::read_dir(place.path().join("outside")).unwrap().count(), 0);
}

/// `Metadata` of a directory is set although its files belong to other users.
#[test]
fn undescribed_directories_have_fixed_metadata() {
    let (_place, root) = unpacked(&[Tar::default().file("a/b/c", b"")]);
    let expected = Metadata { mode: 0o755, ..Metadata::default() };
    for name in ["", "a", "a/b"] {
        let found = fs::metadata(root.join(name)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.mtime()), (expected.mode, expected.modified.seconds), "{name}");
    }
}

/// Both once took time in the square of the number of entries.
#[test]
fn replaced_files_and_alternating_deep_directories_are_unpacked() {
    let deep = |top: usize| format!("{top}{}", "/d".repeat(300));
    let mut tar = Tar::default();
    for round in ["first", "second"] {
        for number in 0..1_000 {
            tar = tar.file(&format!("f{number}"), round.as_bytes());
        }
        for number in 0..20 {
            tar = tar.file(&format!("{}/f{}", deep(number % 2), number / 2), round.as_bytes());
        }
    }
    let tar = tar.link("link", "f7").file("f7", b"third");
    let (_place, root) = unpacked(&[tar]);
    for (name, expected) in
        [("f0", "second"), ("f7", "third"), ("link", "second"), (&format!("{}/f9", deep(1)), "second")]
    {
        assert_eq!(fs::read_to_string(root.join(name)).unwrap(), expected, "{name}");
    }
}
