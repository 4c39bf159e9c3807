use std::collections::BTreeMap;

use super::error::CiError;
use crate::git::Event;

/// The environment of a job. An empty variable counts as unset.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'a>(pub &'a BTreeMap<String, String>);

impl<'a> Variables<'a> {
    /// Returns a variable.
    pub fn get(self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn owned(self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    pub(super) fn required(self, name: &str) -> Result<String, CiError> {
        self.owned(name).ok_or_else(|| CiError::Missing { variable: name.to_owned() })
    }

    /// Returns the event that a variable names.
    pub(super) fn event(self, name: &str, known: &[(&str, Event)]) -> Result<Event, CiError> {
        let value = self.required(name)?;
        let found = known.iter().find(|(known, _)| *known == value).map(|(_, event)| *event);
        let supported = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| CiError::Unsupported { variable: name.to_owned(), value, supported: supported() })
    }

    /// Returns a variable as a number from 1.
    pub(super) fn number(self, name: &str) -> Result<Option<u64>, CiError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| *number > 0);
        let malformed = || CiError::Malformed { variable: name.to_owned(), expected: "the number of a pull request" };
        number.map(Some).ok_or_else(malformed)
    }
}
