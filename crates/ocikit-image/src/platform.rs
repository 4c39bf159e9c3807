//! The platforms of the entries of an index: what they name or, where they name none, what their configs have.

use futures::{StreamExt, TryStreamExt, stream};
use ocikit_spec::{Config, Content, Descriptor, Document, MAX_DOCUMENT_SIZE, Platform};

use crate::error::{Error, Result};
use crate::source::{Source, SourceExt, read_at_most};

/// The number of entries without platform whose configs are read.
pub const MAX_PLATFORM_LOOKUPS: usize = 256;

/// How many of them are read at the same time.
const LOOKUPS_AT_ONCE: usize = 8;

/// The platform of each entry of an index, in order; `None` for what is no image or is not here.
///
/// # Errors
///
/// Those of reading manifests and configs; [`Error::Unsupported`] if more than [`MAX_PLATFORM_LOOKUPS`] entries name no
/// platform.
pub async fn of_entries(source: &dyn Source, entries: &[Descriptor]) -> Result<Vec<Option<Platform>>> {
    let lookups = entries.iter().filter(|entry| needs_lookup(entry)).count();
    if lookups > MAX_PLATFORM_LOOKUPS {
        let what = format!("the index exceeds the limit of {MAX_PLATFORM_LOOKUPS} entries without platform");
        return Err(Error::Unsupported { place: source.to_string(), what });
    }
    // Boxed, since the futures of a list that is borrowed are not general enough otherwise.
    let found: Vec<_> = entries.iter().map(|entry| Box::pin(of_entry(source, entry))).collect();
    stream::iter(found).buffered(LOOKUPS_AT_ONCE).try_collect().await
}

fn needs_lookup(entry: &Descriptor) -> bool {
    let is_named = entry.platform.as_ref().is_some_and(|found| !found.os.is_empty() || !found.architecture.is_empty());
    !is_named && !entry.media_type.is_blob() && !entry.media_type.is_index() && !entry.is_attestation()
}

async fn of_entry(source: &dyn Source, entry: &Descriptor) -> Result<Option<Platform>> {
    if !needs_lookup(entry) {
        return Ok(entry.platform.clone().filter(|found| !found.is_unknown() && !entry.is_attestation()));
    }
    let looked = async {
        let Content::Document(Document::Manifest(manifest)) = source.content(entry).await? else {
            return Ok::<_, Error>(None);
        };
        let config = manifest.config().filter(|config| config.media_type.is_image_config());
        let Some(config) = config.filter(|_| manifest.artifact_type().is_none()) else { return Ok(None) };
        read_at_most(source, config, MAX_DOCUMENT_SIZE)?;
        let bytes = source.read(config).await?;
        let config = Config::parse(bytes).map_err(|error| Error::document(&config.digest, source, error))?;
        Ok(config.platform().cloned())
    };
    match looked.await {
        // An index that was copied in part has entries that are not here.
        Err(error) if error.is_not_found() => Ok(None),
        looked => looked,
    }
}

/// For each wanted platform the entries that answer it best; an error if one has none.
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
