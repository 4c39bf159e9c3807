//! Reads a RAFS v6 bootstrap with the crate `erofs-rs`, as Linux does.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use erofs_rs::EroFS;
use erofs_rs::backend::SliceImage;
use ocikit_image::files::FileKind;

use super::hard::{Files, Seen, kind_of};

/// Returns all files of a bootstrap.
pub(super) fn read(bootstrap: &[u8], devices: &[Vec<u8>]) -> Files {
    let devices = devices.iter().map(|device| SliceImage::new(device)).collect();
    let image = EroFS::new_with_devices(SliceImage::new(bootstrap), devices).unwrap();
    let root = image.get_inode(image.super_block().root_inode_id()).unwrap();
    let mut inodes = vec![(Vec::new(), root)];
    for entry in image.walk_dir("/").unwrap() {
        let entry = entry.unwrap();
        let path = entry.dir_entry.path();
        let path = path.as_bytes().strip_prefix(b"/").unwrap_or(path.as_bytes()).to_vec();
        inodes.push((path, entry.inode));
    }
    inodes.sort_by(|one, other| one.0.cmp(&other.0));
    let mut first_names: HashMap<u64, Vec<u8>> = HashMap::new();
    let mut files = Files::new();
    for (path, inode) in inodes {
        let first = first_names.entry(inode.id()).or_insert_with(|| path.clone()).clone();
        let mut contents = Vec::new();
        let (major, minor) = inode.device().unwrap_or_default();
        // The type is that of another crate.
        let kind = match &*format!("{:?}", inode.file_type()) {
            "RegularFile" => {
                image.open_inode_file(inode).unwrap().read_to_end(&mut contents).unwrap();
                FileKind::Regular { size: inode.data_size() }
            }
            "Directory" => FileKind::Directory,
            "Symlink" => FileKind::Symlink { target: image.read_link_inode(inode).unwrap().as_bytes().into() },
            "CharacterDevice" => FileKind::CharacterDevice { major, minor },
            "BlockDevice" => FileKind::BlockDevice { major, minor },
            "Fifo" => FileKind::Fifo,
            other => panic!("{other}"),
        };
        let xattrs: BTreeMap<String, Vec<u8>> = image
            .xattrs_inode(inode)
            .unwrap()
            .into_iter()
            .map(|(name, value)| (String::from_utf8(name.to_vec()).unwrap(), value.to_vec()))
            .collect();
        let is_directory = kind == FileKind::Directory;
        let seen = Seen {
            kind: kind_of(&kind, &contents),
            mode: inode.permissions().mode(),
            owner: (u64::from(inode.uid()), u64::from(inode.gid())),
            modified: inode.modified_unix(),
            links: if is_directory { 0 } else { u64::from(inode.nlink()) },
            first_name: if is_directory { path.clone() } else { first },
            xattrs,
        };
        files.insert(path, seen);
    }
    files
}
