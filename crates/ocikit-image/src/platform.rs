//! The platforms of the entries of an index, from their descriptors or, if these have none, from the configs.

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_spec::{Content, Descriptor, Document, Platform};

use crate::error::{Error, Result};
use crate::source::{Source, SourceExt, read_config};

/// The maximum number of entries without a platform whose configs are read.
pub const MAX_PLATFORM_LOOKUPS: usize = 256;

/// The number of configs that are read in parallel.
const MAX_PARALLEL_LOOKUPS: usize = 8;

/// Returns the platform of each entry of an index, in order; `None` for an entry that is not an image or does not
/// exist.
///
/// # Errors
///
/// Those of reading manifests and configs; [`Error::Unsupported`] if more than [`MAX_PLATFORM_LOOKUPS`] entries have no
/// platform.
pub async fn of_entries(source: &dyn Source, entries: &[Descriptor]) -> Result<Vec<Option<Platform>>> {
    let lookups = entries.iter().filter(|entry| needs_lookup(entry)).count();
    if lookups > MAX_PLATFORM_LOOKUPS {
        let what = format!("the index exceeds the limit of {MAX_PLATFORM_LOOKUPS} entries without platform");
        return Err(Error::Unsupported { place: source.to_string(), what });
    }
    // Boxed, because the compiler cannot prove that the futures over borrowed entries are general enough otherwise.
    let found: Vec<_> = entries.iter().map(|entry| Box::pin(of_entry(source, entry))).collect();
    stream::iter(found).buffered(MAX_PARALLEL_LOOKUPS).try_collect().await
}

fn needs_lookup(entry: &Descriptor) -> bool {
    let is_named = entry.platform.as_ref().is_some_and(|found| !found.os.is_empty() || !found.architecture.is_empty());
    !is_named && !entry.media_type.is_blob() && !entry.media_type.is_index() && !entry.is_attestation()
}

async fn of_entry(source: &dyn Source, entry: &Descriptor) -> Result<Option<Platform>> {
    // A SOCI index has the platform of the image that it stands beside, and is none.
    if entry.artifact_type.is_some() {
        return Ok(None);
    }
    if !needs_lookup(entry) {
        return Ok(entry.platform.clone().filter(|found| !found.is_unknown() && !entry.is_attestation()));
    }
    let looked = async {
        let Content::Document(Document::Manifest(manifest)) = source.content(entry).await? else {
            return Ok::<_, Error>(None);
        };
        let config = manifest.config().filter(|config| config.media_type.is_image_config());
        let Some(config) = config.filter(|_| manifest.artifact_type().is_none()) else { return Ok(None) };
        Ok(read_config(source, config).await?.platform().cloned())
    };
    match looked.await {
        // An index that was copied in part lists manifests that do not exist.
        Err(error) if error.is_not_found() => Ok(None),
        looked => looked,
    }
}

/// Returns the positions of the entries with the best rank for each wanted platform; the platform if it has none.
pub(crate) fn best_entries(wanted: &[Platform], found: &[Option<Platform>]) -> Result<Vec<usize>, Platform> {
    let mut chosen = Vec::new();
    for platform in wanted {
        let ranked = || {
            let ranked = found.iter().enumerate();
            ranked.filter_map(|(at, found)| Some((at, platform.rank(found.as_ref()?)?)))
        };
        let best = ranked().map(|(_, rank)| rank).min().ok_or_else(|| platform.clone())?;
        chosen.extend(ranked().filter(|(_, rank)| *rank == best).map(|(at, _)| at));
    }
    Ok(chosen)
}
