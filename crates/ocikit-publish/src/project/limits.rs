//! The limits on a project.

/// The maximum size of a Dockerfile, in bytes.
pub const MAX_DOCKERFILE_BYTES: usize = 1 << 20;

/// The maximum size of a line of a Dockerfile with its line end, in bytes. BuildKit refuses longer lines.
pub const MAX_LINE_BYTES: usize = (64 << 10) - 1;

/// The maximum size of the value of a variable or a reference after expansion, in bytes.
pub const MAX_EXPANDED_BYTES: usize = 64 << 10;

/// The maximum number of bytes that the expansions of one Dockerfile may produce together.
pub const MAX_EXPANSION_BYTES: usize = 16 << 20;

/// The maximum depth of nested substitutions such as `${A:-${B}}`.
pub const MAX_SUBSTITUTION_DEPTH: usize = 32;

/// The maximum size of a pattern of `${A#PATTERN}` and of the value that it is compared with, in bytes.
pub const MAX_PATTERN_BYTES: usize = 1 << 10;

/// The maximum size of `info.edn` and `image.toml`, in bytes.
pub const MAX_METADATA_BYTES: usize = 1 << 20;

/// The maximum depth of nested forms in EDN.
pub const MAX_EDN_DEPTH: usize = 64;

/// The maximum number of images in a project.
pub const MAX_IMAGES: usize = 100_000;

/// The maximum number of problems that are reported at once.
pub const MAX_PROBLEMS: usize = 100;
