//! The main entry point of the library: opens any location by name and offers the common operations.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ocikit::{AnnotateOptions, Client, ClientOptions, Session, SessionOptions};
//!
//! let session = Session::new(Client::new(ClientOptions::default()), SessionOptions::default());
//! let archive = "container-image.tar".parse()?;
//! let set = vec![("org.opencontainers.image.revision".to_owned(), "6c22711".to_owned())];
//! session.annotate(&archive, &AnnotateOptions::default().set(set)).await?;
//! let copied = session.copy(&archive, &"localhost:5000/app:1".parse()?).await?;
//! println!("{}", copied.root.digest);
//! # Ok(()) }
//! ```
//!
//! Programs without async use `blocking::Session`, behind the feature `blocking`. Five small programs are in
//! `examples/`.
//!
//! Lower levels are in the crates below: [`image`] has sources, sinks, images and edits, [`layout`] layouts and
//! archives, `registry` the registry client, [`spec`] the types of the specifications.
//!
//! # When a future is dropped
//!
//! Every future is `Send` and stops when it is dropped: a timeout or `select!` around an operation is safe, and nothing
//! incomplete becomes visible. Steps that have started may still complete in the background:
//!
//! * A change in place ([`Session::change`], [`Session::tag`], [`Session::remove`]) that is being written to an
//!   archive or to the `index.json` of a layout is completed by its thread. The file is then either unchanged or
//!   completely changed; open it to find out which. Its lock is held until then.
//! * A new archive whose last bytes are being written may get its name.
//! * A registry may complete the last request that it received: upload a blob or manifest, or move a tag.
//! * The upload sessions of a dropped push are cancelled with `DELETE`, best effort and for at most 5 seconds each;
//!   wait for that with `Client::settle`. A session in the `Journal` of the registry client stays open for the next
//!   attempt.
//!
//! # Guarantees
//!
//! * The crate never prints, reads the environment or starts a runtime, except by `blocking::Session`.
//! * The kind of a location is decided by its text alone, never by the file system.

mod artifact;
mod blob;
#[cfg(feature = "blocking")]
pub mod blocking;
mod change;
mod diff;
mod fan_out;
mod in_place;
mod index;
mod inspect;
mod listing;
mod local;
mod location;
mod present;
mod remote;
mod session;
#[cfg(feature = "sign")]
mod signing;
#[cfg(feature = "sync")]
pub mod sync;
mod transfer;
mod tree;
mod validate;

pub use change::describe;
pub use diff::{Area, Change, Class, Diff, Difference, diff, diff_with};
pub use fan_out::Targets;
pub use in_place::Changed;
pub use index::{IndexChange, IndexSource};
pub use inspect::{ConfigFacts, FormatFacts, Inspection, LayerFacts, inspect};
pub use listing::MAX_LISTED_IMAGES;
pub use location::Location;
pub use present::{Present, held_platforms};
pub use session::{Session, SessionOptions};
#[cfg(feature = "sign")]
pub use signing::{Signed, Signing, Verification};
pub use tree::{ImageTree, Relation, tree};

pub use ocikit_image::{
    AnnotateOn, AnnotateOptions, Artifact, ArtifactBuilder, ArtifactFile, ArtifactKind, BlobFile, Body, ComposeOptions,
    Composed, Copied, CopyOptions, Error, Event, Fault, Image, Index, IndexFormat, Layer, Memory, Name, Naming,
    NewLayer, Observer, OnDuplicate, PerTarget, Planned, Problem, PullOptions, Pulled, PulledFile, Put, Referrers,
    Report, Result, Root, Selection, Severity, Sink, Source, SourceExt, ValidateDepth, ValidateOptions, map_images,
    select_platforms,
};
pub use ocikit_layout::{Collected, Compression, GcOptions, Removed, TarOptions};
#[cfg(feature = "registry")]
pub use ocikit_registry::{Client, ClientOptions};
pub use ocikit_spec::{Annotations, Descriptor, Digest, MediaType, Platform, Reference, Registry, Repository, Tag};

pub use ocikit_image as image;
pub use ocikit_image::files;
pub use ocikit_layout as layout;
#[cfg(feature = "registry")]
pub use ocikit_registry as registry;
#[cfg(feature = "sign")]
pub use ocikit_sign as sign;
pub use ocikit_spec as spec;
