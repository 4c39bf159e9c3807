//! The front door of the library: any location opened by name, and the everyday verbs.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ocikit::{AnnotateOptions, Client, ClientOptions, Session, SessionOptions};
//!
//! let session = Session::new(Client::new(ClientOptions::default()), SessionOptions::default());
//! let archive = "container-image.tar".parse()?;
//! let set = vec![("org.opencontainers.image.revision".to_owned(), "6c22711".to_owned())];
//! session.annotate(&archive, &AnnotateOptions { set, ..Default::default() }).await?;
//! let copied = session.copy(&archive, &"localhost:5000/app:1".parse()?).await?;
//! println!("{}", copied.root.digest);
//! # Ok(()) }
//! ```
//!
//! A program without async has the same as `blocking::Session`, behind the feature `blocking`. Five small publishers are in
//! `examples/`.
//!
//! What is not here is in the crates below: [`image`] has places, nouns and edits, [`layout`] images at rest, [`registry`]
//! the client, [`spec`] the words of the specifications.
//!
//! # When a future is dropped
//!
//! Every future is `Send` and stops when it is dropped: a timeout or `select!` around a verb is safe, and nothing half-done
//! becomes visible. What was begun before may still complete in the background:
//!
//! * A change in place ([`Session::annotate`], [`Session::tag`], [`Session::remove`]) that is being written to an archive or to
//!   the `index.json` of a layout is completed by the thread that writes it. Afterwards the file is either as before or as
//!   after a success; open it to find out which. Its lock is held until then.
//! * A new archive whose last bytes are being written may get its name.
//! * A registry may carry out the request that it was sent last: upload a blob or manifest, or move a tag.
//! * The upload sessions of a dropped push are cancelled with `DELETE`, best effort and for at most 5 seconds each; wait for it
//!   with [`Client::settle`]. A session that the [`Journal`](registry::Journal) keeps stays open for the next attempt.
//!
//! # What this crate never does
//!
//! * It never prints, reads the environment or starts a runtime, unless it is built with the feature `blocking` and asked
//!   for a session of that kind.
//! * It never looks into the file system to decide what a text means.

#[cfg(feature = "blocking")]
pub mod blocking;
mod change;
mod diff;
mod fan_out;
mod inspect;
mod listing;
mod location;
mod present;
mod session;
#[cfg(feature = "sync")]
pub mod sync;
mod tree;
mod validate;

pub use change::describe;
pub use diff::{Area, Change, Class, Diff, Difference, diff};
pub use inspect::{ConfigFacts, Inspection, LayerFacts, inspect};
pub use listing::MAX_LISTED_IMAGES;
pub use location::Location;
pub use present::Present;
pub use session::{Annotated, Session, SessionOptions};
pub use tree::{Relation, Tree, tree};

pub use ocikit_image::{
    AnnotateOn, AnnotateOptions, Artifact, Copied, CopyOptions, Error, Event, Fault, Image, Index, Kind, Layer, Name,
    Naming, Observer, PerTarget, Planned, Problem, Put, Referrers, Report, Result, Root, Severity, Sink, Source,
    SourceExt, ValidateDepth, ValidateOptions,
};
pub use ocikit_layout::{Collected, GcOptions, Removed, TarOptions};
pub use ocikit_registry::{Client, ClientOptions};
pub use ocikit_spec::{Annotations, Descriptor, Digest, MediaType, Platform, Reference, Registry, Repository, Tag};

pub use ocikit_image as image;
pub use ocikit_image::files;
pub use ocikit_layout as layout;
pub use ocikit_registry as registry;
pub use ocikit_spec as spec;
