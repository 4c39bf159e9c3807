//! The arguments of the commands that publish: annotations, signatures and reports, as those of `ocikit publish`.

use std::time::{Duration, Instant};

use clap::Args;
use futures::future::{BoxFuture, FutureExt};
use ocikit::Annotations;
use ocikit_publish::ImageSigner;
use ocikit_publish::ci::System;
use ocikit_publish::project::{ProjectReport, Publishing, SignerError, SignerSource};
use tokio::sync::Mutex;

use crate::context::Context;
use crate::environment::variables;
use crate::failure::{Failure, Result};
use crate::publish::{ReportArguments, ReportForms, state_of_job};
use crate::signing::SigningArguments;
use crate::values::key_value;

/// What is published with the images.
#[derive(Debug, Args)]
pub(super) struct PublishingArguments {
    /// Set this annotation on index and manifests; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    annotation: Vec<(String, String)>,
    /// Also sign the attestations that BuildKit stored in the index
    #[arg(long)]
    attest_build: bool,
    /// Also sign a statement about the publication: repository, tags, commit
    #[arg(long)]
    attest_published: bool,
    #[command(flatten)]
    signing: SigningArguments,
    #[command(flatten)]
    report: ReportArguments,
}

impl PublishingArguments {
    /// Checks the arguments and, with a key, that it can sign: before anything is built.
    pub(super) async fn signers<'a>(&'a self, context: &'a Context) -> Result<Option<Signers<'a>>> {
        self.signing.check_flags(&[])?;
        if !self.signing.is_given() {
            return match self.attest_build || self.attest_published {
                true => Err(Failure::usage("cannot publish: attestations are asked for, and no key signs them")
                    .hint("add --key, or the flags of keyless signing")),
                false => Ok(None),
            };
        }
        let signers = Signers { context, signing: &self.signing, made: Mutex::default() };
        signers.valid().await?;
        Ok(Some(signers))
    }

    /// Returns how the images are published, and the CI system.
    pub(super) fn publishing<'a>(&self, signers: Option<&'a Signers<'a>>) -> Result<(Publishing<'a>, System)> {
        let (system, git) = state_of_job(&variables())?;
        self.report.check(system)?;
        let mut publishing = Publishing::default();
        publishing.git = git;
        publishing.signers = signers.map(|signers| signers as _);
        (publishing.attest.build, publishing.attest.published) = (self.attest_build, self.attest_published);
        Ok((publishing, system))
    }

    /// Returns the annotations.
    pub(super) fn annotations(&self) -> Annotations {
        self.annotation.iter().cloned().collect()
    }

    /// Writes the report to its files and to the outputs of the CI system.
    pub(super) fn write(&self, system: System, report: &ProjectReport) -> Result {
        self.report.write_forms(system, &ReportForms::from(report))
    }
}

/// The time for which a signer without a key of its own is used. Its certificate is valid for 10 minutes.
const KEYLESS_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Signs with the key, or with a new certificate every few minutes.
#[derive(Debug)]
pub(super) struct Signers<'a> {
    context: &'a Context,
    signing: &'a SigningArguments,
    made: Mutex<Option<(Instant, ImageSigner)>>,
}

impl Signers<'_> {
    async fn valid(&self) -> Result<ImageSigner> {
        let mut made = self.made.lock().await;
        if let Some((since, signer)) = &*made
            && (!self.signing.is_keyless() || since.elapsed() < KEYLESS_LIFETIME)
        {
            return Ok(signer.clone());
        }
        let since = Instant::now();
        let (by, options) = self.signing.method(self.context, false).await?;
        let signer = ImageSigner::by(by, options);
        *made = Some((since, signer.clone()));
        Ok(signer)
    }
}

impl SignerSource for Signers<'_> {
    fn signer(&self) -> BoxFuture<'_, Result<ImageSigner, SignerError>> {
        async { self.valid().await.map_err(|failure| Box::new(failure) as SignerError) }.boxed()
    }
}
