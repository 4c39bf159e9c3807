use std::path::{Path, PathBuf};

use clap::Args;
use ocikit_publish::config::Config;
use ocikit_publish::oidc::{Caller, OidcError, verify_token};
use ocikit_sign::Http;
use serde_json::json;
use zeroize::Zeroizing;

use crate::context::Context;
use crate::environment::variable;
use crate::failure::{Code, Failure, Result};
use crate::{file, keys};

const EXAMPLES: &str = "\
Examples:
  ocikit verify-token --config config.yaml
  ocikit verify-token --config config.yaml --token-file token.jwt --output caller.json";

/// Verify the OIDC token of a caller, such as a CI job
///
/// Checks signature, issuer, audience, workflow, age and other claims as `trusted-issuers` in the configuration says.
/// The keys come from the issuer, or from a file. Prints the issuer and the claims; exits with 1 if the token is refused.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyToken {
    /// Read `trusted-issuers` from this file (YAML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Read the token from this file; default: the variable AUTHORIZATION
    ///
    /// `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Write `github_url` and `client_id` of the issuer to this file (JSON)
    #[arg(long, short, alias = "output-path", value_name = "FILE")]
    output: Option<PathBuf>,
}

impl VerifyToken {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let config = Config::parse(&file::read_text(&self.config)?)
            .map_err(|error| Failure::usage(format_args!("{}: {error}", self.config.display())))?;
        let token = self.token()?;
        let directory = self.config.parent().unwrap_or(Path::new(""));
        let read = |path: &str| file::read_named(directory.join(path));
        let http = Http::new(&context.http_options()?)?;
        let now = jiff::Timestamp::now();
        let caller = verify_token(&token, &config.trusted_issuers, &read, &http, now).await.map_err(failure_of)?;
        let Caller { issuer, claims, .. } = &caller;
        if let Some(path) = &self.output {
            let value = json!({"github_url": issuer.github_url, "client_id": issuer.client_id});
            file::write(path, format!("{value}\n").as_bytes())?;
        }
        // The name is that of the entry in the configuration.
        let result = json!({ "name": issuer.name, "issuer": issuer.issuer, "claims": claims.all });
        context.output.result(&result, || format!("accepted: {} ({})", issuer.name, issuer.issuer))
    }

    /// Reads the token. It is never an argument, which other users could read.
    fn token(&self) -> Result<Zeroizing<String>> {
        let text = match &self.token_file {
            Some(path) => {
                let bytes = keys::read_secret(path)?;
                let text = std::str::from_utf8(&bytes);
                let wrong = |_| Failure::usage(format_args!("cannot read {}: it is not text", path.display()));
                Zeroizing::new(text.map_err(wrong)?.to_owned())
            }
            None => {
                let none = || Failure::usage("cannot verify the token: none is given");
                Zeroizing::new(
                    variable("AUTHORIZATION").ok_or_else(|| none().hint("add --token-file, or set AUTHORIZATION"))?,
                )
            }
        };
        let text = text.trim();
        Ok(Zeroizing::new(text.strip_prefix("Bearer ").unwrap_or(text).to_owned()))
    }
}

fn failure_of(error: OidcError) -> Failure {
    match &error {
        // As the verifier of the image builder: 1 for every token that is refused.
        refused if refused.is_refusal() => Failure::new(Code::Other, error),
        OidcError::Fetch { .. } => Failure::new(Code::Unreachable, error)
            .hint("check the issuer; if its CA is not a public one, add --ca-file, or give its keys as `jwks-file`"),
        OidcError::KeyFile { .. } => Failure::new(Code::Missing, error),
        _ => Failure::usage(error),
    }
}
