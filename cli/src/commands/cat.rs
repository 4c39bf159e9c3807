use std::io;

use clap::Args;
use ocikit::{Error, Location};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::inside::ImageSelection;
use crate::quote::quoted;

const EXAMPLES: &str = "\
Examples:
  ocikit cat alpine:3.22 /etc/os-release
  ocikit cat --platform linux/arm64 app.tar /etc/passwd";

/// Print the content of a file in an image
///
/// Reads layers from the highest down and stops at the layer that has the file. Follows links inside the image.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Cat {
    /// Image to read
    location: Location,
    /// Path of the file from the root of the image
    path: String,
    #[command(flatten)]
    inside: ImageSelection,
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
            // The reader, such as `head`, closed the pipe; that is not a failure.
            Err(Error::Failed { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error @ Error::NotFound { .. }) => Err(Failure::from(error)
                .hint(format_args!("`ocikit ls {}` lists the files", quoted(&location.to_string())))),
            Err(error) if matches!(&error, Error::Unsupported { what, .. } if what.starts_with('/')) => {
                let (image, path) = (location.to_string(), quoted(&self.path));
                Err(Failure::from(error)
                    .hint(format_args!("`ocikit ls {} {path}` lists the directory", quoted(&image))))
            }
            outcome => Ok(outcome?),
        }
    }
}
