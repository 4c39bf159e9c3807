use serde::{Deserialize, Serialize};

/// What a registry supports; `None` if a check failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Capabilities {
    /// Has the referrers API.
    pub referrers_api: Option<bool>,
    /// Answers a manifest with a subject with `OCI-Subject`.
    pub subject_header: Option<bool>,
    /// Mounts a blob from another repository.
    pub mount: Option<bool>,
    /// Mounts a blob without `from`, from any repository that has it.
    pub anonymous_mount: Option<bool>,
    /// Answers a mount from the target repository itself with 201 if the blob exists.
    pub mount_from_itself: Option<bool>,
    /// Minimum size of a chunk, in bytes.
    pub chunk_minimum: Option<u64>,
    /// The status of the answer to a `PATCH`. The specification requires 202; Amazon ECR sends 201
    /// (regclient/regclient#81), Pulp 204 (pulp/pulp_container#2199).
    pub patch_status: Option<u16>,
    /// Reports the progress of an upload.
    pub upload_progress: Option<bool>,
    /// Returns the location of a complete blob.
    pub put_location: Option<bool>,
    /// Serves ranges of blobs.
    pub ranges: Option<bool>,
    /// Accepts an index whose manifests are missing.
    pub sparse_index: Option<bool>,
    /// Deletes a tag and keeps the manifest.
    pub delete_tag: Option<bool>,
    /// Deletes manifests.
    pub delete_manifest: Option<bool>,
    /// Deletes blobs.
    pub delete_blob: Option<bool>,
}

ocikit_spec::setters! {
    Capabilities {
        referrers_api: Option<bool>,
        subject_header: Option<bool>,
        mount: Option<bool>,
        anonymous_mount: Option<bool>,
        mount_from_itself: Option<bool>,
        chunk_minimum: Option<u64>,
        patch_status: Option<u16>,
        upload_progress: Option<bool>,
        put_location: Option<bool>,
        ranges: Option<bool>,
        sparse_index: Option<bool>,
        delete_tag: Option<bool>,
        delete_manifest: Option<bool>,
        delete_blob: Option<bool>,
    }
}
