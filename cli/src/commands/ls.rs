use clap::Args;
use ocikit::files::{FileKind, Kind, Last, Path};
use ocikit::{Error, Image, Location};

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::file_list::{self, Row};
use crate::inside::ImageSelection;
use crate::quote::quoted;

const EXAMPLES: &str = "\
Examples:
  ocikit ls alpine:3.22
  ocikit ls -l app.tar /etc
  ocikit ls --layer 0 app.tar";

/// List the files in an image
///
/// Lists the files that a container would see. With `--layer`, lists the entries of one layer in their order, including
/// whiteouts.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Ls {
    /// Image to read
    location: Location,
    /// File or directory to list, with everything below it
    #[arg(default_value = "/")]
    path: String,
    #[command(flatten)]
    inside: ImageSelection,
    /// Also show permissions, owner, size, time and layer
    #[arg(long, short)]
    long: bool,
}

impl Ls {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let image = self.inside.image(context, &location).await?;
        let listed = match self.inside.layer(&image)? {
            Some((number, layer)) => {
                let path = Path::confined(self.path.as_bytes());
                let entries = layer.entries().await?;
                let rows = || {
                    let rows = entries.iter().filter(|entry| entry.path.is_within(&path));
                    rows.map(|entry| Row::of(&entry.path, &entry.kind, &entry.metadata, number))
                };
                match rows().next().is_none() && !path.is_root() {
                    true => Err(self.missing(&image)),
                    false => file_list::print(context, self.long, rows),
                }
            }
            None => self.merged(context, &image).await,
        };
        listed.map_err(|failure| match (failure.code, &failure.hints[..]) {
            (Code::Missing, []) => {
                failure.hint(format_args!("`ocikit ls {}` lists all files", quoted(&location.to_string())))
            }
            _ => failure,
        })
    }

    async fn merged(&self, context: &Context, image: &Image) -> Result {
        let files = image.files().await?;
        let found = files.resolve(self.path.as_bytes(), Last::Follow).unwrap_or_default();
        // An image without files has no root directory; its list is empty.
        let path = match found {
            Some(path) => path,
            None if files.is_empty() && Path::confined(self.path.as_bytes()).is_root() => Path::root(),
            None => return Err(self.missing(image)),
        };
        let kind = |kind: &FileKind| Kind::File(kind.clone());
        file_list::print(context, self.long, || {
            let rows = files.within(&path).filter(|(path, _)| !path.is_root());
            rows.map(|(path, located)| Row::of(path, &kind(&located.file.kind), &located.file.metadata, located.layer))
        })
    }

    fn missing(&self, image: &Image) -> Failure {
        Failure { hints: Vec::new(), ..Error::not_found(format!("file {}", self.path), image.source()).into() }
    }
}
