use std::path::{Path, PathBuf};

use clap::Args;
use ocikit::{Digest, Location, Root};
use ocikit_sign::{Error, Foreign};

use super::sign::Facts;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::keys;

/// Store a signature or attestation that was made elsewhere
///
/// It is checked first: it has to be by the key, and about the image. Prints what it is about and the digest of its manifest.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// The image
    location: Location,
    /// The public key (PEM) of whoever signed
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// A sigstore bundle
    #[arg(long, value_name = "FILE", required_unless_present = "payload")]
    bundle: Option<PathBuf>,
    /// A payload of simple signing, as `cosign generate` prints it
    #[arg(long, value_name = "FILE", requires = "signature", conflicts_with = "bundle")]
    payload: Option<PathBuf>,
    /// Its signature in base64
    #[arg(long, value_name = "FILE", requires = "payload")]
    signature: Option<PathBuf>,
    /// Attach only if the image has this digest
    #[arg(long, value_name = "DIGEST")]
    expect: Option<Digest>,
}

impl Attach {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        let session = context.session(&[&location])?;
        let (key, foreign) = (keys::public_key(&self.key)?, self.read()?);
        // The place is held from before the image is read, so that nobody changes it in between.
        let place = session.edit(&location).await?;
        let root = Root::open(place.clone(), &location.name()).await?;
        if let Some(expected) = self.expect.filter(|expected| *expected != root.digest()) {
            return Err(Error::Moved { expected: Box::new(expected), actual: Box::new(root.digest()) }.into());
        }
        let adopted = [ocikit_sign::adopt(&root, foreign, &key, keys::now(context.epoch)?).await?];
        ocikit_sign::attach(&adopted, &place, &session.copy_options(Vec::new())).await?;
        Facts::of(&location, &root, &adopted).state(context)
    }

    fn read(&self) -> Result<Foreign> {
        match (&self.bundle, &self.payload, &self.signature) {
            (Some(bundle), ..) => Ok(Foreign::Bundle(read(bundle)?)),
            (None, Some(payload), Some(signature)) => {
                let text = String::from_utf8(read(signature)?);
                let signature = text.map_err(|_| Failure::usage("the signature is not in base64"))?;
                Ok(Foreign::Simple { payload: read(payload)?, signature })
            }
            _ => Err(Failure::usage("give --bundle, or --payload and --signature")),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    crate::file::read_at_most(path, 16 << 20)
}
