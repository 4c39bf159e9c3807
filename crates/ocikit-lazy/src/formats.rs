//! All lazy formats, for the operations that read and check files.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use ocikit_archive::layer::Budget;
use ocikit_image::{
    Error as ImageError, FormatProblem, Image, ImageFormats, Layer, LayerFormat, Result as ImageResult, Root,
};
use ocikit_spec::{Descriptor, MediaType};

use crate::check::check_layer;
use crate::check_ztoc::check_ztoc;
use crate::files::{FileAccess, find_ztocs, with_files};
use crate::form::{Form, LayerContent, content, is_annotation, stated};
use crate::rafs::{NydusReader, VERSION_ANNOTATION, is_nydus};
use crate::soci;

/// Nydus, eStargz, zstd:chunked and SOCI, for [`validate`](ocikit_image::validate()) and for comparing and inspecting images.
#[derive(Debug, Clone)]
pub struct LazyFormats {
    directory: PathBuf,
}

impl LazyFormats {
    /// Creates the formats; temporary files are made in the directory.
    pub fn new(directory: impl Into<PathBuf>) -> LazyFormats {
        LazyFormats { directory: directory.into() }
    }

    async fn check_image(&self, image: &Image) -> ImageResult<Vec<FormatProblem>> {
        let (mut found, budget) = (Vec::new(), Budget::new());
        if is_nydus(image.manifest()) {
            match check_nydus(image, &self.directory).await? {
                Some(found) => return Ok(found),
                None => found.push(FormatProblem {
                    layer: last_layer(image),
                    problem: "its annotations say that it is a bootstrap of Nydus, and it is not".to_owned(),
                }),
            }
        }
        for (position, layer) in image.layers().enumerate() {
            // A layer that is missing or damaged is reported as such.
            let problems = check_layer(&layer, &budget, &self.directory).await?;
            found.extend(problems.into_iter().map(|problem| {
                let problem = match problem.entry.is_empty() {
                    true => problem.what,
                    false => format!("`{}` {}", problem.entry.escape_debug(), problem.what),
                };
                FormatProblem { layer: Some(position), problem }
            }));
        }
        Ok(found)
    }

    async fn check_soci(&self, root: &Root) -> ImageResult<Vec<FormatProblem>> {
        let mut found = Vec::new();
        let is_ztoc = |layer: &Layer| layer.descriptor().media_type == MediaType::OCTET_STREAM;
        for (position, ztoc) in root.layers().enumerate().filter(|(_, layer)| is_ztoc(layer)) {
            let checked = check_ztoc(&ztoc, root.source()).await?;
            found.extend(checked.map(|problem| FormatProblem { layer: Some(position), problem }));
        }
        Ok(found)
    }
}

/// Returns the position of the last layer, which is the bootstrap of a Nydus image.
fn last_layer(image: &Image) -> Option<usize> {
    image.manifest().layers().len().checked_sub(1)
}

/// Reads the bootstrap of a Nydus image, and each of its chunks; `None` if it is no Nydus image.
async fn check_nydus(image: &Image, directory: &Path) -> ImageResult<Option<Vec<FormatProblem>>> {
    let last = last_layer(image);
    match NydusReader::detect(image, directory).await {
        Ok(Some(reader)) => {
            let annotations = image.manifest().layers().last().map(|layer| reader.check_annotations(layer));
            let annotations = annotations.into_iter().flatten().map(|problem| FormatProblem { layer: last, problem });
            let chunks = reader.check_chunks().await?.into_iter().map(|(layer, problem)| {
                let position = image.manifest().layers().iter().position(|found| found.digest == layer);
                FormatProblem { layer: position, problem }
            });
            Ok(Some(annotations.chain(chunks).collect()))
        }
        Ok(None) => Ok(None),
        Err(error @ (ImageError::NotFound { .. } | ImageError::Broken { .. } | ImageError::Unsupported { .. })) => {
            Ok(Some(vec![FormatProblem { layer: last, problem: error.to_string() }]))
        }
        Err(error) => Err(error),
    }
}

/// Returns whether a document is a SOCI index.
fn is_soci_index(root: &Root) -> bool {
    let Root::Other(artifact) = root else { return false };
    let config = artifact.manifest().and_then(|manifest| manifest.config());
    config.is_some_and(|config| soci::is_index_type(config.media_type.as_str()))
}

#[async_trait]
impl ImageFormats for LazyFormats {
    async fn files(&self, image: Image) -> ImageResult<Image> {
        with_files(image, FileAccess::Contents, &self.directory).await
    }

    async fn has_own_layers(&self, image: &Image) -> ImageResult<bool> {
        image.has_nydus_layers().await
    }

    async fn check(&self, root: &Root) -> ImageResult<Vec<FormatProblem>> {
        match root {
            Root::Image(image) => self.check_image(image).await,
            Root::Other(_) if is_soci_index(root) => self.check_soci(root).await,
            Root::Other(_) | Root::Index(_) => Ok(Vec::new()),
        }
    }

    async fn layers(&self, image: &Image) -> ImageResult<Vec<Option<LayerFormat>>> {
        let mut is_wrong = false;
        if is_nydus(image.manifest()) {
            match nydus_layers(image, &self.directory).await? {
                Some(found) => return Ok(found),
                None => is_wrong = true,
            }
        }
        let ztocs = find_ztocs(image).await?;
        let mut found = Vec::new();
        for layer in image.layers() {
            let format = match content(&layer).await? {
                LayerContent::Table(open) => {
                    let files = open.table.entries.iter().filter(|entry| entry.kind != "chunk").count() as u64;
                    let (table_size, files) = (Some(open.stored), Some(files));
                    Some(LayerFormat { format: name(open.form).to_owned(), table_size, files, problem: None })
                }
                LayerContent::Invalid(error) => {
                    let format = name(stated(layer.descriptor())).to_owned();
                    Some(LayerFormat { format, table_size: None, files: None, problem: Some(error.to_string()) })
                }
                LayerContent::Plain => ztocs.get(&layer.digest()).map(with_ztoc),
            };
            found.push(format);
        }
        if is_wrong && let Some(last @ None) = found.last_mut() {
            let (format, problem) = ("nydus-bootstrap".to_owned(), Some("it is not a bootstrap of Nydus".to_owned()));
            *last = Some(LayerFormat { format, table_size: None, files: None, problem });
        }
        Ok(found)
    }

    async fn stated_layers(&self, image: &Image) -> ImageResult<Vec<Option<LayerFormat>>> {
        if is_nydus(image.manifest()) {
            return Ok(stated_nydus_layers(image));
        }
        let ztocs = find_ztocs(image).await?;
        let of = |layer: &Descriptor| match stated(layer) {
            Form::Plain => ztocs.get(&layer.digest).map(with_ztoc),
            form @ (Form::Estargz | Form::ZstdChunked) => {
                Some(LayerFormat { format: name(form).to_owned(), table_size: None, files: None, problem: None })
            }
        };
        Ok(image.manifest().layers().iter().map(of).collect())
    }

    fn is_own_annotation(&self, key: &str) -> bool {
        is_annotation(key)
    }

    fn is_own_entry(&self, artifact_type: &str) -> bool {
        soci::is_index_type(artifact_type)
    }
}

fn name(form: Form) -> &'static str {
    match form {
        Form::Plain => "plain",
        Form::Estargz => "estargz",
        Form::ZstdChunked => "zstd-chunked",
    }
}

/// Returns the formats of the layers of a Nydus image; `None` if it is no Nydus image.
async fn nydus_layers(image: &Image, directory: &Path) -> ImageResult<Option<Vec<Option<LayerFormat>>>> {
    let (mut files, mut version) = (None, String::new());
    let problem;
    match NydusReader::detect(image, directory).await {
        Ok(Some(reader)) => {
            files = Some(reader.bootstrap().entries().len() as u64);
            version = format!("-v{}", reader.bootstrap().version().as_str());
            let problems = image.manifest().layers().last().map(|layer| reader.check_annotations(layer));
            problem = problems.filter(|found| !found.is_empty()).map(|found| found.join("; "));
        }
        Ok(None) => return Ok(None),
        Err(error @ (ImageError::NotFound { .. } | ImageError::Broken { .. } | ImageError::Unsupported { .. })) => {
            problem = Some(error.to_string());
        }
        Err(error) => return Err(error),
    }
    let mut layers = stated_nydus_layers(image);
    if let Some(Some(bootstrap)) = layers.last_mut() {
        bootstrap.format = format!("nydus-bootstrap{version}");
        (bootstrap.files, bootstrap.problem) = (files, problem);
    }
    Ok(Some(layers))
}

/// Returns the formats of the layers of a Nydus image as its manifest states them.
fn stated_nydus_layers(image: &Image) -> Vec<Option<LayerFormat>> {
    let layers = image.manifest().layers();
    let of = |(position, layer): (usize, &Descriptor)| {
        let is_blob = layer.media_type == MediaType::NYDUS_BLOB;
        match position + 1 == layers.len() {
            true => {
                let version = layer.annotations.get(VERSION_ANNOTATION).map(|version| format!("-v{version}"));
                let format = format!("nydus-bootstrap{}", version.unwrap_or_default());
                Some(LayerFormat { format, table_size: Some(layer.size), files: None, problem: None })
            }
            false if is_blob => {
                Some(LayerFormat { format: "nydus-blob".to_owned(), table_size: None, files: None, problem: None })
            }
            false => None,
        }
    };
    layers.iter().enumerate().map(of).collect()
}

/// Returns the format of a layer with a ztoc.
fn with_ztoc(ztoc: &Descriptor) -> LayerFormat {
    LayerFormat { format: "soci".to_owned(), table_size: Some(ztoc.size), files: None, problem: None }
}
