//! The contents of a layer, and of stacked layers.
//!
//! A [`Reader`] returns the entries of one layer in order, and a [`Writer`] writes a layer. A [`Tree`] holds the paths of a layer and the paths that it
//! hides below it. A [`FileTree`] is the file system of a container: trees applied from the lowest to the highest.
//!
//! ```
//! use ocikit_archive::layer::{FileTree, Path, Reader, Tree};
//! use ocikit_archive::{END, Header};
//!
//! let layer = |names: &[&str]| {
//!     let mut tar: Vec<u8> = names.iter().flat_map(|name| Header::file(name, 0).to_bytes()).collect();
//!     tar.extend_from_slice(&END);
//!     Tree::read(&mut Reader::new(&tar[..]))
//! };
//! let mut files = FileTree::new();
//! files.apply(&layer(&["etc/motd", "etc/passwd"])?)?;
//! files.apply(&layer(&["etc/.wh.motd", "etc/group"])?)?;
//!
//! let names: Vec<_> = files.iter().map(|(path, _)| path.to_string()).collect();
//! assert_eq!(names, ["", "etc", "etc/group", "etc/passwd"]);
//! assert_eq!(files.get(&Path::confined(b"/etc/group")).unwrap().layer, 1);
//! # Ok::<(), ocikit_archive::Error>(())
//! ```
//!
//! # The rules
//!
//! They are those of the OCI image specification and, where it leaves a choice, those of the overlay file systems on
//! which docker, containerd and podman run containers.
//!
//! * Names are confined to the root of the image: `/etc/passwd` and `../etc/passwd` both are `etc/passwd`.
//! * A layer is a tree of its own. If a symlink of the same layer is in the path of an entry, it is followed within the
//!   layer; any other non-directory there is replaced. A directory without an entry has mode 0755 and belongs to root.
//!   It keeps a directory of a lower layer unchanged, and replaces anything else, including symlinks to directories.
//! * Whiteouts hide files of lower layers, whatever their position among the entries of their own layer.
//! * A file that replaces a directory removes its contents; a directory that replaces a directory does not.
//! * Hard links are further names of a file of the same layer or of a lower one. Their own metadata is ignored.
//! * Internal files of AUFS under `.wh..wh.` are ignored.

mod blob;
mod budget;
mod disk;
mod entry;
mod listing;
mod lookup;
mod merged;
mod path;
mod raw;
mod reader;
mod record;
mod resolve;
mod sorted;
mod sparse;
mod tree;
mod whiteout;
mod writer;

#[cfg(test)]
mod tests;

pub use blob::{BlobWriter, Written};
pub use budget::Budget;
#[cfg(unix)]
pub(crate) use budget::Reservation;
pub use disk::{FileOptions, ModifiedTime, Owner, TopDirectory};
pub use entry::{Entry, FileKind, Kind, Metadata, Time};
pub use listing::Listing;
pub use lookup::{Lookup, Step};
pub use merged::{FileTree, Located};
pub use path::Path;
pub use raw::{PaxRecord, RawEntry, RawKind, RawReader};
pub use reader::Reader;
pub use resolve::{Last, Resolver};
pub use sorted::sort;
#[cfg(unix)]
pub(crate) use tree::Replaced;
pub use tree::{File, Node, Tree};
pub use whiteout::Whiteout;
pub use writer::Writer;

pub use crate::limit::{Limit, MAX_ENTRIES, MAX_INFLATION_RATIO, MAX_LOOKUP_BYTES, MAX_TREE_BYTES, MIN_INFLATED_BYTES};
