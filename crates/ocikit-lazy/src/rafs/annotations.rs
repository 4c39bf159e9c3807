//! Whether the annotations of a bootstrap layer say what the bootstrap has.

use std::collections::BTreeSet;

use ocikit_spec::Descriptor;

use crate::rafs::bootstrap::{BLOB_IDS_ANNOTATION, BOOTSTRAP_ANNOTATION, VERSION_ANNOTATION};
use crate::rafs::contents::NydusReader;

impl NydusReader {
    /// Returns what is wrong with the annotations of the bootstrap layer. Only that of the bootstrap has to be there.
    pub(crate) fn check_annotations(&self, layer: &Descriptor) -> Vec<String> {
        let annotation = |key| layer.annotations.get(key);
        let mut problems = Vec::new();
        if annotation(BOOTSTRAP_ANNOTATION).is_none() {
            problems.push(format!("it is a bootstrap of Nydus without the annotation `{BOOTSTRAP_ANNOTATION}`"));
        }
        let version = self.bootstrap().version().as_str();
        if let Some(listed) = annotation(VERSION_ANNOTATION).filter(|listed| *listed != version) {
            problems.push(format!("its RAFS is {version}, and `{VERSION_ANNOTATION}` is {:?}", listed));
        }
        if let Some(listed) = annotation(BLOB_IDS_ANNOTATION) {
            let blobs: BTreeSet<String> = self.bootstrap().blob_ids().collect();
            match serde_json::from_str::<BTreeSet<String>>(listed) {
                Ok(ids) if ids == blobs => {}
                Ok(_) => problems.push(format!("`{BLOB_IDS_ANNOTATION}` lists other blobs than the bootstrap")),
                Err(_) => problems.push(format!("`{BLOB_IDS_ANNOTATION}` is no list of blobs")),
            }
        }
        problems
    }
}
