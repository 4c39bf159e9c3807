//! The build cache in a directory: an OCI layout that BuildKit imports and exports.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ocikit_image::{ScratchDirectory, ScratchKind};
use ocikit_spec::{Digest, Index, Manifest};
use serde_json::{Value, json};

use crate::export::parent;

/// A directory with the build cache. It holds only what the last build used.
#[derive(Debug, Clone)]
pub struct Cache {
    /// The directory.
    pub directory: PathBuf,
    /// The maximum size of its blobs in bytes. The oldest results are removed if there are more.
    pub max_bytes: Option<u64>,
}

impl Cache {
    pub(crate) fn exists(&self) -> bool {
        self.directory.join("index.json").is_file()
    }
}

/// A cache during a build: its last state, which is imported, and the place of the next one, which is exported. Several builds
/// may use one cache at the same time; the state of the one that ends last is kept.
#[derive(Debug)]
pub(crate) struct CacheInUse {
    cache: Cache,
    /// The lock of the last state while it is read.
    read: Option<File>,
    /// The directory with the next state, which no other build uses.
    staging: ScratchDirectory,
}

/// The name of the next state in its directory.
const NEXT: &str = "next";

impl CacheInUse {
    /// Makes the directory of the next state beside the cache, and keeps other builds from removing the last state.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub(crate) fn begin(cache: &Cache) -> io::Result<CacheInUse> {
        let parent = parent(&cache.directory);
        fs::create_dir_all(parent)?;
        let staging = ScratchDirectory::create(&parent.canonicalize()?, ScratchKind::Cache)?;
        let read = File::open(&cache.directory).ok().filter(|directory| directory.try_lock_shared().is_ok());
        Ok(CacheInUse { cache: cache.clone(), read, staging })
    }

    /// Returns the last state, if there is one that stays until the end of the build.
    pub(crate) fn last(&self) -> Option<&Path> {
        (self.read.is_some() && self.cache.exists()).then_some(&*self.cache.directory)
    }

    /// Returns the directory of the next state, which then replaces the last one.
    pub(crate) fn next(&self) -> PathBuf {
        self.staging.path().join(NEXT)
    }

    /// Returns the directory to remove if the build fails.
    pub(crate) fn leftover(&self) -> &Path {
        self.staging.path()
    }

    /// Replaces the last state by the next one, if there is one. The last state stays if that cannot be limited to the maximum
    /// size, and if another build reads it.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub(crate) fn replace(self) -> io::Result<()> {
        let next = self.next();
        let CacheInUse { cache: Cache { directory, max_bytes }, read, staging } = self;
        drop(read);
        if !next.join("index.json").is_file() {
            return Ok(());
        }
        let limited = max_bytes.map_or(Ok(()), |max_bytes| limit(&next, max_bytes));
        let last = staging.path().join("last");
        if directory.exists() {
            let locked = File::open(&directory)?;
            if locked.try_lock().is_err() {
                return Ok(());
            }
            if limited.is_ok() {
                // Both moves take no time, so hardly any build finds no cache.
                fs::rename(&directory, &last)?;
            }
        }
        limited?;
        fs::rename(next, &directory)
    }
}

/// Removes the oldest results from a build cache until its layers have at most `max_bytes`.
///
/// The format is that of BuildKit's `cache/remotecache/v1`: a manifest whose config lists the layers, each with its
/// parent, and records of steps whose results name a layer and the time of their creation. A step without a result is
/// kept, because other steps refer to it by its position.
fn limit(directory: &Path, max_bytes: u64) -> io::Result<()> {
    let invalid = |_| io::Error::new(io::ErrorKind::InvalidData, "the build cache is not in the format of BuildKit");
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "the build cache is not in the format of BuildKit");
    let blob = |digest: &Digest| directory.join(digest.blob_path());
    let list = Index::parse(fs::read(directory.join("index.json"))?).map_err(invalid)?;
    let [entry] = list.manifests() else { return Err(missing()) };
    let text = fs::read(blob(&entry.digest))?;
    let manifest = Manifest::parse(text.clone()).map_err(invalid)?;
    let old_config = manifest.config().ok_or_else(missing)?.clone();
    let config: Value = serde_json::from_slice(&fs::read(blob(&old_config.digest))?)?;
    let sizes: HashMap<_, _> = manifest.layers().iter().map(|layer| (layer.digest.to_string(), layer.size)).collect();

    let mut content = Content::of(config, sizes).ok_or_else(missing)?;
    if content.bytes() <= max_bytes {
        return Ok(());
    }
    while content.bytes() > max_bytes && content.remove_oldest() {}
    let kept = content.used_blobs();
    let config = serde_json::to_vec(&content.renumbered())?;
    let config_digest = Digest::sha256_of(&config);
    let mut document: Value = serde_json::from_slice(&text)?;
    document["config"]["digest"] = json!(config_digest);
    document["config"]["size"] = json!(config.len());
    if let Some(layers) = document["layers"].as_array_mut() {
        layers.retain(|layer| layer["digest"].as_str().is_some_and(|digest| kept.contains(digest)));
    }
    let document = serde_json::to_vec(&document)?;
    let digest = Digest::sha256_of(&document);
    let mut index: Value = serde_json::from_slice(&fs::read(directory.join("index.json"))?)?;
    index["manifests"][0]["digest"] = json!(digest);
    index["manifests"][0]["size"] = json!(document.len());
    fs::write(blob(&config_digest), config)?;
    fs::write(blob(&digest), document)?;
    fs::write(directory.join("index.json"), serde_json::to_vec(&index)?)?;
    let gone = manifest.layers().iter().filter(|layer| !kept.contains(&layer.digest.to_string()));
    for layer in gone.map(|layer| &layer.digest).chain([&old_config.digest, &entry.digest]) {
        fs::remove_file(blob(layer))?;
    }
    Ok(())
}

/// The config of a build cache.
struct Content {
    config: Value,
    sizes: HashMap<String, u64>,
}

impl Content {
    fn of(config: Value, sizes: HashMap<String, u64>) -> Option<Content> {
        config["layers"].as_array()?;
        config["records"].as_array()?;
        Some(Content { config, sizes })
    }

    fn layers(&self) -> &[Value] {
        self.config["layers"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the results of the records: pairs of a layer and the time of creation.
    fn results(&self) -> impl Iterator<Item = (usize, &str)> {
        let records = self.config["records"].as_array().into_iter().flatten();
        let results = records.flat_map(|record| record["layers"].as_array().into_iter().flatten());
        results.map(|result| (position(&result["layer"]), result["createdAt"].as_str().unwrap_or_default()))
    }

    /// Returns the layers that a result needs: those from its layer to the lowest one.
    fn used_layers(&self) -> BTreeSet<usize> {
        let chains = self.config["records"].as_array().into_iter().flatten();
        let chains = chains.flat_map(|record| record["chains"].as_array().into_iter().flatten());
        let chained = chains.flat_map(|chain| chain["layers"].as_array().into_iter().flatten()).map(position);
        let mut used = BTreeSet::new();
        for start in self.results().map(|(layer, _)| layer).chain(chained) {
            let mut next = Some(start);
            while let Some(layer) = next.filter(|layer| *layer < self.layers().len() && used.insert(*layer)) {
                // No parent is -1; the number is left out if it is 0.
                next = usize::try_from(self.layers()[layer]["parent"].as_i64().unwrap_or(0)).ok();
            }
        }
        used
    }

    fn used_blobs(&self) -> BTreeSet<String> {
        let used = self.used_layers();
        used.iter().filter_map(|layer| self.layers()[*layer]["blob"].as_str()).map(str::to_owned).collect()
    }

    fn bytes(&self) -> u64 {
        self.used_blobs().iter().filter_map(|blob| self.sizes.get(blob)).sum()
    }

    /// Removes the oldest result. Returns false if there is none. Times are RFC 3339 in UTC, which sort as text.
    fn remove_oldest(&mut self) -> bool {
        let Some(oldest) = self.results().map(|(_, time)| time.to_owned()).min() else { return false };
        for record in self.config["records"].as_array_mut().into_iter().flatten() {
            let Some(results) = record.get_mut("layers").and_then(Value::as_array_mut) else { continue };
            let before = results.len();
            results.retain(|result| result["createdAt"].as_str().unwrap_or_default() != oldest);
            if results.len() != before && results.is_empty() {
                record.as_object_mut().map(|record| record.remove("layers"));
            }
        }
        true
    }

    /// Returns the config without the layers that no result needs.
    fn renumbered(mut self) -> Value {
        let used: Vec<_> = self.used_layers().into_iter().collect();
        let new: HashMap<usize, usize> = used.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        let renumber = |value: &mut Value| {
            if let Some(new) = new.get(&position(value)) {
                *value = json!(new);
            }
        };
        let mut layers: Vec<_> = used.iter().map(|layer| self.layers()[*layer].clone()).collect();
        for layer in &mut layers {
            let parent = layer["parent"].as_i64().unwrap_or(0);
            if let Some(new) = usize::try_from(parent).ok().and_then(|parent| new.get(&parent)) {
                layer["parent"] = json!(new);
            }
        }
        self.config["layers"] = Value::Array(layers);
        for record in self.config["records"].as_array_mut().into_iter().flatten() {
            let results = record.get_mut("layers").and_then(Value::as_array_mut).into_iter().flatten();
            results.filter_map(|result| result.get_mut("layer")).for_each(renumber);
            let chains = record.get_mut("chains").and_then(Value::as_array_mut).into_iter().flatten();
            let chained = chains.filter_map(|chain| chain.get_mut("layers").and_then(Value::as_array_mut)).flatten();
            chained.for_each(renumber);
        }
        self.config
    }
}

/// Returns the position of a layer, which is left out if it is 0.
fn position(value: &Value) -> usize {
    value.as_u64().and_then(|position| usize::try_from(position).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_holds_what_the_last_build_needed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache { directory: directory.path().join("cache"), max_bytes: None };
        let write = |used: &CacheInUse, text: &str| {
            fs::create_dir(used.next()).unwrap();
            fs::write(used.next().join("index.json"), text).unwrap();
        };
        let found = || fs::read_to_string(cache.directory.join("index.json")).unwrap();
        for text in ["one", "two"] {
            let used = CacheInUse::begin(&cache).unwrap();
            assert_eq!(used.last().is_some(), text == "two");
            write(&used, text);
            used.replace().unwrap();
            assert_eq!(found(), text);
        }
        CacheInUse::begin(&cache).unwrap().replace().unwrap();
        assert!(cache.exists());
        // Two builds at the same time do not disturb each other.
        let [one, other] = [(); 2].map(|()| CacheInUse::begin(&cache).unwrap());
        write(&one, "three");
        write(&other, "four");
        one.replace().unwrap();
        assert!(other.last().is_some());
        assert_eq!(found(), "two", "the other build may still read it");
        other.replace().unwrap();
        assert_eq!(found(), "four");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    /// Writes a cache with three results: two layers on each other, and a newer one beside them.
    fn write(directory: &Path) -> [Digest; 3] {
        fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
        let put = |bytes: &[u8]| {
            let digest = Digest::sha256_of(bytes);
            fs::write(directory.join(digest.blob_path()), bytes).unwrap();
            digest
        };
        let layers = [b'a', b'b', b'c'].map(|letter| put(&[letter; 100]));
        let result =
            |layer: usize, time: &str| json!({"digest": "sha256:0", "layers": [{"layer": layer, "createdAt": time}]});
        let config = json!({
            "layers": [
                {"blob": layers[0], "parent": -1},
                {"blob": layers[1]},
                {"blob": layers[2], "parent": -1},
            ],
            "records": [result(0, "2020-01-01T00:00:00Z"), result(1, "2021-01-01T00:00:00Z"), result(2, "2022-01-01T00:00:00Z")],
        });
        let config = serde_json::to_vec(&config).unwrap();
        let config = json!({"mediaType": "application/vnd.buildkit.cacheconfig.v0", "digest": put(&config), "size": config.len()});
        let layer = |digest: &Digest| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": 100});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": put(&manifest), "size": manifest.len()});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        fs::write(directory.join("index.json"), index.to_string()).unwrap();
        layers
    }

    #[test]
    fn the_oldest_results_are_removed() {
        let place = tempfile::tempdir().unwrap();
        for (max_bytes, kept) in [(300, &[0, 1, 2][..]), (299, &[2]), (100, &[2]), (0, &[])] {
            let directory = place.path().join(max_bytes.to_string());
            let layers = write(&directory);
            limit(&directory, max_bytes).unwrap();
            for (position, layer) in layers.iter().enumerate() {
                let exists = directory.join(layer.blob_path()).exists();
                assert_eq!(exists, kept.contains(&position), "{max_bytes} {position}");
            }
            let list = Index::parse(fs::read(directory.join("index.json")).unwrap()).unwrap();
            let manifest = fs::read(directory.join(list.manifests()[0].digest.blob_path())).unwrap();
            let manifest = Manifest::parse(manifest).unwrap();
            assert_eq!(manifest.layers().len(), kept.len());
            let config = fs::read(directory.join(manifest.config().unwrap().digest.blob_path())).unwrap();
            let config: Value = serde_json::from_slice(&config).unwrap();
            assert_eq!(config["records"].as_array().unwrap().len(), 3);
            assert_eq!(config["layers"].as_array().unwrap().len(), kept.len());
            if kept == [2] {
                assert_eq!(config["records"][2]["layers"][0]["layer"], 0);
                assert!(config["records"][0].get("layers").is_none());
            }
        }
    }
}
