use std::future::ready;
use std::io::Read;

use ocikit_image::{Index, Name, Result, Root, select_platforms};
use ocikit_layout::has_docker_list;
use ocikit_spec::{Descriptor, Platform};

use crate::location::Location;
use crate::session::Session;

/// The part of an image that an archive of `docker save` holds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Present {
    /// The number of manifests in the index.
    pub listed: usize,
    /// The platforms of the images that exist.
    pub platforms: Vec<Platform>,
}

/// Returns the platforms of the images that a place has of an index; `None` if it has all manifests that the index lists.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let layout = ocikit::image::testing::TemporaryLayout::new();
/// # let app = ocikit::Location::layout(layout.path());
/// # let session = ocikit::Session::local(ocikit::SessionOptions::default());
/// if let ocikit::Root::Index(index) = session.open(&app).await? {
///     assert_eq!(ocikit::held_platforms(&index).await?, None);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// Those of the place.
pub async fn held_platforms(index: &Index) -> Result<Option<Vec<Platform>>> {
    let there = held(index).await?;
    let platforms = there.iter().filter(is_image).filter_map(|entry| entry.platform.clone()).collect();
    Ok((there.len() < index.manifests().len()).then_some(platforms))
}

/// Returns the entries of an index whose manifests exist.
async fn held(index: &Index) -> Result<Vec<Descriptor>> {
    let mut held = Vec::new();
    for entry in index.manifests() {
        if index.source().has(entry).await? {
            held.push(entry.clone());
        }
    }
    Ok(held)
}

fn is_image(entry: &&Descriptor) -> bool {
    !entry.is_attestation() && !entry.platform.as_ref().is_some_and(Platform::is_unknown)
}

impl Session {
    /// Opens a location for a copy. With containerd's image store, `docker save` writes the index of all platforms and
    /// the image of one (kubernetes-sigs/kind#3795, moby/moby#49473). For such an archive, which has a `manifest.json`,
    /// the root is what exists: the image, or an index of the images that exist. The second value then describes it.
    ///
    /// A location with a digest always opens that digest, and so does a session that copies [some platforms
    /// only](crate::SessionOptions::only).
    ///
    /// ```no_run
    /// # async fn example(session: ocikit::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// let (root, present) = session.open_present(&"docker-save.tar".parse()?).await?;
    /// if let Some(present) = present {
    ///     println!("{} exists, for {:?} of {} manifests", root.digest(), present.platforms, present.listed);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Session::open`].
    pub async fn open_present(&self, location: &Location) -> Result<(Root, Option<Present>)> {
        let root = self.open(location).await?;
        let path = match location {
            _ if matches!(location.name(), Name::Digest(_)) => None,
            Location::Archive { path, .. } => Some(path),
            Location::Path { path, .. } if path.is_file() => Some(path),
            Location::Path { .. }
            | Location::Layout { .. }
            | Location::DockerArchive { .. }
            | Location::Registry(_)
            | Location::Stdio => None,
        };
        match path {
            Some(path) => self.present(root, has_docker_list(path, &self.scratch())).await,
            None => Ok((root, None)),
        }
    }

    /// As [`Session::open_present`], of an archive that comes through a pipe: it is read to its end into a temporary file
    /// first. [`Session::receive`] copies it while it comes.
    ///
    /// ```no_run
    /// # async fn example(session: ocikit::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use ocikit::Location;
    ///
    /// let (root, _) = session.open_pipe(&Location::Stdio, std::io::stdin()).await?;
    /// println!("{}", root.digest());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the archive and [`Root::open`].
    pub async fn open_pipe(
        &self,
        location: &Location,
        reader: impl Read + Send + 'static,
    ) -> Result<(Root, Option<Present>)> {
        let (place, name) = (location.to_string(), location.name());
        if location.is_docker_archive() {
            let source = ocikit_layout::open_docker_pipe(place, reader, &self.scratch()).await?;
            return Ok((Root::open(source, &name).await?, None));
        }
        let received = ocikit_layout::open_pipe(place, reader, &self.scratch()).await?;
        let root = Root::open(received.source, &name).await?;
        match name {
            Name::Digest(_) => Ok((root, None)),
            Name::Only | Name::Tag(_) | Name::Full(_) => self.present(root, ready(Ok(received.has_docker_list))).await,
        }
    }

    /// Returns the part of a root that exists, if it is less than the index lists and the archive was written for
    /// docker.
    pub(crate) async fn present(
        &self,
        root: Root,
        is_for_docker: impl Future<Output = Result<bool>> + Send,
    ) -> Result<(Root, Option<Present>)> {
        let Root::Index(index) = &root else { return Ok((root, None)) };
        if !self.options().only.is_empty() {
            return Ok((root, None));
        }
        let (there, listed) = (held(index).await?, index.manifests().len());
        let images: Vec<_> = there.iter().filter(is_image).collect();
        if there.len() == listed || images.is_empty() || !is_for_docker.await? {
            return Ok((root, None));
        }
        let platforms: Vec<_> = images.iter().filter_map(|image| image.platform.clone()).collect();
        let root = match images[..] {
            [image] => Root::at(root.source().clone(), image.clone()).await?,
            _ => select_platforms(&root, &platforms).await?,
        };
        Ok((root, Some(Present { listed, platforms })))
    }
}
