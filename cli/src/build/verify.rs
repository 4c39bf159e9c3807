//! Verifying the base images of a build before anything is published.

use std::path::PathBuf;

use clap::Args;
use ocikit::{Location, Reference, Root};
use ocikit_build::{Attestation, Solve, statements, used_images, without_attestations};

use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::policy::Gate;
use crate::values::key_value;

/// The policy for base images.
#[derive(Debug, Args)]
#[command(next_help_heading = "Verification")]
pub(crate) struct VerifyBaseArguments {
    /// Publish only if every base image passes this policy
    ///
    /// Base images are all images of registries that BuildKit used, by the digests that it used: also those of `COPY --from`
    /// and of the `syntax` line. See `ocikit verify --policy`.
    #[arg(long = "verify", value_name = "POLICY")]
    policy: Option<PathBuf>,
    /// Use this notation plugin; see `ocikit verify --plugin`
    #[arg(long, value_name = "NAME", requires = "policy")]
    verify_plugin: Vec<PathBuf>,
    /// Pass this configuration to the plugins; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, requires = "verify_plugin")]
    verify_plugin_config: Vec<(String, String)>,
}

/// The policy for the base images of a build.
pub(crate) struct BaseGate {
    gate: Gate,
    /// Whether the provenance of BuildKit was requested only to know the base images.
    is_provenance_extra: bool,
}

impl VerifyBaseArguments {
    /// Reads the policy, if one is given, and makes the build tell which images it used.
    pub(crate) async fn gate(&self, solve: &mut Solve) -> Result<Option<BaseGate>> {
        let Some(path) = &self.policy else { return Ok(None) };
        let gate = Gate::of_policy(path, &self.verify_plugin, &self.verify_plugin_config).await?;
        let is_provenance_extra = !solve.has_provenance();
        if is_provenance_extra {
            solve.attestations.push(Attestation::provenance("mode=min")?);
        }
        Ok(Some(BaseGate { gate, is_provenance_extra }))
    }
}

impl BaseGate {
    /// Fails unless all base images of a built root pass the policy. Returns the root without the provenance that was requested
    /// only for this.
    pub(crate) async fn check(&self, context: &Context, root: &Root) -> Result<Root> {
        let Some(used) = used_images(&statements(root).await?) else {
            let message = "cannot verify the base images: BuildKit did not report which images it used";
            return Err(Failure::new(Code::Unverified, message).hint("use BuildKit 0.11 or newer"));
        };
        for image in used {
            let name: Reference = image.name.parse()?;
            let name = Reference::digested(name.repository().clone(), image.digest);
            let location = Location::Registry(name);
            let base = context.session(&[&location])?.open(&location).await?;
            self.gate.check(&location, &base).await?;
        }
        match self.is_provenance_extra {
            true => Ok(without_attestations(root).await?),
            false => Ok(root.clone()),
        }
    }
}
