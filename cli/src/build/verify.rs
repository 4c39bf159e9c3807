//! Verifying the base images and the result of a build before anything is published.

use std::path::PathBuf;

use clap::Args;
use ocikit::{Location, Reference, Root};
use ocikit_build::{Attestation, Solve, statements, used_images, without_attestations};

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::policy::Gate;
use crate::values::key_value;

/// The policies for base images and for the result.
#[derive(Debug, Args)]
#[command(next_help_heading = "Verification")]
pub(crate) struct VerifyBuildArguments {
    /// Publish only if every base image passes this policy
    ///
    /// Base images are all images of registries that BuildKit used, by the digests that it used: also those of `COPY --from`
    /// and of the `syntax` line. See `ocikit verify --policy`.
    #[arg(long = "verify", value_name = "POLICY")]
    policy: Option<PathBuf>,
    /// Publish only if the result passes this policy
    ///
    /// It is checked with the signatures of this build, for the repository of each output.
    #[arg(long, value_name = "POLICY")]
    verify_result: Option<PathBuf>,
    /// Use this notation plugin; see `ocikit verify --plugin`
    #[arg(long, value_name = "NAME")]
    verify_plugin: Vec<PathBuf>,
    /// Pass this configuration to the plugins; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, requires = "verify_plugin")]
    verify_plugin_config: Vec<(String, String)>,
}

/// The policies of a build.
pub(crate) struct BuildGates {
    base: Option<Gate>,
    result: Option<Gate>,
    /// Whether the provenance of BuildKit was requested only to know the base images.
    is_provenance_extra: bool,
}

impl VerifyBuildArguments {
    /// Reads the policies, if there are any, and makes the build tell which images it used.
    pub(crate) async fn gates(&self, solve: &mut Solve) -> Result<BuildGates> {
        if self.policy.is_none() && self.verify_result.is_none() && !self.verify_plugin.is_empty() {
            return Err(Failure::usage("cannot use --verify-plugin without --verify or --verify-result"));
        }
        let read = async |path: &Option<PathBuf>| match path {
            Some(path) => Gate::of_policy(path, &self.verify_plugin, &self.verify_plugin_config).await.map(Some),
            None => Ok(None),
        };
        let (base, result) = (read(&self.policy).await?, read(&self.verify_result).await?);
        let is_provenance_extra = base.is_some() && !solve.has_provenance();
        if is_provenance_extra {
            solve.attestations.push(Attestation::provenance("mode=min")?);
        }
        Ok(BuildGates { base, result, is_provenance_extra })
    }
}

impl BuildGates {
    /// Fails unless all base images of a built root pass their policy. Returns the root without the provenance that was requested
    /// only for this.
    pub(crate) async fn check_bases(&self, context: &Context, root: &Root) -> Result<Root> {
        let Some(gate) = &self.base else { return Ok(root.clone()) };
        let Some(used) = used_images(&statements(root).await?) else {
            let message = "cannot verify the base images: BuildKit did not report which images it used";
            return Err(Failure::new(Code::Unverified, message).hint("use BuildKit 0.11 or newer"));
        };
        for image in used {
            let name: Reference = image.name.parse()?;
            let name = Reference::digested(name.repository().clone(), image.digest);
            let location = Location::Registry(name);
            let base = context.session(&[&location])?.open(&location).await?;
            gate.check(&location, &base).await?;
        }
        match self.is_provenance_extra {
            true => Ok(without_attestations(root).await?),
            false => Ok(root.clone()),
        }
    }

    /// Fails unless the root passes its policy with the signatures beside it, for the repository of each output.
    pub(crate) async fn check_result(&self, root: &Root, images: &[Location]) -> Result {
        let Some(gate) = &self.result else { return Ok(()) };
        for image in images {
            gate.check(image, root).await?;
        }
        Ok(())
    }
}
