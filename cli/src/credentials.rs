//! Credentials from the command line and the environment.

use std::io::{self, Read};

use ocikit::Registry;
use ocikit::registry::{Credential, CredentialScope, Secret};

use crate::environment::variable;
use crate::failure::{Failure, Result};
use crate::waiting::Waiting;

/// A credential, or a part of it, from the command line or the environment.
#[derive(Debug, Clone)]
pub(crate) enum LoginInput {
    Whole(Credential),
    /// A user name without a password.
    Name(String),
}

/// Reads the credential of the flags. A password from standard input may belong to the user name in the environment.
pub(crate) fn given(
    username: Option<&str>,
    password_stdin: bool,
    token_stdin: bool,
    environment: &EnvironmentCredentials,
) -> Result<Option<LoginInput>> {
    if token_stdin {
        return Ok(Some(LoginInput::Whole(Credential::Bearer(from_stdin("token")?))));
    }
    if password_stdin {
        let password = from_stdin("password")?;
        let username = username.or(environment.username.as_deref()).ok_or_else(no_name)?;
        return Ok(Some(LoginInput::Whole(Credential::password(username, password))));
    }
    Ok(username.map(|name| LoginInput::Name(name.to_owned())))
}

fn no_name() -> Failure {
    Failure::usage("cannot log in: a password is given without a user name")
        .hint("add --username, or set OCIKIT_USERNAME")
}

/// The credentials in the environment, and the registry that they are for.
#[derive(Debug, Clone, Default)]
pub(crate) struct EnvironmentCredentials {
    registry: Option<Registry>,
    username: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
}

impl EnvironmentCredentials {
    pub(crate) fn read() -> Result<EnvironmentCredentials> {
        let registry = variable("OCIKIT_REGISTRY").map(|text| registry(&text)).transpose()?;
        let secret = |name: &str| variable(name).map(Secret::new);
        let (password, token) = (secret("OCIKIT_PASSWORD"), secret("OCIKIT_TOKEN"));
        Ok(EnvironmentCredentials { registry, username: variable("OCIKIT_USERNAME"), password, token })
    }

    /// Returns the registry in `OCIKIT_REGISTRY`.
    pub(crate) fn registry(&self) -> Option<&Registry> {
        self.registry.as_ref()
    }

    /// Returns whether there is a password or a token.
    pub(crate) fn has_secret(&self) -> bool {
        self.password.is_some() || self.token.is_some()
    }

    /// Returns the credential, or `None` if it is incomplete.
    pub(crate) fn credential(&self) -> Result<Option<Credential>> {
        match (&self.username, &self.password, &self.token) {
            (Some(username), Some(password), _) => Ok(Some(Credential::password(username, password.clone()))),
            (None, Some(_), _) => Err(no_name()),
            (_, None, Some(token)) => Ok(Some(Credential::Bearer(token.clone()))),
            (_, None, None) => Ok(None),
        }
    }

    /// Returns the variables that [`EnvironmentCredentials::credential`] comes from.
    pub(crate) fn origin(&self) -> &'static str {
        if self.password.is_some() { "OCIKIT_USERNAME and OCIKIT_PASSWORD" } else { "OCIKIT_TOKEN" }
    }

    fn is_for(&self, registry: &Registry) -> bool {
        self.registry.as_ref().is_none_or(|meant| meant == registry)
    }

    /// Returns the credential, or the user name, for a registry.
    pub(crate) fn given(&self, registry: &Registry) -> Result<Option<LoginInput>> {
        if !self.is_for(registry) {
            return Ok(None);
        }
        let name = || self.username.clone().map(LoginInput::Name);
        Ok(self.credential()?.map(LoginInput::Whole).or_else(name))
    }

    /// Returns a user name of the command line, with the password of the environment if that is for the registry.
    pub(crate) fn complete(&self, name: &str, registry: &Registry) -> LoginInput {
        match self.password.clone().filter(|_| self.is_for(registry)) {
            Some(password) => LoginInput::Whole(Credential::password(name, password)),
            None => LoginInput::Name(name.to_owned()),
        }
    }
}

fn from_stdin(what: &str) -> Result<Secret> {
    // No registry has longer secrets; the limit protects from a wrong file on standard input.
    const MAX_SECRET_BYTES: u64 = 64 << 10;
    let mut text = String::new();
    let _waiting = Waiting::new();
    let read = io::stdin().lock().take(MAX_SECRET_BYTES).read_to_string(&mut text);
    read.map_err(|error| Failure::io("read", format_args!("the {what} from standard input"), &error))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Failure::usage(format_args!("cannot read the {what} from standard input: it is empty"))),
        secret => Ok(Secret::new(secret)),
    }
}

/// Parses a registry. Also accepts a URL, or a repository in the registry.
fn registry(text: &str) -> std::result::Result<Registry, ocikit::spec::Error> {
    text.parse::<CredentialScope>().map(|scope| scope.registry().clone())
}
