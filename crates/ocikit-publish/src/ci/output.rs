use std::fmt::Write as _;

use super::System;
use super::command::{azure, github};

/// A delimiter of step outputs, which nothing in their values can guess.
#[derive(Debug, Clone)]
pub struct Delimiter(String);

impl Delimiter {
    /// Creates a delimiter from random bytes.
    pub fn new(random: [u8; 16]) -> Delimiter {
        Delimiter(format!("ocikit-{}", hex::encode(random)))
    }

    /// Creates a delimiter from the random numbers of the system.
    ///
    /// # Errors
    ///
    /// If the system has none.
    pub fn random() -> Result<Delimiter, OutputError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| OutputError::Random)?;
        Ok(Delimiter::new(random))
    }
}

/// Why outputs cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// A name has characters that are not allowed.
    #[error("cannot write the output `{0}`: a name has letters, digits, `_` and `-` only")]
    Name(String),
    /// A value has a line that ends it too early, or more than one line where only one is possible.
    #[error("cannot write the output `{0}`: its value does not fit the format")]
    Value(String),
    /// There are no random numbers.
    #[error("cannot write outputs: the system gives no random numbers")]
    Random,
}

fn check_name(name: &str) -> Result<(), OutputError> {
    let is_name =
        !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter));
    if is_name { Ok(()) } else { Err(OutputError::Name(name.to_owned())) }
}

/// Returns the lines to append to `$GITHUB_OUTPUT`. Every value is between delimiters, so that no value can add another
/// output.
///
/// # Errors
///
/// [`OutputError`] for an invalid name, and for a value that has the delimiter.
pub fn step_outputs(outputs: &[(&str, String)], delimiter: &Delimiter) -> Result<String, OutputError> {
    let Delimiter(delimiter) = delimiter;
    let mut lines = String::new();
    for (name, value) in outputs {
        check_name(name)?;
        if value.contains(&**delimiter) {
            return Err(OutputError::Value((*name).to_owned()));
        }
        // Writing to a string does not fail.
        let _ = write!(lines, "{name}<<{delimiter}\n{value}\n{delimiter}\n");
    }
    Ok(lines)
}

/// Returns the logging commands that set variables of an Azure pipeline.
///
/// # Errors
///
/// [`OutputError::Name`].
pub fn set_variables(outputs: &[(&str, String)]) -> Result<Vec<String>, OutputError> {
    let line = |(name, value): &(&str, String)| {
        check_name(name)?;
        Ok(format!("##vso[task.setvariable variable={name};issecret=false;isoutput=true]{}", azure(value)))
    };
    outputs.iter().map(line).collect()
}

/// Returns a file of variables as GitLab and Jenkins read it: `NAME=value` lines with names in upper case.
///
/// # Errors
///
/// [`OutputError`] for an invalid name, and for a value of several lines, which the format does not have.
pub fn dotenv(outputs: &[(&str, String)]) -> Result<String, OutputError> {
    let mut lines = String::new();
    for (name, value) in outputs {
        check_name(name)?;
        if value.contains(['\n', '\r', '\0']) {
            return Err(OutputError::Value((*name).to_owned()));
        }
        let _ = writeln!(lines, "OCIKIT_{}={value}", name.to_ascii_uppercase().replace('-', "_"));
    }
    Ok(lines)
}

/// Returns the line that begins a group in the log, if the system has groups. `unix` is the time in seconds.
pub fn group_start(system: System, name: &str, unix: i64) -> Option<String> {
    match system {
        System::GithubActions => Some(format!("::group::{}", github(name))),
        System::AzureDevops => Some(format!("##[group]{}", azure(name))),
        System::GitlabCi => Some(format!("\u{1b}[0Ksection_start:{unix}:{}\r\u{1b}[0K{name}", section(name))),
        System::Jenkins | System::None => None,
    }
}

/// Returns the line that ends a group.
pub fn group_end(system: System, name: &str, unix: i64) -> Option<String> {
    match system {
        System::GithubActions => Some("::endgroup::".to_owned()),
        System::AzureDevops => Some("##[endgroup]".to_owned()),
        System::GitlabCi => Some(format!("\u{1b}[0Ksection_end:{unix}:{}\r\u{1b}[0K", section(name))),
        System::Jenkins | System::None => None,
    }
}

fn section(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' }).collect()
}

/// Returns the command that hides a secret in the log, if the system has one.
pub fn mask(system: System, secret: &str) -> Option<String> {
    match system {
        System::GithubActions => Some(format!("::add-mask::{}", github(secret))),
        System::AzureDevops => Some(format!("##vso[task.setsecret]{}", azure(secret))),
        System::GitlabCi | System::Jenkins | System::None => None,
    }
}
