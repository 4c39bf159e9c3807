use std::path::{Path, PathBuf};

use clap::Args;
use ocikit::{Digest, Location, Platform};
use ocikit_sign::{ExternalSignature, Trust};
use serde_json::json;

use super::artifact::files::FileArguments;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::signed::SignOutput;
use crate::sigstore::CertificateArguments;
use crate::{inside, keys, remote};

const EXAMPLES: &str = "\
Examples:
  ocikit attach ghcr.io/acme/app:1 sbom.json:application/spdx+json --artifact-type application/spdx+json
  ocikit attach --key cosign.pub --bundle app.sigstore.json ghcr.io/acme/app:1
  ocikit attach --key cosign.pub --payload payload.json --signature payload.sig app.tar
  ocikit attach --trust-policy trustpolicy.json --envelope app.jws ghcr.io/acme/app:1";

/// Store files, or an existing signature, as a referrer of an image
///
/// Files and directories become an artifact in the format of oras, with the image as its subject; prints its digest.
///
/// A signature or attestation is verified first: against the key, the trust policy or the identity in the certificate, and
/// against the digest of the image. Prints the digest of the image and of the stored manifest.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Attach {
    /// Image to attach to
    location: Location,
    #[command(flatten)]
    files: FileArguments,
    /// Attach the files to the image for this platform instead of the index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", requires = "artifact_type")]
    platform: Option<Platform>,
    /// Print the digest of the artifact without storing it
    #[arg(long, requires = "artifact_type")]
    dry_run: bool,
    /// Verify with this public key of the signer (PEM)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["envelope", "certificate_identity", "certificate_identity_regexp"])]
    #[arg(required_unless_present_any = ["trust_policy", "certificate_identity", "certificate_identity_regexp", "unverified", "artifact_type", "file"])]
    key: Option<PathBuf>,
    /// Require a signer that this Notary Project trust policy trusts
    #[arg(long, value_name = "FILE", requires = "envelope")]
    trust_policy: Option<PathBuf>,
    /// Read trust stores here; default: `truststore` next to the policy
    #[arg(long, value_name = "DIR", requires = "trust_policy")]
    trust_store: Option<PathBuf>,
    /// Select the policy of this repository; default: that of the image
    #[arg(long, value_name = "NAME", requires = "trust_policy")]
    scope: Option<String>,
    #[command(flatten)]
    certificates: CertificateArguments,
    /// Check the format and the subject, but not the signer
    #[arg(long, conflicts_with_all = ["key", "trust_policy", "certificate_identity", "certificate_identity_regexp"])]
    unverified: bool,
    /// Store this sigstore bundle
    #[arg(long, value_name = "FILE", required_unless_present_any = ["payload", "envelope", "artifact_type", "file"])]
    bundle: Option<PathBuf>,
    /// Store this envelope of the Notary Project, JWS or COSE
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bundle", "payload"])]
    envelope: Option<PathBuf>,
    /// Store this simple signing payload, as `cosign generate` prints it
    #[arg(long, value_name = "FILE", requires = "signature", conflicts_with = "bundle")]
    payload: Option<PathBuf>,
    /// Read the base64 signature of the payload from this file
    #[arg(long, value_name = "FILE", requires = "payload")]
    signature: Option<PathBuf>,
    /// Fail unless the image has this digest
    #[arg(long, value_name = "DIGEST")]
    expect: Option<Digest>,
}

impl Attach {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let location = context.expand(&self.location);
        if !self.files.file.is_empty() || self.files.artifact_type.is_some() {
            return self.attach_files(context, &location).await;
        }
        let session = context.session(&[&location])?;
        let (trusted, foreign) = (self.trusted(&location)?, self.read()?);
        let signing = session.open_to_sign(&location).await?;
        ocikit_sign::expect_digest(signing.root(), self.expect)?;
        let now = keys::now(context.epoch)?;
        let adopted = ocikit_sign::import_signature(signing.root(), foreign, trusted.as_ref(), now).await?;
        let signed = signing.store(vec![adopted]).await?;
        if self.unverified {
            context.output.say("warning: only the format and the subject were checked; the signer was not verified");
        }
        let checked = if self.unverified { "subject" } else { "signer" };
        SignOutput::of(&location, &signed.root, &signed.signatures).checked(checked).state(context)
    }

    async fn attach_files(&self, context: &Context, location: &Location) -> Result {
        if self.files.artifact_type.is_none() {
            return Err(
                Failure::usage("cannot attach files without an artifact type").hint("add `--artifact-type TYPE`")
            );
        }
        if self.bundle.is_some() || self.envelope.is_some() || self.payload.is_some() {
            return Err(Failure::usage("cannot attach files and a signature at once").hint("run the command twice"));
        }
        let session = context.session(&[location])?;
        if let Some(expected) = self.expect {
            let subject = session.open(location).await?;
            ocikit_sign::expect_digest(&subject, Some(expected))?;
        }
        let artifact = self.files.artifact(context).await?;
        let (root, subject) = match self.dry_run {
            true => {
                let subject = inside::for_platform(session.open(location).await?, self.platform.as_ref()).await?;
                (artifact.clone().subject(subject.descriptor()).finish(subject.source())?, subject)
            }
            false => session.attach(location, self.platform.as_ref(), &artifact).await?,
        };
        let descriptor = root.descriptor();
        let result = json!({
            "location": location.to_string(),
            "subject": subject.digest(),
            "digest": descriptor.digest,
            "mediaType": descriptor.media_type,
            "artifactType": self.files.artifact_type,
            "size": descriptor.size,
            "dryRun": self.dry_run,
        });
        context.output.result(&result, || format!("{}@{}", remote::place(location), descriptor.digest))
    }

    fn trusted(&self, location: &Location) -> Result<Option<Trust>> {
        if let Some(path) = &self.key {
            return Ok(Some(Trust::Key { name: path.display().to_string(), key: keys::public_key(path)? }));
        }
        if let Some(trust) = self.certificates.trust()? {
            if self.bundle.is_none() {
                return Err(Failure::usage("cannot verify a certificate without a bundle: add --bundle"));
            }
            return Ok(Some(Trust::Certificate(Box::new(trust))));
        }
        let Some(path) = &self.trust_policy else { return Ok(None) };
        let trusted = keys::notation_trust(path, self.trust_store.as_deref(), self.scope.as_deref(), location)?;
        match trusted.names_signers() {
            true => Ok(Some(Trust::Notation(trusted))),
            false => Err(Failure::usage("the trust policy does not verify the identity of the signer")
                .hint("add --unverified to store the signature without verifying the signer")),
        }
    }

    fn read(&self) -> Result<ExternalSignature> {
        match (&self.envelope, &self.bundle, &self.payload, &self.signature) {
            (Some(envelope), ..) => Ok(ExternalSignature::Envelope(read(envelope)?)),
            (None, Some(bundle), ..) => Ok(ExternalSignature::Bundle(read(bundle)?)),
            (None, None, Some(payload), Some(signature)) => {
                let text = String::from_utf8(read(signature)?);
                let signature = text.map_err(|_| Failure::usage("cannot read the signature: it is not base64"))?;
                Ok(ExternalSignature::Simple { payload: read(payload)?, signature })
            }
            _ => Err(Failure::usage("give --bundle, --envelope, or --payload and --signature")),
        }
    }
}

/// The maximum size of a bundle, envelope, payload or signature, in bytes.
const MAX_BUNDLE_BYTES: u64 = 16 << 20;

fn read(path: &Path) -> Result<Vec<u8>> {
    crate::file::read_at_most(path, MAX_BUNDLE_BYTES)
}
