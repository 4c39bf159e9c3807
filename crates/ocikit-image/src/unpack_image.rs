use std::path::Path;

use ocikit_archive::layer::Budget;
use ocikit_archive::unpack::{Staging, UnpackOptions, Unpacked, Unpacker};

use crate::bridge::blocking;
use crate::error::{Error, Need, Result};
use crate::layer::DiffId;
use crate::root::{Image, Layer};

impl Image {
    /// Writes the file system that a container of this image sees to a directory. It appears when it is complete, so the target must
    /// not exist, or be an empty directory.
    ///
    /// Layers are read once, from the highest to the lowest. A layer in which an upper layer replaces one of several names of a file
    /// is read twice.
    ///
    /// ```no_run
    /// # async fn example(image: ocikit_image::Image) -> ocikit_image::Result<()> {
    /// use ocikit_image::unpack::UnpackOptions;
    ///
    /// let unpacked = image.unpack("rootfs".as_ref(), &UnpackOptions::default()).await?;
    /// println!("{} files and directories", unpacked.names);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Layer::decode`](crate::Layer::decode); [`Error::Exists`] if the target exists and is not an empty directory,
    /// [`Error::Failed`] if a file cannot be written.
    pub async fn unpack(&self, target: &Path, options: &UnpackOptions) -> Result<Unpacked> {
        let staging = stage(target).await?;
        let unpacked = self.unpack_into(&staging.path(), options).await?;
        commit(staging).await?;
        Ok(unpacked)
    }

    /// Writes the file system to an empty directory.
    pub(crate) async fn unpack_into(&self, directory: &Path, options: &UnpackOptions) -> Result<Unpacked> {
        let budget = Budget::new();
        let layers = self.file_layers();
        let place = format!("image {} in {}", self.digest(), self.source);
        let (within, options, directory) = (budget.clone(), options.clone(), directory.to_owned());
        let start =
            move || Unpacker::new(&directory, options, &within).map_err(|error| local("write to", &directory, error));
        let mut unpacker = blocking(start).await?;
        for layer in layers.iter().rev() {
            unpacker = apply(layer, &budget, unpacker, |unpacker, tar| unpacker.layer(tar)).await?;
        }
        let of = place.clone();
        let (mut unpacker, incomplete) = blocking(move || {
            let incomplete = unpacker.incomplete().map_err(|error| refused(of, error))?;
            Ok((unpacker, incomplete))
        })
        .await?;
        for number in incomplete {
            let layer = &layers[layers.len() - 1 - number];
            unpacker = apply(layer, &budget, unpacker, move |unpacker, tar| unpacker.layer_again(number, tar)).await?;
        }
        blocking(move || unpacker.finish().map_err(|error| refused(place, error))).await
    }
}

/// Passes the tar of a layer to an unpacker. A file that cannot be written is no damage of the layer.
async fn apply(
    layer: &Layer,
    budget: &Budget,
    mut unpacker: Unpacker,
    step: impl FnOnce(&mut Unpacker, &mut crate::LayerTar<'_>) -> ocikit_archive::Result<()> + Send + 'static,
) -> Result<Unpacker> {
    let work = move |tar: &mut crate::LayerTar<'_>| match step(&mut unpacker, tar) {
        Ok(()) => Ok(Ok(unpacker)),
        Err(error @ (ocikit_archive::Error::File { .. } | ocikit_archive::Error::Unmapped { .. })) => Ok(Err(error)),
        Err(error) => Err(error),
    };
    let (outcome, _) = layer.decode_within(budget, DiffId::Skip, work).await?;
    outcome.map_err(|error| refused(layer.source().to_string(), error))
}

/// Creates the temporary directory of a target.
pub(crate) async fn stage(target: &Path) -> Result<Staging> {
    let target = target.to_owned();
    blocking(move || {
        Staging::beside(&target).map_err(|error| match error {
            ocikit_archive::Error::Io(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Error::Exists {
                what: "files in it; name a new or an empty directory".to_owned(),
                place: target.display().to_string(),
            },
            error => local("create", &target, error),
        })
    })
    .await
}

/// Gives a complete directory its name.
pub(crate) async fn commit(staging: Staging) -> Result<()> {
    blocking(move || {
        let target = staging.target().to_owned();
        staging.commit().map_err(|error| local("create", &target, error))
    })
    .await
}

pub(crate) fn local(verb: &'static str, path: &Path, error: ocikit_archive::Error) -> Error {
    match error {
        ocikit_archive::Error::File { verb, path: below, source } => {
            Error::failed(verb, path.join(below).display(), source)
        }
        error => Error::failed(verb, path.display(), error.into()),
    }
}

/// Returns the error for layers that cannot be unpacked.
fn refused(place: String, error: ocikit_archive::Error) -> Error {
    match error {
        ocikit_archive::Error::File { verb, path, source } => {
            Error::Failed { operation: verb, place: format!("`{}` of the image", path.display()), source }
        }
        // The map does not fit the image, which is not damaged.
        error @ ocikit_archive::Error::Unmapped { .. } => Error::unmet(place, error.to_string(), Need::IdRange),
        error => match error.unsupported() {
            Some(what) => Error::Unsupported { place, what },
            None => Error::broken(place, error),
        },
    }
}
