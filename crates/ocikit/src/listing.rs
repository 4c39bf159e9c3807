use std::sync::Arc;

use ocikit_image::{Error, Name, Result, Root, Source};
use ocikit_layout::{Dir, open_all};
use ocikit_spec::{Descriptor, annotations};

use crate::location::Location;
use crate::session::{Session, unsupported};

/// The number of images of one place that are opened when the location names none of them.
pub const MAX_LISTED_IMAGES: usize = 1000;

impl Session {
    /// Opens what a location names or, of an archive or layout with several images of which it names none, all of them, each
    /// with its own location.
    ///
    /// # Errors
    ///
    /// Those of [`Session::open`]; [`Error::Ambiguous`] for more than [`MAX_LISTED_IMAGES`].
    pub async fn open_each(&self, location: &Location) -> Result<Vec<(Location, Root)>> {
        let source = self.source(location).await?;
        let choices = match Root::open(source.clone(), &location.name()).await {
            Ok(root) => return Ok(vec![(location.clone(), root)]),
            Err(Error::Ambiguous { choices, .. })
                if location.name() == Name::Only && choices.len() <= MAX_LISTED_IMAGES =>
            {
                choices
            }
            Err(error) => return Err(error),
        };
        let mut roots = Vec::new();
        for choice in choices {
            let name = named(&choice);
            roots.push((location.with_name(name.clone()), Root::open(source.clone(), &name).await?));
        }
        Ok(roots)
    }

    /// The names of the images in an archive or layout, in its order: tags, and full names where it keeps them. Images
    /// without a name have none.
    ///
    /// # Errors
    ///
    /// Those of the place; [`Error::Unsupported`] for registries and pipes.
    pub async fn names(&self, location: &Location) -> Result<Vec<String>> {
        let path = match (location, location.path()) {
            (_, Some(path)) => path,
            (Location::Stdio, _) => return Err(Error::pipe(location)),
            (_, None) => return Err(unsupported(location, "it is neither an archive nor a layout")),
        };
        let roots = match path.is_dir() {
            true => self.shared(Dir::open(path).await?).roots().await?,
            false => {
                let (_, inventory): (Arc<dyn Source>, _) = open_all(path, &self.scratch()).await?;
                inventory.roots
            }
        };
        let mut names: Vec<String> = Vec::new();
        for name in roots.manifests().iter().filter_map(name_of) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

/// The name of an entry: the full one if it has one.
fn name_of(entry: &Descriptor) -> Option<&str> {
    let full = entry.annotations.get(annotations::CONTAINERD_NAME).filter(|name| name.contains(['/', ':']));
    full.or_else(|| entry.annotations.get(annotations::REF_NAME))
}

/// What chooses an image that a place lists under this text.
fn named(choice: &str) -> Name {
    match (choice.parse(), choice.parse()) {
        (Ok(digest), _) => Name::Digest(digest),
        (_, Ok(tag)) => Name::Tag(tag),
        _ => Name::Full(choice.to_owned()),
    }
}
