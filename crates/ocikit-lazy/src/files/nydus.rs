//! The files of a Nydus image, by its bootstrap.

use std::sync::Arc;

use async_trait::async_trait;
use ocikit_image::bridge::blocking;
use ocikit_image::files::{Budget, Tree};
use ocikit_image::{Body, Layer, LayerFiles, Result as ImageResult};

use crate::files::access::tree_error;
use crate::rafs::NydusReader;

/// All files of a Nydus image as one layer.
#[derive(Debug)]
pub(super) struct NydusFiles {
    reader: Arc<NydusReader>,
    bootstrap: Layer,
}

impl NydusFiles {
    pub(super) fn new(reader: NydusReader, bootstrap: Layer) -> NydusFiles {
        NydusFiles { reader: Arc::new(reader), bootstrap }
    }
}

#[async_trait]
impl LayerFiles for NydusFiles {
    async fn tar(&self) -> ImageResult<Option<(Body, u64)>> {
        let tar = self.reader.tar().await?;
        Ok(Some((tar, self.reader.stored_bytes().saturating_add(self.bootstrap.descriptor().size))))
    }

    async fn tree(&self, budget: &Budget) -> ImageResult<Option<Tree>> {
        let (reader, budget) = (self.reader.clone(), budget.clone());
        let place = format!("bootstrap {} in {}", self.bootstrap.digest(), self.bootstrap.source());
        let tree =
            move || Tree::of_entries(reader.bootstrap().entries(), &budget).map_err(|error| tree_error(place, error));
        blocking(tree).await.map(Some)
    }

    async fn contents(&self, entry: u64) -> ImageResult<Option<Body>> {
        Ok(usize::try_from(entry).ok().map(|entry| NydusReader::contents(&self.reader, entry)))
    }
}
