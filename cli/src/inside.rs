//! What the commands have in common that look into an image: which image, and which of its layers.

use ocikit::{Digest, Error, Image, Layer, Location, Platform, Root};

use crate::commands::inspect::for_platform;
use crate::context::Context;
use crate::failure::{Failure, Result};

/// Which image of a location, and which layer of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Inside {
    /// Look into this layer alone: its digest, or its number, the lowest being 0
    #[arg(long, value_name = "N|DIGEST", value_parser = choice)]
    layer: Option<Choice>,
    /// Look into the image for this platform; of an index the default is that of this machine
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

#[derive(Debug, Clone)]
enum Choice {
    Number(usize),
    Digest(Digest),
}

fn choice(text: &str) -> Result<Choice, String> {
    if let Ok(number) = text.parse() {
        return Ok(Choice::Number(number));
    }
    text.parse().map(Choice::Digest).map_err(|_| "neither a number nor a digest".to_owned())
}

impl Inside {
    /// The image.
    pub(crate) async fn image(&self, context: &Context, location: &Location) -> Result<Image> {
        let root = context.session(&[location])?.open(location).await?;
        image(root, self.platform.as_ref()).await
    }

    /// The layer, if one was asked for, and its number.
    pub(crate) fn layer(&self, image: &Image) -> Result<Option<(usize, Layer)>> {
        let Some(choice) = &self.layer else { return Ok(None) };
        let count = image.layers().count();
        let mut layers = image.layers().enumerate();
        let found = match choice {
            Choice::Number(number) => layers.nth(*number),
            Choice::Digest(digest) => layers.find(|(_, layer)| layer.descriptor().digest == *digest),
        };
        let missing = || {
            let what = match choice {
                Choice::Number(number) => format!("layer {number}"),
                Choice::Digest(digest) => format!("layer {digest}"),
            };
            let failure = Failure::from(Error::not_found(what, image.source()));
            match count.checked_sub(1) {
                None => failure.hint("the image has no layers"),
                Some(last) => failure.hint(format_args!("it has layers 0 to {last}; `ocikit inspect` lists them")),
            }
        };
        found.map(Some).ok_or_else(missing)
    }
}

/// The image that a root is, or the one of an index for a platform.
async fn image(root: Root, platform: Option<&Platform>) -> Result<Image> {
    let here = Platform::of_this_machine();
    let platform = platform.or_else(|| matches!(root, Root::Index(_)).then_some(&here));
    let root = match platform {
        Some(platform) => for_platform(root, platform).await?,
        None => root,
    };
    match root {
        Root::Image(image) => Ok(image),
        other => Err(Error::not_found(format!("image at {}", other.digest()), other.source()).into()),
    }
}
