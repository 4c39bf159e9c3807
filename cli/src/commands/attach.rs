use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use ocikit::{Digest, Location, Root};
use ocikit_sign::{Error, ExternalSignature, NotationTrust, Trust};

use super::sign::Facts;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::keys;
use crate::sigstore::CertificateArguments;

/// Store a signature or attestation that was made elsewhere
///
/// It is checked first: it has to be by the key, by somebody whom the trust policy trusts, or whose certificate names whom it
/// should, and about the image. Prints what it is about and the digest of its manifest.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// The image
    location: Location,
    /// The public key (PEM) of whoever signed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["envelope", "certificate_identity", "certificate_identity_regexp"])]
    #[arg(required_unless_present_any = ["trust_policy", "certificate_identity", "certificate_identity_regexp", "unverified"])]
    key: Option<PathBuf>,
    /// A trust policy of the Notary Project, as notation has it, which has to trust whoever signed
    #[arg(long, value_name = "FILE", requires = "envelope")]
    trust_policy: Option<PathBuf>,
    /// The trust stores that it names, as notation has them; `truststore` beside it if this is not given
    #[arg(long, value_name = "DIR", requires = "trust_policy")]
    trust_store: Option<PathBuf>,
    /// The repository by which the policy chooses; that of the image if this is not given
    #[arg(long, value_name = "NAME", requires = "trust_policy")]
    scope: Option<String>,
    #[command(flatten)]
    certificates: CertificateArguments,
    /// Check its form, and that it is about the image, and not whose it is
    #[arg(long, conflicts_with_all = ["key", "trust_policy", "certificate_identity", "certificate_identity_regexp"])]
    unverified: bool,
    /// A sigstore bundle
    #[arg(long, value_name = "FILE", required_unless_present_any = ["payload", "envelope"])]
    bundle: Option<PathBuf>,
    /// An envelope of the Notary Project, JWS or COSE
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bundle", "payload"])]
    envelope: Option<PathBuf>,
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
        let (trusted, foreign) = (self.trusted(&location)?, self.read()?);
        // The place is held from before the image is read, so that nobody changes it in between.
        let place = session.edit(&location).await?;
        let root = Root::open(place.clone(), &location.name()).await?;
        if let Some(expected) = self.expect.filter(|expected| *expected != root.digest()) {
            return Err(Error::Moved { expected: Box::new(expected), actual: Box::new(root.digest()) }.into());
        }
        let adopted =
            [ocikit_sign::import_signature(&root, foreign, trusted.as_ref(), keys::now(context.epoch)?).await?];
        ocikit_sign::attach(&adopted, &place, &session.copy_options(Vec::new())).await?;
        if self.unverified {
            context.output.say("checked: its form, and that it is about the image; not checked: whose it is");
        }
        let checked = if self.unverified { "subject" } else { "signer" };
        Facts::of(&location, &root, &adopted).checked(checked).state(context)
    }

    fn trusted(&self, location: &Location) -> Result<Option<Trust>> {
        if let Some(path) = &self.key {
            return Ok(Some(Trust::Key { name: path.display().to_string(), key: keys::public_key(path)? }));
        }
        if let Some(trust) = self.certificates.trust()? {
            if self.bundle.is_none() {
                return Err(Failure::usage("certificates come with bundles: give --bundle"));
            }
            return Ok(Some(Trust::Certificate(Box::new(trust))));
        }
        let Some(path) = &self.trust_policy else { return Ok(None) };
        let (policy, store) = keys::trust(path, self.trust_store.as_deref())?;
        let scope = self.scope.clone().unwrap_or_else(|| keys::repository(location));
        let trusted = NotationTrust::new(&policy, &store, &scope, Timestamp::now())?;
        match trusted.names_signers() {
            true => Ok(Some(Trust::Notation(trusted))),
            false => Err(Failure::usage("the trust policy does not enforce who signed")
                .hint("give --unverified to store it whoever signed")),
        }
    }

    fn read(&self) -> Result<ExternalSignature> {
        if let Some(envelope) = &self.envelope {
            return Ok(ExternalSignature::Envelope(read(envelope)?));
        }
        match (&self.bundle, &self.payload, &self.signature) {
            (Some(bundle), ..) => Ok(ExternalSignature::Bundle(read(bundle)?)),
            (None, Some(payload), Some(signature)) => {
                let text = String::from_utf8(read(signature)?);
                let signature = text.map_err(|_| Failure::usage("the signature is not in base64"))?;
                Ok(ExternalSignature::Simple { payload: read(payload)?, signature })
            }
            _ => Err(Failure::usage("give --bundle, --envelope, or --payload and --signature")),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    crate::file::read_at_most(path, 16 << 20)
}
