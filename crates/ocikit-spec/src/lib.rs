//! The types of the OCI specifications: digests, descriptors, media types, platforms, annotations, references, and the
//! three documents (manifest, index, config). It also has what crates that do not use each other share: [`NoAnswer`].
//!
//! ```
//! use ocikit_spec::{Digest, Manifest, Reference, annotations};
//!
//! let reference: Reference = "alpine:3.22".parse()?;
//! assert_eq!(reference.to_string(), "docker.io/library/alpine:3.22");
//!
//! let text = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
//!   "config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,
//!             "digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},
//!   "layers":[],"com.example.unknown":1.50}"#;
//! let manifest = Manifest::parse(text)?;
//! assert_eq!(manifest.digest(), Digest::sha256_of(text.as_bytes())); // the exact bytes are kept
//!
//! let mut edit = manifest.edit();
//! edit.annotate(annotations::REVISION, "abc");
//! let edited = edit.finish()?;
//! assert!(edited.text().contains(r#""com.example.unknown":1.50"#)); // an edit keeps unknown fields
//! # Ok::<(), ocikit_spec::Error>(())
//! ```
//!
//! # Guarantees
//!
//! * The crate performs no IO, is not async and reads no clock.
//! * A document that was not edited keeps its exact bytes.
//! * Unknown fields, the order of keys and the spelling of numbers are kept.
//! * No input causes a panic.

mod bounded;
mod causes;
mod descriptor;
mod digest;
mod document;
mod error;
mod json;
mod keys;
mod media_type;
mod no_answer;
#[cfg(feature = "oci-spec")]
mod oci_spec;
mod platform;
mod reference;
mod setters;

pub mod annotations;

pub use annotations::Annotations;
pub use bounded::List as BoundedList;
pub use causes::with_causes;
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Hasher};
pub use document::{
    Config, ConfigEdit, ConfigField, Content, Document, Execution, Healthcheck, History, Index, IndexEdit,
    MAX_DOCUMENT_BYTES, MAX_ROOTS_BYTES, Manifest, ManifestEdit, NewDocument, RootFs,
};
pub use error::{Error, Result, hide_user_information};
#[doc(hidden)]
pub use json::null_is_default;
pub use keys::check_statement_keys;
pub use media_type::MediaType;
pub use no_answer::NoAnswer;
pub use platform::Platform;
pub use reference::{Reference, Registry, Repository, Tag};
