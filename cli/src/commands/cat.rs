use std::io;

use clap::Args;
use ocikit::{Error, Location};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::inside::Inside;
use crate::quote::quoted;

/// Print the bytes of a file in an image
///
/// Layers are read from the highest down, and no further than the one that has the file. Links are followed inside the
/// image.
#[derive(Debug, Args)]
pub(crate) struct Cat {
    /// The image
    location: Location,
    /// The file, from the root of the image
    path: String,
    #[command(flatten)]
    inside: Inside,
}

impl Cat {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let image = self.inside.image(context, &location).await?;
        let path = self.path.as_bytes();
        let outcome = match self.inside.layer(&image)? {
            Some((_, layer)) => layer.read_file(path, io::stdout()).await,
            None => image.read_file(path, io::stdout()).await,
        };
        match outcome {
            // Whoever reads has read enough.
            Err(Error::Failed { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error @ Error::NotFound { .. }) => Err(Failure::from(error)
                .hint(format_args!("`ocikit ls {}` lists the files", quoted(&location.to_string())))),
            Err(Error::Unsupported { place, what }) if what.starts_with('/') => {
                let error = Error::Unsupported { place, what };
                Err(Failure::from(error).hint(format_args!(
                    "`ocikit ls {} {}` lists what is there",
                    quoted(&location.to_string()),
                    quoted(&self.path)
                )))
            }
            outcome => Ok(outcome?),
        }
    }
}
