use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::root::{Image, Root};

/// Formats of images beyond layers that are tars, for the operations that read or check files: [`validate`](crate::validate()),
/// and the comparison and inspection of images.
#[async_trait]
pub trait ImageFormats: Debug + Send + Sync {
    /// Returns the image with a way to read its files; the same image if its layers are tars.
    ///
    /// # Errors
    ///
    /// Those of reading what the format has beside the layers.
    async fn files(&self, image: Image) -> Result<Image>;

    /// Returns whether the layers of an image are another thing than the steps of its build, so that they cannot be compared one
    /// by one with those of an ordinary image.
    ///
    /// # Errors
    ///
    /// Those of reading a layer.
    async fn has_own_layers(&self, _image: &Image) -> Result<bool> {
        Ok(false)
    }

    /// Checks what the format adds to a manifest: tables against the layers that they describe. A manifest of another format
    /// has no problems.
    ///
    /// # Errors
    ///
    /// Those of reading the blobs of the manifest.
    async fn check(&self, root: &Root) -> Result<Vec<FormatProblem>>;

    /// Returns the format of each layer; `None` for a tar. Reads the tables only.
    ///
    /// # Errors
    ///
    /// Those of reading them.
    async fn layers(&self, image: &Image) -> Result<Vec<Option<LayerFormat>>>;

    /// Returns the format that documents state for each layer; `None` for a tar. Reads no layer and no table, so that a wrong
    /// annotation is not found.
    ///
    /// # Errors
    ///
    /// Those of reading documents.
    async fn stated_layers(&self, image: &Image) -> Result<Vec<Option<LayerFormat>>>;

    /// Returns whether an annotation of a manifest or a layer describes the format only, and nothing in the image.
    fn is_own_annotation(&self, key: &str) -> bool;

    /// Returns whether an entry of an index describes another entry, such as an index of its files, and is no image.
    fn is_own_entry(&self, artifact_type: &str) -> bool;
}

/// Returns the image with layers that are read without the entries that only a format has. Layers that are no tars stay what they
/// are.
pub(crate) async fn without_own_entries(image: &Image, formats: Option<&Arc<dyn ImageFormats>>) -> Result<Image> {
    match formats {
        Some(formats) if !formats.has_own_layers(image).await? => formats.files(image.clone()).await,
        Some(_) | None => Ok(image.clone()),
    }
}

/// A difference between what a format adds to an image and the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatProblem {
    /// The position of the layer in the manifest; `None` for the manifest itself.
    pub layer: Option<usize>,
    /// The difference.
    pub problem: String,
}

/// The format of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerFormat {
    /// The name of the format, such as `estargz`.
    pub format: String,
    /// The size in bytes of the table with its files, as it is stored.
    pub table_size: Option<u64>,
    /// The number of files in the table.
    pub files: Option<u64>,
    /// Why the layer is not in the format that its annotations state. It is read as a tar.
    pub problem: Option<String>,
}
