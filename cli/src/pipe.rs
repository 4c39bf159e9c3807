//! Images that come through a pipe, which can be read only once.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use ocikit::{Error, Location, Present, Root, Session};

use crate::context::Context;
use crate::failure::Result;

/// Returns the path of a source that can be read only once, if it is one: a pipe, socket or device such as that of `<(command)`.
async fn path_of_pipe(source: &Location) -> Result<Option<PathBuf>> {
    let path = match source {
        Location::Path { path, .. } | Location::Archive { path, .. } | Location::DockerArchive { path, .. } => {
            path.clone()
        }
        Location::Layout { .. } | Location::Registry(_) | Location::Stdio => return Ok(None),
    };
    Ok(ocikit::image::bridge::blocking(move || {
        // A missing file is reported when the source is opened.
        let is_pipe = std::fs::metadata(&path).is_ok_and(|found| !found.is_file() && !found.is_dir());
        Ok::<_, Error>(is_pipe.then_some(path))
    })
    .await?)
}

/// Returns whether a source can be read only once. A named pipe is not opened, which would wait for its writer.
pub(crate) async fn is_pipe(source: &Location) -> Result<bool> {
    Ok(*source == Location::Stdio || path_of_pipe(source).await?.is_some())
}

/// Opens a source that can be read only once; `None` for any other source.
pub(crate) async fn reader(source: &Location) -> Result<Option<Box<dyn Read + Send>>> {
    if *source == Location::Stdio {
        return Ok(Some(Box::new(std::io::stdin())));
    }
    let Some(path) = path_of_pipe(source).await? else { return Ok(None) };
    let opened = ocikit::image::bridge::blocking(move || {
        File::open(&path).map_err(|error| Error::failed("open", path.display(), error))
    });
    Ok(Some(Box::new(opened.await?)))
}

/// Opens an image, also of an archive that comes through a pipe, which is read to its end into a temporary file first.
///
/// Of an archive of `docker save` that lists more than it holds, the root is what it holds, unless `is_partial` says that only
/// some platforms are read.
pub(crate) async fn open_image(
    context: &Context,
    session: &Session,
    source: &Location,
    is_partial: bool,
) -> Result<Root> {
    let (root, present) = match (reader(source).await?, is_partial) {
        (Some(pipe), _) => session.open_pipe(source, pipe).await?,
        (None, false) => session.open_present(source).await?,
        (None, true) => (session.open(source).await?, None),
    };
    say_present(context, source, present.as_ref());
    Ok(root)
}

/// Reports which platforms are copied of an index that lists more than its archive holds.
pub(crate) fn say_present(context: &Context, source: &Location, present: Option<&Present>) {
    let Some(Present { listed, platforms, .. }) = present else { return };
    let names: Vec<_> = platforms.iter().map(ToString::to_string).collect();
    let names = names.join(", ");
    context.output.say(format!("{source} lists {listed} manifests but does not hold all of them; copying {names}"));
}
