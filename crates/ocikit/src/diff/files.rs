use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ocikit_image::files::{File, FileKind, FileTree, Path};

use super::report::{Area, Class, Difference, Report};

/// Reports every file that differs in the file systems of the two images.
pub(crate) fn compare(report: &mut Report, left: &FileTree, right: &FileTree) {
    let (mut lefts, mut rights) = (left.iter().peekable(), right.iter().peekable());
    loop {
        let order = match (lefts.peek(), rights.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let one = if order.is_le() { lefts.next() } else { None };
        let other = if order.is_ge() { rights.next() } else { None };
        match (one, other) {
            (Some((path, one)), Some((_, other))) => compare_files(report, path, &one.file, &other.file),
            (one, other) => {
                let Some((path, _)) = one.or(other) else { return };
                let [one, other] = [one, other].map(|side| side.map(|(_, located)| word(&located.file)));
                report.add(Difference::of(Area::File, shown(path), Class::Semantic, one, other));
            }
        }
    }
}

/// Reports the differences between two files at the same path.
pub(crate) fn compare_files(report: &mut Report, path: &Path, left: &Arc<File>, right: &Arc<File>) {
    // Layers that both images share are read once.
    if Arc::ptr_eq(left, right) {
        return;
    }
    let mut differs = |what: &'static str, class: Class, one: String, other: String| {
        if one != other {
            report.add(Difference::of(Area::File, shown(path), class, Some(one), Some(other)).about(what));
        }
    };
    if std::mem::discriminant(&left.kind) != std::mem::discriminant(&right.kind) {
        differs("type", Class::Semantic, word(left), word(right));
        return;
    }
    differs("content", Class::Semantic, content(left), content(right));
    let (one, other) = (&left.metadata, &right.metadata);
    // Permissions of symlinks have no effect, and tools write different ones.
    if !matches!(left.kind, FileKind::Symlink { .. }) {
        differs("mode", Class::Semantic, format!("{:04o}", one.mode), format!("{:04o}", other.mode));
    }
    differs("owner", Class::Semantic, format!("{}:{}", one.uid, one.gid), format!("{}:{}", other.uid, other.gid));
    let names: BTreeSet<_> = one.xattrs.keys().chain(other.xattrs.keys()).collect();
    for name in names {
        let value = |xattrs: &BTreeMap<Box<str>, Box<[u8]>>| {
            xattrs.get(name).map(|value| format!("{name}={}", value.escape_ascii()))
        };
        let (one, other) = (value(&one.xattrs), value(&other.xattrs));
        if one != other {
            let difference = Difference::of(Area::File, shown(path), Class::Semantic, one, other);
            report.add(difference.about("xattr"));
        }
    }
    // A directory without an entry in a layer has no time.
    if left.entry.is_some() && right.entry.is_some() && one.modified != other.modified {
        let (one, other) = (one.modified.to_string(), other.modified.to_string());
        report.add(Difference::of(Area::File, shown(path), Class::Time, Some(one), Some(other)).about("modified"));
    }
}

fn shown(path: &Path) -> String {
    format!("/{path}")
}

fn content(file: &File) -> String {
    match &file.kind {
        FileKind::Regular { size } => match &file.digest {
            Some(digest) => format!("{size} bytes {digest}"),
            None => format!("{size} bytes"),
        },
        FileKind::Symlink { target } => format!("-> {}", target.escape_ascii()),
        FileKind::CharacterDevice { major, minor } | FileKind::BlockDevice { major, minor } => {
            format!("{major},{minor}")
        }
        FileKind::Directory | FileKind::Fifo => String::new(),
    }
}

fn word(file: &File) -> String {
    match &file.kind {
        FileKind::Regular { .. } => format!("file of {}", content(file)),
        FileKind::Directory => "directory".to_owned(),
        FileKind::Symlink { .. } => format!("link {}", content(file)),
        FileKind::CharacterDevice { .. } => format!("character device {}", content(file)),
        FileKind::BlockDevice { .. } => format!("block device {}", content(file)),
        FileKind::Fifo => "pipe".to_owned(),
    }
}
