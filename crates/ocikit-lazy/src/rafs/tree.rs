//! The names and inodes of a file system, in the order in which bootstraps have them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use ocikit_image::files::{File, FileKind, Metadata};

use crate::rafs::chunk::ChunkRef;

/// The maximum length of a name in bytes, as in Linux.
pub(super) const MAX_NAME_BYTES: usize = 255;

/// The maximum length of the target of a symlink in bytes, as in Linux.
pub(super) const MAX_TARGET_BYTES: usize = 4095;

/// A file with a path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) path: &'a [u8],
    pub(super) file: &'a File,
    /// Files with the same identity are names of one inode: the layer and the number of its entry.
    pub(super) identity: Option<(usize, u64)>,
    pub(super) chunks: &'a [ChunkRef],
}

/// A name. That of the root is empty.
#[derive(Debug, Clone)]
pub(super) struct Name<'a> {
    pub(super) name: &'a [u8],
    /// The position of its inode.
    pub(super) inode: usize,
    /// The position of its directory; the root is in itself.
    pub(super) parent: usize,
    /// The positions of the names in it, sorted by their bytes; empty if it is no directory.
    pub(super) children: Range<usize>,
}

/// An inode: a file that may have several names.
#[derive(Debug, Clone)]
pub(super) struct Inode<'a> {
    pub(super) file: &'a File,
    pub(super) chunks: &'a [ChunkRef],
    pub(super) links: u32,
    /// The position of its first name.
    pub(super) name: usize,
    /// The position of its last name.
    pub(super) last_name: usize,
}

/// The names of a file system, breadth first, so that those in a directory are consecutive; the root is the first. The
/// inodes are in the order of their first names.
#[derive(Debug)]
pub(super) struct Names<'a> {
    pub(super) names: Vec<Name<'a>>,
    pub(super) inodes: Vec<Inode<'a>>,
}

/// Why a file cannot be in a bootstrap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` {problem}")]
pub(super) struct Unfit {
    pub(super) path: String,
    pub(super) problem: &'static str,
}

static ROOT: LazyLock<File> = LazyLock::new(|| File {
    kind: FileKind::Directory,
    metadata: Metadata { mode: 0o755, ..Metadata::default() },
    entry: None,
    digest: None,
});

impl<'a> Names<'a> {
    /// Arranges files that are sorted by their paths, in which each directory comes before its contents.
    pub(super) fn of(items: impl Iterator<Item = Item<'a>>) -> Result<Names<'a>, Unfit> {
        let mut items: Vec<Item<'a>> = items.collect();
        if items.first().is_none_or(|first| !first.path.is_empty()) {
            items.insert(0, Item { path: b"", file: &ROOT, identity: None, chunks: &[] });
        }
        items.iter().try_for_each(check)?;
        let children = Children::of(&items)?;
        let mut names = Vec::with_capacity(items.len());
        // The position in `items` of each name.
        let mut order = vec![0];
        names.push(Name { name: b"", inode: 0, parent: 0, children: 0..0 });
        let mut at = 0;
        while at < names.len() {
            let below = children.of_item(order[at]);
            names[at].children = names.len()..names.len() + below.len();
            for item in below {
                names.push(Name { name: last(items[*item].path), inode: 0, parent: at, children: 0..0 });
                order.push(*item);
            }
            at += 1;
        }
        let mut inodes: Vec<Inode<'a>> = Vec::new();
        let mut known: HashMap<(usize, u64), usize> = HashMap::new();
        for at in 0..names.len() {
            let item = items[order[at]];
            let identity = item.identity.filter(|_| !item.file.is_directory());
            let inode = identity.map_or(inodes.len(), |identity| *known.entry(identity).or_insert(inodes.len()));
            names[at].inode = inode;
            match inodes.get_mut(inode) {
                Some(inode) => {
                    inode.links = inode.links.saturating_add(1);
                    inode.last_name = at;
                }
                None => {
                    let (file, chunks) = (item.file, item.chunks);
                    inodes.push(Inode { file, chunks, links: 1, name: at, last_name: at });
                }
            }
            if item.file.is_directory() && at > 0 {
                let parent = names[names[at].parent].inode;
                inodes[parent].links = inodes[parent].links.saturating_add(1);
            }
        }
        for inode in inodes.iter_mut().filter(|inode| inode.file.is_directory()) {
            inode.links = inode.links.saturating_add(1);
        }
        Ok(Names { names, inodes })
    }

    /// Returns the position of the name with this path.
    pub(super) fn find(&self, path: &[u8]) -> Option<usize> {
        let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        parts.into_iter().try_fold(0, |at, part| {
            let children = self.names[at].children.clone();
            let found = self.names[children.clone()].binary_search_by(|name| name.name.cmp(part)).ok()?;
            Some(children.start + found)
        })
    }

    /// Returns the inode of a name.
    pub(super) fn inode(&self, name: &Name<'_>) -> &Inode<'a> {
        &self.inodes[name.inode]
    }

    /// Returns whether an inode has extended attributes that a bootstrap can hold.
    pub(super) fn have_xattrs(&self) -> bool {
        self.inodes.iter().any(|inode| xattrs(&inode.file.metadata).next().is_some())
    }
}

/// The items in each directory, sorted.
struct Children {
    /// Where those of each item start.
    starts: Vec<usize>,
    items: Vec<usize>,
}

impl Children {
    fn of(items: &[Item<'_>]) -> Result<Children, Unfit> {
        let mut directories: HashMap<&[u8], usize> = HashMap::new();
        let mut parents = Vec::with_capacity(items.len());
        let mut starts = vec![0; items.len() + 1];
        for (position, item) in items.iter().enumerate() {
            if item.file.is_directory() {
                directories.insert(item.path, position);
            }
            let parent = match item.path.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => &item.path[..slash],
                None => b"",
            };
            let parent = directories.get(parent).copied();
            let parent = parent.ok_or_else(|| unfit(item, "is not in a directory"))?;
            parents.push(parent);
            if position > 0 {
                starts[parent + 1] += 1;
            }
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut sorted = vec![0; items.len().saturating_sub(1)];
        for (position, parent) in parents.into_iter().enumerate().skip(1) {
            sorted[next[parent]] = position;
            next[parent] += 1;
        }
        Ok(Children { starts, items: sorted })
    }

    fn of_item(&self, item: usize) -> &[usize] {
        &self.items[self.starts[item]..self.starts[item + 1]]
    }
}

fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

fn unfit(item: &Item<'_>, problem: &'static str) -> Unfit {
    Unfit { path: ocikit_image::files::Path::confined(item.path).to_string(), problem }
}

fn check(item: &Item<'_>) -> Result<(), Unfit> {
    let metadata = &item.file.metadata;
    let too_large = |number: u64| u32::try_from(number).is_err();
    let problem = match &item.file.kind {
        _ if last(item.path).len() > MAX_NAME_BYTES => "has a name of more than 255 bytes",
        _ if too_large(metadata.uid) || too_large(metadata.gid) => "has an owner that does not fit 32 bits",
        _ if xattr_bytes(metadata) > MAX_XATTR_BYTES => "has too many extended attributes",
        FileKind::Symlink { target } if target.is_empty() => "is a symlink without a target",
        FileKind::Symlink { target } if target.len() > MAX_TARGET_BYTES => "has a target of more than 4095 bytes",
        FileKind::CharacterDevice { major, minor } | FileKind::BlockDevice { major, minor }
            if *major > 0xfff || *minor > 0xf_ffff =>
        {
            "has a device number that Linux does not have"
        }
        FileKind::Regular { .. }
        | FileKind::Directory
        | FileKind::Symlink { .. }
        | FileKind::CharacterDevice { .. }
        | FileKind::BlockDevice { .. }
        | FileKind::Fifo => return Ok(()),
    };
    Err(unfit(item, problem))
}

/// The maximum size of all extended attributes of an inode in bytes: their length in RAFS v6 is a 16-bit number of
/// words.
const MAX_XATTR_BYTES: usize = 4 * 65_000;

/// The prefixes of extended attributes that bootstraps can hold, with their numbers in EROFS.
const PREFIXES: [(&str, u8); 5] =
    [("user.", 1), ("system.posix_acl_access", 2), ("system.posix_acl_default", 3), ("trusted.", 4), ("security.", 6)];

/// An extended attribute that a bootstrap can hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Xattr<'a> {
    pub(super) name: &'a str,
    /// The number of the prefix in EROFS.
    pub(super) prefix: u8,
    /// The name after the prefix.
    pub(super) rest: &'a str,
    pub(super) value: &'a [u8],
}

/// Returns the attribute as a bootstrap holds it; `None` if it cannot.
pub(super) fn xattr<'a>(name: &'a str, value: &'a [u8]) -> Option<Xattr<'a>> {
    let found = PREFIXES.into_iter().find_map(|(prefix, number)| Some((number, name.strip_prefix(prefix)?)));
    let (prefix, rest) = found?;
    // The two of access control lists are whole names, the others are followed by one.
    let is_whole = matches!(prefix, 2 | 3);
    let fits = rest.is_empty() == is_whole && name.len() <= 255 && value.len() <= usize::from(u16::MAX);
    (fits && !name.contains('\0')).then_some(Xattr { name, prefix, rest, value })
}

/// Returns the prefix with a number in EROFS.
pub(super) fn prefix(number: u8) -> Option<&'static str> {
    PREFIXES.into_iter().find(|(_, known)| *known == number).map(|(prefix, _)| prefix)
}

/// Returns the attributes that a bootstrap can hold, sorted by their names.
pub(super) fn xattrs(metadata: &Metadata) -> impl Iterator<Item = Xattr<'_>> {
    metadata.xattrs.iter().filter_map(|(name, value)| xattr(name, value))
}

/// Returns the names of the attributes that a bootstrap cannot hold.
pub(super) fn lost_xattrs(metadata: &Metadata) -> impl Iterator<Item = &str> {
    metadata.xattrs.iter().filter(|(name, value)| xattr(name, value).is_none()).map(|(name, _)| &**name)
}

fn xattr_bytes(metadata: &Metadata) -> usize {
    xattrs(metadata).map(|xattr| 8 + xattr.name.len() + xattr.value.len()).sum()
}

/// Returns the mode with the bits of the type, as in `st_mode` of Linux.
pub(super) fn mode(file: &File) -> u32 {
    let kind = match file.kind {
        FileKind::Fifo => 0o010_000,
        FileKind::CharacterDevice { .. } => 0o020_000,
        FileKind::Directory => 0o040_000,
        FileKind::BlockDevice { .. } => 0o060_000,
        FileKind::Regular { .. } => 0o100_000,
        FileKind::Symlink { .. } => 0o120_000,
    };
    kind | (file.metadata.mode & 0o7777)
}

/// Returns the number of a device as Linux encodes it; `None` if the file is none.
pub(super) fn device(file: &File) -> Option<u32> {
    match file.kind {
        FileKind::CharacterDevice { major, minor } | FileKind::BlockDevice { major, minor } => {
            Some((minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12)
        }
        FileKind::Regular { .. } | FileKind::Directory | FileKind::Symlink { .. } | FileKind::Fifo => None,
    }
}

/// Returns the major and minor number of an encoded device number.
pub(super) fn decode_device(encoded: u32) -> (u32, u32) {
    (encoded >> 8 & 0xfff, encoded & 0xff | encoded >> 12 & 0xf_ff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_those_of_linux() {
        let kind = FileKind::CharacterDevice { major: 300, minor: 70_000 };
        let file = File { kind, ..ROOT.clone() };
        assert_eq!(device(&file), Some(0x1111_2c70));
        assert_eq!(decode_device(0x1111_2c70), (300, 70_000));
    }

    #[test]
    fn names_are_breadth_first_and_sorted() {
        let file = File { kind: FileKind::Regular { size: 0 }, ..ROOT.clone() };
        let directory = ROOT.clone();
        let item = |path: &'static str, file| Item { path: path.as_bytes(), file, identity: None, chunks: &[] };
        let linked = Item { identity: Some((0, 1)), ..item("a/x", &file) };
        let again = Item { path: b"b", ..linked };
        let items = [item("a", &directory), item("a-b", &directory), item("a/c", &directory), linked, again];
        let names = Names::of(items.into_iter()).unwrap();
        let shown: Vec<_> = names.names.iter().map(|name| String::from_utf8_lossy(name.name).into_owned()).collect();
        assert_eq!(shown, ["", "a", "a-b", "b", "c", "x"]);
        assert_eq!(names.find(b"a/x"), Some(5));
        assert_eq!(names.find(b"a/y"), None);
        assert_eq!(names.inode(&names.names[3]).links, 2, "two names");
        assert_eq!(names.inodes[0].links, 4, "two directories in the root");
        let orphan = Names::of([item("x/y", &file)].into_iter()).unwrap_err();
        assert_eq!(orphan.to_string(), "`x/y` is not in a directory");
    }
}
