//! The layout of an image, in which a tag means one image, whatever the registry.

use std::path::Path;

use ocikit::layout::Dir;
use ocikit::{Error, Location, Name, Naming, Root, Session};

use super::plan::tag_of;

/// Returns the names that a layout has.
pub(super) async fn existing_names(session: &Session, layout: &Path) -> Result<Vec<String>, Error> {
    match session.names(&Location::layout(layout)).await {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        // A new layout gets its list with the first image.
        Err(_) if !layout.join("index.json").exists() => Ok(Vec::new()),
        names => names,
    }
}

/// Removes the full names that a layout has for the tags of new names: with another registry, they would be a second image
/// with the same tag.
pub(super) async fn forget_other_names(layout: &Path, existing: &[String], names: &[Naming]) -> Result<(), Error> {
    let is_replaced = |name: &&String| {
        let other = |naming: &Naming| {
            naming.tag.as_ref().is_some_and(|tag| tag.as_str() == tag_of(name)) && naming.full.as_ref() != Some(name)
        };
        name.contains('/') && names.iter().any(other)
    };
    for name in existing.iter().filter(is_replaced) {
        Dir::open(layout).await?.remove(&Name::Full(name.clone())).await?;
    }
    Ok(())
}

/// Opens an image of a layout; `None` if the layout does not have it, or has several with its tag, as other programs and
/// previous versions may write: the next image with that tag replaces them.
pub(super) async fn opened(session: &Session, location: &Location) -> Result<Option<Root>, Error> {
    if location.path().is_some_and(|path| !path.join("index.json").exists()) {
        return Ok(None);
    }
    match session.open(location).await {
        Err(error) if error.is_not_found() || matches!(error, Error::Ambiguous { .. }) => Ok(None),
        root => Ok(Some(root?)),
    }
}
