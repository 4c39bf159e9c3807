use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ocikit_archive::{Span, TarIndex};
use ocikit_image::{Body, ByteRange, Error, Name, Result, Source};
use ocikit_spec::{
    Algorithm, Config, Descriptor, Digest, Hasher, Index, MAX_DOCUMENT_SIZE, MediaType, Platform, Reference,
    annotations,
};
use serde::Deserialize;
use serde_json::json;

use crate::docker::MANIFEST_JSON;
use crate::file::{file_body, read_at_most, read_small};
use crate::roots;

/// What `docker save` writes, and podman, skopeo and crane after it: configs and layers that a `manifest.json` lists.
///
/// Such an archive has no manifests, so each image gets an OCI manifest made up here: the same archive always gives the
/// same digest. Layers stay as they are, compressed or not.
#[derive(Debug, Clone)]
pub struct DockerArchive {
    path: PathBuf,
    file: Arc<File>,
    /// Manifests that were made up.
    manifests: Arc<HashMap<Digest, Bytes>>,
    blobs: Arc<HashMap<Digest, Span>>,
    roots: Index,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl DockerArchive {
    /// Reads the list of an archive whose headers were read.
    pub(crate) fn of(path: PathBuf, file: File, index: &TarIndex, list: &Bytes) -> Result<DockerArchive> {
        let broken = |problem: String| Error::broken(path.display(), problem);
        let items: Vec<Item> =
            serde_json::from_slice(list).map_err(|error| broken(format!("{MANIFEST_JSON}: {error}")))?;
        let mut reader = Reader { path: &path, file: &file, index, blobs: HashMap::new(), by_name: HashMap::new() };
        let mut manifests = HashMap::new();
        let mut roots = Vec::new();
        for item in items {
            let (manifest, platform) = reader.manifest(&item)?;
            let tags = item.repo_tags.as_ref().map_or(1, Vec::len);
            if roots.len() + tags > MOST_ROOTS {
                return Err(broken(format!("{MANIFEST_JSON} gives more than {MOST_ROOTS} names")));
            }
            let mut root = Descriptor::of(MediaType::OCI_MANIFEST, manifest.as_bytes());
            root.platform = platform;
            manifests.insert(root.digest, Bytes::from(manifest));
            roots.extend(named(&root, item.repo_tags.unwrap_or_default()));
        }
        let blobs = Arc::new(reader.blobs);
        Ok(DockerArchive {
            file: Arc::new(file),
            manifests: Arc::new(manifests),
            blobs,
            roots: Index::of(&roots),
            path,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The images, as the `index.json` of an OCI archive would list them.
    pub fn roots(&self) -> &Index {
        &self.roots
    }
}

/// How many names are read: as many as an `index.json` has room for.
const MOST_ROOTS: usize = 20_000;

/// One entry for each name, or one without.
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

struct Reader<'a> {
    path: &'a Path,
    file: &'a File,
    index: &'a TarIndex,
    blobs: HashMap<Digest, Span>,
    /// Layers that were looked at: several images may share one.
    by_name: HashMap<String, Descriptor>,
}

impl Reader<'_> {
    /// The manifest of an image, and what it runs on.
    fn manifest(&mut self, item: &Item) -> Result<(String, Option<Platform>)> {
        let span = self.find(&item.config)?;
        if span.size > MAX_DOCUMENT_SIZE {
            return Err(self.broken(format!("the config `{}` has {} bytes", item.config, span.size)));
        }
        let bytes = read_small(self.file, span.offset, span.size).map_err(|error| self.failed(error))?;
        let descriptor = Descriptor::of(MediaType::OCI_CONFIG, &bytes);
        let config =
            Config::parse(bytes).map_err(|error| Error::document(&descriptor.digest, self.path.display(), error))?;
        self.blobs.insert(descriptor.digest, span);
        let names = item.layers.as_deref().unwrap_or_default();
        let diff_ids = &config.rootfs().diff_ids;
        if names.len() != diff_ids.len() {
            let (layers, ids) = (names.len(), diff_ids.len());
            return Err(
                self.broken(format!("`{}` speaks of {ids} layers, {MANIFEST_JSON} lists {layers}", item.config))
            );
        }
        let layers: Vec<_> =
            names.iter().zip(diff_ids).map(|(name, diff_id)| self.layer(name, diff_id)).collect::<Result<_>>()?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_MANIFEST,
            "config": descriptor,
            "layers": layers,
        });
        Ok((manifest.to_string(), config.platform().cloned()))
    }

    fn layer(&mut self, name: &str, diff_id: &Digest) -> Result<Descriptor> {
        if let Some(known) = self.by_name.get(name) {
            return Ok(known.clone());
        }
        let span = self.find(name)?;
        let mut magic = [0; 4];
        let read = read_at_most(self.file, &mut magic, span).map_err(|error| self.failed(error))?;
        let media_type = match &magic[..read] {
            [0x1f, 0x8b, ..] => MediaType::OCI_LAYER_GZIP,
            [0x28, 0xb5, 0x2f, 0xfd] => MediaType::OCI_LAYER_ZSTD,
            _ => MediaType::OCI_LAYER,
        };
        let digest = match Digest::from_blob_path(name) {
            Some(digest) => digest,
            // The config says what an uncompressed layer hashes to. Whether that is true is checked when it is read.
            None if media_type == MediaType::OCI_LAYER => *diff_id,
            None => self.hash(span)?,
        };
        let descriptor = Descriptor::new(media_type, digest, span.size);
        self.blobs.insert(digest, span);
        self.by_name.insert(name.to_owned(), descriptor.clone());
        Ok(descriptor)
    }

    /// The digest of a compressed layer, which nothing in the archive tells.
    fn hash(&self, span: Span) -> Result<Digest> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; 1 << 20];
        let mut rest = span;
        while rest.size > 0 {
            let read = read_at_most(self.file, &mut buffer, rest).map_err(|error| self.failed(error))?;
            if read == 0 {
                return Err(self.failed(std::io::ErrorKind::UnexpectedEof.into()));
            }
            hasher.update(&buffer[..read]);
            rest = Span { offset: rest.offset + read as u64, size: rest.size - read as u64 };
        }
        Ok(hasher.finish())
    }

    fn find(&self, name: &str) -> Result<Span> {
        self.index.file(name).ok_or_else(|| self.broken(format!("{MANIFEST_JSON} names `{name}`, which is not there")))
    }

    fn broken(&self, problem: String) -> Error {
        Error::broken(self.path.display(), problem)
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::failed("read", self.path.display(), error)
    }
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
        let span = self.blobs.get(&descriptor.digest).ok_or_else(|| Error::not_found(descriptor.digest, self))?;
        Ok(file_body(self.file.clone(), span.offset, span.size, range, self))
    }

    async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        Ok(self.manifests.contains_key(&descriptor.digest) || self.blobs.contains_key(&descriptor.digest))
    }

    async fn referrers(&self, _: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
}
