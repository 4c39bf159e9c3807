//! The front door: any location opened by name, and the everyday verbs.

mod location;

pub use location::Location;
pub use ocikit_image as image;
pub use ocikit_spec as spec;
