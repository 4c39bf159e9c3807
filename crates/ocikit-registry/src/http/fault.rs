use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use ocikit_image::Error;
use ocikit_image::retry::causes;

use super::address::OutOfReach;

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It would be the same again: TLS, a refused address, a setting that makes no sense.
    Final(Box<dyn StdError + Send + Sync>),
    /// Nothing was sent.
    Unsent(Box<dyn StdError + Send + Sync>),
    /// The connection broke.
    Cut(Box<dyn StdError + Send + Sync>),
    /// Nothing moved for so long.
    Silent(Duration),
    /// What was to be sent could not be read.
    Payload(Error),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Final(error) | Fault::Unsent(error) | Fault::Cut(error) => write_chain(f, &**error),
            Fault::Silent(time) => write!(f, "nothing was heard for {} s", time.as_secs_f64()),
            Fault::Payload(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl StdError for Fault {}

/// Whether a server could not be reached because another one, which named it, has no business where it is. Those who
/// trust that one say so with [`Redirects::Trusted`](crate::Redirects::Trusted).
pub fn is_out_of_reach(error: &Error) -> bool {
    let Error::Unreachable { source, .. } = error else { return false };
    let found = |fault: &Fault| match fault {
        Fault::Final(error) => causes(&**error).any(|cause| cause.is::<OutOfReach>()),
        _ => false,
    };
    source.downcast_ref::<Fault>().is_some_and(found)
}

/// An error and its causes in one line: those of HTTP clients say nothing by themselves.
fn write_chain(f: &mut fmt::Formatter<'_>, error: &(dyn StdError + 'static)) -> fmt::Result {
    let mut last = error.to_string();
    f.write_str(&last)?;
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        if !last.contains(&text) {
            write!(f, ": {text}")?;
            last = text;
        }
        next = error.source();
    }
    Ok(())
}

/// What kind of failure the HTTP client means.
pub(super) fn sort(error: reqwest::Error) -> Fault {
    // URLs hold signatures, and whoever reports this knows where the request went.
    let error = error.without_url();
    let unsent = error.is_connect();
    // What TLS finds in a connection that stands is what became of the bytes on the way.
    let refused = |cause: &(dyn StdError + 'static)| cause.is::<OutOfReach>() || unsent && cause.is::<rustls::Error>();
    let is_final = error.is_builder() || causes(&error).any(refused);
    let error = Box::new(error);
    match (is_final, unsent) {
        (true, _) => Fault::Final(error),
        (false, true) => Fault::Unsent(error),
        (false, false) => Fault::Cut(error),
    }
}
