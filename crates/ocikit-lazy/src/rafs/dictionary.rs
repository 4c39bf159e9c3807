use std::path::PathBuf;
use std::sync::Arc;

use ocikit_image::{Error, Image, Layer, Result};

use crate::rafs::chunk::Digester;
use crate::rafs::contents::NydusReader;
use crate::rafs::data::BlobData;
use crate::rafs::options::RafsVersion;
use crate::rafs::table::{Settings, feature};

/// The chunks of a Nydus image, which images converted with it do not store again: they refer to its blobs, which become
/// layers of theirs.
#[derive(Debug, Clone)]
pub struct Dictionary(Arc<Contents>);

#[derive(Debug)]
struct Contents {
    settings: Settings,
    blobs: Vec<Arc<BlobData>>,
    layers: Vec<Layer>,
}

/// The features of blobs whose chunks cannot be read one by one.
const UNSUPPORTED: u32 = feature::ZRAN | feature::BATCH | feature::ENCRYPTED | feature::INFORMATION_V2;

impl Dictionary {
    /// Reads the bootstrap of a Nydus image; temporary files are made in the directory.
    ///
    /// # Errors
    ///
    /// As [`NydusReader::open`]; [`Error::Unsupported`] if its blobs have chunks that depend on each other.
    pub async fn open(image: &Image, directory: impl Into<PathBuf>) -> Result<Dictionary> {
        let NydusReader { bootstrap, layers, .. } = NydusReader::open(image, directory).await?;
        if bootstrap.blobs.iter().any(|blob| blob.features & UNSUPPORTED != 0) {
            let what = format!("the chunks of {} cannot be read one by one", image.digest());
            return Err(Error::Unsupported { place: image.source().to_string(), what });
        }
        let settings = bootstrap.settings;
        let blobs = bootstrap.blobs.into_iter().zip(bootstrap.chunks);
        let blobs = blobs.map(|(info, chunks)| Arc::new(BlobData { info, chunks })).collect();
        Ok(Dictionary(Arc::new(Contents { settings, blobs, layers })))
    }

    pub(super) fn digester(&self) -> Digester {
        self.0.settings.digester
    }

    pub(super) fn blobs(&self) -> &[Arc<BlobData>] {
        &self.0.blobs
    }

    /// Returns the layer of each blob.
    pub(super) fn layers(&self) -> &[Layer] {
        &self.0.layers
    }

    /// Checks that images with these settings can use it.
    pub(super) fn check(&self, settings: &Settings) -> Result<()> {
        let own = &self.0.settings;
        let version = |version: RafsVersion| format!("RAFS {version}");
        let (kind, own, wanted) = match () {
            () if own.version != settings.version => ("version", version(own.version), version(settings.version)),
            () if own.chunk_size != settings.chunk_size => {
                let bytes = |settings: &Settings| settings.chunk_size.bytes().to_string();
                ("chunk size", bytes(own), bytes(settings))
            }
            () if own.version == RafsVersion::V5 && own.stored != settings.stored => {
                ("compression", format!("{:?}", own.stored), format!("{:?}", settings.stored))
            }
            () => return Ok(()),
        };
        let what = format!("the {kind} of the chunk dictionary is {own}, not {wanted}");
        Err(Error::Unsupported { place: "a Nydus image".to_owned(), what })
    }
}
