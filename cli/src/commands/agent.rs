use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ocikit_build::agent::{AgentOptions, BuildConfig, BuildResult, Endpoint, serve};

use crate::build::BuilderArguments;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::Lines;

const EXAMPLES: &str = "\
Examples:
  ocikit agent
  ocikit agent --config build.json --listen unix:/run/agent.sock
  ocikit agent --listen vsock:5001 --linger 300";

/// Build and push what build.json says, and report to a host
///
/// The builder agent of a microVM: takes the secrets from the host over vsock, builds, pushes, sends the log while it is
/// written, and then the result. `docs/agent.md` describes build.json and the protocol. Prints REPOSITORY@DIGEST.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Agent {
    /// Read the build from this file
    #[arg(long, value_name = "FILE", default_value = "/config/build.json")]
    config: PathBuf,
    /// Build this directory instead of the `source_path` of the file
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Listen for the host here: vsock:PORT or unix:PATH
    ///
    /// Over vsock, only the host of the virtual machine may connect; with vsock:CID:PORT this machine too.
    #[arg(long, value_name = "ENDPOINT", default_value = "vsock:5001")]
    listen: Endpoint,
    /// Write secrets to a directory here, which must be on a tmpfs
    #[arg(long, value_name = "DIR")]
    secrets_dir: Option<PathBuf>,
    /// Wait this many seconds for the secrets
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    secrets_timeout: u64,
    /// Wait this many seconds for a host that reads the result
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    linger: u64,
    #[command(flatten)]
    builder: BuilderArguments,
}

impl Agent {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let mut options = AgentOptions::new(self.listen.clone());
        options.builder = self.builder.options(&[], Vec::new())?;
        options.client = context.client_options()?;
        options.source.clone_from(&self.source);
        options.secrets_directory.clone_from(&self.secrets_dir);
        options.secrets_timeout = Duration::from_secs(self.secrets_timeout);
        options.linger = Duration::from_secs(self.linger);
        options.timestamp = Some(context.time()?);
        options.source_date_epoch = context.epoch;
        options.observer = context.progress.of_build();
        let served = serve(BuildConfig::read(&self.config), &options).await?;
        if !served.is_delivered {
            context.output.say("warning: no host read the result");
        }
        match served.error {
            // The message of the result is without secrets.
            Some(error) => {
                let message = served.result.error.unwrap_or_default();
                Err(Failure { message, ..Failure::from(error) })
            }
            None => context.output.result(&served.result, || lines(&served.result)),
        }
    }
}

fn lines(result: &BuildResult) -> Lines {
    let name = result.image_ref.as_deref().unwrap_or_default();
    let name = name.strip_suffix(":latest").unwrap_or(name);
    let digest = result.image_digest.map(|digest| digest.to_string()).unwrap_or_default();
    Lines::from_iter([format!("{name}@{digest}")])
}
