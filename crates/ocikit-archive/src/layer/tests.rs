//! Layers are written as tars and read back, and trees are compared with a simple model.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use proptest::prelude::*;
use tar_core::builder::EntryBuilder;
use tar_core::{EntryType, SparseEntry};

use super::*;
use crate::{END, Error, Result};

/// A builder for a tar.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: EntryType, name: &[u8], link: &str, bytes: &[u8]) -> Tar {
        let mut builder = EntryBuilder::new_ustar();
        builder.path(name).entry_type(kind);
        builder.mode(0o100_640).unwrap().size(bytes.len() as u64).unwrap().mtime(7).unwrap();
        if !link.is_empty() {
            builder.link_name(link);
        }
        self.add(&builder.finish_bytes(), bytes);
        self
    }

    fn pax(mut self, records: &[(&str, &[u8])], name: &str, bytes: &[u8]) -> Tar {
        let mut builder = EntryBuilder::new_ustar();
        builder.path(name).entry_type(EntryType::Regular);
        builder.mode(0o644).unwrap().size(bytes.len() as u64).unwrap();
        for (key, value) in records {
            builder.add_pax(key, value);
        }
        self.add(&builder.finish_bytes(), bytes);
        self
    }

    fn file(self, name: &str, bytes: &str) -> Tar {
        self.entry(EntryType::Regular, name.as_bytes(), "", bytes.as_bytes())
    }

    fn directory(self, name: &str) -> Tar {
        self.entry(EntryType::Directory, name.as_bytes(), "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Tar {
        self.entry(EntryType::Symlink, name.as_bytes(), target, b"")
    }

    fn link(self, name: &str, target: &str) -> Tar {
        self.entry(EntryType::Link, name.as_bytes(), target, b"")
    }

    fn add(&mut self, header: &[u8], bytes: &[u8]) {
        self.0.extend_from_slice(header);
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn bytes(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&END);
        self.0
    }

    fn entries(self) -> Result<Vec<(Entry, Vec<u8>)>> {
        let tar = self.bytes();
        let mut reader = Reader::new(&tar[..]);
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes)?;
            found.push((entry, bytes));
        }
        Ok(found)
    }

    fn tree(self) -> Result<Tree> {
        Tree::read(&mut Reader::new(&self.bytes()[..]))
    }
}

fn path(text: &str) -> Path {
    Path::confined(text.as_bytes())
}

/// Returns every path with its type: a directory ends with a slash, a link shows its target.
fn shown(files: &FileTree) -> Vec<String> {
    let show = |(path, located): (&Path, &Located)| match &located.file.kind {
        FileKind::Directory => format!("{path}/"),
        FileKind::Symlink { target } => format!("{path} -> {}", String::from_utf8_lossy(target)),
        _ => format!("{path} {}", located.layer),
    };
    files.iter().filter(|(path, _)| !path.is_root()).map(show).collect()
}

fn merged(layers: Vec<Tar>) -> Result<FileTree> {
    let mut files = FileTree::new();
    for layer in layers {
        files.apply(&layer.tree()?)?;
    }
    Ok(files)
}

#[test]
fn reads_all_metadata_of_an_entry() {
    let records: [(&str, &[u8]); 4] = [
        ("mtime", b"-1.5"),
        ("SCHILY.xattr.user.acme", b"two\nlines\n"),
        ("uid", b"4294967296"),
        ("path", "n\u{e4}me".as_bytes()),
    ];
    let tar = Tar::default().pax(&records, "x", b"abc").entry(EntryType::Regular, b"/\xff", "", b"");
    let entries = tar.entries().unwrap();
    let (entry, bytes) = &entries[0];
    assert_eq!((entry.path.to_string(), &bytes[..]), ("n\u{e4}me".to_owned(), &b"abc"[..]));
    assert_eq!(entry.kind, Kind::File(FileKind::Regular { size: 3 }));
    assert_eq!(entry.metadata.modified, Time { seconds: -2, nanoseconds: 500_000_000 });
    assert_eq!(&*entry.metadata.xattrs["user.acme"], b"two\nlines\n");
    assert_eq!((entry.metadata.uid, entry.metadata.mode), (1 << 32, 0o644));
    assert_eq!((entries[1].0.path.as_bytes(), entries[1].0.metadata.mode), (&b"\xff"[..], 0o640));
    assert_eq!(entries[1].0.metadata.modified, Time { seconds: 7, nanoseconds: 0 });
}

#[test]
fn kinds_are_told_apart() {
    let tar = Tar::default()
        .directory("d")
        .symlink("s", "/etc/../x")
        .link("h", "./d/../f")
        .entry(EntryType::Fifo, b"p", "", b"")
        .entry(EntryType::Regular, b"v7/", "", b"")
        .file(".wh.gone", "")
        .file(".wh..wh.plnk/1", "x")
        .file(".wh..wh..opq", "");
    let kinds: Vec<_> = tar.entries().unwrap().into_iter().map(|(entry, _)| entry.kind).collect();
    assert_eq!(
        kinds,
        [
            Kind::File(FileKind::Directory),
            Kind::File(FileKind::Symlink { target: b"/etc/../x"[..].into() }),
            Kind::HardLink { target: path("f") },
            Kind::File(FileKind::Fifo),
            Kind::File(FileKind::Directory),
            Kind::Whiteout(Whiteout::Path(path("gone"))),
            Kind::Whiteout(Whiteout::Contents(Path::root())),
        ]
    );
}

/// Both formats of GNU tar and the three of PAX: the same file each time, with two bytes and a hole of three after
/// each.
#[test]
fn sparse_files_are_expanded() {
    let map = [(0_u64, 2_u64), (5, 2), (10, 0)];
    let whole = b"ab\0\0\0cd\0\0\0";
    let mut old = EntryBuilder::new_gnu();
    old.path("f").entry_type(EntryType::GnuSparse).mode(0o644).unwrap().size(4).unwrap();
    old.sparse(&map.map(|(offset, length)| SparseEntry { offset, length }), 10);
    let mut gnu = Tar::default();
    gnu.add(&old.finish_bytes(), b"abcd");

    let mut zero_zero: Vec<(&str, &[u8])> = vec![("GNU.sparse.size", b"10"), ("GNU.sparse.numblocks", b"3")];
    for (offset, length) in [("0", "2"), ("5", "2"), ("10", "0")] {
        zero_zero.push(("GNU.sparse.offset", offset.as_bytes()));
        zero_zero.push(("GNU.sparse.numbytes", length.as_bytes()));
    }
    let zero_one: [(&str, &[u8]); 4] = [
        ("GNU.sparse.size", b"10"),
        ("GNU.sparse.numblocks", b"3"),
        ("GNU.sparse.name", b"f"),
        ("GNU.sparse.map", b"0,2,5,2,10,0"),
    ];
    let one_zero: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"f"),
        ("GNU.sparse.realsize", b"10"),
    ];
    let mut inside = b"3\n0\n2\n5\n2\n10\n0\n".to_vec();
    inside.resize(512, 0);
    inside.extend_from_slice(b"abcd");
    for (name, tar) in [
        ("old", gnu),
        ("0.0", Tar::default().pax(&zero_zero, "f", b"abcd")),
        ("0.1", Tar::default().pax(&zero_one, "GNUSparseFile.1/f", b"abcd")),
        ("1.0", Tar::default().pax(&one_zero, "GNUSparseFile.1/f", &inside)),
    ] {
        let entries = tar.file("g", "next").entries().unwrap();
        assert_eq!(entries[0].0.path.to_string(), "f", "{name}");
        assert_eq!(entries[0].0.kind, Kind::File(FileKind::Regular { size: 10 }), "{name}");
        assert_eq!(entries[0].1, whole, "{name}");
        assert_eq!(entries[1].1, b"next", "{name}");
    }
}

#[test]
fn rejects_ambiguous_entries() {
    let map = b"x,2".as_slice();
    let bad: [(&str, Tar); 9] = [
        ("a whiteout without a name", Tar::default().file("a/.wh.", "")),
        ("a whiteout of the directory above", Tar::default().file("a/.wh...", "")),
        ("an unknown type", Tar::default().entry(EntryType::Other(b'V'), b"a", "", b"")),
        ("a link to nowhere", Tar::default().entry(EntryType::Symlink, b"a", "", b"")),
        ("a sparse file without a map", Tar::default().pax(&[("GNU.sparse.size", b"10")], "f", b"ab")),
        ("a map of something else", Tar::default().pax(&[("GNU.sparse.map", map)], "f", b"ab")),
        ("a size that is none", Tar::default().pax(&[("size", b"x")], "f", b"ab")),
        ("an owner that is none", Tar::default().pax(&[("uid", b"-1")], "f", b"ab")),
        ("a time that is none", Tar::default().pax(&[("mtime", b"now")], "f", b"ab")),
    ];
    for (what, tar) in bad {
        let outcome = tar.entries();
        assert!(matches!(outcome, Err(Error::Invalid { .. })), "{what}: {outcome:?}");
    }
}

#[test]
fn a_layer_that_ends_early_is_truncated_wherever_it_ends() {
    let tar = Tar::default().file("a", "abc").pax(&[("mtime", b"1.5")], "b", &[7; 600]).bytes();
    for length in (1..tar.len() - END.len()).step_by(61) {
        let mut reader = Reader::new(&tar[..length]);
        let outcome = Tree::read_with(&mut reader, |_, _, reader| {
            std::io::copy(reader, &mut std::io::sink())?;
            Ok(None)
        });
        // After the one file, or after the three headers and the contents of the other; padding may be missing.
        let whole = (515..=1024).contains(&length) || length >= 1024 + 3 * 512 + 600;
        assert_eq!(outcome.is_ok(), whole, "{length}");
    }
}

#[test]
fn links_within_a_layer_are_followed() {
    let tar = Tar::default()
        .symlink("lib", "usr/lib")
        .file("lib/x", "1")
        .symlink("usr/lib/up", "../../..")
        .file("lib/up/y", "2")
        .symlink("away", "/gone/away")
        .file("away/z", "3");
    assert_eq!(
        shown(&merged(vec![tar]).unwrap()),
        [
            "away -> /gone/away",
            "gone/",
            "gone/away/",
            "gone/away/z 0",
            "lib -> usr/lib",
            "usr/",
            "usr/lib/",
            "usr/lib/up -> ../../..",
            "usr/lib/x 0",
            "y 0"
        ]
    );
    let circle = Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", "");
    assert!(matches!(circle.tree(), Err(Error::Layer { .. })));
}

#[test]
fn directory_without_entry_replaces_symlink_of_lower_layer() {
    let lower = || Tar::default().symlink("lib", "usr/lib").file("usr/lib/x", "");
    let files = merged(vec![lower(), Tar::default().file("lib/y", "")]).unwrap();
    assert_eq!(shown(&files), ["lib/", "lib/y 1", "usr/", "usr/lib/", "usr/lib/x 0"]);
}

#[test]
fn directories_and_files_replace_each_other() {
    let lower = || Tar::default().directory("d").file("d/x", "").file("f", "");
    for (upper, expected) in [
        (Tar::default().file("d", ""), &["d 1", "f 0"][..]),
        (Tar::default().symlink("d", "f"), &["d -> f", "f 0"]),
        (Tar::default().directory("d"), &["d/", "d/x 0", "f 0"]),
        (Tar::default().directory("f"), &["d/", "d/x 0", "f/"]),
        (Tar::default().file("f/x", ""), &["d/", "d/x 0", "f/", "f/x 1"]),
        (Tar::default().file("d/y", "").file("d", ""), &["d 1", "f 0"]),
        // Only the state after the last entry of a layer counts.
        (Tar::default().file("d", "").file("d/y", ""), &["d/", "d/x 0", "d/y 1", "f 0"]),
    ] {
        assert_eq!(shown(&merged(vec![lower(), upper]).unwrap()), expected);
    }
}

#[test]
fn directory_without_entry_changes_no_lower_directory() {
    let lower = Tar::default().directory("d");
    let files = merged(vec![lower, Tar::default().file("d/x", "")]).unwrap();
    assert_eq!((files.get(&path("d")).unwrap().layer, files.get(&path("d")).unwrap().file.metadata.mode), (0, 0o640));
    let files = merged(vec![Tar::default().file("d/x", "")]).unwrap();
    assert_eq!((files.get(&path("d")).unwrap().file.metadata.mode, files.len()), (0o755, 3));
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    let lower = || Tar::default().file("d/a", "").file("d/e/b", "").file("f", "");
    for (upper, expected) in [
        (Tar::default().file(".wh.f", ""), &["d/", "d/a 0", "d/e/", "d/e/b 0"][..]),
        (Tar::default().file("f", "").file(".wh.f", ""), &["d/", "d/a 0", "d/e/", "d/e/b 0", "f 1"]),
        (Tar::default().file(".wh.f", "").file("f", ""), &["d/", "d/a 0", "d/e/", "d/e/b 0", "f 1"]),
        (Tar::default().file(".wh.d", ""), &["f 0"]),
        (Tar::default().file("d/.wh.e", ""), &["d/", "d/a 0", "f 0"]),
        (Tar::default().file("d/c", "").file("d/.wh..wh..opq", ""), &["d/", "d/c 1", "f 0"]),
        (Tar::default().file("d/.wh..wh..opq", "").file("d/c", ""), &["d/", "d/c 1", "f 0"]),
        (Tar::default().file(".wh..wh..opq", "").file("g", ""), &["g 1"]),
        (Tar::default().file(".wh.nothing", ""), &["d/", "d/a 0", "d/e/", "d/e/b 0", "f 0"]),
    ] {
        assert_eq!(shown(&merged(vec![lower(), upper]).unwrap()), expected);
    }
}

#[test]
fn hard_links_are_names_of_one_file() {
    let one = Tar::default().file("a", "x").link("b", "a").link("d/c", "./b");
    let two = Tar::default().link("e", "/b").file("a", "y").link("f", "a");
    let files = merged(vec![one, two]).unwrap();
    assert_eq!(shown(&files), ["a 1", "b 0", "d/", "d/c 0", "e 0", "f 1"]);
    let entry = |name: &str| files.get(&path(name)).unwrap().file.entry;
    assert_eq!(["a", "b", "d/c", "e", "f"].map(entry), [Some(1), Some(0), Some(0), Some(0), Some(1)]);

    for bad in [
        Tar::default().link("a", "missing"),
        Tar::default().link("a", "a"),
        Tar::default().directory("d").link("a", "d"),
    ] {
        assert!(matches!(merged(vec![bad]), Err(Error::Layer { .. })));
    }
}

#[test]
fn directories_without_entries_are_bounded() {
    let deep = "x/".repeat(2000);
    let tar = (0..100)
        .fold(Tar::default(), |tar, number| tar.pax(&[("path", format!("{number}/{deep}f").as_bytes())], "f", b""));
    assert!(matches!(tar.tree(), Err(Error::Layer { .. })));
}

// The model: a layer is nested maps, and applying one is a recursion of a few lines.

#[derive(Debug, Clone)]
enum Op {
    File(Vec<u8>),
    Directory(Vec<u8>),
    Hide(Vec<u8>),
    Empty(Vec<u8>),
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Model(BTreeMap<u8, ModelNode>);

#[derive(Debug, Clone, PartialEq)]
enum ModelNode {
    File(usize),
    Directory(Model),
}

impl Model {
    fn directory(&mut self, path: &[u8]) -> &mut Model {
        let Some((first, rest)) = path.split_first() else { return self };
        let node = self.0.entry(*first).or_insert(ModelNode::File(0));
        if let ModelNode::File(_) = node {
            *node = ModelNode::Directory(Model::default());
        }
        match node {
            ModelNode::Directory(model) => model.directory(rest),
            ModelNode::File(_) => unreachable!(),
        }
    }

    /// Returns an existing node, without creating its parents.
    fn existing(&mut self, path: &[u8]) -> Option<&mut Model> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        match self.0.get_mut(first)? {
            ModelNode::Directory(model) => model.existing(rest),
            ModelNode::File(_) => None,
        }
    }

    fn of(layer: usize, operations: &[Op]) -> Model {
        let mut model = Model::default();
        for operation in operations {
            match operation {
                Op::File(path) => {
                    let (last, parent) = path.split_last().unwrap();
                    model.directory(parent).0.insert(*last, ModelNode::File(layer));
                }
                Op::Directory(path) | Op::Empty(path) => drop(model.directory(path)),
                Op::Hide(path) => drop(model.directory(&path[..path.len() - 1])),
            }
        }
        model
    }

    fn hide(&mut self, operations: &[Op]) {
        for operation in operations {
            match operation {
                Op::Hide(path) => {
                    let (last, parent) = path.split_last().unwrap();
                    self.existing(parent).map(|model| model.0.remove(last));
                }
                Op::Empty(path) => drop(self.existing(path).map(|model| model.0.clear())),
                _ => {}
            }
        }
    }

    fn over(&self, lower: &Model) -> Model {
        let mut result = lower.clone();
        for (name, node) in &self.0 {
            let node = match (node, result.0.get(name)) {
                (ModelNode::Directory(upper), Some(ModelNode::Directory(lower))) => {
                    ModelNode::Directory(upper.over(lower))
                }
                (upper, _) => upper.clone(),
            };
            result.0.insert(*name, node);
        }
        result
    }

    fn shown(&self, prefix: &str, out: &mut BTreeSet<String>) {
        for (name, node) in &self.0 {
            let path = format!("{prefix}{}", char::from(*name));
            match node {
                ModelNode::File(layer) => drop(out.insert(format!("{path} {layer}"))),
                ModelNode::Directory(model) => {
                    out.insert(format!("{path}/"));
                    model.shown(&format!("{path}/"), out);
                }
            }
        }
    }
}

fn name_of(path: &[u8], last: &str) -> String {
    let mut parts: Vec<_> = path.iter().map(|part| char::from(*part).to_string()).collect();
    if let Some(name) = last.strip_prefix('*') {
        parts.push(name.to_owned());
    } else if let Some(end) = parts.last_mut() {
        *end = format!("{last}{end}");
    }
    parts.join("/")
}

fn tar_of(operations: &[Op]) -> Tar {
    operations.iter().fold(Tar::default(), |tar, operation| match operation {
        Op::File(path) => tar.file(&name_of(path, ""), "x"),
        Op::Directory(path) => tar.directory(&name_of(path, "")),
        Op::Hide(path) => tar.file(&name_of(path, ".wh."), ""),
        Op::Empty(path) => tar.file(&name_of(path, "*.wh..wh..opq"), ""),
    })
}

fn operation() -> impl Strategy<Value = Op> {
    let path = proptest::collection::vec(b'a'..=b'c', 1..4);
    (path, 0..6).prop_map(|(path, kind)| match kind {
        0..=2 => Op::File(path),
        3 => Op::Directory(path),
        4 => Op::Hide(path),
        _ => Op::Empty(path),
    })
}

fn layers() -> impl Strategy<Value = Vec<Vec<Op>>> {
    proptest::collection::vec(proptest::collection::vec(operation(), 0..8), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn trees_agree_with_the_model(layers in layers()) {
        let files = merged(layers.iter().map(|layer| tar_of(layer)).collect()).unwrap();
        let mut model = Model::default();
        for (number, layer) in layers.iter().enumerate() {
            model.hide(layer);
            model = Model::of(number, layer).over(&model);
        }
        let mut expected = BTreeSet::new();
        model.shown("", &mut expected);
        prop_assert_eq!(shown(&files).into_iter().collect::<BTreeSet<_>>(), expected);
    }

    #[test]
    fn whiteouts_apply_at_any_position(
        layers in layers(),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 8),
    ) {
        let hides = |operation: &&Op| matches!(operation, Op::Hide(_) | Op::Empty(_));
        let first = merged(layers.iter().map(|layer| tar_of(layer)).collect()).unwrap();
        let mixed = layers.iter().map(|layer| {
            // Only if the layer replaces nothing of its own: what is removed for the directory of a whiteout depends on
            // the order.
            let mut mixed: Vec<Op> = layer.iter().filter(|operation| !hides(operation)).cloned().collect();
            for (operation, at) in layer.iter().filter(hides).zip(&order) {
                mixed.insert(at.index(mixed.len() + 1), operation.clone());
            }
            tar_of(&mixed)
        });
        let replaces = |layer: &Vec<Op>| {
            let paths = |layer: &[Op], files: bool| -> Vec<Vec<u8>> {
                layer.iter().filter_map(|operation| match operation {
                    Op::File(path) => files.then(|| path.clone()),
                    Op::Directory(path) | Op::Hide(path) | Op::Empty(path) => (!files).then(|| path.clone()),
                }).collect()
            };
            let all: Vec<_> = [paths(layer, true), paths(layer, false)].concat();
            paths(layer, true).iter().any(|file| all.iter().any(|other| other != file && other.starts_with(file)))
                || layer.iter().any(|operation| matches!(operation,
                    Op::Empty(path) | Op::Directory(path) if paths(layer, true).contains(path)))
        };
        if !layers.iter().any(replaces) {
            prop_assert_eq!(shown(&merged(mixed.collect()).unwrap()), shown(&first));
        }
    }

    #[test]
    fn lookup_agrees_with_merged_tree(layers in layers(), wanted in proptest::collection::vec(b'a'..=b'c', 1..4)) {
        let trees: Vec<_> = layers.iter().map(|layer| tar_of(layer).tree().unwrap()).collect();
        let mut files = FileTree::new();
        trees.iter().for_each(|tree| files.apply(tree).unwrap());
        let name = name_of(&wanted, "");
        let mut lookup = Lookup::new(trees.len(), name.as_bytes());
        let found = loop {
            match lookup.step() {
                Ok(Step::Need(layer)) => lookup.give(trees[layer].clone()),
                Ok(Step::Found(_, located)) => break Some(located),
                Ok(Step::Missing) | Err(_) => break None,
            }
        };
        match (found, files.get(&path(&name))) {
            (Some(found), Some(expected)) if found.file.is_directory() => prop_assert!(expected.file.is_directory()),
            (found, expected) => prop_assert_eq!(found.as_ref(), expected),
        }
    }

    #[test]
    fn random_bytes_do_not_panic(at in 0..3000_usize, byte: u8, length in 0..3000_usize) {
        let mut tar = Tar::default().directory("d").symlink("d/s", "../x").link("h", "d/s")
            .pax(&[("SCHILY.xattr.a", b"b"), ("mtime", b"1.5")], "f", b"abc").bytes();
        let at = at % tar.len();
        tar[at] = byte;
        tar.truncate(tar.len().saturating_sub(length));
        drop(Tree::read(&mut Reader::new(&tar[..])).map(|tree| FileTree::new().apply(&tree)));
    }
}

#[test]
fn lookup_reads_only_the_layers_it_needs() {
    let trees: Vec<_> = [
        Tar::default().file("etc/passwd", "").file("usr/bin/sh", "").file("etc/hosts", ""),
        Tar::default().symlink("bin", "usr/bin").link("copy", "etc/hosts"),
        Tar::default().file("etc/group", "").file("etc/.wh.hosts", ""),
    ]
    .into_iter()
    .map(|tar| tar.tree().unwrap())
    .collect();
    for (name, found, lowest) in [
        ("/etc/group", Some("etc/group"), 2),
        ("bin/sh", Some("usr/bin/sh"), 0),
        ("bin/../bin/sh", Some("usr/bin/sh"), 0),
        ("etc/hosts", None, 2),
        ("copy", Some("copy"), 0),
        ("nothing", None, 0),
    ] {
        let mut lookup = Lookup::new(trees.len(), name.as_bytes());
        let mut reached = trees.len();
        let step = loop {
            match lookup.step().unwrap() {
                Step::Need(layer) => {
                    reached = layer;
                    lookup.give(trees[layer].clone());
                }
                step => break step,
            }
        };
        let path = match step {
            Step::Found(path, _) => Some(path.to_string()),
            _ => None,
        };
        assert_eq!((path.as_deref(), reached), (found, lowest), "{name}");
    }
}
