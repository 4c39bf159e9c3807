//! OCI layouts, as directories and as archives, and docker archives.
//!
//! An archive is read in place: its headers once, its blobs at random, without extracting it. Only compressed archives, and
//! docker archives from a pipe, are first written to a temporary file: see [`Scratch`]. An archive is also edited in place,
//! at a cost that does not depend on its size: see [`TarEdit`]. It can be read from a pipe: see [`Pipe`].
//!
//! ```
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("app.tar");
//! use std::sync::Arc;
//! use ocikit_image::{CopyOptions, Memory, Name, Root, Sink, copy, testing};
//! use ocikit_layout::{Tar, TarOptions, TarWriter};
//!
//! let memory = Arc::new(Memory::new());
//! let image = testing::image(&memory, 1, &"linux/amd64".parse()?, &[1000]);
//! let root = Root::at(memory, image).await?;
//!
//! let archive: Arc<dyn Sink> = Arc::new(TarWriter::create(&path, TarOptions::default()).await?);
//! copy(&root, &archive, &CopyOptions::default()).await?;
//!
//! let opened = Root::open(Arc::new(Tar::open(&path).await?), &Name::Only).await?;
//! assert_eq!(opened.digest(), root.digest());
//! # Ok(()) }
//! ```
//!
//! # Guarantees
//!
//! * The crate never extracts an archive, and never writes a file under a name from an archive.
//! * No incomplete file is visible: files get their name by rename, edits are committed by one block.
//! * No layer is moved or rewritten to change its metadata. Only an archive without a proper end (two zero blocks) is
//!   copied once, with an end, when it is edited.

mod dir;
mod docker;
mod docker_archive;
mod edit;
mod file;
mod folder;
mod gc;
mod inventory;
mod listing;
mod loadable;
mod names;
mod open;
mod output;
mod pipe;
mod roots;
mod scratch;
mod siblings;
mod staged;
mod tar;
mod tar_edit;
mod tar_writer;
mod unlisted;

pub use dir::Dir;
pub use docker::DockerList;
pub use docker_archive::DockerArchive;
pub use file::Presence;
pub use gc::{Collected, GcOptions, Removed, gc};
pub use inventory::open_all;
pub use loadable::docker_disagreement;
pub use ocikit_archive::Compression;
pub use ocikit_image::BlobFile;
pub use open::{
    Received, has_docker_list, open, open_archive, open_docker_archive, open_docker_pipe, open_pipe, receive,
};
pub use output::OutputFile;
pub use pipe::Pipe;
pub use scratch::Scratch;
pub use siblings::Siblings;
pub use tar::Tar;
pub use tar_edit::TarEdit;
pub use tar_writer::{TarOptions, TarWriter};
