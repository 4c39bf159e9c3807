//! What an image is, wherever it lives: places, nouns, edits, and the one copy.
//!
//! A [`Source`] gives bytes for a descriptor. An [`Image`] is a cheap value that knows its descriptor and its source. An
//! edit gives a new image. A [`Sink`] is told what to hold and where to read it. Everything else is *open → edit →
//! [`copy`]*.
//!
//! ```
//! # #[cfg(feature = "testing")]
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::sync::Arc;
//! use ocikit_image::{AnnotateOptions, CopyOptions, Memory, Root, Sink, annotate, copy, testing};
//!
//! let here = Arc::new(Memory::new());
//! let image = testing::image(&here, 1, &"linux/amd64".parse()?, &[1000]);
//! let root = Root::at(here, image).await?;
//!
//! let set = vec![("org.opencontainers.image.revision".to_owned(), "abc".to_owned())];
//! let annotated = annotate(&root, &AnnotateOptions { set, ..Default::default() }).await?;
//!
//! let there: Arc<dyn Sink> = Arc::new(Memory::new());
//! let copied = copy(&annotated, &there, &CopyOptions::default()).await?;
//! assert_eq!(copied.root.digest, annotated.digest());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # What this crate never does
//!
//! * It never lets bytes pass as a blob before size and digest were checked, unless the call says `unverified`.
//! * It never makes a name visible before everything below it is there.
//! * It never holds a layer in memory, [`Memory`] excepted.
//! * It never prints, reads the environment or starts a runtime.

mod annotate;
mod body;
pub mod bridge;
mod contents;
mod copy;
mod edit;
mod error;
mod event;
mod fan_out;
mod graph;
mod kind;
mod layer;
mod memory;
mod merge;
mod narrow;
mod overlay;
pub mod platform;
pub mod process;
pub mod proxy;
mod referrer_tag;
mod related;
pub mod retry;
mod root;
mod source;
#[cfg(feature = "testing")]
pub mod testing;
mod validate;

pub use annotate::{AnnotateOn, AnnotateOptions, annotate};
pub use body::Body;
pub use copy::{Copied, CopyOptions, Planned, copy, copy_all, plan};
pub use edit::{ImageEdit, IndexEdit};
pub use error::{Error, Mismatch, NoAnswer, Result};
pub use event::{Event, Observer};
pub use fan_out::{PerTarget, Target, Tee, copy_to_each};
pub use kind::Kind;
pub use layer::{DiffId, LayerTar};
pub use memory::Memory;
pub use merge::KeptTag;
pub use narrow::narrow;
/// What is in layers: their entries, trees, and what a container sees.
pub use ocikit_archive::layer as files;
pub use referrer_tag::ReferrerTag;
pub use related::{Orphan, Referrers, orphans, tagged_referrers};
pub use retry::RetryOptions;
pub use root::{Artifact, Image, Index, Layer, Root};
pub use source::{ByteRange, Name, Naming, Put, Sink, Source, SourceExt};
pub use validate::{Fault, Inventory, Problem, Report, Scope, Severity, ValidateDepth, ValidateOptions, validate};
