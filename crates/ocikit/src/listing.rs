use std::sync::Arc;

use ocikit_image::{Error, Name, Result, Root, Source};
use ocikit_layout::{Dir, open_all};
use ocikit_spec::{Descriptor, annotations};

use crate::location::Location;
use crate::session::{Session, as_written, unsupported};

/// The maximum number of images that are opened for a location without a name.
pub const MAX_LISTED_IMAGES: usize = 1000;

impl Session {
    /// Opens the image of a location, or all images of an archive or layout if the location does not select one, each
    /// with its own location.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// for (location, root) in session.open_each(&app).await? {
    ///     println!("{location}: {}", root.digest());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Session::open`]; [`Error::Ambiguous`] for more than [`MAX_LISTED_IMAGES`].
    pub async fn open_each(&self, location: &Location) -> Result<Vec<(Location, Root)>> {
        let source = self.source(location).await?;
        let choices = match as_written(location, Root::open(source.clone(), &location.name()).await) {
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

    /// Lists the names of the images in an archive or layout, in its order: full names if it stores them, otherwise
    /// tags. Images without a name are skipped.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let layout = ocikit::image::testing::TemporaryLayout::new();
    /// # let app = ocikit::Location::layout(layout.path());
    /// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
    /// assert_eq!(session.names(&app).await?, ["1"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the place; [`Error::Unsupported`] for registries and pipes.
    pub async fn names(&self, location: &Location) -> Result<Vec<String>> {
        let path = match location.path() {
            Some(path) => path,
            None if *location == Location::Stdio => return Err(Error::pipe(location)),
            None => return Err(unsupported(location, "it is neither an archive nor a layout")),
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

/// Returns the name of an entry, preferably the full one.
fn name_of(entry: &Descriptor) -> Option<&str> {
    let full = entry.annotations.get(annotations::CONTAINERD_NAME).filter(|name| name.contains(['/', ':']));
    full.or_else(|| entry.annotations.get(annotations::REF_NAME))
}

/// Returns the name that selects the image listed under this text.
fn named(choice: &str) -> Name {
    match (choice.parse(), choice.parse()) {
        (Ok(digest), _) => Name::Digest(digest),
        (_, Ok(tag)) => Name::Tag(tag),
        _ => Name::Full(choice.to_owned()),
    }
}
