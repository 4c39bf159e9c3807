use std::sync::Arc;

use ocikit_image::walk::limits::{MAX_DEPTH, MAX_DOCUMENTS, too_deep, too_many};
use ocikit_image::{Image, ImageFormats, Result, Root};
use ocikit_spec::{Descriptor, Digest, MediaType};
use serde::Serialize;

/// The differences between two roots; empty if they are equivalent.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Diff {
    /// The digest of the left root.
    pub left: Digest,
    /// The digest of the right root.
    pub right: Digest,
    /// The differences, in the order of the documents and then of the files.
    pub differences: Vec<Difference>,
}

impl Diff {
    /// Returns whether there are differences that affect a container.
    pub fn is_semantic(&self) -> bool {
        self.count(Class::Semantic) > 0
    }

    /// Returns the number of differences of a class.
    pub fn count(&self, class: Class) -> usize {
        self.differences.iter().filter(|difference| difference.class == class).count()
    }
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Difference {
    /// Its class.
    pub class: Class,
    /// The platform of the entry of the index, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// The part of the image.
    pub area: Area,
    /// The position: a key of a document, the number of a layer, the path of a file.
    pub at: String,
    /// The aspect of a file or layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<&'static str>,
    /// Whether it is on one side only.
    pub change: Change,
    /// The value on the left side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// The value on the right side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<String>,
}

/// The importance of a difference; the most important one is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// The image behaves differently.
    Semantic,
    /// Only a time differs.
    Time,
    /// Only the order differs, where it has no meaning.
    Order,
    /// Only the encoding differs: the compression, the layers, the white space, the media types.
    Encoding,
}

/// The part of an image with a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Area {
    /// An index.
    Index,
    /// A descriptor in a document.
    Descriptor,
    /// A manifest.
    Manifest,
    /// A config.
    Config,
    /// A layer, or another blob of a manifest.
    Layer,
    /// A file, as a container sees it.
    File,
}

/// The sides that have a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Only the right side has it.
    Added,
    /// Only the left side has it.
    Removed,
    /// Both have it.
    Changed,
}

impl Difference {
    /// Returns the change for the sides that have a value.
    pub(crate) fn of(
        area: Area,
        at: impl Into<String>,
        class: Class,
        left: Option<String>,
        right: Option<String>,
    ) -> Difference {
        let change = match (&left, &right) {
            (None, Some(_)) => Change::Added,
            (Some(_), None) => Change::Removed,
            _ => Change::Changed,
        };
        Difference { class, entry: None, area, at: at.into(), what: None, change, left, right }
    }

    pub(crate) fn about(self, what: &'static str) -> Difference {
        Difference { what: Some(what), ..self }
    }
}

/// The differences found so far, for one entry of an index or the root.
#[derive(Debug, Default)]
pub(crate) struct Report {
    entry: Option<String>,
    pub(crate) differences: Vec<Difference>,
    /// The number of indexes above the entry.
    depth: usize,
    /// The number of pairs of documents that were compared so far, for the root and all entries.
    compared: usize,
    formats: Option<Arc<dyn ImageFormats>>,
}

impl Report {
    pub(crate) fn new(formats: Option<Arc<dyn ImageFormats>>) -> Report {
        Report { formats, ..Report::default() }
    }

    pub(crate) fn add(&mut self, difference: Difference) {
        let entry = self.entry.clone();
        // What an annotation of a format says is in the layer, whose files are compared.
        let key = difference.at.split_once("annotations.").map(|(_, key)| key);
        let is_own = key.is_some_and(|key| self.formats.as_ref().is_some_and(|formats| formats.is_own_annotation(key)));
        let class = if is_own { Class::Encoding } else { difference.class };
        self.differences.push(Difference { entry, class, ..difference });
    }

    /// Returns an image with a way to read its files.
    pub(crate) async fn files(&self, image: &Image) -> Result<Image> {
        match &self.formats {
            Some(formats) => formats.files(image.clone()).await,
            None => Ok(image.clone()),
        }
    }

    /// Returns whether the layers of an image are no steps of its build.
    pub(crate) async fn has_own_layers(&self, image: &Image) -> Result<bool> {
        match &self.formats {
            Some(formats) => formats.has_own_layers(image).await,
            None => Ok(false),
        }
    }

    /// Returns whether an entry of an index belongs to the format of another entry.
    pub(crate) fn is_of_format(&self, entry: &Descriptor) -> bool {
        let kind = entry.artifact_type.as_ref().map(MediaType::as_str);
        self.formats.as_ref().zip(kind).is_some_and(|(formats, kind)| formats.is_own_entry(kind))
    }

    /// Returns the difference that an entry of an index exists on one side only.
    pub(crate) fn one_sided(
        &self,
        key: &str,
        entry: &Descriptor,
        left: Option<String>,
        right: Option<String>,
    ) -> Difference {
        let class = if self.is_of_format(entry) { Class::Encoding } else { Class::Semantic };
        Difference::of(Area::Index, key, class, left, right)
    }

    /// Returns a report for an entry of an index.
    pub(crate) fn below(&self, key: &str) -> Report {
        let entry = match &self.entry {
            Some(above) => format!("{above} / {key}"),
            None => key.to_owned(),
        };
        let (depth, compared) = (self.depth + 1, self.compared);
        Report { entry: Some(entry), depth, compared, ..Report::new(self.formats.clone()) }
    }

    /// Counts a pair of documents before it is compared.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`](ocikit_image::Error::Broken) beyond the limits of a [walk](ocikit_image::walk).
    pub(crate) fn count(&mut self, left: &Root) -> Result<()> {
        self.compared += 1;
        if self.depth > MAX_DEPTH {
            return Err(too_deep(&left.digest(), left.source()));
        }
        // An index may list another one many times, and that one the next.
        if self.compared > MAX_DOCUMENTS {
            return Err(too_many(MAX_DOCUMENTS, "documents", &left.digest(), left.source()));
        }
        Ok(())
    }

    pub(crate) fn take(&mut self, below: Report) {
        self.compared = below.compared;
        self.differences.extend(below.differences);
    }
}
