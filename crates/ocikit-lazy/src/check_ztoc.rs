//! Comparing a ztoc with its layer.

use std::sync::Arc;

use ocikit_archive::layer::Budget;
use ocikit_image::bridge::{self, Chunks};
use ocikit_image::{Error as ImageError, Layer, Result as ImageResult, Source, SourceExt};
use ocikit_spec::{Descriptor, Digest, MediaType};

use crate::error::{Error, Result, Stopped};
use crate::soci::{self, LAYER_DIGEST, LAYER_MEDIA_TYPE, LayerCompression, MAX_ZTOC_BYTES, Ztoc};

/// Compares a ztoc with its layer, from which it is made again. Returns the difference, if there is one.
///
/// # Errors
///
/// Those of reading either.
pub(crate) async fn check_ztoc(ztoc: &Layer, source: &Arc<dyn Source>) -> ImageResult<Option<String>> {
    let descriptor = ztoc.descriptor();
    let annotation = |key| descriptor.annotations.get(key);
    let Some(layer) = annotation(LAYER_DIGEST).and_then(|digest| digest.parse::<Digest>().ok()) else {
        return Ok(Some(format!("it does not name its layer in `{LAYER_DIGEST}`")));
    };
    if descriptor.size > MAX_ZTOC_BYTES {
        return Ok(Some(format!("the ztoc has {} bytes, more than the limit of {MAX_ZTOC_BYTES}", descriptor.size)));
    }
    let bytes = source.open(descriptor).await?.bytes().await?;
    let listed = match Ztoc::parse(&bytes) {
        Ok(listed) => listed,
        Err(error) => return Ok(Some(error.to_string())),
    };
    let media_type = annotation(LAYER_MEDIA_TYPE).map_or(MediaType::OCI_LAYER_GZIP, MediaType::new);
    let layer = Layer::at(source.clone(), Descriptor::new(media_type, layer, listed.compressed));
    let (budget, size) = (Budget::new(), listed.compressed);
    budget.layer(size);
    let work = move |chunks: &mut Chunks| {
        let compression = match listed.checkpoints.is_empty() {
            true => LayerCompression::Uncompressed,
            false => LayerCompression::Gzip,
        };
        let built = chunks.with_reader(|reader| match listed.span_size {
            0 => Err(Stopped::Reading(ocikit_archive::Error::Io(std::io::ErrorKind::InvalidData.into()))),
            span_size => soci::build(reader, compression, size, span_size, &budget),
        })?;
        Ok(match built {
            Ok(built) => compare(&listed, &built).err().map(|error| error.to_string()),
            Err(Stopped::Plain(reason)) => Some(format!("its layer cannot have a ztoc: {reason}")),
            Err(Stopped::Reading(error)) => Some(format!("its layer cannot be read: {error}")),
            Err(Stopped::Writing(error)) => Some(format!("its layer cannot be read: {error}")),
        })
    };
    match layer.open().await {
        Ok(body) => match bridge::consume(body, work).await {
            Err(ImageError::Mismatch { .. }) => Ok(Some("it is that of a layer with another size".to_owned())),
            compared => compared,
        },
        Err(ImageError::NotFound { .. }) => Ok(Some(format!("its layer {} does not exist", layer.digest()))),
        Err(error) => Err(error),
    }
}

/// Compares a ztoc with the one that was made of the layer.
fn compare(listed: &Ztoc, built: &[u8]) -> Result<()> {
    let built = Ztoc::parse(built)?;
    let differs = |what: &str| Err(Error::invalid("ztoc", format_args!("its {what} are not those of the layer")));
    if let Some(at) =
        (0..listed.files.len().max(built.files.len())).find(|at| listed.files.get(*at) != built.files.get(*at))
    {
        let name = built.files.get(at).or(listed.files.get(at)).map(|file| file.name.escape_ascii().to_string());
        return Err(Error::invalid("ztoc", format_args!("`{}` is not as in the layer", name.unwrap_or_default())));
    }
    match listed {
        _ if listed.uncompressed != built.uncompressed => differs("sizes"),
        _ if listed.span_digests != built.span_digests => differs("span digests"),
        _ if listed.checkpoints != built.checkpoints => differs("checkpoints"),
        _ if !listed.has_windows_of(&built) => differs("checkpoints"),
        _ => Ok(()),
    }
}
