//! Limits for reading the layers of one operation.

/// The maximum memory of file trees in one operation, in bytes. About 330,000 files with ordinary paths fit.
pub const MAX_TREE_BYTES: u64 = 112 << 20;

/// The maximum number of entries that are read from layers in one operation.
pub const MAX_ENTRIES: u64 = 4_000_000;

/// The number of bytes that the layers of one operation may always decompress to.
pub const MIN_INFLATED_BYTES: u64 = 4 << 30;

/// The maximum compression ratio of a layer beyond that; real layers rarely exceed ten.
pub const MAX_INFLATION_RATIO: u64 = 100;

/// The maximum total length of the paths that one operation looks up while it follows symlinks, in bytes.
pub const MAX_LOOKUP_BYTES: u64 = 512 << 20;

/// A limit of a [`Budget`](crate::layer::Budget) that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Limit {
    /// [`MAX_TREE_BYTES`].
    #[error("the layers exceed the limit of {} MiB for paths and metadata of files", MAX_TREE_BYTES >> 20)]
    TreeBytes,
    /// [`MAX_ENTRIES`].
    #[error("the layers exceed the limit of {MAX_ENTRIES} entries")]
    Entries,
    /// [`MIN_INFLATED_BYTES`] plus [`MAX_INFLATION_RATIO`] times the compressed size: this many bytes.
    #[error(
        "the layers exceed the limit of {0} inflated bytes ({gib} GiB and {MAX_INFLATION_RATIO} times the compressed size)",
        gib = MIN_INFLATED_BYTES >> 30
    )]
    InflatedBytes(u64),
    /// [`MAX_LOOKUP_BYTES`].
    #[error("the layers exceed the limit of {} MiB for lookups of paths", MAX_LOOKUP_BYTES >> 20)]
    LookupBytes,
}
