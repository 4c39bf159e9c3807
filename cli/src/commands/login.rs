use std::io::{self, IsTerminal, Read};
use std::sync::Arc;

use clap::Args;
use ocikit::registry::{Client, ClientOptions, Credential, Fixed, Secret};
use ocikit::{Registry, Repository};
use serde::Serialize;

use crate::context::{Context, variable};
use crate::failure::{Failure, Result};
use crate::output::Lines;

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
        let credential = match context.given(&self.registry)? {
            Some(Given::Whole(credential)) => credential,
            Some(Given::Name(name)) => Credential::password(name, ask("Password: ", true)?),
            None => {
                let name = ask("Username: ", false)?;
                Credential::password(name.reveal(), ask("Password: ", true)?)
            }
        };
        let keychain = Arc::new(Fixed { registry: Some(self.registry.clone()), credential: credential.clone() });
        Client::new(ClientOptions { keychain, ..context.client_options()? }).check(&self.registry).await?;
        let config = context.docker_config(&self.registry).await?;
        config.login(&self.registry, &credential).await?;
        let kept = config.path().display().to_string();
        let facts = Facts { registry: self.registry.to_string(), kept };
        context.output.say(format!("logged in to {}, as {} has it from now on", facts.registry, facts.kept));
        if context.output.json { context.output.facts(&facts, Lines::default) } else { Ok(()) }
    }
}

/// What the command line or the environment gives to log in.
#[derive(Debug, Clone)]
pub(crate) enum Given {
    Whole(Credential),
    /// A name whose password has to be asked for.
    Name(String),
}

/// Reads what the flags give. A password from standard input may belong to the name in the environment.
pub(crate) fn given(
    username: Option<&str>,
    password_stdin: bool,
    token_stdin: bool,
    environment: &Environment,
) -> Result<Option<Given>> {
    if token_stdin {
        return Ok(Some(Given::Whole(Credential::Bearer(from_stdin("token")?))));
    }
    let password = if password_stdin { Some(from_stdin("password")?) } else { None };
    match (username.map(str::to_owned), password) {
        (Some(username), Some(password)) => Ok(Some(Given::Whole(Credential::Password { username, password }))),
        (Some(username), None) => Ok(Some(Given::Name(username))),
        (None, Some(password)) => match environment.username.clone() {
            Some(username) => Ok(Some(Given::Whole(Credential::Password { username, password }))),
            None => Err(no_name()),
        },
        (None, None) => Ok(None),
    }
}

fn no_name() -> Failure {
    Failure::usage("there is a password and no name for it").hint("give --username, or set OCIKIT_USERNAME")
}

/// What the environment gives to log in, and the registry that it is for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    registry: Option<Registry>,
    username: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
}

impl Environment {
    pub(crate) fn read() -> Result<Environment> {
        let registry = variable("OCIKIT_REGISTRY").map(|text| registry(&text)).transpose()?;
        let secret = |name: &str| variable(name).map(Secret::new);
        let (password, token) = (secret("OCIKIT_PASSWORD"), secret("OCIKIT_TOKEN"));
        Ok(Environment { registry, username: variable("OCIKIT_USERNAME"), password, token })
    }

    /// The registry that the credentials are for, if that is said.
    pub(crate) fn registry(&self) -> Option<&Registry> {
        self.registry.as_ref()
    }

    /// A credential that is complete.
    pub(crate) fn credential(&self) -> Result<Option<Credential>> {
        match (&self.username, &self.password, &self.token) {
            (Some(username), Some(password), _) => Ok(Some(Credential::password(username, password.clone()))),
            (None, Some(_), _) => Err(no_name()),
            (_, None, Some(token)) => Ok(Some(Credential::Bearer(token.clone()))),
            (_, None, None) => Ok(None),
        }
    }

    fn is_for(&self, registry: &Registry) -> bool {
        self.registry.as_ref().is_none_or(|meant| meant == registry)
    }

    /// What there is for a registry.
    pub(crate) fn given(&self, registry: &Registry) -> Result<Option<Given>> {
        if !self.is_for(registry) {
            return Ok(None);
        }
        let name = || self.username.clone().map(Given::Name);
        Ok(self.credential()?.map(Given::Whole).or_else(name))
    }

    /// A name of the command line, with the password of the environment if that is for the registry.
    pub(crate) fn complete(&self, name: &str, registry: &Registry) -> Given {
        match self.password.clone().filter(|_| self.is_for(registry)) {
            Some(password) => Given::Whole(Credential::password(name, password)),
            None => Given::Name(name.to_owned()),
        }
    }
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
