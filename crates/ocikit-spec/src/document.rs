use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::bounded::{self, List, NamesBlobs};
use crate::descriptor::null_is_empty;
use crate::error::{Error, Result};
use crate::json::{self, Object};
use crate::keys;
use crate::{Annotations, Descriptor, Digest, MediaType, Platform};

/// The maximum size of a manifest, index or config in bytes: the limit of registries.
///
/// A parsed document can take twenty times its size in memory, so this bounds the memory that untrusted input can use.
pub const MAX_DOCUMENT_SIZE: u64 = 4 << 20;

/// The maximum size of a layout's `index.json` in bytes, which is never pushed: about 50,000 images.
pub const MAX_ROOTS_SIZE: u64 = 8 << 20;

/// A manifest or an index. Like all documents, it is cheap to clone.
#[derive(Debug, Clone)]
pub enum Document {
    /// A manifest with a config and layers.
    Manifest(Manifest),
    /// A list of manifests and indexes.
    Index(Index),
}

/// The maximum number of layers of a manifest: as many as fit with descriptors of the usual size.
const MAX_LAYERS: usize = 25_000;

/// The maximum number of entries of an index that is not a layout's list of roots.
const MAX_ENTRIES: usize = 25_000;

/// The maximum number of roots of a layout.
const MAX_ROOTS: usize = 50_000;

/// The maximum number of history entries.
const MAX_HISTORY: usize = 10_000;

impl Document {
    /// Parses the document of a descriptor or header with this media type. The type is a hint: registries serve an OCI
    /// index as a Docker manifest list and the reverse (goharbor/harbor#15837), so the bytes decide the kind.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if the bytes are not a manifest or an index, or could be read as both.
    pub fn parse(media_type: &MediaType, bytes: impl Into<Bytes>) -> Result<Document> {
        match Content::of(media_type, bytes)? {
            Content::Document(document) => Ok(document),
            Content::Schema1 => Err(invalid("document", "it is a Docker schema 1 manifest, which is not supported")),
            Content::Blob => Err(invalid("document", format!("`{media_type}` is neither a manifest nor an index"))),
        }
    }

    /// Parses the document for a caller that states the media type and must be right, such as a client that puts a
    /// manifest.
    ///
    /// # Errors
    ///
    /// As [`Document::parse`], and if the document states another media type.
    pub fn parse_exactly(media_type: &MediaType, bytes: impl Into<Bytes>) -> Result<Document> {
        let document = Document::parse(media_type, bytes)?;
        match document.media_type(media_type) {
            actual if actual == media_type.essence() => Ok(document),
            actual => Err(invalid("document", format!("its media type is `{actual}`, not `{media_type}`"))),
        }
    }

    /// Detects by its contents alone whether a document is a manifest or an index, for bytes without a descriptor.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if the bytes are neither.
    pub fn sniff(bytes: impl Into<Bytes>) -> Result<(MediaType, Document)> {
        let document = Document::parse(&MediaType::OCI_MANIFEST, bytes)?;
        Ok((document.media_type(&MediaType::OCI_MANIFEST), document))
    }

    /// Returns the media type: the one in the document; otherwise `label`, the type of the descriptor or header, if
    /// that is a type of this kind of document; otherwise that of OCI.
    pub fn media_type(&self, label: &MediaType) -> MediaType {
        let (stated, fitting, default) = match self {
            Document::Manifest(manifest) => (&manifest.view.media_type, label.is_manifest(), MediaType::OCI_MANIFEST),
            Document::Index(index) => (&index.view.media_type, label.is_index(), MediaType::OCI_INDEX),
        };
        match stated {
            Some(stated) => stated.essence(),
            None if fitting => label.essence(),
            None => default,
        }
    }

    /// Returns the child descriptors in the order of the document: config and layers, or manifests.
    ///
    /// The subject is not a child, because it is not part of the artifact.
    pub fn children(&self) -> Box<dyn Iterator<Item = &Descriptor> + Send + '_> {
        match self {
            Document::Manifest(manifest) => Box::new(manifest.config().into_iter().chain(manifest.layers())),
            Document::Index(index) => Box::new(index.manifests().iter()),
        }
    }

    /// Returns whether a child may be another document. The entries of an index may, whatever their media type; the
    /// children of a manifest are blobs unless their media type says otherwise.
    pub fn may_be_document(&self, child: &Descriptor) -> bool {
        match self {
            Document::Manifest(_) => child.media_type.is_document(),
            Document::Index(_) => true,
        }
    }

    /// Returns the subject.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Document::Manifest(manifest) => manifest.subject(),
            Document::Index(index) => index.subject(),
        }
    }

    /// Returns the annotations.
    pub fn annotations(&self) -> &Annotations {
        match self {
            Document::Manifest(manifest) => manifest.annotations(),
            Document::Index(index) => index.annotations(),
        }
    }

    /// Returns the exact bytes.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Document::Manifest(manifest) => manifest.bytes(),
            Document::Index(index) => index.bytes(),
        }
    }
}

/// The kind of the bytes of a descriptor, whatever media type the descriptor or a header states.
#[derive(Debug, Clone)]
pub enum Content {
    /// A manifest or an index.
    Document(Document),
    /// A Docker schema 1 manifest. Its layers are not parsed.
    Schema1,
    /// Bytes that refer to no others.
    Blob,
}

impl Content {
    /// Determines the kind by the bytes. The media type counts only if they are ambiguous.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if the media type is that of a document and the bytes are none; if they could be read as two
    /// kinds of documents; and if they are a document of an unknown kind that refers to other blobs, because copying it
    /// as a blob would lose those.
    pub fn of(label: &MediaType, bytes: impl Into<Bytes>) -> Result<Content> {
        let bytes = bytes.into();
        let labelled = label.is_document();
        let is_object = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        let is_json_object = || is_object && serde_json::from_slice::<IgnoredAny>(&bytes).is_ok();
        if !labelled && !is_json_object() {
            return Ok(Content::Blob);
        }
        check_length("document", &bytes, MAX_DOCUMENT_SIZE)?;
        let fields = parse_object("document", &bytes)?;
        // A key in another case also decides the kind: parsing then fails.
        let key_of = |name| fields.keys_with_value().find(|key| keys::folds_to(key, name));
        let has = |name| key_of(name).is_some();
        let stated: Option<MediaType> = field("document", &fields, "mediaType")?;
        let stated = stated.filter(|stated| !stated.as_str().is_empty());
        let kind = match &stated {
            Some(stated) if stated.is_document() => Some(stated),
            Some(stated) if labelled => {
                let problem = format!("its media type is `{stated}`, which is neither a manifest nor an index");
                return Err(invalid("document", problem));
            }
            // Another kind of document, such as the envelope of an attestation.
            Some(_) => None,
            None if has("manifests") && (labelled || has("schemaVersion")) => Some(&MediaType::OCI_INDEX),
            None if has("fsLayers") => Some(&MediaType::DOCKER_SCHEMA1),
            None if (has("config") || has("layers")) && (labelled || has("schemaVersion")) => {
                Some(&MediaType::OCI_MANIFEST)
            }
            None => labelled.then_some(label),
        };
        match kind {
            Some(kind) if kind.is_index() => {
                let index = Index::parse(bytes)?;
                if index.manifests().len() > MAX_ENTRIES {
                    let problem = format!("it lists more than {MAX_ENTRIES} manifests");
                    return Err(invalid("index", problem));
                }
                Ok(Content::Document(Document::Index(index)))
            }
            Some(kind) if kind.is_schema1() => match ["manifests", "layers", "config"].into_iter().find_map(key_of) {
                Some(key) => {
                    let key = key.escape_default();
                    Err(invalid("document", format!("it is a docker schema 1 manifest and has `{key}`")))
                }
                None => Ok(Content::Schema1),
            },
            Some(_) => Ok(Content::Document(Document::Manifest(Manifest::parse(bytes)?))),
            None => match serde_json::from_slice::<NamesBlobs>(&bytes) {
                Ok(NamesBlobs(false)) => Ok(Content::Blob),
                Ok(NamesBlobs(true)) => {
                    let stated = stated.as_ref().unwrap_or(label);
                    let problem = format!("it refers to other blobs, and `{stated}` is not a known media type");
                    Err(invalid("document", problem))
                }
                // Nested too deep to be searched.
                Err(error) => Err(invalid("document", error)),
            },
        }
    }

    /// Checks that bytes can be a root: a manifest or index, or another kind of JSON document with one of their fields.
    /// A server that answers any request with a text, a page or an error of its own has none of them.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if the bytes are no JSON object, or one without `mediaType`, `schemaVersion`, `config`,
    /// `layers` and `manifests`.
    pub fn check_root(bytes: &Bytes) -> Result<()> {
        const WHAT: &str = "manifest or index";
        const FIELDS: [&str; 6] = ["mediaType", "schemaVersion", "config", "layers", "manifests", "fsLayers"];
        let fields = parse_object(WHAT, bytes)?;
        match fields.keys_with_value().any(|key| FIELDS.iter().any(|name| keys::folds_to(key, name))) {
            true => Ok(()),
            false => Err(invalid(WHAT, "it has neither a media type nor a list of other documents or blobs")),
        }
    }

    /// Returns the media type of the bytes: that of the document, otherwise the label.
    pub fn media_type(&self, label: &MediaType) -> MediaType {
        match self {
            Content::Document(document) => document.media_type(label),
            Content::Schema1 if label.is_schema1() => label.essence(),
            Content::Schema1 => MediaType::DOCKER_SCHEMA1_SIGNED,
            Content::Blob => label.clone(),
        }
    }
}

/// The exact text of a document and its digest, common to all three documents.
#[derive(Clone)]
struct Text(Bytes);

impl Text {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("parsing begins with this check")
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Digest::sha256_of(&self.0), f)
    }
}

macro_rules! text_of_document {
    ($name:ident) => {
        impl $name {
            /// Returns the exact bytes that were parsed or written. Their digest is that of the document.
            pub fn bytes(&self) -> &Bytes {
                &self.text.0
            }

            /// Returns the exact bytes as text.
            pub fn text(&self) -> &str {
                self.text.as_str()
            }

            /// Returns the sha256 digest of the bytes.
            pub fn digest(&self) -> Digest {
                Digest::sha256_of(&self.text.0)
            }
        }
    };
}

/// An image manifest: the config and layers of an image, or of an artifact in the same format.
///
/// Image specification, "Image Manifest"; Docker's manifest version 2 schema 2 has the same format.
#[derive(Debug, Clone)]
pub struct Manifest {
    text: Text,
    view: Arc<ManifestView>,
}

#[derive(Debug, Clone)]
struct ManifestView {
    media_type: Option<MediaType>,
    artifact_type: Option<MediaType>,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    subject: Option<Descriptor>,
    annotations: Annotations,
}

text_of_document!(Manifest);

impl Manifest {
    /// Parses a manifest.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if it is not one, has a known key twice or in another case (`Layers`) at any depth, or also
    /// lists `manifests`.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Manifest> {
        const WHAT: &str = "manifest";
        let text = Text(bytes.into());
        let object = parse_object(WHAT, &text.0)?;
        check_keys(WHAT, &text, keys::MANIFEST)?;
        check_kind(WHAT, &object, &["manifests", "fsLayers"])?;
        let media_type: Option<MediaType> = field(WHAT, &object, "mediaType")?;
        let draft = media_type == Some(MediaType::OCI_ARTIFACT_MANIFEST);
        if !draft {
            check_schema_version(WHAT, &object)?;
        }
        let layers: List<Descriptor, MAX_LAYERS> = field(WHAT, &object, if draft { "blobs" } else { "layers" })?;
        let view = ManifestView {
            artifact_type: field(WHAT, &object, "artifactType")?,
            config: field(WHAT, &object, "config")?,
            layers: layers.0,
            subject: field(WHAT, &object, "subject")?,
            annotations: field(WHAT, &object, "annotations")?,
            media_type,
        };
        if view.config.is_none() && !draft {
            return Err(invalid(WHAT, "it has no config"));
        }
        Ok(Manifest { text, view: Arc::new(view) })
    }

    /// Returns the media type in the document, otherwise that of an OCI manifest.
    pub fn media_type(&self) -> MediaType {
        self.view.media_type.clone().unwrap_or(MediaType::OCI_MANIFEST)
    }

    /// Returns the artifact type or, if there is none, the media type of the config.
    ///
    /// Image specification, "Guidelines for Artifact Usage". `None` for a container image.
    pub fn artifact_type(&self) -> Option<&MediaType> {
        let config = self.view.config.as_ref().map(|config| &config.media_type);
        self.view
            .artifact_type
            .as_ref()
            .or_else(|| config.filter(|config| !config.is_image_config() && **config != MediaType::OCI_EMPTY))
    }

    /// Returns the config; `None` only for the draft artifact manifest.
    pub fn config(&self) -> Option<&Descriptor> {
        self.view.config.as_ref()
    }

    /// Returns the layers, from the lowest to the highest.
    pub fn layers(&self) -> &[Descriptor] {
        &self.view.layers
    }

    /// Returns the subject.
    pub fn subject(&self) -> Option<&Descriptor> {
        self.view.subject.as_ref()
    }

    /// Returns the annotations of the manifest.
    pub fn annotations(&self) -> &Annotations {
        &self.view.annotations
    }

    /// Starts an edit.
    pub fn edit(&self) -> ManifestEdit {
        ManifestEdit { edit: Edit::begin("manifest", &self.text), original: self.clone() }
    }
}

/// An index: the manifests of an image for several platforms, or the roots of a layout.
///
/// Image specification, "Image Index"; Docker's manifest list has the same format.
#[derive(Debug, Clone)]
pub struct Index {
    text: Text,
    view: Arc<IndexView>,
}

#[derive(Debug, Clone)]
struct IndexView {
    media_type: Option<MediaType>,
    artifact_type: Option<MediaType>,
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
    annotations: Annotations,
}

text_of_document!(Index);

impl Index {
    /// Parses an index.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if it is not one, has a known key twice or in another case at any depth, or also has a config
    /// or layers.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Index> {
        const WHAT: &str = "index";
        let text = Text(bytes.into());
        let object = parse_object(WHAT, &text.0)?;
        check_keys(WHAT, &text, keys::INDEX)?;
        check_kind(WHAT, &object, &["config", "layers", "fsLayers"])?;
        check_schema_version(WHAT, &object)?;
        let manifests: List<Descriptor, MAX_ROOTS> = field(WHAT, &object, "manifests")?;
        let view = IndexView {
            media_type: field(WHAT, &object, "mediaType")?,
            artifact_type: field(WHAT, &object, "artifactType")?,
            manifests: manifests.0,
            subject: field(WHAT, &object, "subject")?,
            annotations: field(WHAT, &object, "annotations")?,
        };
        if object.raw("manifests").is_none() {
            return Err(invalid(WHAT, "it lists no manifests"));
        }
        Ok(Index { text, view: Arc::new(view) })
    }

    /// Creates an OCI index with these entries, in one line of JSON.
    pub fn of(manifests: &[Descriptor]) -> Index {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Layout<'a> {
            schema_version: u32,
            media_type: MediaType,
            manifests: &'a [Descriptor],
        }
        let form = Layout { schema_version: 2, media_type: MediaType::OCI_INDEX, manifests };
        let text = serde_json::to_vec(&form).expect("descriptors have string keys and cannot fail to serialize");
        let view = IndexView {
            media_type: Some(MediaType::OCI_INDEX),
            artifact_type: None,
            manifests: manifests.to_vec(),
            subject: None,
            annotations: Annotations::new(),
        };
        Index { text: Text(text.into()), view: Arc::new(view) }
    }

    /// Returns the media type in the document, otherwise that of an OCI index.
    pub fn media_type(&self) -> MediaType {
        self.view.media_type.clone().unwrap_or(MediaType::OCI_INDEX)
    }

    /// Returns the artifact type of the index as a whole.
    pub fn artifact_type(&self) -> Option<&MediaType> {
        self.view.artifact_type.as_ref()
    }

    /// Returns the entries, in order.
    pub fn manifests(&self) -> &[Descriptor] {
        &self.view.manifests
    }

    /// Returns the subject.
    pub fn subject(&self) -> Option<&Descriptor> {
        self.view.subject.as_ref()
    }

    /// Returns the annotations of the index.
    pub fn annotations(&self) -> &Annotations {
        &self.view.annotations
    }

    /// Starts an edit.
    pub fn edit(&self) -> IndexEdit {
        IndexEdit { edit: Edit::begin("index", &self.text), entries: None, original: self.clone() }
    }
}

/// The config of a container image.
///
/// Image specification, "Image Configuration". Docker's has the same format and a few more fields, which are kept.
#[derive(Debug, Clone)]
pub struct Config {
    text: Text,
    view: Arc<ConfigView>,
}

#[derive(Debug, Clone, Deserialize)]
struct ConfigView {
    created: Option<String>,
    author: Option<String>,
    // The fields of a platform are listed one by one: a flattened struct would hold every unknown field in memory.
    architecture: Option<String>,
    os: Option<String>,
    #[serde(rename = "os.version")]
    os_version: Option<String>,
    #[serde(rename = "os.features", default, deserialize_with = "null_is_empty")]
    os_features: Vec<String>,
    variant: Option<String>,
    #[serde(skip)]
    platform: Option<Platform>,
    #[serde(default, deserialize_with = "null_is_default")]
    config: Execution,
    #[serde(default, deserialize_with = "null_is_default")]
    rootfs: RootFs,
    #[serde(default, deserialize_with = "bounded::list::<_, _, MAX_HISTORY>")]
    history: Vec<History>,
}

impl ConfigView {
    fn take_platform(&mut self) -> Option<Platform> {
        Some(Platform {
            os: self.os.take()?,
            architecture: self.architecture.take()?,
            os_version: self.os_version.take(),
            os_features: std::mem::take(&mut self.os_features),
            variant: self.variant.take(),
        })
    }
}

/// The settings of a container of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    /// The user, or user and group, by name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The exposed ports, as `port/protocol`.
    #[serde(deserialize_with = "keys_of_map", serialize_with = "map_of_keys", skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
    /// The environment variables, as `NAME=value`.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program and its fixed arguments.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The default arguments, which a user may replace.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// The directories for data volumes.
    #[serde(deserialize_with = "keys_of_map", serialize_with = "map_of_keys", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// The working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The labels.
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    pub labels: Annotations,
    /// The signal that stops the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// The uncompressed layers of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default, deserialize_with = "null_is_default")]
    pub kind: String,
    /// The digests of the uncompressed layers, from the lowest to the highest.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<Digest>,
}

/// A build step that created a layer or only metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// The time of the step, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// The author.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step created no layer.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

text_of_document!(Config);

/// The time of a step without one: the zero value of Go's `time.Time`, as go-containerregistry writes it.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

impl Config {
    /// Returns the config with additional layers, given their `diff_ids`. Each gets a history entry if the config has a
    /// history.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if the result would not be a config.
    pub fn with_layers(&self, diff_ids: &[Digest]) -> Result<Config> {
        let mut edit = Edit::begin("config", &self.text);
        edit.change(|object| {
            let Some(mut rootfs) = object.get::<Option<Object>>("rootfs")? else { return Ok(false) };
            let mut all: Vec<Box<RawValue>> = rootfs.get::<Option<_>>("diff_ids")?.unwrap_or_default();
            all.extend(diff_ids.iter().map(raw));
            rootfs.set("diff_ids", to_raw_value(&all)?);
            if let Some(mut history) = object.get::<Option<Vec<Box<RawValue>>>>("history")? {
                let step = History { created: Some(NO_TIME.to_owned()), ..History::default() };
                history.extend(diff_ids.iter().map(|_| raw(&step)));
                object.set("history", to_raw_value(&history)?);
            }
            Ok(object.set("rootfs", rootfs.to_raw()?))
        });
        match edit.finish()? {
            Some(text) => Config::parse(text),
            None => Ok(self.clone()),
        }
    }

    /// Parses the config of a container image.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if it is not one, or has a known key twice or in another case (`Architecture`) at any depth.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Config> {
        const WHAT: &str = "config";
        let text = Text(bytes.into());
        parse_object(WHAT, &text.0)?;
        check_keys(WHAT, &text, keys::CONFIG)?;
        // Ignored fields have no limit on nesting here, but other readers fail at theirs.
        serde_json::from_slice::<NamesBlobs>(&text.0).map_err(|error| invalid(WHAT, error))?;
        let mut view: ConfigView = serde_json::from_slice(&text.0).map_err(|error| invalid(WHAT, error))?;
        view.platform = view.take_platform();
        Ok(Config { text, view: Arc::new(view) })
    }

    /// Returns the creation time, RFC 3339.
    pub fn created(&self) -> Option<&str> {
        self.view.created.as_deref()
    }

    /// Returns the author.
    pub fn author(&self) -> Option<&str> {
        self.view.author.as_deref()
    }

    /// Returns the platform; `None` if the config does not state one.
    pub fn platform(&self) -> Option<&Platform> {
        self.view.platform.as_ref()
    }

    /// Returns the settings of a container.
    pub fn execution(&self) -> &Execution {
        &self.view.config
    }

    /// Returns the uncompressed layers.
    pub fn rootfs(&self) -> &RootFs {
        &self.view.rootfs
    }

    /// Returns the history of the build.
    pub fn history(&self) -> &[History] {
        &self.view.history
    }
}

/// Changes to a manifest, which produce a new one.
#[derive(Debug, Clone)]
pub struct ManifestEdit {
    edit: Edit,
    original: Manifest,
}

impl ManifestEdit {
    /// Sets an annotation of the manifest.
    pub fn annotate(&mut self, key: &str, value: &str) -> &mut ManifestEdit {
        self.edit.annotate(key, value);
        self
    }

    /// Removes an annotation of the manifest, if it exists.
    pub fn remove_annotation(&mut self, key: &str) -> &mut ManifestEdit {
        self.edit.remove_annotation(key);
        self
    }

    /// Changes digest and size of the subject; its other fields are kept. Has no effect on a manifest without a
    /// subject.
    pub fn repoint_subject(&mut self, digest: &Digest, size: u64) -> &mut ManifestEdit {
        self.edit.change(|object| {
            let Some(mut subject) = object.get::<Option<Object>>("subject")? else { return Ok(false) };
            let changed = subject.set("digest", raw(digest)) | subject.set("size", raw(&size));
            if changed {
                object.set("subject", subject.to_raw()?);
            }
            Ok(changed)
        });
        self
    }

    /// Adds a layer after the others.
    pub fn push_layer(&mut self, layer: &Descriptor) -> &mut ManifestEdit {
        self.edit.change(|object| {
            let mut layers: Vec<Box<RawValue>> = object.get::<Option<_>>("layers")?.unwrap_or_default();
            layers.push(raw(layer));
            Ok(object.set("layers", to_raw_value(&layers)?))
        });
        self
    }

    /// Replaces the config.
    pub fn set_config(&mut self, config: &Descriptor) -> &mut ManifestEdit {
        self.edit.change(|object| Ok(object.set("config", raw(config))));
        self
    }

    /// Returns the manifest with the changes; the same bytes if nothing changed.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if the annotations of the original are not an object of strings.
    pub fn finish(&self) -> Result<Manifest> {
        match self.edit.finish()? {
            Some(text) => Manifest::parse(text),
            None => Ok(self.original.clone()),
        }
    }
}

/// Changes to an index, which produce a new one. Entries are addressed by their position.
#[derive(Debug, Clone)]
pub struct IndexEdit {
    edit: Edit,
    /// The entries, after the first change of one.
    entries: Option<Vec<Box<RawValue>>>,
    original: Index,
}

impl IndexEdit {
    /// Sets an annotation of the index.
    pub fn annotate(&mut self, key: &str, value: &str) -> &mut IndexEdit {
        self.edit.annotate(key, value);
        self
    }

    /// Removes an annotation of the index, if it exists.
    pub fn remove_annotation(&mut self, key: &str) -> &mut IndexEdit {
        self.edit.remove_annotation(key);
        self
    }

    /// Changes digest and size of an entry; its other fields are kept.
    pub fn repoint(&mut self, position: usize, digest: &Digest, size: u64) -> &mut IndexEdit {
        self.change_entry(position, |entry| {
            entry.set("digest", raw(digest));
            entry.set("size", raw(&size));
            Ok(())
        })
    }

    /// Sets an annotation of an entry.
    pub fn annotate_entry(&mut self, position: usize, key: &str, value: &str) -> &mut IndexEdit {
        self.change_entry(position, |entry| annotate(entry, |annotations| annotations.set(key, raw(value))).map(drop))
    }

    /// Removes an annotation of an entry, if it exists.
    pub fn remove_entry_annotation(&mut self, position: usize, key: &str) -> &mut IndexEdit {
        self.change_entry(position, |entry| annotate(entry, |annotations| annotations.remove(key)).map(drop))
    }

    /// Adds an entry at the end.
    pub fn push(&mut self, descriptor: &Descriptor) -> &mut IndexEdit {
        let value = raw(descriptor);
        self.change_list(|list| list.push(value))
    }

    /// Removes an entry; the positions of those after it decrease by one.
    pub fn remove(&mut self, position: usize) -> &mut IndexEdit {
        self.change_list(|list| {
            if position < list.len() {
                list.remove(position);
            }
        })
    }

    /// Returns the index with the changes; the same bytes if nothing changed.
    ///
    /// # Errors
    ///
    /// [`Error::Document`] if annotations of the original are not an object of strings.
    pub fn finish(&self) -> Result<Index> {
        let mut edit = self.edit.clone();
        if let Some(entries) = &self.entries {
            edit.change(|object| Ok(object.set("manifests", to_raw_value(entries)?)));
        }
        match edit.finish()? {
            Some(text) => Index::parse(text),
            None => Ok(self.original.clone()),
        }
    }

    fn change_entry(
        &mut self,
        position: usize,
        change: impl FnOnce(&mut Object) -> serde_json::Result<()>,
    ) -> &mut IndexEdit {
        let mut problem = None;
        self.change_list(|list| {
            let Some(entry) = list.get_mut(position) else { return };
            let changed = Object::parse(entry.get()).and_then(|mut object| {
                change(&mut object)?;
                object.to_raw()
            });
            match changed {
                Ok(changed) => *entry = changed,
                Err(error) => problem = Some(error),
            }
        });
        if let Some(error) = problem {
            self.edit.change(|_| Err(error));
        }
        self
    }

    fn change_list(&mut self, change: impl FnOnce(&mut Vec<Box<RawValue>>)) -> &mut IndexEdit {
        if self.entries.is_none() {
            match &self.edit.object {
                Ok(object) => match object.get::<Option<Vec<_>>>("manifests") {
                    Ok(list) => self.entries = Some(list.unwrap_or_default()),
                    Err(error) => self.edit.change(|_| Err(error)),
                },
                Err(_) => return self,
            }
        }
        if let Some(list) = &mut self.entries {
            change(list);
        }
        self
    }
}

/// The common part of both edits. The first error is stored and returned at the end, so that calls can be chained.
#[derive(Debug, Clone)]
struct Edit {
    document: &'static str,
    object: Result<Object>,
    indent: Option<String>,
    changed: bool,
}

impl Edit {
    fn begin(document: &'static str, text: &Text) -> Edit {
        Edit {
            document,
            object: Object::parse(text.as_str()).map_err(|error| invalid(document, error)),
            indent: json::indentation(text.as_str()).map(str::to_owned),
            changed: false,
        }
    }

    fn annotate(&mut self, key: &str, value: &str) {
        self.change(|object| annotate(object, |annotations| annotations.set(key, raw(value))));
    }

    fn remove_annotation(&mut self, key: &str) {
        self.change(|object| annotate(object, |annotations| annotations.remove(key)));
    }

    fn change(&mut self, change: impl FnOnce(&mut Object) -> serde_json::Result<bool>) {
        if let Ok(object) = &mut self.object {
            match change(object) {
                Ok(changed) => self.changed |= changed,
                Err(error) => self.object = Err(invalid(self.document, error)),
            }
        }
    }

    /// Returns the new text; `None` if it is unchanged.
    fn finish(&self) -> Result<Option<String>> {
        let object = self.object.as_ref().map_err(Clone::clone)?;
        if !self.changed {
            return Ok(None);
        }
        let text = object.to_raw().map_err(|error| invalid(self.document, error))?;
        Ok(Some(json::lay_out(text.get(), self.indent.as_deref())))
    }
}

/// Changes the annotations of a document or descriptor; the key is removed with the last annotation.
fn annotate(holder: &mut Object, change: impl FnOnce(&mut Object) -> bool) -> serde_json::Result<bool> {
    let present = holder.raw("annotations").filter(|value| *value != "null");
    let mut annotations = Object::parse(present.unwrap_or("{}"))?;
    // Setting an annotation to its value is no change, even if it was written with other escapes.
    let before: Annotations = holder.get("annotations")?;
    let touched = change(&mut annotations);
    let text = annotations.to_raw()?;
    let after: Annotations = serde_json::from_str(text.get())?;
    if !touched || before == after {
        return Ok(false);
    }
    Ok(if annotations.is_empty() { holder.remove("annotations") } else { holder.set("annotations", text) })
}

fn raw(value: &(impl Serialize + ?Sized)) -> Box<RawValue> {
    to_raw_value(value).expect("strings, numbers and descriptors cannot fail to serialize")
}

fn check_length(document: &'static str, bytes: &Bytes, most: u64) -> Result<()> {
    match bytes.len() as u64 {
        length if length > most => Err(invalid(document, format!("{length} bytes exceed the limit of {most} bytes"))),
        _ => Ok(()),
    }
}

/// The fields of a document, borrowed from its text to avoid a copy of long lists.
type Fields<'a> = Object<&'a RawValue>;

fn parse_object<'a>(document: &'static str, bytes: &'a Bytes) -> Result<Fields<'a>> {
    let most = if document == "index" { MAX_ROOTS_SIZE } else { MAX_DOCUMENT_SIZE };
    check_length(document, bytes, most)?;
    let text = std::str::from_utf8(bytes).map_err(|error| invalid(document, error))?;
    Object::parse(text).map_err(|error| invalid(document, error))
}

fn field<T: DeserializeOwned>(document: &'static str, object: &Fields<'_>, key: &str) -> Result<T> {
    object.get(key).map_err(|error| invalid(document, format!("`{key}`: {error}")))
}

/// Rejects a document that readers written in Go would read differently, at any depth.
fn check_keys(document: &'static str, text: &Text, known: keys::Keys) -> Result<()> {
    keys::check(document, text.as_str(), known)
}

/// Rejects a document that could be read as another kind of document.
fn check_kind(document: &'static str, object: &Fields<'_>, foreign: &[&str]) -> Result<()> {
    for key in object.keys_with_value() {
        if foreign.iter().any(|name| keys::folds_to(key, name)) {
            let problem = format!("it also has `{}`, which belongs to another kind of document", key.escape_default());
            return Err(invalid(document, problem));
        }
    }
    Ok(())
}

fn check_schema_version(document: &'static str, object: &Fields<'_>) -> Result<()> {
    match field::<Option<u64>>(document, object, "schemaVersion")? {
        Some(2) => Ok(()),
        Some(other) => Err(invalid(document, format!("its schema version is {other}, not 2"))),
        None => Err(invalid(document, "it has no schema version")),
    }
}

fn invalid(document: &'static str, problem: impl fmt::Display) -> Error {
    Error::Document { document, problem: problem.to_string() }
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Deserializes a Go set: an object whose values are empty objects.
fn keys_of_map<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let map: Option<IndexMap<String, IgnoredAny>> = Option::deserialize(deserializer)?;
    Ok(map.unwrap_or_default().into_keys().collect())
}

fn map_of_keys<S: serde::Serializer>(keys: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(keys.iter().map(|key| (key, serde_json::Map::new())))
}

mod create;
#[cfg(test)]
mod tests;

pub use create::NewDocument;
