use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_archive::{Compression, Decoder, Span, TarIndex};
use ocikit_image::bridge::file_body;
use ocikit_image::{Body, ByteRange, Error, Name, Result, Source};
use ocikit_spec::{
    Algorithm, Config, Descriptor, Digest, Document, Index, MAX_DOCUMENT_BYTES, Manifest, MediaType, Reference,
    annotations,
};
use serde_json::json;

use crate::docker::{Listed, MANIFEST_JSON, listed};
use crate::file::{Part, hash, read_at_most, read_small};
use crate::roots;
use crate::scratch::Scratch;
use crate::tar::cannot_open;

/// An archive in the format of `docker save`, which podman, skopeo and crane also write: configs and layers that a
/// `manifest.json` lists.
///
/// Such an archive has no manifests, so an OCI manifest is generated for each image: the same archive always has the
/// same digest. If the archive is an OCI layout as well and has the manifest of the image, that one is used. Layers
/// stay uncompressed or in gzip or zstd; the specification knows no other compression, so layers in xz or bzip2 are
/// decompressed to a temporary file.
#[derive(Debug, Clone)]
pub struct DockerArchive {
    path: PathBuf,
    /// Manifests that were generated, or read from the layout.
    manifests: Arc<HashMap<Digest, Bytes>>,
    blobs: Arc<HashMap<Digest, Blob>>,
    roots: Index,
}

/// The position of the bytes of a blob.
#[derive(Debug, Clone)]
struct Blob {
    file: Arc<File>,
    span: Span,
}

impl DockerArchive {
    /// Reads the list of an archive whose headers were read; `layout` is its list of roots, if it has one.
    pub(crate) fn of(
        path: PathBuf,
        file: File,
        index: &TarIndex,
        list: &Bytes,
        layout: Option<&Index>,
        scratch: &Scratch,
    ) -> Result<DockerArchive> {
        let broken = |problem: String| Error::broken(path.display(), problem);
        let items = listed(list).map_err(|error| broken(format!("{MANIFEST_JSON}: {error}")))?;
        let file = Arc::new(file);
        let mut reader =
            Reader { path: &path, file: &file, index, scratch, blobs: HashMap::new(), by_name: HashMap::new() };
        let layout = layout.map(|roots| reader.layout_manifests(roots)).transpose()?.unwrap_or_default();
        let mut manifests = HashMap::new();
        let mut roots = Vec::new();
        for item in items {
            let (root, manifest) = reader.manifest(&item, &layout)?;
            if roots.len() + item.repo_tags.len().max(1) > MAX_ROOTS {
                return Err(broken(format!("{MANIFEST_JSON} has more than {MAX_ROOTS} names")));
            }
            manifests.insert(root.digest, manifest);
            roots.extend(named(&root, item.repo_tags));
        }
        let blobs = Arc::new(reader.blobs);
        Ok(DockerArchive { manifests: Arc::new(manifests), blobs, roots: Index::of(&roots), path })
    }

    /// Returns the path of the archive.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the images, as the `index.json` of an OCI archive would list them.
    pub fn roots(&self) -> &Index {
        &self.roots
    }
}

/// The maximum number of names, which is about what an `index.json` has room for.
const MAX_ROOTS: usize = 20_000;

/// Returns one entry for each name, or one without a name.
fn named(root: &Descriptor, names: Vec<String>) -> Vec<Descriptor> {
    let entry = |name: &String| {
        let mut entry = root.clone();
        let full = name.parse::<Reference>().ok();
        if let Some(tag) = full.as_ref().and_then(Reference::tag) {
            entry.annotations.insert(annotations::REF_NAME, tag.as_str());
        }
        let full = full.map_or_else(|| name.clone(), |full| full.to_string());
        entry.annotations.insert(annotations::CONTAINERD_NAME, full);
        entry
    };
    if names.is_empty() { vec![root.clone()] } else { names.iter().map(entry).collect() }
}

/// The maximum number of documents of a layout that are read to find the manifests of listed images.
const MAX_LAYOUT_DOCUMENTS: usize = 1000;

struct Reader<'a> {
    path: &'a Path,
    file: &'a Arc<File>,
    index: &'a TarIndex,
    scratch: &'a Scratch,
    blobs: HashMap<Digest, Blob>,
    /// The layers so far, because several images may share one.
    by_name: HashMap<String, Descriptor>,
}

impl Reader<'_> {
    /// Returns the existing manifests of a layout by the digest of their config.
    fn layout_manifests(&self, roots: &Index) -> Result<HashMap<Digest, (Descriptor, Manifest)>> {
        let mut found = HashMap::new();
        let mut seen = HashSet::new();
        let mut waiting: Vec<Descriptor> = roots.manifests().iter().rev().cloned().collect();
        while let Some(next) = waiting.pop() {
            let is_read = next.media_type.is_manifest() || next.media_type.is_index();
            if !is_read || !seen.insert(next.digest) || seen.len() > MAX_LAYOUT_DOCUMENTS {
                continue;
            }
            // A manifest that is missing or damaged, which `docker save` may list, is skipped.
            let Some(span) = self.index.file(&next.digest.blob_path()) else { continue };
            if span.size != next.size || span.size > MAX_DOCUMENT_BYTES {
                continue;
            }
            let bytes = read_small(&**self.file, span.offset, span.size).map_err(|error| self.failed(error))?;
            if Digest::of(next.digest.algorithm(), &bytes) != next.digest {
                continue;
            }
            match Document::parse(&next.media_type, bytes) {
                Ok(Document::Index(index)) => waiting.extend(index.manifests().iter().rev().cloned()),
                Ok(Document::Manifest(manifest)) => {
                    if let Some(config) = manifest.config().map(|config| config.digest) {
                        found.entry(config).or_insert((next, manifest));
                    }
                }
                Err(_) => {}
            }
        }
        Ok(found)
    }

    /// Returns the manifest of an image, as a root.
    fn manifest(
        &mut self,
        item: &Listed,
        layout: &HashMap<Digest, (Descriptor, Manifest)>,
    ) -> Result<(Descriptor, Bytes)> {
        let span = self.find(&item.config)?;
        if span.size > MAX_DOCUMENT_BYTES {
            return Err(self.broken(format!("the config `{}` has {} bytes", item.config, span.size)));
        }
        let bytes = read_small(&**self.file, span.offset, span.size).map_err(|error| self.failed(error))?;
        let descriptor = Descriptor::of(MediaType::OCI_CONFIG, &bytes);
        let config =
            Config::parse(bytes).map_err(|error| Error::document(&descriptor.digest, self.path.display(), error))?;
        self.insert(descriptor.digest, span);
        if let Some((root, manifest)) = layout.get(&descriptor.digest)
            && self.is_of(manifest, &item.layers)
        {
            let root = Descriptor { platform: config.platform().cloned(), ..root.bare() };
            return Ok((root, manifest.bytes().clone()));
        }
        let diff_ids = &config.rootfs().diff_ids;
        if item.layers.len() != diff_ids.len() {
            let (layers, ids) = (item.layers.len(), diff_ids.len());
            return Err(self.broken(format!("`{}` has {ids} layers, but {MANIFEST_JSON} lists {layers}", item.config)));
        }
        let layers = item.layers.iter().zip(diff_ids);
        let layers: Vec<_> = layers.map(|(name, diff_id)| self.layer(name, diff_id)).collect::<Result<_>>()?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_MANIFEST,
            "config": descriptor,
            "layers": layers,
        });
        let manifest = manifest.to_string();
        let mut root = Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes());
        root.platform = config.platform().cloned();
        Ok((root, manifest.into()))
    }

    /// Returns whether a manifest has the listed layers and all of them exist; they are then found by their digests.
    fn is_of(&mut self, manifest: &Manifest, names: &[String]) -> bool {
        let mut spans = Vec::new();
        for (layer, name) in manifest.layers().iter().zip(names) {
            match self.index.file(&layer.digest.blob_path()) {
                Some(span) if Digest::from_blob_path(&plain(name)) == Some(layer.digest) => {
                    spans.push((layer.digest, span));
                }
                _ => return false,
            }
        }
        if manifest.layers().len() != names.len() {
            return false;
        }
        spans.into_iter().for_each(|(digest, span)| self.insert(digest, span));
        true
    }

    fn layer(&mut self, name: &str, diff_id: &Digest) -> Result<Descriptor> {
        if let Some(known) = self.by_name.get(name) {
            return Ok(known.clone());
        }
        let span = self.find(name)?;
        let mut magic = [0; Compression::MAGIC_BYTES];
        let read = read_at_most(&**self.file, &mut magic, span).map_err(|error| self.failed(error))?;
        let media_type = match Compression::detect(&magic[..read]) {
            Compression::None => MediaType::OCI_LAYER,
            Compression::Gzip => MediaType::OCI_LAYER_GZIP,
            Compression::Zstd => MediaType::OCI_LAYER_ZSTD,
            // containers/podman#472, google/go-containerregistry#1838.
            Compression::Xz | Compression::Bzip2 => return self.decompressed(name, span, diff_id),
        };
        let is_compressed = media_type != MediaType::OCI_LAYER;
        let digest = match Digest::from_blob_path(&plain(name)) {
            // Some writers name a compressed layer by the digest of its uncompressed contents.
            Some(digest) if !is_compressed || digest != *diff_id => digest,
            // For an uncompressed layer this is the `diff_id` of the config. It is checked when the layer is read.
            _ if !is_compressed => *diff_id,
            _ => self.hash(span)?,
        };
        let descriptor = Descriptor::new(media_type, digest, span.size);
        self.insert(digest, span);
        self.by_name.insert(name.to_owned(), descriptor.clone());
        Ok(descriptor)
    }

    /// Decompresses a layer in a compression that has no media type.
    fn decompressed(&mut self, name: &str, span: Span, diff_id: &Digest) -> Result<Descriptor> {
        let place = format!("`{name}` in {}", self.path.display());
        let mut decoder = Decoder::new(Part::new(&**self.file, span)).map_err(|error| self.failed(error))?;
        let file = self.scratch.unpack(&place, self.path, &mut decoder, &|| span.size)?;
        let size = file.metadata().map_err(|error| cannot_open(self.path, error))?.len();
        let descriptor = Descriptor::new(MediaType::OCI_LAYER, *diff_id, size);
        self.blobs.insert(*diff_id, Blob { file: Arc::new(file), span: Span { offset: 0, size } });
        self.by_name.insert(name.to_owned(), descriptor.clone());
        Ok(descriptor)
    }

    /// Computes the digest of a compressed layer, which the archive does not state.
    fn hash(&self, span: Span) -> Result<Digest> {
        hash(&**self.file, span, Algorithm::Sha256).map_err(|error| self.failed(error))
    }

    fn insert(&mut self, digest: Digest, span: Span) {
        self.blobs.insert(digest, Blob { file: self.file.clone(), span });
    }

    fn find(&self, name: &str) -> Result<Span> {
        let span = self.index.file(&plain(name));
        span.ok_or_else(|| self.broken(format!("{MANIFEST_JSON} lists `{name}`, which does not exist")))
    }

    fn broken(&self, problem: String) -> Error {
        Error::broken(self.path.display(), problem)
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::failed("read", self.path.display(), error)
    }
}

/// Removes `.` components from the name of an entry, as in `./layer.tar`: containers/skopeo#999.
pub(crate) fn plain(name: &str) -> Cow<'_, str> {
    if !name.split('/').any(|part| part.is_empty() || part == ".") {
        return name.into();
    }
    name.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/").into()
}

impl fmt::Display for DockerArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

#[async_trait]
impl Source for DockerArchive {
    async fn resolve(&self, name: &Name) -> Result<Descriptor> {
        roots::resolve(&self.roots, self, name).await
    }

    async fn open_unverified(&self, descriptor: &Descriptor, range: ByteRange) -> Result<Body> {
        if let Some(bytes) = self.manifests.get(&descriptor.digest) {
            return Ok(range.of(bytes).into());
        }
        let blob = self.blobs.get(&descriptor.digest).ok_or_else(|| Error::not_found(descriptor.digest, self))?;
        Ok(file_body(blob.file.clone(), blob.span.offset, blob.span.size, range, self))
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.manifests.contains_key(&descriptor.digest) || self.blobs.contains_key(&descriptor.digest))
    }

    async fn referrers(&self, _: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
}
