//! What is in a layer, and in layers that lie on one another.
//!
//! A [`Reader`] gives the entries of one layer as they come. A [`Tree`] is all of a layer: which paths it has and which it
//! hides below it. A [`FileTree`] is what a container sees: trees laid over one another, from the lowest to the highest.
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
//! They are those of the OCI image specification; where it leaves a choice they are those of the overlay file systems on
//! which docker, containerd and podman run containers.
//!
//! * Names are confined to the root of the image: `/etc/passwd` and `../etc/passwd` both are `etc/passwd`.
//! * A layer is a tree of its own. What is in the way of a directory that an entry needs, in the same layer, is a link that
//!   is followed within the layer, or is replaced. A directory that no entry describes has mode 0755 and belongs to root;
//!   it lies over a directory of a lower layer without changing it, and replaces anything else, links to directories too.
//! * Whiteouts hide what is in lower layers, wherever among the entries of their own layer they stand.
//! * A file that replaces a directory removes what is in it; a directory that replaces a directory does not.
//! * Hard links are further names of a file of the same layer or of lower ones. Their own metadata does not count.
//! * Whatever old AUFS wrote under `.wh..wh.` is passed over.

mod budget;
mod entry;
mod listing;
mod lookup;
mod merged;
mod path;
mod reader;
mod record;
mod resolve;
mod sparse;
mod tree;
mod whiteout;

#[cfg(test)]
mod tests;

pub use budget::Budget;
pub use entry::{Entry, FileKind, Kind, Metadata, Time};
pub use listing::Listing;
pub use lookup::{Lookup, Step};
pub use merged::{FileTree, Located};
pub use path::Path;
pub use reader::Reader;
pub use resolve::{Last, Resolver};
pub use tree::{File, Node, Tree};
pub use whiteout::Whiteout;

pub use crate::limit::{Limit, MAX_ENTRIES, MAX_INFLATION_RATIO, MAX_LOOKUP_BYTES, MAX_TREE_BYTES, MIN_INFLATED_BYTES};
