use std::collections::BTreeMap;
use std::io;

use ocikit::registry::Secret;

use super::error::ExchangeError;
use super::kind::ExchangeKind;

/// The maximum size of a file with a token or with settings, in bytes.
const MAX_FILE_BYTES: usize = 64 << 10;

/// The environment and the files of a job.
pub(super) struct Source<'a> {
    pub(super) environment: &'a BTreeMap<String, String>,
    pub(super) read: &'a dyn Fn(&str) -> io::Result<Vec<u8>>,
}

impl<'a> Source<'a> {
    /// Returns a variable; an empty one counts as unset.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn required(&self, kind: ExchangeKind, variable: &'static str) -> Result<&'a str, ExchangeError> {
        self.get(variable).ok_or(ExchangeError::Missing { kind, variable })
    }

    pub(super) fn file(&self, path: &str) -> Result<Vec<u8>, ExchangeError> {
        let bytes = (self.read)(path).map_err(|source| ExchangeError::File { path: path.to_owned(), source })?;
        match bytes.len() > MAX_FILE_BYTES {
            true => Err(ExchangeError::Invalid { what: path.to_owned(), problem: "it has more than 64 KiB" }),
            false => Ok(bytes),
        }
    }

    pub(super) fn secret_file(&self, path: &str) -> Result<Secret, ExchangeError> {
        let text = String::from_utf8(self.file(path)?);
        let text = text.map_err(|_| ExchangeError::Invalid { what: path.to_owned(), problem: "it is not text" })?;
        match text.trim() {
            "" => Err(ExchangeError::Invalid { what: path.to_owned(), problem: "it is empty" }),
            token => Ok(Secret::new(token)),
        }
    }
}
