use std::io::{self, IsTerminal};
use std::sync::Arc;

use clap::Args;
use ocikit::Error;
use ocikit::registry::{Client, Credential, CredentialScope, Fixed, Secret};
use ocikit_publish::login::{Exchange, ExchangeError};
use ocikit_sign::Http;
use serde_json::json;

use crate::context::Context;
use crate::credentials::LoginInput;
use crate::failure::{Code, Failure, Result};
use crate::output::Lines;
use crate::publish::{ExchangeBy, exchange_kind};
use crate::waiting::Waiting;

const EXAMPLES: &str = "\
Examples:
  ocikit login ghcr.io
  ocikit login quay.io/acme
  ocikit login -u alice --password-stdin registry.example.com < password.txt
  ocikit login --exchange europe-docker.pkg.dev";

/// Log in to a registry
///
/// Prompts for the password unless --password-stdin or OCIKIT_PASSWORD provides it. Tests the credentials, then stores
/// them in the config.json of docker or in the credential helper that is configured there. With a repository or
/// namespace, as in ghcr.io/acme, they are used for the repositories at and below that path only, as podman does; docker
/// ignores such an entry.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Login {
    /// Registry, or repository or namespace in it, to log in to
    #[arg(value_name = "REGISTRY")]
    scope: CredentialScope,
    /// Exchange the identity of the CI job for a credential instead
    ///
    /// KIND is github, gitlab, ecr, ecr-public, artifact-registry or acr; by default the host of the registry decides.
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, default_missing_value = "auto", value_parser = exchange_kind, conflicts_with_all = ["username", "password_stdin", "token_stdin"])]
    exchange: Option<ExchangeBy>,
}

impl Login {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let credential = match (self.exchange, context.given(self.scope.registry())?) {
            (Some(by), _) => exchanged(context, by.of(self.scope.registry())?).await?,
            (None, Some(LoginInput::Whole(credential))) => credential,
            (None, Some(LoginInput::Name(name))) => Credential::password(name, ask("Password: ", true)?),
            (None, None) => {
                let name = ask("Username: ", false)?;
                Credential::password(name.reveal(), ask("Password: ", true)?)
            }
        };
        let keychain =
            Arc::new(Fixed { registry: Some(self.scope.registry().clone()), credential: credential.clone() });
        Client::new(context.client_options()?.keychain(keychain)).check(self.scope.registry()).await.map_err(
            |error| {
                let refused = matches!(error, Error::Denied { .. });
                let failure = Failure::from(error);
                if refused { failure.hint("check the user name and the password or token") } else { failure }
            },
        )?;
        let config = context.docker_config(&self.scope).await?;
        config.login(&self.scope, &credential).await?;
        let (registry, kept) = (self.scope.to_string(), config.path().display().to_string());
        context.output.say(format!("logged in to {registry}; credentials stored by {kept}"));
        context.output.result(&json!({ "registry": registry, "kept": kept }), Lines::default)
    }
}

/// Exchanges the token of the job.
async fn exchanged(context: &Context, exchange: Exchange) -> Result<Credential> {
    let http = Http::new(&context.http_options()?)?;
    let exchanged = exchange.credential(&http, jiff::Timestamp::now()).await;
    exchanged.map(|found| found.credential).map_err(|error| match error {
        ExchangeError::Refused { .. } => Failure::new(Code::Denied, error),
        ExchangeError::Service { .. } => Failure::new(Code::Unreachable, error),
        error => Failure::usage(error),
    })
}

fn ask(prompt: &str, hidden: bool) -> Result<Secret> {
    let failed = |error: io::Error| Failure::io("read", "from the terminal", &error);
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("cannot ask for the password: standard input is not a terminal")
            .hint("add --username and --password-stdin, or set OCIKIT_USERNAME and OCIKIT_PASSWORD"));
    }
    if hidden {
        return Ok(Secret::new(rpassword::prompt_password(prompt).map_err(failed)?));
    }
    crate::output::prompt(prompt);
    let mut line = String::new();
    let _waiting = Waiting::new();
    io::stdin().read_line(&mut line).map_err(failed)?;
    Ok(Secret::new(line.trim()))
}
