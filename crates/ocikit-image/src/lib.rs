//! Container images independent of where they are stored: sources, sinks, roots, edits and the copy engine.
//!
//! A [`Source`] returns the bytes of a descriptor. An [`Image`] is a cheap value that holds its descriptor and its
//! source. An edit returns a new image. A [`Sink`] receives a descriptor and the source to read it from. Every
//! operation is *open → edit → [`copy`]*.
//!
//! ```
//! # #[cfg(feature = "testing")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::sync::Arc;
//! use ocikit_image::{AnnotateOptions, CopyOptions, Memory, Root, Sink, annotate, copy, testing};
//!
//! let source = Arc::new(Memory::new());
//! let image = testing::image(&source, 1, &"linux/amd64".parse()?, &[1000]);
//! let root = Root::at(source, image).await?;
//!
//! let set = vec![("org.opencontainers.image.revision".to_owned(), "abc".to_owned())];
//! let annotated = annotate(&root, &AnnotateOptions::default().set(set)).await?;
//!
//! let target: Arc<dyn Sink> = Arc::new(Memory::new());
//! let copied = copy(&annotated, &target, &CopyOptions::default()).await?;
//! assert_eq!(copied.root.digest, annotated.digest());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Guarantees
//!
//! * Bytes are checked against size and digest before they count as a blob, except in functions named `unverified`.
//! * A root becomes visible only after everything below it is stored.
//! * No layer is held in memory, except by [`Memory`].
//! * The crate never prints, reads the environment or starts a runtime.

mod annotate;
mod append;
mod artifact;
mod blob_file;
mod body;
mod bound;
pub mod bridge;
#[cfg(unix)]
mod bundle;
mod compose;
mod config_value;
mod contents;
mod convert;
mod copy;
mod edit;
mod edit_images;
mod error;
mod event;
mod export;
mod flatten;
mod formats;
mod graph;
mod kind;
mod layer;
mod layer_files;
mod layer_pool;
mod map_images;
mod memory;
mod merge;
mod merge_layers;
mod new_image;
mod new_layer;
mod normalize;
mod nydus;
pub mod platform;
pub mod process;
mod read_once;
mod rebase;
mod recompress;
mod referrer_tag;
mod related;
mod rewrite;
mod root;
mod save;
mod scratch_directory;
mod select_platforms;
mod source;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(unix)]
mod unpack_image;
mod validate;
pub mod walk;

pub use annotate::{AnnotateOn, AnnotateOptions, annotate, annotate_images};
pub use append::{append_layers, change_layers, missing_paths};
pub use artifact::{
    ArtifactBuilder, ArtifactFile, PullOptions, Pulled, PulledFile, UNKNOWN_ARTIFACT, UNKNOWN_CONFIG, pull_files,
};
pub use blob_file::{BlobFile, MAX_STREAM_BYTES};
pub use body::Body;
#[cfg(unix)]
pub use bundle::UnpackedDirectory;
pub use compose::{
    ComposeOptions, Composed, IndexFormat, Member, OnDuplicate, add_to_index, create_index, remove_from_index,
};
pub use config_value::InvalidConfigValue;
pub use convert::{ConvertOptions, Converted, Dropped, Format, UnsupportedParts, convert};
pub use copy::{
    Copied, CopyOptions, PerTarget, Planned, Published, Staged, Target, Tee, copy, copy_all, copy_all_to_each,
    copy_to_each, plan, plan_to_each, stage_to_each,
};
pub use edit::{ImageEdit, IndexEdit};
pub use edit_images::{ConfigChange, CopyKey, EditOptions, edit_images};
pub use error::{Error, Mismatch, Need, Result};
pub use event::{Event, Observer};
pub use flatten::{FlattenOptions, flatten};
pub use formats::{FormatProblem, ImageFormats, LayerFormat};
pub use kind::ArtifactKind;
pub use layer::{DiffId, LayerTar};
pub use layer_files::LayerFiles;
pub use layer_pool::LayerPool;
pub use map_images::{Mapped, Selection, map_images};
pub use memory::Memory;
pub use merge::KeptTag;
pub use new_layer::{LayerOptions, NewLayer};
pub use normalize::{EarlierTimes, NormalizeOptions, layer_digests, normalize};
pub use nydus::has_nydus_layers;
/// The contents of layers: their entries, their file trees, and the merged file system of a container.
pub use ocikit_archive::layer as files;
#[cfg(unix)]
pub use ocikit_archive::unpack;
pub use ocikit_archive::{Compression, EncoderOptions};
pub use ocikit_spec::NoAnswer;
pub use read_once::ReadOnce;
pub use rebase::{BaseImage, RebaseConfig, RebaseOptions, base_of, rebase};
pub use recompress::{RecompressOptions, recompress};
pub use referrer_tag::ReferrerTag;
pub use related::{Orphan, Referrers, orphans, tagged_referrers};
pub use root::{Artifact, Image, Index, Layer, Root};
pub use scratch_directory::{ScratchDirectory, ScratchKind};
pub use select_platforms::select_platforms;
pub use source::{ByteRange, Name, Naming, Put, Sink, Source, SourceExt};
pub use validate::{Fault, Inventory, Problem, Report, Scope, Severity, ValidateDepth, ValidateOptions, validate};
