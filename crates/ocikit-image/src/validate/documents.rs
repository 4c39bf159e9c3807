use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ocikit_spec::{
    Config, Content, Descriptor, Digest, Document, Index, MAX_DOCUMENT_BYTES, Manifest, MediaType, Platform,
    annotations,
};

use super::options::Inventory;
use super::part::{At, Blob, FoundManifest, fault_of};
use super::report::{Fault, Problem, Report};
use crate::error::{Error, Result};
use crate::source::{Source, SourceExt, read_config};
use crate::walk::limits::Limits;
use crate::walk::{Edge, Found, Node, Path, Walk};

/// A document and its config, if it has one that is read; `None` if it turned out to be a blob.
type Read = Option<(Document, Option<Result<Config>>)>;

/// The platform that a descriptor states for a manifest, to be compared once the config is known.
#[derive(Debug)]
struct Promise {
    at: At,
    digest: Digest,
    platform: Platform,
}

/// The first half of a validation: all documents and the relations between them.
#[derive(Debug)]
pub(super) struct DocumentCheck<'a> {
    source: &'a dyn Source,
    walk: Walk<'a, Result<Read>>,
    report: Report,
    max_problems: usize,
    /// Whether the source is queried for referrers. Not needed if everything is walked.
    ask_for_referrers: bool,
    /// The documents that were seen, by digest, size and type: one that is listed with two sizes is checked twice.
    seen: HashSet<(Digest, u64, DocumentType)>,
    reached: HashSet<Digest>,
    blobs: Vec<Blob>,
    manifests: Vec<FoundManifest>,
    positions: HashMap<(Digest, u64), usize>,
    promises: Vec<Promise>,
    platforms: HashMap<Digest, Platform>,
    /// Whether all existing documents could be parsed, so that a blob that was not reached is unreferenced.
    followed_all: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum DocumentType {
    Index,
    Manifest,
}

impl<'a> DocumentCheck<'a> {
    pub(super) fn new(source: &'a dyn Source, max_problems: usize) -> DocumentCheck<'a> {
        DocumentCheck {
            source,
            walk: Walk::reading(source, Limits::PLACE, move |descriptor| read(source, descriptor)),
            report: Report::default(),
            max_problems,
            ask_for_referrers: false,
            seen: HashSet::new(),
            reached: HashSet::new(),
            blobs: Vec::new(),
            manifests: Vec::new(),
            positions: HashMap::new(),
            promises: Vec::new(),
            platforms: HashMap::new(),
            followed_all: true,
        }
    }

    /// Checks the documents of one root.
    pub(super) async fn root(&mut self, root: &Descriptor) -> Result<()> {
        self.ask_for_referrers = true;
        let name: &str = if root.media_type.is_index() { "index" } else { "manifest" };
        self.meet(root, At { parent: None, edge: Edge::Start(name.into()) })?;
        self.run().await
    }

    /// Checks the documents of all roots of a place, and reports what is unreferenced.
    pub(super) async fn everything(&mut self, inventory: &Inventory) -> Result<()> {
        for problem in &inventory.problems {
            self.report.add(problem.clone(), self.max_problems);
        }
        self.index(&inventory.roots, &Path::list("index.json", inventory.roots.digest()))?;
        self.run().await?;
        let mut unlisted = inventory.referrers.clone();
        // Referrers of referrers are found in the next round.
        loop {
            let (about, others): (Vec<_>, _) =
                unlisted.into_iter().partition(|(subject, _)| self.reached.contains(subject));
            if about.is_empty() {
                break;
            }
            unlisted = others;
            for (position, (subject, referrer)) in about.iter().enumerate() {
                let parent = Path::list(subject.to_string(), *subject);
                self.meet(referrer, At::below(&parent, Edge::Referrer(position)))?;
            }
            self.run().await?;
        }
        if self.followed_all {
            for (digest, size) in inventory.blobs.iter().filter(|(digest, _)| !self.reached.contains(digest)) {
                let fault = Fault::Unreferenced { size: *size };
                let problem = Problem { place: digest.blob_path(), digest: Some(*digest), fault };
                self.report.add(problem, self.max_problems);
            }
        }
        Ok(())
    }

    /// Returns the report so far, the blobs that remain to be read, and the manifests.
    pub(super) fn finish(mut self) -> (Report, Vec<Blob>, Vec<FoundManifest>) {
        for promise in std::mem::take(&mut self.promises) {
            if let Some(actual) = self.platforms.get(&promise.digest)
                && !agree(&promise.platform, actual)
            {
                let fault = Fault::Platform { stated: promise.platform, actual: actual.clone() };
                self.add(&promise.at, &promise.digest, fault);
            }
        }
        (self.report, self.blobs, self.manifests)
    }

    fn add(&mut self, at: &At, digest: &Digest, fault: Fault) {
        let problem = Problem { place: at.to_string(), digest: Some(*digest), fault };
        self.report.add(problem, self.max_problems);
    }

    /// Adds a problem of the media type of a descriptor.
    fn add_type(&mut self, at: &At, descriptor: &Descriptor, problem: &'static str) {
        self.add(at, &descriptor.digest, Fault::MediaType { found: descriptor.media_type.clone(), problem });
    }

    async fn run(&mut self) -> Result<()> {
        while let Some(Node { descriptor, path, found, .. }) = self.walk.next().await {
            match found {
                Found::Content(read) => self.visit(&descriptor, &path, read).await?,
                Found::Referrers(listed) => {
                    for referrer in listed? {
                        self.meet(&referrer.descriptor, At::below(&path, referrer.edge))?;
                    }
                }
                Found::Unread => {}
            }
        }
        Ok(())
    }

    async fn visit(&mut self, descriptor: &Descriptor, path: &Arc<Path>, read: Result<Read>) -> Result<()> {
        let at = At::of(path);
        let (document, config) = match read {
            Ok(Some(read)) => read,
            Ok(None) => {
                self.blob(descriptor, at, None);
                return Ok(());
            }
            Err(error) => {
                let fault = fault_of(error)?;
                // A missing document has no known children; one that exists and cannot be parsed may reference
                // anything.
                self.followed_all &= fault == Fault::Missing;
                self.add(&at, &descriptor.digest, fault);
                return Ok(());
            }
        };
        let stated = &descriptor.media_type;
        if document.media_type(stated) != stated.essence() && stated.is_document() {
            self.add_type(&at, descriptor, "is not that of the document, which some tools reject");
        }
        self.report.documents += 1;
        self.report.bytes += descriptor.size;
        match &document {
            Document::Index(index) => self.index(index, path)?,
            Document::Manifest(manifest) => {
                self.manifests.push(FoundManifest { descriptor: descriptor.clone(), path: path.clone() });
                self.manifest(manifest, config, stated, path)?;
            }
        }
        if let Some(subject) = document.subject() {
            self.subject(subject, path).await?;
        }
        if self.ask_for_referrers {
            self.walk.add_referrers(path, &[]);
        }
        Ok(())
    }

    /// Handles a descriptor in a document.
    fn meet(&mut self, descriptor: &Descriptor, at: At) -> Result<()> {
        let (digest, size, media_type) = (descriptor.digest, descriptor.size, &descriptor.media_type);
        let form = if media_type.is_index() { DocumentType::Index } else { DocumentType::Manifest };
        let is_unknown = !media_type.is_document();
        if media_type.is_blob() || is_unknown && size > MAX_DOCUMENT_BYTES {
            self.blob(descriptor, at, None);
            return Ok(());
        }
        self.reached.insert(digest);
        if media_type.is_schema1() {
            self.followed_all = false;
            self.add_type(&at, descriptor, "is that of a Docker schema 1 manifest, which is not checked");
            return Ok(());
        }
        if let Some(platform) = descriptor.platform.clone().filter(|platform| !platform.is_unknown()) {
            self.promises.push(Promise { at: at.clone(), digest, platform });
        }
        if !self.seen.insert((digest, size, form)) {
            return Ok(());
        }
        let is_too_deep = at.parent.as_ref().is_some_and(|parent| self.walk.is_deepest(parent));
        if is_too_deep || size > MAX_DOCUMENT_BYTES {
            self.followed_all = false;
            let fault = if is_too_deep { Fault::TooDeep } else { Fault::TooLong { size } };
            self.add(&at, &digest, fault);
            return Ok(());
        }
        // Only of a blob the other fields are needed.
        let bare = (!is_unknown).then(|| Descriptor::new(media_type.clone(), digest, size));
        let descriptor = bare.as_ref().unwrap_or(descriptor);
        match &at.parent {
            Some(parent) => self.walk.add_again(parent, at.edge, descriptor),
            None => self.walk.start(descriptor).map(drop),
        }
    }

    fn index(&mut self, index: &Index, path: &Arc<Path>) -> Result<()> {
        let attests = |entry: &Descriptor| {
            let about = entry.annotations.get(annotations::DOCKER_REFERENCE_DIGEST)?;
            entry.is_attestation().then(|| about.to_owned())
        };
        let entries = index.manifests();
        // Most indexes have no attestation manifests, and some have 25,000 entries.
        let listed: HashSet<Digest> = match entries.iter().any(|entry| attests(entry).is_some()) {
            true => entries.iter().map(|entry| entry.digest).collect(),
            false => HashSet::new(),
        };
        for (position, entry) in entries.iter().enumerate() {
            let at = At::below(path, Edge::Manifest(position));
            if let Some(text) = attests(entry)
                && !text.parse().is_ok_and(|digest| listed.contains(&digest))
            {
                self.add(&at, &entry.digest, Fault::Attestation { text });
            }
            if !entry.media_type.is_document() {
                self.add_type(&at, entry, "is neither that of a manifest nor that of an index");
            }
            self.meet(entry, at)?;
        }
        Ok(())
    }

    fn manifest(
        &mut self,
        manifest: &Manifest,
        config: Option<Result<Config>>,
        stated: &MediaType,
        path: &Arc<Path>,
    ) -> Result<()> {
        let at_config = At::below(path, Edge::Config);
        let mut diff_ids = Vec::new();
        if let Some(descriptor) = manifest.config() {
            match config {
                // A document of an unknown type is checked like a blob.
                None => {
                    self.blob(descriptor, at_config.clone(), None);
                    if descriptor.media_type.is_image_config() {
                        self.add(&at_config, &descriptor.digest, Fault::TooLong { size: descriptor.size });
                    }
                }
                Some(Ok(config)) => {
                    self.reached.insert(descriptor.digest);
                    self.report.documents += 1;
                    self.report.bytes += descriptor.size;
                    diff_ids = self.config(manifest, &config, path);
                }
                Some(Err(error)) => {
                    self.reached.insert(descriptor.digest);
                    self.add(&at_config, &descriptor.digest, fault_of(error)?);
                }
            }
            if let Some(problem) = of_config(stated, manifest) {
                self.add_type(&at_config, descriptor, problem);
            }
        }
        let is_docker = *stated == MediaType::DOCKER_MANIFEST;
        let has_layers = manifest.layers().iter().any(|layer| layer.media_type.is_layer());
        for (position, layer) in manifest.layers().iter().enumerate() {
            let at = At::below(path, Edge::Layer(position));
            let is_image = has_layers && manifest.config().is_some_and(|config| config.media_type.is_image_config());
            if let Some(problem) = of_layer(&layer.media_type, is_docker, is_image) {
                self.add_type(&at, layer, problem);
            }
            self.blob(layer, at, diff_ids.get(position).copied());
        }
        Ok(())
    }

    /// Compares manifest and config. Returns the expected `diff_id` of each layer, if they have equally many.
    fn config(&mut self, manifest: &Manifest, config: &Config, path: &Path) -> Vec<Digest> {
        let layers = manifest.layers().len();
        if let Some(platform) = config.platform() {
            self.platforms.insert(path.digest, platform.clone());
        }
        let made: usize = config.history().iter().filter(|step| !step.empty_layer).count();
        if !config.history().is_empty() && made != layers {
            self.add(&At::of(path), &path.digest, Fault::HistoryCount { layers, history: made });
        }
        let diff_ids = &config.rootfs().diff_ids;
        if diff_ids.len() != layers {
            self.add(&At::of(path), &path.digest, Fault::LayerCount { layers, diff_ids: diff_ids.len() });
            return Vec::new();
        }
        diff_ids.clone()
    }

    /// Handles the subject of a referrer: it may be missing, and is checked if everything is.
    async fn subject(&mut self, subject: &Descriptor, path: &Arc<Path>) -> Result<()> {
        if self.reached.contains(&subject.digest) {
            return Ok(());
        }
        if !self.source.has(subject).await? {
            self.add(&At::of(path), &path.digest, Fault::Subject { subject: subject.digest });
        } else if !self.ask_for_referrers {
            self.meet(subject, At::below(path, Edge::Subject))?;
        }
        Ok(())
    }

    /// Adds a blob to be read later, once for all descriptors with its digest.
    fn blob(&mut self, descriptor: &Descriptor, at: At, diff_id: Option<Digest>) {
        self.reached.insert(descriptor.digest);
        let key = (descriptor.digest, descriptor.size);
        let position = *self.positions.entry(key).or_insert(self.blobs.len());
        if position == self.blobs.len() {
            self.blobs.push(Blob {
                at: at.clone(),
                descriptor: Descriptor::new(descriptor.media_type.clone(), descriptor.digest, descriptor.size),
                may_be_missing: !descriptor.urls.is_empty(),
                diff_ids: Vec::new(),
            });
        }
        if let Some(diff_id) = diff_id {
            let known = &mut self.blobs[position].diff_ids;
            if known.iter().all(|(other, _)| *other != diff_id) {
                known.push((diff_id, at));
            }
        }
    }
}

/// Reads a document, and its config if it is an image. A config that exceeds the limit is handled, and reported, like
/// any other blob.
async fn read(source: &dyn Source, descriptor: Descriptor) -> Result<Read> {
    let document = match source.content(&descriptor).await? {
        Content::Document(document) => document,
        Content::Blob => return Ok(None),
        Content::Schema1 => {
            let what = format!("{} is a Docker schema 1 manifest, which is not supported", descriptor.digest);
            return Err(Error::Unsupported { place: source.to_string(), what });
        }
    };
    let is_read = |config: &&Descriptor| config.media_type.is_image_config() && config.size <= MAX_DOCUMENT_BYTES;
    let config = match &document {
        Document::Manifest(manifest) => manifest.config().filter(is_read).cloned(),
        Document::Index(_) => None,
    };
    let config = match config {
        Some(config) => Some(read_config(source, &config).await),
        None => None,
    };
    Ok(Some((document, config)))
}

/// Returns whether two platforms agree in the fields that both have.
fn agree(stated: &Platform, actual: &Platform) -> bool {
    let (stated, actual) = (stated.normalized(), actual.normalized());
    let same = |one: &Option<String>, other: &Option<String>| match (one, other) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    // `arm` without a variant is normalized to `arm/v7`, which is a guess.
    (&stated.os, &stated.architecture) == (&actual.os, &actual.architecture)
        && (same(&stated.variant, &actual.variant) || stated.architecture == "arm")
        && same(&stated.os_version, &actual.os_version)
}

/// Returns why the media type of a config does not fit its manifest.
fn of_config(stated: &MediaType, manifest: &Manifest) -> Option<&'static str> {
    let config = &manifest.config()?.media_type;
    let is_docker = *stated == MediaType::DOCKER_MANIFEST;
    if is_docker && *config == MediaType::OCI_CONFIG {
        Some("is OCI's, and the manifest is docker's")
    } else if !is_docker && *config == MediaType::DOCKER_CONFIG {
        Some("is docker's, and the manifest is OCI's")
    } else if *config == MediaType::OCI_EMPTY && manifest.artifact_type().is_none() {
        Some("means that there is no config, but the artifact type is missing")
    } else {
        None
    }
}

/// Returns why the media type of a layer does not fit its manifest.
fn of_layer(layer: &MediaType, is_docker: bool, is_image: bool) -> Option<&'static str> {
    let text = layer.as_str();
    if layer.is_document() {
        Some("is that of a manifest or an index")
    } else if !layer.is_layer() {
        is_image.then_some("is not that of a layer")
    } else if is_docker && text.starts_with("application/vnd.oci.") {
        Some("is OCI's, and the manifest is docker's")
    } else if !is_docker && text.starts_with("application/vnd.docker.") {
        Some("is docker's, and the manifest is OCI's")
    } else if layer.is_tar_layer() && super::contents::stated(layer).is_none() {
        Some("is that of a layer in an unknown format")
    } else {
        None
    }
}
