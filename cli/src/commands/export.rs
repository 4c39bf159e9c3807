use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use ocikit::image::LayerOptions;
use ocikit::layout::OutputFile;
use ocikit::{Error, Image, Location, Platform};
use ocikit_lazy::FileAccess;
use serde_json::json;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::file::is_stdout;
use crate::inside;
use crate::output::Lines;

const EXAMPLES: &str = "\
Examples:
  ocikit export alpine:3.22 -o rootfs.tar
  ocikit export --platform linux/arm64 app.tar -o arm64.tar";

/// Export the file system of an image as a tar
///
/// Writes the files that a container would see: layers applied, whiteouts removed. The tar is not compressed. Layers of a registry are downloaded to a temporary file first, because they are read twice.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Export {
    /// Image to export
    location: Location,
    /// File to write; `-` is standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Export the image for this platform; default: that of this machine
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

impl Export {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let image = inside::image_at(context, &location, self.platform.as_ref()).await?;
        let image = image.nearby(&LayerOptions::default().directory(Some(std::env::temp_dir()))).await?;
        let image = ocikit_lazy::with_files(image, FileAccess::Contents, &std::env::temp_dir()).await?;
        if is_stdout(&self.output) {
            return match image.export(io::BufWriter::with_capacity(BUFFER_BYTES, io::stdout())).await {
                // The reader, such as `head`, closed the pipe; that is not a failure.
                Err(Error::Failed { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                written => Ok(written.map(drop)?),
            };
        }
        to_file(&image, &self.output).await?;
        let path = self.output.display().to_string();
        let result = json!({ "location": location.to_string(), "digest": image.digest(), "path": path });
        context.output.result(&result, Lines::default)
    }
}

/// The size of the buffer of a writer in bytes.
const BUFFER_BYTES: usize = 256 << 10;

async fn to_file(image: &Image, path: &Path) -> Result {
    let failed = |error: io::Error| Failure::io("write to", path.display(), &error);
    let file = OutputFile::create(path).map_err(failed)?;
    let mut writer = image.export(io::BufWriter::with_capacity(BUFFER_BYTES, file)).await?;
    writer.flush().map_err(failed)?;
    let file = writer.into_inner().map_err(|error| failed(error.into_error()))?;
    file.commit().map_err(failed)
}
