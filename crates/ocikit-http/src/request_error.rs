use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::address::{OutOfReach, Unresolved};
use crate::error::Error;
use crate::proxy_failure::{self, ProxyFailure};
use crate::retry::causes;
use crate::tls;
use ocikit_spec::NoAnswer;

/// An error of any type.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The reason why there is no answer, or why its body is incomplete.
#[derive(Debug)]
#[non_exhaustive]
pub enum RequestError {
    /// A retry would fail the same way: TLS, a refused address, an invalid setting.
    Final(BoxError),
    /// The server speaks TLS, and the request was sent over plain HTTP.
    SpeaksTls,
    /// The request was not sent.
    Unsent(BoxError),
    /// The connection was lost.
    Cut(BoxError),
    /// There was no progress for this time.
    Silent(Duration),
    /// A small document was incomplete after this time. A retry would be as slow.
    Slow(Duration),
    /// The answer has more than this many bytes, which the caller allows.
    TooLong(u64),
    /// The body of the request could not be read from its source. The error is that of the source.
    Payload(BoxError),
    /// The settings for the server are unusable, for example because a certificate file is missing.
    Setup(Error),
}

impl RequestError {
    /// Returns whether a retry would fail the same way.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            RequestError::Final(_)
                | RequestError::SpeaksTls
                | RequestError::Slow(_)
                | RequestError::TooLong(_)
                | RequestError::Payload(_)
                | RequestError::Setup(_)
        )
    }

    /// Returns whether a retry rarely helps: nothing listens on the port, name resolution failed, or the proxy refuses.
    pub fn is_lasting(&self) -> bool {
        matches!(self.cause(), NoAnswer::ConnectionRefused | NoAnswer::NameResolution | NoAnswer::Proxy)
    }

    /// Returns the kind of failure.
    pub fn cause(&self) -> NoAnswer {
        match self {
            RequestError::SpeaksTls => NoAnswer::SpeaksTls,
            RequestError::Silent(_) | RequestError::Slow(_) => NoAnswer::TimedOut,
            RequestError::TooLong(_) | RequestError::Payload(_) | RequestError::Setup(_) => NoAnswer::Other,
            RequestError::Final(error) | RequestError::Unsent(error) | RequestError::Cut(error) => {
                causes(&**error).find_map(cause_of).unwrap_or(NoAnswer::Other)
            }
        }
    }
}

fn cause_of(error: &(dyn StdError + 'static)) -> Option<NoAnswer> {
    if error.is::<OutOfReach>() {
        return Some(NoAnswer::OutOfReach);
    }
    if error.is::<ProxyFailure>() {
        return Some(NoAnswer::Proxy);
    }
    if error.is::<Unresolved>() {
        return Some(NoAnswer::NameResolution);
    }
    if let Some((cause, _)) = tls::problem(error) {
        return Some(cause);
    }
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => Some(NoAnswer::ConnectionRefused),
        Some(io::ErrorKind::TimedOut) => Some(NoAnswer::TimedOut),
        _ => error.downcast_ref::<reqwest::Error>().filter(|error| error.is_timeout()).map(|_| NoAnswer::TimedOut),
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.cause()) {
            (_, NoAnswer::ConnectionRefused) => f.write_str("connection refused"),
            (_, NoAnswer::SpeaksPlainHttp) => f.write_str("the server speaks plain HTTP, not TLS"),
            (_, NoAnswer::SpeaksTls) => f.write_str("the server speaks TLS, not plain HTTP"),
            (RequestError::Final(error) | RequestError::Unsent(error) | RequestError::Cut(error), cause) => {
                let named = causes(&**error).find(|error| cause_of(*error).is_some());
                match (named, named.and_then(tls::problem)) {
                    (_, Some((_, problem))) => write!(f, "TLS failed: {problem}"),
                    (Some(error), None) if cause == NoAnswer::TimedOut => {
                        f.write_str("timed out: ")?;
                        write_chain(f, error)
                    }
                    (Some(error), None) => write!(f, "{error}"),
                    (None, None) => write_chain(f, &**error),
                }
            }
            (RequestError::Silent(time), _) => {
                write!(f, "timed out: nothing was received for {} s", time.as_secs_f64())
            }
            (RequestError::Slow(time), _) => {
                write!(f, "timed out: the answer was not complete after {} s", time.as_secs_f64())
            }
            (RequestError::TooLong(bytes), _) => write!(f, "its answer has more than {bytes} bytes"),
            (RequestError::Payload(error), _) => fmt::Display::fmt(error, f),
            (RequestError::Setup(error), _) => fmt::Display::fmt(error, f),
            (RequestError::SpeaksTls, _) => Ok(()),
        }
    }
}

impl StdError for RequestError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            RequestError::Payload(error) => error.source(),
            RequestError::Setup(error) => error.source(),
            // The text of the others includes their causes.
            _ => None,
        }
    }
}

/// Writes an error and its causes on one line. The message of `reqwest::Error` alone does not name the cause.
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

/// Attributes the failure of a request to its proxy, if the server of the request had no part in it.
pub(crate) fn attribute_to_proxy(fault: RequestError, proxy: &str, host: &str) -> RequestError {
    let RequestError::Unsent(error) = fault else { return fault };
    match proxy_failure::attribute(&*error, proxy, host) {
        None => RequestError::Unsent(error),
        Some(failure) if failure.is_final() => RequestError::Final(Box::new(failure)),
        Some(failure) => RequestError::Unsent(Box::new(failure)),
    }
}

/// Classifies an error of the HTTP client.
pub(crate) fn classify(error: reqwest::Error) -> RequestError {
    // The URL may contain signatures, and the caller knows it.
    let error = error.without_url();
    let unsent = error.is_connect();
    // A TLS error on an established connection is damage in transit, which a retry may avoid.
    let refused = |cause: &(dyn StdError + 'static)| cause.is::<OutOfReach>() || unsent && tls::is_error(cause);
    let is_final = error.is_builder() || causes(&error).any(refused);
    let error = Box::new(error);
    match (is_final, unsent) {
        (true, _) => RequestError::Final(error),
        (false, true) => RequestError::Unsent(error),
        (false, false) => RequestError::Cut(error),
    }
}

#[cfg(feature = "tls")]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_message_names_its_cause() {
        let io = |kind: io::ErrorKind| Box::new(io::Error::from(kind));
        let tls = |error: rustls::Error| Box::new(io::Error::other(error));
        let http = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let issuer = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        for (fault, cause, text) in [
            (
                RequestError::Unsent(io(io::ErrorKind::ConnectionRefused)),
                NoAnswer::ConnectionRefused,
                "connection refused",
            ),
            (RequestError::Final(tls(http)), NoAnswer::SpeaksPlainHttp, "the server speaks plain HTTP, not TLS"),
            (RequestError::SpeaksTls, NoAnswer::SpeaksTls, "the server speaks TLS, not plain HTTP"),
            (
                RequestError::Final(tls(issuer)),
                NoAnswer::UntrustedCertificate,
                "TLS failed: no trusted certificate authority issued the server's certificate",
            ),
            (
                RequestError::Final(tls(rustls::Error::DecryptError)),
                NoAnswer::Tls,
                "TLS failed: cannot decrypt peer's message",
            ),
            (
                RequestError::Silent(Duration::from_secs(5)),
                NoAnswer::TimedOut,
                "timed out: nothing was received for 5 s",
            ),
            (RequestError::Unsent(io(io::ErrorKind::TimedOut)), NoAnswer::TimedOut, "timed out: timed out"),
            (RequestError::Cut("reset".into()), NoAnswer::Other, "reset"),
        ] {
            assert_eq!((fault.cause(), fault.to_string().as_str()), (cause, text), "{fault:?}");
        }
    }
}
