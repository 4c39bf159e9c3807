//! The words of the OCI specifications as types: digests, descriptors, media types, platforms,
//! annotations, references, and the three documents (manifest, index, config).
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
//! assert_eq!(manifest.digest(), Digest::sha256_of(text.as_bytes())); // what was read is what travels
//!
//! let mut edit = manifest.edit();
//! edit.annotate(annotations::REVISION, "abc");
//! let edited = edit.finish()?;
//! assert!(edited.text().contains(r#""com.example.unknown":1.50"#)); // and an edit loses nothing
//! # Ok::<(), ocikit_spec::Error>(())
//! ```
//!
//! # What this crate never does
//!
//! * It performs no IO, knows no async and reads no clock.
//! * It never serializes a document again that was not edited: the bytes that were parsed are the document.
//! * It never drops a field that it does not know, nor changes the order of keys or the spelling of a number.
//! * It never panics, whatever the input.

mod bounded;
mod descriptor;
mod digest;
mod document;
mod error;
mod json;
mod media_type;
#[cfg(feature = "oci-spec")]
mod oci_spec;
mod platform;
mod reference;

pub mod annotations;

pub use annotations::Annotations;
pub use bounded::List as BoundedList;
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Hasher};
pub use document::{
    Config, Content, Document, Execution, History, Index, IndexEdit, MAX_DOCUMENT_SIZE, MAX_ROOTS_SIZE, Manifest,
    ManifestEdit, RootFs,
};
pub use error::{Error, Result};
pub use media_type::MediaType;
pub use platform::Platform;
pub use reference::{Reference, Registry, Repository, Tag};
