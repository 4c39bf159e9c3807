//! Compares two images, wherever they are stored, down to their files.

mod documents;
mod files;
mod layers;
mod report;

use std::collections::HashMap;
use std::sync::Arc;

use ocikit_image::{Image, ImageFormats, Result, Root};
use ocikit_spec::{Descriptor, Platform, annotations};
use serde_json::Value;

use documents::{compare, without};

use report::Report;
pub use report::{Area, Change, Class, Diff, Difference};

/// Compares two roots.
///
/// Equal digests are not read. Entries of indexes are compared by platform; an image is compared with the entry of an
/// index for its platform. Layers that both images share are recognized by their digest. If others remain, all are read
/// once, the digests of their tars are computed, and files are compared by their digests. Claims of a config about
/// layers are not trusted.
///
/// Reading layers is bounded by one [`Budget`](ocikit_image::files::Budget).
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let layout = ocikit::image::testing::TemporaryLayout::new();
/// # let app = ocikit::Location::layout(layout.path());
/// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
/// let root = session.open(&app).await?;
/// let difference = ocikit::diff(&root, &root).await?;
/// assert!(difference.differences.is_empty());
/// # Ok::<(), ocikit::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// Those of reading either side.
pub async fn diff(left: &Root, right: &Root) -> Result<Diff> {
    diff_with(left, right, None).await
}

/// As [`diff`], with further formats of images, whose files are compared like those of others. What such a format adds to a
/// document is a difference in encoding.
///
/// # Errors
///
/// As [`diff`], and those of the formats.
pub async fn diff_with(left: &Root, right: &Root, formats: Option<&Arc<dyn ImageFormats>>) -> Result<Diff> {
    let mut report = Report::new(formats.cloned());
    compare_roots(&mut report, left, right).await?;
    Ok(Diff { left: left.digest(), right: right.digest(), differences: report.differences })
}

/// Compares two documents. A walk has one root, so that pairs are followed here, within the limits of a walk.
async fn compare_roots(report: &mut Report, left: &Root, right: &Root) -> Result<()> {
    if left.digest() == right.digest() {
        return Ok(());
    }
    report.count(left)?;
    match (left, right) {
        (Root::Index(one), Root::Index(other)) => compare_indexes(report, one, other).await,
        (Root::Image(one), Root::Image(other)) => compare_images(report, one, other).await,
        (Root::Index(index), Root::Image(image)) | (Root::Image(image), Root::Index(index)) => {
            compare_index_with_image(report, index, image, matches!(left, Root::Index(_))).await
        }
        _ => {
            compare_artifacts(report, left, right);
            Ok(())
        }
    }
}

async fn compare_indexes(report: &mut Report, left: &ocikit_image::Index, right: &ocikit_image::Index) -> Result<()> {
    let (one, other) = (value(left.document().bytes()), value(right.document().bytes()));
    documents::media_type(report, Area::Index, &left.descriptor().media_type, &right.descriptor().media_type);
    let rest = |value: &Value| without(value, &["manifests", "mediaType"]);
    compare(report, Area::Index, "", &rest(&one), &rest(&other));
    let (lefts, rights) = (entries(left).await?, entries(right).await?);
    let common = |these: &[(String, usize)], those: &[(String, usize)]| -> Vec<String> {
        let known: Vec<_> = those.iter().map(|(key, _)| key).collect();
        these.iter().filter(|(key, _)| known.contains(&key)).map(|(key, _)| key.clone()).collect()
    };
    let (order, other_order) = (common(&lefts, &rights), common(&rights, &lefts));
    if order != other_order {
        let (one, other) = (Some(order.join(", ")), Some(other_order.join(", ")));
        report.add(Difference::of(Area::Index, "manifests", Class::Order, one, other));
    }
    let by_key: HashMap<_, _> = rights.iter().map(|(key, at)| (key, *at)).collect();
    for (key, at) in &lefts {
        let entry = &left.manifests()[*at];
        let Some(other_at) = by_key.get(key) else {
            report.add(report.one_sided(key, entry, Some(entry.digest.to_string()), None));
            continue;
        };
        let other_entry = &right.manifests()[*other_at];
        let mut below = report.below(key);
        let platform = |entry: &Descriptor| entry.platform.as_ref().map(Platform::normalized);
        // A default variant may be omitted.
        let keys: &[&str] = if platform(entry) == platform(other_entry) { &["platform"] } else { &[] };
        let described = |value: &Value, at: usize| without(&described(&value["manifests"][at]), keys);
        let (described, other_described) = (described(&one, *at), described(&other, *other_at));
        compare(&mut below, Area::Descriptor, "", &described, &other_described);
        if entry.digest != other_entry.digest {
            let (root, other_root) = (left.open(entry).await?, right.open(other_entry).await?);
            Box::pin(compare_roots(&mut below, &root, &other_root)).await?;
        }
        report.take(below);
    }
    for (key, at) in rights.iter().filter(|(key, _)| !order.contains(key)) {
        let entry = &right.manifests()[*at];
        report.add(report.one_sided(key, entry, None, Some(entry.digest.to_string())));
    }
    documents::spelling(report, Area::Index, left.document().bytes(), right.document().bytes());
    Ok(())
}

/// Compares an index with an image: with its only entry for the same platform.
async fn compare_index_with_image(
    report: &mut Report,
    index: &ocikit_image::Index,
    image: &Image,
    index_is_left: bool,
) -> Result<()> {
    let config = image.config().await?;
    let platform = config.platform().cloned().unwrap_or_else(Platform::of_this_machine);
    let images =
        index.manifests().iter().filter(|entry| !entry.is_attestation() && !report.is_of_format(entry)).count();
    // An index with one image, and possibly its attestation manifests, is equivalent to that image.
    let class = if images == 1 { Class::Encoding } else { Class::Semantic };
    let (one, other) = if index_is_left { ("index", "image") } else { ("image", "index") };
    report.add(Difference::of(Area::Index, "kind", class, Some(one.to_owned()), Some(other.to_owned())));
    match index.image_for(&platform).await {
        Ok(entry) if index_is_left => compare_images(report, &entry, image).await,
        Ok(entry) => compare_images(report, image, &entry).await,
        Err(error) if error.is_not_found() => {
            let digest = Some(image.digest().to_string());
            let (one, other) = if index_is_left { (None, digest) } else { (digest, None) };
            report.add(Difference::of(Area::Index, platform.to_string(), Class::Semantic, one, other));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn compare_images(report: &mut Report, left: &Image, right: &Image) -> Result<()> {
    if left.digest() == right.digest() {
        return Ok(());
    }
    let (one, other) = (value(left.manifest().bytes()), value(right.manifest().bytes()));
    // An image whose layers are no tars has them in an order of its own.
    let pairs = !report.has_own_layers(left).await? && !report.has_own_layers(right).await?;
    let (left, right) = (&report.files(left).await?, &report.files(right).await?);
    compare_manifests(report, left.descriptor(), right.descriptor(), &one, &other, pairs);
    let digest = |image: &Image| image.manifest().config().map(|config| config.digest);
    let config = left.config().await?;
    let other_config = if digest(left) == digest(right) { config.clone() } else { right.config().await? };
    if config.bytes() != other_config.bytes() {
        let rest = |bytes: &[u8]| {
            let mut config = value(bytes);
            if let Some(rootfs) = config.get_mut("rootfs") {
                *rootfs = without(rootfs, &["diff_ids"]);
            }
            config
        };
        let (mut one, mut other) = (rest(config.bytes()), rest(other_config.bytes()));
        if !pairs {
            history(report, &mut one, &mut other);
        }
        compare(report, Area::Config, "", &one, &other);
        documents::spelling(report, Area::Config, config.bytes(), other_config.bytes());
    }
    if left.has_files() && right.has_files() {
        layers::compare(report, left, right).await?;
    } else {
        blobs(report, left.manifest().layers(), right.manifest().layers());
    }
    documents::spelling(report, Area::Manifest, left.manifest().bytes(), right.manifest().bytes());
    Ok(())
}

fn compare_artifacts(report: &mut Report, left: &Root, right: &Root) {
    let documents = (left.document(), right.document());
    let (Some(one), Some(other)) = documents else {
        let (one, other) = (Some(left.digest().to_string()), Some(right.digest().to_string()));
        return report.add(Difference::of(Area::Manifest, "digest", Class::Semantic, one, other));
    };
    let (one_value, other_value) = (value(one.bytes()), value(other.bytes()));
    compare_manifests(report, left.descriptor(), right.descriptor(), &one_value, &other_value, true);
    let blobs_of = |document: &ocikit_spec::Document| -> Vec<Descriptor> { document.children().cloned().collect() };
    blobs(report, &blobs_of(&one), &blobs_of(&other));
    documents::spelling(report, Area::Manifest, one.bytes(), other.bytes());
}

/// Takes the history out of two configs and reports a difference as one of encoding, for images whose layers are not those of
/// the steps of a build.
fn history(report: &mut Report, left: &mut Value, right: &mut Value) {
    let take = |config: &mut Value| config.as_object_mut().and_then(|config| config.remove("history"));
    let (one, other) = (take(left), take(right));
    if one != other {
        let count = |steps: &Option<Value>| steps.as_ref().and_then(Value::as_array).map_or(0, Vec::len);
        let text = |steps: &Option<Value>| Some(format!("{} steps", count(steps)));
        report.add(Difference::of(Area::Config, "history", Class::Encoding, text(&one), text(&other)));
    }
}

/// Compares two manifests without the digests and sizes of their children, and the descriptors of layers if they are pairs.
fn compare_manifests(
    report: &mut Report,
    left: &Descriptor,
    right: &Descriptor,
    one: &Value,
    other: &Value,
    are_pairs: bool,
) {
    documents::media_type(report, Area::Manifest, &left.media_type, &right.media_type);
    let rest = |value: &Value| without(value, &["mediaType", "config", "layers", "manifests"]);
    compare(report, Area::Manifest, "", &rest(one), &rest(other));
    let config = |value: &Value| described(&value["config"]);
    compare(report, Area::Descriptor, "config", &config(one), &config(other));
    let count = |value: &Value| value["layers"].as_array().map_or(0, Vec::len);
    // If the numbers differ, there are no obvious pairs; layers are compared by their contents.
    if are_pairs && count(one) == count(other) {
        for at in 0..count(one) {
            let layer = |value: &Value| described(&value["layers"][at]);
            let place = format!("layers.{at}");
            compare(report, Area::Descriptor, &place, &layer(one), &layer(other));
        }
    }
}

/// Compares blobs by digest.
fn blobs(report: &mut Report, left: &[Descriptor], right: &[Descriptor]) {
    for at in 0..left.len().max(right.len()) {
        let (one, other) = (left.get(at), right.get(at));
        if one.map(|blob| blob.digest) != other.map(|blob| blob.digest) {
            let text = |blob: Option<&Descriptor>| blob.map(|blob| blob.digest.to_string());
            report.add(Difference::of(Area::Layer, at.to_string(), Class::Semantic, text(one), text(other)));
        }
    }
}

/// Returns a descriptor without the fields that depend on the contents.
fn described(descriptor: &Value) -> Value {
    let mut rest = without(descriptor, &["digest", "size"]);
    if let Some(found) = rest.get_mut("annotations") {
        *found = without(found, &[annotations::DOCKER_REFERENCE_DIGEST]);
    }
    rest
}

/// Returns each entry of an index with a key for its purpose, independent of its position.
async fn entries(index: &ocikit_image::Index) -> Result<Vec<(String, usize)>> {
    let (manifests, platforms) = (index.manifests(), index.platforms().await?);
    let mut seen: HashMap<String, usize> = HashMap::new();
    let platform_of = |digest: &str| {
        let at = manifests.iter().position(|entry| entry.digest.to_string() == digest)?;
        platforms[at].as_ref().map(Platform::to_string)
    };
    let mut named = Vec::new();
    for (at, entry) in manifests.iter().enumerate() {
        let key = match (platforms[at].as_ref().or(entry.platform.as_ref()), &entry.artifact_type) {
            _ if entry.is_attestation() => {
                let about = entry.annotations.get(annotations::DOCKER_REFERENCE_DIGEST).and_then(platform_of);
                format!("attestation of {}", about.unwrap_or_else(|| "something else".to_owned()))
            }
            (Some(platform), _) => platform.normalized().to_string(),
            (None, Some(kind)) => kind.to_string(),
            (None, None) => "no platform".to_owned(),
        };
        let count = seen.entry(key.clone()).or_default();
        *count += 1;
        named.push((if *count == 1 { key } else { format!("{key} ({count})") }, at));
    }
    Ok(named)
}

/// Returns the JSON of a document that was parsed before.
fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_default()
}
