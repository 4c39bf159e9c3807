//! Archives and layouts, which are changed without a registry.

use std::path::Path;

use ocikit_image::{Name, Result, Sink, Source};
use ocikit_layout::{Dir, TarEdit};
use ocikit_spec::Descriptor;

use crate::location::Location;

/// The path of a place that is changed without a registry.
pub(crate) enum Local<'a> {
    Archive(&'a Path),
    Layout(&'a Path),
}

impl Local<'_> {
    pub(crate) fn of(location: &Location) -> Option<Local<'_>> {
        match location {
            Location::Archive { path, .. } | Location::DockerArchive { path, .. } => Some(Local::Archive(path)),
            Location::Layout { path, .. } => Some(Local::Layout(path)),
            Location::Path { path, .. } if path.is_dir() => Some(Local::Layout(path)),
            Location::Path { path, .. } => Some(Local::Archive(path)),
            Location::Registry(_) | Location::Stdio => None,
        }
    }
}

/// A place that is open for a change of its list of images.
pub(crate) enum OpenLocal {
    Archive(Box<TarEdit>),
    Layout(Box<Dir>),
}

impl OpenLocal {
    pub(crate) fn source(&self) -> &dyn Source {
        match self {
            OpenLocal::Archive(edit) => &**edit,
            OpenLocal::Layout(dir) => &**dir,
        }
    }

    /// Removes an image from the list and returns the removed descriptors.
    pub(crate) async fn remove(&self, name: &Name) -> Result<Vec<Descriptor>> {
        match self {
            OpenLocal::Archive(edit) => edit.remove(name).await,
            OpenLocal::Layout(dir) => dir.remove(name).await,
        }
    }

    /// Stores the changed list.
    pub(crate) async fn finish(&self) -> Result<()> {
        match self {
            OpenLocal::Archive(edit) => edit.finish().await,
            OpenLocal::Layout(dir) => dir.finish().await,
        }
    }
}
