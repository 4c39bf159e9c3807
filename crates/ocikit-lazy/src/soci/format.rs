//! The names of the format.

use ocikit_spec::annotations;

/// The annotation of an image manifest with the digest of its SOCI index (version 2).
pub const INDEX_DIGEST: &str = annotations::SOCI_INDEX_DIGEST;

/// The annotation of an entry of an image index for a SOCI index: the digest of the image manifest.
pub const IMAGE_MANIFEST_DIGEST: &str = annotations::SOCI_IMAGE_DIGEST;

/// The annotation of a ztoc with the digest of its layer.
pub const LAYER_DIGEST: &str = "com.amazon.soci.image-layer-digest";

/// The annotation of a ztoc with the media type of its layer.
pub const LAYER_MEDIA_TYPE: &str = "com.amazon.soci.image-layer-mediaType";

/// The annotation of a ztoc with the distance of checkpoints in uncompressed bytes.
pub const SPAN_SIZE: &str = "com.amazon.soci.span-size";

/// The annotation of a SOCI index with the program that wrote it.
pub const BUILD_TOOL: &str = "com.amazon.soci.build-tool-identifier";

/// The type of the config of a SOCI index of version 1, which has the image manifest as its subject.
pub const INDEX_V1: &str = "application/vnd.amazon.soci.index.v1+json";

/// The type of the config of a SOCI index of version 2, which an image index lists beside the image.
pub const INDEX_V2: &str = "application/vnd.amazon.soci.index.v2+json";

/// The value of [`BUILD_TOOL`]: that of the reference, so that the same layer has the same ztoc.
pub(crate) const BUILD_TOOL_NAME: &str = "AWS SOCI CLI v0.2";
