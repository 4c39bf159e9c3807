use std::io::{self, IsTerminal, Read};
use std::sync::Arc;

use clap::Args;
use ocikit::registry::{Client, ClientOptions, Credential, Fixed, Secret};
use ocikit::{Registry, Repository};
use serde::Serialize;

use crate::context::{Context, variable};
use crate::failure::{Failure, Result};

/// Log in to a registry
///
/// The password is asked for, or comes from --password-stdin or OCIKIT_PASSWORD; it is tried before it is kept, in docker's
/// config.json or by the credential helper that is set up there.
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The registry
    #[arg(value_parser = registry)]
    registry: Registry,
}

#[derive(Serialize)]
struct Facts {
    registry: String,
    kept: String,
}

impl Login {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let credential = match context.given() {
            Some(Given::Whole(credential)) => credential.clone(),
            Some(Given::Name(name)) => Credential::password(name, ask("Password: ", true)?),
            None => {
                let name = ask("Username: ", false)?;
                Credential::password(name.reveal(), ask("Password: ", true)?)
            }
        };
        let keychain = Arc::new(Fixed { registry: Some(self.registry.clone()), credential: credential.clone() });
        Client::new(ClientOptions { keychain, ..context.client_options()? }).check(&self.registry).await?;
        let config = context.docker_config()?;
        config.login(&self.registry, &credential).await?;
        let kept = config.path().display().to_string();
        let facts = Facts { registry: self.registry.to_string(), kept };
        context.output.say(&format!("logged in to {}, as {} has it from now on", facts.registry, facts.kept));
        if context.output.json { context.output.facts(&facts, String::new) } else { Ok(()) }
    }
}

/// What the command line or the environment gave to show who we are.
#[derive(Debug, Clone)]
pub(crate) enum Given {
    Whole(Credential),
    /// A name whose password has to be asked for.
    Name(String),
}

/// Reads the flags and, where there are none, the environment.
pub(crate) fn given(username: Option<&str>, password_stdin: bool, token_stdin: bool) -> Result<Option<Given>> {
    if token_stdin {
        return Ok(Some(Given::Whole(Credential::Bearer(from_stdin("token")?))));
    }
    let username = username.map(str::to_owned).or_else(|| variable("OCIKIT_USERNAME"));
    let password = match password_stdin {
        true => Some(from_stdin("password")?),
        false => variable("OCIKIT_PASSWORD").map(Secret::new),
    };
    Ok(match (username, password, variable("OCIKIT_TOKEN")) {
        (Some(username), Some(password), _) => Some(Given::Whole(Credential::Password { username, password })),
        (None, Some(_), _) => {
            return Err(
                Failure::usage("there is a password and no name for it").hint("give --username, or OCIKIT_USERNAME")
            );
        }
        (Some(username), None, _) => Some(Given::Name(username)),
        (None, None, Some(token)) => Some(Given::Whole(Credential::Bearer(Secret::new(token)))),
        (None, None, None) => None,
    })
}

fn from_stdin(what: &str) -> Result<Secret> {
    // No registry has secrets as long as that; something else was piped in.
    const LONGEST: u64 = 64 << 10;
    let mut text = String::new();
    let read = io::stdin().lock().take(LONGEST).read_to_string(&mut text);
    read.map_err(|error| Failure::io("read", format_args!("the {what} from standard input"), &error))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Failure::usage(format_args!("standard input holds no {what}"))),
        secret => Ok(Secret::new(secret)),
    }
}

fn ask(prompt: &str, hidden: bool) -> Result<Secret> {
    let failed = |error: io::Error| Failure::io("read", "from the terminal", &error);
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("there is nobody to ask for the password")
            .hint("give --username and --password-stdin, or set OCIKIT_USERNAME and OCIKIT_PASSWORD"));
    }
    if hidden {
        return Ok(Secret::new(rpassword::prompt_password(prompt).map_err(failed)?));
    }
    crate::output::prompt(prompt);
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(failed)?;
    Ok(Secret::new(line.trim()))
}

/// A registry; people also type the repository they mean to push to, or a URL.
pub(crate) fn registry(text: &str) -> std::result::Result<Registry, ocikit::spec::Error> {
    let text = text.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    match text.split_once('/') {
        Some(_) => Ok(text.parse::<Repository>()?.registry().clone()),
        None => text.parse(),
    }
}
